//! A state that is written out piece by piece while commands go on changing it.
//!
//! Freezing costs next to nothing: it only raises a number. A new entry or session gets the number of the last freeze.
//! An entry with an older number that is not written out yet is unchanged since the freeze. Its first change puts a
//! copy of this one entry aside, and gives the entry the new number. The same goes for sessions. So a write pays only
//! for what it overwrites. Tables may split, merge and be emptied meanwhile, because writing out continues at a key
//! position, whatever table it is in. A copy put aside is freed when it is written out.

use super::block::{BlockCheck, BlockError, BlockWriter, Sink, end_block, entry_bytes, head_block};
use super::digest::{Digest, Head};
use super::directory::{Directory, KeyPosition};
use super::entry::Entry;
use super::limits::StoreLimits;
use super::rolling::Rolling;
use super::session::{Session, SessionId, Sessions};
use super::store::Store;
use super::uploads::UploadId;
use groups::Ms;
use hashbrown::HashTable;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// The progress of writing out a frozen store.
#[derive(Debug)]
pub(super) struct Frozen {
    head: Head,
    digest: Digest,
    stage: FreezeStage,
    /// True if long values are handed out in pieces.
    divides: bool,
}

/// The part of the state that is written out next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FreezeStage {
    Head,
    Entries,
    Sessions,
    Uploads,
    End,
    Done,
}

impl Store {
    /// Freezes the present state, for [`Store::next_block`] to write out. Takes the same short time for any number of
    /// keys. From now on, the first change of each key or session that is not written out yet costs a copy of it.
    ///
    /// # Panics
    /// If it is frozen already.
    pub fn freeze(&mut self) {
        self.freeze_for(true);
    }

    /// Freezes like [`Store::freeze`]. Without `divides`, every value is handed out whole, because older programs
    /// cannot read pieces.
    ///
    /// # Panics
    /// If it is frozen already.
    pub fn freeze_for(&mut self, divides: bool) {
        assert!(self.frozen.is_none(), "a store is frozen once at a time");
        let head = self.outline();
        self.entries.freeze();
        self.sessions.freeze();
        self.uploads.freeze();
        self.frozen =
            Some(Box::new(Frozen { head, digest: Digest::new(self.hasher), stage: FreezeStage::Head, divides }));
    }

    /// Returns true if the store is frozen.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    /// Returns the next block of the frozen state; `None` after the last, and if the store is not frozen. A block has
    /// about `budget_bytes`. It has more if one key is longer, or if its last session passes the budget. It may be
    /// empty if much was written since the freeze. A long value comes in pieces, one per block, if the freeze allows
    /// pieces. A call takes time in proportion to `budget_bytes` and to one small table.
    pub fn next_block(&mut self, budget_bytes: usize) -> Option<Vec<u8>> {
        let frozen = self.frozen.as_mut()?;
        if frozen.stage == FreezeStage::Head {
            frozen.stage = FreezeStage::Entries;
            return Some(head_block(&frozen.head));
        }
        if frozen.stage == FreezeStage::Entries {
            let mut block = BlockWriter::entries();
            let mut any = false;
            let pieces_of = if frozen.divides { budget_bytes.max(1) } else { usize::MAX };
            let more = self.entries.next_frozen(budget_bytes, pieces_of, &mut |entry, piece| {
                any = true;
                let Some(piece) = piece else {
                    frozen.digest.entry(entry);
                    return block.entry(entry);
                };
                if piece.start == 0 {
                    frozen.digest.begin_entry(entry.key(), entry.expires_at_ms());
                }
                entry.value().slices_of(piece.clone()).for_each(|slice| frozen.digest.piece(slice));
                if piece.end == entry.value().len() {
                    frozen.digest.end_entry();
                }
                block = BlockWriter::piece(entry, piece);
            });
            if !more {
                frozen.digest.head(&frozen.head);
                frozen.stage = FreezeStage::Sessions;
            }
            if any || more {
                return Some(block.finish());
            }
        }
        if frozen.stage == FreezeStage::Sessions {
            let mut block = BlockWriter::sessions();
            let mut any = false;
            let more = self.sessions.next_frozen(budget_bytes, &mut |id, session| {
                frozen.digest.session(id, session);
                block.session(id, session);
                any = true;
            });
            if !more {
                self.uploads.digest_frozen(&mut frozen.digest);
                frozen.stage = FreezeStage::Uploads;
            }
            if any || more {
                return Some(block.finish());
            }
        }
        if frozen.stage == FreezeStage::Uploads {
            if let Some((id, outline, part)) = self.uploads.next_frozen(budget_bytes) {
                return Some(BlockWriter::upload_part(&id, &outline, part).finish());
            }
            frozen.stage = FreezeStage::End;
        }
        if frozen.stage == FreezeStage::Done {
            return None;
        }
        frozen.stage = FreezeStage::Done;
        Some(end_block(frozen.digest.finish()))
    }

    /// Returns the digest that the store had when it was frozen, once the last block is out.
    #[must_use]
    pub fn frozen_digest(&self) -> Option<u64> {
        let frozen = self.frozen.as_ref().filter(|frozen| frozen.stage == FreezeStage::Done)?;
        Some(frozen.digest.finish())
    }

    /// Releases the frozen state, written out or not. Nothing else changes. If it was not written out to its end, this
    /// call frees all that was put aside.
    pub fn thaw(&mut self) {
        self.frozen = None;
        self.entries.thaw();
        self.sessions.thaw();
        self.uploads.thaw();
    }

    /// Returns about how many bytes are held only because the store is frozen.
    #[must_use]
    pub fn aside_bytes(&self) -> usize {
        self.entries.aside_bytes() + self.sessions.aside_bytes() + self.uploads.aside_bytes()
    }

    /// Returns the head: the fields of the whole store, which exist once and not per key or session.
    pub(super) fn outline(&self) -> Head {
        Head {
            slots: self.slots(),
            time_ms: self.time_ms,
            keys: self.len() as u64,
            issued: self.sessions.issued,
            floor_ms: self.sessions.floor_ms,
            sessions: self.sessions.len() as u64,
            rolling: self.rolling.0,
        }
    }
}

/// A store under construction, from the blocks of another.
#[derive(Debug)]
pub struct Installation {
    check: BlockCheck,
    store: Store,
}

impl Installation {
    /// Begins the store of the group that owns `slots`; `hash_key` and `limits` are the cluster's.
    #[must_use]
    pub fn new(hash_key: [u8; 16], slots: Range<u16>, limits: StoreLimits) -> Installation {
        let check = BlockCheck::new(hash_key, slots.clone(), limits.clone());
        Installation { check, store: Store::new(hash_key, slots, limits) }
    }

    /// Installs the next block. Returns true after the last block: the installed state then equals the frozen state.
    ///
    /// # Errors
    /// [`BlockError`]: the block is not sound, or not the next one. The installation is then of no use any more.
    pub fn install_block(&mut self, block: &[u8]) -> Result<bool, BlockError> {
        self.check.read(block, &mut self.store)?;
        Ok(self.check.digest().is_some())
    }

    /// Returns the store, if its last block was installed.
    #[must_use]
    pub fn finish(self) -> Option<Store> {
        self.check.digest().map(|_| self.store)
    }

    /// Returns the store, if its last block was installed and it has this digest.
    #[must_use]
    pub fn finish_as(self, digest: u64) -> Option<Store> {
        if self.check.digest() == Some(digest) { self.finish() } else { None }
    }

    /// Returns the number of keys installed so far.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.check.keys()
    }
}

impl Sink for Store {
    fn head(&mut self, head: &Head) {
        self.time_ms = head.time_ms;
        self.sessions.issued = head.issued;
        self.sessions.floor_ms = head.floor_ms;
        self.rolling = Rolling(head.rolling);
    }

    fn entry(&mut self, entry: Entry) {
        self.count(&entry);
        self.entries.append(entry);
    }

    fn session(&mut self, id: SessionId, session: Session) {
        self.sessions.restore(id, session);
    }

    fn upload_part(&mut self, id: UploadId, total: usize, touched_ms: Ms, part: &[u8]) {
        self.uploads.restore(id, total, touched_ms, part);
    }
}

/// The entries that a frozen directory still has to write out.
#[derive(Debug)]
pub(super) struct FrozenEntries {
    /// The number of this freeze. Entries that carry it were written since.
    number: u32,
    /// All entries below this position are written out; `None`: all entries.
    cursor: Option<KeyPosition>,
    /// Bytes of the value of the entry at the cursor that are written out.
    offset: usize,
    /// Entries as they were at the freeze, all at or behind the cursor.
    aside: BTreeSet<Aside>,
    aside_bytes: usize,
    /// All tables as they were when the directory was emptied; those below the cursor are freed.
    emptied: Option<Directory>,
}

/// An entry, ordered by position and key.
#[derive(Debug)]
struct Aside(Entry);

impl Ord for Aside {
    fn cmp(&self, other: &Aside) -> Ordering {
        self.0.order().cmp(&other.0.order())
    }
}

impl PartialOrd for Aside {
    fn partial_cmp(&self, other: &Aside) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Aside {
    fn eq(&self, other: &Aside) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Aside {}

impl FrozenEntries {
    /// Saves an entry before it is changed or removed.
    pub(super) fn save(&mut self, entry: &mut Entry) {
        if entry.freeze != self.number && self.cursor.is_some_and(|cursor| cursor <= entry.position) {
            self.aside_bytes += aside_bytes(entry);
            self.aside.insert(Aside(entry.clone()));
            entry.freeze = self.number;
        }
    }

    /// Saves an entry that was replaced already. Returns it if it need not be written out.
    pub(super) fn save_replaced(&mut self, entry: Entry) -> Option<Entry> {
        if entry.freeze == self.number || self.cursor.is_none_or(|cursor| cursor > entry.position) {
            return Some(entry);
        }
        self.aside_bytes += aside_bytes(&entry);
        self.aside.insert(Aside(entry));
        None
    }

    /// Takes over the tables of a directory that is emptied. Returns them if none of their entries is still to be
    /// written out. Entries that come into the directory later do not belong to the frozen state.
    pub(super) fn save_all(&mut self, entries: Directory) -> Option<Directory> {
        if self.cursor.is_none() || self.emptied.is_some() {
            return Some(entries);
        }
        self.emptied = Some(entries);
        None
    }
}

impl Directory {
    pub(super) fn freeze(&mut self) {
        self.freeze = self.freeze.wrapping_add(1);
        let (number, cursor, aside) = (self.freeze, Some(KeyPosition(0)), BTreeSet::new());
        self.frozen = Some(Box::new(FrozenEntries { number, cursor, offset: 0, aside, aside_bytes: 0, emptied: None }));
    }

    pub(super) fn thaw(&mut self) {
        self.frozen = None;
    }

    pub(super) fn aside_bytes(&self) -> usize {
        let Some(frozen) = &self.frozen else { return 0 };
        let emptied = frozen.emptied.as_ref().map_or(0, |emptied| emptied.unsorted().map(aside_bytes).sum());
        frozen.aside_bytes + emptied
    }

    /// Hands out the next entries of the frozen state, by position and key: as many as fit `budget_bytes` of a block.
    /// A call hands out at least one entry, or passes at least one table whose entries were all written since the
    /// freeze. Of a value longer than `pieces_of`, hands out one piece. Returns false if these were the last.
    pub(super) fn next_frozen(
        &mut self,
        budget_bytes: usize,
        pieces_of: usize,
        write: &mut impl FnMut(&Entry, Option<Range<usize>>),
    ) -> bool {
        let Some(frozen) = &mut self.frozen else { return false };
        let FrozenEntries { number, cursor, offset, aside, aside_bytes: held_bytes, emptied } = &mut **frozen;
        let was_emptied = emptied.is_some();
        let (firsts, tables) = match emptied {
            Some(emptied) => (&emptied.firsts, &mut emptied.tables),
            None => (&self.firsts, &mut self.tables),
        };
        let (mut spent, mut last) = (0, None);
        while let Some(from) = *cursor {
            let at = firsts.partition_point(|first| *first <= from) - 1; // no underflow: the first table begins at 0
            let end = firsts.get(at + 1).copied();
            let mut unchanged = unchanged(&tables[at], from, *number);
            let skipped = tables[at].len() - unchanged.len();
            loop {
                let saved = aside.first().map(|aside| &aside.0);
                let saved = saved.filter(|entry| end.is_none_or(|end| entry.position < end));
                let (entry, is_saved) = match (unchanged.last().copied(), saved) {
                    (None, None) => break,
                    (Some(entry), Some(saved)) if saved.order() < entry.order() => (saved, true),
                    (Some(entry), _) => (entry, false),
                    (None, Some(saved)) => (saved, true),
                };
                let bytes = entry_bytes(entry);
                // Entries at one position go together, as the cursor cannot stand between them.
                if spent + bytes > budget_bytes && last.is_some_and(|last| last != entry.position) {
                    *cursor = Some(entry.position);
                    return true;
                }
                let value_bytes = entry.value().len();
                let begins = value_bytes > pieces_of && last.is_none() && is_alone(entry, &unchanged, aside);
                if begins || *offset > 0 {
                    let end = value_bytes.min((*offset).saturating_add(pieces_of));
                    write(entry, Some(*offset..end));
                    let position = entry.position;
                    *offset = if end == value_bytes { 0 } else { end };
                    *cursor = Some(if *offset == 0 { KeyPosition(position.0 + 1) } else { position });
                    if is_saved && *offset == 0 {
                        *held_bytes -= aside_bytes(entry);
                        aside.pop_first();
                    }
                    return true;
                }
                spent += bytes;
                last = Some(entry.position);
                write(entry, None);
                if is_saved {
                    *held_bytes -= aside_bytes(entry);
                    aside.pop_first();
                } else {
                    unchanged.pop();
                }
            }
            *cursor = end;
            if was_emptied {
                tables[at] = HashTable::new();
            }
            spent += skipped * SKIPPED_BYTES;
            if spent >= budget_bytes {
                break;
            }
        }
        if cursor.is_none() {
            *emptied = None;
        }
        cursor.is_some()
    }
}

/// Returns the entries of a table, from position `from` on, that were not written since the freeze, in descending
/// order.
fn unchanged(table: &HashTable<Entry>, from: KeyPosition, number: u32) -> Vec<&Entry> {
    let mut entries: Vec<&Entry> =
        table.iter().filter(|entry| entry.freeze != number && entry.position >= from).collect();
    entries.sort_unstable_by(|a, b| b.order().cmp(&a.order()));
    entries
}

/// Returns true if no other entry shares the position of this one, and a next position exists. Only such an entry can
/// be written in pieces: the cursor cannot stand between two entries of one position.
fn is_alone(entry: &Entry, unchanged: &[&Entry], aside: &BTreeSet<Aside>) -> bool {
    let here = |other: &Entry| other.position == entry.position && other.key() != entry.key();
    let saved = aside.iter().map(|aside| &aside.0).take_while(|other| other.position <= entry.position);
    let is_shared = unchanged.iter().rev().take(2).any(|other| here(other)) || saved.into_iter().any(here);
    !is_shared && entry.position.0 < u64::MAX
}

/// Returns the bytes of an entry that is put aside.
fn aside_bytes(entry: &Entry) -> usize {
    entry.len() + size_of::<Entry>()
}

/// Bytes that skipping an entry or session written since the freeze takes from the budget of a block.
const SKIPPED_BYTES: usize = 16;

/// The sessions that are still to be written out.
#[derive(Debug)]
pub(super) struct FrozenSessions {
    /// The number of this freeze. Sessions that carry it were changed since.
    number: u32,
    /// All sessions below this id are written out; `None`: all sessions.
    cursor: Option<SessionId>,
    /// Sessions as they were at the freeze, all at or behind the cursor.
    aside: BTreeMap<SessionId, Session>,
}

impl FrozenSessions {
    /// Saves a session before it is changed or removed.
    pub(super) fn save(&mut self, id: &SessionId, session: &mut Session) {
        if session.freeze != self.number && self.cursor.is_some_and(|cursor| cursor <= *id) {
            self.aside.insert(*id, session.clone());
            session.freeze = self.number;
        }
    }
}

impl Sessions {
    pub(super) fn freeze(&mut self) {
        self.freeze = self.freeze.wrapping_add(1);
        let cursor = Some(SessionId([0; 20]));
        self.frozen = Some(Box::new(FrozenSessions { number: self.freeze, cursor, aside: BTreeMap::new() }));
    }

    pub(super) fn thaw(&mut self) {
        self.frozen = None;
    }

    pub(super) fn aside_bytes(&self) -> usize {
        self.frozen.as_ref().map_or(0, |frozen| frozen.aside.values().map(|session| session.bytes).sum())
    }

    /// Hands out the next sessions of the frozen state, by id, until they reach `budget_bytes`. A call hands out at
    /// least one session, or skips at least one that was changed since the freeze. Returns false if these were the
    /// last.
    pub(super) fn next_frozen(&mut self, budget_bytes: usize, write: &mut impl FnMut(&SessionId, &Session)) -> bool {
        let Some(frozen) = &mut self.frozen else { return false };
        let FrozenSessions { number, cursor, aside } = &mut **frozen;
        let Some(from) = *cursor else { return false };
        let mut known = self.known.range(from..).peekable();
        let (mut spent, mut any) = (0, false);
        loop {
            let saved = aside.first_key_value().map(|(id, _)| *id);
            let (id, is_saved) = match (known.peek().map(|(id, _)| **id), saved) {
                (None, None) => break,
                (Some(id), Some(saved)) if saved < id => (saved, true),
                (Some(id), _) => (id, false),
                (None, Some(saved)) => (saved, true),
            };
            if any && spent >= budget_bytes {
                *cursor = Some(id);
                return true;
            }
            any = true;
            if is_saved {
                let Some((id, session)) = aside.pop_first() else { break };
                spent += session.bytes;
                write(&id, &session);
                continue;
            }
            let Some((id, session)) = known.next() else { break };
            if session.freeze == *number {
                spent += SKIPPED_BYTES;
                continue;
            }
            spent += session.bytes;
            write(id, session);
        }
        *cursor = None;
        false
    }
}
