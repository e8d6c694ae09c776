//! A full disk does not count as a failed write.

use super::*;

fn try_append(writer: &mut Writer, records: Vec<Record>) -> Append {
    writer.append(&Batch { lsn: writer.next_lsn(), records }).unwrap()
}

/// Returns a log in its second segment. The disk has no space for a third segment.
fn full() -> (MemoryDisk, Writer) {
    let disk = MemoryDisk::new();
    let mut writer = open_new(&disk);
    disk.set_capacity(Some(3 * (64 << 10) - 1));
    append(&mut writer, vec![accept(1, 1, vec![1; 40_000])]).unwrap();
    append(&mut writer, vec![accept(1, 2, vec![2; 30_000])]).unwrap();
    assert!(!writer.status().full());
    assert_eq!(writer.preallocate().unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert!(writer.status().full());
    (disk, writer)
}

#[test]
fn what_is_left_can_be_used_and_is_known() {
    let (disk, mut writer) = full();
    assert_eq!(disk.list().unwrap(), [FIRST, SECOND], "the unfinished segment was removed");
    let room = writer.status().room();
    assert!(!writer.status().has_preallocated() && (30_000..36_000).contains(&room), "{room}");
    assert_eq!(try_append(&mut writer, vec![accept(1, 3, vec![3; 36_000])]), Append::NeedsSegment);
    assert!(matches!(try_append(&mut writer, vec![accept(1, 3, vec![3; 20_000])]), Append::Durable(_)));
    assert_eq!(writer.status().room(), room - frame_bytes(&[accept(1, 3, vec![3; 20_000])]));
    let mut promises = 0;
    while let Append::Durable(_) = try_append(&mut writer, vec![promise(1, promises)]) {
        promises += 1;
    }
    assert!((8 << 10) / 104 < promises, "{promises}");

    disk.set_capacity(None);
    writer.preallocate().unwrap();
    assert!(!writer.status().full());
    assert!(matches!(try_append(&mut writer, vec![accept(1, 4, vec![4; 8_000])]), Append::Durable(_)));
    let seen = open(&disk.crash(0)).unwrap().2;
    assert_eq!(seen.len() as u64, promises + 4);
}

#[test]
fn a_frame_larger_than_a_segment_gets_its_own_or_waits() {
    let disk = MemoryDisk::new();
    let mut writer = open_new(&disk);
    append(&mut writer, vec![promise(1, 1)]).unwrap();
    disk.set_capacity(Some(3 << 16));
    let large = vec![accept(1, 1, vec![5; 200_000])];
    assert_eq!(try_append(&mut writer, large.clone()), Append::NeedsSpace);
    assert!(writer.status().full());
    assert_eq!(disk.list().unwrap(), [FIRST]);
    disk.set_capacity(None);
    assert!(matches!(try_append(&mut writer, large), Append::Durable(_)));
    assert!(!writer.status().full());
    append(&mut writer, vec![promise(1, 2)]).unwrap();
    let (writer, recovered, seen) = open(&disk.crash(0)).unwrap();
    assert_eq!((seen.len(), recovered.segments), (3, 3));
    let own = (SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES) as u64 + frame_bytes(&[seen[1].1.clone()]);
    assert_eq!(writer.status().bytes(), 2 * (64 << 10) + own);
    assert_eq!(seen[1].1.payload().len(), 200_000);
}

#[test]
fn a_preallocated_segment_that_is_whole_is_used_and_another_is_removed() {
    let disk = MemoryDisk::new();
    let writer = open_new(&disk);
    writer.preallocate().unwrap();
    disk.set_content("spare.new", vec![0; 100]);
    disk.set_content("spare-large", vec![0; 100]);
    let writes = disk.writes();
    let (mut writer, ..) = open(&disk).unwrap();
    assert_eq!(disk.list().unwrap(), [FIRST, "spare"]);
    writer.preallocate().unwrap();
    assert_eq!(disk.writes(), writes, "the preallocated segment was there");
    append(&mut writer, vec![accept(1, 1, vec![0; 64_000])]).unwrap();
    append(&mut writer, vec![accept(1, 2, vec![0; 64_000])]).unwrap();
    assert_eq!(disk.list().unwrap(), [FIRST, SECOND]);

    disk.set_content("spare", vec![0; 100]);
    open(&disk).unwrap();
    assert_eq!(disk.list().unwrap(), [FIRST, SECOND], "a preallocated segment of another size is removed");
}

#[test]
fn a_disk_without_space_for_a_log_says_so() {
    let disk = MemoryDisk::new();
    disk.set_capacity(Some(1000));
    let error = open(&disk).err().unwrap().to_string();
    assert!(error.starts_with("log file log-0000000000000001: cannot make it: "), "{error}");
}
