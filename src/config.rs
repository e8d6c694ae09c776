//! Limits and times, each with its unit, and what an operator can set.

use crate::kv::StoreLimits;
use crate::versions::Versions;
use crate::workers::Workers;
use groups::{Ms, NodeId, Us};

/// Interval between pings to each peer.
pub const PING_MS: Ms = Ms(100);
/// Silence of a peer after which it counts as dead: other members may lead its groups.
pub const SILENT_MS_MAX: Ms = Ms(800);
/// Silence of a peer after which its connection is cut. The limit is longer than [`SILENT_MS_MAX`], so that a peer that
/// is briefly busy, for example with a large value, stays connected: after a cut everything in flight has to be sent
/// again.
pub const BROKEN_MS_MAX: Ms = Ms(3_000);
/// Minimum length of a stall. A stall is a pause of this node's own event loop, caused by the machine or a large
/// command. The silence of peers during a stall proves nothing.
pub const STALL_MS_MIN: Ms = Ms(200);
/// Maximum time that a peer may take to echo a ping and still count as reached.
pub const ECHO_MS_MAX: Ms = SILENT_MS_MAX;
/// Maximum turns of the event loop for which a batch for the log waits while more input keeps coming.
pub const BATCH_TURNS_MAX: u32 = 3;
/// Maximum time for which a batch waits, and maximum length of the last turn with which it waits at all.
pub const BATCH_WAIT_US_MAX: Us = Us(300);
/// Maximum bytes of a batch that waits. A larger one gains nothing.
pub const BATCH_WAIT_BYTES_MAX: usize = 64 << 10;
/// Maximum time for which the next proposals wait for a sync of this node's log, and the longest usual sync for which
/// they wait at all. The event loop may add a millisecond.
pub const BEAT_US_MAX: Us = Us(1_000);
/// Time limit of a sync. A leader whose disk exceeds it gives its groups up.
pub const SYNC_MS_MAX: Ms = Ms(1_000);
/// Bytes of a batch that add 1 ms to [`SYNC_MS_MAX`]: a large batch takes longer on any disk.
pub const SYNC_BYTES_PER_MS: usize = 16 << 10;
/// Time for which a disk counts as slow after its node last reported it late. A node reports that only while a sync is
/// overdue, not between late syncs, so this time has to cover several syncs.
pub const DISK_SLOW_MS: Ms = Ms(10_000);
/// Time since a peer last reported that its disk answers, after which the peer no longer counts as able to vote. A
/// leader without a majority of voters that can vote gives its groups up, because other nodes may reach such a
/// majority.
pub const DISKS_MS_MAX: Ms = Ms(3_000);
/// Time without a majority after which a node refuses its clients' commands at once. Elections and reconnects take
/// less.
pub const REACH_GRACE_MS: Ms = Ms(1_000);
/// Replaces [`REACH_GRACE_MS`] after a start, while the members find each other.
pub const REACH_START_MS: Ms = Ms(3_000);
/// Time that a member must have been healthy before groups go to it that it should lead.
pub const HEALTHY_MS_MIN: Ms = Ms(10_000);
/// Maximum number of groups handed over at a time, so that a restart does not cause a wave of elections.
pub const HANDOVERS_MAX: usize = 64;
/// Interval between searches for groups to hand over.
pub const HANDOVER_MS: Ms = Ms(500);
/// Minimum requests in [`HANDOVER_MS`] of a group that follows its clients. With fewer, chance decides who sends most.
pub const DEMAND_MIN: u64 = 20;
/// Minimum share of a group's requests in [`HANDOVER_MS`], in percent, of the member that becomes its home.
pub const DEMAND_PERCENT: u64 = 80;
/// Number of periods of [`HANDOVER_MS`] in a row after which such a member becomes the group's home.
pub const FOLLOW_PERIODS: u32 = 2;
/// Number of such periods in a row after which a home that sends too little is none any more. Also the number of periods
/// for which a leader keeps a group before it gives it back, and the first rest of a group that was handed to its home.
pub const HOME_PERIODS: u32 = 20;
/// Maximum rest of a group between two handovers to its home, in such periods: ten minutes.
pub const REST_PERIODS_MAX: u32 = 1_200;
/// Time for which a removed node must reach a majority before it stops, so that the others learn its values.
pub const REMOVED_MS: Ms = Ms(1_000);
/// Maximum time for which a leader proposes nothing while it hands a group over. Two round trips are added to it.
pub const HANDOVER_HOLD_MS: Ms = Ms(100);
/// Maximum number of group moves that clients may be waiting for, at each node.
pub const MOVES_MAX: usize = 1_024;
/// Duration of a lease grant: a node that is pinged by one that wants leases promises nothing to other nodes for this
/// time; see `node::peers::leases`.
pub const LEASE_MS: Ms = Ms(400);
/// Time for which a leader relies on a lease grant, counted from the sending of its ping: a tenth less than
/// [`LEASE_MS`], because clocks drift.
pub const LEASE_HELD_MS: Ms = Ms(LEASE_MS.0 * 9 / 10);
/// Time from the start of a leader transfer until the old leader asks for leases for the group again, if it still leads
/// it.
pub const LEASE_REST_MS: Ms = Ms(1_000);
/// Time, plus two round trips, after which an unanswered question is asked again.
pub const QUESTION_MS: Ms = Ms(100);
/// Time limit of a connection attempt, and of a handshake.
pub const HANDSHAKE_MS_MAX: Ms = Ms(2_000);
/// Time limit of a connection that closes once its output is written: it is cut off if nothing was written for this
/// time.
pub const LINGER_MS_MAX: Ms = Ms(5_000);

/// Maximum half round trip at which every ping gives a reading of its sender's clock. A slower ping is used only if
/// there is no reading of that clock yet, or if the last one is at least ten times this limit old.
pub const CLOCK_ERROR_MS_MAX: Ms = Ms(100);
/// Time for which a reading of a clock counts: an ordinary quartz drifts by less than 10 ms in it.
pub const CLOCK_READING_MS_MAX: Ms = Ms(60_000);
/// Time limit to decide, after this machine's clock jumped, whether the machine was frozen. The clocks of other members
/// decide it. After the limit, the node goes on with the cluster time that it had.
pub const CLOCK_JUMP_MS_MAX: Ms = Ms(5_000);
/// A node whose cluster time differs by more than this from that of a majority follows the majority at once.
pub const CLOCK_RESYNC_MS: Ms = Ms(250);
/// Once a majority's clocks are known, a node waits this long for the others before it makes a cluster time.
pub const CLOCK_WAIT_MS: Ms = Ms(1_000);
/// A clock that differs by more than this from cluster time is named in the log.
pub const CLOCK_WARN_MS: Ms = Ms(1_000);
/// Interval between comparisons of the clocks with cluster time.
pub const CLOCK_WATCH_MS: Ms = Ms(1_000);

/// The largest value of a key, unless configured otherwise.
pub const VALUE_BYTES_MAX: usize = 64 << 20;
/// The largest that `value_bytes_max` can be configured to.
pub const VALUE_BYTES_LIMIT: usize = 512 << 20;
/// Maximum bytes of commands in one value of the log. One larger command may be alone in a value.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// Bytes that a frame may hold beyond one value.
pub const FRAME_SLACK_BYTES: usize = 64 << 10;
/// Size above which a frame to a peer is closed. Its last message can be as large as a value.
pub const FRAME_BYTES: usize = 256 << 10;
/// Bytes of one fragment of a group's large message. A message of more than twice this size travels in fragments.
pub const FRAGMENT_BYTES: usize = 64 << 10;
/// Bytes of one part of a large command, which goes into the log in parts. A value of the log holds a few of them.
pub const UPLOAD_PART_BYTES: usize = 256 << 10;
/// Minimum number of parts: a shorter command goes into the log whole.
pub const UPLOAD_PARTS_MIN: usize = 4;
/// Maximum number of parts in flight at a time, for all large commands of this node's clients together.
pub const UPLOAD_PARTS_SENT: usize = 4;
/// Time after which a large command is tried again if its group had no room for it.
pub const UPLOAD_RETRY_MS: Ms = Ms(100);
/// Maximum size of a message between nodes that belongs to no group, and of a frame from a node that has not identified
/// itself.
pub const NODE_MESSAGE_BYTES_MAX: usize = 512 << 10;
/// Maximum fetch window of a group: bytes of values that a lagging node asks for at a time.
pub const WINDOW_BYTES: u32 = 1 << 20;
/// Maximum bytes of the fetch windows of all groups together, unless the minimum windows of the groups need more.
pub const WINDOWS_BYTES: u32 = 64 << 20;
/// Minimum fetch window of a group, in bytes.
pub const WINDOW_BYTES_MIN: u32 = 64 << 10;

/// Returns the fetch window of each group, in bytes.
#[must_use]
pub fn window_bytes(groups: u32) -> u32 {
    (WINDOWS_BYTES / groups.max(1)).clamp(WINDOW_BYTES_MIN, WINDOW_BYTES)
}
/// Maximum number of groups: a group owns at least one slot.
pub const GROUPS_MAX: u32 = crate::routing::SLOTS as u32;

/// Maximum number of commands that a node with a full disk has relayed to other members at a time. Also the maximum
/// number that a node executes for others at a time.
pub const RELAYS_MAX: usize = 16_384;
/// Maximum length of a relayed command, and of its reply, in bytes: longer ones would delay pings.
pub const RELAY_BYTES_MAX: usize = 256 << 10;
/// Extra time that the client's own node waits for a relayed command, in milliseconds, after the time limit of the node
/// that executes it. The executing node knows more about the outcome, so its answer should come first.
pub const RELAY_GRACE_MS: Ms = Ms(500);

/// Maximum number of outstanding replies of one client. Beyond it, the client's requests wait unread.
pub const REPLIES_MAX: usize = 4_096;
/// Bytes of replies that may wait for one client before its requests wait unread.
pub const CLIENT_OUTPUT_BYTES: usize = 1 << 20;
/// Bytes of replies that may wait for one client before an error replaces each further reply, except a small one.
/// Requests are admitted by the expected length of their replies, and another client can change that length before a
/// request runs.
pub const CLIENT_BURST_BYTES: usize = 64 << 20;
/// Maximum bytes of this node's commands that may wait in one group. Beyond it, requests that write to the group wait
/// unread.
pub const GROUP_QUEUE_BYTES: usize = 8 << 20;
/// Maximum bytes of this node's commands that may wait in all groups together, plus one request. Beyond it, the node
/// reads no requests of clients that have sent a write. Each command is held several times on its way: here, at the
/// leader, in frames, in the log.
pub const NODE_QUEUE_BYTES: usize = 32 << 20;
/// Bytes of pending input from which on a client counts as sending a large request, which has to wait while queues are
/// full.
pub const LARGE_INPUT_BYTES: usize = 256 << 10;
/// Bytes charged for each word of a request between MULTI and EXEC, in addition to the word's length. This is the
/// memory overhead of a queued word, and more than the overhead of a word in the single command that EXEC makes.
pub const QUEUED_WORD_BYTES: usize = 48;
/// Maximum bytes of values that may wait while the disk writes a batch. Beyond it, values from other members are
/// dropped like lost messages, and asked for again later.
pub const LOG_QUEUE_BYTES: usize = 128 << 20;
/// Maximum number of words of one request, and of all requests of one transaction: they are read, split and encoded in
/// one turn.
pub const ARGS_MAX: usize = 128 << 10;
/// Maximum bytes of all keys that one request or one transaction names: they are hashed in one turn.
pub const KEYS_BYTES_MAX: usize = 16 << 20;
/// Error reply to a command that may add data while the memory in use exceeds `maxmemory`.
pub const OUT_OF_MEMORY: &str = "OOM command not allowed when used memory > 'maxmemory'.";
/// Maximum number of words of a request that the node answers by itself.
pub const LOCAL_WORDS_MAX: usize = 1_024;
/// Maximum bytes of the words of such a request, except for PING and ECHO.
pub const LOCAL_BYTES_MAX: usize = 1 << 20;
/// Maximum bytes of the answers that the node itself gives in one transaction. After the answer that reaches it, each
/// further such command gets an error.
pub const LOCAL_REPLY_BYTES_MAX: usize = 1 << 20;
/// Maximum number of waiting reads of this node's clients. Beyond it, the node reads no requests of clients.
pub const READS_MAX: usize = 64 << 10;
/// Maximum number of steps (see [`groups::WorkBudget`]) that a turn spends on each of these: requests of clients,
/// values that come in the turn, values that earlier turns left, long reads. The rest waits for the next turn. A step
/// takes 0.1 to 0.5 µs.
pub const TURN_STEPS: u64 = 16 << 10;
/// Maximum number of instances of a group that a node may lack. Beyond it, the node answers `LOADING` in that group.
pub const BEHIND_INSTANCES_MAX: u64 = 10_000;

/// Maximum bytes of one group in a list of all groups: its index, a round, a node, and the index again if it is led
/// without a lease. Each byte holds up to 7 bits of a number.
const LISTED_BYTES_MAX: usize = 3 + 10 + 5 + 3;
const _: () = assert!(GROUPS_MAX as usize * LISTED_BYTES_MAX + 64 <= NODE_MESSAGE_BYTES_MAX, "claims fit a message");
const _: () = assert!(STALL_MS_MIN.0 < SILENT_MS_MAX.0, "a stalled node must not take the others for dead");
const _: () = assert!(SILENT_MS_MAX.0 >= 4 * PING_MS.0, "a few pings may be lost to a busy machine");
const _: () = assert!(LEASE_HELD_MS.0 >= 3 * PING_MS.0, "a lease outlasts the time until the next answer");
const _: () = assert!(LEASE_MS.0 < SILENT_MS_MAX.0, "leases do not make elections later than silence does");
const _: () = assert!(LEASE_REST_MS.0 > HANDOVER_MS.0, "a handover that is tried again and again is without a lease");
const _: () = assert!(CLOCK_RESYNC_MS.0 > 2 * CLOCK_ERROR_MS_MAX.0, "the errors of readings alone cause no resync");
const _: () = assert!(GROUP_QUEUE_BYTES <= NODE_QUEUE_BYTES, "one group does not stop all clients");
const _: () = assert!(FRAME_BYTES <= BATCH_BYTES_MAX, "a frame that closes late still has room for one batch");
const _: () = assert!(FRAGMENT_BYTES + FRAME_SLACK_BYTES <= NODE_MESSAGE_BYTES_MAX, "a fragment fits a message");
const _: () = assert!(VALUE_BYTES_LIMIT + BATCH_BYTES_MAX < u32::MAX as usize / 4, "lengths are 32 bits");

/// Bytes of one block of a state. A checkpoint reads a state block by block, each in well below 1 ms.
pub const CHECKPOINT_BLOCK_BYTES: usize = 64 << 10;
/// Base rate at which checkpoints read states, in bytes per millisecond.
pub const CHECKPOINT_BYTES_PER_MS: usize = 32 << 10;
/// Maximum factor by which a long log raises [`CHECKPOINT_BYTES_PER_MS`]. The factor is the log length divided by its
/// target, rounded down.
pub const CHECKPOINT_URGENCY_MAX: u64 = 2;
/// Maximum bytes in the token bucket of checkpoints: a turn takes at most two full blocks, or a larger number of
/// shorter blocks.
pub const CHECKPOINT_SAVED_BYTES: usize = CHECKPOINT_BLOCK_BYTES * 3 / 2;
/// Minimum and maximum cost charged per block, in bytes. The minimum covers finding and freezing its group. The maximum
/// caps a block with one long value, which is copied in one go if it is not divided into pieces: a longer pause
/// afterwards gains nothing.
pub const CHECKPOINT_BLOCK_COST_BYTES: (usize, usize) = (4 << 10, 2 * CHECKPOINT_BLOCK_BYTES);
/// Maximum bytes of blocks that wait to be written.
pub const CHECKPOINT_UNWRITTEN_BYTES: usize = 4 << 20;
/// Size at which a checkpoint file is closed, at the end of the current group. Smaller groups share a file.
pub const CHECKPOINT_FILE_BYTES: u64 = 64 << 20;
/// Minimum pause after a checkpoint round before the next one begins.
pub const CHECKPOINT_PAUSE_MS: Ms = Ms(1_000);
/// Minimum pause after a checkpoint round that failed.
pub const CHECKPOINT_RETRY_MS: Ms = Ms(10_000);

/// Bytes of one piece of a checkpoint that is transferred to another node.
pub const TRANSFER_PIECE_BYTES: usize = 256 << 10;
/// Maximum bytes of a transfer that were asked for and are not written yet.
pub const TRANSFER_WINDOW_BYTES: usize = 2 << 20;
/// Minimum and maximum bytes per millisecond that a node asks for, and that it sends to all nodes that ask. The load of
/// the event loop decides between them, because serving clients comes first.
pub const TRANSFER_BYTES_PER_MS: (usize, usize) = (12 << 10, 96 << 10);
/// Minimum and maximum bytes per millisecond of values that a node reads from its log for all lagging members together.
/// The minimum rises to 1.5 times the rate of logging, so that the members catch up.
pub const RANGE_BYTES_PER_MS: (usize, usize) = (12 << 10, 256 << 10);
/// Maximum bytes in the token bucket of ranges.
pub const RANGES_SAVED_BYTES: usize = 1 << 20;
/// Approximate time in which every waiting range is read once, in milliseconds.
pub const RANGE_ROUND_MS: usize = 250;
/// Minimum bytes of one such read.
pub const RANGE_BYTES_MIN: usize = 4 << 10;
/// Maximum number of instances of a range that is read immediately, without waiting for other ranges.
pub const RANGE_NEAR: u64 = 16;
/// Window over which the load of the event loop is measured, in microseconds.
pub const LOAD_WINDOW_US: Us = Us(100_000);
/// Maximum number of checkpoints that are received at a time.
pub const TRANSFERS_MAX: usize = 2;
/// Maximum number of pieces that may wait to be read, for all nodes that ask.
pub const TRANSFER_READS_MAX: usize = 128;
/// Silence after which the transfer of a checkpoint is given up. The received part is kept for another attempt.
pub const TRANSFER_SILENT_MS: Ms = Ms(5_000);
/// Time for which a checkpoint is kept, with the log behind it, after it was offered to another node or a piece was
/// asked for.
pub const TRANSFER_PIN_MS: Ms = Ms(20_000);
/// Time after which a bulk connection is tried again.
pub const TRANSFER_REDIAL_MS: Ms = Ms(200);
const _: () = assert!(CHECKPOINT_SAVED_BYTES < 2 * CHECKPOINT_BLOCK_BYTES, "two blocks leave nothing for a third");
const _: () =
    assert!(RELAY_BYTES_MAX + FRAME_SLACK_BYTES <= NODE_MESSAGE_BYTES_MAX, "a relayed command fits a message");
const _: () = assert!(TRANSFER_PIECE_BYTES + FRAME_SLACK_BYTES <= NODE_MESSAGE_BYTES_MAX, "a piece fits a message");

/// Bytes that a scrub reads in a second.
pub const SCRUB_BYTES_PER_S: u64 = 32 << 20;

/// Settings that decide when checkpoints are made, and so how long the log grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointConfig {
    /// Length of the log above which checkpoints are made, in bytes…
    pub log_bytes_min: u64,
    /// …if it is also longer than all checkpoints together, times this factor.
    pub log_factor: u32,
    /// Maximum interval between checkpoints if anything was written, in milliseconds.
    pub age_ms: Ms,
    /// Interval at which everything on the disk is read, in milliseconds.
    pub scrub_ms: Ms,
}

impl Default for CheckpointConfig {
    fn default() -> CheckpointConfig {
        CheckpointConfig { log_bytes_min: 512 << 20, log_factor: 2, age_ms: Ms(3_600_000), scrub_ms: Ms(86_400_000) }
    }
}

/// The method that makes reads linearizable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadMode {
    /// A majority confirms, for many reads at once, that the leader still leads.
    #[default]
    Quorum,
    /// A leader answers alone while a majority grants it a lease; needs clocks that drift by less than 10 % against
    /// each other.
    Lease,
    /// Each read is a command in the log.
    Log,
}

impl std::fmt::Display for ReadMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ReadMode::Quorum => "quorum",
            ReadMode::Lease => "lease",
            ReadMode::Log => "log",
        })
    }
}

/// The way in which the leaders of the groups are chosen while all members can lead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeaderMode {
    /// Each member leads an equal part of the groups.
    #[default]
    Even,
    /// A group is led by the member whose clients send it most of its requests, and otherwise by its preferred leader.
    Follow,
}

impl LeaderMode {
    /// Returns the way that this setting of a node stands for.
    #[must_use]
    pub fn of(demand_min: Option<u64>) -> LeaderMode {
        if demand_min.is_some() { LeaderMode::Follow } else { LeaderMode::Even }
    }

    /// Returns the setting of a node.
    #[must_use]
    pub fn demand_min(self) -> Option<u64> {
        (self == LeaderMode::Follow).then_some(DEMAND_MIN)
    }
}

impl std::fmt::Display for LeaderMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            LeaderMode::Follow => "follow",
            LeaderMode::Even => "even",
        })
    }
}

/// The settings of a node, given at its start.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// This node.
    pub id: NodeId,
    /// This worker among the workers of the node.
    pub workers: Workers,
    /// The initial members with their addresses; after birth it only corrects addresses.
    pub initial: Vec<(NodeId, String)>,
    /// The announced address: the address that clients are told for this node, if it differs from its address among the
    /// members.
    pub announced: Option<String>,
    /// Addresses of members to ask to join their cluster, instead of forming one; `initial` holds only this node then.
    pub join: Vec<String>,
    /// The number of groups of a cluster that is not born yet.
    pub groups: u32,
    /// The method that makes reads linearizable.
    pub reads: ReadMode,
    /// Groups follow their clients, if they have at least this many requests in [`HANDOVER_MS`]; `None`: they do not, and
    /// their preferred leaders lead them.
    pub demand_min: Option<u64>,
    /// Time limit of a command or read, after which its client gets an error.
    pub client_timeout_ms: Ms,
    /// Time without a request after which a client is closed; 0 for never. CONFIG SET `timeout` changes it.
    pub idle_ms_max: Ms,
    /// The time to live of sessions, of a cluster that is not born yet.
    pub session_ttl_ms: Ms,
    /// Maximum number of client connections.
    pub max_clients: u64,
    /// Memory that keys and values may take before this node refuses its clients' commands that may add to it, in
    /// bytes; 0 for no limit.
    pub memory_bytes_max: u64,
    /// The largest value of a key, in bytes.
    pub value_bytes_max: usize,
    /// The settings of checkpoints.
    pub checkpoints: CheckpointConfig,
    /// See [`TURN_STEPS`]; fewer for tests.
    pub turn_steps: u64,
    /// The versions of the peer protocol that the node speaks: all that the program speaks, or fewer for tests of
    /// upgrades.
    pub versions: Versions,
    /// See [`FRAGMENT_BYTES`]; fewer for tests.
    pub fragment_bytes: usize,
    /// See [`UPLOAD_PART_BYTES`]; fewer for tests.
    pub part_bytes: usize,
    /// The data directory.
    pub dir: String,
    /// The configuration file, as CONFIG and INFO show it.
    pub config_file: String,
    /// The address that the node listens on.
    pub listen: std::net::SocketAddr,
    /// Random id of a cluster that this node forms.
    pub cluster_id: [u8; 16],
    /// Random hash key of a cluster that this node forms.
    pub hash_key: [u8; 16],
    /// Random number of each start. It seeds delays and draws. It also distinguishes this process from another one that
    /// runs on a copy of the same directory and so has the same start number.
    pub seed: u64,
}

impl NodeConfig {
    /// Returns the maximum payload of a frame from a peer, in bytes.
    #[must_use]
    pub fn frame_bytes_max(&self) -> usize {
        // The sum covers the largest legal command (a value, its key, and the framing around them) and a whole batch.
        self.request_bytes_max() + BATCH_BYTES_MAX + FRAME_SLACK_BYTES
    }

    /// Returns the approximate maximum of a reply to a client, in bytes.
    #[must_use]
    pub fn reply_bytes_max(&self) -> usize {
        StoreLimits { value_bytes_max: self.value_bytes_max, ..StoreLimits::default() }.reply_bytes_max()
    }

    /// Returns the maximum length of a client's request, in bytes: one value with its key and options. All requests of
    /// a transaction together count as one request.
    #[must_use]
    pub fn request_bytes_max(&self) -> usize {
        2 * self.value_bytes_max + FRAME_SLACK_BYTES
    }
}

#[cfg(test)]
impl NodeConfig {
    /// Returns the settings of a test node, whose clients have 5 s for a command and 8 MiB for a value.
    pub(crate) fn for_test(id: NodeId) -> NodeConfig {
        NodeConfig {
            checkpoints: CheckpointConfig::default(),
            turn_steps: TURN_STEPS,
            id,
            workers: Workers::ONE,
            initial: Vec::new(),
            announced: None,
            join: Vec::new(),
            groups: 1,
            reads: ReadMode::Quorum,
            demand_min: None,
            client_timeout_ms: Ms(5_000),
            idle_ms_max: Ms(0),
            session_ttl_ms: Ms(60_000),
            max_clients: 20,
            memory_bytes_max: 0,
            versions: Versions::OURS,
            fragment_bytes: FRAGMENT_BYTES,
            part_bytes: UPLOAD_PART_BYTES,
            value_bytes_max: 8 << 20,
            dir: String::new(),
            config_file: String::new(),
            listen: std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
            cluster_id: [9; 16],
            hash_key: [7; 16],
            seed: u64::from(id.0),
        }
    }
}
