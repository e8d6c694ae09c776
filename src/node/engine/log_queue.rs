//! Records in flight to the log: the batch that is being gathered, the batch that the disk works on, and the messages
//! that wait until the records before them are durable. While the log syncs one batch, the next one is gathered (group
//! commit).

use crate::config::{DISKS_MS_MAX, LOG_QUEUE_BYTES, SYNC_BYTES_PER_MS, SYNC_MS_MAX};
use crate::gate::{Gate, GatedMessage};
use crate::node::Space;
use crate::storage::wal::{self, Lsn};
use groups::Ms;

/// See the module.
pub(in crate::node) struct LogQueue {
    gate: Gate,
    batch: Vec<wal::Record>,
    /// Bytes of the records in `batch`.
    batch_bytes: usize,
    /// The sequence number of the batch that is being gathered.
    next_lsn: Lsn,
    syncing: Option<Syncing>,
    /// Bytes of all records that went to the log since the start.
    logged_bytes: u64,
    space: Space,
}

/// The batch that the disk works on.
struct Syncing {
    lsn: Lsn,
    /// Time at which the batch should be durable.
    due_ms: Ms,
    bytes: usize,
}

impl LogQueue {
    pub(super) fn new() -> LogQueue {
        LogQueue {
            gate: Gate::default(),
            batch: Vec::new(),
            batch_bytes: 0,
            next_lsn: Lsn(1),
            syncing: None,
            logged_bytes: 0,
            space: Space::default(),
        }
    }

    /// Begins after recovery, with a log that is durable up to `lsn`.
    pub(super) fn begin(&mut self, lsn: Lsn) {
        self.gate = Gate::new(lsn);
        self.next_lsn = lsn.following();
    }

    /// Puts a record into the batch that is being gathered, and returns that batch's sequence number.
    pub(super) fn persist(&mut self, record: wal::Record) -> Lsn {
        self.batch_bytes += record.payload().len() + wal::format::RECORD_HEADER_BYTES;
        self.batch.push(record);
        self.next_lsn
    }

    /// Holds a message until the log is durable up to `lsn`. Gives the message back if the log already is.
    pub(super) fn hold(&mut self, lsn: Lsn, gated: GatedMessage) -> Option<GatedMessage> {
        self.gate.hold(lsn, gated)
    }

    /// Notes that the log is durable up to `lsn`, and moves the messages that waited for that into `released`.
    pub(super) fn on_durable(&mut self, lsn: Lsn, released: &mut Vec<GatedMessage>) {
        if self.syncing.as_ref().is_some_and(|syncing| syncing.lsn <= lsn) {
            self.syncing = None;
        }
        self.gate.release(lsn, released);
    }

    /// Returns the sequence number up to which the log must be durable to hold all records that it was given so far.
    pub(super) fn gathered_lsn(&self) -> Lsn {
        if self.batch.is_empty() { self.next_lsn.preceding() } else { self.next_lsn }
    }

    /// Returns the sequence number up to which the log is durable.
    pub(super) fn durable_lsn(&self) -> Lsn {
        self.gate.durable()
    }

    /// Returns true if the disk keeps up: the batch that it works on is not overdue.
    pub(super) fn is_in_time(&self, now_ms: Ms) -> bool {
        self.syncing.as_ref().is_none_or(|syncing| now_ms < syncing.due_ms)
    }

    /// Returns true if the disk seems not to answer at all: no member should wait for this node's ballots.
    pub(super) fn is_silent(&self, now_ms: Ms) -> bool {
        self.syncing.as_ref().is_some_and(|syncing| now_ms >= syncing.due_ms + (DISKS_MS_MAX - SYNC_MS_MAX))
    }

    /// Returns true if a value of `bytes` is accepted now. It is not if too much waits for the disk already, or if the
    /// disk might have no space for it. A refused value can come again.
    pub(super) fn takes_value(&self, bytes: usize) -> bool {
        self.batch_bytes < LOG_QUEUE_BYTES && self.space.takes(bytes, self.waiting_bytes())
    }

    /// Returns the bytes of the records that the disk works on, and of those in the next batch.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.batch_bytes + self.syncing.as_ref().map_or(0, |syncing| syncing.bytes)
    }

    pub(super) fn logged_bytes(&self) -> u64 {
        self.logged_bytes
    }

    /// Returns the space that the log and the disk have.
    pub(super) fn space(&self) -> &Space {
        &self.space
    }

    pub(super) fn set_space(&mut self, space: Space) {
        self.space = space;
    }

    /// Takes the gathered batch, if there is one and the disk is free for it.
    pub(super) fn next_batch(&mut self, now_ms: Ms) -> Option<wal::Batch> {
        if self.syncing.is_some() || self.batch.is_empty() {
            return None;
        }
        let lsn = self.next_lsn;
        self.next_lsn = lsn.following();
        let records = std::mem::take(&mut self.batch);
        let bytes = std::mem::take(&mut self.batch_bytes);
        self.logged_bytes += bytes as u64;
        let due_ms = now_ms + SYNC_MS_MAX + Ms((bytes / SYNC_BYTES_PER_MS) as u64);
        self.syncing = Some(Syncing { lsn, due_ms, bytes });
        Some(wal::Batch { lsn, records })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use groups::message::NotLeader;
    use groups::{Ballot, GroupId, Instance, Message, NodeId};

    fn record(bytes: usize) -> wal::Record {
        wal::Record::Accept(wal::ValueRecord {
            group: GroupId(0),
            instance: Instance(1),
            ballot: Ballot::ZERO,
            chosen: Ballot::ZERO,
            payload: Bytes::from(vec![0; bytes]),
        })
    }

    fn gated() -> GatedMessage {
        let message = Message::NotLeader(NotLeader { ballot: Ballot::ZERO });
        GatedMessage { group: GroupId(0), to: NodeId(2), message }
    }

    #[test]
    fn one_batch_is_synced_while_the_next_is_gathered() {
        let mut log = LogQueue::new();
        log.begin(Lsn(7));
        assert_eq!((log.gathered_lsn(), log.durable_lsn(), log.next_batch(Ms(0)).is_none()), (Lsn(7), Lsn(7), true));
        assert_eq!((log.persist(record(10)), log.persist(record(10)), log.gathered_lsn()), (Lsn(8), Lsn(8), Lsn(8)));
        assert_eq!(log.next_batch(Ms(0)).map(|batch| (batch.lsn, batch.records.len())), Some((Lsn(8), 2)));
        assert_eq!((log.persist(record(10)), log.next_batch(Ms(0)).is_none()), (Lsn(9), true), "one is in flight");
        log.on_durable(Lsn(8), &mut Vec::new());
        assert_eq!(log.next_batch(Ms(0)).map(|batch| (batch.lsn, batch.records.len())), Some((Lsn(9), 1)));
        assert_eq!(log.logged_bytes(), 3 * (10 + wal::format::RECORD_HEADER_BYTES as u64));
    }

    #[test]
    fn a_message_leaves_when_the_record_before_it_is_durable() {
        let mut log = LogQueue::new();
        let lsn = log.persist(record(1));
        assert_eq!(log.hold(lsn, gated()), None);
        let mut released = Vec::new();
        log.on_durable(lsn.preceding(), &mut released);
        assert!(released.is_empty());
        log.on_durable(lsn, &mut released);
        assert_eq!((released, log.hold(lsn, gated())), (vec![gated()], Some(gated())));
    }

    #[test]
    fn a_late_sync_shows_and_too_much_that_waits_stops_values() {
        let mut log = LogQueue::new();
        log.persist(record(SYNC_BYTES_PER_MS * 10));
        log.next_batch(Ms(1_000));
        assert!(log.is_in_time(Ms(1_000) + SYNC_MS_MAX + Ms(9)) && !log.is_in_time(Ms(1_000) + SYNC_MS_MAX + Ms(10)));
        assert!(!log.is_silent(Ms(1_000) + DISKS_MS_MAX + Ms(9)) && log.is_silent(Ms(1_000) + DISKS_MS_MAX + Ms(10)));
        assert!(log.takes_value(1));
        log.persist(record(LOG_QUEUE_BYTES));
        assert!(!log.takes_value(1), "the second one waits for the first");
        log.on_durable(Lsn(1), &mut Vec::new());
        assert!(log.is_in_time(Ms::MAX));
        log.next_batch(Ms(0));
        assert!(log.takes_value(1));
    }
}
