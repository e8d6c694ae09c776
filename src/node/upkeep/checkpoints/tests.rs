//! Which files and segments go.

use super::*;
use crate::storage::checkpoint::format::SectionEnd;

fn section(group: u32, instance: u64) -> SectionSummary {
    let end = SectionEnd { blocks: 1, block_bytes: 10, digest: instance };
    SectionSummary { group: GroupId(group), instance: Instance(instance), offset: 0, length: 10, end }
}

/// File 1 has the states of two groups, and file 2 a newer one of the second.
fn checkpoints() -> Checkpoints {
    let mut checkpoints = Checkpoints::new(CheckpointConfig::default(), Workers::ONE);
    checkpoints.set_groups(2);
    checkpoints.add_file(CheckpointSequence(1), 100, &[section(0, 5), section(1, 5)]);
    checkpoints.add_file(CheckpointSequence(2), 50, &[section(1, 9)]);
    for (group, instance, sequence) in [(0, 5, 1), (1, 5, 1), (1, 9, 2)] {
        checkpoints.set_kept(GroupId(group), Instance(instance), CheckpointSequence(sequence));
    }
    checkpoints
}

#[test]
fn a_file_goes_when_no_group_has_its_newest_state_there_and_nobody_fetches_it() {
    let mut checkpoints = checkpoints();
    assert_eq!((checkpoints.count(), checkpoints.bytes(), checkpoints.take_useless(|_| false)), (2, 150, vec![]));
    checkpoints.add_file(CheckpointSequence(3), 70, &[section(0, 7)]);
    checkpoints.set_kept(GroupId(0), Instance(7), CheckpointSequence(3));
    assert!(
        checkpoints.take_useless(|sequence| sequence == CheckpointSequence(1)).is_empty(),
        "another node fetches it"
    );
    assert_eq!((checkpoints.take_useless(|_| false), checkpoints.count()), (vec![CheckpointSequence(1)], 2));
    assert_eq!(checkpoints.newest(GroupId(0)).map(|(instance, file)| (instance.0, file.sequence.0)), Some((7, 3)));
}

#[test]
fn a_damaged_file_whose_groups_have_nothing_else_is_written_anew_first() {
    let mut checkpoints = checkpoints();
    checkpoints.note_damaged(&[CheckpointSequence(1), CheckpointSequence(9)]);
    assert!(!checkpoints.is_idle(), "its groups are wanted");
    assert_eq!(
        checkpoints.take_useless(|_| false),
        [CheckpointSequence(9)],
        "nobody needs the file that could not be read"
    );
    assert_eq!(checkpoints.next_sequence(), CheckpointSequence(10), "numbers are not used again");
}

#[test]
fn old_segments_go_when_the_records_logged_again_are_durable() {
    let mut checkpoints = checkpoints();
    checkpoints.set_trimming(SegmentSequence(4), Lsn(70));
    assert_eq!(
        (checkpoints.take_trimmed(Lsn(69)), checkpoints.take_trimmed(Lsn(70)), checkpoints.take_trimmed(Lsn(71))),
        (None, Some(SegmentSequence(4)), None)
    );
}
