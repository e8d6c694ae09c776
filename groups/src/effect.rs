//! The actions that a group asks for. The caller carries them out in order. It owns the buffer of effects and reuses
//! it.

use crate::reads::ReadId;
use crate::{Ballot, Counter, Instance, Message, NodeId, Value};

/// One action that a group asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Append this record to the log. Later durable sends of this group wait for it.
    Persist(Record),
    /// Send now.
    Send {
        /// The receiver; never the node itself.
        to: NodeId,
        /// The message.
        message: Message,
    },
    /// Send when all records that this group has persisted so far are durable. The receiver can be the node itself.
    SendDurable {
        /// The receiver.
        to: NodeId,
        /// The message.
        message: Message,
    },
    /// A value was chosen; values come in order. Apply it with [`Group::apply`](crate::Group::apply) before any other
    /// use of the group.
    Apply {
        /// The value's instance. The choice moved the group's `next` to the instance after it.
        instance: Instance,
        /// The value.
        value: Value,
    },
    /// Read chosen values from the log and send them to `to` as a [`Range`](crate::message::Range).
    ReadLog {
        /// The lagging member.
        to: NodeId,
        /// The first instance to send.
        from: Instance,
        /// One after the last instance: the group's `next`.
        below: Instance,
        /// A ballot under which the instance before `below` was chosen.
        chosen: Ballot,
        /// The window, as in [`Fetch`](crate::message::Fetch).
        bytes_max: u32,
    },
    /// This node leads the group from now on (true), or no longer (false).
    Leading(bool),
    /// The members of the group may have changed: read [`Group::membership`](crate::Group::membership) again.
    Membership,
    /// This node's command with this counter was executed, but its reply is not known here.
    Skipped {
        /// The command's counter.
        counter: Counter,
    },
    /// A read cannot be answered: a checkpoint skipped the state that the read should see.
    ReadLost {
        /// The read.
        read: ReadId,
    },
}

/// A fact that must survive a crash: one record of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A promise to accept nothing below this ballot.
    Promised(Ballot),
    /// A vote.
    Accepted {
        /// The instance.
        instance: Instance,
        /// The ballot of the vote.
        ballot: Ballot,
        /// A ballot under which the preceding instance was chosen.
        chosen: Ballot,
        /// The value voted for.
        value: Value,
    },
    /// The position of the group. It is written again before older records are dropped from the log.
    Position {
        /// The lowest instance not known to be chosen.
        next: Instance,
        /// The highest ballot promised.
        promised: Ballot,
        /// A ballot under which the instance before `next` was chosen.
        chosen: Ballot,
    },
    /// A vote or a learned value whose content is lost. This record is never persisted: recovery creates it for a log
    /// record whose value fails its checksum.
    Lost {
        /// The instance.
        instance: Instance,
        /// The ballot of the lost record.
        ballot: Ballot,
        /// Whether the value was learned as chosen.
        learned: bool,
    },
    /// A chosen value that this node fetched from another member.
    Learned {
        /// The instance.
        instance: Instance,
        /// A ballot under which the value was chosen.
        ballot: Ballot,
        /// A ballot under which the preceding instance was chosen.
        chosen: Ballot,
        /// The value.
        value: Value,
    },
}
