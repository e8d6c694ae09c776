//! One Paxos group at one node: the rules of every role, joined by `next`, the lowest instance not known to be chosen.
//!
//! Calls come in, [`Effect`]s go out. The roles live in files of their own: `voting` (acceptor), `leading` and
//! `electing` (proposer), `learning` (learner), `serving` (the clients' side: commands and reads); `restoring`, `snapshot`
//! and `hollow` are about what is left of a past life. Nothing here reads a
//! clock, a socket or a disk; [`Clock`] and [`Surroundings`] come in as arguments.

mod comparing;
mod doubting;
mod electing;
mod handing;
mod hollow;
mod leading;
mod learning;
mod reforming;
mod restoring;
mod serving;
mod snapshot;
mod time;
mod voting;
mod withholding;

pub use comparing::StateDiffers;
pub use restoring::RestoreError;
pub use serving::{Answer, Applying, Own};
pub use snapshot::Snapshot;

use crate::acceptor::Acceptor;
use crate::jitter::Jitter;
use crate::members::Tally;
use crate::membership::{ChangeError, Membership};
use crate::origin::Origin;
use crate::reads::Reads;
use crate::tags::Tags;
use crate::{Ballot, Effect, GroupId, Instance, Message, NodeId, Value};
use electing::{Asking, Election};
use hollow::Hollow;
use leading::Leadership;
use learning::Learning;
use std::collections::VecDeque;
use std::sync::Arc;
use time::GroupTime;

/// The monotonic clock, which the caller reads. Cluster time, by which keys expire, is an argument of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// Milliseconds that only go forward: for time limits.
    pub mono_ms: u64,
}

/// What the node knows beyond the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Surroundings<'a> {
    /// The other nodes that this one reaches, with disks that answer. Without a majority it does not stand for election.
    pub reached: &'a [NodeId],
    /// Whether its disk answers in time: else it does not stand for election.
    pub disk: bool,
    /// Whether it may promise a ballot to itself now: else it stands as soon as it may.
    pub free: bool,
    /// Nodes that should lead rather than this one, and can: it does not stand where one of them votes.
    pub rather: &'a [NodeId],
}

/// What is fixed for the life of a group.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The group.
    pub id: GroupId,
    /// How many groups there are: decides who should lead this one.
    pub groups: u32,
    /// This node.
    pub me: NodeId,
    /// How often this node has been started.
    pub start: u64,
    /// The members that the group begins with.
    pub membership: Arc<Membership>,
    /// A value holds at most so many bytes of commands, or one larger command.
    pub batch_bytes_max: usize,
    /// Bytes of values asked for at a time while catching up.
    pub window_bytes: u32,
    /// Seeds the random delays.
    pub seed: u64,
}

/// The largest value of the last instance that is kept: every group keeps one, for as long as nothing follows.
const LAST_BYTES_MAX: usize = 64 << 10;

/// One group.
#[derive(Debug)]
pub struct Group {
    settings: Settings,
    /// The members at `next`.
    membership: Arc<Membership>,
    /// What became of the changes in values that are decided, and not applied yet.
    outcomes: VecDeque<Result<u64, ChangeError>>,
    /// The lowest instance not known to be chosen.
    next: Instance,
    /// A ballot under which the instance before `next` was chosen.
    last_ballot: Ballot,
    /// Its value, for a member that lacks only that; a large one is read from the log when it is needed.
    last_value: Option<Value>,
    /// The chain over all values below `next`.
    chain: u32,
    /// The lowest instance not applied, and the digest of the state before it.
    applied: Instance,
    digest: u64,
    /// Whether the values that it proposes carry that digest.
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
    /// What the log says beyond a state that is not here.
    hollow: Option<Hollow>,
    /// Members that told of another value than one that could follow here.
    doubted: Tally,
    origin: Origin,
    /// A ballot whose leader refused commands: they are not sent to it again before the next tick.
    refused: Option<Ballot>,
    tags: Tags,
    reads: Reads,
    jitter: Jitter,
    ballots_lost: u64,
}

#[derive(Debug)]
enum Role {
    Follower,
    /// Before phase 1: would a majority follow?
    Asking(Asking),
    /// In phase 1.
    Candidate {
        proposer: crate::proposer::Proposer,
        since_ms: u64,
        /// A member could not promise yet: when to ask again.
        again_ms: Option<u64>,
    },
    /// In phase 2, for as many instances as it lasts.
    Leader(Box<Leadership>),
}

impl Group {
    /// A group in which nothing has happened yet.
    #[must_use]
    pub fn new(settings: Settings) -> Group {
        let jitter = Jitter::new(settings.seed ^ (u64::from(settings.id.0) << 32) ^ u64::from(settings.me.0));
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
            hollow: None,
            doubted: Tally::default(),
            origin: Origin::new(settings.me, settings.start),
            refused: None,
            tags: Tags::default(),
            reads: Reads::default(),
            jitter,
            ballots_lost: 0,
            membership: settings.membership.clone(),
            outcomes: VecDeque::new(),
            settings,
        }
    }

    /// A message of another member, or a durable one of this node to itself.
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

    /// Time limits: elections, repetitions, catching up. Call it every [`TICK_MS`](crate::TICK_MS) or so.
    pub fn tick(&mut self, clock: Clock, around: Surroundings<'_>, effects: &mut Vec<Effect>) {
        self.refused = None;
        self.tick_learning(clock, effects);
        self.tick_election(clock, around, effects);
        self.tick_leading(clock, around, effects);
    }

    /// Whether the next ticks have nothing to do, as long as nothing else happens here: it leads and nothing is being voted
    /// on, or it follows a leader and lacks nothing.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        let settled = match &self.role {
            Role::Follower => self.leader.is_some(),
            Role::Leader(leadership) => leadership.is_idle(),
            Role::Asking(_) | Role::Candidate { .. } => false,
        };
        settled && self.learning.is_none() && self.hollow.is_none() && self.refused.is_none() && !self.has_waiting()
    }

    /// Ends a turn: proposes, forwards or announces what the turn's inputs left to do. `cluster_ms` is cluster time in unix
    /// milliseconds.
    pub fn flush(&mut self, clock: Clock, cluster_ms: u64, effects: &mut Vec<Effect>) {
        if matches!(self.role, Role::Leader(_)) {
            self.propose_queued(clock, cluster_ms, effects);
        } else {
            self.forward_commands(effects);
        }
    }

    /// The group.
    #[must_use]
    pub fn id(&self) -> GroupId {
        self.settings.id
    }

    /// The lowest instance not known to be chosen; everything below is applied.
    #[must_use]
    pub fn next(&self) -> Instance {
        self.next
    }

    /// The ballot that leads, as far as this node knows; its node is the leader.
    #[must_use]
    pub fn leader(&self) -> Option<Ballot> {
        self.leader
    }

    /// The ballot under which this node leads.
    #[must_use]
    pub fn leads(&self) -> Option<Ballot> {
        match &self.role {
            Role::Leader(leadership) => Some(leadership.ballot()),
            _ => None,
        }
    }

    /// How many ballots of this node's were lost to others.
    #[must_use]
    pub fn ballots_lost(&self) -> u64 {
        self.ballots_lost
    }

    /// The highest ballot promised.
    #[must_use]
    pub fn promised(&self) -> Ballot {
        self.acceptor.promised()
    }

    /// The chain over the values of all instances below `next`: equal on all members that are at the same `next`.
    #[must_use]
    pub fn chain(&self) -> u32 {
        self.chain
    }

    /// The member that should lead this group.
    #[must_use]
    pub fn preferred(&self) -> NodeId {
        self.membership.voters().preferred(self.settings.id.0, self.settings.groups)
    }

    /// `value` is chosen at `next`: it goes to the state machine, and the group to the following instance. What it changes
    /// of the members counts from there on.
    fn decide(&mut self, ballot: Ballot, value: Value, clock: Clock, effects: &mut Vec<Effect>) {
        let (group, instance) = (self.settings.id, self.next);
        assert!(value.chain() == self.chain, "group {group} differs from the majority before instance {instance}");
        self.chain = value.next_chain();
        self.time.on_value(value.time_ms(), clock.mono_ms);
        self.acceptor.settle();
        self.doubted = Tally::default();
        self.next = instance.following();
        self.last_ballot = ballot;
        self.last_value = Some(value.clone()).filter(|value| value.bytes().len() <= LAST_BYTES_MAX);
        self.fill();
        let changed = self.change_members(&value);
        effects.push(Effect::Apply { instance, value });
        if changed {
            effects.push(Effect::Membership);
        }
    }

    /// Somebody leads under `ballot`, or nobody that this node knows of.
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
