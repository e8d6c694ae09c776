//! Checks a closed segment, for the scrub: the segment header and every frame must be as they were written, and the next
//! segment must follow the last frame.

use super::format::{FRAME_HEADER_BYTES, FrameHeader, SEGMENT_HEADER_BYTES, SegmentHeader, check_body};
use super::scan::{CHUNK_BYTES, Window, segment_header};
use super::{LogError, SegmentSequence, segment_name, segment_sequence};
use crate::storage::disk::Disk;

/// Returns the sequence numbers and names of all segments except the last, to which the log still appends.
#[must_use]
pub fn cold_segments(disk: &dyn Disk) -> Vec<(SegmentSequence, String)> {
    let names = disk.list().unwrap_or_default();
    let mut sequences: Vec<SegmentSequence> = names.iter().filter_map(|name| segment_sequence(name)).collect();
    sequences.sort_unstable();
    sequences.pop();
    sequences.into_iter().map(|sequence| (sequence, segment_name(sequence))).collect()
}

/// Checks every frame of a segment, and that the next segment follows its last frame. Returns the number of bytes
/// checked, with the segment's header.
///
/// # Errors
/// If a frame is missing, is not as it was written, or cannot be read.
pub fn check_segment(disk: &dyn Disk, name: &str) -> Result<u64, LogError> {
    let mut window = Window::open(disk, name, CHUNK_BYTES)?;
    let Ok(header) = SegmentHeader::decode(window.bytes(0, SEGMENT_HEADER_BYTES)?) else {
        return Err(window.corrupt(0, "its header fails its checksum".to_owned()));
    };
    // That header was durable before this segment was closed.
    let next_name = segment_name(header.sequence.following());
    let next = segment_header(disk, &next_name).map_err(|error| {
        window.corrupt(0, format!("the header of {next_name}, which follows it, cannot be read: {error}"))
    })?;
    let seal = header.frame_seal();
    let (mut at, mut lsn, mut previous) = (SEGMENT_HEADER_BYTES as u64, header.first_lsn, header.previous);
    loop {
        // A durability marker may follow. The first frame of the next segment has the same lsn.
        if lsn >= next.first_lsn {
            if lsn == next.first_lsn && previous == next.previous {
                return Ok(at);
            }
            return Err(window.corrupt(at, format!("{next_name} does not follow its last frame {}", lsn.preceding())));
        }
        let head = window.bytes(at, FRAME_HEADER_BYTES)?;
        let frame = FrameHeader::decode(head, seal).filter(|frame| {
            let end = at.checked_add(frame.frame_bytes());
            frame.previous == previous && end.is_some_and(|end| end <= header.length)
        });
        let Some(frame) = frame else {
            return Err(window.corrupt(at, "the header of a frame cannot be read".to_owned()));
        };
        let bytes = frame.frame_bytes();
        let body = &window.bytes(at, bytes as usize)?[FRAME_HEADER_BYTES..];
        if check_body(&frame, body).is_err() {
            return Err(window.corrupt(at, format!("frame {} fails its checksums", frame.lsn)));
        }
        (lsn, previous) = (frame.lsn.following(), frame.crc);
        at += bytes;
    }
}
