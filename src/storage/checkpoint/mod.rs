//! Checkpoints: files with the states of one or more groups. Log segments that checkpoints cover can be removed, and a
//! start need not read them. A node that lags far behind catches up by fetching a checkpoint.
//!
//! ```text
//! format     the bytes                             reader     reads and verifies them
//! writer     writes a file                         inspect    prints `paxoi inspect checkpoint`
//! job        the tasks of the checkpoint worker    recovery   loads the states at a start
//! transfer   the tasks of the transfer worker      worker     the threads of both workers
//! ```
//!
//! A file is written under a temporary name, synced, and only then renamed. So a file with the name of a checkpoint was
//! whole when it got the name. It is never changed. The next start removes unfinished files. The states in a file are
//! the blocks that a frozen store gives out; this module looks into them only to verify them.

pub mod format;
mod inspect;
mod job;
mod reader;
mod recovery;
#[cfg(test)]
mod tests;
mod transfer;
mod worker;
mod writer;

pub use format::{FORMAT_VERSION, Header, Packing, SectionHead, SectionSummary};
pub use inspect::inspect_checkpoint;
pub use job::{CheckpointResult, CheckpointTask, CheckpointWorker};
pub use reader::{CheckpointReader, SectionReader, VerifiedSection, verify};
pub use recovery::{Catalog, CheckpointSet, LoadedState};
pub use transfer::{TransferResult, TransferTask, TransferWorker, incoming_prefix};
pub use worker::{Worker, WorkerThread};
pub use writer::CheckpointWriter;

use crate::kv::BlockError;
use crate::storage::disk::Disk;
use crate::storage::numbered::Numbered;
use groups::GroupId;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use thiserror::Error;

/// Why a checkpoint cannot be written or read. Each message is one line and says what to do.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// It could not be written. The next start removes its remains, if there are any.
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
    /// The start of the file is not the header of a checkpoint.
    #[error("checkpoint file {file} is no checkpoint, or its header is damaged; {ELSEWHERE}")]
    Header {
        /// The name in the data directory.
        file: String,
    },
    /// The end of the file is not the trailer of a checkpoint.
    #[error("checkpoint file {file} is cut short, or its end is damaged; {ELSEWHERE}")]
    CutShort {
        /// The name in the data directory.
        file: String,
    },
    /// Something between header and trailer is damaged.
    #[error("checkpoint file {file} is corrupt at byte {offset}: {what}; {ELSEWHERE}")]
    Corrupt {
        /// The name in the data directory.
        file: String,
        /// Where the damaged piece starts.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// All checksums are right, but the blocks are not a valid state of the group.
    #[error("checkpoint file {file} has no sound state of group {group}: {source}; {ELSEWHERE}")]
    State {
        /// The name in the data directory.
        file: String,
        /// The group whose state it should be.
        group: GroupId,
        /// What is wrong with it.
        source: BlockError,
    },
    /// It was copied from another cluster.
    #[error("checkpoint file {file} belongs to another cluster; remove the files that were copied here")]
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

/// The advice at the end of messages about a checkpoint that cannot be used.
const ELSEWHERE: &str = "remove it and use an older checkpoint, or one of another member";

/// The sequence number of a checkpoint of a node. Later checkpoints have higher numbers; 0 stands for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CheckpointSequence(pub u64);

impl CheckpointSequence {
    /// Returns the number of the checkpoint after this one.
    #[must_use]
    pub fn following(self) -> CheckpointSequence {
        CheckpointSequence(self.0 + 1)
    }
}

impl fmt::Display for CheckpointSequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Returns the file name of the checkpoint with this sequence number.
#[must_use]
pub fn checkpoint_name(sequence: CheckpointSequence) -> String {
    FILES.name(sequence.0)
}

/// Returns the sequence numbers of all finished checkpoints in a directory, ascending.
///
/// # Errors
/// If the directory cannot be read.
pub fn sequences(disk: &dyn Disk) -> io::Result<Vec<CheckpointSequence>> {
    let mut sequences: Vec<CheckpointSequence> =
        disk.list()?.iter().filter_map(|name| FILES.sequence(name)).map(CheckpointSequence).collect();
    sequences.sort_unstable();
    Ok(sequences)
}

/// Removes unfinished checkpoint files, and returns their number. Must be called at a start, before any writer is made.
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

/// The prefix of the names of checkpoints; no other file of the data directory has it.
pub const CHECKPOINT_PREFIX: &str = "checkpoint-";

const FILES: Numbered = Numbered(CHECKPOINT_PREFIX);

/// The suffix of a checkpoint's name until the file is whole.
const UNFINISHED: &str = ".new";
