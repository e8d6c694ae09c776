//! Reconfiguration: members that are added, promoted and removed.

use super::*;
use groups::membership::{ChangeError, ChangeKind, MemberInfo};
use groups::message::{Handover, PreVote, PreVoted};
use groups::{Confirmation, ConfirmationOutcome, LeadershipAnswer, MembershipChange};

fn change(version: u64, kind: ChangeKind) -> BytesMut {
    let mut body = BytesMut::new();
    MembershipChange { version, kind }.encode(&mut body);
    body
}

fn info(id: u32) -> MemberInfo {
    MemberInfo { node: NodeId(id), storage: [id as u8; 16], address: format!("host:{id}") }
}

fn learner(id: u32) -> ChangeKind {
    ChangeKind::AddLearner(info(id))
}

/// Returns a value with these changes as the first commands of member `origin`, after values with the chain `chain`.
fn changing(chain: u32, origin: u32, bodies: &[BytesMut]) -> Value {
    let mut builder = ValueBuilder::default();
    for (counter, body) in (1..).zip(bodies) {
        let id = CommandId { origin: NodeId(origin), start: 1, counter: Counter(counter) };
        put_command(builder.commands_mut(), id, |out| out.extend_from_slice(body));
    }
    builder.seal(chain, Ms(50_000), None)
}

/// Makes the leader propose a change, and handles `votes`. Returns the effects of the first vote that has any.
fn chooses(member: &mut Member, kind: ChangeKind, votes: &[u32]) -> Vec<Effect> {
    let (version, at) = (member.group.membership().version(), member.group.next().0);
    let ballot = member.group.leads().expect("it leads");
    let body = change(version, kind);
    member.group.submit(|out| out.extend_from_slice(&body));
    member.flush();
    votes.iter().fold(Vec::new(), |done, from| {
        let effects = member.handle(*from, vote(ballot, at));
        if done.is_empty() { effects } else { done }
    })
}

fn recipients(effects: &[Effect]) -> Vec<u32> {
    let to = |effect: &Effect| match effect {
        Effect::Send { to, .. } | Effect::SendDurable { to, .. } => Some(to.0),
        _ => None,
    };
    effects.iter().filter_map(to).collect()
}

#[test]
fn a_learner_gets_everything_and_its_vote_counts_for_nothing() {
    let mut leader = Member::established(3);
    let effects = chooses(&mut leader, learner(4), &[1, 2]);
    let position = Record::Position { next: Instance(3), promised: ballot(1, 1), chosen: ballot(1, 1) };
    assert!(matches!(effects[..], [Effect::Apply { .. }, Effect::Persist(_), Effect::Membership]), "{effects:?}");
    assert_eq!(effects[1], Effect::Persist(position), "a crash does not undo it");
    assert_eq!(leader.group.leads(), Some(ballot(1, 1)), "the voters are as before");
    leader.submit("x");
    assert_eq!(recipients(&leader.flush()), [2, 3, 4, 1]);
    assert_eq!(leader.handle(4, vote(ballot(1, 1), 3)), []);
    assert_eq!(leader.handle(1, vote(ballot(1, 1), 3)), []);
    assert!(!leader.handle(3, vote(ballot(1, 1), 3)).is_empty());
}

#[test]
fn a_leader_that_chose_another_set_tells_all_and_repeats_phase_1_there() {
    let mut leader = Member::established(3);
    chooses(&mut leader, learner(4), &[1, 2]);
    let effects = chooses(&mut leader, ChangeKind::Promote(NodeId(4)), &[1, 2]);
    let told = |to| send(to, chosen(ballot(1, 1), 3));
    let asked = |to| send_durable(to, prepare(ballot(2, 1), 4));
    let first = &effects[..3];
    assert!(matches!(first, [Effect::Apply { .. }, Effect::Persist(_), Effect::Membership]), "{effects:?}");
    let own = send_durable(1, promise(ballot(2, 1), 4, 4, None));
    let rest =
        [told(2), told(3), told(4), Effect::Leading(false), promised(ballot(2, 1)), asked(2), asked(3), asked(4)];
    assert_eq!(effects[3..11], rest);
    assert_eq!(effects[11..], [own]);
    // Two promises were a majority of the old set.
    leader.handle(1, promise(ballot(2, 1), 4, 4, None));
    leader.handle(2, promise(ballot(2, 1), 4, 3, None));
    assert_eq!(leader.group.leads(), None);
    leader.handle(4, promise(ballot(2, 1), 4, 4, None));
    assert_eq!(leader.group.leads(), Some(ballot(2, 1)));
    assert_eq!(leader.group.answer(ballot(2, 1)), LeadershipAnswer::Holds, "nothing was chosen there yet");
    for (from, answer) in
        [(1, LeadershipAnswer::Holds), (3, LeadershipAnswer::Holds), (4, LeadershipAnswer::Leads(Instance(4)))]
    {
        leader.handle(from, vote(ballot(2, 1), 4));
        assert_eq!(leader.group.answer(ballot(2, 1)), answer);
    }
}

#[test]
fn a_leader_that_is_removed_hands_over_and_never_campaigns_again() {
    let mut leader = Member::established(3);
    let effects = chooses(&mut leader, ChangeKind::Remove(NodeId(1)), &[1, 2]);
    let handover = Message::Handover(Handover { ballot: ballot(1, 1), next: Instance(3), stay: false });
    let told = |to| send(to, chosen(ballot(1, 1), 2));
    assert_eq!(effects[3..], [told(2), told(3), Effect::Leading(false), send(2, handover)]);
    leader.clock.mono_ms += Ms(60_000);
    assert_eq!((leader.tick(), leader.group.is_voter()), (vec![], false));
}

#[test]
fn a_member_that_gets_the_handover_of_a_removed_leader_campaigns() {
    let value = changing(0, 1, &[change(0, ChangeKind::Remove(NodeId(1)))]);
    let mut member = Member::new(2, 3);
    member.handle(1, accept(ballot(1, 1), 1, Ballot::ZERO, &value));
    member.handle(1, chosen(ballot(1, 1), 1));
    let handover = Message::Handover(Handover { ballot: ballot(1, 1), next: Instance(2), stay: false });
    let asked = send_durable(3, prepare(ballot(2, 2), 2));
    let own = send_durable(2, promise(ballot(2, 2), 2, 2, None));
    assert_eq!(member.handle(1, handover), [promised(ballot(2, 2)), asked, own]);
}

#[test]
fn a_leader_that_learns_another_set_leads_no_longer() {
    let mut leader = Member::leader(3);
    let value = changing(0, 2, &[change(0, ChangeKind::Remove(NodeId(3)))]);
    let effects = leader.handle(2, range(1, 2, vec![accepted(ballot(2, 2), &value)]));
    assert!(effects.contains(&Effect::Membership) && effects.contains(&Effect::Leading(false)), "{effects:?}");
}

#[test]
fn a_member_without_a_vote_neither_campaigns_nor_leads() {
    let mut member = Member::new(2, 3);
    let value = changing(0, 1, &[change(0, ChangeKind::Remove(NodeId(3)))]);
    member.handle(1, range(1, 2, vec![accepted(ballot(1, 1), &value)]));
    assert_eq!(member.handle(3, prepare(ballot(5, 3), 2)), []);
    assert_eq!(member.handle(3, accept(ballot(5, 3), 2, ballot(1, 1), &empty(value.next_chain()))), []);
    let next = Instance(2);
    let denied = PreVoted { number: 1, granted: false, next, promised: ballot(5, 3) };
    let question = |number, next| Message::PreVote(PreVote { number, next });
    assert_eq!(member.handle(3, question(1, next)), [send(3, Message::PreVoted(denied))]);
    // The candidate may know of a later set than this member.
    let effects = member.handle(3, prepare(ballot(6, 3), 3));
    assert!(effects.contains(&send_durable(3, promise(ballot(6, 3), 3, 2, None))), "{effects:?}");
}

#[test]
fn a_value_makes_one_change_and_the_origin_learns_what_became_of_each() {
    let remove = |version, id| change(version, ChangeKind::Remove(NodeId(id)));
    let promote_9 = change(0, ChangeKind::Promote(NodeId(9)));
    let value = changing(0, 1, &[remove(7, 2), promote_9, remove(0, 3), remove(1, 2)]);
    let mut leader = Member::new(1, 3);
    (0..4).for_each(|_| _ = leader.submit("its bodies are in the value"));
    leader.campaign();
    leader.group.handle(NodeId(2), range(1, 2, vec![accepted(ballot(1, 2), &value)]), leader.clock, &mut Vec::new());
    let mut outcomes = Vec::new();
    let applied = leader.group.apply(&value, &mut leader.log, |own| match own {
        LocalOutcome::Changed(counter, outcome) => outcomes.push((counter.0, outcome)),
        _ => panic!("these are changes"),
    });
    assert_eq!(applied, Ok(()));
    let outdated = Err(ChangeError::Outdated { asked: 7, found: 0 });
    let unknown = Err(ChangeError::Unknown(NodeId(9)));
    assert_eq!(outcomes, [(1, outdated), (2, unknown), (3, Ok(1)), (4, Err(ChangeError::Second))]);
    assert_eq!(leader.group.membership().voters().ids(), [NodeId(1), NodeId(2)]);
    assert!(leader.log.0.is_empty(), "the state machine sees none of them");
}

#[test]
fn a_confirmation_counts_voters_that_know_the_same_members() {
    let mut learner_4 = Member::new(4, 3);
    learner_4.group.on_claim(ballot(1, 1), learner_4.clock, &mut Vec::new());
    let ask = |member: &Member| Confirmation::new(&member.group, ballot(1, 1));
    let leads = LeadershipAnswer::Leads(Instance(5));
    let mut asked = ask(&learner_4);
    asked.add(NodeId(1), 0, leads, &learner_4.group);
    assert_eq!(asked.outcome(&learner_4.group), ConfirmationOutcome::Open, "a learner does not count itself");
    asked.add(NodeId(4), 0, LeadershipAnswer::Holds, &learner_4.group);
    asked.add(NodeId(2), 1, LeadershipAnswer::Holds, &learner_4.group);
    assert_eq!(asked.outcome(&learner_4.group), ConfirmationOutcome::Open);
    asked.add(NodeId(2), 0, LeadershipAnswer::Holds, &learner_4.group);
    assert_eq!(asked.outcome(&learner_4.group), ConfirmationOutcome::Confirmed(Instance(5)));
    // A question asked before a change of the members is not confirmed after it.
    let value = changing(0, 1, &[change(0, learner(4))]);
    learner_4.handle(1, range(1, 2, vec![accepted(ballot(1, 1), &value)]));
    assert_eq!(asked.outcome(&learner_4.group), ConfirmationOutcome::Outdated);
    let mut follower = Member::new(2, 3);
    follower.group.on_claim(ballot(1, 1), follower.clock, &mut Vec::new());
    let mut asked = ask(&follower);
    asked.add(NodeId(1), 0, leads, &follower.group);
    assert_eq!(asked.outcome(&follower.group), ConfirmationOutcome::Confirmed(Instance(5)), "a voter counts itself");
}

#[test]
fn records_bring_the_members_back() {
    let value = changing(0, 1, &[change(0, learner(4))]);
    let mut member = Member::new(2, 3);
    member.handle(1, accept(ballot(1, 1), 1, Ballot::ZERO, &value));
    let next = empty(value.next_chain());
    let records = [
        Record::Accepted { instance: Instance(1), ballot: ballot(1, 1), chosen: Ballot::ZERO, value },
        Record::Accepted { instance: Instance(2), ballot: ballot(1, 1), chosen: ballot(1, 1), value: next },
    ];
    let mut member = Member::new(2, 3);
    for record in records {
        let clock = member.clock;
        member.call(|group, effects| group.restore(record, clock, effects).unwrap());
    }
    assert_eq!(member.group.membership().info(NodeId(4)), Some(&info(4)));
}
