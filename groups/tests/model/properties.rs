//! Properties that must hold in every state, and some that must hold in at least one state. The latter show that the
//! former are not vacuously true.

use crate::world::{Paxos, Said, State};
use groups::{Ballot, NodeId, Value};
use stateright::Property;

type Rule = Property<Paxos>;

pub(crate) const AGREEMENT: &str = "at most one value is chosen";
pub(crate) const ONE_PER_BALLOT: &str = "a ballot has one value";
pub(crate) const COUNTED: &str = "what a proposer takes for chosen is chosen";
pub(crate) const LEARNED: &str = "what a member learns is chosen";
pub(crate) const SECOND_CHOSEN: &str = "member 2 has its value chosen";
pub(crate) const ADOPTED: &str = "a value is chosen under another member's ballot";
pub(crate) const RESTARTED: &str = "a restarted proposer's value is chosen";

pub(crate) fn all() -> Vec<Rule> {
    vec![
        Rule::always(AGREEMENT, |model, state| {
            let mut chosen = chosen(model, state).map(|(_, value)| value);
            let first = chosen.next();
            chosen.all(|value| Some(value) == first)
        }),
        Rule::always("a chosen value was proposed", |model, state| {
            let asked = |value| (1..=2).any(|node| origin(model, state, NodeId(node), value));
            chosen(model, state).all(|(_, value)| asked(value))
        }),
        Rule::always(ONE_PER_BALLOT, |_, state| {
            let proposed: Vec<Ballot> = accepts(state).map(|(ballot, _)| ballot).collect();
            proposed.windows(2).all(|two| two[0] != two[1])
        }),
        Rule::always("what a member promised and voted is on its disk", |_, state| {
            state.said.iter().all(|said| is_durable(state, said))
        }),
        Rule::always("a disk never lowers a promise or changes a ballot's value", |_, state| !state.disk_contradicts),
        Rule::always(COUNTED, |model, state| {
            let counted = state.members.iter().filter_map(|member| {
                let proposer = member.proposer.as_ref()?;
                let votes =
                    model.voters().ids().iter().filter(|&&node| proposer.has_vote(node, model.voters())).count();
                proposer.proposed().filter(|_| votes >= model.voters().quorum())
            });
            counted.into_iter().all(|value| chosen(model, state).any(|(_, chosen)| chosen == value))
        }),
        Rule::always(LEARNED, |model, state| {
            let learners =
                |ballot| model.voters().ids().iter().filter_map(move |&node| model.learned(state, node, ballot));
            chosen(model, state).all(|(ballot, value)| learners(ballot).all(|learned| learned == value))
        }),
        Rule::sometimes("member 1 has its value chosen", |model, state| choice_of(model, state, NodeId(1))),
        Rule::sometimes(SECOND_CHOSEN, |model, state| choice_of(model, state, NodeId(2))),
        Rule::sometimes(ADOPTED, |model, state| {
            chosen(model, state).any(|(ballot, value)| !origin(model, state, ballot.node, value))
        }),
        Rule::sometimes("a value is chosen under two ballots", |model, state| chosen(model, state).count() > 1),
        Rule::sometimes(RESTARTED, |model, state| {
            let later = |node| model.own_values(node).iter().skip(1);
            chosen(model, state).any(|(ballot, value)| later(ballot.node).any(|own| own == value))
        }),
    ]
}

fn accepts(state: &State) -> impl Iterator<Item = (Ballot, &Value)> {
    state.said.iter().filter_map(|said| match said {
        Said::Accept { ballot, value } => Some((*ballot, value)),
        _ => None,
    })
}

/// Returns every value with a majority of votes under one ballot, whether or not any member knows of it.
fn chosen<'s>(model: &Paxos, state: &'s State) -> impl Iterator<Item = (Ballot, &'s Value)> {
    let quorum = model.voters().quorum();
    let votes =
        |of| state.said.iter().filter(|said| matches!(said, Said::Vote { ballot, .. } if *ballot == of)).count();
    accepts(state).filter(move |(ballot, _)| votes(*ballot) >= quorum)
}

/// Returns true if `node`'s own client asked for `value`.
fn origin(model: &Paxos, state: &State, node: NodeId, value: &Value) -> bool {
    model.own_values(node).iter().take(usize::from(state.member(node).restarts) + 1).any(|own| own == value)
}

fn choice_of(model: &Paxos, state: &State, node: NodeId) -> bool {
    chosen(model, state).any(|(_, value)| origin(model, state, node, value))
}

fn is_durable(state: &State, said: &Said) -> bool {
    match said {
        Said::Promise { from, ballot, .. } => state.member(*from).disk.promised() >= *ballot,
        Said::Vote { from, ballot } => {
            state.member(*from).disk.accepted().is_some_and(|accepted| accepted.ballot >= *ballot)
        }
        Said::Prepare { ballot } => state.member(ballot.node).disk.promised() >= *ballot,
        Said::Accept { .. } => true,
    }
}
