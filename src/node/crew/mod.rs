//! The other workers of this node: messages to and from them. Most are commands of clients for groups of another worker,
//! and the replies. They are gathered in a turn, and leave at its end in one message per worker.
//!
//! Commands that this worker passes on keep their order: all commands of one client for one group go to the same worker,
//! in one queue. Their number and their bytes are bounded like those of the commands in this worker's own groups.
//!
//! ```text
//! message   the messages between workers        commands   a turn's commands, and their replies
//! ```

mod commands;
mod message;

pub(super) use commands::{CommandBatch, PassedCommand, PassedKind, ReplyBatch};
pub use message::WorkerMessage;
pub(super) use message::{Content, Told};

use super::clients::ClientsMessage;
use super::facts::WorkerFacts;
use super::output::Output;
use super::peers::Roster;
use super::ticket::{ClientTicket, WorkerTicket};
use crate::kv::reply::Reply;
use crate::workers::{WorkerId, Workers};
use bytes::{Bytes, BytesMut};
use groups::{GroupId, Ms, NodeId};

/// Interval at which a worker tells the others its load.
const LOAD_MS: Ms = Ms(100);

/// What a worker takes of the limits of the whole node.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    pub(super) clients: u64,
    pub(super) used_bytes: u64,
}

/// The state of the exchange with the other workers; see the module.
pub(super) struct Crew {
    workers: Workers,
    /// By worker.
    exchanges: Vec<Exchange>,
    /// When this worker has told its load last.
    shared_ms: Ms,
    /// The facts about the other workers, when they were asked last.
    facts: Vec<WorkerFacts>,
    /// The members of the cluster as this worker has told the others last.
    told_roster: Option<Roster>,
    /// The worker that gets the next client.
    next: u32,
}

/// The exchange with one other worker.
#[derive(Default)]
struct Exchange {
    /// What has been gathered in this turn.
    commands: CommandBatch,
    replies: ReplyBatch,
    other: Vec<Content>,
    /// The members of the cluster as far as the groups of that worker tell; `None` before it has said so.
    roster: Option<Roster>,
    load: Load,
    /// Commands of that worker's clients that this worker carries out, and the member to which it relays them; see
    /// `relay`.
    taken: usize,
    executor: Option<NodeId>,
    /// Commands that were passed on and are not answered: their number, and the bytes of those that write.
    in_flight: usize,
    in_flight_bytes: usize,
}

impl Crew {
    pub(super) fn new(workers: Workers) -> Crew {
        let exchanges = (0..workers.count()).map(|_| Exchange::default()).collect();
        Crew { workers, exchanges, shared_ms: Ms(0), facts: Vec::new(), told_roster: None, next: 0 }
    }

    /// At the first worker, which accepts all connections: returns the other worker that serves the next client, if it is
    /// not this one. Clients are dealt out in turn. Before the node `is_born`, this worker alone knows what it waits for.
    pub(super) fn deal_client(&mut self, is_born: bool) -> Option<WorkerId> {
        if !is_born || !self.workers.is_first() {
            return None;
        }
        let worker = WorkerId(self.next);
        self.next = (self.next + 1) % self.workers.count();
        (worker != self.workers.me()).then_some(worker)
    }

    /// Passes a command or a read on to the worker of its group. `put` writes its body.
    pub(super) fn pass(&mut self, command: PassedCommand, put: impl FnOnce(&mut BytesMut)) {
        let exchange = &mut self.exchanges[self.workers.owner(command.group).index()];
        exchange.in_flight += 1;
        exchange.in_flight_bytes += command.counted_bytes() as usize;
        exchange.commands.push(command, put);
    }

    /// Gives another worker the reply to a command that it has passed on.
    pub(super) fn answer(&mut self, ticket: WorkerTicket, reply: Reply<'_>) {
        let exchange = &mut self.exchanges[ticket.worker.index()];
        exchange.taken -= 1;
        exchange.replies.push(ticket, reply);
    }

    /// Takes on a command of another worker, which will be answered. `executor`: the member to which commands are relayed
    /// now. Returns false if the command must be refused: earlier ones have another executor and are not answered, so it
    /// might overtake them.
    pub(super) fn take_on(&mut self, from: WorkerId, executor: Option<NodeId>) -> bool {
        let exchange = &mut self.exchanges[from.index()];
        if exchange.taken == 0 {
            exchange.executor = executor;
        }
        exchange.taken += 1;
        exchange.executor == executor
    }

    /// Notes that another worker has answered a command of `bytes`.
    pub(super) fn on_answer(&mut self, from: WorkerId, bytes: u32) {
        let exchange = &mut self.exchanges[from.index()];
        exchange.in_flight -= 1;
        exchange.in_flight_bytes -= bytes as usize;
    }

    /// Tells another worker something.
    pub(super) fn tell(&mut self, to: WorkerId, message: Told) {
        self.exchanges[to.index()].other.push(Content::Rest(message));
    }

    /// Tells the clients of another worker something.
    pub(super) fn tell_clients(&mut self, to: WorkerId, message: ClientsMessage) {
        self.exchanges[to.index()].other.push(Content::Clients(message));
    }

    /// Tells all other workers something.
    pub(super) fn tell_all(&mut self, message: impl Fn() -> Told) {
        self.workers.others().for_each(|to| self.tell(to, message()));
    }

    /// Tells the other workers the load of this one, once per [`LOAD_MS`].
    pub(super) fn share_load(&mut self, load: Load, now_ms: Ms) {
        if self.workers.count() > 1 && now_ms >= self.shared_ms + LOAD_MS {
            self.shared_ms = now_ms;
            self.tell_all(|| Told::Load(load));
        }
    }

    pub(super) fn set_load(&mut self, from: WorkerId, load: Load) {
        self.exchanges[from.index()].load = load;
    }

    /// Returns the loads of the other workers, as they have told last.
    pub(super) fn loads(&self) -> impl Iterator<Item = Load> {
        self.workers.others().map(|other| self.exchanges[other.index()].load)
    }

    /// Passes a request to move a group's leadership to the worker of the group.
    pub(super) fn pass_move(&mut self, group: GroupId, words: &[&[u8]], client: ClientTicket) {
        let owner = self.workers.owner(group);
        self.exchanges[owner.index()].in_flight += 1;
        self.tell(owner, Told::Move(words.iter().map(|word| Bytes::copy_from_slice(word)).collect(), client));
    }

    pub(super) fn facts(&self) -> impl Iterator<Item = &WorkerFacts> {
        self.facts.iter()
    }

    pub(super) fn set_facts(&mut self, facts: Vec<WorkerFacts>) {
        self.facts = facts;
    }

    /// Tells the other workers which members the groups of this worker have, if that has changed.
    pub(super) fn tell_roster(&mut self, own: Option<&Roster>) {
        let Some(own) = own.filter(|own| self.workers.count() > 1 && self.told_roster.as_ref() != Some(own)) else {
            return;
        };
        self.told_roster = Some(own.clone());
        self.tell_all(|| Told::Members(Box::new(own.clone())));
    }

    pub(super) fn set_roster(&mut self, from: WorkerId, roster: Roster) {
        self.exchanges[from.index()].roster = Some(roster);
    }

    /// Returns the members of the groups of all workers: `own` are those of this worker's groups.
    pub(super) fn join_rosters(&self, own: Option<Roster>) -> Option<Roster> {
        let mut all = own;
        for other in self.exchanges.iter().filter_map(|exchange| exchange.roster.as_ref()) {
            match &mut all {
                None => all = Some(other.clone()),
                Some(all) => all.join_all(other),
            }
        }
        all
    }

    /// Returns true if all other workers have told the members of their groups. Of `groups` groups, a worker may have none.
    pub(super) fn knows_all_rosters(&self, groups: u32) -> bool {
        let mut others = self.workers.others().filter(|other| other.0 < groups);
        others.all(|other| self.exchanges[other.index()].roster.is_some())
    }

    /// Returns the number of passed commands that are not answered.
    pub(super) fn in_flight(&self) -> usize {
        self.exchanges.iter().map(|exchange| exchange.in_flight).sum()
    }

    /// Returns the bytes of passed commands that write and are not answered.
    pub(super) fn in_flight_bytes(&self) -> usize {
        self.exchanges.iter().map(|exchange| exchange.in_flight_bytes).sum()
    }

    /// Returns the bytes of those that were passed to the worker of this group.
    pub(super) fn in_flight_bytes_to(&self, group: GroupId) -> usize {
        self.exchanges[self.workers.owner(group).index()].in_flight_bytes
    }

    /// Takes everything that has been gathered, as outputs. Replies come first: nothing waits for commands.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Output> {
        let me = self.workers.me().index();
        let others = self.exchanges.iter_mut().enumerate().filter(move |(to, _)| *to != me);
        others.flat_map(|(to, exchange)| {
            exchange.take().map(move |content| Output::Tell(WorkerId(to as u32), WorkerMessage(content)))
        })
    }
}

impl Exchange {
    fn take(&mut self) -> impl Iterator<Item = Content> {
        let replies = (!self.replies.is_empty()).then(|| Content::Rest(Told::Replies(self.replies.take_turn())));
        let commands = (!self.commands.is_empty()).then(|| Content::Rest(Told::Commands(self.commands.take_turn())));
        replies.into_iter().chain(std::mem::take(&mut self.other)).chain(commands)
    }
}

/// The reply to a passed command: the ticket of the client, the bytes of the command, and the reply.
pub(super) type Answer<'a> = (ClientTicket, u32, Reply<'a>);
