//! A node with a rotten log does not start, and prints a line that says where the log is damaged. If only values are
//! damaged, the node starts and learns them from the others. A node whose log has a torn tail starts, too.

use crate::harness::client::{ask, ask_until_served};
use crate::harness::{Cluster, READY_MAX, run, turn, wait_for};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;

const SEGMENT: &str = "log-0000000000000001";

fn segment(cluster: &Cluster, id: u32) -> (PathBuf, File) {
    let path = cluster.data(id).join(SEGMENT);
    let file = File::options().read(true).write(true).open(&path).expect("a segment");
    (path, file)
}

/// Returns the offset, the number of records and the bytes of each frame in a node's only segment.
fn frames(cluster: &Cluster, id: u32) -> Vec<(u64, u64, u64)> {
    let directory = cluster.data(id).display().to_string();
    let ended = run(&["inspect", "log", &directory, "--records"]);
    assert_eq!((ended.code, ended.stdout.lines().last()), (0, Some("sound")), "{ended:?}");
    let number = |text: &str| text.parse::<u64>().expect("a number");
    let frame = |line: &str| {
        let (_, rest) = line.trim_start().strip_prefix("frame ")?.split_once(" at byte ")?;
        let (at, rest) = rest.split_once(": ")?;
        let (records, rest) = rest.split_once(" record")?;
        let (bytes, _) = rest.split_once(", ")?.1.split_once(" bytes")?;
        Some((number(at), number(records), number(bytes)))
    };
    ended.stdout.lines().filter_map(frame).collect()
}

#[test]
fn a_rotten_log_keeps_its_node_from_starting() {
    let _turn = turn();
    let mut cluster = Cluster::start(3, 16, &[]);
    for number in 0..50 {
        assert_eq!(ask_until_served(&mut cluster.client(2), &format!("SET key:{number} {number}")), "OK");
    }
    cluster.kill9(2);
    let frames = frames(&cluster, 2);
    let (path, file) = segment(&cluster, 2);
    for place in 1..4 {
        let (at, ..) = frames[frames.len() * place / 4];
        let flipped = at + 20 * place as u64;
        let mut byte = [0];
        file.read_exact_at(&mut byte, flipped).expect("a byte");
        file.write_all_at(&[byte[0] ^ 0x10], flipped).expect("a byte written");
        run(&cluster.words(2)).expect(1, &[&format!("log file {SEGMENT} is corrupt at byte {at}: "), "under a new id"]);
        file.write_all_at(&byte, flipped).expect("the byte as it was");
    }
    let length = file.metadata().expect("its length").len();
    file.set_len(length / 2).expect("to cut the file");
    run(&cluster.words(2)).expect(1, &[&format!("log file {SEGMENT} is corrupt at byte 0: "), "bytes and should have"]);
    // The bytes that were cut off were zeros.
    file.set_len(length).expect("the length as it was");
    std::fs::rename(&path, path.with_extension("aside")).expect("to put the file aside");
    run(&cluster.words(2)).expect(1, &["its log is missing"]);
    std::fs::rename(path.with_extension("aside"), &path).expect("the file as it was");

    assert_eq!(ask_until_served(&mut cluster.client(1), "GET key:7"), "7");
    cluster.restart(2);
    assert_eq!(ask_until_served(&mut cluster.client(2), "GET key:7"), "7");
}

#[test]
fn a_rotten_value_is_learned_from_the_others() {
    let _turn = turn();
    let mut cluster = Cluster::start(3, 2, &[]);
    for number in 0..50 {
        assert_eq!(ask_until_served(&mut cluster.client(2), &format!("SET key:{number} {number}")), "OK");
    }
    cluster.kill9(2);
    let frames = frames(&cluster, 2);
    let (at, _, bytes) =
        *frames[frames.len() / 4..].iter().find(|(_, _, bytes)| *bytes > 150).expect("one with a value");
    let (_, file) = segment(&cluster, 2);
    let mut byte = [0];
    file.read_exact_at(&mut byte, at + bytes - 12).expect("a byte");
    file.write_all_at(&[byte[0] ^ 0x10], at + bytes - 12).expect("a byte written");
    let directory = cluster.data(2).display().to_string();
    assert!(run(&["inspect", "log", &directory]).stdout.contains("damaged values in "), "the damage shows");

    cluster.restart(2);
    cluster.wait_for_info(2, "its own past", |info| info.number("groups_not_whole") == 0);
    for number in 0..50 {
        assert_eq!(ask_until_served(&mut cluster.client(2), &format!("GET key:{number}")), number.to_string());
    }
    // A checkpoint replaces the damaged values, so that the next start misses nothing.
    cluster.wait_for_info(2, "a checkpoint", |info| info.number("checkpoints_made") > 0);
    cluster.kill9(2);
    cluster.restart(2);
    assert_eq!(cluster.info(2).number("groups_not_whole"), 0);
    assert_eq!(ask_until_served(&mut cluster.client(2), "GET key:49"), "49");
}

#[test]
fn a_log_with_a_torn_end_starts() {
    let _turn = turn();
    let mut cluster = Cluster::start(3, 4, &[]);
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let mut client = cluster.client(1);
        let (stop, written) = (&stop, &written);
        scope.spawn(move || {
            while !stop.load(SeqCst) {
                let number = written.load(SeqCst);
                assert_eq!(ask_until_served(&mut client, &format!("SET key:{number} {number}")), "OK");
                written.fetch_add(1, SeqCst);
            }
        });
        wait_for("some writes", READY_MAX, || (written.load(SeqCst) > 200).then_some(()));
        cluster.kill9(3);
        stop.store(true, SeqCst);
    });
    let frames = frames(&cluster, 3);
    let (at, _, bytes) = *frames.iter().rev().find(|(_, records, _)| *records > 0).expect("a frame with records");
    let (last, _, last_bytes) = *frames.last().expect("frames");
    let (_, file) = segment(&cluster, 3);
    let torn = at + bytes / 2;
    let zeros = vec![0; (last + last_bytes - torn) as usize];
    file.write_all_at(&zeros, torn).expect("to tear the end");
    let directory = cluster.data(3).display().to_string();
    assert!(run(&["inspect", "log", &directory]).stdout.contains("torn: "), "the tear shows");

    cluster.restart(3);
    let expected = cluster.info(1).number("applied_total");
    cluster.wait_for_info(3, "what the others have", |info| info.number("applied_total") >= expected);
    let mut client = cluster.client(3);
    for number in 0..written.load(SeqCst) {
        assert_eq!(ask_until_served(&mut client, &format!("GET key:{number}")), number.to_string());
    }
    assert_eq!(ask(&mut client, "DBSIZE"), written.load(SeqCst).to_string());
}
