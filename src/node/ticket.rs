//! The address of a reply. The submitter of a command keeps the ticket, and the reply comes with it.

use crate::workers::WorkerId;
use net::event::ConnectionId;

/// The address of a reply, by the kind of the command's submitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ticket {
    /// A client's request.
    Client(ClientTicket),
    /// A request of a client of another worker.
    Worker(WorkerTicket),
    /// A command that another member passed on.
    Relayed(ServedId),
    /// A part of an upload.
    Upload {
        /// The number of the upload.
        number: u64,
        /// The bytes of the part.
        bytes: u32,
    },
}

/// The address of a reply at a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientTicket {
    pub(super) connection: ConnectionId,
    pub(super) request: RequestNumber,
    /// The part of the request, if it is split over groups.
    pub(super) part: u32,
}

/// The address of a reply at a client of another worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WorkerTicket {
    connection: ConnectionId,
    request: RequestNumber,
    part: u32,
    /// The bytes of the command that count against the limits of that worker.
    pub(super) bytes: u32,
    pub(super) worker: WorkerId,
}

impl WorkerTicket {
    pub(super) fn new(worker: WorkerId, client: ClientTicket, bytes: u32) -> WorkerTicket {
        let ClientTicket { connection, request, part } = client;
        WorkerTicket { connection, request, part, bytes, worker }
    }

    /// Returns the ticket of the client, for the client's own worker.
    pub(super) fn client(&self) -> ClientTicket {
        ClientTicket { connection: self.connection, request: self.request, part: self.part }
    }
}

/// The number of a request on its connection, counted from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RequestNumber(pub(super) u64);

/// The place of another member's command among those that are executed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ServedId(pub(super) usize);
