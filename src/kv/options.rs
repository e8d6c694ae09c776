//! The options that SET and GETEX share, and times to expire: read, checked and made absolute.

use super::number;
use super::reply::Reply;
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
    /// Reads options that may be combined; at most one of them may be about expiry.
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

/// A time to expire.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expiry {
    /// What the client gave, in its unit.
    given: i64,
    /// Unix milliseconds, negative before 1970; `None` where they do not fit.
    at: Option<i64>,
}

/// The time that `word` means in the unit `ex`, `px` (from `unix_ms` on), `exat` or `pxat`.
pub(super) fn expire_at(unit: &str, word: &[u8], unix_ms: u64) -> Result<Expiry, Reply<'static>> {
    let given = integer(word)?;
    let millis = if unit.starts_with('e') { given.checked_mul(1000) } else { Some(given) };
    let at = if unit.ends_with("at") { millis } else { millis.and_then(|ms| ms.checked_add_unsigned(unix_ms)) };
    Ok(Expiry { given, at })
}

impl Expiry {
    /// The unix milliseconds for SET and GETEX, which take no zero and nothing negative.
    pub(super) fn positive(self, command: &str) -> Result<u64, Reply<'static>> {
        if self.given > 0 { self.any(command) } else { Err(invalid_expire(command)) }
    }

    /// The unix milliseconds for EXPIRE, where any time before 1970 is 0: the key goes at once.
    pub(super) fn any(self, command: &str) -> Result<u64, Reply<'static>> {
        let at = self.at.ok_or_else(|| invalid_expire(command))?;
        Ok(u64::try_from(at).unwrap_or(0))
    }
}

fn invalid_expire(command: &str) -> Reply<'static> {
    Reply::Error(Cow::Owned(format!("ERR invalid expire time in '{command}' command")))
}

pub(super) fn integer(word: &[u8]) -> Result<i64, Reply<'static>> {
    number::integer(word).ok_or(NOT_AN_INTEGER)
}

const UNITS: [&str; 4] = ["ex", "px", "exat", "pxat"];

pub(super) const SYNTAX: Reply<'static> = Reply::Error(Cow::Borrowed("ERR syntax error"));
pub(super) const NOT_AN_INTEGER: Reply<'static> =
    Reply::Error(Cow::Borrowed("ERR value is not an integer or out of range"));
