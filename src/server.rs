//! The shell: it moves bytes between sockets, the log's threads and the node, and knows the time. Everything that is
//! decided is decided in [`crate::node`].

use crate::checkpoint::{self, Brought, Desk, Done, Errand, Job, Mover, Packing, Scribe};
use crate::config::{
    CLIENT_BURST_BYTES, CLIENT_OUTPUT_BYTES, LINGER_MS_MAX, NODE_QUEUE_BYTES, NodeConfig, SCRUB_BYTES_PER_S,
};
use crate::descriptors::{self, SPARE_CONNECTIONS};
use crate::disk::{Disk, FileDisk};
use crate::identity::{self, Identity};
use crate::log::{ChosenValue, Hooks, Log, LogHandle, LogReader, Options, ReadRange};
use crate::node::{Close, Node, ProcessFacts, Space, Time};
use crate::resolver::{Place, Resolver};
use crate::scrub::{Findings, scrub};
use anyhow::{Context, anyhow, bail};
use groups::{NodeId, TICK_MS};
use mio::Waker;
use net::event::{Event, Handle};
use net::event_loop::{EventLoop, LoopLimits};
use rustix::time::{ClockId, clock_gettime};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Facts about the process are looked up so often.
const FACTS_MS: u64 = 1_000;
/// The loop sleeps no longer while states are to be taken out, a piece in each turn.
const CHECKPOINT_PATIENCE: Duration = Duration::from_millis(1);
/// A start that takes long says so often how far it is.
const PROGRESS: Duration = Duration::from_secs(1);
/// A reply larger than this goes out without another copy.
const LARGE_REPLY_BYTES: usize = 16 << 10;

/// What other threads tell the loop.
enum Notice {
    Durable { lsn: u64, sync_us: u64 },
    Checkpoint(Done),
    Brought(Brought),
    Scrubbed(Findings),
    Range { range: ReadRange, values: Vec<ChosenValue> },
    Resolved { name: String, address: Option<SocketAddr> },
    Fatal(String),
}

/// A node with its sockets and its log.
pub struct Server {
    node: Node,
    events: EventLoop,
    disk: Arc<dyn Disk>,
    options: Options,
    log: LogHandle,
    reader: LogReader,
    desk: Desk<Job>,
    mover: Desk<Errand>,
    /// While this is here the scrub goes on.
    _scrub: Sender<()>,
    resolver: Resolver,
    notices: Receiver<Notice>,
    clock: WallClock,
    stopping: Arc<AtomicBool>,
    lingering: VecDeque<Lingering>,
    ticked_ms: u64,
    facts_ms: u64,
    max_clients: u64,
    /// How many segments there were, and what the disk had left, when that was last looked at.
    segments: u64,
    free: u64,
}

/// A connection that is closed when everything is written, or when nothing was for too long.
struct Lingering {
    handle: Handle,
    /// What was to be written still, and when it is looked at again.
    left_bytes: usize,
    until_ms: u64,
}

/// The two clocks. The one for time limits goes on while the machine sleeps: a lease must not outlast that.
struct WallClock {
    since_boot: Duration,
}

impl WallClock {
    fn start() -> WallClock {
        WallClock { since_boot: since_boot() }
    }

    fn now(&self) -> Time {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // From 1 second on, so that "never" (0) is long ago.
        Time {
            mono_us: since_boot().saturating_sub(self.since_boot).as_micros() as u64 + 1_000_000,
            unix_us: since_1970.as_micros() as u64,
        }
    }
}

impl Server {
    /// Opens the data directory, recovers the log, which goes on with these options, and listens. `stopping` ends
    /// [`Server::run`].
    ///
    /// # Errors
    /// One line that names the directory, file or address, and what to do.
    pub fn open(
        config: NodeConfig,
        options: Options,
        listen: SocketAddr,
        stopping: Arc<AtomicBool>,
    ) -> anyhow::Result<Server> {
        let clock = WallClock::start();
        let disk: Arc<dyn Disk> = Arc::new(
            FileDisk::create(&config.dir).with_context(|| format!("cannot use the data directory {}", config.dir))?,
        );
        // The lock is held until the process ends.
        std::mem::forget(disk.lock().with_context(|| format!("cannot use the data directory {}", config.dir))?);
        let entropy = random()?;
        let identity = identity::open_or_create(&*disk, config.id, config.seed, || entropy)?;
        check_birth(&config, &identity)?;
        let born = identity.birth.as_ref().map(|birth| birth.value_bytes_max as usize);
        let max_clients = descriptors::make_room(config.max_clients)?;
        let config = NodeConfig { value_bytes_max: born.unwrap_or(config.value_bytes_max), max_clients, ..config };
        let limits = LoopLimits {
            connections_max: (max_clients + SPARE_CONNECTIONS) as usize,
            input_bytes_max: config.request_bytes_max().max(config.frame_bytes_max()) + (1 << 20),
            outbound_bytes_max: outbound_bytes_max(&config),
        };
        let events = EventLoop::bind(listen, limits).with_context(|| format!("cannot listen on {listen}"))?;
        let config = NodeConfig { listen: events.local_addr()?, ..config };
        let storage = identity.storage_id;
        let (place, scrub_every) = (config.dir.clone(), Duration::from_millis(config.checkpoints.scrub_ms));
        let mut node = Node::new(config, identity);
        let (sender, notices) = channel();
        let has_checkpoints = load_checkpoints(&*disk, &mut node, clock.now())
            .with_context(|| format!("cannot use the data directory {place}"))?;
        let mut refused = None;
        let (log, recovered) =
            Log::open(&disk, storage, options, hooks(&sender, events.waker()), &mut |lsn, record| {
                if refused.is_none() {
                    refused = node.restore(lsn, record, clock.now()).err();
                }
            })
            .with_context(|| format!("cannot use the data directory {place}"))?;
        if let Some(reason) = refused {
            bail!("the log in {place} is not usable: {reason}; replace this node under a new id");
        }
        if has_checkpoints && recovered.segments == 0 {
            bail!(
                "the log is missing in {place}, though there are checkpoints: put it back, or replace this node under a new id"
            );
        }
        tracing::info!("recovered {} records, {} bytes", recovered.records, recovered.bytes);
        node.begin(log.next_lsn() - 1, clock.now());
        let reader = start_reader(&log, sender.clone(), events.waker())?;
        let (desk, mover) = start_desks(&disk, &sender, &events).context("cannot start the threads for checkpoints")?;
        let scrub =
            start_scrub(&disk, scrub_every, sender.clone(), events.waker()).context("cannot start the scrub")?;
        let resolver = start_resolver(sender, events.waker())?;
        let lingering = VecDeque::new();
        let (ticked_ms, facts_ms) = (0, 0);
        Ok(Server {
            node,
            events,
            disk,
            options,
            log,
            reader,
            desk,
            mover,
            _scrub: scrub,
            resolver,
            notices,
            clock,
            stopping,
            lingering,
            ticked_ms,
            facts_ms,
            max_clients,
            segments: 0,
            free: u64::MAX,
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.events.local_addr()
    }

    /// Wakes the loop, to see that it should stop.
    #[must_use]
    pub fn waker(&self) -> Arc<Waker> {
        self.events.waker()
    }

    /// Serves until told to stop.
    ///
    /// # Errors
    /// Why the node cannot go on.
    pub fn run(&mut self) -> anyhow::Result<()> {
        let mut happened = Vec::new();
        while !self.stopping.load(Ordering::Relaxed) {
            self.turn(&mut happened)?;
        }
        Ok(())
    }

    /// One turn, in the order of DESIGN section 3: poll, decode and step, log, stage, flush.
    fn turn(&mut self, happened: &mut Vec<Event>) -> anyhow::Result<()> {
        self.events.poll(Some(self.patience()), happened).context("the system's poller failed")?;
        let time = self.clock.now();
        for event in happened.drain(..) {
            self.on_event(event, time);
        }
        while let Ok(notice) = self.notices.try_recv() {
            self.on_notice(notice)?;
        }
        self.tick(time)?;
        self.look_at_log();
        self.node.end_turn(time);
        self.carry_out(time)?;
        self.events.flush();
        self.node.turn_took(self.clock.now().mono_us.saturating_sub(time.mono_us));
        Ok(())
    }

    /// How long the loop may sleep.
    fn patience(&self) -> Duration {
        if self.node.has_work() {
            return Duration::ZERO;
        }
        if self.node.is_checkpointing() {
            return CHECKPOINT_PATIENCE;
        }
        let now_ms = self.clock.now().mono_us / 1_000;
        Duration::from_millis((self.ticked_ms + TICK_MS).saturating_sub(now_ms))
    }

    /// The node takes no value on that the log has no space for.
    fn look_at_log(&mut self) {
        self.node.set_space(Space::of(self.log.status(), &self.options, self.free));
    }

    fn on_event(&mut self, event: Event, time: Time) {
        match event {
            Event::Opened { handle, peer } => self.node.opened(handle.as_u64(), peer, time),
            Event::Connected { handle } => self.node.connected(handle.as_u64()),
            Event::Input { handle } => {
                let unsent = self.events.outbound_len(handle);
                if let Some(input) = self.events.input(handle) {
                    self.node.input(handle.as_u64(), input, unsent, time);
                }
            }
            Event::Eof { handle } => self.node.ended(handle.as_u64(), time),
            Event::Drained { handle } => self.node.drained(handle.as_u64()),
            Event::Closed { handle, reason } => {
                tracing::debug!("connection {} closed: {reason}", handle.as_u64());
                self.node.closed(handle.as_u64(), time);
            }
            Event::Refused { peer } => tracing::warn!("turned {peer} away: too many connections"),
            Event::AcceptFailed { error } => tracing::warn!("cannot accept connections for the moment: {error}"),
            Event::Woken => {}
        }
    }

    fn on_notice(&mut self, notice: Notice) -> anyhow::Result<()> {
        match notice {
            Notice::Durable { lsn, sync_us } => {
                if self.log.status().segments() != self.segments {
                    self.segments = self.log.status().segments();
                    self.free = self.disk.free_bytes().unwrap_or(self.free);
                }
                self.node.durable(lsn, sync_us);
            }
            Notice::Range { range, values } => self.node.range_read(&range, values, self.clock.now()),
            Notice::Checkpoint(done) => self.node.checkpoint_done(done, self.clock.now()),
            Notice::Scrubbed(findings) => self.node.scrubbed(&findings),
            Notice::Brought(brought) => self.node.brought(brought, self.clock.now()),
            Notice::Resolved { name, address } => self.resolver.on_answer(&name, address),
            Notice::Fatal(reason) => return Err(anyhow!(reason)),
        }
        Ok(())
    }

    fn tick(&mut self, time: Time) -> anyhow::Result<()> {
        let now_ms = time.mono_us / 1_000;
        if now_ms < self.ticked_ms + TICK_MS {
            return Ok(());
        }
        self.ticked_ms = now_ms;
        if now_ms >= self.facts_ms + FACTS_MS {
            self.facts_ms = now_ms;
            let status = self.log.status();
            self.free = self.disk.free_bytes().unwrap_or(self.free);
            let (disk_full, log_bytes, log_segments) = (status.full(), status.bytes(), status.segments());
            if self.node.max_clients() != self.max_clients {
                self.max_clients = self.node.max_clients();
                let fit = descriptors::make_room(self.max_clients)?;
                self.events.set_connections_max((fit + SPARE_CONNECTIONS) as usize);
            }
            self.node.set_facts(ProcessFacts { disk_full, log_bytes, log_segments, ..process_facts() });
        }
        self.node.tick(time);
        self.end_lingering(time);
        Ok(())
    }

    fn end_lingering(&mut self, time: Time) {
        let now_ms = time.mono_us / 1_000;
        while self.lingering.front().is_some_and(|lingering| lingering.until_ms <= now_ms) {
            let Some(Lingering { handle, left_bytes: before, .. }) = self.lingering.pop_front() else { return };
            let left_bytes = self.events.outbound_len(handle);
            if (1..before).contains(&left_bytes) {
                self.lingering.push_back(Lingering { handle, left_bytes, until_ms: now_ms + LINGER_MS_MAX });
            } else {
                self.close(handle, Close::Now, time);
            }
        }
    }

    fn carry_out(&mut self, time: Time) -> anyhow::Result<()> {
        let events = &mut self.events;
        self.node.take_replies(|id, replies| {
            let handle = Handle::from_u64(id);
            let Some(outbound) = events.outbound(handle) else {
                replies.clear();
                return 0;
            };
            if replies.len() > LARGE_REPLY_BYTES {
                outbound.push(replies.split().freeze());
            } else {
                outbound.buffer().extend_from_slice(replies);
                replies.clear();
            }
            outbound.len()
        });
        let outputs = std::mem::take(self.node.outputs());
        // Before the batch: what this adds is for the next one.
        if let Some(droppable) = outputs.floors.and_then(|floors| self.log.droppable(&floors)) {
            self.node.trim(droppable);
        }
        if let Some(batch) = outputs.batch {
            self.log.append(batch);
        }
        if let Some(below) = outputs.drop_below {
            self.log.drop_below(below);
        }
        outputs.jobs.into_iter().for_each(|job| self.desk.give(job));
        outputs.errands.into_iter().for_each(|errand| self.mover.give(errand));
        for (id, frame) in outputs.frames {
            if let Some(outbound) = self.events.outbound(Handle::from_u64(id)) {
                outbound.push(frame);
            }
        }
        for range in outputs.ranges {
            if !self.reader.request(range) {
                tracing::debug!("too many ranges are being read; group {} has to ask again", range.group);
            }
        }
        outputs.pauses.into_iter().for_each(|id| self.events.pause(Handle::from_u64(id)));
        outputs.resumes.into_iter().for_each(|id| self.events.resume(Handle::from_u64(id)));
        for (id, close) in outputs.closes {
            self.close(Handle::from_u64(id), close, time);
        }
        for (to, address) in outputs.dials {
            if let Some(connection) = self.dial(&address) {
                self.node.dialling(to, connection, time);
            }
        }
        for (to, address) in outputs.bulk_dials {
            if let Some(connection) = self.dial(&address) {
                self.node.bulk_dialling(to, connection, time);
            }
        }
        if let Some(identity) = outputs.identity {
            identity::save(&*self.disk, &identity)?;
            if let Some(record) = identity.birth {
                self.node.identity_stored(record, self.clock.now());
                return self.carry_out(time);
            }
        }
        match outputs.stop {
            Some(reason) => Err(anyhow!(reason)),
            None => Ok(()),
        }
    }

    /// Begins to connect; `Some(None)` if that is not possible, `None` if the node is to ask for it again.
    fn dial(&mut self, address: &str) -> Option<Option<u64>> {
        match self.resolver.look_up(address) {
            Place::Known(address) => Some(self.events.dial(address).ok().map(Handle::as_u64)),
            Place::Unknown => Some(None),
            Place::Asked => None,
        }
    }

    fn close(&mut self, handle: Handle, close: Close, time: Time) {
        match close {
            Close::Now => {
                self.events.close(handle);
                // No event follows.
                self.node.closed(handle.as_u64(), time);
            }
            Close::AfterFlush => {
                self.events.close_after_flush(handle);
                let (left_bytes, now_ms) = (self.events.outbound_len(handle), time.mono_us / 1_000);
                self.lingering.push_back(Lingering { handle, left_bytes, until_ms: now_ms + LINGER_MS_MAX });
            }
        }
    }
}

/// What is configured must be what the directory was born with.
fn check_birth(config: &NodeConfig, identity: &Identity) -> anyhow::Result<()> {
    if let Some(birth) = &identity.birth
        && !birth.members.iter().any(|member| member.node == config.id)
        && !identity.joined.iter().any(|place| place.node == config.id)
    {
        bail!("node {} is not a member of the cluster in {}", config.id, config.dir);
    }
    Ok(())
}

/// Puts the states in that checkpoints have. Returns whether there are any.
fn load_checkpoints(disk: &dyn Disk, node: &mut Node, time: Time) -> anyhow::Result<bool> {
    let Some((header, limits)) = node.checkpoint_header() else { return Ok(false) };
    let started = Instant::now();
    let each = &mut |loaded| node.restore_checkpoint(loaded, time);
    let mut told = started;
    let progress = &mut |done: usize, all: usize| {
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            tracing::info!("loading checkpoints: {done} of {all} groups");
        }
    };
    let catalog = checkpoint::load(disk, &header, &limits, each, progress)?;
    let (files, bytes, ms) = (catalog.files.len(), catalog.bytes, started.elapsed().as_millis());
    tracing::info!("loaded {files} checkpoints, {bytes} bytes, in {ms} ms");
    node.set_catalog(&catalog);
    Ok(!catalog.files.is_empty())
}

fn hooks(sender: &Sender<Notice>, waker: Arc<Waker>) -> Hooks {
    let sender = sender.clone();
    let hooks = Hooks::abort(move |lsn, took: Duration| {
        tell(&sender, &waker, Notice::Durable { lsn, sync_us: took.as_micros() as u64 });
    });
    let mut told = Instant::now();
    let on_progress = Box::new(move |done: u64, all: u64| {
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            tracing::info!("reading the log: {} %", done * 100 / all.max(1));
        }
    });
    Hooks { on_progress, ..hooks }
}

fn start_reader(log: &LogHandle, sender: Sender<Notice>, waker: Arc<Waker>) -> anyhow::Result<LogReader> {
    let reader = log.start_reader(move |range, values| {
        let notice = match values {
            Ok(values) => Notice::Range { range, values },
            Err(error) => Notice::Fatal(error.to_string()),
        };
        tell(&sender, &waker, notice);
    });
    reader.context("cannot start the thread that reads the log")
}

/// The thread that reads everything on the disk now and then. It ends when what is returned is dropped.
fn start_scrub(
    disk: &Arc<dyn Disk>,
    every: Duration,
    sender: Sender<Notice>,
    waker: Arc<Waker>,
) -> std::io::Result<Sender<()>> {
    let (guard, ended) = channel::<()>();
    let disk = disk.clone();
    std::thread::Builder::new().name("paxoi-scrub".to_owned()).spawn(move || {
        let mut rest = |time: Duration| matches!(ended.recv_timeout(time), Err(RecvTimeoutError::Timeout));
        while rest(every) {
            let findings = scrub(&*disk, SCRUB_BYTES_PER_S, &mut rest);
            tell(&sender, &waker, Notice::Scrubbed(findings));
        }
    })?;
    Ok(guard)
}

/// The threads that write checkpoints, and that move them between nodes.
fn start_desks(
    disk: &Arc<dyn Disk>,
    sender: &Sender<Notice>,
    events: &EventLoop,
) -> std::io::Result<(Desk<Job>, Desk<Errand>)> {
    let (notify, waker) = (sender.clone(), events.waker());
    let scribe = Scribe::new(disk.clone(), Packing::Lz4);
    let desk = Desk::start("paxoi-ckpt", scribe, move |done| tell(&notify, &waker, Notice::Checkpoint(done)))?;
    let (notify, waker) = (sender.clone(), events.waker());
    let mover = Mover::new(disk.clone());
    let mover = Desk::start("paxoi-move", mover, move |brought| tell(&notify, &waker, Notice::Brought(brought)))?;
    Ok((desk, mover))
}

fn start_resolver(sender: Sender<Notice>, waker: Arc<Waker>) -> anyhow::Result<Resolver> {
    let resolver = Resolver::start(move |name, address| tell(&sender, &waker, Notice::Resolved { name, address }));
    resolver.context("cannot start the thread that looks names up")
}

/// The loop may be gone already: then nobody needs to know.
fn tell(sender: &Sender<Notice>, waker: &Waker, notice: Notice) {
    if sender.send(notice).is_ok() {
        let _ = waker.wake();
    }
}

fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Sixteen random bytes from the system.
///
/// # Errors
/// If the system has none.
pub fn random() -> anyhow::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("the system gives no random numbers: {error}"))?;
    Ok(bytes)
}

/// What the system tells about this process. Zeros where it does not.
fn process_facts() -> ProcessFacts {
    let number = |text: &str| text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    let field = |file: &str, name: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix(name).map(number)).unwrap_or(0)
    };
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    let ticks = |place: usize| after_name.split(' ').nth(place).map_or(0, number);
    let tick_us = 1_000_000 / rustix::param::clock_ticks_per_second().max(1);
    ProcessFacts {
        process_id: std::process::id(),
        executable: std::env::current_exe().map(|path| path.display().to_string()).unwrap_or_default(),
        resident_bytes: field("/proc/self/status", "VmRSS:") << 10,
        system_bytes: field("/proc/meminfo", "MemTotal:") << 10,
        // Fields 14 and 15 of stat; the two before the name's end are cut off.
        cpu_user_us: ticks(11) * tick_us,
        cpu_system_us: ticks(12) * tick_us,
        ..ProcessFacts::default()
    }
}

/// `1=127.0.0.1:7001,2=…` as ids and addresses.
///
/// # Errors
/// One line about the first part that is not `ID=HOST:PORT`, or about an id that is there twice.
pub fn parse_members(list: &str) -> Result<Vec<(NodeId, String)>, String> {
    let mut members: Vec<(NodeId, String)> = Vec::new();
    for part in list.split(',') {
        let wrong = || format!("'{part}' is not ID=HOST:PORT with an ID from 1 on");
        let (id, address) = part.trim().split_once('=').ok_or_else(wrong)?;
        let id = id.parse().ok().filter(|id| *id > 0).map(NodeId).ok_or_else(wrong)?;
        let port =
            address.rsplit_once(':').and_then(|(host, port)| port.parse::<u16>().ok().filter(|_| !host.is_empty()));
        port.ok_or_else(wrong)?;
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

/// So many members are reckoned with, or as many as a cluster begins with.
const LINKS: usize = 7;

/// What may wait for a connection that does not read: all that a client can be owed, and all that the members can have on
/// their way at once. A connection that owes more is closed; and a link would owe as much again when it is back.
fn outbound_bytes_max(config: &NodeConfig) -> usize {
    let client = 2 * CLIENT_OUTPUT_BYTES + CLIENT_BURST_BYTES + config.reply_bytes_max();
    let link = (config.initial.len().max(LINKS) + 1) * (NODE_QUEUE_BYTES + config.frame_bytes_max());
    client.max(link)
}
