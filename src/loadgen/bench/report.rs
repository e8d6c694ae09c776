//! The measurements of a load, as a table for people and as JSON for programs.
//!
//! The names of the fields here are the names in the JSON, and do not change their meaning. Times end in their unit
//! (`_us` is microseconds, `_s` seconds). Counts are plain.

use super::cpu::CpuReport;
use super::record::{Measurements, Series};
use super::workload::RequestKind;
use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// Results of one run of `paxoi bench`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The version of the program.
    pub version: &'static str,
    /// When the report was made.
    pub unix_time_ms: u64,
    /// Processors of this machine: they bound what can be measured on it.
    pub host_cpus: usize,
    /// Parameters of the run.
    pub parameters: Parameters,
    /// Whether a signal stopped the run.
    pub interrupted: bool,
    /// How long requests were sent.
    pub elapsed_s: f64,
    /// Requests answered without an error.
    pub requests: u64,
    /// Requests answered without an error, per second, while requests were sent.
    pub requests_per_s: f64,
    /// Error replies by their first word.
    pub errors: BTreeMap<String, u64>,
    /// Connections that were made and lost.
    pub connections_lost: u64,
    /// Requests whose connection was lost before their answer came.
    pub requests_lost: u64,
    /// Requests without an answer at the end of the wait.
    pub unanswered: u64,
    /// Requests due by `--rate` that found no room in any connection's pipeline.
    pub never_sent: u64,
    /// Requests sent again to another node after `-MOVED`.
    pub redirects: u64,
    /// With `--verify`, whether the clients' history is linearizable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verified>,
    /// With `--cpu`, the processor time and the work of the servers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuReport>,
    /// Latencies of all requests answered without an error.
    pub latency: Latency,
    /// Latencies by kind of request.
    pub operations: Vec<Operation>,
    /// Length of the intervals of the series.
    pub interval_s: f64,
    /// The intervals in order.
    pub series: Vec<Point>,
}

/// Result of `--verify`.
#[derive(Clone, Debug, Serialize)]
pub struct Verified {
    /// Whether every history that was kept is linearizable. None: the check would have taken too long.
    pub linearizable: Option<bool>,
    /// Keys whose histories were checked. The check ends with the first wrong history.
    pub keys: usize,
    /// Operations on these keys, including the final read of each.
    pub operations: usize,
    /// Operations with an unknown outcome, as when their connection was lost.
    pub open: usize,
    /// Operations whose error reply says that they were not executed.
    pub refused: u64,
    /// The share of all keys whose histories were kept.
    pub keys_kept: f64,
    /// Points of the search that were visited.
    pub steps: u64,
    /// Duration of the check.
    pub elapsed_s: f64,
    /// A few operations that show the violation, with times in ns, or the key whose check took too long.
    pub counterexample: Option<String>,
}

/// Parameters of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Parameters {
    /// Addresses.
    pub connect: Vec<String>,
    /// Whether `CLUSTER SLOTS` decided where each key goes.
    pub cluster: bool,
    /// Connections in all.
    pub connections: usize,
    /// Maximum requests in flight per connection.
    pub pipeline: usize,
    /// Threads of the generator.
    pub threads: usize,
    /// The requested time, if time was the limit.
    pub duration_s: Option<f64>,
    /// The requested number of requests, if a number was the limit.
    pub requests: Option<u64>,
    /// Requested number of requests per second: an open loop. None: a closed loop.
    pub rate_per_s: Option<f64>,
    /// The kind of load, as on the command line.
    pub workload: String,
    /// Number of different keys.
    pub keys: u64,
    /// The distribution of keys, as on the command line.
    pub keys_dist: String,
    /// Bytes of each value.
    pub value_size: usize,
    /// The seed of the keys and values.
    pub seed: u64,
}

/// One kind of request.
#[derive(Clone, Debug, Serialize)]
pub struct Operation {
    /// `set`, `get`, `incr`, `append` or `once`.
    pub name: &'static str,
    /// Latencies of these requests.
    pub latency: Latency,
}

/// A distribution of latencies.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    /// Number of latencies measured.
    pub count: u64,
    /// Mean.
    pub mean_us: f64,
    /// Median.
    pub p50_us: f64,
    /// 90th percentile.
    pub p90_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// Percentile 99.9.
    #[serde(rename = "p99_9_us")]
    pub p999_us: f64,
    /// Maximum.
    pub max_us: f64,
    /// Points `[percentile, latency in µs]`, closer together the nearer they are to 100.
    pub percentiles: Vec<(f64, f64)>,
}

/// One interval of the series.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// Its start, since the start of the run.
    pub at_s: f64,
    /// Answers per second in it.
    pub requests_per_s: f64,
    /// Median latency.
    pub p50_us: f64,
    /// 99th percentile of the latencies.
    pub p99_us: f64,
    /// Maximum latency.
    pub max_us: f64,
    /// Error replies and requests lost with a connection in it.
    pub failures: u64,
}

impl Report {
    /// Creates the report of a finished run.
    #[must_use]
    pub fn new(parameters: Parameters, kinds: &[RequestKind], record: &Measurements, interrupted: bool) -> Report {
        let all = record.all_latencies();
        let elapsed_s = seconds(record.end_ns);
        let operation = |kind: &RequestKind| Operation { name: kind.name(), latency: latency(record.latencies(*kind)) };
        Report {
            version: env!("CARGO_PKG_VERSION"),
            unix_time_ms: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64),
            host_cpus: std::thread::available_parallelism().map_or(1, usize::from),
            parameters,
            interrupted,
            elapsed_s,
            requests: all.len(),
            requests_per_s: if elapsed_s > 0.0 { record.in_time as f64 / elapsed_s } else { 0.0 },
            errors: record.errors.clone(),
            connections_lost: record.connections_lost,
            requests_lost: record.lost,
            unanswered: record.unanswered,
            never_sent: record.never_sent,
            redirects: record.redirects,
            verify: None,
            cpu: None,
            latency: latency(&all),
            operations: kinds.iter().map(operation).collect(),
            interval_s: seconds(record.series.interval_ns),
            series: points(&record.series, record.end_ns),
        }
    }

    /// Returns the number of failed requests of all kinds.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.errors.values().sum::<u64>() + self.requests_lost + self.unanswered + self.never_sent
    }

    /// Returns the number and the description of each kind of failure, the most frequent errors first.
    #[must_use]
    pub fn failure_rows(&self) -> Vec<(u64, String)> {
        let name = |word: &String| if word.is_empty() { "errors without a name".into() } else { format!("-{word}") };
        let mut rows: Vec<(u64, String)> = self.errors.iter().map(|(word, &count)| (count, name(word))).collect();
        rows.sort_by(|a, b| b.cmp(a));
        rows.push((self.connections_lost, "a connection lost".into()));
        rows.push((self.requests_lost, "without a reply because its connection was lost".into()));
        rows.push((self.unanswered, "without a reply at the end".into()));
        rows.push((self.never_sent, "due by --rate, but no connection had room".into()));
        rows.push((self.redirects, "-MOVED, and sent again elsewhere".into()));
        rows.retain(|(count, _)| *count > 0);
        rows
    }
}

impl Parameters {
    /// Describes the load in a few words: its kind, the number of connections, and the rate.
    #[must_use]
    pub fn headline(&self) -> String {
        let plural = if self.connections == 1 { "" } else { "s" };
        let connections = grouped(self.connections as u64);
        let mut text = format!("{} · {connections} connection{plural} · pipeline {}", self.workload, self.pipeline);
        if let Some(rate) = self.rate_per_s {
            text += &format!(" · open loop at {}/s", grouped(rate.round() as u64));
        }
        text
    }

    /// Describes the data and the routing of the load.
    #[must_use]
    pub fn details(&self) -> String {
        let mut text = format!("{} keys, {}", grouped(self.keys), self.keys_dist);
        if self.workload != "incr" && self.workload != "once" {
            text += &format!(" · {}-byte values", grouped(self.value_size as u64));
        }
        if self.cluster {
            text += " · sent to the owner of each key";
        }
        text
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} · {}", self.parameters.headline(), self.parameters.details())?;
        let mut table = table(&["", "requests", "per second", "mean", "p50", "p90", "p99", "p99.9", "max"]);
        let row = |name: &str, rate: f64, l: &Latency| {
            let times = [l.mean_us, l.p50_us, l.p90_us, l.p99_us, l.p999_us, l.max_us].map(duration);
            let mut row = vec![name.to_owned(), grouped(l.count), grouped(rate.round() as u64)];
            row.extend(times);
            row
        };
        for operation in &self.operations {
            // All kinds share one run, so that their rates have the ratio of their counts.
            let share = operation.latency.count as f64 / self.latency.count.max(1) as f64;
            table.add_row(row(operation.name, self.requests_per_s * share, &operation.latency));
        }
        if self.operations.len() > 1 {
            table.add_row(row("all", self.requests_per_s, &self.latency));
        }
        write!(f, "{}", print(&mut table))?;
        for (count, what) in self.failure_rows() {
            write!(f, "\n {} × {what}", grouped(count))?;
        }
        if let Some(cpu) = &self.cpu {
            write!(f, "\n\n{cpu}")?;
        }
        if let Some(verified) = &self.verify {
            write!(f, "\n {verified}")?;
        }
        if self.interrupted {
            write!(f, "\n stopped after {:.1} s", self.elapsed_s)?;
        }
        Ok(())
    }
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.linearizable {
            Some(true) => "linearizable",
            Some(false) => "NOT LINEARIZABLE",
            None => "undecided",
        };
        let [keys, operations, open] = [self.keys, self.operations, self.open].map(|count| grouped(count as u64));
        let (time, plural) = (duration(self.elapsed_s * 1e6), if self.keys == 1 { "" } else { "s" });
        write!(f, "{verdict}: {operations} operations on {keys} key{plural}, {open} of them open; checked in {time}")?;
        if self.keys_kept < 1.0 {
            write!(f, "; only 1 key in {} was recorded", (1.0 / self.keys_kept).round())?;
        }
        Ok(())
    }
}

/// Creates an empty table with these columns.
#[must_use]
pub fn table(columns: &[&str]) -> Table {
    const LINE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));
    let mut table = Table::new();
    table.load_style(LINE).set_header(columns.to_vec());
    table
}

/// Formats a table, with all columns but the first aligned to the right, as suits numbers.
#[must_use]
pub fn print(table: &mut Table) -> String {
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table.trim_fmt()
}

/// Formats a number with its thousands apart: `1,234,567`.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats a time in µs to three digits, in the unit that suits it.
#[must_use]
pub fn duration(us: f64) -> String {
    let (value, unit) = match us {
        _ if us < 999.5 => (us, "µs"),
        _ if us < 999_500.0 => (us / 1e3, "ms"),
        _ => (us / 1e6, "s"),
    };
    let decimals = match value {
        _ if value < 9.995 => 2,
        _ if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {unit}")
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

fn us(ns: u64) -> f64 {
    ns as f64 / 1e3
}

fn latency(ns: &Histogram<u64>) -> Latency {
    let at = |quantile: f64| us(ns.value_at_quantile(quantile));
    // Sixteen steps for each further nine, as far as the number of measurements supports it.
    let nines = (ns.len().max(10) as f64).log10().min(6.0);
    let steps = 0..=(nines * 16.0) as u32;
    let quantiles = steps.map(|step| 1.0 - 10_f64.powf(-f64::from(step) / 16.0));
    let mut percentiles: Vec<(f64, f64)> = quantiles.map(|quantile| (quantile * 100.0, at(quantile))).collect();
    percentiles.push((100.0, us(ns.max())));
    Latency {
        count: ns.len(),
        mean_us: ns.mean() / 1e3,
        p50_us: at(0.5),
        p90_us: at(0.9),
        p99_us: at(0.99),
        p999_us: at(0.999),
        max_us: us(ns.max()),
        percentiles,
    }
}

fn points(series: &Series, end_ns: u64) -> Vec<Point> {
    let length = series.interval_ns;
    let point = |index: u64| {
        let start_ns = index * length;
        // The last interval may be incomplete. A rate over a few milliseconds would say nothing.
        let length_ns = (end_ns - start_ns).min(length);
        if length_ns * 2 < length {
            return None;
        }
        let interval = series.intervals.get(index as usize);
        let at = |quantile: f64| interval.map_or(0.0, |interval| us(interval.latencies.value_at_quantile(quantile)));
        let count = interval.map_or(0, |interval| interval.latencies.len());
        Some(Point {
            at_s: seconds(start_ns),
            requests_per_s: count as f64 / seconds(length_ns),
            p50_us: at(0.5),
            p99_us: at(0.99),
            max_us: at(1.0),
            failures: interval.map_or(0, |interval| interval.failures),
        })
    };
    (0..end_ns.div_ceil(length)).filter_map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_people() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(1_234_567), "1,234,567");
        let times = [0.0, 7.256, 312.4, 999.6, 1234.0, 45_678.0, 1_500_000.0].map(duration);
        assert_eq!(times, ["0.00 µs", "7.26 µs", "312 µs", "1.00 ms", "1.23 ms", "45.7 ms", "1.50 s"]);
    }

    #[test]
    fn rates_and_percentiles_are_those_of_the_record() {
        let mut record = Measurements::new().unwrap();
        // One reply in each ms of a second, slower and slower; one more comes late.
        (0..1000).for_each(|ms| record.on_reply(RequestKind::Set, ms * 1_000_000, (ms + 1) * 1000, true));
        record.on_reply(RequestKind::Set, 1_400_000_000, 9_000_000, false);
        record.end_ns = 1_000_000_000;
        let distribution = latency(record.latencies(RequestKind::Set));
        assert_eq!(distribution.count, 1001);
        for (found, expected) in
            [(distribution.p50_us, 501.0), (distribution.p99_us, 991.0), (distribution.max_us, 9000.0)]
        {
            assert!((found / expected - 1.0_f64).abs() < 0.001, "{found}, not {expected}");
        }
        assert!(distribution.percentiles.is_sorted());
        assert_eq!(distribution.percentiles.first().unwrap().0, 0.0);

        let series = points(&record.series, record.end_ns);
        assert_eq!(series.len(), 10);
        assert!(series.iter().all(|point| (point.requests_per_s - 1000.0).abs() < 1e-6), "{series:?}");
        assert!(series[9].p50_us > series[0].max_us);
    }

    #[test]
    fn intervals_without_replies_are_there_and_a_scrap_is_not() {
        let mut record = Measurements::new().unwrap();
        record.on_reply(RequestKind::Get, 10_000_000, 1000, true);
        let rates =
            |end_ns| -> Vec<f64> { points(&record.series, end_ns).iter().map(|point| point.requests_per_s).collect() };
        assert_eq!(rates(310_000_000), [10.0, 0.0, 0.0]);
        assert_eq!(rates(350_000_000), [10.0, 0.0, 0.0, 0.0]);
        assert_eq!(rates(0), [0.0; 0]);
    }
}
