//! Reads checkpoints. Content is used only after its checksum was verified, and no length may exceed the file's.

use super::CheckpointError;
use super::format::{
    CHUNK_CRC_BYTES, CHUNK_HEADER_BYTES, ChunkHeader, ChunkKind, HEADER_BYTES, Header, HeaderFlaw, Packing, SectionEnd,
    SectionHead, SectionSummary, TRAILER_BYTES, Trailer, chunk_crc,
};
use crate::kv::{BlockCheck, OnEntry, StoreLimits};
use crate::routing::slots_of;
use crate::storage::disk::{Disk, DiskFile, read_full};
use groups::GroupId;
use lz4_flex::block::decompress_into;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// A checkpoint whose header, end and index are sound. Its sections are checked as they are read.
pub struct CheckpointReader {
    source: Source,
    header: Header,
    sections: Vec<SectionSummary>,
}

/// A file that claims to be a checkpoint.
struct Source {
    file: Arc<dyn DiskFile>,
    name: String,
    size: u64,
}

/// A chunk whose checksum is right.
struct Chunk {
    header: ChunkHeader,
    content: Vec<u8>,
    crc: u32,
    end: u64,
}

impl CheckpointReader {
    /// Opens the file with this name, which need not be the name of a checkpoint.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn open(disk: &dyn Disk, name: &str) -> Result<CheckpointReader, CheckpointError> {
        let failed = |source| CheckpointError::Read { file: name.to_owned(), source };
        let file = disk.open_read_only(name).map_err(failed)?;
        let size = file.size().map_err(failed)?;
        let source = Source { file, name: name.to_owned(), size };
        let header = source.header()?;
        let trailer = source.trailer()?;
        let sections = source.index(&header, &trailer)?;
        Ok(CheckpointReader { source, header, sections })
    }

    /// Returns the header: the cluster, and the sequence number of the checkpoint.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Refuses a checkpoint of another cluster than that of `expected`; its sequence number does not matter.
    ///
    /// # Errors
    /// [`CheckpointError::Foreign`].
    pub fn expect_cluster(&self, expected: &Header) -> Result<(), CheckpointError> {
        if self.header == (Header { sequence: self.header.sequence, ..*expected }) {
            return Ok(());
        }
        Err(CheckpointError::Foreign { file: self.source.name.clone() })
    }

    /// Returns all sections, in order of groups.
    #[must_use]
    pub fn sections(&self) -> &[SectionSummary] {
        &self.sections
    }

    /// Returns the size of the file in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.source.size
    }

    /// Begins to read the section of a group; returns `None` if the file has none.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn section(&self, group: GroupId) -> Result<Option<SectionReader<'_>>, CheckpointError> {
        let Ok(at) = self.sections.binary_search_by_key(&group, |section| section.group) else { return Ok(None) };
        let summary = self.sections[at];
        let chunk = self.source.chunk(summary.offset, self.source.crc_before(summary.offset)?)?;
        let head: SectionHead = self.source.meta(summary.offset, ChunkKind::Section, &chunk)?;
        if (head.group, head.state.instance) != (summary.group, summary.instance) {
            return Err(self.source.corrupt(summary.offset, "the section is not the one that the index names"));
        }
        let found = SectionEnd { blocks: 0, block_bytes: 0, digest: summary.end.digest };
        let (source, at, crc) = (&self.source, chunk.end, chunk.crc);
        Ok(Some(SectionReader { source, summary, head, at, crc, found, done: false }))
    }
}

/// Hands out the blocks of one section.
pub struct SectionReader<'c> {
    source: &'c Source,
    summary: SectionSummary,
    head: SectionHead,
    at: u64,
    crc: u32,
    found: SectionEnd,
    done: bool,
}

impl SectionReader<'_> {
    /// Returns the start of the section: the group, and its position in its history.
    #[must_use]
    pub fn head(&self) -> &SectionHead {
        &self.head
    }

    /// Returns the digest that the state should have.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.summary.end.digest
    }

    /// Returns the next block, unpacked. Returns `None` behind the last block, if the section is whole.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn next_block(&mut self) -> Result<Option<Vec<u8>>, CheckpointError> {
        if self.done {
            return Ok(None);
        }
        let chunk = self.source.chunk(self.at, self.crc)?;
        if chunk.header.group != self.summary.group {
            return Err(self.source.corrupt(self.at, "a piece of another group stands here"));
        }
        if chunk.header.kind == ChunkKind::Block {
            self.found.blocks += 1;
            self.found.block_bytes += u64::from(chunk.header.unpacked);
            let block = self.source.unpack(self.at, &chunk.header, chunk.content)?;
            (self.at, self.crc) = (chunk.end, chunk.crc);
            return Ok(Some(block));
        }
        let end: SectionEnd = self.source.meta(self.at, ChunkKind::End, &chunk)?;
        let length = chunk.end - self.summary.offset;
        if end != self.found || end != self.summary.end || length != self.summary.length {
            return Err(self.source.corrupt(self.at, "the content of the section does not match its end or the index"));
        }
        self.done = true;
        Ok(None)
    }
}

impl Source {
    fn header(&self) -> Result<Header, CheckpointError> {
        let mut bytes = [0; HEADER_BYTES];
        let file = self.name.clone();
        if !self.read(0, &mut bytes)? {
            return Err(CheckpointError::Header { file });
        }
        match Header::decode(&bytes) {
            Ok(header) => Ok(header),
            Err(HeaderFlaw::Damaged) => Err(CheckpointError::Header { file }),
            Err(HeaderFlaw::Version(found)) => Err(CheckpointError::Version { file, found }),
        }
    }

    fn trailer(&self) -> Result<Trailer, CheckpointError> {
        let cut_short = || CheckpointError::CutShort { file: self.name.clone() };
        let at = self.size.checked_sub(TRAILER_BYTES as u64).ok_or_else(cut_short)?;
        let mut bytes = [0; TRAILER_BYTES];
        if !self.read(at, &mut bytes)? {
            return Err(cut_short());
        }
        let trailer = Trailer::decode(&bytes).filter(|trailer| trailer.length == self.size);
        trailer.filter(|trailer| (HEADER_BYTES as u64..at).contains(&trailer.index_offset)).ok_or_else(cut_short)
    }

    /// Reads the index, and checks that the sections fill everything between header and index.
    fn index(&self, header: &Header, trailer: &Trailer) -> Result<Vec<SectionSummary>, CheckpointError> {
        let at = trailer.index_offset;
        let chunk = self.chunk(at, self.crc_before(at)?)?;
        let sections: Vec<SectionSummary> = self.meta(at, ChunkKind::Index, &chunk)?;
        let mut next = HEADER_BYTES as u64;
        for section in &sections {
            if section.offset != next || section.group.0 >= header.groups {
                return Err(self.corrupt(at, "the index does not fit the file"));
            }
            next = next.saturating_add(section.length);
        }
        let ordered = sections.is_sorted_by(|a, b| a.group < b.group);
        let ends = chunk.end + TRAILER_BYTES as u64 == self.size && chunk.crc == trailer.whole_crc;
        if next != at || !ordered || !ends {
            return Err(self.corrupt(at, "the index does not fit the file"));
        }
        Ok(sections)
    }

    /// Reads the CRC that a chunk at `offset` continues: the CRC of a chunk or of the header, directly before it.
    fn crc_before(&self, offset: u64) -> Result<u32, CheckpointError> {
        let mut bytes = [0; CHUNK_CRC_BYTES];
        match self.read(offset - CHUNK_CRC_BYTES as u64, &mut bytes)? {
            true => Ok(u32::from_le_bytes(bytes)),
            false => Err(self.corrupt(offset, "the file ends here")),
        }
    }

    fn chunk(&self, at: u64, previous: u32) -> Result<Chunk, CheckpointError> {
        let mut head = [0; CHUNK_HEADER_BYTES];
        if !self.read(at, &mut head)? {
            return Err(self.corrupt(at, "the file ends here"));
        }
        let header =
            ChunkHeader::decode(&head).ok_or_else(|| self.corrupt(at, "no piece of a checkpoint starts here"))?;
        let content_at = at + CHUNK_HEADER_BYTES as u64;
        let rest = content_at + u64::from(header.length) + CHUNK_CRC_BYTES as u64;
        if rest > self.size {
            return Err(self.corrupt(at, "a piece goes beyond the end of the file"));
        }
        let mut content = vec![0; header.length as usize + CHUNK_CRC_BYTES];
        if !self.read(content_at, &mut content)? {
            return Err(self.corrupt(at, "the file ends here"));
        }
        let crc = chunk_crc(previous, &head, &content[..header.length as usize]);
        if content[header.length as usize..] != crc.to_le_bytes() {
            return Err(self.corrupt(at, "the checksum of a piece is wrong"));
        }
        content.truncate(header.length as usize);
        Ok(Chunk { header, content, crc, end: rest })
    }

    fn unpack(&self, at: u64, header: &ChunkHeader, content: Vec<u8>) -> Result<Vec<u8>, CheckpointError> {
        match header.packing {
            Packing::Plain => Ok(content),
            Packing::Lz4 => {
                let mut block = vec![0; header.unpacked as usize];
                match decompress_into(&content, &mut block) {
                    Ok(length) if length == block.len() => Ok(block),
                    _ => Err(self.corrupt(at, "a block cannot be unpacked")),
                }
            }
        }
    }

    fn meta<T: DeserializeOwned>(&self, at: u64, kind: ChunkKind, chunk: &Chunk) -> Result<T, CheckpointError> {
        if chunk.header.kind != kind || chunk.header.packing != Packing::Plain {
            return Err(self.corrupt(at, "another kind of piece should stand here"));
        }
        match postcard::take_from_bytes(&chunk.content) {
            Ok((value, [])) => Ok(value),
            _ => Err(self.corrupt(at, "a table cannot be read")),
        }
    }

    /// Fills `buffer`. Returns false if the file ends before that.
    fn read(&self, at: u64, buffer: &mut [u8]) -> Result<bool, CheckpointError> {
        let failed = |source| CheckpointError::Read { file: self.name.clone(), source };
        Ok(read_full(&*self.file, at, buffer).map_err(failed)? == buffer.len())
    }

    fn corrupt(&self, offset: u64, what: &'static str) -> CheckpointError {
        CheckpointError::Corrupt { file: self.name.clone(), offset, what }
    }
}

/// Returns how many bytes of an incomplete file are a sound beginning of a checkpoint: those before the first chunk
/// that is cut off or fails its checksum.
///
/// # Errors
/// [`CheckpointError`], if not even the header is sound.
pub(super) fn sound_bytes(disk: &dyn Disk, name: &str) -> Result<u64, CheckpointError> {
    let failed = |source| CheckpointError::Read { file: name.to_owned(), source };
    let file = disk.open_read_only(name).map_err(failed)?;
    let size = file.size().map_err(failed)?;
    let source = Source { file, name: name.to_owned(), size };
    source.header()?;
    let mut at = HEADER_BYTES as u64;
    let mut crc = source.crc_before(at)?;
    while let Ok(chunk) = source.chunk(at, crc) {
        (at, crc) = (chunk.end, chunk.crc);
    }
    Ok(at)
}

/// A section that was read from end to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedSection {
    /// The start of the section: the group, and its position in its history.
    pub head: SectionHead,
    /// See [`SectionSummary`].
    pub summary: SectionSummary,
    /// How many keys the state has.
    pub keys: u64,
    /// How many sessions the state has.
    pub sessions: u64,
}

/// Reads every byte of a checkpoint, and checks that each section holds the state that its digest names. Needs the
/// memory of one block.
///
/// # Errors
/// [`CheckpointError`].
pub fn verify(disk: &dyn Disk, name: &str) -> Result<Vec<VerifiedSection>, CheckpointError> {
    let checkpoint = CheckpointReader::open(disk, name)?;
    checkpoint.sections().iter().map(|summary| checkpoint.verify_section(*summary)).collect()
}

impl CheckpointReader {
    pub(super) fn unsound(&self, group: GroupId, source: crate::kv::BlockError) -> CheckpointError {
        CheckpointError::State { file: self.source.name.clone(), group, source }
    }

    pub(super) fn verify_section(&self, summary: SectionSummary) -> Result<VerifiedSection, CheckpointError> {
        self.visit_section(summary, &mut |_, _, _| ())
    }

    /// Reads and checks the section of `summary`, and calls `each` with every key in it. Needs the memory of one block.
    ///
    /// # Errors
    /// [`CheckpointError`]. Whatever `each` was called with before the error is then unverified, and must be discarded.
    pub fn visit_section(
        &self,
        summary: SectionSummary,
        each: &mut OnEntry<'_>,
    ) -> Result<VerifiedSection, CheckpointError> {
        let group = summary.group;
        let missing = || self.source.corrupt(summary.offset, "the section is not there");
        let mut section = self.section(group)?.ok_or_else(missing)?;
        let slots = slots_of(group, self.header.groups);
        let mut check = BlockCheck::new(self.header.hash_key, slots, StoreLimits::default());
        let bad = |source| self.unsound(group, source);
        while let Some(block) = section.next_block()? {
            check.visit(&block, each).map_err(bad)?;
        }
        if check.digest() != Some(section.digest()) {
            return Err(bad(crate::kv::BlockError::Digest));
        }
        Ok(VerifiedSection { head: section.head.clone(), summary, keys: check.keys(), sessions: check.sessions() })
    }
}
