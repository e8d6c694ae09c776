//! The last known incarnation of each other node: its data directory, its start number (how often that directory had
//! been started), and the random number of its latest start. A node that comes with an older incarnation runs on an old
//! copy of its directory. The copy may lack promises that the node has made, so the node is refused.
//!
//! All incarnations are in the log, and are logged again before older records go. They outlast connections and
//! memberships: a guest is not a member as far as this node knows, but may be a member all the same.

use crate::storage::wal::Record;
use bytes::Bytes;
use groups::NodeId;

/// Maximum number of remembered nodes. Beyond it, the node that is not a member and was recorded longest ago is
/// forgotten.
pub(super) const REMEMBERED_MAX: usize = 1_024;

/// The incarnation of a node, as this node has seen it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::node) struct Incarnation {
    pub(in crate::node) storage: [u8; 16],
    pub(in crate::node) start: u64,
    /// The random number of that start. `None` in the records of older program versions.
    pub(in crate::node) id: Option<u64>,
}

/// The newest incarnation of every other node, in the order in which they were recorded.
#[derive(Default)]
pub(super) struct Incarnations {
    known: Vec<(NodeId, Incarnation)>,
}

impl Incarnations {
    pub(super) fn of(&self, node: NodeId) -> Option<Incarnation> {
        self.known.iter().find(|(known, _)| *known == node).map(|(_, incarnation)| *incarnation)
    }

    /// Notes that a node was seen. If its incarnation is new, returns the record that must be logged.
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

    /// Recovery: takes the incarnation of a node from a record of its start. Older and broken records change nothing.
    pub(super) fn restore(&mut self, record: &Record) {
        let Record::PeerStart { node, start, payload } = record else { return };
        let (node, start) = (*node, *start);
        let Some((storage, id)) = payload.split_first_chunk() else { return };
        if self.of(node).is_some_and(|known| start < known.start) {
            return;
        }
        let id = id.try_into().ok().map(u64::from_le_bytes);
        self.known.retain(|(known, _)| *known != node);
        self.known.push((node, Incarnation { storage: *storage, start, id }));
    }

    /// Forgets the nodes that were removed from the cluster. Such a node is refused for ever anyway.
    pub(super) fn forget(&mut self, is_removed: impl Fn(NodeId) -> bool) {
        self.known.retain(|(node, _)| !is_removed(*node));
    }

    /// Returns the records of all incarnations, to be logged again.
    pub(super) fn records(&self) -> impl Iterator<Item = Record> {
        self.known.iter().map(|&(node, incarnation)| record(node, incarnation))
    }
}

fn record(node: NodeId, Incarnation { storage, start, id }: Incarnation) -> Record {
    let mut payload = storage.to_vec();
    payload.extend(id.into_iter().flat_map(u64::to_le_bytes));
    Record::PeerStart { node, start, payload: Bytes::from(payload) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incarnation(start: u64) -> Incarnation {
        Incarnation { storage: [1; 16], start, id: Some(start * 10) }
    }

    #[test]
    fn what_is_logged_again_is_all_that_is_known() {
        let mut incarnations = Incarnations::default();
        let guest = incarnations.note(NodeId(9), incarnation(3), |_| false).expect("it is new");
        assert_eq!(incarnations.note(NodeId(9), incarnation(3), |_| false), None);
        let old = Incarnation { id: None, ..incarnation(2) };
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
        let (node, start) = (NodeId(2), 6);
        incarnations.restore(&Record::PeerStart { node, start, payload: Bytes::from_static(b"short") });
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
