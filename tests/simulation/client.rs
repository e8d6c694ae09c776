//! Simulated clients. Each has one connection at a time, sends requests at random intervals, hangs up after waiting too
//! long, and records each request and its reply. An operation without a reply stays open in the history. The requests
//! are in `requests`; sessions and iterations, which span several requests, are in `sessions` and `scans`.

use crate::network::{PacketContent, UNNUMBERED, Who};
use crate::process::Input;
use crate::scans::Scan;
use crate::sessions::Session;
use crate::world::{Event, World};
use bytes::{Buf, Bytes, BytesMut};
use net::resp::value::{self, Value};
use paxoi::verify::{Action, History, Operation, Outcome};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The part of a request that concerns one key.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) key: Bytes,
    pub(crate) action: Action,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    /// One part, one reply.
    Plain,
    /// Any number of parts, one reply for each in an array.
    Each,
    /// Any number of parts, one reply for all.
    All,
    /// A transaction that reads two keys which are only ever written together.
    Pair,
    /// A `ONCE`. The client sends it again, also to other nodes, until its outcome is known.
    Once {
        number: u64,
    },
    /// An answered `ONCE` that is sent again. `reply` is its first reply.
    Again {
        number: u64,
        reply: Value,
    },
    Session,
    /// DEL of several keys: the reply is the number of keys that existed.
    Count,
    /// A transaction that reads a key and then renames or copies it to another.
    Move,
    /// A page of an iteration.
    Scan,
    /// A command outside the history of keys. It is executed, or refused for any reason.
    Operator,
}

#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) kind: Kind,
    pub(crate) parts: Vec<Part>,
    /// Number of replies before the one that counts.
    pub(crate) skip: usize,
    pub(crate) request: Vec<u8>,
    pub(crate) call_us: u64,
    pub(crate) sent_us: u64,
}

pub(crate) struct Client {
    connection: Option<u64>,
    node: usize,
    connected: bool,
    input: BytesMut,
    waiting: VecDeque<Call>,
    /// By key, for keys that only grow: the minimum number or length that later requests on the same connection must
    /// find.
    floors: BTreeMap<Bytes, i64>,
    pub(crate) session: Option<Session>,
    pub(crate) scan: Option<Scan>,
    /// Each `ONCE` whose outcome is not known.
    again: VecDeque<Call>,
    /// Time of the last reply, and of the last reply that was not an error.
    told_us: u64,
    pub(crate) answered_us: u64,
    /// The client sends no new requests.
    pub(crate) quiet: bool,
}

/// The common record of all clients: the history, and counters.
#[derive(Default)]
pub(crate) struct Record {
    pub(crate) history: History,
    pub(crate) answered: u64,
    pub(crate) errors: u64,
    /// The last outcome that a client was told, for scenarios with one request at a time.
    pub(crate) last: Option<Outcome>,
    pub(crate) last_error: Option<String>,
    pub(crate) written: u64,
    /// Keys of all complete requests.
    pub(crate) named: BTreeSet<Bytes>,
    /// Keys with an acknowledged write that no request of the run deletes.
    pub(crate) lasting: BTreeSet<Bytes>,
    /// Number of the family of keys that RENAME and COPY use now. A move without a reply starts a new family.
    pub(crate) family: u64,
    /// Operations on keys of families. They enter the history at the end of the run, when `unknown` is complete.
    moved: Vec<(Bytes, Operation)>,
    /// By key: the time from which its value is unknown, because of a move without a reply.
    unknown: BTreeMap<Bytes, u64>,
    pub(crate) scans: u64,
    pub(crate) bursts: u64,
    /// Answered commands of sessions that got the same reply again, and commands refused as beyond the window.
    pub(crate) repeated: u64,
    pub(crate) outdated: u64,
}

/// Error codes which prove that the command was not executed.
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
            scan: None,
            again: VecDeque::new(),
            told_us: 0,
            answered_us: 0,
            quiet: false,
        }
    }
}

impl World {
    /// Lets a client act when its timer fires: it hangs up, connects, repeats a `ONCE`, or sends a new request.
    pub(crate) fn client_timer(&mut self, index: usize) {
        let pause_us = 1 + self.random.below(2 * self.load.pause_us);
        self.after(pause_us, Event::Client { client: index });
        // A request behind a large command waits for that command, so the wait counts from the last reply.
        let last_us = self.clients[index].told_us.max(self.load.healed_us);
        let waits_since_us = self.clients[index].waiting.front().map(|call| call.sent_us.max(last_us));
        let late = waits_since_us.is_some_and(|since_us| self.now_us > since_us + self.load.patience_us);
        if late && self.load.healed_us > 0 && self.is_served(index) {
            let call = &self.clients[index].waiting[0];
            let (node, request) = (self.clients[index].node + 1, readable(&call.request));
            self.oracle.fail(&format!("client {index} waits in vain for what node {node} answers to {request}"));
        }
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
            if self.random.chance(self.load.bursts) {
                return self.ask_much(index);
            }
            let call = self.invent(index);
            if self.random.chance(self.load.cuts) {
                return self.ask_and_leave(index, call);
            }
            self.ask(index, call);
        }
    }

    /// Returns true if the node still has the client's connection. A node that lost power and restarted does not, and
    /// the client is not told.
    fn is_served(&mut self, index: usize) -> bool {
        let found = self.clients[index].connection.and_then(|connection| self.network.find(connection));
        let Some(end) = found.map(|found| &found.ends[1]).filter(|end| end.open) else { return false };
        let Who::Node { node, life } = end.who else { return false };
        self.processes[node].life.as_ref().is_some_and(|now| now.number == life)
    }

    /// Sends a request, or only its beginning, and hangs up. A request without its end must have no effect.
    fn ask_and_leave(&mut self, index: usize, call: Call) {
        if self.random.chance(300) {
            self.ask(index, call);
        } else if let Some(connection) = self.clients[index].connection {
            let sent = self.random.below(call.request.len() as u64) as usize;
            self.trace.line(|| format!("c{index} asks the first {sent} bytes of {}", readable(&call.request)));
            self.send(connection, 0, PacketContent::Data(Bytes::copy_from_slice(&call.request[..sent])));
            self.leave_unasked(index, &call);
        }
        self.hang_up(index);
    }

    fn call_in(&mut self, index: usize) {
        if let Some(node) = self.random.pick(&self.load.nodes).copied() {
            self.connect_client(index, node);
        }
    }

    /// Lets a client connect to this node.
    pub(crate) fn connect_client(&mut self, index: usize, node: usize) {
        let connection =
            self.network.connect((Who::Client(index), UNNUMBERED), (Who::Node { node, life: 0 }, UNNUMBERED), 0);
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

    /// Closes the client's connection. Requests in flight get no reply.
    pub(crate) fn hang_up(&mut self, index: usize) {
        let Some(connection) = self.clients[index].connection else { return };
        if let Some(end) = self.network.end(connection, 0) {
            end.open = false;
        }
        let content = if self.random.chance(500) { PacketContent::End } else { PacketContent::Break };
        self.send(connection, 0, content);
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

    /// Handles a call that gets no reply: a `ONCE` is queued for another attempt, other operations stay open.
    fn leave_open(&mut self, index: usize, call: Call) {
        match &call.kind {
            Kind::Once { .. } => return self.clients[index].again.push_back(call),
            Kind::Move => return self.leave_move_open(index, &call),
            Kind::Scan => self.page_failed(index),
            // Its effect is in the history since its first reply.
            Kind::Again { .. } => return,
            _ => {}
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
        // Times are in half microseconds: a call in the microsecond of a reply counts as later than the reply.
        let returned = outcome.is_some().then_some(2 * self.now_us);
        let action = match action {
            Action::SetExpiring { value, earliest, latest } => {
                Action::SetExpiring { value, earliest: 2 * earliest, latest: latest.saturating_mul(2) }
            }
            action => action,
        };
        let operation = Operation { client: index as u64, call: 2 * call.call_us + 1, returned, action, outcome };
        if key.starts_with(b"{r") {
            return self.record.moved.push((key.clone(), operation));
        }
        if operation.outcome.is_some() && lasts(key, &operation.action) && self.load.flushes == 0 {
            self.record.lasting.insert(key.clone());
        }
        self.record.history.push(key.clone(), operation);
    }

    /// Records a RENAME or COPY without a reply: from the time of the call on, the value of the target key is unknown.
    fn leave_move_open(&mut self, index: usize, call: &Call) {
        let [from, to] = &call.parts[..] else { return };
        self.write_down(index, call, &from.key, from.action.clone(), None);
        let since = self.record.unknown.entry(to.key.clone()).or_insert(u64::MAX);
        *since = (*since).min(2 * call.call_us + 1);
        self.record.family += 1;
    }

    /// Records a RENAME or COPY: the transaction's GET tells which value moved.
    fn moved(&mut self, index: usize, call: &Call, found: &Value, told: &Value) {
        let [from, to] = &call.parts[..] else { return };
        let copies = from.action == Action::Get;
        let outcome = match (found, told) {
            (Value::Null, Value::Error(text)) if !copies && text.contains("no such key") => Outcome::Nil,
            (Value::Null, Value::Int(0)) if copies => Outcome::Nil,
            (Value::Bulk(value), Value::Simple(_)) if !copies => Outcome::Value(Bytes::copy_from_slice(value)),
            (Value::Bulk(value), Value::Int(1)) if copies => Outcome::Value(Bytes::copy_from_slice(value)),
            _ => return self.oracle.fail(&format!("{} was answered by {found:?}, {told:?}", readable(&call.request))),
        };
        if let Outcome::Value(value) = &outcome {
            self.write_down(index, call, &to.key, Action::Set(value.clone()), Some(Outcome::Done));
        }
        self.write_down(index, call, &from.key, from.action.clone(), Some(outcome));
    }

    /// Ends the history. Calls without a reply enter it as open operations.
    pub(crate) fn close_books(&mut self) {
        for index in 0..self.clients.len() {
            self.clients[index].quiet = true;
            let calls: Vec<Call> = self.clients[index].waiting.drain(..).collect();
            let again = std::mem::take(&mut self.clients[index].again);
            for mut call in calls.into_iter().chain(again) {
                if let Kind::Once { .. } = call.kind {
                    call.kind = Kind::Plain;
                }
                self.leave_open(index, call);
            }
        }
        for (key, mut operation) in std::mem::take(&mut self.record.moved) {
            let since = self.record.unknown.get(&key).copied().unwrap_or(u64::MAX);
            if operation.returned.is_some_and(|returned| returned >= since) {
                // The operation may have taken effect before `since`, and others may have seen the effect.
                (operation.returned, operation.outcome) = (None, None);
            }
            if operation.call < since {
                self.record.history.push(key, operation);
            }
        }
    }

    pub(crate) fn ask(&mut self, index: usize, mut call: Call) {
        let Some(connection) = self.clients[index].connection else { return };
        call.sent_us = self.now_us;
        self.trace.line(|| format!("c{index} asks n{}: {}", self.clients[index].node + 1, readable(&call.request)));
        self.note(u64::from(crc32c::crc32c(&call.request)));
        self.record.named.extend(call.parts.iter().map(|part| part.key.clone()));
        self.number_sent(index, &call);
        let request = Bytes::copy_from_slice(&call.request);
        self.clients[index].waiting.push_back(call);
        self.send(connection, 0, PacketContent::Data(request));
    }

    pub(crate) fn client_input(&mut self, index: usize, bytes: &[u8]) {
        self.clients[index].input.extend_from_slice(bytes);
        loop {
            let client = &mut self.clients[index];
            let (reply, length) = match value::decode(&client.input) {
                Ok(None) => return,
                Ok(Some(decoded)) => decoded,
                Err(error) => return self.oracle.fail(&format!("client {index} received an invalid reply: {error}")),
            };
            client.input.advance(length);
            let Some(call) = client.waiting.front_mut() else {
                return self.oracle.fail(&format!("client {index} received a reply without a request: {reply:?}"));
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
        self.clients[index].told_us = self.now_us;
        if let Value::Error(text) = reply {
            return self.refused(index, call, text);
        }
        self.record.answered += 1;
        self.clients[index].answered_us = self.now_us;
        match (call.kind.clone(), reply) {
            (Kind::Session, _) => {
                let id = reply.as_bytes().map(|id| String::from_utf8_lossy(id).into_owned());
                self.clients[index].session = id.map(Session::new);
            }
            (Kind::Again { number, reply: first }, _) => self.repeated(index, &call, number, &first, reply),
            (Kind::Once { number }, reply) => {
                self.number_answered(index, &call, number, reply);
                self.part_answered(index, &call, 0, reply);
            }
            (Kind::Scan, Value::Array(items)) => self.page(index, items),
            (Kind::Count, Value::Int(count)) => self.counted(index, &call, *count),
            (Kind::Move, Value::Array(items)) if items.len() == 2 => self.moved(index, &call, &items[0], &items[1]),
            (Kind::Operator, Value::Simple(_)) => self.record.last = Some(Outcome::Done),
            (Kind::Operator, Value::Null) => self.record.last = Some(Outcome::Nil),
            (Kind::Operator, Value::Int(number)) => self.record.last = Some(Outcome::Integer(*number)),
            (Kind::Plain, reply) => self.part_answered(index, &call, 0, reply),
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
            // A simple string is no answer to the three excluded actions: their reply is a value or a number.
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
        self.expect_order(index, &call.kind, &key, &outcome);
        self.record.last = Some(outcome.clone());
        self.write_down(index, call, &key, action, Some(outcome));
    }

    /// Records a DEL of several keys. The outcome of one key is known if all or none of them existed.
    fn counted(&mut self, index: usize, call: &Call, count: i64) {
        let outcome = match count {
            0 => Outcome::Integer(0),
            all if all == call.parts.len() as i64 => Outcome::Integer(1),
            some if (0..call.parts.len() as i64).contains(&some) => Outcome::Done,
            _ => return self.oracle.fail(&format!("{} was answered by {count}", readable(&call.request))),
        };
        for part in &call.parts {
            self.write_down(index, call, &part.key, part.action.clone(), Some(outcome.clone()));
        }
    }

    /// Checks the order of requests on one connection. A request sees the effects of all earlier requests, also of
    /// those that were unanswered when it was sent, and of no later request. Linearizability requires less.
    fn expect_order(&mut self, index: usize, kind: &Kind, key: &Bytes, outcome: &Outcome) {
        let writes = |part: &Part| match (&part.action, outcome) {
            (Action::Set(later) | Action::SetExpiring { value: later, .. }, Outcome::Value(found)) => later == found,
            _ => false,
        };
        let is_once = matches!(kind, Kind::Once { .. });
        if !is_once && self.clients[index].waiting.iter().flat_map(|call| &call.parts).any(writes) {
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
        if self.load.flushes > 0 || !key.starts_with(b"a") && !key.starts_with(b"c") {
            return;
        }
        let floor = self.clients[index].floors.entry(key.clone()).or_default();
        // A `ONCE` that is sent again gets its first reply.
        if size < *floor && !is_once {
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
            // An earlier attempt may have been executed all the same.
            match call.kind {
                Kind::Once { .. } => self.clients[index].again.push_back(call),
                Kind::Scan => self.page_failed(index),
                _ => {}
            }
        } else if text.starts_with("UNCERTAIN") {
            self.leave_open(index, call);
        } else if text.starts_with("ONCEEXPIRED") {
            self.number_expired(index, &call);
            if let Kind::Once { .. } = call.kind {
                self.leave_open(index, Call { kind: Kind::Plain, ..call });
            }
        } else {
            self.oracle.fail(&format!("{} was answered by {text}", readable(&call.request)));
        }
    }

    /// Reads one key, whatever the load is.
    pub(crate) fn read_key(&mut self, index: usize, key: &Bytes) {
        let parts = vec![Part { key: key.clone(), action: Action::Get }];
        let call = self.call(Kind::Plain, parts, 0, &[&[b"GET", key]]);
        self.ask(index, call);
    }

    /// Sends one request of a scenario.
    pub(crate) fn request(&mut self, index: usize, words: &[&str], key: &str, action: Action) {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let part = Part { key: Bytes::copy_from_slice(key.as_bytes()), action };
        let call = self.call(Kind::Plain, vec![part], 0, &[&words]);
        (self.record.last, self.record.last_error) = (None, None);
        self.ask(index, call);
    }

    /// Sends a command that does not enter the history of a key.
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
        self.clients[index].session.as_ref().map(|session| session.id.clone())
    }

    /// Makes the bytes of this client the first input that its stopped node reads when it resumes.
    pub(crate) fn hear_first(&mut self, node: usize, index: usize) {
        let Some(connection) = self.clients[index].connection else { return };
        let Some(handle) = self.network.find(connection).map(|found| found.ends[1].handle) else { return };
        let Some(life) = &mut self.processes[node].life else { return };
        let worker = life.worker_of(handle).unwrap_or(0);
        let inbox = &mut life.workers[worker].inbox;
        inbox.sort_by_key(|input| !matches!(input, Input::Bytes(from) if *from == handle));
    }

    pub(crate) fn is_idle(&self, index: usize) -> bool {
        let client = &self.clients[index];
        client.connected && client.connection.is_some() && client.waiting.is_empty() && client.again.is_empty()
    }
}

/// Returns true if the action creates a key that nothing deletes in a run without FLUSHALL.
fn lasts(key: &Bytes, action: &Action) -> bool {
    let reads = matches!(action, Action::Get | Action::Exists);
    !reads && (key.starts_with(b"{p") || matches!(key.first(), Some(b's' | b'c' | b'a')))
}

pub(crate) fn readable(request: &[u8]) -> String {
    let text = String::from_utf8_lossy(request);
    let words = text.split("\r\n").filter(|word| !word.starts_with(['*', '$']));
    words.map(|word| word.chars().take(60).collect::<String>()).collect::<Vec<_>>().join(" ")
}
