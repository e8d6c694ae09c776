//! The clients of this node: their connections, requests in order, transactions, and replies in the order of the
//! requests. They reach the rest of the node through [`Backend`] alone.
//!
//! ```text
//! client        the state of one connection        requests      dispatch of a request by its command
//! replies       replies in order                   routing       commands to one group, or in parts to several
//! pause         CLIENT PAUSE                       transactions  MULTI, EXEC and the requests between them
//! waits         WAIT and WAITAOF                   own           commands about the connection itself
//! whole         commands about the whole node        messages      between the clients' parts of several workers
//! backend       the interface of the clients to the rest of the node
//! ```

mod backend;
mod client;
mod messages;
mod own;
mod pause;
mod replies;
mod requests;
mod routing;
#[cfg(test)]
mod tests;
mod transactions;
mod waits;
mod whole;

pub(super) use backend::{Backend, Request, Submission};
pub(super) use messages::ClientsMessage;
pub(super) use routing::encoded;

use super::connection_table::ConnectionTable;
use super::ticket::ClientTicket;
use super::{Close, Output, Time};
use crate::admin::info::ClientsView;
use crate::config::{ARGS_MAX, LARGE_INPUT_BYTES, NODE_QUEUE_BYTES, NodeConfig, READS_MAX, REPLIES_MAX};
use crate::kv::fanout::NOT_SERVED;
use crate::kv::reply::Reply;
use bytes::{Buf, Bytes, BytesMut};
use client::{BlockReason, Client, RequestOutcome};
use groups::{Ms, SplitMix64, Us, WorkBudget};
use net::event::ConnectionId;
use net::outbound::Outbound;
use net::resp::request::{RequestError, RequestLimits, RequestParser};
use pause::Pause;
use std::net::SocketAddr;
use waits::Waits;
use whole::WholeNode;

/// Maximum bytes of memory that a client's empty output may keep.
const IDLE_OUTPUT_BYTES: usize = 64 << 10;
/// Interval between searches for idle clients.
const IDLE_LOOK_MS: Ms = Ms(1_000);

/// All clients.
pub(super) struct Clients {
    table: ConnectionTable<Box<Client>>,
    /// Clients with output to be sent.
    dirty: Vec<ConnectionId>,
    /// Clients that are paused or ending. They are checked after each turn.
    watched: Vec<ConnectionId>,
    /// The client whose requests are being carried out; it is out of the table meanwhile.
    served: Option<ConnectionId>,
    limits: RequestLimits,
    listen: SocketAddr,
    /// Number of clients since the start. It gives each client its CLIENT ID.
    seen: u64,
    count: u64,
    pause: Pause,
    waits: Waits,
    whole: WholeNode,
    /// Replies to a client wait for others that come from other workers.
    gathers: bool,
    /// Steps of work that may still be taken from clients in this turn.
    intake: WorkBudget,
    /// Random numbers, for RANDOMKEY and for the group that issues a session.
    draw: SplitMix64,
    idle_looked_ms: Ms,
}

impl Clients {
    pub(super) fn new(config: &NodeConfig) -> Clients {
        let limits = RequestLimits {
            inline_bytes_max: 64 << 10,
            args_max: ARGS_MAX,
            arg_bytes_max: config.value_bytes_max,
            request_bytes_max: config.request_bytes_max(),
        };
        Clients {
            table: ConnectionTable::default(),
            dirty: Vec::new(),
            watched: Vec::new(),
            served: None,
            limits,
            listen: config.listen,
            seen: 0,
            count: 0,
            pause: Pause::default(),
            waits: Waits::default(),
            whole: WholeNode::default(),
            gathers: config.workers.count() > 1,
            intake: WorkBudget::steps(config.turn_steps),
            draw: SplitMix64::new(config.seed ^ 0x5DEE_CE66_D1CE_4E5B),
            idle_looked_ms: Ms(0),
        }
    }

    /// Admits a connection that has turned out to be a client's. `refusal`: the reason to close it at once.
    pub(super) fn admit(
        &mut self,
        id: ConnectionId,
        addr: SocketAddr,
        refusal: Option<&'static str>,
        node: &mut impl Backend,
        time: Time,
    ) {
        let is_one_too_many = self.count + node.clients_elsewhere() >= node.config().max_clients;
        self.count += 1;
        self.seen += 1;
        let parser = RequestParser::new(self.limits);
        // Each worker has CLIENT IDs of its own.
        let workers = node.workers();
        let number = (self.seen - 1) * u64::from(workers.count()) + u64::from(workers.me().0) + 1;
        let mut client = Client::new(id, number, addr, self.listen, parser, time.mono_ms());
        if is_one_too_many {
            node.stats().connections_rejected += 1;
        }
        if let Some(reason) = is_one_too_many.then_some("ERR max number of clients reached").or(refusal) {
            client.answer_counted(&Reply::error(reason), node);
            self.dismiss(&mut client, Close::AfterFlush, node);
        }
        self.put_back(Box::new(client));
    }

    /// Returns the number of clients.
    #[cfg(test)]
    pub(super) fn len(&self) -> u64 {
        self.count
    }

    pub(super) fn has(&self, id: ConnectionId) -> bool {
        self.table.has(id)
    }

    /// Serves the requests that the client has sent in `input`, and removes the served ones from the front of `input`.
    /// `unsent`: bytes of the client's replies that the event loop has not written.
    pub(super) fn input(
        &mut self,
        id: ConnectionId,
        input: &mut BytesMut,
        unsent: usize,
        node: &mut impl Backend,
        time: Time,
    ) {
        let Some(mut client) = self.table.remove(id) else { return };
        self.served = Some(id);
        let new_bytes = client.begin_input(input.len(), unsent, time.mono_ms());
        node.stats().net_input_bytes += new_bytes as u64;
        if client.leaving {
            input.clear();
        } else if !client.paused {
            self.serve(&mut client, input, node, time);
        }
        client.held = input.len();
        self.put_back(client);
        self.served = None;
    }

    fn put_back(&mut self, mut client: Box<Client>) {
        let id = client.connection;
        if !client.dirty && !client.out.is_empty() {
            client.dirty = true;
            self.dirty.push(id);
        }
        self.table.insert(id, client);
    }

    fn serve(&mut self, client: &mut Client, input: &mut BytesMut, node: &mut impl Backend, time: Time) {
        let Some(mut parser) = client.parser.take() else { return };
        let mut at = client.refused_bytes.min(input.len());
        client.refused_bytes -= at;
        client.writes |= input.len() >= LARGE_INPUT_BYTES;
        while !client.leaving && at < input.len() {
            let is_full = client.awaits_group() || is_full(client, input.len() - at, node);
            let is_late = is_full && client.late_bytes > 0;
            if client.must_pause() || self.intake.is_spent() || (is_full && !is_late) {
                client.paused = true;
                client.waits_since_ms.get_or_insert(time.mono_ms());
                node.output(Output::Pause(client.connection));
                self.watch(client.connection);
                break;
            }
            match parser.poll(&input[at..]) {
                Ok(None) if is_late => {
                    self.refuse_midst(client, &mut parser, node);
                    at = input.len();
                }
                Ok(None) => break,
                Ok(Some(length)) if is_late => {
                    let words: Vec<&[u8]> = parser.args(&input[at..at + length]).collect();
                    if !words.is_empty() {
                        client.refuse(&words, &NOT_SERVED, node);
                    }
                    client.late_bytes = client.late_bytes.saturating_sub(length);
                    client.blocked = None;
                    at += length;
                }
                Ok(Some(length)) => {
                    let is_large = node.takes_upload(length) && input.len() - at - length <= LARGE_INPUT_BYTES;
                    let outcome = if is_large {
                        self.large_request(client, &parser, input, (at, length), node, time)
                    } else {
                        self.request(client, &parser, (&input[at..at + length], &Bytes::new()), node, time)
                    };
                    match outcome {
                        RequestOutcome::Again(reason) => client.blocked = Some(reason),
                        RequestOutcome::Taken => {
                            client.late_bytes = client.late_bytes.saturating_sub(length);
                            at = if is_large { 0 } else { at + length };
                            client.waits_since_ms = client.waits_since_ms.filter(|_| !is_large);
                        }
                    }
                }
                Err(RequestError::Http) => {
                    tracing::warn!("an HTTP request came from {}: closing, as Redis does", client.info.addr);
                    self.dismiss(client, Close::Now, node);
                }
                Err(error) => {
                    client.answer(&Reply::Error(format!("ERR {error}").into()));
                    self.dismiss(client, Close::AfterFlush, node);
                }
            }
        }
        client.parser = Some(parser);
        client.waits_since_ms = client.waits_since_ms.filter(|_| client.paused && at == 0);
        let is_all = client.leaving || at == input.len();
        if is_all && at > LARGE_INPUT_BYTES {
            *input = BytesMut::new();
        } else if is_all {
            input.clear();
        } else {
            input.advance(at);
        }
    }

    /// Carries out the request of `length` bytes at `at`. Its buffer becomes shareable, because an upload keeps a part
    /// of it. If the request is taken, `input` holds only what follows it.
    fn large_request(
        &mut self,
        client: &mut Client,
        parser: &RequestParser,
        input: &mut BytesMut,
        (at, length): (usize, usize),
        node: &mut impl Backend,
        time: Time,
    ) -> RequestOutcome {
        let rest = BytesMut::from(&input[at + length..]);
        input.truncate(at + length);
        let buffer = std::mem::take(input).freeze();
        let outcome = self.request(client, parser, (&buffer[at..], &buffer), node, time);
        if outcome == RequestOutcome::Taken {
            *input = rest;
            return outcome;
        }
        // A request that will be read again shares no part of the buffer, so the buffer is taken back without a copy.
        *input = buffer.try_into_mut().unwrap_or_else(|buffer| BytesMut::from(&buffer[..]));
        input.unsplit(rest);
        outcome
    }

    /// Refuses a request of which only a part has arrived, and skips the rest of it.
    fn refuse_midst(&mut self, client: &mut Client, parser: &mut RequestParser, node: &mut impl Backend) {
        client.late_bytes = 0;
        client.fail_transaction();
        client.answer_counted(&NOT_SERVED, node);
        match parser.ends_after() {
            Some(bytes) => client.refused_bytes = bytes,
            // The end of the request is not known.
            None => self.dismiss(client, Close::AfterFlush, node),
        }
        *parser = RequestParser::new(self.limits);
    }

    /// Gives a client the reply that it waits for. If the client is gone, the reply is dropped.
    pub(super) fn complete(&mut self, ticket: ClientTicket, reply: Reply<'_>) {
        assert!(self.served != Some(ticket.connection), "a reply to the client that is being served would be lost");
        let Some(client) = self.table.find(ticket.connection) else { return };
        client.complete(ticket, reply);
        if !client.dirty && !client.out.is_empty() {
            client.dirty = true;
            self.dirty.push(ticket.connection);
        }
    }

    /// Notes that the client sends no more.
    pub(super) fn ended(&mut self, id: ConnectionId) {
        if let Some(client) = self.table.find(id) {
            client.ended = true;
            self.watch(id);
        }
    }

    /// Notes that all output of the client was written.
    pub(super) fn drained(&mut self, id: ConnectionId) {
        if let Some(client) = self.table.find(id) {
            (client.unsent, client.queued) = (0, 0);
        }
    }

    /// Removes the client of a connection that is closed.
    pub(super) fn closed(&mut self, id: ConnectionId) {
        self.count -= u64::from(self.table.remove(id).is_some());
    }

    /// Calls `visit` with each connection that has output, and with that output. `visit` takes the output, and returns
    /// the number of bytes that wait for the client then.
    pub(super) fn take_replies(&mut self, now_us: Us, mut visit: impl FnMut(ConnectionId, &mut Outbound) -> usize) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for id in dirty.drain(..) {
            let Some(client) = self.table.find(id) else { continue };
            if self.gathers && client.gathers(now_us) {
                self.dirty.push(id);
                continue;
            }
            client.dirty = false;
            client.queued = visit(id, &mut client.out);
            if client.out.is_empty() && client.out.keeps_more_than(IDLE_OUTPUT_BYTES) {
                client.out = Outbound::new();
            }
        }
        if self.dirty.is_empty() {
            self.dirty = dirty;
        }
    }

    /// Returns true if replies wait for others to the same client.
    pub(super) fn gathers_replies(&self) -> bool {
        self.gathers && !self.dirty.is_empty()
    }

    /// Answers the waits and the commands about the whole node that have what they need.
    pub(super) fn step(&mut self, node: &mut impl Backend, time: Time) {
        self.step_waits(node, time);
        self.step_whole(node, time);
    }

    /// Applies time limits: closes idle clients, and serves or refuses requests that have waited unread for too long.
    pub(super) fn tick(&mut self, node: &mut impl Backend, now_ms: Ms) {
        node.share_load(self.count, now_ms);
        self.wake_late(node, now_ms);
        self.close_idle(node, now_ms);
    }

    /// Resumes clients whose requests have waited unread for as long as the client timeout. The requests are then
    /// carried out, or refused.
    fn wake_late(&mut self, node: &mut impl Backend, now_ms: Ms) {
        let limit_ms = node.config().client_timeout_ms;
        for id in self.watched.clone() {
            let Some(client) = self.table.find(id) else { continue };
            let late_ms = client.waits_since_ms.unwrap_or(now_ms) + limit_ms;
            if client.paused && !client.leaving && now_ms >= late_ms && !client.must_pause() {
                (client.paused, client.resumed, client.late_bytes) = (false, true, client.held);
                node.output(Output::Resume(id));
            }
        }
    }

    /// Closes idle clients: no request for `idle_ms_max` (CONFIG SET timeout), and no reply outstanding.
    fn close_idle(&mut self, node: &mut impl Backend, now_ms: Ms) {
        let limit_ms = node.config().idle_ms_max;
        if limit_ms == Ms(0) || now_ms < self.idle_looked_ms + IDLE_LOOK_MS {
            return;
        }
        self.idle_looked_ms = now_ms;
        for client in self.table.values_mut() {
            if client.is_idle(now_ms, limit_ms) {
                (client.leaving, client.ended) = (true, true);
                node.output(Output::Close(client.connection, Close::AfterFlush));
            }
        }
    }

    /// Begins a turn, in which `steps` of work may be taken from clients.
    pub(super) fn begin_turn(&mut self, steps: u64) {
        self.intake = WorkBudget::steps(steps);
    }

    /// Resumes paused clients if there is room for their requests now. Closes ending clients that have all their
    /// replies.
    pub(super) fn resume(&mut self, node: &mut impl Backend, now_ms: Ms) {
        if self.watched.is_empty() {
            return;
        }
        let (mut watched, is_paused) = (std::mem::take(&mut self.watched), self.pause.is_on(now_ms));
        let reads_too_much = node.reads() > READS_MAX / 2;
        watched.retain(|id| {
            let Some(client) = self.table.find(*id) else { return false };
            let is_blocked = match client.blocked {
                Some(BlockReason::Pause) => is_paused,
                Some(BlockReason::Replies) => !client.replies.is_empty(),
                Some(BlockReason::Group(group, bytes)) => !node.takes_again(group, bytes),
                None => false,
            };
            if !is_blocked {
                (client.blocked, client.info.blocked) = (None, false);
            }
            // Clients resume at half of the limit, so that they are not paused and resumed for every request.
            let is_full = client.writes && node.holds_writers(client.held, NODE_QUEUE_BYTES / 2);
            let waits = client.must_pause() || client.awaits_group() || is_full || reads_too_much;
            if client.paused && client.replies.len() <= REPLIES_MAX / 2 && !waits {
                (client.paused, client.resumed) = (false, true);
                node.output(Output::Resume(*id));
                return client.ended;
            }
            if client.ended && !client.paused && !client.resumed && client.replies.is_empty() {
                node.output(Output::Close(*id, Close::AfterFlush));
                client.leaving = true;
                return false;
            }
            client.paused || client.ended
        });
        self.watched.append(&mut watched);
    }

    /// Closes a client: at once, or when it has its replies.
    fn dismiss(&mut self, client: &mut Client, close: Close, node: &mut impl Backend) {
        (client.leaving, client.ended) = (true, true);
        match close {
            Close::Now => node.output(Output::Close(client.connection, Close::Now)),
            Close::AfterFlush => self.watch(client.connection),
        }
    }

    fn watch(&mut self, id: ConnectionId) {
        if !self.watched.contains(&id) {
            self.watched.push(id);
        }
    }

    /// Returns the facts about clients for INFO; `max` is the limit of connected clients.
    fn view(&self, max: u64) -> ClientsView {
        let clients = || self.table.iter().map(|(_, client)| client);
        ClientsView {
            connected: self.count,
            max,
            waiting: clients().filter(|client| !client.replies.is_empty()).count() as u64,
            input_buffer_bytes: 0,
            output_buffer_bytes: clients().map(|client| client.out.len() as u64).max().unwrap_or(0),
        }
    }
}

/// Returns true if the client, which has sent `bytes`, has to wait, because too many bytes of commands or too many
/// reads are in flight. Small requests do not wait for large ones.
fn is_full(client: &Client, bytes: usize, node: &impl Backend) -> bool {
    client.writes && node.holds_writers(bytes, NODE_QUEUE_BYTES) || node.reads() >= READS_MAX
}
