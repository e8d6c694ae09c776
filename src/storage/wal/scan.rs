//! Walks all frames of a log in order, writes nothing, and finds where it ends.
//!
//! A frame that cannot be read is torn or rotten. The write of a torn frame never finished, so the node has sent no
//! message that depends on the frame. A rotten frame was durable, and the node must not go on as if the frame had never
//! existed. A frame is rotten if anything behind it claims that it was durable: a later frame by its `durable`, a later
//! segment by its first lsn (a segment is begun only when everything before it is synced). So only the last segment can
//! end with a torn frame. If only values are rotten, the rest of the frame is still used: its promises and votes are in
//! the headers of its records.

use super::format::{
    BodyFlaw, FRAME_ALIGNMENT, FRAME_HEADER_BYTES, FRAME_MAGIC, FrameHeader, FrameSeal, RecordHeader,
    SEGMENT_HEADER_BYTES, SegmentFlaw, SegmentHeader, check_body, records,
};
use super::{ALL_SEGMENTS, LogError, Lsn, segment_name, segment_sequence};
use crate::storage::disk::{Disk, DiskFile, read_full};
use crc32c::crc32c;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

/// Bytes read at once; more only for a larger frame.
pub(super) const CHUNK_BYTES: usize = 4 << 20;

/// The result of a walk over a whole log.
pub(super) struct Scan {
    /// The headers of all segments, in order.
    pub(super) headers: Vec<SegmentHeader>,
    /// The lsn of the next frame to be written.
    pub(super) next_lsn: Lsn,
    /// The header CRC of the last frame.
    pub(super) previous: u32,
    /// Where the next frame goes in the last segment.
    pub(super) tail: u64,
    /// Offset in the last segment of the first frame without a claim that it is durable; `tail` if there is none.
    pub(super) unsure_from: u64,
    /// Where in the last segment the remains of torn frames end; `tail` if there are none.
    pub(super) dirty_end: u64,
    /// How many frames there are.
    pub(super) frames: u64,
    /// How many records there are.
    pub(super) records: u64,
    /// Bytes of all frames.
    pub(super) bytes: u64,
    /// How many frames have values that fail their checksums.
    pub(super) rotten: u64,
}

/// A frame that belongs to the log: a sound one, or a durable one with damaged values.
pub(super) struct FrameFound<'a> {
    pub(super) segment: &'a SegmentHeader,
    /// The offset of the frame in the segment.
    pub(super) at: u64,
    pub(super) header: &'a FrameHeader,
    /// The bytes behind the frame header.
    pub(super) body: &'a [u8],
    /// It was durable, but some of its values fail their checksums now.
    pub(super) rotten: bool,
}

/// The callback for each frame; also gets the headers of all segments.
pub(super) type OnFrame<'a> = &'a mut dyn FnMut(&[SegmentHeader], FrameFound<'_>) -> Result<(), LogError>;

/// The callback for progress: bytes done and bytes in all, before the first and after each segment.
pub(super) type OnProgress<'a> = &'a mut dyn FnMut(u64, u64);

/// Walks the log of `storage_id`, or whatever log there is if that is `None`.
pub(super) fn scan(
    disk: &dyn Disk,
    storage_id: Option<[u8; 16]>,
    on_frame: OnFrame<'_>,
    on_progress: OnProgress<'_>,
) -> Result<Scan, LogError> {
    let headers = segment_headers(disk, storage_id)?;
    let Some(first) = headers.first() else {
        let (next_lsn, previous) = (Lsn(1), 0);
        let (tail, unsure_from, dirty_end) = (0, 0, 0);
        return Ok(Scan {
            headers,
            next_lsn,
            previous,
            tail,
            unsure_from,
            dirty_end,
            frames: 0,
            records: 0,
            bytes: 0,
            rotten: 0,
        });
    };
    let mut walk = Walk {
        seal: first.frame_seal(),
        lsn: first.first_lsn,
        previous: first.previous,
        durable: headers.last().map_or(Lsn(0), |last| last.first_lsn.preceding()),
        unsure: VecDeque::new(),
        found: (0, 0, 0),
        rotten: 0,
        headers: &headers,
        on_frame,
    };
    let total: u64 = headers.iter().map(|header| header.length).sum();
    let mut done = 0;
    on_progress(done, total);
    let (mut tail, mut dirty_end) = (0, 0);
    for (position, header) in headers.iter().enumerate() {
        let mut window = Window::open(disk, &segment_name(header.sequence), CHUNK_BYTES)?;
        walk.seal = header.frame_seal();
        match headers.get(position + 1) {
            Some(next) => walk.inner_segment(header, next, &mut window)?,
            None => (tail, dirty_end) = walk.last_segment(header, &mut window)?,
        }
        done += header.length;
        on_progress(done, total);
    }
    let Walk { lsn: next_lsn, previous, unsure, found: (frames, records, bytes), rotten, .. } = walk;
    let unsure_from = unsure.front().map_or(tail, |(_, at)| *at);
    Ok(Scan { headers, next_lsn, previous, tail, unsure_from, dirty_end, frames, records, bytes, rotten })
}

fn segment_headers(disk: &dyn Disk, storage_id: Option<[u8; 16]>) -> Result<Vec<SegmentHeader>, LogError> {
    let names = disk.list().map_err(LogError::io(ALL_SEGMENTS, "look for"))?;
    let mut headers: Vec<SegmentHeader> = Vec::new();
    for sequence in names.iter().filter_map(|name| segment_sequence(name)) {
        let due = headers.last().map_or(sequence, |header| header.sequence.following());
        if sequence != due {
            return Err(LogError::Missing { file: segment_name(due) });
        }
        let file = segment_name(sequence);
        let header = segment_header(disk, &file)?;
        let corrupt = |what: String| Err(LogError::Corrupt { file: file.clone(), offset: 0, what });
        if header.sequence != sequence {
            return corrupt(format!("its header is that of {}", segment_name(header.sequence)));
        }
        if header.first_lsn < headers.last().map_or(Lsn(1), |before| before.first_lsn) {
            return corrupt(format!("it starts at frame {}, before its predecessor", header.first_lsn));
        }
        let expected = storage_id.or(headers.first().map(|first| first.storage_id));
        if let Some(expected) = expected.filter(|expected| *expected != header.storage_id) {
            let (found, expected) = (hex(&header.storage_id), hex(&expected));
            return Err(LogError::Foreign { file, found, expected });
        }
        headers.push(header);
    }
    Ok(headers)
}

/// Reads the header of a segment, and checks that the file is as long as it says.
pub(super) fn segment_header(disk: &dyn Disk, name: &str) -> Result<SegmentHeader, LogError> {
    let file = disk.open_read_only(name).map_err(LogError::io(name, "open"))?;
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    let count = read_full(&*file, 0, &mut bytes).map_err(LogError::io(name, "read"))?;
    let corrupt = |what: String| LogError::Corrupt { file: name.to_owned(), offset: 0, what };
    let header = SegmentHeader::decode(&bytes[..count]).map_err(|flaw| match flaw {
        SegmentFlaw::Version(found) => LogError::Version { file: name.to_owned(), found },
        SegmentFlaw::Checksum => corrupt("its header fails its checksum".to_owned()),
    })?;
    if header.length < SEGMENT_HEADER_BYTES as u64 {
        return Err(corrupt(format!("its header says that it has {} bytes, fewer than a header", header.length)));
    }
    let size = file.size().map_err(LogError::io(name, "read"))?;
    if size < header.length {
        return Err(corrupt(format!("it has {size} bytes and should have {}", header.length)));
    }
    Ok(header)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The state between two frames.
struct Walk<'a> {
    /// That of the segment that is walked.
    seal: FrameSeal,
    /// The lsn of the frame that is due.
    lsn: Lsn,
    previous: u32,
    /// The highest lsn that a sound frame or segment header claims to be durable.
    durable: Lsn,
    /// (lsn, offset) of the last segment's frames with an lsn above `durable`: one or two, whatever the length of the
    /// log.
    unsure: VecDeque<(Lsn, u64)>,
    /// Frames, records, bytes.
    found: (u64, u64, u64),
    rotten: u64,
    headers: &'a [SegmentHeader],
    on_frame: OnFrame<'a>,
}

impl Walk<'_> {
    /// Walks a segment that has a successor. All its frames were durable when the successor was begun.
    fn inner_segment(
        &mut self,
        segment: &SegmentHeader,
        next: &SegmentHeader,
        window: &mut Window,
    ) -> Result<(), LogError> {
        let mut at = SEGMENT_HEADER_BYTES as u64;
        // A durability marker may follow. The first frame of the next segment has the marker's lsn.
        while self.lsn < next.first_lsn {
            match self.frame(segment, at, true, window)? {
                Ok(bytes) => at += bytes,
                Err(flaw) => {
                    let next = segment_name(next.sequence);
                    let what =
                        format!("{}, but {next} was begun after that frame was durable", flaw.describe(self.lsn));
                    return Err(window.corrupt(at, what));
                }
            }
        }
        if self.lsn != next.first_lsn || self.previous != next.previous {
            let name = segment_name(next.sequence);
            return Err(window.corrupt(at, format!("{name} does not follow its last frame {}", self.lsn.preceding())));
        }
        Ok(())
    }

    /// Walks the last segment. Returns the end of the log, and the end of the remains of torn frames behind it.
    fn last_segment(&mut self, segment: &SegmentHeader, window: &mut Window) -> Result<(u64, u64), LogError> {
        let mut at = SEGMENT_HEADER_BYTES as u64;
        loop {
            if at + FRAME_HEADER_BYTES as u64 > segment.length {
                return Ok((at, at));
            }
            let found = match self.frame(segment, at, false, window)? {
                // A torn write, unless something behind it says that it was durable.
                Err(flaw @ Flaw::Body(_, BodyFlaw::Payload(_))) => match self.torn_end(segment, at, &flaw, window) {
                    Err(LogError::Corrupt { .. }) => self.frame(segment, at, true, window)?,
                    torn => return Ok((at, torn?)),
                },
                found => found,
            };
            match found {
                Ok(bytes) => {
                    self.unsure.push_back((self.lsn.preceding(), at));
                    while self.unsure.front().is_some_and(|(lsn, _)| *lsn <= self.durable) {
                        self.unsure.pop_front();
                    }
                    at += bytes;
                }
                Err(flaw) => return Ok((at, self.torn_end(segment, at, &flaw, window)?)),
            }
        }
    }

    /// Reads the frame that is due at `at`, hands it on, and returns its size. If `durable` is true, the frame is
    /// accepted even if values in it are damaged: other nodes have those that were chosen.
    fn frame(
        &mut self,
        segment: &SegmentHeader,
        at: u64,
        durable: bool,
        window: &mut Window,
    ) -> Result<Result<u64, Flaw>, LogError> {
        let Some(header) = FrameHeader::decode(window.bytes(at, FRAME_HEADER_BYTES)?, self.seal) else {
            return Ok(Err(Flaw::Header));
        };
        let bytes = header.frame_bytes();
        if header.lsn != self.lsn
            || header.previous != self.previous
            || header.segment != segment.sequence
            || header.durable >= header.lsn
            || bytes > segment.length - at
        {
            return Ok(Err(Flaw::WrongPosition(header)));
        }
        let body = &window.bytes(at, bytes as usize)?[FRAME_HEADER_BYTES..];
        let rotten = match check_body(&header, body) {
            Ok(()) => false,
            Err(BodyFlaw::Payload(_)) if durable && only_values_are_damaged(&header, body) => true,
            Err(flaw) => return Ok(Err(Flaw::Body(header, flaw))),
        };
        self.rotten += u64::from(rotten);
        (self.on_frame)(self.headers, FrameFound { segment, at, header: &header, body, rotten })?;
        self.lsn = self.lsn.following();
        self.previous = header.crc;
        self.durable = self.durable.max(header.durable);
        self.found.0 += 1;
        self.found.1 += u64::from(header.count);
        self.found.2 += bytes;
        Ok(Ok(bytes))
    }

    /// Searches everything behind the bad frame at `bad` for a claim that this frame was durable. Returns an error if
    /// there is such a claim. Otherwise the frame is torn, and the result is the offset at which the remains of torn
    /// frames end. Without a salt these are all bytes that are not zero. With a salt they are the frames with readable
    /// headers: nothing else that is there, perhaps of an older segment, can be taken for a frame.
    fn torn_end(&self, segment: &SegmentHeader, bad: u64, flaw: &Flaw, window: &mut Window) -> Result<u64, LogError> {
        let (mut at, mut dirty_end) = match flaw {
            // The search begins behind the frame: inside it a value may look like anything.
            Flaw::Body(header, _) => (bad + header.frame_bytes(), bad + header.frame_bytes()),
            Flaw::Header | Flaw::WrongPosition(_) => (bad, bad),
        };
        while at < segment.length {
            // A frame header may extend beyond the searched chunk.
            let chunk = window.bytes(at, CHUNK_BYTES + FRAME_HEADER_BYTES)?;
            let searched = chunk.len().min(CHUNK_BYTES);
            if searched == 0 {
                break;
            }
            for start in (0..searched).step_by(FRAME_ALIGNMENT) {
                let rest = &chunk[start..];
                let word = &rest[..rest.len().min(FRAME_ALIGNMENT)];
                if word.iter().all(|byte| *byte == 0) {
                    continue;
                }
                let place = at + start as u64;
                let claim = word.starts_with(&FRAME_MAGIC).then(|| FrameHeader::decode(rest, self.seal)).flatten();
                if segment.salt.is_none() {
                    dirty_end = place + word.len() as u64;
                }
                let Some(claim) = claim else { continue };
                dirty_end = dirty_end.max(place.saturating_add(claim.frame_bytes()));
                if claim.durable >= self.lsn && claim.durable < claim.lsn {
                    let what = flaw.describe(self.lsn);
                    let what = format!(
                        "{what}, but frame {} at byte {place} was written after that frame was durable",
                        claim.lsn
                    );
                    return Err(window.corrupt(bad, what));
                }
            }
            at += searched as u64;
        }
        Ok(dirty_end.min(segment.length))
    }
}

/// Returns true if every damaged payload is a value, which other nodes may have.
fn only_values_are_damaged(header: &FrameHeader, body: &[u8]) -> bool {
    let damaged = |(record, payload): &(RecordHeader, &[u8])| crc32c(payload) != record.payload_crc;
    records(header, body).filter(damaged).all(|(record, _)| record.has_value())
}

/// Why there is no sound frame where one was due.
enum Flaw {
    Header,
    WrongPosition(FrameHeader),
    Body(FrameHeader, BodyFlaw),
}

impl Flaw {
    fn describe(&self, lsn: Lsn) -> Described<'_> {
        Described { flaw: self, lsn }
    }
}

struct Described<'a> {
    flaw: &'a Flaw,
    lsn: Lsn,
}

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lsn = self.lsn;
        match self.flaw {
            Flaw::Header => write!(f, "the header of frame {lsn} cannot be read"),
            Flaw::WrongPosition(found) if found.lsn != lsn => {
                write!(f, "frame {} is where frame {lsn} should be", found.lsn)
            }
            Flaw::WrongPosition(_) => write!(f, "frame {lsn} does not follow the frame before it"),
            Flaw::Body(_, BodyFlaw::Records) => write!(f, "the record headers of frame {lsn} fail their checksum"),
            Flaw::Body(_, BodyFlaw::Payload(record)) => {
                let (group, instance) = (record.group, record.instance);
                write!(f, "the value of group {group} instance {instance} in frame {lsn} fails its checksum")
            }
        }
    }
}

/// A file read from front to back in large pieces.
pub(super) struct Window {
    name: String,
    file: Arc<dyn DiskFile>,
    chunk_bytes: usize,
    buffer: Vec<u8>,
    base: u64,
    filled: usize,
}

impl Window {
    pub(super) fn open(disk: &dyn Disk, name: &str, chunk_bytes: usize) -> Result<Window, LogError> {
        let file = disk.open_read_only(name).map_err(LogError::io(name, "open"))?;
        Ok(Window { name: name.to_owned(), file, chunk_bytes, buffer: Vec::new(), base: 0, filled: 0 })
    }

    /// Returns the `count` bytes at `at`, or fewer where the file ends.
    pub(super) fn bytes(&mut self, at: u64, count: usize) -> Result<&[u8], LogError> {
        let start = at.checked_sub(self.base).and_then(|start| usize::try_from(start).ok());
        let start = match start.filter(|start| *start <= self.filled) {
            Some(start) if start + count <= self.filled => start,
            Some(start) => self.refill(at, start..self.filled, count)?,
            None => self.refill(at, 0..0, count)?,
        };
        Ok(&self.buffer[start..self.filled.min(start + count)])
    }

    /// Refills the buffer from offset `at`. The first of these bytes are already in the buffer at `kept`.
    fn refill(&mut self, at: u64, kept: std::ops::Range<usize>, count: usize) -> Result<usize, LogError> {
        let have = kept.len();
        self.buffer.copy_within(kept, 0);
        self.buffer.resize(self.buffer.len().max(count).max(self.chunk_bytes), 0);
        self.base = at;
        self.filled = have;
        let rest = &mut self.buffer[have..];
        self.filled += read_full(&*self.file, at + have as u64, rest).map_err(LogError::io(&self.name, "read"))?;
        Ok(0)
    }

    pub(super) fn corrupt(&self, offset: u64, what: String) -> LogError {
        LogError::Corrupt { file: self.name.clone(), offset, what }
    }
}
