//! The members' addresses for clients: the address that a member announces, otherwise the address where the other
//! members reach it. The shell looks names up at intervals. So clients that want a numeric address get one, and a
//! member that moved is dialled at its new address.

use super::Time;
use super::admin::id40;
use super::peers::{Peer, Peers};
use crate::admin::cluster::NodeView;
use crate::endpoint::Endpoint;
use groups::{Ms, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Interval at which all names are checked.
const CHECK_MS: Ms = Ms(500);
/// Interval at which a name is looked up again.
const LOOK_UP_MS: Ms = Ms(10_000);

/// State of the names in the addresses of the nodes: at most two for each node, its address and its announced one.
#[derive(Default)]
pub(super) struct Names {
    /// By `HOST:PORT`.
    known: BTreeMap<String, Name>,
    checked_ms: Option<Ms>,
}

#[derive(Default)]
struct Name {
    ip: Option<IpAddr>,
    asked_ms: Option<Ms>,
}

impl Names {
    /// Keeps only these names, and returns those to look up now.
    fn check(&mut self, names: BTreeSet<String>, now_ms: Ms) -> Vec<String> {
        let mut before = std::mem::take(&mut self.known);
        let mut due = Vec::new();
        for name in names {
            let mut known = before.remove(&name).unwrap_or_default();
            if known.asked_ms.is_none_or(|asked_ms| now_ms >= asked_ms + LOOK_UP_MS) {
                known.asked_ms = Some(now_ms);
                due.push(name.clone());
            }
            self.known.insert(name, known);
        }
        due
    }

    fn ip(&self, name: &str) -> Option<IpAddr> {
        self.known.get(name)?.ip
    }

    /// Notes the IP address of a name.
    pub(super) fn on_resolved(&mut self, name: &str, ip: IpAddr) {
        if let Some(known) = self.known.get_mut(name) {
            known.ip = Some(ip);
        }
    }

    /// Returns the names to look up now: those that clients are told, and those by which members are dialled.
    /// `announced`: this node's address for clients, if that is not its own address.
    pub(super) fn tick(&mut self, announced: Option<&str>, peers: &Peers, time: Time) -> Vec<String> {
        let now_ms = time.mono_ms();
        if self.checked_ms.is_some_and(|checked_ms| now_ms < checked_ms + CHECK_MS) {
            return Vec::new();
        }
        self.checked_ms = Some(now_ms);
        let dialled = peers.iter().map(|peer| peer.address());
        let others = peers.iter().filter_map(Peer::announced);
        let all = announced.or(peers.own_address()).into_iter().chain(dialled).chain(others);
        let is_name = |address: &&str| Endpoint::parse(address).is_some_and(|endpoint| endpoint.ip().is_none());
        let names = all.filter(is_name).map(str::to_owned).collect();
        self.check(names, now_ms)
    }

    /// Returns all members, including this node, as cluster clients see them. Guests have no address, and are left out.
    pub(super) fn views(&self, me: NodeId, announced: Option<&str>, peers: &Peers, time: Time) -> Vec<NodeView> {
        let shown = |peer: &Peer| peer.announced().unwrap_or_else(|| peer.address()).to_owned();
        let own = announced.or(peers.own_address()).map(|address| (me, address.to_owned(), true)).into_iter();
        let others = peers.iter().filter(|peer| !peer.address().is_empty());
        let others = others.map(|peer| (peer.id(), shown(peer), peer.is_reached(time.mono_ms())));
        let view = |(node, address, connected): (NodeId, String, bool)| {
            let storage = peers.roster().info(node).map_or([node.0 as u8; 16], |info| info.storage);
            let (endpoint, resolved) = (Endpoint::parse(&address), self.ip(&address));
            NodeView { node, id40: id40(node, &storage), endpoint, resolved, connected }
        };
        let mut views: Vec<NodeView> = own.chain(others).map(view).collect();
        views.sort_by_key(|view| view.node);
        views
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(names: &mut Names, all: &[&str], now_ms: Ms) -> Vec<String> {
        names.check(all.iter().map(|name| (*name).to_owned()).collect(), now_ms)
    }

    #[test]
    fn names_are_looked_up_again_and_kept_while_they_are_members_names() {
        let mut names = Names::default();
        assert_eq!(asked(&mut names, &["a:1", "b:1", "a:1"], Ms(5)), ["a:1", "b:1"]);
        names.known.get_mut("a:1").unwrap().ip = Some(IpAddr::from([10, 0, 0, 1]));
        assert_eq!(asked(&mut names, &["a:1", "c:1"], Ms(4) + LOOK_UP_MS), ["c:1"]);
        assert_eq!(asked(&mut names, &["a:1", "c:1"], Ms(5) + LOOK_UP_MS), ["a:1"]);
        assert_eq!((names.ip("a:1"), names.ip("c:1")), (Some(IpAddr::from([10, 0, 0, 1])), None));
        assert_eq!(names.known.len(), 2);
    }
}
