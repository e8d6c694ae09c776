//! The identity of a data directory. The file `identity` holds the node id, a random storage id, the start number (how
//! often the directory was opened), and, after birth, the birth record of the cluster.
//!
//! Other members remember the storage id and the start number. So a directory that was wiped, swapped or rolled back
//! cannot vote under the id of a node that made promises before. There are two copies of the file, each replaced as a
//! whole, one after the other: damage in one is repaired from the other. If a crash in between makes them differ, the
//! newer copy counts. The start that wrote the newer copy crashed before it used the new start number.

use crate::kv::StoreLimits;
use crate::storage::checkpoint::{CheckpointSequence, Header};
use crate::storage::disk::{Disk, read_full, replace};
use crate::storage::wal::{SEGMENT_PREFIX, is_segment};
use crc32c::crc32c;
use groups::membership::MemberInfo;
use groups::{Ms, NodeId};
use serde::{Deserialize, Serialize};
use std::io;
use thiserror::Error;

/// The content of the file `identity`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Random id, made with the directory.
    pub storage_id: [u8; 16],
    /// The node that this directory belongs to.
    pub node: NodeId,
    /// Start number: how often the directory was opened, this time included.
    pub start: u64,
    /// A random number for each of the latest starts, this one last. An old copy of the directory that is started often
    /// enough reaches any start number, but not the same incarnations.
    pub incarnations: Vec<u64>,
    /// The cluster's birth record; `None` before the birth.
    pub birth: Option<BirthRecord>,
    /// The members when this node joined, itself among them, if it joined later. Without this list, a node that starts
    /// before it has learned anything would not know which nodes to ask.
    pub joined: Vec<MemberInfo>,
}

/// The birth record: what all initial members agreed on before the first vote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BirthRecord {
    /// Random, made by the lowest initial member.
    pub cluster_id: [u8; 16],
    /// Number of groups that the slots are mapped to.
    pub groups: u32,
    /// The key of the hash that orders keys within a slot.
    pub hash_key: [u8; 16],
    /// Time for which a silent session is kept, in milliseconds.
    pub session_ttl_ms: Ms,
    /// The largest value of a key, in bytes. Results of commands depend on it, so it is the same on all nodes and never
    /// changes.
    pub value_bytes_max: u64,
    /// The initial members, by id.
    pub members: Vec<Member>,
    /// Cluster time of the birth, in unix milliseconds; 0 at a node that joined, and in a record that an older program
    /// made. It stands behind everything else in the identity file and in the message that hands out the record, where
    /// older programs ignore it.
    #[serde(skip)]
    pub born_ms: Ms,
}

impl BirthRecord {
    /// Returns the record as the message that hands it out has it.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_extend(&self.born_ms, postcard::to_allocvec(self)?)
    }

    /// Reads a record that [`BirthRecord::encode`] or an older program wrote.
    pub(crate) fn decode(bytes: &[u8]) -> Result<BirthRecord, postcard::Error> {
        let (mut record, rest) = postcard::take_from_bytes::<BirthRecord>(bytes)?;
        record.take_birth_time(rest)?;
        Ok(record)
    }

    /// Reads the time of the birth from the end of a file or message; an older program wrote none.
    fn take_birth_time(&mut self, rest: &[u8]) -> Result<(), postcard::Error> {
        if !rest.is_empty() {
            self.born_ms = postcard::from_bytes(rest)?;
        }
        Ok(())
    }

    /// Returns the limits of the cluster's stores.
    #[must_use]
    pub fn limits(&self) -> StoreLimits {
        StoreLimits {
            value_bytes_max: self.value_bytes_max as usize,
            session_ttl_ms: self.session_ttl_ms,
            ..StoreLimits::default()
        }
    }

    /// Returns the header of a checkpoint of this cluster.
    #[must_use]
    pub fn checkpoint_header(&self, sequence: CheckpointSequence) -> Header {
        Header { groups: self.groups, cluster_id: self.cluster_id, hash_key: self.hash_key, sequence }
    }

    /// Returns one line for each given setting that differs from the birth record, and so has no effect.
    #[must_use]
    pub fn overruled(
        &self,
        groups: Option<u32>,
        session_ttl_ms: Option<Ms>,
        value_bytes_max: Option<u64>,
    ) -> Vec<String> {
        let told = [
            ("--groups", groups.map(u64::from), u64::from(self.groups), ""),
            ("--session-ttl", session_ttl_ms.map(|ttl_ms| ttl_ms.0), self.session_ttl_ms.0, " ms"),
            ("--value-bytes-max", value_bytes_max, self.value_bytes_max, ""),
        ];
        let differs = told.into_iter().filter_map(|(flag, told, born, unit)| {
            let told = told.filter(|told| *told != born)?;
            Some(format!("{flag} of {told}{unit} has no effect: the cluster was born with {born}{unit}"))
        });
        differs.collect()
    }

    /// Returns one line for each node in `told` that is not an initial member. After the birth, the list only corrects
    /// addresses and adds no members.
    #[must_use]
    pub fn not_added(&self, told: &[(NodeId, String)]) -> Vec<String> {
        let is_new = |id: NodeId| self.members.iter().all(|member| member.node != id);
        let line = |id| {
            format!("--initial-cluster does not add node {id}: the cluster was born without it; use paxoi member add")
        };
        told.iter().filter(|(id, _)| is_new(*id)).map(|(id, _)| line(*id)).collect()
    }

    /// Returns one line for each member whose address in this node's list differs from the list that the cluster is
    /// born with.
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
    /// Address at which peers and clients reach it.
    pub address: String,
}

/// The reason why a directory cannot be opened. Each message is one line that says what to do.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// A file cannot be read or written.
    #[error("data directory {place}: cannot {doing} the file {IDENTITY}: {source}")]
    Io {
        /// The directory.
        place: String,
        /// The operation that failed.
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
    /// The file has a format version that this program does not read.
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
        /// The node that it belongs to.
        found: NodeId,
        /// The node that was to be started.
        asked: NodeId,
    },
    /// There is a log with votes, but no identity that says whose they are.
    #[error(
        "data directory {place} has a log but no file {IDENTITY}; put that file back, \
         or replace this node under a new id with an empty directory"
    )]
    IdentityMissing {
        /// The directory.
        place: String,
    },
    /// The node belongs to a cluster, but its log with its votes is gone.
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

/// File format: magic `[8]` | version u32 | CRC-32C of version and body u32 | body, in postcard | time of birth, in
/// postcard, if there is a birth record
const MAGIC: [u8; 8] = *b"PAXOI-ID";
const VERSION: u32 = 3;
const BODY: usize = MAGIC.len() + 8;
/// Maximum number of incarnations kept. If a directory was started more often than this since a member last saw it,
/// that member cannot check its incarnations, and accepts it.
pub const INCARNATIONS_MAX: usize = 1_024;
/// Maximum bytes read of the file. The incarnations, and the birth record of the largest cluster, are far smaller.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads the identity of a directory, and durably counts this start, with the random number `incarnation`. An empty
/// directory becomes `node`'s, with a storage id from `random`. The caller must hold the directory's lock; otherwise
/// two processes could share one start number.
pub fn open_or_create(
    disk: &dyn Disk,
    node: NodeId,
    incarnation: u64,
    random: impl FnOnce() -> [u8; 16],
) -> Result<Identity, IdentityError> {
    let place = disk.place();
    let names = disk.list().map_err(failed(disk, "find"))?;
    let has_log = names.iter().any(|name| is_segment(name));
    let mut identity = match newest(disk)? {
        Some(identity) => identity,
        None if has_log => return Err(IdentityError::IdentityMissing { place }),
        None => {
            Identity { storage_id: random(), node, start: 0, incarnations: Vec::new(), birth: None, joined: Vec::new() }
        }
    };
    if identity.node != node {
        return Err(IdentityError::OtherNode { place, found: identity.node, asked: node });
    }
    if identity.birth.is_some() && !has_log {
        return Err(IdentityError::LogMissing { place });
    }
    identity.start += 1;
    identity.incarnations.push(incarnation);
    let surplus = identity.incarnations.len().saturating_sub(INCARNATIONS_MAX);
    identity.incarnations.drain(..surplus);
    save(disk, &identity)?;
    Ok(identity)
}

/// Reads the identity of a directory without counting a start, for tools that only look. Returns `None` if it has none
/// yet.
pub fn read(disk: &dyn Disk) -> Result<Option<Identity>, IdentityError> {
    newest(disk)
}

/// Replaces both copies of the file, durably.
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

/// The state of one copy.
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
            // Copies of equal starts differ only if a birth record was being added, which goes to the first copy first.
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
    let mut body = postcard::to_stdvec(identity).expect("plain data always has an encoding");
    if let Some(record) = &identity.birth {
        body = postcard::to_extend(&record.born_ms, body).expect("a number has one too");
    }
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
    decode_body(body).map_or(Copy::Corrupt, Copy::Sound)
}

fn decode_body(body: &[u8]) -> Result<Identity, postcard::Error> {
    let (mut identity, rest) = postcard::take_from_bytes::<Identity>(body)?;
    if let Some(record) = &mut identity.birth {
        record.take_birth_time(rest)?;
    }
    Ok(identity)
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
            session_ttl_ms: Ms(1000),
            value_bytes_max: 1 << 20,
            members: vec![member],
            born_ms: Ms(1_700_000_000_000),
        }
    }

    #[test]
    fn starts_are_counted_and_the_birth_is_kept() {
        let disk = MemoryDisk::new();
        let mut identity = open(&disk).unwrap();
        assert_eq!(
            identity,
            Identity {
                storage_id: [9; 16],
                node: NODE,
                start: 1,
                incarnations: vec![7],
                birth: None,
                joined: Vec::new()
            }
        );
        identity.birth = Some(birth());
        save(&disk, &identity).unwrap();
        disk.set_content("log-0000000000000001", Vec::new());
        let again = open_or_create(&disk.crash(1), NODE, 8, || panic!("no new storage id")).unwrap();
        assert_eq!(again, Identity { start: 2, incarnations: vec![7, 8], ..identity.clone() });
        assert_eq!(read(&disk).unwrap(), Some(identity), "looking counts no start");
        assert_eq!(read(&MemoryDisk::new()).unwrap(), None);
    }

    #[test]
    fn programs_without_the_time_of_the_birth_read_the_record_and_are_read() {
        let record = birth();
        let without = BirthRecord { born_ms: Ms(0), ..record.clone() };
        let message = record.encode().unwrap();
        let old_message = postcard::to_stdvec(&record).unwrap();
        assert_eq!(BirthRecord::decode(&message), Ok(record.clone()));
        assert_eq!(BirthRecord::decode(&old_message), Ok(without.clone()));
        assert_eq!(postcard::from_bytes(&message), Ok(without.clone()), "an older program reads it");
        assert!(BirthRecord::decode(&message[..message.len() - 1]).is_err(), "the time is cut off");
        let disk = MemoryDisk::new();
        let identity = Identity { birth: Some(without), ..open(&disk).unwrap() };
        assert_eq!(decode_body(&postcard::to_stdvec(&identity).unwrap()), Ok(identity));
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
