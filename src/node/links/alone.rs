//! The log warning of a node to which no other member answers. The node may have been removed while it was down.

use crate::node::peers::Peers;
use groups::Ms;

/// Time without a connection to any member after which the node warns.
const ALONE_MS: Ms = Ms(10_000);
/// Interval at which the warning is repeated.
const ALONE_AGAIN_MS: Ms = Ms(60_000);

/// Timer of the warning; see the module.
#[derive(Default)]
pub(super) struct Alone {
    /// Time of the next warning.
    due_ms: Ms,
}

impl Alone {
    /// Starts the time limit.
    pub(super) fn begin(&mut self, now_ms: Ms) {
        self.due_ms = now_ms + ALONE_MS;
    }

    /// Warns if no member has been connected for the time limit.
    pub(super) fn tick(&mut self, peers: &Peers, is_born: bool, now_ms: Ms) {
        if peers.is_empty() || peers.linked().next().is_some() || !is_born {
            self.due_ms = now_ms + ALONE_MS;
        } else if now_ms >= self.due_ms {
            self.due_ms = now_ms + ALONE_AGAIN_MS;
            let others: Vec<String> =
                peers.iter().map(|peer| format!("node {} at {}", peer.id(), peer.address())).collect();
            tracing::warn!(
                "no other member answers: {}. If they run, correct their addresses with --initial-cluster. If all of them \
                 were replaced, check with paxoi member list at a serving node whether this node was removed: if so, \
                 its data directory is of no use any more",
                others.join(", ")
            );
        }
    }
}
