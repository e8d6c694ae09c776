//! The encoding: every command is decoded as it was, and no bytes do harm.

use super::{Db, START_MS, show};
use crate::kv::command::{
    Aspect, BadExpiry, Command, Constant, ExpireIf, Lifetime, Once, Scan, Set, SetAnswer, SetExpiry, SetIf, When,
};
use crate::kv::encode::{DecodeError, decode, encode, encode_shared, first_key};
use crate::kv::long_value::LONG_VALUE_BYTES;
use crate::kv::reply::Reply;
use crate::kv::session::SessionId;
use crate::kv::table::lookup;
use crate::kv::{ParseContext, parse};
use bytes::{Bytes, BytesMut};
use groups::Ms;
use proptest::prelude::*;

/// The data from which commands borrow.
type Material = (Vec<u8>, Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>, i64, u64, u8);

/// Returns one command of each kind and option, all from the same material.
fn every_command(material: &Material) -> Vec<Command<'_>> {
    let (key, value, pairs, signed, unsigned, bits) = material;
    let keys: Vec<&[u8]> = pairs.iter().map(|(key, _)| key.as_slice()).collect();
    let pairs: Vec<(&[u8], &[u8])> = pairs.iter().map(|(key, value)| (key.as_slice(), value.as_slice())).collect();
    let flag = bits & 1 == 1;
    let slot = (*unsigned % 16_384) as u16;
    let only_if = ExpireIf { missing: flag, present: bits & 2 == 2, later: bits & 4 == 4, sooner: bits & 8 == 8 };
    let (at, after) = (When::At(Ms(*unsigned)), When::After(Ms((*unsigned).max(1))));
    let mut commands = vec![
        Command::Noop,
        Command::Constant(Constant::Pong),
        Command::Constant(Constant::Bulk(value)),
        Command::Get(key),
        Command::MGet(keys.clone()),
        Command::StrLen(key),
        Command::GetRange(key, *signed, -1),
        Command::Exists(keys.clone()),
        Command::Type(key),
        Command::Scan(Scan { cursor: *unsigned, count: 7, pattern: flag.then_some(value.as_slice()), strings: flag }),
        Command::Keys(key),
        Command::DbSize,
        Command::RandomKey(*unsigned),
        Command::CountKeysInSlot(slot),
        Command::KeysInSlot(slot, 9),
        Command::GetDel(key),
        Command::GetEx(key, None),
        Command::GetEx(key, Some(at)),
        Command::GetEx(key, Some(after)),
        Command::MSet(pairs.clone()),
        Command::MSetNx(pairs),
        Command::Append(key, value),
        Command::SetRange(key, *unsigned, value),
        Command::IncrBy(key, *signed),
        Command::IncrByFloat(key, b"-1.5e3"),
        Command::IncrByLongDouble(key, b"0x1p-3"),
        Command::GetExRefused(key, BadExpiry::NotAnInteger),
        Command::GetExRefused(key, BadExpiry::OutOfRange),
        Command::Del(keys),
        Command::Expire(key, at, only_if),
        Command::Expire(key, after, only_if),
        Command::Persist(key),
        Command::Rename { from: key, to: value, only_new: flag },
        Command::Copy { from: key, to: value, replace: flag },
        Command::Flush,
    ];
    for lifetime in [Lifetime::Seconds, Lifetime::Millis, Lifetime::UnixSeconds, Lifetime::UnixMillis] {
        commands.push(Command::Ttl(key, lifetime));
    }
    for aspect in [Aspect::Encoding, Aspect::Frequency, Aspect::IdleTime, Aspect::References] {
        commands.push(Command::Object(key, aspect));
    }
    for only_if in [SetIf::Always, SetIf::Missing, SetIf::Present] {
        for answer in [SetAnswer::Done, SetAnswer::OldValue, SetAnswer::Changed] {
            for expiry in [SetExpiry::None, SetExpiry::Keep, SetExpiry::New(at), SetExpiry::New(after)] {
                commands.push(Command::Set(Set { key, value, only_if, answer, expiry }));
            }
        }
    }
    let (session, number) = (SessionId([*bits; 20]), unsigned.saturating_add(1));
    let once = |command| Command::Once(Box::new(Once { session, number, fingerprint: *unsigned, command }));
    let nested: Vec<Command<'_>> = commands.clone();
    commands.extend(nested.iter().cloned().map(once));
    commands.push(Command::Exec(nested));
    commands.push(Command::SessionNew);
    commands
}

fn material() -> impl Strategy<Value = Material> {
    use proptest::collection::vec;
    let pairs = vec((vec(any::<u8>(), 0..10), vec(any::<u8>(), 0..10)), 0..5);
    (vec(any::<u8>(), 0..20), vec(any::<u8>(), 0..40), pairs, any::<i64>(), any::<u64>(), any::<u8>())
}

fn encoded(command: &Command<'_>) -> BytesMut {
    let mut body = BytesMut::new();
    encode(command, &mut body);
    body
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_command_comes_back_and_shorter_or_longer_ones_do_not(material in material()) {
        for command in every_command(&material) {
            let mut body = encoded(&command);
            if let Some(key) = first_key(&body) {
                prop_assert_eq!(Some(key), key_of(&command), "{:?}", command);
            }
            prop_assert_eq!(decode(&body), Ok(command));
            prop_assert!(decode(&body[..body.len() - 1]).is_err());
            body.extend_from_slice(&[0]);
            prop_assert_eq!(decode(&body), Err(DecodeError::Trailing));
        }
    }

    #[test]
    fn a_body_with_a_wrong_byte_is_one_command_or_none(material in material(), at: prop::sample::Index, byte: u8) {
        for command in every_command(&material) {
            let mut body = encoded(&command);
            let at = at.index(body.len());
            body[at] = byte;
            if let Ok(command) = decode(&body) {
                prop_assert_eq!(&encoded(&command), &body, "each command has only one encoding");
            }
        }
    }

    #[test]
    fn any_bytes_get_an_answer(op: u8, mut body: Vec<u8>) {
        body.splice(0..0, [1, op]);
        let mut db = Db::new();
        let _ = db.store.read(&body, Ms::MAX);
        let _ = db.store.apply(&body);
        let _ = decode(&body[2..]);
        let _ = first_key(&body).or(first_key(&body[2..]));
    }
}

/// Returns the key of a command that names one key first.
fn key_of<'a>(command: &Command<'a>) -> Option<&'a [u8]> {
    match command {
        Command::Get(key) | Command::StrLen(key) | Command::GetRange(key, ..) | Command::Ttl(key, _) => Some(key),
        Command::GetDel(key) | Command::Persist(key) | Command::IncrBy(key, _) => Some(key),
        Command::Set(set) => Some(set.key),
        _ => None,
    }
}

#[test]
fn looking_ahead_reads_what_is_there_and_changes_nothing() {
    let mut db = Db::new();
    let bodies: Vec<BytesMut> = (0..40)
        .map(|number| {
            let key = format!("key:{number}");
            if number % 3 > 0 {
                db.ask(&format!("SET {key} v{number}"));
            }
            encoded(&Command::Get(key.as_bytes()))
        })
        .collect();
    assert!(bodies.iter().all(|body| first_key(body).is_some_and(|key| key.starts_with(b"key:"))));
    assert_eq!(first_key(&encoded(&Command::Get(&[b'k'; 257]))), None, "a long key is not hashed twice");
    let before = db.store.rolling_digest();
    for count in [0, 1, 2, 16, 40] {
        let others = [&b""[..], b"\x01", b"\x01\x02\x09\0\0\0short"];
        db.store.look_ahead(bodies[..count].iter().map(|body| &body[..]).chain(others));
    }
    assert_eq!(db.store.rolling_digest(), before);
    assert_eq!(db.ask("GET key:1"), "\"v1\"");
}

#[test]
fn what_cannot_be_read_is_refused_alike_by_every_replica() {
    let mut db = Db::new();
    let id = [0; 36];
    let nested = [&[1, 32][..], &id, &[2, 0, 0, 0, 1, 31]].concat();
    for (body, reply) in [
        (&b""[..], "ERR the command ends too soon"),
        (b"\x02\x02", "ERR the command is for another state machine"),
        (b"\x01\xff", "ERR the command's op number is unknown"),
        (b"\x01\x02\xff\xff\xff\xffabc", "ERR the command ends too soon"),
        (b"\x01\x05\xff\xff\xff\xffabc", "ERR the command ends too soon"),
        (b"\x01\x00more", "ERR bytes follow the command"),
        (b"\x01\x10\xff\xff", "ERR an argument of the command is out of range"),
        (&nested, "ERR a session command or transaction stands inside another command"),
    ] {
        assert_eq!(super::show(&db.store.apply(body)), reply);
    }
}

#[test]
fn the_encoding_of_hot_commands_is_short_and_fixed() {
    assert_eq!(&encoded(&Command::Get(b"key"))[..], b"\x01\x02\x03\0\0\0key");
    assert_eq!(&encoded(&Command::Set(Set::plain(b"k", b"v")))[..], b"\x01\x03\0\x01\0\0\0k\x01\0\0\0v");
    assert_eq!(&encoded(&Command::IncrBy(b"k", -1))[..], b"\x01\x04\x01\0\0\0k\xff\xff\xff\xff\xff\xff\xff\xff");
}

/// Members that know only older value versions get commands that they know; other requests are refused. The old command
/// in a log has the same effect as before.
#[test]
fn fractions_are_decimal_where_a_member_does_not_know_better() {
    let parsed = |request: &'static str, durations| {
        let words: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
        let context = ParseContext { cluster_ms: START_MS, durations, seed: 0 };
        lookup(&words).and_then(|spec| parse(spec, &words, context))
    };
    assert_eq!(parsed("INCRBYFLOAT k 0.5", false), Ok(Command::IncrByFloat(b"k", b"0.5")));
    assert_eq!(parsed("INCRBYFLOAT k 0.5", true), Ok(Command::IncrByLongDouble(b"k", b"0.5")));
    let not_a_float = Reply::error("ERR value is not a valid float");
    assert_eq!(parsed("INCRBYFLOAT k 0x10", false), Err(not_a_float));
    assert_eq!(parsed("INCRBYFLOAT k 0x10", true), Ok(Command::IncrByLongDouble(b"k", b"0x10")));
    assert_eq!(parsed("GETEX k EX 0", true), Ok(Command::GetExRefused(b"k", BadExpiry::OutOfRange)));
    assert!(parsed("GETEX k EX 0", false).is_err());
    for (command, version) in [
        (Command::IncrByFloat(b"k", b"0.5"), 1),
        (Command::IncrByLongDouble(b"k", b"0.5"), 3),
        (Command::GetExRefused(b"k", BadExpiry::NotAnInteger), 3),
        (Command::Exec(vec![Command::Get(b"k"), Command::IncrByLongDouble(b"k", b"0.5")]), 3),
    ] {
        assert_eq!(command.value_version(), version, "{command:?}");
    }
    let mut db = Db::new();
    let mut apply = |command: &Command<'_>| {
        let mut body = BytesMut::new();
        encode(command, &mut body);
        show(&db.store.apply(&body))
    };
    // As before, the old command computes 17 digits behind the point, and at most 64 bits before it.
    assert_eq!(apply(&Command::IncrByFloat(b"k", b"1234567890123456789.5")), "\"1234567890123456789.5\"");
    assert_eq!(apply(&Command::IncrByFloat(b"k", b"0.00000000000000001")), "\"1234567890123456789.50000000000000001\"");
    assert_eq!(apply(&Command::IncrByLongDouble(b"k", b"0")), "\"1234567890123456789.5\"");
}

#[test]
fn long_words_stay_where_they_are() {
    let request = Bytes::from(vec![b'v'; LONG_VALUE_BYTES + 1]);
    let value = &request[1..];
    let (session, number) = (SessionId([7; 20]), 1);
    let once = |command| Command::Once(Box::new(Once { session, number, fingerprint: 9, command }));
    let pairs = || Command::MSet(vec![(b"a", value), (b"b", b"short"), (b"c", value)]);
    for (command, shared) in [
        (Command::Append(b"k", value), 1),
        (Command::SetRange(b"k", 3, value), 1),
        (pairs(), 2),
        (once(pairs()), 2),
        (Command::Exec(vec![Command::Get(b"k"), pairs(), Command::Append(b"k", value), Command::Get(b"k")]), 3),
        (Command::Append(b"k", &[b'w'; LONG_VALUE_BYTES]), 0),
    ] {
        let (mut whole, pieces) = (BytesMut::new(), encode_shared(&command, &request));
        encode(&command, &mut whole);
        assert!(pieces.concat() == whole, "{shared} words");
        assert_eq!(pieces.iter().filter(|piece| piece.as_ptr() == value.as_ptr()).count(), shared);
    }
}
