//! `paxoi status`: one table of a cluster, gathered from its nodes over the port that clients use.
//!
//! It asks the node it is given for CLUSTER NODES, and each node found there for INFO. So whatever it prints, any Redis
//! client could have asked for. The answers are not of one moment: under load a lag of a few instances is the time that
//! passed between two questions.

use crate::admin::info::human;
use crate::client::{Client, resolve};
use crate::config::CLOCK_WARN_MS;
use anyhow::{Context, bail};
use comfy_table::{CellAlignment, Table, presets};
use net::resp::value::Value;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::Duration;

/// What to show the status of.
#[derive(Clone, Debug, clap::Args)]
pub struct StatusArgs {
    /// Any node of the cluster
    #[arg(long, value_name = "HOST:PORT")]
    pub connect: String,
}

/// Sends one command to the node at an address (`HOST:PORT`) and gives the text of its reply; error replies and broken
/// connections are errors.
pub(crate) type Ask<'a> = dyn FnMut(&str, &[&[u8]]) -> io::Result<String> + 'a;

/// How long a node may take to answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// One question over a connection of its own.
pub(crate) fn ask(address: &str, command: &[&[u8]]) -> io::Result<String> {
    match Client::connect(resolve(address)?, TIMEOUT)?.call(command)? {
        Value::Error(text) => Err(io::Error::other(text)),
        reply => {
            let text = reply.as_bytes().ok_or(io::ErrorKind::InvalidData)?;
            Ok(String::from_utf8_lossy(text).into_owned())
        }
    }
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
    nodes: Vec<Node>,
}

/// One line of CLUSTER NODES, and what that node itself says.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: u32,
    pub(crate) address: String,
    myself: bool,
    slots: String,
    /// Its INFO. None: it did not answer.
    info: Option<String>,
}

fn gather(address: &str, ask: &mut Ask<'_>) -> anyhow::Result<Status> {
    let info: &[&[u8]] = &[b"INFO"];
    let asked = match ask(address, info) {
        Ok(text) => text,
        Err(error) => bail!("no status from {address}: {error}; is a node running there?"),
    };
    if field(&asked, "cluster_id").is_none() {
        bail!("{address} is not a Paxoi node: its INFO has no Paxos section");
    }
    let mut nodes = nodes(address, ask)?;
    for node in &mut nodes {
        node.info = if node.myself { Some(asked.clone()) } else { ask(&node.address, info).ok() };
    }
    nodes.sort_unstable_by_key(|node| node.id);
    Ok(Status { asked, nodes })
}

/// The nodes of a cluster, as the one at `address` knows them.
pub(crate) fn nodes(address: &str, ask: &mut Ask<'_>) -> anyhow::Result<Vec<Node>> {
    let lines = ask(address, &[b"CLUSTER", b"NODES"]).with_context(|| format!("no CLUSTER NODES from {address}"))?;
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let lines = lines.lines().filter(|line| !line.is_empty());
    let parse =
        |line| parse_node(line, host).with_context(|| format!("{address} sent a line that is not of CLUSTER NODES"));
    lines.map(parse).collect()
}

/// `id40 ip:port@cport flags master ping pong epoch link slots…`; the epoch of a Paxoi node is its id. A node that does
/// not know its host is at the `host` that was asked.
fn parse_node(line: &str, host: &str) -> Option<Node> {
    // What is printed later must not be able to steer the terminal.
    if !line.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
        return None;
    }
    let mut words = line.split(' ').skip(1);
    let (address, _) = words.next()?.split_once('@')?;
    let myself = words.next()?.split(',').any(|flag| flag == "myself");
    let id = words.nth(3)?.parse().ok()?;
    let slots: Vec<_> = words.skip(1).collect();
    let address = match address.strip_prefix(':') {
        Some(port) if !port.contains(':') => format!("{host}:{port}"),
        _ => address.to_owned(),
    };
    Some(Node { id, address, myself, slots: slots.join(" "), info: None })
}

/// The value of a field of INFO.
pub(crate) fn field<'t>(info: &'t str, name: &str) -> Option<&'t str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

/// The value of a field of INFO that is a number; 0 without it.
pub(crate) fn number(info: &str, name: &str) -> u64 {
    field(info, name).and_then(|text| text.parse().ok()).unwrap_or(0)
}

impl Status {
    fn render(&self) -> String {
        let groups = number(&self.asked, "groups");
        let applied =
            self.nodes.iter().filter_map(|node| node.info.as_deref()).map(|info| number(info, "applied_total"));
        let applied_max = applied.max().unwrap_or(0);
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["node", "address", "state", "role", "leads", "behind", "lag", "log", "saved", "up", "slots"]);
        for node in &self.nodes {
            table.add_row(node.row(groups, applied_max));
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
        let down = self.nodes.iter().filter(|node| node.info.is_none()).count();
        let _ = writeln!(
            text,
            "{groups} groups: {} led, {leaderless} without a leader; {} nodes: {} up, {down} down; {} instances applied",
            groups.saturating_sub(leaderless),
            self.nodes.len(),
            self.nodes.len() - down,
            applied_max,
        );
        self.nodes.iter().filter_map(Node::clock_warning).for_each(|warning| text.push_str(&warning));
        if leaderless > 0 {
            let me = field(&self.asked, "node_id").unwrap_or("?");
            let _ = writeln!(text, "the slots of groups without a leader are shown at node {me}, which was asked");
        }
        text
    }
}

impl Node {
    /// What is wrong with the node's clock, or with the time of groups.
    fn clock_warning(&self) -> Option<String> {
        let info = self.info.as_deref()?;
        let ahead_ms: i64 = field(info, "clock_ahead_ms").and_then(|text| text.parse().ok()).unwrap_or(0);
        if ahead_ms.unsigned_abs() > CLOCK_WARN_MS {
            let direction = if ahead_ms < 0 { "behind" } else { "ahead of" };
            let seconds = ahead_ms.unsigned_abs() as f64 / 1_000.0;
            return Some(format!(
                "the clock of node {} is {seconds:.1} s {direction} cluster time: set it right\n",
                self.id
            ));
        }
        let groups_ms = number(info, "groups_ahead_ms");
        let seconds = groups_ms as f64 / 1_000.0;
        (groups_ms > CLOCK_WARN_MS).then(|| {
            format!("at node {} the time of some groups is up to {seconds:.1} s ahead of cluster time\n", self.id)
        })
    }

    fn row(&self, groups: u64, applied_max: u64) -> Vec<String> {
        let mut row = vec![self.id.to_string(), self.address.clone()];
        let none = || "-".to_owned();
        if let Some(info) = &self.info {
            let led = number(info, "groups_led");
            row.push(if number(info, "loading") == 0 { "up" } else { "loading" }.to_owned());
            row.push(if led > 0 { "leader" } else { "follower" }.to_owned());
            row.push(format!("{led} of {groups}"));
            row.push(number(info, "groups_behind").to_string());
            row.push(applied_max.saturating_sub(number(info, "applied_total")).to_string());
            row.push(human(number(info, "log_bytes")));
            row.push(human(number(info, "checkpoint_bytes")));
            row.push(age(number(info, "uptime_in_seconds")));
        } else {
            row.push("down".to_owned());
            row.extend(std::iter::repeat_with(none).take(7));
        }
        row.push(if self.slots.is_empty() { none() } else { self.slots.clone() });
        row
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

    const NODES: &str = "1111 :7001@7001 myself,master - 0 0 1 connected 0-5460 16383\n\
                         3333 10.0.0.3:7003@7003 master - 0 0 3 disconnected\n\
                         2222 10.0.0.2:7002@7002 master - 0 0 2 connected 5461-16382\n";

    /// A cluster whose second node is ahead of the first, and whose third does not answer.
    fn cluster(address: &str, command: &[&[u8]]) -> io::Result<String> {
        match (address, command) {
            ("localhost:7001", [b"INFO"]) => Ok(example("INFO")),
            ("localhost:7001", [b"CLUSTER", b"NODES"]) => Ok(NODES.to_owned()),
            ("10.0.0.2:7002", [b"INFO"]) => {
                let info = example("INFO").replace("groups_led:10", "groups_led:5").replace("node_id:1", "node_id:2");
                Ok(info.replace("applied_total:100", "applied_total:103").replace("loading:0", "loading:1"))
            }
            _ => Err(io::Error::from(io::ErrorKind::ConnectionRefused)),
        }
    }

    #[test]
    fn the_table_shows_every_node() {
        let status = gather("localhost:7001", &mut cluster).expect("it answers");
        let expected = "\
node  address         state    role       leads  behind  lag      log  saved  up  slots
1     localhost:7001  up       leader  10 of 16       0    3  128.00M     0B  1d  0-5460 16383
2     10.0.0.2:7002   loading  leader   5 of 16       0    0  128.00M     0B  1d  5461-16382
3     10.0.0.3:7003   down     -              -       -    -        -      -   -  -

16 groups: 15 led, 1 without a leader; 3 nodes: 2 up, 1 down; 103 instances applied
the slots of groups without a leader are shown at node 1, which was asked
";
        assert_eq!(status.render(), expected);
    }

    fn refused(address: &str, answer: impl Fn(&[&[u8]]) -> io::Result<String>) -> String {
        let error = gather(address, &mut |_, command| answer(command)).expect_err("nothing to show");
        format!("{error:#}")
    }

    #[test]
    fn a_node_that_does_not_answer_is_one_line() {
        let text = refused("localhost:1", |_| Err(io::Error::other("connection refused")));
        assert_eq!(text, "no status from localhost:1: connection refused; is a node running there?");
    }

    #[test]
    fn another_server_is_told_apart() {
        let text = refused("localhost:6379", |_| Ok("# Server\r\nredis_version:7.0.15\r\n".to_owned()));
        assert_eq!(text, "localhost:6379 is not a Paxoi node: its INFO has no Paxos section");
    }

    #[test]
    fn lines_that_are_none_of_cluster_nodes_are_refused() {
        for line in ["nonsense", "id host:1@1 master - 0 0 x connected", "id \x1b[2J:1@1 master - 0 0 1 connected"] {
            let text = refused("localhost:1", |command| {
                Ok(if command.len() == 1 { example("INFO") } else { line.to_owned() })
            });
            assert_eq!(text, "localhost:1 sent a line that is not of CLUSTER NODES", "{line:?}");
        }
    }

    #[test]
    fn what_the_cluster_command_writes_can_be_read() {
        use crate::admin::cluster::{ClusterView, NodeView, cluster};
        use crate::kv::reply::Reply;
        use groups::NodeId;
        let node = |n: u32, ip: &str| NodeView {
            node: NodeId(n),
            id40: n.to_string().repeat(40),
            ip: ip.into(),
            port: 7000 + n as u16,
            connected: true,
        };
        let (nodes, leaders) = ([node(1, ""), node(2, "::1")], [Some(NodeId(2)), None]);
        let view = ClusterView { me: NodeId(1), groups: 2, leaders: &leaders, nodes: &nodes };
        let Reply::Text(text) = cluster(&[b"CLUSTER", b"NODES"], &view) else { panic!("NODES is text") };
        let read: Vec<_> = text.lines().map(|line| parse_node(line, "here").expect("a node")).collect();
        let told: Vec<_> = read.iter().map(|n| (n.id, n.address.as_str(), n.myself, n.slots.as_str())).collect();
        assert_eq!(told, [(1, "here:7001", true, "8192-16383"), (2, "::1:7002", false, "0-8191")]);
    }

    #[test]
    fn ages_have_one_unit() {
        assert_eq!([59, 60, 7199, 86_400, 864_000].map(age), ["59s", "1m", "1h", "1d", "10d"]);
    }
}
