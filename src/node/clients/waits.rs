//! WAIT and WAITAOF: a client waits until the logs of other members durably hold its writes.
//!
//! `durability` knows which members hold them. Over several groups the lowest count is the reply: each write is on at
//! least that many disks.

use super::backend::Backend;
use super::client::{BlockReason, Client, RequestOutcome};
use super::{Clients, Time};
use crate::admin::hello::{self, Wanted};
use crate::kv::reply::Reply;
use crate::kv::table::{Spec, Verb};
use crate::node::ticket::{ClientTicket, RequestNumber};
use crate::storage::wal::Lsn;
use groups::{GroupId, Instance, Ms, Us};
use net::event::ConnectionId;
use std::borrow::Cow;

/// Interval in milliseconds between questions to the members, on behalf of all waiting clients.
const WAIT_ASK_MS: Ms = Ms(20);
/// Maximum groups of all waiting clients together. Beyond it a WAIT is answered at once with the present count.
const WAIT_GROUPS_MAX: usize = 1 << 16;

const UNBLOCKED: Reply<'static> = Reply::Error(Cow::Borrowed("UNBLOCKED client unblocked via CLIENT UNBLOCK"));

/// A set of groups, with one bit for each group up to the highest in the set.
#[derive(Debug, Default)]
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

/// A client that waits.
struct Wait {
    ticket: ClientTicket,
    wanted: Wanted,
    /// `None`: no time limit.
    deadline_ms: Option<Ms>,
    /// The LSN up to which this node's log must be durable to hold everything that the node had applied.
    lsn: Lsn,
    /// The groups in which the client wrote, each with its first instance that was not applied yet.
    groups: Vec<(GroupId, Instance)>,
}

/// All clients that wait.
#[derive(Default)]
pub(super) struct Waits {
    open: Vec<Wait>,
    /// Number of groups of all waits together.
    groups: usize,
    asked_ms: Ms,
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
        let is_bounded = self.waits.groups + wait.groups.len() <= WAIT_GROUPS_MAX;
        if wait.is_done(node, time) || !is_bounded {
            let reply = wait.reply(node, time);
            client.answer_counted(&reply, node);
            return RequestOutcome::Taken;
        }
        let timeout_ms = Some(wanted.timeout_ms).filter(|ms| *ms > Ms(0));
        wait.deadline_ms = timeout_ms.map(|ms| time.mono_ms().saturating_add(ms));
        wait.ticket = client.expect();
        (client.blocked, client.info.blocked) = (Some(BlockReason::Replies), true);
        self.waits.groups += wait.groups.len();
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
        let Some(at) = self.waits.open.iter().position(|wait| wait.ticket.connection == connection) else {
            return false;
        };
        self.finish_wait(at, with_error.then_some(UNBLOCKED), node, time);
        true
    }

    /// Answers the waits that are satisfied or past their deadlines, and asks the members on behalf of the rest.
    pub(in crate::node) fn step_waits(&mut self, node: &mut impl Backend, time: Time) {
        let now_ms = time.mono_ms();
        let mut at = 0;
        while let Some(wait) = self.waits.open.get(at) {
            let is_gone = !self.table.has(wait.ticket.connection);
            let is_late = wait.deadline_ms.is_some_and(|deadline_ms| deadline_ms <= now_ms);
            if is_gone || is_late || wait.is_done(node, time) {
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
        self.waits.groups -= wait.groups.len();
        let reply = error.unwrap_or_else(|| wait.reply(node, time));
        if let Reply::Error(text) = &reply {
            node.stats().error(text);
        }
        self.complete(wait.ticket, reply);
    }

    /// Returns true if some client waits.
    #[cfg(test)]
    pub(in crate::node) fn is_any_waiting(&self) -> bool {
        !self.waits.open.is_empty()
    }
}

impl Wait {
    fn new(client: &Client, wanted: Wanted, node: &impl Backend) -> Wait {
        let wrote = client.wrote.iter().filter(|group| node.has(*group));
        Wait {
            ticket: ClientTicket { connection: client.connection, request: RequestNumber(0), part: 0 },
            wanted,
            deadline_ms: None,
            lsn: node.gathered_lsn(),
            groups: wrote.map(|group| (group, node.next(group))).collect(),
        }
    }

    fn is_done(&self, node: &impl Backend, time: Time) -> bool {
        let is_local = self.wanted.local != Some(true) || node.has_logged(self.lsn);
        is_local && node.count_durable_members(&self.groups, time) as i64 >= self.wanted.others
    }

    fn reply(&self, node: &impl Backend, time: Time) -> Reply<'static> {
        let others = Reply::Int(node.count_durable_members(&self.groups, time) as i64);
        match self.wanted.local {
            None => others,
            Some(_) => Reply::Array(vec![Reply::Int(i64::from(node.has_logged(self.lsn))), others]),
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
