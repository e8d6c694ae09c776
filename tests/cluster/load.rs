//! Clients that load a cluster from several threads and record what was acknowledged. At the end they check that
//! everything acknowledged has happened, and nothing that was not asked for.
//!
//! Writers count with INCR, append tokens of their own, and count with `ONCE … INCR`. They repeat a `ONCE` at another
//! node under the same number until it is acknowledged. Any other command that fails has an unknown fate, unless the
//! reply says that it was surely not executed. Readers read the counters at one node after the other: a value must
//! never be below what was acknowledged before the read began, nor below what the reader has seen before.

use crate::harness::client::{ask_until_served, call, text};
use crate::harness::{Cluster, wait_for};
use net::resp::value::Value;
use paxoi::client::Client;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const WRITERS: usize = 9;
const READERS: usize = 2;
/// Number of counters, and of keys to which each writer appends: enough to be in different groups.
const KEYS: usize = 8;
/// Rounds after which a writer moves to the next node. It also moves whenever something goes wrong.
const ROUNDS_AT_NODE: u64 = 40;
/// Time after which a client gives up a command without an answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Interval, in rounds, at which a writer is hasty: it gives up a command in flight, and may repeat it elsewhere.
const ROUNDS_PATIENT: u64 = 15;
const HASTE: Duration = Duration::from_millis(1);
/// Pause before the next attempt when no connection can be made.
const RECONNECT: Duration = Duration::from_millis(5);
/// Maximum time for the progress that a test waits for.
const PROGRESS_MAX: Duration = Duration::from_secs(30);

/// Running clients.
pub(crate) struct Load {
    shared: Arc<Shared>,
    writers: Vec<JoinHandle<Written>>,
    readers: Vec<JoinHandle<u64>>,
}

struct Shared {
    addresses: Vec<SocketAddr>,
    stop: AtomicBool,
    /// Acknowledged commands of all writers.
    acknowledged: AtomicU64,
    counters: Vec<Counter>,
}

struct Counter {
    key: String,
    /// INCRs that were sent, or are about to be sent.
    issued: AtomicU64,
    /// The highest value that an acknowledged INCR has returned.
    highest: AtomicU64,
}

/// The results of one writer's commands.
#[derive(Default)]
struct Written {
    /// By counter: the values that INCR returned, and the number of INCRs of unknown fate.
    counted: Vec<(Vec<u64>, u64)>,
    /// By key to which the writer appends: the tokens acknowledged, and those of unknown fate.
    appended: Vec<(String, Vec<String>, Vec<String>)>,
    /// ONCE commands acknowledged, by counter.
    once: Vec<u64>,
    longest_gap: Duration,
}

impl Load {
    /// Starts the clients against nodes at these addresses.
    pub(crate) fn start(addresses: Vec<SocketAddr>) -> Load {
        let counter =
            |number| Counter { key: format!("count:{number}"), issued: AtomicU64::new(0), highest: AtomicU64::new(0) };
        let counters = (0..KEYS).map(counter).collect();
        let (stop, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
        let shared = Arc::new(Shared { addresses, stop, acknowledged, counters });
        let write = |number| {
            let writer = Writer::new(number, &shared);
            thread::spawn(move || writer.run())
        };
        let read = |number| {
            let connection = Connection::new(number, &shared);
            thread::spawn(move || read(connection))
        };
        Load { writers: (0..WRITERS).map(write).collect(), readers: (0..READERS).map(read).collect(), shared }
    }

    /// Waits until `commands` more commands are acknowledged.
    pub(crate) fn wait_for_progress(&self, commands: u64) {
        let goal = self.shared.acknowledged.load(SeqCst) + commands;
        wait_for("progress of the clients", PROGRESS_MAX, || {
            let died =
                self.writers.iter().any(JoinHandle::is_finished) || self.readers.iter().any(JoinHandle::is_finished);
            assert!(!died, "a client has found a fault, see above");
            (self.shared.acknowledged.load(SeqCst) >= goal).then_some(())
        });
    }

    /// Ends the clients, and checks at every node that the data agrees with their replies.
    pub(crate) fn finish(self, cluster: &Cluster) {
        self.shared.stop.store(true, SeqCst);
        let written: Vec<Written> = self.writers.into_iter().map(|writer| writer.join().expect("a writer")).collect();
        let reads: Vec<u64> = self.readers.into_iter().map(|reader| reader.join().expect("a reader")).collect();
        assert!(reads.iter().all(|count| *count > 0), "every reader has read something: {reads:?}");
        let gap = written.iter().map(|writer| writer.longest_gap).max().unwrap_or_default();
        let acknowledged = self.shared.acknowledged.load(SeqCst);
        let unknown: u64 = written.iter().flat_map(|writer| &writer.counted).map(|(_, unknown)| unknown).sum();
        let reads: u64 = reads.iter().sum();
        eprintln!(
            "{acknowledged} writes acknowledged, {unknown} INCRs unanswered, {reads} reads; longest pause of a writer {gap:?}"
        );
        check_replies(&written);
        self.shared.settle(cluster, &written);
        let mut seen: Option<Vec<String>> = None;
        for id in cluster.ids() {
            let mut client = cluster.client(id);
            let values = check_counters(&mut client, &self.shared, &written)
                .into_iter()
                .chain(check_once(&mut client, &written))
                .chain(check_appended(&mut client, &written));
            let values: Vec<String> = values.collect();
            assert!(seen.is_none_or(|before| before == values), "node {id} differs from the node before it");
            seen = Some(values);
        }
    }
}

impl Shared {
    /// Waits until no command of the clients is in flight: sends a command without effect behind them, per node and
    /// key.
    fn settle(&self, cluster: &Cluster, written: &[Written]) {
        let appended = written.iter().flat_map(|writer| &writer.appended).map(|(key, ..)| key.clone());
        let counted = self.counters.iter().map(|counter| counter.key.clone()).chain((0..KEYS).map(once_key));
        let keys: Vec<String> = counted.chain(appended).collect();
        for id in cluster.ids() {
            let mut client = cluster.client(id);
            for key in &keys {
                assert_eq!(ask_until_served(&mut client, &format!("PERSIST {key}")), "0");
            }
        }
    }
}

/// Checks that no two INCRs of a counter returned the same value.
fn check_replies(written: &[Written]) {
    for number in 0..KEYS {
        let mut returned = HashSet::new();
        for value in written.iter().flat_map(|writer| &writer.counted[number].0) {
            assert!(returned.insert(value), "two INCRs of counter {number} returned {value}");
        }
    }
}

fn check_counters(client: &mut Client, shared: &Shared, written: &[Written]) -> Vec<String> {
    let check = |(number, counter): (usize, &Counter)| {
        let value = ask_until_served(client, &format!("GET {}", counter.key));
        let acknowledged: u64 = written.iter().map(|writer| writer.counted[number].0.len() as u64).sum();
        let unknown: u64 = written.iter().map(|writer| writer.counted[number].1).sum();
        let found: u64 = value.parse().unwrap_or_else(|_| panic!("{} is {value}", counter.key));
        assert!(
            (acknowledged..=acknowledged + unknown).contains(&found),
            "{} is {found}, but {acknowledged} INCRs were acknowledged, and {unknown} got no answer",
            counter.key
        );
        value
    };
    shared.counters.iter().enumerate().map(check).collect()
}

fn check_once(client: &mut Client, written: &[Written]) -> Vec<String> {
    let check = |number: usize| {
        let value = ask_until_served(client, &format!("GET {}", once_key(number)));
        let sum: u64 = written.iter().map(|writer| writer.once[number]).sum();
        assert_eq!(value, sum.to_string(), "{} was counted through ONCE", once_key(number));
        value
    };
    (0..KEYS).map(check).collect()
}

fn check_appended(client: &mut Client, written: &[Written]) -> Vec<String> {
    let mut values = Vec::new();
    for (key, acknowledged, unknown) in written.iter().flat_map(|writer| &writer.appended) {
        let value = ask_until_served(client, &format!("GET {key}"));
        let mut unknown: HashSet<&str> = unknown.iter().map(String::as_str).collect();
        let tokens = value.split_terminator(';').filter(|token| !unknown.remove(token));
        let (found, expected): (Vec<&str>, Vec<&str>) = (tokens.collect(), acknowledged.iter().map(|t| &**t).collect());
        let differs = found.iter().zip(&expected).position(|(found, expected)| found != expected);
        let differs = differs.unwrap_or(found.len().min(expected.len()));
        let around = |tokens: &[&str]| tokens[differs.saturating_sub(2)..(differs + 3).min(tokens.len())].join(" ");
        assert!(
            found == expected,
            "{key}: token {differs} and those around it are {}, but {} were acknowledged",
            around(&found),
            around(&expected)
        );
        values.push(value);
    }
    values
}

fn once_key(number: usize) -> String {
    format!("once:{number}")
}

/// The outcome of a command.
enum Fate {
    Done(Value),
    /// The command surely has no effect.
    Refused,
    Unknown,
}

/// A client that goes to the next node when something goes wrong.
struct Connection {
    shared: Arc<Shared>,
    at: usize,
    client: Option<Client>,
}

impl Connection {
    fn new(number: usize, shared: &Arc<Shared>) -> Connection {
        Connection { shared: Arc::clone(shared), at: number % shared.addresses.len(), client: None }
    }

    fn move_on(&mut self) {
        self.client = None;
        self.at = (self.at + 1) % self.shared.addresses.len();
    }

    /// Reconnects with the short time limit [`HASTE`], which applies until the first command fails.
    fn hurry(&mut self) {
        self.client = Client::connect(self.shared.addresses[self.at], HASTE).ok();
    }

    fn call(&mut self, command: &str) -> Fate {
        if self.client.is_none() {
            self.client = Client::connect(self.shared.addresses[self.at], PATIENCE).ok();
        }
        let Some(client) = self.client.as_mut() else {
            self.move_on();
            thread::sleep(RECONNECT);
            return Fate::Refused;
        };
        let fate = match call(client, command) {
            Ok(Value::Error(error)) if error.starts_with("CLUSTERDOWN") || error.starts_with("LOADING") => {
                Fate::Refused
            }
            Ok(Value::Error(error)) if error.starts_with("UNCERTAIN") => Fate::Unknown,
            Ok(Value::Error(error)) => panic!("{command}: {error}"),
            Ok(value) => return Fate::Done(value),
            Err(_) => Fate::Unknown,
        };
        self.move_on();
        fate
    }

    /// Repeats a command until it is answered. The command may be executed more than once.
    fn insist(&mut self, command: &str) -> Value {
        wait_for(command, PROGRESS_MAX, || match self.call(command) {
            Fate::Done(value) => Some(value),
            Fate::Refused | Fate::Unknown => None,
        })
    }
}

struct Writer {
    number: usize,
    connection: Connection,
    written: Written,
    succeeded: Instant,
}

impl Writer {
    fn new(number: usize, shared: &Arc<Shared>) -> Writer {
        let appended = (0..KEYS).map(|key| (format!("tokens:{number}:{key}"), Vec::new(), Vec::new())).collect();
        let (counted, once) = (vec![(Vec::new(), 0); KEYS], vec![0; KEYS]);
        let written = Written { counted, appended, once, longest_gap: Duration::ZERO };
        Writer { number, connection: Connection::new(number, shared), written, succeeded: Instant::now() }
    }

    fn run(mut self) -> Written {
        let session = text(&self.connection.insist("SESSION NEW"));
        let shared = Arc::clone(&self.connection.shared);
        self.succeeded = Instant::now();
        for round in 1.. {
            if shared.stop.load(SeqCst) {
                break;
            }
            if round % ROUNDS_PATIENT == 0 {
                self.connection.hurry();
            }
            let key = (round as usize + self.number) % KEYS;
            self.count(&shared.counters[key], key);
            self.append(key, round);
            // The number belongs to the session, so it names this round's command at every node.
            self.connection.insist(&format!("ONCE {session} {round} INCR {}", once_key(key)));
            self.written.once[key] += 1;
            self.on_success();
            if round % ROUNDS_AT_NODE == 0 {
                self.connection.move_on();
            }
        }
        self.written
    }

    fn on_success(&mut self) {
        self.connection.shared.acknowledged.fetch_add(1, SeqCst);
        self.written.longest_gap = self.written.longest_gap.max(self.succeeded.elapsed());
        self.succeeded = Instant::now();
    }

    fn count(&mut self, counter: &Counter, number: usize) {
        counter.issued.fetch_add(1, SeqCst);
        let before = counter.highest.load(SeqCst);
        match self.connection.call(&format!("INCR {}", counter.key)) {
            Fate::Done(value) => {
                let value = number_of(&value);
                assert!(value > before, "INCR {} returned {value} after another had returned {before}", counter.key);
                counter.highest.fetch_max(value, SeqCst);
                self.written.counted[number].0.push(value);
                self.on_success();
            }
            Fate::Refused => {}
            Fate::Unknown => self.written.counted[number].1 += 1,
        }
    }

    fn append(&mut self, key: usize, round: u64) {
        let (name, acknowledged, unknown) = &mut self.written.appended[key];
        let token = format!("{}.{round}", self.number);
        match self.connection.call(&format!("APPEND {name} {token};")) {
            Fate::Done(_) => {
                acknowledged.push(token);
                self.on_success();
            }
            Fate::Refused => {}
            Fate::Unknown => unknown.push(token),
        }
    }
}

/// Reads until told to stop; returns the number of successful reads.
fn read(mut connection: Connection) -> u64 {
    let shared = Arc::clone(&connection.shared);
    let mut seen = [0; KEYS];
    let mut count = 0;
    for number in (0..KEYS).cycle() {
        if shared.stop.load(SeqCst) {
            break;
        }
        let counter = &shared.counters[number];
        let least = counter.highest.load(SeqCst).max(seen[number]);
        let Fate::Done(value) = connection.call(&format!("GET {}", counter.key)) else { continue };
        let value = if value == Value::Null { 0 } else { number_of(&value) };
        let most = counter.issued.load(SeqCst);
        assert!((least..=most).contains(&value), "GET {} returned {value}, not {least} to {most}", counter.key);
        seen[number] = value;
        count += 1;
        // The next read goes to the next node, which must also show what this read saw.
        connection.move_on();
    }
    count
}

fn number_of(value: &Value) -> u64 {
    text(value).parse().unwrap_or_else(|_| panic!("{value:?} is not a number"))
}
