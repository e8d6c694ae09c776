//! The limits of a store.

use groups::Ms;

/// The bounds of a store. Replicas obey them while applying, so they must be equal on every node, forever: they belong
/// in the birth record, not in a node's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreLimits {
    /// Maximum bytes of a value that APPEND or SETRANGE makes.
    pub value_bytes_max: usize,
    /// Age at which a session is refused, in milliseconds of the group's time.
    pub session_ttl_ms: Ms,
    /// Maximum sessions whose replies a group keeps.
    pub sessions_max: usize,
    /// Maximum bytes of all replies that a group keeps.
    pub session_bytes_max: usize,
    /// Maximum bytes of a kept reply. A session does not keep a longer reply, only the fact that the command was
    /// answered.
    pub session_reply_bytes_max: usize,
    /// Maximum uploads of a group (large commands whose parts are arriving).
    pub uploads_max: usize,
    /// Maximum due keys, and as many old sessions, that are removed when a chosen value begins.
    pub due_per_begin_max: usize,
    /// Maximum due keys that each command removes in addition. A command gives at most one key an expiry, so due keys
    /// never pile up.
    pub due_per_command_max: usize,
}

impl StoreLimits {
    /// Returns the approximate maximum bytes of a reply with several values. An error replaces a longer one.
    #[must_use]
    pub fn reply_bytes_max(&self) -> usize {
        self.value_bytes_max + LISTED_BYTES_MAX
    }

    /// Returns the maximum bytes of an upload. It is more than the encoding of the longest request takes.
    #[must_use]
    pub fn upload_bytes_max(&self) -> usize {
        2 * UPLOADED_VALUES * self.value_bytes_max
    }

    /// Returns the maximum bytes of all uploads of a group together. A single upload may be longer.
    #[must_use]
    pub fn uploads_bytes_max(&self) -> usize {
        UPLOADED_VALUES * self.value_bytes_max
    }
}

/// Maximum bytes of a list that one command makes from the database. [`StoreLimits::reply_bytes_max`] adds one value to
/// it.
const LISTED_BYTES_MAX: usize = 128 << 20;

/// Number of values of the largest size that uploads may hold together.
const UPLOADED_VALUES: usize = 4;

impl Default for StoreLimits {
    fn default() -> StoreLimits {
        StoreLimits {
            value_bytes_max: 64 << 20,
            session_ttl_ms: Ms(3_600_000),
            sessions_max: 100_000,
            session_bytes_max: 64 << 20,
            session_reply_bytes_max: 64 << 10,
            uploads_max: 64,
            due_per_begin_max: 128,
            due_per_command_max: 2,
        }
    }
}
