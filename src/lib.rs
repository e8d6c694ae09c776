//! Paxoi: a durable, linearizable, replicated key/value server for Redis clients, made of many Paxos groups.

pub mod admin;
pub mod background;
pub mod backup;
pub mod client;
pub mod cmd;
pub mod config;
pub mod descriptors;
pub mod duration;
pub mod endpoint;
pub mod gate;
pub mod identity;
pub mod kv;
pub mod loadgen;
pub mod logging;
pub mod node;
mod nodes;
pub mod plural;
pub mod resolver;
pub mod rng;
pub mod routing;
pub mod server;
pub mod shard;
pub mod size;
pub mod storage;
pub mod usage;
pub mod verify;
