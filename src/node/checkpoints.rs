//! Checkpoints, from the node's side: when they are made, of which groups, a block at a time; and, once they are durable,
//! what of the log can go. The files themselves are written elsewhere ([`Job`], [`Done`]).
//!
//! A round takes every group that went on since its last checkpoint, one after the other, so that none pins old segments;
//! small groups share a file. Then the positions, promises and votes that stand in old segments are logged again, and
//! when that is durable the segments are dropped (docs/protocol.md, Formats).

use super::pace::Pace;
use super::wire::FileId;
use super::{Node, Output, Time};
use crate::config::{
    CHECKPOINT_BLOCK_BYTES, CHECKPOINT_BLOCK_COST_BYTES, CHECKPOINT_BYTES_PER_MS, CHECKPOINT_FILE_BYTES,
    CHECKPOINT_PAUSE_MS, CHECKPOINT_RETRY_MS, CHECKPOINT_SAVED_BYTES, CHECKPOINT_UNWRITTEN_BYTES,
    CHECKPOINT_URGENCY_MAX, CheckpointConfig,
};
use crate::plural::plural;
use crate::storage::checkpoint::{Catalog, Done, Header, Job, SectionSummary};
use crate::storage::scrub::Findings;
use crate::storage::wal::{self, Droppable};
use bytes::Bytes;
use groups::{Ballot, GroupId, Instance};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What there is, and what is going on.
pub(super) struct Checkpoints {
    config: CheckpointConfig,
    /// By group: the newest state that is in a file.
    kept: Vec<Kept>,
    files: BTreeMap<u64, File>,
    /// Files that were found damaged while they were in use: their groups are written anew, whether they went on or not.
    spoilt: BTreeSet<u64>,
    /// A round is over: old segments may go.
    may_trim: bool,
    /// Files that could not be read, to be removed when there are others.
    damaged: Vec<u64>,
    last_sequence: u64,
    round: Option<Round>,
    /// Files that were finished here, but are not saved yet.
    saving: BTreeSet<u64>,
    /// Bytes of blocks that are not written yet.
    unwritten: usize,
    /// How much may be taken out now.
    pace: Pace,
    /// Groups to be taken in any case.
    wanted: BTreeSet<GroupId>,
    /// Those of them that the round is about: if anything of it fails, they are wanted again.
    asked: BTreeSet<GroupId>,
    /// Groups that had to learn their own past at the start.
    hollow: BTreeSet<GroupId>,
    /// No round begins before this.
    due_ms: u64,
    began_ms: u64,
    /// Old segments go when the log is durable up to here.
    trimming: Option<Trimming>,
    /// Why the last file that failed did, in one line; empty if none has.
    pub(super) last_failure: String,
    pub(super) facts: CheckpointFacts,
}

/// What operators are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CheckpointFacts {
    /// Rounds that ended well, and files that failed.
    pub(super) rounds: u64,
    pub(super) failures: u64,
    /// When the last round ended, in unix milliseconds, and how long it took.
    pub(super) ended_unix_ms: u64,
    pub(super) took_ms: u64,
    /// Scrubs of the disk, and the damaged files that they found.
    pub(super) scrubs: u64,
    pub(super) scrub_damaged: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    instance: Instance,
    sequence: u64,
}

/// A file that is durable and was read back.
#[derive(Clone, Debug)]
struct File {
    bytes: u64,
    stamp: u32,
    groups: Vec<(GroupId, Instance)>,
}

/// Taking states out.
#[derive(Debug, Default)]
struct Round {
    queue: VecDeque<GroupId>,
    /// The group whose state is held.
    frozen: Option<GroupId>,
    file: Option<u64>,
    file_bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Trimming {
    below: u64,
    lsn: u64,
}

impl Checkpoints {
    pub(super) fn new(config: CheckpointConfig) -> Checkpoints {
        Checkpoints {
            config,
            kept: Vec::new(),
            files: BTreeMap::new(),
            spoilt: BTreeSet::new(),
            may_trim: false,
            damaged: Vec::new(),
            last_sequence: 0,
            round: None,
            saving: BTreeSet::new(),
            unwritten: 0,
            pace: Pace::default(),
            wanted: BTreeSet::new(),
            asked: BTreeSet::new(),
            hollow: BTreeSet::new(),
            due_ms: 0,
            began_ms: 0,
            trimming: None,
            last_failure: String::new(),
            facts: CheckpointFacts::default(),
        }
    }

    pub(super) fn set_groups(&mut self, groups: u32) {
        self.kept = vec![Kept::default(); groups as usize];
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.bytes).sum()
    }

    /// How many files there are.
    pub(super) fn count(&self) -> usize {
        self.files.len()
    }

    /// The log is to be cut above this many bytes.
    pub(super) fn log_bytes_max(&self) -> u64 {
        self.config.log_bytes_min.max(self.bytes().saturating_mul(u64::from(self.config.log_factor)))
    }

    pub(super) fn is_going_on(&self) -> bool {
        self.round.is_some() || !self.saving.is_empty()
    }

    /// Nobody waits for one: what was asked for is made.
    pub(super) fn is_idle(&self) -> bool {
        !self.is_going_on() && self.wanted.is_empty()
    }

    fn add_file(&mut self, sequence: u64, bytes: u64, sections: &[SectionSummary]) {
        self.last_sequence = self.last_sequence.max(sequence);
        let groups: Vec<(GroupId, Instance)> =
            sections.iter().map(|section| (section.group, section.instance)).collect();
        let mut stamp = crc32c::crc32c(&bytes.to_le_bytes());
        for section in sections {
            stamp = crc32c::crc32c_append(stamp, &section.end.digest.to_le_bytes());
            stamp = crc32c::crc32c_append(stamp, &section.instance.0.to_le_bytes());
        }
        self.files.insert(sequence, File { bytes, stamp, groups });
    }

    /// The number of the next file.
    pub(super) fn next_sequence(&mut self) -> u64 {
        self.last_sequence += 1;
        self.last_sequence
    }

    /// A file, as other nodes name it.
    pub(super) fn file(&self, sequence: u64) -> Option<FileId> {
        self.files.get(&sequence).map(|file| FileId { sequence, bytes: file.bytes, stamp: file.stamp })
    }

    /// The newest state of a group that is in a file.
    pub(super) fn newest(&self, group: GroupId) -> Option<(Instance, FileId)> {
        let Kept { instance, sequence } = self.kept[group.index()];
        Some((instance, self.file(sequence)?))
    }

    pub(super) fn set_kept(&mut self, group: GroupId, instance: Instance, sequence: u64) {
        let kept = &mut self.kept[group.index()];
        if instance >= kept.instance {
            *kept = Kept { instance, sequence };
        }
    }

    /// Files in which no group has its newest state, and that no other node is fetching.
    fn take_useless(&mut self, is_pinned: impl Fn(u64) -> bool) -> Vec<u64> {
        let kept = &self.kept;
        let used = |(sequence, file): &(&u64, &File)| {
            is_pinned(**sequence) || file.groups.iter().any(|(group, _)| kept[group.index()].sequence == **sequence)
        };
        let mut useless: Vec<u64> =
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

    /// What may be taken out grows with the time, faster while the log is much too long. What a turn takes does not.
    fn earn(&mut self, log_bytes: u64, now_us: u64) {
        let urgency = (log_bytes / self.log_bytes_max().max(1)).clamp(1, CHECKPOINT_URGENCY_MAX) as usize;
        self.pace.earn(CHECKPOINT_BYTES_PER_MS * urgency, CHECKPOINT_SAVED_BYTES, now_us);
    }

    fn may_take(&self) -> bool {
        self.pace.is_open() && self.unwritten < CHECKPOINT_UNWRITTEN_BYTES
    }
}

impl Node {
    /// Recovery: the files that there are.
    pub(super) fn add_files(&mut self, catalog: &Catalog) {
        for (sequence, bytes, sections) in &catalog.files {
            self.checkpoints.add_file(*sequence, *bytes, sections);
        }
    }

    /// Recovery: files that could not be read, or not all of them.
    pub(super) fn note_damaged(&mut self, damaged: &[u64]) {
        for sequence in damaged.iter().copied() {
            self.checkpoints.last_sequence = self.checkpoints.last_sequence.max(sequence);
            match self.checkpoints.files.get(&sequence) {
                // Other groups have their only state there: it goes when they have another one.
                Some(file) => {
                    self.checkpoints.wanted.extend(file.groups.iter().map(|(group, _)| *group));
                    self.checkpoints.spoilt.insert(sequence);
                }
                None => self.checkpoints.damaged.push(sequence),
            }
        }
    }

    /// What a checkpoint of this cluster begins with, and the limits of its stores; `None` before its birth.
    pub(super) fn checkpoint_header(&self) -> Option<(Header, crate::kv::Limits)> {
        let record = self.identity.birth.as_ref()?;
        let Checkpoints { last_sequence: sequence, .. } = self.checkpoints;
        let header =
            Header { groups: record.groups, cluster_id: record.cluster_id, hash_key: record.hash_key, sequence };
        Some((header, super::limits_of(record)))
    }

    /// Whether blocks are waiting to be taken out, a few in each turn.
    #[must_use]
    pub fn is_checkpointing(&self) -> bool {
        self.checkpoints.round.is_some()
    }

    /// Recovery: these groups are here.
    pub(super) fn note_hollow(&mut self, groups: &[GroupId]) {
        for group in groups.iter().filter(|group| self.engine.group(**group).is_hollow()) {
            self.checkpoints.hollow.insert(*group);
            tracing::error!(
                "the state of group {group} is not whole here: this node takes no part in it until it has learned it from others"
            );
        }
    }

    /// Groups are asked for, all of them if none is named.
    pub(super) fn want_checkpoint(&mut self, group: Option<GroupId>) {
        let all = 0..self.engine.len() as u32;
        let groups = all.map(GroupId).filter(|id| group.is_none_or(|group| group == *id));
        self.checkpoints.wanted.extend(groups);
    }

    pub(super) fn tick_checkpoints(&mut self, time: Time) {
        let whole: Vec<GroupId> =
            self.checkpoints.hollow.iter().copied().filter(|id| !self.engine.group(*id).is_hollow()).collect();
        for group in whole {
            tracing::info!("group {group} is whole again");
            self.checkpoints.hollow.remove(&group);
            // Else the next start would find the same.
            self.checkpoints.wanted.insert(group);
        }
        let now_ms = time.mono_ms();
        let checkpoints = &self.checkpoints;
        if checkpoints.is_going_on() || checkpoints.trimming.is_some() || now_ms < checkpoints.due_ms {
            return;
        }
        let long = self.facts.log_bytes > checkpoints.log_bytes_max() && self.facts.log_segments > 1;
        let old = now_ms >= checkpoints.began_ms.max(self.began_ms) + checkpoints.config.age_ms;
        if long || old && self.facts.log_segments > 1 {
            self.checkpoints.asked = std::mem::take(&mut self.checkpoints.wanted);
            return self.begin_round(time, |_| true);
        }
        if !checkpoints.wanted.is_empty() {
            let wanted = std::mem::take(&mut self.checkpoints.wanted);
            self.checkpoints.asked.clone_from(&wanted);
            self.begin_round(time, |group| wanted.contains(&group));
        }
    }

    /// Takes the groups of `which` that went on, and those that share a file with one: else it would be kept for them.
    fn begin_round(&mut self, time: Time, which: impl Fn(GroupId) -> bool) {
        let (kept, spoilt) = (&self.checkpoints.kept, &self.checkpoints.spoilt);
        let went_on = |group: &groups::Group| {
            let Kept { instance, sequence } = kept[group.id().index()];
            which(group.id()) && (group.next().preceding() > instance || spoilt.contains(&sequence))
        };
        let mut queue: BTreeSet<GroupId> =
            self.engine.groups().filter(|group| went_on(group)).map(groups::Group::id).collect();
        for (sequence, file) in &self.checkpoints.files {
            let groups = || file.groups.iter().map(|(group, _)| *group);
            if groups().any(|group| queue.contains(&group)) {
                queue.extend(groups().filter(|group| kept[group.index()].sequence == *sequence));
            }
        }
        let checkpoints = &mut self.checkpoints;
        checkpoints.began_ms = time.mono_ms();
        let queue: VecDeque<GroupId> = queue.into_iter().collect();
        checkpoints.round = Some(Round { queue, ..Round::default() });
    }

    /// At the very end of a turn: until the answer nothing may be decided any more, lest a value be taken for a vote.
    pub(super) fn ask_to_trim(&mut self, time: Time) {
        // Where a group is can only be said when what it has decided is applied.
        if !self.engine.shard().is_busy() && std::mem::take(&mut self.checkpoints.may_trim) {
            let floors = self.floors(time);
            self.outputs.push(Output::Floors(floors));
        }
    }

    /// Takes some blocks out, each turn.
    pub(super) fn step_checkpoints(&mut self, time: Time) {
        if self.checkpoints.round.is_none() {
            return;
        }
        self.checkpoints.earn(self.facts.log_bytes, time.mono_us);
        while self.checkpoints.may_take() && self.take_block(time) {}
    }

    /// False: there is nothing more to be taken for now.
    fn take_block(&mut self, time: Time) -> bool {
        let Some(round) = &mut self.checkpoints.round else { return false };
        let outputs = &mut self.outputs;
        let Some(group) = round.frozen else { return self.take_group(time) };
        if let Some(block) = self.engine.next_block(group, CHECKPOINT_BLOCK_BYTES) {
            round.file_bytes += block.len() as u64;
            self.checkpoints.unwritten += block.len();
            let (least, most) = CHECKPOINT_BLOCK_COST_BYTES;
            self.checkpoints.pace.spend(block.len().clamp(least, most));
            outputs.push(Output::Checkpoint(Job::Block(block)));
            return true;
        }
        outputs.push(Output::Checkpoint(Job::End(self.engine.thaw(group))));
        round.frozen = None;
        if round.file_bytes >= CHECKPOINT_FILE_BYTES {
            self.finish_file();
        }
        true
    }

    /// The next group's turn.
    fn take_group(&mut self, time: Time) -> bool {
        // Another member may fetch it, and every one of them must be able to read it.
        let divides = self.value_version() >= 4;
        let Some(round) = &mut self.checkpoints.round else { return false };
        if round.queue.front().is_some_and(|group| self.engine.shard().is_applying(*group)) {
            return false; // its state is between two instances
        }
        let Some(group) = round.queue.pop_front() else {
            self.finish_file();
            self.checkpoints.round = None;
            self.end_round_if_saved(time);
            return false;
        };
        if round.file.is_none() {
            let Some(record) = &self.identity.birth else { return false };
            self.checkpoints.last_sequence += 1;
            let sequence = self.checkpoints.last_sequence;
            (round.file, round.file_bytes) = (Some(sequence), 0);
            let (groups, cluster_id, hash_key) = (record.groups, record.cluster_id, record.hash_key);
            self.outputs.push(Output::Checkpoint(Job::Begin(Header { groups, cluster_id, hash_key, sequence })));
        }
        round.frozen = Some(group);
        self.outputs.push(Output::Checkpoint(Job::Section(self.engine.freeze(group, divides))));
        true
    }

    fn finish_file(&mut self) {
        let Some(round) = &mut self.checkpoints.round else { return };
        if let Some(sequence) = round.file.take() {
            self.checkpoints.saving.insert(sequence);
            self.outputs.push(Output::Checkpoint(Job::Finish));
        }
    }

    /// What became of [`Output::Checkpoint`].
    pub fn checkpoint_done(&mut self, done: Done, time: Time) {
        match done {
            Done::Written(bytes) => self.checkpoints.unwritten -= bytes.min(self.checkpoints.unwritten),
            Done::Saved { sequence, bytes, sections } => {
                self.checkpoints.saving.remove(&sequence);
                self.add_checkpoint(sequence, bytes, &sections, time);
                self.end_round_if_saved(time);
            }
            Done::Failed { sequence, reason } => {
                tracing::error!("{reason}; it is tried again in {} s", CHECKPOINT_RETRY_MS / 1_000);
                self.checkpoints.facts.failures += 1;
                // A line of INFO has to stay one.
                self.checkpoints.last_failure = reason.replace(['\r', '\n'], " ");
                self.checkpoints.due_ms = time.mono_ms() + CHECKPOINT_RETRY_MS;
                self.give_up_round(sequence);
            }
        }
    }

    /// A file is durable: older ones that have nothing newer go.
    pub(super) fn add_checkpoint(&mut self, sequence: u64, bytes: u64, sections: &[SectionSummary], time: Time) {
        self.checkpoints.add_file(sequence, bytes, sections);
        for section in sections {
            // A received one may hold a group that was not put in.
            if section.instance < self.engine.group(section.group).next() {
                self.checkpoints.set_kept(section.group, section.instance, sequence);
            }
        }
        let (transfers, now_ms) = (&self.transfers, time.mono_ms());
        let useless = self.checkpoints.take_useless(|sequence| transfers.is_pinned(sequence, now_ms));
        self.outputs.extend(useless.into_iter().map(|file| Output::Checkpoint(Job::Remove(file))));
    }

    /// Stops taking states out, for good reason; what is left of the round waits for the next one.
    pub(super) fn give_up_taking(&mut self) {
        if let Some(sequence) = self.checkpoints.round.as_ref().and_then(|round| round.file) {
            self.give_up_round(sequence);
        }
    }

    fn give_up_round(&mut self, sequence: u64) {
        self.checkpoints.saving.remove(&sequence);
        self.checkpoints.wanted.append(&mut self.checkpoints.asked);
        if let Some(round) = self.checkpoints.round.take_if(|round| round.file == Some(sequence)) {
            if let Some(group) = round.frozen {
                self.engine.thaw(group);
            }
            self.outputs.push(Output::Checkpoint(Job::Abandon));
        }
    }

    /// The states are durable: what of the log is not needed any more?
    fn end_round_if_saved(&mut self, time: Time) {
        if self.checkpoints.is_going_on() {
            return;
        }
        let checkpoints = &mut self.checkpoints;
        checkpoints.asked.clear();
        checkpoints.due_ms = checkpoints.due_ms.max(time.mono_ms() + CHECKPOINT_PAUSE_MS);
        let took_ms = time.mono_ms() - checkpoints.began_ms;
        let facts = &mut checkpoints.facts;
        (facts.ended_unix_ms, facts.took_ms, facts.rounds) = (time.unix_ms(), took_ms, facts.rounds + 1);
        let (files, bytes) = (checkpoints.count() as u64, checkpoints.bytes());
        tracing::info!("checkpoints are made after {took_ms} ms: {files} file{}, {bytes} bytes", plural(files));
        if !self.engine.groups().any(groups::Group::is_hollow) {
            self.checkpoints.may_trim = true;
        }
    }

    /// By group the last instance whose value the log need not have: that of its checkpoint, or one more if only a vote
    /// is there, which is logged again.
    /// Where another node fetches a checkpoint, what it will need next is kept, too.
    fn floors(&self, time: Time) -> Vec<Instance> {
        let floor = |(group, kept): (&groups::Group, &Kept)| {
            let only_a_vote = group.next() == kept.instance.following() && group.has_vote();
            if only_a_vote { group.next() } else { kept.instance }
        };
        let mut floors: Vec<Instance> = self.engine.groups().zip(&self.checkpoints.kept).map(floor).collect();
        let pinned = |(sequence, _): &(&u64, &File)| self.transfers.is_pinned(**sequence, time.mono_ms());
        for (group, instance) in self.checkpoints.files.iter().filter(pinned).flat_map(|(_, file)| &file.groups) {
            floors[group.index()] = floors[group.index()].min(*instance);
        }
        floors
    }

    /// What a scrub of the disk found: what is damaged is written anew from what is in memory.
    pub fn scrubbed(&mut self, findings: &Findings) {
        self.checkpoints.facts.scrubs += 1;
        self.checkpoints.facts.scrub_damaged += (findings.checkpoints.len() + findings.segments.len()) as u64;
        let files = &self.checkpoints.files;
        let spoilt: Vec<u64> = findings.checkpoints.iter().copied().filter(|file| files.contains_key(file)).collect();
        if spoilt.is_empty() && findings.segments.is_empty() {
            return;
        }
        tracing::error!("damaged files were found: checkpoints are made to take their place");
        self.checkpoints.spoilt.extend(spoilt);
        self.want_checkpoint(None);
    }

    /// What of the log can go, by [`super::Outputs::floors`]; called before anything else is.
    pub fn trim(&mut self, droppable: Droppable) {
        let Droppable { below, lsn } = droppable;
        let (engine, mut wires) = self.split();
        engine.record_again(lsn, &mut wires);
        for record in self.peers.incarnations.records().collect::<Vec<_>>() {
            self.engine.persist(record);
        }
        let (kind, instance, payload) = (wal::RecordKind::Trimmed, Instance(below), Bytes::new());
        let (ballot, chosen) = (Ballot::ZERO, Ballot::ZERO);
        let lsn = self.engine.persist(wal::Record { kind, group: GroupId(0), instance, ballot, chosen, payload });
        self.checkpoints.trimming = Some(Trimming { below, lsn });
    }

    pub(super) fn trim_durable(&mut self, lsn: u64) {
        if let Some(trimming) = self.checkpoints.trimming.filter(|trimming| trimming.lsn <= lsn) {
            self.checkpoints.trimming = None;
            self.outputs.push(Output::DropSegments(trimming.below));
        }
    }
}
