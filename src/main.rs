//! The `paxoi` program. Exit codes: 0 done, 1 failed, 2 wrong usage.

use anyhow::Context;
use clap::Parser;
use clap::error::ErrorKind;
use paxoi::cli::{Cli, Command, InspectCommand, ServeArgs, Usage, one_line};
use paxoi::disk::FileDisk;
use paxoi::logging::{self, LogFormat, tell_stdout};
use paxoi::server::Starting;
use paxoi::{backup, bench, checkpoint, drain, local, log, member, status, sweep};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGXFSZ};
use signal_hook::iterator::Signals;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn main() -> ExitCode {
    let words = match Cli::try_parse() {
        Ok(words) => words,
        Err(error) => return refuse(&error),
    };
    match run(words.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
        }
    }
}

/// One line on stderr. If nobody reads that, nobody is there to be told.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "paxoi: {text}");
}

/// What was asked for (help, the version), or what is wrong with the words, in one line.
fn refuse(error: &clap::Error) -> ExitCode {
    if error.use_stderr() && error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        complain(&one_line(error));
    } else {
        // If it cannot be shown, nobody is there to be told.
        let _ = error.print();
    }
    ExitCode::from(if error.use_stderr() { 2 } else { 0 })
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Local(args) => {
            let _logs = logging::start(LogFormat::Text);
            ignore(&[SIGUSR1, SIGUSR2])?;
            local::run(&args, &stop_flag()?)
        }
        Command::Serve(args) => serve(*args),
        Command::Bench(args) => bench::run(*args),
        Command::Sweep(args) => sweep::run(*args),
        Command::Status(args) => status::run(&args),
        Command::Member(command) => member::run(&command),
        Command::Backup(args) => {
            let _logs = logging::start(LogFormat::Text);
            backup::backup(&args)
        }
        Command::Restore(args) => backup::restore(&args),
        Command::Inspect(InspectCommand::Backup { dir }) => {
            let sound = backup::inspect_backup(&dir, &mut std::io::stdout().lock())?;
            anyhow::ensure!(sound, "the backup {} is damaged, see above", dir.display());
            Ok(())
        }
        Command::Drain(args) => drain::run(&args),
        Command::Inspect(InspectCommand::Log { dir, records }) => {
            let disk = FileDisk::existing(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
            let sound = log::inspect_log(&disk, records, &mut std::io::stdout().lock())?;
            anyhow::ensure!(sound, "the log in {} is damaged, see above", dir.display());
            Ok(())
        }
        Command::Inspect(InspectCommand::Checkpoint { file }) => inspect_checkpoint(&file),
    }
}

fn inspect_checkpoint(file: &Path) -> anyhow::Result<()> {
    std::fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let disk = FileDisk::existing(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let name = file.file_name().and_then(|name| name.to_str());
    let name = name.with_context(|| format!("{} is not the name of a file", file.display()))?;
    let sound = checkpoint::inspect_checkpoint(&disk, name, &mut std::io::stdout().lock())?;
    anyhow::ensure!(sound, "the checkpoint {} is damaged, see above", file.display());
    Ok(())
}

fn serve(args: ServeArgs) -> anyhow::Result<()> {
    // From the first moment on; those that arrive before the thread below runs wait for it.
    let signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2]).context("cannot watch for signals")?;
    // A write beyond the system's limit for files then fails like any other, instead of ending the process without a word.
    ignore(&[SIGXFSZ])?;
    let settings = args.settle()?;
    let _logs = logging::start(settings.log_format);
    settings.ignored.iter().for_each(|line| tracing::warn!("{line}"));
    if let Some(parent) = settings.parent {
        end_with(parent)?;
    }
    let stopping = Arc::new(AtomicBool::new(false));
    let starting = Starting::open(settings.node, settings.log, settings.listen, Arc::clone(&stopping))?;
    let waker = starting.waker();
    let stop = move || {
        stopping.store(true, Ordering::Relaxed);
        // The loop may be gone already.
        let _ = waker.wake();
    };
    let watch = move || watch_signals(signals, stop);
    std::thread::Builder::new().name("paxoi-signals".to_owned()).spawn(watch).context("cannot start a thread")?;
    let Some(server) = starting.load()? else { return Ok(()) };
    tell_stdout(&format!("listening {}", server.local_addr()?));
    server.run()
}

/// Calls `stop` for each signal that asks for the end. Those by which other daemons are told to read their settings
/// again, or to open their log anew, must not end a node.
fn watch_signals(mut signals: Signals, stop: impl Fn()) {
    for signal in signals.forever() {
        match signal {
            SIGINT | SIGTERM => stop(),
            other => {
                let name = signal_hook::low_level::signal_name(other).unwrap_or("a signal");
                tracing::info!("{name} has no effect: settings are read at the start, and log lines go to stderr");
            }
        }
    }
}

/// These signals neither end the process nor do anything else.
fn ignore(signals: &[i32]) -> anyhow::Result<()> {
    for signal in signals {
        signal_hook::flag::register(*signal, Arc::default()).context("cannot watch for signals")?;
    }
    Ok(())
}

/// Set by Ctrl-C and SIGTERM.
fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&flag)).context("cannot watch for signals")?;
    }
    Ok(flag)
}

/// The system ends this process when its parent ends.
fn end_with(parent: u32) -> anyhow::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .context("cannot follow the parent process")?;
    // It may have ended just before.
    let alive = rustix::process::getppid().is_some_and(|id| id.as_raw_pid().cast_unsigned() == parent);
    anyhow::ensure!(alive, "the parent process has ended");
    Ok(())
}
