//! Read confirmation: do the answers to one question about one group confirm that its leader still leads?
//!
//! A question is confirmed in one of two ways:
//!
//! - No node of a majority has promised a ballot above the one asked about, and one node of that majority leads under
//!   the ballot asked about. Only nodes with the asker's membership count. Two majorities share a node if they belong
//!   to the same set of voters or to two successive sets; majorities of sets further apart need not share one.
//! - The leader answers under a lease. The voters that could elect another leader have promised not to, so the leader
//!   needs no other answer, and the asker's membership does not matter.

use crate::members::Tally;
use crate::{Ballot, Group, Instance, LeadershipAnswer, NodeId};

/// A question in progress.
#[derive(Clone, Debug)]
pub struct Confirmation {
    ballot: Ballot,
    /// The asker's membership version when it asked.
    version: u64,
    holds: Tally,
    leads: Option<Instance>,
    leased: bool,
    /// A member has promised a higher ballot, or the node of `ballot` answered that it does not lead.
    is_denied: bool,
}

/// The verdict on the answers so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfirmationOutcome {
    /// The leader still leads. A read may be answered once every instance up to this one is applied.
    Confirmed(Instance),
    /// More answers are needed.
    Open,
    /// More answers cannot help: the asker itself has promised a higher ballot, or has another membership by now. A new
    /// question may succeed.
    Outdated,
    /// More answers cannot help, and the same question would fail again if it were repeated at once: another member has
    /// promised a higher ballot, or the leader has chosen nothing yet, or it leads no longer.
    Denied,
}

impl Confirmation {
    /// Starts a question about `ballot`, which [`Group::ask`] returned. This node counts towards the majority if it
    /// votes.
    #[must_use]
    pub fn new(group: &Group, ballot: Ballot) -> Confirmation {
        let mut holds = Tally::default();
        holds.add(group.me(), group.membership().voters());
        let version = group.membership().version();
        Confirmation { ballot, version, holds, leads: None, leased: false, is_denied: false }
    }

    /// Returns the ballot asked about.
    #[must_use]
    pub fn ballot(&self) -> Ballot {
        self.ballot
    }

    /// Counts the answer of `from`, whose membership version is `version`.
    pub fn add(&mut self, from: NodeId, version: u64, answer: LeadershipAnswer, group: &Group) {
        match answer {
            LeadershipAnswer::Leads(_) => {}
            LeadershipAnswer::Holds => self.is_denied |= from == self.ballot.node,
            LeadershipAnswer::Refused(_) => {
                self.is_denied = true;
                return;
            }
        }
        if version != self.version || group.membership().version() != self.version {
            return;
        }
        if let LeadershipAnswer::Leads(instance) = answer {
            self.leads = Some(instance);
        }
        self.holds.add(from, group.membership().voters());
    }

    /// Records that the leader holds a lease under the ballot asked about. Either this node is the leader, or the
    /// leader's answer told of the lease.
    pub fn add_lease(&mut self, answer: LeadershipAnswer) {
        if let LeadershipAnswer::Leads(instance) = answer {
            (self.leads, self.leased) = (Some(instance), true);
        }
    }

    /// Returns the verdict on the answers so far. The asking node may itself be the leader: its own state then counts
    /// as the leader's answer.
    #[must_use]
    pub fn outcome(&self, group: &Group) -> ConfirmationOutcome {
        let membership = group.membership();
        let is_same = membership.version() == self.version;
        let confirmed = self.leased || is_same && self.holds.is_quorum(membership.voters());
        let leads = match group.answer(self.ballot) {
            LeadershipAnswer::Leads(instance) => Some(instance),
            LeadershipAnswer::Holds => self.leads,
            LeadershipAnswer::Refused(_) => return ConfirmationOutcome::Outdated,
        };
        match leads {
            Some(instance) if confirmed => ConfirmationOutcome::Confirmed(instance),
            _ if !is_same => ConfirmationOutcome::Outdated,
            _ if self.is_denied => ConfirmationOutcome::Denied,
            _ => ConfirmationOutcome::Open,
        }
    }
}
