//! Moves of groups that an operator requests, and that something interrupts.

use super::*;

#[test]
fn moves_requested_one_after_the_other_are_all_done() {
    let mut world = World::with_two_groups();
    world.run_until("node 1 leads", ELECTED_MS, |world| world.leads(1) && world.follows(2) && world.follows(3));
    let moves = [2, 3, 1].map(|to| format!("PAXOI LEADER MOVE 0 {to}\r\n")).concat();
    world.send(1, 0, moves.as_bytes());
    world.run(Ms(2_000));
    assert_eq!(world.replies(1, 0), "+OK +OK +OK");
}

#[test]
fn a_move_goes_on_when_another_leads_meanwhile() {
    let mut world = World::led_by_1();
    world.send(2, 0, b"PAXOI LEADER MOVE 0 3\r\n");
    // The leader is cut off together with the request.
    world.isolate(1);
    world.run_until("node 2 leads", ELECTED_MS, |world| world.leads(2));
    assert_eq!(world.replies(2, 0), "");
    world.run_until("node 3 leads", ELECTED_MS, |world| world.leads(3));
    world.run(Ms(100));
    assert_eq!(world.replies(2, 0), "+OK");
}

#[test]
fn a_move_without_a_leader_waits_for_one_until_it_is_late() {
    let mut world = World::led_by_1();
    world.isolate(3);
    world.run_until("node 3 knows no leader", ELECTED_MS, |world| !world.follows(3));
    assert_eq!(world.ask(3, 0, "PAXOI LEADER MOVE 0 2"), "-CLUSTERDOWN group 0 has no leader");
}
