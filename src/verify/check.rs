//! The check of a whole history, key by key, and its result.

use super::History;
use super::explain::{Counterexample, explain};
use super::model::Model;
use super::search::{Verdict, search};
use bytes::Bytes;
use std::fmt;

/// The steps for one key if nothing else is said: more than a history takes that is not made to be hard, and a few
/// seconds.
pub const STEPS_MAX: u64 = 2_000_000;

/// How long a check may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Points of the search that may be visited for each key.
    pub steps_max: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { steps_max: STEPS_MAX }
    }
}

/// What was checked and found to be linearizable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Keys.
    pub keys: usize,
    /// Operations on them.
    pub operations: usize,
    /// Those among them that have no outcome.
    pub open: usize,
    /// Operations that were refused and play no part.
    pub refused: u64,
    /// Points of the search that were visited.
    pub steps: u64,
}

/// Why a history cannot be called linearizable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// It is not: a few operations on one key cannot have happened in any order.
    Refuted(Box<Counterexample>),
    /// The search of a key reached its limit. Nothing is known about it.
    Undecided {
        /// The key.
        key: Bytes,
        /// How many operations there are on it.
        operations: usize,
        /// The limit.
        steps_max: u64,
    },
}

impl std::error::Error for Violation {}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Refuted(counterexample) => counterexample.fmt(f),
            Violation::Undecided { key, operations, steps_max } => write!(
                f,
                "undecided whether the {operations} operations on \"{}\" are linearizable: not known after {steps_max} \
                 steps; fewer operations at a time on a key, or more keys, make it easier",
                key.escape_ascii()
            ),
        }
    }
}

/// Checks every key.
///
/// # Errors
/// With the first key that is not linearizable; if there is none such, with the first that took too long to tell.
pub fn check(history: &History, limits: Limits) -> Result<Summary, Violation> {
    let mut summary = Summary {
        keys: history.keys().count(),
        operations: history.len(),
        open: history.open(),
        refused: history.refused(),
        steps: 0,
    };
    let mut undecided = None;
    for (key, operations) in history.keys() {
        let mut steps = limits.steps_max;
        match search(&mut Model::new(None, operations), &mut steps) {
            Verdict::Linearizable => {}
            Verdict::Refuted => return Err(Violation::Refuted(Box::new(explain(key, operations, limits)))),
            Verdict::Undecided => {
                let steps_max = limits.steps_max;
                let found = Violation::Undecided { key: key.clone(), operations: operations.len(), steps_max };
                undecided.get_or_insert(found);
            }
        }
        summary.steps += limits.steps_max - steps;
    }
    undecided.map_or(Ok(summary), Err)
}
