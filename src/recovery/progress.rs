//! The progress of a start, for those who wait for its end.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of checkpoints and of the log: how many there are, and how many have been read. Several threads may use it.
#[derive(Debug, Default)]
pub struct RecoveryProgress {
    total: AtomicU64,
    done: AtomicU64,
}

impl RecoveryProgress {
    /// Adds `bytes` to the total.
    pub fn expect(&self, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts everything expected as read. The total includes the unused ends of segments, which are never read.
    pub fn finish(&self) {
        self.done.fetch_max(self.total.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Adds `bytes` to the bytes read.
    pub fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Returns the bytes read, and the total as far as it is known.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        let done = self.done.load(Ordering::Relaxed);
        (done, self.total.load(Ordering::Relaxed).max(done))
    }
}
