//! Recovery of a damaged log. Recovery reports the damage, or returns the first records of the log in order: every
//! record that an undamaged header claims to be durable, and only records that were written. A second
//! recovery returns the same records, and more records can be appended to the log.

use super::{choice, piece, wide_choice};
use groups::{Ballot, GroupId, Instance, NodeId};
use paxoi::storage::disk::{Disk, MemoryDisk};
use paxoi::storage::wal::format::{
    FRAME_ALIGNMENT, FRAME_HEADER_BYTES, FrameHeader, SEGMENT_HEADER_BYTES, SegmentHeader,
};
use paxoi::storage::wal::{
    Append, Batch, LogError, LogOptions, Lsn, Record, SEGMENT_BYTES_MIN, ValueRecord, Writer, recover,
};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Records with their LSNs.
type Written = Vec<(Lsn, Record)>;

const STORAGE_ID: [u8; 16] = [0x5a; 16];
const SECRET: u64 = 7;
const FILES: [&str; 2] = ["log-0000000000000001", "log-0000000000000002"];
const EDITS_MAX: usize = 24;
/// Offsets in a frame's header: of its own CRC, and of the CRC of its record headers.
const CRC_AT: usize = FRAME_HEADER_BYTES - 4;
const MARK_AT: usize = CRC_AT - 4;
const RECORDS_CRC_AT: usize = 40;
const RECORD_HEADER_BYTES: usize = 48;

/// Runs one input: the first byte chooses the log, the others its damage.
pub fn run(mut data: &[u8]) {
    let chosen = choice(&mut data);
    let disk = MemoryDisk::new();
    let written = write_log(&disk, chosen);
    let sound = contents(&disk);
    let mut damaged = sound.clone();
    let mut forged = false;
    for _ in 0..EDITS_MAX {
        if data.is_empty() {
            break;
        }
        forged |= edit(&mut data, &sound, &mut damaged);
    }
    for (file, content) in FILES.iter().zip(&damaged) {
        disk.set_content(file, content.clone());
    }
    let Ok((mut writer, seen)) = open(&disk) else { return };
    if !forged {
        assert!(written.starts_with(&seen), "records that were never written");
        let durable = claims(&sound, &damaged);
        assert!(
            writer.next_lsn() > durable,
            "frame {durable} was durable, but the log ends before {}",
            writer.next_lsn()
        );
    }
    let (_, again) = open(&disk.crash(u64::from(chosen))).expect("the recovered log is durable and sound");
    assert_eq!(seen, again, "the second recovery differs from the first");
    let more = append(&mut writer, vec![promise(1 << 40)]);
    let (_, longer) = open(&disk).expect("the extended log is sound");
    assert!(longer.len() == seen.len() + 1 && longer.last() == more.last(), "the appended record is missing");
}

/// Writes a log of up to eight frames. Bits 0 to 2 choose the number of rounds. If bit 6 is set, the third round adds a
/// large frame, which goes into a second segment. If bit 7 is set, a durability marker ends the log.
fn write_log(disk: &MemoryDisk, chosen: u8) -> Written {
    let (mut writer, mut written) = open(disk).expect("a new log");
    for round in 1..=u64::from(chosen % 8) {
        let value = vec![round as u8; usize::from(chosen) * round as usize % 91];
        written.extend(append(&mut writer, vec![promise(round), accept(round, value), promise(round + 100)]));
        if round == 3 && chosen & 0x40 != 0 {
            written.extend(append(&mut writer, vec![accept(9, vec![7; SEGMENT_BYTES_MIN as usize - 600])]));
        }
    }
    if chosen & 0x80 != 0 {
        writer.write_durability_marker().expect("room for a marker");
    }
    written
}

fn promise(round: u64) -> Record {
    Record::Promise { group: GroupId(1), ballot: Ballot { round, node: NodeId(2) } }
}

fn accept(group: u64, value: Vec<u8>) -> Record {
    let ballot = Ballot { round: 1, node: NodeId(1) };
    let (group, instance, chosen) = (GroupId(group as u32), Instance(1), Ballot::ZERO);
    Record::Accept(ValueRecord { group, instance, ballot, chosen, payload: value.into() })
}

/// Recovers the log. Returns a writer that appends at its end, and all its records.
fn open(disk: &MemoryDisk) -> Result<(Writer, Written), LogError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut seen = Vec::new();
    let visit = &mut |lsn, record| seen.push((lsn, record));
    let options = LogOptions::with_segment_bytes(SEGMENT_BYTES_MIN);
    match recover(&disk, STORAGE_ID, SECRET, options, &mut |_, _| {}, visit) {
        Ok((writer, _)) => Ok((writer, seen)),
        Err(error) => {
            assert!(!error.to_string().contains('\n'), "not one line: {error}");
            Err(error)
        }
    }
}

fn append(writer: &mut Writer, records: Vec<Record>) -> Written {
    let batch = Batch { lsn: writer.next_lsn(), records };
    while !matches!(writer.append(&batch).expect("a sound disk"), Append::Durable(_)) {
        writer.preallocate().expect("a disk with space");
    }
    let Batch { lsn, records } = batch;
    records.into_iter().map(|record| (lsn, record)).collect()
}

fn contents(disk: &MemoryDisk) -> Vec<Vec<u8>> {
    FILES.iter().filter_map(|file| disk.content(file)).collect()
}

/// Returns the offset and the header of each frame of a sound segment.
fn frames(content: &[u8]) -> Vec<(usize, FrameHeader)> {
    let (mut at, mut found) = (SEGMENT_HEADER_BYTES, Vec::new());
    let Ok(segment) = SegmentHeader::decode(content) else { return found };
    let seal = segment.frame_seal();
    while let Some(header) = content.get(at..).and_then(|rest| FrameHeader::decode(rest, seal)) {
        found.push((at, header));
        at += header.frame_bytes() as usize;
    }
    found
}

/// Returns the highest LSN that an undamaged header, at the offset at which it was written, claims to be durable.
fn claims(sound: &[Vec<u8>], damaged: &[Vec<u8>]) -> Lsn {
    let mut highest = Lsn(0);
    for (before, after) in sound.iter().zip(damaged) {
        let intact = |at: usize, count: usize| after.get(at..at + count) == before.get(at..at + count);
        let header = SegmentHeader::decode(before).ok().filter(|_| intact(0, SEGMENT_HEADER_BYTES));
        highest = highest.max(header.map_or(Lsn(0), |header| header.first_lsn.preceding()));
        for (at, frame) in frames(before) {
            highest = highest.max(if intact(at, FRAME_HEADER_BYTES) { frame.durable } else { Lsn(0) });
        }
    }
    highest
}

/// Makes one piece of damage. Returns true if it corrected the checksums.
fn edit(data: &mut &[u8], sound: &[Vec<u8>], damaged: &mut [Vec<u8>]) -> bool {
    let chosen = choice(data);
    let file = usize::from(chosen >> 7) % damaged.len();
    let (places, content) = (places(&sound[file]), &mut damaged[file]);
    // Half of the offsets are near a boundary of the format, because most of the file is one value, or empty.
    let near = |data: &mut &[u8]| places[usize::from(choice(data)) % places.len()] + usize::from(choice(data) % 64);
    let at = if chosen & 0x40 == 0 { near(data) } else { wide_choice(data) }.min(content.len());
    let count = |data: &mut &[u8]| usize::from(choice(data)) * if chosen & 0x20 == 0 { 1 } else { FRAME_ALIGNMENT };
    match chosen & 0x0f {
        0..=3 => {
            if let Some(byte) = content.get_mut(at) {
                *byte ^= 1 << (chosen & 3) | choice(data);
            }
        }
        4 | 5 => {
            let end = (at + count(data)).min(content.len());
            content[at..end].fill(0);
        }
        6 | 7 => content.truncate(at),
        8 | 9 => {
            let from = near(data).min(content.len());
            let copied = count(data).min(content.len() - from).min(content.len() - at);
            content.copy_within(from..from + copied, at);
        }
        10..=12 => {
            let length = count(data) % 64;
            let bytes = piece(data, length.min(content.len() - at));
            content[at..at + bytes.len()].copy_from_slice(bytes);
        }
        _ => return forge(content, places[usize::from(choice(data)) % places.len()]),
    }
    false
}

/// Returns the offsets of headers, and of the end of the log.
fn places(sound: &[u8]) -> Vec<usize> {
    let frames = frames(sound);
    let end = frames.last().map_or(SEGMENT_HEADER_BYTES, |(at, last)| at + last.frame_bytes() as usize);
    let bounds = frames.iter().flat_map(|(at, _)| [*at, at + FRAME_HEADER_BYTES]);
    [0, end].into_iter().chain(bounds).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Corrects the checksums of the segment or frame header at `at`, whatever it holds. Returns true unless the file is
/// too short.
fn forge(content: &mut [u8], at: usize) -> bool {
    let Some(header) = content.get(at..at + FRAME_HEADER_BYTES + 8) else { return false };
    if at == 0 {
        let crc = crc32c::crc32c(&content[..SEGMENT_HEADER_BYTES - 4]);
        content[SEGMENT_HEADER_BYTES - 4..SEGMENT_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        return true;
    }
    let count = usize::from(u16::from_le_bytes([header[4], header[5]]));
    let records_at = at + FRAME_HEADER_BYTES;
    if let Some(records) = content.get(records_at..records_at + count * RECORD_HEADER_BYTES) {
        let crc = crc32c::crc32c(records);
        content[at + RECORDS_CRC_AT..at + RECORDS_CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    }
    let Ok(segment) = SegmentHeader::decode(content) else { return false };
    let seal = segment.frame_seal();
    content[at + MARK_AT..at + CRC_AT].copy_from_slice(&seal.mark.to_le_bytes());
    let crc = crc32c::crc32c_append(seal.crc, &content[at..at + CRC_AT]);
    content[at + CRC_AT..at + FRAME_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    true
}
