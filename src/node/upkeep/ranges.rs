//! Ranges of the log for lagging members. Each of a member's groups has one range at a time, and the ranges take turns.
//! They go no faster than the service of clients leaves room for, but always faster than new values come, so that a
//! lagging member catches up.

use super::rate::{LoopLoad, TokenBucket};
use crate::config::{RANGE_BYTES_MIN, RANGE_BYTES_PER_MS, RANGE_NEAR, RANGE_ROUND_MS, RANGES_SAVED_BYTES};
use crate::storage::wal::ReadRange;
use groups::{GroupId, Us};
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

/// The ranges that wait to be read from the log.
#[derive(Default)]
pub(in crate::node) struct Ranges {
    /// By member and group. A new request replaces the older one.
    waiting: BTreeMap<(u64, GroupId), ReadRange>,
    /// The member and group that had the last turn.
    last: Option<(u64, GroupId)>,
    bucket: TokenBucket,
}

impl Ranges {
    /// Takes a request. Returns it if it can be read at once, because it is small.
    pub(in crate::node) fn ask(&mut self, range: ReadRange) -> Option<ReadRange> {
        if range.below.0.saturating_sub(range.from.0) <= RANGE_NEAR {
            self.waiting.remove(&(range.tag, range.group));
            self.bucket.spend(range.bytes_max);
            return Some(range);
        }
        self.waiting.insert((range.tag, range.group), range);
        None
    }

    /// Notes that a range was read and held `bytes`, perhaps fewer than were charged for it.
    pub(super) fn on_read(&mut self, range: &ReadRange, bytes: usize) {
        self.bucket.refund(range.bytes_max.saturating_sub(bytes));
    }

    /// Takes back a range that cannot be read yet.
    pub(in crate::node) fn put_back(&mut self, range: ReadRange) {
        self.bucket.refund(range.bytes_max);
        self.waiting.entry((range.tag, range.group)).or_insert(range);
    }

    /// Passes the ranges that can be read now to `read`.
    pub(super) fn step(&mut self, load: LoopLoad, now_us: Us, mut read: impl FnMut(ReadRange)) {
        if self.waiting.is_empty() {
            return;
        }
        let (least, most) = RANGE_BYTES_PER_MS;
        let per_ms = load.allows(least.max(load.logged_per_ms() * 3 / 2), most);
        self.bucket.earn(per_ms, RANGES_SAVED_BYTES, now_us);
        // The share is small enough that each waiting range gets a turn in time. Otherwise its member would ask another
        // node.
        let share = (per_ms * RANGE_ROUND_MS / self.waiting.len()).max(RANGE_BYTES_MIN);
        while self.bucket.is_open() {
            let after = self.last.map_or(Unbounded, Excluded);
            let next = self.waiting.range((after, Unbounded)).next().or_else(|| self.waiting.iter().next());
            let Some((key, range)) = next.map(|(key, range)| (*key, *range)) else { return };
            self.waiting.remove(&key);
            self.last = Some(key);
            let bytes_max = range.bytes_max.min(share);
            self.bucket.spend(bytes_max);
            read(ReadRange { bytes_max, ..range });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{LoopLoad, RANGE_BYTES_MIN, RANGE_NEAR, Ranges};
    use crate::config::LOAD_WINDOW_US;
    use crate::storage::wal::ReadRange;
    use groups::{Ballot, GroupId, Instance, Us};

    fn range(tag: u64, group: u32, from: u64) -> ReadRange {
        let (group, from, below) = (GroupId(group), Instance(from), Instance(1_000_000));
        ReadRange { tag, group, from, below, last_chosen: Ballot::ZERO, bytes_max: 1 << 20 }
    }

    /// Returns a load of 100 %, with `logged` bytes logged in the window.
    fn busy(logged: u64) -> LoopLoad {
        let mut load = LoopLoad::default();
        load.record(LOAD_WINDOW_US, logged, LOAD_WINDOW_US);
        load
    }

    /// Returns the ranges given within a second, in steps of a millisecond, to members that ask again at once.
    fn given_in_a_second(load: LoopLoad, askers: &[(u64, u32)]) -> Vec<ReadRange> {
        let (mut ranges, mut all) = (Ranges::default(), Vec::new());
        for (tag, group) in askers {
            assert_eq!(ranges.ask(range(*tag, *group, 1)), None);
        }
        for ms in 1..=1_000 {
            let mut out = Vec::new();
            ranges.step(load, Us(ms * 1_000), |range| out.push(range));
            out.iter().for_each(|given| assert_eq!(ranges.ask(range(given.tag, given.group.0, 1)), None));
            all.append(&mut out);
        }
        all
    }

    #[test]
    fn everybody_has_a_turn_in_time_however_busy_the_loop_is() {
        let askers: Vec<(u64, u32)> = (2..4).flat_map(|tag| (0..200).map(move |group| (tag, group))).collect();
        let given = given_in_a_second(busy(0), &askers);
        for asker in &askers {
            let turns = given.iter().filter(|given| (given.tag, given.group.0) == *asker).count();
            assert!((1..=4).contains(&turns), "{asker:?} had {turns} turns");
        }
    }

    #[test]
    fn a_busy_loop_gives_less_and_yet_more_than_it_logs() {
        let per_second =
            |load| given_in_a_second(load, &[(2, 0), (2, 1)]).iter().map(|given| given.bytes_max).sum::<usize>();
        let (idle, busy_reading, busy_writing) = (LoopLoad::default(), busy(0), busy(8 << 20));
        assert!(per_second(busy_reading) * 8 < per_second(idle));
        let logged_per_second = (8 << 20) * (1_000_000 / LOAD_WINDOW_US.0 as usize);
        assert!(per_second(busy_writing) > logged_per_second * 4 / 3);
    }

    #[test]
    fn a_short_range_is_read_at_once_and_the_newest_request_counts() {
        let mut ranges = Ranges::default();
        let near = ReadRange { from: Instance(1_000_000 - RANGE_NEAR), ..range(2, 0, 1) };
        assert_eq!(ranges.ask(range(2, 0, 7)), None);
        assert_eq!(ranges.ask(near), Some(near));
        assert_eq!(ranges.ask(range(2, 1, 7)), None);
        assert_eq!(ranges.ask(range(2, 1, 8)), None);
        let mut out = Vec::new();
        for ms in 1..100 {
            ranges.step(LoopLoad::default(), Us(ms * 1_000), |range| out.push(range));
        }
        assert_eq!(out.iter().map(|range| (range.group.0, range.from.0)).collect::<Vec<_>>(), [(1, 8)]);
        assert!(out[0].bytes_max >= RANGE_BYTES_MIN);
    }

    #[test]
    fn a_range_that_cannot_be_read_yet_is_given_again() {
        let mut ranges = Ranges::default();
        assert_eq!(ranges.ask(range(2, 0, 7)), None);
        let mut out = Vec::new();
        ranges.step(LoopLoad::default(), Us(10_000), |range| out.push(range));
        let [given] = out[..] else { panic!("{out:?}") };
        ranges.put_back(given);
        ranges.step(LoopLoad::default(), Us(10_001), |range| out.push(range));
        assert_eq!(out, [given, given]);
        // Unless the member has sent another request by now.
        assert_eq!(ranges.ask(range(2, 0, 9)), None);
        ranges.put_back(given);
        ranges.step(LoopLoad::default(), Us(10_002), |range| out.push(range));
        assert_eq!(out[2].from, Instance(9));
    }
}
