//! The virtual network. Connections carry bytes in order until they are cut, as TCP does. On request, the network also
//! does what TCP never does: it loses, doubles and reorders frames, and replays old ones, also of earlier connections.
//!
//! A blocked link holds the packets. It delivers them when it is open again, if the connection still exists. Both sides
//! notice a block only by silence.

use crate::random::Random;
use bytes::{Bytes, BytesMut};
use net::event::ConnectionId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The holder of an end of a connection. A restarted process is another holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Node { node: usize, life: u64 },
    Client(usize),
}

impl Who {
    fn node(self) -> Option<usize> {
        match self {
            Who::Node { node, .. } => Some(node),
            Who::Client(_) => None,
        }
    }
}

/// The number of a connection at an end that does not number its connections: a client, or a node that has not accepted
/// the connection yet.
pub(crate) const UNNUMBERED: ConnectionId = ConnectionId(0);

/// One end of a connection.
pub(crate) struct End {
    pub(crate) who: Who,
    /// The number by which the node at this end knows the connection.
    pub(crate) handle: ConnectionId,
    pub(crate) open: bool,
    /// The node does not read, for now.
    pub(crate) paused: bool,
    /// Bytes received and not consumed.
    pub(crate) input: BytesMut,
}

/// The content of a packet.
#[derive(Clone, Debug)]
pub(crate) enum PacketContent {
    Data(Bytes),
    /// The end of the stream.
    End,
    /// The connection is broken.
    Break,
}

struct Packet {
    at_us: u64,
    content: PacketContent,
    /// True if this piece continues the content of the packet before it. Its arrival is not scheduled yet.
    continues: bool,
}

/// One direction of a connection: the packets that one end has sent.
#[derive(Default)]
pub(crate) struct Way {
    packets: VecDeque<Packet>,
    last_us: u64,
    /// Time at which the link has sent everything.
    free_us: u64,
    /// For each queued piece, the time at which the link has sent it, and its length in bytes.
    leaving: VecDeque<(u64, usize)>,
    /// Time of the scheduled arrival of a later piece.
    awaited_us: u64,
}

impl Way {
    /// Delays everything in flight.
    pub(crate) fn put_off(&mut self, us: u64) {
        self.packets.iter_mut().for_each(|packet| packet.at_us += us);
        self.leaving.iter_mut().for_each(|(at_us, _)| *at_us += us);
        for at_us in [&mut self.last_us, &mut self.free_us, &mut self.awaited_us] {
            *at_us += us;
        }
    }
}

pub(crate) struct Connection {
    pub(crate) ends: [End; 2],
    ways: [Way; 2],
    /// The worker at both sides. Workers with different numbers do not talk to each other.
    lane: usize,
}

/// Disturbances of frames between nodes, in thousandths, and delays of all packets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    pub(crate) loss: u64,
    pub(crate) doubling: u64,
    pub(crate) disorder: u64,
    pub(crate) replay: u64,
    pub(crate) split: u64,
    pub(crate) delay_us: u64,
    pub(crate) jitter_us: u64,
    /// Bandwidth of a node's direction of a connection, in bytes per millisecond; 0: unlimited.
    pub(crate) bytes_per_ms: u64,
}

/// Maximum number of old frames of a pair of nodes that are kept for replay.
const OLD_FRAMES_MAX: usize = 48;
const DISORDER_US: u64 = 300_000;
/// Length of the pieces in which the content of a packet arrives over a link with limited bandwidth.
const PIECE_BYTES: usize = 4 << 10;
/// Send buffer of the kernel: these bytes do not count as unsent.
const KERNEL_BYTES: usize = 16 << 10;

#[derive(Default)]
pub(crate) struct Network {
    connections: BTreeMap<u64, Connection>,
    next: u64,
    /// Ordered pairs of nodes between which nothing passes.
    blocked: BTreeSet<(usize, usize)>,
    /// Nodes on sleeping machines: nothing reaches them.
    pub(crate) asleep: BTreeSet<usize>,
    /// Additional delay of packets, by ordered pair of nodes.
    slow_us: BTreeMap<(usize, usize), u64>,
    old: BTreeMap<(usize, usize, usize), VecDeque<Bytes>>,
    pub(crate) weather: Weather,
    pub(crate) done: Done,
}

/// Counters of frames and disturbances.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    pub(crate) frames: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) disordered: u64,
    pub(crate) replayed: u64,
}

/// The result of sending a frame.
#[derive(Default)]
pub(crate) struct Sent {
    /// Times at which frames may arrive at the other end.
    pub(crate) arrivals_us: Vec<u64>,
    /// The frame was lost, or later frames may overtake it. TCP excludes both, so the connection must be cut soon.
    pub(crate) doomed: bool,
}

impl Network {
    /// Adds a connection. `lane`: the worker that makes it, and the worker that takes it at the other side.
    pub(crate) fn connect(&mut self, from: (Who, ConnectionId), to: (Who, ConnectionId), lane: usize) -> u64 {
        self.next += 1;
        let end =
            |(who, handle): (Who, ConnectionId)| End { who, handle, open: true, paused: false, input: BytesMut::new() };
        let ends = [end(from), end(to)];
        self.connections.insert(self.next, Connection { ends, ways: Default::default(), lane });
        self.next
    }

    pub(crate) fn find(&mut self, id: u64) -> Option<&mut Connection> {
        self.connections.get_mut(&id)
    }

    pub(crate) fn end(&mut self, id: u64, side: usize) -> Option<&mut End> {
        Some(&mut self.connections.get_mut(&id)?.ends[side]).filter(|end| end.open)
    }

    pub(crate) fn remove(&mut self, id: u64) {
        self.connections.remove(&id);
    }

    /// Returns the connections between nodes, each with its two nodes.
    pub(crate) fn links(&self) -> Vec<(u64, usize, usize)> {
        let both = |connection: &Connection| Some((connection.ends[0].who.node()?, connection.ends[1].who.node()?));
        self.connections.iter().filter_map(|(id, connection)| both(connection).map(|(a, b)| (*id, a, b))).collect()
    }

    /// Returns the connections with an open end at `node`, each with the side of that end.
    pub(crate) fn of_node(&self, node: usize) -> Vec<(u64, usize)> {
        let side =
            |connection: &Connection| connection.ends.iter().position(|end| end.open && end.who.node() == Some(node));
        self.connections.iter().filter_map(|(id, connection)| Some((*id, side(connection)?))).collect()
    }

    pub(crate) fn is_blocked(&self, from: usize, to: usize) -> bool {
        self.blocked.contains(&(from, to))
    }

    pub(crate) fn block(&mut self, from: usize, to: usize) {
        if from != to {
            self.blocked.insert((from, to));
        }
    }

    pub(crate) fn slow_down(&mut self, from: usize, to: usize, by_us: u64) {
        self.slow_us.insert((from, to), by_us);
    }

    /// Unblocks all links and ends their additional delays. Returns the connections on which packets may wait now.
    pub(crate) fn heal(&mut self) -> Vec<u64> {
        self.blocked.clear();
        self.slow_us.clear();
        self.all()
    }

    pub(crate) fn all(&self) -> Vec<u64> {
        self.connections.keys().copied().collect()
    }

    pub(crate) fn ways(&mut self) -> impl Iterator<Item = &mut Way> {
        self.connections.values_mut().flat_map(|connection| &mut connection.ways)
    }

    fn pair(&self, id: u64, side: usize) -> Option<(usize, usize)> {
        let connection = self.connections.get(&id)?;
        Some((connection.ends[side].who.node()?, connection.ends[1 - side].who.node()?))
    }

    fn travel_us(&self, pair: Option<(usize, usize)>, random: &mut Random) -> u64 {
        let slow_us = pair.and_then(|pair| self.slow_us.get(&pair)).copied().unwrap_or(0);
        self.weather.delay_us + random.below(self.weather.jitter_us + 1) + slow_us
    }

    /// Sends bytes or the end of the stream, in order. Returns the arrival time of the first piece.
    pub(crate) fn send(
        &mut self,
        id: u64,
        side: usize,
        content: PacketContent,
        now_us: u64,
        random: &mut Random,
    ) -> u64 {
        let travel_us = self.travel_us(self.pair(id, side), random);
        let Some(connection) = self.connections.get_mut(&id) else { return now_us };
        // The bandwidth of clients is unlimited, so that the queues of nodes fill.
        let per_ms = if connection.ends[side].who.node().is_some() { self.weather.bytes_per_ms } else { 0 };
        let way = &mut connection.ways[side];
        let mut first_us = None;
        for content in pieces(content, per_ms) {
            way.free_us = way.free_us.max(now_us);
            if let (PacketContent::Data(bytes), true) = (&content, per_ms > 0) {
                way.free_us += bytes.len() as u64 * 1_000 / per_ms;
                way.leaving.push_back((way.free_us, bytes.len()));
            }
            let at_us = (way.free_us + travel_us).max(way.last_us);
            way.last_us = at_us;
            way.packets.push_back(Packet { at_us, content, continues: first_us.is_some() });
            first_us.get_or_insert(at_us);
        }
        first_us.unwrap_or(now_us)
    }

    /// Returns the number of bytes of `side` that do not fit into the kernel's send buffer yet.
    pub(crate) fn unsent(&mut self, id: u64, side: usize, now_us: u64) -> usize {
        let Some(connection) = self.connections.get_mut(&id) else { return 0 };
        let leaving = &mut connection.ways[side].leaving;
        while leaving.pop_front_if(|(at_us, _)| *at_us <= now_us).is_some() {}
        leaving.iter().map(|(_, bytes)| bytes).sum::<usize>().saturating_sub(KERNEL_BYTES)
    }

    /// Returns the time at which the link has sent everything of `side`.
    pub(crate) fn free_us(&self, id: u64, side: usize) -> u64 {
        self.connections.get(&id).map_or(0, |connection| connection.ways[side].free_us)
    }

    /// Returns the arrival time of the next packet, if it is a later piece whose arrival is not scheduled yet.
    pub(crate) fn await_piece(&mut self, id: u64, side: usize) -> Option<u64> {
        let way = &mut self.connections.get_mut(&id)?.ways[side];
        let at_us = way.packets.front().filter(|packet| packet.continues)?.at_us;
        (at_us > way.awaited_us).then(|| {
            way.awaited_us = at_us;
            at_us
        })
    }

    /// Lifts the limit of the bandwidth, also for queued bytes.
    pub(crate) fn hurry(&mut self, now_us: u64) {
        if std::mem::take(&mut self.weather.bytes_per_ms) > 0 {
            // Each split of a packet delays all that is behind it. Without a limit of the bandwidth nodes send large
            // values at once, so the splits would delay too much.
            self.weather.split = 0;
        }
        for way in self.ways() {
            way.packets.iter_mut().for_each(|packet| packet.at_us = packet.at_us.min(now_us));
            (way.last_us, way.free_us) = (way.last_us.min(now_us), now_us);
            way.leaving.clear();
        }
    }

    /// Sends a whole frame between nodes, with the disturbances of the present weather.
    pub(crate) fn send_frame(&mut self, id: u64, side: usize, frame: &Bytes, now_us: u64, random: &mut Random) -> Sent {
        let mut sent = Sent::default();
        let Some((from, to)) = self.pair(id, side) else { return sent };
        let pair = (from, to, self.connections.get(&id).map_or(0, |connection| connection.lane));
        let weather = self.weather;
        self.done.frames += 1;
        if weather.replay > 0 {
            let old = self.old.entry(pair).or_default();
            if random.chance(weather.replay) && !old.is_empty() {
                let again = old[random.below(old.len() as u64) as usize].clone();
                self.done.replayed += 1;
                sent.arrivals_us.push(self.send(id, side, PacketContent::Data(again), now_us, random));
            }
            let old = self.old.entry(pair).or_default();
            old.push_back(frame.clone());
            if old.len() > OLD_FRAMES_MAX {
                old.pop_front();
            }
        }
        if random.chance(weather.loss) {
            self.done.lost += 1;
            sent.doomed = true;
            return sent;
        }
        if random.chance(weather.disorder) {
            self.done.disordered += 1;
            sent.doomed = true;
            sent.arrivals_us.push(self.send_late(id, side, frame.clone(), now_us, random));
            return sent;
        }
        sent.arrivals_us.push(self.send(id, side, PacketContent::Data(frame.clone()), now_us, random));
        if random.chance(weather.doubling) {
            self.done.doubled += 1;
            sent.arrivals_us.push(self.send_late(id, side, frame.clone(), now_us, random));
        }
        sent
    }

    /// Sends a frame so late that later frames may overtake it.
    fn send_late(&mut self, id: u64, side: usize, frame: Bytes, now_us: u64, random: &mut Random) -> u64 {
        let Some(connection) = self.connections.get_mut(&id) else { return now_us };
        let way = &mut connection.ways[side];
        let at_us = way.last_us.max(now_us) + random.below(DISORDER_US);
        let mut position = way.packets.partition_point(|packet| packet.at_us <= at_us);
        while way.packets.get(position).is_some_and(|packet| packet.continues) {
            position += 1;
        }
        way.packets.insert(position, Packet { at_us, content: PacketContent::Data(frame), continues: false });
        at_us
    }

    /// Takes the content of the next packet that has arrived at the other end of `side`, if the way there is open.
    pub(crate) fn arrived(&mut self, id: u64, side: usize, now_us: u64) -> Option<PacketContent> {
        let pair = self.pair(id, side);
        if pair.is_some_and(|pair| self.blocked.contains(&pair)) {
            return None;
        }
        let connection = self.connections.get_mut(&id)?;
        let sleeps = |end: &End| end.who.node().is_some_and(|node| self.asleep.contains(&node));
        if connection.ends.iter().any(sleeps) {
            return None;
        }
        connection.ways[side].packets.pop_front_if(|packet| packet.at_us <= now_us).map(|packet| packet.content)
    }

    /// Puts the rest of a split packet back in front.
    pub(crate) fn put_back(&mut self, id: u64, side: usize, rest: Bytes, at_us: u64) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.ways[side].packets.push_front(Packet {
                at_us,
                content: PacketContent::Data(rest),
                continues: true,
            });
        }
    }

    /// Returns true if packets are still in flight to the other end of `side`.
    pub(crate) fn has_packets(&self, id: u64, side: usize) -> bool {
        self.connections.get(&id).is_some_and(|connection| !connection.ways[side].packets.is_empty())
    }

    /// Drops packets in flight in both directions. A random number of the first packets of each direction stays.
    pub(crate) fn drop_in_flight(&mut self, id: u64, random: &mut Random) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        for way in &mut connection.ways {
            let kept = random.below(way.packets.len() as u64 + 1) as usize;
            way.packets.truncate(kept);
            (way.last_us, way.free_us) = (way.packets.back().map_or(0, |packet| packet.at_us), 0);
            way.leaving.clear();
        }
    }
}

/// Splits the content of a packet into the pieces that a link carries one by one.
fn pieces(content: PacketContent, per_ms: u64) -> Vec<PacketContent> {
    match content {
        PacketContent::Data(mut bytes) if per_ms > 0 => {
            let mut all = Vec::new();
            while bytes.len() > PIECE_BYTES {
                all.push(PacketContent::Data(bytes.split_to(PIECE_BYTES)));
            }
            all.push(PacketContent::Data(bytes));
            all
        }
        whole => vec![whole],
    }
}
