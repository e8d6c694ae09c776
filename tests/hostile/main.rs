//! Bad input against real processes: from clients, from strangers that speak the peer protocol, and from operators.
//! Each gets a clear error for its connection or process. All others are still served, and memory stays bounded.
//!
//! ```text
//! requests   bad input where a client is expected        frames   bad input where a member is expected
//! words      wrong flags, files and directories
//! ```

mod frames;
#[path = "../harness/mod.rs"]
mod harness;
mod requests;
mod words;
