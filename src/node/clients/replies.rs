//! The outstanding replies of a client. They leave in the order of its requests, even if the groups answer in another
//! order.

use crate::kv::fanout::Merge;
use crate::kv::reply::{Reply, TOO_LARGE};
use crate::node::ticket::RequestNumber;
use bytes::Bytes;
use net::outbound::Outbound;
use net::resp::Protocol;
use std::collections::VecDeque;

/// The outstanding replies of one client.
#[derive(Default)]
pub(super) struct Replies {
    slots: VecDeque<Slot>,
    /// The request of the first slot.
    first: RequestNumber,
    /// Sum of the bytes that the slots hold or are expected to hold.
    bytes: usize,
    /// Number of long reads, and of large commands in parts, that are not answered.
    long: usize,
}

/// The facts that are known of a reply before it comes.
#[derive(Clone, Copy)]
pub(super) struct Expected {
    pub(super) protocol: Protocol,
    /// CLIENT REPLY OFF or SKIP: nothing is sent.
    pub(super) mute: bool,
    /// Estimated bytes of a reply that may be large; 0 for any other reply.
    pub(super) bytes: usize,
    /// The reply may come in a later turn than the replies to its client's next commands.
    pub(super) long: bool,
}

struct Slot {
    protocol: Protocol,
    /// CLIENT REPLY OFF or SKIP: nothing is sent.
    mute: bool,
    state: SlotState,
    /// Bytes that the slot keeps for the reply. Before the reply has come: [`Expected::bytes`].
    bytes: usize,
    long: bool,
}

enum SlotState {
    Waiting,
    Parts(Box<Parts>),
    Ok,
    Int(i64),
    Null,
    Encoded(Bytes),
    /// A reply with long strings, which are not copied.
    Long(Box<Outbound>),
}

pub(super) struct Parts {
    /// Merges the replies; taken out when all parts are there.
    merge: Option<Merge>,
    replies: Vec<Option<Reply<'static>>>,
    missing: usize,
    /// Sum of the bytes of the replies.
    bytes: usize,
    bytes_max: usize,
}

impl Replies {
    /// Returns the number of replies that have not left: outstanding ones, and replies that wait behind one of these.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Returns the sum of the slots' bytes: the kept bytes of replies that have come, the estimates for the others.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns true if a long read, or a large command in parts, is not answered. The client's next requests wait: a
    /// long read must not see their effects.
    pub(super) fn is_reading_long(&self) -> bool {
        self.long > 0
    }

    /// Reserves the place of one reply and returns its number.
    pub(super) fn expect(&mut self, expected: Expected) -> RequestNumber {
        self.reserve(expected, SlotState::Waiting)
    }

    /// Reserves the place of a reply that is merged from parts, and returns its number.
    pub(super) fn expect_parts(&mut self, expected: Expected, parts: Parts) -> RequestNumber {
        self.reserve(expected, SlotState::Parts(Box::new(parts)))
    }

    fn reserve(&mut self, expected: Expected, state: SlotState) -> RequestNumber {
        let Expected { protocol, mute, bytes, long } = expected;
        self.long += usize::from(long);
        self.push(Slot { protocol, mute, state, bytes, long })
    }

    /// Takes a reply that is known at once. It is written to `out` if no other reply is outstanding.
    pub(super) fn answer(&mut self, protocol: Protocol, mute: bool, reply: &Reply<'_>, out: &mut Outbound) {
        if self.slots.is_empty() {
            if !mute {
                reply.write(protocol, out);
            }
            self.first.0 += 1;
            return;
        }
        let state = SlotState::of(reply, protocol, mute);
        let bytes = state.bytes();
        self.push(Slot { protocol, mute, state, bytes, long: false });
    }

    /// Takes a reply that has come, or a part of one. Writes all replies that can leave now to `out`.
    pub(super) fn complete(&mut self, request: RequestNumber, part: u32, reply: Reply<'_>, out: &mut Outbound) {
        let Some(position) = request.0.checked_sub(self.first.0) else { return };
        let Some(slot) = self.slots.get_mut(position as usize) else { return };
        let reply = match &mut slot.state {
            SlotState::Parts(parts) => match parts.complete(part, reply) {
                Some(whole) => whole,
                None => return,
            },
            SlotState::Waiting => reply,
            _ => return,
        };
        self.long -= usize::from(std::mem::take(&mut slot.long));
        if position > 0 {
            slot.state = SlotState::of(&reply, slot.protocol, slot.mute);
            let bytes = slot.state.bytes();
            self.bytes = self.bytes - std::mem::replace(&mut slot.bytes, bytes) + bytes;
            return;
        }
        if !slot.mute {
            reply.write(slot.protocol, out);
        }
        self.pop();
        self.write_completed(out);
    }

    fn write_completed(&mut self, out: &mut Outbound) {
        while let Some(slot) = self.slots.front_mut() {
            let reply = match &mut slot.state {
                SlotState::Waiting | SlotState::Parts(_) => return,
                SlotState::Ok => Reply::Ok,
                SlotState::Int(number) => Reply::Int(*number),
                SlotState::Null => Reply::Null,
                SlotState::Encoded(bytes) => {
                    out.push(std::mem::take(bytes));
                    self.pop();
                    continue;
                }
                SlotState::Long(queue) => {
                    out.take_from(queue);
                    self.pop();
                    continue;
                }
            };
            if !slot.mute {
                reply.write(slot.protocol, out);
            }
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some(slot) = self.slots.pop_front() {
            self.first.0 += 1;
            self.bytes -= slot.bytes;
        }
    }

    fn push(&mut self, slot: Slot) -> RequestNumber {
        self.bytes += slot.bytes;
        self.slots.push_back(slot);
        RequestNumber(self.first.0 + self.slots.len() as u64 - 1)
    }
}

impl SlotState {
    fn bytes(&self) -> usize {
        match self {
            SlotState::Encoded(bytes) => bytes.len(),
            SlotState::Long(queue) => queue.len(),
            _ => 0,
        }
    }

    /// Returns the state that keeps a reply. The commonest replies need no memory of their own.
    fn of(reply: &Reply<'_>, protocol: Protocol, mute: bool) -> SlotState {
        match reply {
            _ if mute => SlotState::Encoded(Bytes::new()),
            Reply::Ok => SlotState::Ok,
            Reply::Int(number) => SlotState::Int(*number),
            Reply::Null => SlotState::Null,
            reply => {
                let mut encoded = Outbound::new();
                reply.write(protocol, &mut encoded);
                match encoded.holds_chunks() {
                    true => SlotState::Long(Box::new(encoded)),
                    false => SlotState::Encoded(encoded.take_bytes()),
                }
            }
        }
    }
}

impl Parts {
    /// Creates the parts of a reply: `merge` joins `count` parts, which together hold at most `bytes_max` bytes.
    pub(super) fn new(merge: Merge, count: usize, bytes_max: usize) -> Parts {
        Parts { merge: Some(merge), replies: vec![None; count], missing: count, bytes: 0, bytes_max }
    }

    fn complete(&mut self, part: u32, reply: Reply<'_>) -> Option<Reply<'static>> {
        let entry = self.replies.get_mut(part as usize)?;
        if entry.is_some() {
            return None;
        }
        self.bytes += reply.bytes();
        *entry = Some(if self.bytes > self.bytes_max { TOO_LARGE } else { reply.into_owned() });
        self.missing -= 1;
        if self.missing > 0 {
            return None;
        }
        let merge = self.merge.take()?;
        Some(merge.finish(self.replies.drain(..).flatten().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_leave_in_the_order_of_their_requests() {
        let (mut replies, mut out) = (Replies::default(), Outbound::new());
        let expected = |protocol, mute, long| Expected { protocol, mute, bytes: 0, long };
        let first = replies.expect(expected(Protocol::Resp2, false, false));
        let second = replies.expect(expected(Protocol::Resp3, false, true));
        let muted = replies.expect(expected(Protocol::Resp2, true, false));
        assert!(replies.is_reading_long());
        replies.answer(Protocol::Resp2, false, &Reply::Simple("PONG"), &mut out);
        replies.complete(second, 0, Reply::Null, &mut out);
        replies.complete(muted, 0, Reply::Ok, &mut out);
        assert!(out.is_empty() && !replies.is_reading_long());
        replies.complete(first, 0, Reply::Int(7), &mut out);
        assert_eq!(out.take_bytes(), ":7\r\n_\r\n+PONG\r\n");
        assert!(replies.is_empty());
        replies.answer(Protocol::Resp2, false, &Reply::Ok, &mut out);
        assert_eq!(out.take_bytes(), "+OK\r\n");
    }
}
