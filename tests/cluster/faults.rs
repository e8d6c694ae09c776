//! Nodes killed with -9 or stopped while clients write and read through all of them.

use crate::harness::{Cluster, turn};
use crate::load::Load;
use std::thread;
use std::time::Duration;

/// Commands before a fault, during it, and after it.
const SOME: u64 = 1_500;

fn under_load(groups: u32, flags: &[&str], fault: impl FnOnce(&mut Cluster, &Load)) {
    let _turn = turn();
    let mut cluster = Cluster::start(3, groups, flags);
    let load = Load::start(cluster.addresses());
    load.wait_for_progress(SOME);
    fault(&mut cluster, &load);
    load.wait_for_progress(SOME);
    cluster.wait_for_leaders();
    load.finish(&cluster);
}

#[test]
fn kill_9_of_the_leader_of_most_groups() {
    under_load(16, &[], |cluster, load| {
        let leader = cluster.busiest();
        cluster.kill9(leader);
        load.wait_for_progress(SOME);
        cluster.restart(leader);
    });
}

#[test]
fn kill_9_of_the_leader_of_the_only_group() {
    under_load(1, &[], |cluster, load| {
        let leader = cluster.busiest();
        cluster.kill9(leader);
        load.wait_for_progress(SOME);
        cluster.restart(leader);
    });
}

#[test]
fn kill_9_of_a_follower() {
    under_load(1, &[], |cluster, load| {
        let follower = cluster.ids().find(|id| cluster.info(*id).number("groups_led") == 0).expect("a follower");
        cluster.kill9(follower);
        load.wait_for_progress(SOME);
        cluster.restart(follower);
    });
}

#[test]
fn kill_9_of_all_nodes_at_once() {
    under_load(16, &[], |cluster, load| {
        for _ in 0..2 {
            cluster.ids().for_each(|id| cluster.kill9(id));
            cluster.ids().for_each(|id| cluster.spawn(id));
            load.wait_for_progress(SOME);
        }
    });
}

#[test]
fn kill_9_of_one_node_after_the_other() {
    under_load(16, &[], in_turn);
}

#[test]
fn kill_9_of_one_node_after_the_other_with_reads_in_the_log() {
    under_load(16, &["--reads", "log"], in_turn);
}

fn in_turn(cluster: &mut Cluster, load: &Load) {
    for id in [1, 2, 3, 2, 1] {
        cluster.kill9(id);
        load.wait_for_progress(SOME / 5);
        cluster.restart(id);
        // Once the next node is killed, the restarted node is part of every majority.
        load.wait_for_progress(SOME / 5);
    }
}

#[test]
fn a_leader_stopped_for_5_seconds() {
    under_load(16, &[], |cluster, load| {
        let leader = cluster.busiest();
        cluster.pause(leader);
        thread::sleep(Duration::from_secs(5));
        load.wait_for_progress(SOME / 5);
        cluster.resume(leader);
    });
}

#[test]
fn a_majority_stopped_for_3_seconds() {
    under_load(16, &[], |cluster, _| {
        [2, 3].into_iter().for_each(|id| cluster.pause(id));
        thread::sleep(Duration::from_secs(3));
        [2, 3].into_iter().for_each(|id| cluster.resume(id));
    });
}
