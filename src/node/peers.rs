//! The other members: which live, which are reached, what they claim to lead, and the frames on their way to them.
//!
//! Failure detection is per pair of nodes, never per group. Any byte counts as life; *reached* needs more: the peer has
//! echoed a recent ping, so that a link that works in one direction only counts as cut.

mod silence;

use super::incarnations::Incarnations;
use super::lanes::{Assembly, Lanes};
use super::leases::Leases;
use super::roster::Roster;
use super::wire::{Claims, NODE, NodeMessage, Ping, PingClocks};
use crate::config::{DISK_SLOW_MS, DISKS_MS_MAX, ECHO_MS_MAX, FRAME_BYTES, NodeConfig, PING_MS, REACH_GRACE_MS, Reads};
use crate::identity::Identity;
use crate::versions::Versions;
use bytes::Bytes;
use groups::members::MEMBERS_MAX;
use groups::{Ballot, GroupId, Instance, Members, Membership, Message, NodeId};
use net::frame::{FrameWriter, Purpose};
use net::peers::Backoff;

/// A process sends far fewer pings, and changes its list less often, than this power of two.
const START_SHIFT: u32 = 32;
/// How many pings can be on their way and still be timed.
const PINGS_TIMED: usize = 16;

/// What a ping says of its sender.
#[derive(Clone, Copy)]
pub(super) struct PingState {
    pub(super) start: u64,
    pub(super) disk: bool,
    pub(super) full: bool,
    pub(super) draining: bool,
    pub(super) clocks: Option<PingClocks>,
}

/// One other member.
pub(super) struct Peer {
    pub(super) id: NodeId,
    pub(super) address: String,
    /// Where clients are told that it is, if it says so.
    pub(super) announced: Option<String>,
    /// Where it says that members reach it.
    pub(super) told_address: Option<String>,
    /// What it spoke when it was seen last, since this node started; and the version of the newest connection.
    pub(super) versions: Option<Versions>,
    pub(super) version: u16,
    /// The connection whose handshake is done.
    pub(super) link: Option<u64>,
    /// When to dial, and the attempt in progress.
    pub(super) backoff: Backoff,
    pub(super) dialling: Option<u64>,
    /// Since when there is none.
    pub(super) unlinked_ms: Option<u64>,
    frame: FrameWriter,
    ready: Vec<Bytes>,
    /// Large messages on their way to it, how many bytes its connection has not written, and what came from it.
    pub(super) lanes: Lanes,
    pub(super) unsent: usize,
    pub(super) assembly: Assembly,
    heard_ms: u64,
    /// It was silent for too long; its connection may hold all the same.
    hushed: bool,
    sent_us: [u64; PINGS_TIMED],
    /// The number of the last ping sent. No two have the same, not even in two lives of this node: what answers one cannot
    /// be taken for an answer to another.
    pinged: u64,
    /// Pings up to this number were sent on earlier connections.
    pinged_before: u64,
    /// The number and sending time of the last ping of ours that came back.
    echoed: u64,
    echoed_ms: u64,
    /// When it was last seen to be reached.
    pub(super) reached_ms: u64,
    their_ping: u64,
    their_ping_us: u64,
    their_reach: Vec<NodeId>,
    disk: bool,
    full: bool,
    draining: bool,
    /// When its disk last answered, if only to say that it is full.
    disk_ms: u64,
    /// When it last said that its disk was late.
    late_ms: Option<u64>,
    claims: Claims,
    their_claims: u64,
    /// The version of our claims that it has.
    claims_seen: u64,
    healthy_since_ms: Option<u64>,
    rtt_us: u64,
    /// Its `next` in each group in which something was chosen, by group, and when it said so.
    pub(super) positions: Vec<(GroupId, Instance)>,
    pub(super) positions_ms: u64,
    /// The groups that it has not rebuilt yet, ascending.
    pub(super) missing: Vec<GroupId>,
}

impl Peer {
    fn new(id: NodeId, address: String, seed: u64, pinged: u64, fragment_bytes: usize) -> Peer {
        Peer {
            id,
            address,
            announced: None,
            told_address: None,
            versions: None,
            version: 0,
            link: None,
            backoff: Backoff::new(seed),
            dialling: None,
            unlinked_ms: None,
            frame: FrameWriter::new(Purpose::Live),
            ready: Vec::new(),
            lanes: Lanes::new(fragment_bytes, pinged),
            unsent: 0,
            assembly: Assembly::default(),
            heard_ms: 0,
            hushed: false,
            sent_us: [0; PINGS_TIMED],
            pinged,
            pinged_before: pinged,
            echoed: 0,
            echoed_ms: 0,
            reached_ms: 0,
            their_ping: 0,
            their_ping_us: 0,
            their_reach: Vec::new(),
            disk: false,
            full: false,
            draining: false,
            disk_ms: 0,
            late_ms: None,
            claims: Claims::default(),
            their_claims: 0,
            claims_seen: 0,
            healthy_since_ms: None,
            rtt_us: 0,
            positions: Vec::new(),
            positions_ms: 0,
            missing: Vec::new(),
        }
    }

    /// A new connection: nothing of the old one's pings means anything on it.
    fn on_linked(&mut self, link: u64, now_ms: u64) {
        self.on_cut();
        self.link = Some(link);
        (self.heard_ms, self.disk_ms) = (now_ms, now_ms);
    }

    /// The connection is gone.
    fn on_cut(&mut self) {
        (self.link, self.hushed) = (None, false);
        self.frame = FrameWriter::new(Purpose::Live);
        self.ready.clear();
        self.lanes.clear();
        (self.unsent, self.assembly) = (0, Assembly::default());
        self.pinged_before = self.pinged;
        (self.echoed, self.echoed_ms, self.their_ping) = (0, 0, 0);
        self.claims_seen = 0;
        self.missing.clear();
        self.forget_claims();
    }

    /// Where it is dialled for transfers. A guest has no address among the members: it has told one.
    pub(super) fn transfer_address(&self) -> Option<&str> {
        let known = Some(&*self.address).filter(|address| !address.is_empty());
        known.or(self.told_address.as_deref())
    }

    /// Whether it lives and hears this node.
    pub(super) fn is_reached(&self, now_ms: u64) -> bool {
        self.link.is_some() && self.echoed > 0 && now_ms <= self.echoed_ms + ECHO_MS_MAX
    }

    /// Whether it is reached, and its disk answers. One that does not cannot vote, and must not keep others from a majority
    /// that can.
    fn can_vote(&self, now_ms: u64) -> bool {
        self.is_reached(now_ms) && now_ms < self.disk_ms + DISKS_MS_MAX
    }

    /// What it leads, as it says, and the nodes that it reaches: each group judges by them whether the claim counts.
    pub(super) fn claims(&self) -> (&[(GroupId, Ballot)], &[NodeId]) {
        (&self.claims.led, &self.their_reach)
    }

    /// Whether its word is worth anything: it lives, and says that it reaches a majority of `voters`.
    fn has_authority(&self, voters: &Members) -> bool {
        let reached = self.their_reach.iter().filter(|id| voters.contains(**id) && **id != self.id).count();
        self.link.is_some() && reached + usize::from(voters.contains(self.id)) >= voters.quorum()
    }

    /// Tells whether it reaches others than before, and when the ping of ours was sent that this one answers, if that is
    /// known.
    fn on_ping(&mut self, ping: &Ping, now_us: u64) -> (bool, Option<u64>) {
        let now_ms = now_us / 1_000;
        if ping.number > self.their_ping {
            (self.their_ping, self.their_ping_us) = (ping.number, now_us);
        }
        // Only now: a peer that says hello and then refuses would be dialled at the highest rate for ever.
        self.backoff.on_success();
        let is_reach_other = self.their_reach != ping.reached;
        self.their_reach.clone_from(&ping.reached);
        (self.disk, self.full, self.draining) = (ping.disk, ping.full, ping.draining);
        if ping.disk || ping.full {
            self.disk_ms = now_ms;
        } else {
            self.late_ms = Some(now_ms);
        }
        self.their_claims = ping.claims;
        self.claims_seen = ping.claims_seen;
        let ours = self.pinged_before < ping.echo && ping.echo <= self.pinged;
        let timed = ours && self.pinged - ping.echo < PINGS_TIMED as u64;
        let sent_us = timed.then(|| self.sent_us[ping.echo as usize % PINGS_TIMED]);
        let sent_us = sent_us.filter(|_| ping.echo >= self.echoed);
        if let Some(sent_us) = sent_us.filter(|_| ping.echo > self.echoed) {
            // The echo of a ping that was on its way during a stall is older than what the stall is forgiven.
            (self.echoed, self.echoed_ms) = (ping.echo, self.echoed_ms.max(sent_us / 1_000));
            self.rtt_us = now_us.saturating_sub(sent_us.saturating_add(ping.held_us));
        }
        if !self.is_reached(now_ms) || !self.disk {
            self.healthy_since_ms = None;
        } else if self.healthy_since_ms.is_none() {
            self.healthy_since_ms = Some(now_ms);
        }
        (is_reach_other, sent_us)
    }

    /// Since when it has been reached without a break, with a disk that answers.
    pub(super) fn healthy_since_ms(&self) -> Option<u64> {
        self.healthy_since_ms
    }

    /// Whether its disk answers and has space, as of its last ping.
    pub(super) fn has_disk(&self) -> bool {
        self.disk
    }

    /// Whether its disk has no space.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// Whether it has not rebuilt that group yet.
    pub(super) fn lacks(&self, group: GroupId) -> bool {
        self.missing.binary_search(&group).is_ok()
    }

    /// Whether there is a group that it lacks.
    pub(super) fn is_loading(&self) -> bool {
        !self.missing.is_empty()
    }

    /// Whether it is to lead nothing.
    pub(super) fn is_draining(&self) -> bool {
        self.draining
    }

    pub(super) fn rtt_us(&self) -> u64 {
        self.rtt_us
    }

    /// Appends a message of this node.
    pub(super) fn tell(&mut self, message: &NodeMessage) {
        if self.link.is_some() {
            self.close_large_frame();
            self.frame.message(NODE, message.kind(), |out| message.put(out));
        }
    }

    /// Appends a message of a group, if the node can read the values in it. Members can read all that is chosen; but one
    /// that was removed, and does not know it yet, may be of an older version.
    pub(super) fn send(&mut self, group: GroupId, message: &Message) {
        let readable = self.versions.unwrap_or_default().value_version();
        if self.link.is_none() || message.value_version() > readable {
            return;
        }
        if self.version >= Versions::FRAGMENTS && self.lanes.concerns(group, message) {
            self.lanes.push(group, message);
        } else {
            self.close_large_frame();
            self.frame.message(group.0, message.kind(), |out| message.encode_head(out));
        }
    }

    fn close_large_frame(&mut self) {
        if self.frame.len() > FRAME_BYTES {
            self.frame.finish(&mut self.ready);
        }
    }

    /// The frames that the turn made, for its connection.
    pub(super) fn take_frames(&mut self) -> impl Iterator<Item = Bytes> {
        self.frame.finish(&mut self.ready);
        self.lanes.fill(self.unsent, &mut self.frame, &mut self.ready);
        self.ready.drain(..)
    }

    /// Whether large messages wait that its connection would take.
    pub(super) fn has_room(&self) -> bool {
        self.link.is_some() && self.unsent == 0 && !self.lanes.is_empty()
    }
}

/// All other members.
pub(super) struct Peers {
    me: NodeId,
    /// By id.
    pub(super) all: Vec<Peer>,
    /// Addresses that the operator gives, which count more than those that the cluster knows.
    corrected: Vec<(NodeId, String)>,
    pub(super) incarnations: Incarnations,
    seed: u64,
    fragment_bytes: usize,
    /// Peers that are gone were sent no ping of a higher number.
    pinged: u64,
    pub(super) roster: Roster,
    /// The groups that this node leads, as told to the others.
    claims: Claims,
    pub(super) leases: Leases,
    pinged_ms: u64,
}

impl Peers {
    /// The other members of `roster`, with the addresses that the operator gives where there are any.
    pub(super) fn new(identity: &Identity, roster: Roster, config: &NodeConfig) -> Peers {
        let start = identity.start;
        let mut peers = Peers {
            me: identity.node,
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
        };
        peers.enroll(roster);
        peers
    }

    /// A node of this cluster that the groups do not know of: it may have joined while this one was away, and can tell of
    /// that. It is a peer for as long as its connection lasts. False if there are too many.
    pub(super) fn admit_guest(&mut self, id: NodeId) -> bool {
        if self.all.iter().any(|peer| peer.id == id) {
            return true;
        }
        let guests = self.all.iter().filter(|peer| self.roster.place(peer.id).is_none()).count();
        if guests < MEMBERS_MAX {
            self.all.push(self.peer(id, String::new()));
            self.all.sort_by_key(|peer| peer.id);
        }
        guests < MEMBERS_MAX
    }

    /// A guest leaves.
    pub(super) fn dismiss_guest(&mut self, id: NodeId) {
        if self.roster.place(id).is_some() {
            return;
        }
        let pinged = self.all.extract_if(.., |peer| peer.id == id).map(|gone| gone.pinged);
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
            match self.all.iter().position(|peer| peer.id == place.node) {
                Some(at) => self.all[at].address = address,
                None => self.all.push(self.peer(place.node, address)),
            }
        }
        self.all.sort_by_key(|peer| peer.id);
        self.leases.enroll(self.all.iter().map(|peer| peer.id));
        self.roster = roster;
        let roster = &self.roster;
        let gone: Vec<Peer> = self.all.extract_if(.., |peer| roster.was_removed(peer.id)).collect();
        self.incarnations.forget(|id| roster.was_removed(id));
        self.pinged = gone.iter().map(|peer| peer.pinged).fold(self.pinged, u64::max);
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
        self.all.iter_mut().find(|peer| peer.id == id)
    }

    pub(super) fn by_link(&mut self, link: u64) -> Option<&mut Peer> {
        self.all.iter_mut().find(|peer| peer.link == Some(link))
    }

    /// Those with a connection whose handshake is done.
    pub(super) fn linked(&self) -> impl Iterator<Item = &Peer> {
        self.all.iter().filter(|peer| peer.link.is_some())
    }

    /// The members that this node reaches and that can vote, ascending.
    pub(super) fn reached(&self, now_ms: u64) -> Vec<NodeId> {
        self.all.iter().filter(|peer| peer.can_vote(now_ms)).map(|peer| peer.id).collect()
    }

    /// The members that this node reaches, or reached a moment ago.
    pub(super) fn hopeful(&mut self, now_ms: u64) -> Vec<NodeId> {
        let reached = self.all.iter_mut().filter(|peer| peer.is_reached(now_ms));
        reached.for_each(|peer| peer.reached_ms = now_ms);
        let hopeful = self.all.iter().filter(|peer| now_ms < peer.reached_ms + REACH_GRACE_MS);
        hopeful.map(|peer| peer.id).collect()
    }

    /// Whether a majority could be had only with voters whose disks are full. `own`: this node's is.
    pub(super) fn quorum_is_full(&self, own: bool) -> bool {
        let votes = self.voters().contains(self.me);
        let connected = || self.all.iter().filter(|peer| peer.link.is_some() && self.voters().contains(peer.id));
        let full = connected().filter(|peer| peer.full).count() + usize::from(own && votes);
        full > 0 && connected().count() + usize::from(votes) - full < self.voters().quorum()
    }

    /// Whether a majority without this node is reached and has disks that take what comes.
    pub(super) fn quorum_has_space(&self, now_ms: u64) -> bool {
        self.have_disks(now_ms).count() >= self.voters().quorum()
    }

    /// Whether that majority's disks were not late of late either.
    pub(super) fn quorum_is_quick(&self, now_ms: u64) -> bool {
        let is_quick = |peer: &&Peer| peer.late_ms.is_none_or(|late_ms| now_ms >= late_ms + DISK_SLOW_MS);
        self.have_disks(now_ms).filter(is_quick).count() >= self.voters().quorum()
    }

    fn have_disks(&self, now_ms: u64) -> impl Iterator<Item = &Peer> {
        self.all.iter().filter(move |peer| self.voters().contains(peer.id) && peer.is_reached(now_ms) && peer.disk)
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
        self.all.iter_mut().for_each(|peer| peer.tell(&claims));
    }

    /// Tells whether the peer reaches others than before, and how long the ping and the one that it answers were on their
    /// way together, if that is known.
    pub(super) fn on_ping(&mut self, from: NodeId, ping: &Ping, now_us: u64) -> (bool, Option<u64>) {
        let Some(peer) = self.find(from) else { return (false, None) };
        let (is_reach_other, sent_us) = peer.on_ping(ping, now_us);
        self.leases.on_ping(from, ping.lease, ping.claims_seen, ping.word.as_ref(), sent_us);
        (is_reach_other, sent_us.map(|sent_us| now_us.saturating_sub(sent_us.saturating_add(ping.held_us))))
    }

    /// A later list of a peer's replaces the earlier one.
    pub(super) fn on_claims(&mut self, from: NodeId, claims: Claims) {
        let Some(peer) = self.all.iter_mut().find(|peer| peer.id == from) else { return };
        if claims.version >= peer.claims.version {
            self.leases.on_claims(from, &claims);
            peer.claims = claims;
        }
    }

    /// A peer has a new connection.
    pub(super) fn on_linked(&mut self, from: NodeId, link: u64, now_ms: u64) {
        self.leases.on_cut(from);
        self.find(from).into_iter().for_each(|peer| peer.on_linked(link, now_ms));
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
        let reached: Vec<NodeId> = self.all.iter().filter(|peer| peer.is_reached(now_ms)).map(|peer| peer.id).collect();
        let claims = self.claims.version;
        let mut outdated = Vec::new();
        for peer in self.all.iter_mut().filter(|peer| peer.link.is_some()) {
            peer.pinged += 1;
            peer.sent_us[peer.pinged as usize % PINGS_TIMED] = now_us;
            let (number, echo, claims_seen) = (peer.pinged, peer.their_ping, peer.claims.version);
            let held_us = now_us.saturating_sub(peer.their_ping_us);
            let reached = reached.clone();
            let PingState { start, disk, full, draining, clocks } = state;
            let lease = self.leases.wanted();
            // Those that reach no majority lead nothing for long: their word would only bar others.
            let word = (echo > 0 && peer.has_authority(self.roster.voters()))
                .then(|| self.leases.give(peer.id, peer.their_ping_us, now_us, |group| promised(group, peer.id)));
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
            // It answered a ping sent since, and still has an older list: what carried the newer one was lost.
            if peer.echoed > peer.pinged_before + 1 && peer.claims_seen != claims {
                outdated.push(peer.id);
            }
        }
        outdated.into_iter().for_each(|id| self.tell_claims(id));
        true
    }
}
