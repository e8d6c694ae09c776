//! Runs programs that may not be installed, with a time limit. No output of them is lost.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Maximum run time of a program.
const PATIENCE: Duration = Duration::from_secs(60);

/// Returns true if a program runs. Otherwise reports that the test is skipped, and returns false. With the arguments
/// `probe` the program ends at once.
pub(crate) fn is_there(program: &str, probe: &[&str]) -> bool {
    let status =
        Command::new(program).args(probe).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if status.is_ok_and(|status| status.success()) {
        return true;
    }
    skip(program);
    false
}

/// Reports that a test is skipped. Panics if `PAXOI_REQUIRE_TOOLS=1` says that everything must be installed.
pub(crate) fn skip(what: &str) {
    assert!(std::env::var_os("PAXOI_REQUIRE_TOOLS").is_none_or(|required| required != "1"), "{what} is not installed");
    eprintln!("skipped: no {what}");
}

/// Runs a program to its end. Returns its exit code and its whole output, stderr behind stdout.
pub(crate) fn run(command: &mut Command, input: &str) -> (Option<i32>, String) {
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut process = spawned.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    process.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
    let out = read_all(process.stdout.take().expect("piped"));
    let errors = read_all(process.stderr.take().expect("piped"));
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = process.try_wait().expect("its status") {
            break status;
        }
        if Instant::now() > deadline {
            let _ = process.kill();
        }
        thread::sleep(Duration::from_millis(5));
    };
    (status.code(), out.join().expect("read") + &errors.join().expect("read"))
}

/// Runs a program like [`run`]. It must end with code 0. Returns its output.
#[track_caller]
pub(crate) fn succeed(command: &mut Command, input: &str) -> String {
    let (code, output) = run(command, input);
    assert_eq!(code, Some(0), "{command:?}:\n{output}");
    output
}

fn read_all(mut from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
