//! The learner: taking a value as chosen, and catching up.

use super::*;
use groups::message::{Ahead, PreVoted};

fn read_log(to: u32, from: u64, below: u64, chosen: Ballot) -> Effect {
    let (from, below) = (Instance(from), Instance(below));
    Effect::ReadLog { to: NodeId(to), from, below, chosen, bytes_max: WINDOW_BYTES }
}

/// Returns `count` consecutive values, chosen under ballot 1.1.
fn history(count: usize) -> Vec<Accepted> {
    let mut chain = 0;
    let mut next = || {
        let value = empty(chain);
        chain = value.next_chain();
        accepted(ballot(1, 1), &value)
    };
    (0..count).map(|_| next()).collect()
}

#[test]
fn the_value_voted_for_is_taken_as_chosen_under_its_very_ballot_without_a_record() {
    let mut member = Member::follower(3, ballot(1, 1));
    assert_eq!(member.handle(1, chosen(ballot(1, 1), 1)), [apply(1, &empty(0))]);
    assert_eq!(member.handle(1, chosen(ballot(1, 1), 1)), []);
    assert_eq!(member.group.chain(), empty(0).next_chain());
}

#[test]
fn under_another_ballot_the_value_is_fetched() {
    for other in [ballot(1, 2), ballot(3, 2)] {
        let mut member = Member::follower(3, ballot(2, 1));
        assert_eq!(member.handle(2, chosen(other, 1)), [send_durable(2, fetch(1))]);
        assert_eq!(member.group.next(), Instance(1));
    }
}

#[test]
fn a_later_choice_is_fetched_from_the_first_that_is_missing() {
    let mut member = Member::follower(3, ballot(1, 1));
    assert_eq!(member.handle(1, chosen(ballot(1, 1), 7)), [send_durable(1, fetch(1))]);
    assert_eq!(member.handle(1, chosen(ballot(1, 1), 8)), [], "asked already");
    assert!(member.group.is_behind());
}

#[test]
fn a_range_is_learned_in_order_and_acknowledged() {
    let mut member = Member::new(3, 3);
    member.handle(1, chosen(ballot(1, 1), 2));
    let values = history(2);
    let effects = member.handle(1, range(1, 3, values.clone()));
    let expected = [
        learned(ballot(1, 1), 1, Ballot::ZERO, &values[0].value),
        apply(1, &values[0].value),
        learned(ballot(1, 1), 2, ballot(1, 1), &values[1].value),
        apply(2, &values[1].value),
        send_durable(1, fetch(3)),
    ];
    assert_eq!(effects, expected);
    assert_eq!(member.handle(1, range(3, 3, vec![])), []);
    assert!(!member.group.is_behind());
}

#[test]
fn values_known_already_are_skipped_and_those_after_a_gap_are_not_taken() {
    let values = history(3);
    let mut member = Member::follower(3, ballot(1, 1));
    member.handle(1, chosen(ballot(1, 1), 1));
    assert_eq!(member.handle(1, range(3, 4, vec![values[2].clone()])), []);
    assert_eq!(member.group.next(), Instance(2));
    let effects = member.handle(1, range(1, 4, values.clone()));
    let applied: Vec<&Effect> = effects.iter().filter(|effect| matches!(effect, Effect::Apply { .. })).collect();
    assert_eq!(applied, [&apply(2, &values[1].value), &apply(3, &values[2].value)]);
}

#[test]
fn the_last_value_is_served_from_memory_and_older_ones_from_the_log() {
    let values = history(3);
    let mut member = Member::new(3, 3);
    member.handle(1, range(1, 4, values.clone()));
    assert_eq!(member.handle(2, fetch(3)), [send(2, range(3, 4, vec![values[2].clone()]))]);
    assert_eq!(member.handle(2, fetch(1)), [read_log(2, 1, 4, ballot(1, 1))]);
    assert_eq!(member.handle(2, fetch(4)), [send(2, range(4, 4, vec![]))]);
    assert_eq!(member.handle(2, fetch(9)), [send(2, range(9, 4, vec![]))]);
}

#[test]
fn one_who_caught_up_gets_the_accept_in_flight() {
    let mut member = Member::leader(3);
    assert_eq!(member.handle(3, fetch(1)), [send(3, accept(ballot(1, 1), 1, Ballot::ZERO, &empty(0)))]);
    member.handle(3, vote(ballot(1, 1), 1));
    assert_eq!(member.handle(3, fetch(1)), [send(3, range(1, 1, vec![]))], "it has voted");
}

#[test]
fn a_range_that_does_not_come_is_asked_of_the_next_member() {
    let mut member = Member::new(3, 5);
    member.handle(4, chosen(ballot(1, 1), 1));
    member.clock.mono_ms += Ms(999);
    assert_eq!(member.tick(), []);
    member.clock.mono_ms += Ms(1);
    assert_eq!(member.tick(), [send_durable(5, fetch(1))]);
    member.clock.mono_ms += Ms(1_000);
    assert_eq!(member.tick(), [send_durable(1, fetch(1))]);
}

#[test]
fn a_member_that_lacks_the_values_too_is_passed_over_at_once() {
    let mut member = Member::new(2, 3);
    member.handle(1, chosen(ballot(1, 1), 1));
    assert_eq!(member.handle(1, range(1, 1, vec![])), [send_durable(3, fetch(1))]);
    assert_eq!(member.handle(1, range(1, 1, vec![])), [], "not the one that was asked");
    assert_eq!(member.handle(3, range(1, 1, vec![])), [send_durable(1, fetch(1))]);
    assert_eq!(member.handle(1, range(1, 1, vec![])), [], "everybody was asked: time to wait");
}

#[test]
fn a_lost_connection_or_leader_is_asked_no_more() {
    let ask = || {
        let mut member = Member::follower(3, ballot(1, 1));
        member.handle(1, chosen(ballot(1, 1), 7));
        member
    };
    let mut member = ask();
    member.group.on_disconnected(NodeId(2));
    assert_eq!(member.tick(), []);
    member.group.on_disconnected(NodeId(1));
    assert_eq!(member.tick(), [send_durable(2, fetch(1))]);
    let mut member = ask();
    member.no_claim(1);
    assert_eq!(member.tick(), [send_durable(2, fetch(1))]);
}

#[test]
fn values_that_nobody_has_do_not_keep_it_from_campaigning() {
    let mut member = Member::new(1, 3);
    let clock = member.clock;
    member.call(|group, effects| group.note_ahead(NodeId(2), Instance(2), clock, effects));
    let asks = |effects: &[Effect]| {
        effects.iter().any(|effect| matches!(effect, Effect::Send { message: Message::PreVote(_), .. }))
    };
    member.clock.mono_ms += Ms(1_000);
    assert!(!asks(&member.tick()), "member 3 is asked first");
    member.clock.mono_ms += Ms(1_000);
    assert!(asks(&member.tick()), "whoever had the value is gone");
}

#[test]
fn a_vote_does_not_make_it_forget_what_is_missing() {
    let mut member = Member::new(3, 3);
    member.handle(1, chosen(ballot(1, 1), 1));
    member.handle(1, accept(ballot(1, 1), 1, Ballot::ZERO, &empty(0)));
    assert!(member.group.is_behind(), "the Chosen overtook the Accept");
    member.handle(1, range(1, 2, history(1)));
    assert_eq!(member.group.next(), Instance(2));
}

#[test]
fn a_candidate_that_is_behind_learns_first() {
    let mut member = Member::new(1, 3);
    member.campaign();
    let ahead = |ballot| Message::Ahead(Ahead { ballot, instance: Instance(1), next: Instance(2) });
    assert_eq!(member.handle(2, ahead(ballot(1, 1))), [send_durable(2, fetch(1))]);
    assert_eq!(member.handle(1, promise(ballot(1, 1), 1, 1, None)), []);
    assert_eq!(member.handle(3, promise(ballot(1, 1), 1, 1, None)), [], "no longer a candidate");
    member.handle(2, range(1, 2, history(1)));
    member.handle(2, range(2, 2, vec![]));
    let effects = member.campaign();
    assert_eq!(effects[0], promised(ballot(2, 1)), "then it tries with a higher ballot");
}

#[test]
fn an_ahead_for_another_ballot_ends_nothing_but_teaches() {
    let mut member = Member::new(1, 3);
    member.campaign();
    let ahead = Ahead { ballot: ballot(9, 1), instance: Instance(1), next: Instance(2) };
    assert_eq!(member.handle(2, Message::Ahead(ahead)), [send_durable(2, fetch(1))]);
    member.handle(1, promise(ballot(1, 1), 1, 1, None));
    assert_eq!(member.handle(3, promise(ballot(1, 1), 1, 1, None))[0], Effect::Leading(true));
}

#[test]
fn an_answer_that_tells_of_more_values_sends_the_asker_to_learn() {
    let mut member = Member::new(1, 3);
    member.clock.mono_ms += Ms(1_000);
    member.tick();
    let answer = PreVoted { number: 1, granted: true, next: Instance(2), promised: Ballot::ZERO };
    assert_eq!(member.handle(2, Message::PreVoted(answer)), [send_durable(2, fetch(1))]);
}

#[test]
fn a_leader_that_hears_of_its_instance_from_others_leads_no_longer() {
    let mut member = Member::leader(3);
    let theirs = accepted(ballot(5, 2), &value(0, 2, "theirs"));
    let effects = member.handle(2, range(1, 2, vec![theirs.clone()]));
    let learned = learned(ballot(5, 2), 1, Ballot::ZERO, &theirs.value);
    assert_eq!(effects, [learned, apply(1, &theirs.value), Effect::Leading(false)]);
}

#[test]
#[should_panic(expected = "group 0 differs from the majority before instance 1")]
fn a_member_that_differs_from_what_a_majority_chose_stops() {
    let mut member = Member::new(3, 3);
    for from in [1, 2] {
        member.handle(from, range(1, 2, vec![accepted(ballot(1, 1), &empty(99))]));
    }
}

#[test]
fn what_one_member_alone_tells_does_not_stop_another_that_differs() {
    let values = history(2);
    let mut member = Member::new(3, 3);
    member.handle(1, chosen(ballot(1, 1), 2));
    let strange = || range(1, 3, vec![accepted(ballot(1, 1), &empty(99))]);
    assert_eq!(member.handle(1, strange()), [send_durable(2, fetch(1))], "it asks the next member");
    assert_eq!(member.handle(1, strange()), []);
    member.handle(2, range(1, 3, values));
    assert_eq!(member.group.next(), Instance(3));
}

#[test]
fn a_window_larger_than_ones_own_is_not_served() {
    let mut member = Member::new(3, 3);
    member.handle(1, range(1, 4, history(3)));
    let question = Fetch { from: Instance(1), bytes_max: u32::MAX };
    assert_eq!(member.handle(2, Message::Fetch(question)), [read_log(2, 1, 4, ballot(1, 1))]);
}
