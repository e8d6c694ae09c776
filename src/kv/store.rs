//! The state machine of one group: keys, their expiry, sessions, and the group's own time.
//!
//! The state is a function of the chosen values alone. It depends on no clock, no random number and no iteration order
//! of a map. Each value brings the time (`begin`). A key that is due by that time is absent, whether it was removed yet
//! or not. Reads are in `read.rs`, writes in `write.rs`.

use super::command::{Command, SetAnswer};
use super::digest::Digest;
use super::directory::{Directory, KeyPosition};
use super::encode::{DecodeError, decode, first_key};
use super::entry::Entry;
use super::expiry::Expiry;
use super::frozen::Frozen;
use super::limits::StoreLimits;
use super::progress::CommandProgress;
use super::read::View;
use super::reply::Reply;
use super::rolling::{Change, Rolling};
use super::session::Sessions;
use super::uploads::Uploads;
use crate::routing;
use groups::{LOOK_AHEAD_MAX, Ms, WorkBudget};
use siphasher::sip::SipHasher13;
use std::ops::Range;

/// The outcome of a read of a key that is due by the leader's clock, but not yet by the group's time. The read waits
/// for an instance that carries that time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpiryPending;

/// One group's part of the database.
#[derive(Debug)]
pub struct Store {
    pub(super) hasher: SipHasher13,
    slots: Range<u16>,
    pub(super) limits: StoreLimits,
    pub(super) entries: Directory,
    pub(super) expiry: Expiry,
    pub(super) sessions: Sessions,
    pub(super) uploads: Uploads,
    pub(super) time_ms: Ms,
    /// Heap bytes of all keys and values.
    pub(super) heap_bytes: usize,
    /// Keys removed because they were due.
    expired: u64,
    /// Maximum length of any key or value so far, in bytes.
    pub(super) longest: usize,
    /// The rolling digest, which every change updates.
    pub(super) rolling: Rolling,
    /// The frozen state that is being written out; see `frozen`.
    pub(super) frozen: Option<Box<Frozen>>,
    /// The progress of the command that is being applied over several turns.
    running: Option<CommandProgress>,
    pub(super) discarded: Vec<Discarded>,
}

/// The memory of flushed keys, or of an entry that a long value replaced, to be freed outside the store.
pub struct Discarded {
    _memory: Box<dyn Send>,
}

impl Discarded {
    pub(super) fn new(memory: impl Send + 'static) -> Discarded {
        Discarded { _memory: Box::new(memory) }
    }
}

impl std::fmt::Debug for Discarded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Discarded")
    }
}

impl Store {
    /// Makes an empty store of a group that owns `slots`. `hash_key` and `limits` are the cluster's.
    #[must_use]
    pub fn new(hash_key: [u8; 16], slots: Range<u16>, limits: StoreLimits) -> Store {
        Store {
            hasher: SipHasher13::new_with_key(&hash_key),
            sessions: Sessions::new(&hash_key, slots.start),
            slots,
            limits,
            entries: Directory::new(),
            expiry: Expiry::default(),
            uploads: Uploads::default(),
            time_ms: Ms(0),
            heap_bytes: 0,
            expired: 0,
            longest: 0,
            rolling: Rolling::default(),
            frozen: None,
            running: None,
            discarded: Vec::new(),
        }
    }

    /// Begins a chosen value: the group's time becomes `time_ms`, or stays if that is earlier. Removes some of the due
    /// keys, old sessions and abandoned uploads.
    pub fn begin(&mut self, time_ms: Ms) {
        self.time_ms = self.time_ms.max(time_ms);
        self.remove_due(self.limits.due_per_begin_max);
        self.sessions.forget_old(self.time_ms, &self.limits);
        self.uploads.forget_abandoned(self.time_ms);
        let counts = (self.sessions.len() as u64) << 40 ^ (self.uploads.len() as u64) << 56 ^ self.len() as u64;
        self.rolling.fold(Change::Begin, self.time_ms.0, counts);
    }

    /// Executes an encoded command of a chosen value, read or write.
    pub fn apply(&mut self, body: &[u8]) -> Reply<'_> {
        match decode(body) {
            Ok(command) => self.execute_whole(&command),
            Err(error) => unreadable(error),
        }
    }

    /// Executes a decoded command without a limit of work.
    pub(super) fn execute_whole(&mut self, command: &Command<'_>) -> Reply<'_> {
        let reply = self.execute(command, true, &mut CommandProgress::default(), &mut WorkBudget::unlimited());
        reply.unwrap_or_else(|| unreachable!("unlimited work is never spent"))
    }

    /// Reads the entries of the first keys of these commands from memory, for many commands at a time, so that the
    /// processor waits for them together and not one after the other. Changes nothing.
    pub fn look_ahead<'b>(&self, bodies: impl Iterator<Item = &'b [u8]>) {
        let mut positions = [KeyPosition(0); LOOK_AHEAD_MAX];
        let mut count = 0;
        for key in bodies.filter_map(first_key).take(LOOK_AHEAD_MAX) {
            positions[count] = self.position(key);
            count += 1;
        }
        if count > 1 {
            self.entries.touch(&positions[..count]);
        }
    }

    /// Executes an encoded command as far as `work` goes. `None`: it is not done, and continues when this is called
    /// again with the same body. If `wanted` is false, nobody gets the reply, so its content does not matter.
    pub fn apply_some(&mut self, body: &[u8], wanted: bool, work: &mut WorkBudget) -> Option<Reply<'_>> {
        work.spend_bytes(body.len());
        let command = match decode(body) {
            Ok(command) => command,
            Err(error) => return Some(unreadable(error)),
        };
        let mut progress = self.running.take().unwrap_or_default();
        // A reply borrows from the store, and an unfinished command keeps its progress there: only commands that finish
        // at once may borrow.
        if !matches!(
            command,
            Command::Del(_)
                | Command::MSet(_)
                | Command::MSetNx(_)
                | Command::Once(_)
                | Command::Exec(_)
                | Command::UploadComplete(_)
        ) && !command.walks()
        {
            return self.execute(&command, wanted, &mut progress, work);
        }
        let reply = self.execute(&command, wanted, &mut progress, work).map(Reply::into_owned);
        if reply.is_none() {
            self.running = Some(progress);
        }
        reply
    }

    /// Answers an encoded command that only reads, as of now. `leader_ms` is the leader's clock.
    ///
    /// # Errors
    /// [`ExpiryPending`]: the answer depends on a key that is due by `leader_ms`, but not yet by the group's time.
    pub fn read(&self, body: &[u8], leader_ms: Ms) -> Result<Reply<'_>, ExpiryPending> {
        let (mut progress, mut work) = (CommandProgress::default(), WorkBudget::unlimited());
        let reply = self.read_some(body, leader_ms, &mut progress, &mut work)?;
        Ok(reply.unwrap_or_else(|| unreachable!("unlimited work is never spent")))
    }

    /// Reads as far as `work` goes. `None`: the read is not done. The next call continues it with `progress`, and reads
    /// the state as it is then.
    ///
    /// # Errors
    /// As for [`Store::read`]; the read then has to begin anew.
    pub fn read_some(
        &self,
        body: &[u8],
        leader_ms: Ms,
        progress: &mut CommandProgress,
        work: &mut WorkBudget,
    ) -> Result<Option<Reply<'_>>, ExpiryPending> {
        let command = match decode(body) {
            Ok(command) => command,
            Err(error) => return Ok(Some(unreadable(error))),
        };
        let view = View::new(self, leader_ms);
        let reply = view.answer(&command, progress, work);
        if view.met_due() { Err(ExpiryPending) } else { Ok(reply) }
    }

    /// Takes the discarded memory out of the store. The caller frees it where freeing may take long.
    pub fn take_discarded(&mut self) -> Vec<Discarded> {
        std::mem::take(&mut self.discarded)
    }

    /// Returns about how many bytes the answer to a command would hold now, or 0 if they are few.
    #[must_use]
    pub fn expected_bytes(&self, command: &Command<'_>) -> usize {
        use Command as C;
        let value = |key: &[u8]| self.entries.find(self.position(key), key).map_or(0, |entry| entry.value().len());
        let one = |key: &[u8]| if self.longest < LONG_BYTES { 0 } else { value(key) };
        let keys = |count: usize| if count < LISTED_MIN { 0 } else { count.min(self.len()) * KEY_BYTES };
        match command {
            C::Get(key) | C::GetRange(key, ..) | C::GetDel(key) | C::GetEx(key, _) => one(key),
            C::Set(set) if set.answer == SetAnswer::OldValue => one(set.key),
            C::MGet(keys) if keys.len().saturating_mul(self.longest) < LONG_BYTES => 0,
            C::MGet(keys) if keys.len() > LOOKED_UP_MAX => keys.len().saturating_mul(self.longest),
            C::MGet(keys) => keys.iter().map(|key| value(key)).sum(),
            C::Keys(_) => keys(usize::MAX),
            C::Scan(scan) => keys(scan.count as usize),
            C::KeysInSlot(_, count) => keys(*count as usize),
            C::Once(once) => self.expected_bytes(&once.command),
            C::Exec(commands) => commands.iter().map(|command| self.expected_bytes(command)).sum(),
            _ => 0,
        }
    }

    /// Returns the earliest expiry of any key, in unix ms.
    #[must_use]
    pub fn next_due_ms(&self) -> Option<Ms> {
        self.expiry.first().map(|(at_ms, _)| at_ms)
    }

    /// Returns the number of keys, including those that are due but not removed yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns the number of keys that expire.
    #[must_use]
    pub fn expiring(&self) -> usize {
        self.expiry.len()
    }

    /// Returns the number of due keys that were removed since the store was made.
    #[must_use]
    pub fn expired(&self) -> u64 {
        self.expired
    }

    /// Returns true if there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the bytes of memory of keys, values, their expiry, kept replies and uploads: about as much as the
    /// process grows by. The number differs between replicas, and must not reach a reply that is logged.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.heap_bytes + self.entries.bytes() + self.expiry.bytes() + self.sessions.bytes() + self.uploads.bytes()
    }

    /// Returns the slots whose keys belong here.
    #[must_use]
    pub fn slots(&self) -> Range<u16> {
        self.slots.clone()
    }

    /// Returns the group's time, in unix ms.
    #[must_use]
    pub fn time_ms(&self) -> Ms {
        self.time_ms
    }

    /// Returns a hash of the whole state: equal on replicas that applied the same values, however they came by the
    /// state.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut digest = Digest::new(self.hasher);
        self.entries.unsorted().for_each(|entry| digest.entry(entry));
        digest.head(&self.outline());
        self.sessions.digest(&mut digest);
        self.uploads.digest(&mut digest);
        digest.finish()
    }

    /// Returns a hash of every change that was ever made: equal on replicas at the same instance. Unlike
    /// [`Store::digest`] it costs nothing to get, and a copy of the store continues it.
    #[must_use]
    pub fn rolling_digest(&self) -> u64 {
        self.rolling.0
    }

    /// Returns the position of a key of this cluster.
    pub(super) fn position(&self, key: &[u8]) -> KeyPosition {
        KeyPosition::new(routing::slot(key), self.hasher.hash(key))
    }

    /// Removes due keys in the order of time and position, for up to `count` different pairs of time and position.
    pub(super) fn remove_due(&mut self, count: usize) {
        for _ in 0..count {
            let Some((at_ms, position)) = self.expiry.first().filter(|(at_ms, _)| *at_ms <= self.time_ms) else {
                return;
            };
            // Remove all keys that share time and position, so that their order cannot matter.
            while let Some(entry) = self.entries.remove_where(position, |entry| entry.expires_at_ms() == at_ms) {
                self.forget(&entry);
                self.expired += 1;
            }
        }
    }

    /// Updates digest, expiry index and heap bytes for an entry that left the directory.
    pub(super) fn forget(&mut self, entry: &Entry) {
        self.rolling.key(Change::Removed, entry.position, entry.expires_at_ms().0 ^ (entry.len() as u64) << 48);
        self.expiry.change(entry.position, entry.expires_at_ms(), Ms(0));
        self.heap_bytes -= entry.heap_bytes();
    }
}

pub(super) fn unreadable(error: DecodeError) -> Reply<'static> {
    Reply::Error(format!("ERR {error}").into())
}

/// `expected_bytes` returns 0 for values that cannot reach this many bytes. Short replies need no estimate, because the
/// number of a client's replies is bounded, too.
const LONG_BYTES: usize = 16 << 10;
/// Maximum keys of an MGET whose values are looked up for their length. With more keys, each value is assumed to be as
/// long as the longest.
const LOOKED_UP_MAX: usize = 1_024;
/// `expected_bytes` also returns 0 for a list of fewer keys than this.
const LISTED_MIN: usize = 100;
/// Assumed bytes of a listed key: most keys are about as long.
const KEY_BYTES: usize = 40;
