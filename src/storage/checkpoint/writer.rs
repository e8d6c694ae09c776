//! Writes a checkpoint, section by section, block by block. Writing packs and syncs, so it belongs on a worker thread.
//! The writer itself has no thread, so that the simulator can drive it.

use super::format::{
    BLOCK_BYTES_MAX, CHUNK_CRC_BYTES, CHUNK_HEADER_BYTES, ChunkHeader, ChunkKind, HEADER_BYTES, Header, META_BYTES_MAX,
    Packing, SectionEnd, SectionHead, SectionSummary, Trailer, chunk_crc, header_crc,
};
use super::{CheckpointError, UNFINISHED, checkpoint_name};
use crate::storage::disk::{Disk, DiskFile};
use groups::GroupId;
use lz4_flex::block::{compress_into, get_maximum_output_size};
use serde::Serialize;
use std::io;
use std::sync::Arc;

/// Unsynced bytes after which the file is synced. A single sync at the end would delay the syncs of the log for as long
/// as writing the whole file takes.
const UNSYNCED_BYTES_MAX: u64 = 8 << 20;

/// Maximum bytes that the buffer for packed blocks keeps after a larger block.
const BUFFER_BYTES_MAX: usize = 4 << 20;

/// A checkpoint that is being written. If it is dropped before [`CheckpointWriter::finish`], or after an error, it
/// removes its unfinished file.
pub struct CheckpointWriter {
    disk: Arc<dyn Disk>,
    file: Arc<dyn DiskFile>,
    name: String,
    packing: Packing,
    at: u64,
    synced: u64,
    /// The CRC of the last chunk.
    crc: u32,
    sections: Vec<SectionSummary>,
    open: Option<SectionSummary>,
    buffer: Vec<u8>,
    /// True once the file has its final name: dropping the writer then removes nothing.
    done: bool,
}

impl CheckpointWriter {
    /// Begins a file with this header.
    ///
    /// # Errors
    /// [`CheckpointError::Write`].
    pub fn create(disk: Arc<dyn Disk>, header: Header, packing: Packing) -> Result<CheckpointWriter, CheckpointError> {
        let name = checkpoint_name(header.sequence);
        let file = disk.create(&format!("{name}{UNFINISHED}")).map_err(failed(&name, "create"))?;
        let bytes = header.encode();
        let crc = header_crc(&bytes);
        let (sections, open, buffer) = (Vec::new(), None, Vec::new());
        let (at, synced) = (HEADER_BYTES as u64, 0);
        let writer =
            CheckpointWriter { disk, file, name, packing, at, synced, crc, sections, open, buffer, done: false };
        writer.file.write_at(0, &bytes).map_err(failed(&writer.name, "write"))?;
        Ok(writer)
    }

    /// Begins the section of a group.
    ///
    /// # Errors
    /// [`CheckpointError::Write`].
    ///
    /// # Panics
    /// If the section before has no end, or is of the same or a later group.
    pub fn begin(&mut self, head: &SectionHead) -> Result<(), CheckpointError> {
        assert!(self.open.is_none(), "the section before has no end");
        assert!(self.sections.last().is_none_or(|last| last.group < head.group), "sections stand in order of groups");
        let end = SectionEnd { blocks: 0, block_bytes: 0, digest: 0 };
        let (group, instance) = (head.group, head.state.instance);
        self.open = Some(SectionSummary { group, instance, offset: self.at, length: 0, end });
        self.meta(ChunkKind::Section, head.group, head)
    }

    /// Writes the next block of the group's state.
    ///
    /// # Errors
    /// [`CheckpointError::Write`].
    ///
    /// # Panics
    /// If no section was begun, or the block is beyond [`BLOCK_BYTES_MAX`].
    pub fn block(&mut self, block: &[u8]) -> Result<(), CheckpointError> {
        let section = self.open.as_mut().expect("a block stands in a section");
        assert!(block.len() <= BLOCK_BYTES_MAX, "a block of {} bytes", block.len());
        section.end.blocks += 1;
        section.end.block_bytes += block.len() as u64;
        let group = section.group;
        if self.packing == Packing::Plain {
            return self.chunk(ChunkKind::Block, Packing::Plain, group, block, block.len());
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let needed = get_maximum_output_size(block.len());
        if buffer.len() < needed {
            buffer.resize(needed, 0);
        }
        // A block that does not shrink is written unpacked.
        let packed = compress_into(block, &mut buffer).ok().filter(|length| *length < block.len());
        let written = match packed {
            Some(length) => self.chunk(ChunkKind::Block, Packing::Lz4, group, &buffer[..length], block.len()),
            None => self.chunk(ChunkKind::Block, Packing::Plain, group, block, block.len()),
        };
        if buffer.capacity() <= BUFFER_BYTES_MAX {
            self.buffer = buffer;
        }
        written
    }

    /// Ends the section; `digest` is the digest of the group's state.
    ///
    /// # Errors
    /// [`CheckpointError::Write`].
    ///
    /// # Panics
    /// If no section was begun.
    pub fn end(&mut self, digest: u64) -> Result<(), CheckpointError> {
        let mut section = self.open.take().expect("a section was begun");
        section.end.digest = digest;
        self.meta(ChunkKind::End, section.group, &section.end)?;
        section.length = self.at - section.offset;
        self.sections.push(section);
        Ok(())
    }

    /// Writes index and trailer, makes the file durable and gives it its name. Returns its size in bytes. The
    /// checkpoint before it must stay until [`verify`](super::verify) has found this one sound.
    ///
    /// # Errors
    /// [`CheckpointError::Write`].
    ///
    /// # Panics
    /// If a section has no end.
    pub fn finish(mut self) -> Result<u64, CheckpointError> {
        assert!(self.open.is_none(), "the last section has no end");
        let index_offset = self.at;
        let sections = std::mem::take(&mut self.sections);
        self.meta(ChunkKind::Index, GroupId(0), &sections)?;
        let trailer = Trailer { index_offset, length: self.at + TRAILER, whole_crc: self.crc };
        self.file.write_at(self.at, &trailer.encode()).map_err(failed(&self.name, "write"))?;
        self.file.sync_data().map_err(failed(&self.name, "sync"))?;
        let unfinished = format!("{}{UNFINISHED}", self.name);
        self.disk.rename(&unfinished, &self.name).map_err(failed(&self.name, "rename"))?;
        self.done = true;
        self.disk.sync_dir().map_err(failed(&self.name, "sync the directory of"))?;
        Ok(trailer.length)
    }

    /// Returns the bytes written so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.at
    }

    fn meta(&mut self, kind: ChunkKind, group: GroupId, content: &impl Serialize) -> Result<(), CheckpointError> {
        let content = postcard::to_stdvec(content).map_err(io::Error::other).map_err(failed(&self.name, "encode"))?;
        assert!(content.len() <= META_BYTES_MAX, "a table of {} bytes", content.len());
        self.chunk(kind, Packing::Plain, group, &content, content.len())
    }

    fn chunk(
        &mut self,
        kind: ChunkKind,
        packing: Packing,
        group: GroupId,
        content: &[u8],
        unpacked: usize,
    ) -> Result<(), CheckpointError> {
        let (length, unpacked) = (content.len() as u32, unpacked as u32); // within their limits
        let header = ChunkHeader { kind, packing, group, length, unpacked }.encode();
        self.crc = chunk_crc(self.crc, &header, content);
        let pieces = [&header[..], content, &self.crc.to_le_bytes()];
        for piece in pieces {
            self.file.write_at(self.at, piece).map_err(failed(&self.name, "write"))?;
            self.at += piece.len() as u64;
        }
        if self.at - self.synced >= UNSYNCED_BYTES_MAX {
            self.file.sync_data().map_err(failed(&self.name, "sync"))?;
            self.synced = self.at;
        }
        Ok(())
    }
}

impl Drop for CheckpointWriter {
    fn drop(&mut self) {
        if !self.done {
            // If the file cannot be removed now, the next start removes it.
            let _ = self.disk.remove(&format!("{}{UNFINISHED}", self.name));
        }
    }
}

const TRAILER: u64 = super::format::TRAILER_BYTES as u64;

const _: () = assert!(BLOCK_BYTES_MAX + CHUNK_HEADER_BYTES + CHUNK_CRC_BYTES <= u32::MAX as usize);

fn failed(name: &str, doing: &'static str) -> impl FnOnce(io::Error) -> CheckpointError {
    let file = name.to_owned();
    move |source| CheckpointError::Write { file, doing, source }
}
