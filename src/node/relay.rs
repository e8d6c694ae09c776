//! Relay: commands that another member executes. A node with a full disk accepts no values. So it learns neither the
//! outcome of its clients' commands nor the writes of other nodes' clients. While another member has space, the node
//! passes all commands of its clients on to that member. The member treats them like commands of its own clients, and
//! sends the replies back. Later, when the node has caught up, it executes the commands itself again.
//!
//! All commands go to one member, so that they keep their order. A client whose earlier commands went to another
//! executor first waits for their replies.

use super::Time;
use super::clients::{Submission, encoded};
use super::engine::{Engine, RequestContext};
use super::peers::Peers;
use super::ticket::{ServedId, Ticket};
use super::wire::{NodeMessage, Relay, Relayed};
use crate::config::{RELAY_BYTES_MAX, RELAY_GRACE_MS, RELAYS_MAX};
use crate::kv::fanout::{NOT_SERVED, UNCERTAIN};
use crate::kv::reply::Reply;
use crate::kv::stored_reply;
use crate::versions::Versions;
use groups::{Ms, NodeId};
use net::event::ConnectionId;
use slab::Slab;
use std::collections::BTreeMap;

/// Position of the sender's start number in the number of a relayed command: the lower 40 bits count within one start.
/// One process passes on far fewer than 2^40 commands.
const START_SHIFT: u32 = 40;
/// The lowest bits of the sender's start number, which stand in the number.
const START_MASK: u64 = 0xffff;
/// Position of the 8 bits that stand for the receiver's start; 0 in the numbers of older versions.
const RECEIVER_SHIFT: u32 = START_SHIFT + START_MASK.count_ones();

/// The commands in flight to other members, and those that this node executes for other members.
pub(super) struct Relays {
    /// The member that executes the commands of this node's clients.
    to: Option<NodeId>,
    /// This node's start number.
    start: u64,
    /// By number, without the bits for the receiver's start.
    sent: BTreeMap<u64, Sent>,
    number: u64,
    served: Slab<Served>,
    /// By member, its start number and the highest number that it has used in this start. A number that is not higher
    /// is a repetition, or came too late.
    newest: BTreeMap<NodeId, (u64, u64)>,
    /// Number of commands passed on since the start.
    sent_total: u64,
}

/// Replies to this node's clients, each with its request.
pub(super) type Answers = Vec<(RequestContext, Reply<'static>)>;

struct Sent {
    to: NodeId,
    context: RequestContext,
    deadline_ms: Ms,
    is_write: bool,
}

struct Served {
    link: ConnectionId,
    number: u64,
    is_write: bool,
}

impl Relays {
    /// Creates the state. Numbers contain `start`, this node's start number, so those of different starts differ.
    pub(super) fn new(start: u64) -> Relays {
        Relays {
            to: None,
            start,
            sent: BTreeMap::new(),
            number: (start & START_MASK) << START_SHIFT,
            served: Slab::new(),
            newest: BTreeMap::new(),
            sent_total: 0,
        }
    }

    /// Forgets a node that is no longer a member.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.newest.remove(&node);
    }

    /// Returns the number of this node's commands that are in flight to other members.
    pub(super) fn sent(&self) -> usize {
        self.sent.len()
    }

    /// Returns the member that executes the commands of this node's clients; `None` if this node does so itself.
    pub(super) fn to(&self) -> Option<NodeId> {
        self.to
    }
}

impl Relays {
    /// Returns the number of commands passed on since the start.
    pub(super) fn sent_total(&self) -> u64 {
        self.sent_total
    }

    /// Decides which node executes the clients' commands: this one, unless its log is full, or was full and the node
    /// has not caught up yet. Returns errors for the commands whose replies are too late. An error tells whether the
    /// command may have been executed.
    pub(super) fn tick(&mut self, engine: &Engine, peers: &Peers, time: Time) -> Answers {
        let before = self.to;
        let is_full = engine.space().full;
        let is_needed = is_full || (before.is_some() && engine.groups().any(groups::Group::is_behind));
        self.to = if is_needed { self.target(peers, time) } else { None };
        match self.to {
            to if to == before => {}
            Some(to) => tracing::warn!("the disk is full: commands of clients are passed on to node {to}"),
            None if is_full => tracing::warn!("the disk is full, and no other node takes commands of clients"),
            None => tracing::info!("commands of clients are carried out here again"),
        }
        let mut answers = Vec::new();
        while let Some(entry) = self.sent.first_entry()
            && entry.get().deadline_ms <= time.mono_ms()
        {
            answers.push(entry.remove().given_up());
        }
        answers
    }

    /// Returns a member that is reached and has space. Keeps the present target as long as possible.
    fn target(&self, peers: &Peers, time: Time) -> Option<NodeId> {
        let able = peers.iter().filter(|peer| {
            let is_there = peer.is_reached(time.mono_ms()) && !peer.is_loading() && peers.voters().contains(peer.id());
            is_there && peer.has_disk() && peer.version() >= Versions::RELAYS
        });
        let able: Vec<NodeId> = able.map(|peer| peer.id()).collect();
        self.to.filter(|to| able.contains(to)).or(able.first().copied())
    }

    /// Passes a command on to the member of [`Relays::to`]. The command has `timeout_ms` from now.
    pub(super) fn send(&mut self, submission: &Submission<'_>, timeout_ms: Ms, peers: &mut Peers, time: Time) {
        let Submission { group, verb, command, ticket, .. } = *submission;
        let Some(to) = self.to else { return };
        self.number += 1;
        self.sent_total += 1;
        let (number, since_us) = (self.number, time.mono_us);
        let deadline_ms = time.mono_ms() + timeout_ms + RELAY_GRACE_MS;
        let context = RequestContext { ticket, verb, since_us };
        self.sent.insert(number, Sent { to, context, deadline_ms, is_write: command.is_write() });
        let number = number | receiver_bits(peers.seen_as(to).map_or(0, |seen| seen.start)) << RECEIVER_SHIFT;
        if let Some(peer) = peers.find(to) {
            peer.send_node_message(&NodeMessage::Relay(Relay { number, group, timeout_ms, body: encoded(command) }));
        }
    }

    /// Returns true if a member's command comes for the first time. The member's present start number is `from_start`.
    /// What was sent in an earlier start of the sender or of this node may have been executed already: this node does
    /// not remember the numbers of its earlier starts.
    pub(super) fn is_new(&mut self, from: NodeId, from_start: u64, number: u64) -> bool {
        let receiver = number >> RECEIVER_SHIFT;
        let is_of_now = number >> START_SHIFT & START_MASK == from_start & START_MASK
            && (receiver == 0 || receiver == receiver_bits(self.start));
        if !is_of_now {
            return false;
        }
        let (start, newest) = self.newest.entry(from).or_default();
        if *start != from_start {
            (*start, *newest) = (from_start, 0);
        }
        let is_new = number > *newest;
        *newest = number.max(*newest);
        is_new
    }

    /// Returns the refusal of other members' commands, if there are too many, or if this node passes commands on
    /// itself: they could then go in circles.
    pub(super) fn refusal(&self) -> Option<Reply<'static>> {
        (self.to.is_some() || self.served.len() >= RELAYS_MAX).then_some(NOT_SERVED)
    }

    /// Notes a command of another member that came on the connection `link` and is executed now. Returns the ticket of
    /// its reply.
    pub(super) fn admit(&mut self, link: ConnectionId, number: u64, is_write: bool) -> Ticket {
        Ticket::Relayed(ServedId(self.served.insert(Served { link, number, is_write })))
    }

    /// Takes the reply to a command that was passed on. Returns it with the client's request.
    pub(super) fn on_reply<'r>(&mut self, relayed: &'r Relayed) -> Option<(RequestContext, Reply<'r>)> {
        let sent = self.sent.remove(&(relayed.number & ((1 << RECEIVER_SHIFT) - 1)))?;
        Some((sent.context, stored_reply::unpack(&relayed.reply).unwrap_or_else(|_| unknown(sent.is_write))))
    }

    /// Gives up all commands that `from` has and has not answered: the connection is gone, and their outcome is
    /// unknown.
    pub(super) fn on_cut(&mut self, from: NodeId, peers: &Peers, time: Time) -> Answers {
        let lost = self.sent.extract_if(.., |_, sent| sent.to == from).map(|(_, sent)| sent.given_up()).collect();
        if self.to == Some(from) {
            self.to = self.target(peers, time);
        }
        lost
    }

    /// Sends the reply to another member's command on the connection that the command came on. If that connection is
    /// gone, the member has given the command up, and the reply is dropped.
    pub(super) fn answer(&mut self, served: ServedId, reply: &Reply<'_>, peers: &mut Peers) {
        let Some(Served { link, number, is_write }) = self.served.try_remove(served.0) else { return };
        let mut packed = Vec::new();
        stored_reply::pack(reply, &mut packed);
        if packed.len() > RELAY_BYTES_MAX {
            packed.clear();
            stored_reply::pack(if is_write { &UNCERTAIN } else { &TOO_LONG }, &mut packed);
        }
        if let Some(peer) = peers.by_link(link) {
            peer.send_node_message(&NodeMessage::Relayed(Relayed { number, reply: packed.into() }));
        }
    }
}

impl Sent {
    fn given_up(self) -> (RequestContext, Reply<'static>) {
        (self.context, unknown(self.is_write))
    }
}

/// Returns the 8 bits that stand for a start of the receiver of commands; never 0.
fn receiver_bits(start: u64) -> u64 {
    start % 0xff + 1
}

/// Returns the answer to a member whose command is refused.
pub(super) fn refused(number: u64, reply: &Reply<'_>) -> NodeMessage {
    let mut packed = Vec::new();
    stored_reply::pack(reply, &mut packed);
    NodeMessage::Relayed(Relayed { number, reply: packed.into() })
}

pub(super) const TOO_LONG: Reply<'static> = Reply::Error(std::borrow::Cow::Borrowed(
    "MISCONF the disk of this node is full, and the reply of another node is too long to pass on: ask a node with disk \
     space",
));

/// Returns the error for a command without a reply: a write may have been executed.
fn unknown(is_write: bool) -> Reply<'static> {
    if is_write { UNCERTAIN } else { NOT_SERVED }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NodeConfig;
    use crate::identity::Identity;
    use crate::kv::command::Command;
    use crate::node::clients::Request;
    use crate::node::peers::Roster;
    use crate::node::ticket::{ClientTicket, RequestNumber};
    use groups::{GroupId, Membership};

    fn peers() -> Peers {
        let identity = Identity {
            storage_id: [1; 16],
            node: NodeId(1),
            start: 1,
            incarnations: vec![1],
            birth: None,
            joined: Vec::new(),
        };
        let roster = Roster::of_one(&Membership::of_ids((1..=3).map(NodeId)));
        Peers::new(&identity, roster, &NodeConfig::for_test(NodeId(1)))
    }

    fn client_ticket(number: u64) -> Ticket {
        Ticket::Client(ClientTicket { connection: ConnectionId(7), request: RequestNumber(number), part: 0 })
    }

    /// Passes on to node 2 a command of a client's request `number`.
    fn send(relays: &mut Relays, number: u64, command: &Command<'_>, peers: &mut Peers) {
        relays.to = Some(NodeId(2));
        let ticket = client_ticket(number);
        let request = Request { words: &[], bytes: 10, buffer: &bytes::Bytes::new() };
        let submission = Submission { group: GroupId(0), verb: 0, command, body: None, request, ticket };
        relays.send(&submission, Ms(1_000), peers, Time::default());
    }

    #[test]
    fn a_reply_finds_its_client_once() {
        let (mut relays, mut peers) = (Relays::new(3), peers());
        send(&mut relays, 5, &Command::Get(b"k"), &mut peers);
        let NodeMessage::Relayed(relayed) = refused((3 << START_SHIFT) + 1, &Reply::Int(8)) else { panic!("a reply") };
        let (context, reply) = relays.on_reply(&relayed).unwrap();
        assert_eq!((context.ticket, reply), (client_ticket(5), Reply::Int(8)));
        assert_eq!((relays.on_reply(&relayed), relays.sent(), relays.sent_total()), (None, 0, 1));
    }

    #[test]
    fn commands_at_a_lost_member_have_an_unknown_fate() {
        let (mut relays, mut peers) = (Relays::new(1), peers());
        send(&mut relays, 1, &Command::Get(b"k"), &mut peers);
        send(&mut relays, 2, &Command::Append(b"k", b"v"), &mut peers);
        assert!(relays.on_cut(NodeId(3), &peers, Time::default()).is_empty());
        let lost = relays.on_cut(NodeId(2), &peers, Time::default());
        let lost: Vec<_> = lost.into_iter().map(|(context, reply)| (context.ticket, reply)).collect();
        assert_eq!(lost, [(client_ticket(1), NOT_SERVED), (client_ticket(2), UNCERTAIN)]);
        assert_eq!(relays.to(), None, "nobody else can be asked");
    }

    #[test]
    fn commands_of_earlier_starts_are_ignored() {
        // What node 1 in its start 7 sends to node 2, which node 1 has not met: it takes start 0 for granted.
        let (mut sender, mut peers) = (Relays::new(7), peers());
        send(&mut sender, 1, &Command::Get(b"k"), &mut peers);
        let number = sender.number | receiver_bits(0) << RECEIVER_SHIFT;
        for (own_start, from_start, expected) in [(0, 7, true), (0, 8, false), (1, 7, false), (255, 7, true)] {
            let mut relays = Relays::new(own_start);
            assert_eq!(relays.is_new(NodeId(1), from_start, number), expected, "{own_start} {from_start}");
        }
        // An older version tells nothing of the receiver's start.
        assert!(Relays::new(1).is_new(NodeId(1), 7, 7 << START_SHIFT | 1));
        let (context, _) = sender.on_reply(&Relayed { number, reply: Vec::new().into() }).unwrap();
        assert_eq!(context.ticket, client_ticket(1));
    }

    #[test]
    fn a_member_is_served_once_for_each_number_and_by_few_commands_at_a_time() {
        let (mut relays, mut peers) = (Relays::new(1), peers());
        let mut is_new = |from, start, number| relays.is_new(NodeId(from), start, start << START_SHIFT | number);
        assert!(is_new(2, 1, 5) && !is_new(2, 1, 5) && !is_new(2, 1, 4));
        assert!(is_new(3, 1, 4));
        assert!(is_new(2, 2, 1) && !is_new(2, 2, 1));
        let ticket = relays.admit(ConnectionId(9), 5, true);
        let Ticket::Relayed(served) = ticket else { panic!("{ticket:?} is not a member's") };
        assert_eq!(relays.refusal(), None);
        for number in 1..RELAYS_MAX as u64 {
            relays.admit(ConnectionId(9), number, false);
        }
        assert_eq!(relays.refusal(), Some(NOT_SERVED));
        relays.answer(served, &Reply::Ok, &mut peers);
        assert_eq!(relays.refusal(), None);
        relays.to = Some(NodeId(2));
        assert_eq!(relays.refusal(), Some(NOT_SERVED), "commands do not go in circles");
    }
}
