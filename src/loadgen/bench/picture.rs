//! The picture of one run: latency by percentile on the left, throughput and latency over time on the right.

use super::report::{Point, Report, duration, grouped};
use super::svg::{Anchor, Axis, Colour, Panel, Picture, Side, Style, short_number};

const WIDTH: f64 = 1080.0;
const HEIGHT: f64 = 580.0;
const MARGIN: f64 = 40.0;
/// The upper edge of the panels.
const TOP: f64 = 216.0;
/// Number of nines of the last percentile drawn, 99.999.
const NINES_MAX: f64 = 5.0;
const BOTTOM: f64 = HEIGHT - 72.0;

/// Draws a report as SVG.
#[must_use]
pub fn of_report(report: &Report) -> String {
    let title = report.parameters.headline();
    let mut picture = Picture::new(WIDTH, HEIGHT, &format!("paxoi bench: {title}"));
    picture.text(MARGIN, 46.0, Style::Title, Anchor::Start, &title);
    let addresses = report.parameters.connect.join(", ");
    let subtitle = format!("{} · {addresses} · {}", report.parameters.details(), setting(report));
    picture.text(MARGIN, 70.0, Style::Subtitle, Anchor::Start, &subtitle);
    picture.figures(MARGIN, 124.0, &figures(report));
    by_percentile(&mut picture, report);
    over_time(&mut picture, report);
    picture.finish()
}

/// Describes the setting of a run: its length, the host and the program.
#[must_use]
pub fn setting(report: &Report) -> String {
    let (seconds, cpus) = (report.elapsed_s, report.host_cpus);
    format!("{seconds:.1} s from a host with {cpus} CPUs · paxoi {}", report.version)
}

fn figures(report: &Report) -> Vec<(String, String)> {
    let latency = &report.latency;
    let figure = |figure: String, caption: &str| (figure, caption.to_owned());
    vec![
        figure(grouped(report.requests_per_s.round() as u64), "requests per second"),
        figure(duration(latency.p50_us), "p50"),
        figure(duration(latency.p90_us), "p90"),
        figure(duration(latency.p99_us), "p99"),
        figure(duration(latency.p999_us), "p99.9"),
        figure(duration(latency.max_us), "max"),
        figure(grouped(report.failures()), "failures"),
    ]
}

fn by_percentile(picture: &mut Picture, report: &Report) {
    const COLOURS: [Colour; 2] = [Colour::Blue, Colour::Amber];
    // Percentiles with more nines are not drawn. The maximum, which has infinitely many, is among the figures.
    let curve = |percentiles: &[(f64, f64)]| -> Vec<(f64, f64)> {
        percentiles.iter().filter(|(p, _)| nines(*p) <= NINES_MAX + 1e-6).map(|&(p, us)| (nines(p), us)).collect()
    };
    let curves: Vec<Vec<(f64, f64)>> = report.operations.iter().map(|op| curve(&op.latency.percentiles)).collect();
    let values = || curves.iter().flatten();
    let nines_max = values().map(|(x, _)| *x).fold(2.0, f64::max);
    let (min, max) =
        (values().map(|(_, y)| *y).fold(f64::MAX, f64::min), values().map(|(_, y)| *y).fold(0.0, f64::max));
    let ticks = [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999].map(|p| (nines(p), p.to_string()));
    let panel = Panel {
        left: MARGIN + 52.0,
        top: TOP,
        width: 410.0,
        height: BOTTOM - TOP,
        x: Axis::with_ticks(0.0, nines_max, ticks.into_iter().filter(|(x, _)| *x <= nines_max + 1e-9).collect()),
        y: Axis::latency(min, max),
    };
    panel.frame(picture, "Latency by percentile", "percentile of requests");
    for (colour, curve) in COLOURS.into_iter().zip(&curves) {
        panel.line(picture, colour, false, curve.iter().copied().map(Some));
    }
    if let [single] = &report.operations[..] {
        let l = &single.latency;
        for (p, us) in [(50.0, l.p50_us), (90.0, l.p90_us), (99.0, l.p99_us), (99.9, l.p999_us)] {
            if l.count > 0 && nines(p) <= nines_max {
                panel.dot(picture, Colour::Blue, (nines(p), us), Side::Above, "");
            }
        }
    } else {
        let names: Vec<_> = COLOURS.into_iter().zip(report.operations.iter().map(|op| op.name)).collect();
        picture.legend(panel.left + panel.width, TOP - 14.0, &names);
    }
}

fn over_time(picture: &mut Picture, report: &Report) {
    let series = &report.series;
    let end_s = report.elapsed_s.max(report.interval_s);
    let time = Axis::linear(end_s, |s| format!("{} s", (s * 1000.0).round() / 1000.0));
    let time = time.ending_at(end_s);
    let rate_max = series.iter().map(|point| point.requests_per_s).fold(0.0, f64::max);
    let answered = |point: &&Point| point.requests_per_s > 0.0;
    let latency_min = series.iter().filter(answered).map(|point| point.p50_us).fold(f64::MAX, f64::min);
    let latency_max = series.iter().map(|point| point.max_us).fold(0.0, f64::max);
    let (left, width) = (620.0, WIDTH - 620.0 - MARGIN);
    let height = (BOTTOM - TOP - 60.0) / 2.0;
    // Each value stands in the middle of its interval.
    let at = |point: &Point| point.at_s + report.interval_s / 2.0;

    let upper =
        Panel { left, top: TOP, width, height, x: time.without_names(), y: Axis::linear(rate_max, short_number) };
    upper.frame(picture, "Requests per second", "");
    let rates: Vec<(f64, f64)> = series.iter().map(|point| (at(point), point.requests_per_s)).collect();
    upper.area(picture, Colour::Teal, &rates);
    upper.line(picture, Colour::Teal, false, rates.iter().copied().map(Some));
    for point in series.iter().filter(|point| point.failures > 0) {
        upper.mark(picture, Colour::Rose, point.at_s, report.interval_s);
    }
    if series.iter().any(|point| point.failures > 0) {
        picture.legend(left + width, TOP - 14.0, &[(Colour::Rose, "failures")]);
    }

    let top = TOP + height + 60.0;
    let lower = Panel { left, top, width, height, x: time, y: Axis::latency(latency_min, latency_max) };
    lower.frame(picture, "Latency over time", "time since the start");
    let mut line = |colour, thin, value: fn(&Point) -> f64| {
        let points = series.iter().map(|point| answered(&point).then(|| (at(point), value(point))));
        lower.line(picture, colour, thin, points);
    };
    line(Colour::Rose, true, |point| point.max_us);
    line(Colour::Amber, false, |point| point.p99_us);
    line(Colour::Blue, false, |point| point.p50_us);
    picture.legend(left + width, top - 14.0, &[(Colour::Blue, "p50"), (Colour::Amber, "p99"), (Colour::Rose, "max")]);
}

/// Returns the number of nines of a percentile: 90 has one, 99.9 three.
fn nines(percentile: f64) -> f64 {
    -(1.0 - percentile / 100.0).log10()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loadgen::bench::record::Measurements;
    use crate::loadgen::bench::report::Parameters;
    use crate::loadgen::bench::workload::RequestKind;

    fn parameters() -> Parameters {
        Parameters {
            connect: vec!["127.0.0.1:7001".into()],
            cluster: true,
            connections: 1,
            pipeline: 1,
            threads: 1,
            duration_s: Some(1.0),
            requests: None,
            rate_per_s: Some(1000.0),
            workload: "mixed:0.5".into(),
            keys: 1,
            keys_dist: "uniform".into(),
            value_size: 64,
            seed: 1,
        }
    }

    fn draw(fill: impl FnOnce(&mut Measurements)) -> String {
        let mut record = Measurements::new().unwrap();
        fill(&mut record);
        of_report(&Report::new(parameters(), &[RequestKind::Get, RequestKind::Set], &record, false))
    }

    #[test]
    fn every_run_has_a_picture_even_one_without_replies() {
        let empty = draw(|_| {});
        let failed = draw(|record| {
            record.on_error(b"ERR no", 50_000_000, true);
            record.end_ns = 1_000_000_000;
        });
        let one = draw(|record| {
            record.on_reply(RequestKind::Set, 50_000_000, 1000, true);
            record.end_ns = 100_000_000;
        });
        for svg in [empty, failed, one] {
            assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn a_stall_is_a_gap_and_failures_are_marked() {
        let svg = draw(|record| {
            for ms in (0..300).chain(700..1000) {
                record.on_reply(RequestKind::Get, ms * 1_000_000, 200_000, true);
            }
            record.on_connection_lost(3, 350_000_000, true);
            record.end_ns = 1_000_000_000;
        });
        assert_eq!(svg.matches("class=\"fill-rose\"").count(), 1);
        let p50 = svg.lines().rfind(|line| line.contains("class=\"line blue\"") && line.contains('L')).unwrap();
        assert_eq!(p50.matches('M').count(), 2, "{p50}");
    }
}
