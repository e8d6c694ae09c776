//! The basic types of the protocol: node, group, instance and ballot.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A member of the cluster. Ids are chosen by the operator, start at 1 and are never used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u32);

/// The index of one Paxos group, counted from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupId(pub u32);

impl GroupId {
    /// Returns the index as a position in a table of groups.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One decision of a group. Instances count 1, 2, 3… without gaps; 0 means "none yet".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Instance(pub u64);

impl Instance {
    /// The first instance of every group.
    pub const FIRST: Instance = Instance(1);

    /// Returns the instance after this one.
    #[must_use]
    pub fn following(self) -> Instance {
        Instance(self.0 + 1)
    }

    /// Returns the instance before this one; 0 before the first.
    #[must_use]
    pub fn preceding(self) -> Instance {
        Instance(self.0.saturating_sub(1))
    }
}

/// A ballot: ordered by round, then by the node that owns it, so that no two nodes share one (Lamport, "Paxos Made
/// Simple", section 2.2). The default is below every ballot that is ever used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ballot {
    /// The round. A node that wants to lead raises it.
    pub round: u64,
    /// The owner: the only node that proposes under this ballot.
    pub node: NodeId,
}

impl Ballot {
    /// The ballot below every ballot that is ever used: "none".
    pub const ZERO: Ballot = Ballot { round: 0, node: NodeId(0) };

    /// Returns the ballot of `node` in the round after this one's, which is above this ballot.
    #[must_use]
    pub fn above(self, node: NodeId) -> Ballot {
        Ballot { round: self.round + 1, node }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.round, self.node)
    }
}
