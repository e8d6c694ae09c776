//! Nodes with several workers: clients of any worker reach all groups, commands about the node tell of the whole node, and
//! nothing is lost when the nodes are killed, or started with another number of workers.

use crate::harness::client::{Info, ask, ask_until_served, key_of};
use crate::harness::recorder::Recorder;
use crate::harness::{Cluster, turn};
use paxoi::client::Client;
use std::time::Duration;

const GROUPS: u32 = 8;
/// Enough for a client at each of four workers.
const CLIENTS: usize = 8;

fn workers(count: u32) -> [String; 2] {
    ["--workers".to_owned(), count.to_string()]
}

fn start(count: u32) -> Cluster {
    let flags = workers(count);
    Cluster::start(3, GROUPS, &[&flags[0], &flags[1]])
}

/// Writes a key of each group.
fn write_everywhere(client: &mut Client, value: &str) {
    for group in 0..GROUPS {
        let reply = ask_until_served(client, &format!("SET {} {value}", key_of(group, GROUPS, "w")));
        assert_eq!(reply, "OK");
    }
}

fn read_everywhere(client: &mut Client) -> Vec<String> {
    let keys: Vec<String> = (0..GROUPS).map(|group| key_of(group, GROUPS, "w")).collect();
    ask_until_served(client, &format!("MGET {}", keys.join(" "))).split(' ').map(str::to_owned).collect()
}

#[test]
fn every_client_reaches_all_groups_and_hears_of_the_whole_node() {
    let _turn = turn();
    let cluster = start(4);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| cluster.client(1)).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let value = format!("value{number}");
        write_everywhere(client, &value);
        assert_eq!(ask(client, "WAIT 2 5000"), "2");
        assert_eq!(read_everywhere(client), vec![value; GROUPS as usize]);
        assert_eq!(ask(client, "DBSIZE"), GROUPS.to_string());
    }
    let names: Vec<String> = clients.iter_mut().map(|client| ask(client, "CLIENT ID")).collect();
    for client in &mut clients {
        let list = ask(client, "CLIENT LIST");
        assert!(names.iter().all(|id| list.contains(&format!("id={id} "))), "{names:?} in {list}");
        let info: Vec<String> = ask(client, "INFO keyspace").lines().map(str::to_owned).collect();
        assert!(info.iter().any(|line| line.starts_with(&format!("db0:keys={GROUPS},"))), "{info:?}");
    }
    assert_eq!(ask(&mut clients[0], "CONFIG SET timeout 77"), "OK");
    clients.iter_mut().for_each(|client| assert_eq!(ask(client, "CONFIG GET timeout"), "timeout 77"));
    assert_eq!(ask(&mut clients[3], "MULTI"), "OK");
    assert_eq!(ask(&mut clients[3], "CONFIG SET timeout 78"), "QUEUED");
    assert!(ask(&mut clients[3], "EXEC").contains("not allowed in a transaction"));
    clients.iter_mut().for_each(|client| assert_eq!(ask(client, "CONFIG GET timeout"), "timeout 77"));
    assert_eq!(ask(&mut clients[1], &format!("CLIENT KILL ID {}", names[2])), "1");
    let led: u64 = cluster.ids().map(|id| cluster.info(id).number("groups_led")).sum();
    assert_eq!(led, u64::from(GROUPS));
}

#[test]
fn clients_of_killed_nodes_with_workers_see_a_linearizable_history() {
    let _turn = turn();
    let mut cluster = start(2);
    let recorder = Recorder::start(&cluster.addresses(), CLIENTS, 9, 1);
    for id in cluster.ids() {
        recorder.wait_for_more(1_000);
        cluster.kill9(id);
        recorder.wait_for_more(1_000);
        cluster.restart(id);
    }
    let summary = recorder.stop_and_check();
    assert!(summary.operations > 6_000, "{summary:?}");
}

#[test]
fn a_cluster_is_started_with_other_numbers_of_workers() {
    let _turn = turn();
    let mut cluster = start(1);
    for count in [4, 2, 1] {
        let value = format!("before{count}");
        let mut client = cluster.client(2);
        write_everywhere(&mut client, &value);
        assert_eq!(ask(&mut client, "PAXOI CHECKPOINT"), "Background checkpoint started");
        cluster.wait_for_info(2, "checkpoints", is_saved);
        cluster.ids().for_each(|id| cluster.kill9(id));
        let flags = workers(count);
        cluster.set_flags(&[&flags[0], &flags[1]]);
        cluster.ids().for_each(|id| cluster.spawn(id));
        cluster.wait_for_leaders();
        assert_eq!(read_everywhere(&mut cluster.client(3)), vec![value; GROUPS as usize]);
    }
}

fn is_saved(info: &Info) -> bool {
    info.number("checkpoint_in_progress") == 0 && info.number("checkpoints_made") > 0
}

#[test]
fn a_node_with_another_number_of_workers_is_told_so() {
    let _turn = turn();
    let mut cluster = start(2);
    write_everywhere(&mut cluster.client(1), "value");
    cluster.kill9(3);
    let flags = workers(1);
    cluster.set_flags(&[&flags[0], &flags[1]]);
    cluster.spawn(3);
    let says =
        |cluster: &Cluster| cluster.log(3).contains("but node 3 has 1: give all the same --workers").then_some(());
    crate::harness::wait_for("the refusal in the log", Duration::from_secs(20), || says(&cluster));
    write_everywhere(&mut cluster.client(1), "others");
}
