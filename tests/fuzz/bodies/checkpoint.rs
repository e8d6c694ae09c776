//! Reading a damaged checkpoint: it is refused with an error of one line. A checkpoint whose checksums were corrected
//! after the damage may be accepted, but then its states must have the digests that it claims.

use super::{choice, piece, wide_choice};
use bytes::BytesMut;
use groups::{Ballot, DedupTable, GroupId, Instance, Membership, Ms, NodeId, Snapshot};
use paxoi::kv::encode::encode;
use paxoi::kv::{Installation, ParseContext, Store, StoreLimits, parse, table};
use paxoi::routing::{group_of, slot, slots_of};
use paxoi::storage::checkpoint::format::{
    CHUNK_CRC_BYTES, CHUNK_HEADER_BYTES, HEADER_BYTES, TRAILER_BYTES, Trailer, chunk_crc, header_crc,
};
use paxoi::storage::checkpoint::{
    CheckpointError, CheckpointReader, CheckpointSequence, CheckpointWriter, Header, Packing, SectionHead,
    checkpoint_name, verify,
};
use paxoi::storage::disk::MemoryDisk;
use std::sync::Arc;

const HEADER: Header = Header { groups: 4, cluster_id: [3; 16], hash_key: [7; 16], sequence: CheckpointSequence(1) };
const EDITS_MAX: usize = 24;
/// Offset of the length in a chunk's header, in bytes.
const LENGTH_AT: usize = 8;

/// Runs one input: the first byte chooses the checkpoint, the others its damage.
pub fn run(mut data: &[u8]) {
    let chosen = choice(&mut data);
    let (disk, name) = (MemoryDisk::new(), checkpoint_name(CheckpointSequence(1)));
    write(&disk, chosen);
    let sound = disk.content(&name).expect("it was just written");
    let (mut content, mut forged) = (sound.clone(), false);
    for _ in 0..EDITS_MAX {
        if data.is_empty() {
            break;
        }
        forged |= edit(&mut data, &mut content);
    }
    disk.set_content(&name, content.clone());
    match verify(&disk, &name) {
        Ok(_) if forged => install_all(&disk, &name).expect("it was just verified"),
        Ok(_) => assert!(content == sound, "damage was not found"),
        Err(error) => assert!(!error.to_string().contains('\n'), "not one line: {error}"),
    }
}

/// Writes a checkpoint of one or two groups with a few keys and a session.
fn write(disk: &MemoryDisk, chosen: u8) {
    let packing = if chosen & 0x80 == 0 { Packing::Plain } else { Packing::Lz4 };
    let made = (|| -> Result<(), CheckpointError> {
        let mut writer = CheckpointWriter::create(Arc::new(disk.clone()), HEADER, packing)?;
        for group in (0..=u32::from(chosen & 1)).map(GroupId) {
            let mut store = store(group, usize::from(chosen >> 1 & 7));
            store.freeze();
            let (instance, chosen, dedup) = (Instance(7), Ballot::ZERO, DedupTable::default());
            let membership = Membership::of_ids([NodeId(1)].into_iter());
            let state = Snapshot { instance, chosen, chain: 1, time_ms: Ms(1), digest: 1, dedup, membership };
            writer.begin(&SectionHead { group, state })?;
            while let Some(block) = store.next_block(200) {
                writer.block(&block)?;
            }
            writer.end(store.frozen_digest().unwrap_or(0))?;
        }
        writer.finish().map(drop)
    })();
    made.expect("a sound disk");
}

fn store(group: GroupId, keys: usize) -> Store {
    let mut store = Store::new(HEADER.hash_key, slots_of(group, HEADER.groups), StoreLimits::default());
    store.begin(Ms(1_000));
    let own = |key: &String| group_of(slot(key.as_bytes()), HEADER.groups) == group;
    for key in (0..).map(|number| format!("key:{number}")).filter(own).take(keys) {
        apply(&mut store, &["SET", &key, "value value value value"]);
    }
    let session = apply(&mut store, &["SESSION", "NEW"]);
    let key = (0..).map(|number| format!("n{number}")).find(own).unwrap_or_default();
    apply(&mut store, &["ONCE", &session, "1", "INCR", &key]);
    store
}

/// Applies a command. Returns its reply if that is a string, else an empty one.
fn apply(store: &mut Store, words: &[&str]) -> String {
    let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    let spec = table::lookup(&words).expect("a command");
    let mut body = BytesMut::new();
    encode(
        &parse(spec, &words, ParseContext { cluster_ms: Ms(1_000), durations: true, seed: 1 }).expect("well formed"),
        &mut body,
    );
    match store.apply(&body) {
        paxoi::kv::reply::Reply::Bulk(text) => String::from_utf8_lossy(&text).into_owned(),
        _ => String::new(),
    }
}

fn install_all(disk: &MemoryDisk, name: &str) -> Result<(), CheckpointError> {
    let checkpoint = CheckpointReader::open(disk, name)?;
    let header = *checkpoint.header();
    for summary in checkpoint.sections() {
        let Some(mut section) = checkpoint.section(summary.group)? else { continue };
        let slots = slots_of(summary.group, header.groups);
        let mut installation = Installation::new(header.hash_key, slots, StoreLimits::default());
        while let Some(block) = section.next_block()? {
            installation.install_block(&block).expect("a sound block");
        }
        let store = installation.finish().expect("a whole state");
        assert_eq!(store.digest(), section.digest(), "another state than the one that was verified");
    }
    Ok(())
}

/// Makes one piece of damage. Returns true if it corrected the checksums.
fn edit(data: &mut &[u8], content: &mut Vec<u8>) -> bool {
    let chosen = choice(data);
    let at = wide_choice(data).min(content.len());
    match chosen & 0x0f {
        0..=5 => {
            if let Some(byte) = content.get_mut(at) {
                *byte ^= 1 << (chosen & 3) | choice(data);
            }
        }
        6 => content.truncate(at),
        7 | 8 => {
            let end = (at + usize::from(choice(data))).min(content.len());
            content[at..end].fill(0);
        }
        9 | 10 => {
            let count = usize::from(choice(data) % 64);
            let bytes = piece(data, count).to_vec();
            content.splice(at..at, bytes);
        }
        11 => {
            let end = (at + usize::from(choice(data))).min(content.len());
            content.drain(at..end);
        }
        _ => return seal(content),
    }
    false
}

/// Corrects all checksums, whatever the header and chunks hold. Returns true unless the file is too short.
fn seal(content: &mut [u8]) -> bool {
    let Some(trailer_at) = content.len().checked_sub(TRAILER_BYTES) else { return false };
    let Some((header, _)) = content.split_first_chunk_mut::<HEADER_BYTES>() else { return false };
    let crc = crc32c::crc32c(&header[..HEADER_BYTES - 4]);
    header[HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    let (mut at, mut index_offset, mut crc) = (HEADER_BYTES, HEADER_BYTES as u64, header_crc(header));
    while let Some(head) = content.get(at..).and_then(|rest| rest.first_chunk::<CHUNK_HEADER_BYTES>()) {
        let length = [head[LENGTH_AT], head[LENGTH_AT + 1], head[LENGTH_AT + 2], head[LENGTH_AT + 3]];
        let crc_at = (at + CHUNK_HEADER_BYTES).saturating_add(u32::from_le_bytes(length) as usize);
        if crc_at + CHUNK_CRC_BYTES > trailer_at {
            break;
        }
        crc = chunk_crc(crc, head, &content[at + CHUNK_HEADER_BYTES..crc_at]);
        content[crc_at..crc_at + CHUNK_CRC_BYTES].copy_from_slice(&crc.to_le_bytes());
        index_offset = at as u64;
        at = crc_at + CHUNK_CRC_BYTES;
    }
    let trailer = Trailer { index_offset, length: content.len() as u64, whole_crc: crc };
    content[trailer_at..].copy_from_slice(&trailer.encode());
    true
}
