//! Threads for work that can wait, beside the event loop. When processors are short, these threads yield to those that
//! serve clients, here and in other nodes that the system schedules together with this one.

/// Lowers the calling thread's priority: while a serving thread wants the processor, the calling thread gets about a
/// tenth of that thread's share. While no serving thread wants it, the calling thread gets all of it. Threads started
/// later inherit the priority. The priority cannot be raised again, so never call this on a thread that starts serving
/// threads, such as the one that opens the log.
pub fn lower_priority() {
    // If the system refuses, the work runs at normal priority.
    let _ = rustix::process::nice(NICE);
}

/// Nice value of background threads: weight 110 in Linux, against 1024 of a serving thread. Serving threads hardly
/// notice this share, and it is enough for the background work to end in any case.
const NICE: i32 = 10;
