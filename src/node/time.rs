//! Time as the caller tells it to the node.

use groups::{Clock, Ms, Us};

/// The present time, by the caller's two clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Time {
    /// Microseconds by a clock that only goes forward.
    pub mono_us: Us,
    /// Microseconds since 1970.
    pub unix_us: Us,
}

impl Time {
    pub(super) fn mono_ms(self) -> Ms {
        self.mono_us.to_ms()
    }

    pub(super) fn unix_ms(self) -> Ms {
        self.unix_us.to_ms()
    }

    /// Returns the monotonic time in milliseconds, as the groups use it.
    #[must_use]
    pub fn clock(self) -> Clock {
        Clock { mono_ms: self.mono_ms() }
    }
}
