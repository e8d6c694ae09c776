//! `paxoi status`: one table of a cluster, gathered from its nodes over the port that clients use.
//!
//! The tool asks the given node for CLUSTER NODES, and each node found there for INFO, which also shows whether the
//! expected node answers. Any Redis client can send the same commands and get everything that the tool prints. The
//! answers are from different moments: under load, a lag of a few instances may only come from the time between two
//! questions.

use crate::admin::info::human;
use crate::config::CLOCK_WARN_MS;
use crate::duration;
use crate::duration::ClockLead;
use crate::nodes::{Answer, Ask, Node, ask, field, look, number};
use crate::plural::plural;
use anyhow::{Context, anyhow};
use comfy_table::{CellAlignment, Table, presets};
use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Arguments of `paxoi status`.
#[derive(Clone, Debug, clap::Args)]
pub struct StatusArgs {
    /// Any node of the cluster
    #[arg(long, value_name = "HOST:PORT")]
    pub connect: String,
    /// Wait until every node is up with all its data and every group has a leader; fail after this time [default: 60s]
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "60s", value_parser = duration::parse)]
    pub wait: Option<Duration>,
}

/// Interval between polls of the cluster with `--wait`.
const LOOK: Duration = Duration::from_millis(200);

/// Gathers the status of the cluster and prints it to stdout.
///
/// # Errors
/// If the node to connect to does not answer, or is not a Paxoi node. Other nodes that do not answer are shown as down.
/// With `--wait`, if the cluster is not ready in time.
pub fn run(args: &StatusArgs) -> anyhow::Result<()> {
    let deadline = args.wait.map(|patience| Instant::now() + patience);
    loop {
        let gathered = gather(&args.connect, &mut ask);
        let unready = match &gathered {
            Ok(status) => status.unready(),
            Err(error) => Some(format!("{error:#}")),
        };
        if let (Some(_), Some(deadline)) = (&unready, deadline)
            && Instant::now() < deadline
        {
            sleep(LOOK);
            continue;
        }
        let text = gathered?.render();
        io::stdout().lock().write_all(text.as_bytes()).context("cannot write to stdout")?;
        return match (unready, args.wait) {
            (Some(reason), Some(patience)) => Err(anyhow!("not ready after {patience:?}: {reason}")),
            _ => Ok(()),
        };
    }
}

/// The answers of a cluster's nodes.
#[derive(Debug)]
struct Status {
    /// INFO of the node that was asked first.
    first_info: String,
    rows: Vec<Row>,
}

/// One node and its answer.
#[derive(Debug)]
struct Row {
    node: Node,
    answer: Answer,
}

/// The state of a node, as seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Up,
    Loading,
    /// The log cannot make another segment.
    DiskFull,
    /// A sync takes too long.
    DiskSlow,
    /// The node that was asked reaches it, but this tool does not.
    Unreachable,
    Down,
}

fn gather(address: &str, ask: &mut Ask<'_>) -> anyhow::Result<Status> {
    let known = look(address, ask).with_context(|| format!("no status from {address}"))?;
    let mut rows = Vec::new();
    for node in &known.nodes {
        let answer = known.info_of(node, ask);
        rows.push(Row { node: node.clone(), answer });
    }
    rows.sort_unstable_by_key(|row| row.node.id);
    Ok(Status { first_info: known.info, rows })
}

impl Status {
    /// Returns the reason why the cluster is not ready: a node does not answer, is loading, knows no leader of a group,
    /// lags in a group, or lacks a part of a group.
    fn unready(&self) -> Option<String> {
        self.rows.iter().find_map(|row| {
            let id = row.node.id;
            let Some(info) = row.info() else {
                return Some(format!("node {id} at {} does not answer", row.node.address()));
            };
            if number(info, "loading") > 0 {
                return Some(format!("node {id} is loading"));
            }
            let lacks = [
                ("groups_leaderless", "knows no leader of"),
                ("groups_behind", "is behind in"),
                ("groups_not_whole", "lacks a part of"),
            ];
            let (name, what) = lacks.into_iter().find(|(name, _)| number(info, name) > 0)?;
            let count = number(info, name);
            Some(format!("node {id} {what} {count} group{}", plural(count)))
        })
    }

    fn render(&self) -> String {
        let groups = number(&self.first_info, "groups");
        let applied = self.rows.iter().filter_map(|row| row.info()).map(|info| number(info, "applied_total"));
        let applied_max = applied.max().unwrap_or(0);
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["node", "address", "state", "role", "leads", "behind", "lag", "log", "saved", "up", "slots"]);
        for row in &self.rows {
            table.add_row(row.cells(groups, applied_max));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
            if (4..10).contains(&column.index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let mut text = table.trim_fmt();
        text.push_str("\n\n");
        let leaderless = number(&self.first_info, "groups_leaderless");
        let count = |state: State| self.rows.iter().filter(|row| row.state() == state).count();
        let (nodes, down) = (self.rows.len(), count(State::Down));
        let up = self.rows.iter().filter(|row| row.info().is_some()).count();
        let unreachable = match count(State::Unreachable) {
            0 => String::new(),
            some => format!(", {some} unreachable from here"),
        };
        let _ = writeln!(
            text,
            "{groups} group{}: {} led, {leaderless} without a leader; {nodes} node{}: {up} up, {down} down{unreachable}; \
             {applied_max} instance{} applied",
            plural(groups),
            groups.saturating_sub(leaderless),
            plural(nodes as u64),
            plural(applied_max),
        );
        for row in &self.rows {
            if let Answer::None(reason) = &row.answer {
                let _ = writeln!(text, "node {}: {reason}", row.node.id);
            }
        }
        self.rows.iter().filter_map(Row::disk_warning).for_each(|warning| text.push_str(&warning));
        self.rows.iter().filter_map(Row::clock_warning).for_each(|warning| text.push_str(&warning));
        if leaderless > 0 {
            let me = field(&self.first_info, "node_id").unwrap_or("?");
            let _ = writeln!(text, "the slots of groups without a leader are shown at node {me}, which was asked");
        }
        text
    }
}

impl Row {
    /// Returns its INFO, if it answered.
    fn info(&self) -> Option<&str> {
        match &self.answer {
            Answer::Itself(info) => Some(info),
            Answer::None(_) => None,
        }
    }

    /// Returns a line that says what a node with a full disk does; `None` if the disk has another state.
    fn disk_warning(&self) -> Option<String> {
        let (id, info) = (self.node.id, self.info().filter(|_| self.state() == State::DiskFull)?);
        Some(match number(info, "relays_to") {
            0 => format!("the disk of node {id} is full: it refuses commands that may add data\n"),
            to => format!(
                "the disk of node {id} is full: it logs no new values, and node {to} executes its clients' commands\n"
            ),
        })
    }

    /// Returns a line about a wrong clock of the node, or about groups whose time is ahead.
    fn clock_warning(&self) -> Option<String> {
        let (id, info) = (self.node.id, self.info()?);
        let ahead_ms: i64 = field(info, "clock_ahead_ms").and_then(|text| text.parse().ok()).unwrap_or(0);
        if ahead_ms.unsigned_abs() > CLOCK_WARN_MS.0 {
            return Some(format!("the clock of node {id} is {} cluster time: set it right\n", ClockLead(ahead_ms)));
        }
        let groups_ms = number(info, "groups_ahead_ms");
        let lead = ClockLead(i64::try_from(groups_ms).unwrap_or(i64::MAX));
        (groups_ms > CLOCK_WARN_MS.0)
            .then(|| format!("at node {id} the time of some groups is up to {lead} cluster time\n"))
    }

    fn state(&self) -> State {
        let disk = self.info().and_then(|info| field(info, "disk"));
        match self.info() {
            Some(info) if number(info, "loading") > 0 => State::Loading,
            Some(_) if disk == Some("full") => State::DiskFull,
            Some(_) if disk == Some("slow") => State::DiskSlow,
            Some(_) => State::Up,
            None if self.node.failed => State::Down,
            None => State::Unreachable,
        }
    }

    fn cells(&self, groups: u64, applied_max: u64) -> Vec<String> {
        let none = || "-".to_owned();
        let mut cells = vec![self.node.id.to_string(), self.node.address().to_owned(), self.state().to_string()];
        if let Some(info) = self.info() {
            let led = number(info, "groups_led");
            cells.push(if led > 0 { "leader" } else { "follower" }.to_owned());
            cells.push(format!("{led} of {groups}"));
            cells.push(number(info, "groups_behind").to_string());
            cells.push(applied_max.saturating_sub(number(info, "applied_total")).to_string());
            cells.push(human(number(info, "log_bytes")));
            cells.push(human(number(info, "checkpoint_bytes")));
            cells.push(age(number(info, "uptime_in_seconds")));
        } else {
            cells.extend(std::iter::repeat_with(none).take(7));
        }
        cells.push(if self.node.slots.is_empty() { none() } else { self.node.slots.clone() });
        cells
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Up => "up",
            State::Loading => "loading",
            State::DiskFull => "disk full",
            State::DiskSlow => "disk slow",
            State::Unreachable => "unreachable",
            State::Down => "down",
        })
    }
}

/// Formats seconds in the largest unit that is not 0, rounded down.
fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::info::tests::example;

    const NODES: &str = "1111 10.0.0.1:7001@7001,one myself,master - 0 0 1 connected 0-5460 16383\n\
                         3333 10.0.0.3:7003@7003,three master,fail - 0 0 3 disconnected\n\
                         4444 10.0.0.4:7004@7004,four master - 0 0 4 connected\n\
                         2222 10.0.0.2:7002@7002,two master - 0 0 2 connected 5461-16382\n";

    /// Answers for a cluster of four nodes. The second is ahead of the first and only found by its IP address. The
    /// first answers at the address of the third, which is dead. The fourth does not answer here.
    fn cluster(address: &str, commands: &[&[&[u8]]]) -> io::Result<Vec<String>> {
        let second = || {
            let info = example("INFO").replace("groups_led:10", "groups_led:5").replace("node_id:1", "node_id:2");
            info.replace("applied_total:100", "applied_total:103").replace("loading:0", "loading:1")
        };
        let answer = |command: &&[&[u8]]| match (address, *command) {
            ("localhost:7001" | "three:7003", [b"INFO"]) => Ok(example("INFO")),
            ("localhost:7001", [b"CLUSTER", b"NODES"]) => Ok(NODES.to_owned()),
            ("10.0.0.2:7002", [b"INFO"]) => Ok(second()),
            _ => Err(io::Error::other("refused")),
        };
        commands.iter().map(answer).collect()
    }

    #[test]
    fn the_table_shows_every_node_and_which_node_answers_at_its_address() {
        let status = gather("localhost:7001", &mut cluster).expect("it answers");
        let expected = "\
node  address     state        role       leads  behind  lag      log  saved  up  slots
1     one:7001    up           leader  10 of 16       0    3  128.00M     0B  1d  0-5460 16383
2     two:7002    loading      leader   5 of 16       0    0  128.00M     0B  1d  5461-16382
3     three:7003  down         -              -       -    -        -      -   -  -
4     four:7004   unreachable  -              -       -    -        -      -   -  -

16 groups: 15 led, 1 without a leader; 4 nodes: 2 up, 1 down, 1 unreachable from here; 103 instances applied
node 3: node 1 answers at three:7003; refused at 10.0.0.3:7003
node 4: refused at four:7004; refused at 10.0.0.4:7004
the slots of groups without a leader are shown at node 1, which was asked
";
        assert_eq!(status.render(), expected);
    }

    #[test]
    fn clocks_that_differ_are_told() {
        let told = |field: &str| {
            let name = field.split(':').next().unwrap_or_default();
            let mut ask = |address: &str, commands: &[&[&[u8]]]| {
                let wrong = |text: String| text.replace(&format!("{name}:0"), field);
                let answers = cluster(address, commands)?.into_iter();
                Ok(if address == "10.0.0.2:7002" { answers.map(wrong).collect() } else { answers.collect() })
            };
            gather("localhost:7001", &mut ask).expect("it answers").render()
        };
        let text = told("clock_ahead_ms:-28800000");
        assert!(text.contains("the clock of node 2 is 28800.0 s behind cluster time: set it right\n"), "{text}");
        let text = told("groups_ahead_ms:12119000");
        let expected = "at node 2 the time of some groups is up to 12119.0 s ahead of cluster time\n";
        assert!(text.contains(expected) && !told("groups_ahead_ms:1000").contains("ahead of"), "{text}");
    }

    #[test]
    fn full_disks_are_told() {
        let told = |relays_to: &str| {
            let mut ask = |address: &str, commands: &[&[&[u8]]]| {
                let full = |text: String| {
                    let text = text.replace("loading:1", "loading:0").replace("disk:ok", "disk:full");
                    text.replace("relays_to:0", relays_to)
                };
                let answers = cluster(address, commands)?.into_iter();
                Ok(if address == "10.0.0.2:7002" { answers.map(full).collect() } else { answers.collect() })
            };
            gather("localhost:7001", &mut ask).expect("it answers").render()
        };
        let text = told("relays_to:1");
        assert!(text.contains("2     two:7002    disk full    leader"), "{text}");
        assert!(text.contains("the disk of node 2 is full: it logs no new values, and node 1 executes"), "{text}");
        assert!(told("relays_to:0").contains("the disk of node 2 is full: it refuses commands that may add data\n"));
    }

    #[test]
    fn the_reason_for_waiting_is_named() {
        let unready = |before: &str, after: &str| {
            let nodes = NODES.lines().filter(|line| !line.starts_with('3') && !line.starts_with('4'));
            let nodes = nodes.map(|line| format!("{line}\n")).collect::<String>();
            let mut ask = |address: &str, commands: &[&[&[u8]]]| {
                let healthy = |text: String| {
                    let text = text.replace("leaderless:1", "leaderless:0").replace("loading:1", "loading:0");
                    if text.contains("node_id:2") { text.replace(before, after) } else { text.replace(NODES, &nodes) }
                };
                Ok(cluster(address, commands)?.into_iter().map(healthy).collect())
            };
            gather("localhost:7001", &mut ask).expect("it answers").unready().unwrap_or_default()
        };
        for (before, after, told) in [
            ("", "", ""),
            ("node_id:2", "node_id:7", "node 2 at two:7002 does not answer"),
            ("\nloading:0", "\nloading:1", "node 2 is loading"),
            ("groups_behind:0", "groups_behind:1", "node 2 is behind in 1 group"),
            ("groups_leaderless:0", "groups_leaderless:2", "node 2 knows no leader of 2 groups"),
            ("groups_not_whole:0", "groups_not_whole:1", "node 2 lacks a part of 1 group"),
            ("async_loading:0", "async_loading:1", ""),
        ] {
            assert_eq!(unready(before, after), told, "{before}");
        }
    }

    fn refused(address: &str, answer: impl Fn(&[&[u8]]) -> io::Result<String>) -> String {
        let mut ask = |_: &str, commands: &[&[&[u8]]]| commands.iter().map(|command| answer(command)).collect();
        format!("{:#}", gather(address, &mut ask).expect_err("nothing to show"))
    }

    #[test]
    fn a_node_that_does_not_answer_is_one_line() {
        let text = refused("localhost:1", |_| Err(io::Error::other("connection refused")));
        assert_eq!(text, "no status from localhost:1: connection refused; is a node running there?");
    }

    #[test]
    fn another_server_is_told_apart() {
        let text = refused("localhost:6379", |_| Ok("# Server\r\nredis_version:7.0.15\r\n".to_owned()));
        assert_eq!(
            text,
            "no status from localhost:6379: localhost:6379 is not a Paxoi node: its INFO has no Paxos section"
        );
    }

    #[test]
    fn malformed_lines_of_cluster_nodes_are_refused() {
        for line in ["nonsense", "id host:1@1 master - 0 0 x connected", "id \x1b[2J:1@1 master - 0 0 1 connected"] {
            let text = refused("localhost:1", |command| {
                Ok(if command.len() == 1 { example("INFO") } else { line.to_owned() })
            });
            let expected = "no status from localhost:1: localhost:1 sent a malformed line in CLUSTER NODES";
            assert_eq!(text, expected, "{line:?}");
        }
    }

    #[test]
    fn ages_have_one_unit() {
        assert_eq!([59, 60, 7199, 86_400, 864_000].map(age), ["59s", "1m", "1h", "1d", "10d"]);
    }
}
