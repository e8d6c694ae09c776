//! Waiting reads. A read waits for the commands that its node queued before it, and for a confirmation that began after
//! it arrived.
//!
//! A read passes three stages: *fresh* (no question names it), *asked* (a numbered question left after it arrived), and
//! *confirmed* (the answers name an instance that must be applied). The rule is that of Raft's read index (Ongaro's
//! thesis, section 6.4). Here any member can ask, for many groups at once.
//!
//! The next command that the node queued after the read ends the wait as well. That command was proposed after the read
//! arrived, so just before it is applied the state holds all that was chosen when the read arrived. Just after it would
//! be too late: a client that sends a read and then a write must not read its own later write.

use crate::{Ballot, Counter, Instance};
use std::collections::VecDeque;

/// The caller's name for a read.
pub type ReadId = u64;

/// The reads of one group at one node.
#[derive(Clone, Debug, Default)]
pub struct ReadQueue {
    /// The reads in order of arrival, so by ascending `after`. Held reads come before the others.
    waiting: VecDeque<Read>,
    /// The number of fresh reads.
    fresh: usize,
}

#[derive(Clone, Debug)]
struct Read {
    id: ReadId,
    /// The counter of the last command that this node had queued in the group when the read came.
    after: Counter,
    stage: ReadStage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadStage {
    Fresh,
    Asked {
        number: u64,
        ballot: Ballot,
    },
    Confirmed(Instance),
    /// Waits for the next command of this node, and for nothing else.
    Held,
}

impl ReadQueue {
    /// Adds a read that has arrived.
    pub fn push(&mut self, id: ReadId, after: Counter) {
        self.waiting.push_back(Read { id, after, stage: ReadStage::Fresh });
        self.fresh += 1;
    }

    /// Holds a read that could be answered, until just before the next command of this node is applied.
    pub fn hold(&mut self, id: ReadId) {
        self.waiting.push_front(Read { id, after: Counter::default(), stage: ReadStage::Held });
    }

    /// Returns true if a read needs a question.
    #[must_use]
    pub fn has_fresh(&self) -> bool {
        self.fresh > 0
    }

    /// Returns the number of waiting reads, in all stages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Returns true if no read waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Notes that question `number`, which names `ballot`, leaves now on behalf of all fresh reads.
    pub fn asked(&mut self, number: u64, ballot: Ballot) {
        let fresh = self.waiting.iter_mut().filter(|read| read.stage == ReadStage::Fresh);
        fresh.for_each(|read| read.stage = ReadStage::Asked { number, ballot });
        self.fresh = 0;
    }

    /// Confirms the reads of question `number`, and of earlier questions under the same ballot: they now wait for
    /// `instance` only. Every read that arrived before one of these reads is confirmed too, whatever became of its own
    /// question: it also arrived before question `number` left. So of two reads of one client, the first never sees a
    /// later state than the second.
    pub fn confirmed(&mut self, number: u64, ballot: Ballot, instance: Instance) {
        let is_named =
            |read: &Read| matches!(read.stage, ReadStage::Asked { number: n, ballot: b } if n <= number && b == ballot);
        let covered = self.waiting.iter().rposition(is_named).map_or(0, |last| last + 1);
        for read in self.waiting.range_mut(..covered) {
            match read.stage {
                ReadStage::Confirmed(_) | ReadStage::Held => continue,
                ReadStage::Fresh => self.fresh -= 1,
                ReadStage::Asked { .. } => {}
            }
            read.stage = ReadStage::Confirmed(instance);
        }
    }

    /// Makes the reads of question `number` fresh again, because it will not be confirmed. Reads of other questions
    /// keep theirs.
    pub fn unconfirmed(&mut self, number: u64) {
        for read in &mut self.waiting {
            if matches!(read.stage, ReadStage::Asked { number: n, .. } if n == number) {
                read.stage = ReadStage::Fresh;
                self.fresh += 1;
            }
        }
    }

    /// Makes all reads that wait for a confirmation fresh again, because all questions are lost or outdated.
    pub fn ask_again(&mut self) {
        let asked =
            self.waiting.iter_mut().filter(|read| matches!(read.stage, ReadStage::Fresh | ReadStage::Asked { .. }));
        self.fresh = asked.map(|read| read.stage = ReadStage::Fresh).count();
    }

    /// Takes the reads that may be answered when all instances up to `applied` are applied. `oldest` is the counter of
    /// this node's oldest command that is not applied.
    pub fn take_ready(&mut self, applied: Instance, oldest: Counter, ready: &mut Vec<ReadId>) {
        if self.waiting.len() == self.fresh {
            return;
        }
        self.waiting.retain(|read| {
            let is_ready = matches!(read.stage, ReadStage::Confirmed(at) if at <= applied) && read.after < oldest;
            if is_ready {
                ready.push(read.id);
            }
            !is_ready
        });
    }

    /// Takes a read that came before this node's command `counter`, which is applied next.
    pub fn take_before(&mut self, counter: Counter) -> Option<ReadId> {
        let read = self.waiting.pop_front_if(|read| read.after < counter)?;
        if read.stage == ReadStage::Fresh {
            self.fresh -= 1;
        }
        Some(read.id)
    }

    /// Forgets a read that nobody waits for any more.
    pub fn cancel(&mut self, id: ReadId) {
        let Some(position) = self.waiting.iter().position(|read| read.id == id) else { return };
        if self.waiting.remove(position).is_some_and(|read| read.stage == ReadStage::Fresh) {
            self.fresh -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(reads: &mut ReadQueue, applied: u64, oldest: Counter) -> Vec<ReadId> {
        let mut ready = Vec::new();
        reads.take_ready(Instance(applied), oldest, &mut ready);
        ready
    }

    #[test]
    fn a_read_waits_for_a_question_that_left_after_it_arrived() {
        let mut reads = ReadQueue::default();
        reads.push(1, Counter(0));
        reads.asked(10, Ballot::ZERO);
        reads.push(2, Counter(0));
        reads.confirmed(10, Ballot::ZERO, Instance(3));
        assert_eq!(ready(&mut reads, 3, Counter(u64::MAX)), [1]);
        assert!(reads.has_fresh());
        reads.asked(11, Ballot::ZERO);
        reads.confirmed(11, Ballot::ZERO, Instance(4));
        assert_eq!(ready(&mut reads, 3, Counter(u64::MAX)), []);
        assert_eq!(ready(&mut reads, 4, Counter(u64::MAX)), [2]);
    }

    #[test]
    fn a_read_waits_for_the_commands_queued_before_it() {
        let mut reads = ReadQueue::default();
        reads.push(1, Counter(7));
        reads.asked(1, Ballot::ZERO);
        reads.confirmed(1, Ballot::ZERO, Instance(1));
        assert_eq!(ready(&mut reads, 9, Counter(7)), []);
        assert_eq!(ready(&mut reads, 9, Counter(8)), [1]);
    }

    #[test]
    fn a_read_is_answered_before_its_nodes_next_command_at_the_latest() {
        let mut reads = ReadQueue::default();
        reads.push(1, Counter(3));
        reads.asked(1, Ballot::ZERO);
        reads.push(2, Counter(3));
        reads.push(3, Counter(4));
        reads.confirmed(1, Ballot::ZERO, Instance(9));
        assert_eq!(reads.take_before(Counter(3)), None);
        assert_eq!(
            [reads.take_before(Counter(4)), reads.take_before(Counter(4)), reads.take_before(Counter(4))],
            [Some(1), Some(2), None]
        );
        assert!(reads.has_fresh(), "the third one");
        reads.hold(1);
        reads.ask_again();
        reads.asked(2, Ballot::ZERO);
        reads.confirmed(2, Ballot::ZERO, Instance(1));
        assert_eq!(ready(&mut reads, 9, Counter(5)), [3], "a held one waits for a command, whatever is confirmed");
        assert_eq!(reads.take_before(Counter(5)), Some(1));
        assert!(reads.is_empty() && !reads.has_fresh());
    }

    #[test]
    fn a_question_that_confirms_nothing_leaves_the_reads_of_others_alone() {
        let mut reads = ReadQueue::default();
        reads.push(1, Counter(0));
        reads.asked(1, Ballot::ZERO);
        reads.push(2, Counter(0));
        reads.asked(2, Ballot::ZERO);
        reads.unconfirmed(1);
        assert!(reads.has_fresh(), "the first one");
        reads.asked(3, Ballot::ZERO);
        reads.unconfirmed(1);
        assert!(!reads.has_fresh(), "there is another question by now");
        reads.confirmed(3, Ballot::ZERO, Instance(1));
        assert_eq!(ready(&mut reads, 1, Counter(u64::MAX)), [1, 2]);
    }

    #[test]
    fn no_read_is_answered_before_one_that_came_earlier() {
        for (is_asked_again, later) in
            [(false, Ballot::ZERO), (true, Ballot::ZERO), (true, Ballot { round: 2, ..Ballot::ZERO })]
        {
            let mut reads = ReadQueue::default();
            reads.push(1, Counter(0));
            reads.asked(1, Ballot::ZERO);
            reads.push(2, Counter(0));
            reads.asked(2, later);
            reads.push(3, Counter(0));
            reads.unconfirmed(1);
            if is_asked_again {
                reads.asked(3, Ballot::ZERO);
            }
            reads.confirmed(2, later, Instance(4));
            assert_eq!(ready(&mut reads, 4, Counter(u64::MAX)), [1, 2]);
            assert_eq!((reads.has_fresh(), reads.len()), (!is_asked_again, 1), "the third came after the question");
            reads.cancel(3);
            assert!(!reads.has_fresh() && reads.is_empty());
        }
    }

    #[test]
    fn an_answer_under_another_ballot_confirms_nothing() {
        let mut reads = ReadQueue::default();
        let other = Ballot { round: 2, ..Ballot::ZERO };
        reads.push(1, Counter(0));
        reads.asked(1, other);
        reads.confirmed(5, Ballot::ZERO, Instance(1));
        assert_eq!(ready(&mut reads, 9, Counter(u64::MAX)), []);
        reads.ask_again();
        reads.cancel(1);
        assert!(!reads.has_fresh() && reads.is_empty());
    }
}
