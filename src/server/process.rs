//! Facts that the system provides: about this process, the time, and random bytes.

use crate::node::{ProcessFacts, Time};
use anyhow::anyhow;
use groups::Us;
use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The monotonic and the wall clock. The monotonic one, for time limits, goes on while the machine sleeps: a lease must
/// not outlast a sleep.
#[derive(Clone, Copy)]
pub(super) struct WallClock {
    since_boot: Duration,
}

impl WallClock {
    pub(super) fn start() -> WallClock {
        WallClock { since_boot: since_boot() }
    }

    pub(super) fn now(&self) -> Time {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // The clock starts at 1 s, so that "never" (0) is long ago.
        Time {
            mono_us: Us(since_boot().saturating_sub(self.since_boot).as_micros() as u64 + 1_000_000),
            unix_us: Us(since_1970.as_micros() as u64),
        }
    }
}

fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Returns sixteen random bytes from the system.
///
/// # Errors
/// If the system has none.
pub fn random() -> anyhow::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("the system gives no random numbers: {error}"))?;
    Ok(bytes)
}

/// Returns the system's facts about this process; 0 for a fact that is not available.
pub(super) fn process_facts() -> ProcessFacts {
    let number = |text: &str| text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    let field = |file: &str, name: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix(name).map(number)).unwrap_or(0)
    };
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    let ticks = |index: usize| after_name.split(' ').nth(index).map_or(0, number);
    let tick_us = Us(1_000_000 / rustix::param::clock_ticks_per_second().max(1));
    ProcessFacts {
        process_id: std::process::id(),
        executable: std::env::current_exe().map(|path| path.display().to_string()).unwrap_or_default(),
        resident_bytes: field("/proc/self/status", "VmRSS:") << 10,
        system_bytes: field("/proc/meminfo", "MemTotal:") << 10,
        // Fields 14 and 15 of stat. The first two, up to the end of the name, are cut off.
        cpu_user_us: tick_us * ticks(11),
        cpu_system_us: tick_us * ticks(12),
        ..ProcessFacts::default()
    }
}
