//! The address of a reply. The submitter of a command keeps the ticket, and the reply comes with it.

/// The address of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    /// The client's connection, or a number that stands for no connection: `RELAYED`, `UPLOADING`.
    pub(super) connection: u64,
    /// The number of the request on that connection.
    pub(super) sequence: u64,
    /// The part of that request, if it is split over groups.
    pub(super) part: u32,
}
