//! Worker threads for checkpoint files. Each does one task after the other. The queue of a thread has no limit of its
//! own. The node bounds the queue, because the node gives new tasks only as it gets results.

use super::{CheckpointResult, CheckpointTask, CheckpointWorker, TransferResult, TransferTask, TransferWorker};
use std::io;
use std::sync::mpsc::{Sender, channel};
use std::thread::{Builder, JoinHandle};

/// A worker: performs the tasks of one thread.
pub trait Worker: Send + 'static {
    /// One task.
    type Task: Send;
    /// One result of a task.
    type Outcome;

    /// Performs one task, and calls `out` with each result.
    fn perform(&mut self, task: Self::Task, out: &mut dyn FnMut(Self::Outcome));
}

impl Worker for CheckpointWorker {
    type Task = CheckpointTask;
    type Outcome = CheckpointResult;

    fn perform(&mut self, task: CheckpointTask, out: &mut dyn FnMut(CheckpointResult)) {
        if let Some(result) = CheckpointWorker::perform(self, task) {
            out(result);
        }
    }
}

impl Worker for TransferWorker {
    type Task = TransferTask;
    type Outcome = TransferResult;

    fn perform(&mut self, task: TransferTask, out: &mut dyn FnMut(TransferResult)) {
        TransferWorker::perform(self, task, out);
    }
}

/// The handle of a worker thread. Dropping it waits until the thread has done all its tasks and ended.
pub struct WorkerThread<T> {
    sender: Option<Sender<T>>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> WorkerThread<T> {
    /// Starts the thread, which calls `on_done` with each result of a task.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start<W: Worker<Task = T>>(
        name: &str,
        mut worker: W,
        mut on_done: impl FnMut(W::Outcome) + Send + 'static,
    ) -> io::Result<WorkerThread<T>> {
        let (sender, tasks) = channel::<T>();
        let thread = Builder::new().name(name.to_owned()).spawn(move || {
            for task in tasks {
                worker.perform(task, &mut on_done);
            }
        })?;
        Ok(WorkerThread { sender: Some(sender), thread: Some(thread) })
    }

    /// Queues a task behind those given before.
    pub fn give(&self, task: T) {
        if let Some(sender) = &self.sender {
            // The send fails only if the thread panicked, which was reported there.
            let _ = sender.send(task);
        }
    }
}

impl<T> Drop for WorkerThread<T> {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
