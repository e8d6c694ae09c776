//! The system's limit for the open files of this process. Each connection is an open file, and most systems begin with
//! a limit of 1,024. If the limit is below what clients need, many clients leave no files for the members' connections
//! and the log's segments.

use anyhow::bail;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Maximum number of connections beyond those of clients: peers, and clients that are being turned away with a reason.
pub const SPARE_CONNECTIONS: u64 = 256;
/// Maximum number of files that are not connections: of the log, of the poller, and files that are read now and then.
const FILES: u64 = 64;

/// Raises the limit for `max_clients` clients. Returns how many clients the limit allows, at most `max_clients`.
///
/// # Errors
/// If the system grants fewer files than a node needs without any client.
pub fn raise_limit(max_clients: u64) -> anyhow::Result<u64> {
    let others = SPARE_CONNECTIONS + FILES;
    let needed = max_clients.saturating_add(others);
    let limit = getrlimit(Resource::Nofile);
    let Some(current) = limit.current.filter(|current| *current < needed) else { return Ok(max_clients) };
    let wanted = limit.maximum.map_or(needed, |maximum| maximum.min(needed));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit });
    let granted = if raised.is_ok() { wanted } else { current };
    if granted <= others {
        bail!("this process may open only {granted} files, and needs more than {others}: raise the limit (ulimit -n)");
    }
    if granted < needed {
        let fit = granted - others;
        tracing::warn!(
            "this process may open only {granted} files, so it accepts {fit} clients instead of {max_clients}: raise \
             the limit (ulimit -n)"
        );
        return Ok(fit);
    }
    Ok(max_clients)
}
