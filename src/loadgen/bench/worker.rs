//! One thread of the generator: an event loop over its share of the connections.
//!
//! A *client* is one of the `--connections`. It has at most `--pipeline` requests in flight. It has one link, or with
//! `--cluster` one to each node. In the closed loop, each reply lets its client send the next request. In the open
//! loop, requests follow a schedule, and each goes to the next client that has room. A request that finds no room keeps
//! its intended time: its wait counts as latency (no coordinated omission).

use super::cluster::{Refresher, SlotMap};
use super::driver::{Limit, Plan};
use super::link::Link;
use super::pacer::Pacer;
use super::record::Measurements;
use super::verify::HistoryRecorder;
use super::workload::{Op, Picker, RequestKind, Requests, Workload};
use crate::rng::Rng;
use anyhow::anyhow;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Maximum number of times that a request is sent again, after a `-MOVED` or (only `ONCE`) a lost connection.
const ATTEMPTS_MAX: u32 = 16;
/// Maximum sleep, and so the maximum delay of a stop or a reconnect.
const NAP: Duration = Duration::from_millis(20);
/// Interval between checks for links that are down and for an old map.
const CHORES_NS: u64 = 5_000_000;
/// Minimum time between two requests for the slot map.
const REFRESH_NS_MIN: u64 = 100_000_000;
const READ_BYTES: usize = 64 * 1024;
const EVENTS_MAX: usize = 1024;
const TIMER: Token = Token(usize::MAX);

/// One thread's load.
#[derive(Debug)]
pub struct Worker<'a> {
    plan: &'a Plan,
    stop: &'a AtomicBool,
    replies: &'a AtomicU64,
    poll: Poll,
    links: Vec<Link>,
    clients: Vec<Client<'a>>,
    /// In the open loop, the client whose turn it is.
    turn: usize,
    map: SlotMap,
    refresher: Option<Refresher>,
    /// Whether the map is old, because a `-MOVED` came.
    is_map_old: bool,
    asked_ns: u64,
    next_chores_ns: u64,
    picker: Picker,
    rng: Rng,
    pacer: Option<Pacer>,
    /// Requests that may still be begun.
    budget: u64,
    deadline_ns: Option<u64>,
    /// Time at which the load ended: at the time limit, at a stop, or after a silence. No new request begins after it.
    ended_ns: Option<u64>,
    last_reply_ns: u64,
    /// Requests without a reply on all links.
    outstanding: usize,
    /// Links with requests to flush.
    dirty: Vec<usize>,
    /// The key whose owner was looked up last.
    key: Vec<u8>,
    record: Measurements,
}

#[derive(Debug)]
struct Client<'a> {
    number: usize,
    /// Links to the nodes, by node number.
    links: Vec<Option<usize>>,
    /// The node for keys without an owner, and for all keys without a map.
    home: usize,
    outstanding: usize,
    /// Requests to be sent before any new one.
    retry: VecDeque<Op>,
    session: &'a [u8],
    next_number: u64,
}

impl<'a> Worker<'a> {
    /// Creates the worker of thread `index`, and connects its share of the clients.
    ///
    /// # Errors
    /// If a server cannot be reached. A recording without `needs_all_nodes` tolerates that.
    pub fn new(
        plan: &'a Plan,
        index: usize,
        sessions: &'a [Vec<u8>],
        stop: &'a AtomicBool,
        replies: &'a AtomicU64,
    ) -> anyhow::Result<Worker<'a>> {
        let total = match plan.limit {
            Limit::Requests(count) => count,
            Limit::Time(_) => u64::MAX,
        };
        let share = |i: usize| (u128::from(total) * i as u128 / plan.threads as u128) as u64;
        let mut picker = plan.picker.clone();
        picker.skip(share(index));
        let pacer = plan.rate.map(|rate| Pacer::new(rate, index, plan.threads)).transpose()?;
        let mut worker = Worker {
            plan,
            stop,
            replies,
            poll: Poll::new()?,
            links: Vec::new(),
            clients: Vec::new(),
            turn: 0,
            map: plan.map.clone().unwrap_or_else(|| SlotMap::new(plan.addresses.clone())),
            refresher: plan.map.is_some().then(Refresher::start),
            is_map_old: false,
            asked_ns: 0,
            next_chores_ns: 0,
            picker,
            rng: Rng::new(plan.seed.wrapping_add(index as u64)),
            pacer,
            budget: share(index + 1) - share(index),
            deadline_ns: match plan.limit {
                Limit::Time(duration) => Some(duration.as_nanos() as u64),
                Limit::Requests(_) => None,
            },
            ended_ns: None,
            last_reply_ns: 0,
            outstanding: 0,
            dirty: Vec::new(),
            key: Vec::new(),
            record: Measurements::new()?,
        };
        worker.record.recorder = plan.recording.map(|recording| HistoryRecorder::new(recording, index, plan.threads));
        if let Some(pacer) = &worker.pacer {
            worker.poll.registry().register(&mut SourceFd(&pacer.raw_fd()), TIMER, Interest::READABLE)?;
        }
        for number in (index..plan.connections).step_by(plan.threads) {
            worker.add_client(number, &sessions[number])?;
        }
        Ok(worker)
    }

    fn add_client(&mut self, number: usize, session: &'a [u8]) -> anyhow::Result<()> {
        let home = number % self.map.nodes().len();
        let nodes = 0..self.map.nodes().len();
        let nodes = nodes.filter(|&node| if self.refresher.is_some() { self.map.is_owner(node) } else { node == home });
        let nodes: Vec<usize> = nodes.collect();
        let client = self.clients.len();
        let (links, retry) = (Vec::new(), VecDeque::new());
        self.clients.push(Client { number, links, home, outstanding: 0, retry, session, next_number: 1 });
        for node in nodes {
            let address = self.map.nodes()[node];
            let link = self.link(client, node);
            let connected = self.links[link].connect_now(self.poll.registry());
            if self.plan.recording.is_none_or(|recording| recording.needs_all_nodes) {
                connected
                    .map_err(|error| anyhow!("cannot connect to {address}: {error}; is a server running there?"))?;
            }
        }
        Ok(())
    }

    /// Runs to the end of the load.
    ///
    /// # Errors
    /// If the event loop itself fails.
    pub fn run(mut self, start: Instant) -> anyhow::Result<Measurements> {
        let now = || start.elapsed().as_nanos() as u64;
        if let Some(recorder) = &mut self.record.recorder {
            recorder.starts_at(start);
        }
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut scratch = vec![0; READ_BYTES];
        if self.pacer.is_none() {
            (0..self.clients.len()).for_each(|client| self.fill(client, now()));
        }
        loop {
            self.on_time(now())?;
            if self.is_over(now()) {
                break;
            }
            match self.poll.poll(&mut events, Some(self.patience(now()))) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            for event in events.iter().filter(|event| event.token() != TIMER) {
                let (link, generation) = Link::of_token(event.token());
                if !self.links[link].is_current(generation) {
                    continue;
                }
                if event.is_writable() || event.is_error() {
                    self.on_writable(link, now());
                }
                if event.is_readable() || event.is_read_closed() {
                    self.on_readable(link, event.is_read_closed(), &mut scratch, &now);
                }
            }
        }
        Ok(self.finish(now()))
    }

    fn on_writable(&mut self, link: usize, now_ns: u64) {
        let went = self.links[link].on_writable().and_then(|came_up| self.links[link].flush().map(|()| came_up));
        match went {
            Ok(true) => self.fill(self.client_of(link), now_ns),
            Ok(false) => {}
            Err(_) => self.lose(link, now_ns),
        }
    }

    fn on_readable(&mut self, link: usize, to_the_end: bool, scratch: &mut [u8], now: &impl Fn() -> u64) {
        let client_index = self.client_of(link);
        let client = &mut self.clients[client_index];
        let mut read_ns = None;
        let mut count = 0;
        let in_time_until = self.ended_ns.unwrap_or(u64::MAX);
        let received = self.links[link].receive(scratch, to_the_end, |op, reply, error| {
            // One reading of the clock serves all replies of this call, which may read the socket several times.
            let now_ns = *read_ns.get_or_insert_with(now);
            let in_time = now_ns <= in_time_until;
            let Some(op) = op else {
                error.into_iter().for_each(|line| self.record.on_error(line, now_ns, in_time));
                return;
            };
            count += 1;
            let is_moved = self.refresher.is_some()
                && op.attempts < ATTEMPTS_MAX
                && error.is_some_and(|line| self.map.adopt_moved(line));
            if let Some(recorder) = self.record.recorder.as_mut().filter(|_| !is_moved) {
                // Read the clock again: several reads of the socket may share `now_ns`, and the recorder must not say
                // that a reply came earlier than it did.
                recorder.on_reply(client.number, &op, now(), reply, &self.plan.requests);
            }
            match error {
                None => self.record.on_reply(op.kind, now_ns, now_ns.saturating_sub(op.intended_ns), in_time),
                Some(_) if is_moved => {
                    self.record.redirects += 1;
                    client.retry.push_back(Op { attempts: op.attempts + 1, ..op });
                    self.is_map_old = true;
                }
                Some(line) => self.record.on_error(line, now_ns, in_time),
            }
        });
        client.outstanding -= count;
        self.outstanding -= count;
        let now_ns = read_ns.unwrap_or_else(now);
        if count > 0 {
            self.last_reply_ns = now_ns;
            self.replies.fetch_add(count as u64, Ordering::Relaxed);
        }
        if received.is_err() {
            self.lose(link, now_ns);
        }
        self.fill(client_index, now_ns);
    }

    /// Ends the load at its time limit, reconnects, asks for slots, and sends the requests that are due.
    fn on_time(&mut self, now_ns: u64) -> io::Result<()> {
        let deadline_ns = self.deadline_ns.unwrap_or(u64::MAX);
        if self.ended_ns.is_none() {
            let silent = now_ns.saturating_sub(self.last_reply_ns) > self.plan.silence_max.as_nanos() as u64;
            if now_ns >= deadline_ns {
                self.ended_ns = Some(deadline_ns);
            } else if self.stop.load(Ordering::Relaxed) || (self.deadline_ns.is_none() && silent) {
                self.ended_ns = Some(now_ns);
            }
        }
        if now_ns >= self.next_chores_ns {
            self.next_chores_ns = now_ns + CHORES_NS;
            self.reconnect(now_ns);
            self.refresh(now_ns);
        }
        self.keep_pace(now_ns);
        match &mut self.pacer {
            Some(pacer) if self.ended_ns.is_none() => pacer.arm(now_ns),
            _ => Ok(()),
        }
    }

    fn reconnect(&mut self, now_ns: u64) {
        for link in 0..self.links.len() {
            if !self.links[link].is_up() && !self.links[link].on_time(now_ns, self.poll.registry()) {
                self.lose(link, now_ns);
            }
        }
    }

    /// Adopts a new slot map, if one has come, and resumes the requests that waited for it. Otherwise asks for a map
    /// while the present one is old, a request waits to be sent again, or a link is down.
    fn refresh(&mut self, now_ns: u64) {
        let Some(refresher) = &mut self.refresher else { return };
        if let Some(map) = refresher.take() {
            self.map.adopt(&map);
            self.is_map_old = false;
            (0..self.clients.len()).for_each(|client| self.fill(client, now_ns));
            return;
        }
        let wrong = self.is_map_old
            || self.clients.iter().any(|client| !client.retry.is_empty())
            || self.links.iter().any(|link| !link.is_up());
        if wrong && now_ns.saturating_sub(self.asked_ns) >= REFRESH_NS_MIN {
            self.asked_ns = now_ns;
            refresher.ask(self.map.nodes());
        }
    }

    /// Sends the requests that are due, one on each client in turn.
    fn keep_pace(&mut self, now_ns: u64) {
        let mut refused = 0;
        while self.pacer.as_ref().is_some_and(|pacer| pacer.next_ns() <= now_ns) && refused < self.clients.len() {
            refused = if self.send_one(self.turn, now_ns) { 0 } else { refused + 1 };
            self.turn = (self.turn + 1) % self.clients.len();
        }
        self.flush(now_ns);
    }

    /// Sends as many requests on one client as it may.
    fn fill(&mut self, client: usize, now_ns: u64) {
        while self.send_one(client, now_ns) {}
        self.flush(now_ns);
    }

    fn flush(&mut self, now_ns: u64) {
        while let Some(link) = self.dirty.pop() {
            if self.links[link].flush().is_err() {
                self.lose(link, now_ns);
            }
        }
    }

    /// Queues one request on a client. Returns false if the client has no room, nothing to send, or no open link for
    /// its request.
    fn send_one(&mut self, client_index: usize, now_ns: u64) -> bool {
        let client = &self.clients[client_index];
        if client.outstanding == self.plan.pipeline {
            return false;
        }
        if self.refresher.is_none() {
            // All requests of the client use one link. None is begun while that link is down.
            let link = self.link(client_index, self.clients[client_index].home);
            if !self.links[link].is_up() {
                return false;
            }
        }
        let Some(op) = self.next_op(client_index, now_ns) else { return false };
        let owner = self.refresher.as_ref().and_then(|_| {
            self.plan.requests.write_key(op.kind, op.key, &mut self.key);
            self.map.owner(&self.key)
        });
        let link = self.link(client_index, owner.unwrap_or(self.clients[client_index].home));
        let client = &mut self.clients[client_index];
        if !self.links[link].is_up() {
            client.retry.push_front(op);
            return false;
        }
        // Plus 1 ns, so that every operation that has returned by now counts as earlier.
        let op = Op { sent_ns: if op.sent_ns == 0 { now_ns + 1 } else { op.sent_ns }, ..op };
        if self.links[link].send(op, |out| self.plan.requests.write(&op, client.session, out)) {
            self.dirty.push(link);
        }
        client.outstanding += 1;
        self.outstanding += 1;
        true
    }

    fn next_op(&mut self, client: usize, now_ns: u64) -> Option<Op> {
        let client = &mut self.clients[client];
        if let Some(op) = client.retry.pop_front() {
            return Some(op);
        }
        let is_late = self.deadline_ns.is_some_and(|deadline_ns| now_ns >= deadline_ns);
        if self.budget == 0 || is_late || self.ended_ns.is_some() {
            return None;
        }
        let intended_ns = match &mut self.pacer {
            Some(pacer) => pacer.take(now_ns)?,
            None => now_ns,
        };
        self.budget -= 1;
        let kind = match self.plan.workload {
            Workload::Mixed(reads) => {
                if self.rng.unit() < reads {
                    RequestKind::Get
                } else {
                    RequestKind::Set
                }
            }
            other => other.kinds()[0],
        };
        let argument = match kind {
            RequestKind::Once => {
                client.next_number += 1;
                client.next_number - 1
            }
            RequestKind::Set | RequestKind::Append => match &mut self.record.recorder {
                Some(recorder) => recorder.next_argument(),
                None => Requests::argument(&mut self.rng),
            },
            RequestKind::Get | RequestKind::Incr => 0,
        };
        let mut key = self.picker.pick(&mut self.rng);
        if let Some(recording) = &self.plan.recording {
            key = recording.fresh(key, now_ns);
        }
        Some(Op { kind, key, argument, intended_ns, sent_ns: 0, attempts: 0 })
    }

    /// Returns the link of a client to a node. Creates it, down, if there was none.
    fn link(&mut self, client: usize, node: usize) -> usize {
        let links = &mut self.clients[client].links;
        if links.len() <= node {
            links.resize(node + 1, None);
        }
        *links[node].get_or_insert_with(|| {
            self.links.push(Link::new(self.map.nodes()[node], self.links.len(), client));
            self.links.len() - 1
        })
    }

    fn lose(&mut self, link: usize, now_ns: u64) {
        let client = self.client_of(link);
        let client = &mut self.clients[client];
        let was_up = self.links[link].is_up();
        let unanswered = self.links[link].hang_up(now_ns, self.poll.registry(), &mut self.rng);
        client.outstanding -= unanswered.len();
        self.outstanding -= unanswered.len();
        let mut lost = 0;
        for op in unanswered {
            // A `ONCE` may be sent again without harm. Whether any other request was executed is unknown.
            if op.kind == RequestKind::Once && op.attempts < ATTEMPTS_MAX {
                client.retry.push_back(Op { attempts: op.attempts + 1, ..op });
            } else {
                lost += 1;
                if let Some(recorder) = &mut self.record.recorder {
                    recorder.on_open(client.number, &op);
                }
            }
        }
        if was_up {
            self.record.on_connection_lost(lost, now_ns, self.ended_ns.is_none());
        }
    }

    fn client_of(&self, link: usize) -> usize {
        self.links[link].client()
    }

    fn is_over(&self, now_ns: u64) -> bool {
        if let Some(ended_ns) = self.ended_ns
            && now_ns >= ended_ns + self.plan.grace.as_nanos() as u64
        {
            return true;
        }
        let nothing_more = self.budget == 0 || self.ended_ns.is_some();
        nothing_more && self.outstanding == 0 && self.clients.iter().all(|client| client.retry.is_empty())
    }

    fn patience(&self, now_ns: u64) -> Duration {
        let deadline_ns = self.deadline_ns.filter(|_| self.ended_ns.is_none()).unwrap_or(u64::MAX);
        // Rounded up to whole milliseconds: the event loop would round down, and spin at the end.
        let left_ms = deadline_ns.saturating_sub(now_ns).div_ceil(1_000_000);
        NAP.min(Duration::from_millis(left_ms))
    }

    fn finish(mut self, now_ns: u64) -> Measurements {
        let end_ns = self.ended_ns.unwrap_or(self.last_reply_ns);
        self.record.end_ns = end_ns;
        if let Some(recorder) = &mut self.record.recorder {
            let sent = self.links.iter().flat_map(|link| link.flight().map(|op| (link.client(), op)));
            let clients = self.clients.iter().enumerate();
            let again = clients.flat_map(|(client, of)| of.retry.iter().map(move |op| (client, op)));
            for (client, op) in sent.chain(again.filter(|(_, op)| op.sent_ns > 0)) {
                recorder.on_open(self.clients[client].number, op);
            }
        }
        self.record.unanswered += self.outstanding as u64;
        let waiting = self.clients.iter().flat_map(|client| &client.retry);
        let (fresh, again): (Vec<&Op>, Vec<&Op>) = waiting.partition(|op| op.attempts == 0);
        self.record.unanswered += again.len() as u64;
        if let Some(pacer) = &self.pacer {
            self.record.never_sent = pacer.overdue(end_ns.min(now_ns)).min(self.budget) + fresh.len() as u64;
        }
        self.record
    }
}
