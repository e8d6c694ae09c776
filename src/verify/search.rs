//! The search for an order that explains one key's history, after Wing and Gong, with Lowe's memo of visited points.
//!
//! At each point, the operations that may come next are those that were called before the first return still to come.
//! The search takes one of them, and if that leads nowhere, the next one. A set of taken operations with the resulting
//! state is entered only once. Where operations run one after the other there is a single choice, and the search is a
//! walk. The rules below keep the search short where many operations run at once. Each states why it may leave out
//! orders.

use super::model::{Effect, Model, Op, Seen, State};
use super::values::{ABSENT, ValueId};
use hashbrown::HashTable;

/// Maximum size of the memo, in words of 8 bytes.
const MEMO_WORDS_MAX: usize = 32 * 1024 * 1024;

/// Result of the search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Linearizable,
    Refuted,
    /// The limit was reached first.
    Undecided,
}

/// Searches for an order, and subtracts the steps taken from `steps`.
pub(super) fn search(model: &mut Model, steps: &mut u64) -> Verdict {
    let mut search = Search::new(model);
    if search.lacks_a_source() {
        return Verdict::Refuted;
    }
    if search.enter() {
        return Verdict::Linearizable;
    }
    loop {
        if *steps == 0 || search.memo.words.len() > MEMO_WORDS_MAX {
            return Verdict::Undecided;
        }
        *steps -= 1;
        match search.try_next() {
            Some(true) => return Verdict::Linearizable,
            Some(false) => {}
            None => return Verdict::Refuted,
        }
    }
}

struct Search<'a> {
    model: &'a mut Model,
    state: State,
    /// A bit for each closed operation that was taken.
    taken: Vec<u64>,
    /// All operations before this index are taken.
    base: usize,
    /// No operation from this index on is taken.
    top: usize,
    /// A bit for each open operation that was taken.
    open_taken: Vec<u64>,
    /// The taken operations in order; open operations are counted from `OPEN` on.
    trail: Vec<usize>,
    frames: Vec<Frame>,
    choices: Vec<Choice>,
    memo: Memo,
    /// The closed operations that may come next, and the first return among all operations not taken.
    candidates: Vec<usize>,
    bound: u64,
    /// By value: the number of operations not yet taken that must find it, and of those that may write it.
    needed: Vec<u32>,
    sources: Vec<u32>,
    /// By value: the number of candidates that read it; all 0 between uses.
    ready: Vec<u32>,
    /// If the key only grows: the sizes that operations must find, in ascending order, and for each size the number of
    /// these operations that are not yet taken.
    ranks: Vec<i64>,
    waiting: Vec<u32>,
    /// True if every value is written whole by the operations that produce it: there are no appends and no sums.
    has_sources: bool,
    /// True if `has_sources`, and if only operations that read the value observe whether there is a value.
    is_register: bool,
}

const OPEN: usize = 1 << (usize::BITS - 1);

#[derive(Clone, Copy)]
struct Frame {
    trail: usize,
    state: State,
    base: usize,
    top: usize,
    /// Start of its choices, which end where those of the next frame begin.
    choices: usize,
}

#[derive(Clone, Copy)]
enum Choice {
    Take(usize, State),
    /// Take all settled candidates.
    Settle,
}

impl<'a> Search<'a> {
    fn new(model: &'a mut Model) -> Search<'a> {
        let everything = || model.closed.iter().chain(&model.open);
        let has_sources = !everything().any(|op| matches!(op.effect, Effect::Append(_) | Effect::IncrementBy(_)));
        let observes_presence = |op: &Op| match op.effect {
            Effect::Exists | Effect::SetIfAbsent(_) => true,
            Effect::Delete => matches!(op.seen, Seen::Integer(_)),
            _ => false,
        };
        let is_register = has_sources && !everything().any(observes_presence);
        let values = if has_sources { model.values.len() } else { 0 };
        let mut ranks: Vec<i64> = model.closed.iter().filter_map(|op| model.rank_needed(*op)).collect();
        ranks.sort_unstable();
        ranks.dedup();
        let mut search = Search {
            state: model.start,
            taken: vec![0; model.closed.len().div_ceil(64)],
            base: 0,
            top: 0,
            open_taken: vec![0; model.open.len().div_ceil(64)],
            trail: Vec::with_capacity(model.closed.len()),
            frames: Vec::new(),
            choices: Vec::new(),
            memo: Memo::default(),
            candidates: Vec::new(),
            bound: 0,
            needed: vec![0; values],
            sources: vec![0; values],
            ready: vec![0; values],
            waiting: vec![0; ranks.len()],
            ranks,
            has_sources,
            is_register,
            model,
        };
        for at in (0..search.model.closed.len()).chain((0..search.model.open.len()).map(|at| at | OPEN)) {
            search.count(at, 1);
        }
        search
    }

    /// Returns true if an operation read a value that none can have written.
    fn lacks_a_source(&self) -> bool {
        let lacks = |value: usize| self.needed[value] > 0 && self.sources[value] == 0;
        (0..self.needed.len()).any(|value| value != self.model.start.value as usize && lacks(value))
    }

    /// Continues from the current state. Returns true if all operations are explained. Otherwise adds a frame, unless
    /// this point was visited before.
    fn enter(&mut self) -> bool {
        self.take_reads();
        if self.candidates.is_empty() {
            return true;
        }
        if !self.memo.insert(self.state, &self.open_taken, self.base, &self.taken[..self.top.div_ceil(64)]) {
            return false;
        }
        let choices = self.choices.len();
        self.offer_closed();
        self.offer_open();
        // The choices are tried from the last one on.
        self.choices[choices..].reverse();
        self.frames.push(Frame { trail: self.trail.len(), state: self.state, base: self.base, top: self.top, choices });
        false
    }

    /// Tries the next choice of the last frame that has one. Returns None if no choice is left anywhere.
    fn try_next(&mut self) -> Option<bool> {
        while let Some(&frame) = self.frames.last() {
            self.rewind(frame);
            if self.choices.len() == frame.choices {
                self.frames.pop();
                continue;
            }
            match self.choices.pop()? {
                Choice::Take(at, state) => {
                    self.take(at);
                    self.state = state;
                }
                Choice::Settle => self.settle(),
            }
            return Some(self.enter());
        }
        None
    }

    /// Takes the operations that fit the state, change nothing, and say so by their outcome. This is never wrong: where
    /// an order has such an operation later, it may as well come now, because neither the others nor the operation
    /// itself notice.
    fn take_reads(&mut self) {
        loop {
            self.find_candidates();
            let before = self.trail.len();
            for index in 0..self.candidates.len() {
                let at = self.candidates[index];
                let op = self.model.closed[at];
                if op.changed_nothing() {
                    let state = self.state;
                    if self.model.outcomes(state, op, self.bound).any(|after| after == state) {
                        self.take(at);
                    }
                }
            }
            if self.trail.len() == before {
                return;
            }
        }
    }

    fn find_candidates(&mut self) {
        self.candidates.clear();
        self.bound = u64::MAX;
        let closed = &self.model.closed;
        let mut at = self.base;
        while at < closed.len() {
            let rest = !self.taken[at / 64] >> (at % 64);
            if rest == 0 {
                at = (at / 64 + 1) * 64;
                continue;
            }
            at += rest.trailing_zeros() as usize;
            if at >= closed.len() || closed[at].call > self.bound {
                return;
            }
            self.bound = self.bound.min(closed[at].returned);
            self.candidates.push(at);
            at += 1;
        }
    }

    fn offer_closed(&mut self) {
        let settles = self.is_register && !self.is_still_needed(None) && self.settled().next().is_some();
        if self.has_sources {
            // Where outcomes allow several orders, the order of the returns is the best guess.
            let closed = &self.model.closed;
            self.candidates.sort_by_key(|at| closed[*at].returned);
        }
        for index in 0..self.candidates.len() {
            let at = self.candidates[index];
            let op = self.model.closed[at];
            // See `settle`: an operation that ignores the state may as well come after all settled ones.
            if !(settles && op.ignores_state()) {
                self.offer(at, op);
            }
        }
        if settles {
            self.choices.push(Choice::Settle);
        }
    }

    fn offer(&mut self, at: usize, op: Op) {
        for after in self.model.outcomes(self.state, op, self.bound) {
            if after.value == self.state.value || !self.is_still_needed(Some(op)) && !self.outgrows(op, after) {
                self.choices.push(Choice::Take(at, after));
            }
        }
    }

    /// Offers open operations where they may matter. Of equal operations, it offers only the one that was called first:
    /// an order with another one first is as good with the two exchanged.
    fn offer_open(&mut self) {
        for at in 0..self.model.open.len() {
            let op = self.model.open[at];
            let is_first = at == 0 || self.model.open[at - 1].effect != op.effect || self.is_open_taken(at - 1);
            if self.is_open_taken(at) || !is_first || op.call > self.bound || self.is_still_needed(None) {
                continue;
            }
            for after in self.model.outcomes(self.state, op, self.bound) {
                if after != self.state && !self.outgrows(op, after) && self.is_noticed(at, after) {
                    self.choices.push(Choice::Take(at | OPEN, after));
                }
            }
        }
    }

    /// Returns true if an operation that depends on the state can come next in `after`. If only operations that ignore
    /// the state can, the open operation `own` that led there may be left out.
    fn is_noticed(&mut self, own: usize, after: State) -> bool {
        let bound = self.bound;
        for index in 0..self.candidates.len() {
            let op = self.model.closed[self.candidates[index]];
            if !op.ignores_state() && self.model.outcomes(after, op, bound).next().is_some() {
                return true;
            }
        }
        for at in 0..self.model.open.len() {
            let op = self.model.open[at];
            if at != own
                && !self.is_open_taken(at)
                && !op.ignores_state()
                && op.call <= bound
                && self.model.outcomes(after, op, bound).any(|next| next != after)
            {
                return true;
            }
        }
        false
    }

    /// Returns the settled writes among the candidates, with their values. A write is settled if no other operation not
    /// yet taken writes its value, and if all operations not yet taken that read this value are candidates.
    fn settled(&mut self) -> impl Iterator<Item = (usize, ValueId)> + use<> {
        let read = |at: &usize| Some(&self.model.closed[*at]).filter(|op| op.effect == Effect::Get)?.reads();
        self.candidates.iter().filter_map(read).for_each(|value| self.ready[value as usize] += 1);
        let mut settled = Vec::new();
        for &at in &self.candidates {
            let op = self.model.closed[at];
            if let Effect::Set(value) = op.effect
                && op.seen == Seen::Done
                && self.sources[value as usize] == 1
                && self.needed[value as usize] == self.ready[value as usize]
            {
                settled.push((at, value));
            }
        }
        self.candidates.iter().filter_map(read).for_each(|value| self.ready[value as usize] = 0);
        settled.into_iter()
    }

    /// Takes all settled writes, each with its reads, in any order. This is never wrong where an operation that ignores
    /// the state comes next. If an order has a settled write and its reads later, they can move to just before that
    /// operation. The operation that followed them in the order does not notice, because it ignores the state, too.
    fn settle(&mut self) {
        self.find_candidates();
        let reads: Vec<usize> = self.candidates.clone();
        for (write, value) in self.settled() {
            self.take(write);
            self.state = State { value, expiry: 0 };
            for &read in &reads {
                let op = self.model.closed[read];
                if op.effect == Effect::Get && op.seen == Seen::Value(value) {
                    self.take(read);
                }
            }
        }
    }

    /// Returns true if the current value must stay for now: an operation other than `own` must still find it, and no
    /// operation will bring it back.
    fn is_still_needed(&self, own: Option<Op>) -> bool {
        let value = self.state.value;
        let own = u32::from(own.is_some_and(|op| op.reads() == Some(value)));
        self.has_sources && self.needed[value as usize] > own && self.sources[value as usize] == 0
    }

    /// Returns true if the key, which never shrinks, would grow beyond the size that an operation other than `own` must
    /// find.
    fn outgrows(&self, own: Op, after: State) -> bool {
        let (Some(from), Some(to)) = (self.model.rank(self.state), self.model.rank(after)) else { return false };
        let own = self.model.rank_needed(own);
        let first = self.ranks.partition_point(|rank| *rank < from);
        let passed = self.ranks[first..].iter().zip(&self.waiting[first..]).take_while(|(rank, _)| **rank < to);
        passed.into_iter().any(|(rank, waiting)| *waiting > u32::from(own == Some(*rank)))
    }

    fn take(&mut self, at: usize) {
        self.count(at, u32::MAX);
        self.trail.push(at);
        if at & OPEN != 0 {
            self.open_taken[(at ^ OPEN) / 64] |= 1 << (at % 64);
            return;
        }
        self.taken[at / 64] |= 1 << (at % 64);
        self.top = self.top.max(at + 1);
        while self.base < self.model.closed.len() && self.taken[self.base / 64] >> (self.base % 64) & 1 == 1 {
            self.base += 1;
        }
    }

    fn rewind(&mut self, frame: Frame) {
        while self.trail.len() > frame.trail {
            let Some(at) = self.trail.pop() else { break };
            self.count(at, 1);
            let taken = if at & OPEN == 0 { &mut self.taken } else { &mut self.open_taken };
            taken[(at & !OPEN) / 64] &= !(1 << (at % 64));
        }
        (self.state, self.base, self.top) = (frame.state, frame.base, frame.top);
    }

    /// Adds `by` (1, or `u32::MAX` for -1) to the counts of what an operation reads and writes.
    fn count(&mut self, at: usize, by: u32) {
        let op = if at & OPEN == 0 { self.model.closed[at] } else { self.model.open[at ^ OPEN] };
        let add = |counts: &mut Vec<u32>, at: usize| counts[at] = counts[at].wrapping_add(by);
        if let Some(rank) = self.model.rank_needed(op)
            && let Ok(at) = self.ranks.binary_search(&rank)
        {
            add(&mut self.waiting, at);
        }
        if self.has_sources {
            op.reads().into_iter().for_each(|value| add(&mut self.needed, value as usize));
            op.writes().into_iter().for_each(|value| add(&mut self.sources, value as usize));
            if matches!(op.effect, Effect::SetExpiring(..)) {
                add(&mut self.sources, ABSENT as usize);
            }
        }
    }

    fn is_open_taken(&self, at: usize) -> bool {
        self.open_taken[at / 64] >> (at % 64) & 1 == 1
    }
}

/// The points that were visited: the taken operations, and the state.
#[derive(Default)]
struct Memo {
    words: Vec<u64>,
    /// Start and end of each point in `words`.
    reached: HashTable<(usize, usize)>,
}

impl Memo {
    /// Adds a point. Returns true if it is new. `taken` ends with the last word that has a bit set.
    fn insert(&mut self, state: State, open_taken: &[u64], base: usize, taken: &[u64]) -> bool {
        let start = self.words.len();
        // All words before that of `base` are full.
        self.words.extend([u64::from(state.value) << 32 | u64::from(state.expiry), base as u64 / 64]);
        self.words.extend_from_slice(open_taken);
        self.words.extend_from_slice(taken.get(base / 64..).unwrap_or_default());
        let (words, hash) = (&self.words, fold(&self.words[start..]));
        let same = |&(from, to): &(usize, usize)| words[from..to] == words[start..];
        if self.reached.find(hash, same).is_some() {
            self.words.truncate(start);
            return false;
        }
        self.reached.insert_unique(hash, (start, words.len()), |&(from, to)| fold(&words[from..to]));
        true
    }
}

/// Returns a hash that is the same in every run.
fn fold(words: &[u64]) -> u64 {
    const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
    let hash = words.iter().fold(0, |hash: u64, word| (hash.rotate_left(5) ^ word).wrapping_mul(ODD));
    hash ^ (hash >> 32)
}
