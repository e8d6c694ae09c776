//! The model: the state of the members, all messages ever sent, and the possible next steps.
//!
//! A sent message stays: it may arrive at any later time, any number of times, or never. A member consists of its
//! acceptor in memory, the acceptor that its disk would restore, and the records and answers in between. These answers
//! leave only when those records are durable. A crash spares only the disk. The member is back at once, since a member
//! that is down cannot be told from one whose messages are late.

use groups::acceptor::{Accepted, Acceptor, Novelty};
use groups::proposer::Proposer;
use groups::{Ballot, Members, Ms, NodeId, Value, ValueBuilder};
use stateright::{Model, Property};

/// Limits of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// The highest round of each proposer's ballots. Members 1 and 2 propose, member 3 only votes.
    pub(crate) rounds: [u64; 2],
    /// Maximum number of crashes, of all members together.
    pub(crate) crashes: u8,
}

/// A fault that could be in, or around, the shipped code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// A restarted member starts with an empty acceptor.
    ForgetsOnRestart,
    /// Promises and votes leave before their records are durable.
    AnswersBeforeDurable,
    /// A repeated Prepare or Accept is answered at once, although the record of the first answer is not durable yet.
    RepeatsBeforeDurable,
    /// A Prepare leaves before its own ballot is durable.
    PreparesBeforeDurable,
    /// A candidate ignores the values that the promising members had accepted.
    IgnoresAccepted,
    /// A vote for any ballot counts.
    CountsStrayVotes,
    /// A member accepts a lower ballot in spite of its promise.
    LowersPromise,
    /// A member takes its accepted value for chosen, whatever ballot it was accepted under.
    LearnsOtherBallot,
}

/// A message. Answers go to the owner of their ballot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Said {
    Prepare { ballot: Ballot },
    Promise { from: NodeId, ballot: Ballot, accepted: Option<Accepted> },
    Accept { ballot: Ballot, value: Value },
    Vote { from: NodeId, ballot: Ballot },
}

/// A record that a member writes before it answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Record {
    Promised(Ballot),
    Accepted(Ballot, Value),
}

/// One member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Member {
    pub(crate) acceptor: Acceptor,
    pub(crate) proposer: Option<Proposer>,
    /// The acceptor that the durable records restore.
    pub(crate) disk: Acceptor,
    /// Records that a crash loses.
    unsynced: Vec<Record>,
    /// Messages that leave once the records are durable, in order of [`Said::place`].
    gated: Vec<Said>,
    pub(crate) restarts: u8,
}

/// A state of the model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// Members 1, 2 and 3.
    pub(crate) members: [Member; 3],
    /// All messages that ever left a member, in order of [`Said::place`].
    pub(crate) said: Vec<Said>,
    /// True if a disk ever held a lower promise than before, or two values for one ballot.
    pub(crate) disk_contradicts: bool,
}

/// A step of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A member begins phase 1.
    Campaign { node: NodeId, round: u64 },
    /// A message arrives.
    Deliver { to: NodeId, said: Said },
    /// The records that a member wrote become durable.
    Sync(NodeId),
    /// A member loses all but its disk, and starts again.
    Crash(NodeId),
}

/// The model.
pub(crate) struct Paxos {
    bounds: Bounds,
    mistake: Option<Mistake>,
    voters: Members,
    /// Values by proposer, then by its number of restarts: after a restart its client asks for another value.
    values: [Vec<Value>; 2],
}

impl Said {
    pub(crate) fn ballot(&self) -> Ballot {
        match self {
            Said::Prepare { ballot } | Said::Accept { ballot, .. } => *ballot,
            Said::Promise { ballot, .. } | Said::Vote { ballot, .. } => *ballot,
        }
    }

    /// Returns the sort key of messages. Sorted messages make the same state, whatever order they were sent in.
    fn place(&self) -> (u8, Ballot, NodeId, Ballot, u64) {
        match self {
            Said::Prepare { ballot } => (0, *ballot, ballot.node, Ballot::ZERO, 0),
            Said::Promise { from, ballot, accepted } => {
                let (under, value) =
                    accepted.as_ref().map_or((Ballot::ZERO, 0), |one| (one.ballot, one.value.time_ms().0));
                (1, *ballot, *from, under, value)
            }
            Said::Accept { ballot, value } => (2, *ballot, ballot.node, Ballot::ZERO, value.time_ms().0),
            Said::Vote { from, ballot } => (3, *ballot, *from, Ballot::ZERO, 0),
        }
    }
}

/// Takes back a promise that is above `ballot`.
fn lower(acceptor: &mut Acceptor, ballot: Ballot) {
    if ballot >= acceptor.promised() {
        return;
    }
    let accepted = acceptor.accepted().filter(|accepted| accepted.ballot < ballot).cloned();
    *acceptor = Acceptor::default();
    if let Some(Accepted { ballot, value }) = accepted {
        assert!(acceptor.recall(ballot, &value), "nothing was accepted before");
    }
}

/// Adds `said` unless it is there already.
fn say(all: &mut Vec<Said>, said: Said) {
    if let Err(at) = all.binary_search_by_key(&said.place(), Said::place) {
        all.insert(at, said);
    }
}

impl State {
    pub(crate) fn member(&self, node: NodeId) -> &Member {
        &self.members[node.0 as usize - 1]
    }

    fn member_mut(&mut self, node: NodeId) -> &mut Member {
        &mut self.members[node.0 as usize - 1]
    }

    fn restarts(&self) -> u8 {
        self.members.iter().map(|member| member.restarts).sum()
    }

    /// Sends `said` once all records that the member has written are durable.
    fn say_durable(&mut self, node: NodeId, said: Said) {
        let member = self.member_mut(node);
        let all = if member.unsynced.is_empty() { &mut self.said } else { &mut member.gated };
        say(all, said);
    }
}

impl Paxos {
    pub(crate) fn new(bounds: Bounds, mistake: Option<Mistake>) -> Paxos {
        let values = |node: u64| {
            let value = |start| {
                let sealed = ValueBuilder::default().seal(0, Ms(100 * node + u64::from(start)), None);
                // Static bytes have no reference count, so copying a state does not have to update one.
                let bytes: &'static [u8] = sealed.bytes().to_vec().leak();
                Value::parse(bytes.into()).expect("a sealed value")
            };
            (0..=bounds.crashes).map(value).collect()
        };
        let voters = Members::new((1..=3).map(NodeId).collect());
        Paxos { bounds, mistake, voters, values: [values(1), values(2)] }
    }

    pub(crate) fn voters(&self) -> &Members {
        &self.voters
    }

    pub(crate) fn own_values(&self, node: NodeId) -> &[Value] {
        &self.values[node.0 as usize - 1]
    }

    /// Returns the value that `node` takes for chosen when it hears that a value was chosen under `ballot`.
    pub(crate) fn learned<'s>(&self, state: &'s State, node: NodeId, ballot: Ballot) -> Option<&'s Value> {
        let acceptor = &state.member(node).acceptor;
        match self.mistake {
            Some(Mistake::LearnsOtherBallot) => acceptor.accepted().map(|accepted| &accepted.value),
            _ => acceptor.accepted_under(ballot),
        }
    }

    fn is(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    /// Begins phase 1 as `Group` does: the member's own promise and the Prepare wait for the same record.
    fn campaign(&self, mut state: State, node: NodeId, round: u64) -> State {
        let ballot = Ballot { round, node };
        let member = state.member_mut(node);
        member.acceptor.prepare(ballot).expect("a ballot above all promises");
        member.unsynced.push(Record::Promised(ballot));
        member.proposer = Some(Proposer::prepare(ballot));
        let accepted = member.acceptor.accepted().cloned();
        state.say_durable(node, Said::Promise { from: node, ballot, accepted });
        match self.mistake {
            Some(Mistake::PreparesBeforeDurable) => say(&mut state.said, Said::Prepare { ballot }),
            _ => state.say_durable(node, Said::Prepare { ballot }),
        }
        state
    }

    /// Delivers `said` to `to`. Returns `None` if it is refused or ignored.
    fn deliver(&self, last: &State, to: NodeId, said: Said) -> Option<State> {
        let mut acceptor = last.member(to).acceptor.clone();
        if self.is(Mistake::LowersPromise) {
            lower(&mut acceptor, said.ballot());
        }
        let (novelty, record, answer) = match said {
            Said::Prepare { ballot } => {
                let novelty = acceptor.prepare(ballot).ok()?;
                let accepted = acceptor.accepted().cloned();
                (novelty, Record::Promised(ballot), Said::Promise { from: to, ballot, accepted })
            }
            Said::Accept { ballot, value } => {
                // As in `Group`, a second value under one ballot gets no vote. The model leaves out the answer to it.
                acceptor.accepted_under(ballot).is_none_or(|known| *known == value).then_some(())?;
                let novelty = acceptor.accept(ballot, &value).ok()?;
                (novelty, Record::Accepted(ballot, value), Said::Vote { from: to, ballot })
            }
            Said::Promise { from, ballot, accepted } => return self.count_promise(last, from, ballot, accepted),
            Said::Vote { .. } => return None,
        };
        let mut state = last.clone();
        let member = state.member_mut(to);
        member.acceptor = acceptor;
        if novelty == Novelty::New {
            member.unsynced.push(record);
        }
        let early = match novelty {
            Novelty::New => self.is(Mistake::AnswersBeforeDurable),
            Novelty::Repeated => self.is(Mistake::RepeatsBeforeDurable),
        };
        if early {
            say(&mut state.said, answer);
        } else {
            state.say_durable(to, answer);
        }
        Some(state)
    }

    /// Counts a promise. A majority of promises makes the proposer propose at once.
    fn count_promise(&self, last: &State, from: NodeId, ballot: Ballot, accepted: Option<Accepted>) -> Option<State> {
        let Member { proposer, restarts, .. } = last.member(ballot.node);
        let before = proposer.as_ref().filter(|proposer| proposer.ballot() == ballot)?;
        let mut proposer = before.clone();
        let accepted = accepted.filter(|_| !self.is(Mistake::IgnoresAccepted));
        let prepared = proposer.on_promise(from, accepted, &self.voters);
        if proposer == *before {
            return None;
        }
        let mut state = last.clone();
        if prepared {
            let own = &self.own_values(ballot.node)[usize::from(*restarts)];
            let value = proposer.bound().unwrap_or(own).clone();
            proposer.propose(value.clone());
            say(&mut state.said, Said::Accept { ballot, value });
        }
        state.member_mut(ballot.node).proposer = Some(proposer);
        Some(state)
    }

    /// Counts all votes. This runs after each step, so every vote arrives as soon as it is sent. The time of arrival
    /// matters to nobody but the proposer.
    fn count_votes(&self, state: &mut State) {
        let State { said, members, .. } = state;
        for proposer in members.iter_mut().filter_map(|member| member.proposer.as_mut()) {
            for said in said.iter() {
                let Said::Vote { from, ballot } = said else { continue };
                if *ballot == proposer.ballot() || self.is(Mistake::CountsStrayVotes) {
                    proposer.on_vote(*from, &self.voters);
                }
            }
        }
    }

    fn sync(&self, mut state: State, node: NodeId) -> State {
        let member = state.member_mut(node);
        let before = member.disk.promised();
        let mut agrees = true;
        for record in std::mem::take(&mut member.unsynced) {
            match record {
                // As in recovery, a lower promise after a vote under a higher ballot changes nothing.
                Record::Promised(ballot) => drop(member.disk.prepare(ballot)),
                Record::Accepted(ballot, value) => agrees &= member.disk.recall(ballot, &value),
            }
        }
        agrees &= member.disk.promised() >= before;
        for said in std::mem::take(&mut member.gated) {
            say(&mut state.said, said);
        }
        state.disk_contradicts |= !agrees;
        state
    }

    /// Crashes and restarts a member. A crash that loses nothing does not count.
    fn crash(&self, mut state: State, node: NodeId) -> State {
        let member = state.member_mut(node);
        let disk = if self.is(Mistake::ForgetsOnRestart) { Acceptor::default() } else { member.disk.clone() };
        let restarted = Member { acceptor: disk.clone(), disk, restarts: member.restarts, ..Member::default() };
        if restarted != *member {
            *member = Member { restarts: member.restarts + 1, ..restarted };
        }
        state
    }
}

impl Model for Paxos {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::default()]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        for (&node, rounds) in self.voters.ids().iter().zip(self.bounds.rounds) {
            let promised = state.member(node).acceptor.promised();
            let rounds = (1..=rounds).filter(|&round| Ballot { round, node } > promised);
            steps.extend(rounds.map(|round| Step::Campaign { node, round }));
        }
        for said in &state.said {
            match said {
                Said::Prepare { .. } | Said::Accept { .. } => {
                    steps.extend(self.voters.ids().iter().map(|&to| Step::Deliver { to, said: said.clone() }));
                }
                Said::Promise { ballot, .. } => steps.push(Step::Deliver { to: ballot.node, said: said.clone() }),
                Said::Vote { .. } => {}
            }
        }
        for &node in self.voters.ids() {
            if !state.member(node).unsynced.is_empty() {
                steps.push(Step::Sync(node));
            }
            if state.restarts() < self.bounds.crashes {
                steps.push(Step::Crash(node));
            }
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = match step {
            Step::Campaign { node, round } => self.campaign(last.clone(), node, round),
            Step::Deliver { to, said } => self.deliver(last, to, said)?,
            Step::Sync(node) => self.sync(last.clone(), node),
            Step::Crash(node) => self.crash(last.clone(), node),
        };
        if state.restarts() == self.bounds.crashes {
            // Without further crashes, a slow disk looks like slow messages, so all is synced at once.
            state = self.voters.ids().iter().fold(state, |state, &node| self.sync(state, node));
        }
        self.count_votes(&mut state);
        Some(state).filter(|state| state != last)
    }

    fn properties(&self) -> Vec<Property<Paxos>> {
        crate::properties::all()
    }
}
