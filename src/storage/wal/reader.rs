//! Reads the chosen values of one group back from the log, for a node that missed them.
//!
//! Votes are logged before anyone knows what is chosen, and one instance may have votes under several ballots. The
//! first record with a value of the next instance names the ballot under which the instance was chosen, and so the vote
//! with the chosen value. For the last chosen instance the caller names the ballot. A learned value is a chosen one.
//!
//! A segment is read through once, without its values, and the positions of the values of *all* groups are kept: groups
//! that catch up at the same time, range after range, need the same segments again and again.

use super::format::{
    FRAME_HEADER_BYTES, FrameHeader, FrameSeal, RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES,
};
use super::index::{Index, Part};
use super::scan::{Window, segment_header};
use super::{LogError, LogStatus, RecordKind, SegmentSequence, segment_name};
use crate::storage::disk::{Disk, DiskFile, read_full};
use bytes::Bytes;
use crc32c::crc32c;
use groups::{Ballot, GroupId, Instance};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of a segment read at once.
const CHUNK_BYTES: usize = 1 << 20;

/// Maximum positions kept in all. Above it the least recently used segments are forgotten, but not the one in use.
const POSITIONS_MAX: usize = 1 << 19;
/// Maximum segments whose positions are kept: each is an open file.
const MAPS_MAX: usize = 16;

/// A request for chosen values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadRange {
    /// A number of the caller's choice, returned with the answer.
    pub tag: u64,
    /// The group of the values.
    pub group: GroupId,
    /// The first instance wanted.
    pub from: Instance,
    /// The lowest instance that the caller does not know as chosen.
    pub below: Instance,
    /// The ballot under which the instance before `below` was chosen.
    pub last_chosen: Ballot,
    /// Maximum bytes of all payloads together; a first value that is larger comes all the same.
    pub bytes_max: usize,
}

/// A chosen value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChosenValue {
    /// The instance in which it was chosen.
    pub instance: Instance,
    /// A ballot under which this value was chosen there.
    pub ballot: Ballot,
    /// The value.
    pub payload: Bytes,
}

/// A reader of chosen values. [`LogHandle::start_reader`](super::LogHandle::start_reader) gives it a thread.
#[derive(Clone)]
pub struct ChosenReader {
    disk: Arc<dyn Disk>,
    index: Arc<Index>,
    status: Arc<LogStatus>,
    /// The segments whose positions are kept, the most recently used last.
    maps: Vec<SegmentMap>,
}

impl ChosenReader {
    pub(super) fn new(disk: Arc<dyn Disk>, index: Arc<Index>, status: Arc<LogStatus>) -> ChosenReader {
        ChosenReader { disk, index, status, maps: Vec::new() }
    }

    /// Returns the values from `range.from` on, in order and without gaps: as many as the limits allow and the log
    /// holds. The answer is empty if the first value is missing or damaged: other nodes have it.
    pub fn read(&mut self, range: &ReadRange) -> Result<Vec<ChosenValue>, LogError> {
        let parts = self.index.parts(range.group, range.from);
        self.values(range, &parts)
    }

    /// Returns the values of a range from these parts of the log.
    pub(super) fn values(&mut self, range: &ReadRange, parts: &[Part]) -> Result<Vec<ChosenValue>, LogError> {
        let (mut selection, index) = (Selection::new(range), self.index.clone());
        for part in parts {
            let map = match self.map(*part) {
                Ok(map) => map,
                // The segment was dropped meanwhile, and all older ones with it.
                Err(_) if !index.has(part.sequence) => return Ok(Vec::new()),
                Err(error) => return Err(error),
            };
            let positions = map.positions.get(&range.group).map_or(&[][..], |positions| &positions[..]);
            let start = positions.partition_point(|position| position.instance < range.from);
            if !positions[start..].iter().all(|position| selection.offer(position, map)) {
                break;
            }
        }
        let oldest = selection.oldest();
        let (values, damaged) = selection.finish();
        if oldest.is_some_and(|oldest| !index.has(oldest)) {
            // Its file may hold a later segment by now.
            return Ok(Vec::new());
        }
        if let Some(error) = damaged {
            self.status.on_rotten();
            tracing::error!("{error}; the node that asked for the value has to ask another node");
        }
        Ok(values)
    }

    /// Returns the positions of the values in a segment, as far as the segment is durable.
    fn map(&mut self, part: Part) -> Result<&SegmentMap, LogError> {
        let known = self.maps.iter().position(|map| map.sequence == part.sequence);
        let mut map = match known {
            Some(position) => self.maps.remove(position),
            None => SegmentMap::new(&*self.disk, part.sequence)?,
        };
        map.read_to(part.end, &*self.disk)?;
        let mut positions = map.count + self.maps.iter().map(|map| map.count).sum::<usize>();
        while !self.maps.is_empty() && (positions > POSITIONS_MAX || self.maps.len() >= MAPS_MAX) {
            positions -= self.maps.remove(0).count;
        }
        self.maps.push(map);
        let last = self.maps.len() - 1;
        Ok(&self.maps[last])
    }
}

/// The search for the chosen values of one group, fed with its logged values in order.
struct Selection<'a> {
    range: &'a ReadRange,
    /// The instance whose chosen value is needed next.
    wanted: Instance,
    /// The values accepted in that instance.
    candidates: Vec<LocatedValue>,
    chosen: Vec<LocatedValue>,
    bytes: usize,
}

struct LocatedValue {
    position: ValuePosition,
    sequence: SegmentSequence,
    file: Arc<dyn DiskFile>,
}

impl<'a> Selection<'a> {
    fn new(range: &'a ReadRange) -> Selection<'a> {
        Selection { range, wanted: range.from, candidates: Vec::new(), chosen: Vec::new(), bytes: 0 }
    }

    /// Takes the next value of the group. Returns false if no later value is of use.
    fn offer(&mut self, position: &ValuePosition, map: &SegmentMap) -> bool {
        if position.instance < self.wanted {
            return true;
        }
        if position.instance == self.wanted.following() && !self.choose_by(position.chosen) {
            return false;
        }
        if position.instance != self.wanted || self.wanted >= self.range.below {
            return false;
        }
        let found = LocatedValue { position: *position, sequence: map.sequence, file: map.file.clone() };
        if position.learned {
            return self.choose(found);
        }
        self.candidates.push(found);
        true
    }

    /// Returns the oldest segment of the values that may be chosen.
    fn oldest(&self) -> Option<SegmentSequence> {
        self.chosen.iter().chain(&self.candidates).map(|found| found.sequence).min()
    }

    /// Returns the values up to the first that cannot be read, and the error of that one.
    fn finish(mut self) -> (Vec<ChosenValue>, Option<LogError>) {
        if self.wanted.following() == self.range.below {
            self.choose_by(self.range.last_chosen);
        }
        let mut values = Vec::with_capacity(self.chosen.len());
        for found in &self.chosen {
            match found.load(self.range.group) {
                Ok(value) => values.push(value),
                Err(error) => return (values, Some(error)),
            }
        }
        (values, None)
    }

    fn choose_by(&mut self, chosen: Ballot) -> bool {
        let candidate = self.candidates.iter().rposition(|found| found.position.ballot == chosen);
        candidate.is_some_and(|position| {
            let found = self.candidates.swap_remove(position);
            self.choose(found)
        })
    }

    /// Adds a chosen value. Returns false if the byte limit does not allow it.
    fn choose(&mut self, found: LocatedValue) -> bool {
        let bytes = self.bytes + found.position.length as usize;
        if !self.chosen.is_empty() && bytes > self.range.bytes_max {
            return false;
        }
        self.bytes = bytes;
        self.chosen.push(found);
        self.candidates.clear();
        self.wanted = self.wanted.following();
        true
    }
}

impl LocatedValue {
    fn load(&self, group: GroupId) -> Result<ChosenValue, LogError> {
        let ValuePosition { instance, ballot, length, crc, at, .. } = self.position;
        let name = segment_name(self.sequence);
        let mut payload = vec![0; length as usize];
        let count = read_full(&*self.file, at, &mut payload).map_err(LogError::io(&name, "read"))?;
        if count < payload.len() || crc32c(&payload) != crc {
            let what = format!("the value of group {group} instance {instance} fails its checksum");
            return Err(LogError::Corrupt { file: name, offset: at, what });
        }
        Ok(ChosenValue { instance, ballot, payload: payload.into() })
    }
}

/// The header of a value, and its offset in the segment.
#[derive(Clone, Copy, Debug)]
struct ValuePosition {
    instance: Instance,
    ballot: Ballot,
    chosen: Ballot,
    learned: bool,
    length: u32,
    crc: u32,
    at: u64,
}

/// The positions of all values in a segment.
#[derive(Clone)]
struct SegmentMap {
    sequence: SegmentSequence,
    file: Arc<dyn DiskFile>,
    seal: FrameSeal,
    /// The offset up to which the segment was read.
    end: u64,
    count: usize,
    positions: BTreeMap<GroupId, Vec<ValuePosition>>,
}

impl SegmentMap {
    fn new(disk: &dyn Disk, sequence: SegmentSequence) -> Result<SegmentMap, LogError> {
        let name = segment_name(sequence);
        let file = disk.open_read_only(&name).map_err(LogError::io(&name, "open"))?;
        // A name is never used twice, so this is the header of the open file, unless the segment is gone.
        let (end, seal) = (SEGMENT_HEADER_BYTES as u64, segment_header(disk, &name)?.frame_seal());
        Ok(SegmentMap { sequence, file, seal, end, count: 0, positions: BTreeMap::new() })
    }

    fn read_to(&mut self, end: u64, disk: &dyn Disk) -> Result<(), LogError> {
        if self.end >= end {
            return Ok(());
        }
        let mut window = Window::open(disk, &segment_name(self.sequence), CHUNK_BYTES)?;
        while self.end < end {
            let at = self.end;
            let Some(frame) = FrameHeader::decode(window.bytes(at, FRAME_HEADER_BYTES)?, self.seal) else {
                return Err(window.corrupt(at, "the header of a durable frame cannot be read".to_owned()));
            };
            let headers_at = at + FRAME_HEADER_BYTES as u64;
            let headers = window.bytes(headers_at, frame.records_bytes() as usize)?;
            if headers.len() as u64 != frame.records_bytes() || crc32c(headers) != frame.records_crc {
                return Err(
                    window.corrupt(at, format!("the record headers of frame {} fail their checksum", frame.lsn))
                );
            }
            let mut payload_at = headers_at + frame.records_bytes();
            for bytes in headers.chunks_exact(RECORD_HEADER_BYTES) {
                let record = RecordHeader::decode(bytes);
                self.add(&record, payload_at);
                payload_at += u64::from(record.payload_length);
            }
            self.end = at + frame.frame_bytes();
        }
        Ok(())
    }

    fn add(&mut self, record: &RecordHeader, at: u64) {
        if !record.has_value() {
            return;
        }
        let RecordHeader { instance, ballot, chosen, payload_length: length, payload_crc: crc, .. } = *record;
        let learned = record.kind == RecordKind::Learned as u8;
        let position = ValuePosition { instance, ballot, chosen, learned, length, crc, at };
        self.positions.entry(record.group).or_default().push(position);
        self.count += 1;
    }
}
