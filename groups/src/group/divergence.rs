//! Divergence check: members at the same instance must have the same state. A value carries the digest of the leader's
//! state before that value. A member whose state has another digest does not vote for the value, and stops once a
//! majority has chosen it.
//!
//! The chain shows that members applied the same values. The digest shows that these values made the same state, in
//! spite of memory errors, two versions of the program, or a command that is not deterministic. Only a majority can
//! decide which state is right: a leader that differs gets no votes, and a follower that differs stops when it learns
//! the value that the others chose.

use super::{Clock, Group};
use crate::{Effect, GroupId, Instance, Message, NodeId, Value};

/// This node's state differs from the state in which a majority chose a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the state of group {group} before instance {instance} has the digest {own:016x} here, but {chosen:016x} at the \
     majority: restart this node, and if that does not help, replace it under a new id"
)]
pub struct StateDiffers {
    /// The group.
    pub group: GroupId,
    /// The instance of the value whose digest differs.
    pub instance: Instance,
    /// The digest of this node's state.
    pub own: u64,
    /// The digest in the value that was chosen.
    pub chosen: u64,
}

impl Group {
    /// Sets whether the values that this node proposes carry the digest of its state, in version 2 of values. Set it
    /// only once all members can read that version.
    pub fn tell_digest(&mut self, tell: bool) {
        self.tells_digest = tell;
    }

    /// Learns from an Accept that the instance before the Accept's own is chosen. Call this before [`Group::handle`],
    /// and carry out the effects in between: a member can compare its state with the sender's only after it has applied
    /// all earlier instances.
    pub fn learn_before(&mut self, from: NodeId, message: &Message, clock: Clock, effects: &mut Vec<Effect>) {
        let Message::Accept(accept) = message else { return };
        if accept.ballot.node != from || accept.instance != self.next.following() {
            return;
        }
        if let Some(known) = self.acceptor.accepted_under(accept.chosen).cloned() {
            self.learn(accept.chosen, known, clock, effects);
        }
    }

    /// Returns true if `value` can be chosen next here: its chain equals this group's chain, and its digest, if it has
    /// one, equals the digest of this state.
    pub(super) fn follows(&self, value: &Value) -> bool {
        assert!(self.applied == self.next, "every chosen value is applied before any other use of the group");
        value.chain() == self.chain && value.digest().is_none_or(|digest| digest == self.digest)
    }

    /// The digest for the next proposed value, if it carries one. `needed` is true if the value holds commands of a
    /// version that requires a digest.
    pub(super) fn told_digest(&self, needed: bool) -> Option<u64> {
        assert!(self.applied == self.next, "every chosen value is applied before the next proposal");
        (self.tells_digest || needed).then_some(self.digest)
    }

    /// Compares the digest of a chosen `value` with that of this state, before the value is applied.
    pub(super) fn compare_digest(&self, value: &Value) -> Result<(), StateDiffers> {
        match value.digest().filter(|chosen| *chosen != self.digest) {
            None => Ok(()),
            Some(chosen) => {
                Err(StateDiffers { group: self.settings.id, instance: self.applied, own: self.digest, chosen })
            }
        }
    }
}
