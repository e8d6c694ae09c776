//! The worst requests that a client may send for each command. The tests compile only if every command has its cases
//! here.

use crate::single::VALUE_BYTES_MAX;
use paxoi::config::{ARGS_MAX, LOCAL_BYTES_MAX, LOCAL_WORDS_MAX};
use paxoi::kv::glob::WILDCARDS_MAX;
use paxoi::kv::table::Verb;

pub(crate) type Request = Vec<Vec<u8>>;

/// The key of a large value that every command finds, besides the keys of [`Data`].
pub(crate) const BIG: &str = "{big}value";
pub(crate) const LONG_KEY_BYTES: usize = 100_000;

/// The content of the store.
pub(crate) struct Data {
    /// Number of keys `key:0` and so on, with short values.
    pub(crate) keys: usize,
    /// Number of keys that consist of [`LONG_KEY_BYTES`] letters `a` and a number.
    pub(crate) long_keys: usize,
}

/// Requests that are sent together. The test measures the longest turn of all of them, including those that only set up
/// the conditions of the last one.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) requests: Vec<Request>,
    /// True if the case changes data that other cases need.
    pub(crate) spoils: bool,
}

pub(crate) fn words(text: &str) -> Request {
    text.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

fn case(name: &'static str, requests: Vec<Request>) -> Case {
    Case { name, requests, spoils: false }
}

fn one(request: &str) -> Vec<Case> {
    vec![case("", vec![words(request)])]
}

fn spoiling(name: &'static str, requests: Vec<Request>) -> Case {
    Case { name, requests, spoils: true }
}

/// Returns a request with `count` words behind the name.
fn many(name: &str, count: usize, word: impl Fn(usize) -> String) -> Request {
    let mut request = words(name);
    request.extend((0..count).map(|n| word(n).into_bytes()));
    request
}

fn key(n: usize) -> String {
    format!("key:{n}")
}

fn value(bytes: usize) -> Vec<u8> {
    vec![b'v'; bytes]
}

fn with(text: &str, last: Vec<u8>) -> Request {
    let mut request = words(text);
    request.push(last);
    request
}

/// Returns the pattern of issue 13.
pub(crate) fn class_of_16_000() -> Vec<u8> {
    [b"*[".as_slice(), &[b'z'; 16_000], b"]"].concat()
}

/// Returns a pattern that is as costly for each byte of a key as possible.
pub(crate) fn costly_pattern() -> Vec<u8> {
    [b"*".as_slice(), b"[ab]".repeat(WILDCARDS_MAX - 1).as_slice(), b"[^a]*"].concat()
}

fn transaction(request: &Request, count: usize) -> Vec<Request> {
    let mut requests = vec![words("MULTI")];
    requests.extend(std::iter::repeat_n(request.clone(), count));
    requests.push(words("EXEC"));
    requests
}

/// Returns the worst cases of a command.
pub(crate) fn cases(verb: Verb, data: &Data) -> Vec<Case> {
    use Verb as V;
    let full = ARGS_MAX - 1;
    let big = |text: &str| one(&text.replace("BIG", BIG));
    let each = |name: &str| many(name, full, |n| key(n * 7 % data.keys));
    match verb {
        V::Get | V::StrLen | V::Type | V::Ttl | V::PTtl | V::ExpireTime | V::PExpireTime | V::Persist => {
            big(&format!("{} BIG", name_of(verb)))
        }
        V::Incr | V::Decr => big(&format!("{} BIG", name_of(verb))),
        V::IncrBy | V::DecrBy | V::IncrByFloat => big(&format!("{} BIG 1", name_of(verb))),
        V::Expire | V::PExpire | V::ExpireAt | V::PExpireAt => big(&format!("{} BIG 9000000000 NX", name_of(verb))),
        V::Set => vec![case("64 MiB", vec![with("SET {big}other", value(VALUE_BYTES_MAX - 64))])],
        V::SetNx | V::GetSet | V::Append => {
            let text = format!("{} {{big}}other", name_of(verb));
            vec![case("64 MiB", vec![words("DEL {big}other"), with(&text, value(VALUE_BYTES_MAX - 64))])]
        }
        V::SetEx | V::PSetEx => {
            let text = format!("{} {{big}}other 9000000", name_of(verb));
            vec![case("64 MiB", vec![with(&text, value(VALUE_BYTES_MAX - 64))])]
        }
        V::GetDel => {
            vec![case("64 MiB", vec![words(&format!("COPY {BIG} {{big}}other REPLACE")), words("GETDEL {big}other")])]
        }
        V::GetEx => big("GETEX BIG PERSIST"),
        V::GetRange | V::SubStr => big(&format!("{} BIG 0 -1", name_of(verb))),
        V::SetRange => {
            let zeros =
                vec![words("DEL {big}other"), words(&format!("SETRANGE {{big}}other {} x", VALUE_BYTES_MAX - 1))];
            let long = with("SETRANGE {big}other 1", value(VALUE_BYTES_MAX - 64));
            vec![case("zeros up to 64 MiB", zeros), case("64 MiB", vec![long])]
        }
        V::MGet | V::Exists | V::Touch => vec![case("131,071 keys", vec![each(name_of(verb))])],
        V::Del | V::Unlink => vec![spoiling("131,071 keys", vec![each(name_of(verb))])],
        V::MSet | V::MSetNx => {
            let name = name_of(verb);
            let old = many(name, full - 1, |n| if n % 2 == 0 { key(n * 7 % data.keys) } else { "v".to_owned() });
            let new = many(name, full - 1, |n| format!("{name}:{}", n / 2 * 2));
            let long = with(&format!("{name} {{big}}other"), value(VALUE_BYTES_MAX - 64));
            vec![
                case("65,535 keys", vec![old]),
                case("64 MiB", vec![words("DEL {big}other"), long]),
                spoiling("65,535 new keys", vec![new]),
            ]
        }
        V::Rename | V::RenameNx => {
            let text = |from: &str, to: &str| words(&format!("{} {from} {to}", name_of(verb)));
            let both = [text(BIG, "{big}moved"), text("{big}moved", BIG)];
            let there_and_back = both.iter().cycle().take(20).cloned();
            let many = [words("MULTI")].into_iter().chain(there_and_back).chain([words("EXEC")]).collect();
            vec![case("64 MiB", both.to_vec()), case("64 MiB, 20 in MULTI", many)]
        }
        V::Copy => {
            let copy = words(&format!("COPY {BIG} {{big}}other REPLACE"));
            vec![case("64 MiB", vec![copy.clone()]), case("64 MiB, 20 in MULTI", transaction(&copy, 20))]
        }
        V::Scan => {
            let scan = |pattern: Vec<u8>| with("SCAN 0 COUNT 10000 MATCH", pattern);
            let all = vec![scan(class_of_16_000()), scan(costly_pattern()), words("SCAN 0 COUNT 1000000")];
            let mut cases: Vec<Case> = ["a class of 16,000", "a costly pattern", "10,000 keys"]
                .into_iter()
                .zip(&all)
                .map(|(name, request)| case(name, vec![request.clone()]))
                .collect();
            cases.push(case("pipelined 20 times", vec![scan(costly_pattern()); 20]));
            cases
        }
        V::Keys => {
            let class = with("KEYS", class_of_16_000());
            vec![
                case("*", vec![words("KEYS *")]),
                case("a class of 16,000", vec![class.clone()]),
                case("a costly pattern", vec![with("KEYS", costly_pattern())]),
                case("pipelined 10 times", vec![class; 10]),
            ]
        }
        V::DbSize => {
            vec![case("", vec![words("DBSIZE")]), case("pipelined 10,000 times", vec![words("DBSIZE"); 10_000])]
        }
        V::RandomKey => vec![case("pipelined 10,000 times", vec![words("RANDOMKEY"); 10_000])],
        V::FlushAll | V::FlushDb => vec![spoiling("", vec![words(name_of(verb))])],
        V::Object | V::Session | V::Client | V::Paxoi | V::Config | V::Cluster => one(name_of(verb)),
        V::ObjectEncoding | V::ObjectIdleTime | V::ObjectRefCount | V::ObjectFreq => {
            big(&format!("{} BIG", name_of(verb)))
        }
        V::Exec | V::Multi | V::Discard => vec![
            case("40,000 SET", transaction(&words("SET key:1 v"), 40_000)),
            case("60,000 GET", transaction(&words("GET key:1"), 60_000)),
            case("1,000 KEYS", transaction(&words("KEYS nothing"), 1_000)),
            case("a class of 16,000", transaction(&with("KEYS", class_of_16_000()), 1)),
            case("10,000 SCAN", transaction(&with("SCAN 0 COUNT 10000 MATCH", b"*x*y*".to_vec()), 10_000)),
            case("100,000 PING", transaction(&words("PING"), 100_000)),
            case("60,000 INFO", transaction(&words("INFO"), 60_000)),
            case("60,000 COMMAND DOCS", transaction(&words("COMMAND DOCS"), 60_000)),
        ],
        V::Watch => vec![case("131,071 keys", vec![each("WATCH")])],
        V::Unwatch => one("UNWATCH"),
        V::SessionNew => vec![case("pipelined 10,000 times", vec![words("SESSION NEW"); 10_000])],
        V::Once => {
            let session = "0".repeat(40);
            vec![case("131,068 keys", vec![many(&format!("ONCE {session} 1 DEL"), full - 4, key)])]
        }
        V::Ping => vec![case("pipelined 100,000 times", vec![words("PING"); 100_000])],
        V::Echo => vec![case("64 MiB", vec![with("ECHO", value(VALUE_BYTES_MAX - 64))])],
        V::Quit => Vec::new(), // it ends the connection
        V::Reset | V::Asking | V::Time | V::ReadWrite | V::ReadOnly => one(name_of(verb)),
        V::Select => one("SELECT 0"),
        V::Hello => one("HELLO 2 SETNAME me"),
        V::Auth => one("AUTH default x"),
        V::Wait => one("WAIT 0 1"),
        V::WaitAof => one("WAITAOF 0 0 1"),
        V::Info | V::ClientList | V::CommandInfo | V::CommandDocs | V::ClientKill | V::ConfigGet | V::ConfigSet => {
            let count = LOCAL_WORDS_MAX - name_of(verb).split(' ').count();
            let name = name_of(verb);
            let costly = String::from_utf8(costly_pattern()).expect("text");
            vec![case(
                "1,024 words",
                vec![match verb {
                    V::Info => many(name, count, |_| "everything".to_owned()),
                    V::ClientList => many(&format!("{name} ID"), count - 1, |n| n.to_string()),
                    V::ClientKill => many(&format!("{name} ID 999999"), count / 2 * 2 - 2, |n| {
                        if n % 2 == 0 { "ID".to_owned() } else { "999999".to_owned() }
                    }),
                    V::ConfigGet => many(name, count, |_| costly.clone()),
                    V::ConfigSet => many(name, count / 2 * 2, |n| ["maxmemory", "0"][n % 2].to_owned()),
                    _ => many(name, count, |_| "client".to_owned()),
                }],
            )]
        }
        V::ClientSetName => vec![case("1 MiB", vec![with("CLIENT SETNAME", value(LOCAL_BYTES_MAX - 64))])],
        V::ClientSetInfo => vec![case("1 MiB", vec![with("CLIENT SETINFO LIB-NAME", value(LOCAL_BYTES_MAX - 64))])],
        V::ClientReply => one("CLIENT REPLY ON"),
        V::ClientNoEvict | V::ClientNoTouch | V::ClientTracking => one(&format!("{} OFF", name_of(verb))),
        V::ClientPause => one("CLIENT PAUSE 0"),
        V::ClientUnblock => one("CLIENT UNBLOCK 99"),
        V::ClientCaching => one("CLIENT CACHING NO"),
        V::ClientId
        | V::ClientGetName
        | V::ClientInfo
        | V::ClientUnpause
        | V::ClientTrackingInfo
        | V::ClientGetRedir => one(name_of(verb)),
        V::Command => vec![case("pipelined 100 times", vec![words("COMMAND"); 100])],
        V::CommandCount => one(name_of(verb)),
        V::CommandList => vec![case("", vec![with("COMMAND LIST FILTERBY PATTERN", costly_pattern())])],
        V::CommandGetKeys | V::CommandGetKeysAndFlags => {
            vec![case("1,020 keys", vec![many(&format!("{} MGET", name_of(verb)), LOCAL_WORDS_MAX - 4, key)])]
        }
        V::PaxoiCheckpoint | V::PaxoiDrain | V::PaxoiUndrain => Vec::new(), // they start work that is not measured here
        V::PaxoiMember => one("PAXOI MEMBER LIST"),
        V::PaxoiLeader => one("PAXOI LEADER MOVE 0 1"),
        V::ConfigResetStat | V::ConfigRewrite => one(name_of(verb)),
        V::ObjectHelp | V::SessionHelp | V::ClientHelp | V::CommandHelp | V::PaxoiHelp | V::ConfigHelp => {
            one(name_of(verb))
        }
        V::ClusterSlots
        | V::ClusterShards
        | V::ClusterNodes
        | V::ClusterInfo
        | V::ClusterMyId
        | V::ClusterMyShardId => one(name_of(verb)),
        V::ClusterLinks | V::ClusterHelp => one(name_of(verb)),
        V::ClusterReplicas | V::ClusterSlaves | V::ClusterCountFailureReports => one(&format!("{} x", name_of(verb))),
        V::ClusterKeySlot => vec![case("1 MiB", vec![with("CLUSTER KEYSLOT", value(LOCAL_BYTES_MAX - 64))])],
        V::ClusterCountKeysInSlot => vec![case("every key in one slot", vec![words("CLUSTER COUNTKEYSINSLOT 0")])],
        V::ClusterGetKeysInSlot => vec![case("", vec![words("CLUSTER GETKEYSINSLOT 0 1000000000")])],
    }
}

/// Returns the name of a command as a client writes it.
fn name_of(verb: Verb) -> &'static str {
    static NAMES: std::sync::OnceLock<Vec<String>> = std::sync::OnceLock::new();
    let names = NAMES.get_or_init(|| {
        paxoi::kv::table::names_by_verb().iter().map(|name| name.replace('|', " ").to_uppercase()).collect()
    });
    &names[verb as usize]
}
