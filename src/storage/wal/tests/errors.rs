//! An error of the log is one line that says what to do.

use super::format::{FramePlace, encode_frame};
use super::*;
use crate::storage::wal::{Lsn, SegmentSequence, inspect_log};

/// Returns a disk whose log has three segments.
fn three_segments() -> MemoryDisk {
    let disk = MemoryDisk::new();
    let mut writer = open_new(&disk);
    for instance in 1..=3 {
        append(&mut writer, vec![accept(1, instance, vec![1; 40_000])]).unwrap();
    }
    assert_eq!(writer.status().segments(), 3);
    assert_eq!(writer.status().bytes(), 3 * (64 << 10));
    disk
}

fn error(disk: &MemoryDisk) -> String {
    let error = open(disk).err().unwrap().to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}

#[test]
fn missing_foreign_and_renamed_segments() {
    let disk = three_segments();
    disk.remove(SECOND).unwrap();
    assert!(error(&disk).starts_with("log file log-0000000000000002 is missing; "));

    let disk = three_segments();
    disk.remove(FIRST).unwrap();
    assert!(error(&disk).starts_with("log file log-0000000000000001 is missing; "));

    let disk = three_segments();
    disk.rename("log-0000000000000003", SECOND).unwrap();
    assert!(error(&disk).contains("its header is that of log-0000000000000003"));

    let disk: Arc<dyn Disk> = Arc::new(three_segments());
    let foreign = recover(&disk, [1; 16], secret(), options(), &mut |_, _| {}, &mut |_, _| {}).err().unwrap();
    assert!(matches!(foreign, LogError::Foreign { .. }), "{foreign}");
}

#[test]
fn a_last_segment_that_is_gone_shows_when_its_successor_does_not_fit() {
    let disk = three_segments();
    let other = MemoryDisk::new();
    let mut writer = open_new(&other);
    for instance in 1..=2 {
        append(&mut writer, vec![accept(1, instance, vec![2; 50_000])]).unwrap();
    }
    disk.set_content(SECOND, other.content(SECOND).unwrap());
    assert!(error(&disk).contains("does not follow"));
}

#[test]
fn later_versions_are_not_guessed_at() {
    let disk = three_segments();
    let mut content = disk.content(SECOND).unwrap();
    content[8] = 9;
    let crc = crc32c::crc32c(&content[..SEGMENT_HEADER_BYTES - 4]).to_le_bytes();
    content[SEGMENT_HEADER_BYTES - 4..SEGMENT_HEADER_BYTES].copy_from_slice(&crc);
    disk.set_content(SECOND, content);
    assert!(error(&disk).contains("has format version 9, but this program reads only versions up to 2"));

    let disk = MemoryDisk::new();
    drop(open_new(&disk));
    let seal = seal_of(&disk, FIRST);
    let place = FramePlace { seal, lsn: Lsn(1), durable: Lsn(0), segment: SegmentSequence(1), previous: 0 };
    let mut frame = Vec::new();
    encode_frame(&mut frame, place, &[accept(1, 1, "")]);
    // Changes the record kind, the CRC of the record headers, and the CRC of the frame header.
    frame[FRAME_HEADER_BYTES] = 77;
    let records_crc = crc32c::crc32c(&frame[FRAME_HEADER_BYTES..]).to_le_bytes();
    frame[40..44].copy_from_slice(&records_crc);
    let crc = crc32c::crc32c_append(seal.crc, &frame[..52]).to_le_bytes();
    frame[52..56].copy_from_slice(&crc);
    let mut content = disk.content(FIRST).unwrap();
    content[SEGMENT_HEADER_BYTES..SEGMENT_HEADER_BYTES + frame.len()].copy_from_slice(&frame);
    disk.set_content(FIRST, content);
    assert!(error(&disk).contains("has a record of the unknown kind 77 at byte 64"));
}

#[test]
fn progress_ends_at_the_whole() {
    let disk: Arc<dyn Disk> = Arc::new(three_segments());
    let mut progress = Vec::new();
    recover(&disk, STORAGE_ID, secret(), options(), &mut |done, total| progress.push((done, total)), &mut |_, _| {})
        .unwrap();
    assert_eq!(progress, [(0, 3 << 16), (1 << 16, 3 << 16), (2 << 16, 3 << 16), (3 << 16, 3 << 16)]);
}

fn inspected(disk: &MemoryDisk, with_records: bool) -> (bool, String) {
    let before = disk.writes();
    let mut out = Vec::new();
    let usable = inspect_log(disk, with_records, &mut out).unwrap();
    assert_eq!(disk.writes(), before);
    (usable, String::from_utf8(out).unwrap())
}

#[test]
fn inspection_tells_sound_torn_and_unusable_logs() {
    let disk = MemoryDisk::new();
    assert_eq!(inspected(&disk, false), (true, "no log in memory\n".to_owned()));
    let mut writer = open_new(&disk);
    small_log(&mut writer);
    let sound = "log-0000000000000001  lsn 1..3  3 frames  600 of 65536 bytes\n\
                 storage 5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a: 1 segment, 3 frames, 5 records, 536 bytes\n";
    let (usable, text) = inspected(&disk, false);
    assert!(usable && text == format!("{sound}the last 208 bytes are not known to be durable\nsound\n"), "{text}");

    let (_, text) = inspected(&disk, true);
    assert!(text.contains("\n    promise  group 2 ballot 8.2\n"), "{text}");
    assert!(text.contains("\n    accept   group 2 instance 1 ballot 1.1, prior value under 0.0, 12 bytes\n"), "{text}");

    append(&mut writer, vec![accept(1, 3, "the end never reached the disk")]).unwrap();
    let mut content = disk.content(FIRST).unwrap();
    let last = content.iter().rposition(|byte| *byte != 0).unwrap();
    content[last] = 0;
    disk.set_content(FIRST, content.clone());
    let (usable, text) = inspected(&disk, false);
    assert!(
        usable
            && text.ends_with("torn: 136 bytes of frame 4, whose write never finished; the next start removes them\n"),
        "{text}"
    );

    content[200] ^= 1;
    disk.set_content(FIRST, content);
    let (usable, text) = inspected(&disk, false);
    assert!(!usable && text.contains("unusable: log file log-0000000000000001 is corrupt at byte 64: "), "{text}");
}
