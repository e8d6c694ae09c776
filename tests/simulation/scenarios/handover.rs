//! Scenarios of leader transfers while keys of the group are read. Clients do not notice them.

use crate::world::World;
use bytes::Bytes;
use paxoi::verify::Action;

/// Number of leader transfers.
const ROUNDS: u64 = 40;
/// Maximum duration of a read. A message and a sync take 0.2 ms each, and an election takes a few of both. No read
/// waits for a tick, a ping, or the time limit of a question.
const READ_US_MAX: u64 = 8_000;

/// A client of the third node reads all the time, while the two others transfer the group to each other.
pub(super) fn reads_during_handovers(world: &mut World) -> Result<(), String> {
    world.found()?;
    (0..3).for_each(|node| world.processes[node].sync_us = 200);
    world.connect(0, 2)?;
    world.connect(1, 0)?;
    world.set(0, "value");
    world.told(0)?;
    let (mut asked_us, mut slowest_us) = (0, 0);
    for round in 0..ROUNDS {
        let to = 1 - round as usize % 2;
        // Each round begins at a different offset from the last tick.
        world.wait(20_000 + 700 * round);
        world.order(1, &["PAXOI", "LEADER", "MOVE", "0", &(to + 1).to_string()]);
        let end_us = world.now_us + 300_000;
        let mut moved = false;
        while world.now_us < end_us {
            if world.is_idle(0) {
                world.get(0, "s");
                asked_us = world.now_us;
            }
            world.wait(50);
            if world.is_idle(0) {
                slowest_us = slowest_us.max(world.now_us - asked_us);
            }
            moved |= world.leader(to).is_some();
        }
        if !moved {
            return Err(format!("the group was not handed to node {}", to + 1));
        }
        world.told(0)?;
    }
    if slowest_us > READ_US_MAX {
        return Err(format!("a read took {slowest_us} us during a handover, more than {READ_US_MAX}"));
    }
    Ok(())
}

/// Messages of the new leader take 100 ms. The others have promised its ballot and know no leader, long before they
/// hear that it leads. They must not campaign against it.
pub(super) fn claim_of_the_new_leader_is_late(world: &mut World) -> Result<(), String> {
    world.found()?;
    world.connect(0, 0)?;
    world.set(0, "value");
    world.told(0)?;
    // The preferred leader hands the group to another node, which later hands it on.
    world.order(0, &["PAXOI", "LEADER", "MOVE", "0", "2"]);
    world.until("the second leads", |world| world.leader(1).is_some())?;
    (0..2).for_each(|other| world.network.slow_down(2, other, 100_000));
    world.wait(1_000_000);
    let before = world.round(2);
    world.order(0, &["PAXOI", "LEADER", "MOVE", "0", "3"]);
    world.until("the third leads", |world| world.leader(2).is_some())?;
    world.wait(1_000_000);
    match world.leader(2) {
        Some(_) if world.round(2) == before + 1 => Ok(()),
        _ => Err("another candidate overtook the new leader before its messages arrived".to_owned()),
    }
}

impl World {
    /// Returns the round of the highest ballot that a node has promised.
    fn round(&self, node: usize) -> u64 {
        let life = self.processes[node].life.as_ref();
        life.and_then(|life| life.groups().next()).map_or(0, |group| group.promised().round)
    }
}

/// A client of the third node writes all keys, then one of the second node reads them: their node leads all groups soon.
/// When there are no more commands, each group goes back to its preferred leader. No group moves more often than that.
pub(super) fn leaders_follow_their_clients(world: &mut World) -> Result<(), String> {
    world.found()?;
    // The others must have been healthy for 10 s.
    world.wait(11_000_000);
    (0..2).try_for_each(|client| world.connect(client, [2, 1][client]))?;
    let mut count = 0;
    for (client, node) in [(0, 2), (1, 1)] {
        world.until("the clients' node leads all groups", |world| {
            if world.is_idle(client) {
                count += 1;
                let key = format!("k{}", count % 40);
                if client == 0 {
                    world.request(0, &["SET", &key, "v"], &key, Action::Set(Bytes::from_static(b"v")));
                } else {
                    world.get(1, &key);
                }
            }
            world.led(node) == 3
        })?;
    }
    world.wait(11_000_000);
    world.until("the groups are divided again", |world| (0..3).all(|node| world.led(node) == 1))?;
    world.wait(20_000_000);
    world.expect_few_elections(4)
}

/// All clients use the second node, which gives each group back to its preferred leader at once, like an older program.
/// The others must not go on handing it their groups.
pub(super) fn leaders_follow_to_a_node_that_does_not(world: &mut World) -> Result<(), String> {
    world.shape.mixed = true;
    world.found()?;
    world.wait(11_000_000);
    world.connect(0, 1)?;
    let end_us = world.now_us + 60_000_000;
    let mut count = 0;
    while world.now_us < end_us {
        count += 1;
        let key = format!("k{}", count % 40);
        world.request(0, &["SET", &key, "v"], &key, Action::Set(Bytes::from_static(b"v")));
        world.told(0)?;
        world.wait(10_000);
    }
    if world.elections().iter().all(|round| *round == 1) {
        return Err("no group followed: the scenario tests nothing".to_owned());
    }
    // The rests allow three follows and returns in a minute, and one more in progress.
    world.expect_few_elections(10)
}

impl World {
    /// Returns the rounds of the leaders' ballots: the number of elections in each group.
    fn elections(&self) -> Vec<u64> {
        let lives = self.processes.iter().filter_map(|process| process.life.as_ref());
        lives.flat_map(|life| life.groups()).filter_map(|group| Some(group.leads()?.round)).collect()
    }

    fn expect_few_elections(&self, max: u64) -> Result<(), String> {
        let rounds = self.elections();
        if rounds.iter().all(|round| *round <= max) { Ok(()) } else { Err(format!("elections by group: {rounds:?}")) }
    }

    /// Returns the number of groups that a node leads.
    fn led(&self, node: usize) -> usize {
        let life = self.processes[node].life.as_ref();
        life.map_or(0, |life| life.groups().filter(|group| group.leads().is_some()).count())
    }
}
