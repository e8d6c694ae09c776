//! The messages between the workers of a node that concern clients: WAIT in groups of several workers, and commands about
//! the whole node.

use super::backend::Backend;
use super::waits::{WaitId, WaitProgress, WaitRequest};
use super::whole::{AskId, Part, Question};
use super::{Clients, Time};
use crate::workers::WorkerId;

/// See the module.
#[derive(Debug)]
pub(in crate::node) enum ClientsMessage {
    /// A command about the whole node, for which the sender needs the receiver.
    Ask(Question),
    /// The sender's part of such a command.
    Part(AskId, Part),
    /// Asks the receiver to report how much of a client's writes is durable, until [`ClientsMessage::EndWait`].
    Wait(WaitRequest),
    /// The sender waits no longer.
    EndWait(WaitId),
    /// More is durable for a wait of the receiver.
    WaitProgress(WaitId, WaitProgress),
}

impl Clients {
    /// Handles a message of another worker.
    pub(in crate::node) fn on_message(
        &mut self,
        from: WorkerId,
        message: ClientsMessage,
        node: &mut impl Backend,
        time: Time,
    ) {
        match message {
            ClientsMessage::Ask(question) => self.on_question(from, question, node, time),
            ClientsMessage::Part(id, part) => self.on_part(id, part),
            ClientsMessage::Wait(request) => self.wait_for_worker(from, request, node),
            ClientsMessage::EndWait(id) => self.end_wait_for_worker(from, id),
            ClientsMessage::WaitProgress(id, progress) => self.on_wait_progress(from, id, progress),
        }
    }
}
