//! A cluster of one node, without sockets and threads. It is run turn by turn, and the CPU time of each turn is
//! measured.

use bytes::BytesMut;
use groups::{Ms, NodeId, Us};
use net::event::ConnectionId;
use net::outbound::Outbound;
use net::resp::value::Scan;
use paxoi::config::{CheckpointConfig, NodeConfig, ReadMode, TURN_STEPS};
use paxoi::identity::{BirthRecord, Identity, Member};
use paxoi::node::{Completion, Node, Output, Time};
use paxoi::storage::wal::Lsn;
use paxoi::versions::Versions;
use paxoi::workers::Workers;
use rustix::time::{ClockId, clock_gettime};
use std::net::SocketAddr;
use std::time::Duration;

/// Maximum bytes of a value: the default of a node.
pub(crate) const VALUE_BYTES_MAX: usize = 64 << 20;
/// Maximum bytes that the event loop reads from a connection at a time.
const READ_BYTES: usize = 256 << 10;
const CLIENT: u64 = 1;
/// Maximum turns of one wait: more than any request takes.
const TURNS_MAX: usize = 200_000;

pub(crate) struct Single {
    node: Node,
    time: Time,
    syncing: Option<Lsn>,
    input: BytesMut,
    is_paused: bool,
    reply: Vec<u8>,
    /// The longest turn and the number of turns since the last [`Single::ask`] began.
    pub(crate) longest: Duration,
    pub(crate) turns: usize,
}

impl Single {
    pub(crate) fn new(groups: u32, reads: ReadMode) -> Single {
        let listen = SocketAddr::from(([127, 0, 0, 1], 7_001));
        let member = Member { node: NodeId(1), storage_id: [1; 16], address: listen.to_string() };
        let birth = BirthRecord {
            cluster_id: [9; 16],
            groups,
            hash_key: [7; 16],
            session_ttl_ms: Ms(3_600_000),
            value_bytes_max: VALUE_BYTES_MAX as u64,
            members: vec![member],
            born_ms: Ms(0),
        };
        let config = NodeConfig {
            id: NodeId(1),
            workers: Workers::ONE,
            initial: vec![(NodeId(1), listen.to_string())],
            announced: None,
            join: Vec::new(),
            groups,
            reads,
            demand_min: Some(1),
            client_timeout_ms: Ms(3_600_000),
            idle_ms_max: Ms(0),
            session_ttl_ms: Ms(3_600_000),
            max_clients: 100,
            memory_bytes_max: 0,
            value_bytes_max: VALUE_BYTES_MAX,
            checkpoints: CheckpointConfig::default(),
            turn_steps: TURN_STEPS,
            versions: Versions::OURS,
            fragment_bytes: paxoi::config::FRAGMENT_BYTES,
            part_bytes: paxoi::config::UPLOAD_PART_BYTES,
            dir: String::new(),
            config_file: String::new(),
            listen,
            cluster_id: [9; 16],
            hash_key: [7; 16],
            seed: 1,
        };
        let identity = Identity {
            storage_id: [1; 16],
            node: NodeId(1),
            start: 1,
            incarnations: vec![1],
            birth: Some(birth),
            joined: Vec::new(),
        };
        let time = Time { mono_us: Us(1_000_000), unix_us: Us(1_700_000_000_000_000) };
        let mut node = Node::new(config, identity);
        node.begin(Lsn(0), time);
        let mut single = Single {
            node,
            time,
            syncing: None,
            input: BytesMut::new(),
            is_paused: false,
            reply: Vec::new(),
            longest: Duration::ZERO,
            turns: 0,
        };
        single.node.opened(ConnectionId(CLIENT), listen, time);
        for _ in 0..TURNS_MAX {
            if single.node.leaderless() == 0 {
                break;
            }
            single.turn(0);
        }
        assert_eq!(single.node.leaderless(), 0, "a leader of each group");
        single
    }

    /// Moves the clocks on by `ms`, and then runs 100 turns.
    pub(crate) fn pass(&mut self, ms: Ms) {
        self.time.mono_us += ms.to_us();
        self.time.unix_us += ms.to_us();
        (0..100).for_each(|_| self.turn(0));
    }

    /// Sends requests, and returns their replies once every request has one. Resets `longest` and `turns` first.
    pub(crate) fn ask(&mut self, requests: &[Vec<Vec<u8>>]) -> Vec<u8> {
        let bytes: Vec<u8> = requests.iter().flat_map(|words| encoded(words)).collect();
        (self.longest, self.turns) = (Duration::ZERO, 0);
        self.reply.clear();
        let mut rest = &bytes[..];
        let (mut scan, mut scanned, mut replies) = (Scan::default(), 0, 0);
        for _ in 0..TURNS_MAX {
            let chunk = if self.is_paused { 0 } else { rest.len().min(READ_BYTES) };
            self.input.extend_from_slice(&rest[..chunk]);
            rest = &rest[chunk..];
            self.turn(chunk);
            while let Some((length, _)) = scan.resume(&self.reply[scanned..]).expect("replies are RESP") {
                (scan, scanned, replies) = (Scan::default(), scanned + length, replies + 1);
            }
            if replies >= requests.len() {
                return std::mem::take(&mut self.reply);
            }
        }
        panic!("{replies} of {} replies after {TURNS_MAX} turns", requests.len());
    }

    /// Runs one turn as the server does, but without system calls. Outputs are handled after the time of the turn is
    /// taken.
    fn turn(&mut self, arrived: usize) {
        self.time.mono_us += Us(1_000);
        self.time.unix_us += Us(1_000);
        let time = self.time;
        let begun = cpu_time();
        if let Some(lsn) = self.syncing.take() {
            self.node.on_completion(Completion::Durable { lsn, frame: lsn, sync_us: Us(100) }, time);
        }
        if arrived > 0 || !self.is_paused && !self.input.is_empty() {
            self.node.input(ConnectionId(CLIENT), &mut self.input, 0, time);
        }
        if time.mono_us.0.is_multiple_of(20_000) {
            self.node.tick(time);
        }
        self.node.end_turn(time);
        let mut replies = Outbound::new();
        self.node.take_replies(|_, reply| {
            replies.take_from(reply);
            0
        });
        let outputs = self.node.outputs().take();
        let took = cpu_time() - begun;
        self.node.turn_took(Us(took.as_micros() as u64), time);
        self.longest = self.longest.max(took);
        self.turns += 1;
        self.reply.extend_from_slice(&replies.take_bytes());
        for output in outputs {
            match output {
                Output::Append(batch) => self.syncing = Some(batch.lsn),
                Output::Pause(_) => self.is_paused = true,
                Output::Resume(_) => self.is_paused = false,
                Output::Stop(reason) => panic!("{reason}"),
                _ => {}
            }
        }
    }
}

/// CPU time that this thread has used. Other programs do not count.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// A request as clients send it.
fn encoded(words: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}
