//! Leases. A node that receives a ping of a member that wants leases grants it one: until [`LEASE_MS`] after the
//! receipt, the node promises no ballot to others in the groups that this member leads. A leader that holds the grants
//! of a majority knows that no other leader can have been elected. It then answers reads without asking the other
//! members.
//!
//! Times of different clocks are never compared. The granter counts from the receipt of the ping. The holder counts
//! from its *sending*, and a tenth less ([`LEASE_HELD_MS`]), so the granter's clock may run that much faster.
//!
//! A grant names the version of the holder's list of (group, ballot) for which it is given. It also names the groups of
//! that list that it excludes, because they have a higher promise already. A list can mark a group as led without a
//! lease. In this way a leader transfer ends the group's lease. A membership change of a group ends the group's lease
//! too: from then on a grant counts only if a present voter gave it for a later list. A restarted node does not know
//! the grants that it gave before. So it promises nothing for as long as such a grant may hold.

use crate::config::{LEASE_HELD_MS, LEASE_MS, LEASE_REST_MS};
use crate::node::wire::Claims;
use groups::{Ballot, GroupId, Membership, NodeId, Us};

/// Both sides of leases: the grants that this node holds, and those that it has given.
pub(super) struct Leases {
    /// True if this node wants leases; it grants them in any case.
    wanted: bool,
    /// Time before which this node neither promises a ballot nor grants a lease.
    silent_until_us: Us,
    /// The groups that this node leads, in the order of the groups.
    led: Vec<Led>,
    others: Vec<Other>,
}

struct Led {
    group: GroupId,
    ballot: Ballot,
    /// The version of the group's membership.
    members: u64,
    /// A grant counts for the group only if it names this version of this node's list, or a later one.
    since: u64,
    /// Start of the group's latest leader transfer to another member. While it is set, no grant counts for the group.
    /// It is cleared if this node still leads the group [`LEASE_REST_MS`] later.
    handed_us: Option<Us>,
}

/// Another member, with the grants in both directions.
struct Other {
    id: NodeId,
    /// True if the member wants leases.
    wants: bool,
    /// The lease granted to this member: expiry time, and the groups that it covers. The grant survives a disconnect.
    given_until_us: Us,
    given: Vec<(GroupId, Ballot)>,
    given_version: u64,
    /// The lease granted by this member: expiry time, the version of this node's list, and the groups that it excludes.
    held_until_us: Us,
    held_version: u64,
    held_except: Vec<GroupId>,
}

impl Other {
    fn new(id: NodeId) -> Other {
        Other {
            id,
            wants: false,
            given_until_us: Us(0),
            given: Vec::new(),
            given_version: 0,
            held_until_us: Us(0),
            held_version: 0,
            held_except: Vec::new(),
        }
    }
}

impl Leases {
    pub(super) fn new(wanted: bool) -> Leases {
        Leases { wanted, silent_until_us: Us(0), led: Vec::new(), others: Vec::new() }
    }

    /// Adds the present members of any group. A former member stays until [`Leases::forget`] removes it.
    pub(super) fn enroll(&mut self, ids: impl Iterator<Item = NodeId>) {
        for id in ids {
            if self.find(id).is_none() {
                self.others.push(Other::new(id));
            }
        }
    }

    /// Forgets the members that are `gone` from the cluster, each when the lease granted to it has expired.
    pub(super) fn forget(&mut self, gone: impl Fn(NodeId) -> bool, now_us: Us) {
        self.others.retain(|other| now_us < other.given_until_us || !gone(other.id));
    }

    /// Makes this node promise nothing for [`LEASE_MS`] after its start.
    pub(super) fn begin(&mut self, now_us: Us) {
        self.silent_until_us = now_us + LEASE_MS.to_us();
    }

    pub(super) fn wanted(&self) -> bool {
        self.wanted
    }

    /// Sets the groups that this node leads, each with its ballot and the version of its membership. `version` is the
    /// version of this node's list that names them.
    pub(super) fn set_led(&mut self, led: &[(GroupId, Ballot, u64)], version: u64) {
        let mut before = std::mem::take(&mut self.led).into_iter().peekable();
        for &(group, ballot, members) in led {
            while before.next_if(|known| known.group < group).is_some() {}
            let known = before.next_if(|known| (known.group, known.ballot, known.members) == (group, ballot, members));
            self.led.push(known.unwrap_or(Led { group, ballot, members, since: version, handed_us: None }));
        }
    }

    /// Ends the lease of a group that is being handed over. Returns true if the other members must be told.
    pub(super) fn release(&mut self, group: GroupId, now_us: Us) -> bool {
        let Some(led) = self.led.iter_mut().find(|led| led.group == group) else { return false };
        self.wanted && led.handed_us.replace(now_us).is_none()
    }

    /// Finds the groups that this node still leads [`LEASE_REST_MS`] after a transfer began. From version `version` of
    /// this node's list on, grants count for them again. Returns true if there are such groups.
    pub(super) fn resume(&mut self, version: u64, now_us: Us) -> bool {
        let over = |led: &&mut Led| led.handed_us.is_some_and(|since_us| now_us >= since_us + LEASE_REST_MS.to_us());
        let mut any = false;
        for led in self.led.iter_mut().filter(over) {
            (led.handed_us, led.since, any) = (None, version, true);
        }
        any
    }

    /// Returns the led groups for which no lease is wanted.
    pub(super) fn unleased(&self) -> Vec<GroupId> {
        self.led.iter().filter(|led| led.handed_us.is_some()).map(|led| led.group).collect()
    }

    /// Takes a member's list, unless it is older than the known one: versions keep growing across restarts of the
    /// member. The lease granted to the member covers this list from now on.
    pub(super) fn on_claims(&mut self, id: NodeId, claims: &Claims) {
        if let Some(other) = self.find(id).filter(|other| other.given_version <= claims.version) {
            other.given_version = claims.version;
            let leased = claims.led.iter().filter(|(group, _)| claims.unleased.binary_search(group).is_err());
            other.given = leased.copied().collect();
        }
    }

    /// Takes a ping. Its lease grant counts only if the ping answers a ping of this node, which was sent at `sent_us`.
    pub(super) fn on_ping(
        &mut self,
        id: NodeId,
        wants: bool,
        version: u64,
        lease_grant: Option<&Vec<GroupId>>,
        sent_us: Option<Us>,
    ) {
        let Some(other) = self.find(id) else { return };
        other.wants = wants;
        if let (Some(except), Some(sent_us)) = (lease_grant, sent_us) {
            other.held_until_us = sent_us + LEASE_HELD_MS.to_us();
            other.held_version = version;
            other.held_except.clone_from(except);
        }
    }

    /// Drops the grants that a member gave on a connection that is gone. The lease granted to the member stays.
    pub(super) fn on_cut(&mut self, id: NodeId) {
        if let Some(other) = self.find(id) {
            (other.wants, other.held_until_us, other.held_version) = (false, Us(0), 0);
        }
    }

    /// Grants `id` a lease in answer to its ping, which came at `pinged_us`. The lease covers all groups that `id`
    /// leads, except for those that are returned. `None`: no lease is granted.
    pub(super) fn give(
        &mut self,
        id: NodeId,
        pinged_us: Us,
        now_us: Us,
        promised: impl Fn(GroupId) -> Option<Ballot>,
    ) -> Option<Vec<GroupId>> {
        if now_us < self.silent_until_us {
            return None;
        }
        let other = self.find(id).filter(|other| other.wants)?;
        other.given_until_us = other.given_until_us.max(pinged_us + LEASE_MS.to_us());
        let outdated =
            |(group, ballot): &&(GroupId, Ballot)| promised(*group).is_none_or(|promised| promised > *ballot);
        Some(other.given.iter().filter(outdated).map(|(group, _)| *group).collect())
    }

    /// Returns true if this node, a voter that leads `group` under `ballot`, holds lease grants of a majority of the
    /// voters.
    pub(super) fn holds(&self, group: GroupId, ballot: Ballot, membership: &Membership, now_us: Us) -> bool {
        if !self.wanted {
            return false;
        }
        let Ok(index) = self.led.binary_search_by_key(&group, |led| led.group) else { return false };
        let led = &self.led[index];
        let counts = |other: &&Other| {
            let said = now_us < other.held_until_us && led.since <= other.held_version;
            said && !other.held_except.contains(&group) && membership.voters().contains(other.id)
        };
        (led.ballot, led.members, led.handed_us) == (ballot, membership.version(), None)
            && self.others.iter().filter(counts).count() + 1 >= membership.voters().quorum()
    }

    /// Returns true if the leases let this node promise a ballot of `group` to `to`, which may be this node itself.
    /// `promised`: the group's promise so far.
    pub(super) fn allows(&self, group: GroupId, to: NodeId, promised: Ballot, now_us: Us) -> bool {
        let bars = |other: &Other| {
            let given = || other.given.binary_search_by_key(&group, |(id, _)| *id).map(|at| other.given[at].1);
            other.id != to && now_us < other.given_until_us && given().is_ok_and(|ballot| ballot >= promised)
        };
        self.others.is_empty() || (now_us >= self.silent_until_us && !self.others.iter().any(bars))
    }

    fn find(&mut self, id: NodeId) -> Option<&mut Other> {
        self.others.iter_mut().find(|other| other.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use groups::membership::{ChangeKind, MemberInfo, MembershipChange};

    const MS: Us = Us(1_000);
    const GROUP: GroupId = GroupId(4);
    const LEADER: NodeId = NodeId(1);

    fn voters(count: u32) -> Membership {
        Membership::of_ids((1..=count).map(NodeId))
    }

    fn ballot(round: u64) -> Ballot {
        Ballot { round, node: LEADER }
    }

    fn claims(version: u64, round: u64, unleased: Vec<GroupId>) -> Claims {
        Claims { version, led: vec![(GROUP, ballot(round))], unleased }
    }

    /// Creates the leases of member 1 of three, which leads a group as of version 5.
    fn leader() -> Leases {
        let mut leases = Leases::new(true);
        leases.enroll([NodeId(2), NodeId(3)].into_iter());
        leases.set_led(&[(GROUP, ballot(7), 0)], 5);
        leases
    }

    /// Creates the leases of member 2 of three. Member 1 leads that group, and has pinged it at 1 s.
    fn voter() -> Leases {
        let mut leases = Leases::new(false);
        leases.enroll([LEADER, NodeId(3)].into_iter());
        leases.on_ping(LEADER, true, 0, None, None);
        leases.on_claims(LEADER, &claims(5, 7, Vec::new()));
        assert_eq!(leases.give(LEADER, MS * 1_000, MS * 1_050, |_| Some(Ballot::ZERO)), Some(Vec::new()));
        leases
    }

    fn grant(leases: &mut Leases, version: u64, except: &[GroupId], sent_us: Us) {
        leases.on_ping(NodeId(3), false, version, Some(&except.to_vec()), Some(sent_us));
    }

    #[test]
    fn a_lease_counts_from_the_sending_of_the_ping_and_is_a_tenth_shorter() {
        let mut leases = leader();
        let holds = |leases: &Leases, at_us| leases.holds(GROUP, ballot(7), &voters(3), at_us);
        assert!(!holds(&leases, Us(0)));
        grant(&mut leases, 5, &[], MS * 1_000);
        assert!(holds(&leases, MS * 1_359) && !holds(&leases, MS * 1_360));
        assert!(!leases.holds(GROUP, ballot(8), &voters(3), MS * 1_100), "another ballot");
        assert!(!leases.holds(GROUP, ballot(7), &voters(5), MS * 1_100), "no majority");
        leases.on_cut(NodeId(3));
        assert!(!holds(&leases, MS * 1_100));
    }

    #[test]
    fn a_grant_counts_for_the_claimed_groups_and_ballots() {
        let mut leases = leader();
        let holds = |leases: &Leases| leases.holds(GROUP, ballot(7), &voters(3), MS * 1_100);
        grant(&mut leases, 4, &[], MS * 1_000);
        assert!(!holds(&leases), "the granter did not know yet which node leads the group");
        grant(&mut leases, 5, &[GROUP], MS * 1_000);
        assert!(!holds(&leases), "the granter has promised a higher ballot");
        grant(&mut leases, 6, &[], MS * 1_000);
        assert!(holds(&leases));
        leases.set_led(&[(GroupId(1), ballot(2), 0), (GROUP, ballot(7), 0)], 7);
        assert!(holds(&leases), "other groups change nothing");
        leases.set_led(&[(GROUP, ballot(9), 0)], 8);
        assert!(!holds(&leases) && !leases.holds(GROUP, ballot(9), &voters(3), MS * 1_100));
    }

    #[test]
    fn a_leader_transfer_ends_the_lease_and_an_older_grant_does_not_renew_it() {
        let mut leases = leader();
        grant(&mut leases, 5, &[], MS * 1_000);
        assert!(leases.release(GROUP, MS * 1_010) && !leases.release(GROUP, MS * 1_020));
        assert_eq!((leases.holds(GROUP, ballot(7), &voters(3), MS * 1_030), leases.unleased()), (false, vec![GROUP]));
        assert!(!leases.resume(7, MS * 1_500));
        assert!(leases.resume(7, MS * 2_020));
        grant(&mut leases, 6, &[], MS * 2_000);
        assert!(!leases.holds(GROUP, ballot(7), &voters(3), MS * 2_100), "a grant given before the new claim");
        grant(&mut leases, 7, &[], MS * 2_000);
        assert!(leases.holds(GROUP, ballot(7), &voters(3), MS * 2_100));
    }

    #[test]
    fn grants_count_if_voters_gave_them_after_the_membership_change() {
        let mut leases = leader();
        grant(&mut leases, 5, &[], MS * 1_000);
        let mut members = voters(1);
        let mut change = |kind| {
            members.apply(&MembershipChange { version: members.version(), kind }).expect("a valid change");
            members.clone()
        };
        change(ChangeKind::AddLearner(MemberInfo { node: NodeId(2), ..MemberInfo::default() }));
        change(ChangeKind::AddLearner(MemberInfo { node: NodeId(3), ..MemberInfo::default() }));
        let two = change(ChangeKind::Promote(NodeId(2)));
        assert!(!leases.holds(GROUP, ballot(7), &two, MS * 1_100), "other members than when the group was claimed");
        leases.set_led(&[(GROUP, ballot(7), two.version())], 6);
        grant(&mut leases, 5, &[], MS * 1_000);
        assert!(!leases.holds(GROUP, ballot(7), &two, MS * 1_100), "a grant for the list before");
        grant(&mut leases, 6, &[], MS * 1_000);
        assert!(!leases.holds(GROUP, ballot(7), &two, MS * 1_100), "a learner's grant");
        let three = change(ChangeKind::Promote(NodeId(3)));
        leases.set_led(&[(GROUP, ballot(7), three.version())], 7);
        grant(&mut leases, 7, &[], MS * 1_000);
        assert!(leases.holds(GROUP, ballot(7), &three, MS * 1_100));
    }

    #[test]
    fn a_grant_to_a_removed_member_is_kept_until_it_expires() {
        let mut leases = voter();
        leases.forget(|id| id == LEADER, MS * 1_399);
        assert!(!leases.allows(GROUP, NodeId(3), ballot(7), MS * 1_399));
        leases.forget(|id| id == LEADER, MS * 1_400);
        assert_eq!(leases.others.len(), 1);
    }

    #[test]
    fn nothing_is_promised_to_others_until_the_grant_expires() {
        let mut leases = voter();
        let to = |leases: &Leases, id, at_us| leases.allows(GROUP, NodeId(id), ballot(7), at_us);
        assert!(to(&leases, 1, MS * 1_399), "the leader itself");
        assert!(!to(&leases, 3, MS * 1_399) && !to(&leases, 2, MS * 1_399) && to(&leases, 3, MS * 1_400));
        leases.on_cut(LEADER);
        assert!(!to(&leases, 3, MS * 1_399), "the grant survives a disconnect");
        assert!(leases.allows(GROUP, NodeId(3), ballot(8), MS * 1_100), "the promise is above the leader's ballot");
        assert!(leases.allows(GroupId(5), NodeId(3), Ballot::ZERO, MS * 1_100));
        leases.on_claims(LEADER, &claims(6, 7, vec![GROUP]));
        assert!(to(&leases, 3, MS * 1_100), "the leader hands the group over");
    }

    #[test]
    fn a_grant_excludes_groups_with_a_higher_promise_and_is_given_only_on_request() {
        let mut leases = voter();
        let higher = |_| Some(Ballot { round: 7, node: NodeId(3) });
        assert_eq!(leases.give(LEADER, MS * 1_100, MS * 1_100, higher), Some(vec![GROUP]));
        assert_eq!(leases.give(NodeId(3), MS * 1_100, MS * 1_100, higher), None);
    }

    #[test]
    fn a_restarted_node_promises_nothing_while_its_earlier_grants_may_hold() {
        let mut leases = voter();
        leases.begin(MS * 2_000);
        assert_eq!(leases.give(LEADER, MS * 2_300, MS * 2_399, |_| Some(Ballot::ZERO)), None);
        assert!(!leases.allows(GROUP, NodeId(3), Ballot::ZERO, MS * 2_399));
        assert!(!leases.allows(GROUP, LEADER, Ballot::ZERO, MS * 2_399));
        assert!(leases.allows(GROUP, NodeId(3), Ballot::ZERO, MS * 2_400));
        let mut alone = Leases::new(true);
        alone.begin(MS * 2_000);
        assert!(alone.allows(GROUP, LEADER, Ballot::ZERO, MS * 2_000));
    }
}
