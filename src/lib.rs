//! Paxoi: a durable, linearizable, replicated key/value server for Redis clients, made of many Paxos groups.

pub mod kv;
pub mod routing;
