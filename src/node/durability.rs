//! Tracks how much of the log other members have durably, for WAIT and WAITAOF.
//!
//! A member counts in a group if it certainly has all that this node has applied there. This includes the client's
//! writes, because they are answered. Two kinds of members are certain:
//! - Members that say so. This node asks them for their positions ([`NodeMessage::DurablePositionQuery`]). A member
//!   answers once its log is durable up to its position ([`NodeMessage::Durable`]).
//! - A majority, even if no member was asked: the members that voted for the last value. Each of them had all values
//!   before that one. This node does not know which members they are.

use super::peers::Peers;
use super::wire::{NodeMessage, Positions};
use crate::storage::wal::Lsn;
use groups::{Group, GroupId, Instance, NodeId};
use std::collections::BTreeMap;

/// The durable positions of other members, and the answers that this node owes them.
#[derive(Default)]
pub(super) struct Durability {
    /// By member and group: the member has durably all instances below this one, as it has said.
    known: BTreeMap<NodeId, Vec<Instance>>,
    /// Answers that wait until this node's log is durable up to their lsn. At most one for each member.
    owed: Vec<(Lsn, NodeId, Positions)>,
}

impl Durability {
    /// Asks all members up to which instances their logs are durable in these groups.
    pub(super) fn query(&mut self, groups: Vec<GroupId>, peers: &mut Peers) {
        self.known.retain(|node, _| peers.iter().any(|peer| peer.id() == *node));
        peers.broadcast(&NodeMessage::DurablePositionQuery(groups));
    }

    /// Keeps the answer to a member: `positions`, to be sent when the log is durable up to `lsn`. While one answer
    /// waits, further queries of that member are dropped: it asks again anyway.
    pub(super) fn owe(&mut self, from: NodeId, lsn: Lsn, positions: Positions) {
        if !self.owed.iter().any(|(_, to, _)| *to == from) {
            self.owed.push((lsn, from, positions));
        }
    }

    /// Sends the answers that are due when this node's log is durable up to `lsn`.
    pub(super) fn send_due(&mut self, lsn: Lsn, peers: &mut Peers) {
        for (_, to, positions) in self.owed.extract_if(.., |(owed_lsn, ..)| *owed_lsn <= lsn) {
            if let Some(peer) = peers.find(to) {
                peer.send_node_message(&NodeMessage::Durable(positions));
            }
        }
    }

    /// Notes the durable positions that a member has sent. `groups` is the number of groups of the cluster.
    pub(super) fn on_positions(&mut self, from: NodeId, positions: &Positions, groups: usize) {
        let known = self.known.entry(from).or_default();
        known.resize(groups, Instance(0));
        for (group, next) in positions.next.iter().filter(|(group, _)| group.index() < groups) {
            known[group.index()] = known[group.index()].max(*next);
        }
    }

    /// Counts the group's members other than `me` that certainly have all instances below `next`, which this node
    /// has applied. The group has its present members since instance `membership_since`. With `passed_on`, another
    /// member carries out the commands of this node's clients, and their effects may not have come here: then only the
    /// certain majority counts.
    pub(super) fn count_durable_members(
        &self,
        group: &Group,
        next: Instance,
        me: NodeId,
        membership_since: Instance,
        passed_on: bool,
    ) -> usize {
        let membership = group.membership();
        // Once the present members have chosen one value, a majority of them has voted.
        let voted = membership.voters().quorum() - usize::from(membership.voters().contains(me));
        let certain = if group.next() > membership_since { voted } else { 0 };
        if passed_on {
            return certain;
        }
        let has = |node: &NodeId| {
            let known = self.known.get(node).and_then(|known| known.get(group.id().index()));
            *node != me && known.is_some_and(|known| *known >= next)
        };
        membership.everyone().ids().iter().filter(|node| has(node)).count().max(certain)
    }
}
