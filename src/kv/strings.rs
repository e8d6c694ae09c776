//! A long list of strings as one reply. It is gathered over several turns, already encoded as it will be sent, so that
//! sending the list takes no further work per string.

use bytes::{Bytes, BytesMut};
use std::fmt;

/// Bulk strings as RESP2 and RESP3 write them, one behind the other, in pieces.
#[derive(Clone, Default)]
pub struct Strings {
    count: usize,
    /// Bytes of the strings themselves.
    bytes: usize,
    /// Full pieces; each ends where a string ends.
    pieces: Vec<Bytes>,
    last: BytesMut,
}

impl Strings {
    /// Returns the number of strings.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Returns true if there are no strings.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns the total length of the strings in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends a string.
    pub fn push(&mut self, string: &[u8]) {
        self.last.extend_from_slice(b"$");
        self.last.extend_from_slice(itoa::Buffer::new().format(string.len()).as_bytes());
        self.last.extend_from_slice(b"\r\n");
        self.last.extend_from_slice(string);
        self.last.extend_from_slice(b"\r\n");
        self.count += 1;
        self.bytes += string.len();
        if self.last.len() >= PIECE_BYTES {
            self.pieces.push(self.last.split().freeze());
        }
    }

    /// Appends all strings of `other` without copying them.
    pub fn append(&mut self, mut other: Strings) {
        self.pieces.extend(Some(self.last.split().freeze()).filter(|piece| !piece.is_empty()));
        self.pieces.append(&mut other.pieces);
        self.last = other.last;
        self.count += other.count;
        self.bytes += other.bytes;
    }

    /// Returns the pieces in order: the bytes that follow the head of the list on the wire.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().map(|piece| &piece[..]).chain([&self.last[..]])
    }

    /// Returns the strings in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces().flat_map(|piece| {
            let mut rest = piece;
            std::iter::from_fn(move || {
                let digits = memchr::memchr(b'\r', rest)?;
                let length: usize = std::str::from_utf8(&rest[1..digits]).ok()?.parse().ok()?;
                let string = rest.get(digits + 2..digits + 2 + length)?;
                rest = &rest[digits + 4 + length..];
                Some(string)
            })
        })
    }
}

impl PartialEq for Strings {
    fn eq(&self, other: &Strings) -> bool {
        self.iter().eq(other.iter())
    }
}

impl fmt::Debug for Strings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(<[u8]>::escape_ascii).map(|text| text.to_string())).finish()
    }
}

/// Bytes of a full piece: large enough that the overhead per piece does not count.
const PIECE_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_come_back_in_order_across_pieces() {
        let all: Vec<Vec<u8>> = (0..30_000_u32).map(|n| n.to_le_bytes()[..n as usize % 5].to_vec()).collect();
        let (mut strings, mut behind) = (Strings::default(), Strings::default());
        all[..20_000].iter().for_each(|one| strings.push(one));
        all[20_000..].iter().for_each(|one| behind.push(one));
        strings.append(behind);
        strings.append(Strings::default());
        assert!(strings.pieces.len() > 2 && strings.len() == all.len());
        assert!(strings.iter().eq(all.iter().map(Vec::as_slice)));
        assert_eq!(all.iter().map(Vec::len).sum::<usize>(), strings.bytes());
    }
}
