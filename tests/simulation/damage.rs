//! Silent corruption of files ("rot"). In the log it hits only data that later data proves to be durable: a damaged
//! last frame looks like a torn write, and one disk alone cannot tell the two apart. In a checkpoint it hits any data.

use crate::random::Random;
use crate::trace::Trace;
use paxoi::storage::checkpoint::CHECKPOINT_PREFIX;
use paxoi::storage::disk::{Disk, MemoryDisk};
use paxoi::storage::wal::format::{FRAME_HEADER_BYTES, FrameHeader, SEGMENT_HEADER_BYTES, SegmentHeader};
use paxoi::storage::wal::is_segment;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    BitFlip,
    /// The file ends early.
    Truncation,
    /// A block has its content from before its last write.
    Stale,
    /// A block was written to another place.
    Misdirected,
}

/// The part of the log in which damage must be noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Segments that are no longer written.
    Cold,
    /// Frames that a later frame marks as durable.
    Known,
    /// The whole log.
    All,
}

const BLOCK_BYTES: usize = 512;

impl Damage {
    /// Damages a file of the log. Returns true if its content changed, and false if too few bytes are in reach.
    pub(crate) fn strike(self, disk: &MemoryDisk, reach: Reach, random: &mut Random, trace: &Trace) -> bool {
        let names = disk.list().unwrap_or_default();
        let mut segments: Vec<&String> = names.iter().filter(|name| is_segment(name)).collect();
        let last = segments.last().copied();
        if reach == Reach::Cold {
            segments.pop();
        }
        let Some(name) = random.pick(&segments) else { return false };
        let Some(mut content) = disk.content(name) else { return false };
        let written = frames(&content).last().map_or(0, |(at, frame)| at + frame.frame_bytes() as usize);
        let reach = match reach {
            Reach::Known if last == Some(name) => known_bytes(&content),
            // A durability marker follows the last frame. The marker need not be durable itself.
            Reach::All if last == Some(name) => written.saturating_sub(FRAME_HEADER_BYTES),
            _ => written,
        };
        if reach < 2 * BLOCK_BYTES {
            return false;
        }
        let before = content.clone();
        let block = |random: &mut Random| random.below((reach / BLOCK_BYTES) as u64) as usize * BLOCK_BYTES;
        match self {
            Damage::BitFlip => {
                let bit = random.below(reach as u64 * 8) as usize;
                content[bit / 8] ^= 1 << (bit % 8);
            }
            Damage::Truncation => content.truncate(random.below(reach as u64) as usize),
            // Segments are zeros or hold older frames before they are written.
            Damage::Stale => {
                let at = block(random);
                let spares: Vec<&String> = names.iter().filter(|name| name.starts_with("spare")).collect();
                let older = random.pick(&spares).and_then(|name| disk.content(name));
                match older.as_ref().and_then(|older| older.get(at..at + BLOCK_BYTES)) {
                    Some(older) => content[at..at + BLOCK_BYTES].copy_from_slice(older),
                    None => content[at..at + BLOCK_BYTES].fill(0),
                }
            }
            Damage::Misdirected => {
                let (from, to) = (block(random), block(random));
                let moved = content[from..from + BLOCK_BYTES].to_vec();
                content[to..to + BLOCK_BYTES].copy_from_slice(&moved);
            }
        }
        let changed = content != before;
        let differ = |(old, new): (&u8, &u8)| old != new;
        let first = before.iter().zip(&content).position(differ).unwrap_or(content.len());
        let last = before.iter().zip(&content).rposition(differ).unwrap_or(content.len());
        trace.line(|| format!("{self:?} in {name} of {names:?}: {written} bytes written, {first} to {last} differ"));
        disk.set_content(name, content);
        changed
    }
}

/// Damages a checkpoint. Returns true if there was one.
pub(crate) fn rot_checkpoint(disk: &MemoryDisk, random: &mut Random, trace: &Trace) -> bool {
    let names = disk.list().unwrap_or_default();
    let files: Vec<&String> =
        names.iter().filter(|name| name.starts_with(CHECKPOINT_PREFIX) && !name.ends_with(".new")).collect();
    let Some(name) = random.pick(&files) else { return false };
    let Some(mut content) = disk.content(name).filter(|content| !content.is_empty()) else { return false };
    if random.chance(200) {
        content.truncate(random.below(content.len() as u64) as usize);
    } else {
        let bit = random.below(content.len() as u64 * 8) as usize;
        content[bit / 8] ^= 1 << (bit % 8);
    }
    trace.line(|| format!("{name} of {names:?} is damaged"));
    disk.set_content(name, content);
    true
}

/// Changes one bit of a value in the log.
///
/// # Errors
/// If the log does not hold the value exactly once: then a scenario would test nothing.
pub(crate) fn rot_value(disk: &MemoryDisk, value: &str) -> Result<(), String> {
    let names = disk.list().unwrap_or_default();
    let mut count = 0;
    for name in names.iter().filter(|name| is_segment(name)) {
        let Some(mut content) = disk.content(name) else { continue };
        let places = content.windows(value.len()).enumerate();
        let places: Vec<usize> =
            places.filter(|(_, bytes)| *bytes == value.as_bytes()).map(|(place, _)| place).collect();
        places.iter().for_each(|place| content[*place] ^= 1);
        count += places.len();
        disk.set_content(name, content);
    }
    if count == 1 { Ok(()) } else { Err(format!("the value is {count} times in the log: the scenario tests nothing")) }
}

/// Returns how many of the first bytes of the last segment a later frame marks as durable.
fn known_bytes(content: &[u8]) -> usize {
    let frames = frames(content);
    let durable = frames.iter().map(|(_, header)| header.durable).max().unwrap_or_default();
    frames.iter().find(|(_, header)| header.lsn > durable).map_or(0, |(at, _)| *at)
}

/// Returns the offset and the header of each frame of a segment, up to the first that cannot be read.
fn frames(content: &[u8]) -> Vec<(usize, FrameHeader)> {
    let (mut at, mut found) = (SEGMENT_HEADER_BYTES, Vec::new());
    let Ok(segment) = SegmentHeader::decode(content) else { return found };
    let seal = segment.frame_seal();
    while let Some(header) = content.get(at..).and_then(|rest| FrameHeader::decode(rest, seal)) {
        found.push((at, header));
        at = at.saturating_add(header.frame_bytes() as usize);
    }
    found
}
