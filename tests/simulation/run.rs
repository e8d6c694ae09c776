//! One run from one seed. A cluster with random parameters is born, and serves clients while faults are injected. Then
//! a random majority must make progress within a stated time. At the end the history of the clients is checked.

use crate::client::Client;
use crate::nemesis::{FAULT_KINDS, FaultKind};
use crate::network::Weather;
use crate::oracle::KINDS;
use crate::process::{Shape, VALUE_BYTES_MAX};
use crate::random::Random;
use crate::requests::{Load, SORTS as REQUESTS, UNLESS_FLUSHED};
use crate::trace::Trace;
use crate::world::{Event, World};
use bytes::Bytes;
use groups::{GroupId, Instance, Ms, NodeId};
use paxoi::config::{CheckpointConfig, ReadMode, TURN_STEPS};
use paxoi::verify::{self, Action, Limits};
use paxoi::versions::Versions;

/// A majority that can talk to each other, on disks that work, serves every key within this time.
pub(crate) const PROGRESS_US: u64 = 15_000_000;
/// Maximum drift of a clock, in millionths. Two clocks differ by up to a tenth.
const DRIFT: i64 = 50_000;
/// Error of a clock that is wrong from the beginning, ahead or behind.
const WRONG_US: i64 = 8 * 3_600_000_000;
/// Share of the runs with `FaultKind::SleepOfAll` that keep it, in thousandths.
const ALL_SLEEP: u64 = 250;
/// Maximum time, in sum, for which all nodes of a run may be down.
const DOWN_US_MAX: u64 = 20_000_000;
/// Longer than any run.
const FOREVER_US: u64 = 1 << 40;
/// Maximum error of cluster time with clocks that drift by [`DRIFT`], absent nodes, and slow readings of clocks.
pub(crate) const CLOCKS_US: u64 = 1_500_000;
/// Minimum bytes of fragments if values have up to the maximum length: about a thousand fragments for each value.
const LARGE_FRAGMENT_BYTES: usize = 1 << 10;
/// Maximum number of parts of the longest values of a run, if they go in parts: about as many as a value of 16 MiB has.
const LONG_PARTS_MAX: usize = 64;
/// Instances between two comparisons of states with large values.
const LARGE_DIGEST_EVERY: u64 = 32;
/// Maximum of the mean time between two faults, except in quiet runs.
const PAUSE_US_MAX: u64 = 1_500_000;
/// A node answers each request within the client timeout plus this time.
const LATE_US: u64 = 3_000_000;
/// A cluster whose members can all talk to each other is born within this time.
const BIRTH_US: u64 = 20_000_000;
/// All members agree within this time after all have been healed.
const AGREE_US: u64 = 20_000_000;

/// The result of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) virtual_us: u64,
    pub(crate) hash: u64,
    pub(crate) operations: u64,
    pub(crate) checked: u64,
    pub(crate) open: u64,
    pub(crate) errors: u64,
    pub(crate) messages: u64,
    pub(crate) kinds: [u64; KINDS],
    pub(crate) frames: u64,
    pub(crate) storms: [u64; 4],
    pub(crate) records: u64,
    pub(crate) chosen: u64,
    /// Changes of members that were chosen, and that operators saw done in all groups.
    pub(crate) changed: u64,
    pub(crate) operated: u64,
    /// Completed iterations, bursts, repeated commands of sessions, and commands refused as beyond the window.
    pub(crate) scans: u64,
    pub(crate) bursts: u64,
    pub(crate) repeated: u64,
    pub(crate) outdated: u64,
    pub(crate) states: u64,
    pub(crate) checkpoints: u64,
    pub(crate) transfers: u64,
    pub(crate) trims: u64,
    pub(crate) recovering: u64,
    pub(crate) early: u64,
    pub(crate) counts: [u64; FAULT_KINDS.len()],
    pub(crate) noticed: u64,
    pub(crate) refused: u64,
}

/// Runs a seed.
///
/// # Errors
/// The first rule that was broken.
pub(crate) fn run(seed: u64, workers: Option<u32>, trace: Trace) -> Result<Outcome, String> {
    let mut world = draw(seed, workers, trace);
    let faults_us = if world.faults.pause_us > PAUSE_US_MAX {
        world.random.between(14_000_000, 20_000_000)
    } else {
        world.random.between(8_000_000, 14_000_000)
    };
    let early = world.random.chance(300);
    (0..world.shape.nodes).for_each(|node| world.start(node));
    if !early {
        world.run_while(BIRTH_US, |world| has_failed(world) || is_born(world));
    }
    for client in 0..world.clients.len() {
        let us = world.random.below(50_000);
        world.after(us, Event::Client { client });
    }
    world.faults.on = true;
    world.after(0, Event::Fault);
    let end_us = world.now_us + faults_us;
    if world.shape.spares > 0 {
        world.after(0, Event::Operate);
        let rest_us = world.random.between(1_000_000, 6_000_000);
        world.operator.rests_us = world.random.chance(700).then_some(end_us - rest_us);
    }
    world.faults.end_us = end_us;
    world.run_while(FOREVER_US, |world| has_failed(world) || world.now_us >= world.faults.end_us);
    healed(&mut world)?;
    finish(world)
}

fn has_failed(world: &mut World) -> bool {
    world.oracle.violation().is_some()
}

fn is_born(world: &mut World) -> bool {
    world.processes[..world.shape.nodes].iter().all(crate::process::Process::is_born)
}

/// Draws the parameters of the run; `workers` replaces the drawn number of workers. The kinds of faults are drawn too:
/// some runs have few kinds, but many faults of each.
fn draw(seed: u64, workers: Option<u32>, trace: Trace) -> World {
    let mut random = Random::new(seed ^ 0x5EED);
    // Drawn from a separate generator, so that this draw does not change the other draws of the seed.
    let changing = Random::new(seed ^ 0x0000_3E3B_E55E).chance(300);
    let workers_draw = Random::new(seed ^ 0x0003_0C8E_2517).below(10);
    let shape = Shape {
        nodes: if random.chance(350) { 5 } else { 3 },
        spares: if changing { 4 } else { 0 },
        groups: 1 + random.below(4) as u32,
        reads: match random.below(10) {
            0 => ReadMode::Log,
            1..=4 => ReadMode::Lease,
            _ => ReadMode::Quorum,
        },
        workers: workers.unwrap_or([1, 1, 1, 1, 1, 1, 2, 2, 2, 4][workers_draw as usize]),
        mixed: random.chance(200),
        demand_min: [None, Some(2), Some(5)][Random::new(seed ^ 0x00DE_3A2D).below(3) as usize],
        client_timeout_ms: Ms(random.between(500, 5_000)),
        session_ttl_ms: Ms(if random.chance(300) { random.between(1_000, 5_000) } else { 3_600_000 }),
        checkpoints: CheckpointConfig {
            log_bytes_min: 1 << random.between(16, 21),
            log_factor: 1 + random.below(3) as u32,
            age_ms: Ms(random.between(2_000, 60_000)),
            ..CheckpointConfig::default()
        },
        loading_us_max: match random.below(10) {
            0 => random.between(400_000, 4_000_000),
            1 | 2 => random.between(1_000, 400_000),
            _ => 0,
        },
        turn_steps: match Random::new(seed ^ 0x0000_57E9_5000).below(10) {
            0 | 1 => 1,
            2 | 3 => 4,
            _ => TURN_STEPS,
        },
        is_busy: Random::new(seed ^ 0x0000_B05E_100B).chance(300),
        // The longest values of a run have about as many fragments as the largest values that nodes accept by default.
        fragment_bytes: [128, 512, 64 << 10][Random::new(seed ^ 0x0F2A_63E7).below(3) as usize],
        // With 6 bytes nearly every command goes in parts.
        part_bytes: [6, 24, 24, 256 << 10, 256 << 10, 256 << 10][Random::new(seed ^ 0x0009_A275).below(6) as usize],
    };
    let slow_links = Random::new(seed ^ 0x0510_E114).chance(80);
    let fragment_bytes = if slow_links { shape.fragment_bytes.max(LARGE_FRAGMENT_BYTES) } else { shape.fragment_bytes };
    let mut world = World::new(seed, Shape { fragment_bytes, ..shape }, trace);
    world.idle_us = random.below(400);
    let fair = Weather {
        delay_us: random.between(50, 1_000),
        jitter_us: random.between(10, 2_000),
        split: random.below(50),
        bytes_per_ms: if slow_links { random.between(300, 5_000) } else { 0 },
        ..Weather::default()
    };
    world.network.weather = fair;
    let skew_us = if random.chance(500) { 0 } else { random.between(1_000, 2_000_000) };
    for process in &mut world.processes {
        process.clocks.drift = random.below(2 * DRIFT as u64 + 1) as i64 - DRIFT;
        process.clocks.unix_us = random.below(2 * skew_us + 1) as i64 - skew_us as i64;
        process.sync_us = random.between(100, 4_000);
    }
    // Some clusters mix two versions. A node may be upgraded whenever it starts again.
    let old = if random.chance(350) { random.between(300, 1_001) } else { 0 };
    let highest = [1, 2, 3][Random::new(seed ^ 0x0000_2E85_1015).below(3) as usize];
    // Programs of the first version have one worker.
    let highest = if world.shape.workers > 1 { highest.max(2) } else { highest };
    let before = Versions { lowest: 1, highest };
    // A node that joins must read the values that exist already, so its program is new.
    let initial = world.shape.nodes;
    for process in world.processes.iter_mut().take(initial).filter(|_| random.chance(old)) {
        process.versions = before;
    }
    // Nodes of versions without cluster time use their own clocks.
    world.tells_clocks = old == 0;
    if world.tells_clocks {
        draw_wrong_clocks(&mut world, seed);
    }
    let density = random.between(100, 700);
    let drawn = FAULT_KINDS.into_iter().filter(|kind| *kind != FaultKind::RemoveError);
    world.faults.kinds =
        drawn.filter(|kind| random.chance(density) && (skew_us > 0 || *kind != FaultKind::ClockJump)).collect();
    // Drawn from a separate generator, so that this draw does not change the other draws of the seed.
    if Random::new(seed ^ 0x0000_4E30_7E00).chance(300) {
        world.faults.kinds.push(FaultKind::RemoveError);
    }
    if !random.chance(ALL_SLEEP) {
        world.faults.kinds.retain(|kind| *kind != FaultKind::SleepOfAll);
    } else if world.faults.kinds.contains(&FaultKind::SleepOfAll) {
        // After minutes without a reading of other nodes' clocks, a clock with the usual drift would be off by seconds.
        world.processes.iter_mut().for_each(|process| process.clocks.drift /= 100);
    }
    if !world.faults.wrong_clocks.is_empty() && !world.faults.kinds.contains(&FaultKind::ClockJump) {
        world.faults.kinds.push(FaultKind::ClockJump);
    }
    if world.shape.spares > 0 {
        // In these runs the operator decides whose disk is lost for good.
        world.faults.kinds.retain(|kind| *kind < FaultKind::BitFlip);
    }
    // Some runs have few faults, because a group returns to its preferred leader only after the preferred leader was
    // healthy for 10 s.
    let quiet = random.chance(200);
    let (least, most) = if quiet { (3 * PAUSE_US_MAX, 8 * PAUSE_US_MAX) } else { (100_000, PAUSE_US_MAX) };
    world.faults.pause_us = random.between(least, most);
    world.faults.skew_us = skew_us;
    world.faults.fair = fair;
    let clients = random.between(3, 9);
    let has_wrong_clocks = !world.faults.wrong_clocks.is_empty();
    world.load = Load {
        // All clients together send about 200 requests a second on average, over times with and without answers.
        pause_us: clients * 2_000,
        patience_us: random.between(1_000_000, 7_000_000),
        pipeline: 1 + random.below(4) as usize,
        long: if random.chance(250) { 5 } else { 0 },
        long_bytes_max: 120_000,
        keys: 2 + random.below(7),
        // The worst case: all nodes restart, one stays away, and the clock of another is slow. Then no node knows how
        // long the nodes were down, so old keys vanish late. Keys set in this state vanish early, once the clock of a
        // third node is known.
        early_us: 2 * skew_us + CLOCKS_US + if has_wrong_clocks { DOWN_US_MAX } else { 0 },
        late_us: if has_wrong_clocks { FOREVER_US } else { 2 * skew_us + CLOCKS_US },
        mix: 1 | random.below(1 << REQUESTS) as u32,
        flushes: if random.chance(80) { 2 } else { 0 },
        bursts: if random.chance(150) { 4 } else { 0 },
        healed_us: 0,
        cuts: if random.chance(500) { 4 } else { 0 },
        nodes: (0..world.shape.nodes).collect(),
    };
    if slow_links {
        (world.load.long, world.load.long_bytes_max) = (10, VALUE_BYTES_MAX as u64 - 100);
        world.load.keys = world.load.keys.min(3);
        world.load.bursts = 2;
        world.oracle.digest_every = LARGE_DIGEST_EVERY;
    }
    if world.load.long > 0 {
        let least = world.load.long_bytes_max as usize / LONG_PARTS_MAX;
        world.shape.part_bytes = world.shape.part_bytes.max(least);
    }
    if world.load.flushes > 0 {
        world.load.mix &= !UNLESS_FLUSHED;
    }
    world.clients = (0..clients).map(|_| Client::new()).collect();
    world
}

/// Makes the clocks of a minority wrong in half of the runs, from the beginning or later. Uses a generator of its own.
fn draw_wrong_clocks(world: &mut World, seed: u64) {
    let mut random = Random::new(seed ^ 0x0000_C10C_C5AB);
    if !random.chance(500) {
        return;
    }
    // Where members change, there are hardly ever fewer than three voters, so that one node is a minority.
    let minority = if world.shape.spares > 0 { 1 } else { (world.shape.nodes - 1) / 2 };
    let mut nodes: Vec<usize> = (0..world.processes.len()).collect();
    random.shuffle(&mut nodes);
    nodes.truncate(minority);
    for node in &nodes {
        world.processes[*node].clocks.unix_us += [0, 0, WRONG_US, -WRONG_US][random.below(4) as usize];
    }
    world.faults.wrong_clocks = nodes;
}

/// Ends the faults. A majority is healed and must make progress. Sometimes the others come back too, and all must
/// agree.
fn healed(world: &mut World) -> Result<(), String> {
    world.faults.on = false;
    world.trace.line(|| "HEAL".to_owned());
    check(world)?;
    let count = world.processes.len();
    let changing = world.shape.spares > 0;
    let stays = |node: &usize| {
        let process = &world.processes[*node];
        process.lost.is_none() && process.gone.is_none() && (process.starts > 0 || *node < world.shape.nodes)
    };
    let mut order: Vec<usize> = (0..count).filter(stays).collect();
    world.random.shuffle(&mut order);
    // Before the birth all nodes are needed. A node with a damaged checkpoint needs those that know what it has lost.
    let rotten = world.processes.iter().any(|process| process.rotten);
    let is_early = if changing { !world.are_members_at_rest() } else { !is_born(world) };
    let all = is_early || rotten || world.random.chance(400);
    let chosen = match (all, changing) {
        (true, _) => order.into_iter().filter(|node| !world.is_off(*node)).collect(),
        (false, true) => world.few_that_decide(&order),
        (false, false) => order[..count / 2 + 1].to_vec(),
    };
    world.revives = false;
    for node in 0..count {
        if !chosen.contains(&node) && world.processes[node].life.is_some() {
            match world.random.below(3) {
                0 => world.end(node, crate::shell::End::PowerLoss),
                1 => world.pause(node),
                _ => {}
            }
        }
    }
    repair(world, &chosen);
    for node in 0..count {
        for &other in &chosen {
            if !chosen.contains(&node) {
                world.network.block(node, other);
                world.network.block(other, node);
            }
        }
    }
    world.load.nodes.clone_from(&chosen);
    world.ask_only(&chosen);
    world.follow_members();
    let since_us = world.now_us;
    world.load.healed_us = since_us;
    world.load.patience_us = world.shape.client_timeout_ms.to_us().0 + LATE_US;
    let birth_us = if changing || is_born(world) { 0 } else { BIRTH_US };
    let answered = |world: &mut World| {
        world.follow_members();
        let led = world.load.nodes.iter().all(|node| {
            let life = world.processes[*node].life.as_ref();
            life.is_some_and(|life| life.is_born() && life.leaderless() == 0)
        });
        let told = world.clients.iter().all(|client| client.answered_us > since_us + 500_000);
        has_failed(world) || (led && told)
    };
    let done = world.run_while(since_us + birth_us + PROGRESS_US, answered);
    check(world)?;
    if !done {
        let waits: Vec<String> = world.load.nodes.iter().map(|node| describe(world, *node)).collect();
        return Err(format!("no progress within {} s of the repair: {}", PROGRESS_US / 1_000_000, waits.join("; ")));
    }
    read_everything(world)?;
    write_everywhere(world)?;
    if all { agree(world) } else { Ok(()) }
}

/// Repairs the network, and the disks and processes of the chosen nodes.
fn repair(world: &mut World, chosen: &[usize]) {
    world.network.weather = world.faults.fair;
    world.network.hurry(world.now_us);
    world.heal();
    for &node in chosen {
        let process = &mut world.processes[node];
        process.disk.mend();
        process.disk.set_capacity(None);
        process.slow_until_us = 0;
        if let Some(life) = &mut process.life {
            life.effects_left = None;
        }
        world.wake(node, None);
        world.resume(node);
        world.start(node);
    }
}

fn describe(world: &World, node: usize) -> String {
    let Some(life) = &world.processes[node].life else { return format!("node {} does not run", node + 1) };
    let groups = life.groups();
    let leaders: Vec<String> = groups
        .map(|group| {
            let leader = group.leader().map_or("-".to_owned(), |ballot| ballot.to_string());
            let voters: Vec<String> = group.membership().voters().ids().iter().map(NodeId::to_string).collect();
            let recovering = if group.is_recovering() { " recovering" } else { "" };
            format!("{leader}@{} of {}{recovering}", group.next(), voters.join("+"))
        })
        .collect();
    format!("node {} follows [{}]", node + 1, leaders.join(", "))
}

/// Reads each key once more, so that the history contains the final values.
fn read_everything(world: &mut World) -> Result<(), String> {
    world.clients.iter_mut().for_each(|client| client.quiet = true);
    let end_us = world.now_us + PROGRESS_US;
    let idle = |world: &mut World| has_failed(world) || (0..world.clients.len()).all(|client| world.is_idle(client));
    let mut in_time = world.run_while(end_us, idle);
    let keys: Vec<Bytes> = world.record.history.keys().map(|(key, _)| key.clone()).collect();
    for key in keys {
        let before = world.record.answered;
        while in_time && world.record.answered == before {
            check(world)?;
            let client = world.random.below(world.clients.len() as u64) as usize;
            if world.is_idle(client) {
                world.read_key(client, &key);
            }
            in_time = world.run_while(end_us, idle);
        }
    }
    check(world)?;
    if in_time { Ok(()) } else { Err("not every key could be read after the repair".to_owned()) }
}

/// Checks that no group is stuck: each must take a write.
fn write_everywhere(world: &mut World) -> Result<(), String> {
    let groups = world.shape.groups;
    let mut names = (0..).map(|number| format!("w{number}"));
    for group in 0..groups {
        let group_of = |key: &str| paxoi::routing::group_of(paxoi::routing::slot(key.as_bytes()), groups);
        let Some(key) = names.find(|key| group_of(key) == GroupId(group)) else { continue };
        let end_us = world.now_us + PROGRESS_US;
        let client = world.random.below(world.clients.len() as u64) as usize;
        let mut in_time = true;
        world.record.last = None;
        while in_time && world.record.last.is_none() {
            check(world)?;
            if world.is_idle(client) {
                world.request(client, &["SET", &key, "last"], &key, Action::Set(Bytes::from_static(b"last")));
            }
            in_time = world.run_while(end_us, |world| has_failed(world) || world.is_idle(client));
        }
        check(world)?;
        if !in_time {
            return Err(format!("group {group} takes no write after the repair"));
        }
    }
    Ok(())
}

/// Checks that nodes reach the same state if all of them can talk to each other.
fn agree(world: &mut World) -> Result<(), String> {
    let positions = |world: &World| {
        let next = |node: &usize| -> Vec<Instance> {
            let life = world.processes[*node].life.as_ref();
            life.map_or(Vec::new(), |life| life.groups().map(groups::Group::next).collect())
        };
        world.load.nodes.iter().map(next).collect::<Vec<_>>()
    };
    let same = |world: &mut World| {
        world.follow_members();
        let all = positions(world);
        has_failed(world) || all.iter().all(|one| !one.is_empty() && *one == all[0])
    };
    let end_us = world.now_us + AGREE_US;
    let done = world.run_while(end_us, same);
    check(world)?;
    if !done {
        return Err(format!("nodes that can all talk are not at the same instances: {:?}", positions(world)));
    }
    for node in world.load.nodes.clone() {
        let Some(life) = &world.processes[node].life else { continue };
        let states: Vec<(usize, Instance, u64)> = (life.groups())
            .filter(|group| !life.of_group(group.id()).shard().is_applying(group.id()))
            .map(|group| (group.id(), group.next(), life.of_group(group.id()).shard()))
            .map(|(id, next, shard)| (id.index(), next, shard.store(id).digest()))
            .collect();
        for (index, next, digest) in states {
            world.oracle.compare(node, index, next, digest);
        }
    }
    check(world)
}

fn check(world: &World) -> Result<(), String> {
    world.oracle.violation().map_or(Ok(()), |what| Err(what.to_owned()))
}

/// Checks the history of the clients, and sums up the run.
fn finish(mut world: World) -> Result<Outcome, String> {
    world.close_books();
    let history = &world.record.history;
    let summary = verify::check(history, Limits::default()).map_err(|violation| violation.to_string())?;
    let network = world.network.done;
    Ok(Outcome {
        virtual_us: world.now_us,
        hash: world.hash(),
        operations: world.record.answered,
        checked: summary.operations as u64,
        open: history.open() as u64,
        errors: world.record.errors,
        messages: world.oracle.messages,
        kinds: world.oracle.kinds,
        frames: network.frames,
        storms: [network.lost, network.doubled, network.disordered, network.replayed],
        records: world.oracle.records,
        chosen: world.oracle.chosen,
        changed: world.oracle.changed,
        operated: world.operator.done,
        scans: world.record.scans,
        bursts: world.record.bursts,
        repeated: world.record.repeated,
        outdated: world.record.outdated,
        states: world.oracle.states,
        checkpoints: world.oracle.checkpoints,
        transfers: world.oracle.transfers,
        trims: world.oracle.trims,
        recovering: world.oracle.recovering,
        early: world.oracle.early,
        counts: world.faults.counts,
        noticed: world.faults.noticed,
        refused: world.faults.refused,
    })
}
