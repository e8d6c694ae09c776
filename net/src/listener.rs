//! The listening socket. It pauses when accepting fails, as when the system has no more file descriptors.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};

/// Maximum connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 1024;
/// Pause after a failed accept. Waiting connections raise no further event, so the listener must retry by itself, and
/// retries without a pause would take the whole processor.
const RETRY_AFTER: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct Listener {
    socket: TcpListener,
    /// Whether connections may be waiting. Events are edge-triggered, so this holds until `accept` finds none.
    pending: bool,
    retry_at: Option<Instant>,
}

impl Listener {
    pub(crate) fn bind(addr: SocketAddr, registry: &Registry, token: Token) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        // A server that restarts finds its port still in use by connections that its predecessor left behind.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        let mut socket = TcpListener::from_std(socket.into());
        registry.register(&mut socket, token, Interest::READABLE)?;
        Ok(Self { socket, pending: false, retry_at: None })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    pub(crate) fn on_readable(&mut self) {
        self.pending = true;
    }

    /// Returns the maximum time that the event loop may wait before it calls `accept` again; `None` is no limit. The
    /// poller does not announce waiting connections a second time.
    pub(crate) fn wait_max(&self) -> Option<Duration> {
        match (self.pending, self.retry_at) {
            (false, _) => None,
            (true, None) => Some(Duration::ZERO),
            (true, Some(at)) => Some(at.saturating_duration_since(Instant::now())),
        }
    }

    /// Accepts one connection. Returns `None` if none waits, or during the pause after an error.
    pub(crate) fn accept(&mut self) -> Option<io::Result<(TcpStream, SocketAddr)>> {
        if !self.pending || self.retry_at.is_some_and(|at| at > Instant::now()) {
            return None;
        }
        self.retry_at = None;
        loop {
            match self.socket.accept() {
                Ok(accepted) => return Some(Ok(accepted)),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => {
                        self.pending = false;
                        return None;
                    }
                    // A signal, or a peer that gave up while it waited.
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {}
                    _ => {
                        self.retry_at = Some(Instant::now() + RETRY_AFTER);
                        return Some(Err(error));
                    }
                },
            }
        }
    }
}
