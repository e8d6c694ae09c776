//! The log on disks that crash, rot, fill up and refuse.

mod crash;
mod errors;
mod following;
mod reading;
mod recycling;
mod rot;
mod space;
mod threads;
mod trimming;

use super::format::{FRAME_HEADER_BYTES, FrameSeal, SEGMENT_HEADER_BYTES, SegmentHeader, frame_bytes};
use super::*;
use crate::storage::disk::{Disk, MemoryDisk};
use crate::storage::wal::Lsn;
use bytes::Bytes;
use groups::{Ballot, GroupId, Instance, NodeId};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Records, each with its LSN.
type Written = Vec<(Lsn, Record)>;

const STORAGE_ID: [u8; 16] = [0x5a; 16];
const FIRST: &str = "log-0000000000000001";
const SECOND: &str = "log-0000000000000002";

fn options() -> LogOptions {
    LogOptions {
        retry: Duration::from_millis(1),
        idle: Duration::from_millis(1),
        ..LogOptions::with_segment_bytes(64 << 10)
    }
}

/// Returns another secret in each call, as each start of a node has another one.
fn secret() -> u64 {
    static STARTS: AtomicU64 = AtomicU64::new(0);
    STARTS.fetch_add(1, Ordering::Relaxed) << 32
}

/// Returns an empty disk whose writes, or else whose syncs, fail after `after` more of them.
fn failing_disk(writes: bool, after: u64) -> MemoryDisk {
    let disk = MemoryDisk::new();
    if writes {
        disk.fail_writes("", after);
    } else {
        disk.fail_syncs("", after);
    }
    disk
}

/// Returns what marks the frames of a segment.
fn seal_of(disk: &MemoryDisk, name: &str) -> FrameSeal {
    SegmentHeader::decode(&disk.content(name).unwrap()).unwrap().frame_seal()
}

fn ballot(round: u64, node: u32) -> Ballot {
    Ballot { round, node: NodeId(node) }
}

fn accept(group: u32, instance: u64, payload: impl Into<Bytes>) -> Record {
    Record::Accept(ValueRecord {
        group: GroupId(group),
        instance: Instance(instance),
        ballot: ballot(1, 1),
        chosen: if instance > 1 { ballot(1, 1) } else { Ballot::ZERO },
        payload: payload.into(),
    })
}

fn promise(group: u32, round: u64) -> Record {
    Record::Promise { group: GroupId(group), ballot: ballot(round, 2) }
}

/// Opens the log. Returns the writer, and all records with their LSNs.
fn open(disk: &MemoryDisk) -> Result<(Writer, LogRecoverySummary, Written), LogError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut seen = Vec::new();
    let visit = &mut |lsn, record| seen.push((lsn, record));
    let (writer, recovered) = recover(&disk, STORAGE_ID, secret(), options(), &mut |_, _| {}, visit)?;
    Ok((writer, recovered, seen))
}

fn open_new(disk: &MemoryDisk) -> Writer {
    open(disk).unwrap().0
}

/// Appends one batch, and makes a preallocated segment first if one is needed. Returns its records with their LSN.
fn append(writer: &mut Writer, records: Vec<Record>) -> Result<Written, LogError> {
    let batch = Batch { lsn: writer.next_lsn(), records };
    loop {
        match writer.append(&batch)? {
            Append::Durable(_) => break,
            Append::NeedsSegment => writer.preallocate().map_err(LogError::io("spare", "make"))?,
            Append::NeedsSpace => return Err(LogError::io("spare-large", "make")(io::ErrorKind::StorageFull.into())),
        }
    }
    let Batch { lsn, records } = batch;
    Ok(records.into_iter().map(|record| (lsn, record)).collect())
}

/// Writes a log of a few frames in one segment. Returns its records with their LSNs.
fn small_log(writer: &mut Writer) -> Written {
    let mut written = append(writer, vec![promise(1, 7), promise(2, 8)]).unwrap();
    written.extend(append(writer, vec![accept(1, 1, "first"), accept(2, 1, "second value")]).unwrap());
    written.extend(append(writer, vec![accept(1, 2, vec![7; 100])]).unwrap());
    written
}
