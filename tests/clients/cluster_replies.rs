//! The replies that describe the cluster to cluster clients: every node gives the same, and every slot has one leader.

use super::cluster::Cluster;
use super::wire::{PATIENCE, Wire, ask, show};
use net::resp::value::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Instant;

const SLOTS: usize = 16_384;

/// The port of each slot's leader.
type Leaders = Vec<u16>;

fn value(node: SocketAddr, command: &str) -> Value {
    let mut wire = Wire::connect(node);
    wire.send(format!("{command}\r\n").as_bytes());
    wire.receive()
}

fn lines(node: SocketAddr, command: &str) -> Vec<String> {
    let text = value(node, command);
    let text = String::from_utf8(text.as_bytes().expect("text").to_vec()).expect("text");
    text.lines().map(str::to_owned).collect()
}

fn int(value: &Value) -> usize {
    match value {
        Value::Int(number) => usize::try_from(*number).expect("not negative"),
        other => panic!("{other:?} is not a number"),
    }
}

fn text(value: &Value) -> String {
    String::from_utf8(value.as_bytes().expect("text").to_vec()).expect("text")
}

/// Returns the leaders from CLUSTER SLOTS: every slot must be in exactly one range. Adds the node ids by port to `ids`.
fn slots(node: SocketAddr, ids: &mut BTreeMap<u16, String>) -> Leaders {
    let mut leaders = vec![0; SLOTS];
    // CLUSTER SLOTS leaves out a node that seems silent for a moment.
    connected(node);
    for range in value(node, "CLUSTER SLOTS").as_items().expect("ranges") {
        let [first, last, members @ ..] = range.as_items().expect("a range") else { panic!("{range:?}") };
        assert_eq!(members.len(), 3, "the leader, then the others");
        for member in members {
            let [host, port, id, _] = member.as_items().expect("a member") else { panic!("{member:?}") };
            assert_eq!(text(host), "127.0.0.1");
            assert!(text(id).len() == 40 && text(id).bytes().all(|byte| byte.is_ascii_hexdigit()));
            let before = ids.insert(int(port) as u16, text(id));
            assert!(before.is_none_or(|before| before == text(id)), "one id for each node, at every node");
        }
        let leader = int(&members[0].as_items().expect("a member")[1]) as u16;
        let led = &mut leaders[int(first)..=int(last)];
        assert!(led.iter().all(|other| *other == 0), "a slot of {first:?} to {last:?} is there twice");
        led.fill(leader);
    }
    assert!(leaders.iter().all(|leader| *leader != 0), "a slot is missing");
    leaders
}

/// Returns CLUSTER NODES once all nodes are connected, or after the time limit: a busy machine may make a node seem
/// silent for a moment.
fn connected(node: SocketAddr) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let lines = lines(node, "CLUSTER NODES");
        if lines.iter().all(|line| line.split(' ').nth(7) == Some("connected")) || Instant::now() > deadline {
            return lines;
        }
    }
}

/// Returns the leaders from CLUSTER NODES. Only the line of the asked node must have the flag `myself`.
fn nodes(node: SocketAddr, ids: &BTreeMap<u16, String>) -> Leaders {
    let mut leaders = vec![0; SLOTS];
    let lines = connected(node);
    assert_eq!(lines.len(), 3);
    for line in &lines {
        let [id, address, flags, master, _, _, _, link, ranges @ ..] = &line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let (address, bus) = address.split_once('@').expect("a bus port");
        let address: SocketAddr = address.parse().expect("an address");
        assert_eq!(
            (*id, bus, *master, *link),
            (&*ids[&address.port()], &*address.port().to_string(), "-", "connected")
        );
        assert_eq!(*flags, if address == node { "myself,master" } else { "master" });
        for range in ranges {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let range = first.parse::<usize>().expect("a slot")..=last.parse().expect("a slot");
            range.for_each(|slot| assert_eq!(std::mem::replace(&mut leaders[slot], address.port()), 0));
        }
    }
    leaders
}

/// Returns the leaders from CLUSTER SHARDS.
fn shards(node: SocketAddr, ids: &BTreeMap<u16, String>) -> Leaders {
    let mut leaders = vec![0; SLOTS];
    let field = |fields: &Value, name: &str| {
        let items = fields.as_items().expect("fields");
        items.chunks(2).find(|pair| text(&pair[0]) == name).map(|pair| pair[1].clone()).expect("the field")
    };
    for shard in value(node, "CLUSTER SHARDS").as_items().expect("shards") {
        let members = field(shard, "nodes");
        let members = members.as_items().expect("members");
        let roles: Vec<String> = members.iter().map(|member| text(&field(member, "role"))).collect();
        assert_eq!(roles, ["master", "replica", "replica"]);
        let port = int(&field(&members[0], "port")) as u16;
        assert_eq!(text(&field(&members[0], "id")), ids[&port]);
        assert_eq!(text(&field(&members[0], "health")), "online");
        let ranges = field(shard, "slots");
        for range in ranges.as_items().expect("ranges").chunks(2) {
            (int(&range[0])..=int(&range[1])).for_each(|slot| leaders[slot] = port);
        }
    }
    leaders
}

#[test]
fn slots_nodes_and_shards_agree_at_every_node() {
    let cluster = Cluster::start();
    let mut ids = BTreeMap::new();
    let told: Vec<Leaders> = cluster.nodes.iter().map(|node| slots(*node, &mut ids)).collect();
    assert_eq!(told[0].iter().collect::<BTreeSet<_>>().len(), 3, "each node leads some");
    assert_eq!(ids.values().collect::<BTreeSet<_>>().len(), 3);
    for node in &cluster.nodes {
        assert!(slots(*node, &mut ids) == told[0] && nodes(*node, &ids) == told[0] && shards(*node, &ids) == told[0]);
        assert_eq!(ask(*node, "CLUSTER MYID"), format!("\"{}\"", ids[&node.port()]));
        let info = lines(*node, "CLUSTER INFO");
        for line in ["cluster_state:ok", "cluster_slots_ok:16384", "cluster_known_nodes:3", "cluster_size:3"] {
            assert!(info.iter().any(|other| other == line), "{line} in {info:?}");
        }
        assert_eq!(ask(*node, &format!("CLUSTER REPLICAS {}", ids[&node.port()])), "[]");
        assert_eq!(ask(*node, "CLUSTER FAILOVER"), "-ERR unknown subcommand 'FAILOVER'. Try CLUSTER HELP.");
    }
}

#[test]
fn keys_are_counted_and_listed_by_slot() {
    let cluster = Cluster::start();
    let [a, b, c] = cluster.nodes[..] else { panic!("three nodes") };
    assert_eq!(ask(a, "CLUSTER KEYSLOT {t}x"), ask(b, "CLUSTER KEYSLOT t"));
    assert_eq!(ask(c, "CLUSTER KEYSLOT 123456789"), "12739");
    for key in 0..20 {
        assert_eq!(ask(a, &format!("SET {{t}}{key} v")), "OK");
    }
    let slot = ask(a, "CLUSTER KEYSLOT t");
    for node in [a, b, c] {
        assert_eq!(ask(node, &format!("CLUSTER COUNTKEYSINSLOT {slot}")), "20");
        let Value::Array(keys) = value(node, &format!("CLUSTER GETKEYSINSLOT {slot} 100")) else { panic!("keys") };
        assert_eq!(keys.iter().map(show).collect::<BTreeSet<_>>().len(), 20);
        assert_eq!(value(node, &format!("CLUSTER GETKEYSINSLOT {slot} 5")).as_items().map(<[_]>::len), Some(5));
    }
    assert_eq!(ask(a, "CLUSTER COUNTKEYSINSLOT 16384"), "-ERR Invalid slot");
    assert_eq!(ask(a, "CLUSTER GETKEYSINSLOT 0 -1"), "-ERR Invalid slot or number of keys");
}
