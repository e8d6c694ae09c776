//! The actions that a node requests outside of itself, and the one place where they are executed. The server, a loading
//! node and the simulator are [`Driver`]s. A new kind of output does not compile until each of them handles it.

use super::crew::WorkerMessage;
use super::{Node, Time};
use crate::identity::{BirthRecord, Identity};
use crate::storage::checkpoint::{CheckpointResult, CheckpointTask, TransferResult, TransferTask};
use crate::storage::scrub::Findings;
use crate::storage::wal::{Batch, ChosenValue, DroppableSegments, Lsn, ReadRange, SegmentSequence};
use crate::workers::WorkerId;
use bytes::Bytes;
use groups::{Instance, NodeId, Us};
use net::event::ConnectionId;
use net::frame::Purpose;
use std::net::IpAddr;

/// How to close a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// At once. Everything that waits for the connection is dropped.
    Now,
    /// When everything that waits for the connection is written.
    AfterFlush,
}

/// One action that a node requests, except for replies to clients.
#[derive(Debug)]
pub enum Output {
    /// A piece of a frame for a connection to another member.
    Frame(ConnectionId, Bytes),
    /// Close a connection.
    Close(ConnectionId, Close),
    /// Read no more from a connection, for now.
    Pause(ConnectionId),
    /// Read from a connection again.
    Resume(ConnectionId),
    /// Connect to a member; see [`Completion::Dialling`].
    Dial(NodeId, Purpose, String),
    /// Look up the name in an address without waiting for the answer; see [`Completion::Resolved`].
    LookUp(String),
    /// Append the next batch to the log. Never while another batch is in flight.
    Append(Batch),
    /// Ask the log which segments can go. For each group, the instance up to which its log is not needed. See
    /// [`Completion::DroppableSegments`].
    QueryDroppable(Vec<Instance>),
    /// Remove the segments of the log below this one.
    DropSegments(SegmentSequence),
    /// Read a range of the log; see [`Completion::Read`].
    ReadRange(ReadRange),
    /// Execute a task with checkpoint files. Tasks are executed in order; see [`Completion::Checkpoint`].
    Checkpoint(CheckpointTask),
    /// Execute a task of a transfer of checkpoints. Tasks are executed in order; see [`Completion::Transfer`].
    Transfer(TransferTask),
    /// Store the identity; see [`Completion::Stored`].
    StoreIdentity(Box<Identity>),
    /// Give another worker of this node a message; see [`Completion::Told`].
    Tell(WorkerId, WorkerMessage),
    /// Move a connection, with its unread input, to another worker. To this worker the connection is closed, without an
    /// event.
    HandOver(ConnectionId, WorkerId),
    /// Stop the node: it can never serve as it is, for this reason.
    Stop(String),
}

/// The result of an output, for [`Node::on_completion`].
#[derive(Debug)]
pub enum Completion {
    /// The result of [`Output::Dial`]: the connection is being made, or could not begin.
    Dialling {
        /// The member.
        to: NodeId,
        /// What the connection is for.
        purpose: Purpose,
        /// The connection, if there is one.
        connection: Option<ConnectionId>,
    },
    /// A dialled connection is established.
    Connected(ConnectionId),
    /// The IP address of a name that [`Output::LookUp`] or a dial asked for.
    Resolved(String, IpAddr),
    /// The result of [`Output::Append`]: all batches up to `lsn` are durable.
    Durable {
        /// The number of the batch.
        lsn: Lsn,
        /// The number of the frame that holds it; see [`Synced`](crate::storage::wal::Synced).
        frame: Lsn,
        /// How long the sync took, in microseconds.
        sync_us: Us,
    },
    /// The answer to [`Output::QueryDroppable`], before anything else happens: the segments of the log that can go.
    DroppableSegments(DroppableSegments),
    /// The refusal of [`Output::ReadRange`]: too many ranges are being read already. This range waits again.
    Unread(ReadRange),
    /// The result of [`Output::ReadRange`]: the values of the range.
    Read(ReadRange, Vec<ChosenValue>),
    /// The result of [`Output::Checkpoint`].
    Checkpoint(CheckpointResult),
    /// The result of [`Output::Transfer`].
    Transfer(TransferResult),
    /// The result of [`Output::StoreIdentity`]: the identity with this birth record is durable.
    Stored(BirthRecord),
    /// A message of another worker of this node.
    Told(WorkerId, WorkerMessage),
    /// The findings of a scrub of the disk, which no output asked for. Damaged files are written anew from memory.
    Scrubbed(Findings),
}

/// The outputs of a turn, in order.
#[derive(Debug, Default)]
pub struct Outputs {
    queue: Vec<Output>,
}

impl Outputs {
    /// Appends an output.
    pub(super) fn push(&mut self, output: Output) {
        self.queue.push(output);
    }

    /// Appends several outputs.
    pub(super) fn extend(&mut self, outputs: impl IntoIterator<Item = Output>) {
        self.queue.extend(outputs);
    }

    pub(super) fn close(&mut self, connection: ConnectionId, how: Close) {
        self.push(Output::Close(connection, how));
    }

    /// Returns true if a connection is handed over to another worker in this turn: its input is for that worker.
    pub(super) fn hands_over(&self, connection: ConnectionId) -> bool {
        self.queue.iter().any(|output| matches!(output, Output::HandOver(id, _) if *id == connection))
    }

    /// Takes all outputs.
    pub fn take(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.queue)
    }

    /// Reuses the memory of a list that [`Outputs::take`] returned.
    fn recycle(&mut self, mut taken: Vec<Output>) {
        taken.clear();
        if self.queue.is_empty() && taken.capacity() <= KEPT_OUTPUTS_MAX {
            self.queue = taken;
        }
    }
}

/// Maximum capacity of a list of outputs whose memory is reused.
const KEPT_OUTPUTS_MAX: usize = 1 << 12;

/// The environment of a node: its sockets, its log, its files.
pub trait Driver {
    /// The reason why the node cannot go on.
    type Error;

    /// Returns the node that is driven.
    fn node(&mut self) -> &mut Node;

    /// Called before each output is executed. An error stops the node there.
    ///
    /// # Errors
    /// If the node must not go on.
    fn before_output(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Gives clients the replies of [`Node::take_replies`].
    ///
    /// # Errors
    /// If the node must not go on.
    fn give_replies(&mut self) -> Result<(), Self::Error>;

    /// Appends a piece of a frame to a connection.
    fn send(&mut self, connection: ConnectionId, piece: Bytes);

    /// Writes to each connection as much of its waiting bytes as it takes.
    fn flush(&mut self);

    /// Returns the number of bytes that wait to be written to a connection.
    fn unsent(&mut self, connection: ConnectionId) -> usize;

    /// Closes a connection. No event follows if it is closed at once.
    fn close(&mut self, connection: ConnectionId, how: Close, time: Time);

    /// Reads no more from a connection, for now.
    fn pause(&mut self, connection: ConnectionId);

    /// Reads from a connection again.
    fn resume(&mut self, connection: ConnectionId);

    /// Begins to connect to an address.
    fn dial(&mut self, address: &str) -> Dialled;

    /// Looks the name in an address up, without waiting for the answer.
    fn look_up(&mut self, address: &str);

    /// Gives the log its next batch.
    fn append(&mut self, batch: Batch);

    /// Returns the segments of the log that can go if no group needs instances at or below its floor.
    fn droppable(&mut self, floors: &[Instance]) -> Option<DroppableSegments>;

    /// Removes the segments of the log below this one.
    fn drop_segments(&mut self, below: SegmentSequence);

    /// Reads a range of the log. Returns false if that is not possible now.
    fn read_range(&mut self, range: ReadRange) -> bool;

    /// Gives the checkpoint worker a task.
    fn checkpoint(&mut self, task: CheckpointTask);

    /// Gives the transfer worker a task.
    fn transfer(&mut self, task: TransferTask);

    /// Gives another worker of this node a message.
    fn tell(&mut self, worker: WorkerId, message: WorkerMessage);

    /// Moves a connection, with its unread input, to another worker.
    fn hand_over(&mut self, connection: ConnectionId, worker: WorkerId);

    /// Stores the identity durably.
    ///
    /// # Errors
    /// If the disk fails.
    fn store(&mut self, identity: &Identity) -> Result<(), Self::Error>;

    /// Returns the error that ends a node which can never serve as it is.
    fn stop(&mut self, reason: String) -> Self::Error;
}

/// The result of an attempt to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialled {
    /// The connection is being made, under this number.
    Begun(ConnectionId),
    /// The attempt could not begin.
    Failed,
    /// The name in the address is being looked up: the node asks again.
    Later,
}

/// Executes the outputs of the turn, and passes their results to the node.
///
/// # Errors
/// The reason why the node cannot go on.
pub fn carry_out<D: Driver>(driver: &mut D, time: Time) -> Result<(), D::Error> {
    driver.give_replies()?;
    let mut outputs = driver.node().outputs().take();
    let mut stores = false;
    for output in outputs.drain(..) {
        stores |= matches!(output, Output::StoreIdentity(_));
        driver.before_output()?;
        carry_out_one(driver, output, time)?;
    }
    driver.node().outputs().recycle(outputs);
    driver.flush();
    for connection in driver.node().filling() {
        let bytes = driver.unsent(connection);
        driver.node().unsent(connection, bytes);
    }
    // A node that is born tells the others at once, but behind the messages that it has sent before.
    if stores { carry_out(driver, time) } else { Ok(()) }
}

fn carry_out_one<D: Driver>(driver: &mut D, output: Output, time: Time) -> Result<(), D::Error> {
    match output {
        Output::Frame(connection, piece) => driver.send(connection, piece),
        Output::Pause(connection) => driver.pause(connection),
        Output::Resume(connection) => driver.resume(connection),
        Output::Close(connection, how) => {
            driver.close(connection, how, time);
            if how == Close::Now {
                driver.node().closed(connection, time);
            }
        }
        Output::Dial(to, purpose, address) => match driver.dial(&address) {
            Dialled::Begun(connection) => {
                let completion = Completion::Dialling { to, purpose, connection: Some(connection) };
                driver.node().on_completion(completion, time);
            }
            Dialled::Failed => {
                driver.node().on_completion(Completion::Dialling { to, purpose, connection: None }, time);
            }
            Dialled::Later => {}
        },
        Output::LookUp(address) => driver.look_up(&address),
        Output::Append(batch) => driver.append(batch),
        Output::QueryDroppable(floors) => {
            if let Some(droppable) = driver.droppable(&floors) {
                driver.node().on_completion(Completion::DroppableSegments(droppable), time);
            }
        }
        Output::DropSegments(below) => driver.drop_segments(below),
        Output::ReadRange(range) => {
            if !driver.read_range(range) {
                driver.node().on_completion(Completion::Unread(range), time);
            }
        }
        Output::Checkpoint(task) => driver.checkpoint(task),
        Output::Transfer(task) => driver.transfer(task),
        Output::StoreIdentity(identity) => {
            driver.store(&identity)?;
            if let Some(record) = identity.birth {
                driver.node().on_completion(Completion::Stored(record), time);
            }
        }
        Output::Tell(worker, message) => driver.tell(worker, message),
        Output::HandOver(connection, worker) => driver.hand_over(connection, worker),
        Output::Stop(reason) => return Err(driver.stop(reason)),
    }
    Ok(())
}
