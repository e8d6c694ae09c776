//! Other members: what a chosen value changes of them, and what that means for whoever leads.
//!
//! The set chosen at one instance governs votes, promises and confirmations from the next on. Nothing that was counted in
//! one set is counted in another: tallies of votes end with their instance, and promises with the leadership.

use super::{Clock, Group, Surroundings};
use crate::membership::{Change, ChangeError, Membership};
use crate::message::{Chosen, Handover};
use crate::{Effect, Instance, Message, NodeId, Value};
use std::sync::Arc;

impl Group {
    /// The members at [`Group::next`].
    #[must_use]
    pub fn membership(&self) -> &Arc<Membership> {
        &self.membership
    }

    /// This node.
    #[must_use]
    pub fn me(&self) -> NodeId {
        self.settings.me
    }

    /// Whether this node votes here.
    #[must_use]
    pub fn is_voter(&self) -> bool {
        self.membership.voters().contains(self.settings.me)
    }

    /// Whether this node, or another of which `reached` are those that it reaches, has a majority with them.
    #[must_use]
    pub fn is_quorum(&self, node: NodeId, reached: &[NodeId]) -> bool {
        let voters = self.membership.voters();
        voters.ids().iter().filter(|id| **id == node || reached.contains(id)).count() >= voters.quorum()
    }

    pub(super) fn reaches_quorum(&self, around: Surroundings<'_>) -> bool {
        self.is_quorum(self.settings.me, around.reached)
    }

    /// The others that vote.
    pub(super) fn other_voters(&self) -> impl Iterator<Item = NodeId> + use<> {
        others(self.membership.clone(), self.settings.me, |membership| membership.voters().ids())
    }

    /// The others, learners too.
    pub(super) fn others(&self) -> impl Iterator<Item = NodeId> + use<> {
        others(self.membership.clone(), self.settings.me, |membership| membership.everyone().ids())
    }

    /// Whether `from` may stand or lead at `instance`: nobody does who has no vote there. Who governs a later instance than
    /// `next` is not known here yet.
    pub(super) fn is_entitled(&self, from: NodeId, instance: Instance) -> bool {
        self.membership.voters().contains(from) || instance > self.next
    }

    /// Carries out what a chosen value changes: its first change that can be, and no other. Whether anything did. A command
    /// that is there again finds another version.
    pub(super) fn change_members(&mut self, value: &Value) -> bool {
        let before = self.membership.version();
        for change in value.commands().filter_map(|command| Change::decode(command.body)) {
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

    /// This leader chose a value that changed who votes: all are told at once, and phase 1 begins anew with a majority of
    /// the new set. One that has no vote any more asks another to begin it.
    pub(super) fn on_voters_changed(&mut self, before: &Membership, clock: Clock, effects: &mut Vec<Effect>) {
        let Some(led) = self.leads() else { return };
        let (instance, ballot, me) = (self.next.preceding(), self.last_ballot, self.settings.me);
        let left = before.everyone().ids().iter().copied().filter(|id| !self.membership.everyone().contains(*id));
        for to in self.others().chain(left.filter(|id| *id != me)) {
            effects.push(Effect::Send { to, message: Message::Chosen(Chosen { instance, ballot }) });
        }
        self.step_down(clock, effects);
        if self.is_voter() {
            return self.stand(clock, effects);
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
