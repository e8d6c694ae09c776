//! What fits the log while the disk is full or nearly so.
//!
//! A batch that the log has no space for stops everything behind it: promises, and with them elections. So a node whose disk
//! is short of space takes no value on that might not fit: it does not vote for it, nor propose it. Clients may ask for
//! nothing that grows from the moment that no further segment can be made; what is left of the last one is for what was on
//! its way then, for deletions, and for what new leaders begin with. The end of it is for promises, so that this node can
//! go on voting out leaders.

use crate::storage::wal::format::{FRAME_ALIGNMENT, FRAME_HEADER_BYTES, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use crate::storage::wal::{LogStatus, Options};

/// What the log says of its space, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// What is left in the last segment.
    pub room: u64,
    /// The length of the next one.
    pub segment: u64,
    /// It is ready to be used.
    pub spare: bool,
    /// It cannot be made.
    pub full: bool,
    /// What of the last segment is kept for small values and promises.
    pub reserve: u64,
    /// What the disk has left.
    pub free: u64,
}

/// All that one could want.
impl Default for Space {
    fn default() -> Space {
        Space { room: u64::MAX, segment: u64::MAX, spare: true, full: false, reserve: 0, free: u64::MAX }
    }
}

impl Space {
    /// What a log with these options says, on a disk with so many bytes left.
    #[must_use]
    pub fn of(status: &LogStatus, options: &Options, free: u64) -> Space {
        Space {
            room: status.room(),
            segment: options.segment_bytes,
            spare: status.spare(),
            full: status.full(),
            reserve: options.reserve_bytes,
            free,
        }
    }

    /// Whether a value of `bytes` can be logged behind `waiting` bytes that are on their way to the log or wait for that.
    pub(super) fn takes(&self, bytes: usize, waiting: usize) -> bool {
        let behind = (bytes + waiting + HEADERS_BYTES) as u64;
        if behind >= self.segment {
            return !self.full && self.has_free(behind);
        }
        let fits = |left: u64| self.room >= behind + left;
        let next_is_sure = self.spare || (!self.full && self.has_free(self.segment));
        next_is_sure || fits(self.reserve) || (bytes <= SMALL_BYTES && fits(self.reserve / 4))
    }

    /// Whether a client may ask for something of `bytes` that may add as much.
    pub(super) fn takes_growth(&self, bytes: usize) -> bool {
        // What needs a segment of its own would only show there that none can be made.
        let is_large = (bytes + HEADERS_BYTES) as u64 >= self.segment;
        !self.full && (!is_large || self.takes(bytes, 0))
    }

    /// Whether a client may ask for something of `bytes` that is logged and adds nothing.
    pub(super) fn takes_command(&self, bytes: usize) -> bool {
        !self.full || (self.takes(bytes, 0) && self.room >= self.reserve / 2)
    }

    /// Whether nothing but promises can be logged any more.
    pub(super) fn is_exhausted(&self) -> bool {
        self.full && self.room < self.reserve / 4 + (SMALL_BYTES + HEADERS_BYTES) as u64
    }

    /// Whether a segment of so many bytes can be made, even if other members make theirs on the same disk.
    fn has_free(&self, bytes: u64) -> bool {
        self.free >= bytes.saturating_mul(COPIES)
    }
}

/// What a value takes in the log beside its bytes, as the only one of a frame and of a segment, and no less.
const HEADERS_BYTES: usize = 256;
const _: () = assert!(
    SEGMENT_HEADER_BYTES + 2 * FRAME_HEADER_BYTES + RECORD_HEADER_BYTES + FRAME_ALIGNMENT <= HEADERS_BYTES,
    "what is thought to fit a segment does"
);
/// Values up to this may use the reserve: deletions, and what a new leader begins with.
const SMALL_BYTES: usize = 16 << 10;
/// Members whose data may be on one disk, and one more.
const COPIES: u64 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn space(room: usize, spare: bool, full: bool) -> Space {
        Space { room: room as u64, segment: 64 << 20, spare, full, reserve: 8 << 20, free: 100 << 20 }
    }

    #[test]
    fn with_a_spare_everything_fits_but_what_needs_a_segment_of_its_own() {
        let plenty = space(0, true, false);
        assert!(plenty.takes(1, 0) && plenty.takes(60 * MIB, 0) && !plenty.takes(60 * MIB, 5 * MIB));
        assert!(Space { free: 1000 << 20, ..plenty }.takes(60 * MIB, 5 * MIB));
        assert!(plenty.takes_growth(60 * MIB) && !plenty.takes_growth(70 * MIB));
    }

    #[test]
    fn without_one_the_reserve_is_kept_unless_there_is_plenty_to_make_one_of() {
        for full in [false, true] {
            let left = space(10 * MIB, false, full);
            assert!(left.takes(MIB, 0) && left.takes(MIB / 2, MIB) && !left.takes(2 * MIB, 0));
            assert_eq!(Space { free: 1000 << 20, ..left }.takes(20 * MIB, 0), !full);
        }
    }

    #[test]
    fn clients_are_refused_only_when_no_segment_can_be_made() {
        let soon = space(0, false, false);
        assert!(!soon.takes(MIB, 0) && soon.takes_growth(MIB) && soon.takes_command(MIB), "that will not take long");
        let full = space(60 * MIB, false, true);
        assert!(!full.takes_growth(1) && full.takes_command(MIB) && full.takes(MIB, 0), "what is on its way fits");
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
