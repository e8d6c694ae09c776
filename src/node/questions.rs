//! Reads confirmed: one numbered question per turn to each peer, for all groups with waiting reads at once.
//!
//! An item is confirmed when a majority, counting the asker, has promised nothing above the ballot asked about, and one
//! of them leads under it and names an instance. The asker asks all that it needs at once, rather than leaving it to
//! the leader to ask more: with three members the leader's answer alone is enough, with five one more is needed.

use super::wire::{Answers, NodeMessage, Question};
use super::{Node, Time};
use crate::config::{ECHO_MS_MAX, QUESTION_MS};
use crate::kv::command::Command;
use crate::kv::encode::encode;
use crate::kv::{Due, Progress};
use crate::shard::Outlet;
use bytes::Bytes;
use groups::message::Reject;
use groups::reads::ReadId;
use groups::{Answer, Ballot, Confirmation, GroupId, Instance, Message, NodeId, Outcome, Work};
use slab::Slab;
use std::collections::VecDeque;

use super::peers::Peer;
use super::replies::Ticket;

/// A process asks far fewer questions than this power of two.
const START_SHIFT: u32 = 40;

/// A read of this node's clients.
pub(super) struct PendingRead {
    pub(super) group: GroupId,
    pub(super) body: Bytes,
    pub(super) ticket: Ticket,
    pub(super) deadline_ms: u64,
    pub(super) verb: u16,
    pub(super) since_us: u64,
    /// It may take long, and is answered over as many turns as it takes.
    pub(super) long: bool,
    /// What of its answer is there, and the clock by which that was judged.
    pub(super) progress: Progress,
    pub(super) leader_ms: Option<u64>,
}

/// Questions on their way, and the reads that they are for.
#[derive(Default)]
pub(super) struct Questions {
    pub(super) reads: Slab<PendingRead>,
    /// Long reads that may be answered, in turns.
    pub(super) long: VecDeque<ReadId>,
    asked: VecDeque<Asked>,
    number: u64,
    /// Questions to each peer, gathered in a turn.
    staged: Vec<(NodeId, Question)>,
    /// By group: cluster time at the leader that confirmed last, which decides what is due.
    leader_ms: Vec<u64>,
}

struct Asked {
    number: u64,
    since_ms: u64,
    items: Vec<Item>,
}

struct Item {
    group: GroupId,
    confirmation: Confirmation,
    open: bool,
}

impl Questions {
    /// Numbers of one start of the node are not those of another: an answer to an earlier process means nothing.
    pub(super) fn new(start: u64) -> Questions {
        Questions { number: start << START_SHIFT, ..Questions::default() }
    }

    pub(super) fn set_groups(&mut self, groups: u32) {
        self.leader_ms = vec![0; groups as usize];
    }

    /// A read is not answered any more. Its number may soon be another read's.
    pub(super) fn give_up(&mut self, id: usize) -> PendingRead {
        self.long.retain(|other| *other != id as u64);
        self.reads.remove(id)
    }

    fn stage(&mut self, to: NodeId, number: u64, item: (GroupId, Ballot)) {
        match self.staged.iter_mut().find(|(id, _)| *id == to) {
            Some((_, question)) => question.items.push(item),
            None => self.staged.push((to, Question { number, items: vec![item] })),
        }
    }
}

impl Node {
    /// Asks on behalf of the fresh reads of these groups, all under one number.
    pub(super) fn ask(&mut self, groups: &[GroupId], time: Time) {
        if groups.is_empty() {
            return;
        }
        self.io.questions.number += 1;
        let number = self.io.questions.number;
        let mut items = Vec::with_capacity(groups.len());
        for &group in groups {
            // The groups are in order, and so are the items: answers find theirs by bisection.
            let Some(ballot) = self.shard.ask(group, number, &mut self.io) else { continue };
            let mut confirmation = Confirmation::new(self.shard.group(group), ballot);
            if ballot.node == self.identity.node && self.holds_lease(group, time) {
                confirmation.add_lease(self.shard.group(group).answer(ballot));
            }
            let item = Item { group, confirmation, open: true };
            if self.settle(&item, number, time) {
                continue;
            }
            for to in self.to_be_asked(group, ballot, time) {
                self.io.questions.stage(to, number, (group, ballot));
            }
            items.push(item);
        }
        let mut staged = std::mem::take(&mut self.io.questions.staged);
        for (to, question) in staged.drain(..) {
            if let Some(peer) = self.io.peers.find(to) {
                peer.tell(&NodeMessage::Question(question));
            }
        }
        self.io.questions.staged = staged;
        if !items.is_empty() {
            self.io.questions.asked.push_back(Asked { number, since_ms: time.mono_ms(), items });
        }
    }

    /// The leader first, then voters that are reached and have the group, as many as are needed for a majority with this
    /// node, if it votes.
    fn to_be_asked(&self, id: GroupId, ballot: Ballot, time: Time) -> impl Iterator<Item = NodeId> + use<> {
        let group = self.shard.group(id);
        let voters = group.membership().voters();
        let needed = voters.quorum() - usize::from(group.is_voter());
        let mut chosen: Vec<NodeId> = Vec::with_capacity(needed);
        chosen.extend(Some(ballot.node).filter(|leader| *leader != self.identity.node));
        let reached = self.io.peers.all.iter().filter(|peer| peer.is_reached(time.mono_ms()) && !peer.lacks(id));
        for peer in reached.filter(|peer| peer.id != ballot.node && voters.contains(peer.id)) {
            if chosen.len() < needed {
                chosen.push(peer.id);
            }
        }
        chosen.into_iter()
    }

    /// Answers another node's question.
    pub(super) fn handle_question(&mut self, from: NodeId, question: &Question, time: Time) {
        let mut answers = Answers {
            number: question.number,
            unix_ms: self.cluster_ms(time).unwrap_or(0),
            items: Vec::new(),
            leased: Vec::new(),
        };
        answers.items.reserve(question.items.len().min(self.shard.len()));
        for &(group, ballot) in &question.items {
            if !self.shard.has(group) || answers.items.len() >= self.shard.len() {
                continue;
            }
            let (version, answer) = self.shard.answer(group, ballot);
            if matches!(answer, Answer::Leads(_)) {
                self.shard.quiet_step(group, &mut self.io, |group, effects| group.announce(from, effects));
                if self.holds_lease(group, time) {
                    answers.leased.push(group);
                }
            }
            answers.items.push((group, version, answer));
        }
        if let Some(peer) = self.io.peers.find(from) {
            peer.tell(&NodeMessage::Answers(answers));
        }
    }

    /// Counts the answers to a question of this node's.
    pub(super) fn handle_answers(&mut self, from: NodeId, answers: &Answers, time: Time) {
        let asked = &mut self.io.questions.asked;
        let Some(position) = asked.iter().position(|asked| asked.number == answers.number) else { return };
        let mut items = std::mem::take(&mut asked[position].items);
        for (group, version, answer) in &answers.items {
            let Ok(place) = items.binary_search_by_key(group, |item| item.group) else { continue };
            let item = &mut items[place];
            if !item.open {
                continue;
            }
            let ballot = item.confirmation.ballot();
            match answer {
                Answer::Refused(promised) => self.on_refused(from, *group, ballot, *promised, time),
                Answer::Leads(_) => self.io.questions.leader_ms[group.index()] = answers.unix_ms,
                Answer::Holds => {}
            }
            if from == ballot.node && answers.leased.binary_search(group).is_ok() {
                item.confirmation.add_lease(*answer);
            }
            item.confirmation.add(from, *version, *answer, self.shard.group(*group));
            item.open = !self.settle(item, answers.number, time);
        }
        let asked = &mut self.io.questions.asked;
        if items.iter().any(|item| item.open) {
            asked[position].items = items;
        } else {
            asked.remove(position);
        }
    }

    /// `from` has promised a ballot above the one asked about.
    fn on_refused(&mut self, from: NodeId, group: GroupId, ballot: Ballot, promised: Ballot, time: Time) {
        let reject = Message::Reject(Reject { ballot, instance: Instance(0), promised });
        // Nothing else may tell an idle leader that it has lost this member.
        if ballot.node == self.identity.node {
            self.shard.handle(group, from, reject, time.clock(), &mut self.io);
        } else {
            self.io.send(group, ballot.node, &reject);
        }
    }

    /// Does what the answers so far come to; false if more are needed. Else the reads that they are for wait for nothing but
    /// an instance, or for another question.
    fn settle(&mut self, item: &Item, number: u64, time: Time) -> bool {
        let (group, ballot) = (item.group, item.confirmation.ballot());
        match item.confirmation.outcome(self.shard.group(group)) {
            Outcome::Open => return false,
            Outcome::Confirmed(instance) => {
                if ballot.node == self.identity.node {
                    self.io.questions.leader_ms[group.index()] = self.cluster_time.now_ms(time).unwrap_or(0);
                }
                self.shard.step(group, &mut self.io, |group, _| group.on_confirmed(number, ballot, instance));
            }
            Outcome::Outdated => self.shard.step(group, &mut self.io, |group, _| group.on_unconfirmed(number)),
            // The leader's first choice has them ask, or a tick does.
            Outcome::Vain => self.shard.quiet_step(group, &mut self.io, |group, _| group.on_unconfirmed(number)),
        }
        true
    }

    /// Questions without an answer are given up, and their reads ask again; reads without one in time get an error.
    pub(super) fn tick_questions(&mut self, time: Time) {
        let now_ms = time.mono_ms();
        let slowest_us = self.io.peers.all.iter().map(Peer::rtt_us).max().unwrap_or(0);
        let patience_ms = (QUESTION_MS + 2 * slowest_us / 1_000).min(QUESTION_MS + ECHO_MS_MAX);
        while let Some(asked) = self.io.questions.asked.front() {
            if now_ms < asked.since_ms + patience_ms {
                break;
            }
            let Some(asked) = self.io.questions.asked.pop_front() else { break };
            for item in asked.items.iter().filter(|item| item.open) {
                self.shard.step(item.group, &mut self.io, |group, _| group.on_unconfirmed(asked.number));
            }
        }
    }

    /// Evaluates reads that are confirmed and whose instance is applied. Short reads are answered at once: they must not see
    /// what their clients send after them. Long reads wait for [`Node::answer_long_reads`].
    pub(super) fn answer_reads(&mut self, ready: &[ReadId], time: Time) {
        for &id in ready {
            let Some(read) = self.io.questions.reads.get(id as usize) else { continue };
            if read.long {
                self.io.questions.long.push_back(id);
                continue;
            }
            let group = read.group;
            let cluster_ms = self.io.questions.leader_ms[group.index()];
            let leader_ms = self.shard.group(group).time_at(time.clock(), cluster_ms);
            match self.shard.store(group).read(&read.body, leader_ms) {
                Ok(reply) => {
                    let read = self.io.questions.reads.remove(id as usize);
                    self.io.settle_read(&read, reply);
                }
                Err(Due) => self.hold_read(group, id),
            }
        }
    }

    /// Goes on with the long reads, as far as a turn's work goes. A client that waits for one sends nothing meanwhile.
    pub(super) fn answer_long_reads(&mut self, time: Time) {
        let mut work = Work::steps(self.config.turn_steps);
        for _ in 0..self.io.questions.long.len() {
            if work.is_spent() {
                return;
            }
            let questions = &mut self.io.questions;
            let Some(id) = questions.long.pop_front() else { return };
            let Some(read) = questions.reads.get_mut(id as usize) else { continue };
            let group = read.group;
            if self.shard.is_applying(group) {
                questions.long.push_back(id);
                continue;
            }
            let cluster_ms = questions.leader_ms[group.index()];
            let leader_ms =
                *read.leader_ms.get_or_insert_with(|| self.shard.group(group).time_at(time.clock(), cluster_ms));
            match self.shard.store(group).read_some(&read.body, leader_ms, &mut read.progress, &mut work) {
                Ok(Some(reply)) => {
                    let read = questions.reads.remove(id as usize);
                    self.io.settle_read(&read, reply);
                }
                Ok(None) => self.io.questions.long.push_back(id),
                Err(Due) => {
                    // By the group's own time, when that has gone on.
                    (read.progress, read.leader_ms) = (Progress::default(), Some(0));
                    self.hold_read(group, id);
                }
            }
        }
    }

    /// The group's time must pass an expiry first: the next command carries it on, or one without effect does.
    fn hold_read(&mut self, group: GroupId, id: ReadId) {
        if self.shard.group(group).queued_bytes() == 0 {
            self.submit_unanswered(group, |out| encode(&Command::Noop, out));
        }
        self.shard.hold_read(group, id);
    }
}
