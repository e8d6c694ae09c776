//! The simulator: clusters of the shipped node, groups, store, log and recovery on a virtual network, disk and clock.
//!
//! Everything in a run follows from its seed. Clients work while the network, the processes, the disks and the clocks
//! fail. An oracle checks every record, frame and state. At the end a majority is healed and must make progress, and
//! the history of the clients must be linearizable.
//!
//! ```text
//! run        one run: draw, break, heal, check      nemesis    what breaks        damage   rot on disks
//! world      time and the queue of events           network    connections        oracle   the invariants
//! shell      counterpart of src/server              lifecycle  starts and ends    process  a node, its disk and clocks
//! client     the clients, and the history           members    joins and leaves   sleep    machines that sleep
//! requests   the requests of clients                sessions   commands of sessions, and repetitions
//! scans      iterations over the database
//! scenarios  directed scenarios, step by step
//! ```

mod client;
mod damage;
mod letters;
mod lifecycle;
mod log;
mod members;
mod nemesis;
mod network;
mod oracle;
mod process;
mod random;
mod report;
mod requests;
mod run;
mod scans;
mod scenarios;
mod sessions;
mod shell;
mod sleep;
mod trace;
mod world;

use clap::Parser;
use report::Table;
use run::Outcome;
use scenarios::{SCENARIOS, Scenario};
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use trace::Trace;

/// The command that runs this program.
const REPLAY: &str = if cfg!(debug_assertions) {
    "cargo test --test simulation --"
} else {
    "cargo test --release --test simulation --"
};
/// Default number of seeds: few enough for the time that `.ci/run` has.
const SEEDS: u64 = 200;
/// Interval of the seeds that run twice. Both runs must be identical.
const TWICE: u64 = 16;

/// Runs seeds of the simulator.
#[derive(Parser, Debug)]
#[command(name = "simulation")]
struct Args {
    /// Number of seeds. With --scenario, the number of seeds of the scenario.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Begin no new seeds after this many seconds. Without --seeds there is no other limit.
    #[arg(long)]
    seconds: Option<u64>,
    /// Print all events. For one seed.
    #[arg(long)]
    trace: bool,
    /// Run only this directed scenario, and no seeds.
    #[arg(long)]
    scenario: Option<String>,
    /// Run no directed scenario.
    #[arg(long)]
    only_seeds: bool,
    /// Number of seeds that run in parallel.
    #[arg(long)]
    jobs: Option<usize>,
    /// Workers of each node; a seed draws them otherwise.
    #[arg(long)]
    workers: Option<u32>,
    /// Accepted and ignored: an option of other test programs.
    #[arg(long, hide = true)]
    nocapture: bool,
    #[arg(hide = true)]
    filter: Vec<String>,
}

thread_local! {
    /// The message of this thread's last panic.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.filter.iter().any(|filter| !"simulation".contains(filter.as_str())) {
        return ExitCode::SUCCESS;
    }
    if args.trace {
        let subscriber = tracing_subscriber::fmt().with_writer(std::io::stderr).without_time().with_target(false);
        subscriber.with_max_level(tracing::Level::DEBUG).init();
    } else {
        panic::set_hook(Box::new(|info| PANIC.with(|last| *last.borrow_mut() = Some(info.to_string()))));
    }
    if let Err(reason) = run_scenarios(&args) {
        eprintln!("{reason}");
        return ExitCode::FAILURE;
    }
    if args.scenario.is_some() {
        return ExitCode::SUCCESS;
    }
    let seeds = args.seeds.unwrap_or(if args.seconds.is_some() { u64::MAX } else { SEEDS });
    let end = args.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let began = Instant::now();
    let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let table = Mutex::new(Table::default());
    let jobs = args.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let work = || {
        while !failed.load(Ordering::Relaxed) && end.is_none_or(|end| Instant::now() < end) {
            let count = next.fetch_add(1, Ordering::Relaxed);
            if count >= seeds {
                return;
            }
            let seed = args.from + count;
            match attempt(seed, args.workers, args.trace) {
                Ok(outcome) => table.lock().unwrap().add(&outcome),
                Err(reason) => {
                    if !failed.swap(true, Ordering::Relaxed) {
                        tell(seed, count, &reason);
                    }
                }
            }
        }
    };
    std::thread::scope(|scope| (0..jobs).for_each(|_| drop(scope.spawn(work))));
    eprintln!("{}", table.lock().unwrap().text(began.elapsed()));
    if let Some(untested) = table.lock().unwrap().untested() {
        eprintln!("{untested}");
        return ExitCode::FAILURE;
    }
    if failed.load(Ordering::Relaxed) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Runs directed scenarios before the first seed: the one that is asked for, or all but the long ones.
fn run_scenarios(args: &Args) -> Result<(), String> {
    let unasked = |scenario: &Scenario| !args.only_seeds && !scenario.is_long;
    let wanted = |scenario: &&Scenario| args.scenario.as_ref().map_or(unasked(scenario), |name| name == scenario.name);
    let chosen: Vec<&Scenario> = SCENARIOS.iter().filter(wanted).collect();
    if chosen.is_empty() && args.scenario.is_some() {
        let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        return Err(format!("there is no such scenario; choose one of {}", names.join(", ")));
    }
    for scenario in &chosen {
        let asked = args.scenario.as_ref().map(|_| (args.from, args.seeds.unwrap_or(scenario.seeds)));
        let (from, seeds) = asked.unwrap_or((0, scenario.seeds));
        for seed in from..from + seeds {
            if let Err(reason) = guarded(|| scenario.run(seed, Trace::new(args.trace))) {
                let replay = format!("{REPLAY} --scenario {} --from {seed} --seeds 1 --trace", scenario.name);
                return Err(format!("scenario {} failed: {reason}\nreplay: {replay}", scenario.name));
            }
        }
    }
    if !chosen.is_empty() {
        eprintln!("{} directed scenarios", chosen.len());
    }
    Ok(())
}

/// Runs a seed, and multiples of `TWICE` a second time.
fn attempt(seed: u64, workers: Option<u32>, trace: bool) -> Result<Outcome, String> {
    let outcome = guarded(|| run::run(seed, workers, Trace::new(trace)))?;
    if seed.is_multiple_of(TWICE) && !trace {
        let again = guarded(|| run::run(seed, workers, Trace::new(false)))?;
        if again.hash != outcome.hash {
            return Err(format!("two runs of the same seed differ: {:016x} and {:016x}", outcome.hash, again.hash));
        }
    }
    Ok(outcome)
}

/// Runs a simulation. A panic becomes an error: a failed assertion of the shipped code is a finding like any other.
fn guarded<T>(run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let ran = panic::catch_unwind(AssertUnwindSafe(run));
    ran.unwrap_or_else(|_| Err(PANIC.take().unwrap_or_else(|| "it panicked".to_owned())))
}

fn tell(seed: u64, count: u64, reason: &str) {
    eprintln!("seed {seed} failed, after {count} others: {reason}");
    eprintln!("replay: {REPLAY} --only-seeds --from {seed} --seeds 1 --trace");
}
