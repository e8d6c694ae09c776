//! The parser from a client's words to a [`Command`]: syntax, integers, expiry. Errors are worded as in Redis 7.0.
//!
//! The words borrow from the client's buffer, and so does the command: nothing is copied before it is encoded.

use super::command::{
    Aspect, BadExpiry, Command, Constant, ExpireIf, Lifetime, Once, Pair, Scan, Set, SetAnswer, SetExpiry, SetIf,
};
use super::directory::KeyPosition;
use super::glob::Pattern;
use super::long_double;
use super::number;
use super::options::{NOT_AN_INTEGER, Options, SYNTAX, expiry, integer};
use super::reply::Reply;
use super::session::{self, SessionId};
use super::table::{self, Class, Spec, Verb};
use crate::routing::SLOTS;
use groups::Ms;
use siphasher::sip::SipHasher13;
use std::hash::Hasher as _;

/// The inputs of a command beyond its words, drawn once by the node that received it.
#[derive(Clone, Copy, Debug)]
pub struct ParseContext {
    /// Cluster time in unix milliseconds; 0: not known yet. If commands cannot hold durations, a duration is added to
    /// this time to make an absolute expiry.
    pub cluster_ms: Ms,
    /// True if all members know version 3 of values. Commands may then hold durations, and the other commands of that
    /// version may be used.
    pub durations: bool,
    /// A random number, for RANDOMKEY.
    pub seed: u64,
}

type Parsed<'a> = Result<Command<'a>, Reply<'static>>;

/// Returns the command that the words of a request mean. `spec` is their row, from [`table::lookup`].
///
/// # Errors
/// Redis's error reply, for wrong syntax, and for commands that the node answers itself, except PING and ECHO (which
/// may stand in MULTI).
pub fn parse<'a>(spec: &Spec, words: &[&'a [u8]], context: ParseContext) -> Parsed<'a> {
    if !spec.accepts(words.len()) {
        return Err(table::wrong_arity(spec));
    }
    match words {
        [_] => parse_bare(spec.verb, context),
        [_, key] => parse_one(spec, key),
        _ => parse_more(spec, words, context),
    }
}

fn parse_bare<'a>(verb: Verb, context: ParseContext) -> Parsed<'a> {
    Ok(match verb {
        Verb::DbSize => Command::DbSize,
        Verb::RandomKey => Command::RandomKey(context.seed),
        Verb::FlushAll | Verb::FlushDb => Command::Flush,
        Verb::Ping => Command::Constant(Constant::Pong),
        _ => return Err(NOT_FOR_THE_STORE),
    })
}

fn parse_one<'a>(spec: &Spec, word: &'a [u8]) -> Parsed<'a> {
    Ok(match spec.verb {
        Verb::Get | Verb::GetEx => Command::Get(word),
        Verb::Incr => Command::IncrBy(word, 1),
        Verb::Decr => Command::IncrBy(word, -1),
        Verb::Del | Verb::Unlink => Command::Del(vec![word]),
        Verb::Exists | Verb::Touch => Command::Exists(vec![word]),
        Verb::MGet => Command::MGet(vec![word]),
        Verb::StrLen => Command::StrLen(word),
        Verb::Type => Command::Type(word),
        Verb::Ttl => Command::Ttl(word, Lifetime::Seconds),
        Verb::PTtl => Command::Ttl(word, Lifetime::Millis),
        Verb::ExpireTime => Command::Ttl(word, Lifetime::UnixSeconds),
        Verb::PExpireTime => Command::Ttl(word, Lifetime::UnixMillis),
        Verb::GetDel => Command::GetDel(word),
        Verb::Persist => Command::Persist(word),
        Verb::Keys => Command::Keys(pattern(word)?),
        Verb::Scan => parse_scan(word, &[])?,
        Verb::SessionNew => Command::SessionNew,
        Verb::FlushAll | Verb::FlushDb if is_any(word, &["async", "sync"]) => Command::Flush,
        Verb::FlushAll | Verb::FlushDb => return Err(SYNTAX),
        Verb::Ping | Verb::Echo => Command::Constant(Constant::Bulk(word)),
        _ => return Err(NOT_FOR_THE_STORE),
    })
}

fn parse_more<'a>(spec: &Spec, words: &[&'a [u8]], context: ParseContext) -> Parsed<'a> {
    let (first, second) = (words[1], words[2]);
    Ok(match spec.verb {
        Verb::Set => parse_set(spec, words, context)?,
        Verb::SetNx => {
            Command::Set(Set { only_if: SetIf::Missing, answer: SetAnswer::Changed, ..Set::plain(first, second) })
        }
        Verb::SetEx | Verb::PSetEx => {
            let unit = if spec.verb == Verb::SetEx { "ex" } else { "px" };
            let when = expiry(unit, second, context)?.positive(spec.name)?;
            Command::Set(Set { expiry: SetExpiry::New(when), ..Set::plain(first, words[3]) })
        }
        Verb::GetSet => Command::Set(Set { answer: SetAnswer::OldValue, ..Set::plain(first, second) }),
        Verb::GetEx => parse_get_ex(spec, words, context)?,
        Verb::MGet => Command::MGet(words[1..].to_vec()),
        Verb::MSet => Command::MSet(pairs(spec, words)?),
        Verb::MSetNx => Command::MSetNx(pairs(spec, words)?),
        Verb::Append => Command::Append(first, second),
        Verb::GetRange | Verb::SubStr => Command::GetRange(first, integer(second)?, integer(words[3])?),
        Verb::SetRange => {
            let offset = u64::try_from(integer(second)?).map_err(|_| Reply::error("ERR offset is out of range"))?;
            Command::SetRange(first, offset, words[3])
        }
        Verb::IncrBy => Command::IncrBy(first, integer(second)?),
        Verb::DecrBy => {
            let by = integer(second)?.checked_neg().ok_or(Reply::error("ERR decrement would overflow"))?;
            Command::IncrBy(first, by)
        }
        Verb::IncrByFloat if context.durations && long_double::is_number(second) => {
            Command::IncrByLongDouble(first, second)
        }
        Verb::IncrByFloat if !context.durations && number::is_float(second) => Command::IncrByFloat(first, second),
        Verb::IncrByFloat => return Err(Reply::error("ERR value is not a valid float")),
        Verb::Del | Verb::Unlink => Command::Del(words[1..].to_vec()),
        Verb::Exists | Verb::Touch => Command::Exists(words[1..].to_vec()),
        Verb::Expire | Verb::PExpire | Verb::ExpireAt | Verb::PExpireAt => parse_expire(spec, words, context)?,
        Verb::Rename => Command::Rename { from: first, to: second, only_new: false },
        Verb::RenameNx => Command::Rename { from: first, to: second, only_new: true },
        Verb::Copy => parse_copy(words)?,
        Verb::Scan => parse_scan(first, &words[2..])?,
        Verb::FlushAll | Verb::FlushDb => return Err(SYNTAX),
        Verb::ObjectEncoding => Command::Object(second, Aspect::Encoding),
        Verb::ObjectFreq => Command::Object(second, Aspect::Frequency),
        Verb::ObjectIdleTime => Command::Object(second, Aspect::IdleTime),
        Verb::ObjectRefCount => Command::Object(second, Aspect::References),
        Verb::ClusterCountKeysInSlot => {
            let slot = slot(integer(second)?).ok_or(Reply::error("ERR Invalid slot"))?;
            Command::CountKeysInSlot(slot)
        }
        Verb::ClusterGetKeysInSlot => parse_keys_in_slot(second, words[3])?,
        Verb::Once => parse_once(words, context)?,
        Verb::Ping => return Err(table::wrong_arity(spec)),
        _ => return Err(NOT_FOR_THE_STORE),
    })
}

fn parse_set<'a>(spec: &Spec, words: &[&'a [u8]], context: ParseContext) -> Parsed<'a> {
    let mut set = Set::plain(words[1], words[2]);
    if words.len() == 3 {
        return Ok(Command::Set(set));
    }
    let options = Options::parse(&words[3..])?;
    if options.persist {
        return Err(SYNTAX);
    }
    set.only_if = match (options.nx, options.xx) {
        (true, true) => return Err(SYNTAX),
        (true, false) => SetIf::Missing,
        (false, true) => SetIf::Present,
        (false, false) => SetIf::Always,
    };
    if options.get {
        set.answer = SetAnswer::OldValue;
    }
    set.expiry = match options.expiry {
        Some((unit, time)) => SetExpiry::New(expiry(unit, time, context)?.positive(spec.name)?),
        None if options.keep_ttl => SetExpiry::Keep,
        None => SetExpiry::None,
    };
    Ok(Command::Set(set))
}

fn parse_get_ex<'a>(spec: &Spec, words: &[&'a [u8]], context: ParseContext) -> Parsed<'a> {
    let options = Options::parse(&words[2..])?;
    if options.nx || options.xx || options.get || options.keep_ttl {
        return Err(SYNTAX);
    }
    Ok(match options.expiry {
        None => Command::GetEx(words[1], None), // PERSIST is the only option left
        Some((unit, time)) => match expiry(unit, time, context).and_then(|expiry| expiry.positive(spec.name)) {
            Ok(when) => Command::GetEx(words[1], Some(when)),
            // GETEX refuses the expiry only if the key exists.
            Err(_) if context.durations => {
                let is_integer = integer(time).is_ok();
                let why = if is_integer { BadExpiry::OutOfRange } else { BadExpiry::NotAnInteger };
                Command::GetExRefused(words[1], why)
            }
            Err(refusal) => return Err(refusal),
        },
    })
}

fn parse_expire<'a>(spec: &Spec, words: &[&'a [u8]], context: ParseContext) -> Parsed<'a> {
    let mut only_if = ExpireIf::default();
    for word in &words[3..] {
        match () {
            () if word.eq_ignore_ascii_case(b"nx") => only_if.missing = true,
            () if word.eq_ignore_ascii_case(b"xx") => only_if.present = true,
            () if word.eq_ignore_ascii_case(b"gt") => only_if.later = true,
            () if word.eq_ignore_ascii_case(b"lt") => only_if.sooner = true,
            () => {
                let word = String::from_utf8_lossy(word);
                return Err(Reply::Error(format!("ERR Unsupported option {word}").into()));
            }
        }
    }
    if only_if.missing && (only_if.present || only_if.later || only_if.sooner) {
        return Err(Reply::error("ERR NX and XX, GT or LT options at the same time are not compatible"));
    }
    if only_if.later && only_if.sooner {
        return Err(Reply::error("ERR GT and LT options at the same time are not compatible"));
    }
    let unit = match spec.verb {
        Verb::Expire => "ex",
        Verb::PExpire => "px",
        Verb::ExpireAt => "exat",
        _ => "pxat",
    };
    let when = expiry(unit, words[2], context)?.any(spec.name)?;
    Ok(Command::Expire(words[1], when, only_if))
}

fn parse_copy<'a>(words: &[&'a [u8]]) -> Parsed<'a> {
    let (from, to, mut replace) = (words[1], words[2], false);
    let mut rest = words[3..].iter();
    while let Some(word) = rest.next() {
        if word.eq_ignore_ascii_case(b"replace") {
            replace = true;
        } else if word.eq_ignore_ascii_case(b"db") {
            let index = integer(rest.next().ok_or(SYNTAX)?)?;
            if index != 0 {
                return Err(Reply::error("ERR DB index is out of range"));
            }
        } else {
            return Err(SYNTAX);
        }
    }
    if from == to {
        return Err(Reply::error("ERR source and destination objects are the same"));
    }
    Ok(Command::Copy { from, to, replace })
}

fn parse_scan<'a>(cursor: &'a [u8], options: &[&'a [u8]]) -> Parsed<'a> {
    let cursor = number::cursor(cursor).ok_or(Reply::error("ERR invalid cursor"))?;
    let mut scan = Scan { cursor: cursor.min(KeyPosition::CURSOR_MAX), count: 10, pattern: None, strings: true };
    for option in options.chunks(2) {
        let [name, value] = option else { return Err(SYNTAX) };
        if name.eq_ignore_ascii_case(b"count") {
            let count = integer(value)?;
            if count < 1 {
                return Err(SYNTAX);
            }
            scan.count = u32::try_from(count).unwrap_or(u32::MAX).min(SCAN_COUNT_MAX);
        } else if name.eq_ignore_ascii_case(b"match") {
            scan.pattern = Some(pattern(value)?);
        } else if name.eq_ignore_ascii_case(b"type") {
            scan.strings = value.eq_ignore_ascii_case(b"string");
        } else {
            return Err(SYNTAX);
        }
    }
    Ok(Command::Scan(scan))
}

/// Returns a glob pattern if its matches have a bounded cost.
fn pattern(word: &[u8]) -> Result<&[u8], Reply<'static>> {
    Pattern::check(word).map(|()| word).map_err(Reply::error)
}

fn parse_keys_in_slot<'a>(slot_word: &[u8], count: &[u8]) -> Parsed<'a> {
    let (number, count) = (integer(slot_word)?, integer(count)?);
    match (slot(number), u64::try_from(count)) {
        (Some(slot), Ok(count)) => Ok(Command::KeysInSlot(slot, u32::try_from(count).unwrap_or(u32::MAX))),
        _ => Err(Reply::error("ERR Invalid slot or number of keys")),
    }
}

fn parse_once<'a>(words: &[&'a [u8]], context: ParseContext) -> Parsed<'a> {
    let session = SessionId::parse(words[1]).ok_or(session::UNKNOWN)?;
    let number = number::unsigned(words[2]).filter(|&number| number > 0).ok_or(NOT_AN_INTEGER)?;
    let inner = &words[3..];
    let spec = table::lookup(inner)?;
    let storable = matches!(spec.class, Class::Read | Class::Write) || matches!(spec.verb, Verb::Ping | Verb::Echo);
    if !storable || matches!(spec.verb, Verb::Once | Verb::SessionNew) {
        return Err(Reply::error("ERR ONCE takes a command that reads or writes keys"));
    }
    let command = parse(spec, inner, context)?;
    Ok(Command::Once(Box::new(Once { session, number, fingerprint: fingerprint(spec, inner), command })))
}

/// Returns a hash of a request's words, with the name as the table spells it.
fn fingerprint(spec: &Spec, words: &[&[u8]]) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(spec.name.as_bytes());
    let name_words = 1 + usize::from(spec.name.contains('|'));
    for word in &words[name_words..] {
        hasher.write_u64(word.len() as u64);
        hasher.write(word);
    }
    hasher.finish()
}

fn pairs<'a>(spec: &Spec, words: &[&'a [u8]]) -> Result<Vec<Pair<'a>>, Reply<'static>> {
    if words.len().is_multiple_of(2) {
        return Err(table::wrong_arity(spec));
    }
    Ok(words[1..].chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

fn slot(number: i64) -> Option<u16> {
    u16::try_from(number).ok().filter(|&slot| slot < SLOTS)
}

fn is_any(word: &[u8], names: &[&str]) -> bool {
    names.iter().any(|name| word.eq_ignore_ascii_case(name.as_bytes()))
}

/// Redis's reply to a command that may not stand in MULTI. Such a command gets here only through MULTI.
const NOT_FOR_THE_STORE: Reply<'static> =
    Reply::Error(std::borrow::Cow::Borrowed("ERR Command not allowed inside a transaction"));

/// Maximum keys that one SCAN looks at: COUNT is a hint, and the event loop must go on.
const SCAN_COUNT_MAX: u32 = 10_000;
