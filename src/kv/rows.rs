//! The rows of the command table, one line each: what `table.rs` defines, for every command of this server. Names,
//! arities, flags and key positions are those of Redis 7.0, so that clients find what they expect.

use super::table::{
    ADMIN, ALLOW_BUSY, CONNECTION, Class, DANGEROUS, DENYOOM, FAST, FanOut, KEYSPACE, KeySpec, LOADING, MOVABLE_KEYS,
    NO_AUTH, NO_MULTI, NOSCRIPT, RANDOM, SKIP_SLOWLOG, STALE, STRING, Spec, TRANSACTION, Verb,
};

/// Every command of this server.
#[rustfmt::skip]
pub(super) static ROWS: &[Spec] = &[
    // Strings.
    read("get", Verb::Get, 2, FAST | STRING, RO_ACCESS, "1.0.0", "key", "Get the value of a key"),
    write("set", Verb::Set, -3, DENYOOM | STRING, SET_KEY, "1.0.0",
        "key value [NX|XX] [GET] [EX seconds|PX milliseconds|EXAT unix-time-seconds|PXAT unix-time-millis|KEEPTTL]",
        "Set the string value of a key"),
    write("setnx", Verb::SetNx, 3, DENYOOM | FAST | STRING, OW_INSERT, "1.0.0",
        "key value", "Set the value of a key, only if the key does not exist"),
    write("setex", Verb::SetEx, 4, DENYOOM | STRING, OW_UPDATE, "2.0.0",
        "key seconds value", "Set the value and expiration of a key"),
    write("psetex", Verb::PSetEx, 4, DENYOOM | STRING, OW_UPDATE, "2.6.0",
        "key milliseconds value", "Set the value and expiration in milliseconds of a key"),
    write("getset", Verb::GetSet, 3, DENYOOM | FAST | STRING, RW_ACCESS, "1.0.0",
        "key value", "Set the string value of a key and return its old value"),
    write("getdel", Verb::GetDel, 2, FAST | STRING, RW_DELETE, "6.2.0",
        "key", "Get the value of a key and delete the key"),
    write("getex", Verb::GetEx, -2, FAST | STRING, RW_ACCESS, "6.2.0",
        "key [EX seconds|PX milliseconds|EXAT unix-time-seconds|PXAT unix-time-milliseconds|PERSIST]",
        "Get the value of a key and optionally set its expiration"),
    each_key(read("mget", Verb::MGet, -2, FAST | STRING, RO_ACCESS_ALL, "1.0.0",
        "key [key ...]", "Get the values of all the given keys")),
    each_key(write("mset", Verb::MSet, -3, DENYOOM | STRING, OW_UPDATE_PAIRS, "1.0.1",
        "key value [key value ...]", "Set multiple keys to multiple values; atomic per group only")),
    write("msetnx", Verb::MSetNx, -3, DENYOOM | STRING, OW_INSERT_PAIRS, "1.0.1",
        "key value [key value ...]", "Set multiple keys to multiple values, only if none of the keys exist"),
    write("append", Verb::Append, 3, DENYOOM | FAST | STRING, RW_INSERT, "2.0.0",
        "key value", "Append a value to a key"),
    read("strlen", Verb::StrLen, 2, FAST | STRING, RO, "2.2.0", "key", "Get the length of the value stored in a key"),
    read("getrange", Verb::GetRange, 4, STRING, RO_ACCESS, "2.4.0",
        "key start end", "Get a substring of the string stored at a key"),
    read("substr", Verb::SubStr, 4, STRING, RO_ACCESS, "1.0.0",
        "key start end", "Get a substring of the string stored at a key"),
    write("setrange", Verb::SetRange, 4, DENYOOM | STRING, RW_UPDATE, "2.2.0",
        "key offset value", "Overwrite part of a string at key starting at the specified offset"),
    write("incr", Verb::Incr, 2, DENYOOM | FAST | STRING, RW_ACCESS, "1.0.0",
        "key", "Increment the integer value of a key by one"),
    write("incrby", Verb::IncrBy, 3, DENYOOM | FAST | STRING, RW_ACCESS, "1.0.0",
        "key increment", "Increment the integer value of a key by the given amount"),
    write("decr", Verb::Decr, 2, DENYOOM | FAST | STRING, RW_ACCESS, "1.0.0",
        "key", "Decrement the integer value of a key by one"),
    write("decrby", Verb::DecrBy, 3, DENYOOM | FAST | STRING, RW_ACCESS, "1.0.0",
        "key decrement", "Decrement the integer value of a key by the given number"),
    write("incrbyfloat", Verb::IncrByFloat, 3, DENYOOM | FAST | STRING, RW_ACCESS, "2.6.0",
        "key increment", "Increment the float value of a key by the given amount"),
    // Keys.
    each_key(write("del", Verb::Del, -2, KEYSPACE, RM_DELETE_ALL, "1.0.0", "key [key ...]", "Delete a key")),
    each_key(write("unlink", Verb::Unlink, -2, FAST | KEYSPACE, RM_DELETE_ALL, "4.0.0",
        "key [key ...]", "Delete a key; here the same as DEL")),
    each_key(read("exists", Verb::Exists, -2, FAST | KEYSPACE, RO_ALL, "1.0.0",
        "key [key ...]", "Determine if a key exists")),
    each_key(read("touch", Verb::Touch, -2, FAST | KEYSPACE, RO_ALL, "3.2.1",
        "key [key ...]", "Returns the number of existing keys specified")),
    read("type", Verb::Type, 2, FAST | KEYSPACE, RO, "1.0.0", "key", "Determine the type stored at key"),
    write("expire", Verb::Expire, -3, FAST | KEYSPACE, RW_UPDATE, "1.0.0",
        "key seconds [NX|XX|GT|LT]", "Set a key's time to live in seconds"),
    write("pexpire", Verb::PExpire, -3, FAST | KEYSPACE, RW_UPDATE, "2.6.0",
        "key milliseconds [NX|XX|GT|LT]", "Set a key's time to live in milliseconds"),
    write("expireat", Verb::ExpireAt, -3, FAST | KEYSPACE, RW_UPDATE, "1.2.0",
        "key unix-time-seconds [NX|XX|GT|LT]", "Set the expiration for a key as a UNIX timestamp"),
    write("pexpireat", Verb::PExpireAt, -3, FAST | KEYSPACE, RW_UPDATE, "2.6.0",
        "key unix-time-milliseconds [NX|XX|GT|LT]",
        "Set the expiration for a key as a UNIX timestamp specified in milliseconds"),
    read("ttl", Verb::Ttl, 2, FAST | KEYSPACE | RANDOM, RO_ACCESS, "1.0.0",
        "key", "Get the time to live for a key in seconds"),
    read("pttl", Verb::PTtl, 2, FAST | KEYSPACE | RANDOM, RO_ACCESS, "2.6.0",
        "key", "Get the time to live for a key in milliseconds"),
    read("expiretime", Verb::ExpireTime, 2, FAST | KEYSPACE, RO_ACCESS, "7.0.0",
        "key", "Get the expiration Unix timestamp for a key"),
    read("pexpiretime", Verb::PExpireTime, 2, FAST | KEYSPACE, RO_ACCESS, "7.0.0",
        "key", "Get the expiration Unix timestamp for a key in milliseconds"),
    write("persist", Verb::Persist, 2, FAST | KEYSPACE, RW_UPDATE, "2.2.0", "key", "Remove the expiration from a key"),
    write("rename", Verb::Rename, 3, KEYSPACE, MOVE, "1.0.0", "key newkey", "Rename a key"),
    write("renamenx", Verb::RenameNx, 3, FAST | KEYSPACE, MOVE_NEW, "1.0.0",
        "key newkey", "Rename a key, only if the new key does not exist"),
    write("copy", Verb::Copy, -3, DENYOOM | KEYSPACE, COPY, "6.2.0",
        "source destination [DB destination-db] [REPLACE]", "Copy a key"),
    everywhere(read("scan", Verb::Scan, -2, KEYSPACE | RANDOM, NO_KEYS, "2.8.0",
        "cursor [MATCH pattern] [COUNT count] [TYPE type]", "Incrementally iterate the keys space")),
    everywhere(read("keys", Verb::Keys, 2, KEYSPACE | DANGEROUS | RANDOM, NO_KEYS, "1.0.0",
        "pattern", "Find all keys matching the given pattern")),
    everywhere(read("dbsize", Verb::DbSize, 1, FAST | KEYSPACE, NO_KEYS, "1.0.0",
        "", "Return the number of keys in the database")),
    everywhere(read("randomkey", Verb::RandomKey, 1, KEYSPACE | RANDOM, NO_KEYS, "1.0.0",
        "", "Return a random key from the keyspace")),
    everywhere(write("flushall", Verb::FlushAll, -1, KEYSPACE | DANGEROUS, NO_KEYS, "1.0.0",
        "[ASYNC|SYNC]", "Remove all keys; atomic per group only")),
    everywhere(write("flushdb", Verb::FlushDb, -1, KEYSPACE | DANGEROUS, NO_KEYS, "1.0.0",
        "[ASYNC|SYNC]", "Remove all keys; atomic per group only")),
    container("object", Verb::Object, -2, 0, "2.2.3", "A container for object introspection commands", OBJECT),
    // Together.
    plain("multi", Verb::Multi, 1, Class::Transaction, UNSCRIPTED | FAST | ALLOW_BUSY | TRANSACTION, "1.2.0",
        "", "Mark the start of a transaction block"),
    plain("exec", Verb::Exec, 1, Class::Transaction, UNSCRIPTED | SKIP_SLOWLOG | TRANSACTION, "1.2.0",
        "", "Execute all commands issued after MULTI"),
    plain("discard", Verb::Discard, 1, Class::Transaction, UNSCRIPTED | FAST | ALLOW_BUSY | TRANSACTION, "2.0.0",
        "", "Discard all commands issued after MULTI"),
    watched(plain("watch", Verb::Watch, -2, Class::Transaction, UNSCRIPTED | FAST | ALLOW_BUSY | NO_MULTI | TRANSACTION,
        "2.2.0", "key [key ...]", "Watch the given keys to determine execution of the MULTI/EXEC block")),
    plain("unwatch", Verb::Unwatch, 1, Class::Transaction, UNSCRIPTED | FAST | ALLOW_BUSY | TRANSACTION, "2.2.0",
        "", "Forget about all watched keys"),
    container("session", Verb::Session, -2, 0, "1.0.0",
        "A container for commands about exactly-once sessions", SESSION),
    write("once", Verb::Once, -4, DENYOOM | NO_MULTI | MOVABLE_KEYS, ONCE_KEY, "1.0.0",
        "session number command [argument ...]", "Execute a command exactly once per session and number"),
    // Connection.
    plain("ping", Verb::Ping, -1, Class::Connection, FAST | CONNECTION, "1.0.0", "[message]", "Ping the server"),
    plain("echo", Verb::Echo, 2, Class::Connection, LOADING | STALE | FAST | CONNECTION, "1.0.0",
        "message", "Echo the given string"),
    plain("quit", Verb::Quit, -1, Class::Connection, HANDSHAKE, "1.0.0", "", "Close the connection"),
    plain("reset", Verb::Reset, 1, Class::Connection, HANDSHAKE, "6.2.0", "", "Reset the connection"),
    plain("select", Verb::Select, 2, Class::Connection, LOADING | STALE | FAST | CONNECTION, "1.0.0",
        "index", "Change the selected database for the current connection; only 0 exists"),
    plain("hello", Verb::Hello, -1, Class::Connection, HANDSHAKE, "6.0.0",
        "[protover [AUTH username password] [SETNAME clientname]]", "Handshake with the server"),
    plain("auth", Verb::Auth, -2, Class::Connection, HANDSHAKE, "1.0.0",
        "[username] password", "Authenticate to the server"),
    plain("time", Verb::Time, 1, Class::Connection, LOADING | STALE | FAST | RANDOM, "2.6.0",
        "", "Return the current server time"),
    plain("wait", Verb::Wait, 3, Class::Connection, NOSCRIPT | CONNECTION, "3.0.0",
        "numreplicas timeout", "Wait until so many other members have this connection's writes on their disks"),
    plain("waitaof", Verb::WaitAof, 4, Class::Connection, NOSCRIPT | CONNECTION, "7.2.0",
        "numlocal numreplicas timeout", "The same as WAIT; tells of this node's own disk, too"),
    plain("readonly", Verb::ReadOnly, 1, Class::Connection, LOADING | STALE | FAST | CONNECTION, "3.0.0",
        "", "Answer this connection's reads at once from what the node has, which may be old"),
    plain("readwrite", Verb::ReadWrite, 1, Class::Connection, LOADING | STALE | FAST | CONNECTION, "3.0.0",
        "", "Confirm this connection's reads again, as before READONLY"),
    plain("asking", Verb::Asking, 1, Class::Connection, FAST | CONNECTION, "3.0.0",
        "", "Accepted for cluster clients; changes nothing"),
    container("client", Verb::Client, -2, 0, "2.4.0", "A container for client connection commands", CLIENT),
    container("command", Verb::Command, -1, LOADING | STALE | CONNECTION | RANDOM, "2.8.13",
        "Get array of Redis command details", COMMAND),
    // Node and cluster.
    container("paxoi", Verb::Paxoi, -2, 0, "7.0.0", "A container for commands that only Paxoi has", PAXOI),
    container("config", Verb::Config, -2, 0, "2.0.0", "A container for server configuration commands", CONFIG),
    plain("info", Verb::Info, -1, Class::Admin, LOADING | STALE | DANGEROUS | RANDOM, "1.0.0",
        "[section [section ...]]", "Get information and statistics about the server"),
    container("cluster", Verb::Cluster, -2, 0, "3.0.0", "A container for cluster commands", CLUSTER),
];

#[rustfmt::skip]
static OBJECT: &[Spec] = &[
    read("object|encoding", Verb::ObjectEncoding, 3, KEYSPACE | RANDOM, RO_SECOND, "2.2.3",
        "key", "Inspect the internal encoding of a Redis object"),
    read("object|freq", Verb::ObjectFreq, 3, KEYSPACE | RANDOM, RO_SECOND, "4.0.0",
        "key", "Get the logarithmic access frequency counter of a Redis object"),
    read("object|idletime", Verb::ObjectIdleTime, 3, KEYSPACE | RANDOM, RO_SECOND, "2.2.3",
        "key", "Get the time since a Redis object was last accessed"),
    read("object|refcount", Verb::ObjectRefCount, 3, KEYSPACE | RANDOM, RO_SECOND, "2.2.3",
        "key", "Get the number of references to the value of the key"),
    help("object|help", Verb::ObjectHelp, KEYSPACE),
];

#[rustfmt::skip]
static SESSION: &[Spec] = &[
    write("session|new", Verb::SessionNew, 2, NO_MULTI | RANDOM, NO_KEYS, "1.0.0",
        "", "Begin an exactly-once session and return its id for ONCE"),
    help("session|help", Verb::SessionHelp, 0),
];

#[rustfmt::skip]
static CLIENT: &[Spec] = &[
    plain("client|id", Verb::ClientId, 2, Class::Connection, UNSCRIPTED | CONNECTION, "5.0.0",
        "", "Returns the client ID for the current connection"),
    plain("client|setname", Verb::ClientSetName, 3, Class::Connection, UNSCRIPTED | CONNECTION, "2.6.9",
        "connection-name", "Set the current connection name"),
    plain("client|getname", Verb::ClientGetName, 2, Class::Connection, UNSCRIPTED | CONNECTION, "2.6.9",
        "", "Get the current connection name"),
    plain("client|setinfo", Verb::ClientSetInfo, 4, Class::Connection, UNSCRIPTED | CONNECTION, "7.2.0",
        "LIB-NAME libname|LIB-VER libver", "Set client or connection specific info"),
    plain("client|info", Verb::ClientInfo, 2, Class::Connection, UNSCRIPTED | CONNECTION | RANDOM, "6.2.0",
        "", "Returns information about the current client connection."),
    plain("client|list", Verb::ClientList, -2, Class::Connection, CONTROL | CONNECTION | RANDOM, "2.4.0",
        "[TYPE type] [ID client-id ...]", "Get the list of client connections"),
    plain("client|kill", Verb::ClientKill, -3, Class::Connection, CONTROL | CONNECTION, "2.4.0",
        "filter", "Kill the connection of a client"),
    plain("client|reply", Verb::ClientReply, 3, Class::Connection, UNSCRIPTED | CONNECTION, "3.2.0",
        "ON|OFF|SKIP", "Instruct the server whether to reply to commands"),
    plain("client|no-evict", Verb::ClientNoEvict, 3, Class::Connection, CONTROL | CONNECTION, "7.0.0",
        "ON|OFF", "Set client eviction mode for the current connection"),
    plain("client|no-touch", Verb::ClientNoTouch, 3, Class::Connection, UNSCRIPTED | CONNECTION, "7.2.0",
        "ON|OFF", "Accepted; no command here changes a key's access time"),
    plain("client|pause", Verb::ClientPause, -3, Class::Connection, CONTROL | CONNECTION, "2.9.50",
        "timeout [WRITE|ALL]", "Suspend commands processing of this node's clients"),
    plain("client|unpause", Verb::ClientUnpause, 2, Class::Connection, CONTROL | CONNECTION, "6.2.0",
        "", "Resume processing of clients that were paused"),
    plain("client|unblock", Verb::ClientUnblock, -3, Class::Connection, CONTROL | CONNECTION, "5.0.0",
        "client-id [TIMEOUT|ERROR]", "Unblock a client that waits in WAIT or WAITAOF"),
    plain("client|tracking", Verb::ClientTracking, -3, Class::Connection, UNSCRIPTED | CONNECTION, "6.0.0",
        "ON|OFF", "Server assisted client side caching; always off"),
    plain("client|trackinginfo", Verb::ClientTrackingInfo, 2, Class::Connection, UNSCRIPTED | CONNECTION, "6.2.0",
        "", "Return information about server assisted client side caching for the current connection"),
    plain("client|caching", Verb::ClientCaching, 3, Class::Connection, UNSCRIPTED | CONNECTION, "6.0.0",
        "YES|NO", "Needs client side caching, which is always off"),
    plain("client|getredir", Verb::ClientGetRedir, 2, Class::Connection, UNSCRIPTED | CONNECTION, "6.0.0",
        "", "Get tracking notifications redirection client ID if any"),
    help("client|help", Verb::ClientHelp, CONNECTION),
];

#[rustfmt::skip]
static COMMAND: &[Spec] = &[
    plain("command|count", Verb::CommandCount, 2, Class::Connection, LOADING | STALE | CONNECTION, "2.8.13",
        "", "Get total number of Redis commands"),
    plain("command|info", Verb::CommandInfo, -2, Class::Connection, LOADING | STALE | CONNECTION, "2.8.13",
        "[command-name [command-name ...]]",
        "Get array of specific Redis command details, or all when no argument is given."),
    plain("command|docs", Verb::CommandDocs, -2, Class::Connection, LOADING | STALE | CONNECTION, "7.0.0",
        "[command-name [command-name ...]]", "Get array of specific Redis command documentation"),
    plain("command|list", Verb::CommandList, -2, Class::Connection, LOADING | STALE | CONNECTION, "7.0.0",
        "[FILTERBY MODULE module-name|ACLCAT category|PATTERN pattern]", "Get an array of Redis command names"),
    plain("command|getkeys", Verb::CommandGetKeys, -3, Class::Connection, LOADING | STALE | CONNECTION, "2.8.13",
        "command [arg [arg ...]]", "Extract keys given a full Redis command"),
    plain("command|getkeysandflags", Verb::CommandGetKeysAndFlags, -3, Class::Connection, LOADING | STALE | CONNECTION,
        "7.0.0", "command [arg [arg ...]]", "Extract keys and access flags given a full Redis command"),
    help("command|help", Verb::CommandHelp, CONNECTION),
];

#[rustfmt::skip]
static PAXOI: &[Spec] = &[
    plain("paxoi|checkpoint", Verb::PaxoiCheckpoint, -2, Class::Admin, MANAGED, "7.0.0",
        "[group]", "Begin to write this node's state, or that of one group, to a checkpoint; INFO tells when it is done"),
    plain("paxoi|member", Verb::PaxoiMember, -3, Class::Admin, MANAGED, "7.0.0",
        "<LIST | ADD id | PROMOTE id | REMOVE id | REPLACE old new | MOVE id host:port>",
        "List the members, or change them: repeat a change until it answers OK"),
    plain("paxoi|leader", Verb::PaxoiLeader, 5, Class::Cluster, MANAGED, "7.0.0",
        "MOVE group node", "Makes a node the leader of a group, until it is moved again or that node is lost"),
    plain("paxoi|drain", Verb::PaxoiDrain, 2, Class::Cluster, MANAGED, "7.0.0",
        "", "Makes this node hand all its groups to others, until it is undrained or started again"),
    plain("paxoi|undrain", Verb::PaxoiUndrain, 2, Class::Cluster, MANAGED, "7.0.0",
        "", "Lets this node lead groups again"),
    help("paxoi|help", Verb::PaxoiHelp, 0),
];

#[rustfmt::skip]
static CONFIG: &[Spec] = &[
    plain("config|get", Verb::ConfigGet, -3, Class::Admin, CONTROL, "2.0.0",
        "parameter [parameter ...]", "Get the values of configuration parameters"),
    plain("config|set", Verb::ConfigSet, -4, Class::Admin, CONTROL, "2.0.0",
        "parameter value [parameter value ...]", "Set configuration parameters to the given values"),
    plain("config|resetstat", Verb::ConfigResetStat, 2, Class::Admin, CONTROL, "2.0.0",
        "", "Reset the stats returned by INFO"),
    plain("config|rewrite", Verb::ConfigRewrite, 2, Class::Admin, CONTROL, "2.8.0",
        "", "Refused: the configuration file is the operator's"),
    help("config|help", Verb::ConfigHelp, 0),
];

#[rustfmt::skip]
static CLUSTER: &[Spec] = &[
    plain("cluster|slots", Verb::ClusterSlots, 2, Class::Cluster, STALE | RANDOM, "3.0.0",
        "", "Get array of Cluster slot to node mappings"),
    plain("cluster|shards", Verb::ClusterShards, 2, Class::Cluster, STALE | RANDOM, "7.0.0",
        "", "Get array of cluster slots to node mappings"),
    plain("cluster|nodes", Verb::ClusterNodes, 2, Class::Cluster, STALE | RANDOM, "3.0.0",
        "", "Get Cluster config for the node"),
    plain("cluster|info", Verb::ClusterInfo, 2, Class::Cluster, STALE | RANDOM, "3.0.0",
        "", "Provides info about Redis Cluster node state"),
    plain("cluster|myid", Verb::ClusterMyId, 2, Class::Cluster, STALE, "3.0.0", "", "Return the node id"),
    plain("cluster|myshardid", Verb::ClusterMyShardId, 2, Class::Cluster, STALE, "7.2.0",
        "", "Return the shard id, which is the node id"),
    plain("cluster|links", Verb::ClusterLinks, 2, Class::Cluster, STALE | RANDOM, "7.0.0",
        "", "Returns the nodes that this node is connected to"),
    plain("cluster|replicas", Verb::ClusterReplicas, 3, Class::Cluster, ADMIN | DANGEROUS | STALE | RANDOM, "5.0.0",
        "node-id", "List replica nodes of the specified master node: none, every node is a master"),
    plain("cluster|slaves", Verb::ClusterSlaves, 3, Class::Cluster, ADMIN | DANGEROUS | STALE | RANDOM, "3.0.0",
        "node-id", "The same as CLUSTER REPLICAS"),
    plain("cluster|count-failure-reports", Verb::ClusterCountFailureReports, 3, Class::Cluster,
        ADMIN | DANGEROUS | STALE | RANDOM, "3.0.0",
        "node-id", "Return the number of failure reports active for a given node"),
    plain("cluster|keyslot", Verb::ClusterKeySlot, 3, Class::Cluster, STALE, "3.0.0",
        "key", "Returns the hash slot of the specified key"),
    read("cluster|countkeysinslot", Verb::ClusterCountKeysInSlot, 3, STALE, NO_KEYS, "3.0.0",
        "slot", "Return the number of keys in the specified hash slot"),
    read("cluster|getkeysinslot", Verb::ClusterGetKeysInSlot, 4, STALE | RANDOM, NO_KEYS, "3.0.0",
        "slot count", "Return key names in the specified hash slot"),
    help("cluster|help", Verb::ClusterHelp, 0),
];

const UNSCRIPTED: u32 = NOSCRIPT | LOADING | STALE;
const HANDSHAKE: u32 = UNSCRIPTED | FAST | NO_AUTH | ALLOW_BUSY | CONNECTION;
const CONTROL: u32 = UNSCRIPTED | ADMIN | DANGEROUS;
const MANAGED: u32 = NOSCRIPT | STALE | ADMIN | DANGEROUS;

type Keys = &'static [KeySpec];
type Words = &'static [&'static str];

const NO_KEYS: Keys = &[];
const RO: Keys = &[key(1, &["RO"])];
const RO_SECOND: Keys = &[key(2, &["RO"])];
const RO_ALL: Keys = &[all(1, &["RO"])];
const RO_ACCESS: Keys = &[key(1, &["RO", "access"])];
const RO_ACCESS_ALL: Keys = &[all(1, &["RO", "access"])];
const SET_KEY: Keys = &[key(1, &["RW", "access", "update", "variable_flags"])];
const RW_ACCESS: Keys = &[key(1, &["RW", "access", "update"])];
const RW_DELETE: Keys = &[key(1, &["RW", "access", "delete"])];
const RW_INSERT: Keys = &[key(1, &["RW", "insert"])];
const RW_UPDATE: Keys = &[key(1, &["RW", "update"])];
const OW_INSERT: Keys = &[key(1, &["OW", "insert"])];
const OW_UPDATE: Keys = &[key(1, &["OW", "update"])];
const OW_INSERT_PAIRS: Keys = &[all(2, &["OW", "insert"])];
const OW_UPDATE_PAIRS: Keys = &[all(2, &["OW", "update"])];
const RM_DELETE_ALL: Keys = &[all(1, &["RM", "delete"])];
const MOVE: Keys = &[key(1, &["RW", "access", "delete"]), key(2, &["OW", "update"])];
const MOVE_NEW: Keys = &[key(1, &["RW", "access", "delete"]), key(2, &["OW", "insert"])];
const COPY: Keys = &[key(1, &["RO", "access"]), key(2, &["OW", "update"])];
/// Where most commands inside ONCE have their key; `movablekeys` tells clients to ask COMMAND GETKEYS.
const ONCE_KEY: Keys = &[key(4, &["RW", "access", "update"])];

const fn key(first: u8, access: Words) -> KeySpec {
    KeySpec { first, last: 0, step: 1, access }
}

const fn all(step: u8, access: Words) -> KeySpec {
    KeySpec { first: 1, last: -1, step, access }
}

type Text = &'static str;

#[allow(clippy::too_many_arguments, reason = "a row of a table")]
const fn read(
    name: Text,
    verb: Verb,
    arity: i8,
    flags: u32,
    keys: Keys,
    since: Text,
    syntax: Text,
    summary: Text,
) -> Spec {
    Spec { keys, fan_out: FanOut::OneGroup, ..plain(name, verb, arity, Class::Read, flags, since, syntax, summary) }
}

#[allow(clippy::too_many_arguments, reason = "a row of a table")]
const fn write(
    name: Text,
    verb: Verb,
    arity: i8,
    flags: u32,
    keys: Keys,
    since: Text,
    syntax: Text,
    summary: Text,
) -> Spec {
    Spec { keys, fan_out: FanOut::OneGroup, ..plain(name, verb, arity, Class::Write, flags, since, syntax, summary) }
}

#[allow(clippy::too_many_arguments, reason = "a row of a table")]
const fn plain(
    name: Text,
    verb: Verb,
    arity: i8,
    class: Class,
    flags: u32,
    since: Text,
    syntax: Text,
    summary: Text,
) -> Spec {
    Spec {
        verb,
        name,
        arity,
        class,
        fan_out: FanOut::Nowhere,
        flags,
        keys: NO_KEYS,
        since,
        syntax,
        summary,
        subcommands: &[],
    }
}

const fn container(
    name: Text,
    verb: Verb,
    arity: i8,
    flags: u32,
    since: Text,
    summary: Text,
    subcommands: &'static [Spec],
) -> Spec {
    Spec { subcommands, ..plain(name, verb, arity, Class::Connection, flags, since, "", summary) }
}

const fn help(name: Text, verb: Verb, flags: u32) -> Spec {
    plain(name, verb, 2, Class::Connection, flags | LOADING | STALE, "5.0.0", "", "Prints this help.")
}

const fn each_key(spec: Spec) -> Spec {
    Spec { fan_out: FanOut::EachKey, ..spec }
}

const fn everywhere(spec: Spec) -> Spec {
    Spec { fan_out: FanOut::EveryGroup, ..spec }
}

const fn watched(spec: Spec) -> Spec {
    Spec { keys: RO_ALL, ..spec }
}
