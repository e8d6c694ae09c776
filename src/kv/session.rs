//! Sessions: they make a command execute once, even if its client sends it again.
//!
//! `SESSION NEW` answers an id that carries its time of issue, its group, and a keyed checksum: any group can recognize
//! an issued id without having heard of it. A group keeps, per session, the replies to the commands with the last 64
//! numbers. A group may forget a session because of its age or for lack of room. From then on it refuses all commands
//! of this session, because they might be repetitions.

use super::command::Once;
use super::digest::Digest;
use super::frozen::FrozenSessions;
use super::limits::StoreLimits;
use super::reply::Reply;
use super::stored_reply;
use groups::Ms;
use siphasher::sip::SipHasher24;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A session id: birth in unix ms (6 bytes), the first slot of the group that issued it (2), that group's count of
/// sessions (4), a checksum (8); big-endian, so that ids sort by birth. People see 40 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub [u8; 20]);

impl SessionId {
    /// Returns the id that 40 hexadecimal digits stand for.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<SessionId> {
        let mut bytes = [0; 20];
        if text.len() != 2 * bytes.len() {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16);
            *byte = (digit(0)? << 4 | digit(1)?) as u8;
        }
        Some(SessionId(bytes))
    }

    /// Returns the 40 hexadecimal digits.
    #[must_use]
    pub fn text(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Returns the time of issue, in unix ms of its group.
    #[must_use]
    pub fn birth_ms(&self) -> Ms {
        Ms(self.0[..6].iter().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    /// Returns the first slot of the group that issued it.
    #[must_use]
    pub fn slot(&self) -> u16 {
        u16::from_be_bytes([self.0[6], self.0[7]])
    }
}

/// The sessions that one group knows.
#[derive(Debug)]
pub(super) struct Sessions {
    mac: SipHasher24,
    /// The first slot of this group.
    slot: u16,
    pub(super) issued: u32,
    /// Sessions born at this time or before are refused: one of them was forgotten.
    pub(super) floor_ms: Ms,
    /// The sessions by id, and so by birth.
    pub(super) known: BTreeMap<SessionId, Session>,
    bytes: usize,
    /// The number of freezes so far.
    pub(super) freeze: u32,
    pub(super) frozen: Option<Box<FrozenSessions>>,
}

/// The last commands of one session.
#[derive(Clone, Debug, Default)]
pub(super) struct Session {
    /// The highest number seen.
    pub(super) top: u64,
    /// The kept commands, ascending by number.
    pub(super) kept: Vec<StoredReply>,
    pub(super) bytes: usize,
    /// Number of the last freeze when this session was created or last put aside; see `frozen`.
    pub(super) freeze: u32,
}

/// One command of a session, and its reply. A copy shares the reply.
#[derive(Clone, Debug)]
pub(super) struct StoredReply {
    pub(super) number: u64,
    pub(super) fingerprint: u64,
    /// The packed reply; empty if it was too long to keep.
    pub(super) reply: Arc<[u8]>,
}

impl Sessions {
    pub(super) fn new(hash_key: &[u8; 16], slot: u16) -> Sessions {
        let mac = SipHasher24::new_with_key(hash_key);
        Sessions { mac, slot, issued: 0, floor_ms: Ms(0), known: BTreeMap::new(), bytes: 0, freeze: 0, frozen: None }
    }

    /// Issues an id, born after the floor so that it is not refused from the start.
    pub(super) fn issue(&mut self, time_ms: Ms) -> SessionId {
        let birth_ms = time_ms.max(self.floor_ms + Ms(1)).min(BIRTH_MS_MAX);
        self.issued = self.issued.wrapping_add(1);
        let mut id = SessionId([0; 20]);
        id.0[..6].copy_from_slice(&birth_ms.0.to_be_bytes()[2..]);
        id.0[6..8].copy_from_slice(&self.slot.to_be_bytes());
        id.0[8..12].copy_from_slice(&self.issued.to_be_bytes());
        let checksum = checksum(&self.mac, &id);
        id.0[12..].copy_from_slice(&checksum);
        id
    }

    /// Returns the reply if the command must not be executed: the first reply again, or a refusal. `None`: execute it.
    pub(super) fn answer(&self, once: &Once<'_>, time_ms: Ms, limits: &StoreLimits) -> Option<Reply<'static>> {
        let id = &once.session;
        if id.0[12..] != checksum(&self.mac, id) {
            return Some(UNKNOWN);
        }
        let birth_ms = id.birth_ms();
        if birth_ms <= self.floor_ms || is_old(birth_ms, time_ms, limits) {
            return Some(EXPIRED);
        }
        let session = self.known.get(id)?;
        if let Ok(at) = session.kept.binary_search_by_key(&once.number, |kept| kept.number) {
            return Some(session.kept[at].answer(once));
        }
        (session.top.saturating_sub(once.number) >= WINDOW).then_some(EXPIRED)
    }

    /// Keeps the first reply to a command.
    pub(super) fn keep(&mut self, once: &Once<'_>, reply: &Reply<'_>, limits: &StoreLimits) {
        let mut packed = Vec::new();
        stored_reply::pack(reply, &mut packed);
        if packed.len() > limits.session_reply_bytes_max {
            packed = Vec::new();
        }
        let new = StoredReply { number: once.number, fingerprint: once.fingerprint, reply: packed.into() };
        let unknown = Session { freeze: self.freeze, ..Session::default() };
        let session = self.known.entry(once.session).or_insert(unknown);
        if let Some(frozen) = &mut self.frozen {
            frozen.save(&once.session, session);
        }
        self.bytes -= session.bytes;
        session.keep(new);
        self.bytes += session.bytes;
        while self.known.len() > limits.sessions_max || self.bytes > limits.session_bytes_max {
            self.evict();
        }
    }

    /// Forgets sessions that are too old by now, at most `due_per_begin_max` at a time.
    pub(super) fn forget_old(&mut self, time_ms: Ms, limits: &StoreLimits) {
        for _ in 0..limits.due_per_begin_max {
            match self.known.first_key_value() {
                Some((oldest, _)) if is_old(oldest.birth_ms(), time_ms, limits) => self.forget_first(),
                _ => return,
            }
        }
    }

    /// Returns the number of known sessions.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Feeds every session into a digest.
    pub(super) fn digest(&self, digest: &mut Digest) {
        self.known.iter().for_each(|(id, session)| digest.session(id, session));
    }

    /// Adds a session that another replica knew.
    pub(super) fn restore(&mut self, id: SessionId, session: Session) {
        self.bytes += session.bytes;
        self.known.insert(id, session);
    }

    /// Forgets the oldest session, and from now on refuses all sessions that are no younger.
    fn evict(&mut self) {
        let Some((oldest, _)) = self.known.first_key_value() else { return };
        self.floor_ms = self.floor_ms.max(oldest.birth_ms());
        while let Some((id, _)) = self.known.first_key_value()
            && id.birth_ms() <= self.floor_ms
        {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        let Some((id, mut session)) = self.known.pop_first() else { return };
        self.bytes -= session.bytes;
        if let Some(frozen) = &mut self.frozen {
            frozen.save(&id, &mut session);
        }
    }
}

impl Session {
    /// Makes a session from its parts; `None` if no session has such parts.
    pub(super) fn restored(top: u64, kept: Vec<StoredReply>) -> Option<Session> {
        let ascending = kept.is_sorted_by(|a, b| a.number < b.number);
        let (first, last) = (kept.first()?.number, kept.last()?.number);
        if !ascending || first == 0 || last != top || top - first >= WINDOW {
            return None;
        }
        let mut session = Session::default();
        kept.into_iter().for_each(|kept| session.keep(kept));
        Some(session)
    }

    fn keep(&mut self, new: StoredReply) {
        self.top = self.top.max(new.number);
        let at = self.kept.partition_point(|kept| kept.number < new.number);
        self.kept.insert(at, new);
        let outdated = self.kept.partition_point(|kept| self.top - kept.number >= WINDOW);
        self.kept.drain(..outdated);
        let replies: usize = self.kept.iter().map(|kept| kept.reply.len() + KEPT_BYTES).sum();
        self.bytes = SESSION_BYTES + replies;
    }
}

impl StoredReply {
    fn answer(&self, once: &Once<'_>) -> Reply<'static> {
        if self.fingerprint != once.fingerprint {
            return OTHER_COMMAND;
        }
        if self.reply.is_empty() {
            return TOO_LONG;
        }
        stored_reply::unpack(&self.reply).map_or(TOO_LONG, Reply::into_owned)
    }
}

/// Returns the checksum that ends an id.
pub(super) fn checksum(mac: &SipHasher24, id: &SessionId) -> [u8; 8] {
    mac.hash(&id.0[..12]).to_be_bytes()
}

fn is_old(birth_ms: Ms, time_ms: Ms, limits: &StoreLimits) -> bool {
    time_ms.saturating_sub(birth_ms) >= limits.session_ttl_ms
}

/// Numbers of a session that are remembered, counted back from the highest.
const WINDOW: u64 = 64;
const BIRTH_MS_MAX: Ms = Ms((1 << 48) - 1);
/// Approximate bytes of a session beside its kept replies.
const SESSION_BYTES: usize = 128;
/// Approximate bytes that keeping a reply takes in addition to the bytes of the reply.
const KEPT_BYTES: usize = 56;

/// The answer to an id that no group of this cluster issued.
pub(super) const UNKNOWN: Reply<'static> = Reply::error("ERR unknown session: open one with SESSION NEW");
const EXPIRED: Reply<'static> =
    Reply::error("ONCEEXPIRED the command was not executed now, but may have been executed before");
const OTHER_COMMAND: Reply<'static> = Reply::error("ERR this number of the session was used for another command");
const TOO_LONG: Reply<'static> = Reply::error("ERR the command was executed before; its reply was too long to keep");
