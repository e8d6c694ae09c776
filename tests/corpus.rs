//! Runs every input again that a fuzzer found worth keeping: see `tests/fuzz`.

#[path = "fuzz/bodies/mod.rs"]
mod bodies;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Maximum inputs of a corpus: it stays small enough to be read with the code.
const FILES_MAX: usize = 100;

#[test]
fn saved_inputs_still_pass() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    for (name, run) in bodies::TARGETS {
        let folder = root.join(name);
        let inputs: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!((1..=FILES_MAX).contains(&inputs.len()), "{} has {} inputs", folder.display(), inputs.len());
        for input in inputs {
            let data = fs::read(&input).unwrap();
            let passed = catch_unwind(AssertUnwindSafe(|| run(&data)));
            assert!(passed.is_ok(), "{} fails", input.display());
        }
    }
}
