//! The effects of a shard on the rest of the node: records for the log, messages, replies, and notices.

use crate::kv::reply::Reply;
use crate::kv::{Discarded, Store};
use crate::storage::wal::{self, Lsn};
use groups::reads::ReadId;
use groups::{Ballot, Clock, Counter, GroupId, Instance, Message, NodeId, Value, WorkBudget};

/// Receives the effects of a shard.
pub trait EffectSink {
    /// Puts a record into the batch being gathered; returns that batch's log sequence number.
    fn persist(&mut self, record: wal::Record) -> Lsn;
    /// Returns true if a value of `bytes` may be proposed now. Otherwise the shard tries again at the next
    /// [`Shard::look_at_held`](super::Shard::look_at_held) or tick.
    fn may_propose(&self, bytes: usize) -> bool;
    /// Returns true if the lease guard lets the group promise a ballot to `to`, which may be this node. `promised` is
    /// the group's highest promise so far.
    fn allows(&self, group: GroupId, to: NodeId, promised: Ballot, clock: Clock) -> bool;
    /// Sends a message now.
    fn send(&mut self, group: GroupId, to: NodeId, message: &Message);
    /// Sends a message when the log is durable up to `lsn`.
    fn send_durable(&mut self, lsn: Lsn, group: GroupId, to: NodeId, message: Message);
    /// Takes the reply to an applied command of this node's clients.
    fn applied(&mut self, group: GroupId, counter: Counter, reply: Reply<'_>);
    /// Notes that a command of this node's clients was executed, but its reply is not known here.
    fn skipped(&mut self, group: GroupId, counter: Counter);
    /// Notes that a read cannot be answered any more.
    fn read_lost(&mut self, id: ReadId);
    /// Answers a read from this state, before the next command is applied: that command came after the read.
    fn read(&mut self, id: ReadId, store: &Store);
    /// Reads chosen values from the log and sends them to the member whose id is the range's tag.
    fn read_log(&mut self, range: wal::ReadRange);
    /// Notes that this node leads the group from now on, or no longer.
    fn leading(&mut self, group: GroupId, leads: bool);
    /// Notes that the members of the group have changed. The new ones count from instance `next` on at the latest.
    fn members_changed(&mut self, group: GroupId, next: Instance);
    /// Notes that a value was chosen and applied.
    fn chosen(&mut self, group: GroupId, value: &Value);
    /// Returns the work budget of this turn for applying values.
    fn work(&mut self) -> &mut WorkBudget;
    /// Takes the memory of keys that are gone. It has to be freed elsewhere, because that takes long.
    fn discard(&mut self, discarded: Discarded);
}
