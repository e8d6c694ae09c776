//! Old segments are removed when nothing in them counts any more, and the rest is a valid log at every moment.

use super::*;
use crate::storage::wal::{Lsn, SegmentSequence};

/// Writes one instance of each of two groups to each segment. The second group is quiet after the second segment.
fn segments(writer: &mut Writer, count: u64) -> Written {
    let mut written = Written::new();
    for instance in 1..=count {
        let mut records = vec![accept(0, instance, vec![instance as u8; 60_000])];
        if instance <= 2 {
            records.push(accept(1, instance, "quiet"));
        }
        written.extend(append(writer, records).unwrap());
    }
    written
}

fn names(disk: &MemoryDisk) -> Vec<String> {
    disk.list().unwrap().into_iter().filter(|name| is_segment(name)).collect()
}

#[test]
fn a_segment_is_kept_while_it_has_a_value_that_no_checkpoint_has() {
    let disk = MemoryDisk::new();
    let mut writer = open_new(&disk);
    segments(&mut writer, 5);
    let droppable = |zero: u64, one: u64| writer.droppable(&[Instance(zero), Instance(one)]).map(|found| found.below);
    assert_eq!(droppable(0, 0), None);
    assert_eq!(droppable(4, 1), Some(SegmentSequence(2)), "the second segment has a later value of the quiet group");
    assert_eq!(droppable(4, 2), Some(SegmentSequence(5)));
    assert_eq!(droppable(3, 2), Some(SegmentSequence(4)));
    assert_eq!(droppable(9, 9), Some(SegmentSequence(5)), "never the last one");
    assert_eq!(writer.droppable(&[Instance(9), Instance(9)]).unwrap().lsn, Lsn(5));
}

#[test]
fn what_is_left_is_a_log_that_reads_on_from_there() {
    let disk = MemoryDisk::new();
    let mut writer = open_new(&disk);
    let mut written = segments(&mut writer, 4);
    written.extend(append(&mut writer, vec![Record::Trimmed { below: SegmentSequence(4) }]).unwrap());
    let (bytes, segments) = (writer.status().bytes(), writer.status().segments());
    writer.drop_segments(SegmentSequence(4)).unwrap();
    assert_eq!(names(&disk).len() as u64, segments - 3);
    assert_eq!(writer.status().segments(), segments - 3);
    assert_eq!(writer.status().bytes(), bytes - 3 * (64 << 10));
    let (again, _, seen) = open(&disk.killed()).unwrap();
    assert_eq!(seen, written[5..]);
    assert_eq!(again.next_lsn(), writer.next_lsn());
    let mut reader = again.reader();
    let range = |from| ReadRange {
        tag: 0,
        group: GroupId(0),
        from: Instance(from),
        below: Instance(5),
        last_chosen: ballot(1, 1),
        bytes_max: usize::MAX,
    };
    assert_eq!(reader.read(&range(2)).unwrap(), [], "it was dropped");
    assert_eq!(reader.read(&range(4)).unwrap().len(), 1);
}

#[test]
fn a_segment_that_goes_without_a_record_is_missed() {
    let disk = MemoryDisk::new();
    let mut writer = open_new(&disk);
    segments(&mut writer, 4);
    append(&mut writer, vec![Record::Trimmed { below: SegmentSequence(3) }]).unwrap();
    writer.drop_segments(SegmentSequence(4)).unwrap();
    let error = open(&disk.killed()).err().unwrap().to_string();
    assert!(error.starts_with("log file log-0000000000000003 is missing"), "{error}");
}

#[test]
fn a_crash_between_any_two_steps_of_it_leaves_a_log() {
    let disk = MemoryDisk::new();
    let mut writer = open_new(&disk);
    let mut written = segments(&mut writer, 4);
    written.extend(append(&mut writer, vec![Record::Trimmed { below: SegmentSequence(4) }]).unwrap());
    for below in 1..=4 {
        writer.drop_segments(SegmentSequence(below)).unwrap();
        let image = disk.crash(below);
        assert_eq!(names(&image).len() as u64, 5 - below, "each removal is durable before the next");
        let (_, _, seen) = open(&image).unwrap();
        assert_eq!(seen, written[written.len() - seen.len()..]);
    }
}

#[test]
fn a_segment_that_cannot_be_removed_goes_before_the_next_one() {
    let disk = MemoryDisk::new();
    let mut writer = open_new(&disk);
    let mut written = segments(&mut writer, 4);
    written.extend(append(&mut writer, vec![Record::Trimmed { below: SegmentSequence(4) }]).unwrap());
    disk.fail_removes("log-", 1);
    let before = writer.status().segments();
    assert!(writer.drop_segments(SegmentSequence(4)).unwrap_err().to_string().contains("injected"));
    assert_eq!(
        (names(&disk).len(), writer.status().segments()),
        (3, before - 1),
        "the first is gone, the second is not"
    );
    let (_, _, seen) = open(&disk.killed()).unwrap();
    assert_eq!(seen, written[written.len() - seen.len()..], "a start finds no gap");
    writer.drop_segments(SegmentSequence(4)).unwrap();
    assert_eq!((names(&disk).len(), writer.status().segments()), (1, before - 3));
}
