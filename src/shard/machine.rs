//! The store as the state machine of its group.

use crate::kv::Store;
use crate::kv::reply::Reply;
use groups::{Ms, StateMachine, WorkBudget};

impl StateMachine for Store {
    type Reply<'a> = Reply<'a>;

    fn begin(&mut self, time_ms: Ms) {
        Store::begin(self, time_ms);
    }

    fn digest(&self) -> u64 {
        self.rolling_digest()
    }

    fn look_ahead<'b>(&self, bodies: impl Iterator<Item = &'b [u8]>) {
        Store::look_ahead(self, bodies);
    }

    fn apply(&mut self, body: &[u8]) -> Reply<'_> {
        Store::apply(self, body)
    }

    fn apply_some(&mut self, body: &[u8], wanted: bool, work: &mut WorkBudget) -> Option<Reply<'_>> {
        Store::apply_some(self, body, wanted, work)
    }
}
