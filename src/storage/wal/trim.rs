//! The end of old segments. What may go is decided above: here they go, the oldest first and each durably, so that what
//! is left after a crash at any moment is a log without a gap.

use super::index::Index;
use super::{LogError, LogStatus, segment_name};
use crate::storage::disk::Disk;

/// Segments whose values are all in checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Droppable {
    /// Segments with a lower sequence number.
    pub below: u64,
    /// The lsn with which the first segment begins that stays: what has a lower one must be written again if it counts.
    pub lsn: u64,
}

/// Removes the segments below that one. After an error the oldest of those that are left is the next to go.
pub(super) fn drop_segments(disk: &dyn Disk, index: &Index, status: &LogStatus, below: u64) -> Result<(), LogError> {
    while let Some(oldest) = index.oldest_below(below) {
        let name = segment_name(oldest);
        // The reader opens no more of it from here on; what it has open goes on.
        let length = index.forget_oldest();
        status.on_dropped(length);
        disk.remove(&name).map_err(LogError::io(&name, "remove"))?;
        disk.sync_dir().map_err(LogError::io(&name, "sync the directory of"))?;
    }
    Ok(())
}
