//! The state of one client's connection.

use super::backend::Backend;
use super::replies::{Expected, Replies};
use super::transactions::Multi;
use super::waits::GroupSet;
use crate::admin::client::ClientInfo;
use crate::config::{CLIENT_BURST_BYTES, CLIENT_OUTPUT_BYTES, REPLIES_MAX};
use crate::kv::reply::Reply;
use crate::node::ticket::Ticket;
use groups::{GroupId, NodeId};
use net::outbound::Outbound;
use net::resp::request::RequestParser;
use std::borrow::Cow;
use std::net::SocketAddr;

/// A reply of no more than this is given whatever waits for its client: it takes no more than the error in its place.
const SMALL_REPLY_BYTES: usize = 256;
const DROPPED: Reply<'static> =
    Reply::Error(Cow::Borrowed("ERR the reply was dropped: too much waits to be read by this client"));

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was answered, or its reply will come.
    Taken,
    /// It has to be read again when this has passed.
    Again(Blocked),
}

/// Why the requests of a client wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blocked {
    /// The queue of this group is full for a request of so many bytes.
    Group(GroupId, usize),
    /// CLIENT PAUSE.
    Pause,
    /// The replies to earlier requests have to come first: WAIT, or another way for the commands.
    Replies,
}

pub(super) struct Client {
    pub(super) connection: u64,
    pub(super) info: ClientInfo,
    /// Where the request that is arriving stands; it is elsewhere while requests are served.
    pub(super) parser: Option<RequestParser>,
    pub(super) replies: Replies,
    pub(super) out: Outbound,
    pub(super) multi: Option<Multi>,
    /// It has been told to go: what it sends is ignored.
    pub(super) leaving: bool,
    /// It will send no more.
    pub(super) ended: bool,
    /// Its requests wait unread.
    pub(super) paused: bool,
    pub(super) blocked: Option<Blocked>,
    /// Since when it has been paused, again and again, and none of its requests was taken on.
    pub(super) waits_since_ms: Option<u64>,
    /// So many bytes of them waited too long, because too much else is on its way.
    pub(super) late_bytes: usize,
    /// So many bytes are still to come of a request that was refused in the midst of it.
    pub(super) refused_bytes: usize,
    /// It is paused no longer, but its bytes have not been announced again yet.
    pub(super) resumed: bool,
    /// The groups that it has written in.
    pub(super) wrote: GroupSet,
    /// Who executes its commands; see `relay`.
    way: Option<NodeId>,
    /// It has sent a command for the log, or is about to send much.
    pub(super) writes: bool,
    /// READONLY: its reads are answered at once, from what this node has.
    pub(super) reads_stale: bool,
    /// Bytes received that were left for later.
    pub(super) held: usize,
    /// Bytes that the event loop had not written when it last said.
    pub(super) unsent: usize,
    /// The same when it was last given some, and so before it wrote any of those.
    pub(super) queued: usize,
    pub(super) dirty: bool,
}

impl Client {
    /// `number` is for CLIENT ID, `listen` this node's end.
    pub(super) fn new(
        connection: u64,
        number: u64,
        addr: SocketAddr,
        listen: SocketAddr,
        parser: RequestParser,
        now_ms: u64,
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
            way: None,
            writes: false,
            reads_stale: false,
            held: 0,
            unsent: 0,
            queued: 0,
            dirty: false,
        }
    }

    /// Input begins: `bytes` wait to be read, and `unsent` bytes to be written. Returns the bytes that are new since the
    /// last call.
    pub(super) fn begin_input(&mut self, bytes: usize, unsent: usize, now_ms: u64) -> usize {
        (self.unsent, self.resumed, self.info.last_input_ms) = (unsent, false, now_ms);
        bytes.saturating_sub(self.held)
    }

    /// Answers at once, in its turn.
    pub(super) fn answer(&mut self, reply: &Reply<'_>) {
        let mute = !self.info.reply_mode.admit();
        self.replies.answer(self.info.protocol, mute, reply, &mut self.out);
    }

    /// The same; errors are counted.
    pub(super) fn tell(&mut self, reply: &Reply<'_>, node: &mut impl Backend) {
        if let Reply::Error(text) = reply {
            node.stats().error(text);
        }
        self.answer(reply);
    }

    /// What is known of the reply to the request that is being carried out.
    pub(super) fn expected(&mut self, bytes: usize, long: bool) -> Expected {
        Expected { protocol: self.info.protocol, mute: !self.info.reply_mode.admit(), bytes, long }
    }

    /// A place for a short reply that comes later.
    pub(super) fn expect(&mut self) -> Ticket {
        let expected = self.expected(0, false);
        Ticket { connection: self.connection, sequence: self.replies.expect(expected), part: 0 }
    }

    /// The reply that has this place, or a part of it. One that is too much for what already waits is dropped.
    pub(super) fn settle(&mut self, ticket: Ticket, reply: Reply<'_>) {
        let is_late = self.out.len() + self.queued > CLIENT_BURST_BYTES && reply.bytes() > SMALL_REPLY_BYTES;
        let reply = if is_late { DROPPED } else { reply };
        self.replies.settle(ticket.sequence, ticket.part, reply, &mut self.out);
    }

    /// Returns true if no more of its requests are read: too much of its output waits, or something else.
    pub(super) fn is_choked(&self) -> bool {
        self.replies.len() >= REPLIES_MAX
            || self.out.len() + self.unsent + self.replies.bytes() >= CLIENT_OUTPUT_BYTES
            || matches!(self.blocked, Some(Blocked::Pause | Blocked::Replies))
            || self.replies.is_reading_long()
    }

    /// Returns true if the queue was full of the group that its next request needs.
    pub(super) fn awaits_group(&self) -> bool {
        matches!(self.blocked, Some(Blocked::Group(..)))
    }

    /// Returns true if it has asked nothing for `limit_ms`, and waits for nothing.
    pub(super) fn is_idle(&self, now_ms: u64, limit_ms: u64) -> bool {
        let is_due = now_ms >= self.info.last_input_ms.saturating_add(limit_ms);
        is_due && self.replies.is_empty() && !self.paused && !self.leaving
    }

    /// Its commands go this way now. Returns false if the replies to those that went another way have to come first.
    pub(super) fn goes(&mut self, way: Option<NodeId>) -> bool {
        if self.way != way && !self.replies.is_empty() {
            return false;
        }
        self.way = way;
        true
    }

    /// The transaction, if one is open, will not be carried out.
    pub(super) fn fail_transaction(&mut self) {
        self.multi.as_mut().into_iter().for_each(Multi::fail);
    }
}
