//! The file `manifest.json` of a backup: its contents and their source. The file is written last, so a folder without
//! it is an unfinished backup.

use crate::storage::checkpoint::VerifiedSection;
use anyhow::{Context, bail, ensure};
use groups::Ms;
use serde::{Deserialize, Serialize};

/// Format version that is written, and the highest that is read.
pub(super) const MANIFEST_VERSION: u32 = 1;

/// Contents of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of the format.
    pub format: u32,
    /// The program that made the backup.
    pub program: String,
    /// Time of the backup, in Unix seconds.
    pub made_unix_s: u64,
    /// The cluster id, as 32 hex digits.
    pub cluster_id: String,
    /// The nodes whose directories were read.
    pub nodes: Vec<u32>,
    /// Number of groups of the cluster.
    pub groups: u32,
    /// Maximum size of a value in that cluster, in bytes.
    pub value_bytes_max: u64,
    /// Time to live of sessions in that cluster, in milliseconds. Sessions are not restored.
    pub session_ttl_ms: Ms,
    /// The files with the states.
    pub files: Vec<File>,
    /// The states, by group.
    pub states: Vec<State>,
    /// CRC-32C of this manifest as JSON without spaces, with this field as 0.
    pub crc32c: u32,
}

/// A file of states, in the format of checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// File name in the folder.
    pub name: String,
    /// Length of the file.
    pub bytes: u64,
}

/// The state of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The group. States stand in the order of groups, from 0 on.
    pub group: u32,
    /// Index of the file that holds the state, from 0 on.
    pub file: usize,
    /// The last instance that the state includes.
    pub instance: u64,
    /// The digest of the state, as 16 hex digits.
    pub digest: String,
    /// Number of keys.
    pub keys: u64,
    /// Bytes of the state's blocks, before compression.
    pub bytes: u64,
}

impl State {
    pub(super) fn of(file: usize, verified: &VerifiedSection) -> State {
        let (summary, end) = (&verified.summary, &verified.summary.end);
        State {
            group: summary.group.0,
            file,
            instance: summary.instance.0,
            digest: format!("{:016x}", end.digest),
            keys: verified.keys,
            bytes: end.block_bytes,
        }
    }
}

impl Manifest {
    /// Returns the number of keys in all groups.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.states.iter().map(|state| state.keys).sum()
    }

    /// Returns the bytes of all files of states.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Encodes the manifest as the text of the file.
    ///
    /// # Errors
    /// None that plain data can cause.
    pub fn encode(&self) -> anyhow::Result<Vec<u8>> {
        let sealed = Manifest { crc32c: self.checksum()?, ..self.clone() };
        let mut text = serde_json::to_vec_pretty(&sealed)?;
        text.push(b'\n');
        Ok(text)
    }

    /// Decodes the text of the file.
    ///
    /// # Errors
    /// If the text is damaged, or of a later version.
    pub fn decode(text: &[u8]) -> anyhow::Result<Manifest> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let version: Version = serde_json::from_slice(text).context("it cannot be read")?;
        if version.format > MANIFEST_VERSION {
            bail!("it has format version {}, but this program reads only {MANIFEST_VERSION}", version.format);
        }
        let manifest: Manifest = serde_json::from_slice(text).context("it cannot be read")?;
        ensure!(manifest.crc32c == manifest.checksum()?, "its checksum is wrong");
        let in_order = (0..manifest.groups).eq(manifest.states.iter().map(|state| state.group));
        let in_files = manifest.states.iter().all(|state| state.file < manifest.files.len());
        ensure!(in_order && in_files, "it does not name one state of each group");
        Ok(manifest)
    }

    fn checksum(&self) -> anyhow::Result<u32> {
        let open = Manifest { crc32c: 0, ..self.clone() };
        Ok(crc32c::crc32c(&serde_json::to_vec(&open)?))
    }
}
