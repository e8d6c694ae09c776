//! Tests of replies that are too large for any connection.

use super::*;
use crate::kv::reply::TOO_LARGE;

const VALUE: &str = "k";

/// A store with one value of the maximum length, and the number of its copies that fit into one reply.
fn db() -> (Db, usize) {
    let mut db = Db::with(StoreLimits { value_bytes_max: 1 << 20, ..StoreLimits::default() });
    db.ask_words(&[b"SET", VALUE.as_bytes(), &vec![b'x'; 1 << 20]]);
    let fit = db.store.limits.reply_bytes_max() >> 20;
    (db, fit - 1)
}

#[test]
fn a_list_of_too_many_long_values_is_an_error() {
    let (db, fit) = db();
    let get = |count: usize| {
        let keys = vec![VALUE.as_bytes(); count];
        let reply = db.store.read(&encoded(&Command::MGet(keys)), START_MS).expect("nothing expires");
        reply == TOO_LARGE
    };
    assert!(!get(fit) && get(fit + 2));
}

#[test]
fn a_transaction_is_carried_out_whatever_becomes_of_its_replies() {
    let (mut db, fit) = db();
    let mut commands = vec![Command::Get(VALUE.as_bytes()); fit + 5];
    commands.push(Command::IncrBy(b"n", 1));
    let Reply::Array(replies) = db.store.apply(&encoded(&Command::Exec(commands))) else { panic!("not an array") };
    assert_eq!(replies.iter().filter(|reply| **reply == TOO_LARGE).count(), 5);
    assert_eq!(replies.last(), Some(&Reply::Int(1)));
}

#[test]
fn what_is_expected_of_a_command_counts_long_values_only() {
    let (mut db, _) = db();
    let expected = |db: &Db, request: &str| {
        let words: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
        db.store.expected_bytes(&decode(&db.body(&words).expect("a valid request")).expect("just encoded"))
    };
    for request in ["GET k", "GETRANGE k 0 1", "GETDEL k", "GETEX k PERSIST", "SET k v GET", "MGET a k"] {
        assert_eq!(expected(&db, request), 1 << 20, "{request}");
    }
    for request in ["GET a", "SET k v", "STRLEN k", "KEYS *", "SCAN 0", "DEL k"] {
        assert!(expected(&db, request) < 100, "{request}");
    }
    db.ask("FLUSHALL");
    assert_eq!(expected(&db, "GET k"), 0);
}
