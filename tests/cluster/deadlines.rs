//! Every client gets its reply or an error within `--client-timeout` plus one second, also at nodes whose peers vanish
//! or whose leader stands still.

use crate::harness::client::{ask, ask_until_served, connect, text};
use crate::harness::{Cluster, turn};
use paxoi::client::write_command;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(2);
const FLAGS: [&str; 4] = ["--client-timeout", "2s", "--segment-bytes", "1mb"];
/// Maximum time to a reply: the timeout plus one second.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// Time that clients go on after a fault: several timeouts.
const FAULT: Duration = Duration::from_secs(8);
/// Commands in a pipeline.
const PIPELINE: usize = 200;
/// Clients with large values: together they send more bytes than a group lets wait.
const LARGE_CLIENTS: usize = 12;
const LARGE_BYTES: usize = 1 << 20;

/// The replies that one client got.
#[derive(Debug, Default)]
struct Seen {
    slowest: Duration,
    /// The slowest reply.
    reply: String,
    replies: usize,
    errors: usize,
}

impl Seen {
    fn note(&mut self, reply: String, took: Duration) {
        self.replies += 1;
        self.errors += usize::from(reply.starts_with('-'));
        if took > self.slowest {
            (self.slowest, self.reply) = (took, reply);
        }
    }
}

/// The requests that a client sends at a time.
#[derive(Clone, Copy)]
enum Load {
    Single,
    Pipeline,
    Large,
}

fn client(address: SocketAddr, load: Load, number: usize, stop: &AtomicBool) -> Seen {
    let (mut seen, mut client) = (Seen::default(), connect(address).expect("a connection"));
    let value = vec![b'v'; if matches!(load, Load::Large) { LARGE_BYTES } else { 8 }];
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("key:{number}:{}", round % 50);
        let commands: [&[&[u8]]; 4] = [
            &[b"SET", key.as_bytes(), &value],
            &[b"GET", key.as_bytes()],
            &[b"MSET", b"a", b"1", b"b", b"2", b"c", b"3", b"d", b"4"],
            &[b"DEL", key.as_bytes()],
        ];
        let (mut requests, count) = (Vec::new(), if matches!(load, Load::Pipeline) { PIPELINE } else { 1 });
        for at in 0..count {
            // All large values go to one group.
            let large: &[&[u8]] = &[b"SET", b"{large}", &value];
            write_command(if matches!(load, Load::Large) { large } else { commands[(round + at) % 4] }, &mut requests);
        }
        let began = Instant::now();
        let answered = client.pipeline(&requests, count, |reply| seen.note(text(&reply), began.elapsed()));
        answered.unwrap_or_else(|error| panic!("after {:?}: {error}", began.elapsed()));
        // Immediate refusals must not make the client ask in a busy loop.
        thread::sleep(Duration::from_millis(5));
    }
    seen
}

/// Clients of all kinds at some nodes, until they are stopped.
struct Clients {
    stop: Arc<AtomicBool>,
    threads: Vec<(&'static str, JoinHandle<Seen>)>,
}

impl Clients {
    fn start(cluster: &Cluster, ids: &[u32]) -> Clients {
        let mut clients = Clients { stop: Arc::default(), threads: Vec::new() };
        for id in ids {
            let loads = [
                ("one at a time", Load::Single, 4),
                ("pipelined", Load::Pipeline, 2),
                ("large", Load::Large, LARGE_CLIENTS),
            ];
            for (kind, load, count) in loads {
                for number in 0..count {
                    let (address, stop) = (cluster.address(*id), clients.stop.clone());
                    clients.threads.push((kind, thread::spawn(move || client(address, load, number, &stop))));
                }
            }
        }
        clients
    }

    fn stop_and_check(self, what: &str) {
        self.stop.store(true, Ordering::Relaxed);
        for (kind, thread) in self.threads {
            let Seen { slowest, reply, replies, errors } = thread.join().expect("a client");
            eprintln!("{what}, {kind}: {replies} replies, {errors} errors, the slowest after {slowest:?}: {reply}");
            assert!(replies > 0 && slowest <= ANSWER_MAX, "{what}, {kind}: {reply} after {slowest:?}");
        }
    }
}

#[test]
fn errors_come_in_time_whatever_happens_to_the_others() {
    let _turn = turn();
    let mut cluster = Cluster::start(3, 4, &FLAGS);
    let leader = cluster.busiest();
    let others: Vec<u32> = cluster.ids().filter(|id| *id != leader).collect();

    let clients = Clients::start(&cluster, &others);
    cluster.pause(leader);
    thread::sleep(FAULT);
    clients.stop_and_check("the leader stands still");
    cluster.resume(leader);
    cluster.wait_for_leaders();

    let clients = Clients::start(&cluster, &[leader]);
    others.iter().for_each(|id| cluster.pause(*id));
    thread::sleep(FAULT);
    // By now the leader knows that its peers are silent, so it refuses commands at once.
    let began = Instant::now();
    for command in ["SET key value", "GET key", "DEL key", "DBSIZE"] {
        let answer = ask(&mut cluster.client(leader), command);
        assert!(answer.starts_with("-CLUSTERDOWN"), "{command}: {answer}");
    }
    assert!(began.elapsed() < TIMEOUT, "four refusals took {:?}", began.elapsed());
    clients.stop_and_check("both peers stand still");
    others.iter().for_each(|id| cluster.resume(*id));
    cluster.wait_for_leaders();

    let clients = Clients::start(&cluster, &[leader]);
    others.iter().for_each(|id| cluster.kill9(*id));
    thread::sleep(FAULT);
    clients.stop_and_check("both peers are dead");
    others.iter().for_each(|id| cluster.restart(*id));
    cluster.wait_for_leaders();
    assert_eq!(ask_until_served(&mut cluster.client(leader), "SET key value"), "OK");
}
