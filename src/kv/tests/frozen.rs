//! Writing a state out while it changes, and reading it back.

use super::{Db, HASH_KEY, START_MS};
use crate::kv::block::{BlockWriter, end_block, head_block};
use crate::kv::{BlockCheck, BlockError, Installation, KeyPosition, Store, StoreLimits};
use crate::rng::Rng;
use crate::routing::SLOTS;
use groups::Ms;
use proptest::prelude::*;

/// Returns limits with few sessions, so that sessions are evicted while the store is frozen.
fn limits() -> StoreLimits {
    StoreLimits { sessions_max: 12, session_ttl_ms: Ms(5_000), session_reply_bytes_max: 64, ..StoreLimits::default() }
}

/// A source of random commands over a few keys, some of them in sessions.
struct Traffic {
    rng: Rng,
    keys: u64,
    sessions: Vec<String>,
}

impl Traffic {
    fn new(seed: u64, keys: u64) -> Traffic {
        Traffic { rng: Rng::new(seed), keys, sessions: Vec::new() }
    }

    fn key(&mut self) -> String {
        // Some keys share a slot, and so a part of the directory.
        let number = self.rng.below(self.keys);
        if number.is_multiple_of(3) { format!("{{t}}{number}") } else { format!("k{number}") }
    }

    fn command(&mut self) -> String {
        let (key, other, number) = (self.key(), self.key(), self.rng.below(1_000));
        match self.rng.below(16) {
            0..=2 => format!("SET {key} v{number}"),
            3 => format!("SET {key} {} PX {}", "x".repeat(number as usize), number + 1),
            4 => format!("APPEND {key} {number}"),
            5 => format!("SETRANGE {key} {} yy", number / 50),
            6..=8 => format!("DEL {key}"),
            9 => format!("INCRBY {key} {number}"),
            10 => format!("PEXPIRE {key} {number}"),
            11 => format!("PERSIST {key}"),
            12 => format!("RENAME {key} {key}x"),
            13 => format!("GETDEL {other}"),
            14 => format!("GETEX {key} PX {}", number + 1),
            _ => format!("MSET {key} a {key}y b"),
        }
    }

    fn step(&mut self, dbs: &mut [&mut Db]) {
        let pick = self.rng.below(1_000);
        if pick < 20 {
            let ms = self.rng.below(300);
            return dbs.iter_mut().for_each(|db| db.pass(Ms(ms)));
        }
        let request = match pick {
            20 => "FLUSHALL".to_owned(),
            21..40 => "SESSION NEW".to_owned(),
            40..240 if !self.sessions.is_empty() => {
                let at = self.rng.below(self.sessions.len() as u64) as usize;
                let (number, command) = (self.rng.below(100) + 1, self.command());
                format!("ONCE {} {number} {command}", self.sessions[at])
            }
            _ => self.command(),
        };
        let replies: Vec<String> = dbs.iter_mut().map(|db| db.ask(&request)).collect();
        assert!(replies.windows(2).all(|two| two[0] == two[1]), "{request}: {replies:?}");
        if request == "SESSION NEW" {
            self.sessions.push(replies[0].trim_matches('"').to_owned());
        }
    }
}

fn full(seed: u64, keys: u64) -> (Db, Traffic) {
    let (mut db, mut traffic) = (Db::with(limits()), Traffic::new(seed, keys));
    for _ in 0..8 {
        traffic.sessions.push(db.ask("SESSION NEW").trim_matches('"').to_owned());
    }
    (0..keys * 2).for_each(|_| traffic.step(&mut [&mut db]));
    (db, traffic)
}

fn all_blocks(store: &mut Store, budget_bytes: usize) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| store.next_block(budget_bytes)).collect()
}

fn install(blocks: &[Vec<u8>]) -> Result<Store, BlockError> {
    let mut installation = Installation::new(HASH_KEY, 0..SLOTS, limits());
    let mut whole = false;
    for block in blocks {
        assert!(!whole, "a block behind the last");
        whole = installation.install_block(block)?;
    }
    installation.finish().ok_or(BlockError::OutOfTurn)
}

/// Freezes a store, executes more commands after each block, and compares the state in the blocks with the frozen
/// state.
fn write_out_and_compare(seed: u64, keys: u64, budget_bytes_max: u64, steps_max: u64) {
    let (mut db, mut traffic) = full(seed, keys);
    for _ in 0..2 {
        let (digest, now_ms) = (db.store.digest(), db.now_ms);
        let mut replay = Traffic { rng: Rng::new(0), keys, sessions: traffic.sessions.clone() };
        let (mut blocks, mut since) = (Vec::new(), Vec::new());
        db.store.freeze();
        loop {
            let budget_bytes = traffic.rng.below(budget_bytes_max) as usize + 1;
            let Some(block) = db.store.next_block(budget_bytes) else { break };
            blocks.push(block);
            for _ in 0..traffic.rng.below(steps_max) {
                since.push(traffic.rng.clone());
                traffic.step(&mut [&mut db]);
            }
        }
        assert_eq!(db.store.frozen_digest(), Some(digest), "seed {seed}");
        assert_eq!(db.store.aside_bytes(), 0, "seed {seed}: no copy is left after the last block");
        db.store.thaw();
        let store = install(&blocks).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(store.digest(), digest, "seed {seed}");
        // Repeating the commands since the freeze leads to the same state.
        let mut copy = Db { store, now_ms };
        for rng in since {
            replay.rng = rng;
            replay.step(&mut [&mut copy]);
        }
        assert_eq!(copy.store.digest(), db.store.digest(), "seed {seed}");
        assert_eq!(
            (copy.store.len(), copy.store.expiring(), copy.store.sessions.bytes()),
            (db.store.len(), db.store.expiring(), db.store.sessions.bytes())
        );
        (0..200).for_each(|_| traffic.step(&mut [&mut db, &mut copy]));
        assert_eq!(copy.store.digest(), db.store.digest(), "seed {seed}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn what_comes_out_is_the_state_at_the_freeze(
        seed: u64, keys in 1..1_500_u64, budget_bytes_max in 1..6_000_u64, steps_max in 1..400_u64,
    ) {
        write_out_and_compare(seed, keys, budget_bytes_max, steps_max);
    }

    #[test]
    fn replicas_have_one_rolling_digest_and_one_that_did_something_else_another(seed: u64, at in 1..300_usize) {
        let ((mut one, mut traffic), (mut other, _)) = (full(seed, 20), full(seed, 20));
        for step in 0..300 {
            traffic.step(&mut [&mut one, &mut other]);
            prop_assert_eq!(one.store.rolling_digest() == other.store.rolling_digest(), step < at);
            if step + 1 == at {
                other.store.begin(other.now_ms);
            }
        }
    }

    #[test]
    fn a_damaged_block_is_refused_or_makes_the_same_state(seed: u64, at: prop::sample::Index, bit in 0..8_u32) {
        let (mut db, _) = full(seed, 40);
        let digest = db.store.digest();
        db.store.freeze();
        let mut blocks = all_blocks(&mut db.store, 500);
        let damaged = at.index(blocks.len());
        let byte = at.index(blocks[damaged].len());
        blocks[damaged][byte] ^= 1 << bit;
        if let Ok(store) = install(&blocks) {
            assert_eq!(store.digest(), digest);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(blocks: Vec<Vec<u8>>, kind in 1..5_u8) {
        let mut check = BlockCheck::new(HASH_KEY, 0..SLOTS, StoreLimits::default());
        for mut block in blocks {
            block.splice(0..0, [1, kind]);
            let _ = check.check(&block);
        }
    }
}

#[test]
fn every_flipped_bit_and_every_missing_or_doubled_block_is_found() {
    let (mut db, _) = full(3, 12);
    db.store.freeze();
    let mut blocks = all_blocks(&mut db.store, 200);
    assert!(blocks.len() > 4 && install(&blocks).is_ok());
    for at in 0..blocks.len() {
        for bit in 0..blocks[at].len() * 8 {
            blocks[at][bit / 8] ^= 1 << (bit % 8);
            assert!(install(&blocks).is_err(), "block {at} bit {bit}");
            blocks[at][bit / 8] ^= 1 << (bit % 8);
        }
        let mut fewer = blocks.clone();
        let block = fewer.remove(at);
        assert!(install(&fewer).is_err(), "without block {at}");
        fewer.insert(at, block.clone());
        fewer.insert(at, block[..block.len() - 1].to_vec());
        assert!(install(&fewer).is_err(), "with a piece of block {at}");
    }
    for (at, later) in (0..blocks.len() - 1).map(|at| (at, at + 1)) {
        blocks.swap(at, later);
        assert!(install(&blocks).is_err(), "blocks {at} and {later} exchanged");
        blocks.swap(at, later);
    }
    let mut other = BlockCheck::new(HASH_KEY, 0..SLOTS / 2, limits());
    assert_eq!(other.check(&blocks[0]), Err(BlockError::OtherGroup));
    assert_eq!(other.check(&blocks[0]), Err(BlockError::OutOfTurn), "a check that failed stays failed");
    blocks[1][0] = 9;
    assert_eq!(install(&blocks).err(), Some(BlockError::Version(9)));
}

#[test]
fn a_flush_while_frozen_changes_nothing_that_comes_out() {
    let (mut db, _) = full(5, 100);
    for n in 0..3_000 {
        db.ask(&format!("SET k{n} old"));
    }
    let digest = db.store.digest();
    db.store.freeze();
    let mut blocks: Vec<_> = (0..5).filter_map(|_| db.store.next_block(2_000)).collect();
    db.ask("SET before flush");
    db.ask("FLUSHALL");
    for n in 0..2_000 {
        db.ask(&format!("SET k{n} new"));
    }
    blocks.extend((0..5).filter_map(|_| db.store.next_block(2_000)));
    assert!(db.store.aside_bytes() > 0);
    db.ask("FLUSHALL");
    db.ask("SET after flush");
    blocks.extend(all_blocks(&mut db.store, 2_000));
    assert_eq!(install(&blocks).unwrap().digest(), digest);
    assert_eq!((db.store.len(), db.store.aside_bytes()), (1, 0));
    assert_eq!(db.store.next_block(1), None);
    db.store.thaw();
    assert_eq!(db.store.next_block(1), None);
}

#[test]
fn thawing_early_lets_go_of_everything() {
    let (mut db, mut traffic) = full(6, 1_000);
    db.store.freeze();
    assert!(db.store.is_frozen());
    (0..3).for_each(|_| assert!(db.store.next_block(1_000).is_some()));
    (0..500).for_each(|_| traffic.step(&mut [&mut db]));
    assert!(db.store.aside_bytes() > 0);
    assert_eq!(db.store.frozen_digest(), None, "the last block is not written out yet");
    db.store.thaw();
    assert_eq!((db.store.aside_bytes(), db.store.is_frozen()), (0, false));
    let digest = db.store.digest();
    assert_eq!(db.store.clone_by_blocks().digest(), digest);
}

#[test]
fn a_block_is_bounded_whatever_was_written_since() {
    let mut db = Db::with(limits());
    db.ask("SET old 1");
    for n in 0..5_000 {
        db.ask(&format!("SET gone{n} {}", "x".repeat(50)));
    }
    db.store.freeze();
    assert!(db.store.next_block(1).is_some());
    for n in 0..5_000 {
        db.ask(&format!("DEL gone{n}"));
    }
    for n in 0..20_000 {
        db.ask(&format!("SET new{n} 1"));
    }
    let blocks = all_blocks(&mut db.store, 4_096);
    assert!(blocks.iter().all(|block| block.len() <= 4_096 + 2), "no block is longer than it may be");
    assert!(
        blocks.len() > 5_000 * 70 / 4_096 + 20_000 / 512,
        "{} blocks: new keys cost a part of the budget, too",
        blocks.len()
    );
}

#[test]
#[should_panic(expected = "frozen once at a time")]
fn a_second_freeze_is_a_mistake() {
    let mut store = Store::new(HASH_KEY, 0..SLOTS, limits());
    store.freeze();
    store.freeze();
}

#[test]
fn an_empty_store_is_a_state_too() {
    let mut store = Store::new(HASH_KEY, 0..SLOTS, limits());
    store.begin(START_MS);
    store.freeze();
    let blocks = all_blocks(&mut store, 1);
    assert_eq!(blocks.len(), 2, "a head and an end");
    assert_eq!(install(&blocks).unwrap().digest(), store.digest());
}

impl Store {
    /// Returns another store with the same state.
    fn clone_by_blocks(&self) -> Store {
        let (mut entries, mut sessions) = (BlockWriter::entries(), BlockWriter::sessions());
        self.entries.sorted_from(KeyPosition(0)).for_each(|entry| entries.entry(entry));
        self.sessions.known.iter().for_each(|(id, session)| sessions.session(id, session));
        let (head, end) = (head_block(&self.outline()), end_block(self.digest()));
        install(&[head, entries.finish(), sessions.finish(), end]).expect("a sound state")
    }
}
