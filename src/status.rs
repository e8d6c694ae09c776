//! `paxoi status`: one table of a cluster, gathered from its nodes over the port that clients use.
//!
//! It asks the node it is given for CLUSTER NODES, and each node found there for INFO, which also tells whether it is that
//! node that answers. So whatever it prints, any Redis client could have asked for. The answers are not of one moment: under
//! load a lag of a few instances is the time that passed between two questions.

use crate::admin::info::human;
use crate::config::CLOCK_WARN_MS;
use crate::nodes::{Answer, Ask, Node, ask, field, look, number};
use anyhow::Context;
use comfy_table::{CellAlignment, Table, presets};
use std::fmt::{self, Write as _};
use std::io::{self, Write as _};

/// What to show the status of.
#[derive(Clone, Debug, clap::Args)]
pub struct StatusArgs {
    /// Any node of the cluster
    #[arg(long, value_name = "HOST:PORT")]
    pub connect: String,
}

/// Gathers the status of the cluster and prints it to stdout.
///
/// # Errors
/// If the node to connect to does not answer, or is none of Paxoi's. Other nodes that do not answer are shown as down.
pub fn run(args: &StatusArgs) -> anyhow::Result<()> {
    let text = gather(&args.connect, &mut ask)?.render();
    io::stdout().lock().write_all(text.as_bytes()).context("cannot write to stdout")
}

/// A cluster, as far as it answered.
#[derive(Debug)]
struct Status {
    /// INFO of the node that was asked first.
    asked: String,
    rows: Vec<Row>,
}

/// One node, and what it says of itself.
#[derive(Debug)]
struct Row {
    node: Node,
    answer: Answer,
}

/// How a node looks from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Up,
    Loading,
    /// The node that was asked reaches it, this tool does not.
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
    Ok(Status { asked: known.info, rows })
}

impl Status {
    fn render(&self) -> String {
        let groups = number(&self.asked, "groups");
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
        let leaderless = number(&self.asked, "groups_leaderless");
        let count = |state: State| self.rows.iter().filter(|row| row.state() == state).count();
        let (up, down) = (count(State::Up) + count(State::Loading), count(State::Down));
        let unreachable = match count(State::Unreachable) {
            0 => String::new(),
            some => format!(", {some} unreachable from here"),
        };
        let _ = writeln!(
            text,
            "{groups} groups: {} led, {leaderless} without a leader; {} nodes: {up} up, {down} down{unreachable}; {} \
             instances applied",
            groups.saturating_sub(leaderless),
            self.rows.len(),
            applied_max,
        );
        for row in &self.rows {
            if let Answer::None(reason) = &row.answer {
                let _ = writeln!(text, "node {}: {reason}", row.node.id);
            }
        }
        self.rows.iter().filter_map(Row::clock_warning).for_each(|warning| text.push_str(&warning));
        if leaderless > 0 {
            let me = field(&self.asked, "node_id").unwrap_or("?");
            let _ = writeln!(text, "the slots of groups without a leader are shown at node {me}, which was asked");
        }
        text
    }
}

impl Row {
    /// Its INFO, if it answered.
    fn info(&self) -> Option<&str> {
        match &self.answer {
            Answer::Itself(info) => Some(info),
            Answer::None(_) => None,
        }
    }

    /// What is wrong with the node's clock, or with the time of groups.
    fn clock_warning(&self) -> Option<String> {
        let info = self.info()?;
        let ahead_ms: i64 = field(info, "clock_ahead_ms").and_then(|text| text.parse().ok()).unwrap_or(0);
        if ahead_ms.unsigned_abs() > CLOCK_WARN_MS {
            let direction = if ahead_ms < 0 { "behind" } else { "ahead of" };
            let seconds = ahead_ms.unsigned_abs() as f64 / 1_000.0;
            return Some(format!(
                "the clock of node {} is {seconds:.1} s {direction} cluster time: set it right\n",
                self.node.id
            ));
        }
        let groups_ms = number(info, "groups_ahead_ms");
        let seconds = groups_ms as f64 / 1_000.0;
        (groups_ms > CLOCK_WARN_MS).then(|| {
            format!("at node {} the time of some groups is up to {seconds:.1} s ahead of cluster time\n", self.node.id)
        })
    }

    fn state(&self) -> State {
        match self.info() {
            Some(info) if number(info, "loading") == 0 => State::Up,
            Some(_) => State::Loading,
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
            State::Unreachable => "unreachable",
            State::Down => "down",
        })
    }
}

/// Seconds in the largest unit that is not 0, rounded down.
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

    /// A cluster whose second node is ahead of the first and found by its number only, where the first answers for the
    /// third, which is dead, and the fourth does not answer here.
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
    fn the_table_shows_every_node_and_who_answers_for_whom() {
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
    fn lines_that_are_none_of_cluster_nodes_are_refused() {
        for line in ["nonsense", "id host:1@1 master - 0 0 x connected", "id \x1b[2J:1@1 master - 0 0 1 connected"] {
            let text = refused("localhost:1", |command| {
                Ok(if command.len() == 1 { example("INFO") } else { line.to_owned() })
            });
            let expected = "no status from localhost:1: localhost:1 sent a line that is not of CLUSTER NODES";
            assert_eq!(text, expected, "{line:?}");
        }
    }

    #[test]
    fn ages_have_one_unit() {
        assert_eq!([59, 60, 7199, 86_400, 864_000].map(age), ["59s", "1m", "1h", "1d", "10d"]);
    }
}
