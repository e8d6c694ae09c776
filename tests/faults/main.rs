//! Clusters of real processes whose connections between each other pass through a proxy that holds, delays, refuses and
//! cuts them, one direction at a time, while nodes are killed and stopped, and clients record what they are told. In each
//! scenario what they were told is linearizable, a majority that is connected goes on, and everybody serves again when
//! the faults are over.
//!
//! ```text
//! proxy       the network between the nodes       stage    the cluster, the clients, and what is expected of them
//! partitions  who cannot reach whom               links    slow, broken and half open connections
//! processes   killed and stopped nodes meanwhile  random   all of it in any order; PAXOI_FAULT_SECONDS for longer
//! ```

#[path = "../harness/mod.rs"]
mod harness;
mod links;
mod partitions;
mod processes;
mod proxy;
mod random;
mod stage;
