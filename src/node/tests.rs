//! Three nodes in one thread, on simulated clocks, disks and connections: the behaviour of a node when its disk is slow
//! or full, or its links are cut.

mod clients;
mod large;
mod names;
mod placement;
mod uploads;

use super::*;
use crate::config::{CHECKPOINT_RETRY_MS, LOG_QUEUE_BYTES};
use crate::identity::{BirthRecord, Member};
use crate::recovery::{EmptyShard, RebuildInput, RebuildResult, RecoveryProgress};
use crate::routing;
use crate::storage::checkpoint::{CheckpointResult, CheckpointSequence, CheckpointTask};
use crate::storage::wal::{self, Lsn};
use bytes::BytesMut;
use groups::{Instance, NodeId, TICK_MS};
use net::event::ConnectionId;
use net::frame::Purpose;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

mod errors;

const NODES: u32 = 3;
const GROUP: GroupId = GroupId(0);
/// First connection number of clients, above the numbers of connections between nodes.
const CLIENT: u64 = 1_000;
/// Time limit of an election, in milliseconds. It covers the time to notice a silence.
const ELECTED_MS: Ms = Ms(3_000);

struct World {
    time: Time,
    nodes: Vec<Host>,
    /// Pairs of nodes, sender first, between which nothing passes.
    cut: BTreeSet<(usize, usize)>,
    /// Nodes whose address leads to another node, with that node.
    moved: BTreeMap<usize, usize>,
    connections: u64,
}

struct Host {
    node: Node,
    /// True while the node's disk completes no batch.
    is_stuck: bool,
    syncing: Option<Lsn>,
    /// The logged records, if they are to be read back.
    log: Option<Vec<wal::Record>>,
    /// The checkpoint files that the node has begun. Nobody writes them.
    /// The sequence numbers of its checkpoints.
    files: Vec<u64>,
    /// The other end of each connection to a node.
    links: BTreeMap<ConnectionId, (usize, ConnectionId)>,
    input: BTreeMap<ConnectionId, BytesMut>,
    replies: BTreeMap<ConnectionId, Vec<u8>>,
}

impl World {
    /// Creates nodes that are born with one group. They connect to each other as time passes.
    fn new() -> World {
        World::of(1)
    }

    /// Creates the same nodes with `groups` groups.
    fn of(groups: u32) -> World {
        let address = |id: u32| SocketAddr::from(([127, 0, 0, 1], id as u16));
        let initial: Vec<(NodeId, String)> = (1..=NODES).map(|id| (NodeId(id), address(id).to_string())).collect();
        let member = |(id, address): &(NodeId, String)| Member {
            node: *id,
            storage_id: [id.0 as u8; 16],
            address: address.clone(),
        };
        let birth = BirthRecord {
            cluster_id: [9; 16],
            groups,
            hash_key: [7; 16],
            session_ttl_ms: Ms(60_000),
            value_bytes_max: 8 << 20,
            members: initial.iter().map(member).collect(),
            born_ms: Ms(0),
        };
        let time = Time { mono_us: Us(1_000_000), unix_us: Us(1_700_000_000_000_000) };
        let host = |id: u32| {
            let config = NodeConfig {
                initial: initial.clone(),
                groups,
                listen: address(id),
                ..NodeConfig::for_test(NodeId(id))
            };
            let identity = Identity {
                storage_id: [id as u8; 16],
                node: NodeId(id),
                start: 1,
                incarnations: vec![1],
                birth: Some(birth.clone()),
                joined: Vec::new(),
            };
            let mut node = Node::new(config, identity);
            node.begin(Lsn(0), time);
            Host {
                node,
                is_stuck: false,
                syncing: None,
                log: Some(Vec::new()),
                files: Vec::new(),
                links: BTreeMap::new(),
                input: BTreeMap::new(),
                replies: BTreeMap::new(),
            }
        };
        let nodes = (1..=NODES).map(host).collect();
        World { time, nodes, cut: BTreeSet::new(), moved: BTreeMap::new(), connections: 0 }
    }

    /// Creates the same nodes with two groups, and waits until both groups have leaders.
    fn with_two_groups() -> World {
        let mut world = World::of(2);
        let is_led = |world: &World| world.nodes.iter().all(|host| host.node.leaderless() == 0);
        world.run_until("both groups are led", ELECTED_MS, is_led);
        world.run(Ms(1_000));
        world
    }

    /// Creates the same nodes with one group, and waits until node 1 leads it.
    fn led_by_1() -> World {
        let mut world = World::new();
        world.run_until("node 1 leads", ELECTED_MS, |world| world.leads(1) && world.follows(2) && world.follows(3));
        world
    }

    fn node(&mut self, id: u32) -> &mut Host {
        &mut self.nodes[id as usize - 1]
    }

    fn leads(&self, id: u32) -> bool {
        self.nodes[id as usize - 1].node.engine.group(GROUP).leads().is_some()
    }

    fn follows(&self, id: u32) -> bool {
        self.nodes[id as usize - 1].node.engine.group(GROUP).leader().is_some()
    }

    fn next(&self, id: u32) -> Instance {
        self.nodes[id as usize - 1].node.engine.group(GROUP).next()
    }

    /// Cuts this node off from the others.
    fn isolate(&mut self, id: u32) {
        let one = id as usize - 1;
        self.cut = (0..self.nodes.len()).flat_map(|other| [(one, other), (other, one)]).collect();
    }

    fn run(&mut self, ms: Ms) {
        for _ in 0..ms.0 / TICK_MS.0 {
            self.step();
        }
    }

    fn run_until(&mut self, what: &str, limit_ms: Ms, holds: impl Fn(&World) -> bool) {
        for _ in 0..limit_ms.0 / TICK_MS.0 {
            if holds(self) {
                return;
            }
            self.step();
        }
        assert!(holds(self), "{what}: not within {limit_ms} ms");
    }

    /// Sends a request through a node's client `number`.
    fn send(&mut self, id: u32, number: u64, request: &[u8]) {
        let (time, client) = (self.time, client(number));
        let node = &mut self.node(id).node;
        if !knows(node, client) {
            node.opened(client, SocketAddr::from(([127, 0, 0, 9], 9)), time);
        }
        let mut input = BytesMut::from(request);
        node.input(client, &mut input, 0, time);
        // Unread input is offered again, as by the event loop.
        if !input.is_empty() {
            self.node(id).input.insert(client, input);
        }
    }

    /// Takes the replies to a client that were not taken before.
    fn replies(&mut self, id: u32, number: u64) -> String {
        let replies = self.node(id).replies.remove(&client(number)).unwrap_or_default();
        String::from_utf8_lossy(&replies).replace("\r\n", " ").trim_end().to_owned()
    }

    /// Sends a request and returns the reply, which must come within twice [`ELECTED_MS`].
    fn ask(&mut self, id: u32, number: u64, request: &str) -> String {
        self.node(id).replies.remove(&client(number));
        self.send(id, number, format!("{request}\r\n").as_bytes());
        let place = id as usize - 1;
        let limit_ms = ELECTED_MS * 2;
        self.run_until(request, limit_ms, |world| world.nodes[place].replies.contains_key(&client(number)));
        let reply = self.node(id).replies.remove(&client(number)).unwrap_or_default();
        String::from_utf8_lossy(&reply).trim_end().to_owned()
    }

    /// Ticks all nodes, then runs turns until no node has more to do.
    fn step(&mut self) {
        self.time.mono_us += TICK_MS.to_us();
        self.time.unix_us += TICK_MS.to_us();
        for place in 0..self.nodes.len() {
            self.nodes[place].node.tick(self.time);
        }
        while (0..self.nodes.len()).filter(|place| self.turn(*place)).count() > 0 {}
    }

    /// Runs one turn of one node. Returns false if no further turn is needed.
    fn turn(&mut self, place: usize) -> bool {
        let time = self.time;
        let host = &mut self.nodes[place];
        if !host.is_stuck
            && let Some(lsn) = host.syncing.take()
        {
            host.node.on_completion(Completion::Durable { lsn, frame: lsn, sync_us: Us(100) }, time);
        }
        for (id, input) in &mut host.input {
            if !input.is_empty() {
                host.node.input(*id, input, 0, time);
            }
        }
        host.node.end_turn(time);
        let replies = &mut host.replies;
        host.node.take_replies(|id, reply| {
            replies.entry(id).or_default().extend_from_slice(&reply.take_bytes());
            0
        });
        let mut any = false;
        for output in host.node.outputs().take() {
            any |= matches!(output, Output::Frame(..) | Output::Dial(..) | Output::ReadRange(_));
            self.carry_out(place, output);
        }
        let host = &self.nodes[place];
        any || (!host.is_stuck && host.syncing.is_some()) || host.node.has_work()
    }

    fn carry_out(&mut self, place: usize, output: Output) {
        let (time, host) = (self.time, &mut self.nodes[place]);
        match output {
            Output::Append(batch) => {
                assert_eq!(host.syncing.replace(batch.lsn), None, "one batch at a time");
                host.log.iter_mut().for_each(|log| log.extend_from_slice(&batch.records));
            }
            Output::Checkpoint(CheckpointTask::Begin(header)) => host.files.push(header.sequence.0),
            Output::ReadRange(range) => {
                let values = chosen(host.log.as_deref().unwrap_or_default(), &range);
                host.node.on_completion(Completion::Read(range, values), time);
            }
            Output::Dial(to, Purpose::Live, _) => self.dial(place, to.0 as usize - 1),
            Output::Frame(id, frame) => {
                if let Some((other, far)) = host.links.get(&id).copied()
                    && !self.cut.contains(&(place, other))
                {
                    self.nodes[other].input.entry(far).or_default().extend_from_slice(&frame);
                }
            }
            Output::Close(id, _) => self.close(place, id),
            Output::StoreIdentity(_) | Output::Stop(_) | Output::Tell(..) | Output::HandOver(..) => {
                panic!("{output:?}")
            }
            // Unread input of clients is offered again anyway, and no node has files.
            Output::Pause(_) | Output::Resume(_) | Output::LookUp(_) | Output::Dial(_, Purpose::Bulk, _) => {}
            Output::QueryDroppable(_) | Output::DropSegments(_) | Output::Checkpoint(_) | Output::Transfer(_) => {}
        }
    }

    fn dial(&mut self, from: usize, to: usize) {
        let time = self.time;
        let name = NodeId(to as u32 + 1);
        let to = self.moved.get(&to).copied().unwrap_or(to);
        if self.cut.contains(&(from, to)) {
            let completion = Completion::Dialling { to: name, purpose: Purpose::Live, connection: None };
            return self.nodes[from].node.on_completion(completion, time);
        }
        let (near, far) = (ConnectionId(self.connections), ConnectionId(self.connections + 1));
        self.connections += 2;
        assert!(self.connections < CLIENT, "too many connections: they do not last");
        self.nodes[from].links.insert(near, (to, far));
        self.nodes[to].links.insert(far, (from, near));
        self.nodes[to].node.opened(far, SocketAddr::from(([127, 0, 0, 1], 1)), time);
        let completion = Completion::Dialling { to: name, purpose: Purpose::Live, connection: Some(near) };
        self.nodes[from].node.on_completion(completion, time);
        self.nodes[from].node.on_completion(Completion::Connected(near), time);
    }

    fn close(&mut self, place: usize, id: ConnectionId) {
        self.nodes[place].input.remove(&id);
        self.nodes[place].node.closed(id, self.time);
        if let Some((other, far)) = self.nodes[place].links.remove(&id) {
            self.nodes[other].links.remove(&far);
            // Bytes that were in flight before the close still arrive.
            if let Some(mut input) = self.nodes[other].input.remove(&far) {
                self.nodes[other].node.input(far, &mut input, 0, self.time);
            }
            self.nodes[other].node.closed(far, self.time);
        }
    }
}

fn client(number: u64) -> ConnectionId {
    ConnectionId(CLIENT + number)
}

fn knows(node: &Node, connection: ConnectionId) -> bool {
    node.arrivals.has(connection) || node.clients.has(connection)
}

/// Returns the values of a range from a log: of each instance, the value under the ballot that the next instance names
/// as chosen.
fn chosen(records: &[wal::Record], range: &wal::ReadRange) -> Vec<wal::ChosenValue> {
    let values = records.iter().rev().filter_map(wal::Record::value);
    let at = |instance: u64| values.clone().filter(move |value| value.instance.0 == instance);
    let value = |instance: u64| {
        let following = (instance + 1 < range.below.0).then(|| at(instance + 1).next()).flatten();
        let ballot = following.map_or(range.last_chosen, |value| value.chosen);
        let value = at(instance).find(|value| value.ballot == ballot)?;
        Some(wal::ChosenValue { instance: Instance(instance), ballot, payload: value.payload.clone() })
    };
    (range.from.0..range.below.0).map_while(value).collect()
}

#[test]
fn a_checkpoint_that_was_asked_for_is_tried_again_when_it_fails() {
    let mut world = World::led_by_1();
    assert_eq!(world.ask(1, 0, "SET k v"), "+OK");
    assert_eq!(world.ask(1, 0, "PAXOI CHECKPOINT 0"), "+Background checkpoint started");
    world.run(Ms(1_000));
    assert_eq!(world.node(1).files, [1]);
    let (time, reason) = (world.time, "no space".to_owned());
    world.node(1).node.on_completion(
        Completion::Checkpoint(CheckpointResult::Failed { sequence: CheckpointSequence(1), reason }),
        time,
    );
    world.run(CHECKPOINT_RETRY_MS - Ms(1_000));
    assert_eq!(world.node(1).files, [1], "not at once");
    world.run(Ms(2_000));
    assert_eq!(world.node(1).files, [1, 2]);
}

#[test]
fn a_node_that_loads_says_so_and_lets_members_wait() {
    let mut world = World::new();
    let empty_shard = world.node(3).node.begin_rebuild();
    world.run_until("node 1 leads", ELECTED_MS, |world| world.leads(1) && world.follows(2));
    const LOADING: &str = "-LOADING Paxoi is loading the dataset in memory: 40 % done";
    world.node(3).node.set_facts(ProcessFacts { loading_bytes: (40, 100), ..ProcessFacts::default() });
    for command in ["PING", "GET k", "SET k v", "DBSIZE", "PAXOI MEMBER LIST", "PAXOI CHECKPOINT", "CLUSTER SLOTS"] {
        assert_eq!(world.ask(3, 0, command), LOADING, "{command}");
    }
    assert_eq!(world.ask(3, 0, "ECHO x"), "$1\r\nx");
    let info = world.ask(3, 0, "INFO persistence");
    assert!(info.contains("\r\nloading:1\r\n") && info.contains("\r\nloading_loaded_perc:40\r\n"), "{info}");
    assert!(world.ask(3, 0, "INFO paxos").contains("\r\ngroups_leaderless:1\r\n"));
    assert_eq!((world.ask(3, 0, "MULTI").as_str(), world.ask(3, 0, "SET k v").as_str()), ("+OK", LOADING));
    assert!(world.ask(3, 0, "EXEC").starts_with("-EXECABORT"));
    assert_eq!(world.ask(1, 0, "SET k v"), "+OK");
    let clients = |world: &mut World| world.node(3).node.clients.len();
    world.run(crate::config::HANDSHAKE_MS_MAX * 3);
    assert_eq!(clients(&mut world), 1, "members that wait do not become clients");

    let time = world.time;
    let rebuilt = rebuilt_of_nothing(empty_shard, time);
    let RebuildResult { mut shard, peers, catalog, restored } = rebuilt;
    let node = &mut world.node(3).node;
    node.log_read(&peers, &catalog, Lsn(0));
    node.groups_rebuilt(shard.take_all(), time);
    node.all_rebuilt(&restored, time);
    assert_eq!(world.ask(3, 0, "GET k"), "$1\r\nv");
    assert!(world.follows(3));
    assert!(world.ask(3, 0, "INFO persistence").contains("\r\nloading:0\r\n"));
}

/// Rebuilds the groups from no log and no checkpoint.
fn rebuilt_of_nothing(empty_shard: EmptyShard, time: Time) -> RebuildResult {
    let (disk, progress) = (&crate::storage::disk::MemoryDisk::new(), &RecoveryProgress::default());
    let input = RebuildInput { disk, clock: time.clock(), workers: 1, progress };
    let rebuild = empty_shard.rebuild_all(&input, None, |_| ()).expect("one worker needs no thread");
    rebuild.expect("there is nothing that could be wrong").1
}

/// Returns a key of `group`, which is one of two groups.
fn key_of(group: u32) -> String {
    let is_there = |key: &String| routing::group_of(routing::slot(key.as_bytes()), 2) == GroupId(group);
    (0..).map(|number| format!("key{number}")).find(is_there).expect("every group has keys")
}

#[test]
fn groups_are_served_as_they_come() {
    let mut world = World::with_two_groups();
    let leader = if world.node(1).node.engine.group(GroupId(1)).leads().is_some() { 1 } else { 2 };
    assert!(world.node(3).node.engine.groups().all(|group| group.leads().is_none()));
    // As at a start with a complete log.
    let empty_shard = world.node(3).node.begin_rebuild();
    let (here, missing) = (key_of(0), key_of(1));
    let time = world.time;
    let mut rebuilt = rebuilt_of_nothing(empty_shard, time);
    let mut replicas = rebuilt.shard.take_all();
    let second = replicas.split_off(1);
    world.node(3).node.log_read(&rebuilt.peers, &rebuilt.catalog, Lsn(0));
    world.node(3).node.set_facts(ProcessFacts { loading_bytes: (40, 100), ..ProcessFacts::default() });
    const LOADING: &str = "-LOADING Paxoi is loading the dataset in memory: 40 % done";
    assert_eq!(world.ask(3, 0, &format!("GET {here}")), LOADING);
    world.node(3).node.groups_rebuilt(replicas, time);

    assert_eq!(world.ask(3, 0, &format!("SET {here} new")), "+OK");
    assert_eq!(world.ask(3, 0, &format!("GET {here}")), "$3\r\nnew");
    assert_eq!(world.ask(3, 0, "PING"), "+PONG");
    let (get, set) = (format!("GET {missing}"), format!("SET {missing} new"));
    for command in [&get, &set, "DBSIZE", "FLUSHALL", "KEYS *", "PAXOI MEMBER LIST", "PAXOI LEADER MOVE 1 3"] {
        assert_eq!(world.ask(3, 0, command), LOADING, "{command}");
    }
    assert_eq!((world.ask(3, 1, "READONLY").as_str(), world.ask(3, 1, &get).as_str()), ("+OK", LOADING));
    assert_eq!((world.ask(3, 1, "MULTI").as_str(), world.ask(3, 1, &set).as_str()), ("+OK", "+QUEUED"));
    assert_eq!(world.ask(3, 1, "EXEC"), LOADING);
    assert!(world.ask(3, 0, "INFO persistence").contains("\r\nloading:1\r\n"));
    assert!(world.ask(3, 0, "INFO paxos").contains("\r\ngroups_leaderless:1\r\n"));
    // Work on all groups, such as a checkpoint, waits for the last group.
    assert_eq!(world.ask(3, 0, "PAXOI CHECKPOINT"), "+Background checkpoint started");
    world.run(Ms(1_000));
    assert!(world.node(3).files.is_empty());

    // A vote that was requested while the group was missing is requested again when the group is there.
    world.isolate(3 - leader);
    world.node(leader).replies.clear();
    world.send(leader, 0, format!("{set}\r\n").as_bytes());
    world.run(Ms(300));
    assert!(world.node(leader).replies.is_empty(), "a majority needs the vote of node 3");
    let time = world.time;
    world.node(3).node.groups_rebuilt(second, time);
    world.node(3).node.all_rebuilt(&rebuilt.restored, time);
    world.run_until("the vote of node 3", TICK_MS * 5, |world| !world.nodes[leader as usize - 1].replies.is_empty());
    assert_eq!(world.ask(3, 0, &get), "$3\r\nnew");
    assert!(world.ask(3, 0, "INFO persistence").contains("\r\nloading:0\r\n"));
    world.run(Ms(1_000));
    assert_eq!(world.node(3).files, [1]);
}

#[test]
fn nobody_counts_on_a_member_for_a_group_that_it_lacks() {
    let mut world = World::with_two_groups();
    let leader = if world.node(2).node.engine.group(GroupId(1)).leads().is_some() { 2 } else { 3 };
    assert!(world.node(leader).node.engine.group(GroupId(1)).leads().is_some());
    let (key, time) = (key_of(1), world.time);
    let empty_shard = world.node(1).node.begin_rebuild();
    let mut rebuilt = rebuilt_of_nothing(empty_shard, time);
    let mut replicas = rebuilt.shard.take_all();
    let second = replicas.split_off(1);
    world.node(1).node.log_read(&rebuilt.peers, &rebuilt.catalog, Lsn(0));
    world.node(1).node.groups_rebuilt(replicas, time);
    world.run(Ms(1_000));
    // Node 1, the first voter, is asked only about groups for which it can answer.
    world.node(leader).replies.clear();
    world.send(leader, 0, format!("GET {key}\r\n").as_bytes());
    world.run_until("a read at the leader", TICK_MS * 10, |world| !world.nodes[leader as usize - 1].replies.is_empty());
    // Node 1 tells a cluster client the leader of the missing group. A membership change does not rely on node 1 in
    // that group.
    let slots = world.ask(1, 0, "CLUSTER SLOTS");
    assert!(slots.contains(&format!("\r\n:{leader}\r\n")), "{slots}");
    let refusal = world.ask(leader, 0, &format!("PAXOI MEMBER REMOVE {}", 5 - leader));
    assert!(refusal.starts_with("-ERR that would lose the majority"), "{refusal}");
    let refusal = world.ask(leader, 0, "PAXOI LEADER MOVE 1 1");
    assert_eq!(refusal, "-ERR node 1 is loading its groups");

    let time = world.time;
    world.node(1).node.groups_rebuilt(second, time);
    world.node(1).node.all_rebuilt(&rebuilt.restored, time);
    world.run(Ms(100));
    assert_eq!(world.ask(leader, 0, "PAXOI LEADER MOVE 1 1"), "+OK");
}

#[test]
fn a_leader_whose_disk_is_stuck_gives_up_and_the_others_go_on() {
    let mut world = World::led_by_1();
    assert_eq!(world.ask(2, 0, "SET key 1"), "+OK");
    world.node(1).is_stuck = true;
    assert_eq!(world.ask(2, 0, "SET key 2"), "+OK");
    world.run_until("node 1 gives up", ELECTED_MS, |world| !world.leads(1) && (world.leads(2) || world.leads(3)));
    for number in 0..50 {
        assert_eq!(world.ask(2, 0, &format!("SET key {number}")), "+OK");
    }
    world.run(ELECTED_MS);
    assert!(!world.leads(1), "it does not campaign while its disk is stuck");

    world.node(1).is_stuck = false;
    world.run_until("node 1 has what it missed", ELECTED_MS, |world| world.next(1) == world.next(2));
    assert_eq!(world.ask(1, 0, "GET key"), "$2\r\n49");
    // Node 1 leads again when its disk has been healthy for some time.
    world.run_until("node 1 leads again", Ms(20_000), |world| world.leads(1));
}

#[test]
fn a_leader_that_reaches_no_majority_steps_down() {
    let mut world = World::led_by_1();
    world.isolate(1);
    world.run_until("node 1 steps down", ELECTED_MS, |world| !world.leads(1));
    world.run_until("another leads", ELECTED_MS, |world| world.leads(2) || world.leads(3));
    assert_eq!(world.ask(2, 0, "SET key 1"), "+OK");
    assert!(world.ask(1, 0, "SET key 2").starts_with("-CLUSTERDOWN Hash slot not served"));
    world.run(ELECTED_MS);
    assert!(!world.leads(1) && !world.follows(1));

    world.cut.clear();
    world.run_until("node 1 follows", ELECTED_MS, |world| world.follows(1) && world.next(1) == world.next(2));
    assert_eq!(world.ask(1, 0, "GET key"), "$1\r\n1");
}

#[test]
fn a_stuck_disk_bounds_what_waits_for_it() {
    const VALUE_BYTES: usize = 6 << 20;
    let mut world = World::led_by_1();
    world.nodes.iter_mut().for_each(|host| host.log = None);
    world.node(3).is_stuck = true;
    let head = format!("*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n${VALUE_BYTES}\r\n");
    let mut request = head.into_bytes();
    request.resize(request.len() + VALUE_BYTES, b'v');
    request.extend_from_slice(b"\r\n");
    let (mut highest, rounds) = (0, LOG_QUEUE_BYTES / VALUE_BYTES * 3 / 2);
    for _ in 0..rounds {
        world.send(1, 0, &request);
        world.run_until("a reply", ELECTED_MS, |world| world.nodes[0].replies.contains_key(&client(0)));
        assert_eq!(world.node(1).replies.remove(&client(0)).as_deref(), Some(&b"+OK\r\n"[..]));
        highest = highest.max(world.node(3).node.engine.unlogged_bytes());
    }
    assert!(highest > LOG_QUEUE_BYTES / 2, "node 3 takes what its queue can hold: {highest}");
    assert!(highest <= LOG_QUEUE_BYTES + 2 * VALUE_BYTES, "{highest} bytes wait for the disk");
}

fn full() -> Space {
    Space { room: 50 << 20, segment: 64 << 20, preallocated: false, full: true, reserve: 8 << 20, free: 0 }
}

#[test]
fn a_node_whose_disk_is_full_leads_only_if_the_others_are_full_too() {
    let mut world = World::led_by_1();
    assert_eq!(world.ask(2, 0, "SET key 1"), "+OK");
    world.node(1).node.set_space(full());
    assert!(world.ask(1, 0, "SET key 2").starts_with("-MISCONF the disk is full"));
    world.run_until("another leads", ELECTED_MS, |world| world.leads(2) || world.leads(3));
    assert_eq!(world.ask(2, 0, "SET key 3"), "+OK");
    assert_eq!(world.ask(1, 0, "GET key"), "$1\r\n3");

    // A majority is full, so the third node also refuses commands that may add data.
    world.node(2).node.set_space(full());
    world.run(Ms(500));
    assert!(world.ask(3, 0, "SET key 4").starts_with("-MISCONF the disk is full"));
    assert_eq!(world.ask(3, 0, "DEL key"), ":1");
    world.node(3).node.set_space(full());
    world.run(ELECTED_MS);
    let leader = (1..=NODES).find(|id| world.leads(*id)).expect("one of them leads still");
    world.isolate(leader);
    let others: Vec<u32> = (1..=NODES).filter(|id| *id != leader).collect();
    world.run_until("another leads", ELECTED_MS * 2, |world| others.iter().any(|id| world.leads(*id)));
    assert_eq!(world.ask(others[0], 0, "DEL key"), ":0");

    world.cut.clear();
    world.nodes.iter_mut().for_each(|host| host.node.set_space(Space::default()));
    world.run(Ms(500));
    assert_eq!(world.ask(others[1], 0, "SET key 5"), "+OK");
}

#[test]
fn where_nothing_but_promises_fits_reads_go_on() {
    let mut world = World::led_by_1();
    assert_eq!(world.ask(2, 0, "SET key 1"), "+OK");
    let exhausted = Space { room: 1 << 20, ..full() };
    assert!(exhausted.is_exhausted());
    world.nodes.iter_mut().for_each(|host| host.node.set_space(full()));
    world.run(ELECTED_MS);
    world.nodes.iter_mut().for_each(|host| host.node.set_space(exhausted));
    world.run(ELECTED_MS);
    for id in 1..=NODES {
        assert_eq!(world.ask(id, 0, "GET key"), "$1\r\n1");
        assert!(world.ask(id, 0, "DEL key").starts_with("-MISCONF the disk is full: only reads"));
    }
    world.nodes.iter_mut().for_each(|host| host.node.set_space(Space::default()));
    world.run(Ms(500));
    assert_eq!(world.ask(3, 0, "SET key 2"), "+OK");
}
