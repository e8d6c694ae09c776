//! Connects the engine to the rest of the node: frames to the other members, replies to clients, to other workers and to
//! members that pass commands on, leases, and [`Output`]s.

use super::Time;
use super::clients::Clients;
use super::cluster_time::ClusterTime;
use super::crew::Crew;
use super::engine::{Engine, Ports, UploadNeeds};
use super::output::{Output, Outputs};
use super::peers::Peers;
use super::refusals::Refusals;
use super::relay::Relays;
use super::ticket::Ticket;
use super::upkeep::Ranges;
use super::wire::NodeMessage;
use crate::admin::stats::Stats;
use crate::kv::Discarded;
use crate::kv::reply::Reply;
use crate::storage::checkpoint::TransferTask;
use crate::storage::wal;
use groups::{Ballot, Clock, Group, GroupId, Message, Ms, NodeId, Us};

/// See the module.
pub(super) struct EnginePorts<'a> {
    pub(super) peers: &'a mut Peers,
    /// `None` while a client's requests are carried out: no command is answered during that time.
    pub(super) clients: Option<&'a mut Clients>,
    pub(super) crew: &'a mut Crew,
    pub(super) relays: &'a mut Relays,
    pub(super) ranges: &'a mut Ranges,
    pub(super) stats: &'a mut Stats,
    pub(super) outputs: &'a mut Outputs,
    pub(super) cluster_time: &'a mut ClusterTime,
    pub(super) now_us: Us,
}

impl EnginePorts<'_> {
    /// Borrows all parts for a shorter lifetime.
    pub(super) fn reborrow(&mut self) -> EnginePorts<'_> {
        EnginePorts {
            peers: self.peers,
            clients: self.clients.as_deref_mut(),
            crew: self.crew,
            relays: self.relays,
            ranges: self.ranges,
            stats: self.stats,
            outputs: self.outputs,
            cluster_time: self.cluster_time,
            now_us: self.now_us,
        }
    }

    /// Returns the checks that can refuse a command before it is tried.
    pub(super) fn refusals<'a>(&'a self, engine: &'a Engine) -> Refusals<'a> {
        Refusals { engine, peers: self.peers, relays: self.relays }
    }
}

impl Ports for EnginePorts<'_> {
    fn send(&mut self, group: GroupId, to: NodeId, message: &Message) {
        if let Some(peer) = self.peers.find(to) {
            peer.send(group, message);
        }
    }

    fn send_node_message(&mut self, to: NodeId, message: &NodeMessage) {
        if let Some(peer) = self.peers.find(to) {
            peer.send_node_message(message);
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

    fn cluster_ms(&self, time: Time) -> Option<Ms> {
        self.cluster_time.now_ms(time)
    }

    fn reply(&mut self, ticket: Ticket, reply: Reply<'_>) {
        let ticket = match ticket {
            Ticket::Client(ticket) => ticket,
            // The worker of the client counts an error.
            Ticket::Worker(ticket) => return self.crew.answer(ticket, reply),
            Ticket::Relayed(served) => return self.relays.answer(served, &reply, self.peers),
            Ticket::Upload { .. } => unreachable!("the engine takes the replies to parts of uploads"),
        };
        if let Reply::Error(text) = &reply {
            self.stats.error(text);
        }
        let clients = self.clients.as_deref_mut();
        clients.expect("no reply comes while a client's requests are carried out").complete(ticket, reply);
    }

    fn upload_refusal(&self, engine: &Engine, group: GroupId, needs: UploadNeeds) -> Option<Reply<'static>> {
        let refusals = self.refusals(engine);
        let refusal = refusals.of_group(group, false, needs.bytes);
        refusal.or_else(|| refusals.of_space(needs.grows, true, needs.part_bytes))
    }

    fn stats(&mut self) -> &mut Stats {
        self.stats
    }

    fn now_us(&self) -> Us {
        self.now_us
    }

    fn read_log(&mut self, range: wal::ReadRange) {
        self.outputs.extend(self.ranges.ask(range).map(Output::ReadRange));
    }

    fn discard(&mut self, discarded: Discarded) {
        self.outputs.push(Output::Transfer(TransferTask::Drop(Box::new(discarded))));
    }
}
