//! The threads beside the event loop, and their messages to it.

use crate::background;
use crate::config::SCRUB_BYTES_PER_S;
use crate::recovery::{CheckpointLoadSummary, RecoveryProgress};
use crate::resolver::Resolver;
use crate::shard::Replica;
use crate::storage::checkpoint::{
    CheckpointResult, CheckpointTask, CheckpointWorker, Packing, TransferResult, TransferTask, TransferWorker,
    WorkerThread,
};
use crate::storage::disk::Disk;
use crate::storage::scrub::{Findings, scrub};
use crate::storage::wal::{ChosenValue, Hooks, LogHandle, LogReader, ReadRange, Synced};
use crate::workers::{WorkerId, Workers};
use anyhow::Context;
use groups::GroupId;
use mio::Waker;
use net::event_loop::EventLoop;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// A message of another thread to the event loop.
pub(super) enum Notice {
    Durable(Synced),
    Checkpoint(CheckpointResult),
    Transfer(TransferResult),
    Scrubbed(Findings),
    Range {
        range: ReadRange,
        values: Vec<ChosenValue>,
    },
    Resolved {
        name: String,
        addresses: Vec<SocketAddr>,
    },
    /// Recovery: some rebuilt groups. After the last of them, `Loaded` names the content of the checkpoints.
    Groups(Vec<(GroupId, Replica)>),
    Loaded(CheckpointLoadSummary),
    Fatal(String),
}

/// Sends notices to the event loop of one worker.
#[derive(Clone)]
pub(super) struct Notifier {
    sender: Sender<Notice>,
    waker: Arc<Waker>,
}

impl Notifier {
    /// Returns a notifier for this event loop, and the receiver of its notices.
    pub(super) fn new(events: &EventLoop) -> (Notifier, Receiver<Notice>) {
        let (sender, notices) = channel();
        (Notifier { sender, waker: events.waker() }, notices)
    }

    /// Sends a notice and wakes the event loop. If the loop has ended, nobody needs to know.
    pub(super) fn tell(&self, notice: Notice) {
        if self.sender.send(notice).is_ok() {
            self.wake();
        }
    }

    /// Wakes the event loop.
    pub(super) fn wake(&self) {
        let _ = self.waker.wake();
    }
}

/// Returns the hooks of the log for workers with these notifiers. `progress` gets the log's length.
pub(super) fn hooks(workers: Vec<Notifier>, progress: Arc<RecoveryProgress>) -> Hooks {
    let hooks = Hooks::abort(move |worker: WorkerId, synced| workers[worker.index()].tell(Notice::Durable(synced)));
    // Only the total is taken from the log, at its first report. The recovery workers count the bytes that they have
    // restored; bytes that were only read do not count.
    let on_progress = Box::new(move |done: u64, all: u64| progress.expect(if done == 0 { all } else { 0 }));
    Hooks { on_progress, ..hooks }
}

pub(super) fn start_reader(log: &LogHandle, notifier: Notifier) -> anyhow::Result<LogReader> {
    let reader = log.start_reader(move |range, values| {
        let notice = match values {
            Ok(values) => Notice::Range { range, values },
            Err(error) => Notice::Fatal(error.to_string()),
        };
        notifier.tell(notice);
    });
    reader.context("cannot start the thread that reads the log")
}

/// Starts the thread that reads everything on the disk at the interval `every`, and tells all workers what it found. It
/// ends when the returned sender is dropped.
pub(super) fn start_scrub(
    disk: &Arc<dyn Disk>,
    every: Duration,
    workers: Vec<Notifier>,
) -> std::io::Result<Sender<()>> {
    let (guard, ended) = channel::<()>();
    let disk = disk.clone();
    std::thread::Builder::new().name("paxoi-scrub".to_owned()).spawn(move || {
        background::lower_priority();
        let mut rest = |time: Duration| matches!(ended.recv_timeout(time), Err(RecvTimeoutError::Timeout));
        while rest(every) {
            let findings = scrub(&*disk, SCRUB_BYTES_PER_S, &mut rest);
            workers.iter().for_each(|worker| worker.tell(Notice::Scrubbed(findings.clone())));
        }
    })?;
    Ok(guard)
}

/// Starts the worker threads that write checkpoints, and that move them between nodes.
pub(super) fn start_workers(
    disk: &Arc<dyn Disk>,
    workers: Workers,
    notifier: &Notifier,
) -> std::io::Result<(WorkerThread<CheckpointTask>, WorkerThread<TransferTask>)> {
    let notify = notifier.clone();
    let worker = CheckpointWorker::new(disk.clone(), Packing::Lz4);
    let checkpoint_worker =
        WorkerThread::start("paxoi-ckpt", worker, move |result| notify.tell(Notice::Checkpoint(result)))?;
    let notify = notifier.clone();
    let worker = TransferWorker::new(disk.clone(), workers);
    let transfer_worker =
        WorkerThread::start("paxoi-move", worker, move |result| notify.tell(Notice::Transfer(result)))?;
    Ok((checkpoint_worker, transfer_worker))
}

pub(super) fn start_resolver(notifier: Notifier) -> anyhow::Result<Resolver> {
    let resolver = Resolver::start(move |name, addresses| notifier.tell(Notice::Resolved { name, addresses }));
    resolver.context("cannot start the thread that looks names up")
}
