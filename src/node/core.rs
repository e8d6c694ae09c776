//! The node without its connections: the components with which clients and links are served. A [`Core`] is created for
//! each input, so that one component can be called with others as arguments.

use super::Time;
use super::admin::ProcessInfo;
use super::cluster::{self, Cluster};
use super::crew::Told;
use super::durability::Durability;
use super::engine::{Engine, Ports};
use super::links::{self, Links};
use super::loading::Loading;
use super::names::Names;
use super::peers::Roster;
use super::ports::EnginePorts;
use super::relay::Answers;
use super::upkeep::{self, LogSize, Upkeep};
use super::wire::{NodeMessage, Refusal};
use crate::config::NodeConfig;
use crate::identity::{BirthRecord, Identity};
use crate::storage::wal::Lsn;
use crate::workers::WorkerId;
use groups::{GroupId, NodeId, Us};

/// References to the components; see the module.
pub(super) struct Core<'a> {
    pub(super) config: &'a mut NodeConfig,
    pub(super) identity: &'a mut Identity,
    pub(super) engine: &'a mut Engine,
    pub(super) ports: EnginePorts<'a>,
    pub(super) upkeep: &'a mut Upkeep,
    pub(super) cluster: &'a mut Cluster,
    pub(super) durability: &'a mut Durability,
    pub(super) names: &'a mut Names,
    pub(super) loading: &'a mut Loading,
    pub(super) process_info: &'a mut ProcessInfo,
}

impl Core<'_> {
    /// Returns true if the cluster exists, and this node knows its promises in the groups that it has rebuilt so far.
    /// Before that, the node can serve nothing.
    pub(super) fn is_born(&self) -> bool {
        self.loading.is_born(self.identity)
    }

    /// Returns the upkeep component, and the context of a call.
    pub(super) fn upkeep(&mut self, time: Time) -> (&mut Upkeep, upkeep::UpkeepContext<'_>) {
        let facts = self.process_info.facts();
        let log = LogSize { bytes: facts.log_bytes, segments: facts.log_segments };
        let (engine, ports, cluster) = (&mut *self.engine, self.ports.reborrow(), self.identity.birth.as_ref());
        (self.upkeep, upkeep::UpkeepContext { engine, ports, cluster, log, time })
    }

    /// Calls a method of upkeep with its context.
    pub(super) fn with_upkeep(&mut self, time: Time, call: impl FnOnce(&mut Upkeep, &mut upkeep::UpkeepContext<'_>)) {
        let (upkeep, mut cx) = self.upkeep(time);
        call(upkeep, &mut cx);
    }

    /// Returns the cluster component, and the context of a call.
    pub(super) fn cluster(&mut self, time: Time) -> (&mut Cluster, cluster::ClusterContext<'_>) {
        let is_born = self.is_born();
        let Core { config, identity, engine, ports, cluster, .. } = self;
        (cluster, cluster::ClusterContext { engine, ports: ports.reborrow(), identity, config, is_born, time })
    }

    /// Creates the empty groups of the cluster of this birth record.
    pub(super) fn set_groups(&mut self, record: &BirthRecord) {
        let groups = cluster::groups(self.config, self.identity, record);
        self.engine.set_groups(record.groups, groups);
        self.upkeep.set_groups(record.groups);
        self.update_value_version();
    }

    /// Makes this node a member of its cluster: the identity that says so is durable.
    pub(super) fn on_stored(&mut self, record: BirthRecord, links: &mut Links, time: Time) {
        if self.config.workers.is_first() {
            cluster::announce(&record, self.config);
        }
        self.set_groups(&record);
        self.identity.birth = Some(record);
        let identity = &*self.identity;
        if self.config.workers.is_first() {
            self.ports.crew.tell_all(|| Told::Joined(Box::new(identity.clone())));
        } else {
            // A worker without groups hears of the members from the others, but must know their storage ids at once.
            let mut roster = Roster::of_one(&cluster::membership(self.config, identity.birth.as_ref()));
            roster.add(&identity.joined);
            self.ports.peers.enroll(roster);
        }
        self.update_roster(links, time);
        self.engine.begin_groups(time.clock());
        // The other members get the birth record, as they may be unborn. Then all connections begin anew, with hellos
        // that name the cluster.
        let others: Vec<NodeId> = self.ports.peers.ids().collect();
        others.iter().for_each(|id| self.send_birth(*id));
        self.send_all(time);
        // The closed connections are not failures of the peers.
        self.ports.peers.reset_backoff();
        // Connections in the handshake are closed too: this node may have told the other side already that it is not
        // born.
        links.close_all(self, time);
    }

    /// Handles a message of another worker of this node.
    pub(super) fn on_told(&mut self, from: WorkerId, message: Told, links: &mut Links, time: Time) {
        match message {
            Told::Commands(batch) => self.take_commands(from, batch, time),
            Told::Replies(batch) => self.take_replies(from, batch),
            Told::Joined(identity) => {
                let record = identity.birth.clone();
                *self.identity = *identity;
                record.into_iter().for_each(|record| self.on_stored(record, links, time));
            }
            Told::Members(roster) => {
                self.ports.crew.set_roster(from, *roster);
                self.engine.note_members_changed();
                self.update_roster(links, time);
            }
            Told::Change(request) => {
                if self.is_born() && !self.loading.is_loading() {
                    let (cluster, mut cx) = self.cluster(time);
                    cluster.handle_change(request, &mut cx);
                }
            }
            Told::Changed(report) => self.cluster.handle_change_report(from, report),
            Told::Load(load) => self.ports.crew.set_load(from, load),
            Told::Move(words, client) => self.take_move(from, &words, client, time),
            Told::Released(file) => self.with_upkeep(time, |upkeep, cx| upkeep.on_released(file, cx)),
            Told::Floor(below) => {
                self.with_upkeep(time, |upkeep, cx| upkeep.note_floor(from, below, cx));
            }
        }
    }

    /// Takes over the members of the cluster if they have changed. New members are dialled, and admitted if they wait
    /// here. Removed ones are disconnected.
    pub(super) fn update_roster(&mut self, links: &mut Links, time: Time) {
        let loads = self.loading.is_loading();
        let (cluster, mut cx) = self.cluster(time);
        let Some(roster) = cluster.next_roster(loads, &mut cx) else { return };
        for gone in self.ports.peers.enroll(roster) {
            let node = gone.id();
            tracing::info!("node {node} is not a member any more");
            self.ports.cluster_time.forget(node);
            self.ports.relays.forget(node);
            if let Some(link) = gone.link() {
                links.refuse(link, Refusal { fatal: true, text: links::removed(node) }, self, time);
            }
            self.engine.forget_link(node, false, &mut self.ports, time);
        }
        let (cluster, mut cx) = self.cluster(time);
        cluster.admit(&mut cx);
        self.update_value_version();
    }

    /// Notes that the batches up to `lsn` are durable; the frame of the last one has the number `frame`. The sync took
    /// `sync_us`.
    pub(super) fn on_durable(&mut self, lsn: Lsn, frame: Lsn, sync_us: Us, time: Time) {
        self.ports.stats.fsyncs.record(sync_us);
        self.engine.on_durable(lsn, frame, sync_us, &mut self.ports);
        self.with_upkeep(time, |upkeep, cx| upkeep.on_durable(lsn, cx));
    }

    /// Updates the version of the values that this node may propose, after the members or their versions changed.
    pub(super) fn update_value_version(&mut self) {
        let version = self.ports.peers.value_version();
        self.engine.set_value_version(version, &mut self.ports);
    }

    /// Passes a peer's claims to the groups, after the claims or the nodes that it reaches have changed.
    pub(super) fn on_claims(&mut self, from: NodeId, time: Time) {
        let Some(peer) = self.ports.peers.find(from).filter(|peer| peer.link().is_some()) else { return };
        let (claimed, reached) = peer.claims();
        let (claimed, reached) = (claimed.to_vec(), reached.to_vec());
        self.engine.apply_claims(from, &claimed, &reached, &mut self.ports, time.clock());
    }

    /// Passes the claims of all connected peers to the groups again, after a leader may have been lost. A group ignores
    /// a claim while it knows a leader with a higher ballot; without that leader, the claim counts.
    pub(super) fn apply_claims(&mut self, time: Time) {
        let others: Vec<NodeId> = self.ports.peers.linked().map(|peer| peer.id()).collect();
        others.into_iter().for_each(|id| self.on_claims(id, time));
    }

    /// Gives up the commands that were passed on to `from`: their replies will not come.
    pub(super) fn give_up_relays(&mut self, from: NodeId, time: Time) {
        let lost = self.ports.relays.on_cut(from, self.ports.peers, time);
        self.answer(lost);
        self.engine.set_passing_on(self.ports.relays.to().is_some());
    }

    /// Sends the birth record to an initial member.
    pub(super) fn send_birth(&mut self, to: NodeId) {
        if let Some(record) = self.identity.birth.clone() {
            self.send_node_message(to, &NodeMessage::Birth(record));
        }
    }

    /// Tells a member that `groups` have been rebuilt, and which groups are still missing here.
    pub(super) fn send_groups_ready(&mut self, to: NodeId, groups: &[GroupId]) {
        let ready = self.engine.groups_ready(groups);
        self.send_node_message(to, &NodeMessage::GroupsReady(ready));
    }

    /// Sends a member the `next` of each group here.
    pub(super) fn send_positions(&mut self, to: NodeId) {
        let positions = self.engine.positions();
        self.send_node_message(to, &NodeMessage::Positions(positions));
    }

    pub(super) fn send_node_message(&mut self, to: NodeId, message: &NodeMessage) {
        self.ports.send_node_message(to, message);
    }

    /// Answers commands that were passed on.
    pub(super) fn answer(&mut self, answers: Answers) {
        answers.into_iter().for_each(|(context, reply)| self.ports.answer(context, reply));
    }
}
