//! Scenarios of trimmed logs. Content of old segments that still counts is in a checkpoint, or was logged again. A node
//! that has lost a part of it does not take part until it has learned that part.

use super::expect;
use crate::damage::{rot_checkpoint, rot_value};
use crate::process::{Lost, Process, RunningProcess};
use crate::shell::End;
use crate::world::{Event, World};
use bytes::Bytes;
use paxoi::storage::wal::Lsn;
use paxoi::verify::{Action, Outcome};

impl World {
    /// Writes until `done` returns true.
    pub(super) fn write_until(
        &mut self,
        client: usize,
        what: &str,
        done: impl Fn(&World) -> bool,
    ) -> Result<(), String> {
        let long = "x".repeat(8_000);
        for count in 0..500 {
            if done(self) {
                return Ok(());
            }
            self.set(client, &format!("{count}{long}"));
            expect(&self.told(client)?, &Outcome::Done)?;
            self.wait(20_000);
        }
        Err(format!("in vain: {what}"))
    }

    /// Lets the first and the third node choose a value that the second never hears of, and ends both.
    fn choose_without_the_second(&mut self, value: &str) -> Result<(), String> {
        self.network.block(0, 1);
        self.set(0, value);
        expect(&self.told(0)?, &Outcome::Done)?;
        self.wait(30_000);
        self.end(0, End::PowerLoss);
        self.end(2, End::Kill);
        self.heal();
        Ok(())
    }

    /// Asks a node for a change of the members until it is done.
    pub(super) fn change_members(&mut self, node: usize, wanted: &[&str]) -> Result<(), String> {
        for _ in 0..200 {
            if self.ask_for_members(node, wanted).as_deref() == Some("Ok") {
                return Ok(());
            }
            self.wait(50_000);
        }
        Err(format!("in vain: {wanted:?}"))
    }

    /// Starts the third node on a damaged directory while only the second node runs. Later starts the first node, too.
    fn return_with_less(&mut self, value: &'static str) -> Result<(), String> {
        self.processes[2].rotten = true;
        self.start(2);
        self.wait(5_000_000);
        self.start(0);
        self.connect(1, 1)?;
        self.get(1, "s");
        expect(&self.told(1)?, &Outcome::Value(Bytes::from_static(value.as_bytes())))?;
        let recovering = |life: &RunningProcess| life.groups().any(groups::Group::is_recovering);
        self.until("the third is whole", |world| !world.processes[2].life.as_ref().is_some_and(recovering))?;
        if self.oracle.recovering > 0 { Ok(()) } else { Err("the third did not notice what it lacks".to_owned()) }
    }
}

/// A node logs those records of old segments again that still count. Power fails while its slow disk writes them.
pub(super) fn power_fails_while_old_segments_go(world: &mut World) -> Result<(), String> {
    world.found()?;
    world.connect(0, 0)?;
    world.processes[2].sync_us = 300_000;
    world.write_until(0, "the third cuts its log", |world| world.oracle.may_have_dropped(2, Lsn(0)))?;
    world.wait(50_000);
    world.end(2, End::PowerLoss);
    world.processes[2].sync_us = 300;
    world.start(2);
    world.connect(1, 2)?;
    world.get(1, "s");
    world.told(1).map(|_| ())
}

/// A member's vote made a value chosen, and the member's checkpoint rots. The group must not make progress without the
/// other member that voted.
pub(super) fn lost_checkpoint_behind_a_vote(world: &mut World) -> Result<(), String> {
    world.found()?;
    world.connect(0, 0)?;
    world.write_until(0, "the third cuts its log", |world| world.oracle.may_have_dropped(2, Lsn(0)))?;
    world.wait(100_000);
    world.choose_without_the_second("chosen")?;
    if !rot_checkpoint(&world.processes[2].disk, &mut world.random, &world.trace) {
        return Err("the third has no checkpoint: the scenario tests nothing".to_owned());
    }
    world.return_with_less("chosen")
}

/// The same, but it is the vote itself that rots.
pub(super) fn lost_vote(world: &mut World) -> Result<(), String> {
    const VALUE: &str = "a value that rots";
    world.found()?;
    world.connect(0, 0)?;
    world.set(0, "before");
    expect(&world.told(0)?, &Outcome::Done)?;
    world.choose_without_the_second(VALUE)?;
    rot_value(&world.processes[2].disk, VALUE)?;
    world.return_with_less(VALUE)
}

/// A directory is replaced by an older copy. The others would recognize the copy by their records of the node's later
/// start, but the segments with these records are dropped.
pub(super) fn old_copy_after_logs_were_cut(world: &mut World) -> Result<(), String> {
    world.found()?;
    let copy = world.processes[2].disk.killed();
    world.end(2, End::Kill);
    world.start(2);
    (0..2).try_for_each(|client| world.connect(client, client * 2))?;
    let met = world.processes[2].start;
    world.until("the others have met it", |world| (0..2).all(|node| world.oracle.has_met(node, 2, met)))?;
    let lsns = [0, 1].map(|node| world.oracle.last_lsn(node));
    world.write_until(0, "the others cut their logs", |world| {
        (0..2).all(|node| world.oracle.may_have_dropped(node, lsns[node]))
    })?;
    world.wait(100_000);
    world.end(2, End::Kill);
    (0..2).for_each(|node| world.end(node, End::PowerLoss));
    world.processes[2].disk = copy;
    world.processes[2].lost = Some(Lost::Foreign);
    world.oracle.on_foreign(2);
    (0..3).for_each(|node| world.start(node));
    world.until("the copy is turned away", |world| world.processes[2].gone.is_some())
}

/// A member is cut off before it hears that its command was executed. The others trim their logs before it is connected
/// again, so it learns the result from a checkpoint. By then it has sent the command again.
pub(super) fn own_command_behind_a_cut_log(world: &mut World) -> Result<(), String> {
    world.found()?;
    (0..2).try_for_each(|client| world.connect(client, client * 2))?;
    world.set(0, "before");
    expect(&world.told(0)?, &Outcome::Done)?;
    (0..2).for_each(|node| world.network.block(node, 2));
    let before = world.oracle.chosen;
    world.request(1, &["INCR", "c"], "c", Action::IncrementBy(1));
    world.until("it is chosen", |world| world.oracle.chosen > before)?;
    (0..2).for_each(|node| world.network.block(2, node));
    for (connection, ..) in world.network.links().into_iter().filter(|(_, one, other)| *one == 2 || *other == 2) {
        world.after(0, Event::Cut { connection });
    }
    let lsns = [0, 1].map(|node| world.oracle.last_lsn(node));
    world.write_until(0, "the others cut their logs", |world| {
        (0..2).all(|node| world.oracle.may_have_dropped(node, lsns[node]))
    })?;
    world.wait(100_000);
    world.heal();
    world.until("the third fetches a checkpoint", |world| world.oracle.transfers > 0)?;
    world.connect(2, 2)?;
    world.get(2, "c");
    expect(&world.told(2)?, &Outcome::Value(Bytes::from_static(b"1")))?;
    world.wait(1_000_000);
    Ok(())
}

/// Two of three members are replaced and stopped while the third is away. It returns to two members that it has never
/// heard of, which have trimmed their logs.
pub(super) fn caught_up_by_strangers(world: &mut World) -> Result<(), String> {
    world.found()?;
    world.until("all are born", |world| world.processes[..3].iter().all(Process::is_born))?;
    world.connect(0, 0)?;
    world.set(0, "before");
    expect(&world.told(0)?, &Outcome::Done)?;
    world.end(2, End::Kill);
    world.change_members(1, &["REPLACE", "1", "4"])?;
    world.change_members(3, &["REPLACE", "2", "5"])?;
    (0..2).for_each(|node| world.end(node, End::Kill));
    world.connect(1, 3)?;
    let lsns = [3, 4].map(|node| world.oracle.last_lsn(node));
    world.write_until(1, "the new ones cut their logs", |world| {
        (3..5).all(|node| world.oracle.may_have_dropped(node, lsns[node - 3]))
    })?;
    world.set(1, "after");
    expect(&world.told(1)?, &Outcome::Done)?;
    let transfers = world.oracle.transfers;
    world.start(2);
    world.until("the third fetches a checkpoint", |world| world.oracle.transfers > transfers)?;
    let next = |life: &RunningProcess| life.groups().next().map(groups::Group::next);
    world.until("the third has caught up", |world| {
        let [third, fourth] = [2, 3].map(|node| world.processes[node].life.as_ref().and_then(next));
        third == fourth
    })?;
    world.ready()?;
    world.connect(2, 2)?;
    world.get(2, "s");
    expect(&world.told(2)?, &Outcome::Value(Bytes::from_static(b"after")))
}
