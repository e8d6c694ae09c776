//! The map from slots to nodes, as `CLUSTER SLOTS` and `-MOVED` report it.

use crate::client::{Client, resolve};
use crate::routing::{SLOTS, slot};
use anyhow::{Context, bail};
use net::resp::value::Value;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

/// Time limit for one node's answer to `CLUSTER SLOTS`.
const ANSWER_MAX: Duration = Duration::from_secs(1);
const NOBODY: u16 = u16::MAX;

/// Nodes and the slots that they own. Nodes are numbered in the order of their appearance, and keep their numbers.
#[derive(Clone, Debug)]
pub struct SlotMap {
    nodes: Vec<SocketAddr>,
    owners: Vec<u16>,
}

impl SlotMap {
    /// Creates a map of these nodes, which own no slots yet.
    #[must_use]
    pub fn new(nodes: Vec<SocketAddr>) -> SlotMap {
        SlotMap { nodes, owners: vec![NOBODY; usize::from(SLOTS)] }
    }

    /// Asks one node of a cluster for its map.
    ///
    /// # Errors
    /// If the node does not answer, or not with a list of slots.
    pub fn fetch(address: SocketAddr) -> anyhow::Result<SlotMap> {
        let reply = Client::connect(address, ANSWER_MAX)?.call(&[b"CLUSTER", b"SLOTS"])?;
        match &reply {
            Value::Error(text) => bail!("{text}"),
            reply => SlotMap::parse(reply, address.ip()).context("its CLUSTER SLOTS reply is not a list of slots"),
        }
    }

    /// Returns the nodes so far, by number.
    #[must_use]
    pub fn nodes(&self) -> &[SocketAddr] {
        &self.nodes
    }

    /// Returns the number of the node that owns a key, if any does.
    #[must_use]
    pub fn owner(&self, key: &[u8]) -> Option<usize> {
        match self.owners[usize::from(slot(key))] {
            NOBODY => None,
            node => Some(usize::from(node)),
        }
    }

    /// Returns true if the node owns any slot.
    #[must_use]
    pub fn is_owner(&self, node: usize) -> bool {
        self.owners.iter().any(|&owner| usize::from(owner) == node)
    }

    /// Adopts all owners of a newer map.
    pub fn adopt(&mut self, newer: &SlotMap) {
        let numbers: Vec<u16> = newer.nodes.iter().map(|&address| self.number(address)).collect();
        for (owner, &newer) in self.owners.iter_mut().zip(&newer.owners) {
            *owner = numbers.get(usize::from(newer)).copied().unwrap_or(NOBODY);
        }
    }

    /// Adopts the owner in an error line `MOVED <slot> <address>`. Returns false for any other line.
    pub fn adopt_moved(&mut self, line: &[u8]) -> bool {
        let Ok(line) = std::str::from_utf8(line) else { return false };
        let mut words = line.split_ascii_whitespace();
        let (Some("MOVED"), Some(slot), Some(address)) = (words.next(), words.next(), words.next()) else {
            return false;
        };
        let (Ok(slot), Ok(address)) = (slot.parse::<usize>(), resolve(address)) else { return false };
        if slot >= self.owners.len() {
            return false;
        }
        self.owners[slot] = self.number(address);
        true
    }

    fn number(&mut self, address: SocketAddr) -> u16 {
        let known = self.nodes.iter().position(|&node| node == address);
        let number = known.unwrap_or_else(|| {
            self.nodes.push(address);
            self.nodes.len() - 1
        });
        // A cluster has at most as many nodes as slots, which is less than `NOBODY`. Further nodes count as nobody.
        u16::try_from(number).unwrap_or(NOBODY)
    }

    /// Parses the reply. Each range is: first slot, last slot, then nodes as (host, port, …), the owner first.
    fn parse(reply: &Value, asked: IpAddr) -> Option<SlotMap> {
        let mut map = SlotMap::new(Vec::new());
        for range in reply.as_items()? {
            let [Value::Int(first), Value::Int(last), owner, ..] = range.as_items()? else { return None };
            let [host, Value::Int(port), ..] = owner.as_items()? else { return None };
            let port = u16::try_from(*port).ok()?;
            // A node that does not know its own address sends no host, or `?`. The host is then the one that was asked.
            let address = match host.as_bytes().map(String::from_utf8_lossy).as_deref() {
                None | Some("" | "?") => SocketAddr::new(asked, port),
                Some(host) => match host.parse() {
                    Ok(ip) => SocketAddr::new(ip, port),
                    Err(_) => resolve(&format!("{host}:{port}")).ok()?,
                },
            };
            let number = map.number(address);
            let slots = usize::try_from(*first).ok()?..=usize::try_from(*last).ok()?;
            map.owners.get_mut(slots)?.fill(number);
        }
        Some(map)
    }
}

/// A thread that fetches the map while the load goes on.
#[derive(Debug)]
pub struct Refresher {
    asked: Sender<Vec<SocketAddr>>,
    found: Receiver<Option<SlotMap>>,
    pending: bool,
}

impl Refresher {
    /// Starts the thread. It ends when this is dropped and the pending question, if any, is answered.
    #[must_use]
    pub fn start() -> Refresher {
        let (asked, questions) = channel::<Vec<SocketAddr>>();
        let (answers, found) = channel();
        thread::spawn(move || {
            for nodes in questions {
                let map = nodes.into_iter().find_map(|node| SlotMap::fetch(node).ok());
                if answers.send(map).is_err() {
                    return;
                }
            }
        });
        Refresher { asked, found, pending: false }
    }

    /// Asks these nodes in order; the first answer counts. Does nothing while a question is pending.
    pub fn ask(&mut self, nodes: &[SocketAddr]) {
        if !self.pending {
            self.pending = self.asked.send(nodes.to_vec()).is_ok();
        }
    }

    /// Returns the answer, once.
    pub fn take(&mut self) -> Option<SlotMap> {
        let answer = self.found.try_recv().ok()?;
        self.pending = false;
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use net::resp::value::decode;

    fn map(reply: &str) -> Option<SlotMap> {
        let (value, _) = decode(reply.as_bytes()).unwrap().unwrap();
        SlotMap::parse(&value, "10.0.0.9".parse().unwrap())
    }

    const TWO: &str = "*2\r\n*4\r\n:0\r\n:8191\r\n*3\r\n$9\r\n127.0.0.1\r\n:7001\r\n$1\r\na\r\n*2\r\n$9\r\n127.0.0.1\r\n:7002\r\n\
                       *3\r\n:8192\r\n:16383\r\n*2\r\n$0\r\n\r\n:7002\r\n";

    #[test]
    fn slots_have_owners() {
        let map = map(TWO).unwrap();
        assert_eq!(map.nodes(), ["127.0.0.1:7001".parse().unwrap(), "10.0.0.9:7002".parse().unwrap()]);
        assert_eq!(slot(b"foo"), 12182);
        assert_eq!(map.owner(b"foo"), Some(1));
        assert_eq!(map.owner(b"bar"), Some(0));
    }

    #[test]
    fn moved_and_newer_maps_change_owners_but_no_numbers() {
        let mut map = map(TWO).unwrap();
        assert!(map.adopt_moved(b"MOVED 12182 127.0.0.1:7003"));
        assert_eq!(map.owner(b"foo"), Some(2));
        map.adopt(&SlotMap::parse(&decode(TWO.as_bytes()).unwrap().unwrap().0, "127.0.0.1".parse().unwrap()).unwrap());
        assert_eq!(map.owner(b"foo"), Some(3));
        assert_eq!(map.owner(b"bar"), Some(0));
        assert!(map.is_owner(3) && !map.is_owner(1));
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(map("*1\r\n*3\r\n:0\r\n:16384\r\n*2\r\n$9\r\n127.0.0.1\r\n:1\r\n").is_none());
        assert!(map("*1\r\n*3\r\n:5\r\n:-1\r\n*2\r\n$9\r\n127.0.0.1\r\n:1\r\n").is_none());
        assert!(map("*1\r\n*2\r\n:0\r\n:1\r\n").is_none());
        assert!(map(":1\r\n").is_none());
        let mut map = map(TWO).unwrap();
        for line in ["MOVED 16384 127.0.0.1:1", "MOVED x 127.0.0.1:1", "MOVED 1", "ASK 1 127.0.0.1:1"] {
            assert!(!map.adopt_moved(line.as_bytes()), "{line}");
        }
    }
}
