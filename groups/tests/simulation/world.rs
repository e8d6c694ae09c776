//! Time, the network, the disks' delays, and the faults. One event at a time, ordered by time and then by chance.

use crate::node::{Node, Packet, Shape, Turn};
use crate::oracle::Oracle;
use groups::membership::{ChangeKind, MemberInfo};
use groups::{Membership, Ms, NodeId, SplitMix64, TICK_MS};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Time during which faults happen.
const FAULTS_MS: Ms = Ms(4_000);
/// Limit after the end of the faults within which everything must be done.
const CALM_MS: Ms = Ms(20_000);
/// Time after the end of the faults during which clients still send requests.
const LATE_CLIENTS_MS: Ms = Ms(300);
/// Number of nodes that can join, in a run whose members change.
const GUESTS: u32 = 4;
/// Number of recent packets that are kept for replays.
const REPLAYS: usize = 64;
const PER_MILLE: u64 = 1_000;
const UNLUCKY: u64 = 700;

enum Event {
    Packet { from: NodeId, to: NodeId, packet: Packet },
    Synced { node: NodeId, start: u64, lsn: usize },
    Tick { node: NodeId, start: u64 },
    Restart { node: NodeId },
    Fault,
    Clients,
    Members,
}

/// The faults of one run. Each seed draws its own mix, so that each fault also occurs alone.
#[derive(Clone, Debug)]
struct Faults {
    loss: u64,
    /// The message kind that is lost with a probability of [`UNLUCKY`] per mille; 0: none.
    unlucky: usize,
    duplicates: u64,
    delay_ms: Ms,
    sync_ms: Ms,
    gap_ms: Ms,
    /// The weight of each kind of fault in the draw of the next one.
    weights: [u64; KINDS],
}

const KINDS: usize = 10;
/// One more than the highest message kind: kinds count from 1.
pub(crate) const MESSAGE_KINDS: usize = 17;

/// Totals of one run, or the sum over several runs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    pub(crate) applied: usize,
    pub(crate) reads: u64,
    pub(crate) crashes: usize,
    /// Changes of the members: joins, promotions to voter, and removals.
    pub(crate) changes: u64,
    /// The longest time from the end of the faults until everything was done.
    pub(crate) calm_ms: Ms,
    /// Number of arrived messages of each kind.
    pub(crate) kinds: [u64; MESSAGE_KINDS],
}

impl Done {
    pub(crate) fn add(&mut self, other: &Done) {
        self.applied += other.applied;
        self.reads += other.reads;
        self.crashes += other.crashes;
        self.changes += other.changes;
        self.calm_ms = self.calm_ms.max(other.calm_ms);
        self.kinds.iter_mut().zip(other.kinds).for_each(|(sum, count)| *sum += count);
    }
}

pub(crate) struct World {
    now: Ms,
    jitter: SplitMix64,
    events: BTreeMap<(Ms, u64, u64), Event>,
    count: u64,
    nodes: Vec<Node>,
    syncing: Vec<bool>,
    /// If `cut[from][to]` is true, no packet from `from` reaches `to`.
    cut: Vec<Vec<bool>>,
    recent: VecDeque<(NodeId, NodeId, Packet)>,
    faults: Faults,
    calm: bool,
    /// True if the members change during the run.
    changing: bool,
    oracle: Oracle,
    groups: usize,
    sent: Vec<(NodeId, Packet)>,
    crashes: usize,
    kinds: [u64; MESSAGE_KINDS],
    names: u64,
    /// True if every packet is printed at its time of arrival, even one that a cut then drops.
    is_traced: bool,
}

/// Runs `$body` with one node and a turn. The turn borrows everything outside the node that the node's calls need.
/// Then posts the packets that the node sent, and starts a sync if the node's log needs one.
macro_rules! with_node {
    ($world:ident, $id:expr, |$node:ident, $turn:ident| $body:expr) => {{
        let id: NodeId = $id;
        let mut sent = std::mem::take(&mut $world.sent);
        let position = id.0 as usize - 1;
        {
            let $node = &mut $world.nodes[position];
            let mut turn =
                Turn { now: $world.now, jitter: &mut $world.jitter, oracle: &mut $world.oracle, sent: &mut sent };
            let $turn = &mut turn;
            $body;
        }
        for (to, packet) in sent.drain(..) {
            $world.post(id, to, packet);
        }
        $world.sent = sent;
        $world.start_sync(position);
    }};
}

impl World {
    pub(crate) fn new(seed: u64, members: u32, is_traced: bool) -> World {
        let mut jitter = SplitMix64::new(seed.wrapping_mul(1_000_003) ^ u64::from(members));
        let changing = jitter.below(2) == 0;
        let ids: Vec<NodeId> = (1..=members + if changing { GUESTS } else { 0 }).map(NodeId).collect();
        let shape = Shape {
            membership: Arc::new(Membership::of_ids((1..=members).map(NodeId))),
            nodes: ids.clone(),
            groups: 1 + jitter.below(2) as usize,
            seed,
            window_bytes: [1, 200, 4_000][jitter.below(3) as usize],
            batch_bytes_max: [1, 100, 4_000][jitter.below(3) as usize],
        };
        let faults = Faults::draw(&mut jitter);
        let count = ids.len();
        let mut world = World {
            now: Ms(0),
            jitter,
            events: BTreeMap::new(),
            count: 0,
            groups: shape.groups,
            nodes: ids.iter().map(|id| Node::new(*id, shape.clone())).collect(),
            syncing: vec![false; count],
            cut: vec![vec![false; count]; count],
            recent: VecDeque::new(),
            faults,
            calm: false,
            changing,
            oracle: Oracle::new(&shape.membership, shape.groups),
            sent: Vec::new(),
            crashes: 0,
            kinds: [0; MESSAGE_KINDS],
            names: 0,
            is_traced,
        };
        for id in ids {
            world.restart(id);
        }
        world.at(Ms(1), Event::Fault);
        world.at(Ms(1), Event::Clients);
        if changing {
            world.at(Ms(1), Event::Members);
        }
        world
    }

    /// Runs the faults, then runs without faults until everything is done.
    pub(crate) fn run(&mut self) {
        while self.now < FAULTS_MS {
            self.step();
        }
        self.heal();
        let deadline = self.now + CALM_MS;
        while !self.is_done() {
            assert!(self.now < deadline, "not done {CALM_MS} ms after the last fault: {}", self.state());
            self.step();
        }
        for index in 0..self.groups {
            self.members(index).for_each(|node| self.oracle.check_final(index, node.machine(index)));
        }
    }

    pub(crate) fn done(&self) -> Done {
        let names = |index| self.members(index).next().map_or(0, |node| node.machine(index).names.len());
        let applied = (0..self.groups).map(names).sum();
        let changes = (0..self.groups).map(|index| self.oracle.members(index).version()).sum();
        let reads = self.nodes.iter().map(|node| node.reads_answered).sum();
        Done { applied, reads, crashes: self.crashes, changes, calm_ms: self.now - FAULTS_MS, kinds: self.kinds }
    }

    fn is_done(&self) -> bool {
        let is_done = |index: usize| {
            let mut members = self.members(index);
            let next = members.clone().map(|node| node.group(index).next()).max();
            members.all(|node| node.is_quiet(index) && Some(node.group(index).next()) == next)
        };
        self.now > FAULTS_MS + LATE_CLIENTS_MS && (0..self.groups).all(is_done)
    }

    /// The members of a group that are up.
    fn members(&self, index: usize) -> impl Iterator<Item = &Node> + Clone {
        let members = self.oracle.members(index).everyone();
        self.nodes.iter().filter(|node| node.up && members.contains(node.id))
    }

    fn living(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.up)
    }

    fn state(&self) -> String {
        let of = |node: &Node, index: usize| {
            let group = node.group(index);
            let leader = group.leader().map(|ballot| ballot.to_string()).unwrap_or_default();
            let waits = (group.is_behind(), group.has_waiting(), group.leads().is_some());
            format!("{}/{index}: next {} leader {leader} behind/waits/leads {waits:?}", node.id, group.next())
        };
        let all = self.living().flat_map(|node| (0..self.groups).map(|index| of(node, index)));
        all.collect::<Vec<String>>().join("; ")
    }

    fn at(&mut self, delay_ms: Ms, event: Event) {
        self.count += 1;
        let tie = self.jitter.below(1 << 32);
        self.events.insert((self.now + delay_ms, tie, self.count), event);
    }

    fn step(&mut self) {
        let ((now, _, _), event) = self.events.pop_first().expect("ticks go on");
        self.now = now;
        match event {
            Event::Packet { from, to, packet } => {
                let is_cut = self.cut[from.0 as usize - 1][to.0 as usize - 1];
                if self.is_traced {
                    eprintln!("{now} {from} -> {to} {packet:?}");
                }
                if !is_cut && self.node(to).up {
                    if let Packet::Group(_, message) = &packet {
                        self.kinds[message.kind() as usize] += 1;
                    }
                    with_node!(self, to, |node, turn| node.on_packet(from, packet, turn));
                }
            }
            Event::Synced { node, start, lsn } => {
                if self.is_running(node, start) {
                    self.syncing[node.0 as usize - 1] = false;
                    with_node!(self, node, |node, turn| node.on_synced(lsn, turn));
                }
            }
            Event::Tick { node, start } => {
                if self.is_running(node, start) {
                    with_node!(self, node, |node, turn| node.tick(turn));
                    self.at(TICK_MS, Event::Tick { node, start });
                }
            }
            Event::Restart { node } => self.restart(node),
            Event::Fault => self.fault(),
            Event::Clients => self.clients(),
            Event::Members => self.change_members(),
        }
    }

    fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize - 1]
    }

    fn is_running(&self, id: NodeId, start: u64) -> bool {
        self.node(id).up && self.node(id).start == start
    }

    fn post(&mut self, from: NodeId, to: NodeId, packet: Packet) {
        if from == to {
            return self.at(Ms(0), Event::Packet { from, to, packet });
        }
        let Faults { loss, duplicates, unlucky, .. } = self.faults;
        if !self.calm {
            self.recent.push_back((from, to, packet.clone()));
            if self.recent.len() > REPLAYS {
                self.recent.pop_front();
            }
            let is_unlucky = matches!(&packet, Packet::Group(_, message) if message.kind() as usize == unlucky);
            if self.jitter.below(PER_MILLE) < if is_unlucky { UNLUCKY } else { loss } {
                return;
            }
        }
        if self.jitter.below(PER_MILLE) < duplicates {
            let delay = self.delay();
            self.at(delay, Event::Packet { from, to, packet: packet.clone() });
        }
        let delay = self.delay();
        self.at(delay, Event::Packet { from, to, packet });
    }

    /// A random delay: at most 5 ms for 9 of 10 packets, at most `delay_ms` for the others.
    fn delay(&mut self) -> Ms {
        let most = if self.jitter.below(10) == 0 { self.faults.delay_ms } else { self.faults.delay_ms.min(Ms(5)) };
        self.jitter.below_ms(most + Ms(1))
    }

    fn start_sync(&mut self, position: usize) {
        let Some(lsn) = self.nodes[position].unsynced() else { return };
        if self.syncing[position] || !self.nodes[position].up {
            return;
        }
        self.syncing[position] = true;
        let (node, start) = (self.nodes[position].id, self.nodes[position].start);
        let delay = self.jitter.below_ms(self.faults.sync_ms + Ms(1));
        self.at(delay, Event::Synced { node, start, lsn });
    }

    fn restart(&mut self, id: NodeId) {
        if self.node(id).up || self.node(id).is_buried {
            return;
        }
        self.syncing[id.0 as usize - 1] = false;
        with_node!(self, id, |node, turn| node.restart(turn));
        let start = self.node(id).start;
        let delay = self.jitter.below_ms(TICK_MS);
        self.at(delay, Event::Tick { node: id, start });
        for other in self.ids() {
            self.connect(id, other);
        }
    }

    fn connect(&mut self, one: NodeId, other: NodeId) {
        if one == other || !self.node(one).up || !self.node(other).up {
            return;
        }
        with_node!(self, one, |node, turn| node.on_connected(other, turn));
        with_node!(self, other, |node, turn| node.on_connected(one, turn));
    }

    fn ids(&self) -> Vec<NodeId> {
        self.nodes.iter().map(|node| node.id).collect()
    }

    fn any_id(&mut self) -> NodeId {
        NodeId(1 + self.jitter.below(self.nodes.len() as u64) as u32)
    }

    fn any_group(&mut self) -> usize {
        self.jitter.below(self.groups as u64) as usize
    }

    /// In some runs, takes some nodes down for ever, at most a minority: the remaining majority must suffice.
    fn bury(&mut self) {
        // If the members change, the nodes that are left may be too few already.
        let most = if self.changing { 0 } else { (self.nodes.len() as u64 - 1) / 2 };
        for _ in 0..self.jitter.below(most + 1) {
            let id = self.any_id();
            if self.node(id).up {
                with_node!(self, id, |node, turn| node.crash(turn));
            }
            self.nodes[id.0 as usize - 1].is_buried = true;
        }
    }

    /// Ends the faults: all nodes that are not buried are up, every connection is new, and nothing is lost from now on.
    fn heal(&mut self) {
        self.calm = true;
        self.bury();
        self.faults.delay_ms = self.faults.delay_ms.min(Ms(20));
        self.faults.sync_ms = self.faults.sync_ms.min(Ms(20));
        self.cut.iter_mut().flatten().for_each(|cut| *cut = false);
        for id in self.ids() {
            self.restart(id);
            self.nodes[id.0 as usize - 1].disk_ok = true;
        }
        for one in self.ids() {
            for other in self.ids().into_iter().filter(|other| *other > one) {
                self.connect(one, other);
            }
        }
    }

    fn clients(&mut self) {
        if self.now > FAULTS_MS + LATE_CLIENTS_MS {
            return;
        }
        let delay = self.jitter.below_ms(Ms(40)) + Ms(1);
        self.at(delay, Event::Clients);
        let (id, index) = (self.any_id(), self.any_group());
        if !self.node(id).up {
            return;
        }
        self.names += 10;
        let (names, kind, several) = (self.names, self.jitter.below(10), 1 + self.jitter.below(5));
        with_node!(self, id, |node, turn| match kind {
            0..4 => (0..several).for_each(|count| node.submit(index, names + count)),
            4..8 => node.read(index, names, turn),
            8 => node.withdraw(index, turn),
            _ => node.cancel_read(index),
        });
        if self.jitter.below(2) == 0 {
            with_node!(self, id, |node, turn| node.flush(turn));
        }
    }

    /// Asks for one change: a node joins, is promoted, or leaves. The changes that two nodes ask for may race.
    fn change_members(&mut self) {
        if self.now > FAULTS_MS {
            return;
        }
        let delay = self.jitter.below_ms(self.faults.gap_ms) + Ms(1);
        self.at(delay, Event::Members);
        let (id, other, index) = (self.any_id(), self.any_id(), self.any_group());
        if !self.node(id).up {
            return;
        }
        let members = self.node(id).group(index).membership();
        let (is_member, votes) = (members.everyone().contains(other), members.voters().contains(other));
        let kind = match self.jitter.below(8) {
            0 => ChangeKind::Remove(other),
            1 if votes => ChangeKind::Remove(other),
            _ if is_member => ChangeKind::Promote(other),
            _ => ChangeKind::AddLearner(MemberInfo { node: other, storage: [0; 16], address: String::new() }),
        };
        with_node!(self, id, |node, turn| (node.change(index, kind), node.flush(turn)));
    }

    fn fault(&mut self) {
        if self.calm {
            return;
        }
        let delay = self.jitter.below_ms(self.faults.gap_ms) + Ms(1);
        self.at(delay, Event::Fault);
        let (id, other, index) = (self.any_id(), self.any_id(), self.any_group());
        let kind = self.faults.kind(&mut self.jitter);
        if kind != 0 && kind != 2 && !self.node(id).up {
            return;
        }
        match kind {
            0 => self.partition(),
            1 => self.crash(id),
            2 => self.connect(id, other),
            3 => self.replay(),
            4 => self.mistake(index, other),
            5 => with_node!(self, id, |node, turn| node.resign(index, turn)),
            6 => with_node!(self, id, |node, turn| node.begin_leader_transfer(index, other, turn)),
            7 => with_node!(self, id, |node, turn| (node.propose_time(index), node.flush(turn))),
            8 => {
                let (jump, node) = (self.jitter.below(200_000), &mut self.nodes[id.0 as usize - 1]);
                node.unix_offset = Ms(900_000 + jump);
            }
            _ => {
                let node = &mut self.nodes[id.0 as usize - 1];
                node.disk_ok = !node.disk_ok;
            }
        }
    }

    /// Simulates an error of the failure detectors: some or all of the other nodes believe that a live leader is dead.
    fn mistake(&mut self, index: usize, leader: NodeId) {
        let most = self.jitter.below(3);
        for id in self.ids() {
            if id != leader && self.node(id).up && self.jitter.below(3) <= most {
                with_node!(self, id, |node, turn| node.on_claim(index, leader, None, turn));
            }
        }
    }

    fn crash(&mut self, id: NodeId) {
        self.crashes += 1;
        with_node!(self, id, |node, turn| node.crash(turn));
        let delay = self.jitter.below_ms(Ms(800)) + Ms(1);
        self.at(delay, Event::Restart { node: id });
    }

    /// Draws the cut links anew: none, those between two sides, those between two sides that share one member, or
    /// single directions of links at random (one in four).
    fn partition(&mut self) {
        let count = self.nodes.len();
        let (kind, bridge) = (self.jitter.below(5), self.jitter.below(count as u64) as usize);
        let sides: Vec<u64> = (0..count).map(|_| self.jitter.below(2)).collect();
        for from in 0..count {
            for to in 0..count {
                self.cut[from][to] = from != to
                    && match kind {
                        0 | 1 => false,
                        2 => sides[from] != sides[to],
                        3 => sides[from] != sides[to] && from != bridge && to != bridge,
                        _ => self.jitter.below(4) == 0,
                    };
            }
        }
    }

    fn replay(&mut self) {
        for _ in 0..1 + self.jitter.below(8) {
            if self.recent.is_empty() {
                return;
            }
            let position = self.jitter.below(self.recent.len() as u64) as usize;
            let (from, to, packet) = self.recent[position].clone();
            let delay = self.delay() + self.delay();
            self.at(delay, Event::Packet { from, to, packet });
        }
    }
}

impl Faults {
    fn draw(jitter: &mut SplitMix64) -> Faults {
        let mut some = |choices: &[u64]| choices[jitter.below(choices.len() as u64) as usize];
        let mut weights = [0; KINDS];
        for (kind, weight) in weights.iter_mut().enumerate() {
            // Cuts, crashes, reconnections, replays and detector errors are more frequent than the rest.
            *weight = some(&[0, 1, 3]) * if kind < 5 { 3 } else { 1 };
        }
        weights[2] += 1;
        Faults {
            loss: some(&[0, 0, 20, 100, 300]),
            unlucky: some(&[0, 1]) as usize * some(&[1, 2, 3, 4, 5, 5, 6, 7, 9, 9, 10, 11, 12, 13, 15]) as usize,
            duplicates: some(&[0, 50, 200]),
            delay_ms: Ms(some(&[2, 20, 100, 400])),
            sync_ms: Ms(some(&[0, 3, 30, 200])),
            gap_ms: Ms(some(&[40, 150, 600])),
            weights,
        }
    }

    fn kind(&self, jitter: &mut SplitMix64) -> usize {
        let mut left = jitter.below(self.weights.iter().sum());
        for (kind, weight) in self.weights.iter().enumerate() {
            if left < *weight {
                return kind;
            }
            left -= weight;
        }
        unreachable!("the weights cover every draw")
    }
}
