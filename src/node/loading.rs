//! A start: while the groups are being rebuilt elsewhere the node tells clients so, and lets other members wait.
//!
//! Nothing can be promised before the log has been read to its end. So the node has no group at all until then: there is
//! nothing that could answer.

use super::{Node, Time};
use crate::kv::reply::Reply;
use crate::recovery::{Blank, Rebuilt};
use crate::shard::Shard;

impl Node {
    /// Gives the groups away, to be made what they were; [`Node::rebuilt`] brings them back.
    pub fn blank(&mut self) -> Blank {
        let cluster = self.checkpoint_header();
        let value_version = self.config.versions.value_version();
        self.is_loading = true;
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
        self.is_loading = false;
        self.begin(lsn, time);
        // Their hellos are read now.
        let waiting = self.links();
        self.io.outputs.resumes.extend(waiting);
    }

    /// Whether the groups are being rebuilt.
    #[must_use]
    pub fn is_loading(&self) -> bool {
        self.is_loading
    }

    /// Time limits while the groups are not there: a member that waits gives up after a while, and comes again.
    pub(super) fn tick_loading(&mut self, time: Time) {
        self.cut_late(time);
        self.admit_silent(time);
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
