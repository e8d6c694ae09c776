//! Nothing leaves before what it rests on is durable: messages wait here for the log to reach their record.

use groups::{GroupId, Message, NodeId};
use std::collections::VecDeque;

/// A message of one group on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Whose message.
    pub group: GroupId,
    /// To whom; the node itself too, for its own votes and promises.
    pub to: NodeId,
    /// What.
    pub message: Message,
}

/// Messages by the log sequence number that they wait for. At most a few numbers are open at a time: the batch that is
/// being synced and the one that is being gathered.
#[derive(Debug, Default)]
pub struct Gate {
    durable: u64,
    waiting: VecDeque<(u64, Vec<Held>)>,
    spare: Vec<Vec<Held>>,
}

impl Gate {
    /// A gate before a log that is durable up to `durable`.
    #[must_use]
    pub fn new(durable: u64) -> Gate {
        Gate { durable, ..Gate::default() }
    }

    /// Holds a message until `lsn` is durable. Gives it back if it already is.
    #[must_use]
    pub fn hold(&mut self, lsn: u64, held: Held) -> Option<Held> {
        if lsn <= self.durable {
            return Some(held);
        }
        let position = self.waiting.partition_point(|(waits_for, _)| *waits_for < lsn);
        if self.waiting.get(position).is_none_or(|(waits_for, _)| *waits_for != lsn) {
            self.waiting.insert(position, (lsn, self.spare.pop().unwrap_or_default()));
        }
        self.waiting[position].1.push(held);
        None
    }

    /// Everything up to `lsn` is durable: moves what waited for it into `released`, in order.
    pub fn release(&mut self, lsn: u64, released: &mut Vec<Held>) {
        self.durable = self.durable.max(lsn);
        while self.waiting.front().is_some_and(|(waits_for, _)| *waits_for <= lsn) {
            if let Some((_, mut messages)) = self.waiting.pop_front() {
                released.append(&mut messages);
                self.spare.push(messages);
            }
        }
    }

    /// The highest number known to be durable.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.durable
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use groups::message::NotLeader;

    fn held(group: u32) -> Held {
        let message = Message::NotLeader(NotLeader { ballot: groups::Ballot::ZERO });
        Held { group: GroupId(group), to: NodeId(1), message }
    }

    #[test]
    fn messages_wait_for_their_number_and_leave_in_order() {
        let mut gate = Gate::new(3);
        assert_eq!(gate.hold(3, held(0)), Some(held(0)));
        for (lsn, group) in [(5, 1), (4, 2), (5, 3)] {
            assert_eq!(gate.hold(lsn, held(group)), None);
        }
        let mut released = Vec::new();
        gate.release(4, &mut released);
        assert_eq!(released, [held(2)]);
        gate.release(5, &mut released);
        assert_eq!(released, [held(2), held(1), held(3)]);
        assert_eq!(gate.durable(), 5);
    }
}
