//! A set of groups with their stores: all groups of a cluster, or those of one worker. Inputs are method calls, and
//! their effects go to an [`EffectSink`]. A shard shares nothing, so several shards can run side by side.

mod machine;
mod replica;
mod sink;

pub use replica::{Replica, unlogged};
pub use sink::EffectSink;

use crate::kv::Store;
use crate::storage::checkpoint::SectionHead;
use crate::storage::wal::{self, Lsn};
use bytes::BytesMut;
use groups::message::Range;
use groups::reads::ReadId;
use groups::{
    Ballot, Clock, Counter, Effect, ElectionContext, Group, GroupId, Instance, LeadershipAnswer, Message, Ms, NodeId,
    Snapshot, Value, WorkBudget,
};
use std::collections::VecDeque;

/// Number of ticks in which each quiet group is checked once, for keys that expire.
const QUIET_TICKS: usize = 8;

/// Groups, their stores, and which of them have work left in this turn.
pub struct Shard {
    /// By group; `None` for a group of another shard, and while the group is being rebuilt elsewhere: nobody may ask a
    /// missing group for anything.
    replicas: Vec<Option<Replica>>,
    /// The groups of this shard, ascending.
    owned: Vec<GroupId>,
    dirty: Vec<GroupId>,
    effects: Vec<Effect>,
    /// Groups with a value that may not be proposed now. [`Shard::look_at_held`] and each tick mark them as dirty again.
    held: Vec<GroupId>,
    /// Bytes of this node's commands that are not applied yet, in all groups.
    queued_bytes: usize,
    /// The memory that all stores take, in bytes.
    store_bytes: usize,
    /// By group: true if ticks have nothing to do there. Kept apart from the groups, so that a tick does not fetch the
    /// memory of each.
    quiet: Vec<bool>,
    ticks: usize,
    /// Groups with a value that is applied over several turns; the one that waits longest comes first.
    busy: VecDeque<GroupId>,
}

impl Shard {
    /// Returns a shard of these groups with the stores that they replicate. The cluster has `all` groups, numbered from
    /// 0; the groups of this shard come in ascending order.
    #[must_use]
    pub fn new(all: usize, groups: impl Iterator<Item = (Group, Store)>) -> Shard {
        let mut shard = Shard::of((0..all).map(|_| None).collect());
        for (group, store) in groups {
            shard.owned.push(group.id());
            let index = group.id().index();
            shard.replicas[index] = Some(Replica::new(group, store));
        }
        debug_assert!(shard.owned.is_sorted(), "the groups come in ascending order");
        shard
    }

    /// Returns a shard of all groups of a cluster, all of them missing: [`Shard::put`] brings each.
    #[must_use]
    pub fn of_missing(groups: usize) -> Shard {
        let missing = Shard::of((0..groups).map(|_| None).collect());
        Shard { owned: (0..groups as u32).map(GroupId).collect(), ..missing }
    }

    fn of(replicas: Vec<Option<Replica>>) -> Shard {
        let quiet = vec![false; replicas.len()];
        Shard {
            replicas,
            owned: Vec::new(),
            dirty: Vec::new(),
            effects: Vec::new(),
            held: Vec::new(),
            queued_bytes: 0,
            store_bytes: 0,
            quiet,
            ticks: 0,
            busy: VecDeque::new(),
        }
    }

    /// Returns the number of groups of the cluster.
    #[must_use]
    pub fn group_count(&self) -> usize {
        self.replicas.len()
    }

    /// Returns the groups of this shard, missing ones included, ascending.
    #[must_use]
    pub fn owned(&self) -> &[GroupId] {
        &self.owned
    }

    /// Returns true if the group is here. The other methods about one group require this.
    #[must_use]
    pub fn has(&self, group: GroupId) -> bool {
        self.replicas.get(group.index()).is_some_and(Option::is_some)
    }

    /// Returns a group, read-only.
    #[must_use]
    pub fn group(&self, group: GroupId) -> &Group {
        &self.replica(group).group
    }

    /// Returns a group's store, read-only.
    #[must_use]
    pub fn store(&self, group: GroupId) -> &Store {
        &self.replica(group).store
    }

    /// Returns a group with its store.
    pub fn replica_mut(&mut self, group: GroupId) -> &mut Replica {
        here(&mut self.replicas, group)
    }

    /// Returns all groups that are here.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.replicas.iter().flatten().map(|replica| &replica.group)
    }

    /// Returns the stores of all groups that are here.
    pub fn stores(&self) -> impl Iterator<Item = &Store> {
        self.replicas.iter().flatten().map(|replica| &replica.store)
    }

    /// Returns the number of groups of this shard that are missing.
    #[must_use]
    pub fn missing_groups(&self) -> usize {
        self.owned.iter().filter(|group| !self.has(**group)).count()
    }

    /// Recovery: takes all groups out, to be rebuilt elsewhere. [`Shard::put`] brings each back.
    pub fn take_all(&mut self) -> Vec<(GroupId, Replica)> {
        assert_eq!(self.queued_bytes, 0, "nobody waits for a group that is given away");
        // The pending work of an empty group does not matter once the group has its state.
        self.dirty.clear();
        self.held.clear();
        let taken = self.replicas.iter_mut().zip(0..).filter_map(|(replica, group)| {
            let replica = replica.take()?;
            self.store_bytes -= replica.store_bytes;
            Some((GroupId(group), Replica { dirty: false, store_bytes: 0, ..replica }))
        });
        taken.collect()
    }

    /// Recovery: puts a rebuilt group back, and counts the memory of its store.
    ///
    /// # Panics
    /// If the group is here already, or belongs to another shard.
    pub fn put(&mut self, group: GroupId, replica: Replica) {
        assert!(self.owned.binary_search(&group).is_ok(), "group {group} belongs to another shard");
        let before = self.replicas[group.index()].replace(replica);
        assert!(before.is_none(), "group {group} is here already");
        self.quiet[group.index()] = false;
        self.weigh(group);
    }

    /// Replaces the state of a group with that of another member, and returns the old store. Returns `None` and
    /// replaces nothing if the new state is not beyond the group's own.
    pub fn install(
        &mut self,
        group: GroupId,
        state: Snapshot,
        store: Store,
        clock: Clock,
        out: &mut impl EffectSink,
    ) -> Option<Store> {
        self.finish(group, out);
        let replica = here(&mut self.replicas, group);
        let before = replica.group.queued_bytes();
        let taken = replica.group.install(state, clock, &mut self.effects);
        let old = taken.then(|| std::mem::replace(&mut replica.store, store));
        // The group has already removed the skipped commands from its queue.
        self.queued_bytes -= before - replica.group.queued_bytes();
        self.weigh(group);
        self.mark_dirty(group);
        self.carry_out(group, out);
        old
    }

    /// Freezes the state of a group as it is now, for [`Shard::next_block`]; see [`Store::freeze_for`].
    pub fn freeze(&mut self, group: GroupId, divides: bool) -> SectionHead {
        let replica = self.replica_mut(group);
        replica.store.freeze_for(divides);
        SectionHead { group, state: replica.group.snapshot() }
    }

    /// Takes the next block of a frozen state; see [`Store::next_block`].
    pub fn next_block(&mut self, group: GroupId, budget_bytes: usize) -> Option<Vec<u8>> {
        self.replica_mut(group).store.next_block(budget_bytes)
    }

    /// Releases the frozen state. Returns its digest, or 0 if not all of it was taken out.
    pub fn thaw(&mut self, group: GroupId) -> u64 {
        let store = &mut self.replica_mut(group).store;
        let digest = store.frozen_digest().unwrap_or(0);
        store.thaw();
        digest
    }

    /// Logs the position of every group again, and the votes that are older than `lsn`, before older records are
    /// removed.
    pub fn record_again(&mut self, lsn: Lsn, out: &mut impl EffectSink) {
        // The facts that a missing group has in the old records would be lost with them.
        assert_eq!(self.missing_groups(), 0, "the log is trimmed only when all groups are here");
        assert!(!self.is_busy(), "a position record counts only when all values below it are applied");
        for at in 0..self.owned.len() {
            let group = self.owned[at];
            let replica = self.replica(group);
            let vote = replica.vote_lsn < lsn;
            if replica.group.next() > Instance::FIRST || replica.group.promised() > Ballot::ZERO {
                self.quiet_step(group, out, |group, effects| group.record_again(vote, effects));
            }
        }
    }

    /// Ends recovery: time limits run from here.
    pub fn begin(&mut self, clock: Clock) {
        self.replicas.iter_mut().flatten().for_each(|replica| replica.group.begin(clock));
    }

    /// Handles a message of a member, or a message of this node to itself that had to wait until records were durable.
    /// The message waits while the group applies a value.
    pub fn handle(&mut self, group: GroupId, from: NodeId, message: Message, clock: Clock, out: &mut impl EffectSink) {
        let replica = here(&mut self.replicas, group);
        if replica.is_blocked() {
            return replica.wait(from, message);
        }
        self.handle_now(group, from, message, clock, out);
    }

    fn handle_now(&mut self, group: GroupId, from: NodeId, message: Message, clock: Clock, out: &mut impl EffectSink) {
        // A previous value that the message shows as chosen is applied first: only then can the states be compared.
        self.step(group, out, |group, effects| group.learn_before(from, &message, clock, effects));
        let replica = here(&mut self.replicas, group);
        if replica.pending.is_some() {
            // The previous instance is not applied yet.
            replica.waiting_bytes += message.value_bytes();
            return replica.waiting.push_front((from, message));
        }
        let group_now = &self.replica(group).group;
        if group_now.promises(from, &message).is_some_and(|to| !out.allows(group, to, group_now.promised(), clock)) {
            return self.step(group, out, |group, effects| group.withhold(from, &message, effects));
        }
        self.step(group, out, |group, effects| group.handle(from, message, clock, effects));
    }

    /// Queues a command of this node's clients; `body` writes it. Returns its counter in the group.
    pub fn submit(&mut self, group: GroupId, body: impl FnOnce(&mut BytesMut)) -> Counter {
        self.mark_dirty(group);
        let group_now = &mut self.replica_mut(group).group;
        let before = group_now.queued_bytes();
        let counter = group_now.submit(body);
        self.queued_bytes += group_now.queued_bytes() - before;
        counter
    }

    /// Returns the bytes of this node's commands that are not applied yet, in all groups.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Returns the memory that all stores take, in bytes; see [`Store::bytes`].
    #[must_use]
    pub fn store_bytes(&self) -> usize {
        self.store_bytes
    }

    /// Takes commands back. Commands that may have left this node are removed from `counters` instead; see
    /// [`Group::withdraw`].
    pub fn withdraw(&mut self, group: GroupId, counters: &mut Vec<Counter>) {
        let group_now = &mut self.replica_mut(group).group;
        let before = group_now.queued_bytes();
        group_now.withdraw(counters);
        self.queued_bytes -= before - group_now.queued_bytes();
    }

    /// Adds a read of this node's clients, which waits in the group.
    pub fn read(&mut self, group: GroupId, id: ReadId) {
        self.mark_dirty(group);
        self.replica_mut(group).group.read(id);
    }

    /// Lets a read wait for this node's next command in the group; see [`Group::hold_read`].
    pub fn hold_read(&mut self, group: GroupId, id: ReadId) {
        self.replica_mut(group).group.hold_read(id);
    }

    /// Cancels a read that nobody waits for any more.
    pub fn cancel_read(&mut self, group: GroupId, id: ReadId) {
        self.replica_mut(group).group.cancel_read(id);
    }

    /// Runs the time limits of all groups, and expiry where this node leads. Quiet groups are checked in turns.
    /// `cluster_ms` is cluster time in unix milliseconds, if it is known.
    pub fn tick(
        &mut self,
        clock: Clock,
        cluster_ms: Option<Ms>,
        context: ElectionContext<'_>,
        out: &mut impl EffectSink,
    ) {
        self.ticks += 1;
        self.look_at_held();
        let turn = self.ticks % QUIET_TICKS;
        for at in 0..self.owned.len() {
            let group = self.owned[at];
            let index = group.index();
            if self.quiet[index] && at % QUIET_TICKS != turn {
                continue;
            }
            let Some(replica) = self.replicas[index].as_mut().filter(|replica| replica.pending.is_none()) else {
                continue;
            };
            // A group that knows no leader may campaign. A campaign makes this node promise itself a ballot.
            let leads = replica.group.leader().is_some();
            let may_self_promise = leads || out.allows(group, replica.group.me(), replica.group.promised(), clock);
            let context = ElectionContext { may_self_promise, ..context };
            replica.group.tick(clock, context, &mut self.effects);
            let now_ms = || cluster_ms.map(|cluster_ms| replica.group.time_at(clock, cluster_ms));
            let due = replica.store.next_due_ms().is_some_and(|due| now_ms().is_some_and(|now_ms| due <= now_ms));
            let expires = due && replica.group.leads().is_some();
            if expires {
                replica.group.propose_time();
            }
            // A value may have been held back until a time that has passed by now.
            let waits = replica.group.has_waiting() || replica.group.next_value_bytes().is_some();
            if expires || waits || !self.effects.is_empty() {
                self.mark_dirty(group);
            }
            self.carry_out(group, out);
            self.quiet[index] = !due && self.replica(group).group.is_quiet();
        }
    }

    /// Returns true if the values of some groups could not be proposed.
    #[must_use]
    pub fn has_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// Makes the next flush look again at the groups whose values could not be proposed.
    pub fn look_at_held(&mut self) {
        for group in std::mem::take(&mut self.held) {
            self.mark_dirty(group);
        }
    }

    /// Calls `change` on one group and carries out its effects.
    pub fn step(
        &mut self,
        group: GroupId,
        out: &mut impl EffectSink,
        change: impl FnOnce(&mut Group, &mut Vec<Effect>),
    ) {
        self.mark_dirty(group);
        self.quiet_step(group, out, change);
    }

    /// As [`Shard::step`], for changes that leave the group nothing to do at the end of the turn.
    pub fn quiet_step(
        &mut self,
        group: GroupId,
        out: &mut impl EffectSink,
        change: impl FnOnce(&mut Group, &mut Vec<Effect>),
    ) {
        change(&mut here(&mut self.replicas, group).group, &mut self.effects);
        self.carry_out(group, out);
    }

    /// Drops the waiting messages of a member whose connection has ended. Its messages in flight are lost, too. Handled
    /// later, the waiting messages would make a group follow a dead leader.
    pub fn forget_waiting(&mut self, from: NodeId) {
        self.replicas.iter_mut().flatten().for_each(|replica| replica.forget_waiting(from));
    }

    /// Calls `change` on every group that is here and carries out its effects.
    pub fn step_all(&mut self, out: &mut impl EffectSink, mut change: impl FnMut(&mut Group, &mut Vec<Effect>)) {
        for at in 0..self.owned.len() {
            let group = self.owned[at];
            if self.has(group) {
                self.step(group, out, &mut change);
            }
        }
    }

    /// Ends a turn for the groups that had inputs: each proposes, forwards or announces once. Reads that may be
    /// answered are added to `ready`. Groups with reads that need a leadership query are added to `asking`. Nothing is
    /// proposed before cluster time is known.
    pub fn flush(
        &mut self,
        clock: Clock,
        cluster_ms: Option<Ms>,
        out: &mut impl EffectSink,
        ready: &mut Vec<ReadId>,
        asking: &mut Vec<GroupId>,
    ) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for group in dirty.drain(..) {
            let replica = here(&mut self.replicas, group);
            replica.dirty = false;
            if replica.pending.is_some() {
                continue; // marked again when the value is applied
            }
            let proposes = |bytes| cluster_ms.is_some() && out.may_propose(bytes);
            if replica.group.next_value_bytes().is_none_or(proposes) {
                replica.group.flush(clock, cluster_ms.unwrap_or(Ms(0)), &mut self.effects);
                self.carry_out(group, out);
            } else {
                self.held.push(group);
            }
            let group_now = &mut self.replica_mut(group).group;
            group_now.take_ready(ready);
            if group_now.has_fresh_reads() {
                asking.push(group);
            }
        }
        // Groups that were marked again meanwhile wait for the next round. The memory of the list is kept.
        if self.dirty.is_empty() {
            self.dirty = dirty;
        }
    }

    /// Asks a question on behalf of the fresh reads of a group; see [`Group::ask`].
    pub fn ask(&mut self, group: GroupId, number: u64, out: &mut impl EffectSink) -> Option<Ballot> {
        let ballot = here(&mut self.replicas, group).group.ask(number, &mut self.effects);
        self.carry_out(group, out);
        ballot
    }

    /// Returns true if the turn has work left to flush.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Returns the values that [`EffectSink::read_log`] asked for, as a message for the lagging member.
    #[must_use]
    pub fn range(&self, group: GroupId, first: Instance, values: Vec<wal::ChosenValue>) -> Message {
        let next = self.group(group).next();
        let accepted = |chosen: wal::ChosenValue| {
            let value = Value::parse(chosen.payload).ok()?;
            Some(groups::acceptor::Accepted { ballot: chosen.ballot, value })
        };
        Message::Range(Range { first, next, values: values.into_iter().map_while(accepted).collect() })
    }

    /// Answers another member's question. Returns also the version of the membership that the answer is for.
    #[must_use]
    pub fn answer(&self, group: GroupId, ballot: Ballot) -> (u64, LeadershipAnswer) {
        let group = &self.replica(group).group;
        (group.membership().version(), group.answer(ballot))
    }

    fn replica(&self, group: GroupId) -> &Replica {
        self.replicas[group.index()].as_ref().expect(MISSING)
    }

    fn mark_dirty(&mut self, group: GroupId) {
        self.quiet[group.index()] = false;
        let replica = here(&mut self.replicas, group);
        if !replica.dirty {
            replica.dirty = true;
            self.dirty.push(group);
        }
    }

    /// Updates the sum of the stores' memory with the present size of one store.
    fn weigh(&mut self, group: GroupId) {
        let replica = here(&mut self.replicas, group);
        let bytes = replica.store.bytes();
        self.store_bytes = self.store_bytes - std::mem::replace(&mut replica.store_bytes, bytes) + bytes;
    }

    fn carry_out(&mut self, group: GroupId, out: &mut impl EffectSink) {
        if self.effects.is_empty() {
            return;
        }
        let mut effects = std::mem::take(&mut self.effects);
        let replica = here(&mut self.replicas, group);
        let (before, was_busy) = (replica.group.queued_bytes(), replica.pending.is_some());
        for effect in effects.drain(..) {
            replica.carry_out_in_turn(group, effect, out);
        }
        // Only applying takes commands off the queue.
        self.queued_bytes -= before - replica.group.queued_bytes();
        if replica.pending.is_some() && !was_busy {
            self.busy.push_back(group);
        }
        self.weigh(group);
        self.effects = effects;
    }

    /// Continues with the values that earlier turns could not apply, and with the messages that wait for them, as far
    /// as the turn's work budget goes.
    pub fn continue_applying(&mut self, clock: Clock, out: &mut impl EffectSink) {
        for _ in 0..self.busy.len() {
            if out.work().is_spent() {
                return;
            }
            let Some(group) = self.busy.pop_front() else { return };
            self.continue_applying_in(group, clock, out);
        }
    }

    fn continue_applying_in(&mut self, group: GroupId, clock: Clock, out: &mut impl EffectSink) {
        self.apply_pending(group, out);
        loop {
            let replica = here(&mut self.replicas, group);
            if replica.pending.is_some() {
                break;
            }
            let Some((from, message)) = replica.waiting.pop_front() else {
                return self.mark_dirty(group);
            };
            replica.waiting_bytes -= message.value_bytes();
            self.handle_now(group, from, message, clock, out);
            if out.work().is_spent() {
                break;
            }
        }
        if here(&mut self.replicas, group).is_blocked() && !self.busy.contains(&group) {
            self.busy.push_back(group);
        }
        self.mark_dirty(group);
    }

    fn apply_pending(&mut self, group: GroupId, out: &mut impl EffectSink) {
        let replica = here(&mut self.replicas, group);
        let before = replica.group.queued_bytes();
        replica.continue_applying(group, out);
        self.queued_bytes -= before - replica.group.queued_bytes();
        self.weigh(group);
    }

    /// Applies everything that a group has begun to apply, however long that takes: its state will be replaced.
    fn finish(&mut self, group: GroupId, out: &mut impl EffectSink) {
        while here(&mut self.replicas, group).pending.is_some() {
            let left = std::mem::replace(out.work(), WorkBudget::unlimited());
            self.apply_pending(group, out);
            *out.work() = left;
        }
    }

    /// Returns true if a group applies a value over several turns, or has messages left that waited for one.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.busy.is_empty()
    }

    /// Returns true if the state of a group is between two instances: part of a value is applied.
    #[must_use]
    pub fn is_applying(&self, group: GroupId) -> bool {
        self.replica(group).pending.is_some()
    }
}

/// As [`Shard::replica_mut`], for when the shard's other fields are in use.
fn here(replicas: &mut [Option<Replica>], group: GroupId) -> &mut Replica {
    replicas[group.index()].as_mut().expect(MISSING)
}

/// The panic message for a missing group. The group may have made promises that this process does not know yet: nothing
/// may be said in its name.
const MISSING: &str = "the group is missing: it is not rebuilt yet";
