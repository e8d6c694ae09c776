//! One peer: when it is reached, dead or dialled, and what it says about itself.

use super::*;
use net::event::ConnectionId;

const LINK: u64 = 7;

fn hello() -> Hello {
    Hello {
        cluster: None,
        node: NodeId(2),
        storage: [2; 16],
        start: 1,
        incarnations: vec![1],
        groups: 1,
        members: Vec::new(),
        joins: None,
        versions: Versions::OURS,
        to: None,
        announced: Some("nonsense".to_owned()),
        address: Some("host:7002".to_owned()),
        workers: crate::workers::Workers::ONE,
    }
}

/// Returns a peer that was linked at 1 s.
fn linked(address: &str) -> Peer {
    let mut peer = Peer::new(NodeId(2), address.to_owned(), 0, 0, 64);
    peer.on_linked(ConnectionId(LINK), &hello(), 4, Ms(1_000));
    peer
}

fn ping(number: u64, echo: u64) -> Ping {
    Ping { start: 1, number, echo, reached: vec![NodeId(3)], disk: true, ..Ping::default() }
}

#[test]
fn a_peer_is_reached_when_it_has_echoed_a_ping_of_this_connection() {
    let mut peer = linked("a:1");
    let (number, ..) = peer.begin_ping(Us(1_000_000));
    assert_eq!(
        peer.on_ping(&ping(1, 0), Us(1_010_000)),
        (true, None),
        "the peer has received no ping of this node yet"
    );
    assert!(!peer.is_reached(Ms(1_010)));
    assert_eq!(peer.on_ping(&ping(2, number), Us(1_020_000)), (false, Some(Us(1_000_000))));
    assert!(
        peer.is_reached(Ms(1_020))
            && peer.is_reached(Ms(1_000) + ECHO_MS_MAX)
            && !peer.is_reached(Ms(1_001) + ECHO_MS_MAX)
    );
    assert_eq!(peer.rtt_us(), Us(20_000));
    peer.on_linked(ConnectionId(LINK + 1), &hello(), 4, Ms(1_030));
    assert!(!peer.is_reached(Ms(1_030)));
    peer.on_ping(&ping(3, number), Us(1_040_000));
    assert!(!peer.is_reached(Ms(1_040)), "an echo of the old connection's ping");
}

#[test]
fn a_silent_peer_is_taken_for_dead_long_before_its_connection_is_cut() {
    let mut peer = linked("a:1");
    assert!(!peer.falls_silent(Ms(1_000) + SILENT_MS_MAX) && peer.falls_silent(Ms(1_001) + SILENT_MS_MAX));
    peer.on_silent();
    assert!(!peer.falls_silent(Ms(1_001) + SILENT_MS_MAX), "a peer falls silent only once");
    assert!(!peer.is_broken(Ms(1_000) + BROKEN_MS_MAX) && peer.is_broken(Ms(1_001) + BROKEN_MS_MAX));
    peer.on_bytes(Ms(5_000));
    assert!(!peer.is_broken(Ms(5_000) + BROKEN_MS_MAX));
    peer.compensate_stall(Ms(60_000), Ms(6_000));
    assert_eq!(peer.silent_ms(Ms(6_100)), Ms(100), "no time is moved into the future");
}

#[test]
fn the_higher_id_dials_unless_it_does_not_for_long() {
    let mut peer = Peer::new(NodeId(2), "a:1".to_owned(), 0, 0, 64);
    assert!(peer.is_to_be_dialled(NodeId(3), false, Ms(10)) && !peer.is_to_be_dialled(NodeId(1), true, Ms(10)));
    assert!(
        !peer.is_to_be_dialled(NodeId(1), true, Ms(9) + LONELY_MS)
            && peer.is_to_be_dialled(NodeId(1), true, Ms(10) + LONELY_MS)
    );
    assert!(!peer.is_to_be_dialled(NodeId(1), true, Ms(20) + LONELY_MS), "at most once in 5 s");
    peer.on_dialling(Some(ConnectionId(9)), Ms(20));
    assert!(!peer.is_to_be_dialled(NodeId(3), true, Ms(60_000)) && peer.is_dialled_as(ConnectionId(9)));
}

#[test]
fn a_guest_is_dialled_for_transfers_at_its_own_address_and_a_malformed_address_is_ignored() {
    assert_eq!((linked("").transfer_address(), linked("a:1").transfer_address()), (Some("host:7002"), Some("a:1")));
    assert_eq!(linked("").announced(), None);
}

#[test]
fn positions_count_while_they_are_new_and_the_connection_lasts() {
    let mut peer = linked("a:1");
    assert_eq!(peer.position(GroupId(3), Ms(500), Ms(1_000)), None, "the peer has not reported its positions");
    peer.set_positions(&Positions { next: vec![(GroupId(3), Instance(9))] }, Ms(1_000));
    let at = |peer: &Peer, group, now_ms| peer.position(GroupId(group), Ms(500), now_ms).map(|next| next.0);
    assert_eq!((at(&peer, 3, Ms(1_500)), at(&peer, 4, Ms(1_500)), at(&peer, 3, Ms(1_501))), (Some(9), Some(1), None));
    peer.on_cut();
    assert_eq!(at(&peer, 3, Ms(1_500)), None);
}
