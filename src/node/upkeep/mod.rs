//! Upkeep: what keeps the log short and lagging members whole. Checkpoints of the groups, what of the log can go,
//! checkpoints on their way between nodes, and ranges of the log for members that are behind; each no faster than what
//! serves clients leaves room for.
//!
//! ```text
//! checkpoints  when they are made, a block at a time      transfers   between nodes, piece by piece
//! ranges       of the log, for members that are behind    pace        how busy the loop is, and what may go beside it
//! ```

mod checkpoints;
mod pace;
mod ranges;
mod transfers;

pub(super) use pace::Load;
pub(super) use ranges::Ranges;

use super::engine::{Engine, Ports};
use super::output::Output;
use super::wire::{NodeMessage, Offer, Piece, Want};
use super::wires::Wires;
use super::{NodeConfig, Time};
use crate::admin::info::StorageView;
use crate::identity::BirthRecord;
use crate::recovery::Shelved;
use crate::storage::checkpoint::{Brought, Catalog, Done, Errand, Job, Loaded};
use crate::storage::scrub::Findings;
use crate::storage::wal::{self, ChosenValue, Droppable, ReadRange};
use bytes::Bytes;
use checkpoints::Checkpoints;
use groups::{Ballot, GroupId, Instance, NodeId};
use net::frame::Purpose;
use transfers::{Received, Transfers};

/// See the module.
pub(super) struct Upkeep {
    checkpoints: Checkpoints,
    transfers: Transfers,
    load: Load,
    began_ms: u64,
}

/// How long the log is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LogSize {
    pub(super) bytes: u64,
    pub(super) segments: u64,
}

/// What upkeep may touch in a call, and what it must know of the node.
pub(super) struct Cx<'a> {
    pub(super) engine: &'a mut Engine,
    pub(super) wires: Wires<'a>,
    /// The cluster, once it is born.
    pub(super) cluster: Option<&'a BirthRecord>,
    pub(super) log: LogSize,
    pub(super) time: Time,
}

impl Cx<'_> {
    /// Gives the checkpoint writer a task.
    fn give(&mut self, job: Job) {
        self.wires.outputs.push(Output::Checkpoint(job));
    }

    /// Gives the transfer worker a task.
    fn run(&mut self, errand: Errand) {
        self.wires.outputs.push(Output::Transfer(errand));
    }

    /// Whether long values may be divided over blocks: every member can read that.
    fn divides(&self) -> bool {
        self.wires.peers.value_version() >= 4
    }

    fn tell(&mut self, to: NodeId, message: &NodeMessage) {
        self.wires.tell(to, message);
    }
}

impl Upkeep {
    pub(super) fn new(config: &NodeConfig) -> Upkeep {
        Upkeep {
            checkpoints: Checkpoints::new(config.checkpoints),
            transfers: Transfers::default(),
            load: Load::default(),
            began_ms: 0,
        }
    }

    pub(super) fn set_groups(&mut self, groups: u32) {
        self.checkpoints.set_groups(groups);
    }

    /// Recovery: the files that there are.
    pub(super) fn add_files(&mut self, catalog: &Catalog) {
        self.checkpoints.add_files(catalog);
    }

    /// Recovery: these groups are here.
    pub(super) fn note_rebuilt(&mut self, engine: &Engine, groups: &[GroupId]) {
        self.checkpoints.note_hollow(engine, groups);
    }

    /// Recovery: all groups are here, and this was in the files.
    pub(super) fn note_shelved(&mut self, shelved: &Shelved) {
        self.checkpoints.note_damaged(&shelved.damaged);
        for (group, instance, sequence) in &shelved.kept {
            self.checkpoints.set_kept(*group, *instance, *sequence);
        }
    }

    /// A turn of the event loop took so long; `logged` bytes have gone to the log in all.
    pub(super) fn turn_took(&mut self, took_us: u64, logged: u64, now_us: u64) {
        self.load.record(took_us, logged, now_us);
    }

    /// How busy the loop is, in thousandths.
    pub(super) fn load_per_mille(&self) -> u64 {
        self.load.per_mille()
    }

    /// The node begins.
    pub(super) fn begin(&mut self, now_ms: u64) {
        self.began_ms = now_ms;
    }

    /// Begins a round of checkpoints if one is due.
    pub(super) fn tick_checkpoints(&mut self, cx: &Cx<'_>) {
        self.checkpoints.tick(cx.engine, cx.log, self.began_ms, cx.time);
    }

    /// Gives up transfers that nothing more comes of, and connects to the members from which something is to come.
    pub(super) fn tick_transfers(&mut self, cx: &mut Cx<'_>) {
        for to in self.transfers.tick(cx.time.mono_ms()) {
            let peer = cx.wires.peers.get(to);
            if let Some(address) = peer.and_then(|peer| peer.transfer_address()) {
                cx.wires.outputs.push(Output::Dial(to, Purpose::Bulk, address.to_owned()));
            }
        }
    }

    /// What a turn has room for of checkpoints, transfers and ranges; and, at its very end, the question what of the log
    /// can go.
    pub(super) fn step(&mut self, cx: &mut Cx<'_>) {
        self.checkpoints.step(cx);
        self.transfers.step(self.load, cx);
        let Wires { ranges, outputs, .. } = &mut cx.wires;
        ranges.step(self.load, cx.time.mono_us, |range| outputs.push(Output::ReadRange(range)));
        let (transfers, now_ms) = (&self.transfers, cx.time.mono_ms());
        self.checkpoints.ask_to_trim(|sequence| transfers.is_pinned(sequence, now_ms), cx);
    }

    /// Whether blocks are waiting to be taken out, a few in each turn.
    pub(super) fn is_checkpointing(&self) -> bool {
        self.checkpoints.is_taking()
    }

    /// Checkpoints of these groups are asked for.
    pub(super) fn want(&mut self, groups: impl Iterator<Item = GroupId>) {
        self.checkpoints.want(groups);
    }

    /// What became of [`Output::Checkpoint`].
    pub(super) fn checkpoint_done(&mut self, done: Done, cx: &mut Cx<'_>) {
        let (transfers, now_ms) = (&self.transfers, cx.time.mono_ms());
        self.checkpoints.done(done, |sequence| transfers.is_pinned(sequence, now_ms), cx);
    }

    /// What a scrub of the disk found.
    pub(super) fn scrubbed(&mut self, findings: &Findings, groups: usize) {
        if self.checkpoints.scrubbed(findings) {
            self.checkpoints.want((0..groups as u32).map(GroupId));
        }
    }

    /// What of the log can go, by [`Output::Floors`]; called before anything else is. What counts of it is logged again.
    pub(super) fn trim(&mut self, droppable: Droppable, cx: &mut Cx<'_>) {
        let Droppable { below, lsn } = droppable;
        cx.engine.record_again(lsn, &mut cx.wires);
        for record in cx.wires.peers.incarnation_records() {
            cx.engine.persist(record);
        }
        let (kind, instance, payload) = (wal::RecordKind::Trimmed, Instance(below), Bytes::new());
        let (ballot, chosen) = (Ballot::ZERO, Ballot::ZERO);
        let record = wal::Record { kind, group: GroupId(0), instance, ballot, chosen, payload };
        let lsn = cx.engine.persist(record);
        self.checkpoints.set_trimming(below, lsn);
    }

    /// The log is durable up to `lsn`: old segments may go.
    pub(super) fn on_durable(&mut self, lsn: u64) -> Option<Output> {
        self.checkpoints.take_trimmed(lsn).map(Output::DropSegments)
    }

    // Transfers and ranges.

    /// Another member offers a checkpoint.
    pub(super) fn handle_offer(&mut self, from: NodeId, offer: &Offer, cx: &mut Cx<'_>) {
        self.transfers.handle_offer(from, offer, cx);
    }

    /// A member wants a piece of a checkpoint of this node.
    pub(super) fn handle_want(&mut self, link: u64, want: &Want, cx: &mut Cx<'_>) {
        self.transfers.handle_want(link, want, &self.checkpoints, cx);
    }

    /// A piece of a checkpoint has come.
    pub(super) fn handle_piece(&mut self, from: NodeId, piece: Piece, cx: &mut Cx<'_>) {
        self.transfers.handle_piece(from, piece, cx);
    }

    /// What became of [`Output::Transfer`].
    pub(super) fn brought(&mut self, brought: Brought, cx: &mut Cx<'_>) {
        if let Brought::State { loaded, .. } = brought {
            return self.install(*loaded, cx);
        }
        let received = self.transfers.brought(brought, &mut self.checkpoints, cx);
        if let Some(Received { sequence, bytes, sections }) = received {
            let (transfers, now_ms) = (&self.transfers, cx.time.mono_ms());
            let is_pinned = |sequence| transfers.is_pinned(sequence, now_ms);
            self.checkpoints.add(sequence, bytes, &sections, is_pinned, cx);
        }
    }

    /// Puts a state in the place of a group's own.
    fn install(&mut self, loaded: Loaded, cx: &mut Cx<'_>) {
        let Loaded { sequence, group, state, store } = loaded;
        let instance = state.instance;
        if cx.engine.shard().store(group).is_frozen() {
            // What is being written of the old state is not needed any more.
            self.checkpoints.give_up_taking(cx);
        }
        let Some(old) = cx.engine.install(group, state, store, &mut cx.wires, cx.time) else { return };
        self.transfers.count_installed();
        self.checkpoints.set_kept(group, instance, sequence);
        // Letting go of it may take long.
        cx.run(Errand::Drop(Box::new(old)));
    }

    /// What was asked with [`Output::ReadRange`] goes to the member that asked for it. If the log has no more of it the
    /// member is offered a checkpoint.
    pub(super) fn range_read(&mut self, range: &ReadRange, values: Vec<ChosenValue>, cx: &mut Cx<'_>) {
        cx.wires.ranges.on_read(range, values.iter().map(|value| value.payload.len()).sum());
        if !cx.engine.has(range.group) {
            return;
        }
        let to = NodeId(range.tag as u32);
        if values.is_empty() {
            self.transfers.offer(to, range.group, range.from, &self.checkpoints, cx);
        }
        let message = cx.engine.shard().range(range.group, range.from, values);
        cx.wires.send(range.group, to, &message);
    }

    /// A connection for transfers is being made; `None` if it could not even begin.
    pub(super) fn on_dialling(&mut self, to: NodeId, connection: Option<u64>, time: Time) {
        self.transfers.on_dialling(to, connection, time.mono_ms());
    }

    /// The handshake on a connection for transfers is done. An earlier one of the same member, which it replaces, is
    /// returned.
    pub(super) fn on_linked(&mut self, node: NodeId, link: u64) -> Option<u64> {
        self.transfers.on_linked(node, link)
    }

    /// A connection is gone. False if it is not one for transfers, nor an attempt at one.
    pub(super) fn on_cut(&mut self, id: u64, time: Time) -> bool {
        self.transfers.on_cut(id, time.mono_ms())
    }

    /// What operators are told. `hollow`: groups that learn their own past.
    pub(super) fn view(&self, hollow: u64) -> StorageView<'_> {
        let (checkpoints, totals) = (&self.checkpoints, self.transfers.totals());
        let facts = checkpoints.facts();
        StorageView {
            log_bytes_max: checkpoints.log_bytes_max(),
            checkpoint_files: checkpoints.count() as u64,
            checkpoint_bytes: checkpoints.bytes(),
            in_progress: !checkpoints.is_idle(),
            rounds: facts.rounds,
            failures: facts.failures,
            last_failure: checkpoints.last_failure(),
            last_unix_s: facts.ended_unix_ms / 1_000,
            last_ms: facts.took_ms,
            receiving: self.transfers.count() as u64,
            received_bytes: totals.received_bytes,
            sent_bytes: totals.sent_bytes,
            installed: totals.installed,
            scrubs: facts.scrubs,
            scrub_damaged: facts.scrub_damaged,
            hollow,
        }
    }
}
