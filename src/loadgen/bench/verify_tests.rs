//! Verified loads on a correct fake server, and on faulty ones.

use super::driver::{Limit, Plan, drive};
use super::fake::{Answer, FakeServer};
use super::report::Verified;
use super::verify::{Recording, verify};
use super::workload::{Op, Picker, Requests, Workload};
use super::{Checks, LoadArgs, measure};
use crate::loadgen::bench::workload::RequestKind;
use clap::{Args, FromArgMatches};
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The fault of a server, at one request in a hundred.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    /// A read is answered with the first value that the key ever had.
    StaleRead,
    /// A write is acknowledged and forgotten.
    LostWrite,
    /// A write is done twice.
    Twice,
    /// The connection is closed instead of an answer. The request is executed nevertheless.
    Closed,
    /// The connection is closed instead of an answer. The request is not executed.
    ClosedBefore,
    /// The request is refused, and not executed.
    Refused,
    /// The request is executed, but the answer says that its outcome is uncertain.
    Uncertain,
}

/// The value of each key, with the first value that the key ever had.
type Store = HashMap<String, (String, Option<String>)>;

fn store(fault: Fault) -> FakeServer {
    let store = Mutex::new(Store::new());
    let done = Mutex::new(HashMap::<String, Vec<u8>>::new());
    FakeServer::start(move |request, number| {
        let mut store = store.lock().unwrap();
        let fault = if number % 100 == 99 { fault } else { Fault::None };
        match fault {
            Fault::ClosedBefore => return Answer::Close,
            Fault::Refused => return Answer::text("-CLUSTERDOWN Hash slot not served\r\n"),
            _ => {}
        }
        let reply = match request[0].as_str() {
            "SESSION" => format!("${}\r\n{number}\r\n", number.to_string().len()).into_bytes(),
            "ONCE" => {
                let mut done = done.lock().unwrap();
                let id = format!("{} {}", request[1], request[2]);
                done.entry(id).or_insert_with(|| execute(&mut store, &request[3..], fault)).clone()
            }
            _ => execute(&mut store, request, fault),
        };
        match fault {
            Fault::Closed => Answer::Close,
            Fault::Uncertain => Answer::text("-UNCERTAIN the command may or may not have been executed\r\n"),
            _ => Answer::Reply(reply),
        }
    })
}

fn execute(store: &mut Store, request: &[String], fault: Fault) -> Vec<u8> {
    let held = store.get(&request[1]).cloned();
    let old = held.as_ref().map(|(value, _)| value.clone());
    let first = held.as_ref().and_then(|(_, first)| first.clone());
    let after = match request[0].as_str() {
        "GET" => {
            let read = if fault == Fault::StaleRead { held.and_then(|(_, first)| first) } else { old };
            return read.map_or("$-1\r\n".into(), |value| format!("${}\r\n{value}\r\n", value.len())).into_bytes();
        }
        "SET" => request[2].clone(),
        "APPEND" => old.clone().unwrap_or_default() + &request[2],
        "INCR" => (old.as_ref().map_or(0, |value| value.parse::<i64>().unwrap()) + 1).to_string(),
        other => panic!("{other}"),
    };
    let reply = match request[0].as_str() {
        "SET" => "+OK\r\n".to_owned(),
        "APPEND" => format!(":{}\r\n", after.len()),
        _ => format!(":{after}\r\n"),
    };
    if fault != Fault::LostWrite {
        store.insert(request[1].clone(), (after, first.or(old)));
    }
    if fault == Fault::Twice {
        execute(store, request, Fault::None);
    }
    reply.into_bytes()
}

fn load(flags: &str, fault: Fault) -> Verified {
    let command = LoadArgs::augment_args(clap::Command::new("bench").no_binary_name(true));
    let load = LoadArgs::from_arg_matches(&command.try_get_matches_from(flags.split_whitespace()).unwrap()).unwrap();
    assert_eq!(load.unverifiable(), None);
    let server = store(fault);
    let report = measure(
        &[server.address.to_string()],
        &load,
        Checks { verify: true, ..Checks::default() },
        &AtomicBool::new(false),
    )
    .unwrap();
    let text = report.to_string();
    assert!(text.to_lowercase().contains("linearizable: "), "{text}");
    report.verify.unwrap()
}

const LOADS: [&str; 6] = [
    "--workload mixed:0.5 --requests 3000 --keys 5 --connections 8 --pipeline 4",
    "--workload mixed:0.8 --requests 3000 --keys 20 --connections 8 --threads 2 --keys-dist zipf:0.9",
    "--workload set --requests 1000 --keys 50 --connections 4 --value-size 16",
    "--workload incr --requests 2000 --keys 5 --connections 8",
    "--workload append --requests 2000 --keys 5 --connections 8 --pipeline 2 --value-size 20",
    "--workload once --requests 2000 --keys 5 --connections 4 --pipeline 8",
];

#[test]
fn a_server_that_keeps_its_word_is_found_linearizable_whatever_it_refuses_and_drops() {
    for flags in LOADS {
        for fault in [Fault::None, Fault::Closed, Fault::ClosedBefore, Fault::Refused, Fault::Uncertain] {
            let found = load(flags, fault);
            assert_eq!((found.linearizable, found.keys_kept), (Some(true), 1.0), "{flags} {fault:?}: {found:?}");
            assert!(found.operations > 800 && found.keys >= 5, "{flags} {fault:?}: {found:?}");
            let is_once = flags.contains("once");
            assert_eq!(found.refused > 0, fault == Fault::Refused, "{flags} {fault:?}: {found:?}");
            match fault {
                Fault::Uncertain => assert!(found.open > 0, "{flags}: {found:?}"),
                Fault::Closed | Fault::ClosedBefore if !is_once => assert!(found.open > 0, "{flags}: {found:?}"),
                Fault::None | Fault::Refused => assert_eq!(found.open, 0, "{flags}: {found:?}"),
                _ => {}
            }
        }
    }
}

#[test]
fn a_server_that_does_not_is_found_out() {
    let [busy, skewed, _, incr, append, once] = LOADS;
    // A lost write looks as if a concurrent write of the same key had overwritten it. So this load has few concurrent
    // writes of a key.
    let calm = "--workload mixed:0.8 --requests 3000 --keys 30 --connections 2";
    let stale = [busy, skewed, calm].map(|flags| (flags, Fault::StaleRead));
    let lost = [calm, incr, append, once].map(|flags| (flags, Fault::LostWrite));
    let twice = [incr, append, once].map(|flags| (flags, Fault::Twice));
    for (flags, fault) in stale.into_iter().chain(lost).chain(twice) {
        let found = load(flags, fault);
        assert_eq!(found.linearizable, Some(false), "{flags} {fault:?}: {found:?}");
        let shown = found.counterexample.unwrap();
        assert!(shown.contains("client  ") && shown.lines().count() < 30, "{shown}");
    }
}

#[test]
fn the_open_loop_is_verified_and_a_long_run_keeps_whole_histories_of_fewer_keys() {
    assert_eq!(
        load("--workload mixed:0.5 --duration 300ms --rate 3000 --keys 10", Fault::None).linearizable,
        Some(true)
    );

    let server = store(Fault::None);
    let (keys, operations_max) = (64, 1000);
    let plan = Plan {
        addresses: vec![server.address],
        map: None,
        connections: 8,
        threads: 2,
        pipeline: 2,
        limit: Limit::Requests(8000),
        rate: None,
        workload: Workload::Mixed(0.5),
        picker: Picker::Uniform(keys),
        requests: Requests::new(32, 1).tagged("run:"),
        seed: 1,
        recording: Some(Recording::within(keys, operations_max)),
        grace: Duration::from_secs(1),
        silence_max: Duration::from_secs(5),
    };
    let stop = AtomicBool::new(false);
    let recorder = drive(&plan, &stop, |_| {}).unwrap().recorder.unwrap();
    let found = verify(plan, recorder, &stop).unwrap();
    assert_eq!(found.linearizable, Some(true), "{found:?}");
    assert!(found.keys_kept < 1.0 && (100..=1100).contains(&found.operations), "{found:?}");
    assert!(found.operations > 20 * found.keys, "{found:?}");
    assert!(!stop.load(Ordering::Relaxed));
}

#[test]
fn values_tell_who_wrote_them() {
    let requests = Requests::new(20, 1).tagged("run:");
    let both = [requests.value(7), requests.value(1_000_000_000_008)].concat();
    assert_eq!(requests.arguments_of(&both), Some(vec![7, 1_000_000_000_008]));
    assert_eq!(requests.arguments_of(b""), Some(vec![]));
    for wrong in [&both[..39], &both[1..21], b"x", &[&both[..19], b"?"].concat()] {
        assert_eq!(requests.arguments_of(wrong), None);
    }
    let mut out = Vec::new();
    let op = Op { kind: RequestKind::Set, key: 12, argument: 7, intended_ns: 0, sent_ns: 0, attempts: 0 };
    requests.write(&op, b"", &mut out);
    let request = String::from_utf8(out).unwrap();
    assert!(request.starts_with("*3\r\n$3\r\nSET\r\n$16\r\nrun:000000000012\r\n$20\r\n0000000000000007"), "{request}");
    let mut key = Vec::new();
    requests.write_key(RequestKind::Get, 12, &mut key);
    assert_eq!(key, b"run:000000000012");
}
