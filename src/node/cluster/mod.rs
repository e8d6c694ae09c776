//! Affairs of the whole cluster: who leads which group, and changes of the members. Each is carried out group by group; the
//! groups are the truth, so that an operator can ask again, here or elsewhere, after whatever went wrong.

mod members;
mod placement;

use super::Time;
use super::engine::Engine;
use super::joining::Joining;
use super::peers::Peers;
use super::ticket::Ticket;
use super::wire::{Move, Moved};
use super::wires::Wires;
use crate::kv::reply::Reply;
use groups::{Effect, Group, GroupId, NodeId};
use members::Changing;
use placement::Placement;

/// See the module.
pub(super) struct Cluster {
    changing: Changing,
    placement: Placement,
}

/// What the cluster's affairs may touch in a call, and what they must know of the node.
pub(super) struct Cx<'a> {
    pub(super) engine: &'a mut Engine,
    pub(super) wires: Wires<'a>,
    pub(super) joining: &'a Joining,
    pub(super) me: NodeId,
    pub(super) client_timeout_ms: u64,
    pub(super) time: Time,
}

/// What they look at before they decide.
#[derive(Clone, Copy)]
pub(super) struct Sight<'a> {
    pub(super) engine: &'a Engine,
    pub(super) peers: &'a Peers,
    pub(super) joining: &'a Joining,
    pub(super) me: NodeId,
    pub(super) time: Time,
}

impl Cx<'_> {
    fn sight(&self) -> Sight<'_> {
        let Cx { engine, wires, joining, me, time, .. } = self;
        Sight { engine, peers: wires.peers, joining, me: *me, time: *time }
    }

    fn step(&mut self, group: GroupId, change: impl FnOnce(&mut Group, &mut Vec<Effect>)) {
        self.engine.step(group, &mut self.wires, change);
    }
}

impl Cluster {
    /// `start`: how often this node was started.
    pub(super) fn new(start: u64) -> Cluster {
        Cluster { changing: Changing::default(), placement: Placement::new(start) }
    }

    /// Checks `PAXOI LEADER MOVE`.
    ///
    /// # Errors
    /// The reply, if there is nothing to wait for.
    pub(super) fn check_move(&self, words: &[&[u8]], sight: Sight<'_>) -> Result<(GroupId, NodeId), Reply<'static>> {
        self.placement.check(words, sight)
    }

    /// Moves a group; the reply comes by the ticket.
    pub(super) fn ask_move(&mut self, wanted: (GroupId, NodeId), ticket: Ticket, deadline_ms: u64) {
        self.placement.ask(wanted, ticket, deadline_ms);
    }

    /// A member wants a group that this node leads to be led by another.
    pub(super) fn handle_move(&mut self, from: NodeId, wanted: &Move, cx: &mut Cx<'_>) {
        self.placement.handle_move(from, wanted, cx);
    }

    /// What became of a move that this node asked for.
    pub(super) fn handle_moved(&mut self, moved: &Moved, cx: &mut Cx<'_>) {
        self.placement.handle_moved(moved, cx);
    }

    /// A member told the leader that it lacks something of a group.
    pub(super) fn note_behind(&mut self, group: GroupId, from: NodeId) {
        self.placement.note_behind(group, from);
    }

    /// Returns true if this node is to lead nothing.
    pub(super) fn is_draining(&self) -> bool {
        self.placement.is_draining()
    }

    /// `PAXOI DRAIN` and `PAXOI UNDRAIN`.
    pub(super) fn drain(&mut self, draining: bool) -> Reply<'static> {
        self.placement.drain(draining)
    }

    /// Gives all groups up if the disk is worse than the others'. Returns true if this node can lead.
    pub(super) fn give_up_if_stuck(&mut self, cx: &mut Cx<'_>) -> bool {
        self.placement.give_up_if_stuck(cx)
    }

    /// Who should lead rather than this node, if it is drained.
    pub(super) fn rather_leading(&self, cx: &Cx<'_>) -> Vec<NodeId> {
        self.placement.rather_leading(cx.sight())
    }

    /// Time limits of moves, and what is to be given back or drained.
    pub(super) fn tick_placement(&mut self, cx: &mut Cx<'_>) {
        self.placement.tick(cx);
    }

    /// See [`Changing::command`].
    pub(super) fn member_command(&mut self, words: &[&[u8]], cx: &mut Cx<'_>) -> Reply<'static> {
        self.changing.command(words, cx)
    }

    /// Time limits of changes of the members: called when all groups are loaded.
    pub(super) fn tick_members(&mut self, cx: &mut Cx<'_>) {
        self.changing.tick(cx);
    }
}
