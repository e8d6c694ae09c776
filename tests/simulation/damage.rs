//! Rot: what happens to files while nobody looks. It hits only what is known to be durable by what comes after it: a
//! damaged last frame looks like a torn write, and nothing on one disk can tell the two apart.

use crate::random::Random;
use paxoi::disk::{Disk, MemoryDisk};
use paxoi::log::is_segment;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    BitFlip,
    /// The file ends early.
    Truncation,
    /// A block is what it was before it was last written.
    Stale,
    /// A block was written to another place.
    Misdirected,
}

const BLOCK_BYTES: usize = 512;
/// The frames near the end of the log may not be known as durable by later ones yet.
const FRESH_BYTES: usize = 4 * BLOCK_BYTES;

impl Damage {
    /// Damages a file of the log; false if there is nothing worth it.
    pub(crate) fn strike(self, disk: &MemoryDisk, random: &mut Random) -> bool {
        let names = disk.list().unwrap_or_default();
        let segments: Vec<&String> = names.iter().filter(|name| is_segment(name)).collect();
        let Some(name) = random.pick(&segments) else { return false };
        let Some(mut content) = disk.content(name) else { return false };
        let is_last = segments.last() == Some(name);
        let written = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let reach = if is_last { written.saturating_sub(FRESH_BYTES) } else { written };
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
            // Segments are zeros before they are written.
            Damage::Stale => {
                let at = block(random);
                content[at..at + BLOCK_BYTES].fill(0);
            }
            Damage::Misdirected => {
                let (from, to) = (block(random), block(random));
                let moved = content[from..from + BLOCK_BYTES].to_vec();
                content[to..to + BLOCK_BYTES].copy_from_slice(&moved);
            }
        }
        let changed = content != before;
        disk.set_content(name, content);
        changed
    }
}
