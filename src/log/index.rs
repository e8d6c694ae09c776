//! Which segment holds which instances of a group: in each segment the first one of every group that has a value
//! there. The log thread adds to it after each sync, the reader asks it. It grows with segments times groups, not with
//! records.

use super::format::RecordHeader;
use super::{Record, RecordKind};
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
    /// Where its durable frames end.
    end: u64,
    first: BTreeMap<GroupId, Instance>,
}

/// A part of the log that holds values of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) sequence: u64,
    pub(super) end: u64,
}

impl Index {
    /// What is added from now on is in this segment.
    pub(super) fn begin_segment(&self, sequence: u64, end: u64) {
        self.segments().push(Segment { sequence, end, first: BTreeMap::new() });
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
            segment.first.entry(group).or_insert(instance);
        }
    }

    /// The parts of the log in which the values of `group` at `from` and later are, in order.
    pub(super) fn parts(&self, group: GroupId, from: Instance) -> Vec<Part> {
        let segments = self.segments();
        let mut parts = Vec::new();
        for segment in segments.iter().rev() {
            let Some(first) = segment.first.get(&group) else { continue };
            parts.push(Part { sequence: segment.sequence, end: segment.end });
            // A segment that starts with `from` itself is not enough: an earlier one may have it under other ballots.
            if *first < from {
                break;
            }
        }
        parts.reverse();
        parts
    }

    fn segments(&self) -> MutexGuard<'_, Vec<Segment>> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
