//! Limits and times, each with its unit, and what an operator can set.

use crate::kv::Limits;
use crate::versions::Versions;
use groups::NodeId;

/// A ping leaves for every peer so often.
pub const PING_MS: u64 = 100;
/// Silence of a peer after which it counts as dead: other members may lead its groups.
pub const SILENT_MS_MAX: u64 = 800;
/// Silence of a peer after which its connection is cut. A busy peer, with a large value for example, may be silent for less;
/// a cut would mean to send everything in flight again.
pub const BROKEN_MS_MAX: u64 = 3_000;
/// A node that did nothing for so long, because the machine or a large command kept it, cannot tell who was silent.
pub const STALL_MS_MIN: u64 = 200;
/// The longest that a peer may take to echo a ping and still count as reached.
pub const ECHO_MS_MAX: u64 = SILENT_MS_MAX;
/// A leader whose disk has not finished a sync for so long gives its groups up…
pub const SYNC_MS_MAX: u64 = 1_000;
/// …and for a millisecond more for so many bytes: a large batch takes its time on any disk.
pub const SYNC_BYTES_PER_MS: usize = 16 << 10;
/// A disk counts as slow for this long after it was late with a sync. A node says that its disk is late only while a sync is
/// overdue, so the time has to cover several syncs.
pub const DISK_SLOW_MS: u64 = 10_000;
/// A leader that has reached no majority of disks that answer for so long gives its groups up: others may reach one.
pub const DISKS_MS_MAX: u64 = 3_000;
/// Time without a majority after which a node refuses its clients' commands at once. Elections and reconnects take less.
pub const REACH_GRACE_MS: u64 = 1_000;
/// The same after a start, while the members find each other.
pub const REACH_START_MS: u64 = 3_000;
/// A group goes back to its preferred member once that has been healthy for so long.
pub const HEALTHY_MS_MIN: u64 = 10_000;
/// Groups that are handed back at a time, so that a restart costs no wave of elections.
pub const HANDOVERS_MAX: usize = 64;
/// Handovers are looked for so often.
pub const HANDOVER_MS: u64 = 500;
/// A node that was removed goes on for so long, so that others learn what it knows.
pub const REMOVED_MS: u64 = 1_000;
/// A leader that hands a group over proposes nothing for so long at most, and two round trips.
pub const HANDOVER_HOLD_MS: u64 = 100;
/// Groups that clients may be waiting for to be moved, at each node.
pub const MOVES_MAX: usize = 1_024;
/// A node that was pinged by one that wants leases promises nothing to others for so long; see `node::leases`.
pub const LEASE_MS: u64 = 400;
/// And that one relies on it for so long after it sent the ping: a tenth less, for clocks that drift.
pub const LEASE_HELD_MS: u64 = LEASE_MS * 9 / 10;
/// A group that another member did not take over gets leases again after so long.
pub const LEASE_REST_MS: u64 = 1_000;
/// A question without an answer for so long, and two round trips, is asked again.
pub const QUESTION_MS: u64 = 100;
/// A connection attempt, or a handshake, that takes longer is given up.
pub const HANDSHAKE_MS_MAX: u64 = 2_000;
/// A client that has been told to go is cut off when it has read nothing of what it is owed for so long.
pub const LINGER_MS_MAX: u64 = 5_000;

/// Half a round trip beyond which a ping tells too little of its sender's clock, as long as there is a better reading that
/// is not ten times as old.
pub const CLOCK_ERROR_MS_MAX: u64 = 100;
/// A reading of a clock counts for this long: a good quartz drifts by 10 ms meanwhile.
pub const CLOCK_READING_MS_MAX: u64 = 60_000;
/// Whether a machine was frozen when its own clock jumped is told by another's clock in this time, or not at all.
pub const CLOCK_JUMP_MS_MAX: u64 = 5_000;
/// A node whose cluster time differs by more than this from that of a majority follows the majority at once.
pub const CLOCK_RESYNC_MS: u64 = 250;
/// Once a majority's clocks are known, a node waits this long for the others before it makes a cluster time.
pub const CLOCK_WAIT_MS: u64 = 1_000;
/// The same before the first value of a cluster, if the clocks that are known differ by more than [`CLOCK_WARN_MS`].
pub const CLOCK_FIRST_WAIT_MS: u64 = 5_000;
/// A clock that differs by more than this from cluster time is named in the log.
pub const CLOCK_WARN_MS: u64 = 1_000;
/// Interval between looks at that.
pub const CLOCK_WATCH_MS: u64 = 1_000;

/// The largest value of a key, unless configured otherwise.
pub const VALUE_BYTES_MAX: usize = 64 << 20;
/// The largest that `value_bytes_max` can be configured to.
pub const VALUE_BYTES_LIMIT: usize = 512 << 20;
/// A value of the log holds at most so many bytes of commands, or one larger command.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// What a frame may hold beyond one value.
pub const FRAME_SLACK_BYTES: usize = 64 << 10;
/// A frame to a peer is closed when it has grown beyond this; one more message can be as large as a value.
pub const FRAME_BYTES: usize = 256 << 10;
/// Bytes of one fragment of a large message of a group; messages with more than twice as many travel in fragments.
pub const FRAGMENT_BYTES: usize = 64 << 10;
/// Bytes of one part of a large command, which goes into the log in parts. A value of the log holds a few of them.
pub const UPLOAD_PART_BYTES: usize = 256 << 10;
/// Minimum number of parts: a shorter command goes into the log whole.
pub const UPLOAD_PARTS_MIN: usize = 4;
/// Parts, of all large commands of this node's clients, that are on their way at a time.
pub const UPLOAD_PARTS_SENT: usize = 4;
/// A large command for which its group has no room is tried again after so long.
pub const UPLOAD_RETRY_MS: u64 = 100;
/// The largest message between nodes that belongs to no group; and the largest frame of one that has not said who it is.
pub const NODE_MESSAGE_BYTES_MAX: usize = 512 << 10;
/// Bytes of values that a node which is behind asks for at a time.
pub const WINDOW_BYTES: u32 = 1 << 20;
/// The same for all groups together, as far as a least window for each allows.
pub const WINDOWS_BYTES: u32 = 64 << 20;
/// The least window of a group.
pub const WINDOW_BYTES_MIN: u32 = 64 << 10;

/// The window of each of so many groups.
#[must_use]
pub fn window_bytes(groups: u32) -> u32 {
    (WINDOWS_BYTES / groups.max(1)).clamp(WINDOW_BYTES_MIN, WINDOW_BYTES)
}
/// The smallest and largest number of groups: a group owns at least one slot.
pub const GROUPS_MAX: u32 = crate::routing::SLOTS as u32;

/// Commands that a node whose disk is full may have other members carry out at a time, and those that a node carries out for
/// others.
pub const RELAYS_MAX: usize = 16_384;
/// The longest command, and the longest reply, that is passed on between nodes, in bytes: longer ones would delay pings.
pub const RELAY_BYTES_MAX: usize = 256 << 10;
/// How much longer than the node that carries a command out the client's own node waits, in milliseconds: that one
/// knows more.
pub const RELAY_GRACE_MS: u64 = 500;

/// Replies that one client may have outstanding; beyond, its requests wait unread.
pub const REPLIES_MAX: usize = 4_096;
/// Bytes of replies that may wait for one client before its requests wait unread.
pub const CLIENT_OUTPUT_BYTES: usize = 1 << 20;
/// The most bytes of replies that may wait for one client, and one reply more: the room that its requests leave is counted
/// by what they are expected to answer, which another client can change meanwhile.
pub const CLIENT_BURST_BYTES: usize = 64 << 20;
/// Bytes of this node's commands that may wait in one group; beyond, clients that use the group wait unread.
pub const GROUP_QUEUE_BYTES: usize = 8 << 20;
/// Bytes of this node's commands that may wait in all groups together, and one request more; beyond, clients that write
/// wait unread. Each is held several times on its way: here, at the leader, in frames, in the log.
pub const NODE_QUEUE_BYTES: usize = 32 << 20;
/// A client that has sent more than this without a pause is in the midst of a request that is worth waiting with.
pub const LARGE_INPUT_BYTES: usize = 256 << 10;
/// What each word of a request between MULTI and EXEC counts for beside its bytes: the memory that it takes while it
/// waits, and more than it takes as a part of the transaction's one command.
pub const QUEUED_WORD_BYTES: usize = 48;
/// Bytes of values that may wait while the disk takes a batch; beyond, values from other members are dropped like lost
/// messages, and asked for again later.
pub const LOG_QUEUE_BYTES: usize = 128 << 20;
/// The most words of one request, and of all requests of one transaction: reading, splitting and encoding them is done in
/// one turn.
pub const ARGS_MAX: usize = 128 << 10;
/// The most bytes of all keys that one request names, and one transaction: they are hashed in one turn.
pub const KEYS_BYTES_MAX: usize = 16 << 20;
/// The refusal of what may add to the memory in use when there is too much already.
pub const OUT_OF_MEMORY: &str = "OOM command not allowed when used memory > 'maxmemory'.";
/// The most words of a request that the node answers by itself.
pub const LOCAL_WORDS_MAX: usize = 1_024;
/// The most bytes of its words, but for PING and ECHO.
pub const LOCAL_BYTES_MAX: usize = 1 << 20;
/// Bytes of what the node itself answers in one transaction; the answer that exceeds it is the last.
pub const LOCAL_REPLY_BYTES_MAX: usize = 1 << 20;
/// Reads of this node's clients that may wait; beyond, clients wait unread.
pub const READS_MAX: usize = 64 << 10;
/// The steps (see [`groups::Work`]) that a turn spends on each of: requests of clients, values that come in the turn, values
/// that earlier turns left, long reads. What is left waits for the next turn. A step takes 0.1 to 0.5 µs.
pub const TURN_STEPS: u64 = 16 << 10;
/// A node that lacks more instances of a group than this answers `LOADING` there.
pub const BEHIND_INSTANCES_MAX: u64 = 10_000;

/// What one group takes in a list of all groups: its index, a round, a node, and its index again if it is led without a
/// lease; as numbers of up to 7 bits a byte.
const LISTED_BYTES_MAX: usize = 3 + 10 + 5 + 3;
const _: () = assert!(GROUPS_MAX as usize * LISTED_BYTES_MAX + 64 <= NODE_MESSAGE_BYTES_MAX, "claims fit a message");
const _: () = assert!(STALL_MS_MIN < SILENT_MS_MAX, "a stalled node must not take the others for dead");
const _: () = assert!(SILENT_MS_MAX >= 4 * PING_MS, "a few pings may be lost to a busy machine");
const _: () = assert!(LEASE_HELD_MS >= 3 * PING_MS, "a lease outlasts the time until the next answer");
const _: () = assert!(LEASE_MS < SILENT_MS_MAX, "leases do not make elections later than silence does");
const _: () = assert!(LEASE_REST_MS > HANDOVER_MS, "a handover that is tried again and again is without a lease");
const _: () = assert!(CLOCK_RESYNC_MS > 2 * CLOCK_ERROR_MS_MAX, "a reading's error is no difference");
const _: () = assert!(GROUP_QUEUE_BYTES <= NODE_QUEUE_BYTES, "one group does not stop all clients");
const _: () = assert!(FRAME_BYTES <= BATCH_BYTES_MAX, "a frame that closes late still has room for one batch");
const _: () = assert!(FRAGMENT_BYTES + FRAME_SLACK_BYTES <= NODE_MESSAGE_BYTES_MAX, "a fragment fits a message");
const _: () = assert!(VALUE_BYTES_LIMIT + BATCH_BYTES_MAX < u32::MAX as usize / 4, "lengths are 32 bits");

/// A state is taken out in blocks of so many bytes: each takes well below a millisecond.
pub const CHECKPOINT_BLOCK_BYTES: usize = 64 << 10;
/// And so many bytes for each millisecond that passes…
pub const CHECKPOINT_BYTES_PER_MS: usize = 32 << 10;
/// …up to so many times that while the log is as many times as long as it should be.
pub const CHECKPOINT_URGENCY_MAX: u64 = 2;
/// So much of that is saved up: a turn takes two full blocks at most, or more that are shorter.
pub const CHECKPOINT_SAVED_BYTES: usize = CHECKPOINT_BLOCK_BYTES * 3 / 2;
/// What a block counts at least, as its group was found and frozen, too; and at most, as one with a long value is copied at
/// one go, and nothing is gained by a pause that is as long as it.
pub const CHECKPOINT_BLOCK_COST_BYTES: (usize, usize) = (4 << 10, 2 * CHECKPOINT_BLOCK_BYTES);
/// Blocks that may wait to be written, in bytes.
pub const CHECKPOINT_UNWRITTEN_BYTES: usize = 4 << 20;
/// A checkpoint file is closed at the end of the group with which it reaches so many bytes: what is below shares one.
pub const CHECKPOINT_FILE_BYTES: u64 = 64 << 20;
/// No round of checkpoints begins so soon after the last one.
pub const CHECKPOINT_PAUSE_MS: u64 = 1_000;
/// Nor so soon after one that failed.
pub const CHECKPOINT_RETRY_MS: u64 = 10_000;

/// Pieces of a checkpoint on its way to another node.
pub const TRANSFER_PIECE_BYTES: usize = 256 << 10;
/// Bytes of pieces that were asked for and are not written yet.
pub const TRANSFER_WINDOW_BYTES: usize = 2 << 20;
/// The least and the most bytes that a node asks for, and that it sends to all who ask, in each millisecond: between them
/// it depends on how busy the loop is, since what serves clients comes first.
pub const TRANSFER_BYTES_PER_MS: (usize, usize) = (12 << 10, 96 << 10);
/// The same for values from the log, for all members that are behind; the least is never below half as much again as is
/// logged, lest they never catch up.
pub const RANGE_BYTES_PER_MS: (usize, usize) = (12 << 10, 256 << 10);
/// What may be saved up of that, in bytes.
pub const RANGES_SAVED_BYTES: usize = 1 << 20;
/// All who wait for values have a turn in about so many milliseconds…
pub const RANGE_ROUND_MS: usize = 250;
/// …with no less than so many bytes each.
pub const RANGE_BYTES_MIN: usize = 4 << 10;
/// So few instances are read at once.
pub const RANGE_NEAR: u64 = 16;
/// How busy the loop is is looked at over so long, in microseconds.
pub const LOAD_WINDOW_US: u64 = 100_000;
/// Checkpoints that are received at a time.
pub const TRANSFERS_MAX: usize = 2;
/// Pieces that may wait to be read, for all who ask.
pub const TRANSFER_READS_MAX: usize = 128;
/// A checkpoint of which nothing comes for so long is given up; what is there of it is kept for another attempt.
pub const TRANSFER_SILENT_MS: u64 = 5_000;
/// A checkpoint is kept, with the log behind it, for so long after another node asked for a piece of it.
pub const TRANSFER_PIN_MS: u64 = 20_000;
/// A connection for transfers is tried again after so long.
pub const TRANSFER_REDIAL_MS: u64 = 200;
const _: () = assert!(CHECKPOINT_SAVED_BYTES < 2 * CHECKPOINT_BLOCK_BYTES, "two blocks leave nothing for a third");
const _: () =
    assert!(RELAY_BYTES_MAX + FRAME_SLACK_BYTES <= NODE_MESSAGE_BYTES_MAX, "what is passed on fits a message");
const _: () = assert!(TRANSFER_PIECE_BYTES + FRAME_SLACK_BYTES <= NODE_MESSAGE_BYTES_MAX, "a piece fits a message");

/// A scrub reads so many bytes in a second.
pub const SCRUB_BYTES_PER_S: u64 = 32 << 20;

/// When checkpoints are made, and with it how long the log grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointConfig {
    /// The log is cut when it is longer than this, in bytes…
    pub log_bytes_min: u64,
    /// …and than so many times all checkpoints.
    pub log_factor: u32,
    /// And at least so often, if anything was written, in milliseconds.
    pub age_ms: u64,
    /// Everything on the disk is read so often, in milliseconds.
    pub scrub_ms: u64,
}

impl Default for CheckpointConfig {
    fn default() -> CheckpointConfig {
        CheckpointConfig { log_bytes_min: 512 << 20, log_factor: 2, age_ms: 3_600_000, scrub_ms: 86_400_000 }
    }
}

/// How reads are made linearizable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reads {
    /// A majority confirms, for many reads at once, that the leader still leads.
    #[default]
    Quorum,
    /// A leader answers by itself while a majority has promised to elect no other; needs clocks that drift by less than
    /// 10 % against each other.
    Lease,
    /// Each read is a command in the log.
    Log,
}

impl std::fmt::Display for Reads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Reads::Quorum => "quorum",
            Reads::Lease => "lease",
            Reads::Log => "log",
        })
    }
}

/// What a node is told at its start.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// This node.
    pub id: NodeId,
    /// The initial members with their addresses; after birth it only corrects addresses.
    pub initial: Vec<(NodeId, String)>,
    /// Where clients are told that this node is, if that is not its address among the members.
    pub announced: Option<String>,
    /// Where to ask to join a cluster, instead of forming one; `initial` holds only this node then.
    pub join: Vec<String>,
    /// The number of groups of a cluster that is not born yet.
    pub groups: u32,
    /// How reads are made linearizable.
    pub reads: Reads,
    /// A command or read that is not answered after so long gets an error.
    pub client_timeout_ms: u64,
    /// A client that asks nothing for this long is closed; 0: never. CONFIG SET `timeout`.
    pub idle_ms_max: u64,
    /// The time to live of sessions, of a cluster that is not born yet.
    pub session_ttl_ms: u64,
    /// Connections of clients.
    pub max_clients: u64,
    /// What keys and values may take of this node's memory before its clients' commands that add to it are refused, in
    /// bytes; 0: whatever there is.
    pub memory_bytes_max: u64,
    /// The largest value of a key, in bytes.
    pub value_bytes_max: usize,
    /// When checkpoints are made.
    pub checkpoints: CheckpointConfig,
    /// See [`TURN_STEPS`]; fewer for tests.
    pub turn_steps: u64,
    /// The versions of the peer protocol that it speaks: all that the program does, or fewer for tests of upgrades.
    pub versions: Versions,
    /// See [`FRAGMENT_BYTES`]; fewer for tests.
    pub fragment_bytes: usize,
    /// See [`UPLOAD_PART_BYTES`]; fewer for tests.
    pub part_bytes: usize,
    /// The data directory, for those who ask.
    pub dir: String,
    /// The configuration file, for those who ask.
    pub config_file: String,
    /// The address that it listens on.
    pub listen: std::net::SocketAddr,
    /// Random: the id and the hash key of a cluster that this node forms.
    pub cluster_id: [u8; 16],
    /// See `cluster_id`.
    pub hash_key: [u8; 16],
    /// Random for each start: seeds delays and draws, and tells this process from another one that, with a copy of the
    /// same directory, has the same start number.
    pub seed: u64,
}

impl NodeConfig {
    /// The largest payload of a frame from a peer, in bytes.
    #[must_use]
    pub fn frame_bytes_max(&self) -> usize {
        // The largest legal command: a value, its key, and the framing around them; or a whole batch.
        self.request_bytes_max() + BATCH_BYTES_MAX + FRAME_SLACK_BYTES
    }

    /// The largest reply to a client, in bytes, roughly.
    #[must_use]
    pub fn reply_bytes_max(&self) -> usize {
        Limits { value_bytes_max: self.value_bytes_max, ..Limits::default() }.reply_bytes_max()
    }

    /// The largest request of a client, in bytes: one value with its key and options. A transaction is one, too.
    #[must_use]
    pub fn request_bytes_max(&self) -> usize {
        2 * self.value_bytes_max + FRAME_SLACK_BYTES
    }
}

#[cfg(test)]
impl NodeConfig {
    /// A node of a test, whose clients have 5 s for a command and 8 MiB for a value.
    pub(crate) fn for_test(id: NodeId) -> NodeConfig {
        NodeConfig {
            checkpoints: CheckpointConfig::default(),
            turn_steps: TURN_STEPS,
            id,
            initial: Vec::new(),
            announced: None,
            join: Vec::new(),
            groups: 1,
            reads: Reads::Quorum,
            client_timeout_ms: 5_000,
            idle_ms_max: 0,
            session_ttl_ms: 60_000,
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
