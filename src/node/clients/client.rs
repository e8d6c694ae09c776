//! The state of one client's connection.

use super::backend::Backend;
use super::replies::{Expected, Replies};
use super::transactions::Multi;
use super::waits::GroupSet;
use crate::admin::client::ClientInfo;
use crate::config::{CLIENT_BURST_BYTES, CLIENT_OUTPUT_BYTES, REPLIES_MAX};
use crate::kv::reply::Reply;
use crate::node::ticket::ClientTicket;
use groups::{GroupId, Ms, NodeId, Us};
use net::event::ConnectionId;
use net::outbound::Outbound;
use net::resp::request::RequestParser;
use std::borrow::Cow;
use std::net::SocketAddr;

/// Maximum bytes of a reply that is never dropped, however much output waits for its client: the error in its place
/// would save little.
const SMALL_REPLY_BYTES: usize = 256;
/// Time for which a reply waits for others to the same client while turns follow each other (a loop that sleeps wakes after
/// a millisecond), and maximum bytes that wait.
const GATHER_US_MAX: Us = Us(200);
const GATHER_BYTES_MAX: usize = 16 << 10;
const DROPPED: Reply<'static> =
    Reply::Error(Cow::Borrowed("ERR the reply was dropped: this client has too many unread reply bytes"));

/// The outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestOutcome {
    /// The request was answered, or its reply will come.
    Taken,
    /// The request has to be read again when this obstacle is gone.
    Again(BlockReason),
}

/// The reason why the requests of a client wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockReason {
    /// The queue of this group is full for a request of this many bytes.
    Group(GroupId, usize),
    /// CLIENT PAUSE is in force.
    Pause,
    /// The replies to earlier requests have to come first: before a WAIT, or before commands go to another executor.
    Replies,
}

pub(super) struct Client {
    pub(super) connection: ConnectionId,
    pub(super) info: ClientInfo,
    /// The parser with the state of the request that is arriving; `None` while requests are served.
    pub(super) parser: Option<RequestParser>,
    pub(super) replies: Replies,
    pub(super) out: Outbound,
    pub(super) multi: Option<Multi>,
    /// This node is closing the connection: further input is ignored.
    pub(super) leaving: bool,
    /// The client will send no more.
    pub(super) ended: bool,
    /// The client's requests wait unread.
    pub(super) paused: bool,
    pub(super) blocked: Option<BlockReason>,
    /// Start of the period in which the client was paused, perhaps repeatedly, and none of its requests was taken.
    pub(super) waits_since_ms: Option<Ms>,
    /// Bytes of requests that waited unread for as long as the client timeout, because too many other commands are in
    /// flight.
    pub(super) late_bytes: usize,
    /// Bytes still to come of a request that was refused before all of it had arrived.
    pub(super) refused_bytes: usize,
    /// The client is paused no longer, but the event loop has not announced its waiting bytes again yet.
    pub(super) resumed: bool,
    /// The groups in which the client has written.
    pub(super) wrote: GroupSet,
    /// The member that executes the client's commands; `None`: this node. See `relay`.
    executor: Option<NodeId>,
    /// The client has sent a write, or is in the middle of a large request.
    pub(super) writes: bool,
    /// After READONLY: the client's reads are answered at once, from this node's local state.
    pub(super) reads_stale: bool,
    /// Bytes received that were left for later.
    pub(super) held: usize,
    /// Bytes of output that the event loop had not written at its last report.
    pub(super) unsent: usize,
    /// Bytes of unwritten output right after the event loop last took output, before it wrote any of that output.
    pub(super) queued: usize,
    pub(super) dirty: bool,
    /// Since when its output waits for more.
    gathers_since_us: Option<Us>,
}

impl Client {
    /// Creates the state of a new connection. `number` is its CLIENT ID, `listen` the address of this node's end.
    pub(super) fn new(
        connection: ConnectionId,
        number: u64,
        addr: SocketAddr,
        listen: SocketAddr,
        parser: RequestParser,
        now_ms: Ms,
    ) -> Client {
        Client {
            connection,
            info: ClientInfo::new(number, addr, listen, now_ms),
            parser: Some(parser),
            replies: Replies::default(),
            out: Outbound::new(),
            multi: None,
            leaving: false,
            ended: false,
            paused: false,
            blocked: None,
            waits_since_ms: None,
            late_bytes: 0,
            refused_bytes: 0,
            resumed: false,
            wrote: GroupSet::default(),
            executor: None,
            writes: false,
            reads_stale: false,
            held: 0,
            unsent: 0,
            queued: 0,
            dirty: false,
            gathers_since_us: None,
        }
    }

    /// Returns true if the client's output waits for the replies that are still to come: those of other workers come some
    /// microseconds later than those of its own, and one write is cheaper than two. It waits at most [`GATHER_US_MAX`].
    pub(super) fn gathers(&mut self, now_us: Us) -> bool {
        let since_us = *self.gathers_since_us.get_or_insert(now_us);
        let waits = !self.replies.is_empty() && self.out.len() < GATHER_BYTES_MAX && now_us < since_us + GATHER_US_MAX;
        if !waits {
            self.gathers_since_us = None;
        }
        waits
    }

    /// Begins an input: `bytes` wait to be read, and `unsent` bytes of replies wait to be written. Returns the number
    /// of bytes that are new since the last call.
    pub(super) fn begin_input(&mut self, bytes: usize, unsent: usize, now_ms: Ms) -> usize {
        (self.unsent, self.resumed, self.info.last_input_ms) = (unsent, false, now_ms);
        bytes.saturating_sub(self.held)
    }

    /// Answers a request whose reply is known now. The reply leaves in the order of the requests.
    pub(super) fn answer(&mut self, reply: &Reply<'_>) {
        let mute = !self.info.reply_mode.admit();
        self.replies.answer(self.info.protocol, mute, reply, &mut self.out);
    }

    /// Answers like [`Client::answer`], and counts an error.
    pub(super) fn answer_counted(&mut self, reply: &Reply<'_>, node: &mut impl Backend) {
        if let Reply::Error(text) = reply {
            node.stats().error(text);
        }
        self.answer(reply);
    }

    /// Returns the facts that are known about the reply to the current request before it comes.
    pub(super) fn expected(&mut self, bytes: usize, long: bool) -> Expected {
        Expected { protocol: self.info.protocol, mute: !self.info.reply_mode.admit(), bytes, long }
    }

    /// Reserves the place of a short reply that comes later.
    pub(super) fn expect(&mut self) -> ClientTicket {
        let expected = self.expected(0, false);
        ClientTicket { connection: self.connection, request: self.replies.expect(expected), part: 0 }
    }

    /// Takes the reply with this ticket, or a part of it. If too much output waits already, an error replaces the
    /// reply.
    pub(super) fn complete(&mut self, ticket: ClientTicket, reply: Reply<'_>) {
        let is_late = self.out.len() + self.queued > CLIENT_BURST_BYTES && reply.bytes() > SMALL_REPLY_BYTES;
        let reply = if is_late { DROPPED } else { reply };
        self.replies.complete(ticket.request, ticket.part, reply, &mut self.out);
    }

    /// Returns true if no more requests of the client are read: too many replies or bytes of output are outstanding, a
    /// pause or earlier replies block it, or a long read is not answered.
    pub(super) fn must_pause(&self) -> bool {
        self.replies.len() >= REPLIES_MAX
            || self.out.len() + self.unsent + self.replies.bytes() >= CLIENT_OUTPUT_BYTES
            || matches!(self.blocked, Some(BlockReason::Pause | BlockReason::Replies))
            || self.replies.is_reading_long()
    }

    /// Returns true if the group that the client's next request needs had a full queue.
    pub(super) fn awaits_group(&self) -> bool {
        matches!(self.blocked, Some(BlockReason::Group(..)))
    }

    /// Returns true if the client has sent nothing for `limit_ms`, and waits for nothing.
    pub(super) fn is_idle(&self, now_ms: Ms, limit_ms: Ms) -> bool {
        let is_due = now_ms >= self.info.last_input_ms.saturating_add(limit_ms);
        is_due && self.replies.is_empty() && !self.paused && !self.leaving
    }

    /// Sets the executor of the client's commands; `None`: this node. Returns false, and changes nothing, if the
    /// replies from another executor have to come first.
    pub(super) fn set_executor(&mut self, executor: Option<NodeId>) -> bool {
        if self.executor != executor && !self.replies.is_empty() {
            return false;
        }
        self.executor = executor;
        true
    }

    /// Marks the transaction, if one is open, as failed: EXEC will carry nothing out.
    pub(super) fn fail_transaction(&mut self) {
        self.multi.as_mut().into_iter().for_each(Multi::fail);
    }
}
