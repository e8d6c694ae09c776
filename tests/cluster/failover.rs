//! The pause of writes when a leader dies, and the return of groups to their preferred leaders.

use crate::harness::client::{ask_until_served, connect, key_of, text};
use crate::harness::{Cluster, turn, wait_for};
use net::resp::value::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const GROUPS: u32 = 16;
/// Writes to every group resume within this time after a leader's death.
const GAP_MAX: Duration = Duration::from_secs(2);
/// Maximum time until a restarted node has its groups back: it must be healthy for 10 s first.
const HANDBACK_MAX: Duration = Duration::from_secs(25);

/// One client per group, each of which writes without a pause.
struct Watch {
    stop: Arc<AtomicBool>,
    began: Instant,
    successes: Arc<Vec<AtomicU64>>,
    writers: Vec<JoinHandle<Duration>>,
}

impl Watch {
    fn start(address: SocketAddr) -> Watch {
        let stop = Arc::new(AtomicBool::new(false));
        let successes: Arc<Vec<AtomicU64>> = Arc::new((0..GROUPS).map(|_| AtomicU64::new(0)).collect());
        let write = |group: u32| {
            let (stop, successes) = (Arc::clone(&stop), Arc::clone(&successes));
            let key = key_of(group, GROUPS, "key");
            thread::spawn(move || write(address, &key, &stop, &successes[group as usize]))
        };
        let writers = (0..GROUPS).map(write).collect();
        let watch = Watch { stop, began: Instant::now(), successes, writers };
        watch.wait_for_all(20);
        watch
    }

    /// Waits until `writes` more writes have succeeded in each group.
    fn wait_for_all(&self, writes: u64) {
        let goals: Vec<u64> = self.successes.iter().map(|count| count.load(SeqCst) + writes).collect();
        wait_for("writes to every group", Duration::from_secs(30), || {
            let reached = |(count, goal): (&AtomicU64, &u64)| count.load(SeqCst) >= *goal;
            self.successes.iter().zip(&goals).all(reached).then_some(())
        });
    }

    /// Stops the writers. Returns the longest time that any group went without a successful write.
    fn finish(self) -> Duration {
        self.stop.store(true, SeqCst);
        let gaps = self.writers.into_iter().map(|writer| writer.join().expect("a writer"));
        let gap = gaps.max().unwrap_or_default();
        let writes: u64 = self.successes.iter().map(|count| count.load(SeqCst)).sum();
        eprintln!("{writes} writes in {:?}; no group went without one for longer than {gap:?}", self.began.elapsed());
        gap
    }
}

/// Increments a key until told to stop; returns the longest time between two successes.
fn write(address: SocketAddr, key: &str, stop: &AtomicBool, successes: &AtomicU64) -> Duration {
    let mut client = connect(address).expect("a connection to a node that stays");
    let mut longest = Duration::ZERO;
    let mut last = None;
    let mut expected = 1;
    while !stop.load(SeqCst) {
        let reply = client.call(&[b"INCR", key.as_bytes()]).expect("an answer of a node that stays");
        // A leader's death leaves no command of unknown fate at a live node: each INCR is executed exactly once.
        assert_eq!(text(&reply), expected.to_string());
        let Value::Int(_) = reply else { unreachable!("a number is an integer") };
        expected += 1;
        longest = longest.max(last.map_or(Duration::ZERO, |last: Instant| last.elapsed()));
        last = Some(Instant::now());
        successes.fetch_add(1, SeqCst);
    }
    longest
}

#[test]
fn writes_resume_within_2_seconds_of_a_leaders_death() {
    let _turn = turn();
    let mut cluster = Cluster::start(3, GROUPS, &[]);
    let leader = cluster.busiest();
    let survivor = cluster.ids().find(|id| *id != leader).expect("another node");
    let watch = Watch::start(cluster.address(survivor));
    cluster.kill9(leader);
    watch.wait_for_all(20);
    let gap = watch.finish();
    assert!(gap <= GAP_MAX, "a group had no successful write for {gap:?}");
}

#[test]
fn a_restarted_node_gets_its_groups_back_without_a_pause() {
    let _turn = turn();
    let mut cluster = Cluster::start(3, GROUPS, &[]);
    cluster.kill9(2);
    cluster.restart(2);
    let restarted = Instant::now();
    let watch = Watch::start(cluster.address(1));
    let placed: Vec<u64> = cluster.ids().map(|id| groups_preferring(id, 3)).collect();
    wait_for("every node to lead its own groups", HANDBACK_MAX, || {
        let led: Vec<u64> = cluster.ids().map(|id| cluster.info(id).number("groups_led")).collect();
        (led == placed).then_some(())
    });
    eprintln!("the leaders were back {:?} after the restart", restarted.elapsed());
    watch.wait_for_all(20);
    let gap = watch.finish();
    assert!(gap <= GAP_MAX, "a group had no successful write for {gap:?}");
}

/// Returns the number of groups whose preferred leader is node `id`: group numbers are divided evenly, in order.
fn groups_preferring(id: u32, nodes: u32) -> u64 {
    (0..GROUPS).filter(|group| group * nodes / GROUPS + 1 == id).count() as u64
}

#[test]
fn a_stopped_leader_that_wakes_answers_nothing_old() {
    let _turn = turn();
    let cluster = Cluster::start(3, GROUPS, &[]);
    let keys: Vec<String> = (0..GROUPS).map(|group| key_of(group, GROUPS, "key")).collect();
    for round in 0..3 {
        let leader = cluster.busiest();
        let survivor = cluster.ids().find(|id| *id != leader).expect("another node");
        let mut client = cluster.client(survivor);
        let mut set = |value: &str| {
            for key in &keys {
                assert_eq!(ask_until_served(&mut client, &format!("SET {key} {value}")), "OK");
            }
        };
        set(&format!("old{round}"));
        let connect = |_: &String| TcpStream::connect(cluster.address(leader)).expect("a connection");
        let mut readers: Vec<TcpStream> = keys.iter().map(connect).collect();
        // The leader must know the connections before it stops.
        let answers = readers.iter_mut().map(|reader| get(reader, "no:such:key"));
        assert!(answers.collect::<Vec<_>>().iter().all(|answer| answer == "$-1"));
        cluster.pause(leader);
        set(&format!("new{round}"));
        // These reads wait in the leader's sockets when it wakes, and it still takes itself for the leader.
        for (reader, key) in readers.iter_mut().zip(&keys) {
            send_get(reader, key);
        }
        cluster.resume(leader);
        let answers: Vec<String> = readers.iter().map(read_answer).collect();
        assert!(answers.iter().all(|answer| *answer == format!("new{round}")), "round {round}: {answers:?}");
    }
}

fn get(stream: &mut TcpStream, key: &str) -> String {
    send_get(stream, key);
    read_answer(stream)
}

fn send_get(stream: &mut TcpStream, key: &str) {
    stream.write_all(format!("GET {key}\r\n").as_bytes()).expect("to send a command");
}

/// Returns the string of a reply, or the first line of any other reply.
fn read_answer(stream: &TcpStream) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time limit");
    let mut lines = BufReader::new(stream).lines().map(|line| line.expect("an answer"));
    let head = lines.next().expect("an answer");
    if head.starts_with('$') && head != "$-1" { lines.next().expect("a string") } else { head }
}
