//! Input from peers arrives complete and in order, and each connection gets a fair share of the reads.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Instant;

use net::event::Event;
use net::event_loop::{EventLoop, LoopLimits};
use net::resp::request::{RequestLimits, RequestParser};

use crate::{DEADLINE, Server, echo, opened};

#[test]
fn many_connections_get_their_own_bytes_back() {
    let mut server = Server::new(LoopLimits::default());
    let addr = server.addr();
    let client = thread::spawn(move || {
        let mut streams = (0..200).map(|_| TcpStream::connect(addr).unwrap()).collect::<Vec<_>>();
        for round in 0..20 {
            for (index, stream) in streams.iter_mut().enumerate() {
                stream.set_read_timeout(Some(DEADLINE)).unwrap();
                write!(stream, "{round} {index};").unwrap();
            }
            for (index, stream) in streams.iter_mut().enumerate() {
                let expected = format!("{round} {index};");
                let mut bytes = vec![0; expected.len()];
                stream.read_exact(&mut bytes).unwrap();
                assert_eq!(bytes, expected.as_bytes());
            }
        }
    });
    server.serve(client, echo);
    while server.event_loop.connections() > 0 {
        server.turn(echo);
    }
}

#[test]
fn a_request_in_tiny_pieces_is_assembled() {
    let mut server = Server::new(LoopLimits::default());
    let mut client = server.connect();
    client.set_nodelay(true).unwrap();
    let id = server.accept();
    for (index, byte) in b"PING\r\n".iter().enumerate() {
        client.write_all(&[*byte]).unwrap();
        server.until(|_, event| matches!(event, Event::Input { .. }).then_some(()));
        assert_eq!(server.input_len(id), index + 1);
    }
    let calls = server.event_loop.system_calls();
    assert!(calls.reads >= 6 && calls.polls >= 6 && calls.writes == 0, "{calls:?}");
}

#[test]
fn a_stream_of_megabytes_arrives_whole() {
    let mut server = Server::new(LoopLimits::default());
    let mut client = server.connect();
    let sent = (0..8_000_000_u32).map(|number| ((number * 7) >> 3) as u8).collect::<Vec<_>>();
    let expected = sent.clone();
    let echoed = thread::spawn(move || {
        let mut reader = client.try_clone().unwrap();
        let writer = thread::spawn(move || {
            client.write_all(&sent).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
        });
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        writer.join().unwrap();
        bytes
    });
    let echoed = server.serve(echoed, echo);
    assert!(echoed == expected, "{} of {} bytes arrived, or they differ", echoed.len(), expected.len());
}

#[test]
fn an_expected_long_request_is_read_in_place() {
    let mut server = Server::new(LoopLimits::default());
    let mut client = server.connect();
    let id = server.accept();
    let sent = (0..3_000_000_u32).map(|number| ((number * 11) >> 2) as u8).collect::<Vec<_>>();
    let expected = sent.clone();
    let writer = thread::spawn(move || client.write_all(&sent).map(|()| client).unwrap());
    server.event_loop.expect(id, expected.len());
    let deadline = Instant::now() + DEADLINE;
    while server.input_len(id) < expected.len() {
        assert!(Instant::now() < deadline, "{} bytes arrived", server.input_len(id));
        server.turn(|_, _| {});
    }
    assert!(server.event_loop.input(id).unwrap()[..] == expected[..]);
    drop(writer.join().unwrap());
}

#[test]
fn ten_thousand_pipelined_requests_are_answered_in_order() {
    const COUNT: usize = 10_000;
    let mut server = Server::new(LoopLimits::default());
    let mut client = server.connect();
    let id = server.accept();
    let client = thread::spawn(move || {
        let requests = (0..COUNT).map(|index| format!("ECHO {index}\r\n")).collect::<String>();
        let mut reader = client.try_clone().unwrap();
        let writer = thread::spawn(move || client.write_all(requests.as_bytes()).map(|()| client).unwrap());
        let expected = (0..COUNT).map(|index| format!("+{index}\r\n")).collect::<String>();
        let mut replies = vec![0; expected.len()];
        reader.read_exact(&mut replies).unwrap();
        assert!(replies == expected.as_bytes());
        writer.join().unwrap();
    });
    let mut parser = RequestParser::new(RequestLimits::default());
    let mut answered = 0;
    server.serve(client, |event_loop, event| {
        if !matches!(event, Event::Input { .. }) {
            return;
        }
        let mut input = event_loop.input(id).unwrap().split();
        let replies = event_loop.outbound(id).unwrap().buffer();
        while let Some(length) = parser.poll(&input).unwrap() {
            replies.extend_from_slice(b"+");
            replies.extend_from_slice(parser.arg(1, &input));
            replies.extend_from_slice(b"\r\n");
            bytes::Buf::advance(&mut input, length);
            answered += 1;
        }
        event_loop.input(id).unwrap().unsplit(input);
    });
    assert_eq!(answered, COUNT);
}

#[test]
fn a_flood_does_not_delay_a_small_request() {
    let mut server = Server::new(LoopLimits::default());
    let floods = (0..4).map(|_| server.connect()).collect::<Vec<_>>();
    let writers = floods.iter().map(|stream| {
        let mut stream = stream.try_clone().unwrap();
        thread::spawn(move || while stream.write_all(&[1; 1 << 16]).is_ok() {})
    });
    let writers = writers.collect::<Vec<_>>();
    let swallow = |event_loop: &mut EventLoop, event: &Event| {
        if let Event::Input { id } = event {
            event_loop.input(*id).unwrap().clear();
        }
    };
    for _ in 0..20 {
        server.turn(swallow);
    }
    let mut client = server.connect();
    let mut small = None;
    client.write_all(b"small").unwrap();
    let mut told = 0;
    server.until(|event_loop, event| {
        told += 1;
        small = small.or(opened(event));
        if let Event::Input { id } = event {
            assert!(event_loop.input(*id).unwrap().len() <= 256 << 10, "one turn's budget");
        }
        swallow(event_loop, event);
        matches!(event, Event::Input { id } if Some(*id) == small).then_some(())
    });
    assert!(told < 100, "{told} events came before it");
    floods.iter().for_each(|stream| stream.shutdown(Shutdown::Both).unwrap());
    writers.into_iter().for_each(|writer| writer.join().unwrap());
}
