//! Checkpoints on the node's side. This module decides when checkpoints are made and of which groups, and takes the
//! states out one block at a time. Once checkpoints are durable, it decides which part of the log can go. The files
//! themselves are written elsewhere ([`CheckpointTask`], [`CheckpointResult`]).
//!
//! A round takes every group that has changed since its last checkpoint, one after the other, so that no group pins old
//! segments. Small groups share a file. Then the positions, promises and votes in old segments are logged again. When
//! these records are durable, the segments are dropped (docs/protocol.md, Formats).

use super::rate::TokenBucket;
use super::{LogSize, UpkeepContext};
use crate::config::{
    CHECKPOINT_BLOCK_BYTES, CHECKPOINT_BLOCK_COST_BYTES, CHECKPOINT_BYTES_PER_MS, CHECKPOINT_FILE_BYTES,
    CHECKPOINT_PAUSE_MS, CHECKPOINT_RETRY_MS, CHECKPOINT_SAVED_BYTES, CHECKPOINT_UNWRITTEN_BYTES,
    CHECKPOINT_URGENCY_MAX, CheckpointConfig,
};
use crate::node::crew::Told;
use crate::node::engine::Engine;
use crate::node::wire::FileId;
use crate::node::{Output, Time};
use crate::plural::plural;
use crate::storage::checkpoint::{Catalog, CheckpointResult, CheckpointSequence, CheckpointTask, SectionSummary};
use crate::storage::scrub::Findings;
use crate::storage::wal::{Lsn, SegmentSequence};
use crate::workers::{WorkerId, Workers};
use groups::{GroupId, Instance, Ms, Us};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The checkpoint files of this node, and the round in progress.
pub(super) struct Checkpoints {
    config: CheckpointConfig,
    workers: Workers,
    /// By group: the newest state that is in a file.
    kept: Vec<Kept>,
    files: BTreeMap<CheckpointSequence, File>,
    /// The files with groups of several workers, which a node with another number of workers has made, and how many
    /// workers need each.
    shared: BTreeMap<CheckpointSequence, usize>,
    /// Files that were found damaged while in use. Their groups are written again, even if they have not changed.
    spoilt: BTreeSet<CheckpointSequence>,
    /// The files that a start has found, with groups of other workers alone.
    foreign: BTreeSet<CheckpointSequence>,
    /// A round has ended: old segments may be dropped.
    may_trim: bool,
    /// Files that could not be read. They are removed when a new file is durable.
    damaged: Vec<CheckpointSequence>,
    last_sequence: CheckpointSequence,
    round: Option<Round>,
    /// Files that are finished here, but not yet saved by the checkpoint worker.
    saving: BTreeSet<CheckpointSequence>,
    /// Bytes of blocks that are not written yet.
    unwritten: usize,
    /// Token bucket of the bytes that may be taken out.
    bucket: TokenBucket,
    /// Groups that need a round, whatever the length and the age of the log.
    wanted: BTreeSet<GroupId>,
    /// The wanted groups that the current round covers. If a part of the round fails, they are wanted again.
    covered: BTreeSet<GroupId>,
    /// The groups that have been recovering since the start: they learn their own past from other members.
    recovering: BTreeSet<GroupId>,
    /// Earliest time of the next round, in monotonic milliseconds.
    due_ms: Ms,
    began_ms: Ms,
    /// Old segments that are dropped once the log is durable up to an lsn.
    trimming: Option<Trimming>,
    last_failure: String,
    facts: CheckpointFacts,
}

/// Statistics of checkpoints and scrubs, for operators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::node) struct CheckpointFacts {
    /// Rounds that were completed, and files that failed.
    pub(in crate::node) rounds: u64,
    pub(in crate::node) failures: u64,
    /// The time at which the last round ended, in unix milliseconds, and its duration.
    pub(in crate::node) ended_unix_ms: Ms,
    pub(in crate::node) took_ms: Ms,
    /// Scrubs of the disk, and the damaged files that they found.
    pub(in crate::node) scrubs: u64,
    pub(in crate::node) scrub_damaged: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    instance: Instance,
    sequence: CheckpointSequence,
}

/// A file that is durable and was read back.
#[derive(Clone, Debug)]
struct File {
    bytes: u64,
    stamp: u32,
    groups: Vec<(GroupId, Instance)>,
}

/// A round in progress: the groups whose states are still to be taken out.
#[derive(Debug, Default)]
struct Round {
    queue: VecDeque<GroupId>,
    /// The group whose state is frozen while it is taken out.
    frozen: Option<GroupId>,
    file: Option<CheckpointSequence>,
    file_bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Trimming {
    below: SegmentSequence,
    lsn: Lsn,
}

impl Checkpoints {
    pub(super) fn new(config: CheckpointConfig, workers: Workers) -> Checkpoints {
        Checkpoints {
            config,
            workers,
            kept: Vec::new(),
            files: BTreeMap::new(),
            shared: BTreeMap::new(),
            spoilt: BTreeSet::new(),
            foreign: BTreeSet::new(),
            may_trim: false,
            damaged: Vec::new(),
            last_sequence: CheckpointSequence(0),
            round: None,
            saving: BTreeSet::new(),
            unwritten: 0,
            bucket: TokenBucket::default(),
            wanted: BTreeSet::new(),
            covered: BTreeSet::new(),
            recovering: BTreeSet::new(),
            due_ms: Ms(0),
            began_ms: Ms(0),
            trimming: None,
            last_failure: String::new(),
            facts: CheckpointFacts::default(),
        }
    }

    pub(super) fn set_groups(&mut self, groups: u32) {
        self.kept = vec![Kept::default(); groups as usize];
    }

    /// Returns the bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.bytes).sum()
    }

    /// Returns the number of files.
    pub(super) fn count(&self) -> usize {
        self.files.len()
    }

    /// Returns the maximum bytes of the log. A round begins when the log is longer.
    pub(super) fn log_bytes_max(&self) -> u64 {
        // The log is that of all workers, but the files are those of one.
        let factor = u64::from(self.config.log_factor) * u64::from(self.workers.count());
        self.config.log_bytes_min.max(self.bytes().saturating_mul(factor))
    }

    pub(super) fn is_going_on(&self) -> bool {
        self.round.is_some() || !self.saving.is_empty()
    }

    /// Returns true if no round is in progress and no group waits for one.
    pub(super) fn is_idle(&self) -> bool {
        !self.is_going_on() && self.wanted.is_empty()
    }

    fn add_file(&mut self, sequence: CheckpointSequence, bytes: u64, sections: &[SectionSummary]) {
        self.last_sequence = self.last_sequence.max(sequence);
        let own = sections.iter().filter(|section| self.workers.owns(section.group));
        let groups: Vec<(GroupId, Instance)> = own.map(|section| (section.group, section.instance)).collect();
        let mut stamp = crc32c::crc32c(&bytes.to_le_bytes());
        for section in sections {
            stamp = crc32c::crc32c_append(stamp, &section.end.digest.to_le_bytes());
            stamp = crc32c::crc32c_append(stamp, &section.instance.0.to_le_bytes());
        }
        self.files.insert(sequence, File { bytes, stamp, groups });
    }

    /// Takes the sequence number of the next file. Each worker has numbers of its own.
    pub(super) fn next_sequence(&mut self) -> CheckpointSequence {
        let (me, count) = (u64::from(self.workers.me().0), u64::from(self.workers.count()));
        let least = self.last_sequence.following().0;
        self.last_sequence = CheckpointSequence(least + (me + count - least % count) % count);
        self.last_sequence
    }

    /// Returns the id by which other nodes name a file.
    pub(super) fn file(&self, sequence: CheckpointSequence) -> Option<FileId> {
        self.files.get(&sequence).map(|file| FileId { sequence, bytes: file.bytes, stamp: file.stamp })
    }

    /// Returns the file with the newest state of a group, and the instance of that state.
    pub(super) fn newest(&self, group: GroupId) -> Option<(Instance, FileId)> {
        let Kept { instance, sequence } = self.kept[group.index()];
        Some((instance, self.file(sequence)?))
    }

    pub(super) fn set_kept(&mut self, group: GroupId, instance: Instance, sequence: CheckpointSequence) {
        let kept = &mut self.kept[group.index()];
        if instance >= kept.instance {
            *kept = Kept { instance, sequence };
        }
    }

    /// Removes useless files and returns them: the files that could not be read, and each file that is not pinned and
    /// holds no group's newest state.
    fn take_useless(&mut self, is_pinned: impl Fn(CheckpointSequence) -> bool) -> Vec<CheckpointSequence> {
        let kept = &self.kept;
        let used = |(sequence, file): &(&CheckpointSequence, &File)| {
            is_pinned(**sequence) || file.groups.iter().any(|(group, _)| kept[group.index()].sequence == **sequence)
        };
        let mut useless: Vec<CheckpointSequence> =
            self.files.iter().filter(|file| !used(file)).map(|(sequence, _)| *sequence).collect();
        useless.append(&mut self.damaged);
        useless.sort_unstable();
        useless.dedup();
        useless.iter().for_each(|sequence| {
            self.files.remove(sequence);
            self.spoilt.remove(sequence);
        });
        useless
    }

    /// Adds tokens for the time that has passed, at the base rate times a factor: the length of the log divided by its
    /// maximum, rounded down, at least 1 and at most [`CHECKPOINT_URGENCY_MAX`]. The bytes that one turn may take do
    /// not grow.
    fn earn(&mut self, log_bytes: u64, now_us: Us) {
        let urgency = (log_bytes / self.log_bytes_max().max(1)).clamp(1, CHECKPOINT_URGENCY_MAX) as usize;
        let bytes_per_ms = CHECKPOINT_BYTES_PER_MS * urgency / self.workers.count() as usize;
        self.bucket.earn(bytes_per_ms, CHECKPOINT_SAVED_BYTES, now_us);
    }

    fn may_take(&self) -> bool {
        self.bucket.is_open() && self.unwritten < CHECKPOINT_UNWRITTEN_BYTES / self.workers.count() as usize
    }
}

impl Checkpoints {
    /// Recovery: adds the files that were found.
    pub(super) fn add_files(&mut self, catalog: &Catalog) {
        for (sequence, bytes, sections) in &catalog.files {
            let owners: BTreeSet<WorkerId> = sections.iter().map(|section| self.workers.owner(section.group)).collect();
            if owners.len() > 1 {
                self.shared.insert(*sequence, owners.len());
            }
            if owners.contains(&self.workers.me()) || (owners.is_empty() && self.workers.is_first()) {
                self.add_file(*sequence, *bytes, sections);
            } else {
                self.last_sequence = self.last_sequence.max(*sequence);
                self.foreign.insert(*sequence);
            }
        }
    }

    /// Recovery: notes the files of which all or a part could not be read.
    pub(super) fn note_damaged(&mut self, damaged: &[CheckpointSequence]) {
        for sequence in damaged.iter().copied() {
            self.last_sequence = self.last_sequence.max(sequence);
            match self.files.get(&sequence) {
                // Only a part of this file is damaged. The rest may be the only state of other groups, so the file is
                // removed only when a newer file has their states.
                Some(file) => {
                    self.wanted.extend(file.groups.iter().map(|(group, _)| *group));
                    self.spoilt.insert(sequence);
                }
                None if self.workers.is_first() && !self.foreign.contains(&sequence) => self.damaged.push(sequence),
                None => {}
            }
        }
    }

    /// Returns true if blocks wait to be taken out, a few in each turn.
    pub(super) fn is_taking(&self) -> bool {
        self.round.is_some()
    }

    /// Recovery: these groups are rebuilt. Notes those that are recovering.
    pub(super) fn note_recovering(&mut self, engine: &Engine, groups: &[GroupId]) {
        for group in groups.iter().filter(|group| engine.group(**group).is_recovering()) {
            self.recovering.insert(*group);
            tracing::error!(
                "the state of group {group} is incomplete on this node: the node takes no part in the group until it \
                 has learned the state from other nodes"
            );
        }
    }

    /// Requests a round with these groups, whatever the length and the age of the log.
    pub(super) fn request(&mut self, groups: impl Iterator<Item = GroupId>) {
        self.wanted.extend(groups);
    }

    /// Begins a round if the log is too long, if the last round is too long ago, or if groups are wanted. The node
    /// began at `since_ms`.
    pub(super) fn tick(&mut self, engine: &Engine, log: LogSize, since_ms: Ms, time: Time) {
        let whole: Vec<GroupId> =
            self.recovering.iter().copied().filter(|id| !engine.group(*id).is_recovering()).collect();
        for group in whole {
            tracing::info!("the state of group {group} is complete again");
            self.recovering.remove(&group);
            // Without a checkpoint the group would be recovering again at the next start.
            self.wanted.insert(group);
        }
        let now_ms = time.mono_ms();
        if self.is_going_on() || self.trimming.is_some() || now_ms < self.due_ms {
            return;
        }
        let long = log.bytes > self.log_bytes_max() && log.segments > 1;
        let old = now_ms >= self.began_ms.max(since_ms) + self.config.age_ms;
        if long || old && log.segments > 1 {
            self.covered = std::mem::take(&mut self.wanted);
            return self.begin_round(engine, time, |_| true);
        }
        if !self.wanted.is_empty() {
            let wanted = std::mem::take(&mut self.wanted);
            self.covered.clone_from(&wanted);
            self.begin_round(engine, time, |group| wanted.contains(&group));
        }
    }

    /// Begins a round with the groups that `selects` accepts and that have changed, or whose file is damaged. Groups
    /// that share a file with one of them are taken too: otherwise the file would be kept for them.
    fn begin_round(&mut self, engine: &Engine, time: Time, selects: impl Fn(GroupId) -> bool) {
        let (kept, spoilt) = (&self.kept, &self.spoilt);
        let is_due = |group: &groups::Group| {
            let Kept { instance, sequence } = kept[group.id().index()];
            selects(group.id()) && (group.next().preceding() > instance || spoilt.contains(&sequence))
        };
        let mut queue: BTreeSet<GroupId> =
            engine.groups().filter(|group| is_due(group)).map(groups::Group::id).collect();
        for (sequence, file) in &self.files {
            let groups = || file.groups.iter().map(|(group, _)| *group);
            if groups().any(|group| queue.contains(&group)) {
                queue.extend(groups().filter(|group| kept[group.index()].sequence == *sequence));
            }
        }
        self.began_ms = time.mono_ms();
        let queue: VecDeque<GroupId> = queue.into_iter().collect();
        self.round = Some(Round { queue, ..Round::default() });
    }

    /// Asks which segments can be dropped. This is called at the very end of a turn, because no value may be chosen
    /// between the query and its answer. Otherwise a chosen value could be taken for a vote.
    pub(super) fn ask_to_trim(&mut self, is_pinned: impl Fn(CheckpointSequence) -> bool, cx: &mut UpkeepContext<'_>) {
        // The position of a group is certain only when all its chosen values are applied.
        if !cx.engine.shard().is_busy() && std::mem::take(&mut self.may_trim) {
            let floors = self.floors(cx.engine, is_pinned);
            cx.ports.outputs.push(Output::QueryDroppable(floors));
        }
    }

    /// Takes some blocks out. It is called in each turn.
    pub(super) fn step(&mut self, cx: &mut UpkeepContext<'_>) {
        if self.round.is_none() {
            return;
        }
        self.earn(cx.log.bytes, cx.time.mono_us);
        while self.may_take() && self.take_block(cx) {}
    }

    /// Takes the next block out, or goes on to the next group. Returns false if nothing more can be taken now.
    fn take_block(&mut self, cx: &mut UpkeepContext<'_>) -> bool {
        let Some(round) = &mut self.round else { return false };
        let Some(group) = round.frozen else { return self.take_group(cx) };
        if let Some(block) = cx.engine.next_block(group, CHECKPOINT_BLOCK_BYTES) {
            round.file_bytes += block.len() as u64;
            self.unwritten += block.len();
            let (least, most) = CHECKPOINT_BLOCK_COST_BYTES;
            self.bucket.spend(block.len().clamp(least, most));
            cx.give(CheckpointTask::Block(block));
            return true;
        }
        let digest = cx.engine.thaw(group);
        cx.give(CheckpointTask::End(digest));
        round.frozen = None;
        if round.file_bytes >= CHECKPOINT_FILE_BYTES {
            self.finish_file(cx);
        }
        true
    }

    /// Freezes the next group and begins its section. Returns false if that is not possible now. If no group is left,
    /// finishes the last file.
    fn take_group(&mut self, cx: &mut UpkeepContext<'_>) -> bool {
        let Some(round) = self.round.as_mut().filter(|_| cx.cluster.is_some()) else { return false };
        if round.queue.front().is_some_and(|group| cx.engine.shard().is_applying(*group)) {
            return false; // its state is between two instances
        }
        let Some(group) = round.queue.pop_front() else {
            self.finish_file(cx);
            self.round = None;
            self.end_round_if_saved(cx);
            return false;
        };
        round.frozen = Some(group);
        if round.file.is_none() {
            self.begin_file(cx);
        }
        let divides = cx.divides();
        let head = cx.engine.freeze(group, divides);
        cx.give(CheckpointTask::Section(head));
        true
    }

    fn begin_file(&mut self, cx: &mut UpkeepContext<'_>) {
        let sequence = self.next_sequence();
        let (Some(round), Some(record)) = (&mut self.round, cx.cluster) else { return };
        (round.file, round.file_bytes) = (Some(sequence), 0);
        cx.give(CheckpointTask::Begin(record.checkpoint_header(sequence)));
    }

    fn finish_file(&mut self, cx: &mut UpkeepContext<'_>) {
        let Some(round) = &mut self.round else { return };
        if let Some(sequence) = round.file.take() {
            self.saving.insert(sequence);
            cx.give(CheckpointTask::Finish);
        }
    }

    /// Handles the result of [`Output::Checkpoint`]. `is_pinned` returns true for a file that is kept for another node.
    pub(super) fn on_result(
        &mut self,
        result: CheckpointResult,
        is_pinned: impl Fn(CheckpointSequence) -> bool,
        cx: &mut UpkeepContext<'_>,
    ) {
        match result {
            CheckpointResult::Written(bytes) => self.unwritten -= bytes.min(self.unwritten),
            CheckpointResult::Saved { sequence, bytes, sections } => {
                self.saving.remove(&sequence);
                self.add(sequence, bytes, &sections, is_pinned, cx);
                self.end_round_if_saved(cx);
            }
            CheckpointResult::Failed { sequence, reason } => {
                tracing::error!("{reason}; the next attempt is in {} s", CHECKPOINT_RETRY_MS.0 / 1_000);
                self.facts.failures += 1;
                // INFO shows the reason in one line.
                self.last_failure = reason.replace(['\r', '\n'], " ");
                self.due_ms = cx.time.mono_ms() + CHECKPOINT_RETRY_MS;
                self.give_up_round(sequence, cx);
            }
        }
    }

    /// Adds a durable file. Older files in which no group has its newest state are removed, unless they are pinned.
    pub(super) fn add(
        &mut self,
        sequence: CheckpointSequence,
        bytes: u64,
        sections: &[SectionSummary],
        is_pinned: impl Fn(CheckpointSequence) -> bool,
        cx: &mut UpkeepContext<'_>,
    ) {
        self.add_file(sequence, bytes, sections);
        for section in sections {
            // A received file may hold a group whose state was not installed, or one of another worker.
            if cx.engine.find(section.group).is_some_and(|group| section.instance < group.next()) {
                self.set_kept(section.group, section.instance, sequence);
            }
        }
        for useless in self.take_useless(is_pinned) {
            match self.workers {
                workers if !self.shared.contains_key(&useless) || workers.is_first() => {
                    self.on_released(useless, cx);
                }
                _ => cx.ports.crew.tell(WorkerId::FIRST, Told::Released(useless)),
            }
        }
    }

    /// Notes that a worker needs a file no longer. The file is removed when no worker needs it.
    pub(super) fn on_released(&mut self, sequence: CheckpointSequence, cx: &mut UpkeepContext<'_>) {
        if let Some(needed) = self.shared.get_mut(&sequence) {
            *needed -= 1;
            if *needed > 0 {
                return;
            }
            self.shared.remove(&sequence);
        }
        cx.give(CheckpointTask::Remove(sequence));
    }

    /// Stops taking states out, which is not a failure. The rest of the round waits for the next round.
    pub(super) fn give_up_taking(&mut self, cx: &mut UpkeepContext<'_>) {
        if let Some(sequence) = self.round.as_ref().and_then(|round| round.file) {
            self.give_up_round(sequence, cx);
        }
    }

    fn give_up_round(&mut self, sequence: CheckpointSequence, cx: &mut UpkeepContext<'_>) {
        self.saving.remove(&sequence);
        self.wanted.append(&mut self.covered);
        if let Some(round) = self.round.take_if(|round| round.file == Some(sequence)) {
            if let Some(group) = round.frozen {
                cx.engine.thaw(group);
            }
            cx.give(CheckpointTask::Abandon);
        }
    }

    /// Ends the round if all its files are durable. Then old segments may be dropped, unless a group is recovering.
    fn end_round_if_saved(&mut self, cx: &UpkeepContext<'_>) {
        if self.is_going_on() {
            return;
        }
        self.covered.clear();
        let now_ms = cx.time.mono_ms();
        self.due_ms = self.due_ms.max(now_ms + CHECKPOINT_PAUSE_MS);
        let took_ms = now_ms - self.began_ms;
        let facts = &mut self.facts;
        (facts.ended_unix_ms, facts.took_ms, facts.rounds) = (cx.time.unix_ms(), took_ms, facts.rounds + 1);
        let (files, bytes) = (self.count() as u64, self.bytes());
        tracing::info!("made checkpoints in {took_ms} ms: now {files} file{}, {bytes} bytes", plural(files));
        if !cx.engine.groups().any(groups::Group::is_recovering) {
            self.may_trim = true;
        }
    }

    /// Returns, by group, the last instance whose value the log no longer needs: the instance of the group's
    /// checkpoint. If only a vote for the next instance is newer than the checkpoint, the next instance is returned,
    /// because the vote is logged again. The log behind a checkpoint that another node is fetching is kept, too.
    fn floors(&self, engine: &Engine, is_pinned: impl Fn(CheckpointSequence) -> bool) -> Vec<Instance> {
        // The log behind the groups of other workers is for those workers to judge.
        let mut floors = vec![Instance(u64::MAX); self.kept.len()];
        for group in engine.groups() {
            let kept = self.kept[group.id().index()];
            let only_a_vote = group.next() == kept.instance.following() && group.has_vote();
            floors[group.id().index()] = if only_a_vote { group.next() } else { kept.instance };
        }
        let pinned = self.files.iter().filter(|(sequence, _)| is_pinned(**sequence));
        for (group, instance) in pinned.flat_map(|(_, file)| &file.groups) {
            floors[group.index()] = floors[group.index()].min(*instance);
        }
        floors
    }

    /// Handles the findings of a scrub of the disk. Returns true if a file is damaged: its content is then written
    /// again from memory.
    pub(super) fn scrubbed(&mut self, findings: &Findings) -> bool {
        self.facts.scrubs += 1;
        self.facts.scrub_damaged += (findings.checkpoints.len() + findings.segments.len()) as u64;
        let files = &self.files;
        let spoilt: Vec<CheckpointSequence> =
            findings.checkpoints.iter().copied().filter(|file| files.contains_key(file)).collect();
        if spoilt.is_empty() && findings.segments.is_empty() {
            return false;
        }
        tracing::error!("the scrub found damaged files: making new checkpoints to replace them");
        self.spoilt.extend(spoilt);
        true
    }

    /// Notes that the segments below `below` are dropped once the log is durable up to `lsn`.
    pub(super) fn set_trimming(&mut self, below: SegmentSequence, lsn: Lsn) {
        self.trimming = Some(Trimming { below, lsn });
    }

    /// Notes that the log is durable up to `lsn`. Returns the sequence number below which the segments can be dropped.
    pub(super) fn take_trimmed(&mut self, lsn: Lsn) -> Option<SegmentSequence> {
        self.trimming.take_if(|trimming| trimming.lsn <= lsn).map(|trimming| trimming.below)
    }

    /// Returns the statistics for operators.
    pub(super) fn facts(&self) -> CheckpointFacts {
        self.facts
    }

    /// Returns the reason of the last failure of a file, in one line. It is empty if no file has failed.
    pub(super) fn last_failure(&self) -> &str {
        &self.last_failure
    }
}

#[cfg(test)]
mod tests;
