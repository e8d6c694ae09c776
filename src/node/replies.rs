//! Replies leave in the order of their requests, also when the groups answer in another order.

use crate::kv::fanout::Merge;
use crate::kv::reply::Reply;
use bytes::{Bytes, BytesMut};
use net::resp::Protocol;
use std::collections::VecDeque;

/// Where a reply belongs: a connection, the request's number on it, and the part of that request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) connection: u64,
    pub(super) sequence: u64,
    pub(super) part: u32,
}

/// The outstanding replies of one client.
#[derive(Default)]
pub(super) struct Replies {
    slots: VecDeque<Slot>,
    /// The sequence number of the first slot.
    first: u64,
}

struct Slot {
    protocol: Protocol,
    /// CLIENT REPLY OFF or SKIP: it is answered by nothing.
    mute: bool,
    state: State,
}

enum State {
    Waiting,
    Parts(Box<Parts>),
    Ok,
    Int(i64),
    Null,
    Encoded(Bytes),
}

struct Parts {
    /// Taken when all parts are there.
    merge: Option<Merge>,
    replies: Vec<Option<Reply<'static>>>,
    missing: usize,
}

impl Replies {
    /// How many requests are not answered, or answered behind one that is not.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Reserves the place of one reply and returns its number.
    pub(super) fn expect(&mut self, protocol: Protocol, mute: bool) -> u64 {
        self.push(Slot { protocol, mute, state: State::Waiting })
    }

    /// Reserves the place of a reply that is put together from `count` parts.
    pub(super) fn expect_parts(&mut self, protocol: Protocol, mute: bool, merge: Merge, count: usize) -> u64 {
        let parts = Parts { merge: Some(merge), replies: vec![None; count], missing: count };
        self.push(Slot { protocol, mute, state: State::Parts(Box::new(parts)) })
    }

    /// A reply that is known at once.
    pub(super) fn answer(&mut self, protocol: Protocol, mute: bool, reply: &Reply<'_>, out: &mut BytesMut) {
        if self.slots.is_empty() {
            if !mute {
                reply.write(protocol, out);
            }
            self.first += 1;
            return;
        }
        let state = State::of(reply, protocol, mute);
        self.push(Slot { protocol, mute, state });
    }

    /// The reply, or a part of it, has come. What can leave is written to `out`.
    pub(super) fn settle(&mut self, sequence: u64, part: u32, reply: Reply<'_>, out: &mut BytesMut) {
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
        if position > 0 {
            slot.state = State::of(&reply, slot.protocol, slot.mute);
            return;
        }
        if !slot.mute {
            reply.write(slot.protocol, out);
        }
        self.slots.pop_front();
        self.first += 1;
        self.write_settled(out);
    }

    fn write_settled(&mut self, out: &mut BytesMut) {
        while let Some(slot) = self.slots.front() {
            let reply = match &slot.state {
                State::Waiting | State::Parts(_) => return,
                State::Ok => Reply::Ok,
                State::Int(number) => Reply::Int(*number),
                State::Null => Reply::Null,
                State::Encoded(bytes) => {
                    out.extend_from_slice(bytes);
                    self.slots.pop_front();
                    self.first += 1;
                    continue;
                }
            };
            if !slot.mute {
                reply.write(slot.protocol, out);
            }
            self.slots.pop_front();
            self.first += 1;
        }
    }

    fn push(&mut self, slot: Slot) -> u64 {
        self.slots.push_back(slot);
        self.first + self.slots.len() as u64 - 1
    }
}

impl State {
    /// The commonest replies are kept without memory of their own.
    fn of(reply: &Reply<'_>, protocol: Protocol, mute: bool) -> State {
        match reply {
            _ if mute => State::Encoded(Bytes::new()),
            Reply::Ok => State::Ok,
            Reply::Int(number) => State::Int(*number),
            Reply::Null => State::Null,
            reply => {
                let mut encoded = BytesMut::new();
                reply.write(protocol, &mut encoded);
                State::Encoded(encoded.freeze())
            }
        }
    }
}

impl Parts {
    fn settle(&mut self, part: u32, reply: Reply<'_>) -> Option<Reply<'static>> {
        let place = self.replies.get_mut(part as usize)?;
        if place.is_some() {
            return None;
        }
        *place = Some(reply.into_owned());
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
        let (mut replies, mut out) = (Replies::default(), BytesMut::new());
        let first = replies.expect(Protocol::Resp2, false);
        let second = replies.expect(Protocol::Resp3, false);
        let muted = replies.expect(Protocol::Resp2, true);
        replies.answer(Protocol::Resp2, false, &Reply::Simple("PONG"), &mut out);
        replies.settle(second, 0, Reply::Null, &mut out);
        replies.settle(muted, 0, Reply::Ok, &mut out);
        assert!(out.is_empty());
        replies.settle(first, 0, Reply::Int(7), &mut out);
        assert_eq!(&out[..], b":7\r\n_\r\n+PONG\r\n");
        assert!(replies.is_empty());
        out.clear();
        replies.answer(Protocol::Resp2, false, &Reply::Ok, &mut out);
        assert_eq!(&out[..], b"+OK\r\n");
    }
}
