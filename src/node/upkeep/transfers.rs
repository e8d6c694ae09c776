//! Transfers of checkpoints between nodes. A member whose log no longer has the values offers its newest checkpoint
//! instead. The lagging node fetches the file in chunks, with a window and a bounded rate, on a connection of its own
//! (see `node::links`). Received chunks survive a broken connection and a restart of either side. The lagging node
//! keeps its own state until the new one is complete, and its promises stay.

use super::UpkeepContext;
use super::checkpoints::Checkpoints;
use super::rate::{LoopLoad, TokenBucket};
use crate::config::{
    TRANSFER_BYTES_PER_MS, TRANSFER_PIECE_BYTES, TRANSFER_PIN_MS, TRANSFER_READS_MAX, TRANSFER_REDIAL_MS,
    TRANSFER_SILENT_MS, TRANSFER_WINDOW_BYTES, TRANSFERS_MAX,
};
use crate::node::output::{Output, Outputs};
use crate::node::wire::{Chunk, ChunkRequest, FileId, NODE, NodeMessage, Offer};
use crate::storage::checkpoint::{CheckpointSequence, SectionSummary, TransferResult, TransferTask, incoming_prefix};
use crate::workers::Workers;
use groups::{GroupId, Instance, Ms, NodeId, Us};
use net::event::ConnectionId;
use net::frame::{FrameWriter, Purpose};
use std::collections::{BTreeMap, VecDeque};

/// The transfers in both directions.
#[derive(Default)]
pub(super) struct Transfers {
    /// The prefix of the names of files that are being received.
    prefix: String,
    active: Vec<Transfer>,
    /// Transfer connections by member, and attempts at one.
    links: BTreeMap<NodeId, ConnectionId>,
    dialling: BTreeMap<NodeId, ConnectionId>,
    due_ms: BTreeMap<NodeId, Ms>,
    /// Pinned files of this node, which other nodes fetch, and the time until which each is pinned.
    pins: BTreeMap<CheckpointSequence, Ms>,
    /// Chunks that others have requested, by connection, and the number of chunks being read for them.
    queued: VecDeque<(ConnectionId, ChunkRequest)>,
    reading: usize,
    asking: TokenBucket,
    sending: TokenBucket,
    totals: TransferTotals,
}

/// Totals for operators.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::node) struct TransferTotals {
    pub(in crate::node) received_bytes: u64,
    pub(in crate::node) sent_bytes: u64,
    /// Number of states that have replaced a group's own.
    pub(in crate::node) installed: u64,
}

/// A checkpoint that was received and is now one of this node's.
pub(super) struct Received {
    pub(super) sequence: CheckpointSequence,
    pub(super) bytes: u64,
    pub(super) sections: Vec<SectionSummary>,
}

/// A file that is being received.
struct Transfer {
    from: NodeId,
    file: FileId,
    name: String,
    /// True once it is known how much of the file an earlier transfer left.
    opened: bool,
    /// Bytes requested, received and written.
    asked: u64,
    received: u64,
    written: u64,
    installing: bool,
    began_ms: Ms,
    heard_ms: Ms,
}

impl Transfers {
    pub(super) fn new(workers: Workers) -> Transfers {
        Transfers { prefix: incoming_prefix(workers), ..Transfers::default() }
    }

    /// Returns true if a file is kept because another node fetches it.
    pub(super) fn is_pinned(&self, sequence: CheckpointSequence, now_ms: Ms) -> bool {
        self.pins.get(&sequence).is_some_and(|until_ms| now_ms < *until_ms)
    }

    /// Returns the number of files being received.
    pub(super) fn count(&self) -> usize {
        self.active.len()
    }

    /// Returns the members from which a transfer should come, and to which there is no connection or attempt.
    fn to_dial(&self, now_ms: Ms) -> Vec<NodeId> {
        let wanted = self.active.iter().filter(|transfer| !transfer.installing).map(|transfer| transfer.from);
        let missing = |id: &NodeId| {
            let waits = self.due_ms.get(id).is_some_and(|due_ms| now_ms < *due_ms);
            !waits && !self.links.contains_key(id) && !self.dialling.contains_key(id)
        };
        let mut missing: Vec<NodeId> = wanted.filter(missing).collect();
        missing.dedup();
        missing
    }

    /// Asks again for the chunks that were requested on a connection that is gone.
    fn ask_again(&mut self, from: NodeId, link: ConnectionId) {
        self.queued.retain(|(to, _)| *to != link);
        for transfer in self.active.iter_mut().filter(|transfer| transfer.from == from) {
            transfer.asked = transfer.received;
        }
    }

    fn find(&mut self, name: &str) -> Option<&mut Transfer> {
        self.active.iter_mut().find(|transfer| transfer.name == name)
    }

    /// Adds the tokens of the time that has passed to both token buckets: for requests and for sending.
    fn earn(&mut self, load: LoopLoad, now_us: Us) {
        let (least, most) = TRANSFER_BYTES_PER_MS;
        for bucket in [&mut self.asking, &mut self.sending] {
            bucket.earn(load.allows(least, most), TRANSFER_WINDOW_BYTES, now_us);
        }
    }
}

impl Transfers {
    /// Offers a checkpoint to a member that asked for values which the log no longer has. The checkpoint has their
    /// effect.
    pub(super) fn offer(
        &mut self,
        to: NodeId,
        group: GroupId,
        from: Instance,
        files: &Checkpoints,
        cx: &mut UpkeepContext<'_>,
    ) {
        let Some((instance, file)) = files.newest(group).filter(|(instance, _)| *instance >= from) else {
            return;
        };
        self.pins.insert(file.sequence, cx.time.mono_ms() + TRANSFER_PIN_MS);
        cx.send_node_message(to, &NodeMessage::Offer(Offer { group, instance, file }));
    }

    /// Handles a member's offer of a checkpoint.
    pub(super) fn handle_offer(&mut self, from: NodeId, offer: &Offer, cx: &mut UpkeepContext<'_>) {
        let Offer { group, instance, file } = *offer;
        if cx.engine.find(group).is_none_or(|group| instance < group.next()) {
            return;
        }
        let name = format!("{}{}-{:x}-{:08x}", self.prefix, from.0, file.sequence.0, file.stamp);
        let active = &self.active;
        // This node fetches from one source at a time. At most two files of a source are new enough to be offered.
        if active.len() >= TRANSFERS_MAX || active.iter().any(|transfer| transfer.name == name || transfer.from != from)
        {
            return;
        }
        let keep = active.iter().map(|transfer| transfer.name.clone()).collect();
        tracing::info!("fetching the checkpoint {} of node {from}, {} bytes", file.sequence, file.bytes);
        cx.run(TransferTask::Open { name: name.clone(), keep });
        let now_ms = cx.time.mono_ms();
        self.active.push(Transfer {
            from,
            file,
            name,
            opened: false,
            asked: 0,
            received: 0,
            written: 0,
            installing: false,
            began_ms: now_ms,
            heard_ms: now_ms,
        });
    }

    /// Requests more chunks, and reads chunks that others have requested. Called in each turn.
    pub(super) fn step(&mut self, load: LoopLoad, cx: &mut UpkeepContext<'_>) {
        if self.active.is_empty() && self.queued.is_empty() {
            return;
        }
        self.earn(load, cx.time.mono_us);
        self.request_chunks(cx);
        self.read_chunks(cx);
    }

    fn request_chunks(&mut self, cx: &mut UpkeepContext<'_>) {
        let Transfers { active, links, asking, .. } = self;
        let mut requests: Vec<(ConnectionId, ChunkRequest)> = Vec::new();
        for transfer in active.iter_mut().filter(|transfer| transfer.opened && !transfer.installing) {
            let Some(link) = links.get(&transfer.from) else { continue };
            while transfer.asked < transfer.file.bytes
                && transfer.asked - transfer.written < TRANSFER_WINDOW_BYTES as u64
                && asking.is_open()
            {
                let bytes = (transfer.file.bytes - transfer.asked).min(TRANSFER_PIECE_BYTES as u64) as u32;
                asking.spend(bytes as usize);
                requests.push((*link, ChunkRequest { file: transfer.file, offset: transfer.asked, bytes }));
                transfer.asked += u64::from(bytes);
            }
        }
        requests
            .into_iter()
            .for_each(|(link, request)| self.send(link, &NodeMessage::ChunkRequest(request), cx.ports.outputs));
    }

    fn read_chunks(&mut self, cx: &mut UpkeepContext<'_>) {
        let Transfers { queued, reading, sending, .. } = self;
        while sending.is_open()
            && let Some((link, ChunkRequest { file, offset, bytes })) = queued.pop_front()
        {
            let bytes = (bytes as usize).min(TRANSFER_PIECE_BYTES);
            sending.spend(bytes);
            *reading += 1;
            cx.run(TransferTask::Read { link, sequence: file.sequence, offset, bytes });
        }
    }

    /// Gives up silent transfers, and returns the members to dial.
    pub(super) fn tick(&mut self, now_ms: Ms) -> Vec<NodeId> {
        self.pins.retain(|_, until_ms| now_ms < *until_ms);
        self.active.retain(|transfer| {
            let silent = !transfer.installing && now_ms >= transfer.heard_ms + TRANSFER_SILENT_MS;
            if silent {
                tracing::warn!(
                    "gave up the checkpoint {} of node {}: no chunk came in time",
                    transfer.file.sequence,
                    transfer.from
                );
            }
            !silent
        });
        self.to_dial(now_ms)
    }

    /// Handles a member's request for a chunk of a checkpoint of this node.
    pub(super) fn handle_chunk_request(
        &mut self,
        link: ConnectionId,
        request: &ChunkRequest,
        files: &Checkpoints,
        cx: &mut UpkeepContext<'_>,
    ) {
        let ChunkRequest { file, offset, .. } = *request;
        let there = files.file(file.sequence) == Some(file) && offset < file.bytes;
        if !there || self.queued.len() + self.reading >= TRANSFER_READS_MAX {
            // When the member asks for the values again, it is offered a newer file; or this one, if too many chunks
            // were requested.
            let chunk = Chunk { file, offset, bytes: bytes::Bytes::new() };
            return self.send(link, &NodeMessage::Chunk(chunk), cx.ports.outputs);
        }
        self.pins.insert(file.sequence, cx.time.mono_ms() + TRANSFER_PIN_MS);
        self.queued.push_back((link, *request));
    }

    /// Handles a chunk of a checkpoint.
    pub(super) fn handle_chunk(&mut self, from: NodeId, chunk: Chunk, cx: &mut UpkeepContext<'_>) {
        let Chunk { file, offset, bytes } = chunk;
        let active = &mut self.active;
        let Some(index) = active.iter().position(|transfer| transfer.from == from && transfer.file == file) else {
            return;
        };
        if bytes.is_empty() {
            tracing::info!("gave up the checkpoint {} of node {from}: the node removed it or is busy", file.sequence);
            active.remove(index);
            return;
        }
        let transfer = &mut active[index];
        if !transfer.opened || transfer.installing || offset != transfer.received {
            return;
        }
        transfer.heard_ms = cx.time.mono_ms();
        transfer.received += bytes.len() as u64;
        self.totals.received_bytes += bytes.len() as u64;
        cx.run(TransferTask::Write { name: transfer.name.clone(), offset, bytes });
    }

    /// Handles the result of [`Output::Transfer`], except for a state, which goes to its group. Returns a file that was
    /// received.
    pub(super) fn on_transfer_result(
        &mut self,
        result: TransferResult,
        files: &mut Checkpoints,
        cx: &mut UpkeepContext<'_>,
    ) -> Option<Received> {
        let now_ms = cx.time.mono_ms();
        match result {
            TransferResult::Chunk { link, sequence, offset, bytes } => {
                self.reading -= 1;
                self.totals.sent_bytes += bytes.len() as u64;
                let file = files.file(sequence)?;
                self.send(link, &NodeMessage::Chunk(Chunk { file, offset, bytes }), cx.ports.outputs);
            }
            TransferResult::Opened { name, offset } => {
                let transfer = self.find(&name)?;
                (transfer.opened, transfer.heard_ms) = (true, now_ms);
                (transfer.asked, transfer.received, transfer.written) = (offset, offset, offset);
                self.install_if_whole(&name, files, cx);
            }
            TransferResult::Written { name, offset } => {
                let transfer = self.find(&name)?;
                (transfer.written, transfer.heard_ms) = (offset, now_ms);
                self.install_if_whole(&name, files, cx);
            }
            TransferResult::Received { name, sequence, bytes, sections } => {
                if let Some(transfer) = self.find(&name) {
                    let (from, ms) = (transfer.from, now_ms - transfer.began_ms);
                    tracing::info!("the checkpoint of node {from} is installed, {bytes} bytes in {ms} ms");
                }
                self.active.retain(|transfer| transfer.name != name);
                return Some(Received { sequence, bytes, sections });
            }
            TransferResult::Failed { name, reason } => {
                tracing::error!("cannot receive a checkpoint: {reason}");
                self.active.retain(|transfer| transfer.name != name);
            }
            TransferResult::State { .. } => unreachable!("a state goes to its group"),
        }
        None
    }

    fn install_if_whole(&mut self, name: &str, files: &mut Checkpoints, cx: &mut UpkeepContext<'_>) {
        let Some(record) = cx.cluster else { return };
        // No state of another worker's group is newer than this.
        let mut next = vec![Instance(u64::MAX); cx.engine.group_count()];
        cx.engine.groups().for_each(|group| next[group.id().index()] = group.next());
        let Some(transfer) = self.find(name) else { return };
        if transfer.written < transfer.file.bytes || transfer.installing {
            return;
        }
        transfer.installing = true;
        let header = record.checkpoint_header(files.next_sequence());
        cx.run(TransferTask::Install { name: name.to_owned(), header, limits: record.limits(), next });
    }

    /// Counts a state that has replaced a group's own.
    pub(super) fn count_installed(&mut self) {
        self.totals.installed += 1;
    }

    /// Returns the totals for operators.
    pub(super) fn totals(&self) -> TransferTotals {
        self.totals
    }

    // Transfer connections: a second one between the same two nodes, dialled by the node that fetches a checkpoint.

    /// Notes that a connection is being made; `None` if it could not begin.
    pub(super) fn on_dialling(&mut self, to: NodeId, connection: Option<ConnectionId>, now_ms: Ms) {
        match connection {
            Some(id) => _ = self.dialling.insert(to, id),
            None => _ = self.due_ms.insert(to, now_ms + TRANSFER_REDIAL_MS),
        }
    }

    /// Takes a connection whose handshake is done. Returns the connection of the same member that it replaces.
    pub(super) fn on_linked(&mut self, node: NodeId, link: ConnectionId) -> Option<ConnectionId> {
        self.dialling.remove(&node);
        let old = self.links.insert(node, link)?;
        self.ask_again(node, old);
        Some(old)
    }

    /// Handles the end of a connection. Returns false if it is neither a transfer connection nor an attempt at one.
    pub(super) fn on_cut(&mut self, id: ConnectionId, now_ms: Ms) -> bool {
        let with =
            |map: &BTreeMap<NodeId, ConnectionId>| map.iter().find(|(_, link)| **link == id).map(|(node, _)| *node);
        let Some(node) = with(&self.links).or(with(&self.dialling)) else { return false };
        self.links.retain(|_, link| *link != id);
        self.dialling.retain(|_, link| *link != id);
        self.due_ms.insert(node, now_ms + TRANSFER_REDIAL_MS);
        self.ask_again(node, id);
        true
    }

    /// Sends a frame of one message on a transfer connection.
    fn send(&self, link: ConnectionId, message: &NodeMessage, outputs: &mut Outputs) {
        let mut frame = FrameWriter::new(Purpose::Bulk);
        frame.message(NODE, message.kind(), |out| message.put(out));
        let mut pieces = Vec::new();
        frame.finish(&mut pieces);
        if self.links.values().any(|known| *known == link) {
            outputs.extend(pieces.into_iter().map(|piece| Output::Frame(link, piece)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_connection_replaces_the_older_one_and_a_lost_one_is_made_again_later() {
        let mut transfers = Transfers::default();
        let node = NodeId(2);
        transfers.on_dialling(node, Some(ConnectionId(7)), Ms(0));
        assert_eq!(
            (transfers.on_linked(node, ConnectionId(7)), transfers.on_linked(node, ConnectionId(8))),
            (None, Some(ConnectionId(7)))
        );
        assert!(
            !transfers.on_cut(ConnectionId(7), Ms(100))
                && transfers.on_cut(ConnectionId(8), Ms(100))
                && !transfers.on_cut(ConnectionId(8), Ms(100))
        );
        assert!(transfers.due_ms[&node] > Ms(100));
    }

    #[test]
    fn a_file_is_kept_for_another_node_for_a_while() {
        let mut transfers = Transfers::default();
        transfers.pins.insert(CheckpointSequence(3), TRANSFER_PIN_MS);
        assert!(
            transfers.is_pinned(CheckpointSequence(3), TRANSFER_PIN_MS - Ms(1))
                && !transfers.is_pinned(CheckpointSequence(3), TRANSFER_PIN_MS)
        );
        assert!(
            !transfers.is_pinned(CheckpointSequence(4), Ms(0))
                && transfers.tick(TRANSFER_PIN_MS).is_empty()
                && transfers.pins.is_empty()
        );
    }
}
