//! The expiry index of the store, by time and then position, so that every replica removes due keys in the same order.
//! The index names positions, not keys: positions are shorter, and two keys almost never share one.

use super::directory::KeyPosition;
use groups::{Ms, WorkBudget};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;

/// Bytes of an item in a tree whose nodes are two thirds full.
const DUE_BYTES: usize = 40;

/// The number of keys due at each time and position.
#[derive(Debug, Default)]
pub(super) struct Expiry {
    due: BTreeMap<(Ms, KeyPosition), u32>,
    /// The number of keys that expire.
    keys: usize,
    /// The number of keys due up to some point. Time only advances, so counting continues from that point, and each key
    /// is counted once. The point differs between replicas, and no reply depends on it.
    counted: Cell<Counted>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    /// Time, and position.
    until: (Ms, u64),
    keys: usize,
}

impl Expiry {
    pub(super) fn len(&self) -> usize {
        self.keys
    }

    /// Returns about how many bytes of memory the index takes.
    pub(super) fn bytes(&self) -> usize {
        self.due.len() * DUE_BYTES
    }

    /// Changes a key's expiry; 0 is never.
    pub(super) fn change(&mut self, position: KeyPosition, from_ms: Ms, to_ms: Ms) {
        if from_ms == to_ms {
            return;
        }
        if from_ms != Ms(0) {
            self.remove(position, from_ms);
        }
        if to_ms != Ms(0) {
            *self.due.entry((to_ms, position)).or_default() += 1;
            self.keys += 1;
            let counted = self.counted.get_mut();
            counted.keys += usize::from((to_ms, position.0) <= counted.until);
        }
    }

    /// Returns the time and position of the key that is due first.
    pub(super) fn first(&self) -> Option<(Ms, KeyPosition)> {
        self.due.first_key_value().map(|(&first, _)| first)
    }

    /// Returns the number of keys due at `time_ms`, which never goes back; `None` if counting them needs more than
    /// `work`.
    pub(super) fn count_due(&self, time_ms: Ms, work: &mut WorkBudget) -> Option<usize> {
        let mut counted = self.counted.get();
        let end = (time_ms, u64::MAX);
        if counted.until < end {
            let (from, to) = ((counted.until.0, KeyPosition(counted.until.1)), (end.0, KeyPosition(end.1)));
            for ((at_ms, position), keys) in self.due.range((Bound::Excluded(from), Bound::Included(to))) {
                if work.is_spent() {
                    self.counted.set(counted);
                    return None;
                }
                counted = Counted { until: (*at_ms, position.0), keys: counted.keys + *keys as usize };
                work.spend(1);
            }
            counted.until = end;
            self.counted.set(counted);
        }
        Some(counted.keys)
    }

    /// Returns true if a key becomes due after `after_ms` and not after `until_ms`.
    pub(super) fn any_between(&self, after_ms: Ms, until_ms: Ms) -> bool {
        let next = self.due.range((after_ms.saturating_add(Ms(1)), KeyPosition(0))..).next();
        next.is_some_and(|((at, _), _)| *at <= until_ms)
    }

    fn remove(&mut self, position: KeyPosition, at_ms: Ms) {
        self.keys -= 1;
        let counted = self.counted.get_mut();
        counted.keys -= usize::from((at_ms, position.0) <= counted.until);
        let Entry::Occupied(mut count) = self.due.entry((at_ms, position)) else {
            unreachable!("a key that expires is in the index");
        };
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_due_comes_first_and_positions_may_be_shared() {
        let mut expiry = Expiry::default();
        let (low, high) = (KeyPosition(1), KeyPosition(2));
        expiry.change(high, Ms(0), Ms(10));
        expiry.change(low, Ms(0), Ms(10));
        expiry.change(low, Ms(0), Ms(10));
        expiry.change(low, Ms(0), Ms(7));
        assert_eq!(expiry.first(), Some((Ms(7), low)));
        let count = |expiry: &Expiry, time_ms| expiry.count_due(time_ms, &mut WorkBudget::unlimited());
        assert_eq!([6, 7, 10].map(|time_ms| count(&expiry, Ms(time_ms))), [Some(0), Some(1), Some(4)].map(|keys| keys));
        assert!(
            expiry.any_between(Ms(7), Ms(10))
                && !expiry.any_between(Ms(7), Ms(9))
                && !expiry.any_between(Ms(10), Ms::MAX)
        );
        expiry.change(low, Ms(7), Ms(0));
        expiry.change(low, Ms(10), Ms(20));
        assert_eq!(expiry.first(), Some((Ms(10), low)));
        expiry.change(low, Ms(10), Ms(0));
        assert_eq!(expiry.first(), Some((Ms(10), high)));
        assert_eq!((count(&expiry, Ms(10)), count(&expiry, Ms(20)), expiry.len()), (Some(1), Some(2), 2));
    }

    #[test]
    fn counting_goes_on_where_it_stopped() {
        let mut expiry = Expiry::default();
        (1..=100).for_each(|n| expiry.change(KeyPosition(n), Ms(0), Ms(10)));
        let mut turns = 0;
        let counted = loop {
            turns += 1;
            match expiry.count_due(Ms(10), &mut WorkBudget::steps(30)) {
                Some(counted) => break counted,
                // One key leaves before the point where counting stopped, and one comes behind it.
                None => {
                    expiry.change(KeyPosition(turns), Ms(10), Ms(0));
                    expiry.change(KeyPosition(1_000 + turns), Ms(0), Ms(10));
                }
            }
        };
        assert_eq!((counted, turns), (100, 4));
        expiry.change(KeyPosition(50), Ms(10), Ms(20));
        assert_eq!(expiry.count_due(Ms(10), &mut WorkBudget::steps(1)), Some(99));
    }
}
