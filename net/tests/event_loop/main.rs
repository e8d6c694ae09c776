//! Tests of the event loop over real loopback sockets: delivery, order, and resistance to bad peers.
//!
//! The loop under test runs on the test's own thread. Clients are plain blocking sockets, on threads of their own where
//! they must run at the same time. Every wait ends when its condition holds, or fails the test at a deadline. No test
//! sleeps for a fixed time.

mod delivery;
mod flow;
mod lifetime;

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use net::event::{ConnectionId, Event};
use net::event_loop::{EventLoop, LoopLimits};

const DEADLINE: Duration = Duration::from_secs(20);

/// An event loop, and a buffer for the events of one turn.
struct Server {
    event_loop: EventLoop,
    events: Vec<Event>,
}

impl Server {
    fn new(limits: LoopLimits) -> Self {
        let event_loop = EventLoop::bind("127.0.0.1:0".parse().unwrap(), limits).unwrap();
        Self { event_loop, events: Vec::new() }
    }

    fn addr(&self) -> SocketAddr {
        self.event_loop.local_addr().unwrap()
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    /// Runs one turn, which waits for at most 100 ms, and passes each event to `on_event`.
    fn turn(&mut self, mut on_event: impl FnMut(&mut EventLoop, &Event)) {
        let mut events = std::mem::take(&mut self.events);
        self.event_loop.poll(Some(Duration::from_millis(100)), &mut events).unwrap();
        for event in &events {
            on_event(&mut self.event_loop, event);
        }
        self.event_loop.flush();
        self.events = events;
    }

    /// Runs turns until `found` returns a result for an event.
    #[track_caller]
    fn until<T>(&mut self, mut found: impl FnMut(&mut EventLoop, &Event) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        let mut result = None;
        while result.is_none() {
            assert!(Instant::now() < deadline, "it did not happen");
            self.turn(|event_loop, event| {
                if result.is_none() {
                    result = found(event_loop, event);
                }
            });
        }
        result.unwrap()
    }

    /// Runs turns until the thread `client` has finished.
    #[track_caller]
    fn serve<T>(&mut self, client: thread::JoinHandle<T>, mut on_event: impl FnMut(&mut EventLoop, &Event)) -> T {
        let deadline = Instant::now() + DEADLINE;
        while !client.is_finished() {
            assert!(Instant::now() < deadline, "the client is still waiting");
            self.turn(&mut on_event);
        }
        client.join().unwrap()
    }

    #[track_caller]
    fn accept(&mut self) -> ConnectionId {
        self.until(|_, event| opened(event))
    }

    fn input_len(&mut self, id: ConnectionId) -> usize {
        self.event_loop.input(id).map_or(0, |input| input.len())
    }
}

fn opened(event: &Event) -> Option<ConnectionId> {
    if let Event::Opened { id, .. } = event { Some(*id) } else { None }
}

/// Sends back what arrives, and closes when the peer has sent everything.
fn echo(event_loop: &mut EventLoop, event: &Event) {
    match event {
        Event::Input { id } => {
            let bytes = event_loop.input(*id).unwrap().split();
            event_loop.outbound(*id).unwrap().buffer().extend_from_slice(&bytes);
        }
        Event::Eof { id } => event_loop.close_after_flush(*id),
        _ => {}
    }
}

fn read_to_end(mut stream: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}
