//! A start: while groups are being rebuilt elsewhere the node serves those that are here, and tells clients of the others
//! that it loads.
//!
//! Nothing can be promised before the log has been read to its end: until then the node has no group at all, and lets other
//! members wait. From then on groups come some at a time. To one that is missing, messages are lost as on their way to a
//! node that is down; members are told which these are, so that they count on others. When it comes it is as if both sides
//! had just connected. What concerns all groups at once waits for the last of them: checkpoints and what of the log can go,
//! changes of the members, and who is no member any more.

use super::wire::{Here, NodeMessage};
use super::{Node, Output, Time};
use crate::plural::plural;
use crate::recovery::{Blank, Rebuilt, Shelved};
use crate::shard::Cell;
use crate::storage::checkpoint::{Catalog, Header};
use crate::storage::wal::Record;
use groups::{GroupId, NodeId};

/// How far a start is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The log is being read.
    Reading,
    /// It has been, and is durable up to here; no group has come yet.
    Read { lsn: u64 },
    /// Groups come.
    Rebuilding,
    /// All of them are here.
    Whole,
}

impl Node {
    /// Gives the groups away, to be made what they were. Then come [`Node::log_read`], [`Node::groups_rebuilt`] for all
    /// groups, some at a time, and [`Node::all_rebuilt`].
    pub fn blank(&mut self) -> Blank {
        let cluster = self.identity.birth.as_ref().map(|record| {
            let (groups, cluster_id, hash_key) = (record.groups, record.cluster_id, record.hash_key);
            (Header { groups, cluster_id, hash_key, sequence: 0 }, record.limits())
        });
        let value_version = self.config.versions.value_version();
        self.stage = Stage::Reading;
        Blank { cells: self.engine.take_groups(), cluster, value_version }
    }

    /// The log has been read to its end, has these records of other members' starts, and is durable up to `lsn`; and these
    /// checkpoints are there.
    pub fn log_read(&mut self, peers: Vec<Record>, catalog: &Catalog, lsn: u64) {
        for record in peers {
            self.peers.restore(&record);
        }
        self.upkeep.add_files(catalog);
        self.stage = Stage::Read { lsn };
    }

    /// Groups are as they were: they are served from here. With the first of them the node begins, and its time limits run.
    ///
    /// # Panics
    /// If the log has not been read, or the group is here already.
    pub fn groups_rebuilt(&mut self, cells: Vec<(GroupId, Cell)>, time: Time) {
        let groups: Vec<GroupId> = cells.iter().map(|(group, _)| *group).collect();
        self.engine.put(cells);
        assert_ne!(self.stage, Stage::Reading, "nothing can be promised before the log has been read");
        if let Stage::Read { lsn } = self.stage {
            self.stage = Stage::Rebuilding;
            self.begin(lsn, time);
            // The hellos of members that waited are read now.
            let waiting = self.links();
            self.outputs.extend(waiting.into_iter().map(Output::Resume));
        } else {
            let begin = |group: &mut groups::Group, _: &mut Vec<groups::Effect>| group.begin(time.clock());
            groups.iter().for_each(|group| self.quiet_step(*group, begin));
            self.update_roster(time);
        }
        if !groups.is_empty() {
            tracing::info!(
                "{} of {} group{} are here",
                self.engine.len() - self.engine.shard().missing_groups(),
                self.engine.len(),
                plural(self.engine.len() as u64)
            );
        }
        self.upkeep.note_rebuilt(&self.engine, &groups);
        self.settle_value_version();
        let linked: Vec<NodeId> = self.peers.linked().map(|peer| peer.id()).collect();
        linked.into_iter().for_each(|peer| self.reconnect(peer, &groups, time));
    }

    /// All groups are here, and this was in the checkpoints.
    ///
    /// # Panics
    /// If the node has not begun, or a group is missing.
    pub fn all_rebuilt(&mut self, shelved: &Shelved, time: Time) {
        assert_eq!(self.stage, Stage::Rebuilding, "groups come, if only none, before that is the end of it");
        assert_eq!(self.engine.shard().missing_groups(), 0, "all groups are here when the rebuilding ends");
        self.upkeep.note_shelved(shelved);
        self.stage = Stage::Whole;
        self.engine.note_members_changed();
        self.update_roster(time);
    }

    /// [`Node::log_read`], [`Node::groups_rebuilt`] and [`Node::all_rebuilt`] at once, for those without threads.
    pub fn rebuilt(&mut self, rebuilt: Rebuilt, lsn: u64, time: Time) {
        let Rebuilt { mut shard, peers, catalog, shelved } = rebuilt;
        self.log_read(peers, &catalog, lsn);
        self.groups_rebuilt(shard.take_all(), time);
        self.all_rebuilt(&shelved, time);
    }

    /// Groups are new on both sides of a connection that was there before them.
    fn reconnect(&mut self, peer: NodeId, groups: &[GroupId], time: Time) {
        self.tell_here(peer, groups);
        if let Some(peer) = self.peers.find(peer) {
            peer.tell(&NodeMessage::Where);
        }
        self.tell_positions(peer);
        self.connect_groups(peer, groups);
        self.on_claims(peer, time);
    }

    /// Tells a member which groups have come now, and which are missing.
    pub(super) fn tell_here(&mut self, to: NodeId, groups: &[GroupId]) {
        let all = (0..self.engine.len() as u32).map(GroupId);
        let here = Here { groups: groups.to_vec(), missing: all.filter(|group| !self.engine.has(*group)).collect() };
        if let Some(peer) = self.peers.find(to) {
            peer.tell(&NodeMessage::Here(here));
        }
    }

    /// A member that loads says which groups it has now, and which it lacks.
    pub(super) fn handle_here(&mut self, from: NodeId, here: Here) {
        if let Some(peer) = self.peers.find(from) {
            peer.set_missing(here.missing);
        }
        self.connect_groups(from, &here.groups);
    }

    fn connect_groups(&mut self, peer: NodeId, groups: &[GroupId]) {
        for group in groups {
            if self.engine.has(*group) {
                self.step(*group, |group, effects| group.on_connected(peer, effects));
            }
        }
    }

    /// Whether some group is not here yet, or what was in the checkpoints is not known.
    #[must_use]
    pub fn is_loading(&self) -> bool {
        self.stage != Stage::Whole
    }

    /// Whether the node has not begun: it takes part in nothing.
    pub(super) fn has_not_begun(&self) -> bool {
        matches!(self.stage, Stage::Reading | Stage::Read { .. })
    }

    /// Time limits while there is no group: a member that waits gives up after a while, and comes again.
    pub(super) fn tick_before_begin(&mut self, time: Time) {
        self.cut_late(time);
        self.admit_silent(time);
    }
}
