//! House rules that no linter knows: sizes of files and lines, and what may not appear where.

use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 600;
/// A little more than the formatter allows itself; lines with a string it cannot break.
const LINE_CHARS_MAX: usize = 125;
/// Tables with one row a line.
const WIDE_FILES: [&str; 1] = ["src/kv/rows.rs"];
/// In `groups`: what would make it impure.
const IMPURE: [&str; 7] =
    ["std::net", "std::fs", "std::thread", "Instant::now", "SystemTime", "RandomState", " rand::"];
/// In the pure part of the server: the same, but for addresses.
const IMPURE_NODE: [&str; 6] = ["std::fs", "std::thread", "Instant::now", "SystemTime", "RandomState", " rand::"];
const PURE_PATHS: [&str; 6] = ["src/node/", "src/shard.rs", "src/gate.rs", "src/kv/", "src/admin/", "src/routing.rs"];

fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "groups", "net", "tests", "benches"] {
        collect(&root.join(folder), &mut files);
    }
    let named = |path: PathBuf| {
        let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        (name, std::fs::read_to_string(&path).unwrap())
    };
    files.into_iter().map(named).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_none_or(|name| name != "target") {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Every finding at once, so that one run is enough to mend them.
fn expect_none(findings: &[String]) {
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}

#[test]
fn files_and_lines_are_short() {
    let mut findings = Vec::new();
    for (name, text) in sources() {
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            findings.push(format!("{name} has {lines} lines: is it two things?"));
        }
        if WIDE_FILES.contains(&name.as_str()) {
            continue;
        }
        let long =
            text.lines().enumerate().filter(|(_, line)| line.chars().count() > LINE_CHARS_MAX && !line.contains('"'));
        findings.extend(long.map(|(number, _)| format!("{name}:{} is longer than {LINE_CHARS_MAX}", number + 1)));
    }
    expect_none(&findings);
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent = sources().into_iter().filter(|(_, text)| !text.starts_with("//!"));
    expect_none(&silent.map(|(name, _)| format!("{name} does not open with //!")).collect::<Vec<_>>());
}

#[test]
fn pure_code_stays_pure() {
    let mut findings = Vec::new();
    for (name, text) in sources() {
        let banned: &[&str] = match &name {
            name if name.starts_with("groups/src/") => &IMPURE,
            name if PURE_PATHS.iter().any(|pure| name.starts_with(pure)) => &IMPURE_NODE,
            _ => continue,
        };
        findings.extend(banned.iter().filter(|word| text.contains(**word)).map(|word| format!("{name} uses {word}")));
    }
    expect_none(&findings);
}

#[test]
fn names_and_markers() {
    let words = ["pub fn get_", "struct Manager", "XXX", "FIXME", "HACK", "#[ignore"];
    let mut findings = Vec::new();
    for (name, text) in sources().into_iter().filter(|(name, _)| name != "tests/tidy.rs") {
        findings.extend(words.iter().filter(|word| text.contains(**word)).map(|word| format!("{name} has {word}")));
    }
    expect_none(&findings);
}
