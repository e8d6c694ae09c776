//! Implements [`Backend`], the interface of the clients to the rest of the node.

use super::clients::{Backend, ClientsMessage, Submission};
use super::cluster::DecisionView;
use super::core::Core;
use super::crew::Load;
use super::engine::{Read, RequestContext};
use super::facts::WorkerFacts;
use super::passing::stale_reply;
use super::ticket::{ClientTicket, Ticket};
use super::{Output, Time};
use crate::admin::info::ClientsView;
use crate::admin::stats::Stats;
use crate::config::{GROUP_QUEUE_BYTES, NodeConfig, OUT_OF_MEMORY, ReadMode};
use crate::kv::ParseContext;
use crate::kv::command::Command;
use crate::kv::encode::encode;
use crate::kv::reply::Reply;
use crate::kv::table::Spec;
use crate::storage::wal::Lsn;
use crate::workers::{WorkerId, Workers};
use bytes::Bytes;
use groups::{GroupId, Instance, Ms, NodeId};

impl Backend for Core<'_> {
    fn config(&self) -> &NodeConfig {
        self.config
    }

    fn stats(&mut self) -> &mut Stats {
        self.ports.stats
    }

    fn output(&mut self, output: Output) {
        self.ports.outputs.push(output);
    }

    fn loading_refusal(&self) -> Option<Reply<'static>> {
        self.loading.has_not_begun().then(|| self.missing_refusal())
    }

    fn missing_refusal(&self) -> Reply<'static> {
        let (done, all) = self.process_info.facts().loading_bytes;
        let percent = done * 100 / all.max(1);
        Reply::Error(format!("LOADING Paxoi is loading the dataset in memory: {percent} % done").into())
    }

    fn is_out_of_memory(&self) -> bool {
        let max = self.config.memory_bytes_max;
        max > 0 && self.used_bytes() > max
    }

    fn parse_context(&self, seed: u64, time: Time) -> ParseContext {
        let cluster_ms = self.ports.cluster_time.now_ms(time).unwrap_or(Ms(0));
        ParseContext { cluster_ms, durations: self.ports.peers.value_version() >= 3, seed }
    }

    fn facts(&self, clients: ClientsView, time: Time) -> WorkerFacts {
        self.worker_facts(clients, time)
    }

    fn facts_for_list(&mut self, clients: ClientsView, time: Time) -> WorkerFacts {
        self.cluster.note_listed(time.mono_ms());
        let view = DecisionView { engine: self.engine, peers: self.ports.peers, me: self.identity.node, time };
        let members = view.member_counts(std::iter::empty());
        WorkerFacts { members, ..self.worker_facts(clients, time) }
    }

    fn share_load(&mut self, clients: u64, now_ms: Ms) {
        // Until the node has begun, the first worker is alone.
        if !self.loading.has_not_begun() {
            let used_bytes = self.used_bytes_here();
            self.ports.crew.share_load(Load { clients, used_bytes }, now_ms);
        }
    }

    fn clients_elsewhere(&self) -> u64 {
        self.ports.crew.loads().map(|load| load.clients).sum()
    }

    fn pass_move(&mut self, words: &[&[u8]], client: &mut dyn FnMut() -> ClientTicket) -> bool {
        let index = words.get(3).and_then(|word| std::str::from_utf8(word).ok()).and_then(|text| text.parse().ok());
        let Some(group) = index.map(GroupId).filter(|group| self.is_elsewhere(*group)) else { return false };
        self.ports.crew.pass_move(group, words, client());
        true
    }

    fn set_facts(&mut self, facts: Vec<WorkerFacts>) {
        self.ports.crew.set_facts(facts);
    }

    fn admin(&mut self, spec: &Spec, words: &[&[u8]], clients: ClientsView, time: Time) -> Reply<'static> {
        self.admin_reply(spec, words, clients, time)
    }

    fn check_move(&self, words: &[&[u8]], time: Time) -> Result<(GroupId, NodeId), Reply<'static>> {
        if !self.is_born() {
            let reason = self.cluster.waits_for(self.identity.node, self.config, self.ports.cluster_time);
            return Err(Reply::Error(format!("CLUSTERDOWN {reason}").into()));
        }
        let (engine, peers, me) = (&*self.engine, &*self.ports.peers, self.identity.node);
        let view = DecisionView { engine, peers, me, time };
        let (group, to) = self.cluster.check_move(words, view)?;
        if self.engine.has(group) { Ok((group, to)) } else { Err(self.missing_refusal()) }
    }

    fn ask_move(&mut self, wanted: (GroupId, NodeId), ticket: Ticket, time: Time) {
        self.cluster.ask_move(wanted, ticket, time.mono_ms() + self.config.client_timeout_ms);
    }

    fn groups(&self) -> u32 {
        self.engine.group_count() as u32
    }

    fn workers(&self) -> Workers {
        self.config.workers
    }

    fn tell_worker(&mut self, worker: WorkerId, message: ClientsMessage) {
        self.ports.crew.tell_clients(worker, message);
    }

    fn is_here(&self, group: GroupId) -> bool {
        self.engine.has(group)
    }

    fn refusal(&self, command: &Command<'_>, bytes: usize) -> Option<Reply<'static>> {
        if let Some(refusal) = self.loading_refusal() {
            return Some(refusal);
        }
        if !self.is_born() {
            let reason = self.cluster.waits_for(self.identity.node, self.config, self.ports.cluster_time);
            let text = format!("CLUSTERDOWN Hash slot not served: {reason}");
            return Some(Reply::Error(text.into()));
        }
        if command.grows() && self.is_out_of_memory() {
            return Some(out_of_memory(command));
        }
        self.ports.refusals(self.engine).of_space(command.grows(), self.is_logged(command), bytes)
    }

    fn group_refusal(&self, group: GroupId, command: &Command<'_>, bytes: usize) -> Option<Reply<'static>> {
        if self.is_elsewhere(group) {
            return None;
        }
        self.ports.refusals(self.engine).of_group(group, command.is_write(), bytes)
    }

    fn holds_command(&self, group: GroupId, command: &Command<'_>, bytes: usize) -> bool {
        if self.is_elsewhere(group) {
            return command.is_write() && self.ports.crew.in_flight_bytes_to(group) >= GROUP_QUEUE_BYTES;
        }
        self.engine.holds_command(group, command.is_write(), bytes)
    }

    fn holds_writers(&self, bytes: usize, queue_bytes: usize) -> bool {
        self.engine.holds_writers(bytes, queue_bytes) || self.ports.crew.in_flight_bytes() >= queue_bytes
    }

    fn takes_again(&self, group: GroupId, bytes: usize) -> bool {
        if self.is_elsewhere(group) {
            return self.ports.crew.in_flight_bytes_to(group) < GROUP_QUEUE_BYTES / 2;
        }
        self.engine.serves_again(group, bytes)
    }

    fn reads(&self) -> usize {
        self.engine.reads() + self.ports.crew.in_flight()
    }

    fn takes_upload(&self, bytes: usize) -> bool {
        self.engine.takes_upload(bytes)
    }

    fn is_upload(&self, command: &Command<'_>, bytes: usize) -> bool {
        self.engine.takes_upload(bytes)
            && self.is_logged(command)
            && self.ports.relays.to().is_none()
            && self.ports.peers.value_version() >= 4
    }

    fn executor(&self) -> Option<NodeId> {
        self.ports.relays.to()
    }

    fn expected_bytes(&self, group: GroupId, command: &Command<'_>) -> usize {
        if self.is_elsewhere(group) {
            return 0;
        }
        self.engine.shard().store(group).expected_bytes(command)
    }

    fn submit(&mut self, submission: Submission<'_>, time: Time) {
        if let Ticket::Client(client) = submission.ticket
            && self.is_elsewhere(submission.group)
        {
            return self.pass(&submission, client, time);
        }
        let timeout_ms = self.config.client_timeout_ms;
        if self.ports.relays.to().is_some() {
            return self.ports.relays.send(&submission, timeout_ms, self.ports.peers, time);
        }
        let deadline_ms = time.mono_ms() + timeout_ms;
        self.carry_out(submission, deadline_ms, time);
    }

    fn read_stale(&self, group: GroupId, body: &[u8]) -> Reply<'_> {
        stale_reply(self.engine, group, body)
    }

    fn begin_stale_read(&mut self, group: GroupId, verb: u16, body: Bytes, client: ClientTicket, long: bool) {
        if self.is_elsewhere(group) {
            return self.pass_stale(group, verb, &body, client, long);
        }
        let (since_us, deadline_ms, ticket) = (self.ports.now_us, Ms::MAX, Ticket::Client(client));
        self.engine.read_stale(Read { group, body, ticket, deadline_ms, verb, since_us, long });
    }

    fn gathered_lsn(&self) -> Lsn {
        self.engine.gathered_lsn()
    }

    fn has_logged(&self, lsn: Lsn) -> bool {
        lsn <= self.engine.durable_lsn() && self.ports.relays.to().is_none()
    }

    fn next(&self, group: GroupId) -> Instance {
        self.engine.group(group).next()
    }

    fn count_durable_members(&self, groups: &[(GroupId, Instance)], time: Time) -> usize {
        let (me, passed_on) = (self.identity.node, self.ports.relays.to().is_some());
        let in_group = |(group, next): &(GroupId, Instance)| {
            let membership_since = self.engine.membership_since(*group);
            let group = self.engine.find(*group);
            group
                .map_or(0, |group| self.durability.count_durable_members(group, *next, me, membership_since, passed_on))
        };
        let reached = || self.ports.peers.iter().filter(|peer| peer.is_reached(time.mono_ms())).count();
        groups.iter().map(in_group).min().unwrap_or_else(reached)
    }

    fn query_durable_positions(&mut self, groups: Vec<GroupId>) {
        self.durability.query(groups, self.ports.peers);
    }
}

impl Core<'_> {
    /// Returns the bytes of the stores, plus the bytes of this node's clients' commands that are in flight to the
    /// stores.
    ///
    /// `maxmemory` bounds these bytes. Above it, the node that a client asks refuses commands that may add data, as
    /// Redis does, but not those that remove or read. Commands from the log are applied all the same, because the
    /// effect of `apply` must not depend on a node's configuration. So a node with less memory than the others refuses
    /// its own clients early, but still grows with the writes of the other nodes' clients.
    pub(super) fn used_bytes(&self) -> u64 {
        self.used_bytes_here() + self.ports.crew.loads().map(|load| load.used_bytes).sum::<u64>()
    }

    /// Returns the part of [`Core::used_bytes`] that this worker uses.
    pub(super) fn used_bytes_here(&self) -> u64 {
        (self.engine.shard().store_bytes() + self.engine.shard().queued_bytes()) as u64
    }

    /// Returns true if a command goes through the log: a write, any command with `ReadMode::Log`, or a transaction that
    /// walks over keys. Such a transaction sees one state over several turns, and its group waits meanwhile.
    pub(super) fn is_logged(&self, command: &Command<'_>) -> bool {
        let is_walking_transaction = matches!(command, Command::Exec(_)) && command.walks();
        command.is_write() || is_walking_transaction || self.config.reads == ReadMode::Log
    }

    /// Queues a command in its group at this node, or begins a read.
    pub(super) fn carry_out(&mut self, submission: Submission<'_>, deadline_ms: Ms, time: Time) {
        let Submission { group, verb, command, body, request, ticket } = submission;
        let context = RequestContext { ticket, verb, since_us: time.mono_us };
        // Only commands of this node's own clients are uploaded: this node lets the client's next commands wait for the
        // upload. A command that another member passes on is short, and goes into the log whole.
        if !matches!(ticket, Ticket::Relayed(_)) && self.is_upload(command, request.bytes) {
            return self.engine.upload(group, command, request.buffer, context, deadline_ms);
        }
        if self.is_logged(command) {
            return self.engine.queue(group, |out| encode(command, out), context, deadline_ms);
        }
        let (body, long) = (body.unwrap_or_else(|| self.engine.encoded(command)), command.is_long_read());
        let since_us = context.since_us;
        self.engine.read(Read { group, body, ticket, deadline_ms, verb, since_us, long });
    }
}

fn out_of_memory(command: &Command<'_>) -> Reply<'static> {
    match command {
        Command::Exec(_) => Reply::Error(format!("EXECABORT Transaction discarded because of: {OUT_OF_MEMORY}").into()),
        _ => Reply::error(OUT_OF_MEMORY),
    }
}
