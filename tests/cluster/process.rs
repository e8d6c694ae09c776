//! A node as a process: signals, outputs that nobody reads, and a directory that another process has for a moment.

use crate::harness::client::ask_until_served;
use crate::harness::{Cluster, turn, wait_for};
use rustix::process::Signal;
use std::fs::File;
use std::net::TcpListener;
use std::thread::sleep;
use std::time::Duration;

/// Maximum time until a line is in the log.
const LOGGED_MAX: Duration = Duration::from_secs(10);

#[test]
fn signals_that_ask_for_something_else_than_the_end_end_no_node() {
    let _turn = turn();
    let cluster = Cluster::start(1, 1, &[]);
    for (signal, name) in [(Signal::HUP, "SIGHUP"), (Signal::USR1, "SIGUSR1"), (Signal::USR2, "SIGUSR2")] {
        cluster.signal(1, signal);
        let line = format!("{name} has no effect");
        wait_for(&line, LOGGED_MAX, || cluster.log(1).contains(&line).then_some(()));
        assert_eq!(ask_until_served(&mut cluster.client(1), "SET key value"), "OK", "after {name}");
    }
}

#[test]
fn a_node_whose_outputs_nobody_reads_serves() {
    let _turn = turn();
    let full = || File::options().write(true).open("/dev/full").expect("a file that takes nothing");
    let closed = || std::io::pipe().expect("a pipe").1;
    for round in 0..2 {
        let mut cluster = Cluster::prepare(1, 1, &[]);
        if round == 0 {
            cluster.spawn_writing_to(1, full(), full());
        } else {
            cluster.spawn_writing_to(1, closed(), closed());
        }
        cluster.wait_for_leaders();
        assert_eq!(ask_until_served(&mut cluster.client(1), "SET key value"), "OK");
    }
}

/// Time that the system takes in this test to release each resource of an ended process.
const ENDING: Duration = Duration::from_millis(300);

#[test]
fn a_node_waits_for_a_process_that_is_ending() {
    let _turn = turn();
    let mut cluster = Cluster::start(1, 1, &[]);
    assert_eq!(ask_until_served(&mut cluster.client(1), "SET key value"), "OK");
    cluster.kill9(1);
    // The test plays the operating system, which frees the directory and the address only some time after the killed
    // process has ended.
    let lock = File::options().write(true).open(cluster.data(1).join("lock")).expect("the lock of the directory");
    lock.lock().expect("to lock it");
    let listener = TcpListener::bind(cluster.address(1)).expect("to listen where the node does");
    cluster.spawn(1);
    sleep(ENDING);
    drop(lock);
    sleep(ENDING);
    drop(listener);
    cluster.wait_for_answer(1);
    assert_eq!(ask_until_served(&mut cluster.client(1), "GET key"), "value");
}
