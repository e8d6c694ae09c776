//! Removes old segments. The layers above decide which may go. The oldest goes first and each removal is durable, so
//! that a crash at any moment leaves a log without a gap.

use super::index::Index;
use super::preallocation::PreallocatedSegments;
use super::{LogError, LogStatus, Lsn, SegmentSequence, segment_name};

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
    preallocated: &PreallocatedSegments,
    index: &Index,
    status: &LogStatus,
    below: SegmentSequence,
) -> Result<(), LogError> {
    while let Some(leaving) = index.let_oldest_leave(below) {
        // The reader may have the file open. What it reads there from now on may be wrong: it knows the segment is gone.
        let name = segment_name(leaving.sequence);
        let retired = preallocated.retire(leaving.sequence, leaving.length);
        let recycled = retired.map_err(LogError::io(&name, "remove"))?;
        preallocated.disk().sync_dir().map_err(LogError::io(&name, "sync the directory of"))?;
        if let Some(recycled) = recycled {
            preallocated.on_ready(recycled);
        }
        status.on_dropped(leaving.length);
        index.on_left();
    }
    Ok(())
}
