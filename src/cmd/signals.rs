//! Signals: SIGINT and SIGTERM end a process. Signals with other meanings for daemons must not end a node.

use anyhow::Context;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Starts to catch the signals that a node watches for.
pub(super) fn of_a_node() -> anyhow::Result<Signals> {
    Signals::new([SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2]).context("cannot watch for signals")
}

/// Calls `stop` for each SIGINT and SIGTERM. Signals that make other daemons read their settings again or reopen their
/// log must not end a node.
pub(super) fn watch(mut signals: Signals, stop: impl Fn()) {
    for signal in signals.forever() {
        match signal {
            SIGINT | SIGTERM => stop(),
            other => {
                let name = signal_hook::low_level::signal_name(other).unwrap_or("a signal");
                tracing::info!("{name} has no effect: settings are read at the start, and log lines go to stderr");
            }
        }
    }
}

/// Makes these signals have no effect.
pub(super) fn ignore(signals: &[i32]) -> anyhow::Result<()> {
    for signal in signals {
        signal_hook::flag::register(*signal, Arc::default()).context("cannot watch for signals")?;
    }
    Ok(())
}

/// Returns a flag that Ctrl-C and SIGTERM set.
pub(super) fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&flag)).context("cannot watch for signals")?;
    }
    Ok(flag)
}
