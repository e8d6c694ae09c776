//! What a group wants done. Effects are carried out in order; the caller owns the buffer and reuses it.

use crate::reads::ReadId;
use crate::{Ballot, Instance, Message, NodeId, Value};

/// One effect of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Put this into the log. What is sent durably after it, in this group, waits for it.
    Persist(Record),
    /// Send now.
    Send {
        /// To whom; never the node itself.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Send when everything that this group has persisted so far is durable; to the node itself too.
    SendDurable {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// A value was chosen, in order: apply it with [`Group::apply`](crate::Group::apply) before anything else is asked
    /// of the group.
    Apply {
        /// Its instance: the one before the group's `next`.
        instance: Instance,
        /// The value.
        value: Value,
    },
    /// Read chosen values from the log and send them to `to` as a [`Range`](crate::message::Range).
    ReadLog {
        /// The member that is behind.
        to: NodeId,
        /// The first instance.
        from: Instance,
        /// One after the last: the group's `next`.
        below: Instance,
        /// A ballot under which the instance before `below` was chosen.
        chosen: Ballot,
        /// The window.
        bytes_max: u32,
    },
    /// This node leads the group from now on, or no longer.
    Leading(bool),
    /// The group has other members from here on.
    Membership,
    /// The command of this node with this counter was executed, but what it answered is not known here.
    Skipped {
        /// Its counter.
        counter: u64,
    },
    /// A read cannot be answered: the state that it should see was jumped over.
    ReadLost {
        /// Which.
        read: ReadId,
    },
}

/// What must survive a crash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Nothing below this ballot will be accepted.
    Promised(Ballot),
    /// A vote.
    Accepted {
        /// Where.
        instance: Instance,
        /// Under which ballot.
        ballot: Ballot,
        /// A ballot under which the instance before was chosen.
        chosen: Ballot,
        /// For what.
        value: Value,
    },
    /// Where the group is: written again before older records are dropped from the log.
    Position {
        /// The lowest instance not known to be chosen.
        next: Instance,
        /// The highest ballot promised.
        promised: Ballot,
        /// A ballot under which the instance before `next` was chosen.
        chosen: Ballot,
    },
    /// A vote, or a learned value, of which the log has only that it was there. Never persisted: it is what recovery
    /// finds where a value fails its checksum.
    Lost {
        /// Where.
        instance: Instance,
        /// Under which ballot.
        ballot: Ballot,
        /// Whether it was learned to be chosen.
        learned: bool,
    },
    /// A chosen value that this node had not accepted under its chosen ballot.
    Learned {
        /// Where.
        instance: Instance,
        /// A ballot under which it was chosen.
        ballot: Ballot,
        /// A ballot under which the instance before was chosen.
        chosen: Ballot,
        /// The value.
        value: Value,
    },
}
