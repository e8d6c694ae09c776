//! Strings and keys: every reply and error as redis-server 7.0.15 gives them.

use super::Db;
use crate::kv::StoreLimits;
use groups::Ms;

#[test]
fn set_and_its_synonyms() {
    Db::new().play(
        r#"
        SET a 1 -> OK
        GET a -> "1"
        GET none -> nil
        SET a 2 NX -> nil
        SET a 2 XX -> OK
        SET b 2 XX -> nil
        SET a 3 GET -> "2"
        SET a 4 NX GET -> "3"
        SET c 4 get nx -> nil
        GET c -> "4"
        SETNX a 9 -> 0
        SETNX d 9 -> 1
        GETSET d 10 -> "9"
        GETSET e 1 -> nil
        GETDEL e -> "1"
        GETDEL e -> nil
        SET a b NX XX -> ERR syntax error
        SET a b EX -> ERR syntax error
        SET a b foo -> ERR syntax error
        SET a b EX 1 PX 1 -> ERR syntax error
        SET a b EX 1 EX 2 -> OK
        SET a b KEEPTTL EX 1 -> ERR syntax error
        SET a b PERSIST -> ERR syntax error
        SET a b EX 0 -> ERR invalid expire time in 'set' command
        SET a b EXAT -5 -> ERR invalid expire time in 'set' command
        SET a b EX abc -> ERR value is not an integer or out of range
        SET a b EX 9223372036854775807 -> ERR invalid expire time in 'set' command
        SET a b PX 9223372036854775807 -> ERR invalid expire time in 'set' command
        SET a b PXAT 9223372036854775807 -> OK
        SETEX a 0 b -> ERR invalid expire time in 'setex' command
        PSETEX a -1 b -> ERR invalid expire time in 'psetex' command
        SETEX a x b -> ERR value is not an integer or out of range
        GETEX a EX 0 -> ERR invalid expire time in 'getex' command
        GETEX a PERSIST EX 1 -> ERR syntax error
        GETEX a KEEPTTL -> ERR syntax error
        GETEX a GET -> ERR syntax error
        GETEX none EX 5 -> nil
        GETEX none EX 0 -> nil
        GETEX none EX abc -> nil
        GETEX none PXAT -5 -> nil
        GETEX none FOO -> ERR syntax error
        GETEX a EX abc -> ERR value is not an integer or out of range
        GETEX a EX 9223372036854775807 -> ERR invalid expire time in 'getex' command
        "#,
    );
}

#[test]
fn many_keys_at_once() {
    Db::new().play(
        r#"
        MSET a 1 b 2 a 3 -> OK
        MGET a b none a -> ["3" "2" nil "3"]
        MSETNX c 1 a 9 -> 0
        GET c -> nil
        MSETNX c 1 d 1 -> 1
        MSET a -> ERR wrong number of arguments for 'mset' command
        MSET a b c -> ERR wrong number of arguments for 'mset' command
        MSETNX a b c -> ERR wrong number of arguments for 'msetnx' command
        EXISTS a a none -> 2
        TOUCH a b none -> 2
        DEL a a none -> 1
        UNLINK b -> 1
        DBSIZE -> 2
        FLUSHALL ASYNC -> OK
        DBSIZE -> 0
        FLUSHDB foo -> ERR syntax error
        FLUSHALL async sync -> ERR syntax error
        "#,
    );
}

#[test]
fn parts_of_strings() {
    Db::new().play(
        r#"
        APPEND a hello -> 5
        APPEND a world -> 10
        STRLEN a -> 10
        STRLEN none -> 0
        GETRANGE a 0 4 -> "hello"
        SUBSTR a -5 -1 -> "world"
        GETRANGE a 5 100 -> "world"
        GETRANGE a 10 12 -> ""
        GETRANGE a -1 -5 -> ""
        GETRANGE a -9223372036854775808 9223372036854775807 -> "helloworld"
        GETRANGE none 0 -1 -> ""
        GETRANGE a x 1 -> ERR value is not an integer or out of range
        SETRANGE a 5 WORLD -> 10
        SETRANGE a 12 ! -> 13
        GET a -> "helloWORLD\x00\x00!"
        SETRANGE b 3 abc -> 6
        GET b -> "\x00\x00\x00abc"
        SETRANGE a -1 x -> ERR offset is out of range
        SETRANGE a abc x -> ERR value is not an integer or out of range
        SETRANGE a 9223372036854775807 x -> ERR string exceeds maximum allowed size (proto-max-bulk-len)
        "#,
    );
    let mut db = Db::new();
    assert_eq!(db.ask_words(&[b"SETRANGE", b"none", b"5", b""]), "0");
    assert_eq!(db.ask("EXISTS none"), "0");
}

#[test]
fn a_value_stays_within_its_limit() {
    let mut db = Db::with(StoreLimits { value_bytes_max: 10, ..StoreLimits::default() });
    db.play(
        "
        APPEND a 1234567890 -> 10
        APPEND a x -> ERR string exceeds maximum allowed size (proto-max-bulk-len)
        SETRANGE a 9 x -> 10
        SETRANGE a 10 x -> ERR string exceeds maximum allowed size (proto-max-bulk-len)
        STRLEN a -> 10
        ",
    );
}

#[test]
fn counters() {
    Db::new().play(
        r#"
        INCR n -> 1
        INCRBY n 41 -> 42
        DECR n -> 41
        DECRBY n 1 -> 40
        DECRBY n -2 -> 42
        GET n -> "42"
        SET n 9223372036854775807 -> OK
        INCR n -> ERR increment or decrement would overflow
        DECRBY n -9223372036854775808 -> ERR decrement would overflow
        INCRBY n abc -> ERR value is not an integer or out of range
        SET s 05 -> OK
        INCR s -> ERR value is not an integer or out of range
        INCRBYFLOAT n 1 -> "9223372036854775808"
        SET f 10.50 -> OK
        INCRBYFLOAT f 0.1 -> "10.6"
        INCRBYFLOAT f -5 -> "5.6"
        INCRBYFLOAT none 3.0e3 -> "3000"
        INCRBYFLOAT f abc -> ERR value is not a valid float
        INCRBYFLOAT f 0x -> ERR value is not a valid float
        INCRBYFLOAT h 0x1p-3 -> "0.125"
        INCRBYFLOAT h 12345678901234567890.123456789 -> "12345678901234567890"
        INCRBYFLOAT f nan -> ERR value is not a valid float
        INCRBYFLOAT f inf -> ERR increment would produce NaN or Infinity
        SET t text -> OK
        INCRBYFLOAT t 1 -> ERR value is not a valid float
        "#,
    );
}

#[test]
fn names() {
    Db::new().play(
        r#"
        SET a 1 EX 100 -> OK
        RENAME a b -> OK
        TTL b -> 100
        EXISTS a -> 0
        RENAME none b -> ERR no such key
        RENAMENX none b -> ERR no such key
        SET c 3 -> OK
        RENAMENX b c -> 0
        RENAMENX b d -> 1
        RENAME c c -> OK
        RENAMENX c c -> 0
        RENAME d c -> OK
        GET c -> "1"
        COPY c e -> 1
        TTL e -> 100
        SET f 9 -> OK
        COPY f e -> 0
        COPY f e REPLACE DB 0 -> 1
        GET e -> "9"
        TTL e -> -1
        COPY none e -> 0
        COPY a b DB 1 -> ERR DB index is out of range
        COPY a b DB abc -> ERR value is not an integer or out of range
        COPY a b DB -> ERR syntax error
        COPY a b foo -> ERR syntax error
        COPY a a -> ERR source and destination objects are the same
        TYPE e -> string
        TYPE none -> none
        OBJECT ENCODING e -> "int"
        OBJECT REFCOUNT e -> 1
        OBJECT IDLETIME e -> 0
        OBJECT ENCODING none -> nil
        OBJECT FREQ none -> nil
        SET l aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeee -> OK
        OBJECT ENCODING l -> "embstr"
        APPEND l f -> 45
        OBJECT ENCODING l -> "raw"
        "#,
    );
}

#[test]
fn requests_that_are_not_for_the_store() {
    Db::new().play(
        r#"
        PING -> PONG
        PING hello -> "hello"
        ECHO hello -> "hello"
        PING a b -> ERR wrong number of arguments for 'ping' command
        INFO -> ERR Command not allowed inside a transaction
        CLIENT LIST -> ERR Command not allowed inside a transaction
        CLIENT KILL a b -> ERR Command not allowed inside a transaction
        CLUSTER KEYSLOT a -> ERR Command not allowed inside a transaction
        "#,
    );
}

#[test]
fn memory_is_counted_both_ways() {
    let mut db = Db::new();
    let empty = db.store.bytes();
    db.play(
        r#"
        SET a 12345 EX 5 -> OK
        APPEND a 678 -> 8
        SETRANGE a 20 x -> 21
        INCR n -> 1
        RENAME a b -> OK
        COPY b c -> 1
        SET n 100 -> OK
        "#,
    );
    assert!(db.store.bytes() > empty + 2 * 22 + 4);
    db.play("DEL b n -> 2");
    db.pass(Ms(6_000));
    assert_eq!((db.store.len(), db.store.bytes()), (0, empty));
}
