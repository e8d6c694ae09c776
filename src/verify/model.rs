//! A model of a single-threaded server with one key. It holds the operations in a compact form. From a state and an
//! operation it computes the next state, if the operation's outcome is possible in the first state.

use super::values::{ABSENT, ValueId, Values};
use super::{Action, Operation, Outcome};
use bytes::Bytes;

/// Content of a key at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) value: ValueId,
    /// One more than the index of the time of expiry; 0 means never.
    pub(super) expiry: u32,
}

/// An operation with its bytes interned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Op {
    pub(super) call: u64,
    /// `u64::MAX` if the operation is open.
    pub(super) returned: u64,
    pub(super) effect: Effect,
    pub(super) seen: Seen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Effect {
    Get,
    Exists,
    Set(ValueId),
    SetExpiring(ValueId, u32),
    SetIfAbsent(ValueId),
    Delete,
    IncrementBy(i64),
    Append(ValueId),
    GetSet(ValueId),
    GetDelete,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// The operation is open.
    Unknown,
    Done,
    Absent,
    Value(ValueId),
    Integer(i64),
    WrongValue,
}

/// The operations of one key.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) values: Values,
    pub(super) start: State,
    /// Operations with an outcome, in the order of their calls.
    pub(super) closed: Vec<Op>,
    /// Operations without an outcome, equal ones side by side in the order of their calls.
    pub(super) open: Vec<Op>,
    /// Earliest and latest times of expiry.
    deadlines: Vec<(u64, u64)>,
    /// The quantity that no operation lowers, if there is one.
    growth: Option<Growth>,
    /// The longest value that was read, if the key grows in length.
    grown: Option<Bytes>,
}

/// A quantity that only grows in the course of a key's operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Growth {
    Sum,
    Length,
}

impl Model {
    /// Creates the model of a key that holds `start` before the operations.
    pub(super) fn new<'a>(start: Option<&Bytes>, operations: impl IntoIterator<Item = &'a Operation>) -> Model {
        let mut model = Model {
            values: Values::new(),
            start: State { value: ABSENT, expiry: 0 },
            closed: Vec::new(),
            open: Vec::new(),
            deadlines: Vec::new(),
            growth: None,
            grown: None,
        };
        if let Some(start) = start {
            model.start.value = model.values.intern(start);
        }
        let mut longest: Option<&Bytes> = None;
        for operation in operations {
            let op = model.compile(operation);
            if let Some(Outcome::Value(value)) = &operation.outcome {
                longest = longest.into_iter().chain([value]).max_by_key(|value| value.len());
            }
            match op.seen {
                // The value that it read is unknown, and it changes nothing.
                Seen::Unknown | Seen::Done if matches!(op.effect, Effect::Get | Effect::Exists) => {}
                Seen::Unknown => model.open.push(op),
                _ => model.closed.push(op),
            }
        }
        model.closed.sort_by_key(|op| (op.call, op.returned));
        model.open.sort_by_key(|op| (op.effect, op.call));
        model.growth = model.growth();
        model.grown = longest.filter(|_| model.growth == Some(Growth::Length)).cloned();
        model.drop_unobservable();
        model
    }

    fn growth(&self) -> Option<Growth> {
        let all = |changes: fn(&Op) -> bool| {
            let reads = |op: &Op| matches!(op.effect, Effect::Get | Effect::Exists);
            self.closed.iter().chain(&self.open).all(|op| reads(op) || changes(op))
        };
        let adds = |op: &Op| matches!(op.effect, Effect::IncrementBy(delta) if delta >= 0);
        if self.values.integer(self.start.value).is_some() && all(adds) {
            return Some(Growth::Sum);
        }
        all(|op| matches!(op.effect, Effect::Append(_))).then_some(Growth::Length)
    }

    /// Returns how far the key has grown in `state`. None unless the key only grows.
    pub(super) fn rank(&self, state: State) -> Option<i64> {
        match self.growth? {
            Growth::Sum => self.values.integer(state.value),
            Growth::Length => Some(self.values.bytes(state.value) as i64),
        }
    }

    /// Returns the exact growth that the key must have reached when `op` comes, if the outcome of `op` tells it.
    pub(super) fn rank_needed(&self, op: Op) -> Option<i64> {
        let growth = self.growth?;
        match (op.effect, op.seen) {
            (Effect::Get, Seen::Absent) => Some(0),
            (Effect::Get, Seen::Value(value)) => self.rank(State { value, expiry: 0 }),
            (Effect::IncrementBy(delta), Seen::Integer(sum)) if growth == Growth::Sum => sum.checked_sub(delta),
            (Effect::Append(value), Seen::Integer(bytes)) => bytes.checked_sub(self.values.bytes(value) as i64),
            _ => None,
        }
    }

    /// Returns every state that `op` may leave behind if it comes next in `state` and every operation still to come
    /// returns at `bound` or later. There are two only if the key may expire just then.
    pub(super) fn outcomes(&mut self, state: State, op: Op, bound: u64) -> impl Iterator<Item = State> + use<> {
        let (mut there, mut gone) = (None, None);
        if state.expiry == 0 {
            there = self.apply(state, op);
        } else {
            let (earliest, latest) = self.deadlines[state.expiry as usize - 1];
            // `op` happens at its call or later: the key can be there only if it may expire at the call or later.
            if op.call <= latest {
                there = self.apply(state, op);
            }
            // `op` can happen as late as `bound`: the key can be gone if it may have expired by then.
            if bound >= earliest {
                gone = self.apply(State { value: ABSENT, expiry: 0 }, op);
            }
        }
        there.into_iter().chain(gone)
    }

    /// Returns the state after `op` on a key that holds `state` and does not expire at that moment. None if the outcome
    /// of `op` does not fit.
    fn apply(&mut self, state: State, op: Op) -> Option<State> {
        use Seen::{Absent, Done, Integer, Unknown, WrongValue};
        let is_there = state.value != ABSENT;
        let lasting = |value| State { value, expiry: 0 };
        let (fits, after) = match op.effect {
            Effect::Get => (self.was_read(state, op.seen), state),
            Effect::Exists => (op.seen == Integer(is_there.into()), state),
            Effect::Set(value) => (matches!(op.seen, Done | Unknown), lasting(value)),
            Effect::SetExpiring(value, expiry) => (matches!(op.seen, Done | Unknown), State { value, expiry }),
            Effect::SetIfAbsent(_) if is_there => (matches!(op.seen, Absent | Integer(0) | Unknown), state),
            Effect::SetIfAbsent(value) => (matches!(op.seen, Done | Integer(1) | Unknown), lasting(value)),
            Effect::Delete => {
                let fits = matches!(op.seen, Done | Unknown) || op.seen == Integer(is_there.into());
                (fits, lasting(ABSENT))
            }
            Effect::IncrementBy(delta) => {
                match self.values.integer(state.value).and_then(|number| number.checked_add(delta)) {
                    None => (matches!(op.seen, WrongValue | Unknown), state),
                    Some(sum) if op.seen == Integer(sum) || matches!(op.seen, Done | Unknown) => {
                        (true, State { value: self.values.intern_integer(sum), ..state })
                    }
                    Some(_) => (false, state),
                }
            }
            Effect::Append(value) => return self.append(state, value, op.seen),
            Effect::GetSet(value) => (self.was_read(state, op.seen), lasting(value)),
            Effect::GetDelete => (self.was_read(state, op.seen), lasting(ABSENT)),
        };
        fits.then_some(after)
    }

    fn append(&mut self, state: State, value: ValueId, seen: Seen) -> Option<State> {
        let bytes = self.values.bytes(state.value) + self.values.bytes(value);
        if !matches!(seen, Seen::Done | Seen::Unknown) && seen != Seen::Integer(bytes as i64) {
            return None;
        }
        // If a key only grows, each of its values is a prefix of all later ones. So every value shorter than one that
        // was read is a prefix of that one. This tells which open append happened when, long before the search reaches
        // the read.
        if let Some(grown) = &self.grown
            && !self.values.agrees(value, grown, self.values.bytes(state.value))
        {
            return None;
        }
        Some(State { value: self.values.join(state.value, value), ..state })
    }

    fn was_read(&self, state: State, seen: Seen) -> bool {
        match seen {
            Seen::Value(value) => state.value == value,
            Seen::Absent => state.value == ABSENT,
            Seen::Done | Seen::Unknown => true,
            Seen::Integer(_) | Seen::WrongValue => false,
        }
    }

    fn compile(&mut self, operation: &Operation) -> Op {
        let effect = match &operation.action {
            Action::Get => Effect::Get,
            Action::Exists => Effect::Exists,
            Action::Set(value) => Effect::Set(self.values.intern(value)),
            Action::SetExpiring { value, earliest, latest } => {
                self.deadlines.push((*earliest, *latest));
                Effect::SetExpiring(self.values.intern(value), self.deadlines.len() as u32)
            }
            Action::SetIfAbsent(value) => Effect::SetIfAbsent(self.values.intern(value)),
            Action::Delete => Effect::Delete,
            Action::IncrementBy(delta) => Effect::IncrementBy(*delta),
            Action::Append(value) => Effect::Append(self.values.intern(value)),
            Action::GetSet(value) => Effect::GetSet(self.values.intern(value)),
            Action::GetDelete => Effect::GetDelete,
        };
        let seen = match &operation.outcome {
            None => Seen::Unknown,
            Some(Outcome::Nil) => Seen::Absent,
            Some(Outcome::Value(value)) => Seen::Value(self.values.intern(value)),
            Some(Outcome::Integer(number)) => Seen::Integer(*number),
            Some(Outcome::Done) => Seen::Done,
            Some(Outcome::WrongValue) => Seen::WrongValue,
            Some(Outcome::Refused) => unreachable!("histories keep no refused operations"),
        };
        Op { call: operation.call, returned: operation.returned.unwrap_or(u64::MAX), effect, seen }
    }

    /// Drops open writes that no operation can have observed. This is sound. Take any order that explains the history,
    /// without the open operations that change nothing in it. If an operation follows such a write, that operation
    /// ignores the state: any other would contradict the state that the write left behind. So the order without the
    /// write explains the history, too.
    fn drop_unobservable(&mut self) {
        let mut at = 0;
        while at < self.open.len() {
            if self.is_unobservable(self.open[at]) {
                self.open.remove(at);
            } else {
                at += 1;
            }
        }
    }

    /// Returns true if this operation of the history can be left out: if the history is linearizable with the
    /// operation, it is so without it. The operation changes nothing, or no other operation can have noticed the
    /// change.
    pub(super) fn is_dispensable(&mut self, operation: &Operation) -> bool {
        let op = self.compile(operation);
        let reads_only = matches!(op.effect, Effect::Get | Effect::Exists);
        reads_only || op.changed_nothing() || self.is_unobservable(op)
    }

    /// Returns true if no other operation can come right after the write `op` and depend on it.
    fn is_unobservable(&mut self, op: Op) -> bool {
        let value = match op.effect {
            Effect::Set(value) | Effect::SetIfAbsent(value) | Effect::GetSet(value) => value,
            Effect::Delete | Effect::GetDelete => ABSENT,
            _ => return false,
        };
        let state = State { value, expiry: 0 };
        let mut passed_itself = false;
        for at in 0..self.closed.len() {
            let other = self.closed[at];
            if other == op && !passed_itself {
                passed_itself = true;
            } else if other.returned >= op.call && !other.ignores_state() && self.apply(state, other).is_some() {
                return false;
            }
        }
        for at in 0..self.open.len() {
            let other = self.open[at];
            if !other.ignores_state() && self.apply(state, other).is_some_and(|after| after != state) {
                return false;
            }
        }
        true
    }
}

impl Effect {
    fn reads_value(self) -> bool {
        matches!(self, Effect::Get | Effect::GetSet(_) | Effect::GetDelete)
    }
}

impl Op {
    /// Returns true if neither the outcome nor the state left behind depends on the state before.
    pub(super) fn ignores_state(self) -> bool {
        let told_nothing = matches!(self.seen, Seen::Done | Seen::Unknown);
        let overwrites = matches!(
            self.effect,
            Effect::Set(_) | Effect::SetExpiring(..) | Effect::Delete | Effect::GetSet(_) | Effect::GetDelete
        );
        told_nothing && overwrites
    }

    /// Returns true if the outcome says that the operation changed nothing, wherever it happened.
    pub(super) fn changed_nothing(self) -> bool {
        match self.effect {
            Effect::Get | Effect::Exists => true,
            Effect::SetIfAbsent(_) => matches!(self.seen, Seen::Absent | Seen::Integer(0)),
            Effect::Delete => self.seen == Seen::Integer(0),
            Effect::IncrementBy(_) => self.seen == Seen::WrongValue,
            Effect::GetDelete => self.seen == Seen::Absent,
            _ => false,
        }
    }

    /// Returns the value that the operation may leave behind, if that does not depend on the state before.
    pub(super) fn writes(self) -> Option<ValueId> {
        match self.effect {
            Effect::Set(value) | Effect::SetExpiring(value, _) | Effect::GetSet(value) => Some(value),
            Effect::SetIfAbsent(value) if !self.changed_nothing() => Some(value),
            Effect::Delete | Effect::GetDelete if !self.changed_nothing() => Some(ABSENT),
            _ => None,
        }
    }

    /// Returns the value that the operation must find, if its outcome tells.
    pub(super) fn reads(self) -> Option<ValueId> {
        match self.seen {
            Seen::Value(value) => Some(value),
            Seen::Absent if self.effect.reads_value() => Some(ABSENT),
            _ => None,
        }
    }
}
