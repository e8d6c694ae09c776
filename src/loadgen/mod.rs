//! Load generators: `bench` runs one workload against any server of the Redis protocol, and `sweep` repeats it
//! with different numbers of groups.

pub mod bench;
pub mod sweep;
