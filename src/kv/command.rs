//! A command of the store: typed, validated, borrowing its keys and values from the request or the log.
//!
//! Everything that a command may depend on beyond its words (the clock, chance) was settled where it arrived, so that
//! every replica does the same with it. Synonyms are one variant: SETEX is a `Set`, UNLINK a `Del`, DECR an `IncrBy`.

use super::session::SessionId;
use super::uploads::{Complete, Part, UploadId};

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
    /// CLUSTER GETKEYSINSLOT, with how many at most.
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
    /// SETRANGE: from which byte on, and the bytes.
    SetRange(&'a [u8], u64, &'a [u8]),
    /// INCR, INCRBY, DECR, DECRBY.
    IncrBy(&'a [u8], i64),
    /// INCRBYFLOAT as it was before values of version 3, in decimal; the increment as the client wrote it.
    IncrByFloat(&'a [u8], &'a [u8]),
    /// INCRBYFLOAT as Redis has it; the increment as the client wrote it.
    IncrByLongDouble(&'a [u8], &'a [u8]),
    /// GETEX with an expiry that no key can have: only a key that exists is refused it. Changes nothing.
    GetExRefused(&'a [u8], BadExpiry),
    /// DEL, UNLINK.
    Del(Vec<&'a [u8]>),
    /// EXPIRE, PEXPIRE, EXPIREAT, PEXPIREAT: the new expiry, and when to obey.
    Expire(&'a [u8], When, ExpireIf),
    /// PERSIST.
    Persist(&'a [u8]),
    /// RENAME, RENAMENX.
    Rename {
        /// The old name.
        from: &'a [u8],
        /// The new name.
        to: &'a [u8],
        /// RENAMENX: only if nothing has the new name.
        only_new: bool,
    },
    /// COPY.
    Copy {
        /// The key that is copied.
        from: &'a [u8],
        /// The copy's key.
        to: &'a [u8],
        /// Whether it may replace another.
        replace: bool,
    },
    /// FLUSHALL, FLUSHDB.
    Flush,
    /// SESSION NEW.
    SessionNew,
    /// ONCE.
    Once(Box<Once<'a>>),
    /// What stood between MULTI and EXEC.
    Exec(Vec<Command<'a>>),
    /// A part of a large command; see `uploads`. No client sends it, and it stands in no other command, like the next two.
    UploadPart(Part<'a>),
    /// All parts are there: what they make is executed.
    UploadComplete(Box<Complete<'a>>),
    /// The parts are of no use any more.
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
    /// When to obey.
    pub only_if: SetIf,
    /// What to answer.
    pub answer: SetAnswer,
    /// What becomes of the key's expiry.
    pub expiry: SetExpiry,
}

impl<'a> Set<'a> {
    /// SET without options.
    #[must_use]
    pub fn plain(key: &'a [u8], value: &'a [u8]) -> Set<'a> {
        Set { key, value, only_if: SetIf::Always, answer: SetAnswer::Done, expiry: SetExpiry::None }
    }

    /// Whether it is SET without options.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.only_if == SetIf::Always && self.answer == SetAnswer::Done && self.expiry == SetExpiry::None
    }
}

/// When SET obeys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetIf {
    /// Always.
    Always,
    /// NX: only if the key does not exist.
    Missing,
    /// XX: only if it does.
    Present,
}

/// What SET answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetAnswer {
    /// OK, or null if it did not obey.
    Done,
    /// The old value or null: SET GET, GETSET.
    OldValue,
    /// 1 or 0: SETNX.
    Changed,
}

/// What SET does to the key's expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetExpiry {
    /// The key never expires.
    None,
    /// KEEPTTL: as before.
    Keep,
    /// Then.
    New(When),
}

/// When a key expires. A duration becomes a time where the command is applied, so that no clock but the group's counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At these unix milliseconds of the group's time; 0 for any time before 1970.
    At(u64),
    /// So many milliseconds, at least 1, after the time of the value that holds the command.
    After(u64),
}

impl When {
    /// The unix milliseconds at which a key expires if the command is applied at the group's time `now_ms`.
    #[must_use]
    pub fn at_ms(self, now_ms: u64) -> u64 {
        match self {
            When::At(at_ms) => at_ms,
            // Replies are signed.
            When::After(ms) => now_ms.saturating_add(ms).min(i64::MAX as u64),
        }
    }

    fn is_duration(self) -> bool {
        matches!(self, When::After(_))
    }
}

/// When EXPIRE obeys; all of those that are set must hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpireIf {
    /// NX: only if the key does not expire yet.
    pub missing: bool,
    /// XX: only if it does.
    pub present: bool,
    /// GT: only later than now; never is the latest.
    pub later: bool,
    /// LT: only sooner.
    pub sooner: bool,
}

/// How a key's expiry is told.
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

/// What is wrong with an expiry of GETEX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadExpiry {
    /// It is no integer.
    NotAnInteger,
    /// It is too large, or not above 0.
    OutOfRange,
}

/// What OBJECT tells about a key.
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
    /// Where to go on, see `Position::cursor`.
    pub cursor: u64,
    /// How many keys to look at.
    pub count: u32,
    /// MATCH.
    pub pattern: Option<&'a [u8]>,
    /// Whether TYPE lets strings through. There is no other type.
    pub strings: bool,
}

/// ONCE: a command that a session's client may send again without its being executed again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Once<'a> {
    /// The session.
    pub session: SessionId,
    /// The command's number in it, from 1.
    pub number: u64,
    /// A hash of the words that the client sent. Not of the encoding: a relative expiry, sent again, is encoded as
    /// another time, but is the same command.
    pub fingerprint: u64,
    /// The command: neither ONCE, EXEC nor SESSION NEW.
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

    /// Whether it must go through the log. (A read may, too.)
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

    /// Whether it may make the store larger, and so may be refused when memory or disk are short. What only removes,
    /// or reads, never is.
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

    /// Whether it is about all keys of the database.
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

    /// The lowest version of values whose readers know this command.
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

    /// Whether it only reads, and looks at many keys beside those that it names.
    #[must_use]
    pub fn walks(&self) -> bool {
        use Command as C;
        match self {
            C::Scan(_) | C::Keys(_) | C::DbSize | C::RandomKey(_) | C::CountKeysInSlot(_) | C::KeysInSlot(..) => true,
            C::Exec(commands) => commands.iter().any(Command::walks),
            _ => false,
        }
    }

    /// Whether it only reads, and may take long: it is answered when there is time, and its client's next commands wait for
    /// that.
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

    /// Whether it may stand inside ONCE or EXEC.
    #[must_use]
    pub fn nests(&self) -> bool {
        !matches!(self, Command::Once(_) | Command::Exec(_) | Command::SessionNew) && !self.is_upload()
    }

    /// Whether it belongs to a large command that comes in parts.
    #[must_use]
    pub fn is_upload(&self) -> bool {
        matches!(self, Command::UploadPart(_) | Command::UploadComplete(_) | Command::UploadAbort(_))
    }
}

/// Keys that a short SCAN looks at, and a short list names.
const SHORT_PAGE: u32 = 100;
const SHORT_LIST: usize = 256;
