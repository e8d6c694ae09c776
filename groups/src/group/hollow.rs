//! A recovering group: this member knows its promises and votes, but not the state before them, because a checkpoint or
//! a value of its log was damaged. Until it has learned from others all that it once knew, it does not promise, vote or
//! campaign. The value of its last vote may be chosen, and a promise without that vote would hide it (a corrupt vote is
//! "unknown", never "no vote").

use super::Group;
use crate::acceptor::Accepted;
use crate::{Ballot, Instance, Value};

/// The log's knowledge of instances whose state is missing.
#[derive(Debug)]
pub(super) struct Hollow {
    /// This node once knew that all instances below this one are chosen.
    instance: Instance,
    /// The vote at that instance.
    vote: Option<Accepted>,
    /// The highest ballot of a vote at that instance whose value cannot be read.
    lost: Ballot,
}

impl Hollow {
    /// Returns true if this node may have voted for a value that it cannot read.
    fn is_unsure(&self) -> bool {
        self.vote.as_ref().map_or(Ballot::ZERO, |vote| vote.ballot) < self.lost
    }
}

impl Group {
    /// Returns true if the group is recovering: it lacks a part of its own past. It does not promise, vote or campaign
    /// until it has learned that part.
    #[must_use]
    pub fn is_hollow(&self) -> bool {
        self.hollow.is_some()
    }

    /// Marks the group as recovering: everything below `instance` was chosen, but the state is not here.
    pub(super) fn hollow_out(&mut self, instance: Instance) -> &mut Hollow {
        self.acceptor.settle();
        let hollow = self.hollow.get_or_insert(Hollow { instance, vote: None, lost: Ballot::ZERO });
        if hollow.instance < instance {
            *hollow = Hollow { instance, vote: None, lost: Ballot::ZERO };
        }
        hollow
    }

    /// Restores a vote at `instance`, before which state is missing. Drops the vote if the missing state reaches beyond
    /// `instance`, or if a vote there under the same or a higher ballot is known already.
    pub(super) fn recall_later(&mut self, instance: Instance, ballot: Ballot, value: Value) {
        let hollow = self.hollow_out(instance);
        if instance == hollow.instance && hollow.vote.as_ref().is_none_or(|vote| vote.ballot < ballot) {
            hollow.vote = Some(Accepted { ballot, value });
        }
    }

    /// Notes a vote whose value cannot be read.
    pub(super) fn lose_vote(&mut self, instance: Instance, ballot: Ballot) {
        let vote = self.acceptor.accepted().filter(|_| instance == self.next).cloned();
        let hollow = self.hollow_out(instance);
        if instance == hollow.instance {
            hollow.lost = hollow.lost.max(ballot);
            hollow.vote = hollow.vote.take().or(vote);
        }
    }

    /// Ends the recovery, and counts the vote again, if nothing is missing any more. Called when `next` has moved, and
    /// after each restored record.
    pub(super) fn fill(&mut self) {
        let Some(hollow) = &self.hollow else { return };
        if self.next < hollow.instance || (self.next == hollow.instance && hollow.is_unsure()) {
            return;
        }
        let at_vote = self.next == hollow.instance;
        let vote = self.hollow.take().and_then(|hollow| hollow.vote).filter(|_| at_vote);
        if let Some(Accepted { ballot, value }) = vote {
            let agrees = self.acceptor.recall(ballot, &value);
            assert!(agrees, "two values were accepted under ballot {ballot}");
        }
    }
}
