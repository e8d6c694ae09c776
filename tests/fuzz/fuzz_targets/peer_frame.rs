//! Fuzzes `bodies/peer_frame.rs`.

#![no_main]

#[path = "../bodies/mod.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::peer_frame::run(data));
