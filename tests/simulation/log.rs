//! The log thread of a process, and the threads beside it: frames of the workers' batches, segments, and reads.

use crate::process::{Input, RunningProcess};
use crate::shell::End;
use crate::world::{Event, World};
use groups::Us;
use paxoi::storage::wal::{Append, Batch, Lsn, ReadRange, SegmentSequence, SharedFrame};
use paxoi::workers::WorkerId;
use std::time::Duration;

/// Interval of the log thread's attempts to make a segment.
const SPACE_US: u64 = 1_000_000;
/// Idle time after which the log thread writes a durability marker.
const IDLE_US: u64 = 3_000;

impl World {
    pub(crate) fn begin_batch(&mut self, node: usize, worker: usize, life: &mut RunningProcess, batch: Batch) {
        self.oracle.on_batch(node, &batch, &mut self.trace);
        let sent = life.batch_sender.try_send((WorkerId(worker as u32), batch));
        assert!(sent.is_ok(), "node {node} gave the log a batch of a worker while one was on its way");
        self.begin_frame(node, life);
    }

    /// Gives the disk the batches that wait, if it is idle.
    fn begin_frame(&mut self, node: usize, life: &mut RunningProcess) {
        if life.syncing.is_some() {
            return;
        }
        let Ok(shared) = life.batches.next_frame(life.writer.next_lsn(), Some(Duration::ZERO)) else { return };
        self.oracle.on_frame_begun(node, &shared.frame);
        (life.syncing, life.synced_us) = (Some(shared), self.now_us);
        life.marked = false;
        let process = &self.processes[node];
        let slow_us = process.slow_until_us.saturating_sub(self.now_us);
        let us = process.sync_us / 2 + self.random.below(process.sync_us) + self.random.below(slow_us + 1);
        self.after(us, Event::Synced { node, life: life.number });
    }

    /// The disk writes and syncs the frame that it was given.
    pub(crate) fn write_batch(&mut self, node: usize) {
        let Some(mut life) = self.processes[node].life.take() else { return };
        let (number, written) = (life.number, self.write_frame(node, &mut life));
        self.processes[node].life = Some(life);
        match written {
            Err(error) => self.end(node, End::Fatal(error)),
            Ok(told) if told.is_empty() => {}
            Ok(told) => {
                told.into_iter().for_each(|(worker, input)| self.push_to(node, worker, input));
                self.after(IDLE_US, Event::Mark { node, life: number });
            }
        }
    }

    /// Returns what each worker is told.
    fn write_frame(&mut self, node: usize, life: &mut RunningProcess) -> Result<Vec<(usize, Input)>, String> {
        let Some(shared) = &life.syncing else { return Ok(Vec::new()) };
        let mut appended = life.writer.append(&shared.frame);
        if matches!(appended, Ok(Append::NeedsSegment)) && life.writer.preallocate().is_ok() {
            appended = life.writer.append(&shared.frame);
        }
        if !matches!(appended.map_err(|error| error.to_string())?, Append::Durable(_)) {
            self.after(SPACE_US, Event::Synced { node, life: life.number });
            return Ok(Vec::new());
        }
        let Some(SharedFrame { frame, batches, .. }) = life.syncing.take() else { return Ok(Vec::new()) };
        let sync_us = Us(self.now_us - life.synced_us);
        if self.random.chance(900) {
            // The thread that prepares segments is mostly in time.
            let _ = life.writer.preallocate();
        }
        self.trace.line(|| format!("n{} durable {}", node + 1, frame.lsn));
        self.oracle.on_durable(node, &frame);
        let told = |(worker, lsn): (WorkerId, Lsn)| (worker.index(), Input::Durable { lsn, frame: frame.lsn, sync_us });
        let told = batches.into_iter().map(told).collect();
        self.begin_frame(node, life);
        Ok(told)
    }

    /// Prepares a segment, as the thread for that does, and schedules the next attempt.
    pub(crate) fn preallocate(&mut self, node: usize) {
        let Some(life) = &self.processes[node].life else { return };
        let _ = life.writer.preallocate();
        let life = life.number;
        self.after(SPACE_US, Event::Preallocate { node, life });
    }

    pub(crate) fn mark(&mut self, node: usize) {
        let Some(life) = &mut self.processes[node].life else { return };
        if life.syncing.is_some() {
            return;
        }
        if life.writer.wants_durability_marker()
            && let Err(error) = life.writer.write_durability_marker()
        {
            return self.end(node, End::Fatal(error.to_string()));
        }
        life.marked = true;
    }

    pub(crate) fn drop_segments(&mut self, node: usize, below: SegmentSequence) {
        let Some(life) = &self.processes[node].life else { return };
        self.trace.line(|| format!("n{} drops segments below {below}", node + 1));
        // Segments that cannot be removed now are removed later.
        let _ = life.writer.drop_segments(below);
    }

    pub(crate) fn read_range(&mut self, node: usize, worker: usize, range: ReadRange) {
        let Some(life) = &mut self.processes[node].life else { return };
        match life.reader.read(&range) {
            Ok(values) => self.push_to(node, worker, Input::Range { range, values }),
            Err(error) => self.end(node, End::Fatal(error.to_string())),
        }
    }
}
