//! Connections for large transfers, apart from those for votes and pings: another one of the same pair of nodes, made
//! when there is something to fetch, by the node that wants it. The handshake is the same.

use super::clients::Connection;
use super::links::Link;
use super::wire::{Hello, NODE, NodeMessage};
use super::{Close, Node, Output, Time};
use crate::config::TRANSFER_REDIAL_MS;
use groups::NodeId;
use net::frame::{Frame, FrameWriter, Purpose};

impl Node {
    /// A connection for transfers is being made; `None` if it could not even begin.
    pub(super) fn bulk_dialling(&mut self, to: NodeId, connection: Option<u64>, time: Time) {
        let Some(id) = connection else {
            self.transfers.due_ms.insert(to, time.mono_ms() + TRANSFER_REDIAL_MS);
            return;
        };
        self.transfers.dialling.insert(to, id);
        self.connections.insert(id, Connection::Link(Link::dialled_for_bulk(to, time.mono_ms())));
    }

    pub(super) fn dial_bulk(&mut self, time: Time) {
        for to in self.transfers.to_dial(time.mono_ms()) {
            let peer = self.peers.all.iter().find(|peer| peer.id == to);
            if let Some(address) = peer.and_then(|peer| peer.transfer_address()) {
                self.outputs.push(Output::Dial(to, Purpose::Bulk, address.to_owned()));
            }
        }
    }

    /// Sends a frame of one message.
    pub(super) fn send_bulk(&mut self, link: u64, message: &NodeMessage) {
        let mut frame = FrameWriter::new(Purpose::Bulk);
        frame.message(NODE, message.kind(), |out| message.put(out));
        let mut pieces = Vec::new();
        frame.finish(&mut pieces);
        if self.transfers.links.values().any(|known| *known == link) {
            self.outputs.extend(pieces.into_iter().map(|piece| Output::Frame(link, piece)));
        }
    }

    pub(super) fn bulk_frame(&mut self, id: u64, frame: &Frame, time: Time) -> Result<(), String> {
        for message in frame.messages() {
            let message = message.map_err(|error| error.to_string())?;
            let Some(Connection::Link(link)) = self.connections.find(id) else { return Ok(()) };
            let from = link.peer;
            if message.group != NODE {
                self.unknown_groups += 1;
                continue;
            }
            let decoded = NodeMessage::decode(message.kind, &message.body)
                .map_err(|error| format!("malformed message between nodes: {error}"))?;
            match (decoded, from) {
                (Some(NodeMessage::Hello(hello)), None) => self.handle_bulk_hello(id, &hello, time),
                (Some(NodeMessage::Refusal(refusal)), _) => self.handle_refusal(id, &refusal, time),
                (_, None) => return Err("it sent something else before its hello".to_owned()),
                (Some(NodeMessage::Want(want)), Some(_)) => self.handle_want(id, &want, time),
                (Some(NodeMessage::Piece(piece)), Some(from)) => self.handle_piece(from, piece, time),
                _ => self.unknown_kinds += 1,
            }
        }
        Ok(())
    }

    fn handle_bulk_hello(&mut self, id: u64, hello: &Hello, time: Time) {
        let Some(Connection::Link(link)) = self.connections.find(id) else { return };
        let dialled = link.dialled;
        if dialled.is_none() {
            self.say_hello(id);
        }
        if dialled.is_some_and(|to| to != hello.node) {
            return self.refuse(id, false, format!("this address is node {}'s", hello.node), time);
        }
        if let Some(text) = self.misdirected(hello) {
            return self.refuse(id, false, text, time);
        }
        if let Err(text) = self.common_version(hello) {
            return self.refuse(id, false, text, time);
        }
        if let Err(refusal) = self.judge(hello) {
            return self.refuse(id, refusal.fatal, refusal.text, time);
        }
        if !self.is_born() || hello.cluster.is_none() {
            return self.refuse(id, false, "the cluster is not born yet".to_owned(), time);
        }
        if let Some(Connection::Link(link)) = self.connections.find(id) {
            link.peer = Some(hello.node);
        }
        self.transfers.dialling.remove(&hello.node);
        if let Some(old) = self.transfers.links.insert(hello.node, id) {
            self.connections.remove(old);
            self.outputs.close(old, Close::Now);
            self.transfers.on_cut(hello.node, old);
        }
    }

    /// Whether that was a connection for transfers, or an attempt at one.
    pub(super) fn on_bulk_cut(&mut self, id: u64, time: Time) -> bool {
        let with = |map: &std::collections::BTreeMap<NodeId, u64>| {
            map.iter().find(|(_, link)| **link == id).map(|(node, _)| *node)
        };
        let Some(node) = with(&self.transfers.links).or(with(&self.transfers.dialling)) else { return false };
        self.transfers.links.retain(|_, link| *link != id);
        self.transfers.dialling.retain(|_, link| *link != id);
        self.transfers.due_ms.insert(node, time.mono_ms() + TRANSFER_REDIAL_MS);
        self.transfers.on_cut(node, id);
        true
    }
}
