//! A member can have given its word, outside of the group, that for a while it promises nothing to anybody but the leader.
//! What that means for a message is decided here; who gave which word, and for how long, is the caller's business.

use super::Group;
use crate::message::{PreVoted, Reject};
use crate::{Effect, Message, NodeId};

impl Group {
    /// Whether this member's promises count, and it knows what it has promised.
    #[must_use]
    pub fn may_promise(&self) -> bool {
        self.is_voter() && self.hollow.is_none()
    }

    /// To whom this message, of `from`, can make this member promise a ballot, or say that it would: to another member that
    /// stands for election, or to itself.
    #[must_use]
    pub fn promises(&self, from: NodeId, message: &Message) -> Option<NodeId> {
        if self.hollow.is_some() {
            // It promises nothing to anybody, and says nothing of that either.
            return None;
        }
        match message {
            Message::Prepare(_) | Message::PreVote(_) if from != self.settings.me => Some(from),
            Message::PreVoted(_) | Message::Handover(_) => Some(self.settings.me),
            _ => None,
        }
    }

    /// Answers such a message without a promise: later, perhaps. A candidate goes on asking.
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
