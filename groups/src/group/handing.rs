//! Handing a group to another member without a gap: the leader holds its next value back while it has none in flight, so
//! that the instance which the other one prepares is still the next when that Prepare comes. It leads until it sees that
//! Prepare, and goes on by itself when none comes in time.

use super::{Clock, Group, Role};
use crate::message::Handover;
use crate::{Effect, Message, NodeId};

/// A handover that has not come to its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handing {
    pub(super) to: NodeId,
    stay: bool,
    until_ms: u64,
    invited: bool,
}

impl Group {
    /// Asks `to` to take over, as soon as no value is in flight, and proposes nothing more for at most `hold_ms`. A group
    /// that is to `stay` is not given back by itself.
    pub fn hand_over(&mut self, to: NodeId, stay: bool, hold_ms: u64, clock: Clock) {
        let Role::Leader(leadership) = &mut self.role else { return };
        if leadership.established && leadership.handing.is_none() && to != self.settings.me {
            let until_ms = clock.mono_ms + hold_ms;
            leadership.handing = Some(Handing { to, stay, until_ms, invited: false });
        }
    }

    /// Whether this leader is to keep the group, though another member should rather lead it.
    #[must_use]
    pub fn is_to_stay(&self) -> bool {
        matches!(&self.role, Role::Leader(leadership) if leadership.stays)
    }

    /// Whether the next value is held back for a handover, which begins here: nothing is in flight.
    pub(super) fn holds_back(&mut self, clock: Clock, effects: &mut Vec<Effect>) -> bool {
        let (next, voters) = (self.next, self.membership.voters());
        let Role::Leader(leadership) = &mut self.role else { return false };
        let ballot = leadership.ballot();
        let Some(handing) = &mut leadership.handing else { return false };
        // Who does not vote here, perhaps no more, cannot lead.
        if clock.mono_ms >= handing.until_ms || !voters.contains(handing.to) {
            leadership.handing = None;
            return false;
        }
        if std::mem::replace(&mut handing.invited, true) {
            return true;
        }
        let Handing { to, stay, .. } = *handing;
        // Told first what was chosen, it is at this leader's `next` when it reads the invitation.
        self.announce(to, effects);
        effects.push(Effect::Send { to, message: Message::Handover(Handover { ballot, next, stay }) });
        true
    }
}
