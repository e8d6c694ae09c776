//! Reduces a history that is not linearizable to the few operations that show it.
//!
//! There are four reductions. Each leaves a history that can only be wrong if the whole history is wrong:
//!
//! 1. Keep the shortest beginning that is already wrong.
//! 2. If the key only grows, keep the operations within a range of sizes.
//! 3. Keep the operations after a moment at which the value was known.
//! 4. Leave out operations that the others cannot have noticed, as long as the rest is still wrong.

use super::check::Limits;
use super::model::Model;
use super::search::{Verdict, search};
use super::{Action, Operation, Outcome};
use bytes::Bytes;
use std::fmt;

/// Maximum steps of all reductions together, as a multiple of the limit for one key.
const EFFORT: u64 = 10;
/// Maximum operations that are printed.
const SHOWN_MAX: usize = 24;
/// Maximum bytes of a value that are printed.
const SHOWN_BYTES_MAX: usize = 40;

/// Operations on one key that no order explains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counterexample {
    /// The key.
    pub key: Bytes,
    /// Number of all operations on the key.
    pub of: usize,
    /// The value of the key before these operations.
    pub before: Option<Bytes>,
    /// The operation that shows this value. None if these operations are the first ones.
    pub told_by: Option<Operation>,
    /// The operations by the time of their call. Operations that had not returned when the violation became clear are
    /// open here.
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
    reduction.narrow();
    reduction.begin_late();
    reduction.leave_out();
    let Reduction { before, told_by, operations, .. } = reduction;
    Counterexample { key: key.clone(), of, before, told_by, operations }
}

struct Reduction {
    before: Option<Bytes>,
    told_by: Option<Operation>,
    operations: Vec<Operation>,
    /// Steps that are left.
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

    /// Cuts after the return that makes the history wrong. A linearizable history has no beginning that is wrong.
    fn end_early(&mut self) {
        let mut returns: Vec<u64> = self.operations.iter().filter_map(|operation| operation.returned).collect();
        returns.sort_unstable();
        let all = std::mem::take(&mut self.operations);
        let at = partition_point(returns.len() - 1, |at| !self.is_wrong(None, &until(&all, returns[at])));
        self.operations = until(&all, returns[at]);
    }

    /// For a key that only grows, keeps the operations that found at least a lower size and left at most an upper size.
    /// In every order that explains the history, all other operations come before or after the kept ones. Open
    /// operations stay, because they may have found and left sizes in that range.
    fn narrow(&mut self) {
        let Some(spans) = spans(&self.operations) else { return };
        let within = |operations: &[Operation], (low, high): (i64, i64)| -> Vec<Operation> {
            let fits = |span: &Option<(i64, i64)>| span.is_none_or(|(needs, leaves)| low <= needs && leaves <= high);
            operations
                .iter()
                .zip(&spans)
                .filter(|(_, span)| fits(span))
                .map(|(operation, _)| operation.clone())
                .collect()
        };
        let all = std::mem::take(&mut self.operations);
        let mut highs: Vec<i64> = spans.iter().flatten().map(|(_, leaves)| *leaves).collect();
        highs.sort_unstable();
        let at = partition_point(highs.len() - 1, |at| !self.is_wrong(None, &within(&all, (i64::MIN, highs[at]))));
        let high = highs[at];
        let mut lows: Vec<(i64, usize)> = (0..all.len())
            .filter_map(|at| Some((spans[at]?.1, at)).filter(|_| value_after(&all[at]).is_some()))
            .collect();
        lows.sort_unstable();
        let before = |at: usize| value_after(&all[lows[at].1]).flatten();
        let at =
            partition_point(lows.len(), |at| self.is_wrong(before(at).as_ref(), &within(&all, (lows[at].0, high))));
        self.operations = match at.checked_sub(1) {
            None => within(&all, (i64::MIN, high)),
            Some(at) => {
                self.before = before(at);
                self.told_by = Some(all[lows[at].1].clone());
                within(&all, (lows[at].0, high))
            }
        };
    }

    /// Drops all up to the last moment at which no operation was in progress, the value was known, and the rest is
    /// still wrong.
    fn begin_late(&mut self) {
        let expires = |operation: &Operation| matches!(operation.action, Action::SetExpiring { .. });
        if self.operations.iter().any(expires) {
            return;
        }
        for at in (0..self.operations.len()).rev() {
            let Some(before) = value_after(&self.operations[at]).filter(|_| is_alone(&self.operations, at)) else {
                continue;
            };
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

    /// Leaves out as many operations as possible, in ever smaller pieces.
    fn leave_out(&mut self) {
        loop {
            let mut model = Model::new(self.before.as_ref(), &self.operations);
            let mut dispensable: Vec<usize> =
                (0..self.operations.len()).filter(|at| model.is_dispensable(&self.operations[*at])).collect();
            let of = self.operations.len();
            let mut piece = dispensable.len();
            // An operation that may be left out of a history may also be left out of it when others are missing.
            while piece > 0 && self.steps > 0 {
                let mut end = dispensable.len();
                while end > 0 && self.steps > 0 {
                    let start = end.saturating_sub(piece);
                    if self.leave_out_these(&dispensable[start..end]) {
                        let gone = dispensable.drain(start..end).len();
                        dispensable[start..].iter_mut().for_each(|at| *at -= gone);
                    }
                    end = start;
                }
                piece /= 2;
            }
            if self.operations.len() == of || self.steps == 0 {
                return;
            }
        }
    }

    /// Leaves out the operations at these places, if the rest is wrong. Returns true if it is.
    fn leave_out_these(&mut self, places: &[usize]) -> bool {
        let mut rest = self.operations.clone();
        places.iter().rev().for_each(|at| _ = rest.remove(*at));
        let before = self.before.clone();
        let is_wrong = self.is_wrong(before.as_ref(), &rest);
        if is_wrong {
            self.operations = rest;
        }
        is_wrong
    }
}

/// Returns the history as it was known at a moment.
fn until(operations: &[Operation], moment: u64) -> Vec<Operation> {
    let known = |operation: &Operation| match operation.returned {
        Some(returned) if returned > moment => Operation { returned: None, outcome: None, ..operation.clone() },
        _ => operation.clone(),
    };
    operations.iter().filter(|operation| operation.call <= moment).map(known).collect()
}

/// Returns how many of `0..count` come before the first for which `holds` is false. `holds` must be false for all that
/// follow.
fn partition_point(count: usize, mut holds: impl FnMut(usize) -> bool) -> usize {
    let (mut start, mut end) = (0, count);
    while start < end {
        let middle = start.midpoint(end);
        if holds(middle) {
            start = middle + 1;
        } else {
            end = middle;
        }
    }
    start
}

/// Returns the sum or length that each operation found and left, or None for open operations. Returns None for the
/// whole history if an operation does anything but raise or read the sum or length, or if the outcome of a closed
/// operation does not tell the sum or length.
fn spans(operations: &[Operation]) -> Option<Vec<Option<(i64, i64)>>> {
    let sums = operations.iter().any(|operation| matches!(operation.action, Action::IncrementBy(_)));
    let number = |value: &Bytes| std::str::from_utf8(value).ok()?.parse().ok();
    let span = |operation: &Operation| {
        let (needs, leaves) = match (&operation.action, operation.outcome.as_ref()) {
            (Action::Get, Some(Outcome::Nil)) => (0, 0),
            (Action::Get, Some(Outcome::Value(value))) if sums => [number(value)?; 2].into(),
            (Action::Get, Some(Outcome::Value(value))) => [value.len() as i64; 2].into(),
            (Action::Get, None) => return Some(None),
            (Action::IncrementBy(delta), outcome) if sums && *delta > 0 => match outcome {
                None => return Some(None),
                Some(Outcome::Integer(sum)) => (sum.checked_sub(*delta)?, *sum),
                Some(_) => return None,
            },
            (Action::Append(value), outcome) if !sums && !value.is_empty() => match outcome {
                None => return Some(None),
                Some(Outcome::Integer(bytes)) => (bytes.checked_sub(value.len() as i64)?, *bytes),
                Some(_) => return None,
            },
            _ => return None,
        };
        Some(Some((needs, leaves)))
    };
    operations.iter().map(span).collect()
}

/// Returns the value of the key after an operation. None if the operation does not tell the value or sets an expiry.
fn value_after(operation: &Operation) -> Option<Option<Bytes>> {
    operation.returned?;
    match (&operation.action, &operation.outcome) {
        (Action::Get, Some(Outcome::Value(value))) => Some(Some(value.clone())),
        (Action::Get, Some(Outcome::Nil)) => Some(None),
        (Action::Set(value), Some(Outcome::Done)) => Some(Some(value.clone())),
        (Action::GetSet(value), _) => Some(Some(value.clone())),
        (Action::Delete | Action::GetDelete, _) => Some(None),
        (Action::IncrementBy(_), Some(Outcome::Integer(sum))) => Some(Some(sum.to_string().into())),
        _ => None,
    }
}

/// Returns true if all others returned before the call of the operation at `at` or were called after its return.
fn is_alone(operations: &[Operation], at: usize) -> bool {
    let operation = &operations[at];
    let is_before = |other: &Operation| other.returned.is_some_and(|returned| returned < operation.call);
    let is_after = |other: &Operation| operation.returned.is_some_and(|returned| other.call > returned);
    operations[..at].iter().all(is_before) && operations[at + 1..].iter().all(is_after)
}

impl Counterexample {
    /// Returns the operations to print: the last ones, and open ones only as far as there is room.
    fn listed(&self) -> Vec<&Operation> {
        let mut order: Vec<usize> = (0..self.operations.len()).rev().collect();
        order.sort_by_key(|at| self.operations[*at].returned.is_none());
        order.truncate(SHOWN_MAX);
        order.sort_unstable();
        order.into_iter().map(|at| &self.operations[at]).collect()
    }
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shown, of) = (self.operations.len(), self.of);
        let key = self.key.escape_ascii();
        writeln!(f, "not linearizable: no order explains these {shown} of the {of} operations on \"{key}\"")?;
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
        let listed = self.listed();
        if listed.len() < shown {
            writeln!(f, "({} others are not shown; open ones are left out first)", shown - listed.len())?;
        }
        let rows: Vec<[String; 4]> = listed.into_iter().map(row).collect();
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

/// Formats a value for printing, without the middle of a long one. Keeps the end of the value, too, because the end of
/// a value that grew tells more than its beginning.
fn quoted(value: &Bytes) -> String {
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    let Some(skipped) = value.len().checked_sub(SHOWN_BYTES_MAX).filter(|skipped| *skipped > 0) else {
        return format!("\"{}\"", text(value));
    };
    let half = SHOWN_BYTES_MAX / 2;
    format!("\"{}…{}\" ({} bytes)", text(&value[..half]), text(&value[half + skipped..]), value.len())
}
