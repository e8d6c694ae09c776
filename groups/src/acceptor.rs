//! The acceptor of one decision (Lamport, "Paxos Made Simple", section 2.2): its promise and its vote. It knows no
//! instance number. [`Group`](crate::Group) keeps one acceptor for its `next`, and carries the promise on to the
//! following instance.

use crate::{Ballot, Value};

/// The state that must be durable before a promise or a vote leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Acceptor {
    promised: Ballot,
    accepted: Option<Accepted>,
}

/// A value and the ballot under which it was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Accepted {
    /// The ballot of the Accept.
    pub ballot: Ballot,
    /// The value of the Accept.
    pub value: Value,
}

/// The refusal of a low ballot: the acceptor has promised this higher one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused(pub Ballot);

/// Whether an answer needs a log record of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Novelty {
    /// The state changed, and must be durable before the answer leaves.
    New,
    /// The request is a repetition. The answer waits for the record of the first one.
    Repeated,
}

impl Acceptor {
    /// Answers a Prepare: promises to accept nothing below `ballot`, or refuses.
    ///
    /// # Errors
    /// If a higher ballot was promised.
    pub fn prepare(&mut self, ballot: Ballot) -> Result<Novelty, Refused> {
        if ballot < self.promised {
            return Err(Refused(self.promised));
        }
        Ok(self.promise(ballot))
    }

    /// Answers an Accept: votes, or refuses. A vote for a ballot promises that ballot too.
    ///
    /// # Errors
    /// If a higher ballot was promised.
    ///
    /// # Panics
    /// If two values come under one ballot (invariant 3).
    pub fn accept(&mut self, ballot: Ballot, value: &Value) -> Result<Novelty, Refused> {
        if ballot < self.promised {
            return Err(Refused(self.promised));
        }
        if let Some(accepted) = &self.accepted
            && accepted.ballot == ballot
        {
            assert!(accepted.value == *value, "two values under ballot {ballot}");
            return Ok(Novelty::Repeated);
        }
        self.promise(ballot);
        self.accepted = Some(Accepted { ballot, value: value.clone() });
        Ok(Novelty::New)
    }

    /// Restores a recorded vote. Records that were logged again may stand in another order than the original ones. So a
    /// vote counts even if the log holds a higher promise before it. Otherwise the next promise would not report the
    /// vote. Returns false if the record holds another value than an earlier record for the same ballot.
    #[must_use]
    pub fn recall(&mut self, ballot: Ballot, value: &Value) -> bool {
        self.promised = self.promised.max(ballot);
        match &self.accepted {
            Some(accepted) if accepted.ballot >= ballot => accepted.ballot > ballot || accepted.value == *value,
            _ => {
                self.accepted = Some(Accepted { ballot, value: value.clone() });
                true
            }
        }
    }

    /// Returns the highest promised ballot. It never decreases (invariant 1).
    #[must_use]
    pub fn promised(&self) -> Ballot {
        self.promised
    }

    /// Returns the last vote. No earlier vote has a higher ballot.
    #[must_use]
    pub fn accepted(&self) -> Option<&Accepted> {
        self.accepted.as_ref()
    }

    /// Returns the value if it was accepted under exactly the ballot `chosen`. A value accepted under another ballot,
    /// even a higher one, may differ from the chosen one.
    #[must_use]
    pub fn accepted_under(&self, chosen: Ballot) -> Option<&Value> {
        self.accepted.as_ref().filter(|accepted| accepted.ballot == chosen).map(|accepted| &accepted.value)
    }

    /// Goes on to the following decision: removes the vote and keeps the promise.
    pub fn begin_instance(&mut self) {
        self.accepted = None;
    }

    fn promise(&mut self, ballot: Ballot) -> Novelty {
        if ballot == self.promised {
            return Novelty::Repeated;
        }
        self.promised = ballot;
        Novelty::New
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ms, NodeId, ValueBuilder};

    fn ballot(round: u64) -> Ballot {
        Ballot { round, node: NodeId(1) }
    }

    fn value(time: u64) -> Value {
        ValueBuilder::default().seal(0, Ms(time), None)
    }

    #[test]
    fn a_promise_bars_lower_ballots_and_a_repetition_is_known() {
        let mut acceptor = Acceptor::default();
        assert_eq!(acceptor.prepare(ballot(2)), Ok(Novelty::New));
        assert_eq!(acceptor.prepare(ballot(2)), Ok(Novelty::Repeated));
        assert_eq!(acceptor.prepare(ballot(1)), Err(Refused(ballot(2))));
        assert_eq!(acceptor.accept(ballot(1), &value(1)), Err(Refused(ballot(2))));
        assert_eq!(acceptor.accepted(), None);
    }

    #[test]
    fn a_vote_promises_its_ballot_and_a_later_one_replaces_it() {
        let mut acceptor = Acceptor::default();
        assert_eq!(acceptor.accept(ballot(1), &value(1)), Ok(Novelty::New));
        assert_eq!(acceptor.accept(ballot(1), &value(1)), Ok(Novelty::Repeated));
        assert_eq!(acceptor.promised(), ballot(1));
        assert_eq!(acceptor.accept(ballot(3), &value(3)), Ok(Novelty::New));
        assert_eq!(acceptor.accepted_under(ballot(1)), None);
        assert_eq!(acceptor.accepted_under(ballot(3)), Some(&value(3)));
    }

    #[test]
    fn a_new_instance_keeps_the_promise() {
        let mut acceptor = Acceptor::default();
        acceptor.accept(ballot(4), &value(1)).unwrap();
        acceptor.begin_instance();
        assert_eq!((acceptor.promised(), acceptor.accepted()), (ballot(4), None));
    }

    #[test]
    #[should_panic(expected = "two values under ballot 1.1")]
    fn two_values_under_one_ballot_stop_the_node() {
        let mut acceptor = Acceptor::default();
        acceptor.accept(ballot(1), &value(1)).unwrap();
        acceptor.accept(ballot(1), &value(2)).unwrap();
    }
}
