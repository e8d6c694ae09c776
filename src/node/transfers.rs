//! Checkpoints between nodes: a member whose log begins later offers its newest one instead of the values, and the node
//! that is behind fetches that file piece by piece, with a window, at a bounded rate, on a connection of its own
//! (`bulk`). What it has of a file outlives a broken connection and a restart of either side. Nothing of its own state
//! goes before the new one is whole; what it promised stays.

use super::pace::{Load, Pace};
use super::wire::{FileId, NodeMessage, Offer, Piece, Want};
use super::{Node, Output, Time};
use crate::config::{
    TRANSFER_BYTES_PER_MS, TRANSFER_PIECE_BYTES, TRANSFER_PIN_MS, TRANSFER_READS_MAX, TRANSFER_SILENT_MS,
    TRANSFER_WINDOW_BYTES, TRANSFERS_MAX,
};
use crate::storage::checkpoint::{Brought, Errand, Header, INCOMING_PREFIX, Loaded};
use groups::{GroupId, Instance, NodeId};
use std::collections::{BTreeMap, VecDeque};

/// What is on its way, in both directions.
#[derive(Default)]
pub(super) struct Transfers {
    active: Vec<Transfer>,
    /// Connections for this, by member, and attempts at one.
    pub(super) links: BTreeMap<NodeId, u64>,
    pub(super) dialling: BTreeMap<NodeId, u64>,
    pub(super) due_ms: BTreeMap<NodeId, u64>,
    /// Files of this node that others want, and until when they are kept for them.
    pins: BTreeMap<u64, u64>,
    /// Pieces that others want, by connection, and how many are being read for them.
    wanted: VecDeque<(u64, Want)>,
    reading: usize,
    asking: Pace,
    sending: Pace,
    pub(super) received_bytes: u64,
    pub(super) sent_bytes: u64,
    pub(super) installed: u64,
}

/// A file that is being received.
struct Transfer {
    from: NodeId,
    file: FileId,
    name: String,
    /// Whether it is known how much of it was there already.
    opened: bool,
    /// Bytes asked for, received and written.
    asked: u64,
    received: u64,
    written: u64,
    installing: bool,
    began_ms: u64,
    heard_ms: u64,
}

impl Transfers {
    /// Whether a file is kept because another node fetches it.
    pub(super) fn is_pinned(&self, sequence: u64, now_ms: u64) -> bool {
        self.pins.get(&sequence).is_some_and(|until_ms| now_ms < *until_ms)
    }

    /// Files being received.
    pub(super) fn count(&self) -> usize {
        self.active.len()
    }

    /// The members from which something is to come, and no connection is there or on its way.
    pub(super) fn to_dial(&self, now_ms: u64) -> Vec<NodeId> {
        let wanted = self.active.iter().filter(|transfer| !transfer.installing).map(|transfer| transfer.from);
        let missing = |id: &NodeId| {
            let waits = self.due_ms.get(id).is_some_and(|due_ms| now_ms < *due_ms);
            !waits && !self.links.contains_key(id) && !self.dialling.contains_key(id)
        };
        let mut missing: Vec<NodeId> = wanted.filter(missing).collect();
        missing.dedup();
        missing
    }

    /// The connection is gone: what was asked for on it is asked for again.
    pub(super) fn on_cut(&mut self, from: NodeId, link: u64) {
        self.wanted.retain(|(to, _)| *to != link);
        for transfer in self.active.iter_mut().filter(|transfer| transfer.from == from) {
            transfer.asked = transfer.received;
        }
    }

    fn find(&mut self, name: &str) -> Option<&mut Transfer> {
        self.active.iter_mut().find(|transfer| transfer.name == name)
    }

    /// What may be asked for, and sent, grows with the time.
    fn earn(&mut self, load: Load, now_us: u64) {
        let (least, most) = TRANSFER_BYTES_PER_MS;
        for pace in [&mut self.asking, &mut self.sending] {
            pace.earn(load.allows(least, most), TRANSFER_WINDOW_BYTES, now_us);
        }
    }
}

impl Node {
    /// A member asked for values that the log has no more: it is offered the checkpoint that has their effect.
    pub(super) fn offer(&mut self, to: NodeId, group: GroupId, from: Instance, time: Time) {
        let Some((instance, file)) = self.checkpoints.newest(group).filter(|(instance, _)| *instance >= from) else {
            return;
        };
        self.transfers.pins.insert(file.sequence, time.mono_ms() + TRANSFER_PIN_MS);
        if let Some(peer) = self.peers.find(to) {
            peer.tell(&NodeMessage::Offer(Offer { group, instance, file }));
        }
    }

    pub(super) fn handle_offer(&mut self, from: NodeId, offer: &Offer, time: Time) {
        let Offer { group, instance, file } = *offer;
        // Which numbers new files can have is known when all groups are here.
        if self.is_loading() || !self.engine.has(group) || instance < self.engine.group(group).next() {
            return;
        }
        let name = format!("{INCOMING_PREFIX}{}-{:x}-{:08x}", from.0, file.sequence, file.stamp);
        let active = &self.transfers.active;
        // One source at a time: two of its files at most are new enough to be offered.
        if active.len() >= TRANSFERS_MAX || active.iter().any(|transfer| transfer.name == name || transfer.from != from)
        {
            return;
        }
        let keep = active.iter().map(|transfer| transfer.name.clone()).collect();
        tracing::info!("fetching the checkpoint {} of node {from}, {} bytes", file.sequence, file.bytes);
        self.outputs.push(Output::Transfer(Errand::Open { name: name.clone(), keep }));
        let now_ms = time.mono_ms();
        self.transfers.active.push(Transfer {
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

    /// Asks for more of what is on its way, and sees to what others want; each turn.
    pub(super) fn step_transfers(&mut self, time: Time) {
        if self.transfers.active.is_empty() && self.transfers.wanted.is_empty() {
            return;
        }
        self.transfers.earn(self.load, time.mono_us);
        self.ask_for_pieces();
        self.read_pieces();
    }

    fn ask_for_pieces(&mut self) {
        let Transfers { active, links, asking, .. } = &mut self.transfers;
        let mut wants: Vec<(u64, Want)> = Vec::new();
        for transfer in active.iter_mut().filter(|transfer| transfer.opened && !transfer.installing) {
            let Some(link) = links.get(&transfer.from) else { continue };
            while transfer.asked < transfer.file.bytes
                && transfer.asked - transfer.written < TRANSFER_WINDOW_BYTES as u64
                && asking.is_open()
            {
                let bytes = (transfer.file.bytes - transfer.asked).min(TRANSFER_PIECE_BYTES as u64) as u32;
                asking.spend(bytes as usize);
                wants.push((*link, Want { file: transfer.file, offset: transfer.asked, bytes }));
                transfer.asked += u64::from(bytes);
            }
        }
        wants.into_iter().for_each(|(link, want)| self.send_bulk(link, &NodeMessage::Want(want)));
    }

    fn read_pieces(&mut self) {
        let Transfers { wanted, reading, sending, .. } = &mut self.transfers;
        while sending.is_open()
            && let Some((link, Want { file, offset, bytes })) = wanted.pop_front()
        {
            let bytes = (bytes as usize).min(TRANSFER_PIECE_BYTES);
            sending.spend(bytes);
            *reading += 1;
            self.outputs.push(Output::Transfer(Errand::Read { link, sequence: file.sequence, offset, bytes }));
        }
    }

    pub(super) fn tick_transfers(&mut self, time: Time) {
        let now_ms = time.mono_ms();
        self.transfers.pins.retain(|_, until_ms| now_ms < *until_ms);
        self.transfers.active.retain(|transfer| {
            let silent = !transfer.installing && now_ms >= transfer.heard_ms + TRANSFER_SILENT_MS;
            if silent {
                tracing::warn!(
                    "nothing more came of the checkpoint {} of node {}",
                    transfer.file.sequence,
                    transfer.from
                );
            }
            !silent
        });
        self.dial_bulk(time);
    }

    /// A member wants a piece of a checkpoint of this node.
    pub(super) fn handle_want(&mut self, link: u64, want: &Want, time: Time) {
        let Want { file, offset, .. } = *want;
        let there = self.checkpoints.file(file.sequence) == Some(file) && offset < file.bytes;
        if !there || self.transfers.wanted.len() + self.transfers.reading >= TRANSFER_READS_MAX {
            // A newer one is offered when the values are asked for again; so is this one, if too many ask at once.
            let piece = Piece { file, offset, bytes: bytes::Bytes::new() };
            return self.send_bulk(link, &NodeMessage::Piece(piece));
        }
        self.transfers.pins.insert(file.sequence, time.mono_ms() + TRANSFER_PIN_MS);
        self.transfers.wanted.push_back((link, *want));
    }

    pub(super) fn handle_piece(&mut self, from: NodeId, piece: Piece, time: Time) {
        let Piece { file, offset, bytes } = piece;
        let active = &mut self.transfers.active;
        let Some(place) = active.iter().position(|transfer| transfer.from == from && transfer.file == file) else {
            return;
        };
        if bytes.is_empty() {
            tracing::info!("the checkpoint {} of node {from} is gone", file.sequence);
            active.remove(place);
            return;
        }
        let transfer = &mut active[place];
        if !transfer.opened || transfer.installing || offset != transfer.received {
            return;
        }
        transfer.heard_ms = time.mono_ms();
        transfer.received += bytes.len() as u64;
        self.transfers.received_bytes += bytes.len() as u64;
        self.outputs.push(Output::Transfer(Errand::Write { name: transfer.name.clone(), offset, bytes }));
    }

    /// What became of [`Output::Transfer`].
    pub fn brought(&mut self, brought: Brought, time: Time) {
        match brought {
            Brought::Piece { link, sequence, offset, bytes } => {
                self.transfers.reading -= 1;
                self.transfers.sent_bytes += bytes.len() as u64;
                let Some(file) = self.checkpoints.file(sequence) else { return };
                self.send_bulk(link, &NodeMessage::Piece(Piece { file, offset, bytes }));
            }
            Brought::Opened { name, offset } => {
                let Some(transfer) = self.transfers.find(&name) else { return };
                (transfer.opened, transfer.heard_ms) = (true, time.mono_ms());
                (transfer.asked, transfer.received, transfer.written) = (offset, offset, offset);
                self.install_if_whole(&name);
            }
            Brought::Written { name, offset } => {
                let Some(transfer) = self.transfers.find(&name) else { return };
                (transfer.written, transfer.heard_ms) = (offset, time.mono_ms());
                self.install_if_whole(&name);
            }
            Brought::State { loaded, .. } => self.install(*loaded, time),
            Brought::Received { name, sequence, bytes, sections } => {
                if let Some(transfer) = self.transfers.find(&name) {
                    let (from, ms) = (transfer.from, time.mono_ms() - transfer.began_ms);
                    tracing::info!("the checkpoint of node {from} is installed, {bytes} bytes in {ms} ms");
                }
                self.transfers.active.retain(|transfer| transfer.name != name);
                self.add_checkpoint(sequence, bytes, &sections, time);
            }
            Brought::Failed { name, reason } => {
                tracing::error!("cannot receive a checkpoint: {reason}");
                self.transfers.active.retain(|transfer| transfer.name != name);
            }
        }
    }

    fn install_if_whole(&mut self, name: &str) {
        let Some((Header { groups, cluster_id, hash_key, .. }, limits)) = self.checkpoint_header() else { return };
        let next = self.engine.groups().map(groups::Group::next).collect();
        let Some(transfer) = self.transfers.find(name) else { return };
        if transfer.written < transfer.file.bytes || transfer.installing {
            return;
        }
        transfer.installing = true;
        let header = Header { groups, cluster_id, hash_key, sequence: self.checkpoints.next_sequence() };
        self.outputs.push(Output::Transfer(Errand::Install { name: name.to_owned(), header, limits, next }));
    }

    /// Puts a state in the place of a group's own.
    fn install(&mut self, loaded: Loaded, time: Time) {
        let Loaded { sequence, group, state, store } = loaded;
        let instance = state.instance;
        if self.engine.shard().store(group).is_frozen() {
            // What is being written of the old state is not needed any more.
            self.give_up_taking();
        }
        let (engine, mut wires) = self.split();
        let Some(old) = engine.install(group, state, store, &mut wires, time) else { return };
        self.transfers.installed += 1;
        self.checkpoints.set_kept(group, instance, sequence);
        // Letting go of it may take long.
        self.outputs.push(Output::Transfer(Errand::Drop(Box::new(old))));
    }
}
