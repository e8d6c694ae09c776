//! What of the log other members have durably, for WAIT and WAITAOF.
//!
//! A member counts in a group if it is certain to have all that this node has applied there, which includes the client's
//! writes, because they are answered. That is so of the members that say it: they are asked how far they are, and answer
//! when their log is durable up to there ([`NodeMessage::WhereDurable`], [`NodeMessage::Durable`]). And it is so of a
//! majority before anybody is asked: those that voted for the last value, each of which had all before it; which ones
//! they are is not known here.

use super::peers::Peers;
use super::wire::{NodeMessage, Positions};
use groups::{Group, GroupId, Instance, NodeId};
use std::collections::BTreeMap;

/// What was said of durable logs, and what is to be said of this node's.
#[derive(Default)]
pub(super) struct Durability {
    /// By member and group, what it has said to have, durably: all below this instance.
    known: BTreeMap<NodeId, Vec<Instance>>,
    /// Answers that wait until this node's log is durable up to there; one for each member.
    owed: Vec<(u64, NodeId, Positions)>,
}

impl Durability {
    /// Asks all members how far their logs have these groups.
    pub(super) fn ask(&mut self, groups: Vec<GroupId>, peers: &mut Peers) {
        self.known.retain(|node, _| peers.iter().any(|peer| peer.id() == *node));
        peers.tell_all(&NodeMessage::WhereDurable(groups));
    }

    /// A member asked for `positions`, which are durable with `lsn`. One question of each is kept; it is asked again anyway.
    pub(super) fn owe(&mut self, from: NodeId, lsn: u64, positions: Positions) {
        if !self.owed.iter().any(|(_, to, _)| *to == from) {
            self.owed.push((lsn, from, positions));
        }
    }

    /// This node's log is durable up to `lsn`: those who asked for as much are told.
    pub(super) fn tell(&mut self, lsn: u64, peers: &mut Peers) {
        for (_, to, positions) in self.owed.extract_if(.., |(owed_lsn, ..)| *owed_lsn <= lsn) {
            if let Some(peer) = peers.find(to) {
                peer.tell(&NodeMessage::Durable(positions));
            }
        }
    }

    /// What a member said, of `groups` groups in all.
    pub(super) fn on_told(&mut self, from: NodeId, positions: &Positions, groups: usize) {
        let known = self.known.entry(from).or_default();
        known.resize(groups, Instance(0));
        for (group, next) in positions.next.iter().filter(|(group, _)| group.index() < groups) {
            known[group.index()] = known[group.index()].max(*next);
        }
    }

    /// How many of the group's members other than `me` have all below `next`, which is applied here. Its present members
    /// decide since `governs_from`. If commands are `passed_on`, what they did may not have come here.
    pub(super) fn holders(
        &self,
        group: &Group,
        next: Instance,
        me: NodeId,
        governs_from: Instance,
        passed_on: bool,
    ) -> usize {
        let membership = group.membership();
        // A majority of the members that there are now has voted once one value was chosen among them.
        let voted = membership.voters().quorum() - usize::from(membership.voters().contains(me));
        let certain = if group.next() > governs_from { voted } else { 0 };
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
