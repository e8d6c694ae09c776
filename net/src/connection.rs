//! One socket with its input buffer and its output queue.
//!
//! Readiness is edge-triggered: the poller announces input once, and the connection must remember that until it has
//! emptied the socket. Usually one read is enough. A read that returns less than it asked for has emptied the socket,
//! and later bytes raise a new event (see epoll(7)). TCP urgent data cuts reads short, but a peer that sends it delays
//! only itself.
//!
//! There is one exception: the poller may announce an end of the stream together with the bytes before it. Hence
//! `hung_up`, which makes the connection read on to the end.

use std::io::{self, ErrorKind, Read};

use bytes::BytesMut;

use crate::event::{CloseReason, ConnectionId};
use crate::event_loop::SystemCalls;
use crate::outbound::{Outbound, WriteProgress};
use crate::transport::Transport;

/// Maximum bytes read from one connection in one turn.
pub(crate) const READ_BYTES_MAX: usize = 64 << 10;
/// The same limit inside a request or frame of which more than [`READ_BYTES_MAX`] bytes are still missing.
const LONG_READ_BYTES_MAX: usize = 256 << 10;
/// Maximum reads of unwanted input before a connection is closed, each of up to [`READ_BYTES_MAX`] bytes. Bounds the
/// work for a peer that never stops sending.
const DISCARDS_MAX: usize = 16;
/// Maximum bytes of memory that an idle connection keeps for its input, and as many for its output.
const KEPT_BYTES_MAX: usize = 4 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Dialled, and not known to be connected.
    Connecting,
    Open,
    /// To be closed when everything queued has been written; nothing is read any more.
    Finishing,
    /// Ended. The owner is being told, and then the connection is dropped.
    Dead,
}

/// Why reading stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadOutcome {
    /// The socket is empty; the poller will say when there is more.
    Drained,
    /// The connection used up its bytes of this turn. The socket may hold more.
    Budget,
    /// The input reached its limit. The socket may hold more.
    Full,
    /// The peer has ended its side of the stream.
    Eof,
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    pub(crate) transport: Transport,
    pub(crate) phase: Phase,
    pub(crate) input: BytesMut,
    pub(crate) outbound: Outbound,
    /// Bytes still missing from the request or frame in the input, as announced by the owner.
    pub(crate) expected: usize,
    /// Accepted, not dialled.
    pub(crate) accepted: bool,
    /// The owner wants no more input for now.
    pub(crate) paused: bool,
    /// The peer has ended its side of the stream, and the owner was told.
    pub(crate) eof: bool,
    /// The poller has announced an end of the stream or an error. A short read shows neither.
    pub(crate) hung_up: bool,
    /// The last write was short, or the socket is not connected. The poller announces when the socket takes more.
    pub(crate) blocked: bool,
    /// The socket was blocked at some time since the output queue was last empty.
    pub(crate) backlogged: bool,
    /// Announce buffered input even if no more arrives: the owner paused and may have stopped in the middle of it.
    pub(crate) announce: bool,
    /// It is on the list of connections that may have something to read.
    pub(crate) in_ready: bool,
    /// It is on the list of connections to be flushed.
    pub(crate) in_dirty: bool,
    /// It is on the list of connections whose input is full.
    pub(crate) in_full: bool,
    /// It is on the list of connections that hold much memory.
    pub(crate) in_fat: bool,
    /// The connection was read or written since the last sweep of that list.
    pub(crate) active: bool,
}

impl Connection {
    pub(crate) fn new(id: ConnectionId, transport: Transport, phase: Phase) -> Self {
        Self {
            id,
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

    /// Returns true if the connection takes input: it is open, not paused, and the peer has not ended its side.
    pub(crate) fn is_reading(&self) -> bool {
        self.phase == Phase::Open && !self.paused && !self.eof
    }

    /// Reads from the socket once, within the budget of one turn. If the poller has announced the end, reads on to the
    /// end within that budget.
    ///
    /// Bytes go through `scratch`, which all connections share, so that a connection without unread input needs no
    /// memory. Only long requests are read in place. Reading stops when the input holds `input_bytes_max` bytes.
    pub(crate) fn read(
        &mut self,
        scratch: &mut [u8],
        input_bytes_max: usize,
        calls: &mut SystemCalls,
    ) -> io::Result<ReadOutcome> {
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
            calls.reads += 1;
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

    /// Writes the output queue once, unless the socket is blocked. Returns an error if the connection ends here: a
    /// write failed, more than `outbound_bytes_max` bytes stay queued, or the last reply of a finishing connection is
    /// written.
    pub(crate) fn write(
        &mut self,
        outbound_bytes_max: usize,
        calls: &mut SystemCalls,
    ) -> Result<WriteProgress, CloseReason> {
        self.active = true;
        calls.writes += u64::from(!self.blocked && !self.outbound.is_empty());
        let progress =
            if self.blocked { WriteProgress::Blocked } else { self.outbound.write_to(&mut self.transport)? };
        let queued_bytes = self.outbound.len();
        if queued_bytes > outbound_bytes_max {
            return Err(CloseReason::SlowReader { queued_bytes, outbound_bytes_max });
        }
        if progress == WriteProgress::Empty && self.phase == Phase::Finishing {
            return Err(CloseReason::Finished);
        }
        self.blocked = progress == WriteProgress::Blocked;
        self.backlogged |= self.blocked;
        Ok(progress)
    }

    /// Discards input that nobody will read. If a socket is closed while it holds unread input, the kernel resets the
    /// connection, and the peer may lose our last reply before it has read it.
    pub(crate) fn discard(&mut self, scratch: &mut [u8]) {
        for _ in 0..DISCARDS_MAX {
            if !matches!(self.transport.read(scratch), Ok(count) if count == scratch.len()) {
                return;
            }
        }
    }

    /// Returns true if the connection holds more memory than an idle one may keep.
    pub(crate) fn is_fat(&mut self) -> bool {
        self.input.len() > KEPT_BYTES_MAX || self.outbound.keeps_more_than(KEPT_BYTES_MAX)
    }

    /// Frees the buffers that are empty. Returns true if input and output are both empty.
    pub(crate) fn slim(&mut self) -> bool {
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        self.outbound.release();
        self.input.is_empty() && self.outbound.is_empty()
    }
}
