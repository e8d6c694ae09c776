//! What a log gives to those for whom it is read.

use super::format::RecordHeader;
use super::{Record, RecordKind};
use bytes::Bytes;
use crc32c::crc32c;
use groups::GroupId;
use std::ops::Range;

/// Gets what is in a log, in order. So does a closure that takes lsns and records.
pub trait Visit {
    /// A record of the frame `lsn`.
    fn record(&mut self, lsn: u64, record: Logged<'_>);
    /// All records of the frame in these bytes of the segment with that sequence number were visited.
    fn frame(&mut self, sequence: u64, frame: Range<u64>);
}

impl<F: FnMut(u64, Record)> Visit for F {
    fn record(&mut self, lsn: u64, record: Logged<'_>) {
        self(lsn, record.record());
    }

    fn frame(&mut self, _sequence: u64, _frame: Range<u64>) {}
}

/// A record that is in a frame still.
#[derive(Clone, Copy, Debug)]
pub struct Logged<'a> {
    kind: RecordKind,
    header: RecordHeader,
    payload: &'a [u8],
}

impl<'a> Logged<'a> {
    /// `None` if its kind is not known. Of one that may be `rotten` the payload is checked: see [`RecordKind::lost`].
    pub(super) fn new(header: RecordHeader, payload: &'a [u8], rotten: bool) -> Option<Logged<'a>> {
        let kind = RecordKind::from_number(header.kind)?;
        let is_damaged = rotten && crc32c(payload) != header.payload_crc;
        Some(match kind.lost().filter(|_| is_damaged) {
            Some(kind) => Logged { kind, header, payload: &[] },
            None => Logged { kind, header, payload },
        })
    }

    /// What it says.
    #[must_use]
    pub fn kind(&self) -> RecordKind {
        self.kind
    }

    /// Whose fact it is.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.header.group
    }

    /// The record, with a copy of its own: one that a quiet group keeps for long must not keep all that was read with it.
    #[must_use]
    pub fn record(&self) -> Record {
        let RecordHeader { group, instance, ballot, chosen, .. } = self.header;
        Record { kind: self.kind, group, instance, ballot, chosen, payload: Bytes::copy_from_slice(self.payload) }
    }
}
