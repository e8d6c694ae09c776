//! The records of the log: what each says, and its kind, the number by which the bytes tell them apart.

use super::SegmentSequence;
use super::format::RecordHeader;
use bytes::Bytes;
use crc32c::crc32c;
use groups::{Ballot, GroupId, Instance, NodeId};

/// One durable fact about a group, or about the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The acceptor of `group` promised `ballot`.
    Promise {
        /// The group.
        group: GroupId,
        /// The promised ballot.
        ballot: Ballot,
    },
    /// The acceptor accepted the value.
    Accept(ValueRecord),
    /// The value was learned to be chosen.
    Learned(ValueRecord),
    /// The payload of an [`Record::Accept`] or [`Record::Learned`] no longer matches its checksum. Never written.
    Lost {
        /// The group.
        group: GroupId,
        /// The instance whose value is lost.
        instance: Instance,
        /// The ballot under which it was accepted or chosen.
        ballot: Ballot,
        /// True if the value was learned, false if it was accepted.
        learned: bool,
    },
    /// All instances of `group` below `next` are chosen. This repeats older records, so that they can be removed.
    Position {
        /// The group.
        group: GroupId,
        /// The lowest instance that is not known to be chosen.
        next: Instance,
        /// The promised ballot.
        promised: Ballot,
        /// The ballot under which the instance before `next` is known to be chosen.
        chosen: Ballot,
    },
    /// Another node was seen.
    PeerStart {
        /// The other node.
        node: NodeId,
        /// Its start number.
        start: u64,
        /// Its storage id `[16]`, then the random number of that start, u64; older versions left the number out.
        payload: Bytes,
    },
    /// Segments with sequence numbers below `below` may be removed: what still counted in them was written again.
    Trimmed {
        /// The lowest sequence number that is kept.
        below: SegmentSequence,
    },
}

/// A value of an instance in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueRecord {
    /// The group.
    pub group: GroupId,
    /// The instance. It never decreases in the records of one group that hold values.
    pub instance: Instance,
    /// The ballot under which the value was accepted or chosen.
    pub ballot: Ballot,
    /// The ballot under which *this node* knows the instance before as chosen, so that it matches a value in this log.
    /// Another node may know that instance by another ballot.
    pub chosen: Ballot,
    /// The value.
    pub payload: Bytes,
}

impl Record {
    /// Builds the record of this kind from its header and its payload.
    pub(super) fn decode(kind: RecordKind, header: &RecordHeader, payload: Bytes) -> Record {
        let RecordHeader { group, instance, ballot, chosen, .. } = *header;
        match kind {
            RecordKind::Promise => Record::Promise { group, ballot },
            RecordKind::Accept => Record::Accept(ValueRecord { group, instance, ballot, chosen, payload }),
            RecordKind::Learned => Record::Learned(ValueRecord { group, instance, ballot, chosen, payload }),
            RecordKind::PeerStart => Record::PeerStart { node: ballot.node, start: instance.0, payload },
            RecordKind::Position => Record::Position { group, next: instance, promised: ballot, chosen },
            RecordKind::Trimmed => Record::Trimmed { below: SegmentSequence(instance.0) },
        }
    }

    /// Returns the header that stands for the record in a frame. Fields that the kind does not use are zero. The header
    /// of [`Record::Lost`] is that of the record whose payload is lost, with an empty payload.
    #[must_use]
    pub fn header(&self) -> RecordHeader {
        let (group, instance, ballot, chosen) = match *self {
            Record::Promise { group, ballot } => (group, Instance(0), ballot, Ballot::ZERO),
            Record::Accept(ref value) | Record::Learned(ref value) => {
                (value.group, value.instance, value.ballot, value.chosen)
            }
            Record::Lost { group, instance, ballot, .. } => (group, instance, ballot, Ballot::ZERO),
            Record::Position { group, next, promised, chosen } => (group, next, promised, chosen),
            Record::PeerStart { node, start, .. } => {
                (GroupId(0), Instance(start), Ballot { round: 0, node }, Ballot::ZERO)
            }
            Record::Trimmed { below } => (GroupId(0), Instance(below.0), Ballot::ZERO, Ballot::ZERO),
        };
        let payload = self.payload();
        RecordHeader {
            kind: self.kind() as u8,
            group,
            instance,
            ballot,
            chosen,
            payload_length: u32::try_from(payload.len()).expect("a payload is far below 4 GiB"),
            payload_crc: crc32c(payload),
        }
    }

    /// Returns the kind of the record; for [`Record::Lost`] the kind of the record whose payload is lost.
    #[must_use]
    pub fn kind(&self) -> RecordKind {
        match self {
            Record::Promise { .. } => RecordKind::Promise,
            Record::Accept(_) | Record::Lost { learned: false, .. } => RecordKind::Accept,
            Record::Learned(_) | Record::Lost { learned: true, .. } => RecordKind::Learned,
            Record::PeerStart { .. } => RecordKind::PeerStart,
            Record::Position { .. } => RecordKind::Position,
            Record::Trimmed { .. } => RecordKind::Trimmed,
        }
    }

    /// Returns the group that the record is about; `None` if it is about the node.
    #[must_use]
    pub fn group(&self) -> Option<GroupId> {
        match *self {
            Record::Promise { group, .. } | Record::Lost { group, .. } | Record::Position { group, .. } => Some(group),
            Record::Accept(ref value) | Record::Learned(ref value) => Some(value.group),
            Record::PeerStart { .. } | Record::Trimmed { .. } => None,
        }
    }

    /// Returns the value that the record holds.
    #[must_use]
    pub fn value(&self) -> Option<&ValueRecord> {
        match self {
            Record::Accept(value) | Record::Learned(value) => Some(value),
            _ => None,
        }
    }

    /// Returns the bytes behind the header.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        match self {
            Record::Accept(value) | Record::Learned(value) => &value.payload,
            Record::PeerStart { payload, .. } => payload,
            Record::Promise { .. } | Record::Lost { .. } | Record::Position { .. } | Record::Trimmed { .. } => &[],
        }
    }
}

/// The kind of a record: its number in the bytes, which is never reused for another kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// See [`Record::Promise`].
    Promise = 1,
    /// See [`Record::Accept`].
    Accept = 2,
    /// See [`Record::Learned`].
    Learned = 3,
    /// See [`Record::PeerStart`].
    PeerStart = 4,
    /// See [`Record::Position`].
    Position = 5,
    /// See [`Record::Trimmed`].
    Trimmed = 6,
}

impl RecordKind {
    /// Returns the kind with this number; `None` if no kind has it.
    #[must_use]
    pub fn from_number(number: u8) -> Option<RecordKind> {
        match number {
            1 => Some(RecordKind::Promise),
            2 => Some(RecordKind::Accept),
            3 => Some(RecordKind::Learned),
            4 => Some(RecordKind::PeerStart),
            5 => Some(RecordKind::Position),
            6 => Some(RecordKind::Trimmed),
            _ => None,
        }
    }

    /// Returns true if the record is about a group, false if it is about the node.
    #[must_use]
    pub fn is_of_group(self) -> bool {
        !matches!(self, RecordKind::PeerStart | RecordKind::Trimmed)
    }

    /// Returns true if the record holds a value of an instance. Other nodes may have a value that is lost here; all
    /// other records are needed.
    #[must_use]
    pub fn has_value(self) -> bool {
        matches!(self, RecordKind::Accept | RecordKind::Learned)
    }
}
