//! The bodies of the fuzz targets: plain functions that panic when the code is wrong. `cargo fuzz` calls them with
//! bytes of its own, and `tests/corpus.rs` with every input that was worth keeping.

#![allow(unreachable_pub, reason = "shared by a test and the fuzz targets")]

pub mod checkpoint;
pub mod command;
pub mod configuration;
pub mod log_recovery;
pub mod peer_frame;
pub mod resp_request;

/// A target: its name, which is also that of its corpus folder, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
#[allow(dead_code, reason = "a fuzz target runs only its own body")]
pub const TARGETS: [Target; 6] = [
    ("checkpoint", checkpoint::run),
    ("command", command::run),
    ("configuration", configuration::run),
    ("log_recovery", log_recovery::run),
    ("peer_frame", peer_frame::run),
    ("resp_request", resp_request::run),
];

/// Takes and returns the first byte, or 0 if there is none. The fuzzer controls a body's choices with such bytes.
fn choice(data: &mut &[u8]) -> u8 {
    let Some((first, rest)) = data.split_first() else { return 0 };
    *data = rest;
    *first
}

/// Takes two bytes in the same way, as one number.
fn wide_choice(data: &mut &[u8]) -> usize {
    usize::from(choice(data)) << 8 | usize::from(choice(data))
}

/// Takes and returns up to `count` bytes.
fn piece<'a>(data: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (piece, rest) = data.split_at(count.min(data.len()));
    *data = rest;
    piece
}
