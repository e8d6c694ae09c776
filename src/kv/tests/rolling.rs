//! The rolling digest, which continues with every change, and the changes that it tells apart.

use super::Db;
use groups::Ms;

/// Requests: one for both stores, then a different one for each store.
const PAIRS: &[(&str, &str, &str)] = &[
    ("SET k 1", "SET k 1", "GET k"),
    ("SET k 1", "SET k 2", "SET k 3"),
    ("SET k 1", "SET k aaaaaaaa-bbbbbbbb", "SET k aaaaaaaa-bbbbbbbc"),
    ("SET k 1", "SET k 2", "SET l 2"),
    ("SET k 1", "SET k 1 PX 10", "SET k 1 PX 11"),
    ("SET k 1", "APPEND k a", "APPEND k b"),
    ("SET k 1", "SETRANGE k 1 a", "SETRANGE k 2 a"),
    ("SET k 1", "INCR k", "DECR k"),
    ("SET k 1", "INCRBYFLOAT k 1.5", "INCRBYFLOAT k 1.25"),
    ("SET k 1", "INCRBYFLOAT k 1e300", "INCRBYFLOAT k 1.0000000000000000001e300"),
    ("SET k 1", "PEXPIRE k 10", "PEXPIRE k 11"),
    ("SET k 1 PX 100", "PERSIST k", "PEXPIRE k 11"),
    ("SET k 1 PX 100", "GETEX k PERSIST", "GETEX k"),
    ("SET k 1", "DEL k", "DEL l"),
    ("SET k 1", "RENAME k l", "COPY k l"),
    ("SET k 1", "FLUSHALL", "DEL k"),
    ("SET k 1", "SESSION NEW", "DBSIZE"),
];

#[test]
fn every_change_goes_into_it() {
    for (both, one, other) in PAIRS {
        let digest = |request: &str| {
            let mut db = Db::new();
            db.ask(both);
            let before = db.store.rolling_digest();
            db.ask(request);
            (before, db.store.rolling_digest())
        };
        let ((before, one_after), (_, other_after)) = (digest(one), digest(other));
        assert_eq!(digest(one), (before, one_after), "{one}: it is the same each time");
        assert_ne!(before, one_after, "{one}");
        assert_ne!(one_after, other_after, "{one} or {other}");
    }
}

#[test]
fn a_command_that_makes_something_of_the_state_shows_what_it_found() {
    for request in ["INCR k", "INCRBYFLOAT k 1", "APPEND k x", "RENAME k l", "COPY k l", "DEL k"] {
        let after = |value: &str| {
            let mut db = Db::new();
            db.ask("SET k 7");
            // The value changes and the digest does not, as if memory had changed by itself.
            let digest = std::mem::take(&mut db.store.rolling);
            db.ask(&format!("SET k {value}"));
            db.store.rolling = digest;
            db.ask(request);
            db.store.rolling_digest()
        };
        assert_eq!(after("7"), after("7"));
        assert_ne!(after("7"), after("17"), "{request}");
    }
}

#[test]
fn keys_that_are_due_go_out_of_it_with_the_time_of_the_log() {
    let mut one = Db::new();
    one.ask("SET k 1 PX 5");
    let before = one.store.rolling_digest();
    one.pass(Ms(10));
    let mut other = Db::new();
    other.ask("SET k 1 PX 5");
    assert_eq!(other.store.rolling_digest(), before);
    other.pass(Ms(4));
    other.pass(Ms(6));
    assert_eq!(one.store.digest(), other.store.digest());
    assert_ne!(one.store.rolling_digest(), other.store.rolling_digest());
}
