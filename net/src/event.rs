//! Events from the event loop to its owner, and the ids by which both name connections.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use mio::Token;
use thiserror::Error;

/// The name of a connection. It is not reused within 2^32 connections, so an id that outlives its connection finds
/// none, and never a wrong one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

const _: () = assert!(usize::BITS == 64, "a token of the poller carries a whole id");

impl ConnectionId {
    pub(crate) fn new(generation: u32, index: usize) -> Self {
        Self(u64::from(generation) << 32 | u64::from(index as u32))
    }

    pub(crate) fn from_token(token: Token) -> Self {
        Self(token.0 as u64)
    }

    pub(crate) fn token(self) -> Token {
        Token(self.0 as usize)
    }

    /// Returns the position of the connection among all open ones, for tables of the owner.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as u32 as usize
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Something that happened since the last turn. Events of one connection come in the order in which they happened.
#[derive(Debug)]
pub enum Event {
    /// A connection was accepted.
    Opened {
        /// The connection's id from now on.
        id: ConnectionId,
        /// The address of the peer.
        peer: SocketAddr,
    },
    /// A dialled connection is established.
    Connected {
        /// The connection.
        id: ConnectionId,
    },
    /// There is something to read in the connection's input.
    Input {
        /// The connection.
        id: ConnectionId,
    },
    /// The peer sends no more, and all that it sent was read into the input. The peer may still wait for replies: the
    /// owner closes the connection after sending them.
    Eof {
        /// The connection.
        id: ConnectionId,
    },
    /// A connection with a slow peer has written everything that was queued.
    Drained {
        /// The connection.
        id: ConnectionId,
    },
    /// The connection has ended. [`close`](crate::event_loop::EventLoop::close) causes no such event. The input can be
    /// read until the next turn.
    Closed {
        /// The connection.
        id: ConnectionId,
        /// The reason.
        reason: CloseReason,
    },
    /// A connection was turned away because there are `connections_max` already.
    Refused {
        /// The address of the peer.
        peer: SocketAddr,
    },
    /// No connection can be accepted for the moment, probably for want of file descriptors. The loop tries again.
    AcceptFailed {
        /// The system's error.
        error: io::Error,
    },
    /// Another thread called the waker.
    Woken,
}

/// Reason why a connection ended.
#[derive(Debug, Error)]
pub enum CloseReason {
    /// The connection could not be established.
    #[error("cannot connect: {0}")]
    ConnectFailed(#[source] io::Error),
    /// Reading or writing failed: most often the peer is gone.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The peer does not read what is sent to it.
    #[error("{queued_bytes} bytes wait for a peer that does not read, more than the limit of {outbound_bytes_max}")]
    SlowReader {
        /// Bytes that were queued.
        queued_bytes: usize,
        /// The limit, in bytes.
        outbound_bytes_max: usize,
    },
    /// The owner asked to close the connection after the last reply, and that reply has been written.
    #[error("closed after the last reply")]
    Finished,
}
