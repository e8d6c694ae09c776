//! Threads for work that can wait, beside the event loop. When processors are short, these threads yield to those that serve
//! clients, here and in other nodes that the system schedules together with this one.

/// Lowers the calling thread's priority to about a tenth of the processor share of a serving thread, as long as one wants
/// the processor; otherwise the thread gets all of it. Threads started later inherit the priority. It cannot be raised
/// again, so never call this on a thread that starts serving threads, such as the one that opens the log.
pub fn give_way() {
    // If the system refuses, the work runs at normal priority.
    let _ = rustix::process::nice(NICE);
}

/// Nice value of background threads: weight 110 in Linux, against 1024. That is hardly noticed, and enough for the work to
/// end in any case.
const NICE: i32 = 10;
