//! Connections of which no byte has come: the first one tells whether it is a client's or another node's. From then on
//! `clients` or `links` has it.

use super::Time;
use super::slots::Slots;
use crate::config::HANDSHAKE_MS_MAX;
use std::net::SocketAddr;

/// The first byte of a peer's frame is not below this; RESP and TLS begin lower.
const PEER_BYTE_MIN: u8 = 0x80;
/// With it begins the greeting of a client that wants an encrypted connection: as a request it would have no end.
const TLS_BYTE: u8 = 0x16;

/// See the module.
#[derive(Default)]
pub(super) struct Arrivals(Slots<Arrival>);

/// An accepted connection.
struct Arrival {
    addr: SocketAddr,
    since_ms: u64,
}

/// Whose a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// A client's, at this address.
    Clients(SocketAddr),
    /// A client's that asks for encryption.
    TlsClients(SocketAddr),
    /// Another node's.
    Nodes,
}

impl Arrivals {
    /// A connection was accepted.
    pub(super) fn opened(&mut self, id: u64, addr: SocketAddr, time: Time) {
        self.0.insert(id, Arrival { addr, since_ms: time.mono_ms() });
    }

    /// Returns true if it is known of this connection only that it is there.
    pub(super) fn has(&self, id: u64) -> bool {
        self.0.has(id)
    }

    /// The first byte of a connection tells whose it is. It is not kept here any more then.
    pub(super) fn tell(&mut self, id: u64, first: u8) -> Option<Whose> {
        let Arrival { addr, .. } = self.0.remove(id)?;
        Some(match first {
            PEER_BYTE_MIN.. => Whose::Nodes,
            TLS_BYTE => Whose::TlsClients(addr),
            _ => Whose::Clients(addr),
        })
    }

    /// A member says hello at once: who has said nothing for a while counts as a client, so that connections which were
    /// only opened leave room for members.
    pub(super) fn take_silent(&mut self, now_ms: u64) -> Vec<(u64, SocketAddr)> {
        let silent = self.0.iter().filter(|(_, arrival)| now_ms >= arrival.since_ms + HANDSHAKE_MS_MAX);
        let silent: Vec<(u64, SocketAddr)> = silent.map(|(id, arrival)| (id, arrival.addr)).collect();
        silent.iter().for_each(|(id, _)| drop(self.0.remove(*id)));
        silent
    }

    /// The connection is gone.
    pub(super) fn closed(&mut self, id: u64) {
        self.0.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mono_ms: u64) -> Time {
        Time { mono_us: mono_ms * 1_000, unix_us: 0 }
    }

    #[test]
    fn the_first_byte_tells_whose_a_connection_is_and_silence_makes_it_a_clients() {
        let addr = SocketAddr::from(([127, 0, 0, 9], 9));
        let mut arrivals = Arrivals::default();
        (1..=5).for_each(|id| arrivals.opened(id, addr, at(id)));
        assert_eq!(arrivals.tell(1, b'*'), Some(Whose::Clients(addr)));
        assert_eq!(arrivals.tell(2, TLS_BYTE), Some(Whose::TlsClients(addr)));
        assert_eq!(arrivals.tell(3, PEER_BYTE_MIN), Some(Whose::Nodes));
        assert_eq!((arrivals.tell(3, b'*'), arrivals.has(3)), (None, false), "it is told once");
        assert_eq!(arrivals.take_silent(4 + HANDSHAKE_MS_MAX), [(4, addr)]);
        arrivals.closed(5);
        assert_eq!(arrivals.take_silent(u64::MAX), []);
    }
}
