//! Sets of members of a group, their majorities, and tallies of the members that have answered.

use crate::NodeId;
use serde::{Deserialize, Serialize};

/// Maximum members of one group, voters and learners; a [`Tally`] holds one bit for each.
pub const MEMBERS_MAX: usize = 63;

/// The voters of a group, or all its members, in ascending order of id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Members(Vec<NodeId>);

impl Members {
    /// Sorts the ids and drops duplicates.
    ///
    /// # Panics
    /// If there are none, or more than [`MEMBERS_MAX`].
    #[must_use]
    pub fn new(mut ids: Vec<NodeId>) -> Members {
        ids.sort_unstable();
        ids.dedup();
        assert!(!ids.is_empty() && ids.len() <= MEMBERS_MAX, "a group has 1 to {MEMBERS_MAX} members");
        Members(ids)
    }

    /// Returns all ids, ascending.
    #[must_use]
    pub fn ids(&self) -> &[NodeId] {
        &self.0
    }

    /// Returns the number of votes that make a majority.
    #[must_use]
    pub fn quorum(&self) -> usize {
        self.0.len() / 2 + 1
    }

    /// Returns the position of `node` in the set, if it is a member.
    #[must_use]
    pub fn position(&self, node: NodeId) -> Option<usize> {
        self.0.binary_search(&node).ok()
    }

    /// Returns true if `node` is in the set.
    #[must_use]
    pub fn contains(&self, node: NodeId) -> bool {
        self.position(node).is_some()
    }

    /// Returns the preferred leader of group `group` of `groups`. Each member is preferred for one contiguous range.
    #[must_use]
    pub fn preferred(&self, group: u32, groups: u32) -> NodeId {
        self.0[group as usize * self.0.len() / groups as usize]
    }
}

/// The members that have answered one particular question. Counting a member twice changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tally(u64);

impl Tally {
    /// Counts `node`, if it is a member.
    pub fn add(&mut self, node: NodeId, members: &Members) {
        if let Some(position) = members.position(node) {
            self.0 |= 1 << position;
        }
    }

    /// Takes `node` out again.
    pub fn remove(&mut self, node: NodeId, members: &Members) {
        if let Some(position) = members.position(node) {
            self.0 &= !(1 << position);
        }
    }

    /// Returns true if `node` is counted.
    #[must_use]
    pub fn contains(&self, node: NodeId, members: &Members) -> bool {
        members.position(node).is_some_and(|position| self.0 & (1 << position) != 0)
    }

    /// Returns true if the counted members are a majority.
    #[must_use]
    pub fn is_quorum(&self, members: &Members) -> bool {
        self.0.count_ones() as usize >= members.quorum()
    }

    /// Returns true if no member is counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0 == 0
    }

    /// Returns a tally of all members.
    #[must_use]
    pub fn all(members: &Members) -> Tally {
        Tally((1 << members.ids().len()) - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(count: u32) -> Members {
        Members::new((1..=count).map(NodeId).collect())
    }

    #[test]
    fn majorities_of_one_to_seven() {
        let quorums: Vec<usize> = (1..=7).map(|n| members(n).quorum()).collect();
        assert_eq!(quorums, [1, 2, 2, 3, 3, 4, 4]);
    }

    #[test]
    fn a_vote_counts_once_and_a_stranger_never() {
        let members = members(3);
        let mut tally = Tally::default();
        tally.add(NodeId(1), &members);
        tally.add(NodeId(1), &members);
        tally.add(NodeId(9), &members);
        assert!(!tally.is_quorum(&members));
        tally.add(NodeId(3), &members);
        assert!(tally.is_quorum(&members));
    }

    #[test]
    fn each_member_is_preferred_for_one_contiguous_range() {
        let preferred: Vec<u32> = (0..8).map(|g| members(3).preferred(g, 8).0).collect();
        assert_eq!(preferred, [1, 1, 1, 2, 2, 2, 3, 3]);
    }
}
