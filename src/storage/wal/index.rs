//! The index of the log: for each segment, the first and the last instance of every group that has a value there. The
//! log thread adds to the index after each sync. The reader of the log and the search for droppable segments use it.
//! The size of the index grows with segments times groups, not with records.

use super::format::RecordHeader;
use super::{DroppableSegments, Lsn, Record, SegmentSequence};
use groups::{GroupId, Instance};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
pub(super) struct Index {
    segments: Mutex<Vec<Segment>>,
    /// The segment whose file is being removed, or could not be removed. No later segment is removed before it.
    leaving: Mutex<Option<Leaving>>,
}

/// A segment that is not in the index any more, and whose file may still be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leaving {
    pub(super) sequence: SegmentSequence,
    /// Bytes in the file.
    pub(super) length: u64,
}

#[derive(Debug)]
struct Segment {
    sequence: SegmentSequence,
    first_lsn: Lsn,
    /// Bytes in the file.
    length: u64,
    /// Offset in the file at which the durable frames end.
    end: u64,
    /// The first and the last instance of each group that has a value in this segment.
    instances: BTreeMap<GroupId, (Instance, Instance)>,
}

/// The durable part of a segment that holds values of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) sequence: SegmentSequence,
    pub(super) end: u64,
}

impl Index {
    /// Begins a segment: later frames are added to it. `end` is the offset at which its frames begin. If the segment
    /// already has frames, `end` is the offset at which they end.
    pub(super) fn begin_segment(&self, header: &super::format::SegmentHeader, end: u64) {
        let (sequence, first_lsn, length) = (header.sequence, header.first_lsn, header.length);
        self.segments().push(Segment { sequence, first_lsn, length, end, instances: BTreeMap::new() });
    }

    /// Adds a frame of these records to the last segment. The frame is durable, and ends at offset `end`.
    pub(super) fn add(&self, records: &[Record], end: u64) {
        self.add_frame(records.iter().filter_map(Record::value).map(|value| (value.group, value.instance)), end);
    }

    /// As [`Index::add`], for a frame that was read from the disk.
    pub(super) fn add_read(&self, records: impl Iterator<Item = RecordHeader>, end: u64) {
        let values = records.filter(RecordHeader::has_value);
        self.add_frame(values.map(|record| (record.group, record.instance)), end);
    }

    fn add_frame(&self, values: impl Iterator<Item = (GroupId, Instance)>, end: u64) {
        let mut segments = self.segments();
        let Some(segment) = segments.last_mut() else { return };
        segment.end = end;
        for (group, instance) in values {
            segment.instances.entry(group).or_insert((instance, instance)).1 = instance;
        }
    }

    /// Returns the parts of the log that hold the values of `group` from instance `from` on, in order. Returns none if
    /// the group's first value in the log is later than `from`.
    pub(super) fn parts(&self, group: GroupId, from: Instance) -> Vec<Part> {
        let segments = self.segments();
        let mut parts = Vec::new();
        let mut lowest = Instance(u64::MAX);
        for segment in segments.iter().rev() {
            let Some((first, _)) = segment.instances.get(&group) else { continue };
            parts.push(Part { sequence: segment.sequence, end: segment.end });
            lowest = *first;
            // A segment that starts with `from` itself is not enough: an earlier segment may hold votes for `from`
            // under other ballots.
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

    /// Returns the oldest segments, as far as they can be dropped: every value in them is at or below its group's
    /// instance in `floors`. The last segment is never among them.
    pub(super) fn droppable(&self, floors: &[Instance]) -> Option<DroppableSegments> {
        let segments = self.segments();
        let counts = |segment: &Segment| {
            let floor = |group: &GroupId| floors.get(group.index()).copied().unwrap_or_default();
            segment.instances.iter().any(|(group, (_, last))| *last > floor(group))
        };
        let kept = segments.iter().position(counts).unwrap_or(segments.len()).min(segments.len().saturating_sub(1));
        let first = segments.get(kept).filter(|_| kept > 0)?;
        Some(DroppableSegments { below: first.sequence, lsn: first.first_lsn })
    }

    /// Removes the oldest segment from the index if its number is below `sequence` and no other segment is leaving. So
    /// the reader does not open that segment again. Returns the segment that is leaving, if any. The last segment
    /// stays.
    pub(super) fn let_oldest_leave(&self, sequence: SegmentSequence) -> Option<Leaving> {
        let (mut leaving, mut segments) = (self.leaving(), self.segments());
        let can_leave = segments.len() > 1 && segments[0].sequence < sequence;
        if leaving.is_none() && can_leave {
            let Segment { sequence, length, .. } = segments.remove(0);
            *leaving = Some(Leaving { sequence, length });
        }
        *leaving
    }

    /// Takes note that the file of the leaving segment was removed.
    pub(super) fn on_left(&self) {
        *self.leaving() = None;
    }

    /// Returns true if the index has that segment.
    pub(super) fn has(&self, sequence: SegmentSequence) -> bool {
        self.segments().iter().any(|segment| segment.sequence == sequence)
    }

    fn leaving(&self) -> MutexGuard<'_, Option<Leaving>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn segments(&self) -> MutexGuard<'_, Vec<Segment>> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
