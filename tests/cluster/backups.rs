//! `paxoi backup`, `paxoi inspect backup` and `paxoi restore`, with running nodes, stopped nodes and lost nodes.

use crate::harness::client::{ask, ask_until_served, connect};
use crate::harness::{Cluster, Ended, PROGRAM, READY_MAX, directory, run, turn, wait_for};
use net::resp::value::Value;
use paxoi::client::Client;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;

/// Small logs, so that checkpoints are made and removed all the time.
const SMALL: &[&str] = &["--segment-bytes", "256kb", "--checkpoint-log-bytes", "1mb", "--checkpoint-log-factor", "1"];
const GROUPS: u32 = 8;
/// An expiry time in the far future, in unix milliseconds: the year 2099.
const LATER_MS: &str = "4070908800000";

/// By key: its value, and its expiry time in unix milliseconds, or -1 for a key that never expires.
type Content = BTreeMap<Vec<u8>, (Vec<u8>, i64)>;

fn backup_of(place: &Path, more: &[&str], out: &Path) -> Ended {
    let (place, out) = (place.display().to_string(), out.display().to_string());
    run(&[&["backup", "--data", &place, &out], more].concat())
}

fn inspect(out: &Path) -> Ended {
    run(&["inspect", "backup", &out.display().to_string()])
}

fn restore(out: &Path, cluster: &Cluster, more: &[&str]) -> Ended {
    let addresses = addresses(cluster);
    run(&[&["restore", &out.display().to_string(), "--connect", &addresses], more].concat())
}

fn addresses(cluster: &Cluster) -> String {
    cluster.addresses().iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn set(client: &mut Client, words: &[&[u8]]) {
    let reply = wait_for("a SET", READY_MAX, || {
        let reply = client.call(&[&[&b"SET"[..]], words].concat()).expect("a connection");
        Some(reply).filter(|reply| !matches!(reply, Value::Error(text) if text.starts_with("CLUSTERDOWN")))
    });
    assert_eq!(reply, Value::Simple("OK".into()), "{words:?}");
}

/// Writes keys of all kinds.
fn fill(client: &mut Client) {
    for number in 0..500 {
        set(client, &[format!("plain:{number}").as_bytes(), format!("value {number}").as_bytes()]);
        let until = format!("{}", 4_070_908_800_000u64 + number);
        set(client, &[format!("until:{number}").as_bytes(), b"x", b"PXAT", until.as_bytes()]);
    }
    set(client, &[b"", b"of the empty key"]);
    set(client, &[b"empty", b""]);
    set(client, &[b"empty until", b"", b"PXAT", LATER_MS.as_bytes()]);
    let every: Vec<u8> = (0..=255).collect();
    set(client, &[&every, &every]);
    set(client, &[b"\r\n$-1\r\n", b"*3\r\n"]);
    for number in 0..3u8 {
        let large: Vec<u8> =
            (0..3_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8 ^ number).collect();
        set(client, &[format!("large:{number}").as_bytes(), &large]);
    }
    set(client, &[b"soon gone", b"x", b"PX", b"1"]);
}

fn content(client: &mut Client) -> Content {
    let mut content = Content::new();
    let mut cursor = b"0".to_vec();
    loop {
        let Value::Array(reply) = client.call(&[b"SCAN", &cursor, b"COUNT", b"1000"]).expect("SCAN") else {
            panic!("SCAN has another reply")
        };
        let Value::Array(keys) = &reply[1] else { panic!("SCAN has no keys") };
        for key in keys.iter().map(|key| key.as_bytes().expect("a key")) {
            let value = client.call(&[b"GET", key]).expect("GET");
            let Value::Int(until) = client.call(&[b"PEXPIRETIME", key]).expect("PEXPIRETIME") else {
                panic!("no number")
            };
            if let Some(value) = value.as_bytes() {
                content.insert(key.to_vec(), (value.to_vec(), until));
            }
        }
        cursor = reply[0].as_bytes().expect("a cursor").to_vec();
        if cursor == b"0" {
            return content;
        }
    }
}

fn flip(file: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(file).expect("a file of the backup");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("a byte");
    file.write_all_at(&[byte[0] ^ 0x04], at).expect("a byte written");
}

#[test]
fn a_node_that_runs_is_backed_up_and_restored_into_other_groups() {
    let _turn = turn();
    let place = directory();
    let out = place.path().join("backup");
    let cluster = Cluster::start(3, GROUPS, SMALL);
    fill(&mut cluster.client(1));
    let address = cluster.address(2).to_string();
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let before = thread::scope(|scope| {
        let mut client = cluster.client(3);
        let (stop, written) = (&stop, &written);
        scope.spawn(move || {
            while !stop.load(SeqCst) {
                let number = written.load(SeqCst);
                let value = format!("{number} {}", "x".repeat(2_000));
                set(&mut client, &[format!("hot:{}", number % 200).as_bytes(), value.as_bytes()]);
                written.store(number + 1, SeqCst);
            }
        });
        wait_for("overwrites", READY_MAX, || (written.load(SeqCst) > 1_000).then_some(()));
        let data = cluster.data(2);
        backup_of(&data, &[], &out).expect(1, &["a node is running in", "--connect"]);
        backup_of(&data, &["--connect", &cluster.address(1).to_string()], &out).expect(1, &["does not run in"]);
        assert!(!out.exists(), "a failed backup leaves no files");
        let before = written.load(SeqCst);
        let made = backup_of(&data, &["--connect", &address], &out);
        stop.store(true, SeqCst);
        assert_eq!((made.code, made.errors.len()), (0, 0), "{made:?}");
        assert!(made.stdout.contains("8 groups"), "{made:?}");
        before
    });
    backup_of(&cluster.data(2), &["--connect", &address], &out).expect(2, &["is not empty"]);
    let seen = inspect(&out);
    assert_eq!((seen.code, seen.stdout.lines().filter(|line| line.starts_with("group ")).count()), (0, 8), "{seen:?}");

    let restored = Cluster::start(1, 5, &[]);
    let done = restore(&out, &restored, &["--connections", "3"]);
    assert_eq!((done.code, done.errors.len()), (0, 0), "{done:?}");
    let (mut was, mut is) = (content(&mut cluster.client(1)), content(&mut restored.client(1)));
    let hot = |content: &mut Content| -> Vec<(Vec<u8>, u64)> {
        let keys: Vec<Vec<u8>> = content.keys().filter(|key| key.starts_with(b"hot:")).cloned().collect();
        let number = |value: &[u8]| String::from_utf8_lossy(value).split(' ').next().and_then(|text| text.parse().ok());
        keys.into_iter().map(|key| (key.clone(), number(&content.remove(&key).unwrap().0).expect("a number"))).collect()
    };
    let (hot_was, hot_is) = (hot(&mut was), hot(&mut is));
    assert_eq!(was.len(), is.len());
    assert!(
        was == is,
        "keys differ: {:?}",
        was.iter().find(|(key, value)| is.get(*key) != Some(*value)).map(|(key, _)| key)
    );
    assert_eq!((hot_was.len(), hot_is.len()), (200, 200));
    let written = written.load(SeqCst);
    for ((key, now), (_, then)) in hot_was.iter().zip(&hot_is) {
        // The backup holds every write that was acknowledged before it began, at any node.
        assert!(then <= now && *now < written && then + 200 >= before, "{key:?}: {then} of {now}, {before} before");
    }

    restore(&out, &restored, &[]).expect(1, &["holds", "--force"]);
    assert_eq!(ask(&mut restored.client(1), "SET plain:7 other"), "OK");
    assert_eq!(restore(&out, &restored, &["--force"]).code, 0);
    assert_eq!(ask(&mut restored.client(1), "GET plain:7"), "value 7");
}

#[test]
fn stopped_directories_are_backed_up_with_their_logs_and_damage_is_refused() {
    let _turn = turn();
    let place = directory();
    let (out, again) = (place.path().join("backup"), place.path().join("again"));
    let mut cluster = Cluster::start(3, GROUPS, &[]);
    let mut client = cluster.client(1);
    fill(&mut client);
    // Every node has a checkpoint, and a log that goes on after it.
    for id in cluster.ids() {
        assert_eq!(ask(&mut cluster.client(id), "PAXOI CHECKPOINT"), "Background checkpoint started");
        cluster.wait_for_info(id, "a checkpoint", |info| info.number("checkpoints_made") > 0);
    }
    for number in 0..300 {
        set(&mut client, &[format!("plain:{number}").as_bytes(), b"newer"]);
    }
    assert_eq!(ask(&mut client, "DEL until:3 until:4"), "2");
    let was = content(&mut client);
    cluster.ids().for_each(|id| cluster.kill9(id));

    let names = |id: u32| {
        let entries = std::fs::read_dir(cluster.data(id)).expect("a directory");
        let of = |entry: std::fs::DirEntry| (entry.file_name(), std::fs::read(entry.path()).expect("a file"));
        entries.map(|entry| of(entry.expect("an entry"))).collect::<BTreeMap<_, _>>()
    };
    let untouched = names(1);
    backup_of(&cluster.data(1), &["--connect", "127.0.0.1:1"], &out).expect(1, &["no node is running"]);
    // The backup takes the newest state of each group from all nodes.
    let others: Vec<String> = (2..=3).map(|id| cluster.data(id).display().to_string()).collect();
    let made = backup_of(&cluster.data(1), &["--data", &others[0], "--data", &others[1]], &out);
    assert_eq!((made.code, made.errors.len()), (0, 0), "{made:?}");
    assert!(untouched == names(1), "nothing is written there");
    assert_eq!(inspect(&out).code, 0);

    let restored = Cluster::start(1, 3, &[]);
    for file in std::fs::read_dir(&out).expect("the backup").map(|entry| entry.expect("an entry").path()) {
        let length = file.metadata().expect("its length").len();
        for at in [10, length / 2, length - 10] {
            flip(&file, at);
            let seen = inspect(&out);
            assert_eq!(seen.code, 1, "byte {at} of {}: {seen:?}", file.display());
            let refused = restore(&out, &restored, &[]);
            assert_eq!((refused.code, refused.errors.len()), (1, 1), "byte {at} of {}: {refused:?}", file.display());
            flip(&file, at);
        }
    }
    assert_eq!(ask_until_served(&mut restored.client(1), "DBSIZE"), "0");
    let done = restore(&out, &restored, &[]);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(content(&mut restored.client(1)) == was);

    // A backup without a manifest is not a backup.
    assert_eq!(backup_of(&cluster.data(3), &[], &again).code, 0);
    std::fs::remove_file(again.join("manifest.json")).expect("the manifest");
    inspect(&again).expect(1, &["was never finished"]);
}

#[test]
fn one_who_survives_a_lost_quorum_has_what_it_voted_for() {
    let _turn = turn();
    let place = directory();
    let out = place.path().join("backup");
    let mut cluster = Cluster::start(3, 1, &[]);
    let leader = cluster.busiest();
    let [survivor, other] = [1, 2].map(|step| (leader - 1 + step) % 3 + 1);
    set(&mut cluster.client(leader), &[b"key", b"old"]);
    // While `other` is down, every write needs the vote of the survivor.
    cluster.kill9(other);
    for number in 0..50 {
        set(&mut cluster.client(leader), &[b"key", format!("{number}").as_bytes()]);
    }
    cluster.kill9(leader);
    backup_of(&cluster.data(survivor), &["--connect", &cluster.address(survivor).to_string()], &out)
        .expect(1, &["does not serve", "without --connect"]);
    cluster.kill9(survivor);
    assert_eq!(backup_of(&cluster.data(survivor), &[], &out).code, 0);
    let restored = Cluster::start(1, 2, &[]);
    assert_eq!(restore(&out, &restored, &[]).code, 0);
    assert_eq!(ask(&mut restored.client(1), "GET key"), "49");
}

#[test]
fn a_restore_that_was_interrupted_is_run_again() {
    let _turn = turn();
    let place = directory();
    let out = place.path().join("backup");
    let mut cluster = Cluster::start(1, 4, &[]);
    let mut client = cluster.client(1);
    let value = vec![b'v'; 20_000];
    for number in 0..2_000 {
        set(&mut client, &[format!("key:{number}").as_bytes(), &value]);
    }
    set(&mut client, &[b"short", b"x", b"PX", b"1500"]);
    let was = content(&mut client);
    cluster.kill9(1);
    assert_eq!(backup_of(&cluster.data(1), &[], &out).code, 0);

    let restored = Cluster::start(3, 7, &["--value-bytes-max", "1mb"]);
    let mut process = Command::new(PROGRAM)
        .args(["restore", &out.display().to_string(), "--connect", &addresses(&restored)])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let mut asking = connect(restored.address(1)).expect("a connection");
    wait_for("the first keys", READY_MAX, || (ask(&mut asking, "DBSIZE") != "0").then_some(()));
    // While a node is paused, the restore can neither finish nor fail.
    restored.pause(2);
    process.kill().expect("a signal to a child");
    assert!(!process.wait().expect("the end of a child").success(), "it was not done yet");
    restored.resume(2);
    restored.wait_for_leaders();
    restore(&out, &restored, &[]).expect(1, &["interrupted", "--force"]);
    let done = restore(&out, &restored, &["--force"]);
    assert_eq!(done.code, 0, "{done:?}");
    let mut is = content(&mut restored.client(1));
    let mut was = was;
    // The key `short` may have expired by now.
    was.remove(&b"short"[..]);
    is.remove(&b"short"[..]);
    assert!(was == is, "{} keys of {}", is.len(), was.len());

    let small = Cluster::start(1, 2, &["--value-bytes-max", "10kb"]);
    restore(&out, &small, &[]).expect(1, &["\"key:", "20000 bytes", "at most 10240", "--value-bytes-max"]);
    assert_eq!(ask_until_served(&mut small.client(1), "DBSIZE"), "0");
}

#[test]
fn a_backup_of_a_running_node_that_cannot_write_says_why() {
    const FILE_BYTES_MAX: u64 = 512 << 10;
    let _turn = turn();
    let place = directory();
    let mut cluster = Cluster::prepare(1, 1, &["--segment-bytes", "256kb"]);
    cluster.spawn_limited(1, FILE_BYTES_MAX);
    cluster.wait_for_leaders();
    let mut client = cluster.client(1);
    // Bytes that do not compress.
    let mut state = 1u32;
    let mut noise = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    for number in 0..150u32 {
        let value: Vec<u8> = (0..8_000).map(|_| noise()).collect();
        set(&mut client, &[format!("key:{number}").as_bytes(), &value]);
    }
    let (address, out) = (cluster.address(1).to_string(), place.path().join("backup"));
    let ended = backup_of(&cluster.data(1), &["--connect", &address], &out);
    ended.expect(1, &["node 1: it could not write a checkpoint: ", "File too large"]);
}
