//! Large commands that go into the log in parts.

use super::large::set;
use super::*;
use crate::config::{UPLOAD_PART_BYTES, UPLOAD_PARTS_SENT};

const MIB: usize = 1 << 20;

/// Checks that no log holds a value longer than [`UPLOAD_PARTS_SENT`] + 1 parts.
fn values_are_short(world: &World) {
    let longest = world.nodes.iter().flat_map(|host| host.log.as_deref().unwrap_or_default());
    let longest = longest.map(|record| record.payload().len()).max().unwrap_or(0);
    let parts_max = (UPLOAD_PARTS_SENT + 1) * UPLOAD_PART_BYTES;
    assert!(longest <= parts_max, "a value of {longest} bytes is in a log");
}

/// Runs turns of all nodes in rotation until `holds` returns true.
fn turns_until(world: &mut World, holds: impl Fn(&World) -> bool) {
    for turn in 0..1_000 {
        if holds(world) {
            return;
        }
        world.turn(turn % 3);
    }
    panic!("the condition does not hold within 1,000 turns");
}

#[test]
fn a_large_command_is_executed_whichever_node_gets_it_and_no_value_of_the_log_is_large() {
    for id in 1..=3 {
        let mut world = World::led_by_1();
        world.send(id, 1, &set("k", 6 * MIB));
        world.run_until("it is answered", Ms(4_000), |world| world.replied(id, 1) == "+OK\r\n");
        assert_eq!(world.ask(2, 2, "STRLEN k"), format!(":{}", 6 * MIB));
        values_are_short(&world);
        assert_eq!(world.node(id).node.engine.unsent_bytes(), 0);
    }
}

#[test]
fn small_commands_of_the_same_group_pass_between_the_parts() {
    let mut world = World::led_by_1();
    world.send(1, 1, &set("k", 7 * MIB));
    world.send(1, 2, b"SET small 1\r\n");
    turns_until(&mut world, |world| world.replied(1, 2) == "+OK\r\n");
    assert_eq!(world.replied(1, 1), "", "the large one is on its way");
    world.run_until("the large one is answered", Ms(4_000), |world| world.replied(1, 1) == "+OK\r\n");
}

#[test]
fn a_clients_next_commands_see_its_large_one() {
    let mut world = World::led_by_1();
    let requests =
        [&set("k", 2 * MIB)[..], b"STRLEN k\r\nAPPEND k x\r\n", &set("k", 2 * MIB), b"STRLEN k\r\n"].concat();
    let mut input = BytesMut::from(&requests[..]);
    let expected = format!("+OK\r\n:{0}\r\n:{1}\r\n+OK\r\n:{0}\r\n", 2 * MIB, 2 * MIB + 1);
    for _ in 0..400 {
        // The input is offered again, as by the server when the node resumes a connection.
        world.give(1, 1, &mut input);
        world.step();
    }
    assert_eq!((world.replied(1, 1), input.len()), (expected, 0));
}

#[test]
fn a_large_transaction_is_executed_at_once() {
    let mut world = World::led_by_1();
    let mut requests = b"MULTI\r\n".to_vec();
    for key in ["a", "b"] {
        requests.extend_from_slice(&set(key, MIB));
    }
    requests.extend_from_slice(b"STRLEN a\r\nEXEC\r\n");
    world.send(2, 1, &requests);
    let end = format!("*3\r\n+OK\r\n+OK\r\n:{MIB}\r\n");
    world.run_until("it is answered", Ms(4_000), |world| world.replied(2, 1).ends_with(&end));
    values_are_short(&world);
}

#[test]
fn an_upload_without_a_majority_was_surely_not_executed_and_leaves_nothing() {
    let mut world = World::led_by_1();
    [2, 3].into_iter().for_each(|id| world.node(id).is_stuck = true);
    world.send(1, 1, &set("k", 6 * MIB));
    world.run_until("it is refused", Ms(6_000), |world| world.replied(1, 1).starts_with("-CLUSTERDOWN"));
    assert_eq!(world.node(1).node.engine.unsent_bytes(), 0);
    [2, 3].into_iter().for_each(|id| world.node(id).is_stuck = false);
    world.run_until("the queue is empty", ELECTED_MS * 2, |world| {
        world.nodes[0].node.engine.shard().queued_bytes() == 0
    });
    assert_eq!(world.ask(2, 2, "EXISTS k"), ":0");
    let held = |host: &Host| host.node.engine.shard().store(GROUP).bytes();
    world.run(Ms(1_000));
    assert!(world.nodes.iter().map(held).all(|bytes| bytes < 10_000), "its parts are dropped");
    world.send(1, 3, &set("k", 2 * MIB));
    world.run_until("a later upload is executed", Ms(4_000), |world| world.replied(1, 3) == "+OK\r\n");
}

#[test]
fn progress_counts_not_time() {
    let mut world = World::led_by_1();
    world.nodes.iter_mut().for_each(|host| host.node.config.client_timeout_ms = Ms(50));
    world.send(3, 1, &set("k", 7 * MIB));
    world.run_until("it is answered", Ms(20_000), |world| !world.replied(3, 1).is_empty());
    assert_eq!(world.replied(3, 1), "+OK\r\n");
}

#[test]
fn a_new_leader_goes_on_where_the_last_one_was() {
    let mut world = World::led_by_1();
    world.send(2, 1, &set("k", 7 * MIB));
    let next = world.next(2);
    turns_until(&mut world, |world| world.next(2) > Instance(next.0 + 2));
    assert!(world.replied(2, 1).is_empty(), "some parts are chosen");
    world.isolate(1);
    world.run_until("it is answered", ELECTED_MS * 3, |world| world.replied(2, 1) == "+OK\r\n");
    assert_eq!(world.ask(3, 2, "STRLEN k"), format!(":{}", 7 * MIB));
    values_are_short(&world);
}

#[test]
fn among_old_members_commands_go_whole() {
    let mut world = World::led_by_1();
    world.speaks_no_parts(1);
    world.send(1, 1, &set("k", 6 * MIB));
    world.run_until("it is answered", Ms(4_000), |world| world.replied(1, 1) == "+OK\r\n");
    let longest = world.nodes[0].log.iter().flatten().map(|record| record.payload().len()).max();
    assert!(longest.is_some_and(|bytes| bytes > 6 * MIB));
}
