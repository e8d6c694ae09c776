//! Log records as the oracle keeps them, with checksums in place of values, and the state of one group that follows
//! from them. Also their lines in a trace.

use crc32c::crc32c;
use groups::{Ballot, GroupId, Instance, Message};
use paxoi::storage::wal::format::RecordHeader;
use paxoi::storage::wal::{Lsn, Record, RecordKind};

/// A log record, with its value as a checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fact {
    pub(super) lsn: Lsn,
    pub(super) kind: RecordKind,
    /// True if the value was found lost to rot.
    pub(super) is_lost: bool,
    pub(super) group: GroupId,
    pub(super) instance: Instance,
    pub(super) ballot: Ballot,
    pub(super) chosen: Ballot,
    pub(super) value: u32,
}

impl Fact {
    /// Returns true if this fact, read from the log, is the one that was `written`. The values are not compared if
    /// recovery noticed that the value in the log is damaged.
    pub(super) fn is(&self, written: &Fact) -> bool {
        if self.is_lost {
            return Fact { is_lost: false, chosen: written.chosen, value: written.value, ..*self } == *written;
        }
        self == written
    }
}

/// The state of one group at a node, as the node's records tell it.
#[derive(Clone, Debug, Default)]
pub(super) struct Seat {
    pub(super) promised: Ballot,
    /// The highest instance at which the node voted or learned a value, and its vote there.
    pub(super) instance: Instance,
    pub(super) vote: Option<(Ballot, u32)>,
    /// That instance and the ballot of the node's value there; `None` if unknown.
    pub(super) held: Option<(Instance, Ballot)>,
    /// The last instance of a checkpoint: of another node's that was installed, or of the one that a start has found.
    pub(super) put_in: Instance,
}

pub(super) fn fact(lsn: Lsn, record: &Record) -> Fact {
    let RecordHeader { group, instance, ballot, chosen, payload_crc: value, .. } = record.header();
    let is_lost = matches!(record, Record::Lost { .. });
    Fact { lsn, kind: record.kind(), is_lost, group, instance, ballot, chosen, value }
}

pub(super) fn follow(seat: &mut Seat, fact: &Fact) {
    if fact.kind != RecordKind::Learned {
        seat.promised = seat.promised.max(fact.ballot);
    }
    if fact.kind.has_value() {
        seat.instance = fact.instance;
        seat.held = Some((fact.instance, fact.ballot));
        seat.vote = (fact.kind == RecordKind::Accept).then_some((fact.ballot, fact.value));
    }
}

pub(super) fn describe(fact: &Fact) -> String {
    let Fact { kind, group, instance, ballot, chosen, value, .. } = fact;
    format!("{kind:?} g{group} i{instance} b{ballot} after {chosen} value {value:08x}")
}

/// Describes a message without the bytes of its values.
pub(super) fn brief(message: &Message) -> String {
    match message {
        Message::Accept(accept) => format!(
            "Accept b{} i{} chosen {} value {:08x} of {} bytes",
            accept.ballot,
            accept.instance,
            accept.chosen,
            crc32c(accept.value.bytes()),
            accept.value.bytes().len()
        ),
        Message::Promise(promise) => format!(
            "Promise b{} i{} next {} accepted {:?}",
            promise.ballot,
            promise.instance,
            promise.next,
            promise.accepted.as_ref().map(|accepted| (accepted.ballot, crc32c(accepted.value.bytes())))
        ),
        Message::Range(range) => {
            format!("Range from {} of {} values, next {}", range.first, range.values.len(), range.next)
        }
        Message::Forward(forward) => {
            format!("Forward b{} after {} of {} bytes", forward.ballot, forward.after, forward.commands.len())
        }
        other => format!("{other:?}"),
    }
}
