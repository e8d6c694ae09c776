//! The scrub: everything on the disk that nobody reads for long is read now and then, so that rot is found while the other
//! nodes still have what it hit. What is found is written anew, from memory: the node makes checkpoints, and with them the
//! damaged files go.

use crate::storage::checkpoint::{self, checkpoint_name};
use crate::storage::disk::Disk;
use crate::storage::wal;
use std::time::Duration;

/// What a scrub found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Bytes that were read.
    pub bytes: u64,
    /// Checkpoints that are damaged.
    pub checkpoints: Vec<u64>,
    /// Segments of the log that are damaged.
    pub segments: Vec<u64>,
}

/// Reads all checkpoints and all segments of the log but the last, and calls `rest` with the time that should pass
/// between two files, so that others get the disk. Files that go meanwhile are passed over.
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
