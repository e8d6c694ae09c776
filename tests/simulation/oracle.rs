//! The oracle. It sees every record, frame and state of every node, and stops the run at the first violation of an
//! invariant of docs/protocol.md. It observes Paxos from outside, and derives what is chosen from what is durable.

mod facts;
mod log;

use crate::process::Shape;
use crate::trace::Trace;
use crc32c::crc32c;
use facts::{Fact, Seat, brief, describe, fact, follow};
use groups::{Ballot, GroupId, Instance, Membership, MembershipChange, Message, Ms, NodeId, Value};
use net::frame::Frame;
use paxoi::config::{BATCH_BYTES_MAX, FRAME_BYTES, LOG_QUEUE_BYTES, NODE_QUEUE_BYTES};
use paxoi::identity::BirthRecord;
use paxoi::node::Node;
use paxoi::node::peers::lanes::{Assembly, FRAGMENT};
use paxoi::node::wire::{NODE, NodeMessage};
use paxoi::storage::checkpoint::{CheckpointResult, TransferResult};
use paxoi::storage::wal::{Batch, Lsn, Record, RecordKind};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default)]
struct Seen {
    /// All durable records, in order.
    log: Vec<Fact>,
    durable: Vec<Seat>,
    /// The state of each group as in `durable`, but including the records in flight to the disk.
    given: Vec<Seat>,
    /// Records that the log was given. The first ones are in the frame that the disk is writing.
    in_flight: Vec<Fact>,
    in_frame: usize,
    /// Values in the memory of the running process.
    promised: Vec<Ballot>,
    next: Vec<Instance>,
    /// The highest version of values that the node reads.
    values: u8,
    foreign: bool,
    /// Records with lower log sequence numbers may be gone from the node's log, as far as each worker is concerned.
    droppable_lsn: Vec<Lsn>,
    /// The same for all workers.
    dropped_lsn: Lsn,
}

/// The proposals and votes of one instance.
#[derive(Clone, Debug, Default)]
struct Round {
    /// The value under each ballot, and the nodes whose vote for it was durable at some time.
    votes: Vec<(Ballot, u32, u64)>,
    chosen: Option<u32>,
}

#[derive(Default)]
pub(crate) struct Oracle {
    /// The members of each group, by the instance from which on they apply.
    members: Vec<BTreeMap<Instance, Membership>>,
    /// The changes of members in values, by the values' checksums.
    changes: BTreeMap<u32, Vec<MembershipChange>>,
    nodes: Vec<Seen>,
    /// Large messages on their way, by connection and side.
    fragments: BTreeMap<(u64, usize), Assembly>,
    rounds: Vec<BTreeMap<Instance, Round>>,
    chains: Vec<BTreeMap<Instance, (u32, usize)>>,
    digests: Vec<BTreeMap<Instance, (u64, usize)>>,
    birth: Option<BirthRecord>,
    violation: Option<String>,
    /// Interval of the comparisons of a group's states, in instances.
    pub(crate) digest_every: u64,
    pub(crate) messages: u64,
    /// Messages of groups, by kind.
    pub(crate) kinds: [u64; KINDS],
    pub(crate) records: u64,
    pub(crate) chosen: u64,
    /// Number of chosen changes of members.
    pub(crate) changed: u64,
    pub(crate) states: u64,
    /// States that were written to files, and that were fetched from others.
    pub(crate) checkpoints: u64,
    pub(crate) transfers: u64,
    /// How often a node was allowed to drop old segments, and the number of recovering groups found at starts.
    pub(crate) trims: u64,
    pub(crate) recovering: u64,
    /// Values that a node applied in some groups while its other groups were missing.
    pub(crate) early: u64,
}

/// One more than the highest kind of a group's messages.
pub(crate) const KINDS: usize = 17;
/// Interval of the comparisons of states, in instances, unless states are large.
const DIGEST_EVERY: u64 = 4;

impl Oracle {
    pub(crate) fn new(shape: &Shape) -> Oracle {
        let groups = shape.groups as usize;
        let seen = Seen {
            durable: vec![Seat::default(); groups],
            given: vec![Seat::default(); groups],
            promised: vec![Ballot::ZERO; groups],
            next: vec![Instance::FIRST; groups],
            ..Seen::default()
        };
        let first = Membership::of_ids((1..=shape.nodes as u32).map(NodeId));
        Oracle {
            members: vec![BTreeMap::from([(Instance::FIRST, first)]); groups],
            nodes: vec![seen; shape.nodes + shape.spares],
            rounds: vec![BTreeMap::new(); groups],
            chains: vec![BTreeMap::new(); groups],
            digests: vec![BTreeMap::new(); groups],
            digest_every: DIGEST_EVERY,
            ..Oracle::default()
        }
    }

    /// Returns the first violation, if there was one.
    pub(crate) fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    pub(crate) fn fail(&mut self, what: &str) {
        self.violation.get_or_insert_with(|| what.to_owned());
    }

    fn expect(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds && self.violation.is_none() {
            self.violation = Some(what());
        }
    }

    /// Notes that the node's directory is not its own any more. The node must not take part in any group.
    pub(crate) fn on_foreign(&mut self, node: usize) {
        self.nodes[node].foreign = true;
    }

    /// Returns the highest instance of the first group at which the node has a durable vote or learned value.
    pub(crate) fn position(&self, node: usize) -> Instance {
        self.nodes[node].durable[0].instance
    }

    /// Returns true if a vote is in flight to the node's disk.
    pub(crate) fn is_writing(&self, node: usize) -> bool {
        self.nodes[node].in_flight.iter().any(|fact| fact.kind == RecordKind::Accept)
    }

    /// Returns true if a promise of `node` is on its way to the disk.
    pub(crate) fn is_promising(&self, node: usize) -> bool {
        self.nodes[node].in_flight.iter().any(|fact| fact.kind == RecordKind::Promise)
    }

    /// Returns true if `node` has durably seen this start of `other`, or a later one.
    pub(crate) fn has_met(&self, node: usize, other: usize, start: u64) -> bool {
        let met = |fact: &Fact| {
            fact.kind == RecordKind::PeerStart && fact.ballot.node.0 as usize == other + 1 && fact.instance.0 >= start
        };
        self.nodes[node].log.iter().any(met)
    }

    /// Returns true if the node may have dropped the segments with its records up to `lsn`.
    pub(crate) fn may_have_dropped(&self, node: usize, lsn: Lsn) -> bool {
        self.nodes[node].dropped_lsn > lsn
    }

    /// Returns the log sequence number of the node's last durable batch.
    pub(crate) fn last_lsn(&self, node: usize) -> Lsn {
        self.nodes[node].log.last().map_or(Lsn(0), |fact| fact.lsn)
    }

    pub(crate) fn on_birth(&mut self, node: usize, record: &BirthRecord) {
        let first = self.birth.get_or_insert_with(|| record.clone());
        // A node that joins is not told the time of the birth.
        let is_told = record.born_ms != Ms(0);
        let is_known =
            *first == BirthRecord { born_ms: if is_told { record.born_ms } else { first.born_ms }, ..record.clone() };
        self.expect(is_known, || format!("node {} was born into another cluster: {record:?}", node + 1));
    }

    /// Checks a batch that a node is about to write (invariants 1, 3 and 4).
    pub(crate) fn on_batch(&mut self, node: usize, batch: &Batch, trace: &mut Trace) {
        if self.nodes[node].foreign {
            return;
        }
        let bytes: usize = batch.records.iter().map(|record| record.payload().len()).sum();
        self.expect(bytes <= LOG_QUEUE_BYTES + BATCH_BYTES_MAX, || format!("node {} logs {bytes} bytes", node + 1));
        for record in &batch.records {
            let fact = fact(batch.lsn, record);
            trace.line(|| format!("n{} log {} {}", node + 1, batch.lsn, describe(&fact)));
            self.note_changes(record, fact.value);
            self.nodes[node].in_flight.push(fact);
            self.take(node, &fact);
        }
    }

    fn note_changes(&mut self, record: &Record, checksum: u32) {
        let Some(value) = record.value() else { return };
        let Ok(value) = Value::parse(value.payload.clone()) else { return };
        let changes: Vec<MembershipChange> =
            value.commands().filter_map(|command| MembershipChange::decode(command.body)?.ok()).collect();
        if !changes.is_empty() {
            self.changes.insert(checksum, changes);
        }
    }

    /// Checks a record that a node is about to write, and updates the node's state with it.
    fn take(&mut self, node: usize, fact: &Fact) {
        if matches!(fact.kind, RecordKind::PeerStart | RecordKind::Trimmed) {
            return;
        }
        let group = fact.group.index();
        let seat = self.nodes[node].given[group].clone();
        // A node logs its last vote again before it drops older records.
        if fact.kind == RecordKind::Accept
            && seat.vote == Some((fact.ballot, fact.value))
            && seat.instance == fact.instance
        {
            return;
        }
        let who = || format!("node {} {}", node + 1, describe(fact));
        if fact.kind != RecordKind::Learned {
            self.expect(fact.ballot >= seat.promised, || format!("{} below its promise {}", who(), seat.promised));
        }
        if fact.kind.has_value() {
            // A checkpoint may have been installed in between, perhaps in this very turn.
            let next = self.nodes[node].next[group].max(seat.put_in.following());
            let goes_on = fact.instance == seat.instance
                || fact.instance == seat.instance.following()
                || fact.instance > seat.instance && fact.instance <= next;
            self.expect(goes_on, || format!("{} after {}", who(), seat.instance));
            self.one_value(fact);
        }
        if fact.kind == RecordKind::Position {
            // The node may have learned of a choice in this turn: then it has the value already.
            let next = self.nodes[node].next[group].max(seat.put_in.following()).max(seat.instance.following());
            let said = fact.ballot == seat.promised && fact.instance <= next;
            self.expect(said, || format!("{} at {next} with {}", who(), seat.promised));
        }
        if fact.kind.has_value() || fact.kind == RecordKind::Position {
            self.names_its_ballot(node, fact);
        }
        follow(&mut self.nodes[node].given[group], fact);
    }

    /// Checks the ballot that a record names for the previous instance. A majority must durably hold the chosen value
    /// under this ballot. If the ballot of the node's own value is known, it must be the same.
    fn names_its_ballot(&mut self, node: usize, fact: &Fact) {
        if fact.instance == Instance::FIRST {
            return;
        }
        let (before, chosen) = (fact.instance.preceding(), fact.chosen);
        let decided = self.is_decided_under(fact.group, before, chosen);
        self.expect(decided, || {
            format!(
                "node {} {}, but no majority holds what was chosen at {before} under {chosen}",
                node + 1,
                describe(fact)
            )
        });
        let seat = &self.nodes[node].given[fact.group.index()];
        let held = seat.held.filter(|(instance, _)| *instance == before && before > seat.put_in);
        self.expect(held.is_none_or(|(_, ballot)| ballot == chosen), || {
            format!("node {} {}, but it holds {held:?}", node + 1, describe(fact))
        });
    }

    /// Returns true if a majority of the voters durably held the chosen value of this instance under this ballot.
    fn is_decided_under(&self, group: GroupId, instance: Instance, ballot: Ballot) -> bool {
        let members = self.members_at(group.index(), instance);
        let voters: u64 = members.voters().ids().iter().map(|id| 1 << (id.0 - 1)).sum();
        let quorum = members.voters().quorum() as u32;
        let Some(round) = self.rounds[group.index()].get(&instance) else { return false };
        let holds = |(known, value, nodes): &(Ballot, u32, u64)| {
            *known == ballot && round.chosen == Some(*value) && (nodes & voters).count_ones() >= quorum
        };
        round.votes.iter().any(holds)
    }

    /// Notes that the node's log is damaged: it is unknown which values the node holds under which ballots.
    pub(crate) fn on_gap(&mut self, node: usize) {
        let seen = &mut self.nodes[node];
        seen.given.iter_mut().chain(&mut seen.durable).for_each(|seat| seat.held = None);
    }

    /// Checks invariant 3: no two values under one ballot.
    fn one_value(&mut self, fact: &Fact) {
        let round = self.rounds[fact.group.index()].entry(fact.instance).or_default();
        let known = round.votes.iter().find(|(ballot, _, _)| *ballot == fact.ballot).map(|(_, value, _)| *value);
        match known {
            None => round.votes.push((fact.ballot, fact.value, 0)),
            Some(value) => self.expect(value == fact.value, || format!("two values under one ballot: {fact:?}")),
        }
    }

    fn land(&mut self, node: usize, fact: &Fact) {
        self.records += 1;
        self.nodes[node].log.push(*fact);
        if matches!(fact.kind, RecordKind::PeerStart | RecordKind::Trimmed) {
            return;
        }
        follow(&mut self.nodes[node].durable[fact.group.index()], fact);
        match fact.kind {
            RecordKind::Accept => self.count_vote(node, fact),
            RecordKind::Learned => {
                let chosen = self.rounds[fact.group.index()].get(&fact.instance).and_then(|round| round.chosen);
                self.expect(chosen == Some(fact.value), || {
                    format!("node {} learned what was not chosen: {}", node + 1, describe(fact))
                });
            }
            // Promises, positions, and kinds that are never written.
            _ => {}
        }
    }

    fn count_vote(&mut self, node: usize, fact: &Fact) {
        let group = fact.group;
        let members = self.members_at(group.index(), fact.instance);
        let voters: u64 = members.voters().ids().iter().map(|id| 1 << (id.0 - 1)).sum();
        let (quorum, changed) = (members.voters().quorum() as u32, self.changes.get(&fact.value));
        let after = changed.and_then(|changes| {
            let mut members = members.clone();
            changes.iter().any(|change| members.apply(change).is_ok()).then_some(members)
        });
        let round = self.rounds[group.index()].entry(fact.instance).or_default();
        let Some(vote) = round.votes.iter_mut().find(|(ballot, _, _)| *ballot == fact.ballot) else { return };
        vote.2 |= 1 << node;
        if (vote.2 & voters).count_ones() < quorum {
            return;
        }
        match round.chosen {
            None => {
                round.chosen = Some(fact.value);
                self.chosen += 1;
                if let Some(members) = after {
                    self.members[group.index()].insert(fact.instance.following(), members);
                    self.changed += 1;
                }
            }
            Some(chosen) => self.expect(chosen == fact.value, || {
                format!("two values are chosen in group {group} at {}", fact.instance)
            }),
        }
    }

    /// Returns the present members of a group.
    pub(crate) fn members(&self, group: usize) -> &Membership {
        self.members_at(group, Instance(u64::MAX))
    }

    /// Returns true if the present members have chosen a value. Before that, perhaps no node knows that the change to
    /// these members was chosen. Then a majority of the previous members must decide the instance of that change.
    pub(crate) fn are_members_lasting(&self, group: usize) -> bool {
        let since = self.members[group].last_key_value().map_or(Instance::FIRST, |(since, _)| *since);
        self.rounds[group].range(since..).any(|(_, round)| round.chosen.is_some())
    }

    /// Returns the memberships that each need a majority for progress: the present one and, until
    /// [`Oracle::are_members_lasting`], also the previous one.
    pub(crate) fn deciding(&self, group: usize) -> impl Iterator<Item = &Membership> {
        let count = if self.are_members_lasting(group) { 1 } else { 2 };
        self.members[group].values().rev().take(count)
    }

    fn members_at(&self, group: usize, instance: Instance) -> &Membership {
        let known = self.members[group].range(..=instance).next_back();
        known.expect("a group has members from its first instance on").1
    }

    pub(crate) fn on_checkpoint(&mut self, result: &CheckpointResult) {
        if let CheckpointResult::Saved { sections, .. } = result {
            self.checkpoints += sections.len() as u64;
        }
    }

    pub(crate) fn on_transfer_result(&mut self, node: usize, result: &TransferResult) {
        if let TransferResult::State { loaded, .. } = result {
            self.transfers += 1;
            // The checkpoint may hold its last instance under another ballot than the node's log.
            let (seen, group) = (&mut self.nodes[node], loaded.group.index());
            for seat in [&mut seen.given[group], &mut seen.durable[group]] {
                seat.put_in = seat.put_in.max(loaded.state.instance);
            }
        }
    }

    /// Checks a frame that a node sends (invariants 2, 4 and 9). Returns true if the frame belongs to a handshake.
    pub(crate) fn on_frame(&mut self, pair: [usize; 2], way: (u64, usize), frame: &Frame, trace: &mut Trace) -> bool {
        let [node, to] = pair;
        let mut is_greeting = false;
        let mut bytes = 0;
        for message in frame.messages() {
            let message = message.expect("a node sends whole messages");
            bytes += message.body.len();
            self.messages += 1;
            let (mut group, mut kind, mut body) = (message.group, message.kind, message.body);
            if (group, kind) == (NODE, FRAGMENT) {
                let arrived = self.fragments.entry(way).or_default().add(&body, LOG_QUEUE_BYTES).expect("in order");
                let Some(whole) = arrived.body else { continue };
                (group, kind, body) = (arrived.group, arrived.kind, whole);
            }
            if group == NODE {
                let decoded = NodeMessage::decode(kind, &body).expect("known").expect("decodes");
                trace.line(|| format!("n{} -> n{} {decoded:?}", node + 1, to + 1));
                is_greeting |=
                    matches!(decoded, NodeMessage::Hello(_) | NodeMessage::Refusal(_) | NodeMessage::Birth(_));
                continue;
            }
            let decoded = Message::decode(kind, &body).expect("a node sends what it understands");
            trace.line(|| format!("n{} -> n{} g{} {}", node + 1, to + 1, group, brief(&decoded)));
            self.kinds[usize::from(kind)] += 1;
            self.expect(decoded.value_version() <= self.nodes[to].values, || {
                format!("node {} sends node {} a value that it cannot read: {}", node + 1, to + 1, brief(&decoded))
            });
            self.on_message(node, GroupId(group), &decoded);
        }
        // No value in a run is as large as the largest allowed one, so a large frame holds many small messages.
        let most = 2 * (FRAME_BYTES + BATCH_BYTES_MAX);
        self.expect(bytes <= most, || format!("node {} sends {bytes} bytes in a frame", node + 1));
        is_greeting
    }

    /// Notes the highest version of values that a starting node reads.
    pub(crate) fn on_start(&mut self, node: usize, values: u8) {
        self.nodes[node].values = values;
    }

    fn on_message(&mut self, node: usize, group: GroupId, message: &Message) {
        let seen = &self.nodes[node];
        let (seat, foreign) = (seen.durable[group.index()].clone(), seen.foreign);
        let name = node + 1;
        self.expect(!foreign, || format!("node {name} takes part with a directory that is not its own"));
        match message {
            Message::Prepare(prepare) => self.expect(seat.promised >= prepare.ballot, || {
                format!("node {name} prepares {} in group {group} before it is durable", prepare.ballot)
            }),
            Message::Promise(promise) => {
                self.expect(seat.promised >= promise.ballot, || {
                    format!("node {name} promises {} in group {group} before it is durable", promise.ballot)
                });
                // A vote that became durable after the promise was made is under the promised ballot or a higher one.
                let told = promise.accepted.as_ref().map_or(Ballot::ZERO, |accepted| accepted.ballot);
                let hidden = seat.vote.is_some_and(|(ballot, _)| {
                    seat.instance == promise.instance && ballot > told && ballot < promise.ballot
                });
                self.expect(!hidden, || format!("node {name} hides its vote in group {group}: {promise:?}"));
            }
            Message::Vote(vote) => {
                let round = self.rounds[group.index()].get(&vote.instance);
                let durable = round.is_some_and(|round| {
                    round.votes.iter().any(|(ballot, _, nodes)| *ballot == vote.ballot && nodes >> node & 1 == 1)
                });
                self.expect(durable, || format!("node {name} votes in group {group} before it is durable: {vote:?}"));
            }
            Message::Accept(accept) => {
                let value = crc32c(accept.value.bytes());
                self.expect(accept.ballot.node.0 as usize == name, || {
                    format!("node {name} proposes under the ballot {} of another", accept.ballot)
                });
                let (lsn, kind, chosen) = (Lsn(0), RecordKind::Accept, accept.chosen);
                let (instance, ballot) = (accept.instance, accept.ballot);
                self.one_value(&Fact { lsn, kind, is_lost: false, group, instance, ballot, chosen, value });
                if instance > Instance::FIRST {
                    self.is_chosen(name, group, instance.preceding(), chosen);
                }
            }
            Message::Chosen(chosen) => self.is_chosen(name, group, chosen.instance, chosen.ballot),
            Message::Range(range) => {
                let instances = (range.first.0..).map(Instance);
                for (instance, accepted) in instances.zip(&range.values) {
                    self.is_chosen(name, group, instance, accepted.ballot);
                }
            }
            Message::Diverged(diverged) => self.fail(&format!("node {name} in group {group}: {diverged:?}")),
            _ => {}
        }
    }

    /// Checks invariant 5, and the rule that a majority holds the chosen value under a chosen ballot.
    fn is_chosen(&mut self, node: usize, group: GroupId, instance: Instance, ballot: Ballot) {
        let round = self.rounds[group.index()].get(&instance).cloned();
        let decided = self.is_decided_under(group, instance, ballot);
        self.expect(decided, || {
            format!("node {node} says that instance {instance} of group {group} was chosen under {ballot}: {round:?}")
        });
    }

    /// Checks a node's state in memory (invariants 1, 5 and 6).
    pub(crate) fn after_turn(&mut self, node: usize, state: &Node) {
        if self.nodes[node].foreign {
            return;
        }
        let shard = state.shard();
        let queued = shard.queued_bytes();
        self.expect(queued <= NODE_QUEUE_BYTES + BATCH_BYTES_MAX, || {
            format!("{queued} bytes of commands wait at node {}", node + 1)
        });
        for group in shard.groups() {
            let index = group.id().index();
            let (next, promised) = (group.next(), group.promised());
            let before = self.nodes[node].promised[index];
            let durable = self.nodes[node].durable[index].promised;
            self.expect(promised >= before.max(durable), || {
                format!("node {} in group {index} went back from {before} or {durable} to {promised}", node + 1)
            });
            self.nodes[node].promised[index] = promised;
            let passed = std::mem::replace(&mut self.nodes[node].next[index], next);
            self.expect(next >= passed, || format!("node {} in group {index} fell from {passed} to {next}", node + 1));
            if next == passed {
                continue;
            }
            if shard.missing_groups() > 0 && passed > Instance::FIRST {
                self.early += next.0 - passed.0;
            }
            for instance in (passed.0..next.0).map(Instance) {
                let chosen = self.rounds[index].get(&instance).is_some_and(|round| round.chosen.is_some());
                self.expect(chosen, || {
                    format!("node {} applied instance {instance} of group {index}, which is not chosen", node + 1)
                });
            }
            let (knows, is) = (group.membership().version(), self.members_at(index, next).version());
            self.expect(knows == is, || {
                format!("node {} knows version {knows} of the members of group {index} at {next}: it is {is}", node + 1)
            });
            let chain = group.chain();
            let known = *self.chains[index].entry(next).or_insert((chain, node));
            self.expect(known.0 == chain, || differ("values before", index, next, node, known.1));
            if next.0.is_multiple_of(self.digest_every) && !shard.is_applying(group.id()) {
                self.compare(node, index, next, shard.store(group.id()).digest());
            }
        }
    }

    /// Checks invariant 6: equal instance, equal state.
    pub(crate) fn compare(&mut self, node: usize, index: usize, next: Instance, digest: u64) {
        self.states += 1;
        let known = *self.digests[index].entry(next).or_insert((digest, node));
        self.expect(known.0 == digest, || differ("state at", index, next, node, known.1));
    }
}

fn differ(what: &str, group: usize, instance: Instance, one: usize, other: usize) -> String {
    format!("the {what} instance {instance} of group {group} differs between nodes {} and {}", one + 1, other + 1)
}
