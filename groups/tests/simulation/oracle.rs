//! The oracle sees all actions of all nodes, and panics if an invariant of the protocol is broken. It knows only what
//! the protocol promises, not how the groups implement it.

use crate::machine::{Machine, Name};
use groups::{Ballot, Instance, Membership, MembershipChange, Message, NodeId, Record, Value};
use std::collections::{BTreeMap, BTreeSet};

/// A group and an instance of it.
type At = (usize, Instance);

/// The history of all nodes together.
#[derive(Debug)]
pub(crate) struct Oracle {
    /// The members at each instance, according to the changes in the values before it.
    memberships: BTreeMap<At, Membership>,
    /// The only value of each instance and ballot.
    proposed: BTreeMap<(At, Ballot), Value>,
    /// The voters with a durable vote.
    votes: BTreeMap<(At, Ballot), BTreeSet<NodeId>>,
    /// The values chosen by a majority of durable votes.
    chosen: BTreeMap<At, Value>,
    /// The digest of the state after each instance, and the chain before it.
    states: BTreeMap<At, u32>,
    chains: BTreeMap<At, u32>,
    /// The highest ballot in a promise or vote that each node has sent, per group.
    promised: BTreeMap<(NodeId, usize), Ballot>,
    acknowledged: Vec<(usize, Name)>,
    withdrawn: BTreeSet<Name>,
    /// The highest instance, per group, whose state was acknowledged or read so far.
    seen: BTreeMap<usize, Instance>,
}

impl Oracle {
    pub(crate) fn new(first: &Membership, groups: usize) -> Oracle {
        Oracle {
            memberships: (0..groups).map(|group| ((group, Instance::FIRST), first.clone())).collect(),
            proposed: BTreeMap::new(),
            votes: BTreeMap::new(),
            chosen: BTreeMap::new(),
            states: BTreeMap::new(),
            chains: BTreeMap::new(),
            promised: BTreeMap::new(),
            acknowledged: Vec::new(),
            withdrawn: BTreeSet::new(),
            seen: BTreeMap::new(),
        }
    }

    /// Checks a message that leaves `from`, whose durable records are `durable`.
    pub(crate) fn on_send(&mut self, from: NodeId, group: usize, message: &Message, durable: &Durable) {
        match message {
            Message::Prepare(prepare) => {
                assert!(prepare.ballot.node == from, "{from} prepares under {}", prepare.ballot);
                assert!(durable.promised(group, prepare.ballot), "the Prepare {} is not durable", prepare.ballot);
            }
            Message::Promise(promise) => {
                assert!(durable.promised(group, promise.ballot), "the promise {} is not durable", promise.ballot);
                self.on_promise(from, group, promise.ballot);
            }
            Message::Vote(vote) => {
                let voted = durable.voted(group, vote.instance, vote.ballot);
                assert!(voted, "the vote {}/{} is not durable", vote.instance, vote.ballot);
                self.on_promise(from, group, vote.ballot);
            }
            Message::Accept(accept) => {
                assert!(accept.ballot.node == from, "{from} proposes under {}", accept.ballot);
                self.on_value(group, accept.instance, accept.ballot, &accept.value);
                self.on_chosen_ballot(group, accept.instance.preceding(), accept.chosen);
            }
            Message::Chosen(chosen) => self.on_chosen_ballot(group, chosen.instance, chosen.ballot),
            Message::Range(range) => {
                let mut instance = range.first;
                for one in &range.values {
                    assert_eq!(self.chosen.get(&(group, instance)), Some(&one.value), "not chosen at {instance}");
                    self.on_chosen_ballot(group, instance, one.ballot);
                    instance = instance.following();
                }
            }
            _ => {}
        }
    }

    fn on_promise(&mut self, node: NodeId, group: usize, ballot: Ballot) {
        let highest = self.promised.entry((node, group)).or_default();
        *highest = ballot.max(*highest);
    }

    /// Checks invariant 3: no two values under one (group, instance, ballot).
    pub(crate) fn on_value(&mut self, group: usize, instance: Instance, ballot: Ballot, value: &Value) {
        let first = self.proposed.entry(((group, instance), ballot)).or_insert_with(|| value.clone());
        assert!(first == value, "two values for group {group}, {instance} under {ballot}");
    }

    /// Checks that the instance's chosen value was proposed in this instance under `ballot`.
    fn on_chosen_ballot(&self, group: usize, instance: Instance, ballot: Ballot) {
        if instance == Instance(0) {
            return;
        }
        let chosen = self.chosen.get(&(group, instance));
        assert!(chosen.is_some(), "{instance} of group {group} is called chosen too early");
        assert_eq!(self.proposed.get(&((group, instance), ballot)), chosen, "{instance} was not chosen under {ballot}");
    }

    /// Counts a durable record of `node`. Checks invariant 5: one chosen value per (group, instance), for ever.
    pub(crate) fn on_durable(&mut self, node: NodeId, group: usize, record: &Record) {
        let Record::Accepted { instance, ballot, value, .. } = record else { return };
        self.on_value(group, *instance, *ballot, value);
        let at = (group, *instance);
        let members = self.memberships.get(&at).expect("a voter knows that the preceding instance is chosen").clone();
        if !members.voters().contains(node) {
            return;
        }
        let votes = self.votes.entry((at, *ballot)).or_default();
        votes.insert(node);
        if votes.len() >= members.voters().quorum() {
            let chosen = self.chosen.entry(at).or_insert_with(|| value.clone());
            assert!(chosen == value, "two values chosen for group {group}, {instance}");
            self.memberships.entry((group, instance.following())).or_insert_with(|| after(members, value));
        }
    }

    /// Checks the members that a node at `next` knows.
    pub(crate) fn on_members(&self, group: usize, next: Instance, membership: &Membership) {
        assert_eq!(self.memberships.get(&(group, next)), Some(membership), "group {group} before {next}");
    }

    /// Returns the members of a group after its last chosen value.
    pub(crate) fn members(&self, group: usize) -> &Membership {
        let all = self.memberships.range((group, Instance(0))..(group + 1, Instance(0)));
        all.last().expect("each group begins with some").1
    }

    /// Checks that an applied value is chosen, and that all nodes have the same state after it.
    pub(crate) fn on_applied(&mut self, group: usize, instance: Instance, value: &Value, machine: &Machine) {
        let at = (group, instance);
        assert_eq!(self.chosen.get(&at), Some(value), "applied at {instance} without a majority of durable votes");
        let state = *self.states.entry(at).or_insert(machine.digest);
        assert!(state == machine.digest, "states of group {group} differ after {instance}");
    }

    /// Checks invariants 1 and 6 for a node at `next`.
    pub(crate) fn on_state(&mut self, node: NodeId, group: usize, next: Instance, chain: u32, promised: Ballot) {
        let known = *self.chains.entry((group, next)).or_insert(chain);
        assert!(known == chain, "chains of group {group} differ before {next}");
        let floor = self.promised.get(&(node, group)).copied().unwrap_or_default();
        assert!(promised >= floor, "{node} had promised {floor}, now {promised}");
    }

    pub(crate) fn on_acknowledged(&mut self, group: usize, name: Name, instance: Instance) {
        assert!(!self.withdrawn.contains(&name), "{name:?} was withdrawn");
        self.acknowledged.push((group, name));
        self.on_seen(group, instance);
    }

    pub(crate) fn on_withdrawn(&mut self, name: Name) {
        self.withdrawn.insert(name);
    }

    /// Notes that a client was told of the state after `instance`. From now on no client may be told of an earlier one.
    pub(crate) fn on_seen(&mut self, group: usize, instance: Instance) {
        let seen = self.seen.entry(group).or_default();
        *seen = instance.max(*seen);
    }

    /// Returns the instance that a read that begins now must see.
    pub(crate) fn seen(&self, group: usize) -> Instance {
        self.seen.get(&group).copied().unwrap_or_default()
    }

    /// Checks the final state: no acknowledged command is lost, no withdrawn one applied, and none applied twice.
    pub(crate) fn check_final(&self, group: usize, machine: &Machine) {
        let names: BTreeSet<Name> = machine.names.iter().copied().collect();
        assert_eq!(names.len(), machine.names.len(), "a command was applied twice");
        for (_, name) in self.acknowledged.iter().filter(|(of, _)| *of == group) {
            assert!(names.contains(name), "{name:?} was acknowledged and is lost");
        }
        let wrong = self.withdrawn.intersection(&names).next();
        assert!(wrong.is_none(), "{wrong:?} was withdrawn and applied");
    }
}

/// Returns the members after a value. Only the first valid change in it is made.
fn after(mut members: Membership, value: &Value) -> Membership {
    let mut changes = value.commands().filter_map(|command| MembershipChange::decode(command.body)?.ok());
    changes.find(|change| members.apply(change).is_ok());
    members
}

/// The durable promises and votes of one node.
#[derive(Debug, Default)]
pub(crate) struct Durable {
    promises: BTreeSet<(usize, Ballot)>,
    votes: BTreeSet<(usize, Instance, Ballot)>,
}

impl Durable {
    pub(crate) fn add(&mut self, group: usize, record: &Record) {
        match record {
            Record::Promised(ballot) => {
                self.promises.insert((group, *ballot));
            }
            Record::Accepted { instance, ballot, .. } => {
                self.promises.insert((group, *ballot));
                self.votes.insert((group, *instance, *ballot));
            }
            Record::Learned { .. } | Record::Position { .. } | Record::Lost { .. } => {}
        }
    }

    fn promised(&self, group: usize, ballot: Ballot) -> bool {
        self.promises.contains(&(group, ballot))
    }

    fn voted(&self, group: usize, instance: Instance, ballot: Ballot) -> bool {
        self.votes.contains(&(group, instance, ballot))
    }
}
