//! A recovering group: this member knows its promises and votes, but not the state before them, because a checkpoint or
//! a value of its log was damaged. Until it has learned from others all that it once knew, it does not promise, vote or
//! campaign. The value of its last vote may be chosen, and a promise without that vote would hide it (a corrupt vote is
//! "unknown", never "no vote").

use super::Group;
use crate::acceptor::Accepted;
use crate::{Ballot, Instance, Value};

/// The log's knowledge of instances whose state is missing.
#[derive(Debug)]
pub(super) struct Recovering {
    /// This node once knew that all instances below this one are chosen.
    instance: Instance,
    /// The vote at that instance.
    vote: Option<Accepted>,
    /// The highest ballot of a vote at that instance whose value cannot be read.
    lost: Ballot,
}

impl Recovering {
    /// Returns true if this node may have voted for a value that it cannot read.
    fn is_unsure(&self) -> bool {
        self.vote.as_ref().map_or(Ballot::ZERO, |vote| vote.ballot) < self.lost
    }
}

impl Group {
    /// Returns true if the group is recovering: it lacks a part of its own past. It does not promise, vote or campaign
    /// until it has learned that part.
    #[must_use]
    pub fn is_recovering(&self) -> bool {
        self.recovering.is_some()
    }

    /// Marks the group as recovering: everything below `instance` was chosen, but the state is not here.
    pub(super) fn begin_recovery(&mut self, instance: Instance) -> &mut Recovering {
        self.acceptor.begin_instance();
        let recovering = self.recovering.get_or_insert(Recovering { instance, vote: None, lost: Ballot::ZERO });
        if recovering.instance < instance {
            *recovering = Recovering { instance, vote: None, lost: Ballot::ZERO };
        }
        recovering
    }

    /// Restores a vote at `instance`, before which state is missing. Drops the vote if the missing state reaches beyond
    /// `instance`, or if a vote there under the same or a higher ballot is known already.
    pub(super) fn recall_later(&mut self, instance: Instance, ballot: Ballot, value: Value) {
        let recovering = self.begin_recovery(instance);
        if instance == recovering.instance && recovering.vote.as_ref().is_none_or(|vote| vote.ballot < ballot) {
            recovering.vote = Some(Accepted { ballot, value });
        }
    }

    /// Notes a vote whose value cannot be read.
    pub(super) fn lose_vote(&mut self, instance: Instance, ballot: Ballot) {
        let vote = self.acceptor.accepted().filter(|_| instance == self.next).cloned();
        let recovering = self.begin_recovery(instance);
        if instance == recovering.instance {
            recovering.lost = recovering.lost.max(ballot);
            recovering.vote = recovering.vote.take().or(vote);
        }
    }

    /// Ends the recovery, and counts the vote again, if nothing is missing any more. Called when `next` has moved, and
    /// after each restored record.
    pub(super) fn fill(&mut self) {
        let Some(recovering) = &self.recovering else { return };
        if self.next < recovering.instance || (self.next == recovering.instance && recovering.is_unsure()) {
            return;
        }
        let at_vote = self.next == recovering.instance;
        let vote = self.recovering.take().and_then(|recovering| recovering.vote).filter(|_| at_vote);
        if let Some(Accepted { ballot, value }) = vote {
            let agrees = self.acceptor.recall(ballot, &value);
            assert!(agrees, "two values were accepted under ballot {ballot}");
        }
    }
}
