//! Applies the effects of the groups: queues log records, holds messages at the gate, and completes waiting commands
//! and reads. Messages and replies leave through the ports, to the other members and the clients.

use super::admission::complete;
use super::commands::Commands;
use super::log_queue::LogQueue;
use super::reads::PendingReads;
use super::uploads::OutgoingUploads;
use super::{Changes, Ports, RequestContext};
use crate::gate::GatedMessage;
use crate::kv::fanout::{NOT_SERVED, UNCERTAIN};
use crate::kv::reply::Reply;
use crate::kv::{Discarded, Store};
use crate::node::ticket::Ticket;
use crate::shard::EffectSink;
use crate::storage::wal::{self, Lsn};
use groups::reads::ReadId;
use groups::{Ballot, Clock, Counter, GroupId, Instance, Message, NodeId, Us, Value, WorkBudget};
use std::collections::VecDeque;

/// Interval, in values, of samples for the mean batch size: counting the commands of every value would cost too much.
const BATCH_SAMPLE: u64 = 8;

/// See the module.
pub(super) struct Effects<'a, P> {
    pub(super) log: &'a mut LogQueue,
    pub(super) commands: &'a mut Commands,
    pub(super) reads: &'a mut PendingReads,
    pub(super) uploads: &'a mut OutgoingUploads,
    pub(super) released: &'a mut VecDeque<GatedMessage>,
    pub(super) changes: &'a mut Changes,
    pub(super) work: &'a mut WorkBudget,
    pub(super) me: NodeId,
    pub(super) ports: &'a mut P,
}

impl<P: Ports> Effects<'_, P> {
    /// Sends a message now. A message of this node to itself is handled in the same turn.
    pub(super) fn send_now(&mut self, gated: GatedMessage) {
        if gated.to == self.me {
            self.released.push_back(gated);
        } else {
            self.ports.send(gated.group, gated.to, &gated.message);
        }
    }

    fn answer(&mut self, ticket: Ticket, verb: u16, since_us: Us, reply: Reply<'_>) {
        if matches!(ticket, Ticket::Upload { .. }) {
            return complete(self.uploads, self.ports, ticket, reply);
        }
        self.ports.answer(RequestContext { ticket, verb, since_us }, reply);
    }
}

impl<P: Ports> EffectSink for Effects<'_, P> {
    fn persist(&mut self, record: wal::Record) -> Lsn {
        self.log.persist(record)
    }

    fn may_propose(&self, bytes: usize) -> bool {
        self.log.takes_value(bytes) && !self.log.holds_proposals(self.ports.now_us())
    }

    fn allows(&self, group: GroupId, to: NodeId, promised: Ballot, clock: Clock) -> bool {
        self.ports.allows(group, to, promised, clock)
    }

    fn send(&mut self, group: GroupId, to: NodeId, message: &Message) {
        if matches!(message, Message::Handover(_)) {
            // The lease ends before the invitation leaves: otherwise the other members could not follow the invitation.
            self.ports.release_lease(group);
        }
        self.ports.send(group, to, message);
    }

    fn send_durable(&mut self, lsn: Lsn, group: GroupId, to: NodeId, message: Message) {
        if let Some(gated) = self.log.hold(lsn, GatedMessage { group, to, message }) {
            self.send_now(gated);
        }
    }

    fn applied(&mut self, group: GroupId, counter: Counter, reply: Reply<'_>) {
        let Some(command) = self.commands.take_applied(group, counter) else { return };
        match command.ticket {
            Some(ticket) => self.answer(ticket, command.verb, command.since_us, reply),
            None => {
                let took_us = self.ports.now_us().saturating_sub(command.since_us);
                self.ports.stats().called(usize::from(command.verb), took_us, matches!(reply, Reply::Error(_)));
            }
        }
    }

    fn skipped(&mut self, group: GroupId, counter: Counter) {
        self.applied(group, counter, UNCERTAIN);
    }

    fn read_lost(&mut self, id: ReadId) {
        if let Some(read) = self.reads.remove(id) {
            self.ports.answer_read(&read, NOT_SERVED);
        }
    }

    fn read(&mut self, id: ReadId, store: &Store) {
        let Some(read) = self.reads.take_evaluated(id) else { return };
        // The value that is being applied has a later time than the read's arrival. At that time, no key that the store
        // still holds is due.
        let reply = store.read(&read.body, store.time_ms()).unwrap_or(NOT_SERVED);
        self.ports.answer_read(&read, reply);
    }

    fn read_log(&mut self, range: wal::ReadRange) {
        self.ports.read_log(range);
    }

    fn leading(&mut self, _group: GroupId, _leads: bool) {
        self.changes.leadership = true;
    }

    fn members_changed(&mut self, group: GroupId, next: Instance) {
        self.changes.members_lsn = Some(self.log.gathered_lsn());
        self.changes.membership_since[group.index()] = next;
        // A lease holds for the members that granted it: with other members, this node claims its groups anew.
        self.changes.leadership = true;
    }

    fn chosen(&mut self, _group: GroupId, value: &Value) {
        self.changes.chosen_total += 1;
        if self.changes.chosen_total.is_multiple_of(BATCH_SAMPLE) {
            let commands = value.commands().count() as u64;
            self.ports.stats().batches.record(commands, value.bytes().len() as u64);
        }
    }

    fn work(&mut self) -> &mut WorkBudget {
        self.work
    }

    fn discard(&mut self, discarded: Discarded) {
        self.ports.discard(discarded);
    }
}
