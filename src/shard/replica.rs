//! One group with its store. It carries out the effects of the group and applies values, over several turns if they
//! hold much work.

use super::EffectSink;
use crate::kv::Store;
use crate::kv::reply::Reply;
use crate::storage::wal::{self, Lsn};
use groups::{
    Applying, Clock, Effect, Group, GroupId, LocalOutcome, Message, NodeId, Record, RestoreError, Snapshot, Value,
};
use std::collections::VecDeque;

/// Maximum number of other members' messages that wait in a group until a value is applied. Further ones are dropped
/// like lost messages.
const WAITING_MESSAGES_MAX: usize = 1_024;
/// The same in bytes of their values.
const WAITING_BYTES_MAX: usize = 4 << 20;

/// A value that is being applied piece by piece.
pub(super) struct Pending {
    applying: Applying,
    /// Effects of the group that come after the value, in order.
    effects: VecDeque<Effect>,
}

/// One group with its store.
pub struct Replica {
    pub(super) group: Group,
    pub(super) store: Store,
    /// The value that must be applied before the group can be asked anything; everything else of the group waits for
    /// it.
    pub(super) pending: Option<Box<Pending>>,
    /// Messages that came meanwhile, in order.
    pub(super) waiting: VecDeque<(NodeId, Message)>,
    pub(super) waiting_bytes: usize,
    /// Memory of the store when it was last counted, in bytes.
    pub(super) store_bytes: usize,
    /// The log sequence number of the group's newest record, and of its newest vote.
    pub(super) lsn: Lsn,
    pub(super) vote_lsn: Lsn,
    pub(super) dirty: bool,
}

impl Replica {
    pub(super) fn new(group: Group, store: Store) -> Replica {
        let waiting = VecDeque::new();
        Replica {
            group,
            store,
            pending: None,
            waiting,
            waiting_bytes: 0,
            store_bytes: 0,
            lsn: Lsn::default(),
            vote_lsn: Lsn::default(),
            dirty: false,
        }
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.pending.is_some() || !self.waiting.is_empty()
    }

    /// Lets a message wait, or drops it if there is no room. This node's messages to itself are never dropped, because
    /// they are never sent again.
    pub(super) fn wait(&mut self, from: NodeId, message: Message) {
        let bytes = message.value_bytes();
        let is_room = self.waiting.len() < WAITING_MESSAGES_MAX && self.waiting_bytes + bytes <= WAITING_BYTES_MAX;
        if from == self.group.me() || is_room || self.waiting.is_empty() {
            self.waiting_bytes += bytes;
            self.waiting.push_back((from, message));
        }
    }

    /// Drops the waiting messages of `from`.
    pub(super) fn forget_waiting(&mut self, from: NodeId) {
        self.waiting.retain(|(sender, _)| *sender != from);
        self.waiting_bytes = self.waiting.iter().map(|(_, message)| message.value_bytes()).sum();
    }

    /// Recovery: restores a record of the log. `effects` is empty before and afterwards.
    ///
    /// # Errors
    /// If the record contradicts the records before it, or the state that they made.
    pub fn restore(
        &mut self,
        lsn: Lsn,
        record: Record,
        clock: Clock,
        effects: &mut Vec<Effect>,
    ) -> Result<(), RestoreError> {
        self.lsn = lsn;
        if matches!(record, Record::Accepted { .. }) {
            self.vote_lsn = lsn;
        }
        self.group.restore(record, clock, effects)?;
        for effect in effects.drain(..) {
            if let Effect::Apply { value, .. } = effect {
                self.group.apply(&value, &mut self.store, |_| ())?;
                drop(self.store.take_discarded());
            }
        }
        Ok(())
    }

    /// Recovery: begins a group with the state of a checkpoint, before its records come.
    pub fn restore_checkpoint(&mut self, state: Snapshot, store: Store, clock: Clock) {
        self.group.restore_snapshot(state, clock);
        self.store = store;
    }

    fn carry_out(&mut self, id: GroupId, effect: Effect, out: &mut impl EffectSink) {
        match effect {
            Effect::Persist(record) => {
                let is_vote = matches!(record, Record::Accepted { .. });
                self.lsn = out.persist(logged(id, record));
                if is_vote {
                    self.vote_lsn = self.lsn;
                }
            }
            Effect::Send { to, message } => out.send(id, to, &message),
            Effect::SendDurable { to, message } => out.send_durable(self.lsn, id, to, message),
            Effect::Apply { value, .. } => {
                let mut applying = Applying::new(value);
                if !self.apply(id, &mut applying, out) {
                    self.pending = Some(Box::new(Pending { applying, effects: VecDeque::new() }));
                }
            }
            Effect::ReadLog { to, from, below, chosen, bytes_max } => {
                let (tag, bytes_max) = (u64::from(to.0), bytes_max as usize);
                out.read_log(wal::ReadRange { tag, group: id, from, below, last_chosen: chosen, bytes_max });
            }
            Effect::Leading(leads) => out.leading(id, leads),
            Effect::Skipped { counter } => out.skipped(id, counter),
            Effect::ReadLost { read } => out.read_lost(read),
            Effect::Membership => out.members_changed(id, self.group.next()),
        }
    }

    /// Continues with the value that is being applied, and with the effects that come after it.
    pub(super) fn continue_applying(&mut self, id: GroupId, out: &mut impl EffectSink) {
        let Some(mut pending) = self.pending.take() else { return };
        if !self.apply(id, &mut pending.applying, out) {
            self.pending = Some(pending);
            return;
        }
        while self.pending.is_none()
            && let Some(effect) = pending.effects.pop_front()
        {
            self.carry_out(id, effect, out);
        }
        if let Some(next) = &mut self.pending {
            next.effects.append(&mut pending.effects);
        }
    }

    /// Carries an effect out, or lets it wait for the value and the effects before it.
    pub(super) fn carry_out_in_turn(&mut self, id: GroupId, effect: Effect, out: &mut impl EffectSink) {
        match &mut self.pending {
            Some(pending) => pending.effects.push_back(effect),
            None => self.carry_out(id, effect, out),
        }
    }

    /// Applies a value as far as the turn's work budget goes. Returns true if all of it is applied.
    fn apply(&mut self, id: GroupId, applying: &mut Applying, out: &mut impl EffectSink) -> bool {
        // The rest of the turn's work budget is counted here while `out` is in use.
        let mut work = *out.work();
        let applied = self.group.apply_some(applying, &mut self.store, &mut work, |own| match own {
            LocalOutcome::Read(read, store) => out.read(read, store),
            LocalOutcome::Applied(counter, reply) => out.applied(id, counter, reply),
            LocalOutcome::Changed(counter, Ok(_)) => out.applied(id, counter, Reply::Ok),
            LocalOutcome::Changed(counter, Err(error)) => {
                out.applied(id, counter, Reply::Error(format!("ERR {error}").into()));
            }
        });
        *out.work() = work;
        self.store.take_discarded().into_iter().for_each(|discarded| out.discard(discarded));
        match applied {
            Ok(false) => return false,
            Ok(true) => out.chosen(id, applying.value()),
            Err(differs) => panic!("{differs}"), // invariant 6: nothing that this node says of the group can be believed
        }
        true
    }
}

/// Converts a group's record to the form that the log has.
fn logged(group: GroupId, record: Record) -> wal::Record {
    let held = |instance, ballot, chosen, value: &Value| wal::ValueRecord {
        group,
        instance,
        ballot,
        chosen,
        payload: value.bytes().clone(),
    };
    match record {
        Record::Promised(ballot) => wal::Record::Promise { group, ballot },
        Record::Accepted { instance, ballot, chosen, value } => {
            wal::Record::Accept(held(instance, ballot, chosen, &value))
        }
        Record::Learned { instance, ballot, chosen, value } => {
            wal::Record::Learned(held(instance, ballot, chosen, &value))
        }
        Record::Position { next, promised, chosen } => wal::Record::Position { group, next, promised, chosen },
        Record::Lost { .. } => unreachable!("a group never logs a lost record"),
    }
}

/// Converts a record of the log back to a group's record. Returns `None` if the value is malformed, or the record is
/// not a group's.
#[must_use]
pub fn unlogged(record: wal::Record) -> Option<Record> {
    match record {
        wal::Record::Promise { ballot, .. } => Some(Record::Promised(ballot)),
        wal::Record::Accept(wal::ValueRecord { instance, ballot, chosen, payload, .. }) => {
            Some(Record::Accepted { instance, ballot, chosen, value: Value::parse(payload).ok()? })
        }
        wal::Record::Learned(wal::ValueRecord { instance, ballot, chosen, payload, .. }) => {
            Some(Record::Learned { instance, ballot, chosen, value: Value::parse(payload).ok()? })
        }
        wal::Record::Position { next, promised, chosen, .. } => Some(Record::Position { next, promised, chosen }),
        wal::Record::Lost { instance, ballot, learned, .. } => Some(Record::Lost { instance, ballot, learned }),
        wal::Record::PeerStart { .. } | wal::Record::Trimmed { .. } => None,
    }
}
