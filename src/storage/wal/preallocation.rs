//! Keeps preallocated segments ready, and removes old segments. A preallocated segment is an old segment, or a file
//! that is filled with zeros and synced. So writing a frame into it changes no metadata, and its sync is one write of
//! the device. A full disk shows here, and never in the middle of a frame.
//!
//! Zeros cost as many writes as the frames that go over them. So old segments are used first, and a new one is made only
//! if none is left. Their frames stay in the file; the new segment has another salt.

use super::index::Index;
use super::trim::drop_segments;
use super::{LogError, LogStatus, SegmentSequence, segment_name};
use crate::storage::disk::Disk;
use crate::storage::numbered::Numbered;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The name of the preallocated segment of zeros.
const SPARE: &str = "spare";
/// The names of old segments that are preallocated segments now. The number is that of the old segment.
const RECYCLED: Numbered = Numbered("spare-");
/// Maximum old segments that are kept. More are removed.
const RECYCLED_MAX: usize = 8;
/// The name of a segment for one frame that is larger than a preallocated segment, until it is durable.
pub(super) const LARGE: &str = "spare-large";
/// The suffix of the name of a file that is not whole yet.
const UNFINISHED: &str = ".new";

/// Interval at which the space of the disk is checked while several segments are ready.
const SPACE_CHECK: Duration = Duration::from_secs(1);

/// Bytes zeroed between two syncs. A concurrent sync of the log waits for at most these bytes.
const ZEROS_BYTES: usize = 1 << 20;

pub(super) struct PreallocatedSegments {
    disk: Arc<dyn Disk>,
    bytes: u64,
    status: Arc<LogStatus>,
    index: Arc<Index>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The names of the preallocated segments that are ready.
    ready: VecDeque<String>,
    stopped: bool,
    /// Segments with a lower sequence number are to be removed.
    drop_below: SegmentSequence,
}

impl PreallocatedSegments {
    /// Uses existing preallocated segments that have the right size, and removes files that cannot be used.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        bytes: u64,
        status: Arc<LogStatus>,
        index: Arc<Index>,
    ) -> Result<PreallocatedSegments, LogError> {
        let mut ready = VecDeque::new();
        for name in disk.list().map_err(LogError::io(SPARE, "find"))? {
            if name == SPARE || RECYCLED.sequence(&name).is_some() {
                let file = disk.open_read_only(&name).map_err(LogError::io(&name, "open"))?;
                if file.size().map_err(LogError::io(&name, "read"))? == bytes && ready.len() < RECYCLED_MAX {
                    ready.push_back(name);
                    continue;
                }
            }
            let unfinished = name.strip_suffix(UNFINISHED).is_some_and(|name| name == SPARE);
            if unfinished || name == LARGE || name == SPARE || RECYCLED.sequence(&name).is_some() {
                disk.remove(&name).map_err(LogError::io(&name, "remove"))?;
            }
        }
        status.set_preallocated(!ready.is_empty());
        let state = Mutex::new(State { ready, stopped: false, drop_below: SegmentSequence(0) });
        Ok(PreallocatedSegments { disk, bytes, status, index, state, changed: Condvar::new() })
    }

    /// Returns the name of the next preallocated segment, if one is ready. The caller must rename it before any other
    /// call here.
    pub(super) fn take(&self) -> Option<String> {
        self.state().ready.front().cloned()
    }

    /// Takes note that the segment of the last [`PreallocatedSegments::take`] is in use. Requests another one if it was
    /// the last.
    pub(super) fn on_taken(&self) {
        let mut state = self.state();
        state.ready.pop_front();
        self.status.set_preallocated(!state.ready.is_empty());
        self.changed.notify_all();
    }

    /// Removes the file of an old segment of `length` bytes from the log: it becomes a preallocated segment if it is
    /// of use as one. The directory is not synced. Returns the new name, for [`PreallocatedSegments::on_ready`].
    pub(super) fn retire(&self, sequence: SegmentSequence, length: u64) -> io::Result<Option<String>> {
        let (name, recycled) = (segment_name(sequence), RECYCLED.name(sequence.0));
        let is_of_use = length == self.bytes
            && self.state().ready.len() < RECYCLED_MAX
            && !self.is_space_short().unwrap_or(true)
            && self.is_whole(&name);
        let retired = if is_of_use { self.disk.rename(&name, &recycled) } else { self.disk.remove(&name) };
        match retired {
            // The previous call did it, but could not sync the directory.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(self.disk.list()?.contains(&recycled).then_some(recycled))
            }
            result => result.map(|()| is_of_use.then_some(recycled)),
        }
    }

    /// Returns false if the file of an old segment has lost its end. Then its frames would change its length again.
    fn is_whole(&self, name: &str) -> bool {
        self.disk.open_read_only(name).and_then(|file| file.size()).is_ok_and(|bytes| bytes == self.bytes)
    }

    /// Returns true if others need the space of old segments more.
    fn is_space_short(&self) -> io::Result<bool> {
        Ok(self.disk.free_bytes()? < RECYCLED_MAX as u64 * self.bytes)
    }

    /// Removes preallocated segments, except the next one, while space is short.
    fn give_back(&self) {
        while self.is_space_short().unwrap_or(false) {
            let mut state = self.state();
            let Some(name) = (state.ready.len() > 1).then(|| state.ready.pop_back()).flatten() else { return };
            drop(state);
            // The file is of no use to the log any more. After an error, the next start removes it or uses it.
            let _ = self.disk.remove(&name);
        }
    }

    /// Takes note that a preallocated segment is ready: its name is durable. An old segment may be used only from then
    /// on: if it had a new header and its old name after a crash, it would stop the next start.
    pub(super) fn on_ready(&self, name: String) {
        if self.status.set_no_preallocated(false) {
            tracing::info!("the log has space again in {}", self.disk.place());
        }
        let mut state = self.state();
        state.ready.push_back(name);
        self.status.set_preallocated(true);
        self.changed.notify_all();
    }

    /// Makes a preallocated segment now, unless one is ready. Gives the others back if space is short.
    pub(super) fn prepare(&self) -> io::Result<()> {
        self.give_back();
        if !self.state().ready.is_empty() {
            return Ok(());
        }
        let made = self.make(SPARE, self.bytes);
        let stopped = self.state().stopped;
        match &made {
            Ok(()) => self.on_ready(SPARE.to_owned()),
            Err(error) if self.status.set_no_preallocated(!stopped) && !stopped => tracing::error!(
                "cannot make a log segment of {} bytes in {}: {error}; writes are refused until there is space",
                self.bytes,
                self.disk.place()
            ),
            Err(_) => {}
        }
        made
    }

    /// Runs the thread that keeps a preallocated segment ready, and removes old segments, until the log is closed.
    pub(super) fn keep_ready(&self, retry: Duration) {
        let mut failed = false;
        loop {
            let below = std::mem::take(&mut self.state().drop_below);
            let dropped = below == SegmentSequence(0) || self.drop_now(below, failed);
            failed = !dropped;
            if failed {
                // These segments may be the reason why space is short. So they are tried again soon, not only at the
                // next trim.
                let mut state = self.state();
                state.drop_below = state.drop_below.max(below);
            }
            // Old segments that were just removed may save the work of making one.
            let made = self.prepare();
            let goes_on = if made.is_err() || failed { self.pause(retry) } else { self.wait_for_work() };
            if !goes_on {
                return;
            }
        }
    }

    /// Waits until a preallocated segment is to be made, or old segments are to be removed. While several are ready,
    /// also returns after [`SPACE_CHECK`]. Returns false if the log is closed.
    fn wait_for_work(&self) -> bool {
        let mut state = self.state();
        while !state.ready.is_empty() && state.drop_below == SegmentSequence(0) && !state.stopped {
            if state.ready.len() > 1 {
                let (state, _) = self.changed.wait_timeout(state, SPACE_CHECK).unwrap_or_else(PoisonError::into_inner);
                return !state.stopped;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        !state.stopped
    }

    /// Makes the thread remove the segments below `sequence`.
    pub(super) fn drop_below(&self, sequence: SegmentSequence) {
        self.state().drop_below = sequence;
        self.changed.notify_all();
    }

    /// Removes the segments below `below`. Returns false if one could not be removed. If `again` is true, the error is
    /// not reported: the last attempt did that.
    fn drop_now(&self, below: SegmentSequence, again: bool) -> bool {
        match drop_segments(self, &self.index, &self.status, below) {
            Ok(()) => true,
            Err(error) => {
                if !again {
                    tracing::error!("{error}; old log segments take space until their removal succeeds");
                }
                false
            }
        }
    }

    /// Waits until a preallocated segment is ready. Returns false if the log is closed instead.
    pub(super) fn wait(&self) -> bool {
        let mut state = self.state();
        while state.ready.is_empty() && !state.stopped {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        !state.stopped
    }

    /// Waits for `time`. Returns false if the log is closed meanwhile.
    pub(super) fn pause(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        let mut state = self.state();
        while !state.stopped {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            (state, _) = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
        false
    }

    /// Ends every wait.
    pub(super) fn stop(&self) {
        self.state().stopped = true;
        self.changed.notify_all();
    }

    pub(super) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    /// Makes a durable file of zeros, all or nothing.
    fn make(&self, name: &str, bytes: u64) -> io::Result<()> {
        let unfinished = format!("{name}{UNFINISHED}");
        let made = self.fill(&unfinished, bytes).and_then(|()| self.disk.rename(&unfinished, name));
        if made.is_err() {
            // The unfinished file must not take space that other files need. Errors are ignored, because there may be
            // no such file.
            let _ = self.disk.remove(&unfinished);
        }
        made?;
        self.disk.sync_dir()
    }

    fn fill(&self, name: &str, bytes: u64) -> io::Result<()> {
        // Without this check, a failing attempt would fill the disk and leave no space for other files.
        if self.disk.free_bytes()? < bytes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = self.disk.create(name)?;
        let zeros = vec![0; ZEROS_BYTES];
        let mut at = 0;
        while at < bytes {
            if self.state().stopped {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let count = (bytes - at).min(zeros.len() as u64);
            file.write_at(at, &zeros[..count as usize])?;
            file.sync_data()?;
            at += count;
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
