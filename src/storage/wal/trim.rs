//! Removes old segments. The layers above decide which may go. The oldest goes first and each removal is durable, so
//! that a crash at any moment leaves a log without a gap.

use super::index::Index;
use super::{LogError, LogStatus, Lsn, SegmentSequence, segment_name};
use crate::storage::disk::Disk;
use std::io::ErrorKind;

/// Segments whose values are all in checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DroppableSegments {
    /// The lowest sequence number that stays.
    pub below: SegmentSequence,
    /// The first lsn of the oldest segment that stays. Records with a lower lsn must be written again if they count.
    pub lsn: Lsn,
}

/// Removes the segments below `below`. After an error the next call continues with the segment that could not be
/// removed: a gap in the log would stop the next start.
pub(super) fn drop_segments(
    disk: &dyn Disk,
    index: &Index,
    status: &LogStatus,
    below: SegmentSequence,
) -> Result<(), LogError> {
    while let Some(leaving) = index.let_oldest_leave(below) {
        // Files that the reader has open stay readable.
        let name = segment_name(leaving.sequence);
        match disk.remove(&name) {
            // The previous call removed the file, but could not sync the directory.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            result => result.map_err(LogError::io(&name, "remove"))?,
        }
        disk.sync_dir().map_err(LogError::io(&name, "sync the directory of"))?;
        status.on_dropped(leaving.length);
        index.on_left();
    }
    Ok(())
}
