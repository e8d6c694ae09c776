//! Connections to and from other nodes: dialling, the handshake, and the frames after the handshake.
//!
//! The node with the higher id dials. Both sides say hello first. A new connection of a peer replaces the old one.
//! Large transfers have a second connection between the same two nodes, apart from votes and pings. The node that
//! fetches a checkpoint dials it. The handshake is the same.
//!
//! ```text
//! handshake  the hellos and their checks           contacts  where a joining node asks
//! receiver   the node as its links need it         alone     a node that no member answers
//! ```

mod alone;
mod contacts;
mod handshake;
mod receiver;
#[cfg(test)]
mod tests;

pub(super) use contacts::is_contact;
pub(super) use handshake::{HandshakeContext, removed};
pub(super) use receiver::Receiver;

use super::connection_table::ConnectionTable;
use super::output::{Close, Output, Outputs};
use super::peers::lanes::{Arrived, FRAGMENT};
use super::wire::{Hello, NODE, NodeMessage, Refusal};
use super::{NodeConfig, Time};
use crate::config::{HANDSHAKE_MS_MAX, LARGE_INPUT_BYTES, NODE_MESSAGE_BYTES_MAX};
use crate::workers::WorkerId;
use alone::Alone;
use bytes::BytesMut;
use contacts::Contacts;
use groups::{GroupId, Ms, NodeId};
use handshake::{loads, refuse};
use net::event::ConnectionId;
use net::frame::{self, Frame, FrameWriter, Message, Purpose};

/// Maximum number of characters of a peer's reason that are logged.
const REFUSAL_CHARS_MAX: usize = 500;
const TOO_EARLY: &str = "the peer sent another message before its hello";

/// All connections to and from other nodes; see the module.
#[derive(Default)]
pub(super) struct Links {
    all: ConnectionTable<Link>,
    contacts: Contacts,
    alone: Alone,
}

/// A connection to or from another node.
struct Link {
    /// The node that was dialled; `None` for an accepted connection.
    dialled: Option<NodeId>,
    /// The node on the other side, once the handshake is done.
    peer: Option<NodeId>,
    /// True for a connection for large transfers.
    bulk: bool,
    since_ms: Ms,
}

impl Link {
    fn accepted(now_ms: Ms) -> Link {
        Link { dialled: None, peer: None, bulk: false, since_ms: now_ms }
    }

    fn is_late(&self, now_ms: Ms) -> bool {
        self.peer.is_none() && now_ms >= self.since_ms + HANDSHAKE_MS_MAX
    }
}

impl Links {
    pub(super) fn new(config: &NodeConfig) -> Links {
        Links { contacts: Contacts::new(&config.join, config.seed), ..Links::default() }
    }

    /// Starts the time limits.
    pub(super) fn begin(&mut self, now_ms: Ms) {
        self.alone.begin(now_ms);
    }

    /// Returns true if the connection is one to or from another node.
    pub(super) fn has(&self, id: ConnectionId) -> bool {
        self.all.has(id)
    }

    /// Returns all connections, including those whose handshake is not done.
    pub(super) fn ids(&self) -> Vec<ConnectionId> {
        self.all.iter().map(|(id, _)| id).collect()
    }

    /// Takes an accepted connection that comes from a node.
    pub(super) fn accept(&mut self, id: ConnectionId, time: Time) {
        self.all.insert(id, Link::accepted(time.mono_ms()));
    }

    /// Notes that a connection is being made, as [`Output::Dial`] asked; `None` if it could not begin.
    pub(super) fn on_dialling(
        &mut self,
        to: NodeId,
        purpose: Purpose,
        connection: Option<ConnectionId>,
        node: &mut impl Receiver,
        time: Time,
    ) {
        let bulk = purpose == Purpose::Bulk;
        if bulk {
            node.on_transfer_dialling(to, connection, time);
        } else if is_contact(to) {
            self.contacts.on_dialling(to, connection, time.mono_ms());
        } else if !node.peers().on_dialling(to, connection, time.mono_ms()) {
            // The node is no longer a member.
            return connection.into_iter().for_each(|id| node.outputs().close(id, Close::Now));
        }
        if let Some(id) = connection {
            self.all.insert(id, Link { dialled: Some(to), bulk, ..Link::accepted(time.mono_ms()) });
        }
    }

    /// Says hello on a dialled connection that is established now.
    pub(super) fn say_hello(&mut self, id: ConnectionId, node: &mut impl Receiver) {
        let Some(link) = self.all.find(id) else { return };
        let hello = node.context().hello(link.dialled.filter(|to| !is_contact(*to)));
        send_alone(id, link.bulk, &NodeMessage::Hello(hello), node.outputs());
    }

    /// Handles input of a connection. Bytes that are consumed are removed from the front of `input`.
    pub(super) fn input(&mut self, id: ConnectionId, input: &mut BytesMut, node: &mut impl Receiver, time: Time) {
        if let Some(peer) = node.peers().by_link(id) {
            peer.on_bytes(time.mono_ms());
        }
        if let Some(worker) = self.worker_of(id, input, node) {
            self.all.remove(id);
            return node.outputs().push(Output::HandOver(id, worker));
        }
        while let Some(link) = self.all.find(id) {
            // Before the handshake is done, a sender gets no more memory than a hello needs.
            let frame_bytes_max = node.context().config.frame_bytes_max();
            let payload_bytes_max = if link.peer.is_some() { frame_bytes_max } else { NODE_MESSAGE_BYTES_MAX };
            let bytes = input.len();
            let result = match frame::decode(input, payload_bytes_max) {
                Ok(None) => return,
                Ok(Some(frame)) => {
                    if input.is_empty() && bytes > LARGE_INPUT_BYTES {
                        // The frame owns this memory now, and frees it when it goes.
                        *input = BytesMut::new();
                    }
                    self.on_frame(id, &frame, node, time)
                }
                Err(error) => Err(error.to_string()),
            };
            if let Err(reason) = result {
                return self.cut(id, &reason, node, time);
            }
        }
    }

    /// At the first worker, which accepts all connections: returns the other worker for which a new connection is meant,
    /// as its hello says. The hello stays in `input`.
    fn worker_of(&mut self, id: ConnectionId, input: &BytesMut, node: &impl Receiver) -> Option<WorkerId> {
        let ours = node.context().config.workers;
        let is_new = self.all.find(id).is_some_and(|link| link.peer.is_none() && link.dialled.is_none());
        if ours.count() == 1 || !ours.is_first() || !is_new {
            return None;
        }
        // The copy is for a whole frame only: a sender may bring it byte by byte.
        if input.len() > NODE_MESSAGE_BYTES_MAX || frame::needed(input) > 0 {
            return None;
        }
        let frame = frame::decode(&mut input.clone(), NODE_MESSAGE_BYTES_MAX).ok()??;
        let message = frame.messages().next()?.ok().filter(|message| message.group == NODE)?;
        let Some(NodeMessage::Hello(hello)) = NodeMessage::decode(message.kind, &message.body).ok()? else {
            return None;
        };
        let theirs = hello.workers;
        (theirs.count() == ours.count() && !theirs.is_first()).then_some(theirs.me())
    }

    fn on_frame(
        &mut self,
        id: ConnectionId,
        frame: &Frame,
        node: &mut impl Receiver,
        time: Time,
    ) -> Result<(), String> {
        if let Some(link) = self.all.find(id) {
            // The first frame tells the purpose of an accepted connection.
            link.bulk |= link.peer.is_none() && link.dialled.is_none() && frame.purpose == Purpose::Bulk;
        }
        for message in frame.messages() {
            let message = message.map_err(|error| error.to_string())?;
            let Some(link) = self.all.find(id) else { return Ok(()) };
            let (from, bulk) = (link.peer, link.bulk);
            match from {
                _ if message.group == NODE && message.kind != FRAGMENT => {
                    self.on_node_message(id, &message, node, time)?;
                }
                None => return Err(TOO_EARLY.to_owned()),
                Some(_) if bulk => node.peers().skip_group(),
                Some(from) if message.group == NODE => on_fragment(from, &message, node, time)?,
                Some(from) => {
                    node.on_group_message(from, GroupId(message.group), message.kind, &message.body, time)?;
                }
            }
        }
        Ok(())
    }

    fn on_node_message(
        &mut self,
        id: ConnectionId,
        message: &Message,
        node: &mut impl Receiver,
        time: Time,
    ) -> Result<(), String> {
        let Some(link) = self.all.find(id) else { return Ok(()) };
        let (from, bulk, bytes) = (link.peer, link.bulk, message.body.len());
        if !bulk && bytes > NODE_MESSAGE_BYTES_MAX {
            return Err(format!("a message between nodes of {bytes} bytes exceeds {NODE_MESSAGE_BYTES_MAX}"));
        }
        let decoded = NodeMessage::decode(message.kind, &message.body)
            .map_err(|error| format!("malformed message between nodes: {error}"))?;
        match (decoded, from) {
            (Some(NodeMessage::Hello(hello)), None) => {
                let checked =
                    if bulk { self.on_transfer_hello(id, &hello, node) } else { self.on_hello(id, &hello, node, time) };
                if let Err(refusal) = checked {
                    self.refuse(id, refusal, node, time);
                }
            }
            (Some(NodeMessage::Hello(_)), Some(_)) => return Err("the peer sent two hellos".to_owned()),
            (Some(NodeMessage::Refusal(refusal)), _) => self.on_refusal(id, &refusal, node, time),
            (Some(_), None) => return Err(TOO_EARLY.to_owned()),
            (Some(message), Some(from)) if bulk => {
                if !node.on_transfer_message(id, from, message, time) {
                    node.peers().skip_kind();
                }
            }
            (Some(message), Some(from)) => node.on_message(id, from, message, time)?,
            (None, _) => node.peers().skip_kind(),
        }
        Ok(())
    }

    fn on_hello(
        &mut self,
        id: ConnectionId,
        hello: &Hello,
        node: &mut impl Receiver,
        time: Time,
    ) -> Result<(), Refusal> {
        let dialled = self.answer_hello(id, node);
        let from = hello.node;
        let version = node.context().peers.common_version(hello).map_err(|text| Refusal { fatal: false, text })?;
        node.context().is_meant(hello)?;
        node.context().check_workers(hello)?;
        if dialled.is_some_and(is_contact) {
            return self.on_contact_hello(id, hello);
        }
        if let Some(address) = hello.joins.as_ref().filter(|_| node.is_born() && hello.cluster.is_none()) {
            if !node.context().config.workers.is_first() {
                return refuse(false, "the first worker takes requests to join".to_owned());
            }
            if node.context().is_loading {
                return refuse(false, loads(node.context().identity.node));
            }
            node.handle_join_request(id, hello, address, time)?;
            self.set_peer(id, from);
            return Ok(());
        }
        if let Some(to) = dialled.filter(|to| *to != from) {
            if !node.context().is_unknown_member(hello) {
                return refuse(false, format!("this address is node {from}'s, not node {to}'s"));
            }
            // The sender has taken over the address of `to` while this node was away. It may know whether this node was
            // removed.
            node.peers().on_dial_failed(to, time.mono_ms());
        }
        check_hello(hello, node)?;
        if !node.peers().admit_guest(from) {
            return refuse(false, "too many nodes that are not members are connected".to_owned());
        }
        self.set_peer(id, from);
        let old = node.peers().on_linked(id, hello, version, time.mono_ms());
        old.into_iter().for_each(|old| self.close(old, node));
        tracing::info!("connected to node {from}, with version {version} of the peer protocol");
        node.on_linked(hello, old.is_some(), time);
        Ok(())
    }

    fn on_transfer_hello(&mut self, id: ConnectionId, hello: &Hello, node: &mut impl Receiver) -> Result<(), Refusal> {
        let dialled = self.answer_hello(id, node);
        if dialled.is_some_and(|to| to != hello.node) {
            return refuse(false, format!("this address is node {}'s", hello.node));
        }
        node.context().is_meant(hello)?;
        node.context().check_workers(hello)?;
        node.context().peers.common_version(hello).map_err(|text| Refusal { fatal: false, text })?;
        check_hello(hello, node)?;
        if !node.is_born() || hello.cluster.is_none() {
            return refuse(false, "the cluster is not born yet".to_owned());
        }
        self.set_peer(id, hello.node);
        let old = node.on_transfer_link(hello.node, id);
        old.into_iter().for_each(|old| self.close(old, node));
        Ok(())
    }

    /// At a joining node: takes the hello of a contact.
    fn on_contact_hello(&mut self, id: ConnectionId, hello: &Hello) -> Result<(), Refusal> {
        let from = hello.node;
        if hello.cluster.is_none() {
            return refuse(false, format!("node {from} belongs to no cluster yet: there is nothing to join"));
        }
        self.set_peer(id, from);
        self.contacts.on_hello(id);
        Ok(())
    }

    /// Answers a hello with this node's own if the other side dialled. Returns the node that this node dialled.
    fn answer_hello(&mut self, id: ConnectionId, node: &mut impl Receiver) -> Option<NodeId> {
        let dialled = self.all.find(id)?.dialled;
        if dialled.is_none() {
            self.say_hello(id, node);
        }
        dialled
    }

    fn set_peer(&mut self, id: ConnectionId, peer: NodeId) {
        self.all.find(id).into_iter().for_each(|link| link.peer = Some(peer));
    }

    fn on_refusal(&mut self, id: ConnectionId, refusal: &Refusal, node: &mut impl Receiver, time: Time) {
        // A peer's text goes to the log and to the terminal: it must be one line without control characters.
        let text = refusal.text.chars().filter(|c| !c.is_control()).take(REFUSAL_CHARS_MAX).collect::<String>();
        tracing::warn!("refused by a peer: {text}");
        // Only a peer that has done the handshake may stop this node for good: a member says hello before it refuses
        // anything. Another sender that can reach the port, or that now listens at a member's old address, may not.
        let known = self.all.find(id).is_some_and(|link| link.peer.is_some());
        if refusal.fatal && known {
            node.outputs().push(Output::Stop(text));
        }
        node.outputs().close(id, Close::Now);
        self.closed(id, node, time);
    }

    /// Sends the reason for closing a connection, and closes it.
    pub(super) fn refuse(&mut self, id: ConnectionId, refusal: Refusal, node: &mut impl Receiver, time: Time) {
        tracing::warn!("refusing a connection: {}", refusal.text);
        let bulk = self.all.find(id).is_some_and(|link| link.bulk);
        send_alone(id, bulk, &NodeMessage::Refusal(refusal), node.outputs());
        node.outputs().close(id, Close::AfterFlush);
        self.closed(id, node, time);
    }

    fn cut(&mut self, id: ConnectionId, reason: &str, node: &mut impl Receiver, time: Time) {
        tracing::warn!("closing a connection between nodes: {reason}");
        node.outputs().close(id, Close::Now);
        self.closed(id, node, time);
    }

    /// Closes a connection that a newer one replaces.
    fn close(&mut self, id: ConnectionId, node: &mut impl Receiver) {
        self.all.remove(id);
        node.outputs().close(id, Close::Now);
    }

    /// Forgets a closed connection.
    pub(super) fn closed(&mut self, id: ConnectionId, node: &mut impl Receiver, time: Time) {
        if self.all.remove(id).is_some() {
            self.contacts.on_cut(id, time.mono_ms());
            node.on_gone(id, time);
        }
    }

    /// Closes all connections, so that they begin anew.
    pub(super) fn close_all(&mut self, node: &mut impl Receiver, time: Time) {
        for id in self.ids() {
            node.outputs().close(id, Close::AfterFlush);
            self.closed(id, node, time);
        }
    }

    /// Applies the time limits: notes silent peers, cuts broken connections and late handshakes, and dials the nodes
    /// that are due.
    pub(super) fn tick(&mut self, node: &mut impl Receiver, time: Time) {
        let (now_ms, is_born) = (time.mono_ms(), node.is_born());
        self.cut_late(node, time);
        if node.has_not_begun() {
            return;
        }
        let is_first = node.context().config.workers.is_first();
        if is_first {
            self.alone.tick(node.context().peers, is_born, now_ms);
        }
        let (broken, silent) = (node.peers().broken(now_ms), node.peers().take_silent(now_ms));
        for from in silent {
            tracing::info!("node {from} is silent");
            node.on_silent(from, time);
        }
        broken.into_iter().for_each(|id| self.cut(id, "nothing was heard on it for too long", node, time));
        // The result of each attempt is noted when it is known: only a failure makes the next delay longer.
        // Before the birth only the first worker talks to other nodes.
        let mut due = if is_born || is_first { node.peers().take_due_dials(is_born, now_ms) } else { Vec::new() };
        if !is_born && node.is_asking_to_join() {
            for id in self.contacts.late(now_ms) {
                node.outputs().close(id, Close::Now);
                self.closed(id, node, time);
            }
            due.extend(self.contacts.due(now_ms));
        }
        node.outputs().extend(due.into_iter().map(|(id, address)| Output::Dial(id, Purpose::Live, address)));
    }

    /// Cuts connections whose handshake takes too long.
    fn cut_late(&mut self, node: &mut impl Receiver, time: Time) {
        let late = self.all.iter().filter(|(_, link)| link.is_late(time.mono_ms()));
        let late: Vec<ConnectionId> = late.map(|(id, _)| id).collect();
        late.into_iter().for_each(|id| self.cut(id, "its handshake takes too long", node, time));
    }
}

fn check_hello(hello: &Hello, node: &impl Receiver) -> Result<(), Refusal> {
    node.context().check_hello(hello)?;
    if node.context().identity.birth.is_none() { node.check_unborn_hello(hello) } else { Ok(()) }
}

/// Takes a fragment of a large message, and handles the message if it is complete.
fn on_fragment(from: NodeId, message: &Message, node: &mut impl Receiver, time: Time) -> Result<(), String> {
    let bytes_max = node.context().config.frame_bytes_max();
    let Some(peer) = node.peers().find(from) else { return Ok(()) };
    let Arrived { group, kind, body } = peer.assemble(&message.body, bytes_max)?;
    match body {
        Some(body) => node.on_group_message(from, GroupId(group), kind, &body, time)?,
        None => node.on_arriving(from, GroupId(group), kind, time),
    }
    Ok(())
}

/// Sends one message in a frame of its own: a hello, a refusal or an admission. The handshake need not be done.
pub(super) fn send_alone(id: ConnectionId, bulk: bool, message: &NodeMessage, outputs: &mut Outputs) {
    let mut frame = FrameWriter::new(if bulk { Purpose::Bulk } else { Purpose::Live });
    frame.message(NODE, message.kind(), |out| message.put(out));
    let mut pieces = Vec::new();
    frame.finish(&mut pieces);
    outputs.extend(pieces.into_iter().map(|piece| Output::Frame(id, piece)));
}
