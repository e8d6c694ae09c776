//! Plots without a library: a picture, axes, lines, areas, dots. `bench` and `sweep` draw everything with these.
//!
//! Coordinates are pixels from the top left. Colours are CSS classes, so that a viewer in dark mode gets dark paper. A
//! viewer without dark mode gets light paper.

use std::fmt::Write;

/// The colours of lines and areas, by meaning. The first lines have the colours that are told apart best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// The first line.
    Blue,
    /// The second line.
    Amber,
    /// The third line, or what went wrong.
    Rose,
    /// Throughput.
    Teal,
}

/// Style of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// The heading of the picture.
    Title,
    /// The line below the title.
    Subtitle,
    /// The heading of a panel.
    Heading,
    /// A number to be seen from afar.
    Figure,
    /// Names of ticks and lines.
    Label,
    /// A value beside its dot, readable on a line.
    Note,
}

/// Side of a dot on which its text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Above it.
    Above,
    /// Below it.
    Below,
}

/// The point of a text that is placed at the given coordinates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// Its left end.
    Start,
    /// Its middle.
    Middle,
    /// Its right end.
    End,
}

const CSS: &str = "
text { font-family: Inter, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif;
  font-variant-numeric: tabular-nums; fill: #1f2933 }
.paper { fill: #ffffff } .title { font-size: 19px; font-weight: 600 } .heading { font-size: 13px; font-weight: 600 }
.figure { font-size: 21px; font-weight: 600 } .subtitle, .label { font-size: 11.5px; fill: #66727f }
.note { font-size: 11.5px; stroke: #ffffff; stroke-width: 4px; paint-order: stroke; stroke-linejoin: round }
.grid { stroke: #e8ebee; stroke-width: 1 } .axis { stroke: #aab3bc; stroke-width: 1 }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round } .thin { stroke-width: 1.2 }
.area { stroke: none; fill-opacity: 0.13 } .dot { stroke: #ffffff; stroke-width: 1.5 }
.blue { stroke: #2f6fde } .amber { stroke: #dd8a14 } .rose { stroke: #d43d63 } .teal { stroke: #0e9384 }
.fill-blue { fill: #2f6fde } .fill-amber { fill: #dd8a14 } .fill-rose { fill: #d43d63 } .fill-teal { fill: #0e9384 }
@media (prefers-color-scheme: dark) {
  text { fill: #e7eaee } .paper { fill: #12161b } .subtitle, .label { fill: #98a3af } .grid { stroke: #242b33 }
  .axis { stroke: #55606c } .dot, .note { stroke: #12161b } .area { fill-opacity: 0.22 }
}
";

/// A picture being drawn.
#[derive(Debug)]
pub struct Picture {
    svg: String,
}

impl Picture {
    /// Creates an empty picture. `title` names it for those who cannot see it.
    #[must_use]
    pub fn new(width: f64, height: f64, title: &str) -> Picture {
        let title = escaped(title);
        let mut svg = String::with_capacity(16 * 1024);
        let size = format!("width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\"");
        _ = writeln!(svg, "<svg xmlns=\"http://www.w3.org/2000/svg\" {size} role=\"img\" aria-label=\"{title}\">");
        _ = writeln!(svg, "<title>{title}</title>\n<style>{CSS}</style>");
        _ = writeln!(svg, "<rect class=\"paper\" width=\"{width}\" height=\"{height}\" rx=\"10\"/>");
        Picture { svg }
    }

    /// Writes a text.
    pub fn text(&mut self, x: f64, y: f64, style: Style, anchor: Anchor, text: &str) {
        let class = match style {
            Style::Title => "title",
            Style::Subtitle => "subtitle",
            Style::Heading => "heading",
            Style::Figure => "figure",
            Style::Label => "label",
            Style::Note => "note",
        };
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escaped(text);
        _ = writeln!(
            self.svg,
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
        );
    }

    /// Draws a straight line of the class `grid` or `axis`.
    fn rule(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        let ends = format!("x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"");
        _ = writeln!(self.svg, "<line class=\"{class}\" {ends}/>");
    }

    fn path(&mut self, class: &str, path: &str) {
        _ = writeln!(self.svg, "<path class=\"{class}\" d=\"{path}\"/>");
    }

    /// Writes the legend of a panel's lines. The last entry ends near `right`.
    pub fn legend(&mut self, right: f64, y: f64, entries: &[(Colour, &str)]) {
        let mut x = right;
        for (colour, name) in entries.iter().rev() {
            x -= text_width(name);
            self.text(x, y, Style::Label, Anchor::Start, name);
            self.path(&format!("line {}", colour.name()), &format!("M{:.1} {:.1}h14", x - 22.0, y - 4.0));
            x -= 22.0 + 14.0;
        }
    }

    /// Writes figures with their captions in a row from `left`, each as wide as it needs.
    pub fn figures(&mut self, left: f64, y: f64, figures: &[(String, String)]) {
        let mut x = left;
        for (figure, caption) in figures {
            self.text(x, y, Style::Figure, Anchor::Start, figure);
            self.text(x, y + 18.0, Style::Label, Anchor::Start, caption);
            x += (text_width(figure) * 1.75).max(text_width(caption)) + 34.0;
        }
    }

    /// Returns the finished document.
    #[must_use]
    pub fn finish(mut self) -> String {
        self.svg.push_str("</svg>\n");
        self.svg
    }
}

impl Colour {
    fn name(self) -> &'static str {
        match self {
            Colour::Blue => "blue",
            Colour::Amber => "amber",
            Colour::Rose => "rose",
            Colour::Teal => "teal",
        }
    }
}

/// The values along one edge of a panel.
#[derive(Clone, Debug)]
pub struct Axis {
    min: f64,
    max: f64,
    is_log: bool,
    ticks: Vec<(f64, String)>,
}

impl Axis {
    /// Creates an axis from 0 to a round number not below `max`, in equal steps.
    #[must_use]
    pub fn linear(max: f64, name: impl Fn(f64) -> String) -> Axis {
        let max = if max > 0.0 { max } else { 1.0 };
        let step = round_up(max / 5.0);
        let count = (max / step).ceil();
        let ticks = (0..=count as u32).map(|i| f64::from(i) * step).map(|tick| (tick, name(tick))).collect();
        Axis { min: 0.0, max: count * step, is_log: false, ticks }
    }

    /// Creates a logarithmic axis from a round number not above `min` to one not below `max`. Both must be positive.
    #[must_use]
    pub fn logarithmic(min: f64, max: f64, name: impl Fn(f64) -> String) -> Axis {
        let max = round_up(max.max(min * 1.01));
        let mut round = vec![round_down(min)];
        while let Some(&last) = round.last().filter(|&&last| last < max * 0.999) {
            round.push(round_up(last * 1.5));
        }
        // Up to two decades every round number has a tick, beyond that only every power of ten.
        let is_shown = |value: &f64| round.len() < 8 || (value.log10() - value.log10().round()).abs() < 1e-6;
        let ticks = round.iter().copied().filter(is_shown).map(|tick| (tick, name(tick))).collect();
        Axis { min: round[0], max, is_log: true, ticks }
    }

    /// Creates an axis of latencies in µs from `min` to `max`: logarithmic if they differ by a factor above 12, else
    /// from 0.
    #[must_use]
    pub fn latency(min: f64, max: f64) -> Axis {
        if min > 0.0 && max > min * 12.0 {
            Axis::logarithmic(min, max, short_duration)
        } else {
            Axis::linear(max, short_duration)
        }
    }

    /// Creates an axis from `min` to `max`, with the caller's ticks.
    #[must_use]
    pub fn with_ticks(min: f64, max: f64, ticks: Vec<(f64, String)>) -> Axis {
        Axis { min, max: if max > min { max } else { min + 1.0 }, is_log: false, ticks }
    }

    /// Returns the same axis, cut off at `max`.
    #[must_use]
    pub fn ending_at(mut self, max: f64) -> Axis {
        self.max = max;
        self.ticks.retain(|(value, _)| *value <= max * 1.001);
        self
    }

    /// Returns the same axis with bare ticks, for a panel above another one with the same axis.
    #[must_use]
    pub fn without_names(&self) -> Axis {
        let mut bare = self.clone();
        bare.ticks.iter_mut().for_each(|(_, name)| name.clear());
        bare
    }

    /// Returns the position of a value on the axis: 0 at the start, 1 at the end.
    fn share(&self, value: f64) -> f64 {
        let (value, min, max) = match self.is_log {
            true => (value.max(self.min).ln(), self.min.ln(), self.max.ln()),
            false => (value, self.min, self.max),
        };
        ((value - min) / (max - min)).clamp(0.0, 1.0)
    }
}

/// A rectangle with two axes.
#[derive(Clone, Debug)]
pub struct Panel {
    /// Its left edge.
    pub left: f64,
    /// Its upper edge.
    pub top: f64,
    /// Its width without the names of the ticks.
    pub width: f64,
    /// Its height without the names of the ticks.
    pub height: f64,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
}

impl Panel {
    /// Draws the grid, the names of the ticks, a heading above and the meaning of x below.
    pub fn frame(&self, picture: &mut Picture, heading: &str, x_meaning: &str) {
        picture.text(self.left, self.top - 14.0, Style::Heading, Anchor::Start, heading);
        let (right, bottom) = (self.left + self.width, self.top + self.height);
        for (value, name) in &self.y.ticks {
            let y = self.y_at(*value);
            picture.rule("grid", (self.left, y), (right, y));
            picture.text(self.left - 8.0, y + 4.0, Style::Label, Anchor::End, name);
        }
        for (value, name) in &self.x.ticks {
            let x = self.x_at(*value);
            picture.rule("axis", (x, bottom), (x, bottom + 4.0));
            if !name.is_empty() {
                picture.text(x, bottom + 18.0, Style::Label, Anchor::Middle, name);
            }
        }
        picture.rule("axis", (self.left, bottom), (right, bottom));
        if !x_meaning.is_empty() {
            picture.text(self.left + self.width / 2.0, bottom + 36.0, Style::Label, Anchor::Middle, x_meaning);
        }
    }

    /// Draws a line through points. `None` is a gap. A `thin` line stays in the background.
    pub fn line(
        &self,
        picture: &mut Picture,
        colour: Colour,
        thin: bool,
        points: impl Iterator<Item = Option<(f64, f64)>>,
    ) {
        let mut path = String::new();
        let mut pen = 'M';
        for point in points {
            let Some((x, y)) = point else {
                pen = 'M';
                continue;
            };
            let (x, y) = (self.x_at(x), self.y_at(y));
            _ = write!(path, "{pen}{x:.1} {y:.1}");
            if pen == 'M' {
                // A point between two gaps is a dot: round line ends make it visible.
                path.push_str("h0");
            }
            pen = 'L';
        }
        picture.path(&format!("line {}{}", colour.name(), if thin { " thin" } else { "" }), &path);
    }

    /// Fills the area between the lower edge and the points.
    pub fn area(&self, picture: &mut Picture, colour: Colour, points: &[(f64, f64)]) {
        let (Some(first), Some(last)) = (points.first(), points.last()) else { return };
        let bottom = self.top + self.height;
        let mut path = format!("M{:.1} {bottom:.1}", self.x_at(first.0));
        for &(x, y) in points {
            _ = write!(path, "L{:.1} {:.1}", self.x_at(x), self.y_at(y));
        }
        _ = write!(path, "L{:.1} {bottom:.1}Z", self.x_at(last.0));
        picture.path(&format!("area fill-{}", colour.name()), &path);
    }

    /// Draws a dot, with a text at its side unless it is empty.
    pub fn dot(&self, picture: &mut Picture, colour: Colour, (x, y): (f64, f64), side: Side, text: &str) {
        let (x, y) = (self.x_at(x), self.y_at(y));
        let class = format!("dot fill-{}", colour.name());
        _ = writeln!(picture.svg, "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"/>");
        if !text.is_empty() {
            let y = if side == Side::Above { y - 11.0 } else { y + 20.0 };
            picture.text(x, y, Style::Note, Anchor::Middle, text);
        }
    }

    /// Draws a short mark on the lower edge, as wide as `width` on the x axis.
    pub fn mark(&self, picture: &mut Picture, colour: Colour, x: f64, width: f64) {
        let (left, right) = (self.x_at(x), self.x_at(x + width));
        let (y, width) = (self.top + self.height - 5.0, (right - left).max(1.5));
        let class = format!("fill-{}", colour.name());
        _ = writeln!(
            picture.svg,
            "<rect class=\"{class}\" x=\"{left:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"5\"/>"
        );
    }

    fn x_at(&self, value: f64) -> f64 {
        self.left + self.x.share(value) * self.width
    }

    fn y_at(&self, value: f64) -> f64 {
        self.top + (1.0 - self.y.share(value)) * self.height
    }
}

/// Returns the first of …, 1, 2, 5, 10, 20, … that is not below a positive `value`.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf((value.log10() + 1e-9).floor());
    let digits = [1.0, 2.0, 5.0].into_iter().find(|digit| digit * power >= value * (1.0 - 1e-9));
    digits.unwrap_or(10.0) * power
}

/// Returns the last of these numbers that is not above `value`.
fn round_down(value: f64) -> f64 {
    let power = 10_f64.powf((value.log10() + 1e-9).floor());
    let digits = [5.0, 2.0].into_iter().find(|digit| digit * power <= value * (1.0 + 1e-9));
    digits.unwrap_or(1.0) * power
}

/// Formats a time in µs as the name of a tick, without superfluous digits.
#[must_use]
pub fn short_duration(us: f64) -> String {
    let (value, unit) = match us {
        _ if us < 1e3 => (us, "µs"),
        _ if us < 1e6 => (us / 1e3, "ms"),
        _ => (us / 1e6, "s"),
    };
    if value == 0.0 { "0".into() } else { format!("{} {unit}", (value * 1000.0).round() / 1000.0) }
}

/// Formats a number as the name of a tick: `150 k`, `2 M`.
#[must_use]
pub fn short_number(number: f64) -> String {
    let (value, unit) = match number {
        _ if number >= 1e6 => (number / 1e6, " M"),
        _ if number >= 1e3 => (number / 1e3, " k"),
        _ => (number, ""),
    };
    format!("{}{unit}", (value * 1000.0).round() / 1000.0)
}

/// Estimates the width of a label, because nothing here can measure letters.
fn text_width(text: &str) -> f64 {
    text.chars().count() as f64 * 7.2
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, name)| name.as_str()).collect()
    }

    #[test]
    fn round_numbers_enclose_a_value() {
        for (value, down, up) in
            [(1.0, 1.0, 1.0), (3.0, 2.0, 5.0), (7.0, 5.0, 10.0), (100.0, 100.0, 100.0), (0.03, 0.02, 0.05)]
        {
            assert!((round_down(value) / down - 1.0_f64).abs() < 1e-6, "{value}: {}", round_down(value));
            assert!((round_up(value) / up - 1.0_f64).abs() < 1e-6, "{value}: {}", round_up(value));
        }
    }

    #[test]
    fn ticks_are_round_and_enclose_the_values() {
        assert_eq!(names(&Axis::linear(183_000.0, short_number)), ["0", "50 k", "100 k", "150 k", "200 k"]);
        assert_eq!(names(&Axis::latency(70.0, 900.0)), ["50 µs", "100 µs", "200 µs", "500 µs", "1 ms"]);
        assert_eq!(names(&Axis::latency(100.0, 900.0)), ["0", "200 µs", "400 µs", "600 µs", "800 µs", "1 ms"]);
        assert_eq!(names(&Axis::latency(3.0, 5e6)), ["10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s"]);
        assert_eq!(names(&Axis::linear(0.0, short_number)).len(), 6);
    }

    #[test]
    fn values_lie_between_the_ends_of_their_axis() {
        let axis = Axis::logarithmic(10.0, 1000.0, short_duration);
        let shares = [1.0, 10.0, 100.0, 1000.0, 1e9].map(|value| axis.share(value));
        for (found, expected) in shares.into_iter().zip([0.0, 0.0, 0.5, 1.0, 1.0]) {
            assert!((found - expected).abs() < 1e-9, "{shares:?}");
        }
    }

    #[test]
    fn texts_cannot_break_the_document() {
        let mut picture = Picture::new(10.0, 10.0, "a<b");
        picture.text(0.0, 0.0, Style::Label, Anchor::Start, "\"<&>");
        let svg = picture.finish();
        assert!(svg.contains("&quot;&lt;&amp;&gt;") && svg.contains("<title>a&lt;b</title>"));
    }
}
