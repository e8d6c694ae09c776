//! Keys that expire do so at every node, and stay away.

use super::cluster::Cluster;
use super::wire::{Wire, ask, talk, until};
use std::time::{Duration, Instant};

#[test]
fn a_key_that_expired_is_gone_at_every_node_and_never_comes_back() {
    let cluster = Cluster::start();
    for round in 0..10 {
        let writer = cluster.nodes[round % 3];
        let (key, before) = (format!("key{round}"), Instant::now());
        assert_eq!(ask(writer, &format!("SET {key} v PX 50")), "OK");
        assert_eq!(ask(writer, &format!("SET {key}-kept v PX 500000")), "OK");
        let at_once = ask(cluster.nodes[(round + 1) % 3], &format!("GET {key}"));
        assert!(at_once == "\"v\"" || before.elapsed() >= Duration::from_millis(50), "{at_once} too early");
        // Once one node has shown the key as gone, every node must do so at once: the checks below do not wait.
        until(cluster.nodes[(round + 2) % 3], &format!("EXISTS {key}"), "0");
        for node in &cluster.nodes {
            let commands = format!("GET {key} | TTL {key} | EXISTS {key} | STRLEN {key} | KEYS {key} | TYPE {key}");
            assert_eq!(talk(*node, &commands), "nil | -2 | 0 | 0 | [] | none", "round {round} at {node}");
        }
    }
    for node in &cluster.nodes {
        until(*node, "DBSIZE", "10");
        assert_eq!(ask(*node, "EXISTS key0 key5 key9 key0-kept"), "1");
    }
}

#[test]
fn times_to_live_are_told_alike_at_every_node() {
    let cluster = Cluster::start();
    let [a, b, c] = cluster.nodes[..] else { panic!("three nodes") };
    assert_eq!(talk(a, "SET k v EX 1000 | SET at v PXAT 99999999999999"), "OK | OK");
    for node in [a, b, c] {
        assert_eq!(talk(node, "PEXPIRETIME at | EXPIRETIME at | TTL none"), "99999999999999 | 100000000000 | -2");
        let left: u64 = ask(node, "PTTL k").parse().expect("milliseconds");
        assert!((900_000..=1_000_000).contains(&left), "{left}");
    }
    assert_eq!(talk(b, "PERSIST k | EXPIRE at 50 LT"), "1 | 1");
    assert_eq!(talk(c, "TTL k | EXPIRE at 100 GT | TTL at | EXPIRE at 100 NX"), "-1 | 1 | 100 | 0");
    assert_eq!(
        talk(a, "GETEX at PERSIST | TTL at | GETEX at EX 5 | GETDEL at | EXISTS at"),
        "\"v\" | -1 | \"v\" | \"v\" | 0"
    );
    assert_eq!(talk(b, "EXPIRE k -1 | EXISTS k | SET k v PXAT 1 | GET k"), "1 | 0 | OK | nil");
}

/// A pipeline whose reads come at the very moment of an expiry is answered whole and in order.
#[test]
fn reads_behind_an_expiry_in_a_pipeline_are_answered() {
    let cluster = Cluster::start();
    let mut wire = Wire::connect(cluster.nodes[0]);
    for round in 0..50 {
        let value = format!("v{round}");
        assert_eq!(wire.ask(&format!("SET k {value} PX 1")), "OK");
        wire.send(b"GET k\r\nSET k after\r\nGET k\r\nDEL k\r\nGET k\r\n");
        let first = super::wire::show(&wire.receive());
        assert!(first == "nil" || first == format!("\"{value}\""), "{first}");
        let rest: Vec<String> = (0..4).map(|_| super::wire::show(&wire.receive())).collect();
        assert_eq!(rest, ["OK", "\"after\"", "1", "nil"]);
    }
}
