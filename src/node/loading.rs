//! A start: while groups are being rebuilt elsewhere the node serves those that are here, and tells clients of the others
//! that it loads.
//!
//! Nothing can be promised before the log has been read to its end: until then the node has no group at all, and lets other
//! members wait. From then on groups come some at a time. To one that is missing, messages are lost as on their way to a
//! node that is down, and when it comes it is as if both sides had just connected. What concerns all groups at once waits
//! for the last of them: checkpoints and what of the log can go, changes of the members, and who is no member any more.

use super::wire::{Here, NodeMessage};
use super::{Node, Time};
use crate::kv::reply::Reply;
use crate::log::Record;
use crate::recovery::{Blank, Rebuilt, Shelved};
use crate::shard::Cell;
use groups::{GroupId, NodeId};

/// How far a start is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The log is being read: nothing is known of any group.
    Reading,
    /// Groups come.
    Rebuilding,
    /// All of them are here.
    Whole,
}

impl Node {
    /// Gives the groups away, to be made what they were. Then come [`Node::log_read`], [`Node::groups_rebuilt`] for all
    /// groups, and [`Node::all_rebuilt`].
    pub fn blank(&mut self) -> Blank {
        let cluster = self.checkpoint_header();
        let value_version = self.config.versions.value_version();
        self.stage = Stage::Reading;
        Blank { cells: self.shard.take_all(), cluster, value_version }
    }

    /// The log has been read to its end, has these records of other members' starts, and is durable up to `lsn`. Time
    /// limits run from here.
    pub fn log_read(&mut self, peers: Vec<Record>, lsn: u64, time: Time) {
        for record in peers {
            self.io.restore_peer(record.ballot.node, record.instance.0, &record.payload);
        }
        self.stage = Stage::Rebuilding;
        self.begin(lsn, time);
        // Their hellos are read now.
        let waiting = self.links();
        self.io.outputs.resumes.extend(waiting);
    }

    /// Groups are as they were: they are served from here.
    pub fn groups_rebuilt(&mut self, cells: Vec<(GroupId, Cell)>, time: Time) {
        if cells.is_empty() {
            return;
        }
        let mut groups: Vec<GroupId> = Vec::with_capacity(cells.len());
        for (group, cell) in cells {
            self.shard.put(group, cell);
            self.shard.quiet_step(group, &mut self.io, |group, _| group.begin(time.clock()));
            groups.push(group);
        }
        tracing::info!("{} of {} groups are here", self.shard.len() - self.shard.missing(), self.shard.len());
        self.note_hollow(&groups);
        self.io.members_changed = true;
        self.update_roster(time);
        self.settle_value_version();
        let linked: Vec<NodeId> =
            self.io.peers.all.iter().filter(|peer| peer.link.is_some()).map(|peer| peer.id).collect();
        for peer in linked {
            self.reconnect(peer, &groups, time);
        }
    }

    /// All groups are here, and this was in the checkpoints.
    pub fn all_rebuilt(&mut self, shelved: Shelved) {
        assert_eq!(self.shard.missing(), 0, "all groups are here when the rebuilding ends");
        self.set_catalog(&shelved.catalog);
        for (group, instance, sequence) in shelved.kept {
            self.checkpoints.set_kept(group, instance, sequence);
        }
        self.stage = Stage::Whole;
        self.io.members_changed = true;
    }

    /// The same at once.
    pub fn rebuilt(&mut self, rebuilt: Rebuilt, lsn: u64, time: Time) {
        let Rebuilt { mut shard, peers, shelved } = rebuilt;
        self.log_read(peers, lsn, time);
        self.groups_rebuilt(shard.take_all(), time);
        self.all_rebuilt(shelved);
    }

    /// Groups are new on both sides of a connection that was there before them.
    fn reconnect(&mut self, peer: NodeId, groups: &[GroupId], time: Time) {
        if let Some(peer) = self.io.peers.find(peer) {
            peer.tell(&NodeMessage::Here(Here { groups: groups.to_vec() }));
            peer.tell(&NodeMessage::Where);
        }
        self.tell_positions(peer);
        self.connect_groups(peer, groups);
        self.on_claims(peer, time);
    }

    /// A member has groups now that it lacked when it connected.
    pub(super) fn handle_here(&mut self, from: NodeId, here: &Here) {
        self.connect_groups(from, &here.groups);
    }

    fn connect_groups(&mut self, peer: NodeId, groups: &[GroupId]) {
        for group in groups {
            if self.shard.has(*group) {
                self.shard.step(*group, &mut self.io, |group, effects| group.on_connected(peer, effects));
            }
        }
    }

    /// Whether some group is not here yet.
    #[must_use]
    pub fn is_loading(&self) -> bool {
        self.stage != Stage::Whole
    }

    /// Whether the log has not been read yet, so that there is no group at all.
    pub(super) fn is_reading(&self) -> bool {
        self.stage == Stage::Reading
    }

    /// Time limits while there is no group: a member that waits gives up after a while, and comes again.
    pub(super) fn tick_reading(&mut self, time: Time) {
        self.cut_late(time);
        self.admit_silent(time);
    }

    /// The reply to what needs a group that is missing.
    pub(super) fn loading_refusal(&self) -> Reply<'static> {
        let (done, all) = self.facts.loading_bytes;
        let percent = done * 100 / all.max(1);
        Reply::Error(format!("LOADING Paxoi is loading the dataset in memory: {percent} % done").into())
    }
}
