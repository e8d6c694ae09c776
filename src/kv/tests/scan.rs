//! Walks over the keys: SCAN, KEYS, RANDOMKEY, slots, and the digest, which must not depend on the order of the walk.

use super::{Db, HASH_KEY, encoded};
use crate::kv::command::{Command, Scan};
use crate::kv::reply::Reply;
use crate::kv::{Store, StoreLimits};
use crate::routing::{SLOTS, slot};
use groups::Ms;
use std::collections::{BTreeMap, BTreeSet};

/// Returns the cursor of the next page, and the keys of this page.
fn page(store: &Store, scan: Scan<'_>) -> (u64, Vec<String>) {
    let Ok(Reply::Array(mut parts)) = store.read(&encoded(&Command::Scan(scan)), Ms(0)) else { panic!("a page") };
    let (Some(Reply::Strings(keys)), Some(Reply::Bulk(cursor))) = (parts.pop(), parts.pop()) else { panic!("a page") };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&cursor).parse().unwrap(), keys.iter().map(text).collect())
}

#[test]
fn scan_meets_every_key_that_stays_once_while_others_come_and_go() {
    let mut db = Db::new();
    for n in 0..3_000 {
        db.ask(&format!("SET stays{n} 1"));
    }
    for count in [1, 7, 100, 1_000_000] {
        let (mut seen, mut cursor, mut pages) = (BTreeMap::new(), 0, 0);
        loop {
            let (next, keys) = page(&db.store, Scan { cursor, count, pattern: Some(b"stays*"), strings: true });
            keys.into_iter().for_each(|key| *seen.entry(key).or_insert(0) += 1);
            pages += 1;
            // Tables split and merge in between.
            for n in 0..3 {
                db.ask(&format!("SET comes{count}:{pages}:{n} 1"));
                db.ask(&format!("DEL comes{count}:{}:{n}", pages / 2));
            }
            assert!(next > cursor || next == 0);
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        assert_eq!(seen.len(), 3_000, "count {count}");
        assert!(seen.values().all(|&times| times == 1));
    }
}

#[test]
fn scan_filters_and_refuses_as_redis_does() {
    let mut db = Db::new();
    db.play(
        r#"
        MSET {x}a 1 {x}b 2 {x}ab 3 -> OK
        SCAN 0 MATCH *} -> ["0" []]
        SCAN 0 MATCH *}a COUNT 100 TYPE STRING -> ["0" ["{x}a"]]
        SCAN 0 TYPE list -> ["0" []]
        SCAN 18446744073709551615 -> ["0" []]
        SCAN 18446744073709551616 -> ERR invalid cursor
        SCAN abc -> ERR invalid cursor
        SCAN 0 COUNT -> ERR syntax error
        SCAN 0 COUNT 0 -> ERR syntax error
        SCAN 0 COUNT abc -> ERR value is not an integer or out of range
        SCAN 0 foo bar -> ERR syntax error
        KEYS {x}?b -> ["{x}ab"]
        "#,
    );
}

#[test]
fn slots_are_counted_and_listed() {
    let mut db = Db::new();
    for n in 0..1_000 {
        db.ask(&format!("SET {{tag}}{n} 1"));
        db.ask(&format!("SET other{n} 1"));
    }
    let slot = slot(b"tag");
    assert_eq!(db.ask(&format!("CLUSTER COUNTKEYSINSLOT {slot}")), "1000");
    let listed = db.ask(&format!("CLUSTER GETKEYSINSLOT {slot} 3"));
    assert_eq!(listed.matches("{tag}").count(), 3);
    assert_eq!(listed.split(' ').count(), 3);
    db.play(
        "
        CLUSTER COUNTKEYSINSLOT 16384 -> ERR Invalid slot
        CLUSTER COUNTKEYSINSLOT -1 -> ERR Invalid slot
        CLUSTER COUNTKEYSINSLOT abc -> ERR value is not an integer or out of range
        CLUSTER GETKEYSINSLOT 1 -1 -> ERR Invalid slot or number of keys
        CLUSTER GETKEYSINSLOT 99999 1 -> ERR Invalid slot or number of keys
        CLUSTER GETKEYSINSLOT 1 abc -> ERR value is not an integer or out of range
        ",
    );
}

#[test]
fn a_random_key_is_chosen_by_the_seed_alone() {
    let mut db = Db::new();
    db.play("RANDOMKEY -> nil");
    for n in 0..1_000 {
        db.ask(&format!("SET k{n} 1"));
    }
    let draw = |store: &Store, seed| match store.read(&encoded(&Command::RandomKey(seed)), Ms(0)) {
        Ok(Reply::Bulk(key)) => key.into_owned(),
        other => panic!("{other:?}"),
    };
    let drawn: BTreeSet<_> = (0..1_000).map(|seed| draw(&db.store, seed)).collect();
    assert_eq!(drawn.len(), 1_000);
    assert_eq!(draw(&db.store, 5), draw(&db.store, 1_005));
}

#[test]
fn the_digest_is_the_states_not_the_historys() {
    let (mut one, mut two) = (Db::new(), Db::new());
    for n in 0..2_000 {
        one.ask(&format!("SET k{n} v{n}"));
        two.ask(&format!("SET k{} v{}", 1_999 - n, 1_999 - n));
        two.ask(&format!("SET x{n} 1"));
    }
    assert_ne!(one.store.digest(), two.store.digest());
    for n in 0..2_000 {
        two.ask(&format!("DEL x{n}"));
    }
    assert_eq!(one.store.digest(), two.store.digest());
    assert_eq!(one.ask("KEYS *"), two.ask("KEYS *"));
    let before = one.store.digest();
    for (change, back) in [("APPEND k1 x", "SET k1 v1"), ("EXPIRE k1 10", "PERSIST k1"), ("SET y 1", "DEL y")] {
        one.ask(change);
        assert_ne!(one.store.digest(), before, "{change}");
        one.ask(back);
        assert_eq!(one.store.digest(), before, "{back}");
    }
    one.ask("SESSION NEW");
    assert_ne!(one.store.digest(), before);
    one.ask("FLUSHALL");
    assert_ne!(one.store.digest(), Store::new(HASH_KEY, 0..SLOTS, StoreLimits::default()).digest());
}
