//! `paxoi local`: one command for a whole cluster.

use crate::harness::client::{ask, ask_until_served, info};
use crate::harness::{PROGRAM, READY_MAX, directory, refuses, run, tail, turn, wait_for};
use paxoi::client::{Client, resolve};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// A launcher that has said that its cluster is ready.
struct Local {
    process: Child,
    addresses: Vec<SocketAddr>,
    log: PathBuf,
}

impl Local {
    fn start(dir: &Path, flags: &[&str]) -> Local {
        let log = dir.with_extension("log");
        let mut process = Command::new(PROGRAM)
            .args(["local", "--port", "0", "--dir"])
            .arg(dir)
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::options().create(true).append(true).open(&log).expect("a file for the log"))
            .spawn()
            .expect("the program starts");
        let stdout = process.stdout.take().expect("a pipe");
        let mut local = Local { process, addresses: Vec::new(), log };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let words = line.strip_prefix("ready ").unwrap_or_else(|| panic!("{line:?} is not `ready …`"));
        local.addresses = words.split_whitespace().map(|word| resolve(word).expect("an address")).collect();
        local
    }

    fn client(&self, node: usize) -> Client {
        crate::harness::client::connect(self.addresses[node]).expect("a connection")
    }

    fn signal(&self, signal: Signal) {
        kill(self.process.id(), signal);
    }

    fn wait(&mut self) -> ExitStatus {
        wait_for("the end of the launcher", READY_MAX, || self.process.try_wait().expect("a child"))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn wait_for_the_end_of_all_nodes(&self) {
        for address in &self.addresses {
            wait_for("a node to end", Duration::from_secs(5), || refuses(*address).then_some(()));
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // The nodes end with the launcher, which may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- the end of the log of the launcher\n{}", tail(&self.log()));
        }
    }
}

fn kill(process: u32, signal: Signal) {
    kill_process(Pid::from_raw(process.cast_signed()).expect("a process id"), signal).expect("a signal to a process");
}

#[test]
fn a_cluster_in_one_command() {
    let _turn = turn();
    let place = directory();
    let dir = place.path().join("data");
    let mut local = Local::start(&dir, &["--nodes", "3", "--groups", "4"]);
    assert_eq!(local.addresses.len(), 3);
    assert_eq!(ask_until_served(&mut local.client(0), "SET key value"), "OK");
    local.signal(Signal::TERM);
    assert_eq!(local.wait().code(), Some(0));
    local.wait_for_the_end_of_all_nodes();

    let dir_words = dir.display().to_string();
    let again = |flag: &str, value: &str| run(&["local", "--port", "0", "--dir", &dir_words, flag, value]);
    again("--nodes", "5").expect(2, &["--nodes 5", "has 3"]);
    again("--groups", "8").expect(2, &["--groups 8", "has 4"]);
    again("--host", "192.0.2.1").expect(2, &["--host 192.0.2.1", "localhost"]);
    again("--host", "local host").expect(2, &["--host local host", "localhost"]);

    // The directory keeps the settings of the birth, and its nodes can get a name at any later start. A node that dies
    // does not take the others with it.
    let mut local = Local::start(&dir, &["--host", "localhost"]);
    let mut client = local.client(2);
    assert_eq!(ask_until_served(&mut client, "GET key"), "value");
    let own = info(local.addresses[2]).expect("INFO");
    assert_eq!(own.number("groups"), 4);
    let victim = info(local.addresses[0]).expect("INFO").number("process_id");
    kill(u32::try_from(victim).expect("a process id"), Signal::KILL);
    assert_eq!(ask_until_served(&mut client, "SET key other"), "OK");
    wait_for("a line about the dead node", READY_MAX, || {
        local
            .log()
            .lines()
            .any(|line| line.contains("node 1 has ended") && line.contains(" serve --id 1 "))
            .then_some(())
    });

    local.signal(Signal::KILL);
    assert_eq!(local.wait().code(), None);
    local.wait_for_the_end_of_all_nodes();
    let local = Local::start(&dir, &["--nodes", "3", "--groups", "4"]);
    assert_eq!(ask_until_served(&mut local.client(0), "GET key"), "other");
    assert_eq!(ask(&mut local.client(1), "DBSIZE"), "1");
}
