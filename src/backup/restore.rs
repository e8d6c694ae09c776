//! `paxoi restore`: writes the keys of a backup into a running cluster, through the protocol that all clients use. So
//! the cluster may have another number of groups, and the restore may be repeated as often as needed.
//!
//! The whole backup is verified before the first key is sent. The cluster's time decides which keys have expired,
//! because the clock of this machine may be wrong.

use super::loader::{BATCH_BYTES, Loader};
use super::set::BackupSet;
use crate::client::{Client, resolve, write_command};
use crate::loadgen::bench::report::grouped;
use crate::plural::plural;
use crate::usage::Usage;
use anyhow::{Context, bail, ensure};
use groups::Ms;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use net::resp::value::Value;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Maximum connections. More would only wait for each other.
const CONNECTIONS_MAX: usize = 256;
/// Time limit for the cluster's answers before the load.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Maximum bytes of a key that are shown.
const SHOWN_BYTES_MAX: usize = 100;

/// What to restore, and where to.
#[derive(Clone, Debug, clap::Args)]
pub struct RestoreArgs {
    /// The folder that `paxoi backup` made
    #[arg(value_name = "BACKUP")]
    pub backup: PathBuf,
    /// Nodes of the cluster; one is enough
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', required = true)]
    pub connect: Vec<String>,
    /// Connections, divided among the addresses
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub connections: usize,
    /// Restore into a cluster that holds keys: keys of the backup replace those of the same name, others stay. This
    /// also repeats a restore that was interrupted
    #[arg(long)]
    pub force: bool,
}

/// Counts of the keys to restore.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    keys: u64,
    expired: u64,
    bytes: u64,
}

/// Fills a cluster from a backup.
///
/// # Errors
/// One line: the backup is damaged, or the cluster is not empty or does not accept all keys.
pub fn restore(args: &RestoreArgs) -> anyhow::Result<()> {
    let asked = args.connections;
    if !(1..=CONNECTIONS_MAX).contains(&asked) {
        return Err(Usage(format!("--connections {asked}: give 1 to {CONNECTIONS_MAX}")).into());
    }
    let set = BackupSet::open(&args.backup)?;
    let addresses = args.connect.iter().map(|address| {
        let resolved = resolve(address).with_context(|| format!("--connect {address}"))?;
        Ok((address.clone(), resolved))
    });
    let addresses = addresses.collect::<anyhow::Result<Vec<(String, SocketAddr)>>>()?;
    let target = look_at_cluster(&addresses, args.force)?;
    let all = check(&set, &target)?;
    let began = Instant::now();
    let sent = load(&set, &addresses, args.connections, &target, all)?;
    let seconds = began.elapsed().as_secs_f64();
    let expired = match sent.expired {
        0 => String::new(),
        expired => format!("; {} more had expired", grouped(expired)),
    };
    let (keys, plural, bytes) = (grouped(sent.keys), plural(sent.keys), grouped(sent.bytes));
    writeln!(io::stdout().lock(), "restored {keys} key{plural}, {bytes} bytes, {seconds:.1} s{expired}")
        .context("cannot write to stdout")
}

/// Facts about the cluster.
struct Target {
    /// Maximum size of a value.
    value_bytes_max: u64,
    /// The cluster's time in Unix milliseconds, and the local instant of that answer.
    told_ms: Ms,
    told: Instant,
}

impl Target {
    fn now_ms(&self) -> Ms {
        self.told_ms.saturating_add(Ms(self.told.elapsed().as_millis() as u64))
    }
}

/// Queries the cluster, which must hold no keys unless `force` is set.
fn look_at_cluster(addresses: &[(String, SocketAddr)], force: bool) -> anyhow::Result<Target> {
    let mut target = Target { value_bytes_max: u64::MAX, told_ms: Ms(0), told: Instant::now() };
    for (name, address) in addresses {
        let asked = Client::connect(*address, ANSWER_MAX).and_then(|mut client| {
            let size = client.call(&[b"DBSIZE"])?;
            let limit = client.call(&[b"CONFIG", b"GET", b"proto-max-bulk-len"])?;
            Ok((size, limit, client.call(&[b"TIME"])?))
        });
        let (size, config, time) = asked.with_context(|| format!("no answer from a node at {name}"))?;
        let keys = match size {
            Value::Int(keys) => keys,
            Value::Error(text) => bail!("the node at {name} does not serve: {text}"),
            other => bail!("the node at {name} does not tell how many keys there are: {other:?}"),
        };
        ensure!(
            keys == 0 || force,
            "the cluster holds {keys} keys already: restore into a new cluster, or add --force to replace keys of the \
             same name or to repeat an interrupted restore"
        );
        if let Value::Array(pair) = config
            && let Some(bytes) = pair.get(1).and_then(|value| std::str::from_utf8(value.as_bytes()?).ok()?.parse().ok())
        {
            target.value_bytes_max = target.value_bytes_max.min(bytes);
        }
        target.told_ms =
            unix_ms(&time).with_context(|| format!("the node at {name} does not tell the time: {time:?}"))?;
        target.told = Instant::now();
    }
    Ok(target)
}

/// Reads the whole backup, checks that it is sound and that every unexpired value fits, and counts its keys and bytes.
fn check(set: &BackupSet, target: &Target) -> anyhow::Result<Tally> {
    let (now_ms, value_bytes_max) = (target.now_ms(), target.value_bytes_max);
    let (mut all, mut too_large) = (Tally::default(), None);
    set.verify(&mut |key, value, expires_at_ms| {
        let bytes = value.len() as u64;
        if bytes > value_bytes_max && !is_due(expires_at_ms, now_ms) && too_large.is_none() {
            too_large = Some((shown(key), bytes));
        }
        all.keys += 1;
        all.bytes += key.len() as u64 + bytes;
    })?;
    if let Some((key, bytes)) = too_large {
        bail!(
            "the value of the key {key} has {bytes} bytes, but this cluster takes at most {value_bytes_max} bytes: \
             restore into a cluster with a larger --value-bytes-max"
        );
    }
    Ok(all)
}

/// Sends all keys that have not expired.
fn load(
    set: &BackupSet,
    addresses: &[(String, SocketAddr)],
    connections: usize,
    target: &Target,
    all: Tally,
) -> anyhow::Result<Tally> {
    let bar = progress(all.bytes);
    let loader = Loader::start(addresses, connections)?;
    let mut sent = Tally::default();
    let mut passed_bytes = 0;
    let (mut batch, mut count) = (Vec::new(), 0);
    for state in &set.manifest().states {
        let now_ms = target.now_ms();
        let visited = set.visit(state, &mut |key, value, expires_at_ms| {
            passed_bytes += (key.len() + value.len()) as u64;
            if is_due(expires_at_ms, now_ms) {
                sent.expired += 1;
                return;
            }
            sent.keys += 1;
            sent.bytes += (key.len() + value.len()) as u64;
            let mut number = itoa::Buffer::new();
            match expires_at_ms {
                Ms(0) => write_command(&[b"SET", key, value], &mut batch),
                at => write_command(&[b"SET", key, value, b"PXAT", number.format(at.0).as_bytes()], &mut batch),
            }
            count += 1;
            if batch.len() >= BATCH_BYTES {
                // A failed loader discards batches, and `finish` returns the error.
                loader.give(std::mem::take(&mut batch), std::mem::take(&mut count));
                bar.set_position(passed_bytes);
            }
        });
        visited?;
        if loader.has_failed() {
            break;
        }
    }
    loader.give(batch, count);
    let finished = loader.finish();
    bar.finish_and_clear();
    finished.context("the restore is not complete; run it again with --force")?;
    Ok(sent)
}

/// Creates the progress bar. `indicatif` shows nothing if stderr is not a terminal.
fn progress(bytes: u64) -> ProgressBar {
    let bar = ProgressBar::new(bytes).with_message(format!("{}", HumanBytes(bytes)));
    if let Ok(style) = ProgressStyle::with_template("restore {bar:32.cyan/dim} {percent:>3} % of {msg}") {
        bar.set_style(style.progress_chars("━╸─"));
    }
    bar
}

fn is_due(expires_at_ms: Ms, now_ms: Ms) -> bool {
    expires_at_ms != Ms(0) && expires_at_ms <= now_ms
}

/// Returns the reply to TIME in Unix milliseconds.
fn unix_ms(reply: &Value) -> Option<Ms> {
    let Value::Array(words) = reply else { return None };
    let number = |word: &Value| std::str::from_utf8(word.as_bytes()?).ok()?.parse::<u64>().ok();
    let [seconds, micros] = words.as_slice() else { return None };
    number(seconds)?.checked_mul(1_000)?.checked_add(number(micros)? / 1_000).map(Ms)
}

/// Formats a key for people.
fn shown(key: &[u8]) -> String {
    let start = &key[..key.len().min(SHOWN_BYTES_MAX)];
    let dots = if start.len() < key.len() { "…" } else { "" };
    format!("\"{}{dots}\"", start.escape_ascii())
}
