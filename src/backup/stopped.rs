//! Backups of directories whose nodes do not run. The states are recovered from the newest checkpoints and the log
//! behind them, by the same code as at a node's start, but nothing is written to the directories. This is also the last
//! resort when a quorum is lost.
//!
//! A node's last vote in a group is included even if the node does not know whether the value was chosen: the value may
//! have been acknowledged. Of several directories, the newest state of each group counts. With the directories of a
//! majority, this is what a new leader would learn in its phase 1 and then propose, so nothing that was acknowledged is
//! missing.

use super::Source;
use super::set::Draft;
use crate::config::{CHECKPOINT_BLOCK_BYTES, CheckpointConfig, NodeConfig, ReadMode};
use crate::identity::{BirthRecord, Identity};
use crate::node::{Node, Time};
use crate::recovery::{self, RebuildResult, RecoveryProgress};
use crate::shard::Shard;
use crate::storage::checkpoint::{CheckpointSequence, CheckpointWriter, Packing};
use crate::storage::disk::Disk;
use crate::storage::wal::{self, Lsn};
use crate::versions::Versions;
use crate::workers::Workers;
use anyhow::{Context, bail, ensure};
use groups::{Ballot, Effect, GroupId, Instance, Ms, Record, Us};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Rank of a state; of two states the greater one is kept. Of two values of one instance, a value known to be chosen
/// outranks one that was only voted for. Of two votes, the one with the higher ballot ranks higher, as in a new
/// leader's phase 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) instance: Instance,
    pub(super) confirmed: bool,
    pub(super) ballot: Ballot,
}

/// Backs up the newest state of each group in these directories, whose locks are held.
pub(super) fn backup(sources: &[Source], out: &Path) -> anyhow::Result<()> {
    let draft = Draft::create(out)?;
    let mut kept: BTreeMap<GroupId, Rank> = BTreeMap::new();
    for (source, sequence) in sources.iter().zip(1..) {
        let mut shard = recover(&source.disk, &source.identity, now(), recovery::workers())
            .with_context(|| format!("cannot back up {}", source.place))?;
        let mut writer = CheckpointWriter::create(
            draft.disk.clone(),
            source.birth.checkpoint_header(CheckpointSequence(sequence)),
            Packing::Lz4,
        )?;
        for group in (0..source.birth.groups).map(GroupId) {
            let confirmed = !take_vote(&mut shard, group)?;
            let state = shard.group(group).snapshot();
            let rank = Rank { instance: state.instance, confirmed, ballot: state.chosen };
            if kept.get(&group).is_some_and(|kept| *kept >= rank) {
                continue;
            }
            kept.insert(group, rank);
            write(&mut shard, group, &mut writer)?;
        }
        writer.finish()?;
    }
    draft.finish(&sources.iter().collect::<Vec<_>>(), sources.len() as u64)
}

fn write(shard: &mut Shard, group: GroupId, writer: &mut CheckpointWriter) -> anyhow::Result<()> {
    writer.begin(&shard.freeze(group, true))?;
    while let Some(block) = shard.next_block(group, CHECKPOINT_BLOCK_BYTES) {
        writer.block(&block)?;
    }
    Ok(writer.end(shard.thaw(group))?)
}

/// Recovers the groups and their stores from a directory as a start would, and changes nothing in it. `workers`
/// recovery workers do the work, as in [`EmptyShard::rebuild_all`](recovery::EmptyShard::rebuild_all).
///
/// # Errors
/// If the cluster was never born, the log is missing, or the state of a group is damaged or incomplete.
pub fn recover(disk: &dyn Disk, identity: &Identity, time: Time, workers: usize) -> anyhow::Result<Shard> {
    // Adds one to the start number, as a real start does. So the commands of the last start no longer count as this
    // node's.
    let identity = Identity { start: identity.start + 1, ..identity.clone() };
    let birth = identity.birth.as_ref().context("its cluster was never born")?;
    let (config, storage_id) = (config(disk, &identity, birth), identity.storage_id);
    let mut node = Node::new(config, identity);
    let blank = node.begin_rebuild();
    let checkpoint_set = blank.checkpoint_set(disk)?;
    let progress = RecoveryProgress::default();
    let source = recovery::RebuildInput { disk, clock: time.clock(), workers, progress: &progress };
    let rebuilt = blank
        .rebuild_all(&source, checkpoint_set, |visit| wal::replay(disk, storage_id, &mut |_, _| {}, visit))
        .context("cannot start a thread")?;
    let (recovered, RebuildResult { shard, .. }) = match rebuilt {
        Ok((read, rebuilt)) => (read?, rebuilt),
        Err(refused) => bail!("{refused}; back up another node"),
    };
    ensure!(recovered.segments > 0, "its log is missing; put it back, or back up another node");
    if let Some(group) = shard.groups().find(|group| group.is_recovering()) {
        bail!("the state of group {} is damaged or not whole there; back up another node", group.id());
    }
    Ok(shard)
}

/// Applies the group's vote at its next instance, if there is one. Returns true if there is.
fn take_vote(shard: &mut Shard, group: GroupId) -> anyhow::Result<bool> {
    let mut effects = Vec::new();
    shard.group(group).record_again(true, &mut effects);
    let vote = effects.drain(..).find_map(|effect| match effect {
        Effect::Persist(Record::Accepted { instance, ballot, chosen, value }) => {
            Some(Record::Learned { instance, ballot, chosen, value })
        }
        _ => None,
    });
    let Some(vote) = vote else { return Ok(false) };
    (shard.replica_mut(group))
        .restore(Lsn(0), vote, now().clock(), &mut effects)
        .with_context(|| format!("the last vote of group {group} does not follow its log; back up another node"))?;
    Ok(true)
}

/// Returns the configuration of a node that only rebuilds its groups and never serves. Most settings have no effect.
fn config(disk: &dyn Disk, identity: &Identity, birth: &BirthRecord) -> NodeConfig {
    NodeConfig {
        id: identity.node,
        workers: Workers::ONE,
        initial: birth.members.iter().map(|member| (member.node, member.address.clone())).collect(),
        announced: None,
        join: Vec::new(),
        groups: birth.groups,
        reads: ReadMode::Quorum,
        demand_min: None,
        client_timeout_ms: Ms(5_000),
        idle_ms_max: Ms(0),
        session_ttl_ms: birth.session_ttl_ms,
        max_clients: 1,
        memory_bytes_max: 0,
        value_bytes_max: birth.value_bytes_max as usize,
        checkpoints: CheckpointConfig::default(),
        turn_steps: crate::config::TURN_STEPS,
        versions: Versions::OURS,
        fragment_bytes: crate::config::FRAGMENT_BYTES,
        part_bytes: crate::config::UPLOAD_PART_BYTES,
        dir: disk.place(),
        config_file: String::new(),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        cluster_id: birth.cluster_id,
        hash_key: birth.hash_key,
        seed: 0,
    }
}

fn now() -> Time {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Monotonic time starts at 1 s, so that "never" (0) is long ago.
    Time { mono_us: Us(1_000_000), unix_us: Us(since_1970.as_micros() as u64) }
}
