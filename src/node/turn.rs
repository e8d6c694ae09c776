//! The order of work: which components a node calls in a tick, and at the end of a turn of the event loop.

use super::Time;
use super::cluster_time::ClockContext;
use super::core::Core;
use super::output::Output;
use super::peers::PingState;
use groups::{ElectionContext, Group, Ms, NodeId};

impl Core<'_> {
    /// Applies the time limits that also hold before the birth.
    pub(super) fn tick_first(&mut self, time: Time) {
        let now_ms = time.mono_ms();
        let names = self.names.tick(self.config.announced.as_deref(), self.ports.peers, time);
        self.ports.outputs.extend(names.into_iter().map(Output::LookUp));
        self.cluster.tick_joining(now_ms);
        self.engine.expire(now_ms, &mut self.ports);
        let (me, is_born) = (self.identity.node, self.is_born());
        let born_ms = self.identity.birth.as_ref().map_or(Ms(0), |record| record.born_ms);
        let clock_context = ClockContext { me, peers: self.ports.peers, engine: self.engine, is_born, born_ms };
        self.ports.cluster_time.tick(&clock_context, time);
    }

    /// Applies the time limits before the birth, and pings the peers.
    pub(super) fn tick_unborn(&mut self, time: Time) {
        let (start, clocks) = (self.identity.start, self.ports.cluster_time.ping_clocks(time));
        let state = PingState { start, disk: true, full: false, draining: false, clocks };
        self.ports.peers.ping(state, time.mono_us, |_, _| None);
        let (cluster, mut cx) = self.cluster(time);
        cluster.tick_birth(&mut cx);
    }

    /// Applies the time limits of a born node, and pings the peers.
    pub(super) fn tick_born(&mut self, time: Time) {
        let now_ms = time.mono_ms();
        let space = *self.engine.space();
        let disk = self.engine.is_disk_in_time(now_ms) && !space.full;
        let (cluster, mut cx) = self.cluster(time);
        let can_lead = cluster.give_up_if_stuck(&mut cx);
        cluster.tick_removed(&mut cx);
        // A node that can log nothing but promises must not become a leader.
        let disk_leads = can_lead && !space.is_exhausted() && !self.engine.is_disk_silent(now_ms);
        self.engine.set_recently_reached(
            self.ports.peers.recently_reached(now_ms),
            self.ports.peers.len(),
            &mut self.ports,
        );
        let given_up = self.ports.relays.tick(self.engine, self.ports.peers, time);
        self.engine.set_passing_on(self.ports.relays.to().is_some());
        self.answer(given_up);
        self.engine.tick_uploads(self.config.client_timeout_ms, &mut self.ports, time);
        let reached = self.ports.peers.reached(now_ms);
        let (cluster, cx) = self.cluster(time);
        let preferred_leaders = cluster.preferred_leaders(&cx);
        let context = ElectionContext {
            reached: &reached,
            disk: disk_leads,
            may_self_promise: true,
            preferred_leaders: &preferred_leaders,
        };
        self.engine.tick(context, self.ports.peers.slowest_us(), &mut self.ports, time);
        let (cluster, mut cx) = self.cluster(time);
        cluster.tick_placement(&mut cx);
        let (upkeep, mut cx) = self.upkeep(time);
        upkeep.tick_transfers(&mut cx);
        if !self.loading.is_loading() {
            let (upkeep, cx) = self.upkeep(time);
            upkeep.tick_checkpoints(&cx);
            let (cluster, mut cx) = self.cluster(time);
            cluster.tick_members(&mut cx);
        }
        self.ping(disk, time);
    }

    fn ping(&mut self, disk: bool, time: Time) {
        let state = PingState {
            start: self.identity.start,
            disk,
            full: self.engine.space().full,
            draining: self.cluster.is_draining(),
            clocks: self.ports.cluster_time.ping_clocks(time),
        };
        let engine = &*self.engine;
        // A lease grant counts only from a voter and for a voter.
        let promised = |group, to| {
            let group: &Group = engine.find(group)?;
            (group.may_promise() && group.membership().voters().contains(to)).then(|| group.promised())
        };
        if self.ports.peers.ping(state, time.mono_us, promised) {
            // With each ping, this node tells the members which instance of each led group was chosen last, if they may
            // not know it yet.
            let others: Vec<NodeId> = self.ports.peers.ids().collect();
            self.engine.announce_chosen(&others, &mut self.ports);
        }
    }

    /// First part of the end of a turn. Handles this node's durable messages to itself. Every group that had inputs
    /// proposes, forwards or announces once. Reads are answered, or the other members are asked to confirm them.
    pub(super) fn flush(&mut self, time: Time) {
        self.engine.continue_applying(&mut self.ports, time);
        self.engine.feed_uploads(&mut self.ports, time);
        self.engine.flush(&mut self.ports, time);
        if let Some(led) = self.engine.take_led() {
            self.ports.peers.set_claims(&led);
        }
        let (upkeep, mut cx) = self.upkeep(time);
        upkeep.step(&mut cx);
        self.durability.send_due(self.engine.durable_lsn(), self.ports.peers);
    }

    /// Second part: sends the gathered batch to the log, unless one is in flight or more input may come first, and the
    /// frames to their connections.
    pub(super) fn send_all(&mut self, time: Time) {
        let (peers, outputs) = (&mut *self.ports.peers, &mut *self.ports.outputs);
        outputs.extend(self.engine.next_batch(time.mono_us).map(Output::Append));
        peers.take_frames(|link, frame| outputs.push(Output::Frame(link, frame)));
    }
}
