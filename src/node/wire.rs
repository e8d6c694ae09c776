//! Messages between nodes beyond those of the groups: identity, liveness, claims of leadership, and the leadership
//! queries that confirm reads. In a frame they have the group index [`NODE`].
//!
//! Kinds never change meaning; new ones are appended. Bodies are encoded with postcard. A body may grow at its end.
//! Older programs then read only the beginning. If the added part is missing, newer programs read the body as that of
//! an older version.

use crate::identity::BirthRecord;
use crate::storage::checkpoint::CheckpointSequence;
use crate::versions::Versions;
use crate::workers::{WorkerId, Workers};
use bytes::{Bytes, BytesMut};
use groups::membership::MemberInfo;
use groups::{Ballot, GroupId, Instance, LeadershipAnswer, Ms, NodeId, Us};
use serde::{Deserialize, Serialize};

/// The group index of messages that belong to no group.
pub const NODE: u32 = u32::MAX;

/// The first message on every connection, from both sides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The cluster's id once it is born.
    pub cluster: Option<[u8; 16]>,
    /// The sender.
    pub node: NodeId,
    /// The random id of the sender's data directory.
    pub storage: [u8; 16],
    /// The sender's start number: how often its data directory has been opened.
    pub start: u64,
    /// A random number for each of the sender's latest starts, this one last. A copy of its data directory can come to
    /// the same start number, but not to the same random numbers.
    pub incarnations: Vec<u64>,
    /// The number of groups over which the slots are divided.
    pub groups: u32,
    /// Before birth: the initial members, so that different lists are noticed.
    pub members: Vec<NodeId>,
    /// The address of a node that wants to join a cluster.
    pub joins: Option<String>,
    /// The versions that the sender speaks. They follow the other fields. A sender that speaks only the first version
    /// omits them.
    #[serde(skip)]
    pub versions: Versions,
    /// The node that the sender dialled: an address can have become another member's.
    ///
    /// This field and the next ones follow the versions. Older programs omit them.
    #[serde(skip)]
    pub to: Option<NodeId>,
    /// The sender's address for clients, if that is not its address among the members.
    #[serde(skip)]
    pub announced: Option<String>,
    /// The address where other members reach the sender, as far as it knows. A receiver that has not learned yet that
    /// the sender is a member can dial no other address.
    #[serde(skip)]
    pub address: Option<String>,
    /// The worker of the sender that says hello, and the number of its workers. The receiver's worker with the same
    /// number takes the connection. A sender with one worker omits them.
    #[serde(skip)]
    pub workers: Workers,
}

impl Hello {
    fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        let mut body = postcard::to_allocvec(self)?;
        if self.versions != Versions::FIRST {
            body = postcard::to_extend(&self.versions, body)?;
            body = postcard::to_extend(&(self.to, &self.announced), body)?;
            body = postcard::to_extend(&self.address, body)?;
            if self.workers != Workers::ONE {
                body = postcard::to_extend(&(self.workers.me().0, self.workers.count()), body)?;
            }
        }
        Ok(body)
    }

    fn decode(body: &[u8]) -> Result<Hello, postcard::Error> {
        let (hello, rest) = postcard::take_from_bytes::<Hello>(body)?;
        if rest.is_empty() {
            return Ok(hello);
        }
        let (versions, rest) = postcard::take_from_bytes::<Versions>(rest)?;
        if rest.is_empty() {
            return Ok(Hello { versions, ..hello });
        }
        let ((to, announced), rest) = postcard::take_from_bytes(rest)?;
        let (address, rest) = if rest.is_empty() { (None, rest) } else { postcard::take_from_bytes(rest)? };
        let (worker, count) = if rest.is_empty() { (0, 1) } else { postcard::from_bytes(rest)? };
        let workers = Workers::checked(WorkerId(worker), count).ok_or(postcard::Error::SerdeDeCustom)?;
        Ok(Hello { versions, to, announced, address, workers, ..hello })
    }

    /// Returns the random number of this start.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.incarnations.last().copied().unwrap_or(0)
    }

    /// Returns true if the sender's data directory, or the directory from which it was copied, can have had the random
    /// number `incarnation` at start number `start`.
    #[must_use]
    pub fn descends_from(&self, start: u64, incarnation: u64) -> bool {
        let since = self.start.saturating_sub(start);
        let newest_first = usize::try_from(since).ok().and_then(|since| self.incarnations.iter().rev().nth(since));
        newest_first.is_none_or(|known| *known == incarnation)
    }
}

/// The reason why the sender closes the connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// True if the receiver can never join as it is, and should stop.
    pub fatal: bool,
    /// One line for the operator.
    pub text: String,
}

/// Sent to every peer every [`PING_MS`](crate::config::PING_MS).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// The sender's start number.
    pub start: u64,
    /// The number of the ping. Numbers ascend, also over connections and over starts of the sender.
    pub number: u64,
    /// The highest number received from the other side.
    pub echo: u64,
    /// Time for which the sender has had the echoed number, in microseconds. The rest of the round trip is the
    /// network's.
    pub held_us: Us,
    /// The nodes that the sender reaches: they have echoed a recent ping of the sender.
    pub reached: Vec<NodeId>,
    /// Whether the sender's disk answers in time and has space.
    pub disk: bool,
    /// Whether the sender's disk has no space for another segment of the log.
    pub full: bool,
    /// The version of the sender's list of groups that it leads.
    pub claims: u64,
    /// The version of the receiver's list that the sender has.
    pub claims_seen: u64,
    /// Whether the sender wants leases for the groups that it leads.
    pub lease: bool,
    /// The lease that the sender grants: it promises nothing to others in the groups of the receiver's list of version
    /// `claims_seen`, except for these groups. See `node::peers::leases`.
    pub lease_grant: Option<Vec<GroupId>>,
    /// Whether the sender is drained: it should lead no group.
    pub draining: bool,
    /// The sender's clocks. They follow the other fields; versions below 3 omit them.
    #[serde(skip)]
    pub clocks: Option<PingClocks>,
}

/// The sender's clocks when it made a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PingClocks {
    /// The sender's own clock, in unix microseconds.
    pub unix_us: Us,
    /// The sender's cluster time, in unix microseconds, if it comes from a majority; see `node::cluster_time`.
    pub cluster_us: Option<Us>,
}

impl Ping {
    fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        let body = postcard::to_allocvec(self)?;
        match &self.clocks {
            Some(clocks) => postcard::to_extend(clocks, body),
            None => Ok(body),
        }
    }

    fn decode(body: &[u8]) -> Result<Ping, postcard::Error> {
        let (ping, rest) = postcard::take_from_bytes::<Ping>(body)?;
        let clocks = if rest.is_empty() { None } else { Some(postcard::from_bytes(rest)?) };
        Ok(Ping { clocks, ..ping })
    }
}

/// The groups that the sender leads. Sent at once when they change, and again to a peer whose pings name an older
/// version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The version of the list. It grows with each change.
    pub version: u64,
    /// Each group with the ballot that leads it.
    pub led: Vec<(GroupId, Ballot)>,
    /// The led groups for which no lease is wanted, in order.
    pub unleased: Vec<GroupId>,
}

/// The sender's positions in its groups, so that a lagging receiver can ask for values. Sent on a new connection, and
/// in answer to [`NodeMessage::PositionQuery`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Positions {
    /// `next` of each group in which something was chosen.
    pub next: Vec<(GroupId, Instance)>,
}

/// Asks whether these ballots still lead. Covers the reads that arrived before the query was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeadershipQuery {
    /// The number of the query, which the answer repeats.
    pub number: u64,
    /// Each group with the ballot that the sender takes to lead it. The sender has promised nothing above that ballot.
    pub items: Vec<(GroupId, Ballot)>,
}

/// The answer to a [`LeadershipQuery`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeadershipAnswers {
    /// The number of the query.
    pub number: u64,
    /// Cluster time at the sender, in unix milliseconds; 0 if it is not known there. The leader's time decides which
    /// keys are due.
    pub unix_ms: Ms,
    /// The answers in the order of the query, each with the version of the membership for which it holds.
    pub items: Vec<(GroupId, u64, LeadershipAnswer)>,
    /// The groups that the sender leads under a lease, in the same order. No other member need be asked about them.
    pub leased: Vec<GroupId>,
}

/// A checkpoint file of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileId {
    /// The sequence number of the file at its node.
    pub sequence: CheckpointSequence,
    /// Length of the file.
    pub bytes: u64,
    /// Checksum of the length and of the digests and instances of the sections. It tells files with the same sequence
    /// number apart: numbers may be used again after a loss.
    pub stamp: u32,
}

/// Offers a checkpoint in answer to a request for values that the sender's log no longer has. The checkpoint has their
/// effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The group.
    pub group: GroupId,
    /// The last instance that the checkpoint includes.
    pub instance: Instance,
    /// The file with the checkpoint. It may hold other groups too.
    pub file: FileId,
}

/// Asks for a chunk of a checkpoint, on a connection for transfers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkRequest {
    /// The file.
    pub file: FileId,
    /// Offset of the chunk in the file.
    pub offset: u64,
    /// Length of the chunk, in bytes.
    pub bytes: u32,
}

/// A chunk of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// The file.
    pub file: FileId,
    /// Offset of the chunk in the file.
    pub offset: u64,
    /// The chunk; empty if the file is gone, or if too many chunks wait to be read.
    pub bytes: Bytes,
}

/// Tells a node that has waited to join that it is a member now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// The birth record of the cluster.
    pub birth: BirthRecord,
    /// The present members, including the receiver.
    pub members: Vec<MemberInfo>,
}

/// Asks the leader of a group to let another member lead it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderMove {
    /// The number of the request, which the answer repeats.
    pub number: u64,
    /// The group.
    pub group: GroupId,
    /// The member that should lead the group.
    pub to: NodeId,
    /// Time limit of the move, in milliseconds.
    pub timeout_ms: Ms,
}

/// The answer to a [`LeaderMove`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderMoveReply {
    /// The number of the request.
    pub number: u64,
    /// The reason why the move was not done, in one line.
    pub refusal: Option<String>,
}

/// Tells which groups the sender has rebuilt. Sent while it loads: after its hello, and whenever it has rebuilt groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupsReady {
    /// The groups that the sender has rebuilt now. Earlier messages to them were lost.
    pub groups: Vec<GroupId>,
    /// The groups that the sender still lacks, ascending. In these it neither votes nor answers.
    pub missing: Vec<GroupId>,
}

/// A command of one of the sender's clients, for the receiver to carry out as if it were one of its own clients'.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relay {
    /// The number of the command, which the reply repeats.
    pub number: u64,
    /// The group of the command.
    pub group: GroupId,
    /// How long the client waits, in milliseconds.
    pub timeout_ms: Ms,
    /// The command, encoded as in the log.
    pub body: Bytes,
}

/// The reply to a [`Relay`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relayed {
    /// The number of the command.
    pub number: u64,
    /// The reply, in the stored reply codec.
    pub reply: Bytes,
}

/// A message of the kinds above.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant is the struct of its name")]
pub enum NodeMessage {
    Hello(Hello),
    Refusal(Refusal),
    Ping(Ping),
    Claims(Claims),
    Positions(Positions),
    LeadershipQuery(LeadershipQuery),
    LeadershipAnswers(LeadershipAnswers),
    Birth(BirthRecord),
    Offer(Offer),
    ChunkRequest(ChunkRequest),
    Chunk(Chunk),
    Admission(Admission),
    /// Asks for the receiver's position in each group. Answered by [`Positions`].
    PositionQuery,
    LeaderMove(LeaderMove),
    LeaderMoveReply(LeaderMoveReply),
    GroupsReady(GroupsReady),
    /// Asks up to which instances the receiver's log is durable in these groups. Answered by [`NodeMessage::Durable`]
    /// when the receiver's present positions are durable.
    DurablePositionQuery(Vec<GroupId>),
    /// Says that, in these groups, the sender has applied all instances before `next` and has them durably in its log.
    Durable(Positions),
    Relay(Relay),
    Relayed(Relayed),
}

impl NodeMessage {
    /// Returns the message's kind.
    #[must_use]
    pub fn kind(&self) -> u8 {
        match self {
            NodeMessage::Hello(_) => 1,
            NodeMessage::Refusal(_) => 2,
            NodeMessage::Ping(_) => 3,
            NodeMessage::Claims(_) => 4,
            NodeMessage::Positions(_) => 5,
            NodeMessage::LeadershipQuery(_) => 6,
            NodeMessage::LeadershipAnswers(_) => 7,
            NodeMessage::Birth(_) => 8,
            NodeMessage::Offer(_) => 20,
            NodeMessage::ChunkRequest(_) => 21,
            NodeMessage::Chunk(_) => 22,
            NodeMessage::Admission(_) => 9,
            NodeMessage::PositionQuery => 10,
            NodeMessage::LeaderMove(_) => 11,
            NodeMessage::LeaderMoveReply(_) => 12,
            NodeMessage::GroupsReady(_) => 13,
            NodeMessage::DurablePositionQuery(_) => 16,
            NodeMessage::Durable(_) => 17,
            NodeMessage::Relay(_) => 14,
            NodeMessage::Relayed(_) => 15,
        }
    }

    /// Returns the message's body.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let encoded = match self {
            NodeMessage::Hello(message) => message.encode(),
            NodeMessage::Refusal(message) => postcard::to_allocvec(message),
            NodeMessage::Ping(message) => message.encode(),
            NodeMessage::Claims(message) => postcard::to_allocvec(message),
            NodeMessage::Positions(message) => postcard::to_allocvec(message),
            NodeMessage::LeadershipQuery(message) => postcard::to_allocvec(message),
            NodeMessage::LeadershipAnswers(message) => postcard::to_allocvec(message),
            NodeMessage::Birth(message) => message.encode(),
            NodeMessage::Offer(message) => postcard::to_allocvec(message),
            NodeMessage::ChunkRequest(message) => postcard::to_allocvec(message),
            NodeMessage::Chunk(message) => postcard::to_allocvec(message),
            NodeMessage::Admission(message) => postcard::to_allocvec(message),
            NodeMessage::PositionQuery => Ok(Vec::new()),
            NodeMessage::LeaderMove(message) => postcard::to_allocvec(message),
            NodeMessage::LeaderMoveReply(message) => postcard::to_allocvec(message),
            NodeMessage::GroupsReady(message) => postcard::to_allocvec(message),
            NodeMessage::DurablePositionQuery(groups) => postcard::to_allocvec(groups),
            NodeMessage::Durable(message) => postcard::to_allocvec(message),
            NodeMessage::Relay(message) => postcard::to_allocvec(message),
            NodeMessage::Relayed(message) => postcard::to_allocvec(message),
        };
        encoded.expect("plain data serializes")
    }

    /// Appends the message's whole body.
    pub(super) fn put(&self, out: &mut BytesMut) -> Bytes {
        out.extend_from_slice(&self.encode());
        Bytes::new()
    }

    /// Reads a body. Returns `Ok(None)` for a kind of a later version, which is skipped.
    ///
    /// # Errors
    /// If a body of a known kind does not decode.
    pub fn decode(kind: u8, body: &[u8]) -> Result<Option<NodeMessage>, postcard::Error> {
        Ok(Some(match kind {
            1 => NodeMessage::Hello(Hello::decode(body)?),
            2 => NodeMessage::Refusal(postcard::from_bytes(body)?),
            3 => NodeMessage::Ping(Ping::decode(body)?),
            4 => NodeMessage::Claims(postcard::from_bytes(body)?),
            5 => NodeMessage::Positions(postcard::from_bytes(body)?),
            6 => NodeMessage::LeadershipQuery(postcard::from_bytes(body)?),
            7 => NodeMessage::LeadershipAnswers(postcard::from_bytes(body)?),
            8 => NodeMessage::Birth(BirthRecord::decode(body)?),
            20 => NodeMessage::Offer(postcard::from_bytes(body)?),
            21 => NodeMessage::ChunkRequest(postcard::from_bytes(body)?),
            22 => NodeMessage::Chunk(postcard::from_bytes(body)?),
            9 => NodeMessage::Admission(postcard::from_bytes(body)?),
            10 => NodeMessage::PositionQuery,
            11 => NodeMessage::LeaderMove(postcard::from_bytes(body)?),
            12 => NodeMessage::LeaderMoveReply(postcard::from_bytes(body)?),
            13 => NodeMessage::GroupsReady(postcard::from_bytes(body)?),
            16 => NodeMessage::DurablePositionQuery(postcard::from_bytes(body)?),
            17 => NodeMessage::Durable(postcard::from_bytes(body)?),
            14 => NodeMessage::Relay(postcard::from_bytes(body)?),
            15 => NodeMessage::Relayed(postcard::from_bytes(body)?),
            _ => return Ok(None),
        }))
    }
}
