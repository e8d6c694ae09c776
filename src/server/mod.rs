//! The shell of a node: it moves bytes between sockets, the log's threads and the node, and reads the clocks. All
//! decisions are made in [`crate::node`].
//!
//! ```text
//! starting   from a directory to a node that serves          front     sockets and node
//! loading    the thread that reads the directory
//! threads    the other threads, and their messages           process   facts about the process, and the clocks
//! team       the event loops side by side
//! ```

mod front;
mod loading;
mod process;
mod starting;
mod team;
mod threads;

pub use process::random;
pub use starting::StartingServer;

use crate::descriptors;
use crate::endpoint::Endpoint;
use crate::identity::{self, Identity};
use crate::node::output::{self, Dialled};
use crate::node::{Close, Completion, Driver, Node, ProcessFacts, Space, Time, WorkerMessage};
use crate::recovery::RecoveryProgress;
use crate::resolver::{Lookup, Resolver};
use crate::storage::checkpoint::{CheckpointTask, TransferTask, WorkerThread};
use crate::storage::disk::Disk;
use crate::storage::wal::{
    Batch, DroppableSegments, LogHandle, LogOptions, LogReader, ReadRange, SegmentSequence, Synced,
};
use crate::workers::WorkerId;
use anyhow::{Context, anyhow};
use bytes::Bytes;
use front::Front;
use groups::{Instance, Ms, NodeId, TICK_MS, Us};
use loading::tell_progress;
use net::event::{ConnectionId, Event};
use process::{WallClock, process_facts};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;
use team::{Letter, Team};
use threads::{Notice, Notifier};

/// Interval between look-ups of facts about the process, in milliseconds.
const FACTS_MS: Ms = Ms(1_000);
/// Maximum sleep of the loop while [`Node::has_work_soon`]: blocks of checkpoints, proposals or replies wait.
const SHORT_PATIENCE: Duration = Duration::from_millis(1);

/// A node with its sockets and its log.
pub struct Server {
    front: Front,
    disk: Arc<dyn Disk>,
    options: LogOptions,
    log: LogHandle,
    reader: LogReader,
    checkpoint_worker: WorkerThread<CheckpointTask>,
    transfer_worker: WorkerThread<TransferTask>,
    /// At the first worker: keeps the scrub going. Dropping this ends it.
    _scrub: Option<Sender<()>>,
    resolver: Resolver,
    notices: Receiver<Notice>,
    notifier: Notifier,
    /// This worker, and the mailboxes of all.
    worker: WorkerId,
    team: Arc<Team>,
    /// At the first worker, before it runs: the other workers.
    others: Vec<Server>,
    clock: WallClock,
    stopping: Arc<AtomicBool>,
    progress: Arc<RecoveryProgress>,
    ticked_ms: Ms,
    facts_ms: Ms,
    max_clients: u64,
    /// Number of segments, and free bytes of the disk, at the last look-up.
    segments: u64,
    free: u64,
}

impl Server {
    /// Returns the address that the server listens on.
    ///
    /// # Errors
    /// The errors of the socket.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.front.events.local_addr()
    }

    /// Serves until told to stop.
    ///
    /// # Errors
    /// The reason why the node cannot go on.
    pub fn run(mut self) -> anyhow::Result<()> {
        let threads = std::mem::take(&mut self.others).into_iter().map(|other| {
            let (name, first) = (format!("paxoi-{}", other.worker), self.notifier.clone());
            Builder::new().name(name).spawn(move || {
                let fatal = |error| first.tell(Notice::Fatal(format!("{error:#}")));
                other.serve().unwrap_or_else(fatal);
            })
        });
        let threads: Vec<JoinHandle<()>> = threads.collect::<Result<_, _>>().context("cannot start a thread")?;
        let (team, stopping) = (self.team.clone(), self.stopping.clone());
        let ended = self.serve();
        stopping.store(true, Ordering::Relaxed);
        team.wake_all();
        for thread in threads {
            // A panic ends the process, or was reported where it happened.
            let _ = thread.join();
        }
        ended
    }

    /// Serves with one worker until told to stop.
    fn serve(mut self) -> anyhow::Result<()> {
        let mut happened = Vec::new();
        let mut ended = Ok(());
        while ended.is_ok() && !self.stopping.load(Ordering::Relaxed) {
            ended = self.turn(&mut happened);
        }
        // The end of the process frees the memory of all keys. Freeing it key by key would take seconds.
        self.front.forget_node();
        ended
    }

    /// Runs one turn: polls the sockets, passes events and notices to the node, ticks, carries out the node's outputs,
    /// and flushes the sockets.
    fn turn(&mut self, happened: &mut Vec<Event>) -> anyhow::Result<()> {
        let patience = self.patience();
        let sleeps = patience > Duration::ZERO && self.team.may_sleep(self.worker);
        let patience = if sleeps { patience } else { Duration::ZERO };
        self.front.events.poll(Some(patience), happened).context("the system's poller failed")?;
        self.team.on_awake(self.worker);
        let time = self.clock.now();
        for event in happened.drain(..) {
            self.front.on_event(event, time);
        }
        while let Ok(notice) = self.notices.try_recv() {
            self.on_notice(notice)?;
        }
        for letter in self.team.take(self.worker) {
            self.on_letter(letter, time);
        }
        self.tick(time)?;
        self.look_at_log();
        self.front.node.end_turn(time);
        output::carry_out(self, time)?;
        self.front.events.flush();
        let now = self.clock.now();
        self.front.node.turn_took(now.mono_us.saturating_sub(time.mono_us), now);
        Ok(())
    }

    /// Returns how long the loop may sleep.
    fn patience(&self) -> Duration {
        if self.front.node.has_work() {
            return Duration::ZERO;
        }
        if self.front.node.has_work_soon() {
            return SHORT_PATIENCE;
        }
        let now_ms = self.clock.now().mono_us.to_ms();
        Duration::from_millis((self.ticked_ms + TICK_MS).saturating_sub(now_ms).0)
    }

    /// Tells the node how much space the log has, so that the node takes on no value that does not fit.
    fn look_at_log(&mut self) {
        self.front.node.set_space(Space::of(self.log.status(), &self.options, self.free));
    }

    fn on_notice(&mut self, notice: Notice) -> anyhow::Result<()> {
        match notice {
            Notice::Durable(Synced { lsn, frame, took }) => {
                if self.log.status().segments() != self.segments {
                    self.segments = self.log.status().segments();
                    self.free = self.disk.free_bytes().unwrap_or(self.free);
                }
                self.notify(Completion::Durable { lsn, frame, sync_us: Us(took.as_micros() as u64) });
            }
            Notice::Range { range, values } => self.notify(Completion::Read(range, values)),
            Notice::Checkpoint(result) => self.notify(Completion::Checkpoint(result)),
            Notice::Scrubbed(findings) => self.notify(Completion::Scrubbed(findings)),
            Notice::Transfer(result) => self.notify(Completion::Transfer(result)),
            Notice::Resolved { name, addresses } => {
                if let Some(address) = addresses.first() {
                    self.notify(Completion::Resolved(name.clone(), address.ip()));
                }
                self.resolver.on_answer(&name, addresses);
            }
            Notice::Groups(replicas) => self.front.node.groups_rebuilt(replicas, self.clock.now()),
            Notice::Loaded(restored) => self.front.node.all_rebuilt(&restored, self.clock.now()),
            Notice::Fatal(reason) => return Err(anyhow!(reason)),
        }
        Ok(())
    }

    fn on_letter(&mut self, letter: Letter, time: Time) {
        match letter {
            Letter::Message(from, message) => self.front.node.on_completion(Completion::Told(from, message), time),
            Letter::Connection(detached) => {
                // A connection that has ended already is dropped here.
                let Ok(addr) = detached.peer_addr() else { return };
                match self.front.events.adopt(detached) {
                    Ok(id) => self.front.node.opened(id, addr, time),
                    Err(error) => tracing::warn!("cannot take the connection of {addr}: {error}"),
                }
            }
        }
    }

    fn notify(&mut self, completion: Completion) {
        let now = self.clock.now();
        self.front.node.on_completion(completion, now);
    }

    fn tick(&mut self, time: Time) -> anyhow::Result<()> {
        let now_ms = time.mono_us.to_ms();
        if now_ms < self.ticked_ms + TICK_MS {
            return Ok(());
        }
        self.ticked_ms = now_ms;
        if now_ms >= self.facts_ms + FACTS_MS {
            self.facts_ms = now_ms;
            let status = self.log.status();
            self.free = self.disk.free_bytes().unwrap_or(self.free);
            let (disk_full, log_bytes, log_segments) = (status.full(), status.bytes(), status.segments());
            if self.front.node.max_clients() != self.max_clients {
                self.max_clients = self.front.node.max_clients();
                let fit = descriptors::raise_limit(self.max_clients)?;
                self.front.set_clients_max(fit);
            }
            let loading_bytes = self.progress.bytes();
            let facts = ProcessFacts {
                disk_full,
                log_bytes,
                log_segments,
                loading_bytes,
                system_calls: self.front.events.system_calls(),
                ..process_facts()
            };
            self.front.node.set_facts(facts);
            if self.front.node.is_loading() && self.worker == WorkerId::FIRST {
                tell_progress(&self.progress);
            }
        }
        self.front.node.tick(time);
        self.front.end_lingering(time);
        Ok(())
    }
}

impl Driver for Server {
    type Error = anyhow::Error;

    fn node(&mut self) -> &mut Node {
        &mut self.front.node
    }

    fn give_replies(&mut self) -> anyhow::Result<()> {
        self.front.give_replies();
        Ok(())
    }

    fn send(&mut self, connection: ConnectionId, piece: Bytes) {
        self.front.send(connection, piece);
    }

    fn flush(&mut self) {
        self.front.events.flush();
    }

    fn unsent(&mut self, connection: ConnectionId) -> usize {
        self.front.unsent(connection)
    }

    fn close(&mut self, connection: ConnectionId, how: Close, time: Time) {
        self.front.close(connection, how, time);
    }

    fn pause(&mut self, connection: ConnectionId) {
        self.front.pause(connection);
    }

    fn resume(&mut self, connection: ConnectionId) {
        self.front.resume(connection);
    }

    fn dial(&mut self, address: &str) -> Dialled {
        match self.resolver.look_up(address) {
            Lookup::Known(address) => match self.front.events.dial(address) {
                Ok(connection) => Dialled::Begun(connection),
                Err(_) => Dialled::Failed,
            },
            Lookup::Unknown => Dialled::Failed,
            Lookup::Asked => Dialled::Later,
        }
    }

    fn look_up(&mut self, address: &str) {
        self.resolver.ask(address);
    }

    fn append(&mut self, batch: Batch) {
        self.log.append(batch);
    }

    fn droppable(&mut self, floors: &[Instance]) -> Option<DroppableSegments> {
        self.log.droppable(floors)
    }

    fn drop_segments(&mut self, below: SegmentSequence) {
        self.log.drop_below(below);
    }

    fn read_range(&mut self, range: ReadRange) -> bool {
        self.reader.request(range)
    }

    fn checkpoint(&mut self, task: CheckpointTask) {
        self.checkpoint_worker.give(task);
    }

    fn transfer(&mut self, task: TransferTask) {
        self.transfer_worker.give(task);
    }

    fn tell(&mut self, worker: WorkerId, message: WorkerMessage) {
        self.team.send(worker, Letter::Message(self.worker, message));
    }

    fn hand_over(&mut self, connection: ConnectionId, worker: WorkerId) {
        match self.front.events.detach(connection) {
            Some(detached) => self.team.send(worker, Letter::Connection(detached)),
            None => self.front.events.close(connection),
        }
    }

    fn store(&mut self, identity: &Identity) -> anyhow::Result<()> {
        Ok(identity::save(&*self.disk, identity)?)
    }

    fn stop(&mut self, reason: String) -> anyhow::Error {
        anyhow!(reason)
    }
}

/// Parses `1=127.0.0.1:7001,2=…` into ids and addresses.
///
/// # Errors
/// One line about the first part that is not `ID=HOST:PORT`, or about an id or address that is listed twice.
pub fn parse_members(list: &str) -> Result<Vec<(NodeId, String)>, String> {
    let mut members: Vec<(NodeId, String)> = Vec::new();
    for part in list.split(',') {
        let wrong = || format!("'{part}' is not ID=HOST:PORT with an ID from 1 on");
        let (id, address) = part.trim().split_once('=').ok_or_else(wrong)?;
        let id = id.parse().ok().filter(|id| *id > 0).map(NodeId).ok_or_else(wrong)?;
        Endpoint::parse(address).ok_or_else(wrong)?;
        if members.iter().any(|(known, _)| *known == id) {
            return Err(format!("node {id} is listed twice"));
        }
        if members.iter().any(|(_, known)| known == address) {
            return Err(format!("the address {address} is listed twice"));
        }
        members.push((id, address.to_owned()));
    }
    Ok(members)
}
