//! How the engine reaches the rest of the node: the frames to the other members, the replies to clients and to members that
//! pass commands on, the leases, and what is done outside.

use super::clients::Clients;
use super::cluster::{self, Cluster};
use super::cluster_time::ClusterTime;
use super::engine::{Engine, Ports, UploadNeeds};
use super::joining::Joining;
use super::output::{Output, Outputs};
use super::peers::Peers;
use super::refusals::Refusals;
use super::relay::{RELAYED, Relays};
use super::ticket::Ticket;
use super::upkeep::{Cx, LogSize, Ranges, Upkeep};
use super::wire::NodeMessage;
use super::{Node, Time};
use crate::admin::stats::Stats;
use crate::config::NodeConfig;
use crate::identity::Identity;
use crate::kv::Discarded;
use crate::kv::reply::Reply;
use crate::storage::checkpoint::Errand;
use crate::storage::wal;
use groups::{Ballot, Clock, Effect, Group, GroupId, Message, NodeId};

/// See the module.
pub(super) struct Wires<'a> {
    pub(super) peers: &'a mut Peers,
    /// `None` while a client's requests are carried out: nothing is answered then.
    pub(super) clients: Option<&'a mut Clients>,
    pub(super) relays: &'a mut Relays,
    pub(super) ranges: &'a mut Ranges,
    pub(super) stats: &'a mut Stats,
    pub(super) outputs: &'a mut Outputs,
    pub(super) cluster_time: &'a ClusterTime,
    pub(super) now_us: u64,
}

impl Wires<'_> {
    /// What decides whether a command is tried.
    pub(super) fn refusals<'a>(&'a self, engine: &'a Engine) -> Refusals<'a> {
        Refusals { engine, peers: self.peers, relays: self.relays }
    }
}

impl Ports for Wires<'_> {
    fn send(&mut self, group: GroupId, to: NodeId, message: &Message) {
        if let Some(peer) = self.peers.find(to) {
            peer.send(group, message);
        }
    }

    fn tell(&mut self, to: NodeId, message: &NodeMessage) {
        if let Some(peer) = self.peers.find(to) {
            peer.tell(message);
        }
    }

    fn reached(&self, group: GroupId, time: Time) -> impl Iterator<Item = NodeId> {
        let peers = self.peers.iter();
        peers.filter(move |peer| peer.is_reached(time.mono_ms()) && !peer.lacks(group)).map(|peer| peer.id())
    }

    fn holds_lease(&self, group: &Group, ballot: Ballot, time: Time) -> bool {
        self.peers.holds_lease(group.id(), ballot, group.membership(), time.mono_us)
    }

    fn allows(&self, group: GroupId, to: NodeId, promised: Ballot, clock: Clock) -> bool {
        self.peers.allows(group, to, promised, clock)
    }

    fn release_lease(&mut self, group: GroupId) {
        self.peers.release_lease(group, self.now_us);
    }

    fn cluster_ms(&self, time: Time) -> Option<u64> {
        self.cluster_time.now_ms(time)
    }

    fn reply(&mut self, ticket: Ticket, reply: Reply<'_>) {
        if ticket.connection == RELAYED {
            return self.relays.answer(ticket, &reply, self.peers);
        }
        if let Reply::Error(text) = &reply {
            self.stats.error(text);
        }
        let clients = self.clients.as_deref_mut();
        clients.expect("no reply comes while a client's requests are carried out").settle(ticket, reply);
    }

    fn upload_refusal(&self, engine: &Engine, group: GroupId, needs: UploadNeeds) -> Option<Reply<'static>> {
        let refusals = self.refusals(engine);
        let refusal = refusals.of_group(group, false, needs.bytes);
        refusal.or_else(|| refusals.of_space(needs.grows, true, needs.part_bytes))
    }

    fn stats(&mut self) -> &mut Stats {
        self.stats
    }

    fn now_us(&self) -> u64 {
        self.now_us
    }

    fn read_log(&mut self, range: wal::ReadRange) {
        self.outputs.extend(self.ranges.ask(range).map(Output::ReadRange));
    }

    fn discard(&mut self, discarded: Discarded) {
        self.outputs.push(Output::Transfer(Errand::Drop(Box::new(discarded))));
    }
}

/// A node taken apart, so that one component can be called with others as its arguments.
struct Parts<'a> {
    engine: &'a mut Engine,
    wires: Wires<'a>,
    upkeep: &'a mut Upkeep,
    cluster: &'a mut Cluster,
    joining: &'a Joining,
    identity: &'a Identity,
    config: &'a NodeConfig,
    log: LogSize,
}

impl Node {
    fn parts(&mut self) -> Parts<'_> {
        let wires = Wires {
            peers: &mut self.peers,
            clients: self.clients.as_deref_mut(),
            relays: &mut self.relays,
            ranges: &mut self.ranges,
            stats: &mut self.stats,
            outputs: &mut self.outputs,
            cluster_time: &self.cluster_time,
            now_us: self.now_us,
        };
        Parts {
            engine: &mut self.engine,
            wires,
            upkeep: &mut self.upkeep,
            cluster: &mut self.cluster,
            joining: &self.joining,
            identity: &self.identity,
            config: &self.config,
            log: LogSize { bytes: self.facts.log_bytes, segments: self.facts.log_segments },
        }
    }

    /// The engine on one side, and what it needs of the rest on the other.
    pub(super) fn split(&mut self) -> (&mut Engine, Wires<'_>) {
        let Parts { engine, wires, .. } = self.parts();
        (engine, wires)
    }

    /// Upkeep on one side, and what it may touch on the other.
    pub(super) fn upkeep(&mut self, time: Time) -> (&mut Upkeep, Cx<'_>) {
        let Parts { engine, wires, upkeep, identity, config, log, .. } = self.parts();
        let value_version = config.versions.value_version();
        (upkeep, Cx { engine, wires, cluster: identity.birth.as_ref(), value_version, log, time })
    }

    /// The affairs of the cluster on one side, and what they may touch on the other.
    pub(super) fn cluster(&mut self, time: Time) -> (&mut Cluster, cluster::Cx<'_>) {
        let Parts { engine, wires, cluster, joining, identity, config, .. } = self.parts();
        let (me, client_timeout_ms) = (identity.node, config.client_timeout_ms);
        (cluster, cluster::Cx { engine, wires, joining, me, client_timeout_ms, time })
    }

    /// See [`Engine::step`].
    pub(super) fn step(&mut self, group: GroupId, change: impl FnOnce(&mut Group, &mut Vec<Effect>)) {
        let (engine, mut wires) = self.split();
        engine.step(group, &mut wires, change);
    }

    /// See [`Engine::quiet_step`].
    pub(super) fn quiet_step(&mut self, group: GroupId, change: impl FnOnce(&mut Group, &mut Vec<Effect>)) {
        let (engine, mut wires) = self.split();
        engine.quiet_step(group, &mut wires, change);
    }

    /// See [`Engine::step_all`].
    pub(super) fn step_all(&mut self, change: impl FnMut(&mut Group, &mut Vec<Effect>)) {
        let (engine, mut wires) = self.split();
        engine.step_all(&mut wires, change);
    }
}
