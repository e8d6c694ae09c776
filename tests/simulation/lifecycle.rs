//! Starts, stops and ends of processes, and what happens to their directories and connections.

use crate::network::PacketContent;
use crate::process::{Lost, Started};
use crate::shell::End;
use crate::world::{Event, World};
use paxoi::storage::wal::{self, Lsn};

/// Maximum delay before a process that ended is restarted.
const RESTART_US: u64 = 1_500_000;

impl World {
    /// Starts a process, unless it runs, is gone for good, or is switched off.
    pub(crate) fn start(&mut self, node: usize) {
        let process = &self.processes[node];
        if process.life.is_some() || process.gone.is_some() || self.is_off(node) {
            return;
        }
        let process = &mut self.processes[node];
        let mut records: Vec<(Lsn, wal::Record)> = Vec::new();
        let mut visit = |lsn: Lsn, record: &wal::Record| records.push((lsn, record.clone()));
        let started = process.start(&self.shape, self.now_us, &mut self.random, &mut visit);
        let (starts, values) = (process.starts, process.versions.value_version());
        self.oracle.on_start(node, values);
        match started {
            Ok(Started { recovering, kept }) => {
                let lost = self.processes[node].lost;
                self.trace.line(|| format!("n{} starts: {} records, {lost:?}", node + 1, records.len()));
                self.note(starts);
                self.oracle.recovering += recovering as u64;
                let spoilt = lost.is_some() || self.processes[node].rotten;
                if recovering > 0 && !spoilt {
                    self.oracle.fail(&format!("node {} lacks a part of a sound directory", node + 1));
                }
                if lost != Some(Lost::Foreign) {
                    self.oracle.on_recovered(node, &records, &kept);
                }
                if spoilt {
                    self.oracle.on_gap(node);
                }
                self.after(0, Event::Tick { node, life: starts });
                self.after(0, Event::Preallocate { node, life: starts });
                self.after(2_000_000, Event::Scrub { node, life: starts });
            }
            Err(reason) => {
                self.trace.line(|| format!("n{} cannot start: {reason}", node + 1));
                if self.processes[node].disk.has_no_power() {
                    let seed = self.random.next();
                    self.processes[node].disk = self.processes[node].disk.crash(seed);
                    self.revive(node);
                } else if self.processes[node].lost.is_some() {
                    self.faults.noticed += 1;
                    self.processes[node].gone = Some(reason);
                } else if reason.contains("injected") || reason.contains("storage space") {
                    self.processes[node].disk.mend();
                    self.revive(node);
                } else {
                    self.oracle.fail(&format!("node {} cannot start on a sound directory: {reason}", node + 1));
                }
            }
        }
    }

    /// Ends a process.
    pub(crate) fn end(&mut self, node: usize, end: End) {
        let Some(mut life) = self.processes[node].life.take() else { return };
        self.network.asleep.remove(&node);
        // Disk errors after a power cut may have ended the process in another way.
        let end = if self.processes[node].disk.has_no_power() { End::PowerLoss } else { end };
        self.trace.line(|| format!("n{} ends: {end:?}", node + 1));
        // The batch that was being synced may be half written.
        if let Some(shared) = life.syncing.take().filter(|_| !matches!(end, End::Fatal(_))) {
            let disk = &self.processes[node].disk;
            match self.random.below(4) {
                0 => {}
                // Written, but not synced. The result does not matter, because the writer is gone.
                1 | 2 => {
                    disk.hold_syncs();
                    let _ = life.writer.append(&shared.frame);
                }
                // Durable, but the node was not told.
                _ => {
                    let _ = life.writer.append(&shared.frame);
                }
            }
        }
        drop(life);
        let seed = self.random.next();
        let process = &mut self.processes[node];
        process.disk = match end {
            End::PowerLoss => process.disk.crash(seed),
            _ => process.disk.killed(),
        };
        let silent = end == End::PowerLoss && seed & 1 == 0;
        for (connection, side) in self.network.of_node(node) {
            if let Some(end) = self.network.end(connection, side) {
                end.open = false;
            }
            if !silent {
                self.send(connection, side, PacketContent::Break);
            }
        }
        match end {
            End::Stop(reason) => self.stopped(node, reason),
            _ => self.revive(node),
        }
    }

    /// Ends the process if the power of its disk is cut.
    pub(crate) fn end_without_power(&mut self, node: usize) {
        if self.processes[node].disk.has_no_power() {
            self.end(node, End::PowerLoss);
        }
    }

    fn stopped(&mut self, node: usize, reason: String) {
        if self.was_removed(node) {
            self.processes[node].gone = Some(reason);
            return;
        }
        if self.processes[node].lost.is_none() {
            self.oracle.fail(&format!("node {} was turned away, but nothing is wrong with it: {reason}", node + 1));
        }
        self.faults.refused += 1;
        self.processes[node].gone = Some(reason);
    }

    fn revive(&mut self, node: usize) {
        if self.revives {
            let us = self.random.below(RESTART_US);
            self.after(us, Event::Restart { node });
        }
    }

    /// Stops a process as SIGSTOP does. Bytes that are sent to it wait.
    pub(crate) fn pause(&mut self, node: usize) {
        if let Some(life) = &mut self.processes[node].life {
            life.stopped = true;
            self.trace.line(|| format!("n{} is stopped", node + 1));
        }
    }

    /// Lets a stopped process go on.
    pub(crate) fn resume(&mut self, node: usize) {
        let Some(life) = &mut self.processes[node].life else { return };
        if !std::mem::take(&mut life.stopped) {
            return;
        }
        self.trace.line(|| format!("n{} goes on", node + 1));
        let (number, now_us) = (life.number, self.now_us);
        life.workers.iter_mut().for_each(|worker| worker.turn_us = Some(now_us));
        let workers = life.workers.len();
        (0..workers).for_each(|worker| self.at(now_us, Event::Turn { node, life: number, worker }));
    }
}
