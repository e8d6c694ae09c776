//! Nodes that are killed or stopped while the network has faults, too.

use crate::harness::turn;
use crate::proxy::Rule;
use crate::stage::Stage;
use std::time::Duration;

#[test]
fn kill_9_of_a_leader_that_is_cut_off() {
    let _turn = turn();
    let mut stage = Stage::start(3, 4, 21);
    let leader = stage.cluster.busiest();
    stage.note("nodes cut off");
    stage.isolate(&[leader], Rule::Hold);
    stage.expect_progress(&stage.others(&[leader]));
    stage.note("kill -9");
    stage.cluster.kill9(leader);
    stage.network.heal();
    stage.cluster.restart(leader);
    stage.heal();
    stage.finish();
}

#[test]
fn a_stopped_leader_wakes_where_nobody_hears_it() {
    let _turn = turn();
    let mut stage = Stage::start(3, 4, 22);
    let leader = stage.cluster.busiest();
    let others = stage.others(&[leader]);
    stage.note("SIGSTOP");
    stage.cluster.pause(leader);
    stage.expect_progress(&others);
    stage.note("one-way cuts");
    others.iter().for_each(|other| stage.network.set(leader, *other, Rule::Hold));
    stage.cluster.resume(leader);
    stage.expect_progress(&others);
    stage.heal();
    stage.finish();
}

#[test]
fn one_of_five_is_cut_off_and_another_killed() {
    let _turn = turn();
    let mut stage = Stage::start(5, 5, 23);
    let first = stage.cluster.busiest();
    stage.note("nodes cut off");
    stage.isolate(&[first], Rule::Hold);
    stage.expect_progress(&stage.others(&[first]));
    let second = 1 + first % 5;
    stage.note("kill -9");
    stage.cluster.kill9(second);
    stage.expect_progress(&stage.others(&[first, second]));
    stage.cluster.restart(second);
    stage.heal();
    stage.finish();
}

#[test]
fn kill_9_of_all_while_links_are_slow() {
    let _turn = turn();
    let mut stage = Stage::start(3, 4, 24);
    stage.note("changes of delay");
    stage.network.part(&[1], &[2, 3], Rule::Delay(Duration::from_millis(30)));
    stage.expect_progress(&[1, 2, 3]);
    for id in [1, 2, 3] {
        stage.note("kill -9");
        stage.cluster.kill9(id);
    }
    [1, 2, 3].into_iter().for_each(|id| stage.cluster.spawn(id));
    [1, 2, 3].into_iter().for_each(|id| stage.cluster.wait_for_answer(id));
    stage.heal();
    stage.finish();
}

/// When the node wakes, it still takes itself for the leader, because no other node can tell it otherwise. Reads of
/// clients wait in its sockets.
#[test]
fn a_stopped_leader_wakes_cut_off_from_all() {
    let _turn = turn();
    let mut stage = Stage::start(3, 4, 25);
    for _ in 0..3 {
        let leader = stage.cluster.busiest();
        let others = stage.others(&[leader]);
        stage.note("SIGSTOP");
        stage.cluster.pause(leader);
        stage.note("nodes cut off");
        stage.isolate(&[leader], Rule::Hold);
        stage.expect_progress(&others);
        stage.cluster.resume(leader);
        stage.let_it_be_noticed();
        stage.heal();
    }
    stage.finish();
}
