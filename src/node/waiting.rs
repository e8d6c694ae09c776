//! WAIT and WAITAOF: a client waits until other members have in their logs, durably, what it has written.
//!
//! A member counts in a group if it is certain to have all that this node has applied there, which includes the client's
//! writes, because they are answered. That is so of the members that say it: they are asked how far they are, and answer
//! when their log is durable up to there ([`NodeMessage::WhereDurable`], [`NodeMessage::Durable`]). And it is so of a
//! majority before anybody is asked: those that voted for the last value, each of which had all before it; which ones
//! they are is not known here. Over several groups the least counts: each write is on so many disks.

use super::clients::{Client, Hold};
use super::replies::{Expected, Ticket};
use super::wire::{NodeMessage, Positions};
use super::{Node, Time};
use crate::admin::hello::{self, Wanted};
use crate::kv::reply::Reply;
use crate::kv::table::{Spec, Verb};
use groups::{GroupId, Instance, NodeId};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Members are asked again after so long, for all that wait.
const WAIT_ASK_MS: u64 = 20;
/// Groups of all that wait together; who comes when there are so many gets what is certain, at once.
const WAIT_GROUPS_MAX: usize = 1 << 16;

const UNBLOCKED: Reply<'static> = Reply::Error(Cow::Borrowed("UNBLOCKED client unblocked via CLIENT UNBLOCK"));

/// A set of groups, a bit for each up to the highest.
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

/// One that waits.
struct Wait {
    ticket: Ticket,
    wanted: Wanted,
    /// `None`: as long as it takes.
    deadline_ms: Option<u64>,
    /// What this node had applied is in its own log when that is durable up to here.
    lsn: u64,
    /// How far each group was in which the client wrote.
    groups: Vec<(GroupId, Instance)>,
}

/// All that wait, and what is known of the members.
#[derive(Default)]
pub(super) struct Waits {
    open: Vec<Wait>,
    /// Groups of all of them.
    groups: usize,
    asked_ms: u64,
    /// By member and group, what it has said to have, durably: all below this instance.
    durable: BTreeMap<NodeId, Vec<Instance>>,
    /// What is to be said to members once the log is durable up to there; one answer for each.
    owed: Vec<(u64, NodeId, Positions)>,
}

impl Waits {
    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

impl Node {
    /// WAIT or WAITAOF: answered when enough members have what the client wrote, or when its time is up. It is looked at
    /// once all before it is answered, and applied here; until it is answered itself, nothing more is read.
    pub(super) fn wait(&mut self, client: &mut Client, spec: &Spec, words: &[&[u8]], time: Time) {
        if !client.replies.is_empty() {
            (client.hold, client.again) = (Some(Hold::Replies), true);
            return;
        }
        self.stats.called(spec.verb as usize, 0, false);
        let wanted = match wanted(spec, words) {
            Ok(wanted) => wanted,
            Err(error) => return self.answer(client, &error),
        };
        let mut wait = self.wait_of(client, wanted);
        let is_bounded = self.waits.groups + wait.groups.len() <= WAIT_GROUPS_MAX;
        if self.is_done(&wait, time) || !is_bounded {
            let reply = self.wait_reply(&wait, time);
            return self.answer(client, &reply);
        }
        let timeout_ms = Some(wanted.timeout_ms).filter(|ms| *ms > 0);
        wait.deadline_ms = timeout_ms.map(|ms| time.mono_ms().saturating_add(ms));
        let (protocol, mute) = (client.info.protocol, !client.info.reply_mode.admit());
        wait.ticket.sequence = client.replies.expect(Expected { protocol, mute, bytes: 0, long: false });
        (client.hold, client.info.blocked) = (Some(Hold::Replies), true);
        self.waits.groups += wait.groups.len();
        self.waits.open.push(wait);
    }

    /// The same in a transaction, where nothing waits.
    pub(super) fn wait_at_once(&mut self, client: &Client, spec: &Spec, words: &[&[u8]], time: Time) -> Reply<'static> {
        match wanted(spec, words) {
            Ok(wanted) => self.wait_reply(&self.wait_of(client, wanted), time),
            Err(error) => error,
        }
    }

    /// Ends the wait of a connection, by its reply or by an error. False if it does not wait.
    pub(super) fn end_wait(&mut self, connection: u64, with_error: bool, time: Time) -> bool {
        let Some(at) = self.waits.open.iter().position(|wait| wait.ticket.connection == connection) else {
            return false;
        };
        self.settle_wait(at, with_error.then_some(UNBLOCKED), time);
        true
    }

    /// Answers those that have what they waited for, or whose time is up, and asks the members on behalf of the rest.
    pub(super) fn step_waits(&mut self, time: Time) {
        self.tell_durable();
        let now_ms = time.mono_ms();
        let mut at = 0;
        while let Some(wait) = self.waits.open.get(at) {
            let is_gone = self.connections.find(wait.ticket.connection).is_none();
            let is_late = wait.deadline_ms.is_some_and(|deadline_ms| deadline_ms <= now_ms);
            if is_gone || is_late || self.is_done(wait, time) {
                self.settle_wait(at, None, time);
            } else {
                at += 1;
            }
        }
        if self.waits.is_empty() || now_ms < self.waits.asked_ms + WAIT_ASK_MS {
            return;
        }
        self.waits.asked_ms = now_ms;
        let mut groups: Vec<GroupId> =
            self.waits.open.iter().flat_map(|wait| &wait.groups).map(|(group, _)| *group).collect();
        groups.sort_unstable();
        groups.dedup();
        let peers = &mut self.peers;
        self.waits.durable.retain(|node, _| peers.iter().any(|peer| peer.id() == *node));
        peers.tell_all(&NodeMessage::WhereDurable(groups));
    }

    /// A member asks how far this node's log has these groups. One question at a time is kept; it is asked again anyway.
    pub(super) fn handle_where_durable(&mut self, from: NodeId, groups: &[GroupId]) {
        if self.waits.owed.iter().any(|(_, to, _)| *to == from) {
            return;
        }
        let here = groups.iter().take(self.engine.len()).filter(|group| self.engine.has(**group));
        let next = here.map(|group| (*group, self.engine.group(*group).next())).collect();
        self.waits.owed.push((self.engine.gathered_lsn(), from, Positions { next }));
        self.tell_durable();
    }

    /// What a member said.
    pub(super) fn handle_durable(&mut self, from: NodeId, positions: &Positions) {
        let groups = self.engine.len();
        let known = self.waits.durable.entry(from).or_default();
        known.resize(groups, Instance(0));
        for (group, next) in positions.next.iter().filter(|(group, _)| group.index() < groups) {
            known[group.index()] = known[group.index()].max(*next);
        }
    }

    fn tell_durable(&mut self) {
        let durable = self.engine.durable_lsn();
        for (_, to, positions) in self.waits.owed.extract_if(.., |(lsn, ..)| *lsn <= durable) {
            if let Some(peer) = self.peers.find(to) {
                peer.tell(&NodeMessage::Durable(positions));
            }
        }
    }

    fn settle_wait(&mut self, at: usize, error: Option<Reply<'static>>, time: Time) {
        let wait = self.waits.open.swap_remove(at);
        self.waits.groups -= wait.groups.len();
        let reply = error.unwrap_or_else(|| self.wait_reply(&wait, time));
        self.reply(wait.ticket, reply);
    }

    fn wait_of(&self, client: &Client, wanted: Wanted) -> Wait {
        let wrote = client.wrote.iter().filter(|group| self.engine.has(*group));
        Wait {
            ticket: Ticket { connection: client.connection, sequence: 0, part: 0 },
            wanted,
            deadline_ms: None,
            lsn: self.engine.gathered_lsn(),
            groups: wrote.map(|group| (group, self.engine.group(group).next())).collect(),
        }
    }

    fn is_done(&self, wait: &Wait, time: Time) -> bool {
        let is_local = wait.wanted.local != Some(true) || self.has_logged(wait);
        is_local && self.holders(wait, time) as i64 >= wait.wanted.others
    }

    /// Whether this node's own log has the writes.
    fn has_logged(&self, wait: &Wait) -> bool {
        wait.lsn <= self.engine.durable_lsn() && self.relays.to().is_none()
    }

    fn wait_reply(&self, wait: &Wait, time: Time) -> Reply<'static> {
        let others = Reply::Int(self.holders(wait, time) as i64);
        match wait.wanted.local {
            None => others,
            Some(_) => Reply::Array(vec![Reply::Int(i64::from(self.has_logged(wait))), others]),
        }
    }

    /// How many other members have each of the writes. A client that wrote nothing is told how many there are to be reached.
    fn holders(&self, wait: &Wait, time: Time) -> usize {
        let in_group = |(group, next): &(GroupId, Instance)| self.holders_in(*group, *next);
        let reached = || self.peers.iter().filter(|peer| peer.is_reached(time.mono_ms())).count();
        wait.groups.iter().map(in_group).min().unwrap_or_else(reached)
    }

    /// How many other members have all of a group below `next`, which is applied here.
    fn holders_in(&self, id: GroupId, next: Instance) -> usize {
        if !self.engine.has(id) {
            return 0;
        }
        let (group, me) = (self.engine.group(id), self.identity.node);
        let membership = group.membership();
        // A majority of the members that there are now has voted once one value was chosen among them.
        let voted = membership.voters().quorum() - usize::from(membership.voters().contains(me));
        let certain = if group.next() > self.engine.governs_from(id) { voted } else { 0 };
        if self.relays.to().is_some() {
            // What another member executed may not have come here: only that a majority has it is certain.
            return certain;
        }
        let has = |node: &NodeId| {
            let known = self.waits.durable.get(node).and_then(|known| known.get(id.index()));
            *node != me && known.is_some_and(|known| *known >= next)
        };
        membership.everyone().ids().iter().filter(|node| has(node)).count().max(certain)
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
