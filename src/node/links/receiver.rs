//! The seam between the links and the rest of the node: what comes on a connection once its handshake is done, and what the
//! links need to know for that.

use super::handshake::Known;
use crate::node::Time;
use crate::node::output::Outputs;
use crate::node::peers::Peers;
use crate::node::wire::{Hello, NodeMessage, Refusal};
use bytes::Bytes;
use groups::{GroupId, NodeId};

/// See the module.
pub(in crate::node) trait Receiver {
    // What the node knows.

    /// What a hello is compared with.
    fn known(&self) -> Known<'_>;
    fn peers(&mut self) -> &mut Peers;
    fn outputs(&mut self) -> &mut Outputs;
    /// Returns true if the cluster exists, and this node knows what it promised.
    fn is_born(&self) -> bool;
    /// Returns true before the log has been read: this node takes part in nothing.
    fn has_not_begun(&self) -> bool;
    /// Returns true while this node asks its contacts to be let in.
    fn seeks(&self) -> bool;

    // The handshake.

    /// Checks the hello of a node that is to be born with this one.
    ///
    /// # Errors
    /// Why it cannot be.
    fn judge_unborn(&self, hello: &Hello) -> Result<(), Refusal>;
    /// A node that can be reached at `address` wants to join.
    ///
    /// # Errors
    /// Why it cannot.
    fn apply(&mut self, id: u64, hello: &Hello, address: &str, time: Time) -> Result<(), Refusal>;
    /// The handshake with a member is done, on a connection that may replace another one.
    fn on_linked(&mut self, hello: &Hello, replaces: bool, time: Time);
    /// The same on a connection for transfers. The one that it replaces is returned.
    fn on_transfer_link(&mut self, from: NodeId, id: u64) -> Option<u64>;
    /// A connection for transfers is being made; `None` if it could not even begin.
    fn on_transfer_dialling(&mut self, to: NodeId, connection: Option<u64>, time: Time);

    // What members say. An error is of the sender's making, and ends its connection.

    /// A message between nodes.
    ///
    /// # Errors
    /// Why it cannot be.
    fn on_message(&mut self, id: u64, from: NodeId, message: NodeMessage, time: Time) -> Result<(), String>;
    /// The same on a connection for transfers. Returns false if it does not belong there.
    fn on_transfer_message(&mut self, id: u64, from: NodeId, message: NodeMessage, time: Time) -> bool;
    /// A whole message of a group.
    ///
    /// # Errors
    /// Why it cannot be.
    fn on_group_message(
        &mut self,
        from: NodeId,
        group: GroupId,
        kind: u8,
        body: &Bytes,
        time: Time,
    ) -> Result<(), String>;
    /// A part of a large message of a group has come.
    fn on_arriving(&mut self, from: NodeId, group: GroupId, kind: u8, time: Time);

    // What becomes of members.

    /// A connection is gone, or an attempt at one.
    fn on_gone(&mut self, id: u64, time: Time);
    /// A member has been silent for too long.
    fn on_silent(&mut self, from: NodeId, time: Time);
}
