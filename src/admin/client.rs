//! The CLIENT command, and the record that a node keeps of each connection to answer it.
//!
//! A subcommand is about the asking connection ([`own`], which may change its record) or about all connections
//! ([`every`], which only reads). There are two functions so that the node never borrows one record twice.

use super::hello::timeout_ms;
use super::{help, integer, not_an_integer, syntax_error, unknown_subcommand, wrong_arity};
use crate::kv::reply::Reply;
use groups::Ms;
use net::resp::Protocol;
use std::fmt::Write;
use std::net::SocketAddr;

/// One client connection, as CLIENT LIST shows it. Times are milliseconds of the node's monotonic clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientInfo {
    /// The number of the connection, counted from 1. It is never used again while the node runs.
    pub id: u64,
    /// The client's end.
    pub addr: SocketAddr,
    /// The server's end.
    pub laddr: SocketAddr,
    /// From CLIENT SETNAME or HELLO; empty: none.
    pub name: String,
    /// From CLIENT SETINFO LIB-NAME; empty: none.
    pub lib_name: String,
    /// From CLIENT SETINFO LIB-VER; empty: none.
    pub lib_ver: String,
    /// The version of RESP that replies are written in.
    pub protocol: Protocol,
    /// When the connection was accepted.
    pub created_ms: Ms,
    /// When the client last sent something.
    pub last_input_ms: Ms,
    /// Which replies the client wants.
    pub reply_mode: ReplyMode,
    /// CLIENT NO-EVICT: kept for CLIENT LIST only, no connection is evicted for memory.
    pub no_evict: bool,
    /// CLIENT NO-TOUCH: kept for CLIENT LIST only, nothing here depends on when a key was last used.
    pub no_touch: bool,
    /// The last command, `container|subcommand` where there is one; empty: none yet.
    pub last_command: &'static str,
    /// Number of commands queued after MULTI; -1 outside a transaction.
    pub multi: i32,
    /// Bytes received and not yet read as commands.
    pub input_bytes: usize,
    /// Bytes of replies not yet sent.
    pub outbound_bytes: usize,
    /// True while the client waits in WAIT or WAITAOF.
    pub blocked: bool,
}

/// Which replies a connection wants, by CLIENT REPLY.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplyMode {
    /// The client gets all replies.
    #[default]
    On,
    /// The client gets no reply.
    Off,
    /// The client does not get the reply to the current command (CLIENT REPLY SKIP itself), nor to the next one.
    SkipThis,
    /// The client does not get the reply to the next command.
    SkipNext,
}

/// The node's action for a CLIENT subcommand about all connections.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientAction {
    /// Only answers.
    Reply(Reply<'static>),
    /// Closes these connections and answers. If the asking connection is among them, it closes after the reply.
    Kill {
        /// Connections to close, in ascending order.
        ids: Vec<u64>,
        /// The reply to the asking connection.
        reply: Reply<'static>,
    },
    /// Pauses the requests of all clients, or only those that may write, and answers OK.
    Pause {
        /// The length of the pause in milliseconds.
        timeout_ms: Ms,
        /// True to pause all requests, false to pause only those that may write.
        all: bool,
    },
    /// Ends the pause, and answers OK.
    Unpause,
    /// Ends the WAIT of a client: answers 1, or 0 if it does not wait.
    Unblock {
        /// The client's id.
        id: u64,
        /// True: the client gets an error. False: it gets the reply that it would get after its timeout.
        with_error: bool,
    },
}

impl ClientInfo {
    /// A connection accepted at `now_ms`.
    #[must_use]
    pub fn new(id: u64, addr: SocketAddr, laddr: SocketAddr, now_ms: Ms) -> ClientInfo {
        ClientInfo {
            id,
            addr,
            laddr,
            name: String::new(),
            lib_name: String::new(),
            lib_ver: String::new(),
            protocol: Protocol::Resp2,
            created_ms: now_ms,
            last_input_ms: now_ms,
            reply_mode: ReplyMode::On,
            no_evict: false,
            no_touch: false,
            last_command: "",
            multi: -1,
            input_bytes: 0,
            outbound_bytes: 0,
            blocked: false,
        }
    }

    /// Applies RESET to the record.
    pub fn reset(&mut self) {
        self.name.clear();
        self.protocol = Protocol::Resp2;
        self.reply_mode = ReplyMode::On;
        self.no_evict = false;
        self.no_touch = false;
        self.multi = -1;
    }

    /// Appends the line of CLIENT LIST to `out`, with Redis's fields in Redis's order. A field that has no meaning here
    /// is 0 (`fd`: -1).
    fn line(&self, now_ms: Ms, out: &mut String) {
        let seconds = |since: Ms| now_ms.saturating_sub(since).0 / 1000;
        let flags = [(self.blocked, 'b'), (self.multi >= 0, 'x'), (self.no_evict, 'e'), (self.no_touch, 'T')];
        let flags: String = flags.into_iter().filter_map(|(set, flag)| set.then_some(flag)).collect();
        let _ = writeln!(
            out,
            "id={} addr={} laddr={} fd=-1 name={} age={} idle={} flags={} db=0 sub=0 psub=0 ssub=0 multi={} qbuf={} \
             qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem={} tot-mem={} events={} cmd={} user=default \
             redir=-1 resp={} lib-name={} lib-ver={}",
            self.id,
            self.addr,
            self.laddr,
            self.name,
            seconds(self.created_ms),
            seconds(self.last_input_ms),
            if flags.is_empty() { "N" } else { &flags },
            self.multi,
            self.input_bytes,
            self.outbound_bytes,
            self.input_bytes + self.outbound_bytes,
            if self.outbound_bytes > 0 { "rw" } else { "r" },
            if self.last_command.is_empty() { "NULL" } else { self.last_command },
            if self.protocol == Protocol::Resp3 { 3 } else { 2 },
            self.lib_name,
            self.lib_ver,
        );
    }
}

impl ReplyMode {
    /// Returns true if the current command gets its reply. Call it once for each command, in the order received and
    /// after the command was carried out, so that CLIENT REPLY also decides about its own reply.
    pub fn admit(&mut self) -> bool {
        match self {
            ReplyMode::On => true,
            ReplyMode::Off => false,
            ReplyMode::SkipThis => {
                *self = ReplyMode::SkipNext;
                false
            }
            ReplyMode::SkipNext => {
                *self = ReplyMode::On;
                false
            }
        }
    }
}

/// Carries out a subcommand about the asking connection. Returns `None` if the subcommand is about all connections: see
/// [`every`].
#[must_use]
pub fn own(args: &[&[u8]], me: &mut ClientInfo, now_ms: Ms) -> Option<Reply<'static>> {
    let Some(subcommand) = args.get(1) else { return Some(wrong_arity("client")) };
    let rest = &args[2..];
    Some(match (subcommand.to_ascii_lowercase().as_slice(), rest) {
        (b"list" | b"kill" | b"pause" | b"unpause" | b"unblock", _) => return None,
        (b"id", []) => Reply::Int(me.id as i64),
        (b"id", _) => wrong_arity("client|id"),
        (b"info", []) => {
            let mut line = String::new();
            me.line(now_ms, &mut line);
            Reply::Text(line.into())
        }
        (b"info", _) => wrong_arity("client|info"),
        (b"getname", []) if me.name.is_empty() => Reply::Null,
        (b"getname", []) => Reply::Bulk(me.name.clone().into_bytes().into()),
        (b"getname", _) => wrong_arity("client|getname"),
        (b"setname", [name]) => attribute(name).map_or_else(bad_name, |name| {
            name.clone_into(&mut me.name);
            Reply::Ok
        }),
        (b"setname", _) => wrong_arity("client|setname"),
        (b"setinfo", [field, value]) => set_info(field, value, me),
        (b"setinfo", _) => wrong_arity("client|setinfo"),
        (b"reply", [mode]) => set_reply_mode(mode, me),
        (b"reply", _) => wrong_arity("client|reply"),
        (b"no-evict", [on]) => set_flag(on, &mut me.no_evict),
        (b"no-evict", _) => wrong_arity("client|no-evict"),
        (b"no-touch", [on]) => set_flag(on, &mut me.no_touch),
        (b"no-touch", _) => wrong_arity("client|no-touch"),
        _ => without_effect(subcommand, rest),
    })
}

/// Returns the action for a subcommand about all connections or another one: LIST, KILL, PAUSE, UNPAUSE or UNBLOCK.
/// `me` is the id of the asking connection, and `clients` are all connections in any order.
#[must_use]
pub fn every<'c>(
    args: &[&[u8]],
    me: u64,
    clients: impl IntoIterator<Item = &'c ClientInfo>,
    now_ms: Ms,
) -> ClientAction {
    let [_, subcommand, rest @ ..] = args else { return ClientAction::Reply(wrong_arity("client")) };
    match subcommand.to_ascii_lowercase().as_slice() {
        b"list" => ClientAction::Reply(list(rest, clients, now_ms)),
        b"kill" => kill(rest, me, clients),
        b"pause" => pause(rest).unwrap_or_else(ClientAction::Reply),
        b"unpause" if rest.is_empty() => ClientAction::Unpause,
        b"unpause" => ClientAction::Reply(wrong_arity("client|unpause")),
        b"unblock" => unblock(rest).unwrap_or_else(ClientAction::Reply),
        _ => ClientAction::Reply(unknown_subcommand("CLIENT", subcommand)),
    }
}

/// Checks a name or version for CLIENT LIST: printable ASCII without spaces. An empty value is valid: it removes the
/// name or version.
pub(super) fn attribute(value: &[u8]) -> Option<&str> {
    if value.iter().all(u8::is_ascii_graphic) { std::str::from_utf8(value).ok() } else { None }
}

pub(super) fn bad_name() -> Reply<'static> {
    Reply::error("ERR Client names cannot contain spaces, newlines or special characters.")
}

fn set_info(field: &[u8], value: &[u8], me: &mut ClientInfo) -> Reply<'static> {
    let kept = match field.to_ascii_lowercase().as_slice() {
        b"lib-name" => &mut me.lib_name,
        b"lib-ver" => &mut me.lib_ver,
        _ => return Reply::Error(format!("ERR Unrecognized option '{}'", super::echo(field)).into()),
    };
    let Some(value) = attribute(value) else {
        let text = format!("ERR {} cannot contain spaces, newlines or special characters.", super::echo(field));
        return Reply::Error(text.into());
    };
    value.clone_into(kept);
    Reply::Ok
}

fn set_reply_mode(mode: &[u8], me: &mut ClientInfo) -> Reply<'static> {
    me.reply_mode = match mode.to_ascii_lowercase().as_slice() {
        b"on" => ReplyMode::On,
        b"off" => ReplyMode::Off,
        b"skip" if me.reply_mode == ReplyMode::Off => ReplyMode::Off,
        b"skip" => ReplyMode::SkipThis,
        _ => return syntax_error(),
    };
    Reply::Ok
}

fn set_flag(on: &[u8], flag: &mut bool) -> Reply<'static> {
    *flag = match on.to_ascii_lowercase().as_slice() {
        b"on" => true,
        b"off" => false,
        _ => return syntax_error(),
    };
    Reply::Ok
}

/// Answers subcommands that clients and tools send, but that change nothing here.
fn without_effect(subcommand: &[u8], rest: &[&[u8]]) -> Reply<'static> {
    match (subcommand.to_ascii_lowercase().as_slice(), rest) {
        (b"tracking", [off]) if off.eq_ignore_ascii_case(b"off") => Reply::Ok,
        (b"tracking", [on, ..]) if on.eq_ignore_ascii_case(b"on") => {
            Reply::error("ERR CLIENT TRACKING is not supported: this server does not track cached keys")
        }
        (b"tracking", [_, ..]) => syntax_error(),
        (b"tracking", []) => wrong_arity("client|tracking"),
        (b"caching", [_]) => Reply::error(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled",
        ),
        (b"caching", _) => wrong_arity("client|caching"),
        (b"getredir", []) => Reply::Int(-1),
        (b"getredir", _) => wrong_arity("client|getredir"),
        (b"trackinginfo", []) => Reply::Map(vec![
            (Reply::text("flags"), Reply::Set(vec![Reply::text("off")])),
            (Reply::text("redirect"), Reply::Int(-1)),
            (Reply::text("prefixes"), Reply::Array(Vec::new())),
        ]),
        (b"trackinginfo", _) => wrong_arity("client|trackinginfo"),
        (b"help", []) => help("CLIENT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:", HELP),
        (b"help", _) => wrong_arity("client|help"),
        // CLIENT MAINT_NOTIFICATIONS gets this answer, too: from the text, a client learns that the server lacks the
        // subcommand.
        _ => unknown_subcommand("CLIENT", subcommand),
    }
}

fn pause(rest: &[&[u8]]) -> Result<ClientAction, Reply<'static>> {
    let (timeout, all) = match rest {
        [timeout] => (timeout, true),
        [timeout, mode] if mode.eq_ignore_ascii_case(b"all") => (timeout, true),
        [timeout, mode] if mode.eq_ignore_ascii_case(b"write") => (timeout, false),
        [_, _] => return Err(Reply::error("ERR CLIENT PAUSE mode must be WRITE or ALL")),
        _ => return Err(wrong_arity("client|pause")),
    };
    Ok(ClientAction::Pause { timeout_ms: timeout_ms(timeout)?, all })
}

fn unblock(rest: &[&[u8]]) -> Result<ClientAction, Reply<'static>> {
    let (id, with_error) = match rest {
        [id] => (id, false),
        [id, reason] if reason.eq_ignore_ascii_case(b"timeout") => (id, false),
        [id, reason] if reason.eq_ignore_ascii_case(b"error") => (id, true),
        [_, _] => return Err(Reply::error("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")),
        _ => return Err(wrong_arity("client|unblock")),
    };
    let id = integer(id).ok_or_else(not_an_integer)?;
    Ok(ClientAction::Unblock { id: u64::try_from(id).unwrap_or(0), with_error })
}

fn list<'c>(rest: &[&[u8]], clients: impl IntoIterator<Item = &'c ClientInfo>, now_ms: Ms) -> Reply<'static> {
    let mut filter = Filter::default();
    match rest {
        [] => {}
        [option, kind] if option.eq_ignore_ascii_case(b"type") => match normal_type(kind) {
            Ok(normal) => filter.nobody = !normal,
            Err(error) => return error,
        },
        [option, ids @ ..] if option.eq_ignore_ascii_case(b"id") && !ids.is_empty() => {
            let Some(ids) = ids.iter().map(|id| integer(id)).collect() else {
                return Reply::error("ERR Invalid client ID");
            };
            filter.ids = Some(ids);
        }
        _ => return syntax_error(),
    }
    let mut chosen: Vec<_> = clients.into_iter().filter(|client| filter.takes(client)).collect();
    chosen.sort_unstable_by_key(|client| client.id);
    let mut lines = String::new();
    chosen.iter().for_each(|client| client.line(now_ms, &mut lines));
    Reply::Text(lines.into())
}

fn kill<'c>(rest: &[&[u8]], me: u64, clients: impl IntoIterator<Item = &'c ClientInfo>) -> ClientAction {
    let (filter, old_form) = match rest {
        [] => return ClientAction::Reply(wrong_arity("client|kill")),
        [addr] => (Filter { addr: Some(addr), ..Filter::default() }, true),
        _ => match kill_filter(rest, me) {
            Ok(filter) => (filter, false),
            Err(error) => return ClientAction::Reply(error),
        },
    };
    let mut ids: Vec<_> = clients.into_iter().filter(|client| filter.takes(client)).map(|client| client.id).collect();
    ids.sort_unstable();
    let reply = match (old_form, ids.is_empty()) {
        (true, true) => Reply::error("ERR No such client"),
        (true, false) => Reply::Ok,
        (false, _) => Reply::Int(ids.len() as i64),
    };
    if ids.is_empty() { ClientAction::Reply(reply) } else { ClientAction::Kill { ids, reply } }
}

fn kill_filter<'a>(rest: &[&'a [u8]], me: u64) -> Result<Filter<'a>, Reply<'static>> {
    let mut filter = Filter { not: Some(me), ..Filter::default() };
    for pair in rest.chunks(2) {
        let [option, value] = *pair else { return Err(syntax_error()) };
        match option.to_ascii_lowercase().as_slice() {
            b"id" => match integer(value) {
                Some(id @ 1..) => filter.ids = Some(vec![id]),
                _ => return Err(Reply::error("ERR client-id should be greater than 0")),
            },
            b"addr" => filter.addr = Some(value),
            b"laddr" => filter.laddr = Some(value),
            b"type" => filter.nobody |= !normal_type(value)?,
            b"user" if value == b"default" => {}
            b"user" => return Err(Reply::Error(format!("ERR No such user '{}'", super::echo(value)).into())),
            b"skipme" if value.eq_ignore_ascii_case(b"yes") => filter.not = Some(me),
            b"skipme" if value.eq_ignore_ascii_case(b"no") => filter.not = None,
            _ => return Err(syntax_error()),
        }
    }
    Ok(filter)
}

/// Returns true if `kind`, the TYPE argument of LIST or KILL, is `normal`: all connections here are normal.
fn normal_type(kind: &[u8]) -> Result<bool, Reply<'static>> {
    match kind.to_ascii_lowercase().as_slice() {
        b"normal" => Ok(true),
        b"master" | b"replica" | b"slave" | b"pubsub" => Ok(false),
        _ => Err(Reply::Error(format!("ERR Unknown client type '{}'", super::echo(kind)).into())),
    }
}

/// The connections that LIST or KILL selects.
#[derive(Default)]
struct Filter<'a> {
    nobody: bool,
    not: Option<u64>,
    ids: Option<Vec<i64>>,
    addr: Option<&'a [u8]>,
    laddr: Option<&'a [u8]>,
}

impl Filter<'_> {
    fn takes(&self, client: &ClientInfo) -> bool {
        let is =
            |wanted: Option<&[u8]>, addr: SocketAddr| wanted.is_none_or(|text| text == addr.to_string().as_bytes());
        !self.nobody
            && self.not != Some(client.id)
            && self.ids.as_ref().is_none_or(|ids| ids.contains(&(client.id as i64)))
            && is(self.addr, client.addr)
            && is(self.laddr, client.laddr)
    }
}

const HELP: &[&str] = &[
    "GETREDIR",
    "    Return the client ID we are redirecting to when tracking is enabled.",
    "GETNAME",
    "    Return the name of the current connection.",
    "ID",
    "    Return the ID of the current connection.",
    "INFO",
    "    Return information about the current client connection.",
    "KILL <ip:port>",
    "    Kill connection made from <ip:port>.",
    "KILL <option> <value> [<option> <value> [...]]",
    "    Kill connections. Options are:",
    "    * ADDR <ip:port>",
    "      Kill connections made from the specified address",
    "    * ID <client-id>",
    "      Kill the connection with this ID.",
    "    * LADDR <ip:port>",
    "      Kill connections made to specified local address",
    "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
    "      Kill connections by type.",
    "    * USER <username>",
    "      Kill connections authenticated by <username>.",
    "    * SKIPME (YES|NO)",
    "      Skip killing current connection (default: yes).",
    "LIST [options ...]",
    "    Return information about client connections. Options:",
    "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
    "      Return clients of specified type.",
    "    * ID <client-id> [<client-id> ...]",
    "      Return clients with these IDs.",
    "NO-EVICT (ON|OFF)",
    "    Accepted: no connection is evicted for memory.",
    "NO-TOUCH (ON|OFF)",
    "    Accepted: nothing depends on when a key was last used.",
    "PAUSE <timeout> [WRITE|ALL]",
    "    Suspend all, or just write, clients of this node for <timeout> milliseconds.",
    "REPLY (ON|OFF|SKIP)",
    "    Control the replies sent to the current connection.",
    "SETINFO (LIB-NAME|LIB-VER) <value>",
    "    Tell which client library this connection uses.",
    "SETNAME <name>",
    "    Assign the name <name> to the current connection.",
    "TRACKINGINFO",
    "    Report tracking status for the current connection.",
    "UNBLOCK <clientid> [TIMEOUT|ERROR]",
    "    Unblock the specified client, which waits in WAIT or WAITAOF.",
    "UNPAUSE",
    "    Stop the current client pause, resuming traffic.",
];

#[cfg(test)]
#[path = "client_tests.rs"]
pub(super) mod tests;
