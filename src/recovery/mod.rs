//! A start: the groups become what they were, from the newest checkpoints and the log behind them.
//!
//! The groups are dealt over *lanes*, a thread each. A lane first takes the states of its groups out of the checkpoints and
//! then applies their records. The log is one for all groups: the calling thread reads it first, and finds out where it
//! ends; the lanes follow, each as fast as it can. The records of a group stay in order, and what a group becomes depends
//! on nothing else: how many lanes there are changes what it takes, and nothing more.
//!
//! Nothing can be promised for a group before the log has been read to its end. From then on each lane hands its groups
//! over when it is done with them, and waits for no other.

mod lane;
mod progress;
#[cfg(test)]
mod tests;

pub use progress::Progress;

use crate::kv::Limits;
use crate::shard::{Cell, Shard};
use crate::storage::checkpoint::{self, Catalog, CheckpointError, Header, Shelf};
use crate::storage::disk::Disk;
use crate::storage::wal::{LogError, Logged, Record, RecordKind, Visit};
use groups::{Clock, GroupId, Instance};
use lane::{Deal, Found};
use std::io;
use thiserror::Error;

/// The groups of a node that has just been made, and what is to be known to make them what they were.
pub struct Blank {
    /// The groups, with nothing in them; none before the cluster's birth.
    pub cells: Vec<(GroupId, Cell)>,
    /// What checkpoints of the cluster begin with, and the limits of its stores; `None` before its birth.
    pub cluster: Option<(Header, Limits)>,
    /// The highest version of values that the program reads.
    pub value_version: u8,
}

/// Where a start reads, and how.
pub struct Source<'a> {
    /// The data directory.
    pub disk: &'a dyn Disk,
    /// What the log's segments belong to.
    pub storage: [u8; 16],
    /// The time of the start.
    pub clock: Clock,
    /// How many lanes there are.
    pub lanes: usize,
    /// Is told how far it is. Somebody else tells it the length of the log.
    pub progress: &'a Progress,
}

/// What [`Blank::rebuild`] hands over on its way: the log once, and then all groups, some at a time.
pub enum Part<R> {
    /// The log has been read to its end.
    Log {
        /// What came of reading it.
        read: R,
        /// Its records of other members' starts, in order.
        peers: Vec<Record>,
        /// The checkpoint files.
        catalog: Catalog,
    },
    /// Groups as they were.
    Groups(Vec<(GroupId, Cell)>),
}

/// What was in the checkpoints.
#[derive(Default)]
pub struct Shelved {
    /// Files that are of no use, or not for all groups.
    pub damaged: Vec<u64>,
    /// The groups whose state was in one: at which instance, and in the file with which sequence number.
    pub kept: Vec<(GroupId, Instance, u64)>,
    /// Bytes of blocks that were read.
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

/// All that a directory held.
pub struct Rebuilt {
    /// The groups as they were.
    pub shard: Shard,
    /// The records of other members' starts, in order.
    pub peers: Vec<Record>,
    /// The checkpoint files.
    pub catalog: Catalog,
    /// What was in them.
    pub shelved: Shelved,
}

impl Blank {
    /// Opens the checkpoints in `disk`; of none if the cluster was not born.
    ///
    /// # Errors
    /// If the directory cannot be read, or holds a checkpoint of another cluster or of a later version.
    pub fn shelf(&self, disk: &dyn Disk) -> Result<Option<Shelf>, CheckpointError> {
        self.cluster.as_ref().map(|(header, limits)| Shelf::open(disk, *header, limits.clone())).transpose()
    }

    /// Rebuilds the groups, and gives them to `take` lane by lane. `feed` reads the log to whom it is given. The lanes are
    /// threads beside the calling one; with one lane there is no other thread.
    ///
    /// # Errors
    /// If the system gives no thread; inside, see [`Refusal`]. Groups that have nothing to do with a record that is refused
    /// may have been given away before.
    pub fn rebuild<R>(
        self,
        source: &Source<'_>,
        shelf: Option<Shelf>,
        feed: impl FnOnce(&mut dyn Visit) -> R,
        take: &mut dyn FnMut(Part<R>),
    ) -> io::Result<Result<Shelved, Refusal>> {
        let Blank { cells, value_version, .. } = self;
        let groups = cells.len();
        let shelved = |group| shelf.as_ref().map_or(0, |shelf| shelf.bytes(GroupId(group)));
        let bytes: Vec<u64> = (0..groups as u32).map(shelved).collect();
        source.progress.expect(bytes.iter().sum());
        let deal = Deal::new(&bytes, source.lanes);
        let mut dealt = deal.lanes(cells, source.clock, value_version);
        let sorter = Sorter { groups, peers: Vec::new(), stray: None };
        let found = match (dealt.pop(), dealt.is_empty()) {
            (Some(only), true) => lane::in_line(only, source, shelf.as_ref(), sorter, feed, take),
            (last, _) => {
                dealt.extend(last);
                lane::side_by_side(dealt, source, shelf.as_ref(), sorter, feed, take)?
            }
        };
        source.progress.finish();
        Ok(found.map(|Found { kept, damaged, bytes }| {
            let damaged = shelf.map(|shelf| shelf.damaged(damaged)).unwrap_or_default();
            Shelved { damaged, kept, bytes }
        }))
    }

    /// The same, for those who want everything at once.
    ///
    /// # Errors
    /// As [`Blank::rebuild`].
    pub fn rebuild_all<R>(
        self,
        source: &Source<'_>,
        shelf: Option<Shelf>,
        feed: impl FnOnce(&mut dyn Visit) -> R,
    ) -> io::Result<Result<(R, Rebuilt), Refusal>> {
        let mut shard = Shard::of_missing(self.cells.len());
        let mut read = None;
        let shelved = self.rebuild(source, shelf, feed, &mut |part| match part {
            Part::Log { read: fed, peers, catalog } => read = Some((fed, peers, catalog)),
            Part::Groups(cells) => cells.into_iter().for_each(|(group, cell)| shard.put(group, cell)),
        })?;
        Ok(shelved.map(|shelved| {
            let (fed, peers, catalog) = read.expect("the log is given before all is done");
            (fed, Rebuilt { shard, peers, catalog, shelved })
        }))
    }
}

/// Tells whose a record is.
struct Sorter {
    groups: usize,
    /// Those of other members' starts, which go to no group.
    peers: Vec<Record>,
    /// The first group that a record names, though there is none such.
    stray: Option<GroupId>,
}

impl Sorter {
    /// Whether it is one of the groups'.
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

    /// Why the log is of no use.
    fn refusal(&self) -> Option<Refusal> {
        let (group, groups) = (self.stray?, self.groups);
        Some(Refusal::Record(format!("it has a record of group {group}, but there are only {groups}")))
    }
}

/// Removes what writers of checkpoints left unfinished: before [`Blank::shelf`], where the directory may be changed.
///
/// # Errors
/// If the directory cannot be read or changed.
pub fn tidy(disk: &dyn Disk) -> io::Result<()> {
    checkpoint::remove_unfinished(disk).map(|_| ())
}

/// Lanes for this machine.
#[must_use]
pub fn lanes() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(LANES_MAX)
}

/// More were not tried.
const LANES_MAX: usize = 16;
