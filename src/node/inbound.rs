//! Messages of groups that come from other members: whole, or in fragments. Values that the disk cannot take now are
//! dropped, and asked for again later.

use super::lanes::Arrived;
use super::links::ABSURD;
use super::{Node, Time};
use bytes::Bytes;
use groups::{GroupId, Message, NodeId};

impl Node {
    /// A part of a large message has come, or all of it now.
    pub(super) fn fragment(&mut self, from: NodeId, body: &[u8], time: Time) -> Result<(), String> {
        let bytes_max = self.config.frame_bytes_max();
        let Some(peer) = self.io.peers.find(from) else { return Ok(()) };
        let Arrived { group, kind, body } = peer.assembly.add(body, bytes_max)?;
        if let Some(body) = body {
            return self.group_message(from, group, kind, &body, time);
        }
        let group = GroupId(group);
        if self.shard.has(group) {
            let arriving = |group: &mut groups::Group, _: &mut Vec<_>| group.on_arriving(from, kind, time.clock());
            self.shard.quiet_step(group, &mut self.io, arriving);
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
        if !self.shard.has(group) {
            self.io.unknown_groups += u64::from(group.index() >= self.shard.len());
            return Ok(());
        }
        let message = match Message::decode(kind, body) {
            Ok(message) => message,
            Err(groups::message::MessageError::UnknownKind(_)) => {
                self.io.unknown_kinds += 1;
                return Ok(());
            }
            Err(error) => return Err(error.to_string()),
        };
        if !self.shard.group(group).believes(&message) {
            return Err(ABSURD.to_owned());
        }
        let version = message.value_version();
        if version > self.config.versions.value_version() {
            return Err(format!("it sent a value of version {version}, which this node does not read"));
        }
        let bytes = message.value_bytes();
        if bytes > 0 && !self.io.takes_value(bytes) {
            self.io.dropped.insert((group, from), bytes);
            return Ok(());
        }
        if matches!(message, Message::Behind(_)) {
            self.note_behind(group, from);
        }
        self.shard.handle(group, from, message, time.clock(), &mut self.io);
        Ok(())
    }

    /// What was dropped because too much waited for the disk is asked for again, as soon as the disk takes it.
    pub(super) fn ask_for_dropped(&mut self) {
        while let Some(((group, from), bytes)) = self.io.dropped.pop_first() {
            if !self.io.takes_value(bytes) {
                self.io.dropped.insert((group, from), bytes);
                return;
            }
            if self.shard.has(group) {
                self.shard.step(group, &mut self.io, |group, effects| group.on_dropped(from, effects));
            }
        }
    }
}
