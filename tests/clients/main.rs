//! Real Redis clients against a real cluster: three processes of the built binary, as a user starts them.
//!
//! Each test has a cluster of its own. A test whose program is not installed prints `skipped: no <program>` and passes;
//! with `PAXOI_REQUIRE_TOOLS=1` it fails instead. `same_as_redis` sends the same bytes to a redis-server and compares
//! every byte that comes back.

mod cluster;
mod cluster_replies;
mod expiry;
mod names;
mod order;
mod redis_benchmark;
mod redis_cli;
mod redis_crate;
mod redis_py;
#[path = "../common/redis_server.rs"]
mod redis_server;
mod same_as_redis;
mod sessions;
mod together;
mod tools;
mod whole_database;
mod wire;
