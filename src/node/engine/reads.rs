//! Reads of this node's clients that are not answered yet, and the leadership queries that confirm them: one numbered
//! query per turn to each peer, for all groups with waiting reads at once.
//!
//! An item of a query names a group and a ballot. It is confirmed when a majority, counting the asker, has promised
//! nothing above the ballot, and one of that majority leads under the ballot and names an instance. The asker itself
//! sends the query to all members that it needs, at the same time. The leader queries no further members. With three
//! members the leader's answer alone is enough. With five members one more answer is needed.

use super::{Engine, Ports};
use crate::config::{ECHO_MS_MAX, QUESTION_MS};
use crate::kv::command::Command;
use crate::kv::encode::encode;
use crate::kv::reply::Reply;
use crate::kv::{CommandProgress, ExpiryPending};
use crate::node::Time;
use crate::node::ticket::Ticket;
use crate::node::wire::{LeadershipAnswers, LeadershipQuery, NodeMessage};
use bytes::Bytes;
use groups::message::Reject;
use groups::reads::ReadId;
use groups::{
    Ballot, Confirmation, ConfirmationOutcome, GroupId, Instance, LOOK_AHEAD_MAX, LeadershipAnswer, Message, Ms,
    NodeId, Us, WorkBudget,
};
use slab::Slab;
use std::collections::VecDeque;

/// Bits of a query's number below the start number. One process sends far fewer than 2^40 queries.
const START_SHIFT: u32 = 40;

/// A read of this node's clients.
#[derive(Debug)]
pub(in crate::node) struct Read {
    pub(in crate::node) group: GroupId,
    pub(in crate::node) body: Bytes,
    pub(in crate::node) ticket: Ticket,
    pub(in crate::node) deadline_ms: Ms,
    /// The read's index in the statistics.
    pub(in crate::node) verb: u16,
    pub(in crate::node) since_us: Us,
    /// The read may take long, and is answered over several turns.
    pub(in crate::node) long: bool,
}

/// A read, and the progress of its answer.
struct Pending {
    read: Read,
    /// The progress of a long answer.
    progress: CommandProgress,
    /// The time that decides which keys are due, in unix milliseconds, once it is known.
    judged_ms: Option<Ms>,
}

/// Leadership queries in flight, and the reads that they are for.
#[derive(Default)]
pub(super) struct PendingReads {
    pending: Slab<Pending>,
    /// Long reads that may be answered; they take turns.
    long: VecDeque<ReadId>,
    in_flight: VecDeque<InFlightQuery>,
    number: u64,
    /// Queries to each peer, gathered in a turn.
    staged: Vec<(NodeId, LeadershipQuery)>,
    /// By group: cluster time at the leader that confirmed last. It decides which keys are due.
    leader_ms: Vec<Ms>,
}

struct InFlightQuery {
    number: u64,
    since_ms: Ms,
    items: Vec<Item>,
}

struct Item {
    group: GroupId,
    confirmation: Confirmation,
    open: bool,
}

impl PendingReads {
    /// Creates the state of a process with this start number. Query numbers of different starts differ, so an answer to
    /// an earlier process matches no query.
    pub(super) fn new(start: u64) -> PendingReads {
        PendingReads { number: start << START_SHIFT, ..PendingReads::default() }
    }

    pub(super) fn set_groups(&mut self, groups: u32) {
        self.leader_ms = vec![Ms(0); groups as usize];
    }

    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    /// Adds a read that has to be confirmed.
    pub(super) fn insert(&mut self, read: Read) -> ReadId {
        self.pending.insert(Pending { read, progress: CommandProgress::default(), judged_ms: None }) as ReadId
    }

    /// Adds a long read that needs no confirmation. The group's own time decides which keys are due.
    pub(super) fn insert_confirmed(&mut self, read: Read) {
        let id = self.pending.insert(Pending { read, progress: CommandProgress::default(), judged_ms: Some(Ms(0)) });
        self.long.push_back(id as ReadId);
    }

    /// Removes a read. Its id may soon be used for another read.
    pub(super) fn remove(&mut self, id: ReadId) -> Option<Read> {
        let pending = self.pending.try_remove(id as usize)?;
        if pending.read.long {
            self.long.retain(|other| *other != id);
        }
        Some(pending.read)
    }

    /// Takes a read that the present state answers, because the next command to be applied came after the read. Removes
    /// and returns a short read; a long read stays, and waits for its turn.
    pub(super) fn take_evaluated(&mut self, id: ReadId) -> Option<Read> {
        let pending = self.pending.get_mut(id as usize)?;
        if pending.read.long {
            pending.judged_ms = Some(Ms(0));
            self.long.push_back(id);
            return None;
        }
        self.remove(id)
    }

    /// Returns the reads for which `matches` returns true.
    pub(super) fn matching(&self, matches: impl Fn(&Read) -> bool) -> Vec<ReadId> {
        self.pending.iter().filter(|(_, pending)| matches(&pending.read)).map(|(id, _)| id as ReadId).collect()
    }

    /// Returns true if a long read can go on, in a group for which `is_free` returns true.
    pub(super) fn can_go_on(&self, is_free: impl Fn(GroupId) -> bool) -> bool {
        let group = |id: &ReadId| self.pending.get(*id as usize).map(|pending| pending.read.group);
        self.long.iter().filter_map(group).any(is_free)
    }

    fn stage(&mut self, to: NodeId, number: u64, item: (GroupId, Ballot)) {
        match self.staged.iter_mut().find(|(id, _)| *id == to) {
            Some((_, query)) => query.items.push(item),
            None => self.staged.push((to, LeadershipQuery { number, items: vec![item] })),
        }
    }
}

impl Engine {
    /// Sends the leadership queries for the fresh reads of these groups, all under one number.
    pub(super) fn ask(&mut self, groups: &[GroupId], ports: &mut impl Ports, time: Time) {
        if groups.is_empty() {
            return;
        }
        self.reads.number += 1;
        let number = self.reads.number;
        let mut items = Vec::with_capacity(groups.len());
        for &group in groups {
            // The groups are sorted, and so are the items: each answer finds its item by binary search.
            let (shard, mut effects) = self.split(ports);
            let Some(ballot) = shard.ask(group, number, &mut effects) else { continue };
            let mut confirmation = Confirmation::new(self.group(group), ballot);
            if ballot.node == self.me && self.holds_lease(group, ports, time) {
                confirmation.add_lease(self.group(group).answer(ballot));
            }
            let item = Item { group, confirmation, open: true };
            if self.conclude(&item, number, ports, time) {
                continue;
            }
            self.stage_queries(group, ballot, number, ports, time);
            items.push(item);
        }
        for (to, query) in self.reads.staged.drain(..) {
            ports.send_node_message(to, &NodeMessage::LeadershipQuery(query));
        }
        if !items.is_empty() {
            self.reads.in_flight.push_back(InFlightQuery { number, since_ms: time.mono_ms(), items });
        }
    }

    /// Stages queries to the leader, then to reached voters that have the group, as many as a majority needs. This
    /// node counts as one of the majority if it votes.
    fn stage_queries(&mut self, id: GroupId, ballot: Ballot, number: u64, ports: &impl Ports, time: Time) {
        let group = self.shard.group(id);
        let voters = group.membership().voters();
        let mut needed = voters.quorum() - usize::from(group.is_voter());
        if ballot.node != self.me {
            self.reads.stage(ballot.node, number, (id, ballot));
            needed = needed.saturating_sub(1);
        }
        let others = ports.reached(id, time).filter(|peer| *peer != ballot.node && voters.contains(*peer));
        for to in others.take(needed) {
            self.reads.stage(to, number, (id, ballot));
        }
    }

    /// Answers another node's query.
    pub(in crate::node) fn handle_query(
        &mut self,
        from: NodeId,
        query: &LeadershipQuery,
        ports: &mut impl Ports,
        time: Time,
    ) {
        let mut answers = LeadershipAnswers {
            number: query.number,
            unix_ms: ports.cluster_ms(time).unwrap_or(Ms(0)),
            items: Vec::new(),
            leased: Vec::new(),
        };
        // A leader that does not know the time says only that it has promised nothing higher.
        let is_timeless = ports.cluster_ms(time).is_none();
        let groups = self.shard.owned().len();
        answers.items.reserve(query.items.len().min(groups));
        for &(group, ballot) in &query.items {
            if !self.shard.has(group) || answers.items.len() >= groups {
                continue;
            }
            let (version, mut answer) = self.shard.answer(group, ballot);
            if is_timeless && matches!(answer, LeadershipAnswer::Leads(_)) {
                answer = LeadershipAnswer::Holds;
            }
            if matches!(answer, LeadershipAnswer::Leads(_)) {
                self.readers.on_question(group, from);
                self.quiet_step(group, ports, |group, effects| group.announce(from, effects));
                if self.holds_lease(group, ports, time) {
                    answers.leased.push(group);
                }
            }
            answers.items.push((group, version, answer));
        }
        ports.send_node_message(from, &NodeMessage::LeadershipAnswers(answers));
    }

    /// Counts the answers to a query of this node.
    pub(in crate::node) fn handle_answers(
        &mut self,
        from: NodeId,
        answers: &LeadershipAnswers,
        ports: &mut impl Ports,
        time: Time,
    ) {
        let in_flight = &mut self.reads.in_flight;
        let Some(position) = in_flight.iter().position(|query| query.number == answers.number) else { return };
        let mut items = std::mem::take(&mut in_flight[position].items);
        for (group, version, answer) in &answers.items {
            let Ok(index) = items.binary_search_by_key(group, |item| item.group) else { continue };
            let item = &mut items[index];
            if !item.open {
                continue;
            }
            let ballot = item.confirmation.ballot();
            match answer {
                LeadershipAnswer::Refused(promised) => self.on_refused(from, *group, ballot, *promised, ports, time),
                LeadershipAnswer::Leads(_) => self.reads.leader_ms[group.index()] = answers.unix_ms,
                LeadershipAnswer::Holds => {}
            }
            if from == ballot.node && answers.leased.binary_search(group).is_ok() {
                item.confirmation.add_lease(*answer);
            }
            item.confirmation.add(from, *version, *answer, self.shard.group(*group));
            item.open = !self.conclude(item, answers.number, ports, time);
        }
        let in_flight = &mut self.reads.in_flight;
        if items.iter().any(|item| item.open) {
            in_flight[position].items = items;
        } else {
            in_flight.remove(position);
        }
    }

    /// Tells the leader that `from` has promised a ballot above the query's ballot.
    fn on_refused(
        &mut self,
        from: NodeId,
        group: GroupId,
        ballot: Ballot,
        promised: Ballot,
        ports: &mut impl Ports,
        time: Time,
    ) {
        let reject = Message::Reject(Reject { ballot, instance: Instance(0), promised });
        // Without this message, an idle leader may not learn that it has lost this member.
        if ballot.node == self.me {
            self.handle(group, from, reject, ports, time);
        } else {
            ports.send(group, ballot.node, &reject);
        }
    }

    /// Acts on the answers so far. Returns false if more answers are needed. Otherwise the item's reads wait only for
    /// an instance, or for another query.
    fn conclude(&mut self, item: &Item, number: u64, ports: &mut impl Ports, time: Time) -> bool {
        let (group, ballot) = (item.group, item.confirmation.ballot());
        match item.confirmation.outcome(self.shard.group(group)) {
            ConfirmationOutcome::Open => return false,
            ConfirmationOutcome::Confirmed(instance) => {
                if ballot.node == self.me {
                    let Some(cluster_ms) = ports.cluster_ms(time) else {
                        self.quiet_step(group, ports, |group, _| group.on_unconfirmed(number));
                        return true;
                    };
                    self.reads.leader_ms[group.index()] = cluster_ms;
                }
                self.step(group, ports, |group, _| group.on_confirmed(number, ballot, instance));
            }
            ConfirmationOutcome::Outdated => self.step(group, ports, |group, _| group.on_unconfirmed(number)),
            // The reads ask again at the leader's first choice, or at a tick.
            ConfirmationOutcome::Denied => self.quiet_step(group, ports, |group, _| group.on_unconfirmed(number)),
        }
        true
    }

    /// Gives up queries without an answer, so that their reads ask again. `slowest_us`: the longest round trip.
    pub(super) fn tick_queries(&mut self, slowest_us: Us, ports: &mut impl Ports, time: Time) {
        let patience_ms = (QUESTION_MS + (slowest_us * 2).to_ms()).min(QUESTION_MS + ECHO_MS_MAX);
        let is_over = |query: &mut InFlightQuery| time.mono_ms() >= query.since_ms + patience_ms;
        while let Some(query) = self.reads.in_flight.pop_front_if(is_over) {
            for item in query.items.iter().filter(|item| item.open) {
                self.step(item.group, ports, |group, _| group.on_unconfirmed(query.number));
            }
        }
    }

    /// Evaluates reads that are confirmed and whose instance is applied. Short reads are answered at once: they must
    /// not see the effects of later commands of their clients. Long reads wait for [`Engine::answer_long_reads`].
    pub(super) fn answer_reads(&mut self, ready: &[ReadId], ports: &mut impl Ports, time: Time) {
        let mut looked = 0;
        for (place, &id) in ready.iter().enumerate() {
            if place >= looked {
                looked = place + self.look_ahead(&ready[place..]);
            }
            let Some(Pending { read, .. }) = self.reads.pending.get(id as usize) else { continue };
            if read.long {
                self.reads.long.push_back(id);
                continue;
            }
            let group = read.group;
            let cluster_ms = self.reads.leader_ms[group.index()];
            let leader_ms = self.shard.group(group).time_at(time.clock(), cluster_ms);
            match self.shard.store(group).read(&read.body, leader_ms) {
                Ok(reply) => {
                    ports.answer_read(read, reply);
                    self.reads.pending.remove(id as usize);
                }
                Err(ExpiryPending) => self.hold_read(group, id, time),
            }
        }
    }

    /// Lets the first read's group read from memory what the first reads need, if they are of that group. Returns the
    /// number of these reads.
    fn look_ahead(&self, ids: &[ReadId]) -> usize {
        let read = |id: &ReadId| self.reads.pending.get(*id as usize).map(|pending| &pending.read);
        let Some(first) = ids.first().and_then(read) else { return 1 };
        let of_group = |id: &&ReadId| read(id).is_some_and(|read| read.group == first.group);
        let count = ids.iter().take(LOOK_AHEAD_MAX).take_while(of_group).count();
        if count > 1 {
            let reads = ids[..count].iter().filter_map(read);
            self.shard.store(first.group).look_ahead(reads.map(|read| &read.body[..]));
        }
        count
    }

    /// Continues the long reads until `work` is spent. No requests of a client are read while its long read is open.
    pub(super) fn answer_long_reads(&mut self, mut work: WorkBudget, ports: &mut impl Ports, time: Time) {
        for _ in 0..self.reads.long.len() {
            if work.is_spent() {
                return;
            }
            let Some(id) = self.reads.long.pop_front() else { return };
            let Some(Pending { read, progress, judged_ms }) = self.reads.pending.get_mut(id as usize) else { continue };
            let group = read.group;
            if self.shard.is_applying(group) {
                self.reads.long.push_back(id);
                continue;
            }
            let cluster_ms = self.reads.leader_ms[group.index()];
            let judged = *judged_ms.get_or_insert_with(|| self.shard.group(group).time_at(time.clock(), cluster_ms));
            match self.shard.store(group).read_some(&read.body, judged, progress, &mut work) {
                Ok(Some(reply)) => {
                    ports.answer_read(read, reply);
                    self.reads.pending.remove(id as usize);
                }
                Ok(None) => self.reads.long.push_back(id),
                Err(ExpiryPending) => {
                    // At the next attempt, the group's own time decides which keys are due. It has advanced by then.
                    (*progress, *judged_ms) = (CommandProgress::default(), Some(Ms(0)));
                    self.hold_read(group, id, time);
                }
            }
        }
    }

    /// Holds a read of a due key until the group's time has passed the key's expiry. The next command advances that
    /// time. If no command is queued, queues a no-op.
    fn hold_read(&mut self, group: GroupId, id: ReadId, time: Time) {
        if self.shard.group(group).queued_bytes() == 0 {
            self.submit_unanswered(group, |out| encode(&Command::Noop, out), time);
        }
        self.shard.hold_read(group, id);
    }

    /// Removes the reads for which `matches` returns true, and answers each with `refusal`.
    pub(super) fn refuse_reads(
        &mut self,
        matches: impl Fn(&Read) -> bool,
        refusal: &Reply<'static>,
        ports: &mut impl Ports,
    ) {
        for id in self.reads.matching(matches) {
            let Some(read) = self.reads.remove(id) else { continue };
            self.shard.cancel_read(read.group, id);
            ports.answer_read(&read, refusal.clone());
        }
    }
}

#[cfg(test)]
impl Engine {
    /// Replaces all reads by `count` reads that no client asked for and that are never answered.
    pub(in crate::node) fn set_unanswered_reads(&mut self, count: usize) {
        self.reads.pending.clear();
        let ticket = Ticket::Upload { number: 0, bytes: 0 };
        let (group, body, deadline_ms) = (GroupId(0), Bytes::new(), Ms::MAX);
        for _ in 0..count {
            let read = Read { group, body: body.clone(), ticket, deadline_ms, verb: 0, since_us: Us(0), long: false };
            self.reads.insert(read);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(group: u32, long: bool) -> Read {
        let ticket = Ticket::Upload { number: 1, bytes: 0 };
        Read { group: GroupId(group), body: Bytes::new(), ticket, deadline_ms: Ms(5), verb: 0, since_us: Us(0), long }
    }

    #[test]
    fn a_long_read_waits_for_its_turn_and_a_short_one_is_answered_at_once() {
        let mut reads = PendingReads::new(1);
        let (short, long) = (reads.insert(read(0, false)), reads.insert(read(1, true)));
        assert!(reads.take_evaluated(short).is_some_and(|read| read.group == GroupId(0)));
        assert!(reads.take_evaluated(long).is_none() && reads.len() == 1);
        assert!(reads.can_go_on(|group| group == GroupId(1)) && !reads.can_go_on(|_| false));
        assert_eq!(reads.matching(|read| read.deadline_ms <= Ms(5)), [long]);
        assert!(reads.remove(long).is_some() && !reads.can_go_on(|_| true) && reads.remove(long).is_none());
    }

    #[test]
    fn queries_to_one_peer_become_one() {
        let mut reads = PendingReads::new(3);
        let number = reads.number;
        assert_eq!(number, 3 << START_SHIFT);
        for (to, group) in [(2, 0), (3, 0), (2, 1)] {
            reads.stage(NodeId(to), number, (GroupId(group), Ballot::ZERO));
        }
        let items: Vec<(u32, usize)> = reads.staged.iter().map(|(to, query)| (to.0, query.items.len())).collect();
        assert_eq!(items, [(2, 2), (3, 1)]);
    }
}
