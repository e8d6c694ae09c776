//! Paxoi: a durable, linearizable, replicated key/value server for Redis clients, made of many Paxos groups.

pub mod admin;
pub mod bench;
pub mod checkpoint;
pub mod cli;
pub mod client;
pub mod config;
pub mod descriptors;
pub mod disk;
pub mod duration;
pub mod gate;
pub mod history;
pub mod identity;
pub mod kv;
pub mod local;
pub mod log;
pub mod logging;
pub mod member;
pub mod node;
pub mod resolver;
pub mod rng;
pub mod routing;
pub mod server;
pub mod shard;
pub mod size;
pub mod status;
pub mod sweep;
