//! What the fuzzers do with their bytes: plain functions that panic when the code is wrong. `cargo fuzz` calls them with
//! bytes of its own, and `tests/corpus.rs` with every input that was worth keeping.

#![allow(unreachable_pub, reason = "shared by a test and the fuzz targets")]

pub mod checkpoint;
pub mod command;
pub mod configuration;
pub mod log_recovery;
pub mod peer_frame;
pub mod resp_request;

/// A target: its name, which its folder of inputs has too, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
#[allow(dead_code, reason = "a fuzz target runs only its own")]
pub const TARGETS: [Target; 6] = [
    ("checkpoint", checkpoint::run),
    ("command", command::run),
    ("configuration", configuration::run),
    ("log_recovery", log_recovery::run),
    ("peer_frame", peer_frame::run),
    ("resp_request", resp_request::run),
];

/// Takes the first byte off, 0 if there is none: the fuzzer's way to choose.
fn choice(data: &mut &[u8]) -> u8 {
    let Some((first, rest)) = data.split_first() else { return 0 };
    *data = rest;
    *first
}

/// The same with two bytes.
fn wide_choice(data: &mut &[u8]) -> usize {
    usize::from(choice(data)) << 8 | usize::from(choice(data))
}

/// Takes up to `count` bytes off.
fn piece<'a>(data: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (piece, rest) = data.split_at(count.min(data.len()));
    *data = rest;
    piece
}
