//! The `paxoi` program. Exit codes: 0 done, 1 failed, 2 wrong usage.

use clap::Parser;
use clap::error::ErrorKind;
use paxoi::cmd::{self, Cli, one_line};
use paxoi::usage::Usage;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words = match Cli::try_parse() {
        Ok(words) => words,
        Err(error) => return refuse(&error),
    };
    match cmd::run(words.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
        }
    }
}

/// Prints one line on stderr. If nobody reads stderr, nobody is there to be told.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "paxoi: {text}");
}

/// Prints the help or the version, or one line that names the error in the arguments.
fn refuse(error: &clap::Error) -> ExitCode {
    if error.use_stderr() && error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        complain(&one_line(error));
    } else {
        // If the text cannot be shown, nobody is there to be told.
        let _ = error.print();
    }
    ExitCode::from(if error.use_stderr() { 2 } else { 0 })
}
