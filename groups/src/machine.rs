//! The interface of the state machine that a group replicates.

use crate::Ms;
use crate::work::{BYTES_PER_STEP, WorkBudget};

/// Maximum number of commands that a state machine looks ahead at a time.
pub const LOOK_AHEAD_MAX: usize = 16;

/// A deterministic state machine: equal values in equal order give equal states and replies on every member.
pub trait StateMachine {
    /// The reply to a command. It may borrow from the machine, so that a value is copied only where it is wanted.
    type Reply<'a>
    where
        Self: 'a;

    /// Begins a value: from here on the group's time is `time_ms` (unix milliseconds, never less than before).
    fn begin(&mut self, time_ms: Ms);

    /// Returns the rolling digest: a hash of all changes of the state so far. Each change updates it, without a pass
    /// over the whole state. Members whose digests differ at the same instance have diverged. 0 if nothing happened
    /// yet.
    fn digest(&self) -> u64;

    /// Announces the bodies of commands that are executed next, at most [`LOOK_AHEAD_MAX`] at a time. A machine whose
    /// state is larger than the processor's caches may read what they need from memory together. It must not change.
    fn look_ahead<'b>(&self, bodies: impl Iterator<Item = &'b [u8]>) {
        let _ = bodies;
    }

    /// Executes one command. The reply to an unreadable body is an error, the same on every member.
    fn apply(&mut self, body: &[u8]) -> Self::Reply<'_>;

    /// Executes one command until `work` is spent. Returns `None` if the command is not done: the next call is then for
    /// the same body. Each call makes progress. If `wanted` is false, nobody reads the reply: the machine may return
    /// any reply and leave out work that only reads.
    fn apply_some(&mut self, body: &[u8], wanted: bool, work: &mut WorkBudget) -> Option<Self::Reply<'_>> {
        let _ = wanted;
        work.spend(1 + body.len() / BYTES_PER_STEP);
        Some(self.apply(body))
    }
}
