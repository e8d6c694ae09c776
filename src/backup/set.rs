//! The folder of a backup: creating it, and opening it again. Nothing in it is trusted before every byte was checked
//! against the manifest and against the digests of the states.

use super::manifest::{File, MANIFEST_VERSION, Manifest, State};
use super::{Source, tell};
use crate::kv::OnEntry;
use crate::loadgen::bench::report::grouped;
use crate::plural::plural;
use crate::storage::checkpoint::{
    CheckpointReader, CheckpointSequence, SectionSummary, VerifiedSection, checkpoint_name, verify,
};
use crate::storage::disk::{Disk, FileDisk, read_full, replace};
use crate::storage::wal::hex;
use crate::usage::Usage;
use anyhow::{Context, bail, ensure};
use groups::GroupId;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

const MANIFEST: &str = "manifest.json";
/// Maximum length of a manifest. The manifest of the largest cluster is far shorter.
const MANIFEST_BYTES_MAX: u64 = 16 << 20;

/// A folder that is being made. Its contents are removed unless [`Draft::finish`] succeeds.
pub(super) struct Draft {
    path: PathBuf,
    pub(super) disk: Arc<dyn Disk>,
    began: Instant,
    finished: bool,
}

impl Draft {
    /// Creates the folder, which must not exist or must be empty.
    pub(super) fn create(path: &Path) -> anyhow::Result<Draft> {
        let taken = std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some());
        if taken {
            return Err(Usage(format!("{} is not empty: give a new folder", path.display())).into());
        }
        let disk = FileDisk::create(path).with_context(|| format!("cannot make the folder {}", path.display()))?;
        Ok(Draft { path: path.to_owned(), disk: Arc::new(disk), began: Instant::now(), finished: false })
    }

    /// Reads everything back and writes the manifest. If several files hold a group, the last one counts.
    pub(super) fn finish(mut self, sources: &[&Source], files: u64) -> anyhow::Result<()> {
        let source = sources.first().context("no data directory to back up")?;
        let groups = source.birth.groups;
        let mut states: Vec<Option<State>> = vec![None; groups as usize];
        let mut listed = Vec::new();
        for (place, sequence) in (1..=files).enumerate() {
            let name = checkpoint_name(CheckpointSequence(sequence));
            let bytes = self.disk.open_read_only(&name).and_then(|file| file.size());
            let bytes = bytes.with_context(|| format!("cannot read {name} back"))?;
            for verified in verify(&*self.disk, &name)? {
                states[verified.summary.group.index()] = Some(State::of(place, &verified));
            }
            listed.push(File { name, bytes });
        }
        let states: Option<Vec<State>> = states.into_iter().collect();
        let made = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let manifest = Manifest {
            format: MANIFEST_VERSION,
            program: format!("paxoi {}", env!("CARGO_PKG_VERSION")),
            made_unix_s: made.as_secs(),
            cluster_id: hex(&source.birth.cluster_id),
            nodes: sources.iter().map(|source| source.identity.node.0).collect(),
            groups,
            value_bytes_max: source.birth.value_bytes_max,
            session_ttl_ms: source.birth.session_ttl_ms,
            files: listed,
            states: states.context("the backup lacks a group")?,
            crc32c: 0,
        };
        let written = replace(&*self.disk, MANIFEST, &manifest.encode()?);
        written.with_context(|| format!("cannot write {MANIFEST} in {}", self.path.display()))?;
        self.finished = true;
        tell(&self.path, &manifest, self.began.elapsed())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        // Files that cannot be removed have no manifest, so they are no backup.
        for name in self.disk.list().unwrap_or_default() {
            let _ = self.disk.remove(&name);
        }
        let _ = std::fs::remove_dir(&self.path);
    }
}

/// A backup whose manifest and files match. The contents of the files are checked when they are read.
pub struct BackupSet {
    place: String,
    manifest: Manifest,
    files: Vec<CheckpointReader>,
}

impl BackupSet {
    /// Opens the folder.
    ///
    /// # Errors
    /// One line: the folder is no backup, or a damaged one.
    pub fn open(path: &Path) -> anyhow::Result<BackupSet> {
        let place = path.display().to_string();
        let disk = FileDisk::existing(path).with_context(|| format!("cannot read the backup {place}"))?;
        let manifest = read_manifest(&disk).with_context(|| format!("{place} is no sound backup: {MANIFEST}"))?;
        let mut files = Vec::new();
        for (file, sequence) in manifest.files.iter().zip(1..) {
            ensure!(
                file.name == checkpoint_name(CheckpointSequence(sequence)),
                "the backup {place} is damaged: {MANIFEST} lists a file by a wrong name"
            );
            let reader = CheckpointReader::open(&disk, &file.name);
            let reader = reader.with_context(|| format!("the backup {place} is damaged"))?;
            let header = reader.header();
            ensure!(
                reader.bytes() == file.bytes
                    && hex(&header.cluster_id) == manifest.cluster_id
                    && header.groups == manifest.groups,
                "the backup {place} is damaged: {} is not the file that {MANIFEST} names",
                file.name
            );
            files.push(reader);
        }
        Ok(BackupSet { place, manifest, files })
    }

    /// Returns the manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Reads the state of one group, checks it, and calls `each` with every key. Takes the memory of one block, or of
    /// one long value.
    ///
    /// # Errors
    /// If the state is damaged, or differs from the manifest. The keys that `each` got are then worthless.
    pub fn visit(&self, state: &State, each: &mut OnEntry<'_>) -> anyhow::Result<VerifiedSection> {
        let damaged = || format!("the backup {} is damaged", self.place);
        let file = self.files.get(state.file).with_context(damaged)?;
        let summary = section(file, state).with_context(damaged)?;
        let verified = file.visit_section(summary, each).with_context(damaged)?;
        if State::of(state.file, &verified) != *state {
            bail!("{}: the state of group {} is not the one that {MANIFEST} names", damaged(), state.group);
        }
        Ok(verified)
    }

    /// Reads every byte of every file.
    ///
    /// # Errors
    /// The first damage found.
    pub fn verify(&self, each: &mut OnEntry<'_>) -> anyhow::Result<()> {
        self.manifest.states.iter().try_for_each(|state| self.visit(state, each).map(drop))?;
        self.verify_superseded()
    }

    /// Checks the states that were superseded by a newer state of another node.
    fn verify_superseded(&self) -> anyhow::Result<()> {
        for (place, file) in self.files.iter().enumerate() {
            let used = |section: &SectionSummary| {
                self.manifest.states.iter().any(|state| state.file == place && state.group == section.group.0)
            };
            for section in file.sections().iter().filter(|section| !used(section)) {
                let verified = file.visit_section(*section, &mut |_, _, _| ());
                verified.with_context(|| format!("the backup {} is damaged", self.place))?;
            }
        }
        Ok(())
    }
}

fn section(file: &CheckpointReader, state: &State) -> anyhow::Result<SectionSummary> {
    let at = file.sections().binary_search_by_key(&GroupId(state.group), |section| section.group);
    let at = at.ok().with_context(|| format!("the state of group {} is missing", state.group))?;
    Ok(file.sections()[at])
}

fn read_manifest(disk: &FileDisk) -> anyhow::Result<Manifest> {
    let file = disk.open_read_only(MANIFEST).context("it is missing: the backup was never finished")?;
    let mut text = vec![0; file.size()?.min(MANIFEST_BYTES_MAX) as usize];
    let count = read_full(&*file, 0, &mut text)?;
    text.truncate(count);
    Manifest::decode(&text)
}

/// Prints the contents of a backup, one line for each group, and checks every byte. Returns false if the backup is
/// damaged.
///
/// # Errors
/// If the folder is no backup at all, or nothing can be printed.
pub fn inspect_backup(path: &Path, out: &mut dyn Write) -> anyhow::Result<bool> {
    let set = BackupSet::open(path)?;
    let Manifest { program, made_unix_s, cluster_id, nodes, groups, value_bytes_max, .. } = set.manifest();
    let nodes: Vec<String> = nodes.iter().map(u32::to_string).collect();
    let nodes = nodes.join(", ");
    writeln!(out, "backup of cluster {cluster_id}, node {nodes}, by {program} at unix second {made_unix_s}")?;
    writeln!(out, "{groups} group{}, values up to {value_bytes_max} bytes", plural(u64::from(*groups)))?;
    let mut sound = true;
    for state in &set.manifest().states {
        match set.visit(state, &mut |_, _, _| ()) {
            Ok(_) => {
                let State { group, instance, digest, keys, bytes, .. } = state;
                let plural = plural(*keys);
                writeln!(
                    out,
                    "group {group}  instance {instance}  {keys} key{plural}  {bytes} bytes  digest {digest}"
                )?;
            }
            Err(error) => {
                sound = false;
                writeln!(out, "group {}  unusable: {error:#}", state.group)?;
            }
        }
    }
    if let Err(error) = set.verify_superseded() {
        sound = false;
        writeln!(out, "damaged: {error:#}")?;
    }
    if sound {
        let (keys, bytes) = (set.manifest().keys(), set.manifest().file_bytes());
        writeln!(out, "sound: {} key{}, {} bytes", grouped(keys), plural(keys), grouped(bytes))?;
    }
    Ok(sound)
}
