//! The group's own time, by which keys expire: unix milliseconds that every value carries and that never go back.
//!
//! A leader stamps a value with cluster time. If the group's time is ahead of that, because an earlier leader's clock
//! was fast, the leader lets cluster time catch up: the group's time advances at nine tenths of the speed of the
//! monotonic clock. So a duration that is counted from the group's time lasts at least as long as it says, and at most
//! a ninth longer. No value increases the lead, because cluster time never runs slower than nine tenths of the
//! monotonic clock (see `src/node/cluster_time`).

use crate::Ms;

/// The speed of a group's time that is ahead of cluster time, in tenths of the monotonic clock's speed.
const AHEAD_SPEED_TENTHS: u64 = 9;

/// The time of one group at one member.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct GroupTime {
    now_ms: Ms,
    /// A time of the group, and the reading of the monotonic clock at that time. While the group's time is ahead of
    /// cluster time, it advances along a line that begins at this point. A value's time moves the point only if it lies
    /// above the line. If every value moved the point, each would lose a fraction of a millisecond.
    base_ms: Ms,
    base_mono_ms: Ms,
}

impl GroupTime {
    /// Returns the time after a checkpoint or a restart.
    pub(super) fn starting_at(now_ms: Ms, mono_ms: Ms) -> GroupTime {
        GroupTime { now_ms, base_ms: now_ms, base_mono_ms: mono_ms }
    }

    /// Returns the time of the latest value.
    pub(super) fn now_ms(&self) -> Ms {
        self.now_ms
    }

    /// Takes over the time of a chosen value that carries `time_ms`.
    pub(super) fn on_value(&mut self, time_ms: Ms, mono_ms: Ms) {
        if time_ms > self.continued(mono_ms) {
            (self.base_ms, self.base_mono_ms) = (time_ms, mono_ms);
        }
        self.now_ms = self.now_ms.max(time_ms);
    }

    /// Returns the time for a value that is proposed now.
    pub(super) fn next_ms(&self, mono_ms: Ms, cluster_ms: Ms) -> Ms {
        if cluster_ms >= self.now_ms { cluster_ms } else { self.continued(mono_ms).max(self.now_ms) }
    }

    fn continued(&self, mono_ms: Ms) -> Ms {
        let passed_ms = mono_ms.saturating_sub(self.base_mono_ms);
        self.base_ms.saturating_add(passed_ms * AHEAD_SPEED_TENTHS / 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_cluster_time_at_once() {
        let time = GroupTime::starting_at(Ms(0), Ms(5));
        assert_eq!(time.next_ms(Ms(5), Ms(1_700_000_000_000)), Ms(1_700_000_000_000));
        let time = GroupTime::starting_at(Ms(1_000), Ms(5));
        assert_eq!(time.next_ms(Ms(5), Ms(90_000_000)), Ms(90_000_000), "a cluster that was off for a day");
    }

    #[test]
    fn ahead_of_cluster_time_it_goes_on_more_slowly_however_many_values_there_are() {
        let lead_ms = Ms(8 * 3_600_000);
        let (mut time, start_ms) = (GroupTime::starting_at(Ms(1_000_000) + lead_ms, Ms(0)), Ms(1_000_000));
        for mono_ms in (1..=100_000).map(Ms) {
            // One value per millisecond: none may lose a fraction of a millisecond.
            let value_ms = time.next_ms(mono_ms, start_ms + mono_ms);
            assert!(value_ms >= time.now_ms());
            time.on_value(value_ms, mono_ms);
        }
        assert_eq!(time.now_ms(), start_ms + lead_ms + Ms(90_000));
    }

    #[test]
    fn what_one_value_was_ahead_is_not_added_up() {
        let mut time = GroupTime::starting_at(Ms(10_000), Ms(0));
        time.on_value(Ms(200_000), Ms(10));
        assert_eq!(time.next_ms(Ms(10), Ms(10_010)), Ms(200_000));
        time.on_value(Ms(200_000), Ms(10));
        assert_eq!(time.next_ms(Ms(1_010), Ms(11_010)), Ms(200_900));
        assert_eq!(time.next_ms(Ms(1_010), Ms(200_901)), Ms(200_901), "caught up");
    }

    #[test]
    fn a_monotonic_clock_at_its_end_does_no_harm() {
        let time = GroupTime::starting_at(Ms(u64::MAX - 1), Ms(7));
        assert_eq!(time.next_ms(Ms(0), Ms(0)), Ms(u64::MAX - 1));
        assert_eq!(time.next_ms(Ms(1_000_000), Ms(0)), Ms::MAX);
    }
}
