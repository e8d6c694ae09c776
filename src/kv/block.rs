//! The encoding of a state in files and between nodes: blocks in a fixed order. A block holds whole keys or sessions, a
//! piece of a long value, or parts of uploads.
//!
//! ```text
//! block    = version u8 | kind u8 | content; little-endian, bytes behind a u32 length
//! head     = first slot u16 | slot behind the last u16 | time u64 | keys u64 | sessions issued u32 | floor u64
//!          | sessions u64 | digest of all changes so far u64 | CRC-32C of the block so far u32
//! entries  = (expiry u64 | key | value) …                                              by position, then by key
//! piece    = expiry u64 | key | bytes of the value u64 | offset u64 | piece             instead of a long entry, in order
//! sessions = (id [20] | highest number u64 | kept u32 | (number u64 | fingerprint u64 | reply) …) …       by id
//! uploads  = (upload u32 u64 u64 | bytes of the whole u64 | touched u64 | part) …                    by id, then in order
//! end      = digest u64
//!
//! a state  = head, any number of entries, any number of sessions, any number of uploads, end
//! ```
//!
//! Blocks come from files and from other nodes. Whatever they hold, reading ends in an error, or in a state whose
//! digest equals the one in its `end` block. Reading takes no more memory than the blocks do, and for uploads no more
//! than the limits allow.

use super::digest::{Digest, Head};
use super::directory::KeyPosition;
use super::entry::{Entry, Value};
use super::limits::StoreLimits;
use super::long_value::LongValue;
use super::reader::{DecodeError, Reader};
use super::session::{Session, SessionId, StoredReply, checksum};
use super::uploads::{Outline, UploadId};
use crate::routing;
use groups::Ms;
use siphasher::sip::{SipHasher13, SipHasher24};
use std::ops::Range;
use thiserror::Error;

/// The highest version of blocks that is read. Blocks of uploads and of pieces have this version. Older programs, which
/// read only version 1, know all other blocks.
pub const BLOCK_VERSION: u8 = 2;
/// The version of the other blocks.
const FIRST_VERSION: u8 = 1;

mod kind {
    pub(super) const HEAD: u8 = 1;
    pub(super) const ENTRIES: u8 = 2;
    pub(super) const SESSIONS: u8 = 3;
    pub(super) const END: u8 = 4;
    pub(super) const UPLOADS: u8 = 5;
    pub(super) const PIECE: u8 = 6;
}

const CRC_BYTES: usize = 4;

/// The reason why a block is refused. The blocks read before it are then of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BlockError {
    /// Written by a later version of the program.
    #[error("a block has version {0}, but this program reads only {BLOCK_VERSION}; use a newer program")]
    Version(u8),
    /// Cut short, or no block at all.
    #[error("a block is garbled or cut short")]
    Garbled,
    /// A sound block at the wrong place: another must come first, or no more may come.
    #[error("a block is missing, or comes twice or too late")]
    OutOfTurn,
    /// Keys or sessions are not in order, or come twice.
    #[error("keys or sessions are out of order")]
    Order,
    /// The state is another group's.
    #[error("a block is of another group")]
    OtherGroup,
    /// A session that was never issued, has impossible content, or exceeds what a group keeps.
    #[error("a session is invalid")]
    BadSession,
    /// Parts of an upload that no group can hold.
    #[error("the parts of a large command are invalid")]
    BadUpload,
    /// The keys and sessions are not those that the state had.
    #[error("the digest of the state is wrong")]
    Digest,
}

impl From<DecodeError> for BlockError {
    fn from(_: DecodeError) -> BlockError {
        BlockError::Garbled
    }
}

/// The writer of one block.
#[derive(Debug)]
pub(super) struct BlockWriter(Vec<u8>);

impl BlockWriter {
    pub(super) fn entries() -> BlockWriter {
        BlockWriter(vec![FIRST_VERSION, kind::ENTRIES])
    }

    pub(super) fn sessions() -> BlockWriter {
        BlockWriter(vec![FIRST_VERSION, kind::SESSIONS])
    }

    /// Makes the block of a piece of an entry's value.
    pub(super) fn piece(entry: &Entry, piece: Range<usize>) -> BlockWriter {
        let mut block = BlockWriter(vec![BLOCK_VERSION, kind::PIECE]);
        block.0.extend_from_slice(&entry.expires_at_ms().0.to_le_bytes());
        block.bytes(entry.key());
        block.0.extend_from_slice(&(entry.value().len() as u64).to_le_bytes());
        block.0.extend_from_slice(&(piece.start as u64).to_le_bytes());
        block.value(entry.value(), piece);
        block
    }

    /// Makes the block of a part of an upload.
    pub(super) fn upload_part(id: &UploadId, outline: &Outline, part: &[u8]) -> BlockWriter {
        let mut block = BlockWriter(vec![BLOCK_VERSION, kind::UPLOADS]);
        block.0.extend_from_slice(&id.node.to_le_bytes());
        for number in [id.start, id.number, outline.total as u64, outline.touched_ms.0] {
            block.0.extend_from_slice(&number.to_le_bytes());
        }
        block.bytes(part);
        block
    }

    pub(super) fn entry(&mut self, entry: &Entry) {
        self.0.reserve(entry_bytes(entry));
        self.0.extend_from_slice(&entry.expires_at_ms().0.to_le_bytes());
        self.bytes(entry.key());
        self.value(entry.value(), 0..entry.value().len());
    }

    pub(super) fn session(&mut self, id: &SessionId, session: &Session) {
        self.0.extend_from_slice(&id.0);
        self.0.extend_from_slice(&session.top.to_le_bytes());
        self.0.extend_from_slice(&(session.kept.len() as u32).to_le_bytes()); // at most 64: the window of the session
        for kept in &session.kept {
            self.0.extend_from_slice(&kept.number.to_le_bytes());
            self.0.extend_from_slice(&kept.fingerprint.to_le_bytes());
            self.bytes(&kept.reply);
        }
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.value(Value::Short(bytes), 0..bytes.len());
    }

    fn value(&mut self, value: Value<'_>, part: Range<usize>) {
        let length = u32::try_from(part.len()).expect("requests are bounded far below 4 GiB");
        self.0.extend_from_slice(&length.to_le_bytes());
        value.slices_of(part).for_each(|slice| self.0.extend_from_slice(slice));
    }
}

/// Returns the bytes that an entry takes in a block.
pub(super) fn entry_bytes(entry: &Entry) -> usize {
    8 + 4 + 4 + entry.len()
}

/// Returns the first block of a state.
pub(super) fn head_block(head: &Head) -> Vec<u8> {
    let mut block = vec![FIRST_VERSION, kind::HEAD];
    block.extend_from_slice(&head.slots.start.to_le_bytes());
    block.extend_from_slice(&head.slots.end.to_le_bytes());
    block.extend_from_slice(&head.time_ms.0.to_le_bytes());
    block.extend_from_slice(&head.keys.to_le_bytes());
    block.extend_from_slice(&head.issued.to_le_bytes());
    block.extend_from_slice(&head.floor_ms.0.to_le_bytes());
    block.extend_from_slice(&head.sessions.to_le_bytes());
    block.extend_from_slice(&head.rolling.to_le_bytes());
    // The digest in the end block does not cover `rolling`, the digest of the state's history. This CRC does.
    block.extend_from_slice(&crc32c::crc32c(&block).to_le_bytes());
    block
}

/// Returns the last block of a state.
pub(super) fn end_block(digest: u64) -> Vec<u8> {
    let mut block = vec![FIRST_VERSION, kind::END];
    block.extend_from_slice(&digest.to_le_bytes());
    block
}

/// A receiver of the content of blocks.
pub(super) trait Sink {
    fn head(&mut self, head: &Head);
    fn entry(&mut self, entry: Entry);
    fn session(&mut self, id: SessionId, session: Session);
    /// Takes a part of an upload. Parts of one upload come in order.
    fn upload_part(&mut self, id: UploadId, total: usize, touched_ms: Ms, part: &[u8]);
}

/// A sink for checks, which need no content.
impl Sink for () {
    fn head(&mut self, _: &Head) {}
    fn entry(&mut self, _: Entry) {}
    fn session(&mut self, _: SessionId, _: Session) {}
    fn upload_part(&mut self, _: UploadId, _: usize, _: Ms, _: &[u8]) {}
}

/// A callback that gets a key, its value, and its expiry in unix milliseconds; 0: never.
pub type OnEntry<'a> = dyn FnMut(&[u8], &[u8], Ms) + 'a;

/// A sink that passes on each key with its value and expiry, and drops everything else.
struct Visitor<'v, 'e>(&'v mut OnEntry<'e>);

impl Sink for Visitor<'_, '_> {
    fn head(&mut self, _: &Head) {}
    fn entry(&mut self, entry: Entry) {
        (self.0)(entry.key(), &entry.value().bytes(), entry.expires_at_ms());
    }
    fn session(&mut self, _: SessionId, _: Session) {}
    fn upload_part(&mut self, _: UploadId, _: usize, _: Ms, _: &[u8]) {}
}

/// A reader that checks the blocks of one state, in order: each by itself, and all together at the end. It keeps none
/// of their content, except the last key and the pieces of a long value that is not complete yet.
#[derive(Debug)]
pub struct BlockCheck {
    keyed: SipHasher13,
    mac: SipHasher24,
    slots: Range<u16>,
    limits: StoreLimits,
    stage: BlockStage,
    head: Option<Head>,
    digest: Digest,
    keys: u64,
    /// The entry of which some pieces were read: its key, its expiry, its length, and its value so far.
    partial: Option<Partial>,
    last: (KeyPosition, Vec<u8>),
    sessions: u64,
    last_session: SessionId,
    session_bytes: usize,
    /// The upload whose parts were read last. A part of another upload ends it.
    upload: Option<(UploadId, Outline)>,
    uploads: usize,
    announced: usize,
}

/// An entry that comes in pieces.
#[derive(Debug)]
struct Partial {
    expires_at_ms: Ms,
    key: Vec<u8>,
    total: usize,
    /// The pieces read so far.
    value: LongValue,
}

/// The kind of block that may come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BlockStage {
    Head,
    Entries,
    Sessions,
    Uploads,
    Whole,
    Failed,
}

impl BlockCheck {
    /// Makes the check for the state of the group that owns `slots`; `hash_key` and `limits` are the cluster's.
    #[must_use]
    pub fn new(hash_key: [u8; 16], slots: Range<u16>, limits: StoreLimits) -> BlockCheck {
        let keyed = SipHasher13::new_with_key(&hash_key);
        BlockCheck {
            keyed,
            mac: SipHasher24::new_with_key(&hash_key),
            slots,
            limits,
            stage: BlockStage::Head,
            head: None,
            digest: Digest::new(keyed),
            keys: 0,
            partial: None,
            last: (KeyPosition(0), Vec::new()),
            sessions: 0,
            last_session: SessionId([0; 20]),
            session_bytes: 0,
            upload: None,
            uploads: 0,
            announced: 0,
        }
    }

    /// Checks the next block.
    ///
    /// # Errors
    /// [`BlockError`], also for every block after a refused one.
    pub fn check(&mut self, block: &[u8]) -> Result<(), BlockError> {
        self.read(block, &mut ())
    }

    /// Checks the next block like [`BlockCheck::check`], and calls `each` with every key, its value, and its expiry in
    /// unix milliseconds, 0 for never. After an error, the caller must discard what `each` got.
    ///
    /// # Errors
    /// As [`BlockCheck::check`].
    pub fn visit(&mut self, block: &[u8], each: &mut OnEntry<'_>) -> Result<(), BlockError> {
        self.read(block, &mut Visitor(each))
    }

    /// Returns the digest of the state, once its last block was found sound.
    #[must_use]
    pub fn digest(&self) -> Option<u64> {
        (self.stage == BlockStage::Whole).then(|| self.digest.finish())
    }

    /// Returns the number of keys read so far.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.keys
    }

    /// Returns the number of sessions read so far.
    #[must_use]
    pub fn sessions(&self) -> u64 {
        self.sessions
    }

    /// Checks the next block and passes its content to `sink`. After an error, the caller must discard what the sink
    /// got.
    pub(super) fn read(&mut self, block: &[u8], sink: &mut impl Sink) -> Result<(), BlockError> {
        let read = self.read_kind(block, sink);
        if read.is_err() {
            self.stage = BlockStage::Failed;
        }
        read
    }

    fn read_kind(&mut self, block: &[u8], sink: &mut impl Sink) -> Result<(), BlockError> {
        let mut reader = Reader::new(block);
        let version = reader.u8()?;
        if !(FIRST_VERSION..=BLOCK_VERSION).contains(&version) {
            return Err(BlockError::Version(version));
        }
        match reader.u8()? {
            kind::HEAD => self.read_head(block, reader, sink),
            kind::ENTRIES => self.read_entries(reader, sink),
            kind::PIECE => self.read_piece(reader, sink),
            kind::SESSIONS => self.read_sessions(reader, sink),
            kind::UPLOADS => self.read_uploads(reader, sink),
            kind::END => self.read_end(reader),
            _ => Err(BlockError::Garbled),
        }
    }

    fn read_head(&mut self, block: &[u8], mut reader: Reader<'_>, sink: &mut impl Sink) -> Result<(), BlockError> {
        if self.stage != BlockStage::Head {
            return Err(BlockError::OutOfTurn);
        }
        let head = Head {
            slots: reader.u16()?..reader.u16()?,
            time_ms: Ms(reader.u64()?),
            keys: reader.u64()?,
            issued: reader.u32()?,
            floor_ms: Ms(reader.u64()?),
            sessions: reader.u64()?,
            rolling: reader.u64()?,
        };
        let (stated, found) = (reader.u32()?, crc32c::crc32c(&block[..block.len() - CRC_BYTES]));
        reader.finish()?;
        if stated != found {
            return Err(BlockError::Garbled);
        }
        if head.slots != self.slots {
            return Err(BlockError::OtherGroup);
        }
        sink.head(&head);
        self.head = Some(head);
        self.stage = BlockStage::Entries;
        Ok(())
    }

    fn read_entries(&mut self, mut reader: Reader<'_>, sink: &mut impl Sink) -> Result<(), BlockError> {
        if self.stage != BlockStage::Entries || self.partial.is_some() {
            return Err(BlockError::OutOfTurn);
        }
        while !reader.is_empty() {
            let expires_at_ms = Ms(reader.u64()?);
            let (key, value) = (reader.bytes()?, reader.bytes()?);
            let position = self.next_position(key)?;
            let entry = Entry::new(position, key, value, expires_at_ms);
            self.digest.entry(&entry);
            sink.entry(entry);
        }
        Ok(())
    }

    /// Returns the position of the next entry, if its key may come next.
    fn next_position(&mut self, key: &[u8]) -> Result<KeyPosition, BlockError> {
        let slot = routing::slot(key);
        if !self.slots.contains(&slot) {
            return Err(BlockError::OtherGroup);
        }
        let position = KeyPosition::new(slot, self.keyed.hash(key));
        if self.keys > 0 && (position, key) <= (self.last.0, &self.last.1[..]) {
            return Err(BlockError::Order);
        }
        self.last.0 = position;
        self.last.1.clear();
        self.last.1.extend_from_slice(key);
        self.keys += 1;
        Ok(position)
    }

    fn read_piece(&mut self, mut reader: Reader<'_>, sink: &mut impl Sink) -> Result<(), BlockError> {
        let (expires_at_ms, key) = (Ms(reader.u64()?), reader.bytes()?);
        let total = usize::try_from(reader.u64()?).map_err(|_| BlockError::Garbled)?;
        let offset = usize::try_from(reader.u64()?).map_err(|_| BlockError::Garbled)?;
        let piece = reader.bytes()?;
        reader.finish()?;
        if self.stage != BlockStage::Entries || (offset == 0) != self.partial.is_none() {
            return Err(BlockError::OutOfTurn);
        }
        if offset == 0 {
            self.next_position(key)?;
            self.partial = Some(Partial { expires_at_ms, key: key.to_vec(), total, value: LongValue::default() });
            self.digest.begin_entry(key, expires_at_ms);
        }
        let Some(partial) = &mut self.partial else { return Err(BlockError::OutOfTurn) };
        let held = partial.value.len();
        if partial.key != key || (partial.expires_at_ms, partial.total, held) != (expires_at_ms, total, offset) {
            return Err(BlockError::OutOfTurn);
        }
        if piece.is_empty() || held + piece.len() > total {
            return Err(BlockError::Garbled);
        }
        partial.value.append(piece);
        self.digest.piece(piece);
        if held + piece.len() == total
            && let Some(whole) = self.partial.take()
        {
            self.digest.end_entry();
            sink.entry(Entry::long(self.last.0, &whole.key, whole.value, expires_at_ms));
        }
        Ok(())
    }

    fn read_sessions(&mut self, mut reader: Reader<'_>, sink: &mut impl Sink) -> Result<(), BlockError> {
        self.end_entries()?;
        if self.stage != BlockStage::Sessions {
            return Err(BlockError::OutOfTurn);
        }
        while !reader.is_empty() {
            let id = SessionId(reader.array()?);
            let session = self.read_session(&mut reader)?;
            if id.0[12..] != checksum(&self.mac, &id) {
                return Err(BlockError::BadSession);
            }
            if self.sessions > 0 && id <= self.last_session {
                return Err(BlockError::Order);
            }
            self.last_session = id;
            self.sessions += 1;
            self.session_bytes += session.bytes;
            if self.sessions > self.limits.sessions_max as u64 || self.session_bytes > self.limits.session_bytes_max {
                return Err(BlockError::BadSession);
            }
            self.digest.session(&id, &session);
            sink.session(id, session);
        }
        Ok(())
    }

    fn read_session(&self, reader: &mut Reader<'_>) -> Result<Session, BlockError> {
        let top = reader.u64()?;
        let kept = reader.list(|reader| {
            Ok(StoredReply { number: reader.u64()?, fingerprint: reader.u64()?, reply: reader.bytes()?.into() })
        })?;
        let long = kept.iter().any(|kept| kept.reply.len() > self.limits.session_reply_bytes_max);
        Session::restored(top, kept).filter(|_| !long).ok_or(BlockError::BadSession)
    }

    fn read_uploads(&mut self, mut reader: Reader<'_>, sink: &mut impl Sink) -> Result<(), BlockError> {
        self.end_entries()?;
        self.stage = BlockStage::Uploads;
        while !reader.is_empty() {
            let id = UploadId { node: reader.u32()?, start: reader.u64()?, number: reader.u64()? };
            let total = usize::try_from(reader.u64()?).map_err(|_| BlockError::BadUpload)?;
            let (touched_ms, part) = (Ms(reader.u64()?), reader.bytes()?);
            let last = self.upload.as_ref().map(|(last, _)| *last);
            if last.is_some_and(|last| last > id) {
                return Err(BlockError::Order);
            }
            // Memory for the whole upload is reserved at its first part.
            if total > self.limits.upload_bytes_max() {
                return Err(BlockError::BadUpload);
            }
            if last != Some(id) {
                self.end_upload();
                self.uploads += 1;
                self.announced = self.announced.saturating_add(total);
                let is_room = self.announced <= self.limits.uploads_bytes_max() || self.uploads == 1;
                if self.uploads > self.limits.uploads_max || !is_room {
                    return Err(BlockError::BadUpload);
                }
                self.upload = Some((id, Outline::new(total, touched_ms)));
            }
            let Some((_, upload)) = &mut self.upload else { return Err(BlockError::BadUpload) };
            if part.is_empty()
                || upload.held() + part.len() > total
                || (upload.total, upload.touched_ms) != (total, touched_ms)
            {
                return Err(BlockError::BadUpload);
            }
            upload.count(part);
            sink.upload_part(id, total, touched_ms, part);
        }
        Ok(())
    }

    /// Feeds the upload that was read last into the digest. No more parts of it follow.
    fn end_upload(&mut self) {
        if let Some((id, upload)) = &self.upload {
            upload.digest(id, &mut self.digest);
        }
    }

    fn read_end(&mut self, mut reader: Reader<'_>) -> Result<(), BlockError> {
        self.end_entries()?;
        self.end_upload();
        let digest = reader.u64()?;
        reader.finish()?;
        let sessions = self.head.as_ref().map(|head| head.sessions);
        if sessions != Some(self.sessions) || digest != self.digest.finish() {
            return Err(BlockError::Digest);
        }
        self.stage = BlockStage::Whole;
        Ok(())
    }

    /// Ends the entries at the first block after them: checks their number, and feeds the head into the digest.
    fn end_entries(&mut self) -> Result<(), BlockError> {
        match (self.stage, &self.head) {
            (BlockStage::Sessions | BlockStage::Uploads, _) => Ok(()),
            (BlockStage::Entries, _) if self.partial.is_some() => Err(BlockError::OutOfTurn),
            (BlockStage::Entries, Some(head)) if head.keys != self.keys => Err(BlockError::OutOfTurn),
            (BlockStage::Entries, Some(head)) => {
                self.digest.head(head);
                self.stage = BlockStage::Sessions;
                Ok(())
            }
            _ => Err(BlockError::OutOfTurn),
        }
    }
}
