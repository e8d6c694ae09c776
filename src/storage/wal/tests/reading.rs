//! Chosen values come back in order, whatever other votes lie around them.

use super::*;

fn reader(disk: &MemoryDisk, writer: &Writer) -> ChosenReader {
    ChosenReader::new(Arc::new(disk.clone()), writer.index.clone(), writer.status.clone())
}

fn range(group: u32, from: u64, below: u64, last_chosen: Ballot) -> ReadRange {
    let (from, below) = (Instance(from), Instance(below));
    ReadRange { tag: 0, group: GroupId(group), from, below, last_chosen, bytes_max: usize::MAX }
}

fn value(instance: u64, ballot: Ballot, chosen: Ballot, payload: &'static str) -> ValueRecord {
    ValueRecord { group: GroupId(1), instance: Instance(instance), ballot, chosen, payload: payload.into() }
}

fn vote(instance: u64, ballot: Ballot, chosen: Ballot, payload: &'static str) -> Record {
    Record::Accept(value(instance, ballot, chosen, payload))
}

fn read(reader: &mut ChosenReader, range: ReadRange) -> Vec<(u64, Ballot, Bytes)> {
    let values = reader.read(&range).unwrap();
    values.into_iter().map(|value| (value.instance.0, value.ballot, value.payload)).collect()
}

#[test]
fn the_next_record_says_which_vote_was_for_the_chosen_value() {
    let disk = MemoryDisk::new();
    let mut writer = open_new(&disk);
    let (a, b, c) = (ballot(1, 1), ballot(2, 2), ballot(3, 3));
    let learned = |instance, ballot, chosen, payload| Record::Learned(value(instance, ballot, chosen, payload));
    let other_group = |instance| accept(2, instance, vec![8; 30_000]);
    let frames = [
        vec![vote(1, a, Ballot::ZERO, "lost"), other_group(1)],
        vec![vote(1, b, Ballot::ZERO, "one")],
        // The same value again under a later ballot. The log names another ballot as the chosen one.
        vec![vote(1, c, Ballot::ZERO, "one"), other_group(2)],
        vec![vote(2, a, b, "lost too"), promise(1, 9)],
        vec![learned(2, b, b, "two"), vote(3, b, b, "three"), vote(4, b, b, "lost")],
        vec![vote(4, c, b, "four"), other_group(3)],
        vec![learned(5, a, c, "five"), vote(6, c, a, "six")],
    ];
    for records in frames {
        append(&mut writer, records).unwrap();
    }
    assert_eq!(writer.status().segments(), 2);
    let all: Vec<(u64, Ballot, Bytes)> =
        vec![(1, b, "one"), (2, b, "two"), (3, b, "three"), (4, c, "four"), (5, a, "five"), (6, c, "six")]
            .into_iter()
            .map(|(instance, ballot, payload)| (instance, ballot, payload.into()))
            .collect();
    let check = |reader: &mut ChosenReader| {
        for from in 1..=7 {
            for below in from..=7 {
                let last = all.get((below as usize).wrapping_sub(2)).map_or(Ballot::ZERO, |value| value.1);
                let wanted = &all[from as usize - 1..below as usize - 1];
                assert_eq!(read(reader, range(1, from, below, last)), wanted, "{from}..{below}");
            }
        }
    };
    check(&mut reader(&disk, &writer));
    let mut same = reader(&disk, &writer);
    check(&mut same);
    assert_eq!(read(&mut same, range(1, 6, 7, a)), [], "no vote for instance 6 has the ballot of the caller");
    assert_eq!(read(&mut same, range(1, 6, 9, a)), [], "nothing names the ballot that chose instance 6");
    assert_eq!(read(&mut same, range(3, 1, 9, a)), [], "an unknown group");

    let (writer, ..) = open(&disk).unwrap();
    check(&mut reader(&disk, &writer));
}

#[test]
fn the_vote_for_the_chosen_value_may_be_a_segment_before_a_later_one() {
    let disk = MemoryDisk::new();
    let mut writer = open_new(&disk);
    let (b, c) = (ballot(2, 2), ballot(3, 3));
    append(&mut writer, vec![vote(1, b, Ballot::ZERO, "one"), vote(2, b, b, "two")]).unwrap();
    append(&mut writer, vec![vote(2, c, b, "two"), accept(2, 1, vec![0; 65_100])]).unwrap();
    append(&mut writer, vec![vote(3, c, b, "three")]).unwrap();
    assert_eq!(writer.status().segments(), 2);
    let wanted = [(2, b, "two".into()), (3, c, "three".into())];
    assert_eq!(read(&mut reader(&disk, &writer), range(1, 2, 4, c)), wanted);
}

#[test]
fn ranges_follow_a_log_that_grows_and_stay_within_their_bytes() {
    let disk = MemoryDisk::new();
    let mut writer = open_new(&disk);
    let mut reader = reader(&disk, &writer);
    let value = |group: u32, instance: u64| vec![group as u8 ^ instance as u8; 1000 + instance as usize];
    let mut next = [1; 4];
    for instance in 1..=200 {
        let records = (0..4).map(|group| accept(group, instance, value(group, instance))).collect();
        append(&mut writer, records).unwrap();
        let group = instance as u32 % 4;
        let from = next[group as usize];
        let wanted = ReadRange { bytes_max: 4000, ..range(group, from, instance + 1, ballot(1, 1)) };
        let values = reader.read(&wanted).unwrap();
        assert!(!values.is_empty() && values.iter().map(|value| value.payload.len()).sum::<usize>() <= 4000);
        for (position, found) in values.iter().enumerate() {
            assert_eq!(found.instance.0, from + position as u64);
            assert_eq!(found.payload, value(group, found.instance.0));
        }
        next[group as usize] += values.len() as u64;
    }
    assert!(writer.status().segments() > 10);
    let one = ReadRange { bytes_max: 0, ..range(3, 17, 201, ballot(1, 1)) };
    assert_eq!(reader.read(&one).unwrap().len(), 1, "one comes, whatever its size");
    assert_eq!(reader.read(&range(3, 1, 201, ballot(1, 1))).unwrap().len(), 200);
}

#[test]
fn a_gap_ends_the_answer() {
    let disk = MemoryDisk::new();
    let mut writer = open_new(&disk);
    for instance in [1, 2, 3, 7, 8, 9] {
        append(&mut writer, vec![accept(1, instance, "v")]).unwrap();
    }
    let mut reader = reader(&disk, &writer);
    let instances = |values: Vec<(u64, Ballot, Bytes)>| values.iter().map(|value| value.0).collect::<Vec<_>>();
    assert_eq!(instances(read(&mut reader, range(1, 1, 10, ballot(1, 1)))), [1, 2]);
    assert_eq!(instances(read(&mut reader, range(1, 4, 10, ballot(1, 1)))), [] as [u64; 0]);
    assert_eq!(instances(read(&mut reader, range(1, 7, 10, ballot(1, 1)))), [7, 8, 9]);
}

#[test]
fn a_rotten_value_is_not_there_and_counted() {
    let disk = MemoryDisk::new();
    let mut writer = open_new(&disk);
    small_log(&mut writer);
    let mut content = disk.content(FIRST).unwrap();
    let at = content.windows(5).position(|bytes| bytes == b"first").unwrap();
    content[at] ^= 1;
    disk.set_content(FIRST, content);
    let mut reader = reader(&disk, &writer);
    assert_eq!(read(&mut reader, range(1, 1, 2, ballot(1, 1))), []);
    assert_eq!(writer.status().rotten(), 1);
    assert_eq!(read(&mut reader, range(2, 1, 2, ballot(1, 1))).len(), 1, "the value of the other group is sound");
}
