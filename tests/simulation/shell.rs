//! The counterpart of `src/server`: each turn passes inputs to the node and carries its effects out. Here each effect
//! is a place where the process may end.

use crate::network::{PacketContent, UNNUMBERED, Who};
use crate::process::{EPOCH_US, Input, PORT, RunningProcess, options};
use crate::run::CLOCKS_US;
use crate::world::{Event, World};
use bytes::{Bytes, BytesMut};
use groups::{Instance, TICK_MS, Us};
use net::event::ConnectionId;
use net::frame;
use paxoi::identity::{self, Identity};
use paxoi::node::output::{self, Dialled};
use paxoi::node::{Close, Completion, Driver, Node, ProcessFacts, Space, Time};
use paxoi::storage::checkpoint::{CheckpointTask, TransferTask};
use paxoi::storage::disk::Disk;
use paxoi::storage::wal::{Append, Batch, DroppableSegments, ReadRange, SegmentSequence};
use std::collections::BTreeMap;

/// The way in which a process ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// `kill -9`: the written data is in the page cache.
    Kill,
    /// The machine loses power, and may lose what was not synced.
    PowerLoss,
    /// The process gave up, because the log or the disk failed.
    Fatal(String),
    /// The node said that it can never serve as it is.
    Stop(String),
}

/// The driver of a node. Each output is a place where the process may end.
struct Machine<'a> {
    world: &'a mut World,
    node: usize,
    life: &'a mut RunningProcess,
    /// Pieces of frames that are not whole yet, by connection.
    partial: BTreeMap<ConnectionId, BytesMut>,
}

/// Maximum time for which a connection stays open for last bytes that the peer does not read.
const LINGER_US: u64 = paxoi::config::LINGER_MS_MAX.to_us().0;
/// Maximum time for which a connection goes on after one of its frames was lost or came late.
const DOOMED_US: u64 = 1_000_000;
/// Interval of connection attempts through a blocked link, or to a sleeping machine.
const REDIAL_US: u64 = 200_000;
/// Interval of the log thread's attempts to make a segment.
const SPACE_US: u64 = 1_000_000;
/// Idle time after which the log thread writes a durability marker.
const IDLE_US: u64 = 3_000;
/// Time until the next turn while states are taken out for a checkpoint.
const SOON_US: u64 = 1_000;
/// The largest frame that a node may send.
const FRAME_BYTES_MAX: usize = 16 << 20;

impl World {
    /// Runs one turn of a node.
    pub(crate) fn turn(&mut self, node: usize) {
        let time = self.processes[node].clocks.at(self.now_us);
        let Some(mut life) = self.processes[node].life.take() else { return };
        if life.stopped {
            self.processes[node].life = Some(life);
            return;
        }
        life.turn_us = None;
        life.load(self.now_us, time);
        for input in std::mem::take(&mut life.inbox) {
            self.feed(&mut life, input, time);
        }
        let now_ms = time.mono_us.to_ms();
        if now_ms >= life.ticked_ms + TICK_MS {
            life.ticked_ms = now_ms;
            let status = life.writer.status();
            let (disk_full, log_bytes, log_segments) = (status.full(), status.bytes(), status.segments());
            life.node.set_facts(ProcessFacts { disk_full, log_bytes, log_segments, ..ProcessFacts::default() });
            life.node.tick(time);
        }
        let free = self.processes[node].disk.free_bytes().unwrap_or(u64::MAX);
        life.node.set_space(Space::of(life.writer.status(), &options(), free));
        life.node.end_turn(time);
        if self.shape.is_busy {
            life.tell_load(time);
        }
        let carried_out = self.carry_out(node, &mut life, time);
        if carried_out.is_ok() {
            self.oracle.after_turn(node, &life.node);
            self.check_leases(node, &life.node);
            self.check_time(node, &life.node);
        }
        let (number, has_work) = (life.number, life.node.has_work());
        let again_us = if has_work { Some(0) } else { life.node.has_work_soon().then_some(SOON_US) };
        if let Some(us) = again_us.filter(|_| life.turn_us.is_none()) {
            life.turn_us = Some(self.now_us + us);
            self.after(us, Event::Turn { node, life: number });
        }
        self.processes[node].life = Some(life);
        if let Err(end) = carried_out {
            self.end(node, end);
        }
    }

    /// Checks that no group's time is too far ahead of real time, however wrong the clocks of a minority are.
    fn check_time(&mut self, node: usize, checked: &paxoi::node::Node) {
        let allowed_us = self.faults.skew_us + CLOCKS_US;
        let latest_ms = Us(EPOCH_US as u64 + self.now_us + allowed_us).to_ms();
        let ahead = |group: &&groups::Group| group.time_ms() > latest_ms;
        if self.tells_clocks
            && let Some(group) = checked.shard().groups().find(ahead)
        {
            let by_ms = group.time_ms() - latest_ms + Us(allowed_us).to_ms();
            let (group, node) = (group.id(), node + 1);
            self.oracle.fail(&format!("the time of group {group} at node {node} is {by_ms} ms ahead of real time"));
        }
    }

    /// Checks that no other node holds a lease under a lower ballot than a leader's. Otherwise a member of the majority
    /// that elected the leader has broken its lease grant.
    fn check_leases(&mut self, node: usize, leader: &paxoi::node::Node) {
        for group in leader.shard().groups() {
            let Some(ballot) = group.leads() else { continue };
            for (other, process) in self.processes.iter().enumerate() {
                let Some(life) = &process.life else { continue };
                let older = life.node.shard().has(group.id())
                    && life.node.shard().group(group.id()).leads().is_some_and(|other| other < ballot);
                if older && life.node.holds_lease(group.id(), process.clocks.at(self.now_us)) {
                    let (node, other, id) = (node + 1, other + 1, group.id());
                    self.oracle.fail(&format!("node {node} leads group {id}, of which node {other} holds a lease"));
                }
            }
        }
    }

    fn feed(&mut self, life: &mut RunningProcess, input: Input, time: Time) {
        match input {
            Input::Opened(handle) => life.node.opened(handle, ([127, 0, 0, 1], 9).into(), time),
            Input::Connected(handle) => life.node.on_completion(Completion::Connected(handle), time),
            Input::Bytes(handle) => {
                let Some((connection, side)) = life.handles.get(&handle).copied() else { return };
                let Some(end) = self.network.end(connection, side).filter(|end| !end.paused) else { return };
                let mut bytes = std::mem::take(&mut end.input);
                let unsent = self.network.unsent(connection, side, self.now_us);
                life.read(handle, &mut bytes, unsent, time);
                if let Some(end) = self.network.end(connection, side) {
                    end.input = bytes;
                }
            }
            Input::Eof(handle) => life.node.ended(handle, time),
            Input::Closed(handle) => {
                life.node.closed(handle, time);
                life.forget(handle);
            }
            Input::Drained(handle) => life.node.drained(handle),
            Input::Durable { lsn, sync_us } => {
                life.node.on_completion(Completion::Durable { lsn, frame: lsn, sync_us }, time);
            }
            Input::Range { range, values } => life.node.on_completion(Completion::Read(range, values), time),
            Input::Checkpoint(done) => life.node.on_completion(Completion::Checkpoint(done), time),
            Input::TransferResult(result) => life.node.on_completion(Completion::Transfer(result), time),
            Input::Scrubbed(findings) => life.node.on_completion(Completion::Scrubbed(findings), time),
        }
    }

    fn carry_out(&mut self, node: usize, life: &mut RunningProcess, time: Time) -> Result<(), End> {
        output::carry_out(&mut Machine { world: self, node, life, partial: BTreeMap::new() }, time)?;
        self.watch_unsent(node, life);
        Ok(())
    }

    /// Returns the unsent bytes of each connection of a node. Empty if the bandwidth is unlimited.
    fn unsent(&mut self, life: &RunningProcess) -> BTreeMap<ConnectionId, usize> {
        if self.network.weather.bytes_per_ms == 0 {
            return BTreeMap::new();
        }
        let (network, now_us) = (&mut self.network, self.now_us);
        let handles = life.handles.iter();
        handles.map(|(handle, (connection, side))| (*handle, network.unsent(*connection, *side, now_us))).collect()
    }

    /// Schedules an event for each connection that has to drain.
    fn watch_unsent(&mut self, node: usize, life: &mut RunningProcess) {
        for (handle, _) in self.unsent(life).into_iter().filter(|(_, bytes)| *bytes > 0) {
            if life.draining.insert(handle) {
                let (connection, side) = life.handles[&handle];
                let at_us = self.network.free_us(connection, side);
                self.at(at_us, Event::Drained { node, life: life.number, handle });
            }
        }
    }

    /// Tells the node that a connection has drained, or looks again later.
    pub(crate) fn look_at_drain(&mut self, node: usize, handle: ConnectionId) {
        let Some(life) = &mut self.processes[node].life else { return };
        let Some((connection, side)) = life.handles.get(&handle).copied() else { return };
        if self.network.unsent(connection, side, self.now_us) > 0 {
            let (at_us, life) = (self.network.free_us(connection, side), life.number);
            return self.at(at_us, Event::Drained { node, life, handle });
        }
        life.draining.remove(&handle);
        self.push(node, Input::Drained(handle));
    }

    fn set_paused(&mut self, life: &RunningProcess, handle: ConnectionId, paused: bool) {
        if let Some((connection, side)) = life.handles.get(&handle).copied()
            && let Some(end) = self.network.end(connection, side)
        {
            end.paused = paused;
        }
    }

    fn send_frame(&mut self, node: usize, life: &RunningProcess, handle: ConnectionId, raw: Bytes) {
        let Some((connection, side)) = life.handles.get(&handle).copied() else { return };
        if self.network.end(connection, side).is_none() {
            return;
        }
        let Some(Who::Node { node: to, .. }) = self.network.find(connection).map(|found| found.ends[1 - side].who)
        else {
            return;
        };
        let decoded = frame::decode(&mut BytesMut::from(&raw[..]), FRAME_BYTES_MAX);
        let decoded = decoded.expect("a node sends frames").expect("whole ones");
        let is_greeting = self.oracle.on_frame([node, to], (connection, side), &decoded, &mut self.trace);
        self.note(u64::from(crc32c::crc32c(&raw)));
        if is_greeting {
            return self.send(connection, side, PacketContent::Data(raw));
        }
        let sent = self.network.send_frame(connection, side, &raw, self.now_us, &mut self.random);
        sent.arrivals_us.iter().for_each(|at_us| self.at(*at_us, Event::Arrive { connection, side }));
        if sent.doomed {
            let us = self.random.below(DOOMED_US);
            self.after(us, Event::Cut { connection });
        }
    }

    fn close(&mut self, node: usize, life: &mut RunningProcess, handle: ConnectionId, close: Close) {
        let Some((connection, side)) = life.handles.get(&handle).copied() else { return };
        let Some(end) = self.network.end(connection, side) else { return };
        match close {
            Close::Now => {
                end.open = false;
                let content = if self.random.chance(500) { PacketContent::End } else { PacketContent::Break };
                self.send(connection, side, content);
                life.forget(handle);
            }
            Close::AfterFlush => {
                end.paused = true;
                let at_us = self.network.send(connection, side, PacketContent::End, self.now_us, &mut self.random);
                self.at(at_us, Event::Arrive { connection, side });
                let at_us = at_us.min(self.now_us + LINGER_US);
                self.at(at_us, Event::Finished { node, life: life.number, handle });
            }
        }
    }

    /// Closes a connection after its last bytes.
    pub(crate) fn finish(&mut self, node: usize, handle: ConnectionId) {
        let Some(life) = &self.processes[node].life else { return };
        let Some((connection, side)) = life.handles.get(&handle).copied() else { return };
        if let Some(end) = self.network.end(connection, side) {
            end.open = false;
            self.push(node, Input::Closed(handle));
        }
    }

    fn dial(&mut self, node: usize, life: &mut RunningProcess, target: usize) -> ConnectionId {
        let handle = life.handle();
        let from = (Who::Node { node, life: life.number }, handle);
        let connection = self.network.connect(from, (Who::Node { node: target, life: 0 }, UNNUMBERED));
        if let Some(found) = self.network.find(connection) {
            found.ends[1].open = false;
        }
        life.handles.insert(handle, (connection, 0));
        let us = self.random.between(50, 500);
        self.after(us, Event::Dial { connection });
        handle
    }

    /// Handles a connection attempt that arrives. A running process accepts it; a machine without one refuses it.
    pub(crate) fn answer_dial(&mut self, connection: u64) {
        let Some(found) = self.network.find(connection) else { return };
        let (from, Who::Node { node: to, .. }) = (found.ends[0].who, found.ends[1].who) else { return };
        if !found.ends[0].open {
            return self.network.remove(connection);
        }
        if let Who::Node { node, .. } = from
            && (self.network.is_blocked(node, to) || self.network.is_blocked(to, node))
        {
            return self.after(REDIAL_US, Event::Dial { connection });
        }
        if self.network.asleep.contains(&to) {
            return self.after(REDIAL_US, Event::Dial { connection });
        }
        let Some(life) = &mut self.processes[to].life else { return self.send(connection, 1, PacketContent::Break) };
        let handle = life.handle();
        life.handles.insert(handle, (connection, 1));
        let number = life.number;
        if let Some(found) = self.network.find(connection) {
            let end = &mut found.ends[1];
            (end.who, end.handle, end.open) = (Who::Node { node: to, life: number }, handle, true);
        }
        self.push(to, Input::Opened(handle));
        match from {
            Who::Node { node, .. } => {
                let handle = self.network.find(connection).map_or(UNNUMBERED, |found| found.ends[0].handle);
                self.push(node, Input::Connected(handle));
            }
            Who::Client(client) => self.client_connected(client, connection),
        }
    }

    fn begin_batch(&mut self, node: usize, life: &mut RunningProcess, batch: Batch) {
        self.oracle.on_batch(node, &batch, &mut self.trace);
        assert!(life.syncing.is_none(), "node {node} gave the log a batch while one was on its way");
        (life.syncing, life.synced_us) = (Some(batch), self.now_us);
        life.marked = false;
        let process = &self.processes[node];
        let slow_us = process.slow_until_us.saturating_sub(self.now_us);
        let us = process.sync_us / 2 + self.random.below(process.sync_us) + self.random.below(slow_us + 1);
        self.after(us, Event::Synced { node, life: life.number });
    }

    /// The disk writes and syncs the batch that it was given.
    pub(crate) fn write_batch(&mut self, node: usize) {
        let Some(life) = &mut self.processes[node].life else { return };
        let Some(batch) = &life.syncing else { return };
        let mut appended = life.writer.append(batch);
        if matches!(appended, Ok(Append::NeedsSegment)) && life.writer.preallocate().is_ok() {
            appended = life.writer.append(batch);
        }
        match appended {
            Ok(Append::Durable(_)) => {
                let Some(batch) = life.syncing.take() else { return };
                let (lsn, number, sync_us) = (batch.lsn, life.number, Us(self.now_us - life.synced_us));
                if self.random.chance(900) {
                    // The thread that prepares segments is mostly in time.
                    let _ = life.writer.preallocate();
                }
                self.trace.line(|| format!("n{} durable {lsn}", node + 1));
                self.oracle.on_durable(node, &batch);
                self.push(node, Input::Durable { lsn, sync_us });
                self.after(IDLE_US, Event::Mark { node, life: number });
            }
            Ok(Append::NeedsSegment | Append::NeedsSpace) => {
                let number = life.number;
                self.after(SPACE_US, Event::Synced { node, life: number });
            }
            Err(error) => self.end(node, End::Fatal(error.to_string())),
        }
    }

    /// Prepares a segment, as the thread for that does, and schedules the next attempt.
    pub(crate) fn preallocate(&mut self, node: usize) {
        let Some(life) = &self.processes[node].life else { return };
        let _ = life.writer.preallocate();
        let life = life.number;
        self.after(SPACE_US, Event::Preallocate { node, life });
    }

    pub(crate) fn mark(&mut self, node: usize) {
        let Some(life) = &mut self.processes[node].life else { return };
        if life.syncing.is_some() {
            return;
        }
        if life.writer.wants_durability_marker()
            && let Err(error) = life.writer.write_durability_marker()
        {
            return self.end(node, End::Fatal(error.to_string()));
        }
        life.marked = true;
    }

    fn begin_checkpoint_task(&mut self, node: usize, life: &mut RunningProcess, task: CheckpointTask) {
        life.checkpoint_tasks.push_back(task);
        if life.checkpoint_tasks.len() == 1 {
            let us = self.random.between(20, 1_000);
            self.after(us, Event::CheckpointTask { node, life: life.number });
        }
    }

    /// Performs the next task of the checkpoint worker.
    pub(crate) fn run_checkpoint_task(&mut self, node: usize) {
        let us = self.random.between(20, 1_000);
        let Some(life) = &mut self.processes[node].life else { return };
        let Some(task) = life.checkpoint_tasks.pop_front() else { return };
        let number = life.number;
        self.trace.line(|| format!("n{} {task:?}", node + 1));
        let done = life.checkpoint_worker.perform(task);
        if !life.checkpoint_tasks.is_empty() {
            self.after(us, Event::CheckpointTask { node, life: number });
        }
        if let Some(done) = done {
            self.trace.line(|| format!("n{} {done:?}", node + 1));
            self.oracle.on_checkpoint(&done);
            self.push(node, Input::Checkpoint(done));
        }
    }

    fn begin_transfer_task(&mut self, node: usize, life: &mut RunningProcess, task: TransferTask) {
        life.transfer_tasks.push_back(task);
        if life.transfer_tasks.len() == 1 {
            let us = self.random.between(20, 1_000);
            self.after(us, Event::TransferTask { node, life: life.number });
        }
    }

    /// Performs the next task of the transfer worker.
    pub(crate) fn run_transfer_task(&mut self, node: usize) {
        let us = self.random.between(20, 1_000);
        let Some(life) = &mut self.processes[node].life else { return };
        let Some(task) = life.transfer_tasks.pop_front() else { return };
        let number = life.number;
        let mut all = Vec::new();
        life.transfer_worker.perform(task, &mut |result| all.push(result));
        if !life.transfer_tasks.is_empty() {
            self.after(us, Event::TransferTask { node, life: number });
        }
        for result in all {
            self.trace.line(|| format!("n{} {result:?}", node + 1));
            self.oracle.on_transfer_result(node, &result);
            self.push(node, Input::TransferResult(result));
        }
    }

    /// Scrubs the disk, and schedules the next scrub.
    pub(crate) fn scrub(&mut self, node: usize) {
        let us = self.random.between(1, 10) * 1_000_000;
        let process = &self.processes[node];
        let Some(life) = &process.life else { return };
        self.after(us, Event::Scrub { node, life: life.number });
        let findings = paxoi::storage::scrub::scrub(&self.processes[node].disk, 1, &mut |_| true);
        self.trace.line(|| format!("n{} {findings:?}", node + 1));
        self.push(node, Input::Scrubbed(findings));
    }

    pub(crate) fn drop_segments(&mut self, node: usize, below: SegmentSequence) {
        let Some(life) = &self.processes[node].life else { return };
        self.trace.line(|| format!("n{} drops segments below {below}", node + 1));
        // Segments that cannot be removed now are removed later.
        let _ = life.writer.drop_segments(below);
    }

    pub(crate) fn read_range(&mut self, node: usize, range: ReadRange) {
        let Some(life) = &mut self.processes[node].life else { return };
        match life.reader.read(&range) {
            Ok(values) => self.push(node, Input::Range { range, values }),
            Err(error) => self.end(node, End::Fatal(error.to_string())),
        }
    }
}

impl Driver for Machine<'_> {
    type Error = End;

    fn node(&mut self) -> &mut Node {
        &mut self.life.node
    }

    fn before_output(&mut self) -> Result<(), End> {
        match &mut self.life.effects_left {
            Some(0) => Err(if self.world.random.chance(500) { End::Kill } else { End::PowerLoss }),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn give_replies(&mut self) -> Result<(), End> {
        let unsent = self.world.unsent(self.life);
        let mut all = Vec::new();
        self.life.node.take_replies(|handle, replies| {
            let queued = unsent.get(&handle).map_or(0, |bytes| bytes + replies.len());
            all.push((handle, replies.take_bytes()));
            queued
        });
        for (handle, bytes) in all {
            self.before_output()?;
            if let Some((connection, side)) = self.life.handles.get(&handle).copied()
                && self.world.network.end(connection, side).is_some()
            {
                self.world.send(connection, side, PacketContent::Data(bytes));
            }
        }
        Ok(())
    }

    fn send(&mut self, connection: ConnectionId, piece: Bytes) {
        let partial = self.partial.entry(connection).or_default();
        partial.extend_from_slice(&piece);
        let mut whole = Vec::new();
        while let Some(payload) = partial.get(4..8) {
            let payload_bytes = u32::from_le_bytes(payload.try_into().expect("four bytes")) as usize;
            if partial.len() < frame::HEADER_BYTES + payload_bytes {
                break;
            }
            whole.push(partial.split_to(frame::HEADER_BYTES + payload_bytes).freeze());
        }
        whole.into_iter().for_each(|raw| self.world.send_frame(self.node, self.life, connection, raw));
    }

    fn flush(&mut self) {}

    fn unsent(&mut self, connection: ConnectionId) -> usize {
        let now_us = self.world.now_us;
        let handle = self.life.handles.get(&connection).copied();
        handle.map_or(0, |(connection, side)| self.world.network.unsent(connection, side, now_us))
    }

    fn close(&mut self, connection: ConnectionId, how: Close, _: Time) {
        self.world.close(self.node, self.life, connection, how);
    }

    fn pause(&mut self, connection: ConnectionId) {
        self.world.set_paused(self.life, connection, true);
    }

    fn resume(&mut self, connection: ConnectionId) {
        self.world.set_paused(self.life, connection, false);
        self.life.inbox.push(Input::Bytes(connection));
        if self.life.turn_us.is_none() {
            let now_us = self.world.now_us;
            self.life.turn_us = Some(now_us);
            self.world.at(now_us, Event::Turn { node: self.node, life: self.life.number });
        }
    }

    fn dial(&mut self, address: &str) -> Dialled {
        // A node that joins does not know which node it finds at the address.
        let port: usize = address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        Dialled::Begun(self.world.dial(self.node, self.life, port - PORT))
    }

    fn look_up(&mut self, address: &str) {
        unreachable!("all addresses of a run are numbers: {address}")
    }

    fn append(&mut self, batch: Batch) {
        self.world.begin_batch(self.node, self.life, batch);
    }

    fn droppable(&mut self, floors: &[Instance]) -> Option<DroppableSegments> {
        let droppable = self.life.writer.droppable(floors)?;
        self.world.oracle.on_droppable(self.node, droppable);
        Some(droppable)
    }

    fn drop_segments(&mut self, below: SegmentSequence) {
        let us = self.world.random.below(5_000);
        self.world.after(us, Event::Drop { node: self.node, life: self.life.number, below });
    }

    fn read_range(&mut self, range: ReadRange) -> bool {
        let us = self.world.random.between(50, 1_000);
        self.world.after(us, Event::Read { node: self.node, life: self.life.number, range });
        true
    }

    fn checkpoint(&mut self, task: CheckpointTask) {
        self.world.begin_checkpoint_task(self.node, self.life, task);
    }

    fn transfer(&mut self, task: TransferTask) {
        self.world.begin_transfer_task(self.node, self.life, task);
    }

    fn store(&mut self, identity: &Identity) -> Result<(), End> {
        let saved = identity::save(&self.world.processes[self.node].disk, identity);
        saved.map_err(|error| End::Fatal(error.to_string()))?;
        if let Some(record) = &identity.birth {
            self.world.oracle.on_birth(self.node, record);
        }
        Ok(())
    }

    fn stop(&mut self, reason: String) -> End {
        End::Stop(reason)
    }
}
