//! The `paxoi` program.

fn main() {}
