//! The limits of a store.

/// What bounds a store. Replicas obey these while applying, so they must be equal on every node, forever: they belong
/// in the birth record, not in a node's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a value that APPEND and SETRANGE may make.
    pub value_bytes_max: usize,
    /// Age at which a session is refused, in milliseconds of the group's time.
    pub session_ttl_ms: u64,
    /// Sessions that a group keeps replies of.
    pub sessions_max: usize,
    /// Bytes of all replies that a group keeps.
    pub session_bytes_max: usize,
    /// Bytes of one reply that is kept; of a longer one only that it was given.
    pub session_reply_bytes_max: usize,
    /// Large commands whose parts are on their way.
    pub uploads_max: usize,
    /// Due keys, and as many old sessions, that are removed when a chosen value begins.
    pub due_per_begin_max: usize,
    /// Due keys that each command removes besides: more than one can add, so that they never pile up.
    pub due_per_command_max: usize,
}

impl Limits {
    /// Bytes of a reply that holds several values, roughly: beyond, an error takes its place.
    #[must_use]
    pub fn reply_bytes_max(&self) -> usize {
        self.value_bytes_max + LISTED_BYTES_MAX
    }

    /// Bytes of a large command that comes in parts: the longest request, and more than its encoding takes.
    #[must_use]
    pub fn upload_bytes_max(&self) -> usize {
        2 * UPLOADED_VALUES * self.value_bytes_max
    }

    /// Bytes of all large commands whose parts are on their way. A single one may be longer.
    #[must_use]
    pub fn uploads_bytes_max(&self) -> usize {
        UPLOADED_VALUES * self.value_bytes_max
    }
}

/// Bytes of the list that one command may make of the database, beyond one value.
const LISTED_BYTES_MAX: usize = 128 << 20;

/// Values of the largest size that may be on their way in parts.
const UPLOADED_VALUES: usize = 4;

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            value_bytes_max: 64 << 20,
            session_ttl_ms: 3_600_000,
            sessions_max: 100_000,
            session_bytes_max: 64 << 20,
            session_reply_bytes_max: 64 << 10,
            uploads_max: 64,
            due_per_begin_max: 128,
            due_per_command_max: 2,
        }
    }
}
