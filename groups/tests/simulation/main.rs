//! Simulation of the groups on a virtual network, disk and clock: one seed determines everything that happens.
//!
//! Each seed draws a cluster and a mix of faults: messages lost, doubled, replayed, late and out of order; cuts in one
//! direction or both; crashes that lose what was not synced; failure detectors that err; clocks that jump. An
//! [`Oracle`](oracle::Oracle) that sees every record, message and reply checks the invariants at each step. Then the
//! faults end, and every client request must be done within a bounded time.
//!
//! `PAXOI_SEEDS=20000` runs 20000 seeds per test. `PAXOI_SEED=7` runs seed 7 alone, and prints each packet at its time
//! of arrival, even if a cut link or a stopped node then drops it.

mod machine;
mod node;
mod oracle;
mod reads;
mod world;

use world::{Done, MESSAGE_KINDS, World};

/// Seeds per test, unless `PAXOI_SEEDS` says otherwise.
const SEEDS: u64 = 500;
/// The kind of [`groups::message::Diverged`].
const DIVERGED: usize = 8;

/// Prints the command that runs the seed again, if a panic drops this value.
struct Replay {
    seed: u64,
    members: u32,
}

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Replay { seed, members } = self;
            eprintln!(
                "failed: PAXOI_SEED={seed} cargo test -p paxoi-groups --test simulation -- members_{members} --nocapture"
            );
        }
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")))
}

fn run(members: u32) {
    let only = number("PAXOI_SEED");
    let seeds = match only {
        Some(seed) => seed..seed + 1,
        None => 0..number("PAXOI_SEEDS").unwrap_or(SEEDS),
    };
    let mut all = Done::default();
    for seed in seeds {
        let replay = Replay { seed, members };
        let mut world = World::new(seed, members, only.is_some());
        world.run();
        all.add(&world.done());
        drop(replay);
    }
    eprintln!("{members} members: {all:?}");
    assert!(all.applied > 0 && all.reads > 0 && all.crashes > 0 && all.changes > 0, "nothing was tested");
    // The only member of a group sends messages to itself alone, so some kinds are never sent. `Diverged` must never be
    // sent, because the values of members never differ.
    let silent = |kind: &usize| all.kinds[*kind] == 0 && *kind != DIVERGED;
    let untested: Vec<usize> = (1..MESSAGE_KINDS).filter(|kind| members > 1 && silent(kind)).collect();
    assert!(untested.is_empty() || only.is_some(), "messages of the kinds {untested:?} were never sent");
    assert!(all.kinds[DIVERGED] == 0, "a member answered an Accept with Diverged");
}

#[test]
fn members_1() {
    run(1);
}

#[test]
fn members_3() {
    run(3);
}

#[test]
fn members_5() {
    run(5);
}
