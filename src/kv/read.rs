//! What only reads: every command that answers from a store without changing it.

use super::command::{Aspect, BadExpiry, Command, Constant, Lifetime, Scan};
use super::directory::Position;
use super::entry::Entry;
use super::glob;
use super::number;
use super::options::{NOT_AN_INTEGER, invalid_expire};
use super::reply::Reply;
use super::store::Store;
use std::borrow::Cow;
use std::cell::Cell;

/// A store as a reader sees it: at the group's time, with an eye on what the leader's clock says is due.
pub(super) struct View<'s> {
    store: &'s Store,
    leader_ms: u64,
    due: Cell<bool>,
}

impl<'s> View<'s> {
    pub(super) fn new(store: &'s Store, leader_ms: u64) -> View<'s> {
        View { store, leader_ms, due: Cell::new(false) }
    }

    /// Whether an answer depended on a key that is due by the leader's clock only.
    pub(super) fn met_due(&self) -> bool {
        self.due.get()
    }

    /// The answer to a command that only reads.
    pub(super) fn answer(&self, command: &Command<'_>) -> Reply<'s> {
        use Command as C;
        match command {
            C::Constant(constant) => constant_reply(constant),
            C::Get(key) => self.value(key),
            C::MGet(keys) => self.list(keys.iter().map(|key| self.value(key))),
            C::StrLen(key) => int(self.find(key).map_or(0, |entry| entry.value().len())),
            C::GetRange(key, start, end) => {
                let value = self.find(key).map_or(&[][..], |entry| entry.value());
                Reply::bulk(range(value, *start, *end))
            }
            C::Exists(keys) => int(keys.iter().filter(|key| self.find(key).is_some()).count()),
            C::Type(key) => Reply::Simple(if self.find(key).is_some() { "string" } else { "none" }),
            C::Ttl(key, lifetime) => self.lifetime(key, *lifetime),
            C::Object(key, aspect) => self.find(key).map_or(Reply::Null, |entry| describe(entry, *aspect)),
            C::GetExRefused(key, why) => self.find(key).map_or(Reply::Null, |_| refusal(*why)),
            C::Scan(scan) => self.scan(scan),
            C::Keys(pattern) => {
                let matching = self.live_from(Position(0)).filter(|entry| glob::matches(pattern, entry.key()));
                self.list(matching.map(key_reply))
            }
            C::DbSize => self.size(),
            C::RandomKey(seed) => self.random_key(*seed),
            C::CountKeysInSlot(slot) => int(self.in_slot(*slot).count()),
            C::KeysInSlot(slot, count) => self.list(self.in_slot(*slot).take(*count as usize).map(key_reply)),
            C::Exec(commands) => self.list(commands.iter().map(|command| self.answer(command))),
            _ => Reply::error("ERR a command that writes must go through the log"),
        }
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

    fn live_from(&self, from: Position) -> impl Iterator<Item = &'s Entry> {
        self.store.entries.sorted_from(from).filter(|entry| self.is_live(entry))
    }

    fn in_slot(&self, slot: u16) -> impl Iterator<Item = &'s Entry> {
        self.live_from(Position::of_slot(slot)).take_while(move |entry| entry.position.slot() == slot)
    }

    fn value(&self, key: &[u8]) -> Reply<'s> {
        self.find(key).map_or(Reply::Null, |entry| Reply::bulk(entry.value()))
    }

    fn lifetime(&self, key: &[u8], lifetime: Lifetime) -> Reply<'s> {
        let Some(entry) = self.find(key) else { return Reply::Int(-2) };
        if entry.expires_at_ms == 0 {
            return Reply::Int(-1);
        }
        let left = entry.expires_at_ms.saturating_sub(self.store.time_ms.max(self.leader_ms));
        let millis = match lifetime {
            Lifetime::Seconds | Lifetime::Millis => left,
            Lifetime::UnixSeconds | Lifetime::UnixMillis => entry.expires_at_ms,
        };
        let in_seconds = matches!(lifetime, Lifetime::Seconds | Lifetime::UnixSeconds);
        Reply::Int(if in_seconds { millis.saturating_add(500) / 1000 } else { millis } as i64)
    }

    fn size(&self) -> Reply<'s> {
        let (expiry, time_ms) = (&self.store.expiry, self.store.time_ms);
        if expiry.any_between(time_ms, self.leader_ms) {
            self.due.set(true);
        }
        int(self.store.len() - expiry.count_due(time_ms))
    }

    fn random_key(&self, seed: u64) -> Reply<'s> {
        let Some(skip) = seed.checked_rem(self.store.len() as u64) else { return Reply::Null };
        let from = self.store.entries.nth(skip as usize).map_or(Position(0), |entry| entry.position);
        // The keys found there may be due, all of them up to the last: then from the start.
        let found = self.live_from(from).next().or_else(|| self.live_from(Position(0)).next());
        found.map_or(Reply::Null, key_reply)
    }

    /// A page of keys and the cursor of the next, 0 behind the last. Keys with one cursor stay on one page, so a key
    /// that is there throughout is on exactly one page, whatever else happens in between.
    fn scan(&self, scan: &Scan<'_>) -> Reply<'s> {
        let (mut seen, mut last, mut next, mut keys, mut bytes) = (0, 0, 0, Vec::new(), 0);
        for entry in self.store.entries.sorted_from(Position::from_cursor(scan.cursor)) {
            let cursor = entry.position.cursor();
            if (seen >= scan.count.max(1) || bytes >= PAGE_BYTES) && cursor != last {
                next = cursor;
                break;
            }
            (seen, last) = (seen + 1, cursor);
            let wanted = scan.strings && scan.pattern.is_none_or(|pattern| glob::matches(pattern, entry.key()));
            if wanted && self.is_live(entry) {
                bytes += entry.key().len();
                keys.push(key_reply(entry));
            }
        }
        Reply::Array(vec![Reply::Bulk(Cow::Owned(next.to_string().into_bytes())), Reply::Array(keys)])
    }
}

/// A page of SCAN that holds so many bytes of keys is full, whatever the count asked for.
const PAGE_BYTES: usize = 1 << 20;

fn constant_reply(constant: &Constant<'_>) -> Reply<'static> {
    match constant {
        Constant::Pong => Reply::Simple("PONG"),
        Constant::Bulk(bytes) => Reply::Bulk(Cow::Owned(bytes.to_vec())),
    }
}

/// The bytes from `start` to `end`, both included and counted from the end if negative.
fn range(value: &[u8], start: i64, end: i64) -> &[u8] {
    if start < 0 && end < 0 && start > end {
        return &[];
    }
    let length = value.len() as i64;
    let from_start = |index: i64| if index < 0 { index.saturating_add(length).max(0) } else { index };
    let (start, end) = (from_start(start), from_start(end).min(length - 1));
    if start > end { &[] } else { &value[start as usize..=end as usize] }
}

fn describe<'s>(entry: &Entry, aspect: Aspect) -> Reply<'s> {
    match aspect {
        Aspect::Encoding if number::integer(entry.value()).is_some() => Reply::text("int"),
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

/// The longest string that Redis keeps in one piece with its header.
const EMBSTR_BYTES_MAX: usize = 44;
