//! The CLUSTER command: shows which node leads which slots, in the formats of Redis Cluster.
//!
//! Redis gives each node one role; here every node leads some groups and follows in others. So NODES shows each node as
//! a master with the slots that it leads. SLOTS and SHARDS list the other nodes as replicas of each range, because any
//! node takes any command. Adjacent groups led by one node appear as one range.
//!
//! The slots of a group without a known leader are shown under the node that answers. So clients keep a complete slot
//! table, and this node holds or answers their commands. CLUSTER INFO counts these slots as failed.
//!
//! A node whose address has a host name is shown by that name, as in Redis with `cluster-preferred-endpoint-type
//! hostname`: the name is the endpoint, and the IP address stands beside it. A node that this node does not reach is
//! marked `fail`. SLOTS leaves it out, unless it is still known as a leader.
//!
//! The store answers COUNTKEYSINSLOT and GETKEYSINSLOT, which concern keys.

use super::{help, unknown_subcommand, wrong_arity};
use crate::endpoint::Endpoint;
use crate::kv::reply::Reply;
use crate::routing::{SLOTS, slot, slots_of};
use groups::{GroupId, NodeId};
use std::fmt::Write;
use std::net::IpAddr;

/// A cluster, as one node knows it.
#[derive(Clone, Copy, Debug)]
pub struct ClusterView<'a> {
    /// The node that answers; one of `nodes`.
    pub me: NodeId,
    /// Number of groups that the slots are divided among.
    pub groups: u32,
    /// The leader of each group, where known.
    pub leaders: &'a [Option<NodeId>],
    /// All members, by ascending id.
    pub nodes: &'a [NodeView],
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// Its id among the members.
    pub node: NodeId,
    /// 40 hex digits from its storage id: the same in every reply, and never another node's.
    pub id40: String,
    /// Address at which clients reach it; `None` if its address cannot be parsed.
    pub endpoint: Option<Endpoint>,
    /// IP address of its host name, if the name has been looked up.
    pub resolved: Option<IpAddr>,
    /// True if the answering node reaches it; always true for the answering node itself.
    pub connected: bool,
}

impl NodeView {
    /// Returns its host, an IP address or a name; `?` if the host is unknown, as in Redis.
    fn host(&self) -> &str {
        self.endpoint.as_ref().map_or("?", |endpoint| &endpoint.host)
    }

    /// Returns its host, if that is a name.
    fn hostname(&self) -> Option<&str> {
        self.endpoint.as_ref().filter(|endpoint| endpoint.ip().is_none()).map(|endpoint| &*endpoint.host)
    }

    /// Returns the IP address of its host, or the name until it is looked up: many clients connect to this field.
    fn ip(&self) -> String {
        match (self.hostname(), self.resolved) {
            (Some(_), Some(ip)) => ip.to_string(),
            _ => self.host().to_owned(),
        }
    }

    /// Returns its port, the same for clients and members; 0 if the port is unknown, as in Redis.
    fn port(&self) -> u16 {
        self.endpoint.as_ref().map_or(0, |endpoint| endpoint.port)
    }
}

/// Slots `first` to `last`, both included, led by one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedRange {
    /// The leader, or the answering node if no leader is known.
    pub node: NodeId,
    /// The first slot.
    pub first: u16,
    /// The last slot.
    pub last: u16,
}

impl ClusterView<'_> {
    /// Returns ranges that cover all slots in order, each slot once. Neighbouring ranges have different nodes.
    #[must_use]
    pub fn ranges(&self) -> Vec<LedRange> {
        let mut ranges: Vec<LedRange> = Vec::new();
        for group in (0..self.groups).map(GroupId) {
            let slots = slots_of(group, self.groups);
            let node = self.leader(group).unwrap_or(self.me);
            match ranges.last_mut() {
                Some(range) if range.node == node => range.last = slots.end - 1,
                _ => ranges.push(LedRange { node, first: slots.start, last: slots.end - 1 }),
            }
        }
        ranges
    }

    /// Returns the leader of a group, if it is one of the members.
    fn leader(&self, group: GroupId) -> Option<NodeId> {
        let leader = self.leaders.get(group.index()).copied().flatten()?;
        self.nodes.iter().any(|node| node.node == leader).then_some(leader)
    }

    fn slots_without_leader(&self) -> usize {
        let leaderless = (0..self.groups).map(GroupId).filter(|group| self.leader(*group).is_none());
        leaderless.map(|group| slots_of(group, self.groups).len()).sum()
    }

    fn by_id40(&self, id40: &[u8]) -> Option<&NodeView> {
        self.nodes.iter().find(|node| node.id40.as_bytes() == id40)
    }

    fn id40_of_me(&self) -> Reply<'static> {
        self.nodes.iter().find(|node| node.node == self.me).map_or(Reply::Null, |me| owned(&me.id40))
    }
}

/// Answers the CLUSTER command.
#[must_use]
pub fn cluster(args: &[&[u8]], view: &ClusterView<'_>) -> Reply<'static> {
    let Some(subcommand) = args.get(1) else { return wrong_arity("cluster") };
    match (subcommand.to_ascii_lowercase().as_slice(), &args[2..]) {
        (b"slots", []) => slots(view),
        (b"slots", _) => wrong_arity("cluster|slots"),
        (b"shards", []) => shards(view),
        (b"shards", _) => wrong_arity("cluster|shards"),
        (b"nodes", []) => Reply::Text(nodes(view).into()),
        (b"nodes", _) => wrong_arity("cluster|nodes"),
        (b"info", []) => Reply::Text(info(view).into()),
        (b"info", _) => wrong_arity("cluster|info"),
        (b"myid", []) | (b"myshardid", []) => view.id40_of_me(),
        (b"myid", _) => wrong_arity("cluster|myid"),
        (b"myshardid", _) => wrong_arity("cluster|myshardid"),
        (b"keyslot", [key]) => Reply::Int(i64::from(slot(key))),
        (b"keyslot", _) => wrong_arity("cluster|keyslot"),
        (b"links", []) => links(view),
        (b"links", _) => wrong_arity("cluster|links"),
        (b"replicas" | b"slaves", [id40]) => of_node(view, id40, Reply::Array(Vec::new())),
        (b"replicas", _) => wrong_arity("cluster|replicas"),
        (b"slaves", _) => wrong_arity("cluster|slaves"),
        (b"count-failure-reports", [id40]) => of_node(view, id40, Reply::Int(0)),
        (b"count-failure-reports", _) => wrong_arity("cluster|count-failure-reports"),
        (b"help", []) => help("CLUSTER <subcommand> [<arg> [value] [opt] ...]. Subcommands are:", HELP),
        (b"help", _) => wrong_arity("cluster|help"),
        _ => unknown_subcommand("CLUSTER", subcommand),
    }
}

fn slots(view: &ClusterView<'_>) -> Reply<'static> {
    let ranges = view.ranges().into_iter().map(|range| {
        let ends = [range.first, range.last].map(|slot| Reply::Int(i64::from(slot)));
        let (master, others): (Vec<_>, Vec<_>) = view.nodes.iter().partition(|node| node.node == range.node);
        let replicas = others.into_iter().filter(|node| node.connected && node.endpoint.is_some());
        Reply::Array(ends.into_iter().chain(master.into_iter().chain(replicas).map(endpoint)).collect())
    });
    Reply::Array(ranges.collect())
}

fn endpoint(node: &NodeView) -> Reply<'static> {
    let ip = node.hostname().map(|_| (Reply::text("ip"), owned(&node.ip())));
    let metadata = Reply::Map(ip.into_iter().collect());
    Reply::Array(vec![owned(node.host()), Reply::Int(i64::from(node.port())), owned(&node.id40), metadata])
}

/// Returns one shard for each node: the slots that it leads, the node as the master, and the others as replicas if it
/// leads any.
fn shards(view: &ClusterView<'_>) -> Reply<'static> {
    let ranges = view.ranges();
    let shards = view.nodes.iter().map(|master| {
        let led = ranges.iter().filter(|range| range.node == master.node);
        let slots: Vec<_> = led.flat_map(|range| [range.first, range.last]).map(|n| Reply::Int(i64::from(n))).collect();
        let others = view.nodes.iter().filter(|node| node.node != master.node && !slots.is_empty());
        let nodes = [(master, "master")].into_iter().chain(others.map(|node| (node, "replica")));
        let nodes = nodes.map(|(node, role)| shard_node(node, role)).collect();
        Reply::Map(vec![(Reply::text("slots"), Reply::Array(slots)), (Reply::text("nodes"), Reply::Array(nodes))])
    });
    Reply::Array(shards.collect())
}

fn shard_node(node: &NodeView, role: &'static str) -> Reply<'static> {
    let mut fields = vec![
        ("id", owned(&node.id40)),
        ("port", Reply::Int(i64::from(node.port()))),
        ("ip", owned(&node.ip())),
        ("endpoint", owned(node.host())),
    ];
    fields.extend(node.hostname().map(|name| ("hostname", owned(name))));
    fields.extend([
        ("role", Reply::text(role)),
        ("replication-offset", Reply::Int(0)),
        ("health", Reply::text(if node.connected { "online" } else { "fail" })),
    ]);
    Reply::Map(fields.into_iter().map(|(name, value)| (Reply::text(name), value)).collect())
}

/// Returns one line for each node. The node id serves as the configuration epoch: no two nodes share one.
fn nodes(view: &ClusterView<'_>) -> String {
    let ranges = view.ranges();
    let mut lines = String::new();
    for node in view.nodes {
        let myself = if node.node == view.me { "myself," } else { "" };
        let fail = if node.connected { "" } else { ",fail" };
        let noaddr = if node.endpoint.is_some() { "" } else { ",noaddr" };
        let link = if node.connected { "connected" } else { "disconnected" };
        let name = node.hostname().map(|name| format!(",{name}")).unwrap_or_default();
        let (NodeView { id40, node: epoch, .. }, ip, port) = (node, node.ip(), node.port());
        let _ = write!(lines, "{id40} {ip}:{port}@{port}{name} {myself}master{fail}{noaddr} - 0 0 {epoch} {link}");
        for range in ranges.iter().filter(|range| range.node == node.node) {
            let _ = match range.last - range.first {
                0 => write!(lines, " {}", range.first),
                _ => write!(lines, " {}-{}", range.first, range.last),
            };
        }
        lines.push('\n');
    }
    lines
}

fn info(view: &ClusterView<'_>) -> String {
    let failed = view.slots_without_leader();
    let ranges = view.ranges();
    let leading = view.nodes.iter().filter(|node| ranges.iter().any(|range| range.node == node.node)).count();
    let epoch = view.nodes.iter().map(|node| node.node.0).max().unwrap_or(0);
    let mut lines = String::new();
    for (name, value) in [
        ("cluster_state", if failed == 0 { "ok" } else { "fail" }.to_owned()),
        ("cluster_slots_assigned", SLOTS.to_string()),
        ("cluster_slots_ok", (usize::from(SLOTS) - failed).to_string()),
        ("cluster_slots_pfail", "0".to_owned()),
        ("cluster_slots_fail", failed.to_string()),
        ("cluster_known_nodes", view.nodes.len().to_string()),
        ("cluster_size", leading.to_string()),
        ("cluster_current_epoch", epoch.to_string()),
        ("cluster_my_epoch", view.me.to_string()),
        ("cluster_stats_messages_sent", "0".to_owned()),
        ("cluster_stats_messages_received", "0".to_owned()),
        ("total_cluster_links_buffer_limit_exceeded", "0".to_owned()),
    ] {
        let _ = write!(lines, "{name}:{value}\r\n");
    }
    lines
}

/// Returns one link to each connected node. Creation time and buffer sizes are not recorded here, and shown as 0.
fn links(view: &ClusterView<'_>) -> Reply<'static> {
    let peers = view.nodes.iter().filter(|node| node.node != view.me && node.connected);
    let links = peers.map(|peer| {
        let fields = [
            ("direction", Reply::text("to")),
            ("node", owned(&peer.id40)),
            ("create-time", Reply::Int(0)),
            ("events", Reply::text("r")),
            ("send-buffer-allocated", Reply::Int(0)),
            ("send-buffer-used", Reply::Int(0)),
        ];
        Reply::Map(fields.into_iter().map(|(name, value)| (Reply::text(name), value)).collect())
    });
    Reply::Array(links.collect())
}

fn of_node(view: &ClusterView<'_>, id40: &[u8], reply: Reply<'static>) -> Reply<'static> {
    match view.by_id40(id40) {
        Some(_) => reply,
        None => Reply::Error(format!("ERR Unknown node {}", super::echo(id40)).into()),
    }
}

fn owned(text: &str) -> Reply<'static> {
    Reply::Bulk(text.as_bytes().to_vec().into())
}

const HELP: &[&str] = &[
    "COUNT-FAILURE-REPORTS <node-id>",
    "    Return number of failure reports for <node-id>.",
    "COUNTKEYSINSLOT <slot>",
    "    Return the number of keys in <slot>.",
    "GETKEYSINSLOT <slot> <count>",
    "    Return key names stored by current node in a slot.",
    "INFO",
    "    Return information about the cluster.",
    "KEYSLOT <key>",
    "    Return the hash slot for <key>.",
    "LINKS",
    "    Return the nodes that this node is connected to.",
    "MYID",
    "    Return the node id.",
    "MYSHARDID",
    "    Return the node's shard id, which is its node id.",
    "NODES",
    "    Return cluster configuration seen by node. Output format:",
    "    <id> <ip:port@bus-port[,hostname]> <flags> <master> <pings> <pongs> <epoch> <link> <slot> ...",
    "REPLICAS <node-id>",
    "    Return nothing: every node is a master of the slots it leads.",
    "SHARDS",
    "    Return the slots that each node leads, with all nodes.",
    "SLOTS",
    "    Return information about slots range mappings. Each range is made of:",
    "    start, end, leader and other nodes: IP addresses or hostnames, ports and ids",
];

#[cfg(test)]
#[path = "cluster_tests.rs"]
mod tests;
