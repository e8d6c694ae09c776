//! Runs a load: sets the connections up, starts the threads, and gathers what they measured.

use super::cluster::SlotMap;
use super::record::Measurements;
use super::verify::Recording;
use super::worker::Worker;
use super::workload::{Picker, Requests, Workload, once_prefix};
use crate::client::Client;
use anyhow::{anyhow, bail};
use net::resp::value::Value;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Interval between reports of progress.
const TICK: Duration = Duration::from_millis(100);
/// Time limit for one set-up request.
const SETUP_MAX: Duration = Duration::from_secs(10);

/// All details of a load.
#[derive(Debug)]
pub struct Plan {
    /// Addresses to connect to. Connection `i` uses address `i` modulo their number, unless there is a map.
    pub addresses: Vec<SocketAddr>,
    /// Map of the slots. With it, each request goes to the node that owns its key, and each connection becomes one per
    /// node.
    pub map: Option<SlotMap>,
    /// Connections in all.
    pub connections: usize,
    /// Threads that share the connections.
    pub threads: usize,
    /// Maximum requests in flight per connection.
    pub pipeline: usize,
    /// The end of the load.
    pub limit: Limit,
    /// Requests per second in all, for an open loop. Without a rate, the loop is closed: each reply lets the next
    /// request go.
    pub rate: Option<f64>,
    /// The kind of load.
    pub workload: Workload,
    /// The picker of the keys. The threads divide a sequence among themselves.
    pub picker: Picker,
    /// The encoder of the requests.
    pub requests: Requests,
    /// Equal seeds give equal requests per thread.
    pub seed: u64,
    /// Recording of all requests for verification, if any.
    pub recording: Option<Recording>,
    /// Time to wait for outstanding replies at the end.
    pub grace: Duration,
    /// Silence after which a load of a fixed number of requests is given up.
    pub silence_max: Duration,
}

/// When a load is over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// After this time.
    Time(Duration),
    /// After this number of requests in all.
    Requests(u64),
}

/// Drives the load to its end, or until `stop` is set. Calls `on_tick` with the number of replies ten times a second.
///
/// # Errors
/// If a server is not there at the start, or this machine lacks a resource. Later failures are in the measurements.
pub fn drive(plan: &Plan, stop: &AtomicBool, mut on_tick: impl FnMut(u64)) -> anyhow::Result<Measurements> {
    let sessions = sessions(plan)?;
    let replies = AtomicU64::new(0);
    let mut workers: Vec<Worker<'_>> = Vec::with_capacity(plan.threads);
    for index in 0..plan.threads {
        workers.push(Worker::new(plan, index, &sessions, stop, &replies)?);
    }
    let start = Instant::now();
    let (done, results) = channel();
    thread::scope(|scope| {
        for worker in workers {
            let done = done.clone();
            // The receiver is gone only if another thread has failed. That failure is then the result.
            scope.spawn(move || _ = done.send(worker.run(start)));
        }
        drop(done);
        let mut merged = Measurements::new()?;
        loop {
            match results.recv_timeout(TICK) {
                Ok(record) => merged.merge(record?),
                Err(RecvTimeoutError::Timeout) => on_tick(replies.load(Ordering::Relaxed)),
                Err(RecvTimeoutError::Disconnected) => return Ok(merged),
            }
        }
    })
}

/// Returns the first bytes of the `ONCE` requests of each connection, which has a session of its own.
fn sessions(plan: &Plan) -> anyhow::Result<Vec<Vec<u8>>> {
    if plan.workload != Workload::Once {
        return Ok(vec![Vec::new(); plan.connections]);
    }
    let address = plan.addresses[0];
    let mut client = Client::connect(address, SETUP_MAX)
        .map_err(|error| anyhow!("cannot connect to {address}: {error}; is a server running there?"))?;
    let mut session = || match client.call(&[b"SESSION", b"NEW"]) {
        Ok(Value::Int(id)) => Ok(once_prefix(id.to_string().as_bytes())),
        Ok(Value::Error(text)) => bail!("{address} gives no sessions: {text}"),
        Ok(reply) => match reply.as_bytes() {
            Some(id) => Ok(once_prefix(id)),
            None => Err(anyhow!("{address} replied to SESSION NEW without a session id")),
        },
        Err(error) => Err(anyhow!("{address} gives no sessions: {error}")),
    };
    (0..plan.connections).map(|_| session()).collect()
}
