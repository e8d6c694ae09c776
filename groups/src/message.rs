//! The messages of members about one group: one struct per message, one enum over them.
//!
//! On the wire a message is its kind (a byte that the frame carries), its header in postcard, and then the raw bytes of
//! its values or commands, if it has any. Kinds never change meaning; new ones are appended.

use crate::acceptor::Accepted;
use crate::{Ballot, Commands, Counter, Instance, Value};
use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

/// Phase 1a: asks for a promise to accept nothing below `ballot`, at `instance` and all later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepare {
    /// The candidate's ballot. It is durable at the candidate before the message leaves.
    pub ballot: Ballot,
    /// The candidate's `next`. The acceptor promises only if its own `next` is at most this instance.
    pub instance: Instance,
}

/// Phase 1b: promised, and durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    /// The ballot of the Prepare that this answers.
    pub ballot: Ballot,
    /// The instance of the Prepare that this answers.
    pub instance: Instance,
    /// The acceptor's own `next`, at most `instance`. If it is lower, the acceptor finds out from the leader's Accept,
    /// and then fetches the missing values.
    pub next: Instance,
    /// The vote of the acceptor at `instance`.
    pub accepted: Option<Accepted>,
}

/// The refusal of a ballot: it is too low, or a lease grant forbids the promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reject {
    /// The refused ballot.
    pub ballot: Ballot,
    /// The instance of the refused message.
    pub instance: Instance,
    /// The ballot that the acceptor has promised.
    pub promised: Ballot,
}

/// The answer to a Prepare or Accept for an instance that the acceptor knows to be chosen. Nothing was promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ahead {
    /// The ballot of the message that this answers.
    pub ballot: Ballot,
    /// The instance of the message that this answers.
    pub instance: Instance,
    /// The acceptor's `next`.
    pub next: Instance,
}

/// Phase 2a: asks for a vote for `value` at `instance`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accept {
    /// The leader's ballot.
    pub ballot: Ballot,
    /// The leader's `next`.
    pub instance: Instance,
    /// A ballot under which the value of the preceding instance was chosen.
    pub chosen: Ballot,
    /// The value.
    pub value: Value,
}

/// Phase 2b: voted, and durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// The ballot of the Accept.
    pub ballot: Ballot,
    /// The instance of the Accept.
    pub instance: Instance,
}

/// The answer to an Accept or Handover for an instance above the receiver's `next`. The receiver neither voted nor
/// campaigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Behind {
    /// The ballot of the message that this answers.
    pub ballot: Ballot,
    /// The instance of the message that this answers.
    pub instance: Instance,
    /// The `next` of the member that answers.
    pub next: Instance,
}

/// The answer to an Accept whose value follows another chain of values or another state than the acceptor's, or is a
/// second value under its ballot. The acceptor did not vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diverged {
    /// The ballot of the Accept.
    pub ballot: Ballot,
    /// The instance of the Accept.
    pub instance: Instance,
}

/// `instance` is decided: the value that was proposed there under `ballot` is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chosen {
    /// The instance.
    pub instance: Instance,
    /// A ballot under which exactly the chosen value was proposed there.
    pub ballot: Ballot,
}

/// The request for chosen values from `from` on. The next request acknowledges the values of the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// The first instance wanted: the asker's `next`.
    pub from: Instance,
    /// The window: at most this many bytes of values, but at least one value.
    pub bytes_max: u32,
}

/// Chosen values, in order and without gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The instance of the first value.
    pub first: Instance,
    /// The sender's `next`, so that the asker knows whether there is more.
    pub next: Instance,
    /// Each value with a ballot under which it was chosen.
    pub values: Vec<Accepted>,
}

/// Commands of the sender's clients, for the leader under `ballot` to propose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The ballot that leads, as far as the sender knows.
    pub ballot: Ballot,
    /// The counter of the sender's command before the first of these; 0 if the first is the sender's oldest. A leader
    /// that lacks that command must not take these. If these were applied first, the missing command would look like a
    /// repetition.
    pub after: Counter,
    /// The commands, laid out as in a value.
    pub commands: Bytes,
}

/// The answer to a Forward that was not taken. The origin sends all its commands again to the node that leads now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotLeader {
    /// The ballot named in the Forward.
    pub ballot: Ballot,
}

/// Asks whether the receiver would follow. It precedes a Prepare, so that a node that was merely cut off disturbs
/// nobody. A candidate repeats it, so that the receiver goes on waiting for the candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreVote {
    /// The number of the question, which tells its answers from answers to earlier ones.
    pub number: u64,
    /// The asker's `next`.
    pub next: Instance,
}

/// The answer to a [`PreVote`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreVoted {
    /// The number of the question.
    pub number: u64,
    /// Whether the voter would follow. False while another leader claims the group or holds a lease, while the voter
    /// yields to another candidate, and for an asker without a vote.
    pub granted: bool,
    /// The voter's `next`. An asker with a lower `next` catches up before it campaigns.
    pub next: Instance,
    /// The highest ballot that the voter has promised or seen, so that the candidate's ballot is above it at once.
    pub promised: Ballot,
}

/// The leader's request that the receiver take over the group. The receiver should have reached `next`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// The leader's ballot.
    pub ballot: Ballot,
    /// The leader's `next`.
    pub next: Instance,
    /// Whether the receiver keeps the group even if another member should rather lead it.
    pub stay: bool,
}

/// A message about one group.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant is the struct of its name")]
pub enum Message {
    Prepare(Prepare),
    Promise(Promise),
    Reject(Reject),
    Ahead(Ahead),
    Accept(Accept),
    Vote(Vote),
    Behind(Behind),
    Diverged(Diverged),
    Chosen(Chosen),
    Fetch(Fetch),
    Range(Range),
    Forward(Forward),
    NotLeader(NotLeader),
    PreVote(PreVote),
    PreVoted(PreVoted),
    Handover(Handover),
}

/// The reason why a message was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// A kind of a later version. The receiver skips the message.
    #[error("message kind {0} is not known here")]
    UnknownKind(u8),
    /// A known kind with a body that does not decode.
    #[error("malformed message of kind {0}")]
    Malformed(u8),
}

#[derive(Serialize, Deserialize)]
struct PromiseHeader {
    ballot: Ballot,
    instance: Instance,
    next: Instance,
    accepted: Option<Ballot>,
}

#[derive(Serialize, Deserialize)]
struct AcceptHeader {
    ballot: Ballot,
    instance: Instance,
    chosen: Ballot,
}

#[derive(Serialize, Deserialize)]
struct RangeHeader {
    first: Instance,
    next: Instance,
    values: Vec<(Ballot, u32)>,
}

#[derive(Serialize, Deserialize)]
struct ForwardHeader {
    ballot: Ballot,
    after: Counter,
}

impl Message {
    /// The kind of a [`Promise`].
    pub const PROMISE: u8 = 2;
    /// The kind of a [`Range`].
    pub const RANGE: u8 = 11;

    /// Returns the kind byte that the frame carries.
    #[must_use]
    pub fn kind(&self) -> u8 {
        match self {
            Message::Prepare(_) => 1,
            Message::Promise(_) => Message::PROMISE,
            Message::Reject(_) => 3,
            Message::Ahead(_) => 4,
            Message::Accept(_) => 5,
            Message::Vote(_) => 6,
            Message::Behind(_) => 7,
            Message::Diverged(_) => 8,
            Message::Chosen(_) => 9,
            Message::Fetch(_) => 10,
            Message::Range(_) => Message::RANGE,
            Message::Forward(_) => 12,
            Message::NotLeader(_) => 13,
            Message::PreVote(_) => 14,
            Message::PreVoted(_) => 15,
            Message::Handover(_) => 16,
        }
    }

    /// Returns the bytes of the values to be voted for or learned, which must be logged; 0 for other messages.
    #[must_use]
    pub fn value_bytes(&self) -> usize {
        match self {
            Message::Accept(accept) => accept.value.bytes().len(),
            Message::Range(range) => range.values.iter().map(|one| one.value.bytes().len()).sum(),
            _ => 0,
        }
    }

    /// Returns the bytes of values or commands at the end of the body; 0 for other messages.
    #[must_use]
    pub fn tail_bytes(&self) -> usize {
        match self {
            Message::Promise(promise) => promise.accepted.as_ref().map_or(0, |accepted| accepted.value.bytes().len()),
            Message::Forward(forward) => forward.commands.len(),
            _ => self.value_bytes(),
        }
    }

    /// Returns the highest version of the values in the message; 0 for other messages.
    #[must_use]
    pub fn value_version(&self) -> u8 {
        match self {
            Message::Accept(accept) => accept.value.version(),
            Message::Promise(promise) => promise.accepted.as_ref().map_or(0, |accepted| accepted.value.version()),
            Message::Range(range) => range.values.iter().map(|one| one.value.version()).max().unwrap_or(0),
            _ => 0,
        }
    }

    /// Returns the highest ballot and the highest instance that the message names; zeros where it names none.
    #[must_use]
    pub(crate) fn highest(&self) -> (Ballot, Instance) {
        let none = Instance::default();
        match self {
            Message::Prepare(Prepare { ballot, instance }) => (*ballot, *instance),
            Message::Promise(Promise { ballot, instance, next, accepted }) => {
                let voted = accepted.as_ref().map_or(Ballot::ZERO, |accepted| accepted.ballot);
                (voted.max(*ballot), *instance.max(next))
            }
            Message::Reject(Reject { ballot, instance, promised }) => (*ballot.max(promised), *instance),
            Message::Ahead(Ahead { ballot, instance, next }) => (*ballot, *instance.max(next)),
            Message::Accept(Accept { ballot, instance, chosen, .. }) => (*ballot.max(chosen), *instance),
            Message::Vote(Vote { ballot, instance }) => (*ballot, *instance),
            Message::Behind(Behind { ballot, instance, next }) => (*ballot, *instance.max(next)),
            Message::Diverged(Diverged { ballot, instance }) => (*ballot, *instance),
            Message::Chosen(Chosen { instance, ballot }) => (*ballot, *instance),
            Message::Fetch(Fetch { from, .. }) => (Ballot::ZERO, *from),
            Message::Range(Range { first, next, values }) => {
                let under = values.iter().map(|one| one.ballot).max().unwrap_or_default();
                (under, *first.max(next))
            }
            Message::Forward(Forward { ballot, .. }) | Message::NotLeader(NotLeader { ballot }) => (*ballot, none),
            Message::PreVote(PreVote { next, .. }) => (Ballot::ZERO, *next),
            Message::PreVoted(PreVoted { next, promised, .. }) => (*promised, *next),
            Message::Handover(Handover { ballot, next, .. }) => (*ballot, *next),
        }
    }

    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        let tail = self.encode_head(out);
        out.extend_from_slice(&tail);
    }

    /// Appends the body without its end, and returns the end: the bytes of a value or of commands, which may be long.
    pub fn encode_head(&self, out: &mut BytesMut) -> Bytes {
        match self {
            Message::Prepare(message) => put(message, out),
            Message::Promise(Promise { ballot, instance, next, accepted }) => {
                let under = accepted.as_ref().map(|accepted| accepted.ballot);
                put(&PromiseHeader { ballot: *ballot, instance: *instance, next: *next, accepted: under }, out);
                return accepted.as_ref().map_or(Bytes::new(), |accepted| accepted.value.bytes().clone());
            }
            Message::Reject(message) => put(message, out),
            Message::Ahead(message) => put(message, out),
            Message::Accept(Accept { ballot, instance, chosen, value }) => {
                put(&AcceptHeader { ballot: *ballot, instance: *instance, chosen: *chosen }, out);
                return value.bytes().clone();
            }
            Message::Vote(message) => put(message, out),
            Message::Behind(message) => put(message, out),
            Message::Diverged(message) => put(message, out),
            Message::Chosen(message) => put(message, out),
            Message::Fetch(message) => put(message, out),
            Message::Range(Range { first, next, values }) => {
                let lengths = values.iter().map(|one| (one.ballot, one.value.bytes().len() as u32)).collect();
                put(&RangeHeader { first: *first, next: *next, values: lengths }, out);
                let Some((last, before)) = values.split_last() else { return Bytes::new() };
                before.iter().for_each(|one| out.extend_from_slice(one.value.bytes()));
                return last.value.bytes().clone();
            }
            Message::Forward(Forward { ballot, after, commands }) => {
                put(&ForwardHeader { ballot: *ballot, after: *after }, out);
                return commands.clone();
            }
            Message::NotLeader(message) => put(message, out),
            Message::PreVote(message) => put(message, out),
            Message::PreVoted(message) => put(message, out),
            Message::Handover(message) => put(message, out),
        }
        Bytes::new()
    }

    /// Reads the body of a message of `kind`.
    ///
    /// # Errors
    /// If the kind is unknown or the body is malformed, down to the framing of the commands in it.
    pub fn decode(kind: u8, body: &Bytes) -> Result<Message, MessageError> {
        let message = match kind {
            1 => take(body).map(Message::Prepare),
            Message::PROMISE => decode_promise(body),
            3 => take(body).map(Message::Reject),
            4 => take(body).map(Message::Ahead),
            5 => decode_accept(body),
            6 => take(body).map(Message::Vote),
            7 => take(body).map(Message::Behind),
            8 => take(body).map(Message::Diverged),
            9 => take(body).map(Message::Chosen),
            10 => take(body).map(Message::Fetch),
            Message::RANGE => decode_range(body),
            12 => decode_forward(body),
            13 => take(body).map(Message::NotLeader),
            14 => take(body).map(Message::PreVote),
            15 => take(body).map(Message::PreVoted),
            16 => take(body).map(Message::Handover),
            _ => return Err(MessageError::UnknownKind(kind)),
        };
        message.ok_or(MessageError::Malformed(kind))
    }
}

/// Encodes a header. Headers are short (ballots, instances, numbers), except a Range's.
fn put(header: &impl Serialize, out: &mut BytesMut) {
    let mut short = [0; 128];
    if let Ok(bytes) = postcard::to_slice(header, &mut short) {
        out.extend_from_slice(bytes);
        return;
    }
    out.extend_from_slice(&postcard::to_allocvec(header).expect("headers serialize"));
}

fn take<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Option<T> {
    postcard::from_bytes(body).ok()
}

fn decode_promise(body: &Bytes) -> Option<Message> {
    let (header, rest) = postcard::take_from_bytes::<PromiseHeader>(body).ok()?;
    let PromiseHeader { ballot, instance, next, accepted } = header;
    let accepted = match accepted {
        Some(ballot) => Some(Accepted { ballot, value: own(body, rest)? }),
        None => None,
    };
    Some(Message::Promise(Promise { ballot, instance, next, accepted }))
}

fn decode_accept(body: &Bytes) -> Option<Message> {
    let (AcceptHeader { ballot, instance, chosen }, rest) = postcard::take_from_bytes(body).ok()?;
    Some(Message::Accept(Accept { ballot, instance, chosen, value: own(body, rest)? }))
}

fn decode_range(body: &Bytes) -> Option<Message> {
    let (RangeHeader { first, next, values }, mut rest) = postcard::take_from_bytes(body).ok()?;
    let mut decoded = Vec::with_capacity(values.len());
    for (ballot, length) in values {
        let (value, after) = rest.split_at_checked(length as usize)?;
        decoded.push(Accepted { ballot, value: own(body, value)? });
        rest = after;
    }
    Some(Message::Range(Range { first, next, values: decoded }))
}

fn decode_forward(body: &Bytes) -> Option<Message> {
    let (ForwardHeader { ballot, after }, rest) = postcard::take_from_bytes(body).ok()?;
    Commands::parse(rest).ok()?;
    Some(Message::Forward(Forward { ballot, after, commands: body.slice_ref(rest) }))
}

/// Parses a value that outlives its frame. A small value gets memory of its own, or it would pin the whole frame. A
/// large value shares the frame's memory: the rest of the frame, which it pins, is smaller than the value or not much
/// larger.
fn own(body: &Bytes, bytes: &[u8]) -> Option<Value> {
    let bytes = if bytes.len() < SHARED_BYTES_MIN { Bytes::copy_from_slice(bytes) } else { body.slice_ref(bytes) };
    Value::parse(bytes).ok()
}

/// Minimum length, in bytes, of a value that stays in its frame.
const SHARED_BYTES_MIN: usize = 512 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ms, NodeId, ValueBuilder};

    fn ballot(round: u64) -> Ballot {
        Ballot { round, node: NodeId(2) }
    }

    fn accepted(round: u64) -> Accepted {
        Accepted { ballot: ballot(round), value: ValueBuilder::default().seal(1, Ms(round), None) }
    }

    fn one_of_each() -> Vec<Message> {
        let (ballot, instance, next) = (ballot(300), Instance(7), Instance(9));
        let promise = |accepted| Message::Promise(Promise { ballot, instance, next, accepted });
        vec![
            Message::Prepare(Prepare { ballot, instance }),
            promise(None),
            promise(Some(accepted(4))),
            Message::Reject(Reject { ballot, instance, promised: ballot }),
            Message::Ahead(Ahead { ballot, instance, next }),
            Message::Accept(Accept { ballot, instance, chosen: ballot, value: accepted(1).value }),
            Message::Vote(Vote { ballot, instance }),
            Message::Behind(Behind { ballot, instance, next }),
            Message::Diverged(Diverged { ballot, instance }),
            Message::Chosen(Chosen { instance, ballot }),
            Message::Fetch(Fetch { from: next, bytes_max: 1 << 20 }),
            Message::Range(Range { first: instance, next, values: (0..40).map(accepted).collect() }),
            Message::Forward(Forward { ballot, after: Counter(3), commands: Bytes::new() }),
            Message::NotLeader(NotLeader { ballot }),
            Message::PreVote(PreVote { number: 3, next }),
            Message::PreVoted(PreVoted { number: 3, granted: true, next, promised: ballot }),
            Message::Handover(Handover { ballot, next, stay: true }),
        ]
    }

    #[test]
    fn every_message_survives_the_wire() {
        for message in one_of_each() {
            let mut out = BytesMut::new();
            message.encode(&mut out);
            assert_eq!(Message::decode(message.kind(), &out.freeze()), Ok(message));
        }
    }

    #[test]
    fn a_body_cut_short_is_malformed_or_another_whole_message_but_never_a_panic() {
        for message in one_of_each() {
            let mut out = BytesMut::new();
            message.encode(&mut out);
            let bytes = out.freeze();
            for cut in 0..bytes.len() {
                assert_ne!(Message::decode(message.kind(), &bytes.slice(..cut)), Ok(message.clone()));
            }
        }
        assert_eq!(Message::decode(200, &Bytes::new()), Err(MessageError::UnknownKind(200)));
    }
}
