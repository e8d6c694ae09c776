//! The report: the sums over all runs.

use crate::nemesis::{FAULT_KINDS, FaultKind};
use crate::oracle::KINDS;
use crate::run::Outcome;
use std::fmt::Write as _;
use std::time::Duration;

/// Number of seeds after which every fault and event must have occurred.
const SEEDS_MIN: u64 = 60;
/// The kind of [`groups::message::Diverged`], which a node never has a reason to send.
const DIVERGED: u8 = 8;

#[derive(Default)]
pub(crate) struct Table {
    runs: u64,
    sum: Outcome,
}

impl Table {
    pub(crate) fn add(&mut self, run: &Outcome) {
        self.runs += 1;
        let sum = &mut self.sum;
        sum.virtual_us += run.virtual_us;
        sum.operations += run.operations;
        sum.checked += run.checked;
        sum.open += run.open;
        sum.errors += run.errors;
        sum.messages += run.messages;
        sum.kinds.iter_mut().zip(run.kinds).for_each(|(all, one)| *all += one);
        sum.frames += run.frames;
        sum.records += run.records;
        sum.chosen += run.chosen;
        sum.changed += run.changed;
        sum.operated += run.operated;
        sum.scans += run.scans;
        sum.bursts += run.bursts;
        sum.repeated += run.repeated;
        sum.outdated += run.outdated;
        sum.states += run.states;
        sum.checkpoints += run.checkpoints;
        sum.transfers += run.transfers;
        sum.trims += run.trims;
        sum.recovering += run.recovering;
        sum.early += run.early;
        sum.noticed += run.noticed;
        sum.refused += run.refused;
        sum.storms.iter_mut().zip(run.storms).for_each(|(all, one)| *all += one);
        sum.counts.iter_mut().zip(run.counts).for_each(|(all, one)| *all += one);
    }

    /// Returns an error text if many seeds ran and a required message, fault or event never occurred: the simulator has
    /// become too weak.
    pub(crate) fn untested(&self) -> Option<String> {
        let kinds: Vec<usize> =
            (1..KINDS).filter(|kind| self.sum.kinds[*kind] == 0 && *kind != usize::from(DIVERGED)).collect();
        let faults: Vec<&FaultKind> = FAULT_KINDS.iter().filter(|kind| self.sum.counts[**kind as usize] == 0).collect();
        let sum = &self.sum;
        let storage = [sum.checkpoints, sum.transfers, sum.trims, sum.recovering, sum.early];
        let unused =
            storage.contains(&0) || [sum.operated, sum.scans, sum.repeated, sum.outdated, sum.bursts].contains(&0);
        let missed = self.runs >= SEEDS_MIN && (unused || !(kinds.is_empty() && faults.is_empty()));
        missed
            .then(|| format!("never seen: messages of the kinds {kinds:?}, faults {faults:?}, checkpoints {storage:?}"))
    }

    pub(crate) fn text(&self, took: Duration) -> String {
        let sum = &self.sum;
        let virtual_s = sum.virtual_us as f64 / 1e6;
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{} seeds, {:.1} virtual hours in {:.0} s: {:.0} virtual seconds a second, {:.0} replies a virtual second",
            self.runs,
            virtual_s / 3600.0,
            took.as_secs_f64(),
            virtual_s / took.as_secs_f64().max(0.001),
            sum.operations as f64 / virtual_s.max(0.001)
        );
        let _ = writeln!(
            text,
            "checked: {} operations of clients ({} without an outcome; {} errors besides), {} chosen values, {} states, \
             {} records, {} messages",
            sum.checked, sum.open, sum.errors, sum.chosen, sum.states, sum.records, sum.messages
        );
        let [lost, doubled, disordered, replayed] = sum.storms;
        let _ = writeln!(
            text,
            "frames: {} sent, {lost} lost, {doubled} doubled, {disordered} out of order, {replayed} replayed",
            sum.frames
        );
        let _ = writeln!(
            text,
            "checkpoints: {} states written, {} fetched from others, {} times old segments went, {} states found not whole, \
             {} values applied while other groups were missing",
            sum.checkpoints, sum.transfers, sum.trims, sum.recovering, sum.early
        );
        let _ = writeln!(
            text,
            "clients: {} iterations over all keys, {} commands of sessions answered again, {} too late, {} bursts",
            sum.scans, sum.repeated, sum.outdated, sum.bursts
        );
        let _ = writeln!(text, "members: {} changes chosen, {} done in all groups", sum.changed, sum.operated);
        let faults: Vec<String> =
            FAULT_KINDS.iter().map(|kind| format!("{kind:?} {}", sum.counts[*kind as usize])).collect();
        let _ = write!(
            text,
            "faults: {}; {} damaged directories noticed, {} foreign ones refused",
            faults.join(", "),
            sum.noticed,
            sum.refused
        );
        text
    }
}
