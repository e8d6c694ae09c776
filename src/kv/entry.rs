//! A key and its value: one entry of the directory.
//!
//! A key and its short value share one allocation. So a comparison of the key brings the value into the CPU cache, too:
//! in a large store, most time goes into fetching memory. A long value has memory of its own, which replies, other keys
//! and frozen states can share.

use super::directory::KeyPosition;
use super::long_value::{LONG_VALUE_BYTES, LongValue};
use super::reply::Reply;
use bytes::Bytes;
use groups::Ms;
use std::borrow::Cow;
use std::ops::Range;

/// A key, its value and its expiry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) position: KeyPosition,
    /// Unix milliseconds; 0: never.
    pub(super) expires_at_ms: Ms,
    /// Number of the last freeze when this entry was created or last put aside; see `frozen`.
    pub(super) freeze: u32,
    key_length: u32,
    body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Body {
    /// The key, then the value.
    Short(Vec<u8>),
    /// A value of [`LONG_VALUE_BYTES`] or more.
    Long(Box<Long>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Long {
    key: Box<[u8]>,
    value: LongValue,
}

/// The value of a key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Short(&'a [u8]),
    Long(&'a LongValue),
}

impl Entry {
    pub(super) fn new(position: KeyPosition, key: &[u8], value: &[u8], expires_at_ms: Ms) -> Entry {
        if value.len() >= LONG_VALUE_BYTES {
            let value = LongValue::from(Bytes::copy_from_slice(value));
            return Entry::long(position, key, value, expires_at_ms);
        }
        Entry { position, expires_at_ms, freeze: 0, key_length: length(key), body: Body::Short([key, value].concat()) }
    }

    /// Makes an entry that shares the memory of the value, if that is long.
    pub(super) fn long(position: KeyPosition, key: &[u8], value: LongValue, expires_at_ms: Ms) -> Entry {
        let body = if value.len() < LONG_VALUE_BYTES {
            Body::Short([key].into_iter().chain(value.slices()).collect::<Vec<_>>().concat())
        } else {
            Body::Long(Box::new(Long { key: key.into(), value }))
        };
        Entry { position, expires_at_ms, freeze: 0, key_length: length(key), body }
    }

    pub(super) fn key(&self) -> &[u8] {
        match &self.body {
            Body::Short(bytes) => &bytes[..self.key_length as usize],
            Body::Long(long) => &long.key,
        }
    }

    pub(super) fn value(&self) -> Value<'_> {
        match &self.body {
            Body::Short(bytes) => Value::Short(&bytes[self.key_length as usize..]),
            Body::Long(long) => Value::Long(&long.value),
        }
    }

    /// Returns the fields that entries are sorted by.
    pub(super) fn order(&self) -> (KeyPosition, &[u8]) {
        (self.position, self.key())
    }

    /// Returns the length of key and value in bytes.
    pub(super) fn len(&self) -> usize {
        match &self.body {
            Body::Short(bytes) => bytes.len(),
            Body::Long(long) => long.key.len() + long.value.len(),
        }
    }

    /// Returns the heap bytes of key and value.
    pub(super) fn heap_bytes(&self) -> usize {
        match &self.body {
            Body::Short(bytes) => allocated(bytes.capacity()),
            Body::Long(long) => allocated(size_of::<Long>()) + allocated(long.key.len()) + long.value.heap_bytes(),
        }
    }

    /// Returns true if the key has expired at `time_ms`.
    pub(super) fn is_due(&self, time_ms: Ms) -> bool {
        self.expires_at_ms != Ms(0) && self.expires_at_ms <= time_ms
    }

    /// Replaces the value. A short value reuses the allocation of another short value, unless much of it would stay
    /// unused.
    pub(super) fn set_value(&mut self, value: &[u8]) {
        match &mut self.body {
            Body::Short(bytes) if value.len() < LONG_VALUE_BYTES => {
                bytes.truncate(self.key_length as usize);
                bytes.extend_from_slice(value);
                if bytes.capacity() > 2 * bytes.len() + SPARE_BYTES_MAX {
                    bytes.shrink_to_fit();
                }
            }
            _ => self.body = Entry::new(self.position, self.key(), value, Ms(0)).body,
        }
    }

    pub(super) fn append(&mut self, value: &[u8]) {
        match self.room_for(value.len()) {
            Body::Short(bytes) => bytes.extend_from_slice(value),
            Body::Long(long) => long.value.append(value),
        }
    }

    /// Appends `value` without a copy: the entry shares its memory from now on.
    pub(super) fn append_shared(&mut self, value: Bytes) {
        self.make_long().push(value);
    }

    /// Writes into the value from `offset` on; zeros fill the gap between the value's end and `offset`.
    pub(super) fn write_at(&mut self, offset: usize, value: &[u8]) {
        let key_length = self.key_length as usize;
        let end = offset + value.len();
        match self.room_for(end.saturating_sub(self.value().len())) {
            Body::Short(bytes) => {
                let (start, end) = (key_length + offset, key_length + end);
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[start..end].copy_from_slice(value);
            }
            Body::Long(long) => long.value.write_at(offset, value),
        }
    }

    /// Writes like `write_at`, but shares the memory of `value` instead of copying it.
    pub(super) fn write_shared_at(&mut self, offset: usize, value: Bytes) {
        self.make_long().put_at(offset, value);
    }

    /// Returns the body, ready for a value that is `more` bytes longer.
    fn room_for(&mut self, more: usize) -> &mut Body {
        if matches!(self.value(), Value::Short(value) if value.len() + more >= LONG_VALUE_BYTES) {
            self.make_long();
        }
        &mut self.body
    }

    /// Returns the value as a long value, and converts it if it is short.
    fn make_long(&mut self) -> &mut LongValue {
        if let Value::Short(short) = self.value() {
            let mut value = LongValue::default();
            value.append(short);
            self.body = Body::Long(Box::new(Long { key: self.key().into(), value }));
        }
        let Body::Long(long) = &mut self.body else { unreachable!("the value was just made long") };
        &mut long.value
    }
}

impl<'a> Value<'a> {
    pub(super) fn len(self) -> usize {
        match self {
            Value::Short(bytes) => bytes.len(),
            Value::Long(value) => value.len(),
        }
    }

    /// Returns the value as a reply.
    pub(super) fn reply(self) -> Reply<'a> {
        match self {
            Value::Short(bytes) => Reply::bulk(bytes),
            Value::Long(value) => Reply::Long(value.clone()),
        }
    }

    /// Returns a part of the value as a reply; `range` ends within the value.
    pub(super) fn reply_of(self, range: Range<usize>) -> Reply<'a> {
        match self {
            Value::Short(bytes) => Reply::bulk(&bytes[range]),
            Value::Long(value) if range.len() >= LONG_VALUE_BYTES => Reply::Long(value.part(range)),
            Value::Long(value) => Reply::Bulk(Cow::Owned(value.slices_of(range).collect::<Vec<_>>().concat())),
        }
    }

    /// Returns the bytes of a part in order, in slices.
    pub(super) fn slices_of(self, range: Range<usize>) -> impl Iterator<Item = &'a [u8]> {
        let (short, long) = match self {
            Value::Short(bytes) => (Some(&bytes[range.clone()]), None),
            Value::Long(value) => (None, Some(value.slices_of(range))),
        };
        short.into_iter().chain(long.into_iter().flatten())
    }

    /// Returns all bytes in order, as [`Value::slices_of`].
    pub(super) fn slices(self) -> impl Iterator<Item = &'a [u8]> {
        self.slices_of(0..self.len())
    }

    /// Returns the bytes in one piece: a copy if the value is long.
    pub(super) fn bytes(self) -> Cow<'a, [u8]> {
        match self {
            Value::Short(bytes) => Cow::Borrowed(bytes),
            Value::Long(value) => Cow::Owned(value.slices().collect::<Vec<_>>().concat()),
        }
    }

    /// Returns the value, unless it is long.
    pub(super) fn short(self) -> Option<&'a [u8]> {
        match self {
            Value::Short(bytes) => Some(bytes),
            Value::Long(_) => None,
        }
    }
}

fn length(key: &[u8]) -> u32 {
    u32::try_from(key.len()).expect("requests are bounded far below 4 GiB")
}

/// Returns the heap bytes of an allocation of `bytes`, as glibc and most other allocators make it.
pub(super) fn allocated(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { (bytes + 8).next_multiple_of(16).max(32) }
}

/// Bounds the unused bytes in the allocation of a short entry: as many bytes as key and value take, plus this number.
const SPARE_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_and_value_stay_apart() {
        let mut entry = Entry::new(KeyPosition(1), b"key", b"value", Ms(0));
        let parts = |entry: &Entry| (entry.key().to_vec(), entry.value().bytes().into_owned());
        assert_eq!(parts(&entry), (b"key".to_vec(), b"value".to_vec()));
        entry.append(b"s");
        entry.write_at(7, b"!!");
        assert_eq!(parts(&entry), (b"key".to_vec(), b"values\0!!".to_vec()));
        entry.write_at(0, b"V");
        assert_eq!((entry.value().short(), entry.len()), (Some(&b"Values\0!!"[..]), 12));
        entry.set_value(&[b'x'; 10_000]);
        entry.set_value(b"");
        assert_eq!(parts(&entry), (b"key".to_vec(), vec![]));
        assert!(entry.heap_bytes() < 100);
    }

    #[test]
    fn a_value_becomes_long_and_short_again() {
        let long = vec![b'x'; LONG_VALUE_BYTES];
        let is_long = |entry: &Entry| entry.value().short().is_none();
        let mut entry = Entry::new(KeyPosition(1), b"key", &long, Ms(0));
        assert!(is_long(&entry) && entry.heap_bytes() >= LONG_VALUE_BYTES);
        entry.set_value(b"short");
        assert!(!is_long(&entry) && entry.heap_bytes() < 100);
        entry.append(&long);
        assert!(is_long(&entry));
        assert_eq!((entry.key(), entry.len()), (&b"key"[..], 3 + 5 + LONG_VALUE_BYTES));
        assert_eq!(entry.value().reply_of(3..7), Reply::bulk(b"rtxx"));
        entry.set_value(b"short");
        entry.write_at(LONG_VALUE_BYTES, b"end");
        assert_eq!(entry.value().bytes()[..6], *b"short\0");
        assert!(is_long(&entry));
        entry.write_shared_at(4, Bytes::from(long.clone()));
        assert_eq!(entry.value().len(), LONG_VALUE_BYTES + 4);
        let other = Entry::long(KeyPosition(2), b"other", LongValue::from(Bytes::from(b"few".to_vec())), Ms(7));
        assert_eq!((other.value().short(), other.expires_at_ms), (Some(&b"few"[..]), Ms(7)));
        assert!(size_of::<Entry>() <= 48, "tables hold one entry per key");
    }
}
