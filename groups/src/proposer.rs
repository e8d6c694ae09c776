//! The proposer of one decision (Lamport, "Paxos Made Simple", section 2.2): it gathers promises under its ballot, then
//! votes of acceptors for one value. After a decision [`Proposer::follow`] goes on to the next with the promises that
//! it already has.

use crate::acceptor::Accepted;
use crate::members::{Members, Tally};
use crate::{Ballot, NodeId, Value};

/// A ballot in progress.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proposer {
    ballot: Ballot,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Preparing { promises: Tally, highest: Option<Accepted> },
    Prepared { bound: Option<Value> },
    Accepting { value: Value, votes: Tally },
}

impl Proposer {
    /// Begins phase 1 under `ballot`, which must never have been used before.
    #[must_use]
    pub fn prepare(ballot: Ballot) -> Proposer {
        Proposer { ballot, phase: Phase::Preparing { promises: Tally::default(), highest: None } }
    }

    /// Returns the ballot of all its messages.
    #[must_use]
    pub fn ballot(&self) -> Ballot {
        self.ballot
    }

    /// Counts a durable promise of `from`, with the vote that it reports. Returns true if this promise completes the
    /// majority.
    pub fn on_promise(&mut self, from: NodeId, accepted: Option<Accepted>, members: &Members) -> bool {
        let Phase::Preparing { promises, highest } = &mut self.phase else { return false };
        if !members.contains(from) {
            return false;
        }
        promises.add(from, members);
        let highest_ballot = highest.as_ref().map_or(Ballot::ZERO, |known| known.ballot);
        if let Some(accepted) = accepted
            && accepted.ballot > highest_ballot
        {
            *highest = Some(accepted);
        }
        if !promises.is_quorum(members) {
            return false;
        }
        let bound = highest.take().map(|accepted| accepted.value);
        self.phase = Phase::Prepared { bound };
        true
    }

    /// Returns true if phase 1 is still in progress.
    #[must_use]
    pub fn is_preparing(&self) -> bool {
        matches!(self.phase, Phase::Preparing { .. })
    }

    /// Returns true if the promise of `from` is counted in phase 1.
    #[must_use]
    pub fn has_promise(&self, from: NodeId, members: &Members) -> bool {
        matches!(&self.phase, Phase::Preparing { promises, .. } if promises.contains(from, members))
    }

    /// Returns true if the proposer may propose now.
    #[must_use]
    pub fn is_prepared(&self) -> bool {
        matches!(self.phase, Phase::Prepared { .. })
    }

    /// Returns the value that the promises bind the proposer to, if any: the one with the highest ballot among them.
    #[must_use]
    pub fn bound(&self) -> Option<&Value> {
        match &self.phase {
            Phase::Prepared { bound } => bound.as_ref(),
            _ => None,
        }
    }

    /// Begins phase 2 with `value`.
    ///
    /// # Panics
    /// If phase 1 is not done, or binds it to another value.
    pub fn propose(&mut self, value: Value) {
        let Phase::Prepared { bound } = &self.phase else { panic!("ballot {} proposed out of turn", self.ballot) };
        assert!(bound.as_ref().is_none_or(|bound| *bound == value), "ballot {} is bound to another value", self.ballot);
        self.phase = Phase::Accepting { value, votes: Tally::default() };
    }

    /// Returns the value that is being voted on.
    #[must_use]
    pub fn proposed(&self) -> Option<&Value> {
        match &self.phase {
            Phase::Accepting { value, .. } => Some(value),
            _ => None,
        }
    }

    /// Returns true if `from` voted for that value.
    #[must_use]
    pub fn has_vote(&self, from: NodeId, members: &Members) -> bool {
        matches!(&self.phase, Phase::Accepting { votes, .. } if votes.contains(from, members))
    }

    /// Counts a durable vote of `from`. Returns true if this vote completes the majority: the value is chosen.
    pub fn on_vote(&mut self, from: NodeId, members: &Members) -> bool {
        let Phase::Accepting { votes, .. } = &mut self.phase else { return false };
        let before = votes.is_quorum(members);
        votes.add(from, members);
        !before && votes.is_quorum(members)
    }

    /// Goes on to the following instance after the value was chosen, under the same promises. They bind the proposer to
    /// nothing there, because the acceptors that gave them had accepted nothing at later instances.
    pub fn follow(&mut self) {
        assert!(matches!(self.phase, Phase::Accepting { .. }), "ballot {} went on without a decision", self.ballot);
        self.phase = Phase::Prepared { bound: None };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ms, ValueBuilder};

    fn members() -> Members {
        Members::new(vec![NodeId(1), NodeId(2), NodeId(3)])
    }

    fn ballot(round: u64) -> Ballot {
        Ballot { round, node: NodeId(1) }
    }

    fn accepted(round: u64) -> Option<Accepted> {
        Some(Accepted { ballot: ballot(round), value: ValueBuilder::default().seal(0, Ms(round), None) })
    }

    #[test]
    fn a_majority_of_promises_binds_to_the_highest_accepted_value() {
        let mut proposer = Proposer::prepare(ballot(9));
        assert!(!proposer.on_promise(NodeId(2), accepted(3), &members()));
        assert!(!proposer.on_promise(NodeId(2), accepted(3), &members()));
        assert!(!proposer.on_promise(NodeId(7), accepted(8), &members()));
        assert!(proposer.on_promise(NodeId(3), accepted(5), &members()));
        assert_eq!(proposer.bound().unwrap().time_ms(), Ms(5));
    }

    #[test]
    fn a_value_is_chosen_by_a_majority_of_votes_once() {
        let mut proposer = Proposer::prepare(ballot(1));
        proposer.on_promise(NodeId(1), None, &members());
        proposer.on_promise(NodeId(2), None, &members());
        proposer.propose(ValueBuilder::default().seal(0, Ms(1), None));
        assert!(!proposer.on_vote(NodeId(1), &members()));
        assert!(!proposer.on_vote(NodeId(1), &members()));
        assert!(proposer.on_vote(NodeId(3), &members()));
        assert!(!proposer.on_vote(NodeId(2), &members()));
        proposer.follow();
        assert!(proposer.is_prepared() && proposer.bound().is_none());
    }

    #[test]
    #[should_panic(expected = "bound to another value")]
    fn the_bound_value_must_be_proposed() {
        let mut proposer = Proposer::prepare(ballot(9));
        proposer.on_promise(NodeId(2), accepted(3), &members());
        proposer.on_promise(NodeId(3), None, &members());
        proposer.propose(ValueBuilder::default().seal(0, Ms(1), None));
    }
}
