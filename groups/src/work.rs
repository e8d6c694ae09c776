//! The work budget of a turn of the event loop, counted in steps. Nothing here reads a clock, so that a simulator and a
//! server cut their work at the same places.

/// Bytes that are copied, hashed or freed in about the time of one step.
pub const BYTES_PER_STEP: usize = 1 << 10;

/// A budget of steps. A step costs about as much as looking at one key: 0.1 to 0.5 µs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkBudget {
    left: u64,
}

impl WorkBudget {
    /// Creates a budget of this many steps.
    #[must_use]
    pub fn steps(steps: u64) -> WorkBudget {
        WorkBudget { left: steps }
    }

    /// Creates a budget without a limit, for callers that have a thread of their own.
    #[must_use]
    pub fn unlimited() -> WorkBudget {
        WorkBudget { left: u64::MAX }
    }

    /// Returns true if there is no limit.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        self.left == u64::MAX
    }

    /// Takes steps off the budget. Work that cannot be divided may need more than is left; then nothing is left.
    pub fn spend(&mut self, steps: usize) {
        if !self.is_unlimited() {
            self.left = self.left.saturating_sub(steps as u64);
        }
    }

    /// Takes off the steps that copying, hashing or freeing these bytes costs.
    pub fn spend_bytes(&mut self, bytes: usize) {
        self.spend(bytes / BYTES_PER_STEP);
    }

    /// Returns true if the rest has to wait for another turn.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.left == 0
    }

    /// Returns the steps that are left.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left
    }
}
