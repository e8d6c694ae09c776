//! The handshake: the hellos of two nodes, and the checks of a hello. A node refuses a hello of another cluster, with
//! an impossible storage id or start number, or with another number of groups. The refusal says why.

use crate::config::NodeConfig;
use crate::identity::{INCARNATIONS_MAX, Identity};
use crate::node::peers::Peers;
use crate::node::wire::{Hello, Refusal};
use crate::plural::plural;
use groups::NodeId;

/// Maximum number of a member's starts that this node may have missed.
const STARTS_AHEAD_MAX: u64 = 1 << 32;

/// The state of this node that a hello is checked against.
#[derive(Clone, Copy)]
pub(in crate::node) struct HandshakeContext<'a> {
    pub(in crate::node) identity: &'a Identity,
    pub(in crate::node) config: &'a NodeConfig,
    pub(in crate::node) peers: &'a Peers,
    /// True while some groups are not rebuilt yet.
    pub(in crate::node) is_loading: bool,
}

impl HandshakeContext<'_> {
    /// Returns this node's own hello. `to`: the node that was dialled, if its id is known.
    pub(super) fn hello(&self, to: Option<NodeId>) -> Hello {
        let HandshakeContext { identity, config, peers, .. } = self;
        let birth = identity.birth.as_ref();
        Hello {
            cluster: birth.map(|record| record.cluster_id),
            node: identity.node,
            storage: identity.storage_id,
            start: identity.start,
            incarnations: identity.incarnations.clone(),
            groups: birth.map_or(config.groups, |record| record.groups),
            members: peers.voters().ids().to_vec(),
            joins: peers.own_address().filter(|_| !config.join.is_empty()).map(str::to_owned),
            versions: config.versions,
            to,
            announced: config.announced.clone(),
            address: peers.own_address().map(str::to_owned),
            workers: config.workers,
        }
    }

    /// Checks that the sender has as many workers as this node: each worker talks to the one with the same number.
    ///
    /// # Errors
    /// The reason why the hello is refused.
    pub(super) fn check_workers(&self, hello: &Hello) -> Result<(), Refusal> {
        let (ours, theirs) = (self.config.workers, hello.workers);
        let (me, from) = (self.identity.node, hello.node);
        if ours.count() != theirs.count() {
            let (ours, theirs) = (ours.count(), theirs.count());
            let s = plural(u64::from(theirs));
            let text =
                format!("node {from} has {theirs} worker{s}, but node {me} has {ours}: give all the same --workers");
            return refuse(false, text);
        }
        if ours != theirs {
            let (ours, theirs) = (ours.me(), theirs.me());
            return refuse(false, format!("worker {theirs} of node {from} has reached worker {ours} of node {me}"));
        }
        if !ours.is_first() && self.identity.birth.is_none() {
            return refuse(false, format!("worker {} of node {me} waits for its first worker", ours.me()));
        }
        Ok(())
    }

    /// Checks that a hello is meant for this node. The dialled address may have belonged to another member before. A
    /// hello that is meant for another node must not replace a connection of the same peer.
    ///
    /// # Errors
    /// The reason why the hello is not meant for this node.
    pub(super) fn is_meant(&self, hello: &Hello) -> Result<(), Refusal> {
        // Any node tells a removed node that it was removed: the removed node may know none of the remaining members.
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

    /// Returns true if a hello comes from a node of this cluster that this node does not know.
    pub(super) fn is_unknown_member(&self, hello: &Hello) -> bool {
        let ours = self.identity.birth.as_ref().map(|record| record.cluster_id);
        let is_known = self.peers.get(hello.node).is_some();
        hello.node != self.identity.node && ours.is_some() && hello.cluster == ours && !is_known
    }

    /// Checks that a hello is possible, at a born or an unborn node.
    ///
    /// # Errors
    /// The reason why the hello is refused.
    pub(in crate::node) fn check_hello(&self, hello: &Hello) -> Result<(), Refusal> {
        let (from, ours) = (hello.node, self.identity.birth.as_ref());
        if from == self.identity.node {
            let text = format!("the peer and this node both have the id {from}: give each node its own id");
            return refuse(false, text);
        }
        // A group that is not rebuilt yet may have the sender as a member.
        if self.is_loading && self.peers.roster().info(from).is_none() {
            return refuse(false, loads(self.identity.node));
        }
        // This check precedes all fatal refusals: the dialled address may once have belonged to a member of the
        // sender's own cluster.
        if let (Some(ours), Some(theirs)) = (ours, hello.cluster)
            && ours.cluster_id != theirs
        {
            return refuse(false, format!("node {from} belongs to another cluster"));
        }
        if self.peers.roster().was_removed(from) {
            return refuse(true, removed(from));
        }
        let info = self.peers.roster().info(from);
        // The sender may have joined while this node was away, if it belongs to a cluster at all. An initial member that
        // missed the birth record may know none of the present members, and must take the record from any of them.
        let is_guest = hello.cluster.is_some() && (ours.is_some() || self.config.join.is_empty());
        if info.is_none() && !is_guest {
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
        if info.is_some_and(|info| info.storage != hello.storage) {
            let text = format!(
                "node {from} is known with another data directory, and never votes with this one: \
                 replace the node under a new id"
            );
            return refuse(true, text);
        }
        // A remembered peer was born when it was seen. So it is not an initial member that merely missed the birth
        // record.
        let seen = self.peers.seen_as(from);
        if hello.cluster.is_none() && seen.is_some() {
            let text = format!(
                "node {from} was a member already, but its data directory is from before the cluster was born: \
                 it is an old copy; replace the node under a new id"
            );
            return refuse(true, text);
        }
        let seen = seen.unwrap_or_default();
        let (start, incarnation) = (seen.start, seen.id);
        if hello.start < start {
            let text = format!(
                "node {from} was seen with start number {}, but now has {}: its data directory is an old copy; \
                 replace the node under a new id",
                start, hello.start
            );
            return refuse(true, text);
        }
        // If this number were believed and logged, the member's true number would look like that of an old copy for
        // ever.
        if hello.start > start.saturating_add(STARTS_AHEAD_MAX) {
            let said = hello.start;
            let text = format!("node {from} claims start number {said}, too far above its last one, {start}");
            return refuse(false, text);
        }
        if hello.incarnations.is_empty() || hello.incarnations.len() > INCARNATIONS_MAX {
            return refuse(
                false,
                format!("node {from} has an invalid incarnation count: {}", hello.incarnations.len()),
            );
        }
        if incarnation.is_some_and(|incarnation| !hello.descends_from(start, incarnation)) {
            let text = format!(
                "node {from} was seen with start number {start}, but in another process: its data directory is an old copy, \
                 or two processes run as this node; replace the node under a new id"
            );
            return refuse(true, text);
        }
        Ok(())
    }
}

pub(super) fn refuse(fatal: bool, text: String) -> Result<(), Refusal> {
    Err(Refusal { fatal, text })
}

/// Returns the refusal text for a node that is no longer a member.
pub(in crate::node) fn removed(node: NodeId) -> String {
    format!(
        "node {node} was removed from the cluster: its data directory is of no use any more, and its id is never used \
         again; start another node under a new id with an empty directory"
    )
}

/// Returns the refusal text of this node, `node`, while it loads its groups: it does not know yet whether the sender of
/// a hello is a member.
pub(super) fn loads(node: NodeId) -> String {
    format!("node {node} is loading its groups: try again")
}

/// Returns the refusal text for a node that is not a member as far as this node knows.
fn stranger(node: NodeId) -> String {
    format!("node {node} is not a member of this cluster")
}
