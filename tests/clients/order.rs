//! Replies come in the order of the requests, whichever group answers first. Also: which requests get a reply at all.

use super::cluster::Cluster;
use super::wire::{Wire, ask, exchange, show, talk};
use paxoi::rng::Rng;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// Requests in one write.
const REQUESTS: usize = 600;
/// Number of keys in these requests, spread over all groups.
const KEYS: u64 = 40;

/// A model of a few commands predicts each reply: a read sees all writes that were sent before it, and none that was
/// sent after it.
#[test]
fn hundreds_of_requests_in_one_write_are_answered_in_order() {
    let cluster = Cluster::start();
    let (mut rng, mut values) = (Rng::new(7), HashMap::<u64, i64>::new());
    for round in 0..6 {
        let (mut script, mut expected) = (String::new(), Vec::new());
        for number in 0..REQUESTS {
            let key = rng.below(KEYS);
            let (request, reply) = match rng.below(7) {
                0 => (format!("PING {number}"), format!("\"{number}\"")),
                1 => {
                    values.insert(key, number as i64);
                    (format!("SET key{key} {number}"), "OK".to_owned())
                }
                2 | 3 => {
                    let value = values.entry(key).or_default();
                    *value += 1;
                    (format!("INCR key{key}"), value.to_string())
                }
                4 => {
                    let there = [key, key + 1].iter().filter(|key| values.contains_key(key)).count();
                    (format!("EXISTS key{key} key{}", key + 1), there.to_string())
                }
                5 => {
                    let gone = i64::from(values.remove(&key).is_some());
                    (format!("DEL key{key}"), gone.to_string())
                }
                _ => {
                    let value = values.get(&key).map_or("nil".to_owned(), |value| format!("\"{value}\""));
                    (format!("GET key{key}"), value)
                }
            };
            let _ = write!(script, "{request}\r\n");
            expected.push((request, reply));
        }
        let mut wire = Wire::connect(cluster.nodes[round % cluster.nodes.len()]);
        wire.send(script.as_bytes());
        for (number, (request, reply)) in expected.into_iter().enumerate() {
            assert_eq!(show(&wire.receive()), reply, "round {round}, request {number}: {request}");
        }
    }
}

/// The client sends more requests than the server takes on at a time, and reads the replies only afterwards.
#[test]
fn a_half_closed_connection_gets_all_its_replies() {
    let cluster = Cluster::start();
    let script: String =
        (0..20_000).map(|number| format!("SET key{} {number}\r\nGET key{0}\r\n", number % 997)).collect();
    let expected: String = (0..20_000).fold(String::new(), |mut all, number: i32| {
        let digits = number.to_string();
        let _ = write!(all, "+OK\r\n${}\r\n{digits}\r\n", digits.len());
        all
    });
    let replies = exchange(cluster.nodes[0], &script);
    assert!(replies == expected.as_bytes(), "{} bytes of {}", replies.len(), expected.len());
    assert_eq!(talk(cluster.nodes[1], "SET a 1 | QUIT | SET a 2"), "OK | OK");
    assert_eq!(ask(cluster.nodes[2], "GET a"), "\"1\"", "what follows QUIT is not carried out");
}

/// Suppressed replies that have to wait for a group neither delay nor displace the other replies.
#[test]
fn replies_can_be_switched_off_and_skipped() {
    let cluster = Cluster::start();
    let node = cluster.nodes[1];
    assert_eq!(
        talk(node, "CLIENT REPLY SKIP | SET a 1 | GET a | CLIENT REPLY SKIP | MGET a b c | DBSIZE"),
        "\"1\" | 1"
    );
    assert_eq!(talk(node, "CLIENT REPLY OFF | INCR a | MSET b 1 c 2 | GET a | CLIENT REPLY ON | GET a"), "OK | \"2\"");
    assert_eq!(
        talk(node, "CLIENT REPLY OFF | MULTI | INCR a | EXEC | NONSENSE | CLIENT REPLY ON | GET a"),
        "OK | \"3\""
    );
    assert_eq!(talk(node, "CLIENT REPLY OFF | INCR a | QUIT"), "");
}

/// A refused client gets the reason before its connection closes. A place that becomes free goes to another client.
#[test]
fn one_client_too_many_is_told_so() {
    let cluster = Cluster::start();
    let node = cluster.nodes[0];
    let mut first = Wire::connect(node);
    assert_eq!(first.ask("CONFIG SET maxclients 2"), "OK");
    let mut second = Wire::connect(node);
    assert_eq!(second.ask("PING"), "PONG");
    for _ in 0..5 {
        let mut refused = Wire::connect(node);
        refused.send(b"SET a 1\r\n");
        assert_eq!(refused.rest().escape_ascii().to_string(), "-ERR max number of clients reached\\r\\n");
    }
    assert_eq!(second.ask("GET a"), "nil");
    assert_eq!(first.ask("CLIENT KILL TYPE normal"), "1");
    assert!(second.rest().is_empty());
    // Refused clients count until their connections are gone.
    let deadline = Instant::now() + Duration::from_secs(20);
    while ask(node, "PING") != "PONG" {
        assert!(Instant::now() < deadline, "no place became free");
    }
}

#[test]
fn the_protocol_can_change_in_the_middle() {
    let cluster = Cluster::start();
    let node = cluster.nodes[2];
    // Each reply uses the protocol that was set when its request came, even if the reply is sent later.
    let bytes = exchange(node, "SET a 1\r\nGET b\r\nHELLO 3\r\nGET b\r\nMGET a b\r\nHELLO 2\r\nGET b\r\n");
    let text = String::from_utf8(bytes).expect("text");
    let hello =
        ["\r\n%7\r\n$6\r\nserver\r\n", "\r\n*14\r\n$6\r\nserver\r\n"].map(|head| text.find(head).expect("HELLO"));
    assert_eq!(&text[..hello[0]], "+OK\r\n$-1");
    assert!(text[..hello[1]].ends_with("modules\r\n*0\r\n_\r\n*2\r\n$1\r\n1\r\n_"), "{text}");
    assert!(text.ends_with("modules\r\n*0\r\n$-1\r\n"), "{text}");
    assert_eq!(
        talk(node, "HELLO 3 SETNAME me | CLIENT GETNAME | CONFIG GET save | RESET | CLIENT GETNAME | CONFIG GET save")
            .split_once(" | ")
            .map(|(_, rest)| rest),
        Some("\"me\" | {\"save\": \"\"} | RESET | nil | [\"save\" \"\"]")
    );
    assert_eq!(talk(node, "SELECT 1 | SELECT 0"), "-ERR SELECT is not allowed in cluster mode | OK");
    assert_eq!(talk(node, "WAIT 2 100 | WAITAOF 1 1 0 | READONLY | READWRITE | ASKING"), "2 | [1 2] | OK | OK | OK");
}
