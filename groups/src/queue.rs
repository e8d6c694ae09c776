//! The commands that a leader has taken and not yet proposed. The commands that arrive during the vote on one instance
//! form the next value, so batches form by themselves.

use crate::value::{COMMAND_HEADER_BYTES, ValueBuilder};
use crate::{Commands, Counter, DedupTable, Ms, NodeId, Value};
use std::collections::VecDeque;

/// The commands that wait for a leader's next instances.
#[derive(Debug)]
pub struct Queue {
    batch_bytes_max: usize,
    full: VecDeque<Batch>,
    open: Batch,
    /// The last command taken of each origin under this ballot.
    taken: DedupTable,
}

#[derive(Debug, Default)]
struct Batch {
    builder: ValueBuilder,
    origins: Vec<NodeId>,
}

impl Queue {
    /// Creates an empty queue. A value holds at most `batch_bytes_max` bytes of commands, or one larger command.
    #[must_use]
    pub fn new(batch_bytes_max: usize) -> Queue {
        Queue { batch_bytes_max, full: VecDeque::new(), open: Batch::default(), taken: DedupTable::default() }
    }

    /// Takes the commands of `origin` that follow its command `after`, without those that it took before. Returns
    /// false, and takes none, if `after` was never taken under this ballot, or if a command bears another origin's
    /// name, is out of order or malformed.
    pub fn extend(&mut self, origin: NodeId, after: Counter, commands: &[u8]) -> bool {
        let Ok(parsed) = Commands::parse(commands) else { return false };
        let Some(first) = parsed.clone().next().map(|command| command.id) else { return true };
        let taken = self.taken.last(origin);
        if after != Counter::default() && taken.is_none_or(|last| last.start != first.start || last.counter < after) {
            return false;
        }
        let (mut newest, mut repeated_bytes, mut version) = (first, 0, 1);
        let mut before = None;
        for command in parsed {
            if command.id.origin != origin || before.is_some_and(|before| command.id <= before) {
                return false;
            }
            before = Some(command.id);
            // The command was sent again after a broken connection: under this ballot it is in the log or on its way.
            if taken.is_some_and(|last| command.id <= last) {
                repeated_bytes += COMMAND_HEADER_BYTES + command.body.len();
            }
            newest = newest.max(command.id);
            version = version.max(command.version());
        }
        let commands = &commands[repeated_bytes..];
        let room = self.batch_bytes_max.saturating_sub(self.open.builder.len());
        if commands.len() <= room {
            self.add(origin, commands, version);
        } else {
            self.split(origin, commands);
        }
        self.taken.advance(newest);
        true
    }

    /// Returns the bytes of commands in the next value if `more` bytes of commands are added first. The number may be
    /// too high, never too low.
    #[must_use]
    pub fn next_bytes(&self, more: usize) -> usize {
        let open = self.open.builder.len();
        let joined = (open + more).min(self.batch_bytes_max.max(open).max(more));
        self.full.front().map_or(joined, |batch| batch.builder.len())
    }

    /// Returns the lowest version that the next value may have, for the commands in it.
    #[must_use]
    pub fn next_version(&self) -> u8 {
        self.full.front().unwrap_or(&self.open).builder.version()
    }

    /// Returns true if there is nothing to propose.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.full.is_empty() && self.open.builder.is_empty()
    }

    /// Returns the next value, which is a no-op if the queue is empty, and sets `waiting` to the nodes whose clients
    /// wait for it. See [`ValueBuilder::seal`].
    pub fn seal(&mut self, chain: u32, time_ms: Ms, digest: Option<u64>, waiting: &mut Vec<NodeId>) -> Value {
        waiting.clear();
        if let Some(mut batch) = self.full.pop_front() {
            waiting.append(&mut batch.origins);
            return batch.builder.seal(chain, time_ms, digest);
        }
        waiting.append(&mut self.open.origins);
        self.open.builder.seal(chain, time_ms, digest)
    }

    /// Cuts between commands so that each batch stays within the limit.
    fn split(&mut self, origin: NodeId, commands: &[u8]) {
        let mut rest = commands;
        for command in Commands::parse(commands).expect("parsed before") {
            let (whole, after) = rest.split_at(COMMAND_HEADER_BYTES + command.body.len());
            rest = after;
            if !self.open.builder.is_empty() && self.open.builder.len() + whole.len() > self.batch_bytes_max {
                self.full.push_back(std::mem::take(&mut self.open));
            }
            self.add(origin, whole, command.version());
        }
    }

    fn add(&mut self, origin: NodeId, commands: &[u8], version: u8) {
        if commands.is_empty() {
            return;
        }
        self.open.builder.extend(commands, version);
        if !self.open.origins.contains(&origin) {
            self.open.origins.push(origin);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::OriginQueue;

    fn commands(node: u32, bodies: &[&[u8]]) -> Vec<u8> {
        let mut origin = OriginQueue::new(NodeId(node), 1);
        for body in bodies {
            origin.push(|out| out.extend_from_slice(body));
        }
        origin.send(usize::MAX).1.to_vec()
    }

    fn seal(queue: &mut Queue) -> (usize, Vec<NodeId>) {
        let mut waiting = Vec::new();
        let value = queue.seal(0, Ms(0), None, &mut waiting);
        (value.commands().count(), waiting)
    }

    #[test]
    fn everything_queued_makes_one_value() {
        let mut queue = Queue::new(1000);
        assert!(queue.extend(NodeId(1), Counter(0), &commands(1, &[b"a", b"b"])));
        assert!(queue.extend(NodeId(2), Counter(0), &commands(2, &[b"c"])));
        assert_eq!(seal(&mut queue), (3, vec![NodeId(1), NodeId(2)]));
        assert!(queue.is_empty());
        assert_eq!(seal(&mut queue), (0, vec![]));
    }

    #[test]
    fn a_value_has_the_version_that_its_commands_ask_for() {
        let mut queue = Queue::new(70);
        let (old, new) = ([1; 10], [crate::MACHINE_OF_VERSION_3; 10]);
        assert!(queue.extend(NodeId(1), Counter(0), &commands(1, &[&old, &new, &old])));
        let mut next = |digest| queue.seal(0, Ms(0), digest, &mut Vec::new()).version();
        assert_eq!([next(Some(7)), next(None)], [3, 1]);
        assert!(queue.extend(NodeId(2), Counter(0), &commands(2, &[&old])));
        assert_eq!((queue.next_version(), queue.seal(0, Ms(0), Some(7), &mut Vec::new()).version()), (1, 2));
    }

    #[test]
    fn batches_are_cut_at_the_limit_and_a_larger_command_goes_alone() {
        let mut queue = Queue::new(60);
        let large = [0; 100];
        assert!(queue.extend(NodeId(1), Counter(0), &commands(1, &[b"a", b"b", &large, b"c"])));
        let counts: Vec<usize> = std::iter::from_fn(|| (!queue.is_empty()).then(|| seal(&mut queue).0)).collect();
        assert_eq!(counts, [2, 1, 1]);
    }

    #[test]
    fn commands_sent_again_under_the_same_ballot_are_taken_once() {
        let mut queue = Queue::new(1000);
        assert!(queue.extend(NodeId(1), Counter(0), &commands(1, &[b"a", b"b"])));
        assert!(queue.extend(NodeId(1), Counter(0), &commands(1, &[b"a", b"b", b"c"])));
        assert!(queue.extend(NodeId(1), Counter(0), &commands(1, &[b"a"])));
        assert_eq!(seal(&mut queue), (3, vec![NodeId(1)]));
        assert!(queue.extend(NodeId(1), Counter(0), &commands(1, &[b"a", b"b", b"c"])));
        assert!(queue.is_empty());
        assert_eq!(seal(&mut queue), (0, vec![]));
    }

    #[test]
    fn commands_after_a_missing_one_are_refused() {
        let all = commands(1, &[b"a", b"b", b"c"]);
        let (first, last) = all.split_at(2 * (COMMAND_HEADER_BYTES + 1));
        let mut queue = Queue::new(1000);
        assert!(!queue.extend(NodeId(1), Counter(2), last));
        assert!(queue.extend(NodeId(1), Counter(0), first));
        assert!(queue.extend(NodeId(1), Counter(2), last));
        assert!(!queue.extend(NodeId(2), Counter(0), first), "another's name");
        assert_eq!(seal(&mut queue).0, 3);
    }
}
