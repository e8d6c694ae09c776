//! What the event loop tells its owner, and how both name a connection.

use std::io;
use std::net::SocketAddr;

use mio::Token;
use thiserror::Error;

/// A connection's name. It is never used again, within 2^32 connections: a handle that outlived its connection finds
/// nothing instead of a stranger's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle(u64);

const _: () = assert!(usize::BITS == 64, "a token of the poller carries a whole handle");

impl Handle {
    pub(crate) fn new(generation: u32, index: usize) -> Self {
        Self(u64::from(generation) << 32 | u64::from(index as u32))
    }

    pub(crate) fn from_token(token: Token) -> Self {
        Self(token.0 as u64)
    }

    pub(crate) fn token(self) -> Token {
        Token(self.0 as usize)
    }

    pub(crate) fn index(self) -> usize {
        self.0 as u32 as usize
    }

    /// The handle as a number, for logs and for tables of the owner.
    #[must_use]
    pub fn as_u64(self) -> u64 {
        self.0
    }

    /// The handle that [`Self::as_u64`] gave. Any other number names no connection.
    #[must_use]
    pub fn from_u64(number: u64) -> Self {
        Self(number)
    }
}

/// Something that happened since the last turn. Those of one connection come in the order in which they happened.
#[derive(Debug)]
pub enum Event {
    /// A connection was accepted.
    Opened {
        /// Its name from now on.
        handle: Handle,
        /// Where it comes from.
        peer: SocketAddr,
    },
    /// A dialled connection is established.
    Connected {
        /// Which one.
        handle: Handle,
    },
    /// There is something to read in the connection's input.
    Input {
        /// Which one.
        handle: Handle,
    },
    /// The peer will send no more, and the input holds all that it sent. It may still be waiting for replies: the
    /// owner closes the connection once it has given them.
    Eof {
        /// Which one.
        handle: Handle,
    },
    /// A connection whose peer had been slow has taken everything queued for it.
    Drained {
        /// Which one.
        handle: Handle,
    },
    /// The connection has ended, unless by [`close`](crate::event_loop::EventLoop::close), which needs no notice. Its
    /// input can be read until the next turn.
    Closed {
        /// Which one.
        handle: Handle,
        /// Why.
        reason: CloseReason,
    },
    /// A connection was turned away because there are `connections_max` already.
    Refused {
        /// Where it came from.
        peer: SocketAddr,
    },
    /// No connection can be accepted for the moment, probably for want of file descriptors. The loop tries again.
    AcceptFailed {
        /// What the system says.
        error: io::Error,
    },
    /// Another thread called the waker.
    Woken,
}

/// Why a connection ended.
#[derive(Debug, Error)]
pub enum CloseReason {
    /// It could not be established.
    #[error("cannot connect: {0}")]
    ConnectFailed(#[source] io::Error),
    /// Reading or writing failed: most often the peer is gone.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The peer does not read what is sent to it.
    #[error("{queued_bytes} bytes wait for a peer that does not read, more than the limit of {outbound_bytes_max}")]
    SlowReader {
        /// What was queued.
        queued_bytes: usize,
        /// What the limits allow.
        outbound_bytes_max: usize,
    },
    /// The owner wanted it closed after the last reply, and that has been written.
    #[error("closed after the last reply")]
    Finished,
}
