//! Paxoi: a durable, linearizable, replicated key/value server for Redis clients, made of many Paxos groups.

pub mod admin;
pub mod bench;
pub mod client;
pub mod disk;
pub mod identity;
pub mod kv;
pub mod log;
pub mod rng;
pub mod routing;
pub mod status;
pub mod sweep;
