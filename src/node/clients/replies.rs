//! Replies leave in the order of their requests, also when the groups answer in another order.

use crate::kv::fanout::Merge;
use crate::kv::reply::{Reply, TOO_LARGE};
use bytes::Bytes;
use net::outbound::Outbound;
use net::resp::Protocol;
use std::collections::VecDeque;

/// The outstanding replies of one client.
#[derive(Default)]
pub(super) struct Replies {
    slots: VecDeque<Slot>,
    /// The sequence number of the first slot.
    first: u64,
    /// The sum of what the slots hold or are expected to.
    bytes: usize,
    /// Long reads that are not answered.
    long: usize,
}

/// What is known of a reply before it comes.
#[derive(Clone, Copy)]
pub(super) struct Expected {
    pub(super) protocol: Protocol,
    /// CLIENT REPLY OFF or SKIP: it is answered by nothing.
    pub(super) mute: bool,
    /// About how many bytes it will hold, if that may be many.
    pub(super) bytes: usize,
    /// It may come in a later turn than those of its client's next commands.
    pub(super) long: bool,
}

struct Slot {
    protocol: Protocol,
    /// CLIENT REPLY OFF or SKIP: it is answered by nothing.
    mute: bool,
    state: State,
    /// How many bytes it holds or is expected to, if that is known to be many.
    bytes: usize,
    long: bool,
}

enum State {
    Waiting,
    Parts(Box<Parts>),
    Ok,
    Int(i64),
    Null,
    Encoded(Bytes),
    /// It holds long strings, which are not copied.
    Long(Box<Outbound>),
}

pub(super) struct Parts {
    /// Taken when all parts are there.
    merge: Option<Merge>,
    replies: Vec<Option<Reply<'static>>>,
    missing: usize,
    /// What the replies hold together.
    bytes: usize,
    bytes_max: usize,
}

impl Replies {
    /// How many requests are not answered, or answered behind one that is not.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// How many bytes they hold, or are expected to, as far as that was known to be many.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a long read is not answered: what its client sends next must not be seen by it.
    pub(super) fn is_reading_long(&self) -> bool {
        self.long > 0
    }

    /// Reserves the place of one reply and returns its number.
    pub(super) fn expect(&mut self, expected: Expected) -> u64 {
        self.reserve(expected, State::Waiting)
    }

    /// Reserves the place of a reply that is put together from parts.
    pub(super) fn expect_parts(&mut self, expected: Expected, parts: Parts) -> u64 {
        self.reserve(expected, State::Parts(Box::new(parts)))
    }

    fn reserve(&mut self, expected: Expected, state: State) -> u64 {
        let Expected { protocol, mute, bytes, long } = expected;
        self.long += usize::from(long);
        self.push(Slot { protocol, mute, state, bytes, long })
    }

    /// A reply that is known at once.
    pub(super) fn answer(&mut self, protocol: Protocol, mute: bool, reply: &Reply<'_>, out: &mut Outbound) {
        if self.slots.is_empty() {
            if !mute {
                reply.write(protocol, out);
            }
            self.first += 1;
            return;
        }
        let state = State::of(reply, protocol, mute);
        let bytes = state.bytes();
        self.push(Slot { protocol, mute, state, bytes, long: false });
    }

    /// The reply, or a part of it, has come. What can leave is written to `out`.
    pub(super) fn settle(&mut self, sequence: u64, part: u32, reply: Reply<'_>, out: &mut Outbound) {
        let Some(position) = sequence.checked_sub(self.first) else { return };
        let Some(slot) = self.slots.get_mut(position as usize) else { return };
        let reply = match &mut slot.state {
            State::Parts(parts) => match parts.settle(part, reply) {
                Some(whole) => whole,
                None => return,
            },
            State::Waiting => reply,
            _ => return,
        };
        self.long -= usize::from(std::mem::take(&mut slot.long));
        if position > 0 {
            slot.state = State::of(&reply, slot.protocol, slot.mute);
            let bytes = slot.state.bytes();
            self.bytes = self.bytes - std::mem::replace(&mut slot.bytes, bytes) + bytes;
            return;
        }
        if !slot.mute {
            reply.write(slot.protocol, out);
        }
        self.pop();
        self.write_settled(out);
    }

    fn write_settled(&mut self, out: &mut Outbound) {
        while let Some(slot) = self.slots.front_mut() {
            let reply = match &mut slot.state {
                State::Waiting | State::Parts(_) => return,
                State::Ok => Reply::Ok,
                State::Int(number) => Reply::Int(*number),
                State::Null => Reply::Null,
                State::Encoded(bytes) => {
                    out.push(std::mem::take(bytes));
                    self.pop();
                    continue;
                }
                State::Long(queue) => {
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
            self.first += 1;
            self.bytes -= slot.bytes;
        }
    }

    fn push(&mut self, slot: Slot) -> u64 {
        self.bytes += slot.bytes;
        self.slots.push_back(slot);
        self.first + self.slots.len() as u64 - 1
    }
}

impl State {
    fn bytes(&self) -> usize {
        match self {
            State::Encoded(bytes) => bytes.len(),
            State::Long(queue) => queue.len(),
            _ => 0,
        }
    }

    /// The commonest replies are kept without memory of their own.
    fn of(reply: &Reply<'_>, protocol: Protocol, mute: bool) -> State {
        match reply {
            _ if mute => State::Encoded(Bytes::new()),
            Reply::Ok => State::Ok,
            Reply::Int(number) => State::Int(*number),
            Reply::Null => State::Null,
            reply => {
                let mut encoded = Outbound::new();
                reply.write(protocol, &mut encoded);
                match encoded.holds_chunks() {
                    true => State::Long(Box::new(encoded)),
                    false => State::Encoded(encoded.take_bytes()),
                }
            }
        }
    }
}

impl Parts {
    /// Of a reply that `merge` puts together from `count` parts, which together hold no more than `bytes_max`.
    pub(super) fn new(merge: Merge, count: usize, bytes_max: usize) -> Parts {
        Parts { merge: Some(merge), replies: vec![None; count], missing: count, bytes: 0, bytes_max }
    }

    fn settle(&mut self, part: u32, reply: Reply<'_>) -> Option<Reply<'static>> {
        let place = self.replies.get_mut(part as usize)?;
        if place.is_some() {
            return None;
        }
        self.bytes += reply.bytes();
        *place = Some(if self.bytes > self.bytes_max { TOO_LARGE } else { reply.into_owned() });
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
        replies.settle(second, 0, Reply::Null, &mut out);
        replies.settle(muted, 0, Reply::Ok, &mut out);
        assert!(out.is_empty() && !replies.is_reading_long());
        replies.settle(first, 0, Reply::Int(7), &mut out);
        assert_eq!(out.take_bytes(), ":7\r\n_\r\n+PONG\r\n");
        assert!(replies.is_empty());
        replies.answer(Protocol::Resp2, false, &Reply::Ok, &mut out);
        assert_eq!(out.take_bytes(), "+OK\r\n");
    }
}
