//! Time as the caller tells it to the node.

use groups::Clock;

/// The present time, by the caller's two clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Time {
    /// Microseconds by a clock that only goes forward.
    pub mono_us: u64,
    /// Microseconds since 1970.
    pub unix_us: u64,
}

impl Time {
    pub(super) fn mono_ms(self) -> u64 {
        self.mono_us / 1_000
    }

    pub(super) fn unix_ms(self) -> u64 {
        self.unix_us / 1_000
    }

    /// Returns the monotonic time in milliseconds, as the groups use it.
    #[must_use]
    pub fn clock(self) -> Clock {
        Clock { mono_ms: self.mono_ms() }
    }
}
