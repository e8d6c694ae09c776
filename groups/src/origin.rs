//! The commands that this node's clients sent to one group and that are not applied yet, in order.
//!
//! They stay here until applied, because only the origin can send them again: to a new leader, under a new ballot, or
//! after a broken connection. The origin always sends all of them, oldest first.

use crate::value::put_command;
use crate::{CommandId, Counter, NodeId};
use bytes::{Buf, BytesMut};
use std::collections::VecDeque;

/// An emptied queue keeps its buffer only if the last command was at most this long, in bytes.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// The queue of one group at one node.
#[derive(Debug)]
pub struct OriginQueue {
    node: NodeId,
    start: u64,
    /// The counter of the newest command.
    counter: Counter,
    entries: VecDeque<QueuedCommand>,
    /// The commands of `entries`, end to end.
    bytes: BytesMut,
    /// The number of entries that were sent under the present ballot, and their bytes.
    sent: usize,
    sent_bytes: usize,
    /// The highest counter of a command that may be in some leader's queue or in the log.
    exposed: Counter,
}

#[derive(Clone, Copy, Debug)]
struct QueuedCommand {
    counter: Counter,
    bytes: usize,
}

impl OriginQueue {
    /// Creates an empty queue of `node`, which has been started `start` times.
    #[must_use]
    pub fn new(node: NodeId, start: u64) -> OriginQueue {
        OriginQueue {
            node,
            start,
            counter: Counter::default(),
            entries: VecDeque::new(),
            bytes: BytesMut::new(),
            sent: 0,
            sent_bytes: 0,
            exposed: Counter::default(),
        }
    }

    /// Appends a command, whose body `body` writes, and returns its counter.
    pub fn push(&mut self, body: impl FnOnce(&mut BytesMut)) -> Counter {
        self.counter = self.counter.following();
        let id = CommandId { origin: self.node, start: self.start, counter: self.counter };
        let bytes = put_command(&mut self.bytes, id, body);
        self.entries.push_back(QueuedCommand { counter: self.counter, bytes });
        self.counter
    }

    /// Returns the counter of the newest command ever queued.
    #[must_use]
    pub fn newest(&self) -> Counter {
        self.counter
    }

    /// Returns the counter of the oldest command not applied; one above all counters so far if there is none.
    #[must_use]
    pub fn oldest(&self) -> Counter {
        self.entries.front().map_or(self.counter.following(), |entry| entry.counter)
    }

    /// Returns the bytes of the queued commands.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Returns true if a command has not been sent under the present ballot.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        self.sent < self.entries.len()
    }

    /// Returns an upper bound of the bytes that [`OriginQueue::send`] would send; 0 if there is nothing to send. The
    /// bound is too high by less than one command.
    #[must_use]
    pub fn next_bytes(&self, bytes_max: usize) -> usize {
        let first = self.entries.get(self.sent).map_or(0, |entry| entry.bytes);
        first.max(bytes_max.min(self.bytes.len() - self.sent_bytes))
    }

    /// Marks the next commands as sent, up to `bytes_max` bytes or one larger command. Returns `(after, commands)` as
    /// in a [`Forward`](crate::message::Forward). There may be more to send.
    pub fn send(&mut self, bytes_max: usize) -> (Counter, &[u8]) {
        let (first, first_byte) = (self.sent, self.sent_bytes);
        while let Some(entry) = self.entries.get(self.sent) {
            if self.sent > first && self.sent_bytes + entry.bytes - first_byte > bytes_max {
                break;
            }
            self.exposed = self.exposed.max(entry.counter);
            self.sent_bytes += entry.bytes;
            self.sent += 1;
        }
        let after = if first == 0 { Counter::default() } else { self.entries[first - 1].counter };
        (after, &self.bytes[first_byte..self.sent_bytes])
    }

    /// Marks all commands as not sent, because the ballot or the connection changed.
    pub fn unsend(&mut self) {
        (self.sent, self.sent_bytes) = (0, 0);
    }

    /// Removes the command with this id, which was applied for the first time. Returns its counter if the command is
    /// of this node and this start. Nobody waits for commands of earlier starts.
    ///
    /// # Panics
    /// If an older command of this queue is not applied yet. The [`DedupTable`](crate::DedupTable) would take that
    /// older command for a repetition.
    pub fn on_applied(&mut self, id: CommandId) -> Option<Counter> {
        if id.origin != self.node || id.start != self.start {
            return None;
        }
        let entry = self.entries.pop_front().expect("an applied command was queued");
        assert_eq!(entry.counter, id.counter, "a command was applied before an older one of its origin");
        self.bytes.advance(entry.bytes);
        if entry.bytes > KEPT_BYTES_MAX && self.bytes.is_empty() {
            self.bytes = BytesMut::new();
        }
        self.sent = self.sent.saturating_sub(1);
        self.sent_bytes = self.sent_bytes.saturating_sub(entry.bytes);
        Some(id.counter)
    }

    /// Removes every command up to this id, if the id is of this node and this start: they were applied elsewhere.
    /// Returns their counters.
    pub fn skip(&mut self, id: CommandId) -> Vec<Counter> {
        let mut skipped = Vec::new();
        while id.origin == self.node && id.start == self.start && self.oldest() <= id.counter {
            let next = CommandId { counter: self.oldest(), ..id };
            match self.entries.front() {
                Some(_) => skipped.extend(self.on_applied(next)),
                None => break,
            }
        }
        skipped
    }

    /// Takes back those of the commands `counters` (ascending) that were never sent, and leaves only their counters in
    /// the list. The other commands may be in some leader's queue or in the log: they stay, and their fate is unknown.
    pub fn withdraw(&mut self, counters: &mut Vec<Counter>) {
        counters.retain(|counter| {
            *counter > self.exposed && self.entries.binary_search_by_key(counter, |entry| entry.counter).is_ok()
        });
        let Some(newest) = counters.last() else { return };
        // The entries that stay move back, towards the newest withdrawn entry, and fill the gaps. The entries after
        // the newest withdrawn one are not touched.
        let end = self.entries.partition_point(|entry| entry.counter <= *newest);
        let mut from: usize = self.entries.range(..end).map(|entry| entry.bytes).sum();
        let (mut to, mut kept, mut going) = (from, end, counters.iter().rev().peekable());
        for position in (0..end).rev() {
            let entry = self.entries[position];
            from -= entry.bytes;
            if going.next_if_eq(&&entry.counter).is_none() {
                to -= entry.bytes;
                self.bytes.copy_within(from..from + entry.bytes, to);
                kept -= 1;
                self.entries[kept] = entry;
            }
        }
        self.entries.drain(..kept);
        self.bytes.advance(to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Commands;

    fn origin(bodies: &[&[u8]]) -> OriginQueue {
        let mut origin = OriginQueue::new(NodeId(1), 3);
        for body in bodies {
            origin.push(|out| out.extend_from_slice(body));
        }
        origin
    }

    fn bodies(commands: &[u8]) -> Vec<Vec<u8>> {
        Commands::parse(commands).unwrap().map(|command| command.body.to_vec()).collect()
    }

    fn id(counter: u64) -> CommandId {
        CommandId { origin: NodeId(1), start: 3, counter: Counter(counter) }
    }

    #[test]
    fn commands_leave_in_order_and_all_again_after_a_change() {
        let mut origin = origin(&[b"a", b"b"]);
        let (after, commands) = origin.send(1000);
        assert_eq!((after.0, bodies(commands)), (0, vec![b"a".to_vec(), b"b".to_vec()]));
        origin.push(|out| out.extend_from_slice(b"c"));
        let (after, commands) = origin.send(1000);
        assert_eq!((after.0, bodies(commands)), (2, vec![b"c".to_vec()]));
        assert_eq!(origin.on_applied(id(1)), Some(Counter(1)));
        origin.unsend();
        let (after, commands) = origin.send(1000);
        assert_eq!((after.0, bodies(commands)), (0, vec![b"b".to_vec(), b"c".to_vec()]));
    }

    #[test]
    fn what_is_sent_at_once_is_bounded_but_never_nothing() {
        let mut origin = origin(&[b"a", b"b", &[0; 90], b"c"]);
        let mut counts = Vec::new();
        while origin.has_unsent() {
            counts.push(bodies(origin.send(60).1).len());
        }
        assert_eq!(counts, [2, 1, 1]);
    }

    #[test]
    fn only_what_nobody_has_seen_can_be_withdrawn() {
        let mut origin = origin(&[b"a"]);
        origin.send(1000);
        origin.push(|out| out.extend_from_slice(b"b"));
        origin.push(|out| out.extend_from_slice(b"c"));
        let mut counters = vec![Counter(1), Counter(2)];
        origin.withdraw(&mut counters);
        assert_eq!(counters, [Counter(2)]);
        origin.withdraw(&mut counters);
        assert_eq!(counters, []);
        let (after, commands) = origin.send(1000);
        assert_eq!((after.0, bodies(commands)), (1, vec![b"c".to_vec()]));
        assert_eq!(origin.oldest(), Counter(1));
    }

    #[test]
    fn many_are_withdrawn_from_between_others() {
        let mut origin = OriginQueue::new(NodeId(1), 3);
        let body = |counter: u64| vec![counter as u8; counter as usize % 7];
        for counter in 1..=100 {
            assert_eq!(origin.push(|out| out.extend_from_slice(&body(counter))), Counter(counter));
        }
        origin.send(200);
        let exposed = origin.entries[origin.sent - 1].counter;
        let wanted: Vec<Counter> = (1..=60).filter(|counter| counter % 10 != 0).map(Counter).collect();
        let mut withdrawn = wanted.clone();
        origin.withdraw(&mut withdrawn);
        let unexposed = wanted.into_iter().filter(|counter| *counter > exposed);
        assert!(exposed > Counter(3) && withdrawn == unexposed.collect::<Vec<_>>());
        origin.unsend();
        let (_, commands) = origin.send(usize::MAX);
        let left = (1..=100).filter(|counter| withdrawn.binary_search(&Counter(*counter)).is_err());
        let found = Commands::parse(commands).unwrap().map(|command| (command.id.counter.0, command.body.to_vec()));
        assert!(found.eq(left.map(|counter| (counter, body(counter)))));
        assert_eq!(origin.bytes(), origin.sent_bytes);
    }

    #[test]
    fn tens_of_thousands_are_withdrawn_in_one_pass() {
        const COMMANDS: u64 = 60_000;
        let mut origin = origin(&[b"sent"]);
        origin.send(1000);
        (0..COMMANDS).for_each(|_| _ = origin.push(|out| out.extend_from_slice(&[0; 100])));
        let mut counters: Vec<Counter> = (2..=COMMANDS + 1).map(Counter).collect();
        // One pass takes milliseconds. One pass for each command took minutes.
        origin.withdraw(&mut counters);
        assert_eq!((counters.len() as u64, origin.entries.len()), (COMMANDS, 1));
    }

    #[test]
    fn commands_of_others_and_of_earlier_starts_are_nobodys() {
        let mut origin = origin(&[b"a"]);
        assert_eq!(origin.on_applied(CommandId { start: 2, ..id(9) }), None);
        assert_eq!(origin.on_applied(CommandId { origin: NodeId(2), ..id(9) }), None);
        assert_eq!(origin.on_applied(id(1)), Some(Counter(1)));
        assert_eq!(origin.oldest(), Counter(2));
    }

    #[test]
    #[should_panic(expected = "before an older one")]
    fn a_gap_stops_the_node() {
        origin(&[b"a", b"b"]).on_applied(id(2));
    }
}
