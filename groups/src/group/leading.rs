//! The leader's side: it proposes one instance at a time, in order. Its own vote is a durable message to itself.

use super::transfer::Transfer;
use super::{Clock, ElectionContext, Group, Role};
use crate::effect::Record;
use crate::members::Tally;
use crate::message::{Accept, Behind, Chosen, Diverged, Forward, NotLeader, Reject, Vote};
use crate::proposer::Proposer;
use crate::queue::Queue;
use crate::value::DIGEST_VERSION;
use crate::{Ballot, Effect, Message, Ms, NodeId, Value};

/// The leader repeats an Accept that has no majority yet after this time, plus one millisecond for each
/// [`REPEAT_BYTES_PER_MS`] of its value. An open connection loses nothing, so the timer serves members that dropped the
/// value silently.
const REPEAT_MS: Ms = Ms(1_000);
const REPEAT_BYTES_PER_MS: u64 = 1 << 10;

/// The state of a leader under one ballot, which lasts for many instances.
#[derive(Debug)]
pub(super) struct Leadership {
    proposer: Proposer,
    queue: Queue,
    /// Whether an instance was chosen under this ballot: only then does the leader know all that was chosen before.
    pub(super) established: bool,
    /// Whether a value is due even if no command waits.
    overdue: bool,
    /// Members that may not know that the last instance is chosen.
    unannounced: Tally,
    /// Nodes with a command in the instance voted on, or the one just chosen.
    waiting: Vec<NodeId>,
    diverged: Tally,
    proposed_ms: Ms,
    pub(super) transfer: Option<Transfer>,
    /// Whether a leader transfer gave this node the group for good. Such a group does not go back to the preferred
    /// leader.
    pub(super) stays: bool,
}

impl Leadership {
    pub(super) fn ballot(&self) -> Ballot {
        self.proposer.ballot()
    }

    /// Returns true if no value is in flight or due, and no leader transfer is in progress.
    pub(super) fn is_idle(&self) -> bool {
        self.proposer.is_prepared() && self.queue.is_empty() && !self.overdue && self.transfer.is_none()
    }
}

impl Group {
    /// Takes the leadership after a majority of promises. The next flush proposes the value that the promises bind this
    /// node to, or the waiting commands.
    pub(super) fn lead(&mut self, proposer: Proposer, clock: Clock, effects: &mut Vec<Effect>) {
        let leader = proposer.ballot();
        self.election.reset();
        self.set_leader(Some(leader), clock);
        self.role = Role::Leader(Box::new(Leadership {
            proposer,
            queue: Queue::new(self.settings.batch_bytes_max),
            established: false,
            overdue: true,
            unannounced: Tally::default(),
            waiting: Vec::new(),
            diverged: Tally::default(),
            proposed_ms: Ms(0),
            transfer: None,
            stays: self.election.stays.take() == Some(leader),
        }));
        effects.push(Effect::Leading(true));
    }

    /// Returns the approximate length, in bytes, of the value that the next [`Group::flush`] proposes; `None` if it
    /// proposes none.
    #[must_use]
    pub fn next_value_bytes(&self) -> Option<usize> {
        let Role::Leader(leadership) = &self.role else { return None };
        if !leadership.proposer.is_prepared() {
            return None;
        }
        if let Some(bound) = leadership.proposer.bound() {
            return Some(bound.bytes().len());
        }
        // This node's own commands join the queue only when the value is made.
        let own = self.origin.next_bytes(self.settings.batch_bytes_max);
        let bytes = leadership.queue.next_bytes(own);
        (bytes > 0 || leadership.overdue).then_some(bytes)
    }

    /// Proposes the next value if none is in flight and one is due. If no value is due, or a leader transfer holds it
    /// back, tells the waiting nodes that the last instance is chosen. Sends nothing while a value is in flight.
    pub(super) fn propose_queued(&mut self, clock: Clock, cluster_ms: Ms, effects: &mut Vec<Effect>) {
        let Role::Leader(leadership) = &mut self.role else { return };
        if self.origin.has_unsent() {
            let (after, commands) = self.origin.send(usize::MAX);
            let taken = leadership.queue.extend(self.settings.me, after, commands);
            assert!(taken, "a leader takes its own commands in order");
        }
        if !leadership.proposer.is_prepared() {
            return;
        }
        if let Some(bound) = leadership.proposer.bound() {
            let value = bound.clone();
            return self.propose(value, clock, effects);
        }
        if self.holds_back(clock, effects) {
            return self.announce_to_waiting(effects);
        }
        let Role::Leader(leadership) = &mut self.role else { return };
        if leadership.queue.is_empty() && !leadership.overdue {
            return self.announce_to_waiting(effects);
        }
        let needs_digest = leadership.queue.next_version() >= DIGEST_VERSION;
        let time_ms = self.time_at(clock, cluster_ms);
        let digest = self.told_digest(needs_digest);
        let Role::Leader(leadership) = &mut self.role else { return };
        let value = leadership.queue.seal(self.chain, time_ms, digest, &mut leadership.waiting);
        self.propose(value, clock, effects);
    }

    fn propose(&mut self, value: Value, clock: Clock, effects: &mut Vec<Effect>) {
        let (instance, chosen, me) = (self.next, self.last_ballot, self.settings.me);
        let Role::Leader(leadership) = &mut self.role else { return };
        let ballot = leadership.proposer.ballot();
        leadership.proposer.propose(value.clone());
        leadership.overdue = false;
        leadership.unannounced = Tally::default();
        leadership.diverged = Tally::default();
        leadership.proposed_ms = clock.mono_ms;
        let voted = self.acceptor.accept(ballot, &value);
        assert!(voted.is_ok(), "a leader that promised a higher ballot leads no longer");
        for to in self.others() {
            let accept = Accept { ballot, instance, chosen, value: value.clone() };
            effects.push(Effect::Send { to, message: Message::Accept(accept) });
        }
        effects.push(Effect::Persist(Record::Accepted { instance, ballot, chosen, value }));
        effects.push(Effect::SendDurable { to: me, message: Message::Vote(Vote { ballot, instance }) });
    }

    pub(super) fn handle_vote(&mut self, from: NodeId, vote: Vote, clock: Clock, effects: &mut Vec<Effect>) {
        let Role::Leader(leadership) = &mut self.role else { return };
        if vote.ballot != leadership.proposer.ballot() || vote.instance != self.next {
            return;
        }
        if !leadership.proposer.on_vote(from, self.membership.voters()) {
            return;
        }
        let Some(value) = leadership.proposer.proposed().cloned() else { return };
        leadership.proposer.follow();
        let is_new = !std::mem::replace(&mut leadership.established, true);
        let before = self.membership.clone();
        self.decide(vote.ballot, value, clock, effects);
        if self.membership.voters() != before.voters() {
            return self.on_voters_changed(&before, clock, effects);
        }
        let (Role::Leader(leadership), everyone) = (&mut self.role, self.membership.everyone()) else { return };
        leadership.unannounced = Tally::all(everyone);
        leadership.unannounced.remove(self.settings.me, everyone);
        if is_new {
            // Reads at any member may be waiting for a leader that knows everything that was chosen.
            self.others().collect::<Vec<_>>().into_iter().for_each(|to| self.announce(to, effects));
        }
    }

    /// Tells `to` now that the last instance is chosen, if `to` may not know.
    pub fn announce(&mut self, to: NodeId, effects: &mut Vec<Effect>) {
        let (instance, ballot) = (self.next.preceding(), self.last_ballot);
        let Role::Leader(leadership) = &mut self.role else { return };
        if leadership.unannounced.contains(to, self.membership.everyone()) {
            leadership.unannounced.remove(to, self.membership.everyone());
            effects.push(Effect::Send { to, message: Message::Chosen(Chosen { instance, ballot }) });
        }
    }

    /// Makes the next flush propose a value even if no command waits, to advance the group's time.
    pub fn propose_time(&mut self) {
        if let Role::Leader(leadership) = &mut self.role {
            leadership.overdue = true;
        }
    }

    /// Ends a leader transfer to `from`, because it lacks values. The member learns them through
    /// [`Fetch`](crate::message::Fetch); its last Fetch brings the Accept again.
    pub(super) fn handle_behind(&mut self, from: NodeId, behind: Behind) {
        if let Role::Leader(leadership) = &mut self.role
            && leadership.ballot() == behind.ballot
        {
            leadership.transfer = leadership.transfer.filter(|transfer| transfer.to != from);
        }
    }

    pub(super) fn handle_diverged(&mut self, from: NodeId, diverged: Diverged) {
        let (group, instance) = (self.settings.id, self.next);
        let Role::Leader(leadership) = &mut self.role else { return };
        if diverged.ballot == leadership.proposer.ballot() && diverged.instance == instance {
            leadership.diverged.add(from, self.membership.voters());
            let majority = leadership.diverged.is_quorum(self.membership.voters());
            assert!(!majority, "group {group} differs from the majority before instance {instance}");
        }
    }

    /// Gives the ballot up if a higher promise stands in the way. The next attempt, under a ballot above the promised
    /// one, follows soon, unless the owner of the promised ballot leads by then.
    pub(super) fn handle_reject(&mut self, reject: Reject, clock: Clock, effects: &mut Vec<Effect>) {
        self.seen = self.seen.max(reject.promised);
        if self.own_ballot() == Some(reject.ballot) && reject.promised > reject.ballot {
            self.ballots_lost += 1;
            self.step_down(clock, effects);
            self.try_again_soon(clock);
        } else if self.own_ballot() == Some(reject.ballot) {
            self.try_promise_again(clock);
        }
    }

    pub(super) fn handle_forward(&mut self, from: NodeId, forward: &Forward, effects: &mut Vec<Effect>) {
        if let Role::Leader(leadership) = &mut self.role
            && leadership.proposer.ballot() == forward.ballot
            && leadership.queue.extend(from, forward.after, &forward.commands)
        {
            return;
        }
        let message = Message::NotLeader(NotLeader { ballot: forward.ballot });
        effects.push(Effect::Send { to: from, message });
    }

    /// Gives the leadership up, because the disk is late or full: others with a better disk go on.
    pub fn resign(&mut self, clock: Clock, effects: &mut Vec<Effect>) {
        if matches!(self.role, Role::Leader(_)) {
            self.step_down(clock, effects);
        }
    }

    /// Ends this node's leadership, campaign or pre-vote.
    pub(super) fn step_down(&mut self, clock: Clock, effects: &mut Vec<Effect>) {
        let led = matches!(self.role, Role::Leader(_));
        self.role = Role::Follower;
        if self.leader.is_some_and(|leader| leader.node == self.settings.me) {
            self.set_leader(None, clock);
        }
        if led {
            effects.push(Effect::Leading(false));
        }
    }

    /// Returns the ballot under which this node campaigns or leads.
    pub(super) fn own_ballot(&self) -> Option<Ballot> {
        match &self.role {
            Role::Candidate { proposer, .. } => Some(proposer.ballot()),
            Role::Leader(leadership) => Some(leadership.proposer.ballot()),
            Role::Follower | Role::PreCandidate(_) => None,
        }
    }

    /// Handles a new connection to `peer`: sends again everything that the old one may have lost.
    pub fn on_connected(&mut self, peer: NodeId, effects: &mut Vec<Effect>) {
        self.repeat_prepare(peer, effects);
        self.repeat_accept(peer, effects);
        if let Role::Leader(leadership) = &mut self.role
            && self.next > crate::Instance::FIRST
        {
            leadership.unannounced.add(peer, self.membership.everyone());
        }
        if self.leader.is_some_and(|leader| leader.node == peer) {
            self.origin.unsend();
        }
        self.reads.ask_again();
        self.retry_learning(peer);
    }

    /// Handles the end of the connection to `peer`: the next tick asks another member for the values asked of `peer`.
    pub fn on_disconnected(&mut self, peer: NodeId) {
        self.election.forget(peer);
        self.retry_learning(peer);
    }

    /// Sends the Accept in flight to `to`, unless `to` has voted. Returns false if nothing was sent.
    pub(super) fn repeat_accept(&mut self, to: NodeId, effects: &mut Vec<Effect>) -> bool {
        let (instance, chosen) = (self.next, self.last_ballot);
        let Role::Leader(leadership) = &self.role else { return false };
        let Some(value) = leadership.proposer.proposed().cloned() else { return false };
        if leadership.proposer.has_vote(to, self.membership.voters()) {
            return false;
        }
        let accept = Accept { ballot: leadership.proposer.ballot(), instance, chosen, value };
        effects.push(Effect::Send { to, message: Message::Accept(accept) });
        true
    }

    pub(super) fn tick_leading(&mut self, clock: Clock, context: ElectionContext<'_>, effects: &mut Vec<Effect>) {
        if matches!(self.role, Role::Leader(_)) && !self.reaches_quorum(context) {
            // Without a quorum nothing more can be chosen here. A member that reaches both this node and a majority
            // must not follow this node: it would keep the others from electing a leader.
            return self.step_down(clock, effects);
        }
        let Role::Leader(leadership) = &mut self.role else { return };
        let Some(value) = leadership.proposer.proposed() else { return };
        let patience_ms = REPEAT_MS + Ms(value.bytes().len() as u64 / REPEAT_BYTES_PER_MS);
        if clock.mono_ms < leadership.proposed_ms + patience_ms {
            return;
        }
        leadership.proposed_ms = clock.mono_ms;
        for to in self.others() {
            self.repeat_accept(to, effects);
        }
    }

    fn announce_to_waiting(&mut self, effects: &mut Vec<Effect>) {
        let Role::Leader(leadership) = &mut self.role else { return };
        for to in std::mem::take(&mut leadership.waiting) {
            self.announce(to, effects);
        }
    }
}
