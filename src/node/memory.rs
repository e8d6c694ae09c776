//! `maxmemory`: what keys and values may take of this node's memory. The node that a client asks refuses what may add to
//! it, as Redis does; what removes or reads goes on. Whatever comes through the log is applied all the same, because what
//! `apply` does must not depend on how a node is set up: a node with less than the others refuses its own clients early,
//! and grows with theirs.

use super::Node;
use crate::kv::command::Command;
use crate::kv::reply::Reply;

/// The reply to what may add to the memory in use when there is too much already.
pub(super) const OUT_OF_MEMORY: &str = "OOM command not allowed when used memory > 'maxmemory'.";

impl Node {
    /// What the stores take, and the commands of this node's clients that are on their way to them, in bytes.
    pub(super) fn used_bytes(&self) -> u64 {
        (self.engine.shard().store_bytes() + self.engine.shard().queued_bytes()) as u64
    }

    /// Whether commands that may grow are refused.
    pub(super) fn is_out_of_memory(&self) -> bool {
        let max = self.config.memory_bytes_max;
        max > 0 && self.used_bytes() > max
    }

    /// The refusal of a command that may grow, if there is too much already.
    pub(super) fn memory_refusal(&self, command: &Command<'_>) -> Option<Reply<'static>> {
        if !command.grows() || !self.is_out_of_memory() {
            return None;
        }
        Some(match command {
            Command::Exec(_) => {
                Reply::Error(format!("EXECABORT Transaction discarded because of: {OUT_OF_MEMORY}").into())
            }
            _ => Reply::error(OUT_OF_MEMORY),
        })
    }
}
