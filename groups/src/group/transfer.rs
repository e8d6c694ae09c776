//! Leader transfer without a gap. When no value is in flight, the leader holds its next value back. So the instance
//! that the target prepares is still the leader's `next` when the Prepare comes. The leader leads until it sees that
//! Prepare, and goes on by itself if none comes in time.

use super::{Clock, Group, Role};
use crate::message::Handover;
use crate::{Effect, Message, Ms, NodeId};

/// A leader transfer in progress.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    pub(super) to: NodeId,
    stay: bool,
    until_ms: Ms,
    invited: bool,
}

impl Group {
    /// Asks `to` to take over as soon as no value is in flight, and proposes nothing more for at most `hold_ms`. With
    /// `stay`, the new leader does not give the group back by itself.
    pub fn begin_leader_transfer(&mut self, to: NodeId, stay: bool, hold_ms: Ms, clock: Clock) {
        let Role::Leader(leadership) = &mut self.role else { return };
        if leadership.established && leadership.transfer.is_none() && to != self.settings.me {
            let until_ms = clock.mono_ms + hold_ms;
            leadership.transfer = Some(Transfer { to, stay, until_ms, invited: false });
        }
    }

    /// Returns true if this leader keeps the group even though another member should rather lead it.
    #[must_use]
    pub fn is_to_stay(&self) -> bool {
        matches!(&self.role, Role::Leader(leadership) if leadership.stays)
    }

    /// Returns true if the next value is held back for a leader transfer. The first such call sends the Handover: no
    /// value is in flight then.
    pub(super) fn holds_back(&mut self, clock: Clock, effects: &mut Vec<Effect>) -> bool {
        let (next, voters) = (self.next, self.membership.voters());
        let Role::Leader(leadership) = &mut self.role else { return false };
        let ballot = leadership.ballot();
        let Some(transfer) = &mut leadership.transfer else { return false };
        // A node without a vote here, or without one any more, cannot lead.
        if clock.mono_ms >= transfer.until_ms || !voters.contains(transfer.to) {
            leadership.transfer = None;
            return false;
        }
        if std::mem::replace(&mut transfer.invited, true) {
            return true;
        }
        let Transfer { to, stay, .. } = *transfer;
        // The target gets the Chosen first. So it is at this leader's `next` when it reads the Handover.
        self.announce(to, effects);
        effects.push(Effect::Send { to, message: Message::Handover(Handover { ballot, next, stay }) });
        true
    }
}
