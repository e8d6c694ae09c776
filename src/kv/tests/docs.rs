//! Replies to clients about the command table.

use super::show;
use crate::kv::docs::{command, help};
use crate::kv::reply::Reply;
use crate::kv::table::{find, lookup};
use net::outbound::Outbound;
use net::resp::Protocol;

fn ask(request: &str) -> String {
    let words: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
    match lookup(&words) {
        Ok(spec) => show(&command(spec.verb, &words)),
        Err(error) => show(&error),
    }
}

#[test]
fn info_has_the_fields_of_redis_7() {
    assert_eq!(
        ask("COMMAND INFO get"),
        "[[\"get\" 2 [readonly fast] 1 1 1 [@read @string @fast] [] \
         [[\"flags\" [RO access] \"begin_search\" [\"type\" \"index\" \"spec\" [\"index\" 1]] \
         \"find_keys\" [\"type\" \"range\" \"spec\" [\"lastkey\" 0 \"keystep\" 1 \"limit\" 0]]]] []]]"
    );
    assert!(ask("COMMAND INFO MSET").starts_with("[[\"mset\" -3 [write denyoom] 1 -1 2 [@write @string @slow]"));
    assert!(ask("COMMAND INFO client|id").starts_with("[[\"client|id\" 2 [noscript loading stale] 0 0 0 "));
    assert_eq!(ask("COMMAND INFO foo"), "[nil]");
    let Reply::Array(all) = command(find(b"command").unwrap().verb, &[b"COMMAND"]) else { panic!("an array") };
    assert_eq!(ask("COMMAND COUNT"), all.len().to_string());
    assert!(all.iter().all(|row| matches!(row, Reply::Array(fields) if fields.len() == 10)));
    assert_eq!(ask("COMMAND COUNT x"), "ERR wrong number of arguments for 'command|count' command");
}

#[test]
fn keys_are_found_in_a_request() {
    for (request, reply) in [
        ("get a", "[\"a\"]"),
        ("mset a 1 b 2", "[\"a\" \"b\"]"),
        ("copy a b REPLACE", "[\"a\" \"b\"]"),
        ("object encoding a", "[\"a\"]"),
        ("once s 1 mget a b", "[\"a\" \"b\"]"),
        ("once s 1 dbsize", "ERR The command has no key arguments"),
        ("dbsize", "ERR The command has no key arguments"),
        ("foo a", "ERR Invalid command specified"),
        ("get a b", "ERR Invalid number of arguments specified for command"),
    ] {
        assert_eq!(ask(&format!("COMMAND GETKEYS {request}")), reply, "{request}");
    }
    for (request, reply) in [
        ("mget a b", "[[\"a\" [RO access]] [\"b\" [RO access]]]"),
        ("rename a b", "[[\"a\" [RW access delete]] [\"b\" [OW update]]]"),
        ("set a b EX 10 NX", "[[\"a\" [OW update]]]"),
        ("set a b nx Get", "[[\"a\" [RW access update]]]"),
        ("set get get", "[[\"get\" [OW update]]]"),
        ("once s 1 set a b get", "[[\"a\" [RW access update]]]"),
    ] {
        assert_eq!(ask(&format!("COMMAND GETKEYSANDFLAGS {request}")), reply, "{request}");
    }
}

#[test]
fn lists_docs_and_help() {
    assert_eq!(ask("COMMAND LIST FILTERBY PATTERN GETS*"), "[\"getset\"]");
    assert_eq!(ask("COMMAND LIST FILTERBY MODULE x"), "[]");
    assert!(ask("COMMAND LIST FILTERBY ACLCAT string").starts_with("[\"get\" \"set\""));
    assert_eq!(ask("COMMAND LIST FILTERBY foo x"), "ERR syntax error");
    assert_eq!(ask("COMMAND LIST foo"), "ERR syntax error");
    assert!(ask("COMMAND LIST").contains("\"cluster|slots\""));
    assert_eq!(
        ask("COMMAND DOCS strlen foo"),
        "[\"strlen\" [\"summary\" \"Get the length of the value stored in a key\" \"since\" \"2.2.0\" \
         \"group\" \"string\" \"arguments\" [[\"name\" \"key\" \"type\" \"string\"]]]]"
    );
    assert!(ask("COMMAND DOCS").contains("\"config|get\""));
    let help = show(&help(find(b"object")));
    assert!(
        help.contains("OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are: ENCODING key     Inspect"),
        "{help}"
    );
    // In every protocol, a list is an array, and the lines of a help text are statuses.
    let written = |reply: &Reply<'_>| {
        let mut out = Outbound::new();
        reply.write(Protocol::Resp3, &mut out);
        out.take_bytes()
    };
    let words: Vec<&[u8]> = "COMMAND LIST FILTERBY PATTERN gets*".split(' ').map(str::as_bytes).collect();
    assert_eq!(&written(&command(lookup(&words).unwrap().verb, &words))[..], b"*1\r\n$6\r\ngetset\r\n");
    for container in ["object", "session", "paxoi", "command"] {
        let help = written(&crate::kv::docs::help(find(container.as_bytes())));
        let lines: Vec<&[u8]> = help[..].split(|byte| *byte == b'\n').collect();
        assert!(lines[0].starts_with(b"*") && lines[1..lines.len() - 1].iter().all(|line| line.starts_with(b"+")));
    }
}
