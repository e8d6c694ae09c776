//! The replies to clients, and their delays, at a node that reaches no majority, cannot log, or has unanswered
//! commands.

use super::*;
use crate::config::{GROUP_QUEUE_BYTES, REACH_GRACE_MS, RELAY_BYTES_MAX, SILENT_MS_MAX};

const NOT_REACHED: &str = "-CLUSTERDOWN Hash slot not served: this node reaches no majority of its cluster's nodes";
const UNCERTAIN: &str = "-UNCERTAIN the command may or may not have been executed";
const TIMEOUT_MS: Ms = Ms(5_000);
/// Limit until a node notices a silence and the grace period is over, in milliseconds.
const NOTICED_MS: Ms = Ms(SILENT_MS_MAX.0 + REACH_GRACE_MS.0 + 200);
/// Limit for an answer that comes at once, in milliseconds.
const AT_ONCE_MS: Ms = Ms(3 * TICK_MS.0);

impl World {
    /// Sends a request and returns its reply, which must come within [`AT_ONCE_MS`].
    fn ask_now(&mut self, id: u32, number: u64, request: &str) -> String {
        let before = self.time.mono_us;
        let reply = self.ask(id, number, request);
        let took_ms = (self.time.mono_us - before).to_ms();
        assert!(took_ms <= AT_ONCE_MS, "{request} was answered {reply} after {took_ms} ms");
        reply
    }

    fn begin_to_ask(&mut self, id: u32, number: u64, request: &str) {
        self.node(id).replies.remove(&client(number));
        self.send(id, number, format!("{request}\r\n").as_bytes());
    }

    /// Waits for the reply to an earlier request. Returns the reply and its time in milliseconds.
    fn reply(&mut self, id: u32, number: u64, limit_ms: Ms) -> (String, Ms) {
        let place = id as usize - 1;
        self.run_until("a reply", limit_ms, |world| world.nodes[place].replies.contains_key(&client(number)));
        let reply = self.node(id).replies.remove(&client(number)).unwrap_or_default();
        (String::from_utf8_lossy(&reply).trim_end().to_owned(), self.time.mono_us.to_ms())
    }

    fn now_ms(&self) -> Ms {
        self.time.mono_us.to_ms()
    }
}

#[test]
fn a_node_in_a_minority_says_so_at_once_and_recovers_at_once() {
    let mut world = World::led_by_1();
    assert_eq!(world.ask(1, 0, "SET key 1"), "+OK");
    for id in [1, 3] {
        world.isolate(id);
        world.run(NOTICED_MS);
        for command in ["SET key 2", "GET key", "DEL key", "MGET a b", "DBSIZE", "SESSION NEW"] {
            assert_eq!(world.ask_now(id, 0, command), NOT_REACHED, "{command} at node {id}");
        }
        assert_eq!((world.ask_now(id, 0, "MULTI"), world.ask_now(id, 0, "INCR key")), ("+OK".into(), "+QUEUED".into()));
        assert_eq!(world.ask_now(id, 0, "EXEC"), NOT_REACHED);
        assert_eq!(world.ask_now(id, 0, "PING"), "+PONG");
        assert_eq!(
            (world.ask_now(id, 1, "READONLY"), world.ask_now(id, 1, "GET key")),
            ("+OK".into(), "$1\r\n1".into())
        );

        world.cut.clear();
        let place = id as usize - 1;
        world.run_until("a connection", ELECTED_MS, |world| {
            world.nodes[place].node.peers.reached(world.now_ms()).len() == 2
        });
        world.step();
        assert_eq!(world.ask(id, 0, "GET key"), "$1\r\n1", "the node serves reads again");
        world.run_until("node 1 leads again", Ms(20_000), |world| world.leads(1) && world.follows(3));
    }
}

#[test]
fn commands_that_never_left_an_isolated_node_are_answered_early_and_the_rest_keeps_its_time() {
    let mut world = World::led_by_1();
    world.isolate(3);
    let cut_ms = world.now_ms();
    // This command goes out to the leader, as far as node 3 knows.
    world.begin_to_ask(3, 0, "SET key 1");
    world.run_until("node 3 knows no leader", ELECTED_MS, |world| !world.follows(3));
    world.begin_to_ask(3, 1, "SET key 2");
    world.begin_to_ask(3, 2, "GET key");
    for client in [1, 2] {
        let (reply, at_ms) = world.reply(3, client, ELECTED_MS);
        assert_eq!(reply, NOT_REACHED);
        assert!(at_ms - cut_ms <= NOTICED_MS, "after {} ms", at_ms - cut_ms);
    }
    let (reply, at_ms) = world.reply(3, 0, TIMEOUT_MS + Ms(1_000));
    assert_eq!(reply, UNCERTAIN);
    assert!((TIMEOUT_MS..TIMEOUT_MS + Ms(100)).contains(&(at_ms - cut_ms)), "after {} ms", at_ms - cut_ms);
    world.cut.clear();
    world.run_until("node 3 follows", ELECTED_MS, |world| world.follows(3));
    world.run(Ms(1_000));
    assert_eq!(world.ask(3, 0, "GET key"), "$1\r\n1", "what it sent out was carried out, what it withdrew was not");
}

fn exhausted() -> Space {
    Space { room: 1 << 20, ..full() }
}

#[test]
fn a_node_whose_disk_is_full_has_others_carry_its_commands_out() {
    let mut world = World::led_by_1();
    assert_eq!(world.ask(3, 0, "SET key 1"), "+OK");
    world.node(3).node.set_space(exhausted());
    world.run(Ms(200));
    for number in 0..100 {
        assert_eq!(world.ask(1, 0, &format!("SET other {number}")), "+OK");
    }
    assert!(world.next(3) < world.next(1), "it logs nothing");
    for (command, reply) in [
        ("SET key 2", "+OK"),
        ("GET key", "$1\r\n2"),
        ("GET other", "$2\r\n99"),
        ("INCRBY key 5", ":7"),
        ("MSET a 1 b 2", "+OK"),
        ("MGET a b none", "*3\r\n$1\r\n1\r\n$1\r\n2\r\n$-1"),
        ("DEL a b none", ":2"),
        ("SET key 8 GET", "$1\r\n7"),
        ("GETRANGE nothing 0 -1", "$0"),
        ("INCR other x", "-ERR wrong number of arguments for 'incr' command"),
        ("APPEND key 1", ":2"),
        ("DBSIZE", ":2"),
        ("MULTI", "+OK"),
        ("INCR key", "+QUEUED"),
        ("PING", "+QUEUED"),
        ("GET key", "+QUEUED"),
        ("EXEC", "*3\r\n:82\r\n+PONG\r\n$2\r\n82"),
    ] {
        assert_eq!(world.ask_now(3, 0, command), reply, "{command}");
    }
    let info = world.ask_now(3, 0, "INFO paxos");
    assert!(info.contains("\r\ndisk:full\r\nrelays_to:1\r\n"), "{info}");

    // Pipelined commands are answered in order.
    world.begin_to_ask(3, 0, "SET n 0\r\nINCR n\r\nGET n\r\nINCR n\r\nGET n");
    world.run(AT_ONCE_MS);
    assert_eq!(world.reply(3, 0, AT_ONCE_MS).0, "+OK\r\n:1\r\n$1\r\n1\r\n:2\r\n$1\r\n2");

    // The node that executes the relayed commands is cut off, and another one takes over.
    world.isolate(1);
    let cut_ms = world.now_ms();
    world.begin_to_ask(3, 1, "INCR n");
    world.begin_to_ask(3, 2, "GET n");
    let (reply, at_ms) = world.reply(3, 1, TIMEOUT_MS);
    assert!(reply == UNCERTAIN && at_ms - cut_ms <= NOTICED_MS, "{reply} after {} ms", at_ms - cut_ms);
    assert!(world.reply(3, 2, AT_ONCE_MS).0.starts_with("-CLUSTERDOWN"));
    world.run_until("node 2 leads", ELECTED_MS, |world| world.leads(2));
    // A majority needs the full node, too. Nothing can be chosen until that node logs again.
    world.node(3).node.set_space(Space::default());
    world.run_until("it has all", ELECTED_MS, |world| world.next(3) == world.next(2));
    assert_eq!(world.ask(3, 0, "INCR n"), ":3");
    let info = world.ask_now(3, 0, "INFO paxos");
    assert!(info.contains("\r\ndisk:ok\r\nrelays_to:0\r\n"), "{info}");
}

#[test]
fn commands_that_a_full_node_cannot_pass_on_are_refused_with_the_reason() {
    let mut world = World::led_by_1();
    let long = "v".repeat(RELAY_BYTES_MAX);
    for _ in 0..6 {
        world.ask(1, 0, &format!("APPEND long1 {}", &long[..50_000]));
    }
    world.node(3).node.set_space(exhausted());
    world.run(Ms(200));
    let request = format!("*3\r\n$3\r\nSET\r\n$4\r\nlong\r\n${}\r\n{long}", long.len());
    let refusal = world.ask_now(3, 0, &request);
    assert!(refusal.starts_with("-MISCONF the disk of this node is full, and it forwards no commands"), "{refusal}");
    assert!(refusal.ends_with("send this one to node 1 at 127.0.0.1:1"), "{refusal}");
    let refusal = world.ask_now(3, 0, "GET long1");
    assert!(refusal.starts_with("-MISCONF the disk of this node is full, and the reply of another node"), "{refusal}");
    assert_eq!(world.ask_now(3, 0, "STRLEN long1"), ":300000");

    // All nodes are full, and node 3 lacks what the others have.
    assert_eq!(world.ask(1, 0, "SET key 1"), "+OK");
    world.nodes.iter_mut().for_each(|host| host.node.set_space(full()));
    world.node(3).node.set_space(exhausted());
    world.run(Ms(1_000));
    for (command, reply) in [
        ("GET key", "-MISCONF the disk is full: this node lacks newer writes"),
        ("DEL key", "-MISCONF the disk is full: only reads are served"),
        ("SET key 2", "-MISCONF the disk is full: commands that may add data"),
    ] {
        let found = world.ask_now(3, 0, command);
        assert!(found.starts_with(reply), "{command}: {found}");
    }
}

#[test]
fn clients_that_wait_for_others_commands_are_told_when_those_get_no_answer() {
    // Size of a value: nearly the maximum that goes into the log whole.
    const VALUE_BYTES: usize = (1 << 20) - 1_024;
    let mut world = World::led_by_1();
    world.nodes.iter_mut().for_each(|host| host.log = None);
    // Node 1 reaches a majority, which votes for nothing.
    [2, 3].into_iter().for_each(|id| world.node(id).is_stuck = true);
    let began_ms = world.now_ms();
    let head = format!("*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n${VALUE_BYTES}\r\n");
    let mut request = head.into_bytes();
    request.resize(request.len() + VALUE_BYTES, b'v');
    request.extend_from_slice(b"\r\n");
    let clients = GROUP_QUEUE_BYTES / VALUE_BYTES + 1;
    for client in 0..clients as u64 {
        world.send(1, client, &request);
        world.step();
    }
    // One more request has to wait. Nothing of it is read.
    let late = clients as u64;
    world.send(1, late, &request);
    world.run(Ms(1_000));
    assert!(world.node(1).replies.is_empty(), "the queue is full, and nobody is refused yet");
    for client in 0..clients as u64 {
        let (reply, at_ms) = world.reply(1, client, TIMEOUT_MS + Ms(1_000));
        assert!(
            reply == UNCERTAIN && at_ms - began_ms <= TIMEOUT_MS + Ms(1_000),
            "{reply} after {} ms",
            at_ms - began_ms
        );
    }
    // The input is offered again, as by the server when the node resumes a connection.
    world.send(1, late, &request);
    let refusal = world.reply(1, late, AT_ONCE_MS).0;
    assert_eq!(refusal, "-CLUSTERDOWN Hash slot not served: too many commands wait without an answer");
    world.send(1, 98, &request);
    assert_eq!(world.reply(1, 98, AT_ONCE_MS).0, refusal);

    [2, 3].into_iter().for_each(|id| world.node(id).is_stuck = false);
    world.run_until("the queue is empty", ELECTED_MS * 2, |world| {
        world.nodes[0].node.engine.shard().queued_bytes() == 0
    });
    assert_eq!(world.ask(1, 99, "SET key 1"), "+OK");
}
