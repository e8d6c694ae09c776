//! Which commands are taken on, and what becomes of those that wait in vain. A node that reaches no majority of a group's
//! voters says so at once instead of letting each command run into its time limit, and so does one whose own commands are
//! stuck.
//!
//! What clients are told stays true. A command that was not queued was surely not executed, and neither was one that
//! never left this node; one that did keeps its time limit, within which the majority may come back, and is uncertain
//! then.

use super::uploads::Uploads;
use super::{Engine, Ports, UPLOADING};
use crate::config::{BEHIND_INSTANCES_MAX, GROUP_QUEUE_BYTES, LARGE_INPUT_BYTES, NODE_QUEUE_BYTES};
use crate::kv::fanout::{NOT_SERVED, UNCERTAIN};
use crate::kv::reply::Reply;
use crate::node::ticket::Ticket;
use groups::{GroupId, NodeId};
use std::borrow::Cow;

/// Whom this node reaches, as far as its commands depend on it.
#[derive(Default)]
pub(super) struct Reach {
    /// Members that are reached, or were a moment ago.
    hopeful: Vec<NodeId>,
    /// Some member is not.
    is_partial: bool,
    /// The oldest command of some group has outlived its time limit: it left this node, and is not applied.
    is_stuck: bool,
}

/// The reply to what cannot be served for want of a majority, and surely was not.
const NOT_REACHED: Reply<'static> = Reply::Error(Cow::Borrowed(
    "CLUSTERDOWN Hash slot not served: this node reaches no majority of its cluster's nodes",
));
const STUCK: Reply<'static> =
    Reply::Error(Cow::Borrowed("CLUSTERDOWN Hash slot not served: too many commands wait that get no answer"));

impl Engine {
    /// These of `peers` members are reached, or were a moment ago. What waits for a majority that is gone, and never left
    /// this node, is answered.
    pub(in crate::node) fn set_hopeful(&mut self, hopeful: Vec<NodeId>, peers: usize, ports: &mut impl Ports) {
        let is_partial = hopeful.len() < peers;
        let is_stuck = self.shard.queued_bytes() > 0 && self.commands.groups().any(|group| self.is_stuck(group));
        self.reach = Reach { hopeful, is_partial, is_stuck };
        if !is_partial {
            return;
        }
        let cut_off: Vec<GroupId> = self.commands.groups().filter(|group| self.is_cut_off(*group)).collect();
        if cut_off.is_empty() {
            return;
        }
        for group in &cut_off {
            let (commands, shard) = (&mut self.commands, &mut self.shard);
            let withdraw = |counters: &mut Vec<u64>| shard.withdraw(*group, counters);
            let uploads = &mut self.uploads;
            commands.take_unsent(*group, withdraw, |ticket| settle(uploads, ports, ticket, NOT_REACHED));
        }
        self.refuse_reads(|read| cut_off.binary_search(&read.group).is_ok(), &NOT_REACHED, ports);
    }

    /// Another member carries the commands of this node's clients out, or no longer.
    pub(in crate::node) fn set_passing_on(&mut self, is_passing_on: bool) {
        self.is_passing_on = is_passing_on;
    }

    /// Commands and reads whose time is up get the error that says what is known of their fate.
    pub(in crate::node) fn expire(&mut self, now_ms: u64, ports: &mut impl Ports) {
        // A command waits here as long as it is queued in its group.
        if self.shard.queued_bytes() > 0 {
            for group in self.commands.groups() {
                let (commands, shard) = (&mut self.commands, &mut self.shard);
                let withdraw = |counters: &mut Vec<u64>| shard.withdraw(group, counters);
                let uploads = &mut self.uploads;
                commands.expire(group, now_ms, withdraw, |ticket, is_gone| {
                    settle(uploads, ports, ticket, if is_gone { NOT_SERVED } else { UNCERTAIN });
                });
            }
        }
        self.refuse_reads(|read| read.deadline_ms <= now_ms, &NOT_SERVED, ports);
    }

    /// Whether this node has reached no majority of the group's voters for some time.
    pub(in crate::node) fn is_cut_off(&self, group: GroupId) -> bool {
        let reach = &self.reach;
        reach.is_partial && self.find(group).is_some_and(|group| !group.is_quorum(self.me, &reach.hopeful))
    }

    /// Whether the oldest command of a client in the group has outlived its time limit.
    fn is_stuck(&self, group: GroupId) -> bool {
        self.commands.is_stuck(group)
    }

    /// Why a command cannot be tried in this group now. `bytes`: of its request.
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

    /// Whether the group lacks more than [`BEHIND_INSTANCES_MAX`] values: clients are told to wait.
    pub(in crate::node) fn is_far_behind(&self, group: GroupId) -> bool {
        self.group(group).missing() > BEHIND_INSTANCES_MAX
    }

    /// Bytes of queued commands for which a request of `bytes` has to wait: small ones do not wait for large ones.
    fn queued_before(&self, bytes: usize) -> usize {
        let queued = self.shard.queued_bytes();
        if bytes >= LARGE_INPUT_BYTES {
            return queued + self.uploads.unsent_bytes();
        }
        queued.saturating_sub(self.commands.large_bytes())
    }

    /// The same in one group.
    fn queued_before_in(&self, group: GroupId, bytes: usize) -> usize {
        let queued = self.group(group).queued_bytes();
        if bytes >= LARGE_INPUT_BYTES {
            return queued + self.uploads.unsent_bytes_in(group);
        }
        queued.saturating_sub(self.commands.large_bytes_in(group))
    }

    /// Whether clients that write, and have sent `bytes`, wait until less than `queue_bytes` are queued. If what is queued
    /// gets no answer they are told instead.
    pub(in crate::node) fn holds_writers(&self, bytes: usize, queue_bytes: usize) -> bool {
        self.queued_before(bytes) >= queue_bytes && !self.reach.is_stuck && !self.is_passing_on
    }

    /// Whether a command, whose request has `bytes`, has to wait because too much is queued in its group.
    pub(in crate::node) fn holds_command(&self, group: GroupId, writes: bool, bytes: usize) -> bool {
        writes && !self.is_passing_on && self.queued_before_in(group, bytes) >= GROUP_QUEUE_BYTES
    }

    /// Whether a client that has waited for room in a group, with `held` bytes, is served again: there is some, or it will
    /// be told why not.
    pub(in crate::node) fn serves_again(&self, group: GroupId, held: usize) -> bool {
        let has_room = self.queued_before_in(group, held) < GROUP_QUEUE_BYTES / 2;
        has_room || self.is_cut_off(group) || self.is_stuck(group) || self.is_passing_on
    }
}

/// Answers a client, or tells an upload what became of its part.
pub(super) fn settle(uploads: &mut Uploads, ports: &mut impl Ports, ticket: Ticket, reply: Reply<'_>) {
    if ticket.connection == UPLOADING {
        return uploads.on_part(ticket, &reply, ports.now_us() / 1_000);
    }
    ports.reply(ticket, reply);
}
