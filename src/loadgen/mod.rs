//! Load for any server of the Redis protocol: one run of a workload (`bench`), and runs over numbers of groups (`sweep`).

pub mod bench;
pub mod sweep;
