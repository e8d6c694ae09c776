//! Pure Multi-Paxos: inputs in, effects out. No sockets, files, threads, clocks, or randomness of its own.
//!
//! [`Acceptor`](acceptor::Acceptor) and [`Proposer`](proposer::Proposer) are the rules of one decision. A [`Group`]
//! adds the order of instances, a lasting leader, learning, and the clients' commands and reads. Everything that a
//! member must remember leaves as a [`Record`], and everything that it sends as a [`Message`]. [`Paxos`] is a second
//! use of the same rules: decisions side by side, in the style of the MIT Paxos lab.

pub mod acceptor;
mod confirmation;
mod dedup;
mod effect;
mod group;
mod jitter;
mod machine;
pub mod members;
pub mod membership;
pub mod message;
pub mod origin;
pub mod paxos;
pub mod proposer;
pub mod queue;
pub mod reads;
mod types;
mod units;
mod value;
mod work;

pub use confirmation::{Confirmation, ConfirmationOutcome};
pub use dedup::DedupTable;
pub use effect::{Effect, Record};
pub use group::{
    Applying, Clock, ElectionContext, Group, LeadershipAnswer, LocalOutcome, RestoreError, Settings, Snapshot,
    StateDiffers,
};
pub use jitter::SplitMix64;
pub use machine::{LOOK_AHEAD_MAX, StateMachine};
pub use members::Members;
pub use membership::{Membership, MembershipChange};
pub use message::Message;
pub use paxos::{Fate, Paxos};
pub use types::{Ballot, GroupId, Instance, NodeId};
pub use units::{Ms, Us};
pub use value::{
    COMMAND_HEADER_BYTES, Command, CommandId, Commands, Counter, MACHINE_OF_VERSION_3, MACHINE_OF_VERSION_4,
    VALUE_HEADER_BYTES, VALUE_VERSION_MAX, Value, ValueBuilder, ValueError, put_command,
};
pub use work::{BYTES_PER_STEP, WorkBudget};

/// Interval between calls of [`Group::tick`], in milliseconds.
pub const TICK_MS: Ms = Ms(20);
