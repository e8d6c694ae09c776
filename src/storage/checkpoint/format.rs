//! The bytes of a checkpoint. Little-endian; every byte is under a CRC-32C.
//!
//! ```text
//! file    = header (64) | section … | chunk (index) | trailer (32)
//! section = chunk (section) | chunk (block) … | chunk (end)            in order of groups, and so of key positions
//! chunk   = chunk header (16) | content | CRC u32
//!
//! header        0 magic | 8 version u32 | 12 groups u32 | 16 cluster id [16] | 32 hash key [16] | 48 sequence u64
//!              56 zero u32 | 60 CRC of bytes 0..60
//! chunk header  0 kind u8 | 1 packing u8 | 2 zero u16 | 4 group u32 | 8 length u32 | 12 length when unpacked u32
//! trailer       0 magic | 8 offset of the index u64 | 16 length of the file u64 | 24 CRC of the index chunk u32
//!              28 CRC of bytes 0..28
//!
//! content of section   SectionHead      of block  a block of `kv`, packed or not      } all but blocks in postcard
//!            end       SectionEnd       of index  SectionSummary of every section     }
//! ```
//!
//! The CRC of each chunk continues the CRC of the chunk before it; the first continues the CRC of the header. So the
//! CRC of the index covers the whole file, and no chunk can be missing or come from another file. A section can still
//! be read alone. The header holds what is needed to check a state without the data directory. A later version keeps
//! the size of the header and the places of its magic, version and CRC.

use super::CheckpointSequence;
use crate::config::{BATCH_BYTES_MAX, GROUPS_MAX, VALUE_BYTES_LIMIT};
use crate::storage::fields::{put, take, u32_at, u64_at};
use crc32c::{crc32c, crc32c_append};
use groups::{GroupId, Instance, Snapshot};
use serde::{Deserialize, Serialize};

/// The version of the format that is written, and the only one that is read.
pub const FORMAT_VERSION: u32 = 1;

/// Bytes in front of the first section.
pub const HEADER_BYTES: usize = HEADER_CRC + 4;
/// Bytes in front of a chunk's content.
pub const CHUNK_HEADER_BYTES: usize = CHUNK_UNPACKED + 4;
/// Bytes behind a chunk's content.
pub const CHUNK_CRC_BYTES: usize = 4;
/// Bytes behind the index.
pub const TRAILER_BYTES: usize = TRAILER_CRC + 4;

/// Maximum bytes of an unpacked block: enough for the longest key with its value, which get a block of their own.
pub const BLOCK_BYTES_MAX: usize = 1 << 30;
/// Maximum bytes of the content of any other chunk.
pub const META_BYTES_MAX: usize = 64 << 20;

const _: () = assert!(VALUE_BYTES_LIMIT + BATCH_BYTES_MAX < BLOCK_BYTES_MAX, "every key and value fits a block");

const HEADER_MAGIC: [u8; 8] = *b"PAXOICKP";
const HEADER_VERSION: usize = HEADER_MAGIC.len();
const HEADER_GROUPS: usize = HEADER_VERSION + 4;
const HEADER_CLUSTER: usize = HEADER_GROUPS + 4;
const HEADER_HASH_KEY: usize = HEADER_CLUSTER + 16;
const HEADER_SEQUENCE: usize = HEADER_HASH_KEY + 16;
const HEADER_ZERO: usize = HEADER_SEQUENCE + 8;
const HEADER_CRC: usize = HEADER_ZERO + 4;

const CHUNK_KIND: usize = 0;
const CHUNK_PACKING: usize = CHUNK_KIND + 1;
const CHUNK_GROUP: usize = CHUNK_PACKING + 3;
const CHUNK_LENGTH: usize = CHUNK_GROUP + 4;
const CHUNK_UNPACKED: usize = CHUNK_LENGTH + 4;

const TRAILER_MAGIC: [u8; 8] = *b"PAXOIEND";
const TRAILER_INDEX: usize = TRAILER_MAGIC.len();
const TRAILER_LENGTH: usize = TRAILER_INDEX + 8;
const TRAILER_WHOLE: usize = TRAILER_LENGTH + 8;
const TRAILER_CRC: usize = TRAILER_WHOLE + 4;

const _: () = assert!(HEADER_BYTES == 64 && CHUNK_HEADER_BYTES == 16 && TRAILER_BYTES == 32);

/// The start of a file: the cluster, and the sequence number of the checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// How many groups the cluster has.
    pub groups: u32,
    /// The cluster id, from the birth record. The storage id is not here, because checkpoints move between nodes.
    pub cluster_id: [u8; 16],
    /// The cluster's hash key, which determines key positions and digests.
    pub hash_key: [u8; 16],
    /// The sequence number: the checkpoints of one directory count 1, 2, 3…
    pub sequence: CheckpointSequence,
}

/// Why a header cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderFlaw {
    /// The magic, the checksum or the number of groups is wrong.
    Damaged,
    /// Written by a later version of the program.
    Version(u32),
}

impl Header {
    /// Encodes the header.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        put(&mut bytes, 0, HEADER_MAGIC);
        put(&mut bytes, HEADER_VERSION, FORMAT_VERSION.to_le_bytes());
        put(&mut bytes, HEADER_GROUPS, self.groups.to_le_bytes());
        put(&mut bytes, HEADER_CLUSTER, self.cluster_id);
        put(&mut bytes, HEADER_HASH_KEY, self.hash_key);
        put(&mut bytes, HEADER_SEQUENCE, self.sequence.0.to_le_bytes());
        let crc = crc32c(&bytes[..HEADER_CRC]);
        put(&mut bytes, HEADER_CRC, crc.to_le_bytes());
        bytes
    }

    /// Decodes a header from the start of a file.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Header, HeaderFlaw> {
        if !bytes.starts_with(&HEADER_MAGIC) || header_crc(bytes) != crc32c(&bytes[..HEADER_CRC]) {
            return Err(HeaderFlaw::Damaged);
        }
        let version = u32_at(bytes, HEADER_VERSION);
        if version != FORMAT_VERSION {
            return Err(HeaderFlaw::Version(version));
        }
        let header = Header {
            groups: u32_at(bytes, HEADER_GROUPS),
            cluster_id: take(bytes, HEADER_CLUSTER),
            hash_key: take(bytes, HEADER_HASH_KEY),
            sequence: CheckpointSequence(u64_at(bytes, HEADER_SEQUENCE)),
        };
        if !(1..=GROUPS_MAX).contains(&header.groups) {
            return Err(HeaderFlaw::Damaged);
        }
        Ok(header)
    }
}

/// Returns the CRC at the end of a header. The CRC of the first chunk continues it.
#[must_use]
pub fn header_crc(bytes: &[u8; HEADER_BYTES]) -> u32 {
    u32_at(bytes, HEADER_CRC)
}

/// The kind of a chunk. A number is never reused for another kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ChunkKind {
    /// A section begins.
    Section = 1,
    /// A block of its state.
    Block = 2,
    /// A section ends.
    End = 3,
    /// The index of all sections.
    Index = 4,
}

/// The packing of a chunk's content. A number is never reused for another packing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Packing {
    /// Not packed.
    Plain = 0,
    /// As one block of LZ4.
    #[default]
    Lz4 = 1,
}

/// The header in front of a chunk's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHeader {
    /// The kind of the chunk.
    pub kind: ChunkKind,
    /// The packing of the content.
    pub packing: Packing,
    /// The group that the chunk belongs to; 0 for the index.
    pub group: GroupId,
    /// Bytes of the content as stored in the file.
    pub length: u32,
    /// Bytes of the content when unpacked.
    pub unpacked: u32,
}

impl ChunkHeader {
    /// Encodes the header.
    #[must_use]
    pub fn encode(&self) -> [u8; CHUNK_HEADER_BYTES] {
        let mut bytes = [0; CHUNK_HEADER_BYTES];
        bytes[CHUNK_KIND] = self.kind as u8;
        bytes[CHUNK_PACKING] = self.packing as u8;
        put(&mut bytes, CHUNK_GROUP, self.group.0.to_le_bytes());
        put(&mut bytes, CHUNK_LENGTH, self.length.to_le_bytes());
        put(&mut bytes, CHUNK_UNPACKED, self.unpacked.to_le_bytes());
        bytes
    }

    /// Decodes a header; returns `None` if the bytes are not a valid one.
    #[must_use]
    pub fn decode(bytes: &[u8; CHUNK_HEADER_BYTES]) -> Option<ChunkHeader> {
        let kind = match bytes[CHUNK_KIND] {
            1 => ChunkKind::Section,
            2 => ChunkKind::Block,
            3 => ChunkKind::End,
            4 => ChunkKind::Index,
            _ => return None,
        };
        let packing = match bytes[CHUNK_PACKING] {
            0 => Packing::Plain,
            1 => Packing::Lz4,
            _ => return None,
        };
        let (length, unpacked) = (u32_at(bytes, CHUNK_LENGTH), u32_at(bytes, CHUNK_UNPACKED));
        let limit = if kind == ChunkKind::Block { BLOCK_BYTES_MAX } else { META_BYTES_MAX };
        let sound = bytes[CHUNK_PACKING + 1..CHUNK_GROUP] == [0; 2]
            && unpacked as usize <= limit
            && match packing {
                Packing::Plain => length == unpacked,
                Packing::Lz4 => length < unpacked && u64::from(unpacked) <= u64::from(length) * LZ4_RATIO_MAX,
            };
        sound.then_some(ChunkHeader { kind, packing, group: GroupId(u32_at(bytes, CHUNK_GROUP)), length, unpacked })
    }
}

/// Maximum ratio of a block's unpacked length to its LZ4 length: a byte lengthens a match by at most 255.
const LZ4_RATIO_MAX: u64 = 255;

/// Returns the CRC of a chunk. It continues `previous`, the CRC of the chunk or file header directly before the chunk.
#[must_use]
pub fn chunk_crc(previous: u32, header: &[u8; CHUNK_HEADER_BYTES], content: &[u8]) -> u32 {
    crc32c_append(crc32c_append(previous, header), content)
}

/// The end of a file: shows that the file is whole, and where its index is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// Where the index chunk starts.
    pub index_offset: u64,
    /// Bytes in the file.
    pub length: u64,
    /// The CRC of the index chunk, which covers everything before the trailer.
    pub whole_crc: u32,
}

impl Trailer {
    /// Encodes the trailer.
    #[must_use]
    pub fn encode(&self) -> [u8; TRAILER_BYTES] {
        let mut bytes = [0; TRAILER_BYTES];
        put(&mut bytes, 0, TRAILER_MAGIC);
        put(&mut bytes, TRAILER_INDEX, self.index_offset.to_le_bytes());
        put(&mut bytes, TRAILER_LENGTH, self.length.to_le_bytes());
        put(&mut bytes, TRAILER_WHOLE, self.whole_crc.to_le_bytes());
        let crc = crc32c(&bytes[..TRAILER_CRC]);
        put(&mut bytes, TRAILER_CRC, crc.to_le_bytes());
        bytes
    }

    /// Decodes a trailer; returns `None` if the bytes are not a valid one.
    #[must_use]
    pub fn decode(bytes: &[u8; TRAILER_BYTES]) -> Option<Trailer> {
        let sound = bytes.starts_with(&TRAILER_MAGIC) && u32_at(bytes, TRAILER_CRC) == crc32c(&bytes[..TRAILER_CRC]);
        sound.then(|| Trailer {
            index_offset: u64_at(bytes, TRAILER_INDEX),
            length: u64_at(bytes, TRAILER_LENGTH),
            whole_crc: u32_at(bytes, TRAILER_WHOLE),
        })
    }
}

/// The start of a section: the group, and its position in its history when the state was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SectionHead {
    /// The group whose state this is.
    pub group: GroupId,
    /// The group's state besides its keys and sessions.
    pub state: Snapshot,
}

/// The end of a section: the size of all its blocks, and the digest of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SectionEnd {
    /// How many blocks there are.
    pub blocks: u64,
    /// Bytes of all blocks before they were packed.
    pub block_bytes: u64,
    /// The digest of the state.
    pub digest: u64,
}

/// A section's entry in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SectionSummary {
    /// The group whose state this is.
    pub group: GroupId,
    /// The last instance that the state includes.
    pub instance: Instance,
    /// The offset of the section in the file.
    pub offset: u64,
    /// Bytes of the section in the file.
    pub length: u64,
    /// The content of the section's end chunk.
    pub end: SectionEnd,
}
