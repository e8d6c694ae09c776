//! Scenarios of clocks that are wrong by hours: the leader's for a moment, one at the birth, and a follower's for
//! longer. Also scenarios of machines whose clocks stood still.

use super::{End, World, expect};
use crate::process::EPOCH_US;
use bytes::Bytes;
use groups::{Ms, Us};
use paxoi::verify::{Action, Outcome};
use paxoi::versions::Versions;

const HOURS_US: i64 = 8 * 3_600_000_000;
/// Lifetime of a lock. A third of it exceeds every limit on the error of cluster time.
const LIFE_US: u64 = 9_000_000;

impl World {
    /// Asks for a lock with the lifetime [`LIFE_US`]. Returns true if the client got it.
    fn lock(&mut self, client: usize) -> Result<bool, String> {
        let life = (LIFE_US / 1_000).to_string();
        // The history has no action for `SET NX PX`, so the scenarios check what it promises.
        self.record.last = None;
        self.order(client, &["SET", "lock", "mine", "NX", "PX", &life]);
        Ok(self.told(client)? != Outcome::Nil)
    }

    fn take_lock(&mut self, client: usize) -> Result<(), String> {
        let taken = self.lock(client)?;
        if taken { Ok(()) } else { Err("the lock is free, but the client did not get it".to_owned()) }
    }

    fn expect_lock_to_be_over(&mut self, client: usize) -> Result<(), String> {
        let taken = self.lock(client)?;
        if taken { Ok(()) } else { Err("the lock is held for too long".to_owned()) }
    }

    /// Checks a lock that the first client takes: before it expires, no client gets it at any node; afterwards another
    /// client does.
    fn expect_locks_to_hold(&mut self) -> Result<(), String> {
        if !self.lock(0)? {
            return Err("the lock is free, but the client did not get it".to_owned());
        }
        let taken_us = self.now_us;
        while self.now_us < taken_us + LIFE_US * 2 / 3 {
            for client in 0..3 {
                if self.lock(client)? {
                    return Err(format!("the lock was given twice within {} us", self.now_us - taken_us));
                }
            }
            self.wait(500_000);
        }
        self.wait(LIFE_US * 2 / 3);
        if !self.lock(1)? {
            return Err("the lock is held for too long".to_owned());
        }
        self.wait(LIFE_US * 4 / 3);
        Ok(())
    }

    /// Sets a key with a lifetime of an hour, and checks that it is still there after a second.
    fn expect_kept(&mut self, client: usize) -> Result<(), String> {
        let action = Action::Set(Bytes::from_static(b"kept"));
        self.request(client, &["SET", "hour", "kept", "EX", "3600"], "hour", action);
        expect(&self.told(client)?, &Outcome::Done)?;
        self.wait(1_000_000);
        self.get(client, "hour");
        expect(&self.told(client)?, &Outcome::Value(Bytes::from_static(b"kept")))
    }

    fn connect_one_to_each(&mut self) -> Result<(), String> {
        (0..3).try_for_each(|client| self.connect(client, client))
    }
}

/// The leader's clock is eight hours fast for a second in which many values are chosen. Then it is right again.
pub(super) fn fast_leader_for_a_moment(world: &mut World) -> Result<(), String> {
    world.found()?;
    world.connect_one_to_each()?;
    world.expect_kept(1)?;
    world.processes[0].clocks.unix_us = HOURS_US;
    for round in 0..200 {
        world.set(0, &format!("value {round}"));
        expect(&world.told(0)?, &Outcome::Done)?;
        world.wait(5_000);
    }
    world.processes[0].clocks.unix_us = 0;
    world.expect_locks_to_hold()?;
    world.get(0, "hour");
    expect(&world.told(0)?, &Outcome::Value(Bytes::from_static(b"kept")))
}

/// A cluster is born while the clock of one node, which started first, is wrong. The clock stays wrong while all nodes
/// are restarted. Then it is set right.
fn born_while_a_clock_is_wrong(world: &mut World, wrong: usize, off_us: i64) -> Result<(), String> {
    world.processes[wrong].clocks.unix_us = off_us;
    world.start(wrong);
    world.wait(3_000_000);
    (0..3).for_each(|node| world.start(node));
    for _ in 0..2 {
        world.ready()?;
        world.connect_one_to_each()?;
        world.expect_kept(wrong)?;
        world.expect_locks_to_hold()?;
        (0..3).for_each(|client| world.hang_up(client));
        (0..3).for_each(|node| world.end(node, End::Kill));
        (0..3).for_each(|node| world.start(node));
    }
    world.processes[wrong].clocks.unix_us = 0;
    world.ready()?;
    world.connect_one_to_each()?;
    world.expect_locks_to_hold()
}

pub(super) fn born_while_the_first_is_fast(world: &mut World) -> Result<(), String> {
    born_while_a_clock_is_wrong(world, 0, HOURS_US)
}

pub(super) fn born_while_the_last_is_fast(world: &mut World) -> Result<(), String> {
    born_while_a_clock_is_wrong(world, 2, HOURS_US)
}

pub(super) fn born_while_the_first_is_slow(world: &mut World) -> Result<(), String> {
    born_while_a_clock_is_wrong(world, 0, -HOURS_US)
}

/// The clock of a node is slow. As soon as the cluster is born, another node is cut off, before another of its pings
/// arrives. Then all nodes are restarted, and all clocks are known. Keys that were set before the restart must stay.
fn cut_at_the_birth(world: &mut World, slow: usize, cut: usize) -> Result<(), String> {
    give_birth(world, slow)?;
    let rest = [slow, 3 - slow - cut];
    for node in rest {
        world.network.block(node, cut);
        world.network.block(cut, node);
    }
    expect_kept_after_a_restart(world, slow, rest)
}

/// The clock of a node is slow. All nodes are killed as soon as the cluster is born, before its first value. Only two
/// start again, the slow one among them. Then all nodes are restarted, and all clocks are known. Keys that were set
/// before that must stay.
pub(super) fn killed_right_after_the_birth(world: &mut World) -> Result<(), String> {
    let (slow, rest) = (2, [1, 2]);
    give_birth(world, slow)?;
    (0..3).for_each(|node| world.end(node, End::Kill));
    rest.into_iter().for_each(|node| world.start(node));
    expect_kept_after_a_restart(world, slow, rest)
}

/// Starts three nodes, one of them with a slow clock, and waits until the cluster is born.
fn give_birth(world: &mut World, slow: usize) -> Result<(), String> {
    world.processes[slow].clocks.unix_us = -HOURS_US;
    for node in 0..3 {
        world.start(node);
        // The nodes send their pings at different times.
        world.wait(30_000);
    }
    world.until("the cluster is born", |world| {
        (0..3).all(|node| world.processes[node].life.as_ref().is_some_and(|life| life.is_born()))
    })
}

/// Sets a key at the slow node, once one of the two nodes in `rest` leads, restarts all nodes, and checks that the key
/// is still there.
fn expect_kept_after_a_restart(world: &mut World, slow: usize, rest: [usize; 2]) -> Result<(), String> {
    world.until("one of the two leads", |world| rest.iter().any(|node| world.leader(*node).is_some()))?;
    world.until("both know cluster time", |world| rest.iter().all(|node| world.cluster_ms(*node).is_some()))?;
    world.connect(0, slow)?;
    world.expect_kept(0)?;
    world.hang_up(0);
    world.heal();
    (0..3).for_each(|node| world.end(node, End::Kill));
    (0..3).for_each(|node| world.start(node));
    world.until("one leads", |world| (0..3).any(|node| world.leader(node).is_some()))?;
    world.connect(1, 1)?;
    world.wait(1_000_000);
    world.get(1, "hour");
    expect(&world.told(1)?, &Outcome::Value(Bytes::from_static(b"kept")))
}

pub(super) fn last_cut_right_after_the_birth(world: &mut World) -> Result<(), String> {
    cut_at_the_birth(world, 0, 2)
}

pub(super) fn first_cut_right_after_the_birth(world: &mut World) -> Result<(), String> {
    cut_at_the_birth(world, 1, 0)
}

/// A follower's clock is a minute slow, then eight hours fast. Then the leader's clock is eight hours slow, then fast.
/// Clients use both nodes.
pub(super) fn slow_follower(world: &mut World) -> Result<(), String> {
    world.found()?;
    world.connect_one_to_each()?;
    for (node, off_us) in [(1, -60_000_000), (1, HOURS_US), (0, -HOURS_US), (0, HOURS_US)] {
        world.processes[node].clocks.unix_us = off_us;
        world.wait(500_000);
        world.expect_kept(node)?;
        world.expect_locks_to_hold()?;
        world.processes[node].clocks.unix_us = 0;
    }
    Ok(())
}

/// The members are of a version without cluster time. The leader's clock is eight hours fast for a moment, so the
/// group's time is as far ahead. All nodes are upgraded. Locks must last their lifetime, although real time is hours
/// behind.
pub(super) fn ahead_after_an_upgrade(world: &mut World) -> Result<(), String> {
    world.tells_clocks = false;
    world.processes.iter_mut().for_each(|process| process.versions = Versions { lowest: 1, highest: 2 });
    world.found()?;
    world.connect_one_to_each()?;
    world.processes[0].clocks.unix_us = HOURS_US;
    world.set(0, "carried ahead");
    expect(&world.told(0)?, &Outcome::Done)?;
    world.processes[0].clocks.unix_us = 0;
    (0..3).for_each(|client| world.hang_up(client));
    (0..3).for_each(|node| world.end(node, End::Kill));
    world.processes.iter_mut().for_each(|process| process.versions = Versions::OURS);
    (0..3).for_each(|node| world.start(node));
    world.until("the group is hours ahead of cluster time", |world| {
        let cluster_ms = world.cluster_ms(0).unwrap_or(Ms::MAX);
        let Some(life) = &world.processes[0].life else { return false };
        let group_ms = life.groups().next().map_or(Ms(0), groups::Group::time_ms);
        group_ms.saturating_sub(cluster_ms) > Us(HOURS_US as u64).to_ms() - Ms(60_000)
    })?;
    world.connect_one_to_each()?;
    world.expect_locks_to_hold()
}

impl World {
    /// Freezes a machine for a minute, its monotonic clock too. Its wall clock is right when it wakes.
    fn freeze(&mut self, node: usize) {
        self.freeze_all(&[node]);
    }

    /// Freezes several machines for a minute at once.
    pub(super) fn freeze_all(&mut self, nodes: &[usize]) {
        let stopped: Vec<Us> = nodes.iter().map(|node| self.processes[*node].clocks.at(self.now_us).mono_us).collect();
        for node in nodes {
            self.network.asleep.insert(*node);
            self.pause(*node);
        }
        self.wait(60_000_000);
        nodes.iter().zip(stopped).for_each(|(node, mono_us)| self.wake(*node, Some(mono_us)));
    }

    /// Returns cluster time at a node, if the node runs and knows it.
    fn cluster_ms(&self, node: usize) -> Option<Ms> {
        let process = &self.processes[node];
        process.life.as_ref().and_then(|life| life.first().cluster_ms(process.clocks.at(self.now_us)))
    }

    /// Checks that these nodes know cluster time, and that it is off by at most a second.
    fn expect_right_time(&self, nodes: &[usize]) -> Result<(), String> {
        for node in nodes {
            let cluster_ms = self.cluster_ms(*node);
            let real_ms = Us(EPOCH_US as u64 + self.now_us).to_ms();
            if cluster_ms.is_none_or(|cluster_ms| cluster_ms.0.abs_diff(real_ms.0) > 1_000) {
                return Err(format!("cluster time is {cluster_ms:?} at node {}, and real time {real_ms}", node + 1));
            }
        }
        Ok(())
    }
}

/// All machines are frozen. The first command after the leader wakes is for a key whose lifetime is long over.
pub(super) fn read_right_after_a_freeze(world: &mut World) -> Result<(), String> {
    world.found()?;
    world.connect_one_to_each()?;
    world.take_lock(0)?;
    world.wait(1_000_000);
    world.freeze_all(&[0, 1, 2]);
    world.expect_lock_to_be_over(0)
}

/// The same with five machines. At first the leader hears of only one other clock, which has jumped like its own. One
/// other clock is not enough to detect a freeze.
pub(super) fn read_when_one_clock_is_known_after_a_freeze(world: &mut World) -> Result<(), String> {
    world.found()?;
    world.ready()?;
    world.connect(0, 0)?;
    world.take_lock(0)?;
    world.wait(1_000_000);
    (2..5).for_each(|other| world.network.slow_down(other, 0, 300_000));
    world.freeze_all(&[0, 1, 2, 3, 4]);
    world.expect_lock_to_be_over(0)
}

/// Two machines are frozen while the third is down. Afterwards the clock of one is two seconds fast. So their clocks
/// have not jumped alike, and neither node has a cluster time that the other could take over.
pub(super) fn two_frozen_and_one_set(world: &mut World) -> Result<(), String> {
    world.found()?;
    world.connect_one_to_each()?;
    world.take_lock(0)?;
    world.end(2, End::Kill);
    world.wait(1_000_000);
    world.freeze_all(&[0, 1]);
    world.processes[0].clocks.unix_us += 2_000_000;
    world.wait(2_000_000);
    world.expect_lock_to_be_over(0)
}

/// The clocks of the leader and of one more of five nodes are set ahead, by eight and four hours. Cluster time must not
/// follow.
pub(super) fn two_of_five_clocks_jump(world: &mut World) -> Result<(), String> {
    world.found()?;
    world.connect_one_to_each()?;
    // The leader hears of the other wrong clock last, when it already has cluster time again.
    world.network.slow_down(3, 0, 33_000);
    world.wait(1_000_000);
    world.processes[0].clocks.unix_us = HOURS_US;
    world.processes[3].clocks.unix_us = HOURS_US / 2;
    // Each value carries cluster time as it is at that moment.
    for count in 0..1_000 {
        world.set(0, &format!("{count}"));
        expect(&world.told(0)?, &Outcome::Done)?;
    }
    world.expect_right_time(&[0, 1, 2, 3, 4])?;
    Ok(())
}

/// The leader's machine is frozen while one of the two others is away for good. Keys that were due meanwhile must be
/// gone.
pub(super) fn frozen_while_another_is_away(world: &mut World) -> Result<(), String> {
    world.found()?;
    world.connect_one_to_each()?;
    world.take_lock(0)?;
    // After this second all nodes have told each other their cluster time.
    world.wait(1_000_000);
    world.end(2, End::Kill);
    world.freeze(0);
    world.wait(2_000_000);
    world.expect_right_time(&[0, 1])?;
    world.expect_lock_to_be_over(0)
}

/// One machine is frozen while both others are down. Then one of the others starts, and must not take over the cluster
/// time of the frozen machine.
pub(super) fn start_beside_a_frozen_machine(world: &mut World) -> Result<(), String> {
    beside_a_frozen_machine(world, 0)
}

/// The same, with a clock that is eight hours fast until it is set right while the machine is frozen.
pub(super) fn start_beside_one_frozen_and_set(world: &mut World) -> Result<(), String> {
    beside_a_frozen_machine(world, HOURS_US)
}

fn beside_a_frozen_machine(world: &mut World, fast_us: i64) -> Result<(), String> {
    world.processes[0].clocks.unix_us = fast_us;
    world.found()?;
    world.connect_one_to_each()?;
    world.take_lock(0)?;
    world.end(1, End::Kill);
    world.end(2, End::Kill);
    world.processes[0].clocks.unix_us = 0;
    world.freeze(0);
    world.start(1);
    world.wait(4_000_000);
    world.expect_right_time(&[0, 1])?;
    world.expect_lock_to_be_over(0)
}
