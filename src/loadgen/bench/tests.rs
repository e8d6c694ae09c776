//! Loads on a fake server: the report tells how the server treats them.

use super::cluster::SlotMap;
use super::driver::{Limit, Plan, drive};
use super::fake::{Answer, FakeServer};
use super::record::Measurements;
use super::workload::{Picker, RequestKind, Requests, Workload};
use super::{Checks, LoadArgs, measure};
use crate::routing::slot;
use clap::{Args, FromArgMatches};
use std::collections::HashSet;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

fn plan(addresses: &[SocketAddr], workload: Workload, requests: u64) -> Plan {
    Plan {
        addresses: addresses.to_vec(),
        map: None,
        connections: 4,
        threads: 1,
        pipeline: 4,
        limit: Limit::Requests(requests),
        rate: None,
        workload,
        picker: Picker::Uniform(1000),
        requests: Requests::new(8, 1),
        seed: 1,
        recording: None,
        grace: Duration::from_millis(200),
        silence_max: Duration::from_secs(20),
    }
}

fn run(plan: &Plan) -> Measurements {
    drive(plan, &AtomicBool::new(false), |_| {}).unwrap()
}

fn load_args(flags: &str) -> LoadArgs {
    let command = LoadArgs::augment_args(clap::Command::new("bench").no_binary_name(true));
    LoadArgs::from_arg_matches(&command.try_get_matches_from(flags.split_whitespace()).unwrap()).unwrap()
}

#[test]
fn a_fixed_number_of_requests_is_sent_and_answered_once() {
    for threads in [1, 3] {
        let server = FakeServer::start(|request, _| {
            assert_eq!(request[0], "SET");
            assert_eq!((request[1].len(), request[2].len()), (16, 8));
            Answer::ok()
        });
        let record = run(&Plan { threads, ..plan(&[server.address], Workload::Set, 1001) });
        assert_eq!(record.latencies(RequestKind::Set).len(), 1001);
        assert_eq!((record.in_time, server.requests()), (1001, 1001));
        assert!(record.errors.is_empty() && record.unanswered == 0 && record.end_ns > 0);
    }
}

#[test]
fn a_timed_load_ends_by_itself() {
    let server = FakeServer::start(|_, _| Answer::ok());
    let limit = Limit::Time(Duration::from_millis(150));
    let record = run(&Plan { limit, ..plan(&[server.address], Workload::Incr, 0) });
    assert_eq!(record.end_ns, 150_000_000);
    assert!(record.in_time > 0 && record.unanswered == 0);
    assert_eq!(server.requests() as u64, record.latencies(RequestKind::Incr).len());
}

#[test]
fn mixed_requests_are_measured_by_kind_and_dealt_over_the_addresses() {
    let servers = [(); 2].map(|()| {
        FakeServer::start(|request, _| match request[0].as_str() {
            "GET" => Answer::text("$3\r\nabc\r\n"),
            _ => Answer::ok(),
        })
    });
    let addresses = [servers[0].address, servers[1].address];
    let record = run(&plan(&addresses, Workload::Mixed(0.75), 2000));
    let (gets, sets) = (record.latencies(RequestKind::Get).len(), record.latencies(RequestKind::Set).len());
    assert_eq!(gets + sets, 2000);
    assert!((1400..1600).contains(&gets), "{gets}");
    assert!(servers.iter().all(|server| server.requests() > 0));
}

#[test]
fn errors_are_counted_and_have_no_latency() {
    let server = FakeServer::start(|_, number| match number % 4 {
        0 => Answer::text("-CLUSTERDOWN Hash slot not served\r\n"),
        _ => Answer::ok(),
    });
    let record = run(&plan(&[server.address], Workload::Set, 400));
    assert_eq!(record.errors.into_iter().collect::<Vec<_>>(), [("CLUSTERDOWN".to_owned(), 100)]);
    assert_eq!(record.in_time, 300);
}

#[test]
fn a_lost_connection_is_made_again_and_what_it_carried_is_counted() {
    let server = FakeServer::start(|_, number| if number % 100 == 99 { Answer::Close } else { Answer::ok() });
    let record = run(&plan(&[server.address], Workload::Set, 500));
    // When the server closes a connection at a request, the in-flight requests behind that one never reach it. So the
    // server sees fewer than 500, and closes at every 100th of those.
    assert!(record.connections_lost >= 4, "{}", record.connections_lost);
    assert!(record.lost >= record.connections_lost);
    assert_eq!(record.in_time + record.lost, 500);
}

#[test]
fn garbage_costs_the_connection_only() {
    let server = FakeServer::start(|_, number| match number {
        50 => Answer::text("HTTP/1.1 400 Bad Request\r\n"),
        _ => Answer::ok(),
    });
    let record = run(&plan(&[server.address], Workload::Set, 200));
    assert_eq!(record.connections_lost, 1);
    assert_eq!(record.in_time + record.lost, 200);
}

#[test]
fn a_server_that_refuses_connections_is_heard() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.write_all(b"-ERR max number of clients reached\r\n").unwrap();
            // A close with unread requests would discard the error before the client reads it.
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
    });
    let silence_max = Duration::from_millis(200);
    let record = run(&Plan { silence_max, ..plan(&[address], Workload::Set, 100) });
    assert!(record.errors["ERR"] >= 4, "{:?}", record.errors);
    assert_eq!(record.in_time, 0);
}

#[test]
fn large_replies_arrive_in_pieces() {
    let value = format!("$1000000\r\n{}\r\n", "x".repeat(1_000_000));
    let server = FakeServer::start(move |_, _| Answer::text(&value));
    let record = run(&plan(&[server.address], Workload::Get, 40));
    assert_eq!((record.in_time, record.connections_lost), (40, 0));
}

#[test]
fn a_silent_server_does_not_hold_the_run() {
    let server = FakeServer::start(|_, number| if number < 100 { Answer::ok() } else { Answer::Silence });
    let limit = Limit::Time(Duration::from_millis(400));
    let record = run(&Plan { limit, ..plan(&[server.address], Workload::Set, 0) });
    assert_eq!((record.in_time, record.unanswered), (100, 16));

    let server = FakeServer::start(|_, number| if number < 100 { Answer::ok() } else { Answer::Silence });
    let silence_max = Duration::from_millis(100);
    let record = run(&Plan { silence_max, ..plan(&[server.address], Workload::Set, 1000) });
    assert_eq!((record.in_time, record.unanswered), (100, 16));
}

/// Starts a server that stalls once for 300 ms, like a server that waits for its disk.
fn stalling() -> FakeServer {
    FakeServer::start(|_, number| {
        if number == 100 {
            thread::sleep(Duration::from_millis(300));
        }
        Answer::ok()
    })
}

#[test]
fn the_open_loop_does_not_omit_what_a_stall_delays() {
    let shape = |address| Plan { connections: 1, pipeline: 1, ..plan(&[address], Workload::Set, 600) };
    let closed = run(&shape(stalling().address)).all_latencies();
    let open = run(&Plan { rate: Some(1000.0), ..shape(stalling().address) });
    assert_eq!((open.in_time, open.never_sent), (600, 0));
    let open = open.all_latencies();
    // In the closed loop, only one request saw the stall. In the open loop, every request that was due during the stall
    // saw it.
    assert!(closed.value_at_quantile(0.99) < 150_000_000, "{}", closed.value_at_quantile(0.99));
    assert!(open.value_at_quantile(0.9) > 150_000_000, "{}", open.value_at_quantile(0.9));
}

#[test]
fn the_open_loop_keeps_its_rate_and_tells_what_it_could_not_send() {
    let server = FakeServer::start(|_, _| Answer::ok());
    let limit = Limit::Time(Duration::from_millis(300));
    let record = run(&Plan { rate: Some(2000.0), limit, threads: 2, ..plan(&[server.address], Workload::Set, 0) });
    assert_eq!(record.latencies(RequestKind::Set).len() + record.unanswered + record.never_sent, 600);

    let server = FakeServer::start(|_, _| Answer::Silence);
    let record = run(&Plan { rate: Some(2000.0), limit, ..plan(&[server.address], Workload::Set, 0) });
    assert_eq!((record.unanswered, record.never_sent), (16, 600 - 16));
}

/// Starts a node of a cluster. The node owns the slots of `owned`, and redirects requests for all others to the address
/// in `other`.
fn node(owned: std::ops::Range<u16>, other: Arc<Mutex<Option<SocketAddr>>>) -> FakeServer {
    FakeServer::start(move |request, _| {
        let other = other.lock().unwrap().unwrap();
        if request[0] == "CLUSTER" {
            let (first, last) = (owned.start, owned.end - 1);
            let port = other.port();
            // An outdated map: it says that the other node owns this node's slots, and lacks all other slots.
            return Answer::text(&format!("*1\r\n*3\r\n:{first}\r\n:{last}\r\n*2\r\n$9\r\n127.0.0.1\r\n:{port}\r\n"));
        }
        let slot = slot(request[1].as_bytes());
        if owned.contains(&slot) { Answer::text(":1\r\n") } else { Answer::text(&format!("-MOVED {slot} {other}\r\n")) }
    })
}

#[test]
fn moved_requests_are_sent_again_to_their_owner() {
    let (to_second, to_first) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(None)));
    let first = node(0..8192, Arc::clone(&to_second));
    let second = node(8192..16384, Arc::clone(&to_first));
    *to_second.lock().unwrap() = Some(second.address);
    *to_first.lock().unwrap() = Some(first.address);
    // The slot map of the first node is entirely wrong.
    let map = SlotMap::fetch(first.address).unwrap();
    assert_eq!(map.nodes(), [second.address]);
    for threads in [1, 2] {
        let plan = Plan { map: Some(map.clone()), threads, ..plan(&[first.address], Workload::Incr, 2000) };
        let record = run(&plan);
        assert_eq!((record.in_time, record.lost), (2000, 0));
        assert!(record.errors.is_empty(), "{:?}", record.errors);
        assert!(record.redirects > 0);
    }
}

#[test]
fn once_requests_survive_their_connection() {
    let done = Arc::new(Mutex::new(HashSet::new()));
    let sessions = AtomicUsize::new(0);
    let executed = Arc::clone(&done);
    let server = FakeServer::start(move |request, number| match request[0].as_str() {
        "SESSION" => Answer::text(&format!("+id-{}\r\n", sessions.fetch_add(1, Ordering::SeqCst))),
        _ => {
            assert_eq!((request[0].as_str(), request[3].as_str()), ("ONCE", "INCR"));
            executed.lock().unwrap().insert((request[1].clone(), request[2].parse::<u64>().unwrap()));
            if number % 100 == 99 { Answer::Close } else { Answer::text(":1\r\n") }
        }
    });
    let record = run(&plan(&[server.address], Workload::Once, 1000));
    assert_eq!((record.in_time, record.lost), (1000, 0));
    assert!(record.connections_lost > 0);
    let done = done.lock().unwrap();
    assert_eq!(done.len(), 1000);
    let ids: HashSet<&str> = done.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids.len(), 4);
    assert_eq!(done.iter().filter(|(_, number)| *number == 1).count(), 4);
}

#[test]
fn a_server_that_is_not_there_is_an_error_of_one_line() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for flags in ["", "--cluster", "--workload once", "--workload get"] {
        let error = measure(&[free.to_string()], &load_args(flags), Checks::default(), &AtomicBool::new(false))
            .unwrap_err()
            .to_string();
        assert!(error.contains(&free.to_string()) && error.contains("refused"), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn reads_find_their_keys_loaded_unless_that_is_declined() {
    let keys = Arc::new(Mutex::new(HashSet::new()));
    let loaded = Arc::clone(&keys);
    let server = FakeServer::start(move |request, _| match request[0].as_str() {
        "SET" => {
            assert!(loaded.lock().unwrap().insert(request[1].clone()), "loaded twice");
            Answer::ok()
        }
        _ => Answer::text("$-1\r\n"),
    });
    let connect = [server.address.to_string()];
    let stop = AtomicBool::new(false);
    let report = measure(
        &connect,
        &load_args("--workload get --keys 1500 --requests 100 --threads 2"),
        Checks::default(),
        &stop,
    )
    .unwrap();
    assert_eq!((report.requests, keys.lock().unwrap().len()), (100, 1500));
    assert_eq!(report.operations.len(), 1);
    let flags = "--workload get --keys 1500 --requests 100 --no-load";
    measure(&connect, &load_args(flags), Checks::default(), &stop).unwrap();
    assert_eq!(server.requests(), 1500 + 200);

    let server = FakeServer::start(|_, _| Answer::text("-LOADING wait\r\n"));
    let flags = "--workload get --keys 10";
    let error =
        measure(&[server.address.to_string()], &load_args(flags), Checks::default(), &stop).unwrap_err().to_string();
    assert!(error.contains("0 of 10 keys") && error.contains("10 × -LOADING"), "{error}");
}

#[test]
fn a_stop_ends_the_run_early_with_a_report() {
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&stop);
    let server = FakeServer::start(move |_, number| {
        asked.store(number >= 1000, Ordering::SeqCst);
        Answer::ok()
    });
    let report = measure(&[server.address.to_string()], &load_args("--duration 1h"), Checks::default(), &stop).unwrap();
    assert!(report.interrupted && report.requests > 1000 && report.unanswered == 0);
    let text = report.to_string();
    assert!(text.contains("stopped after") && text.contains("set"), "{text}");
}

#[test]
fn flags_that_make_no_sense_are_refused() {
    let parse = |flags: &str| {
        let command = LoadArgs::augment_args(clap::Command::new("bench").no_binary_name(true));
        command.try_get_matches_from(flags.split_whitespace())
    };
    let bad =
        ["--connections 0", "--pipeline 0", "--rate 0", "--rate NaN", "--keys 0", "--duration 0s", "--requests 0"];
    for flags in bad.into_iter().chain(["--duration 1s --requests 1", "--workload put", "--value-size 600000000"]) {
        assert!(parse(flags).is_err(), "{flags}");
    }
    assert!(load_args("--workload once --pipeline 65").contradiction().is_some());
    assert!(load_args("--workload once --pipeline 64").contradiction().is_none());
}
