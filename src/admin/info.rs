//! INFO: the sections that Redis's clients and dashboards read, and `paxos`, the state of this node's groups.
//!
//! A field exists if clients or dashboards read it and it has a meaning in this server. Counters of events that cannot
//! happen here (evictions, forks) are 0, and exist only if dashboards expect them.

use super::REDIS_VERSION;
use super::stats::Stats;
use crate::kv::reply::Reply;
use groups::{Ms, NodeId, Us};
use net::event_loop::SystemCalls;
use std::fmt::{Display, Write};

/// The state of a node, for INFO.
#[derive(Clone, Copy, Debug)]
pub struct InfoView<'a> {
    /// The process.
    pub server: ServerView<'a>,
    /// Its connections.
    pub clients: ClientsView,
    /// Its memory.
    pub memory: MemoryView,
    /// Its store.
    pub keyspace: KeyspaceView,
    /// Its part in the Paxos groups.
    pub paxos: PaxosView<'a>,
    /// Its counters.
    pub stats: &'a Stats,
}

/// The process.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServerView<'a> {
    /// 40 hex digits, new at every start.
    pub run_id: &'a str,
    /// The port for clients and peers.
    pub port: u16,
    /// The process id.
    pub process_id: u32,
    /// The wall clock, microseconds since 1970.
    pub unix_us: Us,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// The program's path.
    pub executable: &'a str,
    /// The configuration file; empty: none.
    pub config_file: &'a str,
    /// True while the cluster is not born or the node is loading.
    pub loading: bool,
    /// During a start: bytes read so far, and bytes to read in all.
    pub loading_bytes: Option<(u64, u64)>,
    /// True if the last write to the log succeeded, false if there was no space for it.
    pub log_writable: bool,
    /// Processor time in user mode, microseconds.
    pub cpu_user_us: Us,
    /// Processor time in the kernel, microseconds.
    pub cpu_system_us: Us,
}

/// The connections of clients.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientsView {
    /// Connections that are open now.
    pub connected: u64,
    /// Maximum number of open connections.
    pub max: u64,
    /// Clients with at least one command whose reply is outstanding.
    pub waiting: u64,
    /// The largest input buffer, bytes; 0, because the node does not measure it.
    pub input_buffer_bytes: u64,
    /// The largest output queue, bytes.
    pub output_buffer_bytes: u64,
}

impl ClientsView {
    /// Adds the clients of another worker. The maximum is that of the whole node.
    pub fn add(&mut self, other: &ClientsView) {
        self.connected += other.connected;
        self.waiting += other.waiting;
        self.input_buffer_bytes = self.input_buffer_bytes.max(other.input_buffer_bytes);
        self.output_buffer_bytes = self.output_buffer_bytes.max(other.output_buffer_bytes);
    }
}

impl KeyspaceView {
    /// Adds the keys of another worker.
    pub fn add(&mut self, other: &KeyspaceView) {
        self.keys += other.keys;
        self.expires += other.expires;
        self.expired_total += other.expired_total;
        self.hits += other.hits;
        self.misses += other.misses;
    }
}

impl StorageView {
    /// Adds the checkpoints of another worker. Both share the log and the disk.
    pub fn add(&mut self, other: &StorageView) {
        self.log_bytes_max = self.log_bytes_max.max(other.log_bytes_max);
        self.checkpoint_files += other.checkpoint_files;
        self.checkpoint_bytes += other.checkpoint_bytes;
        self.in_progress |= other.in_progress;
        self.rounds += other.rounds;
        self.failures += other.failures;
        self.last_unix_s = self.last_unix_s.max(other.last_unix_s);
        self.last_ms = self.last_ms.max(other.last_ms);
        self.receiving += other.receiving;
        self.received_bytes += other.received_bytes;
        self.sent_bytes += other.sent_bytes;
        self.installed += other.installed;
        self.recovering += other.recovering;
        self.scrubs = self.scrubs.max(other.scrubs);
        self.scrub_damaged = self.scrub_damaged.max(other.scrub_damaged);
    }
}

impl WorkView {
    /// Adds the work of another worker.
    pub fn add(&mut self, other: &WorkView) {
        self.calls.polls += other.calls.polls;
        self.calls.reads += other.calls.reads;
        self.calls.writes += other.calls.writes;
        self.frames_sent += other.frames_sent;
        self.messages_sent += other.messages_sent;
        self.logged_bytes += other.logged_bytes;
    }
}

/// Memory, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryView {
    /// Used by keys, values, queues and buffers.
    pub used_bytes: u64,
    /// Maximum of `used_bytes` so far.
    pub peak_bytes: u64,
    /// Limit for keys and values; 0 for no limit.
    pub max_bytes: u64,
    /// Resident memory of the process, as the system counts it.
    pub resident_bytes: u64,
    /// Memory of the machine.
    pub system_bytes: u64,
}

/// The keys in the store of this node, and the outcomes of look-ups.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyspaceView {
    /// Keys of all groups.
    pub keys: u64,
    /// Keys with an expiry time.
    pub expires: u64,
    /// Keys removed because they expired.
    pub expired_total: u64,
    /// Reads that found their key.
    pub hits: u64,
    /// Reads that did not find their key.
    pub misses: u64,
}

/// Checkpoints of this node, and transfers between nodes.
#[derive(Clone, Copy, Debug, Default)]
pub struct StorageView {
    /// Length above which the log is trimmed, in bytes.
    pub log_bytes_max: u64,
    /// Number of checkpoint files.
    pub checkpoint_files: u64,
    /// Bytes of all checkpoint files.
    pub checkpoint_bytes: u64,
    /// True while a checkpoint is being made, or is requested.
    pub in_progress: bool,
    /// Checkpoint rounds completed since the start.
    pub rounds: u64,
    /// Checkpoint files that could not be made, since the start.
    pub failures: u64,
    /// End of the last round, in unix seconds; 0 if no round has ended.
    pub last_unix_s: u64,
    /// Duration of the last round, in milliseconds.
    pub last_ms: Ms,
    /// Checkpoints being received.
    pub receiving: u64,
    /// Bytes received since the start.
    pub received_bytes: u64,
    /// Bytes sent since the start.
    pub sent_bytes: u64,
    /// States of other members installed since the start.
    pub installed: u64,
    /// Recovering groups: groups whose state is not whole here.
    pub recovering: u64,
    /// Scrubs of the disk since the start.
    pub scrubs: u64,
    /// Damaged files that the scrubs found.
    pub scrub_damaged: u64,
}

/// A node's part in the Paxos groups.
#[derive(Clone, Copy, Debug, Default)]
pub struct PaxosView<'a> {
    /// This node.
    pub node: NodeId,
    /// Start number of this node.
    pub start_number: u64,
    /// The cluster, as its birth record names it.
    pub cluster_id: &'a str,
    /// Number of groups of the cluster.
    pub groups: u32,
    /// Groups that this node leads.
    pub groups_led: u32,
    /// Groups that this node leads under a lease.
    pub groups_leased: u32,
    /// True while the node is drained: it hands its groups to others at an operator's request.
    pub draining: bool,
    /// Groups that no node is known to lead.
    pub groups_leaderless: u32,
    /// Groups in which this node knows of instances that it has not applied.
    pub groups_behind: u32,
    /// Percentage of the last 100 ms in which the event loop worked, or waited for a processor.
    pub loop_busy_percent: u64,
    /// Instances known chosen, over all groups.
    pub chosen_total: u64,
    /// Instances applied, over all groups.
    pub applied_total: u64,
    /// Number of this node's ballots that were lost to others or timed out in phase 1, over all groups.
    pub ballots_lost: u64,
    /// Messages skipped because they named a group that does not exist here.
    pub skipped_unknown_group: u64,
    /// Messages skipped because they are of a kind that is not known here.
    pub skipped_unknown_kind: u64,
    /// The highest version of the peer protocol that this node speaks.
    pub protocol_version: u16,
    /// The version of values that this node may propose: the highest that all members read.
    pub value_version: u8,
    /// Clocks and cluster time.
    pub clocks: ClocksView,
    /// The work of the process.
    pub work: WorkView,
    /// Bytes of the log on disk.
    pub log_bytes: u64,
    /// Number of log segments.
    pub log_segments: u64,
    /// State of the disk: `ok`; `full` if the log cannot make another segment; `slow` if the current sync takes too
    /// long.
    pub disk: &'a str,
    /// The member that executes the commands of this node's clients; 0 if this node does.
    pub relays_to: u32,
    /// Commands passed on to other members since the start.
    pub relayed_total: u64,
    /// Checkpoints, and transfers between nodes.
    pub storage: StorageView,
    /// Reason of the last failure of a checkpoint file, in one line; empty if there is none.
    pub last_failure: &'a str,
    /// The other members, by ascending id.
    pub peers: &'a [PeerView],
}

/// Work of a node since its start.
#[derive(Clone, Copy, Debug, Default)]
pub struct WorkView {
    /// Calls of the event loop for its sockets.
    pub calls: SystemCalls,
    /// Frames sent to other nodes.
    pub frames_sent: u64,
    /// Messages in these frames.
    pub messages_sent: u64,
    /// Bytes of all records that went to the log.
    pub logged_bytes: u64,
}

/// A node's clock, and the time by which keys expire.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClocksView {
    /// Cluster time, in unix milliseconds; 0 if it is not known yet.
    pub cluster_ms: Ms,
    /// Lead of this node's clock over cluster time, in milliseconds.
    pub ahead_ms: i64,
    /// Largest lead of any group's time over cluster time, in milliseconds.
    pub groups_ahead_ms: Ms,
}

/// Another member, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerView {
    /// Its id.
    pub node: NodeId,
    /// The address that it listens on.
    pub address: String,
    /// True if it echoed a recent ping of this node.
    pub reached: bool,
    /// The last round trip, microseconds.
    pub rtt_us: Us,
    /// Milliseconds since the last bytes from it.
    pub silent_ms: Ms,
    /// The version of the peer protocol used with it; 0 if it has not been seen yet.
    pub version: u16,
    /// Lead of its clock over cluster time, in milliseconds, if that is known.
    pub clock_ahead_ms: Option<i64>,
}

/// Answers `INFO [section …]`. Unknown sections add nothing, as in Redis.
#[must_use]
pub fn info(args: &[&[u8]], view: &InfoView<'_>) -> Reply<'static> {
    let asked: Vec<_> = args.iter().skip(1).map(|section| section.to_ascii_lowercase()).collect();
    let any = |names: &[&str]| asked.iter().any(|name| names.iter().any(|known| known.as_bytes() == name));
    let (default, all) = (asked.is_empty() || any(&["default"]), any(&["all", "everything"]));
    let mut text = String::new();
    for section in SECTIONS {
        if all || (default && section.default) || any(&[&section.title.to_ascii_lowercase()]) {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            let _ = write!(text, "# {}\r\n", section.title);
            (section.write)(view, &mut text);
        }
    }
    Reply::Text(text.into())
}

struct Section {
    title: &'static str,
    /// True if the section is shown when the command names none.
    default: bool,
    write: fn(&InfoView<'_>, &mut String),
}

const fn section(title: &'static str, default: bool, write: fn(&InfoView<'_>, &mut String)) -> Section {
    Section { title, default, write }
}

static SECTIONS: &[Section] = &[
    section("Server", true, server),
    section("Clients", true, clients),
    section("Memory", true, memory),
    section("Persistence", true, persistence),
    section("Stats", true, stats),
    section("Replication", true, replication),
    section("CPU", true, cpu),
    section("Modules", true, |_, _| {}),
    section("Commandstats", false, command_stats),
    section("Errorstats", true, error_stats),
    section("Latencystats", false, |_, _| {}),
    section("Cluster", true, |_, out| line(out, "cluster_enabled", 1)),
    section("Paxos", true, paxos),
    section("Keyspace", true, keyspace),
];

fn line(out: &mut String, name: &str, value: impl Display) {
    let _ = write!(out, "{name}:{value}\r\n");
}

fn server(view: &InfoView<'_>, out: &mut String) {
    let server = &view.server;
    line(out, "redis_version", REDIS_VERSION);
    line(out, "redis_mode", "cluster");
    line(out, "paxoi_version", env!("CARGO_PKG_VERSION"));
    line(out, "os", format_args!("{} {}", std::env::consts::OS, std::env::consts::ARCH));
    line(out, "arch_bits", usize::BITS);
    line(out, "multiplexing_api", "mio");
    line(out, "process_id", server.process_id);
    line(out, "run_id", server.run_id);
    line(out, "tcp_port", server.port);
    line(out, "server_time_usec", server.unix_us);
    line(out, "uptime_in_seconds", server.uptime_s);
    line(out, "uptime_in_days", server.uptime_s / 86_400);
    line(out, "executable", server.executable);
    line(out, "config_file", server.config_file);
}

fn clients(view: &InfoView<'_>, out: &mut String) {
    let clients = &view.clients;
    line(out, "connected_clients", clients.connected);
    line(out, "maxclients", clients.max);
    line(out, "client_recent_max_input_buffer", clients.input_buffer_bytes);
    line(out, "client_recent_max_output_buffer", clients.output_buffer_bytes);
    line(out, "blocked_clients", clients.waiting);
    line(out, "tracking_clients", 0);
}

fn memory(view: &InfoView<'_>, out: &mut String) {
    let memory = &view.memory;
    for (name, bytes) in [
        ("used_memory", memory.used_bytes),
        ("used_memory_rss", memory.resident_bytes),
        ("used_memory_peak", memory.peak_bytes),
        ("total_system_memory", memory.system_bytes),
        ("maxmemory", memory.max_bytes),
    ] {
        line(out, name, bytes);
        line(out, &format!("{name}_human"), human(bytes));
    }
    line(out, "maxmemory_policy", "noeviction");
    let ratio = memory.resident_bytes as f64 / memory.used_bytes.max(1) as f64;
    line(out, "mem_fragmentation_ratio", format_args!("{ratio:.2}"));
}

fn persistence(view: &InfoView<'_>, out: &mut String) {
    line(out, "loading", u8::from(view.server.loading));
    line(out, "async_loading", 0);
    if let Some((done, all)) = view.server.loading_bytes {
        line(out, "loading_total_bytes", all);
        line(out, "loading_loaded_bytes", done);
        line(out, "loading_loaded_perc", done * 100 / all.max(1));
    }
    line(out, "rdb_changes_since_last_save", 0);
    line(out, "rdb_bgsave_in_progress", 0);
    line(out, "rdb_last_bgsave_status", "ok");
    line(out, "aof_enabled", 1);
    line(out, "aof_rewrite_in_progress", 0);
    line(out, "aof_last_bgrewrite_status", "ok");
    line(out, "aof_last_write_status", if view.server.log_writable { "ok" } else { "err" });
    line(out, "aof_current_size", view.paxos.log_bytes);
}

fn stats(view: &InfoView<'_>, out: &mut String) {
    let (stats, keys) = (view.stats, &view.keyspace);
    let (input, output) = stats.net_bytes_per_second();
    let kilobytes = |bytes: u64| format!("{:.2}", bytes as f64 / 1024.0);
    line(out, "total_connections_received", stats.connections_received);
    line(out, "total_commands_processed", stats.commands_total());
    line(out, "instantaneous_ops_per_sec", stats.ops_per_second());
    line(out, "total_net_input_bytes", stats.net_input_bytes);
    line(out, "total_net_output_bytes", stats.net_output_bytes);
    line(out, "instantaneous_input_kbps", kilobytes(input));
    line(out, "instantaneous_output_kbps", kilobytes(output));
    line(out, "rejected_connections", stats.connections_rejected);
    line(out, "expired_keys", keys.expired_total);
    line(out, "evicted_keys", 0);
    line(out, "keyspace_hits", keys.hits);
    line(out, "keyspace_misses", keys.misses);
    line(out, "pubsub_channels", 0);
    line(out, "pubsub_patterns", 0);
    line(out, "total_error_replies", stats.errors_total());
}

/// Writes the Replication section. It shows the other nodes as replicas. It shows the number of applied instances as
/// the offset, because this number grows on every node alike.
fn replication(view: &InfoView<'_>, out: &mut String) {
    line(out, "role", "master");
    line(out, "connected_slaves", view.paxos.peers.iter().filter(|peer| peer.reached).count());
    line(out, "master_failover_state", "no-failover");
    line(out, "master_replid", view.paxos.cluster_id);
    line(out, "master_repl_offset", view.paxos.applied_total);
}

fn cpu(view: &InfoView<'_>, out: &mut String) {
    let seconds = |us: Us| format!("{}.{:06}", us.0 / 1_000_000, us.0 % 1_000_000);
    line(out, "used_cpu_sys", seconds(view.server.cpu_system_us));
    line(out, "used_cpu_user", seconds(view.server.cpu_user_us));
}

fn command_stats(view: &InfoView<'_>, out: &mut String) {
    for (name, stat) in view.stats.commands() {
        let per_call = stat.usec.0 as f64 / stat.calls.max(1) as f64;
        let (calls, usec, rejected, failed) = (stat.calls, stat.usec, stat.rejected, stat.failed);
        let _ = write!(out, "cmdstat_{name}:calls={calls},usec={usec},usec_per_call={per_call:.2}");
        let _ = write!(out, ",rejected_calls={rejected},failed_calls={failed}\r\n");
    }
}

fn error_stats(view: &InfoView<'_>, out: &mut String) {
    for (kind, count) in view.stats.errors() {
        let _ = write!(out, "errorstat_{kind}:count={count}\r\n");
    }
}

fn paxos(view: &InfoView<'_>, out: &mut String) {
    let (paxos, stats) = (&view.paxos, view.stats);
    line(out, "node_id", paxos.node);
    line(out, "start_number", paxos.start_number);
    line(out, "cluster_id", paxos.cluster_id);
    line(out, "groups", paxos.groups);
    line(out, "groups_led", paxos.groups_led);
    line(out, "groups_leased", paxos.groups_leased);
    line(out, "draining", u8::from(paxos.draining));
    line(out, "groups_leaderless", paxos.groups_leaderless);
    line(out, "groups_behind", paxos.groups_behind);
    line(out, "chosen_total", paxos.chosen_total);
    line(out, "applied_total", paxos.applied_total);
    line(out, "loop_busy_percent", paxos.loop_busy_percent);
    line(out, "fsync_count", stats.fsyncs.count());
    line(out, "fsync_mean_us", stats.fsyncs.mean_us());
    line(out, "fsync_p99_us", stats.fsyncs.quantile_us(0.99));
    line(out, "turn_p50_us", stats.turns.quantile_us(0.5));
    line(out, "turn_p99_us", stats.turns.quantile_us(0.99));
    line(out, "turn_p999_us", stats.turns.quantile_us(0.999));
    line(out, "turn_max_us", stats.turns.quantile_us(1.0));
    line(out, "batch_commands_mean", format_args!("{:.2}", stats.batches.commands_mean()));
    line(out, "batch_bytes_mean", format_args!("{:.2}", stats.batches.bytes_mean()));
    line(out, "turns", paxos.work.calls.polls);
    line(out, "socket_reads", paxos.work.calls.reads);
    line(out, "socket_writes", paxos.work.calls.writes);
    line(out, "peer_frames_sent", paxos.work.frames_sent);
    line(out, "peer_messages_sent", paxos.work.messages_sent);
    line(out, "log_bytes_written", paxos.work.logged_bytes);
    line(out, "ballots_lost", paxos.ballots_lost);
    line(out, "skipped_unknown_group", paxos.skipped_unknown_group);
    line(out, "skipped_unknown_kind", paxos.skipped_unknown_kind);
    line(out, "protocol_version", paxos.protocol_version);
    line(out, "value_version", paxos.value_version);
    line(out, "cluster_time_ms", paxos.clocks.cluster_ms);
    line(out, "clock_ahead_ms", paxos.clocks.ahead_ms);
    line(out, "groups_ahead_ms", paxos.clocks.groups_ahead_ms);
    line(out, "disk", paxos.disk);
    line(out, "relays_to", paxos.relays_to);
    line(out, "commands_relayed", paxos.relayed_total);
    line(out, "log_bytes", paxos.log_bytes);
    line(out, "log_segments", paxos.log_segments);
    storage(out, &paxos.storage, paxos.last_failure);
    for peer in paxos.peers {
        let PeerView { node, address, reached, rtt_us, silent_ms, version, clock_ahead_ms } = peer;
        let reached = u8::from(*reached);
        let _ = write!(out, "peer{node}:address={address},reached={reached},rtt_us={rtt_us},silent_ms={silent_ms},");
        let _ = write!(out, "version={version}");
        if let Some(ahead_ms) = clock_ahead_ms {
            let _ = write!(out, ",clock_ahead_ms={ahead_ms}");
        }
        out.push_str("\r\n");
    }
}

/// Writes the key counts of this node's own store: every node holds all groups.
fn keyspace(view: &InfoView<'_>, out: &mut String) {
    let KeyspaceView { keys, expires, .. } = view.keyspace;
    if keys > 0 {
        let _ = write!(out, "db0:keys={keys},expires={expires},avg_ttl=0\r\n");
    }
}

/// Formats bytes as Redis abbreviates them: `512B`, `1.50K`, `11.88M`.
pub(crate) fn human(bytes: u64) -> String {
    let scaled = |power: u32| bytes as f64 / 1024f64.powi(power as i32);
    match bytes {
        0..1024 => format!("{bytes}B"),
        1024..0x10_0000 => format!("{:.2}K", scaled(1)),
        0x10_0000..0x4000_0000 => format!("{:.2}M", scaled(2)),
        0x4000_0000..0x100_0000_0000 => format!("{:.2}G", scaled(3)),
        _ => format!("{:.2}T", scaled(4)),
    }
}

#[cfg(test)]
#[path = "info_tests.rs"]
pub(crate) mod tests;

fn storage(out: &mut String, storage: &StorageView, last_failure: &str) {
    line(out, "log_bytes_max", storage.log_bytes_max);
    line(out, "checkpoint_files", storage.checkpoint_files);
    line(out, "checkpoint_bytes", storage.checkpoint_bytes);
    line(out, "checkpoint_in_progress", u8::from(storage.in_progress));
    line(out, "checkpoints_made", storage.rounds);
    line(out, "checkpoints_failed", storage.failures);
    line(out, "last_checkpoint_error", last_failure);
    line(out, "last_checkpoint_time", storage.last_unix_s);
    line(out, "last_checkpoint_ms", storage.last_ms);
    line(out, "transfers_receiving", storage.receiving);
    line(out, "transfer_bytes_received", storage.received_bytes);
    line(out, "transfer_bytes_sent", storage.sent_bytes);
    line(out, "states_installed", storage.installed);
    line(out, "groups_not_whole", storage.recovering);
    line(out, "scrubs", storage.scrubs);
    line(out, "scrub_damaged_files", storage.scrub_damaged);
}
