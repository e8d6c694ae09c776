//! The key/value store that every group replicates, and the Redis commands on it.
//!
//! `table` finds the row of a request's words, `parse` reads the words into a [`command::Command`], `fanout` spreads
//! the command over groups, and `encode` writes it once. A group's [`store::Store`] executes the encoded command and
//! answers with a [`reply::Reply`]. All of this is deterministic: time and random numbers are arguments.

mod block;
pub mod command;
mod digest;
mod directory;
pub mod docs;
pub mod encode;
mod encoding;
mod entry;
mod expiry;
pub mod fanout;
mod frozen;
pub mod glob;
mod limits;
mod long_double;
pub mod long_value;
pub mod number;
mod options;
mod parse;
mod progress;
mod read;
mod reader;
pub mod reply;
pub mod rolling;
mod rows;
mod session;
mod store;
pub(crate) mod stored_reply;
pub mod strings;
pub mod table;
pub mod uploads;
mod write;

pub use block::{BLOCK_VERSION, BlockCheck, BlockError, OnEntry};
pub use directory::KeyPosition;
pub use frozen::Installation;
pub use limits::StoreLimits;
pub use parse::{ParseContext, parse};
pub use progress::CommandProgress;
pub use read::LISTED_BYTES_MAX;
pub use store::{Discarded, ExpiryPending, Store};

#[cfg(test)]
mod tests;
