//! The hash by which replicas, copies and checkpoints are compared. It is fed piece by piece, so that a large state
//! need not stand still for it. It does not depend on how the state came about.

use super::entry::Entry;
use super::session::{Session, SessionId};
use groups::Ms;
use siphasher::sip::SipHasher13;
use std::hash::Hasher as _;
use std::ops::Range;

/// The fields that a store has once, beside its keys and sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The slots of the group.
    pub(super) slots: Range<u16>,
    pub(super) time_ms: Ms,
    /// The number of keys.
    pub(super) keys: u64,
    /// See [`Sessions`](super::session::Sessions).
    pub(super) issued: u32,
    pub(super) floor_ms: Ms,
    /// The number of known sessions.
    pub(super) sessions: u64,
    /// The digest over all changes so far; see [`Rolling`](super::rolling::Rolling). [`Digest`] leaves it out: that
    /// hash does not depend on how a state came about.
    pub(super) rolling: u64,
}

/// A digest under construction: all entries, then the head, then the sessions by id, then the uploads.
#[derive(Clone, Debug)]
pub(super) struct Digest {
    keyed: SipHasher13,
    /// The sum of the hashes of the entries: a sum does not depend on their order.
    sum: u64,
    rest: SipHasher13,
    /// The hash of the entry that is fed in pieces.
    piece: SipHasher13,
}

impl Digest {
    pub(super) fn new(keyed: SipHasher13) -> Digest {
        Digest { keyed, sum: 0, rest: keyed, piece: keyed }
    }

    pub(super) fn entry(&mut self, entry: &Entry) {
        self.begin_entry(entry.key(), entry.expires_at_ms());
        entry.value().slices().for_each(|slice| self.piece(slice));
        self.end_entry();
    }

    /// Begins an entry. The pieces of its value follow in order, and then [`Digest::end_entry`].
    pub(super) fn begin_entry(&mut self, key: &[u8], expires_at_ms: Ms) {
        self.piece = self.keyed;
        self.piece.write_u64(key.len() as u64);
        self.piece.write(key);
        self.piece.write_u64(expires_at_ms.0);
    }

    pub(super) fn piece(&mut self, piece: &[u8]) {
        self.piece.write(piece);
    }

    pub(super) fn end_entry(&mut self) {
        self.sum = self.sum.wrapping_add(self.piece.finish());
    }

    pub(super) fn head(&mut self, head: &Head) {
        self.rest.write_u64(self.sum);
        self.rest.write_u64(head.keys);
        self.rest.write_u64(head.time_ms.0);
        self.rest.write_u32(head.issued);
        self.rest.write_u64(head.floor_ms.0);
    }

    pub(super) fn session(&mut self, id: &SessionId, session: &Session) {
        self.rest.write(&id.0);
        self.rest.write_u64(session.top);
        for kept in &session.kept {
            self.rest.write_u64(kept.number);
            self.rest.write_u64(kept.fingerprint);
            self.rest.write_u64(kept.reply.len() as u64);
            self.rest.write(&kept.reply);
        }
    }

    /// Feeds the words that identify an upload and its content. Uploads come last, by id.
    pub(super) fn upload(&mut self, words: &[u64]) {
        words.iter().for_each(|word| self.rest.write_u64(*word));
    }

    pub(super) fn finish(&self) -> u64 {
        self.rest.finish()
    }
}
