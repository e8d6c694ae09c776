//! One other member: its connection, its liveness and reach, its reports, and the frames to it. Any byte
//! shows that a peer lives. A peer is *reached* only if it has echoed a recent ping. So a link that works in only one
//! direction counts as cut.
//!
//! A silent peer counts as dead, so that others lead its groups, but its connection is cut only later. The peer may be
//! busy, with a large value for example, and after a cut everything in flight would have to be sent again.

use super::lanes::{Arrived, Assembly, Lanes};
use crate::config::{
    BROKEN_MS_MAX, DISK_SLOW_MS, DISKS_MS_MAX, ECHO_MS_MAX, FRAME_BYTES, REACH_GRACE_MS, SILENT_MS_MAX,
};
use crate::endpoint::Endpoint;
use crate::node::wire::{Claims, Hello, NODE, NodeMessage, Ping, Positions};
use crate::versions::Versions;
use bytes::Bytes;
use groups::{Ballot, GroupId, Instance, Members, Message, Ms, NodeId, Us};
use net::backoff::Backoff;
use net::event::ConnectionId;
use net::frame::{FrameCounts, FrameWriter, Purpose};

/// Maximum number of pings in flight whose sending times are kept.
const PINGS_TIMED: usize = 16;
/// A peer that should dial this node, and has not connected for 5 s, is dialled instead, at most once in 5 s.
const LONELY_MS: Ms = Ms(5_000);

/// One other member, or a guest.
pub(in crate::node) struct Peer {
    id: NodeId,
    address: String,
    /// The address of the peer for clients, if it announces one.
    announced: Option<String>,
    /// The address of the peer for members, as the peer tells it.
    told_address: Option<String>,
    /// The versions that the peer spoke at its last handshake with this process (`None` before the first handshake),
    /// and the version of the newest connection.
    versions: Option<Versions>,
    version: u16,
    /// The connection whose handshake is done.
    link: Option<ConnectionId>,
    /// The redial schedule, and the attempt in progress.
    backoff: Backoff,
    dialling: Option<ConnectionId>,
    /// Start of the time without a connection, or the last dial in place of the peer (see `LONELY_MS`).
    unlinked_ms: Option<Ms>,
    frame: FrameWriter,
    ready: Vec<Bytes>,
    /// Large messages to the peer, the bytes that its connection has not written, and the fragments that came from it.
    lanes: Lanes,
    unsent: usize,
    assembly: Assembly,
    heard_ms: Ms,
    /// True after the peer was silent for too long. Its connection may still hold.
    counts_as_dead: bool,
    sent_us: [Us; PINGS_TIMED],
    /// The number of the last ping sent. Numbers are unique, even over two starts of this node: so each echo belongs to
    /// exactly one ping.
    pinged: u64,
    /// Pings up to this number were sent on earlier connections.
    pinged_before: u64,
    /// The number and sending time of the last ping of this node that the peer echoed.
    echoed: u64,
    echoed_ms: Ms,
    /// When this node last found the peer reached.
    reached_ms: Ms,
    their_ping: u64,
    their_ping_us: Us,
    their_reach: Vec<NodeId>,
    disk: bool,
    full: bool,
    draining: bool,
    /// When the peer's disk last answered, even if it was full.
    disk_ms: Ms,
    /// When the peer last said that its disk was late.
    late_ms: Option<Ms>,
    claims: Claims,
    /// The version of this node's claims that the peer has.
    claims_seen: u64,
    healthy_since_ms: Option<Ms>,
    rtt_us: Us,
    /// The peer's `next` in each group in which something was chosen, by group, and when the peer said so.
    positions: Vec<(GroupId, Instance)>,
    positions_ms: Ms,
    /// The groups that the peer has not rebuilt yet, ascending.
    missing: Vec<GroupId>,
}

impl Peer {
    pub(super) fn new(id: NodeId, address: String, seed: u64, pinged: u64, fragment_bytes: usize) -> Peer {
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
            heard_ms: Ms(0),
            counts_as_dead: false,
            sent_us: [Us(0); PINGS_TIMED],
            pinged,
            pinged_before: pinged,
            echoed: 0,
            echoed_ms: Ms(0),
            reached_ms: Ms(0),
            their_ping: 0,
            their_ping_us: Us(0),
            their_reach: Vec::new(),
            disk: false,
            full: false,
            draining: false,
            disk_ms: Ms(0),
            late_ms: None,
            claims: Claims::default(),
            claims_seen: 0,
            healthy_since_ms: None,
            rtt_us: Us(0),
            positions: Vec::new(),
            positions_ms: Ms(0),
            missing: Vec::new(),
        }
    }

    /// Takes a new connection. Echoes of pings that were sent on the old connection no longer count. `version`: the
    /// version that the two nodes speak.
    pub(super) fn on_linked(&mut self, link: ConnectionId, hello: &Hello, version: u16, now_ms: Ms) {
        self.on_cut();
        (self.link, self.dialling) = (Some(link), None);
        (self.heard_ms, self.disk_ms) = (now_ms, now_ms);
        (self.version, self.versions) = (version, Some(hello.versions));
        let told = |address: &Option<String>| address.clone().filter(|address| Endpoint::parse(address).is_some());
        (self.announced, self.told_address) = (told(&hello.announced), told(&hello.address));
    }

    /// Drops all state that belongs to the connection.
    pub(super) fn on_cut(&mut self) {
        (self.link, self.counts_as_dead) = (None, false);
        self.frame = FrameWriter::new(Purpose::Live);
        self.ready.clear();
        self.lanes.clear();
        (self.unsent, self.assembly) = (0, Assembly::default());
        self.pinged_before = self.pinged;
        (self.echoed, self.echoed_ms, self.their_ping) = (0, Ms(0), 0);
        self.claims_seen = 0;
        self.missing.clear();
        self.forget_claims();
    }

    /// Returns the address to dial for transfers. The address of a guest is known only from its hello.
    pub(in crate::node) fn transfer_address(&self) -> Option<&str> {
        let known = Some(&*self.address).filter(|address| !address.is_empty());
        known.or(self.told_address.as_deref())
    }

    /// Returns true if the peer is connected and has echoed a recent ping.
    pub(in crate::node) fn is_reached(&self, now_ms: Ms) -> bool {
        self.link.is_some() && self.echoed > 0 && now_ms <= self.echoed_ms + ECHO_MS_MAX
    }

    /// Returns true if the peer is reached and its disk has answered within [`DISKS_MS_MAX`]. A peer whose disk does
    /// not answer cannot vote. It must not keep the other members from forming a majority that can vote.
    pub(super) fn can_vote(&self, now_ms: Ms) -> bool {
        self.is_reached(now_ms) && now_ms < self.disk_ms + DISKS_MS_MAX
    }

    /// Returns the groups that the peer claims to lead, and the nodes that it reaches. The claim to a group counts only
    /// if these nodes and the peer are a majority of the group.
    pub(in crate::node) fn claims(&self) -> (&[(GroupId, Ballot)], &[NodeId]) {
        (&self.claims.led, &self.their_reach)
    }

    /// Returns true if a lease for the peer is of use: it is connected, and says that it reaches a majority of
    /// `voters`.
    pub(super) fn has_authority(&self, voters: &Members) -> bool {
        let reached = self.their_reach.iter().filter(|id| voters.contains(**id) && **id != self.id).count();
        self.link.is_some() && reached + usize::from(voters.contains(self.id)) >= voters.quorum()
    }

    /// Takes a ping. Returns whether the set of nodes that the peer reaches has changed, and the sending time of the
    /// ping that this one answers, if it is known.
    pub(super) fn on_ping(&mut self, ping: &Ping, now_us: Us) -> (bool, Option<Us>) {
        let now_ms = now_us.to_ms();
        if ping.number > self.their_ping {
            (self.their_ping, self.their_ping_us) = (ping.number, now_us);
        }
        // Success is noted only here: else a peer that says hello and then refuses would be dialled at the highest rate
        // for ever.
        self.backoff.on_success();
        let is_reach_other = self.their_reach != ping.reached;
        self.their_reach.clone_from(&ping.reached);
        (self.disk, self.full, self.draining) = (ping.disk, ping.full, ping.draining);
        if ping.disk || ping.full {
            self.disk_ms = now_ms;
        } else {
            self.late_ms = Some(now_ms);
        }
        self.claims_seen = ping.claims_seen;
        let ours = self.pinged_before < ping.echo && ping.echo <= self.pinged;
        let timed = ours && self.pinged - ping.echo < PINGS_TIMED as u64;
        let sent_us = timed.then(|| self.sent_us[ping.echo as usize % PINGS_TIMED]);
        let sent_us = sent_us.filter(|_| ping.echo >= self.echoed);
        if let Some(sent_us) = sent_us.filter(|_| ping.echo > self.echoed) {
            // `echoed_ms` never goes back: after a stall, [`Peer::compensate_stall`] may have moved it beyond the
            // sending time of a ping in flight.
            (self.echoed, self.echoed_ms) = (ping.echo, self.echoed_ms.max(sent_us.to_ms()));
            self.rtt_us = now_us.saturating_sub(sent_us.saturating_add(ping.held_us));
        }
        if !self.is_reached(now_ms) || !self.disk {
            self.healthy_since_ms = None;
        } else if self.healthy_since_ms.is_none() {
            self.healthy_since_ms = Some(now_ms);
        }
        (is_reach_other, sent_us)
    }

    /// Returns since when the peer has been reached without a break, with a disk that answers and has space.
    pub(in crate::node) fn healthy_since_ms(&self) -> Option<Ms> {
        self.healthy_since_ms
    }

    /// Returns true if the peer's disk answers and has space, by its last ping.
    pub(in crate::node) fn has_disk(&self) -> bool {
        self.disk
    }

    /// Returns true if the peer's disk has no space.
    pub(in crate::node) fn is_full(&self) -> bool {
        self.full
    }

    /// Returns true if the peer has not rebuilt that group yet.
    pub(in crate::node) fn lacks(&self, group: GroupId) -> bool {
        self.missing.binary_search(&group).is_ok()
    }

    /// Returns true if the peer has not rebuilt all groups yet.
    pub(in crate::node) fn is_loading(&self) -> bool {
        !self.missing.is_empty()
    }

    /// Returns true if the peer is drained: it should lead no group.
    pub(in crate::node) fn is_draining(&self) -> bool {
        self.draining
    }

    pub(in crate::node) fn rtt_us(&self) -> Us {
        self.rtt_us
    }

    /// Appends a message of this node to the peer's frames.
    pub(in crate::node) fn send_node_message(&mut self, message: &NodeMessage) {
        if self.link.is_some() {
            self.close_large_frame();
            self.frame.message(NODE, message.kind(), |out| message.put(out));
        }
    }

    /// Appends a message of a group, if the peer can read the values in it. Members can read all chosen values. But a
    /// node that was removed, and does not know it yet, may speak an older version.
    pub(in crate::node) fn send(&mut self, group: GroupId, message: &Message) {
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

    /// Returns the counts of frames and messages since the last call.
    pub(super) fn take_counts(&mut self) -> FrameCounts {
        self.frame.take_counts()
    }

    /// Returns the frames of this turn for the peer's connection.
    pub(in crate::node) fn take_frames(&mut self) -> impl Iterator<Item = Bytes> {
        self.frame.finish(&mut self.ready);
        self.lanes.fill(self.unsent, &mut self.frame, &mut self.ready);
        self.ready.drain(..)
    }

    /// Returns true if large messages wait and the connection has room for them.
    pub(in crate::node) fn has_room(&self) -> bool {
        self.link.is_some() && self.unsent == 0 && !self.lanes.is_empty()
    }

    pub(in crate::node) fn id(&self) -> NodeId {
        self.id
    }

    /// Returns the address of the peer for members; empty for a guest.
    pub(in crate::node) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn set_address(&mut self, address: String) {
        self.address = address;
    }

    /// Returns the address of the peer for clients, if it announces one.
    pub(in crate::node) fn announced(&self) -> Option<&str> {
        self.announced.as_deref()
    }

    /// Returns the connection whose handshake is done.
    pub(in crate::node) fn link(&self) -> Option<ConnectionId> {
        self.link
    }

    /// Returns the version that the newest connection speaks.
    pub(in crate::node) fn version(&self) -> u16 {
        self.version
    }

    /// Returns the versions that the peer spoke when it was last seen, since this node started.
    pub(in crate::node) fn versions(&self) -> Versions {
        self.versions.unwrap_or_default()
    }

    // Dialling.

    /// Notes that an attempt to connect began as `connection`, or could not begin.
    pub(super) fn on_dialling(&mut self, connection: Option<ConnectionId>, now_ms: Ms) {
        self.dialling = connection;
        if connection.is_none() {
            self.backoff.on_failure(now_ms.0);
        }
    }

    /// Notes that the attempt to connect failed.
    pub(super) fn on_dial_failed(&mut self, now_ms: Ms) {
        self.dialling = None;
        self.backoff.on_failure(now_ms.0);
    }

    /// Notes that the connection broke. An attempt at another one goes on.
    pub(super) fn on_link_failed(&mut self, now_ms: Ms) {
        self.backoff.on_failure(now_ms.0);
    }

    pub(super) fn is_dialled_as(&self, connection: ConnectionId) -> bool {
        self.dialling == Some(connection)
    }

    /// Resets the redial delay: the broken connection was not a failure of this peer.
    pub(super) fn reset_backoff(&mut self) {
        self.backoff.on_success();
    }

    /// Returns true if the node `me` should dial the peer now.
    pub(super) fn is_to_be_dialled(&mut self, me: NodeId, is_born: bool, now_ms: Ms) -> bool {
        if self.link.is_some() || self.address.is_empty() {
            self.unlinked_ms = self.unlinked_ms.filter(|_| self.link.is_none());
            return false;
        }
        let unlinked_ms = *self.unlinked_ms.get_or_insert(now_ms);
        // The node that should dial may not know this one yet, or may have lost its address.
        let is_due = self.id < me || (is_born && now_ms >= unlinked_ms + LONELY_MS);
        if !is_due || self.dialling.is_some() || !self.backoff.is_due(now_ms.0) {
            return false;
        }
        if self.id > me {
            self.unlinked_ms = Some(now_ms);
        }
        true
    }

    // Liveness.

    /// Notes that bytes came: any byte shows that the peer lives.
    pub(in crate::node) fn on_bytes(&mut self, now_ms: Ms) {
        (self.heard_ms, self.counts_as_dead) = (now_ms, false);
    }

    pub(in crate::node) fn silent_ms(&self, now_ms: Ms) -> Ms {
        now_ms.saturating_sub(self.heard_ms)
    }

    /// Returns true if the peer has just been silent for too long.
    pub(super) fn falls_silent(&self, now_ms: Ms) -> bool {
        self.link.is_some() && !self.counts_as_dead && now_ms > self.heard_ms + SILENT_MS_MAX
    }

    /// Makes the peer count as dead until a byte comes from it.
    pub(super) fn on_silent(&mut self) {
        self.counts_as_dead = true;
        self.forget_claims();
    }

    /// Returns true if the connection must be cut: nothing was heard on it for more than [`BROKEN_MS_MAX`].
    pub(super) fn is_broken(&self, now_ms: Ms) -> bool {
        self.link.is_some() && now_ms > self.heard_ms + BROKEN_MS_MAX
    }

    /// Compensates a stall of this node of `stalled_ms`. The peer's messages from that time still wait to be read. So
    /// neither its silence nor the age of its last echo proves anything. Times are moved forward by the stall, but not
    /// beyond now.
    pub(super) fn compensate_stall(&mut self, stalled_ms: Ms, now_ms: Ms) {
        for at_ms in [&mut self.heard_ms, &mut self.echoed_ms, &mut self.reached_ms, &mut self.disk_ms] {
            *at_ms = now_ms.min(*at_ms + stalled_ms);
        }
    }

    /// Makes the peer count as reached at that time.
    pub(super) fn set_reached(&mut self, at_ms: Ms) {
        self.reached_ms = at_ms;
    }

    /// Returns true if the peer is reached, or was less than [`REACH_GRACE_MS`] ago.
    pub(super) fn is_recently_reached(&mut self, now_ms: Ms) -> bool {
        if self.is_reached(now_ms) {
            self.reached_ms = now_ms;
        }
        now_ms < self.reached_ms + REACH_GRACE_MS
    }

    /// Returns true if the peer's disk was not late in the last [`DISK_SLOW_MS`].
    pub(super) fn is_quick(&self, now_ms: Ms) -> bool {
        self.late_ms.is_none_or(|late_ms| now_ms >= late_ms + DISK_SLOW_MS)
    }

    // Pings and claims.

    /// Returns the number of the last ping sent.
    pub(in crate::node) fn pinged(&self) -> u64 {
        self.pinged
    }

    /// Begins the next ping. Returns its number, the peer's number that it echoes, when that came, and the version of
    /// the peer's claims that this node has.
    pub(super) fn begin_ping(&mut self, now_us: Us) -> (u64, u64, Us, u64) {
        self.pinged += 1;
        self.sent_us[self.pinged as usize % PINGS_TIMED] = now_us;
        (self.pinged, self.their_ping, self.their_ping_us, self.claims.version)
    }

    /// Returns true if the message with this node's newest claims, of version `version`, may be lost: the peer has
    /// echoed the second ping of this connection or a later one, and its last ping names another version.
    pub(super) fn lacks_claims(&self, version: u64) -> bool {
        self.echoed > self.pinged_before + 1 && self.claims_seen != version
    }

    /// Takes a list of claims, unless it is older than the known one. Returns true if it was taken.
    pub(super) fn on_claims(&mut self, claims: &Claims) -> bool {
        let is_newer = claims.version >= self.claims.version;
        if is_newer {
            self.claims.clone_from(claims);
        }
        is_newer
    }

    /// Drops the peer's claims until it claims again.
    fn forget_claims(&mut self) {
        self.claims = Claims::default();
        self.their_reach.clear();
        self.healthy_since_ms = None;
    }

    // Groups.

    /// Takes the peer's report of its positions in the groups.
    pub(in crate::node) fn set_positions(&mut self, positions: &Positions, now_ms: Ms) {
        self.positions.clone_from(&positions.next);
        self.positions_ms = now_ms;
    }

    /// Returns the peer's `next` in a group, if the peer has reported positions in the last `ms_max` milliseconds.
    pub(in crate::node) fn position(&self, group: GroupId, ms_max: Ms, now_ms: Ms) -> Option<Instance> {
        if self.link.is_none() || self.positions_ms == Ms(0) || now_ms > self.positions_ms + ms_max {
            return None;
        }
        let known = self.positions.binary_search_by_key(&group, |(id, _)| *id);
        Some(known.map_or(Instance::FIRST, |at| self.positions[at].1))
    }

    /// Notes the groups that the peer has not rebuilt yet.
    pub(in crate::node) fn set_missing(&mut self, mut groups: Vec<GroupId>) {
        groups.sort_unstable();
        self.missing = groups;
    }

    // Large messages.

    /// Adds a fragment that has come; see [`Assembly::add`].
    pub(in crate::node) fn assemble(&mut self, body: &[u8], bytes_max: usize) -> Result<Arrived, String> {
        self.assembly.add(body, bytes_max)
    }

    /// Notes how many bytes wait to be written to the connection.
    pub(super) fn set_unsent(&mut self, bytes: usize) {
        self.unsent = bytes;
    }

    /// Returns true if large messages wait for the connection.
    pub(super) fn is_filling(&self) -> bool {
        !self.lanes.is_empty()
    }
}

#[cfg(test)]
impl Peer {
    pub(in crate::node) fn set_versions(&mut self, versions: Versions) {
        self.versions = Some(versions);
    }

    pub(in crate::node) fn set_version(&mut self, version: u16) {
        self.version = version;
    }
}

#[cfg(test)]
mod tests;
