//! Histories of clients at all nodes are linearizable, whatever happens to the nodes meanwhile.

use crate::harness::recorder::Recorder;
use crate::harness::{Cluster, run, turn};
use std::time::Duration;

const CLIENTS: usize = 8;
const KEYS: usize = 9;
/// Operations between two faults, so that the faults hit different moments.
const OPERATIONS: u64 = 1500;
/// Time that a node is paused: longer than the others wait for a silent leader.
const PAUSE: Duration = Duration::from_millis(1500);

#[test]
fn clients_of_killed_and_paused_nodes_see_a_linearizable_history() {
    let _turn = turn();
    let mut cluster = Cluster::start(3, 8, &[]);
    let recorder = Recorder::start(&cluster.addresses(), CLIENTS, KEYS, 1);
    for id in cluster.ids() {
        recorder.wait_for_more(OPERATIONS);
        cluster.kill9(id);
        recorder.wait_for_more(OPERATIONS);
        cluster.restart(id);
        recorder.wait_for_more(OPERATIONS);
        cluster.pause(id);
        std::thread::sleep(PAUSE);
        cluster.resume(id);
    }
    let summary = recorder.stop_and_check();
    assert!(summary.operations as u64 > 9 * OPERATIONS && summary.open > 0, "{summary:?}");
}

/// Returns the report of `paxoi bench --verify` for a load during which a node is killed and comes back.
fn verified_load(cluster: &mut Cluster, flags: &str) -> serde_json::Value {
    let json = cluster.data(1).with_extension("json");
    let addresses: Vec<String> = cluster.addresses().iter().map(ToString::to_string).collect();
    let words =
        format!("bench --connect {} --verify --duration 4s {flags} --json {}", addresses.join(","), json.display());
    let bench = std::thread::spawn(move || run(&words.split(' ').collect::<Vec<_>>()));
    let leader = cluster.busiest();
    let stays = cluster.ids().find(|id| *id != leader).expect("another node");
    let some_more = |cluster: &Cluster| {
        let goal = cluster.info(stays).number("applied_total") + 200;
        cluster.wait_for_info(stays, "progress", |info| info.number("applied_total") >= goal);
    };
    some_more(cluster);
    cluster.kill9(leader);
    some_more(cluster);
    cluster.restart(leader);
    let ended = bench.join().expect("the load");
    assert_eq!((ended.code, ended.errors.as_slice()), (0, &[][..]), "{ended:?}");
    assert!(ended.stdout.contains("\n linearizable: "), "{}", ended.stdout);
    let report = std::fs::read_to_string(json).expect("a report");
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    eprintln!("{flags}: {} lost, {}", report["requests_lost"], report["verify"]);
    report
}

#[test]
fn a_verified_load_goes_on_when_a_node_is_killed() {
    let _turn = turn();
    let mut cluster = Cluster::start(3, 8, &[]);
    for flags in [
        "--workload mixed:0.5 --connections 30 --pipeline 4 --keys 40",
        "--workload once --connections 30 --cluster --keys 40 --rate 3000",
        "--workload append --connections 12 --pipeline 8 --value-size 20 --threads 2",
    ] {
        let report = verified_load(&mut cluster, flags);
        let verify = &report["verify"];
        assert_eq!(verify["linearizable"], true, "{verify}");
        assert!(verify["operations"].as_u64().is_some_and(|operations| operations > 1000), "{verify}");
        assert!(report["connections_lost"].as_u64().is_some_and(|lost| lost > 0), "{report}");
        // Operations in flight to the killed node stay open; a ONCE is repeated.
        assert!(flags.contains("once") || verify["open"].as_u64() > Some(0), "{verify}");
    }
}

#[test]
fn a_load_shows_the_processor_time_and_the_work_of_every_node() {
    let _turn = turn();
    let cluster = Cluster::start(3, 4, &[]);
    let (json, address) = (cluster.data(1).with_extension("json"), cluster.addresses()[0]);
    let words = format!(
        "bench --connect {address} --workload set --requests 3000 --pipeline 4 --keys 500 --cpu --json {}",
        json.display()
    );
    let ended = run(&words.split(' ').collect::<Vec<_>>());
    assert!(ended.code == 0 && ended.stdout.contains(" processor time, µs "), "{ended:?}");
    let report = std::fs::read_to_string(json).expect("a report");
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    let servers = report["cpu"]["servers"].as_array().expect("servers");
    assert_eq!(servers.len(), 3, "one address is enough: {report}");
    for server in servers {
        assert!(server["us_per_request"].as_f64() > Some(0.0), "{server}");
        // The counters of socket calls are told to the node at intervals, and may be as they were.
        for work in
            ["log syncs", "chosen values", "frames to other nodes", "messages to other nodes", "bytes to the log"]
        {
            assert!(server["work"][work].as_f64() > Some(0.0), "{work}: {server}");
        }
    }
}
