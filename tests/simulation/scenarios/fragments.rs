//! Large messages between nodes, whose connections break before the last fragment.

use super::{World, expect};
use crate::world::Event;
use bytes::Bytes;
use paxoi::verify::{Action, Outcome};

/// Number of connections that break: more than a node receives messages in fragments at a time.
const BREAKS: usize = 12;

/// The connection from the leader to a follower breaks again and again in the middle of a large value. What the
/// follower has of these values is of no use on the next connection, and must not keep it from receiving further
/// values.
pub(super) fn connections_break_in_large_values(world: &mut World) -> Result<(), String> {
    world.found()?;
    world.ready()?;
    world.connect(0, 0)?;
    for round in 0..BREAKS {
        order_large(world, round);
        let at_us = world.now_us;
        world.until("the leader proposes", |world| world.now_us > at_us + 500)?;
        world.break_between(0, 1);
        expect(&world.told(0)?, &Outcome::Done)?;
        world.until("the follower has a connection again", |world| !world.connections_between(0, 1).is_empty())?;
        world.wait(200_000);
    }
    for other in [0, 1] {
        world.network.block(other, 2);
    }
    order_large(world, BREAKS);
    expect(&world.told(0)?, &Outcome::Done)
}

fn order_large(world: &mut World, round: usize) {
    let value = format!("{round}{}", "x".repeat(300_000));
    world.request(0, &["SET", "s", &value], "s", Action::Set(Bytes::copy_from_slice(value.as_bytes())));
}

impl World {
    fn connections_between(&self, one: usize, other: usize) -> Vec<u64> {
        let between = |(a, b): (usize, usize)| (a, b) == (one, other) || (b, a) == (one, other);
        self.network.links().into_iter().filter(|(_, a, b)| between((*a, *b))).map(|(id, ..)| id).collect()
    }

    fn break_between(&mut self, one: usize, other: usize) {
        for connection in self.connections_between(one, other) {
            self.at(self.now_us, Event::Cut { connection });
        }
    }
}
