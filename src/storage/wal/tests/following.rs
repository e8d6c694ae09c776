//! Followers see exactly the records of their groups that the first reader sees, however fast each of them is.

use super::super::format::SEGMENT_HEADER_BYTES;
use super::SegmentSequence;
use super::*;
use crate::storage::wal::Lsn;
use std::ops::Range;
use std::thread::{scope, sleep};

const GROUPS: u32 = 3;

/// The first reader. It keeps the visited records, and pauses between frames now and then.
struct First<'f> {
    frontier: &'f Frontier,
    seen: Written,
    frames: u64,
    pause: u64,
}

impl Visit for First<'_> {
    fn record(&mut self, lsn: Lsn, record: Logged<'_>) {
        self.seen.push((lsn, record.record()));
    }

    fn frame(&mut self, sequence: SegmentSequence, frame: Range<u64>) {
        self.frontier.advance(sequence, frame);
        self.frames += 1;
        if self.frames.checked_rem(self.pause) == Some(0) {
            sleep(Duration::from_millis(1));
        }
    }
}

/// Returns the records that the first reader sees. For each group, returns the records and counted bytes of its
/// follower.
fn follow(disk: &MemoryDisk, pause: u64) -> (Written, Vec<(Written, u64)>) {
    let frontier = Frontier::default();
    scope(|scope| {
        let follower = |group: u32| {
            let mut follower = Follower::new(disk, &frontier);
            let work = move || {
                let (mut seen, mut bytes) = (Vec::new(), 0);
                let visit = &mut |lsn, record| seen.push((lsn, record));
                while let Some(more) = follower.read(|wanted| wanted == GroupId(group), visit).unwrap() {
                    bytes += more;
                }
                (seen, bytes)
            };
            scope.spawn(work)
        };
        let followers: Vec<_> = (0..GROUPS).map(follower).collect();
        let mut first = First { frontier: &frontier, seen: Vec::new(), frames: 0, pause };
        let read = replay(disk, STORAGE_ID, &mut |_, _| {}, &mut first);
        frontier.finish();
        assert!(read.is_ok());
        (first.seen, followers.into_iter().map(|follower| follower.join().unwrap()).collect())
    })
}

fn assert_same(disk: &MemoryDisk, pause: u64) {
    let (first, followers) = follow(disk, pause);
    for (group, (seen, _)) in (0..GROUPS).zip(&followers) {
        let of_group = |(_, record): &&(Lsn, Record)| record.group() == Some(GroupId(group));
        let due: Written = first.iter().filter(of_group).cloned().collect();
        assert!(!due.is_empty());
        assert_eq!(*seen, due, "group {group}");
    }
    assert!(followers.windows(2).all(|two| two[0].1 == two[1].1), "every follower reads all frames");
}

/// Writes a log of several segments, with durability markers. Some segments hold one frame longer than the segment
/// size.
fn long_log(disk: &MemoryDisk) {
    let mut writer = open_new(disk);
    append(&mut writer, (0..GROUPS).map(|group| promise(group, 7)).collect()).unwrap();
    for instance in 1..=300 {
        let value = |group| accept(group, instance, vec![instance as u8; 200 + 100 * group as usize]);
        let trimmed = Record::Trimmed { below: SegmentSequence(1) };
        append(&mut writer, (0..GROUPS).map(value).chain([trimmed]).collect()).unwrap();
        if instance % 100 == 0 {
            append(&mut writer, vec![accept(1, instance, vec![9; 100_000])]).unwrap();
            writer.write_durability_marker().unwrap();
        }
    }
}

#[test]
fn followers_see_what_the_first_saw() {
    let disk = MemoryDisk::new();
    long_log(&disk);
    assert!(disk.list().unwrap().iter().filter(|name| is_segment(name)).count() > 4);
    for pause in [0, 1, 50] {
        assert_same(&disk, pause);
    }
}

#[test]
fn followers_see_which_values_are_lost() {
    let disk = MemoryDisk::new();
    long_log(&disk);
    let mut content = disk.content(FIRST).unwrap();
    let value = content.windows(200).position(|bytes| bytes == [3; 200]).unwrap();
    content[value] ^= 1;
    disk.set_content(FIRST, content);
    assert_same(&disk, 0);
    let (first, followers) = follow(&disk, 0);
    let lost = |seen: &Written| seen.iter().filter(|(_, record)| matches!(record, Record::Lost { .. })).count();
    assert_eq!((lost(&first), lost(&followers[0].0), lost(&followers[1].0)), (1, 1, 0));
}

#[test]
fn a_follower_goes_no_further_than_the_first() {
    let disk = MemoryDisk::new();
    small_log(&mut open_new(&disk));
    let frontier = Frontier::default();
    let mut follower = Follower::new(&disk, &frontier);
    let mut first = First { frontier: &Frontier::default(), seen: Vec::new(), frames: 0, pause: 0 };
    replay(&disk, STORAGE_ID, &mut |_, _| {}, &mut first).unwrap();
    // The frontier includes only the first frame: two promises.
    let frame = frame_bytes(&[promise(1, 7), promise(2, 8)]);
    let start = SEGMENT_HEADER_BYTES as u64;
    frontier.advance(SegmentSequence(1), start..start + frame);
    frontier.finish();
    let mut seen = Vec::new();
    let mut read = || follower.read(|_| true, &mut |lsn, record| seen.push((lsn, record))).unwrap();
    assert_eq!((read(), read()), (Some(frame), None));
    assert_eq!(seen, first.seen[..2]);
    // No frame ends at this place.
    let frontier = Frontier::default();
    frontier.advance(SegmentSequence(1), start..start + frame - 8);
    let error = Follower::new(&disk, &frontier).read(|_| true, &mut |_, _| {}).unwrap_err();
    assert!(matches!(error, LogError::Corrupt { offset, .. } if offset == start), "{error}");
}
