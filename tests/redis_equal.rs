//! The store against a real redis-server: random sequences of commands on a few keys get equal replies, byte by byte.
//!
//! Accepted differences: times may be up to 2 s apart, KEYS is unordered, RANDOMKEY may return any key, the numbers of
//! OBJECT may differ, and DBSIZE of Redis counts expired keys until Redis deletes them. The sequences leave out what
//! differs in other ways.

#[path = "common/redis_server.rs"]
mod redis_server;

use bytes::BytesMut;
use groups::Ms;
use net::outbound::Outbound;
use net::resp::Protocol;
use paxoi::kv::encode::encode;
use paxoi::kv::reply::Reply;
use paxoi::kv::table::lookup;
use paxoi::kv::{ParseContext, Store, StoreLimits, parse};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use redis_server::RedisServer;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{SystemTime, UNIX_EPOCH};

#[test]
fn random_commands_get_the_replies_of_redis() {
    let Some(mut redis) = Redis::start() else {
        assert!(std::env::var_os("PAXOI_REQUIRE_TOOLS").is_none(), "redis-server is not installed");
        eprintln!("skipped: no redis-server");
        return;
    };
    let seed = [7; 32];
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    for round in 0..20 {
        let mut store = Store::new([9; 16], 0..16_384, StoreLimits::default());
        redis.ask(&["FLUSHALL".to_owned()]);
        for step in 0..500 {
            let request = request().new_tree(&mut runner).expect("a request").current();
            let (theirs, ours) = (redis.ask(&request), ask(&mut store, &request));
            assert!(
                alike(&request[0], &theirs, &ours),
                "round {round}, step {step}: {request:?}\nredis: {}\npaxoi: {}",
                theirs.escape_ascii(),
                ours.escape_ascii()
            );
        }
    }
}

/// Generates one request: a command with words that are mostly valid.
fn request() -> impl Strategy<Value = Vec<String>> {
    let forms = FORMS.lines().map(str::trim).filter(|form| !form.is_empty()).collect::<Vec<_>>();
    (prop::sample::select(forms), prop::collection::vec(any::<prop::sample::Index>(), 12)).prop_map(|(form, draws)| {
        let mut draws = draws.into_iter();
        let mut draw = |choices: &[&str]| (*draws.next().expect("few words").get(choices)).to_owned();
        let word = |word: &str| match word {
            "key" => draw(&["a", "b", "c", "d"]),
            "fkey" => draw(&["f", "g"]),
            "value" => draw(&["1", "-7", "text", "", "9223372036854775807", "007", "3.5", "a longer text with spaces"]),
            "int" => draw(&[
                "0",
                "1",
                "-1",
                "5",
                "-3",
                "10",
                "100",
                "9223372036854775807",
                "-9223372036854775808",
                "x",
                "1.5",
                "+1",
                "",
            ]),
            "offset" => draw(&["0", "1", "5", "20", "-1", "x", "536870912", "9223372036854775807"]),
            "float" => draw(&FLOATS),
            "seconds" => draw(&["1000", "2000", "-1", "0", "x", "9223372036854775807", "-9223372036854775808"]),
            "at" => draw(&["1", "-5", "99999999999", "x", "9223372036854775807"]),
            "setoption" => {
                draw(&["NX", "XX", "GET", "KEEPTTL", "EX", "PX", "EXAT", "1000", "2000", "99999999999", "0", "foo"])
            }
            "if" => draw(&["NX", "XX", "GT", "LT", "foo"]),
            "pattern" => draw(&["*", "a", "?", "[a-c]", "[^a]", "\\a", "[", "*b*", ""]),
            literal => literal.to_owned(),
        };
        form.split(' ').map(word).collect()
    })
}

/// Arguments of INCRBYFLOAT: short, long, at the limits, in other forms, and not numbers.
const FLOATS: [&str; 32] = [
    "0.5",
    "-1.25",
    "3e0",
    "0.1",
    "-0.1",
    ".5",
    "2.",
    "-0",
    "0.33333333333333333333333333",
    "-12345.678901234567890123456789",
    "1e-17",
    "4.9999999999999999e-18",
    "1e-30",
    "12345678901234567890.123456789",
    "-18446744073709551615",
    "18446744073709551617.5",
    "1e22",
    "-1e309",
    "1.1e4932",
    "-1.1e4932",
    "1e-4951",
    "3.6e-4951",
    "0x1F",
    "-0x.8p-3",
    "0X1.8p64",
    "0x1p16384",
    "0x",
    "1e",
    "x",
    "",
    "nan",
    "inf",
];

const FORMS: &str = "
    GET key
    SET key value
    SET key value setoption
    SET key value setoption setoption
    SET key value setoption setoption setoption
    SET key value EX seconds
    SET key value PXAT at XX
    SETNX key value
    SETEX key seconds value
    PSETEX key seconds value
    GETSET key value
    GETDEL key
    GETEX key
    GETEX key PERSIST
    GETEX key EX 1000
    GETEX key EXAT 1
    GETEX key EX 1000 PERSIST
    GETEX key EX seconds
    GETEX key PX seconds
    GETEX key EXAT at
    GETEX key PXAT at FOO
    MGET key key key
    MSET key value key value
    MSET key value key
    MSETNX key value key value
    APPEND key value
    STRLEN key
    GETRANGE key int int
    SUBSTR key int int
    SETRANGE key offset value
    INCR key
    DECR key
    INCRBY key int
    DECRBY key int
    INCRBYFLOAT fkey float
    INCRBYFLOAT fkey float
    SET fkey float
    SET fkey 1.5
    DEL key key
    UNLINK key
    EXISTS key key key
    TOUCH key key
    TYPE key
    EXPIRE key seconds
    EXPIRE key seconds if
    EXPIRE key seconds if if
    PEXPIRE key seconds if
    PEXPIRE key 1000000
    EXPIREAT key at
    PEXPIREAT key at if
    TTL key
    PTTL key
    EXPIRETIME key
    PEXPIRETIME key
    PERSIST key
    RENAME key key
    RENAMENX key key
    COPY key key
    COPY key key REPLACE
    COPY key key DB x
    KEYS pattern
    DBSIZE
    RANDOMKEY
    OBJECT ENCODING
    OBJECT foo key
    OBJECT IDLETIME key
    PING
    PING value
    PING value value
    ECHO value
    nonsense value value
    GET
    SCAN x
    SCAN 0 COUNT 0
    SCAN 0 MATCH
    SCAN 0 COUNT 1000 MATCH nothing TYPE string
    SCAN 0 TYPE list COUNT 1000
    FLUSHALL foo
    COMMAND COUNT x
    COMMAND GETKEYS MSET key value key value
    COMMAND GETKEYS GET key key
    COMMAND foo
";

/// Returns true if two replies are equal, apart from the accepted differences.
fn alike(name: &str, theirs: &[u8], ours: &[u8]) -> bool {
    let number = |reply: &[u8]| std::str::from_utf8(reply).ok()?.trim().strip_prefix(':')?.parse::<i64>().ok();
    let within = |slack: i64| match (number(theirs), number(ours)) {
        (Some(a), Some(b)) => a.abs_diff(b) <= slack as u64 && (a < 0) == (b < 0),
        _ => theirs == ours,
    };
    let sorted = |reply: &[u8]| {
        let mut bytes = reply.to_vec();
        bytes.sort_unstable();
        bytes
    };
    match name {
        "TTL" | "EXPIRETIME" => within(1),
        "PTTL" | "PEXPIRETIME" => within(2_000),
        // Redis counts expired keys until it deletes them.
        "DBSIZE" => number(ours) <= number(theirs),
        "KEYS" => sorted(theirs) == sorted(ours),
        "RANDOMKEY" => theirs.starts_with(b"$-1") == ours.starts_with(b"$-1"),
        "OBJECT" => theirs == ours || number(theirs).is_some() && number(ours).is_some(),
        _ => theirs == ours,
    }
}

/// Returns the store's reply as RESP2.
fn ask(store: &mut Store, request: &[String]) -> Vec<u8> {
    let words: Vec<&[u8]> = request.iter().map(String::as_bytes).collect();
    let now = Ms(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64);
    store.begin(now);
    let mut out = Outbound::new();
    let mut body = BytesMut::new();
    let command = lookup(&words).and_then(|spec| match request[0].as_str() {
        "COMMAND" => Err(paxoi::kv::docs::command(spec.verb, &words)),
        _ => parse(spec, &words, ParseContext { cluster_ms: now, durations: true, seed: 3 }),
    });
    let reply: Reply<'_> = match command {
        Ok(command) => {
            encode(&command, &mut body);
            store.apply(&body)
        }
        Err(reply) => reply,
    };
    reply.write(Protocol::Resp2, &mut out);
    out.take_bytes().to_vec()
}

/// A redis-server of our own.
struct Redis {
    connection: BufReader<TcpStream>,
    _server: RedisServer,
}

impl Redis {
    /// Starts a redis-server; `None` if it is not installed.
    fn start() -> Option<Redis> {
        let server = RedisServer::start()?;
        let connection = BufReader::new(TcpStream::connect(server.address).expect("a connection"));
        Some(Redis { connection, _server: server })
    }

    fn ask(&mut self, request: &[String]) -> Vec<u8> {
        let mut bytes = format!("*{}\r\n", request.len());
        for word in request {
            bytes += &format!("${}\r\n{word}\r\n", word.len());
        }
        self.connection.get_mut().write_all(bytes.as_bytes()).expect("sent");
        let mut reply = Vec::new();
        self.receive(&mut reply);
        reply
    }

    /// Reads one whole reply, and appends it to `reply` as it came.
    fn receive(&mut self, reply: &mut Vec<u8>) {
        let start = reply.len();
        self.connection.read_until(b'\n', reply).expect("a line");
        let line = String::from_utf8_lossy(&reply[start..]).into_owned();
        let count = line[1..].trim().parse::<i64>().unwrap_or(0).max(0) as usize;
        match line.as_bytes()[0] {
            b'$' if !line.starts_with("$-1") => {
                let start = reply.len();
                reply.resize(start + count + 2, 0);
                self.connection.read_exact(&mut reply[start..]).expect("a string");
            }
            b'*' => (0..count).for_each(|_| self.receive(reply)),
            _ => {}
        }
    }
}
