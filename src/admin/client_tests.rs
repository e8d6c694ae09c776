//! The CLIENT command, compared with the replies of a real Redis.

use super::*;
use net::outbound::Outbound;

/// Returns a connection with this id, from a port of its own.
pub(in crate::admin) fn info(id: u64) -> ClientInfo {
    let addr = SocketAddr::from(([127, 0, 0, 1], 50000 + id as u16));
    ClientInfo::new(id, addr, SocketAddr::from(([127, 0, 0, 1], 7001)), Ms(10_000))
}

/// Splits a command at its spaces into arguments.
pub(in crate::admin) fn words(command: &str) -> Vec<&[u8]> {
    command.split(' ').map(str::as_bytes).collect()
}

/// Returns a reply as it is sent on the wire.
pub(in crate::admin) fn written(reply: &Reply<'_>, protocol: Protocol) -> String {
    let mut out = Outbound::new();
    reply.write(protocol, &mut out);
    String::from_utf8(out.take_bytes().to_vec()).expect("replies under test are text")
}

fn asked(command: &str, me: &mut ClientInfo) -> Reply<'static> {
    own(&words(command), me, Ms(12_500)).expect("about the own connection")
}

fn all(command: &str) -> ClientAction {
    let clients = [info(9), info(2), info(5)];
    every(&words(command), 5, &clients, Ms(12_500))
}

fn killed(command: &str) -> (Vec<u64>, Reply<'static>) {
    match all(command) {
        ClientAction::Reply(reply) => (Vec::new(), reply),
        ClientAction::Kill { ids, reply } => (ids, reply),
        other => panic!("{command}: {other:?}"),
    }
}

fn listed(command: &str) -> Vec<String> {
    let ClientAction::Reply(Reply::Text(lines)) = all(command) else { panic!("{command}: not a list") };
    lines.lines().map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn the_line_of_a_client_has_the_fields_of_redis() {
    let mut me = info(6);
    me.last_command = "client|info";
    me.last_input_ms = Ms(11_400);
    let expected = "id=6 addr=127.0.0.1:50006 laddr=127.0.0.1:7001 fd=-1 name= age=2 idle=1 flags=N db=0 sub=0 psub=0 ssub=0 \
                    multi=-1 qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 tot-mem=0 events=r \
                    cmd=client|info user=default redir=-1 resp=2 lib-name= lib-ver=\n";
    assert_eq!(asked("CLIENT INFO", &mut me), Reply::Text(expected.into()));
    (me.no_evict, me.multi, me.outbound_bytes) = (true, 2, 7);
    let Reply::Text(line) = asked("client info", &mut me) else { panic!("not text") };
    assert!(
        line.contains(" flags=xe ") && line.contains(" multi=2 ") && line.contains(" tot-mem=7 events=rw "),
        "{line}"
    );
}

#[test]
fn names_are_printable_ascii() {
    let mut me = info(1);
    assert_eq!(asked("CLIENT GETNAME", &mut me), Reply::Null);
    assert_eq!(asked("CLIENT SETNAME bob", &mut me), Reply::Ok);
    for bad in ["a b".as_bytes(), b"a\n", "é".as_bytes(), b"\x7f", b"\xff"] {
        assert_eq!(own(&[b"CLIENT", b"SETNAME", bad], &mut me, Ms(0)), Some(bad_name()));
    }
    assert_eq!(asked("CLIENT GETNAME", &mut me), Reply::text("bob"));
    assert_eq!(asked("CLIENT SETNAME ", &mut me), Reply::Ok);
    assert_eq!(asked("CLIENT GETNAME", &mut me), Reply::Null, "an empty name removes it");
}

#[test]
fn libraries_name_themselves() {
    let mut me = info(1);
    assert_eq!(asked("CLIENT SETINFO LIB-NAME redis-py", &mut me), Reply::Ok);
    assert_eq!(asked("CLIENT SETINFO lib-ver 5.0", &mut me), Reply::Ok);
    assert_eq!((me.lib_name.as_str(), me.lib_ver.as_str()), ("redis-py", "5.0"));
    assert_eq!(asked("CLIENT SETINFO COLOUR red", &mut me), Reply::error("ERR Unrecognized option 'COLOUR'"));
    let reply = own(&[b"CLIENT", b"SETINFO", b"LIB-VER", b"a b"], &mut me, Ms(0));
    assert_eq!(reply, Some(Reply::error("ERR LIB-VER cannot contain spaces, newlines or special characters.")));
}

#[test]
fn replies_are_switched_for_the_commands_that_follow() {
    let mut me = info(1);
    let mut sent = |commands: &[&str]| -> Vec<bool> {
        let each = commands.iter().map(|command| {
            let _ = own(&words(command), &mut me, Ms(0));
            me.reply_mode.admit()
        });
        each.collect()
    };
    assert_eq!(sent(&["CLIENT ID", "CLIENT REPLY SKIP", "CLIENT ID", "CLIENT ID"]), [true, false, false, true]);
    assert_eq!(sent(&["CLIENT REPLY OFF", "CLIENT ID", "CLIENT REPLY SKIP", "CLIENT ID"]), [false; 4]);
    assert_eq!(sent(&["CLIENT ID", "CLIENT REPLY ON", "CLIENT ID"]), [false, true, true]);
    assert_eq!(
        sent(&["CLIENT REPLY SKIP", "CLIENT REPLY SKIP", "CLIENT ID", "CLIENT ID"]),
        [false, false, false, true]
    );
}

#[test]
fn list_filters_and_sorts() {
    assert_eq!(listed("CLIENT LIST"), ["id=2", "id=5", "id=9"]);
    assert_eq!(listed("client list type NORMAL"), ["id=2", "id=5", "id=9"]);
    assert_eq!(listed("CLIENT LIST TYPE master"), Vec::<String>::new());
    assert_eq!(listed("CLIENT LIST ID 9 2 77"), ["id=2", "id=9"]);
    for (command, error) in [
        ("CLIENT LIST TYPE foo", "ERR Unknown client type 'foo'"),
        ("CLIENT LIST ID x", "ERR Invalid client ID"),
        ("CLIENT LIST ID", "ERR syntax error"),
        ("CLIENT LIST TYPE", "ERR syntax error"),
        ("CLIENT LIST FOO", "ERR syntax error"),
    ] {
        assert_eq!(all(command), ClientAction::Reply(Reply::error(error)));
    }
}

#[test]
fn kill_takes_the_old_form_and_filters() {
    assert_eq!(killed("CLIENT KILL 127.0.0.1:50005"), (vec![5], Reply::Ok), "the old form may end its own connection");
    assert_eq!(killed("CLIENT KILL 1.2.3.4:5"), (vec![], Reply::error("ERR No such client")));
    assert_eq!(killed("CLIENT KILL ID 9"), (vec![9], Reply::Int(1)));
    assert_eq!(killed("CLIENT KILL ID 5"), (vec![], Reply::Int(0)), "one does not kill oneself by default");
    assert_eq!(killed("CLIENT KILL ID 5 SKIPME no"), (vec![5], Reply::Int(1)));
    assert_eq!(killed("CLIENT KILL TYPE normal"), (vec![2, 9], Reply::Int(2)));
    assert_eq!(killed("CLIENT KILL LADDR 127.0.0.1:7001 SKIPME NO"), (vec![2, 5, 9], Reply::Int(3)));
    assert_eq!(killed("CLIENT KILL ADDR 127.0.0.1:50002 ID 9"), (vec![], Reply::Int(0)), "all filters must match");
    assert_eq!(killed("CLIENT KILL TYPE pubsub"), (vec![], Reply::Int(0)));
    for (command, error) in [
        ("CLIENT KILL", "ERR wrong number of arguments for 'client|kill' command"),
        ("CLIENT KILL ID 0", "ERR client-id should be greater than 0"),
        ("CLIENT KILL ID x", "ERR client-id should be greater than 0"),
        ("CLIENT KILL TYPE foo", "ERR Unknown client type 'foo'"),
        ("CLIENT KILL USER bob", "ERR No such user 'bob'"),
        ("CLIENT KILL SKIPME maybe", "ERR syntax error"),
        ("CLIENT KILL ID 9 ADDR", "ERR syntax error"),
    ] {
        assert_eq!(killed(command), (vec![], Reply::error(error)));
    }
}

#[test]
fn pauses_and_unblocks_are_for_the_node() {
    let paused = |timeout_ms, all| ClientAction::Pause { timeout_ms, all };
    let unblocked = |id, with_error| ClientAction::Unblock { id, with_error };
    for (command, action) in [
        ("CLIENT PAUSE 10", paused(Ms(10), true)),
        ("CLIENT PAUSE 0 all", paused(Ms(0), true)),
        ("client pause 9223372036854775807 Write", paused(Ms(i64::MAX as u64), false)),
        ("CLIENT UNPAUSE", ClientAction::Unpause),
        ("CLIENT UNBLOCK 7", unblocked(7, false)),
        ("CLIENT UNBLOCK 7 timeout", unblocked(7, false)),
        ("CLIENT UNBLOCK -7 ERROR", unblocked(0, true)),
    ] {
        assert_eq!(all(command), action, "{command}");
    }
    for (command, error) in [
        ("CLIENT PAUSE", "ERR wrong number of arguments for 'client|pause' command"),
        ("CLIENT PAUSE x", "ERR timeout is not an integer or out of range"),
        ("CLIENT PAUSE -1", "ERR timeout is negative"),
        ("CLIENT PAUSE 1 foo", "ERR CLIENT PAUSE mode must be WRITE or ALL"),
        ("CLIENT UNPAUSE x", "ERR wrong number of arguments for 'client|unpause' command"),
        ("CLIENT UNBLOCK", "ERR wrong number of arguments for 'client|unblock' command"),
        ("CLIENT UNBLOCK x", "ERR value is not an integer or out of range"),
        ("CLIENT UNBLOCK 1 foo", "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR"),
    ] {
        assert_eq!(all(command), ClientAction::Reply(Reply::error(error)), "{command}");
    }
}

#[test]
fn what_changes_nothing_still_answers_as_redis() {
    let mut me = info(4);
    for (command, reply) in [
        ("CLIENT ID", ":4\r\n"),
        ("CLIENT ID x", "-ERR wrong number of arguments for 'client|id' command\r\n"),
        ("CLIENT", "-ERR wrong number of arguments for 'client' command\r\n"),
        ("CLIENT FOO", "-ERR unknown subcommand 'FOO'. Try CLIENT HELP.\r\n"),
        ("CLIENT MAINT_NOTIFICATIONS ON", "-ERR unknown subcommand 'MAINT_NOTIFICATIONS'. Try CLIENT HELP.\r\n"),
        ("CLIENT NO-EVICT on", "+OK\r\n"),
        ("CLIENT NO-TOUCH maybe", "-ERR syntax error\r\n"),
        ("CLIENT REPLY FOO", "-ERR syntax error\r\n"),
        ("CLIENT TRACKING off", "+OK\r\n"),
        ("CLIENT TRACKING maybe", "-ERR syntax error\r\n"),
        ("CLIENT GETREDIR", ":-1\r\n"),
        (
            "CLIENT TRACKINGINFO",
            "*6\r\n$5\r\nflags\r\n*1\r\n$3\r\noff\r\n$8\r\nredirect\r\n:-1\r\n$8\r\nprefixes\r\n*0\r\n",
        ),
    ] {
        assert_eq!(written(&asked(command, &mut me), Protocol::Resp2), reply, "{command}");
    }
    let Reply::Error(error) = asked("CLIENT TRACKING on", &mut me) else { panic!("tracking is not there") };
    assert!(error.starts_with("ERR CLIENT TRACKING is not supported"), "{error}");
    assert!(written(&asked("CLIENT HELP", &mut me), Protocol::Resp2).ends_with("+HELP\r\n+    Prints this help.\r\n"));
}
