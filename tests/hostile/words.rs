//! Wrong arguments on the command line, and files that cannot be used. Each gives one error line, and the
//! exit code that scripts rely on.

use crate::harness::directory;
use std::net::TcpListener;
use std::process::Command;

/// Runs the program. Returns its exit code and its stderr.
fn run(words: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_paxoi")).args(words).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// Checks the exit code, and that there is one error line, which contains `text`.
fn expect(words: &[&str], code: i32, text: &str) {
    let (ended, errors) = run(words);
    let lines: Vec<&str> = errors.lines().filter(|line| !line.contains(" INFO ")).collect();
    assert!(ended == code && lines.len() == 1 && lines[0].contains(text), "{words:?}: {ended}, {errors}");
}

#[test]
fn wrong_flags_end_with_code_2() {
    for words in [&["nonsense"][..], &["serve", "--nonsense"], &["bench"], &["sweep", "--groups", "x"], &["status"]] {
        assert_eq!(run(words).0, 2, "{words:?}");
    }
    let serve = |more: &[&'static str]| [&["serve", "--id", "1", "--data", "unused"], more].concat();
    expect(&serve(&[]), 2, "--initial-cluster is missing");
    expect(&serve(&["--initial-cluster", "1=127.0.0.1:1,1=127.0.0.1:2"]), 2, "node 1 is listed twice");
    expect(&serve(&["--initial-cluster", "2=127.0.0.1:1"]), 2, "node 1 itself is not in the list");
    expect(&serve(&["--initial-cluster", "1=192.0.2.1:1"]), 2, "--insecure");
    expect(&serve(&["--initial-cluster", "1=127.0.0.1:1", "--groups", "20000"]), 2, "1 to 16384 groups");
    expect(&serve(&["--initial-cluster", "1=127.0.0.1:1", "--config", "missing.toml"]), 2, "missing.toml");
    expect(&["local", "--nodes", "100", "--dir", "unused"], 2, "--nodes 100");
}

#[test]
fn a_wrong_setting_in_the_file_is_named() {
    let dir = directory();
    let file = dir.path().join("paxoi.toml");
    std::fs::write(&file, "groups = 4\nclient-timout = \"1s\"\n").unwrap();
    expect(&["serve", "--config", file.to_str().unwrap()], 2, "unknown field `client-timout`");
}

#[test]
fn what_cannot_be_opened_ends_with_code_1() {
    let dir = directory();
    let file = dir.path().join("a-file");
    std::fs::write(&file, "").unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let members = format!("1={}", taken.local_addr().unwrap());
    let (file, data) = (file.to_str().unwrap(), dir.path().join("data"));
    expect(&["serve", "--id", "1", "--data", file, "--initial-cluster", &members], 1, "a-file");
    let data = data.to_str().unwrap();
    expect(&["serve", "--id", "1", "--data", data, "--initial-cluster", &members], 1, "cannot listen on");
    expect(&["status", "--connect", "127.0.0.1:1"], 1, "127.0.0.1:1");
    expect(&["inspect", "log", "no-such-directory"], 1, "no-such-directory");
    expect(&["inspect", "checkpoint", "no-such-file"], 1, "no-such-file");
    expect(&["inspect", "checkpoint", file], 1, "a-file is damaged");
}
