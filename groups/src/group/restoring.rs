//! Recovery: restores the group's state from its own records, in the order in which they were written.

use super::{Clock, Group, StateDiffers};
use crate::acceptor::Accepted;
use crate::effect::Record;
use crate::{Ballot, Effect, Instance, Value};

/// A record that cannot follow the records before it: the log is not this group's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Two records of one instance hold different values for one ballot.
    #[error("instance {instance} has two values under ballot {ballot}")]
    TwoValues {
        /// The instance.
        instance: Instance,
        /// The ballot.
        ballot: Ballot,
    },
    /// The value does not continue the chain of the values before it.
    #[error("the value of instance {0} does not follow those before it")]
    Chain(Instance),
    /// The values before it have made another state here than the one in which the value was chosen.
    #[error(transparent)]
    State(#[from] StateDiffers),
}

impl Group {
    /// Restores one log record. Chosen values come out as [`Effect::Apply`]. Records that a checkpoint includes are
    /// skipped. If an instance is missing in between, the group is recovering afterwards ([`Group::is_recovering`]).
    ///
    /// # Errors
    /// If the record contradicts those before it.
    pub fn restore(&mut self, record: Record, clock: Clock, effects: &mut Vec<Effect>) -> Result<(), RestoreError> {
        match record {
            Record::Promised(ballot) => self.recall_promise(ballot),
            Record::Position { next, promised, chosen } => {
                self.recall_promise(promised);
                if !self.reach(next, chosen, clock, effects) {
                    self.begin_recovery(next);
                }
            }
            Record::Accepted { instance, ballot, chosen, value } => {
                self.recall_promise(ballot);
                if instance < self.next {
                    return Ok(());
                }
                if !self.reach(instance, chosen, clock, effects) {
                    self.recall_later(instance, ballot, value);
                } else {
                    self.check_chain(instance, &value)?;
                    if !self.acceptor.recall(ballot, &value) {
                        return Err(RestoreError::TwoValues { instance, ballot });
                    }
                }
            }
            Record::Learned { instance, ballot, chosen, value } => {
                if instance < self.next {
                    return Ok(());
                }
                if !self.reach(instance, chosen, clock, effects) {
                    self.begin_recovery(instance.following());
                } else {
                    self.check_chain(instance, &value)?;
                    self.decide(ballot, value, clock, effects);
                }
            }
            Record::Lost { instance, learned: true, .. } if instance >= self.next => {
                self.begin_recovery(instance.following());
            }
            Record::Lost { instance, ballot, learned: false } => {
                self.recall_promise(ballot);
                if instance >= self.next {
                    self.lose_vote(instance, ballot);
                }
            }
            Record::Lost { .. } => {}
        }
        self.fill();
        Ok(())
    }

    fn recall_promise(&mut self, ballot: Ballot) {
        self.seen = self.seen.max(ballot);
        // The log can hold a promise after a vote under a higher ballot. That promise changes nothing.
        let _ = self.acceptor.prepare(ballot);
    }

    /// Moves to `instance`, because a record says that all earlier instances were chosen, the last of them under
    /// `chosen`. Returns false if the value of an earlier instance is missing here.
    fn reach(&mut self, instance: Instance, chosen: Ballot, clock: Clock, effects: &mut Vec<Effect>) -> bool {
        if self.recovering.is_some() {
            return false;
        }
        if instance == self.next.following()
            && let Some(value) = self.acceptor.accepted_under(chosen).cloned()
        {
            self.decide(chosen, value, clock, effects);
        }
        instance <= self.next
    }

    /// Persists the group's position and, with `vote`, its vote at that position again, before its older records are
    /// dropped from the log.
    pub fn record_again(&self, vote: bool, effects: &mut Vec<Effect>) {
        assert!(self.recovering.is_none(), "only its old records hold the knowledge of a recovering group");
        let (next, promised, chosen) = (self.next, self.acceptor.promised(), self.last_ballot);
        effects.push(Effect::Persist(Record::Position { next, promised, chosen }));
        if let Some(accepted) = self.acceptor.accepted().filter(|_| vote).cloned() {
            let Accepted { ballot, value } = accepted;
            effects.push(Effect::Persist(Record::Accepted { instance: next, ballot, chosen, value }));
        }
    }

    /// Returns true if this member has accepted a value that is not known to be chosen.
    #[must_use]
    pub fn has_vote(&self) -> bool {
        self.acceptor.accepted().is_some()
    }

    fn check_chain(&self, instance: Instance, value: &Value) -> Result<(), RestoreError> {
        if value.chain() == self.chain { Ok(()) } else { Err(RestoreError::Chain(instance)) }
    }
}
