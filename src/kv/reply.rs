//! The reply to a command, before it is encoded in the protocol of the client that asked.

use super::long_value::LongValue;
use super::strings::Strings;
use bytes::BytesMut;
use net::outbound::Outbound;
use net::resp::Protocol;
use std::borrow::Cow;

/// One reply. It may borrow from the store, so that a value is copied once: into the client's output.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply<'a> {
    /// `+OK`
    Ok,
    /// A status other than OK.
    Simple(&'static str),
    /// A status whose text is made at run time. The store never returns one.
    Status(String),
    /// An integer.
    Int(i64),
    /// A string of bytes.
    Bulk(Cow<'a, [u8]>),
    /// A long string of bytes, which shares its memory with the store.
    Long(LongValue),
    /// Readable text: a verbatim string in RESP3, a bulk string in RESP2.
    Text(Cow<'a, str>),
    /// No such value.
    Null,
    /// No such array (a null in RESP3).
    NullArray,
    /// Replies in order.
    Array(Vec<Reply<'a>>),
    /// Many bulk strings in order: an array of them.
    Strings(Strings),
    /// Pairs: a map in RESP3, a flat array in RESP2.
    Map(Vec<(Reply<'a>, Reply<'a>)>),
    /// Unordered, without duplicates: a set in RESP3, an array in RESP2.
    Set(Vec<Reply<'a>>),
    /// An error line, without the `-` and the line end; starts with its code (`ERR …`, `WRONGTYPE …`).
    Error(Cow<'static, str>),
}

impl<'a> Reply<'a> {
    /// An error with a fixed text.
    #[must_use]
    pub const fn error(text: &'static str) -> Reply<'static> {
        Reply::Error(Cow::Borrowed(text))
    }

    /// A bulk string that borrows its bytes.
    #[must_use]
    pub fn bulk(bytes: &'a [u8]) -> Reply<'a> {
        Reply::Bulk(Cow::Borrowed(bytes))
    }

    /// A bulk string of text.
    #[must_use]
    pub fn text(text: &'a str) -> Reply<'a> {
        Reply::Bulk(Cow::Borrowed(text.as_bytes()))
    }

    /// The approximate size of the reply in bytes. For a short reply this is less than it takes in memory, and more
    /// than it takes on the wire.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let all = |items: &[Reply<'_>]| items.iter().map(Reply::bytes).sum::<usize>();
        match self {
            Reply::Bulk(bytes) => REPLY_BYTES + bytes.len(),
            Reply::Long(value) => REPLY_BYTES + value.len(),
            Reply::Text(text) => REPLY_BYTES + text.len(),
            Reply::Error(text) => REPLY_BYTES + text.len(),
            Reply::Status(text) => REPLY_BYTES + text.len(),
            Reply::Array(items) | Reply::Set(items) => REPLY_BYTES + all(items),
            Reply::Strings(strings) => REPLY_BYTES + listed_bytes(strings),
            Reply::Map(pairs) => {
                REPLY_BYTES + pairs.iter().map(|(key, value)| key.bytes() + value.bytes()).sum::<usize>()
            }
            Reply::Ok | Reply::Simple(_) | Reply::Int(_) | Reply::Null | Reply::NullArray => REPLY_BYTES,
        }
    }

    /// An array of `items`, or the error [`TOO_LARGE`] if they hold more than `bytes_max` bytes. The remaining items
    /// are then not evaluated.
    #[must_use]
    pub fn list(items: impl Iterator<Item = Reply<'a>>, bytes_max: usize) -> Reply<'a> {
        let (mut all, mut bytes) = (Vec::with_capacity(items.size_hint().0), 0);
        for item in items {
            bytes += item.bytes();
            if bytes > bytes_max {
                return TOO_LARGE;
            }
            all.push(item);
        }
        Reply::Array(all)
    }

    /// The same reply, borrowing nothing.
    #[must_use]
    pub fn into_owned(self) -> Reply<'static> {
        let all = |items: Vec<Reply<'a>>| items.into_iter().map(Reply::into_owned).collect();
        match self {
            Reply::Ok => Reply::Ok,
            Reply::Simple(text) => Reply::Simple(text),
            Reply::Status(text) => Reply::Status(text),
            Reply::Int(number) => Reply::Int(number),
            Reply::Bulk(bytes) => Reply::Bulk(Cow::Owned(bytes.into_owned())),
            Reply::Long(value) => Reply::Long(value),
            Reply::Text(text) => Reply::Text(Cow::Owned(text.into_owned())),
            Reply::Null => Reply::Null,
            Reply::NullArray => Reply::NullArray,
            Reply::Array(items) => Reply::Array(all(items)),
            Reply::Strings(strings) => Reply::Strings(strings),
            Reply::Map(pairs) => Reply::Map(pairs.into_iter().map(|(k, v)| (k.into_owned(), v.into_owned())).collect()),
            Reply::Set(items) => Reply::Set(all(items)),
            Reply::Error(text) => Reply::Error(text),
        }
    }

    /// Encodes the reply in `protocol`, and appends it to `queue`. Long strings are not copied.
    pub fn write(&self, protocol: Protocol, queue: &mut Outbound) {
        let resp3 = protocol == Protocol::Resp3;
        let out = queue.buffer();
        match self {
            Reply::Ok => out.extend_from_slice(b"+OK\r\n"),
            Reply::Simple(text) => line(b'+', text.as_bytes(), out),
            Reply::Status(text) => line(b'+', text.as_bytes(), out),
            Reply::Int(number) => integer(b':', *number, out),
            Reply::Bulk(bytes) => {
                integer(b'$', bytes.len() as i64, out);
                out.extend_from_slice(bytes);
                out.extend_from_slice(b"\r\n");
            }
            Reply::Long(value) => {
                integer(b'$', value.len() as i64, out);
                value.shared().for_each(|piece| queue.push(piece));
                queue.buffer().extend_from_slice(b"\r\n");
            }
            Reply::Text(text) if resp3 => {
                integer(b'=', text.len() as i64 + 4, out);
                out.extend_from_slice(b"txt:");
                out.extend_from_slice(text.as_bytes());
                out.extend_from_slice(b"\r\n");
            }
            Reply::Text(text) => Reply::text(text).write(protocol, queue),
            Reply::Null | Reply::NullArray if resp3 => out.extend_from_slice(b"_\r\n"),
            Reply::Null => out.extend_from_slice(b"$-1\r\n"),
            Reply::NullArray => out.extend_from_slice(b"*-1\r\n"),
            Reply::Array(items) => {
                integer(b'*', items.len() as i64, out);
                items.iter().for_each(|item| item.write(protocol, queue));
            }
            Reply::Strings(strings) => {
                integer(b'*', strings.len() as i64, out);
                strings.pieces().for_each(|piece| out.extend_from_slice(piece));
            }
            Reply::Set(items) => {
                integer(if resp3 { b'~' } else { b'*' }, items.len() as i64, out);
                items.iter().for_each(|item| item.write(protocol, queue));
            }
            Reply::Map(pairs) => {
                let (mark, count) = if resp3 { (b'%', pairs.len()) } else { (b'*', pairs.len() * 2) };
                integer(mark, count as i64, out);
                for (key, value) in pairs {
                    key.write(protocol, queue);
                    value.write(protocol, queue);
                }
            }
            Reply::Error(text) => line(b'-', text.as_bytes(), out),
        }
    }
}

/// The size of a list of strings, as in [`Reply::bytes`].
pub(super) fn listed_bytes(strings: &Strings) -> usize {
    REPLY_BYTES * strings.len() + strings.bytes()
}

/// Bytes that each reply counts for, in addition to its content.
const REPLY_BYTES: usize = 16;

/// Replaces a reply that is too large for any connection.
pub const TOO_LARGE: Reply<'static> = Reply::Error(Cow::Borrowed("ERR the reply is too large: ask for less at a time"));

fn integer(mark: u8, number: i64, out: &mut BytesMut) {
    line(mark, itoa::Buffer::new().format(number).as_bytes(), out);
}

/// Writes a line of text. Line ends inside the text become spaces: otherwise a client could forge replies.
fn line(mark: u8, text: &[u8], out: &mut BytesMut) {
    out.extend_from_slice(&[mark]);
    let start = out.len();
    out.extend_from_slice(text);
    for byte in &mut out[start..] {
        if matches!(byte, b'\r' | b'\n') {
            *byte = b' ';
        }
    }
    out.extend_from_slice(b"\r\n");
}
