//! The one table of commands: names, arity, flags, key positions, answering component and spread over groups. Clients
//! read the table through `COMMAND`. The node looks up each request in it before it parses the arguments.
//!
//! The rows are in `rows.rs`. A name is looked up by packing it, folded to lower case, into one 128-bit word and
//! probing an index that the compiler builds: no allocation, no comparison of strings.

use super::reply::Reply;
use super::rows::ROWS;
use std::borrow::Cow;

/// Every command and subcommand that this server knows, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "a variant is the command of that name")]
#[rustfmt::skip]
pub enum Verb {
    Get, Set, SetNx, SetEx, PSetEx, GetSet, GetDel, GetEx, MGet, MSet, MSetNx, Append, StrLen, GetRange, SubStr,
    SetRange, Incr, IncrBy, Decr, DecrBy, IncrByFloat,
    Del, Unlink, Exists, Touch, Type, Expire, PExpire, ExpireAt, PExpireAt, Ttl, PTtl, ExpireTime, PExpireTime,
    Persist, Rename, RenameNx, Copy, Scan, Keys, DbSize, RandomKey, FlushAll, FlushDb,
    Object, ObjectEncoding, ObjectFreq, ObjectIdleTime, ObjectRefCount, ObjectHelp,
    Multi, Exec, Discard, Watch, Unwatch, Session, SessionNew, SessionHelp, Once,
    Ping, Echo, Quit, Reset, Select, Hello, Auth, Time, Wait, WaitAof, ReadOnly, ReadWrite, Asking, Info,
    Client, ClientId, ClientSetName, ClientGetName, ClientSetInfo, ClientInfo, ClientList, ClientKill, ClientReply,
    ClientNoEvict, ClientNoTouch, ClientPause, ClientUnpause, ClientUnblock, ClientTracking, ClientTrackingInfo,
    ClientCaching, ClientGetRedir, ClientHelp,
    Command, CommandCount, CommandInfo, CommandDocs, CommandList, CommandGetKeys, CommandGetKeysAndFlags, CommandHelp,
    Paxoi, PaxoiCheckpoint, PaxoiMember, PaxoiLeader, PaxoiDrain, PaxoiUndrain, PaxoiHelp,
    Config, ConfigGet, ConfigSet, ConfigResetStat, ConfigRewrite, ConfigHelp,
    Cluster, ClusterSlots, ClusterShards, ClusterNodes, ClusterInfo, ClusterMyId, ClusterMyShardId,
    ClusterLinks, ClusterReplicas, ClusterSlaves, ClusterCountFailureReports, ClusterKeySlot, ClusterCountKeysInSlot,
    ClusterGetKeysInSlot, ClusterHelp,
}

/// The component that answers a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The store, without changing it.
    Read,
    /// The store, through the log.
    Write,
    /// The connection's own state: MULTI, EXEC, DISCARD, WATCH.
    Transaction,
    /// The connection, at once.
    Connection,
    /// The node, about itself.
    Admin,
    /// The node, about the cluster.
    Cluster,
}

/// How a command spreads over groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FanOut {
    /// The command touches no group, or any group will do.
    Nowhere,
    /// All its keys must be in one group.
    OneGroup,
    /// It is split by key, and the replies of the parts are merged.
    EachKey,
    /// It goes to every group.
    EveryGroup,
}

/// The positions of a command's keys, and the access to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySpec {
    /// Position of the first key; the command's name is 0.
    pub first: u8,
    /// Position of the last key: 0 means `first` itself, -1 the last argument.
    pub last: i8,
    /// Distance from one key to the next.
    pub step: u8,
    /// Redis's words for the access: RO, RW, OW or RM, then access, update, insert, delete.
    pub access: &'static [&'static str],
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// The command.
    pub verb: Verb,
    /// Its name in lower case; a subcommand's is `container|name`.
    pub name: &'static str,
    /// Number of arguments, its name (and its container's) included; a negative number is a minimum.
    pub arity: i8,
    /// The component that answers it.
    pub class: Class,
    /// How it spreads over groups.
    pub fan_out: FanOut,
    /// Flags and access-control categories, see [`FLAGS`] and [`CATEGORIES`].
    pub flags: u32,
    /// The positions of its keys.
    pub keys: &'static [KeySpec],
    /// The version of Redis that introduced it; for Paxoi's own, 1.0.0 (sessions) or 7.0.0 (`PAXOI`).
    pub since: &'static str,
    /// Its arguments, for people.
    pub syntax: &'static str,
    /// One sentence about it, for people.
    pub summary: &'static str,
    /// The commands that have this one as their first word.
    pub subcommands: &'static [Spec],
}

/// The names of the flag bits in the reply of `COMMAND`. A class adds `readonly` or `write` by itself.
pub const FLAGS: [(u32, &str); 11] = [
    (DENYOOM, "denyoom"),
    (ADMIN, "admin"),
    (NOSCRIPT, "noscript"),
    (LOADING, "loading"),
    (STALE, "stale"),
    (SKIP_SLOWLOG, "skip_slowlog"),
    (FAST, "fast"),
    (NO_AUTH, "no_auth"),
    (ALLOW_BUSY, "allow_busy"),
    (NO_MULTI, "no_multi"),
    (MOVABLE_KEYS, "movablekeys"),
];

/// The names of the category bits. `@read`, `@write`, `@admin`, `@fast` and `@slow` follow from the class and flags.
pub const CATEGORIES: [(u32, &str); 5] = [
    (KEYSPACE, "@keyspace"),
    (STRING, "@string"),
    (DANGEROUS, "@dangerous"),
    (CONNECTION, "@connection"),
    (TRANSACTION, "@transaction"),
];

pub(super) const DENYOOM: u32 = 1;
pub(super) const ADMIN: u32 = 1 << 1;
pub(super) const NOSCRIPT: u32 = 1 << 2;
pub(super) const LOADING: u32 = 1 << 3;
pub(super) const STALE: u32 = 1 << 4;
pub(super) const SKIP_SLOWLOG: u32 = 1 << 5;
pub(super) const FAST: u32 = 1 << 6;
pub(super) const NO_AUTH: u32 = 1 << 7;
pub(super) const ALLOW_BUSY: u32 = 1 << 8;
pub(super) const NO_MULTI: u32 = 1 << 9;
pub(super) const MOVABLE_KEYS: u32 = 1 << 10;
/// Not a flag of Redis 7 but a tip: the reply differs from call to call.
pub(super) const RANDOM: u32 = 1 << 11;
pub(super) const KEYSPACE: u32 = 1 << 16;
pub(super) const STRING: u32 = 1 << 17;
pub(super) const DANGEROUS: u32 = 1 << 18;
pub(super) const CONNECTION: u32 = 1 << 19;
pub(super) const TRANSACTION: u32 = 1 << 20;

/// Returns the row of a request, by its first word, and by its second if that belongs to the name.
///
/// # Errors
/// Redis's reply for an unknown command, an unknown subcommand or a wrong number of arguments.
pub fn lookup(request: &[&[u8]]) -> Result<&'static Spec, Reply<'static>> {
    let name = request.first().copied().unwrap_or_default();
    let mut spec = find(name).ok_or_else(|| unknown(name, request))?;
    if !spec.subcommands.is_empty() && request.len() > 1 {
        spec = spec.subcommand(request[1]).ok_or_else(|| unknown_subcommand(spec, request[1]))?;
    }
    if !spec.accepts(request.len()) {
        return Err(wrong_arity(spec));
    }
    Ok(spec)
}

/// Returns the row of a command by its name, in upper or lower case. Does not find subcommands.
#[must_use]
pub fn find(name: &[u8]) -> Option<&'static Spec> {
    let packed = pack(name)?;
    let mut probe = bucket(packed);
    loop {
        let row = usize::from(INDEX[probe]);
        if row == EMPTY {
            return None;
        }
        if NAMES[row] == packed {
            return Some(&ROWS[row]);
        }
        probe = (probe + 1) % INDEX.len();
    }
}

/// Returns the row of a command or, by `container|name`, of a subcommand.
#[must_use]
pub fn find_full(name: &[u8]) -> Option<&'static Spec> {
    match memchr::memchr(b'|', name) {
        None => find(name),
        Some(bar) => find(&name[..bar])?.subcommand(&name[bar + 1..]),
    }
}

/// Returns Redis's reply to a wrong number of arguments.
#[must_use]
pub fn wrong_arity(spec: &Spec) -> Reply<'static> {
    Reply::Error(Cow::Owned(format!("ERR wrong number of arguments for '{}' command", spec.name)))
}

/// Returns all commands, each followed by its subcommands.
pub fn all() -> impl Iterator<Item = &'static Spec> {
    ROWS.iter().flat_map(|spec| std::iter::once(spec).chain(spec.subcommands))
}

/// Returns the names of all commands and subcommands, each at the index of its verb's number.
#[must_use]
pub fn names_by_verb() -> Vec<&'static str> {
    let count = all().map(|spec| spec.verb as usize + 1).max().unwrap_or(0);
    let mut names = vec![""; count];
    all().for_each(|spec| names[spec.verb as usize] = spec.name);
    names
}

impl Spec {
    /// Returns true if a request of `words` words, the name included, may be this command.
    #[must_use]
    pub fn accepts(&self, words: usize) -> bool {
        let arity = usize::from(self.arity.unsigned_abs());
        if self.arity < 0 { words >= arity } else { words == arity }
    }

    /// Returns true if the command is served while a starting node still loads its state.
    #[must_use]
    pub fn is_served_while_loading(&self) -> bool {
        self.flags & LOADING != 0
    }

    /// Returns true if the command is refused when memory is short.
    #[must_use]
    pub fn denies_oom(&self) -> bool {
        self.flags & DENYOOM != 0
    }

    /// Returns the subcommand of that name, in upper or lower case.
    #[must_use]
    pub fn subcommand(&self, name: &[u8]) -> Option<&'static Spec> {
        self.subcommands.iter().find(|sub| sub.last_word().as_bytes().eq_ignore_ascii_case(name))
    }

    /// Returns the name without its container's.
    #[must_use]
    pub fn last_word(&self) -> &'static str {
        self.name.rsplit('|').next().unwrap_or(self.name)
    }

    /// Returns first key, last key and step, as `COMMAND` has them: zeros without keys.
    #[must_use]
    pub fn key_range(&self) -> (i64, i64, i64) {
        let (Some(head), Some(tail)) = (self.keys.first(), self.keys.last()) else { return (0, 0, 0) };
        let last = if tail.last < 0 { i64::from(tail.last) } else { i64::from(tail.first) + i64::from(tail.last) };
        (i64::from(head.first), last, i64::from(head.step))
    }
}

/// Returns `ERR unknown command`, with as much of the arguments as Redis 7.0 shows.
fn unknown(name: &[u8], request: &[&[u8]]) -> Reply<'static> {
    let mut shown = Vec::new();
    for word in request.iter().skip(1) {
        if shown.len() >= SHOWN_BYTES_MAX {
            break;
        }
        let room = SHOWN_BYTES_MAX - shown.len();
        shown.push(b'\'');
        shown.extend_from_slice(shorten(word, room));
        shown.extend_from_slice(b"' ");
    }
    let name = String::from_utf8_lossy(shorten(name, SHOWN_BYTES_MAX));
    let shown = String::from_utf8_lossy(&shown);
    Reply::Error(Cow::Owned(format!("ERR unknown command '{name}', with args beginning with: {shown}")))
}

fn unknown_subcommand(container: &Spec, name: &[u8]) -> Reply<'static> {
    let name = String::from_utf8_lossy(shorten(name, SHOWN_BYTES_MAX));
    let container = container.name.to_ascii_uppercase();
    Reply::Error(Cow::Owned(format!("ERR unknown subcommand '{name}'. Try {container} HELP.")))
}

/// Cuts a word as Redis does, which prints words as C strings: up to a NUL.
fn shorten(word: &[u8], bytes_max: usize) -> &[u8] {
    let end = memchr::memchr(0, word).unwrap_or(word.len());
    &word[..end.min(bytes_max)]
}

const SHOWN_BYTES_MAX: usize = 128;

/// Packs a name into one word, folded to lower case; `None` if it is empty or longer than any name in the table.
fn pack(name: &[u8]) -> Option<u128> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return None;
    }
    let mut bytes = [0; NAME_BYTES_MAX + 1];
    bytes[..name.len()].copy_from_slice(name);
    bytes.make_ascii_lowercase();
    bytes[NAME_BYTES_MAX] = name.len() as u8; // so that a NUL at the end is not taken for padding
    Some(u128::from_le_bytes(bytes))
}

const fn bucket(packed: u128) -> usize {
    let folded = (packed as u64) ^ ((packed >> 64) as u64).rotate_left(29);
    (folded.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 55) as usize
}

const NAME_BYTES_MAX: usize = 15;
const EMPTY: usize = 255;

const NAMES: [u128; ROWS.len()] = {
    let mut names = [0; ROWS.len()];
    let mut row = 0;
    while row < ROWS.len() {
        let name = ROWS[row].name.as_bytes();
        let mut at = 0;
        while at < name.len() {
            names[row] |= (name[at] as u128) << (8 * at);
            at += 1;
        }
        names[row] |= (name.len() as u128) << (8 * NAME_BYTES_MAX);
        row += 1;
    }
    names
};

/// An open-addressed hash table of row numbers, a quarter full or less, so that a probe nearly always hits at once.
static INDEX: [u8; 512] = {
    assert!(ROWS.len() < EMPTY);
    let mut index = [EMPTY as u8; 512];
    let mut row = 0;
    while row < ROWS.len() {
        let mut probe = bucket(NAMES[row]);
        while index[probe] as usize != EMPTY {
            probe = (probe + 1) % index.len();
        }
        index[probe] = row as u8;
        row += 1;
    }
    index
};

#[cfg(test)]
mod tests {
    use super::*;

    fn error(words: &[&str]) -> String {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        match lookup(&words) {
            Err(Reply::Error(text)) => text.into_owned(),
            other => panic!("{words:?}: {other:?}"),
        }
    }

    #[test]
    fn every_row_is_found_in_any_case_and_nothing_else() {
        for spec in ROWS {
            assert!(std::ptr::eq(find(spec.name.as_bytes()).unwrap(), spec));
            assert!(std::ptr::eq(find(spec.name.to_uppercase().as_bytes()).unwrap(), spec));
            for sub in spec.subcommands {
                assert!(sub.name.starts_with(&format!("{}|", spec.name)), "{}", sub.name);
                assert!(std::ptr::eq(find_full(sub.name.to_uppercase().as_bytes()).unwrap(), sub));
            }
        }
        for name in ["", "ge", "gett", "get\0", "incrbyfloatincrbyfloat", "client|id"] {
            assert!(find(name.as_bytes()).is_none(), "{name}");
        }
    }

    #[test]
    fn errors_are_worded_as_in_redis() {
        assert_eq!(error(&["GET"]), "ERR wrong number of arguments for 'get' command");
        assert_eq!(error(&["object", "ENCODING"]), "ERR wrong number of arguments for 'object|encoding' command");
        assert_eq!(error(&["object"]), "ERR wrong number of arguments for 'object' command");
        assert_eq!(error(&["object", "Foo", "a"]), "ERR unknown subcommand 'Foo'. Try OBJECT HELP.");
        assert_eq!(error(&["FOO"]), "ERR unknown command 'FOO', with args beginning with: ");
        assert_eq!(error(&["foo", "a", "b"]), "ERR unknown command 'foo', with args beginning with: 'a' 'b' ");
        let long = "a".repeat(200);
        let shown = format!("ERR unknown command 'f', with args beginning with: '{}' ", &long[..128]);
        assert_eq!(error(&["f", &long, "b"]), shown);
    }

    #[test]
    fn a_key_range_covers_all_of_a_commands_keys() {
        assert_eq!(find(b"mset").unwrap().key_range(), (1, -1, 2));
        assert_eq!(find(b"rename").unwrap().key_range(), (1, 2, 1));
        assert_eq!(find_full(b"object|encoding").unwrap().key_range(), (2, 2, 1));
        assert_eq!(find(b"ping").unwrap().key_range(), (0, 0, 0));
    }
}
