//! One other member: its connection, whether it lives and is reached, what it says of itself, and the frames on their way to
//! it. Any byte counts as life; *reached* needs more: the peer has echoed a recent ping, so that a link that works in one
//! direction only counts as cut.
//!
//! A peer that is silent is taken for dead, so that others lead its groups; but its connection is cut only later. It may be
//! busy, with a large value for example, and whatever is on its way to it would have to be sent again.

use super::lanes::{Arrived, Assembly, Lanes};
use crate::config::{
    BROKEN_MS_MAX, DISK_SLOW_MS, DISKS_MS_MAX, ECHO_MS_MAX, FRAME_BYTES, REACH_GRACE_MS, SILENT_MS_MAX,
};
use crate::endpoint::Endpoint;
use crate::node::wire::{Claims, Hello, NODE, NodeMessage, Ping, Positions};
use crate::versions::Versions;
use bytes::Bytes;
use groups::{Ballot, GroupId, Instance, Members, Message, NodeId};
use net::frame::{FrameWriter, Purpose};
use net::peers::Backoff;

/// How many pings can be on their way and still be timed.
const PINGS_TIMED: usize = 16;
/// A peer that should dial this node, and has not connected for 5 s, is dialled instead, at most once in 5 s.
const LONELY_MS: u64 = 5_000;

/// One other member.
pub(in crate::node) struct Peer {
    id: NodeId,
    address: String,
    /// Where clients are told that it is, if it says so.
    announced: Option<String>,
    /// Where it says that members reach it.
    told_address: Option<String>,
    /// What it spoke when it was seen last, since this node started; and the version of the newest connection.
    versions: Option<Versions>,
    version: u16,
    /// The connection whose handshake is done.
    link: Option<u64>,
    /// When to dial, and the attempt in progress.
    backoff: Backoff,
    dialling: Option<u64>,
    /// Since when there is none.
    unlinked_ms: Option<u64>,
    frame: FrameWriter,
    ready: Vec<Bytes>,
    /// Large messages on their way to it, how many bytes its connection has not written, and what came from it.
    lanes: Lanes,
    unsent: usize,
    assembly: Assembly,
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
    reached_ms: u64,
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
    /// The version of our claims that it has.
    claims_seen: u64,
    healthy_since_ms: Option<u64>,
    rtt_us: u64,
    /// Its `next` in each group in which something was chosen, by group, and when it said so.
    positions: Vec<(GroupId, Instance)>,
    positions_ms: u64,
    /// The groups that it has not rebuilt yet, ascending.
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
            claims_seen: 0,
            healthy_since_ms: None,
            rtt_us: 0,
            positions: Vec::new(),
            positions_ms: 0,
            missing: Vec::new(),
        }
    }

    /// A new connection: nothing of the old one's pings means anything on it. `version`: the two speak it.
    pub(super) fn on_linked(&mut self, link: u64, hello: &Hello, version: u16, now_ms: u64) {
        self.on_cut();
        (self.link, self.dialling) = (Some(link), None);
        (self.heard_ms, self.disk_ms) = (now_ms, now_ms);
        (self.version, self.versions) = (version, Some(hello.versions));
        let told = |address: &Option<String>| address.clone().filter(|address| Endpoint::parse(address).is_some());
        (self.announced, self.told_address) = (told(&hello.announced), told(&hello.address));
    }

    /// The connection is gone.
    pub(super) fn on_cut(&mut self) {
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
    pub(in crate::node) fn transfer_address(&self) -> Option<&str> {
        let known = Some(&*self.address).filter(|address| !address.is_empty());
        known.or(self.told_address.as_deref())
    }

    /// Whether it lives and hears this node.
    pub(in crate::node) fn is_reached(&self, now_ms: u64) -> bool {
        self.link.is_some() && self.echoed > 0 && now_ms <= self.echoed_ms + ECHO_MS_MAX
    }

    /// Whether it is reached, and its disk answers. One that does not cannot vote, and must not keep others from a majority
    /// that can.
    pub(super) fn can_vote(&self, now_ms: u64) -> bool {
        self.is_reached(now_ms) && now_ms < self.disk_ms + DISKS_MS_MAX
    }

    /// What it leads, as it says, and the nodes that it reaches: each group judges by them whether the claim counts.
    pub(in crate::node) fn claims(&self) -> (&[(GroupId, Ballot)], &[NodeId]) {
        (&self.claims.led, &self.their_reach)
    }

    /// Whether its word is worth anything: it lives, and says that it reaches a majority of `voters`.
    pub(super) fn has_authority(&self, voters: &Members) -> bool {
        let reached = self.their_reach.iter().filter(|id| voters.contains(**id) && **id != self.id).count();
        self.link.is_some() && reached + usize::from(voters.contains(self.id)) >= voters.quorum()
    }

    /// Tells whether it reaches others than before, and when the ping of ours was sent that this one answers, if that is
    /// known.
    pub(super) fn on_ping(&mut self, ping: &Ping, now_us: u64) -> (bool, Option<u64>) {
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
    pub(in crate::node) fn healthy_since_ms(&self) -> Option<u64> {
        self.healthy_since_ms
    }

    /// Whether its disk answers and has space, as of its last ping.
    pub(in crate::node) fn has_disk(&self) -> bool {
        self.disk
    }

    /// Whether its disk has no space.
    pub(in crate::node) fn is_full(&self) -> bool {
        self.full
    }

    /// Whether it has not rebuilt that group yet.
    pub(in crate::node) fn lacks(&self, group: GroupId) -> bool {
        self.missing.binary_search(&group).is_ok()
    }

    /// Whether there is a group that it lacks.
    pub(in crate::node) fn is_loading(&self) -> bool {
        !self.missing.is_empty()
    }

    /// Whether it is to lead nothing.
    pub(in crate::node) fn is_draining(&self) -> bool {
        self.draining
    }

    pub(in crate::node) fn rtt_us(&self) -> u64 {
        self.rtt_us
    }

    /// Appends a message of this node.
    pub(in crate::node) fn tell(&mut self, message: &NodeMessage) {
        if self.link.is_some() {
            self.close_large_frame();
            self.frame.message(NODE, message.kind(), |out| message.put(out));
        }
    }

    /// Appends a message of a group, if the node can read the values in it. Members can read all that is chosen; but one
    /// that was removed, and does not know it yet, may be of an older version.
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

    /// The frames that the turn made, for its connection.
    pub(in crate::node) fn take_frames(&mut self) -> impl Iterator<Item = Bytes> {
        self.frame.finish(&mut self.ready);
        self.lanes.fill(self.unsent, &mut self.frame, &mut self.ready);
        self.ready.drain(..)
    }

    /// Whether large messages wait that its connection would take.
    pub(in crate::node) fn has_room(&self) -> bool {
        self.link.is_some() && self.unsent == 0 && !self.lanes.is_empty()
    }

    pub(in crate::node) fn id(&self) -> NodeId {
        self.id
    }

    /// Where members reach it; empty for a guest.
    pub(in crate::node) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn set_address(&mut self, address: String) {
        self.address = address;
    }

    /// Where clients are told that it is, if it says so.
    pub(in crate::node) fn announced(&self) -> Option<&str> {
        self.announced.as_deref()
    }

    /// The connection whose handshake is done.
    pub(in crate::node) fn link(&self) -> Option<u64> {
        self.link
    }

    /// The version that the newest connection speaks.
    pub(in crate::node) fn version(&self) -> u16 {
        self.version
    }

    /// The versions that it spoke when it was seen last, since this node started.
    pub(in crate::node) fn versions(&self) -> Versions {
        self.versions.unwrap_or_default()
    }

    // Dialling.

    /// An attempt to connect began as `connection`, or could not begin.
    pub(super) fn on_dialling(&mut self, connection: Option<u64>, now_ms: u64) {
        self.dialling = connection;
        if connection.is_none() {
            self.backoff.on_failure(now_ms);
        }
    }

    /// The attempt to connect failed.
    pub(super) fn on_dial_failed(&mut self, now_ms: u64) {
        self.dialling = None;
        self.backoff.on_failure(now_ms);
    }

    /// The connection broke. An attempt at another one goes on.
    pub(super) fn on_link_failed(&mut self, now_ms: u64) {
        self.backoff.on_failure(now_ms);
    }

    pub(super) fn is_dialled_as(&self, connection: u64) -> bool {
        self.dialling == Some(connection)
    }

    /// A broken connection was no failure of this peer's: it is dialled again at once.
    pub(super) fn forgive_failures(&mut self) {
        self.backoff.on_success();
    }

    /// Whether it is to be dialled now, by the node `me`.
    pub(super) fn is_to_be_dialled(&mut self, me: NodeId, is_born: bool, now_ms: u64) -> bool {
        if self.link.is_some() || self.address.is_empty() {
            self.unlinked_ms = self.unlinked_ms.filter(|_| self.link.is_none());
            return false;
        }
        let unlinked_ms = *self.unlinked_ms.get_or_insert(now_ms);
        // Who should dial this node may not know of it yet, or not know any more where it is.
        let is_due = self.id < me || (is_born && now_ms >= unlinked_ms + LONELY_MS);
        if !is_due || self.dialling.is_some() || !self.backoff.is_due(now_ms) {
            return false;
        }
        if self.id > me {
            self.unlinked_ms = Some(now_ms);
        }
        true
    }

    // Life.

    /// Any byte counts as life.
    pub(in crate::node) fn on_bytes(&mut self, now_ms: u64) {
        (self.heard_ms, self.hushed) = (now_ms, false);
    }

    pub(in crate::node) fn silent_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.heard_ms)
    }

    /// Whether it has just become silent for too long.
    pub(super) fn falls_silent(&self, now_ms: u64) -> bool {
        self.link.is_some() && !self.hushed && now_ms > self.heard_ms + SILENT_MS_MAX
    }

    /// It is taken for dead until something is heard of it.
    pub(super) fn on_silent(&mut self) {
        self.hushed = true;
        self.forget_claims();
    }

    /// Whether its connection must be broken: nothing was heard on it for more than [`BROKEN_MS_MAX`].
    pub(super) fn is_broken(&self, now_ms: u64) -> bool {
        self.link.is_some() && now_ms > self.heard_ms + BROKEN_MS_MAX
    }

    /// This node did nothing for `stalled_ms`: what the peer said meanwhile waits to be read, so its silence proves nothing,
    /// and neither does the age of its last echo. What was heard since is not older than now.
    pub(super) fn forgive(&mut self, stalled_ms: u64, now_ms: u64) {
        for at_ms in [&mut self.heard_ms, &mut self.echoed_ms, &mut self.reached_ms, &mut self.disk_ms] {
            *at_ms = now_ms.min(*at_ms + stalled_ms);
        }
    }

    /// It counts as reached at that time.
    pub(super) fn set_reached(&mut self, at_ms: u64) {
        self.reached_ms = at_ms;
    }

    /// Whether it is reached, or was a moment ago.
    pub(super) fn is_hopeful(&mut self, now_ms: u64) -> bool {
        if self.is_reached(now_ms) {
            self.reached_ms = now_ms;
        }
        now_ms < self.reached_ms + REACH_GRACE_MS
    }

    /// Whether its disk was not late of late.
    pub(super) fn is_quick(&self, now_ms: u64) -> bool {
        self.late_ms.is_none_or(|late_ms| now_ms >= late_ms + DISK_SLOW_MS)
    }

    // Pings and claims.

    /// The number of the last ping sent.
    pub(super) fn pinged(&self) -> u64 {
        self.pinged
    }

    /// The next ping is sent: its number, the number that it echoes and since when this node has had that, and the version
    /// of the peer's claims that this node has.
    pub(super) fn begin_ping(&mut self, now_us: u64) -> (u64, u64, u64, u64) {
        self.pinged += 1;
        self.sent_us[self.pinged as usize % PINGS_TIMED] = now_us;
        (self.pinged, self.their_ping, self.their_ping_us, self.claims.version)
    }

    /// Whether it answered a ping sent since `version` of this node's claims was told, and still has an older one: what
    /// carried the newer one was lost.
    pub(super) fn lacks_claims(&self, version: u64) -> bool {
        self.echoed > self.pinged_before + 1 && self.claims_seen != version
    }

    /// Takes a list of claims, unless it is older than the one that is here.
    pub(super) fn on_claims(&mut self, claims: &Claims) -> bool {
        let is_newer = claims.version >= self.claims.version;
        if is_newer {
            self.claims.clone_from(claims);
        }
        is_newer
    }

    /// What it claimed counts no more, until it claims it again.
    fn forget_claims(&mut self) {
        self.claims = Claims::default();
        self.their_reach.clear();
        self.healthy_since_ms = None;
    }

    // Groups.

    /// Where it is in the groups, as it says.
    pub(in crate::node) fn set_positions(&mut self, positions: &Positions, now_ms: u64) {
        self.positions.clone_from(&positions.next);
        self.positions_ms = now_ms;
    }

    /// Its `next` in a group, if it has said where it is in the last `ms_max` milliseconds.
    pub(in crate::node) fn position(&self, group: GroupId, ms_max: u64, now_ms: u64) -> Option<Instance> {
        if self.link.is_none() || self.positions_ms == 0 || now_ms > self.positions_ms + ms_max {
            return None;
        }
        let known = self.positions.binary_search_by_key(&group, |(id, _)| *id);
        Some(known.map_or(Instance::FIRST, |at| self.positions[at].1))
    }

    /// It has not rebuilt these groups yet.
    pub(in crate::node) fn set_missing(&mut self, mut groups: Vec<GroupId>) {
        groups.sort_unstable();
        self.missing = groups;
    }

    // Large messages.

    /// A fragment has come; see [`Assembly::add`].
    pub(in crate::node) fn assemble(&mut self, body: &[u8], bytes_max: usize) -> Result<Arrived, String> {
        self.assembly.add(body, bytes_max)
    }

    /// So many bytes wait to be written to its connection.
    pub(super) fn set_unsent(&mut self, bytes: usize) {
        self.unsent = bytes;
    }

    /// Whether large messages wait for its connection.
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
