//! Tests of the CLUSTER command. Its replies have the shapes of a real Redis 7. They contain every slot exactly once:
//! clients rely on that.

use super::*;
use crate::admin::client::tests::{words, written};
use net::resp::Protocol;
use proptest::prelude::*;

fn members(count: u32) -> Vec<NodeView> {
    let member = |n: u32| NodeView {
        node: NodeId(n),
        id40: n.to_string().repeat(40),
        endpoint: Endpoint::parse(&format!("127.0.0.1:{}", 7000 + n)),
        resolved: None,
        connected: n != 3,
    };
    (1..=count).map(member).collect()
}

/// Four members with host names: one resolved, one not resolved, one not connected, and one with an invalid address.
fn named() -> Vec<NodeView> {
    let mut nodes = members(4);
    for (node, address) in nodes.iter_mut().zip(["one:7001", "two:7002", "three:7003", "no address"]) {
        node.endpoint = Endpoint::parse(address);
    }
    nodes[0].resolved = Some("10.0.0.1".parse().unwrap());
    nodes
}

fn asked_of(nodes: &[NodeView], command: &str, ids: &[u32]) -> String {
    let leaders = leaders(ids);
    let view = ClusterView { me: NodeId(1), groups: ids.len() as u32, leaders: &leaders, nodes };
    written(&cluster(&words(command), &view), Protocol::Resp3)
}

fn leaders(ids: &[u32]) -> Vec<Option<NodeId>> {
    ids.iter().map(|id| (*id > 0).then_some(NodeId(*id))).collect()
}

fn asked(command: &str, ids: &[u32], protocol: Protocol) -> String {
    let (nodes, leaders) = (members(3), leaders(ids));
    let view = ClusterView { me: NodeId(1), groups: ids.len() as u32, leaders: &leaders, nodes: &nodes };
    written(&cluster(&words(command), &view), protocol)
}

fn id40(n: u32) -> String {
    n.to_string().repeat(40)
}

#[test]
fn slots_lists_one_range_per_run_of_groups() {
    let node =
        |n: u32, meta: &str| format!("*4\r\n$9\r\n127.0.0.1\r\n:{}\r\n$40\r\n{}\r\n{meta}0\r\n", 7000 + n, id40(n));
    for (protocol, meta) in [(Protocol::Resp2, "*"), (Protocol::Resp3, "%")] {
        let expected = format!(
            "*2\r\n*4\r\n:0\r\n:8191\r\n{}{}*4\r\n:8192\r\n:16383\r\n{}{}",
            node(2, meta),
            node(1, meta),
            node(1, meta),
            node(2, meta),
        );
        assert_eq!(asked("CLUSTER SLOTS", &[2, 2, 1, 0], protocol), expected, "a group without a leader is shown here");
    }
    // A known leader is listed even if this node is not connected to it.
    assert!(asked("CLUSTER SLOTS", &[3], Protocol::Resp2).contains(&node(3, "*")));
}

/// The shapes are those of redis-server 7.0 with `cluster-announce-hostname` and `cluster-preferred-endpoint-type
/// hostname`.
#[test]
fn names_are_told_as_names_with_the_address_beside_them() {
    let (one, two) = (id40(1), id40(2));
    let slots = format!(
        "*1\r\n*4\r\n:0\r\n:16383\r\n*4\r\n$3\r\none\r\n:7001\r\n$40\r\n{one}\r\n%1\r\n$2\r\nip\r\n$8\r\n10.0.0.1\r\n\
         *4\r\n$3\r\ntwo\r\n:7002\r\n$40\r\n{two}\r\n%1\r\n$2\r\nip\r\n$3\r\ntwo\r\n"
    );
    assert_eq!(asked_of(&named(), "CLUSTER SLOTS", &[1]), slots);
    let nodes = asked_of(&named(), "CLUSTER NODES", &[1]);
    let lines = [
        format!("{one} 10.0.0.1:7001@7001,one myself,master - 0 0 1 connected 0-16383\n"),
        format!("{two} two:7002@7002,two master - 0 0 2 connected\n"),
        format!("{} three:7003@7003,three master,fail - 0 0 3 disconnected\n", id40(3)),
        format!("{} ?:0@0 master,noaddr - 0 0 4 connected\n", id40(4)),
    ];
    assert!(nodes.contains(&lines.concat()), "{nodes}");
    let shards = asked_of(&named(), "CLUSTER SHARDS", &[1]);
    let master = format!(
        "%8\r\n$2\r\nid\r\n$40\r\n{one}\r\n$4\r\nport\r\n:7001\r\n$2\r\nip\r\n$8\r\n10.0.0.1\r\n$8\r\nendpoint\r\n$3\r\none\r\n\
         $8\r\nhostname\r\n$3\r\none\r\n$4\r\nrole\r\n$6\r\nmaster\r\n"
    );
    assert!(shards.contains(&master), "{shards}");
}

#[test]
fn nodes_has_one_line_each_and_one_myself() {
    let expected = format!(
        "{} 127.0.0.1:7001@7001 myself,master - 0 0 1 connected 0-4095 12288-16383\n\
         {} 127.0.0.1:7002@7002 master - 0 0 2 connected 4096-12287\n\
         {} 127.0.0.1:7003@7003 master,fail - 0 0 3 disconnected\n",
        id40(1),
        id40(2),
        id40(3)
    );
    let text = asked("cluster nodes", &[1, 2, 2, 1], Protocol::Resp2);
    assert_eq!(text, format!("${}\r\n{expected}\r\n", expected.len()));
    assert!(asked("cluster nodes", &[1], Protocol::Resp3).starts_with("=2"), "a verbatim string");
    let mut each_own = [1; 16384];
    each_own[5] = 2;
    assert!(asked("cluster nodes", &each_own, Protocol::Resp2).contains(" connected 5\n"), "a range of one slot");
}

#[test]
fn shards_are_maps() {
    let node = |n: u32, role: &str, health: &str| {
        format!(
            "%7\r\n$2\r\nid\r\n$40\r\n{}\r\n$4\r\nport\r\n:{}\r\n$2\r\nip\r\n$9\r\n127.0.0.1\r\n$8\r\nendpoint\r\n$9\r\n127.0.0.1\r\n\
             $4\r\nrole\r\n${}\r\n{role}\r\n$18\r\nreplication-offset\r\n:0\r\n$6\r\nhealth\r\n${}\r\n{health}\r\n",
            id40(n),
            7000 + n,
            role.len(),
            health.len()
        )
    };
    let all = [
        format!(
            "*3\r\n%2\r\n$5\r\nslots\r\n*4\r\n:0\r\n:4095\r\n:12288\r\n:16383\r\n$5\r\nnodes\r\n*3\r\n{}",
            node(1, "master", "online")
        ),
        node(2, "replica", "online") + &node(3, "replica", "fail"),
        format!("%2\r\n$5\r\nslots\r\n*2\r\n:4096\r\n:12287\r\n$5\r\nnodes\r\n*3\r\n{}", node(2, "master", "online")),
        node(1, "replica", "online") + &node(3, "replica", "fail"),
        format!("%2\r\n$5\r\nslots\r\n*0\r\n$5\r\nnodes\r\n*1\r\n{}", node(3, "master", "fail")),
    ];
    assert_eq!(asked("CLUSTER SHARDS", &[1, 2, 2, 1], Protocol::Resp3), all.concat());
    assert!(asked("CLUSTER SHARDS", &[1, 2, 2, 1], Protocol::Resp2).starts_with("*3\r\n*4\r\n$5\r\nslots\r\n"));
}

#[test]
fn info_tells_of_groups_without_a_leader() {
    let healthy = asked("CLUSTER INFO", &[1, 2, 2, 3], Protocol::Resp2);
    for line in ["cluster_state:ok\r\n", "cluster_slots_ok:16384\r\n", "cluster_slots_fail:0\r\n", "cluster_size:3\r\n"]
    {
        assert!(healthy.contains(line), "{line} in {healthy}");
    }
    let failed = asked("CLUSTER INFO", &[1, 0, 2, 9], Protocol::Resp2);
    for line in [
        "cluster_state:fail\r\n",
        "cluster_slots_assigned:16384\r\n",
        "cluster_slots_ok:8192\r\n",
        "cluster_slots_fail:8192\r\n",
        "cluster_known_nodes:3\r\n",
        "cluster_current_epoch:3\r\n",
        "cluster_my_epoch:1\r\n",
    ] {
        assert!(failed.contains(line), "{line} in {failed}");
    }
}

#[test]
fn the_small_ones() {
    let id = |n: u32| format!("$40\r\n{}\r\n", id40(n));
    for (command, reply) in [
        ("CLUSTER MYID", id(1)),
        ("CLUSTER MYSHARDID", id(1)),
        ("CLUSTER KEYSLOT a", ":15495\r\n".into()),
        ("CLUSTER KEYSLOT", "-ERR wrong number of arguments for 'cluster|keyslot' command\r\n".into()),
        ("CLUSTER SLOTS a", "-ERR wrong number of arguments for 'cluster|slots' command\r\n".into()),
        ("CLUSTER", "-ERR wrong number of arguments for 'cluster' command\r\n".into()),
        ("CLUSTER FOO", "-ERR unknown subcommand 'FOO'. Try CLUSTER HELP.\r\n".into()),
        ("CLUSTER REPLICAS x", "-ERR Unknown node x\r\n".into()),
        ("CLUSTER SLAVES x", "-ERR Unknown node x\r\n".into()),
        ("CLUSTER COUNT-FAILURE-REPORTS x", "-ERR Unknown node x\r\n".into()),
        ("cluster meet 127.0.0.1 1", "-ERR unknown subcommand 'meet'. Try CLUSTER HELP.\r\n".into()),
    ] {
        assert_eq!(asked(command, &[1], Protocol::Resp2), reply, "{command}");
    }
    assert_eq!(asked(&format!("CLUSTER REPLICAS {}", id40(2)), &[1], Protocol::Resp2), "*0\r\n");
    assert_eq!(asked(&format!("CLUSTER COUNT-FAILURE-REPORTS {}", id40(2)), &[1], Protocol::Resp2), ":0\r\n");
    let links = asked("CLUSTER LINKS", &[1], Protocol::Resp3);
    assert!(links.starts_with("*1\r\n%6\r\n$9\r\ndirection\r\n$2\r\nto\r\n$4\r\nnode\r\n"), "only node 2: {links}");
    assert!(asked("CLUSTER HELP", &[1], Protocol::Resp2).ends_with("+HELP\r\n+    Prints this help.\r\n"));
}

proptest! {
    #[test]
    fn ranges_cover_every_slot_exactly_once(ids in prop::collection::vec(0u32..5, 1..300), known in 0usize..300) {
        let (nodes, mut leaders) = (members(3), leaders(&ids));
        leaders.truncate(known);
        let view = ClusterView { me: NodeId(1), groups: ids.len() as u32, leaders: &leaders, nodes: &nodes };
        let ranges = view.ranges();
        let mut next = 0;
        for range in &ranges {
            prop_assert_eq!(range.first, next);
            prop_assert!(range.last >= range.first);
            next = range.last + 1;
        }
        prop_assert_eq!(next, SLOTS);
        prop_assert!(ranges.windows(2).all(|pair| pair[0].node != pair[1].node));
        for group in (0..view.groups).map(GroupId) {
            let led = view.leader(group).unwrap_or(view.me);
            for slot in slots_of(group, view.groups) {
                prop_assert!(ranges.iter().any(|r| r.node == led && (r.first..=r.last).contains(&slot)));
            }
        }
    }
}
