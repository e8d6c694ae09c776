//! The schedule of an open loop: the intended time of each request, whatever the server does.
//!
//! A timer of the kernel wakes the event loop. The loop's own time-out counts whole milliseconds, which would show up
//! as latency that no server caused.

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

const SECOND_NS: f64 = 1e9;

/// Evenly spaced intended times.
#[derive(Debug)]
pub struct Pacer {
    interval_ns: f64,
    /// The first intended time. Threads that share a rate take turns.
    offset_ns: f64,
    taken: u64,
    timer: OwnedFd,
    armed_for_ns: u64,
}

impl Pacer {
    /// Creates a pacer for `rate` requests per second in all. It makes every `share`-th of them, beginning with number
    /// `index`.
    ///
    /// # Errors
    /// If the kernel gives no timer.
    pub fn new(rate: f64, index: usize, share: usize) -> io::Result<Pacer> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let spacing_ns = SECOND_NS / rate;
        Ok(Pacer {
            interval_ns: spacing_ns * share as f64,
            offset_ns: spacing_ns * index as f64,
            taken: 0,
            timer,
            armed_for_ns: 0,
        })
    }

    /// Returns the file descriptor to watch for readability.
    #[must_use]
    pub fn raw_fd(&self) -> RawFd {
        self.timer.as_raw_fd()
    }

    /// Returns the intended time of the next request.
    #[must_use]
    pub fn next_ns(&self) -> u64 {
        (self.offset_ns + self.taken as f64 * self.interval_ns) as u64
    }

    /// Takes the next request if it is due, and returns its intended time.
    pub fn take(&mut self, now_ns: u64) -> Option<u64> {
        let intended_ns = self.next_ns();
        (intended_ns <= now_ns).then(|| {
            self.taken += 1;
            intended_ns
        })
    }

    /// Returns the number of requests that were due before `end_ns` and not taken.
    #[must_use]
    pub fn overdue(&self, end_ns: u64) -> u64 {
        let due = ((end_ns as f64 - self.offset_ns) / self.interval_ns).ceil().max(0.0) as u64;
        due.saturating_sub(self.taken)
    }

    /// Sets the timer to the next request. A request that is due already waits for room on a connection, not for time.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn arm(&mut self, now_ns: u64) -> io::Result<()> {
        let next_ns = self.next_ns();
        if next_ns <= now_ns || next_ns == self.armed_for_ns {
            return Ok(());
        }
        let wait_ns = next_ns - now_ns;
        let wait = Timespec { tv_sec: (wait_ns / 1_000_000_000) as i64, tv_nsec: (wait_ns % 1_000_000_000) as i64 };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: wait };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        self.armed_for_ns = next_ns;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_at_even_distances() {
        let mut pacer = Pacer::new(1000.0, 0, 1).unwrap();
        assert_eq!(pacer.take(0), Some(0));
        assert_eq!(pacer.take(999_999), None);
        assert_eq!(pacer.take(1_000_000), Some(1_000_000));
        assert_eq!(pacer.take(5_000_000), Some(2_000_000));
        assert_eq!(pacer.overdue(5_000_000), 2);
        assert_eq!(pacer.overdue(5_000_001), 3);
    }

    #[test]
    fn threads_take_turns() {
        let mut turns: Vec<Pacer> = (0..2).map(|index| Pacer::new(1000.0, index, 2).unwrap()).collect();
        let times: Vec<u64> = (0..6).filter_map(|i: usize| turns[i % 2].take(u64::MAX)).collect();
        assert_eq!(times, [0, 1_000_000, 2_000_000, 3_000_000, 4_000_000, 5_000_000]);
    }

    #[test]
    fn the_timer_rings() {
        let mut pacer = Pacer::new(1000.0, 0, 1).unwrap();
        assert_eq!(pacer.take(0), Some(0));
        pacer.arm(0).unwrap();
        let mut expirations = [0; 8];
        let rung = loop {
            match rustix::io::read(&pacer.timer, &mut expirations) {
                Err(rustix::io::Errno::AGAIN) => std::thread::yield_now(),
                result => break result,
            }
        };
        assert_eq!(rung, Ok(8));
    }
}
