//! Bad input against real processes: what clients, strangers on the peers' port and operators can get wrong. Each gets a
//! clear error for that connection or that process; the others are served on, and memory stays bounded.
//!
//! ```text
//! requests   what comes where a client is expected       frames   what comes where a member is expected
//! words      wrong flags, files and directories
//! ```

mod frames;
#[path = "../harness/mod.rs"]
mod harness;
mod requests;
mod words;
