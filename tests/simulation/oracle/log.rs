//! The log of a node as the oracle sees it: the records in flight, the durable ones, and those that a start finds.

use super::Oracle;
use super::facts::{Fact, fact};
use groups::{Ballot, GroupId, Instance};
use paxoi::storage::wal::{Batch, DroppableSegments, Lsn, Record};

impl Oracle {
    /// Notes that the disk begins to write a frame.
    pub(crate) fn on_frame_begun(&mut self, node: usize, frame: &Batch) {
        let seen = &mut self.nodes[node];
        if seen.foreign {
            return;
        }
        seen.in_frame = frame.records.len();
        // Until now they had the numbers of their batches.
        seen.in_flight.iter_mut().take(frame.records.len()).for_each(|fact| fact.lsn = frame.lsn);
        let begins = seen.in_flight.iter().take(frame.records.len()).eq(&frame_facts(frame));
        self.expect(begins, || format!("node {} writes a frame of other records than it gave the log first", node + 1));
    }

    /// Notes that a frame is durable: its votes count.
    pub(crate) fn on_durable(&mut self, node: usize, frame: &Batch) {
        if self.nodes[node].foreign {
            return;
        }
        let seen = &mut self.nodes[node];
        seen.in_frame = 0;
        let count = frame.records.len().min(seen.in_flight.len());
        let landed: Vec<Fact> = seen.in_flight.drain(..count).collect();
        self.expect(landed == frame_facts(frame), || format!("node {} wrote other records than it gave", node + 1));
        landed.iter().for_each(|fact| self.land(node, fact));
    }

    /// Notes the segments that a node may drop.
    pub(crate) fn on_droppable(&mut self, node: usize, of: (usize, usize), droppable: DroppableSegments) {
        let (seen, (worker, workers)) = (&mut self.nodes[node], of);
        seen.droppable_lsn.resize(workers, Lsn(0));
        seen.droppable_lsn[worker] = droppable.lsn;
        seen.dropped_lsn = seen.droppable_lsn.iter().copied().min().unwrap_or_default().max(seen.dropped_lsn);
        self.trims += 1;
    }

    /// Checks the records that a start found. They must begin with all durable records (invariants 1 and 8), and may go
    /// on with the records that were in flight. `kept`: the last instances of the checkpoints that it found.
    pub(crate) fn on_recovered(&mut self, node: usize, records: &[(Lsn, Record)], kept: &[(GroupId, Instance)]) {
        let facts: Vec<Fact> = records.iter().map(|(lsn, record)| fact(*lsn, record)).collect();
        let mut in_flight = std::mem::take(&mut self.nodes[node].in_flight);
        in_flight.truncate(std::mem::take(&mut self.nodes[node].in_frame));
        self.nodes[node].droppable_lsn.clear();
        // Records in segments that the node may drop can be missing, the oldest first.
        let dropped_lsn = self.nodes[node].dropped_lsn;
        let first_lsn = facts.first().map_or(Lsn(0), |fact| fact.lsn);
        let old = self.nodes[node].log.partition_point(|fact| fact.lsn < first_lsn.min(dropped_lsn));
        self.nodes[node].log.drain(..old);
        let durable = &self.nodes[node].log;
        let begins = facts.len() >= durable.len() && facts.iter().zip(durable).all(|(found, known)| found.is(known));
        let rest = facts[durable.len().min(facts.len())..].to_vec();
        let (had, has) = (durable.len(), facts.len());
        self.expect(begins, || {
            format!("node {} had {had} durable records, and found {has} that do not begin with them", node + 1)
        });
        self.expect(rest.is_empty() || rest == in_flight, || {
            format!("node {} found records that it never wrote: {rest:?}", node + 1)
        });
        let seen = &mut self.nodes[node];
        // A checkpoint holds chosen values, even if the node's own votes for them were not durable when it ended. Then
        // the log may still hold the last of these values under a lower ballot.
        for (group, instance) in kept {
            let seat = &mut seen.durable[group.index()];
            seat.put_in = seat.put_in.max(*instance);
        }
        seen.given = seen.durable.clone();
        seen.promised = vec![Ballot::ZERO; seen.promised.len()];
        // The node's `next` at its last writes is no longer known.
        seen.next = vec![Instance(u64::MAX); seen.next.len()];
        for fact in &rest {
            self.take(node, fact);
            self.land(node, fact);
        }
        let seen = &mut self.nodes[node];
        seen.next = vec![Instance::FIRST; seen.next.len()];
        self.nodes[node].in_flight.clear();
    }
}

fn frame_facts(frame: &Batch) -> Vec<Fact> {
    frame.records.iter().map(|record| fact(frame.lsn, record)).collect()
}
