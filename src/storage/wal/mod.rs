//! The log: one sequence of frames for all groups. Promises, votes and learned values are durable here before the node
//! sends any message about them. Chosen values are read back from here for nodes that missed them.
//!
//! ```text
//! format          the bytes                               visit     the visitor that gets what is read
//! record          what the records say
//! scan            walks frames, tells torn from rotten    index     which segment holds which instances of a group
//! recovery        scan, visit, repair, then append        reader    chosen values of one group, off the event loop
//! writer          one write and one sync per frame        inspect   prints `paxoi inspect log`
//! handle          the threads around writer and reader    trim      removes segments that count no more
//! shared          batches of several workers, one frame   follow    reads a log again, behind the first reader
//! preallocation   keeps segments ready to use             status    counters, and whether there is space
//! check           reads a closed segment for the scrub
//! ```
//!
//! A failed write or sync of a frame ends the log at once and is never retried: the kernel may have dropped the pages,
//! so a second sync that succeeds proves nothing. A lack of space for another segment is no such failure, because a
//! segment is made whole before it is used.

mod check;
mod follow;
pub mod format;
mod handle;
mod index;
mod inspect;
mod preallocation;
mod reader;
mod record;
mod recovery;
mod scan;
mod shared;
mod status;
#[cfg(test)]
mod tests;
mod trim;
mod visit;
mod writer;

pub use check::{check_segment, cold_segments};
pub use follow::{Follower, Frontier};
pub use format::FORMAT_VERSION;
pub use handle::{BATCHES_QUEUED_MAX, Hooks, Log, LogHandle, LogReader, READS_QUEUED_MAX};
pub use inspect::inspect_log;
pub use reader::{ChosenReader, ChosenValue, ReadRange};
pub use record::{Record, RecordKind, ValueRecord};
pub use recovery::{LogRecoverySummary, recover, replay};
pub(crate) use scan::hex;
pub use shared::{BatchQueue, SharedFrame, Synced};
pub use status::LogStatus;
pub use trim::DroppableSegments;
pub use visit::{Logged, Visit};
pub use writer::{Append, Writer};

use crate::storage::numbered::Numbered;
use std::fmt;
use std::io;
use std::time::Duration;
use thiserror::Error;

/// The sequence number of a segment: segments count 1, 2, 3… without gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentSequence(pub u64);

impl SegmentSequence {
    /// Returns the number of the segment after this one.
    #[must_use]
    pub fn following(self) -> SegmentSequence {
        SegmentSequence(self.0 + 1)
    }

    /// Returns the number of the segment before this one; 0 stands for no segment.
    fn preceding(self) -> SegmentSequence {
        SegmentSequence(self.0.saturating_sub(1))
    }
}

impl fmt::Display for SegmentSequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A log sequence number: the number of a frame, and of a batch. The first frame of a directory has 1, and each later
/// one is one higher. For the numbers of batches see [`Synced`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Returns the number of the batch after this one.
    #[must_use]
    pub fn following(self) -> Lsn {
        Lsn(self.0 + 1)
    }

    /// Returns the number of the batch before this one; 0 stands for no batch.
    #[must_use]
    pub fn preceding(self) -> Lsn {
        Lsn(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Records of one worker that become durable together, in one frame.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The first batch after opening has at least [`LogHandle::next_lsn`]. Each later one of the same worker is higher;
    /// see [`Synced`].
    pub lsn: Lsn,
    /// The records. The frame holds them in this order.
    pub records: Vec<Record>,
}

/// Sizes and times of a log.
#[derive(Clone, Copy, Debug)]
pub struct LogOptions {
    /// The size of new segments. A frame that is larger gets a segment of its own.
    pub segment_bytes: u64,
    /// Bytes of the last segment that are kept for small values and promises while no segment can be made. The node
    /// keeps them free when it decides what is logged; the log itself takes whatever fits.
    pub reserve_bytes: u64,
    /// Idle time after which the log writes a durability marker: an empty frame that says that the last frame is
    /// durable.
    pub idle: Duration,
    /// Delay before the next attempt after a failure to make a segment.
    pub retry: Duration,
}

/// Minimum bytes of a segment. In a smaller one, headers and zeros would outweigh what is logged.
pub const SEGMENT_BYTES_MIN: u64 = 64 << 10;

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions::with_segment_bytes(64 << 20)
    }
}

impl LogOptions {
    /// Returns the default options, with segments of another size, rounded up to a multiple of 8 bytes.
    ///
    /// # Panics
    /// If that size is below [`SEGMENT_BYTES_MIN`].
    #[must_use]
    pub fn with_segment_bytes(segment_bytes: u64) -> LogOptions {
        assert!(segment_bytes >= SEGMENT_BYTES_MIN, "segments of {segment_bytes} bytes are too small");
        let segment_bytes = segment_bytes.next_multiple_of(format::FRAME_ALIGNMENT as u64);
        LogOptions {
            segment_bytes,
            reserve_bytes: segment_bytes / 8,
            idle: Duration::from_millis(3),
            retry: Duration::from_secs(1),
        }
    }
}

/// Why a log cannot be opened, read or written. Each message is one line and says what to do.
#[derive(Debug, Error)]
pub enum LogError {
    /// An operation on a log file failed.
    #[error("log file {file}: cannot {doing} it: {source}")]
    Io {
        /// The name in the data directory.
        file: String,
        /// What was tried.
        doing: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// Something that was durable is damaged. What this node promised or accepted may be lost, so it must not vote.
    #[error(
        "log file {file} is corrupt at byte {offset}: {what}; this node must not vote with it: \
         remove the node from the cluster and add it again under a new id with an empty directory"
    )]
    Corrupt {
        /// The name in the data directory.
        file: String,
        /// Where the damaged frame starts.
        offset: u64,
        /// What is wrong, with the group and instance if they can be read.
        what: String,
    },
    /// A segment between two others, or the first one, is missing.
    #[error("log file {file} is missing; put it back, or replace this node under a new id with an empty directory")]
    Missing {
        /// The name in the data directory.
        file: String,
    },
    /// A segment was copied from another data directory, of this node or of another one.
    #[error(
        "log file {file} belongs to storage {found}, but this directory is storage {expected}; remove the files that \
         were copied here"
    )]
    Foreign {
        /// The name in the data directory.
        file: String,
        /// The storage id in the file.
        found: String,
        /// The storage id of the directory.
        expected: String,
    },
    /// Written by a later version of the program.
    #[error(
        "log file {file} has format version {found}, but this program reads only versions up to {FORMAT_VERSION}; use the program that wrote it, or a newer one"
    )]
    Version {
        /// The name in the data directory.
        file: String,
        /// The version in the file.
        found: u32,
    },
    /// A sound record that only a later version of the program can read.
    #[error(
        "log file {file} has a record of the unknown kind {kind} at byte {offset}, though its format version is {FORMAT_VERSION}; use the program that wrote it, or a newer one"
    )]
    UnknownKind {
        /// The name in the data directory.
        file: String,
        /// Where the frame starts.
        offset: u64,
        /// The number of the kind.
        kind: u8,
    },
}

impl LogError {
    fn io(file: &str, doing: &'static str) -> impl FnOnce(io::Error) -> LogError {
        let file = file.to_owned();
        move |source| LogError::Io { file, doing, source }
    }
}

/// Returns the file name of the segment with this sequence number.
fn segment_name(sequence: SegmentSequence) -> String {
    FILES.name(sequence.0)
}

/// Returns true if a file of this name is a segment of a log, and not a copy that somebody put aside.
#[must_use]
pub fn is_segment(name: &str) -> bool {
    segment_sequence(name).is_some()
}

/// Returns the sequence number in a segment's name; `None` for other files.
fn segment_sequence(name: &str) -> Option<SegmentSequence> {
    FILES.sequence(name).map(SegmentSequence)
}

/// The prefix of the names of segments; no other file of the data directory has it.
pub const SEGMENT_PREFIX: &str = "log-";

const FILES: Numbered = Numbered(SEGMENT_PREFIX);

/// The name of all segments together in messages.
const ALL_SEGMENTS: &str = "log-*";
