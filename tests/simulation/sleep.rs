//! Machines that sleep: no process runs, no packet arrives, and the wall clock advances. In runs with leases the
//! monotonic clock advances too, because leases depend on it. In other runs it may stop.

use crate::network::Network;
use crate::process::Process;
use crate::world::{Event, World};
use groups::Us;
use paxoi::config::ReadMode;

/// Minimum and maximum duration of the sleep of one machine.
const SLEEP_US: (u64, u64) = (1_000_000, 12_000_000);
/// Minimum and maximum duration of the sleep of all machines, with the clients.
const SLEEP_OF_ALL_US: (u64, u64) = (10_000_000, 300_000_000);

impl World {
    /// Puts the machine of a running process to sleep.
    pub(crate) fn sleep(&mut self, node: usize) -> bool {
        if !self.network.asleep.insert(node) {
            return false;
        }
        let has_leases = matches!(self.shape.reads, ReadMode::Lease);
        let stopped = !has_leases && self.random.chance(500);
        let mono_us = stopped.then(|| self.processes[node].clocks.at(self.now_us).mono_us);
        let us = self.random.between(SLEEP_US.0, SLEEP_US.1);
        self.pause(node);
        let life = self.processes[node].starts;
        self.after(us, Event::Wake { node, life, mono_us });
        true
    }

    /// Wakes a machine. Packets that were sent to it arrive, unless their sender has cut the connection.
    pub(crate) fn wake(&mut self, node: usize, mono_us: Option<Us>) {
        if !self.network.asleep.remove(&node) {
            return;
        }
        if let Some(mono_us) = mono_us {
            let clocks = &mut self.processes[node].clocks;
            let passed_us = clocks.at(self.now_us).mono_us.saturating_sub(mono_us);
            clocks.mono_us = clocks.mono_us.saturating_sub(passed_us);
        }
        for connection in self.network.all() {
            self.look_at(connection);
        }
        self.resume(node);
    }

    /// Puts all machines and clients to sleep: the clocks advance, and all events are delayed.
    pub(crate) fn sleep_all(&mut self) -> bool {
        let us = self.random.between(SLEEP_OF_ALL_US.0, SLEEP_OF_ALL_US.1);
        self.trace.line(|| format!("everything sleeps for {} s", us / 1_000_000));
        self.put_off(us);
        self.network.put_off(us);
        self.processes.iter_mut().for_each(|process| process.put_off(us));
        self.faults.end_us += us;
        self.operator.rests_us = self.operator.rests_us.map(|since_us| since_us + us);
        true
    }
}

impl Network {
    fn put_off(&mut self, us: u64) {
        self.ways().for_each(|way| way.put_off(us));
    }
}

impl Process {
    fn put_off(&mut self, us: u64) {
        self.slow_until_us += us;
        if let Some(life) = &mut self.life {
            life.put_off(us);
        }
    }
}
