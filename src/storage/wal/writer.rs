//! Appends frames: one write and one sync for each. The writer never waits for space and has no thread, so that
//! the simulator can drive it. In a server, the log thread of `handle` runs it.

use super::format::{
    FRAME_HEADER_BYTES, FramePlace, FrameSeal, SEGMENT_HEADER_BYTES, SegmentHeader, encode_frame, frame_bytes,
};
use super::index::Index;
use super::preallocation::{LARGE, PreallocatedSegments};
use super::{
    Batch, ChosenReader, DroppableSegments, LogError, LogOptions, LogStatus, Lsn, Record, SegmentSequence, segment_name,
};
use crate::storage::disk::{Disk, DiskFile};
use groups::{Instance, SplitMix64};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Maximum bytes that the buffer for frames keeps after a larger frame.
const BUFFER_BYTES_MAX: usize = 4 << 20;

/// The result of appending a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Append {
    /// The batch is durable; the duration is that of the sync, or for a large frame that of making its segment.
    Durable(Duration),
    /// Nothing was written: another segment must be made first. Append the batch again when one is ready.
    NeedsSegment,
    /// Nothing was written: the frame needs a segment of its own, which cannot be made now, mostly for lack of space.
    /// Append the batch again later.
    NeedsSpace,
}

/// The writer at the end of the log.
pub struct Writer {
    disk: Arc<dyn Disk>,
    options: LogOptions,
    /// Makes the salts of new segments from a secret.
    salts: SplitMix64,
    storage_id: [u8; 16],
    segment: Segment,
    /// The lsn of the last frame, which is durable.
    lsn: Lsn,
    /// The header CRC of the last frame.
    previous: u32,
    /// A durability marker stands behind the last frame.
    marked: bool,
    buffer: Vec<u8>,
    pub(super) preallocated: Arc<PreallocatedSegments>,
    pub(super) status: Arc<LogStatus>,
    pub(super) index: Arc<Index>,
}

/// The segment into which frames are written.
pub(super) struct Segment {
    pub(super) name: String,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) sequence: SegmentSequence,
    pub(super) seal: FrameSeal,
    pub(super) length: u64,
    /// Where the next frame goes.
    pub(super) tail: u64,
}

/// The position where writing goes on.
pub(super) struct Position {
    pub(super) lsn: Lsn,
    pub(super) previous: u32,
    /// `None` in a log that has no segment yet.
    pub(super) segment: Option<Segment>,
}

impl Writer {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        storage_id: [u8; 16],
        mut salts: SplitMix64,
        options: LogOptions,
        position: Position,
        status: Arc<LogStatus>,
        index: Arc<Index>,
    ) -> Result<Writer, LogError> {
        let preallocated =
            PreallocatedSegments::open(disk.clone(), options.segment_bytes, status.clone(), index.clone())?;
        let preallocated = Arc::new(preallocated);
        let Position { lsn, previous, segment } = position;
        let segment = match segment {
            Some(segment) => segment,
            None => {
                preallocated.prepare().map_err(LogError::io(&segment_name(SegmentSequence(1)), "make"))?;
                let first_lsn = lsn.following();
                let length = options.segment_bytes;
                let header = SegmentHeader {
                    previous,
                    storage_id,
                    sequence: SegmentSequence(1),
                    first_lsn,
                    length,
                    salt: Some(salts.bits()),
                };
                let Some(ready) = preallocated.take() else { unreachable!("the segment was just made") };
                let segment = Segment::begin(&*disk, &ready, &header)?;
                preallocated.on_taken();
                index.begin_segment(&header, segment.tail);
                status.on_segment(length);
                segment
            }
        };
        status.set_lsn(lsn);
        status.set_room(segment.room());
        let (marked, buffer) = (false, Vec::new());
        Ok(Writer {
            disk,
            options,
            salts,
            storage_id,
            segment,
            lsn,
            previous,
            marked,
            buffer,
            preallocated,
            status,
            index,
        })
    }

    /// Returns the lsn that the next batch must have.
    #[must_use]
    pub fn next_lsn(&self) -> Lsn {
        self.lsn.following()
    }

    /// Returns the counters, which are shared.
    #[must_use]
    pub fn status(&self) -> &Arc<LogStatus> {
        &self.status
    }

    /// Creates a reader of the values that this writer has made durable.
    #[must_use]
    pub fn reader(&self) -> ChosenReader {
        ChosenReader::new(self.disk.clone(), self.index.clone(), self.status.clone())
    }

    /// Returns which of the oldest segments have only values at or below their group's instance in `floors`.
    #[must_use]
    pub fn droppable(&self, floors: &[Instance]) -> Option<DroppableSegments> {
        self.index.droppable(floors)
    }

    /// Removes the segments below `below` now. For callers that drive the writer without threads.
    ///
    /// # Errors
    /// [`LogError::Io`]. The call may be repeated.
    pub fn drop_segments(&self, below: SegmentSequence) -> Result<(), LogError> {
        super::trim::drop_segments(&self.preallocated, &self.index, &self.status, below)
    }

    /// Returns true if no durability marker shows the last frame as durable: see [`Writer::write_durability_marker`].
    #[must_use]
    pub fn wants_durability_marker(&self) -> bool {
        !self.marked
    }

    /// Returns the last segment, and the offset of the next frame in it.
    #[cfg(test)]
    pub(super) fn place(&self) -> (SegmentSequence, u64) {
        (self.segment.sequence, self.segment.tail)
    }

    /// Makes the next preallocated segment. For callers that drive the writer without threads.
    pub fn preallocate(&self) -> io::Result<()> {
        self.preallocated.prepare()
    }

    /// Writes and syncs one frame. An error is final: nothing may be written after it.
    ///
    /// # Panics
    /// If the batch is not the next one.
    pub fn append(&mut self, batch: &Batch) -> Result<Append, LogError> {
        assert_eq!(batch.lsn, self.lsn.following(), "batches reach the log in order");
        let bytes = frame_bytes(&batch.records);
        if bytes > self.segment.room() {
            if self.is_large(bytes) {
                return self.append_large(batch, bytes);
            }
            if !self.next_segment()? {
                return Ok(Append::NeedsSegment);
            }
        }
        let crc = self.write(batch.lsn, &batch.records)?;
        let started = Instant::now();
        self.segment.file.sync_data().map_err(LogError::io(&self.segment.name, "sync"))?;
        Ok(self.on_durable(batch, bytes, crc, started.elapsed()))
    }

    /// Takes note that the batch's frame is durable behind the tail.
    fn on_durable(&mut self, batch: &Batch, bytes: u64, crc: u32, took: Duration) -> Append {
        self.lsn = batch.lsn;
        self.previous = crc;
        self.segment.tail += bytes;
        self.status.set_room(self.segment.room());
        self.marked = false;
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_BYTES_MAX);
        self.index.add(&batch.records, self.segment.tail);
        self.status.on_sync(self.lsn, took);
        Append::Durable(took)
    }

    /// Writes a durability marker: an empty frame that says that the last frame is durable, so that rot in that frame
    /// is not taken for a torn write. The marker is not synced, and does not advance the lsn or the tail: the next
    /// frame overwrites it. A restart, however, counts the marker as a frame.
    pub fn write_durability_marker(&mut self) -> Result<(), LogError> {
        self.marked = true;
        if self.segment.length - self.segment.tail < FRAME_HEADER_BYTES as u64 {
            // The segment is filled to its end, by an older version or by a marker that a restart counted as a frame.
            // The header of the next segment will show that the last frame is durable.
            return Ok(());
        }
        self.write(self.lsn.following(), &[])?;
        Ok(())
    }

    fn write(&mut self, lsn: Lsn, records: &[Record]) -> Result<u32, LogError> {
        let crc = self.encode(lsn, self.segment.sequence, self.segment.seal, records);
        let written = self.segment.file.write_at(self.segment.tail, &self.buffer);
        written.map_err(LogError::io(&self.segment.name, "write"))?;
        Ok(crc)
    }

    /// Encodes a frame for the segment with this sequence number and seal into the buffer. Returns the CRC of its
    /// header.
    fn encode(&mut self, lsn: Lsn, segment: SegmentSequence, seal: FrameSeal, records: &[Record]) -> u32 {
        let place = FramePlace { seal, lsn, durable: self.lsn, segment, previous: self.previous };
        encode_frame(&mut self.buffer, place, records)
    }

    fn is_large(&self, bytes: u64) -> bool {
        large_bytes(bytes) > self.options.segment_bytes
    }

    /// Begins the next segment. Returns false if no preallocated segment is ready.
    fn next_segment(&mut self) -> Result<bool, LogError> {
        let Some(ready) = self.preallocated.take() else { return Ok(false) };
        let header = self.next_header(self.options.segment_bytes);
        self.segment = Segment::begin(&*self.disk, &ready, &header)?;
        self.preallocated.on_taken();
        self.index.begin_segment(&header, self.segment.tail);
        self.status.on_segment(header.length);
        Ok(true)
    }

    fn next_header(&mut self, length: u64) -> SegmentHeader {
        SegmentHeader {
            previous: self.previous,
            storage_id: self.storage_id,
            sequence: self.segment.sequence.following(),
            first_lsn: self.lsn.following(),
            length,
            salt: Some(self.salts.bits()),
        }
    }

    /// Appends a frame in a segment of its own. The frame is written before the segment gets its name, so the file need
    /// not be filled with zeros first. An error before that, such as a lack of space, is no failed write of the log: no
    /// part of the frame is in the log yet.
    fn append_large(&mut self, batch: &Batch, bytes: u64) -> Result<Append, LogError> {
        let header = self.next_header(large_bytes(bytes));
        let crc = self.encode(batch.lsn, header.sequence, header.frame_seal(), &batch.records);
        let started = Instant::now();
        let made = self.make_large(&header);
        if self.status.set_no_large(made.is_err()) {
            let (length, place) = (header.length, self.disk.place());
            match &made {
                Ok(_) => tracing::info!("the log has space again in {place}"),
                Err(error) => tracing::error!(
                    "cannot make a log segment of {length} bytes in {place}: {error}; the log waits until there is space"
                ),
            }
        }
        let Ok(file) = made else {
            // The unfinished file must not take space that other files need. Errors are ignored, because there may be
            // no such file.
            let _ = self.disk.remove(LARGE);
            return Ok(Append::NeedsSpace);
        };
        self.segment = Segment::named(&*self.disk, file, LARGE, &header)?;
        self.index.begin_segment(&header, self.segment.tail);
        self.status.on_segment(header.length);
        Ok(self.on_durable(batch, bytes, crc, started.elapsed()))
    }

    /// Writes the buffer as a durable segment, still under a temporary name.
    fn make_large(&self, header: &SegmentHeader) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.create(LARGE)?;
        file.write_at(0, &header.encode())?;
        file.write_at(SEGMENT_HEADER_BYTES as u64, &self.buffer)?;
        file.write_at(header.length - FRAME_HEADER_BYTES as u64, &[0; FRAME_HEADER_BYTES])?;
        file.sync_data()?;
        Ok(file)
    }
}

impl Segment {
    /// Makes a segment of a preallocated file. The header is durable before the name, and the name before any frame.
    fn begin(disk: &dyn Disk, ready: &str, header: &SegmentHeader) -> Result<Segment, LogError> {
        let name = segment_name(header.sequence);
        let file = disk.open(ready).map_err(LogError::io(&name, "begin"))?;
        file.write_at(0, &header.encode()).map_err(LogError::io(&name, "write"))?;
        file.sync_data().map_err(LogError::io(&name, "sync"))?;
        Segment::named(disk, file, ready, header)
    }

    /// Gives a durable file the name of its segment.
    fn named(
        disk: &dyn Disk,
        file: Arc<dyn DiskFile>,
        from: &str,
        header: &SegmentHeader,
    ) -> Result<Segment, LogError> {
        let name = segment_name(header.sequence);
        disk.rename(from, &name).map_err(LogError::io(&name, "name"))?;
        disk.sync_dir().map_err(LogError::io(&name, "sync the directory of"))?;
        let tail = SEGMENT_HEADER_BYTES as u64;
        Ok(Segment { name, file, sequence: header.sequence, seal: header.frame_seal(), length: header.length, tail })
    }

    /// Returns the bytes left for frames. A durability marker must fit behind the last one: else rot in that frame
    /// would look like a torn write.
    fn room(&self) -> u64 {
        (self.length - self.tail).saturating_sub(FRAME_HEADER_BYTES as u64)
    }
}

/// Returns the length of a segment for one frame of `bytes` and the durability marker behind it.
fn large_bytes(bytes: u64) -> u64 {
    bytes + (SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES) as u64
}
