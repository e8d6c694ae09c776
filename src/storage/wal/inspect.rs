//! The output of `paxoi inspect log`. The command takes no lock and writes nothing, so it may read the log of a running
//! node. The end of such a log may seem torn.

use super::format::{RecordHeader, SegmentHeader, records};
use super::scan::{FrameFound, Scan, hex, scan};
use super::{LogError, Lsn, RecordKind, segment_name, segment_sequence};
use crate::plural::plural;
use crate::storage::disk::Disk;
use crc32c::crc32c;
use std::io::{self, Write};

/// Prints a line for each segment that has frames, and then the state of the log. If `with_records` is true, also
/// prints a line for each frame and record. Returns false if the log cannot be used, or values in it are damaged.
pub fn inspect_log(disk: &dyn Disk, with_records: bool, out: &mut dyn Write) -> io::Result<bool> {
    let before = disk.list()?;
    let mut printer = Printer { out, with_records, segment: None, failed: None };
    let found = scan(
        disk,
        None,
        &mut |_, found| {
            printer.frame(&found);
            Ok(())
        },
        &mut |_, _| {},
    );
    printer.end_segment();
    if let Some(error) = printer.failed {
        return Err(error);
    }
    if let Err(error) = &found
        && let after = disk.list()?
        && before.iter().any(|name| segment_sequence(name).is_some() && !after.contains(name))
    {
        writeln!(out, "a running node has removed old segments meanwhile: repeat the command ({error})")?;
        return Ok(false);
    }
    conclude(disk, &found, out)
}

fn conclude(disk: &dyn Disk, found: &Result<Scan, LogError>, out: &mut dyn Write) -> io::Result<bool> {
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            writeln!(out, "unusable: {error}")?;
            return Ok(false);
        }
    };
    let Some(first) = found.headers.first() else {
        writeln!(out, "no log in {}", disk.place())?;
        return Ok(true);
    };
    let (segments, frames, records) = (found.headers.len() as u64, found.frames, found.records);
    writeln!(
        out,
        "storage {}: {segments} segment{}, {frames} frame{}, {records} record{}, {} bytes",
        hex(&first.storage_id),
        plural(segments),
        plural(frames),
        plural(records),
        found.bytes
    )?;
    if found.tail > found.unsure_from {
        writeln!(out, "the last {} bytes are not known to be durable", found.tail - found.unsure_from)?;
    }
    if found.dirty_end > found.tail {
        let (bytes, lsn) = (found.dirty_end - found.tail, found.next_lsn);
        writeln!(out, "torn: {bytes} bytes of frame {lsn}, whose write never finished; the next start removes them")?;
    } else if found.rotten == 0 {
        writeln!(out, "sound")?;
    }
    if found.rotten > 0 {
        let (rotten, plural) = (found.rotten, plural(found.rotten));
        writeln!(out, "damaged values in {rotten} frame{plural}, which the node learns from others again")?;
    }
    Ok(found.rotten == 0)
}

struct Printer<'a> {
    out: &'a mut dyn Write,
    with_records: bool,
    segment: Option<Summary>,
    failed: Option<io::Error>,
}

struct Summary {
    header: SegmentHeader,
    last_lsn: Lsn,
    frames: u64,
    end: u64,
}

impl Printer<'_> {
    fn frame(&mut self, found: &FrameFound<'_>) {
        let FrameFound { segment, at, header, body, rotten } = *found;
        if self.segment.as_ref().is_none_or(|summary| summary.header != *segment) {
            self.end_segment();
        }
        let new = Summary { header: *segment, last_lsn: Lsn::default(), frames: 0, end: 0 };
        let summary = self.segment.get_or_insert(new);
        summary.last_lsn = header.lsn;
        summary.frames += 1;
        summary.end = at + header.frame_bytes();
        if self.with_records {
            let (lsn, count, durable) = (header.lsn, header.count, header.durable);
            let bytes = header.frame_bytes();
            let plural = plural(u64::from(count));
            let frame = format!("  frame {lsn} at byte {at}: {count} record{plural}, {bytes} bytes");
            self.line(&format!("{frame}, durable up to {durable}"));
            for (record, payload) in records(header, body) {
                let damaged = rotten && crc32c(payload) != record.payload_crc;
                let damaged = if damaged { ": DAMAGED, to be learned from others" } else { "" };
                self.line(&format!("    {}{damaged}", describe(&record)));
            }
        }
    }

    fn end_segment(&mut self) {
        let Some(Summary { header, last_lsn, frames, end }) = self.segment.take() else { return };
        let (name, first, length) = (segment_name(header.sequence), header.first_lsn, header.length);
        let plural = plural(frames);
        self.line(&format!("{name}  lsn {first}..{last_lsn}  {frames} frame{plural}  {end} of {length} bytes"));
    }

    fn line(&mut self, line: &str) {
        if self.failed.is_none() {
            self.failed = writeln!(self.out, "{line}").err();
        }
    }
}

fn describe(record: &RecordHeader) -> String {
    let RecordHeader { kind, group, instance, ballot, chosen, payload_length: bytes, .. } = *record;
    match RecordKind::from_number(kind) {
        Some(RecordKind::Promise) => format!("promise  group {group} ballot {ballot}"),
        Some(RecordKind::Accept) => {
            format!(
                "accept   group {group} instance {instance} ballot {ballot}, prior value under {chosen}, {bytes} bytes"
            )
        }
        Some(RecordKind::Learned) => {
            format!(
                "learned  group {group} instance {instance} ballot {ballot}, prior value under {chosen}, {bytes} bytes"
            )
        }
        Some(RecordKind::PeerStart) => format!("peer     node {} start {instance}", ballot.node),
        Some(RecordKind::Position) => {
            format!("position group {group} next {instance} promised {ballot}, prior value under {chosen}")
        }
        Some(RecordKind::Trimmed) => format!("trimmed  segments below {instance} may be gone"),
        None => format!("kind {kind}, unknown to this version, group {group} instance {instance}, {bytes} bytes"),
    }
}
