//! The values that fit into the log while the disk is full or nearly full.
//!
//! A batch for which the log has no space stops everything behind it: promises, and with them elections. So a node that
//! is short of space neither votes for nor proposes a value that might not fit. As soon as no further segment can be
//! made, clients' commands that may add data are refused. The rest of the last segment is for values in flight at that
//! moment, for deletions, and for the first values of new leaders. Its end is for promises, so that this node can still
//! take part in elections.

use crate::storage::wal::format::{FRAME_ALIGNMENT, FRAME_HEADER_BYTES, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use crate::storage::wal::{LogOptions, LogStatus};

/// Space of the log and the disk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes left in the last segment.
    pub room: u64,
    /// Length of the next segment.
    pub segment: u64,
    /// True if the next segment is preallocated.
    pub preallocated: bool,
    /// True if no further segment can be made.
    pub full: bool,
    /// Bytes at the end of the last segment that are kept for small values and promises.
    pub reserve: u64,
    /// Bytes left on the disk.
    pub free: u64,
}

/// Unlimited space.
impl Default for Space {
    fn default() -> Space {
        Space { room: u64::MAX, segment: u64::MAX, preallocated: true, full: false, reserve: 0, free: u64::MAX }
    }
}

impl Space {
    /// Returns the space of a log with these options, on a disk with `free` bytes left.
    #[must_use]
    pub fn of(status: &LogStatus, options: &LogOptions, free: u64) -> Space {
        Space {
            room: status.room(),
            segment: options.segment_bytes,
            preallocated: status.has_preallocated(),
            full: status.full(),
            reserve: options.reserve_bytes,
            free,
        }
    }

    /// Returns true if a value of `bytes` can be logged behind `waiting` bytes, which are being logged or are queued
    /// for the log.
    pub(super) fn takes(&self, bytes: usize, waiting: usize) -> bool {
        let behind = (bytes + waiting + HEADERS_BYTES) as u64;
        if behind >= self.segment {
            return !self.full && self.has_free(behind);
        }
        let fits = |left: u64| self.room >= behind + left;
        let next_is_sure = self.preallocated || (!self.full && self.has_free(self.segment));
        next_is_sure || fits(self.reserve) || (bytes <= SMALL_BYTES && fits(self.reserve / 4))
    }

    /// Returns true if a client may send a command of `bytes` that may add as many bytes.
    pub(super) fn takes_growth(&self, bytes: usize) -> bool {
        // A value that needs a segment of its own is checked here. Otherwise only the log would find that the segment
        // cannot be made.
        let is_large = (bytes + HEADERS_BYTES) as u64 >= self.segment;
        !self.full && (!is_large || self.takes(bytes, 0))
    }

    /// Returns true if a client may send a command of `bytes` that is logged and adds no data.
    pub(super) fn takes_command(&self, bytes: usize) -> bool {
        !self.full || (self.takes(bytes, 0) && self.room >= self.reserve / 2)
    }

    /// Returns true if only promises can still be logged.
    pub(super) fn is_exhausted(&self) -> bool {
        self.full && self.room < self.reserve / 4 + (SMALL_BYTES + HEADERS_BYTES) as u64
    }

    /// Returns true if a segment of `bytes` can be made, even if other members make theirs on the same disk.
    fn has_free(&self, bytes: u64) -> bool {
        self.free >= bytes.saturating_mul(COPIES)
    }
}

/// Maximum overhead of a value in the log, in bytes, if the value is alone in its frame and its segment.
const HEADERS_BYTES: usize = 256;
const _: () = assert!(
    SEGMENT_HEADER_BYTES + 2 * FRAME_HEADER_BYTES + RECORD_HEADER_BYTES + FRAME_ALIGNMENT <= HEADERS_BYTES,
    "the headers fit"
);
/// Maximum bytes of a value that may use the reserve: deletions, and the first values of new leaders.
const SMALL_BYTES: usize = 16 << 10;
/// Factor for free space: the number of members that may share a disk, and one more.
const COPIES: u64 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn space(room: usize, preallocated: bool, full: bool) -> Space {
        Space { room: room as u64, segment: 64 << 20, preallocated, full, reserve: 8 << 20, free: 100 << 20 }
    }

    #[test]
    fn with_a_preallocated_segment_everything_fits_but_a_value_that_needs_its_own_segment() {
        let plenty = space(0, true, false);
        assert!(plenty.takes(1, 0) && plenty.takes(60 * MIB, 0) && !plenty.takes(60 * MIB, 5 * MIB));
        assert!(Space { free: 1000 << 20, ..plenty }.takes(60 * MIB, 5 * MIB));
        assert!(plenty.takes_growth(60 * MIB) && !plenty.takes_growth(70 * MIB));
    }

    #[test]
    fn without_one_the_reserve_is_kept_unless_the_disk_has_room_for_a_segment() {
        for full in [false, true] {
            let left = space(10 * MIB, false, full);
            assert!(left.takes(MIB, 0) && left.takes(MIB / 2, MIB) && !left.takes(2 * MIB, 0));
            assert_eq!(Space { free: 1000 << 20, ..left }.takes(20 * MIB, 0), !full);
        }
    }

    #[test]
    fn clients_are_refused_only_when_no_segment_can_be_made() {
        let soon = space(0, false, false);
        assert!(!soon.takes(MIB, 0) && soon.takes_growth(MIB) && soon.takes_command(MIB), "a segment will come soon");
        let full = space(60 * MIB, false, true);
        assert!(!full.takes_growth(1) && full.takes_command(MIB) && full.takes(MIB, 0), "values in flight fit");
    }

    #[test]
    fn on_a_full_disk_deletions_then_new_leaders_then_promises_use_the_reserve() {
        let full = |room| space(room, false, true);
        assert!(full(5 * MIB).takes_command(1000) && !full(5 * MIB).takes(MIB, 0));
        assert!(full(3 * MIB).takes(1000, 0) && !full(3 * MIB).takes_command(1000) && !full(3 * MIB).is_exhausted());
        assert!(!full(2 * MIB).takes(1000, 0) && full(2 * MIB).is_exhausted());
        assert!(!space(0, true, false).is_exhausted());
    }
}
