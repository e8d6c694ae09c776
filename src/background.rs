//! Threads for work that can wait, beside the event loop: where processors are short, they give way to what serves clients,
//! here and in other nodes that the system schedules together with this one.

/// For the calling thread, and those that it starts: from now on each processor gives it about a tenth of what it gives a
/// thread that serves, as long as there is one that wants it; and all of it if there is none. There is no way back, so it
/// is not for a thread that starts others that serve, as the one does that opens the log.
pub fn give_way() {
    // Where the system does not let it, the work is done as fast as any other.
    let _ = rustix::process::nice(NICE);
}

/// A weight of 110 beside 1024 in Linux: little enough to be hardly noticed, and enough for the work to end in any case.
const NICE: i32 = 10;
