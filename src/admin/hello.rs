//! Connection commands: HELLO, AUTH, RESET, SELECT, PING, ECHO, QUIT, TIME, WAIT, WAITAOF, and the commands of a
//! cluster connection (READONLY, READWRITE, ASKING). There are no passwords yet, so AUTH answers like a Redis without
//! passwords: the default user accepts any password.

use super::client::{self, ClientInfo};
use super::{REDIS_VERSION, echo as shown, integer, not_an_integer, syntax_error, wrong_arity};
use crate::kv::reply::Reply;
use crate::kv::table::Verb;
use groups::{Ms, Us};
use net::resp::Protocol;

const WRONG_PASSWORD: &str = "WRONGPASS invalid username-password pair or user is disabled.";

/// `HELLO [version [AUTH user password] [SETNAME name]]`: changes the protocol and the name of `me`, and describes the
/// server. The reply itself is in the new protocol. An error changes nothing.
#[must_use]
pub fn hello(args: &[&[u8]], me: &mut ClientInfo) -> Reply<'static> {
    let mut protocol = me.protocol;
    let mut name = None;
    if let Some(version) = args.get(1) {
        protocol = match integer(version) {
            None => return Reply::error("ERR Protocol version is not an integer or out of range"),
            Some(2) => Protocol::Resp2,
            Some(3) => Protocol::Resp3,
            Some(_) => return Reply::error("NOPROTO unsupported protocol version"),
        };
        let mut options = &args[2..];
        while let Some((option, rest)) = options.split_first() {
            options = match rest {
                [user, _, rest @ ..] if option.eq_ignore_ascii_case(b"auth") => {
                    if *user != b"default" {
                        return Reply::error(WRONG_PASSWORD);
                    }
                    rest
                }
                [wanted, rest @ ..] if option.eq_ignore_ascii_case(b"setname") => {
                    let Some(wanted) = client::attribute(wanted) else { return client::bad_name() };
                    name = Some(wanted);
                    rest
                }
                _ => return Reply::Error(format!("ERR Syntax error in HELLO option '{}'", shown(option)).into()),
            };
        }
    }
    me.protocol = protocol;
    if let Some(name) = name {
        name.clone_into(&mut me.name);
    }
    description(me)
}

/// Answers `AUTH [user] password`.
#[must_use]
pub fn auth(args: &[&[u8]]) -> Reply<'static> {
    match args {
        [] | [_] => wrong_arity("auth"),
        [_, _] => Reply::error(
            "ERR AUTH <password> called without any password configured for the default user. Are you sure your \
             configuration is correct?",
        ),
        [_, b"default", _] => Reply::Ok,
        [_, _, _] => Reply::error(WRONG_PASSWORD),
        _ => syntax_error(),
    }
}

/// `RESET`: restores the connection's initial state, except its library name and version. The caller drops an open
/// MULTI and ends READONLY.
#[must_use]
pub fn reset(args: &[&[u8]], me: &mut ClientInfo) -> Reply<'static> {
    if args.len() != 1 {
        return wrong_arity("reset");
    }
    me.reset();
    Reply::Simple("RESET")
}

/// `SELECT index`: a cluster has one database, 0.
#[must_use]
pub fn select(args: &[&[u8]]) -> Reply<'static> {
    let [_, index] = args else { return wrong_arity("select") };
    match integer(index).map(i32::try_from) {
        None => not_an_integer(),
        Some(Err(_)) => Reply::error("ERR value is out of range, value must between -2147483648 and 2147483647"),
        Some(Ok(0)) => Reply::Ok,
        Some(Ok(_)) => Reply::error("ERR SELECT is not allowed in cluster mode"),
    }
}

/// Answers `PING [message]`.
#[must_use]
pub fn ping<'a>(args: &[&'a [u8]]) -> Reply<'a> {
    match args {
        [_] => Reply::Simple("PONG"),
        [_, message] => Reply::bulk(message),
        _ => wrong_arity("ping"),
    }
}

/// Answers `ECHO message`.
#[must_use]
pub fn echo<'a>(args: &[&'a [u8]]) -> Reply<'a> {
    match args {
        [_, message] => Reply::bulk(message),
        _ => wrong_arity("echo"),
    }
}

/// `QUIT`: OK, after which the caller closes the connection. Any arguments are ignored, as in Redis.
#[must_use]
pub fn quit() -> Reply<'static> {
    Reply::Ok
}

/// `TIME`: seconds and microseconds of `unix_us`, the present time in microseconds since 1970.
#[must_use]
pub fn time(args: &[&[u8]], unix_us: Us) -> Reply<'static> {
    if args.len() != 1 {
        return wrong_arity("time");
    }
    let number = |number: u64| Reply::Bulk(number.to_string().into_bytes().into());
    Reply::Array(vec![number(unix_us.0 / 1_000_000), number(unix_us.0 % 1_000_000)])
}

/// The condition that a WAIT or WAITAOF waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// WAITAOF: true if this node's own disk must have the writes, too. `None` for WAIT, which does not say.
    pub local: Option<bool>,
    /// Number of other members that must have the writes.
    pub others: i64,
    /// Time limit in milliseconds; 0 for no limit.
    pub timeout_ms: Ms,
}

/// Parses `WAIT replicas timeout`.
///
/// # Errors
/// The error reply, if the request is not valid.
pub fn wait(args: &[&[u8]]) -> Result<Wanted, Reply<'static>> {
    let [_, replicas, timeout] = args else { return Err(wrong_arity("wait")) };
    let others = integer(replicas).ok_or_else(not_an_integer)?;
    Ok(Wanted { local: None, others, timeout_ms: timeout_ms(timeout)? })
}

/// Parses `WAITAOF local replicas timeout`.
///
/// # Errors
/// The error reply, if the request is not valid.
pub fn wait_aof(args: &[&[u8]]) -> Result<Wanted, Reply<'static>> {
    let [_, local, replicas, timeout] = args else { return Err(wrong_arity("waitaof")) };
    let (local, others) = integer(local).zip(integer(replicas)).ok_or_else(not_an_integer)?;
    if !(0..=1).contains(&local) {
        return Err(Reply::error("ERR value is out of range, value must between 0 and 1"));
    }
    if others < 0 {
        return Err(Reply::error("ERR value is out of range, must be positive"));
    }
    Ok(Wanted { local: Some(local == 1), others, timeout_ms: timeout_ms(timeout)? })
}

/// Returns the refusal of a connection command that a transaction cannot queue: EXEC has one reply, in one protocol.
#[must_use]
pub fn refused_in_transaction(verb: Verb, args: &[&[u8]], me: &ClientInfo) -> Option<Reply<'static>> {
    match (verb, args) {
        (Verb::Hello, [_, version, ..]) if integer(version) == Some(5 - number_of(me.protocol)) => {
            Some(Reply::error("ERR HELLO cannot change the protocol inside a transaction: EXEC has one reply"))
        }
        (Verb::ClientReply, [_, _, mode])
            if mode.eq_ignore_ascii_case(b"off") || mode.eq_ignore_ascii_case(b"skip") =>
        {
            Some(Reply::error("ERR CLIENT REPLY OFF and SKIP are not allowed in a transaction: EXEC has one reply"))
        }
        _ => None,
    }
}

fn number_of(protocol: Protocol) -> i64 {
    if protocol == Protocol::Resp3 { 3 } else { 2 }
}

/// Accepts READONLY, READWRITE and ASKING (`name`, in lower case). The caller carries out the first two. ASKING has no
/// effect, because slots do not move.
#[must_use]
pub fn accepted(args: &[&[u8]], name: &'static str) -> Reply<'static> {
    if args.len() == 1 { Reply::Ok } else { wrong_arity(name) }
}

/// Parses a timeout in milliseconds, or returns the error reply.
pub(super) fn timeout_ms(timeout: &[u8]) -> Result<Ms, Reply<'static>> {
    let number = integer(timeout).ok_or(Reply::error("ERR timeout is not an integer or out of range"))?;
    u64::try_from(number).map(Ms).map_err(|_| Reply::error("ERR timeout is negative"))
}

fn description(me: &ClientInfo) -> Reply<'static> {
    let version = number_of(me.protocol);
    let fields = [
        ("server", Reply::text("redis")),
        ("version", Reply::text(REDIS_VERSION)),
        ("proto", Reply::Int(version)),
        ("id", Reply::Int(me.id as i64)),
        ("mode", Reply::text("cluster")),
        ("role", Reply::text("master")),
        ("modules", Reply::Array(Vec::new())),
    ];
    Reply::Map(fields.into_iter().map(|(name, value)| (Reply::text(name), value)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::client::tests::{info, words, written};

    fn said(text: &'static str) -> String {
        format!("-{text}\r\n")
    }

    #[test]
    fn hello_describes_the_server_in_the_protocol_asked_for() {
        let mut me = info(3);
        let resp2 = "*14\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n7.0.15\r\n$5\r\nproto\r\n:2\r\n$2\r\nid\r\n:3\r\n\
                     $4\r\nmode\r\n$7\r\ncluster\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n";
        assert_eq!(written(&hello(&words("HELLO"), &mut me), me.protocol), resp2);
        let reply = hello(&words("hello 3 auth default any SetName bob"), &mut me);
        assert_eq!((me.protocol, me.name.as_str()), (Protocol::Resp3, "bob"));
        assert_eq!(written(&reply, me.protocol), resp2.replace("*14", "%7").replace(":2\r\n", ":3\r\n"));
        let reply = hello(&words("HELLO"), &mut me);
        assert!(written(&reply, me.protocol).starts_with("%7"), "without a version the protocol stays");
    }

    #[test]
    fn a_hello_that_fails_changes_nothing() {
        let mut me = info(3);
        for (command, error) in [
            ("HELLO x", "ERR Protocol version is not an integer or out of range"),
            ("HELLO 4", "NOPROTO unsupported protocol version"),
            ("HELLO 3 FOO", "ERR Syntax error in HELLO option 'FOO'"),
            ("HELLO 3 SETNAME", "ERR Syntax error in HELLO option 'SETNAME'"),
            ("HELLO 3 AUTH a", "ERR Syntax error in HELLO option 'AUTH'"),
            ("HELLO 3 SETNAME x AUTH bob x", "WRONGPASS invalid username-password pair or user is disabled."),
        ] {
            assert_eq!(hello(&words(command), &mut me), Reply::error(error));
        }
        assert_eq!(hello(&[b"HELLO", b"3", b"SETNAME", b"a b"], &mut me), client::bad_name());
        assert_eq!((me.protocol, me.name.as_str()), (Protocol::Resp2, ""));
    }

    #[test]
    fn auth_answers_like_a_redis_without_a_password() {
        let text = "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?";
        assert_eq!(auth(&words("AUTH x")), Reply::error(text));
        assert_eq!(auth(&words("AUTH default x")), Reply::Ok);
        assert_eq!(auth(&words("AUTH bob x")), Reply::error(WRONG_PASSWORD));
        assert_eq!(auth(&words("AUTH a b c")), Reply::error("ERR syntax error"));
        assert_eq!(auth(&words("AUTH")), Reply::error("ERR wrong number of arguments for 'auth' command"));
    }

    #[test]
    fn reset_forgets_everything_but_the_library() {
        let mut me = info(3);
        let _ = hello(&words("HELLO 3 SETNAME bob"), &mut me);
        me.lib_name = "lib".into();
        me.no_evict = true;
        assert_eq!(
            reset(&words("RESET x"), &mut me),
            Reply::error("ERR wrong number of arguments for 'reset' command")
        );
        assert_eq!(reset(&words("RESET"), &mut me), Reply::Simple("RESET"));
        assert_eq!(me, ClientInfo { lib_name: "lib".into(), ..info(3) });
    }

    #[test]
    fn there_is_one_database() {
        assert_eq!(select(&words("SELECT 0")), Reply::Ok);
        assert_eq!(select(&words("SELECT 1")), Reply::error("ERR SELECT is not allowed in cluster mode"));
        assert_eq!(select(&words("SELECT x")), Reply::error("ERR value is not an integer or out of range"));
        let range = "ERR value is out of range, value must between -2147483648 and 2147483647";
        assert_eq!(select(&words("SELECT 99999999999")), Reply::error(range));
    }

    #[test]
    fn small_ones() {
        let resp2 = |reply: Reply<'_>| written(&reply, Protocol::Resp2);
        assert_eq!(resp2(ping(&words("PING"))), "+PONG\r\n");
        assert_eq!(resp2(ping(&words("PING a"))), "$1\r\na\r\n");
        assert_eq!(resp2(ping(&words("PING a b"))), said("ERR wrong number of arguments for 'ping' command"));
        assert_eq!(resp2(echo(&words("ECHO a"))), "$1\r\na\r\n");
        assert_eq!(resp2(time(&words("TIME"), Us(1_795_192_120_000_601))), "*2\r\n$10\r\n1795192120\r\n$3\r\n601\r\n");
        assert_eq!(resp2(quit()), "+OK\r\n");
        assert_eq!(resp2(accepted(&words("ASKING"), "asking")), "+OK\r\n");
        assert_eq!(
            resp2(accepted(&words("ASKING x"), "asking")),
            said("ERR wrong number of arguments for 'asking' command")
        );
    }

    #[test]
    fn wait_reads_numbers_and_a_timeout() {
        assert_eq!(wait(&words("WAIT 2 100")), Ok(Wanted { local: None, others: 2, timeout_ms: Ms(100) }));
        assert_eq!(wait(&words("WAIT -1 0")), Ok(Wanted { local: None, others: -1, timeout_ms: Ms(0) }));
        assert_eq!(wait(&words("WAIT a 0")), Err(Reply::error("ERR value is not an integer or out of range")));
        assert_eq!(wait(&words("WAIT 1 b")), Err(Reply::error("ERR timeout is not an integer or out of range")));
        assert_eq!(wait(&words("WAIT 0 -1")), Err(Reply::error("ERR timeout is negative")));
        assert_eq!(wait_aof(&words("WAITAOF 1 2 0")), Ok(Wanted { local: Some(true), others: 2, timeout_ms: Ms(0) }));
        let range = Reply::error("ERR value is out of range, value must between 0 and 1");
        assert_eq!(wait_aof(&words("WAITAOF 2 1 0")), Err(range));
        assert_eq!(
            wait_aof(&words("WAITAOF 0 -1 0")),
            Err(Reply::error("ERR value is out of range, must be positive"))
        );
    }

    #[test]
    fn a_transaction_keeps_its_protocol_and_its_reply() {
        let mut me = info(3);
        let refused =
            |verb, command: &str, me: &ClientInfo| refused_in_transaction(verb, &words(command), me).is_some();
        assert!(refused(Verb::Hello, "HELLO 3", &me) && !refused(Verb::Hello, "HELLO 2", &me));
        assert!(
            !refused(Verb::Hello, "HELLO", &me) && !refused(Verb::Hello, "HELLO x", &me),
            "neither changes the protocol"
        );
        me.protocol = Protocol::Resp3;
        assert!(!refused(Verb::Hello, "HELLO 3", &me) && refused(Verb::Hello, "HELLO 2 SETNAME a", &me));
        let reply = |mode: &str, me: &ClientInfo| refused(Verb::ClientReply, &format!("CLIENT REPLY {mode}"), me);
        assert_eq!(["on", "ON", "off", "SKIP"].map(|mode| reply(mode, &me)), [false, false, true, true]);
    }
}
