//! Handles the reports of other members about the groups: the groups that they lead, their positions, and the groups
//! that they have rebuilt. [`Engine::is_plausible`] checks each such message first.

use super::{Engine, Ports};
use crate::node::Time;
use crate::node::wire::{GroupsReady, NodeMessage, Positions};
use groups::{Ballot, Clock, Group, GroupId, Instance, LeadershipAnswer, Ms, NodeId};

impl Engine {
    /// Returns true if the ballots and instances in a member's message are plausible; see [`Group::is_plausible`].
    pub(in crate::node) fn is_plausible(&self, message: &NodeMessage) -> bool {
        let ballot = |group: &GroupId, ballot| self.find(*group).is_none_or(|group| group.is_plausible_ballot(ballot));
        let instance = |group: &GroupId, at| self.find(*group).is_none_or(|group| group.is_plausible_instance(at));
        match message {
            NodeMessage::Claims(claims) => claims.led.iter().all(|(group, leads)| ballot(group, *leads)),
            NodeMessage::Positions(positions) | NodeMessage::Durable(positions) => {
                positions.next.iter().all(|(group, next)| instance(group, *next))
            }
            NodeMessage::LeadershipAnswers(answers) => answers.items.iter().all(|(group, _, answer)| match answer {
                LeadershipAnswer::Leads(at) => instance(group, *at),
                LeadershipAnswer::Refused(promised) => ballot(group, *promised),
                LeadershipAnswer::Holds => true,
            }),
            NodeMessage::Offer(offer) => instance(&offer.group, offer.instance),
            _ => true,
        }
    }

    /// Returns the `next` of each group that has chosen a value.
    pub(in crate::node) fn positions(&self) -> Positions {
        let started = self.groups().filter(|group| group.next() > Instance::FIRST);
        Positions { next: started.map(|group| (group.id(), group.next())).collect() }
    }

    /// Handles the positions of a member. A group that lags behind the member's position fetches the missing values.
    pub(in crate::node) fn note_positions(
        &mut self,
        from: NodeId,
        positions: &Positions,
        ports: &mut impl Ports,
        clock: Clock,
    ) {
        for (group, next) in &positions.next {
            if self.has(*group) {
                self.step(*group, ports, |group, effects| group.note_ahead(from, *next, clock, effects));
            }
        }
    }

    /// Returns the message to members while this node loads. It names `groups` as rebuilt, and lists all groups that
    /// this node still lacks.
    pub(in crate::node) fn groups_ready(&self, groups: &[GroupId]) -> GroupsReady {
        let missing = self.owned().iter().copied().filter(|group| !self.has(*group));
        GroupsReady { groups: groups.to_vec(), missing: missing.collect() }
    }

    /// Repeats to a member the messages of these groups that may have been lost, because the connection is new or the
    /// groups have just been rebuilt.
    pub(in crate::node) fn connect(&mut self, peer: NodeId, groups: &[GroupId], ports: &mut impl Ports) {
        for group in groups {
            if self.has(*group) {
                self.step(*group, ports, |group, effects| group.on_connected(peer, effects));
            }
        }
    }

    /// [`Engine::connect`] for all groups.
    pub(in crate::node) fn connect_all(&mut self, peer: NodeId, ports: &mut impl Ports) {
        self.step_all(ports, |group, effects| group.on_connected(peer, effects));
    }

    /// Handles the claims of a member: `from` leads exactly the groups in `claimed`, which are in the order of their
    /// ids, and reaches the members in `reached`.
    pub(in crate::node) fn apply_claims(
        &mut self,
        from: NodeId,
        claimed: &[(GroupId, Ballot)],
        reached: &[NodeId],
        ports: &mut impl Ports,
        clock: Clock,
    ) {
        let mut claimed = claimed.iter().peekable();
        self.step_all(ports, |group, effects| {
            while claimed.next_if(|(id, _)| *id < group.id()).is_some() {}
            match claimed.next_if(|(id, _)| *id == group.id()) {
                Some((_, ballot))
                    if ballot.node == from && group.is_quorum(from, reached) && group.is_plausible_ballot(*ballot) =>
                {
                    group.on_claim(*ballot, clock, effects);
                }
                _ => group.on_no_claim(from, clock),
            }
        });
    }

    /// Returns true if a claim counts for a group that has no leader here. The group ignored the claim if it was
    /// campaigning when the claim came. It may have lost that election since.
    pub(in crate::node) fn has_unapplied_claims(
        &self,
        from: NodeId,
        claimed: &[(GroupId, Ballot)],
        reached: &[NodeId],
    ) -> bool {
        let is_unapplied = |group: &Group| group.leader().is_none() && group.is_quorum(from, reached);
        claimed.iter().any(|(group, _)| self.find(*group).is_some_and(is_unapplied))
    }

    /// Forgets the reports that `from` made on its connection. If the connection `is_cut`, the waiting messages of
    /// `from` are dropped too.
    pub(in crate::node) fn forget_link(&mut self, from: NodeId, is_cut: bool, ports: &mut impl Ports, time: Time) {
        if is_cut {
            self.shard.forget_waiting(from);
        }
        self.step_all(ports, |group, _| {
            group.on_no_claim(from, time.clock());
            group.on_disconnected(from);
            group.ask_again();
        });
    }

    /// Sets the version of values that all members can read. From version 2 on, values that this node proposes carry
    /// the digest of the group's state.
    pub(in crate::node) fn set_value_version(&mut self, version: u8, ports: &mut impl Ports) {
        self.step_all(ports, |group, _| group.tell_digest(version >= 2));
    }

    /// Returns the latest time of any group, in unix milliseconds.
    pub(in crate::node) fn latest_ms(&self) -> Ms {
        self.groups().map(Group::time_ms).max().unwrap_or(Ms(0))
    }

    /// Returns the largest lead of a group's time over `cluster_ms`, in milliseconds.
    pub(in crate::node) fn lead_ms(&self, clock: Clock, cluster_ms: Ms) -> Ms {
        let lead = |group: &Group| group.time_at(clock, cluster_ms).saturating_sub(cluster_ms);
        self.groups().map(lead).max().unwrap_or(Ms(0))
    }
}
