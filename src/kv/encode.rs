//! The one encoding of a command: what the log, the peers and every replica see.
//!
//! ```text
//! machine u8 | op u8 | arguments: numbers little-endian, bytes behind a u32 length, lists behind a u32 count
//! ```
//!
//! The machine is 1 for a command that readers of all versions of values know. It is 3 ([`MACHINE_OF_VERSION_3`]) for a
//! command that needs readers of version 3, and for a command that holds such a command. A value with a command of
//! machine 3 has at least version 3. The same goes for machine 4 ([`MACHINE_OF_VERSION_4`]) and version 4.
//!
//! A command is encoded once, from the client's buffer. Op numbers never change meaning. Whatever bytes arrive,
//! decoding does not panic, trusts no length before it has seen the bytes, and accepts only one encoding of each
//! command.

use super::command::{
    Aspect, BadExpiry, Command, Constant, ExpireIf, Lifetime, Once, Pair, Scan, Set, SetAnswer, SetExpiry, SetIf, When,
};
use super::encoding::Encoding;
use super::long_double;
use super::number;
use super::reader::Reader;
use super::session::SessionId;
use super::uploads::{Complete, UploadId, UploadPart, UploadedSet};
use crate::routing::SLOTS;
use bytes::{BufMut, Bytes, BytesMut};
use groups::{MACHINE_OF_VERSION_3, MACHINE_OF_VERSION_4, Ms};

pub use super::reader::DecodeError;

/// The number of the state machine that these commands are for: the key/value store.
pub const MACHINE: u8 = 1;

/// The op numbers. Numbers are never used again.
mod op {
    pub(super) const NOOP: u8 = 0;
    pub(super) const CONSTANT: u8 = 1;
    pub(super) const GET: u8 = 2;
    pub(super) const SET: u8 = 3;
    pub(super) const INCR_BY: u8 = 4;
    pub(super) const MGET: u8 = 5;
    pub(super) const STRLEN: u8 = 6;
    pub(super) const GET_RANGE: u8 = 7;
    pub(super) const EXISTS: u8 = 8;
    pub(super) const TYPE: u8 = 9;
    pub(super) const TTL: u8 = 10;
    pub(super) const OBJECT: u8 = 11;
    pub(super) const SCAN: u8 = 12;
    pub(super) const KEYS: u8 = 13;
    pub(super) const DB_SIZE: u8 = 14;
    pub(super) const RANDOM_KEY: u8 = 15;
    pub(super) const COUNT_KEYS_IN_SLOT: u8 = 16;
    pub(super) const KEYS_IN_SLOT: u8 = 17;
    pub(super) const GET_DEL: u8 = 18;
    pub(super) const GET_EX: u8 = 19;
    pub(super) const MSET: u8 = 20;
    pub(super) const MSET_NX: u8 = 21;
    pub(super) const APPEND: u8 = 22;
    pub(super) const SET_RANGE: u8 = 23;
    pub(super) const INCR_BY_FLOAT: u8 = 24;
    pub(super) const DEL: u8 = 25;
    pub(super) const EXPIRE_AT: u8 = 26;
    pub(super) const PERSIST: u8 = 27;
    pub(super) const RENAME: u8 = 28;
    pub(super) const COPY: u8 = 29;
    pub(super) const FLUSH: u8 = 30;
    pub(super) const SESSION_NEW: u8 = 31;
    pub(super) const ONCE: u8 = 32;
    pub(super) const EXEC: u8 = 33;
    pub(super) const EXPIRE_AFTER: u8 = 34;
    pub(super) const INCR_BY_LONG_DOUBLE: u8 = 35;
    pub(super) const GET_EX_REFUSED: u8 = 36;
    pub(super) const UPLOAD_PART: u8 = 37;
    pub(super) const UPLOAD_COMPLETE: u8 = 38;
    pub(super) const UPLOAD_ABORT: u8 = 39;
}

/// Appends the encoding of `command` to `out`.
pub fn encode(command: &Command<'_>, out: &mut BytesMut) {
    let mut encoding = Encoding::new(std::mem::take(out), None);
    encode_at(command, &mut encoding);
    *out = encoding.finish();
}

/// Encodes a command whose words are slices of `request`, in pieces: long words are not copied.
#[must_use]
pub fn encode_shared(command: &Command<'_>, request: &Bytes) -> Vec<Bytes> {
    let mut encoding = Encoding::new(BytesMut::new(), Some(request));
    encode_at(command, &mut encoding);
    encoding.pieces()
}

fn encode_at(command: &Command<'_>, out: &mut Encoding<'_>) {
    let start = out.len();
    encode_first(command, out);
    match command.value_version() {
        3 => out[start] = MACHINE_OF_VERSION_3,
        4 => out[start] = MACHINE_OF_VERSION_4,
        _ => {}
    }
}

/// Encodes a command under [`MACHINE`], which all versions know. [`encode_at`] then replaces the machine if the command
/// needs a later version.
fn encode_first(command: &Command<'_>, out: &mut Encoding<'_>) {
    use Command as C;
    match command {
        C::Noop => head(op::NOOP, out),
        C::Constant(constant) => encode_constant(constant, out),
        C::Get(key) => one(op::GET, key, out),
        C::Set(set) => encode_set(set, out),
        C::IncrBy(key, by) => {
            one(op::INCR_BY, key, out);
            out.put_i64_le(*by);
        }
        C::MGet(keys) => many(op::MGET, keys, out),
        C::StrLen(key) => one(op::STRLEN, key, out),
        C::GetRange(key, start, end) => {
            one(op::GET_RANGE, key, out);
            out.put_i64_le(*start);
            out.put_i64_le(*end);
        }
        C::Exists(keys) => many(op::EXISTS, keys, out),
        C::Type(key) => one(op::TYPE, key, out),
        C::Ttl(key, lifetime) => {
            one(op::TTL, key, out);
            out.put_u8(*lifetime as u8);
        }
        C::Object(key, aspect) => {
            one(op::OBJECT, key, out);
            out.put_u8(*aspect as u8);
        }
        C::Scan(scan) => encode_scan(scan, out),
        C::Keys(pattern) => one(op::KEYS, pattern, out),
        C::DbSize => head(op::DB_SIZE, out),
        C::RandomKey(seed) => {
            head(op::RANDOM_KEY, out);
            out.put_u64_le(*seed);
        }
        C::CountKeysInSlot(slot) => {
            head(op::COUNT_KEYS_IN_SLOT, out);
            out.put_u16_le(*slot);
        }
        C::KeysInSlot(slot, count) => {
            head(op::KEYS_IN_SLOT, out);
            out.put_u16_le(*slot);
            out.put_u32_le(*count);
        }
        C::SessionNew => head(op::SESSION_NEW, out),
        C::Once(once) => encode_once(once, out),
        C::Exec(commands) => encode_exec(commands, out),
        write => encode_write(write, out),
    }
}

/// Encodes the remaining commands: the writes that are not frequent and hold no other commands, and GETEX with an
/// invalid expiry.
fn encode_write(command: &Command<'_>, out: &mut Encoding<'_>) {
    use Command as C;
    match command {
        C::GetDel(key) => one(op::GET_DEL, key, out),
        C::GetEx(key, at) => {
            one(op::GET_EX, key, out);
            match at {
                None => out.put_u8(0),
                Some(When::At(ms)) => numbered(1, ms.0, out),
                Some(When::After(ms)) => numbered(2, ms.0, out),
            }
        }
        C::MSet(pairs) => encode_pairs(op::MSET, pairs, out),
        C::MSetNx(pairs) => encode_pairs(op::MSET_NX, pairs, out),
        C::Append(key, value) => two(op::APPEND, key, value, out),
        C::SetRange(key, offset, value) => {
            two(op::SET_RANGE, key, value, out);
            out.put_u64_le(*offset);
        }
        C::IncrByFloat(key, by) => two(op::INCR_BY_FLOAT, key, by, out),
        C::IncrByLongDouble(key, by) => two(op::INCR_BY_LONG_DOUBLE, key, by, out),
        C::GetExRefused(key, why) => {
            one(op::GET_EX_REFUSED, key, out);
            out.put_u8(*why as u8);
        }
        C::Del(keys) => many(op::DEL, keys, out),
        C::Expire(key, when, only_if) => {
            let (op, ms) = match when {
                When::At(ms) => (op::EXPIRE_AT, ms),
                When::After(ms) => (op::EXPIRE_AFTER, ms),
            };
            one(op, key, out);
            out.put_u64_le(ms.0);
            let bits = [only_if.missing, only_if.present, only_if.later, only_if.sooner];
            out.put_u8(bits.iter().rev().fold(0, |byte, &bit| byte << 1 | u8::from(bit)));
        }
        C::Persist(key) => one(op::PERSIST, key, out),
        C::Rename { from, to, only_new } => {
            two(op::RENAME, from, to, out);
            out.put_u8(u8::from(*only_new));
        }
        C::Copy { from, to, replace } => {
            two(op::COPY, from, to, out);
            out.put_u8(u8::from(*replace));
        }
        C::Flush => head(op::FLUSH, out),
        C::UploadPart(part) => {
            upload(op::UPLOAD_PART, part.upload, out);
            out.put_u64_le(part.total);
            out.put_u64_le(part.offset);
            put_bytes(part.bytes, out);
        }
        C::UploadComplete(complete) => {
            upload(op::UPLOAD_COMPLETE, complete.upload, out);
            out.put_u64_le(complete.total);
            out.put_u32_le(complete.crc);
            out.put_u32_le(complete.set.as_ref().map_or(0, |uploaded| uploaded.key_bytes + 1));
            complete.set.iter().for_each(|uploaded| encode_set(&uploaded.set, out));
        }
        C::UploadAbort(id) => upload(op::UPLOAD_ABORT, *id, out),
        other => unreachable!("{other:?} is encoded above"),
    }
}

/// Decodes the command whose encoding is the whole of `body`.
///
/// # Errors
/// If `body` is not exactly one command.
pub fn decode(body: &[u8]) -> Result<Command<'_>, DecodeError> {
    decode_at(body, true)
}

/// Maximum length of a key that [`first_key`] returns, in bytes: to hash a longer one costs more than it saves.
const FIRST_KEY_BYTES_MAX: usize = 256;

/// Returns the first key of the commands that are sent most often; `None` for all others, for long keys and for
/// malformed bodies.
pub(super) fn first_key(body: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader::new(body.get(1..)?);
    match reader.u8().ok()? {
        op::GET | op::INCR_BY | op::STRLEN | op::GET_RANGE | op::TTL | op::GET_DEL | op::PERSIST => {}
        op::SET => {
            let has_time = reader.u8().ok()? >> 4 >= 2;
            if has_time {
                reader.u64().ok()?;
            }
        }
        _ => return None,
    }
    reader.bytes().ok().filter(|key| key.len() <= FIRST_KEY_BYTES_MAX)
}

/// Decodes a command. ONCE, EXEC, SESSION NEW and uploads may stand here only if it is `outermost`.
fn decode_at(body: &[u8], outermost: bool) -> Result<Command<'_>, DecodeError> {
    let mut reader = Reader::new(body);
    let version = match reader.u8()? {
        MACHINE => 1,
        MACHINE_OF_VERSION_3 => 3,
        MACHINE_OF_VERSION_4 if outermost => 4,
        _ => return Err(DecodeError::OtherMachine),
    };
    let command = match reader.u8()? {
        op::GET => Command::Get(reader.bytes()?),
        op::SET => Command::Set(decode_set(&mut reader)?),
        op::INCR_BY => Command::IncrBy(reader.bytes()?, reader.i64()?),
        op::SESSION_NEW | op::ONCE | op::EXEC if !outermost => return Err(DecodeError::Nested),
        op::SESSION_NEW => Command::SessionNew,
        op::ONCE => decode_once(&mut reader)?,
        op::EXEC => Command::Exec(reader.list(|item| decode_at(item.bytes()?, false))?),
        op @ (op::NOOP..=op::KEYS_IN_SLOT) => decode_read(op, &mut reader)?,
        op => decode_write(op, &mut reader)?,
    };
    reader.finish()?;
    if command.value_version() != version {
        return Err(DecodeError::BadValue);
    }
    Ok(command)
}

fn decode_read<'a>(op: u8, reader: &mut Reader<'a>) -> Result<Command<'a>, DecodeError> {
    Ok(match op {
        op::NOOP => Command::Noop,
        op::CONSTANT => Command::Constant(decode_constant(reader)?),
        op::MGET => Command::MGet(reader.list(Reader::bytes)?),
        op::STRLEN => Command::StrLen(reader.bytes()?),
        op::GET_RANGE => Command::GetRange(reader.bytes()?, reader.i64()?, reader.i64()?),
        op::EXISTS => Command::Exists(reader.list(Reader::bytes)?),
        op::TYPE => Command::Type(reader.bytes()?),
        op::TTL => Command::Ttl(reader.bytes()?, reader.choice(&LIFETIMES)?),
        op::OBJECT => Command::Object(reader.bytes()?, reader.choice(&ASPECTS)?),
        op::SCAN => Command::Scan(decode_scan(reader)?),
        op::KEYS => Command::Keys(reader.bytes()?),
        op::DB_SIZE => Command::DbSize,
        op::RANDOM_KEY => Command::RandomKey(reader.u64()?),
        op::COUNT_KEYS_IN_SLOT => Command::CountKeysInSlot(slot(reader)?),
        op::KEYS_IN_SLOT => Command::KeysInSlot(slot(reader)?, reader.u32()?),
        _ => return Err(DecodeError::UnknownOp),
    })
}

fn decode_write<'a>(op: u8, reader: &mut Reader<'a>) -> Result<Command<'a>, DecodeError> {
    Ok(match op {
        op::GET_DEL => Command::GetDel(reader.bytes()?),
        op::GET_EX => {
            let key = reader.bytes()?;
            Command::GetEx(
                key,
                match reader.u8()? {
                    0 => None,
                    1 => Some(When::At(Ms(reader.u64()?))),
                    2 => Some(When::After(duration(reader)?)),
                    _ => return Err(DecodeError::BadValue),
                },
            )
        }
        op::MSET => Command::MSet(reader.list(decode_pair)?),
        op::MSET_NX => Command::MSetNx(reader.list(decode_pair)?),
        op::APPEND => Command::Append(reader.bytes()?, reader.bytes()?),
        op::SET_RANGE => {
            let (key, value) = decode_pair(reader)?;
            Command::SetRange(key, reader.u64()?, value)
        }
        op::INCR_BY_FLOAT => {
            let (key, by) = decode_pair(reader)?;
            if !number::is_float(by) {
                return Err(DecodeError::BadValue);
            }
            Command::IncrByFloat(key, by)
        }
        op::INCR_BY_LONG_DOUBLE => {
            let (key, by) = decode_pair(reader)?;
            if !long_double::is_number(by) {
                return Err(DecodeError::BadValue);
            }
            Command::IncrByLongDouble(key, by)
        }
        op::GET_EX_REFUSED => Command::GetExRefused(reader.bytes()?, reader.choice(&BAD_EXPIRIES)?),
        op::DEL => Command::Del(reader.list(Reader::bytes)?),
        op::EXPIRE_AT => Command::Expire(reader.bytes()?, When::At(Ms(reader.u64()?)), decode_expire_if(reader.u8()?)?),
        op::EXPIRE_AFTER => {
            Command::Expire(reader.bytes()?, When::After(duration(reader)?), decode_expire_if(reader.u8()?)?)
        }
        op::PERSIST => Command::Persist(reader.bytes()?),
        op::RENAME => Command::Rename { from: reader.bytes()?, to: reader.bytes()?, only_new: reader.bool()? },
        op::COPY => Command::Copy { from: reader.bytes()?, to: reader.bytes()?, replace: reader.bool()? },
        op::FLUSH => Command::Flush,
        op::UPLOAD_PART => Command::UploadPart(UploadPart {
            upload: upload_id(reader)?,
            total: reader.u64()?,
            offset: reader.u64()?,
            bytes: reader.bytes()?,
        }),
        op::UPLOAD_COMPLETE => {
            let (upload, total, crc) = (upload_id(reader)?, reader.u64()?, reader.u32()?);
            let set = reader.u32()?.checked_sub(1).map(|key_bytes| decode_uploaded(key_bytes, reader)).transpose()?;
            Command::UploadComplete(Box::new(Complete { upload, total, crc, set }))
        }
        op::UPLOAD_ABORT => Command::UploadAbort(upload_id(reader)?),
        _ => return Err(DecodeError::UnknownOp),
    })
}

fn upload(op: u8, id: UploadId, out: &mut Encoding<'_>) {
    head(op, out);
    out.put_u32_le(id.node);
    out.put_u64_le(id.start);
    out.put_u64_le(id.number);
}

fn decode_uploaded<'a>(key_bytes: u32, reader: &mut Reader<'a>) -> Result<UploadedSet<'a>, DecodeError> {
    if reader.u8()? != MACHINE || reader.u8()? != op::SET {
        return Err(DecodeError::BadValue);
    }
    let set = decode_set(reader)?;
    if !(set.key.is_empty() && set.value.is_empty()) {
        return Err(DecodeError::BadValue);
    }
    Ok(UploadedSet { set, key_bytes })
}

fn upload_id(reader: &mut Reader<'_>) -> Result<UploadId, DecodeError> {
    Ok(UploadId { node: reader.u32()?, start: reader.u64()?, number: reader.u64()? })
}

fn encode_constant(constant: &Constant<'_>, out: &mut Encoding<'_>) {
    head(op::CONSTANT, out);
    match constant {
        Constant::Pong => out.put_u8(0),
        Constant::Bulk(bytes) => {
            out.put_u8(1);
            put_bytes(bytes, out);
        }
    }
}

fn decode_constant<'a>(reader: &mut Reader<'a>) -> Result<Constant<'a>, DecodeError> {
    Ok(match reader.u8()? {
        0 => Constant::Pong,
        1 => Constant::Bulk(reader.bytes()?),
        _ => return Err(DecodeError::BadValue),
    })
}

/// Encodes SET. One byte holds its three choices, two bits each.
fn encode_set(set: &Set<'_>, out: &mut Encoding<'_>) {
    out.reserve(19 + set.key.len() + set.value.len());
    let (expiry, at) = match set.expiry {
        SetExpiry::None => (0, None),
        SetExpiry::Keep => (1, None),
        SetExpiry::New(When::At(ms)) => (2, Some(ms)),
        SetExpiry::New(When::After(ms)) => (3, Some(ms)),
    };
    head(op::SET, out);
    out.put_u8(set.only_if as u8 | (set.answer as u8) << 2 | expiry << 4);
    if let Some(at) = at {
        out.put_u64_le(at.0);
    }
    put_bytes(set.key, out);
    put_bytes(set.value, out);
}

fn decode_set<'a>(reader: &mut Reader<'a>) -> Result<Set<'a>, DecodeError> {
    let bits = reader.u8()?;
    let only_if = [SetIf::Always, SetIf::Missing, SetIf::Present].get(usize::from(bits & 3));
    let answer = [SetAnswer::Done, SetAnswer::OldValue, SetAnswer::Changed].get(usize::from(bits >> 2 & 3));
    let expiry = match bits >> 4 {
        0 => SetExpiry::None,
        1 => SetExpiry::Keep,
        2 => SetExpiry::New(When::At(Ms(reader.u64()?))),
        3 => SetExpiry::New(When::After(duration(reader)?)),
        _ => return Err(DecodeError::BadValue),
    };
    let (Some(&only_if), Some(&answer)) = (only_if, answer) else { return Err(DecodeError::BadValue) };
    Ok(Set { key: reader.bytes()?, value: reader.bytes()?, only_if, answer, expiry })
}

fn encode_scan(scan: &Scan<'_>, out: &mut Encoding<'_>) {
    head(op::SCAN, out);
    out.put_u64_le(scan.cursor);
    out.put_u32_le(scan.count);
    out.put_u8(u8::from(scan.strings));
    out.put_u8(u8::from(scan.pattern.is_some()));
    if let Some(pattern) = scan.pattern {
        put_bytes(pattern, out);
    }
}

fn decode_scan<'a>(reader: &mut Reader<'a>) -> Result<Scan<'a>, DecodeError> {
    let (cursor, count, strings) = (reader.u64()?, reader.u32()?, reader.bool()?);
    let pattern = if reader.bool()? { Some(reader.bytes()?) } else { None };
    Ok(Scan { cursor, count, pattern, strings })
}

fn encode_once(once: &Once<'_>, out: &mut Encoding<'_>) {
    assert!(once.command.nests(), "ONCE holds no session command and no transaction");
    head(op::ONCE, out);
    out.put_slice(&once.session.0);
    out.put_u64_le(once.number);
    out.put_u64_le(once.fingerprint);
    put_nested(&once.command, out);
}

fn decode_once<'a>(reader: &mut Reader<'a>) -> Result<Command<'a>, DecodeError> {
    let session = SessionId(reader.array()?);
    let (number, fingerprint) = (reader.u64()?, reader.u64()?);
    let command = decode_at(reader.bytes()?, false)?;
    if number == 0 {
        return Err(DecodeError::BadValue);
    }
    Ok(Command::Once(Box::new(Once { session, number, fingerprint, command })))
}

fn encode_exec(commands: &[Command<'_>], out: &mut Encoding<'_>) {
    head(op::EXEC, out);
    put_length(commands.len(), out);
    for command in commands {
        assert!(command.nests(), "EXEC holds no session command and no transaction");
        put_nested(command, out);
    }
}

fn encode_pairs(op: u8, pairs: &[Pair<'_>], out: &mut Encoding<'_>) {
    head(op, out);
    put_length(pairs.len(), out);
    for (key, value) in pairs {
        put_bytes(key, out);
        put_bytes(value, out);
    }
}

fn decode_pair<'a>(reader: &mut Reader<'a>) -> Result<Pair<'a>, DecodeError> {
    Ok((reader.bytes()?, reader.bytes()?))
}

fn decode_expire_if(bits: u8) -> Result<ExpireIf, DecodeError> {
    if bits > 0b1111 {
        return Err(DecodeError::BadValue);
    }
    let bit = |number: u8| bits >> number & 1 == 1;
    Ok(ExpireIf { missing: bit(0), present: bit(1), later: bit(2), sooner: bit(3) })
}

fn duration(reader: &mut Reader<'_>) -> Result<Ms, DecodeError> {
    let ms = Ms(reader.u64()?);
    if ms == Ms(0) { Err(DecodeError::BadValue) } else { Ok(ms) }
}

/// Appends a choice and its number.
fn numbered(choice: u8, number: u64, out: &mut Encoding<'_>) {
    out.put_u8(choice);
    out.put_u64_le(number);
}

fn slot(reader: &mut Reader<'_>) -> Result<u16, DecodeError> {
    let slot = reader.u16()?;
    if slot < SLOTS { Ok(slot) } else { Err(DecodeError::BadValue) }
}

fn head(op: u8, out: &mut Encoding<'_>) {
    out.put_slice(&[MACHINE, op]);
}

fn one(op: u8, argument: &[u8], out: &mut Encoding<'_>) {
    head(op, out);
    put_bytes(argument, out);
}

fn two(op: u8, first: &[u8], second: &[u8], out: &mut Encoding<'_>) {
    one(op, first, out);
    put_bytes(second, out);
}

fn many(op: u8, arguments: &[&[u8]], out: &mut Encoding<'_>) {
    head(op, out);
    put_length(arguments.len(), out);
    arguments.iter().for_each(|argument| put_bytes(argument, out));
}

fn put_bytes(bytes: &[u8], out: &mut Encoding<'_>) {
    put_length(bytes.len(), out);
    out.word(bytes);
}

/// Appends a whole command behind its length, which is known only afterwards.
fn put_nested(command: &Command<'_>, out: &mut Encoding<'_>) {
    let (start, before) = (out.len(), out.length());
    put_length(0, out);
    encode_at(command, out);
    let length = length_word(out.length() - before - 4);
    out[start..start + 4].copy_from_slice(&length);
}

fn put_length(length: usize, out: &mut Encoding<'_>) {
    out.extend_from_slice(&length_word(length));
}

fn length_word(length: usize) -> [u8; 4] {
    u32::try_from(length).expect("requests are bounded far below 4 GiB").to_le_bytes()
}

const LIFETIMES: [Lifetime; 4] = [Lifetime::Seconds, Lifetime::Millis, Lifetime::UnixSeconds, Lifetime::UnixMillis];
const BAD_EXPIRIES: [BadExpiry; 2] = [BadExpiry::NotAnInteger, BadExpiry::OutOfRange];
const ASPECTS: [Aspect; 4] = [Aspect::Encoding, Aspect::Frequency, Aspect::IdleTime, Aspect::References];
