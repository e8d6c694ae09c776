//! What clients see of a cluster without failures, of a cluster that restarts, of a node that catches up, of
//! a minority, and of five nodes.

use crate::harness::client::{Info, ask, ask_until_served, call, key_of, text};
use crate::harness::{Cluster, run, turn, wait_for};
use std::net::ToSocketAddrs;
use std::thread;
use std::time::{Duration, Instant};

/// Maximum time until a node that was down has the values that it missed.
const CATCH_UP_MAX: Duration = Duration::from_secs(20);

#[test]
fn what_one_node_takes_every_node_has_also_after_a_restart_of_all() {
    let _turn = turn();
    let mut cluster = Cluster::start(3, 16, &[]);
    for writer in cluster.ids() {
        let mut client = cluster.client(writer);
        for number in 0..20 {
            assert_eq!(ask(&mut client, &format!("SET key:{writer}:{number} {number}")), "OK");
        }
    }
    let check = |cluster: &Cluster| {
        for reader in cluster.ids() {
            let mut client = cluster.client(reader);
            for (writer, number) in cluster.ids().flat_map(|writer| (0..20).map(move |number| (writer, number))) {
                let found = ask_until_served(&mut client, &format!("GET key:{writer}:{number}"));
                assert_eq!(found, number.to_string(), "key:{writer}:{number} at node {reader}");
            }
            assert_eq!(ask(&mut client, "DBSIZE"), "60");
        }
    };
    check(&cluster);
    cluster.ids().for_each(|id| cluster.kill9(id));
    cluster.ids().for_each(|id| cluster.spawn(id));
    cluster.ids().for_each(|id| cluster.wait_for_answer(id));
    check(&cluster);
}

/// Waits until all nodes have applied the same values. Nobody writes meanwhile.
fn wait_until_equal(cluster: &Cluster) {
    wait_for("all nodes to apply the same", CATCH_UP_MAX, || {
        let infos: Vec<Info> = cluster.ids().map(|id| cluster.info(id)).collect();
        let equal = infos.iter().all(|info| info.number("applied_total") == infos[0].number("applied_total"));
        (equal && infos.iter().all(|info| info.number("groups_behind") == 0)).then_some(())
    });
}

#[test]
fn a_node_that_was_down_catches_up() {
    /// Bytes of a large value. One is larger than what a node asks for at a time, and together they are
    /// larger than a segment of the log.
    const LARGE: usize = 3 << 20;
    const LARGE_COUNT: usize = 25;
    let _turn = turn();
    let mut cluster = Cluster::start(3, 16, &[]);
    cluster.kill9(3);
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let mut client = cluster.client(1 + writer % 2);
            thread::spawn(move || {
                for number in 0..400 {
                    assert_eq!(ask_until_served(&mut client, &format!("SET key:{writer}:{number} {number}")), "OK");
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().expect("a writer"));
    let large = |number: usize| vec![b'a' + number as u8; LARGE];
    // The first five keys share a hash tag, so that their values follow each other in one group. The
    // others are spread over the groups.
    let key = |number: usize| if number < 5 { format!("{{large}}{number}") } else { format!("large{number}") };
    let mut client = cluster.client(1);
    for number in 0..LARGE_COUNT {
        let reply = client.call(&[b"SET", key(number).as_bytes(), &large(number)]).expect("a reply");
        assert_eq!(text(&reply), "OK");
    }
    assert_eq!(ask(&mut client, &format!("APPEND {} end", key(0))), (LARGE + 3).to_string());

    let restarted = Instant::now();
    cluster.restart(3);
    wait_until_equal(&cluster);
    eprintln!("node 3 had caught up {:?} after its restart", restarted.elapsed());

    let check = |cluster: &Cluster| {
        let mut client = cluster.client(3);
        for (writer, number) in (0..8).flat_map(|writer| [0, 199, 399].map(|number| (writer, number))) {
            assert_eq!(ask_until_served(&mut client, &format!("GET key:{writer}:{number}")), number.to_string());
        }
        assert_eq!(ask(&mut client, "DBSIZE"), (8 * 400 + LARGE_COUNT).to_string());
        for number in 0..LARGE_COUNT {
            let found = client.call(&[b"GET", key(number).as_bytes()]).expect("a reply");
            let end: &[u8] = if number == 0 { b"end" } else { b"" };
            assert!(found.as_bytes() == Some(&[&large(number), end].concat()), "{} at node 3", key(number));
        }
    };
    check(&cluster);
    // Node 3 has logged the values that it learned. Now it can send them to another node.
    cluster.wait_for_info(3, "several segments of the log", |info| info.number("log_segments") > 1);
    [1, 3].into_iter().for_each(|id| cluster.kill9(id));
    [1, 3].into_iter().for_each(|id| cluster.restart(id));
    check(&cluster);
    wait_until_equal(&cluster);
}

/// A write to a minority.
struct Tried {
    key: String,
    /// The write may have been executed.
    uncertain: bool,
}

/// Writes to every group at node 1, and reads, while node 1 is alone. No answer claims a success or a value. Each
/// answer comes within the client timeout, or a little later on a busy machine.
fn ask_alone(cluster: &Cluster, round: u32, tried: &mut Vec<Tried>) {
    /// Maximum time of an answer: the client timeout of 1 s, and 1.5 s for a busy machine.
    const ANSWER_MAX: Duration = Duration::from_millis(2_500);
    let groups = cluster.groups();
    let attempts: Vec<_> = (0..groups)
        .map(|group| {
            let (mut writer, mut reader) = (cluster.client(1), cluster.client(1));
            let key = key_of(group, groups, &format!("try:{round}:"));
            thread::spawn(move || {
                let began = Instant::now();
                let answer = ask(&mut writer, &format!("SET {key} here"));
                let took = began.elapsed();
                assert!(took < ANSWER_MAX, "SET was answered {answer} after {took:?}");
                let uncertain = answer.starts_with("-UNCERTAIN the command may or may not have been executed");
                assert!(uncertain || answer.starts_with("-CLUSTERDOWN Hash slot not served"), "SET: {answer}");
                let began = Instant::now();
                let answer = ask(&mut reader, "GET before:0");
                let took = began.elapsed();
                assert!(took < ANSWER_MAX, "GET was answered {answer} after {took:?}");
                assert!(answer.starts_with("-CLUSTERDOWN Hash slot not served"), "GET: {answer}");
                Tried { key, uncertain }
            })
        })
        .collect();
    tried.extend(attempts.into_iter().map(|attempt| attempt.join().expect("an answer")));
}

#[test]
fn a_minority_claims_nothing() {
    let _turn = turn();
    let mut cluster = Cluster::start(3, 8, &["--client-timeout", "1s"]);
    assert_eq!(ask(&mut cluster.client(1), "SET before:0 value"), "OK");
    let mut tried = Vec::new();

    // At first node 1 takes the others for alive. Later it knows that they do not answer.
    [2, 3].into_iter().for_each(|id| cluster.pause(id));
    (0..3).for_each(|round| ask_alone(&cluster, round, &mut tried));
    [2, 3].into_iter().for_each(|id| cluster.resume(id));
    check_after(&cluster, &tried, "paused");

    [2, 3].into_iter().for_each(|id| cluster.kill9(id));
    (3..5).for_each(|round| ask_alone(&cluster, round, &mut tried));
    [2, 3].into_iter().for_each(|id| cluster.restart(id));
    check_after(&cluster, &tried, "killed");
    let uncertain = tried.iter().filter(|tried| tried.uncertain).count();
    eprintln!("{uncertain} of {} writes were uncertain", tried.len());
    assert!(uncertain > 0 && uncertain < tried.len(), "some uncertain, some refused: {uncertain} of {}", tried.len());
}

/// Checks that the cluster serves again. Only writes that were uncertain may be there, and all
/// nodes agree on which of them are.
fn check_after(cluster: &Cluster, tried: &[Tried], what: &str) {
    let mut seen: Option<Vec<String>> = None;
    for id in cluster.ids() {
        let mut client = cluster.client(id);
        assert_eq!(ask_until_served(&mut client, &format!("SET after:{what}:{id} value")), "OK");
        assert_eq!(ask_until_served(&mut client, "GET before:0"), "value");
        let values = tried.iter().map(|tried| {
            let value = ask_until_served(&mut client, &format!("GET {}", tried.key));
            assert!(value == "(nil)" || (tried.uncertain && value == "here"), "{} is {value} at node {id}", tried.key);
            value
        });
        let values: Vec<String> = values.collect();
        assert!(seen.is_none_or(|before| before == values), "node {id} differs from the node before it");
        seen = Some(values);
    }
}

#[test]
fn members_are_found_by_name_and_a_name_that_is_none_holds_nobody_up() {
    let _turn = turn();
    let mut cluster = Cluster::start(3, 4, &[]);
    let named = |cluster: &Cluster, name: &str| {
        let (own, first) = (format!("3={}", cluster.address(3)), format!("1={}", cluster.address(1)));
        let list = format!("{first},2={name}:{},{own}", cluster.address(2).port());
        let known = cluster.words(3).iter().position(|word| word == "--initial-cluster").expect("a list") + 1;
        let mut words = cluster.words(3);
        words[known] = list;
        words
    };
    let connected = |cluster: &Cluster| cluster.log(3).matches("connected to node 2").count();
    cluster.kill9(3);
    let before = connected(&cluster);
    cluster.spawn_as(3, &named(&cluster, "nowhere.invalid"));
    cluster.wait_for_answer(3);
    cluster.wait_for_info(3, "node 1 reached", |info| info.number("groups_leaderless") < 4);
    assert_eq!(connected(&cluster), before, "there is no such address");

    let is_v4 = |name: &str| (name, 0).to_socket_addrs().is_ok_and(|mut all| all.next().is_some_and(|at| at.is_ipv4()));
    if !is_v4("localhost") {
        eprintln!("skipped: localhost is not 127.0.0.1 here");
        return;
    }
    cluster.kill9(3);
    cluster.spawn_as(3, &named(&cluster, "localhost"));
    cluster.wait_for_answer(3);
    wait_for("node 2 by its name", CATCH_UP_MAX, || (connected(&cluster) > before).then_some(()));
    cluster.wait_for_leaders();
    assert_eq!(ask_until_served(&mut cluster.client(3), "SET key value"), "OK");
}

#[test]
fn status_waits_until_every_node_is_up_and_whole() {
    let _turn = turn();
    let mut cluster = Cluster::start(3, 4, &[]);
    let asked = cluster.address(1).to_string();
    let status = |patience: &str| run(&["status", "--connect", &asked, "--wait", patience]);
    cluster.kill9(3);
    let ended = status("1s");
    ended.expect(1, &[&format!("not ready after 1s: node 3 at {} does not answer", cluster.name(3))]);
    assert!(ended.stdout.contains("2 up, 1 down"), "{}", ended.stdout);
    for number in 0..200 {
        assert_eq!(ask_until_served(&mut cluster.client(1), &format!("SET key:{number} {number}")), "OK");
    }
    cluster.spawn(3);
    let ended = status("60s");
    assert!(ended.code == 0 && ended.stdout.contains("3 up, 0 down"), "{ended:?}");
    let info = cluster.info(3);
    assert_eq!(["loading", "groups_behind", "groups_leaderless"].map(|field| info.number(field)), [0, 0, 0]);
}

#[test]
fn five_nodes_go_on_without_two() {
    let _turn = turn();
    let mut cluster = Cluster::start(5, 16, &[]);
    assert_eq!(ask(&mut cluster.client(5), "SET key 0"), "OK");
    let gone = [cluster.busiest(), 1 + cluster.busiest() % 5];
    gone.into_iter().for_each(|id| cluster.kill9(id));
    let left = cluster.running();
    for round in 1..=100 {
        let (writer, reader) = (left[round % 3], left[(round + 1) % 3]);
        assert_eq!(ask_until_served(&mut cluster.client(writer), "INCR key"), round.to_string());
        assert_eq!(ask_until_served(&mut cluster.client(reader), "GET key"), round.to_string());
    }
    // With a third node down there is no majority.
    cluster.kill9(left[0]);
    let answer = text(&call(&mut cluster.client(left[1]), "INCR key").expect("an answer"));
    assert!(answer.starts_with("-CLUSTERDOWN") || answer.starts_with("-UNCERTAIN"), "{answer}");
    gone.into_iter().chain([left[0]]).for_each(|id| cluster.restart(id));
    for id in cluster.ids() {
        let value = ask_until_served(&mut cluster.client(id), "GET key");
        assert!(value == "100" || (value == "101" && answer.starts_with("-UNCERTAIN")), "{value} at node {id}");
    }
}
