//! Frames between peers: many small messages under one header and one checksum.
//!
//! ```text
//! header   magic u8 | version u8 | purpose u8 | 0 u8 | payload length u32 | CRC-32C u32 | 0 u32
//! payload  message*
//! message  group u32 | kind u8 | flags u8 | 0 u16 | body length u32 | body
//! ```
//!
//! Numbers are little-endian. The checksum covers the whole frame, with its own field taken as zero. Fields written as
//! zero are for later versions and ignored when read. A message states its length, so that a receiver can skip a
//! message of an unknown kind or group. Only the checksum proves the payload length right, and only when the whole
//! frame has arrived. Until then no memory is reserved for the stated length. [`decode`] refuses a payload length above
//! the reader's limit after the first 8 bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

/// The first byte of every frame: 0x80 or above, so that it cannot begin a request of a client.
pub const MAGIC: u8 = 0xB1;
/// The version of the format that this build speaks.
pub const VERSION: u8 = 1;
/// The length of a frame's header.
pub const HEADER_BYTES: usize = 16;
/// The length of a message before its body.
pub const MESSAGE_HEADER_BYTES: usize = 12;

/// Length below which the end of a body is copied into the frame, which is cheaper than a piece of its own.
const COPIED_BYTES_MAX: usize = 16 << 10;
/// Maximum memory that a writer keeps for the next frame.
const KEPT_BYTES_MAX: usize = 1 << 20;

const LENGTH_AT: usize = 4;
const CRC_AT: usize = 8;
/// Bytes of a header that suffice to judge it: everything before the checksum.
const JUDGED_BYTES: usize = 8;

/// The purpose of a connection, and of each frame on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Purpose {
    /// Small messages that somebody waits for.
    Live = 0,
    /// Large transfers, kept apart so that they do not delay the small messages.
    Bulk = 1,
}

/// Reason why bytes are no frame. The connection must be closed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FrameError {
    /// The first byte is not [`MAGIC`].
    #[error("not a peer frame: it begins with {0:#04x} instead of {MAGIC:#04x}")]
    Magic(u8),
    /// The peer speaks another version.
    #[error("the peer speaks version {0} of the peer protocol, this node version {VERSION}")]
    Version(u8),
    /// The purpose is unknown.
    #[error("unknown purpose {0} of a peer frame")]
    Purpose(u8),
    /// The payload is longer than the receiver allows.
    #[error("a peer frame of {payload_bytes} bytes exceeds the limit of {payload_bytes_max}")]
    TooLong {
        /// The length in the header.
        payload_bytes: usize,
        /// The receiver's limit.
        payload_bytes_max: usize,
    },
    /// The checksum is wrong: the frame was damaged, or the bytes are no frame.
    #[error("a peer frame's checksum is {found:#010x} instead of {stated:#010x}")]
    Checksum {
        /// The checksum in the header.
        stated: u32,
        /// The checksum of the bytes.
        found: u32,
    },
    /// A message is longer than the rest of its frame.
    #[error("a message of {message_bytes} bytes overruns its peer frame, of which {frame_bytes} bytes are left")]
    Overrun {
        /// The message's length with its header.
        message_bytes: usize,
        /// The rest of the frame.
        frame_bytes: usize,
    },
}

/// One message within a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The group that the message is about.
    pub group: u32,
    /// The kind of the message. The receiver knows the kinds.
    pub kind: u8,
    /// The content, a slice of the frame's memory.
    pub body: Bytes,
}

/// A whole frame whose checksum is right.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The purpose of the frame.
    pub purpose: Purpose,
    payload: Bytes,
}

impl Frame {
    /// Returns the messages in order. After an error there are no more.
    #[must_use]
    pub fn messages(&self) -> Messages {
        Messages { rest: self.payload.clone() }
    }
}

/// Takes the first frame off `buf`. Returns `None` while it is incomplete.
///
/// # Errors
/// When the bytes are no frame of this version, or the payload is longer than `payload_bytes_max`: both are known after
/// the first 8 bytes. Also when the checksum is wrong.
pub fn decode(buf: &mut BytesMut, payload_bytes_max: usize) -> Result<Option<Frame>, FrameError> {
    if buf.len() < JUDGED_BYTES {
        return Ok(None);
    }
    let purpose = judge(buf)?;
    let payload_bytes = payload_bytes(buf);
    if payload_bytes > payload_bytes_max {
        return Err(FrameError::TooLong { payload_bytes, payload_bytes_max });
    }
    let frame_bytes = HEADER_BYTES + payload_bytes;
    if buf.len() < frame_bytes {
        return Ok(None);
    }
    let stated = u32_at(buf, CRC_AT);
    let found = checksum(&buf[..frame_bytes]);
    if stated != found {
        return Err(FrameError::Checksum { stated, found });
    }
    let mut payload = buf.split_to(frame_bytes).freeze();
    payload.advance(HEADER_BYTES);
    Ok(Some(Frame { purpose, payload }))
}

/// Returns the number of bytes that the frame at the start of `buf` lacks, as a hint for the reader; 0 while that is
/// unknown. Call it only after [`decode`] found the header acceptable.
#[must_use]
pub fn needed(buf: &[u8]) -> usize {
    if buf.len() < JUDGED_BYTES { 0 } else { (HEADER_BYTES + payload_bytes(buf)).saturating_sub(buf.len()) }
}

/// The messages of a [`Frame`].
#[derive(Clone, Debug)]
pub struct Messages {
    rest: Bytes,
}

impl Iterator for Messages {
    type Item = Result<Message, FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        let frame_bytes = self.rest.len();
        if frame_bytes == 0 {
            return None;
        }
        let mut message_bytes = MESSAGE_HEADER_BYTES;
        if frame_bytes >= MESSAGE_HEADER_BYTES {
            message_bytes = message_bytes.saturating_add(u32_at(&self.rest, 8) as usize);
        }
        if message_bytes > frame_bytes {
            self.rest.clear();
            return Some(Err(FrameError::Overrun { message_bytes, frame_bytes }));
        }
        let mut body = self.rest.split_to(message_bytes);
        let (group, kind) = (u32_at(&body, 0), body[4]);
        body.advance(MESSAGE_HEADER_BYTES);
        Some(Ok(Message { group, kind, body }))
    }
}

/// Gathers messages into frames. Without messages there is no frame. After a frame is finished, the next one may begin.
/// It reuses the buffer's memory if the earlier frames are freed by then. Large ends of bodies are sent from where they
/// are, without a copy.
#[derive(Debug)]
pub struct FrameWriter {
    purpose: Purpose,
    buf: BytesMut,
    /// Uncopied ends of bodies, in order, each with the position in `buf` that it follows.
    tails: Vec<(usize, Bytes)>,
    tail_bytes: usize,
    counts: FrameCounts,
}

/// How many frames were finished, and how many messages were written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameCounts {
    /// Finished frames.
    pub frames: u64,
    /// Messages; each fragment of a large one counts.
    pub messages: u64,
}

impl FrameWriter {
    /// Creates a writer of frames for `purpose`.
    #[must_use]
    pub fn new(purpose: Purpose) -> Self {
        Self { purpose, buf: BytesMut::new(), tails: Vec::new(), tail_bytes: 0, counts: FrameCounts::default() }
    }

    /// Returns the frame's length so far, its header included; 0 without messages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buf.len() + self.tail_bytes
    }

    /// Returns true if the frame has no message.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buf.is_empty()
    }

    /// Returns the counts since the last call.
    pub fn take_counts(&mut self) -> FrameCounts {
        std::mem::take(&mut self.counts)
    }

    /// Appends a message. Its body is the bytes that `write_body` appends, followed by those that it returns.
    ///
    /// # Panics
    /// If the body has 4 GiB or more. The caller bounds messages far below.
    pub fn message(&mut self, group: u32, kind: u8, write_body: impl FnOnce(&mut BytesMut) -> Bytes) {
        if self.buf.is_empty() {
            self.buf.put_slice(&[MAGIC, VERSION, self.purpose as u8, 0]);
            self.buf.put_bytes(0, HEADER_BYTES - 4);
        }
        self.counts.messages += 1;
        self.buf.put_u32_le(group);
        self.buf.put_slice(&[kind, 0, 0, 0]);
        let length_at = self.buf.len();
        self.buf.put_u32_le(0);
        let body_at = self.buf.len();
        let tail = write_body(&mut self.buf);
        put_length(&mut self.buf, length_at, body_at, tail.len());
        if tail.len() < COPIED_BYTES_MAX {
            self.buf.put_slice(&tail);
        } else {
            self.tail_bytes += tail.len();
            self.tails.push((self.buf.len(), tail));
        }
    }

    /// Ends the frame and appends its pieces to `ready`, in the order of sending. Appends nothing without messages.
    ///
    /// # Panics
    /// If the payload has 4 GiB or more. The caller watches [`Self::len`].
    pub fn finish(&mut self, ready: &mut Vec<Bytes>) {
        if self.buf.is_empty() {
            return;
        }
        put_length(&mut self.buf, LENGTH_AT, HEADER_BYTES, self.tail_bytes);
        let crc = self.checksum();
        self.buf[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        let mut rest = if self.buf.len() > KEPT_BYTES_MAX {
            // After a `split`, the unused end of the buffer would stay here and keep all of the buffer's memory alive.
            std::mem::take(&mut self.buf).freeze()
        } else {
            self.buf.split().freeze()
        };
        let mut taken = 0;
        for (position, tail) in self.tails.drain(..) {
            ready.push(rest.split_to(position - taken));
            ready.push(tail);
            taken = position;
        }
        ready.extend(Some(rest).filter(|rest| !rest.is_empty()));
        self.tail_bytes = 0;
        self.counts.frames += 1;
    }

    fn checksum(&self) -> u32 {
        let mut crc = crc32c::crc32c(&self.buf[..CRC_AT]);
        crc = crc32c::crc32c_append(crc, &[0; 4]);
        let mut at = CRC_AT + 4;
        for (position, tail) in &self.tails {
            crc = crc32c::crc32c_append(crc, &self.buf[at..*position]);
            crc = crc32c::crc32c_append(crc, tail);
            at = *position;
        }
        crc32c::crc32c_append(crc, &self.buf[at..])
    }
}

/// Writes a length field at `at`: the bytes of `buf` from `from` on, plus `more` bytes outside of `buf`.
fn put_length(buf: &mut BytesMut, at: usize, from: usize, more: usize) {
    let length = u32::try_from(buf.len() - from + more).expect("lengths in peer frames are below 4 GiB");
    buf[at..at + 4].copy_from_slice(&length.to_le_bytes());
}

fn judge(header: &[u8]) -> Result<Purpose, FrameError> {
    match *header {
        [MAGIC, VERSION, 0, ..] => Ok(Purpose::Live),
        [MAGIC, VERSION, 1, ..] => Ok(Purpose::Bulk),
        [MAGIC, VERSION, purpose, ..] => Err(FrameError::Purpose(purpose)),
        [MAGIC, version, ..] => Err(FrameError::Version(version)),
        _ => Err(FrameError::Magic(header[0])),
    }
}

fn payload_bytes(header: &[u8]) -> usize {
    u32_at(header, LENGTH_AT) as usize
}

fn checksum(frame: &[u8]) -> u32 {
    let head = crc32c::crc32c(&frame[..CRC_AT]);
    let head = crc32c::crc32c_append(head, &[0; 4]);
    crc32c::crc32c_append(head, &frame[CRC_AT + 4..])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1 << 20;

    fn sample() -> Bytes {
        let mut writer = FrameWriter::new(Purpose::Bulk);
        writer.message(7, 1, |out| body(out, b"first"));
        writer.message(u32::MAX, 255, |_| Bytes::new());
        writer.message(0, 2, |out| body(out, &[9; 1000]));
        finish(&mut writer)
    }

    fn body(out: &mut BytesMut, bytes: &[u8]) -> Bytes {
        out.put_slice(bytes);
        Bytes::new()
    }

    fn finish(writer: &mut FrameWriter) -> Bytes {
        let mut ready = Vec::new();
        writer.finish(&mut ready);
        assert!(ready.iter().all(|piece| !piece.is_empty()));
        ready.concat().into()
    }

    fn messages(frame: &Frame) -> Vec<(u32, u8, Bytes)> {
        frame.messages().map(Result::unwrap).map(|message| (message.group, message.kind, message.body)).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let mut buf = BytesMut::from(&[sample(), sample()].concat()[..]);
        for _ in 0..2 {
            let frame = decode(&mut buf, MAX).unwrap().unwrap();
            assert_eq!(frame.purpose, Purpose::Bulk);
            let expected = [
                (7, 1, Bytes::from_static(b"first")),
                (u32::MAX, 255, Bytes::new()),
                (0, 2, Bytes::from(vec![9; 1000])),
            ];
            assert_eq!(messages(&frame), expected);
        }
        assert!(buf.is_empty());
    }

    #[test]
    fn the_format_does_not_change_by_accident() {
        let mut writer = FrameWriter::new(Purpose::Live);
        writer.message(0x0102, 3, |out| body(out, b"ab"));
        let frame = finish(&mut writer);
        let expected = b"\xb1\x01\x00\x00\x0e\x00\x00\x00\xe3\x9a\x65\x9c\x00\x00\x00\x00\
            \x02\x01\x00\x00\x03\x00\x00\x00\x02\x00\x00\x00ab";
        assert_eq!(frame.escape_ascii().to_string(), expected.escape_ascii().to_string());
    }

    #[test]
    fn a_writer_without_messages_has_no_frame() {
        let mut writer = FrameWriter::new(Purpose::Live);
        assert!(writer.is_empty() && finish(&mut writer).is_empty());
        writer.message(1, 1, |_| Bytes::new());
        assert_eq!(writer.len(), HEADER_BYTES + MESSAGE_HEADER_BYTES);
        assert!(!finish(&mut writer).is_empty() && writer.is_empty() && finish(&mut writer).is_empty());
    }

    #[test]
    fn the_large_end_of_a_body_is_sent_from_where_it_is() {
        let tail = |byte, length| Bytes::from(vec![byte; length]);
        let large = tail(1, COPIED_BYTES_MAX);
        let mut writer = FrameWriter::new(Purpose::Live);
        for end in [large.clone(), tail(2, 10), large.clone()] {
            writer.message(5, 6, |out| {
                out.put_slice(b"head");
                end
            });
        }
        let bytes = writer.len();
        let mut ready = Vec::new();
        writer.finish(&mut ready);
        assert_eq!(ready.iter().filter(|piece| piece.as_ptr() == large.as_ptr()).count(), 2);
        let mut buf = BytesMut::from(&ready.concat()[..]);
        assert_eq!((buf.len(), writer.len()), (bytes, 0));
        let lengths: Vec<usize> =
            messages(&decode(&mut buf, MAX).unwrap().unwrap()).iter().map(|m| m.2.len()).collect();
        assert_eq!(lengths, [4 + large.len(), 14, 4 + large.len()]);
    }

    #[test]
    fn frames_and_messages_are_counted_once() {
        let (mut writer, mut ready) = (FrameWriter::new(Purpose::Live), Vec::new());
        for messages in [2, 0, 1] {
            (0..messages).for_each(|group| writer.message(group, 1, |_| Bytes::new()));
            writer.finish(&mut ready);
        }
        assert_eq!(writer.take_counts(), FrameCounts { frames: 2, messages: 3 });
        assert_eq!(writer.take_counts(), FrameCounts::default());
    }

    #[test]
    fn a_frame_may_come_in_pieces() {
        let whole = sample();
        let mut buf = BytesMut::new();
        for (index, byte) in whole.iter().enumerate() {
            assert!(decode(&mut buf, MAX).unwrap().is_none(), "complete after {index} bytes");
            let expected = if index < 8 { 0 } else { whole.len() - index };
            assert_eq!(needed(&buf), expected);
            buf.put_u8(*byte);
        }
        assert_eq!(messages(&decode(&mut buf, MAX).unwrap().unwrap()).len(), 3);
    }

    #[test]
    fn any_changed_bit_is_noticed() {
        let whole = sample();
        for bit in 0..(HEADER_BYTES + 20) * 8 {
            let mut buf = BytesMut::from(&whole[..]);
            buf[bit / 8] ^= 1 << (bit % 8);
            // A changed length can also make the frame look incomplete.
            assert!(!matches!(decode(&mut buf, MAX), Ok(Some(_))), "bit {bit}");
        }
    }

    #[test]
    fn eight_bytes_suffice_to_refuse() {
        let refuse = |bytes: &[u8], max| decode(&mut BytesMut::from(bytes), max).unwrap_err();
        assert_eq!(refuse(b"GET / HT", MAX), FrameError::Magic(b'G'));
        let version = refuse(&[MAGIC, 9, 0, 0, 0, 0, 0, 0], MAX);
        assert_eq!(version, FrameError::Version(9));
        assert!(version.to_string().contains("version 9") && version.to_string().contains("version 1"));
        assert_eq!(refuse(&[MAGIC, VERSION, 2, 0, 0, 0, 0, 0], MAX), FrameError::Purpose(2));
        let too_long = FrameError::TooLong { payload_bytes: u32::MAX as usize, payload_bytes_max: 100 };
        assert_eq!(refuse(&[MAGIC, VERSION, 0, 0, 255, 255, 255, 255], 100), too_long);
    }

    #[test]
    fn a_message_ends_within_its_frame() {
        let frame_of = |payload: &[u8]| Frame { purpose: Purpose::Live, payload: Bytes::copy_from_slice(payload) };
        let short = frame_of(&[0; 11]).messages().collect::<Vec<_>>();
        assert_eq!(short, [Err(FrameError::Overrun { message_bytes: 12, frame_bytes: 11 })]);
        let long = frame_of(&[0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 1]).messages().collect::<Vec<_>>();
        assert_eq!(long, [Err(FrameError::Overrun { message_bytes: 12 + u32::MAX as usize, frame_bytes: 13 })]);
    }
}
