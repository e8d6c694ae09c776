//! The start of a node, from its data directory to a node that serves. The node listens from the first moment on. It
//! tells clients that it loads, and its progress. Other members wait. When the log has been read, the [`Server`] takes
//! over and receives the rebuilt groups.

use super::front::Front;
use super::loading::{Loading, Opened, tell_progress};
use super::process::{WallClock, process_facts, random};
use super::team::Team;
use super::threads::{Notice, Notifier, hooks, start_reader, start_resolver, start_scrub, start_workers};
use super::{FACTS_MS, Server};
use crate::config::{CLIENT_BURST_BYTES, CLIENT_OUTPUT_BYTES, NODE_QUEUE_BYTES, NodeConfig};
use crate::descriptors::{self, SPARE_CONNECTIONS};
use crate::identity::{self, Identity};
use crate::node::output::{self, Dialled};
use crate::node::{Close, Driver, Node, ProcessFacts, Time, WorkerMessage};
use crate::recovery::RecoveryProgress;
use crate::storage::checkpoint::{CheckpointTask, TransferTask};
use crate::storage::disk::{Disk, FileDisk};
use crate::storage::wal::{Batch, DroppableSegments, LogHandle, LogOptions, ReadRange, SegmentSequence};
use crate::workers::{WorkerId, Workers};
use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use groups::{Instance, Ms, TICK_MS};
use mio::Waker;
use net::event::{ConnectionId, Event};
use net::event_loop::{EventLoop, LoopLimits};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread::{Builder, sleep};
use std::time::{Duration, Instant};

/// Maximum wait for a directory or an address that an ending process still uses.
const IN_USE_MAX: Duration = Duration::from_secs(1);
/// Interval between attempts to lock the directory or to listen on the address.
const IN_USE_PAUSE: Duration = Duration::from_millis(20);

/// A node that listens, and has not loaded its data directory yet.
pub struct StartingServer {
    front: Front,
    /// The other workers, which do nothing before the log is read.
    others: Vec<Front>,
    disk: Arc<dyn Disk>,
    options: LogOptions,
    /// The storage id, to which the log's segments belong.
    storage: [u8; 16],
    dir: String,
    scrub_every: Duration,
    max_clients: u64,
    clock: WallClock,
    stopping: Arc<AtomicBool>,
    progress: Arc<RecoveryProgress>,
    ticked_ms: Ms,
    facts_ms: Ms,
}

impl StartingServer {
    /// Opens the data directory and listens. `options` are the options for writing the log from now on. `stopping` ends
    /// [`StartingServer::load`] and [`Server::run`].
    ///
    /// # Errors
    /// One line that names the directory, file or address, and what to do.
    pub fn open(
        config: NodeConfig,
        options: LogOptions,
        listen: SocketAddr,
        stopping: Arc<AtomicBool>,
    ) -> anyhow::Result<StartingServer> {
        let clock = WallClock::start();
        let disk: Arc<dyn Disk> = Arc::new(
            FileDisk::create(&config.dir).with_context(|| format!("cannot use the data directory {}", config.dir))?,
        );
        // The lock is held until the process ends.
        let lock = once_free(|| disk.lock(), io::ErrorKind::WouldBlock);
        std::mem::forget(lock.with_context(|| format!("cannot use the data directory {}", config.dir))?);
        let entropy = random()?;
        let identity = identity::open_or_create(&*disk, config.id, config.seed, || entropy)?;
        check_birth(&config, &identity)?;
        let born = identity.birth.as_ref().map(|birth| birth.value_bytes_max as usize);
        let max_clients = descriptors::raise_limit(config.max_clients)?;
        let config = NodeConfig { value_bytes_max: born.unwrap_or(config.value_bytes_max), max_clients, ..config };
        let limits = LoopLimits {
            connections_max: (max_clients + SPARE_CONNECTIONS) as usize,
            input_bytes_max: config.request_bytes_max().max(config.frame_bytes_max()) + (1 << 20),
            outbound_bytes_max: outbound_bytes_max(&config),
        };
        let bound = once_free(|| EventLoop::bind(listen, limits), io::ErrorKind::AddrInUse);
        let events = bound.with_context(|| format!("cannot listen on {listen}"))?;
        let config = NodeConfig { listen: events.local_addr()?, ..config };
        let storage = identity.storage_id;
        let (dir, scrub_every) = (config.dir.clone(), Duration::from_millis(config.checkpoints.scrub_ms.0));
        let other = |worker: WorkerId| -> anyhow::Result<Front> {
            let events = EventLoop::new(limits).context("the system gives no poller")?;
            let workers = Workers::new(worker, config.workers.count());
            // Each start of a worker draws other random numbers.
            let seed = config.seed.wrapping_add(u64::from(worker.0));
            Ok(Front::new(Node::new(NodeConfig { workers, seed, ..config.clone() }, identity.clone()), events))
        };
        let others = config.workers.others().map(other).collect::<anyhow::Result<Vec<Front>>>()?;
        let front = Front::new(Node::new(config, identity), events);
        let progress = Arc::default();
        let (ticked_ms, facts_ms) = (Ms(0), Ms(0));
        Ok(StartingServer {
            front,
            others,
            disk,
            options,
            storage,
            dir,
            scrub_every,
            max_clients,
            clock,
            stopping,
            progress,
            ticked_ms,
            facts_ms,
        })
    }

    /// Returns the waker of the event loop, which the later [`Server`] takes over. Waking the loop makes it see that it
    /// should stop.
    #[must_use]
    pub fn waker(&self) -> Arc<Waker> {
        self.front.events.waker()
    }

    /// Begins to load the data directory, and waits until its log is read. Returns `None` if told to stop.
    ///
    /// # Errors
    /// One line that names the directory, what is wrong with it, and what to do.
    pub fn load(mut self) -> anyhow::Result<Option<Server>> {
        let fronts = || std::iter::once(&self.front).chain(&self.others);
        let (notifiers, notices): (Vec<Notifier>, Vec<Receiver<Notice>>) =
            fronts().map(|front| Notifier::new(&front.events)).unzip();
        let opened = self.begin(&notifiers)?;
        let mut happened = Vec::new();
        let Opened { log, peers, catalog } = loop {
            if self.stopping.load(Ordering::Relaxed) {
                return Ok(None);
            }
            match opened.try_recv() {
                Ok(opened) => break opened?,
                Err(TryRecvError::Empty) => self.turn(&mut happened)?,
                Err(TryRecvError::Disconnected) => bail!("the thread that loads the data is gone"),
            }
        };
        for front in std::iter::once(&mut self.front).chain(&mut self.others) {
            front.node.log_read(&peers, &catalog, log.next_lsn().preceding());
        }
        self.into_server(&log, notifiers, notices).map(Some)
    }

    /// Starts the thread that reads the disk beside the loop.
    fn begin(&mut self, workers: &[Notifier]) -> anyhow::Result<Receiver<anyhow::Result<Opened>>> {
        let (open, opened) = channel();
        let loading = Loading {
            disk: self.disk.clone(),
            storage: self.storage,
            options: self.options,
            clock: self.clock.now().clock(),
            progress: self.progress.clone(),
            dir: self.dir.clone(),
            opened: Some(open),
            workers: workers.to_vec(),
        };
        let mut empty_shard = self.front.node.begin_rebuild();
        for other in &mut self.others {
            empty_shard.add(other.node.begin_rebuild());
        }
        let hooks = hooks(workers.to_vec(), self.progress.clone());
        let work = move || loading.run(empty_shard, hooks);
        Builder::new().name("paxoi-start".to_owned()).spawn(work).context("cannot start a thread")?;
        Ok(opened)
    }

    /// Runs one turn of the loop while the node loads.
    fn turn(&mut self, happened: &mut Vec<Event>) -> anyhow::Result<()> {
        let patience = Duration::from_millis(TICK_MS.0);
        self.front.events.poll(Some(patience), happened).context("the system's poller failed")?;
        let time = self.clock.now();
        happened.drain(..).for_each(|event| self.front.on_event(event, time));
        self.tick(time);
        self.front.node.end_turn(time);
        output::carry_out(self, time)?;
        Ok(())
    }

    fn tick(&mut self, time: Time) {
        let now_ms = time.mono_us.to_ms();
        if now_ms < self.ticked_ms + TICK_MS {
            return;
        }
        let is_first = std::mem::replace(&mut self.ticked_ms, now_ms) == Ms(0);
        if now_ms >= self.facts_ms + FACTS_MS {
            self.facts_ms = now_ms;
            let loading_bytes = self.progress.bytes();
            self.front.node.set_facts(ProcessFacts { loading_bytes, ..process_facts() });
            if !is_first {
                tell_progress(&self.progress);
            }
        }
        self.front.node.tick(time);
        self.front.end_lingering(time);
    }

    fn into_server(
        self,
        log: &LogHandle,
        notifiers: Vec<Notifier>,
        notices: Vec<Receiver<Notice>>,
    ) -> anyhow::Result<Server> {
        let scrub = start_scrub(&self.disk, self.scrub_every, notifiers.clone()).context("cannot start the scrub")?;
        let fronts: Vec<Front> = std::iter::once(self.front).chain(self.others).collect();
        let team = Arc::new(Team::new(fronts.iter().map(|front| front.events.waker())));
        let count = fronts.len() as u32;
        let server = |(me, (front, (notifier, notices)))| -> anyhow::Result<Server> {
            let worker = WorkerId(me);
            let log = log.of_worker(worker);
            let reader = start_reader(&log, Notifier::clone(&notifier))?;
            let (checkpoint_worker, transfer_worker) =
                start_workers(&self.disk, Workers::new(worker, count), &notifier)
                    .context("cannot start the threads for checkpoints")?;
            Ok(Server {
                front,
                disk: self.disk.clone(),
                options: self.options,
                log,
                reader,
                checkpoint_worker,
                transfer_worker,
                _scrub: None,
                resolver: start_resolver(notifier.clone())?,
                notices,
                notifier,
                worker,
                team: team.clone(),
                others: Vec::new(),
                clock: self.clock,
                stopping: self.stopping.clone(),
                progress: self.progress.clone(),
                ticked_ms: Ms(0),
                facts_ms: Ms(0),
                max_clients: self.max_clients,
                segments: 0,
                free: u64::MAX,
            })
        };
        let parts = (0..count).zip(fronts.into_iter().zip(notifiers.into_iter().zip(notices)));
        let mut servers = parts.map(server).collect::<anyhow::Result<Vec<Server>>>()?.into_iter();
        let first = servers.next().context("there is no worker")?;
        Ok(Server { others: servers.collect(), _scrub: Some(scrub), ..first })
    }
}

/// A node that has not begun only answers clients, telling them that it loads. It knows no member and has no log.
impl Driver for StartingServer {
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

    fn dial(&mut self, _: &str) -> Dialled {
        unreachable!("{NOT_BEGUN}")
    }

    fn look_up(&mut self, _: &str) {
        unreachable!("{NOT_BEGUN}")
    }

    fn append(&mut self, _: Batch) {
        unreachable!("{NOT_BEGUN}")
    }

    fn droppable(&mut self, _: &[Instance]) -> Option<DroppableSegments> {
        unreachable!("{NOT_BEGUN}")
    }

    fn drop_segments(&mut self, _: SegmentSequence) {
        unreachable!("{NOT_BEGUN}")
    }

    fn read_range(&mut self, _: ReadRange) -> bool {
        unreachable!("{NOT_BEGUN}")
    }

    fn checkpoint(&mut self, _: CheckpointTask) {
        unreachable!("{NOT_BEGUN}")
    }

    fn transfer(&mut self, _: TransferTask) {
        unreachable!("{NOT_BEGUN}")
    }

    fn tell(&mut self, _: WorkerId, _: WorkerMessage) {
        unreachable!("{NOT_BEGUN}")
    }

    fn hand_over(&mut self, _: ConnectionId, _: WorkerId) {
        unreachable!("{NOT_BEGUN}")
    }

    fn store(&mut self, _: &Identity) -> anyhow::Result<()> {
        unreachable!("{NOT_BEGUN}")
    }

    fn stop(&mut self, reason: String) -> anyhow::Error {
        anyhow!(reason)
    }
}

/// The invariant behind the outputs that [`StartingServer`] does not carry out.
const NOT_BEGUN: &str = "a node that has not begun has neither members nor a log";

/// Repeats an attempt while the directory or address is in use. A process that was just killed holds both until the
/// system has freed its resources, including its memory.
fn once_free<T>(mut attempt: impl FnMut() -> io::Result<T>, in_use: io::ErrorKind) -> io::Result<T> {
    let deadline = Instant::now() + IN_USE_MAX;
    loop {
        match attempt() {
            Err(error) if error.kind() == in_use && Instant::now() < deadline => sleep(IN_USE_PAUSE),
            outcome => return outcome,
        }
    }
}

/// Checks that the node is a member of the directory's cluster, if the directory has one.
fn check_birth(config: &NodeConfig, identity: &Identity) -> anyhow::Result<()> {
    if let Some(birth) = &identity.birth
        && !birth.members.iter().any(|member| member.node == config.id)
        && !identity.joined.iter().any(|info| info.node == config.id)
    {
        bail!("node {} is not a member of the cluster in {}; check --id and --data", config.id, config.dir);
    }
    Ok(())
}

/// Minimum number of members that the output limit allows for, even if the cluster begins with fewer.
const LINKS_MIN: usize = 7;

/// Returns the maximum bytes that may wait for a connection that does not read: all output that a client can be owed,
/// or all that the members can have in flight at once. A connection with more is closed. The limit allows for all of a
/// link's output, because a link that was closed would owe as much again after it reconnects.
fn outbound_bytes_max(config: &NodeConfig) -> usize {
    let client = 2 * CLIENT_OUTPUT_BYTES + CLIENT_BURST_BYTES + config.reply_bytes_max();
    let link = (config.initial.len().max(LINKS_MIN) + 1) * (NODE_QUEUE_BYTES + config.frame_bytes_max());
    client.max(link)
}
