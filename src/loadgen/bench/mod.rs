//! `paxoi bench`: puts a load on any server of the Redis protocol and reports throughput and latencies.
//!
//! From the command line to the report: [`BenchArgs`] become a [`driver::Plan`]. Threads of [`worker::Worker`]s carry
//! it out and measure into a [`record::Measurements`]. A [`report::Report`] presents them as a table, as JSON and as a
//! picture.

pub mod cluster;
pub mod cpu;
pub mod driver;
pub mod link;
pub mod pacer;
pub mod picture;
pub mod progress;
pub mod record;
pub mod report;
pub mod svg;
pub mod verify;
pub mod worker;
pub mod workload;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod verify_tests;

use crate::client::resolve;
use crate::duration;
use anyhow::{Context, anyhow, bail, ensure};
use cluster::SlotMap;
use cpu::Servers;
use driver::{Limit, Plan, drive};
use progress::ProgressLine;
use report::{Parameters, Report, Verified};
use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use verify::{Recording, VERIFY_KEYS_MAX, VERIFY_VALUE_BYTES};
use workload::{KeysDist, Picker, RequestKind, Requests, Workload};

/// Requests in flight per connection while keys are loaded: enough to be quick, few enough to be gentle.
const LOAD_PIPELINE: usize = 64;
/// Maximum pipeline of `ONCE` requests. A server remembers this many numbers of a session. With more in flight, a
/// request that is sent again could be older than these numbers, and would be refused.
const ONCE_PIPELINE_MAX: usize = 64;
/// Time to wait for outstanding replies at the end.
const GRACE: Duration = Duration::from_secs(5);
/// Silence after which a load of a fixed number of requests ends.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Maximum size of a value, as in Redis.
const VALUE_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Puts a load on a server (any server of the Redis protocol) and reports throughput and latencies.
#[derive(Clone, Debug, clap::Args)]
pub struct BenchArgs {
    /// Where to connect to; several addresses share the connections.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', required = true)]
    pub connect: Vec<String>,
    /// The load.
    #[command(flatten)]
    pub load: LoadArgs,
    /// Check that the clients' history is linearizable. The run uses keys of its own, up to 256 at a time, and does not
    /// delete them. Exit code 1 if the history is not linearizable.
    #[arg(long)]
    pub verify: bool,
    /// Also print the servers' processor time and work per request. They must run on this machine; of a Paxoi cluster,
    /// all nodes count.
    #[arg(long)]
    pub cpu: bool,
    /// Where the results go besides the table.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// The flags that describe a load, in `bench` and in `sweep`.
#[derive(Clone, Debug, clap::Args)]
pub struct LoadArgs {
    /// Ask CLUSTER SLOTS and send each request to the node that owns its key.
    #[arg(long)]
    pub cluster: bool,
    /// Connections in all (with --cluster, each stands for one to every node that owns slots).
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = count(100_000))]
    pub connections: usize,
    /// Maximum requests in flight per connection.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count(100_000))]
    pub pipeline: usize,
    /// Threads of the generator.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count(256))]
    pub threads: usize,
    /// How long requests are sent, as in 500ms, 10s or 2m.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration::parse)]
    pub duration: Duration,
    /// Send this many requests, however long it takes.
    #[arg(long, value_name = "N", conflicts_with = "duration", value_parser = clap::value_parser!(u64).range(1..))]
    pub requests: Option<u64>,
    /// Requests per second in all, sent by the clock (open loop); latency then counts from the intended time.
    #[arg(long, value_name = "N", value_parser = parse_rate)]
    pub rate: Option<f64>,
    /// set, get, mixed:R (R = share of reads), incr, append or once.
    #[arg(long, value_name = "KIND", default_value = "set")]
    pub workload: Workload,
    /// Number of different keys: key:000000000000 and up (ctr:… for incr and once).
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = workload::parse_keys)]
    pub keys: u64,
    /// uniform, or zipf:THETA with 0 < THETA < 1.
    #[arg(long, value_name = "DIST", default_value = "uniform")]
    pub keys_dist: KeysDist,
    /// Bytes of each value.
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u64).range(..=VALUE_BYTES_MAX))]
    pub value_size: u64,
    /// get and mixed: do not write all keys first.
    #[arg(long)]
    pub no_load: bool,
    /// Equal seeds give equal requests.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

/// Where results go besides the table.
#[derive(Clone, Debug, clap::Args)]
pub struct OutputArgs {
    /// Write everything measured to this file.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Draw the results into this file.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

/// Runs `paxoi bench`: the load, then the table on stdout.
///
/// # Errors
/// If a server is not there at the start, no request at all succeeds, the verification fails, or a file cannot be
/// written. Contradictory flags end the process with clap's exit code 2.
#[allow(clippy::needless_pass_by_value, reason = "the flags of a program are used once")]
pub fn run(args: BenchArgs) -> anyhow::Result<()> {
    args.load.exit_if_contradictory();
    if args.verify
        && let Some(complaint) = args.load.unverifiable()
    {
        refuse(complaint);
    }
    let stop = stop_on_signals()?;
    let report = measure(&args.connect, &args.load, args.checks(), &stop)?;
    writeln!(io::stdout(), "{report}")?;
    args.output.write(|| serde_json::to_string_pretty(&report), || picture::of_report(&report))?;
    ensure!(report.requests > 0, "no request succeeded at {}", args.connect.join(","));
    match report.verify {
        None | Some(Verified { linearizable: Some(true), .. }) => Ok(()),
        Some(Verified { linearizable, counterexample, .. }) => {
            if linearizable.is_some() {
                let _ = writeln!(io::stderr(), "{}", counterexample.unwrap_or_default());
                bail!("the clients' history at {} is not linearizable; times above are in ns", args.connect.join(","));
            }
            bail!("{}", counterexample.unwrap_or_default())
        }
    }
}

/// What a run finds out besides throughput and latencies.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checks {
    /// Whether the clients' history is linearizable.
    pub verify: bool,
    /// What the servers' processors did.
    pub cpu: bool,
}

impl BenchArgs {
    fn checks(&self) -> Checks {
        Checks { verify: self.verify, cpu: self.cpu }
    }
}

/// Loads the keys if the workload needs them, then runs the load, and shows progress on a terminal. With
/// [`Checks::verify`], loads nothing, records everything, and checks it.
///
/// # Errors
/// If a server is not there at the start, or the keys cannot be loaded.
pub fn measure(connect: &[String], load: &LoadArgs, checks: Checks, stop: &AtomicBool) -> anyhow::Result<Report> {
    let lookup = |text: &String| resolve(text).map_err(|error| anyhow!("cannot resolve {text} as HOST:PORT: {error}"));
    let addresses: Vec<SocketAddr> = connect.iter().map(lookup).collect::<anyhow::Result<_>>()?;
    raise_file_limit();
    let mut plan = load.plan(addresses)?;
    if checks.verify {
        plan.record(load)?;
    } else if load.workload.reads() && !load.no_load {
        plan = load_keys(plan, load, stop)?;
    }
    let mut progress = ProgressLine::start(&load.workload.to_string(), plan.limit);
    let servers = checks.cpu.then(|| Servers::find(connect)).transpose()?;
    let before = servers.as_ref().map(Servers::read).transpose()?;
    let mut record = drive(&plan, stop, |replies| progress.tell(replies))?;
    let after = servers.as_ref().map(Servers::read).transpose()?;
    drop(progress);
    let interrupted = stop.load(Ordering::Relaxed);
    let mut report = Report::new(load.parameters(connect, plan.threads), load.workload.kinds(), &record, interrupted);
    if let (Some(servers), Some(before), Some(after)) = (servers, before, after) {
        report.cpu = Some(servers.compare(&before, &after, report.requests));
    }
    if let Some(recorder) = record.recorder.take() {
        report.parameters.keys = load.keys.min(VERIFY_KEYS_MAX);
        report.verify = Some(verify::verify(plan, recorder, stop)?);
    }
    Ok(report)
}

/// Returns a flag that Ctrl-C and SIGTERM set. A second signal ends the process at once.
///
/// # Errors
/// If the system refuses signal handlers.
pub fn stop_on_signals() -> io::Result<Arc<AtomicBool>> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

impl LoadArgs {
    /// Ends the process with the exit code of wrong usage if flags contradict each other.
    pub fn exit_if_contradictory(&self) {
        if let Some(complaint) = self.contradiction() {
            refuse(complaint);
        }
    }

    /// Returns the reason why a run with these flags cannot be verified, if there is one.
    fn unverifiable(&self) -> Option<String> {
        let has_values = !matches!(self.workload, Workload::Incr | Workload::Once);
        if self.workload == Workload::Get {
            return Some("--verify needs writes: use --workload mixed:0.9".to_owned());
        }
        if has_values && !VERIFY_VALUE_BYTES.contains(&self.value_size) {
            let (least, most) = (VERIFY_VALUE_BYTES.start(), VERIFY_VALUE_BYTES.end());
            return Some(format!("--verify needs values of {least} to {most} bytes"));
        }
        None
    }

    fn contradiction(&self) -> Option<String> {
        if self.workload == Workload::Once && self.pipeline > ONCE_PIPELINE_MAX {
            return Some(format!("--workload once allows --pipeline {ONCE_PIPELINE_MAX} at most"));
        }
        None
    }

    fn limit(&self) -> Limit {
        self.requests.map_or(Limit::Time(self.duration), Limit::Requests)
    }

    fn plan(&self, addresses: Vec<SocketAddr>) -> anyhow::Result<Plan> {
        let fetch = |address: &SocketAddr| {
            SlotMap::fetch(*address).map_err(|error| anyhow!("{address} does not tell its cluster's slots: {error}"))
        };
        let value_bytes = usize::try_from(self.value_size)?;
        Ok(Plan {
            map: self.cluster.then(|| fetch(&addresses[0])).transpose()?,
            addresses,
            connections: self.connections,
            threads: self.threads.min(self.connections),
            pipeline: self.pipeline,
            limit: self.limit(),
            rate: self.rate,
            workload: self.workload,
            picker: Picker::new(self.keys_dist, self.keys),
            requests: Requests::new(value_bytes, self.seed),
            seed: self.seed,
            recording: None,
            grace: GRACE,
            silence_max: SILENCE_MAX,
        })
    }

    fn parameters(&self, connect: &[String], threads: usize) -> Parameters {
        Parameters {
            connect: connect.to_vec(),
            cluster: self.cluster,
            connections: self.connections,
            pipeline: self.pipeline,
            threads,
            duration_s: self.requests.is_none().then_some(self.duration.as_secs_f64()),
            requests: self.requests,
            rate_per_s: self.rate,
            workload: self.workload.to_string(),
            keys: self.keys,
            keys_dist: self.keys_dist.to_string(),
            value_size: self.value_size as usize,
            seed: self.seed,
        }
    }
}

impl Plan {
    /// Makes the plan record everything, on keys that nobody has used.
    fn record(&mut self, load: &LoadArgs) -> anyhow::Result<()> {
        let run = getrandom::u64().map_err(|error| anyhow!("the system gives no random numbers: {error}"))?;
        let keys = load.keys.min(VERIFY_KEYS_MAX);
        self.picker = Picker::new(load.keys_dist, keys);
        self.requests =
            Requests::new(usize::try_from(load.value_size)?, load.seed).tagged(&format!("verify-{run:016x}:"));
        self.recording = Some(Recording::start(keys));
        Ok(())
    }
}

impl OutputArgs {
    /// Writes the files that were asked for.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(
        &self,
        json: impl FnOnce() -> serde_json::Result<String>,
        svg: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        if let Some(path) = &self.json {
            fs::write(path, json()? + "\n").with_context(|| format!("cannot write {}", path.display()))?;
        }
        if let Some(path) = &self.svg {
            fs::write(path, svg()).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

/// Ends the process because of contradictory flags.
fn refuse(complaint: String) -> ! {
    clap::Error::raw(clap::error::ErrorKind::ArgumentConflict, complaint + "\n").exit()
}

/// Writes every key once, whatever the limit and the rate of the load to come, and returns the plan of that load.
fn load_keys(mut plan: Plan, args: &LoadArgs, stop: &AtomicBool) -> anyhow::Result<Plan> {
    let picker = std::mem::replace(&mut plan.picker, Picker::Sequential(0));
    plan.workload = Workload::Set;
    plan.limit = Limit::Requests(args.keys);
    plan.pipeline = LOAD_PIPELINE;
    plan.rate = None;
    let mut progress = ProgressLine::start("loading keys", plan.limit);
    let record = drive(&plan, stop, |replies| progress.tell(replies))?;
    drop(progress);
    let loaded = record.latencies(RequestKind::Set).len();
    if stop.load(Ordering::Relaxed) {
        bail!("stopped while keys were loaded: {loaded} of {}", args.keys);
    }
    if loaded < args.keys {
        let words: Vec<String> = record.errors.iter().map(|(word, count)| format!("{count} × -{word}")).collect();
        let why = if words.is_empty() { "the connections were lost".into() } else { words.join(", ") };
        bail!("only {loaded} of {} keys could be loaded: {why}; --no-load skips the loading", args.keys);
    }
    plan.workload = args.workload;
    plan.limit = args.limit();
    plan.pipeline = args.pipeline;
    plan.rate = args.rate;
    plan.picker = picker;
    Ok(plan)
}

/// Raises the limit of open files. The default limit may be too low for a thousand connections. If the limit cannot be
/// raised, the connection attempt that exceeds it reports the error.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

fn count(max: u64) -> impl clap::builder::TypedValueParser<Value = usize> {
    use clap::builder::TypedValueParser;
    clap::value_parser!(u64).range(1..=max).map(|number| number as usize)
}

fn parse_rate(text: &str) -> anyhow::Result<f64> {
    let rate: f64 = text.parse()?;
    ensure!(rate > 0.0 && rate <= 1e9, "give a number of requests per second above 0, up to 1e9");
    Ok(rate)
}
