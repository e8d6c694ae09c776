//! What each other node was last seen as: its data directory, how often that had been started, and the random number of its
//! latest start. Whoever comes with less is an old copy, which may have forgotten its promises, and is refused.
//!
//! All of it is in the log, and is logged again before older records go. It outlasts connections and memberships: a guest,
//! which is no member as far as this node knows, may be one all the same.

use crate::storage::wal::{Record, RecordKind};
use bytes::Bytes;
use groups::{Ballot, GroupId, Instance, NodeId};

/// Nodes that are remembered. Of those beyond, the one that is no member and was seen longest ago is forgotten.
pub(super) const REMEMBERED_MAX: usize = 1_024;

/// What a node was seen as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::node) struct Incarnation {
    pub(in crate::node) storage: [u8; 16],
    pub(in crate::node) start: u64,
    /// The random number of that start; not known from the records of older programs.
    pub(in crate::node) life: Option<u64>,
}

/// The newest incarnation of every other node, the one that was seen last at the end.
#[derive(Default)]
pub(super) struct Incarnations {
    known: Vec<(NodeId, Incarnation)>,
}

impl Incarnations {
    pub(super) fn of(&self, node: NodeId) -> Option<Incarnation> {
        self.known.iter().find(|(known, _)| *known == node).map(|(_, incarnation)| *incarnation)
    }

    /// A node was seen. If that says anything new, it has to be logged by the record that is returned.
    pub(super) fn note(
        &mut self,
        node: NodeId,
        incarnation: Incarnation,
        is_member: impl Fn(NodeId) -> bool,
    ) -> Option<Record> {
        if self.of(node) == Some(incarnation) {
            return None;
        }
        self.known.retain(|(known, _)| *known != node);
        if self.known.len() >= REMEMBERED_MAX
            && let Some(at) = self.known.iter().position(|(known, _)| !is_member(*known))
        {
            self.known.remove(at);
        }
        self.known.push((node, incarnation));
        Some(record(node, incarnation))
    }

    /// What a record of the log says, if it is of a start.
    pub(super) fn restore(&mut self, record: &Record) {
        let (node, start) = (record.ballot.node, record.instance.0);
        let Some((storage, life)) = record.payload.split_first_chunk() else { return };
        if self.of(node).is_some_and(|known| start < known.start) {
            return;
        }
        let life = life.try_into().ok().map(u64::from_le_bytes);
        self.known.retain(|(known, _)| *known != node);
        self.known.push((node, Incarnation { storage: *storage, start, life }));
    }

    /// A node that was removed from the cluster is refused anyway, for ever.
    pub(super) fn forget(&mut self, is_removed: impl Fn(NodeId) -> bool) {
        self.known.retain(|(node, _)| !is_removed(*node));
    }

    /// All of it, to be logged again.
    pub(super) fn records(&self) -> impl Iterator<Item = Record> {
        self.known.iter().map(|&(node, incarnation)| record(node, incarnation))
    }
}

fn record(node: NodeId, Incarnation { storage, start, life }: Incarnation) -> Record {
    let mut payload = storage.to_vec();
    payload.extend(life.into_iter().flat_map(u64::to_le_bytes));
    Record {
        kind: RecordKind::PeerStart,
        group: GroupId(0),
        instance: Instance(start),
        ballot: Ballot { round: 0, node },
        chosen: Ballot::ZERO,
        payload: Bytes::from(payload),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incarnation(start: u64) -> Incarnation {
        Incarnation { storage: [1; 16], start, life: Some(start * 10) }
    }

    #[test]
    fn what_is_logged_again_is_all_that_is_known() {
        let mut incarnations = Incarnations::default();
        let guest = incarnations.note(NodeId(9), incarnation(3), |_| false).expect("it is new");
        assert_eq!(incarnations.note(NodeId(9), incarnation(3), |_| false), None);
        let old = Incarnation { life: None, ..incarnation(2) };
        incarnations.restore(&record(NodeId(2), old));
        let records: Vec<Record> = incarnations.records().collect();
        assert_eq!(records[0], guest);
        let mut again = Incarnations::default();
        records.iter().for_each(|record| again.restore(record));
        assert_eq!((again.of(NodeId(9)), again.of(NodeId(2))), (Some(incarnation(3)), Some(old)));
    }

    #[test]
    fn an_older_record_changes_nothing_and_a_broken_one_neither() {
        let mut incarnations = Incarnations::default();
        incarnations.restore(&record(NodeId(2), incarnation(5)));
        incarnations.restore(&record(NodeId(2), incarnation(4)));
        incarnations.restore(&Record { payload: Bytes::from_static(b"short"), ..record(NodeId(2), incarnation(6)) });
        assert_eq!(incarnations.of(NodeId(2)), Some(incarnation(5)));
    }

    #[test]
    fn too_many_guests_displace_guests_and_never_members() {
        let mut incarnations = Incarnations::default();
        let all = 1..=REMEMBERED_MAX as u32 + 10;
        for id in all.clone() {
            incarnations.note(NodeId(id), incarnation(1), |node| node.0 <= 5);
        }
        assert_eq!(incarnations.records().count(), REMEMBERED_MAX);
        let forgotten: Vec<u32> = all.filter(|id| incarnations.of(NodeId(*id)).is_none()).collect();
        assert_eq!(forgotten, (6..=15).collect::<Vec<_>>());
        incarnations.forget(|node| node.0 <= 2);
        assert_eq!((incarnations.of(NodeId(2)), incarnations.of(NodeId(3))), (None, Some(incarnation(1))));
    }
}
