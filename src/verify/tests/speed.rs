//! The cost of a check: a simulated run with thousands of operations is checked in milliseconds, and a load with many
//! clients on one key can be checked at all.

use super::random::{Held, execute, random_action};
use super::*;
use crate::rng::Rng;

/// Number of operations, all on one key.
const OPERATIONS: u64 = 2000;

/// Returns the history of a correct server for `clients` clients. Each sends one operation after the other to one key.
fn load(
    clients: u64,
    operations: u64,
    share_open: f64,
    seed: u64,
    action: impl Fn(&mut Rng, u64) -> Action,
) -> Vec<Operation> {
    let mut rng = Rng::new(seed);
    let mut free = vec![0; clients as usize];
    let mut pending: Vec<(u64, Operation)> = Vec::new();
    for number in 0..operations {
        let client = (0..clients).min_by_key(|client| free[*client as usize]).unwrap();
        let call = free[client as usize] + 1 + rng.below(5);
        let moment = call + 1 + rng.below(100);
        let returned = moment + 1 + rng.below(20);
        free[client as usize] = returned;
        pending.push((moment, done(client, call, returned, action(&mut rng, number), Outcome::Done)));
    }
    pending.sort_by_key(|(moment, operation)| (*moment, operation.call));
    let mut held: Held = None;
    let mut result = Vec::new();
    for (_, mut operation) in pending {
        let is_open = rng.unit() < share_open;
        if !is_open || rng.below(2) == 0 {
            let (after, outcome) = execute(&held, &operation.action);
            held = after;
            operation.outcome = Some(outcome);
        }
        if is_open {
            (operation.returned, operation.outcome) = (None, None);
        }
        result.push(operation);
    }
    let end = free.into_iter().max().unwrap() + 100;
    let read = held.map_or(Outcome::Nil, |(value, _)| Outcome::Value(value));
    result.push(done(clients, end, end + 1, Action::Get, read));
    result
}

fn read_or_write(rng: &mut Rng, number: u64) -> Action {
    if rng.below(2) == 0 { Action::Get } else { Action::Set(number.to_string().into()) }
}

/// Checks the history, and the same history with a wrong read at its end. Returns the steps of the first check.
#[track_caller]
fn steps(name: &str, mut operations: Vec<Operation>) -> u64 {
    let summary = checked(&operations).unwrap_or_else(|violation| panic!("{name}: {violation}"));
    operations.last_mut().unwrap().outcome = Some(Outcome::Value((OPERATIONS / 2).to_string().into()));
    let Err(Violation::Refuted(_)) = checked(&operations) else { panic!("{name}: a wrong read was not found") };
    summary.steps
}

#[test]
fn many_clients_on_one_key() {
    for clients in [10, 50] {
        for share_open in [0.0, 0.02] {
            let of = |action: fn(&mut Rng, u64) -> Action| load(clients, OPERATIONS, share_open, clients, action);
            let name = |what: &str| format!("{what} by {clients} clients, {share_open} open");
            assert!(steps(&name("reads and writes"), of(read_or_write)) < 2 * OPERATIONS);
            assert!(steps(&name("increments"), of(|_, _| Action::IncrementBy(1))) < 2 * OPERATIONS);
            let append = |_: &mut Rng, number: u64| Action::Append(format!("{number:06},").into());
            assert!(steps(&name("appends"), of(append)) < 2 * OPERATIONS);
        }
    }
}

/// As in a simulated run: few clients at a time on a key, but all kinds of operations, equal values, and many
/// operations that stay open.
#[test]
fn every_kind_of_operation_on_one_key() {
    for seed in 0..200 {
        let operations = load(3, 100, 0.05, seed, |rng, _| random_action(rng, false));
        let summary = checked(&operations).unwrap_or_else(|violation| panic!("{seed}: {violation}"));
        assert!(summary.steps < 20_000, "seed {seed}: {summary:?}");
    }
}
