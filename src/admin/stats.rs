//! Counters of a node. Counting a command is an index into a table and an addition: no allocation, no formatting.
//! Counting an error is a search by its first word; only a new kind allocates. Everything is bounded: commands by the
//! command table, error kinds by [`ERROR_KINDS_MAX`].

use groups::{Ms, Us};
use hdrhistogram::Histogram;

/// Maximum number of error kinds (first words) counted separately; further kinds are counted together as `OTHER`.
pub const ERROR_KINDS_MAX: usize = 128;

/// Maximum bytes kept of an error's first word.
const ERROR_KIND_BYTES_MAX: usize = 32;
/// Number of samples of a rate. The rate is their mean.
const RATE_SAMPLES: usize = 16;
/// Minimum time of one sample, in milliseconds.
const RATE_SAMPLE_MS: Ms = Ms(100);
/// The longest duration that is recorded, in microseconds. A longer one counts as this one.
const TIMING_US_MAX: Us = Us(60_000_000);

/// The counters of one node.
#[derive(Clone, Debug)]
pub struct Stats {
    names: Vec<&'static str>,
    commands: Vec<CommandStat>,
    errors: Vec<(Box<str>, u64)>,
    errors_other: u64,
    errors_total: u64,
    commands_total: u64,
    sampled_ms: Option<Ms>,
    ops: Rate,
    input: Rate,
    output: Rate,
    /// Client connections accepted.
    pub connections_received: u64,
    /// Client connections refused, for example above `maxclients`.
    pub connections_rejected: u64,
    /// Reads that found their key.
    pub hits: u64,
    /// Reads that did not find their key.
    pub misses: u64,
    /// Bytes received from clients.
    pub net_input_bytes: u64,
    /// Bytes sent to clients.
    pub net_output_bytes: u64,
    /// Syncs of the log.
    pub fsyncs: Timings,
    /// Turns of the event loop, without its sleep.
    pub turns: Timings,
    /// Batches of commands chosen.
    pub batches: Batches,
}

/// The counters of one command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommandStat {
    /// Executions, failed ones too.
    pub calls: u64,
    /// Microseconds spent on them.
    pub usec: Us,
    /// Refused before execution (arity, CROSSSLOT, …).
    pub rejected: u64,
    /// Executions that answered an error.
    pub failed: u64,
}

/// The sizes of batches of commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Batches {
    /// Batches counted.
    pub count: u64,
    /// Commands in them.
    pub commands: u64,
    /// Bytes in them.
    pub bytes: u64,
}

/// Durations in microseconds: their number, mean and percentiles (to within 1 %).
#[derive(Clone, Debug)]
pub struct Timings(Histogram<u64>);

/// A count per second, sampled.
#[derive(Clone, Debug, Default)]
struct Rate {
    samples: [u64; RATE_SAMPLES],
    next: usize,
    total: u64,
}

impl Stats {
    /// Returns counters at zero for the commands in `names`. The other methods name a command by its index in this
    /// list.
    #[must_use]
    pub fn new(names: Vec<&'static str>) -> Stats {
        Stats {
            commands: vec![CommandStat::default(); names.len()],
            names,
            errors: Vec::new(),
            errors_other: 0,
            errors_total: 0,
            commands_total: 0,
            sampled_ms: None,
            ops: Rate::default(),
            input: Rate::default(),
            output: Rate::default(),
            connections_received: 0,
            connections_rejected: 0,
            hits: 0,
            misses: 0,
            net_input_bytes: 0,
            net_output_bytes: 0,
            fsyncs: Timings::new(),
            turns: Timings::new(),
            batches: Batches::default(),
        }
    }

    /// Counts a command that ran for `usec` microseconds (0 if not measured). `failed`: it answered an error.
    pub fn called(&mut self, command: usize, usec: Us, failed: bool) {
        self.commands_total += 1;
        let Some(stat) = self.commands.get_mut(command) else { return };
        stat.calls += 1;
        stat.usec += usec;
        stat.failed += u64::from(failed);
    }

    /// Counts a command that was refused before it ran.
    pub fn rejected(&mut self, command: usize) {
        if let Some(stat) = self.commands.get_mut(command) {
            stat.rejected += 1;
        }
    }

    /// Counts an error that a client got: `text` as in [`Reply::Error`](crate::kv::reply::Reply::Error). Only the first
    /// word counts.
    pub fn error(&mut self, text: &str) {
        self.errors_total += 1;
        let word = text.split([' ', '\r', '\n']).next().unwrap_or_default();
        let kind = word.get(..word.len().min(ERROR_KIND_BYTES_MAX)).unwrap_or("OTHER");
        if let Some((_, count)) = self.errors.iter_mut().find(|(known, _)| **known == *kind) {
            *count += 1;
        } else if self.errors.len() < ERROR_KINDS_MAX {
            self.errors.push((kind.into(), 1));
        } else {
            self.errors_other += 1;
        }
    }

    /// Takes the samples for the rates, if the last ones are at least 100 ms old. `now_ms` is monotonic. Call this on
    /// every tick, and before the rates are read.
    pub fn sample(&mut self, now_ms: Ms) {
        let elapsed_ms = now_ms.saturating_sub(*self.sampled_ms.get_or_insert(now_ms));
        if elapsed_ms < RATE_SAMPLE_MS {
            return;
        }
        self.sampled_ms = Some(now_ms);
        self.ops.sample(self.commands_total, elapsed_ms);
        self.input.sample(self.net_input_bytes, elapsed_ms);
        self.output.sample(self.net_output_bytes, elapsed_ms);
    }

    /// Adds the counters of another worker of the node, for the same commands.
    pub fn add(&mut self, other: &Stats) {
        for (all, one) in self.commands.iter_mut().zip(&other.commands) {
            all.calls += one.calls;
            all.usec += one.usec;
            all.rejected += one.rejected;
            all.failed += one.failed;
        }
        for (kind, count) in &other.errors {
            match self.errors.iter().position(|(known, _)| known == kind) {
                Some(at) => self.errors[at].1 += count,
                None if self.errors.len() < ERROR_KINDS_MAX => self.errors.push((kind.clone(), *count)),
                None => self.errors_other += count,
            }
        }
        self.errors_other += other.errors_other;
        self.errors_total += other.errors_total;
        self.commands_total += other.commands_total;
        self.ops.add(&other.ops);
        self.input.add(&other.input);
        self.output.add(&other.output);
        self.connections_received += other.connections_received;
        self.connections_rejected += other.connections_rejected;
        self.hits += other.hits;
        self.misses += other.misses;
        self.net_input_bytes += other.net_input_bytes;
        self.net_output_bytes += other.net_output_bytes;
        self.fsyncs.add(&other.fsyncs);
        self.turns.add(&other.turns);
        self.batches.count += other.batches.count;
        self.batches.commands += other.batches.commands;
        self.batches.bytes += other.batches.bytes;
    }

    /// Sets every counter back to zero, for CONFIG RESETSTAT.
    pub fn reset(&mut self) {
        *self = Stats::new(std::mem::take(&mut self.names));
    }

    /// Returns the number of commands that ran.
    #[must_use]
    pub fn commands_total(&self) -> u64 {
        self.commands_total
    }

    /// Returns the number of errors that clients got.
    #[must_use]
    pub fn errors_total(&self) -> u64 {
        self.errors_total
    }

    /// Returns the recent commands per second.
    #[must_use]
    pub fn ops_per_second(&self) -> u64 {
        self.ops.mean()
    }

    /// Returns the recent bytes per second received from and sent to clients.
    #[must_use]
    pub fn net_bytes_per_second(&self) -> (u64, u64) {
        (self.input.mean(), self.output.mean())
    }

    /// Returns the commands that were called or refused, with their names.
    pub fn commands(&self) -> impl Iterator<Item = (&'static str, &CommandStat)> {
        let used = |stat: &CommandStat| stat.calls + stat.rejected > 0;
        self.names.iter().copied().zip(&self.commands).filter(move |(_, stat)| used(stat))
    }

    /// Returns the errors by kind, in the order in which the kinds first appeared; `OTHER` comes last, if it is needed.
    pub fn errors(&self) -> impl Iterator<Item = (&str, u64)> {
        let other = (self.errors_other > 0).then_some(("OTHER", self.errors_other));
        self.errors.iter().map(|(kind, count)| (&**kind, *count)).chain(other)
    }
}

impl Batches {
    /// Counts a chosen batch of this many commands and bytes.
    pub fn record(&mut self, commands: u64, bytes: u64) {
        self.count += 1;
        self.commands += commands;
        self.bytes += bytes;
    }

    /// Returns the mean number of commands in a batch.
    #[must_use]
    pub fn commands_mean(&self) -> f64 {
        self.commands as f64 / self.count.max(1) as f64
    }

    /// Returns the mean number of bytes in a batch.
    #[must_use]
    pub fn bytes_mean(&self) -> f64 {
        self.bytes as f64 / self.count.max(1) as f64
    }
}

impl Timings {
    /// Creates a set without durations.
    #[must_use]
    pub fn new() -> Timings {
        Timings(Histogram::new_with_bounds(1, TIMING_US_MAX.0, 2).expect("these bounds are legal"))
    }

    /// Records a duration. One longer than a minute counts as a minute.
    pub fn record(&mut self, usec: Us) {
        self.0.saturating_record(usec.0);
    }

    /// Adds the durations of another set.
    pub fn add(&mut self, other: &Timings) {
        self.0.add(&other.0).expect("both have the same bounds");
    }

    /// Returns the number of durations recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Returns their mean, in microseconds; 0 if there are none.
    #[must_use]
    pub fn mean_us(&self) -> Us {
        Us(self.0.mean().round() as u64)
    }

    /// Returns the `quantile` (0 to 1) of the durations, in microseconds.
    #[must_use]
    pub fn quantile_us(&self, quantile: f64) -> Us {
        Us(self.0.value_at_quantile(quantile))
    }
}

impl Default for Timings {
    fn default() -> Timings {
        Timings::new()
    }
}

impl Rate {
    /// Takes a sample: the counter stands at `total`, `elapsed_ms` (not 0) after the last sample. A sample is stored
    /// once per 100 ms that it covers. Otherwise the samples of a burst before a long pause would still dominate the
    /// mean after it.
    fn sample(&mut self, total: u64, elapsed_ms: Ms) {
        let per_second = total.saturating_sub(self.total).saturating_mul(1000) / elapsed_ms.0;
        self.total = total;
        for _ in 0..(elapsed_ms.0 / RATE_SAMPLE_MS.0).min(RATE_SAMPLES as u64) {
            self.samples[self.next] = per_second;
            self.next = (self.next + 1) % RATE_SAMPLES;
        }
    }

    /// Adds the samples of another rate. The newest of both have the same place, or nearly: the mean covers all.
    fn add(&mut self, other: &Rate) {
        self.samples.iter_mut().zip(&other.samples).for_each(|(all, one)| *all += one);
    }

    fn mean(&self) -> u64 {
        self.samples.iter().sum::<u64>() / RATE_SAMPLES as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_counted_by_index() {
        let mut stats = Stats::new(vec!["get", "set", "incr"]);
        stats.called(1, Us(5), false);
        stats.called(1, Us(2), true);
        stats.rejected(2);
        stats.called(99, Us(1), false);
        let set = CommandStat { calls: 2, usec: Us(7), rejected: 0, failed: 1 };
        let incr = CommandStat { rejected: 1, ..CommandStat::default() };
        assert_eq!(stats.commands().collect::<Vec<_>>(), [("set", &set), ("incr", &incr)]);
        assert_eq!(stats.commands_total(), 3);
        stats.reset();
        assert_eq!((stats.commands().count(), stats.commands_total()), (0, 0));
        stats.called(0, Us(0), false);
        assert_eq!(stats.commands().count(), 1, "a reset keeps the names");
    }

    #[test]
    fn kinds_of_errors_are_bounded() {
        let mut stats = Stats::new(Vec::new());
        for n in 0..1000 {
            stats.error(&format!("KIND{n} text"));
        }
        stats.error("KIND0 again");
        stats.error(&"x".repeat(1000));
        stats.error(&"é".repeat(1000));
        stats.error("");
        assert_eq!(stats.errors().count(), ERROR_KINDS_MAX + 1);
        assert_eq!(stats.errors().last(), Some(("OTHER", 1000 - ERROR_KINDS_MAX as u64 + 3)));
        assert_eq!(stats.errors().next(), Some(("KIND0", 2)));
        assert_eq!(stats.errors().map(|(_, count)| count).sum::<u64>(), 1004);
        assert_eq!(stats.errors_total(), 1004);
    }

    #[test]
    fn a_rate_is_the_mean_of_its_last_samples() {
        let mut rate = Rate::default();
        for tick in 1..=20 {
            rate.sample(tick * 100, Ms(100));
        }
        assert_eq!(rate.mean(), 1000);
        rate.sample(2000, Ms(800));
        assert_eq!(rate.mean(), 500, "half of the samples are idle");
        rate.sample(2000, Ms(3_600_000));
        assert_eq!(rate.mean(), 0);
        rate.sample(0, Ms(100));
        assert_eq!(rate.mean(), 0, "counters that were reset");
    }

    #[test]
    fn rates_are_sampled_at_most_ten_times_a_second() {
        let mut stats = Stats::new(vec!["get"]);
        stats.sample(Ms(5000));
        for _ in 0..1600 {
            stats.called(0, Us(0), false);
        }
        stats.sample(Ms(5099));
        assert_eq!(stats.ops_per_second(), 0, "too early for a sample");
        stats.sample(Ms(6600));
        assert_eq!(stats.ops_per_second(), 1000);
        stats.sample(Ms(6699));
        assert_eq!(stats.ops_per_second(), 1000);
        stats.sample(Ms(7400));
        assert_eq!(stats.ops_per_second(), 500);
    }

    #[test]
    fn timings_tell_mean_and_percentiles() {
        let mut timings = Timings::new();
        assert_eq!((timings.count(), timings.mean_us(), timings.quantile_us(0.99)), (0, Us(0), Us(0)));
        for usec in 1..=100 {
            timings.record(Us(usec));
        }
        timings.record(Us::MAX);
        assert_eq!(timings.count(), 101);
        assert_eq!(timings.quantile_us(0.5), Us(51));
        assert!(timings.quantile_us(1.0) >= TIMING_US_MAX);
    }
}
