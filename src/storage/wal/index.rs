//! Which segment holds which instances of a group: in each segment the first and the last one of every group that has a
//! value there. The log thread adds to it after each sync, the reader asks it, and so does whoever wants to know which
//! segments can go. It grows with segments times groups, not with records.

use super::format::RecordHeader;
use super::{Droppable, Record, RecordKind};
use groups::{GroupId, Instance};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
pub(super) struct Index {
    segments: Mutex<Vec<Segment>>,
}

#[derive(Debug)]
struct Segment {
    sequence: u64,
    first_lsn: u64,
    /// Bytes in the file.
    length: u64,
    /// Where its durable frames end.
    end: u64,
    /// The first and the last instance of each group.
    instances: BTreeMap<GroupId, (Instance, Instance)>,
}

/// A part of the log that holds values of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) sequence: u64,
    pub(super) end: u64,
}

impl Index {
    /// What is added from now on is in this segment, whose frames begin, or end so far, at `end`.
    pub(super) fn begin_segment(&self, header: &super::format::SegmentHeader, end: u64) {
        let (sequence, first_lsn, length) = (header.sequence, header.first_lsn, header.length);
        self.segments().push(Segment { sequence, first_lsn, length, end, instances: BTreeMap::new() });
    }

    /// A frame of these records, which ends at `end`, is durable in the last segment.
    pub(super) fn add(&self, records: &[Record], end: u64) {
        self.add_frame(records.iter().map(|record| (record.kind, record.group, record.instance)), end);
    }

    /// The same for a frame that was read.
    pub(super) fn add_read(&self, records: impl Iterator<Item = RecordHeader>, end: u64) {
        let known = |record: RecordHeader| Some((RecordKind::from_number(record.kind)?, record.group, record.instance));
        self.add_frame(records.filter_map(known), end);
    }

    fn add_frame(&self, records: impl Iterator<Item = (RecordKind, GroupId, Instance)>, end: u64) {
        let mut segments = self.segments();
        let Some(segment) = segments.last_mut() else { return };
        segment.end = end;
        for (_, group, instance) in records.filter(|(kind, ..)| kind.has_value()) {
            segment.instances.entry(group).or_insert((instance, instance)).1 = instance;
        }
    }

    /// The parts of the log in which the values of `group` at `from` and later are, in order.
    pub(super) fn parts(&self, group: GroupId, from: Instance) -> Vec<Part> {
        let segments = self.segments();
        let mut parts = Vec::new();
        let mut lowest = Instance(u64::MAX);
        for segment in segments.iter().rev() {
            let Some((first, _)) = segment.instances.get(&group) else { continue };
            parts.push(Part { sequence: segment.sequence, end: segment.end });
            lowest = *first;
            // A segment that starts with `from` itself is not enough: an earlier one may have it under other ballots.
            if *first < from {
                break;
            }
        }
        if lowest > from {
            return Vec::new();
        }
        parts.reverse();
        parts
    }

    /// Which segments have no value of any group above the instance that `floors` has for it, counted from the oldest;
    /// never the last one.
    pub(super) fn droppable(&self, floors: &[Instance]) -> Option<Droppable> {
        let segments = self.segments();
        let counts = |segment: &Segment| {
            let floor = |group: &GroupId| floors.get(group.index()).copied().unwrap_or_default();
            segment.instances.iter().any(|(group, (_, last))| *last > floor(group))
        };
        let kept = segments.iter().position(counts).unwrap_or(segments.len()).min(segments.len().saturating_sub(1));
        let first = segments.get(kept).filter(|_| kept > 0)?;
        Some(Droppable { below: first.sequence, lsn: first.first_lsn })
    }

    /// The oldest segment, if it is below `sequence`.
    pub(super) fn oldest_below(&self, sequence: u64) -> Option<u64> {
        let segments = self.segments();
        segments
            .first()
            .filter(|_| segments.len() > 1)
            .map(|oldest| oldest.sequence)
            .filter(|oldest| *oldest < sequence)
    }

    /// The oldest segment is gone. Returns how long it was.
    pub(super) fn forget_oldest(&self) -> u64 {
        self.segments().remove(0).length
    }

    /// Whether that segment is there.
    pub(super) fn has(&self, sequence: u64) -> bool {
        self.segments().iter().any(|segment| segment.sequence == sequence)
    }

    fn segments(&self) -> MutexGuard<'_, Vec<Segment>> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
