//! The node as its links need it; see [`Receiver`].

use super::Time;
use super::clients::{Backend, Request, Submission};
use super::core::Core;
use super::engine::{Ports, UNCOUNTED};
use super::links::{HandshakeContext, Receiver};
use super::output::Outputs;
use super::peers::Peers;
use super::relay;
use super::wire::{Hello, NodeMessage, Positions, Refusal, Relay};
use crate::config::RELAY_BYTES_MAX;
use crate::kv::encode::decode;
use crate::kv::fanout::NOT_SERVED;
use bytes::Bytes;
use groups::message::MessageError;
use groups::{Group, GroupId, Message, NodeId};
use net::event::ConnectionId;

const IMPLAUSIBLE: &str = "the peer named an impossible ballot or instance";

impl Receiver for Core<'_> {
    fn context(&self) -> HandshakeContext<'_> {
        let Core { identity, config, ports, loading, .. } = self;
        HandshakeContext { identity, config, peers: ports.peers, is_loading: loading.is_loading() }
    }

    fn peers(&mut self) -> &mut Peers {
        self.ports.peers
    }

    fn outputs(&mut self) -> &mut Outputs {
        self.ports.outputs
    }

    fn is_born(&self) -> bool {
        self.is_born()
    }

    fn has_not_begun(&self) -> bool {
        self.loading.has_not_begun()
    }

    fn is_asking_to_join(&self) -> bool {
        self.config.workers.is_first() && self.cluster.is_asking_to_join(self.config)
    }

    fn check_unborn_hello(&self, hello: &Hello) -> Result<(), Refusal> {
        self.cluster.check_unborn_hello(hello)
    }

    fn handle_join_request(
        &mut self,
        id: ConnectionId,
        hello: &Hello,
        address: &str,
        time: Time,
    ) -> Result<(), Refusal> {
        let (cluster, mut cx) = self.cluster(time);
        cluster.handle_join_request(id, hello, address, &mut cx)
    }

    fn on_linked(&mut self, hello: &Hello, replaces: bool, time: Time) {
        let from = hello.node;
        if replaces {
            self.give_up_relays(from, time);
        }
        self.update_value_version();
        if !self.is_born() {
            return self.cluster.on_unborn(hello);
        }
        if hello.cluster.is_none() {
            // The sender is an initial member that missed the birth record. Its storage id proves that.
            return self.send_birth(from);
        }
        if let Some(record) = self.ports.peers.note_hello(hello) {
            self.engine.persist(record);
        }
        self.ports.peers.send_claims(from);
        self.send_positions(from);
        if self.loading.is_loading() {
            self.send_groups_ready(from, &[]);
        }
        self.engine.connect_all(from, &mut self.ports);
    }

    fn on_transfer_link(&mut self, from: NodeId, id: ConnectionId) -> Option<ConnectionId> {
        self.upkeep.on_linked(from, id)
    }

    fn on_transfer_dialling(&mut self, to: NodeId, connection: Option<ConnectionId>, time: Time) {
        self.upkeep.on_dialling(to, connection, time);
    }

    fn on_message(&mut self, id: ConnectionId, from: NodeId, message: NodeMessage, time: Time) -> Result<(), String> {
        if !self.engine.is_plausible(&message) {
            return Err(IMPLAUSIBLE.to_owned());
        }
        let clock = time.clock();
        match message {
            NodeMessage::Hello(_) | NodeMessage::Refusal(_) => {}
            NodeMessage::Ping(ping) => {
                let (is_reach_other, round_trip) = self.ports.peers.on_ping(from, &ping, time.mono_us);
                // A ping without clocks comes from a version that does not know them.
                if let (Some(clocks), Some(round_trip)) = (ping.clocks, round_trip) {
                    self.ports.cluster_time.on_ping(from, clocks, round_trip, time);
                }
                let Some(peer) = self.ports.peers.get(from) else { return Ok(()) };
                let (claimed, reached) = peer.claims();
                if is_reach_other || self.engine.has_unapplied_claims(from, claimed, reached) {
                    self.on_claims(from, time);
                }
            }
            NodeMessage::Claims(claims) => {
                self.ports.peers.on_claims(from, &claims);
                self.on_claims(from, time);
            }
            NodeMessage::Positions(positions) => {
                if let Some(peer) = self.ports.peers.find(from) {
                    peer.set_positions(&positions, time.mono_ms());
                }
                self.engine.note_positions(from, &positions, &mut self.ports, clock);
            }
            NodeMessage::LeadershipQuery(query) => {
                self.engine.handle_query(from, &query, &mut self.ports, time);
            }
            NodeMessage::LeadershipAnswers(answers) => {
                self.engine.handle_answers(from, &answers, &mut self.ports, time);
            }
            NodeMessage::Birth(record) => {
                let (cluster, mut cx) = self.cluster(time);
                cluster.handle_birth(record, &mut cx)?;
            }
            // An offer is ignored while the node loads: the sequence numbers of new files are known only when all
            // groups are rebuilt.
            NodeMessage::Offer(_) if self.loading.is_loading() => {}
            NodeMessage::Offer(offer) => {
                let (upkeep, mut cx) = self.upkeep(time);
                upkeep.handle_offer(from, &offer, &mut cx);
            }
            NodeMessage::ChunkRequest(_) | NodeMessage::Chunk(_) => {
                return Err("the peer sent a transfer message on a live connection, not a bulk connection".to_owned());
            }
            NodeMessage::Admission(admission) => {
                let (cluster, mut cx) = self.cluster(time);
                cluster.handle_admission(admission, &mut cx)?;
            }
            NodeMessage::PositionQuery => self.send_positions(from),
            NodeMessage::LeaderMove(wanted) => {
                let (cluster, mut cx) = self.cluster(time);
                cluster.handle_move(from, &wanted, &mut cx);
            }
            NodeMessage::LeaderMoveReply(reply) => {
                let (cluster, mut cx) = self.cluster(time);
                cluster.handle_move_reply(&reply, &mut cx);
            }
            NodeMessage::GroupsReady(ready) => {
                if let Some(peer) = self.ports.peers.find(from) {
                    peer.set_missing(ready.missing);
                }
                self.engine.connect(from, &ready.groups, &mut self.ports);
            }
            NodeMessage::DurablePositionQuery(groups) => self.on_durable_position_query(from, &groups),
            NodeMessage::Durable(positions) => {
                self.durability.on_positions(from, &positions, self.engine.group_count());
            }
            NodeMessage::Relay(relay) => self.on_relay(id, from, &relay, time),
            NodeMessage::Relayed(relayed) => {
                if let Some((context, reply)) = self.ports.relays.on_reply(&relayed) {
                    self.ports.answer(context, reply);
                }
            }
        }
        Ok(())
    }

    fn on_transfer_message(&mut self, id: ConnectionId, from: NodeId, message: NodeMessage, time: Time) -> bool {
        let (upkeep, mut cx) = self.upkeep(time);
        match message {
            NodeMessage::ChunkRequest(request) => upkeep.handle_chunk_request(id, &request, &mut cx),
            NodeMessage::Chunk(chunk) => upkeep.handle_chunk(from, chunk, &mut cx),
            _ => return false,
        }
        true
    }

    fn on_group_message(
        &mut self,
        from: NodeId,
        group: GroupId,
        kind: u8,
        body: &Bytes,
        time: Time,
    ) -> Result<(), String> {
        if !self.engine.has(group) {
            if group.index() >= self.engine.group_count() {
                self.ports.peers.skip_group();
            }
            return Ok(());
        }
        let message = match Message::decode(kind, body) {
            Ok(message) => message,
            Err(MessageError::UnknownKind(_)) => {
                self.ports.peers.skip_kind();
                return Ok(());
            }
            Err(error) => return Err(error.to_string()),
        };
        if !self.engine.group(group).is_plausible(&message) {
            return Err(IMPLAUSIBLE.to_owned());
        }
        let version = message.value_version();
        if version > self.config.versions.value_version() {
            return Err(format!("the peer sent a value of version {version}, which this program does not read"));
        }
        if matches!(message, Message::Behind(_)) {
            self.cluster.note_behind(group, from);
        }
        self.engine.receive(group, from, message, &mut self.ports, time);
        Ok(())
    }

    fn on_arriving(&mut self, from: NodeId, group: GroupId, kind: u8, time: Time) {
        if self.engine.has(group) {
            let arriving = |group: &mut Group, _: &mut Vec<_>| group.on_arriving(from, kind, time.clock());
            self.engine.quiet_step(group, &mut self.ports, arriving);
        }
    }

    fn on_gone(&mut self, id: ConnectionId, time: Time) {
        if self.upkeep.on_cut(id, time) {
            return;
        }
        self.cluster.on_cut(id);
        let Some(from) = self.ports.peers.on_connection_gone(id, time.mono_ms()) else { return };
        tracing::info!("the connection to node {from} is gone");
        self.give_up_relays(from, time);
        self.engine.forget_link(from, true, &mut self.ports, time);
        self.ports.peers.dismiss_guest(from);
        self.apply_claims(time);
    }

    fn on_silent(&mut self, from: NodeId, time: Time) {
        // The clients whose commands were passed on to this member are answered now: its replies may come too late.
        self.give_up_relays(from, time);
        self.engine.forget_link(from, false, &mut self.ports, time);
        self.apply_claims(time);
    }
}

impl Core<'_> {
    /// Executes a command of another member, which came on the connection `link`.
    fn on_relay(&mut self, link: ConnectionId, from: NodeId, relay: &Relay, time: Time) {
        let Relay { number, group, timeout_ms, ref body } = *relay;
        let Some(seen) = self.ports.peers.seen_as(from) else { return };
        if !self.ports.relays.is_new(from, seen.start, number) {
            return;
        }
        let command = match decode(body) {
            Ok(command) if self.engine.has(group) => command,
            _ => return self.send_node_message(from, &relay::refused(number, &NOT_SERVED)),
        };
        let is_write = command.is_write();
        let bytes = body.len();
        let too_long = self.engine.shard().store(group).expected_bytes(&command) > RELAY_BYTES_MAX;
        let waits = |core: &Core<'_>| {
            core.engine.is_far_behind(group)
                || core.engine.holds_command(group, is_write, bytes)
                || !core.engine.is_member(group)
        };
        let refusal = self
            .refusal(&command, bytes)
            .or_else(|| self.engine.reach_refusal(group, is_write, bytes))
            .or_else(|| too_long.then_some(relay::TOO_LONG))
            .or_else(|| waits(self).then_some(NOT_SERVED))
            .or_else(|| self.ports.relays.refusal());
        if let Some(refusal) = refusal {
            return self.send_node_message(from, &relay::refused(number, &refusal));
        }
        let ticket = self.ports.relays.admit(link, number, is_write);
        let deadline_ms = time.mono_ms() + timeout_ms.min(self.config.client_timeout_ms);
        let request = Request { words: &[], bytes, buffer: &Bytes::new() };
        let submission = Submission { group, verb: UNCOUNTED, command: &command, body: None, request, ticket };
        self.carry_out(submission, deadline_ms, time);
    }

    /// Handles a member's query for the instances up to which this node's log is durable in these groups. The answer is
    /// sent when all records gathered so far are durable.
    fn on_durable_position_query(&mut self, from: NodeId, groups: &[GroupId]) {
        let loaded = groups.iter().take(self.engine.group_count()).filter(|group| self.engine.has(**group));
        let next = loaded.map(|group| (*group, self.engine.group(*group).next())).collect();
        self.durability.owe(from, self.engine.gathered_lsn(), Positions { next });
        self.durability.send_due(self.engine.durable_lsn(), self.ports.peers);
    }
}
