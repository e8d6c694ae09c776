//! Paxoi: a durable, linearizable, replicated key/value server for Redis clients, made of many Paxos groups.

pub mod disk;
pub mod identity;
pub mod kv;
pub mod log;
pub mod routing;
