//! `maxmemory`: commands that grow the data are refused where memory is short; commands that remove or read go on. The
//! counted memory is close to what the process takes.

use crate::harness::client::{ask, text};
use crate::harness::{Cluster, turn, wait_for};
use paxoi::client::Client;
use std::time::Duration;

const OOM: &str = "-OOM command not allowed when used memory > 'maxmemory'.";
const LIMIT: &str = "8mb";
const VALUE_BYTES: usize = 10_000;
/// Maximum values to write: more than the limit holds.
const VALUES_MAX: usize = 2_000;

/// Writes values until one is refused. Returns the number of values that were taken.
fn fill(client: &mut Client) -> usize {
    let value = "x".repeat(VALUE_BYTES);
    (0..VALUES_MAX)
        .find(|number| match ask(client, &format!("SET key:{number} {value}")).as_str() {
            "OK" => false,
            refusal => {
                assert_eq!(refusal, OOM);
                true
            }
        })
        .expect("a refusal")
}

#[test]
fn what_grows_is_refused_at_the_limit_and_taken_again_below_it() {
    let _turn = turn();
    let cluster = Cluster::start(3, 4, &["--maxmemory", LIMIT]);
    let mut client = cluster.client(1);
    let count = fill(&mut client);
    let info = cluster.info(1);
    assert_eq!(info.number("maxmemory"), 8 << 20);
    assert!((8 << 20..9 << 20).contains(&info.number("used_memory")), "{info:?}");
    for command in
        ["INCR n", "APPEND key:0 x", "MSET a 1 b 2", "COPY key:0 key:0:", "SETRANGE key:1 0 x", "SESSION NEW"]
    {
        assert_eq!(ask(&mut client, command), OOM, "{command}");
    }
    for (command, reply) in
        [("STRLEN key:1", "10000"), ("EXPIRE key:1 100", "1"), ("PERSIST key:1", "1"), ("DEL none", "0")]
    {
        assert_eq!(ask(&mut client, command), reply, "{command}");
    }
    // A transaction with a command that grows the data is not executed. A transaction without one is.
    for (command, reply) in [
        ("MULTI", "OK"),
        ("SET a 1", OOM),
        ("EXEC", "-EXECABORT Transaction discarded because of previous errors."),
        ("MULTI", "OK"),
        ("DEL none", "QUEUED"),
        ("EXEC", "0"),
    ] {
        assert_eq!(ask(&mut client, command), reply, "{command}");
    }
    // Each node decides for its own clients.
    let mut other = cluster.client(2);
    wait_for("node 2 to refuse, too", Duration::from_secs(10), || (ask(&mut other, "SET a 1") == OOM).then_some(()));
    assert_eq!(ask(&mut other, "CONFIG SET maxmemory 1gb"), "OK");
    assert_eq!(ask(&mut other, "CONFIG GET maxmemory"), format!("maxmemory {}", 1 << 30));
    assert_eq!((ask(&mut other, "SET a 1"), ask(&mut client, "SET a 2")), ("OK".to_owned(), OOM.to_owned()));
    // Commands queued before memory became short are refused at EXEC.
    for command in ["MULTI", "SET a 3"] {
        ask(&mut other, command);
    }
    assert_eq!(ask(&mut cluster.client(2), "CONFIG SET maxmemory 1mb"), "OK");
    assert_eq!(ask(&mut other, "EXEC"), format!("-EXECABORT Transaction discarded because of: {}", &OOM[1..]));
    assert_eq!(ask(&mut other, "GET a"), "1");
    // There is room again.
    for number in 0..count / 2 {
        assert_eq!(ask(&mut client, &format!("DEL key:{number}")), "1");
    }
    assert_eq!(ask(&mut client, "SET a 4"), "OK");
    assert!(fill(&mut client) >= count / 2);
}

/// Returns the growth of a node's memory in bytes after `count` values of `value_bytes`, as counted by the node and by
/// the system.
fn growth(count: usize, value_bytes: usize) -> (u64, u64) {
    const KEYS: usize = 100;
    let cluster = Cluster::start(1, 4, &[]);
    let mut client = cluster.client(1);
    let value = vec![b'x'; value_bytes];
    let mut write = |prefix: &str, from: usize| {
        let keys: Vec<String> = (from..from + KEYS).map(|number| format!("{prefix}{number:08}")).collect();
        let words = keys.iter().flat_map(|key| [key.as_bytes(), &value]);
        let reply = client.call(&std::iter::once(&b"MSET"[..]).chain(words).collect::<Vec<_>>());
        assert_eq!(text(&reply.expect("a reply")), "OK");
    };
    // Lets the buffers reach their final size first.
    (0..20).for_each(|_| write("warm", 0));
    let sizes = || {
        // The node asks the system for its memory once a second.
        let now_s = cluster.info(1).number("uptime_in_seconds");
        let info = cluster.wait_for_info(1, "the next look", |info| info.number("uptime_in_seconds") >= now_s + 3);
        (info.number("used_memory"), info.number("used_memory_rss"))
    };
    let before = sizes();
    (0..count).step_by(KEYS).for_each(|from| write("key", from));
    let after = sizes();
    (after.0 - before.0, after.1 - before.1)
}

#[test]
fn the_memory_that_is_counted_is_about_what_the_process_takes() {
    let _turn = turn();
    for (count, value_bytes) in [(300_000, 64), (6_000, 10_000)] {
        let (counted, resident) = growth(count, value_bytes);
        eprintln!("{count} values of {value_bytes} bytes: counted {counted}, resident {resident} more");
        let off = counted.abs_diff(resident) as f64 / resident as f64;
        assert!(off < 0.15, "{count} values of {value_bytes} bytes: counted {counted}, resident {resident}");
    }
}
