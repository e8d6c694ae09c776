//! Partitions of the network: halves, one node alone, a bridge, a ring.

use crate::harness::turn;
use crate::proxy::Rule;
use crate::stage::{Stage, ring};

#[test]
fn halves_of_five() {
    let _turn = turn();
    let mut stage = Stage::start(5, 5, 1);
    for minority in [[1, 2], [4, 5], [1, 5]] {
        stage.note("partitions into halves");
        stage.isolate(&minority, Rule::Hold);
        stage.expect_progress(&stage.others(&minority));
        stage.expect_none(&minority);
        // The first partition changes into the next one directly, without a whole cluster in between.
        if minority == [1, 2] {
            stage.network.heal();
        } else {
            stage.heal();
        }
    }
    stage.finish();
}

#[test]
fn a_leader_cut_off() {
    let _turn = turn();
    let mut stage = Stage::start(3, 4, 2);
    for rule in [Rule::Hold, Rule::Refuse] {
        let leader = stage.cluster.busiest();
        stage.note("nodes cut off");
        stage.isolate(&[leader], rule);
        stage.expect_progress(&stage.others(&[leader]));
        stage.expect_none(&[leader]);
        stage.heal();
    }
    stage.finish();
}

/// Two nodes reach the third, but not each other. Only the middle node can serve all groups. A node at one end does not
/// reach a leader at the other end, and may not elect another while that leader has a majority.
#[test]
fn a_bridge_of_three() {
    let _turn = turn();
    let mut stage = Stage::start(3, 4, 3);
    for (one, other, middle) in [(1, 2, 3), (2, 3, 1), (3, 1, 2)] {
        stage.note("bridges");
        stage.network.set_both(one, other, Rule::Hold);
        stage.let_it_be_noticed();
        stage.expect_progress(&[middle]);
        stage.heal();
    }
    stage.finish();
}

/// Two halves that reach each other through one node only.
#[test]
fn a_bridge_of_five() {
    let _turn = turn();
    let mut stage = Stage::start(5, 5, 4);
    stage.note("bridges");
    stage.network.part(&[1, 2], &[4, 5], Rule::Hold);
    stage.let_it_be_noticed();
    stage.expect_progress_somewhere(&[1, 2, 3, 4, 5]);
    stage.heal();
    stage.finish();
}

/// Every node reaches a majority of its own, and no two nodes the same one.
#[test]
fn a_ring_of_five() {
    let _turn = turn();
    let mut stage = Stage::start(5, 5, 5);
    stage.note("rings");
    ring(&stage.network, 5);
    stage.let_it_be_noticed();
    stage.expect_progress_somewhere(&[1, 2, 3, 4, 5]);
    stage.heal();
    stage.finish();
}
