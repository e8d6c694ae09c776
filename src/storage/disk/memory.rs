//! A disk in memory that can lose power. It keeps two images, what a running process sees and what is durable, and the
//! changes in between. After a crash each write may be there, be missing, or be torn, and each change of a name may be
//! there or missing. The disk also refuses writes and syncs on demand, can be full, and can lose power between any two
//! operations. Tests and the simulator use it; a failure is repeated from its seed.

use super::{Disk, DiskFile, DiskLock, in_use};
use groups::SplitMix64;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A directory in memory. Clones are the same directory; [`MemoryDisk::crash`] makes another.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

/// Bytes of a sector, counted from the start of the file. A torn write keeps, loses or cuts each of its sectors.
const SECTOR_BYTES: usize = 512;

#[derive(Default)]
struct State {
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending_names: Vec<NameChange>,
    files: Vec<Image>,
    locked: bool,
    failing_writes: Option<Failure>,
    failing_syncs: Option<Failure>,
    failing_reads: Option<Failure>,
    failing_removes: Option<Failure>,
    syncs_held: bool,
    capacity_bytes: Option<u64>,
    power: Power,
    writes: u64,
    syncs: u64,
}

#[derive(Clone, Default)]
struct Image {
    live: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

#[derive(Clone)]
enum NameChange {
    Create { name: String, file: usize },
    Rename { from: String, to: String },
    Remove { name: String },
}

struct Failure {
    prefix: String,
    after: u64,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Power {
    #[default]
    On,
    /// The power fails after `after` more operations. `of_names`: only operations on the directory count.
    Going {
        after: u64,
        of_names: bool,
    },
    Off,
}

/// A crash loses one in `n` unsynced changes of names, with `n` drawn from this range. Later changes of the same name
/// are lost with it.
const LOST_NAMES: [usize; 2] = [2, 8];

impl MemoryDisk {
    /// Creates an empty directory.
    #[must_use]
    pub fn new() -> MemoryDisk {
        MemoryDisk::default()
    }

    /// Returns the directory after a power cut now. Each unsynced write is present, missing or torn. Any subset of the
    /// unsynced changes of names is present, within two limits that file systems guarantee: a rename is atomic, and the
    /// changes of one name keep their order. The same seed gives the same result.
    #[must_use]
    pub fn crash(&self, seed: u64) -> MemoryDisk {
        let state = self.state();
        let mut random = SplitMix64::new(seed);
        let names = state.names_after_crash(&mut random);
        let mut files = Vec::with_capacity(state.files.len());
        for image in &state.files {
            let mut content = image.durable.clone();
            for change in &image.pending {
                change.apply_partly(&mut content, &mut random);
            }
            files.push(Image { live: content.clone(), durable: content, pending: Vec::new() });
        }
        let after = State { durable_names: names.clone(), names, files, ..State::default() };
        MemoryDisk { state: Arc::new(Mutex::new(after)) }
    }

    /// Returns the directory after the process was killed while the machine ran on: nothing is lost, and nothing more
    /// is durable than before.
    #[must_use]
    pub fn killed(&self) -> MemoryDisk {
        let state = self.state();
        let after = State {
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            pending_names: state.pending_names.clone(),
            files: state.files.clone(),
            ..State::default()
        };
        MemoryDisk { state: Arc::new(Mutex::new(after)) }
    }

    /// Returns the content of a file as a running process sees it.
    #[must_use]
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        state.names.get(name).map(|file| state.files[*file].live.clone())
    }

    /// Makes a durable file with this content, to simulate rot or a change by an operator. A file of this name gets the
    /// content in place: a process that has it open sees the change.
    pub fn set_content(&self, name: &str, content: Vec<u8>) {
        let mut state = self.state();
        let image = Image { live: content.clone(), durable: content, pending: Vec::new() };
        let file = state.names.get(name).copied().unwrap_or(state.files.len());
        match state.files.get_mut(file) {
            Some(known) => *known = image,
            None => state.files.push(image),
        }
        state.names.insert(name.to_owned(), file);
        state.durable_names.insert(name.to_owned(), file);
    }

    /// After `after` more writes to files whose names start with `prefix`, every such write writes
    /// only the first half of its bytes and fails.
    pub fn fail_writes(&self, prefix: &str, after: u64) {
        self.state().failing_writes = Some(Failure { prefix: prefix.to_owned(), after });
    }

    /// After `after` more syncs of files whose names start with `prefix`, the next such sync fails. The data that it
    /// should have written can still be read, but later syncs succeed without writing it, as in real kernels.
    pub fn fail_syncs(&self, prefix: &str, after: u64) {
        self.state().failing_syncs = Some(Failure { prefix: prefix.to_owned(), after });
    }

    /// After `after` more reads of files whose names start with `prefix`, every such read fails.
    pub fn fail_reads(&self, prefix: &str, after: u64) {
        self.state().failing_reads = Some(Failure { prefix: prefix.to_owned(), after });
    }

    /// After `after` more removals of files whose names start with `prefix`, the next such removal fails, once. To give
    /// a file another name is a removal, too.
    pub fn fail_removes(&self, prefix: &str, after: u64) {
        self.state().failing_removes = Some(Failure { prefix: prefix.to_owned(), after });
    }

    /// Makes every sync of a file fail from now on, to simulate the moment before a power cut. Syncs of the directory
    /// still succeed. A crash may still keep, lose or tear the unsynced data.
    pub fn hold_syncs(&self) {
        self.state().syncs_held = true;
    }

    /// Cuts the power after `after` more operations that change or sync something: later ones fail and do nothing. With
    /// `of_names` only operations on the directory count.
    pub fn lose_power(&self, after: u64, of_names: bool) {
        self.state().power = Power::Going { after, of_names };
    }

    /// Returns true if the power is cut. The caller then continues with [`MemoryDisk::crash`].
    #[must_use]
    pub fn has_no_power(&self) -> bool {
        self.state().power == Power::Off
    }

    /// Ends all injected failures, held syncs and power cuts. A capacity limit stays.
    pub fn mend(&self) {
        let mut state = self.state();
        (state.failing_writes, state.failing_syncs, state.failing_reads) = (None, None, None);
        state.failing_removes = None;
        state.syncs_held = false;
        state.power = Power::On;
    }

    /// Limits the size of all files together: a write beyond it fails with `StorageFull`. `None` lifts the limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity_bytes = bytes;
    }

    /// Returns the bytes of all files together.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.state().used_bytes()
    }

    /// Returns how many writes were tried so far.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.state().writes
    }

    /// Returns how many syncs of files were tried so far.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked while it held the lock must not hide its message behind a second panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.state().file(name)?;
        Ok(Arc::new(MemoryFile { disk: self.clone(), file }))
    }
}

impl State {
    fn file(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }

    /// Counts an operation. Returns an error if the power is cut.
    fn spend(&mut self, names: bool) -> io::Result<()> {
        match &mut self.power {
            Power::Going { after: 0, of_names } if names || !*of_names => self.power = Power::Off,
            Power::Going { after, of_names } if names || !*of_names => *after -= 1,
            Power::On | Power::Going { .. } | Power::Off => {}
        }
        if self.power == Power::Off { Err(io::Error::other("the power is gone")) } else { Ok(()) }
    }

    /// Returns the names after a crash. A change is lost by chance, or because an earlier change of the same name is
    /// lost.
    fn names_after_crash(&self, random: &mut SplitMix64) -> BTreeMap<String, usize> {
        let mut names = self.durable_names.clone();
        let mut lost = BTreeSet::new();
        let [least, most] = LOST_NAMES;
        let one_in = least + below(random, most - least + 1);
        for change in &self.pending_names {
            if below(random, one_in) == 0 || change.names().any(|name| lost.contains(name)) {
                lost.extend(change.names());
            } else {
                change.apply(&mut names);
            }
        }
        names
    }

    fn name_of(&self, file: usize) -> &str {
        self.names.iter().find(|(_, other)| **other == file).map_or("", |(name, _)| name)
    }

    fn used_bytes(&self) -> u64 {
        self.names.values().map(|file| self.files[*file].live.len() as u64).sum()
    }

    fn fail_removal(&mut self, name: &str) -> io::Result<()> {
        if State::strikes(&mut self.failing_removes, name) {
            self.failing_removes = None;
            return Err(io::Error::other("injected error of a removal"));
        }
        Ok(())
    }

    /// Counts down a failure that concerns the file `name`. Returns true if the failure strikes now.
    fn strikes(failure: &mut Option<Failure>, name: &str) -> bool {
        match failure {
            Some(failure) if name.starts_with(&failure.prefix) => {
                let due = failure.after == 0;
                failure.after = failure.after.saturating_sub(1);
                due
            }
            _ => false,
        }
    }
}

impl Image {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.live);
        self.pending.push(change);
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Change::SetLen(bytes) => content.resize(*bytes, 0),
            Change::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*offset..end].copy_from_slice(bytes);
            }
        }
    }

    fn apply_partly(&self, content: &mut Vec<u8>, random: &mut SplitMix64) {
        match (below(random, 3), self) {
            (0, _) => {}
            (2, Change::Write { offset, bytes }) => {
                let mut at = 0;
                while at < bytes.len() {
                    let sector = (SECTOR_BYTES - (offset + at) % SECTOR_BYTES).min(bytes.len() - at);
                    let kept = match below(random, 4) {
                        0 | 1 => sector,
                        2 => 0,
                        _ => below(random, sector),
                    };
                    Change::Write { offset: offset + at, bytes: bytes[at..at + kept].to_vec() }.apply(content);
                    at += sector;
                }
            }
            (_, whole) => whole.apply(content),
        }
    }
}

impl NameChange {
    fn names(&self) -> impl Iterator<Item = &str> {
        let (first, second) = match self {
            NameChange::Create { name, .. } | NameChange::Remove { name } => (name, None),
            NameChange::Rename { from, to } => (from, Some(to)),
        };
        std::iter::once(first).chain(second).map(String::as_str)
    }

    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            NameChange::Create { name, file } => {
                names.insert(name.clone(), *file);
            }
            NameChange::Rename { from, to } => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
            NameChange::Remove { name } => {
                names.remove(name);
            }
        }
    }
}

impl Disk for MemoryDisk {
    fn place(&self) -> String {
        "memory".to_owned()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.spend(true)?;
        match state.file(name) {
            Ok(file) => state.files[file].change(Change::SetLen(0)),
            Err(_) => {
                let file = state.files.len();
                state.files.push(Image::default());
                state.change_names(NameChange::Create { name: name.to_owned(), file });
            }
        }
        drop(state);
        self.file(name)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.file(name)
    }

    fn open_read_only(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.file(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.spend(true)?;
        state.file(from)?;
        state.fail_removal(from)?;
        state.change_names(NameChange::Rename { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.spend(true)?;
        state.file(name)?;
        state.fail_removal(name)?;
        state.change_names(NameChange::Remove { name: name.to_owned() });
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.state();
        state.spend(true)?;
        state.durable_names = state.names.clone();
        state.pending_names.clear();
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let state = self.state();
        Ok(state.capacity_bytes.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.used_bytes())))
    }

    fn lock(&self) -> io::Result<DiskLock> {
        let mut state = self.state();
        if state.locked {
            return Err(in_use(&self.place()));
        }
        state.locked = true;
        Ok(DiskLock { _held: Box::new(Held(self.clone())) })
    }
}

struct Held(MemoryDisk);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.state().locked = false;
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    file: usize,
}

impl DiskFile for MemoryFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.state().files[self.file].live.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut guard = self.disk.state();
        let state = &mut *guard;
        if state.failing_reads.is_some() {
            let name = state.name_of(self.file).to_owned();
            if State::strikes(&mut state.failing_reads, &name) {
                return Err(io::Error::other("injected read error"));
            }
        }
        let live = &state.files[self.file].live;
        let start = usize::try_from(offset).map_or(live.len(), |offset| offset.min(live.len()));
        let count = buffer.len().min(live.len() - start);
        buffer[..count].copy_from_slice(&live[start..start + count]);
        Ok(count)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut guard = self.disk.state();
        let state = &mut *guard;
        state.writes += 1;
        state.spend(false)?;
        let offset = usize::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let growth = (offset + bytes.len()).saturating_sub(state.files[self.file].live.len()) as u64;
        if growth > 0 && state.capacity_bytes.is_some_and(|capacity| state.used_bytes() + growth > capacity) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let name = state.name_of(self.file).to_owned();
        let failed = State::strikes(&mut state.failing_writes, &name);
        let written = if failed { &bytes[..bytes.len() / 2] } else { bytes };
        state.files[self.file].change(Change::Write { offset, bytes: written.to_vec() });
        if failed { Err(io::Error::other("injected write error")) } else { Ok(()) }
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut guard = self.disk.state();
        let state = &mut *guard;
        state.syncs += 1;
        state.spend(false)?;
        if state.syncs_held {
            return Err(io::Error::other("the power is going"));
        }
        let name = state.name_of(self.file).to_owned();
        let image = &mut state.files[self.file];
        let pending = std::mem::take(&mut image.pending);
        if State::strikes(&mut state.failing_syncs, &name) {
            state.failing_syncs = None;
            return Err(io::Error::other("injected sync error"));
        }
        pending.iter().for_each(|change| change.apply(&mut image.durable));
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let bytes = usize::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let mut state = self.disk.state();
        state.spend(false)?;
        state.files[self.file].change(Change::SetLen(bytes));
        Ok(())
    }
}

/// Returns a random number below `limit`; 0 if `limit` is 0.
fn below(random: &mut SplitMix64, limit: usize) -> usize {
    random.below(limit.max(1) as u64) as usize
}

#[cfg(test)]
mod tests;
