//! The bytes of the log. Little-endian; every byte of a header or frame is under a CRC-32C or checked to be zero.
//!
//! ```text
//! segment = header (64) | frame | frame | … | zeros, or the bytes of an older segment
//! frame   = header (56) | record header (48) * count | payload * count, not aligned | zeros up to a multiple of 8
//!
//! segment header   0 magic | 8 version u32 | 12 previous u32 | 16 storage id [16] | 32 sequence u64 | 40 first lsn u64
//!                 48 length in units of 8 bytes u32 | 52 salt u64 | 60 CRC of bytes 0..60
//! frame header     0 magic u32 | 4 count u32 | 8 lsn u64 | 16 durable u64 | 24 segment u64 | 32 payload bytes u64
//!                 40 CRC of the record headers u32 | 44 previous u32 | 48 mark u32 | 52 CRC of bytes 0..52
//! record header    0 kind u8 | 1 zero [3] | 4 group u32 | 8 instance u64 | 16 ballot round u64 | 24 ballot node u32
//!                 28 chosen node u32 | 32 chosen round u64 | 40 payload length u32 | 44 payload CRC u32
//! ```
//!
//! `previous` is the header CRC of the frame before. A segment's header has it, too, so that the chain can be followed
//! from any segment after older ones are dropped.
//!
//! The CRC of a frame header starts from the storage id and the segment's salt, and `mark` is one half of the salt. Each
//! segment has a salt of its own, which no client can know. So nothing else in the file is taken for a frame: not the
//! frames of the older segment that the file was before, and not what a client has put into a value.
//!
//! Version 1 has no salt: there the segment header holds the length as u64 at 48 and a zero u32 at 56, and `mark` is 0. A
//! later version keeps the size of the segment header and the places of its magic, version and CRC.

use super::{Lsn, Record, RecordKind, SegmentSequence};
use crate::storage::fields::{put, take, u32_at, u64_at};
use crc32c::{crc32c, crc32c_append};
use groups::{Ballot, GroupId, Instance, NodeId};

/// The version of the format that is written, and the highest that is read.
pub const FORMAT_VERSION: u32 = 2;
/// The lowest version that is read: segments without a salt.
const UNSALTED_VERSION: u32 = 1;

/// Bytes in front of a segment's first frame.
pub const SEGMENT_HEADER_BYTES: usize = SEGMENT_CRC + 4;
/// Bytes in front of a frame's record headers.
pub const FRAME_HEADER_BYTES: usize = FRAME_CRC + 4;
/// Bytes of one record header.
pub const RECORD_HEADER_BYTES: usize = RECORD_PAYLOAD_CRC + 4;
/// Frames start at multiples of this many bytes.
pub const FRAME_ALIGNMENT: usize = 8;

const SEGMENT_MAGIC: [u8; 8] = *b"PAXOILOG";
const SEGMENT_VERSION: usize = SEGMENT_MAGIC.len();
const SEGMENT_PREVIOUS: usize = SEGMENT_VERSION + 4;
const SEGMENT_STORAGE_ID: usize = SEGMENT_PREVIOUS + 4;
const SEGMENT_SEQUENCE: usize = SEGMENT_STORAGE_ID + 16;
const SEGMENT_FIRST_LSN: usize = SEGMENT_SEQUENCE + 8;
const SEGMENT_LENGTH: usize = SEGMENT_FIRST_LSN + 8;
const SEGMENT_SALT: usize = SEGMENT_LENGTH + 4;
const SEGMENT_CRC: usize = SEGMENT_SALT + 8;

/// The magic of every frame. The search for later frames after a bad frame looks for this magic.
pub const FRAME_MAGIC: [u8; 4] = *b"PXFR";
const FRAME_COUNT: usize = FRAME_MAGIC.len();
const FRAME_LSN: usize = FRAME_COUNT + 4;
const FRAME_DURABLE: usize = FRAME_LSN + 8;
const FRAME_SEGMENT: usize = FRAME_DURABLE + 8;
const FRAME_PAYLOAD_BYTES: usize = FRAME_SEGMENT + 8;
const FRAME_RECORDS_CRC: usize = FRAME_PAYLOAD_BYTES + 8;
const FRAME_PREVIOUS: usize = FRAME_RECORDS_CRC + 4;
const FRAME_MARK: usize = FRAME_PREVIOUS + 4;
const FRAME_CRC: usize = FRAME_MARK + 4;

const RECORD_KIND: usize = 0;
const RECORD_GROUP: usize = RECORD_KIND + 4;
const RECORD_INSTANCE: usize = RECORD_GROUP + 4;
const RECORD_BALLOT_ROUND: usize = RECORD_INSTANCE + 8;
const RECORD_BALLOT_NODE: usize = RECORD_BALLOT_ROUND + 8;
const RECORD_CHOSEN_NODE: usize = RECORD_BALLOT_NODE + 4;
const RECORD_CHOSEN_ROUND: usize = RECORD_CHOSEN_NODE + 4;
const RECORD_PAYLOAD_LENGTH: usize = RECORD_CHOSEN_ROUND + 8;
const RECORD_PAYLOAD_CRC: usize = RECORD_PAYLOAD_LENGTH + 4;

const _: () = assert!(SEGMENT_HEADER_BYTES == 64 && FRAME_HEADER_BYTES == 56 && RECORD_HEADER_BYTES == 48);
const _: () = assert!(
    SEGMENT_HEADER_BYTES.is_multiple_of(FRAME_ALIGNMENT)
        && FRAME_HEADER_BYTES.is_multiple_of(FRAME_ALIGNMENT)
        && RECORD_HEADER_BYTES.is_multiple_of(FRAME_ALIGNMENT)
);

/// The start of a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The header CRC of the last frame of the segment before; 0 in the first segment.
    pub previous: u32,
    /// The storage id of the directory that the log belongs to.
    pub storage_id: [u8; 16],
    /// The sequence number: segments count 1, 2, 3… without gaps.
    pub sequence: SegmentSequence,
    /// The lsn of the first frame. Everything below it was durable before this header was written.
    pub first_lsn: Lsn,
    /// Bytes in the file, a multiple of [`FRAME_ALIGNMENT`]: a shorter file has lost its end.
    pub length: u64,
    /// A random number of this segment that no client knows; `None` in a segment of version 1.
    pub salt: Option<u64>,
}

/// Why a segment header cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentFlaw {
    /// The magic or the checksum is wrong.
    Checksum,
    /// Written by a later version of the program.
    Version(u32),
}

impl SegmentHeader {
    /// Encodes the header.
    ///
    /// # Panics
    /// If the length of a segment with a salt is 32 GiB or more: such a frame does not fit into memory.
    #[must_use]
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        put(&mut bytes, 0, SEGMENT_MAGIC);
        put(&mut bytes, SEGMENT_PREVIOUS, self.previous.to_le_bytes());
        put(&mut bytes, SEGMENT_STORAGE_ID, self.storage_id);
        put(&mut bytes, SEGMENT_SEQUENCE, self.sequence.0.to_le_bytes());
        put(&mut bytes, SEGMENT_FIRST_LSN, self.first_lsn.0.to_le_bytes());
        match self.salt {
            Some(salt) => {
                let units = u32::try_from(self.length / FRAME_ALIGNMENT as u64).expect("segments are below 32 GiB");
                put(&mut bytes, SEGMENT_VERSION, FORMAT_VERSION.to_le_bytes());
                put(&mut bytes, SEGMENT_LENGTH, units.to_le_bytes());
                put(&mut bytes, SEGMENT_SALT, salt.to_le_bytes());
            }
            None => {
                put(&mut bytes, SEGMENT_VERSION, UNSALTED_VERSION.to_le_bytes());
                put(&mut bytes, SEGMENT_LENGTH, self.length.to_le_bytes());
            }
        }
        let crc = crc32c(&bytes[..SEGMENT_CRC]);
        put(&mut bytes, SEGMENT_CRC, crc.to_le_bytes());
        bytes
    }

    /// Decodes a header from the start of a file.
    pub fn decode(bytes: &[u8]) -> Result<SegmentHeader, SegmentFlaw> {
        if bytes.len() < SEGMENT_HEADER_BYTES
            || bytes[..SEGMENT_VERSION] != SEGMENT_MAGIC
            || u32_at(bytes, SEGMENT_CRC) != crc32c(&bytes[..SEGMENT_CRC])
        {
            return Err(SegmentFlaw::Checksum);
        }
        let (length, salt) = match u32_at(bytes, SEGMENT_VERSION) {
            UNSALTED_VERSION => (u64_at(bytes, SEGMENT_LENGTH), None),
            FORMAT_VERSION => {
                let units = u64::from(u32_at(bytes, SEGMENT_LENGTH));
                (units * FRAME_ALIGNMENT as u64, Some(u64_at(bytes, SEGMENT_SALT)))
            }
            version => return Err(SegmentFlaw::Version(version)),
        };
        Ok(SegmentHeader {
            previous: u32_at(bytes, SEGMENT_PREVIOUS),
            storage_id: take(bytes, SEGMENT_STORAGE_ID),
            sequence: SegmentSequence(u64_at(bytes, SEGMENT_SEQUENCE)),
            first_lsn: Lsn(u64_at(bytes, SEGMENT_FIRST_LSN)),
            length,
            salt,
        })
    }

    /// Returns what marks the frames of this segment.
    #[must_use]
    pub fn frame_seal(&self) -> FrameSeal {
        let unsalted = crc32c(&self.storage_id);
        match self.salt {
            Some(salt) => {
                FrameSeal { crc: crc32c_append(unsalted, &salt.to_le_bytes()), mark: (salt >> u32::BITS) as u32 }
            }
            None => FrameSeal { crc: unsalted, mark: 0 },
        }
    }
}

/// Marks the frames of one segment: 64 bits that follow from its salt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameSeal {
    /// The initial value of the CRC of a frame header.
    pub crc: u32,
    /// Stands in each frame header.
    pub mark: u32,
}

/// The start of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// How many records there are.
    pub count: u32,
    /// The number of the frame: frames count 1, 2, 3… through all segments.
    pub lsn: Lsn,
    /// The highest lsn that was known to be durable when this frame was written.
    pub durable: Lsn,
    /// The sequence number of the segment that the frame was written into.
    pub segment: SegmentSequence,
    /// The bytes of all payloads together.
    pub payload_bytes: u64,
    /// The CRC of the record headers.
    pub records_crc: u32,
    /// The CRC in the header of the frame before.
    pub previous: u32,
    /// The CRC of this header.
    pub crc: u32,
}

impl FrameHeader {
    /// Decodes a header; returns `None` if its magic, mark or CRC is wrong.
    #[must_use]
    pub fn decode(bytes: &[u8], seal: FrameSeal) -> Option<FrameHeader> {
        if bytes.len() < FRAME_HEADER_BYTES || !bytes.starts_with(&FRAME_MAGIC) {
            return None;
        }
        let crc = u32_at(bytes, FRAME_CRC);
        let header = FrameHeader {
            count: u32_at(bytes, FRAME_COUNT),
            lsn: Lsn(u64_at(bytes, FRAME_LSN)),
            durable: Lsn(u64_at(bytes, FRAME_DURABLE)),
            segment: SegmentSequence(u64_at(bytes, FRAME_SEGMENT)),
            payload_bytes: u64_at(bytes, FRAME_PAYLOAD_BYTES),
            records_crc: u32_at(bytes, FRAME_RECORDS_CRC),
            previous: u32_at(bytes, FRAME_PREVIOUS),
            crc,
        };
        let is_sealed = u32_at(bytes, FRAME_MARK) == seal.mark && crc == crc32c_append(seal.crc, &bytes[..FRAME_CRC]);
        is_sealed.then_some(header)
    }

    /// Returns the bytes of the record headers.
    #[must_use]
    pub fn records_bytes(&self) -> u64 {
        u64::from(self.count) * RECORD_HEADER_BYTES as u64
    }

    /// Returns the bytes of the whole frame, with the zeros at its end.
    #[must_use]
    pub fn frame_bytes(&self) -> u64 {
        aligned((FRAME_HEADER_BYTES as u64 + self.records_bytes()).saturating_add(self.payload_bytes))
    }
}

/// Returns the bytes of the frame that holds `records`.
#[must_use]
pub fn frame_bytes(records: &[Record]) -> u64 {
    let payloads: u64 = records.iter().map(|record| record.payload().len() as u64).sum();
    aligned((FRAME_HEADER_BYTES + records.len() * RECORD_HEADER_BYTES) as u64 + payloads)
}

fn aligned(bytes: u64) -> u64 {
    bytes.checked_next_multiple_of(FRAME_ALIGNMENT as u64).unwrap_or(u64::MAX)
}

/// Where a frame stands in its log.
#[derive(Clone, Copy, Debug)]
pub struct FramePlace {
    /// See [`SegmentHeader::frame_seal`].
    pub seal: FrameSeal,
    /// See [`FrameHeader::lsn`].
    pub lsn: Lsn,
    /// See [`FrameHeader::durable`].
    pub durable: Lsn,
    /// See [`FrameHeader::segment`].
    pub segment: SegmentSequence,
    /// See [`FrameHeader::previous`].
    pub previous: u32,
}

/// Replaces the content of `buffer` with one frame. Returns the CRC of its header, which the next frame repeats.
///
/// # Panics
/// If a payload is 4 GiB or more, which no limit of the layers above allows, or if a record is a [`Record::Lost`].
pub fn encode_frame(buffer: &mut Vec<u8>, place: FramePlace, records: &[Record]) -> u32 {
    buffer.clear();
    buffer.resize(FRAME_HEADER_BYTES, 0);
    for record in records {
        assert!(!matches!(record, Record::Lost { .. }), "what is lost is not written");
        encode_record_header(buffer, &record.header());
    }
    let records_crc = crc32c(&buffer[FRAME_HEADER_BYTES..]);
    let payloads = buffer.len();
    for record in records {
        buffer.extend_from_slice(record.payload());
    }
    let payload_bytes = (buffer.len() - payloads) as u64;
    buffer.resize(buffer.len().next_multiple_of(FRAME_ALIGNMENT), 0);
    put(buffer, 0, FRAME_MAGIC);
    let count = u32::try_from(records.len()).expect("a batch has fewer than 2^32 records");
    put(buffer, FRAME_COUNT, count.to_le_bytes());
    put(buffer, FRAME_LSN, place.lsn.0.to_le_bytes());
    put(buffer, FRAME_DURABLE, place.durable.0.to_le_bytes());
    put(buffer, FRAME_SEGMENT, place.segment.0.to_le_bytes());
    put(buffer, FRAME_PAYLOAD_BYTES, payload_bytes.to_le_bytes());
    put(buffer, FRAME_RECORDS_CRC, records_crc.to_le_bytes());
    put(buffer, FRAME_PREVIOUS, place.previous.to_le_bytes());
    put(buffer, FRAME_MARK, place.seal.mark.to_le_bytes());
    let crc = crc32c_append(place.seal.crc, &buffer[..FRAME_CRC]);
    put(buffer, FRAME_CRC, crc.to_le_bytes());
    crc
}

fn encode_record_header(buffer: &mut Vec<u8>, record: &RecordHeader) {
    let mut bytes = [0; RECORD_HEADER_BYTES];
    bytes[RECORD_KIND] = record.kind;
    put(&mut bytes, RECORD_GROUP, record.group.0.to_le_bytes());
    put(&mut bytes, RECORD_INSTANCE, record.instance.0.to_le_bytes());
    put(&mut bytes, RECORD_BALLOT_ROUND, record.ballot.round.to_le_bytes());
    put(&mut bytes, RECORD_BALLOT_NODE, record.ballot.node.0.to_le_bytes());
    put(&mut bytes, RECORD_CHOSEN_NODE, record.chosen.node.0.to_le_bytes());
    put(&mut bytes, RECORD_CHOSEN_ROUND, record.chosen.round.to_le_bytes());
    put(&mut bytes, RECORD_PAYLOAD_LENGTH, record.payload_length.to_le_bytes());
    put(&mut bytes, RECORD_PAYLOAD_CRC, record.payload_crc.to_le_bytes());
    buffer.extend_from_slice(&bytes);
}

/// A record without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// The number of the kind, which may be one that only later versions know.
    pub kind: u8,
    /// The group; 0 in the records of the node.
    pub group: GroupId,
    /// The instance, the start number or the segment's sequence number.
    pub instance: Instance,
    /// The ballot promised, accepted or chosen; its node alone in the record of another node's start.
    pub ballot: Ballot,
    /// The ballot under which the instance before is known to be chosen.
    pub chosen: Ballot,
    /// Bytes of the payload.
    pub payload_length: u32,
    /// The CRC of the payload.
    pub payload_crc: u32,
}

impl RecordHeader {
    /// Returns true if the record holds a value of an instance.
    #[must_use]
    pub fn has_value(&self) -> bool {
        RecordKind::from_number(self.kind).is_some_and(RecordKind::has_value)
    }

    /// Decodes a header from the first bytes of `bytes`.
    ///
    /// # Panics
    /// If there are fewer than [`RECORD_HEADER_BYTES`].
    #[must_use]
    pub fn decode(bytes: &[u8]) -> RecordHeader {
        let ballot = |round, node| Ballot { round: u64_at(bytes, round), node: NodeId(u32_at(bytes, node)) };
        RecordHeader {
            kind: bytes[RECORD_KIND],
            group: GroupId(u32_at(bytes, RECORD_GROUP)),
            instance: Instance(u64_at(bytes, RECORD_INSTANCE)),
            ballot: ballot(RECORD_BALLOT_ROUND, RECORD_BALLOT_NODE),
            chosen: ballot(RECORD_CHOSEN_ROUND, RECORD_CHOSEN_NODE),
            payload_length: u32_at(bytes, RECORD_PAYLOAD_LENGTH),
            payload_crc: u32_at(bytes, RECORD_PAYLOAD_CRC),
        }
    }
}

/// Iterates over the records of a frame, each with its payload. `body` is everything behind the frame header.
///
/// # Panics
/// If `body` was not found sound by [`check_records`].
pub fn records<'a>(header: &FrameHeader, body: &'a [u8]) -> impl Iterator<Item = (RecordHeader, &'a [u8])> {
    let (headers, mut payloads) = body.split_at(header.count as usize * RECORD_HEADER_BYTES);
    headers.chunks_exact(RECORD_HEADER_BYTES).map(move |bytes| {
        let record = RecordHeader::decode(bytes);
        let (payload, rest) = payloads.split_at(record.payload_length as usize);
        payloads = rest;
        (record, payload)
    })
}

/// What is wrong with the bytes behind a frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFlaw {
    /// The record headers do not match their CRC, their lengths do not add up, or the padding is not zero.
    Records,
    /// The payload of one record does not match its CRC.
    Payload(RecordHeader),
}

/// Checks the record headers of a frame, and returns where the last payload ends in `body`.
pub fn check_records(header: &FrameHeader, body: &[u8]) -> Result<usize, BodyFlaw> {
    let records_bytes = header.count as usize * RECORD_HEADER_BYTES;
    if body.len() < records_bytes || crc32c(&body[..records_bytes]) != header.records_crc {
        return Err(BodyFlaw::Records);
    }
    let lengths = body[..records_bytes].chunks_exact(RECORD_HEADER_BYTES);
    let payload_bytes: u64 = lengths.map(|bytes| u64::from(u32_at(bytes, RECORD_PAYLOAD_LENGTH))).sum();
    let end = records_bytes as u64 + payload_bytes;
    if payload_bytes != header.payload_bytes || end > body.len() as u64 {
        return Err(BodyFlaw::Records);
    }
    Ok(end as usize)
}

/// Checks all of a frame behind its header.
pub fn check_body(header: &FrameHeader, body: &[u8]) -> Result<(), BodyFlaw> {
    let end = check_records(header, body)?;
    for (record, payload) in records(header, body) {
        if crc32c(payload) != record.payload_crc {
            return Err(BodyFlaw::Payload(record));
        }
    }
    if body[end..].iter().any(|byte| *byte != 0) {
        return Err(BodyFlaw::Records);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::wal::{Logged, ValueRecord};
    use bytes::Bytes;

    fn sample() -> Vec<Record> {
        let ballot = |round, node| Ballot { round, node: NodeId(node) };
        vec![
            Record::Accept(ValueRecord {
                group: GroupId(0x0102_0304),
                instance: Instance(0x1112_1314_1516_1718),
                ballot: ballot(0x2122_2324_2526_2728, 0x3132_3334),
                chosen: ballot(0x4142_4344_4546_4748, 0x5152_5354),
                payload: Bytes::from_static(b"one"),
            }),
            Record::Promise { group: GroupId(1), ballot: ballot(3, 4) },
        ]
    }

    const SEAL: FrameSeal = FrameSeal { crc: 77, mark: 5 };
    const PLACE: FramePlace =
        FramePlace { seal: SEAL, lsn: Lsn(9), durable: Lsn(8), segment: SegmentSequence(3), previous: 0xabcd };

    #[test]
    fn a_frame_reads_back_and_has_the_size_that_was_foretold() {
        let mut buffer = vec![1, 2, 3];
        let crc = encode_frame(&mut buffer, PLACE, &sample());
        assert_eq!(buffer.len() as u64, frame_bytes(&sample()));
        let header = FrameHeader::decode(&buffer, SEAL).unwrap();
        assert_eq!((header.lsn, header.durable, header.segment), (Lsn(9), Lsn(8), SegmentSequence(3)));
        assert_eq!((header.previous, header.crc, header.count), (0xabcd, crc, 2));
        assert_eq!(header.frame_bytes(), buffer.len() as u64);
        let body = &buffer[FRAME_HEADER_BYTES..];
        assert_eq!(check_body(&header, body), Ok(()));
        let read: Vec<Record> = records(&header, body)
            .map(|(record, payload)| Logged::new(record, payload, false).unwrap().record())
            .collect();
        assert_eq!(read, sample());
    }

    #[test]
    fn every_flipped_bit_of_a_frame_is_found() {
        let mut frame = Vec::new();
        encode_frame(&mut frame, PLACE, &sample());
        for bit in 0..frame.len() * 8 {
            frame[bit / 8] ^= 1 << (bit % 8);
            let sound = FrameHeader::decode(&frame, SEAL)
                .is_some_and(|header| check_body(&header, &frame[FRAME_HEADER_BYTES..]).is_ok());
            assert!(!sound, "bit {bit}");
            frame[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_rotten_payload_names_its_record() {
        let mut frame = Vec::new();
        encode_frame(&mut frame, PLACE, &sample());
        frame[FRAME_HEADER_BYTES + 2 * RECORD_HEADER_BYTES] ^= 1;
        let header = FrameHeader::decode(&frame, SEAL).unwrap();
        let Err(BodyFlaw::Payload(record)) = check_body(&header, &frame[FRAME_HEADER_BYTES..]) else {
            panic!("not found");
        };
        assert_eq!((record.group, record.instance), (GroupId(0x0102_0304), Instance(0x1112_1314_1516_1718)));
    }

    #[test]
    fn a_frame_of_another_log_or_segment_is_no_frame() {
        let header = |storage_id, salt| SegmentHeader {
            previous: 0,
            storage_id: [storage_id; 16],
            sequence: SegmentSequence(1),
            first_lsn: Lsn(1),
            length: 1 << 20,
            salt,
        };
        let seal = header(7, Some(1)).frame_seal();
        let mut frame = Vec::new();
        encode_frame(&mut frame, FramePlace { seal, ..PLACE }, &sample());
        assert!(FrameHeader::decode(&frame, seal).is_some());
        for (storage_id, salt) in [(8, Some(1)), (7, Some(2)), (7, Some(1 | 1 << 63)), (7, None)] {
            assert_eq!(FrameHeader::decode(&frame, header(storage_id, salt).frame_seal()), None);
        }
    }

    #[test]
    fn a_segment_header_reads_back_and_tells_versions_from_rot() {
        let unsalted = SegmentHeader {
            previous: 5,
            storage_id: [7; 16],
            sequence: SegmentSequence(2),
            first_lsn: Lsn(40),
            length: 1 << 20,
            salt: None,
        };
        assert_eq!(SegmentHeader::decode(&unsalted.encode()), Ok(unsalted));
        let header = SegmentHeader { salt: Some(u64::MAX - 1), ..unsalted };
        let mut bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        assert_eq!(SegmentHeader::decode(&bytes[..63]), Err(SegmentFlaw::Checksum));
        bytes[SEGMENT_VERSION] = 3;
        assert_eq!(SegmentHeader::decode(&bytes), Err(SegmentFlaw::Checksum));
        let crc = crc32c(&bytes[..SEGMENT_CRC]);
        put(&mut bytes, SEGMENT_CRC, crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Err(SegmentFlaw::Version(3)));
    }
}
