//! Cluster management with the test's own engine, peers and outputs, without a node and without connections.

use super::*;
use crate::admin::stats::Stats;
use crate::config::PING_MS;
use crate::identity::Member;
use crate::kv::table;
use crate::node::cluster_time;
use crate::node::crew::Crew;
use crate::node::peers::{Peer, PingState, RoundTrip};
use crate::node::relay::Relays;
use crate::node::upkeep::Ranges;
use crate::node::wire::{Ping, PingClocks};
use crate::node::{Output, Outputs};
use crate::versions::Versions;
use groups::membership::{ChangeKind, MembershipChange};
use groups::{Membership, NodeId, Us};
use net::event::ConnectionId;

/// The components of node 1 that cluster management may touch.
struct Harness {
    cluster: Cluster,
    engine: Engine,
    peers: Peers,
    crew: Crew,
    relays: Relays,
    ranges: Ranges,
    stats: Stats,
    outputs: Outputs,
    cluster_time: ClusterTime,
    identity: Identity,
    config: NodeConfig,
    time: Time,
}

fn address(id: u32) -> String {
    format!("127.0.0.1:{id}")
}

fn record() -> BirthRecord {
    let member = |id: u32| Member { node: NodeId(id), storage_id: [id as u8; 16], address: address(id) };
    BirthRecord {
        cluster_id: [9; 16],
        groups: 2,
        hash_key: [7; 16],
        session_ttl_ms: Ms(60_000),
        value_bytes_max: 8 << 20,
        members: (1..=3).map(member).collect(),
        born_ms: Ms(0),
    }
}

impl Harness {
    fn new(birth: Option<&BirthRecord>) -> Harness {
        let identity = Identity {
            storage_id: [1; 16],
            node: NodeId(1),
            start: 1,
            incarnations: vec![1],
            birth: birth.cloned(),
            joined: Vec::new(),
        };
        let initial = (1..=3).map(|id| (NodeId(id), address(id))).collect();
        let config = NodeConfig { initial, groups: 2, value_bytes_max: 8 << 20, ..NodeConfig::for_test(NodeId(1)) };
        let mut engine = Engine::new(&identity, &config);
        if let Some(record) = birth {
            engine.set_groups(record.groups, groups(&config, &identity, record));
        }
        Harness {
            cluster: Cluster::new(&identity, &config),
            engine,
            peers: Peers::new(&identity, Roster::of_one(&membership(&config, birth)), &config),
            crew: Crew::new(config.workers),
            relays: Relays::new(1),
            ranges: Ranges::default(),
            stats: Stats::new(table::names_by_verb()),
            outputs: Outputs::default(),
            cluster_time: ClusterTime::new(Versions::OURS),
            identity,
            config,
            time: Time { mono_us: Us(1_000_000), unix_us: Us(1_700_000_000_000_000) },
        }
    }

    fn call<R>(&mut self, verb: impl FnOnce(&mut Cluster, &mut ClusterContext<'_>) -> R) -> R {
        let ports = EnginePorts {
            peers: &mut self.peers,
            clients: None,
            crew: &mut self.crew,
            relays: &mut self.relays,
            ranges: &mut self.ranges,
            stats: &mut self.stats,
            outputs: &mut self.outputs,
            cluster_time: &mut self.cluster_time,
            now_us: self.time.mono_us,
        };
        let is_born = self.identity.birth.is_some();
        let (engine, identity, config, time) = (&mut self.engine, &mut self.identity, &self.config, self.time);
        verb(&mut self.cluster, &mut ClusterContext { engine, ports, identity, config, is_born, time })
    }

    fn hello(&self, from: u32) -> Hello {
        Hello {
            cluster: None,
            node: NodeId(from),
            storage: [from as u8; 16],
            start: 1,
            incarnations: vec![1],
            groups: 2,
            members: vec![NodeId(1), NodeId(2), NodeId(3)],
            joins: None,
            versions: Versions::OURS,
            to: None,
            announced: None,
            address: None,
            workers: crate::workers::Workers::ONE,
        }
    }

    /// Connects another initial member.
    fn link(&mut self, from: u32) {
        let hello = self.hello(from);
        assert!(self.cluster.check_unborn_hello(&hello).is_ok());
        self.peers.on_linked(ConnectionId(u64::from(from)), &hello, Versions::OURS.highest, Ms(1_000));
        self.cluster.on_unborn(&hello);
    }

    /// Lets a linked peer echo a ping.
    fn reach(&mut self, from: u32) {
        let state = PingState { start: 1, disk: true, full: false, draining: false, clocks: None };
        self.time.mono_us += PING_MS.to_us();
        assert!(self.peers.ping(state, self.time.mono_us, |_, _| None));
        let pinged = self.peers.get(NodeId(from)).map_or(0, Peer::pinged);
        let ping = Ping { start: 1, number: self.time.mono_us.0, echo: pinged, disk: true, ..Ping::default() };
        self.peers.on_ping(NodeId(from), &ping, self.time.mono_us);
    }

    fn tell_clock(&mut self, from: u32) {
        let clocks = PingClocks { unix_us: self.time.unix_us, cluster_us: None };
        let round_trip = RoundTrip { sent_us: self.time.mono_us - Us(1_000), us: Us(1_000) };
        self.cluster_time.on_ping(NodeId(from), clocks, round_trip, self.time);
    }

    fn tick(&mut self, ms: Ms) -> Vec<Output> {
        (self.time.mono_us, self.time.unix_us) = (self.time.mono_us + ms.to_us(), self.time.unix_us + ms.to_us());
        let clock_context = cluster_time::ClockContext {
            me: NodeId(1),
            peers: &self.peers,
            engine: &self.engine,
            is_born: self.identity.birth.is_some(),
            born_ms: Ms(0),
        };
        self.cluster_time.tick(&clock_context, self.time);
        if self.identity.birth.is_none() {
            self.call(Cluster::tick_birth);
        }
        self.outputs.take()
    }

    /// Handles the join request of a node, on connection 50.
    fn handle_join_request(&mut self, from: u32, storage: u8, at: &str) -> Result<(), Refusal> {
        let hello = Hello { storage: [storage; 16], ..self.hello(from) };
        self.call(|cluster, cx| cluster.handle_join_request(ConnectionId(50), &hello, at, cx))
    }

    fn change_members(&mut self, kind: ChangeKind) {
        let mut membership = Membership::clone(self.engine.group(GroupId(0)).membership());
        membership.apply(&MembershipChange { version: membership.version(), kind }).expect("a change");
        drop(self.peers.enroll(Roster::of_one(&membership)));
    }
}

#[test]
fn a_birth_waits_for_all_members_and_for_their_clocks_and_is_stored_once() {
    let mut harness = Harness::new(None);
    harness.link(2);
    assert!(harness.tick(Ms(20)).is_empty());
    harness.link(3);
    harness.tell_clock(2);
    assert!(harness.tick(Ms(20)).is_empty(), "the clock of node 3 is not known");
    harness.tell_clock(3);
    let outputs = harness.tick(Ms(20));
    let [Output::StoreIdentity(stored)] = &outputs[..] else { panic!("{outputs:?}") };
    let birth = stored.birth.as_ref().unwrap();
    assert_eq!((birth.members.clone(), birth.groups), (record().members, 2));
    assert!(harness.tick(Ms(20)).is_empty(), "it is being stored");
}

#[test]
fn a_birth_record_of_another_member_counts_if_it_names_this_directory() {
    let mut harness = Harness::new(None);
    let mut other = record();
    other.members.pop();
    assert!(harness.call(|cluster, cx| cluster.handle_birth(other, cx)).is_err(), "other members");
    assert!(harness.call(|cluster, cx| cluster.handle_birth(BirthRecord { groups: 0, ..record() }, cx)).is_err());
    let larger = BirthRecord { value_bytes_max: 9 << 20, ..record() };
    assert_eq!(harness.call(|cluster, cx| cluster.handle_birth(larger, cx)), Ok(()));
    assert!(
        matches!(&harness.outputs.take()[..], [Output::Stop(reason)] if reason.contains("--value-bytes-max 9437184"))
    );
    let mut foreign = record();
    foreign.members[0].storage_id = [8; 16];
    assert_eq!(harness.call(|cluster, cx| cluster.handle_birth(foreign, cx)), Ok(()));
    assert!(matches!(&harness.outputs.take()[..], [Output::Stop(reason)] if reason.contains("another data directory")));
    assert_eq!(harness.call(|cluster, cx| cluster.handle_birth(record(), cx)), Ok(()));
    assert!(matches!(harness.outputs.take()[..], [Output::StoreIdentity(_)]));
}

#[test]
fn lists_of_initial_members_that_differ_are_told() {
    let harness = Harness::new(None);
    let hello = Hello { members: vec![NodeId(1), NodeId(2)], ..harness.hello(2) };
    let refusal = harness.cluster.check_unborn_hello(&hello).unwrap_err();
    assert!(
        !refusal.fatal && refusal.text.ends_with("1,2, but node 1 has 1,2,3: give all the same list"),
        "{refusal:?}"
    );
    let waits_for = |harness: &Harness| harness.cluster.waits_for(NodeId(1), &harness.config, &harness.cluster_time);
    assert!(waits_for(&harness).ends_with("it waits for node 2 and node 3 to connect"));
    let mut harness = harness;
    harness.link(2);
    harness.link(3);
    harness.tell_clock(2);
    harness.tick(Ms(20));
    assert!(waits_for(&harness).ends_with("the clock of node 3 is not known yet"));
}

#[test]
fn a_node_that_waits_is_admitted_when_it_is_a_member_and_forgotten_when_it_is_gone() {
    let mut harness = Harness::new(Some(&record()));
    assert_eq!(harness.handle_join_request(4, 4, "127.0.0.1:4"), Ok(()));
    assert!(harness.outputs.take().is_empty());
    for (id, storage, at) in [(1, 1, "a:1"), (2, 9, "a:1"), (4, 5, "a:1"), (u32::MAX, 5, "a:1"), (5, 5, "nowhere")] {
        let refusal = harness.handle_join_request(id, storage, at).unwrap_err();
        assert!(refusal.fatal, "{id}: {}", refusal.text);
    }
    let info = MemberInfo { node: NodeId(4), storage: [4; 16], address: "127.0.0.1:4".to_owned() };
    harness.change_members(ChangeKind::AddLearner(info));
    harness.call(|cluster, cx| cluster.admit(cx));
    assert!(matches!(harness.outputs.take()[..], [Output::Frame(ConnectionId(50), _)]));
    harness.call(|cluster, cx| cluster.admit(cx));
    assert!(harness.outputs.take().is_empty(), "once");
    assert_eq!(harness.handle_join_request(5, 5, "127.0.0.1:5"), Ok(()));
    harness.cluster.tick_joining(Ms(100_000));
    assert_eq!(harness.cluster.joining.waiting().count(), 0, "the node has not repeated its hello in time");
}

#[test]
fn a_removed_node_stops_when_it_has_reached_a_majority_for_a_while() {
    let mut harness = Harness::new(Some(&record()));
    for id in [2, 3] {
        harness.peers.on_linked(ConnectionId(u64::from(id)), &harness.hello(id), 4, Ms(1_000));
    }
    harness.change_members(ChangeKind::Remove(NodeId(1)));
    for _ in 0..5 {
        harness.time.mono_us += REMOVED_MS.to_us();
        harness.call(Cluster::tick_removed);
        assert!(harness.outputs.take().is_empty(), "nobody has learned of it");
    }
    [2, 3].iter().for_each(|id| harness.reach(*id));
    harness.call(Cluster::tick_removed);
    assert!(harness.outputs.take().is_empty());
    harness.time.mono_us += REMOVED_MS.to_us();
    [2, 3].iter().for_each(|id| harness.reach(*id));
    harness.call(Cluster::tick_removed);
    assert!(matches!(harness.outputs.take()[..], [Output::Stop(_)]));
}

#[test]
fn an_impossible_move_is_refused_at_once() {
    let harness = Harness::new(Some(&record()));
    let view = DecisionView { engine: &harness.engine, peers: &harness.peers, me: NodeId(1), time: harness.time };
    let check = |words: &str| {
        let words: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
        harness.cluster.check_move(&words, view)
    };
    assert_eq!(check("paxoi leader move 1 2"), Ok((GroupId(1), NodeId(2))));
    for wrong in ["paxoi leader move 2 2", "paxoi leader move 1 4", "paxoi leader give 1 2", "paxoi leader move x 2"] {
        assert!(matches!(check(wrong), Err(Reply::Error(_))), "{wrong}");
    }
}

#[test]
fn a_drained_node_lets_others_lead_until_it_is_undrained() {
    let mut harness = Harness::new(Some(&record()));
    assert!(!harness.cluster.is_draining());
    assert_eq!((harness.cluster.drain(true), harness.cluster.is_draining()), (Reply::Ok, true));
    assert_eq!(harness.call(|cluster, cx| cluster.preferred_leaders(cx)), [], "the others are not there");
    assert_eq!((harness.cluster.drain(false), harness.cluster.is_draining()), (Reply::Ok, false));
}
