//! Connections that work in one direction only, that are slow, or that break in the middle of a frame.

use crate::harness::turn;
use crate::proxy::{Rule, pairs};
use crate::stage::Stage;
use std::thread;
use std::time::Duration;

#[test]
fn a_leader_that_hears_all_and_is_not_heard() {
    let _turn = turn();
    let mut stage = Stage::start(3, 4, 11);
    let leader = stage.cluster.busiest();
    let others = stage.others(&[leader]);
    stage.note("one-way cuts");
    others.iter().for_each(|other| stage.network.set(leader, *other, Rule::Hold));
    stage.expect_progress(&others);
    stage.heal();
    stage.finish();
}

#[test]
fn a_leader_that_is_heard_and_hears_nothing() {
    let _turn = turn();
    let mut stage = Stage::start(3, 4, 12);
    let leader = stage.cluster.busiest();
    let others = stage.others(&[leader]);
    stage.note("one-way cuts");
    others.iter().for_each(|other| stage.network.set(*other, leader, Rule::Hold));
    stage.expect_progress(&others);
    stage.heal();
    stage.finish();
}

/// One blocked direction has the same effect as a whole link that is down. The third node, which reaches both others,
/// still serves.
#[test]
fn one_direction_of_one_link() {
    let _turn = turn();
    let mut stage = Stage::start(3, 4, 13);
    for (from, to, middle) in [(1, 2, 3), (3, 1, 2)] {
        stage.note("one-way cuts");
        stage.network.set(from, to, Rule::Hold);
        stage.let_it_be_noticed();
        stage.expect_progress(&[middle]);
        stage.heal();
    }
    stage.finish();
}

#[test]
fn slow_links() {
    let _turn = turn();
    let mut stage = Stage::start(3, 4, 14);
    let delays = [5, 50, 20, 100, 1, 80];
    for round in 0..3 {
        for (at, (from, to)) in pairs(3).enumerate() {
            let delay = Duration::from_millis(delays[(at + 2 * round) % delays.len()]);
            stage.network.set(from, to, Rule::Delay(delay));
        }
        stage.note("changes of delay");
        stage.expect_progress(&[1, 2, 3]);
    }
    stage.heal();
    stage.finish();
}

#[test]
fn frames_cut_in_the_middle() {
    const PAUSE: Duration = Duration::from_millis(60);
    let _turn = turn();
    let mut stage = Stage::start(3, 4, 15);
    for _ in 0..8 {
        for (from, to) in pairs(3) {
            stage.network.cut(from, to);
            thread::sleep(PAUSE);
        }
    }
    stage.heal();
    assert!(stage.network.frames_cut() > 20, "only {} frames were cut", stage.network.frames_cut());
    stage.finish();
}
