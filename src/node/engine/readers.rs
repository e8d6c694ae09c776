//! Counts of reads by group and member, for placement: the turns in which this node's clients read from a group, and as
//! its leader the confirmations that other members ask for. Another member's question stands for all reads of a turn, so
//! this node's reads of a turn count as one, too.

use groups::{GroupId, NodeId};
use std::ops::Range;

/// See the module.
#[derive(Debug)]
pub(super) struct Readers {
    /// Leaders follow their clients. Otherwise nothing is counted.
    counts: bool,
    groups: Vec<Counts>,
    /// The number of this turn.
    turn: u64,
}

#[derive(Clone, Debug, Default)]
struct Counts {
    by_member: Vec<(NodeId, u64)>,
    /// The turn of the last read of this node's clients.
    read_in: u64,
}

impl Readers {
    pub(super) fn new(counts: bool) -> Readers {
        Readers { counts, groups: Vec::new(), turn: 1 }
    }

    /// Sets the number of groups.
    pub(super) fn set_groups(&mut self, count: u32) {
        if self.counts {
            self.groups = vec![Counts::default(); count as usize];
        }
    }

    /// Begins the next turn.
    pub(super) fn end_turn(&mut self) {
        self.turn += 1;
    }

    /// Notes a read of this node's clients.
    pub(super) fn on_read(&mut self, group: GroupId, me: NodeId) {
        let Some(counts) = self.groups.get_mut(group.index()) else { return };
        if std::mem::replace(&mut counts.read_in, self.turn) != self.turn {
            counts.add(me);
        }
    }

    /// Notes that a member asks for a confirmation.
    pub(super) fn on_question(&mut self, group: GroupId, from: NodeId) {
        if let Some(counts) = self.groups.get_mut(group.index()) {
            counts.add(from);
        }
    }

    /// Returns the counts of a group.
    pub(super) fn of(&self, group: GroupId) -> &[(NodeId, u64)] {
        self.groups.get(group.index()).map_or(&[], |counts| &counts.by_member)
    }

    /// Begins the next period of some groups.
    pub(super) fn clear(&mut self, range: Range<usize>) {
        if let Some(groups) = self.groups.get_mut(range) {
            groups.iter_mut().for_each(|counts| counts.by_member.clear());
        }
    }
}

impl Counts {
    fn add(&mut self, node: NodeId) {
        match self.by_member.iter_mut().find(|(member, _)| *member == node) {
            Some((_, count)) => *count += 1,
            None => self.by_member.push((node, 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_of_a_turn_and_questions_count_once_each() {
        let (me, other, group) = (NodeId(1), NodeId(2), GroupId(1));
        let mut readers = Readers::new(true);
        readers.set_groups(2);
        for _ in 0..3 {
            (0..10).for_each(|_| readers.on_read(group, me));
            readers.end_turn();
        }
        readers.on_question(group, other);
        readers.on_question(GroupId(9), other);
        assert_eq!((readers.of(group), readers.of(GroupId(0))), (&[(me, 3), (other, 1)][..], &[][..]));
        readers.clear(0..1);
        assert_eq!(readers.of(group).len(), 2, "another range");
        readers.clear(1..2);
        assert!(readers.of(group).is_empty());
    }

    #[test]
    fn nothing_is_counted_if_leaders_follow_nobody() {
        let mut readers = Readers::new(false);
        readers.set_groups(2);
        readers.on_read(GroupId(0), NodeId(1));
        readers.on_question(GroupId(0), NodeId(2));
        assert!(readers.of(GroupId(0)).is_empty());
    }
}
