//! Commands about all keys mean the whole database, at every node.

use super::cluster::Cluster;
use super::wire::{Wire, ask, show, talk};
use net::resp::value::Value;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

const KEYS: usize = 500;

fn fill(node: SocketAddr) {
    let mut wire = Wire::connect(node);
    let script: String = (0..KEYS).map(|key| format!("SET key{key} {key}\r\n")).collect();
    wire.send(script.as_bytes());
    (0..KEYS).for_each(|key| assert_eq!(show(&wire.receive()), "OK", "{key}"));
}

/// Returns a page of SCAN: the next cursor and the keys.
fn scan(wire: &mut Wire, cursor: &str, options: &str) -> (String, Vec<String>) {
    wire.send(format!("SCAN {cursor}{options}\r\n").as_bytes());
    let Value::Array(page) = wire.receive() else { panic!("a page") };
    let text = |value: &Value| String::from_utf8(value.as_bytes().expect("text").to_vec()).expect("text");
    (text(&page[0]), page[1].as_items().expect("keys").iter().map(text).collect())
}

#[test]
fn every_node_counts_lists_draws_and_flushes_all_keys() {
    let cluster = Cluster::start();
    fill(cluster.nodes[0]);
    for node in &cluster.nodes {
        let node = *node;
        assert_eq!(ask(node, "DBSIZE"), KEYS.to_string());
        let Value::Array(keys) = keys(node, "*") else { panic!("a list") };
        assert_eq!(keys.iter().map(show).collect::<BTreeSet<_>>().len(), KEYS);
        assert_eq!(ask(node, "KEYS key499"), "[\"key499\"]");
        let drawn: BTreeSet<String> = (0..40).map(|_| ask(node, "RANDOMKEY")).collect();
        assert!(drawn.len() > 10 && drawn.iter().all(|key| key.starts_with("\"key")), "{drawn:?}");
        let mut wire = Wire::connect(node);
        let (_, some) = scan(&mut wire, "0", " MATCH *7 COUNT 1000");
        assert!(!some.is_empty() && some.iter().all(|key| key.ends_with('7')), "{some:?}");
        assert_eq!(scan(&mut wire, "0", " TYPE list COUNT 1000").1, Vec::<String>::new());
    }
    assert_eq!(ask(cluster.nodes[2], "FLUSHALL"), "OK");
    for node in &cluster.nodes {
        assert_eq!(talk(*node, "DBSIZE | KEYS * | RANDOMKEY | SCAN 0 COUNT 1000"), "0 | [] | nil | [\"0\" []]");
    }
}

fn keys(node: SocketAddr, pattern: &str) -> Value {
    let mut wire = Wire::connect(node);
    wire.send(format!("KEYS {pattern}\r\n").as_bytes());
    wire.receive()
}

/// Each page is read from another node. Meanwhile other keys are written and removed; the scan may return them or not.
#[test]
fn a_scan_over_all_nodes_finds_every_key_that_is_there_throughout() {
    let cluster = Cluster::start();
    fill(cluster.nodes[0]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut wire = Wire::connect(cluster.nodes[1]);
            for round in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                wire.ask(&format!("SET passing{} x", round % 300));
                wire.ask(&format!("DEL passing{}", (round * 7) % 300));
            }
        });
        let result = std::panic::catch_unwind(|| {
            let mut wires: Vec<Wire> = cluster.nodes.iter().map(|node| Wire::connect(*node)).collect();
            for count in ["", " COUNT 7", " COUNT 100"] {
                let (mut cursor, mut found, mut pages) = ("0".to_owned(), BTreeSet::new(), 0);
                loop {
                    let (next, keys) = scan(&mut wires[pages % 3], &cursor, count);
                    found.extend(keys.into_iter().filter(|key| key.starts_with("key")));
                    (cursor, pages) = (next, pages + 1);
                    assert!(pages < 10 * KEYS, "the cursor goes round");
                    if cursor == "0" {
                        break;
                    }
                }
                assert_eq!(found.len(), KEYS, "COUNT{count}");
            }
        });
        stop.store(true, Ordering::Relaxed);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}
