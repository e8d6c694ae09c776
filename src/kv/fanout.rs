//! How a command spreads over groups, and how the replies to its parts become one.
//!
//! The keys of one group may stand in one command, whatever their slots. Commands that can be split by key are split.
//! Commands about the whole database go to every group. All others must stay in one group, or are refused.

use super::command::{Command, Pair, Scan};
use super::directory::KeyPosition;
use super::number;
use super::reply::Reply;
use super::strings::Strings;
use crate::routing::{SLOTS, group_of, slot, slots_of};
use groups::GroupId;
use std::borrow::Cow;

/// The groups that the parts of a command go to.
#[derive(Debug, PartialEq)]
pub enum Plan<'a> {
    /// The whole command goes to one group, whose reply is the reply.
    One(GroupId, Command<'a>),
    /// The parts go to these groups, one to each; [`Merge::finish`] merges their replies into one.
    Split(Vec<(GroupId, Command<'a>)>, Merge),
    /// The command goes nowhere, as it needs several groups at once. This is the reply.
    Refused(Reply<'static>),
}

/// The reply to a command whose keys are in several groups. Clients match its beginning, which is Redis's whole
/// message.
pub const CROSS_SLOT: Reply<'static> = Reply::Error(Cow::Borrowed(
    "CROSSSLOT Keys in request don't hash to the same slot: give them a common {tag}, or make a cluster with one group",
));

/// The reply to a command about the whole database that must stay in one group: inside ONCE, or beside others in a
/// transaction.
pub const ALL_GROUPS: Reply<'static> = Reply::Error(Cow::Borrowed(
    "CROSSSLOT Keys in request don't hash to the same slot: SCAN KEYS DBSIZE RANDOMKEY FLUSHALL FLUSHDB concern all \
     groups: send them without ONCE, and in MULTI as the only command on keys",
));

/// The reply to a command that may have been executed, in whole or in part.
pub const UNCERTAIN: Reply<'static> =
    Reply::Error(Cow::Borrowed("UNCERTAIN the command may or may not have been executed"));
/// The reply to a command that could not be served and has certainly changed nothing.
pub const NOT_SERVED: Reply<'static> = Reply::Error(Cow::Borrowed("CLUSTERDOWN Hash slot not served"));

/// Decides to which of `groups` groups a command goes. A command that any group can answer goes to `any`.
#[must_use]
pub fn plan<'a>(command: Command<'a>, groups: u32, any: GroupId) -> Plan<'a> {
    let home = |key: &[u8]| group_of(slot(key), groups);
    match command {
        Command::Get(key) | Command::IncrBy(key, _) => Plan::One(home(key), command),
        Command::Set(set) => Plan::One(home(set.key), command),
        Command::MGet(keys) if keys.len() > 1 => split(keys, |key| home(key), Command::MGet, Merge::values),
        Command::Exists(keys) if keys.len() > 1 => split(keys, |key| home(key), Command::Exists, |_| Merge::SumOfReads),
        Command::Del(keys) if keys.len() > 1 => split(keys, |key| home(key), Command::Del, |_| Merge::SumOfWrites),
        Command::MSet(pairs) if pairs.len() > 1 => {
            split(pairs, |(key, _): &Pair<'_>| home(key), Command::MSet, |_| Merge::AllDone)
        }
        Command::Scan(scan) if groups > 1 => plan_scan(scan, groups),
        Command::Keys(_) | Command::DbSize | Command::RandomKey(_) | Command::Flush if groups > 1 => {
            let merge = match command {
                Command::Keys(_) => Merge::Concatenation,
                Command::DbSize => Merge::SumOfReads,
                Command::RandomKey(seed) => Merge::AnyOf(seed),
                _ => Merge::AllDone,
            };
            Plan::Split((0..groups).map(|group| (GroupId(group), command.clone())).collect(), merge)
        }
        Command::CountKeysInSlot(slot) | Command::KeysInSlot(slot, _) => Plan::One(group_of(slot, groups), command),
        Command::Exec(commands) if groups > 1 && spans_alone(&commands) => {
            match commands.into_iter().next().map(|alone| plan(alone, groups, any)) {
                Some(Plan::Split(parts, merge)) => Plan::Split(parts, Merge::Among(Vec::new(), Some(Box::new(merge)))),
                _ => Plan::Refused(ALL_GROUPS),
            }
        }
        command if groups > 1 && command.spans_database() => Plan::Refused(ALL_GROUPS),
        command => match only_group(&command, groups, any) {
            Some(group) => Plan::One(group, command),
            None => Plan::Refused(CROSS_SLOT),
        },
    }
}

/// Returns true if a transaction is one command about the whole database. Such a command is as atomic in a transaction
/// as outside.
fn spans_alone(commands: &[Command<'_>]) -> bool {
    matches!(commands, [alone] if alone.spans_database())
}

/// Returns the group of all keys of a command, if they share one.
fn only_group(command: &Command<'_>, groups: u32, any: GroupId) -> Option<GroupId> {
    let (mut found, mut shared) = (None, true);
    command.each_key(&mut |key| {
        let group = group_of(slot(key), groups);
        shared &= found.is_none_or(|other| other == group);
        found = Some(group);
    });
    // A repeated command of a session must come to the group that knows its first reply.
    let keyless = match command {
        Command::Once(once) => group_of(once.session.slot() % SLOTS, groups),
        _ => any,
    };
    shared.then(|| found.unwrap_or(keyless))
}

/// Sorts items by group, keeps their order within each group, and makes one part per group.
fn split<'a, T: Copy>(
    items: Vec<T>,
    home: impl Fn(&T) -> GroupId,
    part: impl Fn(Vec<T>) -> Command<'a>,
    merge: impl FnOnce(Vec<u32>) -> Merge,
) -> Plan<'a> {
    let mut order: Vec<(GroupId, u32)> = (0..).zip(&items).map(|(at, item)| (home(item), at)).collect();
    let first = order.first().map(|(group, _)| *group).unwrap_or_default();
    if order.iter().all(|(group, _)| *group == first) {
        return Plan::One(first, part(items));
    }
    order.sort_unstable();
    let same_group = |a: &(GroupId, u32), b: &(GroupId, u32)| a.0 == b.0;
    let parts = order.chunk_by(same_group).map(|chunk| {
        let of_group = chunk.iter().map(|(_, at)| items[*at as usize]).collect();
        (chunk[0].0, part(of_group))
    });
    let parts = parts.collect();
    Plan::Split(parts, merge(order.into_iter().map(|(_, at)| at).collect()))
}

/// Plans a page of SCAN. The page comes from the cursor's group. If the cursor is at the start of that group, up to
/// [`SCAN_GROUPS_MAX`] groups are asked, this one and the next ones: with many groups of few keys, a page would
/// otherwise be nearly empty. If the cursor is inside a group, only that group is asked, so that large groups are not
/// read for nothing.
fn plan_scan(scan: Scan<'_>, groups: u32) -> Plan<'_> {
    let position = KeyPosition::from_cursor(scan.cursor);
    let first = group_of(position.slot(), groups);
    let at_start = position == start_of(first, groups);
    let last = if at_start { (first.0 + SCAN_GROUPS_MAX).min(groups) } else { first.0 + 1 };
    let cursor_of = |group: u32| start_of(GroupId(group), groups).cursor();
    let parts = (first.0..last).map(|group| {
        let cursor = scan.cursor.max(cursor_of(group));
        (GroupId(group), Command::Scan(Scan { cursor, ..scan }))
    });
    let behind = (first.0..last).map(|group| if group + 1 == groups { 0 } else { cursor_of(group + 1) });
    Plan::Split(parts.collect(), Merge::Pages { count: scan.count, behind: behind.collect() })
}

fn start_of(group: GroupId, groups: u32) -> KeyPosition {
    KeyPosition::of_slot(slots_of(group, groups).start)
}

/// The way in which the replies of a command's parts become one.
#[derive(Clone, Debug, PartialEq)]
pub enum Merge {
    /// MGET: the values in the order of the keys. Element `i` is the index in the request of the key that belongs to
    /// value `i` of the parts' joined replies.
    Values(Vec<u32>),
    /// EXISTS, DBSIZE: the sum.
    SumOfReads,
    /// DEL: the sum.
    SumOfWrites,
    /// MSET, FLUSHALL: OK.
    AllDone,
    /// KEYS: one list.
    Concatenation,
    /// RANDOMKEY: one of the keys found, by this random number.
    AnyOf(u64),
    /// SCAN.
    Pages {
        /// The number of keys that fill a page.
        count: u32,
        /// For each part, the cursor at the start of the next group; 0 after the last group.
        behind: Vec<u64>,
    },
    /// EXEC: the array of the group's replies, with the replies known beforehand inserted at their indexes, which
    /// ascend. With an inner merge, the transaction has only one command on keys, and the inner merge makes the reply
    /// of this command from the replies of its parts.
    Among(Vec<(usize, Reply<'static>)>, Option<Box<Merge>>),
}

impl Merge {
    fn values(order: Vec<u32>) -> Merge {
        Merge::Values(order)
    }

    /// Adds the replies of a transaction that were known beforehand.
    #[must_use]
    pub fn knowing(self, known: Vec<(usize, Reply<'static>)>) -> Merge {
        match self {
            Merge::Among(_, alone) => Merge::Among(known, alone),
            other => other,
        }
    }

    /// Returns true if a part may have changed something although the whole failed.
    fn writes(&self) -> bool {
        match self {
            Merge::SumOfWrites | Merge::AllDone => true,
            Merge::Among(_, alone) => alone.as_ref().is_some_and(|alone| alone.writes()),
            _ => false,
        }
    }

    /// Merges the replies of the parts, given in the order of the plan. If a part failed, the whole failed: with that
    /// part's error if no part can have changed anything, else with [`UNCERTAIN`].
    #[must_use]
    pub fn finish(self, mut parts: Vec<Reply<'static>>) -> Reply<'static> {
        let is_error = |part: &Reply<'_>| matches!(part, Reply::Error(_));
        if let Some(at) = parts.iter().position(is_error) {
            let unharmed = |part: &Reply<'_>| is_error(part) && *part != UNCERTAIN;
            return if !self.writes() || parts.iter().all(unharmed) { parts.swap_remove(at) } else { UNCERTAIN };
        }
        match self {
            Merge::Values(order) => in_order(&order, parts),
            Merge::SumOfReads | Merge::SumOfWrites => Reply::Int(parts.iter().map(number_in).sum()),
            Merge::AllDone => Reply::Ok,
            Merge::Concatenation => concatenated(parts),
            Merge::AnyOf(seed) => {
                parts.retain(|part| *part != Reply::Null);
                match seed.checked_rem(parts.len() as u64) {
                    Some(at) => parts.swap_remove(at as usize),
                    None => Reply::Null,
                }
            }
            Merge::Pages { count, behind } => one_page(count as usize, &behind, parts),
            Merge::Among(known, alone) => {
                let others = match alone {
                    Some(alone) => vec![alone.finish(parts)],
                    None => parts.into_iter().flat_map(items).collect(),
                };
                let (mut others, mut replies) = (others.into_iter(), Vec::new());
                for (at, reply) in known {
                    replies.extend(others.by_ref().take(at - replies.len().min(at)));
                    replies.push(reply);
                }
                replies.extend(others);
                Reply::Array(replies)
            }
        }
    }
}

fn concatenated(parts: Vec<Reply<'static>>) -> Reply<'static> {
    let mut all = Strings::default();
    parts.into_iter().for_each(|part| append_to(&mut all, part));
    Reply::Strings(all)
}

/// Appends the strings of a list. A list from another node arrives as an array.
fn append_to(all: &mut Strings, list: Reply<'static>) {
    match list {
        Reply::Strings(strings) => all.append(strings),
        other => items(other).iter().for_each(|item| {
            if let Reply::Bulk(string) = item {
                all.push(string);
            }
        }),
    }
}

fn in_order(order: &[u32], parts: Vec<Reply<'static>>) -> Reply<'static> {
    let mut values = vec![Reply::Null; order.len()];
    for (at, value) in order.iter().zip(parts.into_iter().flat_map(items)) {
        values[*at as usize] = value;
    }
    Reply::Array(values)
}

/// Joins pages until there are enough keys, or a page does not reach its group's end. The next SCAN asks for the rest
/// again.
fn one_page(count: usize, behind: &[u64], parts: Vec<Reply<'static>>) -> Reply<'static> {
    let (mut cursor, mut keys) = (0, Strings::default());
    for (part, behind) in parts.into_iter().zip(behind) {
        let mut page = items(part).into_iter();
        let next = match page.next() {
            Some(Reply::Bulk(text)) => number::unsigned(&text).unwrap_or(0),
            _ => 0,
        };
        page.next().into_iter().for_each(|found| append_to(&mut keys, found));
        cursor = if next == 0 { *behind } else { next };
        if next != 0 || keys.len() >= count {
            break;
        }
    }
    Reply::Array(vec![Reply::Bulk(Cow::Owned(cursor.to_string().into_bytes())), Reply::Strings(keys)])
}

fn items(reply: Reply<'static>) -> Vec<Reply<'static>> {
    match reply {
        Reply::Array(items) => items,
        _ => Vec::new(),
    }
}

fn number_in(reply: &Reply<'_>) -> i64 {
    match reply {
        Reply::Int(number) => *number,
        _ => 0,
    }
}

/// Maximum groups that one SCAN asks.
const SCAN_GROUPS_MAX: u32 = 64;
