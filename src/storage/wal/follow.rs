//! Reads a log again, behind a first reader that finds out which frames belong to the log. So several followers can
//! restore records in parallel. Each follower restores the records of some groups, at its own speed. The first reader
//! need not wait for any follower.

use super::format::{FRAME_HEADER_BYTES, FrameHeader, FrameSeal, SEGMENT_HEADER_BYTES, check_records, records};
use super::scan::{Window, segment_header};
use super::{LogError, Logged, Lsn, Record, SegmentSequence, segment_name};
use crate::storage::disk::Disk;
use groups::GroupId;
use std::ops::Range;
use std::sync::{Condvar, Mutex, PoisonError};

/// The frontier: the end of the frames that the first reader has accepted so far.
#[derive(Default)]
pub struct Frontier {
    reached: Mutex<Reached>,
    moved: Condvar,
}

#[derive(Default)]
struct Reached {
    /// By segment, in order: its sequence number, and the end of the frames that were read.
    ends: Vec<(SegmentSequence, u64)>,
    /// Bytes added since the followers were last woken.
    untold_bytes: u64,
    /// The first reader has finished.
    over: bool,
}

impl Frontier {
    /// Adds a frame that the first reader has accepted: the bytes `frame` of segment `sequence`. Called for each frame,
    /// in the order of the log.
    pub fn advance(&self, sequence: SegmentSequence, frame: Range<u64>) {
        let mut reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        match reached.ends.last_mut() {
            Some((last, end)) if *last == sequence => *end = frame.end,
            _ => reached.ends.push((sequence, frame.end)),
        }
        // Followers are woken only once per `PIECE_BYTES`.
        reached.untold_bytes += frame.end - frame.start;
        if reached.untold_bytes >= PIECE_BYTES {
            reached.untold_bytes = 0;
            drop(reached);
            self.moved.notify_all();
        }
    }

    /// Ends the frontier: no more frames follow.
    pub fn finish(&self) {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner).over = true;
        self.moved.notify_all();
    }

    /// Waits for frames after offset `at` in the segment with the index `place`, or for a later segment.
    fn beyond(&self, place: usize, at: u64) -> Next {
        let reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        let has_nothing = |reached: &mut Reached| {
            !reached.over
                && reached.ends.get(place).is_none_or(|(_, end)| *end <= at)
                && reached.ends.len() <= place + 1
        };
        let reached = self.moved.wait_while(reached, has_nothing).unwrap_or_else(PoisonError::into_inner);
        match reached.ends.get(place) {
            Some((sequence, end)) if *end > at => Next::Frames(*sequence, *end),
            Some(_) if reached.ends.len() > place + 1 => Next::Segment,
            _ => Next::Nothing,
        }
    }
}

enum Next {
    /// Frames of the segment with this sequence number, up to this offset.
    Frames(SegmentSequence, u64),
    /// No more frames of this segment, but there is a later segment.
    Segment,
    Nothing,
}

/// A reader behind the first reader.
pub struct Follower<'f> {
    disk: &'f dyn Disk,
    frontier: &'f Frontier,
    /// The index of the segment among all, and the offset in it.
    place: usize,
    at: u64,
    /// The segment, and what marks its frames.
    window: Option<(Window, FrameSeal)>,
}

impl<'f> Follower<'f> {
    /// Creates a follower at the beginning of a log. The first reader of that log advances `frontier`.
    #[must_use]
    pub fn new(disk: &'f dyn Disk, frontier: &'f Frontier) -> Follower<'f> {
        let (place, at, window) = (0, SEGMENT_HEADER_BYTES as u64, None);
        Follower { disk, frontier, place, at, window }
    }

    /// Waits for more frames, and calls `visit` with their records of `wanted` groups. Returns the bytes of these
    /// frames; `None` at the end of the log.
    ///
    /// # Errors
    /// If a frame that the first reader accepted cannot be read, or if its header or record headers fail their checksum
    /// now. A damaged value is no error: `visit` gets its record as lost.
    pub fn read(
        &mut self,
        wanted: impl Fn(GroupId) -> bool,
        visit: &mut dyn FnMut(Lsn, Record),
    ) -> Result<Option<u64>, LogError> {
        let (sequence, end) = loop {
            match self.frontier.beyond(self.place, self.at) {
                Next::Frames(sequence, end) => break (sequence, end),
                Next::Segment => {
                    (self.place, self.at, self.window) = (self.place + 1, SEGMENT_HEADER_BYTES as u64, None);
                }
                Next::Nothing => return Ok(None),
            }
        };
        let (window, seal) = match &mut self.window {
            Some(open) => open,
            none => none.insert(open(self.disk, sequence)?),
        };
        let from = self.at;
        while self.at < end {
            self.at += frame(window, *seal, self.at, end, &wanted, visit)?;
        }
        Ok(Some(end - from))
    }
}

fn open(disk: &dyn Disk, sequence: SegmentSequence) -> Result<(Window, FrameSeal), LogError> {
    let name = segment_name(sequence);
    Ok((Window::open(disk, &name, CHUNK_BYTES)?, segment_header(disk, &name)?.frame_seal()))
}

/// Visits the frame at `at`, and returns its size.
fn frame(
    window: &mut Window,
    seal: FrameSeal,
    at: u64,
    end: u64,
    wanted: &impl Fn(GroupId) -> bool,
    visit: &mut dyn FnMut(Lsn, Record),
) -> Result<u64, LogError> {
    let header = FrameHeader::decode(window.bytes(at, FRAME_HEADER_BYTES)?, seal);
    let header = header.filter(|header| header.frame_bytes() <= end - at);
    let Some(header) = header else { return Err(window.corrupt(at, CHANGED.to_owned())) };
    let bytes = header.frame_bytes();
    let body = &window.bytes(at, bytes as usize)?[FRAME_HEADER_BYTES..];
    if check_records(&header, body).is_err() {
        return Err(window.corrupt(at, CHANGED.to_owned()));
    }
    for (record, payload) in records(&header, body).filter(|(record, _)| wanted(record.group)) {
        // Unknown kinds were refused by the first reader.
        if let Some(logged) = Logged::new(record, payload, true).filter(|logged| logged.kind().is_of_group()) {
            visit(header.lsn, logged.record());
        }
    }
    Ok(bytes)
}

/// Bytes of new frames after which the followers are woken.
const PIECE_BYTES: u64 = 256 << 10;
/// Bytes read at once: few enough to stay in a processor's cache until they are used.
const CHUNK_BYTES: usize = 256 << 10;
const CHANGED: &str = "the frame was sound a moment ago, but not when it was read again";
