//! Lanes (recovery workers): each rebuilds some of the groups, from their checkpoints and then their records in order.

use super::{Part, Progress, Refusal, Sorter, Source};
use crate::background;
use crate::shard::{self, Cell};
use crate::storage::checkpoint::Shelf;
use crate::storage::wal::{Follower, Frontier, Logged, Record, RecordKind, Visit};
use groups::{Clock, Effect, GroupId, Instance};
use std::cmp::Reverse;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread::{Builder, scope};

/// The assignment of groups to lanes.
pub(super) struct Deal {
    /// By group: the index of its lane, and its position among that lane's groups.
    places: Vec<(usize, usize)>,
    /// Number of lanes.
    lanes: usize,
}

impl Deal {
    /// Assigns groups to at most `lanes` lanes, balanced by `bytes`, the checkpoint bytes of each group. A group that is
    /// much larger than the others shares its lane with few of them.
    pub(super) fn new(bytes: &[u64], lanes: usize) -> Deal {
        let lanes = lanes.clamp(1, bytes.len().max(1));
        let mut order: Vec<usize> = (0..bytes.len()).collect();
        order.sort_by_key(|group| Reverse(bytes[*group]));
        let mut places = vec![(0, 0); bytes.len()];
        let mut dealt = vec![(0, 0); lanes];
        for group in order {
            let lightest = (0..lanes).min_by_key(|lane| dealt[*lane]).unwrap_or(0);
            let (weight, count) = &mut dealt[lightest];
            places[group] = (lightest, *count);
            *weight += bytes[group];
            *count += 1;
        }
        Deal { places, lanes }
    }

    /// Returns the lanes, each with its groups.
    pub(super) fn lanes(&self, mut cells: Vec<(GroupId, Cell)>, clock: Clock, value_version: u8) -> Vec<Lane<'_>> {
        let lane = |index| {
            let (cells, effects, found) = (Vec::new(), Vec::new(), Found::default());
            Lane { deal: self, index, cells, clock, value_version, effects, found, refused: None }
        };
        let mut lanes: Vec<Lane<'_>> = (0..self.lanes).map(lane).collect();
        cells.sort_by_key(|(group, _)| self.places[group.index()]);
        for (group, cell) in cells {
            lanes[self.places[group.index()].0].cells.push((group, cell));
        }
        lanes
    }
}

/// A recovery worker: rebuilds some of the groups.
pub(super) struct Lane<'d> {
    deal: &'d Deal,
    index: usize,
    /// The lane's groups, in the order of [`Deal::places`].
    cells: Vec<(GroupId, Cell)>,
    clock: Clock,
    value_version: u8,
    effects: Vec<Effect>,
    found: Found,
    refused: Option<Refusal>,
}

/// Findings of a lane besides the states of its groups.
#[derive(Default)]
pub(super) struct Found {
    pub(super) kept: Vec<(GroupId, Instance, u64)>,
    pub(super) damaged: Vec<u64>,
    pub(super) bytes: u64,
}

/// Result of a lane: its groups and findings, or the reason why the log is not usable.
type Done = Result<(Vec<(GroupId, Cell)>, Found), Refusal>;

impl Lane<'_> {
    /// Loads the newest states of its groups from the checkpoints. Stops early if `given_up` is set.
    fn load(&mut self, shelf: Option<&Shelf>, progress: &Progress, given_up: &AtomicBool) {
        let Some(shelf) = shelf else { return };
        for (group, cell) in &mut self.cells {
            if given_up.load(Ordering::Relaxed) {
                return;
            }
            if let Some((loaded, bytes)) = shelf.newest(*group, &mut self.found.damaged) {
                self.found.kept.push((*group, loaded.state.instance, loaded.sequence));
                self.found.bytes += bytes;
                cell.restore_checkpoint(loaded.state, loaded.store, self.clock);
            }
            progress.advance(shelf.bytes(*group));
        }
    }

    /// Restores one record, unless an earlier record was refused.
    fn take(&mut self, lsn: u64, record: Record) {
        if self.refused.is_none() {
            self.refused = self.restore(lsn, record).err().map(Refusal::Record);
        }
    }

    fn finish(self) -> Done {
        self.refused.map_or(Ok((self.cells, self.found)), Err)
    }

    /// Restores the records of its groups, behind the first reader of the log, up to the end of the log or the first
    /// refused record. Returns false if the lane was given up before that; its groups are then incomplete.
    fn follow(&mut self, mut follower: Follower<'_>, progress: &Progress, given_up: &AtomicBool) -> bool {
        let (deal, index) = (self.deal, self.index);
        // The first reader reports records of groups that do not exist.
        let is_here = |group: GroupId| deal.places.get(group.index()).is_some_and(|(lane, _)| *lane == index);
        let mut unsaid_bytes = 0;
        while self.refused.is_none() {
            if given_up.load(Ordering::Relaxed) {
                return false;
            }
            match follower.read(is_here, &mut |lsn, record| self.take(lsn, record)) {
                Ok(Some(bytes)) => {
                    // Every lane reads the whole log, so each reports only its share (one part in `lanes`) of the bytes.
                    unsaid_bytes += bytes;
                    progress.advance(unsaid_bytes / deal.lanes as u64);
                    unsaid_bytes %= deal.lanes as u64;
                }
                Ok(None) => break,
                Err(error) => self.refused = Some(error.into()),
            }
        }
        true
    }

    fn restore(&mut self, lsn: u64, record: Record) -> Result<(), String> {
        let (group, instance) = (record.group, record.instance);
        if matches!(record.kind, RecordKind::Accept | RecordKind::Learned)
            && let Some(&version) = record.payload.first()
            && version > self.value_version
        {
            return Err(format!(
                "it has a value of version {version} in group {group}, which this version of the program cannot \
                 read: start the one that wrote it, or a later one"
            ));
        }
        let Some(record) = shard::unlogged(record) else {
            return Err(format!("its value of group {group} at instance {instance} is not one"));
        };
        let (_, place) = self.deal.places[group.index()];
        let (_, cell) = &mut self.cells[place];
        cell.restore(lsn, record, self.clock, &mut self.effects).map_err(|error| format!("group {group}: {error}"))
    }
}

/// Runs a single lane on the calling thread.
pub(super) fn in_line<R>(
    mut lane: Lane<'_>,
    source: &Source<'_>,
    shelf: Option<&Shelf>,
    sorter: Sorter,
    feed: impl FnOnce(&mut dyn Visit) -> R,
    take: &mut dyn FnMut(Part<R>),
) -> Result<Found, Refusal> {
    lane.load(shelf, source.progress, &AtomicBool::new(false));
    let mut only = Only { lane: &mut lane, sorter, progress: source.progress };
    let fed = feed(&mut only);
    give(fed, only.sorter, shelf, vec![lane.finish()], std::iter::empty(), take)
}

/// The visitor of a single lane: restores each record as it is read.
struct Only<'l, 'd> {
    lane: &'l mut Lane<'d>,
    sorter: Sorter,
    progress: &'l Progress,
}

impl Visit for Only<'_, '_> {
    fn record(&mut self, lsn: u64, record: Logged<'_>) {
        if self.sorter.is_of_group(&record) {
            self.lane.take(lsn, record.record());
        }
    }

    fn frame(&mut self, _sequence: u64, frame: Range<u64>) {
        self.progress.advance(frame.end - frame.start);
    }
}

/// Runs each lane on a thread of its own, while the calling thread reads the log.
///
/// # Errors
/// If the system gives no thread.
pub(super) fn side_by_side<R>(
    lanes: Vec<Lane<'_>>,
    source: &Source<'_>,
    shelf: Option<&Shelf>,
    sorter: Sorter,
    feed: impl FnOnce(&mut dyn Visit) -> R,
    take: &mut dyn FnMut(Part<R>),
) -> io::Result<Result<Found, Refusal>> {
    let (frontier, given_up) = (Frontier::default(), AtomicBool::new(false));
    scope(|scope| {
        // `Ending` finishes the frontier on every way out of here, so that no follower waits for more.
        let mut first = First { sorter, frontier: Ending(&frontier) };
        let (finished, done) = channel();
        for mut lane in lanes {
            let (frontier, given_up, finished) = (&frontier, &given_up, finished.clone());
            let work = move || {
                background::give_way();
                lane.load(shelf, source.progress, given_up);
                let follower = Follower::new(source.disk, source.storage, frontier);
                if lane.follow(follower, source.progress, given_up) {
                    // If this lane refused a record, the node ends anyway: the other lanes give up, so that it ends sooner.
                    given_up.fetch_or(lane.refused.is_some(), Ordering::Relaxed);
                    // The send fails only if the rebuild has failed already: then nobody needs the result.
                    let _ = finished.send(lane.finish());
                }
            };
            Builder::new().name("paxoi-lane".to_owned()).spawn_scoped(scope, work)?;
        }
        drop(finished);
        let fed = feed(&mut first);
        let First { sorter, frontier } = first;
        drop(frontier);
        let early: Vec<Done> = done.try_iter().collect();
        // `done` ends when all lanes have ended. If a lane panicked, the end of the scope panics, too.
        Ok(give(fed, sorter, shelf, early, done.into_iter(), take))
    })
}

/// The visitor of the first reader: advances the frontier that the lanes follow.
struct First<'f> {
    sorter: Sorter,
    frontier: Ending<'f>,
}

impl Visit for First<'_> {
    fn record(&mut self, _lsn: u64, record: Logged<'_>) {
        self.sorter.is_of_group(&record);
    }

    fn frame(&mut self, sequence: u64, frame: Range<u64>) {
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

/// Hands over the result of reading the log, and then the groups of each lane as it finishes. Hands over nothing if the log
/// or one of the `early` lanes is refused, and nothing more when a later lane is refused.
fn give<R>(
    read: R,
    sorter: Sorter,
    shelf: Option<&Shelf>,
    early: Vec<Done>,
    done: impl Iterator<Item = Done>,
    take: &mut dyn FnMut(Part<R>),
) -> Result<Found, Refusal> {
    if let Some(refused) = sorter.refusal() {
        return Err(refused);
    }
    let early = early.into_iter().collect::<Result<Vec<_>, Refusal>>()?;
    take(Part::Log { read, peers: sorter.peers, catalog: shelf.map(Shelf::catalog).unwrap_or_default() });
    let mut all = Found::default();
    for lane in early.into_iter().map(Ok).chain(done) {
        let (cells, found) = lane?;
        take(Part::Groups(cells));
        all.add(found);
    }
    Ok(all)
}

impl Found {
    fn add(&mut self, other: Found) {
        self.kept.extend(other.kept);
        self.damaged.extend(other.damaged);
        self.bytes += other.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::Deal;

    #[test]
    fn groups_are_dealt_by_what_they_weigh() {
        let lanes = |bytes: &[u64], lanes| -> Vec<usize> {
            let deal = Deal::new(bytes, lanes);
            let mut places = deal.places.clone();
            places.sort_unstable();
            let due = (0..deal.lanes).flat_map(|lane| {
                let count = deal.places.iter().filter(|(of, _)| *of == lane).count();
                (0..count).map(move |place| (lane, place))
            });
            assert!(places.iter().copied().eq(due), "every lane's places count from 0");
            deal.places.iter().map(|(lane, _)| *lane).collect()
        };
        assert!(lanes(&[], 4).is_empty());
        assert_eq!(lanes(&[0; 5], 2), [0, 1, 0, 1, 0]);
        assert_eq!(lanes(&[7; 3], 64), [0, 1, 2]);
        assert_eq!(lanes(&[1, 1, 100, 1, 1], 2), [1, 1, 0, 1, 1]);
        assert_eq!(lanes(&[3, 9, 4, 5], 2), [0, 0, 1, 1]);
    }
}
