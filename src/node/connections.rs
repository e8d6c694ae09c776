//! Connections: the first byte of each tells whether it is a client's or another member's. From then on `clients` or `links`
//! has it.

use super::clients::Backend;
use super::links::Link;
use super::{Close, Node, Output, Time};
use crate::config::HANDSHAKE_MS_MAX;
use bytes::BytesMut;
use std::net::SocketAddr;

/// The first byte of a peer's frame is not below this; RESP and TLS begin lower.
const PEER_BYTE_MIN: u8 = 0x80;
/// With it begins the greeting of a client that wants an encrypted connection: as a request it would have no end.
const TLS_BYTE: u8 = 0x16;

/// An accepted connection of which no byte has come.
pub(super) struct Fresh {
    addr: SocketAddr,
    since_ms: u64,
}

impl Node {
    /// A connection was accepted.
    pub fn opened(&mut self, id: u64, addr: SocketAddr, time: Time) {
        self.stats.connections_received += 1;
        self.fresh.insert(id, Fresh { addr, since_ms: time.mono_ms() });
    }

    /// There are bytes to read on a connection, of which `unsent` replies' bytes wait to be written. What is consumed
    /// is taken from the front of `input`; the rest is wanted again when more has come, or after a resume.
    pub fn input(&mut self, id: u64, input: &mut BytesMut, unsent: usize, time: Time) {
        self.now_us = time.mono_us;
        if self.fresh.has(id) {
            let Some(first) = input.first() else { return };
            self.tell_kind(id, *first, time);
        }
        if self.clients.as_ref().is_some_and(|clients| clients.has(id)) {
            self.with_clients(|clients, node| clients.input(id, input, unsent, node, time));
        } else if !self.links.has(id) {
            input.clear();
        } else if self.has_not_begun() {
            // A member waits; see `loading`.
            self.outputs.push(Output::Pause(id));
        } else {
            self.link_input(id, input, time);
        }
    }

    /// The first byte of a connection has come.
    fn tell_kind(&mut self, id: u64, first: u8, time: Time) {
        if first < PEER_BYTE_MIN {
            self.admit_client(id, first == TLS_BYTE, time);
        } else if self.fresh.remove(id).is_some() {
            self.links.insert(id, Link::accepted(time.mono_ms()));
        }
    }

    fn admit_client(&mut self, id: u64, is_tls: bool, time: Time) {
        let Some(Fresh { addr, .. }) = self.fresh.remove(id) else { return };
        if is_tls {
            tracing::warn!("{addr} asks for an encrypted connection, which is not supported");
        }
        let refusal = is_tls.then_some("ERR TLS is not supported");
        self.with_clients(|clients, node| clients.admit(id, addr, refusal, node, time));
    }

    /// A member says hello at once: who has said nothing for a while counts as a client, so that connections which
    /// were only opened leave room for members.
    pub(super) fn admit_silent(&mut self, time: Time) {
        let silent = self.fresh.iter().filter(|(_, fresh)| time.mono_ms() >= fresh.since_ms + HANDSHAKE_MS_MAX);
        let silent: Vec<u64> = silent.map(|(id, _)| id).collect();
        silent.into_iter().for_each(|id| self.admit_client(id, false, time));
    }

    /// The other side will send no more.
    pub fn ended(&mut self, id: u64, time: Time) {
        let clients = self.clients.as_mut().filter(|clients| clients.has(id));
        if let Some(clients) = clients {
            return clients.ended(id);
        }
        if self.fresh.has(id) || self.links.has(id) {
            self.output(Output::Close(id, Close::Now));
            self.closed(id, time);
        }
    }

    /// Everything queued for the connection has been written.
    pub fn drained(&mut self, id: u64) {
        self.clients.as_mut().into_iter().for_each(|clients| clients.drained(id));
        self.unsent(id, 0);
    }

    /// The connection is gone.
    pub fn closed(&mut self, id: u64, time: Time) {
        self.fresh.remove(id);
        self.clients.as_mut().into_iter().for_each(|clients| clients.closed(id));
        if self.links.remove(id).is_some() {
            self.on_link_cut(id, time);
        }
    }
}
