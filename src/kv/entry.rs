//! A key and its value: one entry of the directory.
//!
//! A key and its short value share one allocation. So a comparison of the key brings the value into the CPU cache, too: in
//! a large store, most time goes into fetching memory. A long value has memory of its own, which replies, other keys and
//! frozen states can share.
//!
//! An entry takes 32 bytes of its table, and never lies in two cache lines. So what few entries have is no field of it: the
//! expiry, and the room that APPEND has left behind the value. Both stand in front of the key.

use super::directory::KeyPosition;
use super::long_value::{LONG_VALUE_BYTES, LongValue};
use super::reply::Reply;
use bytes::Bytes;
use groups::Ms;
use std::borrow::Cow;
use std::ops::Range;

/// A key, its value and its expiry.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(align(32))]
pub(super) struct Entry {
    pub(super) position: KeyPosition,
    /// Number of the last freeze when this entry was created or last put aside; see `frozen`.
    pub(super) freeze: u32,
    /// The length of the key, with [`EXPIRES`] and [`GROWS`].
    shape: u32,
    body: Body,
}

/// The bit of an entry's shape that says that a short body begins with an expiry.
const EXPIRES: u32 = 1 << 31;
/// Bytes of an expiry in a short body.
const EXPIRY_BYTES: usize = 8;
/// The bit of an entry's shape that says that a short body has room behind the value. The number of these bytes stands in
/// front of the key, behind the expiry.
const GROWS: u32 = 1 << 30;
/// Bytes of that number.
const ROOM_BYTES: usize = 4;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Body {
    /// The expiry if the key has one, the bytes of room if there is room, the key, the value, and the room.
    Short(Box<[u8]>),
    /// A value of [`LONG_VALUE_BYTES`] or more.
    Long(Box<Long>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Long {
    /// Unix milliseconds; 0: never.
    expires_at_ms: Ms,
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
    /// Makes an entry. The key expires at `expires_at_ms`, in unix milliseconds; 0: never.
    pub(super) fn new(position: KeyPosition, key: &[u8], value: &[u8], expires_at_ms: Ms) -> Entry {
        if value.len() >= LONG_VALUE_BYTES {
            let value = LongValue::from(Bytes::copy_from_slice(value));
            return Entry::long(position, key, value, expires_at_ms);
        }
        let (shape, body) = short(key, [value].into_iter(), expires_at_ms);
        Entry { position, freeze: 0, shape, body }
    }

    /// Makes an entry that shares the memory of the value, if that is long.
    pub(super) fn long(position: KeyPosition, key: &[u8], value: LongValue, expires_at_ms: Ms) -> Entry {
        let (shape, body) = if value.len() < LONG_VALUE_BYTES {
            short(key, value.slices(), expires_at_ms)
        } else {
            (length(key), Body::Long(Box::new(Long { expires_at_ms, key: key.into(), value })))
        };
        Entry { position, freeze: 0, shape, body }
    }

    pub(super) fn key(&self) -> &[u8] {
        match &self.body {
            Body::Short(bytes) => &bytes[self.key_at()..self.value_at()],
            Body::Long(long) => &long.key,
        }
    }

    pub(super) fn value(&self) -> Value<'_> {
        match &self.body {
            Body::Short(bytes) => Value::Short(&bytes[self.value_at()..bytes.len() - self.room()]),
            Body::Long(long) => Value::Long(&long.value),
        }
    }

    /// Returns when the key expires, in unix milliseconds; 0: never.
    pub(super) fn expires_at_ms(&self) -> Ms {
        match &self.body {
            Body::Short(bytes) if self.shape & EXPIRES != 0 => {
                let (expiry, _) = bytes.split_first_chunk().expect("the expiry is in front of the key");
                Ms(u64::from_le_bytes(*expiry))
            }
            Body::Short(_) => Ms(0),
            Body::Long(long) => long.expires_at_ms,
        }
    }

    /// Changes when the key expires.
    pub(super) fn set_expiry(&mut self, expires_at_ms: Ms) {
        if self.expires_at_ms() == expires_at_ms {
            return;
        }
        match &mut self.body {
            Body::Long(long) => long.expires_at_ms = expires_at_ms,
            Body::Short(bytes) if self.shape & EXPIRES != 0 && expires_at_ms != Ms(0) => {
                bytes[..EXPIRY_BYTES].copy_from_slice(&expires_at_ms.0.to_le_bytes());
            }
            Body::Short(_) => {
                let value = self.value().short().unwrap_or_default();
                (self.shape, self.body) = short(self.key(), [value].into_iter(), expires_at_ms);
            }
        }
    }

    /// Returns where the key begins in a short body.
    fn key_at(&self) -> usize {
        let room_bytes = if self.shape & GROWS == 0 { 0 } else { ROOM_BYTES };
        self.room_at() + room_bytes
    }

    /// Returns where the number of bytes of room stands in a short body, if there is room.
    fn room_at(&self) -> usize {
        if self.shape & EXPIRES == 0 { 0 } else { EXPIRY_BYTES }
    }

    /// Returns the bytes behind the value of a short body that the value does not use.
    fn room(&self) -> usize {
        match &self.body {
            Body::Short(bytes) if self.shape & GROWS != 0 => {
                let room = bytes[self.room_at()..].first_chunk().expect("the room is in front of the key");
                u32::from_le_bytes(*room) as usize
            }
            _ => 0,
        }
    }

    /// Returns where the value begins in a short body.
    fn value_at(&self) -> usize {
        self.key_at() + (self.shape & !(EXPIRES | GROWS)) as usize
    }

    /// Returns the fields that entries are sorted by.
    pub(super) fn order(&self) -> (KeyPosition, &[u8]) {
        (self.position, self.key())
    }

    /// Returns the length of key and value in bytes.
    pub(super) fn len(&self) -> usize {
        match &self.body {
            Body::Short(bytes) => bytes.len() - self.key_at() - self.room(),
            Body::Long(long) => long.key.len() + long.value.len(),
        }
    }

    /// Returns the heap bytes of key and value.
    pub(super) fn heap_bytes(&self) -> usize {
        match &self.body {
            Body::Short(bytes) => allocated(bytes.len()),
            Body::Long(long) => allocated(size_of::<Long>()) + allocated(long.key.len()) + long.value.heap_bytes(),
        }
    }

    /// Returns true if the key has expired at `time_ms`.
    pub(super) fn is_due(&self, time_ms: Ms) -> bool {
        let expires_at_ms = self.expires_at_ms();
        expires_at_ms != Ms(0) && expires_at_ms <= time_ms
    }

    /// Replaces the value. The expiry stays.
    pub(super) fn set_value(&mut self, value: &[u8]) {
        let (at, room) = (self.value_at(), self.room());
        match &mut self.body {
            Body::Short(bytes) if bytes.len() - room == at + value.len() => {
                bytes[at..at + value.len()].copy_from_slice(value);
            }
            _ => self.replace(value, self.expires_at_ms()),
        }
    }

    /// Replaces the value and the expiry.
    pub(super) fn put(&mut self, value: &[u8], expires_at_ms: Ms) {
        if (self.expires_at_ms() == Ms(0)) == (expires_at_ms == Ms(0)) {
            self.set_expiry(expires_at_ms);
            return self.set_value(value);
        }
        self.replace(value, expires_at_ms);
    }

    fn replace(&mut self, value: &[u8], expires_at_ms: Ms) {
        let made = Entry::new(self.position, self.key(), value, expires_at_ms);
        (self.shape, self.body) = (made.shape, made.body);
    }

    pub(super) fn append(&mut self, value: &[u8]) {
        match self.value() {
            Value::Short(short) if short.len() + value.len() < LONG_VALUE_BYTES => self.write_short(short.len(), value),
            _ => self.make_long().append(value),
        }
    }

    /// Appends `value` without a copy: the entry shares its memory from now on.
    pub(super) fn append_shared(&mut self, value: Bytes) {
        self.make_long().push(value);
    }

    /// Writes into the value from `offset` on; zeros fill the gap between the value's end and `offset`.
    pub(super) fn write_at(&mut self, offset: usize, value: &[u8]) {
        match self.value() {
            Value::Short(short) if short.len().max(offset + value.len()) < LONG_VALUE_BYTES => {
                self.write_short(offset, value);
            }
            _ => self.make_long().write_at(offset, value),
        }
    }

    /// Writes into a short value, which stays short. If it grows beyond its room, it gets half its length as new room.
    fn write_short(&mut self, offset: usize, value: &[u8]) {
        let Value::Short(short) = self.value() else { unreachable!("only a short value is written to here") };
        let (old, new) = (short.len(), short.len().max(offset + value.len()));
        let room = self.room();
        if new - old <= room {
            self.set_room(room - (new - old));
        } else {
            self.grow(new);
        }
        let (at, Body::Short(bytes)) = (self.value_at(), &mut self.body) else { unreachable!("it stays short") };
        if offset > old {
            bytes[at + old..at + offset].fill(0);
        }
        bytes[at + offset..at + offset + value.len()].copy_from_slice(value);
    }

    fn set_room(&mut self, room: usize) {
        let at = self.room_at();
        if let Body::Short(bytes) = &mut self.body
            && self.shape & GROWS != 0
        {
            bytes[at..at + ROOM_BYTES].copy_from_slice(&(room as u32).to_le_bytes());
        }
    }

    /// Makes room for a value of `length` bytes, and for half as many more, as far as the value stays short.
    fn grow(&mut self, length: usize) {
        let Value::Short(short) = self.value() else { unreachable!("only a short value grows here") };
        let (key, room) = (self.key(), (length / 2).min(LONG_VALUE_BYTES - 1 - length));
        let total = self.room_at() + ROOM_BYTES + key.len() + length + room;
        let mut bytes = Vec::with_capacity(total);
        if self.shape & EXPIRES != 0 {
            bytes.extend_from_slice(&self.expires_at_ms().0.to_le_bytes());
        }
        bytes.extend_from_slice(&(room as u32).to_le_bytes());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(short);
        bytes.resize(total, 0);
        self.body = Body::Short(bytes.into_boxed_slice());
        self.shape |= GROWS;
    }

    /// Writes like `write_at`, but shares the memory of `value` instead of copying it.
    pub(super) fn write_shared_at(&mut self, offset: usize, value: Bytes) {
        self.make_long().put_at(offset, value);
    }

    /// Returns the value as a long value, and converts it if it is short.
    fn make_long(&mut self) -> &mut LongValue {
        if let Value::Short(short) = self.value() {
            let mut value = LongValue::default();
            value.append(short);
            let long = Long { expires_at_ms: self.expires_at_ms(), key: self.key().into(), value };
            (self.shape, self.body) = (length(&long.key), Body::Long(Box::new(long)));
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

/// Returns the shape of a key that does not expire.
fn length(key: &[u8]) -> u32 {
    let length = u32::try_from(key.len()).ok().filter(|length| *length < GROWS);
    length.expect("requests are bounded far below 1 GiB")
}

/// Returns the shape and the body of an entry with a short value.
fn short<'a>(key: &[u8], value: impl Iterator<Item = &'a [u8]> + Clone, expires_at_ms: Ms) -> (u32, Body) {
    let (flag, expiry_bytes) = if expires_at_ms == Ms(0) { (0, 0) } else { (EXPIRES, EXPIRY_BYTES) };
    let value_bytes: usize = value.clone().map(<[u8]>::len).sum();
    let mut bytes = Vec::with_capacity(expiry_bytes + key.len() + value_bytes);
    bytes.extend_from_slice(&expires_at_ms.0.to_le_bytes()[..expiry_bytes]);
    bytes.extend_from_slice(key);
    value.for_each(|part| bytes.extend_from_slice(part));
    (length(key) | flag, Body::Short(bytes.into_boxed_slice()))
}

/// Returns the heap bytes of an allocation of `bytes`, as glibc and most other allocators make it.
pub(super) fn allocated(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { (bytes + 8).next_multiple_of(16).max(32) }
}

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
        assert_eq!((other.value().short(), other.expires_at_ms()), (Some(&b"few"[..]), Ms(7)));
        assert!(size_of::<Entry>() <= 32, "tables hold one entry per key");
    }

    #[test]
    fn a_value_that_grows_gets_room_and_stays_what_it_is() {
        for expires_at_ms in [Ms(0), Ms(9)] {
            let mut entry = Entry::new(KeyPosition(1), b"key", b"", expires_at_ms);
            let (mut expected, mut moves) = (Vec::new(), 0);
            for count in 0..3_000_u32 {
                let before = entry.heap_bytes();
                let more = &count.to_le_bytes()[..count as usize % 5];
                if count % 100 == 99 {
                    let offset = expected.len() + count as usize % 30;
                    expected.resize(offset, 0);
                    entry.write_at(offset, more);
                } else {
                    entry.append(more);
                }
                expected.extend_from_slice(more);
                moves += u32::from(entry.heap_bytes() != before);
                assert_eq!((entry.value().short(), entry.key()), (Some(&expected[..]), &b"key"[..]));
                assert_eq!((entry.len(), entry.expires_at_ms()), (3 + expected.len(), expires_at_ms));
            }
            assert!(moves < 30, "{moves} allocations");
            entry.write_at(1, b"!");
            expected[1] = b'!';
            entry.set_expiry(Ms(77));
            assert_eq!((entry.value().short(), entry.expires_at_ms()), (Some(&expected[..]), Ms(77)));
            entry.set_value(b"few");
            assert_eq!(entry, Entry::new(KeyPosition(1), b"key", b"few", Ms(77)));
        }
    }

    #[test]
    fn an_expiry_comes_stays_and_goes() {
        let long = vec![b'x'; LONG_VALUE_BYTES];
        for value in [&b"value"[..], b"", &long] {
            let mut entry = Entry::new(KeyPosition(1), b"key", value, Ms(0));
            let heap_bytes = entry.heap_bytes();
            for expires_at_ms in [Ms(7), Ms(u64::MAX), Ms(u64::MAX), Ms(0), Ms(0), Ms(9)] {
                entry.set_expiry(expires_at_ms);
                assert_eq!(entry, Entry::new(KeyPosition(1), b"key", value, expires_at_ms));
                assert_eq!((entry.expires_at_ms(), entry.key()), (expires_at_ms, &b"key"[..]));
                assert_eq!((entry.value().bytes().into_owned(), entry.len()), (value.to_vec(), 3 + value.len()));
            }
            assert!(entry.heap_bytes() <= heap_bytes + 16 && !entry.is_due(Ms(8)) && entry.is_due(Ms(9)));
            entry.set_value(b"other");
            entry.append(b"s");
            entry.write_at(8, b"!");
            assert_eq!((entry.value().short(), entry.expires_at_ms()), (Some(&b"others\0\0!"[..]), Ms(9)));
            entry.append(&long);
            assert_eq!((entry.key(), entry.expires_at_ms()), (&b"key"[..], Ms(9)));
            entry.put(b"few", Ms(0));
            assert_eq!(entry, Entry::new(KeyPosition(1), b"key", b"few", Ms(0)));
            entry.put(b"more", Ms(9));
            entry.set_value(b"short");
            assert_eq!((entry.value().short(), entry.expires_at_ms(), entry.len()), (Some(&b"short"[..]), Ms(9), 8));
        }
    }
}
