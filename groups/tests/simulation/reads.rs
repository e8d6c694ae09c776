//! Reads of the simulated clients: read questions, and what each read must see when it is answered.

use crate::machine::Name;
use crate::node::{Node, Packet, Turn};
use groups::{Confirmation, ConfirmationOutcome, Counter, Instance, LeadershipAnswer, Ms, NodeId};
use std::collections::BTreeMap;

/// Time after which an unanswered question is asked again, in milliseconds.
const QUESTION_MS: Ms = Ms(200);

/// A waiting read: the instance that it must see, and its node's last command before it.
pub(crate) struct Read {
    floor: Instance,
    after: Counter,
}

impl Read {
    /// Checks that the read sees all that clients saw before it, and of its own node's commands exactly those queued
    /// before it.
    pub(crate) fn check(&self, group: usize, applied: Instance, newest: Counter, pending: &BTreeMap<Counter, Name>) {
        let Read { floor, after } = self;
        assert!(applied >= *floor, "a read of group {group} sees {applied}, but {floor} was seen before it");
        let before = pending.range(..=after).next();
        assert!(before.is_none(), "a read overtook {before:?}, which its node had queued before it");
        assert!(newest <= *after, "command {newest} overtook a read that its node had queued before it");
    }
}

/// A numbered question that waits for answers.
pub(crate) struct Question {
    number: u64,
    group: usize,
    asked: Ms,
    confirmation: Confirmation,
}

impl Node {
    pub(crate) fn read(&mut self, index: usize, id: u64, turn: &mut Turn<'_>) {
        let shard = &mut self.shards[index];
        shard.group.read(id);
        let pending = shard.pending.last_key_value().map(|(counter, _)| *counter);
        let after = pending.max(shard.changes.last().copied()).unwrap_or(shard.newest);
        shard.reads.insert(id, Read { floor: turn.oracle.seen(index), after });
    }

    /// Cancels the newest read, as if its client gave up.
    pub(crate) fn cancel_read(&mut self, index: usize) {
        if let Some((id, _)) = self.shards[index].reads.pop_last() {
            self.shards[index].group.cancel_read(id);
        }
    }

    pub(crate) fn ask(&mut self, index: usize, turn: &mut Turn<'_>) {
        self.numbers += 1;
        let number = self.numbers;
        let asked = self.shards[index].group.ask(number, &mut self.effects);
        if let Some(ballot) = asked {
            let group = &self.shards[index].group;
            let confirmation = Confirmation::new(group, ballot);
            let members = group.membership().voters();
            // Asks the leader, and either just enough other voters for a majority or all of them.
            let mut others: Vec<NodeId> = members.ids().iter().copied().filter(|id| *id != self.id).collect();
            others.sort_by_key(|id| (*id != ballot.node, turn.jitter.below(100)));
            let enough =
                if turn.jitter.below(2) == 0 { members.quorum() - usize::from(group.is_voter()) } else { others.len() };
            for to in others.into_iter().take(enough) {
                turn.sent.push((to, Packet::Ask { number, group: index, ballot }));
            }
            self.questions.push(Question { number, group: index, asked: turn.now, confirmation });
            self.finish_questions();
        }
        self.perform(index, turn);
    }

    pub(crate) fn on_answer(
        &mut self,
        from: NodeId,
        number: u64,
        index: usize,
        version: u64,
        answer: LeadershipAnswer,
    ) {
        let found = self.questions.iter().position(|question| (question.number, question.group) == (number, index));
        let Some(position) = found else { return };
        let question = &mut self.questions[position];
        question.confirmation.add(from, version, answer, &self.shards[index].group);
        self.finish_questions();
    }

    fn finish_questions(&mut self) {
        let shards = &mut self.shards;
        self.questions.retain(|question| {
            let group = &mut shards[question.group].group;
            match question.confirmation.outcome(group) {
                ConfirmationOutcome::Confirmed(instance) => {
                    group.on_confirmed(question.number, question.confirmation.ballot(), instance);
                }
                ConfirmationOutcome::Open => return true,
                ConfirmationOutcome::Outdated | ConfirmationOutcome::Denied => group.on_unconfirmed(question.number),
            }
            false
        });
    }

    pub(crate) fn expire_questions(&mut self, now: Ms) {
        let shards = &mut self.shards;
        self.questions.retain(|question| {
            let is_late = question.asked + QUESTION_MS <= now;
            if is_late {
                shards[question.group].group.on_unconfirmed(question.number);
            }
            !is_late
        });
    }

    pub(crate) fn answer_reads(&mut self, index: usize, turn: &mut Turn<'_>) {
        let mut ready = Vec::new();
        let shard = &mut self.shards[index];
        shard.group.take_ready(&mut ready);
        for id in ready {
            let read = shard.reads.remove(&id).expect("a read is answered once");
            read.check(index, shard.applied, shard.newest, &shard.pending);
            turn.oracle.on_seen(index, shard.applied);
            self.reads_answered += 1;
        }
    }
}
