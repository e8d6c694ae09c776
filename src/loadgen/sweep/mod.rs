//! `paxoi sweep`: the same load on fresh local clusters that differ only in their number of Paxos groups.
//!
//! Each cluster is a child process in a folder of its own, inside a new folder in the current directory. In every case,
//! also after Ctrl-C, the child is ended and the folder is removed.

mod cluster;
mod picture;
#[cfg(test)]
mod tests;

use crate::loadgen::bench::report::{Report, duration, grouped, print, table};
use crate::loadgen::bench::{Checks, LoadArgs, OutputArgs, measure, stop_on_signals};
use anyhow::{Context, bail, ensure};
use cluster::Cluster;
use serde::Serialize;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{env, fs, process};

/// Measures fresh local clusters of different numbers of groups under the same load.
#[derive(Clone, Debug, clap::Args)]
pub struct SweepArgs {
    /// Numbers of groups to try.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,2,4,8,16,64,256,1024",
          value_parser = clap::value_parser!(u32).range(1..=16384))]
    pub groups: Vec<u32>,
    /// Nodes of each cluster.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
    pub nodes: u32,
    /// The load.
    #[command(flatten)]
    pub load: LoadArgs,
    /// Where the results go besides the table.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Results of one `paxoi sweep`. The names of the fields are the names in the JSON.
#[derive(Clone, Debug, Serialize)]
pub struct Sweep {
    /// Nodes of each cluster.
    pub nodes: u32,
    /// The runs in the order of the command line.
    pub runs: Vec<Run>,
}

/// The run with one number of groups.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// Paxos groups of the cluster.
    pub groups: u32,
    /// Report of `paxoi bench` on this cluster.
    pub report: Report,
}

/// Runs `paxoi sweep`: the loads, then the table on stdout.
///
/// # Errors
/// If a cluster does not start, a cluster answers no request with success, or a file cannot be written. Contradictory
/// flags end the process with clap's exit code 2.
#[allow(clippy::needless_pass_by_value, reason = "the flags of a program are used once")]
pub fn run(args: SweepArgs) -> anyhow::Result<()> {
    args.load.exit_if_contradictory();
    let stop = stop_on_signals()?;
    let program = env::current_exe().context("cannot find this program to start it as a cluster")?;
    let sweep = sweep(&args, &env::current_dir()?, &stop, |groups, dir| {
        let mut command = Command::new(&program);
        command.args(["local", "--port", "0", "--nodes", &args.nodes.to_string()]);
        command.args(["--groups", &groups.to_string(), "--dir"]).arg(dir);
        command
    })?;
    writeln!(io::stdout(), "{sweep}")?;
    args.output.write(|| serde_json::to_string_pretty(&sweep), || picture::of_sweep(&sweep))
}

/// Measures one cluster for each number of groups, in a new folder in `parent`. `starter` makes the command that starts
/// a cluster in its own folder.
fn sweep(
    args: &SweepArgs,
    parent: &Path,
    stop: &AtomicBool,
    starter: impl Fn(u32, &Path) -> Command,
) -> anyhow::Result<Sweep> {
    let folder = Folder::new(parent)?;
    let mut runs: Vec<Run> = Vec::new();
    for (index, &groups) in args.groups.iter().enumerate() {
        tell(&format!("{}/{}: {groups} groups", index + 1, args.groups.len()));
        let dir = folder.path.join(groups.to_string());
        let cluster = Cluster::start(starter(groups, &dir), &folder.path.join(format!("{groups}.log")), stop)
            .with_context(|| format!("the cluster of {groups} groups did not start"));
        let cluster = match cluster {
            Ok(cluster) => cluster,
            Err(_) if stop.load(Ordering::Relaxed) => break,
            Err(error) => return Err(error),
        };
        let measured = measure(cluster.addresses(), &args.load, Checks::default(), stop);
        cluster.stop();
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let report = measured.with_context(|| format!("with {groups} groups"))?;
        ensure!(report.requests > 0, "no request succeeded with {groups} groups");
        runs.push(Run { groups, report });
    }
    if runs.is_empty() {
        bail!("stopped before anything was measured");
    }
    Ok(Sweep { nodes: args.nodes, runs })
}

impl Sweep {
    /// Returns the run with the highest throughput. There is at least one run.
    #[must_use]
    pub fn fastest(&self) -> Option<&Run> {
        self.runs.iter().max_by(|a, b| a.report.requests_per_s.total_cmp(&b.report.requests_per_s))
    }
}

impl fmt::Display for Sweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(run) = self.runs.first() {
            let parameters = &run.report.parameters;
            writeln!(f, "{} nodes · {} · {}", self.nodes, parameters.headline(), parameters.details())?;
        }
        let mut table = table(&["groups", "per second", "mean", "p50", "p90", "p99", "p99.9", "max", "failures"]);
        for Run { groups, report } in &self.runs {
            let l = &report.latency;
            let mut row = vec![groups.to_string(), grouped(report.requests_per_s.round() as u64)];
            row.extend([l.mean_us, l.p50_us, l.p90_us, l.p99_us, l.p999_us, l.max_us].map(duration));
            row.push(grouped(report.failures()));
            table.add_row(row);
        }
        write!(f, "{}", print(&mut table))
    }
}

/// A new folder, removed when this is dropped.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn new(parent: &Path) -> anyhow::Result<Folder> {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let path = parent.join(format!("paxoi-sweep-{seconds}-{}", process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make the folder {}", path.display()))?;
        Ok(Folder { path })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            _ = writeln!(io::stderr(), "cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Tells the progress, only to a person at a terminal.
fn tell(what: &str) {
    if io::stderr().is_terminal() {
        // A failed write loses nothing.
        _ = writeln!(io::stderr(), "{what}");
    }
}
