//! The rows of the command table of `table.rs`, one for every command of this server. Names, arities, flags and key
//! positions are those of Redis 7.0, so that clients find what they expect.

use super::table::{
    ADMIN, ALLOW_BUSY, CONNECTION, Class, DANGEROUS, DENYOOM, FAST, FanOut, KEYSPACE, KeySpec, LOADING, MOVABLE_KEYS,
    NO_AUTH, NO_MULTI, NOSCRIPT, RANDOM, SKIP_SLOWLOG, STALE, STRING, Spec, TRANSACTION, Verb,
};

/// Every command of this server.
#[rustfmt::skip]
pub(super) static ROWS: &[Spec] = &[
    // Strings.
    Spec { name: "get", verb: Verb::Get, arity: 2, flags: FAST | STRING, keys: RO_ACCESS, since: "1.0.0",
        syntax: "key", summary: "Get the value of a key", ..READ },
    Spec { name: "set", verb: Verb::Set, arity: -3, flags: DENYOOM | STRING, keys: SET_KEY, since: "1.0.0",
        syntax: "key value [NX|XX] [GET] [EX seconds|PX milliseconds|EXAT unix-time-seconds|PXAT unix-time-millis|KEEPTTL]",
        summary: "Set the string value of a key", ..WRITE },
    Spec { name: "setnx", verb: Verb::SetNx, arity: 3, flags: DENYOOM | FAST | STRING, keys: OW_INSERT,
        since: "1.0.0", syntax: "key value", summary: "Set the value of a key, only if the key does not exist",
        ..WRITE },
    Spec { name: "setex", verb: Verb::SetEx, arity: 4, flags: DENYOOM | STRING, keys: OW_UPDATE, since: "2.0.0",
        syntax: "key seconds value", summary: "Set the value and expiration of a key", ..WRITE },
    Spec { name: "psetex", verb: Verb::PSetEx, arity: 4, flags: DENYOOM | STRING, keys: OW_UPDATE, since: "2.6.0",
        syntax: "key milliseconds value", summary: "Set the value and expiration in milliseconds of a key", ..WRITE },
    Spec { name: "getset", verb: Verb::GetSet, arity: 3, flags: DENYOOM | FAST | STRING, keys: RW_ACCESS,
        since: "1.0.0", syntax: "key value", summary: "Set the string value of a key and return its old value",
        ..WRITE },
    Spec { name: "getdel", verb: Verb::GetDel, arity: 2, flags: FAST | STRING, keys: RW_DELETE, since: "6.2.0",
        syntax: "key", summary: "Get the value of a key and delete the key", ..WRITE },
    Spec { name: "getex", verb: Verb::GetEx, arity: -2, flags: FAST | STRING, keys: RW_ACCESS, since: "6.2.0",
        syntax: "key [EX seconds|PX milliseconds|EXAT unix-time-seconds|PXAT unix-time-milliseconds|PERSIST]",
        summary: "Get the value of a key and optionally set its expiration", ..WRITE },
    Spec { name: "mget", verb: Verb::MGet, arity: -2, flags: FAST | STRING, keys: RO_ACCESS_ALL, since: "1.0.0",
        syntax: "key [key ...]", fan_out: FanOut::EachKey, summary: "Get the values of all the given keys", ..READ },
    Spec { name: "mset", verb: Verb::MSet, arity: -3, flags: DENYOOM | STRING, keys: OW_UPDATE_PAIRS, since: "1.0.1",
        syntax: "key value [key value ...]", fan_out: FanOut::EachKey,
        summary: "Set multiple keys to multiple values; atomic per group only", ..WRITE },
    Spec { name: "msetnx", verb: Verb::MSetNx, arity: -3, flags: DENYOOM | STRING, keys: OW_INSERT_PAIRS,
        since: "1.0.1", syntax: "key value [key value ...]",
        summary: "Set multiple keys to multiple values, only if none of the keys exist", ..WRITE },
    Spec { name: "append", verb: Verb::Append, arity: 3, flags: DENYOOM | FAST | STRING, keys: RW_INSERT,
        since: "2.0.0", syntax: "key value", summary: "Append a value to a key", ..WRITE },
    Spec { name: "strlen", verb: Verb::StrLen, arity: 2, flags: FAST | STRING, keys: RO, since: "2.2.0",
        syntax: "key", summary: "Get the length of the value stored in a key", ..READ },
    Spec { name: "getrange", verb: Verb::GetRange, arity: 4, flags: STRING, keys: RO_ACCESS, since: "2.4.0",
        syntax: "key start end", summary: "Get a substring of the string stored at a key", ..READ },
    Spec { name: "substr", verb: Verb::SubStr, arity: 4, flags: STRING, keys: RO_ACCESS, since: "1.0.0",
        syntax: "key start end", summary: "Get a substring of the string stored at a key", ..READ },
    Spec { name: "setrange", verb: Verb::SetRange, arity: 4, flags: DENYOOM | STRING, keys: RW_UPDATE, since: "2.2.0",
        syntax: "key offset value", summary: "Overwrite part of a string at key starting at the specified offset",
        ..WRITE },
    Spec { name: "incr", verb: Verb::Incr, arity: 2, flags: DENYOOM | FAST | STRING, keys: RW_ACCESS, since: "1.0.0",
        syntax: "key", summary: "Increment the integer value of a key by one", ..WRITE },
    Spec { name: "incrby", verb: Verb::IncrBy, arity: 3, flags: DENYOOM | FAST | STRING, keys: RW_ACCESS,
        since: "1.0.0", syntax: "key increment", summary: "Increment the integer value of a key by the given amount",
        ..WRITE },
    Spec { name: "decr", verb: Verb::Decr, arity: 2, flags: DENYOOM | FAST | STRING, keys: RW_ACCESS, since: "1.0.0",
        syntax: "key", summary: "Decrement the integer value of a key by one", ..WRITE },
    Spec { name: "decrby", verb: Verb::DecrBy, arity: 3, flags: DENYOOM | FAST | STRING, keys: RW_ACCESS,
        since: "1.0.0", syntax: "key decrement", summary: "Decrement the integer value of a key by the given number",
        ..WRITE },
    Spec { name: "incrbyfloat", verb: Verb::IncrByFloat, arity: 3, flags: DENYOOM | FAST | STRING, keys: RW_ACCESS,
        since: "2.6.0", syntax: "key increment", summary: "Increment the float value of a key by the given amount",
        ..WRITE },
    // Keys.
    Spec { name: "del", verb: Verb::Del, arity: -2, flags: KEYSPACE, keys: RM_DELETE_ALL, since: "1.0.0",
        syntax: "key [key ...]", fan_out: FanOut::EachKey, summary: "Delete a key", ..WRITE },
    Spec { name: "unlink", verb: Verb::Unlink, arity: -2, flags: FAST | KEYSPACE, keys: RM_DELETE_ALL, since: "4.0.0",
        syntax: "key [key ...]", fan_out: FanOut::EachKey, summary: "Delete a key; here the same as DEL", ..WRITE },
    Spec { name: "exists", verb: Verb::Exists, arity: -2, flags: FAST | KEYSPACE, keys: RO_ALL, since: "1.0.0",
        syntax: "key [key ...]", fan_out: FanOut::EachKey, summary: "Determine if a key exists", ..READ },
    Spec { name: "touch", verb: Verb::Touch, arity: -2, flags: FAST | KEYSPACE, keys: RO_ALL, since: "3.2.1",
        syntax: "key [key ...]", fan_out: FanOut::EachKey, summary: "Returns the number of existing keys specified",
        ..READ },
    Spec { name: "type", verb: Verb::Type, arity: 2, flags: FAST | KEYSPACE, keys: RO, since: "1.0.0", syntax: "key",
        summary: "Determine the type stored at key", ..READ },
    Spec { name: "expire", verb: Verb::Expire, arity: -3, flags: FAST | KEYSPACE, keys: RW_UPDATE, since: "1.0.0",
        syntax: "key seconds [NX|XX|GT|LT]", summary: "Set a key's time to live in seconds", ..WRITE },
    Spec { name: "pexpire", verb: Verb::PExpire, arity: -3, flags: FAST | KEYSPACE, keys: RW_UPDATE, since: "2.6.0",
        syntax: "key milliseconds [NX|XX|GT|LT]", summary: "Set a key's time to live in milliseconds", ..WRITE },
    Spec { name: "expireat", verb: Verb::ExpireAt, arity: -3, flags: FAST | KEYSPACE, keys: RW_UPDATE, since: "1.2.0",
        syntax: "key unix-time-seconds [NX|XX|GT|LT]", summary: "Set the expiration for a key as a UNIX timestamp",
        ..WRITE },
    Spec { name: "pexpireat", verb: Verb::PExpireAt, arity: -3, flags: FAST | KEYSPACE, keys: RW_UPDATE,
        since: "2.6.0", syntax: "key unix-time-milliseconds [NX|XX|GT|LT]",
        summary: "Set the expiration for a key as a UNIX timestamp specified in milliseconds", ..WRITE },
    Spec { name: "ttl", verb: Verb::Ttl, arity: 2, flags: FAST | KEYSPACE | RANDOM, keys: RO_ACCESS, since: "1.0.0",
        syntax: "key", summary: "Get the time to live for a key in seconds", ..READ },
    Spec { name: "pttl", verb: Verb::PTtl, arity: 2, flags: FAST | KEYSPACE | RANDOM, keys: RO_ACCESS, since: "2.6.0",
        syntax: "key", summary: "Get the time to live for a key in milliseconds", ..READ },
    Spec { name: "expiretime", verb: Verb::ExpireTime, arity: 2, flags: FAST | KEYSPACE, keys: RO_ACCESS,
        since: "7.0.0", syntax: "key", summary: "Get the expiration Unix timestamp for a key", ..READ },
    Spec { name: "pexpiretime", verb: Verb::PExpireTime, arity: 2, flags: FAST | KEYSPACE, keys: RO_ACCESS,
        since: "7.0.0", syntax: "key", summary: "Get the expiration Unix timestamp for a key in milliseconds",
        ..READ },
    Spec { name: "persist", verb: Verb::Persist, arity: 2, flags: FAST | KEYSPACE, keys: RW_UPDATE, since: "2.2.0",
        syntax: "key", summary: "Remove the expiration from a key", ..WRITE },
    Spec { name: "rename", verb: Verb::Rename, arity: 3, flags: KEYSPACE, keys: MOVE, since: "1.0.0",
        syntax: "key newkey", summary: "Rename a key", ..WRITE },
    Spec { name: "renamenx", verb: Verb::RenameNx, arity: 3, flags: FAST | KEYSPACE, keys: MOVE_NEW, since: "1.0.0",
        syntax: "key newkey", summary: "Rename a key, only if the new key does not exist", ..WRITE },
    Spec { name: "copy", verb: Verb::Copy, arity: -3, flags: DENYOOM | KEYSPACE, keys: COPY, since: "6.2.0",
        syntax: "source destination [DB destination-db] [REPLACE]", summary: "Copy a key", ..WRITE },
    Spec { name: "scan", verb: Verb::Scan, arity: -2, flags: KEYSPACE | RANDOM, since: "2.8.0",
        syntax: "cursor [MATCH pattern] [COUNT count] [TYPE type]", fan_out: FanOut::EveryGroup,
        summary: "Incrementally iterate the keys space", ..READ },
    Spec { name: "keys", verb: Verb::Keys, arity: 2, flags: KEYSPACE | DANGEROUS | RANDOM, since: "1.0.0",
        syntax: "pattern", fan_out: FanOut::EveryGroup, summary: "Find all keys matching the given pattern", ..READ },
    Spec { name: "dbsize", verb: Verb::DbSize, arity: 1, flags: FAST | KEYSPACE, since: "1.0.0",
        fan_out: FanOut::EveryGroup, summary: "Return the number of keys in the database", ..READ },
    Spec { name: "randomkey", verb: Verb::RandomKey, arity: 1, flags: KEYSPACE | RANDOM, since: "1.0.0",
        fan_out: FanOut::EveryGroup, summary: "Return a random key from the keyspace", ..READ },
    Spec { name: "flushall", verb: Verb::FlushAll, arity: -1, flags: KEYSPACE | DANGEROUS, since: "1.0.0",
        syntax: "[ASYNC|SYNC]", fan_out: FanOut::EveryGroup, summary: "Remove all keys; atomic per group only",
        ..WRITE },
    Spec { name: "flushdb", verb: Verb::FlushDb, arity: -1, flags: KEYSPACE | DANGEROUS, since: "1.0.0",
        syntax: "[ASYNC|SYNC]", fan_out: FanOut::EveryGroup, summary: "Remove all keys; atomic per group only",
        ..WRITE },
    Spec { name: "object", verb: Verb::Object, arity: -2, since: "2.2.3", subcommands: OBJECT,
        summary: "A container for object introspection commands", ..LOCAL },
    // Transactions and sessions.
    Spec { name: "multi", verb: Verb::Multi, arity: 1, flags: UNSCRIPTED | FAST | ALLOW_BUSY | TRANSACTION,
        since: "1.2.0", summary: "Mark the start of a transaction block", ..TRANSACTIONAL },
    Spec { name: "exec", verb: Verb::Exec, arity: 1, flags: UNSCRIPTED | SKIP_SLOWLOG | TRANSACTION, since: "1.2.0",
        summary: "Execute all commands issued after MULTI", ..TRANSACTIONAL },
    Spec { name: "discard", verb: Verb::Discard, arity: 1, flags: UNSCRIPTED | FAST | ALLOW_BUSY | TRANSACTION,
        since: "2.0.0", summary: "Discard all commands issued after MULTI", ..TRANSACTIONAL },
    Spec { name: "watch", verb: Verb::Watch, arity: -2,
        flags: UNSCRIPTED | FAST | ALLOW_BUSY | NO_MULTI | TRANSACTION, since: "2.2.0", syntax: "key [key ...]",
        keys: RO_ALL, summary: "Watch the given keys to determine execution of the MULTI/EXEC block",
        ..TRANSACTIONAL },
    Spec { name: "unwatch", verb: Verb::Unwatch, arity: 1, flags: UNSCRIPTED | FAST | ALLOW_BUSY | TRANSACTION,
        since: "2.2.0", summary: "Forget about all watched keys", ..TRANSACTIONAL },
    Spec { name: "session", verb: Verb::Session, arity: -2, since: "1.0.0", subcommands: SESSION,
        summary: "A container for commands about exactly-once sessions", ..LOCAL },
    Spec { name: "once", verb: Verb::Once, arity: -4, flags: DENYOOM | NO_MULTI | MOVABLE_KEYS, keys: ONCE_KEY,
        since: "1.0.0", syntax: "session number command [argument ...]",
        summary: "Execute a command exactly once per session and number", ..WRITE },
    // Connection.
    Spec { name: "ping", verb: Verb::Ping, arity: -1, flags: FAST | CONNECTION, since: "1.0.0", syntax: "[message]",
        summary: "Ping the server", ..LOCAL },
    Spec { name: "echo", verb: Verb::Echo, arity: 2, flags: LOADING | STALE | FAST | CONNECTION, since: "1.0.0",
        syntax: "message", summary: "Echo the given string", ..LOCAL },
    Spec { name: "quit", verb: Verb::Quit, arity: -1, flags: HANDSHAKE, since: "1.0.0",
        summary: "Close the connection", ..LOCAL },
    Spec { name: "reset", verb: Verb::Reset, arity: 1, flags: HANDSHAKE, since: "6.2.0",
        summary: "Reset the connection", ..LOCAL },
    Spec { name: "select", verb: Verb::Select, arity: 2, flags: LOADING | STALE | FAST | CONNECTION, since: "1.0.0",
        syntax: "index", summary: "Change the selected database for the current connection; only 0 exists", ..LOCAL },
    Spec { name: "hello", verb: Verb::Hello, arity: -1, flags: HANDSHAKE, since: "6.0.0",
        syntax: "[protover [AUTH username password] [SETNAME clientname]]", summary: "Handshake with the server",
        ..LOCAL },
    Spec { name: "auth", verb: Verb::Auth, arity: -2, flags: HANDSHAKE, since: "1.0.0", syntax: "[username] password",
        summary: "Authenticate to the server", ..LOCAL },
    Spec { name: "time", verb: Verb::Time, arity: 1, flags: LOADING | STALE | FAST | RANDOM, since: "2.6.0",
        summary: "Return the current server time", ..LOCAL },
    Spec { name: "wait", verb: Verb::Wait, arity: 3, flags: NOSCRIPT | CONNECTION, since: "3.0.0",
        syntax: "numreplicas timeout",
        summary: "Wait until this connection's writes are on the disks of numreplicas other members", ..LOCAL },
    Spec { name: "waitaof", verb: Verb::WaitAof, arity: 4, flags: NOSCRIPT | CONNECTION, since: "7.2.0",
        syntax: "numlocal numreplicas timeout", summary: "Like WAIT; also reports if this node's disk has the writes",
        ..LOCAL },
    Spec { name: "readonly", verb: Verb::ReadOnly, arity: 1, flags: LOADING | STALE | FAST | CONNECTION,
        since: "3.0.0", summary: "Answer this connection's reads at once from this node's state, which may be stale",
        ..LOCAL },
    Spec { name: "readwrite", verb: Verb::ReadWrite, arity: 1, flags: LOADING | STALE | FAST | CONNECTION,
        since: "3.0.0", summary: "Make this connection's reads linearizable again, as before READONLY", ..LOCAL },
    Spec { name: "asking", verb: Verb::Asking, arity: 1, flags: FAST | CONNECTION, since: "3.0.0",
        summary: "Accepted for cluster clients; changes nothing", ..LOCAL },
    Spec { name: "client", verb: Verb::Client, arity: -2, since: "2.4.0", subcommands: CLIENT,
        summary: "A container for client connection commands", ..LOCAL },
    Spec { name: "command", verb: Verb::Command, arity: -1, flags: LOADING | STALE | CONNECTION | RANDOM,
        since: "2.8.13", subcommands: COMMAND, summary: "Get array of Redis command details", ..LOCAL },
    // Node and cluster.
    Spec { name: "paxoi", verb: Verb::Paxoi, arity: -2, since: "7.0.0", subcommands: PAXOI,
        summary: "A container for commands that only Paxoi has", ..LOCAL },
    Spec { name: "config", verb: Verb::Config, arity: -2, since: "2.0.0", subcommands: CONFIG,
        summary: "A container for server configuration commands", ..LOCAL },
    Spec { name: "info", verb: Verb::Info, arity: -1, flags: LOADING | STALE | DANGEROUS | RANDOM, since: "1.0.0",
        syntax: "[section [section ...]]", summary: "Get information and statistics about the server", ..OF_NODE },
    Spec { name: "cluster", verb: Verb::Cluster, arity: -2, since: "3.0.0", subcommands: CLUSTER,
        summary: "A container for cluster commands", ..LOCAL },
];

#[rustfmt::skip]
static OBJECT: &[Spec] = &[
    Spec { name: "object|encoding", verb: Verb::ObjectEncoding, arity: 3, flags: KEYSPACE | RANDOM, keys: RO_SECOND,
        since: "2.2.3", syntax: "key", summary: "Inspect the internal encoding of a Redis object", ..READ },
    Spec { name: "object|freq", verb: Verb::ObjectFreq, arity: 3, flags: KEYSPACE | RANDOM, keys: RO_SECOND,
        since: "4.0.0", syntax: "key", summary: "Get the logarithmic access frequency counter of a Redis object",
        ..READ },
    Spec { name: "object|idletime", verb: Verb::ObjectIdleTime, arity: 3, flags: KEYSPACE | RANDOM, keys: RO_SECOND,
        since: "2.2.3", syntax: "key", summary: "Get the time since a Redis object was last accessed", ..READ },
    Spec { name: "object|refcount", verb: Verb::ObjectRefCount, arity: 3, flags: KEYSPACE | RANDOM, keys: RO_SECOND,
        since: "2.2.3", syntax: "key", summary: "Get the number of references to the value of the key", ..READ },
    Spec { name: "object|help", verb: Verb::ObjectHelp, flags: KEYSPACE | LOADING | STALE, ..HELP },
];

#[rustfmt::skip]
static SESSION: &[Spec] = &[
    Spec { name: "session|new", verb: Verb::SessionNew, arity: 2, flags: NO_MULTI | RANDOM, since: "1.0.0",
        summary: "Begin an exactly-once session and return its id for ONCE", ..WRITE },
    Spec { name: "session|help", verb: Verb::SessionHelp, flags: LOADING | STALE, ..HELP },
];

#[rustfmt::skip]
static CLIENT: &[Spec] = &[
    Spec { name: "client|id", verb: Verb::ClientId, arity: 2, flags: UNSCRIPTED | CONNECTION, since: "5.0.0",
        summary: "Returns the client ID for the current connection", ..LOCAL },
    Spec { name: "client|setname", verb: Verb::ClientSetName, arity: 3, flags: UNSCRIPTED | CONNECTION,
        since: "2.6.9", syntax: "connection-name", summary: "Set the current connection name", ..LOCAL },
    Spec { name: "client|getname", verb: Verb::ClientGetName, arity: 2, flags: UNSCRIPTED | CONNECTION,
        since: "2.6.9", summary: "Get the current connection name", ..LOCAL },
    Spec { name: "client|setinfo", verb: Verb::ClientSetInfo, arity: 4, flags: UNSCRIPTED | CONNECTION,
        since: "7.2.0", syntax: "LIB-NAME libname|LIB-VER libver", summary: "Set client or connection specific info",
        ..LOCAL },
    Spec { name: "client|info", verb: Verb::ClientInfo, arity: 2, flags: UNSCRIPTED | CONNECTION | RANDOM,
        since: "6.2.0", summary: "Returns information about the current client connection.", ..LOCAL },
    Spec { name: "client|list", verb: Verb::ClientList, arity: -2, flags: CONTROL | CONNECTION | RANDOM,
        since: "2.4.0", syntax: "[TYPE type] [ID client-id ...]", summary: "Get the list of client connections",
        ..LOCAL },
    Spec { name: "client|kill", verb: Verb::ClientKill, arity: -3, flags: CONTROL | CONNECTION, since: "2.4.0",
        syntax: "filter", summary: "Kill the connection of a client", ..LOCAL },
    Spec { name: "client|reply", verb: Verb::ClientReply, arity: 3, flags: UNSCRIPTED | CONNECTION, since: "3.2.0",
        syntax: "ON|OFF|SKIP", summary: "Instruct the server whether to reply to commands", ..LOCAL },
    Spec { name: "client|no-evict", verb: Verb::ClientNoEvict, arity: 3, flags: CONTROL | CONNECTION, since: "7.0.0",
        syntax: "ON|OFF", summary: "Set client eviction mode for the current connection", ..LOCAL },
    Spec { name: "client|no-touch", verb: Verb::ClientNoTouch, arity: 3, flags: UNSCRIPTED | CONNECTION,
        since: "7.2.0", syntax: "ON|OFF", summary: "Accepted; no command here changes a key's access time", ..LOCAL },
    Spec { name: "client|pause", verb: Verb::ClientPause, arity: -3, flags: CONTROL | CONNECTION, since: "2.9.50",
        syntax: "timeout [WRITE|ALL]", summary: "Suspend commands processing of this node's clients", ..LOCAL },
    Spec { name: "client|unpause", verb: Verb::ClientUnpause, arity: 2, flags: CONTROL | CONNECTION, since: "6.2.0",
        summary: "Resume processing of clients that were paused", ..LOCAL },
    Spec { name: "client|unblock", verb: Verb::ClientUnblock, arity: -3, flags: CONTROL | CONNECTION, since: "5.0.0",
        syntax: "client-id [TIMEOUT|ERROR]", summary: "Unblock a client that waits in WAIT or WAITAOF", ..LOCAL },
    Spec { name: "client|tracking", verb: Verb::ClientTracking, arity: -3, flags: UNSCRIPTED | CONNECTION,
        since: "6.0.0", syntax: "ON|OFF", summary: "Server assisted client side caching; always off", ..LOCAL },
    Spec { name: "client|trackinginfo", verb: Verb::ClientTrackingInfo, arity: 2, flags: UNSCRIPTED | CONNECTION,
        since: "6.2.0",
        summary: "Return information about server assisted client side caching for the current connection", ..LOCAL },
    Spec { name: "client|caching", verb: Verb::ClientCaching, arity: 3, flags: UNSCRIPTED | CONNECTION,
        since: "6.0.0", syntax: "YES|NO", summary: "Needs client side caching, which is always off", ..LOCAL },
    Spec { name: "client|getredir", verb: Verb::ClientGetRedir, arity: 2, flags: UNSCRIPTED | CONNECTION,
        since: "6.0.0", summary: "Get tracking notifications redirection client ID if any", ..LOCAL },
    Spec { name: "client|help", verb: Verb::ClientHelp, flags: CONNECTION | LOADING | STALE, ..HELP },
];

#[rustfmt::skip]
static COMMAND: &[Spec] = &[
    Spec { name: "command|count", verb: Verb::CommandCount, arity: 2, flags: LOADING | STALE | CONNECTION,
        since: "2.8.13", summary: "Get total number of Redis commands", ..LOCAL },
    Spec { name: "command|info", verb: Verb::CommandInfo, arity: -2, flags: LOADING | STALE | CONNECTION,
        since: "2.8.13", syntax: "[command-name [command-name ...]]",
        summary: "Get array of specific Redis command details, or all when no argument is given.", ..LOCAL },
    Spec { name: "command|docs", verb: Verb::CommandDocs, arity: -2, flags: LOADING | STALE | CONNECTION,
        since: "7.0.0", syntax: "[command-name [command-name ...]]",
        summary: "Get array of specific Redis command documentation", ..LOCAL },
    Spec { name: "command|list", verb: Verb::CommandList, arity: -2, flags: LOADING | STALE | CONNECTION,
        since: "7.0.0", syntax: "[FILTERBY MODULE module-name|ACLCAT category|PATTERN pattern]",
        summary: "Get an array of Redis command names", ..LOCAL },
    Spec { name: "command|getkeys", verb: Verb::CommandGetKeys, arity: -3, flags: LOADING | STALE | CONNECTION,
        since: "2.8.13", syntax: "command [arg [arg ...]]", summary: "Extract keys given a full Redis command",
        ..LOCAL },
    Spec { name: "command|getkeysandflags", verb: Verb::CommandGetKeysAndFlags, arity: -3,
        flags: LOADING | STALE | CONNECTION, since: "7.0.0", syntax: "command [arg [arg ...]]",
        summary: "Extract keys and access flags given a full Redis command", ..LOCAL },
    Spec { name: "command|help", verb: Verb::CommandHelp, flags: CONNECTION | LOADING | STALE, ..HELP },
];

#[rustfmt::skip]
static PAXOI: &[Spec] = &[
    Spec { name: "paxoi|checkpoint", verb: Verb::PaxoiCheckpoint, arity: -2, flags: MANAGED, since: "7.0.0",
        syntax: "[group]",
        summary: "Begin to write this node's state, or that of one group, to a checkpoint; INFO tells when it is done",
        ..OF_NODE },
    Spec { name: "paxoi|member", verb: Verb::PaxoiMember, arity: -3, flags: MANAGED, since: "7.0.0",
        syntax: "<LIST | ADD id | PROMOTE id | REMOVE id | REPLACE old new | MOVE id host:port>",
        summary: "List the members, or change them: repeat a change until it answers OK", ..OF_NODE },
    Spec { name: "paxoi|leader", verb: Verb::PaxoiLeader, arity: 5, flags: MANAGED, since: "7.0.0",
        syntax: "MOVE group node",
        summary: "Makes a node the leader of a group, until the group is moved or that node is lost", ..OF_CLUSTER },
    Spec { name: "paxoi|drain", verb: Verb::PaxoiDrain, arity: 2, flags: MANAGED, since: "7.0.0",
        summary: "Makes this node hand all its groups to others, until it is undrained or started again",
        ..OF_CLUSTER },
    Spec { name: "paxoi|undrain", verb: Verb::PaxoiUndrain, arity: 2, flags: MANAGED, since: "7.0.0",
        summary: "Lets this node lead groups again", ..OF_CLUSTER },
    Spec { name: "paxoi|help", verb: Verb::PaxoiHelp, flags: LOADING | STALE, ..HELP },
];

#[rustfmt::skip]
static CONFIG: &[Spec] = &[
    Spec { name: "config|get", verb: Verb::ConfigGet, arity: -3, flags: CONTROL, since: "2.0.0",
        syntax: "parameter [parameter ...]", summary: "Get the values of configuration parameters", ..OF_NODE },
    Spec { name: "config|set", verb: Verb::ConfigSet, arity: -4, flags: CONTROL, since: "2.0.0",
        syntax: "parameter value [parameter value ...]", summary: "Set configuration parameters to the given values",
        ..OF_NODE },
    Spec { name: "config|resetstat", verb: Verb::ConfigResetStat, arity: 2, flags: CONTROL, since: "2.0.0",
        summary: "Reset the stats returned by INFO", ..OF_NODE },
    Spec { name: "config|rewrite", verb: Verb::ConfigRewrite, arity: 2, flags: CONTROL, since: "2.8.0",
        summary: "Not supported: edit the configuration file instead", ..OF_NODE },
    Spec { name: "config|help", verb: Verb::ConfigHelp, flags: LOADING | STALE, ..HELP },
];

#[rustfmt::skip]
static CLUSTER: &[Spec] = &[
    Spec { name: "cluster|slots", verb: Verb::ClusterSlots, arity: 2, flags: STALE | RANDOM, since: "3.0.0",
        summary: "Get array of Cluster slot to node mappings", ..OF_CLUSTER },
    Spec { name: "cluster|shards", verb: Verb::ClusterShards, arity: 2, flags: STALE | RANDOM, since: "7.0.0",
        summary: "Get array of cluster slots to node mappings", ..OF_CLUSTER },
    Spec { name: "cluster|nodes", verb: Verb::ClusterNodes, arity: 2, flags: STALE | RANDOM, since: "3.0.0",
        summary: "Get Cluster config for the node", ..OF_CLUSTER },
    Spec { name: "cluster|info", verb: Verb::ClusterInfo, arity: 2, flags: STALE | RANDOM, since: "3.0.0",
        summary: "Provides info about Redis Cluster node state", ..OF_CLUSTER },
    Spec { name: "cluster|myid", verb: Verb::ClusterMyId, arity: 2, flags: STALE, since: "3.0.0",
        summary: "Return the node id", ..OF_CLUSTER },
    Spec { name: "cluster|myshardid", verb: Verb::ClusterMyShardId, arity: 2, flags: STALE, since: "7.2.0",
        summary: "Return the shard id, which is the node id", ..OF_CLUSTER },
    Spec { name: "cluster|links", verb: Verb::ClusterLinks, arity: 2, flags: STALE | RANDOM, since: "7.0.0",
        summary: "Returns the nodes that this node is connected to", ..OF_CLUSTER },
    Spec { name: "cluster|replicas", verb: Verb::ClusterReplicas, arity: 3, flags: ADMIN | DANGEROUS | STALE | RANDOM,
        since: "5.0.0", syntax: "node-id",
        summary: "List replica nodes of the specified master node: always none, every node is a master", ..OF_CLUSTER },
    Spec { name: "cluster|slaves", verb: Verb::ClusterSlaves, arity: 3, flags: ADMIN | DANGEROUS | STALE | RANDOM,
        since: "3.0.0", syntax: "node-id", summary: "The same as CLUSTER REPLICAS", ..OF_CLUSTER },
    Spec { name: "cluster|count-failure-reports", verb: Verb::ClusterCountFailureReports, arity: 3,
        flags: ADMIN | DANGEROUS | STALE | RANDOM, since: "3.0.0", syntax: "node-id",
        summary: "Return the number of failure reports active for a given node", ..OF_CLUSTER },
    Spec { name: "cluster|keyslot", verb: Verb::ClusterKeySlot, arity: 3, flags: STALE, since: "3.0.0", syntax: "key",
        summary: "Returns the hash slot of the specified key", ..OF_CLUSTER },
    Spec { name: "cluster|countkeysinslot", verb: Verb::ClusterCountKeysInSlot, arity: 3, flags: STALE,
        since: "3.0.0", syntax: "slot", summary: "Return the number of keys in the specified hash slot", ..READ },
    Spec { name: "cluster|getkeysinslot", verb: Verb::ClusterGetKeysInSlot, arity: 4, flags: STALE | RANDOM,
        since: "3.0.0", syntax: "slot count", summary: "Return key names in the specified hash slot", ..READ },
    Spec { name: "cluster|help", verb: Verb::ClusterHelp, flags: LOADING | STALE, ..HELP },
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
/// The key of most commands inside ONCE; `movablekeys` tells clients to ask COMMAND GETKEYS.
const ONCE_KEY: Keys = &[key(4, &["RW", "access", "update"])];

const fn key(first: u8, access: Words) -> KeySpec {
    KeySpec { first, last: 0, step: 1, access }
}

const fn all(step: u8, access: Words) -> KeySpec {
    KeySpec { first: 1, last: -1, step, access }
}

/// The defaults of a row. Each row names its verb.
const LOCAL: Spec = Spec {
    verb: Verb::Ping,
    name: "",
    arity: 0,
    class: Class::Connection,
    fan_out: FanOut::Nowhere,
    flags: 0,
    keys: NO_KEYS,
    since: "",
    syntax: "",
    summary: "",
    subcommands: &[],
};
const READ: Spec = Spec { class: Class::Read, fan_out: FanOut::OneGroup, ..LOCAL };
const WRITE: Spec = Spec { class: Class::Write, fan_out: FanOut::OneGroup, ..LOCAL };
const TRANSACTIONAL: Spec = Spec { class: Class::Transaction, ..LOCAL };
const OF_NODE: Spec = Spec { class: Class::Admin, ..LOCAL };
const OF_CLUSTER: Spec = Spec { class: Class::Cluster, ..LOCAL };
const HELP: Spec = Spec { arity: 2, since: "5.0.0", summary: "Prints this help.", ..LOCAL };
