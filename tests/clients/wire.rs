//! Connections without a client library: bytes out, bytes and values in.

use net::resp::value::{Value, decode};
use paxoi::client::write_command;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Maximum wait for one reply, or for a change that the cluster makes by itself.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A connection.
pub(crate) struct Wire {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Wire {
    pub(crate) fn connect(node: SocketAddr) -> Wire {
        let stream = TcpStream::connect(node).expect("a connection");
        stream.set_nodelay(true).expect("a socket option");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        Wire { stream, input: Vec::new() }
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("sent");
    }

    /// Half-closes the connection: no more will be sent.
    pub(crate) fn finish(&self) {
        self.stream.shutdown(Shutdown::Write).expect("shut down");
    }

    /// Returns the next reply.
    pub(crate) fn receive(&mut self) -> Value {
        loop {
            if let Some((value, length)) = decode(&self.input).expect("a reply") {
                self.input.drain(..length);
                return value;
            }
            let mut buffer = [0; 16 << 10];
            let read = self.stream.read(&mut buffer).expect("a reply in time");
            assert_ne!(read, 0, "the server closed the connection; left: {}", self.input.escape_ascii());
            self.input.extend_from_slice(&buffer[..read]);
        }
    }

    /// Sends one command, its words separated by spaces, and shows the reply.
    pub(crate) fn ask(&mut self, command: &str) -> String {
        let words: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
        let mut bytes = Vec::new();
        write_command(&words, &mut bytes);
        self.send(&bytes);
        show(&self.receive())
    }

    /// Returns everything that comes until the server closes.
    pub(crate) fn rest(mut self) -> Vec<u8> {
        self.stream.read_to_end(&mut self.input).expect("the end in time");
        self.input
    }
}

/// Sends one command on a connection of its own, and shows the reply.
pub(crate) fn ask(node: SocketAddr, command: &str) -> String {
    Wire::connect(node).ask(command)
}

/// Sends inline commands, one on each line, in one write, and half-closes. Returns the bytes that come until the server
/// closes too.
pub(crate) fn exchange(node: SocketAddr, script: &str) -> Vec<u8> {
    let mut wire = Wire::connect(node);
    wire.send(script.as_bytes());
    wire.finish();
    wire.rest()
}

/// Sends inline commands, separated by ` | `, in one write. Returns the replies, shown and separated in the same way.
pub(crate) fn talk(node: SocketAddr, commands: &str) -> String {
    let bytes = exchange(node, &(commands.replace(" | ", "\r\n") + "\r\n"));
    let (mut rest, mut replies) = (&bytes[..], Vec::new());
    while !rest.is_empty() {
        let (value, length) = decode(rest).expect("replies").expect("whole replies");
        replies.push(show(&value));
        rest = &rest[length..];
    }
    replies.join(" | ")
}

/// Shows a reply in one line: `OK`, `"text"`, `7`, `nil`, `[…]`, `{name: value}`, `~[…]` for a set, `-ERR …`.
pub(crate) fn show(value: &Value) -> String {
    let list = |items: &[Value]| items.iter().map(show).collect::<Vec<_>>().join(" ");
    match value {
        Value::Simple(text) => text.clone(),
        Value::Error(text) => format!("-{text}"),
        Value::Int(number) => number.to_string(),
        Value::Bulk(bytes) => format!("\"{}\"", bytes.escape_ascii()),
        Value::Null => "nil".to_owned(),
        Value::Array(items) => format!("[{}]", list(items)),
        Value::Set(items) => format!("~[{}]", list(items)),
        Value::Map(pairs) => {
            let pair = |(name, value): &(Value, Value)| format!("{}: {}", show(name), show(value));
            format!("{{{}}}", pairs.iter().map(pair).collect::<Vec<_>>().join(", "))
        }
        Value::Verbatim(_, bytes) => format!("={}", bytes.escape_ascii()),
        other => format!("{other:?}"),
    }
}

/// Repeats a command until the reply is `wanted`, for changes that the cluster makes by itself.
#[track_caller]
pub(crate) fn until(node: SocketAddr, command: &str, wanted: &str) {
    let (deadline, mut wire) = (Instant::now() + PATIENCE, Wire::connect(node));
    loop {
        let reply = wire.ask(command);
        if reply == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{command} at {node}: {reply} instead of {wanted}");
    }
}
