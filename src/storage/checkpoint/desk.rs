//! Threads that do what the node wants done with checkpoint files, one thing after the other. What waits for them is
//! bounded by the node, which gives no more than it is told was done.

use super::{Brought, Done, Errand, Job, Mover, Scribe};
use std::io;
use std::sync::mpsc::{Sender, channel};
use std::thread::{Builder, JoinHandle};

/// Somebody who works.
pub trait Worker: Send + 'static {
    /// What is to be done.
    type Task: Send;
    /// What became of it.
    type Outcome;

    /// Does one thing.
    fn perform(&mut self, task: Self::Task, out: &mut dyn FnMut(Self::Outcome));
}

impl Worker for Scribe {
    type Task = Job;
    type Outcome = Done;

    fn perform(&mut self, job: Job, out: &mut dyn FnMut(Done)) {
        if let Some(done) = Scribe::perform(self, job) {
            out(done);
        }
    }
}

impl Worker for Mover {
    type Task = Errand;
    type Outcome = Brought;

    fn perform(&mut self, errand: Errand, out: &mut dyn FnMut(Brought)) {
        Mover::perform(self, errand, out);
    }
}

/// The way to a worker's thread. Dropping it ends the thread after what it was given.
pub struct Desk<T> {
    sender: Option<Sender<T>>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Desk<T> {
    /// Starts the thread, which calls `on_done` with what became of tasks.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start<W: Worker<Task = T>>(
        name: &str,
        mut worker: W,
        mut on_done: impl FnMut(W::Outcome) + Send + 'static,
    ) -> io::Result<Desk<T>> {
        let (sender, tasks) = channel::<T>();
        let thread = Builder::new().name(name.to_owned()).spawn(move || {
            for task in tasks {
                worker.perform(task, &mut on_done);
            }
        })?;
        Ok(Desk { sender: Some(sender), thread: Some(thread) })
    }

    /// Has something done, after what was given before.
    pub fn give(&self, task: T) {
        if let Some(sender) = &self.sender {
            // A thread that panicked has said so.
            let _ = sender.send(task);
        }
    }
}

impl<T> Drop for Desk<T> {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
