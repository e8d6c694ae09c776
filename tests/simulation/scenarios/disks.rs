//! Slow disks, disks that do not answer, and a value that rots while its node runs.

use super::expect;
use crate::damage::rot_value;
use crate::shell::End;
use crate::world::World;
use bytes::Bytes;
use paxoi::verify::{Action, Outcome};

/// The leader of five nodes reaches two others, and the disk of one of them does not answer. The other one and the two
/// unreachable nodes are a majority that could go on.
pub(super) fn stuck_disk_in_the_leaders_majority(world: &mut World) -> Result<(), String> {
    world.found()?;
    world.connect(0, 1)?;
    world.request(0, &["INCR", "c"], "c", Action::IncrementBy(1));
    expect(&world.told(0)?, &Outcome::Integer(1))?;
    for far in [3, 4] {
        world.network.block(0, far);
        world.network.block(far, 0);
    }
    world.processes[2].sync_us = 600_000_000;
    world.request(0, &["INCR", "c"], "c", Action::IncrementBy(1));
    world.until("those that can vote go on", |world| {
        if world.is_idle(0) && world.record.last.is_none() {
            world.request(0, &["INCR", "c"], "c", Action::IncrementBy(1));
        }
        world.record.last.is_some()
    })
}

/// Every sync of every disk takes 1.5 s, which is late. The leader goes on, because no disk is better. When it dies,
/// another one is elected.
pub(super) fn all_disks_are_slow(world: &mut World) -> Result<(), String> {
    world.found()?;
    world.connect(0, 1)?;
    world.processes.iter_mut().for_each(|process| process.sync_us = 1_500_000);
    let mut done = 0;
    let deadline_us = world.now_us + 120_000_000;
    while done < 10 {
        if done == 5 {
            world.end(0, End::Kill);
        }
        world.record.last = None;
        world.request(0, &["INCR", "c"], "c", Action::IncrementBy(1));
        world.until("a client is told", |world| world.is_idle(0))?;
        done += usize::from(world.record.last.is_some());
        if world.now_us > deadline_us {
            return Err(format!("{done} commands were executed in 120 s"));
        }
    }
    Ok(())
}

/// The second of five nodes campaigns after the leader's death, with a slow disk, and is cut off from all nodes but the
/// fifth. The fifth node must not wait for the candidate, because the third and fourth need the fifth node's vote.
pub(super) fn candidate_loses_its_quorum(world: &mut World) -> Result<(), String> {
    world.found()?;
    world.ready()?;
    world.processes[1].sync_us = 600_000;
    world.end(0, End::Kill);
    world.until("the second node campaigns", |world| world.oracle.is_promising(1))?;
    for far in [2, 3] {
        world.network.block(1, far);
        world.network.block(far, 1);
    }
    world.elect_within(1_800_000, &[2, 3, 4])
}

/// The second of five nodes campaigns after the leader's death, and its disk does not answer. The disk of another one
/// was late a moment ago. The three others must not wait.
pub(super) fn candidate_with_a_stuck_disk(world: &mut World) -> Result<(), String> {
    world.found()?;
    world.ready()?;
    world.connect(0, 0)?;
    world.processes[4].sync_us = 3_000_000;
    world.set(0, "late");
    expect(&world.told(0)?, &Outcome::Done)?;
    world.wait(4_500_000);
    world.processes[4].sync_us = 300;
    world.processes[1].sync_us = 600_000_000;
    world.end(0, End::Kill);
    world.until("the second node campaigns", |world| world.oracle.is_promising(1))?;
    world.elect_within(4_000_000, &[2, 3, 4])
}

/// A value rots in the leader's log while the leader runs. A node that was away reaches only the leader at first. It must
/// not get the rotten value, but wait for another node's copy.
pub(super) fn value_rots_while_the_node_runs(world: &mut World) -> Result<(), String> {
    const VALUE: &str = "a value that rots";
    world.found()?;
    world.connect(0, 0)?;
    world.end(2, End::Kill);
    world.set(0, VALUE);
    expect(&world.told(0)?, &Outcome::Done)?;
    world.request(0, &["INCR", "c"], "c", Action::IncrementBy(1));
    expect(&world.told(0)?, &Outcome::Integer(1))?;
    world.wait(100_000);
    rot_value(&world.processes[0].disk, VALUE)?;
    world.processes[0].rotten = true;
    world.network.block(1, 2);
    world.start(2);
    world.wait(1_000_000);
    world.heal();
    world.connect(1, 2)?;
    world.get(1, "s");
    expect(&world.told(1)?, &Outcome::Value(Bytes::from_static(VALUE.as_bytes())))
}

impl World {
    fn elect_within(&mut self, us: u64, nodes: &[usize]) -> Result<(), String> {
        let begun_us = self.now_us;
        self.until("another one leads", |world| nodes.iter().any(|node| world.leader(*node).is_some()))?;
        let took_us = self.now_us - begun_us;
        if took_us <= us { Ok(()) } else { Err(format!("an election took {took_us} us, more than {us}")) }
    }
}
