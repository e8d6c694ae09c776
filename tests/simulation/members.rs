//! The operator, who changes the members while everything else breaks: nodes join, become voters, replace others (some
//! of which have lost their disks), and leave. Each change is requested, from one node or another, until it is done.

use crate::process::Lost;
use crate::shell::End;
use crate::world::{Event, World};
use groups::{Membership, NodeId};
use paxoi::kv::reply::Reply;

/// The operator of a run: the current request, and what was done so far.
#[derive(Default)]
pub(crate) struct Operator {
    /// The requested change: the words after `PAXOI MEMBER`.
    wanted: Option<Vec<String>>,
    pub(crate) done: u64,
    /// The voter that was switched off for good, and the time.
    off: Option<(usize, u64)>,
    /// A change was given up. A node may still carry it out.
    gave_up: bool,
    /// From this time on the operator asks for no new change.
    pub(crate) rests_us: Option<u64>,
    /// The nodes that were healed at the end of the faults. Clients ask no others.
    healed: Option<Vec<usize>>,
}

/// Minimum number of voters. With fewer, one temporary fault would stop the whole cluster.
const VOTERS_MIN: usize = 3;
const VOTERS_MAX: usize = 5;
/// After this time no node counts the switched-off one as reachable.
const OFF_US: u64 = 3_000_000;

impl World {
    /// Lets the operator act once, and schedules the next time.
    pub(crate) fn operate(&mut self) {
        if !self.faults.on {
            return;
        }
        let us = self.random.between(50_000, 700_000);
        self.after(us, Event::Operate);
        let spare = (self.shape.nodes..self.processes.len()).find(|node| self.processes[*node].starts == 0);
        if let Some(spare) = spare
            && self.random.chance(300)
        {
            self.start(spare);
        }
        if self.random.chance(20) {
            self.switch_off();
        }
        self.follow_members();
        let rests = self.operator.rests_us.is_some_and(|since_us| self.now_us >= since_us);
        if self.operator.wanted.is_none() && !rests {
            self.operator.wanted = self.wish();
        }
        let Some(wanted) = self.operator.wanted.clone() else { return };
        let leaves = |node: usize| wanted.get(1).is_some_and(|id| *id == (node + 1).to_string()) && wanted[0] != "ADD";
        let asked: Vec<usize> = self.load.nodes.iter().copied().filter(|node| !leaves(*node)).collect();
        let Some(node) = self.random.pick(&asked).copied() else { return };
        let time = self.processes[node].clocks.at(self.now_us);
        let Some(life) = self.processes[node].life.as_mut().filter(|life| !life.stopped) else { return };
        let words: Vec<&[u8]> =
            [&b"PAXOI"[..], b"MEMBER"].into_iter().chain(wanted.iter().map(|word| word.as_bytes())).collect();
        let reply = life.workers[0].node.member_command(&words, time);
        self.trace.line(|| format!("n{} is asked to {}: {reply:?}", node + 1, wanted.join(" ")));
        match reply {
            Reply::Ok => {
                self.expect_made(node, &wanted);
                self.operator.wanted = None;
                self.operator.done += 1;
            }
            // A change that some groups have made and others have not is finished first.
            Reply::Error(_) if self.are_members_settled() && self.random.chance(300) => {
                self.operator.wanted = None;
                self.operator.gave_up |= !self.must_be_refused(&wanted);
            }
            _ => {}
        }
    }

    /// Restricts the clients to members of every group. This is repeated after the operator's last request, because a
    /// change may complete later.
    pub(crate) fn follow_members(&mut self) {
        if self.shape.spares > 0 {
            self.load.nodes = self.members_everywhere();
            if let Some(healed) = &self.operator.healed {
                self.load.nodes.retain(|node| healed.contains(node));
            }
        }
    }

    /// Nodes to heal: a subset of `order`, mostly minimal, with a majority of every group. It never contains the
    /// switched-off node, because no change of members may make that node necessary.
    pub(crate) fn few_that_decide(&mut self, order: &[usize]) -> Vec<usize> {
        let belongs = |node: &&usize| {
            !self.is_off(**node) && self.memberships().any(|members| members.everyone().contains(id(**node)))
        };
        let mut few: Vec<usize> = order.iter().filter(belongs).copied().collect();
        for node in few.clone() {
            let rest: Vec<usize> = few.iter().copied().filter(|other| *other != node).collect();
            if self.can_decide(&rest) && self.random.chance(800) {
                few = rest;
            }
        }
        few
    }

    /// Restricts the clients to these nodes.
    pub(crate) fn ask_only(&mut self, nodes: &[usize]) {
        self.operator.healed = Some(nodes.to_vec());
    }

    fn can_decide(&self, nodes: &[usize]) -> bool {
        let is_majority = |members: &Membership| {
            nodes.iter().filter(|node| members.voters().contains(id(**node))).count() >= members.voters().quorum()
        };
        let mut groups = 0..self.shape.groups as usize;
        groups.all(|group| self.oracle.deciding(group).all(is_majority))
            && self.members_everywhere().iter().any(|node| nodes.contains(node))
    }

    pub(crate) fn is_off(&self, node: usize) -> bool {
        self.operator.off.is_some_and(|(off, _)| off == node)
    }

    /// Switches a voter off for good, when no change of members is in progress.
    fn switch_off(&mut self) {
        let settled = self.operator.wanted.is_none() && self.are_members_settled() && self.is_founded();
        let voters = self.voters();
        let lost = voters.iter().any(|node| self.processes[*node].lost.is_some());
        if self.operator.off.is_some() || self.operator.gave_up || !settled || lost || voters.len() < VOTERS_MIN {
            return;
        }
        let Some(node) = self.random.pick(&voters).copied() else { return };
        self.trace.line(|| format!("n{} is switched off", node + 1));
        self.operator.off = Some((node, self.now_us));
        self.end(node, End::PowerLoss);
    }

    /// Returns true if `words` remove one of three voters while another one is switched off. Only one of the remaining
    /// two voters would be reachable, so nodes must refuse the change.
    fn must_be_refused(&self, words: &[String]) -> bool {
        let Some((off, since_us)) = self.operator.off else { return false };
        let voters = self.voters();
        words[0] == "REMOVE"
            && voters.len() == VOTERS_MIN
            && voters.contains(&off)
            && self.now_us > since_us + OFF_US
            && voters.iter().any(|node| *node != off && words[1] == id(*node).to_string())
    }

    /// Returns true if no change of members is in progress, and none can be carried out later.
    pub(crate) fn are_members_at_rest(&self) -> bool {
        let is_over = self.operator.wanted.is_none() && !self.operator.gave_up;
        is_over && self.are_members_settled() && self.is_founded()
    }

    /// Returns the nodes that vote in the first group.
    fn voters(&self) -> Vec<usize> {
        self.oracle.members(0).voters().ids().iter().map(|id| id.0 as usize - 1).collect()
    }

    /// Returns true if the first members were born and the present members of every group are certain.
    pub(crate) fn is_founded(&self) -> bool {
        let born = self.processes[..self.shape.nodes].iter().all(|p| p.gone.is_some() || p.is_born());
        born && (0..self.shape.groups as usize).all(|group| self.oracle.are_members_lasting(group))
    }

    /// Returns the nodes that are members of every group, without those that are lost or gone.
    fn members_everywhere(&self) -> Vec<usize> {
        let all =
            |node: &usize| self.memberships().all(|members| members.everyone().contains(NodeId(*node as u32 + 1)));
        let stays = |node: &usize| self.processes[*node].lost.is_none() && self.processes[*node].gone.is_none();
        (0..self.processes.len()).filter(all).filter(stays).collect()
    }

    fn memberships(&self) -> impl Iterator<Item = &Membership> {
        (0..self.shape.groups as usize).map(|group| self.oracle.members(group))
    }

    fn are_members_settled(&self) -> bool {
        let first = self.oracle.members(0);
        self.memberships().all(|members| members.voters() == first.voters() && members.everyone() == first.everyone())
    }

    /// Returns true if the node was removed from every group.
    pub(crate) fn was_removed(&self, node: usize) -> bool {
        let id = NodeId(node as u32 + 1);
        self.memberships().all(|members| members.was_removed(id))
    }

    /// Checks that all groups have made a change that a node calls done.
    fn expect_made(&mut self, node: usize, wanted: &[String]) {
        let id = |at: usize| wanted.get(at).and_then(|word| word.parse().ok()).map_or(NodeId(0), NodeId);
        for group in 0..self.shape.groups as usize {
            let members = self.oracle.members(group);
            let is_made = match wanted[0].as_str() {
                "ADD" => members.everyone().contains(id(1)),
                "PROMOTE" => members.voters().contains(id(1)),
                "REMOVE" => !members.everyone().contains(id(1)),
                "REPLACE" => !members.everyone().contains(id(1)) && members.voters().contains(id(2)),
                _ => true,
            };
            if !is_made {
                let (node, change) = (node + 1, wanted.join(" "));
                self.oracle.fail(&format!("node {node} calls {change} done, but group {group} has {members:?}"));
            }
        }
    }

    /// Draws the next change that the operator requests, if one is possible.
    fn wish(&mut self) -> Option<Vec<String>> {
        if !self.are_members_settled() {
            return None;
        }
        let members = self.oracle.members(0);
        let voters: Vec<u32> = members.voters().ids().iter().map(|id| id.0).collect();
        let learners: Vec<u32> =
            members.everyone().ids().iter().filter(|id| !members.voters().contains(**id)).map(|id| id.0).collect();
        let waits = |node: &usize| self.processes[*node].life.as_ref().is_some_and(|life| !life.is_born());
        let waiting: Vec<u32> =
            (self.shape.nodes..self.processes.len()).filter(waits).map(|node| node as u32 + 1).collect();
        let old = self.random.pick(&voters).copied()?;
        let new = self.random.pick(&waiting).or(self.random.pick(&learners)).copied();
        let lost = voters.iter().copied().find(|id| self.processes[*id as usize - 1].lost.is_some());
        let words = |words: &[&str], ids: &[u32]| {
            Some(words.iter().map(|word| (*word).to_owned()).chain(ids.iter().map(u32::to_string)).collect())
        };
        if let (Some(lost), Some(new)) = (lost, new) {
            return words(&["REPLACE"], &[lost, new]);
        }
        if lost.is_some() {
            return None;
        }
        let learner = self.random.pick(&learners).copied();
        if let Some(refused) = words(&["REMOVE"], &[old]).filter(|words| self.must_be_refused(words))
            && self.random.chance(500)
        {
            return Some(refused);
        }
        match (self.random.below(6), new, learner) {
            (0, Some(new), _) if waiting.contains(&new) => words(&["ADD"], &[new]),
            (1, _, Some(learner)) if voters.len() < VOTERS_MAX => words(&["PROMOTE"], &[learner]),
            (2, _, Some(learner)) => words(&["REMOVE"], &[learner]),
            (3, _, _) if voters.len() > VOTERS_MIN => words(&["REMOVE"], &[old]),
            // With only two voters, no disk may be lost. Two changes that contradict each other can leave only two.
            (4, Some(new), _) if voters.len() >= VOTERS_MIN && self.lose_disk(old) => words(&["REPLACE"], &[old, new]),
            (_, Some(new), _) => words(&["REPLACE"], &[old, new]),
            _ => None,
        }
    }

    /// Destroys the disk of a running node, but only if the members are certain and no voter is switched off, so that a
    /// majority is left. Returns true if the disk was destroyed.
    fn lose_disk(&mut self, id: u32) -> bool {
        let node = id as usize - 1;
        if !self.is_founded() || self.operator.off.is_some() || self.processes[node].life.is_none() {
            return false;
        }
        self.trace.line(|| format!("n{id} loses its disk"));
        self.end(node, End::Kill);
        self.processes[node].disk = paxoi::storage::disk::MemoryDisk::new();
        self.processes[node].lost = Some(Lost::Foreign);
        self.oracle.on_foreign(node);
        true
    }
}

fn id(node: usize) -> NodeId {
    NodeId(node as u32 + 1)
}
