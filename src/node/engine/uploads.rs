//! Large commands of this node's clients in flight to the log. They go in parts (`kv/uploads`), so that a value of
//! the log is never larger than a few parts. Other commands pass between the parts, a lost message or a new leader
//! costs only a part, and no part that the group took is ever sent twice.
//!
//! Parts are sent as earlier ones are applied, within one limit for all uploads. An upload ends with the command that
//! executes the whole. Before that command is queued, it is certain that nothing was executed.

use super::commands::UNCOUNTED;
use super::{Engine, Ports, RequestContext};
use crate::config::{NodeConfig, UPLOAD_PARTS_MIN, UPLOAD_PARTS_SENT, UPLOAD_RETRY_MS};
use crate::identity::Identity;
use crate::kv::command::{Command, Set};
use crate::kv::encode::{encode, encode_shared};
use crate::kv::fanout::NOT_SERVED;
use crate::kv::long_value::shared_word;
use crate::kv::reply::Reply;
use crate::kv::uploads::{BUSY, Complete, UploadId, UploadPart, UploadedSet};
use crate::node::Time;
use crate::node::ticket::Ticket;
use bytes::Bytes;
use groups::{GroupId, Ms};
use std::borrow::Cow;
use std::collections::VecDeque;

/// The uploads of this node's clients.
pub(super) struct OutgoingUploads {
    part_bytes: usize,
    /// The newest upload.
    newest: UploadId,
    /// Uploads with parts that are not sent yet; they take turns.
    outgoing: VecDeque<Outgoing>,
    /// Bytes of the parts that are not sent yet.
    unsent_bytes: usize,
    /// Bytes of parts that are sent, and not applied yet.
    sent_bytes: usize,
    /// The time limit of an upload in milliseconds. It counts from the last part that was applied.
    limit_ms: Ms,
}

/// A large command of which parts are not sent yet.
struct Outgoing {
    id: UploadId,
    group: GroupId,
    body: Body,
    sent: usize,
    /// The CRC-32C of the parts that are sent.
    crc: u32,
    /// The first part was applied: the others follow.
    is_admitted: bool,
    /// The earliest time of the next attempt, after the group had no room.
    retry_ms: Ms,
    /// The upload is given up if no part is applied before this time.
    deadline_ms: Ms,
    failed: Option<Reply<'static>>,
    grows: bool,
    context: RequestContext,
}

/// The bytes of an upload, in pieces so that long words are not copied. For a SET, the pieces are its key and value,
/// and `set` holds the rest of it.
struct Body {
    pieces: Vec<Bytes>,
    set: Option<Set<'static>>,
}

impl Body {
    /// Creates the body of a command whose words are parts of the buffer `request`.
    fn of(command: &Command<'_>, request: &Bytes) -> Body {
        let Command::Set(set) = command else {
            return Body { pieces: encode_shared(command, request), set: None };
        };
        let Set { key, value, only_if, answer, expiry } = *set;
        let value = shared_word(value, request).unwrap_or_else(|| Bytes::copy_from_slice(value));
        let set = Set { key: b"", value: b"", only_if, answer, expiry };
        Body { pieces: vec![Bytes::copy_from_slice(key), value], set: Some(set) }
    }

    fn len(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    fn part(&self, from: usize, to: usize) -> Cow<'_, [u8]> {
        let (mut start, mut part) = (0, Cow::Borrowed(&[][..]));
        for piece in &self.pieces {
            let offset = |at: usize| at.saturating_sub(start).min(piece.len());
            let slice = &piece[offset(from)..offset(to)];
            start += piece.len();
            if part.is_empty() {
                part = Cow::Borrowed(slice);
            } else if !slice.is_empty() {
                part.to_mut().extend_from_slice(slice);
            }
        }
        part
    }

    fn complete(&self, upload: UploadId, crc: u32) -> Complete<'_> {
        let key_bytes = self.pieces[0].len() as u32;
        let set = self.set.map(|set| UploadedSet { set, key_bytes });
        Complete { upload, total: self.len() as u64, crc, set }
    }
}

impl OutgoingUploads {
    pub(super) fn new(identity: &Identity, config: &NodeConfig) -> OutgoingUploads {
        OutgoingUploads {
            part_bytes: config.part_bytes,
            newest: UploadId { node: identity.node.0, start: identity.start, number: 0 },
            outgoing: VecDeque::new(),
            unsent_bytes: 0,
            sent_bytes: 0,
            limit_ms: config.client_timeout_ms,
        }
    }

    /// Returns true if a command whose request has `bytes` goes in parts.
    pub(super) fn takes(&self, bytes: usize) -> bool {
        bytes >= UPLOAD_PARTS_MIN * self.part_bytes
    }

    /// Returns the bytes that wait to be sent.
    pub(super) fn unsent_bytes(&self) -> usize {
        self.unsent_bytes
    }

    /// Returns the bytes of one group that wait to be sent.
    pub(super) fn unsent_bytes_in(&self, group: GroupId) -> usize {
        let outgoing = self.outgoing.iter().filter(|outgoing| outgoing.group == group);
        outgoing.map(|outgoing| outgoing.body.len() - outgoing.sent).sum()
    }

    /// Returns true if a part can be sent, or a failed upload can be given up, at once.
    pub(super) fn can_send(&self, now_ms: Ms) -> bool {
        self.has_room() && self.outgoing.iter().any(|outgoing| outgoing.is_ready(now_ms))
    }

    fn has_room(&self) -> bool {
        self.sent_bytes < UPLOAD_PARTS_SENT * self.part_bytes
    }

    /// Takes the reply to a part: the part was applied, or an error says that it failed or that its fate is unknown.
    pub(super) fn on_part(&mut self, number: u64, bytes: usize, reply: &Reply<'_>, now_ms: Ms) {
        self.sent_bytes -= bytes;
        // A missing upload was given up, or its last command is queued. That command checks that all parts came.
        let Some(outgoing) = self.outgoing.iter_mut().find(|outgoing| outgoing.id.number == number) else {
            return;
        };
        match reply {
            Reply::Error(_) if *reply == BUSY => {
                (outgoing.sent, outgoing.crc, outgoing.retry_ms) = (0, 0, now_ms + UPLOAD_RETRY_MS);
                self.unsent_bytes += bytes;
            }
            Reply::Error(_) => outgoing.failed = Some(NOT_SERVED),
            _ => {
                outgoing.is_admitted = true;
                outgoing.deadline_ms = now_ms + self.limit_ms;
            }
        }
    }
}

impl Outgoing {
    fn is_ready(&self, now_ms: Ms) -> bool {
        self.failed.is_some() || ((self.is_admitted || self.sent == 0) && self.retry_ms <= now_ms)
    }
}

/// The space that an upload needs.
#[derive(Clone, Copy, Debug)]
pub(in crate::node) struct UploadNeeds {
    /// Bytes of the whole command, and of the next part.
    pub(in crate::node) bytes: usize,
    pub(in crate::node) part_bytes: usize,
    /// The whole command may add data.
    pub(in crate::node) grows: bool,
}

impl Engine {
    /// Returns true if a command whose request has `bytes` goes in parts.
    pub(in crate::node) fn takes_upload(&self, bytes: usize) -> bool {
        self.uploads.takes(bytes)
    }

    /// Returns the bytes of large commands that wait to be sent.
    #[cfg(test)]
    pub(in crate::node) fn unsent_bytes(&self) -> usize {
        self.uploads.unsent_bytes()
    }

    /// Begins the upload of a large command whose words are parts of the buffer `request`.
    pub(in crate::node) fn upload(
        &mut self,
        group: GroupId,
        command: &Command<'_>,
        request: &Bytes,
        context: RequestContext,
        deadline_ms: Ms,
    ) {
        let body = Body::of(command, request);
        let uploads = &mut self.uploads;
        uploads.newest.number += 1;
        uploads.unsent_bytes += body.len();
        uploads.outgoing.push_back(Outgoing {
            id: uploads.newest,
            group,
            body,
            sent: 0,
            crc: 0,
            is_admitted: false,
            retry_ms: Ms(0),
            deadline_ms,
            failed: None,
            grows: command.grows(),
            context,
        });
    }

    /// Sends parts of each upload in turn while there is room. Gives up uploads that failed or are refused.
    pub(in crate::node) fn feed_uploads(&mut self, ports: &mut impl Ports, time: Time) {
        for _ in 0..self.uploads.outgoing.len() {
            if !self.uploads.has_room() {
                return;
            }
            let Some(mut outgoing) = self.uploads.outgoing.pop_front() else { return };
            if let Some(refusal) = outgoing.failed.take() {
                self.give_up(&outgoing, refusal, ports, time);
            } else if !outgoing.is_ready(time.mono_ms()) {
                self.uploads.outgoing.push_back(outgoing);
            } else if let Some(refusal) = self.upload_refusal(&outgoing, ports) {
                self.give_up(&outgoing, refusal, ports, time);
            } else {
                self.send_part(outgoing, time);
            }
        }
    }

    /// Gives up uploads that failed, are past their deadlines, or whose group refuses them now. `limit_ms` is the time
    /// limit from now on.
    pub(in crate::node) fn tick_uploads(&mut self, limit_ms: Ms, ports: &mut impl Ports, time: Time) {
        self.uploads.limit_ms = limit_ms;
        for _ in 0..self.uploads.outgoing.len() {
            let Some(mut outgoing) = self.uploads.outgoing.pop_front() else { return };
            let late = (outgoing.deadline_ms <= time.mono_ms()).then_some(NOT_SERVED);
            match outgoing.failed.take().or(late).or_else(|| self.upload_refusal(&outgoing, ports)) {
                Some(refusal) => self.give_up(&outgoing, refusal, ports, time),
                None => self.uploads.outgoing.push_back(outgoing),
            }
        }
    }

    fn upload_refusal(&self, outgoing: &Outgoing, ports: &impl Ports) -> Option<Reply<'static>> {
        if !self.shard.has(outgoing.group) {
            return Some(NOT_SERVED);
        }
        let part_bytes = self.uploads.part_bytes;
        let needs = UploadNeeds { bytes: outgoing.body.len(), part_bytes, grows: outgoing.grows };
        ports.upload_refusal(self, outgoing.group, needs)
    }

    fn send_part(&mut self, mut outgoing: Outgoing, time: Time) {
        let Outgoing { id, group, sent, .. } = outgoing;
        let end = outgoing.body.len().min(sent + self.uploads.part_bytes);
        let total = outgoing.body.len() as u64;
        let bytes = outgoing.body.part(sent, end);
        outgoing.crc = crc32c::crc32c_append(outgoing.crc, &bytes);
        let part = UploadPart { upload: id, total, offset: sent as u64, bytes: &bytes };
        let bytes = end - sent;
        let ticket = Ticket::Upload { number: id.number, bytes: bytes as u32 };
        let context = RequestContext { ticket, verb: UNCOUNTED, since_us: time.mono_us };
        let deadline_ms = time.mono_ms() + self.uploads.limit_ms;
        let command = Command::UploadPart(part);
        self.queue(group, |out| encode(&command, out), context, deadline_ms);
        outgoing.sent = end;
        self.uploads.sent_bytes += bytes;
        self.uploads.unsent_bytes -= bytes;
        if end < outgoing.body.len() {
            return self.uploads.outgoing.push_back(outgoing);
        }
        let command = Command::UploadComplete(Box::new(outgoing.body.complete(id, outgoing.crc)));
        self.queue(group, |out| encode(&command, out), outgoing.context, deadline_ms);
    }

    /// Gives up an upload and answers its client. Nothing of the upload was executed, or will be.
    fn give_up(&mut self, outgoing: &Outgoing, refusal: Reply<'static>, ports: &mut impl Ports, time: Time) {
        let Outgoing { id, group, context, .. } = *outgoing;
        self.uploads.unsent_bytes -= outgoing.body.len() - outgoing.sent;
        if outgoing.sent > 0 && self.shard.has(group) {
            self.submit_unanswered(group, |out| encode(&Command::UploadAbort(id), out), time);
        }
        ports.answer(context, refusal);
    }
}
