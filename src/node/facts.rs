//! The facts about one worker that INFO and CLUSTER tell of the whole node. Before such a command is answered, the worker
//! of the client asks the other workers for theirs; see `clients/whole.rs`.

use super::Time;
use super::cluster::MemberCount;
use super::core::Core;
use super::peers::Peer;
use crate::admin::info::{ClientsView, KeyspaceView, StorageView, WorkView};
use crate::admin::stats::Stats;
use crate::kv::Store;
use groups::{Group, GroupId, NodeId};

/// Facts about one worker, or the sum of those of several.
#[derive(Clone, Debug)]
pub(in crate::node) struct WorkerFacts {
    pub(super) clients: ClientsView,
    pub(super) stats: Stats,
    pub(super) used_bytes: u64,
    pub(super) keyspace: KeyspaceView,
    pub(super) work: WorkView,
    pub(super) storage: StorageView,
    /// The reason of the last failure of a checkpoint file, in one line; empty if there is none.
    pub(super) last_failure: String,
    /// The leader of each of the worker's groups, if it is known.
    pub(super) leaders: Vec<(GroupId, Option<NodeId>)>,
    /// How each node is a member of the worker's groups, if an operator lists the members.
    pub(super) members: Vec<MemberCount>,
    pub(super) groups_led: u32,
    pub(super) groups_leased: u32,
    pub(super) groups_leaderless: u32,
    pub(super) groups_behind: u32,
    pub(super) chosen: u64,
    pub(super) ballots_lost: u64,
    pub(super) skipped_groups: u64,
    pub(super) skipped_kinds: u64,
    pub(super) relayed: u64,
    /// How busy the busiest event loop is, in thousandths.
    pub(super) busy_per_mille: u64,
}

impl WorkerFacts {
    /// Adds the facts about another worker.
    pub(super) fn add(&mut self, other: &WorkerFacts) {
        self.clients.add(&other.clients);
        self.stats.add(&other.stats);
        self.used_bytes += other.used_bytes;
        self.keyspace.add(&other.keyspace);
        self.work.add(&other.work);
        self.storage.add(&other.storage);
        if self.last_failure.is_empty() {
            self.last_failure.clone_from(&other.last_failure);
        }
        self.leaders.extend(&other.leaders);
        self.members.extend(&other.members);
        self.groups_led += other.groups_led;
        self.groups_leased += other.groups_leased;
        self.groups_leaderless += other.groups_leaderless;
        self.groups_behind += other.groups_behind;
        self.chosen += other.chosen;
        self.ballots_lost += other.ballots_lost;
        self.skipped_groups += other.skipped_groups;
        self.skipped_kinds += other.skipped_kinds;
        self.relayed += other.relayed;
        self.busy_per_mille = self.busy_per_mille.max(other.busy_per_mille);
    }
}

impl Core<'_> {
    /// Returns the facts about this worker.
    pub(super) fn worker_facts(&self, clients: ClientsView, time: Time) -> WorkerFacts {
        let groups = || self.engine.groups();
        let count = |is: &dyn Fn(&Group) -> bool| groups().filter(|group| is(group)).count() as u32;
        WorkerFacts {
            clients,
            stats: self.ports.stats.clone(),
            used_bytes: self.used_bytes_here(),
            keyspace: KeyspaceView {
                keys: self.engine.shard().stores().map(|store| store.len() as u64).sum(),
                expires: self.engine.shard().stores().map(|store| store.expiring() as u64).sum(),
                expired_total: self.engine.shard().stores().map(Store::expired).sum(),
                hits: self.ports.stats.hits,
                misses: self.ports.stats.misses,
            },
            work: WorkView {
                calls: self.process_info.facts().system_calls,
                frames_sent: self.ports.peers.sent().frames,
                messages_sent: self.ports.peers.sent().messages,
                logged_bytes: self.engine.logged_bytes(),
            },
            storage: self.upkeep.view(u64::from(count(&Group::is_recovering))),
            last_failure: self.upkeep.last_failure().to_owned(),
            leaders: self.leaders_here().collect(),
            members: Vec::new(),
            groups_led: count(&|group| group.leads().is_some()),
            groups_leased: count(&|group| self.engine.holds_lease(group.id(), &self.ports, time)),
            groups_leaderless: self.engine.leaderless() as u32,
            groups_behind: count(&Group::is_behind),
            chosen: groups().map(|group| group.next().preceding().0).sum(),
            ballots_lost: groups().map(Group::ballots_lost).sum(),
            skipped_groups: self.ports.peers.skipped().groups,
            skipped_kinds: self.ports.peers.skipped().kinds,
            relayed: self.ports.relays.sent_total(),
            busy_per_mille: self.upkeep.load_per_mille(),
        }
    }

    /// Returns the leader of each group of this worker, if it is known.
    pub(super) fn leaders_here(&self) -> impl Iterator<Item = (GroupId, Option<NodeId>)> {
        self.engine.owned().iter().map(|group| (*group, self.leader_of(*group)))
    }

    /// Returns the leader of a group of this worker. For a group that is not rebuilt yet, the highest claim of a member
    /// decides.
    fn leader_of(&self, group: GroupId) -> Option<NodeId> {
        if self.engine.has(group) {
            return self.engine.group(group).leader().map(|ballot| ballot.node);
        }
        let claimed = |peer: &Peer| {
            let (led, _) = peer.claims();
            led.binary_search_by_key(&group, |(group, _)| *group).ok().map(|at| led[at].1)
        };
        self.ports.peers.iter().filter_map(claimed).max().map(|ballot| ballot.node)
    }
}
