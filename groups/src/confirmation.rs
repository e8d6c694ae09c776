//! The answers to one question about one group: do they confirm that its leader still leads?
//!
//! They do when a majority has promised nothing above the ballot asked about, and one of it leads under that ballot. All
//! that are counted must know the same members as the asker: two majorities of one set, or of a set and the next, share a
//! node, but those of sets further apart need not.
//!
//! Or they do when the leader answers under a lease: those who could elect another have promised not to, so that it needs
//! nobody else, and it does not matter which members the asker knows.

use crate::members::Tally;
use crate::{Answer, Ballot, Group, Instance, NodeId};

/// A question in progress.
#[derive(Clone, Debug)]
pub struct Confirmation {
    ballot: Ballot,
    /// The version of the membership when it was asked.
    version: u64,
    holds: Tally,
    leads: Option<Instance>,
    leased: bool,
}

impl Confirmation {
    /// A question about `ballot`, which [`Group::ask`] gave. This node counts as one of the majority, if it votes.
    #[must_use]
    pub fn new(group: &Group, ballot: Ballot) -> Confirmation {
        let mut holds = Tally::default();
        holds.add(group.me(), group.membership().voters());
        Confirmation { ballot, version: group.membership().version(), holds, leads: None, leased: false }
    }

    /// The ballot asked about.
    #[must_use]
    pub fn ballot(&self) -> Ballot {
        self.ballot
    }

    /// Counts what `from`, whose membership has the version `version`, answers. A refusal is the caller's business.
    pub fn add(&mut self, from: NodeId, version: u64, answer: Answer, group: &Group) {
        if version != self.version || group.membership().version() != self.version {
            return;
        }
        if let Answer::Leads(instance) = answer {
            self.leads = Some(instance);
        }
        self.holds.add(from, group.membership().voters());
    }

    /// The leader holds a lease under the ballot asked about. It is this node, or it answered so.
    pub fn add_lease(&mut self, answer: Answer) {
        if let Answer::Leads(instance) = answer {
            (self.leads, self.leased) = (Some(instance), true);
        }
    }

    /// The instance up to which everything must be applied that is read, once that is confirmed. The group that asked may
    /// be the leader's.
    #[must_use]
    pub fn instance(&self, group: &Group) -> Option<Instance> {
        let membership = group.membership();
        let confirmed = membership.version() == self.version && self.holds.is_quorum(membership.voters());
        if !confirmed && !self.leased {
            return None;
        }
        match group.answer(self.ballot) {
            Answer::Leads(instance) => Some(instance),
            Answer::Holds => self.leads,
            Answer::Refused(_) => None,
        }
    }
}
