//! A cluster for one test: `paxoi local` on free ports, in a temporary folder that is removed with the cluster.

use paxoi::client::resolve;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Maximum time for a cluster to become ready, or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Three running nodes. Dropping the cluster ends them.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<SocketAddr>,
    launcher: Child,
    _folder: TempDir,
}

impl Cluster {
    pub(crate) fn start() -> Cluster {
        Cluster::at("127.0.0.1")
    }

    /// Starts a cluster like [`Cluster::start`], with addresses of `host`, which can be a name.
    pub(crate) fn at(host: &str) -> Cluster {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let mut launcher = Command::new(env!("CARGO_BIN_EXE_paxoi"))
            .args(["local", "--host", host, "--port", "0", "--dir"])
            .arg(folder.path())
            .env("PAXOI_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let ready = first_line(launcher.stdout.take().expect("piped"));
        let nodes = ready.strip_prefix("ready ").unwrap_or_else(|| panic!("not ready: {ready:?}"));
        assert!(nodes.split_whitespace().all(|node| node.starts_with(host)), "{nodes}");
        let nodes: Vec<SocketAddr> = nodes.split_whitespace().map(|node| resolve(node).expect("an address")).collect();
        assert_eq!(nodes.len(), 3, "{ready}");
        Cluster { nodes, launcher, _folder: folder }
    }

    /// Returns the first node's port as a program argument.
    pub(crate) fn port(&self) -> String {
        self.nodes[0].port().to_string()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let id = rustix::process::Pid::from_raw(self.launcher.id().cast_signed()).expect("a process id");
        let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        let deadline = Instant::now() + PATIENCE;
        while matches!(self.launcher.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.launcher.kill();
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Returns the first line, which must come within the time limit; empty if the program ends without a line.
fn first_line(out: ChildStdout) -> String {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(out).read_line(&mut line);
        let _ = sender.send(read.map(|_| line).unwrap_or_default());
    });
    receiver.recv_timeout(PATIENCE).expect("a line in time")
}
