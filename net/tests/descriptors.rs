//! The event loop when the process has no more file descriptors. This is a test program of its own, because the limit
//! holds for the whole process.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use net::event::Event;
use net::event_loop::{EventLoop, LoopLimits};
use rustix::process::{Resource, getrlimit, setrlimit};

#[test]
fn accepting_pauses_and_goes_on_when_there_are_descriptors_again() {
    let mut event_loop = EventLoop::bind("127.0.0.1:0".parse().unwrap(), LoopLimits::default()).unwrap();
    let client = TcpStream::connect(event_loop.local_addr().unwrap()).unwrap();
    let before = getrlimit(Resource::Nofile);
    let mut none = before;
    none.current = Some(3);
    setrlimit(Resource::Nofile, none).unwrap();

    let mut events = Vec::new();
    let start = Instant::now();
    let (mut turns, mut failures) = (0, 0);
    while start.elapsed() < Duration::from_millis(250) {
        event_loop.poll(Some(Duration::from_secs(1)), &mut events).unwrap();
        turns += 1;
        failures += events.iter().filter(|event| matches!(event, Event::AcceptFailed { .. })).count();
        assert!(events.iter().all(|event| matches!(event, Event::AcceptFailed { .. })), "{events:?}");
    }
    assert!((1..=4).contains(&failures), "{failures} attempts in 250 ms");
    assert!(turns <= 8, "{turns} turns in 250 ms: the loop spins");

    setrlimit(Resource::Nofile, before).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !events.iter().any(|event| matches!(event, Event::Opened { .. })) {
        assert!(Instant::now() < deadline, "the waiting connection was forgotten");
        event_loop.poll(Some(Duration::from_secs(1)), &mut events).unwrap();
    }
    drop(client);
}
