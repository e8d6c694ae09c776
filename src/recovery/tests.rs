//! Any number of recovery workers rebuilds the same groups.

use super::*;
use crate::kv::Store;
use crate::kv::command::Command;
use crate::kv::encode::encode;
use crate::routing;
use crate::storage::checkpoint::{CheckpointSequence, CheckpointWriter, Packing, SectionHead};
use crate::storage::disk::MemoryDisk;
use crate::storage::wal::{self, Lsn, ValueRecord};
use bytes::{Bytes, BytesMut};
use groups::{Ballot, CommandId, Counter, Effect, Group, Membership, Ms, NodeId, Settings, ValueBuilder};
use std::sync::Arc;

const GROUPS: u32 = 5;
const KEY: [u8; 16] = [7; 16];
const ME: NodeId = NodeId(1);
const BALLOT: Ballot = Ballot { round: 1, node: ME };
const SECOND: &str = "log-0000000000000002";
const STORAGE: [u8; 16] = [3; 16];
const CLOCK: Clock = Clock { mono_ms: Ms(1_000) };
const TIME_MS: Ms = Ms(1_700_000_000_000);

fn header() -> Header {
    Header { groups: GROUPS, cluster_id: [9; 16], hash_key: KEY, sequence: CheckpointSequence(0) }
}

fn empty_shard() -> EmptyShard {
    let membership = Arc::new(Membership::of_ids([ME].into_iter()));
    let group = |index: u32| {
        let settings = Settings {
            id: GroupId(index),
            groups: GROUPS,
            me: ME,
            start: 1,
            membership: membership.clone(),
            batch_bytes_max: crate::config::BATCH_BYTES_MAX,
            window_bytes: crate::config::window_bytes(GROUPS),
            seed: 1,
        };
        let slots = routing::slots_of(GroupId(index), GROUPS);
        (Group::new(settings), Store::new(KEY, slots, StoreLimits::default()))
    };
    let replicas = Shard::new(GROUPS as usize, (0..GROUPS).map(group)).take_all();
    EmptyShard { replicas, cluster: Some((header(), StoreLimits::default())), value_version: 2 }
}

/// Returns the hash tag of a group's keys.
fn tag_of(group: u32) -> u32 {
    let is_there = |tag: &u32| routing::group_of(routing::slot(tag.to_string().as_bytes()), GROUPS) == GroupId(group);
    (0..).find(is_there).expect("every group has keys")
}

/// Returns a log in which each group learns `values` values of three commands. The groups take turns.
fn history(values: u64) -> Vec<(u64, Record)> {
    let mut chains = [0; GROUPS as usize];
    let mut records = Vec::new();
    for instance in 1..=values {
        for (group, chain) in (0..GROUPS).zip(&mut chains) {
            let mut builder = ValueBuilder::default();
            for counter in 0..3 {
                let id = CommandId { origin: NodeId(2), start: 1, counter: Counter(instance * 3 + counter) };
                let key = format!("{{{}}}:{}", tag_of(group), (instance * 7 + counter) % 50);
                let write = |out: &mut BytesMut| {
                    encode(&Command::Append(key.as_bytes(), b"xy"), out);
                };
                groups::put_command(builder.commands_mut(), id, write);
            }
            let value = builder.seal(*chain, TIME_MS, None);
            *chain = value.next_chain();
            let chosen = if instance == 1 { Ballot::ZERO } else { BALLOT };
            records.push((
                instance,
                Record::Learned(ValueRecord {
                    group: GroupId(group),
                    instance: Instance(instance),
                    ballot: BALLOT,
                    chosen,
                    payload: value.bytes().clone(),
                }),
            ));
        }
    }
    records
}

/// Writes these records to a log of several segments. Records with the same LSN share a frame.
fn written(records: &[(u64, Record)]) -> MemoryDisk {
    let disk = MemoryDisk::new();
    let options = wal::LogOptions::with_segment_bytes(wal::SEGMENT_BYTES_MIN);
    let directory: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut writer =
        wal::recover(&directory, STORAGE, 1, options, &mut |_, _| {}, &mut |_: Lsn, _: Record| {}).unwrap().0;
    for frame in records.chunk_by(|one, next| one.0 == next.0) {
        let records = frame.iter().map(|(_, record)| record.clone()).collect();
        let batch = wal::Batch { lsn: writer.next_lsn(), records };
        while !matches!(writer.append(&batch).unwrap(), wal::Append::Durable(_)) {
            writer.preallocate().unwrap();
        }
    }
    disk
}

fn read(log: &MemoryDisk, visit: &mut dyn Visit) -> u64 {
    wal::replay(log, STORAGE, &mut |_, _| {}, visit).unwrap().records
}

fn rebuild(disk: &MemoryDisk, workers: usize, records: &[(u64, Record)]) -> Result<RebuildResult, String> {
    let (empty, log, progress) = (empty_shard(), written(records), RecoveryProgress::default());
    let checkpoint_set = empty.checkpoint_set(disk).expect("the directory is sound");
    let input = RebuildInput { disk: &log, clock: CLOCK, workers, progress: &progress };
    let rebuild = empty.rebuild_all(&input, checkpoint_set, |visit| read(&log, visit));
    let (count, rebuilt) = rebuild.expect("there are threads").map_err(|refused| refused.to_string())?;
    assert_eq!(count, records.len() as u64);
    Ok(rebuilt)
}

/// Returns each group's next instance, and the digest of its store.
fn states(rebuilt: &RebuildResult) -> Vec<(Instance, u64)> {
    let shard = &rebuilt.shard;
    shard.groups().map(|group| (group.next(), shard.store(group.id()).digest())).collect()
}

#[test]
fn any_number_of_workers_makes_the_same_groups() {
    let (disk, records) = (MemoryDisk::new(), history(400));
    let one = rebuild(&disk, 1, &records).unwrap();
    assert!(one.shard.groups().all(|group| group.next() == Instance(401)));
    assert!(one.shard.stores().all(|store| store.len() == 50));
    assert_eq!(one.shard.store_bytes(), one.shard.stores().map(Store::bytes).sum::<usize>());
    for workers in [2, 3, 5, 64] {
        let several = rebuild(&disk, workers, &records).unwrap();
        assert_eq!(states(&several), states(&one), "{workers} workers");
        assert_eq!(several.shard.store_bytes(), one.shard.store_bytes());
    }
}

#[test]
fn workers_begin_behind_their_checkpoints() {
    let (disk, records) = (MemoryDisk::new(), history(400));
    let whole = rebuild(&disk, 1, &records).unwrap();
    let (early, late) = records.split_at(150 * GROUPS as usize);
    let mut half = rebuild(&disk, 1, early).unwrap();
    let directory: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut writer =
        CheckpointWriter::create(directory, Header { sequence: CheckpointSequence(3), ..header() }, Packing::Lz4)
            .unwrap();
    for group in (0..GROUPS).map(GroupId) {
        let head: SectionHead = half.shard.freeze(group, true);
        writer.begin(&head).unwrap();
        while let Some(block) = half.shard.next_block(group, 100) {
            writer.block(&block).unwrap();
        }
        let digest = half.shard.thaw(group);
        writer.end(digest).unwrap();
    }
    writer.finish().unwrap();
    for workers in [1, 2, 5] {
        // The log may still have the values that the checkpoint includes.
        for log in [late, &records] {
            let rebuilt = rebuild(&disk, workers, log).unwrap();
            assert_eq!(states(&rebuilt), states(&whole), "{workers} workers");
            let kept: Vec<_> =
                (0..GROUPS).map(|group| (GroupId(group), Instance(150), CheckpointSequence(3))).collect();
            let mut found = rebuilt.restored.kept.clone();
            found.sort();
            assert_eq!(found, kept);
            assert_eq!(rebuilt.catalog.files.len(), 1);
        }
    }
}

fn value_of((_, record): &mut (u64, Record)) -> &mut ValueRecord {
    match record {
        Record::Learned(value) => value,
        other => panic!("{other:?} holds no learned value"),
    }
}

#[test]
fn what_no_group_can_take_is_refused_by_any_worker() {
    let disk = MemoryDisk::new();
    for workers in [1, 3] {
        let mut records = history(20);
        value_of(&mut records[50]).payload = Bytes::from_static(&[9; 40]);
        let reason = rebuild(&disk, workers, &records).err().unwrap();
        assert!(reason.contains("a value of version 9 in group 0"), "{reason}");
        let mut records = history(20);
        records.remove(52);
        let reason =
            rebuild(&disk, workers, &records[..60]).map(|rebuilt| rebuilt.shard.group(GroupId(2)).is_recovering());
        assert_eq!(reason, Ok(true), "a value is missing in the middle");
        value_of(&mut records[7]).group = GroupId(77);
        let reason = rebuild(&disk, workers, &records).err().unwrap();
        assert_eq!(reason, "the log is not usable: it has a record of group 77, but there are only 5");
    }
}

#[test]
fn groups_are_given_when_the_log_is_read_but_not_one_that_was_refused() {
    let (mut records, progress) = (history(200), RecoveryProgress::default());
    value_of(&mut records[950]).payload = Bytes::from_static(&[9; 40]);
    let log = written(&records);
    for (workers, most) in [(1, 0), (2, 2), (5, 4), (64, 4)].into_iter().cycle().take(80) {
        let (mut is_read, mut given) = (false, Shard::of_missing(GROUPS as usize));
        let input = RebuildInput { disk: &log, clock: CLOCK, workers, progress: &progress };
        let rebuild = empty_shard().rebuild(&input, None, |visit| read(&log, visit), &mut |part| match part {
            RebuildOutput::Log { .. } => is_read = true,
            RebuildOutput::Groups(replicas) => {
                assert!(is_read, "nothing is served before the log's end is known");
                replicas.into_iter().for_each(|(group, replica)| given.put(group, replica));
            }
        });
        assert!(matches!(rebuild.expect("there are threads"), Err(Refusal::Record(_))));
        // Workers that finish before the refusing worker give their groups, and only whole groups. They give none if
        // the refusal is noticed before the log's end.
        assert!(given.groups().count() <= most && !given.has(GroupId(0)), "{workers} workers");
        assert!(
            given.groups().all(|group| group.next() == Instance(201)),
            "{workers} workers: a part of a group is given"
        );
        assert!(!is_read || workers > 1, "a single worker refuses before it hands over the log");
    }
    records.truncate(950);
    value_of(&mut records[7]).group = GroupId(77);
    let log = written(&records);
    let input = RebuildInput { disk: &log, clock: CLOCK, workers: 2, progress: &progress };
    let nothing = &mut |_| panic!("such a log is of no use to any group");
    assert!(empty_shard().rebuild(&input, None, |visit| read(&log, visit), nothing).unwrap().is_err());
}

/// Rebuilds from a log that changes between the first and the second reading. `damage` chooses the damaged byte.
fn rebuild_behind(damage: impl Fn(&[u8]) -> usize) -> Result<(u64, RebuildResult), Refusal> {
    let (records, progress) = (history(400), RecoveryProgress::default());
    let (sound, log) = (written(&records), written(&records));
    let mut content = log.content(SECOND).expect("there are several segments");
    let at = damage(&content);
    content[at] ^= 1;
    log.set_content(SECOND, content);
    let input = RebuildInput { disk: &log, clock: CLOCK, workers: 2, progress: &progress };
    empty_shard().rebuild_all(&input, None, |visit| read(&sound, visit)).expect("there are threads")
}

#[test]
fn a_log_that_cannot_be_read_again_is_not_called_useless() {
    let is_header = |bytes: &[u8]| bytes.starts_with(&wal::format::FRAME_MAGIC);
    let refused =
        rebuild_behind(|content| (0..).step_by(8).skip(20).find(|at| is_header(&content[*at..])).unwrap() + 9);
    let text = refused.err().expect("there is no frame where one was").to_string();
    assert!(text.contains(SECOND) && text.contains("sound a moment ago"), "{text}");
}

#[test]
fn a_value_that_rots_between_the_readings_is_lost_to_its_group_alone() {
    // This byte belongs to the commands of a value.
    let rebuilt = rebuild_behind(|content| content.windows(2).position(|bytes| bytes == b"xy").unwrap());
    let (_, rebuilt) = rebuilt.expect("the others are sound");
    assert_eq!(rebuilt.shard.groups().filter(|group| group.is_recovering()).count(), 1);
}

#[test]
fn what_belongs_to_no_group_is_handed_back() {
    let mut records = history(2);
    let peer = Record::PeerStart { node: NodeId(2), start: 4, payload: Bytes::from_static(&[1; 24]) };
    records.insert(3, (1, peer.clone()));
    records.insert(5, (1, Record::Trimmed { below: wal::SegmentSequence(4) }));
    for workers in [1, 2] {
        let rebuilt = rebuild(&MemoryDisk::new(), workers, &records).unwrap();
        assert_eq!(rebuilt.peers, vec![peer.clone()]);
    }
    let mut effects: Vec<Effect> = Vec::new();
    let rebuilt = rebuild(&MemoryDisk::new(), 1, &records).unwrap();
    rebuilt.shard.group(GroupId(0)).record_again(true, &mut effects);
    assert_eq!(effects.len(), 1);
}
