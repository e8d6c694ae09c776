//! A node's process: its data directory, its clocks, and, while it runs, the shipped node and log without their
//! threads.

use crate::random::Random;
use groups::{Group, GroupId, Instance, Ms, NodeId, Us};
use net::event::ConnectionId;
use paxoi::backup;
use paxoi::config::{CheckpointConfig, NodeConfig, ReadMode};
use paxoi::identity;
use paxoi::kv::Store;
use paxoi::node::{Node, Time, WorkerMessage};
use paxoi::recovery::{self, RebuildInput, RebuildResult, RecoveryProgress};
use paxoi::shard::{Replica, Shard};
use paxoi::storage::checkpoint::{
    CheckpointResult, CheckpointTask, CheckpointWorker, Packing, TransferResult, TransferTask, TransferWorker,
};
use paxoi::storage::disk::{Disk, MemoryDisk};
use paxoi::storage::scrub::Findings;
use paxoi::storage::wal::{
    self, Batch, BatchQueue, ChosenReader, ChosenValue, LogOptions, Logged, Lsn, ReadRange, SegmentSequence,
    SharedFrame, Visit, Writer,
};
use paxoi::versions::Versions;
use paxoi::workers::{WorkerId, Workers};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

/// The parameters that all nodes of a run share.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) nodes: usize,
    /// Number of additional nodes that can join.
    pub(crate) spares: usize,
    pub(crate) groups: u32,
    pub(crate) reads: ReadMode,
    /// The workers of each node.
    pub(crate) workers: u32,
    /// Every node with an even id uses `ReadMode::Quorum` instead, and its groups follow nobody.
    pub(crate) mixed: bool,
    /// See `NodeConfig::demand_min`.
    pub(crate) demand_min: Option<u64>,
    pub(crate) client_timeout_ms: Ms,
    pub(crate) session_ttl_ms: Ms,
    pub(crate) checkpoints: CheckpointConfig,
    /// Maximum delay of each step of loading; 0: no delay.
    pub(crate) loading_us_max: u64,
    /// Steps of each kind of work in a turn. With few steps, most values are applied over several turns.
    pub(crate) turn_steps: u64,
    /// Nodes are told a changing load of their event loops, so that they throttle deferrable work.
    pub(crate) is_busy: bool,
    /// Bytes of a fragment. Messages of groups that are more than twice as long travel in fragments.
    pub(crate) fragment_bytes: usize,
    /// Bytes of one part of a large command.
    pub(crate) part_bytes: usize,
}

/// The port of the first node.
pub(crate) const PORT: usize = 7_001;
/// The largest value in a run.
pub(crate) const VALUE_BYTES_MAX: usize = 1 << 20;

/// Share of the restarts of an old program that upgrade it, in thousandths.
const UPGRADED: u64 = 400;

/// The clocks of a process, relative to the world's time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clocks {
    /// Offset of the monotonic clock from the world's time.
    pub(crate) mono_us: Us,
    /// Drift of the monotonic clock, in millionths; positive: fast.
    pub(crate) drift: i64,
    /// Error of the wall clock.
    pub(crate) unix_us: i64,
}

/// Unix time at which the world begins.
pub(crate) const EPOCH_US: i64 = 1_700_000_000_000_000;

impl Clocks {
    pub(crate) fn at(self, now_us: u64) -> Time {
        let drifted = now_us as i64 + now_us as i64 / 1_000 * self.drift / 1_000;
        let unix_us = EPOCH_US + now_us as i64 + self.unix_us;
        Time { mono_us: self.mono_us + Us(drifted.max(0) as u64), unix_us: Us(unix_us.max(0) as u64) }
    }
}

/// An input that waits for a process's next turn.
#[derive(Debug)]
pub(crate) enum Input {
    Opened(ConnectionId),
    Connected(ConnectionId),
    Bytes(ConnectionId),
    Eof(ConnectionId),
    Closed(ConnectionId),
    Drained(ConnectionId),
    Durable {
        lsn: Lsn,
        frame: Lsn,
        sync_us: Us,
    },
    /// A connection that another worker has handed over.
    Adopted(ConnectionId),
    Told(WorkerId, WorkerMessage),
    Range {
        range: ReadRange,
        values: Vec<ChosenValue>,
    },
    Checkpoint(CheckpointResult),
    TransferResult(TransferResult),
    Scrubbed(Findings),
}

impl Input {
    /// Returns the connection to which something has happened.
    pub(crate) fn handle(&self) -> Option<ConnectionId> {
        match self {
            Input::Opened(handle)
            | Input::Adopted(handle)
            | Input::Connected(handle)
            | Input::Bytes(handle)
            | Input::Eof(handle)
            | Input::Closed(handle)
            | Input::Drained(handle) => Some(*handle),
            _ => None,
        }
    }
}

/// A running process.
pub(crate) struct RunningProcess {
    pub(crate) number: u64,
    pub(crate) workers: Vec<RunningWorker>,
    /// Loaded data that the workers have not received yet.
    loading: Option<Loading>,
    pub(crate) writer: Writer,
    pub(crate) reader: ChosenReader,
    /// The log was idle since its last batch, and has written a durability marker.
    pub(crate) marked: bool,
    /// The batches that wait for the disk, and the way into their queue.
    pub(crate) batches: BatchQueue,
    pub(crate) batch_sender: SyncSender<(WorkerId, Batch)>,
    /// The frame that the disk is writing.
    pub(crate) syncing: Option<SharedFrame>,
    /// The time at which that frame was given to the disk.
    pub(crate) synced_us: u64,
    pub(crate) stopped: bool,
    /// Number of effects after which the process ends.
    pub(crate) effects_left: Option<u64>,
    /// Connections, by the number that the workers use.
    pub(crate) handles: BTreeMap<ConnectionId, Handle>,
    /// By receiver and sender: letters between workers on their way, and the time at which the last of them arrives.
    pub(crate) letters: Vec<Vec<(VecDeque<Letter>, u64)>>,
    /// Connections with unsent bytes, for which an event is scheduled.
    pub(crate) draining: BTreeSet<ConnectionId>,
    /// Connections whose other side will send no more.
    pub(crate) ended: BTreeSet<ConnectionId>,
    /// What has happened to connections on their way from one worker to another.
    pub(crate) late: BTreeMap<ConnectionId, Vec<Input>>,
    free: Vec<u32>,
    generation: u32,
}

/// One worker of a running process.
pub(crate) struct RunningWorker {
    pub(crate) node: Node,
    pub(crate) inbox: Vec<Input>,
    /// Time of the next turn, if one is due.
    pub(crate) turn_us: Option<u64>,
    pub(crate) ticked_ms: Ms,
    /// Monotonic time at which the last turn ended.
    turned_us: Us,
    /// The checkpoint worker and the transfer worker, each with its queue of tasks.
    pub(crate) checkpoint_worker: CheckpointWorker,
    pub(crate) checkpoint_tasks: VecDeque<CheckpointTask>,
    pub(crate) transfer_worker: TransferWorker,
    pub(crate) transfer_tasks: VecDeque<TransferTask>,
}

/// A connection of a process: the number that the network uses, the process's side, and the worker that has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Handle {
    pub(crate) connection: u64,
    pub(crate) side: usize,
    pub(crate) worker: usize,
    /// The connection is on its way to that worker.
    pub(crate) moves: bool,
}

/// Something on its way from one worker to another.
#[derive(Debug)]
pub(crate) enum Letter {
    Message(WorkerMessage),
    Connection(ConnectionId),
}

/// An observer of the records that go from the log to the groups.
struct Seen<'a> {
    visit: &'a mut dyn FnMut(Lsn, &wal::Record),
    take: &'a mut dyn Visit,
}

impl Visit for Seen<'_> {
    fn record(&mut self, lsn: Lsn, record: Logged<'_>) {
        (self.visit)(lsn, &record.record());
        self.take.record(lsn, record);
    }

    fn frame(&mut self, sequence: SegmentSequence, frame: Range<u64>) {
        self.take.frame(sequence, frame);
    }
}

/// The content of a directory on its way to the node: the log, then the groups one by one, or everything at once.
struct Loading {
    rebuilt: RebuildResult,
    /// Groups that reach the node together. The last part comes first.
    parts: Vec<Vec<(GroupId, Replica)>>,
    /// The last durable log sequence number; `None` once the node knows it.
    lsn: Option<Lsn>,
    /// Time at which the next part comes.
    due_us: u64,
    /// Maximum time between two parts; 0: all come at once.
    gap_us: u64,
    random: Random,
}

/// The reason why a process is not expected to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The directory was emptied, or is an old copy. The other nodes must refuse the process.
    Foreign,
    /// The directory was damaged. The process may notice, or the damage hit nothing that matters.
    Damaged,
}

/// What a start has found.
pub(crate) struct Started {
    /// Number of recovering groups.
    pub(crate) recovering: usize,
    /// The last instance of each checkpoint in use.
    pub(crate) kept: Vec<(GroupId, Instance)>,
}

pub(crate) struct Process {
    pub(crate) id: NodeId,
    pub(crate) disk: MemoryDisk,
    pub(crate) clocks: Clocks,
    pub(crate) life: Option<RunningProcess>,
    pub(crate) starts: u64,
    /// The versions of its program. A newer program may be started in its place.
    pub(crate) versions: Versions,
    pub(crate) lost: Option<Lost>,
    /// A checkpoint was damaged. The process may have to learn its own past from the others.
    pub(crate) rotten: bool,
    /// The reason, if the process said that it can never serve.
    pub(crate) gone: Option<String>,
    /// The start number of the process that runs, or ran last.
    pub(crate) start: u64,
    /// Mean duration of a sync.
    pub(crate) sync_us: u64,
    pub(crate) slow_until_us: u64,
}

impl Process {
    pub(crate) fn new(index: usize, clocks: Clocks, sync_us: u64) -> Process {
        Process {
            id: NodeId(index as u32 + 1),
            disk: MemoryDisk::new(),
            clocks,
            life: None,
            starts: 0,
            versions: Versions::OURS,
            lost: None,
            rotten: false,
            gone: None,
            start: 0,
            sync_us,
            slow_until_us: 0,
        }
    }

    /// Opens the directory and starts a node on it, as the server does. `visit` sees the records of the log.
    ///
    /// # Errors
    /// The error that the server would print before it ends.
    pub(crate) fn start(
        &mut self,
        shape: &Shape,
        now_us: u64,
        random: &mut Random,
        visit: &mut dyn FnMut(Lsn, &wal::Record),
    ) -> Result<Started, String> {
        self.starts += 1;
        let time = self.clocks.at(now_us);
        let entropy = random.bytes();
        if self.starts > 1 && self.versions != Versions::OURS && random.chance(UPGRADED) {
            self.versions = Versions::OURS;
        }
        let config = NodeConfig { versions: self.versions, ..config(self.id, shape, random) };
        let life = config.seed;
        let backup = self.back_up(time);
        let identity =
            identity::open_or_create(&self.disk, self.id, life, || entropy).map_err(|error| error.to_string())?;
        let storage = identity.storage_id;
        self.start = identity.start;
        let count = config.workers.count();
        let worker = |me: u32| {
            let workers = Workers::new(WorkerId(me), count);
            Node::new(NodeConfig { workers, seed: config.seed + u64::from(me), ..config.clone() }, identity.clone())
        };
        let mut nodes: Vec<Node> = (0..count).map(worker).collect();
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let (first, others) = nodes.split_first_mut().expect("there is a worker");
        let mut empty = first.begin_rebuild();
        others.iter_mut().for_each(|node| empty.add(node.begin_rebuild()));
        recovery::tidy(&*disk).map_err(|error| error.to_string())?;
        let checkpoint_set = empty.checkpoint_set(&*disk).map_err(|error| error.to_string())?;
        let (progress, secret) = (RecoveryProgress::default(), random.next());
        let input = RebuildInput { disk: &*disk, clock: time.clock(), workers: 1, progress: &progress };
        let rebuild = empty.rebuild_all(&input, checkpoint_set, |take| {
            wal::recover(&disk, storage, secret, options(), &mut |_, _| {}, &mut Seen { visit, take })
        });
        let rebuilt = rebuild.map_err(|error| error.to_string())?;
        let (recovered, rebuilt) = rebuilt.map_err(|refused| refused.to_string())?;
        let (writer, _) = recovered.map_err(|error| error.to_string())?;
        if let Some(backup) = backup {
            compare(&backup, &rebuilt.shard)?;
        }
        let recovering = rebuilt.shard.groups().filter(|group| group.is_recovering()).count();
        let kept = rebuilt.restored.kept.iter().map(|(group, instance, _)| (*group, *instance)).collect();
        let lsn = writer.next_lsn().preceding();
        let loading = Loading::new(rebuilt, lsn, now_us, shape.loading_us_max, Random::new(life));
        let mut life = RunningProcess::new(self.starts, nodes, loading, writer, &disk, time);
        if shape.loading_us_max == 0 {
            life.load(now_us, time);
        }
        self.life = Some(life);
        Ok(Started { recovering, kept })
    }

    pub(crate) fn runs(&self) -> bool {
        self.life.as_ref().is_some_and(|life| !life.stopped)
    }

    pub(crate) fn is_born(&self) -> bool {
        self.life.as_ref().is_some_and(RunningProcess::is_born)
    }

    /// Returns, at some starts, the groups that a backup finds in the directory. The start that follows must find the
    /// same.
    fn back_up(&self, time: Time) -> Option<Result<Shard, String>> {
        if !self.starts.is_multiple_of(BACKED_UP) {
            return None;
        }
        let identity = identity::read(&self.disk).ok()??;
        identity.birth.as_ref()?;
        Some(backup::recover(&self.disk, &identity, time, WORKERS).map_err(|error| format!("{error:#}")))
    }
}

/// Interval, in starts, of these backups.
const BACKED_UP: u64 = 2;
/// Recovery workers of a backup. Its result is compared with that of the start, which uses only one.
const WORKERS: usize = 2;

impl Loading {
    fn new(mut rebuilt: RebuildResult, lsn: Lsn, now_us: u64, us_max: u64, mut random: Random) -> Loading {
        let mut parts: Vec<_> = rebuilt.shard.take_all().into_iter().map(|replica| vec![replica]).collect();
        let (mut due_us, mut gap_us) = (now_us, 0);
        if us_max > 0 {
            due_us += random.below(us_max);
            gap_us = if random.chance(PIECEMEAL) { 1 + random.below(us_max) } else { 0 };
            random.shuffle(&mut parts);
        } else {
            parts = vec![parts.into_iter().flatten().collect()];
        }
        if parts.is_empty() {
            // There are no groups before the birth.
            parts.push(Vec::new());
        }
        Loading { rebuilt, parts, lsn: Some(lsn), due_us, gap_us, random }
    }
}

/// If loading takes time: the share of starts that bring the groups one by one, in thousandths.
const PIECEMEAL: u64 = 700;

fn compare(backup: &Result<Shard, String>, started: &Shard) -> Result<(), String> {
    let backup = match backup {
        Ok(backup) => backup,
        Err(_) if started.groups().any(groups::Group::is_recovering) => return Ok(()),
        Err(reason) => return Err(format!("a backup fails on a sound directory: {reason}")),
    };
    let states = |shard: &Shard| -> Vec<_> {
        let state = |(group, store): (&groups::Group, &Store)| (group.snapshot(), group.promised(), store.digest());
        shard.groups().zip(shard.stores()).map(state).collect()
    };
    if states(backup) == states(started) { Ok(()) } else { Err("a backup differs from the start after it".to_owned()) }
}

impl RunningProcess {
    /// Returns a process with these workers, to which nothing has happened.
    fn new(
        number: u64,
        nodes: Vec<Node>,
        loading: Loading,
        writer: Writer,
        disk: &Arc<dyn Disk>,
        time: Time,
    ) -> RunningProcess {
        let count = nodes.len() as u32;
        let worker = |(me, node)| RunningWorker {
            node,
            inbox: Vec::new(),
            turn_us: None,
            ticked_ms: Ms(0),
            turned_us: time.mono_us,
            checkpoint_worker: CheckpointWorker::new(disk.clone(), Packing::Lz4),
            checkpoint_tasks: VecDeque::new(),
            transfer_worker: TransferWorker::new(disk.clone(), Workers::new(WorkerId(me), count)),
            transfer_tasks: VecDeque::new(),
        };
        let (batch_sender, batches) = sync_channel(count as usize);
        let none = || (0..count).map(|_| (VecDeque::new(), 0)).collect();
        RunningProcess {
            number,
            reader: writer.reader(),
            workers: (0..count).zip(nodes).map(worker).collect(),
            loading: Some(loading),
            writer,
            marked: false,
            batches: BatchQueue::new(batches),
            batch_sender,
            syncing: None,
            synced_us: 0,
            stopped: false,
            effects_left: None,
            handles: BTreeMap::new(),
            letters: (0..count).map(|_| none()).collect(),
            draining: BTreeSet::new(),
            ended: BTreeSet::new(),
            late: BTreeMap::new(),
            free: Vec::new(),
            generation: 0,
        }
    }

    /// Returns a number for a new connection: a small position, and above it a count that never repeats.
    pub(crate) fn handle(&mut self) -> ConnectionId {
        let position = self.free.pop().unwrap_or(self.handles.len() as u32);
        self.generation += 1;
        ConnectionId(u64::from(self.generation) << 32 | u64::from(position))
    }

    /// Tells a worker the duration of a turn: a part of the time since the last turn. The part changes every second.
    pub(crate) fn tell_load(&mut self, worker: usize, time: Time) {
        let running = &mut self.workers[worker];
        let passed_us = time.mono_us.saturating_sub(std::mem::replace(&mut running.turned_us, time.mono_us));
        let per_mille = Random::new((self.number << 32) | (time.mono_us.0 / 1_000_000)).below(1_001);
        running.node.turn_took(passed_us * per_mille / 1_000, time);
    }

    /// Gives the workers the data that is loaded by now.
    pub(crate) fn load(&mut self, now_us: u64, time: Time) {
        let count = self.workers.len() as u32;
        while let Some(mut loading) = self.loading.take_if(|loading| loading.due_us <= now_us) {
            let nodes = self.workers.iter_mut().map(|worker| &mut worker.node);
            if let Some(lsn) = loading.lsn.take() {
                let peers = std::mem::take(&mut loading.rebuilt.peers);
                nodes.for_each(|node| node.log_read(&peers, &loading.rebuilt.catalog, lsn));
            } else if let Some(replicas) = loading.parts.pop() {
                nodes.zip(recovery::divide(replicas, count)).for_each(|(node, own)| node.groups_rebuilt(own, time));
            } else {
                return nodes.for_each(|node| node.all_rebuilt(&loading.rebuilt.restored, time));
            }
            loading.due_us = now_us + loading.random.below(loading.gap_us.max(1));
            self.loading = Some(loading);
        }
    }

    /// Delays the next turn and the next step of loading, because the machine sleeps.
    pub(crate) fn put_off(&mut self, us: u64) {
        self.workers.iter_mut().for_each(|worker| worker.turn_us = worker.turn_us.map(|at_us| at_us + us));
        self.letters.iter_mut().flatten().for_each(|(_, at_us)| *at_us += us);
        if let Some(loading) = &mut self.loading {
            loading.due_us += us;
        }
    }

    pub(crate) fn forget(&mut self, handle: ConnectionId) {
        if self.handles.remove(&handle).is_some() {
            self.draining.remove(&handle);
            self.ended.remove(&handle);
            self.free.push(handle.index() as u32);
        }
    }

    /// Returns the network's number of a connection, and the process's side.
    pub(crate) fn place(&self, handle: ConnectionId) -> Option<(u64, usize)> {
        self.handles.get(&handle).map(|found| (found.connection, found.side))
    }

    /// Returns the worker that has a connection.
    pub(crate) fn worker_of(&self, handle: ConnectionId) -> Option<usize> {
        self.handles.get(&handle).map(|found| found.worker)
    }

    /// Returns the worker that acts for the whole node.
    pub(crate) fn first(&self) -> &Node {
        &self.workers[0].node
    }

    /// Returns the groups of all workers with their stores, by id.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &Group> {
        let mut all: Vec<&Group> = self.workers.iter().flat_map(|worker| worker.node.shard().groups()).collect();
        all.sort_by_key(|group| group.id());
        all.into_iter()
    }

    /// Returns the worker of a group.
    pub(crate) fn of_group(&self, group: GroupId) -> &Node {
        &self.workers[group.index() % self.workers.len()].node
    }

    pub(crate) fn is_born(&self) -> bool {
        self.workers.iter().all(|worker| worker.node.is_born())
    }

    /// Returns the number of groups without a leader known here.
    pub(crate) fn leaderless(&self) -> usize {
        self.workers.iter().map(|worker| worker.node.leaderless()).sum()
    }
}

/// Returns options with small segments, so that a run begins many segments.
pub(crate) fn options() -> LogOptions {
    LogOptions::with_segment_bytes(wal::SEGMENT_BYTES_MIN)
}

fn config(id: NodeId, shape: &Shape, random: &mut Random) -> NodeConfig {
    let address = |index: usize| SocketAddr::from((Ipv4Addr::LOCALHOST, (PORT + index) as u16));
    let me = id.0 as usize - 1;
    let place = |index: usize| (NodeId(index as u32 + 1), address(index).to_string());
    let all = || 0..shape.nodes + shape.spares;
    let (initial, join) = if me < shape.nodes {
        ((0..shape.nodes).map(place).collect(), Vec::new())
    } else {
        (vec![place(me)], all().filter(|other| *other != me).map(|other| place(other).1).collect())
    };
    NodeConfig {
        id,
        workers: Workers::new(WorkerId::FIRST, shape.workers),
        initial,
        announced: None,
        join,
        groups: shape.groups,
        reads: if shape.mixed && id.0.is_multiple_of(2) { ReadMode::Quorum } else { shape.reads },
        demand_min: if shape.mixed && id.0.is_multiple_of(2) { None } else { shape.demand_min },
        client_timeout_ms: shape.client_timeout_ms,
        idle_ms_max: Ms(0),
        session_ttl_ms: shape.session_ttl_ms,
        max_clients: 100,
        memory_bytes_max: 0,
        versions: Versions::OURS,
        fragment_bytes: shape.fragment_bytes,
        part_bytes: shape.part_bytes,
        value_bytes_max: VALUE_BYTES_MAX,
        checkpoints: shape.checkpoints,
        turn_steps: shape.turn_steps,
        dir: String::new(),
        config_file: String::new(),
        listen: address(id.0 as usize - 1),
        cluster_id: random.bytes(),
        hash_key: random.bytes(),
        seed: random.next(),
    }
}
