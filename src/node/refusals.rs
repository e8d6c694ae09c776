//! Reasons to refuse a client's command before it is tried: this node is no member of the group or is far behind, a
//! disk is full, or no majority is reached.

use super::engine::Engine;
use super::peers::Peers;
use super::relay::Relays;
use crate::config::{RELAY_BYTES_MAX, RELAYS_MAX};
use crate::kv::reply::Reply;
use groups::{GroupId, NodeId};

/// The refusal of a node that is not yet a member of the group, or is being removed.
const NOT_JOINED: &str =
    "CLUSTERDOWN Hash slot not served: this node is joining its cluster, or is being removed from it";

/// The components on which a refusal depends.
pub(super) struct Refusals<'a> {
    pub(super) engine: &'a Engine,
    pub(super) peers: &'a Peers,
    pub(super) relays: &'a Relays,
}

impl Refusals<'_> {
    /// Returns the reason why a command cannot be tried in `group`, one of the groups that it needs. The group must not
    /// be missing. `bytes`: the length of the command's request.
    pub(super) fn of_group(&self, group: GroupId, writes: bool, bytes: usize) -> Option<Reply<'static>> {
        let engine = self.engine;
        if !engine.is_member(group) {
            return Some(Reply::error(NOT_JOINED));
        }
        if let Some(refusal) = engine.reach_refusal(group, writes, bytes) {
            return Some(refusal);
        }
        if self.relays.to().is_some() {
            return self.of_relay(bytes);
        }
        if engine.is_far_behind(group) {
            return Some(Reply::error("LOADING Paxoi is catching up with the other nodes"));
        }
        let cannot_learn = engine.space().is_exhausted() && engine.group(group).is_behind();
        cannot_learn.then(|| {
            Reply::error(
                "MISCONF the disk is full: this node lacks newer writes, and no other node can execute the command",
            )
        })
    }

    /// Returns the refusal if the disks do not take a command of `bytes`. `grows`: the command may add that many bytes
    /// of data. `is_logged`: the command goes through the log.
    pub(super) fn of_space(&self, grows: bool, is_logged: bool, bytes: usize) -> Option<Reply<'static>> {
        let (space, is_relayed) = (self.engine.space(), self.relays.to().is_some());
        let has_quorum = || !self.peers.quorum_is_full(space.full);
        if grows && !((is_relayed || space.takes_growth(bytes)) && has_quorum()) {
            return Some(Reply::error(
                "MISCONF the disk is full: commands that may add data are refused until there is room again",
            ));
        }
        (is_logged && !is_relayed && !space.takes_command(bytes))
            .then(|| Reply::error("MISCONF the disk is full: only reads are served until there is room again"))
    }

    /// Returns the reason why a command of `bytes` cannot be passed on to the member that executes this node's
    /// commands.
    fn of_relay(&self, bytes: usize) -> Option<Reply<'static>> {
        let to = self.relays.to()?;
        if bytes > RELAY_BYTES_MAX {
            let address = self.address_of(to);
            let text = format!(
                "MISCONF the disk of this node is full, and it forwards no commands longer than {RELAY_BYTES_MAX} \
                 bytes: send this one to node {to} at {address}"
            );
            return Some(Reply::Error(text.into()));
        }
        (self.relays.sent() >= RELAYS_MAX).then(|| {
            Reply::error("CLUSTERDOWN Hash slot not served: the disk of this node is full, and too many commands wait")
        })
    }

    /// Returns the refusal of a command that is never passed on. Returns `None` unless this node's disk is full, and it
    /// passes its clients' other commands on to another member.
    pub(super) fn of_full_disk(&self) -> Option<Reply<'static>> {
        let to = self.relays.to()?;
        let text = format!("MISCONF the disk of this node is full: ask node {to} at {}", self.address_of(to));
        Some(Reply::Error(text.into()))
    }

    fn address_of(&self, node: NodeId) -> &str {
        self.peers.roster().info(node).map_or("", |info| &info.address)
    }
}
