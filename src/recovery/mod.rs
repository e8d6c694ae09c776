//! A start: the groups become what they were, from the newest checkpoints and the log behind them.
//!
//! The groups are dealt over *lanes*, a thread each. A lane first takes the states of its groups out of the checkpoints and
//! then applies their records, while the calling thread reads the log, which is one for all groups, and hands each record
//! to its lane. The records of a group stay in order, and what a group becomes depends on nothing else: how many lanes
//! there are changes what it takes, and nothing more.

mod lane;
mod progress;
#[cfg(test)]
mod tests;

pub use progress::Progress;

use crate::checkpoint::{self, Catalog, CheckpointError, Header, Shelf};
use crate::disk::Disk;
use crate::kv::Limits;
use crate::log::{Record, RecordKind};
use crate::shard::Shard;
use groups::{Clock, GroupId, Instance};
use lane::Lane;
use std::io;

/// The groups of a node that has just been made, and what is to be known to make them what they were.
pub struct Blank {
    /// The groups, with nothing in them; none before the cluster's birth.
    pub shard: Shard,
    /// What checkpoints of the cluster begin with, and the limits of its stores; `None` before its birth.
    pub cluster: Option<(Header, Limits)>,
    /// The highest version of values that the program reads.
    pub value_version: u8,
}

/// What a directory held.
pub struct Rebuilt {
    /// The groups as they were.
    pub shard: Shard,
    /// The checkpoint files.
    pub catalog: Catalog,
    /// The groups whose state was in one: at which instance, and in the file with which sequence number.
    pub kept: Vec<(GroupId, Instance, u64)>,
    /// The records of other members' starts, in order.
    pub peers: Vec<Record>,
    /// Bytes of blocks that were read from checkpoints.
    pub checkpoint_bytes: u64,
}

impl Blank {
    /// Opens the checkpoints in `disk`; of none if the cluster was not born.
    ///
    /// # Errors
    /// If the directory cannot be read, or holds a checkpoint of another cluster or of a later version.
    pub fn shelf(&self, disk: &dyn Disk) -> Result<Option<Shelf>, CheckpointError> {
        self.cluster.as_ref().map(|(header, limits)| Shelf::open(disk, *header, limits.clone())).transpose()
    }

    /// Rebuilds the groups. `feed` calls what it is given with each record of the log and its lsn, in order. `lanes`
    /// threads do the work beside the calling one; with one lane there is no other thread.
    ///
    /// # Errors
    /// If the system gives no thread. Inside, and then the log is of no use: if a record contradicts those before it,
    /// belongs to no group of this cluster, or cannot be read by this program.
    pub fn rebuild<R>(
        self,
        shelf: Option<Shelf>,
        clock: Clock,
        lanes: usize,
        progress: &Progress,
        feed: impl FnOnce(&mut dyn FnMut(u64, Record)) -> R,
    ) -> io::Result<(R, Result<Rebuilt, String>)> {
        let Blank { mut shard, value_version, .. } = self;
        let groups = shard.len();
        if let Some(shelf) = &shelf {
            progress.expect((0..groups as u32).map(|group| shelf.bytes(GroupId(group))).sum());
        }
        let count = lanes.clamp(1, groups.max(1));
        let mut dealt: Vec<Lane<'_>> = (0..count).map(|_| Lane::new(clock, value_version)).collect();
        shard.cells().enumerate().for_each(|(index, cell)| dealt[index % count].add(GroupId(index as u32), cell));
        let mut peers = Vec::new();
        let mut stray = None;
        let sort = &mut |record: &Record| match record.kind {
            RecordKind::Trimmed => None,
            RecordKind::PeerStart => {
                peers.push(record.clone());
                None
            }
            _ if record.group.index() < groups => Some(record.group.index() % count),
            _ => {
                stray.get_or_insert(record.group);
                None
            }
        };
        let (fed, done) = match (dealt.pop(), dealt.is_empty()) {
            (Some(only), true) => lane::in_line(only, shelf.as_ref(), progress, sort, feed),
            (last, _) => {
                dealt.extend(last);
                lane::side_by_side(dealt, shelf.as_ref(), progress, sort, feed)?
            }
        };
        let mut damaged = Vec::new();
        let mut kept = Vec::new();
        let (mut checkpoint_bytes, mut refused) = (0, None);
        for found in done {
            damaged.extend(found.damaged);
            kept.extend(found.kept);
            checkpoint_bytes += found.bytes;
            refused = refused.or(found.refused);
        }
        if let Some(group) = stray {
            refused = Some(format!("the log has a record of group {group}, but there are only {groups}"));
        }
        if let Some(reason) = refused {
            return Ok((fed, Err(reason)));
        }
        shard.weigh_all();
        let catalog = shelf.map(|shelf| shelf.catalog(damaged)).unwrap_or_default();
        Ok((fed, Ok(Rebuilt { shard, catalog, kept, peers, checkpoint_bytes })))
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
