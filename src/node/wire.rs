//! What nodes say to each other beyond the groups: who they are, that they live, which groups they lead, and the
//! questions that confirm reads. In a frame these stand under the group index [`NODE`].
//!
//! Kinds never change meaning; new ones are appended. Bodies are postcard. A body may grow at its end: those who do not
//! know of that read the beginning, and those who do take a body without it for one of an older version.

use crate::identity::BirthRecord;
use crate::versions::Versions;
use bytes::{Bytes, BytesMut};
use groups::membership::Place;
use groups::{Answer, Ballot, GroupId, Instance, NodeId};
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
    /// The random id of its data directory.
    pub storage: [u8; 16],
    /// How often it has been started.
    pub start: u64,
    /// A random number for each of its latest starts, this one last: a copy of its data directory can come to the same
    /// start number.
    pub lives: Vec<u64>,
    /// How many groups the slots are divided among.
    pub groups: u32,
    /// Before birth: the initial members, so that two lists that differ are noticed.
    pub members: Vec<NodeId>,
    /// The address of a node that wants to join a cluster.
    pub joins: Option<String>,
    /// What the sender speaks. It stands behind the rest, and is not said by those who speak only the first.
    #[serde(skip)]
    pub versions: Versions,
    /// This and what follows stands behind the versions, and is not said by older programs.
    ///
    /// Whom the sender dialled: an address can have become another member's.
    #[serde(skip)]
    pub to: Option<NodeId>,
    /// Where clients are told that the sender is, if that is not its address among the members.
    #[serde(skip)]
    pub announced: Option<String>,
    /// Where the other members reach the sender, as it knows that: who has not heard yet that it is a member has nothing
    /// else to dial.
    #[serde(skip)]
    pub address: Option<String>,
}

impl Hello {
    fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        let mut body = postcard::to_allocvec(self)?;
        if self.versions != Versions::FIRST {
            body = postcard::to_extend(&self.versions, body)?;
            body = postcard::to_extend(&(self.to, &self.announced), body)?;
            body = postcard::to_extend(&self.address, body)?;
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
        let address = if rest.is_empty() { None } else { postcard::from_bytes(rest)? };
        Ok(Hello { versions, to, announced, address, ..hello })
    }

    /// The random number of this start.
    #[must_use]
    pub fn life(&self) -> u64 {
        self.lives.last().copied().unwrap_or(0)
    }

    /// Whether the sender, or what it is a copy of, can have been started as number `start` with the life `life`.
    #[must_use]
    pub fn descends_from(&self, start: u64, life: u64) -> bool {
        let since = self.start.saturating_sub(start);
        let newest_first = usize::try_from(since).ok().and_then(|since| self.lives.iter().rev().nth(since));
        newest_first.is_none_or(|known| *known == life)
    }
}

/// Why a connection is closed by the side that sends this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// True if the receiver can never join as it is, and should stop.
    pub fatal: bool,
    /// One line for the operator.
    pub text: String,
}

/// Sent to every peer every [`PING_MS`](crate::config::PING_MS).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// The sender's start number.
    pub start: u64,
    /// Counts the sender's pings on this connection.
    pub number: u64,
    /// The highest number received from the other side.
    pub echo: u64,
    /// How long the sender has had that number, in microseconds: the rest of the round trip was the network's.
    pub held_us: u64,
    /// The nodes that the sender reaches: they have echoed a recent ping of its.
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
    /// The sender's word that it promises nothing to others, for what the receiver's list of that version leads, but for
    /// these groups; see `node::leases`.
    pub word: Option<Vec<GroupId>>,
    /// Whether the sender is to lead nothing.
    pub draining: bool,
    /// The sender's clocks. They stand behind the rest; versions below 3 do not tell them.
    #[serde(skip)]
    pub clocks: Option<PingClocks>,
}

/// What the sender's clocks showed when it made a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PingClocks {
    /// Its own clock, in unix microseconds.
    pub unix_us: u64,
    /// Cluster time there, in unix microseconds, if it comes from a majority; see `node::cluster_time`.
    pub cluster_us: Option<u64>,
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

/// The groups that the sender leads. Sent at once when they change, and again to a peer whose pings name an older version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Grows with each change.
    pub version: u64,
    /// Each group with the ballot that leads it.
    pub led: Vec<(GroupId, Ballot)>,
    /// Those of them for which no lease is wanted, in order.
    pub unleased: Vec<GroupId>,
}

/// On a new connection: how far the sender is, so that the side that is behind can ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Positions {
    /// `next` of each group in which something was chosen.
    pub next: Vec<(GroupId, Instance)>,
}

/// Do these ballots still lead? Asked on behalf of reads that arrived before it was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Answers name it.
    pub number: u64,
    /// Each group with the ballot that the asker takes to lead it, above which it has promised nothing.
    pub items: Vec<(GroupId, Ballot)>,
}

/// The answer to a [`Question`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    /// Which question.
    pub number: u64,
    /// Cluster time at the sender, in unix milliseconds, 0 if it is not known there: a leader's decides what is due.
    pub unix_ms: u64,
    /// In the order of the question, each with the version of the membership for which it holds.
    pub items: Vec<(GroupId, u64, Answer)>,
    /// The groups, in that order too, that the sender leads under a lease: nobody else need be asked about them.
    pub leased: Vec<GroupId>,
}

/// A checkpoint file of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileId {
    /// Its sequence number there.
    pub sequence: u64,
    /// How long it is.
    pub bytes: u64,
    /// A checksum of what it holds: numbers may be used again after a loss.
    pub stamp: u32,
}

/// Values that were asked for are in the sender's log no more: this checkpoint has their effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The group.
    pub group: GroupId,
    /// The last instance that the checkpoint includes.
    pub instance: Instance,
    /// Where it is; it may hold other groups, too.
    pub file: FileId,
}

/// Asks for a piece of a checkpoint, on a connection for transfers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// Of which file.
    pub file: FileId,
    /// Where it begins.
    pub offset: u64,
    /// How long it is.
    pub bytes: u32,
}

/// A piece of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Of which file.
    pub file: FileId,
    /// Where it begins.
    pub offset: u64,
    /// The piece; empty if the file is gone.
    pub bytes: Bytes,
}

/// To a node that has waited to join: it is a member now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// What the cluster was born with.
    pub birth: BirthRecord,
    /// The members as they are, the receiver among them.
    pub members: Vec<Place>,
}

/// To the leader of a group: let another member lead it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// The answer names it.
    pub number: u64,
    /// The group.
    pub group: GroupId,
    /// Who is to lead it.
    pub to: NodeId,
    /// How long to try, in milliseconds.
    pub timeout_ms: u64,
}

/// The answer to a [`Move`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// Which one.
    pub number: u64,
    /// Why it was not done, in one line.
    pub refusal: Option<String>,
}

/// While the sender loads: behind its hello, and whenever it has rebuilt groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Here {
    /// Those that it has rebuilt now: what it was told of them before was lost.
    pub groups: Vec<GroupId>,
    /// Those that it lacks still, ascending: there it neither votes nor answers.
    pub missing: Vec<GroupId>,
}

/// A command of one of the sender's clients, for the receiver to carry out as if it were one of its own clients'.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relay {
    /// The reply names it.
    pub number: u64,
    /// Where the command belongs.
    pub group: GroupId,
    /// How long the client waits, in milliseconds.
    pub timeout_ms: u64,
    /// The command, as the log has it.
    pub body: Bytes,
}

/// The reply to a [`Relay`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relayed {
    /// Which one.
    pub number: u64,
    /// The reply, as a session keeps it.
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
    Question(Question),
    Answers(Answers),
    Birth(BirthRecord),
    Offer(Offer),
    Want(Want),
    Piece(Piece),
    Admission(Admission),
    /// Where are you in each group? Answered by [`Positions`].
    Where,
    Move(Move),
    Moved(Moved),
    Here(Here),
    /// How far has your log these groups, durably? Answered by [`NodeMessage::Durable`], once that is so.
    WhereDurable(Vec<GroupId>),
    /// The sender has applied, and durably in its log, all of these groups before their `next`.
    Durable(Positions),
    Relay(Relay),
    Relayed(Relayed),
}

impl NodeMessage {
    /// Its kind byte.
    #[must_use]
    pub fn kind(&self) -> u8 {
        match self {
            NodeMessage::Hello(_) => 1,
            NodeMessage::Refusal(_) => 2,
            NodeMessage::Ping(_) => 3,
            NodeMessage::Claims(_) => 4,
            NodeMessage::Positions(_) => 5,
            NodeMessage::Question(_) => 6,
            NodeMessage::Answers(_) => 7,
            NodeMessage::Birth(_) => 8,
            NodeMessage::Offer(_) => 20,
            NodeMessage::Want(_) => 21,
            NodeMessage::Piece(_) => 22,
            NodeMessage::Admission(_) => 9,
            NodeMessage::Where => 10,
            NodeMessage::Move(_) => 11,
            NodeMessage::Moved(_) => 12,
            NodeMessage::Here(_) => 13,
            NodeMessage::WhereDurable(_) => 16,
            NodeMessage::Durable(_) => 17,
            NodeMessage::Relay(_) => 14,
            NodeMessage::Relayed(_) => 15,
        }
    }

    /// Its body.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let encoded = match self {
            NodeMessage::Hello(message) => message.encode(),
            NodeMessage::Refusal(message) => postcard::to_allocvec(message),
            NodeMessage::Ping(message) => message.encode(),
            NodeMessage::Claims(message) => postcard::to_allocvec(message),
            NodeMessage::Positions(message) => postcard::to_allocvec(message),
            NodeMessage::Question(message) => postcard::to_allocvec(message),
            NodeMessage::Answers(message) => postcard::to_allocvec(message),
            NodeMessage::Birth(message) => postcard::to_allocvec(message),
            NodeMessage::Offer(message) => postcard::to_allocvec(message),
            NodeMessage::Want(message) => postcard::to_allocvec(message),
            NodeMessage::Piece(message) => postcard::to_allocvec(message),
            NodeMessage::Admission(message) => postcard::to_allocvec(message),
            NodeMessage::Where => Ok(Vec::new()),
            NodeMessage::Move(message) => postcard::to_allocvec(message),
            NodeMessage::Moved(message) => postcard::to_allocvec(message),
            NodeMessage::Here(message) => postcard::to_allocvec(message),
            NodeMessage::WhereDurable(groups) => postcard::to_allocvec(groups),
            NodeMessage::Durable(message) => postcard::to_allocvec(message),
            NodeMessage::Relay(message) => postcard::to_allocvec(message),
            NodeMessage::Relayed(message) => postcard::to_allocvec(message),
        };
        encoded.expect("plain data serializes")
    }

    /// Appends its body, all of it.
    pub(super) fn put(&self, out: &mut BytesMut) -> Bytes {
        out.extend_from_slice(&self.encode());
        Bytes::new()
    }

    /// Reads a body. `Ok(None)` for a kind of a later version, which is skipped.
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
            6 => NodeMessage::Question(postcard::from_bytes(body)?),
            7 => NodeMessage::Answers(postcard::from_bytes(body)?),
            8 => NodeMessage::Birth(postcard::from_bytes(body)?),
            20 => NodeMessage::Offer(postcard::from_bytes(body)?),
            21 => NodeMessage::Want(postcard::from_bytes(body)?),
            22 => NodeMessage::Piece(postcard::from_bytes(body)?),
            9 => NodeMessage::Admission(postcard::from_bytes(body)?),
            10 => NodeMessage::Where,
            11 => NodeMessage::Move(postcard::from_bytes(body)?),
            12 => NodeMessage::Moved(postcard::from_bytes(body)?),
            13 => NodeMessage::Here(postcard::from_bytes(body)?),
            16 => NodeMessage::WhereDurable(postcard::from_bytes(body)?),
            17 => NodeMessage::Durable(postcard::from_bytes(body)?),
            14 => NodeMessage::Relay(postcard::from_bytes(body)?),
            15 => NodeMessage::Relayed(postcard::from_bytes(body)?),
            _ => return Ok(None),
        }))
    }
}
