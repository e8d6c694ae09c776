//! Links with a fake receiver: two ends of a connection, without a node.

use super::*;
use crate::identity::{BirthRecord, Identity, Member};
use crate::node::peers::{Peers, Roster};
use crate::node::wire::NodeMessage;
use bytes::Bytes;
use groups::membership::MemberInfo;
use groups::{Membership, Us};
use net::event::ConnectionId;

const BORN: Time = Time { mono_us: Us(1_000_000), unix_us: Us(1_700_000_000_000_000) };

/// A member of a cluster of three, or a node that waits for the birth, with the calls that its links made.
struct End {
    links: Links,
    rest: Rest,
}

struct Rest {
    identity: Identity,
    config: NodeConfig,
    peers: Peers,
    outputs: Outputs,
    is_loading: bool,
    has_not_begun: bool,
    told: Vec<Told>,
}

#[derive(Debug, PartialEq, Eq)]
enum Told {
    Linked(NodeId, bool),
    TransferLink(NodeId, ConnectionId),
    JoinRequest(NodeId),
    Message(NodeId, &'static str),
    Group(NodeId, GroupId, u8),
    Gone(ConnectionId),
}

impl Receiver for Rest {
    fn context(&self) -> HandshakeContext<'_> {
        let Rest { identity, config, peers, is_loading, .. } = self;
        HandshakeContext { identity, config, peers, is_loading: *is_loading }
    }
    fn peers(&mut self) -> &mut Peers {
        &mut self.peers
    }
    fn outputs(&mut self) -> &mut Outputs {
        &mut self.outputs
    }
    fn is_born(&self) -> bool {
        self.identity.birth.is_some()
    }
    fn has_not_begun(&self) -> bool {
        self.has_not_begun
    }
    fn is_asking_to_join(&self) -> bool {
        !self.config.join.is_empty()
    }
    fn check_unborn_hello(&self, _hello: &Hello) -> Result<(), Refusal> {
        Ok(())
    }
    fn handle_join_request(
        &mut self,
        _id: ConnectionId,
        hello: &Hello,
        _address: &str,
        _time: Time,
    ) -> Result<(), Refusal> {
        self.told.push(Told::JoinRequest(hello.node));
        Ok(())
    }
    fn on_linked(&mut self, hello: &Hello, replaces: bool, _time: Time) {
        self.told.push(Told::Linked(hello.node, replaces));
    }
    fn on_transfer_link(&mut self, from: NodeId, id: ConnectionId) -> Option<ConnectionId> {
        self.told.push(Told::TransferLink(from, id));
        None
    }
    fn on_transfer_dialling(&mut self, _to: NodeId, _connection: Option<ConnectionId>, _time: Time) {}
    fn on_message(&mut self, _id: ConnectionId, from: NodeId, message: NodeMessage, _time: Time) -> Result<(), String> {
        let name = if matches!(message, NodeMessage::PositionQuery) { "position query" } else { "other" };
        self.told.push(Told::Message(from, name));
        if name == "position query" { Ok(()) } else { Err("the test takes no other".to_owned()) }
    }
    fn on_transfer_message(&mut self, _id: ConnectionId, _from: NodeId, _message: NodeMessage, _time: Time) -> bool {
        false
    }
    fn on_group_message(
        &mut self,
        from: NodeId,
        group: GroupId,
        kind: u8,
        _body: &Bytes,
        _time: Time,
    ) -> Result<(), String> {
        self.told.push(Told::Group(from, group, kind));
        Ok(())
    }
    fn on_arriving(&mut self, _from: NodeId, _group: GroupId, _kind: u8, _time: Time) {}
    fn on_gone(&mut self, id: ConnectionId, time: Time) {
        self.peers.on_connection_gone(id, time.mono_ms());
        self.told.push(Told::Gone(id));
    }
    fn on_silent(&mut self, _from: NodeId, _time: Time) {}
}

impl End {
    /// Returns a member of a born cluster of nodes 1 to 3. With a higher id, returns a node that joins at `contact:1`.
    fn of(id: u32) -> End {
        let address = |id: u32| format!("127.0.0.1:{id}");
        let member = |id: u32| Member { node: NodeId(id), storage_id: [id as u8; 16], address: address(id) };
        let joins = id > 3;
        let birth = BirthRecord {
            cluster_id: [9; 16],
            groups: 4,
            hash_key: [7; 16],
            session_ttl_ms: Ms(60_000),
            value_bytes_max: 8 << 20,
            members: (1..=3).map(member).collect(),
            born_ms: Ms(0),
        };
        let identity = Identity {
            storage_id: [id as u8; 16],
            node: NodeId(id),
            start: 1,
            incarnations: vec![u64::from(id)],
            birth: (!joins).then_some(birth),
            joined: Vec::new(),
        };
        let ids = if joins { id..=id } else { 1..=3 };
        let config = NodeConfig {
            initial: ids.map(|id| (NodeId(id), address(id))).collect(),
            groups: 4,
            join: if joins { vec!["contact:1".to_owned()] } else { Vec::new() },
            ..NodeConfig::for_test(NodeId(id))
        };
        let info = |(id, address): &(NodeId, String)| {
            let address = address.clone();
            MemberInfo { node: *id, storage: [id.0 as u8; 16], address }
        };
        let roster = Roster::of_one(&Membership::new(config.initial.iter().map(info).collect()));
        let peers = Peers::new(&identity, roster, &config);
        let links = Links::new(&config);
        let (outputs, told) = (Outputs::default(), Vec::new());
        let rest = Rest { identity, config, peers, outputs, is_loading: false, has_not_begun: false, told };
        End { links, rest }
    }

    /// Returns the frames that this end has put out for connection `id`, and its other outputs.
    fn take(&mut self, id: ConnectionId) -> (BytesMut, Vec<Output>) {
        let mut bytes = BytesMut::new();
        let mut others = Vec::new();
        for output in self.rest.outputs.take() {
            match output {
                Output::Frame(to, piece) if to == id => bytes.extend_from_slice(&piece),
                other => others.push(other),
            }
        }
        (bytes, others)
    }

    fn input(&mut self, id: ConnectionId, mut bytes: BytesMut) {
        self.links.input(id, &mut bytes, &mut self.rest, BORN);
    }

    fn told(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.rest.told)
    }

    fn dial(&mut self, to: u32, purpose: Purpose, id: ConnectionId) {
        self.links.on_dialling(NodeId(to), purpose, Some(id), &mut self.rest, BORN);
        self.links.say_hello(id, &mut self.rest);
    }
}

/// Passes frames between the dialler's connection `from` and the other end's connection `to` until neither end has
/// more. Returns their other outputs.
fn talk(dialler: &mut End, from: ConnectionId, other: &mut End, to: ConnectionId) -> Vec<Output> {
    let mut wanted = Vec::new();
    loop {
        let (there, more) = dialler.take(from);
        wanted.extend(more);
        other.input(to, there.clone());
        let (back, more) = other.take(to);
        wanted.extend(more);
        if there.is_empty() && back.is_empty() {
            return wanted;
        }
        dialler.input(from, back);
    }
}

fn connected(dialler: u32, other: u32) -> (End, End) {
    let (mut one, mut two) = (End::of(dialler), End::of(other));
    one.dial(other, Purpose::Live, ConnectionId(10));
    two.links.accept(ConnectionId(20), BORN);
    let wanted = talk(&mut one, ConnectionId(10), &mut two, ConnectionId(20));
    assert!(wanted.is_empty(), "{wanted:?}");
    (one, two)
}

#[test]
fn two_members_are_linked_by_their_hellos_and_a_new_connection_replaces_the_old_one() {
    let (mut one, mut two) = connected(3, 1);
    assert_eq!(one.told(), [Told::Linked(NodeId(1), false)]);
    assert_eq!(two.told(), [Told::Linked(NodeId(3), false)]);
    one.dial(1, Purpose::Live, ConnectionId(11));
    two.links.accept(ConnectionId(21), BORN);
    let wanted = talk(&mut one, ConnectionId(11), &mut two, ConnectionId(21));
    assert!(
        matches!(
            wanted[..],
            [Output::Close(ConnectionId(20), Close::Now), Output::Close(ConnectionId(10), Close::Now)]
        ),
        "{wanted:?}"
    );
    assert_eq!((one.told(), two.told()), (vec![Told::Linked(NodeId(1), true)], vec![Told::Linked(NodeId(3), true)]));
    assert_eq!((one.links.ids(), two.links.ids()), (vec![ConnectionId(11)], vec![ConnectionId(21)]));
}

#[test]
fn a_connection_for_transfers_stands_beside_the_other_one() {
    let (mut one, mut two) = connected(3, 1);
    one.dial(1, Purpose::Bulk, ConnectionId(11));
    two.links.accept(ConnectionId(21), BORN);
    assert!(talk(&mut one, ConnectionId(11), &mut two, ConnectionId(21)).is_empty());
    assert_eq!(one.told()[1..], [Told::TransferLink(NodeId(1), ConnectionId(11))]);
    assert_eq!(two.told()[1..], [Told::TransferLink(NodeId(3), ConnectionId(21))]);
    assert_eq!(two.links.ids(), [ConnectionId(20), ConnectionId(21)]);
}

#[test]
fn nothing_counts_before_the_hello_and_a_late_one_is_not_waited_for() {
    let mut two = End::of(1);
    two.links.accept(ConnectionId(20), BORN);
    let mut outputs = Outputs::default();
    send_alone(ConnectionId(20), false, &NodeMessage::PositionQuery, &mut outputs);
    let Some(Output::Frame(_, frame)) = outputs.take().pop() else { panic!("a frame") };
    two.input(ConnectionId(20), BytesMut::from(&frame[..]));
    assert!(matches!(two.take(ConnectionId(20)).1[..], [Output::Close(ConnectionId(20), Close::Now)]));
    assert_eq!(two.told(), [Told::Gone(ConnectionId(20))]);
    two.links.accept(ConnectionId(21), BORN);
    let late = Time { mono_us: BORN.mono_us + HANDSHAKE_MS_MAX.to_us(), ..BORN };
    two.rest.has_not_begun = true;
    two.links.tick(&mut two.rest, late);
    assert_eq!((two.told(), two.links.ids()), (vec![Told::Gone(ConnectionId(21))], vec![]));
}

#[test]
fn a_forbidden_message_of_a_member_ends_its_connection_and_nothing_else() {
    let (mut one, mut two) = connected(3, 1);
    two.told();
    send_alone(ConnectionId(10), false, &NodeMessage::PositionQuery, &mut one.rest.outputs);
    let wanted = talk(&mut one, ConnectionId(10), &mut two, ConnectionId(20));
    assert!(wanted.is_empty() && two.told() == [Told::Message(NodeId(3), "position query")]);
    send_alone(ConnectionId(10), false, &NodeMessage::DurablePositionQuery(Vec::new()), &mut one.rest.outputs);
    let wanted = talk(&mut one, ConnectionId(10), &mut two, ConnectionId(20));
    assert!(matches!(wanted[..], [Output::Close(ConnectionId(20), Close::Now)]), "{wanted:?}");
    assert_eq!(two.told(), [Told::Message(NodeId(3), "other"), Told::Gone(ConnectionId(20))]);
    two.links.accept(ConnectionId(21), BORN);
    two.input(ConnectionId(21), BytesMut::from(&[0xff; 64][..]));
    assert_eq!(two.told(), [Told::Gone(ConnectionId(21))]);
}

#[test]
fn a_node_that_reaches_another_than_it_dialled_is_told_so() {
    let (mut one, mut two) = (End::of(3), End::of(1));
    one.dial(2, Purpose::Live, ConnectionId(10));
    two.links.accept(ConnectionId(20), BORN);
    talk(&mut one, ConnectionId(10), &mut two, ConnectionId(20));
    assert_eq!((one.told(), two.told()), (vec![Told::Gone(ConnectionId(10))], vec![Told::Gone(ConnectionId(20))]));
}

#[test]
fn a_node_joins_at_a_contact_and_asks_again_after_a_while() {
    let (mut one, mut two) = (End::of(7), End::of(1));
    one.links.tick(&mut one.rest, BORN);
    let outputs = one.rest.outputs.take();
    let [Output::Dial(contact, Purpose::Live, address)] = &outputs[..] else { panic!("{outputs:?}") };
    assert!(is_contact(*contact) && address == "contact:1");
    one.dial(contact.0, Purpose::Live, ConnectionId(10));
    two.links.accept(ConnectionId(20), BORN);
    assert!(talk(&mut one, ConnectionId(10), &mut two, ConnectionId(20)).is_empty());
    assert_eq!((one.told(), two.told()), (vec![], vec![Told::JoinRequest(NodeId(7))]));
    let later = Time { mono_us: BORN.mono_us + Us(3_000_000), ..BORN };
    one.links.tick(&mut one.rest, later);
    assert!(matches!(one.rest.outputs.take()[..], [Output::Close(ConnectionId(10), Close::Now)]));
    // A member that is loading cannot tell yet which nodes belong to the cluster.
    two.rest.is_loading = true;
    one.dial(contact.0, Purpose::Live, ConnectionId(11));
    two.links.accept(ConnectionId(21), BORN);
    talk(&mut one, ConnectionId(11), &mut two, ConnectionId(21));
    assert_eq!(two.told(), [Told::Gone(ConnectionId(21))]);
}
