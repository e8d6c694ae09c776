//! What the log threads show to others: counters and whether there is space.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Read by the event loop, written by the log threads. Each value is right by itself; they are not a snapshot.
#[derive(Debug, Default)]
pub struct LogStatus {
    no_spare: AtomicBool,
    no_large: AtomicBool,
    spare: AtomicBool,
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
    /// True while no further segment can be made. A batch that is longer than what is left of the last segment waits then,
    /// with everything behind it: see [`LogStatus::room`].
    #[must_use]
    pub fn full(&self) -> bool {
        self.no_spare() || self.no_large.load(Ordering::Relaxed)
    }

    /// Bytes that are left in the last segment.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.room.load(Ordering::Relaxed)
    }

    /// Whether the segment after it is ready.
    #[must_use]
    pub fn spare(&self) -> bool {
        self.spare.load(Ordering::Relaxed)
    }

    pub(super) fn set_room(&self, bytes: u64) {
        self.room.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn set_spare(&self, ready: bool) {
        self.spare.store(ready, Ordering::Relaxed);
    }

    fn no_spare(&self) -> bool {
        self.no_spare.load(Ordering::Relaxed)
    }

    /// The lsn of the last durable frame.
    #[must_use]
    pub fn lsn(&self) -> u64 {
        self.lsn.load(Ordering::Relaxed)
    }

    /// How many segments there are, without the spare.
    #[must_use]
    pub fn segments(&self) -> u64 {
        self.segments.load(Ordering::Relaxed)
    }

    /// Bytes of all segments, without the spare.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How many frames were written and synced since the log was opened.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// How long those syncs took together.
    #[must_use]
    pub fn sync_time(&self) -> Duration {
        Duration::from_nanos(self.sync_nanos.load(Ordering::Relaxed))
    }

    /// Returns true if that is news.
    pub(super) fn set_no_spare(&self, value: bool) -> bool {
        self.no_spare.swap(value, Ordering::Relaxed) != value
    }

    /// Returns true if that is news.
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

    /// A value that should be served to another node fails its checksum.
    pub(super) fn on_rotten(&self) {
        self.rotten.fetch_add(1, Ordering::Relaxed);
    }

    /// How many segments were dropped since the log was opened.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// How many values were found to fail their checksum since the log was opened.
    #[must_use]
    pub fn rotten(&self) -> u64 {
        self.rotten.load(Ordering::Relaxed)
    }

    pub(super) fn set_lsn(&self, lsn: u64) {
        self.lsn.store(lsn, Ordering::Relaxed);
    }

    pub(super) fn on_sync(&self, lsn: u64, took: Duration) {
        self.set_lsn(lsn);
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.sync_nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}
