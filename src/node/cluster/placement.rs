//! Placement of leaders. Groups go to the member whose clients use them (`demand`), or else return to their preferred
//! leaders. They leave a drained node, and go to the member that an operator names. A drained node campaigns only where
//! no other node can lead.
//!
//! An operator may ask any node. The leader of the group carries the move out, or answers why it does not. The node
//! that was asked answers its client once it sees the new leader itself. If another leader appears meanwhile, the node
//! asks that leader.

use super::demand::{Demand, Wish};
use super::{ClusterContext, DecisionView};
use crate::config::{
    HANDOVER_HOLD_MS, HANDOVER_MS, HANDOVERS_MAX, HEALTHY_MS_MIN, MOVES_MAX, NODE_MESSAGE_BYTES_MAX, SYNC_MS_MAX,
};
use crate::kv::reply::Reply;
use crate::node::engine::Ports;
use crate::node::peers::Peer;
use crate::node::ticket::Ticket;
use crate::node::wire::{LeaderMove, LeaderMoveReply, NodeMessage};
use groups::{Ballot, GroupId, Ms, NodeId};
use std::borrow::Cow;

/// Maximum bytes of the reason why a group was not moved. The rest of the message is small.
const REASON_BYTES_MAX: usize = 500;
const _: () = assert!(REASON_BYTES_MAX + 64 < NODE_MESSAGE_BYTES_MAX);

/// Interval at which a leader is asked again for a move: the request or the answer can be lost with a connection.
const ASK_AGAIN_MS: Ms = Ms(1_000);

/// State of placement at this node: its drain, and the moves.
#[derive(Default)]
pub(in crate::node) struct Placement {
    handed_ms: Ms,
    /// True while this node is drained: it should lead no group.
    draining: bool,
    /// True after this node has given up its groups because its disk is worse than the others'.
    resigned: bool,
    number: u64,
    /// Moves that clients of this node wait for.
    requested: Vec<RequestedMove>,
    /// Moves of groups that this node leads.
    moves: Vec<Moving>,
    demand: Demand,
}

/// A move that a client of this node waits for.
struct RequestedMove {
    number: u64,
    group: GroupId,
    to: NodeId,
    ticket: Ticket,
    deadline_ms: Ms,
    /// The leader that was asked last, and the time to ask it again.
    last_asked: Option<(Ballot, Ms)>,
}

/// A move of a group that this node carries out as its leader.
struct Moving {
    group: GroupId,
    to: NodeId,
    /// The node that asked, and its number for the move.
    asker: NodeId,
    number: u64,
    deadline_ms: Ms,
    /// Time of the next invitation to `to`.
    again_ms: Ms,
    /// True if `to` has said that it lacks values of the group.
    behind: bool,
}

/// Bits below the start number in a move's number. One process asks for far fewer than 2^40 moves.
const START_SHIFT: u32 = 40;

impl Placement {
    /// Creates the state. Numbers contain the start number, so an answer to an earlier process matches no move of this
    /// one.
    pub(in crate::node) fn new(start: u64) -> Placement {
        Placement { number: start << START_SHIFT, ..Placement::default() }
    }

    /// Notes that a client waits until `to` leads `group`. The next tick asks the group's leader.
    pub(in crate::node) fn ask(&mut self, (group, to): (GroupId, NodeId), ticket: Ticket, deadline_ms: Ms) {
        self.number += 1;
        self.requested.push(RequestedMove { number: self.number, group, to, ticket, deadline_ms, last_asked: None });
    }

    /// Checks `PAXOI LEADER MOVE group node`. The caller refuses groups that are not loaded.
    ///
    /// # Errors
    /// The reply, if there is no move to wait for.
    pub(in crate::node) fn check(
        &self,
        words: &[&[u8]],
        view: DecisionView<'_>,
    ) -> Result<(GroupId, NodeId), Reply<'static>> {
        let number = |word: &[u8]| std::str::from_utf8(word).ok().and_then(|text| text.parse::<u32>().ok());
        let (Some(group), Some(to), true) =
            (number(words[3]).map(GroupId), number(words[4]).map(NodeId), words[2].eq_ignore_ascii_case(b"move"))
        else {
            return Err(Reply::error("ERR syntax error, say PAXOI LEADER MOVE <group> <node>"));
        };
        if group.index() >= view.engine.group_count() {
            return Err(error(format!("ERR there is no group {group}, only 0 to {}", view.engine.group_count() - 1)));
        }
        if !view.engine.has(group) {
            return Ok((group, to));
        }
        if view.peers.roster().info(to).is_none() {
            return Err(error(format!("ERR node {to} is not a member of this cluster")));
        }
        if self.requested.len() >= MOVES_MAX {
            return Err(error(format!("ERR {MOVES_MAX} moves are under way already")));
        }
        let leader = view.engine.group(group).leader().map(|ballot| ballot.node);
        match leader {
            Some(leader) if leader == to => Err(Reply::Ok),
            // If another node leads, that node decides: its facts about `to` are newer than the facts here.
            Some(leader) if leader == view.me => match view.unfit(group, to) {
                Some(reason) => Err(error(format!("ERR {reason}"))),
                None => Ok((group, to)),
            },
            _ => Ok((group, to)),
        }
    }

    /// Takes a request to move the leadership of a group from this node to another member. The request comes from a
    /// member, or from this node itself.
    pub(in crate::node) fn handle_move(&mut self, from: NodeId, wanted: &LeaderMove, cx: &mut ClusterContext<'_>) {
        let LeaderMove { number, group, to, timeout_ms } = *wanted;
        let is_known = |moving: &Moving| (moving.asker, moving.number) == (from, number);
        if self.moves.iter().any(is_known) {
            return;
        }
        let leads = cx.engine.has(group) && cx.engine.group(group).leads().is_some();
        let refusal = if !leads {
            None
        } else if self.moves.len() >= MOVES_MAX {
            Some(format!("{MOVES_MAX} moves are under way already"))
        } else {
            cx.view().unfit(group, to)
        };
        if !leads || refusal.is_some() || to == cx.identity.node {
            return self.send_move_reply(from, number, refusal, cx);
        }
        let deadline_ms = cx.time.mono_ms() + timeout_ms.min(cx.config.client_timeout_ms);
        let again_ms = cx.time.mono_ms();
        self.moves.push(Moving { group, to, asker: from, number, deadline_ms, again_ms, behind: false });
        self.tick_moves(cx);
    }

    fn send_move_reply(&mut self, to: NodeId, number: u64, refusal: Option<String>, cx: &mut ClusterContext<'_>) {
        let reply = LeaderMoveReply { number, refusal };
        if to == cx.identity.node {
            self.handle_move_reply(&reply, cx);
        } else if let Some(peer) = cx.ports.peers.find(to) {
            peer.send_node_message(&NodeMessage::LeaderMoveReply(reply));
        }
    }

    /// Handles the reply to a move that this node asked for. A refusal goes to the client. A reply without a refusal
    /// means that the asked node does not lead the group, or is itself the node that should lead. The client is then
    /// answered when this node sees the new leader.
    pub(in crate::node) fn handle_move_reply(&mut self, reply: &LeaderMoveReply, cx: &mut ClusterContext<'_>) {
        let Some(reason) = &reply.refusal else { return };
        let requested = &mut self.requested;
        if let Some(index) = requested.iter().position(|requested| requested.number == reply.number) {
            let requested = requested.remove(index);
            let reason: String = reason.chars().filter(|c| !c.is_control()).take(REASON_BYTES_MAX / 4).collect();
            cx.ports.reply(requested.ticket, error(format!("ERR {reason}")));
        }
    }

    /// Notes that the member `from` lacks values of a group that this node leads, as `from` has said.
    pub(in crate::node) fn note_behind(&mut self, group: GroupId, from: NodeId) {
        let moves = self.moves.iter_mut();
        moves.filter(|moving| (moving.group, moving.to) == (group, from)).for_each(|moving| moving.behind = true);
    }

    /// Returns true if this node is drained: it should lead no group.
    pub(in crate::node) fn is_draining(&self) -> bool {
        self.draining
    }

    /// Executes `PAXOI DRAIN` and `PAXOI UNDRAIN`.
    pub(in crate::node) fn drain(&mut self, draining: bool) -> Reply<'static> {
        if self.draining != draining {
            tracing::info!("{}", if draining { "draining: groups go to other nodes" } else { "no longer draining" });
        }
        (self.draining, self.handed_ms) = (draining, Ms(0));
        Reply::Ok
    }

    /// Gives up leadership of all groups if this node's sync is late or its disk is full, and a majority of the others
    /// has better disks. Returns true if this node can lead.
    pub(in crate::node) fn give_up_if_stuck(&mut self, cx: &mut ClusterContext<'_>) -> bool {
        let can_lead = cx.view().can_lead();
        if can_lead {
            self.resigned = false;
        } else if !self.resigned {
            self.resigned = true;
            if cx.engine.is_disk_in_time(cx.time.mono_ms()) {
                tracing::warn!("the disk is full here, but not at the others: giving leadership up");
            } else {
                tracing::warn!("a sync of the log takes too long (more than {SYNC_MS_MAX} ms): giving leadership up");
            }
            let clock = cx.time.clock();
            cx.engine.step_all(&mut cx.ports, |group, effects| group.resign(clock, effects));
        }
        can_lead
    }

    /// If this node is drained: returns the other voters that can lead. They take precedence in the groups in which
    /// they vote.
    pub(in crate::node) fn preferred_leaders(&self, view: DecisionView<'_>) -> Vec<NodeId> {
        if !self.draining {
            return Vec::new();
        }
        let others = view.peers.voters().ids().iter().copied().filter(|id| *id != view.me);
        others.filter(|id| view.unfit_reason(*id).is_none()).collect()
    }

    /// Goes on with moves, answers waiting clients, and hands groups over.
    pub(in crate::node) fn tick(&mut self, cx: &mut ClusterContext<'_>) {
        self.tick_moves(cx);
        self.tick_requested(cx);
        if let Some(requests_min) = cx.config.demand_min {
            let groups = self.demand.look(cx.view(), requests_min);
            cx.engine.clear_readers(groups);
        }
        if cx.time.mono_ms() < self.handed_ms + HANDOVER_MS {
            return;
        }
        self.handed_ms = cx.time.mono_ms();
        let misplaced = if self.draining { cx.view().given_away() } else { self.misplaced(cx) };
        for (group, to) in misplaced {
            tracing::debug!("group {group} should be led by node {to}: handing it over");
            cx.invite(group, to, false);
        }
    }

    /// Returns the groups that this node leads and another member should lead: the group's home, or else its preferred
    /// leader. Only members that have been healthy for [`HEALTHY_MS_MIN`] count, and no group that an operator moves.
    fn misplaced(&mut self, cx: &ClusterContext<'_>) -> Vec<(GroupId, NodeId)> {
        let (view, me, demand, moves) = (cx.view(), cx.identity.node, &mut self.demand, &self.moves);
        let (follows, healthy) = (cx.config.demand_min.is_some(), view.healthy());
        let mut misplaced = Vec::new();
        for group in view.engine.groups().filter(|group| group.leads().is_some() && !group.is_to_stay()) {
            let (id, voters) = (group.id(), group.membership().voters());
            let can_lead = |to: NodeId| healthy.contains(&to) && voters.contains(to);
            let wish = if follows { demand.wish(id, me, can_lead) } else { Wish::GiveBack };
            let to = match wish {
                Wish::Keep => continue,
                Wish::Follow(home) => home,
                Wish::GiveBack => group.preferred(),
            };
            if to == me || !can_lead(to) || moves.iter().any(|moving| moving.group == id) {
                continue;
            }
            if wish == Wish::Follow(to) {
                demand.on_handed(id);
            }
            misplaced.push((id, to));
            if misplaced.len() >= HANDOVERS_MAX {
                break;
            }
        }
        misplaced
    }

    fn tick_moves(&mut self, cx: &mut ClusterContext<'_>) {
        for mut moving in std::mem::take(&mut self.moves) {
            let refusal = if cx.engine.group(moving.group).leads().is_none() {
                None
            } else if let Some(reason) = cx.view().unfit(moving.group, moving.to) {
                Some(reason)
            } else if cx.time.mono_ms() >= moving.deadline_ms {
                let reason = if moving.behind { "lags in that group" } else { "does not answer" };
                Some(format!("node {} did not take group {} over in time: it {reason}", moving.to, moving.group))
            } else {
                if cx.time.mono_ms() >= moving.again_ms {
                    (moving.again_ms, moving.behind) = (cx.time.mono_ms() + HANDOVER_MS, false);
                    cx.invite(moving.group, moving.to, true);
                }
                self.moves.push(moving);
                continue;
            };
            self.send_move_reply(moving.asker, moving.number, refusal, cx);
        }
    }

    /// Answers the clients whose move is done or too late, and asks the present leader for each other move.
    fn tick_requested(&mut self, cx: &mut ClusterContext<'_>) {
        let now_ms = cx.time.mono_ms();
        let mut requests = Vec::new();
        for mut requested in std::mem::take(&mut self.requested) {
            let leader = cx.engine.group(requested.group).leader();
            if leader.is_some_and(|ballot| ballot.node == requested.to) {
                cx.ports.reply(requested.ticket, Reply::Ok);
                continue;
            }
            if now_ms >= requested.deadline_ms {
                cx.ports.reply(requested.ticket, too_late(&requested, leader));
                continue;
            }
            let last_asked = requested.last_asked;
            let is_asked = |ballot| last_asked.is_some_and(|(asked, again_ms)| asked == ballot && now_ms < again_ms);
            if let Some(ballot) = leader.filter(|ballot| !is_asked(*ballot)) {
                requested.last_asked = Some((ballot, now_ms + ASK_AGAIN_MS));
                let left_ms = requested.deadline_ms - now_ms;
                // The leader gets 90 % of the time left, so that its refusal comes before the deadline.
                let timeout_ms = left_ms - left_ms / 10;
                let RequestedMove { number, group, to, .. } = requested;
                requests.push((ballot.node, LeaderMove { number, group, to, timeout_ms }));
            }
            self.requested.push(requested);
        }
        for (leader, request) in requests {
            if leader == cx.identity.node {
                self.handle_move(leader, &request, cx);
            } else if let Some(peer) = cx.ports.peers.find(leader) {
                peer.send_node_message(&NodeMessage::LeaderMove(request));
            }
        }
    }
}

impl DecisionView<'_> {
    /// Returns true if this node can lead. It cannot if its disk is late or full while a majority of the others has
    /// better disks. If all disks are slow, the cluster goes on slowly.
    fn can_lead(&self) -> bool {
        let now_ms = self.time.mono_ms();
        let is_late = !self.engine.is_disk_in_time(now_ms) && self.peers.quorum_is_quick(now_ms);
        let is_full = self.engine.space().full && self.peers.quorum_has_space(now_ms);
        !is_late && !is_full
    }

    /// Returns the reason why a member cannot take over a group.
    fn unfit(&self, group: GroupId, to: NodeId) -> Option<String> {
        if !self.engine.group(group).membership().voters().contains(to) {
            return Some(format!("node {to} does not vote in group {group}"));
        }
        if to == self.me {
            return None;
        }
        self.unfit_reason(to)
    }

    /// Returns the reason why another member cannot lead any group.
    fn unfit_reason(&self, to: NodeId) -> Option<String> {
        let Some(peer) = self.peers.get(to) else {
            return Some(format!("node {to} is not a member of this cluster"));
        };
        let reason = if !peer.is_reached(self.time.mono_ms()) {
            "cannot be reached"
        } else if peer.is_draining() {
            "is being drained"
        } else if peer.is_loading() {
            "is loading its groups"
        } else if peer.is_full() {
            "has no space on its disk"
        } else if !peer.has_disk() {
            "has a disk that does not answer"
        } else {
            return None;
        };
        Some(format!("node {to} {reason}"))
    }

    /// Returns the other members that have been healthy for [`HEALTHY_MS_MIN`].
    fn healthy(&self) -> Vec<NodeId> {
        let is_healthy = |peer: &&Peer| {
            let since_ms = peer.healthy_since_ms();
            since_ms.is_some_and(|since_ms| self.time.mono_ms() >= since_ms + HEALTHY_MS_MIN)
                && !(peer.is_draining() || peer.is_loading())
        };
        self.peers.iter().filter(is_healthy).map(|peer| peer.id()).collect()
    }

    /// Deals the groups that this node leads to the members that can take them over, at most [`HANDOVERS_MAX`] per
    /// call.
    fn given_away(&self) -> Vec<(GroupId, NodeId)> {
        let others = self.peers.ids();
        let fit: Vec<NodeId> = others.filter(|id| self.unfit_reason(*id).is_none()).collect();
        let led = self.engine.groups().filter(|group| group.leads().is_some()).take(HANDOVERS_MAX);
        let dealt = led.enumerate().filter_map(|(turn, group)| {
            let voters: Vec<NodeId> =
                fit.iter().copied().filter(|id| group.membership().voters().contains(*id)).collect();
            Some((group.id(), *voters.get(turn % voters.len().max(1))?))
        });
        dealt.collect()
    }
}

impl ClusterContext<'_> {
    /// Invites a member to take over a group. The lease of the group ends when the invitation is sent.
    fn invite(&mut self, group: GroupId, to: NodeId, stay: bool) {
        let Some(rtt_us) = self.ports.peers.find(to).map(|peer| peer.rtt_us()) else { return };
        let clock = self.time.clock();
        let hold_ms = HANDOVER_HOLD_MS + (rtt_us * 2).to_ms();
        self.step(group, |group, _| group.begin_leader_transfer(to, stay, hold_ms, clock));
    }
}

fn too_late(requested: &RequestedMove, leader: Option<Ballot>) -> Reply<'static> {
    let RequestedMove { group, to, .. } = requested;
    match leader {
        None => error(format!("CLUSTERDOWN group {group} has no leader")),
        Some(_) => error(format!("ERR node {to} did not take group {group} over in time")),
    }
}

fn error(text: String) -> Reply<'static> {
    Reply::Error(Cow::Owned(text))
}
