//! The lease guard: how a member answers a candidate while its lease grant holds, and how the candidate reacts.

use super::*;
use groups::message::{Handover, Reject};

fn prepare(ballot: Ballot, instance: u64) -> Message {
    Message::Prepare(Prepare { ballot, instance: Instance(instance) })
}

#[test]
fn only_what_makes_it_promise_can_be_withheld() {
    let member = Member::new(2, 3);
    let question = Message::PreVote(PreVote { number: 1, next: Instance(1) });
    let answer = Message::PreVoted(PreVoted { number: 1, granted: true, next: Instance(1), promised: Ballot::ZERO });
    let invitation = Message::Handover(Handover { ballot: ballot(1, 1), next: Instance(1), stay: false });
    let to = |from, message| member.group.promises(NodeId(from), &message);
    assert_eq!([to(3, prepare(ballot(1, 3), 1)), to(3, question)], [Some(NodeId(3)); 2]);
    assert_eq!([to(3, answer), to(1, invitation)], [Some(NodeId(2)); 2]);
    assert_eq!(to(1, Message::Vote(Vote { ballot: ballot(1, 2), instance: Instance(1) })), None);
    assert_eq!(to(2, promise(ballot(1, 2), 1, 1, None)), None);
}

#[test]
fn nothing_is_promised_and_the_candidate_is_told() {
    let mut member = Member::new(2, 3);
    let asked = prepare(ballot(4, 3), 1);
    let refused = Reject { ballot: ballot(4, 3), instance: Instance(1), promised: Ballot::ZERO };
    let told = member.call(|group, effects| group.withhold(NodeId(3), &asked, effects));
    assert_eq!(told, [send(3, Message::Reject(refused))]);
    assert_eq!(member.group.promised(), Ballot::ZERO);
    let question = Message::PreVote(PreVote { number: 9, next: Instance(1) });
    let denied = PreVoted { number: 9, granted: false, next: Instance(1), promised: ballot(4, 3) };
    let told = member.call(|group, effects| group.withhold(NodeId(3), &question, effects));
    assert_eq!(told, [send(3, Message::PreVoted(denied))]);
}

#[test]
fn a_candidate_asks_again_until_it_is_promised() {
    let mut member = Member::new(1, 3);
    member.campaign();
    let own = ballot(1, 1);
    let later = Message::Reject(Reject { ballot: own, instance: Instance(1), promised: Ballot::ZERO });
    assert_eq!(member.handle(2, later), []);
    assert_eq!(member.tick(), []);
    member.clock.mono_ms += Ms(50);
    let again = [2, 3].map(|to| Effect::SendDurable { to: NodeId(to), message: prepare(own, 1) });
    assert_eq!(member.tick(), again);
    assert_eq!(member.tick(), []);
    member.handle(1, promise(own, 1, 1, None));
    member.handle(2, promise(own, 1, 1, None));
    assert_eq!(member.group.leads(), Some(own));
}

#[test]
fn a_candidate_does_not_ask_those_again_that_have_promised() {
    let mut member = Member::new(1, 5);
    member.campaign();
    let own = ballot(1, 1);
    member.handle(2, promise(own, 1, 1, Some(accepted(ballot(0, 2), &empty(0)))));
    let later = Message::Reject(Reject { ballot: own, instance: Instance(1), promised: Ballot::ZERO });
    member.handle(3, later);
    member.clock.mono_ms += Ms(50);
    let again = [3, 4, 5].map(|to| Effect::SendDurable { to: NodeId(to), message: prepare(own, 1) });
    assert_eq!(member.tick(), again, "member 2 would send its accepted value again");
    assert_eq!(member.call(|group, effects| group.on_connected(NodeId(2), effects)), [], "its promise has come");
}

#[test]
fn a_member_that_may_not_promise_to_itself_campaigns_as_soon_as_it_may() {
    let mut member = Member::new(2, 3);
    for _ in 0..400 {
        member.clock.mono_ms += Ms(1);
        let clock = member.clock;
        let bound = ElectionContext { may_self_promise: false, ..FINE };
        assert_eq!(member.call(|group, effects| group.tick(clock, bound, effects)), []);
    }
    member.clock.mono_ms += Ms(90);
    assert_ne!(member.tick(), [], "its turn had come long ago");
}
