//! Histories: the operations of clients on keys and their outcomes. The check finds out whether a single server that
//! executes one operation at a time could have given these outcomes.
//!
//! A [`History`] is recorded during a simulation, a test with real processes, or a load. [`check()`] then looks for an
//! order of each key's operations that explains every outcome and in which no operation happens before its call or
//! after its return. If there is none, the history is not linearizable, and [`Violation`] shows a small part of it that
//! already proves so. Keys are checked one by one: linearizability is a property of each object by itself.

mod check;
mod explain;
mod model;
mod reply;
mod search;
mod values;

#[cfg(test)]
mod tests;

pub use check::{Limits, STEPS_MAX, Summary, Violation, check};
pub use explain::Counterexample;

use bytes::Bytes;
use std::collections::BTreeMap;

/// One operation on one key as its client saw it. Times are of one clock and in one unit, which the caller chooses. If
/// one operation returns at the very time at which another is called, the two count as concurrent. So if a client calls
/// an operation only after another one has returned, the time of that call must be later than that of the return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The number of the client, which is only printed. A client may have several operations in progress.
    pub client: u64,
    /// Time of the first sending. An operation that is sent again (`ONCE`) is one operation.
    pub call: u64,
    /// Time of the outcome. None: the operation may have happened at any time after the call, or never.
    pub returned: Option<u64>,
    /// The requested action.
    pub action: Action,
    /// The answer. None exactly if `returned` is None.
    pub outcome: Option<Outcome>,
}

/// An action that a client requests, with the effect of the Redis command of that name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// `GET`: a value or nil.
    Get,
    /// `EXISTS`: 1 or 0.
    Exists,
    /// `SET`: done.
    Set(Bytes),
    /// `SET … PX`: done. A caller that cannot bound the expiry of an open operation gives 0 and `u64::MAX`.
    SetExpiring {
        /// The value.
        value: Bytes,
        /// Earliest expiry: from this time on the key may be gone.
        earliest: u64,
        /// Latest expiry: every operation called after this time finds the key gone. This time is not before the return
        /// of this operation.
        latest: u64,
    },
    /// `SET … NX` (done or nil) or `SETNX` (1 or 0).
    SetIfAbsent(Bytes),
    /// `DEL`: 1 or 0.
    Delete,
    /// `INCRBY` and its kin: the sum, or [`Outcome::WrongValue`]. It does not touch the expiry.
    IncrementBy(i64),
    /// `APPEND`: the new length. It does not touch the expiry.
    Append(Bytes),
    /// `GETSET`: the old value or nil.
    GetSet(Bytes),
    /// `GETDEL`: the old value or nil.
    GetDelete,
}

/// The outcome of an operation, as its client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There is (or was) no value.
    Nil,
    /// The value.
    Value(Bytes),
    /// A number.
    Integer(i64),
    /// The operation was executed. For an action that could have told more, the rest of its answer is not known, as
    /// when one command deletes several keys.
    Done,
    /// An error that says that the operation was surely not executed.
    Refused,
    /// An error because the value is no integer, or the sum is too large for one. Nothing was changed.
    WrongValue,
}

/// Operations on each key. Keys do not exist at first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    keys: BTreeMap<Bytes, Vec<Operation>>,
    refused: u64,
}

impl History {
    /// Creates an empty history.
    #[must_use]
    pub fn new() -> History {
        History::default()
    }

    /// Adds an operation. The order of the calls does not matter. A refused operation is only counted.
    ///
    /// # Panics
    /// If the operation returned before it was called, or has an outcome without a return or a return without an
    /// outcome: the recording is wrong, and nothing in it can be trusted.
    pub fn push(&mut self, key: Bytes, operation: Operation) {
        assert_eq!(operation.returned.is_some(), operation.outcome.is_some(), "{operation:?}");
        assert!(operation.returned.is_none_or(|returned| returned >= operation.call), "{operation:?}");
        if operation.outcome == Some(Outcome::Refused) {
            self.refused += 1;
        } else {
            self.keys.entry(key).or_default().push(operation);
        }
    }

    /// Adds the recording of another thread that used the same clock.
    pub fn merge(&mut self, other: History) {
        self.refused += other.refused;
        for (key, mut operations) in other.keys {
            self.keys.entry(key).or_default().append(&mut operations);
        }
    }

    /// Returns the operations of each key, in the order in which they were added.
    pub fn keys(&self) -> impl Iterator<Item = (&Bytes, &[Operation])> {
        self.keys.iter().map(|(key, operations)| (key, operations.as_slice()))
    }

    /// Returns the number of operations, without refused ones.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.values().map(Vec::len).sum()
    }

    /// Returns true if there are no operations.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns the number of operations that have no outcome.
    #[must_use]
    pub fn open(&self) -> usize {
        self.keys.values().flatten().filter(|operation| operation.returned.is_none()).count()
    }

    /// Returns the number of refused operations.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }
}
