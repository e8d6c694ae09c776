//! Messages that wait at a follower: while it applies a value, and while it is stopped.

use super::{STEP_US, World, expect};
use crate::network::PacketContent;
use crate::shell::End;
use paxoi::verify::Outcome;

/// A stopped follower resumes and reads, in one turn, the leader's last messages and the end of the leader's
/// connection. A turn has one step, so that most messages wait until a value is applied. These messages must not make
/// the follower follow the dead leader again.
pub(super) fn leader_dies_while_its_messages_wait(world: &mut World) -> Result<(), String> {
    world.shape.turn_steps = 1;
    world.found()?;
    world.connect(0, 0)?;
    world.set(0, "before");
    expect(&world.told(0)?, &Outcome::Done)?;
    world.pause(1);
    for count in 0..20 {
        world.set(0, &format!("{count}"));
        expect(&world.told(0)?, &Outcome::Done)?;
    }
    // When a process ends, the ends of its connections arrive after the data that it has sent.
    for (connection, one, other) in world.network.links().into_iter().filter(|(_, one, other)| one + other == 1) {
        world.send(connection, usize::from(one > other), PacketContent::End);
    }
    world.wait(2_000);
    world.network.block(0, 1);
    world.end(0, End::Kill);
    world.resume(1);
    let end_us = world.now_us + STEP_US / 2;
    world.run_while(end_us, |world| world.leader(1).or(world.leader(2)).is_some());
    world.connect(1, 1)?;
    world.set(1, "after");
    expect(&world.told(1)?, &Outcome::Done)
}

/// A follower is stopped, and the leader's pings wait for it. Then the leader dies, but its connection does not
/// end. When the follower resumes, it reads the old pings. These pings must not make the follower count the dead leader
/// as alive for as long again as the follower was stopped.
pub(super) fn leader_dies_while_its_pings_wait(world: &mut World) -> Result<(), String> {
    world.found()?;
    world.connect(0, 1)?;
    world.pause(1);
    world.wait(600_000);
    world.network.block(0, 1);
    world.end(0, End::Kill);
    world.wait(8_000_000);
    world.resume(1);
    let end_us = world.now_us + 4_000_000;
    world.run_while(end_us, |world| world.leader(1).or(world.leader(2)).is_some());
    match world.leader(1).or(world.leader(2)) {
        Some(_) => Ok(()),
        None => Err("the follower still follows the dead leader".to_owned()),
    }
}
