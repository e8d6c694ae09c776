//! Input in the peer protocol: from strangers, in broken frames, and from a member that sends nonsense.

use crate::harness::client::{ask_until_served, connect, info};
use crate::harness::{Cluster, turn, wait_for};
use bytes::{Bytes, BytesMut};
use groups::message::{Accept, Chosen, Forward, Prepare};
use groups::{Ballot, Counter, GroupId, Instance, Message, Ms, NodeId, ValueBuilder};
use net::frame::{self, FrameWriter, Purpose};
use paxoi::identity::{self, Identity};
use paxoi::node::wire::{Claims, Hello, NODE, NodeMessage, Positions};
use paxoi::storage::disk::FileDisk;
use paxoi::versions::Versions;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);

/// A connection that speaks the peer protocol.
struct Stranger(TcpStream);

impl Stranger {
    fn connect(address: SocketAddr) -> Stranger {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Stranger(stream)
    }

    fn send(&mut self, bytes: &[u8]) {
        // The node may have closed already.
        let _ = self.0.write_all(bytes);
    }

    fn say(&mut self, message: &NodeMessage) {
        self.send(&framed(NODE, message.kind(), &message.encode()));
    }

    fn tell(&mut self, group: u32, message: &Message) {
        let mut body = BytesMut::new();
        message.encode(&mut body);
        self.send(&framed(group, message.kind(), &body));
    }

    /// Returns true if the node closes the connection in time.
    fn is_closed(&mut self) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match self.0.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return true,
                Err(_) => return false,
            }
        }
    }
}

fn framed(group: u32, kind: u8, body: &[u8]) -> Bytes {
    let mut writer = FrameWriter::new(Purpose::Live);
    writer.message(group, kind, |_| Bytes::copy_from_slice(body));
    let mut pieces = Vec::new();
    writer.finish(&mut pieces);
    pieces.concat().into()
}

/// Returns the identity of a node that is down, from its directory.
fn identity_of(cluster: &Cluster, id: u32) -> Identity {
    let disk = FileDisk::existing(cluster.data(id)).unwrap();
    identity::read(&disk).unwrap().unwrap()
}

/// Returns the hello that this node would send if it were started again.
fn hello_of(identity: &Identity) -> Hello {
    let birth = identity.birth.as_ref().unwrap();
    Hello {
        cluster: Some(birth.cluster_id),
        node: identity.node,
        storage: identity.storage_id,
        start: identity.start + 1,
        incarnations: identity.incarnations.iter().copied().chain([42]).collect(),
        groups: birth.groups,
        members: birth.members.iter().map(|member| member.node).collect(),
        joins: None,
        versions: Versions::OURS,
        to: None,
        announced: None,
        address: None,
        workers: paxoi::workers::Workers::ONE,
    }
}

#[test]
fn broken_frames_close_their_connection_only() {
    let _turn = turn();
    let cluster = Cluster::start(3, 2, &[]);
    let address = cluster.address(1);
    let good = framed(NODE, 1, b"not a hello");
    let broken = |at: usize, byte: u8| {
        let mut bytes = good.to_vec();
        bytes[at] = byte;
        bytes
    };
    let mut huge = good.to_vec();
    huge[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut noise = vec![frame::MAGIC];
    noise.extend((0..100_000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8));
    let cases = [broken(good.len() - 1, 0), broken(1, 99), broken(2, 9), huge, noise, good.to_vec()];
    for (number, bytes) in cases.iter().enumerate() {
        let mut stranger = Stranger::connect(address);
        stranger.send(bytes);
        assert!(stranger.is_closed(), "case {number}");
    }
    let mut early = Stranger::connect(address);
    early.tell(0, &Message::Prepare(Prepare { ballot: Ballot { round: 1, node: NodeId(2) }, instance: Instance(1) }));
    assert!(early.is_closed(), "a message before the hello");
    let mut silent = Stranger::connect(address);
    silent.send(&[frame::MAGIC]);
    assert!(silent.is_closed(), "a handshake that never ends");
    let mut client = connect(address).unwrap();
    assert_eq!(ask_until_served(&mut client, "SET after 1"), "OK");
}

#[test]
fn hellos_that_cannot_be_are_refused() {
    let _turn = turn();
    let mut cluster = Cluster::start(3, 2, &[]);
    cluster.kill9(3);
    let true_hello = hello_of(&identity_of(&cluster, 3));
    let wrong = [
        Hello { cluster: Some([9; 16]), ..true_hello.clone() },
        Hello { storage: [9; 16], ..true_hello.clone() },
        Hello { start: 0, ..true_hello.clone() },
        Hello { start: u64::MAX, ..true_hello.clone() },
        Hello { incarnations: vec![41, 42], ..true_hello.clone() },
        Hello { versions: Versions { lowest: 4, highest: 9 }, ..true_hello.clone() },
        Hello { versions: Versions { lowest: 2, highest: 1 }, ..true_hello.clone() },
        Hello { versions: Versions { lowest: 0, highest: 0 }, ..true_hello.clone() },
        Hello { incarnations: Vec::new(), ..true_hello.clone() },
        Hello { groups: 99, ..true_hello.clone() },
        Hello { node: NodeId(77), ..true_hello.clone() },
        Hello { node: NodeId(1), ..true_hello.clone() },
        Hello { cluster: None, ..true_hello.clone() },
    ];
    for hello in wrong {
        let mut stranger = Stranger::connect(cluster.address(1));
        stranger.say(&NodeMessage::Hello(hello.clone()));
        assert!(stranger.is_closed(), "{hello:?}");
    }
    let mut twice = Stranger::connect(cluster.address(1));
    twice.say(&NodeMessage::Hello(true_hello.clone()));
    twice.say(&NodeMessage::Hello(true_hello));
    assert!(twice.is_closed(), "two hellos");
    let mut client = connect(cluster.address(1)).unwrap();
    assert_eq!(ask_until_served(&mut client, "SET after 1"), "OK");
}

#[test]
fn unknown_kinds_and_groups_are_counted_and_nonsense_of_a_member_ends_its_connection_only() {
    let _turn = turn();
    let mut cluster = Cluster::start(3, 2, &[]);
    let mut client = connect(cluster.address(1)).unwrap();
    assert_eq!(ask_until_served(&mut client, "SET before 1"), "OK");
    cluster.kill9(3);
    let hello = hello_of(&identity_of(&cluster, 3));
    let member = |cluster: &Cluster| {
        let mut member = Stranger::connect(cluster.address(1));
        member.say(&NodeMessage::Hello(hello.clone()));
        member
    };
    let mut later = member(&cluster);
    later.send(&framed(0, 250, b"of a later version"));
    later.send(&framed(7_777, 1, b"of a group that is not here"));
    later.send(&framed(NODE, 250, b"also of a later version"));
    let counted = |least: u64| {
        wait_for("unknown groups and kinds to be counted", PATIENCE, || {
            let info = info(cluster.address(1)).ok()?;
            let counted = (info.number("skipped_unknown_group"), info.number("skipped_unknown_kind"));
            (counted.0 + counted.1 >= least).then_some(counted)
        })
    };
    // The connection stays open.
    assert_eq!(counted(3), (1, 2));
    later.send(&framed(1, 251, b"again"));
    assert_eq!(counted(4), (1, 3));
    let me = NodeId(3);
    let last = Ballot { round: u64::MAX, node: me };
    let value = ValueBuilder::default().seal(0, Ms::MAX, None);
    let far = Instance(u64::MAX);
    let garbage = Bytes::from_static(&[1, 0, 0, 0, 9, 9]);
    let nonsense: [(u32, Message); 4] = [
        (0, Message::Prepare(Prepare { ballot: last, instance: far })),
        (0, Message::Accept(Accept { ballot: last, instance: far, chosen: last, value })),
        (1, Message::Chosen(Chosen { instance: far, ballot: last })),
        (1, Message::Forward(Forward { ballot: last, after: Counter(0), commands: garbage })),
    ];
    for (group, message) in nonsense {
        let mut broken = member(&cluster);
        broken.tell(group, &message);
        assert!(broken.is_closed(), "{message:?}");
    }
    for message in [
        NodeMessage::Claims(Claims { version: 1, led: vec![(GroupId(0), last)], unleased: Vec::new() }),
        NodeMessage::Positions(Positions { next: vec![(GroupId(1), far)] }),
    ] {
        let mut broken = member(&cluster);
        broken.say(&message);
        assert!(broken.is_closed(), "{message:?}");
    }
    for id in [1, 2] {
        let mut client = connect(cluster.address(id)).unwrap();
        assert_eq!(ask_until_served(&mut client, "SET after 1"), "OK", "at node {id}");
    }
}
