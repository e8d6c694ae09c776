//! Recovery workers: each rebuilds some of the groups, from their checkpoints and then their records in order.

use super::{RebuildInput, RebuildOutput, RecoveryProgress, Refusal, Sorter};
use crate::background;
use crate::shard::{self, Replica};
use crate::storage::checkpoint::{CheckpointSequence, CheckpointSet};
use crate::storage::wal::{Follower, Frontier, Logged, Lsn, Record, SegmentSequence, Visit};
use groups::{Clock, Effect, GroupId, Instance};
use std::cmp::Reverse;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread::{Builder, scope};

/// The assignment of groups to workers.
pub(super) struct GroupAssignment {
    /// By group: the index of its worker, and its position among that worker's groups.
    places: Vec<(usize, usize)>,
    /// Number of workers.
    workers: usize,
}

impl GroupAssignment {
    /// Assigns groups to at most `workers` workers, balanced by `bytes`, the checkpoint bytes of each group. A group
    /// that is much larger than the others shares its worker with few of them.
    pub(super) fn new(bytes: &[u64], workers: usize) -> GroupAssignment {
        let workers = workers.clamp(1, bytes.len().max(1));
        let mut order: Vec<usize> = (0..bytes.len()).collect();
        order.sort_by_key(|group| Reverse(bytes[*group]));
        let mut places = vec![(0, 0); bytes.len()];
        let mut dealt = vec![(0, 0); workers];
        for group in order {
            let lightest = (0..workers).min_by_key(|worker| dealt[*worker]).unwrap_or(0);
            let (weight, count) = &mut dealt[lightest];
            places[group] = (lightest, *count);
            *weight += bytes[group];
            *count += 1;
        }
        GroupAssignment { places, workers }
    }

    /// Returns the workers, each with its groups.
    pub(super) fn workers(
        &self,
        mut replicas: Vec<(GroupId, Replica)>,
        clock: Clock,
        value_version: u8,
    ) -> Vec<Worker<'_>> {
        let worker = |index| {
            let (replicas, effects, found) = (Vec::new(), Vec::new(), WorkerFindings::default());
            Worker { assignment: self, index, replicas, clock, value_version, effects, found, refused: None }
        };
        let mut workers: Vec<Worker<'_>> = (0..self.workers).map(worker).collect();
        replicas.sort_by_key(|(group, _)| self.places[group.index()]);
        for (group, replica) in replicas {
            workers[self.places[group.index()].0].replicas.push((group, replica));
        }
        workers
    }
}

/// A recovery worker: rebuilds some of the groups.
pub(super) struct Worker<'d> {
    assignment: &'d GroupAssignment,
    index: usize,
    /// The worker's groups, in the order of [`GroupAssignment::places`].
    replicas: Vec<(GroupId, Replica)>,
    clock: Clock,
    value_version: u8,
    effects: Vec<Effect>,
    found: WorkerFindings,
    refused: Option<Refusal>,
}

/// Findings of a worker besides the states of its groups.
#[derive(Default)]
pub(super) struct WorkerFindings {
    pub(super) kept: Vec<(GroupId, Instance, CheckpointSequence)>,
    pub(super) damaged: Vec<CheckpointSequence>,
    pub(super) bytes: u64,
}

/// Result of a worker: its groups and findings, or the reason why the log is not usable.
type WorkerResult = Result<(Vec<(GroupId, Replica)>, WorkerFindings), Refusal>;

impl Worker<'_> {
    /// Loads the newest states of its groups from the checkpoints. Stops early if `given_up` is set.
    fn load(&mut self, checkpoint_set: Option<&CheckpointSet>, progress: &RecoveryProgress, given_up: &AtomicBool) {
        let Some(checkpoint_set) = checkpoint_set else { return };
        for (group, replica) in &mut self.replicas {
            if given_up.load(Ordering::Relaxed) {
                return;
            }
            if let Some((loaded, bytes)) = checkpoint_set.newest(*group, &mut self.found.damaged) {
                self.found.kept.push((*group, loaded.state.instance, loaded.sequence));
                self.found.bytes += bytes;
                replica.restore_checkpoint(loaded.state, loaded.store, self.clock);
            }
            progress.advance(checkpoint_set.bytes(*group));
        }
    }

    /// Restores one record, unless an earlier record was refused.
    fn take(&mut self, lsn: Lsn, record: Record) {
        if self.refused.is_none() {
            self.refused = self.restore(lsn, record).err().map(Refusal::Record);
        }
    }

    fn finish(self) -> WorkerResult {
        self.refused.map_or(Ok((self.replicas, self.found)), Err)
    }

    /// Restores the records of its groups, behind the first reader of the log, up to the end of the log or the first
    /// refused record. Returns false if the worker was given up before that; its groups are then incomplete.
    fn follow(&mut self, mut follower: Follower<'_>, progress: &RecoveryProgress, given_up: &AtomicBool) -> bool {
        let (assignment, index) = (self.assignment, self.index);
        // The first reader reports records of groups that do not exist.
        let is_here = |group: GroupId| assignment.places.get(group.index()).is_some_and(|(worker, _)| *worker == index);
        let mut unsaid_bytes = 0;
        while self.refused.is_none() {
            if given_up.load(Ordering::Relaxed) {
                return false;
            }
            match follower.read(is_here, &mut |lsn, record| self.take(lsn, record)) {
                Ok(Some(bytes)) => {
                    // Every worker reads the whole log, so each reports only its share (one part in `workers`) of the
                    // bytes.
                    unsaid_bytes += bytes;
                    progress.advance(unsaid_bytes / assignment.workers as u64);
                    unsaid_bytes %= assignment.workers as u64;
                }
                Ok(None) => break,
                Err(error) => self.refused = Some(error.into()),
            }
        }
        true
    }

    fn restore(&mut self, lsn: Lsn, record: Record) -> Result<(), String> {
        let group = record.group().expect("only records of groups come here");
        let value = record.value();
        let instance = value.map(|value| value.instance).unwrap_or_default();
        if let Some(&version) = value.and_then(|value| value.payload.first())
            && version > self.value_version
        {
            return Err(format!(
                "it has a value of version {version} in group {group}, which this version of the program cannot \
                 read: start the one that wrote it, or a later one"
            ));
        }
        let Some(record) = shard::unlogged(record) else {
            return Err(format!("its value of group {group} at instance {instance} is malformed"));
        };
        let (_, place) = self.assignment.places[group.index()];
        let (_, replica) = &mut self.replicas[place];
        replica.restore(lsn, record, self.clock, &mut self.effects).map_err(|error| format!("group {group}: {error}"))
    }
}

/// Runs a single worker on the calling thread.
pub(super) fn in_line<R>(
    mut worker: Worker<'_>,
    input: &RebuildInput<'_>,
    checkpoint_set: Option<&CheckpointSet>,
    sorter: Sorter,
    feed: impl FnOnce(&mut dyn Visit) -> R,
    take: &mut dyn FnMut(RebuildOutput<R>),
) -> Result<WorkerFindings, Refusal> {
    worker.load(checkpoint_set, input.progress, &AtomicBool::new(false));
    let mut only = Only { worker: &mut worker, sorter, progress: input.progress };
    let fed = feed(&mut only);
    give(fed, only.sorter, checkpoint_set, vec![worker.finish()], std::iter::empty(), take)
}

/// The visitor of a single worker: restores each record as it is read.
struct Only<'l, 'd> {
    worker: &'l mut Worker<'d>,
    sorter: Sorter,
    progress: &'l RecoveryProgress,
}

impl Visit for Only<'_, '_> {
    fn record(&mut self, lsn: Lsn, record: Logged<'_>) {
        if self.sorter.is_of_group(&record) {
            self.worker.take(lsn, record.record());
        }
    }

    fn frame(&mut self, _sequence: SegmentSequence, frame: Range<u64>) {
        self.progress.advance(frame.end - frame.start);
    }
}

/// Runs each worker on a thread of its own, while the calling thread reads the log.
///
/// # Errors
/// If the system gives no thread.
pub(super) fn side_by_side<R>(
    workers: Vec<Worker<'_>>,
    input: &RebuildInput<'_>,
    checkpoint_set: Option<&CheckpointSet>,
    sorter: Sorter,
    feed: impl FnOnce(&mut dyn Visit) -> R,
    take: &mut dyn FnMut(RebuildOutput<R>),
) -> io::Result<Result<WorkerFindings, Refusal>> {
    let (frontier, given_up) = (Frontier::default(), AtomicBool::new(false));
    scope(|scope| {
        // `Ending` finishes the frontier on every way out of here, so that no follower waits for more.
        let mut first = First { sorter, frontier: Ending(&frontier) };
        let (finished, done) = channel();
        for mut worker in workers {
            let (frontier, given_up, finished) = (&frontier, &given_up, finished.clone());
            let work = move || {
                background::lower_priority();
                worker.load(checkpoint_set, input.progress, given_up);
                let follower = Follower::new(input.disk, frontier);
                if worker.follow(follower, input.progress, given_up) {
                    // If this worker refused a record, the node ends anyway: the other workers give up, so that it ends
                    // sooner.
                    given_up.fetch_or(worker.refused.is_some(), Ordering::Relaxed);
                    // The send fails only if the rebuild has failed already: then nobody needs the result.
                    let _ = finished.send(worker.finish());
                }
            };
            Builder::new().name("paxoi-worker".to_owned()).spawn_scoped(scope, work)?;
        }
        drop(finished);
        let fed = feed(&mut first);
        let First { sorter, frontier } = first;
        drop(frontier);
        let early: Vec<WorkerResult> = done.try_iter().collect();
        // `done` ends when all workers have ended. If a worker panicked, the end of the scope panics, too.
        Ok(give(fed, sorter, checkpoint_set, early, done.into_iter(), take))
    })
}

/// The visitor of the first reader: advances the frontier that the workers follow.
struct First<'f> {
    sorter: Sorter,
    frontier: Ending<'f>,
}

impl Visit for First<'_> {
    fn record(&mut self, _lsn: Lsn, record: Logged<'_>) {
        self.sorter.is_of_group(&record);
    }

    fn frame(&mut self, sequence: SegmentSequence, frame: Range<u64>) {
        self.frontier.0.advance(sequence, frame);
    }
}

/// A guard that finishes the frontier when it is dropped.
struct Ending<'f>(&'f Frontier);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.finish();
    }
}

/// Hands over the result of reading the log, and then the groups of each worker as it finishes. Hands over nothing if
/// `sorter` or one of the `early` workers has refused the log, and nothing more after a later worker has refused it.
fn give<R>(
    read: R,
    sorter: Sorter,
    checkpoint_set: Option<&CheckpointSet>,
    early: Vec<WorkerResult>,
    done: impl Iterator<Item = WorkerResult>,
    take: &mut dyn FnMut(RebuildOutput<R>),
) -> Result<WorkerFindings, Refusal> {
    if let Some(refused) = sorter.refusal() {
        return Err(refused);
    }
    let early = early.into_iter().collect::<Result<Vec<_>, Refusal>>()?;
    take(RebuildOutput::Log {
        read,
        peers: sorter.peers,
        catalog: checkpoint_set.map(CheckpointSet::catalog).unwrap_or_default(),
    });
    let mut all = WorkerFindings::default();
    for worker in early.into_iter().map(Ok).chain(done) {
        let (replicas, found) = worker?;
        take(RebuildOutput::Groups(replicas));
        all.add(found);
    }
    Ok(all)
}

impl WorkerFindings {
    fn add(&mut self, other: WorkerFindings) {
        self.kept.extend(other.kept);
        self.damaged.extend(other.damaged);
        self.bytes += other.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::GroupAssignment;

    #[test]
    fn groups_are_assigned_by_their_checkpoint_bytes() {
        let workers = |bytes: &[u64], workers| -> Vec<usize> {
            let assignment = GroupAssignment::new(bytes, workers);
            let mut places = assignment.places.clone();
            places.sort_unstable();
            let due = (0..assignment.workers).flat_map(|worker| {
                let count = assignment.places.iter().filter(|(of, _)| *of == worker).count();
                (0..count).map(move |place| (worker, place))
            });
            assert!(places.iter().copied().eq(due), "every worker's places count from 0");
            assignment.places.iter().map(|(worker, _)| *worker).collect()
        };
        assert!(workers(&[], 4).is_empty());
        assert_eq!(workers(&[0; 5], 2), [0, 1, 0, 1, 0]);
        assert_eq!(workers(&[7; 3], 64), [0, 1, 2]);
        assert_eq!(workers(&[1, 1, 100, 1, 1], 2), [1, 1, 0, 1, 1]);
        assert_eq!(workers(&[3, 9, 4, 5], 2), [0, 0, 1, 1]);
    }
}
