//! The workers of a node: event loops, each with a thread of its own. A group belongs to one worker, which does all
//! work for the group: its messages, votes, log records, leases and reads. A connection belongs to one worker, too.
//! A command of a client for a group of another worker goes to that worker, and its reply comes back.

use groups::GroupId;
use std::fmt;

/// Maximum number of workers of a node.
pub const WORKERS_MAX: u32 = 64;

/// The number of a worker, counted from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u32);

impl WorkerId {
    /// The worker that acts for the whole node: it listens, and takes part in the birth and in changes of the members.
    pub const FIRST: WorkerId = WorkerId(0);

    /// Returns the number as an index.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One worker among the workers of its node. Their number is a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workers {
    me: WorkerId,
    count: u32,
}

/// The default is the only worker of a node.
impl Default for Workers {
    fn default() -> Workers {
        Workers::ONE
    }
}

impl Workers {
    /// The only worker of a node.
    pub const ONE: Workers = Workers { me: WorkerId::FIRST, count: 1 };

    /// Returns worker `me` of `count` workers.
    ///
    /// # Panics
    /// If [`Workers::checked`] returns `None`.
    #[must_use]
    pub fn new(me: WorkerId, count: u32) -> Workers {
        Workers::checked(me, count).unwrap_or_else(|| panic!("there is no worker {me} of {count}"))
    }

    /// Returns worker `me` of `count` workers; `None` if `count` is not a power of two of at most [`WORKERS_MAX`], or `me`
    /// is not below it.
    #[must_use]
    pub fn checked(me: WorkerId, count: u32) -> Option<Workers> {
        (count.is_power_of_two() && count <= WORKERS_MAX && me.0 < count).then_some(Workers { me, count })
    }

    /// Returns true for the worker that acts for the whole node.
    #[must_use]
    pub fn is_first(self) -> bool {
        self.me == WorkerId::FIRST
    }

    /// Returns this worker's number.
    #[must_use]
    pub fn me(self) -> WorkerId {
        self.me
    }

    /// Returns the number of workers.
    #[must_use]
    pub fn count(self) -> u32 {
        self.count
    }

    /// Returns the worker to which a group belongs.
    #[must_use]
    pub fn owner(self, group: GroupId) -> WorkerId {
        WorkerId(group.0 & (self.count - 1))
    }

    /// Returns true if the group belongs to this worker.
    #[must_use]
    pub fn owns(self, group: GroupId) -> bool {
        self.owner(group) == self.me
    }

    /// Returns the groups of this worker, of `groups` groups.
    pub fn owned(self, groups: u32) -> impl Iterator<Item = GroupId> {
        (self.me.0..groups).step_by(self.count as usize).map(GroupId)
    }

    /// Returns all workers, this one included.
    pub fn all(self) -> impl Iterator<Item = Workers> {
        (0..self.count).map(move |me| Workers { me: WorkerId(me), ..self })
    }

    /// Returns the other workers.
    pub fn others(self) -> impl Iterator<Item = WorkerId> {
        (0..self.count).map(WorkerId).filter(move |worker| *worker != self.me)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_group_belongs_to_exactly_one_worker() {
        for (count, groups) in [(1, 1), (1, 5), (2, 5), (4, 3), (4, 16), (8, 1_000)] {
            let mut owners = vec![0; groups as usize];
            for me in 0..count {
                let workers = Workers::new(WorkerId(me), count);
                let owned: Vec<GroupId> = workers.owned(groups).collect();
                assert!(owned.iter().all(|group| workers.owns(*group)));
                owned.iter().for_each(|group| owners[group.index()] += 1);
                assert_eq!(workers.others().count() as u32, count - 1);
            }
            assert!(owners.iter().all(|count| *count == 1));
        }
    }

    #[test]
    #[should_panic(expected = "there is no worker 0 of 3")]
    fn the_number_of_workers_is_a_power_of_two() {
        let _ = Workers::new(WorkerId(0), 3);
    }
}
