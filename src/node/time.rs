//! Time as the node is told it.

use groups::Clock;

/// What time it is, from the caller's two clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Time {
    /// Microseconds that only go forward.
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

    /// The monotonic clock in the milliseconds of the groups.
    #[must_use]
    pub fn clock(self) -> Clock {
        Clock { mono_ms: self.mono_ms() }
    }
}
