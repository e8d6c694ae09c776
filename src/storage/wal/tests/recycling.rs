//! Old segments are used again. Their old frames lie behind the new ones, and are never taken for frames of the log, nor
//! for a claim that a torn frame was durable.

use super::format::{FRAME_ALIGNMENT, FramePlace, encode_frame};
use super::*;

/// Returns a disk whose log goes on in a segment that was used before, the writer, and the records of the log from
/// there on. Old frames of many sizes lie behind the new ones.
fn on_an_old_segment() -> (MemoryDisk, Writer, Written) {
    let disk = MemoryDisk::new();
    let mut writer = open_new(&disk);
    for instance in 1..=600 {
        append(&mut writer, vec![promise(1, instance), accept(0, instance, vec![instance as u8; instance as usize])])
            .unwrap();
    }
    let last = writer.place().0;
    append(&mut writer, vec![Record::Trimmed { below: last }]).unwrap();
    writer.drop_segments(last).unwrap();
    assert!(spares(&disk).len() > 1, "{:?}", disk.list());
    while writer.place().0 == last {
        append(&mut writer, vec![accept(0, 601, vec![6; 3_000])]).unwrap();
    }
    let below = writer.place().0;
    let mut written = append(&mut writer, vec![Record::Trimmed { below }, accept(2, 1, "second value")]).unwrap();
    writer.drop_segments(below).unwrap();
    written.splice(
        0..0,
        open(&disk.killed()).unwrap().2.into_iter().take_while(|(lsn, _)| *lsn < written[0].0).collect::<Vec<_>>(),
    );
    (disk, writer, written)
}

fn spares(disk: &MemoryDisk) -> Vec<String> {
    disk.list().unwrap().into_iter().filter(|name| name.starts_with("spare")).collect()
}

fn segments(disk: &MemoryDisk) -> Vec<String> {
    disk.list().unwrap().into_iter().filter(|name| is_segment(name)).collect()
}

/// Returns a disk with `count` segments of one value each, and the writer.
fn full_segments(count: u64) -> (MemoryDisk, Writer) {
    let disk = MemoryDisk::new();
    let mut writer = open_new(&disk);
    for instance in 1..=count {
        append(&mut writer, vec![accept(0, instance, vec![1; 60_000])]).unwrap();
    }
    (disk, writer)
}

/// Opens a disk, checks that its log has the records `durable`, or these and `unsure`, and that it can go on. Returns
/// true if it had both.
fn check(disk: &MemoryDisk, durable: &[(Lsn, Record)], unsure: &[(Lsn, Record)]) -> bool {
    let (mut writer, _, seen) = open(disk).unwrap();
    let whole: Vec<_> = durable.iter().chain(unsure).cloned().collect();
    assert!(seen == durable || seen == whole, "read {} of {} + {}", seen.len(), durable.len(), unsure.len());
    let later = append(&mut writer, vec![promise(9, 99)]).unwrap();
    for image in [disk.crash(1), disk.killed()] {
        assert_eq!(open(&image).unwrap().2, [&seen[..], &later[..]].concat());
    }
    seen.len() > durable.len()
}

#[test]
fn a_frame_torn_over_old_frames_is_dropped_whole() {
    let (disk, mut writer, durable) = on_an_old_segment();
    let name = segment_name(writer.place().0);
    let (before, tail) = (disk.content(&name).unwrap(), writer.place().1 as usize);
    let next = append(&mut writer, vec![accept(1, 3, vec![9; 300]), promise(3, 4), accept(2, 2, "end")]).unwrap();
    let frame = disk.content(&name).unwrap()[tail..writer.place().1 as usize].to_vec();
    for cut in 0..=frame.len() {
        for arrived in [0..cut, cut..frame.len()] {
            let mut content = before.clone();
            content[tail..][arrived.clone()].copy_from_slice(&frame[arrived]);
            let is_whole = content[tail..].starts_with(&frame);
            let image = disk.killed();
            image.set_content(&name, content);
            assert_eq!(check(&image, &durable, &next), is_whole, "cut at {cut}");
        }
    }
}

#[test]
fn any_sectors_of_a_frame_may_still_be_those_of_old_frames() {
    let (disk, mut writer, durable) = on_an_old_segment();
    let name = segment_name(writer.place().0);
    let (before, tail) = (disk.content(&name).unwrap(), writer.place().1 as usize);
    let next = append(&mut writer, vec![accept(1, 3, vec![9; 3_000]), promise(3, 4)]).unwrap();
    let frame = disk.content(&name).unwrap()[tail..writer.place().1 as usize].to_vec();
    disk.set_content(&name, before);
    disk.open(&name).unwrap().write_at(tail as u64, &frame).unwrap();
    let mut outcomes = [false; 2];
    for seed in 0..300 {
        outcomes[usize::from(check(&disk.crash(seed), &durable, &next))] = true;
    }
    assert_eq!(outcomes, [true; 2], "both outcomes were seen");
}

#[test]
fn every_flipped_bit_of_durable_frames_over_old_ones_is_found() {
    let (disk, mut writer, durable) = on_an_old_segment();
    writer.write_durability_marker().unwrap();
    let name = segment_name(writer.place().0);
    let content = disk.content(&name).unwrap();
    for bit in 0..writer.place().1 as usize * 8 {
        let mut content = content.clone();
        content[bit / 8] ^= 1 << (bit % 8);
        let image = disk.killed();
        image.set_content(&name, content);
        match open(&image) {
            Err(error) => assert!(
                matches!(
                    error,
                    LogError::Corrupt { .. }
                        | LogError::Foreign { .. }
                        | LogError::Version { .. }
                        | LogError::Missing { .. }
                ),
                "{error}"
            ),
            Ok((_, recovered, seen)) => assert!(recovered.rotten > 0 && seen.len() == durable.len(), "bit {bit}"),
        }
    }
}

#[test]
fn old_segments_are_used_before_new_ones_are_made() {
    let (disk, mut writer, _) = on_an_old_segment();
    let before = spares(&disk);
    assert!(before.len() > 2 && before.iter().all(|name| name.len() > "spare".len()), "{before:?}");
    assert_eq!(segments(&disk).len(), 1);
    let first = writer.place().0;
    while writer.place().0 == first {
        append(&mut writer, vec![accept(0, 700, vec![7; 9_000])]).unwrap();
    }
    assert_eq!(spares(&disk), before[1..], "the oldest is used first, and none is made");
    // A start finds those that are left.
    let (mut again, _, seen) = open(&disk.killed()).unwrap();
    assert!(seen.len() > 5);
    let second = again.place().0;
    while again.place().0 == second {
        append(&mut again, vec![accept(0, 700, vec![7; 9_000])]).unwrap();
    }
}

#[test]
fn few_old_segments_are_kept_and_none_where_space_is_short() {
    for (count, capacity, kept) in [(20, None, 8), (6, None, 5), (6, Some(7 * (64 << 10)), 0)] {
        let (disk, writer) = full_segments(count);
        disk.set_capacity(capacity);
        writer.drop_segments(writer.place().0).unwrap();
        assert_eq!((segments(&disk).len(), spares(&disk).len()), (1, kept), "{count} segments, {capacity:?}");
    }
}

#[test]
fn a_crash_before_the_new_name_is_durable_leaves_a_log() {
    let (disk, mut writer, mut written) = on_an_old_segment();
    let first = writer.place().0;
    while writer.place().0 == first {
        written.extend(append(&mut writer, vec![accept(0, 700, vec![7; 9_000])]).unwrap());
    }
    let below = writer.place().0;
    written.extend(append(&mut writer, vec![Record::Trimmed { below }]).unwrap());
    let renamed = writer.preallocated.retire(first, 64 << 10).unwrap();
    assert!(renamed.is_some());
    let mut outcomes = [false; 2];
    for seed in 0..50 {
        let (_, _, seen) = open(&disk.crash(seed)).unwrap();
        assert_eq!(seen, written[written.len() - seen.len()..]);
        outcomes[usize::from(seen.len() == written.len())] = true;
    }
    assert_eq!(outcomes, [true; 2], "both outcomes were seen");
}

#[test]
fn a_reader_does_not_take_new_frames_for_old_ones() {
    let disk = MemoryDisk::new();
    let mut writer = open_new(&disk);
    for instance in 1..=9 {
        append(&mut writer, vec![accept(0, instance, vec![instance as u8; 20_000])]).unwrap();
    }
    let mut reader = writer.reader();
    let range = |from| ReadRange {
        tag: 0,
        group: GroupId(0),
        from: Instance(from),
        below: Instance(10),
        last_chosen: ballot(1, 1),
        bytes_max: 30_000,
    };
    assert_eq!(reader.read(&range(1)).unwrap().len(), 1, "the reader knows the first segment");
    let part = writer.index.parts(GroupId(0), Instance(1))[0];
    let last = writer.place().0;
    writer.drop_segments(last).unwrap();
    for instance in 10..=20 {
        append(&mut writer, vec![accept(0, instance, vec![instance as u8; 20_000])]).unwrap();
    }
    assert_eq!(reader.read(&range(1)).unwrap(), [], "its segment is gone");
    // The reader still has the old file open under its old name. What it finds there are other values.
    assert!(reader.values(&range(1), &[part]).unwrap().is_empty(), "the file has other values");
    assert_eq!(writer.status().rotten(), 0);
}

#[test]
fn an_old_segment_ends_a_lack_of_space() {
    let (disk, writer) = full_segments(4);
    disk.set_capacity(Some(0));
    assert!(writer.preallocate().is_err() && writer.status().full());
    disk.set_capacity(None);
    writer.drop_segments(writer.place().0).unwrap();
    assert_eq!((spares(&disk).len(), writer.status().full()), (3, false));
}

#[test]
fn a_value_that_looks_like_a_later_frame_is_no_proof_of_rot() {
    // A client knows the storage id, and so the seal of a segment without a salt. Its value is full of frame headers
    // that claim that everything is durable. They lie behind the end of the log where the segment is used again.
    let disk = MemoryDisk::new();
    let mut writer = open_new(&disk);
    let unsalted = SegmentHeader { salt: None, ..SegmentHeader::decode(&disk.content(FIRST).unwrap()).unwrap() };
    let (mut header, mut value) = (Vec::new(), Vec::new());
    let (seal, segment, previous) = (unsalted.frame_seal(), SegmentSequence(9), 0);
    encode_frame(&mut header, FramePlace { seal, lsn: Lsn(999), durable: Lsn(998), segment, previous }, &[]);
    (0..500).for_each(|_| value.extend_from_slice(&header));
    let mut count = 0;
    while writer.place().0 < segment {
        count += 1;
        append(&mut writer, vec![accept(0, count, value.clone())]).unwrap();
        let last = writer.place().0;
        append(&mut writer, vec![Record::Trimmed { below: last }]).unwrap();
        writer.drop_segments(last).unwrap();
    }
    let behind = disk.content(&segment_name(segment)).unwrap()[writer.place().1 as usize..].to_vec();
    assert!(behind.windows(header.len()).step_by(FRAME_ALIGNMENT).any(|bytes| bytes == header));
    assert!(open(&disk.killed()).is_ok());
}

#[test]
fn old_segments_are_given_back_when_space_is_short() {
    let (disk, mut writer) = full_segments(6);
    writer.drop_segments(writer.place().0).unwrap();
    writer.preallocate().unwrap();
    assert_eq!(spares(&disk).len(), 5);
    disk.set_capacity(Some(disk.used_bytes() + (100 << 10)));
    writer.preallocate().unwrap();
    assert_eq!(spares(&disk).len(), 1, "one is kept for the log");
    append(&mut writer, vec![accept(0, 7, vec![1; 60_000])]).unwrap();
}

#[test]
fn an_old_segment_is_not_lost_when_the_sync_of_the_directory_fails() {
    let (disk, mut writer) = full_segments(3);
    let last = writer.place().0;
    // The first call has renamed the segment when its sync fails.
    assert!(writer.preallocated.retire(SegmentSequence(1), 64 << 10).unwrap().is_some());
    writer.drop_segments(last).unwrap();
    assert_eq!(spares(&disk).len(), 2);
    append(&mut writer, vec![accept(0, 4, vec![1; 60_000])]).unwrap();
    append(&mut writer, vec![accept(0, 5, vec![1; 60_000])]).unwrap();
    assert_eq!(spares(&disk).len(), 0, "both were used");
}

/// Returns a disk with one segment of version 1 and these frames.
fn unsalted_log(frames: &[&[Record]]) -> MemoryDisk {
    let disk = MemoryDisk::new();
    drop(open_new(&disk));
    let mut content = disk.content(FIRST).unwrap();
    let header = SegmentHeader { salt: None, ..SegmentHeader::decode(&content).unwrap() };
    content[..SEGMENT_HEADER_BYTES].copy_from_slice(&header.encode());
    let (mut at, mut previous, mut lsn) = (SEGMENT_HEADER_BYTES, 0, Lsn(1));
    for records in frames {
        let mut frame = Vec::new();
        let (seal, durable, segment) = (header.frame_seal(), lsn.preceding(), SegmentSequence(1));
        previous = encode_frame(&mut frame, FramePlace { seal, lsn, durable, segment, previous }, records);
        content[at..at + frame.len()].copy_from_slice(&frame);
        (at, lsn) = (at + frame.len(), lsn.following());
    }
    disk.set_content(FIRST, content);
    disk
}

#[test]
fn a_log_of_the_version_without_salts_goes_on() {
    let (one, two) = ([promise(1, 2), accept(0, 1, "one")], [accept(0, 2, "two")]);
    let disk = unsalted_log(&[&one, &two]);
    let (mut writer, _, mut written) = open(&disk).unwrap();
    assert_eq!(written.len(), 3);
    while writer.place().0 == SegmentSequence(1) {
        written.extend(append(&mut writer, vec![accept(0, 3, vec![7; 9_000])]).unwrap());
    }
    let version = |name| SegmentHeader::decode(&disk.content(name).unwrap()).unwrap().salt.is_some();
    assert_eq!((version(FIRST), version(SECOND)), (false, true), "each segment keeps its version");
    assert_eq!(open(&disk.killed()).unwrap().2, written);
}

#[test]
fn the_remains_of_a_torn_frame_without_a_salt_are_removed() {
    let disk = unsalted_log(&[&[promise(1, 2)]]);
    let mut content = disk.content(FIRST).unwrap();
    let tail = content.iter().rposition(|byte| *byte != 0).unwrap() / FRAME_ALIGNMENT * FRAME_ALIGNMENT + 64;
    content[tail..tail + 100].fill(7);
    disk.set_content(FIRST, content);
    let (_, recovered, written) = open(&disk).unwrap();
    assert_eq!((written.len(), recovered.torn_bytes > 100), (1, true));
    assert_eq!(disk.content(FIRST).unwrap()[tail..].iter().find(|byte| **byte != 0), None);
}

#[test]
fn an_old_segment_that_lost_its_end_is_not_used_again() {
    let (disk, writer) = full_segments(3);
    let content = disk.content(FIRST).unwrap();
    disk.set_content(FIRST, content[..5_000].to_vec());
    writer.drop_segments(writer.place().0).unwrap();
    assert_eq!(spares(&disk).len(), 1, "only the second segment is kept");
}

#[test]
fn a_torn_header_is_not_completed_by_a_later_one() {
    let (disk, mut writer, durable) = on_an_old_segment();
    let name = segment_name(writer.place().0);
    let tail = writer.place().1 as usize;
    append(&mut writer, vec![accept(1, 3, "torn")]).unwrap();
    let mut content = disk.content(&name).unwrap();
    let whole = content[tail..tail + FRAME_HEADER_BYTES].to_vec();
    // The first 8 bytes of the header never arrived.
    content[tail..tail + 8].fill(0);
    disk.set_content(&name, content);
    assert_eq!(open(&disk).unwrap().2, durable);
    let mut content = disk.content(&name).unwrap();
    // Of the next frame nothing else arrives.
    content[tail..tail + 8].copy_from_slice(&whole[..8]);
    disk.set_content(&name, content);
    assert_eq!(open(&disk).unwrap().2, durable, "the torn frame is gone for good");
}

#[test]
fn old_segments_and_failures_at_every_operation() {
    let mut failures = 0;
    for after in 0..150 {
        for writes in [true, false] {
            let disk = failing_disk(writes, after);
            failures += usize::from(write_and_drop_until_failure(&disk).is_err());
            for image in (0..6).map(|seed| disk.crash(seed)).chain([disk.killed()]) {
                let (mut writer, _, seen) = open(&image).unwrap();
                let later = append(&mut writer, vec![promise(9, 99)]).unwrap();
                assert_eq!(open(&image.crash(1)).unwrap().2, [seen, later].concat());
            }
        }
    }
    assert!(failures > 100, "{failures}");
}

/// Writes through several segments and removes the old ones. After an error nothing more is written.
fn write_and_drop_until_failure(disk: &MemoryDisk) -> Result<(), LogError> {
    let (mut writer, ..) = open(disk)?;
    for round in 1..=30 {
        append(&mut writer, vec![promise(0, round), accept(1, round, vec![round as u8; 25_000])])?;
        if round % 6 == 0 {
            let below = writer.place().0;
            append(&mut writer, vec![Record::Trimmed { below }])?;
            writer.drop_segments(below)?;
        }
    }
    Ok(())
}
