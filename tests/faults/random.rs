//! Faults of all kinds in any order, one or two at a time. `PAXOI_FAULT_SECONDS` sets the duration, `PAXOI_FAULT_SEED`
//! the seed. The seed determines the order of the faults, but not what happens meanwhile.

use crate::harness::turn;
use crate::proxy::{Rule, pairs};
use crate::stage::{Stage, ring};
use paxoi::rng::Rng;
use std::thread;
use std::time::{Duration, Instant};

const SECONDS: u64 = 12;
/// Minimum and maximum pause after each fault, in milliseconds. After one or two faults everything is healed.
const FAULT_MS: (u64, u64) = (200, 2_500);

#[test]
fn any_faults_in_any_order() {
    let _turn = turn();
    let number = |name: &str, default| std::env::var(name).ok().map_or(default, |text| text.parse().expect(name));
    let (seconds, seed) = (number("PAXOI_FAULT_SECONDS", SECONDS), number("PAXOI_FAULT_SEED", 1));
    let mut rng = Rng::new(seed);
    let mut stage = Stage::start(5, 5, seed);
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        let mut down = Vec::new();
        for _ in 0..=rng.below(2) {
            strike(&mut stage, &mut rng, &mut down);
            thread::sleep(Duration::from_millis(FAULT_MS.0 + rng.below(FAULT_MS.1 - FAULT_MS.0)));
        }
        stage.network.heal();
        for (id, killed) in down {
            if killed {
                stage.cluster.restart(id);
            } else {
                stage.cluster.resume(id);
            }
        }
        stage.heal();
    }
    stage.finish();
}

/// Causes one fault, but takes no node down a second time. A node that the fault takes down is added to `down`, with
/// true if it was killed.
fn strike(stage: &mut Stage, rng: &mut Rng, down: &mut Vec<(u32, bool)>) {
    let one = 1 + rng.below(5) as u32;
    let next = 1 + one % 5;
    let others = stage.others(&[one]);
    match rng.below(11) {
        0 | 1 => {
            let rule = if rng.below(2) == 0 { Rule::Hold } else { Rule::Refuse };
            stage.isolate(&[one], rule);
            stage.note("nodes cut off");
        }
        2 => {
            stage.isolate(&[one, next], Rule::Hold);
            stage.note("partitions into halves");
        }
        3 => {
            others.iter().for_each(|other| stage.network.set(one, *other, Rule::Hold));
            stage.note("one-way cuts");
        }
        4 => {
            others.iter().for_each(|other| stage.network.set(*other, one, Rule::Hold));
            stage.note("one-way cuts");
        }
        5 => {
            let ends = stage.others(&[one, next, 1 + next % 5]);
            stage.network.part(&[one, next], &ends, Rule::Hold);
            stage.note("bridges");
        }
        6 => {
            ring(&stage.network, 5);
            stage.note("rings");
        }
        7 => {
            for (from, to) in pairs(5) {
                stage.network.set(from, to, Rule::Delay(Duration::from_millis(rng.below(80))));
            }
            stage.note("changes of delay");
        }
        8 => pairs(5).filter(|_| rng.below(2) == 0).for_each(|(from, to)| stage.network.cut(from, to)),
        kind if down.iter().all(|(id, _)| *id != one) => {
            if kind == 9 {
                stage.cluster.kill9(one);
                stage.note("kill -9");
            } else {
                stage.cluster.pause(one);
                stage.note("SIGSTOP");
            }
            down.push((one, kind == 9));
        }
        _ => {}
    }
}
