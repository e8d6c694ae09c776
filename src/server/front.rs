//! Connects the node with the sockets: their events go to the node, and its output goes to them. The node may still be
//! loading.

use crate::config::LINGER_MS_MAX;
use crate::descriptors::SPARE_CONNECTIONS;
use crate::node::{Close, Completion, Node, Time};
use bytes::Bytes;
use groups::Ms;
use net::event::{ConnectionId, Event};
use net::event_loop::EventLoop;
use std::collections::VecDeque;

/// The node and its connections.
pub(super) struct Front {
    pub(super) node: Node,
    pub(super) events: EventLoop,
    lingering: VecDeque<Lingering>,
}

/// A connection that is closed when everything is written, or when nothing was written for [`LINGER_MS_MAX`].
struct Lingering {
    id: ConnectionId,
    /// Unwritten bytes at the last check, and the time of the next check.
    left_bytes: usize,
    until_ms: Ms,
}

impl Front {
    pub(super) fn new(node: Node, events: EventLoop) -> Front {
        Front { node, events, lingering: VecDeque::new() }
    }

    /// Closes all connections at once. The node's memory is freed only by the end of the process.
    pub(super) fn forget_node(self) {
        std::mem::forget(self.node);
    }

    /// Sets the maximum number of clients. The room for members stays the same.
    pub(super) fn set_clients_max(&mut self, max: u64) {
        self.events.set_connections_max((max + SPARE_CONNECTIONS) as usize);
    }

    pub(super) fn on_event(&mut self, event: Event, time: Time) {
        match event {
            Event::Opened { id, peer } => self.node.opened(id, peer, time),
            Event::Connected { id } => self.node.on_completion(Completion::Connected(id), time),
            Event::Input { id } => {
                let unsent = self.events.outbound_len(id);
                if let Some(input) = self.events.input(id) {
                    self.node.input(id, input, unsent, time);
                }
            }
            Event::Eof { id } => self.node.ended(id, time),
            Event::Drained { id } => self.node.drained(id),
            Event::Closed { id, reason } => {
                tracing::debug!("connection {id} closed: {reason}");
                self.node.closed(id, time);
            }
            Event::Refused { peer } => tracing::warn!("turned {peer} away: too many connections"),
            Event::AcceptFailed { error } => tracing::warn!("cannot accept connections for the moment: {error}"),
            Event::Woken => {}
        }
    }

    pub(super) fn end_lingering(&mut self, time: Time) {
        let now_ms = time.mono_us.to_ms();
        while self.lingering.front().is_some_and(|lingering| lingering.until_ms <= now_ms) {
            let Some(Lingering { id, left_bytes: before, .. }) = self.lingering.pop_front() else { return };
            let left_bytes = self.events.outbound_len(id);
            if (1..before).contains(&left_bytes) {
                self.lingering.push_back(Lingering { id, left_bytes, until_ms: now_ms + LINGER_MS_MAX });
            } else {
                self.events.close(id);
                self.node.closed(id, time);
            }
        }
    }

    /// Moves the node's replies to the connections of the clients.
    pub(super) fn give_replies(&mut self) {
        let events = &mut self.events;
        self.node.take_replies(|id, replies| {
            let Some(outbound) = events.outbound(id) else {
                replies.clear();
                return 0;
            };
            outbound.take_from(replies);
            outbound.len()
        });
    }

    /// Returns the bytes that wait to be written to a connection.
    pub(super) fn unsent(&self, id: ConnectionId) -> usize {
        self.events.outbound_len(id)
    }

    pub(super) fn send(&mut self, id: ConnectionId, piece: Bytes) {
        if let Some(outbound) = self.events.outbound(id) {
            outbound.push(piece);
        }
    }

    pub(super) fn pause(&mut self, id: ConnectionId) {
        self.events.pause(id);
    }

    pub(super) fn resume(&mut self, id: ConnectionId) {
        self.events.resume(id);
    }

    pub(super) fn close(&mut self, id: ConnectionId, how: Close, time: Time) {
        match how {
            Close::Now => self.events.close(id),
            Close::AfterFlush => {
                self.events.close_after_flush(id);
                let (left_bytes, now_ms) = (self.events.outbound_len(id), time.mono_us.to_ms());
                self.lingering.push_back(Lingering { id, left_bytes, until_ms: now_ms + LINGER_MS_MAX });
            }
        }
    }
}
