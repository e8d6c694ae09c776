//! The bytes that wait to be written to one connection.
//!
//! A queue of chunks. Small replies are appended to the last chunk, whose memory is used again after each flush. Large
//! values are queued as they are, without a copy. One flush is one system call, for up to 64 chunks.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Write};

use bytes::{Buf, Bytes, BytesMut};

/// Length at which a chunk of appended bytes is closed. So a long queue is not copied while it grows, and each chunk's
/// memory is freed as soon as the chunk is written. Also the maximum memory that the queue keeps once everything is
/// written.
pub const CHUNK_BYTES: usize = 64 << 10;
/// Length below which a copy is cheaper than a chunk of its own.
const COPIED_BYTES_MAX: usize = 1 << 10;
/// Length above which [`Outbound::take_from`] moves the other queue's open chunk instead of copying it. The other queue
/// then loses that chunk's memory.
const MOVED_BYTES_MIN: usize = 16 << 10;
/// Maximum chunks that one call writes.
const SLICES_MAX: usize = 64;

/// Result of one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteProgress {
    /// Nothing is left.
    Empty,
    /// All that was offered in one call is written, but more is queued.
    More,
    /// The receiver takes no more for now.
    Blocked,
}

/// A queue of bytes to be written.
#[derive(Debug, Default)]
pub struct Outbound {
    /// Closed chunks, never empty ones, in order.
    chunks: VecDeque<Bytes>,
    chunk_bytes: usize,
    /// The open chunk, which comes after all `chunks`.
    tail: BytesMut,
}

impl Outbound {
    /// Creates an empty queue, without memory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the number of queued bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.chunk_bytes + self.tail.len()
    }

    /// Returns true if nothing is queued.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.tail.is_empty()
    }

    /// Returns true if part of the queue was queued without a copy, or the queue is too long for one chunk.
    #[must_use]
    pub fn holds_chunks(&self) -> bool {
        !self.chunks.is_empty()
    }

    /// Returns the open chunk, the end of the queue, for appending small replies. Do not change the bytes that it
    /// already holds.
    pub fn buffer(&mut self) -> &mut BytesMut {
        if self.tail.len() >= CHUNK_BYTES {
            self.close_tail();
        }
        &mut self.tail
    }

    /// Queues a chunk, without a copy if it is large. A chunk keeps alive the memory that it is a slice of.
    pub fn push(&mut self, chunk: Bytes) {
        if chunk.len() < COPIED_BYTES_MAX {
            self.buffer().extend_from_slice(&chunk);
            return;
        }
        self.close_tail();
        self.chunk_bytes += chunk.len();
        self.chunks.push_back(chunk);
    }

    /// Moves all bytes of `other` to this queue. A small open chunk is copied, so that `other` keeps its memory.
    pub fn take_from(&mut self, other: &mut Outbound) {
        std::mem::take(&mut other.chunks).into_iter().for_each(|chunk| self.push(chunk));
        other.chunk_bytes = 0;
        if other.tail.len() > MOVED_BYTES_MIN {
            return self.push(other.tail.split().freeze());
        }
        self.buffer().extend_from_slice(&other.tail);
        other.tail.clear();
    }

    /// Discards the queued bytes. The memory of the open chunk stays.
    pub fn clear(&mut self) {
        self.chunks.clear();
        self.chunk_bytes = 0;
        self.tail.clear();
    }

    /// Takes all bytes in one piece. This is a copy unless there is only one chunk.
    #[must_use]
    pub fn take_bytes(&mut self) -> Bytes {
        if self.chunks.is_empty() {
            // Takes the whole buffer: splitting off only its filled part would need another allocation.
            return std::mem::take(&mut self.tail).freeze();
        }
        self.close_tail();
        let chunks = std::mem::take(self).chunks;
        match chunks.len() {
            1 => chunks.into_iter().next().unwrap_or_default(),
            _ => Bytes::from(chunks.iter().map(|chunk| &chunk[..]).collect::<Vec<_>>().concat()),
        }
    }

    /// Writes as much as one call takes.
    ///
    /// # Errors
    /// Errors of the sink, except `WouldBlock`, which becomes [`WriteProgress::Blocked`], and `Interrupted`, which is
    /// retried.
    pub fn write_to(&mut self, sink: &mut impl Write) -> io::Result<WriteProgress> {
        if self.is_empty() {
            return Ok(WriteProgress::Empty);
        }
        let (offered, written) = self.write_once(sink)?;
        self.advance(written);
        if written < offered {
            return Ok(WriteProgress::Blocked);
        }
        Ok(if self.is_empty() { WriteProgress::Empty } else { WriteProgress::More })
    }

    /// Returns true if the queue has room for more than this many bytes without new memory.
    #[must_use]
    pub fn keeps_more_than(&mut self, bytes: usize) -> bool {
        // Unlike `capacity`, this also counts the memory before the bytes that are still to be written.
        self.tail.try_reclaim(bytes + 1)
    }

    /// Gives all memory back, if nothing is queued.
    pub(crate) fn release(&mut self) {
        if self.is_empty() {
            *self = Self::new();
        }
    }

    /// Returns how many bytes were offered to the sink and how many it took.
    fn write_once(&self, sink: &mut impl Write) -> io::Result<(usize, usize)> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let (mut count, mut offered) = (0, 0);
        let tail = Some(&self.tail[..]).filter(|tail| !tail.is_empty());
        for chunk in self.chunks.iter().map(|chunk| &chunk[..]).chain(tail).take(SLICES_MAX) {
            slices[count] = IoSlice::new(chunk);
            count += 1;
            offered += chunk.len();
        }
        loop {
            let result = match &slices[..count] {
                [only] => sink.write(only),
                several => sink.write_vectored(several),
            };
            match result {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => return Ok((offered, written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok((offered, 0)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(chunk) = self.chunks.front_mut() {
            if written < chunk.len() {
                chunk.advance(written);
                self.chunk_bytes -= written;
                return;
            }
            written -= chunk.len();
            self.chunk_bytes -= chunk.len();
            self.chunks.pop_front();
        }
        if written < self.tail.len() {
            self.tail.advance(written);
            return;
        }
        self.tail.clear();
        if self.keeps_more_than(CHUNK_BYTES) {
            self.tail = BytesMut::new();
        }
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.chunk_bytes += self.tail.len();
            self.chunks.push_back(self.tail.split().freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes at most `room` bytes in one call, and blocks at 0.
    struct Sink {
        taken: Vec<u8>,
        room: usize,
        calls: usize,
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.write_vectored(&[IoSlice::new(bytes)])
        }

        fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            self.calls += 1;
            if self.room == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            let before = self.taken.len();
            let bytes = slices.iter().flat_map(|slice| slice.iter().copied());
            self.taken.extend(bytes.take(self.room));
            Ok(self.taken.len() - before)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn sink(room: usize) -> Sink {
        Sink { taken: Vec::new(), room, calls: 0 }
    }

    #[test]
    fn small_and_large_keep_their_order_in_one_call() {
        let mut outbound = Outbound::new();
        let large = Bytes::from(vec![b'x'; 5000]);
        outbound.buffer().extend_from_slice(b"a");
        outbound.push(Bytes::from_static(b"b"));
        outbound.push(large.clone());
        outbound.buffer().extend_from_slice(b"c");
        assert_eq!(outbound.len(), 5003);
        let mut sink = sink(usize::MAX);
        assert_eq!(outbound.write_to(&mut sink).unwrap(), WriteProgress::Empty);
        assert_eq!(sink.calls, 1);
        assert_eq!(sink.taken, [b"ab".as_slice(), &large, b"c"].concat());
        assert_eq!((outbound.is_empty(), outbound.len()), (true, 0));
    }

    #[test]
    fn partial_writes_go_on_where_they_stopped() {
        let mut outbound = Outbound::new();
        let mut expected = Vec::new();
        for index in 0..50_u8 {
            outbound.buffer().extend_from_slice(&[index; 3]);
            outbound.push(Bytes::from(vec![index; 1100]));
            expected.extend_from_slice(&[index; 1103]);
        }
        let mut sink = sink(777);
        while outbound.write_to(&mut sink).unwrap() != WriteProgress::Empty {
            assert_eq!(outbound.len() + sink.taken.len(), expected.len());
        }
        assert_eq!(sink.taken, expected);
        sink.room = 0;
        outbound.push(Bytes::from_static(b"end"));
        assert_eq!(outbound.write_to(&mut sink).unwrap(), WriteProgress::Blocked);
        assert_eq!(outbound.len(), 3);
    }

    #[test]
    fn one_call_takes_a_bounded_number_of_chunks() {
        let mut outbound = Outbound::new();
        for _ in 0..=SLICES_MAX {
            outbound.push(Bytes::from(vec![0; 2000]));
        }
        let mut sink = sink(usize::MAX);
        assert_eq!(outbound.write_to(&mut sink).unwrap(), WriteProgress::More);
        assert_eq!(outbound.len(), 2000);
        assert_eq!(outbound.write_to(&mut sink).unwrap(), WriteProgress::Empty);
    }

    #[test]
    fn memory_is_used_again_but_not_kept_without_bound() {
        let mut outbound = Outbound::new();
        let mut sink = sink(usize::MAX);
        outbound.buffer().extend_from_slice(&[1; 100]);
        let place = outbound.buffer().as_ptr();
        for _ in 0..1000 {
            assert_eq!(outbound.write_to(&mut sink).unwrap(), WriteProgress::Empty);
            outbound.buffer().extend_from_slice(&[1; 100]);
            assert_eq!(outbound.buffer().as_ptr(), place);
        }
        outbound.buffer().extend_from_slice(&[1; CHUNK_BYTES * 2]);
        outbound.buffer().extend_from_slice(b"in the next chunk");
        assert_eq!(outbound.chunks.len(), 1);
        outbound.write_to(&mut sink).unwrap();
        assert!(outbound.is_empty() && !outbound.keeps_more_than(CHUNK_BYTES));
        outbound.release();
        assert!(!outbound.keeps_more_than(0));
    }

    #[test]
    fn a_large_buffer_written_in_pieces_is_not_kept() {
        let mut outbound = Outbound::new();
        outbound.buffer().extend_from_slice(&[1; CHUNK_BYTES * 4]);
        let mut sink = sink(CHUNK_BYTES * 3 + 1);
        assert_eq!(outbound.write_to(&mut sink).unwrap(), WriteProgress::Blocked);
        assert_eq!(outbound.write_to(&mut sink).unwrap(), WriteProgress::Empty);
        assert!(!outbound.keeps_more_than(CHUNK_BYTES));
    }

    #[test]
    fn a_sink_that_takes_nothing_is_an_error() {
        let mut outbound = Outbound::new();
        outbound.push(Bytes::from_static(b"x"));
        let mut closed: &mut [u8] = &mut [];
        assert_eq!(outbound.write_to(&mut closed).unwrap_err().kind(), ErrorKind::WriteZero);
    }
}
