//! Equal instance, equal state: a value carries the digest of the leader's state before it, and whoever has another one
//! neither votes for that value nor goes on once a majority has.
//!
//! The chain shows that members applied the same values; this shows that these made the same states, in spite of memory
//! that rots, of two versions of the program, or of a command that does not do the same everywhere. Who is right nobody
//! can tell but a majority: a leader that differs finds no votes, a follower that differs stops when it learns of the
//! value that the others chose.

use super::{Clock, Group};
use crate::{Effect, GroupId, Instance, Message, NodeId, Value};

/// This node's state is not the one that a majority had before it chose a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the state of group {group} before instance {instance} has the digest {own:016x} here, but {chosen:016x} at the \
     majority: restart this node, and if that does not help, replace it under a new id"
)]
pub struct StateDiffers {
    /// The group.
    pub group: GroupId,
    /// The instance of the value that tells.
    pub instance: Instance,
    /// The digest of this node's state.
    pub own: u64,
    /// The digest in the value that was chosen.
    pub chosen: u64,
}

impl Group {
    /// Whether the values that this node proposes carry the digest of its state, in version 2 of values: only once all
    /// members can read that.
    pub fn tell_digest(&mut self, tell: bool) {
        self.tells_digest = tell;
    }

    /// What a message tells of the instance before its own, to be called before [`Group::handle`] and carried out: only
    /// a member that has applied everything before can compare its state with the one that the message was made in.
    pub fn learn_before(&mut self, from: NodeId, message: &Message, clock: Clock, effects: &mut Vec<Effect>) {
        let Message::Accept(accept) = message else { return };
        if accept.ballot.node != from || accept.instance != self.next.following() {
            return;
        }
        if let Some(known) = self.acceptor.accepted_under(accept.chosen).cloned() {
            self.learn(accept.chosen, known, clock, effects);
        }
    }

    /// Whether `value` can be the next one here: after the same values, and in the same state.
    pub(super) fn follows(&self, value: &Value) -> bool {
        assert!(self.applied == self.next, "what was chosen is applied before anything else is asked of the group");
        value.chain() == self.chain && value.digest().is_none_or(|digest| digest == self.digest)
    }

    /// The digest for the value that is proposed next. `needed`: that value holds commands of a version that has one.
    pub(super) fn told_digest(&self, needed: bool) -> Option<u64> {
        assert!(self.applied == self.next, "what was chosen is applied before anything is proposed");
        (self.tells_digest || needed).then_some(self.digest)
    }

    /// `value` was chosen, and is about to be applied.
    pub(super) fn compare_digest(&self, value: &Value) -> Result<(), StateDiffers> {
        match value.digest().filter(|chosen| *chosen != self.digest) {
            None => Ok(()),
            Some(chosen) => {
                Err(StateDiffers { group: self.settings.id, instance: self.applied, own: self.digest, chosen })
            }
        }
    }
}
