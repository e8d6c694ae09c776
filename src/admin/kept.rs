//! CONFIG parameters that have no effect here: encodings of data types that do not exist, settings of files that this
//! server writes differently, replication. Clients, tools and test suites set them anyway. So the node checks each
//! value as Redis does, keeps it while the node runs, and returns it from CONFIG GET.
//!
//! Parameters that promise more than this server does, such as a password or TLS, are not in the list: setting one is
//! refused.

use super::integer;
use crate::size;
use std::collections::BTreeMap;

/// The values that were set, by name.
pub type CompatValues = BTreeMap<&'static str, String>;

/// The maximum of C's `int`, the limit of many numbers in Redis.
pub(super) const INT_MAX: i64 = 2_147_483_647;
/// Maximum length of a kept value, in bytes.
const KEPT_BYTES_MAX: usize = 1_024;

/// A parameter without effect.
pub struct CompatParameter {
    /// Its name.
    pub name: &'static str,
    /// The name under which its value is kept: an old name shares the value of the current name.
    pub key: &'static str,
    default: &'static str,
    shape: Shape,
}

/// The values that a parameter takes.
#[derive(Clone, Copy)]
enum Shape {
    Flag,
    Number(i64, i64),
    /// A number, clamped to 1 to 500.
    Rate,
    Size,
    OneOf(&'static [&'static str]),
    /// Pairs of seconds and changes.
    Save,
    /// Classes of events, a letter each.
    Events,
}

impl CompatParameter {
    /// Returns the value as CONFIG GET shows it.
    #[must_use]
    pub fn value<'k>(&self, kept: &'k CompatValues) -> &'k str {
        kept.get(self.key).map_or(self.default, String::as_str)
    }

    /// Checks a value given to CONFIG SET, and returns the text to keep.
    ///
    /// # Errors
    /// The reason why Redis would refuse the value.
    pub fn take(&self, value: &[u8]) -> Result<String, String> {
        if value.len() > KEPT_BYTES_MAX {
            return Err(format!("argument must be no longer than {KEPT_BYTES_MAX} bytes"));
        }
        self.shape.take(value)
    }
}

impl Shape {
    fn take(self, value: &[u8]) -> Result<String, String> {
        match self {
            Shape::Flag => one_of(value, &["yes", "no"]).ok_or_else(|| "argument must be 'yes' or 'no'".to_owned()),
            Shape::OneOf(names) => one_of(value, names)
                .ok_or_else(|| format!("argument(s) must be one of the following: {}", names.join(", "))),
            Shape::Number(min, max) => match integer(value) {
                None => Err("argument couldn't be parsed into an integer".to_owned()),
                Some(number) if (min..=max).contains(&number) => Ok(number.to_string()),
                Some(_) => Err(format!("argument must be between {min} and {max} inclusive")),
            },
            Shape::Rate => Shape::Number(0, INT_MAX).take(value).map(|number| match number.len() {
                ..=3 => number.parse::<i64>().unwrap_or(1).clamp(1, 500).to_string(),
                _ => "500".to_owned(),
            }),
            Shape::Size => match std::str::from_utf8(value).ok().and_then(size::parse) {
                Some(bytes) => Ok(bytes.to_string()),
                None => Err("argument must be a memory value".to_owned()),
            },
            Shape::Save => save(value).ok_or_else(|| "Invalid save parameters".to_owned()),
            Shape::Events => {
                events(value).ok_or_else(|| "Invalid event class character. Use 'Ag$lshzxeKEtmdn'.".to_owned())
            }
        }
    }
}

fn one_of(value: &[u8], names: &[&str]) -> Option<String> {
    names.iter().find(|name| value.eq_ignore_ascii_case(name.as_bytes())).map(|name| (*name).to_owned())
}

fn save(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?;
    let words: Vec<&str> = if text.is_empty() { Vec::new() } else { text.split(' ').collect() };
    let is_valid = |pair: &[&str]| match pair {
        [seconds, changes] => {
            let number = |word: &str| integer(word.as_bytes());
            number(seconds).is_some_and(|seconds| seconds >= 1) && number(changes).is_some_and(|changes| changes >= 0)
        }
        _ => false,
    };
    words.chunks(2).all(is_valid).then(|| words.join(" "))
}

/// Returns each class once, in Redis's order, with `A` in place of all the classes that it stands for.
fn events(value: &[u8]) -> Option<String> {
    if !value.iter().all(|class| b"Ag$lshzxeKEtmdn".contains(class)) {
        return None;
    }
    let has = |class: &char| value.contains(&(*class as u8)) || value.contains(&b'A') && ALL_EVENTS.contains(*class);
    let is_all = ALL_EVENTS.chars().all(|class| has(&class));
    let classes = if is_all { "A".to_owned() } else { ALL_EVENTS.chars().chain(['n']).filter(has).collect() };
    Some(classes + &"KEm".chars().filter(has).collect::<String>())
}

const ALL_EVENTS: &str = "g$lshzxetd";

const fn kept(name: &'static str, default: &'static str, shape: Shape) -> CompatParameter {
    CompatParameter { name, key: name, default, shape }
}

const fn old(name: &'static str, key: &'static str, default: &'static str, shape: Shape) -> CompatParameter {
    CompatParameter { name, key, default, shape }
}

const COUNT: Shape = Shape::Number(0, i64::MAX);
const SMALL: Shape = Shape::Number(0, INT_MAX);
const POSITIVE: Shape = Shape::Number(1, INT_MAX);
const PERCENT: Shape = Shape::Number(0, 100);
const FLAG: Shape = Shape::Flag;
const SIZE: Shape = Shape::Size;
const POLICIES: Shape = Shape::OneOf(&[
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "noeviction",
]);
const LEVELS: Shape = Shape::OneOf(&["debug", "verbose", "notice", "warning"]);
const LIST_SIZE: Shape = Shape::Number(-INT_MAX - 1, INT_MAX);

/// All parameters without effect, sorted by name. Defaults are those of Redis, unless another value describes this
/// server.
#[rustfmt::skip]
pub static KEPT: &[CompatParameter] = &[
    kept("active-expire-effort", "1", Shape::Number(1, 10)),
    kept("activedefrag", "no", FLAG),
    kept("activerehashing", "yes", FLAG),
    kept("aof-load-truncated", "yes", FLAG),
    kept("aof-rewrite-incremental-fsync", "yes", FLAG),
    kept("aof-timestamp-enabled", "no", FLAG),
    kept("aof-use-rdb-preamble", "yes", FLAG),
    kept("appendfsync", "always", Shape::OneOf(&["everysec", "always", "no"])),
    kept("appendonly", "yes", FLAG),
    kept("auto-aof-rewrite-min-size", "67108864", SIZE),
    kept("auto-aof-rewrite-percentage", "0", SMALL),
    kept("busy-reply-threshold", "5000", COUNT),
    kept("client-query-buffer-limit", "1073741824", SIZE),
    kept("cluster-allow-replica-migration", "yes", FLAG),
    kept("cluster-link-sendbuf-limit", "0", SIZE),
    kept("cluster-migration-barrier", "1", SMALL),
    kept("cluster-node-timeout", "15000", COUNT),
    kept("cluster-replica-no-failover", "no", FLAG),
    kept("cluster-replica-validity-factor", "10", SMALL),
    old("cluster-slave-no-failover", "cluster-replica-no-failover", "no", FLAG),
    old("cluster-slave-validity-factor", "cluster-replica-validity-factor", "10", SMALL),
    kept("crash-log-enabled", "yes", FLAG),
    kept("crash-memcheck-enabled", "yes", FLAG),
    kept("dynamic-hz", "yes", FLAG),
    kept("hash-max-listpack-entries", "128", COUNT),
    kept("hash-max-listpack-value", "64", SIZE),
    old("hash-max-ziplist-entries", "hash-max-listpack-entries", "128", COUNT),
    old("hash-max-ziplist-value", "hash-max-listpack-value", "64", SIZE),
    kept("hll-sparse-max-bytes", "3000", SIZE),
    kept("hz", "10", Shape::Rate),
    kept("jemalloc-bg-thread", "yes", FLAG),
    kept("latency-monitor-threshold", "0", COUNT),
    kept("latency-tracking", "yes", FLAG),
    kept("lazyfree-lazy-eviction", "no", FLAG),
    kept("lazyfree-lazy-expire", "no", FLAG),
    kept("lazyfree-lazy-server-del", "no", FLAG),
    kept("lazyfree-lazy-user-del", "no", FLAG),
    kept("lazyfree-lazy-user-flush", "no", FLAG),
    kept("lfu-decay-time", "1", SMALL),
    kept("lfu-log-factor", "10", SMALL),
    kept("list-compress-depth", "0", SMALL),
    kept("list-max-listpack-size", "-2", LIST_SIZE),
    old("list-max-ziplist-size", "list-max-listpack-size", "-2", LIST_SIZE),
    kept("loglevel", "notice", LEVELS),
    old("lua-time-limit", "busy-reply-threshold", "5000", COUNT),
    kept("maxmemory-eviction-tenacity", "10", PERCENT),
    kept("maxmemory-policy", "noeviction", POLICIES),
    kept("maxmemory-samples", "5", POSITIVE),
    kept("no-appendfsync-on-rewrite", "no", FLAG),
    kept("notify-keyspace-events", "", Shape::Events),
    kept("rdb-del-sync-files", "no", FLAG),
    kept("rdb-save-incremental-fsync", "yes", FLAG),
    kept("rdbcompression", "yes", FLAG),
    kept("repl-backlog-size", "1048576", SIZE),
    kept("repl-backlog-ttl", "3600", COUNT),
    kept("repl-disable-tcp-nodelay", "no", FLAG),
    kept("repl-diskless-load", "disabled", Shape::OneOf(&["disabled", "on-empty-db", "swapdb"])),
    kept("repl-diskless-sync", "yes", FLAG),
    kept("repl-diskless-sync-delay", "5", SMALL),
    kept("repl-ping-replica-period", "10", POSITIVE),
    old("repl-ping-slave-period", "repl-ping-replica-period", "10", POSITIVE),
    kept("repl-timeout", "60", POSITIVE),
    kept("replica-lazy-flush", "no", FLAG),
    kept("replica-priority", "100", SMALL),
    kept("replica-read-only", "yes", FLAG),
    kept("replica-serve-stale-data", "yes", FLAG),
    kept("sanitize-dump-payload", "no", Shape::OneOf(&["no", "yes", "clients"])),
    kept("save", "", Shape::Save),
    kept("set-max-intset-entries", "512", COUNT),
    kept("slowlog-log-slower-than", "-1", Shape::Number(-1, i64::MAX)),
    kept("slowlog-max-len", "0", COUNT),
    kept("stop-writes-on-bgsave-error", "no", FLAG),
    kept("stream-node-max-bytes", "4096", SIZE),
    kept("stream-node-max-entries", "100", COUNT),
    kept("tcp-keepalive", "300", SMALL),
    kept("tracking-table-max-keys", "1000000", COUNT),
    kept("zset-max-listpack-entries", "128", COUNT),
    kept("zset-max-listpack-value", "64", SIZE),
    old("zset-max-ziplist-entries", "zset-max-listpack-entries", "128", COUNT),
    old("zset-max-ziplist-value", "zset-max-listpack-value", "64", SIZE),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn parameter(name: &str) -> &'static CompatParameter {
        KEPT.iter().find(|known| known.name == name).unwrap()
    }

    #[test]
    fn names_are_sorted_and_old_ones_share_a_value() {
        assert!(KEPT.is_sorted_by_key(|known| known.name));
        for known in KEPT {
            let key = parameter(known.key);
            assert!(key.key == key.name && known.default == key.default, "{}", known.name);
            let default = known.take(known.default.as_bytes());
            assert_eq!(default.as_deref(), Ok(known.default), "{}: its default is valid", known.name);
        }
        let set = CompatValues::from([("hash-max-listpack-entries", "7".to_owned())]);
        assert_eq!(parameter("hash-max-ziplist-entries").value(&set), "7");
        assert_eq!(parameter("zset-max-ziplist-entries").value(&set), "128");
    }

    #[test]
    fn values_are_checked_and_told_as_redis_does() {
        for (name, value, kept) in [
            ("appendonly", "NO", "no"),
            ("hz", "100", "100"),
            ("hash-max-listpack-value", "1kb", "1024"),
            ("maxmemory-policy", "AllKeys-LRU", "allkeys-lru"),
            ("save", "3600 1 300 100", "3600 1 300 100"),
            ("save", "", ""),
            ("notify-keyspace-events", "KEA", "AKE"),
            ("notify-keyspace-events", "Exg$", "g$xE"),
            ("notify-keyspace-events", "g$lshzxetdn", "A"),
            ("notify-keyspace-events", "KEgmn", "gnKEm"),
            ("hz", "0", "1"),
            ("hz", "1000", "500"),
            ("slowlog-log-slower-than", "-1", "-1"),
        ] {
            assert_eq!(parameter(name).take(value.as_bytes()).as_deref(), Ok(kept), "{name} {value}");
        }
        for (name, value, why) in [
            ("appendonly", "maybe", "argument must be 'yes' or 'no'"),
            ("hz", "x", "argument couldn't be parsed into an integer"),
            ("hz", "-1", "argument must be between 0 and 2147483647 inclusive"),
            ("hash-max-listpack-value", "-1", "argument must be a memory value"),
            ("loglevel", "loud", "argument(s) must be one of the following: debug, verbose, notice, warning"),
            ("save", "60", "Invalid save parameters"),
            ("save", "60 1  30 1", "Invalid save parameters"),
            ("save", "0 1", "Invalid save parameters"),
            ("notify-keyspace-events", "q", "Invalid event class character. Use 'Ag$lshzxeKEtmdn'."),
        ] {
            assert_eq!(parameter(name).take(value.as_bytes()), Err(why.to_owned()), "{name} {value}");
        }
        let long = [b' '; KEPT_BYTES_MAX + 1];
        assert!(parameter("save").take(&long).is_err());
    }
}
