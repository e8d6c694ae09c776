//! A node whose disk is full has another one execute its clients' commands.

use super::{World, expect};
use paxoi::verify::{Action, Outcome};

/// Every frame arrives twice, also frames with commands of the node with the full disk. Each command is executed once.
pub(super) fn relayed_command_comes_twice(world: &mut World) -> Result<(), String> {
    world.found()?;
    (0..2).try_for_each(|client| world.connect(client, client))?;
    let disk = &world.processes[1].disk;
    disk.set_capacity(Some(disk.used_bytes()));
    let long = "x".repeat(8_000);
    let is_full = |world: &World| {
        let status = world.processes[1].life.as_ref().map(|life| life.writer.status());
        status.is_some_and(|status| status.full())
    };
    for count in 0..200 {
        if is_full(world) {
            break;
        }
        world.set(0, &format!("{count}{long}"));
        expect(&world.told(0)?, &Outcome::Done)?;
        world.wait(20_000);
    }
    if !is_full(world) {
        return Err("the disk is not full: the scenario tests nothing".to_owned());
    }
    world.wait(500_000);
    world.network.weather.doubling = 1_000;
    for count in 1..=20 {
        world.request(1, &["INCR", "c"], "c", Action::IncrementBy(1));
        expect(&world.told(1)?, &Outcome::Integer(count))?;
    }
    world.network.weather.doubling = 0;
    Ok(())
}
