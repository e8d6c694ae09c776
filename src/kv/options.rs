//! Reading and checking of the options that SET and GETEX share, and of expiry times.

use super::command::When;
use super::number;
use super::parse::ParseContext;
use super::reply::Reply;
use groups::Ms;
use std::borrow::Cow;

/// The options behind `SET key value` or `GETEX key`.
#[derive(Debug, Default)]
pub(super) struct Options<'a> {
    pub(super) nx: bool,
    pub(super) xx: bool,
    pub(super) get: bool,
    pub(super) keep_ttl: bool,
    pub(super) persist: bool,
    /// The option's name in lower case, and its value.
    pub(super) expiry: Option<(&'static str, &'a [u8])>,
}

impl<'a> Options<'a> {
    /// Reads options in any order. Only one of the options about expiry may be given. It may be repeated: the last time
    /// counts.
    pub(super) fn parse(words: &[&'a [u8]]) -> Result<Options<'a>, Reply<'static>> {
        let mut options = Options::default();
        let mut words = words.iter();
        while let Some(&word) = words.next() {
            if let Some(flag) = options.flag(word) {
                *flag = true;
            } else if let Some(unit) = UNITS.iter().find(|unit| word.eq_ignore_ascii_case(unit.as_bytes())) {
                let time = words.next().ok_or(SYNTAX)?;
                let before = options.expiry.replace((unit, time));
                if before.is_some_and(|(other, _)| other != *unit) {
                    return Err(SYNTAX);
                }
            } else {
                return Err(SYNTAX);
            }
        }
        let about_expiry = [options.keep_ttl, options.persist, options.expiry.is_some()];
        if about_expiry.iter().filter(|&&given| given).count() > 1 {
            return Err(SYNTAX);
        }
        Ok(options)
    }

    fn flag(&mut self, word: &[u8]) -> Option<&mut bool> {
        let flags = [
            ("nx", &mut self.nx),
            ("xx", &mut self.xx),
            ("get", &mut self.get),
            ("keepttl", &mut self.keep_ttl),
            ("persist", &mut self.persist),
        ];
        flags.into_iter().find(|(name, _)| word.eq_ignore_ascii_case(name.as_bytes())).map(|(_, flag)| flag)
    }
}

/// An expiry time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expiry {
    /// The client's number, in its unit.
    given: i64,
    /// The expiry; `None` if its unix milliseconds do not fit into 64 bits.
    when: Option<When>,
}

/// Returns the expiry that `word` means in the unit `ex`, `px`, `exat` or `pxat`.
pub(super) fn expiry(unit: &str, word: &[u8], context: ParseContext) -> Result<Expiry, Reply<'static>> {
    let given = integer(word)?;
    let millis = if unit.starts_with('e') { given.checked_mul(1000) } else { Some(given) };
    let is_duration = !unit.ends_with("at");
    if is_duration && !context.durations && context.cluster_ms == Ms(0) {
        return Err(TIME_UNKNOWN);
    }
    let at = if is_duration { millis.and_then(|ms| ms.checked_add_unsigned(context.cluster_ms.0)) } else { millis };
    let when = at.map(|at| match millis.map(u64::try_from) {
        Some(Ok(ms)) if is_duration && ms > 0 && context.durations => When::After(Ms(ms)),
        _ => When::At(Ms(u64::try_from(at).unwrap_or(0))),
    });
    Ok(Expiry { given, when })
}

impl Expiry {
    /// Returns the expiry for SET and GETEX, which refuse zero and negative numbers.
    pub(super) fn positive(self, command: &str) -> Result<When, Reply<'static>> {
        if self.given > 0 { self.any(command) } else { Err(invalid_expire(command)) }
    }

    /// Returns the expiry for EXPIRE. A time in the past removes the key at once.
    pub(super) fn any(self, command: &str) -> Result<When, Reply<'static>> {
        self.when.ok_or_else(|| invalid_expire(command))
    }
}

pub(super) fn invalid_expire(command: &str) -> Reply<'static> {
    Reply::Error(Cow::Owned(format!("ERR invalid expire time in '{command}' command")))
}

pub(super) fn integer(word: &[u8]) -> Result<i64, Reply<'static>> {
    number::integer(word).ok_or(NOT_AN_INTEGER)
}

/// The reply while cluster time is unknown. A starting node takes long to learn it if a member is unreachable or has an
/// older version. No other clock may be used instead.
const TIME_UNKNOWN: Reply<'static> =
    Reply::Error(Cow::Borrowed("CLUSTERDOWN Hash slot not served: cluster time is not known yet"));

const UNITS: [&str; 4] = ["ex", "px", "exat", "pxat"];

pub(super) const SYNTAX: Reply<'static> = Reply::Error(Cow::Borrowed("ERR syntax error"));
pub(super) const NOT_AN_INTEGER: Reply<'static> =
    Reply::Error(Cow::Borrowed("ERR value is not an integer or out of range"));
