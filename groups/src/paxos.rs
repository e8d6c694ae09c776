//! The MIT Paxos lab's interface (6.824, spring 2015, lab 3) over the same [`Acceptor`] and [`Proposer`] as the groups:
//! any number of decisions by sequence number, side by side and in any order. Any peer can begin each of them.
//!
//! A peer keeps everything in memory, so a stopped peer must not come back under its id. It does no I/O: the caller
//! hands it the arriving messages ([`Paxos::handle`]) and the time ([`Paxos::tick`]), and sends the messages that
//! [`Paxos::next_outgoing`] returns. Messages may be lost, doubled and reordered. A peer that is not told of a decision
//! learns it when it is asked to [start](Paxos::start) it.
//!
//! Each message also tells up to which number its sender is [done](Paxos::done). Decisions that all peers are done with
//! are forgotten.

use crate::acceptor::{Accepted, Acceptor, Refused};
use crate::members::Members;
use crate::proposer::Proposer;
use crate::value::put_command;
use crate::{Ballot, CommandId, Counter, Ms, NodeId, SplitMix64, Value, ValueBuilder};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// Time limit of a round, plus a random time below it. A round without a majority by then is given up, and the next
/// begun.
const ROUND_MS: Ms = Ms(100);
/// Wait before the next round after a refusal, plus a random time below it. The random time is doubled with each round,
/// up to [`DOUBLINGS_MAX`] times.
const BACK_OFF_MS: Ms = Ms(10);
const DOUBLINGS_MAX: u32 = 5;

/// The outcome of a decision, as far as this peer knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The decision is this value, for ever.
    Decided(Bytes),
    /// Not decided, or not heard of.
    Pending,
    /// All peers were done with it.
    Forgotten,
}

/// A message of one peer to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The number of the decision.
    pub seq: u64,
    /// The highest number with which the sender's application is done.
    pub done: Option<u64>,
    /// The step of that decision.
    pub step: Step,
}

/// A step of one decision. The answer to a request is the step after it, or [`Step::Refuse`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Request: accept nothing below this ballot.
    Prepare(Ballot),
    /// Answer: promised, with the value accepted before.
    Promise(Ballot, Option<Accepted>),
    /// Request: vote for this value.
    Accept(Accepted),
    /// Answer: voted.
    Vote(Ballot),
    /// Answer: refused under the first ballot, because the second is promised.
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
    /// This peer's own attempts whose decisions are still open. A tick looks at no other slots.
    attempts: BTreeMap<u64, Attempt>,
    /// The number up to which each member is done, in the order of `members`.
    done: Vec<Option<u64>>,
    max: Option<u64>,
    now_ms: Ms,
    jitter: SplitMix64,
    outgoing: VecDeque<(NodeId, Message)>,
}

/// One decision.
#[derive(Debug, Default)]
struct Slot {
    acceptor: Acceptor,
    /// The highest ballot heard of.
    seen: Ballot,
    decided: Option<Value>,
}

#[derive(Debug)]
struct Attempt {
    proposer: Proposer,
    /// The value to propose if none was accepted before.
    value: Value,
    /// The time at which the next round begins.
    due_ms: Ms,
    rounds: u32,
}

impl Paxos {
    /// Creates peer `me` of `members`, which must contain it. `seed` is the seed of its random delays.
    #[must_use]
    pub fn new(me: NodeId, members: Members, seed: u64) -> Paxos {
        assert!(members.contains(me), "a peer is one of the members");
        let done = vec![None; members.ids().len()];
        let jitter = SplitMix64::new(seed ^ u64::from(me.0));
        let (slots, attempts, outgoing) = (BTreeMap::new(), BTreeMap::new(), VecDeque::new());
        Paxos { me, members, slots, attempts, done, max: None, now_ms: Ms(0), jitter, outgoing }
    }

    /// Gets `seq` decided, with `value` if no other is proposed. The attempt goes on until `seq` is decided;
    /// [`Paxos::status`] tells the outcome. Does nothing if an attempt is in progress here, or if `seq` is decided or
    /// forgotten.
    pub fn start(&mut self, seq: u64, value: &[u8]) {
        if self.is_forgotten(seq) || self.attempts.contains_key(&seq) || self.slot(seq).decided.is_some() {
            return;
        }
        // A placeholder: the first round, which begins at once, has a ballot of its own.
        let proposer = Proposer::prepare(Ballot::ZERO);
        self.attempts.insert(seq, Attempt { proposer, value: wrap(value), due_ms: Ms(0), rounds: 0 });
        self.begin_round(seq);
    }

    /// Returns the outcome of `seq` as far as this peer knows, without asking others.
    #[must_use]
    pub fn status(&self, seq: u64) -> Fate {
        if self.is_forgotten(seq) {
            return Fate::Forgotten;
        }
        let decided = self.slots.get(&seq).and_then(|slot| slot.decided.as_ref());
        decided.map_or(Fate::Pending, |value| Fate::Decided(unwrap(value)))
    }

    /// Notes that this peer's application needs no decision up to `seq` any more.
    pub fn done(&mut self, seq: u64) {
        self.on_done(self.me, Some(seq));
    }

    /// Returns the highest number ever heard of.
    #[must_use]
    pub fn max(&self) -> Option<u64> {
        self.max
    }

    /// Returns the lowest number that is not forgotten: one above the lowest of all peers' done numbers, or 0 if some
    /// peer is done with none. If every number is forgotten, including `u64::MAX`, returns `u64::MAX`.
    #[must_use]
    pub fn min(&self) -> u64 {
        self.done.iter().map(|done| done.map_or(0, |seq| seq.saturating_add(1))).min().unwrap_or(0)
    }

    fn is_forgotten(&self, seq: u64) -> bool {
        self.done.iter().all(|done| *done >= Some(seq))
    }

    /// Returns the bytes of the values that this peer remembers.
    #[must_use]
    pub fn value_bytes(&self) -> usize {
        let known = |slot: &Slot| {
            let accepted = slot.acceptor.accepted().map(|accepted| &accepted.value);
            slot.decided.as_ref().or(accepted).map_or(0, |value| value.bytes().len())
        };
        self.slots.values().map(known).sum()
    }

    /// Takes the next message to send, and its receiver.
    pub fn next_outgoing(&mut self) -> Option<(NodeId, Message)> {
        self.outgoing.pop_front()
    }

    /// Handles a message of another peer.
    pub fn handle(&mut self, from: NodeId, message: Message) {
        if !self.members.contains(from) || from == self.me {
            return;
        }
        self.on_done(from, message.done);
        let seq = message.seq;
        if self.is_forgotten(seq) {
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

    /// Sets the time, which only goes forward, and begins new rounds in place of those without a majority. Call it
    /// about every 10 ms.
    pub fn tick(&mut self, now_ms: Ms) {
        self.now_ms = now_ms;
        let due = self.attempts.iter().filter(|(_, attempt)| attempt.due_ms <= now_ms);
        let due: Vec<u64> = due.map(|(seq, _)| *seq).collect();
        due.into_iter().for_each(|seq| self.begin_round(seq));
    }

    /// Begins phase 1 under a new ballot, above all heard of.
    fn begin_round(&mut self, seq: u64) {
        let (me, due_ms) = (self.me, self.now_ms + ROUND_MS + self.jitter.below_ms(ROUND_MS));
        let slot = self.slots.entry(seq).or_default();
        let Some(attempt) = self.attempts.get_mut(&seq) else { return };
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

    /// Counts a promise. With a majority it begins phase 2, with the value that the promises bind to, or this peer's
    /// own.
    fn handle_promise(&mut self, from: NodeId, seq: u64, ballot: Ballot, accepted: Option<Accepted>) {
        let Some(slot) = self.slots.get_mut(&seq) else { return };
        let Some(attempt) = attempt_under(&mut self.attempts, seq, ballot) else { return };
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
        let Some(attempt) = attempt_under(&mut self.attempts, seq, ballot) else { return };
        if !attempt.proposer.on_vote(from, &self.members) {
            return;
        }
        let Some(value) = attempt.proposer.proposed().cloned() else { return };
        self.send_others(seq, &Step::Decided(value.clone()));
        self.decide(seq, &value);
    }

    /// Waits a random time before the next round, so that rivals do not overtake each other for ever.
    fn handle_refuse(&mut self, seq: u64, ballot: Ballot, promised: Ballot) {
        let Some(slot) = self.slots.get_mut(&seq) else { return };
        slot.seen = slot.seen.max(promised);
        let Some(attempt) = attempt_under(&mut self.attempts, seq, ballot) else { return };
        let most = BACK_OFF_MS * (1 << attempt.rounds.min(DOUBLINGS_MAX));
        attempt.due_ms = attempt.due_ms.min(self.now_ms + BACK_OFF_MS + self.jitter.below_ms(most));
    }

    fn decide(&mut self, seq: u64, value: &Value) {
        self.attempts.remove(&seq);
        let known = self.slot(seq).decided.get_or_insert_with(|| value.clone());
        assert!(known == value, "two values are decided for {seq}");
    }

    /// Notes that `node` is done with everything up to `seq`. Decisions that all members are done with are forgotten.
    fn on_done(&mut self, node: NodeId, seq: Option<u64>) {
        let Some(position) = self.members.position(node) else { return };
        if seq <= self.done[position] {
            return;
        }
        self.done[position] = seq;
        while self.slots.first_key_value().is_some_and(|(seq, _)| self.is_forgotten(*seq)) {
            self.slots.pop_first();
        }
        while self.attempts.first_key_value().is_some_and(|(seq, _)| self.is_forgotten(*seq)) {
            self.attempts.pop_first();
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

/// Returns the attempt to get `seq` decided, if its present round is the one under `ballot`.
fn attempt_under(attempts: &mut BTreeMap<u64, Attempt>, seq: u64, ballot: Ballot) -> Option<&mut Attempt> {
    attempts.get_mut(&seq).filter(|attempt| attempt.proposer.ballot() == ballot)
}

/// Wraps any bytes in a value, as its only command, which has no real origin.
fn wrap(bytes: &[u8]) -> Value {
    let mut builder = ValueBuilder::default();
    let nobody = CommandId { origin: NodeId(0), start: 0, counter: Counter(0) };
    put_command(builder.commands_mut(), nobody, |out| out.extend_from_slice(bytes));
    builder.seal(0, Ms(0), None)
}

fn unwrap(value: &Value) -> Bytes {
    value.commands().next().map_or_else(Bytes::new, |command| value.bytes().slice_ref(command.body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers() -> [Paxos; 3] {
        let members = Members::new((1..=3).map(NodeId).collect());
        [1, 2, 3].map(|id| Paxos::new(NodeId(id), members.clone(), 1))
    }

    fn deliver(peers: &mut [Paxos; 3]) {
        while let Some((from, (to, message))) =
            (0..3).find_map(|at| Some((NodeId(at as u32 + 1), peers[at].next_outgoing()?)))
        {
            peers[to.0 as usize - 1].handle(from, message);
        }
    }

    #[test]
    fn the_highest_number_there_is_can_be_decided_and_done() {
        let mut peers = peers();
        peers[0].start(u64::MAX, b"last");
        deliver(&mut peers);
        assert_eq!(peers[1].status(u64::MAX), Fate::Decided(Bytes::from_static(b"last")));
        peers.iter_mut().for_each(|peer| peer.done(u64::MAX - 1));
        (0..3).for_each(|at| peers[at].start(u64::MAX, b"again"));
        let done = |seq| Message { seq: u64::MAX, done: Some(seq), step: Step::Prepare(Ballot::ZERO) };
        for (at, from) in [(0, 2), (0, 3), (1, 1), (1, 3)] {
            peers[at].handle(NodeId(from), done(u64::MAX - 1));
        }
        assert_eq!((peers[0].min(), peers[0].value_bytes() > 0), (u64::MAX, true));
        for peer in &mut peers[..2] {
            peer.done(u64::MAX);
        }
        for (at, from) in [(0, 2), (0, 3), (1, 1), (1, 3)] {
            peers[at].handle(NodeId(from), done(u64::MAX));
        }
        for peer in &mut peers[..2] {
            assert_eq!((peer.min(), peer.value_bytes()), (u64::MAX, 0));
            assert_eq!([0, u64::MAX].map(|seq| peer.status(seq)), [Fate::Forgotten, Fate::Forgotten]);
            peer.start(u64::MAX, b"more");
            assert_eq!((peer.slots.len(), peer.attempts.len(), peer.next_outgoing()), (0, 0, None));
        }
    }

    #[test]
    fn a_tick_looks_only_at_what_this_peer_wants_decided_and_is_not() {
        let mut peers = peers();
        for seq in 0..1_000 {
            peers[0].start(seq, b"value");
            deliver(&mut peers);
        }
        assert_eq!(peers.each_ref().map(|peer| (peer.slots.len(), peer.attempts.len())), [(1_000, 0); 3]);
        peers[0].start(1_000, b"value");
        assert_eq!(peers[0].attempts.keys().copied().collect::<Vec<_>>(), [1_000]);
        deliver(&mut peers);
        // A forgotten decision is not tried any more.
        peers[0].start(1_001, b"value");
        for seq in [1, 2, 3] {
            peers[0].on_done(NodeId(seq), Some(1_001));
        }
        assert_eq!((peers[0].slots.len(), peers[0].attempts.len()), (0, 0));
    }
}
