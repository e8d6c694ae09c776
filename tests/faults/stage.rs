//! A cluster behind a network with faults, under load from clients whose histories are checked at the end.

use crate::harness::client::{Info, connect, info, key_of, text};
use crate::harness::recorder::Recorder;
use crate::harness::{Cluster, wait_for};
use crate::proxy::{Network, Rule, pairs};
use paxoi::verify::{self, Limits};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

/// Maximum time until a connected majority serves, whatever happened to the other nodes.
const PROGRESS_MAX: Duration = Duration::from_secs(5);
/// Maximum time until every node serves again after the end of all faults.
const HEALED_MAX: Duration = Duration::from_secs(10);
/// Time in which nodes notice a fault: a peer that stays silent for this long no longer counts as alive.
const NOTICED_MAX: Duration = Duration::from_millis(1_200);
/// Clients of all nodes together, and the keys that they use.
const CLIENTS: usize = 12;
const KEYS: usize = 12;
/// Every command is answered within this client timeout, if only with an error.
const FLAGS: [&str; 2] = ["--client-timeout", "1s"];

/// The cluster, network and clients of one scenario, which ends with [`Stage::finish`].
pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    pub(crate) network: Network,
    recorder: Recorder,
    began: Instant,
    tally: Tally,
}

/// Counts of faults and results, for the line at the end.
#[derive(Default)]
pub(crate) struct Tally {
    /// Faults by kind.
    faults: BTreeMap<&'static str, u64>,
    operations: usize,
    open: usize,
    refused: u64,
    seconds: u64,
    /// The longest wait, under a fault, until the expected nodes served.
    slowest_progress: Duration,
    /// The longest wait, from the end of all network faults, until all nodes served.
    slowest_healing: Duration,
}

impl Stage {
    /// Starts a healthy cluster with clients.
    pub(crate) fn start(nodes: u32, groups: u32, seed: u64) -> Stage {
        let mut cluster = Cluster::prepare(nodes, groups, &FLAGS);
        let network = Network::start(&cluster.addresses());
        network.routes().for_each(|(from, to, address)| cluster.route(from, to, address));
        cluster.ids().for_each(|id| cluster.spawn(id));
        cluster.wait_for_leaders();
        let recorder = Recorder::start(&cluster.addresses(), CLIENTS, KEYS, seed);
        Stage { cluster, network, recorder, began: Instant::now(), tally: Tally::default() }
    }

    /// Counts a fault.
    pub(crate) fn note(&mut self, kind: &'static str) {
        *self.tally.faults.entry(kind).or_default() += 1;
    }

    /// Sets `rule` for all bytes between `ones` and the other nodes.
    pub(crate) fn isolate(&mut self, ones: &[u32], rule: Rule) {
        let others: Vec<u32> = self.cluster.ids().filter(|id| !ones.contains(id)).collect();
        self.network.part(ones, &others, rule);
    }

    /// Returns all nodes but these.
    pub(crate) fn others(&self, ones: &[u32]) -> Vec<u32> {
        self.cluster.ids().filter(|id| !ones.contains(id)).collect()
    }

    /// Checks that each of these nodes serves writes and reads of every group within [`PROGRESS_MAX`].
    pub(crate) fn expect_progress(&mut self, ids: &[u32]) {
        let took = self.wait_until_served(ids, PROGRESS_MAX);
        self.tally.slowest_progress = self.tally.slowest_progress.max(took);
    }

    /// Checks that for each group one of these nodes serves writes and reads within [`PROGRESS_MAX`].
    pub(crate) fn expect_progress_somewhere(&mut self, ids: &[u32]) {
        let began = Instant::now();
        let served: Vec<AtomicBool> = (0..self.cluster.groups()).map(|_| AtomicBool::new(false)).collect();
        let stage = &*self;
        thread::scope(|scope| {
            // All nodes are asked in parallel: a node that cannot serve may answer only after its client timeout.
            for (id, group) in ids.iter().flat_map(|id| (0..stage.cluster.groups()).map(move |group| (*id, group))) {
                let served = &served[group as usize];
                scope.spawn(move || {
                    wait_for(&format!("group {group} served by one of {ids:?}"), PROGRESS_MAX, || {
                        (served.load(SeqCst) || stage.is_served(id, group)).then(|| served.store(true, SeqCst))
                    });
                });
            }
        });
        self.tally.slowest_progress = self.tally.slowest_progress.max(began.elapsed());
    }

    /// Checks that none of these nodes serves commands. Each is asked for one group.
    pub(crate) fn expect_none(&self, ids: &[u32]) {
        let group_of = |id: &u32| id % self.cluster.groups();
        let serves = ids.iter().find(|id| self.is_served(**id, group_of(id)));
        assert!(serves.is_none(), "node {serves:?} serves alone");
    }

    /// Lets a fault last until the nodes have noticed it.
    pub(crate) fn let_it_be_noticed(&self) {
        thread::sleep(NOTICED_MAX);
    }

    /// Ends all network faults, and checks that every node serves within [`HEALED_MAX`].
    pub(crate) fn heal(&mut self) {
        self.network.heal();
        let ids: Vec<u32> = self.cluster.ids().collect();
        let took = self.wait_until_served(&ids, HEALED_MAX);
        self.tally.slowest_healing = self.tally.slowest_healing.max(took);
    }

    fn wait_until_served(&self, ids: &[u32], limit: Duration) -> Duration {
        let began = Instant::now();
        for (id, group) in ids.iter().flat_map(|id| (0..self.cluster.groups()).map(move |group| (*id, group))) {
            let left = limit.saturating_sub(began.elapsed());
            wait_for(&format!("group {group} served by node {id} within {limit:?}"), left, || {
                self.is_served(id, group).then_some(())
            });
        }
        began.elapsed()
    }

    /// Returns true if a node writes and reads a key of the group now.
    fn is_served(&self, id: u32, group: u32) -> bool {
        let key = key_of(group, self.cluster.groups(), "probe:");
        let Ok(mut client) = connect(self.cluster.address(id)) else { return false };
        let mut says = |words: &[&[u8]], wanted: &str| client.call(words).is_ok_and(|reply| text(&reply) == wanted);
        says(&[b"SET", key.as_bytes(), b"here"], "OK") && says(&[b"GET", key.as_bytes()], "here")
    }

    /// Ends the faults, waits until all nodes have applied the same number of instances, and checks the history of the
    /// clients.
    pub(crate) fn finish(mut self) -> Tally {
        self.heal();
        let history = self.recorder.stop();
        wait_for("all nodes to apply the same number of instances", HEALED_MAX, || {
            let infos: Vec<Info> =
                self.cluster.ids().map(|id| info(self.cluster.address(id)).ok()).collect::<Option<_>>()?;
            let applied = |info: &Info| (info.number("applied_total"), info.number("groups_behind"));
            infos.iter().all(|info| applied(info) == (applied(&infos[0]).0, 0)).then_some(())
        });
        let summary = verify::check(&history, Limits::default()).unwrap_or_else(|violation| panic!("{violation}"));
        assert!(summary.operations > 100 + summary.open, "hardly anything was answered: {summary:?}");
        let cut = self.network.frames_cut();
        if cut > 0 {
            *self.tally.faults.entry("frames cut").or_default() += cut;
        }
        let Tally { operations, open, refused, seconds, .. } = &mut self.tally;
        (*operations, *open, *refused) = (summary.operations, summary.open, summary.refused);
        *seconds = self.began.elapsed().as_secs();
        eprintln!("{}", self.tally.line());
        self.tally
    }
}

impl Tally {
    /// Returns a summary in one line, for people.
    pub(crate) fn line(&self) -> String {
        let faults: Vec<String> = self.faults.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        format!(
            "{} operations checked in {} s ({} of unknown fate, {} refused besides); faults: {}; served again within {:?} \
             of a fault, and within {:?} of the end of all faults",
            self.operations,
            self.seconds,
            self.open,
            self.refused,
            faults.join(", "),
            self.slowest_progress,
            self.slowest_healing
        )
    }
}

/// Cuts the network to a ring: each node reaches only its two neighbours.
pub(crate) fn ring(network: &Network, nodes: u32) {
    for (from, to) in pairs(nodes) {
        let distance = (from + nodes - to) % nodes;
        if distance != 1 && distance != nodes - 1 {
            network.set(from, to, Rule::Hold);
        }
    }
}
