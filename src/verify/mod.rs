//! Histories: what clients did to keys and what they were told, and whether one server that does one thing at a time
//! could have told them that.
//!
//! A [`History`] is recorded beside a simulation, a test with real processes, or a load; [`check`] then looks for an
//! order of each key's operations that explains every outcome and in which nothing happens before it was called or
//! after it returned. If there is none, the history is not linearizable, and [`Violation`] shows a small part of it
//! that already proves so. Keys are checked one by one: linearizability is a property of each object by itself.

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

/// One operation on one key as its client saw it. Times are of one clock and in one unit, which the caller chooses; what
/// touches at one point of time counts as simultaneous, so two operations of one client must not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who did it. It is only shown: a client may do several things at once.
    pub client: u64,
    /// When it was first sent. An operation that is sent again (`ONCE`) is one operation.
    pub call: u64,
    /// When its outcome came. None: it may have happened at any time after the call, or never.
    pub returned: Option<u64>,
    /// What was asked for.
    pub action: Action,
    /// What was answered. None goes with no `returned`.
    pub outcome: Option<Outcome>,
}

/// What a client asks for, as the Redis command of that name does it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// `GET`: a value or nil.
    Get,
    /// `EXISTS`: 1 or 0.
    Exists,
    /// `SET`: done.
    Set(Bytes),
    /// `SET … PX`: done. A caller that cannot bound the times of an open one gives 0 and `u64::MAX`.
    SetExpiring {
        /// The value.
        value: Bytes,
        /// From then on the key may be gone.
        earliest: u64,
        /// The key is gone for every operation that is called later than that. Not before the operation returns.
        latest: u64,
    },
    /// `SET … NX` (done or nil) or `SETNX` (1 or 0).
    SetIfAbsent(Bytes),
    /// `DEL`: 1 or 0.
    Delete,
    /// `INCRBY` and its kin: the sum, or the wrong value. It does not touch the expiry.
    IncrementBy(i64),
    /// `APPEND`: the new length. It does not touch the expiry.
    Append(Bytes),
    /// `GETSET`: the old value or nil.
    GetSet(Bytes),
    /// `GETDEL`: the old value or nil.
    GetDelete,
}

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There is (or was) no value.
    Nil,
    /// The value.
    Value(Bytes),
    /// A number.
    Integer(i64),
    /// It was executed. To an action that could have told more, this says that what it told is not known, as when one
    /// command deletes several keys.
    Done,
    /// An error that means: surely not executed.
    Refused,
    /// An error because the value is no integer, or the sum is too large for one. Nothing was changed.
    WrongValue,
}

/// What happened to each key. Keys do not exist at first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    keys: BTreeMap<Bytes, Vec<Operation>>,
    refused: u64,
}

impl History {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> History {
        History::default()
    }

    /// Adds an operation, in any order. One that was refused is counted and forgotten.
    ///
    /// # Panics
    /// If it returned before it was called, or has an outcome without a return or the other way round: the recording
    /// is wrong, and nothing it says can be trusted.
    pub fn push(&mut self, key: Bytes, operation: Operation) {
        assert_eq!(operation.returned.is_some(), operation.outcome.is_some(), "{operation:?}");
        assert!(operation.returned.is_none_or(|returned| returned >= operation.call), "{operation:?}");
        if operation.outcome == Some(Outcome::Refused) {
            self.refused += 1;
        } else {
            self.keys.entry(key).or_default().push(operation);
        }
    }

    /// Adds all that another thread recorded by the same clock.
    pub fn merge(&mut self, other: History) {
        self.refused += other.refused;
        for (key, mut operations) in other.keys {
            self.keys.entry(key).or_default().append(&mut operations);
        }
    }

    /// The operations of each key, in the order in which they were added.
    pub fn keys(&self) -> impl Iterator<Item = (&Bytes, &[Operation])> {
        self.keys.iter().map(|(key, operations)| (key, operations.as_slice()))
    }

    /// The number of operations, without those that were refused.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.values().map(Vec::len).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// How many of them have no outcome.
    #[must_use]
    pub fn open(&self) -> usize {
        self.keys.values().flatten().filter(|operation| operation.returned.is_none()).count()
    }

    /// How many were refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }
}
