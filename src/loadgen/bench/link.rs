//! One connection of the generator: a non-blocking socket, its unsent bytes, its in-flight requests in order, and the
//! back-off before it connects again.

use super::workload::Op;
use crate::rng::Rng;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use net::resp::value::Scan;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::SocketAddr;

const BACKOFF_NS_MIN: u64 = 20_000_000;
const BACKOFF_NS_MAX: u64 = 1_000_000_000;
/// Time limit for a connection attempt.
const CONNECT_NS_MAX: u64 = 2_000_000_000;
/// Maximum bytes of an incomplete reply in the input buffer: the longest bulk string and its head.
const REPLY_BYTES_MAX: usize = net::resp::value::BULK_BYTES_MAX + 64;

/// A connection to one server. While it is down, the link holds its back-off.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    index: usize,
    client: usize,
    /// Number of the link's current socket. Events of older sockets are ignored.
    generation: u32,
    stream: Option<TcpStream>,
    state: State,
    /// Requests not yet written to the socket, from `written` on.
    output: Vec<u8>,
    written: usize,
    /// The start of a reply whose end has not arrived.
    input: Vec<u8>,
    scan: Scan,
    flight: VecDeque<Op>,
    backoff_ns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Up,
    Connecting { since_ns: u64 },
    Down { until_ns: u64 },
}

impl Link {
    /// Creates a link that is down and may be dialled at once. `index` identifies it among all links. It belongs to the
    /// client with number `client`.
    #[must_use]
    pub fn new(address: SocketAddr, index: usize, client: usize) -> Link {
        Link {
            address,
            index,
            client,
            generation: 0,
            stream: None,
            state: State::Down { until_ns: 0 },
            output: Vec::new(),
            written: 0,
            input: Vec::new(),
            scan: Scan::default(),
            flight: VecDeque::new(),
            backoff_ns: BACKOFF_NS_MIN,
        }
    }

    /// Returns the index of the link that `token` belongs to, and the generation of its socket.
    #[must_use]
    pub fn of_token(token: Token) -> (usize, u32) {
        (token.0 & 0xFFFF_FFFF, (token.0 >> 32) as u32)
    }

    /// Returns true if `generation` is that of the current socket.
    #[must_use]
    pub fn is_current(&self, generation: u32) -> bool {
        self.generation == generation && self.stream.is_some()
    }

    /// Returns the number of the client that the link belongs to.
    #[must_use]
    pub fn client(&self) -> usize {
        self.client
    }

    /// Returns true if requests can be sent.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.state == State::Up
    }

    /// Connects and waits for the connection, as is done before a run begins.
    ///
    /// # Errors
    /// If no server is there.
    pub fn connect_now(&mut self, registry: &Registry) -> io::Result<()> {
        let timeout = std::time::Duration::from_nanos(CONNECT_NS_MAX);
        let stream = std::net::TcpStream::connect_timeout(&self.address, timeout)?;
        stream.set_nonblocking(true)?;
        self.adopt(TcpStream::from_std(stream), registry)?;
        self.state = State::Up;
        Ok(())
    }

    /// Dials when the back-off is over, and gives up an attempt that takes too long. Returns false if an attempt
    /// failed.
    pub fn on_time(&mut self, now_ns: u64, registry: &Registry) -> bool {
        match self.state {
            State::Down { until_ns } if until_ns <= now_ns => {
                self.state = State::Connecting { since_ns: now_ns };
                TcpStream::connect(self.address).and_then(|stream| self.adopt(stream, registry)).is_ok()
            }
            State::Connecting { since_ns } => now_ns.saturating_sub(since_ns) <= CONNECT_NS_MAX,
            _ => true,
        }
    }

    /// Handles a writable socket: the connection may be established now. Returns true if the link has just come up.
    ///
    /// # Errors
    /// If the attempt failed.
    pub fn on_writable(&mut self) -> io::Result<bool> {
        if self.is_up() {
            return Ok(false);
        }
        let Some(stream) = &self.stream else { return Ok(false) };
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
        match stream.peer_addr() {
            Ok(_) => {
                self.state = State::Up;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Queues a request, whose bytes `write` appends. Returns true if no other bytes were waiting to be sent.
    pub fn send(&mut self, op: Op, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let first = self.output.is_empty();
        write(&mut self.output);
        self.flight.push_back(op);
        first
    }

    /// Writes queued bytes, as far as the socket takes them. The rest goes when the socket is writable again.
    ///
    /// # Errors
    /// If the connection is lost.
    pub fn flush(&mut self) -> io::Result<()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        while self.written < self.output.len() {
            match stream.write(&self.output[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(())
    }

    /// Reads all replies that have arrived. `on_reply` gets each request with its reply and, if the reply is an error,
    /// the error line. A server that refuses a connection sends an error before any request; the request is then
    /// `None`. `to_the_end` is true if the peer has closed. Reading then goes on after a short read, up to the end of
    /// the stream.
    ///
    /// # Errors
    /// If the connection is lost, or carries anything but a reply. Replies before that were handed out.
    pub fn receive(
        &mut self,
        scratch: &mut [u8],
        to_the_end: bool,
        mut on_reply: impl FnMut(Option<Op>, &[u8], Option<&[u8]>),
    ) -> io::Result<()> {
        loop {
            let Some(stream) = &mut self.stream else { return Ok(()) };
            let count = match stream.read(scratch) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.take_replies(&scratch[..count], &mut on_reply)?;
            // A stream socket that returns less than was asked for is empty, and epoll reports what comes later. A read
            // that only confirms this costs a tenth of the throughput of unpipelined requests.
            if count < scratch.len() && !to_the_end {
                return Ok(());
            }
        }
    }

    fn take_replies(
        &mut self,
        arrived: &[u8],
        on_reply: &mut impl FnMut(Option<Op>, &[u8], Option<&[u8]>),
    ) -> io::Result<()> {
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        let mut input = std::mem::take(&mut self.input);
        let bytes = if input.is_empty() {
            arrived
        } else {
            input.extend_from_slice(arrived);
            &input
        };
        let mut start = 0;
        while start < bytes.len() {
            let Some((length, is_error)) = self.scan.resume(&bytes[start..]).map_err(invalid)? else { break };
            let reply = &bytes[start..start + length];
            let op = self.flight.pop_front();
            on_reply(op, reply, is_error.then(|| error_line(reply)));
            if op.is_none() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a reply without a request"));
            }
            start += length;
        }
        if start > 0 {
            self.backoff_ns = BACKOFF_NS_MIN;
        }
        if input.is_empty() {
            input.extend_from_slice(&arrived[start..]);
        } else {
            input.drain(..start);
        }
        self.input = input;
        if self.input.len() > REPLY_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a reply is too long"));
        }
        Ok(())
    }

    /// Returns the requests without a reply.
    pub fn flight(&self) -> impl Iterator<Item = &Op> {
        self.flight.iter()
    }

    /// Closes the socket and starts the back-off before the next attempt. Returns the requests that got no reply.
    pub fn hang_up(&mut self, now_ns: u64, registry: &Registry, rng: &mut Rng) -> VecDeque<Op> {
        if let Some(mut stream) = self.stream.take() {
            // The socket is closed next, which removes it from epoll anyway.
            _ = registry.deregister(&mut stream);
        }
        self.state = State::Down { until_ns: now_ns + self.backoff_ns / 2 + rng.below(self.backoff_ns / 2) };
        self.backoff_ns = (self.backoff_ns * 2).min(BACKOFF_NS_MAX);
        self.output.clear();
        self.written = 0;
        self.input.clear();
        self.scan = Scan::default();
        std::mem::take(&mut self.flight)
    }

    fn adopt(&mut self, mut stream: TcpStream, registry: &Registry) -> io::Result<()> {
        stream.set_nodelay(true)?;
        self.generation = self.generation.wrapping_add(1);
        let token = Token(self.index | (self.generation as usize) << 32);
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        self.stream = Some(stream);
        Ok(())
    }
}

/// Returns the line of an error reply: `-LINE\r\n`, or in RESP3 `!length\r\nLINE\r\n`.
fn error_line(reply: &[u8]) -> &[u8] {
    let start = if reply[0] == b'!' { memchr::memchr(b'\n', reply).map_or(1, |end| end + 1) } else { 1 };
    &reply[start..reply.len() - 2]
}
