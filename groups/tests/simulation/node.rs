//! One node: its groups, its log with a gate, its failure detector, its clients and their read questions. It does what
//! the server does, but [`World`](crate::world::World) simulates the network, the disk and the clock.

use crate::machine::{Machine, Name};
use crate::oracle::{Durable, Oracle};
use crate::reads::{Question, Read};
use bytes::BytesMut;
use groups::acceptor::Accepted;
use groups::membership::ChangeKind;
use groups::message::Range;
use groups::{
    Ballot, Clock, Counter, Effect, ElectionContext, Group, GroupId, Instance, LeadershipAnswer, LocalOutcome,
    Membership, MembershipChange, Message, Ms, NodeId, Record, Settings, SplitMix64, Value,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Silence after which a peer counts as gone, in milliseconds.
const SILENCE_MS: Ms = Ms(300);
/// Ticks from one ping to the next.
const PING_TICKS: u64 = 3;

/// A packet from one node to another.
#[derive(Clone, Debug)]
pub(crate) enum Packet {
    Group(usize, Message),
    /// A sign of life, with the nodes that the sender reaches and the ballots under which it leads.
    Ping {
        start: u64,
        reached: Vec<NodeId>,
        claims: Vec<Option<Ballot>>,
    },
    /// The first packet on a new connection: the sender's `next` in each group.
    Hello(Vec<Instance>),
    Ask {
        number: u64,
        group: usize,
        ballot: Ballot,
    },
    Answered {
        number: u64,
        group: usize,
        version: u64,
        answer: LeadershipAnswer,
    },
}

/// The inputs and outputs of one call of a node.
pub(crate) struct Turn<'a> {
    pub(crate) now: Ms,
    pub(crate) jitter: &'a mut SplitMix64,
    pub(crate) oracle: &'a mut Oracle,
    pub(crate) sent: &'a mut Vec<(NodeId, Packet)>,
}

/// The configuration of a cluster.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    /// The initial members.
    pub(crate) membership: Arc<Membership>,
    /// The initial members and the nodes that can join.
    pub(crate) nodes: Vec<NodeId>,
    pub(crate) groups: usize,
    pub(crate) seed: u64,
    pub(crate) window_bytes: u32,
    pub(crate) batch_bytes_max: usize,
}

pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) start: u64,
    pub(crate) up: bool,
    /// True if the node never starts again.
    pub(crate) is_buried: bool,
    pub(crate) disk_ok: bool,
    /// Offsets of this node's two clocks from the world's, in milliseconds.
    pub(crate) mono_offset: Ms,
    pub(crate) unix_offset: Ms,
    pub(crate) reads_answered: u64,
    pub(crate) shape: Shape,
    pub(crate) shards: Vec<Shard>,
    log: Vec<(usize, Record)>,
    synced: usize,
    durable: Durable,
    gated: VecDeque<Gated>,
    heard: BTreeMap<NodeId, Ms>,
    starts: BTreeMap<NodeId, u64>,
    ticks: u64,
    pub(crate) numbers: u64,
    pub(crate) questions: Vec<Question>,
    pub(crate) effects: Vec<Effect>,
}

pub(crate) struct Shard {
    pub(crate) group: Group,
    machine: Machine,
    pub(crate) applied: Instance,
    /// Length of the log up to and including this group's last record.
    lsn: usize,
    /// Promise and vote according to the records: the acceptor must match them.
    promised: Ballot,
    accepted: Option<(Instance, Ballot)>,
    pub(crate) pending: BTreeMap<Counter, Name>,
    /// Counters of this node's membership changes that are not answered yet.
    pub(crate) changes: BTreeSet<Counter>,
    /// Counter of this node's newest applied command.
    pub(crate) newest: Counter,
    pub(crate) reads: BTreeMap<u64, Read>,
}

struct Gated {
    lsn: usize,
    group: usize,
    to: NodeId,
    message: Message,
}

impl Node {
    pub(crate) fn new(id: NodeId, shape: Shape) -> Node {
        Node {
            id,
            start: 0,
            up: false,
            is_buried: false,
            disk_ok: true,
            mono_offset: Ms(0),
            unix_offset: Ms(1_000_000),
            reads_answered: 0,
            shape,
            shards: Vec::new(),
            log: Vec::new(),
            synced: 0,
            durable: Durable::default(),
            gated: VecDeque::new(),
            heard: BTreeMap::new(),
            starts: BTreeMap::new(),
            ticks: 0,
            numbers: 0,
            questions: Vec::new(),
            effects: Vec::new(),
        }
    }

    /// Starts the node from the records in its log.
    pub(crate) fn restart(&mut self, turn: &mut Turn<'_>) {
        self.start += 1;
        (self.up, self.disk_ok, self.ticks) = (true, true, 0);
        self.mono_offset = turn.jitter.below_ms(Ms(1_000_000));
        self.numbers = self.start << 32;
        self.shards = (0..self.shape.groups).map(|index| self.shard(index)).collect();
        for (lsn, (group, record)) in self.log.clone().into_iter().enumerate() {
            let clock = self.clock(turn.now);
            let shard = &mut self.shards[group];
            shard.note(&record);
            shard.lsn = lsn + 1;
            shard.group.restore(record, clock, &mut self.effects).expect("the log restores");
            self.carry_out(group, turn);
        }
        let clock = self.clock(turn.now);
        for index in 0..self.shards.len() {
            self.shards[index].group.begin(clock);
            self.check(index, turn);
        }
    }

    /// Crashes the node. It loses the unsynced records, except a random prefix that happened to reach the disk.
    pub(crate) fn crash(&mut self, turn: &mut Turn<'_>) {
        let lucky = self.synced + turn.jitter.below((self.log.len() - self.synced) as u64 + 1) as usize;
        self.log.truncate(lucky);
        self.make_durable(lucky, turn);
        self.up = false;
        self.shards.clear();
        self.gated.clear();
        self.heard.clear();
        self.questions.clear();
        self.effects.clear();
    }

    /// Returns the length of the log if some of it is not synced.
    pub(crate) fn unsynced(&self) -> Option<usize> {
        (self.log.len() > self.synced).then_some(self.log.len())
    }

    /// Marks the log as durable up to `lsn`, and sends the messages that waited for it.
    pub(crate) fn on_synced(&mut self, lsn: usize, turn: &mut Turn<'_>) {
        self.make_durable(lsn, turn);
        while self.gated.front().is_some_and(|gated| gated.lsn <= lsn) {
            let Some(Gated { group, to, message, .. }) = self.gated.pop_front() else { return };
            self.send(group, to, message, turn);
        }
    }

    fn make_durable(&mut self, lsn: usize, turn: &mut Turn<'_>) {
        for (group, record) in &self.log[self.synced.min(lsn)..lsn] {
            self.durable.add(*group, record);
            turn.oracle.on_durable(self.id, *group, record);
        }
        self.synced = self.synced.max(lsn);
    }

    pub(crate) fn on_packet(&mut self, from: NodeId, packet: Packet, turn: &mut Turn<'_>) {
        let clock = self.clock(turn.now);
        match packet {
            Packet::Group(index, message) => {
                let mut body = BytesMut::new();
                message.encode(&mut body);
                let decoded = Message::decode(message.kind(), &body.freeze()).expect("it survives the wire");
                assert_eq!(decoded, message);
                self.shards[index].group.learn_before(from, &decoded, clock, &mut self.effects);
                self.perform(index, turn);
                self.shards[index].group.handle(from, decoded, clock, &mut self.effects);
                self.perform(index, turn);
            }
            Packet::Ping { start, reached, claims } => {
                if self.starts.get(&from).is_some_and(|known| *known > start) {
                    return;
                }
                self.starts.insert(from, start);
                self.heard.insert(from, turn.now);
                for (index, claim) in claims.into_iter().enumerate() {
                    let counts = self.shards[index].group.is_quorum(from, &reached);
                    self.on_claim(index, from, claim.filter(|_| counts), turn);
                }
            }
            Packet::Hello(nexts) => {
                for (index, next) in nexts.into_iter().enumerate() {
                    self.shards[index].group.note_ahead(from, next, clock, &mut self.effects);
                    self.perform(index, turn);
                }
            }
            Packet::Ask { number, group, ballot } => {
                let asked = &self.shards[group].group;
                let (answer, version) = (asked.answer(ballot), asked.membership().version());
                turn.sent.push((from, Packet::Answered { number, group, version, answer }));
                self.shards[group].group.announce(from, &mut self.effects);
                self.perform(group, turn);
            }
            Packet::Answered { number, group, version, answer } => self.on_answer(from, number, group, version, answer),
        }
        if turn.jitter.below(4) > 0 {
            self.flush(turn);
        }
    }

    /// Notes whether `from` leads a group. The simulated failure detector can be wrong about that.
    pub(crate) fn on_claim(&mut self, index: usize, from: NodeId, claim: Option<Ballot>, turn: &mut Turn<'_>) {
        let clock = self.clock(turn.now);
        let group = &mut self.shards[index].group;
        match claim {
            Some(ballot) => group.on_claim(ballot, clock, &mut self.effects),
            None => group.on_no_claim(from, clock),
        }
        self.perform(index, turn);
    }

    pub(crate) fn on_connected(&mut self, peer: NodeId, turn: &mut Turn<'_>) {
        turn.sent.push((peer, Packet::Hello(self.shards.iter().map(|shard| shard.group.next()).collect())));
        for index in 0..self.shards.len() {
            self.shards[index].group.on_connected(peer, &mut self.effects);
            self.perform(index, turn);
        }
    }

    pub(crate) fn tick(&mut self, turn: &mut Turn<'_>) {
        self.ticks += 1;
        let clock = self.clock(turn.now);
        let me = self.id;
        let others: Vec<NodeId> = self.shape.nodes.iter().copied().filter(|id| *id != me).collect();
        let is_live = |id: &NodeId| self.heard.get(id).is_some_and(|heard| *heard + SILENCE_MS > turn.now);
        let (live, gone): (Vec<NodeId>, Vec<NodeId>) = others.iter().partition(|id| is_live(id));
        let lost: Vec<NodeId> = gone.iter().copied().filter(|id| self.heard.contains_key(id)).collect();
        self.heard.retain(|id, _| !lost.contains(id));
        for index in 0..self.shards.len() {
            let group = &mut self.shards[index].group;
            gone.iter().for_each(|id| group.on_no_claim(*id, clock));
            lost.iter().for_each(|id| group.on_disconnected(*id));
            let context =
                ElectionContext { reached: &live, disk: self.disk_ok, may_self_promise: true, preferred_leaders: &[] };
            group.tick(clock, context, &mut self.effects);
            self.perform(index, turn);
        }
        if self.ticks.is_multiple_of(PING_TICKS) {
            self.ping(&others, &live, turn);
        }
        self.expire_questions(turn.now);
        self.flush(turn);
    }

    fn ping(&mut self, others: &[NodeId], live: &[NodeId], turn: &mut Turn<'_>) {
        let claims: Vec<Option<Ballot>> = self.shards.iter().map(|shard| shard.group.leads()).collect();
        for to in others {
            let ping = Packet::Ping { start: self.start, reached: live.to_vec(), claims: claims.clone() };
            turn.sent.push((*to, ping));
            for index in 0..self.shards.len() {
                self.shards[index].group.announce(*to, &mut self.effects);
                self.perform(index, turn);
            }
        }
    }

    /// Ends a turn, as the server does: proposes, forwards, asks for read confirmations, and answers reads.
    pub(crate) fn flush(&mut self, turn: &mut Turn<'_>) {
        let clock = self.clock(turn.now);
        for index in 0..self.shards.len() {
            self.shards[index].group.flush(clock, turn.now + self.unix_offset, &mut self.effects);
            self.perform(index, turn);
            self.ask(index, turn);
            self.answer_reads(index, turn);
        }
    }

    pub(crate) fn submit(&mut self, index: usize, count: u64) {
        let shard = &mut self.shards[index];
        let name = Name { origin: self.id.0, start: self.start as u32, count };
        let counter = shard.group.submit(|out| out.extend_from_slice(&name.bytes()));
        shard.pending.insert(counter, name);
    }

    /// Submits a change of the members, based on the membership version that this node knows.
    pub(crate) fn change(&mut self, index: usize, kind: ChangeKind) {
        let shard = &mut self.shards[index];
        let change = MembershipChange { version: shard.group.membership().version(), kind };
        shard.changes.insert(shard.group.submit(|out| change.encode(out)));
    }

    /// Takes back the newest or the oldest command that waits, if that is still possible.
    pub(crate) fn withdraw(&mut self, index: usize, turn: &mut Turn<'_>) {
        let shard = &mut self.shards[index];
        let newest = turn.jitter.below(2) == 0;
        let pending = if newest { shard.pending.last_key_value() } else { shard.pending.first_key_value() };
        let Some((&counter, &name)) = pending else { return };
        let mut counters = vec![counter];
        shard.group.withdraw(&mut counters);
        if counters == [counter] {
            turn.oracle.on_withdrawn(name);
            shard.pending.remove(&counter);
        }
    }

    pub(crate) fn resign(&mut self, index: usize, turn: &mut Turn<'_>) {
        let clock = self.clock(turn.now);
        self.shards[index].group.resign(clock, &mut self.effects);
        self.perform(index, turn);
    }

    pub(crate) fn begin_leader_transfer(&mut self, index: usize, to: NodeId, turn: &mut Turn<'_>) {
        if to != self.id {
            let clock = self.clock(turn.now);
            self.shards[index].group.begin_leader_transfer(to, false, Ms(100), clock);
            self.perform(index, turn);
        }
    }

    pub(crate) fn propose_time(&mut self, index: usize) {
        self.shards[index].group.propose_time();
    }

    /// Returns true if no command or read waits in a group here, and the group is not behind and knows its leader.
    pub(crate) fn is_quiet(&self, index: usize) -> bool {
        let shard = &self.shards[index];
        let waits = shard.group.has_waiting() || !shard.pending.is_empty() || !shard.reads.is_empty();
        !waits && !shard.group.is_behind() && shard.group.leader().is_some()
    }

    pub(crate) fn group(&self, index: usize) -> &Group {
        &self.shards[index].group
    }

    pub(crate) fn machine(&self, index: usize) -> &Machine {
        &self.shards[index].machine
    }

    fn clock(&self, now: Ms) -> Clock {
        Clock { mono_ms: now + self.mono_offset }
    }

    fn shard(&self, index: usize) -> Shard {
        let settings = Settings {
            id: GroupId(index as u32),
            groups: self.shape.groups as u32,
            me: self.id,
            start: self.start,
            membership: self.shape.membership.clone(),
            batch_bytes_max: self.shape.batch_bytes_max,
            window_bytes: self.shape.window_bytes,
            seed: self.shape.seed ^ self.start,
        };
        let mut group = Group::new(settings);
        // Simulates members of an old and a new version: some send digests of their states, some do not.
        group.tell_digest(!(self.shape.seed ^ self.start ^ u64::from(self.id.0)).is_multiple_of(4));
        Shard {
            group,
            machine: Machine::default(),
            applied: Instance(0),
            lsn: 0,
            promised: Ballot::ZERO,
            accepted: None,
            pending: BTreeMap::new(),
            changes: BTreeSet::new(),
            newest: Counter(0),
            reads: BTreeMap::new(),
        }
    }

    /// Carries out the effects and checks the state after them.
    pub(crate) fn perform(&mut self, index: usize, turn: &mut Turn<'_>) {
        self.carry_out(index, turn);
        self.check(index, turn);
    }

    fn carry_out(&mut self, index: usize, turn: &mut Turn<'_>) {
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Persist(record) => {
                    self.shards[index].check_record(&record);
                    self.shards[index].note(&record);
                    self.log.push((index, record));
                    self.shards[index].lsn = self.log.len();
                }
                Effect::Send { to, message } => {
                    assert!(to != self.id, "only durable messages go to oneself");
                    self.send(index, to, message, turn);
                }
                Effect::SendDurable { to, message } => {
                    self.shards[index].check_durable(&message);
                    let lsn = self.shards[index].lsn;
                    if lsn <= self.synced {
                        self.send(index, to, message, turn);
                    } else {
                        self.gated.push_back(Gated { lsn, group: index, to, message });
                    }
                }
                Effect::Apply { instance, value } => self.apply(index, instance, &value, turn),
                Effect::Skipped { .. } | Effect::ReadLost { .. } => panic!("no checkpoint was installed"),
                Effect::ReadLog { to, from, below, chosen, bytes_max } => {
                    let values = self.read_log(index, from, below, chosen, bytes_max);
                    let range = Range { first: from, next: below, values };
                    self.send(index, to, Message::Range(range), turn);
                }
                Effect::Membership => turn.oracle.on_members(
                    index,
                    self.shards[index].group.next(),
                    self.shards[index].group.membership(),
                ),
                Effect::Leading(leads) => assert_eq!(self.shards[index].group.leads().is_some(), leads),
            }
        }
        self.effects = effects;
    }

    fn send(&mut self, index: usize, to: NodeId, message: Message, turn: &mut Turn<'_>) {
        turn.oracle.on_send(self.id, index, &message, &self.durable);
        turn.sent.push((to, Packet::Group(index, message)));
    }

    fn check(&mut self, index: usize, turn: &mut Turn<'_>) {
        let group = &self.shards[index].group;
        assert_eq!(group.next(), self.shards[index].applied.following(), "everything below next is applied");
        assert_eq!(group.promised(), self.shards[index].promised, "every promise has its record");
        turn.oracle.on_state(self.id, index, group.next(), group.chain(), group.promised());
    }

    fn apply(&mut self, index: usize, instance: Instance, value: &Value, turn: &mut Turn<'_>) {
        let Shard { group, machine, applied, pending, changes, reads, newest, .. } = &mut self.shards[index];
        assert_eq!(instance, applied.following(), "values are applied in order");
        let before = std::mem::replace(applied, instance);
        let applied = group.apply(value, machine, |own| match own {
            LocalOutcome::Read(id, _) => {
                reads.remove(&id).expect("a read is answered once").check(index, before, *newest, pending);
                turn.oracle.on_seen(index, instance);
                self.reads_answered += 1;
            }
            LocalOutcome::Applied(counter, _) => {
                let name = pending.remove(&counter).expect("it is answered once");
                *newest = counter;
                turn.oracle.on_acknowledged(index, name, instance);
            }
            LocalOutcome::Changed(counter, _) => {
                assert!(changes.remove(&counter), "it is answered once");
                *newest = counter;
                turn.oracle.on_seen(index, instance);
            }
        });
        applied.expect("equal values make equal states");
        turn.oracle.on_applied(index, instance, value, machine);
    }

    /// Returns chosen values from `from` up to but excluding `below`, out of the records, synced or not.
    fn read_log(&self, index: usize, from: Instance, below: Instance, chosen: Ballot, bytes_max: u32) -> Vec<Accepted> {
        let mut ballots = BTreeMap::from([(below.preceding(), chosen)]);
        let mut values = BTreeMap::new();
        for (_, record) in self.log.iter().filter(|(group, _)| *group == index) {
            let (Record::Accepted { instance, ballot, chosen, value }
            | Record::Learned { instance, ballot, chosen, value }) = record
            else {
                continue;
            };
            ballots.insert(instance.preceding(), *chosen);
            values.insert((*instance, *ballot), value);
            if matches!(record, Record::Learned { .. }) {
                ballots.insert(*instance, *ballot);
            }
        }
        let (mut range, mut bytes, mut instance) = (Vec::new(), 0, from);
        while instance < below {
            let ballot = ballots[&instance];
            let value = values[&(instance, ballot)];
            bytes += value.bytes().len();
            if !range.is_empty() && bytes > bytes_max as usize {
                break;
            }
            range.push(Accepted { ballot, value: value.clone() });
            instance = instance.following();
        }
        range
    }
}
impl Shard {
    /// Checks invariants 1 and 4: promises rise; a vote is for the next instance, and not below the promise.
    fn check_record(&self, record: &Record) {
        let next = self.applied.following();
        match record {
            Record::Promised(ballot) => assert!(*ballot > self.promised, "{ballot} promised after {}", self.promised),
            Record::Accepted { instance, ballot, .. } => {
                assert!(*instance == next, "a vote at {instance}, where {next} is next");
                assert!(*ballot >= self.promised, "a vote for {ballot} after a promise of {}", self.promised);
            }
            Record::Learned { instance, .. } => assert!(*instance == next, "{instance} learned, {next} is next"),
            // Logged only when the members have changed: see `Group::decide`.
            Record::Position { next: at, promised, .. } => {
                assert_eq!((*at, *promised), (next, self.promised), "a position that is not this member's");
            }
            Record::Lost { .. } => panic!("a group must not persist {record:?}"),
        }
    }

    /// Checks that a promise tells the recorded vote of its instance, and that a vote has its record.
    fn check_durable(&self, message: &Message) {
        let at = |instance: Instance| self.accepted.filter(|(voted, _)| *voted == instance).map(|(_, ballot)| ballot);
        match message {
            Message::Promise(promise) => {
                let told = promise.accepted.as_ref().map(|accepted| accepted.ballot);
                assert_eq!(told, at(promise.instance), "the promise for {} hides a vote", promise.instance);
            }
            Message::Vote(vote) => assert_eq!(at(vote.instance), Some(vote.ballot), "nothing was voted for"),
            // A Fetch waits for the records of the values learned before, so that a slow disk slows the stream down.
            Message::Prepare(_) | Message::Fetch(_) => {}
            other => panic!("{other:?} need not be durable"),
        }
    }

    fn note(&mut self, record: &Record) {
        match record {
            Record::Promised(ballot) => self.promised = self.promised.max(*ballot),
            Record::Accepted { instance, ballot, .. } => {
                self.promised = self.promised.max(*ballot);
                self.accepted = Some((*instance, *ballot));
            }
            Record::Learned { .. } | Record::Position { .. } | Record::Lost { .. } => {}
        }
    }
}
