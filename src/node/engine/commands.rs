//! Commands of this node's clients that are queued in the groups and not applied yet: the ticket and deadline of each,
//! and the bytes of large commands per queue. A group applies the commands of one node in the order of their counters.

use crate::node::ticket::Ticket;
use groups::{Counter, GroupId, Ms, Us};
use std::collections::VecDeque;

/// A command that is queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) struct Command {
    /// The command's number in the group.
    pub(in crate::node) counter: Counter,
    /// The address of the reply. `None` after the deadline has passed, and for the node's own commands.
    pub(in crate::node) ticket: Option<Ticket>,
    pub(in crate::node) deadline_ms: Ms,
    /// The queued bytes of a large command (at least `LARGE_INPUT_BYTES`); 0 for a small one.
    pub(in crate::node) large_bytes: usize,
    /// The index in the statistics, or [`UNCOUNTED`]; and the time of arrival.
    pub(in crate::node) verb: u16,
    pub(in crate::node) since_us: Us,
}

/// The index in the statistics of commands that no client of this node asked for.
pub(in crate::node) const UNCOUNTED: u16 = u16::MAX;

/// See the module.
#[derive(Default)]
pub(super) struct Commands {
    by_group: Vec<Queue>,
    /// Bytes of all large commands.
    large_bytes: usize,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Command>,
    /// Bytes of the large commands in the queue. Small commands do not wait for these.
    large_bytes: usize,
}

impl Commands {
    pub(super) fn set_groups(&mut self, groups: u32) {
        self.by_group = (0..groups).map(|_| Queue::default()).collect();
        self.large_bytes = 0;
    }

    pub(super) fn push(&mut self, group: GroupId, command: Command) {
        let queue = &mut self.by_group[group.index()];
        queue.large_bytes += command.large_bytes;
        self.large_bytes += command.large_bytes;
        queue.waiting.push_back(command);
    }

    /// Returns the command with this counter, which was applied. Removes it and all commands before it.
    pub(super) fn take_applied(&mut self, group: GroupId, counter: Counter) -> Option<Command> {
        while let Some(command) = self.by_group[group.index()].waiting.pop_front() {
            self.forget_bytes(group, command.large_bytes);
            if command.counter == counter {
                return Some(command);
            }
            debug_assert!(command.counter < counter, "replies come in the order of the commands");
        }
        None
    }

    /// Expires the commands past their deadlines, oldest first. `withdraw` gets the list of their counters, and leaves
    /// in the list only the counters of the commands that it could take back. Those commands are removed from the
    /// queue. The other expired commands stay queued without a ticket. `answer` is called with the ticket of each
    /// expired command, and with true if the command was taken back.
    pub(super) fn expire(
        &mut self,
        group: GroupId,
        now_ms: Ms,
        withdraw: impl FnOnce(&mut Vec<Counter>),
        answer: impl FnMut(Ticket, bool),
    ) {
        let is_due = |command: &&Command| command.ticket.is_none() || command.deadline_ms <= now_ms;
        let due = self.by_group[group.index()].waiting.iter().take_while(is_due).count();
        self.withdraw(group, due, true, withdraw, answer);
    }

    /// Takes back all commands that did not leave this node. `answer` is called for each command whose counter
    /// `withdraw` keeps.
    pub(super) fn take_unsent(
        &mut self,
        group: GroupId,
        withdraw: impl FnOnce(&mut Vec<Counter>),
        mut answer: impl FnMut(Ticket),
    ) {
        let all = self.by_group[group.index()].waiting.len();
        self.withdraw(group, all, false, withdraw, |ticket, is_gone| {
            debug_assert!(is_gone, "the others are not answered");
            answer(ticket);
        });
    }

    /// Withdraws, of the first `count` commands, those that have a ticket and can be taken back. With `abandons`, the
    /// others with a ticket are answered too.
    fn withdraw(
        &mut self,
        group: GroupId,
        count: usize,
        abandons: bool,
        withdraw: impl FnOnce(&mut Vec<Counter>),
        mut answer: impl FnMut(Ticket, bool),
    ) {
        let queue = &mut self.by_group[group.index()].waiting;
        let awaited = queue.iter().take(count).filter(|command| command.ticket.is_some());
        let mut counters: Vec<Counter> = awaited.map(|command| command.counter).collect();
        if counters.is_empty() {
            return;
        }
        withdraw(&mut counters);
        let mut gone = counters.into_iter().peekable();
        let (mut first, mut freed_bytes): (Vec<Command>, usize) = (queue.drain(..count).collect(), 0);
        first.retain_mut(|command| {
            let is_gone = gone.next_if_eq(&command.counter).is_some();
            let ticket = if is_gone || abandons { command.ticket.take() } else { None };
            ticket.into_iter().for_each(|ticket| answer(ticket, is_gone));
            freed_bytes += if is_gone { command.large_bytes } else { 0 };
            !is_gone
        });
        first.into_iter().rev().for_each(|command| queue.push_front(command));
        self.forget_bytes(group, freed_bytes);
    }

    fn forget_bytes(&mut self, group: GroupId, bytes: usize) {
        self.by_group[group.index()].large_bytes -= bytes;
        self.large_bytes -= bytes;
    }

    /// Returns all groups.
    pub(super) fn groups(&self) -> impl Iterator<Item = GroupId> + use<> {
        (0..self.by_group.len() as u32).map(GroupId)
    }

    /// Returns true if the oldest command of a client in the group has outlived its time limit: the command left this
    /// node, and is not applied.
    pub(super) fn is_stuck(&self, group: GroupId) -> bool {
        let oldest = self.by_group[group.index()].waiting.iter().find(|command| command.deadline_ms > Ms(0));
        oldest.is_some_and(|command| command.ticket.is_none())
    }

    /// Returns the bytes of large commands in all groups.
    pub(super) fn large_bytes(&self) -> usize {
        self.large_bytes
    }

    /// Returns the bytes of large commands in one group.
    pub(super) fn large_bytes_in(&self, group: GroupId) -> usize {
        self.by_group[group.index()].large_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId(1);

    fn ticket(number: u64) -> Ticket {
        Ticket::Upload { number, bytes: 0 }
    }

    fn command(counter: Counter, deadline_ms: Ms, large_bytes: usize) -> Command {
        let ticket = Some(ticket(counter.0));
        Command { counter, ticket, deadline_ms, large_bytes, verb: UNCOUNTED, since_us: Us(0) }
    }

    fn commands(all: &[Command]) -> Commands {
        let mut commands = Commands::default();
        commands.set_groups(2);
        all.iter().for_each(|command| commands.push(GROUP, *command));
        commands
    }

    #[test]
    fn the_applied_command_is_returned_and_those_before_it_are_forgotten() {
        let mut commands = commands(&[
            command(Counter(1), Ms(9), 500),
            command(Counter(2), Ms(9), 0),
            command(Counter(3), Ms(9), 700),
        ]);
        assert_eq!((commands.large_bytes(), commands.large_bytes_in(GROUP)), (1_200, 1_200));
        assert_eq!(commands.take_applied(GROUP, Counter(2)), Some(command(Counter(2), Ms(9), 0)));
        assert_eq!((commands.large_bytes(), commands.large_bytes_in(GroupId(0))), (700, 0));
        assert_eq!(
            (commands.take_applied(GROUP, Counter(3)), commands.take_applied(GROUP, Counter(4))),
            (Some(command(Counter(3), Ms(9), 700)), None)
        );
        assert_eq!(commands.large_bytes(), 0);
    }

    #[test]
    fn a_late_command_that_left_the_node_stays_and_one_that_did_not_is_forgotten() {
        let mut commands = commands(&[
            command(Counter(1), Ms(10), 400),
            command(Counter(2), Ms(10), 300),
            command(Counter(3), Ms(11), 0),
        ]);
        let mut told = Vec::new();
        commands.expire(GROUP, Ms(9), |_| panic!("nothing is late"), |_, _| ());
        commands.expire(
            GROUP,
            Ms(10),
            |counters| counters.retain(|counter| *counter == Counter(2)),
            |ticket, is_gone| {
                told.push((ticket, is_gone));
            },
        );
        assert_eq!(
            (told, commands.large_bytes(), commands.is_stuck(GROUP)),
            (vec![(ticket(1), false), (ticket(2), true)], 400, true)
        );
        commands.expire(GROUP, Ms(10), |_| panic!("nobody waits for the first one"), |_, _| ());
        assert_eq!(commands.take_applied(GROUP, Counter(3)), Some(command(Counter(3), Ms(11), 0)));
        assert!(!commands.is_stuck(GROUP));
    }

    #[test]
    fn what_did_not_leave_the_node_can_be_taken_back_at_any_time() {
        let mut commands = commands(&[command(Counter(1), Ms(10), 0), command(Counter(2), Ms(10), 300)]);
        let mut told = Vec::new();
        commands.take_unsent(
            GROUP,
            |counters| counters.retain(|counter| *counter == Counter(2)),
            |ticket| {
                told.push(ticket);
            },
        );
        assert_eq!((told, commands.large_bytes(), commands.is_stuck(GROUP)), (vec![ticket(2)], 0, false));
        assert_eq!(
            commands.take_applied(GROUP, Counter(1)),
            Some(command(Counter(1), Ms(10), 0)),
            "its client waits on"
        );
    }
}
