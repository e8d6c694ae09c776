//! Large values beside small ones: how they travel between nodes, and the waits of their clients and of other clients.

use super::*;
use crate::config::{NODE_QUEUE_BYTES, READS_MAX};
use net::event::ConnectionId;

/// Returns a request that sets `key` to a value of `bytes` bytes.
pub(super) fn set(key: &str, bytes: usize) -> Vec<u8> {
    let mut request = format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${bytes}\r\n", key.len()).into_bytes();
    request.resize(request.len() + bytes, b'v');
    request.extend_from_slice(b"\r\n");
    request
}

impl World {
    /// Returns the replies to a client so far.
    pub(super) fn replied(&self, id: u32, number: u64) -> String {
        let reply = self.nodes[id as usize - 1].replies.get(&client(number));
        String::from_utf8_lossy(reply.map_or(&[], |reply| reply)).into_owned()
    }

    /// Makes a node take the others for an older version, which does not know commands in parts.
    pub(super) fn speaks_no_parts(&mut self, id: u32) {
        let old = crate::versions::Versions { lowest: 1, highest: 3 };
        self.node(id).node.peers.pretend(|peer| peer.set_versions(old));
    }

    /// Gives `input` to a client's connection. The unread rest stays in `input`.
    pub(super) fn give(&mut self, id: u32, number: u64, input: &mut BytesMut) {
        let (time, client) = (self.time, client(number));
        let node = &mut self.node(id).node;
        if !knows(node, client) {
            node.opened(client, SocketAddr::from(([127, 0, 0, 9], 9)), time);
        }
        node.input(client, input, 0, time);
    }
}

#[test]
fn a_large_value_reaches_all_in_fragments_from_the_leader_and_from_others() {
    for id in 1..=3 {
        let mut world = World::led_by_1();
        let next = world.next(1);
        world.send(id, 1, &set("k", 6 << 20));
        world.run_until("it is answered", Ms(4_000), |world| world.replied(id, 1) == "+OK\r\n");
        world.run_until("all have it", Ms(4_000), |world| (1..=3).all(|other| world.next(other) > next));
        assert!(world.nodes.iter().all(|host| host.node.filling().is_empty()), "nothing waits any more");
        assert_eq!(world.ask(2, 2, "STRLEN k"), format!(":{}", 6 << 20));
    }
}

#[test]
fn an_old_member_gets_a_large_value_whole() {
    let mut world = World::led_by_1();
    for host in &mut world.nodes {
        host.node.peers.pretend(|peer| peer.set_version(2));
    }
    world.send(2, 1, &set("k", 6 << 20));
    world.run_until("it is answered", Ms(4_000), |world| world.replied(2, 1) == "+OK\r\n");
}

#[test]
fn a_vote_overtakes_a_large_value_on_a_slow_connection() {
    let mut world = World::led_by_1();
    let mut node = world.nodes.swap_remove(0).node;
    let time = world.time;
    let link = node.peers.linked().next().and_then(|peer| peer.link()).unwrap_or(ConnectionId(u64::MAX));
    node.opened(client(0), SocketAddr::from(([127, 0, 0, 9], 9)), time);
    node.input(client(0), &mut BytesMut::from(&set("k", 6 << 20)[..]), 0, time);
    let sent = |node: &mut Node| {
        node.end_turn(time);
        let bytes = |output| match output {
            Output::Frame(to, piece) if to == link => piece.len(),
            _ => 0,
        };
        node.outputs().take().into_iter().map(bytes).sum::<usize>()
    };
    let first = sent(&mut node);
    assert!((1..1 << 20).contains(&first), "{first} bytes in the first turn");
    node.unsent(link, first);
    assert_eq!(sent(&mut node), 0, "the connection takes no more");
    node.tick(Time { mono_us: time.mono_us + Us(200_000), ..time });
    let ping = sent(&mut node);
    assert!((1..1_000).contains(&ping), "{ping} bytes for a ping");
    node.drained(link);
    assert!(node.has_work() && sent(&mut node) > 0, "it goes on when there is room");
}

#[test]
fn small_commands_do_not_wait_for_large_ones_of_others() {
    let mut world = World::of(16);
    world.run_until("all groups are led", ELECTED_MS, |world| {
        world.nodes.iter().all(|host| host.node.leaderless() == 0)
    });
    // Node 1 reaches a majority, which votes for nothing.
    [2, 3].into_iter().for_each(|id| world.node(id).is_stuck = true);
    world.speaks_no_parts(1);
    for number in (0..5).chain(7..10) {
        if world.node(1).node.engine.shard().queued_bytes() < NODE_QUEUE_BYTES {
            world.send(1, number, &set(&format!("key:{number}"), 7 << 20));
            world.step();
        }
    }
    assert!(world.node(1).node.engine.shard().queued_bytes() >= NODE_QUEUE_BYTES);
    let before = world.node(1).node.engine.shard().queued_bytes();
    let mut large = BytesMut::from(&set("k", 7 << 20)[..]);
    world.give(1, 5, &mut large);
    assert!(large.len() > 7 << 20, "the large request waits unread");
    world.send(1, 6, b"SET small 1\r\n");
    world.step();
    let queued = world.node(1).node.engine.shard().queued_bytes() - before;
    assert!((1..1_000).contains(&queued), "the small command queued {queued} bytes");
    world.run(Ms(6_200));
    assert!(world.replied(1, 6).starts_with('-'), "its time is up");
    world.give(1, 5, &mut large);
    world.step();
    assert!(world.replied(1, 5).starts_with("-CLUSTERDOWN") && large.is_empty(), "{}", world.replied(1, 5));
}

#[test]
fn a_request_that_waits_unread_for_too_long_is_refused_even_in_the_midst_of_a_value() {
    let mut world = World::led_by_1();
    world.node(1).node.engine.set_unanswered_reads(READS_MAX);
    let request = set("k", 7 << 20);
    let (begin, end) = request.split_at(6 << 20);
    let mut begin = BytesMut::from(begin);
    world.give(1, 5, &mut begin);
    world.run(Ms(4_900));
    world.give(1, 5, &mut begin);
    assert!(begin.len() == 6 << 20 && world.replied(1, 5).is_empty(), "it waits unread");
    world.run(Ms(200));
    world.give(1, 5, &mut begin);
    world.step();
    assert!(world.replied(1, 5).starts_with("-CLUSTERDOWN"), "in the midst of its value");
    // The rest of the value is skipped, and the connection goes on.
    world.node(1).node.engine.set_unanswered_reads(0);
    let mut rest = BytesMut::from(&[end, b"PING\r\n"].concat()[..]);
    world.give(1, 5, &mut rest);
    world.step();
    assert!(rest.is_empty() && world.replied(1, 5).ends_with("served\r\n+PONG\r\n"), "{}", world.replied(1, 5));
}
