//! The log, as the rest of the node sees it through the engine.

use super::{Engine, Ports};
use crate::node::Space;
use crate::storage::wal::{self, Lsn};
use groups::{Ms, Us};

impl Engine {
    pub(in crate::node) fn persist(&mut self, record: wal::Record) -> Lsn {
        self.log.persist(record)
    }

    /// See [`LogQueue::on_durable`](super::log_queue::LogQueue::on_durable). Sends the messages that waited for that.
    pub(in crate::node) fn on_durable(&mut self, lsn: Lsn, frame: Lsn, sync_us: Us, ports: &mut impl Ports) {
        let mut released = std::mem::take(&mut self.release_buffer);
        self.log.on_durable(lsn, frame, sync_us, &mut released);
        let (_, mut effects) = self.split(ports);
        released.drain(..).for_each(|gated| effects.send_now(gated));
        self.release_buffer = released;
    }

    /// See [`LogQueue::gathered_lsn`](super::log_queue::LogQueue::gathered_lsn).
    pub(in crate::node) fn gathered_lsn(&self) -> Lsn {
        self.log.gathered_lsn()
    }

    /// See [`LogQueue::durable_lsn`](super::log_queue::LogQueue::durable_lsn).
    pub(in crate::node) fn durable_lsn(&self) -> Lsn {
        self.log.durable_lsn()
    }

    /// Returns true if the disk keeps up.
    pub(in crate::node) fn is_disk_in_time(&self, now_ms: Ms) -> bool {
        self.log.is_in_time(now_ms)
    }

    /// Returns true if the disk seems not to answer at all.
    pub(in crate::node) fn is_disk_silent(&self, now_ms: Ms) -> bool {
        self.log.is_silent(now_ms)
    }

    /// Returns the bytes of all records that went to the log since the start.
    pub(in crate::node) fn logged_bytes(&self) -> u64 {
        self.log.logged_bytes()
    }

    pub(in crate::node) fn space(&self) -> &Space {
        self.log.space()
    }

    pub(in crate::node) fn set_space(&mut self, space: Space) {
        self.log.set_space(space);
    }

    /// Returns the bytes of the records that the disk works on, and of those in the next batch.
    #[cfg(test)]
    pub(in crate::node) fn unlogged_bytes(&self) -> usize {
        self.log.waiting_bytes()
    }

    /// See [`LogQueue::turn_took`](super::log_queue::LogQueue::turn_took).
    pub(in crate::node) fn turn_took(&mut self, turn_us: Us) {
        self.log.turn_took(turn_us);
    }

    /// Returns true if proposals wait until the log has synced a batch.
    pub(in crate::node) fn holds_proposals(&self) -> bool {
        self.shard.has_held() && self.log.is_syncing()
    }

    /// See [`LogQueue::note_input`](super::log_queue::LogQueue::note_input).
    pub(in crate::node) fn note_input(&mut self) {
        self.log.note_input();
    }

    /// See [`LogQueue::next_batch`](super::log_queue::LogQueue::next_batch).
    pub(in crate::node) fn next_batch(&mut self, now_us: Us) -> Option<wal::Batch> {
        self.log.next_batch(now_us)
    }
}
