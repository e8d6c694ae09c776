//! Nodes join, take the place of others, and leave, in one test while clients record a history.

use crate::harness::client::{ask, ask_until_served};
use crate::harness::recorder::Recorder;
use crate::harness::{Cluster, READY_MAX, run, turn, wait_for};

const CLIENTS: usize = 8;
const KEYS: usize = 9;
const OPERATIONS: u64 = 500;

/// Runs `paxoi member …` against a node, and returns its output.
fn member(cluster: &Cluster, at: u32, words: &str) -> String {
    let words = format!("member {words} --connect {}", cluster.address(at));
    let ended = run(&words.split(' ').collect::<Vec<_>>());
    assert_eq!(ended.code, 0, "{words}: {ended:?}");
    ended.stdout
}

/// Returns the state of a node in `paxoi member list`.
fn state(cluster: &Cluster, at: u32, id: u32) -> Option<String> {
    let list = member(cluster, at, "list");
    let mut rows = list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.find(|row| row[0] == id.to_string()).map(|row| row[2].to_owned())
}

#[test]
fn a_cluster_is_moved_node_by_node_to_other_nodes_under_load() {
    let _turn = turn();
    let mut cluster = Cluster::start(3, 8, &[]);
    let mut clients = cluster.addresses();
    let new: Vec<u32> = (0..3).map(|_| cluster.add()).collect();
    clients.extend(new.iter().map(|id| cluster.address(*id)));
    let recorder = Recorder::start(&clients, CLIENTS, KEYS, 1);
    for (old, new) in (1..).zip(new) {
        recorder.wait_for_more(OPERATIONS);
        // The contact is a node that stays.
        let at = if old == 3 { 4 } else { old + 1 };
        cluster.spawn_joining(new, at);
        let done = member(&cluster, at, &format!("replace {old} {new}"));
        assert!(done.contains(&format!("node {new} votes in every group instead of node {old}")), "{done}");
        let code = cluster.wait_for_end(old);
        assert_eq!(code, Some(1), "{}", cluster.log(old));
        let last = cluster.log(old).lines().last().unwrap_or_default().to_owned();
        assert!(last.contains(&format!("node {old} was removed from the cluster")), "{last}");
    }
    recorder.wait_for_more(OPERATIONS);
    // The node starts with only its id and its directory: the directory knows the rest.
    cluster.kill9(5);
    let words = ["serve", "--id", "5", "--data", &cluster.data(5).display().to_string()].map(str::to_owned);
    cluster.spawn_as(5, &words);
    cluster.wait_for_answer(5);
    recorder.wait_for_more(OPERATIONS);
    cluster.wait_for_leaders();
    let summary = recorder.stop_and_check();
    assert!(summary.operations as u64 > 5 * OPERATIONS, "{summary:?}");
    assert_eq!(member(&cluster, 4, "list").matches(" voter ").count(), 3);
    // A removed node cannot come back.
    let ended = run(&cluster.words(2));
    ended.expect(1, &["node 2 was removed from the cluster", "under a new id"]);
}

#[test]
fn a_dead_node_is_replaced_by_one_command_and_its_directory_is_refused() {
    let _turn = turn();
    let mut cluster = Cluster::start(3, 4, &[]);
    let mut client = cluster.client(1);
    assert_eq!(ask(&mut client, "SET k before"), "OK");
    cluster.kill9(3);
    let refused = |words: &str, texts: &[&str]| {
        let words = format!("member {words} --connect {}", cluster.address(1));
        run(&words.split(' ').collect::<Vec<_>>()).expect(1, texts);
    };
    refused("remove 2", &["would lose the majority"]);
    refused("add 9", &["node 9 does not wait here", "paxoi serve --id 9 --data DIR --join"]);
    refused("remove 7", &["node 7 is not a member"]);
    let new = cluster.add();
    cluster.spawn_joining(new, 1);
    wait_for("node 4 waits", READY_MAX, || state(&cluster, 1, 4).filter(|state| state == "waiting"));
    let mut joining = cluster.client(new);
    assert!(ask(&mut joining, "GET k").contains("paxoi member add 4"));
    member(&cluster, 1, "add 4");
    assert_eq!(state(&cluster, 1, 4).as_deref(), Some("learner"));
    assert_eq!(ask_until_served(&mut joining, "GET k"), "before", "a learner confirms what it reads");
    member(&cluster, 1, "replace 3 4");
    assert_eq!((state(&cluster, 2, 3), state(&cluster, 2, 4).as_deref()), (None, Some("voter")));
    cluster.spawn(3);
    assert_eq!(cluster.wait_for_end(3), Some(1));
    // Two of the three remaining members are enough.
    cluster.kill9(2);
    assert_eq!(ask_until_served(&mut client, "SET k after"), "OK");
    assert_eq!(ask_until_served(&mut joining, "GET k"), "after");
}

#[test]
fn a_node_that_was_removed_while_all_that_it_knew_were_replaced_is_told_or_says_that_it_is_alone() {
    let _turn = turn();
    let mut cluster = Cluster::start(3, 4, &[]);
    cluster.kill9(3);
    let new: Vec<u32> = (0..3).map(|_| cluster.add()).collect();
    let original = cluster.words(3);
    for (old, new, at) in [(3, new[0], 1), (1, new[1], 2), (2, new[2], new[0])] {
        cluster.spawn_joining(new, at);
        wait_for("the new node waits", READY_MAX, || state(&cluster, at, new).filter(|state| state == "waiting"));
        member(&cluster, at, &format!("replace {old} {new}"));
        if old != 3 {
            assert_eq!(cluster.wait_for_end(old), Some(1));
        }
    }
    // No node listens at the addresses that node 3 knows.
    cluster.spawn_as(3, &original);
    cluster.wait_for_answer(3);
    wait_for("node 3 says that it is alone", READY_MAX, || {
        Some(()).filter(|()| cluster.log(3).contains("no other member answers: node 1 at "))
    });
    let answer = ask(&mut cluster.client(3), "GET k");
    assert!(answer.contains("this node reaches no majority of its cluster's nodes"), "{answer}");
    cluster.kill9(3);
    // This list gives nodes 1 and 2 the addresses of the nodes that replaced them.
    let list = format!("1={},2={},3={}", cluster.address(new[1]), cluster.address(new[2]), cluster.address(3));
    let mut words = original;
    let place = words.iter().position(|word| word == "--initial-cluster").expect("a list") + 1;
    words[place] = list;
    run(&words).expect(1, &["node 3 was removed from the cluster"]);
}

#[test]
fn after_readonly_a_node_answers_from_what_it_has() {
    let _turn = turn();
    let cluster = Cluster::start(3, 2, &["--client-timeout", "500ms"]);
    let mut client = cluster.client(3);
    assert_eq!(ask(&mut client, "SET k old"), "OK");
    cluster.pause(1);
    cluster.pause(2);
    wait_for("node 3 is alone", READY_MAX, || {
        Some(()).filter(|()| ask(&mut client, "GET k").starts_with("-CLUSTERDOWN"))
    });
    assert_eq!(ask(&mut client, "READONLY"), "OK");
    assert_eq!(
        (ask(&mut client, "GET k"), ask(&mut client, "MGET k none")),
        ("old".to_owned(), "old (nil)".to_owned())
    );
    assert!(ask(&mut client, "SET other new").starts_with('-'), "it takes no writes alone");
    assert_eq!(ask(&mut client, "READWRITE"), "OK");
    assert!(ask(&mut client, "GET k").starts_with("-CLUSTERDOWN"));
    cluster.resume(1);
    cluster.resume(2);
    assert_eq!(ask_until_served(&mut client, "GET k"), "old");
}
