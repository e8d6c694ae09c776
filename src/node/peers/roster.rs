//! The members of the cluster: every node that is a member of some group. While members come and go, the groups differ
//! for a while. Each group decides by its own members. For the node as a whole, this union counts.

use groups::membership::MemberInfo;
use groups::{Members, Membership, NodeId};
use std::sync::Arc;

/// All members of all groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::node) struct Roster {
    /// By id.
    infos: Vec<MemberInfo>,
    /// The nodes that vote in some group.
    voters: Members,
    /// The nodes that left every group, ascending: only they have left the cluster. Another node that left some group
    /// may still be a member of the others, or this node has not yet learned of its removal from them.
    removed: Vec<NodeId>,
    /// The nodes that left some group.
    left: Vec<NodeId>,
}

impl Roster {
    /// Creates the roster of a cluster whose groups all have this membership.
    pub(in crate::node) fn of_one(membership: &Membership) -> Roster {
        Roster {
            infos: membership.infos().to_vec(),
            voters: membership.voters().clone(),
            removed: membership.removed().to_vec(),
            left: membership.removed().to_vec(),
        }
    }

    /// Creates the roster of the members of at least one group; `None` if there are no groups.
    pub(in crate::node) fn of_all<'a>(memberships: impl Iterator<Item = &'a Arc<Membership>>) -> Option<Roster> {
        let mut roster: Option<Roster> = None;
        let mut before: Option<&'a Membership> = None;
        for membership in memberships {
            // Most groups have equal members: skipping them saves most of the work.
            if before.is_some_and(|before| std::ptr::eq(before, &**membership) || before == &**membership) {
                continue;
            }
            before = Some(membership);
            match &mut roster {
                None => roster = Some(Roster::of_one(membership)),
                Some(roster) => roster.join(membership),
            }
        }
        roster
    }

    fn join(&mut self, membership: &Membership) {
        self.join_all(&Roster::of_one(membership));
    }

    /// Adds the members of other groups.
    pub(in crate::node) fn join_all(&mut self, other: &Roster) {
        for info in &other.infos {
            if let Err(at) = self.infos.binary_search_by_key(&info.node, |known| known.node) {
                self.infos.insert(at, info.clone());
            }
        }
        let mut voters = self.voters.ids().to_vec();
        voters.extend(other.voters.ids());
        voters.truncate(groups::members::MEMBERS_MAX);
        self.voters = Members::new(voters);
        self.removed.retain(|id| other.was_removed(*id));
        self.left.extend(&other.left);
        self.left.sort_unstable();
        self.left.dedup();
    }

    /// Allows for groups whose members are not known: no node is known to have left all groups, and the `linked` nodes
    /// may be members of such a group.
    pub(in crate::node) fn allow_for_unknown(&mut self, linked: &[MemberInfo]) {
        self.removed.clear();
        self.add(linked);
    }

    /// Adds members that the groups do not know of yet.
    pub(in crate::node) fn add(&mut self, infos: &[MemberInfo]) {
        for info in infos.iter().filter(|info| self.removed.binary_search(&info.node).is_err()) {
            if let Err(at) = self.infos.binary_search_by_key(&info.node, |known| known.node) {
                self.infos.insert(at, info.clone());
            }
        }
    }

    pub(in crate::node) fn infos(&self) -> &[MemberInfo] {
        &self.infos
    }

    pub(in crate::node) fn info(&self, node: NodeId) -> Option<&MemberInfo> {
        let at = self.infos.binary_search_by_key(&node, |info| info.node);
        at.ok().map(|at| &self.infos[at])
    }

    pub(in crate::node) fn voters(&self) -> &Members {
        &self.voters
    }

    /// Returns true if `node` left some group.
    pub(in crate::node) fn has_left(&self, node: NodeId) -> bool {
        self.left.binary_search(&node).is_ok()
    }

    /// Returns true if `node` was removed from every group.
    pub(in crate::node) fn was_removed(&self, node: NodeId) -> bool {
        self.removed.binary_search(&node).is_ok()
    }
}
