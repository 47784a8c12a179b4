//! One member per node: the right incarnation, the right standing, and a higher version with each change.

use callboard_engine::placement::Table;
use callboard_engine::view::App;
use callboard_types::{Epoch, PartitionId};

use super::*;

const OWN: ClusterId = ClusterId(1);

fn at(millis: u64) -> Instant {
    Instant(millis * 1_000)
}

fn seen(node: u64, generation: u64, alive: bool) -> Seen {
    let said = Announcement { cluster: Some(OWN), ..Announcement::default() };
    let gossip = ([127, 0, 0, 1], 1).into();
    Seen { node: NodeId(node), generation, gossip, alive, said: Arc::new(said) }
}

fn saying(seen: Seen, change: impl FnOnce(&mut Announcement)) -> Seen {
    let mut said = (*seen.said).clone();
    change(&mut said);
    Seen { said: Arc::new(said), ..seen }
}

fn leaving(seen: Seen) -> Seen {
    saying(seen, |said| said.phase = Phase::Leaving)
}

/// Node, generation and standing of each member.
fn shown(members: &Members) -> Vec<(u64, u64, Standing)> {
    members.all.iter().map(|member| (member.node.0, member.generation, member.standing)).collect()
}

fn observe(observer: &mut Observer, millis: u64, seen: Vec<Seen>) -> Option<Vec<(u64, u64, Standing)>> {
    observer.observe(at(millis), Some(OWN), seen).map(|members| shown(&members))
}

#[test]
fn members_are_in_the_order_of_their_ids_and_found_by_them() {
    let mut observer = Observer::default();
    let members =
        observer.observe(at(1), Some(OWN), vec![seen(3, 1, true), seen(1, 1, false), seen(2, 1, true)]).unwrap();
    assert_eq!(members.all.iter().map(|member| member.node.0).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(members.live().map(|member| member.node.0).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(members.get(NodeId(2)).unwrap().node, NodeId(2));
    assert_eq!(members.get(NodeId(9)), None);
}

#[test]
fn of_several_incarnations_the_live_one_with_the_highest_generation_counts() {
    let table: [(&[(u64, bool)], u64); 7] = [
        (&[(1, true), (2, true)], 2),
        (&[(2, true), (1, true)], 2),
        (&[(1, false), (2, true)], 2),
        // The clock went back between two starts.
        (&[(1, true), (2, false)], 1),
        (&[(1, false), (2, false), (3, false)], 3),
        (&[(3, false), (1, true), (2, true)], 2),
        (&[(u64::MAX, true), (1, true)], u64::MAX),
    ];
    for (incarnations, wanted) in table {
        let all = incarnations.iter().map(|(generation, alive)| seen(1, *generation, *alive)).collect();
        let shown = observe(&mut Observer::default(), 1, all).unwrap();
        assert_eq!(
            shown.iter().map(|(_, generation, _)| *generation).collect::<Vec<_>>(),
            [wanted],
            "{incarnations:?}"
        );
    }
}

#[test]
fn an_incarnation_that_left_does_not_hide_the_next_one() {
    let shown = observe(&mut Observer::default(), 1, vec![leaving(seen(1, 5, true)), seen(1, 4, true)]);
    assert_eq!(shown, Some(vec![(1, 4, Standing::Live)]));
}

#[test]
fn a_silent_node_is_dead_since_it_was_seen_so_and_live_as_soon_as_it_is_heard() {
    let mut observer = Observer::default();
    assert_eq!(observe(&mut observer, 1, vec![seen(1, 1, true)]), Some(vec![(1, 1, Standing::Live)]));
    let dead = Standing::Dead { since: at(2) };
    assert_eq!(observe(&mut observer, 2, vec![seen(1, 1, false)]), Some(vec![(1, 1, dead)]));
    assert_eq!(observe(&mut observer, 3, vec![seen(1, 1, false)]), None);
    assert_eq!(observe(&mut observer, 4, vec![seen(1, 1, true)]), Some(vec![(1, 1, Standing::Live)]));
    let again = Standing::Dead { since: at(5) };
    assert_eq!(observe(&mut observer, 5, vec![seen(1, 1, false)]), Some(vec![(1, 1, again)]));
}

#[test]
fn a_node_that_leaves_is_gone_at_once_and_stays_gone() {
    let mut observer = Observer::default();
    observe(&mut observer, 1, vec![seen(1, 1, true)]);
    let left = Standing::Left { since: at(2) };
    assert_eq!(observe(&mut observer, 2, vec![leaving(seen(1, 1, true))]), Some(vec![(1, 1, left)]));
    assert_eq!(observe(&mut observer, 3, vec![leaving(seen(1, 1, false))]), None);
    assert_eq!(observe(&mut observer, 4, vec![seen(1, 2, true)]), Some(vec![(1, 2, Standing::Live)]));
}

#[test]
fn nobody_is_declared_dead_for_a_while_after_this_node_stood_still() {
    let mut observer = Observer::default();
    observe(&mut observer, 1, vec![seen(1, 1, true), seen(2, 1, false)]);
    observer.stalled(at(1_000), Duration::from_millis(600));
    // The dead stay dead, the live are given time, whoever is not heard in that time is dead.
    assert_eq!(observe(&mut observer, 1_000, vec![seen(1, 1, false), seen(2, 1, false)]), None);
    assert_eq!(observe(&mut observer, 1_599, vec![seen(1, 1, false), seen(2, 1, false)]), None);
    let (one, two) = (Standing::Dead { since: at(1_600) }, Standing::Dead { since: at(1) });
    let shown = observe(&mut observer, 1_600, vec![seen(1, 1, false), seen(2, 1, false)]);
    assert_eq!(shown, Some(vec![(1, 1, one), (2, 1, two)]));
    // A node that leaves is believed even then.
    observer.stalled(at(2_000), Duration::from_millis(600));
    let shown = observe(&mut observer, 2_001, vec![leaving(seen(2, 1, false))]);
    assert_eq!(shown, Some(vec![(2, 1, Standing::Left { since: at(2_001) })]));
}

#[test]
fn a_node_of_another_cluster_is_a_stranger_and_one_of_none_is_seen() {
    let of = |node, cluster: Option<ClusterId>| saying(seen(node, 1, true), |said| said.cluster = cluster);
    let all = || vec![of(1, Some(OWN)), of(2, Some(ClusterId(2))), of(3, None)];
    let nodes = |own| {
        let members = Observer::default().observe(at(1), own, all()).unwrap();
        members.all.iter().map(|member| member.node.0).collect::<Vec<_>>()
    };
    assert_eq!(nodes(Some(OWN)), [1, 3]);
    assert_eq!(nodes(Some(ClusterId(2))), [2, 3]);
    assert_eq!(nodes(None), [1, 2, 3]);
}

#[test]
fn the_version_rises_with_each_change_and_only_then() {
    let mut observer = Observer::default();
    let mut version = |seen| observer.observe(at(1), Some(OWN), seen).map(|members| members.version);
    assert_eq!(version(vec![]), None);
    assert_eq!(version(vec![seen(1, 1, true)]), Some(1));
    assert_eq!(version(vec![seen(1, 1, true)]), None);
    assert_eq!(version(vec![saying(seen(1, 1, true), |said| said.recovery = 1)]), Some(2));
    assert_eq!(version(vec![]), Some(3));
}

#[test]
fn routing_gets_what_each_member_offers() {
    let offering = |seen| {
        saying(seen, |said| {
            said.namespace = "default".into();
            said.peer = vec!["10.0.0.1:50002".into(), "10.0.0.2:50002".into()];
            said.app = Some(App { id: "shop".into(), healthy: true });
            said.types = BTreeMap::from([("Cat".into(), 7)]);
            said.owned = BTreeMap::from([(PartitionId(127), Epoch(3))]);
        })
    };
    let offers = |seen: Seen| {
        let members = Observer::default().observe(at(1), Some(OWN), vec![seen]).unwrap();
        let view = members.view();
        assert_eq!(view.version(), members.version);
        let owner = view.owner(PartitionId(127), &Table::default()).is_some();
        (view.is_up(NodeId(1)), !view.hosts("default", "Cat").is_empty(), owner)
    };
    let phase = |phase| offers(saying(offering(seen(1, 1, true)), |said| said.phase = phase));
    for up in [Phase::Starting, Phase::Serving, Phase::Other] {
        assert_eq!(phase(up), (true, true, true), "{up:?}");
    }
    assert_eq!(phase(Phase::Draining), (true, false, true));
    assert_eq!(phase(Phase::Leaving), (false, false, false));
    assert_eq!(offers(offering(seen(1, 1, false))), (false, false, false));
    let unwell = saying(offering(seen(1, 1, true)), |said| said.app = Some(App { id: "shop".into(), healthy: false }));
    assert_eq!(offers(unwell), (true, false, true));

    let members =
        Observer::default().observe(at(1), Some(OWN), vec![offering(seen(1, 1, true)), seen(2, 1, true)]).unwrap();
    let peers: Vec<_> = members.view().nodes().map(|node| node.peer.to_string()).collect();
    assert_eq!(peers, ["10.0.0.1:50002", "127.0.0.1:1"], "where it gossips, if it does not say");
}

#[test]
fn what_routing_gets_changes_with_the_member() {
    let mut observer = Observer::default();
    let mut report = |millis, seen| observer.observe(at(millis), Some(OWN), vec![seen]).unwrap().all[0].report.clone();
    assert_eq!(report(1, seen(1, 1, true)).presence, Presence::Up);
    assert_eq!(report(2, seen(1, 1, false)).presence, Presence::Down);
    assert_eq!(report(3, saying(seen(1, 1, false), |said| said.recovery = 4)).recovery, 4);
    assert_eq!(report(4, seen(1, 2, true)).generation, 2);
}
