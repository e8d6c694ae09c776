//! Power cuts: the log that is left has every durable record, and no record that was never written.

use super::format::{FramePlace, encode_frame};
use super::*;
use crate::storage::wal::{Lsn, SegmentSequence};

/// Returns a disk with a small log, its records, the records of one more batch, and the offset and bytes of that
/// batch's frame.
fn with_next_frame(marked: bool) -> (MemoryDisk, Written, Written, usize, Vec<u8>) {
    let disk = MemoryDisk::new();
    let mut writer = open_new(&disk);
    let written = small_log(&mut writer);
    if marked {
        writer.write_durability_marker().unwrap();
    }
    let before = disk.content(FIRST).unwrap();
    let other = disk.killed();
    let (mut writer, ..) = open(&other).unwrap();
    let records = vec![accept(1, 3, vec![9; 900]), promise(3, 4), accept(2, 2, "end")];
    let size = frame_bytes(&records) as usize;
    // Opening the log counts a durability marker as a frame. So the marker is removed first, and the next frame gets
    // the lsn that the first writer would have given to it.
    let lsn = written[written.len() - 1].0.following();
    let next = if marked {
        let disk = disk.killed();
        disk.set_content(FIRST, unmarked(before.clone()));
        let (mut writer, ..) = open(&disk).unwrap();
        let next = append(&mut writer, records).unwrap();
        other.set_content(FIRST, disk.content(FIRST).unwrap());
        next
    } else {
        append(&mut writer, records).unwrap()
    };
    assert_eq!(next[0].0, lsn);
    let tail = frames_end(&written);
    let frame = other.content(FIRST).unwrap()[tail..tail + size].to_vec();
    (disk, written, next, tail, frame)
}

fn frames_end(written: &[(Lsn, Record)]) -> usize {
    let last = written[written.len() - 1].0.0;
    let frame = |lsn: Lsn| -> Vec<Record> {
        written.iter().filter(|(other, _)| *other == lsn).map(|(_, record)| record.clone()).collect()
    };
    SEGMENT_HEADER_BYTES + (1..=last).map(|lsn| frame_bytes(&frame(Lsn(lsn))) as usize).sum::<usize>()
}

fn unmarked(mut content: Vec<u8>) -> Vec<u8> {
    let end = content.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let start = end.next_multiple_of(8) - FRAME_HEADER_BYTES;
    assert!(content[start..].starts_with(&format::FRAME_MAGIC));
    content[start..].fill(0);
    content
}

/// Opens a crashed disk, and checks its records and that the log can go on. Returns true if records of `unsure` were
/// read.
fn check(disk: &MemoryDisk, durable: &[(Lsn, Record)], unsure: &[(Lsn, Record)]) -> bool {
    let (mut writer, _, seen) = open(disk).unwrap();
    let whole: Vec<_> = durable.iter().chain(unsure).cloned().collect();
    assert!(seen == durable || seen == whole, "read {} of {} + {}", seen.len(), durable.len(), unsure.len());
    let later = append(&mut writer, vec![promise(9, 99)]).unwrap();
    let (_, recovered, again) = open(&disk.crash(1)).unwrap();
    assert_eq!(again, [&seen[..], &later[..]].concat());
    assert_eq!(recovered.torn_bytes, 0, "the remains were removed");
    seen.len() > durable.len()
}

#[test]
fn a_frame_torn_at_any_byte_is_dropped_whole() {
    for marked in [false, true] {
        let (disk, durable, next, tail, frame) = with_next_frame(marked);
        let before = disk.content(FIRST).unwrap();
        for cut in 0..=frame.len() {
            // The start of the frame arrived and the end did not, or the other way round.
            for arrived in [0..cut, cut..frame.len()] {
                let mut content = before.clone();
                content[tail..][arrived.clone()].copy_from_slice(&frame[arrived]);
                let is_whole = content[tail..].starts_with(&frame);
                let image = disk.killed();
                image.set_content(FIRST, content);
                assert_eq!(check(&image, &durable, &next), is_whole, "cut at {cut}");
            }
        }
    }
}

#[test]
fn any_sectors_of_an_unsynced_frame_may_be_missing() {
    let mut outcomes = [false; 2];
    for marked in [false, true] {
        let (disk, durable, next, tail, frame) = with_next_frame(marked);
        disk.open(FIRST).unwrap().write_at(tail as u64, &frame).unwrap();
        for seed in 0..300 {
            outcomes[usize::from(check(&disk.crash(seed), &durable, &next))] = true;
        }
    }
    assert_eq!(outcomes, [true; 2], "both outcomes were seen");
}

#[test]
fn what_was_visited_after_a_kill_survives_a_power_cut() {
    let (disk, durable, next, tail, frame) = with_next_frame(false);
    disk.open(FIRST).unwrap().write_at(tail as u64, &frame).unwrap();
    let killed = disk.killed();
    let (_, recovered, seen) = open(&killed).unwrap();
    assert_eq!(seen, [durable, next].concat(), "it is in the page cache");
    assert!(recovered.rewritten_bytes >= frame.len() as u64);
    for seed in 0..100 {
        assert_eq!(open(&killed.crash(seed)).unwrap().2, seen);
    }
}

#[test]
fn a_frame_whose_sync_failed_is_not_trusted_from_the_page_cache() {
    let disk = MemoryDisk::new();
    let mut writer = open_new(&disk);
    let durable = small_log(&mut writer);
    disk.fail_syncs("log-", 0);
    let records = vec![accept(1, 3, "x")];
    assert!(append(&mut writer, records.clone()).is_err());
    // The process restarts. It can read the frame, but the device does not have it.
    let restarted = disk.killed();
    let seen = open(&restarted).unwrap().2;
    assert_eq!(seen.len(), durable.len() + 1);
    assert_eq!(open(&restarted.crash(5)).unwrap().2, seen, "now the device has it");
}

/// Writes batches of many sizes through several segments until the disk fails. Returns the durable records and those of
/// the failed batch.
fn write_until_failure(disk: &MemoryDisk) -> (Written, Written) {
    let Ok((mut writer, ..)) = open(disk) else { return (Vec::new(), Vec::new()) };
    let mut durable = Vec::new();
    for round in 1..=20 {
        let size = [10, 20_000, 3, 40_000, 70_000][round as usize % 5];
        let records = vec![promise(0, round), accept(1, round, vec![round as u8; size])];
        let lsn = writer.next_lsn();
        match append(&mut writer, records.clone()) {
            Ok(written) => durable.extend(written),
            Err(_) => return (durable, records.into_iter().map(|record| (lsn, record)).collect()),
        }
        if round % 3 == 0 && writer.write_durability_marker().is_err() {
            break;
        }
    }
    (durable, Vec::new())
}

#[test]
fn through_segments_and_failures_at_every_operation() {
    let mut failures = 0;
    for after in 0..60 {
        for writes in [true, false] {
            let disk = failing_disk(writes, after);
            let (durable, unsure) = write_until_failure(&disk);
            failures += usize::from(!unsure.is_empty());
            for seed in 0..6 {
                check(&disk.crash(seed), &durable, &unsure);
            }
            check(&disk.killed(), &durable, &unsure);
        }
    }
    assert!(failures > 50, "{failures}");
    let disk = MemoryDisk::new();
    let (durable, unsure) = write_until_failure(&disk);
    assert!(unsure.is_empty() && disk.list().unwrap().len() > 5, "{:?}", disk.list());
    assert!(!check(&disk.crash(0), &durable, &[]));
}

#[test]
fn a_segment_whose_name_was_not_yet_durable_is_not_lost_later() {
    let disk = MemoryDisk::new();
    let mut written = small_log(&mut open_new(&disk));
    let started = MemoryDisk::new();
    started.set_content("spare", disk.content(FIRST).unwrap());
    // The process was killed before the directory was synced.
    started.rename("spare", FIRST).unwrap();
    let (mut writer, ..) = open(&started).unwrap();
    written.extend(append(&mut writer, vec![promise(1, 9)]).unwrap());
    for seed in 0..20 {
        assert_eq!(open(&started.crash(seed)).unwrap().2, written);
    }
}

#[test]
fn a_value_that_looks_like_a_frame_makes_no_torn_frame_rotten() {
    let disk = MemoryDisk::new();
    let mut writer = open_new(&disk);
    let durable = small_log(&mut writer);
    let seal = seal_of(&disk, FIRST);
    let place = FramePlace { seal, lsn: Lsn(99), durable: Lsn(98), segment: SegmentSequence(1), previous: 0 };
    let mut value = Vec::new();
    encode_frame(&mut value, place, &[promise(1, 1)]);
    value.extend_from_slice(&[1; 100]);
    let next = append(&mut writer, vec![accept(1, 3, value)]).unwrap();
    let mut content = disk.content(FIRST).unwrap();
    let last = content.iter().rposition(|byte| *byte != 0).unwrap();
    content[last] = 0;
    disk.set_content(FIRST, content);
    assert!(!check(&disk, &durable, &next));
}
