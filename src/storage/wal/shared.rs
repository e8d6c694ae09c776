//! The log as several workers share it. The log thread writes the waiting batches, at most one of each worker, as one
//! frame with one sync. So it is the log thread that gives frames their numbers, and a worker numbers its batches itself.

use super::{Batch, Lsn};
use crate::workers::WorkerId;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// No batch joins a frame that already has this many bytes of records: one sync for so much is cheap enough.
const SHARED_FRAME_BYTES_MAX: usize = 1 << 20;

/// A batch that is durable.
///
/// The numbers of a worker's batches ascend and start where those of the recovered frames end. While a single worker
/// uses the log, the number of a batch is that of its frame. With several workers it is the same or lower: a frame holds
/// at most one batch of each worker, and after each sync a worker that has gathered nothing skips the numbers of the
/// frames in which it had no batch. So a record whose batch has a number of at least *n* is in a frame with such a
/// number, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Synced {
    /// The number of the batch.
    pub lsn: Lsn,
    /// The number of the frame that holds it.
    pub frame: Lsn,
    /// How long the sync took.
    pub took: Duration,
}

/// The batches that wait for the log thread.
pub struct BatchQueue {
    batches: Receiver<(WorkerId, Batch)>,
    /// A batch that was received, and must go into a frame of its own.
    held: Option<(WorkerId, Batch)>,
}

/// A frame with batches of one or more workers.
pub struct SharedFrame {
    /// The records of all batches, under the number of the frame.
    pub frame: Batch,
    /// The batches in the frame: the worker, and its number for the batch.
    pub batches: Vec<(WorkerId, Lsn)>,
    /// Bytes of the records.
    bytes: usize,
}

impl BatchQueue {
    /// Returns the queue of the batches that come from `batches`.
    #[must_use]
    pub fn new(batches: Receiver<(WorkerId, Batch)>) -> BatchQueue {
        BatchQueue { batches, held: None }
    }

    /// Waits for a batch, and returns the frame number `lsn` with it and with the waiting batches of other workers.
    ///
    /// # Errors
    /// If no batch comes within `idle`, or if none will ever come.
    pub fn next_frame(&mut self, lsn: Lsn, idle: Option<Duration>) -> Result<SharedFrame, RecvTimeoutError> {
        let first = match (self.held.take(), idle) {
            (Some(held), _) => held,
            (None, Some(idle)) => self.batches.recv_timeout(idle)?,
            (None, None) => self.batches.recv().map_err(|_| RecvTimeoutError::Disconnected)?,
        };
        let mut shared = SharedFrame { frame: Batch { lsn, records: Vec::new() }, batches: Vec::new(), bytes: 0 };
        shared.add(first);
        while shared.bytes < SHARED_FRAME_BYTES_MAX
            && let Ok(next) = self.batches.try_recv()
        {
            if shared.batches.iter().any(|(worker, _)| *worker == next.0) {
                self.held = Some(next);
                break;
            }
            shared.add(next);
        }
        Ok(shared)
    }
}

impl SharedFrame {
    /// Adds a batch of a worker that has none in the frame.
    fn add(&mut self, (worker, mut batch): (WorkerId, Batch)) {
        assert!(batch.lsn <= self.frame.lsn, "the number of a batch is above that of its frame");
        self.bytes += batch.records.iter().map(|record| record.payload().len()).sum::<usize>();
        self.batches.push((worker, batch.lsn));
        if self.frame.records.is_empty() {
            self.frame.records = batch.records;
        } else {
            self.frame.records.append(&mut batch.records);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::wal::{Record, ValueRecord};
    use groups::{Ballot, GroupId, Instance};
    use std::sync::mpsc::sync_channel;

    /// Returns a batch of worker `worker` with one record of `bytes` bytes in the group with the worker's number.
    fn batch(worker: u32, lsn: u64, bytes: usize) -> (WorkerId, Batch) {
        let payload = vec![0; bytes].into();
        let (instance, ballot, chosen) = (Instance(lsn), Ballot::ZERO, Ballot::ZERO);
        let record = Record::Accept(ValueRecord { group: GroupId(worker), instance, ballot, chosen, payload });
        (WorkerId(worker), Batch { lsn: Lsn(lsn), records: vec![record] })
    }

    #[test]
    fn a_frame_holds_one_waiting_batch_of_each_worker_in_order() {
        let (sender, receiver) = sync_channel(10);
        for sent in [batch(1, 4, 1), batch(0, 5, 1), batch(1, 5, 1), batch(0, 6, 1)] {
            sender.send(sent).unwrap();
        }
        let mut queue = BatchQueue::new(receiver);
        let mut next = |lsn: u64| queue.next_frame(Lsn(lsn), Some(Duration::ZERO)).ok();
        let first = next(7).unwrap();
        assert_eq!(first.batches, [(WorkerId(1), Lsn(4)), (WorkerId(0), Lsn(5))]);
        let of = |record: &Record| record.value().map(|value| (value.group.0, value.instance.0));
        assert_eq!(first.frame.records.iter().filter_map(of).collect::<Vec<_>>(), [(1, 4), (0, 5)]);
        assert_eq!(next(8).unwrap().batches, [(WorkerId(1), Lsn(5)), (WorkerId(0), Lsn(6))]);
        assert!(next(9).is_none(), "no batch waits");
        drop(sender);
        assert_eq!(queue.next_frame(Lsn(9), None).err(), Some(RecvTimeoutError::Disconnected));
    }

    #[test]
    fn a_large_batch_shares_its_frame_with_no_later_one() {
        let (sender, receiver) = sync_channel(10);
        [batch(0, 1, SHARED_FRAME_BYTES_MAX), batch(1, 1, 1)].into_iter().for_each(|sent| sender.send(sent).unwrap());
        let mut queue = BatchQueue::new(receiver);
        let batches = [1, 2].map(|lsn| queue.next_frame(Lsn(lsn), None).unwrap().batches.len());
        assert_eq!(batches, [1, 1]);
    }
}
