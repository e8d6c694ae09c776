//! What the event loops of one node give each other. Each worker has a mailbox, into which the others put messages and
//! connections. A message costs a lock that is hardly ever contended, and a system
//! call only if the receiver sleeps.
//!
//! A mailbox has no limit of its own. The node bounds what its workers have in flight to each other.

use crate::node::WorkerMessage;
use crate::workers::WorkerId;
use mio::Waker;
use net::event_loop::Detached;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Something that one worker gives another.
pub(super) enum Letter {
    /// A message of this worker's node.
    Message(WorkerId, WorkerMessage),
    /// An accepted connection.
    Connection(Detached),
}

/// The mailboxes of all workers.
pub(super) struct Team {
    mailboxes: Vec<Mailbox>,
}

struct Mailbox {
    letters: Mutex<Vec<Letter>>,
    /// The worker sleeps, or is about to: it has to be woken.
    is_asleep: AtomicBool,
    waker: Arc<Waker>,
}

impl Team {
    /// Creates the mailboxes of workers with these wakers.
    pub(super) fn new(wakers: impl Iterator<Item = Arc<Waker>>) -> Team {
        let mailbox = |waker| Mailbox { letters: Mutex::new(Vec::new()), is_asleep: AtomicBool::new(false), waker };
        Team { mailboxes: wakers.map(mailbox).collect() }
    }

    /// Gives a worker a letter.
    pub(super) fn send(&self, to: WorkerId, letter: Letter) {
        let mailbox = &self.mailboxes[to.index()];
        mailbox.letters.lock().unwrap_or_else(PoisonError::into_inner).push(letter);
        if mailbox.is_asleep.swap(false, Ordering::SeqCst) {
            mailbox.wake();
        }
    }

    /// Takes the letters of a worker, in the order in which they came.
    pub(super) fn take(&self, worker: WorkerId) -> Vec<Letter> {
        if self.is_single() {
            return Vec::new();
        }
        std::mem::take(&mut self.mailboxes[worker.index()].letters.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes that a worker is about to sleep. Returns false if a letter has come: then it must not.
    pub(super) fn may_sleep(&self, worker: WorkerId) -> bool {
        if self.is_single() {
            return true;
        }
        let mailbox = &self.mailboxes[worker.index()];
        // A sender either finds the mark, or has put its letter in before this look.
        mailbox.is_asleep.store(true, Ordering::SeqCst);
        let is_empty = mailbox.letters.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        if !is_empty {
            mailbox.is_asleep.store(false, Ordering::SeqCst);
        }
        is_empty
    }

    /// Notes that a worker is awake.
    pub(super) fn on_awake(&self, worker: WorkerId) {
        self.mailboxes[worker.index()].is_asleep.store(false, Ordering::SeqCst);
    }

    fn is_single(&self) -> bool {
        self.mailboxes.len() == 1
    }

    /// Wakes all workers, so that each sees that it should stop.
    pub(super) fn wake_all(&self) {
        self.mailboxes.iter().for_each(Mailbox::wake);
    }
}

impl Mailbox {
    fn wake(&self) {
        // If the loop has ended, nobody needs to know.
        let _ = self.waker.wake();
    }
}
