//! The requests of clients: single keys, several keys at once, and the whole database.

use crate::client::{Call, Kind, Part};
use crate::world::World;
use bytes::Bytes;
use paxoi::client::write_command;
use paxoi::verify::Action;
use std::collections::BTreeSet;

/// The requests that clients send, and how often.
#[derive(Clone, Debug, Default)]
pub(crate) struct Load {
    /// The mean time between two requests of one client.
    pub(crate) pause_us: u64,
    /// A client that waits longer hangs up and may go to another node.
    pub(crate) patience_us: u64,
    /// Maximum number of a client's requests in flight, outside bursts.
    pub(crate) pipeline: usize,
    /// Share of long values, in thousandths. Some are longer than a segment.
    pub(crate) long: u64,
    /// Maximum length of long values.
    pub(crate) long_bytes_max: u64,
    /// Number of keys of each sort.
    pub(crate) keys: u64,
    /// Time by which a key may vanish too early, beyond the effect of steering on its life.
    pub(crate) early_us: u64,
    /// Time by which a key may vanish too late, beyond that effect.
    pub(crate) late_us: u64,
    /// The sorts of requests that are used: one bit each.
    pub(crate) mix: u32,
    /// Share of FLUSHALL among the requests, in thousandths.
    pub(crate) flushes: u64,
    /// Requests during or after which the client hangs up, in thousandths.
    pub(crate) cuts: u64,
    /// Bursts of many requests, in thousandths.
    pub(crate) bursts: u64,
    /// Time of the repair, 0 before it. From then on no client may wait longer than `patience_us`.
    pub(crate) healed_us: u64,
    /// The nodes to which clients connect.
    pub(crate) nodes: Vec<usize>,
}

/// Number of sorts of requests. Each has its bit in [`Load::mix`].
pub(crate) const SORTS: u32 = 13;
/// Sorts that a run with FLUSHALL does not use. INCR, APPEND and ONCE make values grow: if a FLUSHALL can remove such
/// values, histories are too hard to decide. RENAME and COPY use keys whose names are not known when a FLUSHALL is
/// recorded.
pub(crate) const UNLESS_FLUSHED: u32 = 1 << 2 | 1 << 3 | 1 << 4 | 1 << 12;

impl World {
    /// Draws the next request of a client.
    pub(crate) fn invent(&mut self, index: usize) -> Call {
        if self.random.chance(self.load.flushes) {
            return self.flush();
        }
        let mut sort = self.random.below(u64::from(SORTS)) as u32;
        while self.load.mix >> sort & 1 == 0 {
            sort = (sort + 1) % SORTS;
        }
        self.record.written += 1;
        let long = if self.random.chance(self.load.long) {
            self.random.between(20_000, self.load.long_bytes_max) as usize
        } else {
            0
        };
        let fresh = Bytes::from(format!("v{}{}", self.record.written, "-".repeat(long)));
        match sort {
            0 => self.read(),
            1 => self.plain('s', &[b"SET", b"", &fresh], Action::Set(fresh.clone())),
            2 => self.plain('c', &[b"INCR", b""], Action::IncrementBy(1)),
            3 => {
                let token = Bytes::from(format!("{};", self.record.written));
                self.plain('a', &[b"APPEND", b"", &token], Action::Append(token.clone()))
            }
            4 => self.once(index),
            5 => self.expiring(&fresh),
            6 => self.pair(&fresh),
            7 => self.several(&fresh),
            8 => match self.random.below(5) {
                0 => self.plain('x', &[b"DEL", b""], Action::Delete),
                1 => self.plain('x', &[b"SETNX", b"", &fresh], Action::SetIfAbsent(fresh.clone())),
                2 => self.plain('x', &[b"INCRBY", b"", b"5"], Action::IncrementBy(5)),
                3 => self.plain('x', &[b"GET", b""], Action::Get),
                _ => self.plain('x', &[b"GETDEL", b""], Action::GetDelete),
            },
            9 if self.random.chance(50) => self.reassign(),
            10 => self.delete_several(),
            11 => self.scan(index),
            12 => self.of_family(&fresh),
            _ => self.plain('s', &[b"GETSET", b"", &fresh], Action::GetSet(fresh.clone())),
        }
    }

    /// Returns a request that changes leaders: a drain, its end, or a move of a group.
    fn reassign(&mut self) -> Call {
        let group = self.random.below(u64::from(self.shape.groups)).to_string();
        let nodes = self.shape.nodes + self.shape.spares;
        let node = self.random.between(1, nodes as u64 + 1).to_string();
        let words: &[&[u8]] = match self.random.below(10) {
            0 => &[b"PAXOI", b"DRAIN"],
            1 | 2 => &[b"PAXOI", b"UNDRAIN"],
            _ => &[b"PAXOI", b"LEADER", b"MOVE", group.as_bytes(), node.as_bytes()],
        };
        self.call(Kind::Operator, Vec::new(), 0, &[words])
    }

    pub(crate) fn key(&mut self, sort: char) -> Bytes {
        // A reply about a key of sort `x` tells little about the operations before it, so the checker can order only
        // few concurrent operations on one key. With more keys, fewer operations on one key are concurrent.
        let keys = if sort == 'x' { 8 * self.load.keys } else { self.load.keys };
        Bytes::from(format!("{sort}{}", self.random.below(keys)))
    }

    pub(crate) fn call(&self, kind: Kind, parts: Vec<Part>, skip: usize, commands: &[&[&[u8]]]) -> Call {
        let mut request = Vec::new();
        commands.iter().for_each(|words| write_command(words, &mut request));
        Call { kind, parts, skip, request, call_us: self.now_us, sent_us: self.now_us }
    }

    /// Returns a command of one key, which becomes its second word.
    pub(crate) fn plain(&mut self, sort: char, words: &[&[u8]], action: Action) -> Call {
        let key = self.key(sort);
        let mut words = words.to_vec();
        words[1] = &key;
        self.call(Kind::Plain, vec![Part { key: key.clone(), action }], 0, &[&words])
    }

    pub(crate) fn read(&mut self) -> Call {
        let sort = *self.random.pick(&['s', 'c', 'a', 'e', 's']).unwrap_or(&'s');
        self.plain(sort, &[b"GET", b""], Action::Get)
    }

    fn expiring(&mut self, value: &Bytes) -> Call {
        // Some live longer than a run: they must not vanish.
        let life_us = if self.random.chance(200) { 100_000_000 } else { self.random.between(50, 3_000) * 1_000 };
        // Cluster time is steered by at most a tenth. The time of a group that is ahead of it goes a tenth slower.
        let (least_us, most_us) = (life_us * 10 / 11, life_us * 10 / 9);
        let (earliest, latest) =
            ((self.now_us + least_us).saturating_sub(self.load.early_us), most_us + self.load.late_us);
        let life = (life_us / 1_000).to_string();
        let action = Action::SetExpiring { value: value.clone(), earliest, latest };
        self.plain('e', &[b"SET", b"", value, b"PX", life.as_bytes()], action)
    }

    /// Returns a transaction that writes or reads two keys of one group together.
    fn pair(&mut self, value: &Bytes) -> Call {
        let name = self.random.below(self.load.keys);
        let keys = [Bytes::from(format!("{{p{name}}}x")), Bytes::from(format!("{{p{name}}}y"))];
        if self.random.chance(500) {
            let parts = keys.iter().map(|key| Part { key: key.clone(), action: Action::Get }).collect();
            let commands: &[&[&[u8]]] = &[&[b"MULTI"], &[b"GET", &keys[0]], &[b"GET", &keys[1]], &[b"EXEC"]];
            return self.call(Kind::Pair, parts, 3, commands);
        }
        let parts = keys.iter().map(|key| Part { key: key.clone(), action: Action::Set(value.clone()) }).collect();
        let commands: &[&[&[u8]]] = &[&[b"MULTI"], &[b"SET", &keys[0], value], &[b"SET", &keys[1], value], &[b"EXEC"]];
        self.call(Kind::Each, parts, 3, commands)
    }

    /// Returns a command on keys of several groups.
    fn several(&mut self, value: &Bytes) -> Call {
        let first = self.key('s');
        let mut second = self.key('s');
        if first == second {
            second = self.key('c');
        }
        if self.random.chance(500) || second.starts_with(b"c") {
            let parts = [&first, &second].map(|key| Part { key: key.clone(), action: Action::Get }).to_vec();
            return self.call(Kind::Each, parts, 0, &[&[b"MGET", &first, &second]]);
        }
        let parts = [&first, &second].map(|key| Part { key: key.clone(), action: Action::Set(value.clone()) }).to_vec();
        self.call(Kind::All, parts, 0, &[&[b"MSET", &first, value, &second, value]])
    }

    /// Returns a DEL of keys in several groups.
    fn delete_several(&mut self) -> Call {
        let count = self.random.between(2, 5);
        let keys: BTreeSet<Bytes> = (0..count).map(|_| self.key('x')).collect();
        let words: Vec<&[u8]> = [&b"DEL"[..]].into_iter().chain(keys.iter().map(|key| &key[..])).collect();
        let parts = keys.iter().map(|key| Part { key: key.clone(), action: Action::Delete }).collect();
        self.call(Kind::Count, parts, 0, &[&words])
    }

    /// Returns a FLUSHALL, recorded as a deletion of every key that the run uses.
    fn flush(&mut self) -> Call {
        let keys = self.load.keys;
        let named = ['s', 'c', 'a', 'e'].into_iter().flat_map(|sort| (0..keys).map(move |key| format!("{sort}{key}")));
        let loose = (0..8 * keys).map(|key| format!("x{key}"));
        let pairs = (0..keys).flat_map(|key| ['x', 'y'].map(|end| format!("{{p{key}}}{end}")));
        let part = |key: String| Part { key: Bytes::from(key), action: Action::Delete };
        let parts = named.chain(loose).chain(pairs).map(part).collect();
        self.call(Kind::All, parts, 0, &[&[b"FLUSHALL"]])
    }

    /// Returns an operation on one or two of three keys of one group: GET, DEL, SET, RENAME or COPY. A GET in the
    /// transaction of a RENAME or COPY tells which value moves.
    fn of_family(&mut self, value: &Bytes) -> Call {
        let family = self.record.family;
        let mut keys = ["a", "b", "c"].map(|end| Bytes::from(format!("{{r{family}}}{end}")));
        self.random.shuffle(&mut keys);
        let [from, to, _] = &keys;
        let one = |action: Action| vec![Part { key: from.clone(), action }];
        match self.random.below(6) {
            0 => self.call(Kind::Plain, one(Action::Get), 0, &[&[b"GET", from]]),
            1 => self.call(Kind::Plain, one(Action::Delete), 0, &[&[b"DEL", from]]),
            2 | 3 => self.call(Kind::Plain, one(Action::Set(value.clone())), 0, &[&[b"SET", from, value]]),
            which => {
                let (action, words): (Action, &[&[u8]]) = match which {
                    4 => (Action::GetDelete, &[b"RENAME", from, to]),
                    _ => (Action::Get, &[b"COPY", from, to, b"REPLACE"]),
                };
                let mut parts = one(action);
                parts.push(Part { key: to.clone(), action: Action::Get });
                self.call(Kind::Move, parts, 3, &[&[b"MULTI"], &[b"GET", from], words, &[b"EXEC"]])
            }
        }
    }

    /// Sends many requests at once to fill a queue: the unsent replies of the client, its replies that wait for an
    /// earlier one, or the commands of a group.
    pub(crate) fn ask_much(&mut self, index: usize) {
        self.record.bursts += 1;
        let sort = self.random.below(10);
        let has_large = self.load.long_bytes_max > LARGE_BYTES as u64;
        let key = self.key('s');
        let count = if sort < 4 && has_large { LARGE } else { self.random.between(8, 64) };
        for _ in 0..count {
            let call = if sort < 4 && has_large {
                self.record.written += 1;
                let value = Bytes::from(format!("v{}{}", self.record.written, "-".repeat(LARGE_BYTES)));
                let parts = vec![Part { key: key.clone(), action: Action::Set(value.clone()) }];
                self.call(Kind::Plain, parts, 0, &[&[b"SET", &key, &value]])
            } else {
                self.invent(index)
            };
            self.ask(index, call);
        }
        if sort == 4 {
            for _ in 0..PINGS {
                let call = self.call(Kind::Operator, Vec::new(), 0, &[&[b"PING"]]);
                self.ask(index, call);
            }
        }
    }
}

/// Number of large values that together exceed the queue of a group.
const LARGE: u64 = (paxoi::config::GROUP_QUEUE_BYTES / LARGE_BYTES) as u64 + 2;
const LARGE_BYTES: usize = 900_000;
/// Number of requests that exceeds the outstanding replies which a node keeps for one client.
const PINGS: usize = paxoi::config::REPLIES_MAX + 100;
