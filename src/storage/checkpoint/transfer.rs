//! Transfers of checkpoint files between nodes, by a worker thread. The worker reads pieces for nodes that ask for
//! them. It writes received pieces into a file beside this node's own checkpoints, until the file is whole. Only after
//! all of it was read back, the file gets the name of a checkpoint, and its states go to the node. [`TransferWorker`]
//! itself has no thread, so that the simulator can drive it.

use super::reader::sound_bytes;
use super::recovery::section_of;
use super::{
    CheckpointError, CheckpointReader, CheckpointSequence, Header, LoadedState, SectionSummary, checkpoint_name,
};
use crate::kv::StoreLimits;
use crate::storage::disk::{Disk, DiskFile, read_full};
use crate::workers::Workers;
use bytes::Bytes;
use groups::Instance;
use net::event::ConnectionId;
use std::fmt;
use std::io;
use std::sync::Arc;

/// The prefix of the names of files that are not whole yet.
const INCOMING_PREFIX: &str = "incoming-";

/// Returns the prefix of the names of files that this worker is receiving.
#[must_use]
pub fn incoming_prefix(workers: Workers) -> String {
    match workers {
        Workers::ONE => INCOMING_PREFIX.to_owned(),
        _ => format!("{INCOMING_PREFIX}{}of{}-", workers.me(), workers.count()),
    }
}

/// Unsynced bytes after which a received file is synced.
const UNSYNCED_BYTES_MAX: u64 = 1 << 20;

/// One task of the transfer worker.
pub enum TransferTask {
    /// Open this file, and report how many sound bytes it has. Removes all other incoming files except those in `keep`.
    Open {
        /// The file.
        name: String,
        /// Other files that are being received.
        keep: Vec<String>,
    },
    /// Write the next piece of a file.
    Write {
        /// The file.
        name: String,
        /// Where the piece goes.
        offset: u64,
        /// The piece.
        bytes: Bytes,
    },
    /// Make a checkpoint of the file, which is whole.
    Install {
        /// The file.
        name: String,
        /// The header that the file should have, with the sequence number that the checkpoint gets at this node.
        header: Header,
        /// The limits of the stores.
        limits: StoreLimits,
        /// By group: the lowest instance whose state is wanted.
        next: Vec<Instance>,
    },
    /// Free this memory, which may take long.
    Drop(Box<dyn Send>),
    /// Read a piece of one of this node's checkpoints, for another node.
    Read {
        /// The link to the other node; returned with the piece.
        link: ConnectionId,
        /// The sequence number of the checkpoint.
        sequence: CheckpointSequence,
        /// The offset of the piece.
        offset: u64,
        /// The length of the piece.
        bytes: usize,
    },
}

impl fmt::Debug for TransferTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TransferTask::Open { name, .. } => write!(f, "Open({name})"),
            TransferTask::Write { name, offset, bytes } => {
                write!(f, "Write({name}, {} bytes at {offset})", bytes.len())
            }
            TransferTask::Install { name, header, .. } => write!(f, "Install({name} as {})", header.sequence),
            TransferTask::Drop(_) => f.write_str("Drop"),
            TransferTask::Read { sequence, offset, bytes, .. } => {
                write!(f, "Read({sequence}, {bytes} bytes at {offset})")
            }
        }
    }
}

/// The result of a task.
pub enum TransferResult {
    /// The file is open, and has this many bytes, all sound.
    Opened {
        /// The file.
        name: String,
        /// How many bytes it has.
        offset: u64,
    },
    /// A piece is written, and the file ends here now.
    Written {
        /// The file.
        name: String,
        /// Its end.
        offset: u64,
    },
    /// A state from a received file. The file is whole, and is a checkpoint of this node now.
    State {
        /// The file.
        name: String,
        /// The state.
        loaded: Box<LoadedState>,
    },
    /// A received file has become a checkpoint.
    Received {
        /// The file.
        name: String,
        /// Its sequence number here.
        sequence: CheckpointSequence,
        /// Bytes in the file.
        bytes: u64,
        /// The sections in the file.
        sections: Vec<SectionSummary>,
    },
    /// The file could not be used, and is removed.
    Failed {
        /// The file.
        name: String,
        /// The reason, in one line.
        reason: String,
    },
    /// A piece for another node; empty if there is none.
    Chunk {
        /// The link to the other node.
        link: ConnectionId,
        /// The sequence number of the checkpoint.
        sequence: CheckpointSequence,
        /// The offset of the piece.
        offset: u64,
        /// The piece.
        bytes: Bytes,
    },
}

impl fmt::Debug for TransferResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TransferResult::Opened { name, offset } => write!(f, "Opened({name} {offset})"),
            TransferResult::Written { name, offset } => write!(f, "Written({name} {offset})"),
            TransferResult::State { name, loaded } => {
                write!(f, "State({name} {} {})", loaded.group, loaded.state.instance)
            }
            TransferResult::Received { name, sequence, .. } => write!(f, "Received({name} {sequence})"),
            TransferResult::Failed { name, reason } => write!(f, "Failed({name} {reason})"),
            TransferResult::Chunk { sequence, offset, bytes, .. } => {
                write!(f, "Chunk({sequence} {offset} {})", bytes.len())
            }
        }
    }
}

/// The transfer worker: performs transfer tasks.
pub struct TransferWorker {
    disk: Arc<dyn Disk>,
    workers: Workers,
    /// The file written last, with its name and its unsynced bytes.
    writing: Option<(String, Arc<dyn DiskFile>, u64)>,
    /// The file read last, with its sequence number.
    reading: Option<(CheckpointSequence, Arc<dyn DiskFile>)>,
}

impl TransferWorker {
    /// Creates a transfer worker for `disk`, for one of the node's event loops.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, workers: Workers) -> TransferWorker {
        TransferWorker { disk, workers, writing: None, reading: None }
    }

    /// Returns true if this worker removes an unfinished file that it is not receiving: it is its own, or at the first
    /// worker, one of a start with another number of workers.
    fn cleans(&self, name: &str) -> bool {
        let is_of = |workers: Workers| name.starts_with(&incoming_prefix(workers));
        is_of(self.workers)
            || (self.workers.is_first() && name.starts_with(INCOMING_PREFIX) && !self.workers.all().any(is_of))
    }

    /// Performs one task.
    pub fn perform(&mut self, task: TransferTask, out: &mut dyn FnMut(TransferResult)) {
        match task {
            TransferTask::Open { name, keep } => {
                let opened =
                    self.open(&name, &keep).map(|offset| TransferResult::Opened { name: name.clone(), offset });
                out(opened.unwrap_or_else(|error| self.failed(name, &error)));
            }
            TransferTask::Write { name, offset, bytes } => {
                let written = self
                    .write(&name, offset, &bytes)
                    .map(|offset| TransferResult::Written { name: name.clone(), offset });
                out(written.unwrap_or_else(|error| self.failed(name, &error)));
            }
            TransferTask::Install { name, header, limits, next } => {
                if let Err(error) = self.install(&name, &header, &limits, &next, out) {
                    out(self.failed(name, &error));
                }
            }
            TransferTask::Drop(memory) => drop(memory),
            TransferTask::Read { link, sequence, offset, bytes } => {
                let bytes = self.read(sequence, offset, bytes).unwrap_or_else(|error| {
                    tracing::warn!("cannot read {} for another node: {error}", checkpoint_name(sequence));
                    Bytes::new()
                });
                out(TransferResult::Chunk { link, sequence, offset, bytes });
            }
        }
    }

    fn open(&mut self, name: &str, keep: &[String]) -> io::Result<u64> {
        self.writing = None;
        for other in self.disk.list()?.iter().filter(|other| self.cleans(other)) {
            if other != name && !keep.contains(other) {
                self.disk.remove(other)?;
            }
        }
        // After a crash, a piece that was not synced may hold anything: only the sound beginning of the file counts.
        let offset = sound_bytes(&*self.disk, name).unwrap_or(0);
        let file = if offset > 0 { self.disk.open(name)? } else { self.disk.create(name)? };
        file.set_len(offset)?;
        self.writing = Some((name.to_owned(), file, 0));
        Ok(offset)
    }

    fn write(&mut self, name: &str, offset: u64, bytes: &Bytes) -> io::Result<u64> {
        if self.writing.as_ref().is_none_or(|(open, ..)| open != name) {
            self.writing = Some((name.to_owned(), self.disk.open(name)?, 0));
        }
        let Some((_, file, unsynced)) = &mut self.writing else { return Err(io::ErrorKind::NotFound.into()) };
        file.write_at(offset, bytes)?;
        *unsynced += bytes.len() as u64;
        if *unsynced >= UNSYNCED_BYTES_MAX {
            file.sync_data()?;
            *unsynced = 0;
        }
        Ok(offset + bytes.len() as u64)
    }

    fn install(
        &mut self,
        name: &str,
        header: &Header,
        limits: &StoreLimits,
        next: &[Instance],
        out: &mut dyn FnMut(TransferResult),
    ) -> Result<(), CheckpointError> {
        self.writing = None;
        let sequence = header.sequence;
        let reader = CheckpointReader::open(&*self.disk, name)?;
        reader.expect_cluster(header)?;
        let wanted =
            |section: &&SectionSummary| next.get(section.group.index()).is_some_and(|at| section.instance >= *at);
        let mut states = Vec::new();
        for section in reader.sections() {
            // The whole file is read back before any state in it counts.
            if wanted(&section) {
                let (state, store) = section_of(&reader, section.group, header, limits)?;
                states.push(LoadedState { sequence, group: section.group, state, store });
            } else {
                reader.verify_section(*section)?;
            }
        }
        let failed = |doing| {
            let file = name.to_owned();
            move |source| CheckpointError::Write { file, doing, source }
        };
        self.disk.open(name).and_then(|file| file.sync_data()).map_err(failed("sync"))?;
        self.disk.rename(name, &checkpoint_name(sequence)).map_err(failed("rename"))?;
        self.disk.sync_dir().map_err(failed("sync the directory of"))?;
        for loaded in states {
            out(TransferResult::State { name: name.to_owned(), loaded: Box::new(loaded) });
        }
        let (bytes, sections) = (reader.bytes(), reader.sections().to_vec());
        out(TransferResult::Received { name: name.to_owned(), sequence, bytes, sections });
        Ok(())
    }

    fn read(&mut self, sequence: CheckpointSequence, offset: u64, bytes: usize) -> io::Result<Bytes> {
        if self.reading.as_ref().is_none_or(|(open, _)| *open != sequence) {
            self.reading = Some((sequence, self.disk.open_read_only(&checkpoint_name(sequence))?));
        }
        let Some((_, file)) = &self.reading else { return Ok(Bytes::new()) };
        let mut buffer = vec![0; bytes];
        let count = read_full(&**file, offset, &mut buffer)?;
        buffer.truncate(count);
        Ok(buffer.into())
    }

    fn failed(&mut self, name: String, error: &dyn fmt::Display) -> TransferResult {
        self.writing = None;
        // The file may not exist.
        let _ = self.disk.remove(&name);
        TransferResult::Failed { reason: error.to_string(), name }
    }
}
