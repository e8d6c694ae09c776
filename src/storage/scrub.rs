//! The scrub: reads, at intervals, everything on the disk that is otherwise not read for a long time. So it finds rot
//! while other nodes still have sound copies of the data. The node repairs the damage from memory: it makes new
//! checkpoints, and then removes the damaged files.

use crate::storage::checkpoint::{self, CheckpointSequence, checkpoint_name};
use crate::storage::disk::Disk;
use crate::storage::wal;
use crate::storage::wal::SegmentSequence;
use std::time::Duration;

/// The findings of a scrub.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Bytes that were read.
    pub bytes: u64,
    /// Sequence numbers of damaged checkpoints.
    pub checkpoints: Vec<CheckpointSequence>,
    /// Sequence numbers of damaged log segments.
    pub segments: Vec<SegmentSequence>,
}

/// Reads all checkpoints and all log segments except the last. After each file, calls `rest` with the time that its
/// bytes take at the rate `bytes_per_s`. The caller should wait that long in `rest`, so that others can use the disk.
/// Stops if `rest` returns false. Skips files that are removed meanwhile.
pub fn scrub(disk: &dyn Disk, bytes_per_s: u64, rest: &mut dyn FnMut(Duration) -> bool) -> Findings {
    let mut findings = Findings::default();
    let pause = |bytes: u64| Duration::from_millis(bytes.saturating_mul(1_000) / bytes_per_s.max(1));
    for sequence in checkpoint::sequences(disk).unwrap_or_default() {
        let name = checkpoint_name(sequence);
        let bytes = disk.open_read_only(&name).and_then(|file| file.size()).unwrap_or(0);
        if let Err(error) = checkpoint::verify(disk, &name)
            && is_there(disk, &name)
        {
            tracing::error!("{error}");
            findings.checkpoints.push(sequence);
        }
        findings.bytes += bytes;
        if !rest(pause(bytes)) {
            return findings;
        }
    }
    for (sequence, name) in wal::cold_segments(disk) {
        let bytes = match wal::check_segment(disk, &name) {
            Ok(bytes) => bytes,
            Err(error) if is_there(disk, &name) => {
                tracing::error!("{error}");
                findings.segments.push(sequence);
                0
            }
            Err(_) => 0,
        };
        findings.bytes += bytes;
        if !rest(pause(bytes)) {
            return findings;
        }
    }
    findings
}

fn is_there(disk: &dyn Disk, name: &str) -> bool {
    disk.list().is_ok_and(|names| names.iter().any(|known| known == name))
}
