//! A scenario of an hour in which the same keys are overwritten again and again, while nodes are killed now and then.
//! The content of the disks and stores must not grow.

use crate::shell::End;
use crate::world::World;
use bytes::Bytes;
use paxoi::verify::Action;

const MINUTES: u64 = 60;
const MINUTE_US: u64 = 60_000_000;
const KEYS: u64 = 16;
const VALUE_BYTES: usize = 1_000;
/// Pause of each client between two writes.
const PAUSE_US: u64 = 25_000;
/// Interval at which a node is killed and started again, in minutes.
const KILL_MINUTES: u64 = 7;
/// Number of warm-up minutes, in which logs grow to the length at which they are trimmed.
const WARM: usize = 10;

/// Runs the scenario, and prints the fullest disk and the largest store in one line.
pub(super) fn hour_of_overwrites(world: &mut World) -> Result<(), String> {
    world.found()?;
    (0..3).try_for_each(|client| world.connect(client, client))?;
    let (mut disks, mut stores) = (Vec::new(), Vec::new());
    let (mut count, mut written) = (0, 0);
    for minute in 0..MINUTES {
        let end_us = world.now_us + MINUTE_US;
        let (mut disk, mut store) = (0, 0);
        while world.now_us < end_us {
            for client in 0..3 {
                if world.is_idle(client) {
                    count += 1;
                    overwrite(world, client, count);
                }
            }
            let before = world.record.answered;
            world.wait(PAUSE_US);
            written += world.record.answered - before;
            disk = world.processes.iter().map(|process| process.disk.used_bytes()).max().unwrap_or(0).max(disk);
        }
        for life in world.processes.iter().filter_map(|process| process.life.as_ref()) {
            store = life.first().shard().store_bytes().max(store);
        }
        disks.push(disk);
        stores.push(store);
        if minute % KILL_MINUTES == KILL_MINUTES - 1 {
            let node = (minute / KILL_MINUTES) as usize % 3;
            world.end(node, End::Kill);
            world.start(node);
            world.connect(node, node)?;
        }
    }
    let worst = |of: &[u64]| of.iter().copied().max().unwrap_or(0);
    let (middle, end) = (WARM + (disks.len() - WARM) / 2, disks.len());
    let (first, second) = (worst(&disks[WARM..middle]), worst(&disks[middle..end]));
    let (small, large) = (stores[WARM], stores[WARM..].iter().copied().max().unwrap_or(0));
    let rounds = world.oracle.trims;
    eprintln!(
        "an hour of {written} overwrites: old segments went {rounds} times; the fullest disk held {first} bytes in minutes \
         10 to 35 and {second} after, the largest store {small} bytes after 10 minutes and {large} later"
    );
    if rounds < MINUTES || written < MINUTES * 60 * 50 {
        return Err("too few writes or trims: the scenario tests nothing".to_owned());
    }
    if second > first + first / 10 {
        return Err(format!("disks fill: {first} bytes, then {second}"));
    }
    if large > small + small / 10 {
        return Err(format!("memory grows: {small} bytes, then {large}"));
    }
    Ok(())
}

fn overwrite(world: &mut World, client: usize, count: u64) {
    let (key, value) = (format!("k{}", count % KEYS), format!("{count:0>VALUE_BYTES$}"));
    let action = Action::Set(Bytes::copy_from_slice(value.as_bytes()));
    world.request(client, &["SET", &key, &value], &key, action);
}
