//! Accepted connections of which no byte has come. The first byte tells whether a client or another node has connected.
//! From then on `clients` or `links` has the connection.

use super::Time;
use super::connection_table::ConnectionTable;
use crate::config::HANDSHAKE_MS_MAX;
use groups::Ms;
use net::event::ConnectionId;
use std::net::SocketAddr;

/// Lower bound of the first byte of a peer's frame. The first bytes of RESP and TLS are lower.
const PEER_BYTE_MIN: u8 = 0x80;
/// First byte of the greeting of a client that wants an encrypted connection. A parser of requests would wait for ever
/// for the end of such a greeting.
const TLS_BYTE: u8 = 0x16;

/// Connections without a byte so far; see the module.
#[derive(Default)]
pub(super) struct Arrivals(ConnectionTable<Arrival>);

/// An accepted connection without a byte so far.
struct Arrival {
    addr: SocketAddr,
    since_ms: Ms,
}

/// The owner of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionOwner {
    /// A client at this address.
    Clients(SocketAddr),
    /// A client at this address that asks for encryption.
    TlsClients(SocketAddr),
    /// Another node.
    Nodes,
}

impl Arrivals {
    /// Adds an accepted connection.
    pub(super) fn opened(&mut self, id: ConnectionId, addr: SocketAddr, time: Time) {
        self.0.insert(id, Arrival { addr, since_ms: time.mono_ms() });
    }

    /// Returns true if no byte of this connection has come.
    pub(super) fn has(&self, id: ConnectionId) -> bool {
        self.0.has(id)
    }

    /// Removes a connection, and returns its owner by its first byte.
    pub(super) fn take_owner(&mut self, id: ConnectionId, first: u8) -> Option<ConnectionOwner> {
        let Arrival { addr, .. } = self.0.remove(id)?;
        Some(match first {
            PEER_BYTE_MIN.. => ConnectionOwner::Nodes,
            TLS_BYTE => ConnectionOwner::TlsClients(addr),
            _ => ConnectionOwner::Clients(addr),
        })
    }

    /// Removes and returns the connections that have been silent for [`HANDSHAKE_MS_MAX`]. They count as clients,
    /// because a member says hello at once. So silent connections fall under the limit of clients, and cannot use up
    /// the connections that are kept free for members.
    pub(super) fn take_silent(&mut self, now_ms: Ms) -> Vec<(ConnectionId, SocketAddr)> {
        let silent = self.0.iter().filter(|(_, arrival)| now_ms >= arrival.since_ms + HANDSHAKE_MS_MAX);
        let silent: Vec<(ConnectionId, SocketAddr)> = silent.map(|(id, arrival)| (id, arrival.addr)).collect();
        for (id, _) in &silent {
            self.0.remove(*id);
        }
        silent
    }

    /// Removes a connection that is gone.
    pub(super) fn closed(&mut self, id: ConnectionId) {
        self.0.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use groups::Us;

    fn at(mono_ms: Ms) -> Time {
        Time { mono_us: mono_ms.to_us(), unix_us: Us(0) }
    }

    #[test]
    fn the_first_byte_tells_whose_a_connection_is_and_silence_makes_it_a_clients() {
        let addr = SocketAddr::from(([127, 0, 0, 9], 9));
        let mut arrivals = Arrivals::default();
        (1..=5).for_each(|id| arrivals.opened(ConnectionId(id), addr, at(Ms(id))));
        assert_eq!(arrivals.take_owner(ConnectionId(1), b'*'), Some(ConnectionOwner::Clients(addr)));
        assert_eq!(arrivals.take_owner(ConnectionId(2), TLS_BYTE), Some(ConnectionOwner::TlsClients(addr)));
        assert_eq!(arrivals.take_owner(ConnectionId(3), PEER_BYTE_MIN), Some(ConnectionOwner::Nodes));
        assert_eq!(
            (arrivals.take_owner(ConnectionId(3), b'*'), arrivals.has(ConnectionId(3))),
            (None, false),
            "only once"
        );
        assert_eq!(arrivals.take_silent(Ms(4) + HANDSHAKE_MS_MAX), [(ConnectionId(4), addr)]);
        arrivals.closed(ConnectionId(5));
        assert_eq!(arrivals.take_silent(Ms::MAX), []);
    }
}
