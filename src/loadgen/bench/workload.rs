//! The contents of a load: commands, keys, and their bytes.
//!
//! Requests are copied from templates made once, with the digits of the key, the value and the numbers patched in. A
//! generator that formats or allocates per request would measure itself.

use crate::client::write_command;
use crate::rng::Rng;
use anyhow::{Context, bail, ensure};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Number of digits of every key, behind a prefix of four bytes, as in redis-benchmark.
const KEY_DIGITS: usize = 12;
/// Maximum number of keys that twelve digits can number.
pub const KEYS_MAX: u64 = 1_000_000_000_000;
/// Length of the pool of random bytes, without the length of one value. Values are slices of the pool at different
/// offsets, so that few are alike.
const POOL_BYTES: usize = 1024 * 1024;
/// Number of digits at the start of a value that make it unique.
pub const TAG_BYTES: usize = 16;

/// The kind of load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Workload {
    /// `SET key value`.
    Set,
    /// `GET key`.
    Get,
    /// `GET` with this probability, else `SET`.
    Mixed(f64),
    /// `INCR key`.
    Incr,
    /// `APPEND key value`: values grow without end.
    Append,
    /// `ONCE session number INCR key`: increments that happen once however often they are sent.
    Once,
}

impl Workload {
    /// Returns the kinds of requests in the load.
    #[must_use]
    pub fn kinds(self) -> &'static [RequestKind] {
        match self {
            Workload::Set => &[RequestKind::Set],
            Workload::Get => &[RequestKind::Get],
            Workload::Mixed(_) => &[RequestKind::Get, RequestKind::Set],
            Workload::Incr => &[RequestKind::Incr],
            Workload::Append => &[RequestKind::Append],
            Workload::Once => &[RequestKind::Once],
        }
    }

    /// Returns true if the load makes sense only on existing keys.
    #[must_use]
    pub fn reads(self) -> bool {
        matches!(self, Workload::Get | Workload::Mixed(_))
    }
}

impl FromStr for Workload {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Workload> {
        Ok(match text {
            "set" => Workload::Set,
            "get" => Workload::Get,
            "incr" => Workload::Incr,
            "append" => Workload::Append,
            "once" => Workload::Once,
            _ => {
                let share = text.strip_prefix("mixed:").context("use set, get, mixed:0.5, incr, append or once")?;
                let reads = share.parse().ok().filter(|reads| (0.0..=1.0).contains(reads));
                Workload::Mixed(reads.context("the share of reads is a number from 0 to 1, as in mixed:0.5")?)
            }
        })
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Workload::Set => f.write_str("set"),
            Workload::Get => f.write_str("get"),
            Workload::Mixed(reads) => write!(f, "mixed:{reads}"),
            Workload::Incr => f.write_str("incr"),
            Workload::Append => f.write_str("append"),
            Workload::Once => f.write_str("once"),
        }
    }
}

/// The kind of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// `SET`
    Set,
    /// `GET`
    Get,
    /// `INCR`
    Incr,
    /// `APPEND`
    Append,
    /// `ONCE … INCR`
    Once,
}

impl RequestKind {
    /// Every kind; `kind as usize` is its index here.
    pub const ALL: [RequestKind; 5] =
        [RequestKind::Set, RequestKind::Get, RequestKind::Incr, RequestKind::Append, RequestKind::Once];

    /// Returns the name of the kind in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        ["set", "get", "incr", "append", "once"][self as usize]
    }

    /// Returns the prefix of the keys. Counters and strings have different prefixes, so that no workload fails on the
    /// leftovers of another.
    fn key_prefix(self) -> &'static [u8; 4] {
        match self {
            RequestKind::Set | RequestKind::Get | RequestKind::Append => b"key:",
            RequestKind::Incr | RequestKind::Once => b"ctr:",
        }
    }
}

/// Distribution of the requests over the keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum KeysDist {
    /// Each key equally often.
    Uniform,
    /// Key `i` in proportion to `1 / (i + 1)^theta`, so that key 0 is the hottest. `0 < theta < 1`, as in YCSB.
    Zipf(f64),
}

impl FromStr for KeysDist {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<KeysDist> {
        if text == "uniform" {
            return Ok(KeysDist::Uniform);
        }
        let theta = text.strip_prefix("zipf:").context("use uniform or zipf:0.99")?;
        let Some(theta) = theta.parse().ok().filter(|&theta| 0.0 < theta && theta < 1.0) else {
            bail!("the exponent lies between 0 and 1, as in zipf:0.99");
        };
        Ok(KeysDist::Zipf(theta))
    }
}

impl fmt::Display for KeysDist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeysDist::Uniform => f.write_str("uniform"),
            KeysDist::Zipf(theta) => write!(f, "zipf:{theta}"),
        }
    }
}

/// One request before its encoding. It is kept until its reply, so that it can be sent again elsewhere.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Op {
    /// The kind of request.
    pub kind: RequestKind,
    /// The number of the key.
    pub key: u64,
    /// The start of the value in the pool, or the tag that the value starts with, or the number of a `ONCE`.
    pub argument: u64,
    /// Intended time of sending, in ns since the run began. Latency counts from here.
    pub intended_ns: u64,
    /// Time just before the first sending, plus 1 ns, in ns since the run began; 0 before that.
    pub sent_ns: u64,
    /// Number of earlier attempts.
    pub attempts: u32,
}

/// A source of keys.
#[derive(Clone, Debug)]
pub enum Picker {
    /// Any of this many keys.
    Uniform(u64),
    /// Few keys often.
    Zipf(Zipf),
    /// Keys one after the other, from this one on.
    Sequential(u64),
    /// The keys of this list, from this index on.
    Listed(Arc<[u64]>, usize),
}

impl Picker {
    /// Creates the picker of a distribution over `keys` keys.
    #[must_use]
    pub fn new(dist: KeysDist, keys: u64) -> Picker {
        match dist {
            KeysDist::Uniform => Picker::Uniform(keys),
            KeysDist::Zipf(theta) => Picker::Zipf(Zipf::new(keys, theta)),
        }
    }

    /// Returns the next key.
    pub fn pick(&mut self, rng: &mut Rng) -> u64 {
        match self {
            Picker::Uniform(keys) => rng.below(*keys),
            Picker::Zipf(zipf) => zipf.pick(rng),
            Picker::Sequential(next) => {
                *next += 1;
                *next - 1
            }
            Picker::Listed(keys, next) => {
                *next += 1;
                keys[(*next - 1) % keys.len()]
            }
        }
    }

    /// Skips this many keys, if they come in an order.
    pub fn skip(&mut self, keys: u64) {
        match self {
            Picker::Sequential(next) => *next += keys,
            Picker::Listed(_, next) => *next += keys as usize,
            Picker::Uniform(_) | Picker::Zipf(_) => {}
        }
    }
}

/// Zipf-distributed numbers after Gray et al., "Quickly generating billion-record synthetic databases", as in YCSB.
/// The numbers are not scrambled: the hash from keys to slots spreads the hot keys well enough.
#[derive(Clone, Debug)]
pub struct Zipf {
    items: u64,
    zeta: f64,
    /// Sum of the first two terms of `zeta`. The first two items are picked exactly, the rest by the approximation.
    zeta_2: f64,
    alpha: f64,
    eta: f64,
}

impl Zipf {
    /// Creates a distribution of numbers below `items`, skewed by `0 < theta < 1`.
    #[must_use]
    pub fn new(items: u64, theta: f64) -> Zipf {
        let zeta = zeta(items, theta);
        let zeta_2 = 1.0 + 0.5_f64.powf(theta);
        let eta = (1.0 - (2.0 / items as f64).powf(1.0 - theta)) / (1.0 - zeta_2 / zeta);
        Zipf { items, zeta, zeta_2, alpha: 1.0 / (1.0 - theta), eta }
    }

    fn pick(&self, rng: &mut Rng) -> u64 {
        let unit = rng.unit();
        let share = unit * self.zeta;
        let number = if share < 1.0 {
            0
        } else if share < self.zeta_2 {
            1
        } else {
            (self.items as f64 * (self.eta * unit - self.eta + 1.0).powf(self.alpha)) as u64
        };
        number.min(self.items - 1)
    }
}

/// Returns the sum of `1 / i^theta` for `i` from 1 to `items`. For the terms beyond the first million it takes the
/// integral, corrected by the trapezoid rule. This is exact to nine digits there, and does not take minutes for a
/// billion keys.
fn zeta(items: u64, theta: f64) -> f64 {
    const EXACT: u64 = 1_000_000;
    let head: f64 = (1..=items.min(EXACT)).map(|i| (i as f64).powf(-theta)).sum();
    if items <= EXACT {
        return head;
    }
    let (from, to) = (EXACT as f64, items as f64);
    let integral = (to.powf(1.0 - theta) - from.powf(1.0 - theta)) / (1.0 - theta);
    head + integral + (to.powf(-theta) - from.powf(-theta)) / 2.0
}

/// Encoder of requests.
#[derive(Debug)]
pub struct Requests {
    templates: [Template; RequestKind::ALL.len()],
    value_pool: Vec<u8>,
    value_bytes: usize,
    /// Prefix of all keys of a tagged encoder; see [`Requests::tagged`]. `None`: the prefix depends on the kind.
    run: Option<Vec<u8>>,
}

impl Requests {
    /// Creates an encoder of requests with values of `value_bytes`.
    #[must_use]
    pub fn new(value_bytes: usize, seed: u64) -> Requests {
        // Sixty-four printable bytes: pseudo-random, hard to compress, and harmless to a terminal.
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut rng = Rng::new(seed);
        let value_pool = (0..value_bytes + POOL_BYTES).map(|_| ALPHABET[rng.below(64) as usize]).collect();
        let templates = RequestKind::ALL.map(|kind| Template::new(kind, kind.key_prefix(), value_bytes));
        Requests { templates, value_pool, value_bytes, run: None }
    }

    /// Returns the same encoder, with keys that begin with `run` and values that begin with the digits of
    /// [`Op::argument`]. If no argument repeats, no value does. Values must have [`TAG_BYTES`] or more.
    #[must_use]
    pub fn tagged(self, run: &str) -> Requests {
        let run = run.as_bytes().to_vec();
        let templates = RequestKind::ALL.map(|kind| Template::new(kind, &run, self.value_bytes));
        Requests { templates, run: Some(run), ..self }
    }

    /// Returns a random [`Op::argument`] for a request with a value.
    pub fn argument(rng: &mut Rng) -> u64 {
        rng.below(POOL_BYTES as u64)
    }

    /// Appends the bytes of a request. `session` comes from [`once_prefix`], for `ONCE` only.
    pub fn write(&self, op: &Op, session: &[u8], out: &mut Vec<u8>) {
        if op.kind == RequestKind::Once {
            out.extend_from_slice(session);
            let mut number = itoa::Buffer::new();
            let number = number.format(op.argument).as_bytes();
            let mut length = itoa::Buffer::new();
            for part in [b"$", length.format(number.len()).as_bytes(), b"\r\n", number, b"\r\n"] {
                out.extend_from_slice(part);
            }
        }
        let template = &self.templates[op.kind as usize];
        let start = out.len();
        out.extend_from_slice(&template.bytes);
        write_digits(op.key, &mut out[start + template.key_end - KEY_DIGITS..start + template.key_end]);
        if let Some(at) = template.value_start {
            self.write_value(op.argument, &mut out[start + at..start + at + self.value_bytes]);
        }
    }

    fn write_value(&self, argument: u64, value: &mut [u8]) {
        let from = argument as usize % POOL_BYTES;
        value.copy_from_slice(&self.value_pool[from..from + value.len()]);
        if self.run.is_some() {
            write_digits(argument, &mut value[..TAG_BYTES]);
        }
    }

    /// Returns the value of a request with this argument.
    #[must_use]
    pub fn value(&self, argument: u64) -> Vec<u8> {
        let mut value = vec![0; self.value_bytes];
        self.write_value(argument, &mut value);
        value
    }

    /// Returns the arguments of the requests whose values, one after the other, are `bytes`. None if `bytes` is
    /// anything else.
    #[must_use]
    pub fn arguments_of(&self, bytes: &[u8]) -> Option<Vec<u64>> {
        let argument = |value: &[u8]| {
            let argument = std::str::from_utf8(value.get(..TAG_BYTES)?).ok()?.parse().ok()?;
            (self.value(argument) == value).then_some(argument)
        };
        bytes.chunks(self.value_bytes.max(1)).map(argument).collect()
    }

    /// Writes the bytes of a key to `out`, and replaces its contents.
    pub fn write_key(&self, kind: RequestKind, key: u64, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(self.run.as_deref().unwrap_or(kind.key_prefix()));
        let start = out.len();
        out.resize(start + KEY_DIGITS, 0);
        write_digits(key, &mut out[start..]);
    }
}

/// Returns the start of each `ONCE` of a session: all bytes before the number.
#[must_use]
pub fn once_prefix(session: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    // ONCE, session, number, INCR, key: the template of `RequestKind::Once` continues after the number.
    write_command(&[b"ONCE", session], &mut bytes);
    bytes[1] = b'5';
    bytes
}

/// Parses the number of keys: from 1 to [`KEYS_MAX`], the most that the digits of a key can number.
///
/// # Errors
/// If the text is not such a number.
pub fn parse_keys(text: &str) -> anyhow::Result<u64> {
    let keys = text.parse()?;
    ensure!((1..=KEYS_MAX).contains(&keys), "from 1 to {KEYS_MAX}");
    Ok(keys)
}

#[derive(Debug)]
struct Template {
    bytes: Vec<u8>,
    key_end: usize,
    value_start: Option<usize>,
}

impl Template {
    fn new(kind: RequestKind, key_prefix: &[u8], value_bytes: usize) -> Template {
        let key = [key_prefix, &[b'0'; KEY_DIGITS]].concat();
        let (name, has_value): (&[u8], bool) = match kind {
            RequestKind::Set => (b"SET", true),
            RequestKind::Append => (b"APPEND", true),
            RequestKind::Get => (b"GET", false),
            RequestKind::Incr | RequestKind::Once => (b"INCR", false),
        };
        let mut bytes = Vec::new();
        write_command(&[name, &key], &mut bytes);
        let mut key_end = bytes.len() - 2;
        let mut value_start = None;
        if has_value {
            bytes.clear();
            write_command(&[name, &key, &vec![b'v'; value_bytes]], &mut bytes);
            value_start = Some(bytes.len() - 2 - value_bytes);
        }
        if kind == RequestKind::Once {
            let head = b"*2\r\n".len();
            bytes.drain(..head);
            key_end -= head;
        }
        Template { bytes, key_end, value_start }
    }
}

fn write_digits(mut number: u64, digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use net::resp::value::{Value, decode};

    fn words(bytes: &[u8]) -> Vec<String> {
        let (value, length) = decode(bytes).unwrap().unwrap();
        assert_eq!(length, bytes.len());
        let words = value.as_items().unwrap().iter();
        words.map(|word| String::from_utf8(word.as_bytes().unwrap().to_vec()).unwrap()).collect()
    }

    fn request(kind: RequestKind, key: u64, argument: u64) -> Vec<String> {
        let mut out = Vec::new();
        let op = Op { kind, key, argument, intended_ns: 0, sent_ns: 0, attempts: 0 };
        Requests::new(5, 1).write(&op, &once_prefix(b"s1"), &mut out);
        words(&out)
    }

    #[test]
    fn requests_are_commands() {
        assert_eq!(request(RequestKind::Get, 42, 0), ["GET", "key:000000000042"]);
        assert_eq!(request(RequestKind::Incr, KEYS_MAX - 1, 0), ["INCR", "ctr:999999999999"]);
        assert_eq!(request(RequestKind::Once, 7, 123), ["ONCE", "s1", "123", "INCR", "ctr:000000000007"]);
        let set = request(RequestKind::Set, 3, 9);
        assert_eq!(set[..2], ["SET", "key:000000000003"]);
        assert_eq!(set[2].len(), 5);
        assert_eq!(request(RequestKind::Append, 3, 9)[2], set[2]);
        assert_ne!(request(RequestKind::Set, 3, 10)[2], set[2]);
    }

    #[test]
    fn empty_values_are_possible() {
        let mut out = Vec::new();
        let op = Op {
            kind: RequestKind::Set,
            key: 1,
            argument: POOL_BYTES as u64 - 1,
            intended_ns: 0,
            sent_ns: 0,
            attempts: 0,
        };
        Requests::new(0, 1).write(&op, b"", &mut out);
        assert_eq!(words(&out), ["SET", "key:000000000001", ""]);
        assert!(matches!(decode(&out), Ok(Some((Value::Array(_), _)))));
    }

    #[test]
    fn zipf_is_as_skewed_as_the_formula_says() {
        let (items, theta, picks) = (1000, 0.99, 200_000);
        let zipf = Zipf::new(items, theta);
        let mut rng = Rng::new(1);
        let mut counts = vec![0_u32; items as usize];
        for _ in 0..picks {
            counts[zipf.pick(&mut rng) as usize] += 1;
        }
        let expected = |i: usize| f64::from(picks) * (i as f64 + 1.0).powf(-theta) / zeta(items, theta);
        for i in [0, 1] {
            assert!((f64::from(counts[i]) / expected(i) - 1.0).abs() < 0.05, "{i}: {} of {}", counts[i], expected(i));
        }
        // The approximation trades exactness of single items for speed; their sums are right.
        let (top, top_expected): (f64, f64) = (0..100)
            .map(|i| (f64::from(counts[i]), expected(i)))
            .fold((0.0, 0.0), |(count, sum), (c, e)| (count + c, sum + e));
        assert!((top / top_expected - 1.0).abs() < 0.05, "{top} of {top_expected}");
        assert!(counts[999] < counts[0] / 100);
    }

    #[test]
    fn small_and_large_zipf_ranges_work() {
        let mut rng = Rng::new(1);
        for items in [1, 2, 3] {
            let zipf = Zipf::new(items, 0.5);
            assert!((0..1000).all(|_| zipf.pick(&mut rng) < items));
        }
        let exact: f64 = (1..=3_000_000_u64).map(|i| (i as f64).powf(-0.99)).sum();
        assert!((zeta(3_000_000, 0.99) / exact - 1.0).abs() < 1e-9);
    }

    #[test]
    fn uniform_keys_reach_all_and_sequential_ones_come_in_order() {
        let mut rng = Rng::new(1);
        let mut uniform = Picker::new(KeysDist::Uniform, 4);
        let mut seen = [false; 4];
        (0..100).for_each(|_| seen[uniform.pick(&mut rng) as usize] = true);
        assert_eq!(seen, [true; 4]);
        let mut sequential = Picker::Sequential(5);
        assert_eq!([sequential.pick(&mut rng), sequential.pick(&mut rng)], [5, 6]);
    }

    #[test]
    fn words_of_the_command_line_are_understood() {
        for text in ["set", "get", "mixed:0.5", "incr", "append", "once"] {
            assert_eq!(text.parse::<Workload>().unwrap().to_string(), text);
        }
        for text in ["uniform", "zipf:0.99"] {
            assert_eq!(text.parse::<KeysDist>().unwrap().to_string(), text);
        }
        for text in ["mixed", "mixed:2", "mixed:NaN", "mixed:", "SET", ""] {
            assert!(text.parse::<Workload>().is_err(), "{text}");
        }
        for text in ["zipf", "zipf:1", "zipf:0", "zipf:-1", "zipf:NaN"] {
            assert!(text.parse::<KeysDist>().is_err(), "{text}");
        }
        assert!(parse_keys("0").is_err() && parse_keys("1000000000001").is_err() && parse_keys("7").is_ok());
    }
}
