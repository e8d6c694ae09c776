//! Loads the newest readable state of each group at a start. A file that cannot be read is reported, and an older one
//! takes its place. Without an older file the group learns its state from the other members.

use super::{
    CheckpointError, CheckpointReader, CheckpointSequence, Header, SectionSummary, checkpoint_name, sequences,
};
use crate::kv::{BlockError, Installation, Store, StoreLimits};
use crate::routing::slots_of;
use crate::storage::disk::Disk;
use groups::{GroupId, Snapshot};
use std::io;

/// The state of a group from a checkpoint.
pub struct LoadedState {
    /// The file's sequence number.
    pub sequence: CheckpointSequence,
    /// The group.
    pub group: GroupId,
    /// The group's state besides its keys and sessions.
    pub state: Snapshot,
    /// Its keys and sessions.
    pub store: Store,
}

/// The usable checkpoint files of a directory.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// Sequence number, bytes and sections of each file that can be opened, ascending.
    pub files: Vec<(CheckpointSequence, u64, Vec<SectionSummary>)>,
}

/// The checkpoint set of a directory, opened. Several threads may load states from it.
pub struct CheckpointSet {
    readers: Vec<(CheckpointSequence, CheckpointReader)>,
    header: Header,
    limits: StoreLimits,
    damaged: Vec<CheckpointSequence>,
}

impl CheckpointSet {
    /// Opens all checkpoints of the cluster that `header` names, and writes nothing. `limits` are those of its stores.
    ///
    /// # Errors
    /// If the directory cannot be read, or holds a file of another cluster or of a later version.
    pub fn open(disk: &dyn Disk, header: Header, limits: StoreLimits) -> Result<CheckpointSet, CheckpointError> {
        let mut checkpoint_set = CheckpointSet { readers: Vec::new(), header, limits, damaged: Vec::new() };
        for sequence in sequences(disk).map_err(unlisted)? {
            let opened = CheckpointReader::open(disk, &checkpoint_name(sequence));
            match opened.and_then(|reader| reader.expect_cluster(&header).map(|()| reader)) {
                Ok(reader) => checkpoint_set.readers.push((sequence, reader)),
                Err(error @ (CheckpointError::Foreign { .. } | CheckpointError::Version { .. })) => return Err(error),
                Err(error) => {
                    tracing::error!("{error}; going on without this checkpoint");
                    checkpoint_set.damaged.push(sequence);
                }
            }
        }
        Ok(checkpoint_set)
    }

    /// Loads the newest readable state of a group, if any, and returns it with the bytes of its blocks. Adds the files
    /// in which the state of this group cannot be read to `damaged`.
    #[must_use]
    pub fn newest(&self, group: GroupId, damaged: &mut Vec<CheckpointSequence>) -> Option<(LoadedState, u64)> {
        let mut candidates = self.candidates(group);
        while let Some((section, place)) = candidates.pop() {
            let (sequence, reader) = &self.readers[place];
            match section_of(reader, group, &self.header, &self.limits) {
                Ok((state, store)) => {
                    return Some((LoadedState { sequence: *sequence, group, state, store }, section.end.block_bytes));
                }
                Err(error) => {
                    tracing::error!("{error}; going on without this checkpoint");
                    damaged.push(*sequence);
                }
            }
        }
        None
    }

    /// Estimates how many bytes [`CheckpointSet::newest`] reads for a group.
    #[must_use]
    pub fn bytes(&self, group: GroupId) -> u64 {
        self.candidates(group).last().map_or(0, |(section, _)| section.length)
    }

    /// Returns the sections of a group with their indexes in `readers`, the newest last.
    fn candidates(&self, group: GroupId) -> Vec<(SectionSummary, usize)> {
        let mut candidates: Vec<(SectionSummary, usize)> = Vec::new();
        for (place, (_, reader)) in self.readers.iter().enumerate() {
            let section = reader.sections().binary_search_by_key(&group, |section| section.group);
            candidates.extend(section.ok().map(|at| (reader.sections()[at], place)));
        }
        // Of two sections at one instance, the one in the file with the higher sequence number is newer.
        candidates.sort_by_key(|(section, place)| (section.instance, *place));
        candidates
    }

    /// Returns the files that could be opened.
    #[must_use]
    pub fn catalog(&self) -> Catalog {
        let files = self.readers.iter();
        Catalog { files: files.map(|(sequence, file)| (*sequence, file.bytes(), file.sections().to_vec())).collect() }
    }

    /// Returns the files that could not be opened, and those in `found`, which were damaged when they were read.
    #[must_use]
    pub fn damaged(&self, mut found: Vec<CheckpointSequence>) -> Vec<CheckpointSequence> {
        found.extend(&self.damaged);
        found.sort_unstable();
        found.dedup();
        found
    }
}

fn unlisted(source: io::Error) -> CheckpointError {
    CheckpointError::Read { file: "checkpoint-*".to_owned(), source }
}

/// Reads the section of one group.
///
/// # Errors
/// [`CheckpointError`].
pub(super) fn section_of(
    reader: &CheckpointReader,
    group: GroupId,
    header: &Header,
    limits: &StoreLimits,
) -> Result<(Snapshot, Store), CheckpointError> {
    let unsound = |source: BlockError| reader.unsound(group, source);
    let mut section = reader.section(group)?.ok_or_else(|| unsound(BlockError::Garbled))?;
    let mut installation = Installation::new(header.hash_key, slots_of(group, header.groups), limits.clone());
    while let Some(block) = section.next_block()? {
        installation.install_block(&block).map_err(unsound)?;
    }
    let state = section.head().state.clone();
    let digest = section.digest();
    let store = installation.finish_as(digest).ok_or_else(|| unsound(BlockError::Digest))?;
    Ok((state, store))
}
