//! Elections: at its turn by rank, this node starts a pre-vote, then a campaign (phase 1).
//!
//! Failure detection is not here. The node tells each group which node claims it ([`Group::on_claim`]), and which node
//! no longer does ([`Group::on_no_claim`]).

use super::{Clock, ElectionContext, Group, Role};
use crate::effect::Record;
use crate::members::Tally;
use crate::message::{Behind, Handover, PreVote, PreVoted, Prepare, Promise};
use crate::proposer::Proposer;
use crate::{Ballot, Effect, Instance, Message, Ms, NodeId};

/// Time from the loss of the leader until the first candidate starts a pre-vote. Claims can arrive meanwhile.
const SETTLE_MS: Ms = Ms(30);
/// Additional wait per rank after the preferred leader. Every member adds a random time below [`SPREAD_MS`].
const RANK_MS: Ms = Ms(150);
const SPREAD_MS: Ms = Ms(30);
/// Wait per rank after a lease grant, or after yielding to a candidate. It is shorter than [`RANK_MS`] because all
/// members have already waited by then, and may campaign from the same moment on.
const RANK_SOON_MS: Ms = Ms(50);
/// A pre-vote without a majority after this time has failed.
const PRE_VOTE_MS: Ms = Ms(500);
/// Wait before a candidate repeats its Prepare, if a member could not promise for the time being.
const AGAIN_MS: Ms = Ms(50);
/// A phase 1 fails if it has no majority and no part of a promise arrives for this long. The time doubles with each
/// failure, at most [`PREPARING_DOUBLINGS_MAX`] times, because all disks may be slow.
const PREPARING_MS: Ms = Ms(2_000);
const PREPARING_DOUBLINGS_MAX: u32 = 3;
/// After a granted pre-vote or a promise the member waits this long for the candidate to lead, or to ask again.
/// Meanwhile it does not campaign, and grants no pre-vote to others. The candidate needs this time to sync its ballot,
/// and its claim as the leader needs time to arrive.
const YIELD_MS: Ms = Ms(300);
/// Interval at which a candidate that may still campaign repeats its pre-vote question, so that the others go on
/// yielding to it. On slow disks, its Prepare and their promises take longer than [`YIELD_MS`].
const REMIND_MS: Ms = Ms(100);
/// Back-off after a failure: this time, plus a random time below it. The random time doubles with each failure, up to
/// [`BACK_OFF_DOUBLINGS_MAX`] times.
const BACK_OFF_MS: Ms = Ms(50);
const BACK_OFF_DOUBLINGS_MAX: u32 = 5;

/// The time of the next campaign, and its conditions.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Election {
    at_ms: Ms,
    failures: u32,
    questions: u64,
    /// The candidate to which this node last promised a ballot or granted a pre-vote, and the time until which this
    /// node yields to it.
    yielding: Option<(NodeId, Ms)>,
    /// The ballot of a campaign that a leader transfer asked for, if this node should keep the group after it.
    pub(super) stays: Option<Ballot>,
}

/// A pre-vote in progress.
#[derive(Clone, Copy, Debug)]
pub(super) struct PreCandidate {
    number: u64,
    granted: Tally,
    since_ms: Ms,
}

impl Election {
    /// Resets the failures and the yielding, because a leader is known. The next election then starts from scratch.
    pub(super) fn reset(&mut self) {
        (self.failures, self.yielding) = (0, None);
    }

    /// Yields for [`YIELD_MS`] to `candidate`, to which this node has promised a ballot or granted a pre-vote.
    pub(super) fn yield_to(&mut self, candidate: NodeId, clock: Clock) {
        self.yielding = Some((candidate, clock.mono_ms + YIELD_MS));
    }

    /// Ends the yielding to a candidate that is gone.
    pub(super) fn forget(&mut self, candidate: NodeId) {
        self.yielding = self.yielding.map(|(node, until_ms)| (node, if node == candidate { Ms(0) } else { until_ms }));
    }

    fn yields(&self, clock: Clock) -> Option<NodeId> {
        self.yielding.filter(|(_, until_ms)| clock.mono_ms < *until_ms).map(|(node, _)| node)
    }
}

impl Group {
    /// Waits for this node's turn by rank, because the group has no leader.
    pub(super) fn await_turn(&mut self, clock: Clock) {
        self.election.at_ms = clock.mono_ms + SETTLE_MS + RANK_MS * self.rank() + self.jitter.below_ms(SPREAD_MS);
    }

    /// Returns the number of voters that should lead rather than this node.
    fn rank(&self) -> u64 {
        let members = self.membership.voters();
        let place = |node| members.position(node).unwrap_or(0);
        let count = members.ids().len();
        ((place(self.settings.me) + count - place(self.preferred())) % count) as u64
    }

    /// Schedules the next attempt soon, because the last one failed for a reason that passes soon.
    pub(super) fn try_again_soon(&mut self, clock: Clock) {
        self.election.at_ms = clock.mono_ms + Ms(1) + self.jitter.below_ms(SPREAD_MS);
    }

    fn back_off(&mut self, clock: Clock, effects: &mut Vec<Effect>) {
        self.step_down(clock, effects);
        let doublings = self.election.failures.min(BACK_OFF_DOUBLINGS_MAX);
        self.election.failures += 1;
        self.election.at_ms = clock.mono_ms + BACK_OFF_MS + self.jitter.below_ms(BACK_OFF_MS * (1 << doublings));
    }

    pub(super) fn tick_election(&mut self, clock: Clock, context: ElectionContext<'_>, effects: &mut Vec<Effect>) {
        self.end_yielding(clock);
        match &self.role {
            Role::Follower if self.leader.is_some() || self.recovering.is_some() => {}
            // The wait by rank starts when this node can campaign. Otherwise all would campaign at once when they reach
            // each other.
            Role::Follower if !self.may_campaign(context) => self.await_turn(clock),
            Role::Follower if !context.may_self_promise => {
                let soon_ms = clock.mono_ms + RANK_SOON_MS * self.rank() + self.jitter.below_ms(SPREAD_MS);
                self.election.at_ms = self.election.at_ms.max(soon_ms);
            }
            Role::Follower => {
                let is_due = clock.mono_ms >= self.election.at_ms && self.election.yielding.is_none();
                if is_due && !self.awaits_values() {
                    self.begin_pre_vote(clock, effects);
                }
            }
            Role::PreCandidate(pre_vote) if clock.mono_ms >= pre_vote.since_ms + PRE_VOTE_MS => {
                self.back_off(clock, effects);
            }
            Role::Candidate { since_ms, .. } if clock.mono_ms >= *since_ms + self.preparing_ms() => {
                self.ballots_lost += 1;
                self.back_off(clock, effects);
            }
            Role::Candidate { again_ms: Some(again_ms), .. } if clock.mono_ms >= *again_ms => {
                self.prepare_again(effects);
            }
            Role::Candidate { remind_ms, .. } if clock.mono_ms >= *remind_ms && self.may_campaign(context) => {
                self.remind(clock, effects);
            }
            Role::PreCandidate(_) | Role::Candidate { .. } | Role::Leader(_) => {}
        }
    }

    /// Ends the yielding when its time is over. All who yielded to the same candidate then take turns by rank.
    fn end_yielding(&mut self, clock: Clock) {
        if self.election.yielding.is_none() || self.election.yields(clock).is_some() {
            return;
        }
        self.election.yielding = None;
        let spread_ms = SPREAD_MS * (1 << self.election.failures.min(BACK_OFF_DOUBLINGS_MAX));
        let turn_ms = clock.mono_ms + RANK_SOON_MS * self.rank() + self.jitter.below_ms(spread_ms);
        self.election.at_ms = self.election.at_ms.max(turn_ms);
    }

    fn preparing_ms(&self) -> Ms {
        PREPARING_MS * (1 << self.election.failures.min(PREPARING_DOUBLINGS_MAX))
    }

    fn may_campaign(&self, context: ElectionContext<'_>) -> bool {
        let is_better = |id: &NodeId| self.membership.voters().contains(*id);
        context.disk
            && self.is_voter()
            && self.reaches_quorum(context)
            && !context.preferred_leaders.iter().any(is_better)
    }

    /// Schedules a repetition of the Prepare, because a member refused it during a lease grant. The grant has ended by
    /// now, or ends soon.
    pub(super) fn try_promise_again(&mut self, clock: Clock) {
        if let Role::Candidate { again_ms, .. } = &mut self.role {
            *again_ms = Some(clock.mono_ms + AGAIN_MS);
        }
    }

    fn prepare_again(&mut self, effects: &mut Vec<Effect>) {
        self.others().for_each(|to| self.repeat_prepare(to, effects));
        if let Role::Candidate { again_ms, .. } = &mut self.role {
            *again_ms = None;
        }
    }

    /// Asks the other voters for a pre-vote.
    fn begin_pre_vote(&mut self, clock: Clock, effects: &mut Vec<Effect>) {
        self.election.questions += 1;
        let number = self.election.questions;
        let mut granted = Tally::default();
        granted.add(self.settings.me, self.membership.voters());
        if granted.is_quorum(self.membership.voters()) {
            return self.campaign(clock, effects);
        }
        self.role = Role::PreCandidate(PreCandidate { number, granted, since_ms: clock.mono_ms });
        self.send_pre_vote(effects);
    }

    /// Sends the question of this pre-vote to the other voters.
    fn send_pre_vote(&self, effects: &mut Vec<Effect>) {
        let question = PreVote { number: self.election.questions, next: self.next };
        effects.extend(self.other_voters().map(|to| Effect::Send { to, message: Message::PreVote(question) }));
    }

    /// Repeats the pre-vote question of a candidate, so that the others go on yielding to it. The answers are ignored.
    fn remind(&mut self, clock: Clock, effects: &mut Vec<Effect>) {
        self.send_pre_vote(effects);
        if let Role::Candidate { remind_ms, .. } = &mut self.role {
            *remind_ms = clock.mono_ms + REMIND_MS;
        }
    }

    pub(super) fn handle_pre_vote(&mut self, from: NodeId, question: PreVote, clock: Clock, effects: &mut Vec<Effect>) {
        if self.recovering.is_some() {
            return;
        }
        let yields = self.election.yields(clock).is_some_and(|candidate| candidate != from);
        let is_free = self.leader.is_none_or(|leader| leader.node == from) && !yields;
        let granted = is_free && self.is_entitled(from, question.next);
        // No yielding to a lagging asker: the answer tells the asker that it cannot win.
        if granted && question.next >= self.next {
            self.election.yield_to(from, clock);
        }
        let (next, promised) = (self.next, self.acceptor.promised().max(self.seen));
        let answer = PreVoted { number: question.number, granted, next, promised };
        effects.push(Effect::Send { to: from, message: Message::PreVoted(answer) });
    }

    pub(super) fn handle_pre_voted(&mut self, from: NodeId, answer: PreVoted, clock: Clock, effects: &mut Vec<Effect>) {
        let Role::PreCandidate(pre_vote) = &mut self.role else { return };
        if pre_vote.number != answer.number || !self.membership.voters().contains(from) {
            return;
        }
        self.seen = self.seen.max(answer.promised);
        if answer.next > self.next {
            // This node must catch up first. The longer wait lets the voter of the next rank campaign earlier.
            self.back_off(clock, effects);
            self.election.at_ms += RANK_MS;
            return self.note_ahead(from, answer.next, clock, effects);
        }
        if !answer.granted {
            return self.back_off(clock, effects);
        }
        pre_vote.granted.add(from, self.membership.voters());
        if pre_vote.granted.is_quorum(self.membership.voters()) {
            self.campaign(clock, effects);
        }
    }

    /// Begins phase 1, under a ballot above all ballots ever seen. No message of this phase leaves before the ballot is
    /// durable here.
    pub(super) fn campaign(&mut self, clock: Clock, effects: &mut Vec<Effect>) {
        let me = self.settings.me;
        let ballot = self.seen.max(self.acceptor.promised()).above(me);
        self.seen = ballot;
        let promised = self.acceptor.prepare(ballot);
        assert!(promised.is_ok(), "a new ballot is above all promises");
        effects.push(Effect::Persist(Record::Promised(ballot)));
        let (proposer, since_ms) = (Proposer::prepare(ballot), clock.mono_ms);
        self.role = Role::Candidate { proposer, since_ms, remind_ms: since_ms + REMIND_MS, again_ms: None };
        let prepare = Prepare { ballot, instance: self.next };
        for to in self.other_voters() {
            effects.push(Effect::SendDurable { to, message: Message::Prepare(prepare) });
        }
        effects.push(Effect::SendDurable { to: me, message: self.promise(prepare) });
    }

    /// Sends the Prepare in progress to `to` again, unless `to` has promised: its second promise would carry the
    /// accepted value again.
    pub(super) fn repeat_prepare(&self, to: NodeId, effects: &mut Vec<Effect>) {
        let Role::Candidate { proposer, .. } = &self.role else { return };
        let voters = self.membership.voters();
        if !voters.contains(to) || proposer.has_promise(to, voters) {
            return;
        }
        let prepare = Prepare { ballot: proposer.ballot(), instance: self.next };
        effects.push(Effect::SendDurable { to, message: Message::Prepare(prepare) });
    }

    pub(super) fn handle_promise(&mut self, from: NodeId, promise: Promise, clock: Clock, effects: &mut Vec<Effect>) {
        let Role::Candidate { proposer, .. } = &self.role else { return };
        if promise.ballot != proposer.ballot() || promise.instance != self.next || promise.next > self.next {
            return;
        }
        let is_foreign = promise.accepted.as_ref().is_some_and(|accepted| !self.follows(&accepted.value));
        let Role::Candidate { proposer, remind_ms, .. } = &mut self.role else { return };
        if is_foreign {
            // The sender voted for a value that does not follow this node's history or state, so this node cannot
            // propose it. Perhaps this node is the diverged one, so it no longer asks the others to yield.
            *remind_ms = Ms::MAX;
            return;
        }
        if proposer.on_promise(from, promise.accepted, self.membership.voters()) {
            let proposer = proposer.clone();
            self.lead(proposer, clock, effects);
        }
    }

    pub(super) fn handle_handover(
        &mut self,
        from: NodeId,
        handover: Handover,
        clock: Clock,
        effects: &mut Vec<Effect>,
    ) {
        let invited = handover.ballot.node == from && self.leader == Some(handover.ballot);
        let can_campaign = self.is_voter() && self.recovering.is_none() && matches!(self.role, Role::Follower);
        if !invited || !can_campaign {
            return;
        }
        if handover.next > self.next {
            let behind = Behind { ballot: handover.ballot, instance: handover.next, next: self.next };
            effects.push(Effect::Send { to: from, message: Message::Behind(behind) });
            return self.note_ahead(from, handover.next, clock, effects);
        }
        if handover.next == self.next {
            self.campaign(clock, effects);
            self.election.stays = handover.stay.then(|| self.own_ballot()).flatten();
        }
    }

    /// Follows a live node that reaches a quorum and claims this group. A candidate with a higher ballot ignores the
    /// claim, but may still lose its own campaign. So the caller repeats the claim as long as the group has no leader.
    pub fn on_claim(&mut self, ballot: Ballot, clock: Clock, effects: &mut Vec<Effect>) {
        if ballot.node == self.settings.me {
            return;
        }
        self.seen = self.seen.max(ballot);
        if self.own_ballot().is_some_and(|own| own > ballot) {
            return;
        }
        if !matches!(self.role, Role::Follower) {
            self.step_down(clock, effects);
        }
        self.follow(ballot, clock);
    }

    /// Forgets `node` as the leader: it is gone, reaches no quorum, or does not claim this group.
    pub fn on_no_claim(&mut self, node: NodeId, clock: Clock) {
        if self.leader.is_some_and(|leader| leader.node == node) && node != self.settings.me {
            self.set_leader(None, clock);
            self.retry_learning(node);
        }
    }

    /// Returns true if this member is at `next` and knows of no missing instance.
    #[must_use]
    pub fn is_at(&self, next: Instance) -> bool {
        self.next == next && !self.is_behind()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Ahead;
    use crate::{Ballot, GroupId, Membership};

    const FINE: ElectionContext<'_> = ElectionContext {
        reached: &[NodeId(1), NodeId(3)],
        disk: true,
        may_self_promise: true,
        preferred_leaders: &[],
    };

    fn second_of_three() -> Group {
        let settings = crate::Settings {
            id: GroupId(0),
            groups: 1,
            me: NodeId(2),
            start: 1,
            membership: Membership::of_ids((1..=3).map(NodeId)).into(),
            batch_bytes_max: 1 << 20,
            window_bytes: 1 << 20,
            seed: 1,
        };
        Group::new(settings)
    }

    #[test]
    fn a_candidate_waits_for_a_promise_that_is_still_coming_and_longer_each_time() {
        let mut group = second_of_three();
        let mut effects = Vec::new();
        let at = |mono_ms| Clock { mono_ms: Ms(mono_ms) };
        group.campaign(at(1_000), &mut effects);
        let own = group.own_ballot();
        for now_ms in (1_000..20_000).step_by(PREPARING_MS.0 as usize - 1) {
            group.tick(at(now_ms), FINE, &mut effects);
            group.on_arriving(NodeId(1), Message::PROMISE, at(now_ms));
            group.on_arriving(NodeId(1), Message::RANGE, at(now_ms));
        }
        assert_eq!(group.own_ballot(), own, "a large promise may take long");
        let mut waited_ms = Vec::new();
        for begun_ms in [100_000, 200_000, 300_000] {
            group.campaign(at(begun_ms), &mut effects);
            let failed = (0..40_000).step_by(10).find(|passed_ms| {
                group.tick(at(begun_ms + passed_ms), FINE, &mut effects);
                group.own_ballot().is_none()
            });
            waited_ms.push(failed.map_or(Ms::MAX, Ms));
        }
        assert_eq!(waited_ms, [PREPARING_MS, PREPARING_MS * 2, PREPARING_MS * 4]);
    }

    #[test]
    fn who_has_promised_lets_the_candidate_lead() {
        let mut group = second_of_three();
        let mut effects = Vec::new();
        let at = |mono_ms| Clock { mono_ms };
        let prepare = Prepare { ballot: Ballot { round: 1, node: NodeId(3) }, instance: Instance::FIRST };
        let asks = |group: &mut Group, now_ms| {
            let mut effects = Vec::new();
            group.tick(at(now_ms), FINE, &mut effects);
            !effects.is_empty()
        };
        let grants = |group: &mut Group, from, now_ms| {
            let mut effects = Vec::new();
            group.handle_pre_vote(from, PreVote { number: 1, next: Instance::FIRST }, at(now_ms), &mut effects);
            matches!(effects[..], [Effect::Send { message: Message::PreVoted(PreVoted { granted: true, .. }), .. }])
        };
        group.handle_prepare(NodeId(3), prepare, at(Ms(5_000)), &mut effects);
        assert!(
            !grants(&mut group, NodeId(1), Ms(5_000) + YIELD_MS - Ms(1)) && grants(&mut group, NodeId(3), Ms(5_001))
        );
        // The candidate's repeated question gives it more time.
        assert!(
            !asks(&mut group, Ms(5_001) + YIELD_MS - Ms(1))
                && !grants(&mut group, NodeId(1), Ms(5_001) + YIELD_MS - Ms(1))
        );
        assert!(grants(&mut group, NodeId(1), Ms(5_001) + YIELD_MS));
        // Node 1 does not become the leader. When its time is over, this node campaigns at its own turn by rank.
        let over_ms = Ms(5_001) + YIELD_MS * 2;
        let turn_ms = RANK_SOON_MS * 2;
        assert!(
            !asks(&mut group, over_ms - Ms(1))
                && !asks(&mut group, over_ms)
                && !asks(&mut group, over_ms + RANK_SOON_MS - Ms(1))
        );
        assert!(asks(&mut group, over_ms + turn_ms));
        // A repeated Prepare gives the candidate more time, unless the candidate is gone.
        group.handle_prepare(NodeId(3), prepare, at(Ms(6_000)), &mut effects);
        assert!(
            !asks(&mut group, Ms(6_000) + YIELD_MS - Ms(1))
                && !grants(&mut group, NodeId(1), Ms(6_000) + YIELD_MS - Ms(1))
        );
        // A late claim of an earlier leader, and the end of its leadership, do not shorten the candidate's time.
        group.on_claim(Ballot { round: 1, node: NodeId(1) }, at(Ms(6_000)), &mut effects);
        group.on_no_claim(NodeId(1), at(Ms(6_000)));
        assert!(
            !asks(&mut group, Ms(6_000) + YIELD_MS - Ms(1))
                && !grants(&mut group, NodeId(1), Ms(6_000) + YIELD_MS - Ms(1))
        );
        group.on_disconnected(NodeId(3));
        assert!(!asks(&mut group, Ms(6_001)) && asks(&mut group, Ms(6_000) + YIELD_MS - Ms(1)));
        assert!(grants(&mut group, NodeId(1), Ms(6_000) + YIELD_MS - Ms(1)));
    }

    #[test]
    fn a_losing_candidate_follows_a_repeated_claim_that_it_ignored_before() {
        let mut group = second_of_three();
        let clock = Clock { mono_ms: Ms(5_000) };
        let mut effects = Vec::new();
        group.tick(clock, FINE, &mut effects);
        let granted = PreVoted { number: 1, granted: true, next: Instance::FIRST, promised: Ballot::ZERO };
        group.handle_pre_voted(NodeId(3), granted, clock, &mut effects);
        let own = group.own_ballot().expect("it campaigns");
        let claimed = Ballot { round: own.round, node: NodeId(1) };
        assert!(claimed < own);
        group.on_claim(claimed, clock, &mut effects);
        assert_eq!((group.leader(), group.own_ballot()), (None, Some(own)));
        // Meanwhile the others have chosen a value under the claimed ballot: this candidate is behind.
        let ahead = Ahead { ballot: own, instance: Instance::FIRST, next: Instance::FIRST.following() };
        group.handle_ahead(NodeId(3), ahead, clock, &mut effects);
        assert_eq!((group.leader(), group.own_ballot()), (None, None));
        group.on_claim(claimed, clock, &mut effects);
        assert_eq!(group.leader(), Some(claimed));
    }
}
