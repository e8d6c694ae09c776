//! Recovery: the group's own records, in the order in which they were written, make the state that it had.

use super::{Clock, Group};
use crate::effect::Record;
use crate::{Ballot, Effect, Instance, Value};

/// A record that cannot follow those before it: the log is not this group's, or a part of it is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The record's instance is neither the next one nor the one after it.
    #[error("a record of instance {found} stands where instance {next} was next")]
    Gap {
        /// The record's instance.
        found: Instance,
        /// The instance that was next.
        next: Instance,
    },
    /// The record says that the instance before was chosen under a ballot under which nothing was accepted here.
    #[error("instance {instance} was chosen under ballot {ballot}, but no record holds that value")]
    Missing {
        /// The instance.
        instance: Instance,
        /// The ballot.
        ballot: Ballot,
    },
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
}

impl Group {
    /// Takes one record back. Chosen values come out as [`Effect::Apply`].
    ///
    /// # Errors
    /// If the record contradicts those before it.
    pub fn restore(&mut self, record: Record, clock: Clock, effects: &mut Vec<Effect>) -> Result<(), RestoreError> {
        match record {
            Record::Promised(ballot) => {
                self.seen = self.seen.max(ballot);
                // A lower one can stand behind a vote that promised more; it changes nothing.
                let _ = self.acceptor.prepare(ballot);
                Ok(())
            }
            Record::Accepted { instance, ballot, chosen, value } => {
                self.restore_before(instance, chosen, clock, effects)?;
                self.check_chain(instance, &value)?;
                self.seen = self.seen.max(ballot);
                let agrees = self.acceptor.recall(ballot, &value);
                if agrees { Ok(()) } else { Err(RestoreError::TwoValues { instance, ballot }) }
            }
            Record::Learned { instance, ballot, chosen, value } => {
                self.restore_before(instance, chosen, clock, effects)?;
                self.check_chain(instance, &value)?;
                self.decide(ballot, value, clock, effects);
                Ok(())
            }
        }
    }

    /// A record at `instance` tells that all before it were chosen, the last one under `chosen`.
    fn restore_before(
        &mut self,
        instance: Instance,
        chosen: Ballot,
        clock: Clock,
        effects: &mut Vec<Effect>,
    ) -> Result<(), RestoreError> {
        if instance == self.next {
            return Ok(());
        }
        if instance != self.next.following() {
            return Err(RestoreError::Gap { found: instance, next: self.next });
        }
        let missing = RestoreError::Missing { instance: self.next, ballot: chosen };
        let value = self.acceptor.accepted_under(chosen).cloned().ok_or(missing)?;
        self.decide(chosen, value, clock, effects);
        Ok(())
    }

    fn check_chain(&self, instance: Instance, value: &Value) -> Result<(), RestoreError> {
        if value.chain() == self.chain { Ok(()) } else { Err(RestoreError::Chain(instance)) }
    }
}
