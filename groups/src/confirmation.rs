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
    /// Somebody has promised a higher ballot, or the leader does not lead.
    vain: bool,
}

/// What the answers so far come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The leader leads: what is read must have everything up to this instance applied.
    Confirmed(Instance),
    /// More answers are needed.
    Open,
    /// No answer can help any more, as the asker knows better by now: it has promised a higher ballot, or has other
    /// members. What it would ask now may be answered.
    Outdated,
    /// No answer can help any more, nor could one to the same question at once: another member has promised a higher
    /// ballot, or the leader has chosen nothing yet, or leads no more.
    Vain,
}

impl Confirmation {
    /// A question about `ballot`, which [`Group::ask`] gave. This node counts as one of the majority, if it votes.
    #[must_use]
    pub fn new(group: &Group, ballot: Ballot) -> Confirmation {
        let mut holds = Tally::default();
        holds.add(group.me(), group.membership().voters());
        Confirmation { ballot, version: group.membership().version(), holds, leads: None, leased: false, vain: false }
    }

    /// The ballot asked about.
    #[must_use]
    pub fn ballot(&self) -> Ballot {
        self.ballot
    }

    /// Counts what `from`, whose membership has the version `version`, answers.
    pub fn add(&mut self, from: NodeId, version: u64, answer: Answer, group: &Group) {
        match answer {
            Answer::Leads(_) => {}
            Answer::Holds => self.vain |= from == self.ballot.node,
            Answer::Refused(_) => {
                self.vain = true;
                return;
            }
        }
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

    /// What the answers so far come to. The group that asked may be the leader's.
    #[must_use]
    pub fn outcome(&self, group: &Group) -> Outcome {
        let membership = group.membership();
        let is_same = membership.version() == self.version;
        let confirmed = self.leased || is_same && self.holds.is_quorum(membership.voters());
        let leads = match group.answer(self.ballot) {
            Answer::Leads(instance) => Some(instance),
            Answer::Holds => self.leads,
            Answer::Refused(_) => return Outcome::Outdated,
        };
        match leads {
            Some(instance) if confirmed => Outcome::Confirmed(instance),
            _ if !is_same => Outcome::Outdated,
            _ if self.vain => Outcome::Vain,
            _ => Outcome::Open,
        }
    }
}
