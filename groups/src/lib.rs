//! Pure Multi-Paxos: inputs in, effects out. No sockets, files, threads, clocks, or randomness of its own.

mod types;

pub use types::{Ballot, GroupId, Instance, NodeId};
