//! One thread's sockets: the listener and every connection, accepted or dialled, behind one poller.
//!
//! A turn of the owner is `poll`, then its own work on the events, then `flush`. The loop never calls back. It bounds
//! what one turn reads from each connection and from all together, and goes on in the next turn where it stopped, so
//! that one busy peer cannot starve the others. In the steady state a turn costs each connection with a request one
//! read and one write, and allocates nothing.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use mio::net::TcpStream;
use mio::{Poll, Token, Waker};

use crate::connection::Phase;
use crate::connections::Connections;
use crate::event::{Event, Handle};
use crate::listener::Listener;
use crate::outbound::Outbound;
use crate::transport::Transport;

/// How many events the poller returns at once; more wait for the next turn.
const POLLED_MAX: usize = 1024;
/// How many connections are accepted in one turn.
const ACCEPTS_MAX: usize = 64;
// No handle has these tokens: its index, the lower half, would be near 2^32.
const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);

/// The bounds of an event loop.
#[derive(Clone, Copy, Debug)]
pub struct LoopLimits {
    /// How many accepted connections there may be; further ones are turned away. Dialled ones are not counted.
    pub connections_max: usize,
    /// How much unconsumed input a connection may hold; no more is read meanwhile. The longest request and the longest
    /// frame must be shorter, or they would never be complete.
    pub input_bytes_max: usize,
    /// How much may stay queued for a connection after a flush. One that exceeds it is closed.
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
    waker: Arc<Waker>,
    listener: Option<Listener>,
    connections: Connections,
}

impl EventLoop {
    /// A loop that only dials.
    ///
    /// # Errors
    /// When the system grants no poller.
    pub fn new(limits: LoopLimits) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let polled = mio::Events::with_capacity(POLLED_MAX);
        Ok(Self { poll, polled, waker, listener: None, connections: Connections::new(limits) })
    }

    /// A loop that listens on `addr`; port 0 takes any free one.
    ///
    /// # Errors
    /// When the address cannot be bound, or the system grants no poller.
    pub fn bind(addr: SocketAddr, limits: LoopLimits) -> io::Result<Self> {
        let mut event_loop = Self::new(limits)?;
        event_loop.listener = Some(Listener::bind(addr, event_loop.poll.registry(), LISTENER)?);
        Ok(event_loop)
    }

    /// The address that the loop listens on.
    ///
    /// # Errors
    /// When it listens on none.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.as_ref().map_or_else(|| Err(ErrorKind::NotConnected.into()), Listener::local_addr)
    }

    /// Ends the current or the next wait, from any thread: [`Event::Woken`].
    #[must_use]
    pub fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// Changes how many accepted connections there may be; those that there are stay.
    pub fn set_connections_max(&mut self, connections_max: usize) {
        self.connections.set_max(connections_max);
    }

    /// The number of connections, dialled ones included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// One turn: waits until something happens or `timeout` is over (rounded up to whole milliseconds; `None` waits
    /// for ever), accepts and reads, and replaces `events` by what happened. A signal ends the wait early. If work is
    /// left from the last turn, it does not wait.
    ///
    /// # Errors
    /// Those of the poller, which leave nothing to do but to end the process. Those of connections are events.
    pub fn poll(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        events.clear();
        self.connections.begin_turn(events);
        let timeout = self.wait_max(timeout, events);
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

    /// What the peer sent and the owner has not consumed. `None` if there is no such connection any more.
    pub fn input(&mut self, handle: Handle) -> Option<&mut BytesMut> {
        self.connections.find(handle).map(|connection| &mut connection.input)
    }

    /// Tells that at least so many bytes are still missing from the request or frame in the input, so that a long one
    /// can be read in larger pieces and without a copy. Nothing is reserved for them in advance.
    pub fn expect(&mut self, handle: Handle, bytes: usize) {
        if let Some(connection) = self.connections.find(handle) {
            connection.expected = bytes;
        }
    }

    /// What is to be sent to the peer, for appending; the next [`Self::flush`] writes it. It may be used before a
    /// dialled connection is established. `None` if there is no such connection any more.
    pub fn outbound(&mut self, handle: Handle) -> Option<&mut Outbound> {
        self.connections.mark_dirty(handle).map(|connection| &mut connection.outbound)
    }

    /// How many bytes wait to be sent; 0 if there is no such connection any more.
    #[must_use]
    pub fn outbound_len(&self, handle: Handle) -> usize {
        self.connections.outbound_len(handle)
    }

    /// Writes each connection that [`Self::outbound`] was asked for, once. What does not fit is written when the peer
    /// has made room. Failures are told by the next poll.
    pub fn flush(&mut self) {
        self.connections.flush();
    }

    /// Begins to connect to `addr`. [`Event::Connected`] or [`Event::Closed`] tells how it ends, which may take the
    /// system minutes: the owner closes it when it has waited enough.
    ///
    /// # Errors
    /// When the attempt cannot even begin.
    pub fn dial(&mut self, addr: SocketAddr) -> io::Result<Handle> {
        let transport = Transport::tcp(TcpStream::connect(addr)?)?;
        self.connections.insert(transport, Phase::Connecting, self.poll.registry())
    }

    /// Closes a connection at once, with all that is queued for it. No event follows.
    pub fn close(&mut self, handle: Handle) {
        self.connections.remove(handle);
    }

    /// Reads no more from a connection, and closes it when everything queued has been written, which
    /// [`Event::Closed`] tells. A peer that never reads keeps it open: the owner closes it when it has waited enough.
    pub fn close_after_flush(&mut self, handle: Handle) {
        self.connections.finish(handle);
    }

    /// Reads no more from a connection until [`Self::resume`]. Input that was read in this turn may still be announced.
    /// An end of the peer's stream is not noticed meanwhile, a broken connection is.
    pub fn pause(&mut self, handle: Handle) {
        self.connections.pause(handle);
    }

    /// Reads a paused connection again. If its input is not empty, [`Event::Input`] comes even if nothing arrives.
    pub fn resume(&mut self, handle: Handle) {
        self.connections.resume(handle);
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
