//! One Paxos group at one node: the rules of every role, joined by `next`, the lowest instance not known to be chosen.
//!
//! Calls come in, [`Effect`]s go out. The roles live in files of their own: `voting` (acceptor), `leading` and
//! `electing` (proposer), `learning` (learner), `requests` (the clients' commands and reads). `restoring`, `snapshot`
//! and `recovering` deal with the state that an earlier run left. Nothing here reads a clock, a socket or a disk;
//! [`Clock`] and [`ElectionContext`] come in as arguments.

mod divergence;
mod electing;
mod leading;
mod learning;
mod lease_guard;
mod plausibility;
mod reconfiguration;
mod recovering;
mod requests;
mod restoring;
mod snapshot;
mod time;
mod transfer;
mod voting;

pub use divergence::StateDiffers;
pub use requests::{Applying, LeadershipAnswer, LocalOutcome};
pub use restoring::RestoreError;
pub use snapshot::Snapshot;

use crate::acceptor::Acceptor;
use crate::dedup::DedupTable;
use crate::effect::Record;
use crate::jitter::SplitMix64;
use crate::members::Tally;
use crate::membership::{ChangeError, Membership};
use crate::origin::OriginQueue;
use crate::reads::ReadQueue;
use crate::{Ballot, CommandId, Effect, GroupId, Instance, Message, Ms, NodeId, Value};
use electing::{Election, PreCandidate};
use leading::Leadership;
use learning::Learning;
use recovering::Recovering;
use std::collections::VecDeque;
use std::sync::Arc;
use time::GroupTime;

/// The monotonic clock, read by the caller. Cluster time, by which keys expire, is a separate argument.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// Milliseconds that never go back, for time limits.
    pub mono_ms: Ms,
}

/// The election context: what the node knows beyond the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElectionContext<'a> {
    /// The other nodes that this node reaches and whose disks answer. Without a majority this node does not campaign.
    pub reached: &'a [NodeId],
    /// Whether this node's disk lets it lead. With a disk that is late or full the node does not campaign.
    pub disk: bool,
    /// Whether this node may promise a ballot to itself now. Otherwise it campaigns as soon as it may.
    pub may_self_promise: bool,
    /// Nodes that should and can lead instead of this one. This node does not campaign in a group where one of them
    /// votes.
    pub preferred_leaders: &'a [NodeId],
}

/// The settings that are fixed for the life of a group.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The group.
    pub id: GroupId,
    /// The number of groups. It decides which member is the preferred leader of this one.
    pub groups: u32,
    /// This node.
    pub me: NodeId,
    /// The start number: how often this node has been started.
    pub start: u64,
    /// The members that the group begins with.
    pub membership: Arc<Membership>,
    /// Maximum bytes of commands in a value, unless the value is one larger command.
    pub batch_bytes_max: usize,
    /// Maximum bytes of values that one Fetch asks for while this member catches up.
    pub window_bytes: u32,
    /// The seed of the random delays.
    pub seed: u64,
}

/// Maximum bytes of the last instance's value that is kept in memory. Every group keeps one until the next is chosen.
const LAST_BYTES_MAX: usize = 64 << 10;

/// One group.
#[derive(Debug)]
pub struct Group {
    settings: Settings,
    /// The members at `next`.
    membership: Arc<Membership>,
    /// The outcomes of the membership changes in values that are decided and not applied yet.
    outcomes: VecDeque<Result<u64, ChangeError>>,
    /// The lowest instance not known to be chosen.
    next: Instance,
    /// A ballot under which the instance before `next` was chosen.
    last_ballot: Ballot,
    /// The value of that instance, for a member that lacks only that one. A large value is read from the log when it is
    /// needed.
    last_value: Option<Value>,
    /// The chain over all values below `next`.
    chain: u32,
    /// The lowest instance not applied, and the digest of the state before it.
    applied: Instance,
    digest: u64,
    /// Whether the values that this node proposes carry that digest.
    tells_digest: bool,
    time: GroupTime,
    acceptor: Acceptor,
    role: Role,
    /// The ballot that leads, as far as this node knows.
    leader: Option<Ballot>,
    /// The highest ballot seen anywhere.
    seen: Ballot,
    election: Election,
    learning: Option<Learning>,
    /// While the group is recovering: the position and the vote in the log, which lie beyond the missing state.
    recovering: Option<Recovering>,
    /// Members that sent chosen values whose chain differs from the chain over the values chosen here.
    diverged: Tally,
    origin: OriginQueue,
    /// The ballot whose leader refused commands. They are not sent to that leader again before the next tick.
    refused: Option<Ballot>,
    dedup: DedupTable,
    reads: ReadQueue,
    jitter: SplitMix64,
    ballots_lost: u64,
}

#[derive(Debug)]
enum Role {
    Follower,
    /// In a pre-vote, before phase 1.
    PreCandidate(PreCandidate),
    /// In phase 1.
    Candidate {
        proposer: crate::proposer::Proposer,
        /// The time at which phase 1 began, or at which the last part of a promise arrived.
        since_ms: Ms,
        /// The time at which to repeat the pre-vote question to the other voters.
        remind_ms: Ms,
        /// The time at which to repeat the Prepare, if a member could not promise yet.
        again_ms: Option<Ms>,
    },
    /// In phase 2, for all instances until the leadership ends.
    Leader(Box<Leadership>),
}

impl Group {
    /// Creates a group in which nothing has happened yet.
    #[must_use]
    pub fn new(settings: Settings) -> Group {
        let jitter = SplitMix64::new(settings.seed ^ (u64::from(settings.id.0) << 32) ^ u64::from(settings.me.0));
        Group {
            next: Instance::FIRST,
            last_ballot: Ballot::ZERO,
            last_value: None,
            chain: 0,
            applied: Instance::FIRST,
            digest: 0,
            tells_digest: false,
            time: GroupTime::default(),
            acceptor: Acceptor::default(),
            role: Role::Follower,
            leader: None,
            seen: Ballot::ZERO,
            election: Election::default(),
            learning: None,
            recovering: None,
            diverged: Tally::default(),
            origin: OriginQueue::new(settings.me, settings.start),
            refused: None,
            dedup: DedupTable::default(),
            reads: ReadQueue::default(),
            jitter,
            ballots_lost: 0,
            membership: settings.membership.clone(),
            outcomes: VecDeque::new(),
            settings,
        }
    }

    /// Handles a message of another member, or a message of this node to itself that had to wait until records were
    /// durable.
    pub fn handle(&mut self, from: NodeId, message: Message, clock: Clock, effects: &mut Vec<Effect>) {
        match message {
            Message::Prepare(prepare) => self.handle_prepare(from, prepare, clock, effects),
            Message::Promise(promise) => self.handle_promise(from, promise, clock, effects),
            Message::Reject(reject) => self.handle_reject(reject, clock, effects),
            Message::Ahead(ahead) => self.handle_ahead(from, ahead, clock, effects),
            Message::Accept(accept) => self.handle_accept(from, accept, clock, effects),
            Message::Vote(vote) => self.handle_vote(from, vote, clock, effects),
            Message::Behind(behind) => self.handle_behind(from, behind),
            Message::Diverged(diverged) => self.handle_diverged(from, diverged),
            Message::Chosen(chosen) => self.handle_chosen(from, chosen, clock, effects),
            Message::Fetch(fetch) => self.handle_fetch(from, fetch, effects),
            Message::Range(range) => self.handle_range(from, range, clock, effects),
            Message::Forward(forward) => self.handle_forward(from, &forward, effects),
            Message::NotLeader(not) => self.handle_not_leader(not),
            Message::PreVote(question) => self.handle_pre_vote(from, question, clock, effects),
            Message::PreVoted(answer) => self.handle_pre_voted(from, answer, clock, effects),
            Message::Handover(handover) => self.handle_handover(from, handover, clock, effects),
        }
    }

    /// Checks the time limits: elections, repetitions, catching up. Call it about every [`TICK_MS`](crate::TICK_MS).
    pub fn tick(&mut self, clock: Clock, context: ElectionContext<'_>, effects: &mut Vec<Effect>) {
        self.refused = None;
        self.tick_learning(clock, effects);
        self.tick_election(clock, context, effects);
        self.tick_leading(clock, context, effects);
    }

    /// Returns true if the next ticks have nothing to do, as long as nothing else happens here. Then the node leads and
    /// no value is in flight, or it follows a leader and lacks nothing.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        let settled = match &self.role {
            Role::Follower => self.leader.is_some(),
            Role::Leader(leadership) => leadership.is_idle(),
            Role::PreCandidate(_) | Role::Candidate { .. } => false,
        };
        settled && self.learning.is_none() && self.recovering.is_none() && self.refused.is_none() && !self.has_waiting()
    }

    /// Ends a turn: proposes, forwards or announces whatever the turn's inputs require. `cluster_ms` is cluster time in
    /// unix milliseconds.
    pub fn flush(&mut self, clock: Clock, cluster_ms: Ms, effects: &mut Vec<Effect>) {
        if matches!(self.role, Role::Leader(_)) {
            self.propose_queued(clock, cluster_ms, effects);
        } else {
            self.forward_commands(effects);
        }
    }

    /// Returns the group's index.
    #[must_use]
    pub fn id(&self) -> GroupId {
        self.settings.id
    }

    /// Returns the lowest instance not known to be chosen. All below are applied, or their [`Effect::Apply`] is in
    /// progress.
    #[must_use]
    pub fn next(&self) -> Instance {
        self.next
    }

    /// Returns the ballot that leads, as far as this node knows; its node is the leader.
    #[must_use]
    pub fn leader(&self) -> Option<Ballot> {
        self.leader
    }

    /// Returns the ballot under which this node leads, if it does.
    #[must_use]
    pub fn leads(&self) -> Option<Ballot> {
        match &self.role {
            Role::Leader(leadership) => Some(leadership.ballot()),
            _ => None,
        }
    }

    /// Returns the number of this node's ballots that were lost to others or timed out in phase 1.
    #[must_use]
    pub fn ballots_lost(&self) -> u64 {
        self.ballots_lost
    }

    /// Returns the highest promised ballot.
    #[must_use]
    pub fn promised(&self) -> Ballot {
        self.acceptor.promised()
    }

    /// Returns the chain over the values of all instances below `next`. It is equal on all members at the same `next`.
    #[must_use]
    pub fn chain(&self) -> u32 {
        self.chain
    }

    /// Returns the preferred leader of this group.
    #[must_use]
    pub fn preferred(&self) -> NodeId {
        self.membership.voters().preferred(self.settings.id.0, self.settings.groups)
    }

    /// Returns the last applied command of each origin.
    #[must_use]
    pub fn last_commands(&self) -> &[CommandId] {
        self.dedup.all()
    }

    /// Takes `value` as chosen at `next`: hands it to the state machine, and moves the group to the following instance.
    /// A membership change in the value takes effect from that instance on.
    fn decide(&mut self, ballot: Ballot, value: Value, clock: Clock, effects: &mut Vec<Effect>) {
        let (group, instance) = (self.settings.id, self.next);
        assert!(value.chain() == self.chain, "group {group} differs from the majority before instance {instance}");
        self.chain = value.next_chain();
        self.time.on_value(value.time_ms(), clock.mono_ms);
        self.acceptor.begin_instance();
        self.diverged = Tally::default();
        self.next = instance.following();
        self.last_ballot = ballot;
        self.last_value = Some(value.clone()).filter(|value| value.bytes().len() <= LAST_BYTES_MAX);
        self.fill();
        let changed = self.change_members(&value);
        effects.push(Effect::Apply { instance, value });
        if changed {
            // After a crash this member must still know that the change was chosen. Otherwise it would have to ask the
            // members before the change, and a removed one may be gone by then.
            let (next, promised) = (self.next, self.acceptor.promised());
            effects.push(Effect::Persist(Record::Position { next, promised, chosen: ballot }));
            effects.push(Effect::Membership);
        }
    }

    /// Sets the ballot that leads; `None` if this node knows of none.
    fn set_leader(&mut self, leader: Option<Ballot>, clock: Clock) {
        if self.leader == leader {
            return;
        }
        self.leader = leader;
        self.origin.unsend();
        self.reads.ask_again();
        if leader.is_none() {
            self.await_turn(clock);
        }
    }
}
