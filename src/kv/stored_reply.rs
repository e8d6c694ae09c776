//! The stored reply codec: the bytes in which a session keeps the first reply to a command, to give it again, and in
//! which nodes pass replies on.
//!
//! ```text
//! tag u8 | integers i64, bytes behind a u32 length, lists behind a u32 count; little-endian
//! ```

use super::reader::{DecodeError, Reader};
use super::reply::Reply;
use std::borrow::Cow;

mod tag {
    pub(super) const OK: u8 = 0;
    pub(super) const SIMPLE: u8 = 1;
    pub(super) const INT: u8 = 2;
    pub(super) const BULK: u8 = 3;
    pub(super) const TEXT: u8 = 4;
    pub(super) const NULL: u8 = 5;
    pub(super) const NULL_ARRAY: u8 = 6;
    pub(super) const ARRAY: u8 = 7;
    pub(super) const MAP: u8 = 8;
    pub(super) const SET: u8 = 9;
    pub(super) const ERROR: u8 = 10;
}

/// Appends `reply` to `out`.
pub(crate) fn pack(reply: &Reply<'_>, out: &mut Vec<u8>) {
    match reply {
        Reply::Ok => out.push(tag::OK),
        Reply::Simple(text) => pack_bytes(tag::SIMPLE, text.as_bytes(), out),
        Reply::Int(number) => {
            out.push(tag::INT);
            out.extend_from_slice(&number.to_le_bytes());
        }
        Reply::Bulk(bytes) => pack_bytes(tag::BULK, bytes, out),
        Reply::Long(value) => {
            out.push(tag::BULK);
            out.extend_from_slice(&(value.len() as u32).to_le_bytes());
            value.slices().for_each(|slice| out.extend_from_slice(slice));
        }
        Reply::Text(text) => pack_bytes(tag::TEXT, text.as_bytes(), out),
        Reply::Status(text) => pack_bytes(tag::TEXT, text.as_bytes(), out),
        Reply::Null => out.push(tag::NULL),
        Reply::NullArray => out.push(tag::NULL_ARRAY),
        Reply::Array(items) => pack_list(tag::ARRAY, items, out),
        Reply::Strings(strings) => {
            out.push(tag::ARRAY);
            out.extend_from_slice(&(strings.len() as u32).to_le_bytes());
            strings.iter().for_each(|string| pack_bytes(tag::BULK, string, out));
        }
        Reply::Set(items) => pack_list(tag::SET, items, out),
        Reply::Map(pairs) => {
            out.push(tag::MAP);
            out.extend_from_slice(&(pairs.len() as u32).to_le_bytes());
            for (key, value) in pairs {
                pack(key, out);
                pack(value, out);
            }
        }
        Reply::Error(text) => pack_bytes(tag::ERROR, text.as_bytes(), out),
    }
}

/// Returns the reply that `bytes` hold.
///
/// # Errors
/// If `bytes` are anything but one packed reply.
pub(crate) fn unpack(bytes: &[u8]) -> Result<Reply<'_>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let reply = unpack_at(&mut reader, DEPTH_MAX)?;
    reader.finish()?;
    Ok(reply)
}

fn unpack_at<'a>(reader: &mut Reader<'a>, depth: u32) -> Result<Reply<'a>, DecodeError> {
    let deeper = depth.checked_sub(1).ok_or(DecodeError::BadValue)?;
    Ok(match reader.u8()? {
        tag::OK => Reply::Ok,
        tag::SIMPLE => {
            let text = reader.bytes()?;
            let known = STATUSES.iter().find(|status| status.as_bytes() == text);
            Reply::Simple(known.ok_or(DecodeError::BadValue)?)
        }
        tag::INT => Reply::Int(reader.i64()?),
        tag::BULK => Reply::bulk(reader.bytes()?),
        tag::TEXT => Reply::Text(Cow::Borrowed(text(reader)?)),
        tag::NULL => Reply::Null,
        tag::NULL_ARRAY => Reply::NullArray,
        tag::ARRAY => Reply::Array(unpack_list(reader, deeper)?),
        tag::SET => Reply::Set(unpack_list(reader, deeper)?),
        tag::MAP => {
            let count = reader.u32()?;
            let pair = |_| Ok((unpack_at(reader, deeper)?, unpack_at(reader, deeper)?));
            Reply::Map((0..count).map(pair).collect::<Result<_, _>>()?)
        }
        tag::ERROR => Reply::Error(Cow::Owned(text(reader)?.to_owned())),
        _ => return Err(DecodeError::UnknownOp),
    })
}

fn unpack_list<'a>(reader: &mut Reader<'a>, depth: u32) -> Result<Vec<Reply<'a>>, DecodeError> {
    let count = reader.u32()?;
    (0..count).map(|_| unpack_at(reader, depth)).collect()
}

fn text<'a>(reader: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    std::str::from_utf8(reader.bytes()?).map_err(|_| DecodeError::BadValue)
}

fn pack_bytes(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn pack_list(tag: u8, items: &[Reply<'_>], out: &mut Vec<u8>) {
    out.push(tag);
    out.extend_from_slice(&(items.len() as u32).to_le_bytes());
    items.iter().for_each(|item| pack(item, out));
}

/// All statuses that the store answers, except OK.
const STATUSES: [&str; 3] = ["PONG", "string", "none"];

/// Maximum depth of lists in lists. The store's replies have up to three levels: SCAN in EXEC.
const DEPTH_MAX: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_comes_back_as_it_was() {
        let list = vec![Reply::Null, Reply::NullArray, Reply::bulk(b"\0\xff"), Reply::error("ERR x")];
        for reply in [
            Reply::Ok,
            Reply::Simple("PONG"),
            Reply::Simple("none"),
            Reply::Int(i64::MIN),
            Reply::Text("text".into()),
            Reply::Array(vec![Reply::text("0"), Reply::Array(list.clone())]),
            Reply::Set(list),
            Reply::Map(vec![(Reply::text("a"), Reply::Int(1)), (Reply::text("b"), Reply::Array(vec![]))]),
        ] {
            let mut bytes = Vec::new();
            pack(&reply, &mut bytes);
            assert_eq!(unpack(&bytes), Ok(reply));
            assert_eq!(unpack(&bytes[..bytes.len() - 1]), Err(DecodeError::Truncated));
            bytes.push(0);
            assert_eq!(unpack(&bytes), Err(DecodeError::Trailing));
        }
    }

    #[test]
    fn deep_or_endless_lists_end() {
        let nested = [tag::ARRAY, 1, 0, 0, 0].repeat(100_000);
        assert_eq!(unpack(&nested), Err(DecodeError::BadValue));
        assert_eq!(unpack(&[tag::ARRAY, 255, 255, 255, 255, tag::OK]), Err(DecodeError::Truncated));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_unpack_or_fail(bytes: Vec<u8>) {
            let _ = unpack(&bytes);
        }
    }
}
