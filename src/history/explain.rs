//! From a history that is not linearizable to the few operations that show it.
//!
//! Three reductions, each of which leaves a history that could only be wrong if the whole one is: the shortest
//! beginning that is wrong already; only what came after a moment at which the value was known; and without operations
//! that the others cannot have noticed, as long as what remains is still wrong.

use super::check::Limits;
use super::model::Model;
use super::search::{Verdict, search};
use super::{Action, Operation, Outcome};
use bytes::Bytes;
use std::fmt;

/// The steps that all reductions together may take, as a multiple of the limit for one key.
const EFFORT: u64 = 10;
/// The most operations that are printed.
const SHOWN_MAX: usize = 40;
/// How much of a value is printed.
const SHOWN_BYTES_MAX: usize = 40;

/// Operations on one key that no order explains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counterexample {
    /// The key.
    pub key: Bytes,
    /// How many operations there were on it.
    pub of: usize,
    /// What the key held before these operations.
    pub before: Option<Bytes>,
    /// The operation that told it, unless they are the first ones.
    pub told_by: Option<Operation>,
    /// The operations by the time of their call. Those that had not returned when it became clear are open here.
    pub operations: Vec<Operation>,
}

/// Reduces the operations on a key, which are not linearizable.
pub(super) fn explain(key: &Bytes, operations: &[Operation], limits: Limits) -> Counterexample {
    let mut operations = operations.to_vec();
    operations.sort_by_key(|operation| operation.call);
    let of = operations.len();
    let steps = limits.steps_max.saturating_mul(EFFORT);
    let mut reduction = Reduction { before: None, told_by: None, operations, steps, steps_max: limits.steps_max };
    reduction.end_early();
    reduction.begin_late();
    reduction.leave_out();
    let Reduction { before, told_by, operations, .. } = reduction;
    Counterexample { key: key.clone(), of, before, told_by, operations }
}

struct Reduction {
    before: Option<Bytes>,
    told_by: Option<Operation>,
    operations: Vec<Operation>,
    /// What is left of the effort.
    steps: u64,
    steps_max: u64,
}

impl Reduction {
    fn is_wrong(&mut self, before: Option<&Bytes>, operations: &[Operation]) -> bool {
        let given = self.steps.min(self.steps_max);
        let mut left = given;
        let verdict = search(&mut Model::new(before, operations), &mut left);
        // Building the model is work as well.
        self.steps = self.steps.saturating_sub(given - left + operations.len() as u64);
        verdict == Verdict::Refuted
    }

    /// Cuts after the return that makes it wrong. What is right cannot have a beginning that is wrong.
    fn end_early(&mut self) {
        let mut returns: Vec<u64> = self.operations.iter().filter_map(|operation| operation.returned).collect();
        returns.sort_unstable();
        let (mut right, mut wrong) = (0, returns.len() - 1);
        while right < wrong {
            let middle = right.midpoint(wrong);
            let beginning = until(&self.operations, returns[middle]);
            if self.is_wrong(None, &beginning) {
                wrong = middle;
            } else {
                right = middle + 1;
            }
        }
        self.operations = until(&self.operations, returns[wrong]);
    }

    /// Cuts before the last moment at which nothing was going on and the value was known, if what follows is wrong.
    fn begin_late(&mut self) {
        let expires = |operation: &Operation| matches!(operation.action, Action::SetExpiring { .. });
        if self.operations.iter().any(expires) {
            return;
        }
        for at in (0..self.operations.len()).rev() {
            let Some(before) = alone_and_telling(&self.operations, at) else { continue };
            let rest = self.operations[at + 1..].to_vec();
            if self.is_wrong(before.as_ref(), &rest) {
                self.told_by = Some(self.operations[at].clone());
                (self.before, self.operations) = (before, rest);
                return;
            }
            if self.steps == 0 {
                return;
            }
        }
    }

    /// Leaves out as many as can be, in ever smaller pieces.
    fn leave_out(&mut self) {
        let mut piece = self.operations.len().div_ceil(2);
        loop {
            let before = self.operations.len();
            let mut end = before;
            while end > 0 && self.steps > 0 {
                let start = end.saturating_sub(piece);
                self.leave_out_of(start, end);
                end = start;
            }
            if self.steps == 0 || (piece == 1 && self.operations.len() == before) {
                return;
            }
            piece = piece.div_ceil(2);
        }
    }

    /// Leaves out what can be of `start..end`, if the rest is wrong.
    fn leave_out_of(&mut self, start: usize, end: usize) {
        let before = self.before.clone();
        let mut model = Model::new(before.as_ref(), &self.operations);
        let mut rest = self.operations.clone();
        for at in (start..end.min(rest.len())).rev() {
            if model.is_dispensable(&rest[at]) {
                rest.remove(at);
            }
        }
        if rest.len() < self.operations.len() && self.is_wrong(before.as_ref(), &rest) {
            self.operations = rest;
        }
    }
}

/// The history as it was known at a moment.
fn until(operations: &[Operation], moment: u64) -> Vec<Operation> {
    let known = |operation: &Operation| match operation.returned {
        Some(returned) if returned > moment => Operation { returned: None, outcome: None, ..operation.clone() },
        _ => operation.clone(),
    };
    operations.iter().filter(|operation| operation.call <= moment).map(known).collect()
}

/// What the key holds after the operation at `at`, if that is known from itself, and all others were over before its
/// call or were called after its return.
fn alone_and_telling(operations: &[Operation], at: usize) -> Option<Option<Bytes>> {
    let operation = &operations[at];
    let returned = operation.returned?;
    let value = match (&operation.action, &operation.outcome) {
        (Action::Get, Some(Outcome::Value(value))) => Some(Some(value.clone())),
        (Action::Get, Some(Outcome::Nil)) => Some(None),
        (Action::Set(value), Some(Outcome::Done)) => Some(Some(value.clone())),
        (Action::GetSet(value), _) => Some(Some(value.clone())),
        (Action::Delete | Action::GetDelete, _) => Some(None),
        (Action::IncrementBy(_), Some(Outcome::Integer(sum))) => Some(Some(sum.to_string().into())),
        _ => None,
    }?;
    let is_before = |other: &Operation| other.returned.is_some_and(|returned| returned < operation.call);
    let alone =
        operations[..at].iter().all(is_before) && operations[at + 1..].iter().all(|other| other.call > returned);
    alone.then_some(value)
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shown, of) = (self.operations.len(), self.of);
        let key = self.key.escape_ascii();
        writeln!(
            f,
            "not linearizable: no order explains these {shown} of the {of} operations on \"{key}\" (times in µs)"
        )?;
        let before = self.before.as_ref().map_or("nothing".to_owned(), quoted);
        match &self.told_by {
            None => writeln!(f, "the key holds {before} before them")?,
            Some(told_by) => {
                let [client, call, returned, what] = row(told_by);
                writeln!(
                    f,
                    "the key holds {before} before them, after client {client} from {call} to {returned}: {what}"
                )?;
            }
        }
        let skipped = shown.saturating_sub(SHOWN_MAX);
        if skipped > 0 {
            writeln!(f, "({skipped} earlier ones are not shown)")?;
        }
        let rows: Vec<[String; 4]> = self.operations[skipped..].iter().map(row).collect();
        let head = ["client", "called", "returned", "operation"].map(str::to_owned);
        let width = |column: usize| rows.iter().chain([&head]).map(|row| row[column].len()).max().unwrap_or(0);
        let widths = [width(0), width(1), width(2)];
        for (number, [client, call, returned, what]) in [&head].into_iter().chain(&rows).enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            let [a, b, c] = widths;
            write!(f, "{client:>a$}  {call:>b$}  {returned:>c$}  {what}")?;
        }
        Ok(())
    }
}

fn row(operation: &Operation) -> [String; 4] {
    let action = match &operation.action {
        Action::Get => "GET".to_owned(),
        Action::Exists => "EXISTS".to_owned(),
        Action::Set(value) => format!("SET {}", quoted(value)),
        Action::SetExpiring { value, earliest, latest } => {
            format!("SET {} expiring between {earliest} and {latest}", quoted(value))
        }
        Action::SetIfAbsent(value) => format!("SET {} NX", quoted(value)),
        Action::Delete => "DEL".to_owned(),
        Action::IncrementBy(delta) => format!("INCRBY {delta}"),
        Action::Append(value) => format!("APPEND {}", quoted(value)),
        Action::GetSet(value) => format!("GETSET {}", quoted(value)),
        Action::GetDelete => "GETDEL".to_owned(),
    };
    let outcome = match &operation.outcome {
        None => "?".to_owned(),
        Some(Outcome::Nil) => "(nil)".to_owned(),
        Some(Outcome::Value(value)) => quoted(value),
        Some(Outcome::Integer(number)) => number.to_string(),
        Some(Outcome::Done) => "OK".to_owned(),
        Some(Outcome::Refused) => "refused".to_owned(),
        Some(Outcome::WrongValue) => "error: not an integer, or out of range".to_owned(),
    };
    let returned = operation.returned.map_or("?".to_owned(), |returned| returned.to_string());
    [operation.client.to_string(), operation.call.to_string(), returned, format!("{action} -> {outcome}")]
}

/// A value as it is printed: its end tells more of one that grew than its beginning.
fn quoted(value: &Bytes) -> String {
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    let Some(skipped) = value.len().checked_sub(SHOWN_BYTES_MAX).filter(|skipped| *skipped > 0) else {
        return format!("\"{}\"", text(value));
    };
    let half = SHOWN_BYTES_MAX / 2;
    format!("\"{}…{}\" ({} bytes)", text(&value[..half]), text(&value[half + skipped..]), value.len())
}
