//! Damage to durable data is always noticed, and never makes the log shorter or empty. If only a value is damaged, the
//! rest still counts.

use super::super::format::{FRAME_MAGIC, SegmentHeader};
use super::*;
use crate::storage::wal::Lsn;

/// Returns true if opening reports a corrupt file, or corrupt values in it.
fn is_noticed(disk: &MemoryDisk) -> bool {
    match open(disk) {
        Err(error) => matches!(error, LogError::Corrupt { .. }),
        Ok((_, recovered, seen)) => {
            let lost = |(_, record): &(Lsn, Record)| matches!(record, Record::Lost { learned: false, .. });
            recovered.rotten > 0 && seen.iter().any(lost)
        }
    }
}

fn with_content(disk: &MemoryDisk, name: &str, content: Vec<u8>) -> MemoryDisk {
    let image = disk.killed();
    image.set_content(name, content);
    image
}

#[test]
fn every_flipped_bit_of_durable_frames_is_found() {
    let disk = MemoryDisk::new();
    let mut writer = open_new(&disk);
    small_log(&mut writer);
    writer.write_durability_marker().unwrap();
    let content = disk.content(FIRST).unwrap();
    let end = content.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let durable = end.next_multiple_of(8) - FRAME_HEADER_BYTES;
    for bit in 0..durable * 8 {
        let mut content = content.clone();
        content[bit / 8] ^= 1 << (bit % 8);
        assert!(is_noticed(&with_content(&disk, FIRST, content)), "bit {bit}");
    }
    let lost = |range: std::ops::Range<usize>| {
        let mut rotten = content.clone();
        rotten[range].fill(0);
        rotten == content || is_noticed(&with_content(&disk, FIRST, rotten))
    };
    for start in (0..durable).step_by(8) {
        assert!(lost(start..start + 8) && lost(start..durable), "from byte {start}");
    }
}

#[test]
fn a_durability_marker_that_rots_costs_nothing() {
    let disk = MemoryDisk::new();
    let mut writer = open_new(&disk);
    let written = small_log(&mut writer);
    writer.write_durability_marker().unwrap();
    let content = disk.content(FIRST).unwrap();
    let end = content.iter().rposition(|byte| *byte != 0).unwrap();
    for at in end.next_multiple_of(8) - FRAME_HEADER_BYTES..=end {
        let mut content = content.clone();
        content[at] ^= 0x10;
        assert_eq!(open(&with_content(&disk, FIRST, content)).unwrap().2, written);
    }
}

#[test]
fn rot_in_a_last_frame_that_fills_its_segment_is_found() {
    // A frame with a segment of its own, and one that leaves no room behind it.
    let exact = (64 << 10) - SEGMENT_HEADER_BYTES - frame_bytes(&[accept(1, 1, "")]) as usize;
    for length in [200_000, exact] {
        let disk = MemoryDisk::new();
        let mut writer = open_new(&disk);
        append(&mut writer, vec![accept(1, 1, vec![7; length])]).unwrap();
        writer.write_durability_marker().unwrap();
        let name = disk.list().unwrap().into_iter().rfind(|name| is_segment(name)).unwrap();
        let mut content = disk.content(&name).unwrap();
        content[1_000] ^= 1;
        assert!(is_noticed(&with_content(&disk, &name, content)), "{length}");
    }
}

#[test]
fn a_segment_before_the_last_cannot_be_torn() {
    let disk = MemoryDisk::new();
    let mut writer = open_new(&disk);
    small_log(&mut writer);
    writer.write_durability_marker().unwrap();
    append(&mut writer, vec![accept(1, 3, vec![1; 65_000])]).unwrap();
    assert!(disk.content(SECOND).is_some());
    let content = disk.content(FIRST).unwrap();
    let marker = content.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for at in (0..marker.next_multiple_of(8) - FRAME_HEADER_BYTES).step_by(3) {
        let mut content = content.clone();
        content[at] ^= 1;
        assert!(is_noticed(&with_content(&disk, FIRST, content)), "byte {at}");
    }
    for size in [0, 63, 64, 100, content.len() - 1] {
        assert!(is_noticed(&with_content(&disk, FIRST, content[..size].to_vec())), "cut at {size}");
    }
    assert!(is_noticed(&with_content(&disk, FIRST, vec![0; content.len()])), "all zeros");
}

#[test]
fn a_segment_shorter_than_its_header_is_none() {
    let disk = MemoryDisk::new();
    small_log(&mut open_new(&disk));
    let mut content = disk.content(FIRST).unwrap();
    let header = SegmentHeader::decode(&content).unwrap();
    content[..SEGMENT_HEADER_BYTES].copy_from_slice(&SegmentHeader { length: 16, ..header }.encode());
    let error = open(&with_content(&disk, FIRST, content)).err().unwrap().to_string();
    assert!(error.contains("its header says that it has 16 bytes"), "{error}");
}

#[test]
fn a_damaged_value_is_lost_and_nothing_else() {
    let disk = MemoryDisk::new();
    let mut writer = open_new(&disk);
    let mut written = small_log(&mut writer);
    writer.write_durability_marker().unwrap();
    let mut content = disk.content(FIRST).unwrap();
    let value = content.windows(12).position(|bytes| bytes == b"second value").unwrap();
    content[value] ^= 1;
    let (_, recovered, seen) = open(&with_content(&disk, FIRST, content)).unwrap();
    let lost = &mut written[3].1;
    let (group, instance, ballot) = (GroupId(2), Instance(1), ballot(1, 1));
    assert_eq!(lost.value().map(|value| (value.group, value.instance, value.ballot)), Some((group, instance, ballot)));
    *lost = Record::Lost { group, instance, ballot, learned: false };
    assert_eq!((seen, recovered.rotten), (written, 1));
}

#[test]
fn the_check_of_a_closed_segment_misses_no_frame() {
    let disk = MemoryDisk::new();
    let mut writer = open_new(&disk);
    for instance in 1..=5 {
        append(&mut writer, vec![accept(0, instance, vec![1; 20_000])]).unwrap();
    }
    assert_eq!(cold_segments(&disk).len(), 1, "the second segment is still written to");
    assert!(check_segment(&disk, FIRST).is_ok());
    let content = disk.content(FIRST).unwrap();
    let frames: Vec<usize> = (0..content.len() - 4).filter(|at| content[*at..].starts_with(&FRAME_MAGIC)).collect();
    assert_eq!(frames.len(), 3);
    for at in frames {
        let cut = with_content(&disk, FIRST, content[..at].to_vec());
        assert!(check_segment(&cut, FIRST).is_err(), "cut off at {at}");
        let mut zeroed = content.clone();
        zeroed[at..at + FRAME_HEADER_BYTES].fill(0);
        assert!(check_segment(&with_content(&disk, FIRST, zeroed), FIRST).is_err(), "zeros at {at}");
    }
}

#[test]
fn corruption_names_the_frame() {
    let disk = MemoryDisk::new();
    let mut writer = open_new(&disk);
    small_log(&mut writer);
    writer.write_durability_marker().unwrap();
    let mut content = disk.content(FIRST).unwrap();
    let offset = SEGMENT_HEADER_BYTES + frame_bytes(&[promise(1, 7), promise(2, 8)]) as usize;
    content[offset + FRAME_HEADER_BYTES + 5] ^= 1;
    let error = open(&with_content(&disk, FIRST, content)).err().unwrap().to_string();
    let wanted = format!(
        "log file {FIRST} is corrupt at byte {offset}: the record headers of frame 2 fail their checksum, \
         but frame 3 at byte "
    );
    assert!(error.starts_with(&wanted), "{error}");
    assert!(!error.contains('\n'));
}

#[test]
fn stale_frames_behind_the_end_do_not_come_back() {
    let disk = MemoryDisk::new();
    let mut writer = open_new(&disk);
    let written = small_log(&mut writer);
    let end = disk.content(FIRST).unwrap().iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut content = disk.content(FIRST).unwrap();
    // The whole log is repeated behind its end, as in a segment that is used again.
    let copy = content[SEGMENT_HEADER_BYTES..end].to_vec();
    let at = end.next_multiple_of(8);
    content[at..at + copy.len()].copy_from_slice(&copy);
    let (mut writer, recovered, seen) = open(&with_content(&disk, FIRST, content.clone())).unwrap();
    assert_eq!((seen, recovered.torn_bytes > 0), (written, true));
    append(&mut writer, vec![promise(5, 5)]).unwrap();

    // Frames of another log are no frames here, wherever they stand.
    let other = MemoryDisk::new();
    let other_disk: Arc<dyn Disk> = Arc::new(other.clone());
    let (mut writer, _) = recover(&other_disk, [1; 16], secret(), options(), &mut |_, _| {}, &mut |_, _| {}).unwrap();
    for _ in 0..9 {
        small_log(&mut writer);
    }
    let foreign = other.content(FIRST).unwrap();
    content[at..at + 4000].copy_from_slice(&foreign[SEGMENT_HEADER_BYTES..SEGMENT_HEADER_BYTES + 4000]);
    open(&with_content(&disk, FIRST, content)).unwrap();
}

#[test]
fn a_frame_of_another_history_does_not_fit_in() {
    // Both go on from copies of one directory.
    let begun = MemoryDisk::new();
    drop(open_new(&begun));
    let log = |second: &'static str| {
        let disk = begun.killed();
        let mut writer = open_new(&disk);
        for (instance, value) in [(1, "first"), (2, second), (3, "third")] {
            append(&mut writer, vec![accept(1, instance, value)]).unwrap();
        }
        writer.write_durability_marker().unwrap();
        disk
    };
    let (disk, other) = (log("one"), log("two"));
    let size = frame_bytes(&[accept(1, 3, "third")]) as usize;
    let third = SEGMENT_HEADER_BYTES + 2 * size..SEGMENT_HEADER_BYTES + 3 * size;
    let mut content = disk.content(FIRST).unwrap();
    let from = other.content(FIRST).unwrap();
    // The frame is copied with the durability marker behind it.
    content[third.start..third.end + FRAME_HEADER_BYTES]
        .copy_from_slice(&from[third.start..third.end + FRAME_HEADER_BYTES]);
    assert!(is_noticed(&with_content(&disk, FIRST, content)));
}
