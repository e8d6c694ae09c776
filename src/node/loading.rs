//! The start of a node. While other threads rebuild groups, the node serves the groups that are ready, and answers
//! requests for the others with `LOADING`.
//!
//! A node can promise nothing before it has read its log to the end. Until then it has no groups, and other members
//! wait. Afterwards the groups come in portions. Messages to a missing group are lost, as if the node were down. The
//! members are told which groups are missing, so that they count on other nodes. When a group comes, both sides act as
//! if they had just connected. Checkpoints, trimming, changes of the members and the removal of former members wait
//! until all groups are rebuilt.

use super::Time;
use super::core::Core;
use super::links::Links;
use super::output::Output;
use super::wire::NodeMessage;
use crate::config::{REACH_GRACE_MS, REACH_START_MS};
use crate::identity::Identity;
use crate::plural::plural;
use crate::recovery::CheckpointLoadSummary;
use crate::shard::Replica;
use crate::storage::wal::Lsn;
use groups::{GroupId, NodeId};

/// Progress of a start.
#[derive(Debug)]
pub(super) struct Loading(LoadingStage);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LoadingStage {
    /// The log is being read.
    Reading,
    /// The log has been read, and is durable up to here. No group has come yet.
    Read { lsn: Lsn },
    /// Some groups have come.
    Rebuilding,
    /// All groups have come.
    Whole,
}

impl Loading {
    /// Returns the state of a node that lacks no group.
    pub(super) fn whole() -> Loading {
        Loading(LoadingStage::Whole)
    }

    /// Notes that the groups were handed out to be rebuilt.
    pub(super) fn begin(&mut self) {
        self.0 = LoadingStage::Reading;
    }

    /// Notes that the log has been read to its end, and is durable up to `lsn`.
    pub(super) fn on_log_read(&mut self, lsn: Lsn) {
        self.0 = LoadingStage::Read { lsn };
    }

    /// Notes that rebuilt groups have come. The node begins at the first call, which returns the LSN up to which the
    /// log is durable. Later calls return `None`.
    ///
    /// # Panics
    /// If the log has not been read.
    pub(super) fn on_groups(&mut self) -> Option<Lsn> {
        assert_ne!(self.0, LoadingStage::Reading, "nothing can be promised before the log has been read");
        let LoadingStage::Read { lsn } = self.0 else { return None };
        self.0 = LoadingStage::Rebuilding;
        Some(lsn)
    }

    /// Notes that all groups are here.
    fn end(&mut self) {
        assert_eq!(self.0, LoadingStage::Rebuilding, "`on_groups` comes before the end, even without groups");
        self.0 = LoadingStage::Whole;
    }

    /// Returns true if some group is not rebuilt yet, or the content of the checkpoints is not known.
    pub(super) fn is_loading(&self) -> bool {
        self.0 != LoadingStage::Whole
    }

    /// Returns true if the cluster of this identity exists, and the node knows its promises in the groups that it has
    /// rebuilt so far. Before that, the node can serve nothing.
    pub(super) fn is_born(&self, identity: &Identity) -> bool {
        identity.birth.is_some() && !self.has_not_begun()
    }

    /// Returns true if the node has not begun: it takes part in nothing.
    pub(super) fn has_not_begun(&self) -> bool {
        matches!(self.0, LoadingStage::Reading | LoadingStage::Read { .. })
    }
}

impl Core<'_> {
    /// Begins after the recovery. The log is durable up to `lsn`; time limits run from here.
    pub(super) fn begin(&mut self, lsn: Lsn, links: &mut Links, time: Time) {
        let now_ms = time.mono_ms();
        self.engine.begin(lsn);
        self.engine.begin_groups(time.clock());
        self.update_roster(links, time);
        let is_born = self.is_born();
        self.ports.peers.begin(is_born, now_ms + REACH_START_MS - REACH_GRACE_MS, time.mono_us);
        links.begin(now_ms);
        self.upkeep.begin(now_ms);
    }

    /// Puts rebuilt groups in their places, and serves them from now on. The node begins with the first ones. Returns true
    /// if it has begun now.
    pub(super) fn put_rebuilt(&mut self, replicas: Vec<(GroupId, Replica)>, links: &mut Links, time: Time) -> bool {
        let groups: Vec<GroupId> = replicas.iter().map(|(group, _)| *group).collect();
        self.engine.put(replicas);
        let first = self.loading.on_groups();
        if let Some(lsn) = first {
            self.begin(lsn, links, time);
            // The hellos of members that waited are read now.
            self.ports.outputs.extend(links.ids().into_iter().map(Output::Resume));
        }
        self.on_rebuilt(&groups, first.is_none(), links, time);
        first.is_some()
    }

    /// Serves rebuilt groups from now on. If the node `has_begun` before, the groups' time limits begin now.
    fn on_rebuilt(&mut self, groups: &[GroupId], has_begun: bool, links: &mut Links, time: Time) {
        if has_begun {
            let begin = |group: &mut groups::Group, _: &mut Vec<groups::Effect>| group.begin(time.clock());
            groups.iter().for_each(|group| self.engine.quiet_step(*group, &mut self.ports, begin));
            self.update_roster(links, time);
        }
        let all = self.engine.owned().len();
        if !groups.is_empty() {
            let here = all - self.engine.shard().missing_groups();
            tracing::info!("{here} of {all} group{} are loaded", plural(all as u64));
        }
        self.upkeep.note_rebuilt(self.engine, groups);
        self.update_value_version();
        let linked: Vec<NodeId> = self.ports.peers.linked().map(|peer| peer.id()).collect();
        linked.into_iter().for_each(|peer| self.reconnect(peer, groups, time));
    }

    /// Ends the loading: all groups are here, and `restored` was in the checkpoints.
    ///
    /// # Panics
    /// If the node has not begun, or a group is missing.
    pub(super) fn on_all_rebuilt(&mut self, restored: &CheckpointLoadSummary) {
        assert_eq!(self.engine.shard().missing_groups(), 0, "all groups are here when the rebuilding ends");
        self.loading.end();
        self.upkeep.note_restored(restored);
        self.engine.note_members_changed();
    }

    /// Treats the connection to a peer as new for these groups, which were rebuilt after it was made.
    fn reconnect(&mut self, peer: NodeId, groups: &[GroupId], time: Time) {
        self.send_groups_ready(peer, groups);
        self.send_node_message(peer, &NodeMessage::PositionQuery);
        self.send_positions(peer);
        self.engine.connect(peer, groups, &mut self.ports);
        self.on_claims(peer, time);
    }
}
