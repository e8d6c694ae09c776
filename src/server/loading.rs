//! The thread that loads a data directory. It hands the log to the event loop as soon as the log is read, and then the
//! groups as they are rebuilt.

use super::process::random;
use super::threads::{Notice, Notifier};
use crate::plural::plural;
use crate::recovery::{self, EmptyShard, RebuildInput, RebuildOutput, RecoveryProgress, Refusal};
use crate::shard::Replica;
use crate::storage::checkpoint::Catalog;
use crate::storage::disk::Disk;
use crate::storage::wal::{Hooks, Log, LogError, LogHandle, LogOptions, LogRecoverySummary, Record, Visit};
use anyhow::{Context, bail};
use groups::{Clock, GroupId};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;

/// The data directory that the thread loads, and the receivers of the results.
pub(super) struct Loading {
    pub(super) disk: Arc<dyn Disk>,
    /// The storage id in the headers of the log's segments.
    pub(super) storage: [u8; 16],
    pub(super) options: LogOptions,
    pub(super) clock: Clock,
    pub(super) progress: Arc<RecoveryProgress>,
    pub(super) dir: String,
    /// Sends the log, or the error, to the caller that waits for it. `None` afterwards.
    pub(super) opened: Option<Sender<anyhow::Result<Opened>>>,
    /// The workers, in order: each gets its groups and everything after the log. The first one waits for the log.
    pub(super) workers: Vec<Notifier>,
}

/// A log that has been read and takes new records.
pub(super) struct Opened {
    pub(super) log: LogHandle,
    /// The log's records of other members' starts.
    pub(super) peers: Vec<Record>,
    /// The checkpoints in the same data directory.
    pub(super) catalog: Catalog,
}

impl Loading {
    /// Loads the data directory. Sends an error to the caller that waits for the log, or to the event loop once the log
    /// is handed over.
    pub(super) fn run(mut self, empty_shard: EmptyShard, hooks: Hooks) {
        let Err(error) = self.load(empty_shard, hooks) else { return };
        let error = error.context(format!("cannot use the data directory {}", self.dir));
        match self.opened.take() {
            Some(opened) => self.answer(&opened, Err(error)),
            None => self.workers[0].tell(Notice::Fatal(format!("{error:#}"))),
        }
    }

    fn load(&mut self, empty_shard: EmptyShard, hooks: Hooks) -> anyhow::Result<()> {
        let started = Instant::now();
        recovery::tidy(&*self.disk).context("cannot remove unfinished checkpoints")?;
        let checkpoint_set = empty_shard.checkpoint_set(&*self.disk)?;
        let (disk, storage, options, progress) = (self.disk.clone(), self.storage, self.options, self.progress.clone());
        let (clock, workers) = (self.clock, recovery::workers());
        let input = RebuildInput { disk: &*disk, clock, workers, progress: &progress };
        let secret = u64::from_le_bytes(random()?[..8].try_into()?);
        let feed = |visit: &mut dyn Visit| Log::open(&disk, storage, secret, options, hooks, visit);
        let mut read = Ok(LogRecoverySummary::default());
        let rebuild = empty_shard.rebuild(&input, checkpoint_set, feed, &mut |output| match output {
            RebuildOutput::Log { read: opened, peers, catalog } => read = self.on_log(opened, peers, catalog),
            RebuildOutput::Groups(replicas) if read.is_ok() => self.give_groups(replicas),
            RebuildOutput::Groups(_) => {}
        });
        let (rebuild, recovered) = (rebuild.context("cannot start a thread")?, read?);
        let restored = match rebuild {
            Ok(restored) => restored,
            Err(refused @ Refusal::Record(_)) => bail!("{refused}; replace this node under a new id"),
            Err(Refusal::Log(error)) => return Err(error.into()),
        };
        let (records, log_bytes) = (recovered.records, recovered.bytes);
        let (states, state_bytes, ms) = (restored.kept.len(), restored.bytes, started.elapsed().as_millis());
        tracing::info!(
            "loaded {states} state{} of {state_bytes} bytes, and {records} record{} in {log_bytes} bytes of log, in {ms} ms",
            plural(states as u64),
            plural(records)
        );
        self.workers.iter().for_each(|worker| worker.tell(Notice::Loaded(restored.clone())));
        Ok(())
    }

    /// Gives each worker its groups. A worker without groups hears of the portion, too: it begins with the first one.
    fn give_groups(&self, replicas: Vec<(GroupId, Replica)>) {
        let parts = recovery::divide(replicas, self.workers.len() as u32);
        self.workers.iter().zip(parts).for_each(|(worker, own)| worker.tell(Notice::Groups(own)));
    }

    fn on_log(
        &mut self,
        opened: Result<(LogHandle, LogRecoverySummary), LogError>,
        peers: Vec<Record>,
        catalog: Catalog,
    ) -> anyhow::Result<LogRecoverySummary> {
        let (log, recovered) = opened?;
        if let Some(opened) = self.opened.take() {
            self.answer(&opened, Ok(Opened { log, peers, catalog }));
        }
        Ok(recovered)
    }

    fn answer(&self, opened: &Sender<anyhow::Result<Opened>>, answer: anyhow::Result<Opened>) {
        // The receiver is gone if the node was told to stop.
        let _ = opened.send(answer);
        self.workers[0].wake();
    }
}

/// Tells the event loop that this thread has panicked, so that nobody waits for groups that will not come. This has an
/// effect only where panics do not end the process.
impl Drop for Loading {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.workers[0].tell(Notice::Fatal("the thread that loads the data is gone".to_owned()));
        }
    }
}

/// Logs one line about the progress for operators. It is called once per second.
pub(super) fn tell_progress(progress: &RecoveryProgress) {
    let (done, all) = progress.bytes();
    tracing::info!("loading: {} % of {} MB", done * 100 / all.max(1), all / 1_000_000);
}
