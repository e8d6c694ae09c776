//! The trace: events as lines for people, printed only on request.

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trace {
    on: bool,
    now_us: u64,
}

impl Trace {
    pub(crate) fn new(on: bool) -> Trace {
        Trace { on, now_us: 0 }
    }

    pub(crate) fn now(&mut self, now_us: u64) {
        self.now_us = now_us;
    }

    /// Prints a line. The text is made only if the trace is on.
    pub(crate) fn line(&self, text: impl FnOnce() -> String) {
        if self.on {
            eprintln!("{:>10.6} {}", self.now_us as f64 / 1e6, text());
        }
    }
}
