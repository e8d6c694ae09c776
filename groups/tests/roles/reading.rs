//! Reads: questions, answers, and the point from which a read may see the state.

use super::*;
use groups::message::Reject;
use groups::{Confirmation, ConfirmationOutcome, LeadershipAnswer};

const LEADER: Ballot = Ballot { round: 1, node: NodeId(1) };

fn ask(member: &mut Member, number: u64) -> (Option<Ballot>, Vec<Effect>) {
    let mut asked = None;
    let effects = member.call(|group, effects| asked = group.ask(number, effects));
    (asked, effects)
}

fn ready(member: &mut Member) -> Vec<u64> {
    let mut ready = Vec::new();
    member.group.take_ready(&mut ready);
    ready
}

#[test]
fn a_read_is_answered_after_a_question_that_began_after_it() {
    let mut member = Member::follower(2, LEADER);
    member.group.read(1);
    assert_eq!(ask(&mut member, 10), (Some(LEADER), vec![]));
    assert_eq!(ask(&mut member, 11), (None, vec![]), "nothing new to ask for");
    member.group.read(2);
    member.group.on_confirmed(10, LEADER, Instance(0));
    assert_eq!(ready(&mut member), [1]);
    assert!(member.group.has_fresh_reads());
    assert_eq!(ask(&mut member, 12), (Some(LEADER), vec![]));
    member.group.on_confirmed(12, LEADER, Instance(1));
    assert_eq!(ready(&mut member), [], "instance 1 is not applied here");
    member.handle(1, chosen(LEADER, 1));
    assert_eq!(ready(&mut member), [2]);
}

#[test]
fn a_read_waits_for_its_nodes_earlier_commands() {
    let mut member = Member::follower(2, LEADER);
    member.submit("before");
    member.group.read(1);
    member.submit("after");
    ask(&mut member, 1);
    member.group.on_confirmed(1, LEADER, Instance(0));
    assert_eq!(ready(&mut member), []);
    member.handle(1, range(1, 2, vec![accepted(LEADER, &value(0, 2, "before"))]));
    assert_eq!(ready(&mut member), [1]);
}

#[test]
fn without_a_leader_nothing_is_asked() {
    let mut member = Member::new(2, 3);
    member.group.read(1);
    assert_eq!(ask(&mut member, 1), (None, vec![]));
    assert!(member.group.has_fresh_reads());
}

#[test]
fn an_asker_that_promised_more_asks_nothing_and_tells_the_leader() {
    let mut member = Member::follower(2, LEADER);
    member.handle(3, prepare(ballot(2, 3), 1));
    member.group.read(1);
    assert_eq!(member.group.leader(), Some(LEADER), "it has not heard that 3 leads");
    let told = Reject { ballot: LEADER, instance: Instance(1), promised: ballot(2, 3) };
    assert_eq!(ask(&mut member, 1), (None, vec![send(1, Message::Reject(told))]));
    assert!(member.group.has_fresh_reads());
}

#[test]
fn answers_after_a_change_of_leader_confirm_nothing() {
    let mut member = Member::follower(2, LEADER);
    member.group.read(1);
    ask(&mut member, 1);
    member.claim(ballot(2, 3));
    member.group.on_confirmed(1, LEADER, Instance(0));
    assert_eq!(ready(&mut member), []);
    assert_eq!(ask(&mut member, 2), (Some(ballot(2, 3)), vec![]));
    member.group.on_confirmed(2, LEADER, Instance(0));
    assert_eq!(ready(&mut member), [], "of another ballot");
    member.group.on_confirmed(2, ballot(2, 3), Instance(0));
    assert_eq!(ready(&mut member), [1]);
}

#[test]
fn lost_questions_are_asked_again() {
    let mut member = Member::follower(2, LEADER);
    member.group.read(1);
    ask(&mut member, 1);
    member.group.ask_again();
    assert_eq!(ask(&mut member, 2), (Some(LEADER), vec![]));
    member.group.on_confirmed(1, LEADER, Instance(0));
    assert_eq!(ready(&mut member), [], "an answer to the lost question is late");
    member.call(|group, effects| group.on_connected(NodeId(1), effects));
    assert_eq!(ask(&mut member, 3), (Some(LEADER), vec![]));
}

#[test]
fn a_cancelled_read_is_gone() {
    let mut member = Member::follower(2, LEADER);
    member.group.read(1);
    member.group.cancel_read(1);
    assert!(!member.group.has_fresh_reads() && !member.group.has_waiting());
}

#[test]
fn a_member_holds_a_ballot_until_it_promises_a_higher_one() {
    let mut member = Member::follower(2, LEADER);
    assert_eq!(member.group.answer(LEADER), LeadershipAnswer::Holds);
    assert_eq!(member.group.answer(ballot(5, 3)), LeadershipAnswer::Holds);
    member.handle(3, prepare(ballot(2, 3), 1));
    assert!(matches!(member.group.answer(LEADER), LeadershipAnswer::Refused(promised) if promised > LEADER));
}

#[test]
fn a_new_leader_leads_only_when_it_has_chosen_an_instance_in_its_ballot() {
    let mut member = Member::leader(3);
    member.group.read(1);
    assert_eq!(member.group.answer(LEADER), LeadershipAnswer::Holds);
    assert_eq!(ask(&mut member, 1), (None, vec![]));
    member.handle(1, vote(LEADER, 1));
    member.handle(2, vote(LEADER, 1));
    assert_eq!(member.group.answer(LEADER), LeadershipAnswer::Leads(Instance(1)));
    assert!(matches!(member.group.answer(ballot(0, 1)), LeadershipAnswer::Refused(_)));
    assert_eq!(member.group.answer(ballot(2, 1)), LeadershipAnswer::Holds, "it does not lead under that one");
    assert_eq!(ask(&mut member, 2), (Some(LEADER), vec![]));
}

#[test]
fn a_question_that_no_answer_can_confirm_any_more_is_over_at_once() {
    let mut member = Member::follower(2, LEADER);
    let asked = Confirmation::new(&member.group, LEADER);
    let with = |from: u32, answer: LeadershipAnswer, member: &Member| {
        let mut asked = asked.clone();
        asked.add(NodeId(from), 0, answer, &member.group);
        asked.outcome(&member.group)
    };
    let leads = LeadershipAnswer::Leads(Instance(1));
    assert_eq!(with(1, leads, &member), ConfirmationOutcome::Confirmed(Instance(1)));
    assert_eq!(with(3, LeadershipAnswer::Holds, &member), ConfirmationOutcome::Open, "the leader has not answered yet");
    assert_eq!(with(1, LeadershipAnswer::Holds, &member), ConfirmationOutcome::Denied, "it does not lead");
    assert_eq!(with(3, LeadershipAnswer::Refused(ballot(2, 3)), &member), ConfirmationOutcome::Denied);
    member.handle(3, prepare(ballot(2, 3), 1));
    assert_eq!(with(1, leads, &member), ConfirmationOutcome::Outdated, "the asker has promised more");
}

/// Member 1 led and still believes that it leads; member 3 replaced it with the promise and vote of member 2. Member 2
/// then wrongly believes that member 3 is gone, and hears member 1 claim the group. If member 2 counted
/// itself for member 1's ballot, the two would confirm a state without the value that member 3 has chosen.
#[test]
fn a_read_through_a_leader_that_was_replaced_is_not_confirmed() {
    let mut old = Member::established(3);
    let mut asker = Member::follower(2, LEADER);
    asker.handle(1, chosen(LEADER, 1));
    let new = ballot(2, 3);
    asker.handle(3, prepare(new, 2));
    asker.handle(3, accept(new, 2, LEADER, &value(empty(0).next_chain(), 3, "write")));
    asker.no_claim(3);
    asker.claim(LEADER);
    assert_eq!(asker.group.leader(), Some(LEADER));
    assert_eq!(old.group.answer(LEADER), LeadershipAnswer::Leads(Instance(1)), "it knows of no other");
    asker.group.read(1);
    let (asked, told) = ask(&mut asker, 1);
    assert_eq!(asked, None);
    let [Effect::Send { message, .. }] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(old.handle(2, message.clone()), [Effect::Leading(false)], "it learns of the promise to member 3");
    assert_eq!(old.group.answer(LEADER), LeadershipAnswer::Holds);
}
