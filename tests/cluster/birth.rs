//! First starts, wrong starts, and directories that were wiped, were rolled back, or belong to another node. Each fault
//! gets one clear line, and the rest of the cluster goes on.

use crate::harness::client::{ask, ask_until_served};
use crate::harness::{Cluster, READY_MAX, copy_data, run, turn, wait_for};
use std::fs;
use std::thread;
use std::time::Duration;

/// Returns `words` with the word after `flag` replaced by `value`.
fn with(words: &[String], flag: &str, value: &str) -> Vec<String> {
    let at = words.iter().position(|word| word == flag).expect("the flag is there") + 1;
    words.iter().enumerate().map(|(place, word)| if place == at { value.to_owned() } else { word.clone() }).collect()
}

/// Checks that nodes 1 and 3 answer clients.
fn check_the_others(cluster: &Cluster) {
    for id in [1, 3] {
        let mut client = cluster.client(id);
        assert_eq!(ask_until_served(&mut client, "SET key value"), "OK");
        assert_eq!(ask_until_served(&mut client, "GET key"), "value");
    }
}

#[test]
fn a_first_start_needs_every_member_once() {
    let _turn = turn();
    let mut cluster = Cluster::prepare(3, 16, &[]);
    cluster.restart(1);
    let mut client = cluster.client(1);
    for command in ["GET key", "SET key value", "DBSIZE", "SESSION NEW"] {
        let answer = ask(&mut client, command);
        assert!(answer.starts_with("-CLUSTERDOWN Hash slot not served: "), "{command}: {answer}");
        assert!(answer.ends_with("it waits for node 2 and node 3 to connect"), "{command}: {answer}");
    }
    assert_eq!(ask(&mut client, "PING"), "PONG");
    cluster.restart(3);
    wait_for("node 1 to know that node 3 is there", READY_MAX, || {
        ask(&mut client, "GET key").ends_with("it waits for node 2 to connect").then_some(())
    });
    // A peer that stays silent for this long no longer counts as alive.
    thread::sleep(Duration::from_millis(1_500));
    assert_eq!(cluster.log(1).matches("connected to node 3").count(), 1, "the connection stays while they wait");
    cluster.restart(2);
    cluster.wait_for_leaders();
    assert_eq!(ask_until_served(&mut client, "SET key value"), "OK");

    // Afterwards a majority is enough.
    cluster.ids().for_each(|id| cluster.kill9(id));
    [1, 3].into_iter().for_each(|id| cluster.restart(id));
    assert_eq!(ask_until_served(&mut cluster.client(3), "GET key"), "value");
}

#[test]
fn a_birth_interrupted_by_kill_9_is_completed_later() {
    let _turn = turn();
    for round in 0..12 {
        let mut cluster = Cluster::prepare(3, 4, &[]);
        cluster.ids().for_each(|id| cluster.spawn(id));
        // The kills hit different moments of a birth, which takes some tens of milliseconds on a disk like that of the
        // target directory.
        thread::sleep(Duration::from_millis(10 * round));
        let killed: Vec<u32> = if round % 2 == 0 { cluster.ids().collect() } else { vec![1 + (round / 2 % 3) as u32] };
        killed.iter().for_each(|id| cluster.kill9(*id));
        killed.iter().for_each(|id| cluster.restart(*id));
        cluster.wait_for_leaders();
        check_the_others(&cluster);
        assert_eq!(ask_until_served(&mut cluster.client(2), "GET key"), "value");
    }
}

#[test]
fn members_that_were_told_different_things_say_so() {
    let _turn = turn();
    let mut cluster = Cluster::prepare(3, 16, &[]);
    [1, 3].into_iter().for_each(|id| cluster.restart(id));
    let wrong = with(&cluster.words(2), "--groups", "8");
    cluster.spawn_as(2, &wrong);
    wait_for("a line about the groups", READY_MAX, || {
        cluster.log(1).contains("node 2 has 8 groups, but this cluster has 16").then_some(())
    });
    cluster.kill9(2);

    let list = cluster.words(2);
    let at = list.iter().position(|word| word == "--initial-cluster").expect("a list") + 1;
    let (two, _) = list[at].rsplit_once(',').expect("three members");
    let wrong = with(&list, "--initial-cluster", two);
    cluster.spawn_as(2, &wrong);
    wait_for("a line about the members", READY_MAX, || {
        let line = "node 2 was given the initial members 1,2, but node 1 has 1,2,3: give all the same list";
        cluster.log(1).contains(line).then_some(())
    });
    assert!(ask(&mut cluster.client(1), "GET key").starts_with("-CLUSTERDOWN"));
    cluster.kill9(2);
    cluster.restart(2);
    cluster.wait_for_leaders();
    check_the_others(&cluster);
}

#[test]
fn a_wiped_or_old_directory_never_votes_again() {
    let _turn = turn();
    let mut cluster = Cluster::start(3, 16, &[]);
    cluster.kill9(2);
    let (data, aside) = (cluster.data(2), cluster.data(2).with_extension("aside"));
    fs::rename(&data, &aside).expect("to put the directory aside");
    run(&cluster.words(2)).expect(1, &["node 2 is known with another data directory", "under a new id"]);
    check_the_others(&cluster);

    // An old copy of the directory: the others have seen a later start of node 2.
    fs::remove_dir_all(&data).expect("to remove the new directory");
    copy_data(&aside, &data);
    cluster.restart(2);
    cluster.wait_for_leaders();
    cluster.kill9(2);
    fs::remove_dir_all(&data).expect("to remove the directory");
    copy_data(&aside, &data);
    run(&cluster.words(2)).expect(1, &["node 2 was seen with start number 2, but in another process", "an old copy"]);
    check_the_others(&cluster);
}

#[test]
fn wrong_words_for_a_directory_are_refused() {
    let _turn = turn();
    let mut cluster = Cluster::start(3, 16, &[]);
    let words = cluster.words(2);
    let place = cluster.data(2).display().to_string();
    run(&words).expect(1, &[&place, "in use by another process"]);
    cluster.kill9(2);
    run(&with(&words, "--id", "3")).expect(1, &[&place, "belongs to node 2, not to node 3"]);
    run(&with(&words, "--groups", "8")).expect(2, &["--groups 8", &place, "16"]);
    run(&with(&words, "--id", "4")).expect(2, &["node 4 itself is not in the list"]);
    check_the_others(&cluster);
    cluster.restart(2);
    assert_eq!(ask_until_served(&mut cluster.client(2), "GET key"), "value");
}

#[test]
fn a_node_of_another_cluster_is_turned_away() {
    let _turn = turn();
    let mut cluster = Cluster::start(3, 16, &[]);
    let mut other = Cluster::start(3, 16, &[]);
    [&mut cluster, &mut other].into_iter().for_each(|cluster| cluster.kill9(2));
    let foreign = with(&cluster.words(2), "--data", &other.data(2).display().to_string());
    cluster.spawn_as(2, &foreign);
    for id in [1, 2, 3] {
        wait_for("a line about the other cluster", READY_MAX, || {
            cluster.log(id).contains("belongs to another cluster").then_some(())
        });
    }
    check_the_others(&cluster);
    let answer = ask(&mut cluster.client(2), "GET key");
    assert!(answer.starts_with("-CLUSTERDOWN"), "{answer}");
    check_that_it_tries_less_and_less(&cluster, 1, "belongs to another cluster");

    // Node 2 of each cluster runs with its own directory again.
    cluster.kill9(2);
    for cluster in [&mut cluster, &mut other] {
        cluster.restart(2);
        cluster.wait_for_leaders();
        check_the_others(cluster);
        assert_eq!(ask_until_served(&mut cluster.client(2), "GET key"), "value");
    }
}

#[test]
fn a_node_that_is_no_member_is_turned_away() {
    let _turn = turn();
    let cluster = Cluster::start(3, 4, &[]);
    let mut stranger = Cluster::prepare(4, 4, &[]);
    let members: Vec<String> = cluster.ids().map(|id| format!("{id}={}", cluster.address(id))).collect();
    let members = format!("{},4={}", members.join(","), stranger.address(4));
    let words = with(&stranger.words(4), "--initial-cluster", &members);
    stranger.spawn_as(4, &words);
    stranger.wait_for_answer(4);
    for id in cluster.ids() {
        wait_for("a line about the stranger", READY_MAX, || {
            cluster.log(id).contains("node 4 is not a member of this cluster").then_some(())
        });
    }
    check_that_it_tries_less_and_less(&cluster, 1, "node 4 is not a member");
    check_the_others(&cluster);
}

/// Checks that a node that is refused for good does not retry often: two seconds later, the log of node `id` has fewer
/// than 25 such lines.
fn check_that_it_tries_less_and_less(cluster: &Cluster, id: u32, line: &str) {
    thread::sleep(Duration::from_secs(2));
    let count = cluster.log(id).matches(line).count();
    assert!(count < 25, "node {id} has logged {count} times: {line}");
}
