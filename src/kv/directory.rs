//! The keys of one group in order of position: a sorted directory of small hash tables.
//!
//! A position is a key's slot followed by bits of a keyed hash, so the keys of one slot are adjacent. SCAN, slot
//! commands and checkpoints can walk the keys piece by piece, from any position on, while the store changes. A lookup
//! is a binary search for the table and one probe in it. A table that outgrows its limit is split in two; the directory
//! is never rehashed as a whole. The boundaries of the tables depend on history, so they never influence a reply.

use super::entry::Entry;
use super::frozen::FrozenEntries;
use groups::LOOK_AHEAD_MAX;
use groups::Ms;
use hashbrown::HashTable;

/// The place of a key in the order: 14 bits of slot, then 49 bits of a keyed hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyPosition(pub u64);

impl KeyPosition {
    /// The first position of a slot. For slot 16384, which does not exist, it is the position after the last slot.
    #[must_use]
    pub fn of_slot(slot: u16) -> KeyPosition {
        KeyPosition(u64::from(slot) << HASH_BITS)
    }

    /// The position of a key of `slot` with this hash.
    #[must_use]
    pub fn new(slot: u16, hash: u64) -> KeyPosition {
        KeyPosition(u64::from(slot) << HASH_BITS | hash >> (64 - HASH_BITS))
    }

    /// The slot.
    #[must_use]
    pub fn slot(self) -> u16 {
        (self.0 >> HASH_BITS) as u16
    }

    /// The SCAN cursor that continues at this position. A cursor leaves out the lowest 10 bits, so that it fits into
    /// the 53 bits that the numbers of every client hold exactly. SCAN never stops between two keys with the same
    /// cursor.
    #[must_use]
    pub fn cursor(self) -> u64 {
        self.0 >> CURSOR_SHIFT
    }

    /// The position at which a SCAN cursor continues.
    #[must_use]
    pub fn from_cursor(cursor: u64) -> KeyPosition {
        KeyPosition(cursor.min(KeyPosition::CURSOR_MAX) << CURSOR_SHIFT)
    }

    /// The highest cursor.
    pub const CURSOR_MAX: u64 = (1 << (SLOT_BITS + HASH_BITS - CURSOR_SHIFT)) - 1;
}

const SLOT_BITS: u32 = 14;
const HASH_BITS: u32 = 49;
const CURSOR_SHIFT: u32 = 10;

/// The place for a missing key: the number of the table that would hold it. Valid until the directory changes.
#[derive(Debug)]
pub(super) struct Gap(usize);

/// The entries of one group.
#[derive(Debug)]
pub(super) struct Directory {
    /// The first position of each table; the first of all is 0.
    pub(super) firsts: Vec<KeyPosition>,
    pub(super) tables: Vec<HashTable<Entry>>,
    length: usize,
    /// Bytes of memory of the tables, without the keys and values that their entries point to.
    table_bytes: usize,
    /// Number of times that the directory was frozen.
    pub(super) freeze: u32,
    pub(super) frozen: Option<Box<FrozenEntries>>,
}

impl Directory {
    pub(super) fn new() -> Directory {
        let (firsts, tables) = (vec![KeyPosition(0)], vec![HashTable::new()]);
        Directory { firsts, tables, length: 0, table_bytes: 0, freeze: 0, frozen: None }
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Bytes of memory of the directory, without the keys and values that the entries point to.
    pub(super) fn bytes(&self) -> usize {
        self.table_bytes + (self.tables.len() - 1) * (size_of::<KeyPosition>() + size_of::<HashTable<Entry>>())
    }

    pub(super) fn find(&self, position: KeyPosition, key: &[u8]) -> Option<&Entry> {
        self.tables[self.table_at(position)].find(hash(position), same(position, key))
    }

    /// Reads the entries at the first [`LOOK_AHEAD_MAX`] positions, if there are any, from memory. The reads do not
    /// depend on each other, so the processor overlaps them: first those of the tables, then those of the keys.
    pub(super) fn touch(&self, positions: &[KeyPosition]) {
        let mut found = [None; LOOK_AHEAD_MAX];
        for (slot, position) in found.iter_mut().zip(positions) {
            *slot = self.tables[self.table_at(*position)].find(hash(*position), |entry| entry.position == *position);
        }
        let first = |entry: &Entry| entry.key().first().copied();
        std::hint::black_box(found.iter().flatten().filter_map(|entry| first(entry)).fold(0, u8::wrapping_add));
    }

    /// The entry of a key, to be changed.
    pub(super) fn find_mut(&mut self, position: KeyPosition, key: &[u8]) -> Option<&mut Entry> {
        self.place(position, key).ok()
    }

    /// The entry of a key, to be changed, or the gap for a new entry of this key.
    pub(super) fn place(&mut self, position: KeyPosition, key: &[u8]) -> Result<&mut Entry, Gap> {
        let at = self.table_at(position);
        let table = &mut self.tables[at];
        let bucket = table.find_bucket_index(hash(position), same(position, key)).ok_or(Gap(at))?;
        let Some(entry) = table.get_bucket_mut(bucket) else { unreachable!("it was just found there") };
        if let Some(frozen) = &mut self.frozen {
            frozen.save(entry);
        }
        Ok(entry)
    }

    /// Replaces the entry with the same key. Returns the old entry's expiry, its bytes on the heap, and the old entry
    /// itself unless a frozen state needs it. If there is no such entry, returns the gap and the new entry.
    pub(super) fn replace(&mut self, mut entry: Entry) -> Result<(Ms, usize, Option<Entry>), (Gap, Entry)> {
        let at = self.table_at(entry.position);
        let table = &mut self.tables[at];
        let Some(bucket) = table.find_bucket_index(hash(entry.position), same(entry.position, entry.key())) else {
            return Err((Gap(at), entry));
        };
        let Some(place) = table.get_bucket_mut(bucket) else { unreachable!("it was just found there") };
        entry.freeze = self.freeze;
        let old = std::mem::replace(place, entry);
        let (expires_at_ms, heap_bytes) = (old.expires_at_ms(), old.heap_bytes());
        let old = match &mut self.frozen {
            Some(frozen) => frozen.save_replaced(old),
            None => Some(old),
        };
        Ok((expires_at_ms, heap_bytes, old))
    }

    /// Adds an entry whose key is not there yet.
    pub(super) fn insert(&mut self, entry: Entry) {
        self.fill(Gap(self.table_at(entry.position)), entry);
    }

    /// Adds an entry to the gap that a lookup of its key returned. The directory must not have changed since then.
    pub(super) fn fill(&mut self, Gap(mut at): Gap, mut entry: Entry) {
        entry.freeze = self.freeze;
        debug_assert_eq!(at, self.table_at(entry.position), "it is the gap of this entry");
        debug_assert!(self.find(entry.position, entry.key()).is_none(), "the key was looked for first");
        // Split before the table is full: another entry would double its memory. A table whose keys are all at one
        // position cannot be split, so a split is tried only at multiples of the limit.
        let length = self.tables[at].len();
        if length >= TABLE_ENTRIES_MAX && length.is_multiple_of(TABLE_ENTRIES_MAX) {
            self.split(at);
            at = self.table_at(entry.position);
        }
        let before = self.tables[at].allocation_size();
        self.tables[at].insert_unique(hash(entry.position), entry, rehash);
        self.table_bytes += self.tables[at].allocation_size() - before;
        self.length += 1;
    }

    /// Adds an entry that sorts after all others. Fills the tables one after the other, and splits none.
    pub(super) fn append(&mut self, mut entry: Entry) {
        entry.freeze = self.freeze;
        let Some(table) = self.tables.last_mut() else { unreachable!("there is always a table") };
        debug_assert!(table.iter().all(|other| other.order() < entry.order()), "entries come in order");
        self.length += 1;
        let hash = hash(entry.position);
        if table.len() < TABLE_ENTRIES_APPENDED || table.find(hash, |other| other.position == entry.position).is_some()
        {
            let before = table.allocation_size();
            table.insert_unique(hash, entry, rehash);
            self.table_bytes += table.allocation_size() - before;
            return;
        }
        self.firsts.push(entry.position);
        let mut table = HashTable::with_capacity(TABLE_ENTRIES_MAX);
        table.insert_unique(hash, entry, rehash);
        self.table_bytes += table.allocation_size();
        self.tables.push(table);
    }

    pub(super) fn remove(&mut self, position: KeyPosition, key: &[u8]) -> Option<Entry> {
        self.remove_where(position, |entry| entry.key() == key)
    }

    /// Removes one entry at `position` that `chosen` picks.
    pub(super) fn remove_where(&mut self, position: KeyPosition, chosen: impl Fn(&Entry) -> bool) -> Option<Entry> {
        let at = self.table_at(position);
        let found = self.tables[at].find_entry(hash(position), |entry| entry.position == position && chosen(entry));
        let (mut entry, _) = found.ok()?.remove();
        if let Some(frozen) = &mut self.frozen {
            frozen.save(&mut entry);
        }
        self.length -= 1;
        if self.tables[at].is_empty() {
            self.drop_table(at);
        }
        Some(entry)
    }

    /// Removes all entries. Returns them unless a frozen state still has to write them out.
    pub(super) fn clear(&mut self) -> Option<Directory> {
        let mut old = std::mem::replace(self, Directory::new());
        self.freeze = old.freeze;
        self.frozen = old.frozen.take();
        match &mut self.frozen {
            Some(frozen) => frozen.save_all(old),
            None => Some(old),
        }
    }

    /// The entries from `from` on, by position and then key. Costs a sort per table that is reached.
    pub(super) fn sorted_from(&self, from: KeyPosition) -> impl Iterator<Item = &Entry> {
        self.tables[self.table_at(from)..].iter().flat_map(move |table| {
            let mut entries: Vec<&Entry> = table.iter().filter(|entry| entry.position >= from).collect();
            entries.sort_unstable_by(|a, b| a.order().cmp(&b.order()));
            entries
        })
    }

    /// The entries in no particular order, for sums over all of them.
    pub(super) fn unsorted(&self) -> impl Iterator<Item = &Entry> {
        self.tables.iter().flat_map(HashTable::iter)
    }

    /// The entry that comes after `skip` others in the order of position and key.
    pub(super) fn nth(&self, mut skip: usize) -> Option<&Entry> {
        for (table, &first) in self.tables.iter().zip(&self.firsts) {
            if skip < table.len() {
                return self.sorted_from(first).nth(skip);
            }
            skip -= table.len();
        }
        None
    }

    /// The table that holds `position`.
    fn table_at(&self, position: KeyPosition) -> usize {
        self.firsts.partition_point(|first| *first <= position) - 1 // the first of all is 0
    }

    /// Cuts a table in two at the highest bit in which its positions differ.
    fn split(&mut self, at: usize) {
        let positions = || self.tables[at].iter().map(|entry| entry.position.0);
        let (Some(low), Some(high)) = (positions().min(), positions().max()) else { return };
        if low == high {
            return;
        }
        let bit = (low ^ high).ilog2();
        let middle = KeyPosition(high >> bit << bit);
        // Both halves are new tables: a removed entry leaves a tombstone, and tombstones make a table double its memory
        // later.
        let mut lower = HashTable::with_capacity(TABLE_ENTRIES_MAX);
        let mut upper = HashTable::with_capacity(TABLE_ENTRIES_MAX);
        for entry in self.tables[at].drain() {
            let half = if entry.position < middle { &mut lower } else { &mut upper };
            half.insert_unique(hash(entry.position), entry, rehash);
        }
        self.table_bytes += lower.allocation_size() + upper.allocation_size() - self.tables[at].allocation_size();
        self.tables[at] = lower;
        self.firsts.insert(at + 1, middle);
        self.tables.insert(at + 1, upper);
    }

    /// Drops an empty table. Its range goes to the table before it, or to the next one if it is the first.
    fn drop_table(&mut self, at: usize) {
        self.table_bytes -= self.tables[at].allocation_size();
        if self.tables.len() == 1 {
            self.tables[0] = HashTable::new();
            return;
        }
        self.tables.remove(at);
        self.firsts.remove(at);
        self.firsts[0] = KeyPosition(0);
    }
}

/// The hash of a position inside a table. The positions of a table share their highest bits. hashbrown picks the bucket
/// by the lowest bits of a hash, and compares the highest ones, so a multiplication spreads the differing bits over
/// both.
fn hash(position: KeyPosition) -> u64 {
    position.0.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn rehash(entry: &Entry) -> u64 {
    hash(entry.position)
}

fn same<'k>(position: KeyPosition, key: &'k [u8]) -> impl Fn(&Entry) -> bool + 'k {
    move |entry| entry.position == position && entry.key() == key
}

/// Entries of a full table, which the next entry splits: as many as hashbrown puts into 512 buckets.
const TABLE_ENTRIES_MAX: usize = 448;
/// Entries of a table at which [`Directory::append`] begins the next one. A quarter stays free for later entries.
const TABLE_ENTRIES_APPENDED: usize = TABLE_ENTRIES_MAX * 3 / 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(position: u64) -> Entry {
        entry_named(position, &position.to_le_bytes())
    }

    fn entry_named(position: u64, key: &[u8]) -> Entry {
        Entry::new(KeyPosition(position), key, b"", Ms(0))
    }

    /// Positions that are spread unevenly: most share a slot.
    fn positions(count: u64) -> impl Iterator<Item = u64> {
        (0..count).map(|n| (n % 7).saturating_sub(5) << 60 | n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20)
    }

    fn check(directory: &Directory) {
        assert!(directory.firsts.is_sorted() && directory.firsts[0] == KeyPosition(0));
        assert_eq!(directory.firsts.len(), directory.tables.len());
        assert_eq!(directory.tables.iter().map(HashTable::allocation_size).sum::<usize>(), directory.table_bytes);
        assert_eq!(directory.tables.iter().map(HashTable::len).sum::<usize>(), directory.length);
        for (at, table) in directory.tables.iter().enumerate() {
            assert!(table.iter().all(|entry| directory.table_at(entry.position) == at));
            assert!(!table.is_empty() || directory.tables.len() == 1);
        }
    }

    #[test]
    fn tables_split_and_merge_away_and_keep_every_entry() {
        let mut directory = Directory::new();
        positions(20_000).for_each(|position| directory.insert(entry(position)));
        check(&directory);
        assert!(directory.tables.len() > 40);
        assert!(directory.tables.iter().all(|table| table.len() <= TABLE_ENTRIES_MAX));
        assert!(positions(20_000).all(|p| directory.find(KeyPosition(p), &p.to_le_bytes()).is_some()));
        let mut sorted: Vec<u64> = positions(20_000).collect();
        sorted.sort_unstable();
        assert!(directory.sorted_from(KeyPosition(0)).map(|entry| entry.position.0).eq(sorted.iter().copied()));
        let from = sorted[12_345];
        assert!(
            directory.sorted_from(KeyPosition(from)).map(|entry| entry.position.0).eq(sorted[12_345..].iter().copied())
        );
        assert_eq!(directory.nth(777).map(|entry| entry.position.0), Some(sorted[777]));
        assert_eq!(directory.nth(20_000), None);
        for position in positions(20_000) {
            assert!(directory.remove(KeyPosition(position), &position.to_le_bytes()).is_some());
        }
        check(&directory);
        assert_eq!((directory.len(), directory.tables.len()), (0, 1));
    }

    #[test]
    fn keys_at_one_position_stay_together_and_apart() {
        let mut directory = Directory::new();
        for n in 0..2_000_u32 {
            directory.insert(entry_named(1 << 40, &n.to_be_bytes()));
        }
        directory.insert(entry(1));
        check(&directory);
        assert!(directory.find(KeyPosition(1 << 40), &1_999_u32.to_be_bytes()).is_some());
        assert!(directory.find(KeyPosition(1 << 40), b"no").is_none());
        assert_eq!(directory.sorted_from(KeyPosition(2)).nth(5).unwrap().key(), 5_u32.to_be_bytes());
    }

    #[test]
    fn appended_entries_fill_tables_that_split_as_others_do() {
        let mut sorted: Vec<u64> = positions(5_000).collect();
        sorted.sort_unstable();
        let mut directory = Directory::new();
        sorted.iter().for_each(|position| directory.append(entry(*position)));
        for n in 0..2_000_u32 {
            directory.append(entry_named(u64::MAX, &n.to_be_bytes()));
        }
        check(&directory);
        assert_eq!(directory.tables.len(), 5_000_usize.div_ceil(TABLE_ENTRIES_APPENDED), "the last holds one position");
        assert!(
            directory.sorted_from(KeyPosition(0)).map(|entry| entry.position.0).take(5_000).eq(sorted.iter().copied())
        );
        (1..5_000).for_each(|n| directory.insert(entry_named(n << 40 | 1, b"other")));
        check(&directory);
        assert!(directory.find(KeyPosition(77 << 40 | 1), b"other").is_some());
        assert!(sorted.iter().all(|p| directory.find(KeyPosition(*p), &p.to_le_bytes()).is_some()));
    }

    #[test]
    fn a_cursor_is_a_position_in_53_bits() {
        assert_eq!(KeyPosition::CURSOR_MAX, (1 << 53) - 1);
        let position = KeyPosition::new(16383, u64::MAX);
        assert_eq!((position.slot(), position.cursor()), (16383, KeyPosition::CURSOR_MAX));
        assert!(KeyPosition::from_cursor(position.cursor()) <= position);
        assert_eq!(KeyPosition::from_cursor(KeyPosition::of_slot(77).cursor()), KeyPosition::of_slot(77));
    }
}
