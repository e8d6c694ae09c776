//! Sends the same bytes to a redis-server and to a cluster: every byte that comes back must be the same.
//!
//! The scripts are the lines of `same_as_redis.txt`. They leave out commands whose replies differ on purpose: commands
//! and transactions with keys of several groups, replies with ids or clock times, and the long texts of HELP.

use super::cluster::Cluster;
use super::redis_server::RedisServer;
use super::tools;
use super::wire::{Wire, exchange, show, talk};
const SCRIPTS: &str = include_str!("same_as_redis.txt");

#[test]
fn replies_are_those_of_redis() {
    let Some(redis) = RedisServer::start() else { return tools::skip("redis-server") };
    let cluster = Cluster::start();
    let mut failures = Vec::new();
    let scripts = SCRIPTS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    for (number, script) in scripts.enumerate() {
        let bytes = script.replace(" | ", "\r\n") + "\r\n";
        let node = cluster.nodes[number % cluster.nodes.len()];
        let (theirs, ours) = (exchange(redis.address, &bytes), exchange(node, &bytes));
        if theirs != ours {
            failures.push(format!("{script}\n  redis: {}\n  paxoi: {}", theirs.escape_ascii(), ours.escape_ascii()));
        }
        let cleared = [redis.address, node].map(|address| talk(address, "FLUSHALL"));
        assert_eq!(cleared, ["OK", "OK"], "after {script}");
    }
    assert!(failures.is_empty(), "{} scripts differ:\n{}", failures.len(), failures.join("\n"));
}

/// Replies that come when the pause is over. The client does not half-close, because Redis forgets the paused commands
/// of a half-closed connection.
#[test]
fn what_a_pause_holds_back_is_answered_as_by_redis() {
    let Some(redis) = RedisServer::start() else { return tools::skip("redis-server") };
    let cluster = Cluster::start();
    for script in [
        "CLIENT PAUSE 60 | PING | SET a 1",
        "CLIENT PAUSE 60 ALL | GET a",
        "CLIENT PAUSE 60 WRITE | GET a | SET a 2 | GET a",
        "CLIENT PAUSE 60 WRITE | MULTI | GET a | EXEC | MULTI | SET a 3 | EXEC | GET a",
        "MULTI | CLIENT PAUSE 60 WRITE | SET a 4 | EXEC | GET a | SET a 5 | GET a",
        "CLIENT PAUSE 60 WRITE | CLIENT PAUSE 1 ALL | GET a | DEL a",
    ] {
        let answers = [redis.address, cluster.nodes[0]].map(|address| {
            let mut wire = Wire::connect(address);
            wire.send((script.replace(" | ", "\r\n") + "\r\n").as_bytes());
            script.split(" | ").map(|_| show(&wire.receive())).collect::<Vec<_>>()
        });
        assert_eq!(answers[0], answers[1], "{script}");
    }
}

/// Malformed requests: the error of Redis, after which the connection closes.
#[test]
fn malformed_requests_are_refused_as_redis_refuses_them() {
    let Some(redis) = RedisServer::start() else { return tools::skip("redis-server") };
    let cluster = Cluster::start();
    for bytes in [
        "*1\r\n*1\r\n",
        "*x\r\n",
        "*99999999999\r\n",
        "*1\r\n$x\r\n",
        "*1\r\n$-1\r\n",
        "*1\r\n$99999999999\r\n",
        "*1\r\n$9223372036854775808\r\n",
        "*1\r\nPING\r\n",
        "SET a \"unbalanced\r\n",
        "SET a \"bad\"tail\r\n",
        "PING\r\n*1\r\n*1\r\n",
        "POST / HTTP/1.1\r\n\r\n",
        "GET x HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        let answers = [redis.address, cluster.nodes[0]].map(|address| {
            let mut wire = Wire::connect(address);
            wire.send(bytes.as_bytes());
            wire.rest().escape_ascii().to_string()
        });
        assert_eq!(answers[0], answers[1], "{bytes:?}");
    }
}
