//! The commands that a worker passes on to another one in a turn, and the replies that it gets back. All bodies of a
//! turn share one buffer, so that a command costs no allocation.

use super::Answer;
use crate::kv::long_value::LONG_VALUE_BYTES;
use crate::kv::reply::Reply;
use crate::kv::stored_reply;
use crate::node::ticket::{ClientTicket, WorkerTicket};
use bytes::{Bytes, BytesMut};
use groups::{GroupId, Us};
use std::fmt;

/// Maximum commands and bytes for which the next batch has memory from the start.
const KEPT_ITEMS_MAX: usize = 4_096;
const KEPT_BYTES_MAX: usize = 256 << 10;

/// What the worker of the group does with a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) enum PassedKind {
    /// It goes through the log.
    Logged,
    /// It goes through the log in parts. The commands of its client that follow wait for it.
    Upload,
    /// It is a linearizable read.
    Read,
    /// It is such a read, and may take several turns.
    LongRead,
    /// It is a read of the worker's local state, which may be stale.
    StaleRead,
    /// It is such a read, and may take several turns.
    LongStaleRead,
}

/// A command for a group of another worker, without its body.
#[derive(Clone, Copy, Debug)]
pub(in crate::node) struct PassedCommand {
    pub(in crate::node) group: GroupId,
    pub(in crate::node) kind: PassedKind,
    /// The command writes.
    pub(in crate::node) writes: bool,
    /// The command's index in the statistics.
    pub(in crate::node) verb: u16,
    pub(in crate::node) ticket: ClientTicket,
    /// Bytes of the whole request.
    pub(in crate::node) request_bytes: u32,
    pub(in crate::node) since_us: Us,
}

impl PassedKind {
    /// Returns true for a read of the worker's local state.
    pub(in crate::node) fn is_stale(self) -> bool {
        matches!(self, PassedKind::StaleRead | PassedKind::LongStaleRead)
    }

    /// Returns true for a read that may take several turns.
    pub(in crate::node) fn is_long(self) -> bool {
        matches!(self, PassedKind::LongRead | PassedKind::LongStaleRead)
    }
}

impl PassedCommand {
    /// Returns the bytes that count against the limits of queues: those of commands that write.
    pub(in crate::node) fn counted_bytes(&self) -> u32 {
        if self.writes { self.request_bytes } else { 0 }
    }
}

/// The commands of a turn for one worker.
#[derive(Default)]
pub(in crate::node) struct CommandBatch {
    /// Each command, with the end of its body in `bodies`.
    commands: Vec<(PassedCommand, usize)>,
    bodies: BytesMut,
}

impl CommandBatch {
    pub(super) fn push(&mut self, command: PassedCommand, put: impl FnOnce(&mut BytesMut)) {
        put(&mut self.bodies);
        self.commands.push((command, self.bodies.len()));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// Takes the batch of this turn. The next one begins with memory for as much, so that it does not grow step by step.
    pub(super) fn take_turn(&mut self) -> CommandBatch {
        let next = CommandBatch {
            commands: Vec::with_capacity(self.commands.len().min(KEPT_ITEMS_MAX)),
            bodies: BytesMut::with_capacity(self.bodies.len().min(KEPT_BYTES_MAX)),
        };
        std::mem::replace(self, next)
    }

    /// Calls `take` with each command and its body, in order.
    pub(in crate::node) fn take(self, mut take: impl FnMut(PassedCommand, Body<'_>)) {
        let bodies = self.bodies.freeze();
        let mut start = 0;
        for (command, end) in self.commands {
            take(command, Body { bodies: &bodies, start, end });
            start = end;
        }
    }
}

/// The body of a command in its batch.
#[derive(Clone, Copy)]
pub(in crate::node) struct Body<'a> {
    bodies: &'a Bytes,
    start: usize,
    end: usize,
}

impl Body<'_> {
    pub(in crate::node) fn bytes(&self) -> &[u8] {
        &self.bodies[self.start..self.end]
    }

    /// Returns the body as a part of the memory of the whole batch.
    pub(in crate::node) fn shared(&self) -> Bytes {
        self.bodies.slice(self.start..self.end)
    }
}

/// The replies of a turn for one worker.
#[derive(Default)]
pub(in crate::node) struct ReplyBatch {
    replies: Vec<(WorkerTicket, PassedReply)>,
    packed: Vec<u8>,
}

enum PassedReply {
    /// The reply ends here in the packed replies.
    Packed(usize),
    /// The reply is long, and shares its memory.
    Whole(Box<Reply<'static>>),
}

impl ReplyBatch {
    pub(super) fn push(&mut self, ticket: WorkerTicket, reply: Reply<'_>) {
        let reply = if reply.bytes() >= LONG_VALUE_BYTES {
            PassedReply::Whole(Box::new(reply.into_owned()))
        } else {
            stored_reply::pack(&reply, &mut self.packed);
            PassedReply::Packed(self.packed.len())
        };
        self.replies.push((ticket, reply));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.replies.is_empty()
    }

    /// See [`CommandBatch::take_turn`].
    pub(super) fn take_turn(&mut self) -> ReplyBatch {
        let next = ReplyBatch {
            replies: Vec::with_capacity(self.replies.len().min(KEPT_ITEMS_MAX)),
            packed: Vec::with_capacity(self.packed.len().min(KEPT_BYTES_MAX)),
        };
        std::mem::replace(self, next)
    }

    /// Calls `take` with each reply, in order.
    pub(in crate::node) fn take(self, mut take: impl FnMut(Answer<'_>)) {
        let mut start = 0;
        for (ticket, reply) in self.replies {
            let (client, bytes) = (ticket.client(), ticket.bytes);
            match reply {
                PassedReply::Whole(reply) => take((client, bytes, *reply)),
                PassedReply::Packed(end) => {
                    let reply =
                        stored_reply::unpack(&self.packed[start..end]).expect("a worker packs what it can read");
                    start = end;
                    take((client, bytes, reply));
                }
            }
        }
    }
}

impl fmt::Debug for CommandBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} commands of {} bytes", self.commands.len(), self.bodies.len())
    }
}

impl fmt::Debug for ReplyBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} replies", self.replies.len())
    }
}
