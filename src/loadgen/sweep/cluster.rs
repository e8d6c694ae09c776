//! A cluster of this program in child processes: its start, its addresses and its end.

use anyhow::{Context, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Time limit until every group of a cluster has a leader.
const READY_MAX: Duration = Duration::from_secs(60);
/// Time limit for the end of a cluster after SIGTERM.
const STOP_MAX: Duration = Duration::from_secs(10);
/// Interval between checks for a signal to stop and for the end of the child.
const NAP: Duration = Duration::from_millis(20);
/// Maximum length of the first line. The addresses of nine nodes are far shorter.
const READY_BYTES_MAX: u64 = 4096;

/// A running cluster. Dropping this stops it.
#[derive(Debug)]
pub(super) struct Cluster {
    child: Child,
    addresses: Vec<String>,
}

impl Cluster {
    /// Starts `command`, with its stderr into the file `log`, and waits for its line `ready ADDRESS…`.
    ///
    /// # Errors
    /// If that line does not come; the error quotes the last line of the log.
    pub(super) fn start(mut command: Command, log: &Path, stop: &AtomicBool) -> anyhow::Result<Cluster> {
        let stderr = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        let mut child = command.spawn().with_context(|| format!("cannot run {:?}", command.get_program()))?;
        let stdout = child.stdout.take().context("the child has no stdout")?;
        let mut cluster = Cluster { child, addresses: Vec::new() };
        let line = first_line(stdout);
        let deadline = Instant::now() + READY_MAX;
        let ready = loop {
            match line.recv_timeout(NAP) {
                Ok(line) => break line,
                Err(RecvTimeoutError::Disconnected) => break String::new(),
                Err(RecvTimeoutError::Timeout) if stop.load(Ordering::Relaxed) => bail!("stopped"),
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
                Err(RecvTimeoutError::Timeout) => bail!("not ready after {READY_MAX:?}{}", last_line(log)),
            }
        };
        let addresses = ready.trim_end().strip_prefix("ready ").map(|list| list.split(' ').map(str::to_owned));
        cluster.addresses = addresses.ok_or_else(|| anyhow!("it ended too early{}", last_line(log)))?.collect();
        Ok(cluster)
    }

    /// Returns the addresses of the nodes.
    pub(super) fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Asks the cluster to end, waits up to `STOP_MAX`, and then kills it.
    pub(super) fn stop(self) {
        drop(self);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let pid = Pid::from_child(&self.child);
        let deadline = Instant::now() + STOP_MAX;
        // An error means that the child has ended already. The wait finds that out.
        _ = kill_process(pid, Signal::TERM);
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() >= deadline {
                _ = self.child.kill();
                _ = self.child.wait();
                return;
            }
            thread::sleep(NAP);
        }
    }
}

/// Reads stdout on a thread: sends the first line and discards the rest, so that the child never waits.
fn first_line(stdout: impl Read + Send + 'static) -> Receiver<String> {
    let (found, line) = channel();
    thread::spawn(move || {
        let mut stdout = BufReader::new(stdout);
        let mut first = String::new();
        if (&mut stdout).take(READY_BYTES_MAX).read_line(&mut first).is_ok() {
            // Nobody receives the line if the start was given up.
            _ = found.send(first);
        }
        _ = std::io::copy(&mut stdout, &mut std::io::sink());
    });
    line
}

/// Returns the last line of a log, as the end of an error message.
fn last_line(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().next_back().map_or_else(String::new, |line| format!(": {}", line.trim()))
}
