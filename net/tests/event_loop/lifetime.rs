//! How connections begin and end, and how the event loop treats the ids of closed connections.

use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use net::event::{CloseReason, ConnectionId, Event};
use net::event_loop::{EventLoop, LoopLimits};

use crate::{DEADLINE, Server, echo, read_to_end};

#[test]
fn a_half_closed_client_gets_its_reply() {
    let mut server = Server::new(LoopLimits::default());
    let mut client = server.connect();
    client.write_all(b"PING\r\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut seen = Vec::new();
    let id = server.until(|_, event| match event {
        Event::Input { .. } => {
            seen.push("input");
            None
        }
        Event::Eof { id } => {
            seen.push("eof");
            Some(*id)
        }
        _ => None,
    });
    assert_eq!(seen, ["input", "eof"]);
    assert_eq!(&server.event_loop.input(id).unwrap()[..], b"PING\r\n");
    // The reply may come much later.
    server.turn(|_, _| {});
    server.event_loop.outbound(id).unwrap().buffer().extend_from_slice(b"+PONG\r\n");
    server.event_loop.close_after_flush(id);
    server.event_loop.flush();
    let reason = server.until(|_, event| match event {
        Event::Closed { id: closed, reason } => Some((*closed, matches!(reason, CloseReason::Finished))),
        _ => None,
    });
    assert_eq!(reason, (id, true));
    server.turn(|_, _| {});
    assert_eq!(read_to_end(&client), b"+PONG\r\n");
}

#[test]
fn the_last_reply_survives_input_that_nobody_reads() {
    let mut server = Server::new(LoopLimits::default());
    let mut client = server.connect();
    let id = server.accept();
    client.write_all(b"*1\r\n*1\r\n").unwrap();
    server.until(|_, event| matches!(event, Event::Input { .. }).then_some(()));
    // More garbage arrives before the first garbage is answered.
    client.write_all(&[b'*'; 100_000]).unwrap();
    server.event_loop.outbound(id).unwrap().buffer().extend_from_slice(b"-ERR Protocol error\r\n");
    server.event_loop.close_after_flush(id);
    server.until(|_, event| matches!(event, Event::Closed { .. }).then_some(()));
    server.turn(|_, _| {});
    assert_eq!(server.event_loop.connections(), 0);
    assert_eq!(read_to_end(&client), b"-ERR Protocol error\r\n");
}

#[test]
fn a_handle_finds_nothing_once_its_place_is_taken() {
    let mut server = Server::new(LoopLimits::default());
    let first = server.connect();
    let old = server.accept();
    server.event_loop.close(old);
    assert!(read_to_end(&first).is_empty());
    let _second = server.connect();
    let new = server.accept();
    assert_ne!(old, new);
    assert_eq!(old.0 as u32, new.0 as u32, "the same place");
    assert!(server.event_loop.input(old).is_none() && server.event_loop.outbound(old).is_none());
    assert_eq!(server.event_loop.outbound_len(old), 0);
    server.event_loop.close(old);
    server.event_loop.close_after_flush(old);
    server.event_loop.pause(old);
    server.event_loop.resume(old);
    server.turn(|_, event| panic!("{event:?}"));
    assert!(server.event_loop.input(new).is_some());
    assert_eq!(ConnectionId(new.0), new);
}

#[test]
fn closing_during_the_turn_cancels_what_was_still_to_come() {
    let mut server = Server::new(LoopLimits::default());
    let mut client = server.connect();
    let id = server.accept();
    client.write_all(b"x").unwrap();
    server.until(|event_loop, event| {
        let Event::Input { id } = event else { return None };
        event_loop.outbound(*id).unwrap().buffer().extend_from_slice(b"lost");
        event_loop.close_after_flush(*id);
        Some(())
    });
    // The flush wrote the last reply. The `Closed` event for it is still pending when the test closes the connection.
    server.event_loop.close(id);
    server.turn(|_, event| panic!("{event:?}"));
    assert_eq!(read_to_end(&client), b"lost");
}

#[test]
fn dialling_connects_or_says_why_not() {
    let mut server = Server::new(LoopLimits::default());
    let addr = server.addr();
    let dialled = server.event_loop.dial(addr).unwrap();
    server.event_loop.outbound(dialled).unwrap().buffer().extend_from_slice(b"hello");
    server.event_loop.flush();
    let mut connected = false;
    let accepted = server.until(|_, event| match event {
        Event::Connected { id } => {
            assert_eq!(*id, dialled);
            connected = true;
            None
        }
        Event::Input { id } => Some(*id),
        _ => None,
    });
    assert!(connected && accepted != dialled);
    assert_eq!(&server.event_loop.input(accepted).unwrap()[..], b"hello");

    let refusing = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = match server.event_loop.dial(refusing) {
        Err(error) => error.kind(),
        Ok(dialled) => server.until(|_, event| match event {
            Event::Closed { id, reason: CloseReason::ConnectFailed(error) } if *id == dialled => Some(error.kind()),
            Event::Connected { .. } => panic!("nobody listens there"),
            _ => None,
        }),
    };
    assert_eq!(refused, ErrorKind::ConnectionRefused);
}

#[test]
fn connections_above_the_limit_are_turned_away() {
    let mut server = Server::new(LoopLimits { connections_max: 2, ..LoopLimits::default() });
    let first = server.connect();
    let id = server.accept();
    let _second = server.connect();
    server.accept();
    let third = server.connect();
    let refused = server.until(|_, event| if let Event::Refused { peer } = event { Some(*peer) } else { None });
    assert_eq!(refused, third.local_addr().unwrap());
    assert_eq!(read_to_end(&third), b"-ERR max number of clients reached\r\n");
    // A place becomes free.
    server.event_loop.close(id);
    drop(first);
    let _fourth = server.connect();
    server.accept();
    assert_eq!(server.event_loop.connections(), 2);
}

#[test]
fn a_reset_is_told_after_the_bytes_before_it() {
    let mut server = Server::new(LoopLimits::default());
    let mut client = server.connect();
    let id = server.accept();
    server.event_loop.outbound(id).unwrap().buffer().extend_from_slice(b"never read");
    server.event_loop.flush();
    client.write_all(b"last words").unwrap();
    let mut byte = [0];
    assert_eq!(client.peek(&mut byte).unwrap(), 1);
    drop(client); // with unread bytes: the kernel resets the connection
    let mut seen = Vec::new();
    server.until(|event_loop, event| match event {
        Event::Input { id } => {
            assert_eq!(&event_loop.input(*id).unwrap()[..], b"last words");
            seen.push("input");
            None
        }
        Event::Closed { reason: CloseReason::Io(_), .. } => Some(()),
        other => panic!("{other:?}"),
    });
    assert_eq!(seen, ["input"]);
    server.turn(|_, event| panic!("{event:?}"));
    assert_eq!(server.event_loop.connections(), 0);
}

#[test]
fn another_thread_ends_the_wait() {
    let mut server = Server::new(LoopLimits::default());
    let waker = server.event_loop.waker();
    let thread = thread::spawn(move || waker.wake().unwrap());
    server.until(|_, event| matches!(event, Event::Woken).then_some(()));
    thread.join().unwrap();
}

#[test]
fn a_loop_without_a_listener_dials() {
    let mut server = Server::new(LoopLimits::default());
    let addr = server.addr();
    let client = thread::spawn(move || {
        let mut event_loop = EventLoop::new(LoopLimits::default()).unwrap();
        assert!(event_loop.local_addr().is_err());
        let id = event_loop.dial(addr).unwrap();
        event_loop.outbound(id).unwrap().buffer().extend_from_slice(b"ping");
        let (mut events, deadline) = (Vec::new(), Instant::now() + DEADLINE);
        while event_loop.input(id).unwrap().len() < 4 {
            assert!(Instant::now() < deadline);
            event_loop.flush();
            event_loop.poll(Some(Duration::from_millis(100)), &mut events).unwrap();
        }
        assert_eq!(&event_loop.input(id).unwrap()[..], b"ping");
    });
    server.serve(client, echo);
}
