//! The nemesis, which injects faults. Each run draws its kinds of faults, their strength and frequency, and then one
//! fault after the other. Permanent damage stays within a minority of the nodes.

use crate::damage::{Damage, Reach, rot_checkpoint};
use crate::network::Weather;
use crate::process::Lost;
use crate::random::Random;
use crate::shell::End;
use crate::world::{Event, World};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FaultKind {
    Kill,
    PowerLoss,
    CrashAtEffect,
    PowerLossOnDisk,
    RestartAll,
    Pause,
    LongPause,
    Sleep,
    SleepOfAll,
    Halves,
    Minority,
    LeaderCut,
    Ring,
    Bridge,
    OneWay,
    SlowLink,
    Reconnect,
    Storm,
    ClockJump,
    SlowSync,
    WriteError,
    SyncError,
    ReadError,
    RemoveError,
    FullDisk,
    BitFlip,
    Truncation,
    StaleBlock,
    MisdirectedBlock,
    CheckpointRot,
    Wipe,
    OldCopy,
}

/// All kinds, in the order of the reports.
pub(crate) const FAULT_KINDS: [FaultKind; 32] = [
    FaultKind::Kill,
    FaultKind::PowerLoss,
    FaultKind::CrashAtEffect,
    FaultKind::PowerLossOnDisk,
    FaultKind::RestartAll,
    FaultKind::Pause,
    FaultKind::LongPause,
    FaultKind::Sleep,
    FaultKind::SleepOfAll,
    FaultKind::Halves,
    FaultKind::Minority,
    FaultKind::LeaderCut,
    FaultKind::Ring,
    FaultKind::Bridge,
    FaultKind::OneWay,
    FaultKind::SlowLink,
    FaultKind::Reconnect,
    FaultKind::Storm,
    FaultKind::ClockJump,
    FaultKind::SlowSync,
    FaultKind::WriteError,
    FaultKind::SyncError,
    FaultKind::ReadError,
    FaultKind::RemoveError,
    FaultKind::FullDisk,
    FaultKind::BitFlip,
    FaultKind::Truncation,
    FaultKind::StaleBlock,
    FaultKind::MisdirectedBlock,
    FaultKind::CheckpointRot,
    FaultKind::Wipe,
    FaultKind::OldCopy,
];

/// Maximum error of a wrong clock, in microseconds: 12 hours, as with a wrong time zone.
const WRONG_US_MAX: u64 = 12 * 3_600_000_000;

/// The faults of a run: those that it draws from, and those that happened.
#[derive(Default)]
pub(crate) struct Faults {
    /// The kinds of faults of this run.
    pub(crate) kinds: Vec<FaultKind>,
    pub(crate) pause_us: u64,
    pub(crate) counts: [u64; FAULT_KINDS.len()],
    /// Number of nodes that noticed that their directory is damaged.
    pub(crate) noticed: u64,
    /// Number of nodes that the others refused.
    pub(crate) refused: u64,
    pub(crate) fair: Weather,
    pub(crate) on: bool,
    /// End of the faults.
    pub(crate) end_us: u64,
    /// Maximum error of the clock of a node that is not in `wrong_clocks`.
    pub(crate) skew_us: u64,
    /// A minority of the nodes, whose clocks may be off by hours.
    pub(crate) wrong_clocks: Vec<usize>,
    /// An earlier copy of a directory: the node, the copy, and its start number.
    pub(crate) copy: Option<(usize, paxoi::storage::disk::MemoryDisk, u64)>,
}

impl World {
    /// Injects a fault, and schedules the next one.
    pub(crate) fn fault(&mut self) {
        if !self.faults.on {
            return;
        }
        let us = 1 + self.random.below(2 * self.faults.pause_us);
        self.after(us, Event::Fault);
        if self.random.chance(250) {
            self.heal();
            self.network.weather = self.faults.fair;
            self.processes.iter().for_each(|process| process.disk.set_capacity(None));
        }
        let kinds = std::mem::take(&mut self.faults.kinds);
        // While a copy waits to be restored, `OldCopy` is drawn more often.
        let waits = self.faults.copy.is_some() && self.random.chance(300);
        let kind = if waits { Some(FaultKind::OldCopy) } else { self.random.pick(&kinds).copied() };
        self.faults.kinds = kinds;
        if let Some(kind) = kind
            && self.strike(kind)
        {
            self.trace.line(|| format!("FAULT {kind:?}"));
            self.faults.counts[kind as usize] += 1;
            self.note(kind as u64);
        }
    }

    fn any_node(&mut self) -> usize {
        self.random.below(self.processes.len() as u64) as usize
    }

    /// Returns a random node, mostly one that leads a group.
    fn victim(&mut self) -> usize {
        let leads = |process: &crate::process::Process| {
            process.life.as_ref().is_some_and(|life| life.groups().any(|group| group.leads().is_some()))
        };
        let leaders: Vec<usize> = (0..self.processes.len()).filter(|node| leads(&self.processes[*node])).collect();
        let any = self.any_node();
        if self.random.chance(600) { self.random.pick(&leaders).copied().unwrap_or(any) } else { any }
    }

    /// Injects a fault of this kind. Returns true if that was possible now.
    pub(crate) fn strike(&mut self, kind: FaultKind) -> bool {
        let node = self.victim();
        let running = self.processes[node].runs();
        match kind {
            FaultKind::Kill => running && self.ended(node, End::Kill),
            FaultKind::PowerLoss => running && self.ended(node, End::PowerLoss),
            FaultKind::CrashAtEffect => {
                let effects = self.random.below(40);
                let life = self.processes[node].life.as_mut().filter(|life| !life.stopped);
                life.map(|life| life.effects_left = Some(effects)).is_some()
            }
            FaultKind::PowerLossOnDisk => {
                let of_names = self.random.chance(800);
                let operations = self.random.below(if of_names { 12 } else { 60 });
                self.processes[node].disk.lose_power(operations, of_names);
                running
            }
            FaultKind::RestartAll => {
                let end = if self.random.chance(500) { End::Kill } else { End::PowerLoss };
                (0..self.processes.len()).for_each(|node| self.end(node, end.clone()));
                true
            }
            FaultKind::Pause => running && self.paused(node, 20_000, 500_000),
            FaultKind::LongPause => running && self.paused(node, 500_000, 4_000_000),
            FaultKind::Sleep => running && self.sleep(node),
            FaultKind::SleepOfAll => self.sleep_all(),
            FaultKind::Halves | FaultKind::Minority | FaultKind::LeaderCut => self.part(kind, node),
            FaultKind::Ring => self.ring(),
            FaultKind::Bridge => self.bridge(node),
            FaultKind::OneWay => {
                let other = self.any_node();
                self.network.block(node, other);
                node != other
            }
            FaultKind::SlowLink => {
                let (other, by_us) = (self.any_node(), self.random.between(5_000, 400_000));
                self.network.slow_down(node, other, by_us);
                node != other
            }
            FaultKind::Reconnect => {
                let links = self.network.links();
                let cut: Vec<u64> =
                    links.into_iter().map(|(id, _, _)| id).filter(|_| self.random.chance(500)).collect();
                cut.iter().for_each(|connection| self.after(0, Event::Cut { connection: *connection }));
                !cut.is_empty()
            }
            FaultKind::Storm => {
                self.network.weather = storm(&mut self.random, self.faults.fair);
                true
            }
            FaultKind::ClockJump => {
                let mut skew_us = self.faults.skew_us;
                if self.faults.wrong_clocks.contains(&node) && self.random.chance(600) {
                    skew_us = self.random.between(1, WRONG_US_MAX);
                }
                self.processes[node].clocks.unix_us = self.random.below(2 * skew_us + 1) as i64 - skew_us as i64;
                skew_us > 0
            }
            FaultKind::SlowSync => {
                self.processes[node].slow_until_us = self.now_us + self.random.between(50_000, 3_000_000);
                true
            }
            FaultKind::WriteError
            | FaultKind::SyncError
            | FaultKind::ReadError
            | FaultKind::RemoveError
            | FaultKind::FullDisk => self.disk_error(node, kind),
            FaultKind::BitFlip => self.damaged(node, Damage::BitFlip),
            FaultKind::Truncation => self.damaged(node, Damage::Truncation),
            FaultKind::StaleBlock => self.damaged(node, Damage::Stale),
            FaultKind::MisdirectedBlock => self.damaged(node, Damage::Misdirected),
            FaultKind::CheckpointRot => self.rot(node),
            FaultKind::Wipe => self.wipe(node),
            FaultKind::OldCopy => self.roll_back(),
        }
    }

    fn ended(&mut self, node: usize, end: End) -> bool {
        self.end(node, end);
        true
    }

    fn paused(&mut self, node: usize, low_us: u64, high_us: u64) -> bool {
        self.pause(node);
        let us = self.random.between(low_us, high_us);
        self.after(us, Event::Resume { node });
        true
    }

    fn part(&mut self, kind: FaultKind, victim: usize) -> bool {
        let count = self.processes.len();
        let mut order: Vec<usize> = (0..count).collect();
        self.random.shuffle(&mut order);
        let few = match kind {
            FaultKind::Halves => count / 2 + self.random.below(2) as usize,
            FaultKind::Minority => 1 + self.random.below(count as u64 / 2) as usize,
            _ => {
                order = std::iter::once(victim).chain((0..count).filter(|node| *node != victim)).collect();
                1
            }
        };
        let (ones, others) = order.split_at(few);
        for &one in ones {
            for &other in others {
                self.network.block(one, other);
                self.network.block(other, one);
            }
        }
        count > 1
    }

    /// Connects each node only with its two neighbours in a circle, so that each node reaches a different set of nodes.
    /// With three nodes, two lose each other.
    fn ring(&mut self) -> bool {
        let count = self.processes.len();
        if count < 3 {
            return false;
        }
        let first = self.any_node();
        for one in 0..count {
            for other in 0..count {
                let apart = (one + count - other) % count;
                let gap = count == 3 && one != other && one != first && other != first;
                if gap || (count > 3 && apart > 1 && apart < count - 1) {
                    self.network.block(one, other);
                }
            }
        }
        true
    }

    /// Splits the nodes into two halves. Only one node, `middle`, reaches both.
    fn bridge(&mut self, middle: usize) -> bool {
        let others: Vec<usize> = (0..self.processes.len()).filter(|node| *node != middle).collect();
        let (left, right) = others.split_at(others.len() / 2);
        for &one in left {
            for &other in right {
                self.network.block(one, other);
                self.network.block(other, one);
            }
        }
        !left.is_empty()
    }

    fn disk_error(&mut self, node: usize, kind: FaultKind) -> bool {
        let after = self.random.below(20);
        let disk = &self.processes[node].disk;
        let file = if self.random.chance(850) { "log" } else { "" };
        match kind {
            FaultKind::WriteError => disk.fail_writes(file, after),
            FaultKind::SyncError => disk.fail_syncs(file, after),
            FaultKind::ReadError => disk.fail_reads(file, after),
            FaultKind::RemoveError => disk.fail_removes(file, after / 5),
            _ => {
                let room = self.random.below(200_000);
                disk.set_capacity(Some(disk.used_bytes() + room));
            }
        }
        self.processes[node].runs()
    }

    /// Returns true if one more node may be lost for good. A majority must remain, and all nodes must have met (the
    /// birth is over).
    fn may_lose(&self, node: usize) -> bool {
        let lost = self.processes.iter().filter(|process| process.lost.is_some() || process.rotten).count();
        let most = (self.processes.len() - 1) / 2;
        let born = self.processes.iter().all(|process| process.lost.is_some() || process.is_born());
        lost < most
            && born
            && self.processes[node].lost.is_none()
            && !self.processes[node].rotten
            && self.processes[node].life.is_some()
    }

    fn damaged(&mut self, node: usize, damage: Damage) -> bool {
        if !self.may_lose(node) {
            return false;
        }
        // The durability marker of an idle log covers the whole log, so damage must be noticed anywhere in it. The
        // marker may not be synced, but it survives: the process is killed, and the machine keeps its power.
        let marked = self.processes[node].life.as_ref().is_some_and(|life| life.marked && life.syncing.is_none());
        // Rot in old segments is found while the process runs, too.
        let cold = self.random.chance(200);
        if !cold {
            self.end(node, End::Kill);
        }
        let reach = if cold {
            Reach::Cold
        } else if marked {
            Reach::All
        } else {
            Reach::Known
        };
        let done = damage.strike(&self.processes[node].disk, reach, &mut self.random, &self.trace);
        if done {
            self.processes[node].lost = Some(Lost::Damaged);
        }
        done
    }

    /// Damages a checkpoint of a node. What the checkpoint held is then only at the other nodes. The node itself is not
    /// lost: if it ends, it starts again with the damaged directory.
    fn rot(&mut self, node: usize) -> bool {
        if !self.processes[node].rotten && !self.may_lose(node) {
            return false;
        }
        let done = rot_checkpoint(&self.processes[node].disk, &mut self.random, &self.trace);
        if done {
            self.processes[node].rotten = true;
            if self.random.chance(700) {
                self.end(node, End::Kill);
            }
        }
        done
    }

    fn wipe(&mut self, node: usize) -> bool {
        if !self.may_lose(node) {
            return false;
        }
        self.end(node, End::Kill);
        self.processes[node].disk = paxoi::storage::disk::MemoryDisk::new();
        self.estrange(node);
        true
    }

    /// Puts a copy of a directory aside. A later call restores it, once the node was restarted and all others have met
    /// that start. Returns true if it was restored.
    fn roll_back(&mut self) -> bool {
        let Some((node, disk, start)) = self.faults.copy.take() else {
            let node = self.any_node();
            if self.may_lose(node) {
                let process = &self.processes[node];
                self.faults.copy = Some((node, process.disk.killed(), process.start));
            }
            return false;
        };
        if self.processes[node].start == start {
            self.end(node, End::Kill);
        }
        if !self.may_lose(node) || self.processes[node].start <= start || !self.is_met(node) {
            self.faults.copy = Some((node, disk, start));
            return false;
        }
        self.end(node, End::Kill);
        self.processes[node].disk = disk;
        self.estrange(node);
        // The others remember the starts that they have seen, also after a loss of power.
        if self.random.chance(500) {
            (0..self.processes.len()).filter(|other| *other != node).for_each(|other| self.end(other, End::PowerLoss));
        }
        true
    }

    /// Returns true if every other node has durably seen the present start of this one.
    fn is_met(&self, node: usize) -> bool {
        (0..self.processes.len())
            .all(|other| other == node || self.oracle.has_met(other, node, self.processes[node].start))
    }

    fn estrange(&mut self, node: usize) {
        self.processes[node].lost = Some(Lost::Foreign);
        self.oracle.on_foreign(node);
    }
}

/// Draws weather with disturbances that TCP does not have.
fn storm(random: &mut Random, fair: Weather) -> Weather {
    let mut weather = fair;
    let mut draw = |most: u64| if random.chance(400) { 1 + random.below(most) } else { 0 };
    weather.loss = draw(30);
    weather.doubling = draw(100);
    weather.disorder = draw(30);
    weather.replay = draw(50);
    weather.split = draw(300);
    weather.jitter_us = fair.jitter_us + draw(50) * 1_000;
    weather
}
