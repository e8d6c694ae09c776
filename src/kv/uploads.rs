//! Large commands that come in parts. Each part is a command of its own in the log, so that one that holds hundreds of
//! megabytes travels, is logged, and is repeated after a failure in small pieces, and others pass between them. The last
//! command of an upload executes the whole.
//!
//! What is uploaded is a part of the state. It is bounded, and what its origin has forgotten is dropped by the group's
//! time, or when that node comes with a later start.

use super::command::Command;
use super::digest::Digest;
use super::encode::{DecodeError, decode};
use super::limits::Limits;
use super::progress::Progress;
use super::reply::Reply;
use super::rolling::Change;
use super::store::{Store, unreadable};
use groups::Work;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// An upload: the node that its client sent the command to, how often that had been started, and its count of uploads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UploadId {
    /// The node.
    pub node: u32,
    /// Its start number.
    pub start: u64,
    /// Counts from 1 in each start.
    pub number: u64,
}

/// A part of a command's encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// Which upload.
    pub upload: UploadId,
    /// The bytes of the whole encoding.
    pub total: u64,
    /// Where in it the part begins: parts come in order.
    pub offset: u64,
    /// The part; never empty.
    pub bytes: &'a [u8],
}

/// The end of an upload: the whole is to be executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Complete {
    /// Which upload.
    pub upload: UploadId,
    /// The bytes of the whole.
    pub total: u64,
    /// The CRC-32C of the whole.
    pub crc: u32,
}

/// The reply to the first part of an upload for which there is no room now.
pub const BUSY: Reply<'static> = error("TRYAGAIN too many large commands are on their way in this group");
/// The reply to what belongs to no upload, or not to this place in it.
pub const LOST: Reply<'static> =
    error("CLUSTERDOWN Hash slot not served: a part of this large command was lost; it was not executed");

/// The uploads of one group.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    known: BTreeMap<UploadId, Upload>,
    /// What they hold, and what they will hold when all parts are there, in bytes.
    held: usize,
    announced: usize,
    /// As they were when the store was frozen: the first at the end, and of each the first part. What is written out is
    /// gone.
    frozen: Vec<(UploadId, Upload)>,
}

/// What there is of one.
#[derive(Clone, Debug)]
pub(super) struct Upload {
    total: usize,
    parts: Vec<Arc<[u8]>>,
    held: usize,
    /// The CRC-32C of what there is.
    crc: u32,
    /// The group's time of the last part.
    touched_ms: u64,
}

impl Uploads {
    /// Takes a part.
    pub(super) fn add(&mut self, part: &Part<'_>, time_ms: u64, limits: &Limits) -> Reply<'static> {
        let Part { upload: id, bytes, .. } = *part;
        let (Ok(total), Ok(offset)) = (usize::try_from(part.total), usize::try_from(part.offset)) else { return LOST };
        if bytes.is_empty() || offset.checked_add(bytes.len()).is_none_or(|end| end > total) {
            return LOST;
        }
        if offset == 0 {
            self.retain(|known, _| known.node != id.node || known.start >= id.start);
            if self.known.contains_key(&id) {
                return LOST;
            }
            let is_room = self.announced.saturating_add(total) <= limits.uploads_bytes_max();
            if self.known.len() >= limits.uploads_max || !(is_room || self.known.is_empty()) {
                return BUSY;
            }
            self.announced += total;
            self.known.insert(id, Upload::new(total, time_ms));
        }
        let Some(upload) = self.known.get_mut(&id).filter(|known| known.total == total && known.held == offset) else {
            return LOST;
        };
        upload.touched_ms = time_ms;
        upload.add(bytes);
        self.held += bytes.len();
        Reply::Ok
    }

    /// Takes a whole upload out, to be executed; `None` if something of it is missing.
    pub(super) fn take(&mut self, complete: &Complete) -> Option<Assembly> {
        let upload = self.remove(complete.upload)?;
        let is_whole = upload.held == upload.total && upload.total as u64 == complete.total;
        (is_whole && upload.crc == complete.crc).then(|| Assembly {
            parts: upload.parts,
            next: 0,
            whole: Vec::with_capacity(upload.total),
        })
    }

    pub(super) fn remove(&mut self, id: UploadId) -> Option<Upload> {
        let upload = self.known.remove(&id)?;
        self.held -= upload.held;
        self.announced -= upload.total;
        Some(upload)
    }

    /// Drops those of which no part came for long.
    pub(super) fn forget_idle(&mut self, time_ms: u64) {
        if !self.known.is_empty() {
            self.retain(|_, upload| time_ms < upload.touched_ms.saturating_add(IDLE_MS_MAX));
        }
    }

    fn retain(&mut self, stays: impl Fn(&UploadId, &Upload) -> bool) {
        let gone: Vec<UploadId> =
            self.known.iter().filter(|(id, upload)| !stays(id, upload)).map(|(id, _)| *id).collect();
        gone.into_iter().for_each(|id| _ = self.remove(id));
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// What they hold, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.held
    }

    pub(super) fn digest(&self, digest: &mut Digest) {
        self.known.iter().for_each(|(id, upload)| upload.digest(id, digest));
    }

    /// A part of the state of another replica.
    pub(super) fn restore(&mut self, id: UploadId, total: usize, touched_ms: u64, bytes: &[u8]) {
        let announced = &mut self.announced;
        let upload = self.known.entry(id).or_insert_with(|| {
            *announced += total;
            Upload::new(total, touched_ms)
        });
        upload.add(bytes);
        self.held += bytes.len();
    }

    pub(super) fn freeze(&mut self) {
        self.frozen = self.known.iter().rev().map(|(id, upload)| (*id, upload.clone())).collect();
        self.frozen.iter_mut().for_each(|(_, upload)| upload.parts.reverse());
    }

    pub(super) fn thaw(&mut self) {
        self.frozen = Vec::new();
    }

    /// Feeds the frozen state into its digest, before anything of it is handed out.
    pub(super) fn digest_frozen(&self, digest: &mut Digest) {
        self.frozen.iter().rev().for_each(|(id, upload)| upload.digest(id, digest));
    }

    /// Hands out the next part of the frozen state.
    pub(super) fn next_frozen(&mut self) -> Option<(UploadId, &Upload, Arc<[u8]>)> {
        while self.frozen.last().is_some_and(|(_, upload)| upload.parts.is_empty()) {
            self.frozen.pop();
        }
        let (id, upload) = self.frozen.last_mut()?;
        let part = upload.parts.pop()?;
        Some((*id, upload, part))
    }

    /// Bytes that are held only for the frozen state.
    pub(super) fn aside_bytes(&self) -> usize {
        let parts = self.frozen.iter().flat_map(|(_, upload)| &upload.parts);
        parts.filter(|part| Arc::strong_count(part) == 1).map(|part| part.len()).sum()
    }
}

impl Upload {
    /// One of which nothing is there yet.
    pub(super) fn new(total: usize, touched_ms: u64) -> Upload {
        Upload { total, parts: Vec::new(), held: 0, crc: 0, touched_ms }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.parts.push(bytes.into());
        self.count(bytes);
    }

    /// Takes note of a part without keeping it.
    pub(super) fn count(&mut self, bytes: &[u8]) {
        self.held += bytes.len();
        self.crc = crc32c::crc32c_append(self.crc, bytes);
    }

    /// A checksum stands for the parts: the blocks that hold them have checksums of their own.
    pub(super) fn digest(&self, id: &UploadId, digest: &mut Digest) {
        let UploadId { node, start, number } = *id;
        let (total, held) = (self.total as u64, self.held as u64);
        digest.upload(&[u64::from(node), start, number, total, held, self.touched_ms, u64::from(self.crc)]);
    }

    pub(super) fn total(&self) -> usize {
        self.total
    }

    pub(super) fn held(&self) -> usize {
        self.held
    }

    pub(super) fn touched_ms(&self) -> u64 {
        self.touched_ms
    }
}

impl Store {
    /// Executes a command that came in parts.
    pub(super) fn complete(
        &mut self,
        complete: &Complete,
        wanted: bool,
        progress: &mut Progress,
        work: &mut Work,
    ) -> Option<Reply<'static>> {
        if progress.whole.is_none() && progress.assembly.is_none() {
            work.spend(1);
            progress.assembly = self.uploads.take(complete);
            let number = u64::from(progress.assembly.is_some()) << 32 ^ u64::from(complete.crc);
            self.rolling.fold(Change::Uploaded, complete.upload.number, number);
        }
        let whole = match (progress.whole.take(), &mut progress.assembly) {
            (Some(whole), _) => whole,
            (None, None) => return Some(LOST),
            (None, Some(assembly)) => assembly.go_on(work)?,
        };
        let command = match decode(&whole) {
            Ok(command) if command.is_upload() => return Some(unreadable(DecodeError::Nested)),
            Ok(command) => command,
            Err(error) => return Some(unreadable(error)),
        };
        let mut inner = progress.inner.take().unwrap_or_default();
        if let Command::Set(set) = &command {
            // The longest by far: its memory becomes the key's.
            self.begin_command(&mut inner);
            let (reply, expires_at_ms) = self.judge_set(set);
            let (position, key_bytes, value_bytes) = (self.position(set.key), set.key.len(), set.value.len());
            if let Some(expires_at_ms) = expires_at_ms {
                self.put_owned(position, key_and_value(whole, key_bytes, value_bytes), key_bytes, expires_at_ms);
            }
            return Some(reply);
        }
        let reply = self.execute(&command, wanted, &mut inner, work).map(Reply::into_owned);
        if reply.is_none() {
            progress.inner = Some(inner);
            progress.whole = Some(whole);
        }
        reply
    }
}

/// Of the encoding of a SET only the key and the value, one behind the other.
fn key_and_value(mut whole: Vec<u8>, key_bytes: usize, value_bytes: usize) -> Vec<u8> {
    let value = whole.len() - value_bytes;
    let key = value - LENGTH_BYTES - key_bytes;
    whole.copy_within(key..key + key_bytes, value - key_bytes);
    whole.drain(..value - key_bytes);
    whole
}

/// An upload on its way to be one piece of memory again.
#[derive(Debug)]
pub(super) struct Assembly {
    parts: Vec<Arc<[u8]>>,
    next: usize,
    whole: Vec<u8>,
}

impl Assembly {
    /// Goes on as far as `work` goes; the whole, once it is there.
    pub(super) fn go_on(&mut self, work: &mut Work) -> Option<Vec<u8>> {
        while let Some(part) = self.parts.get_mut(self.next) {
            if work.is_spent() {
                return None;
            }
            self.whole.extend_from_slice(part);
            work.spend_bytes(part.len());
            // Its memory is of no use any more, unless a frozen state holds it.
            *part = Arc::new([]);
            self.next += 1;
        }
        Some(std::mem::take(&mut self.whole))
    }
}

/// What stands before a value, in an encoding.
const LENGTH_BYTES: usize = 4;
/// An upload of which no part came for so long, in milliseconds of the group's time, is dropped.
const IDLE_MS_MAX: u64 = 60_000;

const fn error(text: &'static str) -> Reply<'static> {
    Reply::Error(Cow::Borrowed(text))
}
