//! The group's part of a checkpoint, beside the state machine: taken at one instance, and installed at another member
//! or after a start. It holds no promise and no vote: those are in the log. The node that installs a checkpoint keeps
//! its own promise.

use super::time::GroupTime;
use super::{Clock, Group, Role};
use crate::dedup::DedupTable;
use crate::membership::Membership;
use crate::{Ballot, Effect, Instance, Ms};
use serde::{Deserialize, Serialize};

/// The state of a group at one instance, without that of the state machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The last instance that is applied; 0 if none is.
    pub instance: Instance,
    /// A ballot under which the value of `instance` was chosen.
    pub chosen: Ballot,
    /// The chain over the checksums of all values up to `instance`.
    pub chain: u32,
    /// The group's time, in unix milliseconds.
    pub time_ms: Ms,
    /// The digest of the state; see [`StateMachine::digest`](crate::StateMachine::digest).
    pub digest: u64,
    /// The deduplication table: the last applied command of each origin.
    pub dedup: DedupTable,
    /// The members from the next instance on.
    pub membership: Membership,
}

impl Group {
    /// Returns the group's part of a checkpoint, to be stored with the state machine as it is now.
    ///
    /// # Panics
    /// If a chosen value is not applied yet.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        assert!(self.applied == self.next, "every chosen value is applied before any other use of the group");
        Snapshot {
            instance: self.next.preceding(),
            chosen: self.last_ballot,
            chain: self.chain,
            time_ms: self.time.now_ms(),
            digest: self.digest,
            dedup: self.dedup.clone(),
            membership: Membership::clone(&self.membership),
        }
    }

    /// Recovery: starts the group after a checkpoint. The records of the log come after it.
    ///
    /// # Panics
    /// If anything was restored before.
    pub fn restore_snapshot(&mut self, snapshot: Snapshot, clock: Clock) {
        assert!(
            self.next == Instance::FIRST && self.acceptor.accepted().is_none(),
            "a checkpoint comes before the log"
        );
        self.jump(snapshot, clock);
    }

    /// Installs a checkpoint of another member. If this returns true, the caller replaces the state machine by that of
    /// the checkpoint. If the checkpoint's instance is below `next`, this returns false and changes nothing.
    ///
    /// This node's promises stay in force. Its own commands that the checkpoint includes come out as
    /// [`Effect::Skipped`]: they were executed, but their replies are not known here. A read that came before such a
    /// command comes out as [`Effect::ReadLost`]: this node never had the state that the read should have seen.
    pub fn install(&mut self, snapshot: Snapshot, clock: Clock, effects: &mut Vec<Effect>) -> bool {
        if snapshot.instance < self.next {
            return false;
        }
        let me = self.settings.me;
        let applied = snapshot.dedup.last(me);
        self.jump(snapshot, clock);
        if let Some(id) = applied {
            for counter in self.origin.skip(id) {
                while let Some(read) = self.reads.take_before(counter) {
                    effects.push(Effect::ReadLost { read });
                }
                effects.push(Effect::Skipped { counter });
            }
        }
        if !matches!(self.role, Role::Follower) {
            self.step_down(clock, effects);
            self.try_again_soon(clock);
        }
        self.retry_learning_now();
        effects.push(Effect::Membership);
        true
    }

    fn jump(&mut self, snapshot: Snapshot, clock: Clock) {
        let Snapshot { instance, chosen, chain, time_ms, digest, dedup, membership } = snapshot;
        self.next = instance.following();
        self.applied = self.next;
        self.digest = digest;
        self.last_ballot = chosen;
        self.last_value = None;
        self.chain = chain;
        self.time = GroupTime::starting_at(time_ms, clock.mono_ms);
        self.dedup = dedup;
        self.membership = membership.into();
        self.outcomes.clear();
        self.reads.ask_again();
        self.acceptor.begin_instance();
        self.diverged = crate::members::Tally::default();
        self.fill();
    }
}
