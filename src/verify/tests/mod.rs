//! Histories written by hand, random histories compared with a search over every order, and the time that a check
//! takes.

mod by_hand;
mod random;
mod speed;

use super::*;

/// Returns a finished operation.
fn done(client: u64, call: u64, returned: u64, action: Action, outcome: Outcome) -> Operation {
    Operation { client, call, returned: Some(returned), action, outcome: Some(outcome) }
}

/// Returns an operation without an outcome.
fn open(client: u64, call: u64, action: Action) -> Operation {
    Operation { client, call, returned: None, action, outcome: None }
}

fn history(operations: &[Operation]) -> History {
    let mut history = History::new();
    operations.iter().for_each(|operation| history.push("k".into(), operation.clone()));
    history
}

fn checked(operations: &[Operation]) -> Result<Summary, Violation> {
    check(&history(operations), Limits::default())
}

fn set(value: &'static str) -> Action {
    Action::Set(value.into())
}

fn append(value: &'static str) -> Action {
    Action::Append(value.into())
}

fn value(value: &'static str) -> Outcome {
    Outcome::Value(value.into())
}
