//! One socket with what has been read from it and what is to be written to it.
//!
//! Readiness is edge-triggered: the poller says once that there is something to read, and the connection must remember
//! it until it has seen the end. Usually it need not ask twice. A read that returns less than it asked for has emptied
//! the socket, and whatever comes after it raises a new event (see epoll(7); a peer that sends TCP urgent data, which
//! cuts reads short, delays only itself). The one exception: an end of the stream that was announced together with the
//! bytes before it. Hence `hung_up`, which makes the connection read on to the end.

use std::io::{self, ErrorKind, Read};

use bytes::BytesMut;

use crate::event::{CloseReason, Handle};
use crate::outbound::{Outbound, Progress};
use crate::transport::Transport;

/// The most that is read from one connection in one turn.
pub(crate) const READ_BYTES_MAX: usize = 64 << 10;
/// The same while the connection is in the midst of a request or frame known to be longer than that.
const LONG_READ_BYTES_MAX: usize = 256 << 10;
/// How often at most unwanted input is read before a connection is closed, against a peer that never stops sending.
const DISCARDS_MAX: usize = 16;
/// The most memory that an idle connection keeps for its input, and for its output.
const KEPT_BYTES_MAX: usize = 4 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Dialled, and not known to be connected.
    Connecting,
    Open,
    /// To be closed when everything queued has been written; nothing is read any more.
    Finishing,
    /// Its end is being told to the owner.
    Dead,
}

/// Why reading stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadOutcome {
    /// The socket is empty; the poller will say when there is more.
    Drained,
    /// It was another connection's turn. There may be more.
    Budget,
    /// The input is full. There may be more.
    Full,
    /// The peer has ended its side of the stream.
    Eof,
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) handle: Handle,
    pub(crate) transport: Transport,
    pub(crate) phase: Phase,
    pub(crate) input: BytesMut,
    pub(crate) outbound: Outbound,
    /// How many more bytes the owner knows to be coming.
    pub(crate) expected: usize,
    /// Accepted, not dialled.
    pub(crate) accepted: bool,
    /// The owner wants no more input for now.
    pub(crate) paused: bool,
    /// The peer has ended its side, and the owner knows.
    pub(crate) eof: bool,
    /// The poller has announced an end or an error, which a short read does not show.
    pub(crate) hung_up: bool,
    /// The socket took less than it was offered, or is not connected; the poller will say when it takes more.
    pub(crate) blocked: bool,
    /// It was blocked at some time since the queue was last empty.
    pub(crate) backlogged: bool,
    /// The owner is to be told of input even if no more arrives: it stopped in the midst of it.
    pub(crate) announce: bool,
    /// It is on the list of connections that may have something to read.
    pub(crate) in_ready: bool,
    /// It is on the list of connections to be flushed.
    pub(crate) in_dirty: bool,
    /// It is on the list of connections whose input is full.
    pub(crate) in_full: bool,
    /// It is on the list of connections that hold much memory.
    pub(crate) in_fat: bool,
    /// It was read or written since that list was last looked through.
    pub(crate) active: bool,
}

impl Connection {
    pub(crate) fn new(handle: Handle, transport: Transport, phase: Phase) -> Self {
        Self {
            handle,
            transport,
            phase,
            input: BytesMut::new(),
            outbound: Outbound::new(),
            expected: 0,
            accepted: phase != Phase::Connecting,
            paused: false,
            eof: false,
            hung_up: false,
            blocked: phase == Phase::Connecting,
            backlogged: false,
            announce: false,
            in_ready: false,
            in_dirty: false,
            in_full: false,
            in_fat: false,
            active: false,
        }
    }

    /// True if reading would be of use, should there be anything to read.
    pub(crate) fn is_reading(&self) -> bool {
        self.phase == Phase::Open && !self.paused && !self.eof
    }

    /// Reads once what is there, within the turn's budget, and until the end if that has been announced.
    ///
    /// Bytes go through `scratch`, which all connections share, so that those without unread input need no memory;
    /// only long requests are read into place. The input may reach `input_bytes_max`, at which reading stops.
    pub(crate) fn read(&mut self, scratch: &mut [u8], input_bytes_max: usize) -> io::Result<ReadOutcome> {
        self.active = true;
        let is_long = self.expected > scratch.len();
        let mut budget = if is_long { self.expected.min(LONG_READ_BYTES_MAX) } else { scratch.len() };
        loop {
            let room = input_bytes_max.saturating_sub(self.input.len());
            if room == 0 {
                return Ok(ReadOutcome::Full);
            }
            let wanted = budget.min(room);
            if wanted == 0 {
                return Ok(ReadOutcome::Budget);
            }
            let result = if is_long { self.read_in_place(wanted) } else { self.read_through(&mut scratch[..wanted]) };
            match result {
                Ok(0) => return Ok(ReadOutcome::Eof),
                Ok(count) => {
                    self.expected = self.expected.saturating_sub(count);
                    if count < wanted && !self.hung_up {
                        return Ok(ReadOutcome::Drained);
                    }
                    budget -= count;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(ReadOutcome::Drained),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn read_through(&mut self, scratch: &mut [u8]) -> io::Result<usize> {
        let count = self.transport.read(scratch)?;
        self.input.extend_from_slice(&scratch[..count]);
        Ok(count)
    }

    fn read_in_place(&mut self, wanted: usize) -> io::Result<usize> {
        let before = self.input.len();
        self.input.resize(before + wanted, 0);
        let result = self.transport.read(&mut self.input[before..]);
        self.input.truncate(before + result.as_ref().copied().unwrap_or(0));
        result
    }

    /// Writes once what is queued, unless the socket is known to take nothing. An error, also that of a queue that
    /// stays too long, is the connection's end; so is the end of the last reply.
    pub(crate) fn write(&mut self, outbound_bytes_max: usize) -> Result<Progress, CloseReason> {
        self.active = true;
        let progress = if self.blocked { Progress::Blocked } else { self.outbound.write_to(&mut self.transport)? };
        let queued_bytes = self.outbound.len();
        if queued_bytes > outbound_bytes_max {
            return Err(CloseReason::SlowReader { queued_bytes, outbound_bytes_max });
        }
        if progress == Progress::Empty && self.phase == Phase::Finishing {
            return Err(CloseReason::Finished);
        }
        self.blocked = progress == Progress::Blocked;
        self.backlogged |= self.blocked;
        Ok(progress)
    }

    /// Throws away what has arrived and will not be read. Closing a socket that still holds some makes the kernel
    /// reset the connection, which may take our last reply from the peer before it has read it.
    pub(crate) fn discard(&mut self, scratch: &mut [u8]) {
        for _ in 0..DISCARDS_MAX {
            if !matches!(self.transport.read(scratch), Ok(count) if count == scratch.len()) {
                return;
            }
        }
    }

    /// True if it holds more memory than an idle connection should.
    pub(crate) fn is_fat(&mut self) -> bool {
        self.input.len() > KEPT_BYTES_MAX || self.outbound.keeps_more_than(KEPT_BYTES_MAX)
    }

    /// Gives back the memory that holds nothing; true if that was all.
    pub(crate) fn slim(&mut self) -> bool {
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        self.outbound.release();
        self.input.is_empty() && self.outbound.is_empty()
    }
}
