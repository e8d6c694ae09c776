//! The world: time, the queue of events, the network, the processes, the clients and the oracle. Everything follows
//! from one seed. [`World::hash`] covers all that happened.

use crate::client::{Client, Record};
use crate::members::Operator;
use crate::nemesis::Faults;
use crate::network::{Network, PacketContent, Who};
use crate::oracle::Oracle;
use crate::process::{Clocks, Input, Process, Shape};
use crate::random::Random;
use crate::requests::Load;
use crate::trace::Trace;
use groups::Us;
use net::event::ConnectionId;
use paxoi::storage::wal::{ReadRange, SegmentSequence};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Limit of events at one instant. More happen only if some node makes no progress.
const STEPS_AT_ONCE_MAX: u64 = 100_000;

/// An event of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A packet that `side` sent may have arrived.
    Arrive {
        connection: u64,
        side: usize,
    },
    /// A connection attempt reaches the other node.
    Dial {
        connection: u64,
    },
    Turn {
        node: usize,
        life: u64,
        worker: usize,
    },
    /// A letter of one worker reaches another worker of the node.
    Letter {
        node: usize,
        life: u64,
        from: usize,
        to: usize,
    },
    Tick {
        node: usize,
        life: u64,
    },
    /// The disk writes and syncs a batch, or tries again.
    Synced {
        node: usize,
        life: u64,
    },
    Mark {
        node: usize,
        life: u64,
    },
    /// A preallocated segment is made, if none is ready.
    Preallocate {
        node: usize,
        life: u64,
    },
    /// The checkpoint worker takes its next task.
    CheckpointTask {
        node: usize,
        life: u64,
        worker: usize,
    },
    /// The transfer worker takes its next task.
    TransferTask {
        node: usize,
        life: u64,
        worker: usize,
    },
    /// The disk is scrubbed.
    Scrub {
        node: usize,
        life: u64,
    },
    /// Old segments are removed.
    Drop {
        node: usize,
        life: u64,
        below: SegmentSequence,
    },
    Read {
        node: usize,
        life: u64,
        worker: usize,
        range: ReadRange,
    },
    /// A node's last bytes on a connection are out.
    Finished {
        node: usize,
        life: u64,
        handle: ConnectionId,
    },
    /// A slow connection of a node may have drained.
    Drained {
        node: usize,
        life: u64,
        handle: ConnectionId,
    },
    /// A connection breaks.
    Cut {
        connection: u64,
    },
    Restart {
        node: usize,
    },
    Resume {
        node: usize,
    },
    /// A machine wakes. `mono_us`: the monotonic clock stopped at this value.
    Wake {
        node: usize,
        life: u64,
        mono_us: Option<Us>,
    },
    Client {
        client: usize,
    },
    Fault,
    /// The operator may change the members.
    Operate,
}

impl Event {
    /// Returns the node whose disk the event may change. A restart is left out: `start` handles its loss of power.
    fn node(self) -> Option<usize> {
        match self {
            Event::Turn { node, .. }
            | Event::Tick { node, .. }
            | Event::Synced { node, .. }
            | Event::Mark { node, .. }
            | Event::Preallocate { node, .. }
            | Event::CheckpointTask { node, .. }
            | Event::TransferTask { node, .. }
            | Event::Drop { node, .. } => Some(node),
            _ => None,
        }
    }
}

struct Scheduled {
    at_us: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Scheduled) -> bool {
        self.number == other.number
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Scheduled) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Scheduled) -> std::cmp::Ordering {
        (self.at_us, self.number).cmp(&(other.at_us, other.number))
    }
}

pub(crate) struct World {
    pub(crate) now_us: u64,
    pub(crate) random: Random,
    pub(crate) shape: Shape,
    pub(crate) network: Network,
    pub(crate) processes: Vec<Process>,
    pub(crate) clients: Vec<Client>,
    pub(crate) oracle: Oracle,
    pub(crate) trace: Trace,
    /// Maximum delay of a node's next turn after an input. More inputs can arrive meanwhile, for the same turn.
    pub(crate) idle_us: u64,
    /// Processes that ended are started again by themselves.
    pub(crate) revives: bool,
    pub(crate) faults: Faults,
    /// All programs are of a version that tells clocks, so cluster time is near real time.
    pub(crate) tells_clocks: bool,
    pub(crate) load: Load,
    pub(crate) record: Record,
    pub(crate) operator: Operator,
    queue: BinaryHeap<Reverse<Scheduled>>,
    number: u64,
    /// Number of events so far at the present instant.
    steps_now: u64,
    hash: u64,
}

impl World {
    pub(crate) fn new(seed: u64, shape: Shape, trace: Trace) -> World {
        let mut random = Random::new(seed);
        let processes = (0..shape.nodes + shape.spares).map(|index| {
            let clocks = Clocks { mono_us: Us(random.below(1 << 40)), drift: 0, unix_us: 0 };
            Process::new(index, clocks, 300)
        });
        World {
            now_us: 0,
            processes: processes.collect(),
            clients: Vec::new(),
            network: Network::default(),
            oracle: Oracle::new(&shape),
            trace,
            idle_us: 100,
            revives: true,
            faults: Faults::default(),
            tells_clocks: true,
            load: Load::default(),
            record: Record::default(),
            operator: Operator::default(),
            queue: BinaryHeap::new(),
            number: 0,
            steps_now: 0,
            hash: 0xcbf2_9ce4_8422_2325,
            random,
            shape,
        }
    }

    /// Returns the hash of everything that happened so far, in order.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn note(&mut self, what: u64) {
        // FNV-1a, a word at a time.
        self.hash = (self.hash ^ what).wrapping_mul(0x0100_0000_01b3).rotate_left(29);
    }

    pub(crate) fn at(&mut self, at_us: u64, event: Event) {
        self.number += 1;
        self.queue.push(Reverse(Scheduled { at_us: at_us.max(self.now_us), number: self.number, event }));
    }

    pub(crate) fn after(&mut self, us: u64, event: Event) {
        self.at(self.now_us + us, event);
    }

    /// Runs events until `done` returns true, or until `end_us`. Returns true if `done` was in time.
    pub(crate) fn run_while(&mut self, end_us: u64, mut done: impl FnMut(&mut World) -> bool) -> bool {
        loop {
            if done(self) {
                return true;
            }
            if !self.step(end_us) {
                self.now_us = self.now_us.max(end_us);
                return false;
            }
        }
    }

    /// Runs the next event, unless it is later than `end_us`. Returns true if it ran one.
    fn step(&mut self, end_us: u64) -> bool {
        if self.queue.peek().is_none_or(|Reverse(next)| next.at_us > end_us) {
            return false;
        }
        let Some(Reverse(Scheduled { at_us, number, event })) = self.queue.pop() else { return false };
        self.count_steps_at(at_us);
        self.now_us = at_us;
        self.trace.now(at_us);
        self.note(at_us);
        self.note(number);
        self.happen(event);
        if let Some(node) = event.node() {
            self.end_without_power(node);
        }
        true
    }

    /// Counts the events at one instant. A node that asks for turns without making progress would stop virtual time
    /// here. Outside the simulator it would keep a processor busy.
    fn count_steps_at(&mut self, at_us: u64) {
        self.steps_now = if at_us == self.now_us { self.steps_now + 1 } else { 0 };
        if self.steps_now == STEPS_AT_ONCE_MAX {
            self.oracle
                .fail(&format!("{STEPS_AT_ONCE_MAX} things happened at one instant: some node goes round in circles"));
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive { connection, side } => self.arrive(connection, side),
            Event::Dial { connection } => self.answer_dial(connection),
            Event::Turn { node, life, worker } => {
                if self.is_life(node, life) {
                    self.turn(node, worker);
                }
            }
            Event::Tick { node, life } => {
                if self.is_life(node, life) {
                    self.after(groups::TICK_MS.to_us().0, event);
                    self.turn(node, 0);
                    // The turn of a worker may end the process.
                    let workers = self.processes[node].life.as_ref().map_or(0, |life| life.workers.len());
                    (1..workers).for_each(|worker| self.turn(node, worker));
                }
            }
            Event::Letter { node, life, from, to } => {
                if self.is_life(node, life) {
                    self.deliver_letter(node, from, to);
                }
            }
            Event::Synced { node, life } => {
                if self.is_life(node, life) {
                    self.write_batch(node);
                }
            }
            Event::Mark { node, life } => {
                if self.is_life(node, life) {
                    self.mark(node);
                }
            }
            Event::Preallocate { node, life } => {
                if self.is_life(node, life) {
                    self.preallocate(node);
                }
            }
            Event::Read { node, life, worker, range } => {
                if self.is_life(node, life) {
                    self.read_range(node, worker, range);
                }
            }
            Event::CheckpointTask { node, life, worker } => {
                if self.is_life(node, life) {
                    self.run_checkpoint_task(node, worker);
                }
            }
            Event::TransferTask { node, life, worker } => {
                if self.is_life(node, life) {
                    self.run_transfer_task(node, worker);
                }
            }
            Event::Scrub { node, life } => {
                if self.is_life(node, life) {
                    self.scrub(node);
                }
            }
            Event::Drop { node, life, below } => {
                if self.is_life(node, life) {
                    self.drop_segments(node, below);
                }
            }
            Event::Finished { node, life, handle } => {
                if self.is_life(node, life) {
                    self.finish(node, handle);
                }
            }
            Event::Drained { node, life, handle } => {
                if self.is_life(node, life) {
                    self.look_at_drain(node, handle);
                }
            }
            Event::Cut { connection } => self.cut(connection),
            Event::Restart { node } => self.start(node),
            Event::Resume { node } => {
                if !self.network.asleep.contains(&node) {
                    self.resume(node);
                }
            }
            Event::Wake { node, life, mono_us } => {
                if self.is_life(node, life) {
                    self.wake(node, mono_us);
                }
            }
            Event::Client { client } => self.client_timer(client),
            Event::Fault => self.fault(),
            Event::Operate => self.operate(),
        }
    }

    fn is_life(&self, node: usize, life: u64) -> bool {
        self.processes[node].life.as_ref().is_some_and(|now| now.number == life)
    }

    /// Queues what has happened to a connection for the worker that has it.
    pub(crate) fn push(&mut self, node: usize, input: Input) {
        let Some(life) = &mut self.processes[node].life else { return };
        let Some(handle) = input.handle() else { return };
        match life.handles.get(&handle) {
            // The bytes wait in the connection.
            Some(found) if found.moves => {
                if !matches!(input, Input::Bytes(_)) {
                    life.late.entry(handle).or_default().push(input);
                }
            }
            found => {
                let worker = found.map_or(0, |found| found.worker);
                self.push_to(node, worker, input);
            }
        }
    }

    /// Queues an input for a worker of a node, which handles it soon.
    pub(crate) fn push_to(&mut self, node: usize, worker: usize, input: Input) {
        let wait_us = self.random.below(self.idle_us + 1);
        let Some(life) = &mut self.processes[node].life else { return };
        let running = &mut life.workers[worker];
        running.inbox.push(input);
        if running.turn_us.is_none() && !life.stopped {
            let at_us = self.now_us + wait_us;
            running.turn_us = Some(at_us);
            let life = life.number;
            self.at(at_us, Event::Turn { node, life, worker });
        }
    }

    /// Delivers the packets that `side` sent to the other end.
    fn arrive(&mut self, connection: u64, side: usize) {
        while let Some(content) = self.network.arrived(connection, side, self.now_us) {
            let content = match content {
                PacketContent::Data(bytes) if bytes.len() > 1 && self.random.chance(self.network.weather.split) => {
                    let (mut first, at_us) = (bytes, self.now_us + self.random.below(2_000));
                    let rest = first.split_off(1 + self.random.below(first.len() as u64 - 1) as usize);
                    self.network.put_back(connection, side, rest, at_us);
                    self.at(at_us, Event::Arrive { connection, side });
                    PacketContent::Data(first)
                }
                whole => whole,
            };
            self.deliver(connection, 1 - side, content);
        }
        if let Some(at_us) = self.network.await_piece(connection, side) {
            self.at(at_us, Event::Arrive { connection, side });
        }
    }

    fn deliver(&mut self, connection: u64, to: usize, content: PacketContent) {
        let Some(end) = self.network.end(connection, to) else { return self.bounce(connection, 1 - to, &content) };
        let (who, handle) = (end.who, end.handle);
        match who {
            Who::Node { node, .. } => match content {
                PacketContent::Data(bytes) => {
                    end.input.extend_from_slice(&bytes);
                    self.push(node, Input::Bytes(handle));
                }
                PacketContent::End => self.push(node, Input::Eof(handle)),
                PacketContent::Break => {
                    end.open = false;
                    self.push(node, Input::Closed(handle));
                }
            },
            Who::Client(client) => match content {
                PacketContent::Data(bytes) => self.client_input(client, &bytes),
                PacketContent::End | PacketContent::Break => {
                    end.open = false;
                    self.client_cut(client, connection);
                }
            },
        }
    }

    /// Handles a packet to an end that is closed. A running process answers that the connection is broken.
    fn bounce(&mut self, connection: u64, sender: usize, content: &PacketContent) {
        let Some(ends) = self.network.find(connection).map(|connection| &connection.ends) else { return };
        if !ends[sender].open {
            return self.network.remove(connection);
        }
        let there = match ends[1 - sender].who {
            Who::Node { node, .. } => self.processes[node].life.is_some(),
            Who::Client(_) => true,
        };
        if there && matches!(content, PacketContent::Data(_)) {
            self.send(connection, 1 - sender, PacketContent::Break);
        }
    }

    pub(crate) fn send(&mut self, connection: u64, side: usize, content: PacketContent) {
        let at_us = self.network.send(connection, side, content, self.now_us, &mut self.random);
        self.at(at_us, Event::Arrive { connection, side });
    }

    /// Cuts a connection. Packets in flight may be lost, and both sides learn of the cut, each in its time.
    fn cut(&mut self, connection: u64) {
        self.network.drop_in_flight(connection, &mut self.random);
        self.send(connection, 0, PacketContent::Break);
        self.send(connection, 1, PacketContent::Break);
    }

    /// Heals the network: all links pass packets again.
    pub(crate) fn heal(&mut self) {
        for connection in self.network.heal() {
            self.look_at(connection);
        }
    }

    /// Schedules the arrival of waiting packets on a connection.
    pub(crate) fn look_at(&mut self, connection: u64) {
        for side in [0, 1] {
            if self.network.has_packets(connection, side) {
                let at_us = self.now_us + self.random.below(1_000);
                self.at(at_us, Event::Arrive { connection, side });
            }
        }
    }

    /// Delays all scheduled events.
    pub(crate) fn put_off(&mut self, us: u64) {
        let later = std::mem::take(&mut self.queue).into_iter().map(|Reverse(next)| {
            let at_us = next.at_us + us;
            Reverse(Scheduled { at_us, ..next })
        });
        self.queue = later.collect();
    }
}
