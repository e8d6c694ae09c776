//! The request parser. The requests and the error that it finds in a stream do not depend on how the stream is cut into
//! pieces. No request exceeds the limits.

use super::choice;
use net::resp::request::{RequestError, RequestLimits, RequestParser};

type Requests = Vec<Vec<Vec<u8>>>;

/// Runs one input: the first byte chooses the size of the pieces and the limits.
pub fn run(mut data: &[u8]) {
    let chosen = choice(&mut data);
    let limits = if chosen & 0x80 == 0 {
        RequestLimits { inline_bytes_max: 64, args_max: 8, arg_bytes_max: 100, request_bytes_max: 300 }
    } else {
        RequestLimits::default()
    };
    let whole = feed(data, data.len().max(1), limits);
    assert_eq!(whole, feed(data, usize::from(chosen & 0x7f) + 1, limits), "the size of the pieces matters");
    assert_eq!(whole, feed(data, 1, limits), "the result differs for single bytes");
}

/// Parses bytes that come in pieces. Returns the requests, and the error or the number of bytes left over.
fn feed(bytes: &[u8], piece: usize, limits: RequestLimits) -> (Requests, Result<usize, RequestError>) {
    let mut parser = RequestParser::new(limits);
    let mut requests = Requests::new();
    let (mut start, mut end) = (0, 0);
    loop {
        match parser.poll(&bytes[start..end]) {
            Err(error) => {
                assert!(!error.to_string().contains(['\r', '\n']), "the error does not fit a reply: {error}");
                return (requests, Err(error));
            }
            Ok(Some(length)) => {
                assert!(length > 0 && length <= end - start, "a request is empty, or longer than the bytes");
                assert!(parser.len() <= limits.args_max.max(limits.inline_bytes_max), "too many arguments");
                requests.push(parser.args(&bytes[start..end]).map(<[u8]>::to_vec).collect());
                start += length;
            }
            Ok(None) if end == bytes.len() => {
                assert!(end - start <= limits.request_bytes_max, "buffers more bytes than a request may have");
                return (requests, Ok(end - start));
            }
            Ok(None) => {
                assert!(parser.needed() <= limits.request_bytes_max, "asks for more bytes than a request may have");
                end = (end + piece).min(bytes.len());
            }
        }
    }
}
