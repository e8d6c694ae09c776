//! The manifest with each bit flipped, and the rank that selects a group's state from several directories.

use super::manifest::{File, MANIFEST_VERSION, Manifest, State};
use super::stopped::Rank;
use groups::{Ballot, Instance, Ms, NodeId};

fn manifest() -> Manifest {
    let state = |group| State { group, file: 0, instance: 7, digest: format!("{group:016x}"), keys: 3, bytes: 100 };
    Manifest {
        format: MANIFEST_VERSION,
        program: "paxoi 0.1.0".to_owned(),
        made_unix_s: 1_700_000_000,
        cluster_id: "03".repeat(16),
        nodes: vec![1, 3],
        groups: 2,
        value_bytes_max: 1 << 20,
        session_ttl_ms: Ms(1_000),
        files: vec![File { name: "checkpoint-0000000000000001".to_owned(), bytes: 4_096 }],
        states: (0..2).map(state).collect(),
        crc32c: 0,
    }
}

#[test]
fn a_manifest_with_a_flipped_bit_is_refused_or_says_the_same() {
    let text = manifest().encode().unwrap();
    let sound = Manifest::decode(&text).unwrap();
    assert_eq!(Manifest { crc32c: 0, ..sound.clone() }, manifest());
    let mut refused = 0;
    for bit in 0..text.len() * 8 {
        let mut flipped = text.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        match Manifest::decode(&flipped) {
            Ok(other) => assert_eq!(other, sound, "bit {bit}"),
            Err(_) => refused += 1,
        }
    }
    // The accepted flips turn one whitespace character into another.
    assert!(refused > text.len() * 7, "{refused} of {} bits", text.len() * 8);
}

#[test]
fn a_manifest_must_name_one_state_of_each_group_in_files_that_there_are() {
    let refused = |change: &dyn Fn(&mut Manifest)| {
        let mut wrong = manifest();
        change(&mut wrong);
        Manifest::decode(&wrong.encode().unwrap()).unwrap_err().to_string()
    };
    assert!(refused(&|manifest| drop(manifest.states.pop())).contains("one state of each group"));
    assert!(refused(&|manifest| manifest.states[1].group = 0).contains("one state of each group"));
    assert!(refused(&|manifest| manifest.states[1].file = 1).contains("one state of each group"));
    assert!(refused(&|manifest| manifest.format = MANIFEST_VERSION + 1).contains("reads only"));
    assert!(Manifest::decode(b"{}").is_err());
}

#[test]
fn of_several_directories_the_state_counts_that_a_new_leader_would_propose() {
    let ballot = |round| Ballot { round, node: NodeId(1) };
    let rank = |instance, confirmed, round| Rank { instance: Instance(instance), confirmed, ballot: ballot(round) };
    assert!(rank(7, false, 1) > rank(6, true, 9), "a later vote includes what was chosen before");
    assert!(rank(7, true, 1) > rank(7, false, 9), "what was chosen stays chosen");
    assert!(rank(7, false, 9) > rank(7, false, 1), "of two votes the later ballot may have been chosen");
}
