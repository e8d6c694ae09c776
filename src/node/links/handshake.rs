//! The handshake: what two nodes say to each other first, and what of it cannot be. A hello of another cluster, of a storage
//! id or start number that cannot be, or of another group count is refused with a line that says why.

use crate::config::NodeConfig;
use crate::identity::{Identity, LIVES_MAX};
use crate::node::peers::Peers;
use crate::node::wire::{Hello, Refusal};
use groups::NodeId;

/// How often a member can have been started while this node did not see it.
const STARTS_AHEAD_MAX: u64 = 1 << 32;

/// What a hello is compared with.
#[derive(Clone, Copy)]
pub(in crate::node) struct Known<'a> {
    pub(in crate::node) identity: &'a Identity,
    pub(in crate::node) config: &'a NodeConfig,
    pub(in crate::node) peers: &'a Peers,
    /// Some groups are not here yet.
    pub(in crate::node) is_loading: bool,
}

impl Known<'_> {
    /// This node's own hello. `to`: the node that was dialled, if its id is known.
    pub(super) fn hello(&self, to: Option<NodeId>) -> Hello {
        let Known { identity, config, peers, .. } = self;
        let birth = identity.birth.as_ref();
        Hello {
            cluster: birth.map(|record| record.cluster_id),
            node: identity.node,
            storage: identity.storage_id,
            start: identity.start,
            lives: identity.lives.clone(),
            groups: birth.map_or(config.groups, |record| record.groups),
            members: peers.voters().ids().to_vec(),
            joins: peers.own_address().filter(|_| !config.join.is_empty()).map(str::to_owned),
            versions: config.versions,
            to,
            announced: config.announced.clone(),
            address: peers.own_address().map(str::to_owned),
        }
    }

    /// Checks that a hello is meant for this node: the address that was dialled may have been another member's before. Else
    /// it must not take the place of a connection of the same peer.
    ///
    /// # Errors
    /// Why it is not.
    pub(super) fn is_meant(&self, hello: &Hello) -> Result<(), Refusal> {
        // Whoever was removed is told so wherever it asks: it may know nobody who is left.
        let ours = self.identity.birth.as_ref().map(|record| record.cluster_id);
        if ours.is_some() && hello.cluster == ours && self.peers.roster().was_removed(hello.node) {
            return refuse(true, removed(hello.node));
        }
        let me = self.identity.node;
        match hello.to.filter(|to| *to != me) {
            Some(to) => refuse(false, format!("this address is node {me}'s, not node {to}'s")),
            None => Ok(()),
        }
    }

    /// Returns true if a hello comes from a node of this cluster that this node has not heard of.
    pub(super) fn is_unknown_member(&self, hello: &Hello) -> bool {
        let ours = self.identity.birth.as_ref().map(|record| record.cluster_id);
        let is_known = self.peers.get(hello.node).is_some();
        hello.node != self.identity.node && ours.is_some() && hello.cluster == ours && !is_known
    }

    /// Checks that a hello can be, at a node of any kind.
    ///
    /// # Errors
    /// Why not.
    pub(in crate::node) fn judge(&self, hello: &Hello) -> Result<(), Refusal> {
        let (from, ours) = (hello.node, self.identity.birth.as_ref());
        if from == self.identity.node {
            let text = format!("it says that it is node {from}, which is this node: no two can have the same id");
            return refuse(false, text);
        }
        // A group that is missing may know it as a member.
        if self.is_loading && self.peers.roster().place(from).is_none() {
            return refuse(false, loads(self.identity.node));
        }
        // Before anything that ends a node for ever: the address can have been one of that node's own cluster.
        if let (Some(ours), Some(theirs)) = (ours, hello.cluster)
            && ours.cluster_id != theirs
        {
            return refuse(false, format!("node {from} belongs to another cluster"));
        }
        if self.peers.roster().was_removed(from) {
            return refuse(true, removed(from));
        }
        let place = self.peers.roster().place(from);
        // It may have joined while this node was away, if it belongs to the cluster at all.
        let is_guest = ours.is_some() && hello.cluster.is_some();
        if place.is_none() && !is_guest {
            return refuse(false, stranger(from));
        }
        let groups = ours.map_or(self.config.groups, |record| record.groups);
        if groups != hello.groups && (ours.is_none() == hello.cluster.is_none()) {
            let text = format!("node {from} has {} groups, but this cluster has {groups}", hello.groups);
            return refuse(false, text);
        }
        if ours.is_none() {
            return Ok(());
        }
        if place.is_some_and(|place| place.storage != hello.storage) {
            let text = format!(
                "node {from} is known with another data directory: a lost or foreign one never votes; \
                 replace the node under a new id"
            );
            return refuse(true, text);
        }
        // What is known of a peer was said by a born one: it cannot have been there at the birth only.
        let seen = self.peers.seen_as(from);
        if hello.cluster.is_none() && seen.is_some() {
            let text = format!(
                "node {from} was a member already, but its data directory is from before the cluster was born: \
                 it is an old copy; replace the node under a new id"
            );
            return refuse(true, text);
        }
        let seen = seen.unwrap_or_default();
        let (start, life) = (seen.start, seen.life);
        if hello.start < start {
            let text = format!(
                "node {from} was seen with start number {}, but now has {}: its data directory is an old copy; \
                 replace the node under a new id",
                start, hello.start
            );
            return refuse(true, text);
        }
        // Believed and logged, it would make the member's own number look like an old copy's for ever.
        if hello.start > start.saturating_add(STARTS_AHEAD_MAX) {
            let said = hello.start;
            let text = format!("node {from} cannot have been started {said} times, it was seen with {start}");
            return refuse(false, text);
        }
        if hello.lives.is_empty() || hello.lives.len() > LIVES_MAX {
            return refuse(false, format!("node {from} tells of {} lives", hello.lives.len()));
        }
        if life.is_some_and(|life| !hello.descends_from(start, life)) {
            let text = format!(
                "node {from} was seen with start number {start}, but in another process: its data directory is an old copy, \
                 or there are two of it; replace the node under a new id"
            );
            return refuse(true, text);
        }
        Ok(())
    }
}

pub(super) fn refuse(fatal: bool, text: String) -> Result<(), Refusal> {
    Err(Refusal { fatal, text })
}

/// What a node is told that is no member any more.
pub(in crate::node) fn removed(node: NodeId) -> String {
    format!(
        "node {node} was removed from the cluster: its data directory is of no use any more, and its id is never used \
         again; start another node under a new id with an empty directory"
    )
}

/// What a node is told of which it is not known yet whether it is a member.
pub(super) fn loads(node: NodeId) -> String {
    format!("node {node} is loading its groups: try again")
}

/// What a node is told that is no member, as far as this one knows.
fn stranger(node: NodeId) -> String {
    format!("node {node} is not a member of this cluster")
}
