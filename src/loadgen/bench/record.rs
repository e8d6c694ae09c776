//! Measurements of a load: latencies by kind of request, failures by their first word, and both over time.
//!
//! Each thread of the generator fills measurements of its own; they are merged at the end.

use super::verify::HistoryRecorder;
use super::workload::RequestKind;
use anyhow::Context;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;

/// Largest latency that is told apart: an hour, in ns. Higher ones count as this.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;
/// Initial length of the intervals of the series.
const INTERVAL_NS: u64 = 100_000_000;
/// Maximum number of intervals. Beyond it, each two become one, so that the memory and the picture of a long run stay
/// small.
const INTERVALS_MAX: usize = 600;
/// Maximum length of the word kept of an error.
const WORD_BYTES_MAX: usize = 32;

/// The measurements of one thread, or of all.
#[derive(Debug)]
pub struct Measurements {
    latencies: Vec<Histogram<u64>>,
    /// Error replies by their first word, including those that refuse a connection.
    pub errors: BTreeMap<String, u64>,
    /// Latencies and failures over time.
    pub series: Series,
    /// Replies without an error that arrived while requests were sent. They count for the throughput.
    pub in_time: u64,
    /// Connections that were made and lost.
    pub connections_lost: u64,
    /// Requests whose connection was lost before the reply came.
    pub lost: u64,
    /// Requests that a node referred to another one.
    pub redirects: u64,
    /// Requests still without a reply when the run gave up waiting.
    pub unanswered: u64,
    /// Requests due by the rate for which no connection had room in time.
    pub never_sent: u64,
    /// Every request and its outcome, if the run is to be verified.
    pub recorder: Option<HistoryRecorder>,
    /// End of sending, in ns since the start. For a fixed number of requests, the time of the last reply.
    pub end_ns: u64,
}

impl Measurements {
    /// Creates empty measurements.
    ///
    /// # Errors
    /// Never with the bounds used; the histogram's constructor is fallible.
    pub fn new() -> anyhow::Result<Measurements> {
        let histogram = || Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).context("histogram bounds");
        Ok(Measurements {
            latencies: RequestKind::ALL.iter().map(|_| histogram()).collect::<anyhow::Result<_>>()?,
            errors: BTreeMap::new(),
            series: Series::new()?,
            in_time: 0,
            connections_lost: 0,
            lost: 0,
            redirects: 0,
            unanswered: 0,
            never_sent: 0,
            recorder: None,
            end_ns: 0,
        })
    }

    /// Records a reply at `now_ns`. A reply after the end of sending (`in_time` is false) does not count for the
    /// throughput. It counts for the latencies, which would look too good without the slowest replies.
    pub fn on_reply(&mut self, kind: RequestKind, now_ns: u64, latency_ns: u64, in_time: bool) {
        self.latencies[kind as usize].saturating_record(latency_ns);
        if in_time {
            self.in_time += 1;
            self.series.at(now_ns).latencies.saturating_record(latency_ns);
        }
    }

    /// Counts an error reply, given as its line without the `-`.
    pub fn on_error(&mut self, line: &[u8], now_ns: u64, in_time: bool) {
        let end = line.iter().position(|byte| !byte.is_ascii_graphic()).unwrap_or(line.len()).min(WORD_BYTES_MAX);
        let word = std::str::from_utf8(&line[..end]).unwrap_or_default();
        match self.errors.get_mut(word) {
            Some(count) => *count += 1,
            None => _ = self.errors.insert(word.to_owned(), 1),
        }
        if in_time {
            self.series.at(now_ns).failures += 1;
        }
    }

    /// Counts a lost connection, and its requests that got no reply and will not be sent again.
    pub fn on_connection_lost(&mut self, requests: u64, now_ns: u64, in_time: bool) {
        self.connections_lost += 1;
        self.lost += requests;
        if in_time {
            self.series.at(now_ns).failures += requests;
        }
    }

    /// Returns the latencies of one kind of request, in ns.
    #[must_use]
    pub fn latencies(&self, kind: RequestKind) -> &Histogram<u64> {
        &self.latencies[kind as usize]
    }

    /// Returns the latencies of all requests together, in ns.
    #[must_use]
    pub fn all_latencies(&self) -> Histogram<u64> {
        let mut all = self.latencies[0].clone();
        self.latencies[1..].iter().for_each(|one| add(&mut all, one));
        all
    }

    /// Adds the measurements of another thread in the same run.
    pub fn merge(&mut self, other: Measurements) {
        self.latencies.iter_mut().zip(&other.latencies).for_each(|(into, from)| add(into, from));
        for (word, count) in other.errors {
            *self.errors.entry(word).or_default() += count;
        }
        self.series.merge(other.series);
        self.in_time += other.in_time;
        self.connections_lost += other.connections_lost;
        self.lost += other.lost;
        self.redirects += other.redirects;
        self.unanswered += other.unanswered;
        self.never_sent += other.never_sent;
        self.recorder = match (self.recorder.take(), other.recorder) {
            (Some(own), Some(other)) => Some(own.merged(other)),
            (own, other) => own.or(other),
        };
        self.end_ns = self.end_ns.max(other.end_ns);
    }
}

/// Measurements in intervals of equal length since the start.
#[derive(Debug)]
pub struct Series {
    /// The length of each interval.
    pub interval_ns: u64,
    /// The intervals from the start on.
    pub intervals: Vec<Interval>,
    empty: Histogram<u32>,
}

/// Measurements of one interval.
#[derive(Clone, Debug)]
pub struct Interval {
    /// Latencies in ns of the replies that arrived in it, to two digits.
    pub latencies: Histogram<u32>,
    /// Error replies and requests lost with their connection.
    pub failures: u64,
}

impl Series {
    fn new() -> anyhow::Result<Series> {
        let empty = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 2).context("histogram bounds")?;
        Ok(Series { interval_ns: INTERVAL_NS, intervals: Vec::new(), empty })
    }

    fn at(&mut self, now_ns: u64) -> &mut Interval {
        while now_ns / self.interval_ns >= INTERVALS_MAX as u64 {
            self.coarsen();
        }
        let index = (now_ns / self.interval_ns) as usize;
        if index >= self.intervals.len() {
            self.intervals.resize(index + 1, Interval { latencies: self.empty.clone(), failures: 0 });
        }
        &mut self.intervals[index]
    }

    /// Merges each two intervals into one.
    fn coarsen(&mut self) {
        let mut pairs = std::mem::take(&mut self.intervals).into_iter();
        while let Some(mut first) = pairs.next() {
            if let Some(second) = pairs.next() {
                first.merge(&second);
            }
            self.intervals.push(first);
        }
        self.interval_ns *= 2;
    }

    fn merge(&mut self, mut other: Series) {
        while self.interval_ns < other.interval_ns {
            self.coarsen();
        }
        while other.interval_ns < self.interval_ns {
            other.coarsen();
        }
        for (index, interval) in other.intervals.iter().enumerate() {
            self.at(index as u64 * self.interval_ns).merge(interval);
        }
    }
}

impl Interval {
    fn merge(&mut self, other: &Interval) {
        add(&mut self.latencies, &other.latencies);
        self.failures += other.failures;
    }
}

fn add<T: hdrhistogram::Counter>(into: &mut Histogram<T>, from: &Histogram<T>) {
    // Adding fails only if a value is out of bounds, and all histograms of one type have the same bounds.
    let added = into.add(from);
    debug_assert!(added.is_ok());
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn replies_land_in_their_kind_and_interval() {
        let mut record = Measurements::new().unwrap();
        record.on_reply(RequestKind::Get, 50_000_000, 1000, true);
        record.on_reply(RequestKind::Set, 150_000_000, 3000, true);
        record.on_reply(RequestKind::Set, 950_000_000, 5000, false);
        assert_eq!(record.in_time, 2);
        assert_eq!(record.latencies(RequestKind::Get).len(), 1);
        assert_eq!(record.latencies(RequestKind::Set).len(), 2);
        assert_eq!(record.all_latencies().len(), 3);
        let counts: Vec<u64> = record.series.intervals.iter().map(|interval| interval.latencies.len()).collect();
        assert_eq!(counts, [1, 1]);
    }

    #[test]
    fn percentiles_are_exact_to_three_digits() {
        let mut record = Measurements::new().unwrap();
        (1..=100_000_u64).for_each(|i| record.on_reply(RequestKind::Set, 0, i * 1000, true));
        for (quantile, expected) in [(0.5, 50_000_000.0), (0.99, 99_000_000.0), (0.999, 99_900_000.0)] {
            let found = record.latencies(RequestKind::Set).value_at_quantile(quantile) as f64;
            assert!((found / expected - 1.0).abs() < 0.001, "{found} for {quantile}");
        }
        record.on_reply(RequestKind::Set, 0, u64::MAX, true);
        assert!(record.latencies(RequestKind::Set).max() >= LATENCY_NS_MAX);
    }

    #[test]
    fn errors_are_counted_by_their_first_word() {
        let mut record = Measurements::new().unwrap();
        for line in [&b"ERR no"[..], b"ERR other", b"CLUSTERDOWN Hash slot not served", b"\xff\xfe", b""] {
            record.on_error(line, 0, true);
        }
        let errors: Vec<_> = record.errors.iter().map(|(word, count)| (word.as_str(), *count)).collect();
        assert_eq!(errors, [("", 2), ("CLUSTERDOWN", 1), ("ERR", 2)]);
        assert_eq!(record.series.intervals[0].failures, 5);
    }

    #[test]
    fn a_long_run_has_longer_intervals_and_loses_nothing() {
        let mut long = Measurements::new().unwrap();
        (0..200).for_each(|second| long.on_reply(RequestKind::Set, second * SECOND, 7, true));
        assert_eq!(long.series.interval_ns, 4 * INTERVAL_NS);
        assert!(long.series.intervals.len() <= INTERVALS_MAX);

        let mut short = Measurements::new().unwrap();
        (0..20).for_each(|second| short.on_reply(RequestKind::Set, second * SECOND, 7, true));
        short.merge(long);
        assert_eq!(short.series.interval_ns, 4 * INTERVAL_NS);
        assert_eq!(short.series.intervals.iter().map(|interval| interval.latencies.len()).sum::<u64>(), 220);
        assert_eq!(short.series.intervals[0].latencies.len(), 2);
        assert_eq!(short.in_time, 220);
    }
}
