//! Scenarios of nodes with several workers.

use super::expect;
use crate::process::{Process, RunningProcess};
use crate::shell::End;
use crate::world::World;
use bytes::Bytes;
use groups::{GroupId, Instance};
use paxoi::verify::Outcome;

/// The cluster is stopped and started with another number of workers, twice. Each time the logs are cut and old
/// checkpoint files are removed, in which the earlier workers had other groups. Nothing may be lost.
pub(super) fn other_number_of_workers(world: &mut World) -> Result<(), String> {
    world.found()?;
    world.until("all are born", |world| world.processes[..3].iter().all(Process::is_born))?;
    for (client, workers) in [4, 1, 2].into_iter().enumerate() {
        world.connect(client, 0)?;
        let trims = world.oracle.trims;
        world.write_until(client, "the logs are cut", |world| world.oracle.trims >= trims + 6)?;
        world.wait(200_000);
        world.set(client, "last");
        expect(&world.told(client)?, &Outcome::Done)?;
        world.hang_up(client);
        (0..3).for_each(|node| world.end(node, End::PowerLoss));
        world.shape.workers = workers;
        (0..3).for_each(|node| world.start(node));
        world.until("all groups are led", |world| world.processes[1].life.as_ref().is_some_and(knows_all_leaders))?;
        world.wait(500_000);
    }
    world.connect(3, 1)?;
    world.get(3, "s");
    expect(&world.told(3)?, &Outcome::Value(Bytes::from_static(b"last")))
}

fn knows_all_leaders(life: &RunningProcess) -> bool {
    life.is_born() && life.leaderless() == 0
}

/// A client of one worker writes to groups of all workers, and waits until all members have its writes. The disk of a
/// member stops meanwhile: then the count is one lower.
pub(super) fn wait_for_groups_of_all_workers(world: &mut World) -> Result<(), String> {
    world.found()?;
    world.ready()?;
    world.wait(500_000);
    world.connect(0, 0)?;
    let written = |world: &World| -> Vec<Instance> {
        let group = |index: u32| world.processes[0].life.as_ref().map(|life| life.of_group(GroupId(index)));
        (0..4).filter_map(|index| Some(group(index)?.shard().group(GroupId(index)).next())).collect()
    };
    let before = written(world);
    for number in 0..16 {
        world.order(0, &["SET", &format!("key{number}"), "value"]);
        world.told_something(0)?;
    }
    let after = written(world);
    if before.iter().zip(&after).any(|(before, after)| before == after) {
        return Err("some group has no write: the scenario tests nothing".to_owned());
    }
    expect(&world.waited(0, "2", "0")?, &Outcome::Integer(2))?;
    world.processes[2].sync_us = 600_000_000;
    world.order(0, &["SET", "key0", "value"]);
    world.told_something(0)?;
    expect(&world.waited(0, "2", "1000")?, &Outcome::Integer(1))
}

impl World {
    fn told_something(&mut self, client: usize) -> Result<(), String> {
        self.until("a client is told", |world| world.is_idle(client))
    }

    /// Lets a client wait for `others` members. Returns the reply.
    fn waited(&mut self, client: usize, others: &str, timeout_ms: &str) -> Result<Outcome, String> {
        self.record.last = None;
        self.order(client, &["WAIT", others, timeout_ms]);
        self.told(client)
    }
}
