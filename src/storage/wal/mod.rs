//! The log: one sequence of frames for all groups. Promises, votes and learned values are durable here before a word of
//! them leaves the node; what was chosen is read back from here for nodes that missed it.
//!
//! ```text
//! format     the bytes                               spare     makes segments ahead of need
//! scan       walks frames, tells torn from rotten    index     which segment holds which instances of a group
//! recovery   scan, visit, repair, then write on      reader    chosen values of one group, off the event loop
//! writer     one write and one sync per batch        inspect   what `paxoi inspect log` prints
//! handle     the threads around writer and reader     trim      drops segments that count no more
//! check      reads a cold segment for the scrub      follow     reads a log again, behind the one who scans it
//! visit      who gets what is read
//! ```
//!
//! A write or sync of a frame that fails ends the log at once and is never tried again: the kernel may have dropped the
//! pages, so a second sync that succeeds proves nothing. That there is no space for another segment is no such failure:
//! segments are made whole before they are used.

mod check;
mod follow;
pub mod format;
mod handle;
mod index;
mod inspect;
mod reader;
mod recovery;
mod scan;
mod spare;
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
pub use recovery::{Recovered, recover, replay};
pub(crate) use scan::hex;
pub use status::LogStatus;
pub use trim::Droppable;
pub use visit::{Logged, Visit};
pub use writer::{Append, Writer};

use crate::storage::numbered::Numbered;
use bytes::Bytes;
use groups::{Ballot, GroupId, Instance};
use std::io;
use std::time::Duration;
use thiserror::Error;

/// What a record says. Numbers are never used again for something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// The acceptor promised `ballot`.
    Promise = 1,
    /// The acceptor accepted `payload` under `ballot` at `instance`; the instance before was chosen under `chosen`.
    Accept = 2,
    /// `payload` was learned to be chosen under `ballot` at `instance`; the instance before was chosen under `chosen`.
    Learned = 3,
    /// The peer `ballot.node` was seen with the start number `instance`. The payload is its storage id [16] and the random
    /// number of that start, u64.
    PeerStart = 4,
    /// All instances below `instance` are chosen, the last one under `chosen`, and `ballot` is promised: said again, so
    /// that older records can go.
    Position = 5,
    /// Segments below `instance` may be gone; all that still counted in them was written again before.
    Trimmed = 6,
    /// Never written: stands for an [`RecordKind::Accept`] whose payload does not match its checksum any more.
    LostAccept = 254,
    /// Never written: the same for a [`RecordKind::Learned`].
    LostLearned = 255,
}

impl RecordKind {
    /// The kind that has this number in a log.
    #[must_use]
    pub fn from_number(number: u8) -> Option<RecordKind> {
        match number {
            1 => Some(RecordKind::Promise),
            2 => Some(RecordKind::Accept),
            3 => Some(RecordKind::Learned),
            4 => Some(RecordKind::PeerStart),
            5 => Some(RecordKind::Position),
            6 => Some(RecordKind::Trimmed),
            _ => None,
        }
    }

    /// What stands for a record of this kind whose payload is damaged; `None` if the log is of no use without it.
    #[must_use]
    pub(crate) fn lost(self) -> Option<RecordKind> {
        match self {
            RecordKind::Accept => Some(RecordKind::LostAccept),
            RecordKind::Learned => Some(RecordKind::LostLearned),
            _ => None,
        }
    }

    /// Whether the record is about its group; else it is about the node, and has some group only because all records do.
    #[must_use]
    pub fn is_of_group(self) -> bool {
        !matches!(self, RecordKind::PeerStart | RecordKind::Trimmed)
    }

    /// True if the record holds a value of an instance.
    #[must_use]
    pub fn has_value(self) -> bool {
        matches!(self, RecordKind::Accept | RecordKind::Learned)
    }
}

/// One fact of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What the other fields mean.
    pub kind: RecordKind,
    /// Whose fact it is.
    pub group: GroupId,
    /// In the records of one group that hold values, instances never go down.
    pub instance: Instance,
    /// The ballot promised, accepted or chosen.
    pub ballot: Ballot,
    /// The ballot under which *this node* knows the instance before as chosen, so that a value in the log can be matched
    /// with it; not the ballot that some other node may know it by.
    pub chosen: Ballot,
    /// The value.
    pub payload: Bytes,
}

/// Records that become durable together: one frame, one write, one sync.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The first batch after opening has [`LogHandle::next_lsn`], each later one is one higher.
    pub lsn: u64,
    /// In order; none may be left out.
    pub records: Vec<Record>,
}

/// Sizes and times of a log.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The size of new segments. A frame that is larger gets a segment of its own.
    pub segment_bytes: u64,
    /// While no segment can be made, this much of the last one is to be kept for small values and promises, by those who
    /// decide what is logged: the log itself takes whatever there is room for.
    pub reserve_bytes: u64,
    /// How long nothing must come before the log says, in an empty frame, that the last frame is durable.
    pub idle: Duration,
    /// How long after a failure to make a segment it is tried again.
    pub retry: Duration,
}

/// The smallest size of segments: below, headers and zeros would outweigh what is logged.
pub const SEGMENT_BYTES_MIN: u64 = 64 << 10;

impl Default for Options {
    fn default() -> Options {
        Options::with_segment_bytes(64 << 20)
    }
}

impl Options {
    /// The default, with segments of another size.
    ///
    /// # Panics
    /// If that is below [`SEGMENT_BYTES_MIN`].
    #[must_use]
    pub fn with_segment_bytes(segment_bytes: u64) -> Options {
        assert!(segment_bytes >= SEGMENT_BYTES_MIN, "segments of {segment_bytes} bytes are too small");
        Options {
            segment_bytes,
            reserve_bytes: segment_bytes / 8,
            idle: Duration::from_millis(3),
            retry: Duration::from_secs(1),
        }
    }
}

/// Why a log cannot be opened, read or written. Each is one line that says what to do.
#[derive(Debug, Error)]
pub enum LogError {
    /// A file that could be written, synced or read before cannot any more.
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
        /// What is wrong, and of which group and instance if that can be read.
        what: String,
    },
    /// A segment between others, or the first, is not there.
    #[error("log file {file} is missing; put it back, or replace this node under a new id with an empty directory")]
    Missing {
        /// The name in the data directory.
        file: String,
    },
    /// A segment was copied from another node or another life of this one.
    #[error(
        "log file {file} belongs to storage {found}, but this directory is storage {expected}; remove what was copied here"
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
        "log file {file} has format version {found}, but this program reads only {FORMAT_VERSION}; use the program that wrote it, or a newer one"
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

/// The file of the segment with this sequence number.
fn segment_name(sequence: u64) -> String {
    FILES.name(sequence)
}

/// Whether a file of this name is a segment of a log, and not only a copy that somebody put aside beside it.
#[must_use]
pub fn is_segment(name: &str) -> bool {
    segment_sequence(name).is_some()
}

/// The sequence number in a segment's name; `None` for other files.
fn segment_sequence(name: &str) -> Option<u64> {
    FILES.sequence(name)
}

/// What the names of segments start with; other files of the data directory do not.
pub const SEGMENT_PREFIX: &str = "log-";

const FILES: Numbered = Numbered(SEGMENT_PREFIX);

/// What messages call all segments together.
const ALL_SEGMENTS: &str = "log-*";
