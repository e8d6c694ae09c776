//! The key/value store that every group replicates, and the Redis commands on it.

pub mod reply;
