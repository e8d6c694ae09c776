//! Clusters of real processes. The connections between nodes pass through a proxy that holds, delays, refuses and cuts
//! them, one direction at a time. Meanwhile nodes are killed and stopped, and clients record their replies. In each
//! scenario the history is linearizable, a connected majority goes on, and every node serves again when the faults are
//! over.
//!
//! ```text
//! proxy       the network between the nodes       stage    the cluster, the clients, and what is expected of them
//! partitions  nodes that cannot reach each other  links    slow, broken and half open connections
//! processes   killed and stopped nodes meanwhile  random   all faults in any order; PAXOI_FAULT_SECONDS for longer
//! ```

#[path = "../harness/mod.rs"]
mod harness;
mod links;
mod partitions;
mod processes;
mod proxy;
mod random;
mod stage;
