//! Large commands that arrive in parts. A completed upload has the effect of the whole command, and an unfinished
//! upload is a part of the state.

use super::super::command::{Command, Set, SetAnswer, SetExpiry, SetIf};
use super::super::uploads::{BUSY, Complete, LOST, UploadId, UploadPart, UploadedSet};
use super::super::{BlockCheck, BlockError, Installation, Store};
use super::{Db, HASH_KEY, decode, encoded, show};
use crate::kv::StoreLimits;
use crate::routing::SLOTS;
use groups::{Ms, WorkBudget};

const UPLOAD: UploadId = UploadId { node: 1, start: 2, number: 3 };

fn apply(store: &mut Store, command: &Command<'_>) -> String {
    show(&store.apply(&encoded(command)))
}

fn parts(upload: UploadId, body: &[u8], bytes: usize) -> Vec<Command<'_>> {
    let part = |(at, part)| {
        Command::UploadPart(UploadPart { upload, total: body.len() as u64, offset: at as u64, bytes: part })
    };
    body.chunks(bytes).enumerate().map(|(at, chunk)| part((at * bytes, chunk))).collect()
}

fn complete(upload: UploadId, body: &[u8]) -> Command<'static> {
    Command::UploadComplete(Box::new(Complete {
        upload,
        total: body.len() as u64,
        crc: crc32c::crc32c(body),
        set: None,
    }))
}

/// Uploads a command and completes it, one step at a time. Returns the reply.
pub(super) fn upload(store: &mut Store, body: &[u8], bytes: usize) -> String {
    for part in parts(UPLOAD, body, bytes) {
        assert_eq!(apply(store, &part), "OK");
    }
    in_steps(store, &complete(UPLOAD, body))
}

fn in_steps(store: &mut Store, command: &Command<'_>) -> String {
    let body = encoded(command);
    loop {
        if let Some(reply) = store.apply_some(&body, true, &mut WorkBudget::steps(1)) {
            return show(&reply);
        }
    }
}

/// Uploads only the key and the value of a SET, as nodes do. Returns the reply.
fn upload_set(store: &mut Store, set: &Set<'_>, bytes: usize) -> String {
    let whole = [set.key, set.value].concat();
    for part in parts(UPLOAD, &whole, bytes) {
        assert_eq!(apply(store, &part), "OK");
    }
    let Command::UploadComplete(mut complete) = complete(UPLOAD, &whole) else { unreachable!() };
    let rest = Set { key: b"", value: b"", ..*set };
    complete.set = Some(UploadedSet { set: rest, key_bytes: set.key.len() as u32 });
    in_steps(store, &Command::UploadComplete(complete))
}

#[test]
fn a_command_in_parts_does_what_it_does_at_once() {
    let (mut whole, mut divided) = (Db::new(), Db::new());
    let session = whole.ask("SESSION NEW").trim_matches('"').to_owned();
    assert_eq!(divided.ask("SESSION NEW").trim_matches('"'), session);
    let long = "v".repeat(1_000);
    for (bytes, request) in [
        (1, "SET k value".to_owned()),
        (7, format!("SET k {long}")),
        (100, format!("SET k {long}w NX")),
        (100, format!("SET k {long}x GET")),
        (100, format!("SET other {long} PX 10000")),
        (10_000, format!("SET other {long}y KEEPTTL")),
        (64, format!("APPEND k {long}")),
        (64, format!("SETRANGE k 500 {long}")),
        (64, format!("MSET a {long} b {long}")),
        (64, format!("MSETNX a {long} c {long}")),
        (64, format!("ONCE {session} 1 SET once {long}")),
        (64, format!("ONCE {session} 1 SET once {long}")),
        (64, "GET other".to_owned()),
        (3, "SET k".to_owned() + " short"),
    ] {
        let words: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
        let body = whole.body(&words).expect(&request);
        let reply = show(&whole.store.apply(&body));
        let found = match decode(&body) {
            Ok(Command::Set(set)) if bytes != 10_000 => upload_set(&mut divided.store, &set, bytes),
            _ => upload(&mut divided.store, &body, bytes),
        };
        assert_eq!(found, reply, "{request}");
        assert_eq!(divided.store.digest(), whole.store.digest(), "{request}");
        assert_eq!(divided.store.len(), whole.store.len());
    }
    // KEEPTTL kept the time to live, and `other` expires in both stores.
    [&mut whole, &mut divided].into_iter().for_each(|db| db.pass(Ms(10_000)));
    assert_eq!((whole.ask("EXISTS other k"), divided.ask("EXISTS other k")), ("1".to_owned(), "1".to_owned()));
}

#[test]
fn a_transaction_in_parts_is_carried_out_in_pieces() {
    let mut db = Db::new();
    let set = |n| db.body(&[b"SET", format!("key:{n}").as_bytes(), b"value"]).unwrap();
    let sets: Vec<_> = (0..50).map(set).collect();
    let commands = sets.iter().map(|set| decode(set).unwrap()).collect();
    let body = encoded(&Command::Exec(commands));
    assert_eq!(upload(&mut db.store, &body, 33), format!("[{}]", ["OK"; 50].join(" ")));
    assert_eq!(db.ask("DBSIZE"), "50");
}

#[test]
fn what_lacks_a_part_or_has_another_is_not_executed() {
    let mut db = Db::new();
    let body = db.body(&[b"SET", b"k", b"a value of some length"]).unwrap();
    let all = parts(UPLOAD, &body, 10);
    let lost = show(&LOST);
    assert_eq!(apply(&mut db.store, &all[1]), lost, "the first one is missing");
    assert_eq!(apply(&mut db.store, &complete(UPLOAD, &body)), lost);
    assert_eq!(apply(&mut db.store, &all[0]), "OK");
    assert_eq!(apply(&mut db.store, &all[0]), lost, "a second time");
    assert_eq!(apply(&mut db.store, &all[2]), lost, "one is passed over");
    assert_eq!(apply(&mut db.store, &all[1]), "OK");
    let empty = Command::UploadPart(UploadPart { upload: UPLOAD, total: body.len() as u64, offset: 20, bytes: b"" });
    assert_eq!(apply(&mut db.store, &empty), lost);
    let beyond = Command::UploadPart(UploadPart { upload: UPLOAD, total: 21, offset: 20, bytes: b"two" });
    assert_eq!(apply(&mut db.store, &beyond), lost);
    assert_eq!(apply(&mut db.store, &complete(UPLOAD, &body)), lost, "the last one is missing");
    for part in parts(UPLOAD, &body, 10) {
        assert_eq!(apply(&mut db.store, &part), "OK", "the refused completion has dropped the upload");
    }
    let mut other = body.clone();
    *other.last_mut().unwrap() ^= 1;
    assert_eq!(apply(&mut db.store, &complete(UPLOAD, &other)), lost, "another checksum");
    assert_eq!((db.ask("EXISTS k"), db.store.bytes() < 1_000), ("0".to_owned(), true));
}

#[test]
fn a_key_that_is_longer_than_all_there_is_is_refused() {
    let mut db = Db::new();
    assert_eq!(apply(&mut db.store, &parts(UPLOAD, b"some body", 9)[0]), "OK");
    let Command::UploadComplete(mut complete) = complete(UPLOAD, b"some body") else { unreachable!() };
    let body = db.body(&[b"SET", b"", b""]).unwrap();
    let Ok(Command::Set(set)) = decode(&body) else { panic!("it is a SET") };
    complete.set = Some(UploadedSet { set, key_bytes: 10 });
    assert!(in_steps(&mut db.store, &Command::UploadComplete(complete)).starts_with("ERR"));
}

#[test]
fn no_upload_stands_in_another() {
    let mut db = Db::new();
    let inner = encoded(&complete(UPLOAD, b"x"));
    assert!(upload(&mut db.store, &inner, 5).starts_with("ERR"));
    assert!(upload(&mut db.store, b"garbage", 5).starts_with("ERR"));
}

#[test]
fn uploads_are_bounded_and_what_their_origin_forgot_is_dropped() {
    let limits = StoreLimits { value_bytes_max: 100, uploads_max: 3, ..StoreLimits::default() };
    let mut db = Db::with(limits);
    let (ok, busy, lost) = ("OK".to_owned(), show(&BUSY), show(&LOST));
    let begin = |db: &mut Db, node, start, number, total| {
        let upload = UploadId { node, start, number };
        apply(&mut db.store, &Command::UploadPart(UploadPart { upload, total, offset: 0, bytes: b"first" }))
    };
    assert_eq!(begin(&mut db, 1, 1, 1, 801), lost, "no request is that long");
    assert_eq!(begin(&mut db, 1, 1, 1, 800), ok, "a single upload may exceed the limit for all together");
    assert_eq!(begin(&mut db, 2, 1, 1, 10), busy);
    assert_eq!(begin(&mut db, 1, 2, 1, 100), ok, "a later start of the same node: the first is forgotten");
    assert_eq!(begin(&mut db, 2, 1, 1, 300), ok);
    assert_eq!(begin(&mut db, 3, 1, 1, 1), lost, "the part is longer than the announced total");
    assert_eq!(begin(&mut db, 3, 1, 1, 5), busy, "too many bytes");
    assert_eq!(apply(&mut db.store, &Command::UploadAbort(UploadId { node: 2, start: 1, number: 1 })), ok);
    assert_eq!(begin(&mut db, 2, 1, 2, 5), ok);
    assert_eq!(begin(&mut db, 2, 1, 3, 5), ok);
    assert_eq!(begin(&mut db, 2, 1, 4, 5), busy, "too many");
    db.pass(Ms(59_000));
    let before = db.store.bytes();
    db.pass(Ms(1_000));
    assert_eq!(before - db.store.bytes(), 15, "all three are dropped");
    assert_eq!(begin(&mut db, 2, 1, 4, 5), ok);
}

#[test]
fn an_upload_without_a_part_for_ten_seconds_yields_to_another_that_needs_its_room() {
    let mut db = Db::with(StoreLimits { value_bytes_max: 100, ..StoreLimits::default() });
    let (ok, busy, lost) = ("OK".to_owned(), show(&BUSY), show(&LOST));
    let part = |db: &mut Db, node, total, offset| {
        let part = UploadPart { upload: UploadId { node, ..UPLOAD }, total, offset, bytes: b"12345" };
        apply(&mut db.store, &Command::UploadPart(part))
    };
    assert_eq!((part(&mut db, 1, 200, 0), part(&mut db, 2, 200, 0)), (ok.clone(), ok.clone()));
    db.pass(Ms(9_999));
    assert_eq!((part(&mut db, 2, 200, 5), part(&mut db, 3, 100, 0)), (ok.clone(), busy.clone()));
    db.pass(Ms(1));
    assert_eq!(part(&mut db, 3, 300, 0), busy, "the upload of node 2 goes on, and leaves too little room");
    assert_eq!((part(&mut db, 1, 200, 5), part(&mut db, 2, 200, 10)), (lost, ok.clone()));
    assert_eq!(part(&mut db, 3, 200, 0), ok);
}

#[test]
fn what_is_on_its_way_is_in_a_frozen_state() {
    let mut db = Db::new();
    assert_eq!(db.ask("SET before 1"), "OK");
    let body = db.body(&[b"SET", b"k", &[b'v'; 500]]).unwrap();
    let other = UploadId { number: 4, ..UPLOAD };
    let (first, second) = (parts(UPLOAD, &body, 100), parts(other, &body, 60));
    for part in first[..3].iter().chain(&second[..2]) {
        assert_eq!(apply(&mut db.store, part), "OK");
    }
    let digest = db.store.digest();
    db.store.freeze();
    // The frozen state lacks a part that arrives later, and keeps an upload that is aborted later.
    assert_eq!(apply(&mut db.store, &first[3]), "OK");
    assert_eq!(apply(&mut db.store, &Command::UploadAbort(other)), "OK");
    let blocks: Vec<Vec<u8>> = std::iter::from_fn(|| db.store.next_block(50)).collect();
    assert_eq!(db.store.frozen_digest(), Some(digest));
    db.store.thaw();

    let mut installation = Installation::new(HASH_KEY, 0..SLOTS, StoreLimits::default());
    for (at, block) in blocks.iter().enumerate() {
        assert_eq!(installation.install_block(block), Ok(at + 1 == blocks.len()));
    }
    let mut copy = installation.finish_as(digest).expect("the state that was frozen");
    for part in first[3..].iter().chain(&second[2..]) {
        assert_eq!(apply(&mut copy, part), "OK");
    }
    assert_eq!(apply(&mut copy, &complete(other, &body)), "OK");
    assert_eq!(apply(&mut copy, &complete(UPLOAD, &body)), "OK");
    assert_eq!(copy.len(), 2);

    // The blocks without one part, or with two parts in another order, do not make that state.
    let uploads: Vec<usize> = (0..blocks.len()).filter(|at| blocks[*at][..2] == [2, 5]).collect();
    assert_eq!(uploads.len(), 9);
    let sound = |blocks: &[&Vec<u8>]| {
        let mut check = BlockCheck::new(HASH_KEY, 0..SLOTS, StoreLimits::default());
        blocks.iter().all(|block| check.check(block).is_ok()) && check.digest() == Some(digest)
    };
    let mut all: Vec<&Vec<u8>> = blocks.iter().collect();
    assert!(sound(&all));
    for missing in &uploads {
        let rest: Vec<&Vec<u8>> = (0..blocks.len()).filter(|at| at != missing).map(|at| &blocks[at]).collect();
        assert!(!sound(&rest), "without block {missing}");
    }
    all.swap(uploads[5], uploads[6]);
    assert!(!sound(&all));
    all.swap(uploads[5], uploads[6]);
    // An upload that announces more bytes than any request holds is refused, because memory would be reserved for it.
    let mut huge = blocks[uploads[0]].clone();
    huge[22..30].fill(0xFF);
    all[uploads[0]] = &huge;
    let mut installation = Installation::new(HASH_KEY, 0..SLOTS, StoreLimits::default());
    let refused = all.iter().find_map(|block| installation.install_block(block).err());
    assert_eq!(refused, Some(BlockError::BadUpload));
}

#[test]
fn an_upload_that_is_given_up_leaves_nothing_behind() {
    let (mut one, other) = (Db::new(), Db::new());
    assert_eq!(apply(&mut one.store, &parts(UPLOAD, b"some body", 9)[0]), "OK");
    assert_eq!(apply(&mut one.store, &Command::UploadAbort(UPLOAD)), "OK");
    assert_ne!(one.store.rolling_digest(), other.store.rolling_digest(), "the rolling digest covers the upload");
    assert_eq!(one.store.digest(), other.store.digest());
}

#[test]
fn a_long_value_is_written_out_in_pieces_while_others_take_its_place() {
    for replaced_after in 0..8 {
        let mut db = Db::new();
        let [old, new] = [b'o', b'n'].map(|byte| vec![byte; 1_000]);
        let set =
            |value| Set { key: b"k", value, only_if: SetIf::Always, answer: SetAnswer::Done, expiry: SetExpiry::None };
        assert_eq!(upload_set(&mut db.store, &set(&old), 300), "OK");
        assert_eq!(db.ask("SET other short"), "OK");
        let digest = db.store.digest();
        db.store.freeze();
        let mut blocks: Vec<Vec<u8>> = (0..replaced_after).filter_map(|_| db.store.next_block(200)).collect();
        assert_eq!(upload_set(&mut db.store, &set(&new), 300), "OK");
        assert_eq!(upload_set(&mut db.store, &set(&old[1..]), 300), "OK");
        blocks.extend(std::iter::from_fn(|| db.store.next_block(200)));
        assert!(blocks.iter().all(|block| block.len() < 300) && blocks.iter().any(|block| block[..2] == [2, 6]));
        assert_eq!((db.store.frozen_digest(), db.store.aside_bytes()), (Some(digest), 0));
        db.store.thaw();
        let mut installation = Installation::new(HASH_KEY, 0..SLOTS, StoreLimits::default());
        for (at, block) in blocks.iter().enumerate() {
            assert_eq!(installation.install_block(block), Ok(at + 1 == blocks.len()), "{replaced_after}");
        }
        let mut copy = installation.finish_as(digest).expect("the state that was frozen");
        assert_eq!(show(&copy.apply(&db.body(&[b"GET", b"k"]).unwrap())), format!("\"{}\"", "o".repeat(1_000)));
        assert_eq!(db.ask("STRLEN k"), "999");
        let bytes = |store: &Store| store.bytes();
        assert!(bytes(&db.store).abs_diff(bytes(&copy)) < 100, "replaced values are no longer counted");

        // Blocks with a missing or repeated piece make no state.
        let pieces: Vec<usize> = (0..blocks.len()).filter(|at| blocks[*at][..2] == [2, 6]).collect();
        for piece in pieces {
            let mut check = BlockCheck::new(HASH_KEY, 0..SLOTS, StoreLimits::default());
            let rest = blocks.iter().enumerate().filter(|(at, _)| *at != piece).map(|(_, block)| block);
            assert!(!rest.map(|block| check.check(block)).all(|checked| checked.is_ok()));
            let mut check = BlockCheck::new(HASH_KEY, 0..SLOTS, StoreLimits::default());
            let twice = blocks.iter().enumerate().flat_map(|(at, block)| vec![block; 1 + usize::from(at == piece)]);
            assert!(!twice.map(|block| check.check(block)).all(|checked| checked.is_ok()));
        }
    }
}
