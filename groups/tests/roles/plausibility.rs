//! The plausibility check of ballots and instances that no history reaches.

use super::*;
use groups::message::{Ahead, Behind, Diverged, Forward, Handover, NotLeader, Reject};

/// Returns every message that carries both a ballot and an instance, with these numbers.
fn messages(ballot: Ballot, at: u64) -> Vec<Message> {
    let instance = Instance(at);
    vec![
        prepare(ballot, at),
        promise(ballot, 1, at, None),
        promise(Ballot::ZERO, at, 1, Some(accepted(ballot, &empty(0)))),
        Message::Reject(Reject { ballot: Ballot::ZERO, instance, promised: ballot }),
        Message::Ahead(Ahead { ballot, instance: Instance(1), next: instance }),
        accept(Ballot::ZERO, at, ballot, &empty(0)),
        vote(ballot, at),
        Message::Behind(Behind { ballot, instance: Instance(1), next: instance }),
        Message::Diverged(Diverged { ballot, instance }),
        chosen(ballot, at),
        range(at, 1, vec![accepted(ballot, &empty(0))]),
        Message::PreVoted(PreVoted { number: 1, granted: true, next: instance, promised: ballot }),
        Message::Handover(Handover { ballot, next: instance, stay: false }),
    ]
}

#[test]
fn numbers_that_no_history_reaches_are_not_believed() {
    let member = Member::follower(3, ballot(7, 1));
    let (last, far) = (ballot(u64::MAX, 1), ballot(1 << 30, 1));
    for message in messages(far, 1 << 40) {
        assert!(member.group.is_plausible(&message), "{message:?}");
    }
    for message in messages(last, 1).into_iter().chain(messages(far, u64::MAX)) {
        assert!(!member.group.is_plausible(&message), "{message:?}");
    }
    for message in [
        Message::Fetch(Fetch { from: Instance(u64::MAX), bytes_max: 1 }),
        Message::PreVote(PreVote { number: 1, next: Instance(u64::MAX) }),
        Message::Forward(Forward { ballot: last, after: Counter(0), commands: bytes::Bytes::new() }),
        Message::NotLeader(NotLeader { ballot: last }),
    ] {
        assert!(!member.group.is_plausible(&message), "{message:?}");
    }
}
