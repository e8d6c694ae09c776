//! No command blocks the event loop. For each command of the table, the test sends the worst requests that a client may
//! send, and measures the longest turn of the node.
//!
//! `cargo test --release --test turns -- --nocapture` prints the times that docs/benchmarks.md quotes.
//! `PAXOI_TURNS_KEYS=1000000` in front of it sets the number of keys in the store. The test itself asserts only what
//! holds on the slowest machine: work is divided into turns, and no turn lasts `SILENT_MS_MAX`, after which peers would
//! count the node as dead.

mod single;
mod worst;

use groups::Ms;
use paxoi::config::{ReadMode, SILENT_MS_MAX};
use paxoi::kv::table::{self, Class, FanOut, Spec};
use single::{Single, VALUE_BYTES_MAX};
use std::time::Duration;
use worst::{BIG, Case, Data, LONG_KEY_BYTES, cases, class_of_16_000, words};

/// Number of keys, unless `PAXOI_TURNS_KEYS` sets another one.
const KEYS: usize = 50_000;
const LONG_KEYS: usize = 100;
const MANY_GROUPS: u32 = 256;

fn data() -> Data {
    let keys = std::env::var("PAXOI_TURNS_KEYS").ok().and_then(|text| text.parse().ok()).unwrap_or(KEYS);
    Data { keys, long_keys: LONG_KEYS }
}

/// Returns a node whose store has the worst data for each command.
fn filled(groups: u32, reads: ReadMode, data: &Data) -> Single {
    let mut single = Single::new(groups, reads);
    refill(&mut single, data);
    single
}

fn refill(single: &mut Single, data: &Data) {
    let per_request = 20_000;
    for first in (0..data.keys).step_by(per_request) {
        let mut request = words("MSET");
        for n in first..data.keys.min(first + per_request) {
            request.extend([format!("key:{n}").into_bytes(), b"12345678".to_vec()]);
        }
        single.ask(&[request]);
    }
    for n in 0..data.long_keys {
        let key = [vec![b'a'; LONG_KEY_BYTES], n.to_string().into_bytes()].concat();
        single.ask(&[vec![b"SET".to_vec(), key, b"x".to_vec()]]);
    }
    single.ask(&[vec![b"SET".to_vec(), BIG.as_bytes().to_vec(), vec![b'1'; VALUE_BYTES_MAX - 64]]]);
}

struct Row {
    name: String,
    longest: Duration,
    turns: usize,
}

fn measure(single: &mut Single, name: &str, case: &Case) -> Row {
    single.ask(&case.requests);
    let name = format!("{} {}", name.replace('|', " ").to_uppercase(), case.name).trim_end().to_owned();
    Row { name, longest: single.longest, turns: single.turns }
}

#[test]
fn no_command_holds_the_loop() {
    let data = data();
    let mut rows = Vec::new();
    let mut single = filled(1, ReadMode::Quorum, &data);
    for spec in table::all() {
        for case in cases(spec.verb, &data) {
            rows.push(measure(&mut single, spec.name, &case));
            if case.spoils {
                refill(&mut single, &data);
            }
        }
    }
    judge(&format!("{} keys, one group", data.keys), rows);
}

/// Commands that concern all groups, with many groups.
#[test]
fn no_command_about_all_groups_holds_the_loop() {
    let data = Data { keys: 20_000, long_keys: 0 };
    let mut single = filled(MANY_GROUPS, ReadMode::Quorum, &data);
    let is_about_all =
        |spec: &&Spec| spec.fan_out == FanOut::EveryGroup || matches!(spec.class, Class::Admin | Class::Cluster);
    let cases = table::all()
        .filter(is_about_all)
        .flat_map(|spec| cases(spec.verb, &data).into_iter().map(|case| (spec.name, case)));
    let rows = cases.map(|(name, case)| measure(&mut single, name, &case)).collect();
    judge(&format!("{} keys, {MANY_GROUPS} groups", data.keys), rows);
}

#[expect(clippy::print_stdout, reason = "the printed table is the purpose of the test")]
fn judge(title: &str, mut rows: Vec<Row>) {
    rows.sort_by_key(|row| std::cmp::Reverse(row.longest));
    println!("{title}\n{:<50} {:>12} {:>9}", "command", "longest turn", "turns");
    for row in &rows {
        println!("{:<50} {:>9.1} ms {:>9}", row.name, row.longest.as_secs_f64() * 1e3, row.turns);
    }
    let worst = &rows[0];
    assert!(worst.longest < Duration::from_millis(SILENT_MS_MAX.0), "{}: {:?}", worst.name, worst.longest);
}

/// Patterns that once held the loop for seconds, with reads by quorum and through the log.
#[test]
fn hostile_patterns_are_matched_in_steps() {
    let data = Data { keys: 20_000, long_keys: 20 };
    for reads in [ReadMode::Quorum, ReadMode::Log] {
        let mut single = filled(1, reads, &data);
        let pattern = class_of_16_000();
        let scan = vec![b"SCAN".to_vec(), b"0".to_vec(), b"MATCH".to_vec(), pattern.clone()];
        let keys = vec![b"KEYS".to_vec(), pattern];
        assert!(single.ask(&[scan]).ends_with(b"*0\r\n"));
        assert_eq!(single.ask(std::slice::from_ref(&keys)), b"*0\r\n");
        assert!(single.turns > 1, "{reads}: 20,000 keys take more than one turn");
        let transaction = [words("MULTI"), keys, words("EXEC")];
        assert!(single.ask(&transaction).ends_with(b"*1\r\n*0\r\n"));
        assert!(single.turns > 1, "{reads}: in a transaction, too");
    }
}

/// DBSIZE does not count keys that are due but not removed yet, and RANDOMKEY skips them. Both work in steps.
#[test]
fn due_keys_are_counted_over_several_turns() {
    let mut single = Single::new(1, ReadMode::Quorum);
    let expiring: Vec<_> = (0..50_000).map(|n| words(&format!("SET due:{n} v PX 100"))).collect();
    expiring.chunks(1_000).for_each(|chunk| drop(single.ask(chunk)));
    single.ask(&[words("SET stays v")]);
    single.pass(Ms(60_000));
    assert_eq!(single.ask(&[words("DBSIZE")]), b":1\r\n");
    assert_eq!(single.ask(&[words("RANDOMKEY")]), b"$5\r\nstays\r\n");
}

/// Partial effects are never seen: a command with many keys is applied over several turns, but atomically.
#[test]
fn what_takes_several_turns_is_seen_whole_or_not_at_all() {
    let mut single = Single::new(1, ReadMode::Quorum);
    let mut request = words("MSET");
    (0..60_000).for_each(|n| request.extend([format!("key:{n}").into_bytes(), b"v".to_vec()]));
    let size = words("DBSIZE");
    assert_eq!(single.ask(&[request.clone(), size.clone()]), b"+OK\r\n:60000\r\n");
    assert!(single.turns > 3, "{} turns", single.turns);
    let mut gone = words("DEL");
    (0..60_001).for_each(|n| gone.push(format!("key:{n}").into_bytes()));
    let count = words("CLUSTER COUNTKEYSINSLOT 0");
    let replies = single.ask(&[gone.clone(), size.clone(), count]);
    assert_eq!(replies, b":60000\r\n:0\r\n:0\r\n");
    request[0] = b"MSETNX".to_vec();
    assert_eq!(single.ask(&[request.clone(), request, size]), b":1\r\n:0\r\n:60000\r\n");
}

#[test]
fn what_would_take_too_long_is_refused_with_the_reason() {
    let mut single = Single::new(1, ReadMode::Quorum);
    let pattern = |pattern: Vec<u8>| vec![b"KEYS".to_vec(), pattern];
    let long = "-ERR the pattern is longer than 65536 bytes\r\n";
    assert_eq!(single.ask(&[pattern(vec![b'a'; 70_000])]), long.as_bytes());
    let wild = "-ERR the pattern is too complex: parts with ? or [ between stars have more than 4096 elements\r\n";
    assert_eq!(single.ask(&[pattern([b"*".as_slice(), &[b'?'; 5_000], b"*"].concat())]), wild.as_bytes());
    let keys = "-ERR the keys of one request hold more than 16 MiB together\r\n";
    assert_eq!(single.ask(&[vec![b"GET".to_vec(), vec![b'k'; 17 << 20]]]), keys.as_bytes());
    let words_max = "-ERR too many arguments: 1024 at most for a command that this node answers itself\r\n";
    let mut info = words("INFO");
    info.resize(2_000, b"x".to_vec());
    assert_eq!(single.ask(&[info]), words_max.as_bytes());
}
