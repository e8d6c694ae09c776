//! Large commands, which go into the log in parts, and nodes that die before the last part.

use super::{World, expect};
use crate::shell::End;
use bytes::Bytes;
use paxoi::verify::{Action, Outcome};

/// All machines are frozen for a minute while a node sends the parts of a large command. The group's time jumps with
/// their clocks, so the group drops the parts that it has. The parts that follow must not be taken for the whole.
pub(super) fn frozen_amid_a_large_command(world: &mut World) -> Result<(), String> {
    world.found()?;
    (0..2).try_for_each(|client| world.connect(client, 1))?;
    let value = "x".repeat(1_000_000);
    let before = world.oracle.position(0);
    world.request(0, &["SET", "s", &value], "s", Action::Set(Bytes::copy_from_slice(value.as_bytes())));
    world.until("parts are chosen", |world| world.oracle.position(0).0 >= before.0 + 2)?;
    world.freeze_all(&[0, 1, 2]);
    world.until("a client is told", |world| world.is_idle(0))?;
    if world.record.last.is_some() {
        return Err("a command was executed of which parts were dropped".to_owned());
    }
    world.get(1, "s");
    expect(&world.told(1)?, &Outcome::Nil)
}

/// A node dies while its large commands fill their group's room for large commands. A client of another node must get
/// room before the dead node's parts reach the age at which the group drops them in any case.
pub(super) fn large_commands_of_a_dead_node(world: &mut World) -> Result<(), String> {
    world.found()?;
    (0..3).try_for_each(|client| world.connect(client, [1, 1, 0][client]))?;
    // Two commands of 2 MB; the simulator's groups have room for 4 MiB.
    let value = "x".repeat(1_000_000);
    (0..2).for_each(|client| world.order(client, &["MSET", "a", &value, "b", &value]));
    let before = world.oracle.position(0);
    world.until("parts of both are chosen", |world| world.oracle.position(0).0 >= before.0 + 3)?;
    world.end(1, End::Kill);
    let end_us = world.now_us + 20_000_000;
    let large = "y".repeat(400_000);
    for attempt in 1.. {
        let words = ["SET", "s", &large];
        world.request(2, &words, "s", Action::Set(Bytes::copy_from_slice(large.as_bytes())));
        world.until("a client is told", |world| world.is_idle(2))?;
        match world.record.last.clone() {
            Some(told) if attempt > 1 => return expect(&told, &Outcome::Done),
            Some(_) => return Err("there was room at once: the scenario tests nothing".to_owned()),
            None if world.now_us > end_us => return Err("a dead node keeps the room for large commands".to_owned()),
            None => {}
        }
    }
    Ok(())
}
