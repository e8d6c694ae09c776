//! The dedup table: the last applied command of each origin, so that a command is applied at most once. It is part of
//! the replicated state.

use crate::{NodeId, Tag};
use serde::{Deserialize, Serialize};

/// The tag that was applied last, for each origin. There is one entry for each node that ever sent commands; ids are
/// few.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DedupTable(Vec<Tag>);

impl DedupTable {
    /// Returns true if `tag` is above the last one of its origin. Then it becomes the last one.
    pub fn advance(&mut self, tag: Tag) -> bool {
        match self.0.iter_mut().find(|last| last.origin == tag.origin) {
            Some(last) if tag <= *last => false,
            Some(last) => {
                *last = tag;
                true
            }
            None => {
                self.0.push(tag);
                true
            }
        }
    }

    /// Returns the last applied tag of `origin`.
    #[must_use]
    pub fn last(&self, origin: NodeId) -> Option<Tag> {
        self.0.iter().copied().find(|last| last.origin == origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repetition_is_known_also_across_a_restart_of_its_origin() {
        let tag = |origin, start, counter| Tag { origin: NodeId(origin), start, counter };
        let mut dedup = DedupTable::default();
        assert!(dedup.advance(tag(1, 1, 5)));
        assert!(!dedup.advance(tag(1, 1, 5)) && !dedup.advance(tag(1, 1, 4)));
        assert!(dedup.advance(tag(2, 1, 1)));
        assert!(dedup.advance(tag(1, 2, 1)));
        assert!(!dedup.advance(tag(1, 1, 6)), "sent before the restart");
    }
}
