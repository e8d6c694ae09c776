//! Keeps one preallocated segment ready, and removes old segments. A preallocated segment is filled with zeros and
//! synced. So writing a frame into it changes no metadata, and its sync is one write of the device. A full disk shows
//! here, and never in the middle of a frame.

use super::index::Index;
use super::trim::drop_segments;
use super::{LogError, LogStatus, SegmentSequence};
use crate::storage::disk::Disk;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The name of the preallocated segment.
const SPARE: &str = "spare";
/// The name of a segment for one frame that is larger than a preallocated segment, until it is durable.
pub(super) const LARGE: &str = "spare-large";
/// The suffix of the name of a file that is not whole yet.
const UNFINISHED: &str = ".new";

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
    ready: bool,
    stopped: bool,
    /// Segments with a lower sequence number are to be removed.
    drop_below: SegmentSequence,
}

impl PreallocatedSegments {
    /// Uses an existing preallocated segment if it has the right size, and removes files that cannot be used.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        bytes: u64,
        status: Arc<LogStatus>,
        index: Arc<Index>,
    ) -> Result<PreallocatedSegments, LogError> {
        let mut ready = false;
        for name in disk.list().map_err(LogError::io(SPARE, "find"))? {
            if name == SPARE {
                let file = disk.open_read_only(SPARE).map_err(LogError::io(SPARE, "open"))?;
                ready = file.size().map_err(LogError::io(SPARE, "read"))? == bytes;
            }
            let unfinished = name.strip_suffix(UNFINISHED).is_some_and(|name| name == SPARE);
            if unfinished || name == LARGE || (name == SPARE && !ready) {
                disk.remove(&name).map_err(LogError::io(&name, "remove"))?;
            }
        }
        status.set_preallocated(ready);
        let state = Mutex::new(State { ready, stopped: false, drop_below: SegmentSequence(0) });
        Ok(PreallocatedSegments { disk, bytes, status, index, state, changed: Condvar::new() })
    }

    /// Returns the name of the preallocated segment, if it is ready. The caller must rename it before any other call
    /// here.
    pub(super) fn take(&self) -> Option<&'static str> {
        let state = self.state();
        state.ready.then_some(SPARE)
    }

    /// Takes note that the preallocated segment is in use, and requests another one.
    pub(super) fn on_taken(&self) {
        self.state().ready = false;
        self.status.set_preallocated(false);
        self.changed.notify_all();
    }

    /// Makes the preallocated segment now, unless it is ready.
    pub(super) fn prepare(&self) -> io::Result<()> {
        if self.state().ready {
            return Ok(());
        }
        let made = self.make(SPARE, self.bytes);
        let stopped = self.state().stopped;
        if self.status.set_no_preallocated(made.is_err() && !stopped) {
            match &made {
                Ok(()) => tracing::info!("the log has space again in {}", self.disk.place()),
                Err(error) => tracing::error!(
                    "cannot make a log segment of {} bytes in {}: {error}; writes are refused until there is space",
                    self.bytes,
                    self.disk.place()
                ),
            }
        }
        if made.is_ok() {
            self.state().ready = true;
            self.status.set_preallocated(true);
            self.changed.notify_all();
        }
        made
    }

    /// Runs the thread that keeps a preallocated segment ready, and removes old segments, until the log is closed.
    pub(super) fn keep_ready(&self, retry: Duration) {
        let mut failed = false;
        loop {
            let made = self.prepare();
            let mut state = self.state();
            while state.ready && state.drop_below == SegmentSequence(0) && !state.stopped {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.stopped {
                return;
            }
            let below = std::mem::take(&mut state.drop_below);
            drop(state);
            let dropped = below == SegmentSequence(0) || self.drop_now(below, failed);
            failed = !dropped;
            if failed {
                // These segments may be the reason why space is short. So they are tried again soon, not only at the
                // next trim.
                let mut state = self.state();
                state.drop_below = state.drop_below.max(below);
            }
            if (made.is_err() || failed) && !self.pause(retry) {
                return;
            }
        }
    }

    /// Makes the thread remove the segments below `sequence`.
    pub(super) fn drop_below(&self, sequence: SegmentSequence) {
        self.state().drop_below = sequence;
        self.changed.notify_all();
    }

    /// Removes the segments below `below`. Returns false if one could not be removed. If `again` is true, the error is
    /// not reported: the last attempt did that.
    fn drop_now(&self, below: SegmentSequence, again: bool) -> bool {
        match drop_segments(&*self.disk, &self.index, &self.status, below) {
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
        while !state.ready && !state.stopped {
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
