//! Long values are shared, not copied, and a change of one key is visible in no other key and no frozen state.

use super::uploads::upload;
use super::{Db, HASH_KEY, encoded};
use crate::kv::long_value::LONG_VALUE_BYTES;
use crate::kv::reply::Reply;
use crate::kv::{Installation, Store, StoreLimits};
use crate::rng::Rng;
use crate::routing::SLOTS;
use std::collections::BTreeMap;

const KEYS: [&str; 4] = ["{t}a", "{t}b", "{t}c", "{t}d"];

/// Random commands, and their results according to plain vectors.
struct Traffic {
    rng: Rng,
    model: BTreeMap<&'static str, Vec<u8>>,
}

impl Traffic {
    fn key(&mut self) -> &'static str {
        KEYS[self.rng.below(KEYS.len() as u64) as usize]
    }

    /// Returns letters that depend on a random number. The length is on either side of [`LONG_VALUE_BYTES`].
    fn value(&mut self) -> Vec<u8> {
        let (seed, around) = (self.rng.below(26), self.rng.below(3) as usize);
        let length = self.rng.below([10, LONG_VALUE_BYTES as u64, 4 * LONG_VALUE_BYTES as u64][around]) + 1;
        (0..length).map(|n| b'a' + ((n / 7 + seed) % 26) as u8).collect()
    }

    fn command(&mut self) -> Vec<Vec<u8>> {
        let (key, other, value) = (self.key(), self.key(), self.value());
        let words = |words: &[&[u8]]| words.iter().map(|word| word.to_vec()).collect();
        match self.rng.below(9) {
            0 => {
                self.model.insert(key, value.clone());
                words(&[b"SET", key.as_bytes(), &value])
            }
            1..=2 => {
                self.model.entry(key).or_default().extend_from_slice(&value);
                words(&[b"APPEND", key.as_bytes(), &value])
            }
            3..=5 => {
                let offset = self.rng.below(5 * LONG_VALUE_BYTES as u64) as usize;
                let held = self.model.entry(key).or_default();
                held.resize(held.len().max(offset + value.len()), 0);
                held[offset..offset + value.len()].copy_from_slice(&value);
                words(&[b"SETRANGE", key.as_bytes(), offset.to_string().as_bytes(), &value])
            }
            6 if key != other => {
                if let Some(held) = self.model.get(key).cloned() {
                    self.model.insert(other, held);
                }
                words(&[b"COPY", key.as_bytes(), other.as_bytes(), b"REPLACE"])
            }
            7 if key != other && self.model.contains_key(key) => {
                let held = self.model.remove(key).unwrap_or_default();
                self.model.insert(other, held);
                words(&[b"RENAME", key.as_bytes(), other.as_bytes()])
            }
            _ => {
                self.model.remove(key);
                words(&[b"GETDEL", key.as_bytes()])
            }
        }
    }
}

/// A copy of a frozen state, written while the store changes, and the digest of that state.
struct Freeze {
    installation: Option<Installation>,
    digest: u64,
}

impl Freeze {
    fn begin(store: &mut Store) -> Freeze {
        store.freeze();
        let installation = Some(Installation::new(HASH_KEY, 0..SLOTS, StoreLimits::default()));
        Freeze { installation, digest: store.digest() }
    }

    /// Copies up to `blocks` more blocks. Returns true if the copy is complete now, after checking that it equals the
    /// frozen state.
    fn take(&mut self, store: &mut Store, blocks: u64) -> bool {
        for _ in 0..blocks {
            let Some(block) = store.next_block(LONG_VALUE_BYTES / 2) else { break };
            let Some(installation) = &mut self.installation else { return false };
            if installation.install_block(&block).expect("a sound block") {
                let installed = self.installation.take().and_then(|whole| whole.finish_as(self.digest));
                assert_eq!(installed.expect("the digest is the same").digest(), self.digest);
                store.thaw();
                return true;
            }
        }
        false
    }
}

#[test]
fn they_are_as_plain_ones_in_parts_and_while_the_store_is_frozen() {
    for seed in 0..6 {
        let mut traffic = Traffic { rng: Rng::new(seed), model: BTreeMap::new() };
        let (mut plain, mut shared, mut freeze) = (Db::new(), Db::new(), None);
        for _ in 0..60 {
            let command = traffic.command();
            let words: Vec<&[u8]> = command.iter().map(Vec::as_slice).collect();
            let body = plain.body(&words).expect("a valid request");
            plain.store.apply(&body);
            if traffic.rng.below(2) == 0 {
                upload(&mut shared.store, &body, LONG_VALUE_BYTES);
            } else {
                shared.store.apply(&body);
            }
            let frozen = freeze.get_or_insert_with(|| Freeze::begin(&mut shared.store));
            if frozen.take(&mut shared.store, traffic.rng.below(3)) {
                freeze = None;
            }
            for (db, key) in [(&plain, traffic.key()), (&shared, traffic.key())] {
                let reply = db.store.read(&db.body(&[b"GET", key.as_bytes()]).unwrap(), db.now_ms).unwrap();
                let bytes = match reply {
                    Reply::Long(value) => Some(value.slices().collect::<Vec<_>>().concat()),
                    Reply::Bulk(bytes) => Some(bytes.into_owned()),
                    _ => None,
                };
                assert!(bytes.as_ref() == traffic.model.get(key), "seed {seed}, {key}");
            }
        }
        assert_eq!(plain.store.digest(), shared.store.digest(), "seed {seed}");
        shared.store.thaw();
        for db in [&mut plain, &mut shared] {
            KEYS.iter().for_each(|key| _ = db.ask(&format!("DEL {key}")));
            assert_eq!(db.store.heap_bytes, 0, "an empty store counts no heap bytes");
        }
    }
}

#[test]
fn replies_and_other_keys_share_their_memory() {
    let mut db = Db::new();
    let value = "v".repeat(3 * LONG_VALUE_BYTES);
    db.ask(&format!("SET a{{t}} {value}"));
    assert_eq!(db.ask("COPY a{t} b{t}"), "1");
    assert_eq!(db.ask("RENAME a{t} c{t}"), "OK");
    let place = |key: &str| {
        let reply = db.store.read(&encoded(&super::Command::Get(key.as_bytes())), db.now_ms).unwrap();
        let Reply::Long(value) = reply else { panic!("it is long") };
        value.shared().next().unwrap().as_ptr()
    };
    assert_eq!(place("b{t}"), place("c{t}"));
    assert_eq!(place("b{t}"), place("b{t}"), "two replies share the memory of their key");
}
