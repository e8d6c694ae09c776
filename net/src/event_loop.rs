//! One thread's sockets: the listener and every connection, accepted or dialled, behind one poller.
//!
//! A turn of the owner is `poll`, then its own work on the events, then `flush`. The loop never calls back. It bounds
//! the bytes that one turn reads from each connection and from all together. The next turn continues where the last one
//! stopped, so that one busy peer cannot starve the others. In the steady state a turn costs each connection with a
//! request one read and one write, and allocates nothing.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use mio::net::TcpStream;
use mio::{Poll, Token, Waker};

use crate::connection::Phase;
use crate::connections::Connections;
pub use crate::connections::Detached;
use crate::event::{ConnectionId, Event};
use crate::listener::Listener;
use crate::outbound::Outbound;
use crate::transport::Transport;

/// Maximum events that the poller returns at once. Further events wait for the next turn.
const POLLED_MAX: usize = 1024;
/// Maximum connections accepted in one turn.
const ACCEPTS_MAX: usize = 64;
// No id has these tokens: its index (the lower half) would be near 2^32.
const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);

/// How often the loop has called the system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SystemCalls {
    /// Waits for events; one per turn.
    pub polls: u64,
    /// Reads from connections.
    pub reads: u64,
    /// Writes to connections.
    pub writes: u64,
}

/// The bounds of an event loop.
#[derive(Clone, Copy, Debug)]
pub struct LoopLimits {
    /// Maximum accepted connections. Further ones are turned away. Dialled ones do not count.
    pub connections_max: usize,
    /// Maximum bytes of unconsumed input per connection. At the limit, the connection is not read. The longest request
    /// and the longest frame must be shorter, or they would never be complete.
    pub input_bytes_max: usize,
    /// Maximum bytes queued for a connection after a flush. A connection that exceeds the limit is closed.
    pub outbound_bytes_max: usize,
}

impl Default for LoopLimits {
    fn default() -> Self {
        Self { connections_max: 10_000, input_bytes_max: 256 << 20, outbound_bytes_max: 256 << 20 }
    }
}

/// The sockets of one thread; see the module's text.
#[derive(Debug)]
pub struct EventLoop {
    poll: Poll,
    polled: mio::Events,
    polls: u64,
    waker: Arc<Waker>,
    listener: Option<Listener>,
    connections: Connections,
}

impl EventLoop {
    /// Creates a loop that only dials.
    ///
    /// # Errors
    /// When the system grants no poller.
    pub fn new(limits: LoopLimits) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let polled = mio::Events::with_capacity(POLLED_MAX);
        Ok(Self { poll, polled, polls: 0, waker, listener: None, connections: Connections::new(limits) })
    }

    /// Creates a loop that listens on `addr`. Port 0 takes any free port.
    ///
    /// # Errors
    /// When the address cannot be bound, or the system grants no poller.
    pub fn bind(addr: SocketAddr, limits: LoopLimits) -> io::Result<Self> {
        let mut event_loop = Self::new(limits)?;
        event_loop.listener = Some(Listener::bind(addr, event_loop.poll.registry(), LISTENER)?);
        Ok(event_loop)
    }

    /// Returns the address that the loop listens on.
    ///
    /// # Errors
    /// When the loop does not listen.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.as_ref().map_or_else(|| Err(ErrorKind::NotConnected.into()), Listener::local_addr)
    }

    /// Returns the waker. It ends the current or the next wait, from any thread, with [`Event::Woken`].
    #[must_use]
    pub fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// Changes the maximum number of accepted connections. Existing connections stay.
    pub fn set_connections_max(&mut self, connections_max: usize) {
        self.connections.set_max(connections_max);
    }

    /// Returns the number of connections, dialled ones included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Returns the calls of the system that the loop has made so far.
    #[must_use]
    pub fn system_calls(&self) -> SystemCalls {
        SystemCalls { polls: self.polls, ..self.connections.calls() }
    }

    /// Runs one turn: waits until something happens or `timeout` is over, accepts and reads, and replaces `events` with
    /// the events of the turn. `timeout` is rounded up to whole milliseconds; `None` waits for ever. A signal ends the
    /// wait early. The turn does not wait if work is left from the last one.
    ///
    /// # Errors
    /// Errors of the poller, after which the process can only end. Errors of connections are events.
    pub fn poll(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        events.clear();
        self.connections.begin_turn(events);
        let timeout = self.wait_max(timeout, events);
        self.polls += 1;
        match self.poll.poll(&mut self.polled, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        for event in &self.polled {
            match event.token() {
                LISTENER => self.listener.iter_mut().for_each(Listener::on_readable),
                WAKER => events.push(Event::Woken),
                _ => self.connections.on_event(event, events),
            }
        }
        self.accept(events);
        self.connections.read_ready(events);
        Ok(())
    }

    /// Returns the bytes that the peer sent and the owner has not consumed. `None` if the connection no longer exists.
    pub fn input(&mut self, id: ConnectionId) -> Option<&mut BytesMut> {
        self.connections.find(id).map(|connection| &mut connection.input)
    }

    /// Announces that the request or frame in the input lacks at least `bytes` bytes, so that a long one can be read in
    /// larger pieces and without a copy. Reserves nothing in advance.
    pub fn expect(&mut self, id: ConnectionId, bytes: usize) {
        if let Some(connection) = self.connections.find(id) {
            connection.expected = bytes;
        }
    }

    /// Returns the output queue of a connection, for appending. The next [`Self::flush`] writes it. It may be used
    /// before a dialled connection is established. `None` if the connection no longer exists.
    pub fn outbound(&mut self, id: ConnectionId) -> Option<&mut Outbound> {
        self.connections.mark_dirty(id).map(|connection| &mut connection.outbound)
    }

    /// Returns the number of bytes that wait to be sent; 0 if the connection no longer exists.
    #[must_use]
    pub fn outbound_len(&self, id: ConnectionId) -> usize {
        self.connections.outbound_len(id)
    }

    /// Writes once to each connection for which [`Self::outbound`] was called. The rest is written when the peer has
    /// made room. The next poll reports failures.
    pub fn flush(&mut self) {
        self.connections.flush();
    }

    /// Begins to connect to `addr`. [`Event::Connected`] or [`Event::Closed`] reports the result. The system may take
    /// minutes: the owner closes the connection when it has waited long enough.
    ///
    /// # Errors
    /// When the attempt cannot even begin.
    pub fn dial(&mut self, addr: SocketAddr) -> io::Result<ConnectionId> {
        let transport = Transport::tcp(TcpStream::connect(addr)?)?;
        self.connections.insert(transport, Phase::Connecting, self.poll.registry())
    }

    /// Takes an open connection out of this loop, for another one. Returns `None` if there is none, or if the system
    /// cannot take it out: then the connection stays.
    pub fn detach(&mut self, id: ConnectionId) -> Option<Detached> {
        self.connections.detach(id, self.poll.registry())
    }

    /// Takes an accepted connection of another loop. Its input is announced again.
    ///
    /// # Errors
    /// If too many accepted connections are open, or if the poller cannot take it. The connection is closed then.
    pub fn adopt(&mut self, detached: Detached) -> io::Result<ConnectionId> {
        self.connections.adopt(detached, self.poll.registry())
    }

    /// Closes a connection at once, and discards its queued output. No event follows.
    pub fn close(&mut self, id: ConnectionId) {
        self.connections.remove(id);
    }

    /// Stops reading from a connection, and closes it when its queued output is written. [`Event::Closed`] reports
    /// that. A peer that never reads keeps the connection open: the owner closes it when it has waited long enough.
    pub fn close_after_flush(&mut self, id: ConnectionId) {
        self.connections.finish(id);
    }

    /// Stops reading from a connection until [`Self::resume`]. Input that was read in this turn may still be announced.
    /// During the pause, an end of the peer's stream is not noticed; a broken connection is.
    pub fn pause(&mut self, id: ConnectionId) {
        self.connections.pause(id);
    }

    /// Resumes reading from a paused connection. If its input is not empty, [`Event::Input`] comes even if nothing
    /// arrives.
    pub fn resume(&mut self, id: ConnectionId) {
        self.connections.resume(id);
    }

    fn wait_max(&self, timeout: Option<Duration>, events: &[Event]) -> Option<Duration> {
        if !events.is_empty() || self.connections.is_busy() {
            return Some(Duration::ZERO);
        }
        let listener = self.listener.as_ref().and_then(Listener::wait_max);
        timeout.into_iter().chain(listener).min()
    }

    fn accept(&mut self, events: &mut Vec<Event>) {
        let Some(listener) = &mut self.listener else { return };
        for _ in 0..ACCEPTS_MAX {
            match listener.accept() {
                None => return,
                Some(Ok((stream, peer))) => {
                    self.connections.accept(stream, peer, self.poll.registry(), events);
                }
                Some(Err(error)) => {
                    events.push(Event::AcceptFailed { error });
                    return;
                }
            }
        }
    }
}
