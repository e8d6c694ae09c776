//! Scenarios of leaders with leases: the leader is paused, loses the other nodes, or hands its group over, or the other
//! nodes restart.

use super::{World, expect};
use crate::process::Process;
use crate::shell::End;
use crate::world::Event;
use groups::GroupId;
use paxoi::verify::Outcome;

impl World {
    /// Starts a cluster whose first node leads under a lease, connects clients to that node and another, and writes a
    /// value.
    fn lease(&mut self) -> Result<(), String> {
        (0..self.processes.len()).for_each(|node| self.start(node));
        self.until("all are born", |world| world.processes.iter().all(Process::is_born))?;
        self.until("the first node holds a lease", |world| {
            let time = world.processes[0].clocks.at(world.now_us);
            if world.leader(1).or(world.leader(2)).is_some() {
                // Another node was elected by chance.
                (0..3).for_each(|node| world.end(node, End::Kill));
                (0..3).for_each(|node| world.start(node));
            }
            world.processes[0].life.as_ref().is_some_and(|life| life.first().holds_lease(GroupId(0), time))
        })?;
        (0..3).try_for_each(|client| self.connect(client, [0, 1, 0][client]))?;
        self.set(0, "old");
        expect(&self.told(0)?, &Outcome::Done)
    }
}

/// A leader with a lease is paused. Another leader is elected and writes. The first one resumes, and its first input is
/// a read.
pub(super) fn paused_leader_with_a_lease(world: &mut World) -> Result<(), String> {
    world.lease()?;
    world.read_first_after_a_pause()
}

/// A leader with a lease and a slow clock does not hear that the others consider it lost. Their clocks are fast. A
/// client reads from the leader all the time.
pub(super) fn lost_leader_with_a_lease(world: &mut World) -> Result<(), String> {
    for (node, drift) in [-50_000, 50_000, 50_000].into_iter().enumerate() {
        world.processes[node].clocks.drift = drift;
    }
    // Each round cuts the leader off at another moment between two pings, so that in one of them the last answer to a
    // ping comes as late as possible.
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

/// A leader with a lease hands its group over, and does not hear of the result: the new leader's messages do not
/// arrive, and the third node only answers questions. The old leader believes that the transfer has failed, and tries
/// to get its lease back.
pub(super) fn handover_during_a_lease(world: &mut World) -> Result<(), String> {
    world.lease()?;
    world.network.block(1, 0);
    world.order(0, &["PAXOI", "LEADER", "MOVE", "0", "2"]);
    world.until("the second leads", |world| world.leader(1).is_some())?;
    world.set(1, "new");
    expect(&world.told(1)?, &Outcome::Done)?;
    if world.leader(0).is_none() {
        return Err("the first leader knows already: the scenario tests nothing".to_owned());
    }
    world.wait(2_500_000);
    world.get(2, "s");
    world.wait(100_000);
    world.heal();
    world.wait(3_000_000);
    Ok(())
}

/// The followers, which have granted the leader a lease, are restarted. One has lost the leader, and asks the other for
/// its vote at once. The leader is cut off.
pub(super) fn restart_during_a_lease(world: &mut World) -> Result<(), String> {
    world.lease()?;
    world.cut_off(0);
    (1..3).for_each(|node| world.end(node, End::Kill));
    (1..3).for_each(|node| world.start(node));
    world.until("another leads", |world| world.leader(1).or(world.leader(2)).is_some())?;
    world.set(1, "new");
    world.wait(1_000_000);
    Ok(())
}
