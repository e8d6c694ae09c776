//! Tests of time: absolute expiry, durations, due keys, and reads that wait for the group's time.

use super::{Db, START_MS};
use crate::kv::table::lookup;
use crate::kv::{ExpiryPending, ParseContext, StoreLimits, parse};
use groups::Ms;

#[test]
fn lifetimes_are_told_in_every_unit() {
    Db::new().play(&format!(
        "
        SET a 1 -> OK
        TTL a -> -1
        PTTL none -> -2
        EXPIRE a 100 -> 1
        TTL a -> 100
        PTTL a -> 100000
        EXPIRETIME a -> {}
        PEXPIRETIME a -> {}
        PERSIST a -> 1
        PERSIST a -> 0
        EXPIRETIME a -> -1
        PEXPIREAT a {} -> 1
        TTL a -> 2
        ",
        (START_MS + Ms(100_000)).0 / 1000,
        START_MS + Ms(100_000),
        START_MS + Ms(1_500),
    ));
}

#[test]
fn expire_obeys_its_conditions() {
    Db::new().play(
        "
        SET a 1 -> OK
        EXPIRE a 100 XX -> 0
        EXPIRE a 100 GT -> 0
        EXPIRE a 100 LT -> 1
        EXPIRE a 200 NX -> 0
        EXPIRE a 50 GT -> 0
        EXPIRE a 50 LT XX -> 1
        EXPIRE a 200 GT XX -> 1
        TTL a -> 200
        EXPIRE none 10 -> 0
        EXPIRE a 10 foo -> ERR Unsupported option foo
        EXPIRE a 10 NX XX -> ERR NX and XX, GT or LT options at the same time are not compatible
        EXPIRE a 10 NX GT -> ERR NX and XX, GT or LT options at the same time are not compatible
        EXPIRE a 10 GT LT -> ERR GT and LT options at the same time are not compatible
        EXPIRE a abc -> ERR value is not an integer or out of range
        EXPIRE a 9223372036854775807 -> ERR invalid expire time in 'expire' command
        EXPIRE a -9223372036854775808 -> ERR invalid expire time in 'expire' command
        PEXPIRE a 9223372036854775807 -> ERR invalid expire time in 'pexpire' command
        PEXPIREAT a 0 GT -> 0
        PEXPIREAT a -5 LT -> 1
        EXISTS a -> 0
        ",
    );
}

#[test]
fn a_time_in_the_past_removes_at_once() {
    Db::new().play(
        r#"
        SET a 1 -> OK
        SET a 2 EXAT 1 -> OK
        EXISTS a -> 0
        SET a 1 -> OK
        GETEX a PXAT 5 -> "1"
        EXISTS a -> 0
        SET a 1 -> OK
        EXPIRE a -1 -> 1
        DBSIZE -> 0
        "#,
    );
}

#[test]
fn overwriting_forgets_expiry_and_changing_keeps_it() {
    Db::new().play(
        r#"
        SETEX a 100 1 -> OK
        SET a 2 -> OK
        TTL a -> -1
        PSETEX a 100000 1 -> OK
        SET a 2 KEEPTTL -> OK
        INCR a -> 3
        INCRBYFLOAT a 1 -> "4"
        APPEND a 5 -> 2
        SETRANGE a 0 9 -> 2
        TTL a -> 100
        GETEX a -> "95"
        TTL a -> 100
        GETEX a EX 50 -> "95"
        TTL a -> 50
        GETEX a PERSIST -> "95"
        TTL a -> -1
        SETEX a 100 1 -> OK
        GETSET a 2 -> "1"
        TTL a -> -1
        SETEX a 100 1 -> OK
        MSET a 2 -> OK
        TTL a -> -1
        "#,
    );
}

#[test]
fn a_due_key_is_absent_to_every_command_though_not_removed_yet() {
    let mut db = Db::with(StoreLimits { due_per_begin_max: 0, due_per_command_max: 0, ..StoreLimits::default() });
    for key in 'a'..='z' {
        assert_eq!(db.ask(&format!("SET {key} 5 PX 10")), "OK");
    }
    db.pass(Ms(10));
    assert_eq!(db.store.len(), 26);
    db.play(
        r#"
        GET a -> nil
        EXISTS a b -> 0
        TTL a -> -2
        DBSIZE -> 0
        RANDOMKEY -> nil
        KEYS * -> []
        SCAN 0 COUNT 100 -> ["0" []]
        SET a 1 XX -> nil
        SET a 1 GET -> nil
        SET b 1 NX -> OK
        SET c 1 KEEPTTL -> OK
        TTL c -> -1
        GETDEL d -> nil
        GETEX e EX 100 -> nil
        MSETNX f 1 g 1 -> 1
        APPEND h x -> 1
        SETRANGE i 2 x -> 3
        GET i -> "\x00\x00x"
        INCR j -> 1
        INCRBYFLOAT k 1 -> "1"
        DEL l m -> 0
        EXPIRE n 100 -> 0
        PERSIST o -> 0
        RENAME p q -> ERR no such key
        RENAMENX j r -> 1
        COPY s t -> 0
        COPY r u -> 1
        DBSIZE -> 10
        "#,
    );
    // Some due keys were overwritten or removed on the way. Later instances remove the rest, and nothing else.
    db.store.limits.due_per_begin_max = 1000;
    db.pass(Ms(0));
    assert_eq!(db.store.len(), 10);
    assert_eq!(db.store.next_due_ms(), None);
}

#[test]
fn an_instance_removes_a_bounded_number_in_order() {
    let mut db = Db::with(StoreLimits { due_per_begin_max: 3, ..StoreLimits::default() });
    for n in 1..=10 {
        assert_eq!(db.ask(&format!("SET k{n} v PX {n}")), "OK");
    }
    assert_eq!(db.store.next_due_ms(), Some(START_MS + Ms(1)));
    db.pass(Ms(5));
    assert_eq!((db.store.len(), db.store.next_due_ms()), (7, Some(START_MS + Ms(4))));
    db.store.begin(START_MS); // time never goes back
    assert_eq!((db.store.len(), db.store.time_ms()), (5, START_MS + Ms(5)));
    db.pass(Ms(0));
    assert_eq!((db.store.len(), db.store.next_due_ms()), (5, Some(START_MS + Ms(6))));
}

#[test]
fn a_reader_waits_where_the_leaders_clock_is_ahead() {
    let mut db = Db::new();
    db.play("MSET a 1 b 2 -> OK\nPEXPIRE a 100 -> 1");
    db.now_ms += Ms(99);
    assert_eq!(db.read("GET a").as_deref(), Ok("\"1\""));
    assert_eq!(db.read("PTTL a").as_deref(), Ok("1"));
    assert_eq!(db.read("DBSIZE").as_deref(), Ok("2"));
    db.now_ms += Ms(1);
    for request in
        ["GET a", "MGET b a", "PTTL a", "DBSIZE", "KEYS *", "SCAN 0", "EXISTS a", "CLUSTER COUNTKEYSINSLOT 15495"]
    {
        assert_eq!(db.read(request), Err(ExpiryPending), "{request}");
    }
    assert_eq!(db.read("GET b").as_deref(), Ok("\"2\""));
    assert_eq!(db.read("SCAN 0 MATCH b").as_deref(), Ok("[\"0\" [\"b\"]]"));
    db.store.begin(db.now_ms);
    assert_eq!(db.read("GET a").as_deref(), Ok("nil"));
    assert_eq!(db.read("DBSIZE").as_deref(), Ok("1"));
}

#[test]
fn a_read_refuses_to_write() {
    let db = Db::new();
    assert_eq!(db.read("SET a 1").as_deref(), Ok("ERR a command that writes must go through the log"));
}

#[test]
fn due_keys_do_not_pile_up_under_a_stream_of_new_ones() {
    let mut db = Db::with(StoreLimits { due_per_begin_max: 1, ..StoreLimits::default() });
    for n in 0..1_000 {
        for k in 0..10 {
            db.ask(&format!("SET {n}:{k} v PX 5"));
        }
        db.pass(Ms(1));
    }
    assert!(db.store.len() < 100, "{}", db.store.len());
}

#[test]
fn durations_count_from_the_time_of_the_value_and_not_from_any_other_clock() {
    let mut db = Db::new();
    let asked_at = |db: &mut Db, clock_ms: Ms, request: &str| {
        let real_ms = std::mem::replace(&mut db.now_ms, clock_ms);
        let reply = db.ask(request);
        db.now_ms = real_ms;
        reply
    };
    // The clock of the asked node is eight hours slow or fast. The store does not notice.
    for clock_ms in [START_MS - Ms(28_800_000), START_MS + Ms(28_800_000)] {
        for request in ["SET a 1 EX 30", "SETEX a 30 1", "SET a 1 PX 30000", "PSETEX a 30000 1"] {
            assert_eq!(asked_at(&mut db, clock_ms, request), "OK");
            db.play(&format!("PTTL a -> 30000\nPEXPIRETIME a -> {}\nDEL a -> 1", START_MS + Ms(30_000)));
        }
        for request in ["EXPIRE a 30", "PEXPIRE a 30000 NX", "GETEX a EX 30", "GETEX a PX 30000"] {
            db.play("SET a 1 -> OK");
            asked_at(&mut db, clock_ms, request);
            db.play("PTTL a -> 30000\nDEL a -> 1");
        }
        assert_eq!(asked_at(&mut db, clock_ms, "SET lock mine NX EX 30"), "OK");
        assert_eq!(asked_at(&mut db, clock_ms, "SET lock yours NX EX 30"), "nil");
        db.play("DEL lock -> 1");
    }
}

#[test]
fn durations_become_times_where_a_member_does_not_know_them() {
    let db = Db::new();
    let bodies = |durations| {
        ["SET a 1 EX 30", "GETEX a PX 5", "EXPIRE a 7 GT", "SETEX a 9 1"].map(|request| {
            let words: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
            let context = ParseContext { cluster_ms: db.now_ms, durations, seed: 0 };
            let command = parse(lookup(&words).unwrap(), &words, context).unwrap();
            (command.value_version(), super::encoded(&command)[0])
        })
    };
    assert_eq!(bodies(false), [(1, 1); 4]);
    assert_eq!(bodies(true), [(3, groups::MACHINE_OF_VERSION_3); 4]);
}
