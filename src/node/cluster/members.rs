//! Changes of the members. The node that received the operator's command carries the change out group by group, a few
//! groups at a time. It only compares the groups' members with the goal and submits the missing changes. So the
//! operator can repeat the command after any failure, here or at another node.

use super::joining::Joining;
use super::{ClusterContext, DecisionView};
use crate::endpoint::Endpoint;
use crate::kv::reply::Reply;
use crate::node::crew::Told;
use crate::node::peers::{Peer, Roster};
use crate::node::wire::NodeMessage;
use crate::plural::plural;
use crate::workers::WorkerId;
use groups::membership::{ChangeKind, MemberInfo};
use groups::{Counter, Group, GroupId, MembershipChange, Ms, NodeId};
use std::collections::BTreeMap;

/// Time for which another worker's reason why a change is impossible may pass.
const OTHERS_MS: Ms = Ms(5_000);
/// Maximum number of groups with a change in flight.
const CHANGES_MAX: usize = 32;
/// A change is given up if it makes no progress and its command is not repeated for this long.
const PATIENCE_MS: Ms = Ms(30_000);
/// Interval at which the members are asked for their positions, while a change or a LIST needs them.
const POSITION_QUERY_MS: Ms = Ms(200);
/// Maximum age of the positions that a member has reported.
const POSITIONS_MS_MAX: Ms = Ms(2_000);
/// A learner gets a vote if it lacks at most this many instances: it has the rest before the next election.
const LAG_MAX: u64 = 64;
/// Time after a LIST during which the node keeps asking the members for their positions.
const LISTED_MS: Ms = Ms(3_000);

/// The change that this node carries out, if any. The first worker takes the operator's command, and asks the other
/// workers to make the change in their groups.
#[derive(Debug, Default)]
pub(in crate::node) struct MemberChanges {
    job: Option<Job>,
    asked_ms: Ms,
    listed_ms: Option<Ms>,
    /// At the first worker: the change that was asked for last, and when it was first.
    begun: Option<(Goal, Ms)>,
    /// The node that the last change adds.
    info: Option<MemberInfo>,
    /// At the first worker: the last reports of the other workers about the change that was asked for last.
    reports: BTreeMap<WorkerId, ChangeReport>,
    /// At another worker: its last report.
    reported: Option<ChangeReport>,
}

/// How a node is a member of some groups.
#[derive(Clone, Copy, Debug)]
pub(in crate::node) struct MemberCount {
    node: NodeId,
    /// Groups of which it is a member, and in which it votes.
    groups: usize,
    votes: usize,
    /// Whether it has left some group.
    left: bool,
    /// Number of instances that it lacks; `None` if that is not known.
    lag: Option<u64>,
}

/// A change that the first worker asks another worker for.
#[derive(Clone, Debug)]
pub(in crate::node) struct ChangeRequest {
    goal: Goal,
    info: Option<MemberInfo>,
}

/// How far a worker has come with a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::node) struct ChangeReport {
    goal: Goal,
    /// Groups in which the change is made, and all groups of the worker.
    done: usize,
    groups: usize,
    waits_for: String,
    /// The reason why the change is impossible.
    error: Option<String>,
}

#[derive(Debug)]
struct Job {
    goal: Goal,
    /// The id, storage id and address of the node to add.
    info: Option<MemberInfo>,
    /// Changes in flight, by the counters of their commands.
    submitted: Vec<(GroupId, Counter)>,
    done: usize,
    waits_for: String,
    active_ms: Ms,
}

/// The change that the operator asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Goal {
    Add(NodeId),
    Promote(NodeId),
    Remove(NodeId),
    Replace(NodeId, NodeId),
    Move(NodeId, String),
}

/// The next step in one group.
enum Step {
    Done,
    Submit(ChangeKind),
    /// Wait, for this reason.
    Wait(String),
}

/// Progress of a change of members (`None`: done), or the reason why it is impossible.
type ChangeProgress<R = String> = Result<Option<R>, String>;

impl MemberChanges {
    /// Executes `PAXOI MEMBER …`; `words` includes these two words. A change answers `OK` if it is done, and otherwise
    /// its progress. The change goes on after the reply. The caller checks that the cluster is born and that all groups
    /// are loaded.
    pub(super) fn command(
        &mut self,
        words: &[&[u8]],
        joining: &Joining,
        cx: &mut ClusterContext<'_>,
    ) -> Reply<'static> {
        if words[2].eq_ignore_ascii_case(b"list") && words.len() == 3 {
            self.listed_ms = Some(cx.time.mono_ms());
            return cx.view().list_members(joining, cx.ports.crew.facts().flat_map(|facts| &facts.members));
        }
        let Some(goal) = Goal::parse(&words[2..]) else {
            return Reply::error(
                "ERR PAXOI MEMBER is followed by LIST, ADD id, PROMOTE id, REMOVE id, REPLACE old new, or MOVE id host:port",
            );
        };
        if let Some(refusal) = cx.ports.refusals(cx.engine).of_full_disk() {
            return refusal;
        }
        let own = self.pursue(&goal, joining, cx);
        match self.with_others(&goal, own, cx) {
            Ok(None) => {
                self.begun = None;
                self.reports.clear();
                Reply::Ok
            }
            Ok(Some(progress)) => Reply::Bulk(progress.into_bytes().into()),
            Err(reason) => Reply::Error(format!("ERR {reason}").into()),
        }
    }

    /// Asks the other workers for the same change, and adds their progress to this worker's.
    fn with_others(
        &mut self,
        goal: &Goal,
        own: ChangeProgress<ChangeReport>,
        cx: &mut ClusterContext<'_>,
    ) -> ChangeProgress {
        let (own, workers) = (own?, cx.config.workers);
        if workers.count() == 1 {
            return Ok(own.map(|report| report.text()));
        }
        self.reports.retain(|_, report| report.goal == *goal);
        let now_ms = cx.time.mono_ms();
        let begun_ms = match &self.begun {
            Some((begun, at_ms)) if begun == goal => *at_ms,
            _ => now_ms,
        };
        self.begun = Some((goal.clone(), begun_ms));
        // The links of the other workers to a new node may be some moments younger than this worker's.
        if let Some(error) = self.reports.values().find_map(|report| report.error.clone())
            && now_ms >= begun_ms + OTHERS_MS
        {
            (self.begun, self.job) = (None, None);
            self.reports.clear();
            return Err(error);
        }
        let request = ChangeRequest { goal: goal.clone(), info: self.info.clone() };
        cx.ports.crew.tell_all(|| Told::Change(request.clone()));
        let are_all_done =
            self.reports.len() + 1 == workers.count() as usize && self.reports.values().all(ChangeReport::is_done);
        if own.is_none() && are_all_done {
            return Ok(None);
        }
        let groups = cx.engine.owned().len();
        let own = own.unwrap_or(ChangeReport::done(goal.clone(), groups));
        let (done, waits_for) = self.reports.values().fold((own.done, own.waits_for), |(done, waits_for), report| {
            let theirs = report.error.as_ref().unwrap_or(&report.waits_for);
            (done + report.done, if waits_for.is_empty() { theirs.clone() } else { waits_for })
        });
        Ok(Some(
            ChangeReport { goal: goal.clone(), done, groups: cx.engine.group_count(), waits_for, error: None }.text(),
        ))
    }

    /// At another worker than the first: makes the members tell their positions, because an operator lists the members.
    pub(super) fn note_listed(&mut self, now_ms: Ms) {
        self.listed_ms = Some(now_ms);
    }

    /// At another worker than the first: begins or goes on with the change that the first worker asks for.
    pub(super) fn handle_request(&mut self, request: ChangeRequest, cx: &mut ClusterContext<'_>) {
        let ChangeRequest { goal, info } = request;
        self.job.take_if(|job| job.goal != goal);
        let active_ms = cx.time.mono_ms();
        let job = self.job.get_or_insert_with(|| Job::new(goal, info, active_ms));
        job.active_ms = active_ms;
        self.reported = None;
        self.advance_and_report(cx);
    }

    /// At the first worker: takes the report of another worker.
    pub(super) fn handle_report(&mut self, from: WorkerId, report: ChangeReport) {
        self.reports.insert(from, report);
    }

    /// Goes on with the change, and tells the first worker if something has changed.
    fn advance_and_report(&mut self, cx: &mut ClusterContext<'_>) {
        let Some(goal) = self.job.as_ref().map(|job| job.goal.clone()) else { return };
        let groups = cx.engine.owned().len();
        let report = match self.advance(cx) {
            Ok(Some(report)) => report,
            Ok(None) => ChangeReport::done(goal, groups),
            Err(error) => ChangeReport { error: Some(error), ..ChangeReport::begun(goal, groups) },
        };
        if self.reported.as_ref() != Some(&report) {
            self.reported = Some(report.clone());
            cx.ports.crew.tell(WorkerId::FIRST, Told::Changed(report));
        }
    }

    /// Begins the change, or goes on with it.
    fn pursue(&mut self, goal: &Goal, joining: &Joining, cx: &mut ClusterContext<'_>) -> ChangeProgress<ChangeReport> {
        match &mut self.job {
            Some(job) if job.goal == *goal => job.active_ms = cx.time.mono_ms(),
            Some(job) => {
                let progress = job.report(cx.engine.owned().len()).text();
                return Err(format!("this node is busy with {}: {progress}", job.goal.words()));
            }
            None => {
                let info = cx.view().info_for(goal, joining)?;
                tracing::info!("changing the members: {}", goal.words());
                self.info.clone_from(&info);
                self.job = Some(Job::new(goal.clone(), info, cx.time.mono_ms()));
            }
        }
        self.advance(cx)
    }

    /// Goes on with a change in the next groups. Also asks the members for their positions while a change or a LIST
    /// needs them.
    pub(in crate::node) fn tick(&mut self, cx: &mut ClusterContext<'_>) {
        let now_ms = cx.time.mono_ms();
        let is_listed = self.listed_ms.is_some_and(|listed| now_ms < listed + LISTED_MS);
        if (is_listed || self.job.is_some()) && now_ms >= self.asked_ms + POSITION_QUERY_MS {
            self.asked_ms = now_ms;
            cx.ports.peers.broadcast(&NodeMessage::PositionQuery);
        }
        if self.job.is_none() {
            return;
        }
        if !cx.config.workers.is_first() {
            self.advance_and_report(cx);
        } else if let Err(reason) = self.advance(cx) {
            tracing::warn!("changing the members: {reason}");
        }
        if self.job.as_ref().is_some_and(|job| now_ms >= job.active_ms + PATIENCE_MS) {
            tracing::warn!(
                "changing the members: gave up, because nothing changes and no client asks any more; repeat the command"
            );
            self.job = None;
        }
    }

    /// Compares every group with the goal, and submits the missing change in a few of them. An error ends the job.
    fn advance(&mut self, cx: &mut ClusterContext<'_>) -> ChangeProgress<ChangeReport> {
        let Some(mut job) = self.job.take() else { return Ok(None) };
        let groups = cx.engine.owned().to_vec();
        job.submitted.retain(|(group, counter)| cx.engine.group(*group).awaits(*counter));
        let (mut done, mut waits_for) = (0, String::new());
        for id in groups.iter().copied() {
            if job.submitted.iter().any(|(group, _)| *group == id) {
                continue;
            }
            let group = cx.engine.group(id);
            match cx.view().step_of(&job, group)? {
                Step::Done => done += 1,
                Step::Wait(reason) => waits_for = reason,
                Step::Submit(kind) if job.submitted.len() < CHANGES_MAX => {
                    let change = MembershipChange { version: group.membership().version(), kind };
                    let counter = cx.engine.submit_unanswered(id, |out| change.encode(out), cx.time);
                    job.submitted.push((id, counter));
                }
                Step::Submit(_) => {}
            }
        }
        if done == groups.len() {
            tracing::info!("changing the members: {} is done", job.goal.words());
            return Ok(None);
        }
        if done > job.done {
            job.active_ms = cx.time.mono_ms();
        }
        (job.done, job.waits_for) = (done, waits_for);
        let report = job.report(groups.len());
        self.job = Some(job);
        Ok(Some(report))
    }
}

impl DecisionView<'_> {
    /// Returns the info of the node that the goal adds: a member of some group, or a node that waits. `None` if it
    /// adds no node.
    fn info_for(&self, goal: &Goal, joining: &Joining) -> Result<Option<MemberInfo>, String> {
        let roster = self.peers.roster();
        let (Goal::Add(node) | Goal::Replace(_, node)) = goal else {
            let known = roster.info(goal.node()).is_some() || roster.has_left(goal.node());
            return if known { Ok(None) } else { Err(format!("node {} is not a member", goal.node())) };
        };
        if let Goal::Replace(old, new) = goal
            && (old == new || (roster.info(*old).is_none() && !roster.has_left(*old)))
        {
            return Err(format!("node {old} is not a member that node {new} could replace"));
        }
        let waiting = joining.waiting().find(|info| info.node == *node);
        if let Some(info) = roster.info(*node).or(waiting) {
            return Ok(Some(info.clone()));
        }
        if roster.has_left(*node) {
            return Err(format!(
                "node {node} was removed, and ids are never used again: start the new node under another one"
            ));
        }
        let own = self.peers.own_address().unwrap_or("HOST:PORT");
        Err(format!(
            "node {node} does not wait here to be added: start it with `paxoi serve --id {node} --data DIR --join {own} \
             --listen HOST:PORT`"
        ))
    }

    /// Returns the next step of a group towards the goal.
    fn step_of(&self, job: &Job, group: &Group) -> Result<Step, String> {
        let members = group.membership();
        let is_member = |node: NodeId| members.everyone().contains(node);
        let votes = |node: NodeId| members.voters().contains(node);
        match &job.goal {
            Goal::Add(node) if is_member(*node) => Ok(Step::Done),
            Goal::Add(_) => Ok(job.add()),
            Goal::Promote(node) if votes(*node) => Ok(Step::Done),
            Goal::Promote(node) if !is_member(*node) => {
                Err(format!("node {node} is not a member of every group: add it first"))
            }
            Goal::Promote(node) => self.promote(*node, group),
            Goal::Remove(node) => self.remove(*node, group),
            Goal::Replace(old, new) if votes(*new) => self.remove(*old, group),
            Goal::Replace(_, new) if is_member(*new) => self.promote(*new, group),
            // The new node was removed while it was replacing the old one: the goal cannot be reached, and the job
            // ends.
            Goal::Replace(old, new) if members.was_removed(*new) => {
                Err(format!("node {new}, which was to replace node {old}, was removed itself"))
            }
            Goal::Replace(..) => Ok(job.add()),
            Goal::Move(node, address) => match members.info(*node) {
                Some(info) if info.address != *address => Ok(Step::Submit(ChangeKind::Move(*node, address.clone()))),
                _ => Ok(Step::Done),
            },
        }
    }

    fn promote(&self, node: NodeId, group: &Group) -> Result<Step, String> {
        let lag = self.lag(node, group);
        if lag.is_none_or(|lag| lag > LAG_MAX) {
            return Ok(Step::Wait(format!("node {node} is catching up")));
        }
        let voters = group.membership().voters().ids().iter().copied().chain([node]);
        self.with_quorum(group.id(), &voters.collect::<Vec<_>>(), ChangeKind::Promote(node))
    }

    fn remove(&self, node: NodeId, group: &Group) -> Result<Step, String> {
        let members = group.membership();
        if members.was_removed(node) {
            return Ok(Step::Done);
        }
        // Removes the id also from a group that it never joined: so it cannot join that group later.
        if !members.voters().contains(node) {
            return Ok(Step::Submit(ChangeKind::Remove(node)));
        }
        let voters: Vec<NodeId> = members.voters().ids().iter().copied().filter(|id| *id != node).collect();
        if voters.is_empty() {
            return Err(format!("node {node} is the last voter: promote another node first"));
        }
        self.with_quorum(group.id(), &voters, ChangeKind::Remove(node))
    }

    /// Returns the change if it keeps a majority: of the voters after the change, more than half are reached and have
    /// loaded the group.
    fn with_quorum(&self, group: GroupId, voters: &[NodeId], kind: ChangeKind) -> Result<Step, String> {
        let has_group = |peer: &&Peer| peer.is_reached(self.time.mono_ms()) && !peer.lacks(group);
        let others: Vec<NodeId> = self.peers.iter().filter(has_group).map(|peer| peer.id()).collect();
        let is_able = |id: &&NodeId| **id == self.me || others.contains(*id);
        let able = voters.iter().filter(is_able).count();
        if able > voters.len() / 2 {
            return Ok(Step::Submit(kind));
        }
        let list: Vec<String> = voters.iter().map(NodeId::to_string).collect();
        Err(format!(
            "that would lose the majority: of the voters after the change (nodes {}), only {able} can be reached and \
             have loaded group {group}",
            list.join(", ")
        ))
    }

    fn is_reached(&self, node: NodeId) -> bool {
        self.peers.iter().any(|peer| peer.id() == node && peer.is_reached(self.time.mono_ms()))
    }

    /// Returns the number of instances of a group that a member lacks; `None` if no recent report is known.
    fn lag(&self, node: NodeId, group: &Group) -> Option<u64> {
        if node == self.me {
            return Some(group.missing());
        }
        let peer = self.peers.get(node)?;
        let next = peer.position(group.id(), POSITIONS_MS_MAX, self.time.mono_ms())?;
        Some((group.next().0 + group.missing()).saturating_sub(next.0))
    }

    /// Returns the counts for each member, in the groups of this worker and those that `others` have counted.
    pub(in crate::node) fn member_counts<'a>(&self, others: impl Iterator<Item = &'a MemberCount>) -> Vec<MemberCount> {
        let mut counts: Vec<MemberCount> =
            self.peers.roster().infos().iter().map(|info| self.member_count(info.node)).collect();
        for other in others {
            match counts.iter_mut().find(|count| count.node == other.node) {
                Some(count) => count.add(other),
                None => counts.push(*other),
            }
        }
        counts
    }

    fn member_count(&self, node: NodeId) -> MemberCount {
        let mut count = MemberCount { node, groups: 0, votes: 0, left: false, lag: Some(0) };
        for group in self.engine.groups() {
            let membership = group.membership();
            count.left |= membership.was_removed(node);
            if membership.everyone().contains(node) {
                count.groups += 1;
                count.votes += usize::from(membership.voters().contains(node));
                count.lag = count.lag.zip(self.lag(node, group)).map(|(sum, lag)| sum + lag);
            }
        }
        count
    }

    /// Returns one entry for each node: id, address, state, number of its groups, number of all groups, instances that
    /// the node lacks (-1: unknown), and whether it is reached.
    fn list_members<'a>(&self, joining: &Joining, others: impl Iterator<Item = &'a MemberCount>) -> Reply<'static> {
        let roster: &Roster = self.peers.roster();
        let total = self.engine.group_count();
        let row = |info: &MemberInfo, state: &'static str, groups: usize, lag: i64, reached: bool| {
            Reply::Array(vec![
                Reply::Int(i64::from(info.node.0)),
                Reply::Bulk(info.address.clone().into_bytes().into()),
                Reply::text(state),
                Reply::Int(groups as i64),
                Reply::Int(total as i64),
                Reply::Int(lag),
                Reply::Int(i64::from(reached)),
            ])
        };
        let counts = self.member_counts(others);
        let member = |info: &MemberInfo| {
            let node = info.node;
            let none = MemberCount { node, groups: 0, votes: 0, left: false, lag: None };
            let count = counts.iter().find(|count| count.node == node).copied().unwrap_or(none);
            let state = match (count.left, count.votes) {
                (true, _) => "removing",
                (false, 0) if count.groups == total => "learner",
                (false, votes) if votes == total => "voter",
                (false, _) => "joining",
            };
            let reached = node == self.me || self.is_reached(node);
            row(info, state, count.groups, count.lag.map_or(-1, |lag| lag as i64), reached)
        };
        let waiting = joining.waiting().filter(|info| roster.info(info.node).is_none());
        let waiting = waiting.map(|info| row(info, "waiting", 0, -1, true));
        Reply::Array(roster.infos().iter().map(member).chain(waiting).collect())
    }
}

impl MemberCount {
    fn add(&mut self, other: &MemberCount) {
        self.groups += other.groups;
        self.votes += other.votes;
        self.left |= other.left;
        self.lag = self.lag.zip(other.lag).map(|(one, other)| one + other);
    }
}

impl Job {
    fn add(&self) -> Step {
        match &self.info {
            Some(info) => Step::Submit(ChangeKind::AddLearner(info.clone())),
            None => Step::Wait("the node to add is not known here".to_owned()),
        }
    }

    fn new(goal: Goal, info: Option<MemberInfo>, active_ms: Ms) -> Job {
        Job { goal, info, submitted: Vec::new(), done: 0, waits_for: String::new(), active_ms }
    }

    fn report(&self, groups: usize) -> ChangeReport {
        let Job { goal, done, waits_for, .. } = self;
        ChangeReport { goal: goal.clone(), done: *done, groups, waits_for: waits_for.clone(), error: None }
    }
}

impl ChangeReport {
    fn begun(goal: Goal, groups: usize) -> ChangeReport {
        ChangeReport { goal, done: 0, groups, waits_for: String::new(), error: None }
    }

    fn done(goal: Goal, groups: usize) -> ChangeReport {
        ChangeReport { done: groups, ..ChangeReport::begun(goal, groups) }
    }

    fn is_done(&self) -> bool {
        self.done == self.groups
    }

    fn text(&self) -> String {
        let because = if self.waits_for.is_empty() { String::new() } else { format!(", {}", self.waits_for) };
        format!("{} of {} group{}{because}", self.done, self.groups, plural(self.groups as u64))
    }
}

impl Goal {
    fn parse(words: &[&[u8]]) -> Option<Goal> {
        let text = |at: usize| words.get(at).and_then(|word| std::str::from_utf8(word).ok());
        let node = |at: usize| text(at)?.parse().ok().filter(|id| *id > 0).map(NodeId);
        let goal = match (text(0)?.to_ascii_lowercase().as_str(), words.len()) {
            ("add", 2) => Goal::Add(node(1)?),
            ("promote", 2) => Goal::Promote(node(1)?),
            ("remove", 2) => Goal::Remove(node(1)?),
            ("replace", 3) => Goal::Replace(node(1)?, node(2)?),
            ("move", 3) => {
                let address = text(2).filter(|address| Endpoint::parse(address).is_some())?;
                Goal::Move(node(1)?, address.to_owned())
            }
            _ => return None,
        };
        Some(goal)
    }

    /// Returns the node that the goal names; for a replacement, the node that leaves.
    fn node(&self) -> NodeId {
        match self {
            Goal::Add(node)
            | Goal::Promote(node)
            | Goal::Remove(node)
            | Goal::Replace(node, _)
            | Goal::Move(node, _) => *node,
        }
    }

    fn words(&self) -> String {
        match self {
            Goal::Add(node) => format!("add {node}"),
            Goal::Promote(node) => format!("promote {node}"),
            Goal::Remove(node) => format!("remove {node}"),
            Goal::Replace(old, new) => format!("replace {old} {new}"),
            Goal::Move(node, address) => format!("move {node} {address}"),
        }
    }
}
