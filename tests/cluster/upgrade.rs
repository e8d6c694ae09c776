//! Members with two versions of the peer protocol work together, and are upgraded one by one while clients go on. The
//! old program is the new one, limited to the old version.

use crate::harness::client::{ask, ask_until_served};
use crate::harness::recorder::Recorder;
use crate::harness::{Cluster, run, turn, wait_for};
use paxoi::versions::Versions;
use std::time::Duration;

const CLIENTS: usize = 8;
const KEYS: usize = 9;
/// Operations between two restarts.
const OPERATIONS: u64 = 1_000;
const SEEN_MAX: Duration = Duration::from_secs(20);
const OLD: [&str; 2] = ["--protocol-versions", "1"];

/// Waits until every node proposes values of `version`.
fn wait_for_values(cluster: &Cluster, version: u64) {
    for id in cluster.ids() {
        cluster
            .wait_for_info(id, &format!("values of version {version}"), |info| info.number("value_version") == version);
    }
}

#[test]
fn members_are_upgraded_one_by_one_under_load() {
    let _turn = turn();
    let mut cluster = Cluster::prepare(3, 8, &OLD);
    cluster.ids().for_each(|id| cluster.spawn(id));
    cluster.wait_for_leaders();
    assert_eq!(ask_until_served(&mut cluster.client(1), "SET before 1"), "OK");
    let recorder = Recorder::start(&cluster.addresses(), CLIENTS, KEYS, 5);
    cluster.set_flags(&[]);
    for id in cluster.ids() {
        recorder.wait_for_more(OPERATIONS);
        wait_for_values(&cluster, 1);
        cluster.kill9(id);
        cluster.restart(id);
        assert_eq!(cluster.info(id).number("protocol_version"), u64::from(Versions::OURS.highest));
    }
    wait_for_values(&cluster, u64::from(Versions::OURS.value_version()));
    recorder.wait_for_more(OPERATIONS);
    let summary = recorder.stop_and_check();
    assert!(summary.operations as u64 > 4 * OPERATIONS, "{summary:?}");
    for id in cluster.ids() {
        assert_eq!(ask_until_served(&mut cluster.client(id), "GET before"), "1");
        let info = cluster.info(id);
        assert_eq!((info.number("skipped_unknown_group"), info.number("skipped_unknown_kind")), (0, 0));
    }
    // The values now in the log have a version that the old program does not understand.
    cluster.ids().for_each(|id| cluster.kill9(id));
    cluster.set_flags(&OLD);
    let ended = run(&cluster.words(1));
    ended.expect(1, &["a value of version ", "start the one that wrote it, or a later one"]);
}

#[test]
fn a_new_leader_proposes_nothing_that_an_old_member_which_it_has_not_seen_cannot_read() {
    let _turn = turn();
    let mut cluster = Cluster::prepare(3, 4, &[]);
    let mut old = cluster.words(3);
    old.extend(OLD.map(str::to_owned));
    (1..=2).for_each(|id| cluster.spawn(id));
    cluster.spawn_as(3, &old);
    cluster.wait_for_leaders();
    cluster.kill9(3);
    for id in [1, 2] {
        cluster.kill9(id);
        cluster.restart(id);
    }
    // Node 3 is down, and no node can tell which version it is going to speak.
    for number in 0..50 {
        assert_eq!(ask_until_served(&mut cluster.client(1), &format!("SET key:{number} {number}")), "OK");
    }
    assert_eq!(cluster.info(1).number("value_version"), 1);
    cluster.spawn_as(3, &old);
    cluster.wait_for_answer(3);
    for number in 0..50 {
        let found = wait_for("the old member to catch up", SEEN_MAX, || {
            Some(ask(&mut cluster.client(3), &format!("GET key:{number}"))).filter(|found| !found.starts_with('-'))
        });
        assert_eq!(found, number.to_string());
    }
}

#[test]
fn those_who_speak_no_common_version_say_so_on_both_sides() {
    let _turn = turn();
    let mut cluster = Cluster::prepare(3, 4, &[]);
    let mut later = cluster.words(3);
    let ours = Versions::OURS;
    let theirs = Versions { lowest: ours.highest + 1, highest: ours.highest + 2 };
    later.extend(["--protocol-versions".to_owned(), format!("{}-{}", theirs.lowest, theirs.highest)]);
    (1..=2).for_each(|id| cluster.spawn(id));
    cluster.spawn_as(3, &later);
    let says = |id: u32, text: &str| {
        wait_for(text, SEEN_MAX, || cluster.log(id).contains(text).then_some(()));
    };
    says(1, &format!("node 3 speaks {theirs} of the peer protocol, but node 1 speaks {ours}"));
    says(3, &format!("node 1 speaks {ours} of the peer protocol, but node 3 speaks {theirs}"));
    says(1, "upgrade through a version that speaks both");
}
