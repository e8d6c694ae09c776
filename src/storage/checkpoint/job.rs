//! The tasks of the checkpoint worker. The node gives each [`CheckpointTask`] to a worker thread, which performs the
//! tasks in order, and the node gets each [`CheckpointResult`]. [`CheckpointWorker`] itself has no thread, so that the
//! simulator can drive it.

use super::{
    CheckpointError, CheckpointSequence, CheckpointWriter, Header, Packing, SectionHead, SectionSummary,
    checkpoint_name, verify,
};
use crate::storage::disk::Disk;
use std::fmt;
use std::sync::Arc;

/// One task of the checkpoint worker.
pub enum CheckpointTask {
    /// Begin a file. The file before it is finished or given up.
    Begin(Header),
    /// Begin the section of a group in the file.
    Section(SectionHead),
    /// Write the next block of the section.
    Block(Vec<u8>),
    /// End the section; its state has this digest.
    End(u64),
    /// Finish the file: make it durable, give it its name, read all of it back.
    Finish,
    /// Give the file up, and remove it.
    Abandon,
    /// Remove the file with this sequence number, which nobody needs any more.
    Remove(CheckpointSequence),
}

/// The result of a task.
#[derive(Debug)]
pub enum CheckpointResult {
    /// A block of this many bytes is written, or skipped after an error.
    Written(usize),
    /// A file is durable and was read back.
    Saved {
        /// Its sequence number.
        sequence: CheckpointSequence,
        /// Bytes in the file.
        bytes: u64,
        /// The sections in the file.
        sections: Vec<SectionSummary>,
    },
    /// A file could not be made. Its remains are removed now, or by the next start.
    Failed {
        /// Its sequence number.
        sequence: CheckpointSequence,
        /// The reason, in one line.
        reason: String,
    },
}

impl fmt::Debug for CheckpointTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckpointTask::Begin(header) => write!(f, "Begin({})", header.sequence),
            CheckpointTask::Section(head) => write!(f, "Section({} at {})", head.group, head.state.instance),
            CheckpointTask::Block(block) => write!(f, "Block({} bytes)", block.len()),
            CheckpointTask::End(digest) => write!(f, "End({digest:016x})"),
            CheckpointTask::Finish => f.write_str("Finish"),
            CheckpointTask::Abandon => f.write_str("Abandon"),
            CheckpointTask::Remove(sequence) => write!(f, "Remove({sequence})"),
        }
    }
}

/// The checkpoint worker: performs checkpoint tasks.
pub struct CheckpointWorker {
    disk: Arc<dyn Disk>,
    packing: Packing,
    /// The file being written, with its sequence number. `None` after an error: the rest of that file is skipped.
    writer: Option<(CheckpointSequence, CheckpointWriter)>,
}

impl CheckpointWorker {
    /// Creates a checkpoint worker for `disk`.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, packing: Packing) -> CheckpointWorker {
        CheckpointWorker { disk, packing, writer: None }
    }

    /// Performs one task.
    pub fn perform(&mut self, task: CheckpointTask) -> Option<CheckpointResult> {
        match task {
            CheckpointTask::Begin(header) => {
                let begun = CheckpointWriter::create(self.disk.clone(), header, self.packing);
                let begun = begun.map(|writer| self.writer = Some((header.sequence, writer)));
                begun.err().map(|error| failed(header.sequence, &error))
            }
            CheckpointTask::Section(head) => self.write(|writer| writer.begin(&head)),
            CheckpointTask::Block(block) => {
                // A skipped block is reported as written, too, because the sender waits for the report.
                self.write(|writer| writer.block(&block)).or(Some(CheckpointResult::Written(block.len())))
            }
            CheckpointTask::End(digest) => self.write(|writer| writer.end(digest)),
            CheckpointTask::Finish => {
                let (sequence, writer) = self.writer.take()?;
                Some(self.finish(sequence, writer).unwrap_or_else(|error| failed(sequence, &error)))
            }
            CheckpointTask::Abandon => {
                self.writer = None;
                None
            }
            CheckpointTask::Remove(sequence) => {
                self.remove(sequence);
                None
            }
        }
    }

    fn write(
        &mut self,
        write: impl FnOnce(&mut CheckpointWriter) -> Result<(), CheckpointError>,
    ) -> Option<CheckpointResult> {
        let (sequence, writer) = self.writer.as_mut()?;
        let error = write(writer).err()?;
        let sequence = *sequence;
        self.writer = None;
        Some(failed(sequence, &error))
    }

    fn finish(
        &self,
        sequence: CheckpointSequence,
        writer: CheckpointWriter,
    ) -> Result<CheckpointResult, CheckpointError> {
        let bytes = writer.finish()?;
        let verified = verify(&*self.disk, &checkpoint_name(sequence)).inspect_err(|_| self.remove(sequence))?;
        Ok(CheckpointResult::Saved {
            sequence,
            bytes,
            sections: verified.iter().map(|section| section.summary).collect(),
        })
    }

    fn remove(&self, sequence: CheckpointSequence) {
        let name = checkpoint_name(sequence);
        if let Err(error) = self.disk.remove(&name).and_then(|()| self.disk.sync_dir()) {
            tracing::error!("cannot remove {name}, which is not needed any more: {error}");
        }
    }
}

fn failed(sequence: CheckpointSequence, error: &CheckpointError) -> CheckpointResult {
    CheckpointResult::Failed { sequence, reason: error.to_string() }
}
