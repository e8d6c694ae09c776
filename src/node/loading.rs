//! A start: while the groups are being rebuilt elsewhere the node tells clients so, and lets other members wait.
//!
//! Nothing can be promised before the log has been read to its end. So the node has no group at all until then: there is
//! nothing that could answer.

use super::{Node, Time};
use crate::kv::reply::Reply;
use crate::recovery::{Blank, Rebuilt};
use crate::shard::Shard;

/// Who waits until the groups are back.
#[derive(Default)]
pub(super) struct Loading {
    /// Connections of other members, whose hello is not read before.
    members: Vec<u64>,
}

impl Node {
    /// Gives the groups away, to be made what they were; [`Node::rebuilt`] brings them back.
    pub fn blank(&mut self) -> Blank {
        let cluster = self.checkpoint_header();
        let value_version = self.config.versions.value_version();
        self.loading = Some(Loading::default());
        Blank { shard: std::mem::replace(&mut self.shard, Shard::new(std::iter::empty())), cluster, value_version }
    }

    /// The groups are back, the log is durable up to `lsn`, and time limits run from here.
    pub fn rebuilt(&mut self, rebuilt: Rebuilt, lsn: u64, time: Time) {
        let Rebuilt { shard, catalog, kept, peers, .. } = rebuilt;
        self.shard = shard;
        self.set_catalog(&catalog);
        for (group, instance, sequence) in kept {
            self.checkpoints.set_kept(group, instance, sequence);
        }
        for record in peers {
            self.io.restore_peer(record.ballot.node, record.instance.0, &record.payload);
        }
        let waiting = self.loading.take().unwrap_or_default();
        self.begin(lsn, time);
        self.io.outputs.resumes.extend(waiting.members);
    }

    /// Whether the groups are being rebuilt.
    #[must_use]
    pub fn is_loading(&self) -> bool {
        self.loading.is_some()
    }

    /// A member's first bytes wait, if the groups are not there yet. Whether that is so.
    pub(super) fn wait_for_groups(&mut self, connection: u64) -> bool {
        let Some(loading) = &mut self.loading else { return false };
        if !loading.members.contains(&connection) {
            loading.members.push(connection);
            self.io.outputs.pauses.push(connection);
        }
        true
    }

    /// The reply to commands that need the groups, while these are not there.
    pub(super) fn loading_refusal(&self) -> Option<Reply<'static>> {
        if !self.is_loading() {
            return None;
        }
        let (done, all) = self.facts.loading_bytes;
        let percent = done * 100 / all.max(1);
        Some(Reply::Error(format!("LOADING Paxoi is loading the dataset in memory: {percent} % done").into()))
    }
}
