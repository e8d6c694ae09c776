//! Cluster time: unix time by the clocks of a majority, so that a member whose clock is wrong has no effect.
//!
//! A ping tells its sender's clock. This gives the offset of that clock to the monotonic clock here, with an error of
//! at most half of the round trip. Cluster time is the monotonic clock plus the median of the offsets of the voters'
//! clocks and of this node's own. It is steered towards the median by at most a tenth of the time that passes. So a
//! duration in cluster time takes between ten elevenths and ten ninths of its length, whatever the clocks do.
//!
//! A minority of the clocks may be wrong. If some clocks are unknown too, only a range is known in which the median
//! lies. Cluster time then stays as it is if it lies in the range, and otherwise goes to the nearer end. (Marzullo's
//! thesis, *Maintaining the time in a distributed system*, 1984, with points instead of intervals.)
//!
//! A node that starts takes cluster time over from the others. Cluster time is made anew from the clocks only if no
//! node has one: at a birth, which waits for the clocks of all members, and after all nodes were down. A node whose
//! cluster time differs from that of a majority follows the majority at once.
//!
//! A freeze of the machine, such as a pause of a virtual machine, stops the node's monotonic clock. Afterwards the
//! node's own clock and the clocks of other nodes are all ahead of the monotonic clock by the same jump, and cluster
//! time jumps with them. A clock that was set jumps alone. Until a node knows which of the two happened, it tells no
//! other node its cluster time. If it does not know after `CLOCK_WAIT_MS`, it takes over the cluster time of a member
//! that tells one. After `CLOCK_JUMP_MS_MAX` it goes on with the cluster time that it had. Meanwhile the node has no
//! cluster time, unless another clock that it knew before the jump has stayed where it was, or no other voter tells its
//! clock. Without cluster time, the node proposes nothing and confirms no read.

use super::Time;
use super::engine::Engine;
use super::peers::{Peer, Peers, RoundTrip};
use super::wire::PingClocks;
use crate::config::{
    CLOCK_ERROR_MS_MAX, CLOCK_JUMP_MS_MAX, CLOCK_READING_MS_MAX, CLOCK_RESYNC_MS, CLOCK_WAIT_MS, CLOCK_WARN_MS,
    CLOCK_WATCH_MS, ECHO_MS_MAX,
};
use crate::duration::ClockLead;
use crate::versions::Versions;
use groups::{Members, Ms, NodeId, Us};

/// Steering changes cluster time by at most one tenth of the time that passes.
const STEER_DIVISOR: i64 = 10;
/// Minimum step of steering: shorter steps would lose fractions of a microsecond.
const STEER_STEP_US: Us = Us(1_000);

/// This node's knowledge of all members' clocks. Offsets are to its own monotonic clock, in microseconds.
#[derive(Debug)]
pub(super) struct ClusterTime {
    /// At most one for each peer.
    readings: Vec<Reading>,
    own_us: Option<i64>,
    offset: Option<Offset>,
    steered_us: Us,
    /// A jump of the node's own clock, while it is unknown whether the machine was frozen.
    jump: Option<Jump>,
    /// The voters except this node. Only voters' clocks count; the clocks of other peers are only shown to operators.
    others: Vec<NodeId>,
    /// Number of connected voters that speak a version without clocks.
    silent: usize,
    /// Since when enough clocks have been known to make a cluster time.
    enough_since_us: Option<Us>,
    watched_ms: Ms,
    /// The nodes whose clocks were named in the log as differing.
    differing: Vec<NodeId>,
    /// True if the log last said that the time of some group is ahead of cluster time.
    is_ahead: bool,
    /// True if this node speaks a version with clocks.
    tells: bool,
}

#[derive(Clone, Copy, Debug)]
struct Offset {
    us: i64,
    /// True if the offset comes from a majority. Otherwise the other members speak a version without clocks, and this
    /// node uses its own clock alone.
    is_founded: bool,
}

/// The clocks that a ping told of its sender.
#[derive(Clone, Copy, Debug)]
struct Reading {
    node: NodeId,
    clock_us: i64,
    /// The sender's cluster time, if it has one.
    cluster_us: Option<i64>,
    at_us: Us,
}

/// The jump of the own clock against the monotonic one, and the readings of other clocks before it.
#[derive(Clone, Debug)]
struct Jump {
    us: i64,
    at_us: Us,
    before: Vec<Reading>,
    /// When the last of several jumps was noticed. All present readings are from after that.
    noticed_us: Us,
}

/// The parts of the node that cluster time reads.
#[derive(Clone, Copy)]
pub(super) struct ClockContext<'a> {
    pub(super) me: NodeId,
    pub(super) peers: &'a Peers,
    pub(super) engine: &'a Engine,
    /// True if the cluster exists and this node has read its log.
    pub(super) is_born: bool,
    /// Cluster time of the birth, in unix milliseconds; 0 if it is not known.
    pub(super) born_ms: Ms,
}

/// The nodes whose clocks count.
#[derive(Clone, Copy, Debug)]
struct Electorate<'a> {
    me: NodeId,
    voters: &'a Members,
    /// Connected voters that speak a version without clocks.
    silent: usize,
    /// The latest time of any group, in unix milliseconds; before the first value, that of the birth. Real time is
    /// unlikely to be before it.
    latest_ms: Ms,
}

impl Electorate<'_> {
    fn others(&self) -> impl Iterator<Item = NodeId> {
        self.voters.ids().iter().copied().filter(|id| *id != self.me)
    }
}

impl ClusterTime {
    /// Creates an unknown cluster time. `versions`: the versions that this node speaks.
    pub(super) fn new(versions: Versions) -> ClusterTime {
        ClusterTime {
            readings: Vec::new(),
            own_us: None,
            offset: None,
            steered_us: Us(0),
            jump: None,
            others: Vec::new(),
            silent: 0,
            enough_since_us: None,
            watched_ms: Ms(0),
            differing: Vec::new(),
            is_ahead: false,
            tells: versions.highest >= Versions::CLOCKS,
        }
    }

    /// Returns cluster time in unix milliseconds; `None` if it is not known yet.
    pub(super) fn now_ms(&self, time: Time) -> Option<Ms> {
        self.now_us(time).map(|now_us| now_us.to_ms())
    }

    /// Returns cluster time in unix microseconds; `None` if it is not known yet.
    pub(super) fn now_us(&self, time: Time) -> Option<Us> {
        let offset = self.offset.filter(|_| self.is_alone() || !self.has_just_jumped(time));
        offset.map(|offset| since_1970(offset.us, time))
    }

    /// Returns true if this node's own clock has jumped and no other clock rules out a freeze of this machine. A clock
    /// rules it out if it was known before the jump and has stayed where it was.
    fn has_just_jumped(&self, time: Time) -> bool {
        let resync_us = signed(CLOCK_RESYNC_MS.to_us());
        let is_open = |jump: &Jump| {
            let has_stayed = self.moved(jump).any(|moved_us| moved_us <= resync_us);
            !has_stayed && time.mono_us < jump.noticed_us + CLOCK_JUMP_MS_MAX.to_us()
        };
        self.own_us.is_some_and(|before_us| differ(own_offset(time), before_us))
            || self.jump.as_ref().is_some_and(is_open)
    }

    /// Returns the jump of each other clock against the monotonic clock here. Only clocks that were known before the
    /// jump of the own clock and were read since then are included.
    fn moved(&self, jump: &Jump) -> impl Iterator<Item = i64> {
        self.counting().filter_map(|heard| {
            let before = jump.before.iter().find(|before| before.node == heard.node)?;
            Some(heard.clock_us.saturating_sub(before.clock_us))
        })
    }

    /// Returns the number of clocks that count: those of the other voters, and this node's.
    fn clocks(&self) -> usize {
        self.others.len() + 1
    }

    /// Returns true if no other voter tells its clock.
    fn is_alone(&self) -> bool {
        self.others.len() <= self.silent
    }

    /// Returns the median of the clocks that are known, in unix milliseconds. It is that of the cluster if
    /// [`ClusterTime::knows_all`] returns true and all members tell their clocks.
    pub(super) fn median_ms(&self, time: Time) -> Ms {
        let own_us = own_offset(time);
        let clocks: Vec<i64> = self.counting().map(|reading| reading.clock_us).chain([own_us]).collect();
        // Of an even number of clocks, the earlier of the two in the middle.
        since_1970(nearest(&clocks, clocks.len(), i64::MIN).unwrap_or(own_us), time).to_ms()
    }

    /// Returns the voters whose clocks are not known, this node not among them.
    pub(super) fn unknown(&self) -> impl Iterator<Item = NodeId> {
        let is_known = |id: NodeId| self.readings.iter().any(|reading| reading.node == id);
        self.others.iter().copied().filter(move |id| !is_known(*id))
    }

    /// Returns true if the clocks of all voters that tell one are known.
    pub(super) fn knows_all(&self) -> bool {
        self.unknown().count() <= self.silent
    }

    fn counts(&self, reading: &Reading) -> bool {
        self.others.contains(&reading.node)
    }

    fn counting(&self) -> impl Iterator<Item = &Reading> {
        self.readings.iter().filter(|reading| self.counts(reading))
    }

    fn is_founded(&self) -> bool {
        self.offset.is_some_and(|offset| offset.is_founded)
    }

    /// Returns this node's clocks for a ping; `None` in versions without clocks.
    pub(super) fn ping_clocks(&self, time: Time) -> Option<PingClocks> {
        let founded = self.offset.filter(|offset| offset.is_founded && self.jump.is_none());
        let cluster_us = founded.map(|offset| since_1970(offset.us, time));
        self.tells.then_some(PingClocks { unix_us: time.unix_us, cluster_us })
    }

    /// Takes the clocks from a peer's ping. The ping answers an earlier ping of this node.
    pub(super) fn on_ping(&mut self, from: NodeId, clocks: PingClocks, round_trip: RoundTrip, time: Time) {
        if !self.tells {
            return;
        }
        let RoundTrip { sent_us, us: rtt_us } = round_trip;
        // This comes first: pings that waited while this machine was frozen must not count as readings from before the
        // jump.
        self.look_at_own(time);
        // A machine slept, or the peer was stopped, while the answer was in flight. Half of such a round trip is no
        // estimate of how long the ping took.
        if rtt_us > ECHO_MS_MAX.to_us() {
            return;
        }
        // Pings that waited while this machine was frozen tell nothing: they answer pings from before the freeze.
        if self.jump.as_ref().is_some_and(|jump| sent_us <= jump.noticed_us) {
            return;
        }
        let index = self.readings.iter().position(|reading| reading.node == from);
        let is_fresh = |index: usize| time.mono_us < self.readings[index].at_us + CLOCK_ERROR_MS_MAX.to_us() * 10;
        // One of the two nodes was busy for a moment. A better reading is at hand.
        if rtt_us / 2 > CLOCK_ERROR_MS_MAX.to_us() && index.is_some_and(is_fresh) {
            return;
        }
        let offset = |at_sending_us: Us| signed(at_sending_us) + signed(rtt_us / 2) - signed(time.mono_us);
        let (clock_us, cluster_us) = (offset(clocks.unix_us), clocks.cluster_us.map(offset));
        let reading = Reading { node: from, clock_us, cluster_us, at_us: time.mono_us };
        match index {
            Some(index) => self.readings[index] = reading,
            None => self.readings.push(reading),
        }
        if self.counts(&reading) {
            self.judge_jump(time);
            self.follow_if_in_doubt(reading);
        }
    }

    /// Decides why the own clock has jumped, by comparing the readings of other clocks with those from before the jump.
    /// Fewer than half of the clocks are wrong: at most W. If W other clocks (at least one) have jumped too, this
    /// machine was frozen: if its own clock is wrong, fewer than W others are, so one of those that jumped is right.
    fn judge_jump(&mut self, time: Time) {
        let Some(jump) = &self.jump else { return };
        let mut moved: Vec<i64> = self.moved(jump).collect();
        moved.sort_unstable_by(|one, next| next.cmp(one));
        let needed = (self.others.len() / 2).max(1);
        // All clocks have advanced by the time for which this machine was frozen. Each may have been set besides.
        let frozen_us = moved.get(needed - 1).map_or(0, |moved_us| jump.us.min(*moved_us));
        let is_frozen = frozen_us > signed(CLOCK_RESYNC_MS.to_us());
        // A clock that has not moved proves nothing before the wait is over: its machine may have been frozen too, and
        // may be about to set it.
        let is_late = time.mono_us >= jump.at_us + CLOCK_WAIT_MS.to_us();
        let is_set = is_late && moved.iter().any(|moved_us| !differ(*moved_us, 0));
        // Two clocks that jump back alike were both set.
        let is_alike = jump.us < 0 && moved.iter().any(|moved_us| !differ(*moved_us, jump.us));
        if !is_frozen && !is_set && !is_alike {
            return;
        }
        if let Some(offset) = self.offset.as_mut().filter(|_| is_frozen) {
            offset.us = offset.us.saturating_add(frozen_us);
        }
        self.jump = None;
    }

    /// Follows the cluster time of a member, as at a start, if the other clocks have not told why the own clock jumped.
    /// In that case the own clock was set, perhaps while this machine was frozen. The followed member tells a cluster
    /// time, so it is not in doubt itself.
    fn follow_if_in_doubt(&mut self, reading: Reading) {
        let (Some(jump), Some(us)) = (&self.jump, reading.cluster_us) else { return };
        if reading.at_us >= jump.at_us + CLOCK_WAIT_MS.to_us() {
            let followed = self.offset.as_mut().filter(|offset| differ(offset.us, us));
            followed.into_iter().for_each(|offset| offset.us = us);
            self.jump = None;
        }
    }

    /// Reads the own clock, and notices a jump. Returns its offset to the monotonic clock.
    fn look_at_own(&mut self, time: Time) -> i64 {
        let (own_us, mono_us) = (own_offset(time), time.mono_us);
        let late_us = CLOCK_JUMP_MS_MAX.to_us();
        self.jump = self.jump.take().filter(|jump| mono_us < jump.at_us + late_us);
        let Some(before_us) = self.own_us.replace(own_us).filter(|before_us| differ(own_us, *before_us)) else {
            return own_us;
        };
        // The clock was set, or this machine was frozen. In the second case, the readings of other clocks are from
        // before the freeze.
        let readings = std::mem::take(&mut self.readings);
        let first = Jump { us: 0, at_us: mono_us, before: readings, noticed_us: mono_us };
        let jump = self.jump.take().unwrap_or(first);
        let us = jump.us.saturating_add(own_us - before_us);
        self.jump = differ(us, 0).then_some(Jump { us, noticed_us: mono_us, ..jump });
        own_us
    }

    /// Forgets the clock of a node that is no longer a peer.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.readings.retain(|reading| reading.node != node);
    }

    /// Steers cluster time towards the median, by at most a tenth of the time that has passed since the last call.
    /// `is_born`: the cluster exists, and this node has read its log; before that, no cluster time is made.
    fn steer(&mut self, electorate: Electorate<'_>, is_born: bool, time: Time) {
        let passed_us = time.mono_us.saturating_sub(self.steered_us);
        if passed_us < STEER_STEP_US {
            return;
        }
        self.steered_us = time.mono_us;
        if !electorate.others().eq(self.others.iter().copied()) {
            self.others = electorate.others().collect();
        }
        self.silent = electorate.silent;
        let own_us = self.look_at_own(time);
        let oldest_us = time.mono_us.saturating_sub(CLOCK_READING_MS_MAX.to_us());
        self.readings.retain(|reading| reading.at_us >= oldest_us);
        let clocks: Vec<i64> = self.counting().map(|reading| reading.clock_us).chain([own_us]).collect();
        let shared: Vec<i64> = self.counting().filter_map(|reading| reading.cluster_us).collect();
        let Some(offset) = self.offset.filter(|_| self.is_founded()) else {
            // A cluster time that is made or taken over now has no jump to make up for.
            self.jump = None;
            return self.found(electorate, &clocks, shared, is_born, time);
        };
        let members = self.clocks();
        let target_us = nearest(&clocks, members, offset.us).unwrap_or(offset.us);
        let step_us = signed(passed_us) / STEER_DIVISOR;
        let steered_us = offset.us + (target_us - offset.us).clamp(-step_us, step_us);
        let all: Vec<i64> = shared.into_iter().chain([steered_us]).collect();
        let agreed_us = nearest(&all, members, steered_us).unwrap_or(steered_us);
        let follows = differ(agreed_us, steered_us);
        let us = if follows { agreed_us } else { steered_us };
        // A cluster time that is taken over has no jump to make up for.
        self.jump = self.jump.take().filter(|_| !follows);
        self.offset = Some(Offset { us, is_founded: true });
    }

    /// Takes cluster time over from the others, or makes one.
    fn found(&mut self, electorate: Electorate<'_>, clocks: &[i64], mut shared: Vec<i64>, is_born: bool, time: Time) {
        let founded = |us| Some(Offset { us, is_founded: true });
        let members = self.clocks();
        shared.sort_unstable();
        if let Some(us) = shared.get(shared.len().saturating_sub(1) / 2) {
            self.offset = founded(*us);
            return;
        }
        if !is_born {
            return;
        }
        // Without a founded offset, cluster time is the own clock, even if this machine sleeps.
        if let (Some(offset), Some(own_us)) = (&mut self.offset, self.own_us) {
            offset.us = own_us;
        }
        let known = clocks.len();
        let latest_us = signed(Us(electorate.latest_ms.0.saturating_mul(1_000))) - signed(time.mono_us);
        if known == members {
            self.offset = nearest(clocks, members, latest_us).and_then(founded);
            return;
        }
        if known + electorate.silent <= members / 2 {
            self.enough_since_us = None;
            return;
        }
        // Waits for the readings of the other clocks: with all clocks, a wrong minority does no harm.
        let since_us = *self.enough_since_us.get_or_insert(time.mono_us);
        if time.mono_us < since_us + CLOCK_WAIT_MS.to_us() {
            return;
        }
        self.offset = if known > members / 2 {
            nearest(clocks, members, latest_us).and_then(founded)
        } else {
            self.own_us.map(|us| Offset { us, is_founded: false })
        };
    }

    /// Returns the lead of a node's clock over cluster time, in milliseconds; `None` if it is not known.
    pub(super) fn ahead_ms(&self, node: NodeId, me: NodeId) -> Option<i64> {
        let read = || self.readings.iter().find(|reading| reading.node == node).map(|reading| reading.clock_us);
        let clock_us = if node == me { self.own_us } else { read() };
        Some((clock_us? - self.offset?.us) / 1_000)
    }

    /// Steers cluster time, and logs which clocks differ from it.
    pub(super) fn tick(&mut self, clock_context: &ClockContext<'_>, time: Time) {
        let ClockContext { me, peers, engine, is_born, born_ms } = *clock_context;
        // A peer that speaks a version with clocks, and whose first ping has not come yet, is not silent.
        let is_old = |peer: &&Peer| peer.version() < Versions::CLOCKS && peers.voters().contains(peer.id());
        let silent = peers.linked().filter(is_old).count();
        // Reading all groups takes time, and is needed only to make a cluster time.
        let latest_ms = if self.is_founded() { Ms(0) } else { engine.latest_ms() };
        let latest_ms = if latest_ms == Ms(0) { born_ms } else { latest_ms };
        self.steer(Electorate { me, voters: peers.voters(), silent, latest_ms }, is_born, time);
        if self.watch(me, time.mono_ms()) {
            self.watch_groups(self.groups_lead_ms(engine, time));
        }
    }

    /// Returns the largest lead of a group's time over cluster time, in milliseconds.
    pub(super) fn groups_lead_ms(&self, engine: &Engine, time: Time) -> Ms {
        self.now_ms(time).map_or(Ms(0), |cluster_ms| engine.lead_ms(time.clock(), cluster_ms))
    }

    /// Logs when the groups' times get ahead of cluster time, and when they no longer are.
    fn watch_groups(&mut self, lead_ms: Ms) {
        let is_ahead = lead_ms > CLOCK_WARN_MS;
        let was_ahead = std::mem::replace(&mut self.is_ahead, is_ahead);
        if is_ahead && !was_ahead {
            tracing::warn!(
                "the time of some groups is up to {:.1} s ahead of cluster time, because a clock was fast: until \
                 cluster time has caught up, keys with an absolute expiry expire early by as much, and relative expiry \
                 times last up to a ninth longer",
                lead_ms.0 as f64 / 1_000.0
            );
        } else if !is_ahead && was_ahead {
            tracing::info!("cluster time has caught up with the time of all groups");
        }
    }

    /// Logs which clocks differ from cluster time, and which no longer do. Returns false if the next check is not due
    /// yet.
    fn watch(&mut self, me: NodeId, now_ms: Ms) -> bool {
        if now_ms < self.watched_ms + CLOCK_WATCH_MS {
            return false;
        }
        self.watched_ms = now_ms;
        for node in self.readings.iter().map(|reading| reading.node).chain([me]).collect::<Vec<_>>() {
            let Some(ahead_ms) = self.ahead_ms(node, me) else { continue };
            let differs = ahead_ms.unsigned_abs() > CLOCK_WARN_MS.0;
            match self.differing.iter().position(|known| *known == node) {
                None if differs => {
                    tracing::warn!("the clock of node {node} is {} cluster time: set it right", ClockLead(ahead_ms));
                    self.differing.push(node);
                }
                Some(index) if !differs => {
                    tracing::info!("the clock of node {node} agrees with cluster time again");
                    self.differing.swap_remove(index);
                }
                _ => {}
            }
        }
        true
    }
}

/// Returns the time nearest to `current` that is possible by the `known` clocks, of `members` clocks in all. Fewer than
/// half of all clocks are wrong. Returns `None` if all known clocks can be wrong.
fn nearest(known: &[i64], members: usize, current: i64) -> Option<i64> {
    let wrong = (members - 1) / 2;
    let rest = known.len().checked_sub(wrong + 1)?;
    let mut known = known.to_vec();
    known.sort_unstable();
    Some(current.clamp(known[wrong.min(rest)], known[wrong.max(rest)]))
}

/// Returns true if two times differ by more than errors of readings explain.
fn differ(some_us: i64, other_us: i64) -> bool {
    some_us.abs_diff(other_us) > CLOCK_RESYNC_MS.to_us().0
}

/// Returns the offset of the own clock to the monotonic one.
fn own_offset(time: Time) -> i64 {
    signed(time.unix_us) - signed(time.mono_us)
}

fn signed(us: Us) -> i64 {
    i64::try_from(us.0).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
}

fn since_1970(offset_us: i64, time: Time) -> Us {
    Us(u64::try_from(signed(time.mono_us) + offset_us).unwrap_or(0))
}

#[cfg(test)]
mod tests;
