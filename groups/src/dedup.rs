//! The dedup table: the last applied command of each origin, so that a command is applied at most once. It is part of
//! the replicated state.

use crate::{CommandId, NodeId};
use serde::{Deserialize, Serialize};

/// The last applied command id of each origin. The table has one entry for each node that ever sent commands, so it is
/// small.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DedupTable(Vec<CommandId>);

impl DedupTable {
    /// Returns true if `id` is above the last one of its origin. Then it becomes the last one.
    pub fn advance(&mut self, id: CommandId) -> bool {
        match self.0.iter_mut().find(|last| last.origin == id.origin) {
            Some(last) if id <= *last => false,
            Some(last) => {
                *last = id;
                true
            }
            None => {
                self.0.push(id);
                true
            }
        }
    }

    /// Returns the last applied id of each origin.
    #[must_use]
    pub fn all(&self) -> &[CommandId] {
        &self.0
    }

    /// Returns the last applied id of `origin`.
    #[must_use]
    pub fn last(&self, origin: NodeId) -> Option<CommandId> {
        self.0.iter().copied().find(|last| last.origin == origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Counter;

    #[test]
    fn a_repetition_is_known_also_across_a_restart_of_its_origin() {
        let id = |origin, start, counter| CommandId { origin: NodeId(origin), start, counter: Counter(counter) };
        let mut dedup = DedupTable::default();
        assert!(dedup.advance(id(1, 1, 5)));
        assert!(!dedup.advance(id(1, 1, 5)) && !dedup.advance(id(1, 1, 4)));
        assert!(dedup.advance(id(2, 1, 1)));
        assert!(dedup.advance(id(1, 2, 1)));
        assert!(!dedup.advance(id(1, 1, 6)), "sent before the restart");
    }
}
