//! The group's own time, by which keys expire: unix milliseconds that every value carries and that never go back.
//!
//! A leader stamps a value with cluster time. If the group's time is ahead of that, because an earlier leader's clock
//! was fast, the leader lets cluster time catch up: the group's time advances at nine tenths of the speed of the
//! monotonic clock. So a duration that is counted from the group's time lasts at least as long as it says, and at most
//! a ninth longer. No value increases the lead, because cluster time never runs slower than nine tenths of the
//! monotonic clock (see `src/node/cluster_time`).

/// The speed of a group's time that is ahead of cluster time, in tenths of the monotonic clock's speed.
const AHEAD_SPEED_TENTHS: u64 = 9;

/// The time of one group at one member.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct GroupTime {
    now_ms: u64,
    /// A time of the group, and the reading of the monotonic clock at that time. While the group's time is ahead of
    /// cluster time, it advances along a line that begins at this point. A value's time moves the point only if it lies
    /// above the line. If every value moved the point, each would lose a fraction of a millisecond.
    base_ms: u64,
    base_mono_ms: u64,
}

impl GroupTime {
    /// Returns the time after a checkpoint or a restart.
    pub(super) fn starting_at(now_ms: u64, mono_ms: u64) -> GroupTime {
        GroupTime { now_ms, base_ms: now_ms, base_mono_ms: mono_ms }
    }

    /// Returns the time of the latest value.
    pub(super) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Takes over the time of a chosen value that carries `time_ms`.
    pub(super) fn on_value(&mut self, time_ms: u64, mono_ms: u64) {
        if time_ms > self.continued(mono_ms) {
            (self.base_ms, self.base_mono_ms) = (time_ms, mono_ms);
        }
        self.now_ms = self.now_ms.max(time_ms);
    }

    /// Returns the time for a value that is proposed now.
    pub(super) fn next_ms(&self, mono_ms: u64, cluster_ms: u64) -> u64 {
        if cluster_ms >= self.now_ms { cluster_ms } else { self.continued(mono_ms).max(self.now_ms) }
    }

    fn continued(&self, mono_ms: u64) -> u64 {
        let passed_ms = mono_ms.saturating_sub(self.base_mono_ms);
        self.base_ms.saturating_add(passed_ms * AHEAD_SPEED_TENTHS / 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_cluster_time_at_once() {
        let time = GroupTime::starting_at(0, 5);
        assert_eq!(time.next_ms(5, 1_700_000_000_000), 1_700_000_000_000);
        let time = GroupTime::starting_at(1_000, 5);
        assert_eq!(time.next_ms(5, 90_000_000), 90_000_000, "a cluster that was off for a day");
    }

    #[test]
    fn ahead_of_cluster_time_it_goes_on_more_slowly_however_many_values_there_are() {
        let lead_ms = 8 * 3_600_000;
        let (mut time, start_ms) = (GroupTime::starting_at(1_000_000 + lead_ms, 0), 1_000_000);
        for mono_ms in 1..=100_000 {
            // One value per millisecond: none may lose a fraction of a millisecond.
            let value_ms = time.next_ms(mono_ms, start_ms + mono_ms);
            assert!(value_ms >= time.now_ms());
            time.on_value(value_ms, mono_ms);
        }
        assert_eq!(time.now_ms(), start_ms + lead_ms + 90_000);
    }

    #[test]
    fn what_one_value_was_ahead_is_not_added_up() {
        let mut time = GroupTime::starting_at(10_000, 0);
        time.on_value(200_000, 10);
        assert_eq!(time.next_ms(10, 10_010), 200_000);
        time.on_value(200_000, 10);
        assert_eq!(time.next_ms(1_010, 11_010), 200_900);
        assert_eq!(time.next_ms(1_010, 200_901), 200_901, "caught up");
    }

    #[test]
    fn a_monotonic_clock_at_its_end_does_no_harm() {
        let time = GroupTime::starting_at(u64::MAX - 1, 7);
        assert_eq!(time.next_ms(0, 0), u64::MAX - 1);
        assert_eq!(time.next_ms(1_000_000, 0), u64::MAX);
    }
}
