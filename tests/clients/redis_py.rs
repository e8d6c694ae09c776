//! redis-py, run by a script: its default pipelines, its cluster client, and all replies that it parses.

use super::cluster::Cluster;
use super::tools;
use std::process::Command;

/// The Python that Debian's redis-py package is made for; `PAXOI_PYTHON` names another one.
const PYTHON: &str = "/usr/bin/python3";

#[test]
fn redis_py_understands_every_reply() {
    let python = std::env::var("PAXOI_PYTHON").unwrap_or_else(|_| PYTHON.to_owned());
    if !tools::is_there(&python, &["-c", "import redis"]) {
        return;
    }
    let cluster = Cluster::start();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/redis_py.py");
    let ports = cluster.nodes.iter().map(|node| node.port().to_string());
    let output = tools::succeed(Command::new(python).args(["-W", "ignore", script]).args(ports), "");
    assert!(output.ends_with("all replies understood\n"), "{output}");
}
