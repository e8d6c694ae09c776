//! The node. Its inputs are clients' bytes, peers' frames, the results of its outputs, and ticks. Its outputs are
//! bytes, log batches and other actions. It does no I/O and reads no clock, so that the simulator runs the same code as
//! the server.
//!
//! These components take the inputs, and own their state:
//!
//! ```text
//! clients    clients' connections, requests and replies      engine        groups, commands, reads, the log's queue
//! links      nodes' connections, handshakes and frames       peers         liveness, reach and claims of the members
//! arrivals   connections without a byte so far               cluster       birth, joining, leaders, members
//! upkeep     checkpoints, transfers, ranges of the log       relay         commands that another member executes
//! names      the members' addresses for clients              durability    durable log positions of other members
//! loading    the start, while groups are rebuilt             cluster_time  unix time by a majority's clocks
//! crew       the exchange with the node's other workers
//! ```
//!
//! These parts connect them:
//!
//! ```text
//! core       the components, to be called with one another         turn       the order of work in a tick and a turn
//! backend    the node as its clients need it                       receiver   the node as its links need it
//! ports      the parts that the engine may use                     refusals   why a command is not tried
//! output     actions outside of the node, and their drivers        wire       messages between nodes
//! admin      the node's answers about itself                       ticket     the address of a reply
//! passing    commands for groups of other workers                  facts      what INFO tells, of each worker
//! ```

mod admin;
mod arrivals;
mod backend;
mod clients;
mod cluster;
mod cluster_time;
mod connection_table;
mod core;
mod crew;
mod durability;
mod engine;
mod facts;
mod links;
mod loading;
mod names;
pub mod output;
mod passing;
pub mod peers;
mod ports;
mod receiver;
mod refusals;
mod relay;
mod space;
#[cfg(test)]
mod tests;
mod ticket;
mod time;
mod turn;
mod upkeep;
pub mod wire;

use self::core::Core;
use crate::admin::stats::Stats;
use crate::config::{NodeConfig, STALL_MS_MIN};
use crate::identity::Identity;
use crate::kv::reply::Reply;
use crate::kv::table;
use crate::recovery::{CheckpointLoadSummary, EmptyShard};
use crate::shard::{Replica, Shard};
use crate::storage::checkpoint::{Catalog, CheckpointSequence};
use crate::storage::wal::{Lsn, Record};
use admin::{Facts, ProcessInfo};
use arrivals::{Arrivals, ConnectionOwner};
use bytes::BytesMut;
use clients::Clients;
use cluster::Cluster;
use cluster_time::ClusterTime;
use crew::{Content, Crew};
use durability::Durability;
use engine::Engine;
use groups::{GroupId, Ms, Us};
use links::Links;
use loading::Loading;
use names::Names;
use net::event::ConnectionId;
use net::outbound::Outbound;
use peers::{Peers, Roster};
use ports::EnginePorts;
use relay::Relays;
use std::net::SocketAddr;
use upkeep::{Ranges, Upkeep};

pub use admin::Facts as ProcessFacts;
pub use crew::WorkerMessage;
pub use output::{Close, Completion, Driver, Output, Outputs};
pub use space::Space;
pub use time::Time;

/// One node of a cluster.
pub struct Node {
    config: NodeConfig,
    identity: Identity,
    arrivals: Arrivals,
    clients: Clients,
    links: Links,
    engine: Engine,
    peers: Peers,
    cluster: Cluster,
    upkeep: Upkeep,
    crew: Crew,
    relays: Relays,
    durability: Durability,
    cluster_time: ClusterTime,
    names: Names,
    loading: Loading,
    process_info: ProcessInfo,
    ranges: Ranges,
    stats: Stats,
    outputs: Outputs,
    /// The time of this turn, in microseconds.
    now_us: Us,
    ticked_ms: Ms,
}

impl Node {
    /// Creates a node with the identity of its data directory. A node with a log must then get the log's content: see
    /// [`Node::begin_rebuild`].
    #[must_use]
    pub fn new(config: NodeConfig, identity: Identity) -> Node {
        let first = cluster::membership(&config, identity.birth.as_ref());
        let mut node = Node {
            arrivals: Arrivals::default(),
            clients: Clients::new(&config),
            links: Links::new(&config),
            engine: Engine::new(&identity, &config),
            peers: Peers::new(&identity, Roster::of_one(&first), &config),
            cluster: Cluster::new(&identity, &config),
            upkeep: Upkeep::new(&config),
            crew: Crew::new(config.workers),
            relays: Relays::new(identity.start),
            durability: Durability::default(),
            cluster_time: ClusterTime::new(config.versions),
            names: Names::default(),
            loading: Loading::whole(),
            process_info: ProcessInfo::default(),
            ranges: Ranges::default(),
            stats: Stats::new(table::names_by_verb()),
            outputs: Outputs::default(),
            now_us: Us(0),
            ticked_ms: Ms(0),
            identity,
            config,
        };
        if let Some(record) = node.identity.birth.clone() {
            node.core().1.set_groups(&record);
        }
        node
    }

    /// Splits the node into the clients' connections, the links, and the rest.
    fn parts(&mut self) -> (&mut Clients, &mut Links, Core<'_>) {
        let ports = EnginePorts {
            peers: &mut self.peers,
            clients: None,
            crew: &mut self.crew,
            relays: &mut self.relays,
            ranges: &mut self.ranges,
            stats: &mut self.stats,
            outputs: &mut self.outputs,
            cluster_time: &mut self.cluster_time,
            now_us: self.now_us,
        };
        let core = Core {
            config: &mut self.config,
            identity: &mut self.identity,
            engine: &mut self.engine,
            ports,
            upkeep: &mut self.upkeep,
            cluster: &mut self.cluster,
            durability: &mut self.durability,
            names: &mut self.names,
            loading: &mut self.loading,
            process_info: &mut self.process_info,
        };
        (&mut self.clients, &mut self.links, core)
    }

    /// Splits the node into the links and the rest. The rest can reply to clients.
    fn core(&mut self) -> (&mut Links, Core<'_>) {
        let (clients, links, mut core) = self.parts();
        core.ports.clients = Some(clients);
        (links, core)
    }

    // A start.

    /// Hands the groups out to be rebuilt. Then call [`Node::log_read`], [`Node::groups_rebuilt`] for all groups, some
    /// at a time, and [`Node::all_rebuilt`].
    pub fn begin_rebuild(&mut self) -> EmptyShard {
        let birth = self.identity.birth.as_ref();
        let cluster = birth.map(|record| (record.checkpoint_header(CheckpointSequence::default()), record.limits()));
        self.loading.begin();
        EmptyShard { replicas: self.engine.take_groups(), cluster, value_version: self.config.versions.value_version() }
    }

    /// Takes the content of the log that was read to its end: records of other members' starts, and `lsn`, up to which
    /// it is durable. Also takes the list of the checkpoint files.
    pub fn log_read(&mut self, peers: &[Record], catalog: &Catalog, lsn: Lsn) {
        peers.iter().for_each(|record| self.peers.restore(record));
        self.upkeep.add_files(catalog);
        self.loading.on_log_read(lsn);
    }

    /// Serves rebuilt groups from now on. With the first of them the node begins, and its time limits run.
    ///
    /// # Panics
    /// If the log has not been read, or a group is here already.
    pub fn groups_rebuilt(&mut self, replicas: Vec<(GroupId, Replica)>, time: Time) {
        let (links, mut core) = self.core();
        if core.put_rebuilt(replicas, links, time) {
            self.ticked_ms = time.mono_ms();
        }
    }

    /// Ends the start: all groups are here, and `restored` was in the checkpoints.
    ///
    /// # Panics
    /// If the node has not begun, or a group is missing.
    pub fn all_rebuilt(&mut self, restored: &CheckpointLoadSummary, time: Time) {
        let (links, mut core) = self.core();
        core.on_all_rebuilt(restored);
        core.update_roster(links, time);
    }

    /// Begins after the recovery. The log is durable up to `lsn`; time limits run from here.
    pub fn begin(&mut self, lsn: Lsn, time: Time) {
        let (links, mut core) = self.core();
        core.begin(lsn, links, time);
        self.ticked_ms = time.mono_ms();
    }

    // Connections.

    /// Takes an accepted connection, or one that another worker has handed over.
    pub fn opened(&mut self, id: ConnectionId, addr: SocketAddr, time: Time) {
        self.stats.connections_received += u64::from(self.config.workers.is_first());
        self.arrivals.opened(id, addr, time);
    }

    /// Handles input of a connection that has `unsent` bytes of replies to be written. Bytes that are consumed are
    /// removed from the front of `input`. The rest must be passed again when more has come, or after a resume.
    pub fn input(&mut self, id: ConnectionId, input: &mut BytesMut, unsent: usize, time: Time) {
        self.now_us = time.mono_us;
        self.engine.note_input();
        if self.arrivals.has(id) {
            let Some(first) = input.first() else { return };
            match self.arrivals.take_owner(id, *first) {
                Some(ConnectionOwner::Nodes) => self.links.accept(id, time),
                Some(ConnectionOwner::TlsClients(addr)) => {
                    tracing::warn!("{addr} asks for an encrypted connection, which is not supported");
                    self.admit_client(id, addr, Some("ERR TLS is not supported"), time);
                }
                Some(ConnectionOwner::Clients(addr)) => match self.crew.deal_client(self.is_born()) {
                    Some(worker) => return self.outputs.push(Output::HandOver(id, worker)),
                    None => self.admit_client(id, addr, None, time),
                },
                None => {}
            }
        }
        if self.clients.has(id) {
            let (clients, _, mut core) = self.parts();
            clients.input(id, input, unsent, &mut core, time);
        } else if !self.links.has(id) {
            if !self.outputs.hands_over(id) {
                input.clear();
            }
        } else if self.loading.has_not_begun() {
            // The member waits; see `loading`.
            self.outputs.push(Output::Pause(id));
        } else {
            let (links, mut core) = self.core();
            links.input(id, input, &mut core, time);
        }
    }

    fn admit_client(&mut self, id: ConnectionId, addr: SocketAddr, refusal: Option<&'static str>, time: Time) {
        let (clients, _, mut core) = self.parts();
        clients.admit(id, addr, refusal, &mut core, time);
    }

    /// Notes that the other side of a connection will send no more.
    pub fn ended(&mut self, id: ConnectionId, time: Time) {
        if self.clients.has(id) {
            return self.clients.ended(id);
        }
        if self.arrivals.has(id) || self.links.has(id) {
            self.outputs.close(id, Close::Now);
            self.closed(id, time);
        }
    }

    /// Notes that everything queued for the connection has been written.
    pub fn drained(&mut self, id: ConnectionId) {
        self.clients.drained(id);
        self.unsent(id, 0);
    }

    /// Notes that the connection is closed.
    pub fn closed(&mut self, id: ConnectionId, time: Time) {
        self.arrivals.closed(id);
        self.clients.closed(id);
        let (links, mut core) = self.core();
        links.closed(id, &mut core, time);
    }

    /// Calls `visit` with each client's connection that has replies, and with the replies. `visit` takes them, and
    /// returns how many bytes then wait for the client.
    pub fn take_replies(&mut self, mut visit: impl FnMut(ConnectionId, &mut Outbound) -> usize) {
        let (stats, now_us) = (&mut self.stats, self.now_us);
        self.clients.take_replies(now_us, |id, replies| {
            stats.net_output_bytes += replies.len() as u64;
            visit(id, replies)
        });
    }

    /// Returns the connections for which large messages wait. At the end of each turn, call [`Node::unsent`] for each
    /// of them.
    #[must_use]
    pub fn filling(&self) -> Vec<ConnectionId> {
        self.peers.filling()
    }

    /// Notes that `bytes` wait to be written to a connection of [`Node::filling`].
    pub fn unsent(&mut self, id: ConnectionId, bytes: usize) {
        self.peers.set_unsent(id, bytes);
    }

    // Time.

    /// Applies the time limits. Call it about every [`groups::TICK_MS`].
    pub fn tick(&mut self, time: Time) {
        let now_ms = time.mono_ms();
        self.now_us = time.mono_us;
        self.stats.sample(now_ms);
        self.process_info.tick(now_ms);
        let passed_ms = now_ms - std::mem::replace(&mut self.ticked_ms, now_ms).min(now_ms);
        if passed_ms >= STALL_MS_MIN && !self.loading.has_not_begun() {
            self.peers.compensate_stall(passed_ms, now_ms);
        }
        let (links, mut core) = self.core();
        links.tick(&mut core, time);
        for (id, addr) in self.arrivals.take_silent(now_ms) {
            self.admit_client(id, addr, None, time);
        }
        if self.loading.has_not_begun() {
            return;
        }
        let (clients, _, mut core) = self.parts();
        clients.tick(&mut core, now_ms);
        self.core().1.tick_first(time);
        if !self.is_born() {
            return self.core().1.tick_unborn(time);
        }
        let (links, mut core) = self.core();
        core.update_roster(links, time);
        core.tick_born(time);
    }

    /// Ends a turn. Every group that had inputs proposes, forwards or announces once. Durable effects leave. Reads are
    /// confirmed or answered. The next batch goes to the log.
    pub fn end_turn(&mut self, time: Time) {
        self.now_us = time.mono_us;
        // Clients take steps of work also before the node has begun: they get refusals, which cost a share of the turn.
        self.clients.begin_turn(self.config.turn_steps);
        if !self.loading.has_not_begun() {
            self.core().1.flush(time);
            let (clients, _, mut core) = self.parts();
            clients.step(&mut core, time);
            core.send_all(time);
            core.engine.end_turn();
        }
        let (clients, _, mut core) = self.parts();
        clients.resume(&mut core, time.mono_ms());
        self.outputs.extend(self.crew.take());
    }

    // Results of outputs.

    /// Returns the outputs of the turn; [`output::carry_out`] executes them.
    pub fn outputs(&mut self) -> &mut Outputs {
        &mut self.outputs
    }

    /// Handles the result of an output.
    pub fn on_completion(&mut self, completion: Completion, time: Time) {
        let (links, mut core) = self.core();
        match completion {
            Completion::Dialling { to, purpose, connection } => {
                links.on_dialling(to, purpose, connection, &mut core, time);
            }
            Completion::Connected(id) => links.say_hello(id, &mut core),
            Completion::Resolved(name, ip) => core.names.on_resolved(&name, ip),
            Completion::Stored(record) => core.on_stored(record, links, time),
            Completion::Durable { lsn, frame, sync_us } => core.on_durable(lsn, frame, sync_us, time),
            Completion::Scrubbed(findings) => core.upkeep.scrubbed(&findings, core.engine.owned()),
            Completion::Unread(range) => core.ports.ranges.put_back(range),
            Completion::Read(range, values) => {
                core.with_upkeep(time, |upkeep, cx| upkeep.range_read(&range, values, cx));
            }
            Completion::Checkpoint(result) => {
                core.with_upkeep(time, |upkeep, cx| upkeep.on_checkpoint_result(result, cx));
            }
            Completion::Transfer(result) => core.with_upkeep(time, |upkeep, cx| upkeep.on_transfer_result(result, cx)),
            Completion::Told(from, WorkerMessage(Content::Rest(message))) => core.on_told(from, message, links, time),
            Completion::Told(from, WorkerMessage(Content::Clients(message))) => {
                let (clients, _, mut core) = self.parts();
                clients.on_message(from, message, &mut core, time);
            }
            Completion::DroppableSegments(droppable) => core.with_upkeep(time, |upkeep, cx| upkeep.trim(droppable, cx)),
        }
    }

    // Facts from the shell, and facts for the shell.

    /// Notes how long the last turn of the event loop took, in microseconds, without its sleep.
    pub fn turn_took(&mut self, usec: Us, time: Time) {
        self.stats.turns.record(usec);
        self.engine.turn_took(usec);
        self.upkeep.turn_took(usec, self.engine.logged_bytes(), time.mono_us);
    }

    /// Takes facts about the process, for `INFO`. Call it at intervals.
    pub fn set_facts(&mut self, facts: Facts) {
        self.process_info.set_facts(facts);
    }

    /// Takes the space of the log and the disk. Call it every turn.
    pub fn set_space(&mut self, space: Space) {
        self.engine.set_space(space);
    }

    /// Returns how many clients may be connected now. CONFIG SET changes it.
    #[must_use]
    pub fn max_clients(&self) -> u64 {
        self.config.max_clients
    }

    /// Returns true if the cluster exists, and this node knows its promises in the groups that are rebuilt. Before
    /// that, it can serve nothing.
    #[must_use]
    pub fn is_born(&self) -> bool {
        self.loading.is_born(&self.identity)
    }

    /// Returns true if some group is not rebuilt yet, or the content of the checkpoints is not known.
    #[must_use]
    pub fn is_loading(&self) -> bool {
        self.loading.is_loading()
    }

    /// Returns true if the next turn has work even without input.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.engine.has_work(self.ticked_ms) || self.peers.iter().any(peers::Peer::has_room)
    }

    /// Returns true if a turn is due in a millisecond: blocks of checkpoints, proposals or replies wait.
    #[must_use]
    pub fn has_work_soon(&self) -> bool {
        self.upkeep.is_checkpointing() || self.engine.holds_proposals() || self.clients.gathers_replies()
    }

    /// Returns the groups and their stores, read-only. There are none before the cluster is born.
    #[must_use]
    pub fn shard(&self) -> &Shard {
        self.engine.shard()
    }

    /// Returns the number of groups without a leader known here, including the groups that are not rebuilt yet.
    #[must_use]
    pub fn leaderless(&self) -> usize {
        self.engine.leaderless()
    }

    /// Returns cluster time in unix milliseconds; `None` if it is not known yet.
    #[must_use]
    pub fn cluster_ms(&self, time: Time) -> Option<Ms> {
        self.cluster_time.now_ms(time)
    }

    /// Returns true if this node leads a group under a lease, and knows all values chosen in it.
    #[must_use]
    pub fn holds_lease(&self, group: GroupId, time: Time) -> bool {
        let led = self.engine.led_with_all_values(group);
        led.is_some_and(|(group, ballot)| self.peers.holds_lease(group.id(), ballot, group.membership(), time.mono_us))
    }

    /// Executes `PAXOI MEMBER …`; `words` includes these two words. A change answers `OK` if it is done, and otherwise
    /// its progress. The change goes on after the reply.
    pub fn member_command(&mut self, words: &[&[u8]], time: Time) -> Reply<'static> {
        self.core().1.member_command(words, time)
    }
}
