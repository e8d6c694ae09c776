//! The event loop: listener, connections, peer frames and the RESP codec. This crate knows nothing of Paxos.

pub mod backoff;
mod connection;
mod connections;
pub mod event;
pub mod event_loop;
pub mod frame;
mod listener;
pub mod outbound;
pub mod resp;
mod transport;
