//! Simulated clients: each has one connection at a time, asks for something now and then, gives up after a while, and
//! writes down what it asked and what it was told. What it never learned stays open in the history.

use crate::network::{Parcel, Who};
use crate::process::Input;
use crate::world::{Event, World};
use bytes::{Buf, Bytes, BytesMut};
use net::resp::value::{self, Value};
use paxoi::client::write_command;
use paxoi::history::{Action, History, Operation, Outcome};
use std::collections::{BTreeMap, VecDeque};

/// What clients do, and how often.
#[derive(Clone, Debug, Default)]
pub(crate) struct Load {
    /// The mean time between two requests of one client.
    pub(crate) pause_us: u64,
    /// A client that waits longer goes elsewhere.
    pub(crate) patience_us: u64,
    /// Requests that a client sends before it has the reply to the first.
    pub(crate) pipeline: usize,
    /// Values that are long, in thousandths: longer than a segment, some of them.
    pub(crate) long: u64,
    /// Keys of each sort.
    pub(crate) keys: u64,
    /// How early a key may vanish beyond what steering makes of its life.
    pub(crate) early_us: u64,
    /// How late.
    pub(crate) late_us: u64,
    /// Which of the sorts of requests are used: one bit each.
    pub(crate) mix: u32,
    /// The nodes that are asked.
    pub(crate) nodes: Vec<usize>,
}

/// Sorts of requests, by their bit in [`Load::mix`].
pub(crate) const SORTS: u32 = 10;

/// A part of a request: one key's.
#[derive(Clone, Debug)]
struct Part {
    key: Bytes,
    action: Action,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// One part, one reply.
    Plain,
    /// Any number of parts, one reply for each in an array.
    Each,
    /// Any number of parts, one reply for all.
    All,
    /// A transaction that reads two keys which are only ever written together.
    Pair,
    /// Sent again, elsewhere too, until its fate is known.
    Once,
    Session,
    /// No key's business: done, or refused for whatever reason.
    Operator,
}

#[derive(Clone, Debug)]
struct Call {
    kind: Kind,
    parts: Vec<Part>,
    /// Replies that come before the one that counts.
    skip: usize,
    request: Vec<u8>,
    call_us: u64,
    sent_us: u64,
}

pub(crate) struct Client {
    connection: Option<u64>,
    node: usize,
    connected: bool,
    input: BytesMut,
    waiting: VecDeque<Call>,
    /// By key: the least that later requests on the same connection must find, for keys that only grow.
    floors: BTreeMap<Bytes, i64>,
    session: Option<(String, u64)>,
    /// Each `ONCE` whose fate is not known.
    again: VecDeque<Call>,
    /// When it was answered last.
    pub(crate) answered_us: u64,
    /// It asks for nothing new.
    pub(crate) quiet: bool,
}

/// What the clients have done together.
#[derive(Default)]
pub(crate) struct Record {
    pub(crate) history: History,
    pub(crate) answered: u64,
    pub(crate) errors: u64,
    /// What somebody was told last, for those who ask one thing at a time.
    pub(crate) last: Option<Outcome>,
    pub(crate) last_error: Option<String>,
    written: u64,
}

/// Errors that say that surely nothing happened.
const REFUSALS: [&str; 7] = ["CLUSTERDOWN", "LOADING", "MISCONF", "OOM", "CROSSSLOT", "EXECABORT", "TRYAGAIN"];

impl Client {
    pub(crate) fn new() -> Client {
        Client {
            connection: None,
            node: 0,
            connected: false,
            input: BytesMut::new(),
            waiting: VecDeque::new(),
            floors: BTreeMap::new(),
            session: None,
            again: VecDeque::new(),
            answered_us: 0,
            quiet: false,
        }
    }
}

impl World {
    /// A client looks after itself.
    pub(crate) fn client_timer(&mut self, index: usize) {
        let pause_us = 1 + self.random.below(2 * self.load.pause_us);
        self.after(pause_us, Event::Client { client: index });
        let late =
            self.clients[index].waiting.front().is_some_and(|call| self.now_us > call.sent_us + self.load.patience_us);
        if late || !self.load.nodes.contains(&self.clients[index].node) {
            self.hang_up(index);
        }
        if self.clients[index].connection.is_none() {
            return self.call_in(index);
        }
        let client = &self.clients[index];
        if !client.connected || client.waiting.len() >= self.load.pipeline {
            return;
        }
        if let Some(call) = self.clients[index].again.pop_front() {
            return self.ask(index, call);
        }
        if !self.clients[index].quiet {
            let call = self.invent(index);
            self.ask(index, call);
        }
    }

    fn call_in(&mut self, index: usize) {
        if let Some(node) = self.random.pick(&self.load.nodes).copied() {
            self.connect_client(index, node);
        }
    }

    /// Lets a client connect to this node.
    pub(crate) fn connect_client(&mut self, index: usize, node: usize) {
        let connection = self.network.connect((Who::Client(index), 0), (Who::Node { node, life: 0 }, 0));
        if let Some(found) = self.network.find(connection) {
            found.ends[1].open = false;
        }
        let client = &mut self.clients[index];
        (client.connection, client.node, client.connected) = (Some(connection), node, false);
        let us = self.random.between(50, 500);
        self.after(us, Event::Dial { connection });
    }

    pub(crate) fn client_connected(&mut self, index: usize, connection: u64) {
        let client = &mut self.clients[index];
        if client.connection == Some(connection) {
            client.connected = true;
        }
    }

    /// Gives its connection up, and with it all that it waits for.
    pub(crate) fn hang_up(&mut self, index: usize) {
        let Some(connection) = self.clients[index].connection else { return };
        if let Some(end) = self.network.end(connection, 0) {
            end.open = false;
        }
        self.send(connection, 0, Parcel::End);
        self.client_cut(index, connection);
    }

    pub(crate) fn client_cut(&mut self, index: usize, connection: u64) {
        let client = &mut self.clients[index];
        if client.connection != Some(connection) {
            return;
        }
        (client.connection, client.connected) = (None, false);
        client.input.clear();
        client.floors.clear();
        for call in std::mem::take(&mut client.waiting) {
            self.leave_open(index, call);
        }
    }

    /// Nobody will tell what became of it.
    fn leave_open(&mut self, index: usize, call: Call) {
        if call.kind == Kind::Once {
            return self.clients[index].again.push_back(call);
        }
        for part in &call.parts {
            let action = match part.action.clone() {
                Action::SetExpiring { value, .. } => Action::SetExpiring { value, earliest: 0, latest: u64::MAX },
                action => action,
            };
            self.write_down(index, &call, &part.key, action, None);
        }
    }

    fn write_down(&mut self, index: usize, call: &Call, key: &Bytes, action: Action, outcome: Option<Outcome>) {
        // Half microseconds: what is asked in the moment of an answer is asked after it.
        let returned = outcome.is_some().then_some(2 * self.now_us);
        let action = match action {
            Action::SetExpiring { value, earliest, latest } => {
                Action::SetExpiring { value, earliest: 2 * earliest, latest: latest.saturating_mul(2) }
            }
            action => action,
        };
        let operation = Operation { client: index as u64, call: 2 * call.call_us + 1, returned, action, outcome };
        self.record.history.push(key.clone(), operation);
    }

    /// What clients still wait for goes into the history as it is.
    pub(crate) fn close_books(&mut self) {
        for index in 0..self.clients.len() {
            self.clients[index].quiet = true;
            let calls: Vec<Call> = self.clients[index].waiting.drain(..).collect();
            let again = std::mem::take(&mut self.clients[index].again);
            for mut call in calls.into_iter().chain(again) {
                call.kind = Kind::Plain;
                self.leave_open(index, call);
            }
        }
    }

    fn ask(&mut self, index: usize, mut call: Call) {
        let Some(connection) = self.clients[index].connection else { return };
        call.sent_us = self.now_us;
        self.trace.line(|| format!("c{index} asks n{}: {}", self.clients[index].node + 1, readable(&call.request)));
        self.note(u64::from(crc32c::crc32c(&call.request)));
        let request = Bytes::copy_from_slice(&call.request);
        self.clients[index].waiting.push_back(call);
        self.send(connection, 0, Parcel::Data(request));
    }

    pub(crate) fn client_input(&mut self, index: usize, bytes: &[u8]) {
        self.clients[index].input.extend_from_slice(bytes);
        loop {
            let client = &mut self.clients[index];
            let (reply, length) = match value::decode(&client.input) {
                Ok(None) => return,
                Ok(Some(decoded)) => decoded,
                Err(error) => return self.oracle.fail(&format!("client {index} was sent no reply: {error}")),
            };
            client.input.advance(length);
            let Some(call) = client.waiting.front_mut() else {
                return self.oracle.fail(&format!("client {index} was sent a reply to nothing: {reply:?}"));
            };
            if call.skip > 0 {
                call.skip -= 1;
                continue;
            }
            if let Some(call) = client.waiting.pop_front() {
                self.trace.line(|| format!("c{index} is told {reply:?}"));
                self.answered(index, call, &reply);
            }
        }
    }

    fn answered(&mut self, index: usize, call: Call, reply: &Value) {
        if let Value::Error(text) = reply {
            return self.refused(index, call, text);
        }
        self.record.answered += 1;
        self.clients[index].answered_us = self.now_us;
        match (call.kind, reply) {
            (Kind::Session, _) => {
                let id = reply.as_bytes().map(|id| String::from_utf8_lossy(id).into_owned());
                self.clients[index].session = id.map(|id| (id, 0));
            }
            (Kind::Operator, Value::Simple(_)) => self.record.last = Some(Outcome::Done),
            (Kind::Operator, Value::Null) => self.record.last = Some(Outcome::Nil),
            (Kind::Plain | Kind::Once, reply) => self.part_answered(index, &call, 0, reply),
            (Kind::All, _) => {
                for part in &call.parts {
                    self.record.last = Some(Outcome::Done);
                    self.write_down(index, &call, &part.key, part.action.clone(), Some(Outcome::Done));
                }
            }
            (Kind::Each | Kind::Pair, Value::Array(items)) if items.len() == call.parts.len() => {
                let torn = call.kind == Kind::Pair && items.windows(2).any(|pair| pair[0] != pair[1]);
                if torn {
                    self.oracle.fail(&format!("client {index} saw half of a transaction: {items:?}"));
                }
                for (at, item) in items.iter().enumerate() {
                    self.part_answered(index, &call, at, item);
                }
            }
            _ => self.oracle.fail(&format!("{} was answered by {reply:?}", readable(&call.request))),
        }
    }

    fn part_answered(&mut self, index: usize, call: &Call, at: usize, reply: &Value) {
        let Part { key, action } = call.parts[at].clone();
        let outcome = match reply {
            Value::Null => Outcome::Nil,
            Value::Bulk(bytes) => Outcome::Value(Bytes::copy_from_slice(bytes)),
            Value::Int(number) => Outcome::Integer(*number),
            // These are answered by what they made or found.
            Value::Simple(_) if !matches!(action, Action::Get | Action::IncrementBy(_) | Action::Append(_)) => {
                Outcome::Done
            }
            Value::Error(text) if text.contains("not an integer") => Outcome::WrongValue,
            _ => return self.oracle.fail(&format!("{} was answered by {reply:?}", readable(&call.request))),
        };
        // The life of a value that expires begins no later than now.
        let action = match action {
            Action::SetExpiring { value, earliest, latest } => {
                Action::SetExpiring { value, earliest, latest: latest + self.now_us }
            }
            action => action,
        };
        self.expect_order(index, call.kind, &key, &outcome);
        self.record.last = Some(outcome.clone());
        self.write_down(index, call, &key, action, Some(outcome));
    }

    /// What comes later on a connection sees what came before, also if it was sent before that was answered: more than
    /// linearizability asks for.
    fn expect_order(&mut self, index: usize, kind: Kind, key: &Bytes, outcome: &Outcome) {
        let writes = |part: &Part| match (&part.action, outcome) {
            (Action::Set(later) | Action::SetExpiring { value: later, .. }, Outcome::Value(found)) => later == found,
            _ => false,
        };
        if kind != Kind::Once && self.clients[index].waiting.iter().flat_map(|call| &call.parts).any(writes) {
            let key = key.escape_ascii();
            return self.oracle.fail(&format!("client {index} read in {key} what it wrote afterwards"));
        }
        let size = match outcome {
            Outcome::Nil => 0,
            Outcome::Integer(number) => *number,
            Outcome::Value(text) if key.starts_with(b"a") => text.len() as i64,
            Outcome::Value(text) => std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or(0),
            _ => return,
        };
        if !key.starts_with(b"a") && !key.starts_with(b"c") {
            return;
        }
        let floor = self.clients[index].floors.entry(key.clone()).or_default();
        // A command that is sent again is answered as it was at first.
        if size < *floor && kind != Kind::Once {
            let (key, floor) = (key.escape_ascii(), *floor);
            return self.oracle.fail(&format!("client {index} found {size} in {key} behind its own {floor}"));
        }
        *floor = size.max(*floor);
    }

    fn refused(&mut self, index: usize, call: Call, text: &str) {
        self.record.errors += 1;
        self.record.last_error = Some(text.to_owned());
        if call.kind == Kind::Operator {
            return;
        }
        if text.contains("not an integer") {
            return self.part_answered(index, &call, 0, &Value::Error(text.to_owned()));
        }
        if REFUSALS.iter().any(|code| text.starts_with(code)) {
            // An earlier attempt may have been carried out all the same.
            if call.kind == Kind::Once {
                self.clients[index].again.push_back(call);
            }
        } else if text.starts_with("UNCERTAIN") {
            self.leave_open(index, call);
        } else if text.starts_with("ONCEEXPIRED") {
            self.clients[index].session = None;
            self.leave_open(index, Call { kind: Kind::Plain, ..call });
        } else {
            self.oracle.fail(&format!("{} was answered by {text}", readable(&call.request)));
        }
    }

    /// Something to ask for.
    fn invent(&mut self, index: usize) -> Call {
        let mut sort = self.random.below(u64::from(SORTS)) as u32;
        while self.load.mix >> sort & 1 == 0 {
            sort = (sort + 1) % SORTS;
        }
        self.record.written += 1;
        let long = if self.random.chance(self.load.long) { self.random.between(20_000, 120_000) as usize } else { 0 };
        let fresh = Bytes::from(format!("v{}{}", self.record.written, "-".repeat(long)));
        match sort {
            0 => self.read(),
            1 => self.plain('s', &[b"SET", b"", &fresh], Action::Set(fresh.clone())),
            2 => self.plain('c', &[b"INCR", b""], Action::IncrementBy(1)),
            3 => {
                let token = Bytes::from(format!("{};", self.record.written));
                self.plain('a', &[b"APPEND", b"", &token], Action::Append(token.clone()))
            }
            4 => self.once(index),
            5 => self.expiring(&fresh),
            6 => self.pair(&fresh),
            7 => self.several(&fresh),
            8 => match self.random.below(5) {
                0 => self.plain('x', &[b"DEL", b""], Action::Delete),
                1 => self.plain('x', &[b"SETNX", b"", &fresh], Action::SetIfAbsent(fresh.clone())),
                2 => self.plain('x', &[b"INCRBY", b"", b"5"], Action::IncrementBy(5)),
                3 => self.plain('x', &[b"GET", b""], Action::Get),
                _ => self.plain('x', &[b"GETDEL", b""], Action::GetDelete),
            },
            9 if self.random.chance(50) => self.reassign(),
            _ => self.plain('s', &[b"GETSET", b"", &fresh], Action::GetSet(fresh.clone())),
        }
    }

    /// Who leads what is changed.
    fn reassign(&mut self) -> Call {
        let group = self.random.below(u64::from(self.shape.groups)).to_string();
        let nodes = self.shape.nodes + self.shape.spares;
        let node = self.random.between(1, nodes as u64 + 1).to_string();
        let words: &[&[u8]] = match self.random.below(10) {
            0 => &[b"PAXOI", b"DRAIN"],
            1 | 2 => &[b"PAXOI", b"UNDRAIN"],
            _ => &[b"PAXOI", b"LEADER", b"MOVE", group.as_bytes(), node.as_bytes()],
        };
        self.call(Kind::Operator, Vec::new(), 0, &[words])
    }

    fn key(&mut self, sort: char) -> Bytes {
        // What is done to these tells little of what was done before: few at a time can be put in order.
        let keys = if sort == 'x' { 8 * self.load.keys } else { self.load.keys };
        Bytes::from(format!("{sort}{}", self.random.below(keys)))
    }

    fn call(&self, kind: Kind, parts: Vec<Part>, skip: usize, commands: &[&[&[u8]]]) -> Call {
        let mut request = Vec::new();
        commands.iter().for_each(|words| write_command(words, &mut request));
        Call { kind, parts, skip, request, call_us: self.now_us, sent_us: self.now_us }
    }

    /// A command of one key, whose place among the words is the second.
    fn plain(&mut self, sort: char, words: &[&[u8]], action: Action) -> Call {
        let key = self.key(sort);
        let mut words = words.to_vec();
        words[1] = &key;
        self.call(Kind::Plain, vec![Part { key: key.clone(), action }], 0, &[&words])
    }

    fn read(&mut self) -> Call {
        let sort = *self.random.pick(&['s', 'c', 'a', 'e', 's']).unwrap_or(&'s');
        self.plain(sort, &[b"GET", b""], Action::Get)
    }

    fn once(&mut self, index: usize) -> Call {
        let Some((id, number)) = &mut self.clients[index].session else {
            return self.call(Kind::Session, Vec::new(), 0, &[&[b"SESSION", b"NEW"]]);
        };
        *number += 1;
        let (id, number) = (id.clone(), number.to_string());
        let token = Bytes::from(format!("{};", self.record.written));
        let increments = self.random.chance(500);
        let key = self.key(if increments { 'c' } else { 'a' });
        let action = if increments { Action::IncrementBy(1) } else { Action::Append(token.clone()) };
        let parts = vec![Part { key: key.clone(), action }];
        let (id, number): (&[u8], &[u8]) = (id.as_bytes(), number.as_bytes());
        let words: &[&[u8]] = if increments {
            &[b"ONCE", id, number, b"INCR", &key]
        } else {
            &[b"ONCE", id, number, b"APPEND", &key, &token]
        };
        self.call(Kind::Once, parts, 0, &[words])
    }

    fn expiring(&mut self, value: &Bytes) -> Call {
        // Some live longer than a run: they must not vanish.
        let life_us = if self.random.chance(200) { 100_000_000 } else { self.random.between(50, 3_000) * 1_000 };
        // Cluster time is steered by a tenth at most, and a group that is ahead of it lags by as much.
        let (least_us, most_us) = (life_us * 10 / 11, life_us * 10 / 9);
        let (earliest, latest) =
            ((self.now_us + least_us).saturating_sub(self.load.early_us), most_us + self.load.late_us);
        let life = (life_us / 1_000).to_string();
        let action = Action::SetExpiring { value: value.clone(), earliest, latest };
        self.plain('e', &[b"SET", b"", value, b"PX", life.as_bytes()], action)
    }

    /// Two keys of one group that are written and read together.
    fn pair(&mut self, value: &Bytes) -> Call {
        let name = self.random.below(self.load.keys);
        let keys = [Bytes::from(format!("{{p{name}}}x")), Bytes::from(format!("{{p{name}}}y"))];
        if self.random.chance(500) {
            let parts = keys.iter().map(|key| Part { key: key.clone(), action: Action::Get }).collect();
            let commands: &[&[&[u8]]] = &[&[b"MULTI"], &[b"GET", &keys[0]], &[b"GET", &keys[1]], &[b"EXEC"]];
            return self.call(Kind::Pair, parts, 3, commands);
        }
        let parts = keys.iter().map(|key| Part { key: key.clone(), action: Action::Set(value.clone()) }).collect();
        let commands: &[&[&[u8]]] = &[&[b"MULTI"], &[b"SET", &keys[0], value], &[b"SET", &keys[1], value], &[b"EXEC"]];
        self.call(Kind::Each, parts, 3, commands)
    }

    /// A command over keys of several groups.
    fn several(&mut self, value: &Bytes) -> Call {
        let first = self.key('s');
        let mut second = self.key('s');
        if first == second {
            second = self.key('c');
        }
        if self.random.chance(500) || second.starts_with(b"c") {
            let parts = [&first, &second].map(|key| Part { key: key.clone(), action: Action::Get }).to_vec();
            return self.call(Kind::Each, parts, 0, &[&[b"MGET", &first, &second]]);
        }
        let parts = [&first, &second].map(|key| Part { key: key.clone(), action: Action::Set(value.clone()) }).to_vec();
        self.call(Kind::All, parts, 0, &[&[b"MSET", &first, value, &second, value]])
    }

    /// Reads one key, whatever the load is.
    pub(crate) fn read_key(&mut self, index: usize, key: &Bytes) {
        let parts = vec![Part { key: key.clone(), action: Action::Get }];
        let call = self.call(Kind::Plain, parts, 0, &[&[b"GET", key]]);
        self.ask(index, call);
    }

    /// Asks for one thing, as a story wants it.
    pub(crate) fn request(&mut self, index: usize, words: &[&str], key: &str, action: Action) {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let part = Part { key: Bytes::copy_from_slice(key.as_bytes()), action };
        let call = self.call(Kind::Plain, vec![part], 0, &[&words]);
        (self.record.last, self.record.last_error) = (None, None);
        self.ask(index, call);
    }

    /// Asks for something that is no key's business.
    pub(crate) fn order(&mut self, index: usize, words: &[&str]) {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let call = self.call(Kind::Operator, Vec::new(), 0, &[&words]);
        self.ask(index, call);
    }

    pub(crate) fn ask_for_session(&mut self, index: usize) {
        self.clients[index].session = None;
        let call = self.call(Kind::Session, Vec::new(), 0, &[&[b"SESSION", b"NEW"]]);
        self.ask(index, call);
    }

    pub(crate) fn session_of(&self, index: usize) -> Option<String> {
        self.clients[index].session.as_ref().map(|(id, _)| id.clone())
    }

    /// What a client has sent is the first thing that its stopped node reads when it goes on.
    pub(crate) fn hear_first(&mut self, node: usize, index: usize) {
        let Some(connection) = self.clients[index].connection else { return };
        let Some(handle) = self.network.find(connection).map(|found| found.ends[1].handle) else { return };
        let Some(life) = &mut self.processes[node].life else { return };
        life.inbox.sort_by_key(|input| !matches!(input, Input::Bytes(from) if *from == handle));
    }

    pub(crate) fn is_idle(&self, index: usize) -> bool {
        let client = &self.clients[index];
        client.connected && client.connection.is_some() && client.waiting.is_empty() && client.again.is_empty()
    }
}

fn readable(request: &[u8]) -> String {
    let text = String::from_utf8_lossy(request);
    let words = text.split("\r\n").filter(|word| !word.starts_with(['*', '$']));
    words.map(|word| word.chars().take(60).collect::<String>()).collect::<Vec<_>>().join(" ")
}
