//! Commands that another member carries out. A node whose disk is full takes no value on, so it does not learn what
//! becomes of its clients' commands, nor what others wrote. As long as another member has space, all commands of its
//! clients go there: that one treats them as those of its own clients, and sends the replies back. Afterwards, when
//! this node has caught up, it carries them out itself again.
//!
//! All go to one member, so that they keep their order; and a client whose earlier commands went another way waits for their
//! replies first.

use super::clients::{Backend, Request, Submission, encoded};
use super::engine::{Asked, Ports, UNCOUNTED};
use super::peers::Peers;
use super::ticket::Ticket;
use super::wire::{NodeMessage, Relay, Relayed};
use super::{Node, Time};
use crate::config::{RELAY_BYTES_MAX, RELAY_GRACE_MS, RELAYS_MAX};
use crate::kv::encode::decode;
use crate::kv::fanout::{NOT_SERVED, UNCERTAIN};
use crate::kv::kept;
use crate::kv::reply::Reply;
use crate::versions::Versions;
use bytes::Bytes;
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
    pub(super) sent_total: u64,
}

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
    /// Numbers of one start of the node are not those of another.
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

const TOO_LONG: Reply<'static> = Reply::Error(std::borrow::Cow::Borrowed(
    "MISCONF the disk of this node is full, and the reply is too long for another node to pass it on: ask a node with space",
));

/// What is known of a command whose reply is not.
fn unknown(is_write: bool) -> Reply<'static> {
    if is_write { UNCERTAIN } else { NOT_SERVED }
}

impl Node {
    /// Decides who carries the commands of clients out: this node, unless it cannot log; and after that not before it has
    /// caught up. Commands that were passed on too long ago get the error that says what is known of their fate.
    pub(super) fn tick_relays(&mut self, time: Time) {
        let before = self.relays.to;
        let is_needed =
            self.engine.space().full || (before.is_some() && self.engine.groups().any(groups::Group::is_behind));
        self.relays.to = if is_needed { self.relay_target(time) } else { None };
        match self.relays.to {
            to if to == before => {}
            Some(to) => tracing::warn!("the disk is full: commands of clients are passed on to node {to}"),
            None if self.engine.space().full => {
                tracing::warn!("the disk is full, and no other node takes commands of clients");
            }
            None => tracing::info!("commands of clients are carried out here again"),
        }
        self.engine.set_passing_on(self.relays.to.is_some());
        let now_ms = time.mono_ms();
        while let Some(entry) = self.relays.sent.first_entry()
            && entry.get().deadline_ms <= now_ms
        {
            let sent = entry.remove();
            self.split().1.answer(sent.asked, unknown(sent.is_write));
        }
    }

    /// A member that is reached and has space; the same one for as long as possible.
    fn relay_target(&self, time: Time) -> Option<NodeId> {
        let (peers, now_ms) = (&self.peers, time.mono_ms());
        let able = peers.iter().filter(|peer| {
            let is_there = peer.is_reached(now_ms) && !peer.is_loading() && peers.voters().contains(peer.id());
            is_there && peer.has_disk() && peer.version() >= Versions::RELAYS
        });
        let able: Vec<NodeId> = able.map(|peer| peer.id()).collect();
        self.relays.to.filter(|to| able.contains(to)).or(able.first().copied())
    }

    /// Passes a command on.
    pub(super) fn relay(&mut self, to: NodeId, submission: &Submission<'_>, time: Time) {
        let Submission { group, verb, command, ticket, .. } = *submission;
        let timeout_ms = self.config.client_timeout_ms;
        let relays = &mut self.relays;
        relays.number += 1;
        relays.sent_total += 1;
        let (number, since_us) = (relays.number, time.mono_us);
        let deadline_ms = time.mono_ms() + timeout_ms + RELAY_GRACE_MS;
        let asked = Asked { ticket, verb, since_us };
        relays.sent.insert(number, Sent { to, asked, deadline_ms, is_write: command.is_write() });
        if let Some(peer) = self.peers.find(to) {
            peer.tell(&NodeMessage::Relay(Relay { number, group, timeout_ms, body: encoded(command) }));
        }
    }

    /// Another member's command, which came on this connection.
    pub(super) fn handle_relay(&mut self, link: u64, from: NodeId, relay: &Relay, time: Time) {
        let Relay { number, group, timeout_ms, ref body } = *relay;
        let newest = self.relays.newest.entry(from).or_default();
        if number <= *newest {
            return;
        }
        *newest = number;
        let command = match decode(body) {
            Ok(command) if self.engine.has(group) => command,
            _ => return self.refuse_relay(from, number, &NOT_SERVED),
        };
        let is_write = command.is_write();
        let bytes = body.len();
        let too_long = self.engine.shard().store(group).expected_bytes(&command) > RELAY_BYTES_MAX;
        let refusal = self
            .refusal(&command, bytes)
            .or_else(|| self.engine.reach_refusal(group, is_write, bytes))
            .or_else(|| too_long.then_some(TOO_LONG))
            .or_else(|| self.engine.is_far_behind(group).then_some(NOT_SERVED))
            .or_else(|| self.engine.holds_command(group, is_write, bytes).then_some(NOT_SERVED))
            // It does not go in circles.
            .or_else(|| (self.relays.to.is_some() || !self.engine.is_member(group)).then_some(NOT_SERVED))
            .or_else(|| (self.relays.served.len() >= RELAYS_MAX).then_some(NOT_SERVED));
        if let Some(refusal) = refusal {
            return self.refuse_relay(from, number, &refusal);
        }
        let sequence = self.relays.served.insert(Served { link, number, is_write }) as u64;
        let ticket = Ticket { connection: RELAYED, sequence, part: 0 };
        let deadline_ms = time.mono_ms() + timeout_ms.min(self.config.client_timeout_ms);
        let request = Request { words: &[], bytes, buffer: &Bytes::new() };
        let submission = Submission { group, verb: UNCOUNTED, command: &command, body: None, request, ticket };
        self.carry_out(submission, deadline_ms, time);
    }

    fn refuse_relay(&mut self, from: NodeId, number: u64, reply: &Reply<'_>) {
        let mut packed = Vec::new();
        kept::pack(reply, &mut packed);
        if let Some(peer) = self.peers.find(from) {
            peer.tell(&NodeMessage::Relayed(Relayed { number, reply: packed.into() }));
        }
    }

    /// The reply to a command of this node's client.
    pub(super) fn handle_relayed(&mut self, relayed: &Relayed) {
        let Some(sent) = self.relays.sent.remove(&relayed.number) else { return };
        let reply = kept::unpack(&relayed.reply).unwrap_or_else(|_| unknown(sent.is_write));
        self.split().1.answer(sent.asked, reply);
    }

    /// The connection to a member is gone: what it was given, and does not tell any more, has an unknown fate.
    pub(super) fn on_relay_cut(&mut self, from: NodeId, time: Time) {
        let lost: Vec<Sent> =
            self.relays.sent.extract_if(.., |_, sent| sent.to == from).map(|(_, sent)| sent).collect();
        for sent in lost {
            self.split().1.answer(sent.asked, unknown(sent.is_write));
        }
        if self.relays.to == Some(from) {
            self.relays.to = self.relay_target(time);
            self.engine.set_passing_on(self.relays.to.is_some());
        }
    }
}
