//! CLIENT PAUSE: until a timeout, requests of this node's clients wait unread: all requests, or only those that may
//! write.
//!
//! Requests that were read before the pause go on. The pause does not affect members: the node still votes, leads and
//! learns, and other nodes serve their clients.

use super::transactions::Multi;
use crate::kv::table::{Class, Spec, Verb};
use groups::Ms;

/// The pause in force, if there is one.
#[derive(Debug, Default)]
pub(super) struct Pause {
    until_ms: Ms,
    all: bool,
}

impl Pause {
    /// Pauses for `timeout_ms`. As in Redis, it can only make a pause in force longer or stricter.
    pub(super) fn begin(&mut self, now_ms: Ms, timeout_ms: Ms, all: bool) {
        let before = if self.is_on(now_ms) { std::mem::take(self) } else { Pause::default() };
        self.until_ms = before.until_ms.max(now_ms.saturating_add(timeout_ms));
        self.all = before.all || all;
    }

    pub(super) fn is_on(&self, now_ms: Ms) -> bool {
        now_ms < self.until_ms
    }

    /// Returns true if a request has to wait while the pause is on. CLIENT UNPAUSE, which ends the pause, never waits.
    pub(super) fn holds(&self, spec: &Spec, multi: Option<&Multi>) -> bool {
        let writes = spec.class == Class::Write || spec.verb == Verb::Exec && multi.is_some_and(Multi::writes);
        (self.all || writes) && spec.verb != Verb::ClientUnpause
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::table::find_full;

    #[test]
    fn a_pause_grows_until_it_ends() {
        let mut pause = Pause::default();
        assert!(!pause.is_on(Ms(0)));
        pause.begin(Ms(100), Ms(50), false);
        pause.begin(Ms(110), Ms(10), true);
        assert!(pause.is_on(Ms(149)) && pause.all && !pause.is_on(Ms(150)));
        pause.begin(Ms(150), Ms::MAX, false);
        assert!(pause.is_on(Ms(u64::MAX - 1)) && !pause.all, "the earlier one is over");
    }

    #[test]
    fn writes_wait_and_the_rest_only_if_all_do() {
        let spec = |name: &str| find_full(name.as_bytes()).unwrap();
        let (mut writes, mut all) = (Pause::default(), Pause::default());
        writes.begin(Ms(0), Ms(10), false);
        all.begin(Ms(0), Ms(10), true);
        for (name, is_write) in
            [("get", false), ("set", true), ("flushall", true), ("session|new", true), ("exec", false)]
        {
            assert_eq!((writes.holds(spec(name), None), all.holds(spec(name), None)), (is_write, true), "{name}");
        }
        assert!(!writes.holds(spec("client|unpause"), None) && !all.holds(spec("client|unpause"), None));
    }
}
