//! CONFIG: the settings of this node, under the names that users and tools of Redis ask for, and under a few names of
//! its own.
//!
//! Most parameters can be read but not set: durability, the number of groups and the addresses must not change while
//! the node runs. A parameter that Redis can set may be "set" to its current value, because tools do that. A parameter
//! without effect here may be set to any value that Redis takes; see [`super::kept`].

use super::kept::{CompatParameter, CompatValues, INT_MAX, KEPT};
use super::{help, integer, syntax_error, unknown_subcommand, wrong_arity};
use crate::kv::glob::Pattern;
use crate::kv::reply::Reply;
use crate::size;
use groups::Ms;
use std::borrow::Cow;

/// The largest `client-timeout-ms` that can be set: an hour.
pub const CLIENT_TIMEOUT_MS_MAX: i64 = 3_600_000;
/// The largest `maxclients` that can be set.
pub const MAX_CLIENTS_MAX: i64 = 1_000_000;

/// The settings that the node runs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigView {
    /// The address that the node listens on.
    pub bind: String,
    /// Its port.
    pub port: u16,
    /// The data directory.
    pub dir: String,
    /// The configuration file; empty if there is none.
    pub config_file: String,
    /// Maximum number of client connections.
    pub max_clients: u64,
    /// Memory limit for keys and values, in bytes; 0 for no limit.
    pub memory_bytes_max: u64,
    /// Maximum length of a value, in bytes.
    pub value_bytes_max: u64,
    /// Time that a command may wait for its group before its client gets an error, in milliseconds.
    pub client_timeout_ms: Ms,
    /// Time after which an unused session of ONCE ends, in milliseconds.
    pub session_ttl_ms: Ms,
    /// Number of Paxos groups of the cluster.
    pub groups: u32,
    /// How reads are made linearizable: `quorum`, `lease` or `log`.
    pub reads: String,
    /// How leaders are chosen.
    pub leaders: String,
    /// This node's id.
    pub node_id: u32,
    /// Seconds without a request after which a client is closed; 0 for never.
    pub idle_seconds_max: u64,
    /// Values that were set for parameters without effect.
    pub kept: CompatValues,
}

/// A parameter that CONFIG SET changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigChange {
    /// `client-timeout-ms`: milliseconds, 1 to [`CLIENT_TIMEOUT_MS_MAX`].
    ClientTimeoutMs(Ms),
    /// `maxclients`: connections, 1 to [`MAX_CLIENTS_MAX`].
    MaxClients(u64),
    /// `maxmemory`: bytes, 0 for no limit.
    MemoryBytesMax(u64),
    /// `timeout`: seconds, 0 for no limit.
    IdleSecondsMax(u64),
    /// A parameter without effect: its name and its value.
    Keep(&'static str, String),
}

/// The node's action for a CONFIG command.
#[derive(Clone, Debug, PartialEq)]
pub enum ConfigAction {
    /// Only answers.
    Reply(Reply<'static>),
    /// Makes these changes (perhaps none), then answers OK.
    Set(Vec<ConfigChange>),
    /// Sets its counters to zero, then answers OK.
    ResetStats,
}

/// Returns the node's action for a CONFIG command.
#[must_use]
pub fn config(args: &[&[u8]], view: &ConfigView) -> ConfigAction {
    let Some(subcommand) = args.get(1) else { return ConfigAction::Reply(wrong_arity("config")) };
    ConfigAction::Reply(match (subcommand.to_ascii_lowercase().as_slice(), &args[2..]) {
        (b"get", []) => wrong_arity("config|get"),
        (b"get", patterns) => get(patterns, view),
        (b"set", [] | [_]) => wrong_arity("config|set"),
        (b"set", pairs) => match set(pairs, view) {
            Ok(changes) => return ConfigAction::Set(changes),
            Err(error) => error,
        },
        (b"resetstat", []) => return ConfigAction::ResetStats,
        (b"resetstat", _) => wrong_arity("config|resetstat"),
        (b"rewrite", []) if view.config_file.is_empty() => {
            Reply::error("ERR The server is running without a config file")
        }
        (b"rewrite", []) => Reply::error("ERR CONFIG REWRITE is not supported: edit the config file"),
        (b"rewrite", _) => wrong_arity("config|rewrite"),
        (b"help", []) => help("CONFIG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:", HELP),
        (b"help", _) => wrong_arity("config|help"),
        _ => unknown_subcommand("CONFIG", subcommand),
    })
}

/// One parameter: how CONFIG GET shows its value, and what CONFIG SET does with it.
struct Parameter {
    name: &'static str,
    value: Value,
    kind: Kind,
}

enum Value {
    Fixed(&'static str),
    Shown(fn(&ConfigView) -> Cow<'_, str>),
}

enum Kind {
    /// Never set, as in Redis.
    Immutable,
    /// Settable in Redis; here only to the value it has.
    Constant,
    /// Settable to a number within the limits.
    Number { min: i64, max: i64, change: fn(u64) -> ConfigChange },
    /// Settable to a size in bytes, with or without a unit.
    Size(fn(u64) -> ConfigChange),
}

impl Parameter {
    fn value<'v>(&self, view: &'v ConfigView) -> Cow<'v, str> {
        match self.value {
            Value::Fixed(text) => Cow::Borrowed(text),
            Value::Shown(show) => show(view),
        }
    }
}

fn get(patterns: &[&[u8]], view: &ConfigView) -> Reply<'static> {
    if let Some(refusal) = patterns.iter().find_map(|pattern| Pattern::check(pattern).err()) {
        return Reply::error(refusal);
    }
    let patterns: Vec<_> = patterns.iter().map(|pattern| Pattern::compile(&pattern.to_ascii_lowercase())).collect();
    let matching =
        PARAMETERS.iter().filter(|parameter| patterns.iter().any(|pattern| pattern.matches(parameter.name.as_bytes())));
    let pairs = matching.map(|parameter| {
        let value = parameter.value(view).into_owned().into_bytes();
        (Reply::text(parameter.name), Reply::Bulk(value.into()))
    });
    let kept = KEPT.iter().filter(|kept| patterns.iter().any(|pattern| pattern.matches(kept.name.as_bytes())));
    let kept = kept.map(|kept| {
        let value = kept.value(&view.kept).to_owned().into_bytes();
        (Reply::text(kept.name), Reply::Bulk(value.into()))
    });
    Reply::Map(pairs.chain(kept).collect())
}

/// Returns all changes, or one error and no change, as in Redis. The checks come in this order: an odd number of words,
/// an unknown name, the first pair that fails.
fn set(pairs: &[&[u8]], view: &ConfigView) -> Result<Vec<ConfigChange>, Reply<'static>> {
    if !pairs.len().is_multiple_of(2) {
        return Err(syntax_error());
    }
    let mut wanted = Vec::with_capacity(pairs.len() / 2);
    for pair in pairs.chunks_exact(2) {
        let Some(parameter) = Settable::find(pair[0]) else {
            let text = format!("ERR Unknown option or number of arguments for CONFIG SET - '{}'", super::echo(pair[0]));
            return Err(Reply::Error(text.into()));
        };
        wanted.push((parameter, pair[0], pair[1]));
    }
    let mut changes = Vec::new();
    for (index, (parameter, name, value)) in wanted.iter().enumerate() {
        let refused = |why: &str| {
            let name = super::echo(name);
            Reply::Error(format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {why}").into())
        };
        if wanted[..index].iter().any(|(before, ..)| before.name() == parameter.name()) {
            return Err(refused("duplicate parameter"));
        }
        let parameter = match parameter {
            Settable::Kept(kept) => {
                changes.push(ConfigChange::Keep(kept.key, kept.take(value).map_err(|why| refused(&why))?));
                continue;
            }
            Settable::Own(parameter) => parameter,
        };
        match parameter.kind {
            Kind::Constant if *value == parameter.value(view).as_bytes() => {}
            Kind::Immutable | Kind::Constant => return Err(refused("can't set immutable config")),
            Kind::Size(change) => match std::str::from_utf8(value).ok().and_then(size::parse) {
                Some(bytes) => changes.push(change(bytes)),
                None => return Err(refused("argument must be a memory value")),
            },
            Kind::Number { min, max, change } => match integer(value) {
                None => return Err(refused("argument couldn't be parsed into an integer")),
                Some(number) if (min..=max).contains(&number) => changes.push(change(number as u64)),
                Some(_) => return Err(refused(&format!("argument must be between {min} and {max} inclusive"))),
            },
        }
    }
    Ok(changes)
}

/// A parameter that CONFIG SET may name.
enum Settable {
    Own(&'static Parameter),
    Kept(&'static CompatParameter),
}

impl Settable {
    fn find(name: &[u8]) -> Option<Settable> {
        let own = PARAMETERS.iter().find(|known| name.eq_ignore_ascii_case(known.name.as_bytes()));
        let kept = || KEPT.iter().find(|known| name.eq_ignore_ascii_case(known.name.as_bytes()));
        own.map(Settable::Own).or_else(|| kept().map(Settable::Kept))
    }

    fn name(&self) -> &'static str {
        match self {
            Settable::Own(parameter) => parameter.name,
            Settable::Kept(kept) => kept.name,
        }
    }
}

const fn immutable(name: &'static str, value: &'static str) -> Parameter {
    Parameter { name, value: Value::Fixed(value), kind: Kind::Immutable }
}

const fn constant(name: &'static str, value: &'static str) -> Parameter {
    Parameter { name, value: Value::Fixed(value), kind: Kind::Constant }
}

const fn shown(name: &'static str, show: fn(&ConfigView) -> Cow<'_, str>) -> Parameter {
    Parameter { name, value: Value::Shown(show), kind: Kind::Immutable }
}

/// Every parameter, sorted by name.
static PARAMETERS: &[Parameter] = &[
    immutable("aclfile", ""),
    shown("bind", |view| view.bind.as_str().into()),
    Parameter {
        name: "client-timeout-ms",
        value: Value::Shown(|view| view.client_timeout_ms.to_string().into()),
        kind: Kind::Number { min: 1, max: CLIENT_TIMEOUT_MS_MAX, change: |ms| ConfigChange::ClientTimeoutMs(Ms(ms)) },
    },
    constant("cluster-allow-reads-when-down", "no"),
    immutable("cluster-enabled", "yes"),
    constant("cluster-preferred-endpoint-type", "ip"),
    constant("cluster-require-full-coverage", "no"),
    immutable("daemonize", "no"),
    immutable("databases", "1"),
    shown("dir", |view| view.dir.as_str().into()),
    shown("groups", |view| view.groups.to_string().into()),
    shown("leaders", |view| view.leaders.as_str().into()),
    Parameter {
        name: "maxclients",
        value: Value::Shown(|view| view.max_clients.to_string().into()),
        kind: Kind::Number { min: 1, max: MAX_CLIENTS_MAX, change: ConfigChange::MaxClients },
    },
    Parameter {
        name: "maxmemory",
        value: Value::Shown(|view| view.memory_bytes_max.to_string().into()),
        kind: Kind::Size(ConfigChange::MemoryBytesMax),
    },
    constant("min-replicas-to-write", "0"),
    shown("node-id", |view| view.node_id.to_string().into()),
    shown("port", |view| view.port.to_string().into()),
    Parameter {
        name: "proto-max-bulk-len",
        value: Value::Shown(|view| view.value_bytes_max.to_string().into()),
        kind: Kind::Constant,
    },
    shown("reads", |view| view.reads.as_str().into()),
    constant("requirepass", ""),
    shown("session-ttl-ms", |view| view.session_ttl_ms.to_string().into()),
    Parameter {
        name: "timeout",
        value: Value::Shown(|view| view.idle_seconds_max.to_string().into()),
        kind: Kind::Number { min: 0, max: INT_MAX, change: ConfigChange::IdleSecondsMax },
    },
    constant("tls-port", "0"),
];

const HELP: &[&str] = &[
    "GET <pattern> [<pattern> ...]",
    "    Return parameters matching the glob-like <pattern> and their values.",
    "SET <directive> <value> [<directive> <value> ...]",
    "    Set the configuration <directive> to <value>. Effective: client-timeout-ms, maxclients, maxmemory, timeout.",
    "RESETSTAT",
    "    Reset statistics reported by the INFO command.",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::client::tests::{words, written};
    use net::resp::Protocol;

    fn view() -> ConfigView {
        ConfigView {
            bind: "127.0.0.1".into(),
            port: 7001,
            dir: "./data".into(),
            config_file: String::new(),
            max_clients: 10_000,
            memory_bytes_max: 0,
            value_bytes_max: 64 << 20,
            client_timeout_ms: Ms(5000),
            session_ttl_ms: Ms(3_600_000),
            groups: 16,
            reads: "quorum".into(),
            leaders: "even".into(),
            node_id: 2,
            idle_seconds_max: 0,
            kept: CompatValues::from([("hz", "20".to_owned())]),
        }
    }

    fn asked(command: &str) -> ConfigAction {
        config(&words(command), &view())
    }

    fn told(command: &str, protocol: Protocol) -> String {
        let ConfigAction::Reply(reply) = asked(command) else { panic!("{command}: not a reply") };
        written(&reply, protocol)
    }

    #[test]
    fn get_tells_what_tools_ask_for() {
        assert_eq!(told("CONFIG GET save", Protocol::Resp2), "*2\r\n$4\r\nsave\r\n$0\r\n\r\n");
        assert_eq!(told("config get APPENDONLY", Protocol::Resp3), "%1\r\n$10\r\nappendonly\r\n$3\r\nyes\r\n");
        assert_eq!(told("CONFIG GET nothing", Protocol::Resp2), "*0\r\n");
        let both = "*4\r\n$6\r\ngroups\r\n$2\r\n16\r\n$4\r\nport\r\n$4\r\n7001\r\n";
        assert_eq!(told("CONFIG GET por* port groups", Protocol::Resp2), both, "each parameter once");
        let all = told("CONFIG GET *", Protocol::Resp3);
        assert!(all.starts_with(&format!("%{}\r\n", PARAMETERS.len() + KEPT.len())), "{all}");
        for pair in [
            "hz\r\n$2\r\n20\r\n",
            "loglevel\r\n$6\r\nnotice\r\n",
            "databases\r\n$1\r\n1\r\n",
            "maxmemory\r\n$1\r\n0\r\n",
            "cluster-enabled\r\n$3\r\nyes\r\n",
        ] {
            assert!(all.contains(pair), "{pair}");
        }
    }

    #[test]
    fn set_changes_the_few_and_takes_what_is_already_so() {
        use ConfigChange::{ClientTimeoutMs, MaxClients, MemoryBytesMax};
        assert_eq!(asked("config set maxmemory 2Mb"), ConfigAction::Set(vec![MemoryBytesMax(2 << 20)]));
        let command = "CONFIG SET client-timeout-ms 250 MAXCLIENTS 7";
        assert_eq!(asked(command), ConfigAction::Set(vec![ClientTimeoutMs(Ms(250)), MaxClients(7)]));
        assert_eq!(asked("CONFIG SET requirepass "), ConfigAction::Set(Vec::new()));
        let keep = |name, value: &str| ConfigChange::Keep(name, value.to_owned());
        let command = "CONFIG SET appendonly NO save  hash-max-ziplist-value 1kb";
        let kept = vec![keep("appendonly", "no"), keep("save", ""), keep("hash-max-listpack-value", "1024")];
        assert_eq!(asked(command), ConfigAction::Set(kept));
        assert_eq!(asked("CONFIG SET timeout 0"), ConfigAction::Set(vec![ConfigChange::IdleSecondsMax(0)]));
    }

    #[test]
    fn set_refuses_as_redis_words_it() {
        let related =
            |name: &str, why: &str| format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {why}");
        for (command, error) in [
            ("CONFIG SET foo bar", "ERR Unknown option or number of arguments for CONFIG SET - 'foo'".to_owned()),
            ("CONFIG SET port 1 foo 3", "ERR Unknown option or number of arguments for CONFIG SET - 'foo'".to_owned()),
            ("CONFIG SET maxmemory 0 timeout", "ERR syntax error".to_owned()),
            ("CONFIG SET CLUSTER-enabled yes", related("CLUSTER-enabled", "can't set immutable config")),
            ("CONFIG SET requirepass x", related("requirepass", "can't set immutable config")),
            ("CONFIG SET HZ x", related("HZ", "argument couldn't be parsed into an integer")),
            ("CONFIG SET hz 1 hz 2", related("hz", "duplicate parameter")),
            ("CONFIG SET maxmemory 0 maxmemory 0", related("maxmemory", "duplicate parameter")),
            (
                "CONFIG SET client-timeout-ms x",
                related("client-timeout-ms", "argument couldn't be parsed into an integer"),
            ),
            ("CONFIG SET maxmemory -1", related("maxmemory", "argument must be a memory value")),
            ("CONFIG SET maxclients 0", related("maxclients", "argument must be between 1 and 1000000 inclusive")),
            ("CONFIG SET maxmemory", "ERR wrong number of arguments for 'config|set' command".to_owned()),
            ("CONFIG GET", "ERR wrong number of arguments for 'config|get' command".to_owned()),
            ("CONFIG", "ERR wrong number of arguments for 'config' command".to_owned()),
            ("CONFIG FOO", "ERR unknown subcommand 'FOO'. Try CONFIG HELP.".to_owned()),
            ("CONFIG REWRITE", "ERR The server is running without a config file".to_owned()),
        ] {
            assert_eq!(asked(command), ConfigAction::Reply(Reply::Error(error.into())), "{command}");
        }
    }

    #[test]
    fn the_rest() {
        assert_eq!(asked("config resetstat"), ConfigAction::ResetStats);
        assert!(
            told("CONFIG HELP", Protocol::Resp2).starts_with("*9\r\n+CONFIG <subcommand> [<arg> [value] [opt] ...].")
        );
        assert!(PARAMETERS.is_sorted_by_key(|parameter| parameter.name), "names are sorted");
        assert!(PARAMETERS.windows(2).all(|pair| pair[0].name != pair[1].name));
        assert!(PARAMETERS.iter().all(|own| KEPT.iter().all(|kept| own.name != kept.name)));
    }
}
