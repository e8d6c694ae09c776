//! Clocks that are wrong, set, frozen, or unknown.

use super::*;

const ME: NodeId = NodeId(1);
const HOUR_MS: i64 = 3_600_000;
/// Real time when a test begins, in unix milliseconds.
const START_MS: i64 = 1_700_000_000_000;

/// Node 1 and its peers, with the errors of their clocks in milliseconds.
struct Cluster {
    node: ClusterTime,
    voters: Members,
    passed_ms: i64,
    own_ms: i64,
    peers: Vec<(NodeId, i64, Option<i64>)>,
    latest_ms: i64,
    silent: usize,
}

impl Cluster {
    fn new(own_ms: i64, peers: &[i64]) -> Cluster {
        let peers = peers.iter().zip(2..).map(|(off_ms, id)| (NodeId(id), *off_ms, None)).collect::<Vec<_>>();
        let voters = Members::new((1..=peers.len() as u32 + 1).map(NodeId).collect());
        Cluster { node: ClusterTime::new(Versions::OURS), voters, passed_ms: 0, own_ms, peers, latest_ms: 0, silent: 0 }
    }

    fn time(&self) -> Time {
        let unix_ms = START_MS + self.passed_ms + self.own_ms;
        Time { mono_us: Us(5_000_000 + self.passed_ms as u64 * 1_000), unix_us: Us(unix_ms as u64 * 1_000) }
    }

    /// Ticks for `ms`, with pings from the peers in `up` every 100 ms. Returns the error of cluster time afterwards, in
    /// ms.
    fn run(&mut self, ms: i64, up: &[u32], is_born: bool) -> Option<i64> {
        for _ in 0..ms / 20 {
            self.passed_ms += 20;
            let time = self.time();
            let told = |off_ms: i64| Us(((START_MS + self.passed_ms + off_ms - 1) * 1_000) as u64);
            if self.passed_ms % 100 == 0 {
                for (id, off_ms, cluster_ms) in self.peers.iter().filter(|(id, ..)| up.contains(&id.0)) {
                    let clocks = PingClocks { unix_us: told(*off_ms), cluster_us: cluster_ms.map(told) };
                    self.node.on_ping(*id, clocks, round_trip(Us(2_000), time), time);
                }
            }
            let (voters, silent, latest_ms) = (&self.voters, self.silent, Ms(self.latest_ms as u64));
            self.node.steer(Electorate { me: ME, voters, silent, latest_ms }, is_born, time);
        }
        self.off_ms()
    }

    fn off_ms(&self) -> Option<i64> {
        self.node.now_ms(self.time()).map(|now_ms| now_ms.0 as i64 - START_MS - self.passed_ms)
    }
}

/// Returns the round trip of a peer that answers at once.
fn round_trip(us: Us, now: Time) -> RoundTrip {
    RoundTrip { sent_us: now.mono_us.saturating_sub(us), us }
}

#[test]
fn there_is_no_cluster_time_until_another_clock_is_heard_of_after_a_jump() {
    let mut cluster = Cluster::new(0, &[0, 0]);
    cluster.run(1_000, &[2, 3], true);
    cluster.own_ms = HOUR_MS;
    assert_eq!(cluster.off_ms(), None, "before it has noticed");
    assert_eq!(cluster.run(500, &[], true), None);
    // This ping was delayed, and answers a ping from before the jump.
    let (time, waited) = (cluster.time(), PingClocks { unix_us: Us(0), cluster_us: None });
    cluster.node.on_ping(NodeId(2), waited, RoundTrip { sent_us: time.mono_us - Us(700_000), us: Us(0) }, time);
    assert_eq!(cluster.off_ms(), None);
    assert_eq!(cluster.run(100, &[2], true), Some(0));
    cluster.run(2_000, &[2, 3], true);
    cluster.own_ms = 0;
    assert_eq!(cluster.run(CLOCK_JUMP_MS_MAX.0 as i64 - 20, &[], true), None);
    assert_eq!(cluster.run(100, &[], true), Some(0), "the wait for another clock is over");
    let mut alone = Cluster::new(0, &[]);
    alone.run(1_000, &[], true);
    alone.own_ms = HOUR_MS;
    assert_eq!(alone.off_ms(), Some(0), "there is none to be heard of");
}

#[test]
fn one_wrong_clock_has_no_effect_whosever_it_is_also_at_the_birth() {
    for wrong_ms in [8 * HOUR_MS, -8 * HOUR_MS, 60_000] {
        assert_eq!(Cluster::new(wrong_ms, &[0, 0]).run(200, &[2, 3], true), Some(0), "its own");
        assert_eq!(Cluster::new(0, &[0, wrong_ms]).run(200, &[2, 3], true), Some(0), "a peer's");
        let mut later = Cluster::new(0, &[0, 0]);
        later.run(1_000, &[2, 3], true);
        (later.own_ms, later.peers[1].1) = (wrong_ms, 0);
        assert_eq!(later.run(10_000, &[2, 3], true), Some(0), "later");
        later.own_ms = 0;
        assert_eq!(later.run(10_000, &[2, 3], true), Some(0), "right again");
    }
    assert_eq!(Cluster::new(0, &[0, HOUR_MS, -HOUR_MS, 0]).run(200, &[2, 3, 4, 5], true), Some(0), "two of five");
}

#[test]
fn the_median_is_followed_by_at_most_a_tenth() {
    let mut cluster = Cluster::new(0, &[0, 0]);
    cluster.run(1_000, &[2, 3], true);
    cluster.peers.iter_mut().for_each(|(_, off_ms, _)| *off_ms = 8 * HOUR_MS);
    let off_ms = cluster.run(10_000, &[2, 3], true).unwrap();
    assert!((980..=1_000).contains(&off_ms), "a majority is fast: {off_ms}");
    cluster.peers.iter_mut().for_each(|(_, off_ms, _)| *off_ms = -8 * HOUR_MS);
    let off_ms = cluster.run(10_000, &[2, 3], true).unwrap();
    assert!((-20..=20).contains(&off_ms), "and slow: {off_ms}");
    cluster.peers.iter_mut().for_each(|(_, off_ms, _)| *off_ms = 30);
    assert_eq!(cluster.run(10_000, &[2, 3], true), Some(30), "a small error is steered away");
}

#[test]
fn while_a_member_is_away_another_ones_wrong_clock_has_no_effect() {
    let mut cluster = Cluster::new(0, &[0, 0]);
    cluster.run(1_000, &[2, 3], true);
    let after_ms = 2 * CLOCK_READING_MS_MAX.0 as i64;
    assert_eq!(cluster.run(after_ms, &[2], true), Some(0));
    cluster.peers[0].1 = 8 * HOUR_MS;
    assert_eq!(cluster.run(10_000, &[2], true), Some(0));
    assert_eq!(cluster.run(after_ms, &[], true), Some(0), "and alone");
    cluster.own_ms = HOUR_MS;
    assert_eq!(cluster.run(10_000, &[], true), Some(0), "nobody follows a clock alone");
}

#[test]
fn a_starting_node_takes_over_the_cluster_time_of_the_others() {
    let mut cluster = Cluster::new(-HOUR_MS, &[0, 0]);
    cluster.peers[0].2 = Some(7_000);
    assert_eq!(cluster.run(100, &[2], false), Some(7_000), "before anything else");
    cluster.peers[1].2 = Some(7_000);
    let off_ms = cluster.run(10_000, &[2, 3], true).unwrap();
    assert!((6_750..=7_000).contains(&off_ms), "it stays with the others, who stay there: {off_ms}");
}

#[test]
fn a_start_waits_for_a_majority_and_a_little_for_the_others() {
    let mut cluster = Cluster::new(0, &[0, 0]);
    assert_eq!(cluster.run(10_000, &[], true), None, "alone");
    assert_eq!(cluster.run(10_000, &[2, 3], false), None, "not born");
    let mut cluster = Cluster::new(0, &[8 * HOUR_MS, 0]);
    cluster.latest_ms = START_MS;
    assert_eq!(cluster.run(CLOCK_WAIT_MS.0 as i64, &[2], true), None);
    let off_ms = cluster.run(200, &[2], true).unwrap();
    assert!((-1_300..=0).contains(&off_ms), "of two clocks the one nearer to the groups' time: {off_ms}");
    let mut cluster = Cluster::new(0, &[-8 * HOUR_MS, 0]);
    cluster.latest_ms = START_MS - 500;
    cluster.run(CLOCK_WAIT_MS.0 as i64 + 200, &[2], true);
    assert!((-2_000..=-500).contains(&cluster.off_ms().unwrap()), "also if the other one is slow");
}

#[test]
fn a_frozen_machine_follows_the_others_at_once() {
    let mut cluster = Cluster::new(0, &[0, 0]);
    cluster.run(1_000, &[2, 3], true);
    // The machine was frozen for a minute: its monotonic clock stood still, and all clocks are ahead of that, its own
    // too.
    cluster.own_ms = 60_000;
    cluster.peers.iter_mut().for_each(|peer| (peer.1, peer.2) = (60_000, Some(60_000)));
    let off_ms = cluster.run(200, &[2, 3], true).unwrap();
    assert!((59_900..=60_000).contains(&off_ms), "{off_ms}");
}

#[test]
fn a_frozen_machine_jumps_with_one_other_and_a_clock_that_is_set_alone_does_no_harm() {
    for (other_ms, expected_ms) in [(60_000, 60_000), (0, 0), (-20_000, 0), (20_000, 20_000), (80_000, 60_000)] {
        let mut cluster = Cluster::new(0, &[0, 0]);
        cluster.peers.iter_mut().for_each(|peer| peer.2 = Some(0));
        cluster.run(1_000, &[2, 3], true);
        cluster.own_ms = 60_000;
        cluster.run(20, &[], true);
        assert_eq!(cluster.node.ping_clocks(cluster.time()).unwrap().cluster_us, None, "it is in doubt");
        // Node 2 has restarted meanwhile.
        (cluster.peers[0].1, cluster.peers[0].2) = (other_ms, None);
        cluster.run(180, &[2], true);
        let off_ms = cluster.off_ms().unwrap();
        assert!((expected_ms - 20..=expected_ms + 20).contains(&off_ms), "{off_ms} of {expected_ms}");
        assert_eq!(cluster.node.ahead_ms(NodeId(3), ME), None, "what was heard before does not count");
    }
    let mut cluster = Cluster::new(0, &[0, 0]);
    cluster.run(1_000, &[2, 3], true);
    cluster.own_ms = 60_000;
    assert_eq!(cluster.run(CLOCK_JUMP_MS_MAX.0 as i64 + 40, &[], true), Some(0), "nobody else was heard");
    assert!(cluster.node.ping_clocks(cluster.time()).unwrap().cluster_us.is_some());
}

#[test]
fn of_five_clocks_two_that_jump_at_once_are_no_freeze() {
    for others in [&[2, 3][..], &[3, 2]] {
        let mut cluster = Cluster::new(0, &[0, 0, 0, 0]);
        cluster.run(1_000, &[2, 3, 4, 5], true);
        (cluster.own_ms, cluster.peers[1].1) = (8 * HOUR_MS, 3 * HOUR_MS);
        cluster.run(200, others, true);
        assert_eq!(cluster.off_ms(), Some(0), "{others:?}");
    }
    let mut cluster = Cluster::new(0, &[0, 0, 0, 0]);
    cluster.run(1_000, &[2, 3, 4, 5], true);
    cluster.own_ms = 60_000;
    cluster.peers.iter_mut().for_each(|peer| peer.1 = 60_000);
    cluster.run(200, &[3, 2], true);
    assert!((59_980..=60_020).contains(&cluster.off_ms().unwrap()), "three are a majority");
}

#[test]
fn there_is_no_cluster_time_while_only_clocks_that_jumped_or_are_new_were_heard_of() {
    // Only one of the four other clocks is read, and it has jumped. Two that jumped would show a freeze, and one that
    // stayed would rule it out.
    let mut cluster = Cluster::new(0, &[0, 0, 0, 0]);
    cluster.run(1_000, &[2, 3, 4, 5], true);
    cluster.own_ms = 60_000;
    cluster.peers.iter_mut().for_each(|peer| peer.1 = 60_000);
    assert_eq!(cluster.run(200, &[3], true), None);
    let off_ms = cluster.run(100, &[2], true).unwrap();
    assert!((59_980..=60_020).contains(&off_ms), "{off_ms}");
    // The other two members are new.
    let mut cluster = Cluster::new(0, &[0, 0]);
    cluster.run(1_000, &[], false);
    cluster.peers.iter_mut().for_each(|peer| peer.2 = Some(0));
    cluster.run(1_000, &[2], true);
    cluster.own_ms = 9_000;
    cluster.peers.iter_mut().for_each(|peer| (peer.1, peer.2) = (9_000, Some(9_000)));
    assert_eq!(cluster.run(CLOCK_WAIT_MS.0 as i64 - 100, &[3], true), None, "its clock tells nothing");
    let off_ms = cluster.run(200, &[3], true).unwrap();
    assert!((8_980..=9_020).contains(&off_ms), "it is followed: {off_ms}");
}

#[test]
fn clocks_of_nodes_that_do_not_vote_tell_nothing_of_a_freeze() {
    let mut cluster = Cluster::new(0, &[0, 0, 0, 0]);
    cluster.voters = Members::new([1, 2, 3].map(NodeId).to_vec());
    cluster.run(1_000, &[2, 3, 4, 5], true);
    cluster.own_ms = HOUR_MS;
    [2, 3].iter().for_each(|guest| cluster.peers[*guest].1 = HOUR_MS);
    assert_eq!(cluster.run(200, &[4, 5], true), None, "no voter is heard of");
    assert_eq!(cluster.run(200, &[2, 3, 4, 5], true), Some(0));
}

#[test]
fn a_machine_that_has_followed_the_others_does_not_jump_besides() {
    let mut cluster = Cluster::new(0, &[0, 0, 0, 0]);
    cluster.run(2_000, &[4, 5], true);
    cluster.own_ms = 60_000;
    cluster.peers.iter_mut().for_each(|peer| (peer.1, peer.2) = (60_000, Some(60_000)));
    // Node 1 knew only one of these clocks before. One clock is not enough to detect a freeze, but the three are a
    // majority to follow.
    cluster.run(200, &[2, 3, 4], true);
    let (time, unix_us) = (cluster.time(), Us(((START_MS + cluster.passed_ms + 60_000) * 1_000) as u64));
    let clocks = PingClocks { unix_us, cluster_us: Some(unix_us) };
    cluster.node.on_ping(NodeId(5), clocks, round_trip(Us(0), time), time);
    assert!((59_900..=60_020).contains(&cluster.off_ms().unwrap()), "{:?}", cluster.off_ms());
}

#[test]
fn a_cluster_time_that_is_made_after_a_freeze_does_not_jump_with_it() {
    let mut cluster = Cluster::new(0, &[0, 0]);
    cluster.run(1_000, &[2], false);
    // Node 1 was frozen for six seconds before the birth. Node 2 sent its pings after four of these seconds.
    cluster.own_ms = 6_000;
    (cluster.peers[0].1, cluster.peers[1].1) = (4_000, 6_000);
    cluster.run(200, &[2, 3], false);
    let off_ms = cluster.run(40, &[], true).unwrap();
    assert!((5_980..=6_020).contains(&off_ms), "{off_ms}");
    cluster.peers[0].1 = 6_000;
    let off_ms = cluster.run(200, &[2, 3], true).unwrap();
    assert!((5_980..=6_020).contains(&off_ms), "{off_ms}");
}

#[test]
fn a_clock_that_is_set_while_its_machine_is_frozen_leaves_it_to_another_member() {
    let mut cluster = Cluster::new(8 * HOUR_MS, &[0, 0]);
    cluster.peers.iter_mut().for_each(|peer| peer.2 = Some(0));
    cluster.run(1_000, &[2, 3], true);
    // Node 1 was frozen for a minute, and its clock is right afterwards.
    cluster.own_ms = 60_000;
    cluster.peers.iter_mut().for_each(|peer| (peer.1, peer.2) = (60_000, None));
    cluster.run(1_200, &[2], true);
    assert_eq!(cluster.node.ping_clocks(cluster.time()).unwrap().cluster_us, None, "it is in doubt");
    cluster.peers[0].2 = Some(60_000);
    let off_ms = cluster.run(200, &[2], true).unwrap();
    assert!((59_900..=60_020).contains(&off_ms), "{off_ms}");
    assert!(cluster.node.ping_clocks(cluster.time()).unwrap().cluster_us.is_some());
}

#[test]
fn members_of_an_older_version_leave_it_to_the_own_clock() {
    let mut cluster = Cluster::new(5_000, &[0, 0]);
    cluster.silent = 2;
    assert_eq!(cluster.run(CLOCK_WAIT_MS.0 as i64 + 200, &[], true), Some(5_000));
    assert_eq!(cluster.node.ping_clocks(cluster.time()).unwrap().cluster_us, None, "it is not worth telling");
    cluster.silent = 0;
    cluster.own_ms = 6_000;
    assert_eq!(cluster.run(200, &[], true), Some(6_000), "also while nobody is connected");
    assert_eq!(cluster.run(200, &[2, 3], true), Some(0), "they were upgraded");
}

#[test]
fn a_reading_that_took_long_is_left_out_if_there_is_a_better_one() {
    let mut cluster = Cluster::new(0, &[0, 0]);
    cluster.run(1_000, &[2, 3], true);
    let time = cluster.time();
    let clocks = PingClocks { unix_us: Us(0), cluster_us: None };
    let before = cluster.node.ahead_ms(NodeId(2), ME);
    cluster.node.on_ping(NodeId(2), clocks, round_trip(CLOCK_ERROR_MS_MAX.to_us() * 2 + Us(2), time), time);
    assert_eq!(cluster.node.ahead_ms(NodeId(2), ME), before);
    let after = |us| Time { mono_us: time.mono_us + us, unix_us: time.unix_us + us };
    let later = after(Us(1_000_000));
    cluster.node.on_ping(NodeId(2), clocks, round_trip(CLOCK_ERROR_MS_MAX.to_us() * 2 + Us(2), later), later);
    assert_ne!(cluster.node.ahead_ms(NodeId(2), ME), before, "any is better than an old one");
    let before = cluster.node.ahead_ms(NodeId(2), ME);
    let clocks = PingClocks { unix_us: time.unix_us, cluster_us: None };
    let later = after(Us(99_000_000));
    cluster.node.on_ping(NodeId(2), clocks, round_trip(Us(99_000_000), later), later);
    assert_eq!(cluster.node.ahead_ms(NodeId(2), ME), before, "but not one that slept on its way");
}

#[test]
fn clocks_at_the_ends_of_their_range_do_no_harm() {
    for unix_us in [Us(0), Us::MAX] {
        let mut cluster = Cluster::new(0, &[0, 0]);
        let time = Time { unix_us, ..cluster.time() };
        for id in [2, 3] {
            let clocks = PingClocks { unix_us, cluster_us: Some(unix_us) };
            cluster.node.on_ping(NodeId(id), clocks, round_trip(ECHO_MS_MAX.to_us(), time), time);
        }
        let electorate = Electorate { me: ME, voters: &cluster.voters, silent: 0, latest_ms: Ms::MAX };
        cluster.node.steer(electorate, true, time);
        assert!(cluster.node.now_ms(time).is_some());
    }
}
