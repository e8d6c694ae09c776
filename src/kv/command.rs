//! A command of the store: typed, validated, borrowing its keys and values from the request or the log.
//!
//! A command may depend on more than its words: on the clock, and on chance. The node that received the command fixes
//! these inputs, so that every replica does the same with it. A duration ([`When::After`]) is counted from the group's
//! time instead, which all replicas share. Synonyms are one variant: SETEX is a `Set`, UNLINK a `Del`, DECR an
//! `IncrBy`.

use super::session::SessionId;
use super::uploads::{Complete, UploadId, UploadPart};
use groups::Ms;

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// Nothing: it only carries the group's time forward. Answers OK.
    Noop,
    /// A reply known beforehand: PING and ECHO inside ONCE.
    Constant(Constant<'a>),
    /// GET.
    Get(&'a [u8]),
    /// MGET.
    MGet(Vec<&'a [u8]>),
    /// STRLEN.
    StrLen(&'a [u8]),
    /// GETRANGE, SUBSTR: first and last byte, negative from the end.
    GetRange(&'a [u8], i64, i64),
    /// EXISTS, TOUCH.
    Exists(Vec<&'a [u8]>),
    /// TYPE.
    Type(&'a [u8]),
    /// TTL, PTTL, EXPIRETIME, PEXPIRETIME.
    Ttl(&'a [u8], Lifetime),
    /// OBJECT ENCODING and the like.
    Object(&'a [u8], Aspect),
    /// SCAN.
    Scan(Scan<'a>),
    /// KEYS, with its pattern.
    Keys(&'a [u8]),
    /// DBSIZE.
    DbSize,
    /// RANDOMKEY, with the node's random number that decides it.
    RandomKey(u64),
    /// CLUSTER COUNTKEYSINSLOT.
    CountKeysInSlot(u16),
    /// CLUSTER GETKEYSINSLOT, with the maximum number of keys.
    KeysInSlot(u16, u32),
    /// SET, SETNX, SETEX, PSETEX, GETSET.
    Set(Set<'a>),
    /// GETDEL.
    GetDel(&'a [u8]),
    /// GETEX with an expiry, or `None` to persist.
    GetEx(&'a [u8], Option<When>),
    /// MSET.
    MSet(Vec<Pair<'a>>),
    /// MSETNX.
    MSetNx(Vec<Pair<'a>>),
    /// APPEND.
    Append(&'a [u8], &'a [u8]),
    /// SETRANGE: the offset of the first byte, and the bytes.
    SetRange(&'a [u8], u64, &'a [u8]),
    /// INCR, INCRBY, DECR, DECRBY.
    IncrBy(&'a [u8], i64),
    /// INCRBYFLOAT as it was before version 3 of values, in decimal. The increment is as the client wrote it.
    IncrByFloat(&'a [u8], &'a [u8]),
    /// INCRBYFLOAT with Redis's arithmetic. The increment is as the client wrote it.
    IncrByLongDouble(&'a [u8], &'a [u8]),
    /// GETEX with an invalid expiry: an error if the key exists, else null. Changes nothing.
    GetExRefused(&'a [u8], BadExpiry),
    /// DEL, UNLINK.
    Del(Vec<&'a [u8]>),
    /// EXPIRE, PEXPIRE, EXPIREAT, PEXPIREAT: the new expiry, and its conditions.
    Expire(&'a [u8], When, ExpireIf),
    /// PERSIST.
    Persist(&'a [u8]),
    /// RENAME, RENAMENX.
    Rename {
        /// The old name.
        from: &'a [u8],
        /// The new name.
        to: &'a [u8],
        /// RENAMENX: rename only if no key has the new name.
        only_new: bool,
    },
    /// COPY.
    Copy {
        /// The key that is copied.
        from: &'a [u8],
        /// The copy's key.
        to: &'a [u8],
        /// True if the copy may replace another key.
        replace: bool,
    },
    /// FLUSHALL, FLUSHDB.
    Flush,
    /// SESSION NEW.
    SessionNew,
    /// ONCE.
    Once(Box<Once<'a>>),
    /// EXEC: the commands between MULTI and EXEC.
    Exec(Vec<Command<'a>>),
    /// A part of an upload (a large command); see `uploads`. Like the next two, no client sends it, and no other
    /// command holds it.
    UploadPart(UploadPart<'a>),
    /// The end of an upload: executes the command that its parts make.
    UploadComplete(Box<Complete<'a>>),
    /// The abort of an upload: drops its parts.
    UploadAbort(UploadId),
}

/// A key and its value.
pub type Pair<'a> = (&'a [u8], &'a [u8]);

/// A reply known beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Constant<'a> {
    /// PONG.
    Pong,
    /// A bulk string.
    Bulk(&'a [u8]),
}

/// SET with its options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Its new value.
    pub value: &'a [u8],
    /// The condition for the write.
    pub only_if: SetIf,
    /// The form of the reply.
    pub answer: SetAnswer,
    /// The effect on the key's expiry.
    pub expiry: SetExpiry,
}

impl<'a> Set<'a> {
    /// Returns SET without options.
    #[must_use]
    pub fn plain(key: &'a [u8], value: &'a [u8]) -> Set<'a> {
        Set { key, value, only_if: SetIf::Always, answer: SetAnswer::Done, expiry: SetExpiry::None }
    }

    /// Returns true if this is SET without options.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.only_if == SetIf::Always && self.answer == SetAnswer::Done && self.expiry == SetExpiry::None
    }
}

/// The condition under which SET writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetIf {
    /// Always.
    Always,
    /// NX: only if the key does not exist.
    Missing,
    /// XX: only if the key exists.
    Present,
}

/// The form of SET's reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetAnswer {
    /// OK, or null if the condition does not hold.
    Done,
    /// The old value or null: SET GET, GETSET.
    OldValue,
    /// 1 or 0: SETNX.
    Changed,
}

/// The effect of SET on the key's expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetExpiry {
    /// The key never expires.
    None,
    /// KEEPTTL: as before.
    Keep,
    /// The key expires then.
    New(When),
}

/// The expiry of a key. A duration becomes a time when the command is applied, so that only the group's clock counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Unix milliseconds of the group's time; 0 for any time before 1970.
    At(Ms),
    /// Milliseconds, at least 1, after the time of the value that holds the command.
    After(Ms),
}

impl When {
    /// Returns the unix milliseconds at which a key expires if the command is applied at the group's time `now_ms`.
    #[must_use]
    pub fn at_ms(self, now_ms: Ms) -> Ms {
        match self {
            When::At(at_ms) => at_ms,
            // Integers in replies are signed.
            When::After(ms) => now_ms.saturating_add(ms).min(Ms(i64::MAX as u64)),
        }
    }

    fn is_duration(self) -> bool {
        matches!(self, When::After(_))
    }
}

/// The conditions of EXPIRE. All conditions that are set must hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpireIf {
    /// NX: only if the key does not expire yet.
    pub missing: bool,
    /// XX: only if the key has an expiry.
    pub present: bool,
    /// GT: only if the new expiry is later than the old one. A key without an expiry counts as expiring last.
    pub later: bool,
    /// LT: only if the new expiry is sooner.
    pub sooner: bool,
}

/// The form in which a key's expiry is replied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// TTL.
    Seconds,
    /// PTTL.
    Millis,
    /// EXPIRETIME.
    UnixSeconds,
    /// PEXPIRETIME.
    UnixMillis,
}

/// The reason why an expiry of GETEX is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadExpiry {
    /// It is no integer.
    NotAnInteger,
    /// It is too large, or not above 0.
    OutOfRange,
}

/// The property of a key that OBJECT replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aspect {
    /// The encoding that Redis would choose for the value.
    Encoding,
    /// Access frequency: never tracked.
    Frequency,
    /// Seconds since the last access: not tracked, always 0.
    IdleTime,
    /// References to the value: always 1.
    References,
}

/// SCAN, of one group's part of the keys or of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan<'a> {
    /// The cursor at which SCAN continues; see `KeyPosition::cursor`.
    pub cursor: u64,
    /// The number of keys to look at.
    pub count: u32,
    /// MATCH.
    pub pattern: Option<&'a [u8]>,
    /// True if TYPE lets strings through. There is no other type.
    pub strings: bool,
}

/// ONCE: a command that is executed once, even if the session's client sends it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Once<'a> {
    /// The session.
    pub session: SessionId,
    /// The command's number in the session, from 1.
    pub number: u64,
    /// A hash of the words that the client sent, not of the encoding: a repeated relative expiry may be encoded as
    /// another time, but the command is the same.
    pub fingerprint: u64,
    /// The command: neither ONCE, EXEC, SESSION NEW nor a part of an upload.
    pub command: Command<'a>,
}

impl<'a> Command<'a> {
    /// Calls `visit` with each key, in order.
    pub fn each_key(&self, visit: &mut impl FnMut(&'a [u8])) {
        use Command as C;
        match self {
            C::Noop | C::Constant(_) | C::Scan(_) | C::Keys(_) | C::DbSize | C::RandomKey(_) => {}
            C::CountKeysInSlot(_) | C::KeysInSlot(..) | C::Flush | C::SessionNew => {}
            C::UploadPart(_) | C::UploadComplete(_) | C::UploadAbort(_) => {}
            C::Get(key) | C::StrLen(key) | C::GetRange(key, ..) | C::Type(key) | C::Ttl(key, _) => visit(key),
            C::Object(key, _) | C::GetDel(key) | C::GetEx(key, _) | C::Append(key, _) | C::Persist(key) => visit(key),
            C::SetRange(key, ..) | C::IncrBy(key, _) | C::IncrByFloat(key, _) | C::Expire(key, ..) => visit(key),
            C::IncrByLongDouble(key, _) | C::GetExRefused(key, _) => visit(key),
            C::Set(set) => visit(set.key),
            C::MGet(keys) | C::Exists(keys) | C::Del(keys) => keys.iter().for_each(|key| visit(key)),
            C::MSet(pairs) | C::MSetNx(pairs) => pairs.iter().for_each(|(key, _)| visit(key)),
            C::Rename { from, to, .. } | C::Copy { from, to, .. } => {
                visit(from);
                visit(to);
            }
            C::Once(once) => once.command.each_key(visit),
            C::Exec(commands) => commands.iter().for_each(|command| command.each_key(visit)),
        }
    }

    /// Returns true if the command must go through the log. (A read may, too.)
    #[must_use]
    pub fn is_write(&self) -> bool {
        use Command as C;
        match self {
            C::Constant(_) | C::Get(_) | C::MGet(_) | C::StrLen(_) | C::GetRange(..) | C::Exists(_) => false,
            C::Type(_) | C::Ttl(..) | C::Object(..) | C::Scan(_) | C::Keys(_) | C::DbSize | C::RandomKey(_) => false,
            C::CountKeysInSlot(_) | C::KeysInSlot(..) | C::GetExRefused(..) => false,
            C::IncrByLongDouble(..) => true,
            C::Noop | C::Set(_) | C::GetDel(_) | C::GetEx(..) | C::MSet(_) | C::MSetNx(_) | C::Append(..) => true,
            C::SetRange(..) | C::IncrBy(..) | C::IncrByFloat(..) | C::Del(_) | C::Expire(..) | C::Persist(_) => true,
            C::Rename { .. } | C::Copy { .. } | C::Flush | C::SessionNew | C::Once(_) => true,
            C::UploadPart(_) | C::UploadComplete(_) | C::UploadAbort(_) => true,
            C::Exec(commands) => commands.iter().any(Command::is_write),
        }
    }

    /// Returns true if the command may make the store larger, and so may be refused when memory or disk is short.
    /// Commands that only remove or read are never refused for that.
    #[must_use]
    pub fn grows(&self) -> bool {
        use Command as C;
        match self {
            C::Set(_) | C::MSet(_) | C::MSetNx(_) | C::Append(..) | C::SetRange(..) | C::IncrBy(..) => true,
            C::IncrByFloat(..) | C::IncrByLongDouble(..) | C::Copy { .. } | C::SessionNew => true,
            C::Once(once) => once.command.grows(),
            C::Exec(commands) => commands.iter().any(Command::grows),
            _ => false,
        }
    }

    /// Returns true if the command concerns all keys of the database.
    #[must_use]
    pub fn spans_database(&self) -> bool {
        use Command as C;
        match self {
            C::Scan(_) | C::Keys(_) | C::DbSize | C::RandomKey(_) | C::Flush => true,
            C::Once(once) => once.command.spans_database(),
            C::Exec(commands) => commands.iter().any(Command::spans_database),
            _ => false,
        }
    }

    /// Returns the lowest version of values whose readers know this command.
    #[must_use]
    pub fn value_version(&self) -> u8 {
        use Command as C;
        let is_new = match self {
            C::Set(set) => matches!(set.expiry, SetExpiry::New(when) if when.is_duration()),
            C::GetEx(_, Some(when)) | C::Expire(_, when, _) => when.is_duration(),
            C::IncrByLongDouble(..) | C::GetExRefused(..) => true,
            C::UploadPart(_) | C::UploadComplete(_) | C::UploadAbort(_) => return 4,
            C::Once(once) => return once.command.value_version(),
            C::Exec(commands) => return commands.iter().map(Command::value_version).max().unwrap_or(1),
            _ => false,
        };
        if is_new { 3 } else { 1 }
    }

    /// Returns true if the command, or a command inside EXEC, reads many keys besides those that it names. A command
    /// inside ONCE does not count.
    #[must_use]
    pub fn walks(&self) -> bool {
        use Command as C;
        match self {
            C::Scan(_) | C::Keys(_) | C::DbSize | C::RandomKey(_) | C::CountKeysInSlot(_) | C::KeysInSlot(..) => true,
            C::Exec(commands) => commands.iter().any(Command::walks),
            _ => false,
        }
    }

    /// Returns true if the command only reads, and may take long. It is answered when there is time, and its client's
    /// next commands wait for the answer.
    #[must_use]
    pub fn is_long_read(&self) -> bool {
        use Command as C;
        match self {
            C::Scan(scan) => scan.pattern.is_some() || scan.count > SHORT_PAGE,
            C::MGet(keys) | C::Exists(keys) => keys.len() > SHORT_LIST,
            C::Exec(commands) => {
                !self.is_write() && (commands.len() > SHORT_LIST || commands.iter().any(Command::is_long_read))
            }
            _ => self.walks(),
        }
    }

    /// Returns true if the command may stand inside ONCE or EXEC.
    #[must_use]
    pub fn nests(&self) -> bool {
        !matches!(self, Command::Once(_) | Command::Exec(_) | Command::SessionNew) && !self.is_upload()
    }

    /// Returns true if the command belongs to an upload (a large command that comes in parts).
    #[must_use]
    pub fn is_upload(&self) -> bool {
        matches!(self, Command::UploadPart(_) | Command::UploadComplete(_) | Command::UploadAbort(_))
    }
}

/// Maximum keys that a short SCAN looks at.
const SHORT_PAGE: u32 = 100;
/// Maximum keys of a short MGET or EXISTS, and maximum commands of a short transaction.
const SHORT_LIST: usize = 256;
