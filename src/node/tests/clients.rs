//! Waits that clients request: pauses, and waits for the disks of other members.

use super::*;

/// Sends a request that may have to wait. Returns the replies of the first 100 ms.
fn sent(world: &mut World, id: u32, number: u64, request: &str) -> String {
    world.send(id, number, format!("{}\r\n", request.replace(" | ", "\r\n")).as_bytes());
    world.run(Ms(100));
    world.replies(id, number)
}

/// Waits until the remaining replies to a client of node 1 are `reply`, for at most `limit_ms`.
fn until_told(world: &mut World, number: u64, limit_ms: Ms, reply: &str) {
    let expected = format!("{}\r\n", reply.replace(' ', "\r\n")).into_bytes();
    let had = |world: &World| world.nodes[0].replies.get(&client(number)) == Some(&expected);
    world.run_until(reply, limit_ms, had);
    world.replies(1, number);
}

#[test]
fn a_pause_of_writes_lets_them_wait_and_reads_pass() {
    let mut world = World::led_by_1();
    assert_eq!(world.ask(1, 0, "CLIENT PAUSE 3000 WRITE"), "+OK");
    assert_eq!(sent(&mut world, 1, 1, "GET k | SET k 1 | GET k"), "$-1", "what comes behind a write waits, too");
    assert_eq!(sent(&mut world, 1, 2, "MULTI | GET k | EXEC | PING"), "+OK +QUEUED *1 $-1 +PONG");
    assert_eq!(sent(&mut world, 1, 3, "MULTI | SET z 2 | EXEC"), "+OK");
    assert_eq!(sent(&mut world, 2, 0, "GET k | SET other 1"), "$-1 +OK", "clients of other nodes are served");
    world.run(Ms(2_000));
    assert_eq!(world.replies(1, 1), "");
    until_told(&mut world, 1, Ms(1_000), "+OK $1 1");
    world.run(Ms(100));
    assert_eq!(world.replies(1, 3), "+QUEUED *1 +OK");
}

#[test]
fn a_pause_of_everything_ends_when_it_is_said() {
    let mut world = World::led_by_1();
    assert_eq!(sent(&mut world, 1, 0, "CLIENT PAUSE 9223372036854775807 | PING"), "+OK");
    assert_eq!(sent(&mut world, 1, 1, "GET k"), "");
    assert_eq!(sent(&mut world, 1, 2, "MULTI"), "");
    assert_eq!(sent(&mut world, 2, 0, "SET k 1"), "+OK", "the node leads on");
    world.run(Ms(60_000));
    assert_eq!((world.replies(1, 0), world.replies(1, 1)), (String::new(), String::new()));
    assert_eq!(sent(&mut world, 1, 3, "CLIENT UNPAUSE"), "+OK");
    assert_eq!((world.replies(1, 0), world.replies(1, 1)), ("+PONG".to_owned(), "$1 1".to_owned()));
    assert_eq!(world.replies(1, 2), "+OK");
}

#[test]
fn a_pause_inside_a_transaction_begins_behind_it() {
    let mut world = World::led_by_1();
    let script = "MULTI | CLIENT PAUSE 500 WRITE | SET k 1 | EXEC | GET k | SET k 2";
    assert_eq!(sent(&mut world, 1, 0, script), "+OK +QUEUED +QUEUED *2 +OK +OK $1 1");
    until_told(&mut world, 0, Ms(500), "+OK");
}

#[test]
fn wait_counts_the_members_that_have_it_on_their_disks() {
    let mut world = World::led_by_1();
    // Both other members have the write on disk as soon as they have learned that it was chosen.
    world.send(1, 0, b"SET k 1\r\nWAIT 2 500\r\n");
    until_told(&mut world, 0, Ms(400), "+OK :2");
    // A follower's clients get the same answer. An answer that is already certain comes at once.
    assert_eq!(sent(&mut world, 2, 0, "SET k 2 | WAIT 1 0"), "+OK :1");
    // One disk is stuck, so its member has the write in memory at most.
    world.node(3).is_stuck = true;
    assert_eq!(sent(&mut world, 1, 0, "SET k 3 | WAIT 2 500 | GET k"), "+OK");
    world.run(Ms(300));
    assert_eq!(world.replies(1, 0), "");
    until_told(&mut world, 0, Ms(200), ":1 $1 3");
    assert_eq!(sent(&mut world, 1, 0, "SET k 4 | WAITAOF 1 2 500"), "+OK");
    until_told(&mut world, 0, Ms(500), "*2 :1 :1");
    // Without a time limit the client waits as long as it takes.
    assert_eq!(sent(&mut world, 1, 0, "SET k 5 | WAITAOF 1 2 0"), "+OK");
    world.run(ELECTED_MS);
    assert_eq!(world.replies(1, 0), "");
    world.node(3).is_stuck = false;
    until_told(&mut world, 0, ELECTED_MS, "*2 :1 :2");
}

#[test]
fn wait_ends_when_the_client_is_unblocked_or_gone() {
    let mut world = World::led_by_1();
    world.node(3).is_stuck = true;
    for (reason, reply) in
        [("", ":1"), (" TIMEOUT", ":1"), (" ERROR", "-UNBLOCKED client unblocked via CLIENT UNBLOCK")]
    {
        assert_eq!(sent(&mut world, 1, 0, "SET k 1 | WAIT 2 0 | PING"), "+OK");
        let listed = world.ask(1, 1, "CLIENT LIST");
        assert!(listed.contains(" flags=b ") && listed.contains(" cmd=wait "), "{listed}");
        assert_eq!(world.ask(1, 1, &format!("CLIENT UNBLOCK 1{reason}")), ":1");
        world.run(Ms(100));
        assert_eq!(world.replies(1, 0), format!("{reply} +PONG"));
        assert_eq!(world.ask(1, 1, "CLIENT UNBLOCK 1"), ":0", "the client no longer waits");
    }
    assert_eq!(sent(&mut world, 1, 0, "WAIT 2 0"), "");
    let time = world.time;
    world.node(1).node.closed(client(0), time);
    world.run(Ms(100));
    assert!(!world.node(1).node.clients.is_any_waiting());
}

#[test]
fn wait_in_a_transaction_answers_what_is_certain() {
    let mut world = World::led_by_1();
    world.isolate(3);
    let script = "MULTI | SET k 1 | WAIT 2 1000 | WAITAOF 0 2 1000 | EXEC";
    assert_eq!(sent(&mut world, 1, 0, "SET k 0"), "+OK");
    assert_eq!(sent(&mut world, 1, 0, script), "+OK +QUEUED +QUEUED +QUEUED *3 +OK :1 *2 :1 :1");
}

#[test]
fn a_transaction_has_one_reply_in_one_protocol() {
    let mut world = World::led_by_1();
    let aborted = "-EXECABORT Transaction discarded because of previous errors.";
    let reply = sent(&mut world, 1, 0, "MULTI | GET k | HELLO 3 | EXEC | PING");
    let refused = "-ERR HELLO cannot change the protocol inside a transaction: EXEC has one reply";
    assert_eq!(reply, format!("+OK +QUEUED {refused} {aborted} +PONG"));
    for mode in ["SKIP", "off"] {
        let reply = sent(&mut world, 1, 0, &format!("MULTI | GET k | CLIENT REPLY {mode} | GET k | EXEC | PING"));
        let refused = "-ERR CLIENT REPLY OFF and SKIP are not allowed in a transaction: EXEC has one reply";
        assert_eq!(reply, format!("+OK +QUEUED {refused} +QUEUED {aborted} +PONG"));
    }
    let reply = sent(&mut world, 1, 0, "MULTI | GET k | HELLO 2 | CLIENT REPLY ON | EXEC");
    assert!(reply.starts_with("+OK +QUEUED +QUEUED +QUEUED *3 $-1 *14 ") && reply.ends_with(" +OK"), "{reply}");
}
