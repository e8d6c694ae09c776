//! The value that one instance decides: a batch of commands, the leader's time, and a link of the chain over all
//! earlier values.
//!
//! ```text
//! value   = version u8 | flags u8 = 0 | reserved u16 | chain u32 | time_ms u64 | digest u64, from version 2 on | command*
//! command = length of body u32 | origin u32 | start u64 | counter u64 | body
//! ```
//! All integers are little-endian. The bytes are written once and stay as they are in the log, on the wire and when
//! applied. The chain is the CRC-32C over the checksums of all earlier values of the group. Two members that differ in
//! any of these values find out at the next vote. The digest is that of the leader's state before this value. It shows
//! members that the same values have led to different states.
//!
//! Version 1 has no digest. Members propose version 1 as long as one of them might be unable to read version 2.
//! Versions 3 and 4 have the layout of version 2. Version 3 holds a command whose body begins with
//! [`MACHINE_OF_VERSION_3`], and version 4 one whose body begins with [`MACHINE_OF_VERSION_4`]. Members that read only
//! lower versions do not know these commands.

use crate::{Ms, NodeId};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Maximum bytes of a value before its first command.
pub const VALUE_HEADER_BYTES: usize = 24;
/// Bytes of a command before its body.
pub const COMMAND_HEADER_BYTES: usize = 24;
/// The bytes of the digest, which a value of version 1 lacks.
const DIGEST_BYTES: usize = 8;
/// The highest version of values that this program reads.
pub const VALUE_VERSION_MAX: u8 = 4;
/// The lowest version of values that have a digest.
pub(crate) const DIGEST_VERSION: u8 = 2;
/// The first byte in the body of a command that only values of version 3 or later may hold. A node sends such a command
/// only when it knows that all members read version 3.
pub const MACHINE_OF_VERSION_3: u8 = 3;
/// The same for version 4.
pub const MACHINE_OF_VERSION_4: u8 = 4;

/// The id of a command: the node that it comes from, that node's start number, and a counter that the node raises for
/// each of its commands in the group. Later ids of one origin are greater. An id that is not above the last one
/// applied is a repetition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CommandId {
    /// The node that the client sent the command to.
    pub origin: NodeId,
    /// The node's start number: how often it had been started.
    pub start: u64,
    /// The number of the command.
    pub counter: Counter,
}

/// The number of a command, counted from 1 in each group and start of its origin; 0 stands for no command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Counter(pub u64);

impl Counter {
    /// Returns the counter of the command after this one.
    #[must_use]
    pub fn following(self) -> Counter {
        Counter(self.0 + 1)
    }
}

impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A command as it stands in a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command<'a> {
    /// The id of the command.
    pub id: CommandId,
    /// The bytes for the state machine.
    pub body: &'a [u8],
}

impl Command<'_> {
    /// Returns the lowest version of values that may hold the command.
    #[must_use]
    pub fn version(&self) -> u8 {
        match self.body.first() {
            Some(&MACHINE_OF_VERSION_3) => 3,
            Some(&MACHINE_OF_VERSION_4) => 4,
            _ => 1,
        }
    }
}

/// An immutable, well-formed value; cloning shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Value(Bytes);

/// The reason why bytes are not a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Too short, or a command runs past the end.
    #[error("a value or a command in it is cut short")]
    Truncated,
    /// The version is unknown here: 0, or a later one.
    #[error("value version {0} is not known here")]
    Version(u8),
}

impl Value {
    /// Checks the framing of `bytes`, not the bodies.
    ///
    /// # Errors
    /// If the bytes are not a value of a known version.
    pub fn parse(bytes: Bytes) -> Result<Value, ValueError> {
        let version = *bytes.first().ok_or(ValueError::Truncated)?;
        if !(1..=VALUE_VERSION_MAX).contains(&version) {
            return Err(ValueError::Version(version));
        }
        check_commands(bytes.get(header_bytes(version)..).ok_or(ValueError::Truncated)?)?;
        Ok(Value(bytes))
    }

    /// Returns the version. A member that reads only lower ones must never get this value.
    #[must_use]
    pub fn version(&self) -> u8 {
        self.0[0]
    }

    /// Returns the bytes, as they go to the log and to peers.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// Returns the chain over the values before this one.
    #[must_use]
    pub fn chain(&self) -> u32 {
        u32::from_le_bytes(array(&self.0[4..8]))
    }

    /// Returns the group's time from this value on, in unix milliseconds.
    #[must_use]
    pub fn time_ms(&self) -> Ms {
        Ms(u64::from_le_bytes(array(&self.0[8..16])))
    }

    /// Returns the digest of the state before this value, at the leader that proposed it; `None` in version 1.
    #[must_use]
    pub fn digest(&self) -> Option<u64> {
        let header = &self.0[..header_bytes(self.version())];
        header.get(VALUE_HEADER_BYTES - DIGEST_BYTES..VALUE_HEADER_BYTES).map(|bytes| u64::from_le_bytes(array(bytes)))
    }

    /// Returns the chain over the values up to and including this one.
    #[must_use]
    pub fn next_chain(&self) -> u32 {
        crc32c::crc32c_append(self.chain(), &crc32c::crc32c(&self.0).to_le_bytes())
    }

    /// Returns the commands, in order. A no-op has none.
    #[must_use]
    pub fn commands(&self) -> Commands<'_> {
        self.commands_from(0)
    }

    /// Returns the commands behind the first `offset` bytes of commands. `offset` must lie between two commands.
    pub(crate) fn commands_from(&self, offset: usize) -> Commands<'_> {
        Commands(&self.0[header_bytes(self.version()) + offset..])
    }
}

/// An iterator over commands laid end to end.
#[derive(Clone, Debug)]
pub struct Commands<'a>(&'a [u8]);

impl<'a> Commands<'a> {
    /// Parses commands that came outside a value, in a frame to the leader.
    ///
    /// # Errors
    /// If one runs past the end.
    pub fn parse(bytes: &'a [u8]) -> Result<Commands<'a>, ValueError> {
        check_commands(bytes)?;
        Ok(Commands(bytes))
    }
}

impl<'a> Iterator for Commands<'a> {
    type Item = Command<'a>;

    fn next(&mut self) -> Option<Command<'a>> {
        if self.0.is_empty() {
            return None;
        }
        let (header, rest) = self.0.split_at(COMMAND_HEADER_BYTES);
        let (body, rest) = rest.split_at(body_bytes(header));
        self.0 = rest;
        let origin = NodeId(u32::from_le_bytes(array(&header[4..8])));
        let start = u64::from_le_bytes(array(&header[8..16]));
        let counter = Counter(u64::from_le_bytes(array(&header[16..24])));
        Some(Command { id: CommandId { origin, start, counter }, body })
    }
}

/// Appends one command; `body` writes the body. Returns how many bytes the whole command takes.
pub fn put_command(out: &mut BytesMut, id: CommandId, body: impl FnOnce(&mut BytesMut)) -> usize {
    let start = out.len();
    out.put_u32_le(0);
    out.put_u32_le(id.origin.0);
    out.put_u64_le(id.start);
    out.put_u64_le(id.counter.0);
    body(out);
    let bytes = out.len() - start;
    let length = u32::try_from(bytes - COMMAND_HEADER_BYTES).expect("a command is far below 4 GiB");
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    bytes
}

/// Maximum bytes of memory that a builder reuses.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// A value to which commands are still added: room for the header, then commands.
#[derive(Debug, Default)]
pub struct ValueBuilder {
    bytes: BytesMut,
    /// The highest version that a command asks for.
    version: u8,
}

impl ValueBuilder {
    /// Appends commands that are already encoded; `version` is the highest of theirs.
    pub fn extend(&mut self, commands: &[u8], version: u8) {
        self.version = self.version.max(version);
        self.commands_mut().extend_from_slice(commands);
    }

    /// Returns the lowest version of a value that may hold these commands.
    #[must_use]
    pub fn version(&self) -> u8 {
        self.version.max(1)
    }

    /// Returns the buffer to append commands to.
    pub fn commands_mut(&mut self) -> &mut BytesMut {
        if self.bytes.is_empty() {
            self.bytes.put_bytes(0, VALUE_HEADER_BYTES);
        }
        &mut self.bytes
    }

    /// Returns the bytes of the commands so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len().saturating_sub(VALUE_HEADER_BYTES)
    }

    /// Returns true if there is no command yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills the header in, returns the value and starts anew. `digest` is that of the state before the value. Without
    /// it the value has version 1, with it version 2, or a higher one that its commands ask for.
    ///
    /// # Panics
    /// If a command asks for more than version 1, and there is no digest.
    pub fn seal(&mut self, chain: u32, time_ms: Ms, digest: Option<u64>) -> Value {
        let version = self.version().max(if digest.is_some() { DIGEST_VERSION } else { 1 });
        assert!(digest.is_some() || version == 1, "a value of version {version} has a digest");
        self.version = 0;
        let bytes = self.commands_mut();
        // After a `split`, the unused rest of a large buffer would keep the memory of the whole buffer alive.
        let mut sealed = if bytes.len() > KEPT_BYTES_MAX { std::mem::take(bytes) } else { bytes.split() };
        if let Some(digest) = digest {
            sealed[VALUE_HEADER_BYTES - DIGEST_BYTES..VALUE_HEADER_BYTES].copy_from_slice(&digest.to_le_bytes());
        } else {
            sealed.advance(DIGEST_BYTES);
        }
        sealed[0] = version;
        sealed[4..8].copy_from_slice(&chain.to_le_bytes());
        sealed[8..16].copy_from_slice(&time_ms.0.to_le_bytes());
        Value(sealed.freeze())
    }

    /// Removes all commands.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.version = 0;
    }
}

/// Returns the bytes before the first command.
fn header_bytes(version: u8) -> usize {
    if version == 1 { VALUE_HEADER_BYTES - DIGEST_BYTES } else { VALUE_HEADER_BYTES }
}

fn check_commands(mut rest: &[u8]) -> Result<(), ValueError> {
    while !rest.is_empty() {
        let header = rest.get(..COMMAND_HEADER_BYTES).ok_or(ValueError::Truncated)?;
        rest = rest.get(COMMAND_HEADER_BYTES + body_bytes(header)..).ok_or(ValueError::Truncated)?;
    }
    Ok(())
}

fn body_bytes(header: &[u8]) -> usize {
    u32::from_le_bytes(array(&header[..4])) as usize
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("the caller took exactly that many bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(counter: u64) -> CommandId {
        CommandId { origin: NodeId(2), start: 7, counter: Counter(counter) }
    }

    #[test]
    fn a_sealed_value_parses_to_what_was_put_in() {
        let mut builder = ValueBuilder::default();
        for digest in [None, Some(7)] {
            put_command(builder.commands_mut(), id(1), |out| out.put_slice(b"first"));
            put_command(builder.commands_mut(), id(2), |_| ());
            let value = builder.seal(5, Ms(99), digest);
            assert!(builder.is_empty());
            let value = Value::parse(value.bytes().clone()).unwrap();
            assert_eq!((value.chain(), value.time_ms(), value.digest()), (5, Ms(99), digest));
            let commands: Vec<Command<'_>> = value.commands().collect();
            assert_eq!(commands, [Command { id: id(1), body: b"first" }, Command { id: id(2), body: b"" }]);
        }
    }

    #[test]
    fn every_cut_that_splits_a_command_is_refused() {
        let mut builder = ValueBuilder::default();
        for (digest, noop_bytes) in [(None, 16), (Some(7), 24)] {
            put_command(builder.commands_mut(), id(1), |out| out.put_slice(b"body"));
            let bytes = builder.seal(0, Ms(0), digest).bytes().clone();
            for cut in 0..bytes.len() {
                assert_eq!(Value::parse(bytes.slice(..cut)).is_ok(), cut == noop_bytes, "cut at {cut}");
            }
        }
        assert_eq!(Value::parse(Bytes::from(vec![9; 16])), Err(ValueError::Version(9)));
        assert_eq!(Value::parse(Bytes::from(vec![0; 24])), Err(ValueError::Version(0)));
    }

    #[test]
    fn the_chain_differs_when_any_byte_before_differs() {
        let mut builder = ValueBuilder::default();
        let (one, other) = (builder.seal(0, Ms(1), None), builder.seal(0, Ms(2), None));
        assert_ne!(one.next_chain(), other.next_chain());
    }
}
