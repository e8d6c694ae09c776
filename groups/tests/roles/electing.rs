//! Elections: the order of candidates by rank, pre-vote, phase 1, and the leader that a member follows.

use super::*;
use groups::message::Handover;

fn pre_vote(to: u32, number: u64, next: u64) -> Effect {
    send(to, Message::PreVote(PreVote { number, next: Instance(next) }))
}

fn pre_voted(number: u64, granted: bool, promised: Ballot) -> Message {
    Message::PreVoted(PreVoted { number, granted, next: Instance(1), promised })
}

fn handover(ballot: Ballot, next: u64) -> Message {
    Message::Handover(Handover { ballot, next: Instance(next), stay: false })
}

/// Returns when member `me` of three starts its pre-vote, in milliseconds after its start.
fn turn_of(me: u32) -> u64 {
    turn_from_now(&mut Member::new(me, 3))
}

fn turn_from_now(member: &mut Member) -> u64 {
    (0..2_000)
        .find(|_| {
            member.clock.mono_ms += Ms(1);
            !member.tick().is_empty()
        })
        .expect("it starts a pre-vote in the end")
}

#[test]
fn members_take_their_turns_by_rank() {
    let turns = [turn_of(1), turn_of(2), turn_of(3)];
    assert!(turns[0] < 100 && turns[1] >= turns[0] + 100 && turns[2] >= turns[1] + 100, "{turns:?}");
}

#[test]
fn nobody_campaigns_without_a_quorum_or_a_disk_and_the_turns_count_from_then_on() {
    for (reached, disk) in [(&[NodeId(9)][..], true), (ALL, false)] {
        let turns = [1, 2, 3].map(|me| {
            let mut member = Member::new(me, 3);
            member.clock.mono_ms += Ms(5_000);
            let clock = member.clock;
            let context = ElectionContext { reached, disk, may_self_promise: true, preferred_leaders: &[] };
            assert_eq!(member.call(|group, effects| group.tick(clock, context, effects)), []);
            turn_from_now(&mut member)
        });
        assert!(turns[0] < 100 && turns[1] >= turns[0] + 100 && turns[2] >= turns[1] + 100, "{turns:?}");
    }
}

#[test]
fn a_node_that_should_lead_nothing_campaigns_only_where_no_better_node_votes() {
    let campaigns = |preferred_leaders: &[NodeId]| {
        let mut member = Member::new(2, 3);
        member.clock.mono_ms += Ms(5_000);
        let (clock, context) = (member.clock, ElectionContext { preferred_leaders, ..FINE });
        !member.call(|group, effects| group.tick(clock, context, effects)).is_empty()
    };
    assert!(campaigns(&[]));
    assert!(!campaigns(&[NodeId(9), NodeId(3)]));
    assert!(campaigns(&[NodeId(9)]), "9 votes in other groups only");
}

#[test]
fn nobody_campaigns_while_another_is_believed_to_lead() {
    let mut member = Member::new(1, 3);
    member.claim(ballot(1, 2));
    member.clock.mono_ms += Ms(5_000);
    assert_eq!(member.tick(), []);
    member.no_claim(3);
    member.clock.mono_ms += Ms(5_000);
    assert_eq!(member.tick(), [], "3 does not lead, but 2 does");
    member.no_claim(2);
    assert_eq!(member.group.leader(), None);
    member.clock.mono_ms += Ms(5_000);
    assert_eq!(member.tick(), [pre_vote(2, 1, 1), pre_vote(3, 1, 1)]);
}

#[test]
fn a_question_is_denied_only_on_behalf_of_a_current_claim_of_another() {
    let mut member = Member::new(3, 3);
    let question = || Message::PreVote(PreVote { number: 4, next: Instance(1) });
    let answer = |granted, promised| pre_voted(4, granted, promised);
    assert_eq!(member.handle(2, question()), [send(2, answer(true, Ballot::ZERO))]);
    member.claim(ballot(6, 1));
    assert_eq!(member.handle(2, question()), [send(2, answer(false, ballot(6, 1)))]);
    assert_eq!(member.handle(1, question()), [send(1, answer(true, ballot(6, 1)))], "the leader itself");
    member.no_claim(1);
    member.clock.mono_ms += Ms(300);
    assert_eq!(member.handle(2, question()), [send(2, answer(true, ballot(6, 1)))]);
    assert_eq!(member.group.promised(), Ballot::ZERO, "an answer promises nothing");
}

#[test]
fn a_leader_denies() {
    let mut member = Member::established(3);
    let effects = member.handle(2, Message::PreVote(PreVote { number: 4, next: Instance(2) }));
    let answer = PreVoted { number: 4, granted: false, next: Instance(2), promised: ballot(1, 1) };
    assert_eq!(effects, [send(2, Message::PreVoted(answer))]);
}

#[test]
fn phase_one_leaves_behind_the_record_of_its_own_ballot_which_is_above_all_seen() {
    let mut member = Member::new(1, 5);
    member.clock.mono_ms += Ms(1_000);
    member.tick();
    assert_eq!(member.handle(2, pre_voted(1, true, ballot(8, 3))), []);
    assert_eq!(member.handle(2, pre_voted(1, true, ballot(8, 3))), [], "counted once");
    assert_eq!(member.handle(3, pre_voted(7, true, Ballot::ZERO)), [], "of another question");
    let mine = ballot(9, 1);
    let effects = member.handle(3, pre_voted(1, true, Ballot::ZERO));
    let mut expected = vec![promised(mine)];
    expected.extend((2..=5).map(|to| send_durable(to, prepare(mine, 1))));
    expected.push(send_durable(1, promise(mine, 1, 1, None)));
    assert_eq!(effects, expected);
    let again = member.call(|group, effects| group.on_connected(NodeId(4), effects));
    assert_eq!(again, [send_durable(4, prepare(mine, 1))]);
}

#[test]
fn a_denied_question_is_asked_again_later_under_a_new_number() {
    let mut member = Member::new(1, 3);
    member.clock.mono_ms += Ms(1_000);
    member.tick();
    assert_eq!(member.handle(2, pre_voted(1, false, Ballot::ZERO)), []);
    assert_eq!(member.handle(3, pre_voted(1, true, Ballot::ZERO)), []);
    assert_eq!(member.tick(), []);
    member.clock.mono_ms += Ms(100);
    assert_eq!(member.tick(), [pre_vote(2, 2, 1), pre_vote(3, 2, 1)]);
    member.clock.mono_ms += Ms(499);
    assert_eq!(member.tick(), [], "it waits for answers");
    member.clock.mono_ms += Ms(1);
    assert_eq!(member.tick(), []);
    member.clock.mono_ms += Ms(1_000);
    assert_eq!(member.tick(), [pre_vote(2, 3, 1), pre_vote(3, 3, 1)]);
}

#[test]
fn a_candidate_repeats_its_question_so_that_the_others_go_on_yielding_to_it() {
    let mut member = Member::new(1, 3);
    member.campaign();
    let reminded = [pre_vote(2, 1, 1), pre_vote(3, 1, 1)];
    for _ in 0..3 {
        member.clock.mono_ms += Ms(99);
        assert_eq!(member.tick(), []);
        member.clock.mono_ms += Ms(1);
        assert_eq!(member.tick(), reminded);
        assert_eq!(member.handle(2, pre_voted(1, true, Ballot::ZERO)), [], "it campaigns already");
        assert_eq!(member.handle(3, pre_voted(1, false, Ballot::ZERO)), []);
    }
    // A candidate that could not begin now lets the others go on.
    member.clock.mono_ms += Ms(100);
    let clock = member.clock;
    for context in [ElectionContext { disk: false, ..FINE }, ElectionContext { reached: &[NodeId(9)], ..FINE }] {
        assert_eq!(member.call(|group, effects| group.tick(clock, context, effects)), []);
    }
    assert_eq!(member.tick(), reminded);
    // A candidate that may differ from the majority lets the others go on, too.
    member.handle(2, promise(ballot(1, 1), 1, 1, Some(accepted(ballot(0, 2), &empty(99)))));
    member.clock.mono_ms += Ms(100);
    assert_eq!(member.tick(), []);
}

#[test]
fn nobody_yields_to_an_asker_that_is_behind() {
    let mut member = Member::established(3);
    member.claim(ballot(6, 2));
    member.no_claim(2);
    let question = |next| Message::PreVote(PreVote { number: 4, next: Instance(next) });
    let is_granted = |effects: Vec<Effect>| {
        matches!(effects[..], [Effect::Send { message: Message::PreVoted(PreVoted { granted: true, .. }), .. }])
    };
    assert!(is_granted(member.handle(2, question(1))), "it learns from the answer that it is behind");
    assert!(is_granted(member.handle(3, question(2))));
    assert!(!is_granted(member.handle(2, question(2))), "this member yields to 3");
}

#[test]
fn promises_for_another_ballot_or_instance_count_nothing() {
    let mut member = Member::new(1, 3);
    member.campaign();
    let mine = ballot(1, 1);
    for (from, message) in [
        (2, promise(ballot(2, 1), 1, 1, None)),
        (2, promise(ballot(1, 2), 1, 1, None)),
        (2, promise(mine, 2, 1, None)),
        (2, promise(mine, 1, 2, None)),
        (2, promise(mine, 1, 1, Some(accepted(ballot(1, 2), &empty(99))))),
        (9, promise(mine, 1, 1, None)),
        (1, promise(mine, 1, 1, None)),
        (1, promise(mine, 1, 1, None)),
    ] {
        assert_eq!(member.handle(from, message), []);
    }
    assert_eq!(member.handle(2, promise(mine, 1, 1, None))[0], Effect::Leading(true));
    assert_eq!(member.handle(3, promise(mine, 1, 1, None)), []);
}

#[test]
fn a_phase_one_without_a_majority_is_tried_again_with_a_higher_ballot() {
    let mut member = Member::new(1, 3);
    member.campaign();
    member.clock.mono_ms += Ms(2_000);
    assert_eq!(member.tick(), []);
    assert_eq!(member.group.ballots_lost(), 1);
    assert_eq!(member.handle(2, promise(ballot(1, 1), 1, 1, None)), []);
    assert_eq!(member.campaign()[0], promised(ballot(2, 1)));
}

#[test]
fn whoever_promises_or_follows_another_asks_no_more() {
    let other = ballot(3, 2);
    for message in [prepare(other, 1), accept(other, 1, Ballot::ZERO, &empty(0))] {
        let mut member = Member::new(1, 3);
        member.clock.mono_ms += Ms(1_000);
        member.tick();
        member.handle(2, message);
        assert_eq!(member.handle(3, pre_voted(1, true, Ballot::ZERO)), []);
        assert_eq!(member.tick(), [], "the other gets time to lead");
    }
}

#[test]
fn a_higher_claim_ends_a_candidacy_and_a_lower_one_does_not() {
    let mut member = Member::new(1, 3);
    member.campaign();
    assert_eq!(member.claim(ballot(0, 2)), []);
    assert_eq!(member.group.leader(), None);
    member.claim(ballot(5, 2));
    assert_eq!(member.group.leader(), Some(ballot(5, 2)));
    assert_eq!(member.handle(2, promise(ballot(1, 1), 1, 1, None)), []);
    assert_eq!(member.claim(ballot(4, 3)), []);
    assert_eq!(member.group.leader(), Some(ballot(5, 2)), "the highest claim leads");
}

#[test]
fn a_leader_yields_to_a_higher_claim_only() {
    let mut member = Member::established(3);
    assert_eq!(member.claim(ballot(0, 3)), []);
    assert_eq!(member.claim(ballot(9, 1)), [], "nobody else leads under its ballots");
    member.no_claim(1);
    assert_eq!(member.group.leads(), Some(ballot(1, 1)));
    assert_eq!(member.claim(ballot(1, 3)), [Effect::Leading(false)]);
    assert_eq!(member.group.leader(), Some(ballot(1, 3)));
}

#[test]
fn an_invitation_counts_from_the_leader_followed_at_the_same_next() {
    let leader = ballot(4, 2);
    let follow = || {
        let mut member = Member::new(1, 3);
        member.claim(leader);
        member
    };
    assert_eq!(follow().handle(3, handover(leader, 1)), []);
    assert_eq!(follow().handle(2, handover(ballot(3, 2), 1)), []);
    let effects = follow().handle(2, handover(leader, 1));
    assert_eq!(effects[0], promised(ballot(5, 1)));
    assert_eq!(effects[1], send_durable(2, prepare(ballot(5, 1), 1)));
}
