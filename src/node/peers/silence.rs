//! Peers of which nothing is heard. One that is silent is taken for dead, so that others lead its groups; but its
//! connection is cut only later. It may be busy, with a large value for example, and whatever is on its way to it would
//! have to be sent again.

use super::super::{Node, Time};
use super::{Peer, Peers};
use crate::config::{BROKEN_MS_MAX, SILENT_MS_MAX};
use crate::node::wire::Claims;
use groups::NodeId;

impl Peer {
    /// Any byte counts as life.
    pub(in crate::node) fn on_bytes(&mut self, now_ms: u64) {
        (self.heard_ms, self.hushed) = (now_ms, false);
    }

    pub(in crate::node) fn silent_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.heard_ms)
    }

    /// Whether it has just become silent for too long.
    fn falls_silent(&self, now_ms: u64) -> bool {
        self.link.is_some() && !self.hushed && now_ms > self.heard_ms + SILENT_MS_MAX
    }

    /// Whether nothing was heard on its connection for so long that the connection must be broken.
    fn is_broken(&self, now_ms: u64) -> bool {
        self.link.is_some() && now_ms > self.heard_ms + BROKEN_MS_MAX
    }

    /// What it claimed counts no more, until it claims it again.
    pub(super) fn forget_claims(&mut self) {
        self.their_claims = 0;
        self.claims = Claims::default();
        self.their_reach.clear();
        self.healthy_since_ms = None;
    }
}

impl Peers {
    /// This node did nothing for this long: what a peer said meanwhile waits to be read, so its silence proves nothing, and
    /// neither does the age of its last echo. What was heard since is not older than now. Leases are not prolonged.
    pub(in crate::node) fn forgive(&mut self, stalled_ms: u64, now_ms: u64) {
        for peer in &mut self.all {
            for at_ms in [&mut peer.heard_ms, &mut peer.echoed_ms, &mut peer.reached_ms, &mut peer.disk_ms] {
                *at_ms = now_ms.min(*at_ms + stalled_ms);
            }
        }
    }
}

impl Node {
    /// Takes silent peers for dead, and cuts connections that must be broken.
    pub(in crate::node) fn tick_silence(&mut self, now_ms: u64, time: Time) {
        let all = || self.peers.all.iter();
        let broken: Vec<u64> = all().filter(|peer| peer.is_broken(now_ms)).filter_map(|peer| peer.link).collect();
        let silent: Vec<NodeId> = all().filter(|peer| peer.falls_silent(now_ms)).map(|peer| peer.id).collect();
        silent.into_iter().for_each(|from| self.on_silent(from, time));
        broken.into_iter().for_each(|id| self.cut(id, "nothing was heard on it for too long", time));
    }

    fn on_silent(&mut self, from: NodeId, time: Time) {
        tracing::info!("node {from} is silent");
        if let Some(peer) = self.peers.find(from) {
            peer.hushed = true;
            peer.forget_claims();
        }
        // Who waits for its replies is told now: they may come after the client's time.
        self.on_relay_cut(from, time);
        self.forget_link(from, false, time);
        self.heed_claims(time);
    }

    /// A claim that was below a lost leader's counts again.
    pub(in crate::node) fn heed_claims(&mut self, time: Time) {
        let others: Vec<NodeId> = self.peers.linked().map(|peer| peer.id).collect();
        others.into_iter().for_each(|id| self.on_claims(id, time));
    }
}
