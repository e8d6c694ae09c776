//! redis-cli: commands from arguments and from stdin, an interactive session, and the tools of redis-cli.

use super::cluster::Cluster;
use super::tools::{is_there, succeed};
use std::process::Command;

/// Beginnings of the lines in which redis-cli reports an error.
const ERRORS: [&str; 7] = ["ERR ", "(error)", "Error:", "NOPROTO", "EXECABORT", "CLUSTERDOWN", "UNCERTAIN"];

fn cli(cluster: &Cluster, arguments: &str) -> String {
    let mut command = Command::new("redis-cli");
    succeed(command.args(["-p", &cluster.port()]).args(arguments.split_whitespace()), "")
}

#[test]
fn commands_are_answered_as_people_expect() {
    if !is_there("redis-cli", &["--version"]) {
        return;
    }
    let cluster = Cluster::start();
    for (arguments, output) in [
        ("PING", "PONG\n"),
        ("SET a 1", "OK\n"),
        ("-c GET a", "1\n"),
        ("-c SET b 2", "OK\n"),
        ("INCR a", "2\n"),
        ("-3 MGET a none b", "2\n\n2\n"),
        ("-r 3 INCR r", "1\n2\n3\n"),
        ("DBSIZE", "3\n"),
        ("EXISTS a b c", "2\n"),
        ("-3 CONFIG GET appendonly", "appendonly yes\n"),
        ("--no-raw -3 CONFIG GET appendonly", "1# \"appendonly\" => \"yes\"\n"),
        ("--no-raw -3 GET none", "(nil)\n"),
        ("--json MGET a b", "[\"2\",\"2\"]\n"),
        ("--csv MGET a b", "\"2\",\"2\"\n"),
        ("-e TYPE a", "string\n"),
    ] {
        assert_eq!(cli(&cluster, arguments), output, "redis-cli {arguments}");
    }
    assert_eq!(cli(&cluster, "--scan").lines().count(), 3);
    assert_eq!(cli(&cluster, "--scan --pattern [ab]").lines().count(), 2);
    let mut files = Command::new("redis-cli");
    let output = succeed(files.args(["-p", &cluster.port(), "-x", "SET", "file"]), "from stdin");
    assert_eq!(output + &cli(&cluster, "GET file"), "OK\nfrom stdin\n");
}

#[test]
fn scripts_on_stdin_have_no_error_lines() {
    if !is_there("redis-cli", &["--version"]) {
        return;
    }
    let cluster = Cluster::start();
    let script = "SET a 1\nMULTI\nINCR a\nGET a\nEXEC\nINFO\nINFO all\nCOMMAND\nCOMMAND DOCS\nCLIENT LIST\nCONFIG GET *\n\
                  CLUSTER SLOTS\nCLUSTER SHARDS\nCLUSTER NODES\nCLUSTER INFO\nHELLO 3\nCOMMAND DOCS get\nCLUSTER SLOTS\n\
                  CLIENT LIST\nINFO server\nHELLO 2\nOBJECT HELP\nCLIENT HELP\nCLUSTER HELP\nCONFIG HELP\nCOMMAND HELP\n\
                  SESSION HELP\nTIME\nWAIT 1 0\nSET k v EX 100\nTTL k\nSCAN 0\nRANDOMKEY\nRESET\nGET a\nQUIT\n";
    for protocol in ["-2", "-3"] {
        let mut command = Command::new("redis-cli");
        let output = succeed(command.args(["-p", &cluster.port(), protocol]), script);
        let error = output.lines().find(|line| ERRORS.iter().any(|start| line.starts_with(start)));
        assert_eq!(error, None, "{protocol}");
        assert!(output.starts_with("OK\nOK\nQUEUED\nQUEUED\n2\n2\n# Server\r\n"), "{output}");
        assert!(output.ends_with("RESET\n2\n"), "{protocol}: {}", &output[output.len().saturating_sub(200)..]);
    }
    let pipe =
        succeed(Command::new("redis-cli").args(["-p", &cluster.port(), "--pipe"]), &"INCR piped\r\n".repeat(5000));
    assert!(pipe.contains("errors: 0, replies: 5000"), "{pipe}");
    assert_eq!(cli(&cluster, "GET piped"), "5000\n");
}

/// On a terminal, redis-cli first asks for the documentation of all commands, to complete and explain them.
#[test]
fn an_interactive_session_starts_with_help() {
    if !is_there("redis-cli", &["--version"]) || !is_there("script", &["--version"]) {
        return;
    }
    let cluster = Cluster::start();
    for protocol in ["-2", "-3"] {
        let program = format!("redis-cli {protocol} -p {}", cluster.port());
        let mut command = Command::new("script");
        // A dumb terminal: otherwise redis-cli asks the terminal, which is not a real one, for its width.
        command.args(["-qec", &program, "/dev/null"]).env("TERM", "dumb");
        let output = succeed(&mut command, "SET a 1\nGET a\nHELP SETRANGE\nHELP ONCE\nHELP CLUSTER\nQUIT\n");
        for text in ["OK", "\"1\"", "key offset value", "session number command", "CLUSTER KEYSLOT", "group:"] {
            assert!(output.contains(text), "{text} in {output}");
        }
        assert!(!output.contains("ERR"), "{output}");
    }
}

#[test]
fn its_tools_work() {
    if !is_there("redis-cli", &["--version"]) {
        return;
    }
    let cluster = Cluster::start();
    let load: String = (0..500).map(|key| format!("SET key{key} {}\n", "x".repeat(key))).collect();
    succeed(Command::new("redis-cli").args(["-p", &cluster.port()]), &load);
    let address = cluster.nodes[1].to_string();
    for (arguments, wanted) in [
        (format!("--cluster info {address}"), "keys in 3 masters."),
        (format!("--cluster check {address}"), "[OK] All 16384 slots covered."),
        (format!("--cluster call {address} PING"), "PONG"),
        ("--bigkeys".to_owned(), "Biggest string found '\"key499\"' has 499 bytes"),
        ("--latency -i 1 --raw".to_owned(), " "),
    ] {
        let output = cli(&cluster, &arguments);
        assert!(output.contains(wanted), "{arguments}: {output}");
        assert!(!output.contains("[ERR]") && !output.contains("ERR "), "{arguments}: {output}");
    }
}
