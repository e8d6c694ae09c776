//! How far a start is, for those who wait for it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of checkpoints and of the log: how many there are, and how many have been read. Several threads may use it.
#[derive(Debug, Default)]
pub struct Progress {
    total: AtomicU64,
    done: AtomicU64,
}

impl Progress {
    /// There are so many bytes more.
    pub fn expect(&self, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whatever was expected has been read: the log's segments are not full.
    pub fn finish(&self) {
        self.done.fetch_max(self.total.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// So many bytes more have been read.
    pub fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes that have been read, and bytes in all as far as that is known.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        let done = self.done.load(Ordering::Relaxed);
        (done, self.total.load(Ordering::Relaxed).max(done))
    }
}
