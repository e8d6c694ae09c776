//! What another member says is trusted, but not blindly: a number that no history can have come to is an error of its
//! sender. Taken over, a ballot near the end of its range would leave no higher one for any later leader, and an instance
//! that will never be reached would keep this member asking for it for ever.

use super::Group;
use crate::{Ballot, Instance, Message};

/// How many rounds a ballot can be above all that were seen before. Members that know nothing of each other grow apart by
/// one round for each attempt at leading, of which there are a few in a second.
const ROUNDS_AHEAD_MAX: u64 = 1 << 32;
/// How many instances a member can be ahead: more than a group decides in a thousand years.
const INSTANCES_AHEAD_MAX: u64 = 1 << 48;

impl Group {
    /// Whether a member can mean this message. If not, the caller drops it together with the connection.
    #[must_use]
    pub fn believes(&self, message: &Message) -> bool {
        let (ballot, instance) = message.highest();
        self.believes_ballot(ballot) && self.believes_instance(instance)
    }

    /// Whether a ballot can be in use here.
    #[must_use]
    pub fn believes_ballot(&self, ballot: Ballot) -> bool {
        let known = self.seen.max(self.acceptor.promised());
        ballot.round <= known.round.saturating_add(ROUNDS_AHEAD_MAX)
    }

    /// Whether another member can be at this instance.
    #[must_use]
    pub fn believes_instance(&self, instance: Instance) -> bool {
        instance.0 <= self.next.0.saturating_add(INSTANCES_AHEAD_MAX)
    }
}
