//! The scenarios of the MIT Paxos lab's public test suite (spring 2015), on a virtual network and clock.
//!
//! The network behaves like the lab's. A message is a request or the answer to a request. Faults hit requests only,
//! since an answer returns on the connection of its request. *Deaf* peers get no requests. *Unreliable* peers lose a
//! tenth of the requests, and serve a fifth of the rest without answering. Unlike in the lab, messages take 1 to 5 ms
//! and so overtake each other.

use groups::paxos::{Message, Step};
use groups::{Fate, Members, Ms, NodeId, Paxos, SplitMix64};
use std::collections::BTreeMap;

const TICK_MS: Ms = Ms(10);
/// Time limit of a wait, in milliseconds: that of the lab's `waitn`.
const WAIT_MS: Ms = Ms(30_710);

enum Event {
    Tick,
    Message { from: usize, to: usize, message: Message, is_answerable: bool },
}

struct Lab {
    now: Ms,
    events: BTreeMap<(Ms, u64), Event>,
    count: u64,
    jitter: SplitMix64,
    /// The peers; `None` until a peer is created.
    peers: Vec<Option<Paxos>>,
    /// The part of a partitioned network that each peer is in.
    parts: Vec<usize>,
    deaf: Vec<bool>,
    unreliable: Vec<bool>,
    requests: u64,
}

impl Lab {
    fn new(count: usize) -> Lab {
        let mut lab = Lab {
            now: Ms(0),
            events: BTreeMap::new(),
            count: 0,
            jitter: SplitMix64::new(count as u64),
            peers: (0..count).map(|_| None).collect(),
            parts: vec![0; count],
            deaf: vec![false; count],
            unreliable: vec![false; count],
            requests: 0,
        };
        (0..count).for_each(|peer| lab.make(peer));
        lab.at(TICK_MS, Event::Tick);
        lab
    }

    fn make(&mut self, peer: usize) {
        let members = Members::new((1..=self.peers.len() as u32).map(NodeId).collect());
        self.peers[peer] = Some(Paxos::new(NodeId(peer as u32 + 1), members, 11));
    }

    fn peer(&mut self, peer: usize) -> &mut Paxos {
        self.peers[peer].as_mut().expect("it was made")
    }

    fn start(&mut self, peer: usize, seq: u64, value: &str) {
        self.peer(peer).start(seq, value.as_bytes());
        self.send(peer, true);
    }

    fn start_all(&mut self, seq: u64, value: impl Fn(usize) -> String) {
        (0..self.peers.len()).for_each(|peer| self.start(peer, seq, &value(peer)));
    }

    fn done_all(&mut self, seq: u64) {
        (0..self.peers.len()).for_each(|peer| self.peer(peer).done(seq));
    }

    fn unreliable(&mut self, unreliable: bool) {
        self.unreliable.fill(unreliable);
    }

    /// Partitions the network: only peers of the same part reach each other.
    fn part(&mut self, parts: &[&[usize]]) {
        for (part, peers) in parts.iter().enumerate() {
            peers.iter().for_each(|peer| self.parts[*peer] = part);
        }
    }

    fn at(&mut self, delay_ms: Ms, event: Event) {
        self.count += 1;
        self.events.insert((self.now + delay_ms, self.count), event);
    }

    /// Sends the outgoing messages of `from`. Drops answers if not `is_answerable`, as if the connection of their
    /// request was lost.
    fn send(&mut self, from: usize, is_answerable: bool) {
        while let Some((to, message)) = self.peer(from).next_outgoing() {
            let to = to.0 as usize - 1;
            let is_reachable = self.peers[to].is_some() && self.parts[from] == self.parts[to];
            if is_request(&message) && !is_reachable || !is_request(&message) && !is_answerable {
                continue;
            }
            let delay = Ms(1 + self.jitter.below(5));
            self.at(delay, Event::Message { from, to, message, is_answerable: true });
        }
    }

    fn step(&mut self) {
        let ((now, _), event) = self.events.pop_first().expect("ticks go on");
        self.now = now;
        let Event::Message { from, to, message, mut is_answerable } = event else {
            for peer in 0..self.peers.len() {
                if let Some(paxos) = &mut self.peers[peer] {
                    paxos.tick(now);
                    self.send(peer, true);
                }
            }
            return self.at(TICK_MS, Event::Tick);
        };
        if is_request(&message) {
            if self.deaf[to] || self.unreliable[to] && self.jitter.below(1_000) < 100 {
                return;
            }
            is_answerable = !self.unreliable[to] || self.jitter.below(1_000) >= 200;
            self.requests += 1;
        }
        self.peer(to).handle(NodeId(from as u32 + 1), message);
        self.send(to, is_answerable);
    }

    fn run(&mut self, ms: Ms) {
        let end = self.now + ms;
        while self.events.first_key_value().is_some_and(|((at, _), _)| *at <= end) {
            self.step();
        }
        self.now = end;
    }

    /// Returns the number of peers that know the decision. Panics if they know different decisions.
    fn decided(&self, seq: u64) -> usize {
        let fates = self.peers.iter().flatten().map(|peer| peer.status(seq));
        let decided: Vec<Fate> = fates.filter(|fate| matches!(fate, Fate::Decided(_))).collect();
        assert!(decided.windows(2).all(|two| two[0] == two[1]), "peers differ on {seq}: {decided:?}");
        decided.len()
    }

    #[track_caller]
    fn wait(&mut self, seq: u64, count: usize) {
        let end = self.now + WAIT_MS;
        while self.decided(seq) < count {
            assert!(self.now < end, "only {} peers, not {count}, know {seq}", self.decided(seq));
            self.step();
        }
    }

    #[track_caller]
    fn wait_majority(&mut self, seq: u64) {
        self.wait(seq, self.peers.len() / 2 + 1);
    }

    fn fate(&self, peer: usize, seq: u64) -> Fate {
        self.peers[peer].as_ref().map_or(Fate::Pending, |peer| peer.status(seq))
    }

    fn min(&self) -> Vec<u64> {
        self.peers.iter().flatten().map(Paxos::min).collect()
    }

    fn is_known_to_all(&self, seq: u64) -> bool {
        self.decided(seq) == self.peers.len()
    }
}

fn is_request(message: &Message) -> bool {
    matches!(message.step, Step::Prepare(_) | Step::Accept(_) | Step::Decided(_))
}

fn decided(value: &str) -> Fate {
    Fate::Decided(value.to_owned().into())
}

#[test]
fn one_proposer_or_many_in_any_order() {
    let mut lab = Lab::new(3);
    lab.start(0, 0, "hello");
    lab.wait(0, 3);
    lab.start_all(1, |_| "77".into());
    lab.wait(1, 3);
    assert_eq!(lab.fate(2, 1), decided("77"));
    lab.start_all(2, |peer| (100 + peer).to_string());
    lab.wait(2, 3);
    for (peer, seq) in [(0, 7), (0, 6), (1, 5)] {
        lab.start(peer, seq, &format!("{seq}00"));
    }
    lab.wait(7, 3);
    lab.start(0, 4, "400");
    lab.start(1, 3, "300");
    (3..=6).rev().for_each(|seq| lab.wait(seq, 3));
    assert_eq!(lab.peer(0).max(), Some(7));
}

#[test]
fn a_deaf_peer_learns_only_by_its_own_proposals() {
    let mut lab = Lab::new(5);
    lab.start(0, 0, "hello");
    lab.wait(0, 5);
    (lab.deaf[0], lab.deaf[4]) = (true, true);
    lab.start(1, 1, "goodbye");
    lab.wait_majority(1);
    lab.run(Ms(1_000));
    assert_eq!(lab.decided(1), 3);
    lab.start(0, 1, "xxx");
    lab.wait(1, 4);
    lab.run(Ms(1_000));
    assert_eq!(lab.decided(1), 4);
    lab.start(4, 1, "yyy");
    lab.wait(1, 5);
    assert_eq!(lab.fate(4, 1), decided("goodbye"));
}

#[test]
fn only_what_all_are_done_with_is_forgotten() {
    let mut lab = Lab::new(6);
    assert_eq!(lab.min(), [0; 6]);
    for (peer, seq) in [(0, 0), (1, 1), (2, 2), (0, 6), (1, 7)] {
        lab.start(peer, seq, "x");
    }
    lab.wait(0, 6);
    lab.wait(1, 6);
    assert_eq!(lab.min(), [0; 6]);
    lab.done_all(0);
    (1..6).for_each(|peer| lab.peer(peer).done(1));
    (0..6).for_each(|peer| lab.start(peer, 8 + peer as u64, "xx"));
    lab.run(Ms(12_000));
    assert_eq!(lab.min(), [1; 6]);
}

#[test]
fn done_may_run_ahead_of_decisions() {
    let mut lab = Lab::new(3);
    lab.unreliable(true);
    let mut seqs: Vec<u64> = (0..20).collect();
    seqs.sort_by_key(|_| lab.jitter.below(1_000));
    for seq in seqs {
        let (peer, value) = (lab.jitter.below(3) as usize, lab.jitter.below(1_000_000));
        lab.start(peer, seq, &value.to_string());
        for _ in 0..50 {
            lab.run(Ms(5));
            let (seq, peer) = (lab.jitter.below(20), lab.jitter.below(3) as usize);
            if matches!(lab.fate(peer, seq), Fate::Decided(_)) {
                lab.peer(peer).done(seq);
            }
        }
    }
    lab.unreliable(false);
    lab.run(Ms(2_000));
    (0..20).for_each(|seq| {
        lab.decided(seq);
    });
}

#[test]
fn forgetting_frees_memory_and_is_for_ever() {
    let mut lab = Lab::new(3);
    lab.start(0, 0, "x");
    lab.wait(0, 3);
    let large = "r".repeat(1_000_000);
    for seq in 1..=10 {
        lab.start(0, seq, &large);
        lab.wait(seq, 3);
    }
    let bytes = |lab: &Lab| lab.peers.iter().flatten().map(Paxos::value_bytes).sum::<usize>();
    assert!(bytes(&lab) >= 30_000_000);
    lab.done_all(10);
    (0..3).for_each(|peer| lab.start(peer, 11 + peer as u64, "z"));
    lab.run(Ms(3_000));
    assert_eq!(lab.min(), [11; 3]);
    assert!(bytes(&lab) < 1_000, "{} bytes are remembered", bytes(&lab));
    for seq in 0..3 {
        lab.start_all(seq, |_| "again".into());
        lab.run(Ms(1_000));
        (0..3).for_each(|peer| assert_eq!(lab.fate(peer, seq), Fate::Forgotten));
    }
}

#[test]
fn forgetting_does_not_lower_the_maximum() {
    let mut lab = Lab::new(3);
    for seq in 0..=10 {
        lab.start(0, seq, "x");
        lab.wait(seq, 3);
    }
    lab.done_all(10);
    lab.start_all(10, |_| "z".into());
    lab.run(Ms(2_000));
    (0..3).for_each(|peer| assert_eq!(lab.peer(peer).max(), Some(10)));
}

#[test]
fn agreement_takes_few_requests() {
    let mut lab = Lab::new(3);
    for seq in 0..5 {
        lab.start(0, seq, "x");
        lab.wait(seq, 3);
    }
    lab.run(Ms(2_000));
    assert_eq!(lab.requests, 5 * 6, "prepare, accept and decided, to two others");
    lab.requests = 0;
    for seq in 5..10 {
        lab.start_all(seq, |peer| peer.to_string());
        lab.wait(seq, 3);
    }
    lab.run(Ms(2_000));
    assert!(lab.requests <= 5 * 3 * 15, "{} requests for five contested agreements", lab.requests);
}

/// Starts 50 agreements at every peer, each only after all peers know the decision `window` agreements earlier.
fn many(is_unreliable: bool, window: u64) {
    let mut lab = Lab::new(3);
    lab.unreliable(is_unreliable);
    lab.start_all(0, |_| "0".into());
    for seq in 1..50 {
        if seq >= window {
            lab.wait(seq - window, 3);
        }
        lab.start_all(seq, |peer| (seq as usize * 10 + peer).to_string());
    }
    (1..50).for_each(|seq| lab.wait(seq, 3));
}

#[test]
fn many_agreements() {
    many(false, 5);
}

#[test]
fn many_agreements_on_an_unreliable_network() {
    many(true, 3);
}

#[test]
fn a_late_peer_adopts_what_was_decided() {
    let mut lab = Lab::new(5);
    (lab.peers[0], lab.peers[4]) = (None, None);
    lab.start(1, 1, "111");
    lab.wait_majority(1);
    lab.make(0);
    lab.start(0, 1, "222");
    lab.wait(1, 4);
    assert_eq!(lab.fate(0, 1), decided("111"));
}

#[test]
fn partitions() {
    let mut lab = Lab::new(5);
    lab.part(&[&[0, 2], &[1, 3], &[4]]);
    lab.start(1, 0, "111");
    lab.run(Ms(3_000));
    assert_eq!(lab.decided(0), 0, "no part has a majority");
    lab.part(&[&[0], &[1, 2, 3], &[4]]);
    lab.wait_majority(0);
    lab.start(0, 0, "1000");
    lab.start(4, 0, "1004");
    lab.run(Ms(1_000));
    assert_eq!(lab.decided(0), 3);
    lab.part(&[&[0, 1, 2, 3, 4]]);
    lab.wait(0, 5);
    assert_eq!(lab.fate(4, 0), decided("111"));
}

#[test]
fn one_peer_changes_sides() {
    let mut lab = Lab::new(5);
    for seq in 1..=20 {
        lab.part(&[&[0, 1, 2], &[3, 4]]);
        lab.start(0, seq, &(seq * 10).to_string());
        lab.start(3, seq, &(seq * 10 + 1).to_string());
        lab.wait_majority(seq);
        assert!(lab.decided(seq) <= 3);
        lab.part(&[&[0, 1], &[2, 3, 4]]);
        lab.wait(seq, 5);
    }
    for seq in 21..=40 {
        lab.unreliable(true);
        lab.part(&[&[0, 1, 2], &[3, 4]]);
        lab.start_all(seq, |peer| (seq as usize * 10 + peer).to_string());
        lab.wait(seq, 3);
        assert!(lab.decided(seq) <= 3);
        lab.part(&[&[0, 1], &[2, 3, 4]]);
        lab.unreliable(false);
        lab.wait(seq, 5);
    }
}

#[test]
fn many_requests_through_changing_partitions() {
    let mut lab = Lab::new(5);
    lab.unreliable(true);
    let (mut part_at, mut start_at, mut next) = (Ms(0), Ms(0), 0);
    while lab.now < Ms(20_000) {
        lab.run(Ms(10));
        if lab.now >= part_at {
            part_at = lab.now + lab.jitter.below_ms(Ms(200));
            (0..5).for_each(|peer| lab.parts[peer] = lab.jitter.below(3) as usize);
        }
        if lab.now >= start_at {
            start_at = lab.now + lab.jitter.below_ms(Ms(300));
            let open = (0..next).filter(|seq| !lab.is_known_to_all(*seq)).count();
            if open < 10 {
                let value = lab.jitter.below(10);
                lab.start_all(next, |peer| (value * 10 + peer as u64).to_string());
                next += 1;
            }
        }
    }
    lab.unreliable(false);
    lab.part(&[&[0, 1, 2, 3, 4]]);
    lab.run(Ms(5_000));
    (0..next).for_each(|seq| lab.wait_majority(seq));
    assert!(next > 20, "only {next} agreements were begun");
}
