//! Commands that are applied over several turns, and commands whose reply nobody wants, lead to the same state.

use super::super::command::{Command, Once, Set, SetExpiry, When};
use super::super::encode::encode;
use super::super::session::SessionId;
use super::super::{CommandProgress, Store};
use super::{Db, START_MS, show};
use bytes::BytesMut;
use groups::{Ms, WorkBudget};
use proptest::prelude::*;

/// Applies a command one step at a time. Returns its reply and the number of pieces.
fn in_pieces(store: &mut Store, body: &[u8], wanted: bool) -> (String, usize) {
    let mut pieces = 1;
    loop {
        if let Some(reply) = store.apply_some(body, wanted, &mut WorkBudget::steps(1)) {
            return (show(&reply), pieces);
        }
        pieces += 1;
    }
}

/// Applies all requests whole, in pieces, and without replies. Returns the replies.
fn apply_each_way(requests: &[(u64, String)]) -> Vec<String> {
    let (mut whole, mut divided, mut mute) = (Db::new(), Db::new(), Db::new());
    let mut replies = Vec::new();
    for (pause_ms, request) in requests {
        [&mut whole, &mut divided, &mut mute].into_iter().for_each(|db| db.pass(Ms(*pause_ms)));
        let words: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
        let Ok(body) = whole.body(&words) else { continue };
        let reply = show(&whole.store.apply(&body));
        assert_eq!(in_pieces(&mut divided.store, &body, true).0, reply, "{request}");
        in_pieces(&mut mute.store, &body, false);
        for db in [&divided, &mute] {
            assert_eq!(db.store.rolling_digest(), whole.store.rolling_digest(), "{request}");
            assert_eq!(db.store.digest(), whole.store.digest(), "{request}");
            assert_eq!(db.store.bytes(), whole.store.bytes(), "{request}");
        }
        replies.push(reply);
    }
    replies
}

#[test]
fn lists_of_keys_are_applied_in_pieces() {
    let mut db = Db::new();
    let mut ask = |request: &str| {
        let words: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
        let body = db.body(&words).unwrap();
        in_pieces(&mut db.store, &body, true)
    };
    assert_eq!(ask("MSET a 1 b 2 c 3"), ("OK".to_owned(), 3));
    assert_eq!(ask("MSETNX d 1 e 2"), ("1".to_owned(), 4));
    assert_eq!(ask("MSETNX f 1 a 2"), ("0".to_owned(), 2));
    assert_eq!(ask("DEL a x b c"), ("3".to_owned(), 4));
    assert_eq!(ask("KEYS *").1, 2);
    assert_eq!(ask("DBSIZE"), ("2".to_owned(), 1));
}

/// A divided read never starts again. Keys that stay are found once, whatever happens between two pieces.
#[test]
fn a_walk_goes_on_while_keys_come_and_go() {
    let mut db = Db::new();
    (0..200).for_each(|n| drop(db.ask(&format!("SET stays:{n} v"))));
    let body = db.body(&[b"KEYS", b"stays:*"]).unwrap();
    let (mut progress, mut turn) = (CommandProgress::default(), 0);
    let found = loop {
        turn += 1;
        match db.store.read_some(&body, Ms(0), &mut progress, &mut WorkBudget::steps(10)) {
            Ok(Some(reply)) => break show(&reply),
            Ok(None) => {}
            Err(due) => panic!("{due:?}"),
        }
        db.ask(&format!("SET comes:{turn} v"));
        db.ask(&format!("SET stays:{turn} another"));
    };
    assert!(turn > 10);
    let mut names: Vec<&str> = found.trim_matches(['[', ']']).split(' ').collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!((names.len(), found.matches("stays").count()), (200, 200));
}

/// A page of SCAN ends when its cost reaches a limit, and the next page goes on there.
#[test]
fn pages_of_scan_end_where_they_cost_enough() {
    let mut db = Db::new();
    let long = "a".repeat(100_000);
    (0..50).for_each(|n| drop(db.ask(&format!("SET {long}{n} v"))));
    let (mut cursor, mut pages, mut found) = ("0".to_owned(), 0, 0);
    loop {
        let pattern = format!("*{}b*0", "[ac]".repeat(1_000));
        let body = db.body(&[b"SCAN", cursor.as_bytes(), b"COUNT", b"10000", b"MATCH", pattern.as_bytes()]).unwrap();
        let mut work = WorkBudget::steps(1 << 20);
        let page = db
            .store
            .read_some(&body, Ms(0), &mut CommandProgress::default(), &mut work)
            .unwrap()
            .map(|reply| show(&reply));
        let page = page.expect("a page is not divided");
        assert!((1 << 20) - work.left() <= 30 << 10, "{} steps", (1 << 20) - work.left());
        found += page.matches("aaa").count();
        pages += 1;
        cursor = page.split('"').nth(1).unwrap().to_owned();
        if cursor == "0" {
            break;
        }
    }
    assert!(pages > 3 && found == 0, "{pages} pages");
}

/// Returns a strategy for commands of all sorts, on few keys.
fn request() -> impl Strategy<Value = String> {
    let key = || "[a-e]";
    let several = || proptest::collection::vec("[a-e]", 1..6).prop_map(|keys| keys.join(" "));
    let pairs = || proptest::collection::vec("[a-e] [0-9]{1,3}", 1..5).prop_map(|pairs| pairs.join(" "));
    prop_oneof![
        (key(), "[0-9]{1,3}").prop_map(|(key, value)| format!("SET {key} {value}")),
        (key(), 1..400_u64).prop_map(|(key, ms)| format!("SET {key} 5 PX {ms}")),
        (key(), 1..400_u64).prop_map(|(key, ms)| format!("PEXPIRE {key} {ms}")),
        pairs().prop_map(|pairs| format!("MSET {pairs}")),
        pairs().prop_map(|pairs| format!("MSETNX {pairs}")),
        several().prop_map(|keys| format!("DEL {keys}")),
        several().prop_map(|keys| format!("MGET {keys}")),
        several().prop_map(|keys| format!("EXISTS {keys}")),
        (key(), key()).prop_map(|(from, to)| format!("RENAME {from} {to}")),
        (key(), key()).prop_map(|(from, to)| format!("COPY {from} {to}")),
        key().prop_map(|key| format!("INCR {key}")),
        key().prop_map(|key| format!("APPEND {key} 1")),
        key().prop_map(|key| format!("GETDEL {key}")),
        Just("KEYS *".to_owned()),
        Just("SCAN 0".to_owned()),
        Just("DBSIZE".to_owned()),
        Just("RANDOMKEY".to_owned()),
        Just("FLUSHALL".to_owned()),
        Just("CLUSTER COUNTKEYSINSLOT 15495".to_owned()),
        Just("CLUSTER GETKEYSINSLOT 15495 9".to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn pieces_come_to_the_same(requests in proptest::collection::vec((0..150_u64, request()), 1..40)) {
        apply_each_way(&requests);
    }
}

/// The same holds for transactions and for commands of a session. A session keeps its reply even if nobody wants it.
#[test]
fn transactions_and_sessions_come_to_the_same() {
    let (mut whole, mut divided, mut mute) = (Db::new(), Db::new(), Db::new());
    let mut apply = |pause_ms: Ms, body: &[u8]| {
        [&mut whole, &mut divided, &mut mute].into_iter().for_each(|db| db.pass(pause_ms));
        let reply = show(&whole.store.apply(body));
        let (in_turns, pieces) = in_pieces(&mut divided.store, body, true);
        in_pieces(&mut mute.store, body, false);
        assert_eq!(in_turns, reply);
        for db in [&divided, &mute] {
            assert_eq!(db.store.rolling_digest(), whole.store.rolling_digest());
            assert_eq!(db.store.digest(), whole.store.digest());
        }
        (reply, pieces)
    };
    let body = |command: &Command<'_>| {
        let mut body = BytesMut::new();
        encode(command, &mut body);
        body
    };
    // Enough keys fall due that every command of a transaction removes some.
    for n in 0..300_u32 {
        let key = n.to_string().into_bytes();
        let set = Set { expiry: SetExpiry::New(When::At(START_MS + Ms(100))), ..Set::plain(&key, b"v") };
        apply(Ms(0), &body(&Command::Set(set)));
    }
    let reads = || vec![Command::Keys(b"*"), Command::DbSize, Command::MGet(vec![b"a", b"b"]), Command::Get(b"a")];
    assert_eq!(apply(Ms(200), &body(&Command::Exec(reads()))).0, "[[] 0 [nil nil] nil]");
    let mut commands = vec![Command::MSet(vec![(b"a", b"1"), (b"b", b"2")])];
    commands.extend(reads());
    commands.extend([Command::Del(vec![b"a", b"b", b"c"]), Command::DbSize, Command::Flush]);
    let (reply, pieces) = apply(Ms(0), &body(&Command::Exec(commands)));
    assert_eq!(reply, "[OK [\"b\" \"a\"] 2 [\"1\" \"2\"] \"1\" 2 0 OK]");
    assert!(pieces > 8, "{pieces} pieces");
    let (id, _) = apply(Ms(0), &body(&Command::SessionNew));
    let session = SessionId::parse(id.trim_matches('"').as_bytes()).unwrap();
    for (number, command) in
        [Command::MSet(vec![(b"a", b"1"), (b"b", b"2")]), Command::Keys(b"*"), Command::Del(vec![b"a", b"b"])]
            .into_iter()
            .enumerate()
    {
        let once = Once { session, number: number as u64 + 1, fingerprint: 7, command };
        let body = body(&Command::Once(Box::new(once)));
        let first = apply(Ms(0), &body);
        assert_eq!(apply(Ms(0), &body), (first.0, 1), "the first reply again");
    }
}
