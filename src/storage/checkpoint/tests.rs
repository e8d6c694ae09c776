//! Checkpoints on disks that crash, rot, fill up and refuse.

use super::format::{
    CHUNK_HEADER_BYTES, ChunkKind, HEADER_BYTES, SectionEnd, TRAILER_BYTES, Trailer, chunk_crc, header_crc,
};
use super::*;
use crate::kv::encode::encode;
use crate::kv::{Installation, ParseContext, Store, StoreLimits, parse, table};
use crate::routing::{group_of, slot, slots_of};
use crate::storage::checkpoint::CheckpointSequence;
use crate::storage::disk::MemoryDisk;
use bytes::BytesMut;
use groups::{Ballot, CommandId, Counter, DedupTable, Instance, Membership, Ms, NodeId, Snapshot};
use proptest::prelude::*;
use std::sync::Arc;

const GROUPS: u32 = 4;
const HEADER: Header =
    Header { groups: GROUPS, cluster_id: [3; 16], hash_key: [7; 16], sequence: CheckpointSequence(1) };
const FIRST: &str = "checkpoint-0000000000000001";
const SECOND: &str = "checkpoint-0000000000000002";

/// Returns the store of a group with `keys` keys, whose values differ from one `round` to another.
fn store(group: u32, keys: usize, round: u64) -> Store {
    let group = GroupId(group);
    let mut store = Store::new(HEADER.hash_key, slots_of(group, GROUPS), StoreLimits::default());
    store.begin(Ms(1_000 + round));
    let names = (0..).map(|number| format!("key:{number}"));
    for key in names.filter(|key| group_of(slot(key.as_bytes()), GROUPS) == group).take(keys) {
        apply(&mut store, &["SET", &key, &format!("{round} aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), "PX", "5000"]);
    }
    apply(&mut store, &["SESSION", "NEW"]);
    store
}

fn apply(store: &mut Store, words: &[&str]) {
    let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    let context = ParseContext { cluster_ms: Ms(1_000), durations: true, seed: 1 };
    let mut body = BytesMut::new();
    encode(&parse(table::lookup(&words).unwrap(), &words, context).unwrap(), &mut body);
    store.apply(&body);
}

fn head(group: u32) -> SectionHead {
    let chosen = Ballot { round: 5, node: NodeId(2) };
    let mut dedup = DedupTable::default();
    dedup.advance(CommandId { origin: NodeId(3), start: 4, counter: Counter(5) });
    let membership = Membership::of_ids((1..=3).map(NodeId));
    let instance = Instance(77);
    let state = Snapshot { instance, chosen, chain: 0xabcd, time_ms: Ms(9), digest: 5, dedup, membership };
    SectionHead { group: GroupId(group), state }
}

/// Writes a checkpoint of these groups, each with its number of keys. Calls `look` between all steps.
fn write(
    disk: &MemoryDisk,
    header: Header,
    packing: Packing,
    groups: &[(u32, usize)],
    look: &mut dyn FnMut(),
) -> Result<u64, CheckpointError> {
    let mut writer = CheckpointWriter::create(Arc::new(disk.clone()), header, packing)?;
    for (group, keys) in groups {
        let mut store = store(*group, *keys, header.sequence.0);
        store.freeze();
        look();
        writer.begin(&head(*group))?;
        while let Some(block) = store.next_block(400) {
            look();
            writer.block(&block)?;
        }
        look();
        writer.end(store.frozen_digest().unwrap())?;
    }
    look();
    writer.finish()
}

fn written(packing: Packing, groups: &[(u32, usize)]) -> MemoryDisk {
    let disk = MemoryDisk::new();
    write(&disk, HEADER, packing, groups, &mut || {}).unwrap();
    disk
}

fn second() -> Header {
    Header { sequence: CheckpointSequence(2), ..HEADER }
}

fn one_line(error: &CheckpointError) {
    let text = error.to_string();
    assert!(!text.contains('\n') && text.contains("checkpoint-") && text.contains(';'), "{text}");
}

#[test]
fn what_is_read_is_what_was_written() {
    let groups = [(0, 40), (2, 0), (3, 200)];
    let (plain, packed) = (written(Packing::Plain, &groups), written(Packing::Lz4, &groups));
    assert!(packed.used_bytes() * 3 < plain.used_bytes() * 2, "{} {}", packed.used_bytes(), plain.used_bytes());
    for disk in [plain, packed] {
        let checkpoint = CheckpointReader::open(&disk, FIRST).unwrap();
        assert_eq!(checkpoint.header(), &HEADER);
        assert_eq!(checkpoint.bytes(), disk.used_bytes());
        assert!(checkpoint.section(GroupId(1)).unwrap().is_none());
        let verified = verify(&disk, FIRST).unwrap();
        for ((group, keys), found) in groups.into_iter().zip(&verified) {
            let expected = store(group, keys, 1);
            let mut section = checkpoint.section(GroupId(group)).unwrap().unwrap();
            assert_eq!((section.head(), section.digest()), (&head(group), expected.digest()));
            let slots = slots_of(GroupId(group), GROUPS);
            let mut installation = Installation::new(HEADER.hash_key, slots, StoreLimits::default());
            while let Some(block) = section.next_block().unwrap() {
                installation.install_block(&block).unwrap();
            }
            assert!(section.next_block().unwrap().is_none());
            assert_eq!(installation.finish().unwrap().digest(), expected.digest());
            assert_eq!((found.keys, found.sessions, &found.head), (keys as u64, 0, &head(group)));
        }
    }
}

#[test]
fn every_flipped_bit_and_every_missing_byte_is_found() {
    for packing in [Packing::Plain, Packing::Lz4] {
        let disk = written(packing, &[(0, 5), (1, 1)]);
        let sound = disk.content(FIRST).unwrap();
        let mut content = sound.clone();
        for bit in 0..sound.len() * 8 {
            content[bit / 8] ^= 1 << (bit % 8);
            disk.set_content(FIRST, content.clone());
            one_line(&verify(&disk, FIRST).expect_err(&format!("bit {bit}")));
            content[bit / 8] ^= 1 << (bit % 8);
        }
        for length in 0..sound.len() {
            disk.set_content(FIRST, sound[..length].to_vec());
            let error = verify(&disk, FIRST).unwrap_err();
            assert!(matches!(error, CheckpointError::Header { .. } | CheckpointError::CutShort { .. }), "{error}");
        }
        disk.set_content(FIRST, [&sound[..], b"\0"].concat());
        assert!(matches!(verify(&disk, FIRST), Err(CheckpointError::CutShort { .. })));
    }
}

/// Returns the sequence numbers of the finished checkpoints.
fn numbers(disk: &MemoryDisk) -> Vec<u64> {
    sequences(disk).unwrap().into_iter().map(|sequence| sequence.0).collect()
}

#[test]
fn whatever_a_crash_leaves_the_checkpoint_before_stays() {
    let whole = |disk: &MemoryDisk, name: &str| verify(disk, name).is_ok();
    let check = |crashed: &MemoryDisk, finished: bool| {
        assert!(whole(crashed, FIRST));
        remove_unfinished(crashed).unwrap();
        let sequences = numbers(crashed);
        assert!(sequences == [1, 2] || sequences == [1] && !finished, "{sequences:?}");
        assert_eq!(sequences.len(), crashed.list().unwrap().len(), "all that is left is checkpoints");
        assert!(sequences == [1] || whole(crashed, SECOND), "what has the name is whole");
        write(crashed, second(), Packing::Lz4, &[(0, 3)], &mut || {}).unwrap();
        assert!(whole(crashed, SECOND));
    };
    let disk = written(Packing::Lz4, &[(0, 30), (1, 4)]);
    let groups = [(0, 25), (3, 9)];
    let writes = {
        let disk = disk.killed();
        write(&disk, second(), Packing::Lz4, &groups, &mut || {}).unwrap();
        disk.writes()
    };
    assert!(writes > 20);
    for after in 0..=writes {
        let disk = disk.killed();
        disk.fail_writes(SECOND, after);
        let result = write(&disk, second(), Packing::Lz4, &groups, &mut || {});
        assert_eq!(result.is_err(), after < writes, "write {after}");
        if let Err(error) = &result {
            one_line(error);
            assert_eq!(disk.list().unwrap(), [FIRST], "nothing is left of it");
        }
        (0..10).for_each(|seed| check(&disk.crash(seed), result.is_ok()));
    }
    // The power fails between two steps, and the writer never learns of it.
    let (live, mut steps) = (disk.killed(), 0);
    let mut look = || {
        steps += 1;
        (0..10).for_each(|seed| check(&live.crash(seed), false));
    };
    write(&live, second(), Packing::Lz4, &groups, &mut look).unwrap();
    (0..10).for_each(|seed| check(&live.crash(seed), true));
    assert!(steps > 6);
    // The disk accepts all writes, but its syncs fail and nothing is kept.
    let disk = disk.killed();
    disk.fail_syncs(SECOND, 0);
    one_line(&write(&disk, second(), Packing::Lz4, &groups, &mut || {}).unwrap_err());
    (0..10).for_each(|seed| check(&disk.crash(seed), false));
}

#[test]
fn a_full_disk_leaves_nothing_behind() {
    let disk = written(Packing::Plain, &[(0, 3)]);
    let before = disk.used_bytes();
    let size = write(&disk.killed(), second(), Packing::Plain, &[(1, 20)], &mut || {}).unwrap();
    for room in (0..size).step_by(7) {
        disk.set_capacity(Some(before + room));
        let error = write(&disk, second(), Packing::Plain, &[(1, 20)], &mut || {}).unwrap_err();
        one_line(&error);
        assert_eq!((disk.list().unwrap(), disk.used_bytes()), (vec![FIRST.to_owned()], before));
    }
    disk.set_capacity(Some(before + size));
    assert_eq!(write(&disk, second(), Packing::Plain, &[(1, 20)], &mut || {}).unwrap(), size);
    assert_eq!(numbers(&disk), [1, 2]);
}

#[test]
fn only_what_a_writer_left_is_removed() {
    let disk = written(Packing::Plain, &[(0, 1)]);
    for name in ["checkpoint-0000000000000002.new", "checkpoint-3.new", "log-0000000000000001", "identity.new"] {
        disk.set_content(name, vec![1]);
    }
    assert_eq!(remove_unfinished(&disk).unwrap(), 1);
    assert_eq!(disk.list().unwrap().len(), 4);
    assert_eq!(numbers(&disk), [1]);
}

#[test]
fn errors_say_what_to_do() {
    let disk = written(Packing::Plain, &[(0, 1)]);
    let checkpoint = CheckpointReader::open(&disk, FIRST).unwrap();
    assert!(checkpoint.expect_cluster(&second()).is_ok(), "the sequence number does not matter");
    let foreign = checkpoint.expect_cluster(&Header { cluster_id: [9; 16], ..HEADER }).unwrap_err();
    assert_eq!(
        foreign.to_string(),
        format!("checkpoint file {FIRST} belongs to another cluster; remove the files that were copied here")
    );
    let mut content = disk.content(FIRST).unwrap();
    content[8] = 2;
    let crc = crc32c::crc32c(&content[..HEADER_BYTES - 4]);
    content[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    disk.set_content(FIRST, content);
    assert!(matches!(verify(&disk, FIRST), Err(CheckpointError::Version { found: 2, .. })));
    let missing = verify(&disk, SECOND).unwrap_err();
    assert!(missing.to_string().starts_with(&format!("checkpoint file {SECOND}: cannot read it: ")), "{missing}");
    disk.fail_reads("checkpoint", 0);
    assert!(matches!(verify(&disk, FIRST), Err(CheckpointError::Read { .. })));
}

#[test]
fn a_state_that_is_not_the_groups_is_found_though_every_byte_is_as_it_was_written() {
    let forge = |group: u32, digest: Option<u64>| {
        let disk = MemoryDisk::new();
        let mut writer = CheckpointWriter::create(Arc::new(disk.clone()), HEADER, Packing::Lz4).unwrap();
        let mut store = store(1, 10, 1);
        store.freeze();
        writer.begin(&head(group)).unwrap();
        while let Some(block) = store.next_block(1 << 20) {
            writer.block(&block).unwrap();
        }
        writer.end(digest.unwrap_or(store.digest())).unwrap();
        writer.finish().unwrap();
        verify(&disk, FIRST)
    };
    assert!(forge(1, None).is_ok());
    let state = |result| match result {
        Err(CheckpointError::State { group, source, .. }) => (group.0, source),
        other => panic!("{other:?}"),
    };
    assert_eq!(state(forge(2, None)), (2, BlockError::OtherGroup));
    assert_eq!(state(forge(1, Some(5))), (1, BlockError::Digest));
}

#[test]
#[should_panic(expected = "in order of groups")]
fn sections_stand_in_order() {
    let _ = write(&MemoryDisk::new(), HEADER, Packing::Plain, &[(2, 1), (1, 1)], &mut || {});
}

#[test]
fn inspecting_shows_what_is_there_and_what_is_not_sound() {
    let disk = written(Packing::Plain, &[(0, 5), (3, 2)]);
    let inspect = |disk: &MemoryDisk| {
        let mut out = Vec::new();
        let sound = inspect_checkpoint(disk, FIRST, &mut out).unwrap();
        (sound, String::from_utf8(out).unwrap())
    };
    let (sound, text) = inspect(&disk);
    let lines: Vec<&str> = text.lines().collect();
    assert!(sound && lines.len() == 4, "{text}");
    let bytes = disk.used_bytes();
    assert_eq!(lines[0], format!("checkpoint 1 of cluster {}: 2 of 4 groups, {bytes} bytes", "03".repeat(16)));
    let digest = store(0, 5, 1).digest();
    assert!(lines[1].starts_with("group 0  instance 77  chosen 5.2  chain 0000abcd  5 keys  0 sessions  "), "{text}");
    assert!(lines[1].ends_with(&format!("digest {digest:016x}")), "{text}");
    assert_eq!(lines[3], "sound: 7 keys");
    let mut content = disk.content(FIRST).unwrap();
    let section = CheckpointReader::open(&disk, FIRST).unwrap().sections()[1];
    content[section.offset as usize + 100] ^= 1;
    disk.set_content(FIRST, content);
    let (sound, text) = inspect(&disk);
    assert!(
        !sound && text.contains("group 3  instance 77  unusable: ") && text.contains("group 0  instance 77  chosen")
    );
    assert!(text.ends_with("damaged: 1 of 2 sections\n"), "{text}");
    disk.set_content(FIRST, b"PAXOICKP".to_vec());
    assert!(!inspect(&disk).0);
}

/// Returns a disk with a file of these chunks, whose checksums are all right. The last chunk is the index.
fn forged(chunks: &[([u8; CHUNK_HEADER_BYTES], Vec<u8>)]) -> MemoryDisk {
    let mut content = HEADER.encode().to_vec();
    let (mut crc, mut index_offset) = (header_crc(&HEADER.encode()), 0);
    for (header, chunk) in chunks {
        index_offset = content.len() as u64;
        crc = chunk_crc(crc, header, chunk);
        content.extend_from_slice(header);
        content.extend_from_slice(chunk);
        content.extend_from_slice(&crc.to_le_bytes());
    }
    let length = (content.len() + TRAILER_BYTES) as u64;
    content.extend_from_slice(&Trailer { index_offset, length, whole_crc: crc }.encode());
    let disk = MemoryDisk::new();
    disk.set_content(FIRST, content);
    disk
}

fn chunk(kind: ChunkKind, content: Vec<u8>) -> ([u8; CHUNK_HEADER_BYTES], Vec<u8>) {
    let length = content.len() as u32;
    let header = format::ChunkHeader { kind, packing: Packing::Plain, group: GroupId(0), length, unpacked: length };
    (header.encode(), content)
}

proptest! {
    #[test]
    fn bytes_with_right_checksums_are_read_or_refused(
        mut header: [u8; CHUNK_HEADER_BYTES], content: Vec<u8>, plain: bool, unpacked in 0..4_096_u32, long: u64,
    ) {
        let length = (content.len() as u32).to_le_bytes();
        header[8..12].copy_from_slice(&length);
        if plain {
            header = chunk(ChunkKind::Index, content.clone()).0;
        }
        prop_assert!(verify(&forged(&[(header, content.clone())]), FIRST).is_err() || content == [0]);

        let end = SectionEnd { blocks: long, block_bytes: long, digest: 0 };
        let section = chunk(ChunkKind::Section, postcard::to_stdvec(&head(0)).unwrap());
        let (mut packed, block) = chunk(ChunkKind::Block, content.clone());
        packed[1] = 1;
        packed[12..16].copy_from_slice(&unpacked.to_le_bytes());
        for length in [long, (section.1.len() + block.len() + 40) as u64] {
            let summary =
                SectionSummary { group: GroupId(0), instance: Instance(77), offset: 64, length, end };
            let index = chunk(ChunkKind::Index, postcard::to_stdvec(&vec![summary]).unwrap());
            prop_assert!(verify(&forged(&[section.clone(), (packed, block.clone()), index]), FIRST).is_err());
        }
    }
}
