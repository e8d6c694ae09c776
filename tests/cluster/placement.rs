//! Placement of leaders by an operator, under load and with leases: groups are moved, a node is drained, a leader with
//! a lease is stopped.

use crate::harness::client::{Info, ask, ask_until_served, call, key_of};
use crate::harness::recorder::Recorder;
use crate::harness::{Cluster, READY_MAX, run, turn, wait_for};
use net::resp::value::Value;

const LEASE: &[&str] = &["--reads", "lease"];

fn wait_for_leases(cluster: &Cluster) {
    wait_for("leases for all groups", READY_MAX, || {
        let leased: u64 = cluster.running().into_iter().map(|id| cluster.info(id).number("groups_leased")).sum();
        (leased == u64::from(cluster.groups())).then_some(())
    });
}

fn led(cluster: &Cluster, id: u32) -> u64 {
    cluster.info(id).number("groups_led")
}

#[test]
fn a_group_is_led_by_whom_the_operator_names_whichever_node_is_asked() {
    let _turn = turn();
    let cluster = Cluster::start(3, 6, LEASE);
    // On a busy machine other nodes may have been elected; they give the groups back.
    for id in cluster.ids() {
        cluster.wait_for_info(id, "it leads its share", |info| info.number("groups_led") == 2);
    }
    wait_for_leases(&cluster);
    let recorder = Recorder::start(&cluster.addresses(), 6, 8, 1);
    for (asked, to) in [(1, 2), (1, 3), (2, 1), (3, 3), (2, 2), (2, 2)] {
        let mut client = cluster.client(asked);
        assert_eq!(ask(&mut client, &format!("PAXOI LEADER MOVE 0 {to}")), "OK", "to {to}, asked at {asked}");
        // All groups but the moved one stay where they are.
        let led = if to == 1 { 2 } else { 3 };
        cluster.wait_for_info(to, "it leads what was moved there", |info| info.number("groups_led") == led);
    }
    recorder.wait_for_more(500);
    recorder.stop_and_check();
    wait_for_leases(&cluster);
    let mut client = cluster.client(1);
    for (words, refusal) in [
        ("MOVE 6 1", "ERR there is no group 6, only 0 to 5"),
        ("MOVE 0 4", "ERR node 4 is not a member of this cluster"),
        ("MOVE x 1", "ERR syntax error, say PAXOI LEADER MOVE <group> <node>"),
        ("STEAL 0 1", "ERR syntax error, say PAXOI LEADER MOVE <group> <node>"),
    ] {
        assert_eq!(call(&mut client, &format!("PAXOI LEADER {words}")).unwrap(), Value::Error(refusal.to_owned()));
    }
}

#[test]
fn a_group_is_not_moved_to_a_node_that_is_not_there() {
    let _turn = turn();
    let mut cluster = Cluster::start(3, 3, &["--client-timeout", "2s"]);
    cluster.kill9(3);
    for asked in [1, 2] {
        let mut client = cluster.client(asked);
        let refused = call(&mut client, "PAXOI LEADER MOVE 0 3").unwrap();
        assert_eq!(refused, Value::Error("ERR node 3 cannot be reached".to_owned()), "at {asked}");
        assert_eq!(ask_until_served(&mut client, &format!("SET {} 1", key_of(0, 3, "k"))), "OK");
    }
}

#[test]
fn the_node_whose_clients_send_all_requests_leads_all_groups_until_they_stop() {
    let _turn = turn();
    let cluster = Cluster::start(3, 6, &["--leaders", "follow"]);
    let address = cluster.address(3).to_string();
    wait_for("all groups at node 3", READY_MAX * 3, || {
        assert_eq!(run(&["bench", "--connect", &address, "--duration", "1s"]).code, 0);
        (led(&cluster, 3) == 6).then_some(())
    });
    for id in cluster.ids() {
        cluster.wait_for_info(id, "it leads its share again", |info| info.number("groups_led") == 2);
    }
}

#[test]
fn a_drained_node_leads_nothing_until_that_is_undone() {
    let _turn = turn();
    let cluster = Cluster::start(3, 6, LEASE);
    let recorder = Recorder::start(&cluster.addresses(), 6, 8, 2);
    recorder.wait_for_more(200);
    let address = cluster.address(1).to_string();
    let told = run(&["drain", "--connect", &address, "--node", "2"]);
    assert_eq!(
        (told.code, told.stdout.as_str()),
        (0, "node 2 leads no group any more: it can be stopped\n"),
        "{told:?}"
    );
    assert_eq!((led(&cluster, 2), cluster.info(2).number("draining")), (0, 1));
    let mut client = cluster.client(1);
    let refused = call(&mut client, "PAXOI LEADER MOVE 0 2").unwrap();
    assert_eq!(refused, Value::Error("ERR node 2 is being drained".to_owned()));
    recorder.wait_for_more(200);
    let told = run(&["drain", "--connect", &address, "--node", "2", "--undo"]);
    assert_eq!((told.code, told.stdout.as_str()), (0, "node 2 may lead groups again\n"), "{told:?}");
    cluster.wait_for_info(2, "it leads its share again", |info: &Info| info.number("groups_led") == 2);
    recorder.wait_for_more(200);
    recorder.stop_and_check();
    run(&["drain", "--connect", &address, "--node", "7"]).expect(1, &["node 7 is not a member"]);
}

#[test]
fn a_stopped_leader_does_not_read_by_a_lease_that_is_over() {
    let _turn = turn();
    let cluster = Cluster::start(3, 3, LEASE);
    wait_for_leases(&cluster);
    let key = key_of(0, 3, "k");
    let leader = cluster.ids().find(|id| cluster.info(*id).number("groups_led") > 0).expect("a leader");
    let mut clients: Vec<_> = cluster.ids().map(|id| cluster.client(id)).collect();
    for round in 0..3 {
        wait_for_leases(&cluster);
        assert_eq!(ask_until_served(&mut clients[0], &format!("SET {key} old{round}")), "OK");
        cluster.pause(leader);
        let other = cluster.ids().find(|id| *id != leader).expect("another") as usize;
        assert_eq!(ask_until_served(&mut clients[other - 1], &format!("SET {key} new{round}")), "OK");
        cluster.resume(leader);
        // This read is among the first input of the resumed leader.
        let read = ask_until_served(&mut clients[leader as usize - 1], &format!("GET {key}"));
        assert_eq!(read, format!("new{round}"));
    }
}
