//! The lease guard. With a lease grant, which the node gives outside of the group, a member promises no ballot to any
//! node but the leader until the grant ends. This module decides which messages ask for such a promise, and how they
//! are answered. The caller keeps the grants and their expiry times.

use super::Group;
use crate::message::{PreVoted, Reject};
use crate::{Effect, Message, NodeId};

impl Group {
    /// Returns true if this member's promises count, and it knows what it has promised.
    #[must_use]
    pub fn may_promise(&self) -> bool {
        self.is_voter() && self.recovering.is_none()
    }

    /// Returns the candidate to which this member may promise a ballot or grant a pre-vote if it handles this message
    /// of `from`. The candidate is the sender, or this node itself.
    #[must_use]
    pub fn promises(&self, from: NodeId, message: &Message) -> Option<NodeId> {
        if self.recovering.is_some() {
            // A recovering member makes no promise, and does not answer such a message.
            return None;
        }
        match message {
            Message::Prepare(_) | Message::PreVote(_) if from != self.settings.me => Some(from),
            Message::PreVoted(_) | Message::Handover(_) => Some(self.settings.me),
            _ => None,
        }
    }

    /// Answers a Prepare with a Reject, and a pre-vote question with a refusal. Promises nothing. The candidate
    /// goes on asking, and may get the promise later.
    pub fn withhold(&mut self, from: NodeId, message: &Message, effects: &mut Vec<Effect>) {
        let promised = self.acceptor.promised();
        let answer = match message {
            Message::Prepare(asked) => {
                self.seen = self.seen.max(asked.ballot);
                Message::Reject(Reject { ballot: asked.ballot, instance: asked.instance, promised })
            }
            Message::PreVote(question) => {
                let (next, promised) = (self.next, promised.max(self.seen));
                Message::PreVoted(PreVoted { number: question.number, granted: false, next, promised })
            }
            _ => return,
        };
        effects.push(Effect::Send { to: from, message: answer });
    }
}
