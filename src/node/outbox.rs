//! Where the effects of the groups go: frames, the log, the gate, the clients. The other half of the node, beside the
//! shard, so that the shard can write into it while it works.

use super::clients::Connections;
use super::incarnations::Incarnation;
use super::peers::Peers;
use super::questions::{PendingRead, Questions};
use super::ranges::Ranges;
use super::relay::{RELAYED, Relays};
use super::replies::Ticket;
use super::requests::NOT_SERVED;
use super::roster::Roster;
use super::uploads::{UPLOADING, Uploads};
use super::{Output, Outputs, Space, wire};
use crate::admin::stats::Stats;
use crate::config::{LOG_QUEUE_BYTES, NodeConfig, SYNC_BYTES_PER_MS, SYNC_MS_MAX};
use crate::gate::{Gate, Held};
use crate::identity::Identity;
use crate::kv::fanout::UNCERTAIN;
use crate::kv::reply::Reply;
use crate::kv::{Discarded, Store, table};
use crate::shard::Outlet;
use crate::storage::checkpoint::Errand;
use crate::storage::wal;
use groups::reads::ReadId;
use groups::{Ballot, Clock, GroupId, Instance, Message, NodeId, Value, Work};
use std::collections::{BTreeMap, VecDeque};

/// A command of this node's clients on its way through the log.
pub(super) struct Waiting {
    pub(super) counter: u64,
    /// Who is to be answered; nobody any more after its time was up.
    pub(super) ticket: Option<Ticket>,
    pub(super) deadline_ms: u64,
    /// How many bytes it queued, if that is many; else 0.
    pub(super) large_bytes: usize,
    /// The command's place in the statistics, or [`UNCOUNTED`], and when it came.
    pub(super) verb: u16,
    pub(super) since_us: u64,
}

/// The place in the statistics of what no client of this node asked for.
pub(super) const UNCOUNTED: u16 = u16::MAX;
/// Bytes of the large commands that wait: small ones are let in beside them.
#[derive(Default)]
pub(super) struct Large {
    by_group: Vec<usize>,
    all: usize,
}

impl Large {
    pub(super) fn add(&mut self, group: GroupId, bytes: usize) {
        self.by_group[group.index()] += bytes;
        self.all += bytes;
    }

    pub(super) fn remove(&mut self, group: GroupId, bytes: usize) {
        self.by_group[group.index()] -= bytes;
        self.all -= bytes;
    }

    pub(super) fn of(&self, group: GroupId) -> usize {
        self.by_group[group.index()]
    }

    pub(super) fn all(&self) -> usize {
        self.all
    }
}

/// The batch on its way to the disk.
struct Syncing {
    lsn: u64,
    /// When it should be there.
    due_ms: u64,
    bytes: usize,
}

/// See the module.
pub(super) struct Outbox {
    pub(super) me: NodeId,
    pub(super) peers: Peers,
    pub(super) connections: Connections,
    pub(super) questions: Questions,
    pub(super) relays: Relays,
    pub(super) uploads: Uploads,
    /// By group: the commands that wait, in the order of their counters.
    pub(super) commands: Vec<VecDeque<Waiting>>,
    pub(super) large: Large,
    pub(super) stats: Stats,
    pub(super) outputs: Outputs,
    pub(super) ranges: Ranges,
    pub(super) chosen_total: u64,
    /// Messages that were skipped because their group, or their kind, is not known here.
    pub(super) unknown_groups: u64,
    pub(super) unknown_kinds: u64,
    pub(super) now_us: u64,
    /// What came with a value, of so many bytes, that the disk could not take then, and from whom.
    pub(super) dropped: BTreeMap<(GroupId, NodeId), usize>,
    gate: Gate,
    batch: Vec<wal::Record>,
    /// Bytes of its records.
    batch_bytes: usize,
    /// Bytes of all records that ever went to the log.
    pub(super) logged_bytes: u64,
    pub(super) space: Space,
    next_lsn: u64,
    syncing: Option<Syncing>,
    released: VecDeque<Held>,
    release_buffer: Vec<Held>,
    leadership_changed: bool,
    /// Some group has other members since this was last asked.
    pub(super) members_changed: bool,
    /// By group, an instance from which on its members are those that it has; 0 if that was so when this node started.
    governs_from: Vec<Instance>,
    read_buffers: (Vec<ReadId>, Vec<GroupId>),
    /// What may still be applied in this turn.
    pub(super) work: Work,
}

impl Outbox {
    pub(super) fn new(config: &NodeConfig, identity: &Identity, roster: Roster) -> Outbox {
        Outbox {
            me: identity.node,
            peers: Peers::new(identity, roster, config),
            connections: Connections::new(config),
            questions: Questions::new(identity.start),
            relays: Relays::new(identity.start),
            uploads: Uploads::new(identity, config),
            commands: Vec::new(),
            large: Large::default(),
            stats: Stats::new(table::names_by_verb()),
            outputs: Outputs::default(),
            ranges: Ranges::default(),
            chosen_total: 0,
            unknown_groups: 0,
            unknown_kinds: 0,
            now_us: 0,
            dropped: BTreeMap::new(),
            gate: Gate::default(),
            batch: Vec::new(),
            batch_bytes: 0,
            logged_bytes: 0,
            space: Space::default(),
            next_lsn: 1,
            syncing: None,
            released: VecDeque::new(),
            release_buffer: Vec::new(),
            leadership_changed: false,
            members_changed: false,
            governs_from: Vec::new(),
            read_buffers: (Vec::new(), Vec::new()),
            work: Work::steps(config.turn_steps),
        }
    }

    pub(super) fn set_groups(&mut self, groups: u32) {
        self.commands = (0..groups).map(|_| VecDeque::new()).collect();
        self.governs_from = vec![Instance(0); groups as usize];
        self.large = Large { by_group: vec![0; groups as usize], all: 0 };
        self.questions.set_groups(groups);
    }

    pub(super) fn begin(&mut self, lsn: u64) {
        self.gate = Gate::new(lsn);
        self.next_lsn = lsn + 1;
    }

    /// A born member said hello. A start number not seen before is logged: a lower one later means that its disk went
    /// back in time, and so does the same one in another life.
    pub(super) fn note_peer(&mut self, hello: &wire::Hello) {
        let seen = Incarnation { storage: hello.storage, start: hello.start, life: Some(hello.life()) };
        let roster = &self.peers.roster;
        let record = self.peers.incarnations.note(hello.node, seen, |id| roster.place(id).is_some());
        record.into_iter().for_each(|record| _ = self.persist(record));
    }

    /// What other nodes were seen as is logged again: older records will go.
    pub(super) fn record_peers_again(&mut self) {
        for record in self.peers.incarnations.records().collect::<Vec<_>>() {
            self.persist(record);
        }
    }

    pub(super) fn on_durable(&mut self, lsn: u64, sync_us: u64) {
        self.stats.fsyncs.record(sync_us);
        if self.syncing.as_ref().is_some_and(|syncing| syncing.lsn <= lsn) {
            self.syncing = None;
        }
        let mut released = std::mem::take(&mut self.release_buffer);
        self.gate.release(lsn, &mut released);
        released.drain(..).for_each(|held| self.let_go(held));
        self.release_buffer = released;
    }

    /// The number up to which the log has to be durable for all that was given to it so far.
    pub(super) fn gathered_lsn(&self) -> u64 {
        if self.batch.is_empty() { self.next_lsn - 1 } else { self.next_lsn }
    }

    /// The number up to which it is durable.
    pub(super) fn durable_lsn(&self) -> u64 {
        self.gate.durable()
    }

    /// An instance from which on a group's members are those that it has.
    pub(super) fn governs_from(&self, group: GroupId) -> Instance {
        self.governs_from.get(group.index()).copied().unwrap_or(Instance(0))
    }

    /// Whether the disk keeps up: the batch on its way is not overdue.
    pub(super) fn is_disk_fine(&self, now_ms: u64) -> bool {
        self.syncing.as_ref().is_none_or(|syncing| now_ms < syncing.due_ms)
    }

    pub(super) fn next_released(&mut self) -> Option<Held> {
        self.released.pop_front()
    }

    pub(super) fn has_released(&self) -> bool {
        !self.released.is_empty()
    }

    pub(super) fn take_leadership_changed(&mut self) -> bool {
        std::mem::take(&mut self.leadership_changed)
    }

    pub(super) fn take_read_buffers(&mut self) -> (Vec<ReadId>, Vec<GroupId>) {
        std::mem::take(&mut self.read_buffers)
    }

    pub(super) fn return_read_buffers(&mut self, mut ready: Vec<ReadId>, mut asking: Vec<GroupId>) {
        ready.clear();
        asking.clear();
        self.read_buffers = (ready, asking);
    }

    /// Whether a value of so many bytes, which can come again, is taken on: not if so much waits for the disk already, or
    /// if it might find no space there.
    pub(super) fn takes_value(&self, bytes: usize) -> bool {
        self.batch_bytes < LOG_QUEUE_BYTES && self.space.takes(bytes, self.waiting_bytes())
    }

    /// Bytes of records that are on their way to the disk or wait for that.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.batch_bytes + self.syncing.as_ref().map_or(0, |syncing| syncing.bytes)
    }

    /// Whether a client may ask for something of `bytes` that may add as much: this node, or who carries it out
    /// instead, and a majority have space for it.
    pub(super) fn takes_growth(&self, bytes: usize) -> bool {
        let is_taken = self.relays.to().is_some() || self.space.takes_growth(bytes);
        is_taken && !self.peers.quorum_is_full(self.space.full)
    }

    /// Whether a client may ask for something of `bytes` that is logged and adds nothing.
    pub(super) fn takes_command(&self, bytes: usize) -> bool {
        self.relays.to().is_some() || self.space.takes_command(bytes)
    }

    /// Whether this node can lead. While its disk is late or has no space the others should, if theirs are better: where all
    /// disks are slow the cluster goes on slowly.
    pub(super) fn can_lead(&self, now_ms: u64) -> bool {
        let is_late = !self.is_disk_fine(now_ms) && self.peers.quorum_is_quick(now_ms);
        let is_full = self.space.full && self.peers.quorum_has_space(now_ms);
        !is_late && !is_full
    }

    /// The batch gathered goes to the log unless one is on its way, and the frames to their connections.
    pub(super) fn end_turn(&mut self, now_ms: u64) {
        if self.syncing.is_none() && !self.batch.is_empty() {
            let lsn = self.next_lsn;
            self.next_lsn += 1;
            let records = std::mem::take(&mut self.batch);
            let bytes = std::mem::take(&mut self.batch_bytes);
            self.logged_bytes += bytes as u64;
            let due_ms = now_ms + SYNC_MS_MAX + (bytes / SYNC_BYTES_PER_MS) as u64;
            self.syncing = Some(Syncing { lsn, due_ms, bytes });
            self.outputs.push(Output::Append(wal::Batch { lsn, records }));
        }
        for peer in &mut self.peers.all {
            if let Some(link) = peer.link {
                self.outputs.extend(peer.take_frames().map(|frame| Output::Frame(link, frame)));
            }
        }
    }

    /// Answers a client, or a part of an answer.
    pub(super) fn settle(&mut self, ticket: Ticket, reply: Reply<'_>) {
        if ticket.connection == RELAYED {
            return self.answer_relay(ticket, &reply);
        }
        if ticket.connection == UPLOADING {
            return self.uploads.on_part(ticket, &reply, self.now_us / 1_000);
        }
        if let Reply::Error(text) = &reply {
            self.stats.error(text);
        }
        self.connections.settle(ticket, reply);
    }

    /// Answers a read that is in the books no more.
    pub(super) fn settle_read(&mut self, read: &PendingRead, reply: Reply<'_>) {
        let (verb, failed) = (usize::from(read.verb), matches!(reply, Reply::Error(_)));
        match reply {
            Reply::Null => self.stats.misses += 1,
            Reply::Bulk(_) | Reply::Long(_) => self.stats.hits += 1,
            _ => {}
        }
        self.stats.called(verb, self.now_us.saturating_sub(read.since_us), failed);
        self.settle(read.ticket, reply);
    }

    fn let_go(&mut self, held: Held) {
        if held.to == self.me {
            self.released.push_back(held);
        } else {
            self.send(held.group, held.to, &held.message);
        }
    }
}

impl Outlet for Outbox {
    fn persist(&mut self, record: wal::Record) -> u64 {
        self.batch_bytes += record.payload.len() + wal::format::RECORD_HEADER_BYTES;
        self.batch.push(record);
        self.next_lsn
    }

    fn takes_value(&self, bytes: usize) -> bool {
        Outbox::takes_value(self, bytes)
    }

    fn allows(&self, group: GroupId, to: NodeId, promised: Ballot, clock: Clock) -> bool {
        self.peers.leases.allows(group, to, promised, clock.mono_ms * 1_000)
    }

    fn send(&mut self, group: GroupId, to: NodeId, message: &Message) {
        if matches!(message, Message::Handover(_)) {
            // It ends before the invitation leaves, which the others could not follow else.
            self.peers.release_lease(group, self.now_us);
        }
        if let Some(peer) = self.peers.find(to) {
            peer.send(group, message);
        }
    }

    fn send_durable(&mut self, lsn: u64, group: GroupId, to: NodeId, message: Message) {
        if let Some(held) = self.gate.hold(lsn, Held { group, to, message }) {
            self.let_go(held);
        }
    }

    fn applied(&mut self, group: GroupId, counter: u64, reply: Reply<'_>) {
        let queue = &mut self.commands[group.index()];
        while let Some(waiting) = queue.pop_front() {
            self.large.remove(group, waiting.large_bytes);
            if waiting.counter != counter {
                debug_assert!(waiting.counter < counter, "replies come in the order of the commands");
                continue;
            }
            let failed = matches!(reply, Reply::Error(_));
            self.stats.called(usize::from(waiting.verb), self.now_us.saturating_sub(waiting.since_us), failed);
            if let Some(ticket) = waiting.ticket {
                self.settle(ticket, reply);
            }
            return;
        }
    }

    fn skipped(&mut self, group: GroupId, counter: u64) {
        self.applied(group, counter, UNCERTAIN);
    }

    fn read_lost(&mut self, id: ReadId) {
        if let Some(read) = self.questions.reads.try_remove(id as usize) {
            self.settle_read(&read, NOT_SERVED);
        }
    }

    fn read(&mut self, id: ReadId, store: &Store) {
        if let Some(read) = self.questions.reads.get_mut(id as usize).filter(|read| read.long) {
            read.leader_ms = Some(0);
            return self.questions.long.push_back(id);
        }
        let Some(read) = self.questions.reads.try_remove(id as usize) else { return };
        // The value that is being applied carries a time of after the read came: nothing can be due beyond it.
        let reply = store.read(&read.body, store.time_ms()).unwrap_or(NOT_SERVED);
        self.settle_read(&read, reply);
    }

    fn read_log(&mut self, range: wal::ReadRange) {
        self.outputs.extend(self.ranges.ask(range).map(Output::ReadRange));
    }

    fn leading(&mut self, _group: GroupId, _leads: bool) {
        self.leadership_changed = true;
    }

    fn members_changed(&mut self, group: GroupId, next: Instance) {
        self.members_changed = true;
        self.governs_from[group.index()] = next;
        // A lease is one of the members that there were: the groups are claimed anew.
        self.leadership_changed = true;
    }

    fn chosen(&mut self, _group: GroupId, value: &Value) {
        self.chosen_total += 1;
        if self.chosen_total.is_multiple_of(BATCH_SAMPLE) {
            let commands = value.commands().count() as u64;
            self.stats.batches.record(commands, value.bytes().len() as u64);
        }
    }

    fn work(&mut self) -> &mut Work {
        &mut self.work
    }

    fn discard(&mut self, discarded: Discarded) {
        self.outputs.push(Output::Transfer(Errand::Drop(Box::new(discarded))));
    }
}

/// One value in so many is measured for the mean batch: counting the commands of each would cost.
const BATCH_SAMPLE: u64 = 8;

/// Whether a message that came in a frame belongs to no group.
pub(super) fn is_for_node(group: u32) -> bool {
    group == wire::NODE
}
