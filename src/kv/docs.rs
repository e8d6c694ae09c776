//! The replies of `COMMAND` and the `HELP` subcommands: the command table, in the forms that clients read.

use super::glob::Pattern;
use super::options::SYNTAX;
use super::reply::Reply;
use super::rows::ROWS;
use super::table::{
    ADMIN, CATEGORIES, Class, FAST, FLAGS, FanOut, KEYSPACE, KeySpec, RANDOM, STRING, Spec, TRANSACTION, Verb, all,
    find, find_full, lookup,
};
use std::borrow::Cow;

type Answer = Reply<'static>;

/// Returns the reply to `COMMAND` or one of its subcommands. `verb` is the verb of `words` by the command table.
#[must_use]
pub fn command(verb: Verb, words: &[&[u8]]) -> Answer {
    let names = words.get(2..).unwrap_or_default();
    match verb {
        Verb::CommandCount => Reply::Int(ROWS.len() as i64),
        Verb::CommandInfo if !names.is_empty() => {
            Reply::Array(names.iter().map(|name| find_full(name).map_or(Reply::Null, info)).collect())
        }
        Verb::CommandDocs if !names.is_empty() => docs(names.iter().filter_map(|name| find_full(name))),
        Verb::CommandDocs => docs(ROWS),
        Verb::CommandList => list(names),
        Verb::CommandGetKeys => keys_reply(names, |_, key| key),
        Verb::CommandGetKeysAndFlags => keys_reply(names, |access, key| Reply::Array(vec![key, statuses(access)])),
        Verb::CommandHelp => help(find_full(b"command")),
        _ => Reply::Array(ROWS.iter().map(info).collect()),
    }
}

/// Returns the reply to `HELP` of a container, such as `OBJECT HELP`. CLIENT and CONFIG have texts of their own, in
/// `admin`.
#[must_use]
pub fn help(container: Option<&Spec>) -> Answer {
    let Some(container) = container else { return Reply::Array(Vec::new()) };
    let name = container.name.to_uppercase();
    let mut lines = vec![line(format!("{name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"))];
    for sub in container.subcommands {
        let syntax = format!("{} {}", sub.last_word().to_uppercase(), sub.syntax);
        lines.push(line(syntax.trim_end().to_owned()));
        lines.push(line(format!("    {}", sub.summary)));
    }
    Reply::Array(lines)
}

/// The access of a request to a key, in Redis's words.
type Access = &'static [&'static str];

/// Returns the keys of a request, each with its access. The errors are those of `COMMAND GETKEYS`.
fn keys_of<'a>(words: &[&'a [u8]]) -> Result<Vec<(Access, &'a [u8])>, Answer> {
    let (mut words, mut spec) = (words, row_of(words)?);
    while spec.verb == Verb::Once {
        words = &words[3..];
        spec = row_of(words)?;
    }
    if spec.keys.is_empty() {
        return Err(Reply::error("ERR The command has no key arguments"));
    }
    let mut found = Vec::new();
    for keys in spec.keys {
        let first = usize::from(keys.first);
        let last = if keys.last < 0 { words.len() - 1 } else { first };
        let positions = (first..=last).step_by(usize::from(keys.step));
        let access = access(spec, keys, words);
        found.extend(positions.filter_map(|at| Some((access, *words.get(at)?))));
    }
    Ok(found)
}

/// Returns the access to a command's keys. Only SET's varies: with GET it also reads the old value.
fn access(spec: &Spec, keys: &KeySpec, words: &[&[u8]]) -> Access {
    let gets = || words.iter().skip(3).any(|word| word.eq_ignore_ascii_case(b"get"));
    match spec.verb {
        Verb::Set if gets() => &["RW", "access", "update"],
        Verb::Set => &["OW", "update"],
        _ => keys.access,
    }
}

fn row_of(words: &[&[u8]]) -> Result<&'static Spec, Answer> {
    if words.first().and_then(|name| find(name)).is_none() {
        return Err(Reply::error("ERR Invalid command specified"));
    }
    lookup(words).map_err(|_| Reply::error("ERR Invalid number of arguments specified for command"))
}

fn keys_reply(words: &[&[u8]], show: impl Fn(Access, Answer) -> Answer) -> Answer {
    match keys_of(words) {
        Ok(keys) => Reply::Array(keys.into_iter().map(|(access, key)| show(access, bulk(key))).collect()),
        Err(error) => error,
    }
}

/// Returns the ten fields that Redis 7 has for a command.
fn info(spec: &Spec) -> Answer {
    let (first, last, step) = spec.key_range();
    Reply::Array(vec![
        Reply::text(spec.name),
        Reply::Int(i64::from(spec.arity)),
        statuses(&flags(spec)),
        Reply::Int(first),
        Reply::Int(last),
        Reply::Int(step),
        Reply::Set(categories(spec).map(Reply::Simple).collect()),
        Reply::Set(tips(spec).map(Reply::text).collect()),
        Reply::Set(spec.keys.iter().map(key_spec).collect()),
        Reply::Set(spec.subcommands.iter().map(info).collect()),
    ])
}

fn flags(spec: &Spec) -> Vec<&'static str> {
    let access = match spec.class {
        Class::Read => Some("readonly"),
        Class::Write => Some("write"),
        _ => None,
    };
    let named = FLAGS.iter().filter(|(bit, _)| spec.flags & bit != 0).map(|(_, name)| *name);
    access.into_iter().chain(named).collect()
}

fn categories(spec: &Spec) -> impl Iterator<Item = &'static str> {
    let access = match spec.class {
        Class::Read => Some("@read"),
        Class::Write => Some("@write"),
        _ => None,
    };
    let admin = (spec.flags & ADMIN != 0).then_some("@admin");
    let speed = if spec.flags & FAST != 0 { "@fast" } else { "@slow" };
    let named = CATEGORIES.iter().filter(|(bit, _)| spec.flags & bit != 0).map(|(_, name)| *name);
    access.into_iter().chain(admin).chain(named).chain([speed])
}

fn tips(spec: &Spec) -> impl Iterator<Item = &'static str> {
    let policies: &[&str] = match (spec.fan_out, spec.verb) {
        (FanOut::EachKey, Verb::MGet) => &["request_policy:multi_shard"],
        (FanOut::EachKey, Verb::MSet) => &["request_policy:multi_shard", "response_policy:all_succeeded"],
        (FanOut::EachKey, _) => &["request_policy:multi_shard", "response_policy:agg_sum"],
        _ => &[],
    };
    let random = (spec.flags & RANDOM != 0).then_some("nondeterministic_output");
    policies.iter().copied().chain(random)
}

fn key_spec(spec: &KeySpec) -> Answer {
    let index = Reply::Map(vec![(Reply::text("index"), Reply::Int(i64::from(spec.first)))]);
    let range = Reply::Map(vec![
        (Reply::text("lastkey"), Reply::Int(i64::from(spec.last))),
        (Reply::text("keystep"), Reply::Int(i64::from(spec.step))),
        (Reply::text("limit"), Reply::Int(0)),
    ]);
    let typed = |name, spec| Reply::Map(vec![(Reply::text("type"), Reply::text(name)), (Reply::text("spec"), spec)]);
    Reply::Map(vec![
        (Reply::text("flags"), statuses(spec.access)),
        (Reply::text("begin_search"), typed("index", index)),
        (Reply::text("find_keys"), typed("range", range)),
    ])
}

fn docs<'s>(specs: impl IntoIterator<Item = &'s Spec>) -> Answer {
    Reply::Map(specs.into_iter().map(|spec| (Reply::text(spec.name), doc(spec))).collect())
}

fn doc(spec: &Spec) -> Answer {
    let mut fields = vec![
        (Reply::text("summary"), Reply::text(spec.summary)),
        (Reply::text("since"), Reply::text(spec.since)),
        (Reply::text("group"), Reply::text(doc_group(spec))),
    ];
    if !spec.syntax.is_empty() {
        let arguments = spec.syntax.split(' ').map(argument).collect();
        fields.push((Reply::text("arguments"), Reply::Array(arguments)));
    }
    if !spec.subcommands.is_empty() {
        fields.push((Reply::text("subcommands"), docs(spec.subcommands)));
    }
    Reply::Map(fields)
}

/// Returns one word of the syntax as an argument, which is enough for a client to show a hint.
fn argument(word: &'static str) -> Answer {
    Reply::Map(vec![(Reply::text("name"), Reply::text(word)), (Reply::text("type"), Reply::text("string"))])
}

fn doc_group(spec: &Spec) -> &'static str {
    match spec.class {
        _ if spec.flags & STRING != 0 => "string",
        _ if spec.flags & TRANSACTION != 0 => "transactions",
        Class::Cluster => "cluster",
        Class::Admin => "server",
        Class::Connection => "connection",
        _ if spec.flags & KEYSPACE != 0 => "generic",
        _ => "transactions",
    }
}

/// Answers `COMMAND LIST [FILTERBY PATTERN|ACLCAT|MODULE x]`.
fn list(filter: &[&[u8]]) -> Answer {
    let names = |keep: &dyn Fn(&Spec) -> bool| {
        Reply::Array(all().filter(|spec| keep(spec)).map(|spec| Reply::text(spec.name)).collect())
    };
    let [by, kind, value] = filter else {
        return if filter.is_empty() { names(&|_| true) } else { SYNTAX };
    };
    if let Err(refusal) = Pattern::check(value) {
        return Reply::error(refusal);
    }
    let value = value.to_ascii_lowercase();
    match kind.to_ascii_lowercase().as_slice() {
        _ if !by.eq_ignore_ascii_case(b"filterby") => SYNTAX,
        b"pattern" => {
            let pattern = Pattern::compile(&value);
            names(&|spec| pattern.matches(spec.name.as_bytes()))
        }
        b"aclcat" => names(&|spec| categories(spec).any(|category| category.as_bytes()[1..] == value)),
        b"module" => names(&|_| false),
        _ => SYNTAX,
    }
}

fn statuses(names: &[&'static str]) -> Answer {
    Reply::Set(names.iter().map(|name| Reply::Simple(name)).collect())
}

fn bulk(bytes: &[u8]) -> Answer {
    Reply::Bulk(Cow::Owned(bytes.to_vec()))
}

/// Returns a line of help.
fn line(text: String) -> Answer {
    Reply::Status(text)
}
