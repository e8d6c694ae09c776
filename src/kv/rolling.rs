//! The rolling digest, which every change of a store updates. Replicas that made the same changes have the same digest.
//! Each value carries the digest, and members compare it with their own before they vote. A change costs a few
//! nanoseconds, whatever the store holds.
//!
//! The digest covers the changes that commands make, not the content of memory. Of a change it covers position, kind,
//! length and expiry. Of the written bytes it covers only the two ends: the bytes came with the command, and the chain
//! over the values shows that they are the same everywhere. If a command computes a value from the state, the digest
//! covers the whole value. The hash that compares whole states is in `digest`.

use super::directory::KeyPosition;
use super::entry::Value;

/// The kind of a change. The numbers are part of what members compare: they never change meaning.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(super) enum Change {
    /// A value of the log began.
    Begin = 1,
    /// A key was given a value.
    Put = 2,
    /// A key was given a value that was computed from the state.
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
    /// A part of an upload (a large command) came.
    Part = 11,
    /// An upload was completed or given up.
    Uploaded = 12,
}

/// The rolling digest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rolling(pub(super) u64);

impl Rolling {
    /// Folds in a change of a key; `number` holds its details.
    pub(super) fn key(&mut self, change: Change, position: KeyPosition, number: u64) {
        self.fold(change, position.0, number);
    }

    /// Folds in a change.
    pub(super) fn fold(&mut self, change: Change, at: u64, number: u64) {
        let mixed = (self.0 ^ at ^ (change as u64) << 56).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mixed = (mixed ^ mixed >> 32 ^ number).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        self.0 = mixed ^ mixed >> 29;
    }
}

/// Returns a hash of the length of `bytes`, and of the first and the last eight of them.
pub(super) fn ends(bytes: &[u8]) -> u64 {
    let word = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
    let (first, last) = match (bytes.first_chunk(), bytes.last_chunk()) {
        (Some(first), Some(last)) => (word(first), word(last)),
        _ => (bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)), 0),
    };
    (first ^ last.rotate_left(23) ^ (bytes.len() as u64) << 40).wrapping_mul(0xA076_1D64_78BD_642F)
}

/// Returns a checksum of a whole value, with its length.
pub(super) fn whole(value: Value<'_>) -> u64 {
    u64::from(value.slices().fold(0, crc32c::crc32c_append)) << 32 ^ value.len() as u64
}
