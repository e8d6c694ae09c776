//! `paxoi backup`: the states of all groups in a new folder, from which `paxoi restore` fills another cluster.
//!
//! ```text
//! manifest   what the folder holds, and from where      stopped    from directories whose nodes do not run
//! set        a folder: made, opened, verified           running    from the checkpoints of a node that runs
//! restore    into a running cluster                     loader     its connections
//! ```
//!
//! The states are those of checkpoints, in files of the same format. Each state is of one moment in the history of its
//! group. States of different groups are of different moments. Commands over several groups are not atomic either.

mod loader;
mod manifest;
mod restore;
mod running;
mod set;
mod stopped;
#[cfg(test)]
mod tests;

pub use manifest::{Manifest, State};
pub use restore::{RestoreArgs, restore};
pub use set::{BackupSet, inspect_backup};
pub use stopped::recover;

use crate::identity::{self, BirthRecord, Identity};
use crate::loadgen::bench::report::grouped;
use crate::plural::plural;
use crate::storage::disk::{Disk, DiskLock, FileDisk};
use crate::usage::Usage;
use anyhow::{Context, bail};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Maximum checkpoint files of one directory.
const FILES_MAX: u64 = 8_192;

/// What to back up, and where to.
#[derive(Clone, Debug, clap::Args)]
pub struct BackupArgs {
    /// A node's data directory. For stopped nodes, several may be given: the backup takes the newest state of each
    /// group, and the directories of a majority have all that was ever acknowledged
    #[arg(long, value_name = "DIR", required = true)]
    pub data: Vec<PathBuf>,
    /// The address of the node that runs in that directory, if any: the backup asks it for checkpoints first
    #[arg(long, value_name = "HOST:PORT")]
    pub connect: Option<String>,
    /// Time limit for a running node to make checkpoints
    #[arg(long, value_name = "TIME", default_value = "1h")]
    pub timeout: String,
    /// The new folder
    #[arg(value_name = "OUT")]
    pub out: PathBuf,
}

/// A data directory with the identity of its node.
struct Source {
    place: String,
    disk: FileDisk,
    identity: Identity,
    birth: BirthRecord,
}

/// Makes a backup and reads all of it back.
///
/// # Errors
/// One line that names what cannot be used, and what to do about it.
pub fn backup(args: &BackupArgs) -> anyhow::Result<()> {
    let patience =
        crate::duration::parse(&args.timeout).map_err(|error| Usage(format!("--timeout {}: {error}", args.timeout)))?;
    let sources = args.data.iter().map(|dir| Source::open(dir)).collect::<anyhow::Result<Vec<Source>>>()?;
    // Large directories have many files, all of which are open at once.
    crate::descriptors::raise_limit(FILES_MAX)?;
    let first = sources.first().context("--data is missing")?;
    if let Some(other) = sources.iter().find(|other| other.birth.cluster_id != first.birth.cluster_id) {
        bail!("{} and {} belong to different clusters; back them up separately", first.place, other.place);
    }
    let locks = sources.iter().map(Source::lock).collect::<anyhow::Result<Vec<Option<DiskLock>>>>()?;
    let running = sources.iter().zip(&locks).find(|(_, lock)| lock.is_none()).map(|(source, _)| source);
    match (running, &args.connect) {
        (Some(source), None) => bail!(
            "a node is running in {}: stop it, or give its address with --connect HOST:PORT to back it up while it runs",
            source.place
        ),
        (Some(_), Some(_)) if sources.len() > 1 => {
            bail!("--connect backs up one running node: give one --data, or stop the nodes and leave --connect out")
        }
        (Some(source), Some(address)) => running::backup(source, address, patience, &args.out),
        (None, Some(_)) => bail!("no node is running in {}: start it, or leave --connect out", first.place),
        (None, None) => stopped::backup(&sources, &args.out),
    }
}

impl Source {
    fn open(dir: &Path) -> anyhow::Result<Source> {
        let place = dir.display().to_string();
        let disk = FileDisk::existing(dir).with_context(|| format!("cannot read the data directory {place}"))?;
        let identity = identity::read(&disk)?
            .with_context(|| format!("{place} is no data directory: it has no file `identity`"))?;
        let birth = identity.birth.clone();
        let birth = birth.with_context(|| format!("{place}: its cluster was never born; nothing to back up"))?;
        Ok(Source { place, disk, identity, birth })
    }

    /// Locks the directory. Returns `None` if another process holds the lock.
    fn lock(&self) -> anyhow::Result<Option<DiskLock>> {
        match self.disk.lock() {
            Ok(lock) => Ok(Some(lock)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot lock the data directory {}", self.place)),
        }
    }
}

/// Prints one line about a finished backup.
fn tell(out: &Path, manifest: &Manifest, took: Duration) -> anyhow::Result<()> {
    let (groups, cluster) = (manifest.groups, &manifest.cluster_id);
    let (keys, bytes) = (manifest.keys(), manifest.file_bytes());
    let seconds = took.as_secs_f64();
    let line = format!(
        "backup {} of cluster {cluster}: {groups} group{}, {} key{}, {} bytes, {seconds:.1} s",
        out.display(),
        plural(u64::from(groups)),
        grouped(keys),
        plural(keys),
        grouped(bytes)
    );
    writeln!(io::stdout().lock(), "{line}").context("cannot write to stdout")
}
