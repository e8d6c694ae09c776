//! Atomic commands: MULTI, and commands with several keys, within a group and across groups.

use super::cluster::Cluster;
use super::wire::{ask, talk};

const CROSS: &str = "-CROSSSLOT Keys in request don't hash to the same slot: \
                     give them a common {tag}, or make a cluster with one group";
const ALL: &str = "-CROSSSLOT Keys in request don't hash to the same slot: SCAN KEYS DBSIZE RANDOMKEY FLUSHALL FLUSHDB \
                   concern all groups: send them without ONCE, and in MULTI as the only command on keys";

/// The keys `a` and `b` are in different groups. Keys with the same hash tag are in one group.
#[test]
fn keys_of_several_groups_cannot_be_changed_as_one() {
    let cluster = Cluster::start();
    for (number, node) in cluster.nodes.iter().enumerate() {
        let node = *node;
        assert_eq!(talk(node, "FLUSHALL | MSET a 1 b 2 a{t} 3"), "OK | OK", "node {number}");
        for command in ["RENAME a b", "RENAMENX a b", "COPY a b", "MSETNX a 9 b 9", "RENAME a{t} b"] {
            assert_eq!(talk(node, &format!("{command} | MGET a b a{{t}}")), format!("{CROSS} | [\"1\" \"2\" \"3\"]"));
        }
        let crossed = |why| format!("OK | QUEUED | QUEUED | {why} | -ERR EXEC without MULTI");
        assert_eq!(talk(node, "MULTI | SET a 9 | SET b 9 | EXEC | EXEC"), crossed(CROSS));
        assert_eq!(talk(node, "MULTI | SET a 9 | DBSIZE | EXEC | EXEC"), crossed(ALL));
        assert_eq!(talk(node, "MGET a b a{t} | EXISTS a b c a{t} | DEL a b c"), "[\"1\" \"2\" \"3\"] | 3 | 2");
        assert_eq!(talk(node, "RENAME a{t} b{t} | COPY b{t} c{t} | RENAMENX b{t} c{t}"), "OK | 1 | 0");
        assert_eq!(talk(node, "MSETNX d{t} 1 e{t} 2 | MSETNX e{t} 1 f{t} 2 | EXISTS d{t} e{t} f{t}"), "1 | 0 | 2");
    }
}

#[test]
fn a_transaction_is_one_command_of_its_group() {
    let cluster = Cluster::start();
    let node = cluster.nodes[0];
    let reply = talk(node, "MULTI | SET a{t} 1 | INCR b{t} | GET a{t} | INCR a{t} | EXEC");
    assert_eq!(reply, "OK | QUEUED | QUEUED | QUEUED | QUEUED | [OK 1 \"1\" 2]");
    // An error inside a transaction is the reply of its command, and the other commands are executed.
    let reply = talk(node, "MULTI | SET a{t} x | INCR a{t} | SET a{t} 1 PX | GET a{t} | EXEC");
    let inside = "[OK -ERR value is not an integer or out of range -ERR syntax error \"x\"]";
    assert_eq!(reply, format!("OK | QUEUED | QUEUED | QUEUED | QUEUED | {inside}"));
    // An unknown command aborts the transaction.
    let aborted = "-EXECABORT Transaction discarded because of previous errors.";
    let unknown = "-ERR unknown command 'FOO', with args beginning with: ";
    assert_eq!(talk(node, "MULTI | SET a{t} 9 | FOO | EXEC"), format!("OK | QUEUED | {unknown} | {aborted}"));
    assert_eq!(talk(node, "MULTI | SET a{t} 9 | DISCARD | EXEC"), "OK | QUEUED | OK | -ERR EXEC without MULTI");
    assert_eq!(talk(node, "MULTI | SET a{t} 9 | RESET | EXEC"), "OK | QUEUED | RESET | -ERR EXEC without MULTI");
    assert_eq!(ask(cluster.nodes[1], "GET a{t}"), "\"x\"");
    // A transaction may mix the node's own commands with commands of the group.
    let reply = talk(node, "MULTI | WAIT 1 0 | INCR b{t} | PING | CONFIG GET save | GET b{t} | SELECT 0 | EXEC");
    assert!(reply.ends_with(" 2 PONG [\"save\" \"\"] \"2\" OK]"), "{reply}");
    assert_eq!(talk(node, "MULTI | EXEC | MULTI | PING | EXEC"), "OK | [] | OK | QUEUED | [PONG]");
}

/// Many client libraries wrap a pipeline in MULTI and EXEC, and so send such transactions.
#[test]
fn a_command_about_all_keys_can_be_a_transaction() {
    let cluster = Cluster::start();
    let node = cluster.nodes[1];
    assert_eq!(talk(node, "FLUSHALL | MSET a 1 b 2 c 3"), "OK | OK");
    assert_eq!(
        talk(node, "MULTI | DBSIZE | EXEC | MULTI | KEYS b | EXEC"),
        "OK | QUEUED | [3] | OK | QUEUED | [[\"b\"]]"
    );
    assert_eq!(
        talk(node, "MULTI | PING | FLUSHDB | ECHO x | EXEC | DBSIZE"),
        "OK | QUEUED | QUEUED | QUEUED | [PONG OK \"x\"] | 0"
    );
    assert_eq!(
        talk(node, "MULTI | FLUSHALL | EXEC | MULTI | RANDOMKEY | EXEC"),
        "OK | QUEUED | [OK] | OK | QUEUED | [nil]"
    );
    assert_eq!(talk(node, "MULTI | SCAN 0 COUNT 100 | EXEC"), "OK | QUEUED | [[\"0\" []]]");
}

/// Readers at other nodes never see half of a transaction.
#[test]
fn a_transaction_is_seen_whole_or_not_at_all() {
    let cluster = Cluster::start();
    let (writer, readers) = (cluster.nodes[0], [cluster.nodes[1], cluster.nodes[2]]);
    assert_eq!(ask(writer, "MSET x{t} 0 y{t} 0"), "OK");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..200 {
                talk(writer, "MULTI | INCR x{t} | INCR y{t} | EXEC");
            }
        });
        for reader in readers {
            scope.spawn(move || {
                let mut last = String::new();
                while last != "[\"200\" \"200\"]" {
                    last = ask(reader, "MGET x{t} y{t}");
                    let (x, y) = last.trim_matches(['[', ']']).split_once(' ').expect("two values");
                    assert_eq!(x, y);
                }
            });
        }
    });
}
