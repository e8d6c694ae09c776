//! Histories of a few operations: the mistakes that stores make, and correct histories that look like a mistake.

use super::*;
use Action::{Delete, Exists, Get, GetDelete, GetSet, IncrementBy, SetExpiring, SetIfAbsent};
use Outcome::{Done, Integer, Nil, Refused, WrongValue};

#[track_caller]
fn good(operations: &[Operation]) {
    if let Err(violation) = checked(operations) {
        panic!("{violation}");
    }
}

/// Checks that the history is refuted, and that the counterexample shows `shown` operations.
#[track_caller]
fn bad(shown: usize, operations: &[Operation]) {
    match checked(operations) {
        Err(Violation::Refuted(counterexample)) => {
            assert_eq!(counterexample.operations.len(), shown, "{counterexample}");
            assert_eq!(counterexample.of, operations.len());
        }
        other => panic!("{other:?}"),
    }
}

fn expiring(value: &'static str, earliest: u64, latest: u64) -> Action {
    SetExpiring { value: value.into(), earliest, latest }
}

#[test]
fn what_one_client_does_in_turn() {
    good(&[
        done(1, 0, 1, Get, Nil),
        done(1, 2, 3, set("a"), Done),
        done(1, 4, 5, Get, value("a")),
        done(1, 6, 7, append("b"), Integer(2)),
        done(1, 8, 9, GetSet("7".into()), value("ab")),
        done(1, 10, 11, IncrementBy(-8), Integer(-1)),
        done(1, 12, 13, append("x"), Integer(3)),
        done(1, 14, 15, IncrementBy(1), WrongValue),
        done(1, 16, 17, SetIfAbsent("c".into()), Nil),
        done(1, 18, 19, Exists, Integer(1)),
        done(1, 20, 21, Delete, Integer(1)),
        done(1, 22, 23, Delete, Integer(0)),
        done(1, 24, 25, SetIfAbsent("d".into()), Integer(1)),
        done(1, 26, 27, GetDelete, value("d")),
        done(1, 28, 29, Exists, Integer(0)),
        done(1, 30, 31, append("e"), Integer(1)),
        done(1, 32, 33, Delete, Done),
        done(1, 34, 35, IncrementBy(5), Integer(5)),
        done(1, 36, 37, Get, value("5")),
    ]);
}

#[test]
fn a_stale_read() {
    let stale = [done(1, 0, 10, set("a"), Done), done(1, 20, 30, set("b"), Done), done(2, 40, 50, Get, value("a"))];
    bad(1, &stale);
    // The read began before the second write was over.
    good(&[stale[0].clone(), stale[1].clone(), done(2, 25, 50, Get, value("a"))]);
}

#[test]
fn a_lost_write() {
    bad(1, &[done(1, 0, 10, set("a"), Done), done(2, 20, 30, Get, Nil)]);
    bad(1, &[done(1, 0, 9, set("a"), Done), done(1, 10, 19, Delete, Integer(1)), done(1, 20, 29, Delete, Integer(1))]);
}

#[test]
fn a_read_of_what_nobody_wrote() {
    bad(1, &[done(1, 0, 10, set("a"), Done), done(2, 5, 15, Get, value("b"))]);
    bad(1, &[done(1, 0, 10, Get, Integer(3))]);
}

#[test]
fn reads_that_go_back() {
    let [one, two] = [done(1, 0, 10, set("a"), Done), done(1, 11, 100, set("b"), Done)];
    let later = done(2, 20, 30, Get, value("b"));
    bad(3, &[one.clone(), two.clone(), later.clone(), done(3, 40, 50, Get, value("a"))]);
    good(&[one, two, later, done(3, 30, 50, Get, value("a"))]);
}

#[test]
fn a_double_and_a_lost_increment() {
    let one = done(1, 0, 10, IncrementBy(1), Integer(1));
    bad(2, &[one.clone(), done(2, 5, 15, IncrementBy(1), Integer(1))]);
    bad(1, &[one.clone(), done(2, 20, 30, IncrementBy(1), Integer(3))]);
    // The increment was sent again after a timeout and executed twice. As one operation it is
    // wrong, as two it would be right.
    bad(1, &[one.clone(), done(2, 20, 30, IncrementBy(1), Integer(2)), done(1, 40, 50, Get, value("3"))]);
    good(&[one, done(2, 5, 15, IncrementBy(1), Integer(2))]);
}

#[test]
fn a_lost_append() {
    let [first, second] = [done(1, 0, 10, append("a"), Integer(1)), done(2, 20, 30, append("b"), Integer(2))];
    bad(2, &[first.clone(), second.clone(), done(1, 40, 50, Get, value("a"))]);
    bad(3, &[first.clone(), second.clone(), done(1, 40, 50, Get, value("ba"))]);
    good(&[first, second, done(1, 40, 50, Get, value("ab"))]);
}

#[test]
fn a_value_that_comes_back_after_its_expiry() {
    let write = done(1, 0, 10, expiring("a", 50, 60), Done);
    let there = |call, returned| done(2, call, returned, Get, value("a"));
    let gone = |call, returned| done(2, call, returned, Get, Nil);
    good(&[write.clone(), there(55, 58), gone(58, 59), gone(100, 110)]);
    bad(3, &[write.clone(), gone(51, 52), there(53, 54)]);
    bad(2, &[write.clone(), gone(40, 49)]);
    bad(2, &[write.clone(), there(61, 70)]);
    // The read was called in time, at 60: the state of that time may have answered it.
    good(&[write.clone(), there(60, 70)]);
    // The append finds the key gone. It returns late enough for that, at 55. The read of its result must not return
    // before the earliest expiry, 50: 49 is too early.
    let appended = done(3, 20, 55, append("b"), Integer(1));
    good(&[write.clone(), appended.clone(), done(4, 21, 50, Get, value("b"))]);
    bad(3, &[write.clone(), appended, done(4, 21, 49, Get, value("b"))]);
    good(&[write.clone(), done(3, 20, 30, append("b"), Integer(2)), done(3, 61, 70, append("b"), Integer(1))]);
    good(&[write, done(3, 20, 30, set("b"), Done), done(2, 90, 99, Get, value("b"))]);
}

#[test]
fn an_open_operation_takes_effect_late_or_never() {
    let write = [done(1, 0, 10, set("a"), Done), open(2, 5, set("b"))];
    let read = |call, what: &'static str| done(3, call, call + 1, Get, value(what));
    let with = |reads: &[Operation]| [&write[..], reads].concat();
    good(&with(&[read(20, "a"), read(30, "a")]));
    good(&with(&[read(20, "a"), read(30, "b")]));
    bad(4, &with(&[read(20, "b"), read(30, "a")]));
    bad(1, &with(&[read(2, "b")]));
    good(&[open(1, 0, Delete), done(2, 10, 20, set("a"), Done), done(2, 30, 31, Get, Nil), done(2, 32, 33, Get, Nil)]);
    bad(1, &[open(1, 40, set("a")), done(2, 30, 31, Get, value("a"))]);
}

#[test]
fn open_increments_and_appends_count_as_often_as_they_must() {
    let mut operations: Vec<Operation> = (0..40).map(|client| open(client, client, IncrementBy(1))).collect();
    operations.push(done(99, 100, 110, IncrementBy(1), Integer(18)));
    operations.push(done(99, 120, 130, IncrementBy(1), Integer(41)));
    good(&operations);
    operations.push(done(99, 140, 150, IncrementBy(1), Integer(44)));
    assert!(matches!(checked(&operations), Err(Violation::Refuted(_))));

    const TOKENS: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
    let mut operations: Vec<Operation> = (0..12).map(|at| open(at, 0, append(TOKENS[at as usize]))).collect();
    operations.extend((0..6).map(|at| done(50, 10 + 2 * at, 11 + 2 * at, append("x"), Integer(2 * at as i64 + 2))));
    operations.push(done(50, 90, 91, Get, value("fxlxbxaxgxcx")));
    good(&operations);
    operations.push(done(50, 92, 93, Get, value("fxlxbxaxgxcxf")));
    assert!(matches!(checked(&operations), Err(Violation::Refuted(_))));
}

#[test]
fn refused_operations_play_no_part() {
    let mut operations = vec![done(1, 0, 10, set("a"), Done), done(2, 20, 30, set("b"), Refused)];
    operations.push(done(1, 40, 50, Get, value("a")));
    let summary = checked(&operations).unwrap();
    assert_eq!((summary.keys, summary.operations, summary.open, summary.refused), (1, 2, 0, 1));
}

#[test]
fn keys_are_checked_apart_and_the_wrong_one_is_named() {
    let mut history = history(&[done(1, 0, 10, set("a"), Done), done(1, 20, 30, Get, value("a"))]);
    let mut other = History::new();
    other.push("wrong\n".into(), done(1, 0, 10, set("a"), Done));
    other.push("wrong\n".into(), done(7, 20, 31, Get, value("b")));
    history.merge(other);
    let text = check(&history, Limits::default()).unwrap_err().to_string();
    let expected = "not linearizable: no order explains these 1 of the 2 operations on \"wrong\\n\"\n\
                    the key holds \"a\" before them, after client 1 from 0 to 10: SET \"a\" -> OK\n\
                    client  called  returned  operation\n\
                    \u{20}    7      20        31  GET -> \"b\"";
    assert_eq!(text, expected);
}

#[test]
fn what_takes_too_long_is_not_called_right() {
    // To explain the last result, the check must find which open increments of different amounts add up to it. That is
    // hard.
    let mut operations: Vec<Operation> = (0..30).map(|at| open(at, 0, IncrementBy(1 << at))).collect();
    operations.push(done(99, 10, 20, IncrementBy(1 << 40), Integer((1 << 40) - 1)));
    match check(&history(&operations), Limits { steps_max: 1000 }) {
        Err(Violation::Undecided { operations: 31, steps_max: 1000, .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_counterexample_begins_where_the_value_was_last_known() {
    let mut operations: Vec<Operation> =
        (0..100).map(|at| done(at, at * 10, at * 10 + 5, IncrementBy(1), Integer(at as i64 + 1))).collect();
    operations[60].outcome = Some(Integer(60));
    let Err(Violation::Refuted(counterexample)) = checked(&operations) else { panic!("two had the same sum") };
    assert_eq!(counterexample.before.as_deref(), Some(&b"60"[..]));
    assert_eq!(counterexample.operations, operations[60..61]);
}
