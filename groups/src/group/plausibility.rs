//! The plausibility check. It rejects ballots and instances that no history can reach, as errors of their sender.
//! Otherwise a ballot near the end of its range would leave no higher one for any later leader, and an instance that is
//! never reached would keep this member asking for it for ever.

use super::Group;
use crate::{Ballot, Instance, Message};

/// Maximum rounds by which a ballot may be above all ballots seen before. Members without contact grow apart by one
/// round per campaign, of which there are a few per second.
const ROUNDS_AHEAD_MAX: u64 = 1 << 32;
/// Maximum instances by which a member may be ahead: more than a group decides in a thousand years.
const INSTANCES_AHEAD_MAX: u64 = 1 << 48;

impl Group {
    /// Returns true if the message is plausible. Otherwise the caller drops the message and its connection.
    #[must_use]
    pub fn is_plausible(&self, message: &Message) -> bool {
        let (ballot, instance) = message.highest();
        self.is_plausible_ballot(ballot) && self.is_plausible_instance(instance)
    }

    /// Returns true if this ballot can be in use.
    #[must_use]
    pub fn is_plausible_ballot(&self, ballot: Ballot) -> bool {
        let known = self.seen.max(self.acceptor.promised());
        ballot.round <= known.round.saturating_add(ROUNDS_AHEAD_MAX)
    }

    /// Returns true if another member can be at this instance.
    #[must_use]
    pub fn is_plausible_instance(&self, instance: Instance) -> bool {
        instance.0 <= self.next.0.saturating_add(INSTANCES_AHEAD_MAX)
    }
}
