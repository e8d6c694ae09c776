//! A start: while groups are being rebuilt elsewhere the node serves those that are here, and tells clients of the others
//! that it loads.
//!
//! Nothing can be promised before the log has been read to its end: until then the node has no group at all, and lets other
//! members wait. From then on groups come some at a time. To one that is missing, messages are lost as on their way to a
//! node that is down; members are told which these are, so that they count on others. When it comes it is as if both sides
//! had just connected. What concerns all groups at once waits for the last of them: checkpoints and what of the log can go,
//! changes of the members, and who is no member any more.

use super::Time;
use super::core::Core;
use super::links::Links;
use super::wire::NodeMessage;
use crate::plural::plural;
use crate::recovery::Shelved;
use groups::{GroupId, NodeId};

/// How far a start is.
#[derive(Debug)]
pub(super) struct Loading(Stage);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The log is being read.
    Reading,
    /// It has been, and is durable up to here; no group has come yet.
    Read { lsn: u64 },
    /// Groups come.
    Rebuilding,
    /// All of them are here.
    Whole,
}

impl Loading {
    /// Nothing is missing.
    pub(super) fn whole() -> Loading {
        Loading(Stage::Whole)
    }

    /// The groups are given away.
    pub(super) fn begin(&mut self) {
        self.0 = Stage::Reading;
    }

    /// The log has been read to its end, and is durable up to `lsn`.
    pub(super) fn on_log_read(&mut self, lsn: u64) {
        self.0 = Stage::Read { lsn };
    }

    /// Groups come. With the first of them the node begins: up to where its log is durable is returned then.
    ///
    /// # Panics
    /// If the log has not been read.
    pub(super) fn on_groups(&mut self) -> Option<u64> {
        assert_ne!(self.0, Stage::Reading, "nothing can be promised before the log has been read");
        let Stage::Read { lsn } = self.0 else { return None };
        self.0 = Stage::Rebuilding;
        Some(lsn)
    }

    /// All groups are here.
    fn end(&mut self) {
        assert_eq!(self.0, Stage::Rebuilding, "groups come, if only none, before that is the end of it");
        self.0 = Stage::Whole;
    }

    /// Returns true if some group is not here yet, or what was in the checkpoints is not known.
    pub(super) fn is_loading(&self) -> bool {
        self.0 != Stage::Whole
    }

    /// Returns true if the node has not begun: it takes part in nothing.
    pub(super) fn has_not_begun(&self) -> bool {
        matches!(self.0, Stage::Reading | Stage::Read { .. })
    }
}

impl Core<'_> {
    /// Groups are as they were: they are served from here. If the node `has_begun` before, their time limits begin now.
    pub(super) fn on_rebuilt(&mut self, groups: &[GroupId], has_begun: bool, links: &mut Links, time: Time) {
        if has_begun {
            let begin = |group: &mut groups::Group, _: &mut Vec<groups::Effect>| group.begin(time.clock());
            groups.iter().for_each(|group| self.engine.quiet_step(*group, &mut self.wires, begin));
            self.update_roster(links, time);
        }
        let all = self.engine.len();
        if !groups.is_empty() {
            let here = all - self.engine.shard().missing_groups();
            tracing::info!("{here} of {all} group{} are here", plural(all as u64));
        }
        self.upkeep.note_rebuilt(self.engine, groups);
        self.settle_value_version();
        let linked: Vec<NodeId> = self.wires.peers.linked().map(|peer| peer.id()).collect();
        linked.into_iter().for_each(|peer| self.reconnect(peer, groups, time));
    }

    /// All groups are here, and this was in the checkpoints.
    ///
    /// # Panics
    /// If the node has not begun, or a group is missing.
    pub(super) fn on_all_rebuilt(&mut self, shelved: &Shelved) {
        assert_eq!(self.engine.shard().missing_groups(), 0, "all groups are here when the rebuilding ends");
        self.loading.end();
        self.upkeep.note_shelved(shelved);
        self.engine.note_members_changed();
    }

    /// Groups are new on both sides of a connection that was there before them.
    fn reconnect(&mut self, peer: NodeId, groups: &[GroupId], time: Time) {
        self.tell_here(peer, groups);
        self.tell(peer, &NodeMessage::Where);
        self.tell_positions(peer);
        self.engine.connect(peer, groups, &mut self.wires);
        self.on_claims(peer, time);
    }
}
