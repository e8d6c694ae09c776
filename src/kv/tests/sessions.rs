//! Exactly-once execution: a repetition gets the first reply again or a refusal, and is never executed.

use super::Db;
use crate::kv::StoreLimits;
use crate::kv::session::SessionId;
use groups::Ms;

const EXPIRED: &str = "ONCEEXPIRED the command was not executed now, but may have been executed before";
const UNKNOWN: &str = "ERR unknown session: open one with SESSION NEW";

fn session(db: &mut Db) -> String {
    db.ask("SESSION NEW").trim_matches('"').to_owned()
}

#[test]
fn a_repetition_gets_the_first_reply_errors_too() {
    let mut db = Db::new();
    let id = session(&mut db);
    for _ in 0..3 {
        assert_eq!(db.ask(&format!("ONCE {id} 1 INCR n")), "1");
        assert_eq!(db.ask(&format!("ONCE {id} 2 APPEND n x")), "2");
        assert_eq!(db.ask(&format!("ONCE {id} 3 INCR n")), "ERR value is not an integer or out of range");
        assert_eq!(db.ask(&format!("ONCE {id} 5 MGET n none")), "[\"1x\" nil]");
        assert_eq!(db.ask(&format!("ONCE {id} 6 TYPE n")), "string");
        assert_eq!(db.ask(&format!("ONCE {id} 7 PING")), "PONG");
    }
    assert_eq!(db.ask("SET n 5"), "OK");
    assert_eq!(db.ask(&format!("ONCE {id} 4 INCR n")), "6", "unseen in the window: executed");
    assert_eq!(db.ask(&format!("ONCE {id} 4 INCR n")), "6");
    assert_eq!(db.ask("GET n"), "\"6\"");
}

#[test]
fn a_relative_expiry_sent_again_is_the_same_command() {
    let mut db = Db::new();
    let id = session(&mut db);
    assert_eq!(db.ask(&format!("ONCE {id} 1 SET a 1 EX 100")), "OK");
    db.pass(Ms(10_000));
    assert_eq!(db.ask(&format!("once {id} 1 set a 1 EX 100")), "OK");
    assert_eq!(db.ask("TTL a"), "90");
    assert_eq!(
        db.ask(&format!("ONCE {id} 1 SET a 2 EX 100")),
        "ERR this number of the session was used for another command"
    );
}

#[test]
fn the_window_moves_with_the_highest_number() {
    let mut db = Db::new();
    let id = session(&mut db);
    assert_eq!(db.ask(&format!("ONCE {id} 1 INCR n")), "1");
    assert_eq!(db.ask(&format!("ONCE {id} 64 INCR n")), "2");
    assert_eq!(db.ask(&format!("ONCE {id} 1 INCR n")), "1", "the last of 64");
    assert_eq!(db.ask(&format!("ONCE {id} 65 INCR n")), "3");
    assert_eq!(db.ask(&format!("ONCE {id} 1 INCR n")), EXPIRED);
    assert_eq!(db.ask(&format!("ONCE {id} 2 INCR n")), "4");
    let top = u64::MAX;
    assert_eq!(db.ask(&format!("ONCE {id} {top} INCR n")), "5");
    assert_eq!(db.ask(&format!("ONCE {id} {} INCR n", top - 63)), "6");
    assert_eq!(db.ask(&format!("ONCE {id} {} INCR n", top - 64)), EXPIRED);
    assert_eq!(db.ask(&format!("ONCE {id} {top} INCR n")), "5");
}

#[test]
fn ids_that_were_never_issued_are_refused() {
    let mut db = Db::new();
    let id = session(&mut db);
    assert_eq!(id.len(), 40);
    for forged in ["x", &"0".repeat(40), &"g".repeat(40), &id[..39]] {
        assert_eq!(db.ask(&format!("ONCE {forged} 1 INCR n")), UNKNOWN);
    }
    for at in [0, 13, 17, 23, 39] {
        let mut forged = id.clone().into_bytes();
        forged[at] = if forged[at] == b'0' { b'1' } else { b'0' };
        let forged = String::from_utf8(forged).unwrap();
        assert_eq!(db.ask(&format!("ONCE {forged} 1 INCR n")), UNKNOWN);
    }
    // Any group of the cluster recognizes the session id by its checksum alone.
    let mut other = Db::new();
    assert_eq!(other.ask(&format!("ONCE {} 1 INCR n", id.to_uppercase())), "1");
    assert_eq!(SessionId::parse(id.as_bytes()).unwrap().text(), id);
    assert_ne!(session(&mut db), id);
}

#[test]
fn wrong_requests_are_not_executed() {
    let mut db = Db::new();
    let id = session(&mut db);
    let store_only = "ERR ONCE takes a command that reads or writes keys";
    for (request, reply) in [
        (format!("ONCE {id} 0 INCR n"), "ERR value is not an integer or out of range"),
        (format!("ONCE {id} -1 INCR n"), "ERR value is not an integer or out of range"),
        (format!("ONCE {id} 1 INCR"), "ERR wrong number of arguments for 'incr' command"),
        (format!("ONCE {id} 1 foo"), "ERR unknown command 'foo', with args beginning with: "),
        (format!("ONCE {id} 1 SET n"), "ERR wrong number of arguments for 'set' command"),
        (format!("ONCE {id} 1 EXEC"), store_only),
        (format!("ONCE {id} 1 SESSION NEW"), store_only),
        (format!("ONCE {id} 1 ONCE {id} 2 INCR n"), store_only),
        (format!("ONCE {id} 1 INFO"), store_only),
        (format!("ONCE {id} 1"), "ERR wrong number of arguments for 'once' command"),
    ] {
        assert_eq!(db.ask(&request), reply, "{request}");
    }
    assert_eq!(db.ask(&format!("ONCE {id} 1 INCR n")), "1");
}

#[test]
fn an_old_session_is_refused_and_forgotten() {
    let mut db = Db::with(StoreLimits { session_ttl_ms: Ms(1_000), ..StoreLimits::default() });
    let id = session(&mut db);
    assert_eq!(db.ask(&format!("ONCE {id} 1 INCR n")), "1");
    db.pass(Ms(999));
    assert_eq!(db.ask(&format!("ONCE {id} 1 INCR n")), "1");
    let bytes = db.store.sessions.bytes();
    assert!(bytes > 0);
    db.pass(Ms(1));
    assert_eq!(db.ask(&format!("ONCE {id} 1 INCR n")), EXPIRED);
    assert_eq!(db.ask(&format!("ONCE {id} 2 INCR n")), EXPIRED);
    assert_eq!(db.store.sessions.bytes(), 0);
}

#[test]
fn eviction_refuses_whoever_might_have_been_forgotten() {
    let mut db = Db::with(StoreLimits { sessions_max: 2, ..StoreLimits::default() });
    let mut born = Vec::new();
    for _ in 0..3 {
        db.pass(Ms(10));
        born.push(session(&mut db));
    }
    let unused = session(&mut db); // born together with the third
    for (id, reply) in [(&born[1], "1"), (&born[2], "2")] {
        assert_eq!(db.ask(&format!("ONCE {id} 1 INCR n")), reply);
    }
    // The oldest session arrives last. Its command is executed, and the session is forgotten at once: there is room for
    // only two.
    assert_eq!(db.ask(&format!("ONCE {} 1 INCR n", born[0])), "3");
    assert_eq!(db.ask(&format!("ONCE {} 1 INCR n", born[0])), EXPIRED);
    assert_eq!(db.ask(&format!("ONCE {} 1 INCR n", born[1])), "1");
    // One more session raises the floor to the birth time of the second.
    assert_eq!(db.ask(&format!("ONCE {unused} 1 INCR n")), "4");
    assert_eq!(db.ask(&format!("ONCE {} 1 INCR n", born[1])), EXPIRED);
    assert_eq!(db.ask(&format!("ONCE {} 1 INCR n", born[2])), "2");
    // The third and the unused session were born in the same millisecond. So one eviction refuses both.
    db.pass(Ms(10));
    let fresh = session(&mut db);
    assert_eq!(db.ask(&format!("ONCE {fresh} 1 INCR n")), "5");
    for id in [&born[2], &unused] {
        assert_eq!(db.ask(&format!("ONCE {id} 1 INCR n")), EXPIRED);
    }
}

#[test]
fn a_new_session_is_born_above_the_floor() {
    let mut db = Db::with(StoreLimits { sessions_max: 0, ..StoreLimits::default() });
    let id = session(&mut db);
    assert_eq!(db.ask(&format!("ONCE {id} 1 INCR n")), "1"); // forgotten at once: the floor is the present time
    let next = session(&mut db);
    assert_eq!(db.ask(&format!("ONCE {next} 1 INCR n")), "2");
    assert_eq!(db.ask(&format!("ONCE {next} 1 INCR n")), EXPIRED);
}

#[test]
fn kept_replies_are_bounded_in_bytes() {
    let limits = StoreLimits { session_reply_bytes_max: 100, session_bytes_max: 1_000, ..StoreLimits::default() };
    let mut db = Db::with(limits);
    let (long, id) = ("x".repeat(200), session(&mut db));
    assert_eq!(db.ask(&format!("ONCE {id} 1 GETSET a {long}")), "nil");
    assert_eq!(db.ask(&format!("ONCE {id} 2 GETSET a y")), format!("\"{long}\""));
    let too_long = "ERR the command was executed before; its reply was too long to keep";
    assert_eq!(db.ask(&format!("ONCE {id} 2 GETSET a y")), too_long);
    assert_eq!(db.ask("GET a"), "\"y\"");
    db.pass(Ms(1));
    let second = session(&mut db);
    for n in 1..=9 {
        assert_eq!(db.ask(&format!("ONCE {second} {n} ECHO {}", "z".repeat(20))), format!("\"{}\"", "z".repeat(20)));
    }
    assert_eq!(db.ask(&format!("ONCE {id} 1 GETSET a {long}")), EXPIRED);
    assert_eq!(db.ask(&format!("ONCE {second} 9 ECHO {}", "z".repeat(20))), format!("\"{}\"", "z".repeat(20)));
    assert!(db.store.sessions.bytes() <= 1_000);
}
