//! The interface through which the content of a log is handed out.

use super::format::RecordHeader;
use super::{Lsn, Record, RecordKind, SegmentSequence};
use bytes::Bytes;
use crc32c::crc32c;
use groups::GroupId;
use std::ops::Range;

/// The visitor of a log, called in the log's order. A closure that takes an lsn and a record is a visitor, too.
pub trait Visit {
    /// Takes a record of the frame `lsn`.
    fn record(&mut self, lsn: Lsn, record: Logged<'_>);
    /// Called after all records of a frame were visited. The frame has the bytes `frame` of segment `sequence`.
    fn frame(&mut self, sequence: SegmentSequence, frame: Range<u64>);
}

impl<F: FnMut(Lsn, Record)> Visit for F {
    fn record(&mut self, lsn: Lsn, record: Logged<'_>) {
        self(lsn, record.record());
    }

    fn frame(&mut self, _sequence: SegmentSequence, _frame: Range<u64>) {}
}

/// A record that is still in its frame.
#[derive(Clone, Copy, Debug)]
pub struct Logged<'a> {
    kind: RecordKind,
    header: RecordHeader,
    payload: &'a [u8],
    is_lost: bool,
}

impl<'a> Logged<'a> {
    /// Returns `None` if the kind is unknown. In a `rotten` frame, a value whose payload is damaged becomes a
    /// [`Record::Lost`].
    pub(super) fn new(header: RecordHeader, payload: &'a [u8], rotten: bool) -> Option<Logged<'a>> {
        let kind = RecordKind::from_number(header.kind)?;
        let is_lost = rotten && kind.has_value() && crc32c(payload) != header.payload_crc;
        Some(Logged { kind, header, payload, is_lost })
    }

    /// Returns the kind of the record.
    #[must_use]
    pub fn kind(&self) -> RecordKind {
        self.kind
    }

    /// Returns the group that the record is about.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.header.group
    }

    /// Returns the record with a copy of its payload, so that a quiet group that keeps it for long does not keep the
    /// whole read buffer.
    #[must_use]
    pub fn record(&self) -> Record {
        let RecordHeader { group, instance, ballot, .. } = self.header;
        if self.is_lost {
            return Record::Lost { group, instance, ballot, learned: self.kind == RecordKind::Learned };
        }
        Record::decode(self.kind, &self.header, Bytes::copy_from_slice(self.payload))
    }
}
