//! The gate: messages wait here until the log records that they rest on are durable.

use crate::storage::wal::Lsn;
use groups::{GroupId, Message, NodeId};
use std::collections::VecDeque;

/// A message of one group on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatedMessage {
    /// The group whose message it is.
    pub group: GroupId,
    /// The receiver; the node itself too, for its own votes and promises.
    pub to: NodeId,
    /// The message.
    pub message: Message,
}

/// Messages by the log sequence number that they wait for. Only a few numbers are open at a time: those of the batch
/// that is being synced and of the batch that is being gathered.
#[derive(Debug, Default)]
pub struct Gate {
    durable: Lsn,
    waiting: VecDeque<(Lsn, Vec<GatedMessage>)>,
    recycled: Vec<Vec<GatedMessage>>,
}

impl Gate {
    /// Returns an empty gate for a log that is durable up to `durable`.
    #[must_use]
    pub fn new(durable: Lsn) -> Gate {
        Gate { durable, ..Gate::default() }
    }

    /// Holds a message until `lsn` is durable. Returns the message if `lsn` already is.
    #[must_use]
    pub fn hold(&mut self, lsn: Lsn, held: GatedMessage) -> Option<GatedMessage> {
        if lsn <= self.durable {
            return Some(held);
        }
        let position = self.waiting.partition_point(|(waits_for, _)| *waits_for < lsn);
        if self.waiting.get(position).is_none_or(|(waits_for, _)| *waits_for != lsn) {
            self.waiting.insert(position, (lsn, self.recycled.pop().unwrap_or_default()));
        }
        self.waiting[position].1.push(held);
        None
    }

    /// Notes that the log is durable up to `lsn`, and moves the messages that waited for this into `released`, in
    /// order.
    pub fn release(&mut self, lsn: Lsn, released: &mut Vec<GatedMessage>) {
        self.durable = self.durable.max(lsn);
        while self.waiting.front().is_some_and(|(waits_for, _)| *waits_for <= lsn) {
            if let Some((_, mut messages)) = self.waiting.pop_front() {
                released.append(&mut messages);
                self.recycled.push(messages);
            }
        }
    }

    /// Returns the highest log sequence number known to be durable.
    #[must_use]
    pub fn durable(&self) -> Lsn {
        self.durable
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use groups::message::NotLeader;

    fn held(group: u32) -> GatedMessage {
        let message = Message::NotLeader(NotLeader { ballot: groups::Ballot::ZERO });
        GatedMessage { group: GroupId(group), to: NodeId(1), message }
    }

    #[test]
    fn messages_wait_for_their_number_and_leave_in_order() {
        let mut gate = Gate::new(Lsn(3));
        assert_eq!(gate.hold(Lsn(3), held(0)), Some(held(0)));
        for (lsn, group) in [(5, 1), (4, 2), (5, 3)] {
            assert_eq!(gate.hold(Lsn(lsn), held(group)), None);
        }
        let mut released = Vec::new();
        gate.release(Lsn(4), &mut released);
        assert_eq!(released, [held(2)]);
        gate.release(Lsn(5), &mut released);
        assert_eq!(released, [held(2), held(1), held(3)]);
        assert_eq!(gate.durable(), Lsn(5));
    }
}
