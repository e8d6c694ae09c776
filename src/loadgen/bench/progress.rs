//! A progress bar, shown only on a terminal.

use super::driver::Limit;
use super::report::grouped;
use indicatif::{ProgressBar, ProgressStyle};
use std::time::Instant;

/// The progress bar of a load, on stderr. It disappears when this is dropped.
#[derive(Debug)]
pub struct ProgressLine {
    bar: ProgressBar,
    limit: Limit,
    start: Instant,
    seen: (Instant, u64),
}

impl ProgressLine {
    /// Starts the bar of a load with this name. `indicatif` shows nothing if stderr is not a terminal.
    #[must_use]
    pub fn start(name: &str, limit: Limit) -> ProgressLine {
        let length = match limit {
            Limit::Time(duration) => duration.as_millis() as u64,
            Limit::Requests(count) => count,
        };
        let bar = ProgressBar::new(length).with_prefix(name.to_owned());
        if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:32.cyan/dim} {percent:>3} % {msg:>16}") {
            bar.set_style(style.progress_chars("━╸─"));
        }
        let now = Instant::now();
        ProgressLine { bar, limit, start: now, seen: (now, 0) }
    }

    /// Moves the bar to this number of replies.
    pub fn tell(&mut self, replies: u64) {
        let now = Instant::now();
        let (since, before) = self.seen;
        let rate = replies.saturating_sub(before) as f64 / now.duration_since(since).as_secs_f64().max(1e-3);
        self.seen = (now, replies);
        self.bar.set_position(match self.limit {
            Limit::Time(_) => self.start.elapsed().as_millis() as u64,
            Limit::Requests(_) => replies,
        });
        self.bar.set_message(format!("{}/s", grouped(rate.round() as u64)));
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
