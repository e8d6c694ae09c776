//! `paxoi serve`: reads a node's settings from defaults, file, environment and flags, and runs the node.

use super::signals;
use crate::config::{
    CheckpointConfig, FRAGMENT_BYTES, GROUPS_MAX, LeaderMode, NodeConfig, ReadMode, VALUE_BYTES_LIMIT, VALUE_BYTES_MAX,
};
use crate::duration;
use crate::endpoint::Endpoint;
use crate::identity::{self, Identity};
use crate::logging::{self, LogFormat, tell_stdout};
use crate::resolver::addresses;
use crate::server::{StartingServer, parse_members, random};
use crate::size;
use crate::storage::disk::FileDisk;
use crate::storage::wal;
use crate::usage::usage;
use crate::versions::Versions;
use crate::workers::{WORKERS_MAX, WorkerId, Workers};
use anyhow::Context;
use clap::Args;
use clap::builder::BoolishValueParser;
use groups::{Ms, NodeId};
use serde::Deserialize;
use signal_hook::consts::SIGXFSZ;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Settings of `paxoi serve`. Each can also be in the file or in the environment. Flags override the environment,
/// and the environment overrides the file.
#[derive(Debug, Default, PartialEq, Args, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ServeArgs {
    /// This node's id, from 1 on; never used again for another node
    #[arg(long, env = "PAXOI_ID", value_name = "N")]
    pub id: Option<u32>,
    /// The data directory; it is created if it does not exist
    #[arg(long, env = "PAXOI_DATA", value_name = "DIR")]
    pub data: Option<String>,
    /// All initial members, the same list on each node; after the first start it only corrects addresses
    #[arg(long, env = "PAXOI_INITIAL_CLUSTER", value_name = "1=HOST:PORT,2=…")]
    pub initial_cluster: Option<String>,
    /// Members of a cluster to join, instead of forming one; needed until this node is added
    #[arg(long, env = "PAXOI_JOIN", value_name = "HOST:PORT,…")]
    pub join: Option<String>,
    /// Address to listen on [default: this node's address in --initial-cluster, or the one that the cluster knows]
    #[arg(long, env = "PAXOI_LISTEN", value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// Address that clients are told for this node, if they cannot use the one at which the members reach it
    #[arg(long, env = "PAXOI_ANNOUNCE_ADDRESS", value_name = "HOST:PORT")]
    pub announce_address: Option<String>,
    /// Paxos groups among which the keys are divided, fixed at the first start [default: 16]
    #[arg(long, env = "PAXOI_GROUPS", value_name = "N")]
    pub groups: Option<u32>,
    /// How reads are made linearizable; leases need clocks that drift by less than 10 % [default: quorum]
    #[arg(long, env = "PAXOI_READS", value_enum)]
    pub reads: Option<ReadMode>,
    /// Whether the groups are divided equally, or each is led where most of its requests come in [default: even]
    #[arg(long, env = "PAXOI_LEADERS", value_enum)]
    pub leaders: Option<LeaderMode>,
    /// Workers, each a thread with its own groups and clients: a power of two, the same at all nodes [default: 1]
    #[arg(long, env = "PAXOI_WORKERS", value_name = "N")]
    pub workers: Option<u32>,
    /// Time limit of a command, after which its client gets an error [default: 5s]
    #[arg(long, env = "PAXOI_CLIENT_TIMEOUT", value_name = "TIME")]
    pub client_timeout: Option<String>,
    /// Time to live of a session for ONCE, fixed at the first start [default: 1h]
    #[arg(long, env = "PAXOI_SESSION_TTL", value_name = "TIME")]
    pub session_ttl: Option<String>,
    /// Maximum number of client connections [default: 10000]
    #[arg(long, env = "PAXOI_MAX_CLIENTS", value_name = "N")]
    pub max_clients: Option<u64>,
    /// Refuse commands that may add data once keys and values take more memory than this; 0 is no limit [default: 0]
    #[arg(long, env = "PAXOI_MAXMEMORY", value_name = "BYTES")]
    pub maxmemory: Option<String>,
    /// The largest value of a key, up to 512mb [default: 64mb]
    #[arg(long, env = "PAXOI_VALUE_BYTES_MAX", value_name = "BYTES")]
    pub value_bytes_max: Option<String>,
    /// The size of new segments of the log, from 64kb up to 512mb [default: 64mb]
    #[arg(long, env = "PAXOI_SEGMENT_BYTES", value_name = "BYTES", hide = true)]
    pub segment_bytes: Option<String>,
    /// Log length above which checkpoints are made and the log is trimmed [default: 512mb]
    #[arg(long, env = "PAXOI_CHECKPOINT_LOG_BYTES", value_name = "BYTES")]
    pub checkpoint_log_bytes: Option<String>,
    /// For checkpoints the log must also be longer than this factor times all checkpoints together [default: 2]
    #[arg(long, env = "PAXOI_CHECKPOINT_LOG_FACTOR", value_name = "N")]
    pub checkpoint_log_factor: Option<u32>,
    /// Maximum interval between checkpoints, if anything was written [default: 1h]
    #[arg(long, env = "PAXOI_CHECKPOINT_AGE", value_name = "TIME")]
    pub checkpoint_age: Option<String>,
    /// Speak only these versions of the peer protocol, like an older program
    #[arg(long, env = "PAXOI_PROTOCOL_VERSIONS", value_name = "LOWEST-HIGHEST", hide = true)]
    pub protocol_versions: Option<String>,
    /// Interval at which everything on the disk is read, to find damage [default: 1d]
    #[arg(long, env = "PAXOI_SCRUB_INTERVAL", value_name = "TIME")]
    pub scrub_interval: Option<String>,
    /// A TOML file with settings by the names of these flags
    #[arg(long, env = "PAXOI_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Format of log lines on stderr; PAXOI_LOG chooses their level [default: text]
    #[arg(long, env = "PAXOI_LOG_FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,
    /// Allow addresses other than loopback: there are no passwords and no encryption yet
    #[arg(long, env = "PAXOI_INSECURE", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_name = "BOOL", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub insecure: Option<bool>,
    /// End when the parent process, which has this id, ends
    #[arg(long, hide = true)]
    #[serde(skip)]
    pub parent: Option<u32>,
}

/// The settings of a node, checked.
#[derive(Debug)]
pub struct ServeSettings {
    /// Settings of the node.
    pub node: NodeConfig,
    /// Settings of its log.
    pub log: wal::LogOptions,
    /// The address to listen on.
    pub listen: SocketAddr,
    /// Format of log lines.
    pub log_format: LogFormat,
    /// One line for each setting that has no effect because the cluster was born with another value.
    pub ignored: Vec<String>,
    /// The parent process: its end ends this process, too.
    pub parent: Option<u32>,
}

impl ServeArgs {
    /// Merges flags, environment, file and defaults, and checks them.
    ///
    /// # Errors
    /// [`crate::usage::Usage`], one line that names the setting.
    pub fn settings(self) -> anyhow::Result<ServeSettings> {
        let config_file = self.config.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        let args = match self.config.clone() {
            Some(path) => {
                let text = std::fs::read_to_string(&path)
                    .map_err(|error| usage(format!("cannot read the configuration {}: {error}", path.display())))?;
                self.over(parse_file(&text).map_err(|reason| usage(format!("{}: {reason}", path.display())))?)
            }
            None => self,
        };
        let id =
            args.id.filter(|id| *id > 0).ok_or_else(|| usage("--id is missing: give this node's number, from 1 on"))?;
        let dir = args.data.clone().ok_or_else(|| usage("--data is missing: give this node's data directory"))?;
        let identity = known_identity(&dir);
        let groups = group_count(args.groups, &dir, identity.as_ref())?;
        let Addresses { initial, join, listen } = node_addresses(id, &args, identity.as_ref())?;
        let listen = resolve(&listen)?;
        let ignored = ignored_settings(&args, identity.as_ref())?;
        if args.insecure != Some(true) {
            stay_local(listen, &initial)?;
        }
        let node = NodeConfig {
            id: NodeId(id),
            workers: worker_count(args.workers.unwrap_or(1))?,
            initial,
            announced: args.announce_address.clone(),
            join,
            groups,
            reads: args.reads.unwrap_or_default(),
            demand_min: args.leaders.unwrap_or_default().demand_min(),
            client_timeout_ms: millis("--client-timeout", args.client_timeout.as_deref().unwrap_or("5s"))?,
            idle_ms_max: Ms(0),
            session_ttl_ms: millis("--session-ttl", args.session_ttl.as_deref().unwrap_or("1h"))?,
            max_clients: args.max_clients.unwrap_or(10_000),
            memory_bytes_max: match args.maxmemory.as_deref() {
                Some(text) => size::parse(text)
                    .ok_or_else(|| usage(format!("--maxmemory {text}: give a size like 2gb, or 0 for no limit")))?,
                None => 0,
            },
            fragment_bytes: FRAGMENT_BYTES,
            part_bytes: crate::config::UPLOAD_PART_BYTES,
            versions: match args.protocol_versions.as_deref() {
                Some(text) => Versions::parse(text)
                    .ok_or_else(|| usage(format!("--protocol-versions {text}: give a range like 1-2")))?,
                None => Versions::OURS,
            },
            value_bytes_max: match args.value_bytes_max.as_deref() {
                Some(text) => bytes("--value-bytes-max", text, 1)?,
                None => VALUE_BYTES_MAX,
            },
            turn_steps: crate::config::TURN_STEPS,
            checkpoints: CheckpointConfig {
                log_bytes_min: log_bytes(
                    "--checkpoint-log-bytes",
                    args.checkpoint_log_bytes.as_deref().unwrap_or("512mb"),
                )?,
                log_factor: args.checkpoint_log_factor.unwrap_or(2),
                age_ms: millis("--checkpoint-age", args.checkpoint_age.as_deref().unwrap_or("1h"))?,
                scrub_ms: millis("--scrub-interval", args.scrub_interval.as_deref().unwrap_or("1d"))?,
            },
            dir,
            config_file,
            listen,
            cluster_id: random()?,
            hash_key: random()?,
            seed: u64::from_le_bytes(random()?[..8].try_into().context("sixteen bytes have eight")?),
        };
        if node.workers.count() > 1 && node.versions == Versions::FIRST {
            return Err(usage("--workers: nodes that speak only version 1 of the peer protocol have one worker"));
        }
        let log = match args.segment_bytes.as_deref() {
            Some(text) => {
                let bytes = bytes("--segment-bytes", text, wal::SEGMENT_BYTES_MIN as usize)?;
                wal::LogOptions::with_segment_bytes(bytes as u64)
            }
            None => wal::LogOptions::default(),
        };
        let log_format = args.log_format.unwrap_or_default();
        Ok(ServeSettings { node, log, listen, log_format, ignored, parent: args.parent })
    }

    /// Returns these settings; where one is missing, that of `file`.
    fn over(self, file: ServeArgs) -> ServeArgs {
        ServeArgs {
            id: self.id.or(file.id),
            data: self.data.or(file.data),
            initial_cluster: self.initial_cluster.or(file.initial_cluster),
            join: self.join.or(file.join),
            listen: self.listen.or(file.listen),
            announce_address: self.announce_address.or(file.announce_address),
            groups: self.groups.or(file.groups),
            reads: self.reads.or(file.reads),
            leaders: self.leaders.or(file.leaders),
            workers: self.workers.or(file.workers),
            client_timeout: self.client_timeout.or(file.client_timeout),
            session_ttl: self.session_ttl.or(file.session_ttl),
            max_clients: self.max_clients.or(file.max_clients),
            maxmemory: self.maxmemory.or(file.maxmemory),
            value_bytes_max: self.value_bytes_max.or(file.value_bytes_max),
            segment_bytes: self.segment_bytes.or(file.segment_bytes),
            checkpoint_log_bytes: self.checkpoint_log_bytes.or(file.checkpoint_log_bytes),
            checkpoint_log_factor: self.checkpoint_log_factor.or(file.checkpoint_log_factor),
            checkpoint_age: self.checkpoint_age.or(file.checkpoint_age),
            scrub_interval: self.scrub_interval.or(file.scrub_interval),
            protocol_versions: self.protocol_versions.or(file.protocol_versions),
            config: self.config,
            log_format: self.log_format.or(file.log_format),
            insecure: self.insecure.or(file.insecure),
            parent: self.parent,
        }
    }
}

/// Returns the first of `count` workers.
fn worker_count(count: u32) -> anyhow::Result<Workers> {
    Workers::checked(WorkerId::FIRST, count)
        .ok_or_else(|| usage(format!("--workers {count}: give a power of two from 1 to {WORKERS_MAX}")))
}

/// Refuses addresses other than loopback: without passwords, only this machine may reach the node.
fn stay_local(listen: SocketAddr, initial: &[(NodeId, String)]) -> anyhow::Result<()> {
    let members = initial.iter().filter_map(|(_, address)| addresses(address).ok()).flatten();
    match std::iter::once(listen).chain(members).find(|address| !address.ip().is_loopback()) {
        None => Ok(()),
        Some(address) => Err(usage(format!(
            "{address} is not a loopback address, and there are no passwords yet: add --insecure if the network is trusted"
        ))),
    }
}

/// Returns the identity of the directory. Returns `None` if it cannot be read: the later opening of the directory then
/// fails with the reason.
fn known_identity(dir: &str) -> Option<Identity> {
    identity::read(&FileDisk::existing(dir).ok()?).ok().flatten()
}

/// The addresses of a node and its cluster.
struct Addresses {
    /// The given addresses: of all initial members, of this node alone if it joins, or none.
    initial: Vec<(NodeId, String)>,
    /// Addresses at which to join.
    join: Vec<String>,
    listen: String,
}

/// Returns the addresses from the list of initial members, from the directory, or from the flags of a node that joins.
fn node_addresses(id: u32, args: &ServeArgs, identity: Option<&Identity>) -> anyhow::Result<Addresses> {
    let announced = args.announce_address.as_ref();
    if let Some(address) = announced {
        let endpoint = host_port("--announce-address", address)?;
        if endpoint.ip().is_some_and(|ip| ip.is_unspecified()) || endpoint.port == 0 {
            return Err(usage(format!(
                "--announce-address {address}: give an address and port that clients can reach"
            )));
        }
    }
    if let Some(list) = &args.initial_cluster {
        if args.join.is_some() {
            return Err(usage("--join and --initial-cluster: a node joins a cluster or forms one, give one of them"));
        }
        let initial = parse_members(list).map_err(|reason| usage(format!("--initial-cluster: {reason}")))?;
        if initial.len() > groups::members::MEMBERS_MAX {
            return Err(usage(format!("--initial-cluster: at most {} members", groups::members::MEMBERS_MAX)));
        }
        let own = initial.iter().find(|(member, _)| member.0 == id).map(|(_, address)| address.clone());
        let own = own.ok_or_else(|| usage(format!("--initial-cluster: node {id} itself is not in the list")))?;
        return Ok(Addresses { initial, join: Vec::new(), listen: args.listen.clone().unwrap_or(own) });
    }
    if let Some(birth) = identity.and_then(|identity| identity.birth.as_ref()) {
        let born = birth.members.iter().find(|member| member.node.0 == id).map(|member| &member.address);
        let joined = identity.and_then(|identity| identity.joined.iter().find(|info| info.node.0 == id));
        let listen = args.listen.as_ref().or(joined.map(|info| &info.address)).or(born);
        let listen = listen.ok_or_else(|| usage("--listen is missing: give the address to listen on"))?.clone();
        return Ok(Addresses { initial: Vec::new(), join: Vec::new(), listen });
    }
    let Some(list) = &args.join else {
        return Err(usage(
            "--initial-cluster is missing: give all members as 1=HOST:PORT,2=…, or --join to join a cluster that exists",
        ));
    };
    let join: Vec<String> = list.split(',').map(|address| address.trim().to_owned()).collect();
    join.iter().try_for_each(|address| host_port("--join", address).map(drop))?;
    let Some(listen) = args.listen.clone() else {
        return Err(usage("--listen is missing: give the address at which the other members reach this node"));
    };
    let own = match announced {
        // Members can use the address that clients use.
        Some(announced) if resolve(&listen)?.ip().is_unspecified() => announced.clone(),
        None if resolve(&listen)?.ip().is_unspecified() => {
            return Err(usage(format!(
                "--listen {listen}: the other members cannot connect to this address: give one they can reach, or add \
                 --announce-address"
            )));
        }
        _ => listen.clone(),
    };
    host_port("--listen", &own)?;
    Ok(Addresses { initial: vec![(NodeId(id), own)], join, listen })
}

/// Default number of groups of a new cluster.
pub const DEFAULT_GROUPS: u32 = 16;

/// Returns the number of groups. A given number must not contradict the number in the cluster's birth record.
fn group_count(given: Option<u32>, dir: &str, identity: Option<&Identity>) -> anyhow::Result<u32> {
    let born = identity.and_then(|identity| identity.birth.as_ref());
    match (given, born.map(|birth| birth.groups)) {
        (Some(given), Some(born)) if given != born => {
            Err(usage(format!("--groups {given}: the cluster in {dir} has {born}; leave the flag out")))
        }
        (given, born) => check_groups(born.or(given).unwrap_or(DEFAULT_GROUPS)),
    }
}

/// Returns one line for each setting of `args` that the cluster's birth record overrules. These settings are checked,
/// too.
fn ignored_settings(args: &ServeArgs, identity: Option<&Identity>) -> anyhow::Result<Vec<String>> {
    let Some(birth) = identity.and_then(|identity| identity.birth.as_ref()) else { return Ok(Vec::new()) };
    let ttl_ms = args.session_ttl.as_deref().map(|text| millis("--session-ttl", text)).transpose()?;
    let value_bytes = args.value_bytes_max.as_deref().map(|text| bytes("--value-bytes-max", text, 1)).transpose()?;
    let list = args.initial_cluster.as_deref().map(parse_members).transpose();
    let list = list.map_err(|reason| usage(format!("--initial-cluster: {reason}")))?.unwrap_or_default();
    let mut ignored = birth.overruled(None, ttl_ms, value_bytes.map(|bytes| bytes as u64));
    ignored.append(&mut birth.not_added(&list));
    Ok(ignored)
}

/// Parses settings from a TOML text.
///
/// # Errors
/// One line with the line number and the reason.
pub fn parse_file(text: &str) -> Result<ServeArgs, String> {
    toml::from_str(text).map_err(|error| {
        let before = error.span().map_or("", |span| &text[..span.start.min(text.len())]);
        let line = before.matches('\n').count() + 1;
        format!("line {line}: {}", error.message().replace('\n', " "))
    })
}

/// Checks a number of groups.
///
/// # Errors
/// [`crate::usage::Usage`].
pub fn check_groups(groups: u32) -> anyhow::Result<u32> {
    if (1..=GROUPS_MAX).contains(&groups) {
        return Ok(groups);
    }
    Err(usage(format!("--groups {groups}: a cluster has 1 to {GROUPS_MAX} groups")))
}

/// Resolves an address of this machine, and returns the first result.
fn resolve(address: &str) -> anyhow::Result<SocketAddr> {
    let endpoint = Endpoint::parse(address);
    let endpoint = endpoint.ok_or_else(|| usage(format!("{address} is not an address: give HOST:PORT")))?;
    let found = addresses(address).map_err(|error| {
        let port = endpoint.port;
        usage(format!(
            "cannot look up {}: {error}; give --listen an address of this machine, or 0.0.0.0:{port}",
            endpoint.host
        ))
    })?;
    Ok(found[0])
}

/// Parses an address without looking it up.
fn host_port(flag: &str, address: &str) -> anyhow::Result<Endpoint> {
    Endpoint::parse(address).ok_or_else(|| usage(format!("{flag} {address}: give HOST:PORT")))
}

/// Parses a time, and returns it in milliseconds.
fn millis(flag: &str, text: &str) -> anyhow::Result<Ms> {
    let duration = duration::parse(text).map_err(|error| usage(format!("{flag} {text}: {error}")))?;
    Ok(Ms(duration.as_millis() as u64))
}

/// Parses a size in bytes, from `least` up to 512 MiB.
fn bytes(flag: &str, text: &str, least: usize) -> anyhow::Result<usize> {
    let value = size::parse(text).and_then(|bytes| usize::try_from(bytes).ok());
    let valid = value.filter(|bytes| (least..=VALUE_BYTES_LIMIT).contains(bytes));
    valid.ok_or_else(|| usage(format!("{flag} {text}: give a size from {least} bytes up to 512mb")))
}

/// Parses the log length above which the log is trimmed, in bytes.
fn log_bytes(flag: &str, text: &str) -> anyhow::Result<u64> {
    let valid = size::parse(text).filter(|bytes| *bytes >= wal::SEGMENT_BYTES_MIN);
    valid.ok_or_else(|| usage(format!("{flag} {text}: give a size from 64kb up, such as 512mb or 2gb")))
}

/// Runs a node until it is told to end.
///
/// # Errors
/// If a setting is wrong, or the node cannot start or go on.
pub fn run(args: ServeArgs) -> anyhow::Result<()> {
    // Signals are caught from the first moment on. Those that arrive before the thread below runs wait for it.
    let signals = signals::of_a_node()?;
    // With SIGXFSZ ignored, a write beyond the system's file size limit fails like any other, instead of ending the
    // process silently.
    signals::ignore(&[SIGXFSZ])?;
    let settings = args.settings()?;
    let _logs = logging::start(settings.log_format);
    settings.ignored.iter().for_each(|line| tracing::warn!("{line}"));
    if let Some(parent) = settings.parent {
        end_with(parent)?;
    }
    let stopping = Arc::new(AtomicBool::new(false));
    let starting = StartingServer::open(settings.node, settings.log, settings.listen, Arc::clone(&stopping))?;
    let waker = starting.waker();
    let stop = move || {
        stopping.store(true, Ordering::Relaxed);
        // The event loop may have ended already.
        let _ = waker.wake();
    };
    let watch = move || signals::watch(signals, stop);
    std::thread::Builder::new().name("paxoi-signals".to_owned()).spawn(watch).context("cannot start a thread")?;
    let Some(server) = starting.load()? else { return Ok(()) };
    tell_stdout(&format!("listening {}", server.local_addr()?));
    server.run()
}

/// Makes the system end this process when its parent ends.
fn end_with(parent: u32) -> anyhow::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .context("cannot follow the parent process")?;
    // The parent may have ended just before.
    let alive = rustix::process::getppid().is_some_and(|id| id.as_raw_pid().cast_unsigned() == parent);
    anyhow::ensure!(alive, "the parent process has ended");
    Ok(())
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
