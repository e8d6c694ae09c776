//! Changes of the members.

use super::expect;
use crate::process::Process;
use crate::shell::End;
use crate::world::World;
use bytes::Bytes;
use paxoi::verify::Outcome;

/// The third node leads, and is replaced while the first, the preferred leader, is down. It stops when it hears that it
/// was removed. At that moment the two others lose power. They must still know of the removal: they are a majority of
/// the new members, but not of the members before.
pub(super) fn power_fails_when_the_removed_node_stops(world: &mut World) -> Result<(), String> {
    world.found()?;
    world.until("all are born", |world| world.processes[..3].iter().all(Process::is_born))?;
    world.connect(0, 1)?;
    world.order(0, &["PAXOI", "LEADER", "MOVE", "0", "3"]);
    world.until("the third leads", |world| world.leader(2).is_some())?;
    world.end(0, End::Kill);
    let mut asked_us = 0;
    world.until("the third stops", |world| {
        if world.now_us >= asked_us + 50_000 {
            asked_us = world.now_us;
            world.ask_for_members(1, &["REPLACE", "3", "4"]);
        }
        world.processes[2].life.is_none()
    })?;
    for node in [1, 3] {
        world.end(node, End::PowerLoss);
        world.start(node);
    }
    world.ready()?;
    world.connect(1, 1)?;
    world.set(1, "after");
    expect(&world.told(1)?, &Outcome::Done)
}

/// The third node is cut off before it gets the birth record. When it is reachable again, the two other initial members
/// are replaced and stopped. It must take the record from members that it has never heard of.
pub(super) fn birth_record_from_strangers(world: &mut World) -> Result<(), String> {
    (0..5).for_each(|node| world.start(node));
    // The first worker of a node hears of the birth before the others.
    let is_told =
        |world: &World, node: usize| world.processes[node].life.as_ref().is_some_and(|life| life.first().is_born());
    world.until("the first is born", |world| is_told(world, 0))?;
    if is_told(world, 2) {
        return Err("the third was born with the first: the scenario tests nothing".to_owned());
    }
    world.cut_off(2);
    world.until("the second is born", |world| world.processes[1].is_born())?;
    world.change_members(1, &["REPLACE", "1", "4"])?;
    world.change_members(3, &["REPLACE", "2", "5"])?;
    (0..2).for_each(|node| world.end(node, End::Kill));
    world.until("a new member leads", |world| world.leader(3).or(world.leader(4)).is_some())?;
    world.connect(0, 3)?;
    world.set(0, "after");
    expect(&world.told(0)?, &Outcome::Done)?;
    if world.processes[2].is_born() {
        return Err("the third was born while it was cut off".to_owned());
    }
    world.heal();
    world.until("the third is born", |world| world.processes[2].is_born())?;
    world.ready()?;
    // The third must also have heard from a majority.
    world.wait(500_000);
    world.connect(1, 2)?;
    world.get(1, "s");
    expect(&world.told(1)?, &Outcome::Value(Bytes::from_static(b"after")))
}

impl World {
    /// Asks a node for a change of the members. Returns the reply, if the node runs.
    pub(super) fn ask_for_members(&mut self, node: usize, wanted: &[&str]) -> Option<String> {
        let words: Vec<&[u8]> = ["PAXOI", "MEMBER"].iter().chain(wanted).map(|word| word.as_bytes()).collect();
        let time = self.processes[node].clocks.at(self.now_us);
        let life = self.processes[node].life.as_mut()?;
        Some(format!("{:?}", life.workers[0].node.member_command(&words, time)))
    }
}
