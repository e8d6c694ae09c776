//! Commands of clients for groups of another worker: this worker passes them on at the end of the turn, and the worker of
//! the group carries them out like those of its own clients. It alone knows whether the group can be asked.

use super::Time;
use super::clients::{Backend, Request, Submission};
use super::core::Core;
use super::crew::{CommandBatch, PassedCommand, PassedKind, ReplyBatch};
use super::engine::{Engine, Ports, Read, RequestContext};
use super::ticket::{ClientTicket, Ticket, WorkerTicket};
use crate::kv::encode::{decode, encode};
use crate::kv::fanout::NOT_SERVED;
use crate::kv::reply::Reply;
use crate::workers::WorkerId;
use bytes::Bytes;
use groups::{GroupId, Ms};

impl Core<'_> {
    /// Passes a command or a linearizable read of a client to the worker of its group.
    pub(super) fn pass(&mut self, submission: &Submission<'_>, client: ClientTicket, time: Time) {
        let Submission { group, verb, command, body, request, .. } = submission;
        let kind = if self.is_upload(command, request.bytes) {
            PassedKind::Upload
        } else if self.is_logged(command) {
            PassedKind::Logged
        } else if command.is_long_read() {
            PassedKind::LongRead
        } else {
            PassedKind::Read
        };
        let passed = PassedCommand {
            group: *group,
            kind,
            writes: command.is_write(),
            verb: *verb,
            ticket: client,
            request_bytes: request.bytes.try_into().unwrap_or(u32::MAX),
            since_us: time.mono_us,
        };
        match body {
            Some(body) => self.ports.crew.pass(passed, |out| out.extend_from_slice(body)),
            None => self.ports.crew.pass(passed, |out| encode(command, out)),
        }
    }

    /// Passes a stale read of a client to the worker of its group.
    pub(super) fn pass_stale(&mut self, group: GroupId, verb: u16, body: &[u8], client: ClientTicket, long: bool) {
        let kind = if long { PassedKind::LongStaleRead } else { PassedKind::StaleRead };
        let since_us = self.ports.now_us;
        let passed = PassedCommand { group, kind, writes: false, verb, ticket: client, request_bytes: 0, since_us };
        self.ports.crew.pass(passed, |out| out.extend_from_slice(body));
    }

    /// Carries out commands that another worker has passed on.
    pub(super) fn take_commands(&mut self, from: WorkerId, batch: CommandBatch, time: Time) {
        batch.take(|passed, body| {
            let ticket = Ticket::Worker(WorkerTicket::new(from, passed.ticket, passed.counted_bytes()));
            let is_in_order = self.ports.crew.take_on(from, self.ports.relays.to());
            if let Some(refusal) = self.passed_refusal(&passed).or((!is_in_order).then_some(NOT_SERVED)) {
                self.ports.stats.rejected(usize::from(passed.verb));
                return self.ports.reply(ticket, refusal);
            }
            let PassedCommand { group, verb, since_us, .. } = passed;
            let context = RequestContext { ticket, verb, since_us };
            let deadline_ms = time.mono_ms() + self.config.client_timeout_ms;
            let is_relayed = self.ports.relays.to().is_some() && !passed.kind.is_stale();
            let long = passed.kind.is_long();
            if is_relayed {
                return self.take_decoded(&passed, &body.shared(), ticket, time);
            }
            match passed.kind {
                PassedKind::Upload => self.take_decoded(&passed, &body.shared(), ticket, time),
                PassedKind::Logged => {
                    self.engine.queue(group, |out| out.extend_from_slice(body.bytes()), context, deadline_ms);
                }
                // A read may wait. It keeps its own bytes, not those of the whole batch.
                PassedKind::Read | PassedKind::LongRead => {
                    let body = Bytes::copy_from_slice(body.bytes());
                    self.engine.read(Read { group, body, ticket, deadline_ms, verb, since_us, long });
                }
                PassedKind::LongStaleRead => {
                    let (body, deadline_ms) = (Bytes::copy_from_slice(body.bytes()), Ms::MAX);
                    self.engine.read_stale(Read { group, body, ticket, deadline_ms, verb, since_us, long });
                }
                PassedKind::StaleRead => {
                    let reply = stale_reply(self.engine, group, body.bytes());
                    self.ports.answer(context, reply);
                }
            }
        });
    }

    /// Carries out a passed command that may be long, or that another member executes.
    fn take_decoded(&mut self, passed: &PassedCommand, body: &Bytes, ticket: Ticket, time: Time) {
        let Ok(command) = decode(body) else { unreachable!("a worker encodes what it can read") };
        let request = Request { words: &[], bytes: passed.request_bytes as usize, buffer: body };
        let (group, verb) = (passed.group, passed.verb);
        self.submit(Submission { group, verb, command: &command, body: Some(body.clone()), request, ticket }, time);
    }

    /// Carries out `PAXOI LEADER MOVE` of a client of another worker.
    pub(super) fn take_move(&mut self, from: WorkerId, words: &[Bytes], client: ClientTicket, time: Time) {
        self.ports.crew.take_on(from, self.ports.relays.to());
        let (words, ticket) =
            (words.iter().map(|word| &word[..]).collect::<Vec<_>>(), WorkerTicket::new(from, client, 0));
        match self.check_move(&words, time) {
            Ok(wanted) => self.ask_move(wanted, Ticket::Worker(ticket), time),
            Err(reply) => self.ports.crew.answer(ticket, reply),
        }
    }

    /// Returns the refusal of a passed command that this worker's group cannot take.
    fn passed_refusal(&self, passed: &PassedCommand) -> Option<Reply<'static>> {
        if !self.engine.has(passed.group) {
            return Some(self.missing_refusal());
        }
        let bytes = passed.request_bytes as usize;
        if passed.kind.is_stale() {
            None
        } else {
            self.ports.refusals(self.engine).of_group(passed.group, passed.writes, bytes)
        }
    }

    /// Takes the replies to commands that this worker has passed on.
    pub(super) fn take_replies(&mut self, from: WorkerId, batch: ReplyBatch) {
        batch.take(|(client, bytes, reply)| {
            self.ports.crew.on_answer(from, bytes);
            self.ports.reply(Ticket::Client(client), reply);
        });
    }
}

/// Answers a short read from this worker's local state.
pub(super) fn stale_reply<'a>(engine: &'a Engine, group: GroupId, body: &[u8]) -> Reply<'a> {
    let store = engine.shard().store(group);
    // At the store's own time, no key that it still holds is due.
    store.read(body, store.time_ms()).unwrap_or(NOT_SERVED)
}
