//! Whether clients can be served at all: a node that reaches no majority of a group's voters says so at once instead of
//! letting each command run into its time limit, and so does one whose own commands are stuck.
//!
//! What clients are told stays true. A command that was not queued was surely not executed, and neither was one that
//! never left this node; one that did keeps its time limit, within which the majority may come back, and is uncertain
//! then.

use super::{Node, Time};
use crate::config::{GROUP_QUEUE_BYTES, LARGE_INPUT_BYTES, NODE_QUEUE_BYTES};
use crate::kv::command::Command;
use crate::kv::reply::Reply;
use groups::{GroupId, NodeId};
use std::borrow::Cow;

/// A node to which no member was connected for so long says so, and again after so long.
const ALONE_MS: u64 = 10_000;
const ALONE_AGAIN_MS: u64 = 60_000;

/// What a node knows of whom it reaches.
#[derive(Default)]
pub(super) struct Reach {
    /// Members that are reached, or were a moment ago.
    hopeful: Vec<NodeId>,
    /// Some member is not.
    is_partial: bool,
    /// The oldest command of some group has outlived its time limit: it left this node, and is not applied.
    is_stuck: bool,
    /// When to say next that no member answers.
    alone_ms: u64,
}

impl Reach {
    /// Time limits run from here.
    pub(super) fn begin(&mut self, now_ms: u64) {
        self.alone_ms = now_ms + ALONE_MS;
    }
}

/// The reply to what cannot be served for want of a majority, and surely was not.
const NOT_REACHED: Reply<'static> = Reply::Error(Cow::Borrowed(
    "CLUSTERDOWN Hash slot not served: this node reaches no majority of its cluster's nodes",
));
const STUCK: Reply<'static> =
    Reply::Error(Cow::Borrowed("CLUSTERDOWN Hash slot not served: too many commands wait that get no answer"));

impl Node {
    /// A node that no member answers says so: it may have been removed while it was down, and nobody it knew may be left.
    pub(super) fn tell_if_alone(&mut self, time: Time) {
        let (now_ms, peers) = (time.mono_ms(), &self.io.peers);
        if peers.all.is_empty() || peers.linked().next().is_some() || !self.is_born() {
            self.reach.alone_ms = now_ms + ALONE_MS;
        } else if now_ms >= self.reach.alone_ms {
            self.reach.alone_ms = now_ms + ALONE_AGAIN_MS;
            let others: Vec<String> =
                peers.all.iter().map(|peer| format!("node {} at {}", peer.id, peer.address)).collect();
            tracing::warn!(
                "no other member answers: {}. If they run, correct their addresses with --initial-cluster. If all of them \
                 were replaced, ask a node that serves (paxoi member list) whether this one was removed: then its data \
                 directory is of no use any more",
                others.join(", ")
            );
        }
    }

    /// Looks at whom this node reaches. What waits for a majority that is gone, and never left this node, is answered.
    pub(super) fn tick_reach(&mut self, time: Time) {
        self.reach.hopeful = self.io.peers.hopeful(time.mono_ms());
        self.reach.is_partial = self.reach.hopeful.len() < self.io.peers.all.len();
        let groups = (0..self.io.commands.len() as u32).map(GroupId);
        self.reach.is_stuck = self.shard.queued_bytes() > 0 && groups.clone().any(|group| self.is_stuck(group));
        if !self.reach.is_partial {
            return;
        }
        let cut_off: Vec<GroupId> = groups.filter(|group| self.is_cut_off(*group)).collect();
        if cut_off.is_empty() {
            return;
        }
        cut_off.iter().for_each(|group| self.answer_unsent(*group));
        let reads = self.io.questions.reads.iter();
        let vain: Vec<usize> =
            reads.filter(|(_, read)| cut_off.binary_search(&read.group).is_ok()).map(|(id, _)| id).collect();
        for id in vain {
            let read = self.io.questions.give_up(id);
            self.shard.cancel_read(read.group, id as u64);
            self.io.settle_read(&read, NOT_REACHED);
        }
    }

    /// Whether this node has reached no majority of the group's voters for some time.
    pub(super) fn is_cut_off(&self, group: GroupId) -> bool {
        self.reach.is_partial
            && self.shard.has(group)
            && !self.shard.group(group).is_quorum(self.identity.node, &self.reach.hopeful)
    }

    /// Why a command cannot be tried in this group now.
    pub(super) fn reach_refusal(&self, group: GroupId, command: &Command<'_>) -> Option<Reply<'static>> {
        if self.is_cut_off(group) {
            return Some(NOT_REACHED);
        }
        if !command.is_write() || self.io.relays.to().is_some() {
            return None;
        }
        let is_full = self.queued_before(self.request_bytes) >= NODE_QUEUE_BYTES && self.reach.is_stuck;
        (is_full || (self.holds_command(group, command) && self.is_stuck(group))).then_some(STUCK)
    }

    /// Bytes of queued commands for which a request of `bytes` has to wait: small ones do not wait for large ones.
    fn queued_before(&self, bytes: usize) -> usize {
        let queued = self.shard.queued_bytes();
        if bytes >= LARGE_INPUT_BYTES {
            return queued + self.io.uploads.unsent_bytes();
        }
        queued.saturating_sub(self.io.large.all())
    }

    /// The same in one group.
    pub(super) fn queued_before_in(&self, group: GroupId, bytes: usize) -> usize {
        let queued = self.shard.group(group).queued_bytes();
        if bytes >= LARGE_INPUT_BYTES {
            return queued + self.io.uploads.unsent_bytes_in(group);
        }
        queued.saturating_sub(self.io.large.of(group))
    }

    /// Whether clients that write, and have sent `bytes`, wait for others' commands. If those get no answer they are told
    /// instead.
    pub(super) fn holds_writers(&self, bytes: usize, queue_bytes: usize) -> bool {
        self.queued_before(bytes) >= queue_bytes && !self.reach.is_stuck && self.io.relays.to().is_none()
    }

    /// Whether a command has to wait because too much is queued in its group.
    pub(super) fn holds_command(&self, group: GroupId, command: &Command<'_>) -> bool {
        command.is_write()
            && self.io.relays.to().is_none()
            && self.queued_before_in(group, self.request_bytes) >= GROUP_QUEUE_BYTES
    }

    /// Whether the oldest command of a client in the group has outlived its time limit.
    pub(super) fn is_stuck(&self, group: GroupId) -> bool {
        let oldest = self.io.commands[group.index()].iter().find(|waiting| waiting.deadline_ms > 0);
        oldest.is_some_and(|waiting| waiting.ticket.is_none())
    }

    /// Answers the commands that never left this node.
    fn answer_unsent(&mut self, group: GroupId) {
        let queue = &mut self.io.commands[group.index()];
        let mut counters: Vec<u64> =
            queue.iter().filter(|waiting| waiting.ticket.is_some()).map(|waiting| waiting.counter).collect();
        if counters.is_empty() {
            return;
        }
        self.shard.withdraw(group, &mut counters);
        let (mut withdrawn, mut tickets) = (counters.into_iter().peekable(), Vec::new());
        let large = &mut self.io.large;
        self.io.commands[group.index()].retain(|waiting| {
            let is_gone = withdrawn.next_if_eq(&waiting.counter).is_some();
            large.remove(group, if is_gone { waiting.large_bytes } else { 0 });
            tickets.extend(waiting.ticket.filter(|_| is_gone));
            !is_gone
        });
        tickets.into_iter().for_each(|ticket| self.io.settle(ticket, NOT_REACHED));
    }
}
