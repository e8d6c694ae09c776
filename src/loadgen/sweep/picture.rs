//! The picture of a sweep: throughput and latency over the number of groups.

use super::{Run, Sweep};
use crate::loadgen::bench::picture::setting;
use crate::loadgen::bench::report::{duration, grouped};
use crate::loadgen::bench::svg::{Anchor, Axis, Colour, Panel, Picture, Side, Style, short_duration, short_number};

const WIDTH: f64 = 1080.0;
const HEIGHT: f64 = 520.0;
const MARGIN: f64 = 40.0;
const TOP: f64 = 206.0;
const PANEL_HEIGHT: f64 = 240.0;
const PANEL_WIDTH: f64 = 420.0;
/// Width of a dot's name, in doublings of the number of groups.
const NAME_WIDTH: f64 = 1.5;

/// Draws a sweep as SVG.
pub(super) fn of_sweep(sweep: &Sweep) -> String {
    let first = sweep.runs.first().map(|run| &run.report);
    let title = first.map_or_else(String::new, |report| report.parameters.headline());
    let mut picture = Picture::new(WIDTH, HEIGHT, &format!("paxoi sweep: {title}"));
    picture.text(MARGIN, 46.0, Style::Title, Anchor::Start, &title);
    if let Some(report) = first {
        let text = format!("{} · {} local nodes · each {}", report.parameters.details(), sweep.nodes, setting(report));
        picture.text(MARGIN, 70.0, Style::Subtitle, Anchor::Start, &text);
    }
    if let Some(fastest) = sweep.fastest() {
        picture.figures(MARGIN, 122.0, &figures(sweep, fastest));
    }
    throughput(&mut picture, sweep);
    latency(&mut picture, sweep);
    picture.finish()
}

fn figures(sweep: &Sweep, fastest: &Run) -> Vec<(String, String)> {
    let failures = sweep.runs.iter().map(|run| run.report.failures()).sum();
    let report = &fastest.report;
    vec![
        (grouped(fastest.groups.into()), "groups were fastest".into()),
        (grouped(report.requests_per_s.round() as u64), "requests per second".into()),
        (duration(report.latency.p50_us), "p50".into()),
        (duration(report.latency.p99_us), "p99".into()),
        (grouped(failures), "failures in all runs".into()),
    ]
}

fn throughput(picture: &mut Picture, sweep: &Sweep) {
    let max = sweep.runs.iter().map(|run| run.report.requests_per_s).fold(0.0, f64::max);
    let panel = panel(MARGIN + 52.0, sweep, Axis::linear(max * 1.08, short_number));
    panel.frame(picture, "Requests per second", "Paxos groups");
    let points = points(sweep, |run| run.report.requests_per_s);
    panel.area(picture, Colour::Teal, &points);
    panel.line(picture, Colour::Teal, false, points.iter().copied().map(Some));
    dots(picture, &panel, Colour::Teal, &points, Side::Above, |rate| short_number(three_digits(rate)));
}

fn latency(picture: &mut Picture, sweep: &Sweep) {
    let latencies = || sweep.runs.iter().map(|run| &run.report.latency);
    let min = latencies().map(|latency| latency.p50_us).fold(f64::MAX, f64::min);
    let max = latencies().map(|latency| latency.p99_us).fold(0.0, f64::max);
    let left = WIDTH - MARGIN - PANEL_WIDTH;
    let panel = panel(left, sweep, Axis::latency(min, max * 1.08));
    panel.frame(picture, "Latency", "Paxos groups");
    let name = |us| short_duration(three_digits(us));
    for (colour, side, points) in [
        (Colour::Blue, Side::Below, points(sweep, |run| run.report.latency.p50_us)),
        (Colour::Amber, Side::Above, points(sweep, |run| run.report.latency.p99_us)),
    ] {
        panel.line(picture, colour, false, points.iter().copied().map(Some));
        dots(picture, &panel, colour, &points, side, name);
    }
    picture.legend(left + PANEL_WIDTH, TOP - 14.0, &[(Colour::Blue, "p50"), (Colour::Amber, "p99")]);
}

/// Draws dots for all points. Names the extremes and the ends, unless such a name would cover another.
fn dots(
    picture: &mut Picture,
    panel: &Panel,
    colour: Colour,
    points: &[(f64, f64)],
    side: Side,
    name: impl Fn(f64) -> String,
) {
    let by_value = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
    let extremes = [points.iter().max_by(by_value), points.iter().min_by(by_value), points.first(), points.last()];
    let mut named: Vec<f64> = Vec::new();
    for &(x, _) in extremes.into_iter().flatten() {
        if named.iter().all(|other| (other - x).abs() >= NAME_WIDTH) {
            named.push(x);
        }
    }
    for &point in points {
        let text = if named.contains(&point.0) { name(point.1) } else { String::new() };
        panel.dot(picture, colour, point, side, &text);
    }
}

/// Returns a panel in which doublings of the number of groups are equally far apart.
fn panel(left: f64, sweep: &Sweep, y: Axis) -> Panel {
    let groups = || sweep.runs.iter().map(|run| f64::from(run.groups).log2());
    let (min, max) = (groups().fold(f64::MAX, f64::min), groups().fold(0.0, f64::max));
    let ticks = sweep.runs.iter().map(|run| (f64::from(run.groups).log2(), run.groups.to_string())).collect();
    // Half a doubling of room on both sides keeps the dots and their texts off the edges.
    let x = Axis::with_ticks(min - 0.5, max + 0.5, ticks);
    Panel { left, top: TOP, width: PANEL_WIDTH, height: PANEL_HEIGHT, x, y }
}

fn points(sweep: &Sweep, value: impl Fn(&Run) -> f64) -> Vec<(f64, f64)> {
    let mut points: Vec<(f64, f64)> = sweep.runs.iter().map(|run| (f64::from(run.groups).log2(), value(run))).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    points
}

fn three_digits(value: f64) -> f64 {
    if value <= 0.0 {
        return 0.0;
    }
    let unit = 10_f64.powf(value.log10().floor() - 2.0);
    (value / unit).round() * unit
}
