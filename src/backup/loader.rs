//! Connections that send batches of commands, each on a thread of its own. A batch is sent again, to the next address,
//! until all of it was answered with OK. SETs may be repeated, because no key is in two batches.

use crate::client::Client;
use anyhow::{Context, anyhow};
use net::resp::value::Value;
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle, sleep};
use std::time::{Duration, Instant};

/// Size at which a batch is closed. Its last value may exceed the size by any amount.
pub(super) const BATCH_BYTES: usize = 256 << 10;
/// Maximum bytes of batches that wait or are in flight. One larger batch is allowed alone.
const WAITING_BYTES_MAX: usize = 32 << 20;
/// Time limit for a node's answer to a batch: longer than the default time limit of a command (5 s).
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Time after which a batch that no node accepted fails.
const PATIENCE: Duration = Duration::from_secs(60);
/// The pause before a batch is sent again.
const PAUSE: Duration = Duration::from_millis(200);
/// First words of temporary error replies. The batch is sent again.
const PASSING: [&str; 6] = ["CLUSTERDOWN", "UNCERTAIN", "LOADING", "MISCONF", "TRYAGAIN", "MASTERDOWN"];

struct Batch {
    requests: Vec<u8>,
    count: usize,
}

/// State that the threads share.
struct Shared {
    addresses: Vec<(String, SocketAddr)>,
    batches: Mutex<Receiver<Batch>>,
    progress: Mutex<LoadProgress>,
    changed: Condvar,
}

#[derive(Default)]
struct LoadProgress {
    waiting_bytes: usize,
    failed: Option<anyhow::Error>,
}

/// The connections and their threads.
pub(super) struct Loader {
    shared: Arc<Shared>,
    sender: Sender<Batch>,
    threads: Vec<JoinHandle<()>>,
}

impl Loader {
    /// Starts this many connections, spread over the addresses.
    pub(super) fn start(addresses: &[(String, SocketAddr)], connections: usize) -> anyhow::Result<Loader> {
        let (sender, batches) = channel();
        let shared = Arc::new(Shared {
            addresses: addresses.to_vec(),
            batches: Mutex::new(batches),
            progress: Mutex::default(),
            changed: Condvar::new(),
        });
        let start = |index: usize| {
            let shared = Arc::clone(&shared);
            Builder::new().name("paxoi-restore".to_owned()).spawn(move || shared.serve(index))
        };
        let threads = (0..connections).map(start).collect::<io::Result<Vec<_>>>().context("cannot start a thread")?;
        Ok(Loader { shared, sender, threads })
    }

    /// Queues a batch, and waits until there is room for it. After a failure, batches are discarded.
    pub(super) fn give(&self, requests: Vec<u8>, count: usize) {
        let bytes = requests.len();
        let mut progress = self.shared.progress();
        while progress.failed.is_none()
            && progress.waiting_bytes > 0
            && progress.waiting_bytes + bytes > WAITING_BYTES_MAX
        {
            progress = self.shared.changed.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
        if progress.failed.is_none() && count > 0 {
            progress.waiting_bytes += bytes;
            // This cannot fail: `shared` holds the receiver.
            let _ = self.sender.send(Batch { requests, count });
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        self.shared.progress().failed.is_some()
    }

    /// Waits until all batches are answered.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        drop(self.sender);
        for thread in self.threads {
            thread.join().map_err(|_| anyhow!("a thread panicked"))?;
        }
        self.shared.progress().failed.take().map_or(Ok(()), Err)
    }
}

impl Shared {
    fn progress(&self) -> MutexGuard<'_, LoadProgress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<Batch> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
    }

    /// Runs the thread of one connection.
    fn serve(&self, index: usize) {
        let mut link = Link { addresses: &self.addresses, at: index % self.addresses.len(), client: None };
        while let Some(batch) = self.next() {
            let sent = if self.progress().failed.is_some() { Ok(()) } else { link.deliver(&batch) };
            let mut progress = self.progress();
            progress.waiting_bytes -= batch.requests.len();
            if let Err(error) = sent {
                progress.failed.get_or_insert(error);
            }
            drop(progress);
            self.changed.notify_all();
        }
    }
}

/// A connection to one of the addresses, made on demand.
struct Link<'a> {
    addresses: &'a [(String, SocketAddr)],
    at: usize,
    client: Option<Client>,
}

impl Link<'_> {
    /// Sends a batch until a node has accepted all of it.
    fn deliver(&mut self, batch: &Batch) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (name, address) = &self.addresses[self.at];
            let reason = match self.attempt(*address, batch) {
                Ok(None) => return Ok(()),
                Ok(Some(refusal)) if !is_passing(&refusal) => {
                    return Err(anyhow!("the node at {name} refuses a key: {refusal}"));
                }
                Ok(Some(refusal)) => format!("the node at {name} refuses keys: {refusal}"),
                Err(error) => format!("the node at {name} does not answer: {error}"),
            };
            if Instant::now() > deadline {
                return Err(anyhow!(reason));
            }
            self.client = None;
            self.at = (self.at + 1) % self.addresses.len();
            sleep(PAUSE);
        }
    }

    /// Sends a batch once. Returns `None` if all of it was accepted. Otherwise returns the first permanent error reply,
    /// or the last temporary one if none is permanent.
    fn attempt(&mut self, address: SocketAddr, batch: &Batch) -> io::Result<Option<String>> {
        let client = match &mut self.client {
            Some(client) => client,
            None => self.client.insert(Client::connect(address, ANSWER_MAX)?),
        };
        let mut refusal = None;
        client.pipeline(&batch.requests, batch.count, |reply| {
            if let Value::Error(text) = reply
                && refusal.as_deref().is_none_or(is_passing)
            {
                refusal = Some(text);
            }
        })?;
        Ok(refusal)
    }
}

/// Returns true if the same command may be accepted later.
fn is_passing(refusal: &str) -> bool {
    PASSING.iter().any(|word| refusal.starts_with(word))
}
