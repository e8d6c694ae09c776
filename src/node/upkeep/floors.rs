//! The part of the log that no worker needs. Each worker decides for its own groups, and tells the first worker the lowest
//! segment that it needs. The segments below the lowest of all are dropped.

use crate::storage::wal::{Lsn, SegmentSequence};
use crate::workers::{WorkerId, Workers};

/// The floors of all workers, at the first worker.
pub(super) struct Floors {
    /// By worker: the lowest segment that it needs.
    needed: Vec<SegmentSequence>,
    /// Segments that are dropped once the record that says so is durable.
    dropping: Option<(SegmentSequence, Lsn)>,
    /// The segments below this one are dropped, or will be.
    below: SegmentSequence,
}

impl Floors {
    pub(super) fn new(workers: Workers) -> Floors {
        let needed = vec![SegmentSequence(0); workers.count() as usize];
        Floors { needed, dropping: None, below: SegmentSequence(0) }
    }

    /// Notes the lowest segment that a worker needs. Returns the lowest segment that some worker needs, if that is a
    /// higher one than before.
    pub(super) fn note(&mut self, worker: WorkerId, needed: SegmentSequence) -> Option<SegmentSequence> {
        self.needed[worker.index()] = needed;
        let lowest = self.needed.iter().copied().min().filter(|lowest| *lowest > self.below)?;
        self.below = lowest;
        Some(lowest)
    }

    /// Notes that the segments below `below` are dropped once the log is durable up to `lsn`.
    pub(super) fn set_dropping(&mut self, below: SegmentSequence, lsn: Lsn) {
        self.dropping = Some((below, lsn));
    }

    /// Notes that the log is durable up to `lsn`. Returns the number below which the segments can be dropped.
    pub(super) fn take_dropped(&mut self, lsn: Lsn) -> Option<SegmentSequence> {
        self.dropping.take_if(|(_, recorded)| *recorded <= lsn).map(|(below, _)| below)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_go_when_no_worker_needs_them_and_the_record_is_durable() {
        let mut floors = Floors::new(Workers::new(WorkerId(0), 2));
        assert_eq!(floors.note(WorkerId(0), SegmentSequence(5)), None, "the other one may need all");
        assert_eq!(floors.note(WorkerId(1), SegmentSequence(3)), Some(SegmentSequence(3)));
        assert_eq!(floors.note(WorkerId(0), SegmentSequence(6)), None);
        floors.set_dropping(SegmentSequence(3), Lsn(10));
        assert_eq!((floors.take_dropped(Lsn(9)), floors.take_dropped(Lsn(10))), (None, Some(SegmentSequence(3))));
        assert_eq!(
            (floors.take_dropped(Lsn(11)), floors.note(WorkerId(1), SegmentSequence(9))),
            (None, Some(SegmentSequence(6)))
        );
    }
}
