//! Random histories. The history of a correct server is always accepted. Any other history is accepted exactly if a
//! search over every order at every moment finds an explanation.

use super::*;
use crate::rng::Rng;
use proptest::prelude::*;

/// Bounds the operations of one history to at most one more than this, because every order of them is tried.
const OPERATIONS_MAX: u64 = 6;
const VALUES: [&str; 3] = ["1", "2", "x"];

pub(super) fn random_action(rng: &mut Rng, with_expiry: bool) -> Action {
    let value = Bytes::from(VALUES[rng.below(3) as usize]);
    match rng.below(if with_expiry { 12 } else { 10 }) {
        0..=2 => Action::Get,
        3 | 4 => Action::Set(value),
        5 => Action::SetIfAbsent(value),
        6 => Action::Delete,
        7 => Action::IncrementBy(1),
        8 => Action::Append(value),
        9 => [Action::GetSet(value), Action::GetDelete, Action::Exists][rng.below(3) as usize].clone(),
        _ => Action::SetExpiring { value, earliest: 0, latest: 0 },
    }
}

/// The value of a key, if any, and the earliest and latest time at which it expires.
pub(super) type Held = Option<(Bytes, Option<(u64, u64)>)>;

/// Executes an action as a server does, in the plainest way. `held` is already `None` if the value has expired.
pub(super) fn execute(held: &Held, action: &Action) -> (Held, Outcome) {
    let old = held.as_ref().map(|(value, _)| value.clone());
    let told = old.clone().map_or(Outcome::Nil, Outcome::Value);
    let expiry = held.as_ref().and_then(|(_, expiry)| *expiry);
    match action {
        Action::Get => (held.clone(), told),
        Action::Exists => (held.clone(), Outcome::Integer(old.is_some().into())),
        Action::Set(value) => (Some((value.clone(), None)), Outcome::Done),
        Action::SetExpiring { value, earliest, latest } => {
            (Some((value.clone(), Some((*earliest, *latest)))), Outcome::Done)
        }
        Action::SetIfAbsent(_) if old.is_some() => (held.clone(), Outcome::Nil),
        Action::SetIfAbsent(value) => (Some((value.clone(), None)), Outcome::Done),
        Action::Delete => (None, Outcome::Integer(old.is_some().into())),
        Action::IncrementBy(delta) => {
            match String::from_utf8_lossy(&old.unwrap_or_else(|| "0".into())).parse::<i64>() {
                Ok(number) => (Some(((number + delta).to_string().into(), expiry)), Outcome::Integer(number + delta)),
                Err(_) => (held.clone(), Outcome::WrongValue),
            }
        }
        Action::Append(value) => {
            let whole: Bytes = [old.unwrap_or_default(), value.clone()].concat().into();
            let bytes = whole.len() as i64;
            (Some((whole, expiry)), Outcome::Integer(bytes))
        }
        Action::GetSet(value) => (Some((value.clone(), None)), told),
        Action::GetDelete => (None, told),
    }
}

/// Returns true if some order at some moments explains the operations that are not in `used`.
fn explains(operations: &[Operation], used: u32, now: u64, held: &Held) -> bool {
    let left = |at: &usize| used >> at & 1 == 0;
    if (0..operations.len()).filter(left).all(|at| operations[at].returned.is_none()) {
        return true;
    }
    let end = operations.iter().map(|operation| operation.returned.unwrap_or(operation.call)).max().unwrap_or(0);
    (0..operations.len()).filter(left).any(|at| {
        let operation = &operations[at];
        (now.max(operation.call)..=operation.returned.unwrap_or(end)).any(|moment| {
            let expiry = held.as_ref().and_then(|(_, expiry)| *expiry);
            let may_be_there = expiry.is_none_or(|(_, latest)| moment <= latest);
            let may_be_gone = expiry.is_some_and(|(earliest, _)| moment >= earliest);
            let mut states = Vec::new();
            states.extend(may_be_there.then(|| held.clone()));
            states.extend(may_be_gone.then_some(None));
            states.iter().any(|held| {
                let (after, outcome) = execute(held, &operation.action);
                let fits = operation.outcome.as_ref().is_none_or(|told| *told == outcome);
                fits && explains(operations, used | 1 << at, moment, &after)
            })
        })
    })
}

/// Returns the history of a correct server that executed one operation at each moment of a sequence. Clients saw each
/// operation begin somewhat earlier and end somewhat later, or never end.
fn true_history(rng: &mut Rng, with_expiry: bool) -> Vec<Operation> {
    let mut held: Held = None;
    let mut operations = Vec::new();
    let mut moment = 3;
    for client in 0..2 + rng.below(OPERATIONS_MAX - 1) {
        moment += rng.below(3);
        let mut action = random_action(rng, with_expiry);
        let call = moment - rng.below(4);
        let returned = moment + rng.below(4);
        let is_open = rng.below(5) == 0;
        if let Action::SetExpiring { earliest, latest, .. } = &mut action {
            *earliest = if is_open { 0 } else { returned + rng.below(3) };
            *latest = if is_open { u64::MAX } else { *earliest + rng.below(3) };
        }
        if let Some((_, Some((earliest, latest)))) = held
            && moment >= earliest
            && (moment > latest || rng.below(2) == 0)
        {
            held = None;
        }
        let (after, outcome) = execute(&held, &action);
        let happened = !is_open || rng.below(2) == 0;
        if happened {
            held = after;
        }
        operations.push(if is_open {
            open(client, call, action)
        } else {
            done(client, call, returned, action, outcome)
        });
    }
    operations
}

fn random_outcome(rng: &mut Rng) -> Outcome {
    match rng.below(8) {
        0 | 1 => Outcome::Nil,
        2..=4 => Outcome::Value(VALUES[rng.below(3) as usize].into()),
        5 => Outcome::Integer(rng.below(4) as i64),
        6 => Outcome::WrongValue,
        _ => Outcome::Done,
    }
}

/// Checks that the checker agrees with the search over every order.
fn is_judged_rightly(operations: &[Operation]) {
    for operation in operations {
        let is_write = matches!(operation.action, Action::Set(_) | Action::SetExpiring { .. } | Action::SetIfAbsent(_));
        let is_other_form = match operation.outcome {
            // For any action other than these writes, `Done` leaves the result open. The plain server always tells the
            // result, so the search cannot judge such a history.
            Some(Outcome::Done) => !is_write,
            Some(Outcome::Integer(_)) => matches!(operation.action, Action::SetIfAbsent(_)),
            _ => false,
        };
        if is_other_form {
            return;
        }
    }
    let expected = explains(operations, 0, 0, &None);
    match checked(operations) {
        Ok(_) => assert!(expected, "accepted: {operations:#?}"),
        Err(Violation::Refuted(counterexample)) => {
            assert!(!expected, "refused: {counterexample}\n{operations:#?}");
            let held = counterexample.before.clone().map(|value| (value, None));
            assert!(!explains(&counterexample.operations, 0, 0, &held), "{counterexample}\n{operations:#?}");
        }
        Err(undecided) => panic!("{undecided}"),
    }
}

/// Returns a few operations at random times. Operations are open if `operation` gives no outcome.
fn concurrent(rng: &mut Rng, operation: impl Fn(&mut Rng) -> (Action, Option<Outcome>)) -> Vec<Operation> {
    let number = 2 + rng.below(OPERATIONS_MAX);
    let mut one = |client| {
        let call = rng.below(9);
        let (action, outcome) = operation(rng);
        let returned = outcome.as_ref().map(|_| call + rng.below(7));
        Operation { client, call, returned, action, outcome }
    };
    (0..number).map(&mut one).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn what_a_true_server_did_is_accepted(seed: u64) {
        let operations = true_history(&mut Rng::new(seed), true);
        if let Err(violation) = checked(&operations) {
            panic!("{violation}\n{operations:#?}");
        }
    }

    #[test]
    fn a_changed_outcome_is_judged_as_by_trying_everything(seed: u64) {
        let mut rng = Rng::new(seed);
        let mut operations = true_history(&mut rng, seed % 2 == 0);
        let at = rng.below(operations.len() as u64) as usize;
        if operations[at].returned.is_some() {
            operations[at].outcome = Some(random_outcome(&mut rng));
        }
        is_judged_rightly(&operations);
    }

    #[test]
    fn registers_are_judged_as_by_trying_everything(seed: u64) {
        let mut rng = Rng::new(seed);
        let operations = concurrent(&mut rng, |rng| {
            let value = Bytes::from(["a", "b", "c", "d"][rng.below(4) as usize]);
            match rng.below(9) {
                0..=3 => (Action::Get, Some(Outcome::Value(value))),
                4 => (Action::Get, Some(Outcome::Nil)),
                5 => (Action::GetSet(value), Some(random_outcome(rng))),
                6 => (Action::Set(value), None),
                _ => (Action::Set(value), Some(Outcome::Done)),
            }
        });
        is_judged_rightly(&operations);
    }

    #[test]
    fn keys_that_grow_are_judged_as_by_trying_everything(seed: u64) {
        let mut rng = Rng::new(seed);
        let sums = concurrent(&mut rng, |rng| {
            let number = rng.below(5) as i64;
            match rng.below(8) {
                0 | 1 => (Action::Get, Some(Outcome::Value(number.to_string().into()))),
                2 => (Action::IncrementBy(number), None),
                _ => (Action::IncrementBy(1 + number % 2), Some(Outcome::Integer(number))),
            }
        });
        is_judged_rightly(&sums);
        let lengths = concurrent(&mut rng, |rng| {
            let part = Bytes::from(["a", "b", "ab"][rng.below(3) as usize]);
            match rng.below(8) {
                0 | 1 => (Action::Get, Some(Outcome::Value(["a", "ab", "ba", "aab"][rng.below(4) as usize].into()))),
                2 => (Action::Append(part), None),
                _ => (Action::Append(part), Some(Outcome::Integer(1 + rng.below(4) as i64))),
            }
        });
        is_judged_rightly(&lengths);
    }
}
