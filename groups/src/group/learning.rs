//! The learner's side: it takes values as chosen, and catches up by fetching ranges of values from any member that has
//! them.

use super::{Clock, Group, Role};
use crate::acceptor::Accepted;
use crate::effect::Record;
use crate::message::{Ahead, Chosen, Fetch, Range};
use crate::{Ballot, Effect, Instance, Message, Ms, NodeId, Value};

/// If no part of a range comes for this long, another member is asked. After each round through all members the time
/// doubles, at most [`FETCH_DOUBLINGS_MAX`] times. The limit is low because arriving fragments extend the time anyway,
/// and because a checkpoint that was offered and not fetched must be offered again soon.
const FETCH_MS: Ms = Ms(1_000);
const FETCH_DOUBLINGS_MAX: usize = 1;

/// The request for missing values in progress.
#[derive(Clone, Copy, Debug)]
pub(super) struct Learning {
    from: NodeId,
    /// The time at which another member is asked.
    due_ms: Ms,
    /// Instances below this one are known to be chosen somewhere.
    target: Instance,
    /// The number of requests for the same values so far.
    questions: usize,
    /// Another node that is ahead, and that is no member as far as this node knows. This node may have missed that all
    /// other members left.
    stranger: Option<NodeId>,
}

impl Learning {
    /// Returns true if a node at `next` lacks some of the requested values.
    pub(super) fn misses(&self, next: Instance) -> bool {
        self.target > next
    }
}

impl Group {
    /// Takes `value` as chosen at `next`, because another member knows that it is. This ends any proposal of this node
    /// at that instance.
    pub(super) fn learn(&mut self, ballot: Ballot, value: Value, clock: Clock, effects: &mut Vec<Effect>) {
        self.decide(ballot, value, clock, effects);
        if !matches!(self.role, Role::Follower) {
            self.step_down(clock, effects);
            self.try_again_soon(clock);
        }
    }

    /// Takes this node's accepted value as chosen only if it was accepted under exactly the announced ballot. Otherwise
    /// fetches the value.
    pub(super) fn handle_chosen(&mut self, from: NodeId, chosen: Chosen, clock: Clock, effects: &mut Vec<Effect>) {
        if chosen.instance == self.next
            && let Some(value) = self.acceptor.accepted_under(chosen.ballot).cloned()
        {
            return self.learn(chosen.ballot, value, clock, effects);
        }
        self.note_ahead(from, chosen.instance.following(), clock, effects);
    }

    pub(super) fn handle_ahead(&mut self, from: NodeId, ahead: Ahead, clock: Clock, effects: &mut Vec<Effect>) {
        if ahead.next <= self.next {
            return;
        }
        if matches!(self.role, Role::Candidate { .. }) && self.own_ballot() == Some(ahead.ballot) {
            self.ballots_lost += 1;
            self.step_down(clock, effects);
            self.try_again_soon(clock);
        }
        self.note_ahead(from, ahead.next, clock, effects);
    }

    /// Notes that `from` knows every instance below `target` to be chosen.
    pub fn note_ahead(&mut self, from: NodeId, target: Instance, clock: Clock, effects: &mut Vec<Effect>) {
        if target <= self.next || from == self.settings.me {
            return;
        }
        match &mut self.learning {
            Some(learning) => {
                learning.target = learning.target.max(target);
                learning.stranger = Some(from).filter(|from| !self.membership.everyone().contains(*from));
            }
            None => self.fetch(from, target, 1, clock, effects),
        }
    }

    /// Returns the number of instances that this member knows of and lacks.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.learning.map_or(0, |learning| learning.target.0.saturating_sub(self.next.0))
    }

    /// Returns true if this member knows of instances that it lacks.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.learning.is_some_and(|learning| learning.misses(self.next))
    }

    /// Returns true if an election should wait for the requested values. Once every other member was asked without
    /// success, the election waits no longer: the only member that knew these values to be chosen may be gone for good.
    pub(super) fn awaits_values(&self) -> bool {
        let others = self.others().count();
        self.is_behind() && self.learning.is_some_and(|learning| learning.questions <= others)
    }

    fn fetch(&mut self, from: NodeId, target: Instance, questions: usize, clock: Clock, effects: &mut Vec<Effect>) {
        let stranger = self.learning.and_then(|learning| learning.stranger);
        let rounds = (questions - 1) / self.others().count().max(1);
        let due_ms = clock.mono_ms + FETCH_MS * (1 << rounds.min(FETCH_DOUBLINGS_MAX));
        self.learning = Some(Learning { from, due_ms, target, questions, stranger });
        let message = Message::Fetch(Fetch { from: self.next, bytes_max: self.settings.window_bytes });
        // The Fetch waits for the records of the values learned before. So a slow disk slows the stream down.
        effects.push(Effect::SendDurable { to: from, message });
    }

    /// Serves a lagging member: the last value from memory, older ones from the log. A member that lacks nothing gets
    /// the Accept in flight again, which it may have refused while it was behind.
    pub(super) fn handle_fetch(&mut self, from: NodeId, fetch: Fetch, effects: &mut Vec<Effect>) {
        if fetch.from >= self.next && self.repeat_accept(from, effects) {
            return;
        }
        let below = self.next;
        let last = self.last_value.as_ref().filter(|_| fetch.from == below.preceding());
        if fetch.from < below && last.is_none() {
            // The asker's window, but at most this node's own: this node must hold in memory what it reads.
            let (chosen, bytes_max) = (self.last_ballot, fetch.bytes_max.min(self.settings.window_bytes));
            return effects.push(Effect::ReadLog { to: from, from: fetch.from, below, chosen, bytes_max });
        }
        let ballot = self.last_ballot;
        let values = last.map(|value| Accepted { ballot, value: value.clone() }).into_iter().collect();
        let range = Range { first: fetch.from, next: below, values };
        effects.push(Effect::Send { to: from, message: Message::Range(range) });
    }

    pub(super) fn handle_range(&mut self, from: NodeId, range: Range, clock: Clock, effects: &mut Vec<Effect>) {
        let mut learned = false;
        let mut instance = range.first;
        for one in range.values {
            if instance == self.next {
                if one.value.chain() != self.chain {
                    return self.on_diverged(from, clock, effects);
                }
                let (ballot, chosen, value) = (one.ballot, self.last_ballot, one.value);
                // A recovering group logs nothing here: it logged later instances long ago, and the records of a group
                // must not go back to earlier instances.
                if self.recovering.is_none() {
                    effects.push(Effect::Persist(Record::Learned { instance, ballot, chosen, value: value.clone() }));
                }
                self.learn(ballot, value, clock, effects);
                learned = true;
            }
            instance = instance.following();
        }
        let Some(learning) = self.learning else { return };
        let target = learning.target.max(range.next);
        if learned {
            // Fetch again even if nothing is missing any more: the Fetch acknowledges the values, and a leader answers
            // it with the Accept in flight.
            self.fetch(from, target, 1, clock, effects);
        } else if target <= self.next {
            self.learning = None;
            self.tell_leader(from, effects);
        } else if from == learning.from && range.next <= self.next && self.awaits_values() {
            self.fetch_elsewhere(learning, clock, effects);
        }
    }

    /// Extends the time limit for a large message of this kind from `from`, because a part of it has arrived.
    pub fn on_arriving(&mut self, from: NodeId, kind: u8, clock: Clock) {
        match (kind, &mut self.role, &mut self.learning) {
            (Message::RANGE, _, Some(learning)) if learning.from == from => {
                learning.due_ms = learning.due_ms.max(clock.mono_ms + FETCH_MS);
            }
            (Message::PROMISE, Role::Candidate { since_ms, .. }, _) => *since_ms = (*since_ms).max(clock.mono_ms),
            _ => {}
        }
    }

    /// Asks `from` again for values that were dropped because too much waited for the disk: the Accept in flight, or a
    /// range.
    pub fn on_dropped(&mut self, from: NodeId, effects: &mut Vec<Effect>) {
        let fetch = Fetch { from: self.next, bytes_max: self.settings.window_bytes };
        effects.push(Effect::Send { to: from, message: Message::Fetch(fetch) });
    }

    /// Counts `from` among the members whose chosen values do not follow those chosen here. One of the two is wrong:
    /// this node, if a majority sends such values.
    fn on_diverged(&mut self, from: NodeId, clock: Clock, effects: &mut Vec<Effect>) {
        self.diverged.add(from, self.membership.voters());
        let (group, instance) = (self.settings.id, self.next);
        let majority = self.diverged.is_quorum(self.membership.voters());
        assert!(!majority, "group {group} differs from the majority before instance {instance}");
        if let Some(learning) = self.learning.filter(|learning| learning.from == from) {
            self.fetch_elsewhere(learning, clock, effects);
        }
    }

    /// Makes the leader repeat its Accept after another member helped this node to catch up. This node may have
    /// answered that Accept with a Behind instead of a vote.
    fn tell_leader(&self, helper: NodeId, effects: &mut Vec<Effect>) {
        let leader = self.leader.map(|ballot| ballot.node);
        if let Some(to) = leader.filter(|leader| *leader != helper && *leader != self.settings.me) {
            let message = Message::Fetch(Fetch { from: self.next, bytes_max: self.settings.window_bytes });
            effects.push(Effect::Send { to, message });
        }
    }

    /// Asks the next member, because the one asked last did not answer, or lacks the values too.
    fn fetch_elsewhere(&mut self, learning: Learning, clock: Clock, effects: &mut Vec<Effect>) {
        let others: Vec<NodeId> = self.others().chain(learning.stranger).collect();
        let after = others.iter().position(|id| *id == learning.from).map_or(0, |position| position + 1);
        let Some(from) = others.get(after % others.len().max(1)) else { return };
        self.fetch(*from, learning.target, learning.questions + 1, clock, effects);
    }

    /// Makes the next tick ask another member, because the request to `peer` may be lost.
    pub(super) fn retry_learning(&mut self, peer: NodeId) {
        if let Some(learning) = self.learning.as_mut().filter(|learning| learning.from == peer) {
            learning.due_ms = Ms(0);
        }
    }

    /// Makes the next tick ask again, because this node has jumped past the request's first instance.
    pub(super) fn retry_learning_now(&mut self) {
        if let Some(learning) = &mut self.learning {
            learning.due_ms = Ms(0);
        }
    }

    pub(super) fn tick_learning(&mut self, clock: Clock, effects: &mut Vec<Effect>) {
        let Some(learning) = self.learning.filter(|learning| clock.mono_ms >= learning.due_ms) else { return };
        if learning.misses(self.next) {
            self.fetch_elsewhere(learning, clock, effects);
        } else {
            self.learning = None;
        }
    }
}
