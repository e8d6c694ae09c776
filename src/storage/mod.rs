//! Storage: the write-ahead log, checkpoints, and the scrub, which reads old files at intervals. All of it goes through
//! [`disk`], which has an implementation in memory for tests.

pub mod checkpoint;
pub mod disk;
mod fields;
mod numbered;
pub mod scrub;
pub mod wal;
