//! Tests of single calls and their exact effects: how each role answers each message, in each situation that the
//! protocol distinguishes.

mod divergence;
mod electing;
mod jumping;
mod leading;
mod learning;
mod lease_guard;
mod plausibility;
mod reading;
mod reconfiguration;
mod requests;
mod restoring;
mod voting;

use bytes::BytesMut;
use groups::acceptor::Accepted;
use groups::message::{Accept, Chosen, Fetch, PreVote, PreVoted, Prepare, Promise, Range, Vote};
use groups::{
    Applying, Ballot, Clock, CommandId, Counter, Effect, ElectionContext, Group, GroupId, Instance, LocalOutcome,
    Membership, Message, Ms, NodeId, Record, Settings, StateDiffers, StateMachine, Value, ValueBuilder, WorkBudget,
    put_command,
};

const WINDOW_BYTES: u32 = 1_000;
const BATCH_BYTES: usize = 1 << 20;
/// The reached nodes: all of them.
const ALL: &[NodeId] = &[NodeId(1), NodeId(2), NodeId(3), NodeId(4), NodeId(5)];
const FINE: ElectionContext<'_> =
    ElectionContext { reached: ALL, disk: true, may_self_promise: true, preferred_leaders: &[] };

/// One member of a group, its state machine, and its clocks.
struct Member {
    group: Group,
    clock: Clock,
    cluster_ms: Ms,
    log: Bodies,
    /// The counters of this member's commands, in the order in which they were applied.
    answered: Vec<Counter>,
    /// The error of this member if its state is not the majority's.
    differs: Option<StateDiffers>,
}

/// The bodies of all commands applied.
#[derive(Default)]
struct Bodies(Vec<Vec<u8>>);

impl StateMachine for Bodies {
    type Reply<'a> = ();

    fn begin(&mut self, _time_ms: Ms) {}

    fn digest(&self) -> u64 {
        self.0.iter().flatten().fold(0, |sum, byte| 31 * sum + u64::from(*byte))
    }

    fn apply(&mut self, body: &[u8]) {
        self.0.push(body.to_vec());
    }
}

impl Member {
    /// Returns member `me` of `count`, started for the first time, with an empty log. Member 1 is the preferred leader.
    fn new(me: u32, count: u32) -> Member {
        let settings = Settings {
            id: GroupId(0),
            groups: 1,
            me: NodeId(me),
            start: 1,
            membership: Membership::of_ids((1..=count).map(NodeId)).into(),
            batch_bytes_max: BATCH_BYTES,
            window_bytes: WINDOW_BYTES,
            seed: 7,
        };
        let clock = Clock { mono_ms: Ms(10_000) };
        let mut group = Group::new(settings);
        group.begin(clock);
        Member { group, clock, cluster_ms: Ms(50_000), log: Bodies::default(), answered: Vec::new(), differs: None }
    }

    /// Returns member 1 of `count`, which leads under ballot 1.1 and has its first value in flight.
    fn leader(count: u32) -> Member {
        let mut member = Member::new(1, count);
        member.campaign();
        for from in 1..=count / 2 + 1 {
            member.handle(from, promise(ballot(1, 1), 1, 1, None));
        }
        assert_eq!(member.group.leads(), Some(ballot(1, 1)));
        member
    }

    /// Returns a leader like [`Member::leader`], with its first value chosen.
    fn established(count: u32) -> Member {
        let mut member = Member::leader(count);
        for from in 1..=count / 2 + 1 {
            member.handle(from, vote(ballot(1, 1), 1));
        }
        assert_eq!(member.group.next(), Instance(2));
        member
    }

    /// Chooses a command of this member, by its own vote and member 2's. The member must lead under ballot 1.1, with
    /// nothing in flight.
    fn choose(&mut self, body: &str) {
        let next = self.group.next();
        self.submit(body);
        self.flush();
        for from in 1..=2 {
            self.handle(from, vote(ballot(1, 1), next.0));
        }
        assert_eq!(self.group.next(), next.following());
    }

    /// Returns member `me` at instance 1, which follows leader `ballot` and has voted for an empty value.
    fn follower(me: u32, ballot: Ballot) -> Member {
        let mut member = Member::new(me, 3);
        member.handle(ballot.node.0, accept(ballot, 1, Ballot::ZERO, &empty(0)));
        assert_eq!(member.group.leader(), Some(ballot));
        member
    }

    /// Waits for the member's turn, starts a pre-vote and grants it until phase 1 begins. Returns the effects of the
    /// last step.
    fn campaign(&mut self) -> Vec<Effect> {
        self.clock.mono_ms += Ms(1_000);
        let asked = self.tick();
        let Some(Effect::Send { message: Message::PreVote(PreVote { number, next }), .. }) = asked.first() else {
            panic!("it does not ask: {asked:?}")
        };
        let answer = PreVoted { number: *number, granted: true, next: *next, promised: Ballot::ZERO };
        asked.iter().fold(Vec::new(), |done, effect| match effect {
            Effect::Send { to, .. } if done.is_empty() => self.handle(to.0, Message::PreVoted(answer)),
            _ => done,
        })
    }

    /// Handles a message and returns the effects. If the member becomes the leader, it also flushes, and the effects of
    /// the flush follow.
    fn handle(&mut self, from: u32, message: Message) -> Vec<Effect> {
        let (clock, led) = (self.clock, self.group.leads());
        let mut effects = self.call(|group, effects| group.learn_before(NodeId(from), &message, clock, effects));
        effects.extend(self.call(|group, effects| group.handle(NodeId(from), message, clock, effects)));
        if self.group.leads().is_some_and(|leads| led != Some(leads)) {
            effects.extend(self.flush());
        }
        effects
    }

    fn tick(&mut self) -> Vec<Effect> {
        let clock = self.clock;
        self.call(|group, effects| group.tick(clock, FINE, effects))
    }

    fn flush(&mut self) -> Vec<Effect> {
        let (clock, cluster_ms) = (self.clock, self.cluster_ms);
        self.call(|group, effects| group.flush(clock, cluster_ms, effects))
    }

    fn claim(&mut self, ballot: Ballot) -> Vec<Effect> {
        let clock = self.clock;
        self.call(|group, effects| group.on_claim(ballot, clock, effects))
    }

    fn no_claim(&mut self, node: u32) {
        self.group.on_no_claim(NodeId(node), self.clock);
    }

    fn submit(&mut self, body: &str) -> Counter {
        self.group.submit(|out| out.extend_from_slice(body.as_bytes()))
    }

    fn call(&mut self, step: impl FnOnce(&mut Group, &mut Vec<Effect>)) -> Vec<Effect> {
        let mut effects = Vec::new();
        step(&mut self.group, &mut effects);
        for effect in &effects {
            if let Effect::Apply { value, .. } = effect {
                let answered = &mut self.answered;
                let applied = self.group.apply(value, &mut self.log, |own| {
                    if let LocalOutcome::Applied(counter, ()) = own {
                        answered.push(counter);
                    }
                });
                self.differs = applied.err();
            }
        }
        effects
    }
}

fn ballot(round: u64, node: u32) -> Ballot {
    Ballot { round, node: NodeId(node) }
}

/// Returns a value without commands that follows values with the chain `chain`.
fn empty(chain: u32) -> Value {
    ValueBuilder::default().seal(chain, Ms(50_000), None)
}

/// Returns a value with one command of member `origin`, its first.
fn value(chain: u32, origin: u32, body: &str) -> Value {
    let mut builder = ValueBuilder::default();
    builder.extend(&command(origin, 1, body), 1);
    builder.seal(chain, Ms(50_000), None)
}

fn command(origin: u32, counter: u64, body: &str) -> BytesMut {
    let mut out = BytesMut::new();
    let id = CommandId { origin: NodeId(origin), start: 1, counter: Counter(counter) };
    put_command(&mut out, id, |out| out.extend_from_slice(body.as_bytes()));
    out
}

fn accepted(ballot: Ballot, value: &Value) -> Accepted {
    Accepted { ballot, value: value.clone() }
}

fn prepare(ballot: Ballot, instance: u64) -> Message {
    Message::Prepare(Prepare { ballot, instance: Instance(instance) })
}

fn promise(ballot: Ballot, instance: u64, next: u64, accepted: Option<Accepted>) -> Message {
    Message::Promise(Promise { ballot, instance: Instance(instance), next: Instance(next), accepted })
}

fn accept(ballot: Ballot, instance: u64, chosen: Ballot, value: &Value) -> Message {
    Message::Accept(Accept { ballot, instance: Instance(instance), chosen, value: value.clone() })
}

fn vote(ballot: Ballot, instance: u64) -> Message {
    Message::Vote(Vote { ballot, instance: Instance(instance) })
}

fn chosen(ballot: Ballot, instance: u64) -> Message {
    Message::Chosen(Chosen { instance: Instance(instance), ballot })
}

fn fetch(from: u64) -> Message {
    Message::Fetch(Fetch { from: Instance(from), bytes_max: WINDOW_BYTES })
}

fn range(first: u64, next: u64, values: Vec<Accepted>) -> Message {
    Message::Range(Range { first: Instance(first), next: Instance(next), values })
}

fn send(to: u32, message: Message) -> Effect {
    Effect::Send { to: NodeId(to), message }
}

fn send_durable(to: u32, message: Message) -> Effect {
    Effect::SendDurable { to: NodeId(to), message }
}

fn promised(ballot: Ballot) -> Effect {
    Effect::Persist(Record::Promised(ballot))
}

fn voted(ballot: Ballot, instance: u64, chosen: Ballot, value: &Value) -> Effect {
    Effect::Persist(Record::Accepted { instance: Instance(instance), ballot, chosen, value: value.clone() })
}

fn learned(ballot: Ballot, instance: u64, chosen: Ballot, value: &Value) -> Effect {
    Effect::Persist(Record::Learned { instance: Instance(instance), ballot, chosen, value: value.clone() })
}

fn apply(instance: u64, value: &Value) -> Effect {
    Effect::Apply { instance: Instance(instance), value: value.clone() }
}
