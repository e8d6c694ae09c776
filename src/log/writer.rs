//! Appends frames: one write and one sync for each batch. It never waits and has no thread, so that the simulator can
//! drive it; `handle` puts a thread around it.

use super::format::{FRAME_HEADER_BYTES, FramePlace, SEGMENT_HEADER_BYTES, SegmentHeader, encode_frame, frame_bytes};
use super::index::Index;
use super::spare::{LARGE, Spares};
use super::{Batch, LogError, LogStatus, Options, Record, RecordKind, segment_name};
use crate::disk::{Disk, DiskFile};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The buffer for frames keeps at most this after a larger one.
const BUFFER_BYTES_MAX: usize = 4 << 20;

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Append {
    /// It is durable; so long took the sync.
    Durable(Duration),
    /// Nothing was written: another segment must be made first. Offer the batch again when a spare is ready.
    NeedsSpare,
    /// Nothing was written: the frame needs a segment of its own, and there is no space for it. Offer it again later.
    NeedsSpace,
}

/// The end of the log.
pub struct Writer {
    disk: Arc<dyn Disk>,
    options: Options,
    seed: u32,
    storage_id: [u8; 16],
    segment: Segment,
    /// Of the last frame, which is durable.
    lsn: u64,
    /// The header CRC of the last frame.
    previous: u32,
    /// Behind the last frame there is an empty one that says so, or no room for it.
    marked: bool,
    buffer: Vec<u8>,
    pub(super) spares: Arc<Spares>,
    pub(super) status: Arc<LogStatus>,
    pub(super) index: Arc<Index>,
}

/// The segment that is written.
pub(super) struct Segment {
    pub(super) name: String,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) sequence: u64,
    pub(super) length: u64,
    /// Where the next frame goes.
    pub(super) tail: u64,
}

/// Where writing goes on.
pub(super) struct Position {
    pub(super) lsn: u64,
    pub(super) previous: u32,
    /// `None` in a log that has no segment yet.
    pub(super) segment: Option<Segment>,
}

impl Writer {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        storage_id: [u8; 16],
        options: Options,
        position: Position,
        status: Arc<LogStatus>,
        index: Arc<Index>,
    ) -> Result<Writer, LogError> {
        let spares = Arc::new(Spares::open(disk.clone(), options.segment_bytes, status.clone())?);
        let Position { lsn, previous, segment } = position;
        let segment = match segment {
            Some(segment) => segment,
            None => {
                spares.prepare().map_err(LogError::io(&segment_name(1), "make"))?;
                let first_lsn = lsn + 1;
                let length = options.segment_bytes;
                let header = SegmentHeader { previous, storage_id, sequence: 1, first_lsn, length };
                let Some(spare) = spares.take() else { unreachable!("the spare was just made") };
                let segment = Segment::begin(&*disk, spare, &header)?;
                spares.on_taken();
                index.begin_segment(segment.sequence, segment.tail);
                status.on_segment(length);
                segment
            }
        };
        status.set_lsn(lsn);
        let seed = super::format::frame_seed(&storage_id);
        let (marked, buffer) = (false, Vec::new());
        Ok(Writer { disk, options, seed, storage_id, segment, lsn, previous, marked, buffer, spares, status, index })
    }

    /// What the next batch must have.
    #[must_use]
    pub fn next_lsn(&self) -> u64 {
        self.lsn + 1
    }

    /// Counters, shared.
    #[must_use]
    pub fn status(&self) -> &Arc<LogStatus> {
        &self.status
    }

    /// True if the last frame is not yet known as durable to whoever reads the log: see [`Writer::mark`].
    #[must_use]
    pub fn wants_mark(&self) -> bool {
        !self.marked
    }

    /// Makes the next spare, for those who drive the writer without threads.
    pub fn prepare_spare(&self) -> io::Result<()> {
        self.spares.prepare()
    }

    /// Writes and syncs one frame. An error is final: nothing may be written after it.
    ///
    /// # Panics
    /// If the batch is not the next one.
    pub fn append(&mut self, batch: &Batch) -> Result<Append, LogError> {
        assert_eq!(batch.lsn, self.lsn + 1, "batches reach the log in order");
        let bytes = frame_bytes(&batch.records);
        if bytes > self.segment.room() {
            if !self.next_segment(bytes)? {
                return Ok(if self.is_large(bytes) { Append::NeedsSpace } else { Append::NeedsSpare });
            }
        } else if self.status.no_spare() && !self.may_use_reserve(&batch.records, bytes) {
            return Ok(Append::NeedsSpare);
        }
        let crc = self.write(batch.lsn, &batch.records)?;
        let started = Instant::now();
        self.segment.file.sync_data().map_err(LogError::io(&self.segment.name, "sync"))?;
        let took = started.elapsed();
        self.lsn = batch.lsn;
        self.previous = crc;
        self.segment.tail += bytes;
        self.marked = false;
        self.buffer.shrink_to(BUFFER_BYTES_MAX);
        self.index.add(&batch.records, self.segment.tail);
        self.status.on_sync(self.lsn, took);
        Ok(Append::Durable(took))
    }

    /// Writes an empty frame that says that the last one is durable, so that rot in it is not taken for a torn write.
    /// It is not synced, it is not counted, and the next frame takes its lsn and its place.
    pub fn mark(&mut self) -> Result<(), LogError> {
        self.marked = true;
        if self.segment.room() < FRAME_HEADER_BYTES as u64 {
            // The header of the next segment will say it.
            return Ok(());
        }
        self.write(self.lsn + 1, &[])?;
        Ok(())
    }

    fn write(&mut self, lsn: u64, records: &[Record]) -> Result<u32, LogError> {
        let place = FramePlace {
            seed: self.seed,
            lsn,
            durable: self.lsn,
            segment: self.segment.sequence,
            previous: self.previous,
        };
        let crc = encode_frame(&mut self.buffer, place, records);
        let written = self.segment.file.write_at(self.segment.tail, &self.buffer);
        written.map_err(LogError::io(&self.segment.name, "write"))?;
        Ok(crc)
    }

    /// While the disk is full the end of the last segment is for promises, so that this node can go on voting out
    /// leaders. The few other records that were on their way are let through as long as that leaves the reserve.
    fn may_use_reserve(&self, records: &[Record], bytes: u64) -> bool {
        let small = |record: &Record| matches!(record.kind, RecordKind::Promise | RecordKind::PeerStart);
        records.iter().all(small) || bytes + self.options.promise_reserve_bytes <= self.segment.room()
    }

    fn is_large(&self, bytes: u64) -> bool {
        bytes + SEGMENT_HEADER_BYTES as u64 > self.options.segment_bytes
    }

    /// Begins a segment in which a frame of `bytes` fits; false if there is none to be had.
    fn next_segment(&mut self, bytes: u64) -> Result<bool, LogError> {
        let large = self.is_large(bytes);
        let length = if large { bytes + SEGMENT_HEADER_BYTES as u64 } else { self.options.segment_bytes };
        let spare = if large { self.make_large(length) } else { self.spares.take() };
        let Some(spare) = spare else { return Ok(false) };
        let header = SegmentHeader {
            previous: self.previous,
            storage_id: self.storage_id,
            sequence: self.segment.sequence + 1,
            first_lsn: self.lsn + 1,
            length,
        };
        self.segment = Segment::begin(&*self.disk, spare, &header)?;
        if !large {
            self.spares.on_taken();
        }
        self.index.begin_segment(self.segment.sequence, self.segment.tail);
        self.status.on_segment(length);
        Ok(true)
    }

    fn make_large(&self, length: u64) -> Option<&'static str> {
        let made = self.spares.make(LARGE, length);
        if self.status.set_no_large(made.is_err()) {
            match &made {
                Ok(()) => tracing::info!("the log has space again in {}", self.disk.place()),
                Err(error) => tracing::error!(
                    "cannot make a log segment of {length} bytes in {}: {error}; the log waits until there is space",
                    self.disk.place()
                ),
            }
        }
        made.is_ok().then_some(LARGE)
    }
}

impl Segment {
    /// Makes a segment of a file of zeros. Its header is durable before its name is, and that before any frame.
    fn begin(disk: &dyn Disk, spare: &str, header: &SegmentHeader) -> Result<Segment, LogError> {
        let name = segment_name(header.sequence);
        let file = disk.open(spare).map_err(LogError::io(&name, "begin"))?;
        file.write_at(0, &header.encode()).map_err(LogError::io(&name, "write"))?;
        file.sync_data().map_err(LogError::io(&name, "sync"))?;
        disk.rename(spare, &name).map_err(LogError::io(&name, "name"))?;
        disk.sync_dir().map_err(LogError::io(&name, "sync the directory of"))?;
        let tail = SEGMENT_HEADER_BYTES as u64;
        Ok(Segment { name, file, sequence: header.sequence, length: header.length, tail })
    }

    fn room(&self) -> u64 {
        self.length - self.tail
    }
}
