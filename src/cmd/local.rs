//! `paxoi local`: a whole cluster on this machine, one process per node, for trying it out and for tests.

use super::serve::{DEFAULT_GROUPS, check_groups};
use crate::client::resolve;
use crate::endpoint::Endpoint;
use crate::identity as directory;
use crate::logging::tell_stdout;
use crate::nodes::{ask, field, identity};
use crate::storage::disk::FileDisk;
use crate::usage::Usage;
use anyhow::{Context, anyhow, bail};
use clap::Args;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Time limit for every group to have a leader after the start.
const READY_MAX: Duration = Duration::from_secs(60);
/// Time limit for nodes to end before they are killed.
const STOP_MAX: Duration = Duration::from_secs(5);
/// Interval between polls of processes and nodes.
const LOOK: Duration = Duration::from_millis(20);
/// Maximum number of nodes: more would only slow the machine down.
const NODES_MAX: u16 = 9;

/// Flags of `paxoi local`.
#[derive(Clone, Debug, Args)]
pub struct LocalArgs {
    /// Number of nodes; an existing directory decides it [default: 3]
    #[arg(long, value_name = "N")]
    pub nodes: Option<u16>,
    /// Number of Paxos groups; an existing directory decides it [default: 16]
    #[arg(long, value_name = "N")]
    pub groups: Option<u32>,
    /// Directory for the nodes' data, a folder for each node
    #[arg(long, value_name = "DIR", default_value = "./paxoi-data")]
    pub dir: PathBuf,
    /// Host in the nodes' addresses, as clients are told: a loopback name or IP address, such as localhost
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1")]
    pub host: String,
    /// Port of the first node; the other nodes take the next ports; 0 takes free ports
    #[arg(long, default_value_t = 7001)]
    pub port: u16,
    /// Passed on to each node: time limit of a command, after which its client gets an error
    #[arg(long, value_name = "TIME")]
    pub client_timeout: Option<String>,
    /// Passed on to each node: how reads are made linearizable
    #[arg(long, value_enum)]
    pub reads: Option<crate::config::ReadMode>,
    /// Passed on to each node: whether a group is led where most of its requests come in
    #[arg(long, value_enum)]
    pub leaders: Option<crate::config::LeaderMode>,
    /// Passed on to each node: workers, each a thread with its own groups and clients
    #[arg(long, value_name = "N")]
    pub workers: Option<u32>,
    /// Passed on to each node: log length above which checkpoints are made and the log is trimmed
    #[arg(long, value_name = "BYTES")]
    pub checkpoint_log_bytes: Option<String>,
}

struct Node {
    number: u16,
    address: String,
    process: Child,
    ended: Option<ExitStatus>,
    command: String,
}

/// Runs the cluster until `stopping` is set, and stops all its processes before it returns.
///
/// # Errors
/// One line: wrong flags ([`Usage`]), the end of a node before the cluster is ready, or the end of all nodes later.
pub fn run(args: &LocalArgs, stopping: &Arc<AtomicBool>) -> anyhow::Result<()> {
    let (nodes, groups) = shape(args)?;
    let addresses = addresses(nodes, &args.host, args.port)?;
    let mut running = Vec::new();
    let outcome = start(args, groups, &addresses, &mut running).and_then(|()| attend(&mut running, stopping));
    stop(&mut running);
    outcome
}

/// Returns the numbers of nodes and groups. The birth record in an existing directory decides them, and flags must not
/// contradict it.
fn shape(args: &LocalArgs) -> anyhow::Result<(u16, u32)> {
    let first = args.dir.join("1");
    let born = match FileDisk::existing(&first) {
        Ok(disk) => directory::read(&disk)?.and_then(|identity| identity.birth),
        Err(_) => None,
    };
    let Some(birth) = born else {
        let nodes = args.nodes.unwrap_or(3);
        if !(1..=NODES_MAX).contains(&nodes) {
            return Err(Usage(format!("--nodes {nodes}: a local cluster has 1 to {NODES_MAX} nodes")).into());
        }
        return Ok((nodes, check_groups(args.groups.unwrap_or(DEFAULT_GROUPS))?));
    };
    let (nodes, groups) = (birth.members.len() as u16, birth.groups);
    let dir = args.dir.display();
    if let Some(given) = args.nodes.filter(|given| *given != nodes) {
        let text =
            format!("--nodes {given}: the cluster in {dir} has {nodes}; leave the flag out, or give another --dir");
        return Err(Usage(text).into());
    }
    if let Some(given) = args.groups.filter(|given| *given != groups) {
        let text =
            format!("--groups {given}: the cluster in {dir} has {groups}; leave the flag out, or give another --dir");
        return Err(Usage(text).into());
    }
    Ok((nodes, groups))
}

fn addresses(nodes: u16, host: &str, port: u16) -> anyhow::Result<Vec<String>> {
    let at = |port: u16| {
        let endpoint = Endpoint { host: host.to_owned(), port }.to_string();
        let is_host = Endpoint::parse(&endpoint).is_some_and(|endpoint| endpoint.host == host);
        let found = resolve(&endpoint).ok().filter(|address| is_host && address.ip().is_loopback());
        let wrong = || Usage(format!("--host {host}: give a loopback name or address, such as localhost"));
        anyhow::Ok((endpoint, found.ok_or_else(wrong)?))
    };
    if port != 0 {
        let last =
            port.checked_add(nodes - 1).ok_or_else(|| Usage(format!("--port {port}: too high for {nodes} nodes")))?;
        return (port..=last).map(|port| Ok(at(port)?.0)).collect();
    }
    // All ports are bound at the same time, so that they differ, and released before the nodes bind them.
    let (_, any) = at(0)?;
    let listeners: Result<Vec<TcpListener>, _> = (0..nodes).map(|_| TcpListener::bind(any)).collect();
    let ports = listeners.context("there is no free port")?;
    ports.iter().map(|listener| Ok(at(listener.local_addr()?.port())?.0)).collect()
}

/// Starts the nodes and waits until every group has a leader.
fn start(args: &LocalArgs, groups: u32, addresses: &[String], running: &mut Vec<Node>) -> anyhow::Result<()> {
    let members: Vec<String> = (1..).zip(addresses).map(|(id, address)| format!("{id}={address}")).collect();
    let members = members.join(",");
    for (number, address) in (1..).zip(addresses) {
        running.push(spawn(args, groups, number, address, &members)?);
    }
    let deadline = Instant::now() + READY_MAX;
    for node in 0..running.len() {
        while !has_leaders(running[node].number, &running[node].address) {
            look_after(running);
            if let Some(ended) = running.iter().find(|node| node.ended.is_some()) {
                bail!("node {} ended before the cluster was ready; its log above says why", ended.number);
            }
            if Instant::now() > deadline {
                bail!("the cluster is not ready after {READY_MAX:?}; the logs of its nodes above say why");
            }
            std::thread::sleep(LOOK);
        }
    }
    tell_stdout(&format!("ready {}", addresses.join(" ")));
    Ok(())
}

fn spawn(args: &LocalArgs, groups: u32, number: u16, address: &str, members: &str) -> anyhow::Result<Node> {
    let program = std::env::current_exe().context("cannot find this program's file")?;
    let data = args.dir.join(number.to_string());
    let mut words: Vec<String> = ["serve", "--id", &number.to_string(), "--data", &data.display().to_string()]
        .into_iter()
        .chain(["--initial-cluster", members, "--listen", address, "--groups", &groups.to_string()])
        .map(str::to_owned)
        .collect();
    if let Some(limit) = &args.client_timeout {
        words.extend(["--client-timeout".to_owned(), limit.clone()]);
    }
    if let Some(bytes) = &args.checkpoint_log_bytes {
        words.extend(["--checkpoint-log-bytes".to_owned(), bytes.clone()]);
    }
    if let Some(reads) = args.reads {
        words.extend(["--reads".to_owned(), reads.to_string()]);
    }
    if let Some(leaders) = args.leaders {
        words.extend(["--leaders".to_owned(), leaders.to_string()]);
    }
    if let Some(workers) = args.workers {
        words.extend(["--workers".to_owned(), workers.to_string()]);
    }
    let mut process = Command::new(&program)
        .args(&words)
        .args(["--parent", &std::process::id().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start node {number}"))?;
    if let Some(errors) = process.stderr.take() {
        pass_on(number, errors)?;
    }
    let command = format!("{} {}", program.display(), words.join(" "));
    Ok(Node { number, address: address.to_owned(), process, ended: None, command })
}

/// Copies a node's log lines to stderr, each line after the node's number.
fn pass_on(number: u16, lines: impl Read + Send + 'static) -> anyhow::Result<()> {
    let copy = move || {
        let mut lines = BufReader::new(lines);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let mut prefixed = format!("{number}| ").into_bytes();
            prefixed.append(&mut line);
            // If nobody reads stderr any more, nobody misses the line.
            let _ = std::io::stderr().write_all(&prefixed);
        }
    };
    std::thread::Builder::new().spawn(copy).context("cannot start a thread")?;
    Ok(())
}

/// Returns true if the node with this number answers, and knows a leader of every group.
fn has_leaders(number: u16, address: &str) -> bool {
    let info = ask(address, &[&[b"INFO", b"paxos"]]).map(|told| told.concat()).unwrap_or_default();
    let is_it = identity(&info).is_some_and(|(id, _)| id == u32::from(number));
    is_it && field(&info, "groups_leaderless") == Some("0")
}

/// Notes which nodes have ended.
fn look_after(running: &mut [Node]) {
    for node in running.iter_mut().filter(|node| node.ended.is_none()) {
        if let Ok(Some(status)) = node.process.try_wait() {
            node.ended = Some(status);
            tracing::warn!("node {} has ended ({status}); to start it again: {}", node.number, node.command);
        }
    }
}

/// Waits until `stopping` is set, or fails when no node is left.
fn attend(running: &mut [Node], stopping: &AtomicBool) -> anyhow::Result<()> {
    while !stopping.load(Ordering::Relaxed) {
        look_after(running);
        if running.iter().all(|node| node.ended.is_some()) {
            return Err(anyhow!("all nodes have ended; their logs above say why"));
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Asks all nodes to end, and kills those that do not.
fn stop(running: &mut [Node]) {
    for node in running.iter().filter(|node| node.ended.is_none()) {
        if let Some(id) = rustix::process::Pid::from_raw(node.process.id().cast_signed()) {
            // The process may have ended by itself.
            let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        }
    }
    let deadline = Instant::now() + STOP_MAX;
    for node in running.iter_mut().filter(|node| node.ended.is_none()) {
        while Instant::now() < deadline && matches!(node.process.try_wait(), Ok(None)) {
            std::thread::sleep(LOOK);
        }
        if matches!(node.process.try_wait(), Ok(None)) {
            let _ = node.process.kill();
            let _ = node.process.wait();
        }
    }
}
