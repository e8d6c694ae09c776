//! A node with a full disk has not failed: it refuses commands that grow the data, while reads, deletions and elections
//! go on. Writes go on by themselves when there is space again. The disk is a small file system in memory where the
//! test may mount one. Another test limits the size of files, so that the log can make no further segment.

use crate::harness::client::{ask, ask_until_served, info, text};
use crate::harness::{Cluster, directory, run, turn, wait_for};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
/// Nodes with small segments, so that disks fill up fast.
const FLAGS: [&str; 4] = ["--segment-bytes", "1mb", "--client-timeout", "2s"];
/// Maximum time to a reply: the client timeout plus one second.
const ANSWER_MAX: Duration = Duration::from_secs(3);
const VALUE_BYTES: usize = 8 << 10;
/// Maximum values to write: more than any disk of these tests holds.
const VALUES_MAX: usize = 20_000;
/// Maximum time until free space is used: a second until the next attempt, and the time to make a segment on a busy
/// machine.
const SPACE_SEEN_MAX: Duration = Duration::from_secs(10);

/// A file system of some MiB, part of which a filler file takes.
pub(crate) struct SmallDisk {
    place: TempDir,
}

impl SmallDisk {
    /// Mounts `bytes` bytes, and fills `taken` of them. `None` if this process may not mount a file system.
    pub(crate) fn mount(bytes: u64, taken: u64) -> Option<SmallDisk> {
        let place = directory();
        let size = format!("size={bytes}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "paxoi-test"]).arg(place.path()).output();
        match mounted {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                eprintln!("no small file system: {}", String::from_utf8_lossy(&output.stderr).trim());
                return None;
            }
            Err(error) => {
                eprintln!("no small file system: {error}");
                return None;
            }
        }
        let disk = SmallDisk { place };
        fs::write(disk.filler(), vec![1; taken as usize]).expect("a file that takes the space");
        Some(disk)
    }

    fn filler(&self) -> PathBuf {
        self.place.path().join("filler")
    }

    /// Places a node's data directory on this disk.
    pub(crate) fn hold(&self, cluster: &Cluster, id: u32) {
        let data = self.place.path().join(id.to_string());
        fs::create_dir(&data).expect("a directory");
        symlink(&data, cluster.data(id)).expect("a link to it");
    }

    pub(crate) fn free(&self) {
        fs::remove_file(self.filler()).expect("to remove the file that takes the space");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The file system and its files go away with their last user.
        let unmounted = Command::new("umount").arg("--lazy").arg(self.place.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "{} stays mounted", self.place.path().display());
    }
}

/// Numbers of the keys whose writes or deletions were acknowledged.
#[derive(Default)]
struct Written {
    kept: Vec<usize>,
    deleted: Vec<usize>,
    count: usize,
}

impl Written {
    /// Sets another key through a node. Returns the error if the node refuses it.
    fn set(&mut self, cluster: &Cluster, id: u32) -> Result<(), String> {
        let number = self.count;
        self.count += 1;
        let words = [b"SET".to_vec(), key(number), value(number)];
        let reply = cluster.client(id).call(&words.each_ref().map(Vec::as_slice)).expect("an answer");
        match &*text(&reply) {
            "OK" => {
                self.kept.push(number);
                Ok(())
            }
            other => Err(other.to_owned()),
        }
    }

    /// Sets keys through these nodes until each refuses a key because the disk is full.
    fn fill(&mut self, cluster: &Cluster, ids: &[u32]) {
        for _ in 0..VALUES_MAX {
            let answers: Vec<Result<(), String>> = ids.iter().map(|id| self.set(cluster, *id)).collect();
            for error in answers.iter().filter_map(|answer| answer.as_ref().err()) {
                // Errors that may come while a node gives its groups up to the others, and while the others still
                // accept the values that fit into their logs.
                let passes = ["-MISCONF the disk is full", "-CLUSTERDOWN", "-UNCERTAIN"];
                assert!(passes.iter().any(|known| error.starts_with(known)), "{error}");
            }
            if answers.iter().all(|answer| answer.as_ref().is_err_and(|error| error.starts_with("-MISCONF"))) {
                return;
            }
        }
        panic!("no disk is full after {VALUES_MAX} values");
    }

    /// Checks that a node refuses to set a key.
    fn expect_full(&mut self, cluster: &Cluster, id: u32) {
        let answer = self.set(cluster, id);
        assert!(answer.as_ref().is_err_and(|error| error.starts_with("-MISCONF the disk is full")), "{answer:?}");
    }

    /// Reads and deletes through a node.
    fn read_and_delete(&mut self, cluster: &Cluster, id: u32) {
        let mut client = cluster.client(id);
        for number in [self.kept[0], self.kept[self.kept.len() / 2]] {
            let found = wait_for("a read", SPACE_SEEN_MAX, || {
                Some(client.call(&[b"GET", &key(number)]).expect("an answer"))
                    .filter(|reply| reply.as_bytes().is_some())
            });
            assert!(found.as_bytes() == Some(&value(number)), "key {number} at node {id}");
        }
        let victim = self.kept.pop().expect("some keys");
        assert_eq!(ask_until_served(&mut client, &format!("DEL key:{victim}")), "1", "at node {id}");
        self.deleted.push(victim);
        assert_eq!(ask_until_served(&mut client, &format!("GET key:{victim}")), "(nil)", "at node {id}");
    }

    /// Checks that every node has all acknowledged writes and deletions.
    fn check(&self, cluster: &Cluster) {
        for id in cluster.ids() {
            let mut client = cluster.client(id);
            assert_eq!(ask_until_served(&mut client, "PING"), "PONG");
            for number in &self.kept {
                let found = client.call(&[b"GET", &key(*number)]).expect("an answer");
                assert!(found.as_bytes() == Some(&value(*number)), "key {number} at node {id} is {}", text(&found));
            }
            for number in &self.deleted {
                assert_eq!(ask(&mut client, &format!("GET key:{number}")), "(nil)", "key {number} at node {id}");
            }
        }
    }
}

fn key(number: usize) -> Vec<u8> {
    format!("key:{number}").into_bytes()
}

/// Returns the value of a key. No two values are alike, so that a value at the wrong key is noticed.
fn value(number: usize) -> Vec<u8> {
    number.to_string().bytes().cycle().take(VALUE_BYTES).collect()
}

/// Checks that reads, deletions and elections go on while all disks are full, also when a leader dies. Then frees
/// space, and checks that writes go on.
fn live_without_space(cluster: &mut Cluster, written: &mut Written, free: impl FnOnce(&Cluster)) {
    for id in cluster.ids() {
        written.read_and_delete(cluster, id);
        written.expect_full(cluster, id);
    }
    let leader = cluster.busiest();
    cluster.kill9(leader);
    cluster.wait_for_leaders();
    for id in cluster.running() {
        written.read_and_delete(cluster, id);
        written.expect_full(cluster, id);
    }
    free(cluster);
    for id in cluster.running() {
        wait_for("writes to go on", SPACE_SEEN_MAX, || written.set(cluster, id).ok());
    }
    cluster.restart(leader);
    cluster.wait_for_leaders();
    wait_for("writes at the node restarted", SPACE_SEEN_MAX, || written.set(cluster, leader).ok());
    written.check(cluster);
}

#[test]
fn a_cluster_on_a_full_disk_reads_deletes_and_elects_and_writes_when_there_is_space() {
    let _turn = turn();
    // The free 11 MiB hold two segments and a preallocated segment of each of the three nodes, but not one more segment
    // of each.
    let Some(disk) = SmallDisk::mount(20 * MIB, 9 * MIB) else {
        eprintln!("the same is tested with a limit on the size of files");
        return;
    };
    let mut cluster = Cluster::prepare(3, 4, &FLAGS);
    cluster.ids().for_each(|id| disk.hold(&cluster, id));
    cluster.ids().for_each(|id| cluster.spawn(id));
    cluster.wait_for_leaders();
    let mut written = Written::default();
    written.fill(&cluster, &[1, 2, 3]);
    assert!(written.kept.len() > 100, "{} values fit", written.kept.len());
    live_without_space(&mut cluster, &mut written, |_| disk.free());
    drop(cluster);
}

#[test]
fn a_cluster_whose_files_cannot_grow_reads_deletes_and_elects_and_writes_when_they_can() {
    let _turn = turn();
    let mut cluster = Cluster::start(3, 4, &FLAGS);
    let mut written = Written::default();
    for id in cluster.ids() {
        (0..10).for_each(|_| written.set(&cluster, id).expect("there is space"));
    }
    cluster.ids().for_each(|id| cluster.kill9(id));
    // The existing segments are below the limit, and no other can be made.
    cluster.set_flags(&["--segment-bytes", "2mb", "--client-timeout", "2s"]);
    cluster.ids().for_each(|id| cluster.spawn_limited(id, MIB + MIB / 2));
    cluster.ids().for_each(|id| cluster.wait_for_answer(id));
    cluster.wait_for_leaders();
    written.fill(&cluster, &[1, 2, 3]);
    live_without_space(&mut cluster, &mut written, |cluster| {
        cluster.running().into_iter().for_each(|id| cluster.lift_limit(id));
    });
}

#[test]
fn a_node_without_space_leaves_leading_and_its_clients_commands_to_the_others_until_it_has_some() {
    let _turn = turn();
    let Some(disk) = SmallDisk::mount(24 * MIB, 19 * MIB) else {
        eprintln!("skipped: this test has to mount a small file system for one node");
        return;
    };
    let mut cluster = Cluster::prepare(3, 4, &FLAGS);
    disk.hold(&cluster, 1);
    cluster.ids().for_each(|id| cluster.spawn(id));
    cluster.wait_for_leaders();
    let mut written = Written::default();
    while cluster.info(1).number("relays_to") == 0 {
        let began = Instant::now();
        // Node 1 refuses writes while it gives its groups up, and until it knows that another node has space.
        if let Err(error) = written.set(&cluster, 1) {
            let passes = ["-MISCONF the disk is full", "-CLUSTERDOWN", "-UNCERTAIN"];
            assert!(passes.iter().any(|known| error.starts_with(known)), "{error}");
        }
        assert!(began.elapsed() < ANSWER_MAX, "no client waits longer than its time limit and a second");
        assert!(written.count < VALUES_MAX, "the disk is never full");
    }
    cluster.wait_for_info(1, "no groups led", |info| info.number("groups_led") == 0);
    cluster.wait_for_leaders();
    // More values than the log of node 1 can hold; its own clients notice nothing.
    for number in 0..600 {
        written.set(&cluster, 1 + number % 3).unwrap_or_else(|error| panic!("value {number}: {error}"));
    }
    let began = Instant::now();
    for _ in 0..20 {
        written.read_and_delete(&cluster, 1);
    }
    eprintln!("80 commands at the full node took {:?}", began.elapsed());
    let mut client = cluster.client(1);
    assert_eq!(ask(&mut client, "SET waits v"), "OK");
    assert_eq!(ask(&mut client, "WAIT 1 1000"), "1", "a majority has it");
    assert_eq!(ask(&mut client, "WAITAOF 1 1 100"), "0 1", "but not the full disk");
    let full = cluster.address(1).to_string();
    let refused = run(&["member", "move", "3", "127.0.0.1:1", "--connect", &full]);
    assert!(refused.errors.iter().any(|line| line.contains("the disk of this node is full: ask node ")), "{refused:?}");
    let status = run(&["status", "--connect", &cluster.address(2).to_string()]);
    assert!(
        status.stdout.contains("disk full") && status.stdout.contains("the disk of node 1 is full: "),
        "{status:?}"
    );
    disk.free();
    wait_for("node 1 to have what the others have", SPACE_SEEN_MAX * 2, || {
        let applied = |id: u32| info(cluster.address(id)).ok().map(|info| info.number("applied_total"));
        (applied(1)? == applied(2)?).then_some(())
    });
    cluster.wait_for_info(1, "no more commands passed on", |info| info.number("relays_to") == 0);
    wait_for("writes at node 1", SPACE_SEEN_MAX, || written.set(&cluster, 1).ok());
    written.check(&cluster);
    drop(cluster);
}
