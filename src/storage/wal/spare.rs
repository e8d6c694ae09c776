//! Keeps one segment ready ahead of need, and lets go of old ones. The one that is ready is filled with zeros and synced,
//! so that writing a frame into it changes no metadata and its sync is one write of the device, and so that a full disk
//! shows here and never in the middle of a frame.

use super::index::Index;
use super::trim::drop_segments;
use super::{LogError, LogStatus};
use crate::storage::disk::Disk;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The segment that is ready.
const SPARE: &str = "spare";
/// A segment for one frame that is larger than a spare, until it is durable.
pub(super) const LARGE: &str = "spare-large";
/// What is not whole yet has this behind its name.
const UNFINISHED: &str = ".new";

/// How much is zeroed between two syncs: a sync of the log that comes meanwhile waits for no more than that.
const ZEROS_BYTES: usize = 1 << 20;

pub(super) struct Spares {
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
    /// Segments below this one are to go.
    drop_below: u64,
}

impl Spares {
    /// Uses the spare that is there if it has the right size, and removes what cannot be used.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        bytes: u64,
        status: Arc<LogStatus>,
        index: Arc<Index>,
    ) -> Result<Spares, LogError> {
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
        status.set_spare(ready);
        let state = Mutex::new(State { ready, stopped: false, drop_below: 0 });
        Ok(Spares { disk, bytes, status, index, state, changed: Condvar::new() })
    }

    /// The name of the spare, if one is ready: the caller must rename it before anything else is asked here.
    pub(super) fn take(&self) -> Option<&'static str> {
        let state = self.state();
        state.ready.then_some(SPARE)
    }

    /// The spare has become a segment: another one is wanted.
    pub(super) fn on_taken(&self) {
        self.state().ready = false;
        self.status.set_spare(false);
        self.changed.notify_all();
    }

    /// Makes the spare now, unless it is ready.
    pub(super) fn prepare(&self) -> io::Result<()> {
        if self.state().ready {
            return Ok(());
        }
        let made = self.make(SPARE, self.bytes);
        let stopped = self.state().stopped;
        if self.status.set_no_spare(made.is_err() && !stopped) {
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
            self.status.set_spare(true);
            self.changed.notify_all();
        }
        made
    }

    /// The thread that keeps a spare ready until the log is closed.
    pub(super) fn keep_ready(&self, retry: Duration) {
        loop {
            let made = self.prepare();
            let mut state = self.state();
            while state.ready && state.drop_below == 0 && !state.stopped {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.stopped {
                return;
            }
            let below = std::mem::take(&mut state.drop_below);
            drop(state);
            if below > 0 {
                self.drop_now(below);
            }
            if made.is_err() && !self.pause(retry) {
                return;
            }
        }
    }

    /// Has the thread remove the segments below that one.
    pub(super) fn drop_below(&self, sequence: u64) {
        self.state().drop_below = sequence;
        self.changed.notify_all();
    }

    fn drop_now(&self, below: u64) {
        // The next time tries again from where this one ended.
        if let Err(error) = drop_segments(&*self.disk, &self.index, &self.status, below) {
            tracing::error!("{error}; old segments take space until the next checkpoint");
        }
    }

    /// Waits until a spare is ready; false if the log is closed instead.
    pub(super) fn wait(&self) -> bool {
        let mut state = self.state();
        while !state.ready && !state.stopped {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        !state.stopped
    }

    /// Waits for a time; false if the log is closed meanwhile.
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
            // The part that was made must not take the space that promises elsewhere may need. It may not exist.
            let _ = self.disk.remove(&unfinished);
        }
        made?;
        self.disk.sync_dir()
    }

    fn fill(&self, name: &str, bytes: u64) -> io::Result<()> {
        // Filling the disk up only to see that it is too small would take the last space from others.
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
