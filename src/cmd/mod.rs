//! The command line: the subcommands and their dispatch. A subcommand has a file of its own with its arguments. The
//! arguments of bench, sweep, backup and restore are in the modules that carry them out.

pub mod drain;
pub mod inspect;
pub mod local;
pub mod member;
pub mod serve;
mod signals;
pub mod status;

use crate::backup::{self, BackupArgs, RestoreArgs};
use crate::loadgen::bench::{self, BenchArgs};
use crate::loadgen::sweep::{self, SweepArgs};
use crate::logging::{self, LogFormat};
use clap::{Parser, Subcommand};
use drain::DrainArgs;
use inspect::InspectCommand;
use local::LocalArgs;
use member::MemberCommand;
use serve::ServeArgs;
use signal_hook::consts::{SIGUSR1, SIGUSR2};
use status::StatusArgs;

/// A durable, linearizable, replicated key/value server for Redis clients, made of many Paxos groups.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
pub struct Cli {
    /// The subcommand.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a whole cluster on this machine, one process per node
    Local(LocalArgs),
    /// Run one node of a cluster
    Serve(Box<ServeArgs>),
    /// Load a server of the Redis protocol and report throughput and latency
    Bench(Box<BenchArgs>),
    /// Run the same load against a fresh local cluster for each number of groups
    Sweep(Box<SweepArgs>),
    /// Show the nodes of a cluster: how many groups each leads, and which are behind
    Status(StatusArgs),
    /// List the members of a cluster, or change them while it serves
    #[command(subcommand)]
    Member(MemberCommand),
    /// Copy the states of all groups out of a data directory, to a new folder
    Backup(BackupArgs),
    /// Load the keys of a backup into a running cluster
    Restore(RestoreArgs),
    /// Hand the groups that a node leads to the others, before it is stopped
    Drain(DrainArgs),
    /// Read files of a data directory, without a lock
    #[command(subcommand)]
    Inspect(InspectCommand),
}

/// Runs a subcommand.
///
/// # Errors
/// [`Usage`](crate::usage::Usage) if the command line was wrong, or the reason why the subcommand failed.
pub fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Local(args) => {
            let _logs = logging::start(LogFormat::Text);
            signals::ignore(&[SIGUSR1, SIGUSR2])?;
            local::run(&args, &signals::stop_flag()?)
        }
        Command::Serve(args) => serve::run(*args),
        Command::Bench(args) => bench::run(*args),
        Command::Sweep(args) => sweep::run(*args),
        Command::Status(args) => status::run(&args),
        Command::Member(command) => member::run(&command),
        Command::Backup(args) => {
            let _logs = logging::start(LogFormat::Text);
            backup::backup(&args)
        }
        Command::Restore(args) => backup::restore(&args),
        Command::Drain(args) => drain::run(&args),
        Command::Inspect(command) => inspect::run(&command),
    }
}

/// Returns one line with the error of a command line, and the parser's suggestion if there is one.
#[must_use]
pub fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let told = |part: &&str| part.trim_start().starts_with("error: ") || part.trim_start().starts_with("tip: ");
    let parts = text.split("\n\n").filter(told).map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
    let parts: Vec<String> = parts.map(|part| part.trim_start_matches("error: ").to_owned()).collect();
    format!("{}; see --help", parts.join("; "))
}
