//! The messages between the workers of a node. Each pair of workers has a queue in each direction, which keeps their
//! order.

use super::{CommandBatch, Load, ReplyBatch};
use crate::identity::Identity;
use crate::node::clients::ClientsMessage;
use crate::node::cluster::{ChangeReport, ChangeRequest};
use crate::node::peers::Roster;
use crate::node::ticket::ClientTicket;
use crate::storage::checkpoint::CheckpointSequence;
use crate::storage::wal::SegmentSequence;
use bytes::Bytes;

/// A message of one worker to another worker of the same node. Only the node looks into it.
#[derive(Debug)]
pub struct WorkerMessage(pub(in crate::node) Content);

/// The content of a message.
#[derive(Debug)]
pub(in crate::node) enum Content {
    /// For the clients of the receiver.
    Clients(ClientsMessage),
    /// For the rest of the node.
    Rest(Told),
}

/// A message to a worker, without those for its clients.
#[derive(Debug)]
pub(in crate::node) enum Told {
    /// Commands and reads for groups of the receiver.
    Commands(CommandBatch),
    /// The replies to commands that the receiver has passed on.
    Replies(ReplyBatch),
    /// From the first worker: the cluster exists, and this identity is durable.
    Joined(Box<Identity>),
    /// The members of the cluster, as far as the groups of the sender tell.
    Members(Box<Roster>),
    /// From the first worker: make this change of the members in your groups.
    Change(ChangeRequest),
    /// To the first worker: how far that change is.
    Changed(ChangeReport),
    /// The load of the sender.
    Load(Load),
    /// `PAXOI LEADER MOVE` for a group of the receiver, with the client that waits for the reply.
    Move(Vec<Bytes>, ClientTicket),
    /// To the first worker: the sender needs no segment of the log below this one.
    Floor(SegmentSequence),
    /// To the first worker: the sender needs this checkpoint file no longer, in which several workers have groups.
    Released(CheckpointSequence),
}
