//! The birth of a cluster, which happens once. The data directories of all initial members must be empty. The member
//! with the lowest id gathers the storage ids of all of them, writes the birth record and hands it out. No member votes
//! before it holds the record durably. From then on, a known id with another storage id is a different node.

use super::ClusterContext;
use crate::config::{GROUPS_MAX, NodeConfig, VALUE_BYTES_LIMIT};
use crate::identity::{BirthRecord, Identity, Member};
use crate::kv::Store;
use crate::node::Output;
use crate::node::cluster_time::ClusterTime;
use crate::node::wire::{Hello, Refusal};
use crate::plural::plural;
use crate::routing;
use groups::members::MEMBERS_MAX;
use groups::membership::MemberInfo;
use groups::{Group, GroupId, Membership, NodeId, Settings};
use std::sync::Arc;

/// Progress of the birth: the storage ids announced so far.
#[derive(Debug)]
pub(super) struct Birth {
    me: NodeId,
    members: Vec<(NodeId, String)>,
    storages: Vec<(NodeId, [u8; 16])>,
    storing: bool,
}

/// Returns the initial members of the cluster. Before the birth, a placeholder stands for each storage id.
pub(in crate::node) fn membership(config: &NodeConfig, record: Option<&BirthRecord>) -> Membership {
    let info = |node, storage, address: &str| MemberInfo { node, storage, address: address.to_owned() };
    Membership::new(match record {
        None => config.initial.iter().map(|(id, address)| info(*id, [id.0 as u8; 16], address)).collect(),
        Some(record) => record.members.iter().map(|m| info(m.node, m.storage_id, &m.address)).collect(),
    })
}

impl Birth {
    pub(super) fn new(config: &NodeConfig, identity: &Identity) -> Birth {
        let mut members = config.initial.clone();
        members.sort();
        Birth { me: identity.node, members, storages: Vec::new(), storing: false }
    }

    /// Checks that the sender of this hello can be a member of this unborn cluster.
    pub(super) fn check_hello(&self, hello: &Hello) -> Result<(), Refusal> {
        let ours: Vec<NodeId> = self.members.iter().map(|(id, _)| *id).collect();
        if hello.cluster.is_none() && hello.members != ours {
            let list = |ids: &[NodeId]| ids.iter().map(NodeId::to_string).collect::<Vec<_>>().join(",");
            let text = format!(
                "node {} was given the initial members {}, but node {} has {}: give all the same list",
                hello.node,
                list(&hello.members),
                self.me,
                list(&ours)
            );
            return Err(Refusal { fatal: false, text });
        }
        Ok(())
    }

    pub(super) fn on_hello(&mut self, hello: &Hello) {
        self.storages.retain(|(id, _)| *id != hello.node);
        if hello.cluster.is_none() {
            self.storages.push((hello.node, hello.storage));
        }
    }

    /// Describes the reason why the birth waits, as text for clients.
    pub(super) fn waits_for(&self, cluster_time: &ClusterTime) -> String {
        let known = |id: NodeId| id == self.me || self.storages.iter().any(|(node, _)| *node == id);
        let missing: Vec<String> =
            self.members.iter().filter(|(id, _)| !known(*id)).map(|(id, _)| id.to_string()).collect();
        if missing.is_empty() {
            let silent = cluster_time.unknown().map(|id| format!(": the clock of node {id} is not known yet")).next();
            return format!("the cluster is being formed{}", silent.unwrap_or_default());
        }
        format!("the cluster is not formed yet: it waits for node {} to connect", missing.join(" and node "))
    }
}

impl Birth {
    /// At the member with the lowest id: writes the birth record when all initial members are connected at once, with
    /// empty directories.
    pub(super) fn tick(&mut self, cx: &mut ClusterContext<'_>) {
        let me = self.me;
        let is_lowest = self.members.first().is_some_and(|(id, _)| *id == me);
        // Waits for all clocks: then a single wrong clock has no effect on the time of the birth.
        if !is_lowest || self.storing || !cx.ports.cluster_time.knows_all() {
            return;
        }
        let mut members = Vec::new();
        for (id, address) in &self.members {
            let linked = cx.ports.peers.get(*id).is_some_and(|peer| peer.link().is_some());
            let theirs = self.storages.iter().find(|(node, _)| node == id).map(|(_, storage)| *storage);
            let storage = if *id == me { Some(cx.identity.storage_id) } else { theirs.filter(|_| linked) };
            let Some(storage_id) = storage else { return };
            members.push(Member { node: *id, storage_id, address: address.clone() });
        }
        let record = BirthRecord {
            cluster_id: cx.config.cluster_id,
            groups: cx.config.groups,
            hash_key: cx.config.hash_key,
            session_ttl_ms: cx.config.session_ttl_ms,
            value_bytes_max: cx.config.value_bytes_max as u64,
            members,
            born_ms: cx.ports.cluster_time.median_ms(cx.time),
        };
        self.store(record, cx);
    }

    /// Takes a birth record from another member. The node stores the record if it names the node's data directory, and
    /// stops otherwise.
    ///
    /// # Errors
    /// If no cluster can have been born with this record, or its members are not those that this node was given.
    pub(super) fn handle(&mut self, record: BirthRecord, cx: &mut ClusterContext<'_>) -> Result<(), String> {
        if cx.is_born || self.storing {
            return Ok(());
        }
        let ids = record.members.iter().map(|member| member.node);
        if !ids.eq(self.members.iter().map(|(id, _)| *id)) {
            return Err("its cluster was born with other members than this node was given".to_owned());
        }
        if !accepts(&record, cx)? {
            return Ok(());
        }
        let (me, storage) = (self.me, cx.identity.storage_id);
        if record.members.iter().any(|member| member.node == me && member.storage_id == storage) {
            self.store(record, cx);
            return Ok(());
        }
        cx.ports.outputs.push(Output::Stop(format!(
            "node {me} is known to its cluster with another data directory, and never votes with this one: \
             replace the node under a new id"
        )));
        Ok(())
    }

    fn store(&mut self, record: BirthRecord, cx: &mut ClusterContext<'_>) {
        self.storing = true;
        let identity = Identity { birth: Some(record), ..cx.identity.clone() };
        cx.ports.outputs.push(Output::StoreIdentity(Box::new(identity)));
    }
}

/// Creates the empty groups of this worker, in the cluster of this birth record.
pub(in crate::node) fn groups(
    config: &NodeConfig,
    identity: &Identity,
    record: &BirthRecord,
) -> impl Iterator<Item = (Group, Store)> {
    let membership = Arc::new(membership(config, Some(record)));
    let group = move |id: GroupId| {
        let settings = Settings {
            id,
            groups: record.groups,
            me: identity.node,
            start: identity.start,
            membership: membership.clone(),
            batch_bytes_max: crate::config::BATCH_BYTES_MAX,
            window_bytes: crate::config::window_bytes(record.groups),
            seed: config.seed,
        };
        let slots = routing::slots_of(id, record.groups);
        (Group::new(settings), Store::new(record.hash_key, slots, record.limits()))
    };
    config.workers.owned(record.groups).map(group)
}

/// Writes to the log which cluster this node belongs to now, and which of its flags have no effect.
pub(in crate::node) fn announce(record: &BirthRecord, config: &NodeConfig) {
    let (groups, members) = (u64::from(record.groups), record.members.len() as u64);
    tracing::info!(
        "this node belongs to a cluster of {groups} group{}, born with {members} member{}",
        plural(groups),
        plural(members)
    );
    let overruled = record.overruled(Some(config.groups), Some(config.session_ttl_ms), None);
    for line in overruled.into_iter().chain(record.other_addresses(&config.initial)) {
        tracing::warn!("{line}");
    }
}

/// Returns true if this node can serve a cluster that was born with this record.
///
/// # Errors
/// If no cluster can have this record.
pub(super) fn accepts(record: &BirthRecord, cx: &mut ClusterContext<'_>) -> Result<bool, String> {
    let groups_fit = (1..=GROUPS_MAX).contains(&record.groups);
    let ids = record.members.iter().map(|member| member.node);
    let members_fit = (1..=MEMBERS_MAX).contains(&record.members.len()) && ids.is_sorted_by(|one, next| one < next);
    if !groups_fit || !members_fit || !(1..=VALUE_BYTES_LIMIT as u64).contains(&record.value_bytes_max) {
        return Err("its birth record is out of range".to_owned());
    }
    if record.value_bytes_max != cx.config.value_bytes_max as u64 {
        // The limits of requests and frames follow from this value, and were set when this node started.
        let theirs = record.value_bytes_max;
        cx.ports.outputs.push(Output::Stop(format!(
            "the cluster was born with values of up to {theirs} bytes: start this node with --value-bytes-max {theirs}"
        )));
        return Ok(false);
    }
    Ok(true)
}
