//! Who belongs to the cluster: every node that is a member of some group. While members come and go the groups differ for
//! a while; each of them judges by its own set, and what concerns the node as a whole goes by this union.

use groups::membership::Place;
use groups::{Members, Membership, NodeId};
use std::sync::Arc;

/// All members of all groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::node) struct Roster {
    /// By id.
    places: Vec<Place>,
    /// Those that vote somewhere.
    voters: Members,
    /// Those that left every group, ascending: only they are gone. One that left some may belong to others that this node
    /// does not know to have it yet.
    removed: Vec<NodeId>,
    /// Those that left some.
    left: Vec<NodeId>,
}

impl Roster {
    /// The members of a cluster all of whose groups have this membership.
    pub(in crate::node) fn of_one(membership: &Membership) -> Roster {
        Roster {
            places: membership.places().to_vec(),
            voters: membership.voters().clone(),
            removed: membership.removed().to_vec(),
            left: membership.removed().to_vec(),
        }
    }

    /// The members of at least one group; `None` if there are no groups.
    pub(in crate::node) fn of_all<'a>(memberships: impl Iterator<Item = &'a Arc<Membership>>) -> Option<Roster> {
        let mut roster: Option<Roster> = None;
        let mut before: Option<&'a Membership> = None;
        for membership in memberships {
            // Most groups have the same, so that most of this is not done.
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
        for place in membership.places() {
            if let Err(at) = self.places.binary_search_by_key(&place.node, |known| known.node) {
                self.places.insert(at, place.clone());
            }
        }
        let mut voters = self.voters.ids().to_vec();
        voters.extend(membership.voters().ids());
        voters.truncate(groups::members::MEMBERS_MAX);
        self.voters = Members::new(voters);
        self.removed.retain(|id| membership.was_removed(*id));
        self.left.extend(membership.removed());
        self.left.sort_unstable();
        self.left.dedup();
    }

    /// There are groups whose members are not known: nobody is known to have left them all, and those that are `linked` may
    /// be members there.
    pub(in crate::node) fn allow_for_unknown(&mut self, linked: &[Place]) {
        self.removed.clear();
        self.add(linked);
    }

    /// Adds members that the groups do not know of yet.
    pub(in crate::node) fn add(&mut self, places: &[Place]) {
        for place in places.iter().filter(|place| self.removed.binary_search(&place.node).is_err()) {
            if let Err(at) = self.places.binary_search_by_key(&place.node, |known| known.node) {
                self.places.insert(at, place.clone());
            }
        }
    }

    pub(in crate::node) fn places(&self) -> &[Place] {
        &self.places
    }

    pub(in crate::node) fn place(&self, node: NodeId) -> Option<&Place> {
        let at = self.places.binary_search_by_key(&node, |place| place.node);
        at.ok().map(|at| &self.places[at])
    }

    pub(in crate::node) fn voters(&self) -> &Members {
        &self.voters
    }

    /// Whether `node` left some group.
    pub(in crate::node) fn has_left(&self, node: NodeId) -> bool {
        self.left.binary_search(&node).is_ok()
    }

    /// Whether `node` was removed from every group.
    pub(in crate::node) fn was_removed(&self, node: NodeId) -> bool {
        self.removed.binary_search(&node).is_ok()
    }
}
