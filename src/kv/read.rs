//! The reads: every command that a store answers without changing.

use super::command::{Aspect, BadExpiry, Command, Constant, Lifetime, Scan};
use super::directory::KeyPosition;
use super::entry::{Entry, Value};
use super::glob::Pattern;
use super::number;
use super::options::{NOT_AN_INTEGER, invalid_expire};
use super::progress::CommandProgress;
use super::reply::{Reply, TOO_LARGE, listed_bytes};
use super::store::Store;
use super::strings::Strings;
use groups::{Ms, WorkBudget};
use std::borrow::Cow;
use std::cell::Cell;
use std::ops::Range;

/// A store as a reader sees it: at the group's time. The view notes keys that are due by the leader's clock.
pub(super) struct View<'s> {
    store: &'s Store,
    leader_ms: Ms,
    due: Cell<bool>,
}

impl<'s> View<'s> {
    pub(super) fn new(store: &'s Store, leader_ms: Ms) -> View<'s> {
        View { store, leader_ms, due: Cell::new(false) }
    }

    /// Returns true if an answer depended on a key that is due by the leader's clock only.
    pub(super) fn met_due(&self) -> bool {
        self.due.get()
    }

    /// Answers a command that only reads, from the present state. Returns `None` if it needs more than `work`; it then
    /// continues with `progress`. Only commands that walk over the keys are divided so: see [`Command::walks`].
    pub(super) fn answer(
        &self,
        command: &Command<'_>,
        progress: &mut CommandProgress,
        work: &mut WorkBudget,
    ) -> Option<Reply<'s>> {
        use Command as C;
        match command {
            C::Scan(scan) => return Some(self.scan(scan, work)),
            C::Keys(pattern) => return self.keys(pattern, progress, work),
            C::DbSize => return self.size(work),
            C::RandomKey(seed) => return self.random_key(*seed, progress, work),
            C::CountKeysInSlot(slot) => return self.count_in_slot(*slot, progress, work),
            C::KeysInSlot(slot, count) => return self.keys_in_slot(*slot, *count as usize, progress, work),
            C::Exec(commands) => return Some(self.answer_all(commands, work)),
            _ => {}
        }
        let reply = self.answer_keys(command);
        work.spend_bytes(reply.bytes());
        work.spend(match command {
            C::MGet(keys) | C::Exists(keys) => keys.len(),
            _ => 1,
        });
        Some(reply)
    }

    /// Answers a command about the keys that it names.
    fn answer_keys(&self, command: &Command<'_>) -> Reply<'s> {
        use Command as C;
        match command {
            C::Constant(constant) => constant_reply(constant),
            C::Get(key) => self.value(key),
            C::MGet(keys) => self.list(keys.iter().map(|key| self.value(key))),
            C::StrLen(key) => int(self.find(key).map_or(0, |entry| entry.value().len())),
            C::GetRange(key, start, end) => {
                let value = self.find(key).map_or(Value::Short(&[]), Entry::value);
                value.reply_of(range(value.len(), *start, *end))
            }
            C::Exists(keys) => int(keys.iter().filter(|key| self.find(key).is_some()).count()),
            C::Type(key) => Reply::Simple(if self.find(key).is_some() { "string" } else { "none" }),
            C::Ttl(key, lifetime) => self.lifetime(key, *lifetime),
            C::Object(key, aspect) => self.find(key).map_or(Reply::Null, |entry| describe(entry, *aspect)),
            C::GetExRefused(key, why) => self.find(key).map_or(Reply::Null, |_| refusal(*why)),
            _ => Reply::error("ERR a command that writes must go through the log"),
        }
    }

    /// Answers a transaction that only reads. Its commands see one state, so it is not divided.
    fn answer_all(&self, commands: &[Command<'_>], work: &mut WorkBudget) -> Reply<'s> {
        let mut reads = WorkBudget::steps(TRANSACTION_STEPS_MAX);
        let mut answer = |command: &Command<'_>| {
            let is_over = reads.is_spent() && command.walks();
            let answer = if is_over { None } else { self.answer(command, &mut CommandProgress::default(), &mut reads) };
            answer.unwrap_or(TOO_MUCH)
        };
        let reply = self.list(commands.iter().map(&mut answer));
        work.spend((TRANSACTION_STEPS_MAX - reads.left()) as usize);
        reply
    }

    fn list(&self, items: impl Iterator<Item = Reply<'s>>) -> Reply<'s> {
        Reply::list(items, self.store.limits.reply_bytes_max())
    }

    fn find(&self, key: &[u8]) -> Option<&'s Entry> {
        let entry = self.store.entries.find(self.store.position(key), key)?;
        self.is_live(entry).then_some(entry)
    }

    fn is_live(&self, entry: &Entry) -> bool {
        if entry.is_due(self.store.time_ms) {
            return false;
        }
        if entry.is_due(self.leader_ms) {
            self.due.set(true);
        }
        true
    }

    /// Calls `each` with the live entries in order until `each` returns false. Begins at position `from`, or continues
    /// where `progress` stopped. Returns true after the last entry, false if `each` ended the walk, and `None` if the
    /// rest is for another turn. All keys at one position are visited in the same turn.
    fn walk(
        &self,
        from: KeyPosition,
        progress: &mut CommandProgress,
        work: &mut WorkBudget,
        mut each: impl FnMut(&'s Entry, &mut CommandProgress, &mut WorkBudget) -> bool,
    ) -> Option<bool> {
        let from = *progress.cursor.get_or_insert(from);
        let mut last = None;
        for entry in self.store.entries.sorted_from(from) {
            if work.is_spent() && last.is_some_and(|last| last != entry.position) {
                progress.cursor = Some(entry.position);
                return None;
            }
            last = Some(entry.position);
            work.spend(1);
            if self.is_live(entry) && !each(entry, progress, work) {
                return Some(false);
            }
        }
        Some(true)
    }

    /// Returns the maximum bytes of a list. A read inside ONCE runs with unlimited work. Its reply becomes part of the
    /// state, so the limit is then the cluster's, which is equal on all nodes.
    fn listed_bytes_max(&self, work: &WorkBudget) -> usize {
        if work.is_unlimited() { self.store.limits.reply_bytes_max() } else { LISTED_BYTES_MAX }
    }

    fn keys(&self, pattern: &[u8], progress: &mut CommandProgress, work: &mut WorkBudget) -> Option<Reply<'s>> {
        let pattern = progress.pattern.take().unwrap_or_else(|| {
            work.spend(pattern.len() * COMPILE_STEPS);
            Pattern::compile(pattern)
        });
        let bytes_max = self.listed_bytes_max(work);
        let walked = self.walk(KeyPosition(0), progress, work, |entry, progress, work| {
            work.spend(pattern.steps(entry.key().len()) - 1);
            if pattern.matches(entry.key()) {
                progress.found.push(entry.key());
            }
            listed_bytes(&progress.found) <= bytes_max
        });
        progress.pattern = Some(pattern);
        let is_whole = walked?;
        Some(if is_whole { Reply::Strings(std::mem::take(&mut progress.found)) } else { TOO_LARGE })
    }

    fn count_in_slot(&self, slot: u16, progress: &mut CommandProgress, work: &mut WorkBudget) -> Option<Reply<'s>> {
        self.walk(KeyPosition::of_slot(slot), progress, work, |entry, progress, _| {
            let is_inside = entry.position.slot() == slot;
            progress.count += i64::from(is_inside);
            is_inside
        })?;
        Some(Reply::Int(progress.count))
    }

    fn keys_in_slot(
        &self,
        slot: u16,
        count: usize,
        progress: &mut CommandProgress,
        work: &mut WorkBudget,
    ) -> Option<Reply<'s>> {
        let bytes_max = self.listed_bytes_max(work);
        self.walk(KeyPosition::of_slot(slot), progress, work, |entry, progress, _| {
            let is_wanted = entry.position.slot() == slot && progress.found.len() < count;
            if is_wanted {
                progress.found.push(entry.key());
            }
            is_wanted && listed_bytes(&progress.found) <= bytes_max
        })?;
        let found = std::mem::take(&mut progress.found);
        Some(if listed_bytes(&found) <= bytes_max { Reply::Strings(found) } else { TOO_LARGE })
    }

    fn value(&self, key: &[u8]) -> Reply<'s> {
        self.find(key).map_or(Reply::Null, |entry| entry.value().reply())
    }

    fn lifetime(&self, key: &[u8], lifetime: Lifetime) -> Reply<'s> {
        let Some(entry) = self.find(key) else { return Reply::Int(-2) };
        if entry.expires_at_ms() == Ms(0) {
            return Reply::Int(-1);
        }
        let left = entry.expires_at_ms().saturating_sub(self.store.time_ms.max(self.leader_ms));
        let millis = match lifetime {
            Lifetime::Seconds | Lifetime::Millis => left,
            Lifetime::UnixSeconds | Lifetime::UnixMillis => entry.expires_at_ms(),
        };
        let in_seconds = matches!(lifetime, Lifetime::Seconds | Lifetime::UnixSeconds);
        Reply::Int(if in_seconds { millis.0.saturating_add(500) / 1000 } else { millis.0 } as i64)
    }

    fn size(&self, work: &mut WorkBudget) -> Option<Reply<'s>> {
        let (expiry, time_ms) = (&self.store.expiry, self.store.time_ms);
        if expiry.any_between(time_ms, self.leader_ms) {
            self.due.set(true);
        }
        let due = expiry.count_due(time_ms, work)?;
        Some(int(self.store.len() - due))
    }

    fn random_key(&self, seed: u64, progress: &mut CommandProgress, work: &mut WorkBudget) -> Option<Reply<'s>> {
        let Some(skip) = seed.checked_rem(self.store.len() as u64) else { return Some(Reply::Null) };
        let from = self.store.entries.nth(skip as usize).map_or(KeyPosition(0), |entry| entry.position);
        let mut found = None;
        // All keys from there to the last may be due. Then the walk begins again at the first position.
        while progress.done < 2 {
            self.walk(from, progress, work, |entry, _, _| {
                found = Some(entry);
                false
            })?;
            if found.is_some() {
                break;
            }
            progress.done += 1;
            progress.cursor = Some(KeyPosition(0));
        }
        Some(found.map_or(Reply::Null, key_reply))
    }

    /// Returns a page of keys and the cursor of the next page, 0 after the last. Keys with one cursor stay on one page,
    /// so a key that exists throughout is on exactly one page, whatever else happens in between.
    fn scan(&self, scan: &Scan<'_>, work: &mut WorkBudget) -> Reply<'s> {
        let (mut seen, mut last, mut next, mut keys) = (0, 0, 0, Strings::default());
        let pattern = scan.pattern.map(Pattern::compile);
        let mut page = WorkBudget::steps(if work.is_unlimited() { u64::MAX } else { PAGE_STEPS });
        for entry in self.store.entries.sorted_from(KeyPosition::from_cursor(scan.cursor)) {
            let cursor = entry.position.cursor();
            if (seen >= scan.count.max(1) || keys.bytes() >= PAGE_BYTES || page.is_spent()) && cursor != last {
                next = cursor;
                break;
            }
            (seen, last) = (seen + 1, cursor);
            page.spend(pattern.as_ref().map_or(1, |pattern| pattern.steps(entry.key().len())));
            let wanted = scan.strings && pattern.as_ref().is_none_or(|pattern| pattern.matches(entry.key()));
            if wanted && self.is_live(entry) {
                keys.push(entry.key());
            }
        }
        work.spend((PAGE_STEPS.saturating_sub(page.left())) as usize);
        work.spend(scan.pattern.map_or(0, |pattern| pattern.len() * COMPILE_STEPS));
        Reply::Array(vec![Reply::Bulk(Cow::Owned(next.to_string().into_bytes())), Reply::Strings(keys)])
    }
}

/// Bytes of keys at which a page of SCAN is full, whatever its COUNT.
const PAGE_BYTES: usize = 1 << 20;
/// Steps at which a page of SCAN is full, as with a costly pattern and long keys.
const PAGE_STEPS: u64 = 16 << 10;
/// Maximum steps to compile a pattern, per byte.
const COMPILE_STEPS: usize = 2;
/// Maximum bytes of keys, plus 16 per key, that KEYS and the like list: more would take too long to copy in one turn.
pub const LISTED_BYTES_MAX: usize = 64 << 20;
/// Maximum steps of all reads of a transaction that only reads: they see one state, and so are done in one turn.
const TRANSACTION_STEPS_MAX: u64 = 64 << 10;
/// The reply to a read that would exceed such a limit of a transaction.
pub(super) const TOO_MUCH: Reply<'static> =
    Reply::Error(Cow::Borrowed("ERR the transaction reads too much: send KEYS, SCAN and the like outside of MULTI"));

fn constant_reply(constant: &Constant<'_>) -> Reply<'static> {
    match constant {
        Constant::Pong => Reply::Simple("PONG"),
        Constant::Bulk(bytes) => Reply::Bulk(Cow::Owned(bytes.to_vec())),
    }
}

/// Returns the range of a value's bytes that GETRANGE means. `start` and `end` are included, and count from the end if
/// they are negative.
fn range(length: usize, start: i64, end: i64) -> Range<usize> {
    if start < 0 && end < 0 && start > end {
        return 0..0;
    }
    let length = length as i64;
    let from_start = |index: i64| if index < 0 { index.saturating_add(length).max(0) } else { index };
    let (start, end) = (from_start(start), from_start(end).min(length - 1));
    if start > end { 0..0 } else { start as usize..end as usize + 1 }
}

fn describe<'s>(entry: &Entry, aspect: Aspect) -> Reply<'s> {
    match aspect {
        Aspect::Encoding if entry.value().short().and_then(number::integer).is_some() => Reply::text("int"),
        Aspect::Encoding if entry.value().len() <= EMBSTR_BYTES_MAX => Reply::text("embstr"),
        Aspect::Encoding => Reply::text("raw"),
        Aspect::IdleTime => Reply::Int(0),
        Aspect::References => Reply::Int(1),
        Aspect::Frequency => Reply::error(
            "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when \
             switching between policies at runtime LRU and LFU data will take some time to adjust.",
        ),
    }
}

fn refusal(why: BadExpiry) -> Reply<'static> {
    match why {
        BadExpiry::NotAnInteger => NOT_AN_INTEGER,
        BadExpiry::OutOfRange => invalid_expire("getex"),
    }
}

fn key_reply(entry: &Entry) -> Reply<'_> {
    Reply::bulk(entry.key())
}

fn int(number: usize) -> Reply<'static> {
    Reply::Int(number as i64)
}

/// Maximum bytes of a string that Redis keeps in one piece with its header.
const EMBSTR_BYTES_MAX: usize = 44;
