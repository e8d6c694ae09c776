//! The MIT Paxos lab's interface (6.824, spring 2015, lab 3) over the same [`Acceptor`] and [`Proposer`] as the groups:
//! any number of decisions by sequence number, side by side and in any order, each begun by whoever wants to.
//!
//! A peer keeps everything in memory, so one that stops must not come back under its id. It does no I/O: hand it what
//! arrives ([`Paxos::handle`]) and the time ([`Paxos::tick`]), and send what [`Paxos::next_outgoing`] gives. Messages
//! may be lost, doubled and reordered. A peer that is not told of a decision learns it when it is asked to
//! [start](Paxos::start) it.
//!
//! Each message also carries how far its sender is [done](Paxos::done); what all peers are done with is forgotten.

use crate::acceptor::{Accepted, Acceptor, Refused};
use crate::members::Members;
use crate::proposer::Proposer;
use crate::value::put_command;
use crate::{Ballot, Draft, Jitter, NodeId, Tag, Value};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// A round without an answer from a majority for so long is given up, and the next begun.
const ROUND_MS: u64 = 100;
/// After a refusal the next round begins within this time, doubled with each round up to [`DOUBLINGS_MAX`] times.
const BACK_OFF_MS: u64 = 10;
const DOUBLINGS_MAX: u32 = 5;

/// What has become of a decision, as far as this peer knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is this value, for ever.
    Decided(Bytes),
    /// Not decided, or not heard of.
    Pending,
    /// All peers were done with it.
    Forgotten,
}

/// What one peer says to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The decision.
    pub seq: u64,
    /// The highest number with which the sender's application is done.
    pub done: Option<u64>,
    /// What is said.
    pub step: Step,
}

/// A step of one decision. Requests are answered by the step after them, or [`Step::Refuse`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Request: accept nothing below this ballot.
    Prepare(Ballot),
    /// Answer: promised; and what was accepted before.
    Promise(Ballot, Option<Accepted>),
    /// Request: vote for this value.
    Accept(Accepted),
    /// Answer: voted.
    Vote(Ballot),
    /// Answer: not under this ballot, for the second one is promised.
    Refuse(Ballot, Ballot),
    /// The value is decided.
    Decided(Value),
}

/// One peer.
#[derive(Debug)]
pub struct Paxos {
    me: NodeId,
    members: Members,
    slots: BTreeMap<u64, Slot>,
    /// How far each member is done, in their order.
    done: Vec<Option<u64>>,
    max: Option<u64>,
    now_ms: u64,
    jitter: Jitter,
    outgoing: VecDeque<(NodeId, Message)>,
}

/// One decision.
#[derive(Debug, Default)]
struct Slot {
    acceptor: Acceptor,
    /// The highest ballot heard of.
    seen: Ballot,
    /// This peer's own attempt to get it decided.
    attempt: Option<Attempt>,
    decided: Option<Value>,
}

#[derive(Debug)]
struct Attempt {
    proposer: Proposer,
    /// What to propose if nothing was accepted before.
    value: Value,
    /// When to begin the next round.
    due_ms: u64,
    rounds: u32,
}

impl Paxos {
    /// Peer `me` of `members`, which must contain it. `seed` makes its random delays.
    #[must_use]
    pub fn new(me: NodeId, members: Members, seed: u64) -> Paxos {
        assert!(members.contains(me), "a peer is one of the members");
        let done = vec![None; members.ids().len()];
        let jitter = Jitter::new(seed ^ u64::from(me.0));
        Paxos { me, members, slots: BTreeMap::new(), done, max: None, now_ms: 0, jitter, outgoing: VecDeque::new() }
    }

    /// Gets `seq` decided, with `value` if no other is proposed. It goes on until that is done; the outcome is read with
    /// [`Paxos::status`]. Does nothing if it is under way here already, decided or forgotten.
    pub fn start(&mut self, seq: u64, value: &[u8]) {
        if seq < self.min() {
            return;
        }
        let slot = self.slot(seq);
        if slot.decided.is_some() || slot.attempt.is_some() {
            return;
        }
        // The first round, which begins at once, has a ballot of its own.
        let proposer = Proposer::prepare(Ballot::ZERO);
        slot.attempt = Some(Attempt { proposer, value: wrap(value), due_ms: 0, rounds: 0 });
        self.begin_round(seq);
    }

    /// What this peer knows of `seq`; asks nobody.
    #[must_use]
    pub fn status(&self, seq: u64) -> Fate {
        if seq < self.min() {
            return Fate::Forgotten;
        }
        let decided = self.slots.get(&seq).and_then(|slot| slot.decided.as_ref());
        decided.map_or(Fate::Pending, |value| Fate::Decided(unwrap(value)))
    }

    /// This peer's application needs no decision up to `seq` any more.
    pub fn done(&mut self, seq: u64) {
        self.on_done(self.me, Some(seq));
    }

    /// The highest number ever heard of.
    #[must_use]
    pub fn max(&self) -> Option<u64> {
        self.max
    }

    /// The lowest number that is not forgotten: one above the lowest that any peer is done with.
    #[must_use]
    pub fn min(&self) -> u64 {
        self.done.iter().map(|done| done.map_or(0, |seq| seq + 1)).min().unwrap_or(0)
    }

    /// Bytes of the values that this peer remembers.
    #[must_use]
    pub fn value_bytes(&self) -> usize {
        let known = |slot: &Slot| {
            let accepted = slot.acceptor.accepted().map(|accepted| &accepted.value);
            slot.decided.as_ref().or(accepted).map_or(0, |value| value.bytes().len())
        };
        self.slots.values().map(known).sum()
    }

    /// The next message to send, and to whom.
    pub fn next_outgoing(&mut self) -> Option<(NodeId, Message)> {
        self.outgoing.pop_front()
    }

    /// A message of another peer.
    pub fn handle(&mut self, from: NodeId, message: Message) {
        if !self.members.contains(from) || from == self.me {
            return;
        }
        self.on_done(from, message.done);
        let seq = message.seq;
        if seq < self.min() {
            return;
        }
        match message.step {
            Step::Prepare(ballot) => self.handle_prepare(from, seq, ballot),
            Step::Promise(ballot, accepted) => self.handle_promise(from, seq, ballot, accepted),
            Step::Accept(proposed) => self.handle_accept(from, seq, &proposed),
            Step::Vote(ballot) => self.handle_vote(from, seq, ballot),
            Step::Refuse(ballot, promised) => self.handle_refuse(seq, ballot, promised),
            Step::Decided(value) => self.decide(seq, &value),
        }
    }

    /// The time, which only goes forward: rounds that got no majority are tried again. Call it every 10 ms or so.
    pub fn tick(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        let is_due = |slot: &Slot| slot.attempt.as_ref().is_some_and(|attempt| attempt.due_ms <= now_ms);
        let due: Vec<u64> = self.slots.iter().filter(|(_, slot)| is_due(slot)).map(|(seq, _)| *seq).collect();
        due.into_iter().for_each(|seq| self.begin_round(seq));
    }

    /// Phase 1 under a new ballot, above all heard of.
    fn begin_round(&mut self, seq: u64) {
        let (me, due_ms) = (self.me, self.now_ms + ROUND_MS + self.jitter.below(ROUND_MS));
        let slot = self.slot(seq);
        let Some(attempt) = &mut slot.attempt else { return };
        let ballot = slot.seen.max(slot.acceptor.promised()).above(me);
        slot.seen = ballot;
        attempt.proposer = Proposer::prepare(ballot);
        attempt.due_ms = due_ms;
        attempt.rounds += 1;
        let promised = slot.acceptor.prepare(ballot);
        assert!(promised.is_ok(), "a new ballot is above all promises");
        let accepted = slot.acceptor.accepted().cloned();
        self.send_others(seq, &Step::Prepare(ballot));
        self.handle_promise(me, seq, ballot, accepted);
    }

    fn handle_prepare(&mut self, from: NodeId, seq: u64, ballot: Ballot) {
        if ballot.node != from {
            return;
        }
        let slot = self.slot(seq);
        slot.seen = slot.seen.max(ballot);
        let answer = match slot.acceptor.prepare(ballot) {
            Ok(_) => Step::Promise(ballot, slot.acceptor.accepted().cloned()),
            Err(Refused(promised)) => Step::Refuse(ballot, promised),
        };
        self.send(from, seq, answer);
    }

    /// A majority of promises: phase 2, with the value that they bind to, or this peer's own.
    fn handle_promise(&mut self, from: NodeId, seq: u64, ballot: Ballot, accepted: Option<Accepted>) {
        let Some(slot) = self.slots.get_mut(&seq) else { return };
        let Some(attempt) = slot.attempt.as_mut().filter(|attempt| attempt.proposer.ballot() == ballot) else { return };
        if !attempt.proposer.on_promise(from, accepted, &self.members) {
            return;
        }
        let value = attempt.proposer.bound().unwrap_or(&attempt.value).clone();
        attempt.proposer.propose(value.clone());
        let vote = slot.acceptor.accept(ballot, &value);
        self.send_others(seq, &Step::Accept(Accepted { ballot, value }));
        if vote.is_ok() {
            self.handle_vote(self.me, seq, ballot);
        }
    }

    fn handle_accept(&mut self, from: NodeId, seq: u64, proposed: &Accepted) {
        let ballot = proposed.ballot;
        if ballot.node != from {
            return;
        }
        let slot = self.slot(seq);
        slot.seen = slot.seen.max(ballot);
        let answer = match slot.acceptor.accept(ballot, &proposed.value) {
            Ok(_) => Step::Vote(ballot),
            Err(Refused(promised)) => Step::Refuse(ballot, promised),
        };
        self.send(from, seq, answer);
    }

    fn handle_vote(&mut self, from: NodeId, seq: u64, ballot: Ballot) {
        let Some(attempt) = self.slots.get_mut(&seq).and_then(|slot| slot.attempt.as_mut()) else { return };
        if attempt.proposer.ballot() != ballot || !attempt.proposer.on_vote(from, &self.members) {
            return;
        }
        let Some(value) = attempt.proposer.proposed().cloned() else { return };
        self.send_others(seq, &Step::Decided(value.clone()));
        self.decide(seq, &value);
    }

    /// Waits at random before the next round, so that rivals do not overtake each other for ever.
    fn handle_refuse(&mut self, seq: u64, ballot: Ballot, promised: Ballot) {
        let Some(slot) = self.slots.get_mut(&seq) else { return };
        slot.seen = slot.seen.max(promised);
        let Some(attempt) = slot.attempt.as_mut().filter(|attempt| attempt.proposer.ballot() == ballot) else { return };
        let most = BACK_OFF_MS << attempt.rounds.min(DOUBLINGS_MAX);
        attempt.due_ms = attempt.due_ms.min(self.now_ms + BACK_OFF_MS + self.jitter.below(most));
    }

    fn decide(&mut self, seq: u64, value: &Value) {
        let slot = self.slot(seq);
        slot.attempt = None;
        let known = slot.decided.get_or_insert_with(|| value.clone());
        assert!(known == value, "two values are decided for {seq}");
    }

    /// `node` is done with everything up to `seq`. What all are done with is forgotten.
    fn on_done(&mut self, node: NodeId, seq: Option<u64>) {
        let Some(position) = self.members.position(node) else { return };
        if seq <= self.done[position] {
            return;
        }
        self.done[position] = seq;
        let min = self.min();
        while self.slots.first_key_value().is_some_and(|(seq, _)| *seq < min) {
            self.slots.pop_first();
        }
    }

    fn slot(&mut self, seq: u64) -> &mut Slot {
        self.max = self.max.max(Some(seq));
        self.slots.entry(seq).or_default()
    }

    fn send(&mut self, to: NodeId, seq: u64, step: Step) {
        let done = self.members.position(self.me).and_then(|position| self.done[position]);
        self.outgoing.push_back((to, Message { seq, done, step }));
    }

    fn send_others(&mut self, seq: u64, step: &Step) {
        for position in 0..self.members.ids().len() {
            let to = self.members.ids()[position];
            if to != self.me {
                self.send(to, seq, step.clone());
            }
        }
    }
}

/// Any bytes as a value: its only command, which is nobody's.
fn wrap(bytes: &[u8]) -> Value {
    let mut draft = Draft::default();
    let nobody = Tag { origin: NodeId(0), start: 0, counter: 0 };
    put_command(draft.commands_mut(), nobody, |out| out.extend_from_slice(bytes));
    draft.seal(0, 0, None)
}

fn unwrap(value: &Value) -> Bytes {
    value.commands().next().map_or_else(Bytes::new, |command| value.bytes().slice_ref(command.body))
}
