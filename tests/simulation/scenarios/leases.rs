//! Leases: leaders with one that are paused, lost or started anew, or hand their groups over.

use super::{World, expect};
use crate::process::Process;
use crate::shell::End;
use crate::world::Event;
use groups::GroupId;
use paxoi::verify::Outcome;

impl World {
    /// Somebody, which is the first node, leads under a lease; it and another have clients, and something is written.
    fn lease(&mut self) -> Result<(), String> {
        (0..self.processes.len()).for_each(|node| self.start(node));
        self.until("all are born", |world| world.processes.iter().all(Process::is_born))?;
        self.until("the first node holds a lease", |world| {
            let time = world.processes[0].clocks.at(world.now_us);
            if world.leader(1).or(world.leader(2)).is_some() {
                // Chance wanted another.
                (0..3).for_each(|node| world.end(node, End::Kill));
                (0..3).for_each(|node| world.start(node));
            }
            world.processes[0].life.as_ref().is_some_and(|life| life.node.holds_lease(GroupId(0), time))
        })?;
        (0..3).try_for_each(|client| self.connect(client, [0, 1, 0][client]))?;
        self.set(0, "old");
        expect(&self.told(0)?, &Outcome::Done)
    }
}

/// A leader with a lease is stopped; another is elected and writes; the first goes on, and is asked before anything else.
pub(super) fn paused_leader_with_a_lease(world: &mut World) -> Result<(), String> {
    world.lease()?;
    world.read_first_after_a_pause()
}

/// A leader with a lease does not hear, with a clock that goes slow, that the others know it for lost; their clocks go
/// fast. It is asked all the time.
pub(super) fn lost_leader_with_a_lease(world: &mut World) -> Result<(), String> {
    for (node, drift) in [-50_000, 50_000, 50_000].into_iter().enumerate() {
        world.processes[node].clocks.drift = drift;
    }
    // Of every ping the answer is as late as it can be, and it is lost at any time between two of them.
    for round in 0..20 {
        world.lease()?;
        world.wait(5_000 * round);
        (1..3).for_each(|node| world.network.block(node, 0));
        for (connection, one, other) in world.network.links() {
            if one == 0 || other == 0 {
                world.after(0, Event::Cut { connection });
            }
        }
        let asked = |world: &mut World| {
            if world.is_idle(2) {
                world.get(2, "s");
            }
            world.leader(1).or(world.leader(2)).is_some()
        };
        world.until("another leads", asked)?;
        world.set(1, &format!("new {round}"));
        expect(&world.told(1)?, &Outcome::Done)?;
        world.heal();
        (0..3).for_each(|node| world.end(node, End::Kill));
        (0..3).for_each(|node| world.start(node));
        (0..3).for_each(|client| world.hang_up(client));
    }
    Ok(())
}

/// A leader with a lease hands its group over, and hears nothing of what becomes of that: not from the new leader, and the
/// third says only what it is asked. It takes the handover for failed, and would have its lease back.
pub(super) fn handover_during_a_lease(world: &mut World) -> Result<(), String> {
    world.lease()?;
    world.network.block(1, 0);
    world.order(0, &["PAXOI", "LEADER", "MOVE", "0", "2"]);
    world.until("the second leads", |world| world.leader(1).is_some())?;
    world.set(1, "new");
    expect(&world.told(1)?, &Outcome::Done)?;
    if world.leader(0).is_none() {
        return Err("the first leader knows already: the story does not take place".to_owned());
    }
    world.wait(2_500_000);
    world.get(2, "s");
    world.wait(100_000);
    world.heal();
    world.wait(3_000_000);
    Ok(())
}

/// Who promised the leader to elect nobody else is started anew, and asked for its vote at once by one who has lost the
/// leader; the third is not there.
pub(super) fn restart_during_a_lease(world: &mut World) -> Result<(), String> {
    world.lease()?;
    for node in 1..3 {
        world.network.block(node, 0);
        world.network.block(0, node);
    }
    for (connection, one, other) in world.network.links() {
        if one == 0 || other == 0 {
            world.after(0, Event::Cut { connection });
        }
    }
    (1..3).for_each(|node| world.end(node, End::Kill));
    (1..3).for_each(|node| world.start(node));
    world.until("another leads", |world| world.leader(1).or(world.leader(2)).is_some())?;
    world.set(1, "new");
    world.wait(1_000_000);
    Ok(())
}
