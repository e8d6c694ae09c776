//! Clients at all nodes of a cluster that record all their operations and replies: a history for the checker.
//!
//! There are three kinds of keys, each with all operations that make sense on it: registers (SET, SET PX, SETNX,
//! GETSET, DEL, GET), counters (INCR, ONCE … INCR, GET) and growing values (APPEND, GET). Each operation picks one of a
//! fixed number of places. A place uses one key at a time, and a new key after some hundred operations, so that a long
//! run stays cheap to check. A client that gets no answer leaves the operation open and goes to another node. There it
//! repeats a ONCE, as the same operation.

use super::client::call;
use super::{READY_MAX, wait_for};
use bytes::Bytes;
use net::resp::value::Value;
use paxoi::client::Client;
use paxoi::rng::Rng;
use paxoi::verify::{Action, History, Limits, Operation, Outcome, Summary, check};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Operations on a key before its place changes to the key of the next generation.
const GENERATION: u64 = 300;
/// Time that a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Interval of hasty operations, in operations. In a hasty operation the client waits only for [`HASTE`], so that it
/// gives up while the operation is in flight.
const OPERATIONS_PATIENT: u64 = 50;
const HASTE: Duration = Duration::from_millis(1);
/// Operations after which a client moves to another node.
const OPERATIONS_AT_NODE: u64 = 30;
/// Pause between two operations of a client: the load is there to be checked, not to be heavy.
const PAUSE: Duration = Duration::from_millis(1);
/// Maximum number of times that a ONCE is sent.
const ATTEMPTS_MAX: u64 = 5;
/// The time to live of keys that expire.
const LIFE: Duration = Duration::from_millis(30);
/// Maximum apparent difference between the clocks of nodes and clients. All of them read the clock of one machine, so
/// the difference comes only from rounding and from corrections by NTP.
const CLOCK_SLACK: Duration = Duration::from_millis(20);

/// Running clients.
pub(crate) struct Recorder {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<History>>,
}

struct Shared {
    addresses: Vec<SocketAddr>,
    /// The prefix of all keys. Each recorder has its own prefix, because its keys must not exist already, and those of
    /// an earlier recorder do.
    prefix: String,
    began: Instant,
    stop: AtomicBool,
    successes: AtomicU64,
    /// By place: the number of operations begun on its keys. A place has one key at a time, its present generation.
    places: Vec<AtomicU64>,
}

impl Recorder {
    /// Starts clients that use `keys` keys at a time: one for each place. Equal seeds give equal choices of operations;
    /// their outcome depends on timing.
    pub(crate) fn start(addresses: &[SocketAddr], clients: usize, keys: usize, seed: u64) -> Recorder {
        static RECORDERS: AtomicU64 = AtomicU64::new(0);
        let shared = Arc::new(Shared {
            addresses: addresses.to_vec(),
            prefix: format!("rec{}", RECORDERS.fetch_add(1, SeqCst)),
            began: Instant::now(),
            stop: AtomicBool::new(false),
            successes: AtomicU64::new(0),
            places: (0..keys).map(|_| AtomicU64::new(0)).collect(),
        });
        let client = |number: usize| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || Recording::new(&shared, number as u64, seed).run())
        };
        let clients = (0..clients).map(client).collect();
        Recorder { shared, clients }
    }

    /// Returns the number of operations answered without an error so far.
    pub(crate) fn successes(&self) -> u64 {
        self.shared.successes.load(SeqCst)
    }

    /// Waits until `operations` more operations have succeeded.
    pub(crate) fn wait_for_more(&self, operations: u64) {
        let goal = self.successes() + operations;
        wait_for("recorded operations", 2 * READY_MAX, || (self.successes() >= goal).then_some(()));
    }

    /// Ends the clients, reads every key once more at a node that serves it, and returns the whole history.
    ///
    /// # Panics
    /// If a key cannot be read anywhere.
    pub(crate) fn stop(self) -> History {
        self.shared.stop.store(true, SeqCst);
        let mut history = History::new();
        let reader = self.clients.len() as u64;
        for client in self.clients {
            history.merge(client.join().expect("a client"));
        }
        let keys: Vec<Bytes> = history.keys().map(|(key, _)| key.clone()).collect();
        let mut last = Recording::new(&self.shared, reader, 0);
        for key in keys {
            wait_for("a read of each key at the end", READY_MAX, || last.read(&key).then_some(()));
        }
        history.merge(last.history);
        history
    }

    /// Stops like [`Recorder::stop`], and checks the history.
    ///
    /// # Panics
    /// If the history is not linearizable.
    pub(crate) fn stop_and_check(self) -> Summary {
        let began = self.shared.began;
        let history = self.stop();
        let (ran, checking) = (began.elapsed(), Instant::now());
        let summary = check(&history, Limits::default()).unwrap_or_else(|violation| panic!("{violation}"));
        eprintln!("recorded for {ran:?}: {summary:?}, checked in {:?}", checking.elapsed());
        summary
    }
}

/// The state of one client.
struct Recording<'a> {
    shared: &'a Shared,
    number: u64,
    rng: Rng,
    node: usize,
    /// The connection, with its time limit.
    connection: Option<(Duration, Client)>,
    /// The client's session, and the next number in it.
    session: Option<String>,
    once: u64,
    operations: u64,
    history: History,
}

impl<'a> Recording<'a> {
    fn new(shared: &'a Shared, number: u64, seed: u64) -> Recording<'a> {
        Recording {
            shared,
            number,
            rng: Rng::new(seed.wrapping_mul(1000).wrapping_add(number)),
            node: number as usize % shared.addresses.len(),
            connection: None,
            session: None,
            once: 1,
            operations: 0,
            history: History::new(),
        }
    }

    fn run(mut self) -> History {
        while !self.shared.stop.load(SeqCst) {
            self.operations += 1;
            if self.operations.is_multiple_of(OPERATIONS_AT_NODE) {
                self.move_on();
            }
            self.next();
            thread::sleep(PAUSE);
        }
        self.history
    }

    /// Performs one operation on a random key.
    fn next(&mut self) {
        let place = self.rng.below(self.shared.places.len() as u64) as usize;
        let generation = self.shared.places[place].fetch_add(1, SeqCst) / GENERATION;
        let key = format!("{}-{place}-{generation}", self.shared.prefix);
        let token = format!("{}.{}", self.number, self.operations);
        let value = Bytes::from(token.clone());
        match (place % 3, self.rng.below(10)) {
            (0, 0..4) | (1, 0..3) | (2, 0..3) => _ = self.read(&key.into()),
            (0, 4..7) => self.send(&key, &format!("SET {key} {token}"), Action::Set(value)),
            (0, 7) => self.send_expiring(&key, value),
            (0, 8) => self.send(&key, &format!("GETSET {key} {token}"), Action::GetSet(value)),
            (0, _) if self.rng.below(2) == 0 => self.send(&key, &format!("DEL {key}"), Action::Delete),
            (0, _) => self.send(&key, &format!("SETNX {key} {token}"), Action::SetIfAbsent(value)),
            (1, 3..6) => self.send_once(&key),
            (1, _) => self.send(&key, &format!("INCR {key}"), Action::IncrementBy(1)),
            // A comma ends each token, so that no two different sequences of tokens look alike.
            _ => self.send(&key, &format!("APPEND {key} {token},"), Action::Append(format!("{token},").into())),
        }
    }

    /// Reads a key. Returns true if the read was answered.
    fn read(&mut self, key: &Bytes) -> bool {
        let text = String::from_utf8_lossy(key).into_owned();
        let call = self.now();
        let outcome = self.ask(&format!("GET {text}"), PATIENCE);
        self.record(&text, call, Action::Get, outcome.clone());
        !matches!(outcome, None | Some(Outcome::Refused))
    }

    fn send(&mut self, key: &str, command: &str, action: Action) {
        let patience = if self.operations.is_multiple_of(OPERATIONS_PATIENT) { HASTE } else { PATIENCE };
        let call = self.now();
        let outcome = self.ask(command, patience);
        self.record(key, call, action, outcome);
    }

    fn send_expiring(&mut self, key: &str, value: Bytes) {
        let text = String::from_utf8_lossy(&value).into_owned();
        let call = self.now();
        let outcome = self.ask(&format!("SET {key} {text} PX {}", LIFE.as_millis()), PATIENCE);
        let (life, slack) = (micros(LIFE), micros(CLOCK_SLACK));
        // The node counts the time to live from the arrival of the command.
        let latest = if outcome.is_some() { self.now() + life + slack } else { u64::MAX };
        let action = Action::SetExpiring { value, earliest: (call + life).saturating_sub(slack), latest };
        self.record(key, call, action, outcome);
    }

    /// Sends an increment, and repeats it at other nodes until one answers, in at most [`ATTEMPTS_MAX`] attempts. All
    /// attempts have the same number, so they are one operation.
    fn send_once(&mut self, key: &str) {
        let Some(session) = self.session() else { return };
        let command = format!("ONCE {session} {} INCR {key}", self.once);
        self.once += 1;
        let call = self.now();
        let mut is_open = false;
        let mut outcome = None;
        for attempt in 0..ATTEMPTS_MAX {
            let is_hasty = attempt == 0 && self.rng.below(4) == 0;
            outcome = self.ask(&command, if is_hasty { HASTE } else { PATIENCE });
            match outcome {
                None => is_open = true,
                // An earlier attempt may still be in flight, and be executed after this refusal.
                Some(Outcome::Refused) if is_open => outcome = None,
                Some(_) => break,
            }
        }
        self.record(key, call, Action::IncrementBy(1), outcome);
    }

    fn session(&mut self) -> Option<String> {
        if self.session.is_none() {
            match call(self.connect(PATIENCE)?, "SESSION NEW") {
                Ok(Value::Int(id)) => self.session = Some(id.to_string()),
                Ok(reply) => self.session = reply.as_bytes().map(|id| String::from_utf8_lossy(id).into_owned()),
                Err(_) => self.move_on(),
            }
        }
        self.session.clone()
    }

    fn record(&mut self, key: &str, call: u64, action: Action, outcome: Option<Outcome>) {
        let returned = outcome.as_ref().map(|_| self.now());
        if !matches!(outcome, None | Some(Outcome::Refused)) {
            self.shared.successes.fetch_add(1, SeqCst);
        }
        self.history.push(
            Bytes::copy_from_slice(key.as_bytes()),
            Operation { client: self.number, call, returned, action, outcome },
        );
    }

    /// Sends a command and returns its outcome; `None` if the outcome is unknown.
    fn ask(&mut self, command: &str, patience: Duration) -> Option<Outcome> {
        let Some(connection) = self.connect(patience) else { return Some(Outcome::Refused) };
        let reply = call(connection, command);
        let outcome = reply.ok().as_ref().and_then(Outcome::of_reply);
        if matches!(outcome, None | Some(Outcome::Refused)) {
            self.move_on();
        }
        outcome
    }

    /// Returns a connection with the time limit `patience`; `None` if the node cannot be reached.
    fn connect(&mut self, patience: Duration) -> Option<&mut Client> {
        if self.connection.as_ref().is_none_or(|(waits, _)| *waits != patience) {
            let connected = Client::connect(self.shared.addresses[self.node], patience);
            self.connection = connected.ok().map(|client| (patience, client));
        }
        if self.connection.is_none() {
            self.move_on();
            thread::sleep(PAUSE);
        }
        self.connection.as_mut().map(|(_, client)| client)
    }

    fn move_on(&mut self) {
        self.connection = None;
        self.node = (self.node + 1) % self.shared.addresses.len();
    }

    fn now(&self) -> u64 {
        micros(self.shared.began.elapsed())
    }
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros() as u64
}
