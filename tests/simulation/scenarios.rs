//! Directed scenarios: sequences of steps that chance does not produce often enough. Each is a plain way to lose,
//! repeat or misread data, and some real system was released with such a fault.

mod clocks;
mod cut;
mod disks;
mod fragments;
mod handover;
mod hour;
mod leases;
mod members;
mod relay;
mod uploads;
mod waiting;
mod workers;

use crate::client::Client;
use crate::nemesis::Faults;
use crate::network::Weather;
use crate::process::{Lost, Process, RunningProcess, Shape};
use crate::requests::Load;
use crate::shell::End;
use crate::trace::Trace;
use crate::world::{Event, World};
use bytes::Bytes;
use groups::Ms;
use paxoi::config::{CheckpointConfig, ReadMode};
use paxoi::storage::disk::MemoryDisk;
use paxoi::verify::{self, Action, Limits, Outcome};

/// A directed scenario, and the cluster that it needs.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    steps: fn(&mut World) -> Result<(), String>,
    nodes: usize,
    /// Number of additional nodes that can join.
    spares: usize,
    groups: u32,
    session_ttl_ms: Ms,
    reads: ReadMode,
    /// Logs are so short that checkpoints are made.
    cuts: bool,
    /// Leaders follow the clients.
    follows: bool,
    /// Workers of each node.
    workers: u32,
    /// Number of seeds under which it runs: more than one if its result depends on random times.
    pub(crate) seeds: u64,
    /// The scenario is long, and runs only on request.
    pub(crate) is_long: bool,
}

/// Returns a scenario with three nodes, one group, and sessions that live for an hour.
const fn scenario(name: &'static str, steps: fn(&mut World) -> Result<(), String>) -> Scenario {
    let (nodes, spares, groups, session_ttl_ms, reads) = (3, 0, 1, Ms(3_600_000), ReadMode::Quorum);
    let (cuts, follows, workers, seeds, is_long) = (false, false, 1, 1, false);
    Scenario { name, steps, nodes, spares, groups, session_ttl_ms, reads, cuts, follows, workers, seeds, is_long }
}

pub(crate) const SCENARIOS: [Scenario; 65] = [
    scenario("paused-leader-reads", paused_leader_reads),
    scenario("half-cut-leader-reads", half_cut_leader_reads),
    Scenario { reads: ReadMode::Lease, ..scenario("paused-leader-with-a-lease", leases::paused_leader_with_a_lease) },
    Scenario { reads: ReadMode::Lease, ..scenario("lost-leader-with-a-lease", leases::lost_leader_with_a_lease) },
    Scenario { reads: ReadMode::Lease, ..scenario("restart-during-a-lease", leases::restart_during_a_lease) },
    Scenario { reads: ReadMode::Lease, ..scenario("handover-during-a-lease", leases::handover_during_a_lease) },
    scenario("reads-during-handovers", handover::reads_during_handovers),
    scenario("claim-of-the-new-leader-is-late", handover::claim_of_the_new_leader_is_late),
    Scenario {
        groups: 3,
        follows: true,
        ..scenario("leaders-follow-their-clients", handover::leaders_follow_their_clients)
    },
    Scenario {
        groups: 3,
        follows: true,
        ..scenario("leaders-follow-to-a-node-that-does-not", handover::leaders_follow_to_a_node_that_does_not)
    },
    scenario("fast-leader-for-a-moment", clocks::fast_leader_for_a_moment),
    scenario("born-while-the-first-is-fast", clocks::born_while_the_first_is_fast),
    scenario("born-while-the-last-is-fast", clocks::born_while_the_last_is_fast),
    scenario("born-while-the-first-is-slow", clocks::born_while_the_first_is_slow),
    scenario("cut-right-after-the-birth", clocks::last_cut_right_after_the_birth),
    scenario("killed-right-after-the-birth", clocks::killed_right_after_the_birth),
    Scenario { seeds: 100, ..scenario("first-cut-right-after-the-birth", clocks::first_cut_right_after_the_birth) },
    scenario("slow-follower", clocks::slow_follower),
    scenario("ahead-after-an-upgrade", clocks::ahead_after_an_upgrade),
    scenario("frozen-while-another-is-away", clocks::frozen_while_another_is_away),
    scenario("start-beside-a-frozen-machine", clocks::start_beside_a_frozen_machine),
    scenario("start-beside-one-frozen-and-set", clocks::start_beside_one_frozen_and_set),
    scenario("read-right-after-a-freeze", clocks::read_right_after_a_freeze),
    Scenario {
        nodes: 5,
        seeds: 20,
        ..scenario("read-when-one-clock-is-known-after-a-freeze", clocks::read_when_one_clock_is_known_after_a_freeze)
    },
    scenario("two-frozen-and-one-set", clocks::two_frozen_and_one_set),
    Scenario { nodes: 5, ..scenario("two-of-five-clocks-jump", clocks::two_of_five_clocks_jump) },
    scenario("relayed-command-comes-twice", relay::relayed_command_comes_twice),
    scenario("relayed-command-of-an-earlier-start", relay::relayed_command_of_an_earlier_start),
    scenario("leader-dies-while-its-messages-wait", waiting::leader_dies_while_its_messages_wait),
    scenario("leader-dies-while-its-pings-wait", waiting::leader_dies_while_its_pings_wait),
    scenario("large-commands-of-a-dead-node", uploads::large_commands_of_a_dead_node),
    scenario("frozen-amid-a-large-command", uploads::frozen_amid_a_large_command),
    scenario("connections-break-in-large-values", fragments::connections_break_in_large_values),
    scenario("accept-comes-twice", accept_comes_twice),
    scenario("wiped-before-it-was-met", wiped_before_it_was_met),
    scenario("wiped-during-the-birth", wiped_during_the_birth),
    scenario("old-copy-started-often", old_copy_started_often),
    Scenario { session_ttl_ms: Ms(1_000), ..scenario("retry-of-an-expired-session", retry_of_an_expired_session) },
    scenario("retry-of-an-evicted-session", retry_of_an_evicted_session),
    scenario("retry-after-the-leader-died", retry_after_the_leader_died),
    scenario("resent-while-adopted", resent_while_adopted),
    Scenario { groups: 2, ..scenario("vote-alone-in-an-old-segment", vote_alone_in_an_old_segment) },
    Scenario { nodes: 5, ..scenario("stuck-disk-in-the-leaders-majority", disks::stuck_disk_in_the_leaders_majority) },
    scenario("value-rots-while-the-node-runs", disks::value_rots_while_the_node_runs),
    Scenario { seeds: 20, ..scenario("all-disks-are-slow", disks::all_disks_are_slow) },
    Scenario { nodes: 5, seeds: 20, ..scenario("candidate-loses-its-quorum", disks::candidate_loses_its_quorum) },
    Scenario { nodes: 5, seeds: 20, ..scenario("candidate-with-a-stuck-disk", disks::candidate_with_a_stuck_disk) },
    Scenario { cuts: true, ..scenario("power-fails-while-old-segments-go", cut::power_fails_while_old_segments_go) },
    Scenario { cuts: true, ..scenario("lost-checkpoint-behind-a-vote", cut::lost_checkpoint_behind_a_vote) },
    scenario("lost-vote", cut::lost_vote),
    Scenario { cuts: true, ..scenario("old-copy-after-logs-were-cut", cut::old_copy_after_logs_were_cut) },
    Scenario { cuts: true, ..scenario("own-command-behind-a-cut-log", cut::own_command_behind_a_cut_log) },
    Scenario {
        spares: 1,
        seeds: 20,
        ..scenario("power-fails-when-the-removed-node-stops", members::power_fails_when_the_removed_node_stops)
    },
    Scenario {
        spares: 1,
        workers: 4,
        seeds: 20,
        ..scenario("removed-with-workers-without-groups", members::power_fails_when_the_removed_node_stops)
    },
    Scenario { cuts: true, spares: 2, ..scenario("caught-up-by-strangers", cut::caught_up_by_strangers) },
    Scenario { spares: 2, ..scenario("birth-record-from-strangers", members::birth_record_from_strangers) },
    Scenario {
        cuts: true,
        groups: 3,
        workers: 2,
        ..scenario("other-number-of-workers", workers::other_number_of_workers)
    },
    Scenario {
        groups: 4,
        workers: 4,
        ..scenario("wait-for-groups-of-all-workers", workers::wait_for_groups_of_all_workers)
    },
    Scenario {
        groups: 3,
        workers: 2,
        ..scenario("killed-right-after-the-birth-with-workers", clocks::killed_right_after_the_birth)
    },
    Scenario { groups: 3, workers: 4, ..scenario("wiped-during-the-birth-with-workers", wiped_during_the_birth) },
    Scenario {
        spares: 2,
        groups: 3,
        workers: 2,
        ..scenario("birth-record-from-strangers-with-workers", members::birth_record_from_strangers)
    },
    Scenario {
        cuts: true,
        spares: 2,
        groups: 2,
        workers: 2,
        ..scenario("caught-up-by-strangers-with-workers", cut::caught_up_by_strangers)
    },
    Scenario {
        reads: ReadMode::Lease,
        groups: 2,
        workers: 2,
        ..scenario("restart-during-a-lease-with-workers", leases::restart_during_a_lease)
    },
    Scenario {
        cuts: true,
        groups: 2,
        workers: 2,
        ..scenario("old-copy-after-logs-were-cut-with-workers", cut::old_copy_after_logs_were_cut)
    },
    Scenario { cuts: true, is_long: true, ..scenario("hour-of-overwrites", hour::hour_of_overwrites) },
];

/// Maximum duration of a step, in virtual time.
const STEP_US: u64 = 10_000_000;

impl Scenario {
    /// Runs the scenario with the random times of this seed.
    ///
    /// # Errors
    /// What went wrong.
    pub(crate) fn run(&self, seed: u64, trace: Trace) -> Result<(), String> {
        let short = CheckpointConfig { log_bytes_min: 64 << 10, log_factor: 1, ..CheckpointConfig::default() };
        let shape = Shape {
            nodes: self.nodes,
            spares: self.spares,
            groups: self.groups,
            reads: self.reads,
            workers: self.workers,
            mixed: false,
            demand_min: self.follows.then_some(5),
            client_timeout_ms: Ms(5_000),
            session_ttl_ms: self.session_ttl_ms,
            checkpoints: if self.cuts { short } else { CheckpointConfig::default() },
            loading_us_max: 0,
            turn_steps: paxoi::config::TURN_STEPS,
            is_busy: false,
            fragment_bytes: 32,
            part_bytes: 64 << 10,
        };
        let mut world = World::new(seed, shape, trace);
        world.revives = false;
        let calm = Weather { delay_us: 200, jitter_us: 50, ..Weather::default() };
        world.network.weather = calm;
        world.faults = Faults { fair: calm, ..Faults::default() };
        world.load = Load { nodes: (0..self.nodes).collect(), ..Load::default() };
        world.clients = (0..4).map(|_| Client::new()).collect();
        (self.steps)(&mut world)?;
        world.close_books();
        verify::check(&world.record.history, Limits::default()).map_err(|violation| violation.to_string())?;
        world.oracle.violation().map_or(Ok(()), |what| Err(what.to_owned()))
    }
}

impl World {
    fn until(&mut self, what: &str, mut done: impl FnMut(&mut World) -> bool) -> Result<(), String> {
        let end_us = self.now_us + STEP_US;
        let in_time = self.run_while(end_us, |world| world.oracle.violation().is_some() || done(world));
        match self.oracle.violation() {
            Some(violation) => Err(violation.to_owned()),
            None if in_time => Ok(()),
            None => Err(format!("in vain: {what}")),
        }
    }

    fn wait(&mut self, us: u64) {
        let end_us = self.now_us + us;
        self.run_while(end_us, |_| false);
    }

    fn leader(&self, node: usize) -> Option<usize> {
        let life = self.processes[node].life.as_ref()?;
        life.groups().next()?.leads().map(|ballot| ballot.node.0 as usize - 1)
    }

    /// Starts all nodes, and waits until the first one leads.
    fn found(&mut self) -> Result<(), String> {
        (0..self.processes.len()).for_each(|node| self.start(node));
        self.until("the first node leads", |world| world.leader(0).is_some())
    }

    /// Waits until every node that runs is born, and knows the leaders and cluster time.
    fn ready(&mut self) -> Result<(), String> {
        self.until("all nodes are ready", |world| {
            let now_us = world.now_us;
            world.processes.iter().all(|process| {
                let is_ready = |life: &RunningProcess| {
                    let node = life.first();
                    node.is_born() && node.leaderless() == 0 && node.cluster_ms(process.clocks.at(now_us)).is_some()
                };
                process.life.as_ref().is_none_or(is_ready)
            })
        })
    }

    /// Pauses the first node while another leader is elected and writes. The first input of the first node after the
    /// pause is a read.
    fn read_first_after_a_pause(&mut self) -> Result<(), String> {
        self.pause(0);
        self.until("another leads", |world| world.leader(1).or(world.leader(2)).is_some())?;
        self.set(1, "new");
        expect(&self.told(1)?, &Outcome::Done)?;
        self.get(2, "s");
        self.wait(2_000);
        self.hear_first(0, 2);
        self.resume(0);
        self.wait(5_000_000);
        Ok(())
    }

    /// Cuts a node off from all others: its connections break, and what is in flight on them is lost.
    fn cut_off(&mut self, node: usize) {
        for other in (0..self.processes.len()).filter(|other| *other != node) {
            self.network.block(node, other);
            self.network.block(other, node);
        }
        for (connection, one, other) in self.network.links() {
            if one == node || other == node {
                self.after(0, Event::Cut { connection });
            }
        }
    }

    fn connect(&mut self, client: usize, node: usize) -> Result<(), String> {
        self.connect_client(client, node);
        self.until("a client connects", |world| world.is_idle(client))
    }

    fn told(&mut self, client: usize) -> Result<Outcome, String> {
        self.until("a client is told", |world| world.is_idle(client))?;
        self.record.last.clone().ok_or_else(|| "the client was told nothing of use".to_owned())
    }

    fn not_executed(&mut self, client: usize) -> Result<(), String> {
        self.until("the retry is answered", |world| world.is_idle(client))?;
        match self.record.last_error.take() {
            Some(text) if text.starts_with("ONCEEXPIRED") => Ok(()),
            other => Err(format!("the retry was told {other:?} or {:?}", self.record.last)),
        }
    }

    fn session(&mut self, client: usize) -> Result<String, String> {
        self.ask_for_session(client);
        self.until("there is a session", |world| world.is_idle(client))?;
        self.session_of(client).ok_or_else(|| "SESSION NEW was refused".to_owned())
    }

    fn set(&mut self, client: usize, value: &str) {
        let action = Action::Set(Bytes::copy_from_slice(value.as_bytes()));
        self.request(client, &["SET", "s", value], "s", action);
    }

    fn get(&mut self, client: usize, key: &str) {
        self.request(client, &["GET", key], key, Action::Get);
    }
}

fn expect(found: &Outcome, wanted: &Outcome) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("the client was told {found:?} instead of {wanted:?}")) }
}

/// A leader is paused before it has read a vote with which it could choose a value. Another leader is elected and
/// writes. The paused leader resumes, and the first input that it gets is a read.
fn paused_leader_reads(world: &mut World) -> Result<(), String> {
    world.found()?;
    (0..3).try_for_each(|client| world.connect(client, [0, 1, 0][client]))?;
    world.set(0, "old");
    expect(&world.told(0)?, &Outcome::Done)?;
    let before = world.oracle.position(0);
    world.set(0, "between");
    world.until("a follower votes", |world| (1..3).any(|node| world.oracle.position(node) > before))?;
    world.read_first_after_a_pause()
}

/// The followers know that their connections to the leader are broken. They elect another leader and write. The old
/// leader hears nothing, still believes that its connections work, and is asked for the new value.
fn half_cut_leader_reads(world: &mut World) -> Result<(), String> {
    world.found()?;
    (0..3).try_for_each(|client| world.connect(client, [0, 1, 0][client]))?;
    world.set(0, "old");
    expect(&world.told(0)?, &Outcome::Done)?;
    world.wait(200_000);
    (1..3).for_each(|node| world.network.block(node, 0));
    for (connection, one, other) in world.network.links() {
        if one == 0 || other == 0 {
            world.after(0, Event::Cut { connection });
        }
    }
    world.until("another leads", |world| world.leader(1).or(world.leader(2)).is_some())?;
    world.set(1, "new");
    expect(&world.told(1)?, &Outcome::Done)?;
    if world.leader(0).is_none() {
        return Err("the first leader knows already: the scenario tests nothing".to_owned());
    }
    world.get(2, "s");
    world.wait(2_000_000);
    world.heal();
    world.wait(3_000_000);
    Ok(())
}

/// Every frame arrives twice while the disks of the followers are slow. Then a follower loses power before its vote is
/// synced.
fn accept_comes_twice(world: &mut World) -> Result<(), String> {
    world.found()?;
    world.connect(0, 0)?;
    world.set(0, "first");
    expect(&world.told(0)?, &Outcome::Done)?;
    world.network.weather.doubling = 1_000;
    (1..3).for_each(|node| world.processes[node].sync_us = 400_000);
    world.set(0, "second");
    world.until("a follower writes its vote", |world| world.oracle.is_writing(1) || world.oracle.is_writing(2))?;
    world.wait(150_000);
    for node in [1, 2] {
        if world.oracle.is_writing(node) {
            world.end(node, End::PowerLoss);
            break;
        }
    }
    world.wait(3_000_000);
    world.network.weather.doubling = 0;
    (1..3).for_each(|node| world.start(node));
    (0..3).for_each(|node| world.processes[node].sync_us = 300);
    world.ready()?;
    world.connect(1, 2)?;
    world.get(1, "s");
    world.told(1).map(|_| ())
}

/// A directory is lost before any other node has heard of it. Its node counts as new, and the cluster is born with it.
fn wiped_before_it_was_met(world: &mut World) -> Result<(), String> {
    world.start(2);
    world.wait(500_000);
    world.end(2, End::Kill);
    world.processes[2].disk = MemoryDisk::new();
    (0..3).for_each(|node| world.start(node));
    world.until("all are born", |world| world.processes.iter().all(Process::is_born))?;
    world.until("the first node leads", |world| world.leader(0).is_some())?;
    // The vote of the third node is needed, and counts.
    world.end(1, End::Kill);
    world.connect(0, 2)?;
    world.set(0, "value");
    expect(&world.told(0)?, &Outcome::Done)
}

/// A directory is lost after its node reported it to the first member, and before the node is born. The birth record
/// names the lost directory.
fn wiped_during_the_birth(world: &mut World) -> Result<(), String> {
    (0..3).for_each(|node| world.start(node));
    world.until("the first is born", |world| world.processes[0].is_born())?;
    if world.processes[2].is_born() {
        return Err("the third was born with the first: the scenario tests nothing".to_owned());
    }
    world.end(2, End::Kill);
    world.processes[2].disk = MemoryDisk::new();
    world.processes[2].lost = Some(Lost::Foreign);
    world.oracle.on_foreign(2);
    world.start(2);
    world.until("the third is turned away", |world| world.processes[2].gone.is_some())?;
    world.until("the first leads", |world| world.leader(0).is_some())?;
    world.connect(0, 1)?;
    world.set(0, "value");
    expect(&world.told(0)?, &Outcome::Done)
}

/// A directory is replaced by an older copy. The copy is started several times without contact to other nodes, until
/// its start number is above the one that they have seen.
fn old_copy_started_often(world: &mut World) -> Result<(), String> {
    world.found()?;
    let copy = world.processes[2].disk.killed();
    world.end(2, End::Kill);
    world.start(2);
    world.connect(0, 2)?;
    world.set(0, "the copy lacks this");
    expect(&world.told(0)?, &Outcome::Done)?;
    let met = world.processes[2].start;
    world.until("the others have met it", |world| (0..2).all(|node| world.oracle.has_met(node, 2, met)))?;
    world.end(2, End::Kill);
    world.processes[2].disk = copy;
    world.processes[2].lost = Some(Lost::Foreign);
    world.oracle.on_foreign(2);
    (0..2).for_each(|node| {
        world.network.block(node, 2);
        world.network.block(2, node);
    });
    for _ in 0..3 {
        world.start(2);
        world.wait(200_000);
        world.end(2, End::Kill);
    }
    world.start(2);
    world.heal();
    world.until("the copy is turned away", |world| world.processes[2].gone.is_some())
}

/// A session expires. An executed command of the session is sent again, and must not be executed again.
fn retry_of_an_expired_session(world: &mut World) -> Result<(), String> {
    world.found()?;
    (0..2).try_for_each(|client| world.connect(client, client))?;
    let id = world.session(0)?;
    let once = ["ONCE", &id, "1", "INCR", "c"];
    world.request(0, &once, "c", Action::IncrementBy(1));
    expect(&world.told(0)?, &Outcome::Integer(1))?;
    world.wait(2_000_000);
    world.set(1, "time goes on");
    world.told(1)?;
    world.request(1, &once, "c", Action::IncrementBy(1));
    world.not_executed(1)?;
    world.get(1, "c");
    expect(&world.told(1)?, &Outcome::Value(Bytes::from_static(b"1")))
}

/// The same scenario, but the session was evicted to make room for the stored replies of other sessions.
fn retry_of_an_evicted_session(world: &mut World) -> Result<(), String> {
    world.oracle.digest_every = u64::MAX;
    world.found()?;
    world.connect(0, 0)?;
    let id = world.session(0)?;
    let once = ["ONCE", &id, "1", "INCR", "c"];
    world.request(0, &once, "c", Action::IncrementBy(1));
    expect(&world.told(0)?, &Outcome::Integer(1))?;
    let long = "x".repeat(60_000);
    world.set(0, &long);
    world.told(0)?;
    // A group keeps 64 MiB of replies, and 64 replies of a session.
    for _ in 0..20 {
        let other = world.session(0)?;
        for number in 1..=64 {
            world.request(0, &["ONCE", &other, &number.to_string(), "GET", "s"], "s", Action::Get);
            world.told(0)?;
        }
    }
    world.request(0, &once, "c", Action::IncrementBy(1));
    world.not_executed(0)?;
    world.get(0, "c");
    expect(&world.told(0)?, &Outcome::Value(Bytes::from_static(b"1")))
}

/// A leader dies before it answers. Its client repeats the command at another node, under the same number.
fn retry_after_the_leader_died(world: &mut World) -> Result<(), String> {
    world.found()?;
    (0..2).try_for_each(|client| world.connect(client, client))?;
    let id = world.session(0)?;
    let once = ["ONCE", &id, "1", "INCR", "c"];
    world.request(0, &once, "c", Action::IncrementBy(1));
    let before = world.oracle.chosen;
    world.until("it is chosen", |world| world.oracle.chosen > before)?;
    world.end(0, End::PowerLoss);
    world.until("another leads", |world| world.leader(1).or(world.leader(2)).is_some())?;
    world.request(1, &once, "c", Action::IncrementBy(1));
    expect(&world.told(1)?, &Outcome::Integer(1))?;
    world.get(1, "c");
    expect(&world.told(1)?, &Outcome::Value(Bytes::from_static(b"1")))
}

/// A command reaches the leader, and from there only one of the two followers. Its origin sends it again to the next
/// leader, which has adopted the value with the command.
fn resent_while_adopted(world: &mut World) -> Result<(), String> {
    world.found()?;
    world.ready()?;
    world.connect(0, 1)?;
    let before = world.oracle.position(2);
    world.network.block(0, 1);
    world.request(0, &["INCR", "c"], "c", Action::IncrementBy(1));
    world.until("the third votes", |world| world.oracle.position(2) > before)?;
    world.end(0, End::PowerLoss);
    world.until("another leads", |world| world.leader(1).or(world.leader(2)).is_some())?;
    expect(&world.told(0)?, &Outcome::Integer(1))?;
    world.get(0, "c");
    expect(&world.told(0)?, &Outcome::Value(Bytes::from_static(b"1")))
}

/// The last vote of a quiet group is in the oldest segment of the log, and the records of a busy group have filled
/// later segments since. All nodes lose power, and the vote must still count.
fn vote_alone_in_an_old_segment(world: &mut World) -> Result<(), String> {
    (0..3).for_each(|node| world.start(node));
    world.ready()?;
    (0..2).try_for_each(|client| world.connect(client, client))?;
    let [quiet, busy] = two_keys();
    world.request(0, &["INCR", quiet], quiet, Action::IncrementBy(1));
    expect(&world.told(0)?, &Outcome::Integer(1))?;
    let long = "x".repeat(8_000);
    for count in 0..40 {
        let value = format!("{count}{long}");
        let action = Action::Set(Bytes::from(value.clone()));
        world.request(1, &["SET", busy, &value], busy, action);
        expect(&world.told(1)?, &Outcome::Done)?;
    }
    (0..3).for_each(|node| world.end(node, End::PowerLoss));
    (0..3).for_each(|node| world.start(node));
    world.connect(2, 2)?;
    world.until("it is answered", |world| {
        if world.is_idle(2) && world.record.last != Some(Outcome::Integer(2)) {
            world.request(2, &["INCR", quiet], quiet, Action::IncrementBy(1));
        }
        world.record.last == Some(Outcome::Integer(2))
    })
}

/// Returns two keys, one from each of two groups.
fn two_keys() -> [&'static str; 2] {
    let group = |key: &str| paxoi::routing::group_of(paxoi::routing::slot(key.as_bytes()), 2);
    let keys = ["a", "b", "c", "d", "e", "f"];
    let other = keys.iter().find(|key| group(key) != group("a")).unwrap_or(&"a");
    ["a", other]
}
