//! Messages of groups that come from other members: whole, or in fragments. Values that the disk cannot take now are
//! dropped, and asked for again later.

use super::links::ABSURD;
use super::peers::lanes::Arrived;
use super::{Node, Time};
use bytes::Bytes;
use groups::{GroupId, Message, NodeId};

impl Node {
    /// A part of a large message has come, or all of it now.
    pub(super) fn fragment(&mut self, from: NodeId, body: &[u8], time: Time) -> Result<(), String> {
        let bytes_max = self.config.frame_bytes_max();
        let Some(peer) = self.peers.find(from) else { return Ok(()) };
        let Arrived { group, kind, body } = peer.assemble(body, bytes_max)?;
        if let Some(body) = body {
            return self.group_message(from, group, kind, &body, time);
        }
        let group = GroupId(group);
        if self.engine.has(group) {
            let arriving = |group: &mut groups::Group, _: &mut Vec<_>| group.on_arriving(from, kind, time.clock());
            self.quiet_step(group, arriving);
        }
        Ok(())
    }

    /// A whole message of a group.
    pub(super) fn group_message(
        &mut self,
        from: NodeId,
        group: u32,
        kind: u8,
        body: &Bytes,
        time: Time,
    ) -> Result<(), String> {
        let group = GroupId(group);
        if !self.engine.has(group) {
            self.unknown_groups += u64::from(group.index() >= self.engine.len());
            return Ok(());
        }
        let message = match Message::decode(kind, body) {
            Ok(message) => message,
            Err(groups::message::MessageError::UnknownKind(_)) => {
                self.unknown_kinds += 1;
                return Ok(());
            }
            Err(error) => return Err(error.to_string()),
        };
        if !self.engine.group(group).believes(&message) {
            return Err(ABSURD.to_owned());
        }
        let version = message.value_version();
        if version > self.config.versions.value_version() {
            return Err(format!("it sent a value of version {version}, which this node does not read"));
        }
        if matches!(message, Message::Behind(_)) {
            self.cluster.note_behind(group, from);
        }
        let (engine, mut wires) = self.split();
        engine.receive(group, from, message, &mut wires, time);
        Ok(())
    }
}
