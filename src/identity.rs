//! Who this directory is: the file `identity` holds the node id, a random storage id, how often the directory was
//! opened, and, after birth, the record of the cluster.
//!
//! Others remember storage id and start number, so a directory that was wiped, swapped or rolled back cannot vote under
//! a name that made promises before. There are two copies, each replaced as a whole, one after the other: rot in one is
//! repaired from the other. If they differ by a crash in between, the newer one counts, and the start number in it was
//! not used yet.

use crate::kv::Limits;
use crate::storage::disk::{Disk, read_full, replace};
use crate::storage::wal::{SEGMENT_PREFIX, is_segment};
use crc32c::crc32c;
use groups::NodeId;
use groups::membership::Place;
use serde::{Deserialize, Serialize};
use std::io;
use thiserror::Error;

/// What the file `identity` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Random, made with the directory.
    pub storage_id: [u8; 16],
    /// The node that this directory belongs to.
    pub node: NodeId,
    /// How often the directory was opened, this time included.
    pub start: u64,
    /// A random number for each of the latest starts, this one last: an old copy of the directory that is started often
    /// enough comes to any start number, but not to the same lives.
    pub lives: Vec<u64>,
    /// What the cluster was born with; `None` before that.
    pub birth: Option<BirthRecord>,
    /// Of a node that joined later: who the members were then, itself among them. Without it a start before anything
    /// was learned would not know whom to ask.
    pub joined: Vec<Place>,
}

/// What all initial members agreed on before the first vote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BirthRecord {
    /// Random, made by the lowest initial member.
    pub cluster_id: [u8; 16],
    /// How many groups the slots are mapped to.
    pub groups: u32,
    /// The key of the hash that orders keys within a slot.
    pub hash_key: [u8; 16],
    /// How long a silent session is kept, in milliseconds.
    pub session_ttl_ms: u64,
    /// The largest value of a key, in bytes: part of what a command does, so the same everywhere and for ever.
    pub value_bytes_max: u64,
    /// The initial members, by id.
    pub members: Vec<Member>,
}

impl BirthRecord {
    /// The limits of the cluster's stores.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits {
            value_bytes_max: self.value_bytes_max as usize,
            session_ttl_ms: self.session_ttl_ms,
            ..Limits::default()
        }
    }

    /// What a node was told otherwise, where it was told: these settings have no effect, which is a line each.
    #[must_use]
    pub fn overruled(
        &self,
        groups: Option<u32>,
        session_ttl_ms: Option<u64>,
        value_bytes_max: Option<u64>,
    ) -> Vec<String> {
        let told = [
            ("--groups", groups.map(u64::from), u64::from(self.groups), ""),
            ("--session-ttl", session_ttl_ms, self.session_ttl_ms, " ms"),
            ("--value-bytes-max", value_bytes_max, self.value_bytes_max, ""),
        ];
        let differs = told.into_iter().filter_map(|(flag, told, born, unit)| {
            let told = told.filter(|told| *told != born)?;
            Some(format!("{flag} of {told}{unit} has no effect: the cluster was born with {born}{unit}"))
        });
        differs.collect()
    }

    /// A line for each node of a list of members that is no member because of it: once a cluster is born the list only says
    /// where members are.
    #[must_use]
    pub fn not_added(&self, told: &[(NodeId, String)]) -> Vec<String> {
        let is_new = |id: NodeId| self.members.iter().all(|member| member.node != id);
        let line = |id| {
            format!(
                "--initial-cluster adds no node {id}: the cluster was born without it. Members are added with paxoi member add"
            )
        };
        told.iter().filter(|(id, _)| is_new(*id)).map(|(id, _)| line(*id)).collect()
    }

    /// A line for each member whose address in this node's list is another one than in the list that the cluster is born
    /// with.
    #[must_use]
    pub fn other_addresses(&self, told: &[(NodeId, String)]) -> Vec<String> {
        let line = |(id, ours): &(NodeId, String)| {
            let member = self.members.iter().find(|member| member.node == *id && member.address != *ours)?;
            let theirs = &member.address;
            Some(format!("--initial-cluster: node {id} is at {ours} here, but the cluster is born with {theirs}"))
        };
        told.iter().filter_map(line).collect()
    }
}

/// An initial member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its id.
    pub node: NodeId,
    /// The storage id of its directory at birth.
    pub storage_id: [u8; 16],
    /// Where peers and clients reach it.
    pub address: String,
}

/// Why a directory cannot be opened. Each is one line that says what to do.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// A file cannot be read or written.
    #[error("data directory {place}: cannot {doing} the file {IDENTITY}: {source}")]
    Io {
        /// The directory.
        place: String,
        /// What was tried.
        doing: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// Both copies are damaged.
    #[error(
        "data directory {place}: the files {IDENTITY} and {COPY} are corrupt; restore one of them, \
         or replace this node under a new id with an empty directory"
    )]
    Corrupt {
        /// The directory.
        place: String,
    },
    /// Written by a later version of the program.
    #[error(
        "data directory {place}: the file {IDENTITY} has format version {found}, but this program reads only {VERSION}; \
         use the program that wrote it, or a newer one"
    )]
    Version {
        /// The directory.
        place: String,
        /// The version in the file.
        found: u32,
    },
    /// The directory is another node's.
    #[error("data directory {place} belongs to node {found}, not to node {asked}; give node {asked} its own directory")]
    OtherNode {
        /// The directory.
        place: String,
        /// Whose it is.
        found: NodeId,
        /// Who was to be started.
        asked: NodeId,
    },
    /// There are votes, but nobody knows whose.
    #[error(
        "data directory {place} has a log but no file {IDENTITY}; put that file back, \
         or replace this node under a new id with an empty directory"
    )]
    IdentityMissing {
        /// The directory.
        place: String,
    },
    /// The votes are gone.
    #[error(
        "data directory {place} belongs to a cluster, but its log is missing; put the files {SEGMENT_PREFIX}* back, \
         or replace this node under a new id with an empty directory"
    )]
    LogMissing {
        /// The directory.
        place: String,
    },
}

const IDENTITY: &str = "identity";
const COPY: &str = "identity.copy";

/// magic [8] | version u32 | CRC-32C of the body u32 | body, in postcard
const MAGIC: [u8; 8] = *b"PAXOI-ID";
const VERSION: u32 = 3;
const BODY: usize = MAGIC.len() + 8;
/// So many lives are kept. A directory that was started more often than this since some member saw it is believed.
pub const LIVES_MAX: usize = 1_024;
/// The lives, and the birth record of the largest cluster, are far smaller.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads who this directory is and counts the start, as the life `life`, durably. An empty directory becomes `node`'s, with
/// a storage id from `random`. The caller holds the directory's lock, or two processes would share one start number.
pub fn open_or_create(
    disk: &dyn Disk,
    node: NodeId,
    life: u64,
    random: impl FnOnce() -> [u8; 16],
) -> Result<Identity, IdentityError> {
    let place = disk.place();
    let names = disk.list().map_err(failed(disk, "find"))?;
    let has_log = names.iter().any(|name| is_segment(name));
    let mut identity = match newest(disk)? {
        Some(identity) => identity,
        None if has_log => return Err(IdentityError::IdentityMissing { place }),
        None => Identity { storage_id: random(), node, start: 0, lives: Vec::new(), birth: None, joined: Vec::new() },
    };
    if identity.node != node {
        return Err(IdentityError::OtherNode { place, found: identity.node, asked: node });
    }
    if identity.birth.is_some() && !has_log {
        return Err(IdentityError::LogMissing { place });
    }
    identity.start += 1;
    identity.lives.push(life);
    let surplus = identity.lives.len().saturating_sub(LIVES_MAX);
    identity.lives.drain(..surplus);
    save(disk, &identity)?;
    Ok(identity)
}

/// Reads who a directory is without counting a start: for those who only look. `None` if it is nobody yet.
pub fn read(disk: &dyn Disk) -> Result<Option<Identity>, IdentityError> {
    newest(disk)
}

/// Replaces what the file says, durably.
pub fn save(disk: &dyn Disk, identity: &Identity) -> Result<(), IdentityError> {
    let content = encode(identity);
    for name in [IDENTITY, COPY] {
        replace(disk, name, &content).map_err(failed(disk, "write"))?;
    }
    Ok(())
}

fn failed(disk: &dyn Disk, doing: &'static str) -> impl FnOnce(io::Error) -> IdentityError {
    let place = disk.place();
    move |source| IdentityError::Io { place, doing, source }
}

/// What one copy may be.
enum Copy {
    Missing,
    Corrupt,
    Newer(u32),
    Sound(Identity),
}

fn newest(disk: &dyn Disk) -> Result<Option<Identity>, IdentityError> {
    let mut newest: Option<Identity> = None;
    let mut corrupt = false;
    for name in [IDENTITY, COPY] {
        match read_copy(disk, name).map_err(failed(disk, "read"))? {
            Copy::Missing => {}
            Copy::Corrupt => corrupt = true,
            Copy::Newer(found) => return Err(IdentityError::Version { place: disk.place(), found }),
            // Equal starts differ only when a birth record was being added, to the first copy first.
            Copy::Sound(found) if newest.as_ref().is_none_or(|known| found.start > known.start) => newest = Some(found),
            Copy::Sound(_) => {}
        }
    }
    if newest.is_none() && corrupt {
        return Err(IdentityError::Corrupt { place: disk.place() });
    }
    Ok(newest)
}

fn read_copy(disk: &dyn Disk, name: &str) -> io::Result<Copy> {
    let file = match disk.open_read_only(name) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Copy::Missing),
        Err(error) => return Err(error),
    };
    let mut content = vec![0; file.size()?.min(FILE_BYTES_MAX) as usize];
    let count = read_full(&*file, 0, &mut content)?;
    content.truncate(count);
    Ok(decode(&content))
}

fn encode(identity: &Identity) -> Vec<u8> {
    let body = postcard::to_stdvec(identity).expect("plain data always has an encoding");
    let mut content = MAGIC.to_vec();
    content.extend_from_slice(&VERSION.to_le_bytes());
    content.extend_from_slice(&crc(VERSION, &body).to_le_bytes());
    content.extend_from_slice(&body);
    content
}

fn crc(version: u32, body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c(&version.to_le_bytes()), body)
}

fn decode(content: &[u8]) -> Copy {
    let Some((head, body)) = content.split_at_checked(BODY) else { return Copy::Corrupt };
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let version = word(MAGIC.len());
    if !head.starts_with(&MAGIC) || word(MAGIC.len() + 4) != crc(version, body) {
        return Copy::Corrupt;
    }
    if version != VERSION {
        return Copy::Newer(version);
    }
    match postcard::from_bytes(body) {
        Ok(identity) => Copy::Sound(identity),
        Err(_) => Copy::Corrupt,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::disk::MemoryDisk;

    const NODE: NodeId = NodeId(2);

    fn open(disk: &MemoryDisk) -> Result<Identity, IdentityError> {
        open_or_create(disk, NODE, 7, || [9; 16])
    }

    fn birth() -> BirthRecord {
        let member = Member { node: NODE, storage_id: [9; 16], address: "127.0.0.1:7002".to_owned() };
        BirthRecord {
            cluster_id: [1; 16],
            groups: 16,
            hash_key: [2; 16],
            session_ttl_ms: 1000,
            value_bytes_max: 1 << 20,
            members: vec![member],
        }
    }

    #[test]
    fn starts_are_counted_and_the_birth_is_kept() {
        let disk = MemoryDisk::new();
        let mut identity = open(&disk).unwrap();
        assert_eq!(
            identity,
            Identity { storage_id: [9; 16], node: NODE, start: 1, lives: vec![7], birth: None, joined: Vec::new() }
        );
        identity.birth = Some(birth());
        save(&disk, &identity).unwrap();
        disk.set_content("log-0000000000000001", Vec::new());
        let again = open_or_create(&disk.crash(1), NODE, 8, || panic!("no new storage id")).unwrap();
        assert_eq!(again, Identity { start: 2, lives: vec![7, 8], ..identity.clone() });
        assert_eq!(read(&disk).unwrap(), Some(identity), "looking counts no start");
        assert_eq!(read(&MemoryDisk::new()).unwrap(), None);
    }

    #[test]
    fn whatever_a_crash_leaves_a_start_number_is_never_used_twice() {
        let disk = MemoryDisk::new();
        let used = open(&disk).unwrap();
        for after in 0..8 {
            for seed in 0..50 {
                let disk = disk.killed();
                disk.fail_writes("identity", after);
                let opened = open(&disk);
                let crashed = disk.crash(seed);
                let next = open(&crashed).unwrap();
                let last = opened.map_or(used.start, |identity| identity.start);
                assert!(next.start > last, "start {} after {last}", next.start);
                assert_eq!(next.storage_id, used.storage_id);
            }
        }
    }

    #[test]
    fn one_rotten_copy_is_repaired_and_two_are_an_error() {
        for bit in 0..encode(&open(&MemoryDisk::new()).unwrap()).len() * 8 {
            let disk = MemoryDisk::new();
            let identity = open(&disk).unwrap();
            let rot = |name: &str| {
                let mut content = disk.content(name).unwrap();
                content[bit / 8] ^= 1 << (bit % 8);
                disk.set_content(name, content);
            };
            rot(IDENTITY);
            assert_eq!(read(&disk).unwrap(), Some(identity.clone()), "bit {bit}");
            rot(COPY);
            assert!(matches!(open(&disk), Err(IdentityError::Corrupt { .. })), "bit {bit}");
            rot(IDENTITY);
            assert_eq!(open(&disk).unwrap().start, 2, "bit {bit}");
        }
    }

    #[test]
    fn errors_say_what_to_do() {
        let disk = MemoryDisk::new();
        let mut identity = open(&disk).unwrap();
        let other = open_or_create(&disk, NodeId(3), 1, || [0; 16]).unwrap_err();
        assert_eq!(
            other.to_string(),
            "data directory memory belongs to node 2, not to node 3; give node 3 its own directory"
        );
        assert_eq!(read(&disk).unwrap().unwrap().start, 1, "a refused start does not count");

        identity.birth = Some(birth());
        save(&disk, &identity).unwrap();
        assert!(matches!(open(&disk), Err(IdentityError::LogMissing { .. })));
        disk.set_content("log-0000000000000001.old", Vec::new());
        assert!(matches!(open(&disk), Err(IdentityError::LogMissing { .. })), "a log put aside is no log");

        let wiped = MemoryDisk::new();
        wiped.set_content("log-0000000000000001", Vec::new());
        assert!(matches!(open(&wiped), Err(IdentityError::IdentityMissing { .. })));

        let newer = MemoryDisk::new();
        let mut content = encode(&identity);
        let body = content.split_off(BODY);
        content.truncate(MAGIC.len());
        content.extend_from_slice(&(VERSION + 1).to_le_bytes());
        content.extend_from_slice(&crc(VERSION + 1, &body).to_le_bytes());
        content.extend_from_slice(&body);
        newer.set_content(IDENTITY, content);
        assert!(matches!(open(&newer), Err(IdentityError::Version { found, .. }) if found == VERSION + 1));
    }
}
