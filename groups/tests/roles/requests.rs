//! The clients' commands at their origin, the node that received them.

use super::*;
use groups::COMMAND_HEADER_BYTES;
use groups::message::{Forward, NotLeader};

const LEADER: Ballot = Ballot { round: 1, node: NodeId(1) };

fn forward(to: u32, ballot: Ballot, after: u64, commands: &[BytesMut]) -> Effect {
    send(to, Message::Forward(Forward { ballot, after: Counter(after), commands: commands.concat().into() }))
}

/// Returns commands of member 2, numbered from `first`.
fn commands(first: u64, bodies: &[&str]) -> Vec<BytesMut> {
    (first..).zip(bodies).map(|(counter, body)| command(2, counter, body)).collect()
}

fn batch(chain: u32, commands: &[BytesMut]) -> Value {
    let mut builder = ValueBuilder::default();
    commands.iter().for_each(|command| builder.extend(command, 1));
    builder.seal(chain, Ms(50_000), None)
}

/// Returns member 2, which has sent the commands a and b to the leader.
fn two_sent() -> Member {
    let mut member = Member::follower(2, LEADER);
    member.submit("a");
    member.submit("b");
    assert_eq!(member.flush(), [forward(1, LEADER, 0, &commands(1, &["a", "b"]))]);
    member
}

#[test]
fn commands_go_to_the_leader_once_and_each_names_the_one_before() {
    let mut member = two_sent();
    assert_eq!(member.flush(), []);
    member.submit("c");
    assert_eq!(member.flush(), [forward(1, LEADER, 2, &commands(3, &["c"]))]);
}

#[test]
fn more_than_a_batch_goes_in_pieces_that_name_the_one_before() {
    let mut member = Member::follower(2, LEADER);
    let large = "x".repeat(BATCH_BYTES - COMMAND_HEADER_BYTES - 1);
    ["a", &large, "b"].iter().for_each(|body| {
        member.submit(body);
    });
    let all = commands(1, &["a", &large, "b"]);
    let pieces = [(0, &all[..1]), (1, &all[1..2]), (2, &all[2..])];
    let expected = pieces.map(|(after, commands)| forward(1, LEADER, after, commands));
    assert_eq!(member.flush(), expected);
}

#[test]
fn commands_wait_for_a_leader() {
    let mut member = Member::new(2, 3);
    member.submit("a");
    assert_eq!(member.flush(), []);
    member.claim(ballot(3, 3));
    assert_eq!(member.flush(), [forward(3, ballot(3, 3), 0, &commands(1, &["a"]))]);
}

#[test]
fn a_refusal_brings_all_again_at_the_next_tick() {
    let mut member = two_sent();
    let refusal = |ballot| Message::NotLeader(NotLeader { ballot });
    member.handle(1, refusal(ballot(9, 1)));
    member.submit("c");
    assert_eq!(member.flush(), [forward(1, LEADER, 2, &commands(3, &["c"]))], "of another ballot");
    assert_eq!(member.handle(1, refusal(LEADER)), []);
    assert_eq!(member.flush(), []);
    member.tick();
    assert_eq!(member.flush(), [forward(1, LEADER, 0, &commands(1, &["a", "b", "c"]))]);
}

#[test]
fn a_new_ballot_or_connection_brings_all_again_oldest_first() {
    let all = commands(1, &["a", "b"]);
    let mut member = two_sent();
    member.call(|group, effects| group.on_connected(NodeId(3), effects));
    assert_eq!(member.flush(), [], "the leader's connection lasts");
    member.call(|group, effects| group.on_connected(NodeId(1), effects));
    assert_eq!(member.flush(), [forward(1, LEADER, 0, &all)]);
    member.claim(ballot(2, 1));
    assert_eq!(member.flush(), [forward(1, ballot(2, 1), 0, &all)], "the same leader under another ballot");
    member.claim(ballot(3, 3));
    assert_eq!(member.flush(), [forward(3, ballot(3, 3), 0, &all)]);
}

#[test]
fn a_command_is_answered_when_it_is_applied_and_only_the_first_time() {
    let mut member = two_sent();
    let one = batch(0, &commands(1, &["a"]));
    member.handle(1, range(1, 2, vec![accepted(LEADER, &one)]));
    assert_eq!((member.answered.as_slice(), member.group.has_waiting()), ([Counter(1)].as_slice(), true));
    let two = batch(one.next_chain(), &commands(1, &["a", "b"]));
    member.handle(1, range(2, 3, vec![accepted(LEADER, &two)]));
    assert_eq!(member.answered, [Counter(1), Counter(2)]);
    assert_eq!(member.log.0, [b"a", b"b"]);
    assert!(!member.group.has_waiting() && member.group.queued_bytes() == 0);
}

#[test]
fn what_was_applied_is_not_sent_again() {
    let mut member = two_sent();
    member.submit("c");
    let one = batch(0, &commands(1, &["a"]));
    member.handle(1, range(1, 2, vec![accepted(LEADER, &one)]));
    member.claim(ballot(2, 3));
    assert_eq!(member.flush(), [forward(3, ballot(2, 3), 0, &commands(2, &["b", "c"]))]);
}

#[test]
fn a_command_can_be_taken_back_until_it_leaves() {
    let withdraw = |member: &mut Member, counter| {
        let mut counters = vec![counter];
        member.group.withdraw(&mut counters);
        counters == [counter]
    };
    let mut member = Member::new(2, 3);
    let (a, b) = (member.submit("a"), member.submit("b"));
    assert!(withdraw(&mut member, a));
    member.claim(LEADER);
    assert_eq!(member.flush(), [forward(1, LEADER, 0, &commands(2, &["b"]))]);
    assert!(!withdraw(&mut member, b));
    member.no_claim(1);
    assert!(!withdraw(&mut member, b), "that leader may have it still");
}

#[test]
fn commands_of_an_earlier_start_are_applied_for_nobody() {
    let mut member = Member::follower(2, LEADER);
    let mut body = BytesMut::new();
    put_command(&mut body, CommandId { origin: NodeId(2), start: 0, counter: Counter(9) }, |out| {
        out.extend_from_slice(b"old");
    });
    member.submit("new");
    member.handle(1, range(1, 2, vec![accepted(LEADER, &batch(0, &[body]))]));
    assert_eq!((member.log.0.len(), member.answered.len()), (1, 0));
}

/// Each piece makes progress. No command is applied twice, no reply is given twice, and no read is answered twice.
#[test]
fn a_value_is_applied_in_pieces() {
    let mut member = Member::new(2, 3);
    let counter = member.submit("own");
    member.group.read(7);
    let late = member.submit("late");
    let commands = [
        command(1, 1, "other"),
        command(2, counter.0, "own"),
        command(2, counter.0, "own"),
        command(2, late.0, "late"),
    ];
    let mut applying = Applying::new(batch(0, &commands));
    let (mut log, mut told, mut pieces) = (Bodies::default(), Vec::new(), 0);
    loop {
        pieces += 1;
        let done = member.group.apply_some(&mut applying, &mut log, &mut WorkBudget::steps(1), |own| match own {
            LocalOutcome::Read(read, log) => told.push(("read", read, log.0.len())),
            LocalOutcome::Applied(counter, ()) => told.push(("applied", counter.0, 0)),
            LocalOutcome::Changed(..) => unreachable!("nothing changes the members"),
        });
        if done.expect("the same state") {
            break;
        }
    }
    assert_eq!(log.0, [b"other".to_vec(), b"own".to_vec(), b"late".to_vec()]);
    assert_eq!(told, [("applied", counter.0, 0), ("read", 7, 2), ("applied", late.0, 0)]);
    assert_eq!(pieces, 3);
}
