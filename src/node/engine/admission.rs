//! The admission of commands, and the answers to commands that wait in vain. A node that reaches no majority of a
//! group's voters refuses commands at once, instead of letting each run into its time limit. So does a node whose own
//! commands are stuck, once its queue is full.
//!
//! The answers to clients are always true. A command that was not queued, or that never left this node, was surely not
//! executed. A command that left the node keeps its time limit, within which the majority may come back. After the
//! limit its fate is uncertain.

use super::uploads::OutgoingUploads;
use super::{Engine, Ports};
use crate::config::{BEHIND_INSTANCES_MAX, GROUP_QUEUE_BYTES, LARGE_INPUT_BYTES, NODE_QUEUE_BYTES};
use crate::kv::fanout::{NOT_SERVED, UNCERTAIN};
use crate::kv::reply::Reply;
use crate::node::ticket::Ticket;
use groups::{Counter, GroupId, Ms, NodeId};
use std::borrow::Cow;

/// The members that this node reaches, as far as its commands depend on them.
#[derive(Default)]
pub(super) struct Reach {
    /// Members that are reached, or were within the last `REACH_GRACE_MS`.
    recently_reached: Vec<NodeId>,
    /// Some member is not in `recently_reached`.
    is_partial: bool,
    /// In some group the oldest command has outlived its time limit: the command left this node, and is not applied.
    is_stuck: bool,
}

/// The reply to a command or read that cannot be served without a majority, and surely was not executed.
const NOT_REACHED: Reply<'static> = Reply::Error(Cow::Borrowed(
    "CLUSTERDOWN Hash slot not served: this node reaches no majority of its cluster's nodes",
));
const STUCK: Reply<'static> =
    Reply::Error(Cow::Borrowed("CLUSTERDOWN Hash slot not served: too many commands wait without an answer"));

impl Engine {
    /// Sets the members that are reached, or were within the last `REACH_GRACE_MS`. `peers` is the number of all other
    /// members. In groups without a majority, answers the reads, and the commands that never left this node.
    pub(in crate::node) fn set_recently_reached(
        &mut self,
        recently_reached: Vec<NodeId>,
        peers: usize,
        ports: &mut impl Ports,
    ) {
        let is_partial = recently_reached.len() < peers;
        let is_stuck = self.shard.queued_bytes() > 0 && self.commands.groups().any(|group| self.is_stuck(group));
        self.reach = Reach { recently_reached, is_partial, is_stuck };
        if !is_partial {
            return;
        }
        let cut_off: Vec<GroupId> = self.commands.groups().filter(|group| self.is_cut_off(*group)).collect();
        if cut_off.is_empty() {
            return;
        }
        for group in &cut_off {
            let (commands, shard) = (&mut self.commands, &mut self.shard);
            let withdraw = |counters: &mut Vec<Counter>| shard.withdraw(*group, counters);
            let uploads = &mut self.uploads;
            commands.take_unsent(*group, withdraw, |ticket| complete(uploads, ports, ticket, NOT_REACHED));
        }
        self.refuse_reads(|read| cut_off.binary_search(&read.group).is_ok(), &NOT_REACHED, ports);
    }

    /// Sets whether another member executes the commands of this node's clients.
    pub(in crate::node) fn set_passing_on(&mut self, is_passing_on: bool) {
        self.is_passing_on = is_passing_on;
    }

    /// Answers commands and reads past their deadlines with the error that states their fate: not executed, or
    /// uncertain.
    pub(in crate::node) fn expire(&mut self, now_ms: Ms, ports: &mut impl Ports) {
        // Every command in `commands` is also queued in its group: without queued bytes none can expire.
        if self.shard.queued_bytes() > 0 {
            for group in self.commands.groups() {
                let (commands, shard) = (&mut self.commands, &mut self.shard);
                let withdraw = |counters: &mut Vec<Counter>| shard.withdraw(group, counters);
                let uploads = &mut self.uploads;
                commands.expire(group, now_ms, withdraw, |ticket, is_gone| {
                    complete(uploads, ports, ticket, if is_gone { NOT_SERVED } else { UNCERTAIN });
                });
            }
        }
        self.refuse_reads(|read| read.deadline_ms <= now_ms, &NOT_SERVED, ports);
    }

    /// Returns true if this node has reached no majority of the group's voters for `REACH_GRACE_MS`.
    pub(in crate::node) fn is_cut_off(&self, group: GroupId) -> bool {
        let reach = &self.reach;
        reach.is_partial && self.find(group).is_some_and(|group| !group.is_quorum(self.me, &reach.recently_reached))
    }

    /// Returns true if the oldest command of a client in the group has outlived its time limit.
    fn is_stuck(&self, group: GroupId) -> bool {
        self.commands.is_stuck(group)
    }

    /// Returns the refusal if a command, whose request has `bytes`, cannot be tried in this group now.
    pub(in crate::node) fn reach_refusal(&self, group: GroupId, writes: bool, bytes: usize) -> Option<Reply<'static>> {
        if self.is_cut_off(group) {
            return Some(NOT_REACHED);
        }
        if !writes || self.is_passing_on {
            return None;
        }
        let is_full = self.reach.is_stuck && self.queued_before(bytes) >= NODE_QUEUE_BYTES;
        (is_full || (self.holds_command(group, writes, bytes) && self.is_stuck(group))).then_some(STUCK)
    }

    /// Returns true if the group lacks more than [`BEHIND_INSTANCES_MAX`] values: clients are told to wait.
    pub(in crate::node) fn is_far_behind(&self, group: GroupId) -> bool {
        self.group(group).missing() > BEHIND_INSTANCES_MAX
    }

    /// Returns the queued bytes that a request of `bytes` waits for. Small requests do not wait for large commands.
    fn queued_before(&self, bytes: usize) -> usize {
        let queued = self.shard.queued_bytes();
        if bytes >= LARGE_INPUT_BYTES {
            return queued + self.uploads.unsent_bytes();
        }
        queued.saturating_sub(self.commands.large_bytes())
    }

    /// Returns the same as [`Engine::queued_before`], for one group.
    fn queued_before_in(&self, group: GroupId, bytes: usize) -> usize {
        let queued = self.group(group).queued_bytes();
        if bytes >= LARGE_INPUT_BYTES {
            return queued + self.uploads.unsent_bytes_in(group);
        }
        queued.saturating_sub(self.commands.large_bytes_in(group))
    }

    /// Returns true if clients that write, and have sent `bytes`, wait until less than `queue_bytes` are queued. If the
    /// queued commands get no answer, the clients are refused instead.
    pub(in crate::node) fn holds_writers(&self, bytes: usize, queue_bytes: usize) -> bool {
        self.queued_before(bytes) >= queue_bytes && !self.reach.is_stuck && !self.is_passing_on
    }

    /// Returns true if a command, whose request has `bytes`, has to wait because too much is queued in its group.
    pub(in crate::node) fn holds_command(&self, group: GroupId, writes: bool, bytes: usize) -> bool {
        writes && !self.is_passing_on && self.queued_before_in(group, bytes) >= GROUP_QUEUE_BYTES
    }

    /// Returns true if a client that has waited for room in a group, with `held` bytes, is served again: there is room,
    /// another member executes the command, or the client will get a refusal.
    pub(in crate::node) fn serves_again(&self, group: GroupId, held: usize) -> bool {
        let has_room = self.queued_before_in(group, held) < GROUP_QUEUE_BYTES / 2;
        has_room || self.is_cut_off(group) || self.is_stuck(group) || self.is_passing_on
    }
}

/// Answers a client, or gives an upload the reply to its part.
pub(super) fn complete(uploads: &mut OutgoingUploads, ports: &mut impl Ports, ticket: Ticket, reply: Reply<'_>) {
    match ticket {
        Ticket::Upload { number, bytes } => uploads.on_part(number, bytes as usize, &reply, ports.now_us().to_ms()),
        ticket => ports.reply(ticket, reply),
    }
}
