//! Upkeep keeps the log short and lagging members whole. It makes checkpoints of the groups, trims the log, moves
//! checkpoints between nodes, and sends ranges of the log to lagging members. Checkpoints, transfers and ranges have
//! bounded rates. Transfers and ranges also slow down while the event loop is busy.
//!
//! ```text
//! checkpoints  when they are made, a block at a time      transfers   of checkpoints between nodes, in chunks
//! ranges       of the log, for lagging members            rate        how busy the loop is, and the rate of the rest
//! floors       the part of the log that no worker needs
//! ```

mod checkpoints;
mod floors;
mod ranges;
mod rate;
mod transfers;

pub(super) use ranges::Ranges;
pub(super) use rate::LoopLoad;

use super::crew::Told;
use super::engine::{Engine, Ports};
use super::output::Output;
use super::ports::EnginePorts;
use super::wire::{Chunk, ChunkRequest, NodeMessage, Offer};
use super::{NodeConfig, Time};
use crate::admin::info::StorageView;
use crate::identity::BirthRecord;
use crate::recovery::CheckpointLoadSummary;
use crate::storage::checkpoint::{
    Catalog, CheckpointResult, CheckpointSequence, CheckpointTask, LoadedState, TransferResult, TransferTask,
};
use crate::storage::scrub::Findings;
use crate::storage::wal::{self, ChosenValue, DroppableSegments, Lsn, ReadRange, SegmentSequence};
use crate::workers::{WorkerId, Workers};
use checkpoints::Checkpoints;
use floors::Floors;
use groups::{GroupId, Ms, NodeId, Us};
use net::event::ConnectionId;
use net::frame::Purpose;
use transfers::{Received, Transfers};

/// State of upkeep; see the module.
pub(super) struct Upkeep {
    checkpoints: Checkpoints,
    transfers: Transfers,
    workers: Workers,
    floors: Floors,
    load: LoopLoad,
    began_ms: Ms,
}

/// Size of the log.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LogSize {
    pub(super) bytes: u64,
    pub(super) segments: u64,
}

/// Context of a call: the components that upkeep may use, and facts about the node.
pub(super) struct UpkeepContext<'a> {
    pub(super) engine: &'a mut Engine,
    pub(super) ports: EnginePorts<'a>,
    /// The birth record of the cluster, once it is born.
    pub(super) cluster: Option<&'a BirthRecord>,
    pub(super) log: LogSize,
    pub(super) time: Time,
}

impl UpkeepContext<'_> {
    /// Gives the checkpoint worker a task.
    fn give(&mut self, task: CheckpointTask) {
        self.ports.outputs.push(Output::Checkpoint(task));
    }

    /// Gives the transfer worker a task.
    fn run(&mut self, task: TransferTask) {
        self.ports.outputs.push(Output::Transfer(task));
    }

    /// Returns true if long values may be divided over blocks: every member can read such blocks.
    fn divides(&self) -> bool {
        self.ports.peers.value_version() >= 4
    }

    fn send_node_message(&mut self, to: NodeId, message: &NodeMessage) {
        self.ports.send_node_message(to, message);
    }
}

impl Upkeep {
    pub(super) fn new(config: &NodeConfig) -> Upkeep {
        Upkeep {
            checkpoints: Checkpoints::new(config.checkpoints, config.workers),
            transfers: Transfers::new(config.workers),
            workers: config.workers,
            floors: Floors::new(config.workers),
            load: LoopLoad::default(),
            began_ms: Ms(0),
        }
    }

    pub(super) fn set_groups(&mut self, groups: u32) {
        self.checkpoints.set_groups(groups);
    }

    /// Recovery: adds the checkpoint files that exist.
    pub(super) fn add_files(&mut self, catalog: &Catalog) {
        self.checkpoints.add_files(catalog);
    }

    /// Recovery: notes that these groups are rebuilt.
    pub(super) fn note_rebuilt(&mut self, engine: &Engine, groups: &[GroupId]) {
        self.checkpoints.note_recovering(engine, groups);
    }

    /// Recovery: notes the content of the checkpoint files, when all groups are rebuilt.
    pub(super) fn note_restored(&mut self, restored: &CheckpointLoadSummary) {
        self.checkpoints.note_damaged(&restored.damaged);
        let own = restored.kept.iter().filter(|(group, ..)| self.workers.owns(*group));
        for (group, instance, sequence) in own {
            self.checkpoints.set_kept(*group, *instance, *sequence);
        }
    }

    /// Notes that a turn of the event loop took `took_us`, and that `logged` bytes have gone to the log in all.
    pub(super) fn turn_took(&mut self, took_us: Us, logged: u64, now_us: Us) {
        self.load.record(took_us, logged, now_us);
    }

    /// Returns how busy the event loop is, in thousandths.
    pub(super) fn load_per_mille(&self) -> u64 {
        self.load.per_mille()
    }

    /// Notes when the node begins.
    pub(super) fn begin(&mut self, now_ms: Ms) {
        self.began_ms = now_ms;
    }

    /// Begins a round of checkpoints if one is due.
    pub(super) fn tick_checkpoints(&mut self, cx: &UpkeepContext<'_>) {
        self.checkpoints.tick(cx.engine, cx.log, self.began_ms, cx.time);
    }

    /// Gives up transfers that have become silent, and dials the members from which a transfer should come.
    pub(super) fn tick_transfers(&mut self, cx: &mut UpkeepContext<'_>) {
        for to in self.transfers.tick(cx.time.mono_ms()) {
            let peer = cx.ports.peers.get(to);
            if let Some(address) = peer.and_then(|peer| peer.transfer_address()) {
                cx.ports.outputs.push(Output::Dial(to, Purpose::Bulk, address.to_owned()));
            }
        }
    }

    /// Does one turn's share of checkpoints, transfers and ranges. At the very end, asks which segments of the log can
    /// go.
    pub(super) fn step(&mut self, cx: &mut UpkeepContext<'_>) {
        self.checkpoints.step(cx);
        self.transfers.step(self.load, cx);
        let EnginePorts { ranges, outputs, .. } = &mut cx.ports;
        ranges.step(self.load, cx.time.mono_us, |range| outputs.push(Output::ReadRange(range)));
        let (transfers, now_ms) = (&self.transfers, cx.time.mono_ms());
        self.checkpoints.ask_to_trim(|sequence| transfers.is_pinned(sequence, now_ms), cx);
    }

    /// Returns true if blocks wait to be taken out, a few in each turn.
    pub(super) fn is_checkpointing(&self) -> bool {
        self.checkpoints.is_taking()
    }

    /// Requests checkpoints of these groups.
    pub(super) fn request_checkpoints(&mut self, groups: impl Iterator<Item = GroupId>) {
        self.checkpoints.request(groups);
    }

    /// Handles the result of [`Output::Checkpoint`].
    pub(super) fn on_checkpoint_result(&mut self, result: CheckpointResult, cx: &mut UpkeepContext<'_>) {
        let (transfers, now_ms) = (&self.transfers, cx.time.mono_ms());
        self.checkpoints.on_result(result, |sequence| transfers.is_pinned(sequence, now_ms), cx);
    }

    /// Handles the findings of a scrub of the disk.
    pub(super) fn scrubbed(&mut self, findings: &Findings, groups: &[GroupId]) {
        if self.checkpoints.scrubbed(findings) {
            self.checkpoints.request(groups.iter().copied());
        }
    }

    /// Handles the answer to [`Output::QueryDroppable`], before anything else happens. Some records in the droppable
    /// segments still count: they are logged again, and the segments are dropped when the new records are durable.
    pub(super) fn trim(&mut self, droppable: DroppableSegments, cx: &mut UpkeepContext<'_>) {
        let DroppableSegments { below, lsn } = droppable;
        cx.engine.record_again(lsn, &mut cx.ports);
        for record in cx.ports.peers.incarnation_records() {
            cx.engine.persist(record);
        }
        let lsn = if self.workers.count() == 1 {
            cx.engine.persist(wal::Record::Trimmed { below })
        } else {
            cx.engine.gathered_lsn()
        };
        self.checkpoints.set_trimming(below, lsn);
        if lsn <= cx.engine.durable_lsn() {
            // Nothing of this worker counts in the old segments, and it may log nothing more for a long time.
            self.on_durable(lsn, cx);
        }
    }

    /// Notes that the log is durable up to `lsn`: old segments may be removed now. With several workers, this one needs
    /// the segments no longer.
    pub(super) fn on_durable(&mut self, lsn: Lsn, cx: &mut UpkeepContext<'_>) {
        let dropped = self.floors.take_dropped(lsn);
        cx.ports.outputs.extend(dropped.map(Output::DropSegments));
        let Some(below) = self.checkpoints.take_trimmed(lsn) else { return };
        match self.workers {
            Workers::ONE => cx.ports.outputs.push(Output::DropSegments(below)),
            workers if workers.is_first() => self.note_floor(workers.me(), below, cx),
            _ => cx.ports.crew.tell(WorkerId::FIRST, Told::Floor(below)),
        }
    }

    /// At the first worker: notes that a worker needs no segment of the log below this one.
    pub(super) fn note_floor(&mut self, worker: WorkerId, below: SegmentSequence, cx: &mut UpkeepContext<'_>) {
        let Some(below) = self.floors.note(worker, below) else { return };
        let lsn = cx.engine.persist(wal::Record::Trimmed { below });
        self.floors.set_dropping(below, lsn);
    }

    /// At the first worker: notes that another worker needs a shared checkpoint file no longer.
    pub(super) fn on_released(&mut self, sequence: CheckpointSequence, cx: &mut UpkeepContext<'_>) {
        self.checkpoints.on_released(sequence, cx);
    }

    // Transfers and ranges.

    /// Handles a member's offer of a checkpoint.
    pub(super) fn handle_offer(&mut self, from: NodeId, offer: &Offer, cx: &mut UpkeepContext<'_>) {
        self.transfers.handle_offer(from, offer, cx);
    }

    /// Handles a member's request for a chunk of a checkpoint of this node.
    pub(super) fn handle_chunk_request(
        &mut self,
        link: ConnectionId,
        request: &ChunkRequest,
        cx: &mut UpkeepContext<'_>,
    ) {
        self.transfers.handle_chunk_request(link, request, &self.checkpoints, cx);
    }

    /// Handles a chunk of a checkpoint.
    pub(super) fn handle_chunk(&mut self, from: NodeId, chunk: Chunk, cx: &mut UpkeepContext<'_>) {
        self.transfers.handle_chunk(from, chunk, cx);
    }

    /// Handles the result of [`Output::Transfer`].
    pub(super) fn on_transfer_result(&mut self, result: TransferResult, cx: &mut UpkeepContext<'_>) {
        if let TransferResult::State { loaded, .. } = result {
            return self.install(*loaded, cx);
        }
        let received = self.transfers.on_transfer_result(result, &mut self.checkpoints, cx);
        if let Some(Received { sequence, bytes, sections }) = received {
            let (transfers, now_ms) = (&self.transfers, cx.time.mono_ms());
            let is_pinned = |sequence| transfers.is_pinned(sequence, now_ms);
            self.checkpoints.add(sequence, bytes, &sections, is_pinned, cx);
        }
    }

    /// Replaces a group's state by a loaded one.
    fn install(&mut self, loaded: LoadedState, cx: &mut UpkeepContext<'_>) {
        let LoadedState { sequence, group, state, store } = loaded;
        let instance = state.instance;
        if cx.engine.shard().store(group).is_frozen() {
            // The blocks of the old state that are being written are not needed any more.
            self.checkpoints.give_up_taking(cx);
        }
        let Some(old) = cx.engine.install(group, state, store, &mut cx.ports, cx.time) else { return };
        self.transfers.count_installed();
        self.checkpoints.set_kept(group, instance, sequence);
        // Freeing the old state may take long.
        cx.run(TransferTask::Drop(Box::new(old)));
    }

    /// Handles the result of [`Output::ReadRange`]: sends the values to the member that asked for them. If the log no
    /// longer has them, offers the member a checkpoint.
    pub(super) fn range_read(&mut self, range: &ReadRange, values: Vec<ChosenValue>, cx: &mut UpkeepContext<'_>) {
        cx.ports.ranges.on_read(range, values.iter().map(|value| value.payload.len()).sum());
        if !cx.engine.has(range.group) {
            return;
        }
        let to = NodeId(range.tag as u32);
        if values.is_empty() {
            self.transfers.offer(to, range.group, range.from, &self.checkpoints, cx);
        }
        let message = cx.engine.shard().range(range.group, range.from, values);
        cx.ports.send(range.group, to, &message);
    }

    /// Notes that a transfer connection is being made; `None` if it could not begin.
    pub(super) fn on_dialling(&mut self, to: NodeId, connection: Option<ConnectionId>, time: Time) {
        self.transfers.on_dialling(to, connection, time.mono_ms());
    }

    /// Takes a transfer connection whose handshake is done. Returns the connection of the same member that it replaces.
    pub(super) fn on_linked(&mut self, node: NodeId, link: ConnectionId) -> Option<ConnectionId> {
        self.transfers.on_linked(node, link)
    }

    /// Handles the end of a connection. Returns false if it is neither a transfer connection nor an attempt at one.
    pub(super) fn on_cut(&mut self, id: ConnectionId, time: Time) -> bool {
        self.transfers.on_cut(id, time.mono_ms())
    }

    /// Returns the reason of the last failure of a checkpoint file, in one line.
    pub(super) fn last_failure(&self) -> &str {
        self.checkpoints.last_failure()
    }

    /// Returns the facts for operators. `recovering`: number of groups that are recovering.
    pub(super) fn view(&self, recovering: u64) -> StorageView {
        let (checkpoints, totals) = (&self.checkpoints, self.transfers.totals());
        let facts = checkpoints.facts();
        StorageView {
            log_bytes_max: checkpoints.log_bytes_max(),
            checkpoint_files: checkpoints.count() as u64,
            checkpoint_bytes: checkpoints.bytes(),
            in_progress: !checkpoints.is_idle(),
            rounds: facts.rounds,
            failures: facts.failures,
            last_unix_s: facts.ended_unix_ms.0 / 1_000,
            last_ms: facts.took_ms,
            receiving: self.transfers.count() as u64,
            received_bytes: totals.received_bytes,
            sent_bytes: totals.sent_bytes,
            installed: totals.installed,
            scrubs: facts.scrubs,
            scrub_damaged: facts.scrub_damaged,
            recovering,
        }
    }
}
