//! The threads of the log: one that writes and syncs, one that preallocates segments, and one for each reader. They get
//! work through bounded channels and answer through callbacks. A callback is expected to put the answer into the event
//! loop's inbox and wake the loop.
//!
//! Several workers share one log, each through a handle of its own: see `shared`.

use super::index::Index;
use super::preallocation::PreallocatedSegments;
use super::recovery::{LogRecoverySummary, recover};
use super::shared::{BatchQueue, SharedFrame, Synced};
use super::{
    Append, Batch, ChosenReader, ChosenValue, DroppableSegments, LogError, LogOptions, LogStatus, Lsn, ReadRange,
    SegmentSequence, Visit, Writer, segment_name,
};
use crate::storage::disk::Disk;
use crate::workers::{WORKERS_MAX, WorkerId};
use groups::Instance;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::{Builder, JoinHandle};

/// Maximum batches of one worker that wait for the log thread. An event loop needs one: it keeps one batch in flight
/// while it gathers the next.
pub const BATCHES_QUEUED_MAX: usize = 4;

/// Maximum ranges that wait for a reader.
pub const READS_QUEUED_MAX: usize = 4096;

/// The callbacks of the log. The log thread calls them, except `on_progress`.
pub struct Hooks {
    /// Called for each batch of a worker when all its records are durable.
    pub on_durable: Box<dyn FnMut(WorkerId, Synced) + Send>,
    /// Called when the log cannot write or sync. Nothing is written after that. The process must end: see
    /// [`Hooks::abort`].
    pub on_fatal: Box<dyn FnOnce(LogError) + Send>,
    /// Called on the opening thread while the log is read, with the bytes done and the total: once before the first
    /// segment, and after each segment.
    pub on_progress: Box<dyn FnMut(u64, u64) + Send>,
}

impl Hooks {
    /// Returns a server's hooks: after a failed write or sync, it prints one line and ends at once, without cleaning
    /// up.
    #[must_use]
    pub fn abort(on_durable: impl FnMut(WorkerId, Synced) + Send + 'static) -> Hooks {
        Hooks {
            on_durable: Box::new(on_durable),
            on_fatal: Box::new(|error| {
                // The program's log is not used here: another thread prints its lines, and the process ends before
                // that.
                let line = "exiting now, because the content of the disk is unknown until the next start reads it";
                let _ = writeln!(std::io::stderr(), "paxoi: {error}; {line}");
                std::process::abort();
            }),
            on_progress: Box::new(|_, _| {}),
        }
    }
}

/// Opens logs.
pub struct Log;

impl Log {
    /// Reads the log of `storage_id` in `disk`, calls `visit` with each record and its lsn, and starts the threads.
    /// When `open` returns, everything that was visited is durable. See [`recover`], also for `secret`.
    pub fn open(
        disk: &Arc<dyn Disk>,
        storage_id: [u8; 16],
        secret: u64,
        options: LogOptions,
        hooks: Hooks,
        visit: &mut dyn Visit,
    ) -> Result<(LogHandle, LogRecoverySummary), LogError> {
        let Hooks { on_durable, on_fatal, mut on_progress } = hooks;
        let (writer, recovered) = recover(disk, storage_id, secret, options, &mut *on_progress, visit)?;
        let (sender, batches) = sync_channel(BATCHES_QUEUED_MAX * WORKERS_MAX as usize);
        let reader = writer.reader();
        let (next_lsn, status) = (writer.next_lsn(), writer.status.clone());
        let (index, preallocated) = (writer.index.clone(), writer.preallocated.clone());
        let start = |name: &str, body: Box<dyn FnOnce() + Send>| {
            Builder::new()
                .name(name.to_owned())
                .spawn(body)
                .map_err(LogError::io(&segment_name(SegmentSequence(1)), "start a thread for"))
        };
        let keeper = preallocated.clone();
        let keeper = start("paxoi-prealloc", Box::new(move || keeper.keep_ready(options.retry)))?;
        let thread = LogThread { writer, batches: BatchQueue::new(batches), options, on_durable };
        let thread = start("paxoi-log", Box::new(move || thread.run(on_fatal)))?;
        Ok((
            LogHandle {
                sender: Some(sender),
                worker: WorkerId::FIRST,
                next_lsn,
                status,
                reader,
                index,
                preallocated: preallocated.clone(),
                threads: Arc::new(LogThreads { preallocated, all: vec![thread, keeper] }),
            },
            recovered,
        ))
    }
}

/// A worker's handle of a running log. Dropping the last handle writes what is queued, if there is space, and ends the
/// threads.
pub struct LogHandle {
    sender: Option<SyncSender<(WorkerId, Batch)>>,
    worker: WorkerId,
    /// The lowest number that the next batch may have.
    next_lsn: Lsn,
    status: Arc<LogStatus>,
    reader: ChosenReader,
    index: Arc<Index>,
    preallocated: Arc<PreallocatedSegments>,
    threads: Arc<LogThreads>,
}

impl LogHandle {
    /// Returns the handle of another worker, which has appended nothing yet.
    #[must_use]
    pub fn of_worker(&self, worker: WorkerId) -> LogHandle {
        LogHandle {
            sender: self.sender.clone(),
            worker,
            next_lsn: self.next_lsn,
            status: self.status.clone(),
            reader: self.reader.clone(),
            index: self.index.clone(),
            preallocated: self.preallocated.clone(),
            threads: self.threads.clone(),
        }
    }

    /// Returns the lowest lsn that the next batch may have.
    #[must_use]
    pub fn next_lsn(&self) -> Lsn {
        self.next_lsn
    }

    /// Hands a batch to the log thread; `on_durable` will name its lsn and that of its frame.
    ///
    /// # Panics
    /// If the number of the batch is not above those before it, or if the limit [`BATCHES_QUEUED_MAX`] per worker is
    /// exceeded. A caller that keeps only one batch in flight never reaches that limit.
    pub fn append(&mut self, batch: Batch) {
        assert!(batch.lsn >= self.next_lsn, "batches reach the log in order");
        self.next_lsn = batch.lsn.following();
        let Some(sender) = &self.sender else { return };
        match sender.try_send((self.worker, batch)) {
            // After a fatal error the log thread is gone, and nothing reports this batch as durable.
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => {
                panic!("more than {BATCHES_QUEUED_MAX} batches per worker wait for the log")
            }
        }
    }

    /// Returns the counters, and whether there is space.
    #[must_use]
    pub fn status(&self) -> &Arc<LogStatus> {
        &self.status
    }

    /// Returns which of the oldest segments have only values at or below their group's instance in `floors`.
    #[must_use]
    pub fn droppable(&self, floors: &[Instance]) -> Option<DroppableSegments> {
        self.index.droppable(floors)
    }

    /// Makes another thread remove the segments below `sequence` soon.
    pub fn drop_below(&self, sequence: SegmentSequence) {
        self.preallocated.drop_below(sequence);
    }

    /// Starts a thread that reads chosen values, and calls `on_read` with each requested range and the values found.
    pub fn start_reader(
        &self,
        mut on_read: impl FnMut(ReadRange, Result<Vec<ChosenValue>, LogError>) + Send + 'static,
    ) -> io::Result<LogReader> {
        let (sender, ranges) = sync_channel::<ReadRange>(READS_QUEUED_MAX);
        let mut reader = self.reader.clone();
        let thread = Builder::new().name("paxoi-read".to_owned()).spawn(move || {
            for range in ranges {
                on_read(range, reader.read(&range));
            }
        })?;
        Ok(LogReader { sender: Some(sender), thread: Some(thread) })
    }
}

impl Drop for LogHandle {
    fn drop(&mut self) {
        // The log thread ends when no handle can send it anything.
        self.sender = None;
    }
}

/// The threads of a log; they end with the last handle.
struct LogThreads {
    preallocated: Arc<PreallocatedSegments>,
    all: Vec<JoinHandle<()>>,
}

impl Drop for LogThreads {
    fn drop(&mut self) {
        self.preallocated.stop();
        for thread in self.all.drain(..) {
            // A panic of the thread was already reported where it happened.
            let _ = thread.join();
        }
    }
}

/// The handle of a reader thread. Dropping it waits until the thread has read all requested ranges and ended.
pub struct LogReader {
    sender: Option<SyncSender<ReadRange>>,
    thread: Option<JoinHandle<()>>,
}

impl LogReader {
    /// Requests a range. Returns true if it is queued. If [`READS_QUEUED_MAX`] ranges wait already, no answer will
    /// come.
    #[must_use]
    pub fn request(&self, range: ReadRange) -> bool {
        self.sender.as_ref().is_some_and(|sender| sender.try_send(range).is_ok())
    }
}

impl Drop for LogReader {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct LogThread {
    writer: Writer,
    batches: BatchQueue,
    options: LogOptions,
    on_durable: Box<dyn FnMut(WorkerId, Synced) + Send>,
}

impl LogThread {
    fn run(mut self, on_fatal: Box<dyn FnOnce(LogError) + Send>) {
        if let Err(error) = self.write_all() {
            tracing::error!("{error}");
            on_fatal(error);
        }
    }

    /// Writes batches until the handle is dropped, or an error occurs.
    fn write_all(&mut self) -> Result<(), LogError> {
        loop {
            let idle = self.writer.wants_durability_marker().then_some(self.options.idle);
            match self.batches.next_frame(self.writer.next_lsn(), idle) {
                Ok(shared) => {
                    if !self.write(&shared)? {
                        return Ok(());
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.writer.write_durability_marker()?,
                Err(RecvTimeoutError::Disconnected) if self.writer.wants_durability_marker() => {
                    return self.writer.write_durability_marker();
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    /// Writes one frame. Returns false if the log was closed while the frame waited for space.
    fn write(&mut self, shared: &SharedFrame) -> Result<bool, LogError> {
        loop {
            let open = match self.writer.append(&shared.frame)? {
                Append::Durable(took) => {
                    for (worker, lsn) in &shared.batches {
                        (self.on_durable)(*worker, Synced { lsn: *lsn, frame: shared.frame.lsn, took });
                    }
                    return Ok(true);
                }
                Append::NeedsSegment => self.writer.preallocated.wait(),
                Append::NeedsSpace => self.writer.preallocated.pause(self.options.retry),
            };
            if !open {
                return Ok(false);
            }
        }
    }
}
