//! The learner's side: taking a value as chosen, and catching up by ranges from any member that has them.

use super::{Clock, Group, Role};
use crate::acceptor::Accepted;
use crate::effect::Record;
use crate::message::{Ahead, Chosen, Fetch, Range};
use crate::{Ballot, Effect, Instance, Message, NodeId, Value};

/// If nothing of a range comes for this long, another member is asked. After each round through all members the time
/// doubles, at most [`FETCH_DOUBLINGS_MAX`] times: a range of which fragments arrive is waited for anyway, and a checkpoint
/// that was offered and not fetched must be offered again soon.
const FETCH_MS: u64 = 1_000;
const FETCH_DOUBLINGS_MAX: usize = 1;

/// What is being asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Learning {
    from: NodeId,
    /// When to ask somebody else.
    due_ms: u64,
    /// Instances below this one are known to be chosen somewhere.
    target: Instance,
    /// How often the same was asked for.
    questions: usize,
    /// One that is ahead, too, and no member as far as this node knows: it may have missed that all others went.
    stranger: Option<NodeId>,
}

impl Learning {
    /// Whether a node at `next` lacks some of what is being asked for.
    pub(super) fn misses(&self, next: Instance) -> bool {
        self.target > next
    }
}

impl Group {
    /// Somebody else found `value` to be chosen at `next`. Whatever this node was proposing there is settled.
    pub(super) fn learn(&mut self, ballot: Ballot, value: Value, clock: Clock, effects: &mut Vec<Effect>) {
        self.decide(ballot, value, clock, effects);
        if !matches!(self.role, Role::Follower) {
            self.step_down(clock, effects);
            self.try_again_soon(clock);
        }
    }

    /// A follower takes its own accepted value as chosen only under the very ballot announced; else it fetches.
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

    /// `from` knows every instance below `target` to be chosen.
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

    /// How many instances it knows of and lacks.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.learning.map_or(0, |learning| learning.target.0.saturating_sub(self.next.0))
    }

    /// Whether it knows of instances that it lacks.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.learning.is_some_and(|learning| learning.misses(self.next))
    }

    /// Whether an election should wait for the values that are being asked for: no longer when everybody was asked in
    /// vain, since a leader that alone knew them to be chosen may be gone for good.
    pub(super) fn awaits_values(&self) -> bool {
        let others = self.others().count();
        self.is_behind() && self.learning.is_some_and(|learning| learning.questions <= others)
    }

    fn fetch(&mut self, from: NodeId, target: Instance, questions: usize, clock: Clock, effects: &mut Vec<Effect>) {
        let stranger = self.learning.and_then(|learning| learning.stranger);
        let rounds = (questions - 1) / self.others().count().max(1);
        let due_ms = clock.mono_ms + (FETCH_MS << rounds.min(FETCH_DOUBLINGS_MAX));
        self.learning = Some(Learning { from, due_ms, target, questions, stranger });
        let message = Message::Fetch(Fetch { from: self.next, bytes_max: self.settings.window_bytes });
        // Behind the records of what was learned before: a slow disk slows the stream down.
        effects.push(Effect::SendDurable { to: from, message });
    }

    /// Serves a member that is behind: the last value from memory, older ones from the log. One that has everything
    /// gets the Accept in flight again, which it may have refused for being behind.
    pub(super) fn handle_fetch(&mut self, from: NodeId, fetch: Fetch, effects: &mut Vec<Effect>) {
        if fetch.from >= self.next && self.repeat_accept(from, effects) {
            return;
        }
        let below = self.next;
        let last = self.last_value.as_ref().filter(|_| fetch.from == below.preceding());
        if fetch.from < below && last.is_none() {
            // The asker's window, but no more than this node would ask for: what it reads it must hold.
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
                    return self.doubt(from, clock, effects);
                }
                let (ballot, chosen, value) = (one.ballot, self.last_ballot, one.value);
                // What is beyond it was logged long ago, and records of a group do not go back.
                if self.hollow.is_none() {
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
            // Also when nothing is missing any more: the question acknowledges, and brings a pending Accept again.
            self.fetch(from, target, 1, clock, effects);
        } else if target <= self.next {
            self.learning = None;
            self.tell_leader(from, effects);
        } else if from == learning.from && range.next <= self.next && self.awaits_values() {
            self.fetch_elsewhere(learning, clock, effects);
        }
    }

    /// A part of a large message of this kind has come from `from`: what waits for it goes on waiting.
    pub fn on_arriving(&mut self, from: NodeId, kind: u8, clock: Clock) {
        match (kind, &mut self.role, &mut self.learning) {
            (Message::RANGE, _, Some(learning)) if learning.from == from => {
                learning.due_ms = learning.due_ms.max(clock.mono_ms + FETCH_MS);
            }
            (Message::PROMISE, Role::Candidate { since_ms, .. }, _) => *since_ms = (*since_ms).max(clock.mono_ms),
            _ => {}
        }
    }

    /// What `from` sent was dropped because too much waited for the disk. Now it can come: the Accept in flight, or values.
    pub fn on_dropped(&mut self, from: NodeId, effects: &mut Vec<Effect>) {
        let fetch = Fetch { from: self.next, bytes_max: self.settings.window_bytes };
        effects.push(Effect::Send { to: from, message: Message::Fetch(fetch) });
    }

    /// What `from` says was chosen does not follow what was chosen here. One of the two is wrong: this one, if a majority
    /// says the same.
    fn doubt(&mut self, from: NodeId, clock: Clock, effects: &mut Vec<Effect>) {
        self.doubted.add(from, self.membership.voters());
        let (group, instance) = (self.settings.id, self.next);
        let majority = self.doubted.is_quorum(self.membership.voters());
        assert!(!majority, "group {group} differs from the majority before instance {instance}");
        if let Some(learning) = self.learning.filter(|learning| learning.from == from) {
            self.fetch_elsewhere(learning, clock, effects);
        }
    }

    /// Caught up by another's help: the leader, which may have been told that this node was behind, repeats its Accept.
    fn tell_leader(&self, helper: NodeId, effects: &mut Vec<Effect>) {
        let leader = self.leader.map(|ballot| ballot.node);
        if let Some(to) = leader.filter(|leader| *leader != helper && *leader != self.settings.me) {
            let message = Message::Fetch(Fetch { from: self.next, bytes_max: self.settings.window_bytes });
            effects.push(Effect::Send { to, message });
        }
    }

    /// The member asked last did not answer, or lacks the values too.
    fn fetch_elsewhere(&mut self, learning: Learning, clock: Clock, effects: &mut Vec<Effect>) {
        let others: Vec<NodeId> = self.others().chain(learning.stranger).collect();
        let after = others.iter().position(|id| *id == learning.from).map_or(0, |position| position + 1);
        let Some(from) = others.get(after % others.len().max(1)) else { return };
        self.fetch(*from, learning.target, learning.questions + 1, clock, effects);
    }

    /// What was asked of `peer` may be lost: the next tick asks somebody again.
    pub(super) fn retry_learning(&mut self, peer: NodeId) {
        if let Some(learning) = self.learning.as_mut().filter(|learning| learning.from == peer) {
            learning.due_ms = 0;
        }
    }

    /// Whatever was asked for, this node is elsewhere now: the next tick asks again.
    pub(super) fn retry_learning_now(&mut self) {
        if let Some(learning) = &mut self.learning {
            learning.due_ms = 0;
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
