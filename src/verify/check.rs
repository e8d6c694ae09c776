//! The check of a whole history, key by key, and its result.

use super::History;
use super::explain::{Counterexample, explain};
use super::model::Model;
use super::search::{Verdict, search};
use bytes::Bytes;
use std::fmt;

/// Default limit of steps for one key. They take a few seconds. Only a history that is made to be hard needs more
/// steps.
pub const STEPS_MAX: u64 = 2_000_000;

/// Limits of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum points of the search that are visited for each key.
    pub steps_max: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { steps_max: STEPS_MAX }
    }
}

/// Counts of a check that found no violation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Number of keys.
    pub keys: usize,
    /// Number of operations on these keys.
    pub operations: usize,
    /// Number of these operations that have no outcome.
    pub open: usize,
    /// Number of refused operations, which play no part.
    pub refused: u64,
    /// Number of points of the search that were visited.
    pub steps: u64,
}

/// Reason why a history cannot be called linearizable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// The history is not linearizable: no order explains a few operations on one key.
    Refuted(Box<Counterexample>),
    /// The search of a key reached its limit. Whether the key is linearizable is not known.
    Undecided {
        /// The key.
        key: Bytes,
        /// Number of operations on the key.
        operations: usize,
        /// The limit of steps.
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
                 steps; use more keys, or fewer operations at a time on each key",
                key.escape_ascii()
            ),
        }
    }
}

/// Checks every key.
///
/// # Errors
/// The first key that is not linearizable. If there is none, the first key that took too long to decide.
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
