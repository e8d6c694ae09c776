//! A node whose disk is full has another one execute its clients' commands.

use super::{End, World, expect};
use paxoi::verify::{Action, Outcome};

/// Every frame arrives twice, also frames with commands of the node with the full disk. Each command is executed once.
pub(super) fn relayed_command_comes_twice(world: &mut World) -> Result<(), String> {
    fill_disk_of_second(world)?;
    world.network.weather.doubling = 1_000;
    count_at_second(world, 20)?;
    world.network.weather.doubling = 0;
    Ok(())
}

/// The node that has executed commands of the node with the full disk starts again, and gets frames of its earlier start
/// once more. It does not remember which commands it has executed, and must execute none of them again.
pub(super) fn relayed_command_of_an_earlier_start(world: &mut World) -> Result<(), String> {
    fill_disk_of_second(world)?;
    // Frames are kept from now on, and hardly any is replayed yet.
    world.network.weather.replay = 1;
    count_at_second(world, 20)?;
    world.end(0, End::Kill);
    world.start(0);
    world.network.weather.replay = 1_000;
    world.wait(2_000_000);
    world.network.weather.replay = 0;
    world.ready()?;
    world.connect(2, 2)?;
    world.get(2, "c");
    expect(&world.told(2)?, &Outcome::Value("20".into()))
}

/// Fills the disk of the second node, to which client 1 is connected.
fn fill_disk_of_second(world: &mut World) -> Result<(), String> {
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
    Ok(())
}

/// Raises a counter at the second node, which has another one execute this.
fn count_at_second(world: &mut World, most: i64) -> Result<(), String> {
    for count in 1..=most {
        world.request(1, &["INCR", "c"], "c", Action::IncrementBy(1));
        expect(&world.told(1)?, &Outcome::Integer(count))?;
    }
    Ok(())
}
