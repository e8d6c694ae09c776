//! The divergence check: members compare the digest in a value with that of their own state before it.

use super::*;
use groups::RestoreError;
use groups::message::Diverged;

const OLD: Ballot = Ballot { round: 1, node: NodeId(1) };

/// Returns a value without commands for instance 2, proposed in a state with the digest `digest`.
fn second(digest: u64) -> Value {
    ValueBuilder::default().seal(first().next_chain(), Ms(50_000), Some(digest))
}

/// Returns the value of instance 1.
fn first() -> Value {
    value(0, 1, "one")
}

/// Returns the digest of [`Bodies`] after [`first`].
fn right() -> u64 {
    Bodies(vec![b"one".to_vec()]).digest()
}

/// Returns member 3, which has voted for the first value and does not know that it was chosen.
fn voter() -> Member {
    let mut member = Member::new(3, 3);
    member.handle(1, accept(OLD, 1, Ballot::ZERO, &first()));
    member
}

/// Returns the error of a member that finds the digest `chosen` in the chosen value of instance 2.
fn differing(chosen: u64) -> StateDiffers {
    StateDiffers { group: GroupId(0), instance: Instance(2), own: right(), chosen }
}

#[test]
fn an_acceptor_votes_in_the_same_state_only() {
    let mut member = voter();
    let effects = member.handle(1, accept(OLD, 2, OLD, &second(right() + 1)));
    let diverged = Message::Diverged(Diverged { ballot: OLD, instance: Instance(2) });
    assert_eq!(effects, [apply(1, &first()), send(1, diverged)]);
    let effects = member.handle(1, accept(OLD, 2, OLD, &second(right())));
    assert_eq!(effects.last(), Some(&send_durable(1, vote(OLD, 2))));
}

#[test]
fn a_leader_tells_its_state_once_all_members_can_read_that() {
    let mut member = Member::established(3);
    member.submit("one");
    let proposed = |effects: Vec<Effect>| match &effects[0] {
        Effect::Send { message: Message::Accept(accept), .. } => accept.value.digest(),
        other => panic!("{other:?} is no Accept"),
    };
    assert_eq!(proposed(member.flush()), None);
    member.group.tell_digest(true);
    for from in [1, 2] {
        member.handle(from, vote(OLD, 2));
    }
    member.submit("two");
    assert_eq!(proposed(member.flush()), Some(right()));
}

#[test]
fn a_candidate_is_not_bound_to_what_was_accepted_in_another_state() {
    let mut member = voter();
    member.handle(1, chosen(OLD, 1));
    member.no_claim(1);
    member.campaign();
    let mine = ballot(2, 3);
    member.handle(3, promise(mine, 2, 2, None));
    member.handle(1, promise(mine, 2, 2, Some(accepted(OLD, &second(right() + 1)))));
    assert_eq!(member.group.leads(), None, "that promise does not count");
    member.handle(2, promise(mine, 2, 2, None));
    assert_eq!(member.group.leads(), Some(mine));
}

#[test]
fn whoever_differs_from_what_was_chosen_applies_nothing_more() {
    let mut member = voter();
    member.handle(1, range(1, 3, vec![accepted(OLD, &first()), accepted(OLD, &second(right()))]));
    assert_eq!(member.differs, None);
    let mut member = voter();
    member.handle(1, range(1, 3, vec![accepted(OLD, &first()), accepted(OLD, &second(5))]));
    assert_eq!(member.differs, Some(differing(5)));
    assert_eq!(member.log.0, [b"one"]);
}

#[test]
fn recovery_ends_where_the_state_is_another_one() {
    let mut member = Member::new(3, 3);
    let (clock, mut restored) = (member.clock, Ok(()));
    let Effect::Persist(record) = learned(OLD, 1, Ballot::ZERO, &first()) else { unreachable!() };
    member.call(|group, effects| restored = group.restore(record, clock, effects));
    let Effect::Persist(record) = learned(OLD, 2, OLD, &second(5)) else { unreachable!() };
    member.call(|group, effects| restored = group.restore(record, clock, effects));
    assert_eq!((restored, member.differs), (Ok(()), Some(differing(5))));
    let text = RestoreError::from(differing(5)).to_string();
    assert!(text.contains("before instance 2") && text.ends_with("replace it under a new id"), "{text}");
}
