//! The *home* of a group, for `--leaders follow`: the member whose clients send most of the group's requests. It should
//! lead the group: a request needs no hop to another leader and back, and the groups that one member leads share its
//! syncs.
//!
//! Only the leader looks. It counts the commands of each member in the group's state, where each command is numbered by
//! its origin. For reads it counts the turns in which its own clients read, and the confirmations that others ask for.
//!
//! The home can refuse: it may run an older program, or not follow. So a group that came back rests before it is handed
//! there again, for longer if it does not stay. And a new leader keeps a group for some time before it gives it back to the
//! preferred leader.

use super::DecisionView;
use crate::config::{DEMAND_PERCENT, FOLLOW_PERIODS, HANDOVER_MS, HOME_PERIODS, REST_PERIODS_MAX};
use groups::{Ballot, CommandId, Group, GroupId, NodeId, TICK_MS};
use std::ops::Range;

/// Ticks of one period.
const TICKS: usize = (HANDOVER_MS.0 / TICK_MS.0) as usize;

/// What this node knows about the groups that it leads.
#[derive(Debug, Default)]
pub(super) struct Demand {
    groups: Vec<GroupDemand>,
    /// Number of ticks of this period.
    ticks: usize,
}

#[derive(Clone, Debug, Default)]
struct GroupDemand {
    /// The ballot under which this node leads the group, and the number of periods for which it has.
    ballot: Option<Ballot>,
    led_periods: u32,
    /// The last command of each origin at the last look.
    seen: Vec<CommandId>,
    /// The voter that sent at least [`DEMAND_PERCENT`] of the requests of the last period.
    last: Option<NodeId>,
    /// Number of periods in a row with that result.
    periods: u32,
    home: Option<NodeId>,
    /// Number of periods in a row in which that voter was not the home.
    absent_periods: u32,
    /// The group is being handed to its home.
    is_handed: bool,
    /// Number of periods for which it rests after it was handed to its home, and the number of those since then.
    rest: u32,
    since_handed: u32,
}

/// What should become of a group that this node leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// This node keeps it.
    Keep,
    /// Its home should lead it.
    Follow(NodeId),
    /// It may go back to its preferred leader.
    GiveBack,
}

impl Demand {
    /// Ends a period of the next part of the groups, 1/25 of them. Returns that part. `requests_min`: with fewer
    /// requests in a period, no member's share counts.
    pub(super) fn look(&mut self, view: DecisionView<'_>, requests_min: u64) -> Range<usize> {
        let count = view.engine.group_count();
        self.groups.resize_with(count, GroupDemand::default);
        let range = part(count, self.ticks);
        self.ticks = (self.ticks + 1) % TICKS;
        for index in range.clone() {
            let (group, demand) = (view.engine.find(GroupId(index as u32)), &mut self.groups[index]);
            let ballot = group.and_then(Group::leads);
            if ballot.is_none() || ballot != demand.ballot {
                demand.on_lost();
            }
            demand.ballot = ballot;
            if let Some(group) = group.filter(|_| ballot.is_some()) {
                demand.look(group, view, requests_min);
            }
        }
        range
    }

    /// Returns what should become of a group that this node, `me`, leads. `can_lead`: whether a member can take it over.
    pub(super) fn wish(&self, group: GroupId, me: NodeId, can_lead: impl Fn(NodeId) -> bool) -> Wish {
        let Some(demand) = self.groups.get(group.index()) else { return Wish::Keep };
        match demand.home {
            Some(home) if home == me => Wish::Keep,
            Some(home) if can_lead(home) && demand.since_handed >= demand.rest => Wish::Follow(home),
            Some(home) if can_lead(home) => Wish::Keep,
            _ if demand.led_periods < HOME_PERIODS => Wish::Keep,
            _ => Wish::GiveBack,
        }
    }

    /// Notes that a group is being handed to its home.
    pub(super) fn on_handed(&mut self, group: GroupId) {
        if let Some(demand) = self.groups.get_mut(group.index()) {
            demand.is_handed = true;
        }
    }
}

/// Returns the groups that are looked at in a tick.
fn part(count: usize, ticks: usize) -> Range<usize> {
    count * ticks / TICKS..count * (ticks + 1) / TICKS
}

impl GroupDemand {
    /// Ends a period of a group that this node leads.
    fn look(&mut self, group: &Group, view: DecisionView<'_>, requests_min: u64) {
        let reads = view.engine.readers(group.id());
        let (mut total, mut most) = (0_u64, (0, None));
        let mut add = |node: NodeId, count: u64| {
            total = total.saturating_add(count);
            if count > most.0 && group.membership().voters().contains(node) {
                most = (count, Some(node));
            }
        };
        let commands = group.last_commands();
        for last in commands {
            let read = reads.iter().find(|(node, _)| *node == last.origin).map_or(0, |(_, count)| *count);
            add(last.origin, self.count(*last).saturating_add(read));
        }
        let has_commands = |node: NodeId| commands.iter().any(|last| last.origin == node);
        reads.iter().filter(|(node, _)| !has_commands(*node)).for_each(|(node, count)| add(*node, *count));
        // A group with a home needs fewer requests to keep it, so that a load near the minimum does not move it again.
        let requests_min = if self.home.is_some() { requests_min / 4 } else { requests_min };
        let is_clear =
            total >= requests_min.max(1) && most.0.saturating_mul(100) >= total.saturating_mul(DEMAND_PERCENT);
        self.end_period(most.1.filter(|_| is_clear));
    }

    /// Returns the number of commands of one origin since the last look; `last` is its last one.
    fn count(&mut self, last: CommandId) -> u64 {
        let Some(seen) = self.seen.iter_mut().find(|seen| seen.origin == last.origin) else {
            self.seen.push(last);
            return 0;
        };
        let before = std::mem::replace(seen, last);
        match last.start.cmp(&before.start) {
            std::cmp::Ordering::Less => 0,
            std::cmp::Ordering::Equal => last.counter.0.saturating_sub(before.counter.0),
            std::cmp::Ordering::Greater => last.counter.0,
        }
    }

    /// Ends a period in which `clear` sent most requests.
    fn end_period(&mut self, clear: Option<NodeId>) {
        self.led_periods = self.led_periods.saturating_add(1);
        (self.since_handed, self.is_handed) = (self.since_handed.saturating_add(1), false);
        self.periods = if clear == self.last { self.periods.saturating_add(1) } else { 1 };
        self.last = clear;
        self.absent_periods = if clear == self.home { 0 } else { self.absent_periods.saturating_add(1) };
        if clear.is_some() && self.periods >= FOLLOW_PERIODS {
            (self.home, self.absent_periods) = (clear, 0);
        } else if self.absent_periods >= HOME_PERIODS {
            (self.home, self.absent_periods) = (None, 0);
        }
    }

    /// Ends a period in which this node has lost the group, or has not led it. The next leadership begins with a new count.
    fn on_lost(&mut self) {
        self.since_handed = self.since_handed.saturating_add(1);
        if self.is_handed {
            let is_soon = self.since_handed < 2 * self.rest;
            self.rest = if is_soon { (2 * self.rest).min(REST_PERIODS_MAX) } else { HOME_PERIODS };
            self.since_handed = 0;
        }
        (self.led_periods, self.is_handed) = (0, false);
        (self.last, self.periods, self.home, self.absent_periods) = (None, 0, None, 0);
        self.seen.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use groups::Counter;

    const ME: NodeId = NodeId(1);
    const OTHER: NodeId = NodeId(2);
    const GROUP: GroupId = GroupId(0);

    fn demand() -> Demand {
        Demand { groups: vec![GroupDemand::default()], ..Demand::default() }
    }

    fn pass(demand: &mut Demand, periods: u32, clear: Option<NodeId>) -> Wish {
        (0..periods).for_each(|_| demand.groups[0].end_period(clear));
        demand.wish(GROUP, ME, |_| true)
    }

    #[test]
    fn a_group_follows_its_home_until_it_has_been_absent_for_a_while() {
        let mut demand = demand();
        assert_eq!(pass(&mut demand, HOME_PERIODS, None), Wish::GiveBack);
        assert_eq!(pass(&mut demand, FOLLOW_PERIODS - 1, Some(OTHER)), Wish::GiveBack);
        assert_eq!(pass(&mut demand, 1, Some(OTHER)), Wish::Follow(OTHER));
        assert_eq!(demand.wish(GROUP, ME, |_| false), Wish::GiveBack, "it cannot lead");
        // Single periods of another member do not prolong it.
        let turns = (1..HOME_PERIODS).map(|period| (period % 3 == 0).then_some(ME));
        turns.for_each(|clear| assert_eq!(pass(&mut demand, 1, clear), Wish::Follow(OTHER)));
        assert_eq!(pass(&mut demand, 1, None), Wish::GiveBack);
    }

    #[test]
    fn a_new_leader_keeps_a_group_for_a_while_and_its_home_keeps_it_longer() {
        let mut demand = demand();
        assert_eq!(pass(&mut demand, HOME_PERIODS - 1, None), Wish::Keep);
        assert_eq!(pass(&mut demand, 1, None), Wish::GiveBack);
        assert_eq!(pass(&mut demand, FOLLOW_PERIODS, Some(ME)), Wish::Keep);
        demand.groups[0].on_lost();
        assert_eq!(pass(&mut demand, FOLLOW_PERIODS - 1, Some(OTHER)), Wish::Keep, "the count is new");
    }

    #[test]
    fn a_group_that_comes_back_from_its_home_rests_longer_each_time() {
        let mut demand = demand();
        let mut rests = Vec::new();
        let expected = [0, 1, 2, 4, 8, 16, 32, 64, 128].map(|times| (times * HOME_PERIODS).min(REST_PERIODS_MAX));
        for _ in expected {
            let mut periods = 0;
            while pass(&mut demand, 1, Some(OTHER)) != Wish::Follow(OTHER) {
                periods += 1;
            }
            rests.push(periods);
            demand.on_handed(GROUP);
            demand.groups[0].on_lost();
        }
        // The first period without leadership is part of the rest.
        assert!(rests.iter().zip(expected).all(|(rest, wanted)| wanted.abs_diff(*rest) <= 2), "{rests:?}");
        pass(&mut demand, 2 * REST_PERIODS_MAX, Some(OTHER));
        demand.on_handed(GROUP);
        demand.groups[0].on_lost();
        assert_eq!(demand.groups[0].rest, HOME_PERIODS, "the last time is long ago");
    }

    #[test]
    fn a_handover_that_failed_is_tried_again_without_a_rest() {
        let mut demand = demand();
        pass(&mut demand, FOLLOW_PERIODS, Some(OTHER));
        demand.on_handed(GROUP);
        assert_eq!(pass(&mut demand, 1, Some(OTHER)), Wish::Follow(OTHER));
    }

    #[test]
    fn each_group_is_looked_at_once_in_a_period() {
        for count in [1, 3, 16, 25, 1_000] {
            let looked: Vec<usize> = (0..TICKS).flat_map(|ticks| part(count, ticks)).collect();
            assert!(looked.iter().copied().eq(0..count), "{count}: {looked:?}");
        }
    }

    #[test]
    fn commands_are_counted_by_start_and_counter() {
        let id = |start, counter| CommandId { origin: OTHER, start, counter: Counter(counter) };
        let mut demand = GroupDemand::default();
        assert_eq!(demand.count(id(1, 100)), 0, "those before this node looked");
        assert_eq!((demand.count(id(1, 130)), demand.count(id(1, 130))), (30, 0));
        assert_eq!(demand.count(id(2, 7)), 7, "a new start counts from 1");
        assert_eq!((demand.count(id(2, 3)), demand.count(id(1, 900))), (0, 0), "an older state was installed");
    }
}
