//! `paxoi bench --verify`: records what the clients of a run did and were told, and checks that it is linearizable.
//!
//! A verified run uses keys that nobody has used before, and new ones every second, so that the history of each key
//! begins with nothing and stays short. All values are different. At the end every key is read once more. The number of
//! operations kept is limited. Whenever a run reaches the limit, the histories of half of the keys are dropped, and
//! those of the other keys stay whole. The kept histories are checked key by key.

use super::driver::{Limit, Plan, drive};
use super::report::Verified;
use super::workload::{Op, Picker, RequestKind, Requests, TAG_BYTES, Workload};
use crate::verify::{Action, History, Limits, Operation, Outcome, Summary, Violation, check};
use anyhow::Context;
use bytes::Bytes;
use net::resp::value::{Value, decode};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Maximum number of different keys at a time. With more, operations on one key would seldom meet.
pub const VERIFY_KEYS_MAX: u64 = 256;
/// Sizes of values that can be told apart and of which a history can be kept.
pub const VERIFY_VALUE_BYTES: std::ops::RangeInclusive<u64> = TAG_BYTES as u64..=4096;
/// Maximum operations that are kept. Each takes 64 bytes, plus what it read.
const OPERATIONS_MAX: usize = 1_000_000;
/// Time for which a set of keys is used.
const EPOCH: Duration = Duration::from_secs(1);
/// Final reads in flight per connection.
const LAST_READS_PIPELINE: usize = 16;
/// Silence after which the final reads are given up.
const LAST_READS_SILENCE_MAX: Duration = Duration::from_secs(5);

/// Settings of a recording.
#[derive(Clone, Copy, Debug)]
pub struct Recording {
    /// The instant from which all times count.
    began: Instant,
    /// Number of different keys at a time. None if keys are used as they are.
    keys: Option<u64>,
    /// Whether each node must be there at the start.
    pub needs_all_nodes: bool,
    operations_max: usize,
}

impl Recording {
    /// Creates a recording that begins now.
    #[must_use]
    pub fn start(keys: u64) -> Recording {
        Recording::within(keys, OPERATIONS_MAX)
    }

    /// Creates the same with another limit.
    pub(super) fn within(keys: u64, operations_max: usize) -> Recording {
        Recording { began: Instant::now(), keys: Some(keys), needs_all_nodes: true, operations_max }
    }

    /// Returns the key that stands for `key` at this time since the run began.
    #[must_use]
    pub fn fresh(&self, key: u64, now_ns: u64) -> u64 {
        self.keys.map_or(key, |keys| now_ns / EPOCH.as_nanos() as u64 * keys + key)
    }
}

/// The recorded history of one thread, or of all.
#[derive(Debug)]
pub struct HistoryRecorder {
    recording: Recording,
    /// Start of the current run, in ns since the recording began.
    offset_ns: u64,
    entries: Vec<Entry>,
    entries_max: usize,
    /// Number of halvings so far. One in 2^`halvings` keys is kept.
    halvings: u32,
    refused: u64,
    next_argument: u64,
}

#[derive(Clone, Debug)]
struct Entry {
    key: u64,
    client: u32,
    kind: RequestKind,
    argument: u64,
    call: u64,
    /// Time and content of the reply. None if the operation is open.
    told: Option<(u64, Told)>,
}

#[derive(Clone, Debug)]
enum Told {
    Other(Outcome),
    /// The arguments of the writes whose values were read.
    Values(Box<[u64]>),
}

impl HistoryRecorder {
    /// Creates an empty recorder for one of the threads.
    #[must_use]
    pub fn new(recording: Recording, thread: usize, threads: usize) -> HistoryRecorder {
        HistoryRecorder {
            recording,
            offset_ns: 0,
            entries: Vec::new(),
            entries_max: recording.operations_max / threads,
            halvings: 0,
            refused: 0,
            next_argument: thread as u64 * 1_000_000_000_000,
        }
    }

    /// Sets the start of the current run. The times that are passed to this recorder from now on count from it.
    pub fn starts_at(&mut self, start: Instant) {
        self.offset_ns = start.saturating_duration_since(self.recording.began).as_nanos() as u64;
    }

    /// Returns an [`Op::argument`] that was never given before.
    pub fn next_argument(&mut self) -> u64 {
        self.next_argument += 1;
        self.next_argument
    }

    /// Records a reply that came before `now_ns`.
    pub fn on_reply(&mut self, client: usize, op: &Op, now_ns: u64, reply: &[u8], requests: &Requests) {
        if !self.keeps(op.key) {
            return;
        }
        // The reply is complete, because the link found its end. If its content is malformed, such as an integer with a
        // letter in it, the operation counts as open. The check judges the content of all other replies.
        let Ok(Some((reply, _))) = decode(reply) else { return self.on_open(client, op) };
        let outcome = match Outcome::of_reply(&reply) {
            // An earlier attempt of the request may still be executed.
            Some(Outcome::Refused) if op.kind == RequestKind::Once && op.attempts > 0 => None,
            Some(Outcome::Refused) => {
                self.refused += 1;
                return;
            }
            outcome => outcome,
        };
        let told = outcome.map(|outcome| match reply {
            Value::Bulk(bytes) => match requests.arguments_of(&bytes) {
                Some(arguments) => Told::Values(arguments.into()),
                None => Told::Other(outcome),
            },
            _ => Told::Other(outcome),
        });
        self.push(client, op, told.map(|told| (self.offset_ns + now_ns, told)));
    }

    /// Records a request whose outcome will not be known.
    pub fn on_open(&mut self, client: usize, op: &Op) {
        if self.keeps(op.key) {
            self.push(client, op, None);
        }
    }

    fn push(&mut self, client: usize, op: &Op, told: Option<(u64, Told)>) {
        let call = self.offset_ns + op.sent_ns;
        let client = client as u32;
        self.entries.push(Entry { key: op.key, client, kind: op.kind, argument: op.argument, call, told });
        while self.entries.len() > self.entries_max {
            self.halve();
        }
    }

    /// Drops the histories of half of the keys.
    fn halve(&mut self) {
        self.halvings += 1;
        let halvings = self.halvings;
        self.entries.retain(|entry| is_kept(entry.key, halvings));
    }

    fn keeps(&self, key: u64) -> bool {
        is_kept(key, self.halvings)
    }

    /// Merges two recorders, with the keys that both have kept.
    #[must_use]
    pub fn merged(mut self, mut other: HistoryRecorder) -> HistoryRecorder {
        while self.halvings < other.halvings {
            self.halve();
        }
        while other.halvings < self.halvings {
            other.halve();
        }
        self.entries.append(&mut other.entries);
        self.refused += other.refused;
        self
    }

    fn keys(&self) -> Vec<u64> {
        let mut keys: Vec<u64> = self.entries.iter().map(|entry| entry.key).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }
}

/// Returns true if a key is among the 1 of 2^`halvings` that are kept.
fn is_kept(key: u64, halvings: u32) -> bool {
    let spread = key.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (spread ^ (spread >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9).leading_zeros() >= halvings
}

/// Reads every recorded key once more, and checks all histories.
///
/// # Errors
/// If this machine lacks a resource. Faults of the history are in the result.
pub fn verify(mut plan: Plan, recorder: HistoryRecorder, stop: &AtomicBool) -> anyhow::Result<Verified> {
    let keys = recorder.keys();
    let recorder = match plan.recording {
        Some(recording) if !keys.is_empty() => {
            plan.limit = Limit::Requests(keys.len() as u64);
            plan.picker = Picker::Listed(keys.into(), 0);
            plan.workload = Workload::Get;
            (plan.pipeline, plan.rate) = (LAST_READS_PIPELINE, None);
            plan.silence_max = LAST_READS_SILENCE_MAX;
            let operations_max = usize::MAX;
            plan.recording = Some(Recording { keys: None, needs_all_nodes: false, operations_max, ..recording });
            let last = drive(&plan, stop, |_| {})?.recorder.context("the run has no recorder")?;
            recorder.merged(last)
        }
        _ => recorder,
    };
    Ok(judge(recorder, &plan.requests))
}

fn judge(mut recorder: HistoryRecorder, requests: &Requests) -> Verified {
    let began = Instant::now();
    recorder.entries.sort_by_key(|entry| (entry.key, entry.call));
    let mut summary = Summary { refused: recorder.refused, ..Summary::default() };
    let mut undecided = None;
    let mut refuted = None;
    for entries in recorder.entries.chunk_by(|a, b| a.key == b.key) {
        let history = history(entries, requests);
        summary.keys += 1;
        summary.operations += history.len();
        summary.open += history.open();
        match check(&history, Limits::default()) {
            Ok(of_key) => summary.steps += of_key.steps,
            Err(violation @ Violation::Refuted(_)) => {
                refuted = Some(violation);
                break;
            }
            Err(violation @ Violation::Undecided { .. }) => _ = undecided.get_or_insert(violation),
        }
    }
    let linearizable = if refuted.is_some() { Some(false) } else { Some(true).filter(|_| undecided.is_none()) };
    Verified {
        linearizable,
        keys: summary.keys,
        operations: summary.operations,
        open: summary.open,
        refused: summary.refused,
        keys_kept: 0.5_f64.powi(recorder.halvings.cast_signed()),
        steps: summary.steps,
        elapsed_s: began.elapsed().as_secs_f64(),
        counterexample: refuted.or(undecided).map(|violation| violation.to_string()),
    }
}

/// Returns the history of one key. Times are in ns, because two operations of one client may be less than 1 µs apart.
fn history(entries: &[Entry], requests: &Requests) -> History {
    let mut history = History::new();
    let mut key = Vec::new();
    requests.write_key(entries[0].kind, entries[0].key, &mut key);
    let key = Bytes::from(key);
    for entry in entries {
        let action = match entry.kind {
            RequestKind::Get => Action::Get,
            RequestKind::Set => Action::Set(requests.value(entry.argument).into()),
            RequestKind::Append => Action::Append(requests.value(entry.argument).into()),
            RequestKind::Incr | RequestKind::Once => Action::IncrementBy(1),
        };
        let outcome = entry.told.as_ref().map(|(_, told)| match told {
            Told::Other(outcome) => outcome.clone(),
            Told::Values(arguments) => {
                let values = arguments.iter().flat_map(|argument| requests.value(*argument));
                Outcome::Value(values.collect())
            }
        });
        let returned = entry.told.as_ref().map(|(returned, _)| *returned);
        history.push(
            key.clone(),
            Operation { client: u64::from(entry.client), call: entry.call, returned, action, outcome },
        );
    }
    history
}
