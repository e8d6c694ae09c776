//! Sweeps whose clusters are shell scripts that print `ready`, while the load goes to a fake server.

use super::*;
use crate::loadgen::bench::fake::{Answer, FakeServer};
use clap::{Args, FromArgMatches};
use std::sync::Arc;

fn args(flags: &str) -> SweepArgs {
    let command = SweepArgs::augment_args(clap::Command::new("sweep").no_binary_name(true));
    SweepArgs::from_arg_matches(&command.try_get_matches_from(flags.split_whitespace()).unwrap()).unwrap()
}

fn script(text: String) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(text);
    command
}

/// A script in place of a cluster: it creates its folder, prints `ready`, and appends `groups` to `journal` on SIGTERM.
fn cluster(server: &FakeServer, groups: u32, dir: &Path, journal: &Path) -> Command {
    let (dir, journal, address) = (dir.display(), journal.display(), server.address);
    let end = format!("trap 'echo {groups} >>{journal}; exit' TERM");
    script(format!(
        "{end}; mkdir {dir}; echo some log >&2; echo ready {address} {address}; while :; do sleep 0.01; done"
    ))
}

fn entries(dir: &Path) -> Vec<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn every_number_of_groups_gets_a_cluster_of_its_own_and_nothing_stays() {
    let parent = tempfile::tempdir().unwrap();
    let journal = parent.path().join("journal");
    let server = FakeServer::start(|_, _| Answer::ok());
    let stop = AtomicBool::new(false);
    let sweep = sweep(&args("--groups 4,1,2 --requests 100"), parent.path(), &stop, |groups, dir| {
        assert!(!dir.exists() && dir.ends_with(groups.to_string()));
        cluster(&server, groups, dir, &journal)
    });
    let sweep = sweep.unwrap();
    assert_eq!(
        sweep.runs.iter().map(|run| (run.groups, run.report.requests)).collect::<Vec<_>>(),
        [(4, 100), (1, 100), (2, 100)]
    );
    assert_eq!(fs::read_to_string(&journal).unwrap(), "4\n1\n2\n");
    assert_eq!(entries(parent.path()), ["journal"]);

    let lines = sweep.to_string();
    assert_eq!(lines.lines().count(), 2 + 1 + 3, "{lines}");
    let svg = picture::of_sweep(&sweep);
    assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n") && !svg.contains("NaN"), "{svg}");
    let json = serde_json::to_value(&sweep).unwrap();
    assert_eq!(json["runs"][1]["report"]["latency"]["count"], 100);
}

#[test]
fn a_cluster_that_does_not_start_is_told_with_its_last_words() {
    let parent = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(false);
    let failed = sweep(&args("--groups 2"), parent.path(), &stop, |_, _| {
        script("echo first >&2; echo 'no room on the disk' >&2; exit 1".into())
    });
    let error = format!("{:#}", failed.unwrap_err());
    assert_eq!(error, "the cluster of 2 groups did not start: it ended too early: no room on the disk");
    assert!(entries(parent.path()).is_empty());
}

#[test]
fn a_stop_keeps_what_was_measured_and_cleans_up() {
    let parent = tempfile::tempdir().unwrap();
    let journal = parent.path().join("journal");
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&stop);
    let server = FakeServer::start(move |_, number| {
        asked.store(number > 150, Ordering::SeqCst);
        Answer::ok()
    });
    let sweep = sweep(&args("--groups 1,2,4 --requests 100"), parent.path(), &stop, |groups, dir| {
        cluster(&server, groups, dir, &journal)
    });
    assert_eq!(sweep.unwrap().runs.iter().map(|run| run.groups).collect::<Vec<_>>(), [1]);
    assert_eq!(fs::read_to_string(&journal).unwrap(), "1\n2\n");
    assert_eq!(entries(parent.path()), ["journal"]);
}

#[test]
fn a_stop_while_a_cluster_starts_ends_it() {
    let parent = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(true);
    let stopped = sweep(&args("--groups 1"), parent.path(), &stop, |_, _| script("exec sleep 600".into()));
    assert!(stopped.unwrap_err().to_string().contains("stopped before"));
    assert!(entries(parent.path()).is_empty());
}
