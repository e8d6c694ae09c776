//! Reconfiguration: how a chosen value changes the members, and what that means for the leader.
//!
//! The members chosen at one instance govern votes, promises and confirmations from the next instance on. No vote or
//! promise counts towards majorities of two different sets of members: a tally of votes ends with its instance, and a
//! tally of promises with the leadership.

use super::{Clock, ElectionContext, Group};
use crate::membership::{ChangeError, Membership, MembershipChange};
use crate::message::{Chosen, Handover};
use crate::{Effect, Instance, Message, NodeId, Value};
use std::sync::Arc;

impl Group {
    /// The members that govern instance [`Group::next`].
    #[must_use]
    pub fn membership(&self) -> &Arc<Membership> {
        &self.membership
    }

    /// The id of this node.
    #[must_use]
    pub fn me(&self) -> NodeId {
        self.settings.me
    }

    /// Returns true if this node is a voter of the group.
    #[must_use]
    pub fn is_voter(&self) -> bool {
        self.membership.voters().contains(self.settings.me)
    }

    /// Returns true if `node` and the nodes that it reaches, `reached`, include a majority of the voters.
    #[must_use]
    pub fn is_quorum(&self, node: NodeId, reached: &[NodeId]) -> bool {
        let voters = self.membership.voters();
        voters.ids().iter().filter(|id| **id == node || reached.contains(id)).count() >= voters.quorum()
    }

    pub(super) fn reaches_quorum(&self, context: ElectionContext<'_>) -> bool {
        self.is_quorum(self.settings.me, context.reached)
    }

    /// The other voters.
    pub(super) fn other_voters(&self) -> impl Iterator<Item = NodeId> + use<> {
        others(self.membership.clone(), self.settings.me, |membership| membership.voters().ids())
    }

    /// The other members, voters and learners.
    pub(super) fn others(&self) -> impl Iterator<Item = NodeId> + use<> {
        others(self.membership.clone(), self.settings.me, |membership| membership.everyone().ids())
    }

    /// Returns true if `from` may campaign or lead at `instance`: only a voter may. Also returns true for any instance
    /// above `next`, because its voters are not known here yet.
    pub(super) fn is_entitled(&self, from: NodeId, instance: Instance) -> bool {
        self.membership.voters().contains(from) || instance > self.next
    }

    /// Applies the first valid membership change in a chosen value, and no other. Returns true if the members changed.
    /// A repeated change fails, because the version of the members has moved on.
    pub(super) fn change_members(&mut self, value: &Value) -> bool {
        let before = self.membership.version();
        for change in value.commands().filter_map(|command| MembershipChange::decode(command.body)) {
            let is_second = self.membership.version() != before;
            let outcome = match change {
                Ok(_) if is_second => Err(ChangeError::Second),
                Ok(change) => Arc::make_mut(&mut self.membership).apply(&change).map(|_| change.version + 1),
                Err(error) => Err(error),
            };
            self.outcomes.push_back(outcome);
        }
        let changed = self.membership.version() != before;
        if changed {
            // Confirmations count only among nodes that know the same members.
            self.reads.ask_again();
        }
        changed
    }

    /// Handles a value that this leader chose and that changed the voters. Announces it at once to all members, also to
    /// those that the value removed. Then begins phase 1 again, among the new voters. A leader that is no longer a
    /// voter asks the preferred leader to campaign instead. Phase 1 is repeated only so that a leadership has one set of
    /// voters to count. Safety does not need it: the quorum that voted for the change has promised the ballot, and every
    /// quorum of the next voters intersects it, because a change adds or removes one voter.
    pub(super) fn on_voters_changed(&mut self, before: &Membership, clock: Clock, effects: &mut Vec<Effect>) {
        let Some(led) = self.leads() else { return };
        let (instance, ballot, me) = (self.next.preceding(), self.last_ballot, self.settings.me);
        let left = before.everyone().ids().iter().copied().filter(|id| !self.membership.everyone().contains(*id));
        for to in self.others().chain(left.filter(|id| *id != me)) {
            effects.push(Effect::Send { to, message: Message::Chosen(Chosen { instance, ballot }) });
        }
        self.step_down(clock, effects);
        if self.is_voter() {
            return self.campaign(clock, effects);
        }
        let handover = Handover { ballot: led, next: self.next, stay: false };
        effects.push(Effect::Send { to: self.preferred(), message: Message::Handover(handover) });
    }
}

fn others(
    membership: Arc<Membership>,
    me: NodeId,
    of: impl Fn(&Membership) -> &[NodeId],
) -> impl Iterator<Item = NodeId> {
    let mut position = 0;
    std::iter::from_fn(move || {
        let id = of(&membership).get(position).copied();
        position += 1;
        id
    })
    .filter(move |id| *id != me)
}
