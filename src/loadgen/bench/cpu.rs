//! `--cpu`: the processor time of the servers under load, per request and by thread, and the work behind it.
//!
//! The servers run on this machine. Their threads' times come from `/proc`. Nodes of Paxoi also count their work in
//! INFO. Both are read before and after the load; the differences, divided by the requests, add up on any machine,
//! however noisy it is.

use super::report::{print, table};
use crate::nodes;
use anyhow::{Context, bail};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;

/// The counters of INFO that are compared, each with its name in the report.
const COUNTERS: [(&str, &str); 8] = [
    ("fsync_count", "log syncs"),
    ("chosen_total", "chosen values"),
    ("turns", "turns of the event loop"),
    ("socket_reads", "reads from sockets"),
    ("socket_writes", "writes to sockets"),
    ("peer_frames_sent", "frames to other nodes"),
    ("peer_messages_sent", "messages to other nodes"),
    ("log_bytes_written", "bytes to the log"),
];

/// Minimum processor time of a thread in the table, in microseconds for each request. Most threads of a node sleep.
const SHOWN_US_MIN: f64 = 0.0005;

/// The processes of the servers under load.
#[derive(Debug)]
pub struct Servers {
    servers: Vec<Server>,
}

#[derive(Debug)]
struct Server {
    name: String,
    address: String,
    process_id: u32,
}

/// Readings of all servers at one time.
#[derive(Debug)]
pub struct Readings(Vec<Reading>);

/// A reading of one server.
#[derive(Clone, Debug, Default)]
struct Reading {
    /// By thread id: name, and nanoseconds on a processor.
    threads: BTreeMap<u32, (String, u64)>,
    /// In the order of [`COUNTERS`]. `None` if the server does not have the counter.
    counters: [Option<u64>; COUNTERS.len()],
}

/// Processor time and work of the servers between two readings.
#[derive(Clone, Debug, Serialize)]
pub struct CpuReport {
    /// Requests to which the figures relate.
    pub requests: u64,
    /// The servers, in the order of their names.
    pub servers: Vec<ServerCost>,
}

/// Processor time and work of one server.
#[derive(Clone, Debug, Serialize)]
pub struct ServerCost {
    /// `node` and the id of the node, or the address of another server.
    pub name: String,
    /// Processor time of all its threads, in microseconds for each request.
    pub us_per_request: f64,
    /// The same of its threads, by name; threads with equal names are added up.
    pub threads: BTreeMap<String, f64>,
    /// Counts for each request, by the name of the counter.
    pub work: BTreeMap<&'static str, f64>,
}

impl Servers {
    /// Finds the processes behind `addresses`. If the first address is a Paxoi node, finds all nodes of its cluster.
    ///
    /// # Errors
    /// If a server does not answer INFO with its process id, or that process is not on this machine.
    pub fn find(addresses: &[String]) -> anyhow::Result<Servers> {
        let mut servers = Vec::new();
        match addresses.first().map(|address| nodes::look(address, &mut nodes::ask)) {
            Some(Ok(cluster)) => {
                for node in &cluster.nodes {
                    let nodes::Answer::Itself(info) = cluster.info_of(node, &mut nodes::ask) else {
                        bail!("--cpu needs all nodes, but node {} does not answer", node.id);
                    };
                    servers.push(Server::new(format!("node {}", node.id), node.address().to_owned(), &info)?);
                }
            }
            _ => {
                for address in addresses {
                    servers.push(Server::new(address.clone(), address.clone(), &info(address)?)?);
                }
            }
        }
        servers.sort_by(|one, other| one.name.cmp(&other.name));
        servers.dedup_by_key(|server| server.process_id);
        Ok(Servers { servers })
    }

    /// Reads the times and counters of all servers.
    ///
    /// # Errors
    /// If a server has ended, or does not answer.
    pub fn read(&self) -> anyhow::Result<Readings> {
        self.servers.iter().map(Server::read).collect::<anyhow::Result<_>>().map(Readings)
    }

    /// Returns what the servers have used between two readings, for each of `requests` requests.
    #[must_use]
    pub fn compare(&self, before: &Readings, after: &Readings, requests: u64) -> CpuReport {
        let pairs = self.servers.iter().zip(before.0.iter().zip(&after.0));
        let servers = pairs.map(|(server, (before, after))| cost(&server.name, before, after, requests)).collect();
        CpuReport { requests, servers }
    }
}

impl Server {
    fn new(name: String, address: String, info: &str) -> anyhow::Result<Server> {
        let process_id = nodes::number(info, "process_id") as u32;
        let server = Server { name, address, process_id };
        server.threads().with_context(|| {
            format!("--cpu needs servers on this machine: process {process_id} of {} is not here", server.address)
        })?;
        Ok(server)
    }

    fn read(&self) -> anyhow::Result<Reading> {
        let info = info(&self.address)?;
        let counter = |name| nodes::field(&info, name).and_then(|value| value.parse().ok());
        let threads = self.threads().with_context(|| format!("{} has ended", self.name))?;
        Ok(Reading { threads, counters: COUNTERS.map(|(name, _)| counter(name)) })
    }

    fn threads(&self) -> std::io::Result<BTreeMap<u32, (String, u64)>> {
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{}/task", self.process_id))? {
            let path = entry?.path();
            let id = path.file_name().and_then(|name| name.to_str()?.parse().ok());
            // A thread may end while the list is read.
            let (Some(id), Ok(name), Ok(times)) =
                (id, fs::read_to_string(path.join("comm")), fs::read_to_string(path.join("schedstat")))
            else {
                continue;
            };
            let ns = times.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0);
            threads.insert(id, (name.trim().to_owned(), ns));
        }
        Ok(threads)
    }
}

fn info(address: &str) -> anyhow::Result<String> {
    let mut told = nodes::ask(address, &[&[b"INFO"]]).with_context(|| format!("no INFO from {address}"))?;
    Ok(told.pop().unwrap_or_default())
}

fn cost(name: &str, before: &Reading, after: &Reading, requests: u64) -> ServerCost {
    let per_request = |count: u64| count as f64 / requests.max(1) as f64;
    let mut threads: BTreeMap<String, f64> = BTreeMap::new();
    for (id, (thread, ns)) in &after.threads {
        let used_ns = ns.saturating_sub(before.threads.get(id).map_or(0, |(_, ns)| *ns));
        *threads.entry(thread.clone()).or_default() += per_request(used_ns) / 1e3;
    }
    let counts = COUNTERS.iter().zip(before.counters.iter().zip(&after.counters));
    let work = counts.filter_map(|((_, name), (before, after))| {
        Some((*name, per_request(after.as_ref()?.saturating_sub(before.unwrap_or(0)))))
    });
    ServerCost { name: name.to_owned(), us_per_request: threads.values().sum(), threads, work: work.collect() }
}

impl CpuReport {
    /// Returns the processor time of all servers, in microseconds for each request.
    #[must_use]
    pub fn us_per_request(&self) -> f64 {
        self.servers.iter().map(|server| server.us_per_request).sum()
    }

    fn row(&self, title: &str, of: impl Fn(&ServerCost) -> Option<f64>) -> Vec<String> {
        let values: Vec<Option<f64>> = self.servers.iter().map(of).collect();
        let all = values.iter().flatten().sum();
        let shown = values.into_iter().chain([Some(all)]);
        [title.to_owned()].into_iter().chain(shown.map(|value| value.map_or("-".to_owned(), figure))).collect()
    }
}

impl fmt::Display for CpuReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.servers.iter().map(|server| server.name.as_str());
        let columns: Vec<&str> = ["per request"].into_iter().chain(names).chain(["all"]).collect();
        let mut table = table(&columns);
        let shown = self.servers.iter().flat_map(|server| &server.threads).filter(|(_, us)| **us >= SHOWN_US_MIN);
        let mut threads: Vec<&str> = shown.map(|(name, _)| name.as_str()).collect();
        threads.sort_unstable();
        threads.dedup();
        table.add_row(self.row("processor time, µs", |server| Some(server.us_per_request)));
        for thread in threads {
            table.add_row(self.row(&format!("  thread {thread}"), |server| server.threads.get(thread).copied()));
        }
        for (_, name) in
            COUNTERS.iter().filter(|(_, name)| self.servers.iter().any(|server| server.work.contains_key(name)))
        {
            table.add_row(self.row(name, |server| server.work.get(name).copied()));
        }
        write!(f, "{}", print(&mut table))
    }
}

/// Formats a small number to three digits behind the point, a larger one to fewer.
fn figure(value: f64) -> String {
    let decimals = match value {
        _ if value < 10.0 => 3,
        _ if value < 1_000.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(threads: &[(u32, &str, u64)], syncs: u64) -> Reading {
        let threads = threads.iter().map(|(id, name, ns)| (*id, ((*name).to_owned(), *ns))).collect();
        let mut counters = [None; COUNTERS.len()];
        counters[0] = Some(syncs);
        Reading { threads, counters }
    }

    #[test]
    fn the_costs_are_differences_by_request_and_threads_of_one_name_add_up() {
        let before = reading(&[(1, "loop", 1_000), (2, "worker", 500), (3, "ended", 9), (5, "idle", 7)], 10);
        let after = reading(&[(1, "loop", 21_000), (2, "worker", 1_500), (4, "worker", 3_000), (5, "idle", 8)], 15);
        let cost = cost("node 1", &before, &after, 10);
        assert_eq!(
            cost.threads,
            BTreeMap::from([("idle".to_owned(), 0.0001), ("loop".to_owned(), 2.0), ("worker".to_owned(), 0.4)])
        );
        assert!((cost.us_per_request - 2.4001).abs() < 1e-9);
        assert_eq!(cost.work, BTreeMap::from([("log syncs", 0.5)]), "counters that a server lacks are left out");
        let report =
            CpuReport { requests: 10, servers: vec![cost.clone(), ServerCost { threads: BTreeMap::new(), ..cost }] };
        let text = report.to_string();
        for line in ["processor time, µs", "thread loop", "log syncs"] {
            assert!(text.contains(line), "{text}");
        }
        assert!(!text.contains("idle"), "{text}");
        assert!(text.lines().any(|line| line.contains("thread loop") && line.contains('-')), "{text}");
    }

    #[test]
    fn this_process_has_threads_that_used_time() {
        let server = Server { name: String::new(), address: String::new(), process_id: std::process::id() };
        assert!(server.threads().unwrap().values().any(|(_, ns)| *ns > 0));
    }
}
