//! All connections, and lists of the connections that need attention, so that a turn finds its work without a search.
//!
//! Each list holds ids. Each connection knows which lists it is on, so that none is on a list twice. An id may
//! outlive its connection; the loop then skips it.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::mem;
use std::net::SocketAddr;

use bytes::BytesMut;
use mio::Registry;
use mio::net::TcpStream;
use slab::Slab;

use crate::connection::{Connection, Phase, READ_BYTES_MAX, ReadOutcome};
use crate::event::{CloseReason, ConnectionId, Event};
use crate::event_loop::{LoopLimits, SystemCalls};
use crate::outbound::{Outbound, WriteProgress};
use crate::transport::Transport;

/// Reading stops for the turn once all connections together have read this many bytes. The next turn begins with the
/// connections that this one did not reach.
const TURN_READ_BYTES_MAX: usize = 2 << 20;
/// Number of turns after which idle connections give back memory.
const SWEEP_TURNS: u64 = 64;
const REFUSAL: &[u8] = b"-ERR max number of clients reached\r\n";

#[derive(Debug)]
pub(crate) struct Connections {
    limits: LoopLimits,
    slab: Slab<Connection>,
    generation: u32,
    /// Number of open connections that were accepted, not dialled.
    accepted: usize,
    turn: u64,
    /// Connections that may have something to read, in the order in which they are read.
    ready: VecDeque<ConnectionId>,
    /// Connections with output that was not yet offered to the socket.
    dirty: Vec<ConnectionId>,
    /// Connections that are not read because their input is full.
    full: Vec<ConnectionId>,
    /// Connections that hold more memory than an idle connection should.
    fat: Vec<ConnectionId>,
    /// Connections whose end was reported. They are dropped after the owner's turn.
    dead: Vec<ConnectionId>,
    /// Events from outside of `poll`. The next `poll` reports them.
    deferred: Vec<Event>,
    /// Calls of the system for the connections so far.
    calls: SystemCalls,
    /// Read buffer that all connections share.
    scratch: Box<[u8]>,
}

impl Connections {
    pub(crate) fn new(limits: LoopLimits) -> Self {
        Self {
            limits,
            slab: Slab::new(),
            generation: 0,
            accepted: 0,
            turn: 0,
            calls: SystemCalls::default(),
            ready: VecDeque::new(),
            dirty: Vec::new(),
            full: Vec::new(),
            fat: Vec::new(),
            dead: Vec::new(),
            deferred: Vec::new(),
            scratch: vec![0; READ_BYTES_MAX].into_boxed_slice(),
        }
    }

    pub(crate) fn set_max(&mut self, connections_max: usize) {
        self.limits.connections_max = connections_max;
    }

    pub(crate) fn find(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        find(&mut self.slab, id)
    }

    pub(crate) fn outbound_len(&self, id: ConnectionId) -> usize {
        let found = self.slab.get(id.index()).filter(|connection| connection.id == id);
        found.map_or(0, |connection| connection.outbound.len())
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    /// Returns true if there is work that the poller will not announce.
    pub(crate) fn is_busy(&self) -> bool {
        !self.ready.is_empty() || !self.dirty.is_empty()
    }

    pub(crate) fn accept(
        &mut self,
        mut stream: TcpStream,
        peer: SocketAddr,
        registry: &Registry,
        events: &mut Vec<Event>,
    ) {
        if self.accepted >= self.limits.connections_max {
            // Best effort: a new socket has room for the line, and a failure needs no handling. The read takes the
            // bytes that have arrived already; otherwise the kernel would reset the connection before the client reads
            // the line.
            let _ = stream.write(REFUSAL);
            let _ = stream.read(&mut self.scratch);
            events.push(Event::Refused { peer });
            return;
        }
        match Transport::tcp(stream).and_then(|transport| self.insert(transport, Phase::Open, registry)) {
            Ok(id) => {
                self.accepted += 1;
                events.push(Event::Opened { id, peer });
            }
            Err(error) => events.push(Event::AcceptFailed { error }),
        }
    }

    pub(crate) fn insert(
        &mut self,
        mut transport: Transport,
        phase: Phase,
        registry: &Registry,
    ) -> io::Result<ConnectionId> {
        let entry = self.slab.vacant_entry();
        let id = ConnectionId::new(self.generation, entry.key());
        transport.register(registry, id.token())?;
        entry.insert(Connection::new(id, transport, phase));
        self.generation = self.generation.wrapping_add(1);
        Ok(id)
    }

    /// Takes an open connection out, for another event loop. Returns `None` if there is none, or if it cannot be taken out.
    pub(crate) fn detach(&mut self, id: ConnectionId, registry: &Registry) -> Option<Detached> {
        let connection = self.find(id).filter(|connection| connection.phase == Phase::Open)?;
        connection.transport.deregister(registry).ok()?;
        let connection = self.slab.remove(id.index());
        self.accepted -= usize::from(connection.accepted);
        let Connection { transport, input, outbound, .. } = connection;
        Some(Detached { transport, input, outbound })
    }

    /// Takes an accepted connection of another event loop. Its input is announced in the next turn.
    ///
    /// # Errors
    /// If too many accepted connections are open, or if the connection cannot be registered. Then it is closed.
    pub(crate) fn adopt(&mut self, detached: Detached, registry: &Registry) -> io::Result<ConnectionId> {
        if self.accepted >= self.limits.connections_max {
            return Err(io::Error::other("too many connections are open"));
        }
        let Detached { transport, input, outbound } = detached;
        let id = self.insert(transport, Phase::Open, registry)?;
        self.accepted += 1;
        if let Some(connection) = self.mark_dirty(id) {
            (connection.input, connection.outbound, connection.announce) = (input, outbound, true);
        }
        if let Some(connection) = find(&mut self.slab, id) {
            enqueue(connection, &mut self.ready);
        }
        Ok(id)
    }

    pub(crate) fn remove(&mut self, id: ConnectionId) {
        if self.find(id).is_some() {
            let connection = self.slab.remove(id.index());
            self.accepted -= usize::from(connection.accepted);
        }
    }

    /// Removes the dead connections, and reports the events since the last turn.
    pub(crate) fn begin_turn(&mut self, events: &mut Vec<Event>) {
        while let Some(id) = self.dead.pop() {
            self.remove(id);
        }
        let mut deferred = mem::take(&mut self.deferred);
        for event in deferred.drain(..) {
            self.tell(event, events);
        }
        self.deferred = deferred;
        self.resume_full();
        self.turn += 1;
        if self.turn.is_multiple_of(SWEEP_TURNS) {
            self.sweep();
        }
    }

    pub(crate) fn on_event(&mut self, event: &mio::event::Event, events: &mut Vec<Event>) {
        let id = ConnectionId::from_token(event.token());
        // An event may come after its connection was closed.
        let Some(connection) = find(&mut self.slab, id) else { return };
        match connection.phase {
            Phase::Dead => return,
            Phase::Connecting => match connection.transport.is_established() {
                Ok(false) => return,
                Ok(true) => {
                    connection.phase = Phase::Open;
                    events.push(Event::Connected { id });
                }
                Err(error) => return self.end(id, CloseReason::ConnectFailed(error), events),
            },
            Phase::Open | Phase::Finishing => {}
        }
        let is_gone = event.is_error() || event.is_write_closed();
        connection.hung_up |= is_gone || event.is_read_closed();
        if is_gone && !connection.is_reading() {
            let error = connection.transport.take_error();
            return self.end(id, error.into(), events);
        }
        if event.is_readable() || connection.hung_up {
            enqueue(connection, &mut self.ready);
        }
        if event.is_writable() && !is_gone {
            connection.blocked = false;
            if !connection.outbound.is_empty() {
                let told = self.write(id);
                told.into_iter().for_each(|event| self.tell(event, events));
            }
        }
    }

    /// Reads from each ready connection once, until the turn's budget is spent.
    pub(crate) fn read_ready(&mut self, events: &mut Vec<Event>) {
        let mut turn_bytes = 0;
        for _ in 0..self.ready.len() {
            if turn_bytes >= TURN_READ_BYTES_MAX {
                return;
            }
            let Some(id) = self.ready.pop_front() else { return };
            let Some(connection) = find(&mut self.slab, id) else { continue };
            connection.in_ready = false;
            let before = connection.input.len();
            let outcome = if connection.is_reading() {
                connection.read(&mut self.scratch, self.limits.input_bytes_max, &mut self.calls)
            } else {
                Ok(ReadOutcome::Drained)
            };
            let after = connection.input.len();
            turn_bytes += after - before;
            if after > before || connection.announce && after > 0 {
                events.push(Event::Input { id });
            }
            connection.announce = false;
            if !connection.in_fat && connection.is_fat() {
                connection.in_fat = true;
                self.fat.push(id);
            }
            match outcome {
                Ok(ReadOutcome::Drained) => {}
                Ok(ReadOutcome::Budget) => enqueue(connection, &mut self.ready),
                Ok(ReadOutcome::Full) => {
                    connection.in_full = true;
                    self.full.push(id);
                }
                Ok(ReadOutcome::Eof) => {
                    connection.eof = true;
                    events.push(Event::Eof { id });
                }
                Err(error) => self.end(id, error.into(), events),
            }
        }
    }

    /// Marks a connection dirty: the owner may have queued output.
    pub(crate) fn mark_dirty(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let connection = find(&mut self.slab, id)?;
        if !connection.in_dirty {
            connection.in_dirty = true;
            self.dirty.push(id);
        }
        Some(connection)
    }

    /// Writes each dirty connection once.
    pub(crate) fn flush(&mut self) {
        let mut dirty = mem::take(&mut self.dirty);
        for id in dirty.drain(..) {
            let Some(connection) = find(&mut self.slab, id) else { continue };
            connection.in_dirty = false;
            if connection.phase != Phase::Dead {
                let told = self.write(id);
                self.deferred.extend(told);
            }
        }
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
    }

    pub(crate) fn calls(&self) -> SystemCalls {
        self.calls
    }

    pub(crate) fn pause(&mut self, id: ConnectionId) {
        if let Some(connection) = self.find(id) {
            connection.paused = true;
        }
    }

    /// Reads a paused connection again. The poller has already announced what arrived meanwhile, so only a read finds
    /// it.
    pub(crate) fn resume(&mut self, id: ConnectionId) {
        let Some(connection) = find(&mut self.slab, id) else { return };
        if !mem::take(&mut connection.paused) || connection.phase != Phase::Open {
            return;
        }
        connection.announce = true;
        if !connection.in_ready {
            connection.in_ready = true;
            self.ready.push_back(id);
        }
    }

    pub(crate) fn finish(&mut self, id: ConnectionId) {
        if let Some(connection) = self.mark_dirty(id)
            && connection.phase != Phase::Dead
        {
            connection.phase = Phase::Finishing;
        }
    }

    /// Writes once, and returns the event for the owner, if there is one.
    fn write(&mut self, id: ConnectionId) -> Option<Event> {
        let connection = find(&mut self.slab, id)?;
        match connection.write(self.limits.outbound_bytes_max, &mut self.calls) {
            Ok(WriteProgress::Blocked) => None,
            Ok(WriteProgress::More) => {
                self.mark_dirty(id);
                None
            }
            Ok(WriteProgress::Empty) => {
                if !connection.in_fat && connection.is_fat() {
                    connection.in_fat = true;
                    self.fat.push(id);
                }
                mem::take(&mut connection.backlogged).then_some(Event::Drained { id })
            }
            Err(reason) => {
                if matches!(reason, CloseReason::Finished) {
                    connection.discard(&mut self.scratch);
                }
                connection.phase = Phase::Dead;
                Some(Event::Closed { id, reason })
            }
        }
    }

    fn end(&mut self, id: ConnectionId, reason: CloseReason, events: &mut Vec<Event>) {
        self.tell(Event::Closed { id, reason }, events);
    }

    /// Passes an event on, unless the owner has closed the connection meanwhile.
    fn tell(&mut self, event: Event, events: &mut Vec<Event>) {
        if let Event::Closed { id, .. } | Event::Drained { id } = event {
            let Some(connection) = find(&mut self.slab, id) else { return };
            if matches!(event, Event::Closed { .. }) {
                connection.phase = Phase::Dead;
                self.dead.push(id);
            }
        }
        events.push(event);
    }

    fn resume_full(&mut self) {
        let Self { full, slab, ready, limits, .. } = self;
        full.retain(|&id| {
            let Some(connection) = find(slab, id) else { return false };
            if connection.input.len() >= limits.input_bytes_max {
                return true;
            }
            connection.in_full = false;
            enqueue(connection, ready);
            false
        });
    }

    /// Frees memory of the connections that were not used since the last sweep.
    fn sweep(&mut self) {
        let Self { fat, slab, .. } = self;
        fat.retain(|&id| {
            let Some(connection) = find(slab, id) else { return false };
            connection.in_fat = mem::take(&mut connection.active) || !connection.slim();
            connection.in_fat
        });
    }
}

/// A connection on its way from one event loop to another: its socket, its unread input and its unwritten output.
#[derive(Debug)]
pub struct Detached {
    transport: Transport,
    input: BytesMut,
    outbound: Outbound,
}

impl Detached {
    /// Returns the address of the other side.
    ///
    /// # Errors
    /// If the connection has ended.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.transport.peer_addr()
    }
}

fn find(slab: &mut Slab<Connection>, id: ConnectionId) -> Option<&mut Connection> {
    slab.get_mut(id.index()).filter(|connection| connection.id == id)
}

/// Appends a connection that may have something to read to the ready list.
fn enqueue(connection: &mut Connection, ready: &mut VecDeque<ConnectionId>) {
    if connection.is_reading() && !connection.in_ready && !connection.in_full {
        connection.in_ready = true;
        ready.push_back(connection.id);
    }
}
