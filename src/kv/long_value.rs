//! A long value: pieces of memory that replies, other keys and frozen states share with it. A clone of a long value
//! shares its pieces and copies only the tail. A change of a part copies that part, and only if its memory is still
//! shared.

use bytes::{Bytes, BytesMut};
use std::ops::Range;

/// Minimum bytes of a long value. Below this length, a copy costs less than the bookkeeping.
pub const LONG_VALUE_BYTES: usize = 64 << 10;

/// The bytes of a value, in order.
#[derive(Clone, Debug, Default)]
pub struct LongValue {
    /// The pieces, none empty. A piece may be a slice of larger memory.
    pieces: Vec<Bytes>,
    /// The bytes of all pieces.
    piece_bytes: usize,
    /// The unshared bytes behind the pieces, so that short appends do not make a piece each.
    tail: Vec<u8>,
    /// Bytes of shared memory that this value has taken over since it was last copied. The number exceeds the value's
    /// length if some of that memory has been overwritten.
    taken: usize,
}

impl LongValue {
    /// Returns the number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.piece_bytes + self.tail.len()
    }

    /// Returns true if there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the size of the value's memory in bytes. Shared memory counts for every value that shares it.
    pub(super) fn heap_bytes(&self) -> usize {
        self.piece_bytes + self.tail.capacity() + self.pieces.capacity() * size_of::<Bytes>()
    }

    /// Returns the bytes in order, in slices that are not empty.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let tail = Some(&self.tail[..]).filter(|tail| !tail.is_empty());
        self.pieces.iter().map(|piece| &piece[..]).chain(tail)
    }

    /// Returns the bytes in order as memory to be shared: only the tail is copied.
    pub fn shared(&self) -> impl Iterator<Item = Bytes> {
        let tail = Some(&self.tail).filter(|tail| !tail.is_empty());
        self.pieces.iter().cloned().chain(tail.map(|tail| Bytes::copy_from_slice(tail)))
    }

    /// Returns the bytes of a part in order, as `slices`; `range` ends within the value.
    pub(super) fn slices_of(&self, range: Range<usize>) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.slices().filter_map(move |slice| {
            let within = within(&range, start, slice.len());
            start += slice.len();
            (!within.is_empty()).then(|| &slice[within])
        })
    }

    /// Returns a part, which shares the value's memory; `range` ends within the value.
    pub(super) fn part(&self, range: Range<usize>) -> LongValue {
        let (mut part, mut start) = (LongValue::default(), 0);
        for piece in &self.pieces {
            let within = within(&range, start, piece.len());
            start += piece.len();
            part.push(piece.slice(within));
        }
        part.append(&self.tail[within(&range, start, self.tail.len())]);
        part
    }

    /// Appends memory without a copy.
    pub(super) fn push(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        self.close_tail();
        self.piece_bytes += piece.len();
        self.taken += piece.len();
        self.pieces.push(piece);
    }

    /// Appends a copy of `bytes`.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        if self.tail.len() >= PIECE_BYTES {
            self.close_tail();
        }
    }

    /// Writes a copy of `bytes` from `offset` on; zeros fill the gap between the value's end and `offset`.
    pub(super) fn write_at(&mut self, offset: usize, bytes: &[u8]) {
        self.fill_up_to(offset);
        let range = offset..offset + bytes.len().min(self.len() - offset);
        let (inside, behind) = bytes.split_at(range.len());
        let (mut start, mut place) = (0, 0);
        while place < self.pieces.len() && start < range.end {
            let piece = &mut self.pieces[place];
            let within = within(&range, start, piece.len());
            if within.is_empty() {
                start += piece.len();
                place += 1;
                continue;
            }
            let from = &inside[start + within.start - offset..][..within.len()];
            match std::mem::take(piece).try_into_mut() {
                Ok(mut own) => {
                    own[within].copy_from_slice(from);
                    *piece = own.freeze();
                    start += piece.len();
                    place += 1;
                }
                // Cut the shared piece so that the part to be written is an unshared copy. The loop then continues with
                // the new pieces.
                Err(shared) => self.replace_piece(place, own_copy(&shared, within)),
            }
        }
        let within = within(&range, start, self.tail.len());
        if !within.is_empty() {
            let from = &inside[start + within.start - offset..];
            self.tail[within].copy_from_slice(from);
        }
        self.append(behind);
    }

    /// Writes like `write_at`, but shares the memory of `bytes` instead of copying it.
    pub(super) fn put_at(&mut self, offset: usize, bytes: Bytes) {
        self.fill_up_to(offset);
        let taken = self.taken + bytes.len();
        let behind = self.part(self.len().min(offset + bytes.len())..self.len());
        let mut whole = self.part(0..offset);
        whole.push(bytes);
        behind.pieces.into_iter().for_each(|piece| whole.push(piece));
        whole.append(&behind.tail);
        *self = LongValue { taken, ..whole };
        if self.taken > TAKEN_FACTOR_MAX * self.len() {
            *self = self.copied();
        }
    }

    /// Appends zeros up to `length`.
    fn fill_up_to(&mut self, length: usize) {
        let mut missing = length.saturating_sub(self.len());
        if missing < PIECE_BYTES {
            return self.append(&ZEROS[..missing]);
        }
        while missing > 0 {
            let zeros = missing.min(PIECE_BYTES);
            self.push(Bytes::from_static(&ZEROS[..zeros]));
            missing -= zeros;
        }
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.piece_bytes += self.tail.len();
            self.pieces.push(Bytes::from(std::mem::take(&mut self.tail)));
        }
    }

    fn replace_piece(&mut self, place: usize, by: [Bytes; 3]) {
        self.pieces.splice(place..=place, by.into_iter().filter(|piece| !piece.is_empty()));
    }

    /// Returns the same bytes in memory that holds no others.
    fn copied(&self) -> LongValue {
        let mut copy = LongValue::default();
        self.slices().for_each(|slice| slice.chunks(PIECE_BYTES).for_each(|chunk| copy.append(chunk)));
        copy
    }
}

/// Returns a word as memory to be shared, if it is long and a part of `memory`.
pub(crate) fn shared_word(word: &[u8], memory: &Bytes) -> Option<Bytes> {
    let is_inside = word.len() >= LONG_VALUE_BYTES && memory.as_ptr_range().contains(&word.as_ptr());
    is_inside.then(|| memory.slice_ref(word))
}

impl From<Bytes> for LongValue {
    fn from(bytes: Bytes) -> LongValue {
        let mut value = LongValue::default();
        value.push(bytes);
        value
    }
}

impl PartialEq for LongValue {
    fn eq(&self, other: &LongValue) -> bool {
        self.len() == other.len() && self.slices().flatten().eq(other.slices().flatten())
    }
}

impl Eq for LongValue {}

/// Divides a piece into three: a copy of `part`, and the shared memory before and behind it. The copy begins and ends
/// at multiples of [`PIECE_BYTES`], so that many small writes do not make many small pieces.
fn own_copy(piece: &Bytes, part: Range<usize>) -> [Bytes; 3] {
    let start = part.start / PIECE_BYTES * PIECE_BYTES;
    let end = part.end.next_multiple_of(PIECE_BYTES).min(piece.len());
    [piece.slice(..start), Bytes::from(BytesMut::from(&piece[start..end])), piece.slice(end..)]
}

/// Returns the part of `range` that lies in a piece, as offsets in that piece. The piece has `length` bytes, and begins
/// at `start` of the value.
fn within(range: &Range<usize>, start: usize, length: usize) -> Range<usize> {
    let place = |at: usize| at.saturating_sub(start).min(length);
    place(range.start)..place(range.end)
}

const PIECE_BYTES: usize = LONG_VALUE_BYTES;
static ZEROS: [u8; PIECE_BYTES] = [0; PIECE_BYTES];
/// Maximum memory shared with a value, in multiples of its length. Beyond it the value is copied, because small slices
/// that are still in use could keep all of that memory alive.
const TAKEN_FACTOR_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes_of(value: &LongValue) -> Vec<u8> {
        assert!(value.slices().all(|slice| !slice.is_empty()));
        assert_eq!(value.piece_bytes, value.pieces.iter().map(Bytes::len).sum::<usize>());
        value.slices().collect::<Vec<_>>().concat()
    }

    /// Bytes that differ from their neighbours.
    fn sample(seed: usize, length: usize) -> Vec<u8> {
        (0..length).map(|n| (((n + seed) * 31) >> 3) as u8).collect()
    }

    #[test]
    fn who_shares_it_sees_it_as_it_was() {
        let mut value = LongValue::from(Bytes::from(sample(1, 10 * PIECE_BYTES)));
        let (copy, reply): (_, Vec<Bytes>) = (value.clone(), value.shared().collect());
        let before = bytes_of(&value);
        value.write_at(5 * PIECE_BYTES - 1, b"ab");
        value.append(b"c");
        assert_eq!((bytes_of(&copy), reply.concat()), (before.clone(), before.clone()));
        let expected = [&before[..5 * PIECE_BYTES - 1], b"ab", &before[5 * PIECE_BYTES + 1..], b"c"].concat();
        assert_eq!(bytes_of(&value), expected);
        assert_eq!(value.pieces.len(), 3, "before, the part that was written to, and behind");
    }

    #[test]
    fn what_is_written_to_again_is_not_copied_again() {
        let mut value = LongValue::from(Bytes::from(sample(1, 3 * PIECE_BYTES)));
        let other = value.clone();
        value.write_at(PIECE_BYTES, b"x");
        let place = |value: &LongValue| value.pieces[1].as_ptr();
        let before = place(&value);
        value.write_at(PIECE_BYTES + 1, b"y");
        assert_eq!(place(&value), before);
        drop(other);
    }

    #[test]
    fn zeros_take_no_memory() {
        let mut value = LongValue::default();
        value.write_at(1_000 * PIECE_BYTES, b"end");
        assert_eq!(value.len(), 1_000 * PIECE_BYTES + 3);
        assert!(value.shared().take(1_000).all(|piece| piece.as_ptr() == ZEROS.as_ptr()));
    }

    #[test]
    fn memory_that_is_held_by_small_parts_is_let_go_of() {
        let mut value = LongValue::default();
        for n in 0..100 {
            value.put_at(100 - n, Bytes::from(sample(n, 2 * PIECE_BYTES)));
            assert!(value.taken <= TAKEN_FACTOR_MAX * value.len());
        }
        let mut expected = vec![0; 100];
        (0..100).for_each(|n| {
            expected.resize(expected.len().max(100 - n + 2 * PIECE_BYTES), 0);
            expected[100 - n..][..2 * PIECE_BYTES].copy_from_slice(&sample(n, 2 * PIECE_BYTES));
        });
        assert_eq!(bytes_of(&value), expected);
    }

    #[derive(Clone, Copy, Debug)]
    enum Change {
        Append(usize),
        Push(usize),
        Write(usize, usize),
        Put(usize, usize),
        Part(usize, usize),
        Share,
    }

    fn change() -> impl Strategy<Value = Change> {
        let length = prop_oneof![0..100_usize, 0..3 * PIECE_BYTES];
        let place = 0..8 * PIECE_BYTES;
        prop_oneof![
            length.clone().prop_map(Change::Append),
            length.clone().prop_map(Change::Push),
            (place.clone(), length.clone()).prop_map(|(at, length)| Change::Write(at, length)),
            (place.clone(), length).prop_map(|(at, length)| Change::Put(at, length)),
            (place.clone(), place).prop_map(|(from, to)| Change::Part(from, to)),
            Just(Change::Share),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn it_has_the_bytes_of_a_plain_vector(changes in proptest::collection::vec(change(), 1..24)) {
            let (mut value, mut plain, mut shared) = (LongValue::default(), Vec::new(), Vec::new());
            for (seed, change) in changes.into_iter().enumerate() {
                match change {
                    Change::Append(length) => {
                        value.append(&sample(seed, length));
                        plain.extend(sample(seed, length));
                    }
                    Change::Push(length) => {
                        value.push(Bytes::from(sample(seed, length)));
                        plain.extend(sample(seed, length));
                    }
                    Change::Write(at, length) | Change::Put(at, length) => {
                        let bytes = sample(seed, length);
                        match change {
                            Change::Put(..) => value.put_at(at, Bytes::from(bytes.clone())),
                            _ => value.write_at(at, &bytes),
                        }
                        plain.resize(plain.len().max(at + length), 0);
                        plain[at..at + length].copy_from_slice(&bytes);
                    }
                    Change::Part(from, to) => {
                        let range = from.min(to).min(plain.len())..from.max(to).min(plain.len());
                        prop_assert_eq!(value.slices_of(range.clone()).collect::<Vec<_>>().concat(), &plain[range.clone()]);
                        prop_assert_eq!(bytes_of(&value.part(range.clone())), &plain[range]);
                    }
                    Change::Share => shared.push((value.clone(), plain.clone())),
                }
                prop_assert_eq!(value.len(), plain.len());
            }
            prop_assert_eq!(bytes_of(&value), plain);
            for (value, plain) in shared {
                prop_assert_eq!(bytes_of(&value), plain);
            }
        }
    }
}
