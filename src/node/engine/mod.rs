//! The engine: the groups of this node with their stores, and the state of commands and reads until they are answered.
//! It owns the queues of commands, the reads and the leadership queries that confirm them, the log's queue, and large
//! commands in parts. The rest of the node gives the engine commands, messages and time. The engine reaches the rest of
//! the node through [`Ports`].
//!
//! ```text
//! commands   queued commands, and the ticket of each       reads       open reads, and the leadership queries for them
//! uploads    large commands in parts                       log_queue   records and messages that wait for the disk
//! effects    applies the effects of the groups             admission   admission and refusal of commands
//! members    reports of other members about the groups     readers     who reads from each group
//! log        the log's queue, for the rest of the node
//! ```

mod admission;
mod commands;
mod effects;
mod log;
mod log_queue;
mod members;
mod readers;
mod reads;
mod uploads;

pub(super) use commands::UNCOUNTED;
pub(super) use reads::Read;
pub(super) use uploads::UploadNeeds;

use super::ticket::Ticket;
use super::wire::NodeMessage;
use super::{NodeConfig, Time};
use crate::admin::stats::Stats;
use crate::config::LARGE_INPUT_BYTES;
use crate::gate::GatedMessage;
use crate::identity::Identity;
use crate::kv::encode::encode;
use crate::kv::reply::Reply;
use crate::kv::{self, Discarded, Store};
use crate::shard::{Replica, Shard};
use crate::storage::checkpoint::SectionHead;
use crate::storage::wal::{self, Lsn};
use admission::Reach;
use bytes::{Bytes, BytesMut};
use commands::{Command, Commands};
use effects::Effects;
use groups::reads::ReadId;
use groups::{
    Ballot, Clock, Counter, Effect, ElectionContext, Group, GroupId, Instance, LeadershipAnswer, Message, Ms, NodeId,
    Snapshot, Us, WorkBudget,
};
use log_queue::LogQueue;
use readers::Readers;
use reads::PendingReads;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use uploads::OutgoingUploads;

/// Maximum bytes of memory that the buffer for the encodings of reads keeps.
const KEPT_ENCODING_BYTES_MAX: usize = 64 << 10;

/// The interface of the engine to the rest of the node.
pub(super) trait Ports {
    /// Sends a message of a group now.
    fn send(&mut self, group: GroupId, to: NodeId, message: &Message);
    /// Sends a message between nodes.
    fn send_node_message(&mut self, to: NodeId, message: &NodeMessage);
    /// Returns the members that are reached and have the group, without this node.
    fn reached(&self, group: GroupId, time: Time) -> impl Iterator<Item = NodeId>;
    /// Returns true if this node holds the lease of a group that it leads under `ballot`.
    fn holds_lease(&self, group: &Group, ballot: Ballot, time: Time) -> bool;
    /// Returns true if this node may promise a ballot of the group to `to`: no other member holds a lease. `promised`
    /// is the highest promise in the group so far.
    fn allows(&self, group: GroupId, to: NodeId, promised: Ballot, clock: Clock) -> bool;
    /// Ends the lease of a group, because the group is handed over.
    fn release_lease(&mut self, group: GroupId);
    /// Returns cluster time in unix milliseconds, if it is known.
    fn cluster_ms(&self, time: Time) -> Option<Ms>;
    /// Delivers the reply to a command, or to a part of one.
    fn reply(&mut self, ticket: Ticket, reply: Reply<'_>);
    /// Returns the refusal of a large command if its parts cannot be sent in the group, and waiting would not help.
    fn upload_refusal(&self, engine: &Engine, group: GroupId, needs: UploadNeeds) -> Option<Reply<'static>>;
    /// Returns the statistics of commands.
    fn stats(&mut self) -> &mut Stats;
    /// Returns the time of this turn, in microseconds.
    fn now_us(&self) -> Us;
    /// Reads chosen values from the log for the member whose id is the range's tag.
    fn read_log(&mut self, range: wal::ReadRange);
    /// Passes the memory of removed keys to another thread, because freeing it takes long.
    fn discard(&mut self, discarded: Discarded);

    /// Answers a command, and counts it.
    fn answer(&mut self, context: RequestContext, reply: Reply<'_>) {
        let (took_us, failed) = (self.now_us().saturating_sub(context.since_us), matches!(reply, Reply::Error(_)));
        self.stats().called(usize::from(context.verb), took_us, failed);
        self.reply(context.ticket, reply);
    }

    /// Answers a read, and counts it.
    fn answer_read(&mut self, read: &Read, reply: Reply<'_>) {
        match reply {
            Reply::Null => self.stats().misses += 1,
            Reply::Bulk(_) | Reply::Long(_) => self.stats().hits += 1,
            _ => {}
        }
        let Read { ticket, verb, since_us, .. } = *read;
        self.answer(RequestContext { ticket, verb, since_us }, reply);
    }
}

/// The ticket and the arrival time of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestContext {
    /// Where the reply belongs.
    pub(super) ticket: Ticket,
    /// The command's index in the statistics, or [`UNCOUNTED`].
    pub(super) verb: u16,
    /// The arrival time, in microseconds.
    pub(super) since_us: Us,
}

/// See the module.
pub(super) struct Engine {
    me: NodeId,
    shard: Shard,
    log: LogQueue,
    commands: Commands,
    reads: PendingReads,
    readers: Readers,
    uploads: OutgoingUploads,
    reach: Reach,
    /// Another member executes the commands of this node's clients: the limits of the queues here do not apply to them.
    is_passing_on: bool,
    /// Messages of this node to itself whose records are durable.
    released: VecDeque<GatedMessage>,
    release_buffer: Vec<GatedMessage>,
    /// Bytes of values that the disk could not take when they came, by group and sender.
    dropped: BTreeMap<(GroupId, NodeId), usize>,
    changes: Changes,
    /// Steps of work that are left in this turn for applying values.
    work: WorkBudget,
    turn_steps: u64,
    read_buffers: (Vec<ReadId>, Vec<GroupId>),
    /// Reads are encoded here first, so that each is kept in a single allocation of its exact size.
    encoding: BytesMut,
}

/// Changes in the groups. The flags are reset when the rest of the node asks for them.
#[derive(Default)]
struct Changes {
    /// This node leads other groups than before, or the members of some group have changed.
    leadership: bool,
    /// Set if the members of some group have changed. The change is durable once the log is durable up to this LSN.
    members_lsn: Option<Lsn>,
    /// By group, an instance since which the present membership is in force; 0 if it was in force when this node
    /// started.
    membership_since: Vec<Instance>,
    chosen_total: u64,
}

impl Engine {
    /// Creates an engine without groups.
    pub(super) fn new(identity: &Identity, config: &NodeConfig) -> Engine {
        Engine {
            me: identity.node,
            shard: Shard::new(0, std::iter::empty()),
            log: LogQueue::new(),
            commands: Commands::default(),
            reads: PendingReads::new(identity.start),
            readers: Readers::new(config.demand_min.is_some()),
            uploads: OutgoingUploads::new(identity, config),
            reach: Reach::default(),
            is_passing_on: false,
            released: VecDeque::new(),
            release_buffer: Vec::new(),
            dropped: BTreeMap::new(),
            changes: Changes::default(),
            work: WorkBudget::steps(config.turn_steps),
            turn_steps: config.turn_steps,
            read_buffers: (Vec::new(), Vec::new()),
            encoding: BytesMut::new(),
        }
    }

    /// Sets the groups of this worker. The cluster has `all` groups.
    pub(super) fn set_groups(&mut self, all: u32, groups: impl Iterator<Item = (Group, Store)>) {
        self.shard = Shard::new(all as usize, groups);
        self.commands.set_groups(all);
        self.reads.set_groups(all);
        self.readers.set_groups(all);
        self.changes.membership_since = vec![Instance(0); all as usize];
        self.changes.members_lsn.get_or_insert(Lsn(0));
    }

    /// Returns the groups with their stores.
    pub(super) fn shard(&self) -> &Shard {
        &self.shard
    }

    /// Returns a group, which must be loaded.
    pub(super) fn group(&self, group: GroupId) -> &Group {
        self.shard.group(group)
    }

    /// Returns the groups that are loaded.
    pub(super) fn groups(&self) -> impl Iterator<Item = &Group> {
        self.shard.groups()
    }

    pub(super) fn has(&self, group: GroupId) -> bool {
        self.shard.has(group)
    }

    /// Returns a group, if it is loaded.
    pub(super) fn find(&self, group: GroupId) -> Option<&Group> {
        self.shard.has(group).then(|| self.shard.group(group))
    }

    /// Returns true if this node is a member of the group. A node that is not one does not learn the fate of a command.
    pub(super) fn is_member(&self, group: GroupId) -> bool {
        self.group(group).membership().everyone().contains(self.me)
    }

    /// Returns the number of groups of the cluster.
    pub(super) fn group_count(&self) -> usize {
        self.shard.group_count()
    }

    /// Returns the groups of this worker, ascending. Some may not be loaded.
    pub(super) fn owned(&self) -> &[GroupId] {
        self.shard.owned()
    }

    /// Returns the number of groups whose leader this node does not know. Groups that are not loaded count too.
    pub(super) fn leaderless(&self) -> usize {
        self.shard.missing_groups() + self.groups().filter(|group| group.leader().is_none()).count()
    }

    /// Recovery: takes all groups out, so that their state can be restored. [`Engine::put`] brings each back.
    pub(super) fn take_groups(&mut self) -> Vec<(GroupId, Replica)> {
        self.shard.take_all()
    }

    /// Recovery: puts restored groups back.
    pub(super) fn put(&mut self, replicas: Vec<(GroupId, Replica)>) {
        replicas.into_iter().for_each(|(group, replica)| self.shard.put(group, replica));
        self.changes.members_lsn.get_or_insert(Lsn(0));
    }

    /// Begins after recovery, with a log that is durable up to `lsn`.
    pub(super) fn begin(&mut self, lsn: Lsn) {
        self.log.begin(lsn);
    }

    /// Starts the time limits of the groups.
    pub(super) fn begin_groups(&mut self, clock: Clock) {
        self.shard.begin(clock);
        self.changes.members_lsn.get_or_insert(Lsn(0));
    }

    // Inputs of the groups.

    /// Calls `change` on one group and carries out its effects.
    pub(super) fn step(
        &mut self,
        group: GroupId,
        ports: &mut impl Ports,
        change: impl FnOnce(&mut Group, &mut Vec<Effect>),
    ) {
        let (shard, mut effects) = self.split(ports);
        shard.step(group, &mut effects, change);
    }

    /// Like [`Engine::step`], for changes that leave the group nothing to do at the end of the turn.
    pub(super) fn quiet_step(
        &mut self,
        group: GroupId,
        ports: &mut impl Ports,
        change: impl FnOnce(&mut Group, &mut Vec<Effect>),
    ) {
        let (shard, mut effects) = self.split(ports);
        shard.quiet_step(group, &mut effects, change);
    }

    /// Calls `change` on every loaded group and carries out its effects.
    pub(super) fn step_all(&mut self, ports: &mut impl Ports, change: impl FnMut(&mut Group, &mut Vec<Effect>)) {
        let (shard, mut effects) = self.split(ports);
        shard.step_all(&mut effects, change);
    }

    /// Receives a message of a member. If the disk cannot take the message's value now, the message is dropped, and the
    /// node asks for it again later.
    pub(super) fn receive(
        &mut self,
        group: GroupId,
        from: NodeId,
        message: Message,
        ports: &mut impl Ports,
        time: Time,
    ) {
        let bytes = message.value_bytes();
        if bytes > 0 && !self.log.takes_value(bytes) {
            self.dropped.insert((group, from), bytes);
            return;
        }
        self.handle(group, from, message, ports, time);
    }

    fn handle(&mut self, group: GroupId, from: NodeId, message: Message, ports: &mut impl Ports, time: Time) {
        let (shard, mut effects) = self.split(ports);
        shard.handle(group, from, message, time.clock(), &mut effects);
    }

    /// Asks again for values that were dropped, as far as the disk takes them now.
    fn ask_for_dropped(&mut self, ports: &mut impl Ports) {
        while let Some(((group, from), bytes)) = self.dropped.pop_first() {
            if !self.log.takes_value(bytes) {
                self.dropped.insert((group, from), bytes);
                return;
            }
            if self.shard.has(group) {
                self.step(group, ports, |group, effects| group.on_dropped(from, effects));
            }
        }
    }

    /// Applies the time limits of the groups and of the leadership queries. `slowest_us`: the longest round trip to a
    /// peer.
    pub(super) fn tick(&mut self, context: ElectionContext<'_>, slowest_us: Us, ports: &mut impl Ports, time: Time) {
        let cluster_ms = ports.cluster_ms(time);
        let (shard, mut effects) = self.split(ports);
        shard.tick(time.clock(), cluster_ms, context, &mut effects);
        self.ask_for_dropped(ports);
        self.tick_queries(slowest_us, ports, time);
    }

    /// Announces to `others` that the last instances of the led groups were chosen, if they may not know it yet.
    pub(super) fn announce_chosen(&mut self, others: &[NodeId], ports: &mut impl Ports) {
        let led: Vec<GroupId> = self.groups().filter(|group| group.leads().is_some()).map(Group::id).collect();
        for group in led {
            self.quiet_step(group, ports, |group, effects| {
                others.iter().for_each(|to| group.announce(*to, effects));
            });
        }
    }

    // Commands and reads.

    /// Queues a command in the group. `put` writes the command.
    pub(super) fn queue(
        &mut self,
        group: GroupId,
        put: impl FnOnce(&mut BytesMut),
        context: RequestContext,
        deadline_ms: Ms,
    ) {
        let before = self.shard.queued_bytes();
        let counter = self.shard.submit(group, put);
        let bytes = self.shard.queued_bytes() - before;
        let large_bytes = if bytes >= LARGE_INPUT_BYTES { bytes } else { 0 };
        let RequestContext { ticket, verb, since_us } = context;
        let command = Command { counter, ticket: Some(ticket), deadline_ms, large_bytes, verb, since_us };
        self.commands.push(group, command);
    }

    /// Queues a command of the node itself. No client waits for its reply. Returns the command's counter.
    pub(super) fn submit_unanswered(&mut self, group: GroupId, put: impl FnOnce(&mut BytesMut), time: Time) -> Counter {
        let counter = self.shard.submit(group, put);
        let (verb, since_us) = (UNCOUNTED, time.mono_us);
        let command = Command { counter, ticket: None, deadline_ms: Ms(0), large_bytes: 0, verb, since_us };
        self.commands.push(group, command);
        counter
    }

    /// Returns the encoding of a command that reads.
    pub(super) fn encoded(&mut self, command: &kv::command::Command<'_>) -> Bytes {
        self.encoding.clear();
        encode(command, &mut self.encoding);
        let body = Bytes::copy_from_slice(&self.encoding);
        if self.encoding.capacity() > KEPT_ENCODING_BYTES_MAX {
            self.encoding = BytesMut::new();
        }
        body
    }

    /// Begins a read, which waits until it is confirmed and its instance is applied.
    pub(super) fn read(&mut self, read: Read) {
        let group = read.group;
        self.readers.on_read(group, self.me);
        let id = self.reads.insert(read);
        self.shard.read(group, id);
    }

    /// See [`Readers::of`].
    pub(super) fn readers(&self, group: GroupId) -> &[(NodeId, u64)] {
        self.readers.of(group)
    }

    /// See [`Readers::clear`].
    pub(super) fn clear_readers(&mut self, groups: Range<usize>) {
        self.readers.clear(groups);
    }

    /// Begins a long read that is answered from this node's local state, which may be stale.
    pub(super) fn read_stale(&mut self, read: Read) {
        self.reads.insert_confirmed(read);
    }

    /// Returns the number of reads that are not answered.
    pub(super) fn reads(&self) -> usize {
        self.reads.len()
    }

    // A turn.

    /// Continues to apply the values that earlier turns left.
    pub(super) fn continue_applying(&mut self, ports: &mut impl Ports, time: Time) {
        self.work = WorkBudget::steps(self.turn_steps);
        let (shard, mut effects) = self.split(ports);
        shard.continue_applying(time.clock(), &mut effects);
    }

    /// Completes a turn. In rounds, until none finds work: this node's durable messages to itself are handled, every
    /// group that had inputs proposes, forwards or announces once, and reads are confirmed or answered.
    pub(super) fn flush(&mut self, ports: &mut impl Ports, time: Time) {
        if !self.log.holds_proposals(time.mono_us) {
            self.shard.look_at_held();
        }
        loop {
            while let Some(GatedMessage { group, message, .. }) = self.released.pop_front() {
                self.handle(group, self.me, message, ports, time);
            }
            let (mut ready, mut asking) = std::mem::take(&mut self.read_buffers);
            let cluster_ms = ports.cluster_ms(time);
            let (shard, mut effects) = self.split(ports);
            shard.flush(time.clock(), cluster_ms, &mut effects, &mut ready, &mut asking);
            asking.sort_unstable();
            self.ask(&asking, ports, time);
            self.answer_reads(&ready, ports, time);
            ready.clear();
            asking.clear();
            self.read_buffers = (ready, asking);
            if !self.shard.is_dirty() && self.released.is_empty() {
                break;
            }
        }
        self.answer_long_reads(WorkBudget::steps(self.turn_steps), ports, time);
    }

    /// Ends the turn: later work counts for the next turn.
    pub(super) fn end_turn(&mut self) {
        self.readers.end_turn();
        self.work = WorkBudget::steps(self.turn_steps);
    }

    /// Returns true if the next turn has work even without new input.
    pub(super) fn has_work(&self, now_ms: Ms) -> bool {
        let shard = &self.shard;
        let has_reads = || self.reads.can_go_on(|group| !shard.is_applying(group));
        let is_dirty = shard.is_dirty() || shard.is_busy() || !self.released.is_empty() || self.log.holds_batch();
        is_dirty || has_reads() || self.uploads.can_send(now_ms)
    }

    /// Returns the groups that this node leads, with the ballot and the membership's version of each; `None` if nothing
    /// changed since the last call.
    pub(super) fn take_led(&mut self) -> Option<Vec<(GroupId, Ballot, u64)>> {
        let led = |group: &Group| Some((group.id(), group.leads()?, group.membership().version()));
        std::mem::take(&mut self.changes.leadership).then(|| self.groups().filter_map(led).collect())
    }

    /// Returns true if the members of some group have changed since the last call, and the change is durable. Other
    /// nodes are told only then: a removed node stops when it hears of its removal, and can no longer help this node to
    /// learn the change again.
    pub(super) fn take_members_changed(&mut self) -> bool {
        let durable_lsn = self.log.durable_lsn();
        self.changes.members_lsn.take_if(|lsn| *lsn <= durable_lsn).is_some()
    }

    /// Marks the members of the groups as changed, so that they are examined again.
    pub(super) fn note_members_changed(&mut self) {
        self.changes.members_lsn.get_or_insert(Lsn(0));
    }

    /// Returns an instance since which the group's present membership is in force.
    pub(super) fn membership_since(&self, group: GroupId) -> Instance {
        self.changes.membership_since.get(group.index()).copied().unwrap_or(Instance(0))
    }

    /// Returns the group and its ballot, if this node leads the group and knows all values chosen in it.
    pub(super) fn led_with_all_values(&self, group: GroupId) -> Option<(&Group, Ballot)> {
        let group = self.find(group)?;
        let ballot = group.leads()?;
        matches!(group.answer(ballot), LeadershipAnswer::Leads(_)).then_some((group, ballot))
    }

    /// Returns true if this node leads the group under a lease, and knows all values chosen in it.
    pub(super) fn holds_lease(&self, group: GroupId, ports: &impl Ports, time: Time) -> bool {
        self.led_with_all_values(group).is_some_and(|(group, ballot)| ports.holds_lease(group, ballot, time))
    }

    // Checkpoints.

    /// See [`Shard::freeze`].
    pub(super) fn freeze(&mut self, group: GroupId, divides: bool) -> SectionHead {
        self.shard.freeze(group, divides)
    }

    /// See [`Shard::next_block`].
    pub(super) fn next_block(&mut self, group: GroupId, budget_bytes: usize) -> Option<Vec<u8>> {
        self.shard.next_block(group, budget_bytes)
    }

    /// See [`Shard::thaw`].
    pub(super) fn thaw(&mut self, group: GroupId) -> u64 {
        self.shard.thaw(group)
    }

    /// See [`Shard::install`].
    pub(super) fn install(
        &mut self,
        group: GroupId,
        state: Snapshot,
        store: Store,
        ports: &mut impl Ports,
        time: Time,
    ) -> Option<Store> {
        let (shard, mut effects) = self.split(ports);
        shard.install(group, state, store, time.clock(), &mut effects)
    }

    /// See [`Shard::record_again`].
    pub(super) fn record_again(&mut self, lsn: Lsn, ports: &mut impl Ports) {
        let (shard, mut effects) = self.split(ports);
        shard.record_again(lsn, &mut effects);
    }

    /// Splits the engine into the groups and the sink of their effects.
    fn split<'a, P: Ports>(&'a mut self, ports: &'a mut P) -> (&'a mut Shard, Effects<'a, P>) {
        let effects = Effects {
            log: &mut self.log,
            commands: &mut self.commands,
            reads: &mut self.reads,
            uploads: &mut self.uploads,
            released: &mut self.released,
            changes: &mut self.changes,
            work: &mut self.work,
            me: self.me,
            ports,
        };
        (&mut self.shard, effects)
    }
}
