//! House rules that no linter knows: sizes of files and lines, banned words, and the imports allowed between modules.

use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 600;
/// Maximum lines of the node's router.
const ROUTER_LINES_MAX: usize = 500;
/// Maximum characters of a line: a little more than the formatter allows itself. Lines with a string, which it cannot
/// break, are exempt.
const LINE_CHARS_MAX: usize = 125;
/// Words banned in `groups`, because they would make it impure.
const IMPURE: [&str; 7] =
    ["std::net", "std::fs", "std::thread", "Instant::now", "SystemTime", "RandomState", " rand::"];
/// Words banned in the pure part of the server: those of [`IMPURE`] without `std::net`, whose address types it needs.
const IMPURE_NODE: [&str; 6] = ["std::fs", "std::thread", "Instant::now", "SystemTime", "RandomState", " rand::"];
const PURE_PATHS: [&str; 7] =
    ["src/node/", "src/shard.rs", "src/shard/", "src/gate.rs", "src/kv/", "src/admin/", "src/routing.rs"];

/// The rooms (top-level modules) of the server, each with the rooms that it may import. A room may import only rooms
/// that stand above it in this table, so there is no cycle among them. `lib` and `main`, which hold the rooms together,
/// may import all.
const LAYERS: [(&str, &[&str]); 29] = [
    ("background", &[]),
    ("descriptors", &[]),
    ("duration", &[]),
    ("endpoint", &[]),
    ("logging", &[]),
    ("plural", &[]),
    ("resolver", &[]),
    ("rng", &[]),
    ("routing", &[]),
    ("size", &[]),
    ("usage", &[]),
    ("versions", &[]),
    ("workers", &[]),
    ("client", &["resolver"]),
    ("kv", &["rng", "routing"]),
    ("config", &["kv", "routing", "versions", "workers"]),
    ("storage", &["config", "kv", "plural", "routing", "workers"]),
    ("gate", &["storage"]),
    ("identity", &["kv", "storage"]),
    ("shard", &["kv", "storage"]),
    ("recovery", &["background", "config", "kv", "routing", "shard", "storage", "workers"]),
    ("admin", &["endpoint", "kv", "routing", "size"]),
    (
        "node",
        &[
            "admin", "config", "duration", "endpoint", "gate", "identity", "kv", "plural", "recovery", "routing",
            "shard", "storage", "versions", "workers",
        ],
    ),
    (
        "server",
        &[
            "background",
            "config",
            "descriptors",
            "endpoint",
            "identity",
            "node",
            "plural",
            "recovery",
            "resolver",
            "shard",
            "storage",
            "workers",
        ],
    ),
    ("verify", &["rng"]),
    ("nodes", &["admin", "client", "endpoint", "kv", "resolver"]),
    ("loadgen", &["client", "duration", "nodes", "rng", "routing", "verify"]),
    (
        "backup",
        &[
            "client",
            "config",
            "descriptors",
            "duration",
            "identity",
            "kv",
            "loadgen",
            "node",
            "nodes",
            "plural",
            "recovery",
            "shard",
            "storage",
            "usage",
            "versions",
            "workers",
        ],
    ),
    (
        "cmd",
        &[
            "admin", "backup", "client", "config", "duration", "endpoint", "identity", "loadgen", "logging", "nodes",
            "plural", "resolver", "server", "size", "storage", "usage", "versions", "workers",
        ],
    ),
];

/// The components of the node, each with the modules of the node that it may name, besides types of the node itself
/// such as `Time`.
const COMPONENTS: [(&str, &[&str]); 7] = [
    ("clients", &["connection_table", "facts", "ticket"]),
    ("cluster", &["cluster_time", "crew", "engine", "links", "output", "peers", "ticket", "wire", "ports"]),
    ("crew", &["clients", "cluster", "facts", "output", "peers", "ticket"]),
    ("engine", &["ticket", "wire"]),
    ("links", &["output", "peers", "connection_table", "wire"]),
    ("peers", &["wire"]),
    ("upkeep", &["crew", "engine", "output", "wire", "ports"]),
];

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

/// Checks that there are no findings. Shows all at once, so that one run is enough to mend them.
fn expect_none(findings: &[String]) {
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}

#[test]
fn files_and_lines_are_short() {
    let mut findings = Vec::new();
    for (name, text) in sources() {
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            findings.push(format!("{name} has {lines} lines, more than {FILE_LINES_MAX}: split it"));
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

/// Returns the room of a file of the server; `None` for `lib` and `main`, which hold the rooms together.
fn room(file: &str) -> Option<&str> {
    let path = file.strip_prefix("src/")?;
    let room = path.split('/').next()?.trim_end_matches(".rs");
    (room != "lib" && room != "main").then_some(room)
}

#[test]
fn rooms_import_only_what_stands_above_them() {
    let place = |room: &str| LAYERS.iter().position(|(name, _)| *name == room);
    let (mut findings, mut used) = (Vec::new(), Vec::new());
    for (name, text) in sources() {
        let Some(from) = room(&name) else { continue };
        if text.contains("crate::{") {
            findings.push(format!("{name} imports several rooms in one line, which this test does not read"));
        }
        let Some(at) = place(from) else {
            findings.push(format!("{name}: the room {from} is missing in the table"));
            continue;
        };
        for to in lowercase_after(&text, "crate::").into_iter().filter(|to| *to != from) {
            if !LAYERS[at].1.contains(&to) {
                findings.push(format!("{name}: {from} may not import {to}"));
            }
            used.push((from.to_owned(), to.to_owned()));
        }
    }
    for (at, (from, allowed)) in LAYERS.iter().enumerate() {
        for to in *allowed {
            if place(to).is_none_or(|place| place >= at) {
                findings.push(format!("{to} does not stand above {from} in the table"));
            }
            if !used.iter().any(|(user, room)| user == from && room == to) {
                findings.push(format!("{from} does not import {to}: remove {to} from the table"));
            }
        }
    }
    expect_none(&findings);
}

#[test]
fn components_of_the_node_know_of_each_other_only_what_the_table_allows() {
    let mut findings = Vec::new();
    let sources = sources();
    for (component, allowed) in COMPONENTS {
        let folder = format!("src/node/{component}/");
        let mut named = Vec::new();
        // Tests are exempt: they make the surroundings of a component themselves.
        let of_component = |name: &str| name.starts_with(&folder) && !name.ends_with("/tests.rs");
        for (name, text) in sources.iter().filter(|(name, _)| of_component(name)) {
            let own_file = |other: &str| format!("{folder}{other}.rs");
            let above = if *name == format!("{folder}mod.rs") { "use super::" } else { "use super::super::" };
            for other in ["crate::node::", above].iter().flat_map(|start| lowercase_after(text, start)) {
                let is_own = other == component || sources.iter().any(|(name, _)| *name == own_file(other));
                if !is_own && !allowed.contains(&other) {
                    findings.push(format!("{name}: {component} may not know {other}"));
                }
                named.push(other.to_owned());
            }
        }
        let idle = allowed.iter().filter(|other| !named.iter().any(|name| name == *other));
        findings.extend(idle.map(|other| format!("{component} does not know {other}: remove {other} from the table")));
    }
    expect_none(&findings);
}

#[test]
fn the_node_itself_is_a_router_and_nothing_else() {
    let (mut findings, router) = (Vec::new(), "src/node/mod.rs");
    for (name, text) in sources().into_iter().filter(|(name, _)| name.starts_with("src/node/")) {
        if name == router && text.lines().count() > ROUTER_LINES_MAX {
            findings.push(format!("{name} has more than {ROUTER_LINES_MAX} lines: move out what is not routing"));
        }
        if name != router && text.contains("impl Node ") {
            findings.push(format!("{name} has an impl of the node: only {router} may"));
        }
    }
    expect_none(&findings);
}

/// Returns the names of modules that follow `start` in a text.
fn lowercase_after<'t>(text: &'t str, start: &str) -> Vec<&'t str> {
    let name = |rest: &'t str| {
        let end = rest.find(|c: char| !(c.is_ascii_lowercase() || c == '_')).unwrap_or(rest.len());
        &rest[..end]
    };
    text.split(start).skip(1).map(name).filter(|name| !name.is_empty()).collect()
}
