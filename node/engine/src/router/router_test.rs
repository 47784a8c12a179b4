//! The router's rules one by one, and a call through a cluster whose ownership moves.

use callboard_types::Epoch;
use proptest::prelude::*;

use super::*;
use crate::view::Claim;

const ME: NodeId = NodeId(1);
const SECOND: u64 = 1_000_000;

fn at(millis: u64) -> Instant {
    Instant(millis * 1_000)
}

fn owner(node: u64, epoch: u64) -> Option<Located> {
    Some(Located { node: NodeId(node), claim: Some(Claim { recovery: 0, epoch: Epoch(epoch) }) })
}

fn preferred(node: u64) -> Option<Located> {
    Some(Located { node: NodeId(node), claim: None })
}

fn sees(owner: Option<Located>) -> Outlook {
    Outlook { me: ME, serving: false, owner }
}

const SERVING: Outlook = Outlook { me: ME, serving: true, owner: None };

fn route(origin: Origin, deadline: Option<u64>) -> Route {
    Route::new(RouteLimits::default(), origin, deadline.map(at), at(0))
}

fn entrance() -> Route {
    route(Origin::Caller, None)
}

fn retry(millis: u64) -> Decision {
    Decision::Retry { after: Duration::from_millis(millis) }
}

fn forward(node: u64) -> Decision {
    Decision::Forward { to: NodeId(node) }
}

#[test]
fn a_node_that_owns_the_partition_takes_the_call_whatever_the_view_says() {
    for origin in [Origin::Caller, Origin::Peer] {
        let outlook = Outlook { owner: owner(2, 9), ..SERVING };
        assert_eq!(route(origin, None).next(outlook, at(0)), Decision::Local);
    }
}

#[test]
fn an_entrance_forwards_to_the_owner_and_without_a_claim_to_the_preferred_leader() {
    assert_eq!(entrance().next(sees(owner(2, 9)), at(0)), forward(2));
    assert_eq!(entrance().next(sees(preferred(3)), at(0)), forward(3));
}

#[test]
fn a_forwarded_call_is_never_forwarded_again() {
    let next = |outlook| route(Origin::Peer, None).next(outlook, at(0));
    assert_eq!(next(sees(owner(3, 9))), Decision::Reject(Reject::NotHere { owner: owner(3, 9) }));
    assert_eq!(next(sees(None)), Decision::Reject(Reject::NotHere { owner: None }));
    assert_eq!(next(sees(owner(1, 9))), Decision::Reject(Reject::NotHere { owner: None }), "it is not, or not yet");
}

#[test]
fn only_the_entrance_tries_again() {
    let failed = |failure| route(Origin::Peer, None).failed(failure, at(0), at(1));
    for failure in [Failure::NoHost, Failure::AppAway, Failure::Cut] {
        assert_eq!(failed(failure), Decision::Reject(Reject::Failed(failure)));
    }
    let lost = Failure::NotOwner { owner: owner(3, 4) };
    assert_eq!(failed(lost), Decision::Reject(Reject::NotHere { owner: owner(3, 4) }));
}

#[test]
fn without_an_owner_the_entrance_waits_longer_and_longer() {
    let mut route = entrance();
    for (now, pause) in [(0, 10), (10, 20), (30, 40), (70, 80), (150, 160), (310, 200), (510, 200)] {
        assert_eq!(route.next(sees(owner(1, 5)), at(now)), retry(pause), "a claim of its own that is not valid yet");
    }
    assert_eq!(route.next(sees(owner(2, 6)), at(520)), forward(2));
}

#[test]
fn a_later_owner_that_was_just_learned_is_asked_at_once() {
    let mut route = entrance();
    assert_eq!(route.next(sees(owner(2, 5)), at(0)), forward(2));
    assert_eq!(route.failed(Failure::NotOwner { owner: owner(3, 6) }, at(0), at(1)), retry(0));
    assert_eq!(route.next(sees(owner(2, 5)), at(1)), forward(3), "the view has not heard of it");
    assert_eq!(route.failed(Failure::NotOwner { owner: owner(4, 7) }, at(1), at(2)), retry(20), "but once in a row");
    assert_eq!(route.next(sees(owner(5, 8)), at(22)), forward(5), "the view knows better");
}

#[test]
fn an_owner_that_is_no_later_is_not_followed() {
    let mut route = entrance();
    route.next(sees(owner(2, 5)), at(0));
    assert_eq!(route.failed(Failure::NotOwner { owner: owner(3, 4) }, at(0), at(1)), retry(10));
    assert_eq!(route.next(sees(owner(2, 5)), at(11)), forward(2));
    assert_eq!(route.failed(Failure::NotOwner { owner: None }, at(11), at(12)), retry(20));
}

#[test]
fn an_owner_that_was_told_and_is_not_reached_is_forgotten() {
    let mut route = entrance();
    route.next(sees(owner(2, 5)), at(0));
    route.failed(Failure::NotOwner { owner: owner(3, 6) }, at(0), at(1));
    route.next(sees(owner(2, 5)), at(1));
    assert_eq!(route.failed(Failure::Unreachable, at(1), at(2)), retry(20));
    assert_eq!(route.next(sees(owner(2, 5)), at(22)), forward(2));
}

/// Fails again and again until the route gives up; when that is, in milliseconds.
fn gives_up(mut route: Route, failure: Failure) -> u64 {
    let mut now = at(0);
    loop {
        match route.failed(failure, now, now) {
            Decision::Retry { after } => now = now.saturating_add(after.max(Duration::from_micros(1))),
            Decision::Reject(Reject::TimeUp(last)) => {
                assert_eq!(last, failure);
                return now.0 / 1_000;
            }
            other @ (Decision::Local | Decision::Forward { .. } | Decision::Reject(_)) => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_had_no_effect_is_tried_until_its_time_is_up() {
    let unowned = [Failure::NoOwner, Failure::NotOwner { owner: None }, Failure::Unreachable];
    for failure in unowned {
        assert_eq!(gives_up(entrance(), failure), 15_000, "{failure:?}");
        assert_eq!(gives_up(route(Origin::Caller, Some(30_000)), failure), 30_000, "the caller's deadline");
        assert_eq!(gives_up(route(Origin::Caller, Some(700)), failure), 700);
    }
    for failure in [Failure::NoHost, Failure::AppAway] {
        assert_eq!(gives_up(entrance(), failure), 5_000, "{failure:?}");
        assert_eq!(gives_up(route(Origin::Caller, Some(30_000)), failure), 5_000);
        assert_eq!(gives_up(route(Origin::Caller, Some(700)), failure), 700);
    }
}

#[test]
fn a_clear_answer_or_one_that_may_have_happened_is_never_tried_again() {
    for class in [Class::Rejected, Class::Busy, Class::Unknown, Class::Fenced, Class::Fatal, Class::Redirected] {
        let failure = Failure::Final(class);
        let decision = entrance().failed(failure, at(0), at(1));
        assert_eq!(decision, Decision::Reject(Reject::Failed(failure)));
        assert_eq!(Reject::Failed(failure).class(), class);
    }
}

#[test]
fn a_turn_that_a_move_cut_off_is_run_again_however_long_it_ran() {
    let mut route = entrance();
    route.failed(Failure::Unreachable, at(0), at(1));
    assert_eq!(route.failed(Failure::Cut, at(39_900), at(40_000)), retry(10));
    assert_eq!(route.next(sees(owner(2, 5)), at(40_010)), forward(2));
    assert_eq!(route.failed(Failure::Unreachable, at(40_010), at(54_999)), retry(1), "the longest of all");
    assert_eq!(
        route.failed(Failure::Unreachable, at(55_000), at(55_000)),
        Decision::Reject(Reject::TimeUp(Failure::Unreachable))
    );
}

#[test]
fn a_wait_in_a_mailbox_is_no_failure() {
    let mut route = entrance();
    let moved = Failure::NotOwner { owner: None };
    assert_eq!(route.failed(moved, at(0), at(1)), retry(10));
    assert_eq!(route.failed(moved, at(11), at(20_000)), retry(10), "it waited its turn for 20 s");
    // But silence of a node is one: it does not begin the count anew.
    assert_eq!(route.failed(Failure::Unreachable, at(20_010), at(28_000)), retry(20));
    assert!(matches!(route.failed(Failure::Unreachable, at(28_020), at(36_000)), Decision::Reject(Reject::TimeUp(_))));
}

#[test]
fn the_deadline_ends_it_before_another_attempt() {
    let mut route = route(Origin::Caller, Some(100));
    assert_eq!(route.failed(Failure::NoHost, at(0), at(95)), retry(5));
    assert_eq!(route.next(SERVING, at(100)), Decision::Reject(Reject::TimeUp(Failure::NoHost)));
    assert_eq!(Reject::TimeUp(Failure::NoHost).class(), Class::Busy);
}

/// A cluster in which owners come and go, and every node's view is some moments old.
#[derive(Debug, Clone)]
struct Cluster {
    /// When, and to whom, the partition went; nobody owns it for `gap` before.
    reigns: Vec<(u64, u64)>,
    gap: u64,
    /// By node: how old its view is.
    staleness: Vec<u64>,
}

impl Cluster {
    fn reign(&self, now: u64) -> Option<usize> {
        self.reigns.iter().rposition(|(begins, _)| *begins <= now)
    }

    /// Who serves, after the gap in which a claim is made.
    fn serving(&self, now: u64) -> Option<u64> {
        let reign = self.reign(now)?;
        let (begins, node) = self.reigns[reign];
        (now >= begins + self.gap).then_some(node)
    }

    fn outlook(&self, node: u64, now: u64) -> Outlook {
        let known = now.checked_sub(self.staleness[node as usize]).and_then(|then| self.reign(then));
        let owner = known.and_then(|reign| owner(self.reigns[reign].1, reign as u64 + 1));
        Outlook { me: NodeId(node), serving: self.serving(now) == Some(node), owner }
    }
}

proptest! {
    #[test]
    fn a_call_arrives_within_one_forward_of_its_entrance_once_ownership_rests(
        moves in prop::collection::vec((0..6_000_u64, 0..4_u64), 1..5),
        gap in 0..1_500_u64,
        staleness in prop::collection::vec(0..2_000_u64, 4),
        entrance in 0..4_u64,
    ) {
        let mut reigns = moves;
        reigns.sort_unstable();
        let cluster = Cluster { reigns, gap, staleness };
        let mut route = Route::new(RouteLimits::default(), Origin::Caller, None, at(0));
        let (mut now, mut attempts) = (0_u64, 0);
        let served_by = loop {
            prop_assert!(now < 15_000, "ownership rests after 6 s, is served within 7.5 s and known within 8");
            let decision = match route.next(cluster.outlook(entrance, now), at(now)) {
                Decision::Local => break entrance,
                Decision::Forward { to } => {
                    attempts += 1;
                    prop_assert_ne!(to, NodeId(entrance));
                    let mut there = Route::new(RouteLimits::default(), Origin::Peer, None, at(now));
                    match there.next(cluster.outlook(to.0, now + 1), at(now + 1)) {
                        Decision::Local => break to.0,
                        Decision::Reject(Reject::NotHere { owner }) => {
                            now += 2;
                            route.failed(Failure::NotOwner { owner }, at(now - 2), at(now))
                        }
                        other @ (Decision::Forward { .. } | Decision::Retry { .. } | Decision::Reject(_)) => {
                            panic!("a forwarded call: {other:?}")
                        }
                    }
                }
                waits @ (Decision::Retry { .. } | Decision::Reject(_)) => waits,
            };
            match decision {
                Decision::Retry { after } => now += (after.as_millis() as u64).max(1),
                other @ (Decision::Local | Decision::Forward { .. } | Decision::Reject(_)) => {
                    panic!("it gave up: {other:?}")
                }
            }
        };
        prop_assert!(cluster.serving(now) == Some(served_by) || cluster.serving(now + 1) == Some(served_by));
        prop_assert!(attempts < 100, "{attempts} attempts in {now} ms");
    }

    #[test]
    fn no_row_of_failures_lasts_longer_than_its_time(
        failures in prop::collection::vec((0..6_u8, 0..3_000_u64), 1..200), deadline in prop::option::of(0..40_000_u64),
    ) {
        let mut route = Route::new(RouteLimits::default(), Origin::Caller, deadline.map(at), at(0));
        let mut now = at(0);
        for (kind, millis) in failures {
            let failure = [
                Failure::NoOwner, Failure::NotOwner { owner: owner(3, millis) }, Failure::Unreachable,
                Failure::Cut, Failure::NoHost, Failure::AppAway,
            ][kind as usize];
            let began = now;
            now = now.saturating_add(Duration::from_millis(millis));
            match route.failed(failure, began, now) {
                Decision::Retry { after } => {
                    prop_assert!(after <= Duration::from_millis(200));
                    now = now.saturating_add(after);
                    prop_assert!(now <= deadline.map_or(at(55_000), at));
                }
                Decision::Reject(reject) => {
                    prop_assert_eq!(reject, Reject::TimeUp(failure));
                    return Ok(());
                }
                other @ (Decision::Local | Decision::Forward { .. }) => panic!("{other:?}"),
            }
        }
        prop_assert!(now.0 <= 55 * SECOND);
    }
}
