//! The leader: one instance at a time, in order.

use super::*;
use groups::Ms;
use groups::message::{Behind, Diverged, Forward, Handover, NotLeader, Reject};

const MINE: Ballot = Ballot { round: 1, node: NodeId(1) };

/// Returns the value that these effects propose.
fn proposed(effects: &[Effect]) -> Value {
    let value = effects.iter().find_map(|effect| match effect {
        Effect::Send { message: Message::Accept(accept), .. } => Some(accept.value.clone()),
        _ => None,
    });
    value.unwrap_or_else(|| panic!("nothing is proposed by {effects:?}"))
}

/// Returns the effects of the first value that a new leader has chosen.
fn first_choice(members: u32, value: &Value) -> Vec<Effect> {
    let told = (2..=members).map(|to| send(to, chosen(MINE, 1)));
    std::iter::once(apply(1, value)).chain(told).collect()
}

fn bodies(value: &Value) -> Vec<String> {
    value.commands().map(|command| String::from_utf8_lossy(command.body).into_owned()).collect()
}

fn forward(ballot: Ballot, after: u64, commands: &[BytesMut]) -> Message {
    Message::Forward(Forward { ballot, after: Counter(after), commands: commands.concat().into() })
}

fn not_leader(ballot: Ballot) -> Message {
    Message::NotLeader(NotLeader { ballot })
}

fn reject(ballot: Ballot, promised: Ballot) -> Message {
    Message::Reject(Reject { ballot, instance: Instance(1), promised })
}

#[test]
fn a_majority_of_promises_makes_a_leader_that_proposes_at_once() {
    let mut member = Member::new(1, 3);
    member.campaign();
    assert_eq!(member.handle(1, promise(MINE, 1, 1, None)), []);
    let effects = member.handle(3, promise(MINE, 1, 1, None));
    let noop = empty(0);
    let expected = [
        Effect::Leading(true),
        send(2, accept(MINE, 1, Ballot::ZERO, &noop)),
        send(3, accept(MINE, 1, Ballot::ZERO, &noop)),
        voted(MINE, 1, Ballot::ZERO, &noop),
        send_durable(1, vote(MINE, 1)),
    ];
    assert_eq!(effects, expected);
}

#[test]
fn the_value_of_the_highest_vote_among_the_promises_is_proposed_again() {
    let mut member = Member::new(1, 5);
    member.submit("mine");
    member.campaign();
    let (low, high) = (value(0, 2, "low"), value(0, 3, "high"));
    member.handle(2, promise(MINE, 1, 1, Some(accepted(ballot(0, 4), &low))));
    member.handle(3, promise(MINE, 1, 1, Some(accepted(ballot(0, 5), &high))));
    let effects = member.handle(4, promise(MINE, 1, 1, None));
    assert_eq!(proposed(&effects), high);
    for from in [2, 3] {
        member.handle(from, vote(MINE, 1));
    }
    assert_eq!(member.handle(1, vote(MINE, 1)), first_choice(5, &high));
    let value = proposed(&member.flush());
    assert_eq!((bodies(&value), value.chain()), (vec!["mine".into()], high.next_chain()));
}

#[test]
fn only_durable_votes_for_this_ballot_and_instance_count_and_each_member_once() {
    let mut member = Member::leader(5);
    for (from, message) in [
        (2, vote(ballot(2, 1), 1)),
        (2, vote(ballot(1, 2), 1)),
        (2, vote(MINE, 2)),
        (2, vote(MINE, 0)),
        (9, vote(MINE, 1)),
        (3, vote(MINE, 1)),
        (3, vote(MINE, 1)),
        (1, vote(MINE, 1)),
    ] {
        assert_eq!(member.handle(from, message), []);
    }
    assert_eq!(member.handle(4, vote(MINE, 1)), first_choice(5, &empty(0)));
    assert_eq!(member.handle(5, vote(MINE, 1)), []);
}

#[test]
fn what_queued_up_during_an_instance_is_one_value() {
    let mut member = Member::leader(3);
    let (a, b) = (member.submit("a"), member.submit("b"));
    assert_eq!(member.flush(), []);
    assert_eq!(member.handle(2, forward(MINE, 0, &[command(2, 1, "c")])), []);
    member.handle(1, vote(MINE, 1));
    member.handle(2, vote(MINE, 1));
    let effects = member.flush();
    let two = proposed(&effects);
    assert_eq!(bodies(&two), ["a", "b", "c"]);
    assert_eq!(two.chain(), empty(0).next_chain());
    let expected = [
        send(2, accept(MINE, 2, MINE, &two)),
        send(3, accept(MINE, 2, MINE, &two)),
        voted(MINE, 2, MINE, &two),
        send_durable(1, vote(MINE, 2)),
    ];
    assert_eq!(effects, expected);
    member.handle(3, vote(MINE, 2));
    assert_eq!(member.answered, []);
    assert_eq!(member.handle(1, vote(MINE, 2)), [apply(2, &two)]);
    assert_eq!(member.answered, [a, b]);
    assert_eq!(member.flush(), [send(2, chosen(MINE, 2))], "member 2 has a client that waits, 3 has none");
    assert_eq!(member.flush(), [], "an idle group is silent");
}

#[test]
fn the_first_choice_of_a_leader_is_announced_to_all_at_once() {
    let mut member = Member::leader(3);
    member.handle(1, vote(MINE, 1));
    assert_eq!(member.handle(2, vote(MINE, 1)), first_choice(3, &empty(0)), "reads may wait for it anywhere");
    assert_eq!(member.flush(), []);
}

#[test]
fn a_choice_is_announced_once_to_each_and_by_the_next_accept() {
    let mut member = Member::established(3);
    member.choose("first");
    let announce = |member: &mut Member, to| member.call(|group, effects| group.announce(NodeId(to), effects));
    assert_eq!(announce(&mut member, 3), [send(3, chosen(MINE, 2))]);
    assert_eq!(announce(&mut member, 3), []);
    member.submit("a");
    member.flush();
    assert_eq!(announce(&mut member, 2), [], "the Accept told it");
}

#[test]
fn a_value_carries_the_time_on_if_that_is_asked_for() {
    let mut member = Member::established(3);
    member.cluster_ms += Ms(100);
    member.group.propose_time();
    assert_eq!(proposed(&member.flush()).time_ms(), Ms(50_100));
}

#[test]
fn time_never_goes_back_and_no_value_adds_to_a_lead_over_cluster_time() {
    let mut member = Member::established(3);
    let mut time_after = |mono_ms: Ms, cluster_ms: Ms| {
        member.clock.mono_ms += mono_ms;
        member.cluster_ms = cluster_ms;
        member.group.propose_time();
        let value = proposed(&member.flush());
        let instance = member.group.next().0;
        member.handle(1, vote(MINE, instance));
        member.handle(2, vote(MINE, instance));
        assert_eq!(member.group.time_ms(), value.time_ms());
        value.time_ms()
    };
    assert_eq!(time_after(Ms(10), Ms(50_010)), Ms(50_010));
    assert_eq!(time_after(Ms(500), Ms(90_000_000)), Ms(90_000_000), "a cluster that was off for a day");
    assert_eq!(time_after(Ms(0), Ms(50_510)), Ms(90_000_000), "ahead by now");
    assert_eq!(
        time_after(Ms(10_000), Ms(60_510)),
        Ms(90_009_000),
        "a duration is at most a ninth longer, and never shorter"
    );
    assert_eq!(time_after(Ms(1_000), Ms(90_009_001)), Ms(90_009_001), "cluster time has caught up");
}

#[test]
fn the_first_value_takes_cluster_time() {
    let mut member = Member::new(1, 3);
    member.cluster_ms = Ms(1_700_000_000_000);
    member.campaign();
    member.handle(1, promise(MINE, 1, 1, None));
    assert_eq!(proposed(&member.handle(2, promise(MINE, 1, 1, None))).time_ms(), Ms(1_700_000_000_000));
}

#[test]
fn a_higher_promise_elsewhere_ends_the_ballot_and_a_higher_one_is_tried_soon() {
    let mut member = Member::established(3);
    assert_eq!(member.handle(2, reject(ballot(3, 1), ballot(4, 2))), [], "of another ballot");
    assert_eq!(member.handle(2, reject(MINE, MINE)), [], "no higher promise");
    assert_eq!(member.handle(2, reject(MINE, ballot(6, 3))), [Effect::Leading(false)]);
    assert_eq!(member.group.ballots_lost(), 1);
    let effects = member.campaign();
    assert_eq!(effects[0], promised(ballot(7, 1)));
}

#[test]
fn one_member_that_differs_is_left_alone() {
    let mut member = Member::leader(3);
    let diverged = |instance| Message::Diverged(Diverged { ballot: MINE, instance: Instance(instance) });
    for message in [diverged(1), diverged(1), diverged(2)] {
        assert_eq!(member.handle(2, message), []);
    }
    let other = Diverged { ballot: ballot(1, 2), instance: Instance(1) };
    assert_eq!(member.handle(3, Message::Diverged(other)), []);
    assert_eq!(member.group.leads(), Some(MINE));
}

#[test]
#[should_panic(expected = "group 0 differs from the majority before instance 1")]
fn a_leader_that_differs_from_a_majority_stops() {
    let mut member = Member::leader(3);
    for from in [2, 3] {
        member.handle(from, Message::Diverged(Diverged { ballot: MINE, instance: Instance(1) }));
    }
}

#[test]
fn an_accept_without_a_majority_is_sent_again_to_those_who_did_not_vote() {
    let mut member = Member::leader(5);
    member.handle(3, vote(MINE, 1));
    member.clock.mono_ms += Ms(999);
    assert_eq!(member.tick(), []);
    member.clock.mono_ms += Ms(1);
    let again = |to| send(to, accept(MINE, 1, Ballot::ZERO, &empty(0)));
    assert_eq!(member.tick(), [again(2), again(4), again(5)]);
    assert_eq!(member.tick(), []);
}

#[test]
fn a_new_connection_brings_again_what_the_old_one_may_have_lost() {
    let mut member = Member::leader(3);
    let connect = |member: &mut Member, peer| member.call(|group, effects| group.on_connected(NodeId(peer), effects));
    assert_eq!(connect(&mut member, 2), [send(2, accept(MINE, 1, Ballot::ZERO, &empty(0)))]);
    member.handle(2, vote(MINE, 1));
    assert_eq!(connect(&mut member, 2), [], "it has voted");
    member.handle(1, vote(MINE, 1));
    member.call(|group, effects| group.announce(NodeId(2), effects));
    connect(&mut member, 2);
    let told = member.call(|group, effects| group.announce(NodeId(2), effects));
    assert_eq!(told, [send(2, chosen(MINE, 1))], "the Chosen may be lost too");
}

#[test]
fn commands_are_taken_only_under_the_ballot_they_were_sent_to_and_in_order() {
    let mut member = Member::established(3);
    let (first, second, third) = (command(2, 1, "1"), command(2, 2, "2"), command(2, 3, "3"));
    for other in [ballot(1, 2), ballot(2, 1), Ballot::ZERO] {
        let refused = member.handle(2, forward(other, 0, std::slice::from_ref(&first)));
        assert_eq!(refused, [send(2, not_leader(other))]);
    }
    let late = member.handle(2, forward(MINE, 1, std::slice::from_ref(&second)));
    assert_eq!(late, [send(2, not_leader(MINE))], "the first is missing");
    assert_eq!(member.handle(2, forward(MINE, 0, std::slice::from_ref(&first))), []);
    assert_eq!(member.handle(2, forward(MINE, 1, std::slice::from_ref(&second))), []);
    assert_eq!(member.handle(2, forward(MINE, 0, &[first, second, third])), [], "all again, after a reconnection");
    assert_eq!(bodies(&proposed(&member.flush())), ["1", "2", "3"]);
}

#[test]
fn commands_under_anothers_name_are_refused() {
    let mut member = Member::established(3);
    let effects = member.handle(2, forward(MINE, 0, &[command(3, 1, "not mine")]));
    assert_eq!(effects, [send(2, not_leader(MINE))]);
    assert_eq!(member.flush(), []);
}

#[test]
fn a_node_that_does_not_lead_takes_no_commands() {
    let mut member = Member::follower(2, ballot(1, 1));
    let effects = member.handle(3, forward(ballot(1, 2), 0, &[command(3, 1, "x")]));
    assert_eq!(effects, [send(3, not_leader(ballot(1, 2)))]);
}

#[test]
fn a_lost_ballot_drops_the_queue_and_the_next_begins_anew() {
    let mut member = Member::leader(3);
    member.handle(2, forward(MINE, 0, &[command(2, 1, "theirs")]));
    let own = member.submit("own");
    member.flush();
    member.handle(3, reject(MINE, ballot(1, 3)));
    member.campaign();
    let mine = ballot(2, 1);
    member.handle(1, promise(mine, 1, 1, None));
    let effects = member.handle(2, promise(mine, 1, 1, None));
    assert_eq!(bodies(&proposed(&effects)), ["own"], "member 2 sends its own again");
    member.handle(1, vote(mine, 1));
    member.handle(2, vote(mine, 1));
    assert_eq!(member.answered, [own]);
}

#[test]
fn a_handover_invites_and_the_leader_leads_on() {
    let mut member = Member::leader(3);
    let hand_over = |member: &mut Member| {
        let clock = member.clock;
        member.group.begin_leader_transfer(NodeId(2), true, Ms(100), clock);
        member.flush()
    };
    assert_eq!(hand_over(&mut member), [], "it has chosen nothing yet");
    let mut member = Member::established(3);
    member.choose("first");
    let invitation = Message::Handover(Handover { ballot: MINE, next: Instance(3), stay: true });
    let told = send(2, chosen(MINE, 2));
    assert_eq!(hand_over(&mut member), [told, send(2, invitation)]);
    assert_eq!(member.group.leads(), Some(MINE));
    member.submit("held back");
    assert_eq!(member.flush(), []);
    member.clock.mono_ms += Ms(100);
    assert_eq!(bodies(&proposed(&member.flush())), ["held back"], "nobody took it");
}

#[test]
fn a_leader_goes_on_at_once_when_the_other_is_behind() {
    let mut member = Member::established(3);
    let clock = member.clock;
    member.group.begin_leader_transfer(NodeId(2), false, Ms(100), clock);
    member.flush();
    member.submit("held back");
    assert_eq!(member.flush(), []);
    let behind = |instance| Message::Behind(Behind { ballot: MINE, instance: Instance(instance), next: Instance(1) });
    assert_eq!(member.handle(3, behind(2)), []);
    assert_eq!(member.flush(), [], "a third one's lag is of no concern");
    member.handle(2, behind(2));
    assert_eq!(bodies(&proposed(&member.flush())), ["held back"]);
}

#[test]
fn a_value_in_flight_is_chosen_before_the_handover() {
    let mut member = Member::established(3);
    member.submit("first");
    assert_eq!(bodies(&proposed(&member.flush())), ["first"]);
    member.submit("second");
    let clock = member.clock;
    member.group.begin_leader_transfer(NodeId(2), false, Ms(100), clock);
    assert_eq!(member.flush(), []);
    member.handle(1, vote(MINE, 2));
    member.handle(2, vote(MINE, 2));
    let invitation = Message::Handover(Handover { ballot: MINE, next: Instance(3), stay: false });
    let told = send(2, Message::Chosen(Chosen { instance: Instance(2), ballot: MINE }));
    assert_eq!(member.flush(), [told, send(2, invitation)]);
}

#[test]
fn a_group_that_was_handed_over_to_stay_does() {
    let mut member = Member::follower(2, ballot(1, 1));
    let next = member.group.next();
    member.handle(1, Message::Handover(Handover { ballot: ballot(1, 1), next, stay: true }));
    let own = ballot(2, 2);
    member.handle(1, promise(own, next.0, next.0, None));
    member.handle(2, promise(own, next.0, next.0, None));
    assert_eq!((member.group.leads(), member.group.is_to_stay()), (Some(own), true));
    member.handle(1, reject(own, ballot(3, 1)));
    assert!(!member.group.is_to_stay());
}

#[test]
fn who_is_behind_takes_nothing_over_and_says_so() {
    let mut member = Member::follower(2, ballot(1, 1));
    let next = member.group.next();
    let handover = Handover { ballot: ballot(1, 1), next: next.following(), stay: false };
    let behind = Behind { ballot: ballot(1, 1), instance: next.following(), next };
    let effects = member.handle(1, Message::Handover(handover));
    assert_eq!(effects[0], send(1, Message::Behind(behind)));
    assert!(matches!(effects[1], Effect::SendDurable { message: Message::Fetch(_), .. }), "{effects:?}");
}

#[test]
fn a_leader_that_resigns_leads_no_longer_and_others_do_nothing() {
    let resign = |member: &mut Member| {
        let clock = member.clock;
        member.call(|group, effects| group.resign(clock, effects))
    };
    let mut member = Member::established(3);
    assert_eq!(resign(&mut member), [Effect::Leading(false)]);
    assert_eq!((member.group.leads(), member.group.leader()), (None, None));
    let mut follower = Member::follower(2, MINE);
    assert_eq!(resign(&mut follower), []);
    assert_eq!(follower.group.leader(), Some(MINE));
}

#[test]
fn one_member_alone_decides_by_its_own_durable_vote() {
    let mut member = Member::new(1, 1);
    member.clock.mono_ms += Ms(1_000);
    let effects = member.tick();
    assert_eq!(effects, [promised(MINE), send_durable(1, promise(MINE, 1, 1, None))]);
    let effects = member.handle(1, promise(MINE, 1, 1, None));
    let noop = empty(0);
    let voted = voted(MINE, 1, Ballot::ZERO, &noop);
    assert_eq!(effects, [Effect::Leading(true), voted, send_durable(1, vote(MINE, 1))]);
    assert_eq!(member.handle(1, vote(MINE, 1)), [apply(1, &noop)]);
}
