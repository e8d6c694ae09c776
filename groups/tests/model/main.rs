//! Model checker: explores every interleaving, within small bounds, of the shipped acceptor and proposer. Two of three
//! members propose. Messages are lost, duplicated and late, disks lose unsynced records, and members crash and restart.
//!
//! The simulation checks a few long runs of everything; this checks all short runs of the two types that hold the rules
//! of Paxos. [`Mistake`]s show that the properties can fail: each is injected around the shipped code, and the checker
//! must find each. `PAXOI_MODEL=2,1,1` adds a check with other bounds: the rounds of proposer 1, the rounds of
//! proposer 2, and the crashes.

mod properties;
mod world;

use properties::{ADOPTED, AGREEMENT, COUNTED, LEARNED, ONE_PER_BALLOT, RESTARTED, SECOND_CHOSEN};
use stateright::{Checker, Expectation, HasDiscoveries, Model};
use std::io::{Write as _, stderr};
use std::time::Instant;
use world::{Bounds, Mistake, Paxos};

/// Threads of one check. If one of several threads ends early or panics, the other threads can wait for each other for
/// ever (stateright 0.31). The checks run side by side instead.
const THREADS: usize = 1;

/// Checks every state that is reachable within `bounds`. Fails if there are fewer than `states_min` states, or if a
/// "sometimes" property outside `never` holds in no state: the model then no longer covers a case that it should.
#[allow(
    clippy::explicit_write,
    reason = "the output of macros is hidden if the test passes, but the number of checked states is a result"
)]
fn expect_sound(bounds: Bounds, states_min: usize, never: &[&str]) {
    let began = Instant::now();
    let checker = Paxos::new(bounds, None).checker().threads(THREADS).spawn_bfs().join();
    let (states, depth, seconds) = (checker.unique_state_count(), checker.max_depth(), began.elapsed().as_secs_f64());
    writeln!(stderr(), "model: {states} different states, up to {depth} steps, in {seconds:.1} s: {bounds:?}").unwrap();
    for property in checker.model().properties() {
        match property.expectation {
            Expectation::Sometimes if !never.contains(&property.name) => {
                assert!(checker.discovery(property.name).is_some(), "not in any of {states} states: {}", property.name);
            }
            // An "always" property must never fail, and these bounds rule out the "sometimes" properties in `never`.
            _ => checker.assert_no_discovery(property.name),
        }
    }
    assert!(states >= states_min, "{bounds:?}: only {states} states, not {states_min}: which steps are lost?");
}

#[test]
fn two_proposers_agree() {
    expect_sound(Bounds { rounds: [1, 2], crashes: 0 }, 816_000, &[RESTARTED]);
}

#[test]
fn two_proposers_and_a_crash_agree() {
    expect_sound(Bounds { rounds: [1, 1], crashes: 1 }, 123_000, &[]);
}

#[test]
fn a_proposer_that_crashes_agrees_with_itself() {
    expect_sound(Bounds { rounds: [2, 0], crashes: 1 }, 115_000, &[SECOND_CHOSEN, ADOPTED]);
}

#[test]
fn bounds_of_the_environment() {
    let Ok(text) = std::env::var("PAXOI_MODEL") else { return };
    let numbers: Option<Vec<u8>> = text.split(',').map(|number| number.parse().ok()).collect();
    let Some(&[first, second, crashes]) = numbers.as_deref() else {
        panic!("PAXOI_MODEL must be like 2,1,1 (rounds of proposers 1 and 2, crashes), not {text:?}");
    };
    expect_sound(
        Bounds { rounds: [first.into(), second.into()], crashes },
        1,
        if crashes == 0 { &[RESTARTED] } else { &[] },
    );
}

/// Injects `mistake`, and expects the checker to find steps after which `property` does not hold.
#[track_caller]
fn expect_found(mistake: Mistake, rounds: [u64; 2], crashes: u8, property: &'static str) {
    let finish = HasDiscoveries::AllOf([property].into());
    let model = Paxos::new(Bounds { rounds, crashes }, Some(mistake));
    let checker = model.checker().threads(THREADS).finish_when(finish).spawn_bfs().join();
    let states = checker.unique_state_count();
    let Some(path) = checker.discovery(property) else {
        panic!("{mistake:?} does not break {property:?} in {states} states");
    };
    eprintln!("{mistake:?} breaks {property:?} after {states} states: {:?}", path.into_actions());
}

#[test]
fn an_acceptor_that_forgets_on_restart_is_found() {
    expect_found(Mistake::ForgetsOnRestart, [1, 1], 1, AGREEMENT);
}

#[test]
fn a_vote_before_its_record_is_found() {
    expect_found(Mistake::AnswersBeforeDurable, [1, 1], 1, AGREEMENT);
}

#[test]
fn a_repeated_vote_before_its_record_is_found() {
    expect_found(Mistake::RepeatsBeforeDurable, [1, 1], 1, AGREEMENT);
}

#[test]
fn a_ballot_used_before_its_record_is_found() {
    expect_found(Mistake::PreparesBeforeDurable, [1, 0], 1, ONE_PER_BALLOT);
}

#[test]
fn a_proposer_that_ignores_an_accepted_value_is_found() {
    expect_found(Mistake::IgnoresAccepted, [1, 1], 0, AGREEMENT);
}

#[test]
fn votes_for_another_ballot_are_found() {
    expect_found(Mistake::CountsStrayVotes, [2, 0], 0, COUNTED);
}

#[test]
fn a_promise_that_goes_back_is_found() {
    expect_found(Mistake::LowersPromise, [1, 1], 0, AGREEMENT);
}

#[test]
fn a_learner_that_does_not_compare_ballots_is_found() {
    expect_found(Mistake::LearnsOtherBallot, [1, 1], 0, LEARNED);
}
