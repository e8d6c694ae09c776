//! Input of an operator: a configuration file, a list of members, a duration. Wrong input causes an error of one line,
//! never a panic.

use paxoi::cmd::serve::parse_file;
use paxoi::duration;
use paxoi::server::parse_members;

/// Parses the input as a file, as a list of members and as a duration, with invalid UTF-8 replaced.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Err(reason) = parse_file(&text) {
        assert!(reason.starts_with("line "), "no line number: {reason:?}");
        expect_line(&reason);
    }
    // Lists and durations come from flags and TOML strings. A message may repeat its input, so the input is one line.
    let line = text.lines().next().unwrap_or("");
    match parse_members(line) {
        Ok(members) => assert!(!members.is_empty() && members.iter().all(|(id, _)| id.0 > 0), "members {members:?}"),
        Err(reason) => expect_line(&reason),
    }
    match duration::parse(line) {
        Ok(time) => assert!(!time.is_zero(), "{line:?} is no time at all"),
        Err(reason) => expect_line(&reason.to_string()),
    }
}

fn expect_line(reason: &str) {
    assert!(!reason.is_empty() && !reason.contains('\n'), "not one line: {reason:?}");
}
