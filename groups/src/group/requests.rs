//! Clients' requests: commands that go to the leader, and reads that are confirmed through it.

use super::time::GroupTime;
use super::{Clock, Group, Role, StateDiffers};
use crate::membership::{ChangeError, MACHINE};
use crate::message::{Forward, NotLeader, Reject};
use crate::reads::ReadId;
use crate::{
    Ballot, COMMAND_HEADER_BYTES, Counter, Effect, Instance, LOOK_AHEAD_MAX, Message, Ms, StateMachine, Value,
    WorkBudget,
};
use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

/// Minimum bytes of commands that are announced to the state machine: for one or two commands it does not pay.
const LOOK_AHEAD_BYTES_MIN: usize = 256;

/// A member's answer to the question "does this ballot still lead?".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeadershipAnswer {
    /// The member has promised this higher ballot.
    Refused(Ballot),
    /// The member has promised no higher ballot.
    Holds,
    /// The member leads under this ballot, and every instance up to this one is chosen.
    Leads(Instance),
}

/// An outcome for this node's own clients while a value is applied. Outcomes come in order.
#[derive(Debug)]
pub enum LocalOutcome<'m, M: StateMachine> {
    /// A read that must be answered from this state, before the next command changes it.
    Read(ReadId, &'m M),
    /// The command with this counter was applied, with this reply.
    Applied(Counter, M::Reply<'m>),
    /// The membership change with this counter made this version, or had no effect.
    Changed(Counter, Result<u64, ChangeError>),
}

/// The progress of applying a chosen value.
#[derive(Debug)]
pub struct Applying {
    value: Value,
    /// Whether the group's time has advanced to the value's.
    begun: bool,
    /// The bytes of the value's commands that are done.
    offset: usize,
    /// `Some` if the command at `offset` is in the dedup table already, but not done. The inner option is the
    /// command's counter if the command is one of this node's.
    inside: Option<Option<Counter>>,
}

impl Applying {
    /// Begins with a value of which nothing is applied yet.
    #[must_use]
    pub fn new(value: Value) -> Applying {
        Applying { value, begun: false, offset: 0, inside: None }
    }

    /// Returns the value.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.value
    }
}

impl Group {
    /// Queues a command of one of this node's clients; `body` writes it. Returns its counter. [`Group::apply`] names
    /// that counter when the command is applied.
    pub fn submit(&mut self, body: impl FnOnce(&mut BytesMut)) -> Counter {
        self.origin.push(body)
    }

    /// Takes back the commands with these `counters`, which ascend. Commands that may have left this node stay queued,
    /// with unknown fate: their counters are removed from `counters`.
    pub fn withdraw(&mut self, counters: &mut Vec<Counter>) {
        self.origin.withdraw(counters);
    }

    /// Returns true if this node's command with this counter is not applied yet.
    #[must_use]
    pub fn awaits(&self, counter: Counter) -> bool {
        self.origin.oldest() <= counter
    }

    /// Returns the bytes of this node's commands that are not applied yet.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.origin.bytes()
    }

    /// Applies a chosen value; `on_local_outcome` gets the outcomes for this node's clients.
    ///
    /// # Errors
    /// As for [`Group::apply_some`].
    pub fn apply<M: StateMachine>(
        &mut self,
        value: &Value,
        machine: &mut M,
        mut on_local_outcome: impl FnMut(LocalOutcome<'_, M>),
    ) -> Result<(), StateDiffers> {
        let mut applying = Applying::new(value.clone());
        while !self.apply_some(&mut applying, machine, &mut WorkBudget::unlimited(), &mut on_local_outcome)? {}
        Ok(())
    }

    /// Applies a chosen value until `work` is spent. Returns true if all of it is applied. Until then the state is
    /// between two instances: nothing may be read from it, compared with it or proposed after it, and
    /// [`Group::handle`], [`Group::tick`] and [`Group::flush`] must wait.
    ///
    /// # Errors
    /// If the state is not the one in which a majority chose the value. Then nothing of the value is applied, and
    /// nothing can be: the node must stop.
    pub fn apply_some<M: StateMachine>(
        &mut self,
        applying: &mut Applying,
        machine: &mut M,
        work: &mut WorkBudget,
        mut on_local_outcome: impl FnMut(LocalOutcome<'_, M>),
    ) -> Result<bool, StateDiffers> {
        let value = applying.value.clone();
        if !applying.begun {
            if work.is_spent() {
                return Ok(false);
            }
            self.compare_digest(&value)?;
            machine.begin(value.time_ms());
            applying.begun = true;
        }
        let mut announced = 0;
        for command in value.commands_from(applying.offset) {
            let is_worth_it = value.bytes().len() - applying.offset >= LOOK_AHEAD_BYTES_MIN;
            if announced == 0 && is_worth_it && applying.inside.is_none() {
                announced = LOOK_AHEAD_MAX;
                let commands = value.commands_from(applying.offset).take(LOOK_AHEAD_MAX);
                machine.look_ahead(commands.map(|command| command.body));
            }
            announced = announced.saturating_sub(1);
            let bytes = COMMAND_HEADER_BYTES + command.body.len();
            let own = match applying.inside.take() {
                Some(own) => own,
                None => {
                    let is_change = command.body.first() == Some(&MACHINE);
                    let outcome = is_change.then(|| {
                        self.outcomes
                            .pop_front()
                            .expect("deciding a value gives each membership change in it an outcome")
                    });
                    if !self.dedup.advance(command.id) {
                        applying.offset += bytes;
                        continue;
                    }
                    let own = self.origin.on_applied(command.id);
                    if let Some(counter) = own {
                        while let Some(read) = self.reads.take_before(counter) {
                            on_local_outcome(LocalOutcome::Read(read, machine));
                        }
                    }
                    if let Some(outcome) = outcome {
                        own.into_iter().for_each(|counter| on_local_outcome(LocalOutcome::Changed(counter, outcome)));
                        applying.offset += bytes;
                        continue;
                    }
                    own
                }
            };
            if work.is_spent() {
                applying.inside = Some(own);
                return Ok(false);
            }
            let Some(reply) = machine.apply_some(command.body, own.is_some(), work) else {
                applying.inside = Some(own);
                return Ok(false);
            };
            if let Some(counter) = own {
                on_local_outcome(LocalOutcome::Applied(counter, reply));
            }
            applying.offset += bytes;
        }
        self.applied = self.applied.following();
        self.digest = machine.digest();
        Ok(true)
    }

    /// Sends the commands that the leader has not got yet.
    pub(super) fn forward_commands(&mut self, effects: &mut Vec<Effect>) {
        let Some(ballot) = self.leader else { return };
        if ballot.node == self.settings.me || !self.origin.has_unsent() || self.refused == Some(ballot) {
            return;
        }
        while self.origin.has_unsent() {
            let (after, commands) = self.origin.send(self.settings.batch_bytes_max);
            let commands = Bytes::copy_from_slice(commands);
            let message = Message::Forward(Forward { ballot, after, commands });
            effects.push(Effect::Send { to: ballot.node, message });
        }
    }

    pub(super) fn handle_not_leader(&mut self, not: NotLeader) {
        if self.leader == Some(not.ballot) {
            self.origin.unsend();
            self.refused = Some(not.ballot);
        }
    }

    /// Adds a read of one of this node's clients. [`Group::take_ready`] names it when it may be answered.
    pub fn read(&mut self, id: ReadId) {
        self.reads.push(id, self.origin.newest());
    }

    /// Holds a read that [`Group::take_ready`] named, but that cannot be answered before the group's time advances. It
    /// waits for this node's next command; the caller makes sure that there is one.
    pub fn hold_read(&mut self, id: ReadId) {
        self.reads.hold(id);
    }

    /// Removes a read that nobody waits for any more.
    pub fn cancel_read(&mut self, id: ReadId) {
        self.reads.cancel(id);
    }

    /// Returns true if a read needs a question.
    #[must_use]
    pub fn has_fresh_reads(&self) -> bool {
        self.reads.has_fresh()
    }

    /// Returns true if this node's clients wait for a read or a command here.
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        !self.reads.is_empty() || self.origin.bytes() > 0
    }

    /// Asks question `number` on behalf of the fresh reads, if that is possible now. Returns the ballot that the
    /// question must name. The asker counts as one of the majority, so it must have promised nothing above that ballot.
    pub fn ask(&mut self, number: u64, effects: &mut Vec<Effect>) -> Option<Ballot> {
        let ballot = self.leader?;
        if !self.reads.has_fresh() {
            return None;
        }
        if self.acceptor.promised() > ballot {
            // The Reject tells the leader that it has lost this member. Otherwise the leader might never know, because
            // the group may have no other messages.
            let reject = Reject { ballot, instance: self.next, promised: self.acceptor.promised() };
            effects.push(Effect::Send { to: ballot.node, message: Message::Reject(reject) });
            return None;
        }
        let ready = match &self.role {
            Role::Leader(leadership) => leadership.established,
            _ => ballot.node != self.settings.me,
        };
        if !ready {
            return None;
        }
        self.reads.asked(number, ballot);
        Some(ballot)
    }

    /// Answers another member's question about `ballot`.
    #[must_use]
    pub fn answer(&self, ballot: Ballot) -> LeadershipAnswer {
        if self.acceptor.promised() > ballot {
            return LeadershipAnswer::Refused(self.acceptor.promised());
        }
        match &self.role {
            Role::Leader(leadership) if leadership.ballot() == ballot && leadership.established => {
                LeadershipAnswer::Leads(self.next.preceding())
            }
            _ => LeadershipAnswer::Holds,
        }
    }

    /// Notes that question `number` about `ballot` was answered by a majority that includes the leader, or by a leader
    /// with a lease.
    pub fn on_confirmed(&mut self, number: u64, ballot: Ballot, instance: Instance) {
        self.reads.confirmed(number, ballot, instance);
    }

    /// Notes that question `number` will confirm nothing.
    pub fn on_unconfirmed(&mut self, number: u64) {
        self.reads.unconfirmed(number);
    }

    /// Notes that no question asked so far will be answered.
    pub fn ask_again(&mut self) {
        self.reads.ask_again();
    }

    /// Takes the reads that may be answered now.
    pub fn take_ready(&mut self, ready: &mut Vec<ReadId>) {
        self.reads.take_ready(self.next.preceding(), self.origin.oldest(), ready);
    }

    /// Returns the group's time, in unix milliseconds, as of the last chosen value.
    #[must_use]
    pub fn time_ms(&self) -> Ms {
        self.time.now_ms()
    }

    /// Returns the group's time that a value proposed now carries, in unix milliseconds: cluster time, or a later time
    /// while the group is ahead of it.
    #[must_use]
    pub fn time_at(&self, clock: Clock, cluster_ms: Ms) -> Ms {
        self.time.next_ms(clock.mono_ms, cluster_ms)
    }

    /// Starts the time limits after a start of the node. The wait without a known leader begins at `clock`. Called
    /// once.
    pub fn begin(&mut self, clock: Clock) {
        self.time = GroupTime::starting_at(self.time.now_ms(), clock.mono_ms);
        self.await_turn(clock);
    }
}
