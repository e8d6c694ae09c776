//! Addresses: which ones clients are told, and what happens when an address becomes another member's.

use super::*;
use crate::node::links::Receiver;
use crate::node::peers::Roster;
use crate::node::wire::{Hello, NODE, NodeMessage, Refusal};
use groups::Membership;
use groups::membership::{ChangeKind, MembershipChange};
use net::event::ConnectionId;
use net::frame::FrameWriter;

fn hello(world: &mut World, from: u32) -> Hello {
    Hello {
        cluster: Some([9; 16]),
        node: NodeId(from),
        storage: [from as u8; 16],
        start: 1,
        incarnations: vec![1],
        groups: world.node(1).node.config.groups,
        members: vec![NodeId(1), NodeId(2), NodeId(3)],
        joins: None,
        versions: crate::versions::Versions::OURS,
        to: None,
        announced: None,
        address: None,
        workers: crate::workers::Workers::ONE,
    }
}

/// Returns a node's verdict on a hello.
fn check_hello(node: &mut Node, hello: &Hello) -> Result<(), Refusal> {
    let (_, core) = node.core();
    core.context().check_hello(hello)
}

/// Returns the connection of node `of` to node `to`, if any.
fn link(world: &mut World, of: u32, to: u32) -> Option<ConnectionId> {
    world.node(of).node.peers.find(NodeId(to)).and_then(|peer| peer.link())
}

fn cut_link(world: &mut World, of: u32, to: u32) {
    let id = link(world, of, to).expect("a connection");
    world.close(of as usize - 1, id);
}

#[test]
fn dialling_a_moved_address_disturbs_no_connection_and_finds_the_member_when_it_is_back() {
    let mut world = World::led_by_1();
    let between = [link(&mut world, 2, 3), link(&mut world, 3, 2)];
    assert!(between[0].is_some() && between[1].is_some());
    // The address of node 1 now leads to node 3.
    world.moved.insert(0, 2);
    cut_link(&mut world, 2, 1);
    let dialled = world.connections;
    for _ in 0..200 {
        world.step();
        assert_eq!([link(&mut world, 2, 3), link(&mut world, 3, 2)], between);
    }
    assert!(world.connections > dialled + 4, "it was tried again");
    assert_eq!(link(&mut world, 2, 1), None);
    world.moved.clear();
    let is_back = |world: &World| world.nodes[1].node.peers.linked().count() == 2;
    world.run_until("node 1 is found again", Ms(2_000), is_back);
}

#[test]
fn only_a_member_that_has_said_hello_can_stop_a_node() {
    let mut world = World::led_by_1();
    let time = world.time;
    let node = &mut world.node(2).node;
    let dialling = Completion::Dialling { to: NodeId(1), purpose: Purpose::Live, connection: Some(ConnectionId(777)) };
    node.on_completion(dialling, time);
    node.on_completion(Completion::Connected(ConnectionId(777)), time);
    let mut frame = FrameWriter::new(Purpose::Live);
    let refusal = NodeMessage::Refusal(Refusal { fatal: true, text: "go away".to_owned() });
    frame.message(NODE, refusal.kind(), |out| refusal.put(out));
    let mut pieces = Vec::new();
    frame.finish(&mut pieces);
    node.input(ConnectionId(777), &mut BytesMut::from(&pieces.concat()[..]), 0, time);
    let outputs = node.outputs().take();
    assert!(!outputs.iter().any(|output| matches!(output, Output::Stop(_))), "{outputs:?}");
    assert!(matches!(outputs.last(), Some(Output::Close(ConnectionId(777), Close::Now))), "{outputs:?}");
}

#[test]
fn another_cluster_refuses_a_node_for_now_only() {
    let mut world = World::led_by_1();
    let hello = hello(&mut world, 3);
    let mut membership = Membership::clone(world.node(1).node.engine.group(GROUP).membership());
    membership
        .apply(&MembershipChange { version: membership.version(), kind: ChangeKind::Remove(NodeId(3)) })
        .expect("a change");
    let node = &mut world.node(1).node;
    drop(node.peers.enroll(Roster::of_one(&membership)));
    assert!(check_hello(node, &hello).expect_err("it was removed").fatal);
    let stranger = Hello { cluster: Some([1; 16]), ..hello };
    let refusal = check_hello(node, &stranger).expect_err("another cluster");
    assert_eq!((refusal.fatal, refusal.text.as_str()), (false, "node 3 belongs to another cluster"));
}

#[test]
fn clients_are_told_announced_addresses_and_slots_lists_no_dead_member() {
    let mut world = World::led_by_1();
    world.node(2).node.config.announced = Some("outside:9000".to_owned());
    world.node(3).node.config.announced = Some("no address at all".to_owned());
    for (of, to) in [(2, 1), (3, 1), (3, 2)] {
        cut_link(&mut world, of, to);
    }
    world.run_until("all are there again", Ms(2_000), |world| world.nodes[0].node.peers.linked().count() == 2);
    world.run(Ms(1_000));
    let host = world.node(1).node.config.initial[2].1.clone();
    let nodes = world.ask(1, 1, "CLUSTER NODES");
    let has = |text: &str, part: &str| assert!(text.contains(part), "{part:?} in {text}");
    has(&nodes, " outside:9000@9000,outside master - 0 0 2 connected");
    has(&nodes, &format!(" {host}@{} master - 0 0 3 connected", host.rsplit(':').next().expect("a port")));
    // The shell was asked to resolve the name, and reports the result.
    let time = world.time;
    for (name, ip) in [("outside:9000", [10, 0, 0, 2]), ("never asked:1", [10, 0, 0, 3])] {
        world.node(1).node.on_completion(Completion::Resolved(name.to_owned(), ip.into()), time);
    }
    has(&world.ask(1, 1, "CLUSTER NODES"), " 10.0.0.2:9000@9000,outside master - 0 0 2 connected");
    has(&world.ask(1, 1, "CLUSTER SLOTS"), "$7\r\noutside\r\n:9000\r\n");
    let own = world.ask(2, 1, "CLUSTER NODES");
    has(&own, " outside:9000@9000,outside myself,master - 0 0 2 connected");

    world.isolate(2);
    world.run(Ms(2_000));
    let nodes = world.ask(1, 1, "CLUSTER NODES");
    has(&nodes, " 10.0.0.2:9000@9000,outside master,fail - 0 0 2 disconnected");
    let slots = world.ask(1, 1, "CLUSTER SLOTS");
    assert!(!slots.contains("outside"), "{slots}");
    has(&world.ask(1, 1, "CLUSTER SHARDS"), "$6\r\nhealth\r\n$4\r\nfail\r\n");
}

#[test]
fn newer_fields_at_the_end_of_a_hello_are_optional() {
    let mut world = World::new();
    let old = hello(&mut world, 2);
    let before_that = Hello { to: Some(NodeId(1)), announced: Some("a:1".to_owned()), ..old.clone() };
    let said = Hello { address: Some("b:1".to_owned()), ..before_that.clone() };
    let read = |body: &[u8]| match NodeMessage::decode(1, body) {
        Ok(Some(NodeMessage::Hello(hello))) => hello,
        other => panic!("{other:?}"),
    };
    assert_eq!(read(&NodeMessage::Hello(said.clone()).encode()), said);
    // Hellos as earlier programs encoded them, and as the first one did.
    let body = NodeMessage::Hello(before_that.clone()).encode();
    assert_eq!(read(&body[..body.len() - 1]), before_that);
    let first = postcard::to_allocvec(&old).unwrap();
    let before = postcard::to_extend(&old.versions, first.clone()).unwrap();
    assert_eq!(read(&before), old);
    assert_eq!(read(&first), Hello { versions: crate::versions::Versions::FIRST, ..old });
}

#[test]
fn the_incarnation_of_a_guest_outlasts_its_connection_and_the_log_segment_that_held_it() {
    let mut world = World::led_by_1();
    let guest = Hello { node: NodeId(9), storage: [9; 16], start: 7, incarnations: vec![70], ..hello(&mut world, 3) };
    let time = world.time;
    let node = &mut world.node(2).node;
    node.opened(ConnectionId(777), SocketAddr::from(([127, 0, 0, 1], 9)), time);
    let mut frame = FrameWriter::new(Purpose::Live);
    let said = NodeMessage::Hello(guest.clone());
    frame.message(NODE, said.kind(), |out| said.put(out));
    let mut pieces = Vec::new();
    frame.finish(&mut pieces);
    node.input(ConnectionId(777), &mut BytesMut::from(&pieces.concat()[..]), 0, time);
    assert!(node.peers.find(NodeId(9)).is_some_and(|peer| peer.link() == Some(ConnectionId(777))), "it is let in");
    node.closed(ConnectionId(777), time);
    assert!(node.peers.find(NodeId(9)).is_none());
    world.run(Ms(100));

    let logged = |world: &mut World| {
        let log = world.node(2).log.take().expect("a log");
        world.node(2).log = Some(Vec::new());
        log.into_iter().filter(|record| matches!(record, wal::Record::PeerStart { node: NodeId(9), .. }))
    };
    let first: Vec<wal::Record> = logged(&mut world).collect();
    assert_eq!(first.len(), 1);
    // All segments written so far may be dropped.
    let lsn = world.node(2).node.engine.durable_lsn();
    let time = world.time;
    let droppable = wal::DroppableSegments { below: wal::SegmentSequence(lsn.0), lsn };
    world.node(2).node.on_completion(Completion::DroppableSegments(droppable), time);
    world.run(Ms(100));
    assert_eq!(logged(&mut world).collect::<Vec<_>>(), first);
    let old = Hello { start: 6, incarnations: vec![60], ..guest };
    assert!(check_hello(&mut world.node(2).node, &old).expect_err("an old copy").fatal);
}
