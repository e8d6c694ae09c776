//! Uploads: large commands that come in parts. Each part is a command of its own in the log. So a command of hundreds
//! of megabytes is sent and logged in small pieces, and sent again in small pieces after a failure. Other commands pass
//! between the pieces. The last command of an upload executes the whole.
//!
//! Uploads are part of the state, and bounded. A group drops an upload that its origin seems to have given up: if no
//! part has come for 60 s of the group's time (10 s if another upload needs the room), or if the origin begins an
//! upload with a later start number.

use super::command::Set;
use super::digest::Digest;
use super::encode::{DecodeError, decode};
use super::limits::StoreLimits;
use super::progress::CommandProgress;
use super::reply::Reply;
use super::rolling::Change;
use super::store::{Store, unreadable};
use bytes::Bytes;
use groups::{Ms, WorkBudget};
use std::collections::BTreeMap;

/// The id of an upload: the node that received the command from its client, that node's start number, and its count of
/// uploads.
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
pub struct UploadPart<'a> {
    /// The upload.
    pub upload: UploadId,
    /// The bytes of the whole encoding.
    pub total: u64,
    /// The offset of the part in it; parts come in order.
    pub offset: u64,
    /// The part; never empty.
    pub bytes: &'a [u8],
}

/// The end of an upload, at which the whole is executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complete<'a> {
    /// The upload.
    pub upload: UploadId,
    /// The bytes of the whole.
    pub total: u64,
    /// The CRC-32C of the whole.
    pub crc: u32,
    /// The SET that the whole belongs to. Without it, the whole is the encoding of a command.
    pub set: Option<UploadedSet<'a>>,
}

/// A SET whose key and value, one behind the other, are the whole. The memory of the upload becomes the value's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadedSet<'a> {
    /// The SET, with empty key and value.
    pub set: Set<'a>,
    /// Bytes of the key.
    pub key_bytes: u32,
}

/// The reply to the first part of an upload for which there is no room now.
pub const BUSY: Reply<'static> = Reply::error("TRYAGAIN too many large commands are in flight in this group");
/// The reply to a part or an end of an upload if the upload is unknown here, or if another part is due next.
pub const LOST: Reply<'static> =
    Reply::error("CLUSTERDOWN Hash slot not served: a part of this large command was lost; it was not executed");

/// The uploads of one group.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    known: BTreeMap<UploadId, Upload>,
    /// Bytes that the uploads hold.
    held: usize,
    /// Bytes that they will hold when all parts are there.
    announced: usize,
    /// The frozen uploads that are not written out yet, the first at the end.
    frozen: Vec<FrozenUpload>,
}

/// One upload, as far as it has come.
#[derive(Debug)]
pub(super) struct Upload {
    outline: Outline,
    /// The bytes so far. Memory for the whole is reserved at the first part.
    bytes: Vec<u8>,
}

/// The description of an upload without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outline {
    /// Bytes of the whole.
    pub(super) total: usize,
    /// The group's time of the last part.
    pub(super) touched_ms: Ms,
    /// Bytes that are there.
    held: usize,
    /// The CRC-32C of these bytes.
    crc: u32,
}

/// An upload as it was when the store was frozen.
#[derive(Debug)]
struct FrozenUpload {
    id: UploadId,
    outline: Outline,
    /// Bytes that are written out.
    written: usize,
    /// The frozen bytes, if the upload has ended since. Otherwise they are still in the upload.
    aside: Option<Bytes>,
}

impl Uploads {
    /// Adds a part to its upload; the first part begins the upload.
    pub(super) fn add(&mut self, part: &UploadPart<'_>, time_ms: Ms, limits: &StoreLimits) -> Reply<'static> {
        let UploadPart { upload: id, bytes, .. } = *part;
        let (Ok(total), Ok(offset)) = (usize::try_from(part.total), usize::try_from(part.offset)) else { return LOST };
        let is_within = offset.checked_add(bytes.len()).is_some_and(|end| end <= total);
        if bytes.is_empty() || !is_within || total > limits.upload_bytes_max() {
            return LOST;
        }
        if offset == 0 {
            self.retain(|known, _| known.node != id.node || known.start >= id.start);
            if self.known.contains_key(&id) {
                return LOST;
            }
            if !self.has_room(total, limits) {
                self.forget_idle(time_ms, YIELD_IDLE_MS);
            }
            if !self.has_room(total, limits) {
                return BUSY;
            }
            self.announced += total;
            self.known.insert(id, Upload::new(total, time_ms));
        }
        let follows = |known: &&mut Upload| known.outline.total == total && known.bytes.len() == offset;
        let Some(upload) = self.known.get_mut(&id).filter(follows) else { return LOST };
        upload.outline.touched_ms = time_ms;
        upload.add(bytes);
        self.held += bytes.len();
        Reply::Ok
    }

    /// Removes an upload and returns its bytes, to be executed. Returns `None` if the upload is not whole.
    pub(super) fn take(&mut self, complete: &Complete<'_>) -> Option<Bytes> {
        let (outline, bytes) = self.remove(complete.upload)?;
        let is_whole = outline.held == outline.total && outline.total as u64 == complete.total;
        (is_whole && outline.crc == complete.crc).then_some(bytes)
    }

    pub(super) fn remove(&mut self, id: UploadId) -> Option<(Outline, Bytes)> {
        let Upload { outline, bytes } = self.known.remove(&id)?;
        self.held -= bytes.len();
        self.announced -= outline.total;
        let bytes = Bytes::from(bytes);
        let needs = |frozen: &&mut FrozenUpload| frozen.id == id && frozen.written < frozen.outline.held;
        if let Some(frozen) = self.frozen.iter_mut().find(needs) {
            frozen.aside = Some(bytes.slice(..frozen.outline.held));
        }
        Some((outline, bytes))
    }

    fn has_room(&self, total: usize, limits: &StoreLimits) -> bool {
        let fits = self.announced.saturating_add(total) <= limits.uploads_bytes_max();
        self.known.len() < limits.uploads_max && (fits || self.known.is_empty())
    }

    /// Drops the uploads whose origins are probably gone.
    pub(super) fn forget_abandoned(&mut self, time_ms: Ms) {
        if !self.known.is_empty() {
            self.forget_idle(time_ms, IDLE_MS_MAX);
        }
    }

    /// Drops the uploads whose last part is at least `idle_ms` old.
    fn forget_idle(&mut self, time_ms: Ms, idle_ms: Ms) {
        self.retain(|_, upload| time_ms < upload.outline.touched_ms.saturating_add(idle_ms));
    }

    fn retain(&mut self, stays: impl Fn(&UploadId, &Upload) -> bool) {
        let gone: Vec<UploadId> =
            self.known.iter().filter(|(id, upload)| !stays(id, upload)).map(|(id, _)| *id).collect();
        gone.into_iter().for_each(|id| _ = self.remove(id));
    }

    /// Returns the number of uploads.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Returns the number of bytes that the uploads hold.
    pub(super) fn bytes(&self) -> usize {
        self.held
    }

    pub(super) fn digest(&self, digest: &mut Digest) {
        self.known.iter().for_each(|(id, upload)| upload.outline.digest(id, digest));
    }

    /// Adds a part of the state of another replica.
    pub(super) fn restore(&mut self, id: UploadId, total: usize, touched_ms: Ms, bytes: &[u8]) {
        let announced = &mut self.announced;
        let upload = self.known.entry(id).or_insert_with(|| {
            *announced += total;
            Upload::new(total, touched_ms)
        });
        upload.add(bytes);
        self.held += bytes.len();
    }

    pub(super) fn freeze(&mut self) {
        let frozen = |(id, upload): (&UploadId, &Upload)| FrozenUpload {
            id: *id,
            outline: upload.outline,
            written: 0,
            aside: None,
        };
        self.frozen = self.known.iter().rev().map(frozen).collect();
    }

    pub(super) fn thaw(&mut self) {
        self.frozen = Vec::new();
    }

    /// Feeds the frozen uploads into the digest, before any of them is handed out.
    pub(super) fn digest_frozen(&self, digest: &mut Digest) {
        self.frozen.iter().rev().for_each(|frozen| frozen.outline.digest(&frozen.id, digest));
    }

    /// Hands out the next piece of the frozen state: at most `bytes_max` bytes of one upload.
    pub(super) fn next_frozen(&mut self, bytes_max: usize) -> Option<(UploadId, Outline, &[u8])> {
        self.frozen.pop_if(|frozen| frozen.written == frozen.outline.held);
        let FrozenUpload { id, outline, written, aside } = self.frozen.last_mut()?;
        let bytes = match aside {
            Some(aside) => &aside[..],
            None => &self.known.get(id)?.bytes,
        };
        let from = *written;
        *written = outline.held.min(from + bytes_max.max(1));
        Some((*id, *outline, &bytes[from..*written]))
    }

    /// Returns the bytes that are held only for the frozen state.
    pub(super) fn aside_bytes(&self) -> usize {
        self.frozen.iter().filter_map(|frozen| frozen.aside.as_ref()).map(Bytes::len).sum()
    }
}

impl Upload {
    /// Makes an upload without any part yet.
    fn new(total: usize, touched_ms: Ms) -> Upload {
        Upload { outline: Outline::new(total, touched_ms), bytes: Vec::with_capacity(total) }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.outline.count(bytes);
    }
}

impl Outline {
    pub(super) fn new(total: usize, touched_ms: Ms) -> Outline {
        Outline { total, touched_ms, held: 0, crc: 0 }
    }

    /// Counts a part.
    pub(super) fn count(&mut self, bytes: &[u8]) {
        self.held += bytes.len();
        self.crc = crc32c::crc32c_append(self.crc, bytes);
    }

    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Feeds the upload into a digest. The CRC stands for the upload's bytes: the chunks that hold these bytes in a
    /// checkpoint file have CRCs of their own.
    pub(super) fn digest(&self, id: &UploadId, digest: &mut Digest) {
        let UploadId { node, start, number } = *id;
        let (total, held) = (self.total as u64, self.held as u64);
        digest.upload(&[u64::from(node), start, number, total, held, self.touched_ms.0, u64::from(self.crc)]);
    }
}

impl Store {
    /// Executes a command that came in parts.
    pub(super) fn complete(
        &mut self,
        complete: &Complete<'_>,
        wanted: bool,
        progress: &mut CommandProgress,
        work: &mut WorkBudget,
    ) -> Option<Reply<'static>> {
        let whole = progress.whole.take().or_else(|| {
            let whole = self.uploads.take(complete);
            let number = u64::from(whole.is_some()) << 32 ^ u64::from(complete.crc);
            self.rolling.fold(Change::Uploaded, complete.upload.number, number);
            whole
        });
        let Some(whole) = whole else { return Some(LOST) };
        if let Some(set) = &complete.set {
            work.spend(1);
            return Some(self.set_uploaded(set, &whole, progress));
        }
        let command = match decode(&whole) {
            Ok(command) if command.is_upload() => return Some(unreadable(DecodeError::Nested)),
            Ok(command) => command,
            Err(error) => return Some(unreadable(error)),
        };
        let mut inner = progress.inner.take().unwrap_or_default();
        inner.arguments = Some(whole.clone());
        let reply = self.execute(&command, wanted, &mut inner, work).map(Reply::into_owned);
        if reply.is_none() {
            progress.inner = Some(inner);
            progress.whole = Some(whole);
        }
        reply
    }

    fn set_uploaded(&mut self, set: &UploadedSet<'_>, whole: &Bytes, progress: &mut CommandProgress) -> Reply<'static> {
        let parts = whole.split_at_checked(set.key_bytes as usize);
        let Some((key, value)) = parts else { return unreadable(DecodeError::BadValue) };
        self.begin_command(progress);
        self.set(&Set { key, value, ..set.set }, Some(whole))
    }
}

/// Age of an upload's last part at which the upload is dropped, in milliseconds of the group's time.
const IDLE_MS_MAX: Ms = Ms(60_000);
/// Age of an upload's last part at which it is dropped if another one needs its room, in milliseconds. A live origin
/// sends the next part within its client timeout, 5 s by default.
const YIELD_IDLE_MS: Ms = Ms(10_000);
