//! redis-benchmark: plain, pipelined and as a cluster client, without an error or a warning.

use super::cluster::Cluster;
use super::tools::{is_there, succeed};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn it_runs_without_an_error_line() {
    if !is_there("redis-benchmark", &["--version"]) {
        return;
    }
    let cluster = Cluster::start();
    for (arguments, tests) in [
        ("-t ping,set,get,incr,mset -n 2000", 6),
        ("-t ping,set,get,incr,mset -n 20000 -P 32 -r 1000 -d 64", 6),
        ("-t ping,set,get,incr -n 5000 -P 32 -c 10 -3", 5),
        ("--cluster -t ping,set,get,incr -n 4000 -r 1000", 5),
        ("--cluster -t set,get,mset -n 10000 -r 1000 -P 16", 3),
        ("-n 1000 APPEND key:__rand_int__ x", 1),
    ] {
        if arguments.starts_with("--cluster") {
            expect_three_leaders(&cluster);
        }
        let mut command = Command::new("redis-benchmark");
        let output = succeed(command.args(["-p", &cluster.port(), "-q"]).args(arguments.split(' ')), "");
        let lines: Vec<&str> = output.split(['\r', '\n']).map(str::trim).collect();
        let bad = |line: &&&str| {
            let line = line.to_lowercase();
            ["err", "warn", "fail", "could not", "closed"].iter().any(|word| line.contains(word))
        };
        assert_eq!(lines.iter().find(bad), None, "redis-benchmark {arguments}: {output}");
        let results = lines.iter().filter(|line| line.contains(" requests per second")).count();
        assert_eq!(results, tests, "redis-benchmark {arguments}: {output}");
    }
}

/// Waits until each of the three nodes leads a group, because redis-benchmark warns of a node that leads none.
/// On a busy machine the other nodes may lead a node's groups at first. They give the groups back when the
/// node has been healthy for 10 s.
fn expect_three_leaders(cluster: &Cluster) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let nodes = succeed(Command::new("redis-cli").args(["-p", &cluster.port(), "cluster", "nodes"]), "");
        // Each line has eight words. Only the line of a node that leads a group has slots behind them.
        if nodes.lines().filter(|line| line.split_whitespace().count() > 8).count() == 3 {
            return;
        }
        assert!(Instant::now() < deadline, "a node leads nothing: {nodes}");
        thread::sleep(Duration::from_millis(100));
    }
}
