//! Management of the whole cluster: its birth, nodes that join, leaders, and changes of the members. Moves of leaders
//! and changes of members go group by group, and only the groups hold their state. So an operator can repeat the
//! command after any failure, here or at another node.

mod birth;
mod demand;
mod joining;
mod members;
mod placement;
#[cfg(test)]
mod tests;

use super::Time;
use super::cluster_time::ClusterTime;
use super::engine::Engine;
use super::links::removed;
use super::output::Output;
use super::peers::{Peers, Roster};
use super::ports::EnginePorts;
use super::ticket::Ticket;
use super::wire::{Admission, Hello, LeaderMove, LeaderMoveReply, Refusal};
use crate::config::{NodeConfig, REMOVED_MS};
use crate::identity::{BirthRecord, Identity};
use crate::kv::reply::Reply;
use crate::workers::WorkerId;
use birth::Birth;
use groups::membership::MemberInfo;
use groups::{Effect, Group, GroupId, Ms, NodeId};
use joining::Joining;
use members::MemberChanges;
pub(super) use members::{ChangeReport, ChangeRequest, MemberCount};
use net::event::ConnectionId;
use placement::Placement;

pub(super) use birth::{announce, groups, membership};

/// State of cluster management; see the module.
pub(super) struct Cluster {
    birth: Birth,
    joining: Joining,
    /// Start of the period in which this node is removed from all groups and reaches a majority; see `tick_removed`.
    removed_ms: Option<Ms>,
    changing: MemberChanges,
    placement: Placement,
}

/// Context of a call: the components that cluster management may use, and facts about the node.
pub(super) struct ClusterContext<'a> {
    pub(super) engine: &'a mut Engine,
    pub(super) ports: EnginePorts<'a>,
    pub(super) identity: &'a mut Identity,
    pub(super) config: &'a NodeConfig,
    /// True if the cluster exists and this node has read its log.
    pub(super) is_born: bool,
    pub(super) time: Time,
}

/// Read-only view on which decisions are based.
#[derive(Clone, Copy)]
pub(super) struct DecisionView<'a> {
    pub(super) engine: &'a Engine,
    pub(super) peers: &'a Peers,
    pub(super) me: NodeId,
    pub(super) time: Time,
}

impl ClusterContext<'_> {
    fn view(&self) -> DecisionView<'_> {
        let ClusterContext { engine, ports, identity, time, .. } = self;
        DecisionView { engine, peers: ports.peers, me: identity.node, time: *time }
    }

    /// Returns true if this node was told to join a cluster.
    fn is_joining(&self) -> bool {
        !self.config.join.is_empty()
    }

    fn step(&mut self, group: GroupId, change: impl FnOnce(&mut Group, &mut Vec<Effect>)) {
        self.engine.step(group, &mut self.ports, change);
    }
}

impl Cluster {
    pub(super) fn new(identity: &Identity, config: &NodeConfig) -> Cluster {
        Cluster {
            birth: Birth::new(config, identity),
            joining: Joining::default(),
            removed_ms: None,
            changing: MemberChanges::default(),
            placement: Placement::new(identity.start),
        }
    }

    // Birth, joining and removal.

    /// Checks that the sender of this hello can be a member of this unborn cluster.
    ///
    /// # Errors
    /// The reason why the sender cannot be a member.
    pub(super) fn check_unborn_hello(&self, hello: &Hello) -> Result<(), Refusal> {
        self.birth.check_hello(hello)
    }

    /// Notes the hello of a member of the unborn cluster.
    pub(super) fn on_unborn(&mut self, hello: &Hello) {
        self.birth.on_hello(hello);
    }

    /// Describes the reason why an unborn node waits, as text for clients.
    pub(super) fn waits_for(&self, me: NodeId, config: &NodeConfig, cluster_time: &ClusterTime) -> String {
        if config.join.is_empty() {
            return self.birth.waits_for(cluster_time);
        }
        format!("this node waits to be added: run `paxoi member add {me} --connect {}`", config.join.join(" or "))
    }

    /// Goes on with the birth. A joining node has none.
    pub(super) fn tick_birth(&mut self, cx: &mut ClusterContext<'_>) {
        if !cx.is_joining() && cx.config.workers.is_first() {
            self.birth.tick(cx);
        }
    }

    /// See [`Birth::handle`].
    pub(super) fn handle_birth(&mut self, record: BirthRecord, cx: &mut ClusterContext<'_>) -> Result<(), String> {
        self.birth.handle(record, cx)
    }

    /// See [`Joining::handle_join_request`].
    pub(super) fn handle_join_request(
        &mut self,
        id: ConnectionId,
        hello: &Hello,
        address: &str,
        cx: &mut ClusterContext<'_>,
    ) -> Result<(), Refusal> {
        self.joining.handle_join_request(id, hello, address, cx)
    }

    /// See [`Joining::admit`].
    pub(super) fn admit(&mut self, cx: &mut ClusterContext<'_>) {
        self.joining.admit(cx);
    }

    /// See [`Joining::handle_admission`].
    pub(super) fn handle_admission(&mut self, admission: Admission, cx: &mut ClusterContext<'_>) -> Result<(), String> {
        self.joining.handle_admission(admission, cx)
    }

    /// Returns true while this node asks its contacts to let it join.
    pub(super) fn is_asking_to_join(&self, config: &NodeConfig) -> bool {
        !config.join.is_empty() && !self.joining.is_storing()
    }

    /// Notes that a connection is closed.
    pub(super) fn on_cut(&mut self, connection: ConnectionId) {
        self.joining.on_cut(connection);
    }

    /// Applies the time limits of nodes that wait to join.
    pub(super) fn tick_joining(&mut self, now_ms: Ms) {
        self.joining.tick(now_ms);
    }

    /// Returns the members of the cluster if they have changed. While this node `loads`, some groups are unknown.
    pub(super) fn next_roster(&self, loads: bool, cx: &mut ClusterContext<'_>) -> Option<Roster> {
        if !cx.engine.take_members_changed() {
            return None;
        }
        let me = cx.identity.node;
        let own = Roster::of_all(cx.engine.groups().map(Group::membership));
        if !loads {
            cx.ports.crew.tell_roster(own.as_ref());
        }
        let mut roster = cx.ports.crew.join_rosters(own)?;
        let is_everywhere = cx.engine.groups().all(|group| group.membership().everyone().contains(me));
        if !is_everywhere {
            // Until this node has learned that it joined, its groups do not know the present members.
            roster.add(&cx.identity.joined);
        }
        let groups = cx.identity.birth.as_ref().map_or(0, |birth| birth.groups);
        let peers = &cx.ports.peers;
        if loads || !cx.ports.crew.knows_all_rosters(groups) {
            let linked: Vec<MemberInfo> =
                peers.linked().filter_map(|peer| peers.roster().info(peer.id()).cloned()).collect();
            roster.allow_for_unknown(&linked);
        }
        (roster != *peers.roster()).then_some(roster)
    }

    /// Stops this node if it was removed from all groups and has reached a majority of voters with working disks for
    /// [`REMOVED_MS`]. By then the voters have learned its values. Without a majority, the node goes on until a member
    /// refuses it.
    pub(super) fn tick_removed(&mut self, cx: &mut ClusterContext<'_>) {
        let (me, now_ms) = (cx.identity.node, cx.time.mono_ms());
        let since_ms = *self.removed_ms.get_or_insert(now_ms);
        if !cx.ports.peers.roster().was_removed(me) || !cx.ports.peers.quorum_has_space(now_ms) {
            self.removed_ms = None;
        } else if now_ms >= since_ms + REMOVED_MS {
            cx.ports.outputs.push(Output::Stop(removed(me)));
        }
    }

    // Leaders and members.

    /// Checks `PAXOI LEADER MOVE`.
    ///
    /// # Errors
    /// The reply, if there is no move to wait for.
    pub(super) fn check_move(
        &self,
        words: &[&[u8]],
        view: DecisionView<'_>,
    ) -> Result<(GroupId, NodeId), Reply<'static>> {
        self.placement.check(words, view)
    }

    /// Asks for the move of a group's leadership. The reply comes by the ticket.
    pub(super) fn ask_move(&mut self, wanted: (GroupId, NodeId), ticket: Ticket, deadline_ms: Ms) {
        self.placement.ask(wanted, ticket, deadline_ms);
    }

    /// Takes a member's request to move the leadership of a group from this node to another member.
    pub(super) fn handle_move(&mut self, from: NodeId, wanted: &LeaderMove, cx: &mut ClusterContext<'_>) {
        self.placement.handle_move(from, wanted, cx);
    }

    /// Handles the reply to a move that this node asked for.
    pub(super) fn handle_move_reply(&mut self, reply: &LeaderMoveReply, cx: &mut ClusterContext<'_>) {
        self.placement.handle_move_reply(reply, cx);
    }

    /// Notes that the member `from` lacks values of a group that this node leads, as `from` has said.
    pub(super) fn note_behind(&mut self, group: GroupId, from: NodeId) {
        self.placement.note_behind(group, from);
    }

    /// Returns true if this node is drained: it should lead no group.
    pub(super) fn is_draining(&self) -> bool {
        self.placement.is_draining()
    }

    /// Executes `PAXOI DRAIN` and `PAXOI UNDRAIN`.
    pub(super) fn drain(&mut self, draining: bool) -> Reply<'static> {
        self.placement.drain(draining)
    }

    /// Gives up leadership of all groups if this disk is worse than the others'. Returns true if this node can lead.
    pub(super) fn give_up_if_stuck(&mut self, cx: &mut ClusterContext<'_>) -> bool {
        self.placement.give_up_if_stuck(cx)
    }

    /// Returns the nodes that should lead instead of this one, if it is drained.
    pub(super) fn preferred_leaders(&self, cx: &ClusterContext<'_>) -> Vec<NodeId> {
        self.placement.preferred_leaders(cx.view())
    }

    /// Applies the time limits of moves, and hands groups over: to the members that should lead them, or away from a
    /// drained node.
    pub(super) fn tick_placement(&mut self, cx: &mut ClusterContext<'_>) {
        self.placement.tick(cx);
    }

    /// See [`MemberChanges::command`].
    pub(super) fn member_command(&mut self, words: &[&[u8]], cx: &mut ClusterContext<'_>) -> Reply<'static> {
        self.changing.command(words, &self.joining, cx)
    }

    /// See [`MemberChanges::handle_request`].
    pub(super) fn handle_change(&mut self, request: ChangeRequest, cx: &mut ClusterContext<'_>) {
        self.changing.handle_request(request, cx);
    }

    /// See [`MemberChanges::note_listed`].
    pub(super) fn note_listed(&mut self, now_ms: Ms) {
        self.changing.note_listed(now_ms);
    }

    /// See [`MemberChanges::handle_report`].
    pub(super) fn handle_change_report(&mut self, from: WorkerId, report: ChangeReport) {
        self.changing.handle_report(from, report);
    }

    /// Goes on with a change of the members, and applies its time limits. Called only when all groups are loaded.
    pub(super) fn tick_members(&mut self, cx: &mut ClusterContext<'_>) {
        self.changing.tick(cx);
    }
}
