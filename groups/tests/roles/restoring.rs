//! Recovery: a group's records, in the order in which they were written, restore its state.

use super::*;
use groups::RestoreError;

const OLD: Ballot = Ballot { round: 1, node: NodeId(1) };
const NEW: Ballot = Ballot { round: 2, node: NodeId(2) };

fn record(effect: Effect) -> Record {
    let Effect::Persist(record) = effect else { panic!("{effect:?} is no record") };
    record
}

pub(super) fn restore(member: &mut Member, effect: Effect) -> Result<Vec<Effect>, RestoreError> {
    let (clock, mut result) = (member.clock, Ok(()));
    let effects = member.call(|group, effects| result = group.restore(record(effect), clock, effects));
    result.map(|()| effects)
}

pub(super) fn restored(records: Vec<Effect>) -> Member {
    let mut member = Member::new(3, 3);
    for effect in records {
        restore(&mut member, effect).expect("the records follow each other");
    }
    member
}

/// Returns the `next` and the vote in the member's promise at its `next`.
fn promise_of(member: &mut Member) -> (u64, Option<Accepted>) {
    let next = member.group.next().0;
    let effects = member.handle(2, prepare(ballot(99, 2), next));
    let Some(Effect::SendDurable { message: Message::Promise(promise), .. }) = effects.last() else {
        panic!("no promise: {effects:?}")
    };
    (promise.next.0, promise.accepted.clone())
}

#[test]
fn an_empty_log_is_a_group_in_which_nothing_happened() {
    assert_eq!(promise_of(&mut restored(vec![])), (1, None));
}

#[test]
fn promises_only_rise() {
    let member = restored(vec![promised(NEW), promised(OLD)]);
    assert_eq!(member.group.promised(), NEW);
    let mut member = restored(vec![promised(ballot(7, 3))]);
    assert_eq!(member.campaign()[0], promised(ballot(8, 3)), "a restarted node uses a new ballot");
}

#[test]
fn the_last_vote_stands_and_promises_its_ballot() {
    let (one, other) = (value(0, 1, "one"), value(0, 2, "other"));
    let mut member = restored(vec![voted(OLD, 1, Ballot::ZERO, &one), voted(NEW, 1, Ballot::ZERO, &other)]);
    assert_eq!(member.group.promised(), NEW);
    assert_eq!(promise_of(&mut member), (1, Some(accepted(NEW, &other))));
}

#[test]
fn a_vote_behind_a_higher_promise_is_kept_in_either_order() {
    let one = value(0, 1, "one");
    let vote = || voted(OLD, 1, Ballot::ZERO, &one);
    for records in [vec![vote(), promised(NEW)], vec![promised(NEW), vote()], vec![vote(), promised(NEW), vote()]] {
        let mut member = restored(records);
        assert_eq!(member.group.promised(), NEW);
        assert_eq!(promise_of(&mut member), (1, Some(accepted(OLD, &one))));
    }
}

#[test]
fn a_vote_for_the_following_instance_tells_what_was_chosen() {
    let (one, two) = (value(0, 1, "one"), value(value(0, 1, "one").next_chain(), 2, "two"));
    let mut member = restored(vec![voted(OLD, 1, Ballot::ZERO, &one)]);
    assert_eq!(restore(&mut member, voted(NEW, 2, OLD, &two)), Ok(vec![apply(1, &one)]));
    assert_eq!(promise_of(&mut member), (2, Some(accepted(NEW, &two))));
    assert_eq!(member.log.0, [b"one"]);
}

#[test]
fn learned_values_are_applied_and_end_the_vote_of_their_instance() {
    let (one, theirs) = (value(0, 1, "one"), value(0, 2, "theirs"));
    let mut member = restored(vec![voted(OLD, 1, Ballot::ZERO, &one)]);
    assert_eq!(restore(&mut member, learned(NEW, 1, Ballot::ZERO, &theirs)), Ok(vec![apply(1, &theirs)]));
    assert_eq!(promise_of(&mut member), (2, None));
    assert_eq!(member.handle(1, fetch(1)), [send(1, range(1, 2, vec![accepted(NEW, &theirs)]))]);
}

#[test]
fn a_learned_value_tells_that_the_vote_before_it_was_chosen() {
    let (one, two) = (value(0, 1, "one"), value(value(0, 1, "one").next_chain(), 2, "two"));
    let mut member = restored(vec![voted(OLD, 1, Ballot::ZERO, &one)]);
    assert_eq!(restore(&mut member, learned(NEW, 2, OLD, &two)), Ok(vec![apply(1, &one), apply(2, &two)]));
    assert_eq!((member.group.next(), member.group.chain()), (Instance(3), two.next_chain()));
}

#[test]
fn a_value_that_does_not_follow_is_an_error() {
    let mut member = Member::new(3, 3);
    let wrong = value(99, 1, "wrong");
    assert_eq!(restore(&mut member, voted(OLD, 1, Ballot::ZERO, &wrong)), Err(RestoreError::Chain(Instance(1))));
    assert_eq!(restore(&mut member, learned(OLD, 1, Ballot::ZERO, &wrong)), Err(RestoreError::Chain(Instance(1))));
}

#[test]
fn two_values_under_one_ballot_are_an_error() {
    let mut member = restored(vec![voted(OLD, 1, Ballot::ZERO, &value(0, 1, "one"))]);
    let error = RestoreError::TwoValues { instance: Instance(1), ballot: OLD };
    assert_eq!(restore(&mut member, voted(OLD, 1, Ballot::ZERO, &value(0, 2, "other"))), Err(error));
}

#[test]
fn what_a_member_wrote_restores_to_what_it_was() {
    let mut member = Member::new(3, 3);
    let one = value(0, 1, "one");
    let two = value(one.next_chain(), 2, "two");
    let mut records: Vec<Effect> = Vec::new();
    for (from, message) in [
        (1, prepare(OLD, 1)),
        (1, accept(OLD, 1, Ballot::ZERO, &one)),
        (1, accept(OLD, 2, OLD, &two)),
        (2, prepare(NEW, 2)),
        (2, range(2, 3, vec![accepted(NEW, &two)])),
        (2, accept(NEW, 3, NEW, &empty(two.next_chain()))),
    ] {
        let effects = member.handle(from, message);
        records.extend(effects.into_iter().filter(|effect| matches!(effect, Effect::Persist(_))));
    }
    let mut again = restored(records);
    assert_eq!(again.log.0, member.log.0);
    assert_eq!(again.group.next(), member.group.next());
    assert_eq!(again.group.chain(), member.group.chain());
    assert_eq!(again.group.promised(), member.group.promised());
    assert_eq!(promise_of(&mut again), promise_of(&mut member));
}
