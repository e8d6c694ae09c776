//! Commands that another member carries out. A node whose disk is full takes no value on, so it does not learn what
//! becomes of its clients' commands, nor what others wrote. As long as another member has space, all commands of its
//! clients go there: that one treats them as those of its own clients, and sends the replies back. Afterwards, when
//! this node has caught up, it carries them out itself again.
//!
//! All go to one member, so that they keep their order; and a client whose earlier commands went another way waits for their
//! replies first.

use super::Time;
use super::clients::{Submission, encoded};
use super::engine::{Asked, Engine};
use super::peers::Peers;
use super::ticket::Ticket;
use super::wire::{NodeMessage, Relay, Relayed};
use crate::config::{RELAY_BYTES_MAX, RELAY_GRACE_MS, RELAYS_MAX};
use crate::kv::fanout::{NOT_SERVED, UNCERTAIN};
use crate::kv::kept;
use crate::kv::reply::Reply;
use crate::versions::Versions;
use groups::NodeId;
use slab::Slab;
use std::collections::BTreeMap;

/// The connection in the tickets of other members' commands; the ticket's number is the place in [`Relays::served`].
pub(super) const RELAYED: u64 = u64::MAX;
/// A process passes on far fewer commands than this power of two.
const START_SHIFT: u32 = 40;

/// Commands on their way to other members, and those that this node carries out for them.
pub(super) struct Relays {
    /// The member that carries the commands of this node's clients out.
    to: Option<NodeId>,
    sent: BTreeMap<u64, Sent>,
    number: u64,
    served: Slab<Served>,
    /// By member: the highest number that it has given. A number that is not above it is a repetition, or came too late.
    newest: BTreeMap<NodeId, u64>,
    /// How many were passed on since the start.
    sent_total: u64,
}

/// What clients of this node are told, and who asked.
pub(super) type Answers = Vec<(Asked, Reply<'static>)>;

struct Sent {
    to: NodeId,
    asked: Asked,
    deadline_ms: u64,
    is_write: bool,
}

struct Served {
    link: u64,
    number: u64,
    is_write: bool,
}

impl Relays {
    /// `start`: how often this node was started. Numbers of one start of the node are not those of another.
    pub(super) fn new(start: u64) -> Relays {
        Relays {
            to: None,
            sent: BTreeMap::new(),
            number: start << START_SHIFT,
            served: Slab::new(),
            newest: BTreeMap::new(),
            sent_total: 0,
        }
    }

    /// A node is no member any more.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.newest.remove(&node);
    }

    /// Commands of this node's clients that are with other members.
    pub(super) fn sent(&self) -> usize {
        self.sent.len()
    }

    /// Who carries the commands of this node's clients out, if it does not itself.
    pub(super) fn to(&self) -> Option<NodeId> {
        self.to
    }
}

impl Relays {
    /// How many commands were passed on since the start.
    pub(super) fn sent_total(&self) -> u64 {
        self.sent_total
    }

    /// Decides who carries the commands of clients out: this node, unless it cannot log; and after that not before it has
    /// caught up. Commands that were passed on too long ago get the error that says what is known of their fate.
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

    /// A member that is reached and has space; the same one for as long as possible.
    fn target(&self, peers: &Peers, time: Time) -> Option<NodeId> {
        let able = peers.iter().filter(|peer| {
            let is_there = peer.is_reached(time.mono_ms()) && !peer.is_loading() && peers.voters().contains(peer.id());
            is_there && peer.has_disk() && peer.version() >= Versions::RELAYS
        });
        let able: Vec<NodeId> = able.map(|peer| peer.id()).collect();
        self.to.filter(|to| able.contains(to)).or(able.first().copied())
    }

    /// Passes a command on to the member that [`Relays::to`] names. It has `timeout_ms` from now.
    pub(super) fn send(&mut self, submission: &Submission<'_>, timeout_ms: u64, peers: &mut Peers, time: Time) {
        let Submission { group, verb, command, ticket, .. } = *submission;
        let Some(to) = self.to else { return };
        self.number += 1;
        self.sent_total += 1;
        let (number, since_us) = (self.number, time.mono_us);
        let deadline_ms = time.mono_ms() + timeout_ms + RELAY_GRACE_MS;
        let asked = Asked { ticket, verb, since_us };
        self.sent.insert(number, Sent { to, asked, deadline_ms, is_write: command.is_write() });
        if let Some(peer) = peers.find(to) {
            peer.tell(&NodeMessage::Relay(Relay { number, group, timeout_ms, body: encoded(command) }));
        }
    }

    /// Returns true if a member's command comes for the first time.
    pub(super) fn is_new(&mut self, from: NodeId, number: u64) -> bool {
        let newest = self.newest.entry(from).or_default();
        let is_new = number > *newest;
        *newest = number.max(*newest);
        is_new
    }

    /// Why no command of another member is carried out now: there are too many, or it would go in circles.
    pub(super) fn refusal(&self) -> Option<Reply<'static>> {
        (self.to.is_some() || self.served.len() >= RELAYS_MAX).then_some(NOT_SERVED)
    }

    /// Another member's command, which came on this connection, is carried out: the reply comes by the ticket.
    pub(super) fn admit(&mut self, link: u64, number: u64, is_write: bool) -> Ticket {
        let sequence = self.served.insert(Served { link, number, is_write }) as u64;
        Ticket { connection: RELAYED, sequence, part: 0 }
    }

    /// The reply to a command of this node's client has come.
    pub(super) fn on_reply<'r>(&mut self, relayed: &'r Relayed) -> Option<(Asked, Reply<'r>)> {
        let sent = self.sent.remove(&relayed.number)?;
        Some((sent.asked, kept::unpack(&relayed.reply).unwrap_or_else(|_| unknown(sent.is_write))))
    }

    /// The connection to a member is gone: what it was given, and does not tell any more, has an unknown fate.
    pub(super) fn on_cut(&mut self, from: NodeId, peers: &Peers, time: Time) -> Answers {
        let lost = self.sent.extract_if(.., |_, sent| sent.to == from).map(|(_, sent)| sent.given_up()).collect();
        if self.to == Some(from) {
            self.to = self.target(peers, time);
        }
        lost
    }

    /// The reply to another member's command. On a new connection it has been given up already.
    pub(super) fn answer(&mut self, ticket: Ticket, reply: &Reply<'_>, peers: &mut Peers) {
        let Some(Served { link, number, is_write }) = self.served.try_remove(ticket.sequence as usize) else {
            return;
        };
        let mut packed = Vec::new();
        kept::pack(reply, &mut packed);
        if packed.len() > RELAY_BYTES_MAX {
            packed.clear();
            kept::pack(if is_write { &UNCERTAIN } else { &TOO_LONG }, &mut packed);
        }
        if let Some(peer) = peers.by_link(link) {
            peer.tell(&NodeMessage::Relayed(Relayed { number, reply: packed.into() }));
        }
    }
}

impl Sent {
    fn given_up(self) -> (Asked, Reply<'static>) {
        (self.asked, unknown(self.is_write))
    }
}

/// The answer to a member whose command is not carried out.
pub(super) fn refused(number: u64, reply: &Reply<'_>) -> NodeMessage {
    let mut packed = Vec::new();
    kept::pack(reply, &mut packed);
    NodeMessage::Relayed(Relayed { number, reply: packed.into() })
}

pub(super) const TOO_LONG: Reply<'static> = Reply::Error(std::borrow::Cow::Borrowed(
    "MISCONF the disk of this node is full, and the reply is too long for another node to pass it on: ask a node with space",
));

/// What is known of a command whose reply is not.
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
    use groups::{GroupId, Membership};

    fn peers() -> Peers {
        let identity = Identity {
            storage_id: [1; 16],
            node: NodeId(1),
            start: 1,
            lives: vec![1],
            birth: None,
            joined: Vec::new(),
        };
        let roster = Roster::of_one(&Membership::of_ids((1..=3).map(NodeId)));
        Peers::new(&identity, roster, &NodeConfig::for_test(NodeId(1)))
    }

    /// Passes a command on to node 2 for this request of a client.
    fn send(relays: &mut Relays, sequence: u64, command: &Command<'_>, peers: &mut Peers) {
        relays.to = Some(NodeId(2));
        let ticket = Ticket { connection: 7, sequence, part: 0 };
        let request = Request { words: &[], bytes: 10, buffer: &bytes::Bytes::new() };
        let submission = Submission { group: GroupId(0), verb: 0, command, body: None, request, ticket };
        relays.send(&submission, 1_000, peers, Time::default());
    }

    #[test]
    fn a_reply_finds_its_client_once() {
        let (mut relays, mut peers) = (Relays::new(3), peers());
        send(&mut relays, 5, &Command::Get(b"k"), &mut peers);
        let NodeMessage::Relayed(relayed) = refused((3 << START_SHIFT) + 1, &Reply::Int(8)) else { panic!("a reply") };
        let (asked, reply) = relays.on_reply(&relayed).unwrap();
        assert_eq!((asked.ticket.sequence, reply), (5, Reply::Int(8)));
        assert_eq!((relays.on_reply(&relayed), relays.sent(), relays.sent_total()), (None, 0, 1));
    }

    #[test]
    fn what_a_lost_member_does_not_tell_has_an_unknown_fate() {
        let (mut relays, mut peers) = (Relays::new(1), peers());
        send(&mut relays, 1, &Command::Get(b"k"), &mut peers);
        send(&mut relays, 2, &Command::Append(b"k", b"v"), &mut peers);
        assert!(relays.on_cut(NodeId(3), &peers, Time::default()).is_empty());
        let lost = relays.on_cut(NodeId(2), &peers, Time::default());
        let lost: Vec<_> = lost.into_iter().map(|(asked, reply)| (asked.ticket.sequence, reply)).collect();
        assert_eq!(lost, [(1, NOT_SERVED), (2, UNCERTAIN)]);
        assert_eq!(relays.to(), None, "nobody else can be asked");
    }

    #[test]
    fn a_member_is_served_once_for_each_number_and_by_few_commands_at_a_time() {
        let (mut relays, mut peers) = (Relays::new(1), peers());
        assert!(relays.is_new(NodeId(2), 5) && !relays.is_new(NodeId(2), 5) && !relays.is_new(NodeId(2), 4));
        assert!(relays.is_new(NodeId(3), 4));
        let ticket = relays.admit(9, 5, true);
        assert_eq!((ticket.connection, relays.refusal()), (RELAYED, None));
        (1..RELAYS_MAX as u64).for_each(|number| drop(relays.admit(9, number, false)));
        assert_eq!(relays.refusal(), Some(NOT_SERVED));
        relays.answer(ticket, &Reply::Ok, &mut peers);
        assert_eq!(relays.refusal(), None);
        relays.to = Some(NodeId(2));
        assert_eq!(relays.refusal(), Some(NOT_SERVED), "it does not go in circles");
    }
}
