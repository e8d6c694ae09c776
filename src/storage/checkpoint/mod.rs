//! Checkpoints: files that hold the state of one or more groups, so that the log before it can go, a start need not read
//! it, and a node that is far behind can be brought up.
//!
//! ```text
//! format     the bytes          reader     reads and verifies them
//! writer     writes a file      inspect    what `paxoi inspect checkpoint` prints
//! job        what the node has done with files, on another thread
//! mover      files between nodes, on a third                recovery   what a start finds
//! desk       those threads
//! ```
//!
//! A file is written under another name, synced, and only then renamed: what has the name of a checkpoint was whole
//! once. It is never changed. What one start leaves unfinished the next removes. The states in it are the blocks that a
//! store gives out while it is frozen; this module does not look into them but to verify them.

mod desk;
pub mod format;
mod inspect;
mod job;
mod mover;
mod reader;
mod recovery;
#[cfg(test)]
mod tests;
mod writer;

pub use desk::{Desk, Worker};
pub use format::{FORMAT_VERSION, Header, Packing, SectionHead, SectionSummary};
pub use inspect::inspect_checkpoint;
pub use job::{Done, Job, Scribe};
pub use mover::{Brought, Errand, INCOMING_PREFIX, Mover};
pub use reader::{CheckpointReader, SectionReader, Verified, verify};
pub use recovery::{Catalog, Loaded, Shelf};
pub use writer::CheckpointWriter;

use crate::kv::BlockError;
use crate::storage::disk::Disk;
use crate::storage::numbered::Numbered;
use groups::GroupId;
use std::io;
use thiserror::Error;

/// Why a checkpoint cannot be written or read. Each is one line that says what to do.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// It could not be written; nothing of it is left, or only what the next start removes.
    #[error("checkpoint file {file}: cannot {doing} it: {source}; the checkpoints before it stay as they are")]
    Write {
        /// The name in the data directory.
        file: String,
        /// What was tried.
        doing: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// It cannot be read.
    #[error("checkpoint file {file}: cannot read it: {source}; {ELSEWHERE}")]
    Read {
        /// The name in the data directory.
        file: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// Its beginning is not one of a checkpoint.
    #[error("checkpoint file {file} is no checkpoint, or its header is damaged; {ELSEWHERE}")]
    Header {
        /// The name in the data directory.
        file: String,
    },
    /// Its end is not one of a checkpoint.
    #[error("checkpoint file {file} is cut short, or its end is damaged; {ELSEWHERE}")]
    CutShort {
        /// The name in the data directory.
        file: String,
    },
    /// Something between is damaged.
    #[error("checkpoint file {file} is corrupt at byte {offset}: {what}; {ELSEWHERE}")]
    Corrupt {
        /// The name in the data directory.
        file: String,
        /// Where the damaged piece starts.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// All bytes are as they were written, but they are no state of the group.
    #[error("checkpoint file {file} has no sound state of group {group}: {source}; {ELSEWHERE}")]
    State {
        /// The name in the data directory.
        file: String,
        /// Whose state it should be.
        group: GroupId,
        /// What is wrong with it.
        source: BlockError,
    },
    /// It was copied from another cluster.
    #[error("checkpoint file {file} belongs to another cluster; remove what was copied here")]
    Foreign {
        /// The name in the data directory.
        file: String,
    },
    /// Written by a later version of the program.
    #[error(
        "checkpoint file {file} has format version {found}, but this program reads only {FORMAT_VERSION}; use the program that wrote it, or a newer one"
    )]
    Version {
        /// The name in the data directory.
        file: String,
        /// The version in the file.
        found: u32,
    },
}

/// What to do about a checkpoint that cannot be used.
const ELSEWHERE: &str = "remove it and use an older checkpoint, or one of another member";

/// The file of the checkpoint with this sequence number.
#[must_use]
pub fn checkpoint_name(sequence: u64) -> String {
    FILES.name(sequence)
}

/// The sequence numbers of all finished checkpoints in a directory, ascending.
///
/// # Errors
/// If the directory cannot be read.
pub fn sequences(disk: &dyn Disk) -> io::Result<Vec<u64>> {
    let mut sequences: Vec<u64> = disk.list()?.iter().filter_map(|name| FILES.sequence(name)).collect();
    sequences.sort_unstable();
    Ok(sequences)
}

/// Removes what writers left that did not finish. To be called at a start, before any other writer is made. Returns how
/// many files that were.
///
/// # Errors
/// If the directory cannot be read or changed.
pub fn remove_unfinished(disk: &dyn Disk) -> io::Result<usize> {
    let names = disk.list()?;
    let unfinished = |name: &&String| name.strip_suffix(UNFINISHED).and_then(|name| FILES.sequence(name)).is_some();
    let unfinished: Vec<&String> = names.iter().filter(unfinished).collect();
    for name in &unfinished {
        disk.remove(name)?;
    }
    if !unfinished.is_empty() {
        disk.sync_dir()?;
    }
    Ok(unfinished.len())
}

/// What the names of checkpoints start with; other files of the data directory do not.
pub const CHECKPOINT_PREFIX: &str = "checkpoint-";

const FILES: Numbered = Numbered(CHECKPOINT_PREFIX);

/// What the name of a checkpoint ends with until it is whole.
const UNFINISHED: &str = ".new";
