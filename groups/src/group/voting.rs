//! The acceptor's side: promises and votes, each sent after its record is durable.

use super::{Clock, Group};
use crate::acceptor::{Novelty, Refused};
use crate::effect::Record;
use crate::message::{Accept, Ahead, Behind, Diverged, Prepare, Promise, Reject, Vote};
use crate::{Ballot, Effect, Instance, Message, NodeId};

impl Group {
    pub(super) fn handle_prepare(&mut self, from: NodeId, asked: Prepare, clock: Clock, effects: &mut Vec<Effect>) {
        let Prepare { ballot, instance } = asked;
        if !self.counts(from, (ballot, instance), clock, effects) || !self.is_entitled(from, instance) {
            return;
        }
        match self.acceptor.prepare(ballot) {
            Err(Refused(promised)) => refuse(from, Reject { ballot, instance, promised }, effects),
            Ok(novelty) => {
                if novelty == Novelty::New {
                    effects.push(Effect::Persist(Record::Promised(ballot)));
                }
                self.yield_to_other(clock, effects);
                self.election.yield_to(from, clock);
                effects.push(Effect::SendDurable { to: from, message: self.promise(asked) });
            }
        }
    }

    /// Returns true if a Prepare or an Accept under this ballot, for this instance, counts here. A sender that is
    /// behind gets an Ahead.
    fn counts(
        &mut self,
        from: NodeId,
        (ballot, instance): (Ballot, Instance),
        clock: Clock,
        effects: &mut Vec<Effect>,
    ) -> bool {
        if ballot.node != from {
            return false;
        }
        self.seen = self.seen.max(ballot);
        if self.recovering.is_some() {
            self.note_ahead(from, instance, clock, effects);
            return false;
        }
        if instance < self.next {
            let message = Message::Ahead(Ahead { ballot, instance, next: self.next });
            effects.push(Effect::Send { to: from, message });
            return false;
        }
        true
    }

    /// Returns the promise that this acceptor has given to `asked`.
    pub(super) fn promise(&self, asked: Prepare) -> Message {
        let Prepare { ballot, instance } = asked;
        let accepted = self.acceptor.accepted().filter(|_| instance == self.next).cloned();
        Message::Promise(Promise { ballot, instance, next: self.next, accepted })
    }

    pub(super) fn handle_accept(&mut self, from: NodeId, accept: Accept, clock: Clock, effects: &mut Vec<Effect>) {
        let Accept { ballot, instance, value, .. } = accept;
        if !self.counts(from, (ballot, instance), clock, effects) {
            return;
        }
        if instance > self.next {
            let message = Message::Behind(Behind { ballot, instance, next: self.next });
            effects.push(Effect::Send { to: from, message });
            return self.note_ahead(from, instance, clock, effects);
        }
        if !self.is_entitled(from, instance) {
            return;
        }
        // The sender has another history or state, or it proposes a second value under its ballot. Either way this
        // acceptor does not vote.
        let second = self.acceptor.accepted_under(ballot).is_some_and(|known| *known != value);
        if !self.follows(&value) || second {
            let message = Message::Diverged(Diverged { ballot, instance });
            return effects.push(Effect::Send { to: from, message });
        }
        match self.acceptor.accept(ballot, &value) {
            Err(Refused(promised)) => refuse(from, Reject { ballot, instance, promised }, effects),
            Ok(novelty) => {
                if novelty == Novelty::New {
                    let chosen = self.last_ballot;
                    effects.push(Effect::Persist(Record::Accepted { instance, ballot, chosen, value }));
                }
                self.yield_to_other(clock, effects);
                self.follow(ballot, clock);
                self.learning = self.learning.filter(|learning| learning.misses(self.next));
                let message = Message::Vote(Vote { ballot, instance });
                effects.push(Effect::SendDurable { to: from, message });
            }
        }
    }

    /// Ends this node's attempt to lead, because a higher ballot of another node was promised, and gives that node time
    /// to lead.
    fn yield_to_other(&mut self, clock: Clock, effects: &mut Vec<Effect>) {
        self.step_down(clock, effects);
        if self.leader.is_none() {
            self.await_turn(clock);
        }
    }

    /// Takes `ballot` as the one that leads, unless a higher one is known.
    pub(super) fn follow(&mut self, ballot: Ballot, clock: Clock) {
        if self.leader.is_some_and(|leader| leader >= ballot) {
            return;
        }
        // A late claim of an earlier leader does not shorten the time of a candidate whose ballot was promised since.
        if ballot >= self.acceptor.promised() {
            self.election.reset();
        }
        self.set_leader(Some(ballot), clock);
    }
}

fn refuse(to: NodeId, reject: Reject, effects: &mut Vec<Effect>) {
    effects.push(Effect::Send { to, message: Message::Reject(reject) });
}
