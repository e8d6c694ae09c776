//! The node: clients' bytes, peers' frames, "durable up to" and ticks come in; bytes, log batches and closes go out. It
//! does no I/O and reads no clock, so that the simulator runs what the server runs.
//!
//! ```text
//! engine     groups, commands, reads, the log's queue      wires   how it reaches the rest
//! connections  whose each connection is                        clients    their requests and replies
//! backend    what the node does for its clients                admin      what it answers about itself
//! durability what of the log other members have                ticket     where a reply belongs
//! links      handshakes and frames of the other members        peers      who lives, who is reached, who claims what
//! wire       what nodes say to each other                      alone      a node that nobody answers
//! output     what it wants done outside, and who does it
//! birth      how a cluster comes to be
//! upkeep     checkpoints, transfers, ranges of the log        space   what fits the log while the disk is full
//! bulk       the connections for transfers
//! versions   how members of two versions get along
//! roster     who belongs to the cluster                   names       where clients are told that the members are
//! joining    nodes that wait to become members              cluster    who leads what; changes of the members
//! cluster_time  unix time as a majority's clocks show it
//! loading    while groups are being rebuilt
//! lanes      large messages in fragments, so that small ones overtake them      inbound    what comes for the groups
//! relay      commands that another member carries out
//! ```

mod admin;
mod alone;
mod backend;
mod birth;
mod bulk;
mod clients;
mod cluster;
mod cluster_time;
mod connections;
mod durability;
mod engine;
mod inbound;
mod joining;
mod links;
mod loading;
mod names;
pub mod output;
pub mod peers;
mod refusals;
mod relay;
mod slots;
mod space;
#[cfg(test)]
mod tests;
mod ticket;
mod upkeep;
mod versions;
pub mod wire;
mod wires;

use crate::admin::kept::Kept;
use crate::admin::stats::Stats;
use crate::config::{NodeConfig, REACH_GRACE_MS, REACH_START_MS, REMOVED_MS, STALL_MS_MIN};
use crate::identity::{BirthRecord, Identity};
use crate::kv::table;
use crate::shard::Shard;
use crate::storage::checkpoint::{Brought, Done};
use crate::storage::scrub::Findings;
use crate::storage::wal::{ChosenValue, Droppable, ReadRange};
use admin::Facts;
use alone::Alone;
use birth::Birth;
use clients::Clients;
use cluster::Cluster;
use cluster_time::ClusterTime;
use connections::Fresh;
use durability::Durability;
use engine::Engine;
use groups::membership::Place;
use groups::{Answer, Clock, GroupId, NodeId, Surroundings};
use joining::Joining;
use links::Link;
use loading::Stage;
use names::Names;
use net::outbound::Outbound;
use peers::{Peers, PingState, Roster};
use relay::Relays;
use slots::Slots;
use upkeep::{Ranges, Upkeep};

pub use admin::Facts as ProcessFacts;
pub use output::{Close, Driver, Output, Outputs};
pub use space::Space;

/// What time it is, from the caller's two clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Time {
    /// Microseconds that only go forward.
    pub mono_us: u64,
    /// Microseconds since 1970.
    pub unix_us: u64,
}

impl Time {
    fn mono_ms(self) -> u64 {
        self.mono_us / 1_000
    }

    fn unix_ms(self) -> u64 {
        self.unix_us / 1_000
    }

    /// The monotonic clock in the milliseconds of the groups.
    #[must_use]
    pub fn clock(self) -> Clock {
        Clock { mono_ms: self.mono_ms() }
    }
}

/// One node of a cluster.
pub struct Node {
    config: NodeConfig,
    identity: Identity,
    birth: Birth,
    joining: Joining,
    cluster: Cluster,
    engine: Engine,
    peers: Peers,
    /// Connections that have sent nothing yet.
    fresh: Slots<Fresh>,
    /// Out while a client's requests are carried out.
    clients: Option<Box<Clients>>,
    links: Slots<Link>,
    durability: Durability,
    relays: Relays,
    ranges: Ranges,
    stats: Stats,
    outputs: Outputs,
    /// The time of this turn, in microseconds.
    now_us: u64,
    /// Messages that were skipped because their group, or their kind, is not known here.
    unknown_groups: u64,
    unknown_kinds: u64,
    upkeep: Upkeep,
    facts: Facts,
    /// Whether groups are being rebuilt elsewhere.
    stage: Stage,
    /// When it was noticed that it is a member of none any more.
    removed_ms: Option<u64>,
    cluster_time: ClusterTime,
    /// Whether the time of some group is ahead of cluster time, as was last said in the log.
    is_time_ahead: bool,
    names: Names,
    alone: Alone,
    began_ms: u64,
    /// When the process was first told the time.
    started_ms: Option<u64>,
    ticked_ms: u64,
    /// What CONFIG SET was told of parameters without effect.
    kept: Kept,
}

impl Node {
    /// A node with the identity of its data directory. One with a log must be given what that
    /// holds: [`Node::blank`].
    #[must_use]
    pub fn new(config: NodeConfig, identity: Identity) -> Node {
        let first = birth::membership(&config, identity.birth.as_ref());
        let mut node = Node {
            birth: Birth::new(&config, &identity),
            joining: Joining::new(&config.join, config.seed),
            cluster: Cluster::new(identity.start),
            engine: Engine::new(&identity, &config),
            peers: Peers::new(&identity, Roster::of_one(&first), &config),
            fresh: Slots::default(),
            clients: Some(Box::new(Clients::new(&config))),
            links: Slots::default(),
            durability: Durability::default(),
            relays: Relays::new(identity.start),
            ranges: Ranges::default(),
            stats: Stats::new(table::names_by_verb()),
            outputs: Outputs::default(),
            now_us: 0,
            unknown_groups: 0,
            unknown_kinds: 0,
            upkeep: Upkeep::new(&config),
            facts: Facts::default(),
            stage: Stage::Whole,
            removed_ms: None,
            cluster_time: ClusterTime::default(),
            is_time_ahead: false,
            names: Names::default(),
            alone: Alone::default(),
            began_ms: 0,
            started_ms: None,
            ticked_ms: 0,
            kept: Kept::default(),
            identity,
            config,
        };
        if let Some(record) = node.identity.birth.clone() {
            node.make_groups(&record);
        }
        node
    }

    /// Whether the cluster exists, and this node knows what it promised in the groups that are here: else nothing can be
    /// asked of it.
    #[must_use]
    pub fn is_born(&self) -> bool {
        self.identity.birth.is_some() && !self.has_not_begun()
    }

    /// Recovery is done: the log is durable up to `lsn`, time limits run from here.
    pub fn begin(&mut self, lsn: u64, time: Time) {
        self.engine.begin(lsn);
        self.engine.begin_groups(time.clock());
        self.update_roster(time);
        let reached_ms = time.mono_ms() + REACH_START_MS - REACH_GRACE_MS;
        self.peers.begin(self.is_born(), reached_ms, time.mono_us);
        self.alone.begin(time.mono_ms());
        self.began_ms = time.mono_ms();
        self.ticked_ms = time.mono_ms();
    }

    /// The log is durable up to `lsn`; the sync took so long.
    pub fn durable(&mut self, lsn: u64, sync_us: u64) {
        self.stats.fsyncs.record(sync_us);
        let (engine, mut wires) = self.split();
        engine.on_durable(lsn, &mut wires);
        self.outputs.extend(self.upkeep.on_durable(lsn));
    }

    /// A turn of the event loop that has just ended took so long, without its sleep.
    pub fn turn_took(&mut self, usec: u64, time: Time) {
        self.stats.turns.record(usec);
        self.upkeep.turn_took(usec, self.engine.logged_bytes(), time.mono_us);
    }

    /// Facts about the process, for `INFO`; now and then.
    pub fn set_facts(&mut self, facts: Facts) {
        self.facts = facts;
    }

    /// What the log has space for; every turn.
    pub fn set_space(&mut self, space: Space) {
        self.engine.set_space(space);
    }

    /// How many clients there may be now: CONFIG SET changes it.
    #[must_use]
    pub fn max_clients(&self) -> u64 {
        self.config.max_clients
    }

    /// Time limits. Call it every [`groups::TICK_MS`] or so.
    pub fn tick(&mut self, time: Time) {
        let now_ms = time.mono_ms();
        self.now_us = time.mono_us;
        self.stats.sample(now_ms);
        self.started_ms.get_or_insert(now_ms);
        if self.has_not_begun() {
            return self.tick_before_begin(time);
        }
        let passed_ms = now_ms - std::mem::replace(&mut self.ticked_ms, now_ms).min(now_ms);
        if passed_ms >= STALL_MS_MIN {
            self.peers.forgive(passed_ms, now_ms);
        }
        self.tick_links(time);
        self.tick_names(time);
        self.tick_joining(time);
        self.with_clients(|clients, node| clients.tick(node, now_ms));
        let (engine, mut wires) = self.split();
        engine.expire(now_ms, &mut wires);
        self.tick_cluster_time(time);
        if !self.is_born() {
            let clocks = self.told_clocks(time);
            let state = PingState { start: self.identity.start, disk: true, full: false, draining: false, clocks };
            self.peers.ping(state, time.mono_us, |_, _| None);
            return self.tick_birth(time);
        }
        let space = *self.engine.space();
        let disk = self.engine.is_disk_in_time(now_ms) && !space.full;
        let (cluster, mut cx) = self.cluster(time);
        let can_lead = cluster.give_up_if_stuck(&mut cx);
        // Where nothing but promises can be logged no leader begins.
        let disk_leads = can_lead && !space.is_exhausted();
        self.update_roster(time);
        self.tick_removed(time);
        let hopeful = self.peers.hopeful(now_ms);
        let peers = self.peers.len();
        let (engine, mut wires) = self.split();
        engine.set_hopeful(hopeful, peers, &mut wires);
        self.tick_relays(time);
        let limit_ms = self.config.client_timeout_ms;
        let (engine, mut wires) = self.split();
        engine.tick_uploads(limit_ms, &mut wires, time);
        let reached = self.peers.reached(now_ms);
        let (cluster, cx) = self.cluster(time);
        let rather = cluster.rather_leading(&cx);
        let around = Surroundings { reached: &reached, disk: disk_leads, free: true, rather: &rather };
        let slowest_us = self.peers.slowest_us();
        let (engine, mut wires) = self.split();
        engine.tick(around, slowest_us, &mut wires, time);
        let (cluster, mut cx) = self.cluster(time);
        cluster.tick_placement(&mut cx);
        self.dial_bulk(time);
        if !self.is_loading() {
            let since_ms = self.began_ms;
            let (upkeep, cx) = self.upkeep(time);
            upkeep.tick_checkpoints(since_ms, &cx);
            let (cluster, mut cx) = self.cluster(time);
            cluster.tick_members(&mut cx);
        }
        let draining = self.cluster.is_draining();
        let clocks = self.told_clocks(time);
        let state = PingState { start: self.identity.start, disk, full: space.full, draining, clocks };
        let engine = &self.engine;
        // A word counts only where it is a voter's, to a voter.
        let promised = |group, to| {
            let group = engine.find(group)?;
            (group.may_promise() && group.membership().voters().contains(to)).then(|| group.promised())
        };
        if self.peers.ping(state, time.mono_us, promised) {
            // Who may not know yet that the last instance of a group was chosen is told with each ping.
            let others: Vec<NodeId> = self.peers.ids().collect();
            let (engine, mut wires) = self.split();
            engine.announce_chosen(&others, &mut wires);
        }
    }

    /// Ends a turn: every group that had inputs proposes, forwards or announces once, what is durable leaves, reads
    /// are asked about or answered, and the next batch goes to the log.
    pub fn end_turn(&mut self, time: Time) {
        self.now_us = time.mono_us;
        // Also before the node begins: clients that are told so take their share of a turn as well.
        self.with_clients(|clients, node| clients.begin_turn(node.config.turn_steps));
        if self.has_not_begun() {
            return self.with_clients(|clients, node| clients.resume(node, time.mono_ms()));
        }
        let (engine, mut wires) = self.split();
        engine.go_on(&mut wires, time);
        engine.feed_uploads(&mut wires, time);
        engine.flush(&mut wires, time);
        if let Some(led) = self.engine.take_led() {
            self.peers.set_claims(&led);
        }
        let (upkeep, mut cx) = self.upkeep(time);
        upkeep.step(&mut cx);
        self.durability.tell(self.engine.durable_lsn(), &mut self.peers);
        self.with_clients(|clients, node| clients.step_waits(node, time));
        self.send_all(time);
        self.engine.end_turn();
        self.with_clients(|clients, node| clients.resume(node, time.mono_ms()));
    }

    /// What the turn wants done; [`output::carry_out`] does it.
    pub fn outputs(&mut self) -> &mut Outputs {
        &mut self.outputs
    }

    /// Calls `visit` with each client's connection that has replies to be sent, and the replies, which it takes; it tells
    /// how many bytes wait for the client then.
    pub fn take_replies(&mut self, mut visit: impl FnMut(u64, &mut Outbound) -> usize) {
        let stats = &mut self.stats;
        let Some(clients) = &mut self.clients else { return };
        clients.take_replies(|id, replies| {
            stats.net_output_bytes += replies.len() as u64;
            visit(id, replies)
        });
    }

    /// The identity of [`Output::StoreIdentity`] is durable.
    pub fn identity_stored(&mut self, record: BirthRecord, time: Time) {
        self.on_identity_stored(record, time);
    }

    /// Whether a next turn has work even if nothing comes in.
    #[must_use]
    pub fn has_work(&self) -> bool {
        let has_room = self.peers.iter().any(peers::Peer::has_room);
        self.engine.has_work(self.ticked_ms) || has_room
    }

    /// Connections for which large messages wait: at the end of each turn, [`Node::unsent`] is to be told of them.
    #[must_use]
    pub fn filling(&self) -> Vec<u64> {
        self.peers.filling()
    }

    /// So many bytes wait to be written to a connection of [`Node::filling`].
    pub fn unsent(&mut self, id: u64, bytes: usize) {
        self.peers.set_unsent(id, bytes);
    }

    /// What became of [`Output::Checkpoint`].
    pub fn checkpoint_done(&mut self, done: Done, time: Time) {
        let (upkeep, mut cx) = self.upkeep(time);
        upkeep.checkpoint_done(done, &mut cx);
    }

    /// What became of [`Output::Transfer`].
    pub fn brought(&mut self, brought: Brought, time: Time) {
        let (upkeep, mut cx) = self.upkeep(time);
        upkeep.brought(brought, &mut cx);
    }

    /// What a scrub of the disk found: what is damaged is written anew from what is in memory.
    pub fn scrubbed(&mut self, findings: &Findings) {
        self.upkeep.scrubbed(findings, self.engine.len());
    }

    /// What of the log can go, by [`Output::Floors`]; called before anything else is.
    pub fn trim(&mut self, droppable: Droppable) {
        let (upkeep, mut cx) = self.upkeep(Time::default());
        upkeep.trim(droppable, &mut cx);
    }

    /// What was asked with [`Output::ReadRange`] is not read, as too much is being read already: it waits again.
    pub fn range_unread(&mut self, range: ReadRange) {
        self.ranges.put_back(range);
    }

    /// What was asked with [`Output::ReadRange`].
    pub fn range_read(&mut self, range: &ReadRange, values: Vec<ChosenValue>, time: Time) {
        let (upkeep, mut cx) = self.upkeep(time);
        upkeep.range_read(range, values, &mut cx);
    }

    /// Whether blocks of checkpoints are waiting to be taken out, a few in each turn.
    #[must_use]
    pub fn is_checkpointing(&self) -> bool {
        self.upkeep.is_checkpointing()
    }

    /// The groups and their stores, to look at; none before the cluster is born.
    #[must_use]
    pub fn shard(&self) -> &Shard {
        self.engine.shard()
    }

    /// Groups without a leader that this node knows of, such as those that it lacks.
    #[must_use]
    pub fn leaderless(&self) -> usize {
        self.engine.shard().missing_groups() + self.engine.groups().filter(|group| group.leader().is_none()).count()
    }

    /// Whether this node leads a group under a lease, and knows all that was chosen in it.
    #[must_use]
    pub fn holds_lease(&self, group: GroupId, time: Time) -> bool {
        let Some(group) = self.engine.find(group) else { return false };
        let Some(ballot) = group.leads() else { return false };
        matches!(group.answer(ballot), Answer::Leads(_))
            && self.peers.holds_lease(group.id(), ballot, group.membership(), time.mono_us)
    }

    /// Takes over who belongs to the cluster, if that has changed: new members are dialled, and get what is theirs.
    fn update_roster(&mut self, time: Time) {
        if !self.engine.take_members_changed() {
            return;
        }
        let memberships = self.engine.groups().map(groups::Group::membership);
        let Some(mut roster) = Roster::of_all(memberships) else { return };
        let me = self.identity.node;
        let is_everywhere = self.engine.groups().all(|group| group.membership().everyone().contains(me));
        if !is_everywhere {
            // What it joined is not known from the groups before it has learned that it did.
            roster.add(&self.identity.joined);
        }
        if self.is_loading() {
            let peers = &self.peers;
            let linked: Vec<Place> =
                peers.linked().filter_map(|peer| peers.roster().place(peer.id()).cloned()).collect();
            roster.allow_for_unknown(&linked);
        }
        if roster == *self.peers.roster() {
            return;
        }
        for gone in self.peers.enroll(roster) {
            tracing::info!("node {} is not a member any more", gone.id());
            self.cluster_time.forget(gone.id());
            self.relays.forget(gone.id());
            if let Some(link) = gone.link() {
                self.refuse(link, true, links::removed(gone.id()), time);
            }
            self.forget_link(gone.id(), false, time);
        }
        self.admit();
        self.settle_value_version();
    }

    /// A node that was removed from all groups stops, but not before it has told what it knows.
    fn tick_removed(&mut self, time: Time) {
        let is_removed = self.peers.roster().was_removed(self.identity.node);
        let since_ms = *self.removed_ms.get_or_insert(time.mono_ms());
        if !is_removed {
            self.removed_ms = None;
        } else if time.mono_ms() >= since_ms + REMOVED_MS {
            self.outputs.push(Output::Stop(links::removed(self.identity.node)));
        }
    }

    /// The batch that was gathered goes to the log, unless one is on its way, and the frames to their connections.
    fn send_all(&mut self, time: Time) {
        self.outputs.extend(self.engine.next_batch(time.mono_ms()).map(Output::Append));
        let outputs = &mut self.outputs;
        self.peers.take_frames(|link, frame| outputs.push(Output::Frame(link, frame)));
    }
}
