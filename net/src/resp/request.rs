//! The request parser of a server: inline commands and arrays of bulk strings, nothing else.
//!
//! The parser is resumable: between two reads it remembers its position. So it does not parse a request again from the
//! start for each piece that arrives. It copies nothing: arguments are ranges of the read buffer, except in inline
//! commands with quotes. It trusts no length that a client claims: memory grows only with bytes that have arrived.

use memchr::{memchr, memchr2};
use thiserror::Error;

/// Maximum capacity of the argument list, in arguments, that the parser keeps between requests. A larger list is freed.
const ARGS_KEPT_MAX: usize = 1024;

/// The bounds of one request. Exceeding one is an error that ends the connection.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// Maximum bytes of an inline command, and of a line that carries a length.
    pub inline_bytes_max: usize,
    /// Maximum arguments of a request, its name included.
    pub args_max: usize,
    /// Maximum bytes of one argument.
    pub arg_bytes_max: usize,
    /// Maximum bytes of a whole request: below 4 GiB, and at most the connection's `input_bytes_max`.
    pub request_bytes_max: usize,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self { inline_bytes_max: 64 << 10, args_max: 1 << 20, arg_bytes_max: 64 << 20, request_bytes_max: 128 << 20 }
    }
}

/// The reason why the bytes are not a request. Its text follows `ERR ` in the reply, and is Redis's own text where
/// Redis has one.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RequestError {
    /// The text after `*` is not a number, or the number is above `args_max`.
    #[error("Protocol error: invalid multibulk length")]
    InvalidMultibulkLength,
    /// The text after `$` is not a number, or the number is negative, above `arg_bytes_max`, or not the length of the
    /// bytes that follow.
    #[error("Protocol error: invalid bulk length")]
    InvalidBulkLength,
    /// An argument that does not begin with `$`.
    #[error("Protocol error: expected '$', got '{}'", .0.escape_ascii())]
    ExpectedBulk(u8),
    /// An inline command longer than `inline_bytes_max`.
    #[error("Protocol error: too big inline request")]
    TooBigInline,
    /// The line that begins with `*` has no end within `inline_bytes_max` bytes.
    #[error("Protocol error: too big mbulk count string")]
    TooBigMultibulkCount,
    /// The line that begins with `$` has no end within `inline_bytes_max` bytes.
    #[error("Protocol error: too big bulk count string")]
    TooBigBulkCount,
    /// An inline command that ends inside quotes, or in which anything but a space follows a closing quote.
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    /// The request is longer than `request_bytes_max`.
    #[error("Protocol error: too big request")]
    TooBigRequest,
    /// An HTTP request, perhaps of a web browser that was misled into attacking this server. The connection is closed
    /// without a reply, as Redis does.
    #[error("Protocol error: this is not an HTTP server")]
    Http,
}

/// The state of one connection's current request.
///
/// After an error the start of the next request is unknown: answer, and close the connection.
#[derive(Debug)]
pub struct RequestParser {
    limits: RequestLimits,
    stage: ParseStage,
    /// Start of the line or argument that is read next.
    at: usize,
    /// The bytes from `at` to this position hold no line end.
    searched: usize,
    args_left: usize,
    bulk_bytes: usize,
    needed: usize,
    /// Start and end of each argument: in `unquoted` if `quoted` is true, otherwise in the buffer.
    args: Vec<(u32, u32)>,
    unquoted: Vec<u8>,
    /// The arguments of this request are in `unquoted`.
    quoted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ParseStage {
    /// Nothing is known of the request.
    Start,
    /// The line with an argument's length comes next.
    Length,
    /// `bulk_bytes` of an argument and its line end come next.
    Bulk,
    /// The request is complete, its arguments may be read.
    Complete,
}

impl RequestParser {
    /// A parser at the start of a request.
    ///
    /// # Panics
    /// If `request_bytes_max` or `inline_bytes_max` does not fit into 32 bits: positions are kept in 32 bits.
    #[must_use]
    pub fn new(limits: RequestLimits) -> Self {
        let longest = limits.inline_bytes_max.max(limits.request_bytes_max);
        assert!(u32::try_from(longest).is_ok(), "request_bytes_max and inline_bytes_max must be below 4 GiB");
        Self {
            limits,
            stage: ParseStage::Start,
            at: 0,
            searched: 0,
            args_left: 0,
            bulk_bytes: 0,
            needed: 0,
            args: Vec::new(),
            unquoted: Vec::new(),
            quoted: false,
        }
    }

    /// Continues the current request. `buf` must hold all of its bytes that have arrived, from the first one on.
    ///
    /// Returns the length of the request in bytes once it is complete, and `None` while bytes are missing. Its
    /// arguments can be read until the next poll. That poll begins with the next request, so the caller first drops the
    /// bytes of this one. Blank lines, `*0` and `*-1` are complete requests without arguments.
    ///
    /// # Errors
    /// If the bytes are not a request, or exceed the limits.
    pub fn poll(&mut self, buf: &[u8]) -> Result<Option<usize>, RequestError> {
        if self.stage == ParseStage::Complete {
            self.reset();
        }
        self.needed = 0;
        if self.stage == ParseStage::Start {
            match buf.first() {
                None => return Ok(None),
                Some(b'*') => {}
                Some(_) => return self.poll_inline(buf),
            }
            let number = self.number(buf, RequestError::TooBigMultibulkCount, RequestError::InvalidMultibulkLength)?;
            let Some(count) = number else { return Ok(None) };
            // Redis takes any negative count for an empty request.
            self.args_left = usize::try_from(count).unwrap_or(0);
            if self.args_left > self.limits.args_max {
                return Err(RequestError::InvalidMultibulkLength);
            }
            self.stage = ParseStage::Length;
        }
        self.poll_bulks(buf)
    }

    /// The number of arguments of the complete request.
    #[must_use]
    pub fn len(&self) -> usize {
        self.args.len()
    }

    /// True if the complete request has no arguments: there is nothing to do or to answer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.args.is_empty()
    }

    /// Argument `index` of the complete request; `buf` begins with the request, as it did for [`Self::poll`].
    ///
    /// # Panics
    /// If there is no such argument.
    #[must_use]
    pub fn arg<'a>(&'a self, index: usize, buf: &'a [u8]) -> &'a [u8] {
        let (start, end) = self.args[index];
        let bytes = if self.quoted { self.unquoted.as_slice() } else { buf };
        &bytes[start as usize..end as usize]
    }

    /// All arguments of the complete request in order; see [`Self::arg`].
    pub fn args<'a>(&'a self, buf: &'a [u8]) -> impl ExactSizeIterator<Item = &'a [u8]> {
        (0..self.args.len()).map(move |index| self.arg(index, buf))
    }

    /// The least number of bytes that are missing if the last poll stopped inside an argument, otherwise 0. It is a
    /// hint for the reader. The client claimed the length, so allocate nothing for it.
    #[must_use]
    pub fn needed(&self) -> usize {
        self.needed
    }

    /// The number of bytes until the end of the request, if the last poll stopped inside its last argument.
    #[must_use]
    pub fn ends_after(&self) -> Option<usize> {
        (self.stage == ParseStage::Bulk && self.args_left == 1).then_some(self.needed)
    }

    fn reset(&mut self) {
        self.stage = ParseStage::Start;
        self.at = 0;
        self.searched = 0;
        self.args.clear();
        if self.args.capacity() > ARGS_KEPT_MAX {
            self.args = Vec::new();
        }
        if self.quoted {
            self.quoted = false;
            self.unquoted = Vec::new();
        }
    }

    fn poll_bulks(&mut self, buf: &[u8]) -> Result<Option<usize>, RequestError> {
        while self.args_left > 0 {
            if self.stage == ParseStage::Length {
                match buf.get(self.at) {
                    None => return Ok(None),
                    Some(b'$') => {}
                    Some(&other) => return Err(RequestError::ExpectedBulk(other)),
                }
                let number = self.number(buf, RequestError::TooBigBulkCount, RequestError::InvalidBulkLength)?;
                let Some(length) = number else { return Ok(None) };
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                if length > self.limits.arg_bytes_max {
                    return Err(RequestError::InvalidBulkLength);
                }
                if self.at.saturating_add(length).saturating_add(2) > self.limits.request_bytes_max {
                    return Err(RequestError::TooBigRequest);
                }
                self.bulk_bytes = length;
                self.stage = ParseStage::Bulk;
            }
            let end = self.at + self.bulk_bytes;
            match buf.get(end..end + 2) {
                Some(b"\r\n") => {}
                Some(_) => return Err(RequestError::InvalidBulkLength),
                None => {
                    self.needed = end + 2 - buf.len();
                    return Ok(None);
                }
            }
            self.args.push((self.at as u32, end as u32));
            self.at = end + 2;
            self.args_left -= 1;
            self.stage = ParseStage::Length;
        }
        self.stage = ParseStage::Complete;
        Ok(Some(self.at))
    }

    /// Parses the number in the line at `at`, after its first byte, and moves `at` past the line. Returns `None` if the
    /// line is not complete.
    #[inline]
    fn number(
        &mut self,
        buf: &[u8],
        too_big: RequestError,
        invalid: RequestError,
    ) -> Result<Option<i64>, RequestError> {
        let digits = self.at + 1;
        if let Some((number, length)) = short_number(&buf[digits..]) {
            self.at = digits + length;
            return Ok(Some(number));
        }
        let from = digits.max(self.searched);
        let found = memchr(b'\r', &buf[from..]).map(|distance| from + distance);
        self.searched = found.unwrap_or(buf.len());
        if self.searched - self.at > self.limits.inline_bytes_max {
            return Err(too_big);
        }
        let Some(end) = found else { return Ok(None) };
        match buf.get(end + 1) {
            None => Ok(None),
            Some(b'\n') => {
                let number = strict_number(&buf[digits..end]).ok_or(invalid)?;
                self.at = end + 2;
                Ok(Some(number))
            }
            Some(_) => Err(invalid),
        }
    }

    fn poll_inline(&mut self, buf: &[u8]) -> Result<Option<usize>, RequestError> {
        let found = memchr(b'\n', &buf[self.searched..]).map(|distance| self.searched + distance);
        self.searched = found.unwrap_or(buf.len());
        if self.searched > self.limits.inline_bytes_max {
            return Err(RequestError::TooBigInline);
        }
        let Some(end) = found else { return Ok(None) };
        let line = &buf[..end];
        if memchr2(b'"', b'\'', line).is_some() {
            self.quoted = true;
            unquote(line, &mut self.unquoted, &mut self.args).ok_or(RequestError::UnbalancedQuotes)?;
        } else {
            split(line, &mut self.args);
        }
        self.stage = ParseStage::Complete;
        if !self.is_empty() {
            let name = self.arg(0, buf);
            if name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:") {
                return Err(RequestError::Http);
            }
        }
        Ok(Some(end + 1))
    }
}

/// Parses a line of one to three digits, as nearly all lines are. Returns the number, and the length of the line in
/// bytes, line end included.
#[inline]
fn short_number(line: &[u8]) -> Option<(i64, usize)> {
    let digit = |byte: u8| i64::from(byte - b'0');
    match *line {
        [a @ b'0'..=b'9', b'\r', b'\n', ..] => Some((digit(a), 3)),
        [a @ b'1'..=b'9', b @ b'0'..=b'9', b'\r', b'\n', ..] => Some((digit(a) * 10 + digit(b), 4)),
        [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b'\r', b'\n', ..] => {
            Some((digit(a) * 100 + digit(b) * 10 + digit(c), 5))
        }
        _ => None,
    }
}

/// Parses a decimal number as Redis does: no sign but `-`, no leading zero, no space, within 64 bits.
fn strict_number(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [] => return None,
        [b'0'] if !negative => return Some(0),
        [b'0', ..] => return None,
        _ => {}
    }
    let mut number = 0i64; // counted downwards, because the least number has no positive counterpart
    for &byte in digits {
        if !byte.is_ascii_digit() {
            return None;
        }
        number = number.checked_mul(10)?.checked_sub(i64::from(byte - b'0'))?;
    }
    if negative { Some(number) } else { number.checked_neg() }
}

fn is_space(byte: u8) -> bool {
    byte == b' ' || (b'\t'..=b'\r').contains(&byte)
}

fn skip_space(text: &[u8]) -> &[u8] {
    let spaces = text.iter().take_while(|&&byte| is_space(byte)).count();
    &text[spaces..]
}

/// Splits a line without quotes into words.
fn split(line: &[u8], args: &mut Vec<(u32, u32)>) {
    let mut rest = skip_space(line);
    while !rest.is_empty() {
        let start = line.len() - rest.len();
        let length = rest.iter().take_while(|&&byte| !is_space(byte)).count();
        args.push((start as u32, (start + length) as u32));
        rest = skip_space(&rest[length..]);
    }
}

/// Splits a line with quotes into words, and writes them to `bytes`. Returns `None` if the quotes are unbalanced.
fn unquote(line: &[u8], bytes: &mut Vec<u8>, args: &mut Vec<(u32, u32)>) -> Option<()> {
    let mut rest = skip_space(line);
    while !rest.is_empty() {
        let start = bytes.len();
        rest = word(rest, bytes)?;
        args.push((start as u32, bytes.len() as u32));
        rest = skip_space(rest);
    }
    Some(())
}

/// Reads a word into `bytes`, and returns the rest of the line. A quote may open inside a word. The closing quote ends
/// the word.
fn word<'a>(mut rest: &'a [u8], bytes: &mut Vec<u8>) -> Option<&'a [u8]> {
    while let [byte, tail @ ..] = rest {
        match byte {
            b'"' => return double_quoted(tail, bytes),
            b'\'' => return single_quoted(tail, bytes),
            &byte if is_space(byte) => break,
            &byte => bytes.push(byte),
        }
        rest = tail;
    }
    Some(rest)
}

fn double_quoted<'a>(mut rest: &'a [u8], bytes: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        let (byte, tail) = match rest {
            [] => return None,
            [b'"', tail @ ..] => return after_quote(tail),
            [b'\\', b'x', high, low, tail @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                (hex(*high) << 4 | hex(*low), tail)
            }
            [b'\\', escaped, tail @ ..] => (unescape(*escaped), tail),
            [byte, tail @ ..] => (*byte, tail),
        };
        bytes.push(byte);
        rest = tail;
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], bytes: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        let (byte, tail) = match rest {
            [] => return None,
            [b'\'', tail @ ..] => return after_quote(tail),
            [b'\\', b'\'', tail @ ..] => (b'\'', tail),
            [byte, tail @ ..] => (*byte, tail),
        };
        bytes.push(byte);
        rest = tail;
    }
}

/// Returns the rest of the line after a closing quote, or `None` if the quote does not end the word.
fn after_quote(tail: &[u8]) -> Option<&[u8]> {
    tail.first().is_none_or(|&byte| is_space(byte)).then_some(tail)
}

fn unescape(escaped: u8) -> u8 {
    match escaped {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'a' => 7,
        other => other,
    }
}

/// The value of a hexadecimal digit.
fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}
