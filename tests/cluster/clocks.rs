//! Wrong clocks, with real processes: libfaketime gives one node a wrong time of day, and leaves the monotonic clock
//! alone. The test measures locks and lifetimes by its own monotonic clock.

use crate::harness::client::{ask, ask_until_served};
use crate::harness::{Cluster, turn, wait_for};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const GROUPS: u32 = 4;
const FAST: &str = "+8h";
const SLOW: &str = "-8h";
const RIGHT: &str = "+0";
/// Time to live of a lock.
const LOCK: Duration = Duration::from_millis(2_500);
/// Minimum time that a lock holds: cluster time is steered by a tenth at most, and two leaders may differ by 250 ms.
const HELD: Duration = Duration::from_millis(2_500 * 10 / 11 - 250);
const SEEN_MAX: Duration = Duration::from_secs(20);

/// Returns the path of libfaketime. If it is not installed, reports that the test is skipped, and returns `None`.
/// Panics instead if `PAXOI_REQUIRE_TOOLS=1` says that everything must be installed.
fn library() -> Option<PathBuf> {
    let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"];
    let files = folders.iter().map(|folder| Path::new(folder).join("faketime/libfaketimeMT.so.1"));
    let found = files.into_iter().find(|file| file.exists());
    if found.is_none() {
        let required = std::env::var_os("PAXOI_REQUIRE_TOOLS").is_some_and(|required| required == "1");
        assert!(!required, "faketime is not installed");
        eprintln!("skipped: faketime is not installed");
    }
    found
}

/// Three nodes, each with a clock of its own that can be set while it runs.
struct Clocks {
    cluster: Cluster,
    folder: tempfile::TempDir,
    library: PathBuf,
}

impl Clocks {
    fn new(library: PathBuf) -> Clocks {
        let clocks = Clocks { cluster: Cluster::prepare(3, GROUPS, &[]), folder: crate::harness::directory(), library };
        (1..=3).for_each(|id| clocks.set(id, RIGHT));
        clocks
    }

    fn file(&self, id: u32) -> PathBuf {
        self.folder.path().join(id.to_string())
    }

    /// Sets a node's clock, whether the node runs or not.
    fn set(&self, id: u32, offset: &str) {
        let fresh = self.folder.path().join("fresh");
        std::fs::write(&fresh, offset).and_then(|()| std::fs::rename(&fresh, self.file(id))).expect("a clock is set");
    }

    fn spawn_all(&mut self) {
        for id in 1..=3 {
            let file = self.file(id);
            let environment = [
                ("LD_PRELOAD", self.library.as_os_str()),
                ("FAKETIME_TIMESTAMP_FILE", file.as_os_str()),
                ("FAKETIME_NO_CACHE", "1".as_ref()),
                ("FAKETIME_DONT_FAKE_MONOTONIC", "1".as_ref()),
            ];
            self.cluster.spawn_in(id, &environment);
        }
        self.cluster.wait_for_leaders();
    }

    /// Waits until node `asked` knows that the clock of node `id` is `hours` ahead.
    fn wait_for_offset(&self, asked: u32, id: u32, hours: i64) {
        let field = format!("peer{id}");
        self.cluster.wait_for_info(asked, &format!("the clock of node {id}"), |info| {
            let ahead = info.text(&field).and_then(|line| line.rsplit_once("clock_ahead_ms=")?.1.parse::<i64>().ok());
            ahead.is_some_and(|ahead_ms| (ahead_ms - hours * 3_600_000).abs() < 2_000)
        });
    }

    /// Takes a lock at node `at`. No client of any node may get it within [`HELD`], and one must get it soon after.
    fn expect_locks_to_hold(&self, key: &str, at: u32) {
        let mut clients: Vec<_> = (1..=3).map(|id| self.cluster.client(id)).collect();
        let words = format!("SET {key} mine NX PX {}", LOCK.as_millis());
        let sent = Instant::now();
        assert_eq!(ask_until_served(&mut clients[at as usize - 1], &words), "OK", "{key}");
        let got = wait_for("the lock", LOCK * 3, || {
            clients.iter_mut().find_map(|client| {
                let asked = Instant::now();
                (ask(client, &words) == "OK").then_some(asked)
            })
        });
        let held = got.duration_since(sent);
        assert!(held >= HELD, "{key} was given twice within {held:?}");
    }
}

#[test]
fn a_clock_that_was_fast_for_a_moment_does_no_harm_when_it_is_right_again() {
    let _turn = turn();
    let Some(library) = library() else { return };
    let mut clocks = Clocks::new(library);
    clocks.spawn_all();
    let leader = clocks.cluster.busiest();
    let mut client = clocks.cluster.client(leader);
    assert_eq!(ask_until_served(&mut client, "SET hour kept EX 3600"), "OK");
    clocks.set(leader, FAST);
    let other = if leader == 1 { 2 } else { 1 };
    clocks.wait_for_offset(other, leader, 8);
    for number in 0..400 {
        assert_eq!(ask_until_served(&mut client, &format!("SET key{number} value EX 3600")), "OK");
    }
    clocks.expect_locks_to_hold("while-fast", leader);
    clocks.set(leader, RIGHT);
    clocks.wait_for_offset(other, leader, 0);
    clocks.expect_locks_to_hold("right-again", other);
    assert_eq!(ask(&mut client, "GET hour"), "kept");
    assert_eq!(ask(&mut client, "GET key399"), "value");
    assert_eq!(clocks.cluster.info(leader).number("groups_ahead_ms"), 0);
    let log = clocks.cluster.log(other);
    assert!(log.contains(&format!("the clock of node {leader} is 28800.")), "{log}");
    assert!(log.contains(&format!("the clock of node {leader} agrees with cluster time again")), "{log}");
}

#[test]
fn a_cluster_born_while_a_clock_is_fast_keeps_real_time() {
    let _turn = turn();
    let Some(library) = library() else { return };
    let mut clocks = Clocks::new(library);
    clocks.set(1, FAST);
    clocks.spawn_all();
    let mut client = clocks.cluster.client(1);
    for number in 0..4 * GROUPS {
        assert_eq!(ask_until_served(&mut client, &format!("SET key{number} value EX 3600")), "OK");
    }
    assert_eq!(ask(&mut client, "GET key0"), "value");
    clocks.expect_locks_to_hold("born", 1);
    let status = std::process::Command::new(crate::harness::PROGRAM)
        .args(["status", "--connect", &clocks.cluster.address(2).to_string()])
        .output()
        .expect("the program runs");
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(text.contains("the clock of node 1 is 28800.") && text.contains("s ahead of cluster time"), "{text}");
    // The same holds after a restart of all nodes, when no node knows cluster time.
    (1..=3).for_each(|id| clocks.cluster.kill9(id));
    clocks.spawn_all();
    assert_eq!(ask_until_served(&mut clocks.cluster.client(1), "GET key0"), "value");
    clocks.expect_locks_to_hold("again", 1);
}

#[test]
fn lifetimes_do_not_depend_on_the_clock_of_the_node_that_is_asked_nor_of_the_leader() {
    let _turn = turn();
    let Some(library) = library() else { return };
    let mut clocks = Clocks::new(library);
    clocks.spawn_all();
    let leader = clocks.cluster.busiest();
    let follower = if leader == 1 { 2 } else { 1 };
    for (node, offset, hours) in [(follower, SLOW, -8), (leader, SLOW, -8)] {
        clocks.set(node, offset);
        clocks.wait_for_offset(6 - leader - follower, node, hours);
        clocks.expect_locks_to_hold(&format!("of-{node}"), node);
        let mut client = clocks.cluster.client(node);
        let sent = Instant::now();
        assert_eq!(ask_until_served(&mut client, "SET short value EX 1"), "OK");
        wait_for("the end of a short life", SEEN_MAX, || (ask(&mut client, "GET short") == "(nil)").then_some(()));
        assert!(sent.elapsed() >= Duration::from_millis(650), "gone after {:?}", sent.elapsed());
        clocks.set(node, RIGHT);
        clocks.wait_for_offset(6 - leader - follower, node, 0);
    }
}

#[test]
fn a_restore_goes_by_the_clusters_time_and_not_by_the_clock_of_its_machine() {
    let _turn = turn();
    let Some(library) = library() else { return };
    let mut cluster = Cluster::start(1, GROUPS, &[]);
    let mut client = cluster.client(1);
    for number in 0..20 {
        assert_eq!(ask_until_served(&mut client, &format!("SET key{number} value EX 3600")), "OK");
    }
    assert_eq!(ask(&mut client, "PEXPIRE key0 1"), "1");
    wait_for("the end of a key", SEEN_MAX, || (ask(&mut client, "EXISTS key0") == "0").then_some(()));
    drop(client);
    cluster.kill9(1);
    let folder = crate::harness::directory();
    let out = folder.path().join("backup").display().to_string();
    crate::harness::run(&["backup", "--data", &cluster.data(1).display().to_string(), &out]);
    let fresh = Cluster::start(1, GROUPS, &[]);
    let restored = std::process::Command::new(crate::harness::PROGRAM)
        .args(["restore", &out, "--connect", &fresh.address(1).to_string()])
        .env("LD_PRELOAD", &library)
        .env("FAKETIME", FAST)
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .output()
        .expect("the program runs");
    let text = String::from_utf8_lossy(&restored.stdout).into_owned();
    assert!(text.starts_with("restored 19 keys"), "{text} {}", String::from_utf8_lossy(&restored.stderr));
    let ttl: i64 = ask(&mut fresh.client(1), "TTL key7").parse().expect("a number");
    assert!((3_000..=3_600).contains(&ttl), "{ttl}");
}
