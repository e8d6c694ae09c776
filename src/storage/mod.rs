//! What is on the disk, and how it gets there and back: the write-ahead log, checkpoints, and a look at old bytes
//! now and then. All of it goes through [`disk`], of which tests have one in memory.

pub mod checkpoint;
pub mod disk;
mod fields;
mod numbered;
pub mod scrub;
pub mod wal;
