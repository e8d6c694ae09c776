//! How busy the event loop is, and the rate of background work. Serving clients comes first. On an idle loop,
//! background work runs at its maximum rate. On a busy loop it runs at its minimum rate, so that it still ends.

use crate::config::LOAD_WINDOW_US;
use groups::Us;

/// Load above which background work slows down, in thousandths of the loop's time.
const EASY_PER_MILLE: u64 = 200;
/// Load at and above which background work gets only its minimum rate, in thousandths of the loop's time.
const BUSY_PER_MILLE: u64 = 500;

/// The part of its time that the event loop works, and the rate at which it logs. The time for which a turn waited for
/// a processor counts as work, because the machine is busy then too.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::node) struct LoopLoad {
    since_us: Us,
    worked_us: Us,
    logged_before: u64,
    per_mille: u64,
    logged_per_ms: usize,
}

impl LoopLoad {
    /// Records a turn that ended at `now_us` and took `took_us`, without its sleep. `logged` bytes have gone to the log
    /// in all.
    pub(super) fn record(&mut self, took_us: Us, logged: u64, now_us: Us) {
        self.worked_us += took_us;
        let passed_us = now_us.saturating_sub(self.since_us);
        if passed_us >= LOAD_WINDOW_US {
            self.per_mille = (self.worked_us.0 * 1_000 / passed_us.0).min(1_000);
            self.logged_per_ms = ((logged - self.logged_before) * 1_000 / passed_us.0) as usize;
            (self.since_us, self.worked_us, self.logged_before) = (now_us, Us(0), logged);
        }
    }

    /// Returns how busy the loop was in the last [`LOAD_WINDOW_US`], in thousandths.
    pub(super) fn per_mille(&self) -> u64 {
        self.per_mille
    }

    /// Returns the bytes per millisecond that went to the log in that window.
    pub(super) fn logged_per_ms(&self) -> usize {
        self.logged_per_ms
    }

    /// Returns the rate of background work at this load: `most` on an idle loop, `least` on a busy one.
    pub(super) fn allows(&self, least: usize, most: usize) -> usize {
        let room = BUSY_PER_MILLE.saturating_sub(self.per_mille).min(BUSY_PER_MILLE - EASY_PER_MILLE) as usize;
        least + most.saturating_sub(least) * room / (BUSY_PER_MILLE - EASY_PER_MILLE) as usize
    }
}

/// A token bucket of bytes that may be moved. The last move may overdraw it: the next one waits longer then.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TokenBucket {
    allowance: i64,
    earned_us: Us,
}

impl TokenBucket {
    /// Adds the tokens of the time that has passed, at `bytes_per_ms`. The bucket holds at most `saved_max`.
    pub(super) fn earn(&mut self, bytes_per_ms: usize, saved_max: usize, now_us: Us) {
        let passed_us = now_us.saturating_sub(std::mem::replace(&mut self.earned_us, now_us)).min(Us(100_000));
        let earned = passed_us.0 as usize * bytes_per_ms / 1_000;
        self.allowance = (self.allowance + earned as i64).min(saved_max as i64);
    }

    /// Returns true if more bytes may be moved now.
    pub(super) fn is_open(&self) -> bool {
        self.allowance > 0
    }

    /// Takes `bytes` out of the bucket.
    pub(super) fn spend(&mut self, bytes: usize) {
        self.allowance -= bytes as i64;
    }

    /// Puts back `bytes` that were not moved after all.
    pub(super) fn refund(&mut self, bytes: usize) {
        self.allowance += bytes as i64;
    }
}

#[cfg(test)]
mod tests {
    use super::{LoopLoad, TokenBucket};
    use crate::config::LOAD_WINDOW_US;
    use groups::Us;

    fn load(per_mille: u64) -> LoopLoad {
        let mut load = LoopLoad::default();
        load.record(LOAD_WINDOW_US * per_mille / 1_000, 0, LOAD_WINDOW_US);
        assert_eq!(load.per_mille(), per_mille);
        load
    }

    #[test]
    fn a_busy_loop_leaves_the_least_and_an_idle_one_gives_the_most() {
        let allowed = [0, 200, 350, 500, 1_000].map(|per_mille| load(per_mille).allows(10, 110));
        assert_eq!(allowed, [110, 110, 60, 10, 10]);
        assert_eq!(load(0).allows(120, 110), 120, "the least counts");
    }

    #[test]
    fn the_load_is_that_of_the_last_window() {
        let mut load = load(900);
        load.record(Us(0), 5_000, LOAD_WINDOW_US + Us(1));
        assert_eq!((load.per_mille(), load.logged_per_ms()), (900, 0), "the window is not over");
        load.record(LOAD_WINDOW_US / 4, 7_000, LOAD_WINDOW_US * 2);
        assert_eq!((load.per_mille(), load.logged_per_ms()), (250, 7_000 * 1_000 / LOAD_WINDOW_US.0 as usize));
        // A turn that is longer than the window.
        load.record(LOAD_WINDOW_US * 5, 7_000, LOAD_WINDOW_US * 4);
        assert_eq!((load.per_mille(), load.logged_per_ms()), (1_000, 0));
    }

    #[test]
    fn saved_tokens_are_bounded_and_overdrawn_tokens_are_earned_first() {
        let mut bucket = TokenBucket::default();
        assert!(!bucket.is_open());
        bucket.earn(100, 1_000, Us(5_000));
        bucket.spend(499);
        assert!(bucket.is_open());
        bucket.spend(101);
        bucket.earn(100, 1_000, Us(6_000));
        assert!(!bucket.is_open(), "100 were overdrawn");
        bucket.refund(1);
        assert!(bucket.is_open());
        bucket.earn(100, 1_000, Us(99_000_000));
        bucket.spend(1_000);
        assert!(!bucket.is_open());
    }
}
