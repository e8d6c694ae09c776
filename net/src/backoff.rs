//! The times of redialling a peer: the delays grow with each failure, and jitter keeps the nodes from dialling in step.
//!
//! Pure: the caller passes the time and the seed.

/// The first delay after a failure.
pub const DELAY_FIRST_MS: u64 = 50;
/// The longest delay.
pub const DELAY_MAX_MS: u64 = 1_000;

/// The redial schedule of one peer. The first attempt is due at once.
#[derive(Clone, Debug)]
pub struct Backoff {
    failures: u32,
    due_ms: u64,
    random: u64,
}

impl Backoff {
    /// Creates a schedule whose jitter follows from `seed`. Different peers should have different seeds.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { failures: 0, due_ms: 0, random: seed }
    }

    /// Returns true if it is time to dial.
    #[must_use]
    pub fn is_due(&self, now_ms: u64) -> bool {
        now_ms >= self.due_ms
    }

    /// Returns the time of the next attempt, on the clock that the caller uses.
    #[must_use]
    pub fn due_ms(&self) -> u64 {
        self.due_ms
    }

    /// Notes that an attempt, or an established connection, ended at `now_ms`. The delay doubles with each call since
    /// the last success, and is then shortened by a random amount of up to half.
    pub fn on_failure(&mut self, now_ms: u64) {
        let full = DELAY_FIRST_MS.checked_shl(self.failures).map_or(DELAY_MAX_MS, |delay| delay.min(DELAY_MAX_MS));
        self.failures = (self.failures + 1).min(16);
        let shortened = self.next_random() % (full / 2 + 1);
        self.due_ms = now_ms.saturating_add(full - shortened);
    }

    /// Notes that the peer has proved to be the right one. A connection alone does not prove that: a peer that accepts
    /// and closes would be dialled at the highest rate for ever.
    pub fn on_success(&mut self) {
        self.failures = 0;
    }

    /// Returns the next number of SplitMix64. Any seed will do, also 0.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_limit() {
        for seed in 0..100 {
            let mut backoff = Backoff::new(seed);
            assert!(backoff.is_due(0));
            let mut now = 1_000;
            for full in [50, 100, 200, 400, 800, 1_000, 1_000, 1_000] {
                backoff.on_failure(now);
                let delay = backoff.due_ms() - now;
                assert!((full / 2..=full).contains(&delay), "{delay} for {full}");
                assert!(!backoff.is_due(now + delay - 1) && backoff.is_due(now + delay));
                now += delay;
            }
            backoff.on_success();
            backoff.on_failure(now);
            assert!(backoff.due_ms() <= now + DELAY_FIRST_MS);
        }
    }

    #[test]
    fn endless_failure_does_not_overflow() {
        let mut backoff = Backoff::new(1);
        for _ in 0..1_000 {
            backoff.on_failure(u64::MAX - 10);
        }
        assert!(backoff.is_due(u64::MAX));
    }

    #[test]
    fn nodes_do_not_dial_in_step() {
        let due = |seed| {
            let mut backoff = Backoff::new(seed);
            (0..6).for_each(|_| backoff.on_failure(0));
            backoff.due_ms()
        };
        let mut times = (0..20).map(due).collect::<Vec<_>>();
        times.sort_unstable();
        times.dedup();
        assert!(times.len() > 10, "{times:?}");
        assert_eq!(due(3), due(3));
    }
}
