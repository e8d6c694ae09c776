//! The members of a group, and their changes: a part of the replicated state. A change is an ordinary command. Its
//! first byte tells it from the commands of the state machine, and the [`Group`](crate::Group) itself carries it out.
//!
//! Every change names the version of the membership that it was made for, and raises that version by one. So a
//! repetition does nothing, and of two concurrent changes one fails. One value makes at most one change, and a change
//! adds or removes at most one voter. So any majority of one set shares a node with any majority of the next. The
//! confirmation of reads relies on that.

use crate::NodeId;
use crate::members::{MEMBERS_MAX, Members};
use bytes::BytesMut;
use serde::{Deserialize, Serialize};

/// The first byte of a command that changes the membership. Commands of state machines begin with a byte of 1 or more.
pub const MACHINE: u8 = 0;
/// Maximum length of a node's address, in bytes.
pub const ADDRESS_BYTES_MAX: usize = 255;
/// Maximum number of nodes that have left a group.
pub const REMOVED_MAX: usize = 65_536;

/// The members of a group: voters, and learners, which get every value and have no vote.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Encoded", into = "Encoded")]
pub struct Membership {
    version: u64,
    voters: Members,
    everyone: Members,
    /// The infos of `everyone`, by id.
    infos: Vec<MemberInfo>,
    /// The ids that left, ascending.
    removed: Vec<NodeId>,
}

/// The address of a member, and the id of its data directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MemberInfo {
    /// The member.
    pub node: NodeId,
    /// The random id of its data directory.
    pub storage: [u8; 16],
    /// The address at which other nodes and clients reach the member.
    pub address: String,
}

/// A change of the membership. It takes effect only on the version that it was made for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembershipChange {
    /// The version of the membership that the change was made for.
    pub version: u64,
    /// The kind of the change.
    pub kind: ChangeKind,
}

/// The kinds of changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangeKind {
    /// A node becomes a learner: it gets every value from now on, and has no vote.
    AddLearner(MemberInfo),
    /// A learner votes from now on.
    Promote(NodeId),
    /// A node leaves for ever. If the node is no member, it can never become one.
    Remove(NodeId),
    /// A member has another address.
    Move(NodeId, String),
}

/// The reason why a change had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The change was made for another version.
    #[error("the members have changed meanwhile: this was meant for version {asked}, and there is version {found}")]
    Outdated {
        /// The version that the change was made for.
        asked: u64,
        /// The present version.
        found: u64,
    },
    /// Another change in the same value took effect.
    #[error("another change of the members was decided together with this one")]
    Second,
    /// The node is a member already.
    #[error("node {0} is a member already")]
    Known(NodeId),
    /// The node is no member.
    #[error("node {0} is not a member")]
    Unknown(NodeId),
    /// The node votes already.
    #[error("node {0} votes already")]
    Votes(NodeId),
    /// The node was removed; it may never have been a member.
    #[error("node {0} was removed, and ids are never used again: give the new node another one")]
    Removed(NodeId),
    /// No voter would be left.
    #[error("node {0} is the last voter")]
    Last(NodeId),
    /// The group has [`MEMBERS_MAX`] members, or [`REMOVED_MAX`] nodes have left it.
    #[error("the group is full: it has {MEMBERS_MAX} members, or {REMOVED_MAX} nodes have left it")]
    Full,
    /// An id of 0, an address that is too long, or a change that this version cannot read.
    #[error("unreadable change, or a member with id 0 or an address of more than {ADDRESS_BYTES_MAX} bytes")]
    Malformed,
}

/// The encoded form of a [`Membership`].
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Encoded {
    version: u64,
    voters: Vec<NodeId>,
    infos: Vec<MemberInfo>,
    removed: Vec<NodeId>,
}

/// The error for bytes that are no membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed membership")]
pub struct Impossible;

impl Membership {
    /// Creates the first membership of a group, in which all of `infos` vote.
    ///
    /// # Panics
    /// If there are none, or more than [`MEMBERS_MAX`], or two of one id.
    #[must_use]
    pub fn new(mut infos: Vec<MemberInfo>) -> Membership {
        infos.sort_by_key(|info| info.node);
        let voters = Members::new(infos.iter().map(|info| info.node).collect());
        assert_eq!(voters.ids().len(), infos.len(), "each member has one info");
        Membership { version: 0, everyone: voters.clone(), voters, infos, removed: Vec::new() }
    }

    /// Creates the first membership of a group from ids alone, for tests of groups.
    #[must_use]
    pub fn of_ids(ids: impl Iterator<Item = NodeId>) -> Membership {
        Membership::new(ids.map(|node| MemberInfo { node, storage: [0; 16], address: String::new() }).collect())
    }

    /// Returns the version: the number of changes so far.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Returns the members whose votes, promises and confirmations count.
    #[must_use]
    pub fn voters(&self) -> &Members {
        &self.voters
    }

    /// Returns the voters and learners.
    #[must_use]
    pub fn everyone(&self) -> &Members {
        &self.everyone
    }

    /// Returns the infos of all members, by id.
    #[must_use]
    pub fn infos(&self) -> &[MemberInfo] {
        &self.infos
    }

    /// Returns the info of `node`, if it is a member.
    #[must_use]
    pub fn info(&self, node: NodeId) -> Option<&MemberInfo> {
        self.everyone.position(node).map(|position| &self.infos[position])
    }

    /// Returns true if `node` was removed; it may never have been a member.
    #[must_use]
    pub fn was_removed(&self, node: NodeId) -> bool {
        self.removed.binary_search(&node).is_ok()
    }

    /// Returns the removed ids, ascending.
    #[must_use]
    pub fn removed(&self) -> &[NodeId] {
        &self.removed
    }

    /// Carries a change out. Returns true if it changes the set of voters.
    ///
    /// # Errors
    /// If the change was made for another version, or is not possible on this one. Then nothing has changed.
    pub fn apply(&mut self, change: &MembershipChange) -> Result<bool, ChangeError> {
        if change.version != self.version {
            return Err(ChangeError::Outdated { asked: change.version, found: self.version });
        }
        let mut voters: Vec<NodeId> = self.voters.ids().to_vec();
        match &change.kind {
            ChangeKind::AddLearner(info) => self.add(info)?,
            ChangeKind::Promote(node) => {
                self.known(*node)?;
                if self.voters.contains(*node) {
                    return Err(ChangeError::Votes(*node));
                }
                voters.push(*node);
            }
            ChangeKind::Remove(node) => {
                if self.was_removed(*node) {
                    return Err(ChangeError::Removed(*node));
                }
                voters.retain(|id| id != node);
                if voters.is_empty() {
                    return Err(ChangeError::Last(*node));
                }
                if self.removed.len() >= REMOVED_MAX {
                    return Err(ChangeError::Full);
                }
                self.infos.retain(|info| info.node != *node);
                let at = self.removed.partition_point(|id| id < node);
                self.removed.insert(at, *node);
            }
            ChangeKind::Move(node, address) => {
                let position = self.known(*node)?;
                check(*node, address)?;
                self.infos[position].address.clone_from(address);
            }
        }
        let before = std::mem::replace(&mut self.voters, Members::new(voters));
        self.everyone = Members::new(self.infos.iter().map(|info| info.node).collect());
        self.version += 1;
        Ok(before != self.voters)
    }

    fn add(&mut self, info: &MemberInfo) -> Result<(), ChangeError> {
        check(info.node, &info.address)?;
        if self.was_removed(info.node) {
            return Err(ChangeError::Removed(info.node));
        }
        if self.everyone.contains(info.node) {
            return Err(ChangeError::Known(info.node));
        }
        if self.infos.len() >= MEMBERS_MAX {
            return Err(ChangeError::Full);
        }
        let at = self.infos.partition_point(|other| other.node < info.node);
        self.infos.insert(at, info.clone());
        Ok(())
    }

    fn known(&self, node: NodeId) -> Result<usize, ChangeError> {
        let unknown = if self.was_removed(node) { ChangeError::Removed(node) } else { ChangeError::Unknown(node) };
        self.everyone.position(node).ok_or(unknown)
    }
}

impl MembershipChange {
    /// Appends the change as the body of a command.
    pub fn encode(&self, out: &mut BytesMut) {
        out.extend_from_slice(&[MACHINE]);
        out.extend_from_slice(&postcard::to_allocvec(self).expect("plain data serializes"));
    }

    /// Decodes the change in the body of a command. Returns `None` if the command changes no membership, and an error
    /// if this version cannot read the change, which then has no effect.
    #[must_use]
    pub fn decode(body: &[u8]) -> Option<Result<MembershipChange, ChangeError>> {
        let (machine, change) = body.split_first()?;
        (*machine == MACHINE).then(|| postcard::from_bytes(change).map_err(|_| ChangeError::Malformed))
    }
}

impl From<Membership> for Encoded {
    fn from(membership: Membership) -> Encoded {
        let Membership { version, voters, infos, removed, .. } = membership;
        Encoded { version, voters: voters.ids().to_vec(), infos, removed }
    }
}

impl TryFrom<Encoded> for Membership {
    type Error = Impossible;

    fn try_from(encoded: Encoded) -> Result<Membership, Impossible> {
        let Encoded { version, voters, infos, removed } = encoded;
        let ascend = |ids: &[NodeId]| ids.is_sorted_by(|one, next| one < next);
        let ids: Vec<NodeId> = infos.iter().map(|info| info.node).collect();
        let known = voters.iter().all(|id| ids.binary_search(id).is_ok());
        let fit = !voters.is_empty() && infos.len() <= MEMBERS_MAX && removed.len() <= REMOVED_MAX;
        let gone = removed.iter().all(|id| ids.binary_search(id).is_err());
        let sane = infos.iter().all(|info| check(info.node, &info.address).is_ok());
        if !(ascend(&ids) && ascend(&voters) && ascend(&removed) && known && fit && gone && sane) {
            return Err(Impossible);
        }
        Ok(Membership { version, voters: Members::new(voters), everyone: Members::new(ids), infos, removed })
    }
}

fn check(node: NodeId, address: &str) -> Result<(), ChangeError> {
    if node.0 == 0 || address.len() > ADDRESS_BYTES_MAX { Err(ChangeError::Malformed) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(id: u32) -> MemberInfo {
        MemberInfo { node: NodeId(id), storage: [id as u8; 16], address: format!("host:{id}") }
    }

    fn initial(count: u32) -> Membership {
        Membership::new((1..=count).map(info).collect())
    }

    fn applied(membership: &mut Membership, kind: ChangeKind) -> Result<bool, ChangeError> {
        membership.apply(&MembershipChange { version: membership.version(), kind })
    }

    #[test]
    fn a_node_is_replaced_by_another_that_learns_first() {
        let mut members = initial(3);
        assert_eq!(applied(&mut members, ChangeKind::AddLearner(info(4))), Ok(false));
        assert_eq!((members.voters().ids().len(), members.everyone().ids().len()), (3, 4));
        assert_eq!(applied(&mut members, ChangeKind::Promote(NodeId(4))), Ok(true));
        assert_eq!(applied(&mut members, ChangeKind::Remove(NodeId(3))), Ok(true));
        assert_eq!(members.voters().ids(), [NodeId(1), NodeId(2), NodeId(4)]);
        assert_eq!((members.version(), members.was_removed(NodeId(3))), (3, true));
        assert_eq!(members.info(NodeId(4)), Some(&info(4)));
        assert_eq!(applied(&mut members, ChangeKind::Move(NodeId(4), "there:4".to_owned())), Ok(false));
        assert_eq!(members.info(NodeId(4)).unwrap().address, "there:4");
    }

    #[test]
    fn what_makes_no_sense_changes_nothing() {
        let mut members = initial(1);
        applied(&mut members, ChangeKind::AddLearner(info(2))).unwrap();
        applied(&mut members, ChangeKind::Remove(NodeId(2))).unwrap();
        let before = members.clone();
        let long = MemberInfo { address: "a".repeat(ADDRESS_BYTES_MAX + 1), ..info(3) };
        for (kind, error) in [
            (ChangeKind::AddLearner(info(1)), ChangeError::Known(NodeId(1))),
            (ChangeKind::AddLearner(info(2)), ChangeError::Removed(NodeId(2))),
            (ChangeKind::AddLearner(long), ChangeError::Malformed),
            (ChangeKind::AddLearner(info(0)), ChangeError::Malformed),
            (ChangeKind::Promote(NodeId(1)), ChangeError::Votes(NodeId(1))),
            (ChangeKind::Promote(NodeId(2)), ChangeError::Removed(NodeId(2))),
            (ChangeKind::Promote(NodeId(7)), ChangeError::Unknown(NodeId(7))),
            (ChangeKind::Remove(NodeId(2)), ChangeError::Removed(NodeId(2))),
            (ChangeKind::Remove(NodeId(1)), ChangeError::Last(NodeId(1))),
        ] {
            assert_eq!(applied(&mut members, kind), Err(error));
        }
        let late = MembershipChange { version: 1, kind: ChangeKind::AddLearner(info(3)) };
        assert_eq!(members.apply(&late), Err(ChangeError::Outdated { asked: 1, found: 2 }));
        assert_eq!(members, before);
    }

    #[test]
    fn no_more_members_than_a_tally_can_count() {
        let mut members = initial(MEMBERS_MAX as u32);
        assert_eq!(applied(&mut members, ChangeKind::AddLearner(info(100))), Err(ChangeError::Full));
    }

    #[test]
    fn it_is_written_and_read_and_what_cannot_be_is_refused() {
        let mut members = initial(3);
        applied(&mut members, ChangeKind::AddLearner(info(7))).unwrap();
        applied(&mut members, ChangeKind::Remove(NodeId(2))).unwrap();
        let bytes = postcard::to_allocvec(&members).unwrap();
        assert_eq!(postcard::from_bytes::<Membership>(&bytes), Ok(members.clone()));
        let good = Encoded::from(members);
        for bad in [
            Encoded { voters: vec![], ..good.clone() },
            Encoded { voters: vec![NodeId(9)], ..good.clone() },
            Encoded { removed: vec![NodeId(1)], ..good.clone() },
            Encoded { infos: vec![info(3), info(1)], ..good },
        ] {
            assert_eq!(Membership::try_from(bad), Err(Impossible));
        }
    }

    #[test]
    fn a_change_is_told_from_other_commands_by_its_first_byte() {
        let change = MembershipChange { version: 5, kind: ChangeKind::AddLearner(info(9)) };
        let mut body = BytesMut::new();
        change.encode(&mut body);
        assert_eq!(MembershipChange::decode(&body), Some(Ok(change)));
        assert_eq!(MembershipChange::decode(&body[..body.len() - 1]), Some(Err(ChangeError::Malformed)));
        assert_eq!((MembershipChange::decode(&[1, 2]), MembershipChange::decode(&[])), (None, None));
    }
}
