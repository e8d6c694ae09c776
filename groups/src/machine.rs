//! What a group replicates.

use crate::work::{BYTES_PER_STEP, Work};

/// A deterministic state machine: equal values in equal order give equal states and replies on every member.
pub trait StateMachine {
    /// What a command answers. It may borrow from the machine, so that a value is copied only where it is wanted.
    type Reply<'a>
    where
        Self: 'a;

    /// A value begins: the group's time is `time_ms` (unix milliseconds, never less than before) from here on.
    fn begin(&mut self, time_ms: u64);

    /// A hash of all that ever happened to the state: it goes on with each change, and costs no look at the whole. Members
    /// at the same instance have the same one, or they differ. 0 if nothing happened yet.
    fn digest(&self) -> u64;

    /// Executes one command. A body that it cannot read gets an error as its reply, the same on every member.
    fn apply(&mut self, body: &[u8]) -> Self::Reply<'_>;

    /// Executes one command as far as `work` goes; `None`: it is not done, and is called again with the same body before
    /// anything else. It does something each time. Without `wanted` nobody gets the reply, which may be any: what only
    /// reads need not be done then.
    fn apply_some(&mut self, body: &[u8], wanted: bool, work: &mut Work) -> Option<Self::Reply<'_>> {
        let _ = wanted;
        work.spend(1 + body.len() / BYTES_PER_STEP);
        Some(self.apply(body))
    }
}
