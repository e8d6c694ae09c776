//! A small blocking client: one connection, one call at a time.
//!
//! The client serves where speed does not matter: to ask a cluster for its slots, to print a status, to set things up
//! before a load. It speaks RESP2 to any server of the protocol.

use crate::resolver::addresses;
use net::resp::value::{Scan, Value, decode};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const READ_BYTES: usize = 16 * 1024;

/// A connection to a server.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    /// Bytes received; the first ones may belong to a reply that is not whole yet.
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Client {
    /// Connects within `timeout`, which also bounds each wait of every later call.
    ///
    /// # Errors
    /// If nobody listens at `address`, or nobody answers in time.
    pub fn connect(address: SocketAddr, timeout: Duration) -> io::Result<Client> {
        let stream = TcpStream::connect_timeout(&address, timeout)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        Ok(Client { stream, input: Vec::new(), output: Vec::new() })
    }

    /// Sends one command and waits for its reply. An error reply is a [`Value::Error`], not an `Err`.
    ///
    /// # Errors
    /// If the connection fails, is closed, stays silent for the timeout, or carries bytes that are not RESP. Do not use
    /// the connection after that: a late reply would answer the next call.
    pub fn call(&mut self, arguments: &[&[u8]]) -> io::Result<Value> {
        self.output.clear();
        write_command(arguments, &mut self.output);
        self.stream.write_all(&self.output)?;
        self.receive()
    }

    /// Sends `count` commands at once, which [`write_command`] put into `requests`, and hands out their replies in
    /// order. For commands with short replies only: no reply is read before everything is sent.
    ///
    /// # Errors
    /// As [`Client::call`]. The replies before the error were handed out.
    pub fn pipeline(&mut self, requests: &[u8], count: usize, mut on_reply: impl FnMut(Value)) -> io::Result<()> {
        self.stream.write_all(requests)?;
        (0..count).try_for_each(|_| self.receive().map(&mut on_reply))
    }

    fn receive(&mut self) -> io::Result<Value> {
        let mut scan = Scan::default();
        loop {
            if scan.resume(&self.input).map_err(invalid)?.is_some() {
                break;
            }
            let filled = self.input.len();
            self.input.resize(filled + READ_BYTES, 0);
            let read = self.stream.read(&mut self.input[filled..]);
            self.input.truncate(filled + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "the server did not answer in time"));
                }
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
        match decode(&self.input).map_err(invalid)? {
            Some((value, length)) => {
                self.input.drain(..length);
                Ok(value)
            }
            None => Err(io::Error::from(io::ErrorKind::InvalidData)),
        }
    }
}

/// Appends a command in RESP: an array of bulk strings.
pub fn write_command(arguments: &[&[u8]], out: &mut Vec<u8>) {
    let mut number = itoa::Buffer::new();
    let mut head = |kind: u8, count: usize, out: &mut Vec<u8>| {
        out.push(kind);
        out.extend_from_slice(number.format(count).as_bytes());
        out.extend_from_slice(b"\r\n");
    };
    head(b'*', arguments.len(), out);
    for argument in arguments {
        head(b'$', argument.len(), out);
        out.extend_from_slice(argument);
        out.extend_from_slice(b"\r\n");
    }
}

/// Returns the first address that `HOST:PORT` stands for.
///
/// # Errors
/// If it has no port, or the name is unknown.
pub fn resolve(address: &str) -> io::Result<SocketAddr> {
    addresses(address).map(|found| found[0])
}

fn invalid(error: net::resp::value::ValueError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    const TIMEOUT: Duration = Duration::from_secs(5);

    /// Starts a server that answers the first bytes it gets with `pieces`, each in a write of its own, then closes.
    fn answering(pieces: &'static [&'static [u8]]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_nodelay(true).unwrap();
            let mut request = [0; 256];
            let length = stream.read(&mut request).unwrap();
            assert_eq!(&request[..length], b"*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n");
            pieces.iter().for_each(|piece| stream.write_all(piece).unwrap());
        });
        address
    }

    #[test]
    fn a_reply_in_pieces_is_put_together() {
        let mut client = Client::connect(answering(&[b"$", b"2\r", b"\nhi", b"\r\n"]), TIMEOUT).unwrap();
        assert_eq!(client.call(&[b"ECHO", b"hi"]).unwrap(), Value::Bulk(b"hi".to_vec()));
    }

    #[test]
    fn an_error_reply_is_a_value_and_a_closed_connection_is_an_error() {
        let mut client = Client::connect(answering(&[b"-ERR no\r\n"]), TIMEOUT).unwrap();
        assert_eq!(client.call(&[b"ECHO", b"hi"]).unwrap(), Value::Error("ERR no".into()));
        let mut client = Client::connect(answering(&[b"$2\r\nh"]), TIMEOUT).unwrap();
        assert_eq!(client.call(&[b"ECHO", b"hi"]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let mut client = Client::connect(answering(&[b"HTTP/1.1 200 OK\r\n"]), TIMEOUT).unwrap();
        assert_eq!(client.call(&[b"ECHO", b"hi"]).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_silent_server_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = Client::connect(listener.local_addr().unwrap(), Duration::from_millis(20)).unwrap();
        assert_eq!(client.call(&[b"PING"]).unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn addresses_need_a_port() {
        assert_eq!(resolve("127.0.0.1:7001").unwrap(), "127.0.0.1:7001".parse().unwrap());
        assert!(resolve("127.0.0.1").is_err());
    }
}
