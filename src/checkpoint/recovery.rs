//! What a start finds: the newest state of each group that can be read. A file that cannot be read is said so, and an older
//! one takes its place; without one the group learns its state from the other members.

use super::{CheckpointError, CheckpointReader, Header, SectionSummary, checkpoint_name, remove_unfinished, sequences};
use crate::disk::Disk;
use crate::kv::{BlockError, Installation, Limits, Store};
use crate::routing::slots_of;
use groups::{GroupId, Snapshot};
use std::io;

/// A group as a checkpoint has it.
pub struct Loaded {
    /// The file's sequence number.
    pub sequence: u64,
    /// Which group.
    pub group: GroupId,
    /// What it is beside its keys and sessions.
    pub state: Snapshot,
    /// Its keys and sessions.
    pub store: Store,
}

/// The files that there are.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// Sequence number, bytes and content of each sound one, ascending.
    pub files: Vec<(u64, u64, Vec<SectionSummary>)>,
    /// Those that are of no use.
    pub damaged: Vec<u64>,
    /// Bytes that were read.
    pub bytes: u64,
}

/// Removes what is unfinished, and then does as [`look`].
///
/// # Errors
/// If the directory cannot be read or changed, or holds a file of another cluster or of a later version.
pub fn load(
    disk: &dyn Disk,
    header: &Header,
    limits: &Limits,
    each: &mut dyn FnMut(Loaded),
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Catalog, CheckpointError> {
    remove_unfinished(disk).map_err(unlisted)?;
    look(disk, header, limits, each, progress)
}

/// Loads every group of the cluster that `header` tells of, writes nothing, calls `each` with the newest state of it that
/// can be read, and `progress` with how many groups are done, and of how many.
///
/// # Errors
/// If the directory cannot be read, or holds a file of another cluster or of a later version.
pub fn look(
    disk: &dyn Disk,
    header: &Header,
    limits: &Limits,
    each: &mut dyn FnMut(Loaded),
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Catalog, CheckpointError> {
    let mut catalog = Catalog::default();
    let mut readers = Vec::new();
    for sequence in sequences(disk).map_err(unlisted)? {
        let opened = CheckpointReader::open(disk, &checkpoint_name(sequence));
        match opened.and_then(|reader| reader.expect_cluster(header).map(|()| reader)) {
            Ok(reader) => readers.push((sequence, reader)),
            Err(error @ (CheckpointError::Foreign { .. } | CheckpointError::Version { .. })) => return Err(error),
            Err(error) => {
                tracing::error!("{error}: that is what is done here");
                catalog.damaged.push(sequence);
            }
        }
    }
    for group in (0..header.groups).map(GroupId) {
        let mut candidates: Vec<(SectionSummary, usize)> = Vec::new();
        for (place, (_, reader)) in readers.iter().enumerate() {
            let section = reader.sections().binary_search_by_key(&group, |section| section.group);
            candidates.extend(section.ok().map(|at| (reader.sections()[at], place)));
        }
        // Of two at one instance the later file: it was made later.
        candidates.sort_by_key(|(section, place)| (section.instance, *place));
        while let Some((section, place)) = candidates.pop() {
            let (sequence, reader) = &readers[place];
            match section_of(reader, group, header, limits) {
                Ok((state, store)) => {
                    catalog.bytes += section.end.block_bytes;
                    each(Loaded { sequence: *sequence, group, state, store });
                    break;
                }
                Err(error) => {
                    tracing::error!("{error}: that is what is done here");
                    catalog.damaged.push(*sequence);
                }
            }
        }
        progress(group.index() + 1, header.groups as usize);
    }
    catalog.damaged.sort_unstable();
    catalog.damaged.dedup();
    catalog.files =
        readers.iter().map(|(sequence, file)| (*sequence, file.bytes(), file.sections().to_vec())).collect();
    Ok(catalog)
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
    limits: &Limits,
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
