//! The interface between the links and the rest of the node. The node handles the messages of a connection whose
//! handshake is done, and provides the state for the handshake.

use super::handshake::HandshakeContext;
use crate::node::Time;
use crate::node::output::Outputs;
use crate::node::peers::Peers;
use crate::node::wire::{Hello, NodeMessage, Refusal};
use bytes::Bytes;
use groups::{GroupId, NodeId};
use net::event::ConnectionId;

/// The interface of the links to the rest of the node; see the module.
pub(in crate::node) trait Receiver {
    // State of the node.

    /// Returns the state that a hello is checked against.
    fn context(&self) -> HandshakeContext<'_>;
    fn peers(&mut self) -> &mut Peers;
    fn outputs(&mut self) -> &mut Outputs;
    /// Returns true if the cluster exists and this node knows its promises.
    fn is_born(&self) -> bool;
    /// Returns true until the node begins, with its first rebuilt groups. Before that, it takes part in nothing.
    fn has_not_begun(&self) -> bool;
    /// Returns true while this node asks its contacts to let it join.
    fn is_asking_to_join(&self) -> bool;

    // The handshake.

    /// Checks the hello of a node that should be born with this one.
    ///
    /// # Errors
    /// The reason why it cannot be born with this node.
    fn check_unborn_hello(&self, hello: &Hello) -> Result<(), Refusal>;
    /// Takes the request of a node at `address` to join.
    ///
    /// # Errors
    /// The reason why it cannot join.
    fn handle_join_request(
        &mut self,
        id: ConnectionId,
        hello: &Hello,
        address: &str,
        time: Time,
    ) -> Result<(), Refusal>;
    /// Takes a member's connection whose handshake is done. `replaces`: the connection replaces an older one.
    fn on_linked(&mut self, hello: &Hello, replaces: bool, time: Time);
    /// Takes a transfer connection whose handshake is done. Returns the connection that it replaces.
    fn on_transfer_link(&mut self, from: NodeId, id: ConnectionId) -> Option<ConnectionId>;
    /// Notes that a transfer connection is being made; `None` if it could not begin.
    fn on_transfer_dialling(&mut self, to: NodeId, connection: Option<ConnectionId>, time: Time);

    // Messages of members. An error is the sender's fault, and ends its connection.

    /// Handles a message between nodes.
    ///
    /// # Errors
    /// The reason why the message is impossible.
    fn on_message(&mut self, id: ConnectionId, from: NodeId, message: NodeMessage, time: Time) -> Result<(), String>;
    /// Handles a message on a transfer connection. Returns false if the message does not belong there.
    fn on_transfer_message(&mut self, id: ConnectionId, from: NodeId, message: NodeMessage, time: Time) -> bool;
    /// Handles a complete message of a group.
    ///
    /// # Errors
    /// The reason why the message is impossible.
    fn on_group_message(
        &mut self,
        from: NodeId,
        group: GroupId,
        kind: u8,
        body: &Bytes,
        time: Time,
    ) -> Result<(), String>;
    /// Notes that a fragment of a large message of a group has arrived.
    fn on_arriving(&mut self, from: NodeId, group: GroupId, kind: u8, time: Time);

    // Failures of members.

    /// Notes that a connection is closed, or that an attempt at one has failed.
    fn on_gone(&mut self, id: ConnectionId, time: Time);
    /// Notes that a member has been silent for too long.
    fn on_silent(&mut self, from: NodeId, time: Time);
}
