//! WAIT and WAITAOF: a client waits until the logs of other members durably hold its writes.
//!
//! `durability` knows which members hold them. Over several groups the lowest count is the reply: each write is on at
//! least that many disks. For groups of other workers, those workers wait, and report each higher count.

use super::backend::Backend;
use super::client::{BlockReason, Client, RequestOutcome};
use super::messages::ClientsMessage;
use super::{Clients, Time};
use crate::admin::hello::{self, Wanted};
use crate::kv::reply::Reply;
use crate::kv::table::{Spec, Verb};
use crate::node::ticket::{ClientTicket, RequestNumber};
use crate::storage::wal::Lsn;
use crate::workers::WorkerId;
use groups::{GroupId, Instance, Ms, Us};
use net::event::ConnectionId;
use std::borrow::Cow;

/// Interval in milliseconds between questions to the members, on behalf of all waiting clients.
const WAIT_ASK_MS: Ms = Ms(20);
/// Maximum groups of all waiting clients together. Beyond it a WAIT is answered at once with the present count.
const WAIT_GROUPS_MAX: usize = 1 << 16;

const UNBLOCKED: Reply<'static> = Reply::Error(Cow::Borrowed("UNBLOCKED client unblocked via CLIENT UNBLOCK"));

/// A set of groups, with one bit for each group up to the highest in the set.
#[derive(Clone, Debug, Default)]
pub(super) struct GroupSet(Vec<u64>);

impl GroupSet {
    pub(super) fn insert(&mut self, group: GroupId) {
        let word = group.index() / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (group.index() % 64);
    }

    fn iter(&self) -> impl Iterator<Item = GroupId> {
        let bits = |word: u64| (0..64).filter(move |bit| word >> bit & 1 == 1);
        self.0.iter().enumerate().flat_map(move |(at, word)| bits(*word).map(move |bit| GroupId(at as u32 * 64 + bit)))
    }
}

/// The number of a wait on behalf of another worker, at that worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) struct WaitId(u64);

/// How much of a client's writes is durable, in the groups of one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) struct WaitProgress {
    /// Number of other members that have all of it.
    others: i64,
    /// Whether this node has all of it.
    local: bool,
}

/// A wait that a worker asks another one for.
#[derive(Clone, Debug)]
pub(in crate::node) struct WaitRequest {
    /// Its number at the asker.
    id: WaitId,
    /// The groups of the receiver in which the client wrote.
    groups: Vec<GroupId>,
}

/// Who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiter {
    Client(ClientTicket),
    Worker(WorkerId, WaitId),
}

/// A client that waits.
struct Wait {
    waiter: Waiter,
    wanted: Wanted,
    /// `None`: no time limit.
    deadline_ms: Option<Ms>,
    /// The LSN up to which this node's log must be durable to hold everything that the node had applied.
    lsn: Lsn,
    /// The groups in which the client wrote, each with its first instance that was not applied yet.
    groups: Vec<(GroupId, Instance)>,
    /// Number of the groups of other workers in which the client wrote.
    groups_elsewhere: usize,
    /// The other workers that wait for this client, with the number of the wait there, and their last reports.
    elsewhere: Vec<(WorkerId, WaitId, WaitProgress)>,
    /// For another worker: what it was told last.
    told: Option<WaitProgress>,
}

/// All clients that wait.
#[derive(Default)]
pub(super) struct Waits {
    open: Vec<Wait>,
    /// Number of groups of all waits together.
    groups: usize,
    asked_ms: Ms,
    /// Number of waits that other workers were asked for.
    numbered: u64,
}

impl Clients {
    /// Carries out WAIT or WAITAOF. The reply comes when enough members have the client's writes, or at the deadline.
    /// The wait begins after the replies to all earlier requests. No later request is read before the reply to the
    /// wait.
    pub(super) fn wait(
        &mut self,
        client: &mut Client,
        spec: &Spec,
        words: &[&[u8]],
        node: &mut impl Backend,
        time: Time,
    ) -> RequestOutcome {
        if !client.replies.is_empty() {
            return RequestOutcome::Again(BlockReason::Replies);
        }
        node.stats().called(spec.verb as usize, Us(0), false);
        let wanted = match wanted(spec, words) {
            Ok(wanted) => wanted,
            Err(error) => {
                client.answer_counted(&error, node);
                return RequestOutcome::Taken;
            }
        };
        let mut wait = Wait::new(client, wanted, node);
        let is_bounded = self.waits.groups + wait.size() <= WAIT_GROUPS_MAX;
        if wait.is_done(node, time) || !is_bounded {
            let reply = wait.reply(node, time);
            client.answer_counted(&reply, node);
            return RequestOutcome::Taken;
        }
        let timeout_ms = Some(wanted.timeout_ms).filter(|ms| *ms > Ms(0));
        wait.deadline_ms = timeout_ms.map(|ms| time.mono_ms().saturating_add(ms));
        wait.waiter = Waiter::Client(client.expect());
        for (worker, id, _) in &mut wait.elsewhere {
            self.waits.numbered += 1;
            *id = WaitId(self.waits.numbered);
            let groups = client.wrote.iter().filter(|group| node.workers().owner(*group) == *worker).collect();
            node.tell_worker(*worker, ClientsMessage::Wait(WaitRequest { id: *id, groups }));
        }
        (client.blocked, client.info.blocked) = (Some(BlockReason::Replies), true);
        self.waits.groups += wait.size();
        self.waits.open.push(wait);
        RequestOutcome::Taken
    }

    /// Answers WAIT or WAITAOF in a transaction, where nothing waits.
    pub(super) fn wait_at_once(
        &self,
        client: &Client,
        spec: &Spec,
        words: &[&[u8]],
        node: &impl Backend,
        time: Time,
    ) -> Reply<'static> {
        match wanted(spec, words) {
            Ok(wanted) => Wait::new(client, wanted, node).reply(node, time),
            Err(error) => error,
        }
    }

    /// Ends the wait of a connection, with its reply or with an error. Returns false if the connection does not wait.
    pub(super) fn end_wait(
        &mut self,
        connection: ConnectionId,
        with_error: bool,
        node: &mut impl Backend,
        time: Time,
    ) -> bool {
        let Some(at) = self.waits.open.iter().position(|wait| wait.is_of(connection)) else { return false };
        self.finish_wait(at, with_error.then_some(UNBLOCKED), node, time);
        true
    }

    /// Answers the waits that are satisfied or past their deadlines, and asks the members on behalf of the rest.
    pub(in crate::node) fn step_waits(&mut self, node: &mut impl Backend, time: Time) {
        let now_ms = time.mono_ms();
        let mut at = 0;
        while let Some(wait) = self.waits.open.get_mut(at) {
            let is_over = match wait.waiter {
                Waiter::Client(ticket) => {
                    let is_late = wait.deadline_ms.is_some_and(|deadline_ms| deadline_ms <= now_ms);
                    !self.table.has(ticket.connection) || is_late || wait.is_done(node, time)
                }
                Waiter::Worker(to, id) => {
                    wait.report(to, id, node, time);
                    false
                }
            };
            if is_over {
                self.finish_wait(at, None, node, time);
            } else {
                at += 1;
            }
        }
        if self.waits.open.is_empty() || now_ms < self.waits.asked_ms + WAIT_ASK_MS {
            return;
        }
        self.waits.asked_ms = now_ms;
        let groups = self.waits.open.iter().flat_map(|wait| &wait.groups).map(|(group, _)| *group);
        let mut groups: Vec<GroupId> = groups.collect();
        groups.sort_unstable();
        groups.dedup();
        node.query_durable_positions(groups);
    }

    fn finish_wait(&mut self, at: usize, error: Option<Reply<'static>>, node: &mut impl Backend, time: Time) {
        let wait = self.waits.open.swap_remove(at);
        self.waits.groups -= wait.size();
        for (worker, id, _) in &wait.elsewhere {
            node.tell_worker(*worker, ClientsMessage::EndWait(*id));
        }
        let reply = error.unwrap_or_else(|| wait.reply(node, time));
        if let Reply::Error(text) = &reply {
            node.stats().error(text);
        }
        if let Waiter::Client(ticket) = wait.waiter {
            self.complete(ticket, reply);
        }
    }

    /// Begins a wait on behalf of another worker.
    pub(super) fn wait_for_worker(&mut self, from: WorkerId, request: WaitRequest, node: &mut impl Backend) {
        let WaitRequest { id, groups } = request;
        let wanted = Wanted { local: None, others: i64::MAX, timeout_ms: Ms(0) };
        let groups = groups.into_iter().filter(|group| node.is_here(*group));
        let wait = Wait::of_groups(Waiter::Worker(from, id), wanted, groups, node);
        self.waits.groups += wait.size();
        self.waits.open.push(wait);
    }

    /// Ends a wait on behalf of another worker.
    pub(super) fn end_wait_for_worker(&mut self, from: WorkerId, id: WaitId) {
        let ended = self.waits.open.iter().position(|wait| wait.waiter == Waiter::Worker(from, id));
        if let Some(at) = ended {
            self.waits.groups -= self.waits.open.swap_remove(at).size();
        }
    }

    /// Takes the report of another worker about a wait.
    pub(super) fn on_wait_progress(&mut self, from: WorkerId, id: WaitId, progress: WaitProgress) {
        let waits = self.waits.open.iter_mut().flat_map(|wait| &mut wait.elsewhere);
        for (worker, known, last) in waits {
            if (*worker, *known) == (from, id) {
                *last = progress;
            }
        }
    }

    /// Returns true if some client waits.
    #[cfg(test)]
    pub(in crate::node) fn is_any_waiting(&self) -> bool {
        !self.waits.open.is_empty()
    }
}

impl Wait {
    fn new(client: &Client, wanted: Wanted, node: &impl Backend) -> Wait {
        let ticket = ClientTicket { connection: client.connection, request: RequestNumber(0), part: 0 };
        let here = client.wrote.iter().filter(|group| node.is_here(*group));
        let mut wait = Wait::of_groups(Waiter::Client(ticket), wanted, here, node);
        let workers = node.workers();
        let wrote_at = |worker: &WorkerId| client.wrote.iter().any(|group| workers.owner(group) == *worker);
        wait.groups_elsewhere = client.wrote.iter().filter(|group| node.is_elsewhere(*group)).count();
        // Nothing is known there until that worker says so.
        let none = WaitProgress { others: 0, local: false };
        wait.elsewhere = workers.others().filter(wrote_at).map(|worker| (worker, WaitId(0), none)).collect();
        wait
    }

    fn of_groups(waiter: Waiter, wanted: Wanted, groups: impl Iterator<Item = GroupId>, node: &impl Backend) -> Wait {
        Wait {
            waiter,
            wanted,
            deadline_ms: None,
            lsn: node.gathered_lsn(),
            groups: groups.map(|group| (group, node.next(group))).collect(),
            groups_elsewhere: 0,
            elsewhere: Vec::new(),
            told: None,
        }
    }

    /// Returns the number of groups that count against [`WAIT_GROUPS_MAX`].
    fn size(&self) -> usize {
        self.groups.len() + self.groups_elsewhere
    }

    fn is_of(&self, connection: ConnectionId) -> bool {
        matches!(self.waiter, Waiter::Client(ticket) if ticket.connection == connection)
    }

    /// Returns how much is durable in the groups of this worker.
    fn here(&self, node: &impl Backend, time: Time) -> WaitProgress {
        let others = node.count_durable_members(&self.groups, time) as i64;
        WaitProgress { others, local: node.has_logged(self.lsn) }
    }

    /// Returns how much is durable in the groups of all workers.
    fn progress(&self, node: &impl Backend, time: Time) -> WaitProgress {
        let here = self.here(node, time);
        // A client that wrote only elsewhere waits for nothing here.
        let others = if self.groups.is_empty() && !self.elsewhere.is_empty() { i64::MAX } else { here.others };
        let least = |all: WaitProgress, one: WaitProgress| WaitProgress {
            others: all.others.min(one.others),
            local: all.local && one.local,
        };
        self.elsewhere.iter().map(|(.., last)| *last).fold(WaitProgress { others, ..here }, least)
    }

    fn is_done(&self, node: &impl Backend, time: Time) -> bool {
        let WaitProgress { others, local } = self.progress(node, time);
        (self.wanted.local != Some(true) || local) && others >= self.wanted.others
    }

    /// Tells the worker on whose behalf this one waits, if more is durable than at its last report.
    fn report(&mut self, to: WorkerId, id: WaitId, node: &mut impl Backend, time: Time) {
        let here = self.here(node, time);
        if self.told != Some(here) {
            self.told = Some(here);
            node.tell_worker(to, ClientsMessage::WaitProgress(id, here));
        }
    }

    fn reply(&self, node: &impl Backend, time: Time) -> Reply<'static> {
        let WaitProgress { others, local } = self.progress(node, time);
        match self.wanted.local {
            None => Reply::Int(others),
            Some(_) => Reply::Array(vec![Reply::Int(i64::from(local)), Reply::Int(others)]),
        }
    }
}

fn wanted(spec: &Spec, words: &[&[u8]]) -> Result<Wanted, Reply<'static>> {
    if spec.verb == Verb::WaitAof { hello::wait_aof(words) } else { hello::wait(words) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_tells_its_groups_in_order() {
        let mut set = GroupSet::default();
        [200, 0, 63, 64, 200].into_iter().for_each(|group| set.insert(GroupId(group)));
        assert_eq!(set.iter().map(|group| group.0).collect::<Vec<_>>(), [0, 63, 64, 200]);
    }
}
