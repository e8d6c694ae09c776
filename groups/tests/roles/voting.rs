//! The acceptor: promises and votes, each sent after its record is durable.

use super::*;
use groups::message::{Ahead, Behind, Diverged, Reject};

fn ahead(ballot: Ballot, instance: u64, next: u64) -> Message {
    Message::Ahead(Ahead { ballot, instance: Instance(instance), next: Instance(next) })
}

fn behind(ballot: Ballot, instance: u64, next: u64) -> Message {
    Message::Behind(Behind { ballot, instance: Instance(instance), next: Instance(next) })
}

fn reject(ballot: Ballot, instance: u64, promised: Ballot) -> Message {
    Message::Reject(Reject { ballot, instance: Instance(instance), promised })
}

/// Returns member 3 at instance 2: the empty value of instance 1 was chosen under ballot 1.1.
fn at_two() -> Member {
    let mut member = Member::follower(3, ballot(1, 1));
    assert_eq!(member.handle(1, chosen(ballot(1, 1), 1)), [apply(1, &empty(0))]);
    member
}

#[test]
fn a_prepare_is_promised_behind_its_record() {
    let mut member = Member::new(3, 3);
    let effects = member.handle(2, prepare(ballot(1, 2), 1));
    assert_eq!(effects, [promised(ballot(1, 2)), send_durable(2, promise(ballot(1, 2), 1, 1, None))]);
    assert_eq!(member.group.promised(), ballot(1, 2));
}

#[test]
fn a_repeated_prepare_is_answered_behind_the_same_record() {
    let mut member = Member::new(3, 3);
    member.handle(2, prepare(ballot(1, 2), 1));
    assert_eq!(member.handle(2, prepare(ballot(1, 2), 1)), [send_durable(2, promise(ballot(1, 2), 1, 1, None))]);
}

#[test]
fn a_prepare_below_the_promise_is_refused() {
    let mut member = Member::new(3, 3);
    member.handle(2, prepare(ballot(2, 2), 1));
    assert_eq!(member.handle(1, prepare(ballot(2, 1), 1)), [send(1, reject(ballot(2, 1), 1, ballot(2, 2)))]);
    assert_eq!(member.group.promised(), ballot(2, 2));
}

#[test]
fn a_prepare_for_an_earlier_instance_gets_no_promise() {
    let mut member = at_two();
    assert_eq!(member.handle(2, prepare(ballot(9, 2), 1)), [send(2, ahead(ballot(9, 2), 1, 2))]);
    assert_eq!(member.group.promised(), ballot(1, 1));
}

#[test]
fn a_prepare_for_a_later_instance_is_promised_without_the_vote_for_this_one() {
    let mut member = Member::follower(3, ballot(1, 1));
    let effects = member.handle(2, prepare(ballot(2, 2), 5));
    assert_eq!(effects, [promised(ballot(2, 2)), send_durable(2, promise(ballot(2, 2), 5, 1, None))]);
    let effects = member.handle(1, prepare(ballot(3, 1), 1));
    let vote = Some(accepted(ballot(1, 1), &empty(0)));
    assert_eq!(effects, [promised(ballot(3, 1)), send_durable(1, promise(ballot(3, 1), 1, 1, vote))]);
}

#[test]
fn a_promise_tells_of_the_vote_also_when_it_is_repeated() {
    let mut member = Member::follower(3, ballot(1, 1));
    let vote = Some(accepted(ballot(1, 1), &empty(0)));
    let effects = member.handle(1, prepare(ballot(1, 1), 1));
    assert_eq!(effects, [send_durable(1, promise(ballot(1, 1), 1, 1, vote))]);
}

#[test]
fn strangers_and_those_who_use_anothers_ballot_get_no_answer() {
    let mut member = Member::new(3, 3);
    assert_eq!(member.handle(9, prepare(ballot(1, 9), 1)), []);
    assert_eq!(member.handle(2, prepare(ballot(1, 1), 1)), []);
    assert_eq!(member.handle(2, accept(ballot(1, 1), 1, Ballot::ZERO, &empty(0))), []);
    assert_eq!(member.group.promised(), Ballot::ZERO);
}

#[test]
fn a_leader_that_promises_a_higher_ballot_leads_no_longer() {
    let mut member = Member::established(3);
    let effects = member.handle(2, prepare(ballot(2, 2), 2));
    let promise = promise(ballot(2, 2), 2, 2, None);
    assert_eq!(effects, [promised(ballot(2, 2)), Effect::Leading(false), send_durable(2, promise)]);
    assert_eq!((member.group.leads(), member.group.leader()), (None, None));
}

#[test]
fn an_accept_is_voted_for_behind_its_record() {
    let mut member = Member::new(3, 3);
    let one = value(0, 1, "one");
    let effects = member.handle(1, accept(ballot(1, 1), 1, Ballot::ZERO, &one));
    let expected = [voted(ballot(1, 1), 1, Ballot::ZERO, &one), send_durable(1, vote(ballot(1, 1), 1))];
    assert_eq!(effects, expected);
    assert_eq!((member.group.promised(), member.group.leader()), (ballot(1, 1), Some(ballot(1, 1))));
}

#[test]
fn a_repeated_accept_is_answered_behind_the_same_record() {
    let mut member = Member::follower(3, ballot(1, 1));
    let effects = member.handle(1, accept(ballot(1, 1), 1, Ballot::ZERO, &empty(0)));
    assert_eq!(effects, [send_durable(1, vote(ballot(1, 1), 1))]);
}

#[test]
fn a_higher_ballot_replaces_the_vote_and_a_lower_one_is_refused() {
    let mut member = Member::follower(3, ballot(2, 1));
    let other = value(0, 2, "other");
    let effects = member.handle(2, accept(ballot(2, 2), 1, Ballot::ZERO, &other));
    let expected = [voted(ballot(2, 2), 1, Ballot::ZERO, &other), send_durable(2, vote(ballot(2, 2), 1))];
    assert_eq!(effects, expected);
    let effects = member.handle(1, accept(ballot(2, 1), 1, Ballot::ZERO, &empty(0)));
    assert_eq!(effects, [send(1, reject(ballot(2, 1), 1, ballot(2, 2)))]);
    let effects = member.handle(1, prepare(ballot(3, 1), 1));
    assert_eq!(effects[1], send_durable(1, promise(ballot(3, 1), 1, 1, Some(accepted(ballot(2, 2), &other)))));
}

#[test]
fn an_accept_for_an_earlier_instance_gets_no_vote() {
    let mut member = at_two();
    let effects = member.handle(1, accept(ballot(1, 1), 1, Ballot::ZERO, &empty(0)));
    assert_eq!(effects, [send(1, ahead(ballot(1, 1), 1, 2))]);
}

#[test]
fn an_accept_for_a_later_instance_gets_no_vote_but_a_question() {
    let mut member = Member::new(3, 3);
    let effects = member.handle(1, accept(ballot(1, 1), 3, ballot(1, 1), &empty(9)));
    assert_eq!(effects, [send(1, behind(ballot(1, 1), 3, 1)), send_durable(1, fetch(1))]);
    assert_eq!(member.group.promised(), Ballot::ZERO);
    assert!(member.group.is_behind());
}

#[test]
fn the_next_accept_tells_that_the_value_voted_for_was_chosen() {
    let mut member = Member::follower(3, ballot(1, 1));
    let two = value(empty(0).next_chain(), 1, "two");
    let effects = member.handle(1, accept(ballot(1, 1), 2, ballot(1, 1), &two));
    let vote = send_durable(1, vote(ballot(1, 1), 2));
    assert_eq!(effects, [apply(1, &empty(0)), voted(ballot(1, 1), 2, ballot(1, 1), &two), vote]);
}

#[test]
fn a_value_voted_for_under_another_ballot_than_the_chosen_one_is_not_taken_for_it() {
    for chosen in [ballot(1, 2), ballot(3, 1)] {
        let mut member = Member::follower(3, ballot(2, 1));
        let effects = member.handle(1, accept(ballot(4, 1), 2, chosen, &empty(9)));
        assert_eq!(effects, [send(1, behind(ballot(4, 1), 2, 1)), send_durable(1, fetch(1))]);
        assert_eq!(member.group.next(), Instance(1));
        let vote = Some(accepted(ballot(2, 1), &empty(0)));
        let effects = member.handle(2, prepare(ballot(5, 2), 1));
        assert_eq!(effects[1], send_durable(2, promise(ballot(5, 2), 1, 1, vote)), "it keeps its vote");
    }
}

#[test]
fn an_accept_below_the_promise_still_tells_what_was_chosen_before() {
    let mut member = Member::follower(3, ballot(1, 1));
    member.handle(2, prepare(ballot(2, 2), 1));
    let two = empty(empty(0).next_chain());
    let effects = member.handle(1, accept(ballot(1, 1), 2, ballot(1, 1), &two));
    assert_eq!(effects, [apply(1, &empty(0)), send(1, reject(ballot(1, 1), 2, ballot(2, 2)))]);
}

#[test]
fn a_value_after_other_values_than_this_members_gets_no_vote() {
    let mut member = at_two();
    let effects = member.handle(1, accept(ballot(1, 1), 2, ballot(1, 1), &empty(99)));
    let diverged = Diverged { ballot: ballot(1, 1), instance: Instance(2) };
    assert_eq!(effects, [send(1, Message::Diverged(diverged))]);
}

#[test]
fn the_promise_lasts_over_instances() {
    let mut member = at_two();
    member.handle(2, prepare(ballot(5, 2), 2));
    let two = empty(empty(0).next_chain());
    assert_eq!(member.handle(1, range(2, 3, vec![accepted(ballot(1, 1), &two)]))[1], apply(2, &two));
    let effects = member.handle(1, accept(ballot(1, 1), 3, ballot(1, 1), &empty(two.next_chain())));
    assert_eq!(effects, [send(1, reject(ballot(1, 1), 3, ballot(5, 2)))]);
}

#[test]
fn a_second_value_under_one_ballot_gets_no_vote_and_is_said_to_differ() {
    let mut member = Member::follower(3, ballot(1, 1));
    let effects = member.handle(1, accept(ballot(1, 1), 1, Ballot::ZERO, &value(0, 1, "another")));
    let diverged = Diverged { ballot: ballot(1, 1), instance: Instance(1) };
    assert_eq!(effects, [send(1, Message::Diverged(diverged))]);
    assert_eq!(member.handle(1, chosen(ballot(1, 1), 1)), [apply(1, &empty(0))], "the first vote stands");
}
