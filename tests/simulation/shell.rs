//! The counterpart of `src/server`: each turn passes inputs to the node and carries its effects out. Here each effect
//! is a place where the process may end.

use crate::network::{PacketContent, UNNUMBERED, Who};
use crate::process::{EPOCH_US, Handle, Input, Letter, PORT, RunningProcess, options};
use crate::run::CLOCKS_US;
use crate::world::{Event, World};
use bytes::{Bytes, BytesMut};
use groups::{Instance, TICK_MS, Us};
use net::event::ConnectionId;
use net::frame;
use paxoi::identity::{self, Identity};
use paxoi::node::output::{self, Dialled};
use paxoi::node::{Close, Completion, Driver, Node, ProcessFacts, Space, Time, WorkerMessage};
use paxoi::storage::checkpoint::{CheckpointTask, TransferTask};
use paxoi::storage::disk::Disk;
use paxoi::storage::wal::{Batch, DroppableSegments, ReadRange, SegmentSequence};
use paxoi::workers::WorkerId;
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
    worker: usize,
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
/// Time until the next turn while states are taken out for a checkpoint.
const SOON_US: u64 = 1_000;
/// The largest frame that a node may send.
const FRAME_BYTES_MAX: usize = 16 << 20;

impl World {
    /// Runs one turn of a worker of a node.
    pub(crate) fn turn(&mut self, node: usize, worker: usize) {
        let time = self.processes[node].clocks.at(self.now_us);
        let Some(mut life) = self.processes[node].life.take() else { return };
        if life.stopped {
            self.processes[node].life = Some(life);
            return;
        }
        life.workers[worker].turn_us = None;
        life.load(self.now_us, time);
        for input in std::mem::take(&mut life.workers[worker].inbox) {
            self.feed(&mut life, worker, input, time);
        }
        let status = life.writer.status().clone();
        let running = &mut life.workers[worker];
        let now_ms = time.mono_us.to_ms();
        if now_ms >= running.ticked_ms + TICK_MS {
            running.ticked_ms = now_ms;
            let (disk_full, log_bytes, log_segments) = (status.full(), status.bytes(), status.segments());
            running.node.set_facts(ProcessFacts { disk_full, log_bytes, log_segments, ..ProcessFacts::default() });
            running.node.tick(time);
        }
        let free = self.processes[node].disk.free_bytes().unwrap_or(u64::MAX);
        running.node.set_space(Space::of(&status, &options(), free));
        running.node.end_turn(time);
        if self.shape.is_busy {
            life.tell_load(worker, time);
        }
        let carried_out = self.carry_out(node, worker, &mut life, time);
        let running = &mut life.workers[worker];
        if carried_out.is_ok() {
            self.oracle.after_turn(node, &running.node);
            self.check_leases(node, &running.node);
            self.check_time(node, &running.node);
        }
        let has_work = running.node.has_work();
        let again_us = if has_work { Some(0) } else { running.node.has_work_soon().then_some(SOON_US) };
        if let Some(us) = again_us.filter(|_| running.turn_us.is_none()) {
            running.turn_us = Some(self.now_us + us);
            self.after(us, Event::Turn { node, life: life.number, worker });
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
                let owner = life.of_group(group.id());
                let older = owner.shard().has(group.id())
                    && owner.shard().group(group.id()).leads().is_some_and(|other| other < ballot);
                if older && owner.holds_lease(group.id(), process.clocks.at(self.now_us)) {
                    let (node, other, id) = (node + 1, other + 1, group.id());
                    self.oracle.fail(&format!("node {node} leads group {id}, of which node {other} holds a lease"));
                }
            }
        }
    }

    fn feed(&mut self, life: &mut RunningProcess, worker: usize, input: Input, time: Time) {
        let client = ([127, 0, 0, 1], 9).into();
        if let Input::Closed(handle) = input {
            life.workers[worker].node.closed(handle, time);
            return life.forget(handle);
        }
        if let Input::Eof(handle) = input {
            life.ended.insert(handle);
        }
        if let Input::Bytes(handle) = input {
            return self.feed_bytes(life, worker, handle, time);
        }
        let node = &mut life.workers[worker].node;
        match input {
            Input::Opened(handle) | Input::Adopted(handle) => node.opened(handle, client, time),
            Input::Connected(handle) => node.on_completion(Completion::Connected(handle), time),
            Input::Eof(handle) => node.ended(handle, time),
            Input::Drained(handle) => node.drained(handle),
            Input::Durable { lsn, frame, sync_us } => {
                node.on_completion(Completion::Durable { lsn, frame, sync_us }, time);
            }
            Input::Told(from, message) => node.on_completion(Completion::Told(from, message), time),
            Input::Range { range, values } => node.on_completion(Completion::Read(range, values), time),
            Input::Checkpoint(done) => node.on_completion(Completion::Checkpoint(done), time),
            Input::TransferResult(result) => node.on_completion(Completion::Transfer(result), time),
            Input::Scrubbed(findings) => node.on_completion(Completion::Scrubbed(findings), time),
            Input::Bytes(_) | Input::Closed(_) => {}
        }
    }

    /// Gives a worker the bytes that a connection has received. Bytes that it does not consume stay.
    fn feed_bytes(&mut self, life: &mut RunningProcess, worker: usize, handle: ConnectionId, time: Time) {
        let Some((connection, side)) = life.place(handle) else { return };
        let Some(end) = self.network.end(connection, side).filter(|end| !end.paused) else { return };
        let mut bytes = std::mem::take(&mut end.input);
        let unsent = self.network.unsent(connection, side, self.now_us);
        life.workers[worker].node.input(handle, &mut bytes, unsent, time);
        if let Some(end) = self.network.end(connection, side) {
            end.input = bytes;
        }
    }

    fn carry_out(&mut self, node: usize, worker: usize, life: &mut RunningProcess, time: Time) -> Result<(), End> {
        output::carry_out(&mut Machine { world: self, node, worker, life, partial: BTreeMap::new() }, time)?;
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
        handles.map(|(handle, at)| (*handle, network.unsent(at.connection, at.side, now_us))).collect()
    }

    /// Schedules an event for each connection that has to drain.
    fn watch_unsent(&mut self, node: usize, life: &mut RunningProcess) {
        for (handle, _) in self.unsent(life).into_iter().filter(|(_, bytes)| *bytes > 0) {
            if life.draining.insert(handle) {
                let Handle { connection, side, .. } = life.handles[&handle];
                let at_us = self.network.free_us(connection, side);
                self.at(at_us, Event::Drained { node, life: life.number, handle });
            }
        }
    }

    /// Tells the node that a connection has drained, or looks again later.
    pub(crate) fn look_at_drain(&mut self, node: usize, handle: ConnectionId) {
        let Some(life) = &mut self.processes[node].life else { return };
        let Some((connection, side)) = life.place(handle) else { return };
        if self.network.unsent(connection, side, self.now_us) > 0 {
            let (at_us, life) = (self.network.free_us(connection, side), life.number);
            return self.at(at_us, Event::Drained { node, life, handle });
        }
        life.draining.remove(&handle);
        self.push(node, Input::Drained(handle));
    }

    fn set_paused(&mut self, life: &RunningProcess, handle: ConnectionId, paused: bool) {
        if let Some((connection, side)) = life.place(handle)
            && let Some(end) = self.network.end(connection, side)
        {
            end.paused = paused;
        }
    }

    fn send_frame(&mut self, node: usize, life: &RunningProcess, handle: ConnectionId, raw: Bytes) {
        let Some((connection, side)) = life.place(handle) else { return };
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
        let Some((connection, side)) = life.place(handle) else { return };
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
        let Some((connection, side)) = life.place(handle) else { return };
        if let Some(end) = self.network.end(connection, side) {
            end.open = false;
            self.push(node, Input::Closed(handle));
        }
    }

    fn dial(&mut self, node: usize, worker: usize, life: &mut RunningProcess, target: usize) -> ConnectionId {
        let handle = life.handle();
        let from = (Who::Node { node, life: life.number }, handle);
        let connection = self.network.connect(from, (Who::Node { node: target, life: 0 }, UNNUMBERED), worker);
        if let Some(found) = self.network.find(connection) {
            found.ends[1].open = false;
        }
        life.handles.insert(handle, Handle { connection, side: 0, worker, moves: false });
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
        life.handles.insert(handle, Handle { connection, side: 1, worker: 0, moves: false });
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

    fn begin_checkpoint_task(&mut self, node: usize, worker: usize, life: &mut RunningProcess, task: CheckpointTask) {
        let tasks = &mut life.workers[worker].checkpoint_tasks;
        tasks.push_back(task);
        if tasks.len() == 1 {
            let us = self.random.between(20, 1_000);
            self.after(us, Event::CheckpointTask { node, life: life.number, worker });
        }
    }

    /// Performs the next task of the checkpoint worker.
    pub(crate) fn run_checkpoint_task(&mut self, node: usize, worker: usize) {
        let us = self.random.between(20, 1_000);
        let Some(life) = &mut self.processes[node].life else { return };
        let (number, running) = (life.number, &mut life.workers[worker]);
        let Some(task) = running.checkpoint_tasks.pop_front() else { return };
        self.trace.line(|| format!("n{} {task:?}", node + 1));
        let done = running.checkpoint_worker.perform(task);
        if !running.checkpoint_tasks.is_empty() {
            self.after(us, Event::CheckpointTask { node, life: number, worker });
        }
        if let Some(done) = done {
            self.trace.line(|| format!("n{} {done:?}", node + 1));
            self.oracle.on_checkpoint(&done);
            self.push_to(node, worker, Input::Checkpoint(done));
        }
    }

    fn begin_transfer_task(&mut self, node: usize, worker: usize, life: &mut RunningProcess, task: TransferTask) {
        let tasks = &mut life.workers[worker].transfer_tasks;
        tasks.push_back(task);
        if tasks.len() == 1 {
            let us = self.random.between(20, 1_000);
            self.after(us, Event::TransferTask { node, life: life.number, worker });
        }
    }

    /// Performs the next task of the transfer worker.
    pub(crate) fn run_transfer_task(&mut self, node: usize, worker: usize) {
        let us = self.random.between(20, 1_000);
        let Some(life) = &mut self.processes[node].life else { return };
        let (number, running) = (life.number, &mut life.workers[worker]);
        let Some(task) = running.transfer_tasks.pop_front() else { return };
        let mut all = Vec::new();
        running.transfer_worker.perform(task, &mut |result| all.push(result));
        if !running.transfer_tasks.is_empty() {
            self.after(us, Event::TransferTask { node, life: number, worker });
        }
        for result in all {
            self.trace.line(|| format!("n{} {result:?}", node + 1));
            self.oracle.on_transfer_result(node, &result);
            self.push_to(node, worker, Input::TransferResult(result));
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
        let workers = self.processes[node].life.as_ref().map_or(0, |life| life.workers.len());
        (0..workers).for_each(|worker| self.push_to(node, worker, Input::Scrubbed(findings.clone())));
    }
}

impl Driver for Machine<'_> {
    type Error = End;

    fn node(&mut self) -> &mut Node {
        &mut self.life.workers[self.worker].node
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
        self.node().take_replies(|handle, replies| {
            let queued = unsent.get(&handle).map_or(0, |bytes| bytes + replies.len());
            all.push((handle, replies.take_bytes()));
            queued
        });
        for (handle, bytes) in all {
            self.before_output()?;
            if let Some((connection, side)) = self.life.place(handle)
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
        let handle = self.life.place(connection);
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
        let (worker, now_us) = (self.worker, self.world.now_us);
        let running = &mut self.life.workers[worker];
        running.inbox.push(Input::Bytes(connection));
        if running.turn_us.is_none() {
            running.turn_us = Some(now_us);
            self.world.at(now_us, Event::Turn { node: self.node, life: self.life.number, worker });
        }
    }

    fn dial(&mut self, address: &str) -> Dialled {
        // A node that joins does not know which node it finds at the address.
        let port: usize = address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        Dialled::Begun(self.world.dial(self.node, self.worker, self.life, port - PORT))
    }

    fn look_up(&mut self, address: &str) {
        unreachable!("all addresses of a run are numbers: {address}")
    }

    fn append(&mut self, batch: Batch) {
        self.world.begin_batch(self.node, self.worker, self.life, batch);
    }

    fn droppable(&mut self, floors: &[Instance]) -> Option<DroppableSegments> {
        let droppable = self.life.writer.droppable(floors)?;
        self.world.oracle.on_droppable(self.node, (self.worker, self.life.workers.len()), droppable);
        Some(droppable)
    }

    fn drop_segments(&mut self, below: SegmentSequence) {
        let us = self.world.random.below(5_000);
        self.world.after(us, Event::Drop { node: self.node, life: self.life.number, below });
    }

    fn read_range(&mut self, range: ReadRange) -> bool {
        let us = self.world.random.between(50, 1_000);
        self.world.after(us, Event::Read { node: self.node, life: self.life.number, worker: self.worker, range });
        true
    }

    fn checkpoint(&mut self, task: CheckpointTask) {
        self.world.begin_checkpoint_task(self.node, self.worker, self.life, task);
    }

    fn transfer(&mut self, task: TransferTask) {
        self.world.begin_transfer_task(self.node, self.worker, self.life, task);
    }

    fn tell(&mut self, worker: WorkerId, message: WorkerMessage) {
        let pair = (self.worker, worker.index());
        self.world.send_letter(self.node, self.life, pair, Letter::Message(message));
    }

    fn hand_over(&mut self, connection: ConnectionId, worker: WorkerId) {
        let Some(handle) = self.life.handles.get_mut(&connection) else { return };
        (handle.worker, handle.moves) = (worker.index(), true);
        let pair = (self.worker, worker.index());
        self.world.send_letter(self.node, self.life, pair, Letter::Connection(connection));
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
