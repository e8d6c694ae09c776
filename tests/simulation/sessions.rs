//! Sessions near the edge of their window. Clients skip numbers and use them late, and send answered commands again.
//! Each group has its own window of a session, because it sees only the commands on its keys.

use crate::client::{Call, Kind, Part, readable};
use crate::world::World;
use bytes::Bytes;
use groups::{GroupId, Ms, Us};
use net::resp::value::Value;
use paxoi::routing;
use paxoi::verify::Action;
use std::collections::{BTreeMap, VecDeque};

/// Window of a session in numbers, counted back from the highest (`kv/session`).
const WINDOW: u64 = 64;
/// Maximum number of answered commands that a client keeps.
const ANSWERED_MAX: usize = 2 * WINDOW as usize;
/// Time to live of sessions that outlive almost every run.
const LASTING_TTL_MS: Ms = Ms(3_600_000);

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: String,
    number: u64,
    /// Skipped numbers.
    unused: VecDeque<u64>,
    /// The highest number sent to each group.
    sent: BTreeMap<GroupId, u64>,
    answered: VecDeque<(Call, u64, Value)>,
}

impl Session {
    pub(crate) fn new(id: String) -> Session {
        Session { id, number: 0, unused: VecDeque::new(), sent: BTreeMap::new(), answered: VecDeque::new() }
    }
}

impl World {
    /// Returns a command of a session: a new one, one with a skipped number, or an answered one.
    pub(crate) fn once(&mut self, index: usize) -> Call {
        let chance = self.random.below(100);
        let leap = [1, WINDOW - 2, WINDOW - 1, WINDOW, WINDOW + 1][self.random.below(5) as usize];
        let Some(session) = &mut self.clients[index].session else {
            return self.call(Kind::Session, Vec::new(), 0, &[&[b"SESSION", b"NEW"]]);
        };
        if chance < 20 && !session.answered.is_empty() {
            return self.once_again(index);
        }
        let late = if chance < 40 { session.unused.pop_front() } else { None };
        let number = late.unwrap_or_else(|| {
            let leap = if chance > 95 { leap } else { 1 };
            session.unused.extend(session.number + 1..session.number + leap);
            session.number += leap;
            while session.unused.front().is_some_and(|number| session.number - number > WINDOW + 1) {
                session.unused.pop_front();
            }
            session.number
        });
        let (id, text) = (session.id.clone(), number.to_string());
        let (id, text): (&[u8], &[u8]) = (id.as_bytes(), text.as_bytes());
        let token = Bytes::from(format!("{};", self.record.written));
        let increments = self.random.chance(500);
        let key = self.key(if increments { 'c' } else { 'a' });
        let action = if increments { Action::IncrementBy(1) } else { Action::Append(token.clone()) };
        let parts = vec![Part { key: key.clone(), action }];
        let words: &[&[u8]] = if increments {
            &[b"ONCE", id, text, b"INCR", &key]
        } else {
            &[b"ONCE", id, text, b"APPEND", &key, &token]
        };
        self.call(Kind::Once { number }, parts, 0, &[words])
    }

    /// Returns an answered command, to be sent again.
    fn once_again(&mut self, index: usize) -> Call {
        let mut call = self.read();
        let Some(session) = &self.clients[index].session else { return call };
        let place = self.random.below(session.answered.len() as u64) as usize;
        if let Some((answered, number, reply)) = session.answered.get(place) {
            let kind = Kind::Again { number: *number, reply: reply.clone() };
            call = Call { kind, call_us: self.now_us, ..answered.clone() };
        }
        call
    }

    fn group_of(&self, call: &Call) -> GroupId {
        call.parts.first().map_or(GroupId(0), |part| routing::group_of(routing::slot(&part.key), self.shape.groups))
    }

    pub(crate) fn number_sent(&mut self, index: usize, call: &Call) {
        let (Kind::Once { number } | Kind::Again { number, .. }) = call.kind else { return };
        let group = self.group_of(call);
        if let Some(session) = self.session_of_call(index, call) {
            let sent = session.sent.entry(group).or_default();
            *sent = number.max(*sent);
        }
    }

    /// Returns the client's session, unless the call belongs to an earlier one.
    fn session_of_call(&mut self, index: usize, call: &Call) -> Option<&mut Session> {
        let session = self.clients[index].session.as_mut()?;
        let id = session.id.as_bytes();
        call.request.windows(id.len()).take(WINDOW as usize).any(|window| window == id).then_some(session)
    }

    pub(crate) fn number_answered(&mut self, index: usize, call: &Call, number: u64, reply: &Value) {
        if let Some(session) = self.session_of_call(index, call) {
            session.answered.push_back((call.clone(), number, reply.clone()));
            if session.answered.len() > ANSWERED_MAX {
                session.answered.pop_front();
            }
        }
    }

    pub(crate) fn repeated(&mut self, index: usize, call: &Call, number: u64, first: &Value, reply: &Value) {
        self.record.repeated += 1;
        if reply != first {
            let request = readable(&call.request);
            self.oracle.fail(&format!("client {index}: {number} {request} was {first:?} first, then {reply:?}"));
        }
    }

    /// Handles the refusal of a number by a group. The number must be beyond the window, unless sessions expire in this
    /// run.
    pub(crate) fn number_expired(&mut self, index: usize, call: &Call) {
        self.record.outdated += 1;
        let group = self.group_of(call);
        // No session is older than the run. Long sleeps can make the run longer than the life of any session.
        let is_young = Us(self.now_us) < self.shape.session_ttl_ms.to_us() / 11 * 10;
        let is_lasting = self.shape.session_ttl_ms >= LASTING_TTL_MS && is_young;
        let (Kind::Once { number } | Kind::Again { number, .. }) = call.kind else { return };
        let Some(session) = self.session_of_call(index, call) else { return };
        let sent = session.sent.get(&group).copied().unwrap_or(0);
        if sent.saturating_sub(number) >= WINDOW {
            return;
        }
        self.clients[index].session = None;
        if is_lasting {
            let request = readable(&call.request);
            self.oracle.fail(&format!("client {index} was told ONCEEXPIRED, highest number {sent}: {request}"));
        }
    }

    /// Undoes the bookkeeping of a request that is not sent.
    pub(crate) fn leave_unasked(&mut self, index: usize, call: &Call) {
        if call.kind == Kind::Scan {
            self.page_failed(index);
        }
    }
}
