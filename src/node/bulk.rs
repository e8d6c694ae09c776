//! Connections for large transfers, apart from those for votes and pings: another one of the same pair of nodes, made
//! when there is something to fetch, by the node that wants it. The handshake is the same.

use super::links::Link;
use super::wire::{Hello, NODE, NodeMessage};
use super::{Close, Node, Output, Time};
use groups::NodeId;
use net::frame::{Frame, Purpose};

impl Node {
    /// A connection for transfers is being made; `None` if it could not even begin.
    pub(super) fn bulk_dialling(&mut self, to: NodeId, connection: Option<u64>, time: Time) {
        self.upkeep.on_dialling(to, connection, time);
        if let Some(id) = connection {
            self.links.insert(id, Link::dialled_for_bulk(to, time.mono_ms()));
        }
    }

    /// Connects to the members from which something is to come.
    pub(super) fn dial_bulk(&mut self, time: Time) {
        for to in self.upkeep.tick_transfers(time) {
            let peer = self.peers.get(to);
            if let Some(address) = peer.and_then(|peer| peer.transfer_address()) {
                self.outputs.push(Output::Dial(to, Purpose::Bulk, address.to_owned()));
            }
        }
    }

    pub(super) fn bulk_frame(&mut self, id: u64, frame: &Frame, time: Time) -> Result<(), String> {
        for message in frame.messages() {
            let message = message.map_err(|error| error.to_string())?;
            let Some(link) = self.links.find(id) else { return Ok(()) };
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
                (Some(NodeMessage::Want(want)), Some(_)) => {
                    let (upkeep, mut cx) = self.upkeep(time);
                    upkeep.handle_want(id, &want, &mut cx);
                }
                (Some(NodeMessage::Piece(piece)), Some(from)) => {
                    let (upkeep, mut cx) = self.upkeep(time);
                    upkeep.handle_piece(from, piece, &mut cx);
                }
                _ => self.unknown_kinds += 1,
            }
        }
        Ok(())
    }

    fn handle_bulk_hello(&mut self, id: u64, hello: &Hello, time: Time) {
        let Some(link) = self.links.find(id) else { return };
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
        if let Some(link) = self.links.find(id) {
            link.peer = Some(hello.node);
        }
        if let Some(old) = self.upkeep.on_linked(hello.node, id) {
            self.links.remove(old);
            self.outputs.close(old, Close::Now);
        }
    }
}
