//! Opens a log: reads all of it, hands every record to the node, and makes durable what it handed out.
//!
//! After a kill, the data that a process reads may be in the page cache only, or be left there by a failed sync. The
//! node's answers will depend on that data. So, before the node answers, every frame that is not known to be durable is
//! written again and synced. What could be taken for a torn frame later is zeroed.

use super::format::{FRAME_HEADER_BYTES, SegmentHeader, records};
use super::index::Index;
use super::scan::{CHUNK_BYTES, FrameFound, OnProgress, Scan, scan};
use super::writer::{Position, Segment, Writer};
use super::{ALL_SEGMENTS, LogError, LogOptions, LogStatus, Logged, RecordKind, SegmentSequence, Visit, segment_name};
use crate::storage::disk::{Disk, DiskFile, read_full};
use groups::SplitMix64;
use std::sync::Arc;

/// A summary of an opened log: its content, and the repairs. [`replay`] repairs nothing, and returns the repairs that a
/// start would make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogRecoverySummary {
    /// How many segments there are.
    pub segments: u64,
    /// How many frames were read.
    pub frames: u64,
    /// How many records were in them.
    pub records: u64,
    /// Bytes of those frames.
    pub bytes: u64,
    /// Bytes at the end that were not known to be durable, and are now.
    pub rewritten_bytes: u64,
    /// Bytes of torn writes that were removed.
    pub torn_bytes: u64,
    /// Frames with values that fail their checksums.
    pub rotten: u64,
}

/// Reads the log of `storage_id`, and calls `visit` with each record and its lsn, in order. Calls `progress` with the
/// bytes done and the bytes in all, before the first and after each segment. The returned writer appends behind the
/// last record. A directory without segments gets the first one. `secret` is a random number that no client knows: the
/// salts of new segments follow from it.
pub fn recover(
    disk: &Arc<dyn Disk>,
    storage_id: [u8; 16],
    secret: u64,
    options: LogOptions,
    progress: OnProgress<'_>,
    visit: &mut dyn Visit,
) -> Result<(Writer, LogRecoverySummary), LogError> {
    let index = Arc::new(Index::default());
    let status = Arc::new(LogStatus::default());
    let mut begun = SegmentSequence(0);
    let mut on_frame = |headers: &[SegmentHeader], frame: &FrameFound<'_>| {
        // A segment may have no frame at all.
        for header in
            headers.iter().filter(|header| (begun.following()..=frame.segment.sequence).contains(&header.sequence))
        {
            index.begin_segment(header, frame.at);
        }
        begun = frame.segment.sequence;
        let end = frame.at + frame.header.frame_bytes();
        index.add_read(records(frame.header, frame.body).map(|(record, _)| record), end);
    };
    let found = read_all(&**disk, storage_id, &mut on_frame, progress, visit)?;
    for header in &found.headers {
        status.on_segment(header.length);
        if header.sequence > begun {
            index.begin_segment(header, found.tail);
        }
    }
    // The names of the segments, too, may not be durable yet.
    disk.sync_dir().map_err(LogError::io(ALL_SEGMENTS, "sync the directory of"))?;
    let segment = repaired_tail(&**disk, &found)?;
    let recovered = LogRecoverySummary::of(&found);
    let position = Position { lsn: found.next_lsn.preceding(), previous: found.previous, segment };
    let salts = SplitMix64::new(secret);
    let writer = Writer::new(disk.clone(), storage_id, salts, options, position, status, index)?;
    Ok((writer, recovered))
}

/// Reads the log of `storage_id` as [`recover`] does, but writes nothing: where there is no log, it creates none. Also
/// hands out frames that are not known to be durable, because a start would most likely find them, too.
pub fn replay(
    disk: &dyn Disk,
    storage_id: [u8; 16],
    progress: OnProgress<'_>,
    visit: &mut dyn Visit,
) -> Result<LogRecoverySummary, LogError> {
    read_all(disk, storage_id, &mut |_, _| (), progress, visit).map(|found| LogRecoverySummary::of(&found))
}

impl LogRecoverySummary {
    fn of(found: &Scan) -> LogRecoverySummary {
        LogRecoverySummary {
            segments: found.headers.len() as u64,
            frames: found.frames,
            records: found.records,
            bytes: found.bytes,
            rewritten_bytes: found.tail - found.unsure_from,
            torn_bytes: found.dirty_end - found.tail,
            rotten: found.rotten,
        }
    }
}

/// Hands out every frame and every record.
fn read_all(
    disk: &dyn Disk,
    storage_id: [u8; 16],
    on_frame: &mut dyn FnMut(&[SegmentHeader], &FrameFound<'_>),
    progress: OnProgress<'_>,
    visit: &mut dyn Visit,
) -> Result<Scan, LogError> {
    let mut trimmed = SegmentSequence(1);
    let found = scan(
        disk,
        Some(storage_id),
        &mut |headers, frame| {
            on_frame(headers, &frame);
            visit_frame(&frame, &mut trimmed, visit)
        },
        progress,
    )?;
    // Older segments may be missing only if a `Trimmed` record says so.
    match found.headers.first().filter(|first| first.sequence > trimmed) {
        Some(first) => Err(LogError::Missing { file: segment_name(first.sequence.preceding()) }),
        None => Ok(found),
    }
}

/// Hands out the records of a frame. Raises `trimmed` to the sequence number below which segments may be missing.
fn visit_frame(frame: &FrameFound<'_>, trimmed: &mut SegmentSequence, visit: &mut dyn Visit) -> Result<(), LogError> {
    for (record, payload) in records(frame.header, frame.body) {
        let Some(logged) = Logged::new(record, payload, frame.rotten) else {
            let file = segment_name(frame.segment.sequence);
            return Err(LogError::UnknownKind { file, offset: frame.at, kind: record.kind });
        };
        if logged.kind() == RecordKind::Trimmed {
            *trimmed = (*trimmed).max(SegmentSequence(record.instance.0));
        }
        visit.record(frame.header.lsn, logged);
    }
    visit.frame(frame.segment.sequence, frame.at..frame.at + frame.header.frame_bytes());
    Ok(())
}

/// Repairs and returns the last segment: everything up to its tail becomes durable, and torn frames become zeros.
fn repaired_tail(disk: &dyn Disk, found: &Scan) -> Result<Option<Segment>, LogError> {
    let Some(last) = found.headers.last() else { return Ok(None) };
    let name = segment_name(last.sequence);
    let file = disk.open(&name).map_err(LogError::io(&name, "open"))?;
    let dirty_end = found.dirty_end.max(dirty_header_end(&*file, &name, found.tail)?);
    let wrote = rewrite(&*file, &name, found.unsure_from, found.tail)? | zero(&*file, &name, found.tail, dirty_end)?;
    if wrote {
        file.sync_data().map_err(LogError::io(&name, "sync"))?;
    }
    let (sequence, seal) = (last.sequence, last.frame_seal());
    Ok(Some(Segment { name, file, sequence, seal, length: last.length, tail: found.tail }))
}

/// Returns where the header of the next frame will end if that place holds any bytes, and `tail` otherwise. Such bytes
/// may be the rest of a torn header. A part of a later header could complete it.
fn dirty_header_end(file: &dyn DiskFile, name: &str, tail: u64) -> Result<u64, LogError> {
    let mut header = [0; FRAME_HEADER_BYTES];
    let count = read_full(file, tail, &mut header).map_err(LogError::io(name, "read"))?;
    let is_dirty = header.iter().any(|byte| *byte != 0);
    Ok(if is_dirty { tail + count as u64 } else { tail })
}

fn rewrite(file: &dyn DiskFile, name: &str, from: u64, to: u64) -> Result<bool, LogError> {
    in_pieces(from, to, |at, piece| {
        let count = read_full(file, at, piece).map_err(LogError::io(name, "read"))?;
        file.write_at(at, &piece[..count]).map_err(LogError::io(name, "write"))
    })
}

fn zero(file: &dyn DiskFile, name: &str, from: u64, to: u64) -> Result<bool, LogError> {
    in_pieces(from, to, |at, piece| {
        piece.fill(0);
        file.write_at(at, piece).map_err(LogError::io(name, "write"))
    })
}

/// Calls `each` with offsets and buffers that cover the range. Returns true if the range is not empty.
fn in_pieces(
    from: u64,
    to: u64,
    mut each: impl FnMut(u64, &mut [u8]) -> Result<(), LogError>,
) -> Result<bool, LogError> {
    let mut buffer = vec![0; (to - from).min(CHUNK_BYTES as u64) as usize];
    let mut at = from;
    while at < to {
        let count = (to - at).min(buffer.len() as u64) as usize;
        each(at, &mut buffer[..count])?;
        at += count as u64;
    }
    Ok(from < to)
}
