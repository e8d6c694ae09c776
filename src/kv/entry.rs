//! A key and what it holds: one entry of the directory.
//!
//! Key and value share one allocation, so that whoever compares the key has the value at hand: in a large store the
//! time goes into fetching memory.

use super::directory::Position;

/// A key, its value and its expiry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) position: Position,
    /// Unix milliseconds; 0: never.
    pub(super) expires_at_ms: u64,
    /// The number of the freeze after which it was last written; see `frozen`.
    pub(super) freeze: u32,
    key_length: u32,
    /// The key, then the value.
    bytes: Vec<u8>,
}

impl Entry {
    pub(super) fn new(position: Position, key: &[u8], value: &[u8], expires_at_ms: u64) -> Entry {
        let key_length = u32::try_from(key.len()).expect("requests are bounded far below 4 GiB");
        Entry { position, expires_at_ms, freeze: 0, key_length, bytes: [key, value].concat() }
    }

    /// Of the key and the value in one piece of memory, which is taken as it is.
    pub(super) fn of(position: Position, bytes: Vec<u8>, key_bytes: usize, expires_at_ms: u64) -> Entry {
        let key_length = u32::try_from(key_bytes).expect("requests are bounded far below 4 GiB");
        Entry { position, expires_at_ms, freeze: 0, key_length, bytes }
    }

    pub(super) fn key(&self) -> &[u8] {
        &self.bytes[..self.value_start()]
    }

    pub(super) fn value(&self) -> &[u8] {
        &self.bytes[self.value_start()..]
    }

    /// What entries are sorted by.
    pub(super) fn order(&self) -> (Position, &[u8]) {
        (self.position, self.key())
    }

    /// The bytes of key and value.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// How many bytes of key and value its memory holds.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// What the bytes of key and value take of the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        allocated(self.bytes.capacity())
    }

    /// Whether the key is gone at `time_ms`.
    pub(super) fn is_due(&self, time_ms: u64) -> bool {
        self.expires_at_ms != 0 && self.expires_at_ms <= time_ms
    }

    /// Replaces the value; its memory stays unless much of it would be left over.
    pub(super) fn set_value(&mut self, value: &[u8]) {
        self.bytes.truncate(self.value_start());
        self.bytes.extend_from_slice(value);
        if self.bytes.capacity() > 2 * self.bytes.len() + SPARE_BYTES_MAX {
            self.bytes.shrink_to_fit();
        }
    }

    pub(super) fn append(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
    }

    /// Writes into the value from `offset` on; zeros fill what lies between it and the value's end.
    pub(super) fn write_at(&mut self, offset: usize, value: &[u8]) {
        let start = self.value_start() + offset;
        let end = start + value.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[start..end].copy_from_slice(value);
    }

    fn value_start(&self) -> usize {
        self.key_length as usize
    }
}

/// What so many bytes take of the heap, as glibc and most others share it out.
pub(super) fn allocated(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { (bytes + 8).next_multiple_of(16).max(32) }
}

/// Unused bytes that an entry may hold beside as many as it uses.
const SPARE_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_and_value_stay_apart() {
        let mut entry = Entry::new(Position(1), b"key", b"value", 0);
        let parts = |entry: &Entry| (entry.key().to_vec(), entry.value().to_vec());
        assert_eq!(parts(&entry), (b"key".to_vec(), b"value".to_vec()));
        entry.append(b"s");
        entry.write_at(7, b"!!");
        assert_eq!(parts(&entry), (b"key".to_vec(), b"values\0!!".to_vec()));
        entry.write_at(0, b"V");
        assert_eq!((entry.value(), entry.len()), (&b"Values\0!!"[..], 12));
        entry.set_value(&[b'x'; 10_000]);
        entry.set_value(b"");
        assert_eq!(parts(&entry), (b"key".to_vec(), vec![]));
        assert!(entry.bytes.capacity() < 100);
    }
}
