//! Compares the request parser with that of `redis_protocol`, which shares no code with it. The inputs are pipelines of
//! requests, sound or damaged. This parser gets them in pieces, cut at random places. Both parsers must accept the same
//! requests with the same arguments.
//!
//! Where the two may differ, this parser does as Redis does:
//!
//! - Lengths are canonical: `*+1`, `$03` and `$-0` are refused. `redis_protocol` accepts them.
//! - Any negative number of arguments makes an empty request. `redis_protocol` knows only `*-1`, as "no array".
//! - A line that does not begin with `*` is an inline command. To `redis_protocol` it is another type, or invalid.
//! - A wrong length, or a wrong first byte of an argument, is refused as soon as it arrives. `redis_protocol` may wait
//!   for the rest of the array.
//! - Arguments are bulk strings. `redis_protocol` accepts any type, also `$-1`: this test counts that as refused.
//! - In one point this parser is stricter than Redis and `redis_protocol`. Both skip the two bytes after an argument
//!   without checking them, and Redis also skips the byte after the `\r` of a line. This parser requires the right line
//!   ends: otherwise lost or added bytes would produce other arguments.

use bytes::Bytes;
use net::resp::request::{RequestLimits, RequestParser};
use proptest::collection::vec;
use proptest::prelude::*;
use redis_protocol::resp2::decode::decode_bytes;
use redis_protocol::resp2::types::BytesFrame;

/// The result of parsing the bytes at the start of a request.
#[derive(Debug, PartialEq, Eq)]
enum Read {
    /// A complete request: its length in bytes, and its arguments.
    Request(usize, Vec<Vec<u8>>),
    /// More bytes are needed.
    Unfinished,
    Refused,
}

/// The result of this parser for the request at the start of `bytes`. The parser gets the bytes up to each of `cuts`,
/// and then all of them.
fn ours(bytes: &[u8], cuts: &[usize]) -> Read {
    let mut parser = RequestParser::new(RequestLimits::default());
    let inner = cuts.iter().copied().filter(|cut| *cut < bytes.len());
    for end in inner.chain([bytes.len()]) {
        match parser.poll(&bytes[..end]) {
            Ok(None) => {}
            Ok(Some(length)) => return Read::Request(length, parser.args(bytes).map(<[u8]>::to_vec).collect()),
            Err(_) => return Read::Refused,
        }
    }
    Read::Unfinished
}

fn theirs(bytes: &[u8]) -> Read {
    let (frame, length) = match decode_bytes(&Bytes::copy_from_slice(bytes)) {
        Ok(Some(found)) => found,
        Ok(None) => return Read::Unfinished,
        Err(_) => return Read::Refused,
    };
    let BytesFrame::Array(items) = frame else { return Read::Refused };
    let bulk = |item| match item {
        BytesFrame::BulkString(bytes) => Some(bytes.to_vec()),
        _ => None,
    };
    items.into_iter().map(bulk).collect::<Option<_>>().map_or(Read::Refused, |args| Read::Request(length, args))
}

/// Compares all requests in `bytes`. Returns the number of arrays that both parsers accepted, and true if both refused
/// the bytes after those.
fn compare(bytes: &[u8], cuts: &[usize]) -> (usize, bool) {
    let (mut start, mut agreed) = (0, 0);
    loop {
        let rest = &bytes[start..];
        let shifted: Vec<usize> = cuts.iter().filter_map(|cut| cut.checked_sub(start)).collect();
        let (ours, theirs) = (ours(rest, &shifted), theirs(rest));
        let array = rest.first() == Some(&b'*');
        match (&ours, &theirs) {
            // `redis_protocol` does not accept such requests.
            (Read::Request(length, _), _) if !array || rest.starts_with(b"*-") => start += length,
            (_, _) if !array => return (agreed, false),
            (Read::Refused, Read::Request(length, args)) => {
                assert_ne!(encode(args), &rest[..*length], "refused a sound request");
                return (agreed, false);
            }
            (Read::Refused, Read::Refused | Read::Unfinished) => return (agreed, theirs == Read::Refused),
            (Read::Request(length, _), _) | (_, Read::Request(length, _)) => {
                assert_eq!(ours, theirs, "{}", rest.escape_ascii());
                start += length;
                agreed += 1;
            }
            (Read::Unfinished, Read::Unfinished | Read::Refused) => {
                assert_eq!(ours, theirs, "{}", rest.escape_ascii());
                return (agreed, false);
            }
        }
    }
}

fn encode(args: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        bytes.extend_from_slice(arg);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// Pipelines of requests. Some arguments look like framing.
fn pipelines() -> impl Strategy<Value = Vec<Vec<Vec<u8>>>> {
    let arg = prop_oneof![
        4 => vec(any::<u8>(), 0..40),
        1 => Just(b"\r\n".to_vec()),
        1 => Just(b"*1\r\n$1\r\nx\r\n".to_vec()),
        1 => vec(any::<u8>(), 200..400),
    ];
    vec(vec(arg, 0..5), 1..6)
}

/// Damages: where (as a fraction of the length), how (0: a byte is lost, 1: added, 2: replaced), and the byte that is
/// added or put in.
fn damages() -> impl Strategy<Value = Vec<(f64, u8, u8)>> {
    let byte = prop_oneof![3 => prop::sample::select(b"*$+-:0139\r\n ".to_vec()), 1 => any::<u8>()];
    vec((0.0..1.0, 0..3u8, byte), 1..4)
}

fn damage(bytes: &mut Vec<u8>, damages: &[(f64, u8, u8)]) {
    for (place, how, byte) in damages {
        let at = (bytes.len() as f64 * place) as usize;
        match how {
            0 => drop(bytes.remove(at)),
            1 => bytes.insert(at, *byte),
            _ => bytes[at] = *byte,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn sound_pipelines_are_taken_by_both(requests in pipelines(), mut cuts in vec(0..2_000usize, 0..8)) {
        cuts.sort_unstable();
        let bytes: Vec<u8> = requests.iter().flat_map(|args| encode(args)).collect();
        prop_assert_eq!(compare(&bytes, &cuts).0, requests.len());
        for (index, args) in requests.iter().enumerate() {
            let before: usize = requests[..index].iter().map(|args| encode(args).len()).sum();
            prop_assert_eq!(ours(&bytes[before..], &cuts), Read::Request(encode(args).len(), args.clone()));
        }
    }

    #[test]
    fn damaged_pipelines_are_taken_as_far_by_both(
        requests in pipelines(), damages in damages(), mut cuts in vec(0..2_000usize, 0..8),
    ) {
        cuts.sort_unstable();
        let mut bytes: Vec<u8> = requests.iter().flat_map(|args| encode(args)).collect();
        damage(&mut bytes, &damages);
        compare(&bytes, &cuts);
    }
}

#[test]
fn the_exceptions_are_what_they_are_said_to_be() {
    for text in ["*+1\r\n$1\r\nx\r\n", "*01\r\n$1\r\nx\r\n", "*1\r\n$01\r\nx\r\n", "*1\r\n$-0\r\n\r\n"] {
        assert_eq!(ours(text.as_bytes(), &[]), Read::Refused, "{text:?}");
        assert!(matches!(theirs(text.as_bytes()), Read::Request(..)), "{text:?}");
    }
    for text in ["*-1\r\n", "*-7\r\n", "PING\r\n"] {
        assert!(matches!(ours(text.as_bytes(), &[]), Read::Request(..)), "{text:?}");
        assert_eq!(theirs(text.as_bytes()), Read::Refused, "{text:?}");
    }
    for text in ["*2\r\n:1\r\n", "*2\r\n$-1\r\n", "*2\r\n$x"] {
        let whole = format!("{text}\r\n");
        assert_eq!(ours(whole.as_bytes(), &[]), Read::Refused, "{text:?}");
    }
    assert_eq!(compare(b"*1\r\n$1\r\nx\r\n*1\r\n:5\r\n", &[]), (1, true));
}
