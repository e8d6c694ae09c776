//! Recovery at a start: rebuilds the groups from the newest checkpoints and the log behind them.
//!
//! The groups are assigned to *recovery workers*, a thread each. A worker first loads the states of its groups from the
//! checkpoints and then applies their records. All groups share one log. The calling thread reads it first and finds
//! its end; the workers follow, each at its own speed. The records of a group stay in order, and the result depends on
//! nothing else: the number of workers changes only how long a start takes.
//!
//! No group can promise anything before the log has been read to its end. From then on each worker hands its groups
//! over as soon as it is done with them, and waits for no other worker.

mod progress;
#[cfg(test)]
mod tests;
mod worker;

pub use progress::RecoveryProgress;

use crate::kv::StoreLimits;
use crate::shard::{Replica, Shard};
use crate::storage::checkpoint::{self, Catalog, CheckpointError, CheckpointSequence, CheckpointSet, Header};
use crate::storage::disk::Disk;
use crate::storage::wal::{LogError, Logged, Record, RecordKind, Visit};
use crate::workers::{WorkerId, Workers};
use groups::{Clock, GroupId, Instance};
use std::io;
use thiserror::Error;
use worker::{GroupAssignment, WorkerFindings};

/// The empty groups of a node that starts, and the parameters for rebuilding them.
pub struct EmptyShard {
    /// The empty groups; none before the cluster's birth.
    pub replicas: Vec<(GroupId, Replica)>,
    /// The header of the cluster's checkpoints, and the limits of its stores; `None` before its birth.
    pub cluster: Option<(Header, StoreLimits)>,
    /// The highest version of values that the program reads.
    pub value_version: u8,
}

/// The inputs and settings of a rebuild.
pub struct RebuildInput<'a> {
    /// The data directory.
    pub disk: &'a dyn Disk,
    /// The time of the start.
    pub clock: Clock,
    /// Maximum number of workers; a rebuild never uses more workers than groups.
    pub workers: usize,
    /// Counts the bytes read. The caller adds the length of the log to the total.
    pub progress: &'a RecoveryProgress,
}

/// A part of the result of [`EmptyShard::rebuild`]: the log once, and then all groups, worker by worker.
pub enum RebuildOutput<R> {
    /// The log has been read to its end.
    Log {
        /// The result of `feed`, which read the log.
        read: R,
        /// Its records of other members' starts, in order.
        peers: Vec<Record>,
        /// The checkpoint files.
        catalog: Catalog,
    },
    /// Rebuilt groups.
    Groups(Vec<(GroupId, Replica)>),
}

/// A summary of what was loaded from the checkpoints.
#[derive(Clone, Default)]
pub struct CheckpointLoadSummary {
    /// Sequence numbers of files that cannot be used for some or all of their groups.
    pub damaged: Vec<CheckpointSequence>,
    /// The groups whose state was loaded: the group, its instance, and the sequence number of the file.
    pub kept: Vec<(GroupId, Instance, CheckpointSequence)>,
    /// Bytes of the loaded blocks.
    pub bytes: u64,
}

/// Why groups cannot be rebuilt.
#[derive(Debug, Error)]
pub enum Refusal {
    /// A record contradicts those before it, belongs to no group of this cluster, or cannot be read by this program.
    #[error("the log is not usable: {0}")]
    Record(String),
    /// The log could not be read a second time.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// The rebuilt content of a data directory.
pub struct RebuildResult {
    /// The rebuilt groups.
    pub shard: Shard,
    /// The records of other members' starts, in order.
    pub peers: Vec<Record>,
    /// The checkpoint files.
    pub catalog: Catalog,
    /// What was loaded from them.
    pub restored: CheckpointLoadSummary,
}

/// Divides rebuilt groups among the `count` workers of a node. Each of them gets a part, even if it is empty.
pub fn divide(mut replicas: Vec<(GroupId, Replica)>, count: u32) -> impl Iterator<Item = Vec<(GroupId, Replica)>> {
    (0..count).map(move |me| {
        let workers = Workers::new(WorkerId(me), count);
        replicas.extract_if(.., |(group, _)| workers.owns(*group)).collect()
    })
}

impl EmptyShard {
    /// Adds the empty groups of another worker of the same node.
    pub fn add(&mut self, mut other: EmptyShard) {
        self.replicas.append(&mut other.replicas);
        self.replicas.sort_unstable_by_key(|(group, _)| *group);
    }

    /// Opens the checkpoint set in `disk`; returns `None` before the cluster's birth.
    ///
    /// # Errors
    /// If the directory cannot be read, or holds a checkpoint of another cluster or of a later version.
    pub fn checkpoint_set(&self, disk: &dyn Disk) -> Result<Option<CheckpointSet>, CheckpointError> {
        self.cluster.as_ref().map(|(header, limits)| CheckpointSet::open(disk, *header, limits.clone())).transpose()
    }

    /// Rebuilds the groups, and gives them to `take` worker by worker. `feed` reads the log for the given visitor. Each
    /// worker is a thread beside the calling one; a single worker runs on the calling thread.
    ///
    /// # Errors
    /// If the system gives no thread. For the inner result see [`Refusal`]: workers that finished before another worker
    /// refused a record may have handed their groups over already.
    pub fn rebuild<R>(
        self,
        input: &RebuildInput<'_>,
        checkpoint_set: Option<CheckpointSet>,
        feed: impl FnOnce(&mut dyn Visit) -> R,
        take: &mut dyn FnMut(RebuildOutput<R>),
    ) -> io::Result<Result<CheckpointLoadSummary, Refusal>> {
        let EmptyShard { replicas, value_version, .. } = self;
        let groups = replicas.len();
        let checkpoint_bytes =
            |group| checkpoint_set.as_ref().map_or(0, |checkpoint_set| checkpoint_set.bytes(GroupId(group)));
        let bytes: Vec<u64> = (0..groups as u32).map(checkpoint_bytes).collect();
        input.progress.expect(bytes.iter().sum());
        let assignment = GroupAssignment::new(&bytes, input.workers);
        let mut workers = assignment.workers(replicas, input.clock, value_version);
        let sorter = Sorter { groups, peers: Vec::new(), stray: None };
        let found = match (workers.pop(), workers.is_empty()) {
            (Some(only), true) => worker::in_line(only, input, checkpoint_set.as_ref(), sorter, feed, take),
            (last, _) => {
                workers.extend(last);
                worker::side_by_side(workers, input, checkpoint_set.as_ref(), sorter, feed, take)?
            }
        };
        input.progress.finish();
        Ok(found.map(|WorkerFindings { kept, damaged, bytes }| {
            let damaged = checkpoint_set.map(|checkpoint_set| checkpoint_set.damaged(damaged)).unwrap_or_default();
            CheckpointLoadSummary { damaged, kept, bytes }
        }))
    }

    /// Rebuilds the groups as [`EmptyShard::rebuild`] does, and returns everything at once.
    ///
    /// # Errors
    /// As [`EmptyShard::rebuild`].
    pub fn rebuild_all<R>(
        self,
        input: &RebuildInput<'_>,
        checkpoint_set: Option<CheckpointSet>,
        feed: impl FnOnce(&mut dyn Visit) -> R,
    ) -> io::Result<Result<(R, RebuildResult), Refusal>> {
        let mut shard = Shard::of_missing(self.replicas.len());
        let mut read = None;
        let restored = self.rebuild(input, checkpoint_set, feed, &mut |part| match part {
            RebuildOutput::Log { read: fed, peers, catalog } => read = Some((fed, peers, catalog)),
            RebuildOutput::Groups(replicas) => {
                replicas.into_iter().for_each(|(group, replica)| shard.put(group, replica));
            }
        })?;
        Ok(restored.map(|restored| {
            let (fed, peers, catalog) = read.expect("the log is given before all is done");
            (fed, RebuildResult { shard, peers, catalog, restored })
        }))
    }
}

/// A filter that separates the records of groups from all others.
struct Sorter {
    groups: usize,
    /// The records of other members' starts, which belong to no group.
    peers: Vec<Record>,
    /// The first unknown group that a record names.
    stray: Option<GroupId>,
}

impl Sorter {
    /// Returns true if the record belongs to a known group. Keeps the records of other members' starts.
    fn is_of_group(&mut self, record: &Logged<'_>) -> bool {
        if record.kind() == RecordKind::PeerStart {
            self.peers.push(record.record());
        }
        if !record.kind().is_of_group() {
            return false;
        }
        let is_known = record.group().index() < self.groups;
        if !is_known {
            self.stray.get_or_insert(record.group());
        }
        is_known
    }

    /// Returns why the log is not usable, if it names an unknown group.
    fn refusal(&self) -> Option<Refusal> {
        let (group, groups) = (self.stray?, self.groups);
        Some(Refusal::Record(format!("it has a record of group {group}, but there are only {groups}")))
    }
}

/// Removes unfinished checkpoint files. Called before [`EmptyShard::checkpoint_set`], and only where the directory may
/// be changed.
///
/// # Errors
/// If the directory cannot be read or changed.
pub fn tidy(disk: &dyn Disk) -> io::Result<()> {
    checkpoint::remove_unfinished(disk).map(|_| ())
}

/// Returns the number of workers for this machine: one per processor, at most `WORKERS_MAX`.
#[must_use]
pub fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX)
}

/// Maximum number of workers. More were not tried.
const WORKERS_MAX: usize = 16;
