//! Which keys expire when: an index of the store by time and then position, so that due keys are removed in the same
//! order on every replica. It names positions, not keys: that is shorter, and two keys share one almost never.

use super::directory::Position;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// What an item takes in a tree whose nodes are two thirds full.
const DUE_BYTES: usize = 40;

/// How many keys are due at each time and position.
#[derive(Debug, Default)]
pub(super) struct Expiry {
    due: BTreeMap<(u64, Position), u32>,
}

impl Expiry {
    pub(super) fn len(&self) -> usize {
        self.due.values().map(|keys| *keys as usize).sum()
    }

    /// About how many bytes of memory it takes.
    pub(super) fn bytes(&self) -> usize {
        self.due.len() * DUE_BYTES
    }

    /// A key's expiry changes; 0 is never.
    pub(super) fn change(&mut self, position: Position, from_ms: u64, to_ms: u64) {
        if from_ms == to_ms {
            return;
        }
        if from_ms != 0 {
            self.remove(position, from_ms);
        }
        if to_ms != 0 {
            *self.due.entry((to_ms, position)).or_default() += 1;
        }
    }

    /// The time and position of the key that is due first.
    pub(super) fn first(&self) -> Option<(u64, Position)> {
        self.due.first_key_value().map(|(&first, _)| first)
    }

    /// How many keys are due at `time_ms`. Costs as much as there are.
    pub(super) fn count_due(&self, time_ms: u64) -> usize {
        let due = self.due.iter().take_while(|((at, _), _)| *at <= time_ms);
        due.map(|(_, &count)| count as usize).sum()
    }

    /// Whether a key becomes due after `after_ms` and not after `until_ms`.
    pub(super) fn any_between(&self, after_ms: u64, until_ms: u64) -> bool {
        let next = self.due.range((after_ms.saturating_add(1), Position(0))..).next();
        next.is_some_and(|((at, _), _)| *at <= until_ms)
    }

    pub(super) fn clear(&mut self) {
        self.due.clear();
    }

    fn remove(&mut self, position: Position, at_ms: u64) {
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
        let (low, high) = (Position(1), Position(2));
        expiry.change(high, 0, 10);
        expiry.change(low, 0, 10);
        expiry.change(low, 0, 10);
        expiry.change(low, 0, 7);
        assert_eq!(expiry.first(), Some((7, low)));
        assert_eq!((expiry.count_due(6), expiry.count_due(7), expiry.count_due(10)), (0, 1, 4));
        assert!(expiry.any_between(7, 10) && !expiry.any_between(7, 9) && !expiry.any_between(10, u64::MAX));
        expiry.change(low, 7, 0);
        expiry.change(low, 10, 20);
        assert_eq!(expiry.first(), Some((10, low)));
        expiry.change(low, 10, 0);
        assert_eq!(expiry.first(), Some((10, high)));
        expiry.clear();
        assert_eq!(expiry.first(), None);
    }
}
