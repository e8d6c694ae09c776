//! The state of the log that its threads show to others: counters, and whether there is space.

use super::Lsn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Written by the log threads, read by the event loop. Each value is right by itself; together they are no snapshot.
#[derive(Debug, Default)]
pub struct LogStatus {
    no_preallocated: AtomicBool,
    no_large: AtomicBool,
    preallocated: AtomicBool,
    room: AtomicU64,
    lsn: AtomicU64,
    segments: AtomicU64,
    bytes: AtomicU64,
    syncs: AtomicU64,
    sync_nanos: AtomicU64,
    dropped: AtomicU64,
    rotten: AtomicU64,
}

impl LogStatus {
    /// Returns true if the log cannot make another segment. A batch that is longer than the rest of the last segment
    /// then waits, with everything behind it: see [`LogStatus::room`].
    #[must_use]
    pub fn full(&self) -> bool {
        self.no_preallocated() || self.no_large.load(Ordering::Relaxed)
    }

    /// Returns the bytes left for frames in the last segment.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.room.load(Ordering::Relaxed)
    }

    /// Returns true if the preallocated segment is ready.
    #[must_use]
    pub fn has_preallocated(&self) -> bool {
        self.preallocated.load(Ordering::Relaxed)
    }

    pub(super) fn set_room(&self, bytes: u64) {
        self.room.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn set_preallocated(&self, ready: bool) {
        self.preallocated.store(ready, Ordering::Relaxed);
    }

    fn no_preallocated(&self) -> bool {
        self.no_preallocated.load(Ordering::Relaxed)
    }

    /// Returns the number of the last durable frame.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        Lsn(self.lsn.load(Ordering::Relaxed))
    }

    /// Returns how many segments there are, without the preallocated one.
    #[must_use]
    pub fn segments(&self) -> u64 {
        self.segments.load(Ordering::Relaxed)
    }

    /// Returns the bytes of all segments, without the preallocated one.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Returns how many frames were written and synced since the log was opened.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// Returns the total time of the syncs that [`LogStatus::syncs`] counts.
    #[must_use]
    pub fn sync_time(&self) -> Duration {
        Duration::from_nanos(self.sync_nanos.load(Ordering::Relaxed))
    }

    /// Sets whether a preallocated segment cannot be made. Returns true if this has changed.
    pub(super) fn set_no_preallocated(&self, value: bool) -> bool {
        self.no_preallocated.swap(value, Ordering::Relaxed) != value
    }

    /// Sets whether a segment for a large frame cannot be made. Returns true if this has changed.
    pub(super) fn set_no_large(&self, value: bool) -> bool {
        self.no_large.swap(value, Ordering::Relaxed) != value
    }

    pub(super) fn on_segment(&self, bytes: u64) {
        self.segments.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn on_dropped(&self, bytes: u64) {
        self.segments.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a value that should be served to another node and fails its checksum.
    pub(super) fn on_rotten(&self) {
        self.rotten.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how many segments were dropped since the log was opened.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Returns how many values were found to fail their checksum since the log was opened.
    #[must_use]
    pub fn rotten(&self) -> u64 {
        self.rotten.load(Ordering::Relaxed)
    }

    pub(super) fn set_lsn(&self, lsn: Lsn) {
        self.lsn.store(lsn.0, Ordering::Relaxed);
    }

    pub(super) fn on_sync(&self, lsn: Lsn, took: Duration) {
        self.set_lsn(lsn);
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.sync_nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}
