//! Installed checkpoints, and recovering groups: a member that knows its votes but not the state before them.

use super::restoring::{restore, restored};
use super::*;
use groups::{DedupTable, Snapshot};

const OLD: Ballot = Ballot { round: 1, node: NodeId(1) };
const NEW: Ballot = Ballot { round: 2, node: NodeId(2) };

/// Returns the members that all tests here begin with.
fn initial() -> Membership {
    Membership::of_ids((1..=3).map(NodeId))
}

/// Returns the values of the instances 1 to `count`, each with one command.
fn history(count: u32) -> Vec<Value> {
    let mut values: Vec<Value> = Vec::new();
    for at in 1..=count {
        let chain = values.last().map_or(0, Value::next_chain);
        values.push(value(chain, at, &format!("c{at}")));
    }
    values
}

fn snapshot(values: &[Value]) -> Snapshot {
    let last = values.last().expect("a value");
    let (instance, chain) = (Instance(values.len() as u64), last.next_chain());
    let membership = initial();
    Snapshot {
        instance,
        chosen: OLD,
        chain,
        time_ms: last.time_ms(),
        digest: 77,
        dedup: DedupTable::default(),
        membership,
    }
}

fn position(next: u64, promised: Ballot, chosen: Ballot) -> Effect {
    Effect::Persist(Record::Position { next: Instance(next), promised, chosen })
}

fn lost(instance: u64, ballot: Ballot, learned: bool) -> Effect {
    Effect::Persist(Record::Lost { instance: Instance(instance), ballot, learned })
}

/// Returns a recovering member: it voted at instance 3, but has no state before that.
fn recovering(values: &[Value]) -> Member {
    let member = restored(vec![promised(OLD), voted(OLD, 3, OLD, &values[2])]);
    assert!(member.group.is_recovering());
    member
}

#[test]
fn a_recovering_member_says_nothing_and_does_not_campaign() {
    let values = history(3);
    for mut member in [
        recovering(&values),
        restored(vec![position(3, OLD, OLD)]),
        restored(vec![voted(OLD, 1, Ballot::ZERO, &values[0]), voted(OLD, 2, NEW, &values[1])]),
        restored(vec![learned(OLD, 2, OLD, &values[1])]),
        restored(vec![lost(1, OLD, true)]),
    ] {
        assert!(member.group.is_recovering());
        assert_eq!(member.group.promised(), member.group.promised().min(OLD));
        for from in 1..4 {
            assert_eq!(member.handle(2, prepare(ballot(9, 2), from)).iter().find(|e| !is_fetch(e)), None);
            let accept = accept(ballot(9, 2), from, OLD, &values[0]);
            assert_eq!(member.handle(2, accept).iter().find(|e| !is_fetch(e)), None);
        }
        let question = Message::PreVote(PreVote { number: 1, next: Instance(1) });
        assert_eq!(member.handle(2, question), []);
        member.clock.mono_ms += Ms(60_000);
        assert_eq!(member.tick().iter().find(|e| !is_fetch(e)), None);
    }
}

fn is_fetch(effect: &Effect) -> bool {
    matches!(effect, Effect::SendDurable { message: Message::Fetch(_), .. })
}

#[test]
fn its_vote_counts_again_when_it_has_learned_what_came_before() {
    let values = history(3);
    let mut member = recovering(&values);
    let one = member.handle(1, range(1, 4, vec![accepted(OLD, &values[0])]));
    assert!(one.contains(&apply(1, &values[0])));
    assert!(!one.iter().any(|effect| matches!(effect, Effect::Persist(_))), "later instances are in its log: {one:?}");
    assert!(member.group.is_recovering());
    member.handle(1, range(2, 4, vec![accepted(OLD, &values[1])]));
    assert!(!member.group.is_recovering());
    let told = member.handle(2, prepare(NEW, 3));
    let promise = promise(NEW, 3, 3, Some(accepted(OLD, &values[2])));
    assert_eq!(told, [promised(NEW), send_durable(2, promise)]);
}

#[test]
fn a_vote_that_cannot_be_read_is_unknown_until_its_instance_is_decided() {
    let values = history(3);
    let mut member = restored(vec![learned(OLD, 1, Ballot::ZERO, &values[0]), lost(2, NEW, false)]);
    assert_eq!((member.group.next(), member.group.promised()), (Instance(2), NEW));
    assert_eq!(member.handle(2, prepare(ballot(9, 2), 2)), []);
    member.handle(1, range(2, 3, vec![accepted(NEW, &values[1])]));
    assert!(!member.group.is_recovering());
    assert_eq!(member.handle(2, prepare(ballot(9, 2), 3))[1], send_durable(2, promise(ballot(9, 2), 3, 3, None)));
}

#[test]
fn a_lost_vote_below_one_that_can_be_read_does_not_matter() {
    let values = history(2);
    let records = [lost(1, OLD, false), voted(NEW, 1, Ballot::ZERO, &values[0])];
    for records in [records.to_vec(), records.iter().rev().cloned().collect()] {
        let mut member = restored(records);
        assert!(!member.group.is_recovering());
        let told = member.handle(2, prepare(NEW, 1));
        assert_eq!(told, [send_durable(2, promise(NEW, 1, 1, Some(accepted(NEW, &values[0]))))]);
    }
}

#[test]
fn records_that_a_checkpoint_includes_leave_only_their_promise() {
    let values = history(3);
    let mut member = Member::new(3, 3);
    let clock = member.clock;
    member.call(|group, _| group.restore_snapshot(snapshot(&values[..2]), clock));
    for record in [voted(OLD, 1, Ballot::ZERO, &values[1]), lost(2, NEW, false), lost(2, OLD, true)] {
        assert_eq!(restore(&mut member, record), Ok(vec![]));
    }
    assert_eq!((member.group.promised(), member.group.next(), member.group.is_recovering()), (NEW, Instance(3), false));
    restore(&mut member, voted(NEW, 3, OLD, &values[2])).expect("it follows");
    let told = member.handle(2, prepare(NEW, 3));
    assert_eq!(told, [send_durable(2, promise(NEW, 3, 3, Some(accepted(NEW, &values[2]))))]);
}

#[test]
fn an_installed_checkpoint_keeps_the_promise_and_ends_the_vote() {
    let values = history(3);
    let mut member = restored(vec![promised(NEW), voted(NEW, 1, Ballot::ZERO, &values[0])]);
    let clock = member.clock;
    let mut taken = false;
    member.call(|group, effects| taken = group.install(snapshot(&values), clock, effects));
    assert!(taken);
    assert_eq!((member.group.next(), member.group.promised()), (Instance(4), NEW));
    assert_eq!(member.group.chain(), values[2].next_chain());
    let told = member.handle(2, prepare(NEW, 4));
    assert_eq!(told, [send_durable(2, promise(NEW, 4, 4, None))]);
    member.call(|group, effects| taken = group.install(snapshot(&values[..2]), clock, effects));
    assert!(!taken, "it is not beyond next");
    assert_eq!(member.group.next(), Instance(4));
}

#[test]
fn own_commands_that_a_checkpoint_includes_were_executed_somewhere() {
    let values = history(1);
    let mut member = Member::follower(3, OLD);
    let clock = member.clock;
    let submit = |member: &mut Member| member.group.submit(|out| out.extend_from_slice(b"x"));
    member.group.read(70);
    let first = submit(&mut member);
    member.group.read(71);
    let second = submit(&mut member);
    let mut dedup = DedupTable::default();
    dedup.advance(CommandId { origin: NodeId(3), start: 1, counter: first });
    let snapshot = Snapshot { dedup, ..snapshot(&values) };
    let effects = member.call(|group, effects| assert!(group.install(snapshot, clock, effects)));
    assert_eq!(effects[..2], [Effect::ReadLost { read: 70 }, Effect::Skipped { counter: first }]);
    assert!(member.group.queued_bytes() > 0, "{second} still waits");
}

#[test]
fn records_made_again_restore_to_the_same() {
    let values = history(3);
    let mut member =
        restored(vec![voted(OLD, 1, Ballot::ZERO, &values[0]), voted(OLD, 2, OLD, &values[1]), promised(NEW)]);
    let again = member.call(|group, effects| group.record_again(true, effects));
    assert_eq!(again, [position(2, NEW, OLD), voted(OLD, 2, OLD, &values[1])]);
    let mut second = Member::new(3, 3);
    let clock = second.clock;
    second.call(|group, _| group.restore_snapshot(snapshot(&values[..1]), clock));
    for record in again {
        restore(&mut second, record).expect("they follow");
    }
    let (one, other) = (member.handle(2, prepare(NEW, 2)), second.handle(2, prepare(NEW, 2)));
    assert_eq!(one, other);
}

#[test]
fn the_state_is_compared_behind_a_snapshot_too() {
    let values = history(2);
    let next = |digest| ValueBuilder::default().seal(values[1].next_chain(), Ms(50_000), Some(digest));
    for (digest, differs) in [(77, false), (78, true)] {
        let mut member = Member::new(3, 3);
        let clock = member.clock;
        member.call(|group, effects| assert!(group.install(snapshot(&values), clock, effects)));
        assert_eq!(member.group.snapshot().digest, 77);
        member.handle(1, range(3, 4, vec![accepted(OLD, &next(digest))]));
        assert_eq!(member.differs.is_some(), differs);
    }
}
