//! The digest that goes on with every change of a store. Replicas that made the same changes have the same one, so they
//! compare it with every value that they vote on; it costs a few nanoseconds a change, whatever there is in the store.
//!
//! It tells what a command did, not what is in memory: where, of which kind, how long, which expiry, and of what was
//! written no more than its ends, for that came with the command and is the same everywhere by the chain over the values.
//! What a command makes out of what it finds is folded whole. The hash by which whole states are compared is in `digest`.

use super::directory::Position;
use super::entry::Value;

/// What happened. The numbers are part of what members compare: they never change meaning.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(super) enum Change {
    /// A value of the log began.
    Begin = 1,
    /// A key was given a value.
    Put = 2,
    /// A key was given a value that was made out of the state.
    Made = 3,
    Append = 4,
    Write = 5,
    /// A key's expiry changed.
    Expiry = 6,
    Removed = 7,
    Flushed = 8,
    /// A session was issued.
    Issued = 9,
    /// A session's command was executed.
    Kept = 10,
    /// A part of a large command came.
    Part = 11,
    /// A large command is whole, or was given up.
    Uploaded = 12,
}

/// The digest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rolling(pub(super) u64);

impl Rolling {
    /// Something happened at a key; `number` tells of what kind it was in detail.
    pub(super) fn key(&mut self, change: Change, position: Position, number: u64) {
        self.fold(change, position.0, number);
    }

    /// Something happened.
    pub(super) fn fold(&mut self, change: Change, at: u64, number: u64) {
        let mixed = (self.0 ^ at ^ (change as u64) << 56).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mixed = (mixed ^ mixed >> 32 ^ number).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        self.0 = mixed ^ mixed >> 29;
    }
}

/// The length of `bytes`, and the first and the last eight of them.
pub(super) fn ends(bytes: &[u8]) -> u64 {
    let word = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
    let (first, last) = match (bytes.first_chunk(), bytes.last_chunk()) {
        (Some(first), Some(last)) => (word(first), word(last)),
        _ => (bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)), 0),
    };
    (first ^ last.rotate_left(23) ^ (bytes.len() as u64) << 40).wrapping_mul(0xA076_1D64_78BD_642F)
}

/// A checksum of all of a value, and its length.
pub(super) fn whole(value: Value<'_>) -> u64 {
    u64::from(value.slices().fold(0, crc32c::crc32c_append)) << 32 ^ value.len() as u64
}
