//! Commands that spread over groups: the parts, the merged reply, and a database of many groups compared with one of a
//! single group.

use super::{Db, HASH_KEY, START_MS, show};
use crate::kv::command::{Command, Scan};
use crate::kv::fanout::{ALL_GROUPS, CROSS_SLOT, Merge, Plan, UNCERTAIN, plan};
use crate::kv::reply::Reply;
use crate::kv::table::{FanOut, lookup};
use crate::kv::{ParseContext, Store, StoreLimits, parse, stored_reply};
use crate::routing::slots_of;
use groups::{GroupId, Ms};

/// A database of several groups, asked as a node asks them.
struct Groups(Vec<Store>);

impl Groups {
    fn new(count: u32) -> Groups {
        let store = |group| {
            let mut store = Store::new(HASH_KEY, slots_of(GroupId(group), count), StoreLimits::default());
            store.begin(START_MS);
            store
        };
        Groups((0..count).map(store).collect())
    }

    fn ask(&mut self, request: &str) -> String {
        let words: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
        match lookup(&words)
            .and_then(|spec| parse(spec, &words, ParseContext { cluster_ms: START_MS, durations: true, seed: 3 }))
        {
            Ok(command) => show(&self.execute(command)),
            Err(error) => show(&error),
        }
    }

    fn execute(&mut self, command: Command<'_>) -> Reply<'static> {
        match plan(command, self.0.len() as u32, GroupId(0)) {
            Plan::One(group, command) => self.0[group.index()].execute_whole(&command).into_owned(),
            Plan::Split(parts, merge) => {
                let parts = parts.iter().map(|(group, part)| self.0[group.index()].execute_whole(part).into_owned());
                merge.finish(parts.collect())
            }
            Plan::Refused(refusal) => refusal,
        }
    }

    /// Scans the whole database. Returns all keys that SCAN meets, and the number of pages.
    fn scan(&mut self, count: u32) -> (Vec<String>, u32) {
        let (mut keys, mut cursor, mut pages) = (Vec::new(), "0".to_owned(), 0);
        loop {
            let reply = self.ask(&format!("SCAN {cursor} COUNT {count}"));
            let (next, page) = reply.trim_matches(['[', ']']).split_once(' ').unwrap();
            let page = page.trim_matches(['[', ']']);
            keys.extend(page.split(' ').filter(|key| !key.is_empty()).map(str::to_owned));
            cursor = next.trim_matches('"').to_owned();
            pages += 1;
            if cursor == "0" {
                return (keys, pages);
            }
        }
    }
}

#[test]
fn many_groups_answer_like_one() {
    for count in [1, 2, 16, 1024] {
        let (mut groups, mut one) = (Groups::new(count), Db::new());
        for request in [
            "MSET a 1 b 2 c 3 d 4 e 5 a 6",
            "MGET e d none c b a a",
            "EXISTS a b none a",
            "DEL a b none a",
            "UNLINK c",
            "TOUCH d e c",
            "DBSIZE",
            "SET {x}1 1",
            "RENAME {x}1 {x}2",
            "COPY {x}2 {x}3",
            "MSETNX {x}4 1 {x}5 1",
            "CLUSTER COUNTKEYSINSLOT 16287",
            "FLUSHALL",
            "RANDOMKEY",
            "SET k v",
            "RANDOMKEY",
            "KEYS *",
            "SCAN 18446744073709551615 COUNT 5",
            "PING",
        ] {
            assert_eq!(groups.ask(request), one.ask(request), "{request} in {count} groups");
        }
    }
}

#[test]
fn what_must_be_atomic_stays_in_one_group() {
    let mut groups = Groups::new(16);
    let (crossed, all) = (show(&CROSS_SLOT), show(&ALL_GROUPS));
    // Clients look for this text.
    let start = "CROSSSLOT Keys in request don't hash to the same slot: ";
    assert!(crossed.starts_with(start) && all.starts_with(start), "{crossed}, {all}");
    let id = groups.ask("SESSION NEW").trim_matches('"').to_owned();
    for (request, refused) in [
        ("MSETNX a 1 b 2".to_owned(), &crossed),
        ("RENAME a b".to_owned(), &crossed),
        ("RENAMENX a b".to_owned(), &crossed),
        ("COPY a b".to_owned(), &crossed),
        (format!("ONCE {id} 1 MGET a b"), &crossed),
        (format!("ONCE {id} 1 DBSIZE"), &all),
        (format!("ONCE {id} 1 FLUSHALL"), &all),
    ] {
        assert_eq!(groups.ask(&request), *refused, "{request}");
    }
    assert_eq!(groups.ask(&format!("ONCE {id} 1 MSET {{t}}a 1 {{t}}b 2")), "OK");
    assert_eq!(groups.ask(&format!("ONCE {id} 2 PING")), "PONG");
    let (get, set) = (Command::Get(b"a"), Command::IncrBy(b"b", 1));
    assert_eq!(groups.execute(Command::Exec(vec![get.clone(), set])), CROSS_SLOT);
    assert_eq!(groups.execute(Command::Exec(vec![get.clone(), Command::DbSize])), ALL_GROUPS);
    assert_eq!(groups.execute(Command::Exec(vec![Command::Flush, Command::DbSize])), ALL_GROUPS);
    assert_eq!(show(&groups.execute(Command::Exec(vec![get, Command::IncrBy(b"a", 5)]))), "[nil 5]");
    assert_eq!(plan(Command::Exec(vec![]), 16, GroupId(9)), Plan::One(GroupId(9), Command::Exec(vec![])));
    assert_eq!(plan(Command::SessionNew, 16, GroupId(9)), Plan::One(GroupId(9), Command::SessionNew));
}

#[test]
fn a_command_about_all_keys_is_alone_in_its_transaction() {
    let mut groups = Groups::new(16);
    groups.ask("MSET a 1 b 2 c 3");
    for (command, reply) in [
        (Command::DbSize, "[3]"),
        (Command::Keys(b"b"), "[[\"b\"]]"),
        (Command::Flush, "[OK]"),
        (Command::DbSize, "[0]"),
        (Command::RandomKey(1), "[nil]"),
    ] {
        assert_eq!(show(&groups.execute(Command::Exec(vec![command]))), reply);
    }
    let Plan::Split(parts, merge) = plan(Command::Exec(vec![Command::Flush]), 2, GroupId(0)) else { panic!("split") };
    assert_eq!(parts, [(GroupId(0), Command::Flush), (GroupId(1), Command::Flush)]);
    let merge = merge.knowing(vec![(0, Reply::Int(7))]);
    let down = || Reply::error("CLUSTERDOWN Hash slot not served");
    assert_eq!(merge.clone().finish(vec![Reply::Ok, Reply::Ok]), Reply::Array(vec![Reply::Int(7), Reply::Ok]));
    assert_eq!(merge.clone().finish(vec![Reply::Ok, down()]), UNCERTAIN);
    assert_eq!(merge.finish(vec![down(), down()]), down());
}

#[test]
fn keys_of_one_group_go_together() {
    // The slots of a and d differ, but with two groups their group is the same.
    let command = Command::MGet(vec![b"a", b"d"]);
    assert_eq!(plan(command.clone(), 2, GroupId(0)), Plan::One(GroupId(1), command));
    let Plan::Split(parts, merge) = plan(Command::MGet(vec![b"a", b"b", b"d"]), 2, GroupId(0)) else { panic!("split") };
    let expected = [(GroupId(0), Command::MGet(vec![b"b"])), (GroupId(1), Command::MGet(vec![b"a", b"d"]))];
    assert_eq!((parts.as_slice(), merge), (expected.as_slice(), Merge::Values(vec![1, 0, 2])));
}

#[test]
fn scan_walks_all_groups_in_order() {
    for (count, keys) in [(2, 500), (16, 500), (256, 100), (1024, 3)] {
        let (mut groups, mut expected) = (Groups::new(count), Vec::new());
        for n in 0..keys {
            groups.ask(&format!("SET k{n} 1"));
            expected.push(format!("\"k{n}\""));
        }
        let (mut all, pages) = groups.scan(10);
        assert!(pages <= keys / 10 + count / 64 + count.min(keys) + 1, "{pages} pages");
        all.sort();
        expected.sort();
        assert_eq!(all, expected, "{count} groups");
    }
    assert_eq!(Groups::new(1024).scan(10), (vec![], 16), "64 empty groups a page");
    assert_eq!(Groups::new(2).ask("SCAN 0 COUNT 5 MATCH x* TYPE string"), "[\"0\" []]");
}

#[test]
fn a_part_that_failed_fails_the_whole() {
    let down = || Reply::error("CLUSTERDOWN Hash slot not served");
    let one = || Reply::Int(1);
    assert_eq!(Merge::SumOfReads.finish(vec![one(), down()]), down());
    assert_eq!(Merge::SumOfWrites.finish(vec![one(), one()]), Reply::Int(2));
    assert_eq!(Merge::SumOfWrites.finish(vec![down(), down()]), down(), "nothing was done: try again");
    assert_eq!(Merge::SumOfWrites.finish(vec![one(), down()]), UNCERTAIN);
    assert_eq!(Merge::AllDone.finish(vec![down(), UNCERTAIN]), UNCERTAIN);
    assert_eq!(Merge::Values(vec![0, 1]).finish(vec![down(), Reply::Array(vec![])]), down());
}

#[test]
fn replies_known_before_stand_at_their_places_in_a_transaction() {
    let merge = || Merge::Among(vec![(0, Reply::Int(0)), (2, Reply::Array(vec![])), (4, Reply::Int(4))], None);
    let group = || Reply::Array(vec![Reply::Int(1), Reply::Int(3)]);
    let whole = [Reply::Int(0), Reply::Int(1), Reply::Array(vec![]), Reply::Int(3), Reply::Int(4)];
    assert_eq!(merge().finish(vec![group()]), Reply::Array(whole.to_vec()));
    assert_eq!(merge().finish(vec![UNCERTAIN]), UNCERTAIN);
}

#[test]
fn the_table_says_how_each_command_spreads() {
    let requests = "GET a|SET a 1|MGET a b|MSET a 1 b 2|MSETNX a 1 b 2|DEL a b|UNLINK a b|EXISTS a b|TOUCH a b|TYPE a\
                    |RENAME a b|COPY a b|SCAN 0|KEYS *|DBSIZE|RANDOMKEY|FLUSHALL|FLUSHDB|OBJECT ENCODING a|INCR a|PING";
    for request in requests.split('|') {
        let words: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
        let spec = lookup(&words).unwrap();
        let command = parse(spec, &words, ParseContext { cluster_ms: Ms(0), durations: true, seed: 0 }).unwrap();
        let everywhere = command.spans_database();
        let plan = plan(command, 16, GroupId(0));
        let expected = match spec.fan_out {
            FanOut::EachKey => matches!(plan, Plan::Split(..)) && !everywhere,
            FanOut::EveryGroup => matches!(plan, Plan::Split(..)) && everywhere,
            FanOut::OneGroup | FanOut::Nowhere => !matches!(plan, Plan::Split(..)),
        };
        assert!(expected, "{request}: {plan:?}");
    }
}

#[test]
fn lists_of_keys_that_another_node_answered_are_merged_like_own_ones() {
    let mut groups = Groups::new(3);
    (0..20).for_each(|key| drop(groups.ask(&format!("SET k{key} v"))));
    let pages = Command::Scan(Scan { cursor: 0, pattern: None, count: 100, strings: true });
    for command in [pages, Command::Keys(b"*")] {
        let Plan::Split(parts, merge) = plan(command, 3, GroupId(0)) else { panic!("it is asked of every group") };
        let mut answers: Vec<Reply<'static>> = Vec::new();
        for (group, part) in &parts {
            let mut packed = Vec::new();
            stored_reply::pack(&groups.0[group.index()].execute_whole(part), &mut packed);
            answers.push(stored_reply::unpack(&packed).unwrap().into_owned());
        }
        let merged = show(&merge.finish(answers));
        assert_eq!(merged.matches('k').count(), 20, "{merged}");
    }
}
