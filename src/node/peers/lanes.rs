//! Large messages of groups to and from one peer. They travel in fragments, a few at a time and only while the
//! connection takes them. So pings, votes and small values never wait behind a large value.
//!
//! ```text
//! fragment   header (postcard: stream, group, kind, bytes of the whole body, offset), then a piece of the body
//! ```
//!
//! Each fragment is a frame of its own. Its checksum is computed when it is sent and checked when it arrives, so no
//! turn computes one over a whole large value. A message that depends on an earlier one of its group waits behind it.
//! All others overtake it.

use crate::config::FRAGMENT_BYTES;
use crate::node::wire::NODE;
use bytes::{Bytes, BytesMut};
use groups::{Counter, GroupId, Message};
use net::frame::FrameWriter;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// The kind of a fragment, among the kinds of messages between nodes.
pub const FRAGMENT: u8 = 23;
/// Maximum number of messages in flight to a peer in fragments. The receiver buffers the part of each that has come.
const STREAMS_MAX: usize = 8;
/// Maximum bytes queued for one peer. Beyond it, values for the peer are dropped like lost messages; the peer asks for
/// them later.
const QUEUED_BYTES_MAX: usize = 256 << 20;
/// Minimum and maximum of the window: the bytes of fragments in the connection's queue, behind which small messages
/// wait. The window doubles when the connection has taken everything, and halves when it has not.
const WINDOW_BYTES: (usize, usize) = (FRAGMENT_BYTES, 8 * FRAGMENT_BYTES);
/// Bytes of the window that a small message costs beside its values.
const SMALL_BYTES: usize = 1 << 10;

/// The header of each fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    /// Number of the message. Numbers ascend, also over connections and over starts of the sender.
    stream: u64,
    group: u32,
    kind: u8,
    /// Length of the whole body.
    bytes: u32,
    /// Offset of the piece in the body.
    offset: u32,
}

/// The large messages that wait for one peer, and the messages that wait behind them.
#[derive(Debug)]
pub(super) struct Lanes {
    /// Each lane sends a fragment in turn. Only the first [`STREAMS_MAX`] lanes have begun a message.
    lanes: VecDeque<Lane>,
    bytes: usize,
    streams: u64,
    window: usize,
    fragment_bytes: usize,
}

/// The messages of one group that wait.
#[derive(Debug)]
struct Lane {
    group: GroupId,
    /// True for the lane of promises. They have their own, because they depend on no other message.
    promises: bool,
    waiting: VecDeque<Message>,
    /// Set if the first message has begun.
    begun: Option<Begun>,
}

/// A message of which a part was sent.
#[derive(Debug)]
struct Begun {
    header: Header,
    /// The rest of the body: of the head, then of the tail.
    rest: [Bytes; 2],
}

impl Lanes {
    /// Creates empty lanes for fragments of `fragment_bytes`. Numbers of messages are above `streams`.
    pub(super) fn new(fragment_bytes: usize, streams: u64) -> Lanes {
        Lanes { lanes: VecDeque::new(), bytes: 0, streams, window: WINDOW_BYTES.0, fragment_bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Drops all messages: the connection is gone, and with it the bytes in flight.
    pub(super) fn clear(&mut self) {
        *self = Lanes::new(self.fragment_bytes, self.streams);
    }

    /// Returns true if the message must use the lanes: it is large, or depends on a message of its group that waits
    /// here.
    pub(super) fn concerns(&self, group: GroupId, message: &Message) -> bool {
        message.tail_bytes() > 2 * self.fragment_bytes
            || (!self.is_empty() && keeps_order(message) && self.lanes.iter().any(|lane| lane.is_of(group, false)))
    }

    /// Queues a message, unless the same message waits already or the queue is full.
    pub(super) fn push(&mut self, group: GroupId, message: &Message) {
        let promises = matches!(message, Message::Promise(_));
        let index = self.lanes.iter().position(|lane| lane.is_of(group, promises));
        if index.is_some_and(|index| self.lanes[index].repeats(message)) {
            return;
        }
        let can_be_lost = matches!(message, Message::Accept(_) | Message::Range(_) | Message::Promise(_));
        if can_be_lost && self.bytes >= QUEUED_BYTES_MAX {
            return;
        }
        self.bytes += message.tail_bytes();
        if let Some(index) = index {
            self.bytes -= self.lanes[index].forget_forwards(message);
            return self.lanes[index].waiting.push_back(message.clone());
        }
        let waiting = VecDeque::from([message.clone()]);
        self.lanes.push_back(Lane { group, promises, waiting, begun: None });
    }

    /// Adds fragments to `ready` while the connection has room. `unsent` bytes wait in the connection already.
    pub(super) fn fill(&mut self, unsent: usize, writer: &mut FrameWriter, ready: &mut Vec<Bytes>) {
        if self.lanes.is_empty() {
            return;
        }
        self.window = if unsent == 0 { self.window * 2 } else { self.window / 2 };
        self.window = self.window.clamp(WINDOW_BYTES.0, WINDOW_BYTES.1);
        let mut room = self.window.saturating_sub(unsent);
        while room > 0
            && let Some(mut lane) = self.lanes.pop_front()
        {
            let sent = lane.send(&mut self.streams, self.fragment_bytes, writer, &mut self.bytes);
            writer.finish(ready);
            room = room.saturating_sub(sent);
            if !lane.waiting.is_empty() {
                let index = self.lanes.len().min(STREAMS_MAX - 1);
                self.lanes.insert(index, lane);
            }
        }
    }
}

impl Lane {
    fn is_of(&self, group: GroupId, promises: bool) -> bool {
        self.group == group && self.promises == promises
    }

    /// Returns true if the same message waits here already.
    fn repeats(&self, message: &Message) -> bool {
        self.waiting.iter().any(|known| match (known, message) {
            (Message::Accept(known), Message::Accept(new)) => {
                (known.ballot, known.instance) == (new.ballot, new.instance)
            }
            (Message::Promise(known), Message::Promise(new)) => {
                (known.ballot, known.instance) == (new.ballot, new.instance)
            }
            (Message::Range(known), Message::Range(new)) => {
                known.first == new.first && known.values.len() == new.values.len()
            }
            _ => false,
        })
    }

    /// Removes the waiting Forwards if `message` forwards all commands anew. Returns the bytes that are freed.
    fn forget_forwards(&mut self, message: &Message) -> usize {
        if !matches!(message, Message::Forward(forward) if forward.after == Counter(0)) {
            return 0;
        }
        let (mut freed, mut begun) = (0, self.begun.is_some());
        self.waiting.retain(|known| {
            let stays = std::mem::take(&mut begun) || !matches!(known, Message::Forward(_));
            freed += if stays { 0 } else { known.tail_bytes() };
            stays
        });
        freed
    }

    /// Sends a small message, or a fragment of a large one. Returns about how many bytes were sent.
    fn send(
        &mut self,
        streams: &mut u64,
        fragment_bytes: usize,
        writer: &mut FrameWriter,
        queued: &mut usize,
    ) -> usize {
        let Some(message) = self.waiting.front() else { return 0 };
        let bytes = message.tail_bytes();
        if bytes <= 2 * fragment_bytes {
            writer.message(self.group.0, message.kind(), |out| message.encode_head(out));
            *queued -= bytes;
            self.waiting.pop_front();
            return bytes + SMALL_BYTES;
        }
        let group = self.group.0;
        let begun = self.begun.get_or_insert_with(|| {
            *streams += 1;
            let mut head = BytesMut::new();
            let tail = message.encode_head(&mut head);
            let bytes = u32::try_from(head.len() + tail.len()).expect("messages are far below 4 GiB");
            let header = Header { stream: *streams, group, kind: message.kind(), bytes, offset: 0 };
            Begun { header, rest: [head.freeze(), tail] }
        });
        let head = begun.rest[0].split_to(begun.rest[0].len().min(fragment_bytes));
        let tail = begun.rest[1].split_to(begun.rest[1].len().min(fragment_bytes - head.len()));
        let sent = head.len() + tail.len();
        let header = begun.header;
        begun.header.offset += sent as u32;
        writer.message(NODE, FRAGMENT, |out| {
            let mut short = [0; 32];
            out.extend_from_slice(postcard::to_slice(&header, &mut short).expect("a fragment's header is short"));
            out.extend_from_slice(&head);
            tail
        });
        if begun.rest.iter().all(Bytes::is_empty) {
            *queued -= bytes;
            self.waiting.pop_front();
            self.begun = None;
        }
        sent
    }
}

/// Returns true if the message must not overtake an earlier message of its group. If it arrived first, it would mean
/// something else or cost more: a Chosen before its Accept would make the receiver fetch the value a second time.
fn keeps_order(message: &Message) -> bool {
    match message {
        Message::Accept(_) | Message::Chosen(_) | Message::Range(_) | Message::Forward(_) | Message::Handover(_) => {
            true
        }
        Message::Prepare(_) | Message::Promise(_) | Message::Reject(_) | Message::Ahead(_) | Message::Vote(_) => false,
        Message::Behind(_) | Message::Diverged(_) | Message::Fetch(_) | Message::NotLeader(_) => false,
        Message::PreVote(_) | Message::PreVoted(_) => false,
    }
}

/// The messages of which a peer has sent a part.
#[derive(Debug, Default)]
pub struct Assembly {
    /// The parts, each with the header of its first fragment.
    parts: Vec<(Header, BytesMut)>,
    /// The highest number of a message that has begun.
    newest: u64,
}

/// The message of a fragment, and its body once it is complete.
#[derive(Debug, PartialEq, Eq)]
pub struct Arrived {
    /// The group of the message.
    pub group: u32,
    /// Its kind.
    pub kind: u8,
    /// The whole body, after the last fragment.
    pub body: Option<Bytes>,
}

impl Assembly {
    /// Adds a fragment of a message whose body has at most `bytes_max` bytes.
    ///
    /// # Errors
    /// The reason why these bytes cannot be a fragment.
    pub fn add(&mut self, fragment: &[u8], bytes_max: usize) -> Result<Arrived, String> {
        let malformed = || "a malformed fragment of a message".to_owned();
        let (header, piece) = postcard::take_from_bytes::<Header>(fragment).map_err(|_| malformed())?;
        let Header { stream, group, kind, bytes, offset } = header;
        if bytes as usize > bytes_max {
            return Err(format!("a message of {bytes} bytes in fragments exceeds the limit of {bytes_max}"));
        }
        let index = match self.parts.iter().position(|(known, _)| known.stream == stream) {
            Some(index) => index,
            // This fragment is a repetition: its message is complete.
            None if stream <= self.newest => return Ok(Arrived { group, kind, body: None }),
            None if self.parts.len() >= STREAMS_MAX => {
                return Err(format!("more than {STREAMS_MAX} messages in fragments at a time"));
            }
            None => {
                self.newest = stream;
                self.parts.push((Header { offset: 0, ..header }, BytesMut::new()));
                self.parts.len() - 1
            }
        };
        let (first, body) = &mut self.parts[index];
        if (offset as usize) < body.len() {
            return Ok(Arrived { group, kind, body: None });
        }
        let end = body.len() + piece.len();
        if *first != (Header { offset: 0, ..header }) || offset as usize > body.len() || end > bytes as usize {
            return Err(malformed());
        }
        // The memory grows with the bytes that arrived, not with the announced length.
        body.extend_from_slice(piece);
        let body = (body.len() == bytes as usize).then(|| self.parts.swap_remove(index).1.freeze());
        Ok(Arrived { group, kind, body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use groups::message::{Accept, Chosen, Vote};
    use groups::{Ballot, Instance, Ms, NodeId, ValueBuilder};
    use net::frame::{Purpose, decode};

    const GROUP: GroupId = GroupId(3);

    fn ballot() -> Ballot {
        Ballot { round: 5, node: NodeId(1) }
    }

    fn accept(instance: u64, bytes: usize) -> Message {
        let mut builder = ValueBuilder::default();
        let mut origin = groups::origin::OriginQueue::new(NodeId(1), 1);
        origin.push(|out| out.resize(out.len() + bytes, instance as u8));
        builder.extend(origin.send(usize::MAX).1, 1);
        let value = builder.seal(0, Ms(0), None);
        Message::Accept(Accept { ballot: ballot(), instance: Instance(instance), chosen: ballot(), value })
    }

    fn chosen(instance: u64) -> Message {
        Message::Chosen(Chosen { instance: Instance(instance), ballot: ballot() })
    }

    /// Returns all messages that the lanes send, in the order in which they are complete, and the bytes of the longest
    /// fill.
    fn drain(lanes: &mut Lanes) -> (Vec<(u32, Message)>, usize) {
        let (mut assembly, mut messages, mut longest) = (Assembly::default(), Vec::new(), 0);
        let mut writer = FrameWriter::new(Purpose::Live);
        while !lanes.is_empty() {
            let mut ready = Vec::new();
            lanes.fill(0, &mut writer, &mut ready);
            let mut input = BytesMut::from(&ready.concat()[..]);
            longest = longest.max(input.len());
            while let Some(frame) = decode(&mut input, 1 << 20).unwrap() {
                for message in frame.messages().map(Result::unwrap) {
                    if message.group != NODE {
                        let whole = Message::decode(message.kind, &message.body).unwrap();
                        messages.push((message.group, whole));
                        continue;
                    }
                    let arrived = assembly.add(&message.body, 1 << 30).unwrap();
                    let whole = arrived.body.map(|body| Message::decode(arrived.kind, &body).unwrap());
                    messages.extend(whole.map(|message| (arrived.group, message)));
                }
            }
        }
        assert!(assembly.parts.is_empty() && lanes.bytes == 0);
        (messages, longest)
    }

    #[test]
    fn large_messages_come_whole_and_dependent_ones_come_behind_them() {
        let mut lanes = Lanes::new(FRAGMENT_BYTES, 0);
        let sent = [accept(7, 3 << 20), chosen(7), accept(8, 10)];
        for message in &sent {
            assert!(lanes.concerns(GROUP, message));
            lanes.push(GROUP, message);
        }
        let vote = Message::Vote(Vote { ballot: ballot(), instance: Instance(7) });
        assert!(!lanes.concerns(GROUP, &vote), "a vote overtakes");
        assert!(!lanes.concerns(GroupId(4), &chosen(7)), "other groups overtake");
        let (messages, longest) = drain(&mut lanes);
        assert_eq!(messages, sent.map(|message| (GROUP.0, message)));
        assert!(longest <= WINDOW_BYTES.1 + 2 * FRAGMENT_BYTES, "{longest} bytes in one turn");
        assert!(!lanes.concerns(GROUP, &chosen(7)), "nothing waits any more");
    }

    #[test]
    fn a_shorter_message_of_another_group_is_there_earlier() {
        let mut lanes = Lanes::new(FRAGMENT_BYTES, 0);
        lanes.push(GroupId(1), &accept(1, 8 << 20));
        lanes.push(GroupId(2), &accept(1, 1 << 20));
        let order: Vec<u32> = drain(&mut lanes).0.into_iter().map(|(group, _)| group).collect();
        assert_eq!(order, [2, 1]);
    }

    #[test]
    fn the_same_message_is_not_queued_twice_and_the_queue_is_bounded() {
        let mut lanes = Lanes::new(FRAGMENT_BYTES, 0);
        let message = accept(1, 1 << 20);
        (0..5).for_each(|_| lanes.push(GROUP, &message));
        assert_eq!(lanes.lanes[0].waiting.len(), 1);
        lanes.bytes += QUEUED_BYTES_MAX;
        lanes.push(GROUP, &accept(2, 1 << 20));
        assert_eq!(lanes.lanes[0].waiting.len(), 1);
        lanes.bytes -= QUEUED_BYTES_MAX;
    }

    #[test]
    fn a_connection_that_is_slow_gets_little_at_a_time() {
        let mut lanes = Lanes::new(FRAGMENT_BYTES, 0);
        lanes.push(GROUP, &accept(1, 8 << 20));
        let (mut writer, mut ready) = (FrameWriter::new(Purpose::Live), Vec::new());
        (0..10).for_each(|_| lanes.fill(0, &mut writer, &mut ready));
        assert_eq!(lanes.window, WINDOW_BYTES.1);
        (0..10).for_each(|_| lanes.fill(FRAGMENT_BYTES, &mut writer, &mut ready));
        ready.clear();
        lanes.fill(FRAGMENT_BYTES, &mut writer, &mut ready);
        assert!(ready.is_empty() && lanes.window == WINDOW_BYTES.0);
    }

    #[test]
    fn no_more_streams_begin_than_the_receiver_takes() {
        let mut lanes = Lanes::new(FRAGMENT_BYTES, 0);
        (0..100).for_each(|group| lanes.push(GroupId(group), &accept(1, 200 << 10)));
        assert_eq!(drain(&mut lanes).0.len(), 100);
    }

    #[test]
    fn an_impossible_fragment_is_refused() {
        let fragment = |stream, bytes, offset, piece: &[u8]| {
            let header = Header { stream, group: 1, kind: 5, bytes, offset };
            [&postcard::to_allocvec(&header).unwrap()[..], piece].concat()
        };
        let nothing = Arrived { group: 1, kind: 5, body: None };
        let mut assembly = Assembly::default();
        assert!(assembly.add(&[], 100).is_err() && assembly.add(&fragment(1, 101, 0, b"a"), 100).is_err());
        assert_eq!(assembly.add(&fragment(1, 3, 0, b"a"), 100), Ok(nothing));
        assert!(assembly.add(&fragment(1, 4, 1, b"b"), 100).is_err(), "another message under the same number");
        assert!(assembly.add(&fragment(1, 3, 1, b"bcd"), 100).is_err(), "longer than it said");
        assert!(assembly.add(&fragment(1, 3, 2, b"c"), 100).is_err(), "a piece is missing");
        assert_eq!(assembly.add(&fragment(1, 3, 0, b"a"), 100).unwrap().body, None, "a piece that came before");
        let whole = assembly.add(&fragment(1, 3, 1, b"bc"), 100).unwrap().body;
        assert_eq!(whole.as_deref(), Some(&b"abc"[..]));
        assert_eq!(assembly.add(&fragment(1, 3, 1, b"bc"), 100).unwrap().body, None, "the end again");
        let mut assembly = Assembly::default();
        let taken = (1..100).take_while(|stream| assembly.add(&fragment(*stream, 9, 0, b"a"), 100).is_ok()).count();
        assert_eq!(taken, STREAMS_MAX);
    }
}
