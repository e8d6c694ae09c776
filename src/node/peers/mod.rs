//! The other members: which live, which are reached, what they claim to lead, and the frames on their way to them.
//!
//! Failure detection is per pair of nodes, never per group. Any byte counts as life; *reached* needs more: the peer has
//! echoed a recent ping, so that a link that works in one direction only counts as cut.

mod incarnations;
pub mod lanes;
mod leases;
mod peer;
mod roster;

pub(super) use peer::Peer;
pub(super) use roster::Roster;

use super::wire::{Claims, Hello, NodeMessage, Ping, PingClocks};
use crate::config::{NodeConfig, PING_MS, Reads};
use crate::identity::Identity;
use crate::storage::wal;
use crate::versions::Versions;
use bytes::Bytes;
use groups::members::MEMBERS_MAX;
use groups::{Ballot, Clock, GroupId, Members, Membership, NodeId};
use incarnations::{Incarnation, Incarnations};
use leases::Leases;

/// A process sends far fewer pings, and changes its list less often, than this power of two.
const START_SHIFT: u32 = 32;

/// A ping of this node and the one that answers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RoundTrip {
    /// When the first was sent, by the monotonic clock.
    pub(super) sent_us: u64,
    /// How long the two were on their way together: without the time for which the peer held the first.
    pub(super) us: u64,
}

/// What a ping says of its sender.
#[derive(Clone, Copy)]
pub(super) struct PingState {
    pub(super) start: u64,
    pub(super) disk: bool,
    pub(super) full: bool,
    pub(super) draining: bool,
    pub(super) clocks: Option<PingClocks>,
}

/// All other members.
pub(super) struct Peers {
    me: NodeId,
    versions: Versions,
    /// By id.
    all: Vec<Peer>,
    /// Addresses that the operator gives, which count more than those that the cluster knows.
    corrected: Vec<(NodeId, String)>,
    incarnations: Incarnations,
    seed: u64,
    fragment_bytes: usize,
    /// Peers that are gone were sent no ping of a higher number.
    pinged: u64,
    roster: Roster,
    /// The groups that this node leads, as told to the others.
    claims: Claims,
    leases: Leases,
    pinged_ms: u64,
    skipped: Skipped,
}

/// Messages that were skipped because their group, or their kind, is not known here.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Skipped {
    pub(super) groups: u64,
    pub(super) kinds: u64,
}

impl Peers {
    /// The other members of `roster`, with the addresses that the operator gives where there are any.
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
            leases: Leases::new(config.reads == Reads::Lease),
            pinged_ms: 0,
            skipped: Skipped::default(),
        };
        peers.enroll(roster);
        peers
    }

    /// A node of this cluster that the groups do not know of: it may have joined while this one was away, and can tell of
    /// that. It is a peer for as long as its connection lasts. False if there are too many.
    pub(super) fn admit_guest(&mut self, id: NodeId) -> bool {
        if self.get(id).is_some() {
            return true;
        }
        let guests = self.all.iter().filter(|peer| self.roster.place(peer.id()).is_none()).count();
        if guests < MEMBERS_MAX {
            self.all.push(self.peer(id, String::new()));
            self.all.sort_by_key(Peer::id);
        }
        guests < MEMBERS_MAX
    }

    /// A guest leaves.
    pub(super) fn dismiss_guest(&mut self, id: NodeId) {
        if self.roster.place(id).is_some() {
            return;
        }
        let pinged = self.all.extract_if(.., |peer| peer.id() == id).map(|gone| gone.pinged());
        self.pinged = pinged.fold(self.pinged, u64::max);
    }

    fn peer(&self, id: NodeId, address: String) -> Peer {
        Peer::new(id, address, self.seed ^ u64::from(id.0), self.pinged, self.fragment_bytes)
    }

    /// The cluster has these members from now on: who is new becomes a peer. Those that were removed are returned.
    pub(super) fn enroll(&mut self, roster: Roster) -> Vec<Peer> {
        for place in roster.places().iter().filter(|place| place.node != self.me) {
            let corrected = self.corrected.iter().find(|(id, _)| *id == place.node);
            let address = corrected.map_or(&place.address, |(_, address)| address).clone();
            match self.all.iter().position(|peer| peer.id() == place.node) {
                Some(at) => self.all[at].set_address(address),
                None => self.all.push(self.peer(place.node, address)),
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

    /// This node's own address.
    pub(super) fn own_address(&self) -> Option<&str> {
        let corrected = self.corrected.iter().find(|(id, _)| *id == self.me).map(|(_, address)| &**address);
        corrected.or(self.roster.place(self.me).map(|place| &*place.address))
    }

    /// Those that vote in some group.
    pub(super) fn voters(&self) -> &Members {
        self.roster.voters()
    }

    pub(super) fn find(&mut self, id: NodeId) -> Option<&mut Peer> {
        self.all.iter_mut().find(|peer| peer.id() == id)
    }

    pub(super) fn by_link(&mut self, link: u64) -> Option<&mut Peer> {
        self.all.iter_mut().find(|peer| peer.link() == Some(link))
    }

    /// Those with a connection whose handshake is done.
    pub(super) fn linked(&self) -> impl Iterator<Item = &Peer> {
        self.all.iter().filter(|peer| peer.link().is_some())
    }

    /// The members that this node reaches and that can vote, ascending.
    pub(super) fn reached(&self, now_ms: u64) -> Vec<NodeId> {
        self.all.iter().filter(|peer| peer.can_vote(now_ms)).map(Peer::id).collect()
    }

    /// The members that this node reaches, or reached a moment ago.
    pub(super) fn hopeful(&mut self, now_ms: u64) -> Vec<NodeId> {
        self.all.iter_mut().filter_map(|peer| peer.is_hopeful(now_ms).then(|| peer.id())).collect()
    }

    /// Whether a majority could be had only with voters whose disks are full. `own`: this node's is.
    pub(super) fn quorum_is_full(&self, own: bool) -> bool {
        let votes = self.voters().contains(self.me);
        let connected = || self.all.iter().filter(|peer| peer.link().is_some() && self.voters().contains(peer.id()));
        let full = connected().filter(|peer| peer.is_full()).count() + usize::from(own && votes);
        full > 0 && connected().count() + usize::from(votes) - full < self.voters().quorum()
    }

    /// Whether a majority without this node is reached and has disks that take what comes.
    pub(super) fn quorum_has_space(&self, now_ms: u64) -> bool {
        self.have_disks(now_ms).count() >= self.voters().quorum()
    }

    /// Whether that majority's disks were not late of late either.
    pub(super) fn quorum_is_quick(&self, now_ms: u64) -> bool {
        self.have_disks(now_ms).filter(|peer| peer.is_quick(now_ms)).count() >= self.voters().quorum()
    }

    fn have_disks(&self, now_ms: u64) -> impl Iterator<Item = &Peer> {
        self.all
            .iter()
            .filter(move |peer| self.voters().contains(peer.id()) && peer.is_reached(now_ms) && peer.has_disk())
    }

    /// Replaces the list of groups that this node leads, each with its ballot and the version of its membership. It goes
    /// out with the next frames.
    pub(super) fn set_claims(&mut self, led: &[(GroupId, Ballot, u64)]) {
        // Also if it is the same: a group that was led and lost within one turn has told of itself by an Accept.
        self.leases.set_led(led, self.claims.version + 1);
        self.claims.led = led.iter().map(|&(group, ballot, _)| (group, ballot)).collect();
        self.renew_claims();
    }

    /// The lease of a group that is handed to another member ends, and the others learn of that before the group's next
    /// message.
    pub(super) fn release_lease(&mut self, group: GroupId, now_us: u64) {
        if self.leases.release(group, now_us) {
            self.renew_claims();
        }
    }

    fn renew_claims(&mut self) {
        self.claims.version += 1;
        self.claims.unleased = self.leases.unleased();
        let claims = NodeMessage::Claims(self.claims.clone());
        self.tell_all(&claims);
    }

    /// Tells whether the peer reaches others than before, and what is known of the ping that this one answers.
    pub(super) fn on_ping(&mut self, from: NodeId, ping: &Ping, now_us: u64) -> (bool, Option<RoundTrip>) {
        let Some(peer) = self.find(from) else { return (false, None) };
        let (is_reach_other, sent_us) = peer.on_ping(ping, now_us);
        self.leases.on_ping(from, ping.lease, ping.claims_seen, ping.word.as_ref(), sent_us);
        let us = |sent_us: u64| now_us.saturating_sub(sent_us.saturating_add(ping.held_us));
        (is_reach_other, sent_us.map(|sent_us| RoundTrip { sent_us, us: us(sent_us) }))
    }

    /// A later list of a peer's replaces the earlier one.
    pub(super) fn on_claims(&mut self, from: NodeId, claims: &Claims) {
        let Some(peer) = self.all.iter_mut().find(|peer| peer.id() == from) else { return };
        if peer.on_claims(claims) {
            self.leases.on_claims(from, claims);
        }
    }

    /// A peer has a new connection, with this hello; the two speak `version`. The old connection is returned.
    pub(super) fn on_linked(&mut self, link: u64, hello: &Hello, version: u16, now_ms: u64) -> Option<u64> {
        self.leases.on_cut(hello.node);
        let peer = self.find(hello.node)?;
        let old = peer.link();
        peer.on_linked(link, hello, version, now_ms);
        old
    }

    /// The connection of a peer is gone.
    pub(super) fn on_cut(&mut self, from: NodeId) {
        self.leases.on_cut(from);
        self.find(from).into_iter().for_each(Peer::on_cut);
    }

    /// Whether the lease of a group with these members, which this node leads under `ballot`, holds now.
    pub(super) fn holds_lease(&self, group: GroupId, ballot: Ballot, membership: &Membership, now_us: u64) -> bool {
        membership.voters().contains(self.me) && self.leases.holds(group, ballot, membership, now_us)
    }

    /// Sends this node's claims to one peer.
    pub(super) fn tell_claims(&mut self, id: NodeId) {
        let claims = NodeMessage::Claims(self.claims.clone());
        if let Some(peer) = self.find(id) {
            peer.tell(&claims);
        }
    }

    /// Pings everybody if it is time to. True if it was. `promised` tells the highest promise in a group, if a word that is
    /// given to that member counts there.
    pub(super) fn ping(
        &mut self,
        state: PingState,
        now_us: u64,
        promised: impl Fn(GroupId, NodeId) -> Option<Ballot>,
    ) -> bool {
        let now_ms = now_us / 1_000;
        if now_ms < self.pinged_ms + PING_MS {
            return false;
        }
        self.pinged_ms = now_ms;
        if self.leases.resume(self.claims.version + 1, now_us) {
            self.renew_claims();
        }
        let roster = &self.roster;
        self.leases.forget(|id| roster.place(id).is_none(), now_us);
        let reached: Vec<NodeId> = self.all.iter().filter(|peer| peer.is_reached(now_ms)).map(Peer::id).collect();
        let claims = self.claims.version;
        let mut outdated = Vec::new();
        for peer in self.all.iter_mut().filter(|peer| peer.link().is_some()) {
            let (number, echo, echo_us, claims_seen) = peer.begin_ping(now_us);
            let held_us = now_us.saturating_sub(echo_us);
            let reached = reached.clone();
            let PingState { start, disk, full, draining, clocks } = state;
            let lease = self.leases.wanted();
            // Those that reach no majority lead nothing for long: their word would only bar others.
            let word = (echo > 0 && peer.has_authority(self.roster.voters()))
                .then(|| self.leases.give(peer.id(), echo_us, now_us, |group| promised(group, peer.id())));
            let word = word.flatten();
            peer.tell(&NodeMessage::Ping(Ping {
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
                word,
                draining,
                clocks,
            }));
            if peer.lacks_claims(claims) {
                outdated.push(peer.id());
            }
        }
        outdated.into_iter().for_each(|id| self.tell_claims(id));
        true
    }

    /// The version of values that this node may propose: the highest that every member can read, as far as is known. A
    /// member that was not seen since this node started counts as the oldest.
    pub(super) fn value_version(&self) -> u8 {
        self.all.iter().map(|peer| peer.versions().value_version()).fold(self.versions.value_version(), u8::min)
    }

    /// The version to speak with a node that has said hello.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn common_version(&self, hello: &Hello) -> Result<u16, String> {
        let (me, own, from, theirs) = (self.me, self.versions, hello.node, hello.versions);
        own.common(theirs).ok_or_else(|| {
            format!(
                "node {from} speaks {theirs} of the peer protocol, but node {me} speaks {own}: \
                 upgrade through a version that speaks both"
            )
        })
    }

    /// A message for a group that is not known here was skipped.
    pub(super) fn skip_group(&mut self) {
        self.skipped.groups += 1;
    }

    /// A message of a kind that is not known here was skipped.
    pub(super) fn skip_kind(&mut self) {
        self.skipped.kinds += 1;
    }

    pub(super) fn skipped(&self) -> Skipped {
        self.skipped
    }

    /// All of them, by id.
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

    /// One of them, to look at.
    pub(super) fn get(&self, id: NodeId) -> Option<&Peer> {
        self.all.iter().find(|peer| peer.id() == id)
    }

    /// Appends a message of this node to all of them.
    pub(super) fn tell_all(&mut self, message: &NodeMessage) {
        self.all.iter_mut().for_each(|peer| peer.tell(message));
    }

    /// Who belongs to the cluster.
    pub(super) fn roster(&self) -> &Roster {
        &self.roster
    }

    /// The frames that the turn made, with their connections.
    pub(super) fn take_frames(&mut self, mut send: impl FnMut(u64, Bytes)) {
        for peer in &mut self.all {
            if let Some(link) = peer.link() {
                peer.take_frames().for_each(|frame| send(link, frame));
            }
        }
    }

    /// Connections for which large messages wait.
    pub(super) fn filling(&self) -> Vec<u64> {
        self.all.iter().filter(|peer| peer.is_filling()).filter_map(Peer::link).collect()
    }

    /// So many bytes wait to be written to a connection.
    pub(super) fn set_unsent(&mut self, link: u64, bytes: usize) {
        if let Some(peer) = self.by_link(link) {
            peer.set_unsent(bytes);
        }
    }

    // Dialling.

    /// An attempt to connect to a peer began as `connection`, or could not begin. False if it is no peer.
    pub(super) fn on_dialling(&mut self, to: NodeId, connection: Option<u64>, now_ms: u64) -> bool {
        self.find(to).map(|peer| peer.on_dialling(connection, now_ms)).is_some()
    }

    /// An attempt to connect to a peer failed.
    pub(super) fn on_dial_failed(&mut self, to: NodeId, now_ms: u64) {
        self.find(to).into_iter().for_each(|peer| peer.on_dial_failed(now_ms));
    }

    /// A connection is gone. If it was the link of a peer, that is returned; if it was an attempt at one, that has failed.
    pub(super) fn on_connection_gone(&mut self, id: u64, now_ms: u64) -> Option<NodeId> {
        if let Some(peer) = self.all.iter_mut().find(|peer| peer.is_dialled_as(id)) {
            peer.on_dial_failed(now_ms);
        }
        let peer = self.by_link(id)?;
        let from = peer.id();
        peer.on_link_failed(now_ms);
        self.on_cut(from);
        Some(from)
    }

    /// Connections that broke were no failures of the peers.
    pub(super) fn forgive_failures(&mut self) {
        self.all.iter_mut().for_each(Peer::forgive_failures);
    }

    /// The peers that are to be dialled now, and where.
    pub(super) fn take_due_dials(&mut self, is_born: bool, now_ms: u64) -> Vec<(NodeId, String)> {
        let me = self.me;
        let due = self.all.iter_mut().filter_map(|peer| {
            peer.is_to_be_dialled(me, is_born, now_ms).then(|| (peer.id(), peer.address().to_owned()))
        });
        due.collect()
    }

    // Life.

    /// Time limits run from here: all peers count as reached at `reached_ms`. `is_born`: this node may have given leases in
    /// an earlier life.
    pub(super) fn begin(&mut self, is_born: bool, reached_ms: u64, now_us: u64) {
        if is_born {
            self.leases.begin(now_us);
        }
        self.all.iter_mut().for_each(|peer| peer.set_reached(reached_ms));
    }

    /// This node did nothing for this long; see [`Peer::forgive`]. Leases are not prolonged.
    pub(super) fn forgive(&mut self, stalled_ms: u64, now_ms: u64) {
        self.all.iter_mut().for_each(|peer| peer.forgive(stalled_ms, now_ms));
    }

    /// The connections that must be broken, as nothing was heard on them for too long.
    pub(super) fn broken(&self, now_ms: u64) -> Vec<u64> {
        self.all.iter().filter(|peer| peer.is_broken(now_ms)).filter_map(Peer::link).collect()
    }

    /// The peers that have just become silent for too long: they are taken for dead.
    pub(super) fn take_silent(&mut self, now_ms: u64) -> Vec<NodeId> {
        let silent = self.all.iter_mut().filter(|peer| peer.falls_silent(now_ms));
        silent
            .map(|peer| {
                peer.on_silent();
                peer.id()
            })
            .collect()
    }

    /// The longest round trip to a peer, in microseconds.
    pub(super) fn slowest_us(&self) -> u64 {
        self.all.iter().map(Peer::rtt_us).max().unwrap_or(0)
    }

    /// Whether a ballot of a group may be promised to `to`; see [`Leases::allows`].
    pub(super) fn allows(&self, group: GroupId, to: NodeId, promised: Ballot, clock: Clock) -> bool {
        self.leases.allows(group, to, promised, clock.mono_ms * 1_000)
    }

    // What other nodes were seen as.

    /// What a node was last seen as.
    pub(super) fn seen_as(&self, id: NodeId) -> Option<Incarnation> {
        self.incarnations.of(id)
    }

    /// A born member said hello. A start number not seen before is to be logged: a lower one later means that its disk went
    /// back in time, and so does the same one in another life.
    #[must_use]
    pub(super) fn note_hello(&mut self, hello: &Hello) -> Option<wal::Record> {
        let seen = Incarnation { storage: hello.storage, start: hello.start, life: Some(hello.life()) };
        let roster = &self.roster;
        self.incarnations.note(hello.node, seen, |id| roster.place(id).is_some())
    }

    /// Recovery: takes a record of [`Peers::note_hello`] back.
    pub(super) fn restore(&mut self, record: &wal::Record) {
        self.incarnations.restore(record);
    }

    /// What other nodes were seen as, to be logged again.
    pub(super) fn incarnation_records(&self) -> impl Iterator<Item = wal::Record> {
        self.incarnations.records()
    }
}

#[cfg(test)]
impl Peers {
    /// Has all peers be something that they did not say.
    pub(super) fn pretend(&mut self, change: impl FnMut(&mut Peer)) {
        self.all.iter_mut().for_each(change);
    }
}
