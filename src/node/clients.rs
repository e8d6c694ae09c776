//! Connections as the node sees them: fresh ones, clients, and links to other members. The first byte tells which.

use super::links::Link;
use super::replies::{Replies, Ticket};
use super::requests::NOT_SERVED;
use super::waiting::GroupSet;
use super::{Close, Node, Output, Time};
use crate::admin::client::ClientInfo;
use crate::config::{
    ARGS_MAX, CLIENT_BURST_BYTES, CLIENT_OUTPUT_BYTES, HANDSHAKE_MS_MAX, LARGE_INPUT_BYTES, NODE_QUEUE_BYTES,
    NodeConfig, READS_MAX, REPLIES_MAX,
};
use crate::kv::reply::Reply;
use crate::kv::table::Spec;
use bytes::{Buf, Bytes, BytesMut};
use groups::{GroupId, NodeId};
use net::outbound::Outbound;
use net::resp::request::{RequestError, RequestLimits, RequestParser};
use std::borrow::Cow;
use std::net::SocketAddr;

/// The first byte of a peer's frame is not below this; RESP and TLS begin lower.
const PEER_BYTE_MIN: u8 = 0x80;
/// With it begins the greeting of a client that wants an encrypted connection: as a request it would have no end.
const TLS_BYTE: u8 = 0x16;
/// Memory that a client's empty output may keep.
const IDLE_OUTPUT_BYTES: usize = 64 << 10;

/// How often it is looked for clients that are idle for too long.
const IDLE_LOOK_MS: u64 = 1_000;

/// A reply of no more than this is given whatever waits for its client: it takes no more than the error in its place.
const SMALL_REPLY_BYTES: usize = 256;
const DROPPED: Reply<'static> =
    Reply::Error(Cow::Borrowed("ERR the reply was dropped: too much waits to be read by this client"));

/// What a connection has turned out to be.
pub(super) enum Connection {
    /// Accepted; not a byte came yet.
    Fresh { addr: SocketAddr, since_ms: u64 },
    /// A client of Redis's protocol.
    Client(Box<Client>),
    /// Another member, or somebody who says so.
    Link(Link),
}

/// A client's connection.
pub(super) struct Client {
    pub(super) connection: u64,
    pub(super) info: ClientInfo,
    /// Where the request that is arriving stands; it is elsewhere while requests are served.
    parser: Option<RequestParser>,
    pub(super) replies: Replies,
    pub(super) out: Outbound,
    pub(super) multi: Option<Multi>,
    /// It has been told to go: what it sends is ignored.
    pub(super) leaving: bool,
    /// It will send no more.
    pub(super) ended: bool,
    /// Its requests wait unread.
    pub(super) paused: bool,
    /// Since when it has been paused, again and again, and none of its requests was taken on.
    waits_since_ms: Option<u64>,
    /// So many bytes of them waited too long, because too much else is on its way.
    late_bytes: usize,
    /// So many bytes are still to come of a request that was refused in the midst of it.
    refused_bytes: usize,
    /// They do so no longer, but have not been announced again yet.
    resumed: bool,
    /// A group whose queue was full when it last used it.
    pub(super) full_group: Option<GroupId>,
    /// Why its requests have to wait, whatever room there is.
    pub(super) hold: Option<Hold>,
    /// The request that is being served is to be read again.
    pub(super) again: bool,
    /// The groups that it has written in.
    pub(super) wrote: GroupSet,
    /// Who executes its commands; see `relay`.
    pub(super) way: Option<NodeId>,
    /// It has sent a command for the log, or is about to send much.
    pub(super) writes: bool,
    /// READONLY: its reads are answered at once, from what this node has.
    pub(super) reads_stale: bool,
    /// Bytes received that were left for later.
    held: usize,
    /// Bytes that the event loop had not written when it last said.
    unsent: usize,
    /// The same when it was last given some, and so before it wrote any of those.
    queued: usize,
    dirty: bool,
}

/// Why a client's requests wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// CLIENT PAUSE.
    Pause,
    /// WAIT: for the replies to what was sent before it, and for its own.
    Replies,
}

/// Requests between MULTI and EXEC.
#[derive(Default)]
pub(super) struct Multi {
    pub(super) requests: Vec<Queued>,
    pub(super) bytes: usize,
    pub(super) words: usize,
    pub(super) failed: bool,
}

/// One of them, with words of its own: the client's buffer goes on.
pub(super) struct Queued {
    pub(super) spec: &'static Spec,
    pub(super) words: Vec<Box<[u8]>>,
}

impl Client {
    /// Answers at once, in its turn.
    pub(super) fn answer(&mut self, reply: &Reply<'_>) {
        let mute = !self.info.reply_mode.admit();
        self.replies.answer(self.info.protocol, mute, reply, &mut self.out);
    }

    fn is_choked(&self) -> bool {
        self.replies.len() >= REPLIES_MAX
            || self.out.len() + self.unsent + self.replies.bytes() >= CLIENT_OUTPUT_BYTES
            || self.hold.is_some()
            || self.replies.is_reading_long()
    }

    /// Whether the request that is being served is to be read again later.
    pub(super) fn holds_request(&self) -> bool {
        self.full_group.is_some() || self.again
    }
}

/// All connections, by the number that the caller gives them: its low 32 bits are a small position, its high ones
/// differ from one connection to the next at that position.
pub(super) struct Connections {
    table: Vec<Option<(u64, Connection)>>,
    dirty: Vec<u64>,
    /// Clients that are paused or ending: looked at after each turn.
    watched: Vec<u64>,
    /// The client whose requests are being carried out. It is elsewhere meanwhile.
    served: Option<u64>,
    limits: RequestLimits,
    listen: SocketAddr,
    clients_seen: u64,
    pub(super) clients: u64,
}

impl Connections {
    pub(super) fn new(config: &NodeConfig) -> Connections {
        let limits = RequestLimits {
            inline_bytes_max: 64 << 10,
            args_max: ARGS_MAX,
            arg_bytes_max: config.value_bytes_max,
            request_bytes_max: config.request_bytes_max(),
        };
        Connections {
            table: Vec::new(),
            dirty: Vec::new(),
            watched: Vec::new(),
            served: None,
            limits,
            listen: config.listen,
            clients_seen: 0,
            clients: 0,
        }
    }

    pub(super) fn insert(&mut self, id: u64, connection: Connection) {
        let position = id as u32 as usize;
        if self.table.len() <= position {
            self.table.resize_with(position + 1, || None);
        }
        self.table[position] = Some((id, connection));
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<Connection> {
        let place = self.table.get_mut(id as u32 as usize)?;
        if place.as_ref().is_none_or(|(held, _)| *held != id) {
            return None;
        }
        let removed = place.take().map(|(_, connection)| connection);
        if matches!(removed, Some(Connection::Client(_))) {
            self.clients -= 1;
        }
        removed
    }

    pub(super) fn find(&mut self, id: u64) -> Option<&mut Connection> {
        let (held, connection) = self.table.get_mut(id as u32 as usize)?.as_mut()?;
        (*held == id).then_some(connection)
    }

    pub(super) fn client(&mut self, id: u64) -> Option<&mut Client> {
        match self.find(id)? {
            Connection::Client(client) => Some(client),
            _ => None,
        }
    }

    /// All of them, with their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Connection)> {
        self.table.iter().flatten().map(|(id, connection)| (*id, connection))
    }

    /// All clients, but for one that is being served.
    pub(super) fn clients(&self) -> impl Iterator<Item = &Client> {
        self.iter().filter_map(|(_, connection)| match connection {
            Connection::Client(client) => Some(&**client),
            _ => None,
        })
    }

    /// A reply that a client waits for. If the client is gone nobody does.
    pub(super) fn settle(&mut self, ticket: Ticket, reply: Reply<'_>) {
        assert!(self.served != Some(ticket.connection), "the reply to a request would be lost while another is served");
        let Some((held, Connection::Client(client))) =
            self.table.get_mut(ticket.connection as u32 as usize).and_then(Option::as_mut)
        else {
            return;
        };
        if *held != ticket.connection {
            return;
        }
        let is_late = client.out.len() + client.queued > CLIENT_BURST_BYTES && reply.bytes() > SMALL_REPLY_BYTES;
        let reply = if is_late { DROPPED } else { reply };
        client.replies.settle(ticket.sequence, ticket.part, reply, &mut client.out);
        if !client.dirty && !client.out.is_empty() {
            client.dirty = true;
            self.dirty.push(ticket.connection);
        }
    }

    pub(super) fn watch(&mut self, id: u64) {
        if !self.watched.contains(&id) {
            self.watched.push(id);
        }
    }

    pub(super) fn take_replies(&mut self, mut visit: impl FnMut(u64, &mut Outbound) -> usize) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for id in dirty.drain(..) {
            let Some(client) = self.client(id) else { continue };
            client.dirty = false;
            client.queued = visit(id, &mut client.out);
            if client.out.is_empty() && client.out.keeps_more_than(IDLE_OUTPUT_BYTES) {
                client.out = Outbound::new();
            }
        }
        self.dirty = dirty;
    }
}

impl Node {
    /// A connection was accepted.
    pub fn opened(&mut self, id: u64, addr: SocketAddr, time: Time) {
        self.stats.connections_received += 1;
        self.connections.insert(id, Connection::Fresh { addr, since_ms: time.mono_ms() });
    }

    /// There are bytes to read on a connection, of which `unsent` replies' bytes wait to be written. What is consumed
    /// is taken from the front of `input`; the rest is wanted again when more has come, or after a resume.
    pub fn input(&mut self, id: u64, input: &mut BytesMut, unsent: usize, time: Time) {
        self.now_us = time.mono_us;
        if let Some(Connection::Fresh { addr, .. }) = self.connections.find(id) {
            let addr = *addr;
            let Some(first) = input.first() else { return };
            if *first >= PEER_BYTE_MIN {
                self.connections.insert(id, Connection::Link(Link::accepted(time.mono_ms())));
            } else {
                self.admit_client(id, addr, *first == TLS_BYTE, time);
            }
        }
        let has_not_begun = self.has_not_begun();
        match self.connections.find(id) {
            Some(Connection::Client(_)) => self.client_input(id, input, unsent, time),
            // A member waits; see `loading`.
            Some(Connection::Link(_)) if has_not_begun => self.outputs.push(Output::Pause(id)),
            Some(Connection::Link(_)) => self.link_input(id, input, time),
            Some(Connection::Fresh { .. }) | None => input.clear(),
        }
    }

    /// The other side will send no more.
    pub fn ended(&mut self, id: u64, time: Time) {
        match self.connections.find(id) {
            Some(Connection::Client(client)) => {
                client.ended = true;
                self.connections.watch(id);
            }
            Some(_) => {
                self.outputs.close(id, Close::Now);
                self.closed(id, time);
            }
            None => {}
        }
    }

    /// Everything queued for the connection has been written.
    pub fn drained(&mut self, id: u64) {
        if let Some(client) = self.connections.client(id) {
            (client.unsent, client.queued) = (0, 0);
        }
        self.unsent(id, 0);
    }

    /// The connection is gone.
    pub fn closed(&mut self, id: u64, time: Time) {
        if let Some(Connection::Link(_)) = self.connections.remove(id) {
            self.on_link_cut(id, time);
        }
    }

    /// A member says hello at once: who has said nothing for a while counts as a client, so that connections which
    /// were only opened leave room for members.
    pub(super) fn admit_silent(&mut self, time: Time) {
        let silent = self.connections.iter().filter_map(|(id, connection)| match connection {
            Connection::Fresh { addr, since_ms } if time.mono_ms() >= since_ms + HANDSHAKE_MS_MAX => Some((id, *addr)),
            _ => None,
        });
        let silent: Vec<(u64, SocketAddr)> = silent.collect();
        silent.into_iter().for_each(|(id, addr)| self.admit_client(id, addr, false, time));
    }

    fn admit_client(&mut self, id: u64, addr: SocketAddr, is_tls: bool, time: Time) {
        let connections = &mut self.connections;
        let is_one_too_many = connections.clients >= self.config.max_clients;
        connections.clients += 1;
        connections.clients_seen += 1;
        let mut client = Client {
            connection: id,
            info: ClientInfo::new(connections.clients_seen, addr, connections.listen, time.mono_ms()),
            parser: Some(RequestParser::new(connections.limits)),
            replies: Replies::default(),
            out: Outbound::new(),
            multi: None,
            leaving: false,
            ended: false,
            paused: false,
            waits_since_ms: None,
            late_bytes: 0,
            refused_bytes: 0,
            resumed: false,
            full_group: None,
            hold: None,
            again: false,
            wrote: GroupSet::default(),
            way: None,
            writes: false,
            reads_stale: false,
            held: 0,
            unsent: 0,
            queued: 0,
            dirty: false,
        };
        let refusal = if is_one_too_many {
            self.stats.connections_rejected += 1;
            Some("ERR max number of clients reached")
        } else if is_tls {
            tracing::warn!("{addr} asks for an encrypted connection, which is not supported");
            Some("ERR TLS is not supported")
        } else {
            None
        };
        if let Some(reason) = refusal {
            self.answer(&mut client, &Reply::error(reason));
            self.dismiss(&mut client, Close::AfterFlush);
            client.dirty = true;
            self.connections.dirty.push(id);
        }
        self.connections.insert(id, Connection::Client(Box::new(client)));
    }

    fn client_input(&mut self, id: u64, input: &mut BytesMut, unsent: usize, time: Time) {
        // The client is taken out of the table while it is served, so that the rest of the node is free.
        let Some(place) = self.connections.table.get_mut(id as u32 as usize) else { return };
        let Some((_, Connection::Client(mut client))) = place.take() else { return };
        self.connections.served = Some(id);
        client.unsent = unsent;
        client.resumed = false;
        client.info.last_input_ms = time.mono_ms();
        self.stats.net_input_bytes += input.len().saturating_sub(client.held) as u64;
        if client.leaving {
            input.clear();
        } else if !client.paused {
            self.serve(&mut client, input, time);
        }
        client.held = input.len();
        if !client.dirty && !client.out.is_empty() {
            client.dirty = true;
            self.connections.dirty.push(id);
        }
        self.connections.insert(id, Connection::Client(client));
        self.connections.served = None;
    }

    fn serve(&mut self, client: &mut Client, input: &mut BytesMut, time: Time) {
        let Some(mut parser) = client.parser.take() else { return };
        let mut at = client.refused_bytes.min(input.len());
        client.refused_bytes -= at;
        client.writes |= input.len() >= LARGE_INPUT_BYTES;
        while !client.leaving && at < input.len() {
            let is_full = client.full_group.is_some() || self.is_full(client, input.len() - at);
            let is_late = is_full && client.late_bytes > 0;
            if client.is_choked() || self.intake.is_spent() || (is_full && !is_late) {
                client.paused = true;
                client.waits_since_ms.get_or_insert(time.mono_ms());
                self.outputs.push(Output::Pause(client.connection));
                self.connections.watch(client.connection);
                break;
            }
            match parser.poll(&input[at..]) {
                Ok(None) if is_late => {
                    self.refuse_midst(client, &mut parser);
                    at = input.len();
                }
                Ok(None) => break,
                Ok(Some(length)) if is_late => {
                    let words: Vec<&[u8]> = parser.args(&input[at..at + length]).collect();
                    if !words.is_empty() {
                        self.no_command(client, &words, &NOT_SERVED);
                    }
                    client.late_bytes = client.late_bytes.saturating_sub(length);
                    client.full_group = None;
                    at += length;
                }
                Ok(Some(length)) => {
                    self.request_bytes = length;
                    if self.engine.takes_upload(length) && input.len() - at - length <= LARGE_INPUT_BYTES {
                        if self.large_request(client, &parser, input, (at, length), time) {
                            client.late_bytes = client.late_bytes.saturating_sub(length);
                            client.waits_since_ms = None;
                            at = 0;
                            continue;
                        }
                    } else {
                        self.request(client, &parser, &input[at..at + length], time);
                    }
                    if client.full_group.is_none() && !std::mem::take(&mut client.again) {
                        client.late_bytes = client.late_bytes.saturating_sub(length);
                        at += length;
                    }
                }
                Err(RequestError::Http) => {
                    tracing::warn!("an HTTP request came from {}: closing, as Redis does", client.info.addr);
                    self.dismiss(client, Close::Now);
                }
                Err(error) => {
                    client.answer(&Reply::Error(format!("ERR {error}").into()));
                    self.dismiss(client, Close::AfterFlush);
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

    /// Carries out the request of `length` bytes at `at`. Its buffer becomes shareable, because an upload keeps a part of
    /// it. Returns true if the request is done and `input` holds only what follows it.
    fn large_request(
        &mut self,
        client: &mut Client,
        parser: &RequestParser,
        input: &mut BytesMut,
        (at, length): (usize, usize),
        time: Time,
    ) -> bool {
        let rest = BytesMut::from(&input[at + length..]);
        input.truncate(at + length);
        let request = std::mem::take(input).freeze();
        self.request = request.clone();
        self.request(client, parser, &request[at..], time);
        self.request = Bytes::new();
        if !client.holds_request() {
            *input = rest;
            return true;
        }
        // Of what is to be read again nobody has kept anything: it is taken back as it is.
        *input = request.try_into_mut().unwrap_or_else(|request| BytesMut::from(&request[..]));
        input.unsplit(rest);
        false
    }

    /// Whether the client, which has sent `bytes`, has to wait for commands of others, because too many bytes of them are
    /// on their way. Small requests do not wait for large ones.
    fn is_full(&self, client: &Client, bytes: usize) -> bool {
        client.writes && self.engine.holds_writers(bytes, NODE_QUEUE_BYTES) || self.engine.reads() >= READS_MAX
    }

    /// Answers a request of which only a part is here, and passes over the rest of it.
    fn refuse_midst(&mut self, client: &mut Client, parser: &mut RequestParser) {
        client.late_bytes = 0;
        client.multi.as_mut().into_iter().for_each(|multi| multi.failed = true);
        self.answer(client, &NOT_SERVED);
        match parser.ends_after() {
            Some(bytes) => client.refused_bytes = bytes,
            // Where it ends is not known.
            None => self.dismiss(client, Close::AfterFlush),
        }
        *parser = RequestParser::new(self.connections.limits);
    }

    /// Clients whose requests have waited unread for as long as a command may take are served, or refused.
    pub(super) fn wake_late(&mut self, now_ms: u64) {
        let connections = &mut self.connections;
        for id in connections.watched.clone() {
            let Some(client) = connections.client(id) else { continue };
            let late_ms = client.waits_since_ms.unwrap_or(now_ms) + self.config.client_timeout_ms;
            if client.paused && !client.leaving && now_ms >= late_ms && !client.is_choked() {
                (client.paused, client.resumed, client.late_bytes) = (false, true, client.held);
                self.outputs.push(Output::Resume(id));
            }
        }
    }

    /// The client goes: at once, or when it has its replies.
    pub(super) fn dismiss(&mut self, client: &mut Client, close: Close) {
        client.leaving = true;
        client.ended = true;
        match close {
            Close::Now => self.outputs.close(client.connection, Close::Now),
            Close::AfterFlush => self.connections.watch(client.connection),
        }
    }

    /// CONFIG SET timeout: clients that have asked nothing for so long, and wait for nothing, go. Looked at every second.
    pub(super) fn close_idle(&mut self, now_ms: u64) {
        if self.idle_ms_max == 0 || now_ms < self.idle_looked_ms + IDLE_LOOK_MS {
            return;
        }
        self.idle_looked_ms = now_ms;
        let limit_ms = self.idle_ms_max;
        for client in self.connections.table.iter_mut().flatten().filter_map(|(_, connection)| match connection {
            Connection::Client(client) => Some(client),
            _ => None,
        }) {
            let is_idle = now_ms >= client.info.last_input_ms.saturating_add(limit_ms);
            if is_idle && client.replies.is_empty() && !client.paused && !client.leaving {
                (client.leaving, client.ended) = (true, true);
                self.outputs.close(client.connection, Close::AfterFlush);
            }
        }
    }

    /// Looks at the clients that are paused or ending.
    pub(super) fn resume_clients(&mut self) {
        if self.connections.watched.is_empty() {
            return;
        }
        let mut watched = std::mem::take(&mut self.connections.watched);
        watched.retain(|id| {
            let is_paused = self.pause.is_on(self.now_us / 1_000);
            let Some(client) = self.connections.client(*id) else { return false };
            let (held, full_group) = (client.held, client.full_group);
            let is_full = self.engine.holds_writers(held, NODE_QUEUE_BYTES / 2);
            let reads_too_much = self.engine.reads() > READS_MAX / 2;
            let is_over = full_group.is_some_and(|group| self.engine.serves_again(group, held));
            let Some(client) = self.connections.client(*id) else { return false };
            let is_held = match client.hold {
                Some(Hold::Pause) => is_paused,
                Some(Hold::Replies) => !client.replies.is_empty(),
                None => false,
            };
            if !is_held {
                (client.hold, client.info.blocked) = (None, false);
            }
            if is_over {
                client.full_group = None;
            }
            // Some way below the limit, so that pausing and resuming is not done for every request.
            let waits = client.is_choked() || client.full_group.is_some() || client.writes && is_full || reads_too_much;
            let relieved = client.replies.len() <= REPLIES_MAX / 2 && !waits;
            if client.paused && relieved {
                client.paused = false;
                client.resumed = true;
                self.outputs.push(Output::Resume(*id));
                return client.ended;
            }
            if client.ended && !client.paused && !client.resumed && client.replies.is_empty() {
                self.outputs.close(*id, Close::AfterFlush);
                client.leaving = true;
                return false;
            }
            client.paused || client.ended
        });
        self.connections.watched.append(&mut watched);
    }
}
