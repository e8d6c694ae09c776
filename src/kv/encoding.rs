//! A command's encoding under construction. Long words of a large request can stay where they are: the encoding then
//! consists of pieces that share the request's memory.

use super::long_value::shared_word;
use bytes::{Bytes, BytesMut};
use std::ops::{Deref, DerefMut};

/// The encoding so far. Everything except the shared words goes into `out`, to which an `Encoding` dereferences.
pub(super) struct Encoding<'r> {
    out: BytesMut,
    /// The memory of the request, if its words may be shared.
    request: Option<&'r Bytes>,
    /// The words that are not copied into `out`, each with the offset in `out` at which it belongs.
    shared: Vec<(usize, Bytes)>,
    shared_bytes: usize,
}

impl<'r> Encoding<'r> {
    pub(super) fn new(out: BytesMut, request: Option<&'r Bytes>) -> Encoding<'r> {
        Encoding { out, request, shared: Vec::new(), shared_bytes: 0 }
    }

    /// Returns the length of the whole encoding in bytes.
    pub(super) fn length(&self) -> usize {
        self.out.len() + self.shared_bytes
    }

    /// Appends a word. A long word that is part of the request stays there.
    pub(super) fn word(&mut self, word: &[u8]) {
        match self.request.and_then(|request| shared_word(word, request)) {
            Some(shared) => {
                self.shared.push((self.out.len(), shared));
                self.shared_bytes += word.len();
            }
            None => self.out.extend_from_slice(word),
        }
    }

    /// Returns the whole encoding. Only for an encoding without shared words.
    pub(super) fn finish(self) -> BytesMut {
        debug_assert!(self.shared.is_empty(), "an encoding with shared words must be taken with `pieces`");
        self.out
    }

    /// Returns the pieces in order; the last may be empty.
    pub(super) fn pieces(self) -> Vec<Bytes> {
        let (mut rest, mut from, mut pieces) = (self.out.freeze(), 0, Vec::new());
        for (place, word) in self.shared {
            pieces.push(rest.split_to(place - from));
            pieces.push(word);
            from = place;
        }
        pieces.push(rest);
        pieces
    }
}

impl Deref for Encoding<'_> {
    type Target = BytesMut;

    fn deref(&self) -> &BytesMut {
        &self.out
    }
}

impl DerefMut for Encoding<'_> {
    fn deref_mut(&mut self) -> &mut BytesMut {
        &mut self.out
    }
}
