//! A network between nodes that tests can break. Every connection between two nodes passes through a proxy of the test,
//! which treats each direction by its own rule.
//!
//! Each ordered pair of nodes has a listener; only the first node of the pair is told its address. One thread moves all
//! bytes.

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The treatment of bytes from one node to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Bytes arrive.
    #[default]
    Pass,
    /// Bytes arrive after this delay.
    Delay(Duration),
    /// Bytes are held back without an error, like packets that are lost and sent again. They arrive once the rule lets
    /// bytes pass again, if the connection still exists.
    Hold,
    /// Connections break, and none can be made.
    Refuse,
}

/// The proxy. Dropping it ends its thread.
pub(crate) struct Network {
    shared: Arc<Shared>,
    waker: Waker,
    addresses: BTreeMap<(u32, u32), SocketAddr>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Rules by sender and receiver; bytes of a pair without a rule pass.
    rules: BTreeMap<(u32, u32), Rule>,
    /// Pairs of sender and receiver whose next bytes are cut in the middle, which ends the connection.
    cuts: Vec<(u32, u32)>,
    frames_cut: u64,
    stopped: bool,
}

/// Maximum bytes that wait in one direction of a connection.
const LANE_BYTES_MAX: usize = 4 << 20;
const READ_BYTES: usize = 64 << 10;
const WAKE: Token = Token(0);
/// The token of all other sockets. The proxy does not look at which socket is ready: there are few, and it tries each.
const SOCKET: Token = Token(1);

impl Network {
    /// Starts a proxy between nodes that listen at these addresses, the first of which is node 1.
    pub(crate) fn start(nodes: &[SocketAddr]) -> Network {
        let poll = Poll::new().expect("a poller");
        let waker = Waker::new(poll.registry(), WAKE).expect("a waker");
        let (mut listeners, mut addresses) = (Vec::new(), BTreeMap::new());
        for (from, to) in pairs(nodes.len() as u32) {
            let mut socket = TcpListener::bind(([127, 0, 0, 1], 0).into()).expect("a free port");
            poll.registry().register(&mut socket, SOCKET, Interest::READABLE).expect("a socket to watch");
            addresses.insert((from, to), socket.local_addr().expect("its address"));
            listeners.push(Listener { socket, from, to, target: nodes[to as usize - 1] });
        }
        let shared = Arc::new(Shared::default());
        let mut pump = Pump { poll, listeners, links: Vec::new(), shared: Arc::clone(&shared) };
        let thread = thread::Builder::new().name("network".to_owned()).spawn(move || pump.run()).expect("a thread");
        Network { shared, waker, addresses, thread: Some(thread) }
    }

    /// Returns each ordered pair of nodes, with the address at which the first dials the second.
    pub(crate) fn routes(&self) -> impl Iterator<Item = (u32, u32, SocketAddr)> {
        self.addresses.iter().map(|((from, to), address)| (*from, *to, *address))
    }

    /// Sets the rule for bytes from `from` to `to`.
    pub(crate) fn set(&self, from: u32, to: u32, rule: Rule) {
        self.change(|state| {
            state.rules.insert((from, to), rule);
        });
    }

    /// Sets the rule for both directions.
    pub(crate) fn set_both(&self, one: u32, other: u32, rule: Rule) {
        self.set(one, other, rule);
        self.set(other, one, rule);
    }

    /// Sets the rule between each of `ones` and each of `others`.
    pub(crate) fn part(&self, ones: &[u32], others: &[u32], rule: Rule) {
        ones.iter().for_each(|one| others.iter().for_each(|other| self.set_both(*one, *other, rule)));
    }

    /// Cuts the next bytes from `from` to `to` in the middle, and ends the connection.
    pub(crate) fn cut(&self, from: u32, to: u32) {
        self.change(|state| state.cuts.push((from, to)));
    }

    /// Returns the number of connections that ended in the middle of sent bytes.
    pub(crate) fn frames_cut(&self) -> u64 {
        self.shared.lock().frames_cut
    }

    /// Removes all rules and cuts, so that everything passes.
    pub(crate) fn heal(&self) {
        self.change(|state| {
            state.rules.clear();
            state.cuts.clear();
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.lock());
        self.waker.wake().expect("to wake the network");
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.change(|state| state.stopped = true);
        let ended = self.thread.take().expect("it runs until now").join();
        assert!(ended.is_ok() || thread::panicking(), "the network has failed");
    }
}

/// Returns all ordered pairs of different nodes.
pub(crate) fn pairs(nodes: u32) -> impl Iterator<Item = (u32, u32)> {
    (1..=nodes).flat_map(move |from| (1..=nodes).filter(move |to| *to != from).map(move |to| (from, to)))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn rule(&self, from: u32, to: u32) -> Rule {
        self.rules.get(&(from, to)).copied().unwrap_or_default()
    }

    fn take_cut(&mut self, from: u32, to: u32) -> bool {
        let Some(at) = self.cuts.iter().position(|cut| *cut == (from, to)) else { return false };
        self.cuts.swap_remove(at);
        self.frames_cut += 1;
        true
    }
}

/// The socket that accepts the connections of one node to another.
struct Listener {
    socket: TcpListener,
    from: u32,
    to: u32,
    target: SocketAddr,
}

struct Pump {
    poll: Poll,
    listeners: Vec<Listener>,
    links: Vec<Link>,
    shared: Arc<Shared>,
}

impl Pump {
    fn run(&mut self) {
        let mut events = Events::with_capacity(64);
        let mut timeout = None;
        loop {
            match self.poll.poll(&mut events, timeout) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("the poller of the network: {error}"),
            }
            let shared = Arc::clone(&self.shared);
            let mut state = shared.lock();
            if state.stopped {
                return;
            }
            self.accept(&state);
            let registry = self.poll.registry();
            self.links.retain_mut(|link| link.work(&mut state, registry).is_ok());
            let due = self.links.iter().filter_map(|link| link.next_due(&state)).min();
            timeout = due.map(|due| due.saturating_duration_since(Instant::now()));
        }
    }

    fn accept(&mut self, state: &State) {
        for listener in &self.listeners {
            let (from, to, target) = (listener.from, listener.to, listener.target);
            while let Ok((mut near, _)) = listener.socket.accept() {
                if [state.rule(from, to), state.rule(to, from)].contains(&Rule::Refuse) {
                    continue;
                }
                let interest = Interest::READABLE | Interest::WRITABLE;
                self.poll.registry().register(&mut near, SOCKET, interest).expect("a socket to watch");
                let lanes = [Lane::new(from, to), Lane::new(to, from)];
                self.links.push(Link { near, far: None, connected: false, target, lanes });
            }
        }
    }
}

/// One connection with its two directions: bytes of the dialling node, and bytes for it.
struct Link {
    near: TcpStream,
    /// The connection to the target, not dialled while a direction is held.
    far: Option<TcpStream>,
    connected: bool,
    target: SocketAddr,
    lanes: [Lane; 2],
}

struct Lane {
    from: u32,
    to: u32,
    /// Chunks of bytes, each with the time of its arrival.
    waiting: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    /// True if the source has closed: nothing more comes.
    ended: bool,
}

/// A connection that is over.
struct Over;

impl Link {
    /// Moves the bytes that can be moved now.
    fn work(&mut self, state: &mut State, registry: &mio::Registry) -> Result<(), Over> {
        let rules = self.lanes.each_ref().map(|lane| state.rule(lane.from, lane.to));
        if rules.contains(&Rule::Refuse) {
            return Err(Over);
        }
        let far = match &mut self.far {
            Some(far) => far,
            // A handshake needs both directions.
            None if rules.contains(&Rule::Hold) => return Ok(()),
            None => {
                let mut far = TcpStream::connect(self.target).map_err(|_| Over)?;
                registry.register(&mut far, SOCKET, Interest::READABLE | Interest::WRITABLE).map_err(|_| Over)?;
                self.far.insert(far)
            }
        };
        if !self.connected {
            if far.take_error().map_or(true, |error| error.is_some()) {
                return Err(Over);
            }
            self.connected = far.peer_addr().is_ok();
            if !self.connected {
                return Ok(());
            }
        }
        let [there, back] = &mut self.lanes;
        there.work(rules[0], &mut self.near, far, state)?;
        back.work(rules[1], far, &mut self.near, state)
    }

    fn next_due(&self, state: &State) -> Option<Instant> {
        let due = |lane: &Lane| match state.rule(lane.from, lane.to) {
            Rule::Delay(delay) => lane.waiting.front().map(|(since, _)| *since + delay),
            Rule::Pass | Rule::Hold | Rule::Refuse => None,
        };
        self.lanes.iter().filter_map(due).min()
    }
}

impl Lane {
    fn new(from: u32, to: u32) -> Lane {
        Lane { from, to, waiting: VecDeque::new(), bytes: 0, ended: false }
    }

    fn work(
        &mut self,
        rule: Rule,
        source: &mut TcpStream,
        target: &mut TcpStream,
        state: &mut State,
    ) -> Result<(), Over> {
        loop {
            let was_full = self.bytes >= LANE_BYTES_MAX;
            let read = self.read(source, target, state)?;
            let delay = match rule {
                Rule::Pass => Duration::ZERO,
                Rule::Delay(delay) => delay,
                Rule::Hold | Rule::Refuse => return Ok(()),
            };
            self.write(target, delay)?;
            if self.ended && self.waiting.is_empty() {
                return Err(Over);
            }
            // No event reports that a lane which was full has room again.
            if !(read || was_full) || self.bytes >= LANE_BYTES_MAX {
                return Ok(());
            }
        }
    }

    /// Reads until nothing is there or the lane is full. Returns true if anything was read.
    fn read(&mut self, source: &mut TcpStream, target: &mut TcpStream, state: &mut State) -> Result<bool, Over> {
        let mut any = false;
        while !self.ended && self.bytes < LANE_BYTES_MAX {
            let mut chunk = vec![0; READ_BYTES];
            match source.read(&mut chunk) {
                Ok(0) => self.ended = true,
                Ok(count) => {
                    chunk.truncate(count);
                    if state.take_cut(self.from, self.to) {
                        // The other side gets half of the chunk, if its socket has room for that.
                        let _ = target.write(&chunk[..count / 2]);
                        return Err(Over);
                    }
                    any = true;
                    self.bytes += count;
                    self.waiting.push_back((Instant::now(), chunk));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Over),
            }
        }
        Ok(any)
    }

    /// Writes the bytes that have waited for `delay`.
    fn write(&mut self, target: &mut TcpStream, delay: Duration) -> Result<(), Over> {
        while let Some((since, chunk)) = self.waiting.front_mut() {
            if since.elapsed() < delay {
                return Ok(());
            }
            match write_some(target, chunk) {
                Ok(count) => {
                    self.bytes -= count;
                    chunk.drain(..count);
                    if chunk.is_empty() {
                        self.waiting.pop_front();
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return Err(Over),
            }
        }
        Ok(())
    }
}

fn write_some(target: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match target.write(bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
