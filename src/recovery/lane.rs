//! Lanes: some of the groups each, with their checkpoints and their records in order.

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

/// Which lane has which group.
pub(super) struct Deal {
    /// By group: which lane, and where among its groups.
    places: Vec<(usize, usize)>,
    /// How many lanes.
    lanes: usize,
}

impl Deal {
    /// Deals groups, each with so many bytes of checkpoints, to at most so many lanes: one that is much larger than the
    /// others shares its lane with few of them.
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

    /// The lanes with their groups.
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

/// Some of the groups.
pub(super) struct Lane<'d> {
    deal: &'d Deal,
    index: usize,
    /// In the order of [`Deal::places`].
    cells: Vec<(GroupId, Cell)>,
    clock: Clock,
    value_version: u8,
    effects: Vec<Effect>,
    found: Found,
    refused: Option<Refusal>,
}

/// What a lane found beside the state of its groups.
#[derive(Default)]
pub(super) struct Found {
    pub(super) kept: Vec<(GroupId, Instance, u64)>,
    pub(super) damaged: Vec<u64>,
    pub(super) bytes: u64,
}

/// What becomes of a lane: its groups, or why the log is of no use.
type Done = Result<(Vec<(GroupId, Cell)>, Found), Refusal>;

impl Lane<'_> {
    /// Takes the newest states out of the checkpoints; not all of them if it is given up.
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

    /// Takes one record back, if none before was refused.
    fn take(&mut self, lsn: u64, record: Record) {
        if self.refused.is_none() {
            self.refused = self.restore(lsn, record).err().map(Refusal::Record);
        }
    }

    fn finish(self) -> Done {
        self.refused.map_or(Ok((self.cells, self.found)), Err)
    }

    /// Takes back the records of its groups, behind the one who reads the log first, to its end or to one that is refused.
    /// False: it was given up before, and the groups are not what they were.
    fn follow(&mut self, mut follower: Follower<'_>, progress: &Progress, given_up: &AtomicBool) -> bool {
        let (deal, index) = (self.deal, self.index);
        // That there is a record of a group which does not exist is for the first reader to say.
        let is_here = |group: GroupId| deal.places.get(group.index()).is_some_and(|(lane, _)| *lane == index);
        let mut unsaid_bytes = 0;
        while self.refused.is_none() {
            if given_up.load(Ordering::Relaxed) {
                return false;
            }
            match follower.read(is_here, &mut |lsn, record| self.take(lsn, record)) {
                Ok(Some(bytes)) => {
                    // A lane's part of what all of them have to read.
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

/// One lane, on the calling thread.
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

/// Takes everything back as it is read.
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

/// A thread for each lane, beside the calling one.
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
        // However this ends: who follows is not to wait for more.
        let mut first = First { sorter, frontier: Ending(&frontier) };
        let (finished, done) = channel();
        for mut lane in lanes {
            let (frontier, given_up, finished) = (&frontier, &given_up, finished.clone());
            let work = move || {
                background::give_way();
                lane.load(shelf, source.progress, given_up);
                let follower = Follower::new(source.disk, source.storage, frontier);
                if lane.follow(follower, source.progress, given_up) {
                    // If it has refused a record, the node ends, and the sooner the better.
                    given_up.fetch_or(lane.refused.is_some(), Ordering::Relaxed);
                    // Whoever waits for it waits for all.
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
        // Ends when all lanes have: if one panicked, so does the end of the scope.
        Ok(give(fed, sorter, shelf, early, done.into_iter(), take))
    })
}

/// Reads the log first, for the lanes that follow.
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

/// When this is dropped there is no more to follow.
struct Ending<'f>(&'f Frontier);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.finish();
    }
}

/// Hands over what was read, unless one of the `early` lanes has refused already, and the groups of each lane when it is
/// done; nothing more when a lane has refused.
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
