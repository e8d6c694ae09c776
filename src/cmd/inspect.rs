//! `paxoi inspect`: reads files of a data directory or of a backup, and says whether they are sound.

use crate::backup;
use crate::storage::disk::FileDisk;
use crate::storage::{checkpoint, wal};
use anyhow::Context;
use clap::Subcommand;
use std::io::stdout;
use std::path::{Path, PathBuf};

/// The files to read.
#[derive(Debug, Subcommand)]
pub enum InspectCommand {
    /// The log in a data directory: segments, frames, damage
    Log {
        /// The data directory
        dir: PathBuf,
        /// Print every record too
        #[arg(long)]
        records: bool,
    },
    /// A backup: its content, and whether every byte of it is sound
    Backup {
        /// The folder
        dir: PathBuf,
    },
    /// A checkpoint: the groups whose states it holds, and whether all of it is sound
    Checkpoint {
        /// The file
        file: PathBuf,
    },
}

/// Prints the content of the files.
///
/// # Errors
/// If the files cannot be read, or are damaged.
pub fn run(command: &InspectCommand) -> anyhow::Result<()> {
    match command {
        InspectCommand::Backup { dir } => {
            let sound = backup::inspect_backup(dir, &mut stdout().lock())?;
            anyhow::ensure!(sound, "the backup {} is damaged, see above", dir.display());
            Ok(())
        }
        InspectCommand::Log { dir, records } => {
            let disk = FileDisk::existing(dir).with_context(|| format!("cannot read {}", dir.display()))?;
            let sound = wal::inspect_log(&disk, *records, &mut stdout().lock())?;
            anyhow::ensure!(sound, "the log in {} is damaged, see above", dir.display());
            Ok(())
        }
        InspectCommand::Checkpoint { file } => inspect_checkpoint(file),
    }
}

fn inspect_checkpoint(file: &Path) -> anyhow::Result<()> {
    std::fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let disk = FileDisk::existing(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let name = file.file_name().and_then(|name| name.to_str());
    let name = name.with_context(|| format!("{} is not the name of a file", file.display()))?;
    let sound = checkpoint::inspect_checkpoint(&disk, name, &mut stdout().lock())?;
    anyhow::ensure!(sound, "the checkpoint {} is damaged, see above", file.display());
    Ok(())
}
