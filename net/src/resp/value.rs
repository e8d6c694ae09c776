//! Parsers for replies, used by clients. [`decode`] builds a tree; [`skip`] and [`Scan`] only measure a reply.
//!
//! The load generator reads hundreds of thousands of replies per second. Of each reply it needs the end, and whether
//! the reply is an error. So the scan builds nothing, and goes on where it stopped if a reply arrives in pieces. Both
//! parsers use the same code for item heads, and the same limits. The limits are needed because the peer may be any
//! server.

/// Maximum depth of nested aggregates.
pub const DEPTH_MAX: usize = 16;
/// Maximum bytes of a line without its `\r\n`: a simple string, an error, a number or a length.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
/// Maximum bytes of a bulk string, as in Redis.
pub const BULK_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Maximum items directly inside one aggregate. A map of n pairs has 2n items.
pub const ITEMS_MAX: usize = 1024 * 1024;

/// One reply of RESP2 or RESP3.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `+`: a status.
    Simple(String),
    /// `-` or `!`: an error, starting with its code.
    Error(String),
    /// `:`: an integer.
    Int(i64),
    /// `$`: a string of bytes.
    Bulk(Vec<u8>),
    /// `_`, `$-1` or `*-1`.
    Null,
    /// `*`: values in order.
    Array(Vec<Value>),
    /// `%`: pairs in order.
    Map(Vec<(Value, Value)>),
    /// `~`: values without order.
    Set(Vec<Value>),
    /// `,`: a floating point number.
    Double(f64),
    /// `#`: true or false.
    Bool(bool),
    /// `=`: text with a three-letter format.
    Verbatim(String, Vec<u8>),
    /// `>`: values that answer no request.
    Push(Vec<Value>),
    /// `(`: an integer of any size, as its digits.
    BigNumber(String),
}

impl Value {
    /// The bytes of a string of any kind.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Value::Bulk(bytes) | Value::Verbatim(_, bytes) => Some(bytes),
            Value::Simple(text) => Some(text.as_bytes()),
            _ => None,
        }
    }

    /// The items of an array, set or push.
    #[must_use]
    pub fn as_items(&self) -> Option<&[Value]> {
        match self {
            Value::Array(items) | Value::Set(items) | Value::Push(items) => Some(items),
            _ => None,
        }
    }
}

/// The reason why bytes are not a reply. The connection that they came from cannot be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// The first byte of an item names no type.
    #[error("a reply cannot start with byte {0:#04x}")]
    Type(u8),
    /// A number, a length, a boolean or a line end is invalid.
    #[error("malformed reply")]
    Malformed,
    /// A line, string or aggregate is longer than its limit.
    #[error("a reply is over the size limit")]
    TooLarge,
    /// More than [`DEPTH_MAX`] aggregates inside each other.
    #[error("a reply is nested deeper than {DEPTH_MAX}")]
    TooDeep,
}

/// Parses the reply at the start of `bytes`. Returns the value and its length in bytes, or `None` if the reply is
/// incomplete.
///
/// Each call starts from the first byte. To read a large reply in pieces, find its end with a [`Scan`] first.
///
/// # Errors
/// If the bytes cannot be the start of a reply within the limits.
pub fn decode(bytes: &[u8]) -> Result<Option<(Value, usize)>, ValueError> {
    item(bytes, 0, 0)
}

/// Measures the reply at the start of `bytes`. Returns its length in bytes and true if it is an error, or `None` if the
/// reply is incomplete.
///
/// # Errors
/// If the bytes cannot be the start of a reply within the limits. Scalars and the content of strings are not checked.
pub fn skip(bytes: &[u8]) -> Result<Option<(usize, bool)>, ValueError> {
    Scan::default().resume(bytes)
}

/// A [`skip`] that remembers how far it came, so that a reply in many pieces is scanned once.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// Start of the next item. Everything before it is scanned.
    position: usize,
    /// Items missing in each open aggregate, the outermost first.
    open: [u32; DEPTH_MAX],
    depth: usize,
    is_error: bool,
}

impl Scan {
    /// Continues the scan of the reply that starts at `bytes[0]`. More of it may have arrived since the last call.
    /// After `Some`, the scan is ready for the next reply.
    ///
    /// # Errors
    /// As [`skip`].
    pub fn resume(&mut self, bytes: &[u8]) -> Result<Option<(usize, bool)>, ValueError> {
        loop {
            let Some(head) = Head::read(bytes, self.position)? else { return Ok(None) };
            match head.body {
                Body::Line | Body::Null => self.position = head.end,
                Body::Bulk(length) => {
                    if bulk(bytes, head.end, length)?.is_none() {
                        return Ok(None);
                    }
                    self.position = head.end + length + 2;
                }
                Body::Items(count) => {
                    if self.depth == DEPTH_MAX {
                        return Err(ValueError::TooDeep);
                    }
                    self.position = head.end;
                    if count > 0 {
                        self.open[self.depth] = count as u32;
                        self.depth += 1;
                        continue;
                    }
                }
            }
            if self.depth == 0 {
                self.is_error = matches!(head.kind, b'-' | b'!');
            }
            if self.close_item() {
                let found = (self.position, self.is_error);
                *self = Scan::default();
                return Ok(Some(found));
            }
        }
    }

    /// Counts one complete item, and closes each aggregate whose last item it was. Returns true at the end of the
    /// reply.
    fn close_item(&mut self) -> bool {
        while let Some(innermost) = self.depth.checked_sub(1) {
            self.open[innermost] -= 1;
            if self.open[innermost] > 0 {
                return false;
            }
            self.depth = innermost;
        }
        true
    }
}

/// The first line of an item, and what must follow it.
struct Head<'a> {
    kind: u8,
    line: &'a [u8],
    /// End of the line, where the body starts.
    end: usize,
    body: Body,
}

enum Body {
    /// The line is the whole item.
    Line,
    /// A length of -1: the null of RESP2.
    Null,
    Bulk(usize),
    Items(usize),
}

impl Head<'_> {
    fn read(bytes: &[u8], start: usize) -> Result<Option<Head<'_>>, ValueError> {
        let Some((&kind, rest)) = bytes.get(start..).and_then(<[u8]>::split_first) else { return Ok(None) };
        let counted = match kind {
            b'+' | b'-' | b':' | b',' | b'#' | b'(' | b'_' => false,
            b'$' | b'=' | b'!' | b'*' | b'~' | b'>' | b'%' => true,
            _ => return Err(ValueError::Type(kind)),
        };
        let Some(line) = line(rest)? else { return Ok(None) };
        let body = if counted { Body::of(kind, line)? } else { Body::Line };
        Ok(Some(Head { kind, line, end: start + 1 + line.len() + 2, body }))
    }
}

impl Body {
    fn of(kind: u8, line: &[u8]) -> Result<Body, ValueError> {
        if line == b"-1" && matches!(kind, b'$' | b'*') {
            return Ok(Body::Null);
        }
        // Ten digits are enough for every limit, and cannot overflow.
        if line.is_empty() || line.len() > 10 || !line.iter().all(u8::is_ascii_digit) {
            return Err(ValueError::Malformed);
        }
        let number = line.iter().fold(0_usize, |number, digit| number * 10 + usize::from(digit - b'0'));
        let (body, number, max) = match kind {
            b'$' | b'=' | b'!' => (Body::Bulk(number), number, BULK_BYTES_MAX),
            b'%' => (Body::Items(number * 2), number * 2, ITEMS_MAX),
            _ => (Body::Items(number), number, ITEMS_MAX),
        };
        if number > max { Err(ValueError::TooLarge) } else { Ok(body) }
    }
}

/// The bytes before the first `\r\n`, if it has arrived.
fn line(bytes: &[u8]) -> Result<Option<&[u8]>, ValueError> {
    let window = &bytes[..bytes.len().min(LINE_BYTES_MAX + 1)];
    let Some(end) = memchr::memchr(b'\r', window) else {
        return if window.len() > LINE_BYTES_MAX { Err(ValueError::TooLarge) } else { Ok(None) };
    };
    match bytes.get(end + 1) {
        None => Ok(None),
        Some(b'\n') => Ok(Some(&bytes[..end])),
        Some(_) => Err(ValueError::Malformed),
    }
}

/// `length` bytes from `start`, if they and their line end have arrived.
fn bulk(bytes: &[u8], start: usize, length: usize) -> Result<Option<&[u8]>, ValueError> {
    match bytes.get(start + length..start + length + 2) {
        None => Ok(None),
        Some(b"\r\n") => Ok(Some(&bytes[start..start + length])),
        Some(_) => Err(ValueError::Malformed),
    }
}

/// Parses the item at `start`. The recursion is never deeper than [`DEPTH_MAX`].
fn item(bytes: &[u8], start: usize, depth: usize) -> Result<Option<(Value, usize)>, ValueError> {
    let Some(head) = Head::read(bytes, start)? else { return Ok(None) };
    let (value, end) = match head.body {
        Body::Line => (scalar(head.kind, head.line)?, head.end),
        Body::Null => (Value::Null, head.end),
        Body::Bulk(length) => {
            let Some(content) = bulk(bytes, head.end, length)? else { return Ok(None) };
            (string(head.kind, content)?, head.end + length + 2)
        }
        Body::Items(_) if depth == DEPTH_MAX => return Err(ValueError::TooDeep),
        Body::Items(count) => {
            let Some((items, end)) = items(bytes, head.end, count, depth + 1)? else { return Ok(None) };
            (aggregate(head.kind, items), end)
        }
    };
    Ok(Some((value, end)))
}

fn items(bytes: &[u8], start: usize, count: usize, depth: usize) -> Result<Option<(Vec<Value>, usize)>, ValueError> {
    // The shortest item has three bytes, so a count whose items have not arrived reserves no memory.
    let mut items = Vec::with_capacity(count.min((bytes.len() - start) / 3));
    let mut position = start;
    for _ in 0..count {
        let Some((value, end)) = item(bytes, position, depth)? else { return Ok(None) };
        items.push(value);
        position = end;
    }
    Ok(Some((items, position)))
}

fn scalar(kind: u8, line: &[u8]) -> Result<Value, ValueError> {
    let text = String::from_utf8_lossy(line).into_owned();
    Ok(match (kind, line) {
        (b'+', _) => Value::Simple(text),
        (b'-', _) => Value::Error(text),
        (b':', _) => Value::Int(text.parse().map_err(|_| ValueError::Malformed)?),
        (b',', _) => Value::Double(text.parse().map_err(|_| ValueError::Malformed)?),
        (b'(', _) => Value::BigNumber(text),
        (b'#', b"t") => Value::Bool(true),
        (b'#', b"f") => Value::Bool(false),
        (b'_', b"") => Value::Null,
        _ => return Err(ValueError::Malformed),
    })
}

fn string(kind: u8, content: &[u8]) -> Result<Value, ValueError> {
    Ok(match kind {
        b'!' => Value::Error(String::from_utf8_lossy(content).into_owned()),
        b'=' => {
            let (format, text) = content.split_at_checked(4).ok_or(ValueError::Malformed)?;
            let Some(format) = format.strip_suffix(b":") else { return Err(ValueError::Malformed) };
            Value::Verbatim(String::from_utf8_lossy(format).into_owned(), text.to_vec())
        }
        _ => Value::Bulk(content.to_vec()),
    })
}

fn aggregate(kind: u8, items: Vec<Value>) -> Value {
    match kind {
        b'~' => Value::Set(items),
        b'>' => Value::Push(items),
        b'%' => {
            let mut items = items.into_iter();
            Value::Map(std::iter::from_fn(|| items.next().zip(items.next())).collect())
        }
        _ => Value::Array(items),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_type_is_read() {
        let cases: [(&[u8], Value); 14] = [
            (b"+OK\r\n", Value::Simple("OK".into())),
            (b"-ERR no\r\n", Value::Error("ERR no".into())),
            (b"!5\r\nERR x\r\n", Value::Error("ERR x".into())),
            (b":-42\r\n", Value::Int(-42)),
            (b"$3\r\na\r\n\r\n", Value::Bulk(b"a\r\n".to_vec())),
            (b"$-1\r\n", Value::Null),
            (b"*-1\r\n", Value::Null),
            (b"_\r\n", Value::Null),
            (b",1.5\r\n", Value::Double(1.5)),
            (b"#t\r\n", Value::Bool(true)),
            (b"(123456789012345678901234567890\r\n", Value::BigNumber("123456789012345678901234567890".into())),
            (b"=7\r\ntxt:abc\r\n", Value::Verbatim("txt".into(), b"abc".to_vec())),
            (b">1\r\n+a\r\n", Value::Push(vec![Value::Simple("a".into())])),
            (b"%1\r\n:1\r\n~0\r\n", Value::Map(vec![(Value::Int(1), Value::Set(vec![]))])),
        ];
        for (bytes, value) in cases {
            let is_error = matches!(value, Value::Error(_));
            assert_eq!(decode(bytes), Ok(Some((value, bytes.len()))));
            assert_eq!(skip(bytes), Ok(Some((bytes.len(), is_error))));
            for cut in 0..bytes.len() {
                assert_eq!(decode(&bytes[..cut]), Ok(None), "cut at {cut}");
                assert_eq!(skip(&bytes[..cut]), Ok(None), "cut at {cut}");
            }
        }
    }

    #[test]
    fn an_error_inside_an_array_is_not_an_error_reply() {
        assert_eq!(skip(b"*2\r\n-ERR x\r\n+OK\r\n-next\r\n"), Ok(Some((17, false))));
    }

    #[test]
    fn limits_hold_for_both_readers() {
        let nested = |depth| [b"*1\r\n".repeat(depth), b":1\r\n".to_vec()].concat();
        let long = [b"+".to_vec(), vec![b'a'; LINE_BYTES_MAX + 1]].concat();
        let cases: [(&[u8], ValueError); 9] = [
            (b"GET / HTTP/1.1\r\n", ValueError::Type(b'G')),
            (b"$9223372036854775807\r\n", ValueError::Malformed),
            (b"$536870913\r\n", ValueError::TooLarge),
            (b"*1048577\r\n", ValueError::TooLarge),
            (b"%524289\r\n", ValueError::TooLarge),
            (b"$-2\r\n", ValueError::Malformed),
            (b"$1\r\nabc", ValueError::Malformed),
            (&long, ValueError::TooLarge),
            (&nested(DEPTH_MAX + 1), ValueError::TooDeep),
        ];
        for (bytes, error) in cases {
            assert_eq!(decode(bytes), Err(error));
            assert_eq!(skip(bytes), Err(error));
        }
        let deepest = nested(DEPTH_MAX);
        assert!(matches!(decode(&deepest), Ok(Some((_, length))) if length == deepest.len()));
        assert_eq!(skip(&deepest), Ok(Some((deepest.len(), false))));
    }

    #[test]
    fn a_scan_goes_on_where_it_stopped() {
        let mut bytes = b"*3\r\n".to_vec();
        bytes.extend_from_slice(b"$4\r\nabcd\r\n");
        let mut scan = Scan::default();
        assert_eq!(scan.resume(&bytes), Ok(None));
        assert_eq!(scan.position, bytes.len());
        bytes.extend_from_slice(b":1\r\n:2\r\n+rest");
        assert_eq!(scan.resume(&bytes), Ok(Some((22, false))));
        assert_eq!(scan.resume(b":1\r\n"), Ok(Some((4, false))));
    }

    fn write(value: &Value, out: &mut Vec<u8>) {
        let mut aggregate = |kind: char, count: usize, items: Vec<&Value>| {
            out.extend_from_slice(format!("{kind}{count}\r\n").as_bytes());
            items.into_iter().for_each(|item| write(item, out));
        };
        match value {
            Value::Array(items) => aggregate('*', items.len(), items.iter().collect()),
            Value::Set(items) => aggregate('~', items.len(), items.iter().collect()),
            Value::Push(items) => aggregate('>', items.len(), items.iter().collect()),
            Value::Map(pairs) => aggregate('%', pairs.len(), pairs.iter().flat_map(|(k, v)| [k, v]).collect()),
            Value::Simple(text) => out.extend_from_slice(format!("+{text}\r\n").as_bytes()),
            Value::Error(text) => out.extend_from_slice(format!("-{text}\r\n").as_bytes()),
            Value::Int(number) => out.extend_from_slice(format!(":{number}\r\n").as_bytes()),
            Value::Double(number) => out.extend_from_slice(format!(",{number}\r\n").as_bytes()),
            Value::BigNumber(digits) => out.extend_from_slice(format!("({digits}\r\n").as_bytes()),
            Value::Bool(true) => out.extend_from_slice(b"#t\r\n"),
            Value::Bool(false) => out.extend_from_slice(b"#f\r\n"),
            Value::Null => out.extend_from_slice(b"_\r\n"),
            Value::Bulk(bytes) => {
                out.extend_from_slice(format!("${}\r\n", bytes.len()).as_bytes());
                out.extend_from_slice(bytes);
                out.extend_from_slice(b"\r\n");
            }
            Value::Verbatim(format, bytes) => {
                out.extend_from_slice(format!("={}\r\n{format}:", bytes.len() + 4).as_bytes());
                out.extend_from_slice(bytes);
                out.extend_from_slice(b"\r\n");
            }
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
        let leaf = prop_oneof![
            "[a-zA-Z ]{0,20}".prop_map(Value::Simple),
            "ERR [a-z ]{0,20}".prop_map(Value::Error),
            any::<i64>().prop_map(Value::Int),
            any::<bool>().prop_map(Value::Bool),
            (-1e9..1e9).prop_map(Value::Double),
            "[0-9]{1,40}".prop_map(Value::BigNumber),
            bytes().prop_map(Value::Bulk),
            bytes().prop_map(|text| Value::Verbatim("txt".into(), text)),
            Just(Value::Null),
        ];
        leaf.prop_recursive(6, 64, 6, |inner| {
            let items = || proptest::collection::vec(inner.clone(), 0..6);
            prop_oneof![
                items().prop_map(Value::Array),
                items().prop_map(Value::Set),
                items().prop_map(Value::Push),
                proptest::collection::vec((inner.clone(), inner.clone()), 0..4).prop_map(Value::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_back_and_skipped(value in values(), cuts in proptest::collection::vec(0.0..1.0, 0..5)) {
            let mut bytes = Vec::new();
            write(&value, &mut bytes);
            let length = bytes.len();
            bytes.extend_from_slice(b"+next\r\n");
            let is_error = matches!(value, Value::Error(_));
            prop_assert_eq!(decode(&bytes), Ok(Some((value, length))));
            prop_assert_eq!(skip(&bytes), Ok(Some((length, is_error))));

            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut: f64| (cut * length as f64) as usize).collect();
            cuts.sort_unstable();
            let mut scan = Scan::default();
            for cut in cuts {
                prop_assert_eq!(scan.resume(&bytes[..cut]), Ok(None));
            }
            prop_assert_eq!(scan.resume(&bytes), Ok(Some((length, is_error))));
        }

        #[test]
        fn noise_never_panics_and_both_readers_agree(bytes in noise()) {
            let skipped = skip(&bytes);
            match decode(&bytes) {
                Ok(Some((_, length))) => prop_assert_eq!(skipped.map(|found| found.map(|(end, _)| end)), Ok(Some(length))),
                Ok(None) => prop_assert_eq!(skipped, Ok(None)),
                Err(_) => {}
            }
        }
    }

    /// Random bytes, mostly those that have a meaning in the protocol.
    fn noise() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            proptest::sample::select(b"+-:$*%~>=!_,#(0123456789\r\ntf".to_vec()),
            Just(b'\r'),
            Just(b'\n'),
            any::<u8>()
        ];
        proptest::collection::vec(byte, 0..60)
    }
}
