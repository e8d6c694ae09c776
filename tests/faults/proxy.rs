//! A network between nodes that can be broken: every connection between two nodes passes through a proxy of the test,
//! which treats each of its two directions by a rule of its own.
//!
//! There is a listener for each ordered pair of nodes; only the first of the two is told its address. One thread moves all
//! bytes.

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What becomes of bytes from one node to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Rule {
    /// They arrive.
    #[default]
    Pass,
    /// They arrive so much later.
    Delay(Duration),
    /// They do not arrive for now, and nobody is told: what is sent meanwhile comes when they pass again, if the
    /// connection is still there then, as when lost packets are sent again.
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
    /// By sender and receiver; who is not here passes.
    rules: BTreeMap<(u32, u32), Rule>,
    /// From whom to whom the next bytes are to be the last ones, and not whole.
    cuts: Vec<(u32, u32)>,
    frames_cut: u64,
    stopped: bool,
}

/// The most bytes that wait in one direction of a connection.
const LANE_BYTES_MAX: usize = 4 << 20;
const READ_BYTES: usize = 64 << 10;
const WAKE: Token = Token(0);
/// All else. Which socket is ready is not looked at: there are few, and each is tried.
const SOCKET: Token = Token(1);

impl Network {
    /// A proxy between nodes that listen at these addresses, the first of which is node 1.
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

    /// Who dials whom at which address.
    pub(crate) fn routes(&self) -> impl Iterator<Item = (u32, u32, SocketAddr)> {
        self.addresses.iter().map(|((from, to), address)| (*from, *to, *address))
    }

    /// Sets the rule for bytes of `from` to `to`.
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

    /// The next bytes from `from` to `to` end in the middle, and with them the connection.
    pub(crate) fn cut(&self, from: u32, to: u32) {
        self.change(|state| state.cuts.push((from, to)));
    }

    /// How many connections ended in the middle of what was sent.
    pub(crate) fn frames_cut(&self) -> u64 {
        self.shared.lock().frames_cut
    }

    /// Everything passes.
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

/// All ordered pairs of different nodes.
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

/// Where the connections of one node to another come in.
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

/// One connection, with its two directions: the dialler's bytes, and those for it.
struct Link {
    near: TcpStream,
    /// Not dialled while something holds.
    far: Option<TcpStream>,
    connected: bool,
    target: SocketAddr,
    lanes: [Lane; 2],
}

struct Lane {
    from: u32,
    to: u32,
    /// Bytes with the time at which they came.
    waiting: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    /// Nothing more comes.
    ended: bool,
}

/// A connection that is over.
struct Over;

impl Link {
    /// Moves what can be moved.
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
            // No event tells that a lane which was full has room again.
            if !(read || was_full) || self.bytes >= LANE_BYTES_MAX {
                return Ok(());
            }
        }
    }

    /// Reads until nothing is there; false if nothing was.
    fn read(&mut self, source: &mut TcpStream, target: &mut TcpStream, state: &mut State) -> Result<bool, Over> {
        let mut any = false;
        while !self.ended && self.bytes < LANE_BYTES_MAX {
            let mut chunk = vec![0; READ_BYTES];
            match source.read(&mut chunk) {
                Ok(0) => self.ended = true,
                Ok(count) => {
                    chunk.truncate(count);
                    if state.take_cut(self.from, self.to) {
                        // The other side gets a part of it, if it has room for that.
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

    /// Writes what has waited for long enough.
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
