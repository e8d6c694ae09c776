//! The other members: liveness, reach, claims of leadership, and the frames to them.
//!
//! Failure detection is per pair of nodes, never per group. Any byte shows that a peer lives. A peer is *reached* only
//! if it has echoed a recent ping. So a link that works in only one direction counts as cut.

mod incarnations;
pub mod lanes;
mod leases;
mod peer;
mod roster;

pub(super) use peer::Peer;
pub(super) use roster::Roster;

use super::wire::{Claims, Hello, NodeMessage, Ping, PingClocks};
use crate::config::{NodeConfig, PING_MS, ReadMode};
use crate::identity::Identity;
use crate::storage::wal;
use crate::versions::Versions;
use bytes::Bytes;
use groups::members::MEMBERS_MAX;
use groups::{Ballot, Clock, GroupId, Members, Membership, Ms, NodeId, Us};
use incarnations::{Incarnation, Incarnations};
use leases::Leases;
use net::event::ConnectionId;
use net::frame::FrameCounts;

/// Position of the start number in the numbers of pings and in the versions of this node's claims: the lower 32 bits
/// count within one start. One process uses far fewer than 2^32 of either.
const START_SHIFT: u32 = 32;

/// The round trip of a ping of this node and the ping that answers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RoundTrip {
    /// When this node sent its ping, by the monotonic clock.
    pub(super) sent_us: Us,
    /// Sum of the times that the two pings were in flight. The time for which the peer held the first does not count.
    pub(super) us: Us,
}

/// The state of the sender that a ping carries.
#[derive(Clone, Copy)]
pub(super) struct PingState {
    pub(super) start: u64,
    pub(super) disk: bool,
    pub(super) full: bool,
    pub(super) draining: bool,
    pub(super) clocks: Option<PingClocks>,
}

/// All other members, and guests.
pub(super) struct Peers {
    me: NodeId,
    versions: Versions,
    /// By id.
    all: Vec<Peer>,
    /// Addresses that the operator gives. They take precedence over those that the cluster knows.
    corrected: Vec<(NodeId, String)>,
    incarnations: Incarnations,
    seed: u64,
    fragment_bytes: usize,
    /// The highest number of a ping to a peer that is gone. New peers continue from it.
    pinged: u64,
    roster: Roster,
    /// The groups that this node leads, as told to the other members.
    claims: Claims,
    leases: Leases,
    pinged_ms: Ms,
    skipped: Skipped,
    /// What was sent to the other members since the start.
    sent: FrameCounts,
}

/// Counts of messages that were skipped because this node does not know their group or their kind.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Skipped {
    pub(super) groups: u64,
    pub(super) kinds: u64,
}

impl Peers {
    /// Creates the other members of `roster`, with the operator's address for each member that has one.
    pub(super) fn new(identity: &Identity, roster: Roster, config: &NodeConfig) -> Peers {
        let start = identity.start;
        let mut peers = Peers {
            me: identity.node,
            versions: config.versions,
            all: Vec::new(),
            roster: roster.clone(),
            corrected: config.initial.clone(),
            incarnations: Incarnations::default(),
            seed: config.seed,
            fragment_bytes: config.fragment_bytes,
            pinged: start << START_SHIFT,
            claims: Claims { version: (start << START_SHIFT) + 1, ..Claims::default() },
            leases: Leases::new(config.reads == ReadMode::Lease),
            pinged_ms: Ms(0),
            skipped: Skipped::default(),
            sent: FrameCounts::default(),
        };
        peers.enroll(roster);
        peers
    }

    /// Adds a node of this cluster that no group here knows, as a guest. The guest may have joined while this node
    /// was away, and this node can learn that from it. It is a peer while its connection lasts. Returns false if there
    /// are too many guests.
    pub(super) fn admit_guest(&mut self, id: NodeId) -> bool {
        if self.get(id).is_some() {
            return true;
        }
        let guests = self.all.iter().filter(|peer| self.roster.info(peer.id()).is_none()).count();
        if guests < MEMBERS_MAX {
            self.all.push(self.peer(id, String::new()));
            self.all.sort_by_key(Peer::id);
        }
        guests < MEMBERS_MAX
    }

    /// Removes a guest whose connection is gone.
    pub(super) fn dismiss_guest(&mut self, id: NodeId) {
        if self.roster.info(id).is_some() {
            return;
        }
        let pinged = self.all.extract_if(.., |peer| peer.id() == id).map(|gone| gone.pinged());
        self.pinged = pinged.fold(self.pinged, u64::max);
    }

    fn peer(&self, id: NodeId, address: String) -> Peer {
        Peer::new(id, address, self.seed ^ u64::from(id.0), self.pinged, self.fragment_bytes)
    }

    /// Takes the present members of the cluster: new ones become peers. Returns the peers that were removed.
    pub(super) fn enroll(&mut self, roster: Roster) -> Vec<Peer> {
        for info in roster.infos().iter().filter(|info| info.node != self.me) {
            let corrected = self.corrected.iter().find(|(id, _)| *id == info.node);
            let address = corrected.map_or(&info.address, |(_, address)| address).clone();
            match self.all.iter().position(|peer| peer.id() == info.node) {
                Some(at) => self.all[at].set_address(address),
                None => self.all.push(self.peer(info.node, address)),
            }
        }
        self.all.sort_by_key(Peer::id);
        self.leases.enroll(self.all.iter().map(Peer::id));
        self.roster = roster;
        let roster = &self.roster;
        let gone: Vec<Peer> = self.all.extract_if(.., |peer| roster.was_removed(peer.id())).collect();
        self.incarnations.forget(|id| roster.was_removed(id));
        self.pinged = gone.iter().map(Peer::pinged).fold(self.pinged, u64::max);
        gone
    }

    /// Returns this node's own address.
    pub(super) fn own_address(&self) -> Option<&str> {
        let corrected = self.corrected.iter().find(|(id, _)| *id == self.me).map(|(_, address)| &**address);
        corrected.or(self.roster.info(self.me).map(|info| &*info.address))
    }

    /// Returns the nodes that vote in some group.
    pub(super) fn voters(&self) -> &Members {
        self.roster.voters()
    }

    pub(super) fn find(&mut self, id: NodeId) -> Option<&mut Peer> {
        self.all.iter_mut().find(|peer| peer.id() == id)
    }

    pub(super) fn by_link(&mut self, link: ConnectionId) -> Option<&mut Peer> {
        self.all.iter_mut().find(|peer| peer.link() == Some(link))
    }

    /// Returns the peers with a connection whose handshake is done.
    pub(super) fn linked(&self) -> impl Iterator<Item = &Peer> {
        self.all.iter().filter(|peer| peer.link().is_some())
    }

    /// Returns the members that this node reaches and that can vote, ascending.
    pub(super) fn reached(&self, now_ms: Ms) -> Vec<NodeId> {
        self.all.iter().filter(|peer| peer.can_vote(now_ms)).map(Peer::id).collect()
    }

    /// Returns the members that this node reaches, or reached less than
    /// [`REACH_GRACE_MS`](crate::config::REACH_GRACE_MS) ago.
    pub(super) fn recently_reached(&mut self, now_ms: Ms) -> Vec<NodeId> {
        self.all.iter_mut().filter_map(|peer| peer.is_recently_reached(now_ms).then(|| peer.id())).collect()
    }

    /// Returns true if the disk of a connected voter or of this node is full, and the connected voters with space are
    /// no majority. This node counts as connected if it is a voter. `own`: this node's disk is full.
    pub(super) fn quorum_is_full(&self, own: bool) -> bool {
        let votes = self.voters().contains(self.me);
        let connected = || self.all.iter().filter(|peer| peer.link().is_some() && self.voters().contains(peer.id()));
        let full = connected().filter(|peer| peer.is_full()).count() + usize::from(own && votes);
        full > 0 && connected().count() + usize::from(votes) - full < self.voters().quorum()
    }

    /// Returns true if this node reaches a majority, itself not counted, whose disks answer and have space.
    pub(super) fn quorum_has_space(&self, now_ms: Ms) -> bool {
        self.have_disks(now_ms).count() >= self.voters().quorum()
    }

    /// Like [`Peers::quorum_has_space`], but counts only members whose disks were not late in the last
    /// [`DISK_SLOW_MS`](crate::config::DISK_SLOW_MS).
    pub(super) fn quorum_is_quick(&self, now_ms: Ms) -> bool {
        self.have_disks(now_ms).filter(|peer| peer.is_quick(now_ms)).count() >= self.voters().quorum()
    }

    fn have_disks(&self, now_ms: Ms) -> impl Iterator<Item = &Peer> {
        self.all
            .iter()
            .filter(move |peer| self.voters().contains(peer.id()) && peer.is_reached(now_ms) && peer.has_disk())
    }

    /// Replaces the list of groups that this node leads, each with its ballot and the version of its membership. The
    /// list is sent with the next frames.
    pub(super) fn set_claims(&mut self, led: &[(GroupId, Ballot, u64)]) {
        // The list is sent even if it has not changed. A group can be won and lost within one turn: an Accept has then
        // already named this node as the leader, and the list corrects that.
        self.leases.set_led(led, self.claims.version + 1);
        self.claims.led = led.iter().map(|&(group, ballot, _)| (group, ballot)).collect();
        self.renew_claims();
    }

    /// Ends the lease of a group that is being handed to another member. The others learn of it before the group's next
    /// message.
    pub(super) fn release_lease(&mut self, group: GroupId, now_us: Us) {
        if self.leases.release(group, now_us) {
            self.renew_claims();
        }
    }

    fn renew_claims(&mut self) {
        self.claims.version += 1;
        self.claims.unleased = self.leases.unleased();
        let claims = NodeMessage::Claims(self.claims.clone());
        self.broadcast(&claims);
    }

    /// Takes a ping. Returns whether the set of nodes that the peer reaches has changed, and the round trip of the ping
    /// that this one answers, if it is known.
    pub(super) fn on_ping(&mut self, from: NodeId, ping: &Ping, now_us: Us) -> (bool, Option<RoundTrip>) {
        let Some(peer) = self.find(from) else { return (false, None) };
        let (is_reach_other, sent_us) = peer.on_ping(ping, now_us);
        self.leases.on_ping(from, ping.lease, ping.claims_seen, ping.lease_grant.as_ref(), sent_us);
        let us = |sent_us: Us| now_us.saturating_sub(sent_us.saturating_add(ping.held_us));
        (is_reach_other, sent_us.map(|sent_us| RoundTrip { sent_us, us: us(sent_us) }))
    }

    /// Takes a peer's list of claims, unless it is older than the known one.
    pub(super) fn on_claims(&mut self, from: NodeId, claims: &Claims) {
        let Some(peer) = self.all.iter_mut().find(|peer| peer.id() == from) else { return };
        if peer.on_claims(claims) {
            self.leases.on_claims(from, claims);
        }
    }

    /// Takes a peer's new connection, with its hello; the two nodes speak `version`. Returns the old connection.
    pub(super) fn on_linked(
        &mut self,
        link: ConnectionId,
        hello: &Hello,
        version: u16,
        now_ms: Ms,
    ) -> Option<ConnectionId> {
        self.leases.on_cut(hello.node);
        let peer = self.find(hello.node)?;
        let old = peer.link();
        peer.on_linked(link, hello, version, now_ms);
        old
    }

    /// Notes that the connection of a peer is gone.
    pub(super) fn on_cut(&mut self, from: NodeId) {
        self.leases.on_cut(from);
        self.find(from).into_iter().for_each(Peer::on_cut);
    }

    /// Returns true if this node holds a lease for `group`, which it leads under `ballot` with these members.
    pub(super) fn holds_lease(&self, group: GroupId, ballot: Ballot, membership: &Membership, now_us: Us) -> bool {
        membership.voters().contains(self.me) && self.leases.holds(group, ballot, membership, now_us)
    }

    /// Sends this node's claims to one peer.
    pub(super) fn send_claims(&mut self, id: NodeId) {
        let claims = NodeMessage::Claims(self.claims.clone());
        if let Some(peer) = self.find(id) {
            peer.send_node_message(&claims);
        }
    }

    /// Pings all peers if a ping is due, and returns true then. `promised` returns this node's highest promise in a
    /// group, or `None` if a lease grant to the given member would not count there.
    pub(super) fn ping(
        &mut self,
        state: PingState,
        now_us: Us,
        promised: impl Fn(GroupId, NodeId) -> Option<Ballot>,
    ) -> bool {
        let now_ms = now_us.to_ms();
        if now_ms < self.pinged_ms + PING_MS {
            return false;
        }
        self.pinged_ms = now_ms;
        if self.leases.resume(self.claims.version + 1, now_us) {
            self.renew_claims();
        }
        let roster = &self.roster;
        self.leases.forget(|id| roster.info(id).is_none(), now_us);
        let reached: Vec<NodeId> = self.all.iter().filter(|peer| peer.is_reached(now_ms)).map(Peer::id).collect();
        let claims = self.claims.version;
        let mut outdated = Vec::new();
        for peer in self.all.iter_mut().filter(|peer| peer.link().is_some()) {
            let (number, echo, echo_us, claims_seen) = peer.begin_ping(now_us);
            let held_us = now_us.saturating_sub(echo_us);
            let reached = reached.clone();
            let PingState { start, disk, full, draining, clocks } = state;
            let lease = self.leases.wanted();
            // A peer that reaches no majority will not lead for long: a lease would only keep others from being
            // elected.
            let lease_grant = (echo > 0 && peer.has_authority(self.roster.voters()))
                .then(|| self.leases.give(peer.id(), echo_us, now_us, |group| promised(group, peer.id())));
            let lease_grant = lease_grant.flatten();
            peer.send_node_message(&NodeMessage::Ping(Ping {
                start,
                number,
                echo,
                held_us,
                reached,
                disk,
                full,
                claims,
                claims_seen,
                lease,
                lease_grant,
                draining,
                clocks,
            }));
            if peer.lacks_claims(claims) {
                outdated.push(peer.id());
            }
        }
        outdated.into_iter().for_each(|id| self.send_claims(id));
        true
    }

    /// Returns the version of values that this node may propose: the highest that every member is known to read. A
    /// member that was not seen since this node started counts as the oldest version.
    pub(super) fn value_version(&self) -> u8 {
        self.all.iter().map(|peer| peer.versions().value_version()).fold(self.versions.value_version(), u8::min)
    }

    /// Returns the version to speak with a node that has said hello.
    ///
    /// # Errors
    /// The reason why there is none.
    pub(super) fn common_version(&self, hello: &Hello) -> Result<u16, String> {
        let (me, own, from, theirs) = (self.me, self.versions, hello.node, hello.versions);
        own.common(theirs).ok_or_else(|| {
            format!(
                "node {from} speaks {theirs} of the peer protocol, but node {me} speaks {own}: \
                 upgrade through a version that speaks both"
            )
        })
    }

    /// Counts a message that was skipped because its group is not known here.
    pub(super) fn skip_group(&mut self) {
        self.skipped.groups += 1;
    }

    /// Counts a message that was skipped because its kind is not known here.
    pub(super) fn skip_kind(&mut self) {
        self.skipped.kinds += 1;
    }

    pub(super) fn sent(&self) -> FrameCounts {
        self.sent
    }

    pub(super) fn skipped(&self) -> Skipped {
        self.skipped
    }

    /// Returns all peers, by id.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.all.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = NodeId> {
        self.all.iter().map(Peer::id)
    }

    /// Returns a peer, read-only.
    pub(super) fn get(&self, id: NodeId) -> Option<&Peer> {
        self.all.iter().find(|peer| peer.id() == id)
    }

    /// Appends a message of this node to the frames of all peers.
    pub(super) fn broadcast(&mut self, message: &NodeMessage) {
        self.all.iter_mut().for_each(|peer| peer.send_node_message(message));
    }

    /// Returns the members of the cluster.
    pub(super) fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Passes the frames of this turn to `send`, with their connections.
    pub(super) fn take_frames(&mut self, mut send: impl FnMut(ConnectionId, Bytes)) {
        for peer in &mut self.all {
            if let Some(link) = peer.link() {
                peer.take_frames().for_each(|frame| send(link, frame));
                let counts = peer.take_counts();
                self.sent.frames += counts.frames;
                self.sent.messages += counts.messages;
            }
        }
    }

    /// Returns the connections for which large messages wait.
    pub(super) fn filling(&self) -> Vec<ConnectionId> {
        self.all.iter().filter(|peer| peer.is_filling()).filter_map(Peer::link).collect()
    }

    /// Notes how many bytes wait to be written to a connection.
    pub(super) fn set_unsent(&mut self, link: ConnectionId, bytes: usize) {
        if let Some(peer) = self.by_link(link) {
            peer.set_unsent(bytes);
        }
    }

    // Dialling.

    /// Notes that an attempt to connect to a peer began as `connection`, or could not begin. Returns false if `to` is
    /// not a peer.
    pub(super) fn on_dialling(&mut self, to: NodeId, connection: Option<ConnectionId>, now_ms: Ms) -> bool {
        self.find(to).map(|peer| peer.on_dialling(connection, now_ms)).is_some()
    }

    /// Notes that an attempt to connect to a peer failed.
    pub(super) fn on_dial_failed(&mut self, to: NodeId, now_ms: Ms) {
        self.find(to).into_iter().for_each(|peer| peer.on_dial_failed(now_ms));
    }

    /// Handles the end of a connection. If it was a peer's link, returns the peer. If it was an attempt at a link, the
    /// attempt has failed.
    pub(super) fn on_connection_gone(&mut self, id: ConnectionId, now_ms: Ms) -> Option<NodeId> {
        if let Some(peer) = self.all.iter_mut().find(|peer| peer.is_dialled_as(id)) {
            peer.on_dial_failed(now_ms);
        }
        let peer = self.by_link(id)?;
        let from = peer.id();
        peer.on_link_failed(now_ms);
        self.on_cut(from);
        Some(from)
    }

    /// Resets the redial delays: the connections that broke were not failures of the peers.
    pub(super) fn reset_backoff(&mut self) {
        self.all.iter_mut().for_each(Peer::reset_backoff);
    }

    /// Returns the peers to dial now, and their addresses.
    pub(super) fn take_due_dials(&mut self, is_born: bool, now_ms: Ms) -> Vec<(NodeId, String)> {
        let me = self.me;
        let due = self.all.iter_mut().filter_map(|peer| {
            peer.is_to_be_dialled(me, is_born, now_ms).then(|| (peer.id(), peer.address().to_owned()))
        });
        due.collect()
    }

    // Liveness.

    /// Starts the time limits: all peers count as reached at `reached_ms`. `is_born`: this node may have granted leases
    /// in an earlier start.
    pub(super) fn begin(&mut self, is_born: bool, reached_ms: Ms, now_us: Us) {
        if is_born {
            self.leases.begin(now_us);
        }
        self.all.iter_mut().for_each(|peer| peer.set_reached(reached_ms));
    }

    /// Compensates a stall of this node; see [`Peer::compensate_stall`]. Leases are not prolonged.
    pub(super) fn compensate_stall(&mut self, stalled_ms: Ms, now_ms: Ms) {
        self.all.iter_mut().for_each(|peer| peer.compensate_stall(stalled_ms, now_ms));
    }

    /// Returns the connections to cut, because nothing was heard on them for too long.
    pub(super) fn broken(&self, now_ms: Ms) -> Vec<ConnectionId> {
        self.all.iter().filter(|peer| peer.is_broken(now_ms)).filter_map(Peer::link).collect()
    }

    /// Returns the peers that have just been silent for too long. They count as dead.
    pub(super) fn take_silent(&mut self, now_ms: Ms) -> Vec<NodeId> {
        let silent = self.all.iter_mut().filter(|peer| peer.falls_silent(now_ms));
        silent
            .map(|peer| {
                peer.on_silent();
                peer.id()
            })
            .collect()
    }

    /// Returns the longest round trip to a peer, in microseconds.
    pub(super) fn slowest_us(&self) -> Us {
        self.all.iter().map(Peer::rtt_us).max().unwrap_or(Us(0))
    }

    /// Returns true if a ballot of a group may be promised to `to`; see [`Leases::allows`].
    pub(super) fn allows(&self, group: GroupId, to: NodeId, promised: Ballot, clock: Clock) -> bool {
        self.leases.allows(group, to, promised, clock.mono_ms.to_us())
    }

    // Incarnations of other nodes.

    /// Returns the last known incarnation of a node.
    pub(super) fn seen_as(&self, id: NodeId) -> Option<Incarnation> {
        self.incarnations.of(id)
    }

    /// Takes the hello of a born member. Returns the record to log if the incarnation is new. If the member later shows
    /// a lower start number, or the same number with another random number, it runs on an old copy of its directory.
    #[must_use]
    pub(super) fn note_hello(&mut self, hello: &Hello) -> Option<wal::Record> {
        let seen = Incarnation { storage: hello.storage, start: hello.start, id: Some(hello.incarnation()) };
        let roster = &self.roster;
        self.incarnations.note(hello.node, seen, |id| roster.info(id).is_some())
    }

    /// Recovery: restores a record of [`Peers::note_hello`].
    pub(super) fn restore(&mut self, record: &wal::Record) {
        self.incarnations.restore(record);
    }

    /// Returns the incarnations of other nodes, to be logged again.
    pub(super) fn incarnation_records(&self) -> impl Iterator<Item = wal::Record> {
        self.incarnations.records()
    }
}

#[cfg(test)]
impl Peers {
    /// Changes the state of all peers without a message from them.
    pub(super) fn pretend(&mut self, change: impl FnMut(&mut Peer)) {
        self.all.iter_mut().for_each(change);
    }
}
