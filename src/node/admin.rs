//! Admin replies: the node's answers about itself and the cluster (`INFO`, `CONFIG`, `CLUSTER`, `PAXOI`).

use super::Time;
use super::clients::Backend;
use super::core::Core;
use super::facts::WorkerFacts;
use crate::admin::cluster::{self, ClusterView};
use crate::admin::config::{self, ConfigAction, ConfigChange, ConfigView};
use crate::admin::hello;
use crate::admin::info::{self, ClientsView, ClocksView, InfoView, MemoryView, PaxosView, PeerView, ServerView};
use crate::admin::kept::CompatValues;
use crate::config::LeaderMode;
use crate::kv::reply::Reply;
use crate::kv::table::{Spec, Verb};
use groups::{GroupId, Ms, NodeId, Us};
use net::event_loop::SystemCalls;
use std::fmt::Write as _;

/// Facts that only the process knows. The shell updates them at intervals.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The process id.
    pub process_id: u32,
    /// The program's path.
    pub executable: String,
    /// Resident memory, in bytes.
    pub resident_bytes: u64,
    /// The machine's memory, in bytes.
    pub system_bytes: u64,
    /// Processor time in user mode, in microseconds.
    pub cpu_user_us: Us,
    /// Processor time in the kernel, in microseconds.
    pub cpu_system_us: Us,
    /// True if the disk has no space for another segment of the log.
    pub disk_full: bool,
    /// Bytes of the log.
    pub log_bytes: u64,
    /// Segments of the log.
    pub log_segments: u64,
    /// While the node loads: bytes read so far, and bytes in all.
    pub loading_bytes: (u64, u64),
    /// Calls of the event loop for its sockets.
    pub system_calls: SystemCalls,
}

/// Facts about the node's process, and the CONFIG values that the node only remembers.
#[derive(Default)]
pub(super) struct ProcessInfo {
    facts: Facts,
    /// Time of the first tick, taken for the start of the process.
    started_ms: Option<Ms>,
    /// Values that CONFIG SET gave to parameters without effect.
    kept: CompatValues,
}

impl ProcessInfo {
    pub(super) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Takes new facts from the shell.
    pub(super) fn set_facts(&mut self, facts: Facts) {
        self.facts = facts;
    }

    /// Notes the time of the process's start, at the first call.
    pub(super) fn tick(&mut self, now_ms: Ms) {
        self.started_ms.get_or_insert(now_ms);
    }
}

impl Core<'_> {
    /// Answers a command about this node or the cluster.
    pub(super) fn admin_reply(
        &mut self,
        spec: &Spec,
        words: &[&[u8]],
        clients: ClientsView,
        time: Time,
    ) -> Reply<'static> {
        match spec.verb {
            Verb::Time => hello::time(words, self.ports.cluster_time.now_us(time).unwrap_or(time.unix_us)),
            Verb::Info => self.info(words, clients, time),
            Verb::PaxoiCheckpoint => self.checkpoint_command(words),
            Verb::PaxoiMember => self.member_command(words, time),
            Verb::PaxoiDrain | Verb::PaxoiUndrain => self.cluster.drain(spec.verb == Verb::PaxoiDrain),
            _ if spec.name.starts_with("config") => self.config_command(words),
            _ => self.cluster_command(words, time),
        }
    }

    /// Executes `PAXOI MEMBER …`; `words` includes these two words. A change answers `OK` if it is done, and otherwise
    /// its progress. The change goes on after the reply.
    pub(super) fn member_command(&mut self, words: &[&[u8]], time: Time) -> Reply<'static> {
        if !self.is_born() {
            return Reply::error("ERR the cluster is not formed yet");
        }
        if self.loading.is_loading() {
            return self.missing_refusal();
        }
        let (cluster, mut cx) = self.cluster(time);
        cluster.member_command(words, &mut cx)
    }

    fn checkpoint_command(&mut self, words: &[&[u8]]) -> Reply<'static> {
        let group = match words {
            [_, _] => None,
            [_, _, index] => {
                let index = std::str::from_utf8(index).ok().and_then(|text| text.parse().ok()).map(GroupId);
                let Some(group) = index.filter(|group| group.index() < self.engine.group_count()) else {
                    return Reply::error(
                        "ERR no such group: groups are numbered from 0, and CONFIG GET groups returns their number",
                    );
                };
                Some(group)
            }
            _ => return Reply::error("ERR wrong number of arguments for 'paxoi|checkpoint' command"),
        };
        let owned = self.engine.owned().iter().copied();
        self.upkeep.request_checkpoints(owned.filter(|id| group.is_none_or(|group| group == *id)));
        Reply::Simple("Background checkpoint started")
    }

    fn config_command(&mut self, words: &[&[u8]]) -> Reply<'static> {
        let view = ConfigView {
            bind: self.config.listen.ip().to_string(),
            port: self.config.listen.port(),
            dir: self.config.dir.clone(),
            config_file: self.config.config_file.clone(),
            max_clients: self.config.max_clients,
            memory_bytes_max: self.config.memory_bytes_max,
            value_bytes_max: self.config.value_bytes_max as u64,
            client_timeout_ms: self.config.client_timeout_ms,
            session_ttl_ms: self.session_ttl_ms(),
            groups: self.group_count(),
            reads: self.config.reads.to_string(),
            leaders: LeaderMode::of(self.config.demand_min).to_string(),
            node_id: self.identity.node.0,
            idle_seconds_max: self.config.idle_ms_max.0 / 1_000,
            kept: self.process_info.kept.clone(),
        };
        match config::config(words, &view) {
            ConfigAction::Reply(reply) => return reply,
            ConfigAction::Set(changes) => changes.into_iter().for_each(|change| match change {
                ConfigChange::ClientTimeoutMs(limit_ms) => self.config.client_timeout_ms = limit_ms,
                ConfigChange::MaxClients(max) => self.config.max_clients = max,
                ConfigChange::MemoryBytesMax(max) => self.config.memory_bytes_max = max,
                ConfigChange::IdleSecondsMax(max) => self.config.idle_ms_max = Ms(max.saturating_mul(1_000)),
                ConfigChange::Keep(name, value) => {
                    self.process_info.kept.insert(name, value);
                }
            }),
            ConfigAction::ResetStats => self.ports.stats.reset(),
        }
        Reply::Ok
    }

    fn cluster_command(&mut self, words: &[&[u8]], time: Time) -> Reply<'static> {
        let mut leaders = vec![None; self.engine.group_count()];
        let elsewhere = self.ports.crew.facts().flat_map(|other| other.leaders.iter().copied());
        for (group, leader) in self.leaders_here().chain(elsewhere) {
            leaders[group.index()] = leader;
        }
        let nodes = self.names.views(self.identity.node, self.config.announced.as_deref(), self.ports.peers, time);
        let groups = self.group_count();
        let leaders = if leaders.is_empty() { vec![None; groups as usize] } else { leaders };
        cluster::cluster(words, &ClusterView { me: self.identity.node, groups, leaders: &leaders, nodes: &nodes })
    }

    fn info(&mut self, words: &[&[u8]], clients: ClientsView, time: Time) -> Reply<'static> {
        let now_ms = time.mono_ms();
        let record = self.identity.birth.as_ref();
        let cluster_id = record.map_or(String::new(), |record| hex(&record.cluster_id));
        let run_id = id40(NodeId(self.identity.start as u32), &self.identity.storage_id);
        let peers = self.ports.peers.iter().map(|peer| PeerView {
            node: peer.id(),
            address: peer.address().to_owned(),
            reached: peer.is_reached(now_ms),
            rtt_us: peer.rtt_us(),
            silent_ms: peer.silent_ms(now_ms),
            version: peer.version(),
            clock_ahead_ms: self.ports.cluster_time.ahead_ms(peer.id(), self.identity.node),
        });
        let peers: Vec<PeerView> = peers.collect();
        let all = self.node_facts(clients, time);
        let used_bytes = all.used_bytes;
        let view = InfoView {
            server: ServerView {
                run_id: &run_id,
                port: self.config.listen.port(),
                process_id: self.process_info.facts.process_id,
                unix_us: time.unix_us,
                uptime_s: now_ms.saturating_sub(self.process_info.started_ms.unwrap_or(now_ms)).0 / 1_000,
                executable: &self.process_info.facts.executable,
                config_file: &self.config.config_file,
                loading: !self.is_born() || self.loading.is_loading(),
                loading_bytes: self.loading.is_loading().then_some(self.process_info.facts.loading_bytes),
                log_writable: !self.process_info.facts.disk_full,
                cpu_user_us: self.process_info.facts.cpu_user_us,
                cpu_system_us: self.process_info.facts.cpu_system_us,
            },
            clients: all.clients,
            memory: MemoryView {
                used_bytes,
                peak_bytes: used_bytes.max(self.process_info.facts.resident_bytes),
                max_bytes: self.config.memory_bytes_max,
                resident_bytes: self.process_info.facts.resident_bytes,
                system_bytes: self.process_info.facts.system_bytes,
            },
            keyspace: all.keyspace,
            paxos: PaxosView {
                node: self.identity.node,
                start_number: self.identity.start,
                cluster_id: &cluster_id,
                groups: self.group_count(),
                groups_led: all.groups_led,
                draining: self.cluster.is_draining(),
                groups_leased: all.groups_leased,
                groups_leaderless: if self.is_born() { all.groups_leaderless } else { self.group_count() },
                groups_behind: all.groups_behind,
                loop_busy_percent: (all.busy_per_mille + 5) / 10,
                chosen_total: all.chosen,
                applied_total: all.chosen,
                ballots_lost: all.ballots_lost,
                skipped_unknown_group: all.skipped_groups,
                skipped_unknown_kind: all.skipped_kinds,
                protocol_version: self.config.versions.highest,
                value_version: self.ports.peers.value_version(),
                clocks: ClocksView {
                    cluster_ms: self.ports.cluster_time.now_ms(time).unwrap_or(Ms(0)),
                    ahead_ms: self.ports.cluster_time.ahead_ms(self.identity.node, self.identity.node).unwrap_or(0),
                    groups_ahead_ms: self.ports.cluster_time.groups_lead_ms(self.engine, time),
                },
                log_bytes: self.process_info.facts.log_bytes,
                log_segments: self.process_info.facts.log_segments,
                disk: if self.engine.space().full {
                    "full"
                } else if self.engine.is_disk_in_time(now_ms) {
                    "ok"
                } else {
                    "slow"
                },
                work: all.work,
                relays_to: self.ports.relays.to().map_or(0, |to| to.0),
                relayed_total: all.relayed,
                storage: all.storage,
                last_failure: &all.last_failure,
                peers: &peers,
            },
            stats: &all.stats,
        };
        info::info(words, &view)
    }

    /// Returns the facts about the whole node: about this worker now, and about the others when they were asked last.
    fn node_facts(&self, clients: ClientsView, time: Time) -> WorkerFacts {
        let mut all = self.worker_facts(clients, time);
        self.ports.crew.facts().for_each(|other| all.add(other));
        all
    }

    fn group_count(&self) -> u32 {
        self.identity.birth.as_ref().map_or(self.config.groups, |record| record.groups)
    }

    fn session_ttl_ms(&self) -> Ms {
        self.identity.birth.as_ref().map_or(self.config.session_ttl_ms, |record| record.session_ttl_ms)
    }
}

/// Returns the 40 hex digits by which cluster clients know a node: its storage id, then its number.
pub(super) fn id40(node: NodeId, storage: &[u8; 16]) -> String {
    let mut id = hex(storage);
    // Writing to a string does not fail.
    let _ = write!(id, "{:08x}", node.0);
    id
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
