//! Records in flight to the log: the batch that is being gathered, the batch that the disk works on, and the messages
//! that wait until the records before them are durable. While the log syncs one batch, the next one is gathered (group
//! commit).
//!
//! Each sync costs the processor as much as several commands, so few large batches are better than many small ones:
//! - A batch waits for some short turns while more input keeps coming: the records of that input need no sync of their
//!   own.
//! - The *beat*: while a sync is in progress, this node's leaders hold their next proposals back. The log could not take
//!   their records before the end of that sync, and the values grow meanwhile. A slow disk has no beat: other members may
//!   choose a value long before this node has synced it. Members learn of a chosen value with the next proposal, so
//!   they wait, too.

use crate::config::{
    BATCH_TURNS_MAX, BATCH_WAIT_BYTES_MAX, BATCH_WAIT_US_MAX, BEAT_US_MAX, DISKS_MS_MAX, LOG_QUEUE_BYTES,
    SYNC_BYTES_PER_MS, SYNC_MS_MAX,
};
use crate::gate::{Gate, GatedMessage};
use crate::node::Space;
use crate::storage::wal::{self, Lsn};
use groups::{Ms, Us};

/// See the module.
pub(in crate::node) struct LogQueue {
    gate: Gate,
    batch: Vec<wal::Record>,
    /// Bytes of the records in `batch`.
    batch_bytes: usize,
    /// The sequence number of the batch that is being gathered.
    next_lsn: Lsn,
    syncing: Option<Syncing>,
    /// Input of some connection has come in this turn.
    had_input: bool,
    /// Number of turns for which the gathered batch has waited.
    waited_turns: u32,
    /// Time of the first of these turns.
    waited_since_us: Us,
    /// How long the last turn took.
    turn_us: Us,
    /// How long a sync takes, as a moving mean over some eight syncs.
    usual_sync_us: Us,
    /// Bytes of all records that went to the log since the start.
    logged_bytes: u64,
    space: Space,
}

/// The batch that the disk works on.
struct Syncing {
    lsn: Lsn,
    since_us: Us,
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
            had_input: false,
            waited_turns: 0,
            waited_since_us: Us(0),
            turn_us: Us(0),
            usual_sync_us: Us(0),
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

    /// Notes that the batches up to `lsn` are durable after a sync of `sync_us`, and moves the messages that waited for
    /// that into `released`. The frame of the last batch has the number `frame`, which is above `lsn` if other workers
    /// had batches in frames between. If nothing is gathered, the next batch gets a number above `frame`, so that the
    /// numbers of batches keep up with those of frames.
    pub(super) fn on_durable(&mut self, lsn: Lsn, frame: Lsn, sync_us: Us, released: &mut Vec<GatedMessage>) {
        if self.syncing.as_ref().is_some_and(|syncing| syncing.lsn <= lsn) {
            self.syncing = None;
        }
        self.usual_sync_us = Us((self.usual_sync_us.0 * 7 + sync_us.0) / 8);
        self.gate.release(lsn, released);
        if self.batch.is_empty() && self.syncing.is_none() && frame >= self.next_lsn {
            // Everything that the log was given is durable.
            self.gate.release(frame, released);
            self.next_lsn = frame.following();
        }
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

    /// Returns true if the next proposals wait for the sync in progress; see the module.
    pub(super) fn holds_proposals(&self, now_us: Us) -> bool {
        let is_syncing = self.syncing.as_ref().is_some_and(|syncing| now_us < syncing.since_us + BEAT_US_MAX);
        is_syncing && self.usual_sync_us < BEAT_US_MAX
    }

    /// Returns true if the disk works on a batch.
    pub(super) fn is_syncing(&self) -> bool {
        self.syncing.is_some()
    }

    /// Returns true if the disk is free for the gathered batch, which waits for the next turn.
    pub(super) fn holds_batch(&self) -> bool {
        self.syncing.is_none() && !self.batch.is_empty()
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

    /// Notes that input of some connection has come in this turn.
    pub(super) fn note_input(&mut self) {
        self.had_input = true;
    }

    /// Notes how long the last turn of the event loop took.
    pub(super) fn turn_took(&mut self, turn_us: Us) {
        self.turn_us = turn_us;
    }

    /// Returns true if the gathered batch may wait for another turn with input.
    fn may_wait(&mut self, now_us: Us) -> bool {
        if self.waited_turns == 0 {
            self.waited_since_us = now_us;
        }
        self.waited_turns < BATCH_TURNS_MAX
            && now_us < self.waited_since_us + BATCH_WAIT_US_MAX
            && self.turn_us < BATCH_WAIT_US_MAX
            && self.batch_bytes < BATCH_WAIT_BYTES_MAX
    }

    /// At the end of a turn, takes the gathered batch, if there is one and the disk is free for it. While input keeps
    /// coming, the batch waits for up to [`BATCH_TURNS_MAX`] turns.
    pub(super) fn next_batch(&mut self, now_us: Us) -> Option<wal::Batch> {
        let had_input = std::mem::take(&mut self.had_input);
        if !self.holds_batch() {
            return None;
        }
        if had_input && self.may_wait(now_us) {
            self.waited_turns += 1;
            return None;
        }
        self.waited_turns = 0;
        let lsn = self.next_lsn;
        self.next_lsn = lsn.following();
        let records = std::mem::take(&mut self.batch);
        let bytes = std::mem::take(&mut self.batch_bytes);
        self.logged_bytes += bytes as u64;
        let due_ms = now_us.to_ms() + SYNC_MS_MAX + Ms((bytes / SYNC_BYTES_PER_MS) as u64);
        self.syncing = Some(Syncing { lsn, since_us: now_us, due_ms, bytes });
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
        assert_eq!((log.gathered_lsn(), log.durable_lsn(), log.next_batch(Us(0)).is_none()), (Lsn(7), Lsn(7), true));
        assert_eq!((log.persist(record(10)), log.persist(record(10)), log.gathered_lsn()), (Lsn(8), Lsn(8), Lsn(8)));
        assert_eq!(log.next_batch(Us(0)).map(|batch| (batch.lsn, batch.records.len())), Some((Lsn(8), 2)));
        assert_eq!((log.persist(record(10)), log.next_batch(Us(0)).is_none()), (Lsn(9), true), "one is in flight");
        log.on_durable(Lsn(8), Lsn(8), Us(0), &mut Vec::new());
        assert_eq!(log.next_batch(Us(0)).map(|batch| (batch.lsn, batch.records.len())), Some((Lsn(9), 1)));
        assert_eq!(log.logged_bytes(), 3 * (10 + wal::format::RECORD_HEADER_BYTES as u64));
    }

    #[test]
    fn a_batch_waits_for_some_turns_while_input_comes() {
        let mut log = LogQueue::new();
        for quiet_turn in 0..=BATCH_TURNS_MAX {
            log.persist(record(1));
            for _ in 0..quiet_turn {
                log.note_input();
                assert_eq!(log.next_batch(Us(0)).map(|batch| batch.lsn), None);
                assert!(log.holds_batch(), "another turn has to come");
            }
            // After the longest wait, it leaves in spite of the input.
            if quiet_turn == BATCH_TURNS_MAX {
                log.note_input();
            }
            let batch = log.next_batch(Us(0)).expect("it leaves now");
            assert!(!log.holds_batch());
            log.on_durable(batch.lsn, batch.lsn, Us(0), &mut Vec::new());
        }
        assert!(log.next_batch(Us(0)).is_none() && !log.holds_batch(), "there is none");
    }

    #[test]
    fn a_batch_does_not_wait_long_nor_if_it_is_large() {
        let mut log = LogQueue::new();
        let mut leaves = |bytes: usize, turn_us: Us, at_us: [Us; 2]| {
            log.persist(record(bytes));
            log.turn_took(turn_us);
            let left = at_us.map(|now_us| {
                log.note_input();
                log.next_batch(now_us).is_some()
            });
            log.next_batch(at_us[1]);
            log.on_durable(log.next_lsn.preceding(), log.next_lsn.preceding(), Us(0), &mut Vec::new());
            left
        };
        let end_us = Us(100) + BATCH_WAIT_US_MAX;
        assert_eq!(leaves(1, Us(0), [Us(100), end_us - Us(1)]), [false, false]);
        assert_eq!(leaves(1, Us(0), [Us(100), end_us]), [false, true]);
        assert_eq!(leaves(BATCH_WAIT_BYTES_MAX, Us(0), [Us(100); 2]), [true, false]);
        assert_eq!(leaves(1, BATCH_WAIT_US_MAX, [Us(100); 2]), [true, false]);
    }

    #[test]
    fn proposals_wait_for_a_short_sync_on_a_fast_disk() {
        let mut log = LogQueue::new();
        let sync = |log: &mut LogQueue, sync_us: Us| {
            log.persist(record(1));
            let lsn = log.next_batch(Us(500)).unwrap().lsn;
            let holds =
                [Us(500), Us(499) + BEAT_US_MAX, Us(500) + BEAT_US_MAX].map(|now_us| log.holds_proposals(now_us));
            log.on_durable(lsn, lsn, sync_us, &mut Vec::new());
            assert!(!log.holds_proposals(Us(501)), "no sync is in progress");
            holds
        };
        assert_eq!(sync(&mut log, BEAT_US_MAX), [true, true, false]);
        assert_eq!(sync(&mut log, BEAT_US_MAX * 20), [true, true, false], "the mean is still low");
        assert_eq!(sync(&mut log, Us(0)), [false; 3], "the mean is high");
        (0..40).for_each(|_| _ = sync(&mut log, Us(100)));
        assert_eq!(sync(&mut log, Us(100)), [true, true, false], "it is low again");
    }

    #[test]
    fn numbers_keep_up_with_those_of_frames_while_nothing_is_gathered() {
        let mut log = LogQueue::new();
        assert_eq!((log.persist(record(1)), log.next_batch(Us(0)).map(|batch| batch.lsn)), (Lsn(1), Some(Lsn(1))));
        log.persist(record(1));
        log.on_durable(Lsn(1), Lsn(4), Us(0), &mut Vec::new());
        assert_eq!((log.durable_lsn(), log.gathered_lsn()), (Lsn(1), Lsn(2)), "a record has number 2 already");
        assert_eq!(log.next_batch(Us(0)).map(|batch| batch.lsn), Some(Lsn(2)));
        log.on_durable(Lsn(2), Lsn(6), Us(0), &mut Vec::new());
        assert_eq!((log.durable_lsn(), log.gathered_lsn()), (Lsn(6), Lsn(6)));
        assert_eq!(log.persist(record(1)), Lsn(7));
    }

    #[test]
    fn a_message_leaves_when_the_record_before_it_is_durable() {
        let mut log = LogQueue::new();
        let lsn = log.persist(record(1));
        assert_eq!(log.hold(lsn, gated()), None);
        let mut released = Vec::new();
        log.on_durable(lsn.preceding(), lsn.preceding(), Us(0), &mut released);
        assert!(released.is_empty());
        log.on_durable(lsn, lsn, Us(0), &mut released);
        assert_eq!((released, log.hold(lsn, gated())), (vec![gated()], Some(gated())));
    }

    #[test]
    fn a_late_sync_shows_and_too_much_that_waits_stops_values() {
        let mut log = LogQueue::new();
        log.persist(record(SYNC_BYTES_PER_MS * 10));
        log.next_batch(Us(1_000_000));
        assert!(log.is_in_time(Ms(1_000) + SYNC_MS_MAX + Ms(9)) && !log.is_in_time(Ms(1_000) + SYNC_MS_MAX + Ms(10)));
        assert!(!log.is_silent(Ms(1_000) + DISKS_MS_MAX + Ms(9)) && log.is_silent(Ms(1_000) + DISKS_MS_MAX + Ms(10)));
        assert!(log.takes_value(1));
        log.persist(record(LOG_QUEUE_BYTES));
        assert!(!log.takes_value(1), "the second one waits for the first");
        log.on_durable(Lsn(1), Lsn(1), Us(0), &mut Vec::new());
        assert!(log.is_in_time(Ms::MAX));
        log.next_batch(Us(0));
        assert!(log.takes_value(1));
    }
}
