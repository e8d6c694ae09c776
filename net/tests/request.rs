//! The request parser: the requests that it accepts, those that it refuses, and the error texts. None of this depends
//! on how the bytes were cut into pieces.

use net::resp::request::{RequestError, RequestLimits, RequestParser};
use proptest::prelude::*;
use redis_protocol::resp2::decode::decode_bytes;
use redis_protocol::resp2::types::BytesFrame;

type Requests = Vec<Vec<Vec<u8>>>;

fn small_limits() -> RequestLimits {
    RequestLimits { inline_bytes_max: 64, args_max: 8, arg_bytes_max: 100, request_bytes_max: 300 }
}

/// Feeds `bytes` in pieces of `piece` bytes; returns the requests, and the error or the number of bytes left over.
fn feed(bytes: &[u8], piece: usize, limits: RequestLimits) -> (Requests, Result<usize, RequestError>) {
    let mut parser = RequestParser::new(limits);
    let mut requests = Vec::new();
    let mut start = 0;
    let mut end = 0;
    loop {
        match parser.poll(&bytes[start..end]) {
            Err(error) => return (requests, Err(error)),
            Ok(Some(length)) => {
                assert!(length > 0 && start + length <= end);
                let args = parser.args(&bytes[start..end]).map(<[u8]>::to_vec).collect::<Vec<_>>();
                assert_eq!(args.len(), parser.len());
                requests.push(args);
                start += length;
            }
            Ok(None) if end == bytes.len() => return (requests, Ok(end - start)),
            Ok(None) => {
                assert!(parser.needed() <= limits.request_bytes_max);
                end = (end + piece).min(bytes.len());
            }
        }
    }
}

fn one(bytes: &[u8]) -> Vec<Vec<u8>> {
    let (mut requests, rest) = feed(bytes, usize::MAX / 2, small_limits());
    assert_eq!((requests.len(), rest), (1, Ok(0)), "{:?}", bytes.escape_ascii().to_string());
    requests.remove(0)
}

fn error(bytes: &[u8]) -> RequestError {
    let whole = feed(bytes, usize::MAX / 2, small_limits());
    assert_eq!(whole, feed(bytes, 1, small_limits()), "{}", bytes.escape_ascii());
    whole.1.expect_err("an error")
}

#[test]
fn arrays_of_bulk_strings() {
    assert_eq!(one(b"*1\r\n$4\r\nPING\r\n"), [b"PING"]);
    assert_eq!(one(b"*2\r\n$3\r\nGET\r\n$0\r\n\r\n"), [b"GET".to_vec(), vec![]]);
    assert_eq!(one(b"*2\r\n$4\r\nECHO\r\n$4\r\n\r\n$1\r\n"), [b"ECHO", b"\r\n$1"]);
    let long = [b"*1\r\n$100\r\n".as_slice(), &[b'x'; 100], b"\r\n"].concat();
    assert_eq!(one(&long), [[b'x'; 100]]);
}

#[test]
fn empty_requests() {
    for bytes in [b"\r\n".as_slice(), b"\n", b"  \r\n", b"*0\r\n", b"*-1\r\n", b"*-7\r\n"] {
        assert!(one(bytes).is_empty(), "{}", bytes.escape_ascii());
    }
}

#[test]
fn inline_commands() {
    assert_eq!(one(b"PING\n"), [b"PING"]);
    assert_eq!(one(b"  SET \t key  value \r\n"), [b"SET".as_slice(), b"key", b"value"]);
    assert_eq!(one(b"SET k \"a \\\"b\\\" \\x41\\n\\q\"\r\n"), [b"SET".as_slice(), b"k", b"a \"b\" A\nq"]);
    assert_eq!(one(b"ECHO 'it\\'s \\n'\r\n"), [b"ECHO".as_slice(), b"it's \\n"]);
    assert_eq!(one(b"ECHO pre\"fix\" ''\r\n"), [b"ECHO".as_slice(), b"prefix", b""]);
    assert_eq!(one(b"ECHO \"\\xzz\\a\\b\\t\\r\"\r\n"), [b"ECHO".as_slice(), b"xzz\x07\x08\t\r"]);
}

#[test]
fn a_request_after_quotes_reads_from_the_buffer_again() {
    let (requests, rest) = feed(b"ECHO 'a b'\r\n*2\r\n$4\r\nECHO\r\n$1\r\nc\r\nECHO d\r\n", 3, small_limits());
    assert_eq!(
        requests,
        [[b"ECHO".to_vec(), b"a b".to_vec()], [b"ECHO".to_vec(), b"c".to_vec()], [b"ECHO".to_vec(), b"d".to_vec()]]
    );
    assert_eq!(rest, Ok(0));
}

#[test]
fn lengths_that_are_none() {
    for text in ["", " ", "+5", "05", "-0", "1 ", "x", "9223372036854775808", "-9223372036854775809", "1\rx", "0x1"] {
        let multibulk = format!("*{text}\r\n");
        assert_eq!(error(multibulk.as_bytes()), RequestError::InvalidMultibulkLength, "{text}");
        let bulk = format!("*1\r\n${text}\r\n");
        assert_eq!(error(bulk.as_bytes()), RequestError::InvalidBulkLength, "{text}");
    }
    assert_eq!(error(b"*9\r\n"), RequestError::InvalidMultibulkLength);
    assert_eq!(error(b"*9223372036854775807\r\n"), RequestError::InvalidMultibulkLength);
    assert_eq!(error(b"*1\r\n$-1\r\n"), RequestError::InvalidBulkLength);
    assert_eq!(error(b"*1\r\n$101\r\n"), RequestError::InvalidBulkLength);
    assert_eq!(error(b"*1\r\n$9223372036854775807\r\n"), RequestError::InvalidBulkLength);
    assert_eq!(error(b"*1\r\n$3\r\nabcde"), RequestError::InvalidBulkLength);
    assert_eq!(error(b"*1\r\n$3\r\nabc\rx"), RequestError::InvalidBulkLength);
}

#[test]
fn errors_say_what_redis_says() {
    let nested = error(b"*1\r\n*1\r\n*1\r\n");
    assert_eq!(nested.to_string(), "Protocol error: expected '$', got '*'");
    assert_eq!(error(b"*1\r\n\x00").to_string(), "Protocol error: expected '$', got '\\x00'");
    assert_eq!(error(b"ECHO \"a\r\n").to_string(), "Protocol error: unbalanced quotes in request");
    assert_eq!(error(b"ECHO 'a'b\r\n").to_string(), "Protocol error: unbalanced quotes in request");
    assert_eq!(error(&[b'a'; 66]).to_string(), "Protocol error: too big inline request");
    assert_eq!(error(&[b'*'; 66]).to_string(), "Protocol error: too big mbulk count string");
    let count = [b"*1\r\n$".as_slice(), &[b'1'; 66]].concat();
    assert_eq!(error(&count).to_string(), "Protocol error: too big bulk count string");
    assert_eq!(error(b"*x\r\n").to_string(), "Protocol error: invalid multibulk length");
    assert_eq!(error(b"*1\r\n$x\r\n").to_string(), "Protocol error: invalid bulk length");
}

#[test]
fn a_request_has_a_limit_as_a_whole() {
    let arg = [b"$90\r\n".as_slice(), &[b'x'; 90], b"\r\n"].concat();
    let fits = [b"*3\r\n".as_slice(), &arg, &arg, &arg].concat();
    assert_eq!(one(&fits).len(), 3);
    let too_big = [b"*4\r\n".as_slice(), &arg, &arg, &arg, &arg].concat();
    assert_eq!(error(&too_big), RequestError::TooBigRequest);
}

#[test]
fn browsers_are_recognised() {
    assert_eq!(error(b"POST / HTTP/1.1\r\n"), RequestError::Http);
    let (requests, end) = feed(b"GET / HTTP/1.1\r\nhOST: localhost\r\n", 1000, small_limits());
    assert_eq!((requests.len(), end), (1, Err(RequestError::Http)));
    assert_eq!(one(b"*1\r\n$4\r\nPOST\r\n"), [b"POST"], "only an inline one comes from a browser");
}

#[test]
fn needed_counts_what_an_argument_lacks() {
    let mut parser = RequestParser::new(small_limits());
    assert_eq!((parser.poll(b"*1\r\n$10"), parser.needed()), (Ok(None), 0));
    assert_eq!((parser.poll(b"*1\r\n$10\r\n"), parser.needed()), (Ok(None), 12));
    assert_eq!((parser.poll(b"*1\r\n$10\r\n0123456789\r"), parser.needed()), (Ok(None), 1));
    assert_eq!((parser.poll(b"*1\r\n$10\r\n0123456789\r\n"), parser.needed()), (Ok(Some(21)), 0));
}

fn encode(requests: &Requests) -> Vec<u8> {
    let mut bytes = Vec::new();
    for args in requests {
        bytes.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
        for arg in args {
            bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
            bytes.extend_from_slice(arg);
            bytes.extend_from_slice(b"\r\n");
        }
    }
    bytes
}

/// Parses `bytes` with another parser, which shares no code with the one under test, and returns the requests.
fn oracle(bytes: &[u8]) -> Requests {
    let mut bytes = bytes::Bytes::copy_from_slice(bytes);
    let mut requests = Vec::new();
    while let Some((frame, length)) = decode_bytes(&bytes).expect("valid RESP") {
        let BytesFrame::Array(args) = frame else { panic!("not an array") };
        let args = args.into_iter().map(|arg| match arg {
            BytesFrame::BulkString(bytes) => bytes.to_vec(),
            _ => panic!("not a bulk string"),
        });
        requests.push(args.collect());
        bytes = bytes.slice(length..);
    }
    requests
}

/// Returns bytes that are nearly requests: pieces of the grammar in any order.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop_oneof![
        4 => Just(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n".to_vec()),
        2 => Just(b"SET \"k\\n\" 'v'\r\n".to_vec()),
        1 => Just(b"\r\n".to_vec()),
        1 => Just(b"*".to_vec()),
        1 => Just(b"$".to_vec()),
        1 => Just(b"-1".to_vec()),
        1 => (0..200u32).prop_map(|number| number.to_string().into_bytes()),
        1 => proptest::collection::vec(any::<u8>(), 0..80),
    ];
    proptest::collection::vec(pieces, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn pieces_do_not_matter(bytes in nearly(), piece in 1..40usize) {
        let whole = feed(&bytes, usize::MAX / 2, small_limits());
        prop_assert_eq!(&whole, &feed(&bytes, 1, small_limits()));
        prop_assert_eq!(&whole, &feed(&bytes, piece, small_limits()));
    }

    #[test]
    fn an_independent_parser_agrees(
        requests in proptest::collection::vec(
            proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..6), 0..5),
        piece in 1..500usize,
    ) {
        let bytes = encode(&requests);
        prop_assert_eq!(&oracle(&bytes), &requests);
        let (ours, rest) = feed(&bytes, piece, RequestLimits::default());
        prop_assert_eq!(ours, requests);
        prop_assert_eq!(rest, Ok(0));
    }

    #[test]
    fn any_inline_argument_survives_quoting(arg in proptest::collection::vec(any::<u8>(), 0..12)) {
        let quoted = arg.iter().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
        prop_assert_eq!(one(format!("ECHO \"{quoted}\"\r\n").as_bytes()), [b"ECHO".to_vec(), arg]);
    }
}
