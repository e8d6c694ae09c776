//! Flow control: pending input and output stay bounded, and reading and writing resume when there is room again.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use net::event::{CloseReason, Event};
use net::event_loop::LoopLimits;

use crate::{DEADLINE, Server};

#[test]
fn a_paused_connection_is_left_alone_until_resumed() {
    let mut server = Server::new(LoopLimits::default());
    let mut client = server.connect();
    let id = server.accept();
    client.write_all(b"one").unwrap();
    server.until(|_, event| matches!(event, Event::Input { .. }).then_some(()));
    server.event_loop.pause(id);
    client.write_all(b"two").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    // Another connection's events show that the loop has seen what the first one sent.
    let mut other = server.connect();
    other.write_all(b"x").unwrap();
    server.until(|_, event| match event {
        Event::Input { id: ready } => {
            assert_ne!(*ready, id, "paused");
            Some(())
        }
        _ => None,
    });
    assert_eq!(server.input_len(id), 3);
    server.event_loop.resume(id);
    server.until(|_, event| matches!(event, Event::Eof { id: ended } if *ended == id).then_some(()));
    assert_eq!(&server.event_loop.input(id).unwrap()[..], b"onetwo");
    // Unconsumed input is announced again after a pause, even after the end of the stream.
    server.event_loop.pause(id);
    server.event_loop.resume(id);
    server.until(|_, event| matches!(event, Event::Input { id: ready } if *ready == id).then_some(()));
}

#[test]
fn input_is_read_up_to_its_limit_and_on_when_consumed() {
    let limits = LoopLimits { input_bytes_max: 100_000, ..LoopLimits::default() };
    let mut server = Server::new(limits);
    let mut client = server.connect();
    let id = server.accept();
    let client = thread::spawn(move || client.write_all(&vec![7; 3_000_000]).map(|()| client).unwrap());
    let deadline = Instant::now() + DEADLINE;
    let mut consumed = 0;
    while consumed < 3_000_000 {
        assert!(Instant::now() < deadline, "{consumed} bytes arrived");
        server.turn(|_, _| {});
        let length = server.input_len(id);
        assert!(length <= limits.input_bytes_max);
        if length == limits.input_bytes_max || consumed + length == 3_000_000 {
            server.event_loop.input(id).unwrap().clear();
            consumed += length;
        }
    }
    drop(client.join().unwrap());
}

#[test]
fn a_full_connection_does_not_keep_the_loop_busy() {
    let mut server = Server::new(LoopLimits { input_bytes_max: 10, ..LoopLimits::default() });
    let mut client = server.connect();
    let id = server.accept();
    client.write_all(&[1; 50]).unwrap();
    server.until(|_, event| matches!(event, Event::Input { .. }).then_some(()));
    server.turn(|_, _| {});
    let mut events = Vec::new();
    let before = Instant::now();
    server.event_loop.poll(Some(Duration::from_millis(30)), &mut events).unwrap();
    assert!(events.is_empty() && before.elapsed() >= Duration::from_millis(30));
    assert_eq!(server.input_len(id), 10);
}

#[test]
fn a_slow_reader_gets_everything_in_the_end() {
    let mut server = Server::new(LoopLimits::default());
    let mut client = server.connect();
    let id = server.accept();
    let chunk = bytes::Bytes::from(vec![5; 1 << 20]);
    for _ in 0..32 {
        server.event_loop.outbound(id).unwrap().push(chunk.clone());
    }
    server.event_loop.flush();
    assert!(server.event_loop.outbound_len(id) > 0, "the kernel took it all: nothing is tested");
    let client = thread::spawn(move || {
        let mut bytes = vec![0; 32 << 20];
        client.read_exact(&mut bytes).unwrap();
        assert!(bytes.iter().all(|&byte| byte == 5));
        client
    });
    server.until(|_, event| matches!(event, Event::Drained { .. }).then_some(()));
    assert_eq!(server.event_loop.outbound_len(id), 0);
    drop(client.join().unwrap());
}

#[test]
fn a_reader_that_never_reads_is_closed_at_the_limit() {
    let mut server = Server::new(LoopLimits { outbound_bytes_max: 1 << 20, ..LoopLimits::default() });
    let client = server.connect();
    let id = server.accept();
    let chunk = bytes::Bytes::from(vec![5; 1 << 18]);
    let deadline = Instant::now() + DEADLINE;
    let mut closed = false;
    while !closed {
        assert!(Instant::now() < deadline, "{} bytes queued", server.event_loop.outbound_len(id));
        server.turn(|event_loop, event| match event {
            Event::Closed { reason: CloseReason::SlowReader { queued_bytes, outbound_bytes_max }, .. } => {
                assert!(*queued_bytes > 1 << 20 && *queued_bytes <= (1 << 20) + (1 << 18));
                assert_eq!(*outbound_bytes_max, 1 << 20);
                assert!(event_loop.outbound(id).is_some(), "known until the next turn");
                closed = true;
            }
            other => panic!("{other:?}"),
        });
        if let Some(outbound) = server.event_loop.outbound(id).filter(|_| !closed) {
            outbound.push(chunk.clone());
            server.event_loop.flush();
        }
    }
    server.turn(|_, _| {});
    assert_eq!(server.event_loop.connections(), 0);
    drop(client);
}

#[test]
fn an_idle_connection_keeps_little_memory() {
    let mut server = Server::new(LoopLimits::default());
    let mut client = server.connect();
    let id = server.accept();
    for (bytes, is_kept) in [(1 << 10, true), (1 << 20, false)] {
        client.write_all(&vec![1; bytes]).unwrap();
        let deadline = Instant::now() + DEADLINE;
        while server.input_len(id) < bytes {
            assert!(Instant::now() < deadline);
            server.turn(|_, _| {});
        }
        server.event_loop.input(id).unwrap().clear();
        for _ in 0..200 {
            server.event_loop.poll(Some(Duration::ZERO), &mut Vec::new()).unwrap();
        }
        assert_eq!(server.event_loop.input(id).unwrap().capacity() > 0, is_kept, "after {bytes} bytes");
    }
}
