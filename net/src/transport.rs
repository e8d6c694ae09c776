//! The byte stream under a connection: a TCP socket today, with room for encrypted ones.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::{SockRef, TcpKeepalive};

/// Idle time after which the kernel sends the first keepalive probe, as in Redis.
const KEEPALIVE: Duration = Duration::from_secs(300);
/// Interval between keepalive probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(100);

/// Maximum unsent bytes that the kernel takes. Later urgent bytes wait behind them.
const UNSENT_BYTES: u32 = 128 << 10;

/// A non-blocking stream of bytes.
#[derive(Debug)]
pub(crate) enum Transport {
    /// A plain socket.
    Tcp(TcpStream),
}

impl Transport {
    /// Wraps an accepted or a connecting socket, and sets the options of all sockets: replies leave at once, dead peers
    /// are noticed in the end, and few bytes wait in the kernel.
    pub(crate) fn tcp(stream: TcpStream) -> io::Result<Self> {
        let socket = SockRef::from(&stream);
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE_INTERVAL))?;
        #[cfg(target_os = "linux")]
        socket.set_tcp_notsent_lowat(UNSENT_BYTES)?;
        Ok(Self::Tcp(stream))
    }

    /// Registers the stream with the poller, edge-triggered, for both directions at once. Each later change of interest
    /// would cost a system call.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => registry.register(stream, token, Interest::READABLE | Interest::WRITABLE),
        }
    }

    /// Removes the stream from the poller, so that another one can take it.
    pub(crate) fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => registry.deregister(stream),
        }
    }

    /// Returns true if a dialled socket is connected, false while that is not known.
    pub(crate) fn is_established(&self) -> io::Result<bool> {
        let Self::Tcp(stream) = self;
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
        match stream.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns the address of the other side.
    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        let Self::Tcp(stream) = self;
        stream.peer_addr()
    }

    /// Returns the error that the poller hinted at.
    pub(crate) fn take_error(&self) -> io::Error {
        let Self::Tcp(stream) = self;
        match stream.take_error() {
            Ok(Some(error)) | Err(error) => error,
            Ok(None) => ErrorKind::ConnectionReset.into(),
        }
    }
}

impl Read for Transport {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buf),
        }
    }
}

impl Write for Transport {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
